//! Users and groups that the host knows, and their home.

use super::{finding, standing};
use crate::diagnostic::Diagnostic;
use crate::facts::{Asked, Facts, Walk};
use crate::pillar::{Node, Value};
use crate::rule;
use crate::rules::Subject;
use crate::source::Span;
use crate::visible::visible;

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let mut unknown = |message: String, steps: &[&str], help: &str| {
        found.push(finding(&rule::HOST_USER, message).at(subject.place(steps), "").help(help));
    };
    let no_user = facts.user == Asked::Answer(None);
    if no_user {
        unknown(
            format!("this host has no user {}", service.user),
            &["user"],
            "Make it before the service is rendered there.",
        );
    }
    if facts.group == Asked::Answer(None) && !(no_user && service.group == service.user) {
        let steps: &[&str] = if subject.given(&["group"]).is_some() { &["group"] } else { &["user"] };
        unknown(
            format!("this host has no group {}", service.group),
            steps,
            "Make it, or set `group`: its default is the user's name.",
        );
    }
    for (what, names) in [("user", &facts.unknown_users), ("group", &facts.unknown_groups)] {
        for name in names {
            let span = named(subject, what, name).unwrap_or(subject.span);
            found.push(
                finding(&rule::HOST_USER, format!("this host has no {what} {name}"))
                    .at(span, "")
                    .help("Make it before the service is rendered there, or leave it out."),
            );
        }
    }
    home(subject, facts, found);
}

/// Where the pillar names a user or group for a socket, a directory, or as a supplementary group.
fn named(subject: &Subject<'_>, what: &str, name: &str) -> Option<Span> {
    let is_it = |node: &Node| matches!(&node.value, Value::Str(text) if text == name);
    let below = |node: &Node| node.find([what]).filter(|node| is_it(node)).map(|node| node.span);
    if what == "group"
        && let Some(Value::List(items)) = subject.given(&["groups"]).map(|node| &node.value)
        && let Some(item) = items.iter().find(|item| is_it(item))
    {
        return Some(item.span);
    }
    if let Some(bind) = subject.given(&["bind"]) {
        let item = match &bind.value {
            Value::List(items) => items.iter().find_map(below),
            _ => below(bind),
        };
        if item.is_some() {
            return item;
        }
    }
    let layout = ["releases", "pids", "logs", "sockets", "config"];
    layout.into_iter().find_map(|key| below(subject.given(&["layout", key])?))
}

fn home(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let Some(reach) = facts.reach.answer() else { return };
    let steps: &[&str] = if subject.given(&["home"]).is_some() { &["home"] } else { &["user"] };
    let path = visible(&service.home);
    let message = match reach.walk(&service.home) {
        Walk::There(access) if access.is_directory && access.execute => return,
        Walk::There(access) if !access.is_directory => format!("HOME, {path}, is not a directory"),
        Walk::There(_) => {
            format!("HOME: the user {} cannot enter {path}{}", service.user, standing(facts, &service.home))
        }
        Walk::Barred(at) => format!(
            "HOME: on the way to {path} the user {} cannot enter {}{}",
            service.user,
            visible(&at),
            standing(facts, &at)
        ),
        Walk::Absent => format!("HOME, {path}, is not there"),
    };
    let mut diagnostic = finding(&rule::HOST_HOME, message).at(subject.place(steps), "");
    let known = facts.user.answer().and_then(Option::as_ref).filter(|user| user.home != service.home);
    if let Some(user) = known.filter(|user| !user.home.is_empty()) {
        diagnostic = diagnostic.help(format!("The host has {} for it: set `home`.", visible(&user.home)));
    }
    found.push(diagnostic);
}
