//! A line on a terminal that tells how far long work has come, and is gone when it ends.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::width;

/// Fewer steps are over before anybody has read the line.
const MANY: usize = 20;

/// The line is not written more often than that.
const PAUSE: Duration = Duration::from_millis(100);

/// Columns that the longest line takes.
const COLUMNS: usize = 40;

/// How far work of so many steps has come.
pub(super) struct Progress {
    verb: &'static str,
    total: usize,
    what: &'static str,
    done: usize,
    written: Option<Instant>,
    wanted: bool,
}

impl Progress {
    /// `reading 3 of 100 pillars`, if there are many and standard error is a terminal.
    pub(super) fn new(verb: &'static str, total: usize, what: &'static str) -> Self {
        let able = || {
            io::stderr().is_terminal()
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
                && width(io::stderr()) >= COLUMNS
        };
        Self { verb, total, what, done: 0, written: None, wanted: total >= MANY && able() }
    }

    /// The next step begins.
    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.wanted && self.written.is_none_or(|written| written.elapsed() >= PAUSE) {
            self.written = Some(Instant::now());
            // Who cannot be told how far it is need not know.
            let _ =
                write!(io::stderr(), "\r{} {} of {} {}\x1b[K", self.verb, self.done, self.total, self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
