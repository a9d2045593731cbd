//! What differs between servers: which signal means what, and who may be asked for what.

use crate::model::input::Server;

/// A signal, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// Requests in flight finish, then the process ends: the same for a master and for its workers.
///
/// gunicorn and Ruby unicorn have TERM and QUIT the other way round (each one's document on signals). Any other program
/// gets TERM, which uvicorn and puma take for graceful.
pub fn graceful(server: Server) -> Signal {
    match server {
        Server::Gunicorn | Server::Any => Signal::Term,
        Server::Unicorn => Signal::Quit,
    }
}

/// A worker that was just forked may miss the signal that its master passes on, and hears a second one without harm.
///
/// gunicorn: measured, 12 of 1,398 requests were lost without the second one. A worker of unicorn ends at once at TERM.
pub fn passes_on_late(server: Server) -> bool {
    match server {
        Server::Gunicorn => true,
        Server::Unicorn | Server::Any => false,
    }
}

/// Its configuration has a hook by which the master reports a worker that has exited: the hook's name.
pub fn reports_workers(server: Server) -> Option<&'static str> {
    match server {
        Server::Gunicorn => Some("child_exit"),
        Server::Unicorn => Some("after_worker_exit"),
        Server::Any => None,
    }
}

/// Logs are opened again; none where nobody knows what the program would do.
pub fn reopen(server: Server) -> Option<Signal> {
    match server {
        Server::Gunicorn | Server::Unicorn => Some(Signal::Usr1),
        Server::Any => None,
    }
}

/// The master starts its successor; none where it cannot.
pub fn successor(server: Server) -> Option<Signal> {
    match server {
        Server::Gunicorn | Server::Unicorn => Some(Signal::Usr2),
        Server::Any => None,
    }
}
