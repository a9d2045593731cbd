//! New files, links and directories, finished in everything but their name.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, symlinkat,
};
use rustix::io::Errno;

use super::directory::failure;
use super::identity::Identity;
use super::run::{Run, groups};
use crate::failure::Failure;
use crate::tree::{Change, Entry, How, Kind};
use crate::visible::visible;

/// Mode and owner as numbers; `owner` is nothing where owners are not set.
#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, u32)>,
}

impl Attributes {
    /// Those of a directory that is in nobody's tree but has to be there.
    pub(super) fn of_parent(run: &Run) -> Self {
        Self { mode: 0o755, owner: run.ids.set.then_some((0, 0)) }
    }

    /// Those that an entry wants.
    pub(super) fn of(run: &Run, entry: &Entry) -> Self {
        Self { mode: entry.mode & 0o7777, owner: run.ids.set.then(|| run.ids.of(entry)) }
    }

    /// Whether others than root can rename what is in a directory with these.
    pub(super) fn is_open(self) -> bool {
        self.mode & 0o022 != 0 || self.owner.is_some_and(|(uid, _)| uid != 0)
    }

    /// Gives them to what is open, where it has others.
    pub(super) fn settle(self, fd: impl AsFd) -> Result<(), Errno> {
        let fd = fd.as_fd();
        // One look costs less than two changes. It also notices a umask, a default ACL, and a
        // parent that hands its group down.
        let stat = fstat(fd)?;
        let other = self.owner.filter(|owner| *owner != (stat.st_uid, stat.st_gid));
        if let Some((uid, gid)) = other {
            fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // Changing the owner clears the set-user-ID bits, hence the mode comes after it.
        if stat.st_mode & 0o7777 != self.mode || (other.is_some() && self.mode & 0o6000 != 0) {
            fchmod(fd, Mode::from_raw_mode(self.mode))?;
        }
        Ok(())
    }
}

/// A new file with everything in it. Removed again if it cannot be finished.
pub(super) fn file(dir: &OwnedFd, name: &str, bytes: &[u8], want: Attributes) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Never open to more people than in the end.
    let fd = openat(dir, name, flags, Mode::from_raw_mode(want.mode & 0o700))?;
    let finish = || {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        want.settle(&fd)
    };
    match finish() {
        Ok(()) => Ok(fd),
        Err(error) => {
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            Err(error)
        }
    }
}

/// A new symbolic link.
pub(super) fn link(dir: &OwnedFd, name: &str, target: &str, want: Attributes) -> Result<(), Errno> {
    symlinkat(target, dir, name)?;
    let Some(owner) = want.owner else { return Ok(()) };
    let result = own_link(dir, name, owner);
    if result.is_err() {
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
    result
}

/// Sets the owner of a new link itself.
fn own_link(dir: &OwnedFd, name: &str, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let fd = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink || stat.st_nlink != 1 {
        return Err(Errno::STALE);
    }
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    chownat(&fd, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
}

/// A new, empty directory that only this user can enter.
pub(super) fn directory(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// What is being made in a new directory, and for messages.
pub(super) struct Filling<'a> {
    pub(super) run: &'a Run,
    /// ROOT's path, which begins messages.
    pub(super) root: &'a str,
}

/// What came of that.
#[derive(Default)]
pub(super) struct Filled {
    pub(super) changes: Vec<Change>,
    /// Directories of root's that will be where others can rename them.
    pub(super) made: Vec<(String, Identity)>,
}

impl Filled {
    /// Notes a new directory with the path of an entry. `is_exposed`: others can rename what is beside it.
    pub(super) fn directory(
        &mut self,
        path: &str,
        fd: &OwnedFd,
        want: Attributes,
        is_exposed: bool,
    ) -> Result<(), Errno> {
        if is_exposed && want.owner.is_some_and(|(uid, _)| uid == 0) {
            self.made.push((path.to_owned(), Identity::of(fd)?));
        }
        Ok(())
    }
}

/// Fills a new directory, which nobody else can enter yet, with what is wanted below it. `at` is
/// where the names of its children begin in the entries' paths; `is_exposed`: others will be able to rename them.
pub(super) fn fill(
    filling: &Filling<'_>,
    dir: &OwnedFd,
    at: usize,
    entries: &[&Entry],
    is_exposed: bool,
    filled: &mut Filled,
) -> Result<(), Failure> {
    let Filling { run, root } = filling;
    if let Some((first, second)) = run.split(entries, at) {
        let mut more = Filled::default();
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| fill(filling, dir, at, second, is_exposed, &mut more));
            let one = fill(filling, dir, at, first, is_exposed, filled);
            (one, other.join())
        });
        run.joined();
        filled.changes.append(&mut more.changes);
        filled.made.append(&mut more.made);
        return one.and_then(|()| {
            two.unwrap_or_else(|_| Err(Failure::path("write", *root, "a thread ended early")))
        });
    }
    for group in groups(entries, at) {
        let fail = |verb| move |error| failure(verb, format!("{root}{}", visible(group.path)), error);
        let want = group.entry.map_or_else(|| Attributes::of_parent(run), |entry| Attributes::of(run, entry));
        let word = match group.entry.map(|entry| &entry.kind) {
            Some(Kind::File(bytes)) => {
                file(dir, group.name, bytes, want).map_err(fail("write"))?;
                "file"
            }
            Some(Kind::Link(target)) => {
                link(dir, group.name, target, want).map_err(fail("make the link"))?;
                "link"
            }
            Some(Kind::Directory) | None => "directory",
        };
        filled.changes.push(Change { path: group.path.to_owned(), how: How::Created(word) });
        if word == "directory" {
            let fd = directory(dir, group.name).map_err(fail("make the directory"))?;
            filled.directory(group.path, &fd, want, is_exposed).map_err(fail("make the directory"))?;
            fill(filling, &fd, group.below, group.rest, is_exposed || want.is_open(), filled)?;
            want.settle(&fd).map_err(fail("make the directory"))?;
        }
    }
    Ok(())
}
