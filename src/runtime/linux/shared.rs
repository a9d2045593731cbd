//! Descriptors that the application's user has as well, or had: whatever may wait for that user is done by a helper.
//!
//! The kernel takes a lock for most of what is done with a socket or a pipe, and somebody who shares it can hold that lock for as
//! long as they like: of a pipe by splice(2) from a socket that nothing comes from, of a socket by an option whose value
//! lies in a file system of their own. Whoever waits for such a lock does not even end by SIGKILL. So the runtime takes descriptors
//! out of processes (pidfd_getfd(2)), asks sockets, changes them and closes pipes by a helper with a time limit.
//!
//! The application's user decides what is behind each number of a process, until the moment it is taken. The runtime gets sockets that
//! listen where they are to, and ends of pipes; nothing else.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::net::{Shutdown, listen, shutdown};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::{Deserialize, Serialize};

use super::listen::{self, FIRST, Kept, Listener, MOST};
use super::process::Process;
use super::{keeper, kernel};
use crate::host::helper::{self, Helper};

/// The hidden command that is this process.
pub const COMMAND: &str = "shared";

/// What is to be done with the descriptors that come with it.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Of the process that this pidfd is of: the sockets that listen at these addresses.
    Take(Vec<Kept>),
    /// Of the process that this pidfd is of: the reading end of the pipe that is its standard output.
    TakeOutput,
    /// Which of these sockets are what they are known as, and listen.
    Prove(Vec<Kept>),
    /// New clients are refused from now on; what waits in the queue can still be accepted.
    TurnAway,
    /// Nobody can connect from now on, and nobody accepts.
    Refuse,
    /// The queue is so long from now on.
    Backlog(i32),
    /// The log is opened again for writing.
    OpenLog,
    /// They are held until whoever sent them has let them go.
    Close,
}

/// What came of it.
#[derive(Default, Serialize, Deserialize)]
struct Reply {
    /// What the sockets that come with it are known as.
    listeners: Vec<Kept>,
    /// For each descriptor, whether it is so, or could be done.
    are: Vec<bool>,
    error: Option<String>,
}

/// The sockets that are wanted, as far as a process has them.
pub fn take(process: &Process, wanted: &[Kept]) -> Vec<Listener> {
    let Ok((reply, fds)) = order(&Order::Take(wanted.to_vec()), &[process.as_fd()]) else { return vec![] };
    reply.listeners.into_iter().zip(fds).map(|(kept, fd)| Listener::of(kept, fd)).collect()
}

/// The reading end of the pipe that is a process's standard output; none if that is something else. While nobody has it,
/// whatever the server says fails, and with it a request that says something.
pub fn take_output(process: &Process) -> Option<OwnedFd> {
    order(&Order::TakeOutput, &[process.as_fd()]).ok()?.1.pop()
}

/// Those that are what they are known as, and listen.
pub fn proven(listeners: Vec<Listener>) -> Vec<Listener> {
    if listeners.is_empty() {
        return listeners;
    }
    let known = listeners.iter().map(|listener| listener.kept.clone()).collect();
    // The keeper has them from a run before: if nobody can look they are believed, because without them the addresses refuse.
    let Ok(are) = all(&Order::Prove(known), &listeners) else { return listeners };
    listeners.into_iter().zip(are).filter_map(|(listener, is_true)| is_true.then_some(listener)).collect()
}

/// New clients are refused from now on, whoever else has the sockets; for each, whether that could be done. What waits in the queue can
/// still be accepted. A Unix socket is not reached any more once its file is gone.
pub fn turn_away(listeners: &[Listener]) -> Vec<bool> {
    if listeners.iter().all(|listener| listener.kept.node.is_some()) {
        return vec![true; listeners.len()];
    }
    // Those of which nothing is known are refused at the end, at the latest.
    let turned = all(&Order::TurnAway, listeners).unwrap_or_else(|_| vec![true; listeners.len()]);
    listeners.iter().zip(turned).map(|(one, is_turned)| one.kept.node.is_some() || is_turned).collect()
}

/// Nobody can connect from now on, and nobody accepts, whoever else has the sockets: the keeper lets them go a moment later.
pub fn refuse(listeners: &[Listener]) {
    if !listeners.is_empty() {
        // Whoever holds them up holds up clients of its own.
        let _ = all(&Order::Refuse, listeners);
    }
}

/// Gives a socket's queue a length, unless this run has done so before.
pub fn set_backlog(listener: &Listener, backlog: i32) -> io::Result<()> {
    if listener.backlog.replace(Some(backlog)) == Some(backlog) {
        return Ok(());
    }
    match order(&Order::Backlog(backlog), &[listener.as_fd()])?.0.error {
        Some(error) => Err(io::Error::other(error)),
        None => Ok(()),
    }
}

