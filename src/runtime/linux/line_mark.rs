//! Whether the log ends within a line: a byte that the runtime and its keeper share.
//!
//! Both write to the log. A line of the server that is longer than a pipe takes in one piece is passed on in pieces, and a line of the
//! runtime that follows such a piece has to begin with a newline. So a piece and its mark, or the look at the mark and the line that
//! follows, are one step: whoever takes it holds a lock. A record lock (fcntl(2)) belongs to a process, not to a descriptor, and ends
//! with it. The runtime never waits for it: while the keeper has it the line begins with a newline in any case.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};

use super::clock;

/// So long the keeper waits for the lock, in milliseconds. The runtime has it for one write that does not block, and may be kept from
/// the processor meanwhile; only one that was stopped within that has it for longer. Then the keeper waits once.
const HELD: u64 = 1_000;

/// See the module.
pub struct LineMark {
    file: File,
    /// The other process did not give the lock back in time.
    is_held: Cell<bool>,
}

impl LineMark {
    /// A new one: the log is at the beginning of a line.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: File::from(memfd_create("line", MemfdFlags::CLOEXEC)?), is_held: Cell::new(false) })
    }

    /// The other process has it, too.
    pub fn shared(fd: OwnedFd) -> Self {
        Self { file: File::from(fd), is_held: Cell::new(false) }
    }

    /// Takes the lock, if the other process does not have it.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| Locked(self))
    }

    /// Takes the lock; none if the other process does not give it back.
    pub fn lock(&self) -> Option<Locked<'_>> {
        let until = clock::now().after(HELD);
        loop {
            let locked = self.try_lock();
            if locked.is_some() || self.is_held.get() || clock::now() >= until {
                self.is_held.set(locked.is_none());
                return locked;
            }
            std::thread::yield_now();
        }
    }

    /// Whether the last byte that was written did not end a line.
    pub fn is_within(&self) -> bool {
        let mut byte = [0];
        self.file.read_at(&mut byte, 0).is_ok() && byte[0] != 0
    }

    /// Notes it.
    pub fn set(&self, is_within: bool) {
        // Without memory for a byte a line is glued to another one, which is no reason to fail.
        let _ = self.file.write_all_at(&[u8::from(is_within)], 0);
    }
}

/// Holds the lock of a [`LineMark`].
pub struct Locked<'a>(&'a LineMark);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = fcntl_lock(&self.0.file, FlockOperation::NonBlockingUnlock);
    }
}

impl AsFd for LineMark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_see_the_mark() {
        let ours = LineMark::new().unwrap();
        let theirs = LineMark::shared(ours.as_fd().try_clone_to_owned().unwrap());
        assert!(!ours.is_within() && !theirs.is_within());
        theirs.set(true);
        assert!(ours.is_within());
        ours.set(false);
        assert!(!theirs.is_within());
    }
}
