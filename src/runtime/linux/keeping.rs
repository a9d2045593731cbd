//! The runtime's side of its keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_peercred;

use super::keeper::{COMMAND, Files, HOLDS_FILES, Held, IN_FILES, PROTOCOL, Request, in_file, read_state};
use super::keepers::{self, DOOR};
use super::listen::Listener;
use super::place::Place;
use super::process::{self, Process};
use super::{clock, passing, shared};
use crate::runtime::protocol::Dropped;

/// How long the keeper may take to answer: it has nothing else to do.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a keeper may take to end: it writes what it has read to the log, and waits a second for one that takes nothing.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long a killed process may take to end. Only one that waits for a broken disk is left by then.
const KILLED: Duration = Duration::from_secs(3);

/// Between two looks at whether somebody keeps a keeper waiting.
const STEP: Duration = Duration::from_millis(100);

/// One that is found in a wait that nothing interrupts so many times in a row is kept waiting by somebody: whoever writes to a pipe that it
/// reads can hold that pipe's lock (splice(2)). It does nothing else that takes so long.
const HELD: u32 = 5;

/// A keeper that is connected.
pub struct Keeping {
    connection: OwnedFd,
    process: Process,
    /// This run has started it, so it is of this version.
    is_own: bool,
    /// What it understands ([`PROTOCOL`]).
    protocol: u32,
}

/// What a keeper has given back.
pub struct Given {
    /// What it held.
    pub held: Held,
    /// The listening sockets.
    pub listeners: Vec<Listener>,
    /// The reading ends of the generations' output.
    pub outputs: Vec<(u32, OwnedFd)>,
    /// What generations are made of: names in the run directory.
    pub files: Vec<(String, OwnedFd)>,
}

impl Keeping {
    /// The keeper that an earlier run has started, with all it holds; none if there is none, or none that answers.
    pub fn find(place: &Place) -> Option<(Self, Given)> {
        let connection = place.connect(DOOR, SocketType::SEQPACKET).ok()?;
        // Who listens there is what the kernel says, not what an answer says.
        let peer = socket_peercred(&connection).ok()?;
        let process = Process::open(peer.pid.as_raw_nonzero().get().unsigned_abs())?;
        let me = rustix::process::geteuid().as_raw();
        let runs_as_keeper = process::user_of(process.pid).is_some_and(|uid| keepers::is_user(uid, me));
        if peer.uid.as_raw() != me || !runs_as_keeper {
            return None;
        }
        // One that is stopped would not answer; it goes on once it is let.
        process.wake();
        let mut keeping = Self { connection, process, is_own: false, protocol: 0 };
        let message = keeping.ask(&Request::Give).ok()?;
        let mut held: Held = serde_json::from_slice(&message.bytes).ok()?;
        if held.listeners.len() + held.outputs.len() != message.fds.len() {
            return None;
        }
        keeping.protocol = held.protocol;
        if held.has_state_file {
            let answer = keeping.ask(&Request::State).ok();
            let file = answer.and_then(|message| message.fds.into_iter().next());
            held.state = file.and_then(|file| read_state(&file.into()).ok());
        }
        let mut fds = message.fds.into_iter();
        let known = held.listeners.iter().cloned();
        let listeners = known.zip(fds.by_ref()).map(|(kept, fd)| Listener::of(kept, fd)).collect();
        let outputs = held.outputs.iter().copied().zip(fds).collect();
        // A later version may answer otherwise.
        let has_files = (HOLDS_FILES..=PROTOCOL).contains(&held.protocol);
        let files = if has_files { keeping.files().unwrap_or_default() } else { vec![] };
        Some((keeping, Given { held, listeners, outputs, files }))
    }

    /// Starts one. From now on nobody can connect to the one before it.
    pub fn start(place: &Place, application: &str) -> io::Result<Self> {
        let door = place.socket(DOOR, SocketType::SEQPACKET, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("runsmith")
            .args([COMMAND, application])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(door))
            .spawn()?;
        let process =
            Process::open(child.id()).ok_or_else(|| io::Error::other("the keeper has ended at once"))?;
        match place.connect(DOOR, SocketType::SEQPACKET) {
            Ok(connection) => Ok(Self { connection, process, is_own: true, protocol: PROTOCOL }),
            Err(error) => {
                end(&process);
                Err(error)
            }
        }
    }

    /// Its number, and its start in ticks since the machine's start.
    pub fn identity(&self) -> (u32, u64) {
        (self.process.pid, self.process.start)
    }