/// Opens the log again, so that not waiting is for whoever gets it alone.
pub fn open_log(log: BorrowedFd<'_>) -> Option<OwnedFd> {
    order(&Order::OpenLog, &[log]).ok()?.1.pop()
}

/// Closes ends of pipes. If no helper can be had they stay open, which costs a few descriptors.
pub fn close(pipes: Vec<OwnedFd>) {
    if pipes.is_empty() {
        return;
    }
    let Ok(helper) = Helper::start(COMMAND) else { return pipes.into_iter().for_each(std::mem::forget) };
    let fds: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
    match helper.ask::<Reply>(&Order::Close, &fds) {
        // It still has them, so that this is not the last close. It ends with the helper.
        Ok(_) => drop(pipes),
        Err(_) => pipes.into_iter().for_each(std::mem::forget),
    }
}

/// For each socket, whether it is so, or could be done.
fn all(what: &Order, listeners: &[Listener]) -> io::Result<Vec<bool>> {
    let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut are = order(what, &fds)?.0.are;
    are.resize(listeners.len(), false);
    Ok(are)
}

fn order(order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
    Helper::start(COMMAND)?.ask(order, fds)
}

/// Whether two descriptors are of one pipe.
pub fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    matches!((fstat(one), fstat(other)), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// The helper itself.
pub fn main() -> u8 {
    helper::serve(|order: Order, fds| {
        let each = |done: &dyn Fn(&OwnedFd) -> bool| Reply {
            are: fds.iter().map(done).collect(),
            ..Reply::default()
        };
        let reply = match order {
            Order::Take(wanted) => {
                let found = fds.first().map(|process| listening(process, &wanted)).unwrap_or_default();
                let (listeners, taken) = found.into_iter().unzip();
                return (Reply { listeners, ..Reply::default() }, taken);
            }
            Order::TakeOutput => {
                return (Reply::default(), fds.first().and_then(reading).into_iter().collect());
            }
            Order::OpenLog => {
                let log = fds.first().and_then(|log| keeper::log(log.as_fd()));
                return (Reply::default(), log.into_iter().collect());
            }
            Order::Prove(known) => {
                let are = fds.iter().zip(&known).map(|(fd, kept)| listen::is_true(fd, kept));
                Reply { are: are.collect(), ..Reply::default() }
            }
            Order::TurnAway => each(&|fd| kernel::detach(fd)),
            Order::Refuse => each(&|fd| {
                // A TCP socket that was shut down could be made to listen again by whoever has it.
                let is_detached = kernel::detach(fd);
                // One that does not listen any more refuses already.
                shutdown(fd, Shutdown::Both).is_ok() || is_detached
            }),
            Order::Backlog(backlog) => {
                let failed = fds.first().and_then(|fd| listen(fd, backlog).err());
                Reply { error: failed.map(|error| error.to_string()), ..Reply::default() }
            }
            Order::Close => Reply::default(),
        };
        // They are open for as long as this process lives: until the answer was taken.
        fds.into_iter().for_each(leave);
        (reply, vec![])
    })
}

fn listening(process: &OwnedFd, wanted: &[Kept]) -> Vec<(Kept, OwnedFd)> {
    let mut found: Vec<(Kept, OwnedFd)> = vec![];
    for number in FIRST..FIRST + 2 * i32::try_from(MOST).unwrap_or(0) {
        let Some(fd) = taken(process, number, "socket:[") else { continue };
        let is_missing = |kept: &&Kept| !found.iter().any(|(one, _)| one.address == kept.address);
        match listen::identify(&fd, wanted.iter().filter(is_missing)) {
            Some(kept) => found.push((kept, fd)),
            None => leave(fd),
        }
    }
    found
}

fn reading(process: &OwnedFd) -> Option<OwnedFd> {
    // Only a pipe without a name is opened again: it is nobody else's.
    let writing = taken(process, 1, "pipe:[")?;
    let reading = open(name_of(&writing), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    leave(writing);
    reading.ok()
}

/// A descriptor of a process that is of this kind, by what the kernel calls it (proc_pid_fd(5)), without asking whatever is
/// behind it.
fn taken(process: &OwnedFd, number: i32, kind: &str) -> Option<OwnedFd> {
    let fd = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let leads_to = fs::read_link(name_of(&fd)).ok();
    if leads_to.is_some_and(|to| to.to_str().is_some_and(|to| to.starts_with(kind))) {
        return Some(fd);
    }
    leave(fd);
    None
}

fn name_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Leaves a descriptor open until this process ends: closing it may take long, and the answer comes first.
fn leave(fd: OwnedFd) {
    std::mem::forget(fd);
}
