//! Keeps the old version of what a run replaces or removes.
//!
//! A backup is a tree of its own below ROOT: `cp -a BACKUP/* ROOT/` brings everything back, and leaves
//! the directories on the way as they are, because those of the backup have their modes and owners.
//! It is made when the first thing has to be kept, and only root (or the user who runs this) can
//! enter it.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::bounded::{self, Refused};
use super::directory::{Directory, Step, failure};
use super::{BACKUPS, leftover};
use crate::failure::Failure;

/// As many backups are kept below [`BACKUPS`] at most; the operator clears them away.
const MOST: u32 = 100_000;

/// A larger file in bytes is none of ours; its owner could fill the disk with it.
const LARGEST: u64 = 64 << 20;

/// Where old versions go, if they are to be kept.
pub(super) struct Backup {
    /// The path that was asked for; an empty one asks for the next number.
    asked: Option<String>,
    /// Only what is adopted is kept.
    adopted_only: bool,
    /// The directory, once there is one.
    place: Mutex<Option<Place>>,
}

struct Place {
    /// What it is in, and its name there.
    parent: Directory,
    name: String,
    fd: OwnedFd,
    /// The paths of what this run has kept in it. Each pass of a run that does not succeed at once keeps what it is about to
    /// replace; the version that counts is the one that was there before the run.
    kept: HashSet<String>,
}

impl Backup {
    /// Nothing is kept without a path, but for what is adopted.
    pub(super) fn new(asked: Option<&str>, adopt: bool) -> Self {
        let adopted_only = adopt && asked.is_none();
        let asked = asked.or(adopt.then_some(""));
        Self { asked: asked.map(str::to_owned), adopted_only, place: Mutex::new(None) }
    }

    /// Keeps a file's content, mode and owner; `path` is the entry's. `adopted`: no record names it.
    pub(super) fn file(
        &self,
        root: &Directory,
        path: &str,
        fd: &OwnedFd,
        stat: &Stat,
        adopted: bool,
    ) -> Result<(), Failure> {
        self.keep(root, path, adopted, |dir, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
            let keep = || {
                bounded::copy(fd, &copy, LARGEST)?;
                own(&copy, stat)?;
                Ok(fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
            };
            // Half of a file is no backup of it.
            keep().inspect_err(|_| {
                let _ = unlinkat(dir, name, AtFlags::empty());
            })
        })
    }

    /// Keeps where a link pointed.
    pub(super) fn link(
        &self,
        root: &Directory,
        path: &str,
        target: &str,
        adopted: bool,
    ) -> Result<(), Failure> {
        self.keep(root, path, adopted, |dir, name| Ok(symlinkat(target, dir, name)?))
    }

    /// Keeps the mode and the owner that a directory has which is adopted.
    pub(super) fn directory(&self, root: &Directory, path: &str, stat: &Stat) -> Result<(), Failure> {
        self.keep(root, path, true, |dir, name| Ok(enter(dir, name, stat).map(drop)?))
    }

    /// Where it is, if anything was kept.
    pub(super) fn note(&self) -> Option<super::Note> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().map(|place| super::Note::BackedUp(place.parent.path_of(&place.name)))
    }

    /// Nothing was changed, so nothing needs to be kept.
    pub(super) fn abandon(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Place { parent, name, .. }) = place {
            let _ = leftover::remove(parent.fd(), name.as_str());
        }
    }

    fn keep(
        &self,
        root: &Directory,
        path: &str,
        adopted: bool,
        write: impl FnOnce(&OwnedFd, &str) -> Result<(), Refused>,
    ) -> Result<(), Failure> {
        let Some(asked) = self.asked.as_ref().filter(|_| adopted || !self.adopted_only) else {
            return Ok(());
        };
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(make(root, asked)?);
        }
        let Some(place) = place.as_mut().filter(|place| !place.kept.contains(path)) else { return Ok(()) };
        let fail = |error| {
            failure("keep the old version in", format!("{}{path}", place.parent.path_of(&place.name)), error)
        };
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = place.fd.try_clone().map_err(|error| fail(system(error)))?;
        let mut original = root.clone();
        for step in above.split('/').filter(|step| !step.is_empty()) {
            let Step::Directory(next) = original.step(step)? else { return Err(fail(Errno::STALE)) };
            dir = enter(&dir, step, next.stat()).map_err(fail)?;
            original = next;
        }
        write(&dir, name).map_err(|refused| match refused {
            Refused::System(error) => fail(error),
            refused => {
                let original = format!("{}{path}", root.path().trim_end_matches('/'));
                refused.of("keep the old version of", original)
            }
        })?;
        place.kept.insert(path.to_owned());
        Ok(())
    }
}

