//! Descriptors taken out of living processes of the service (pidfd_getfd(2)): what is left to do when the keeper has gone as well.
//!
//! The application's user decides what is behind each number, until the moment it is taken. So a helper takes them: closing one
//! may wait for as long as that user likes, and the helper ends with all that it did not send. The runtime gets sockets that
//! listen where they are to, and ends of pipes; nothing else.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::{Deserialize, Serialize};

use super::listen::{self, FIRST, Kept, Listener, MOST};
use super::process::Process;
use crate::host::helper::{self, Helper};

/// The hidden command that is this process.
pub const COMMAND: &str = "take-out";

/// What is wanted of a process.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Sockets that listen at these addresses.
    Listeners(Vec<Kept>),
    /// The reading end of the pipe that is its standard output.
    Output,
}

/// What came of it, in the order of the descriptors that come with it.
#[derive(Serialize, Deserialize)]
struct Reply {
    listeners: Vec<Kept>,
}

/// The sockets that are wanted, as far as a process has them.
pub fn listeners(process: &Process, wanted: &[Kept]) -> Vec<Listener> {
    let Some((reply, fds)) = order(process, &Order::Listeners(wanted.to_vec())) else { return vec![] };
    reply.listeners.into_iter().zip(fds).map(|(kept, fd)| Listener { kept, fd }).collect()
}

/// The reading end of the pipe that is a process's standard output; none if that is something else. While nobody has it,
/// whatever the server says fails, and with it a request that says something.
pub fn output(process: &Process) -> Option<OwnedFd> {
    order(process, &Order::Output)?.1.pop()
}

/// None if the helper fails: then the process has nothing to give, or its user sees to it that it takes too long.
fn order(process: &Process, order: &Order) -> Option<(Reply, Vec<OwnedFd>)> {
    Helper::start(COMMAND).ok()?.ask(order, &[process.as_fd()]).ok()
}

/// Whether two descriptors are of one pipe.
pub fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    matches!((fstat(one), fstat(other)), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// The helper itself.
pub fn main() -> u8 {
    helper::serve(|order: Order, process| {
        let Some(process) = process.first() else { return (Reply { listeners: vec![] }, vec![]) };
        match order {
            Order::Listeners(wanted) => {
                let (listeners, fds) = listening(process, &wanted).into_iter().unzip();
                (Reply { listeners }, fds)
            }
            Order::Output => (Reply { listeners: vec![] }, reading(process).into_iter().collect()),
        }
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
    open(name_of(&writing), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// A descriptor of a process that is of this kind, by what the kernel calls it (proc_pid_fd(5)), without asking whatever is
/// behind it.
fn taken(process: &OwnedFd, number: i32, kind: &str) -> Option<OwnedFd> {
    let fd = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let leads_to = fs::read_link(name_of(&fd)).ok()?;
    if leads_to.to_str().is_some_and(|to| to.starts_with(kind)) {
        return Some(fd);
    }
    leave(fd);
    None
}

fn name_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Leaves a descriptor open until this process ends, after the answer.
fn leave(fd: OwnedFd) {
    std::mem::forget(fd);
}
