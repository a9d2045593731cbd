//! A process of its own for what can make root wait: it has a time limit, and ends with what it holds.
//!
//! A signal interrupts the most waits, but not each: whoever closes, or asks for, a file of a file system that a user has
//! mounted waits until that user's program answers, or until it is killed (fuse(4)).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::{self, Process};
use super::{clock, passing};

/// How long a helper may take: it makes one system call after another, on a disk that may be slow.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at whether somebody has stopped it: it may run as a user who can.
const LOOK: Duration = Duration::from_millis(100);

/// So many helpers that cannot be killed, because a file system keeps them waiting, are left behind; then no more are started.
const MOST_HANGING: usize = 4;

thread_local! {
    /// Helpers that were killed and have not ended yet.
    static HANGING: RefCell<Vec<Process>> = const { RefCell::new(vec![]) };
}

/// A process of this program that ends with this value. Its end is taken with that of every child.
pub(super) struct Helper {
    child: Child,
    process: Option<Process>,
    socket: OwnedFd,
}

impl Helper {
    /// Starts a hidden command that [`serve`]s.
    pub(super) fn start(command: &str) -> io::Result<Self> {
        let hanging = HANGING.with_borrow_mut(|all| {
            all.retain(|one| !one.has_ended());
            all.len()
        });
        if hanging >= MOST_HANGING {
            return Err(io::Error::other("earlier helper processes hang and cannot be killed"));
        }
        let (socket, theirs) = passing::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(command)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let process = Process::open(child.id());
        Ok(Self { child, process, socket })
    }

    /// Has it do something once, with these descriptors; gives its answer and the descriptors that came with it.
    pub(super) fn ask<T: DeserializeOwned>(
        &mut self,
        order: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        passing::send(&self.socket, &serde_json::to_vec(order)?, fds)?;
        self.wait()?;
        let message = passing::receive(&self.socket, passing::LONGEST)?;
        // Its end is noticed as the end of the socket.
        if message.bytes.is_empty() {
            return Err(io::Error::other("the helper process has ended without an answer"));
        }
        Ok((serde_json::from_slice(&message.bytes)?, message.fds))
    }

    fn is_stopped(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let stat = process::stat(process.pid);
            stat.is_some_and(|stat| stat.start == process.start && matches!(stat.state, b'T' | b't'))
        })
    }

    /// Waits until it has answered. Whoever it runs as can stop it, and it would not go on.
    fn wait(&self) -> io::Result<()> {
        let until = clock::now().after(u64::try_from(LIMIT.as_millis()).unwrap_or(0));
        loop {
            match passing::wait(&self.socket, LOOK) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                other => return other,
            }
            if self.is_stopped() {
                return Err(io::Error::other("somebody has stopped the helper process (SIGSTOP)"));
            }
            if clock::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Also one that has answered: it may have been stopped since, or wait for what it closes.
        let _ = self.child.kill();
        if let Some(process) = self.process.take().filter(|process| !process.has_ended()) {
            HANGING.with_borrow_mut(|all| all.push(process));
        }
    }
}

/// The process itself: standard input is the socket that its order comes by. The exit code.
pub(super) fn serve<O: DeserializeOwned, R: Serialize>(
    act: impl FnOnce(O, Vec<OwnedFd>) -> (R, Vec<OwnedFd>),
) -> u8 {
    let socket = io::stdin();
    let done = || -> io::Result<()> {
        passing::wait(socket.as_fd(), LIMIT)?;
        let message = passing::receive(socket.as_fd(), passing::LONGEST)?;
        let (reply, fds) = act(serde_json::from_slice(&message.bytes)?, message.fds);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        passing::send(socket.as_fd(), &serde_json::to_vec(&reply)?, &fds)?;
        // What it holds is held until the answer was taken; then this process is killed.
        passing::wait(socket.as_fd(), LIMIT)
    };
    u8::from(done().is_err())
}
