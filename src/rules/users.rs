//! Who services run as.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::input::{Capabilities, RunScript};
use crate::model::service::{SYSTEM, TEMPORARY};
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
    isolation(subject, found);
}

fn isolation(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let hardening = service.hardening;
    if service.run_script == RunScript::Shell {
        for (key, is_on) in
            [("private_tmp", hardening.private_tmp), ("read_only_system", hardening.read_only_system)]
        {
            if is_on {
                let message =
                    format!("`hardening.{key}` takes the native run script: a shell cannot isolate");
                let place = subject.place(&["hardening", key]);
                found.push(
                    finding(&rule::ISOLATION, message).at(place, "remove it, or write `run_script: native`"),
                );
            }
        }
    }
    let below = |path: &str, directories: &[&'static str]| {
        let is_below = |one: &&&str| {
            path.strip_prefix(**one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        directories.iter().find(is_below).copied()
    };
    let layout = &service.layout;
    let mut written: Vec<(&[&str], &str)> = vec![
        (&["root"], &service.root),
        (&["layout", "run"], &layout.run),
        (&["layout", "pids"], &layout.pids.path),
        (&["layout", "logs"], &layout.logs.path),
        (&["layout", "sockets"], &layout.sockets.path),
    ];
    written.extend(service.bind.iter().filter_map(|one| Some((&["bind"][..], one.unix_path()?))));
    let shared = [(&["virtualenv"][..], service.virtualenv.as_deref().unwrap_or_default())];
    let mut complain =
        |(keys, path): (&[&str], &str), directories: &[&'static str], key: &str, what: &str| {
            if let Some(directory) = below(path, directories) {
                let message = format!("`{path}` is below `{directory}`, which `hardening.{key}` {what}");
                found.push(
                    finding(&rule::ISOLATION, message)
                        .at(subject.place(keys), "write a path elsewhere, or turn the isolation off"),
                );
            }
        };
    if hardening.private_tmp {
        for one in written.iter().chain(&shared) {
            complain(*one, &TEMPORARY, "private_tmp", "replaces");
        }
    }
    if hardening.read_only_system {
        for one in &written {
            complain(*one, &SYSTEM, "read_only_system", "makes read-only");
        }
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