/// Makes the directory of a backup, and what is missing above it.
fn make(root: &Directory, asked: &str) -> Result<Place, Failure> {
    let (above, name) = match asked.trim_matches('/').rsplit_once('/') {
        _ if asked.is_empty() => (BACKUPS, None),
        Some((above, name)) => (above, Some(name)),
        None => ("", Some(asked.trim_matches('/'))),
    };
    if asked.split('/').any(|step| matches!(step, "." | "..")) {
        return Err(Failure::path("keep old versions in", super::visible(asked), "it has a step . or .."));
    }
    let mut parent = root.clone();
    for step in above.split('/').filter(|step| !step.is_empty()) {
        let own = Mode::from_raw_mode(if step == "backup" { 0o700 } else { 0o755 });
        match mkdirat(parent.fd(), step, own) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failure("make the directory", parent.path_of(step), error)),
        }
        parent = match parent.step(step)? {
            Step::Directory(next) => next,
            Step::Missing | Step::Other(_) => {
                return Err(Failure::path(
                    "keep old versions in",
                    parent.path_of(step),
                    "it is no directory",
                ));
            }
        };
    }
    if !parent.trusted() {
        let reason = "others can write there, and old versions may hold secrets; name a directory that only root can write";
        return Err(Failure::path("keep old versions in", parent.path(), reason));
    }
    let private = Mode::from_raw_mode(0o700);
    let name = match name {
        Some(name) => match mkdirat(parent.fd(), name, private) {
            Ok(()) => name.to_owned(),
            Err(Errno::EXIST) => {
                let reason = "it is there already; name a directory that is not, so that no other backup is mixed up with this one";
                return Err(Failure::path("keep old versions in", parent.path_of(name), reason));
            }
            Err(error) => return Err(failure("make the directory", parent.path_of(name), error)),
        },
        None => numbered(&parent, private)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent.fd(), name.as_str(), flags, Mode::empty())
        .map_err(|error| failure("open the directory", parent.path_of(&name), error))?;
    Ok(Place { parent, name, fd, kept: HashSet::new() })
}

/// Makes the directory with the first number that none has.
fn numbered(parent: &Directory, mode: Mode) -> Result<String, Failure> {
    for number in 1..=MOST {
        let name = format!("{number:04}");
        match mkdirat(parent.fd(), name.as_str(), mode) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failure("make the directory", parent.path_of(&name), error)),
        }
    }
    Err(Failure::path(
        "keep old versions in",
        parent.path(),
        format!("it holds {MOST} backups; clear some away"),
    ))
}

/// A directory in a backup, made like the original where it is missing.
fn enter(dir: &OwnedFd, step: &str, original: &Stat) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(dir, step, flags, Mode::empty());
    match mkdirat(dir, step, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let made = open()?;
            own(&made, original)?;
            fchmod(&made, Mode::from_raw_mode(original.st_mode & 0o7777))?;
            Ok(made)
        }
        Err(Errno::EXIST) => open(),
        Err(error) => Err(error),
    }
}

/// Who is not root cannot give files away.
fn own(fd: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fchown(fd.as_fd(), Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn system(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_run_has_kept_it_need_not_keep_again() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Directory::root(scratch.path()).unwrap();
        fs::create_dir(scratch.path().join("d")).unwrap();
        let backup = Backup::new(Some("/kept"), false);
        for content in ["first", "second"] {
            fs::write(scratch.path().join("d/file"), content).unwrap();
            let fd = OwnedFd::from(fs::File::open(scratch.path().join("d/file")).unwrap());
            let stat = rustix::fs::fstat(&fd).unwrap();
            assert_eq!(backup.file(&root, "/d/file", &fd, &stat, false), Ok(()));
            assert_eq!(backup.link(&root, "/d/link", content, false), Ok(()));
        }
        assert_eq!(fs::read_to_string(scratch.path().join("kept/d/file")).unwrap(), "first");
        assert_eq!(fs::read_link(scratch.path().join("kept/d/link")).unwrap().to_str(), Some("first"));
        // What could not be kept is not taken for kept.
        fs::write(scratch.path().join("d/long"), "").unwrap();
        let long = fs::OpenOptions::new().write(true).read(true).open(scratch.path().join("d/long")).unwrap();
        long.set_len(LARGEST + 1).unwrap();
        let fd = OwnedFd::from(long);
        let stat = rustix::fs::fstat(&fd).unwrap();
        for _ in 0..2 {
            assert!(backup.file(&root, "/d/long", &fd, &stat, false).is_err());
        }
        // Another place has nothing yet.
        backup.abandon();
        assert_eq!(backup.link(&root, "/d/link", "third", false), Ok(()));
        assert_eq!(fs::read_link(scratch.path().join("kept/d/link")).unwrap().to_str(), Some("third"));
    }
}
