//! What nobody should read.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::model::secret::{is_surely_secret, password_in_url, surely_assigns};
use crate::pillar::{Pair, Value};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(environment) = subject.given(&["environment"]) else { return };
    let Value::Map(variables) = &environment.value else { return };
    for Pair { key, value } in variables {
        let (Value::Str(name), Value::Str(text)) = (&key.value, &value.value) else { continue };
        let what = if is_surely_secret(name) {
            if text.is_empty() {
                continue;
            }
            "is named like a secret"
        } else if password_in_url(text).is_some() {
            "is a URL with a password in it"
        } else if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
            "is a private key"
        } else if surely_assigns(text) {
            "holds a secret"
        } else {
            continue;
        };
        let kept = Service::is_secret_name(name);
        let message = format!("`environment.{name}` {what}");
        let help = if kept {
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
