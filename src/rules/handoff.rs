//! How a new generation takes over.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::input::{Ready, Server};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let preloads = subject.is_on("preload_app");
    let message = match (service.server, service.handoff.ready) {
        (Server::Gunicorn | Server::Unicorn, Ready::Alive) => {
            "`handoff.ready: alive` says nothing about the application: a release that does not load would take over"
        }
        (Server::Gunicorn, Ready::Notify) if !preloads => {
            "gunicorn says that it is ready before a worker has loaded the application, because `preload_app` is off"
        }
        (Server::Unicorn, Ready::Notify) => {
            "unicorn never says that it is ready, so every hand-over would be backed out"
        }
        _ => return,
    };
    found.push(
        finding(&rule::READY_SIGNAL, message)
            .at(subject.place(&["handoff", "ready"]), "write `workers`, or leave it out"),
    );
}
