//! Unix sockets in directories that the application's user can write to are opened by that user, in a process of its own.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::launch::become_user;
use super::process::{self, Process};
use super::{clock, listen, passing};
use crate::host::Identity;
use crate::model::service::Socket;

/// How long the process may take: it makes one system call after another, on a disk that may be slow.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at whether somebody has stopped it: it runs as a user who may.
const LOOK: Duration = Duration::from_millis(100);

/// So many processes that cannot be killed, because a file system keeps them waiting, are left behind; then no more are started.
const MOST_HANGING: usize = 4;

thread_local! {
    /// Processes that were killed and have not ended yet.
    static HANGING: RefCell<Vec<Process>> = const { RefCell::new(vec![]) };
}

/// A process that ends with this value. Its end is taken with that of every child.
struct Helper {
    child: Child,
    process: Option<Process>,
}

impl Helper {
    fn start(socket: OwnedFd) -> io::Result<Self> {
        let hanging = HANGING.with_borrow_mut(|all| {
            all.retain(|one| !one.has_ended());
            all.len()
        });
        if hanging >= MOST_HANGING {
            return Err(io::Error::other(
                "the processes that were to open it before hang and cannot be killed",
            ));
        }
        let child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(socket))
            .spawn()?;
        let process = Process::open(child.id());
        Ok(Self { child, process })
    }

    fn is_stopped(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let stat = process::stat(process.pid);
            stat.is_some_and(|stat| stat.start == process.start && matches!(stat.state, b'T' | b't'))
        })
    }

    /// Waits until it has answered. Whoever it runs as can stop it, and it would not go on.
    fn wait(&self, answer: &OwnedFd) -> io::Result<()> {
        let until = clock::now().after(u64::try_from(LIMIT.as_millis()).unwrap_or(0));
        loop {
            match passing::wait(answer, LOOK) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                other => return other,
            }
            if self.is_stopped() {
                return Err(io::Error::other(
                    "somebody has stopped the process that was to open it (SIGSTOP)",
                ));
            }
            if clock::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Also one that has answered: it may have been stopped since.
        let _ = self.child.kill();
        if let Some(process) = self.process.take().filter(|process| !process.has_ended()) {
            HANGING.with_borrow_mut(|all| all.push(process));
        }
    }
}

/// The hidden command that is this process.
pub const COMMAND: &str = "listen-as";

#[derive(Serialize, Deserialize)]
struct Order {
    path: String,
    mode: u32,
    backlog: i32,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    unlink: bool,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    node: (u64, u64),
    error: Option<String>,
}

/// Has the application's user open a Unix socket; gives it with device and inode of its file.
pub(super) fn ask(
    path: &str,
    mode: u32,
    backlog: i32,
    identity: &Identity,
) -> Result<(OwnedFd, (u64, u64)), String> {
    let (reply, mut fds) = order(path, mode, backlog, identity, false).map_err(|error| error.to_string())?;
    match (reply.error, fds.pop()) {
        (None, Some(fd)) => Ok((fd, reply.node)),
        (Some(error), _) => Err(error),
        (None, None) => Err("no socket came".to_owned()),
    }
}

/// Has the application's user take away a file that it may have put there.
pub(crate) fn unlink(path: &str, identity: &Identity) {
    if !identity.switch {
        let _ = std::fs::remove_file(path);
        return;
    }
    // What cannot be removed is found, and taken away, by the next start.
    let _ = order(path, 0, 0, identity, true);
}

fn order(
    path: &str,
    mode: u32,
    backlog: i32,
    identity: &Identity,
    unlink: bool,
) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let Identity { uid, gid, groups, .. } = identity.clone();
    let order = Order { path: path.to_owned(), mode, backlog, uid, gid, groups, unlink };
    let (ours, theirs) = passing::pair()?;
    // Its end is noticed as the end of the socket.
    let helper = Helper::start(theirs)?;
    passing::send(&ours, serde_json::to_string(&order)?.as_bytes(), &[])?;
    helper.wait(&ours)?;
    let message = passing::receive(&ours, passing::LONGEST)?;
    if message.bytes.is_empty() {
        return Err(io::Error::other("the process that was to open it has ended"));
    }
    Ok((serde_json::from_slice(&message.bytes)?, message.fds))
}

/// The process itself: standard input is the socket it is told what to do by.
pub fn main() -> u8 {
    let socket = io::stdin();
    let done = || -> io::Result<()> {
        passing::wait(socket.as_fd(), LIMIT)?;
        let message = passing::receive(socket.as_fd(), passing::LONGEST)?;
        let order: Order = serde_json::from_slice(&message.bytes)?;
        let done = become_user(order.uid, order.gid, &order.groups).and_then(|()| {
            if order.unlink {
                std::fs::remove_file(&order.path).map_err(|error| error.to_string())?;
                return Ok((None, (0, 0)));
            }
            listen::bind_here(&order.path, order.mode, order.backlog).map(|(fd, node)| (Some(fd), node))
        });
        let (fd, node, error) = match done {
            Ok((fd, node)) => (fd, node, None),
            Err(error) => (None, (0, 0), Some(error)),
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        passing::send(socket.as_fd(), serde_json::to_string(&Reply { node, error })?.as_bytes(), &fds)
    };
    debug_assert_eq!(socket.as_raw_fd(), 0);
    u8::from(done().is_err())
}

/// Who is to own a socket's file: what the pillar says of it, else the application's user and group.
pub(super) fn owner(socket: &Socket, identity: &Identity) -> Result<(u32, u32), String> {
    let number = |database, name: &Option<String>, default| match name {
        None => Ok(default),
        Some(name) => crate::host::number_of(database, name)?
            .ok_or_else(|| format!("there is no such {} on this host: {name}", word(database))),
    };
    Ok((number("passwd", &socket.user, identity.uid)?, number("group", &socket.group, identity.gid)?))
}

fn word(database: &str) -> impl AsRef<OsStr> + std::fmt::Display + use<> {
    (if database == "passwd" { "user" } else { "group" }).to_owned()
}
