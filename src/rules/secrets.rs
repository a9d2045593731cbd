//! What nobody should read.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::pillar::{Pair, Value};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(environment) = subject.given(&["environment"]) else { return };
    let Value::Map(variables) = &environment.value else { return };
    for Pair { key, value } in variables {
        let (Value::Str(name), Value::Str(text)) = (&key.value, &value.value) else { continue };
        let what = if Service::is_secret_name(name) {
            if text.is_empty() {
                continue;
            }
            "is named like a secret"
        } else if has_credentials(text) {
            "is a URL with a password in it"
        } else if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
            "is a private key"
        } else {
            continue;
        };
        let named = what.starts_with("is named");
        let message = format!("`environment.{name}` {what}");
        let help = if named {
            "It is kept in a file of its own all the same; `secrets` says so to who reads the pillar."
        } else {
            "Every user of the host can read the run script and the variables in it."
        };
        found.push(
            finding(&rule::PLAIN_SECRET, message)
                .at_hidden(value.span, "write it below `secrets`")
                .help(help),
        );
    }
}

/// `scheme://user:password@host`.
fn has_credentials(text: &str) -> bool {
    text.match_indices("://").any(|(at, sign)| {
        let is_scheme = text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = &text[at + sign.len()..];
        let authority = &rest[..rest.find(['/', '?', '#', ' ', '\n']).unwrap_or(rest.len())];
        let Some((user, _)) = authority.rsplit_once('@') else { return false };
        is_scheme && user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::has_credentials;

    #[test]
    fn passwords_in_urls() {
        for text in ["postgres://app:pw@db/app", "see amqp://a:b@c", "http://:x@h"] {
            assert!(has_credentials(text), "{text}");
        }
        for text in [
            "postgres://db/app",
            "http://user@host/",
            "http://host/a:b@c",
            "a:b@c",
            "http://u:@h",
            "://a:b@c",
        ] {
            assert!(!has_credentials(text), "{text}");
        }
    }
}
