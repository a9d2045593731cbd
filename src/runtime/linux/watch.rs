//! A directory whose files others may delete or replace: the kernel reports it, so nothing has to look (inotify(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// So much is read at once, in bytes: some twenty events.
const PART: usize = 1024;

/// A watch on one directory.
pub struct Watch(OwnedFd);

impl Watch {
    /// Begins. The usual reason for an error is that the user has no instance left (`fs.inotify.max_user_instances`).
    pub fn begin(directory: &Path) -> io::Result<Self> {
        let instance = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // What is made anew need not be known: its name was deleted before, or is nobody's.
        let flags = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&instance, directory, flags)?;
        Ok(Self(instance))
    }

    /// Takes what was reported, which is only that somebody should look.
    pub fn take(&self) {
        let mut part = [MaybeUninit::uninit(); PART];
        let mut events = Reader::new(&self.0, &mut part);
        loop {
            match events.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
