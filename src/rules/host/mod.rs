//! What only the host knows: facts about it, judged. Nothing here asks.

mod addresses;
mod limits;
mod paths;
mod server;
mod users;

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::facts::{Asked, Facts};
use crate::rule;
use crate::visible::visible;

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    users::check(subject, facts, found);
    paths::check(subject, facts, found);
    addresses::check(subject, facts, found);
    limits::check(subject, facts, found);
    server::check(subject, facts, found);
    unchecked(subject, facts, found);
}

/// One note on everything that was not looked at, a line for each reason.
fn unchecked(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    fn reason<T>(asked: &Asked<T>) -> Option<&str> {
        match asked {
            Asked::Unknown(reason) => Some(reason),
            Asked::Answer(_) | Asked::Moot => None,
        }
    }
    let all = [
        ("the user", reason(&facts.user)),
        ("the group", reason(&facts.group)),
        ("what the user can reach", reason(&facts.reach)),
        ("the command", reason(&facts.command)),
        ("the runtime", reason(&facts.runtime)),
        ("the version of bash", reason(&facts.bash)),
        ("who listens", reason(&facts.listeners)),
        ("limits", reason(&facts.limits)),
        ("the installed server", reason(&facts.server)),
        ("the server's configuration", reason(&facts.configuration)),
    ];
    let mut reasons: Vec<(&str, Vec<&str>)> = vec![];
    for (what, reason) in all {
        let Some(reason) = reason else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, whats)) => whats.push(what),
            None => reasons.push((reason, vec![what])),
        }
    }
    for (reason, whats) in reasons {
        let message = format!("not looked at: {} ({})", whats.join(", "), visible(reason));
        found.push(finding(&rule::HOST_UNCHECKED, message).at(subject.span, ""));
    }
}

/// `drwxr-x--- alice:staff`, of a directory that bars the way.
fn standing(facts: &Facts, path: &str) -> String {
    facts.entries.get(path).map_or_else(String::new, |entry| {
        format!(" (mode {:04o}, {}:{})", entry.mode, visible(&entry.owner), visible(&entry.group))
    })
}
