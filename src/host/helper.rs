//! A process of its own for what can make root wait: it has a time limit, and ends with what it holds.
//!
//! A signal interrupts the most waits, but not each: whoever closes, or asks for, a file of a file system that a user has
//! mounted waits until that user's program answers, or until it is killed (fuse(4)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{passing, proc};

/// How long a helper may take: it makes one system call after another, on a disk that may be slow.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a helper that answers again and again waits for the next order: one search asks within milliseconds, and ends it.
const IDLE: Duration = Duration::from_secs(60);

/// Between two looks at whether somebody has stopped it: it may run as a user who can.
const LOOK: Duration = Duration::from_millis(100);

/// So many processes of a kind that cannot be killed, because a file system keeps them waiting, are left behind; then no more of it
/// are started.
const MOST_HANGING: usize = 4;

/// Processes that were killed and have not ended yet, by their kind.
static HANGING: Mutex<Vec<(&'static str, Apart)>> = Mutex::new(vec![]);

fn hanging() -> MutexGuard<'static, Vec<(&'static str, Apart)>> {
    HANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process of this program that does something apart.
struct Apart {
    child: Child,
    /// When it began, which names it together with its number; none if it has ended already.
    start: Option<u64>,
}

impl Apart {
    fn of(child: Child) -> Self {
        let start = proc::state(child.id()).map(|(_, start)| start);
        Self { child, start }
    }

    fn state(&self) -> Option<u8> {
        let (state, start) = proc::state(self.child.id())?;
        (Some(start) == self.start).then_some(state)
    }

    /// Whether it has ended; then its end is taken, unless that was done with the ends of all children.
    fn has_ended(&mut self) -> bool {
        match self.state() {
            Some(b'Z' | b'X' | b'x') => {
                // It was not waited for, so its number is nobody else's.
                let _ = self.child.try_wait();
                true
            }
            Some(_) => false,
            None => true,
        }
    }
}

/// Whether another process of a kind may be started: not while too many of it hang. A kind is the hidden command that it is.
pub fn is_room(kind: &'static str) -> bool {
    let mut all = hanging();
    all.retain_mut(|(_, one)| !one.has_ended());
    all.iter().filter(|(one, _)| *one == kind).count() < MOST_HANGING
}

/// Kills a process of a kind, and does not wait for its end.
pub fn end(kind: &'static str, child: Child) {
    leave(kind, Apart::of(child));
}

fn leave(kind: &'static str, mut apart: Apart) {
    // Also one that has answered: it may have been stopped since, or wait for what it closes.
    let _ = apart.child.kill();
    if !apart.has_ended() {
        hanging().push((kind, apart));
    }
}

/// A process of this program that ends with this value. Its end is taken with that of every child, or when the next one is
/// started.
pub struct Helper {
    kind: &'static str,
    apart: Option<Apart>,
    socket: OwnedFd,
}

impl Helper {
    /// Starts a hidden command that [`serve`]s, or [`serve_all`].
    pub fn start(command: &'static str) -> io::Result<Self> {
        if !is_room(command) {
            return Err(io::Error::other("earlier helper processes hang and cannot be killed"));
        }
        let (socket, theirs) = passing::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(command)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            // Whoever reads the output of this program must not wait for a helper that is left behind.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { kind: command, apart: Some(Apart::of(child)), socket })
    }

    /// One whose answers, if there are any, come by this socket.
    #[cfg(test)]
    pub(super) fn behind(socket: OwnedFd) -> Self {
        Self { kind: "test", apart: None, socket }
    }

    /// Has it do something once, with these descriptors; gives its answer and the descriptors that came with it.
    pub fn ask<T: DeserializeOwned>(
        &self,
        order: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        self.exchange(order, fds, LIMIT)
    }

    /// The same, of one that can be asked again. After an error it cannot.
    pub fn exchange<T: DeserializeOwned>(
        &self,
        order: &impl Serialize,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        passing::send(&self.socket, &serde_json::to_vec(order)?, fds)?;
        self.wait(limit)?;
        let message = passing::receive(&self.socket, passing::LONGEST)?;
        // Its end is noticed as the end of the socket.
        if message.bytes.is_empty() {
            return Err(io::Error::other("the helper process has ended without an answer"));
        }
        Ok((serde_json::from_slice(&message.bytes)?, message.fds))
    }

    fn is_stopped(&self) -> bool {
        self.apart.as_ref().is_some_and(|apart| matches!(apart.state(), Some(b'T' | b't')))
    }

    /// Waits until it has answered. Whoever it runs as can stop it, and it would not go on.
    fn wait(&self, limit: Duration) -> io::Result<()> {
        let until = Instant::now() + limit;
        loop {
            match passing::wait(&self.socket, LOOK) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                other => return other,
            }
            if self.is_stopped() {
                return Err(io::Error::other("somebody has stopped the helper process (SIGSTOP)"));
            }
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(apart) = self.apart.take() {
            leave(self.kind, apart);
        }
    }
}

/// The process itself: standard input is the socket that its order comes by. The exit code.
pub fn serve<O: DeserializeOwned, R: Serialize>(
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

/// The same for one that answers again and again, until nobody asks any more.
pub fn serve_all<O: DeserializeOwned, R: Serialize>(act: impl FnMut(O) -> R) -> u8 {
    u8::from(answer_all(io::stdin().as_fd(), act).is_err())
}

pub(super) fn answer_all<O: DeserializeOwned, R: Serialize>(
    socket: BorrowedFd<'_>,
    mut act: impl FnMut(O) -> R,
) -> io::Result<()> {
    loop {
        passing::wait(socket, IDLE)?;
        let message = passing::receive(socket, passing::LONGEST)?;
        if message.bytes.is_empty() {
            return Ok(());
        }
        let reply = act(serde_json::from_slice(&message.bytes)?);
        passing::send(socket, &serde_json::to_vec(&reply)?, &[])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody can kill these: each is a process that has not ended.
    #[test]
    fn too_many_processes_that_hang_are_an_end_of_it() {
        let waits = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let hang = |kind| hanging().push((kind, Apart::of(waits())));
        for _ in 0..MOST_HANGING {
            assert!(is_room("one"));
            hang("one");
        }
        assert!(!is_room("one") && is_room("another"));
        let refused = Helper::start("one").err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("earlier helper processes hang and cannot be killed"));
        let (children, others): (Vec<_>, Vec<_>) = std::mem::take(&mut *hanging())
            .into_iter()
            .partition(|(kind, _)| matches!(*kind, "one" | "another"));
        hanging().extend(others);
        for (_, mut one) in children {
            one.child.kill().unwrap();
            one.child.wait().unwrap();
            assert!(one.has_ended());
        }
        assert!(is_room("one"));
    }

    #[test]
    fn one_that_is_killed_and_ends_is_not_counted_for_long() {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        end("killed", child);
        // A killed process ends within milliseconds, and its end is taken then.
        let until = Instant::now() + LIMIT;
        while proc::state(pid).is_some() && Instant::now() < until {
            assert!(is_room("killed"));
        }
        assert_eq!(proc::state(pid), None);
    }

    #[test]
    fn it_answers_until_nobody_asks() {
        let (ours, theirs) = passing::pair().unwrap();
        let answers = std::thread::spawn(move || answer_all(theirs.as_fd(), |number: u32| number + 1));
        let helper = Helper::behind(ours);
        for number in 0..3 {
            let (answer, _) = helper.exchange::<u32>(&number, &[], LIMIT).unwrap();
            assert_eq!(answer, number + 1);
        }
        drop(helper);
        answers.join().unwrap().unwrap();
    }
}
