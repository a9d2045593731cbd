//! What a pillar's words say about secrets: by its name a key tells that its value is one. A guess that takes rather too
//! many than one too few, for excerpts, messages and whatever else is printed.

use super::Service;
use crate::pillar::Value;

/// What a key of a pillar says about the value that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Whatever stands below it is secret: `secrets`, also if it is misspelt.
    All,
    /// It is secret unless it is a map: an application may be called `monkey`.
    Value,
    /// Nothing.
    No,
}

/// What the key `key` says.
pub fn named(key: &str) -> Named {
    /// Letters that may be wrong, missing, too many or swapped.
    const MISTAKES: usize = 2;
    // A large pillar has a million keys, nearly none of which is worth a comparison: one that is near has as many
    // letters, and of the five different ones all but two.
    let has = |letter: u8| key.bytes().any(|byte| byte.eq_ignore_ascii_case(&letter));
    let may_be = (4..=9).contains(&key.len()) && b"secrt".iter().filter(|letter| has(**letter)).count() >= 3;
    let like_secrets = || {
        let lower = key.to_ascii_lowercase();
        ["secrets", "secret"].iter().any(|name| strsim::damerau_levenshtein(&lower, name) <= MISTAKES)
            // The one key of the model that is so near.
            && lower != "sockets"
    };
    if may_be && like_secrets() {
        Named::All
    } else if Service::is_secret_name(key) {
        Named::Value
    } else {
        Named::No
    }
}

/// Whether a text gives a value to a name that says secret: `DB_PASSWORD=…`, `DB_PASSWORD: …`; or is a URL with a password.
pub fn assigns(text: &str) -> bool {
    value_in(text).is_some()
}

/// Where in a line the value begins that follows the first key or name that says secret and `:` or `=`; or the password of a URL.
pub fn value_in(line: &str) -> Option<usize> {
    named_value_in(line).into_iter().chain(password_in_url(line)).min()
}

/// Where the password begins in `scheme://user:password@host`.
pub fn password_in_url(text: &str) -> Option<usize> {
    text.match_indices("://").find_map(|(at, sign)| {
        let is_scheme = text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        let begin = at + sign.len();
        let rest = &text[begin..];
        let authority = &rest[..rest.find(['/', '?', '#', ' ', '\n']).unwrap_or(rest.len())];
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        (is_scheme && !password.is_empty()).then_some(begin + name.len() + 1)
    })
}

fn named_value_in(line: &str) -> Option<usize> {
    line.match_indices([':', '=']).find_map(|(separator, _)| {
        let before = line.get(..separator)?.trim_end().trim_end_matches(['"', '\'']);
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_part(*c))
            .last()
            .map_or(before.len(), |(at, _)| at);
        (named(before.get(start..)?) != Named::No).then_some(separator + 1)
    })
}

/// Whether what stands at `steps` (keys and indexes from an application on) is secret.
pub fn is_at<'a>(steps: impl IntoIterator<Item = &'a str>, value: Option<&Value>) -> bool {
    steps.into_iter().any(|step| named(step) != Named::No)
        || matches!(value, Some(Value::Str(text)) if assigns(text))
}

/// Steps as they are written in a sentence: `secrets.A`. What stands in the place of a key and holds a secret, as in
/// `{A:hunter2}`, is left out.
pub fn dotted<'a>(steps: impl IntoIterator<Item = &'a str>) -> String {
    let mut below = false;
    let shown = |step: &'a str| {
        let odd =
            assigns(step) || below && !is_variable(step) && !step.bytes().all(|byte| byte.is_ascii_digit());
        below |= named(step) == Named::All;
        if odd { "…" } else { step }
    };
    steps.into_iter().map(shown).collect::<Vec<_>>().join(".")
}

/// Whether a key could be the name of an environment variable.
pub fn is_variable(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && key.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Whether a key can be nothing else than the name of an environment variable, as people write them.
pub fn is_shouted(key: &str) -> bool {
    is_variable(key) && !key.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_named_so() {
        for key in ["secrets", "secret", "Secrets", "SECRETS", "secert", "screts", "secrets_", "secretes"] {
            assert_eq!(named(key), Named::All, "{key}");
        }
        for key in ["DB_PASSWORD", "apiKey", "sentry_dsn", "x_secret_x", "monkey"] {
            assert_eq!(named(key), Named::Value, "{key}");
        }
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../schemas/pillar.schema.json")).unwrap();
        let mut wrong = vec![];
        keys(&schema, &mut |key| wrong.extend((named(key) == Named::All).then(|| key.to_owned())));
        wrong.dedup();
        assert_eq!(wrong, ["secrets"], "a key of the model is taken for a misspelling");
    }

    fn keys(schema: &serde_json::Value, look: &mut dyn FnMut(&str)) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "properties" {
                value.as_object().into_iter().flatten().for_each(|(key, _)| look(key));
            }
            keys(value, look);
        }
    }

    #[test]
    fn a_path_shows_names_only() {
        assert_eq!(dotted(["secrets", "A", "0"]), "secrets.A.0");
        assert_eq!(dotted(["secrets", "A:hunter2"]), "secrets.…");
        assert_eq!(dotted(["environment", "API_KEY=hunter2"]), "environment.…");
        assert_eq!(dotted(["environment", "x y"]), "environment.x y");
    }

    #[test]
    fn what_follows_a_name_is_its_value() {
        for (text, value) in [
            ("DB_PASSWORD=x", Some("x")),
            ("a: b, \"API_KEY\" : x", Some(" x")),
            ("{% set token = 'x' %}", Some(" 'x' %}")),
            ("user: x", None),
            ("postgres://app:pw@db/app", Some("pw@db/app")),
            ("see amqp://a:b@c", Some("b@c")),
            ("http://:x@h", Some("x@h")),
            ("postgres://db/app", None),
            ("http://user@host/", None),
            ("http://host/a:b@c", None),
            ("a:b@c", None),
            ("http://u:@h", None),
            ("://a:b@c", None),
            ("unix:/run/web.sock", None),
        ] {
            assert_eq!(value_in(text).map(|at| &text[at..]), value, "{text}");
            assert_eq!(assigns(text), value.is_some(), "{text}");
        }
    }
}
