//! The signals that `sv` and the kernel send, as something to wait for.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// What a signal means to the runtime. Several of a kind may arrive as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// TERM: `sv down`, `exit`, `term`, `restart`; which one it was, runsv has written down before.
    Term,
    /// HUP, INT, QUIT, USR2: a hand-over.
    Upgrade,
    /// USR1: logs are opened again.
    Reopen,
    /// ALRM: the status goes to the log.
    Status,
    /// CHLD: a child has ended.
    Child,
}

/// From now on signals wait here and interrupt nothing.
pub struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Takes over the signals of the process.
    pub fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        // CONT follows each TERM of runsv; it is taken so that nothing else becomes of it.
        let all = [SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        Ok(Self(SignalDelivery::with_pipe(read, write, SignalOnly, all)?))
    }

    /// What has arrived.
    pub fn take(&mut self) -> Vec<Told> {
        let told = |signal| match signal {
            SIGTERM => Some(Told::Term),
            SIGHUP | SIGINT | SIGQUIT | SIGUSR2 => Some(Told::Upgrade),
            SIGUSR1 => Some(Told::Reopen),
            SIGALRM => Some(Told::Status),
            SIGCHLD => Some(Told::Child),
            _ => None,
        };
        let mut taken: Vec<Told> = self.0.pending().filter_map(told).collect();
        // Ends are taken first: what a signal asks for is then judged by what is true.
        taken.sort_by_key(|told| *told != Told::Child);
        taken.dedup();
        taken
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

/// What ends a command that waits: INT and TERM, but for those that whoever started it has it ignore (`nohup`, `&` in a script).
pub struct Interrupts(SignalDelivery<UnixStream, SignalOnly>);

impl Interrupts {
    /// From now on they wait here and end nothing.
    pub fn watch() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        let watched = [SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let (read, write) = UnixStream::pair()?;
        Ok(Self(SignalDelivery::with_pipe(read, write, SignalOnly, watched)?))
    }

    /// The number of one that has arrived.
    pub fn take(&mut self) -> Option<u8> {
        self.0.pending().next().and_then(|signal| u8::try_from(signal).ok())
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}
