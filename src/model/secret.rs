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
    } else if Service::is_secret_name(key)
        // Nearly no key gets as far as being taken apart.
        || (has_any(key, &["PASS", "PW", "CREDENTIAL"]) && words(key).any(|word| is_other(&word)))
    {
        Named::Value
    } else {
        Named::No
    }
}

/// Whether a name has any of some words in capitals anywhere in it, whatever its own letters are. It is asked a million times
/// of a large pillar: a copy of the name in capitals, and a search in it for each word, took a tenth of reading one.
pub(super) fn has_any(name: &str, words: &[&str]) -> bool {
    let bytes = name.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let begins = |word: &&str| {
            word.as_bytes().first() == Some(&byte.to_ascii_uppercase())
                && bytes
                    .get(at..at + word.len())
                    .is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        };
        words.iter().any(begins)
    })
}

/// The words of a name: `db_password`, `apiKey` and `API-KEY` have two each. In capitals.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut before = None;
    for c in name.chars() {
        let is_next =
            c.is_ascii_uppercase() && before.is_some_and(|before: char| before.is_ascii_lowercase());
        if (is_next || !c.is_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_uppercase());
        }
        before = Some(c);
    }
    words.into_iter()
}

/// Words for a secret besides those of [`Service::is_secret_name`].
fn is_other(word: &str) -> bool {
    matches!(word, "PASS" | "PASSPHRASE" | "PW" | "CREDENTIAL" | "CREDENTIALS")
}

/// Whether a name says that its value is a secret, and nothing in it says that it is not: `TOKEN_URL` tells where
/// tokens come from, `PASSWORD_MIN_LENGTH` is a number, a `SECRETARY` is a person and a `MONKEY` has no key. It takes
/// rather one too few; who prints something asks [`named`].
pub fn is_surely_secret(name: &str) -> bool {
    const ABOUT: &[&str] = &[
        "AGE",
        "ALGORITHM",
        "AUDIENCE",
        "CLASS",
        "COUNT",
        "DAYS",
        "DIR",
        "DIRECTORY",
        "ENABLED",
        "ENDPOINT",
        "EXPIRATION",
        "EXPIRE",
        "EXPIRES",
        "EXPIRY",
        "FIELD",
        "FILE",
        "HASHERS",
        "HEADER",
        "HOST",
        "HOURS",
        "ID",
        "ISSUER",
        "LENGTH",
        "LIFETIME",
        "LIMIT",
        "MAX",
        "MIN",
        "MINUTES",
        "NAME",
        "PATH",
        "POLICY",
        "PREFIX",
        "REQUIRED",
        "SECONDS",
        "SIZE",
        "TIMEOUT",
        "TTL",
        "TYPE",
        "URI",
        "URL",
        "VALIDATORS",
        "VERSION",
    ];
    let words: Vec<String> = words(name).collect();
    if words.last().is_some_and(|last| ABOUT.contains(&last.as_str())) {
        return false;
    }
    let is_public = words.iter().any(|word| word == "PUBLIC");
    words.iter().any(|word| {
        let one = word.strip_suffix('S').unwrap_or(word);
        is_other(word)
            || word.contains("PASSWORD")
            || word.contains("PASSWD")
            || ["SECRET", "TOKEN", "DSN"].iter().any(|end| word.ends_with(end) || one.ends_with(end))
            || (!is_public
                && (one == "KEY"
                    || ["APIKEY", "ACCESSKEY", "SECRETKEY", "PRIVATEKEY"]
                        .iter()
                        .any(|end| one.ends_with(end))))
    })
}

/// Whether a text gives a value to a name that is surely a secret's: `host=db password=hunter2`. In a text a key may be
/// anything: `order=key:asc`.
pub fn surely_assigns(text: &str) -> bool {
    let is_meant = |name: &str| is_surely_secret(name) && words(name).last().is_none_or(|last| last != "KEY");
    named_before(text, is_meant).is_some_and(|at| {
        let value = text.get(at..).unwrap_or_default().trim_start_matches(['"', '\'', ' ']);
        // What a program fills in is no secret yet.
        value.chars().next().is_some_and(|first| first.is_alphanumeric())
    })
}