    /// Whether somebody has stopped it (SIGSTOP): then it neither reads what the servers write nor answers.
    pub fn is_stopped(&self) -> bool {
        let stat = process::stat(self.process.pid);
        stat.is_some_and(|stat| stat.start == self.process.start && stat.state == b'T')
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Has it hold this and nothing else. `mark`: where it notes whether the log is within a line.
    pub fn keep(
        &self,
        log: Option<BorrowedFd<'_>>,
        mark: Option<BorrowedFd<'_>>,
        listeners: &[Listener],
        outputs: &[(u32, OwnedFd)],
    ) -> io::Result<()> {
        // This run's own has opened it itself; another one may not.
        let log = log.filter(|_| !self.is_own).and_then(shared::open_log);
        let request = Request::Keep {
            log: log.is_some(),
            mark: mark.is_some(),
            listeners: listeners.iter().map(|listener| listener.kept.clone()).collect(),
            outputs: outputs.iter().map(|(generation, _)| *generation).collect(),
        };
        let mut fds: Vec<BorrowedFd<'_>> = log.iter().map(AsFd::as_fd).chain(mark).collect();
        fds.extend(listeners.iter().map(AsFd::as_fd));
        fds.extend(outputs.iter().map(|(_, pipe)| pipe.as_fd()));
        self.tell(&request, &fds)
    }

    /// Has it note from now on in this run's mark whether the log is within a line. One of another version cannot.
    pub fn note_lines(&self, mark: Option<BorrowedFd<'_>>) {
        if let Some(mark) = mark.filter(|_| self.protocol == PROTOCOL) {
            // If it does not hear it a line of this run's may follow one that was begun.
            let _ = self.tell(&Request::Mark, &[mark]);
        }
    }

    /// Has it remember the state.
    pub fn remember(&self, state: &str) -> io::Result<()> {
        if self.protocol < IN_FILES {
            return self.tell(&Request::Remember(state.to_owned()), &[]);
        }
        // In a file without a name: it is longer than a message may be, and whoever waits for months has no copy in its memory.
        match in_file(state) {
            Ok(file) => self.tell(&Request::RememberFile, &[file.as_fd()]),
            // Without memory for it the run directory has it all the same, and another keeper would not help.
            Err(_) => Ok(()),
        }
    }

    /// Has it hold these files and no others. One that an earlier run has started is not asked: it may not know how.
    pub fn hold(&self, files: &[(String, BorrowedFd<'_>)]) -> io::Result<()> {
        if !self.is_own {
            return Ok(());
        }
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        let fds: Vec<_> = files.iter().map(|(_, fd)| *fd).collect();
        self.tell(&Request::Hold(names), &fds)
    }

    fn files(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let message = self.ask(&Request::GiveFiles)?;
        let files: Files = serde_json::from_slice(&message.bytes)?;
        Ok(files.names.into_iter().zip(message.fds).collect())
    }

    /// The last lines of a generation's output.
    pub fn last(&self, generation: u32) -> io::Result<String> {
        let message = self.ask(&Request::Last(generation))?;
        Ok(String::from_utf8_lossy(&message.bytes).trim().to_owned())
    }

    /// Has it remember what the first generation's pipe says from now on as the second one's output, too.
    pub fn also(&self, also: Option<(u32, u32)>) -> io::Result<()> {
        self.tell(&Request::Also(also), &[])
    }

    /// The lines that it and those before it have dropped. Nothing is asked of one that an earlier run has started: what it
    /// has dropped came with what it held.
    pub fn dropped(&self) -> io::Result<Dropped> {
        if !self.is_own {
            return Ok(Dropped::default());
        }
        let message = self.ask(&Request::Dropped)?;
        Ok(serde_json::from_slice(&message.bytes)?)
    }

    /// Tells it what the keepers before it have dropped.
    pub fn add_dropped(&self, before: &Dropped) -> io::Result<()> {
        self.tell(&Request::DroppedBefore(before.clone()), &[])
    }

    /// Has it pass on what it has read, and end; one that does not is killed. Returns once it has ended.
    pub fn end(self) {
        self.process.wake();
        let asked = self.tell(&Request::End, &[]);
        if asked.is_err() || !ends(&self.process, FAREWELL) {
            end(&self.process);
        }
    }

    /// Ends it at once: it could not be told what it is to hold. Returns once it has ended.
    pub fn give_up(self) {
        end(&self.process);
    }

    fn tell(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        passing::send(&self.connection, &serde_json::to_vec(request)?, fds)
    }

    fn ask(&self, request: &Request) -> io::Result<passing::Message> {
        self.tell(request, &[])?;
        wait_for(&self.process, ANSWER, |step| match passing::wait(&self.connection, step) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            waited => Some(waited),
        })
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
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

/// Ends a keeper that cannot be asked. Returns once it has ended, or if it is kept waiting.
pub fn end(keeper: &Process) {
    keeper.kill();
    ends(keeper, KILLED);
}

/// Whether a keeper ends in time. One that is kept waiting does not.
fn ends(keeper: &Process, limit: Duration) -> bool {
    wait_for(keeper, limit, |step| keeper.await_end(step).then_some(())).is_some()
}

/// Waits for something of a keeper, in steps: none if it does not come in time, or if somebody seems to keep the keeper waiting.
fn wait_for<T>(keeper: &Process, limit: Duration, step: impl Fn(Duration) -> Option<T>) -> Option<T> {
    let until = clock::now().after(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let mut held = 0;
    loop {
        // Nearly always it is there at once, and nothing else is looked at.
        let found = step(STEP);
        if found.is_some() || clock::now() >= until {
            return found;
        }
        held = if process::is_uninterruptible(keeper.pid) { held + 1 } else { 0 };
        if held >= HELD {
            return None;
        }
    }
}
