//! Files that others may delete or replace: the kernel reports it, so nothing has to look (inotify(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// So much is read at once, in bytes: some twenty events.
const PART: usize = 1024;

/// So many events are taken at once: whoever makes them as fast as they are taken keeps nobody from anything else.
const MOST: usize = 1024;

/// So many directories above a file are watched: the way to a socket has fewer.
const LEVELS: usize = 32;

/// How a directory is opened that is only gone through.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A watch on one directory, and on files elsewhere.
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

    /// Reports, besides, when a file is removed, replaced or renamed, and when a directory on its way is renamed. The file
    /// itself is watched and not its name, so what others do in the same directory wakes nobody.
    ///
    /// `file`, `directory`: opened as places (`O_PATH`); the directory that the file is in.
    pub fn follow(&self, file: &OwnedFd, directory: OwnedFd) -> io::Result<()> {
        // A removed name is a changed number of links.
        let flags = WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        self.add(file, flags)?;
        let mut directory = directory;
        let mut last = None;
        for _ in 0..LEVELS {
            let found = fstat(&directory)?;
            // The root is above itself.
            if last.replace((found.st_dev, found.st_ino)) == Some((found.st_dev, found.st_ino)) {
                break;
            }
            self.add(&directory, WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF)?;
            directory = openat(&directory, "..", PLACE, Mode::empty())?;
        }
        Ok(())
    }

    /// Watches what a descriptor leads to, by no path that somebody could have changed.
    fn add(&self, place: &OwnedFd, flags: WatchFlags) -> io::Result<()> {
        let name = format!("/proc/self/fd/{}", place.as_raw_fd());
        // The same directory may be watched for something else already.
        inotify::add_watch(&self.0, name, flags | WatchFlags::MASK_ADD)?;
        Ok(())
    }

    /// Takes what was reported, which is only that somebody should look. What is left is reported again.
    pub fn take(&self) {
        let mut part = [MaybeUninit::uninit(); PART];
        let mut events = Reader::new(&self.0, &mut part);
        for _ in 0..MOST {
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

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn what_is_reported_faster_than_it_is_taken_has_an_end() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = Watch::begin(scratch.path()).unwrap();
        let is_reported =
            || poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&Timespec::default())) == Ok(1);
        // Each of these is an event; two in a row that are the same would be one.
        for number in 0..MOST + MOST / 2 {
            let file = scratch.path().join(number.to_string());
            std::fs::write(&file, "").unwrap();
            std::fs::remove_file(&file).unwrap();
        }
        assert!(is_reported());
        watch.take();
        assert!(is_reported(), "the rest is left");
        watch.take();
        assert!(!is_reported());
    }
}
