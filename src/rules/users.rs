//! Who services run as.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    if service.user == "root" {
        found.push(
            finding(&rule::USER_ROOT, "the application runs as root")
                .at(subject.place(&["user"]), "write a user of its own, one that owns its releases"),
        );
    } else if service.group == "root" {
        found.push(
            finding(&rule::USER_ROOT, "the application runs in the group root")
                .at(subject.place(&["group"]), "write a group of its own"),
        );
    }
}