/// Whether a text gives a value to a name that says secret: `DB_PASSWORD=…`, `DB_PASSWORD: …`; or is a URL with a password.
pub fn assigns(text: &str) -> bool {
    value_in(text).is_some()
}

/// Where in a line the value begins that follows the first key or name that says secret and `:` or `=`; or the password of a URL.
pub fn value_in(line: &str) -> Option<usize> {
    // Nearly no value of a large pillar has any of these.
    if !line.bytes().any(|byte| matches!(byte, b':' | b'=' | b'-')) {
        return None;
    }
    let named = named_before(line, |name| named(name) != Named::No);
    named.into_iter().chain(option_value_in(line)).chain(password_in_url(line)).min()
}

/// Where a value begins that follows an option of a command in a word of its own: `--password X`, `"--token", "X"`.
fn option_value_in(line: &str) -> Option<usize> {
    line.match_indices("--").find_map(|(at, dashes)| {
        let begin = at + dashes.len();
        let rest = &line[begin..];
        let end = begin + rest.find(|c: char| !is_part_of_name(c)).unwrap_or(rest.len());
        let follows = line[end..].starts_with([' ', '\t', '"', '\'', ',']) && !line[end..].trim().is_empty();
        (follows && is_secret_option(&line[at..end])).then_some(end)
    })
}

/// Whether the word of a command is an option whose value, which follows, is a secret.
pub fn is_secret_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && is_surely_secret(word.trim_start_matches('-'))
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
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

/// Where the value begins of the first name before `:` or `=` that is meant.
fn named_before(line: &str, is_meant: impl Fn(&str) -> bool) -> Option<usize> {
    line.match_indices([':', '=']).find_map(|(separator, _)| {
        let before = line.get(..separator)?.trim_end().trim_end_matches(['"', '\'']);
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_part_of_name(*c))
            .last()
            .map_or(before.len(), |(at, _)| at);
        is_meant(before.get(start..)?).then_some(separator + 1)
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

    #[test]
    fn what_is_surely_secret() {
        for name in [
            "DB_PASSWORD",
            "DBPASSWORD",
            "apiKey",
            "API_KEY",
            "API-KEYS",
            "APIKEY",
            "KEY",
            "CLIENT_SECRET",
            "clientSecret",
            "SECRETS",
            "ACCESS_TOKEN",
            "SENTRY_DSN",
            "DB_PASS",
            "PW",
            "PASSPHRASE",
            "AWS_CREDENTIALS",
            "PRIVATE_KEY",
        ] {
            assert!(is_surely_secret(name), "{name}");
            assert_ne!(named(name), Named::No, "{name} is not masked");
        }
        for name in [
            "TOKEN_URL",
            "PASSWORD_MIN_LENGTH",
            "SECRETARY",
            "MONKEY",
            "KEYBOARD",
            "PUBLIC_KEY",
            "SSL_KEY_FILE",
            "TOKENIZER",
            "AWS_ACCESS_KEY_ID",
            "PASSENGER",
            "COMPASS",
            "PWD",
            "",
            "_",
        ] {
            assert!(!is_surely_secret(name), "{name}");
        }
        for (text, is_secret) in [
            ("host=x password=hunter2", true),
            ("jdbc:x?user=u&password=hunter2", true),
            ("password=%(secret)s", false),
            ("key=", false),
            ("a: b", false),
            ("key:asc", false),
            ("primary_key=id password=hunter2", true),
        ] {
            assert_eq!(surely_assigns(text), is_secret, "{text}");
        }
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
            ("gunicorn --token hunter2", Some(" hunter2")),
            ("[\"gunicorn\", \"--token\", hunter2]", Some("\", hunter2]")),
            ("gunicorn --keyfile /x --token", None),
        ] {
            assert_eq!(value_in(text).map(|at| &text[at..]), value, "{text}");
            assert_eq!(assigns(text), value.is_some(), "{text}");
        }
    }
}
