//! Who services run as.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::input::Capabilities;
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    user(subject, found);
    let hardening = subject.service.hardening;
    if !hardening.no_new_privileges {
        let message = "the application may gain privileges by setuid and setgid programs";
        let place = subject.place(&["hardening", "no_new_privileges"]);
        found.push(
            finding(&rule::NEW_PRIVILEGES, message)
                .at(place, "write `true`, unless it runs `sudo`, `sendmail` or the like"),
        );
    }
    if hardening.capabilities == Capabilities::Inherited {
        let message = "the application may gain capabilities by programs that have them";
        let place = subject.place(&["hardening", "capabilities"]);
        found.push(finding(&rule::KEPT_CAPABILITIES, message).at(place, "write `none`"));
    }
}

fn user(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
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
