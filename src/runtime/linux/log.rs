//! One plain line a step, on standard output: svlogd's pipe.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::clock;
use super::kernel::{Writer, Written, write_apart};
use super::line_mark::LineMark;
use crate::runtime::protocol::Dropped;
use crate::visible::{visible, without_numbers};

/// How long a pipe without room is watched before it counts as stuck, in milliseconds: whoever reads the log makes room
/// within that.
const ROOM: u64 = 100;

/// How long a line may take: it is one write that does not wait, of a process that may be kept from the processor.
const LIMIT: Duration = Duration::from_secs(1);

/// So many writers that hang are left behind; then lines are dropped until one has ended.
const MOST_HANGING: usize = 2;

/// The log. Who reads it may be slow, stuck or dead: a line that finds no room is dropped, and how many were is said later.
pub struct Log {
    /// A pipe as it is; anything else was opened again, so that not waiting is ours alone: others share the other description.
    file: Option<File>,
    /// Whoever reads a pipe can keep those waiting who write to it, so another process does that.
    is_pipe: bool,
    /// Those that are kept waiting.
    hanging: Vec<Writer>,
    /// Lines that found no room, and the log does not know it yet.
    untold: u32,
    dropped: Dropped,
    /// Whether the keeper has written a part of a line last.
    mark: Option<LineMark>,
}

impl Log {
    /// Standard output.
    pub fn open() -> Self {
        let stdout = std::io::stdout();
        let found = fstat(&stdout);
        let is_pipe = found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo);
        let file = if is_pipe {
            fcntl_dupfd_cloexec(&stdout, 3).ok().map(File::from)
        } else {
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let flags = i32::try_from(flags.bits()).unwrap_or(0);
            OpenOptions::new().append(true).custom_flags(flags).open("/proc/self/fd/1").ok()
        };
        Self {
            file,
            is_pipe,
            hanging: vec![],
            untold: 0,
            dropped: Dropped::default(),
            mark: LineMark::new().ok(),
        }
    }

    /// What the keeper notes there whether the log is within a line; none without memory for it.
    pub fn mark(&self) -> Option<BorrowedFd<'_>> {
        self.mark.as_ref().map(AsFd::as_fd)
    }

    /// A line.
    pub fn say(&mut self, sentence: &str) {
        if self.untold > 0 && self.write(&format!("{} lines found no room in the log", self.untold)) {
            self.untold = 0;
        }
        if self.write(&without_numbers(sentence)) {
            self.dropped.end();
        } else {
            self.untold = self.untold.saturating_add(1);
            self.dropped.lose(1, clock::wall());
        }
    }

    /// Lines that found no room since this was asked last, for whoever keeps the number; none if there are none.
    pub fn take_dropped(&mut self) -> Option<Dropped> {
        let Dropped { lines, first, last, .. } = self.dropped;
        (self.dropped.lines, self.dropped.first, self.dropped.last) = (0, None, None);
        (lines > 0).then_some(Dropped { lines, first, last, ..Dropped::default() })
    }

    /// There is room again, also if nothing was written since.
    pub fn takes(&mut self) {
        self.dropped.end();
    }

    /// Lines that found no room, and were not taken yet.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// Why the log takes nothing now; none if it does.
    pub fn obstacle(&mut self) -> Option<&'static str> {
        self.hanging.retain(|writer| !writer.has_ended());
        if !self.hanging.is_empty() {
            return Some("a process that has its pipe, too, keeps those waiting who write to it");
        }
        let file = self.file.as_ref()?;
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        let until = clock::now().after(ROOM);
        // The timer that ends what blocks, and any other signal, interrupts this wait, too.
        loop {
            match poll(&mut fds, Some(&clock::until(until))) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(_) => break,
            }
        }
        let found = fds[0].revents();
        if found.contains(PollFlags::ERR) {
            Some("nobody reads it")
        } else if found.is_empty() {
            Some("it is full, and whoever reads it does not make room")
        } else {
            None
        }
    }

    fn write(&mut self, sentence: &str) -> bool {
        let locked = self.mark.as_ref().map(LineMark::try_lock);
        let is_keeper_writing = locked.as_ref().is_some_and(Option::is_none);
        let is_within = is_keeper_writing || self.mark.as_ref().is_some_and(LineMark::is_within);
        let line = format!("{}runsmith: {}\n", if is_within { "\n" } else { "" }, visible(sentence));
        let is_written = match &mut self.file {
            Some(pipe) if self.is_pipe => {
                self.hanging.retain(|writer| !writer.has_ended());
                // Within a page, a pipe takes a line whole or not at all (pipe(7)).
                self.hanging.len() < MOST_HANGING
                    && match write_apart(&*pipe, line.as_bytes(), LIMIT) {
                        Written::Whole => true,
                        Written::Not => false,
                        Written::Hangs(writer) => {
                            self.hanging.push(writer);
                            false
                        }
                    }
            }
            Some(file) => file.write_all(line.as_bytes()).is_ok(),
            // A socket cannot be opened again.
            None => std::io::stdout().write_all(line.as_bytes()).is_ok(),
        };
        if let Some(mark) = self.mark.as_ref().filter(|_| is_within && is_written && !is_keeper_writing) {
            mark.set(false);
        }
        is_written
    }
}
