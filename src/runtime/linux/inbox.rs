//! What servers say of themselves: workers that have loaded the application, and `READY=1`.
//!
//! Everything that comes is only a claim. The kernel says who sent it; whether that process is what it says, the shell looks up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use rustix::net::sockopt::set_socket_passcred;

use super::place::Place;
use super::{kernel, passing};

/// A line is never longer, in bytes.
const LONGEST: usize = 4096;

/// So many are taken at once, so that nobody can keep the runtime busy with them alone.
const AT_ONCE: usize = 64;

/// No more are taken at once after so long: one that brings descriptors may take [`kernel::LONGEST_BLOCK`].
const TURN: Duration = kernel::LONGEST_BLOCK;

/// A claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who sent it: process and user, as the kernel says.
    pub sender: u32,
    /// See [`Claim::sender`].
    pub uid: u32,
    /// What it says.
    pub says: Says,
}

/// What a claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The sender is a worker of this master, has loaded the application, and there are to be so many.
    Worker {
        /// The master.
        master: u32,
        /// Workers in all.
        of: u32,
    },
    /// The sender is a master, and this worker of it has exited.
    Exited {
        /// The master.
        master: u32,
        /// The worker.
        worker: u32,
    },
    /// The sender is about to become the successor of this master.
    Successor {
        /// The old master.
        old: u32,
    },
    /// `READY=1`, as sd_notify(3) has it.
    Ready,
}

/// The socket `ready` in the run directory.
pub struct Inbox {
    socket: OwnedFd,
    user: u32,
}

impl Inbox {
    /// Makes it, for this user to write to.
    pub fn open(place: &Place, user: u32) -> io::Result<Self> {
        let socket = place.socket("ready", SocketType::DGRAM, Some(user))?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket, user })
    }

    /// Makes it again, where its file has gone.
    pub fn open_again(&mut self, place: &Place) -> io::Result<()> {
        *self = Self::open(place, self.user)?;
        Ok(())
    }

    /// From now on it is for this user to write to.
    pub fn give(&mut self, place: &Place, user: u32) -> io::Result<()> {
        place.give("ready", user)?;
        self.user = user;
        Ok(())
    }

    /// What has come. What nobody understands is dropped.
    pub fn take(&self) -> Vec<Claim> {
        let mut claims = vec![];
        let begun = Instant::now();
        for _ in 0..AT_ONCE {
            if begun.elapsed() >= TURN {
                break;
            }
            match passing::receive_bare(&self.socket, LONGEST) {
                Ok(message) => {
                    let Some(sender) = message.sender else { continue };
                    let pid = sender.pid.as_raw_nonzero().get().unsigned_abs();
                    let says = std::str::from_utf8(&message.bytes).ok().and_then(read);
                    claims.extend(says.map(|says| Claim { sender: pid, uid: sender.uid.as_raw(), says }));
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => break,
            }
        }
        claims
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read(text: &str) -> Option<Says> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words[..] {
        ["ready", master, _, of] => {
            let of = of.parse().ok().filter(|of| (1..=100_000).contains(of))?;
            Some(Says::Worker { master: master.parse().ok()?, of })
        }
        ["gone", master, worker] => {
            Some(Says::Exited { master: master.parse().ok()?, worker: worker.parse().ok()? })
        }
        ["successor", old, _] => Some(Says::Successor { old: old.parse().ok()? }),
        _ => text.lines().any(|line| line == "READY=1").then_some(Says::Ready),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_is_understood() {
        assert_eq!(read("ready 10 11 3\n"), Some(Says::Worker { master: 10, of: 3 }));
        assert_eq!(read("successor 10 11\n"), Some(Says::Successor { old: 10 }));
        assert_eq!(read("gone 10 11\n"), Some(Says::Exited { master: 10, worker: 11 }));
        assert_eq!(read("READY=1\nSTATUS=Gunicorn arbiter booted"), Some(Says::Ready));
        for text in
            ["", "ready", "ready 1 2", "ready -1 2 3", "ready 1 2 0", "ready 1 2 4294967296", "XREADY=1"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
