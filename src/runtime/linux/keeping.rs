//! The runtime's side of its keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::SocketType;

use super::keeper::{COMMAND, Held, Request};
use super::listen::{Kept, Listener};
use super::passing;
use super::place::Place;

/// How long the keeper may take to answer: it has nothing else to do.
const ANSWER: Duration = Duration::from_secs(3);

/// A keeper that is connected.
pub struct Keeping {
    connection: OwnedFd,
    /// The keeper's number; 0 until it has said it.
    pub pid: u32,
}

/// What a keeper has given back.
pub struct Given {
    /// What it held.
    pub held: Held,
    /// The listening sockets.
    pub listeners: Vec<Listener>,
    /// The reading ends of the generations' output.
    pub outputs: Vec<(u32, OwnedFd)>,
}

impl Keeping {
    /// The keeper that an earlier run has started, with all it holds; none if there is none.
    pub fn find(place: &Place) -> Option<(Self, Given)> {
        let connection = place.connect("keeper", SocketType::SEQPACKET).ok()?;
        let mut keeping = Self { connection, pid: 0 };
        let message = keeping.ask(&Request::Give).ok()?;
        let held: Held = serde_json::from_slice(&message.bytes).ok()?;
        if held.listeners.len() + held.outputs.len() != message.fds.len() {
            return None;
        }
        let mut fds = message.fds.into_iter();
        let take = |kept: &Kept, fd| Listener { kept: kept.clone(), fd };
        let listeners = held.listeners.iter().zip(fds.by_ref()).map(|(kept, fd)| take(kept, fd)).collect();
        let outputs = held.outputs.iter().copied().zip(fds).collect();
        keeping.pid = held.pid;
        Some((keeping, Given { held, listeners, outputs }))
    }

    /// Starts one.
    pub fn start(place: &Place, application: &str) -> io::Result<Self> {
        let door = place.socket("keeper", SocketType::SEQPACKET, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("runsmith")
            .args([COMMAND, application])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(door))
            .spawn()?;
        let connection = place.connect("keeper", SocketType::SEQPACKET)?;
        Ok(Self { connection, pid: child.id() })
    }

    /// Has it hold this and nothing else.
    pub fn keep(
        &self,
        log: Option<BorrowedFd<'_>>,
        listeners: &[Listener],
        outputs: &[(u32, OwnedFd)],
    ) -> io::Result<()> {
        let request = Request::Keep {
            log: log.is_some(),
            listeners: listeners.iter().map(|listener| listener.kept.clone()).collect(),
            outputs: outputs.iter().map(|(generation, _)| *generation).collect(),
        };
        let mut fds: Vec<BorrowedFd<'_>> = log.into_iter().collect();
        fds.extend(listeners.iter().map(AsFd::as_fd));
        fds.extend(outputs.iter().map(|(_, pipe)| pipe.as_fd()));
        self.tell(&request, &fds)
    }

    /// Has it remember the state.
    pub fn remember(&self, state: &str) -> io::Result<()> {
        self.tell(&Request::Remember(state.to_owned()), &[])
    }

    /// The last lines of a generation's output.
    pub fn last(&self, generation: u32) -> String {
        let message = self.ask(&Request::Last(generation)).unwrap_or_default();
        String::from_utf8_lossy(&message.bytes).trim().to_owned()
    }

    /// Has it end.
    pub fn end(&self) {
        // It may have gone already.
        let _ = self.tell(&Request::End, &[]);
    }

    fn tell(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        passing::send(&self.connection, &serde_json::to_vec(request)?, fds)
    }

    fn ask(&self, request: &Request) -> io::Result<passing::Message> {
        self.tell(request, &[])?;
        passing::wait(&self.connection, ANSWER)?;
        let message = passing::receive(&self.connection, passing::LONGEST)?;
        if message.bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(message)
    }
}

impl AsFd for Keeping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
