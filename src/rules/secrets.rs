//! What nobody should read.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::model::secret::password_in_url;
use crate::pillar::{Pair, Value};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(environment) = subject.given(&["environment"]) else { return };
    let Value::Map(variables) = &environment.value else { return };
    for Pair { key, value } in variables {
        let (Value::Str(name), Value::Str(text)) = (&key.value, &value.value) else { continue };
        let what = if Service::is_secret_name(name) && !is_harmless(name) {
            if text.is_empty() {
                continue;
            }
            "is named like a secret"
        } else if password_in_url(text).is_some() {
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

/// Names that only look like a secret's: where one lies, what everybody may know, and words that hold KEY by chance. Their
/// values are kept as secrets all the same.
fn is_harmless(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split('_').collect();
    let is_place = matches!(words.last(), Some(&("DIR" | "DIRECTORY" | "FILE" | "NAME" | "PATH")));
    let is_other = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "DSN"].iter().any(|word| name.contains(word));
    // `APIKEY` and `ACCESSKEY` are keys, `MONKEY` and `KEYBOARD` are not.
    let has_key = words.iter().any(|word| {
        matches!(word.trim_end_matches('S'), "KEY" | "APIKEY" | "ACCESSKEY" | "SECRETKEY" | "PRIVATEKEY")
    });
    is_place || (!is_other && (!has_key || words.contains(&"PUBLIC")))
}
