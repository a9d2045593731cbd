//! The words of gunicorn's command line, as argparse reads them.

use super::Word;
use crate::diagnostic::Diagnostic;
use crate::model::nearest;
use crate::model::settings::{GUNICORN, Kind, Pillar};
use crate::rule;
use crate::rules::finding;
use crate::source::Span;

/// What to do instead of an option whose setting the pillar owns or refuses, by the setting; a test holds them against the
/// table.
const INSTEAD: &[(&str, &str)] = &[
    ("config", "leave it out: the configuration file is rendered"),
    ("bind", "write `bind`"),
    ("check_config", "leave it out: the server would end at once"),
    ("print_config", "leave it out: the server would end at once"),
    ("chdir", "leave it out: the server starts in ROOT/current"),
    ("daemon", "leave it out: runit supervises the server, which must stay in the foreground"),
    ("raw_env", "write `environment`"),
    ("pidfile", "leave it out, or write `layout.pids`"),
    ("user", "write `user`"),
    ("group", "write `group`"),
    ("umask", "write `umask`"),
    ("initgroups", "leave it out, or write `groups`"),
];

/// What a word of gunicorn's command line is to argparse.
enum Meaning<'a> {
    /// An option of this setting, as it was written; with the value that stands in the same word.
    Setting { at: usize, written: String, value: Option<&'a str> },
    /// `-h` and `-v`: gunicorn prints something and ends.
    Ends(&'a str),
    /// It could be several.
    Ambiguous(&'a str, Vec<&'a str>),
    /// There is none.
    Unknown(&'a str),
}

/// Options that argparse adds, and that are no setting.
const ENDING: &[&str] = &["-h", "--help", "-v", "--version"];

/// As argparse resolves the options of one word: whole, abbreviated where only one begins so, short ones in a row.
fn meanings(word: &str) -> Vec<Meaning<'_>> {
    let settings = &GUNICORN.settings;
    let find = |name: &str| settings.iter().position(|setting| setting.cli.iter().any(|one| one == name));
    if let Some(rest) = word.strip_prefix("--") {
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (&word[..name.len() + 2], Some(value)),
            None => (word, None),
        };
        if let Some(at) = find(name) {
            return vec![Meaning::Setting { at, written: name.to_owned(), value }];
        }
        let all = settings.iter().flat_map(|setting| setting.cli.iter().map(String::as_str));
        let near: Vec<&str> = all.chain(ENDING.iter().copied()).filter(|one| one.starts_with(name)).collect();
        return vec![match near[..] {
            [] => Meaning::Unknown(name),
            [one] if ENDING.contains(&one) => Meaning::Ends(name),
            [one] => match find(one) {
                Some(at) => Meaning::Setting { at, written: name.to_owned(), value },
                None => Meaning::Unknown(name),
            },
            _ => Meaning::Ambiguous(name, near),
        }];
    }
    let mut found = vec![];
    for (start, letter) in word.char_indices().skip(1) {
        let name = format!("-{letter}");
        if let Some(ends) = ENDING.iter().find(|one| **one == name) {
            found.push(Meaning::Ends(ends));
            continue;
        }
        let Some(at) = find(&name) else {
            found.push(Meaning::Unknown(word));
            break;
        };
        let rest = &word[start + letter.len_utf8()..];
        let takes_value = settings[at].kind != Kind::Boolean;
        let value = (takes_value && !rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        found.push(Meaning::Setting { at, written: name, value });
        if takes_value {
            break;
        }
    }
    found
}

/// Whether argparse takes a word for an option: negative numbers are values.
fn is_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.parse::<f64>().is_err())
}

/// `has_app`: the application follows, so that another one is one too many.
pub(super) fn check(words: &[Word<'_>], place: &str, has_app: bool, found: &mut Vec<Diagnostic>) {
    let mut say = |message: String, span: Span, help: String| {
        found.push(finding(&rule::COMMAND_OPTION, message).at(span, help));
    };
    let mut rest = words.iter().peekable();
    // Nobody knows whether an option that is none, or several, was to have a value.
    let mut may_be_value = false;
    while let Some(&(word, span)) = rest.next() {
        if word == "--" {
            if has_app {
                let message =
                    format!("`--` {place}: what follows, `-c` and `app` included, is no option any more");
                say(message, span, "leave it out".to_owned());
            }
            return;
        }
        if !is_option(word) {
            if has_app && !std::mem::take(&mut may_be_value) {
                let message =
                    format!("`{word}` {place}: gunicorn ends, because it gets the application a second time");
                say(message, span, "leave it out, and write `app`".to_owned());
            }
            continue;
        }
        may_be_value = false;
        for meaning in meanings(word) {
            may_be_value |= matches!(meaning, Meaning::Unknown(_) | Meaning::Ambiguous(_, _));
            match meaning {
                Meaning::Unknown(name) => {
                    let names: Vec<String> =
                        GUNICORN.settings.iter().flat_map(|setting| setting.cli.iter().cloned()).collect();
                    let meant = nearest(name, &names).map(|near| format!("did you mean `{near}`?"));
                    let message = format!(
                        "`{name}` {place}: gunicorn {} has no such option, and ends",
                        GUNICORN.version
                    );
                    say(message, span, meant.unwrap_or_else(|| "leave it out".to_owned()));
                }
                Meaning::Ambiguous(name, near) => {
                    let message = format!("`{name}` {place} could be {}: gunicorn ends", near.join(", "));
                    say(message, span, "write it out".to_owned());
                }
                Meaning::Ends(name) => {
                    let message = format!("`{name}` {place}: gunicorn prints something and ends");
                    say(message, span, "leave it out".to_owned());
                }
                Meaning::Setting { at, written, value } => {
                    let setting = &GUNICORN.settings[at];
                    let takes_value = setting.kind != Kind::Boolean;
                    if !takes_value && value.is_some() {
                        let message =
                            format!("`{word}` {place}: `{written}` takes no value, and gunicorn ends");
                        say(message, span, format!("write `{written}`"));
                    }
                    let value = match value {
                        // argparse takes no option for a value, also where one is missing.
                        None if takes_value => rest.next_if(|(next, _)| !is_option(next)).copied(),
                        value => value.map(|value| (value, span)),
                    };
                    if takes_value && value.is_none() {
                        let message = format!("`{written}` {place} has no value, and gunicorn ends");
                        say(message, span, "write its value".to_owned());
                    }
                    if setting.pillar != Pillar::Allowed {
                        let message = format!("`{written}` {place} overrules what the pillar says");
                        let instead = INSTEAD.iter().find(|(name, _)| *name == setting.name);
                        say(message, span, instead.map_or("leave it out", |(_, instead)| instead).to_owned());
                    } else if setting.name == "worker_class"
                        && let Some((class, span)) = value
                        && let Some((rule, message, help)) = super::super::server::class(class)
                        && rule != &rule::NEEDS_PACKAGE
                    {
                        say(format!("`{written} {class}` {place}: {message}"), span, help);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option of gunicorn whose setting a pillar may not set is known here, and no other.
    #[test]
    fn the_options_are_those_of_the_table() {
        let refused =
            GUNICORN.settings.iter().filter(|one| one.pillar != Pillar::Allowed && !one.cli.is_empty());
        let wanted: Vec<&str> = refused.map(|setting| setting.name.as_str()).collect();
        let known: Vec<&str> = INSTEAD.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, wanted);
    }
}
