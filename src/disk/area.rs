//! Where new things are made that belong into a directory of somebody else's, or are directories of somebody else's.
//!
//! Under a temporary name beside its place, what root makes could be exchanged before it is complete, and its user could move
//! something into a directory that is taken back again, with all that is in it. It is made in a directory that only root can
//! enter, in the nearest directory above that others cannot change, and is renamed from there. Where no such directory is on
//! the same mount, it is one among somebody else's; then the journal says which one it is.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, IFlags, Mode, OFlags, fstat, ioctl_getflags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::Note;
use super::directory::{Directory, failure};
use super::identity::{Identity, same_mount};
use super::journal::{Journal, LeftArea};
use super::leftover::{TempNames, empty};
use super::supervise::parent_of;
use crate::failure::Failure;

/// What the names of these directories say.
const NAME: &str = "new";

/// Once a run has so many, others are made as far above as possible, where more have the same one: each has two descriptors,
/// and a process has 1024.
const MANY: usize = 100;

/// A directory that only root (or the user who runs this) can enter.
pub(super) struct Area {
    pub(super) fd: OwnedFd,
    parent: Directory,
    name: String,
    is: Identity,
}

/// Those of a run, by device and inode of what they are in.
#[derive(Default)]
pub(super) struct Areas(Mutex<HashMap<(u64, u64), Arc<Area>>>);

impl Areas {
    /// Where to make what belongs into `dir`, if others can change that, or what is to be made.
    pub(super) fn for_(
        &self,
        dir: &Directory,
        temps: &TempNames,
        journal: &Journal,
    ) -> Result<Arc<Area>, Failure> {
        let mut areas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |parent: &Directory| (parent.stat().st_dev, parent.stat().st_ino);
        let mut parent = place(dir, false)?;
        if areas.len() >= MANY && !areas.contains_key(&key(&parent)) {
            parent = place(dir, true)?;
        }
        let key = key(&parent);
        if let Some(area) = areas.get(&key) {
            return Ok(Arc::clone(area));
        }
        let area = Arc::new(make(&parent, temps, journal)?);
        areas.insert(key, Arc::clone(&area));
        Ok(area)
    }

    /// Removes them, and whatever is still in them.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let areas = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for area in areas.into_values() {
            let fail = |error| failure("remove the directory", area.parent.path_of(&area.name), error);
            result = result.and(area.remove().map_err(fail));
        }
        result
    }
}

impl Area {
    fn remove(&self) -> Result<(), Errno> {
        empty(&self.fd)?;
        if !self.parent.trusted() {
            // Its name may be another one's by now.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = openat(self.parent.fd(), self.name.as_str(), flags, Mode::empty())?;
            if !Identity::of(found)?.is(&self.is) {
                return Err(Errno::STALE);
            }
        }
        unlinkat(self.parent.fd(), self.name.as_str(), AtFlags::REMOVEDIR)
    }
}

/// The nearest directory on the same mount that others cannot change, from `dir` on; `highest`: the one next to the mount
/// point, or to ROOT. If there is none, the one next to the mount point. What has a project (a quota) of its own takes nothing
/// from outside.
fn place(dir: &Directory, highest: bool) -> Result<Directory, Failure> {
    let mut at = dir.clone();
    while highest || !at.trusted() {
        let has_project = ioctl_getflags(at.fd()).is_ok_and(|flags| flags.contains(IFlags::PROJECT_INHERIT));
        let Some(above) = at.parent().filter(|_| !has_project).cloned() else { break };
        let fail = |error| failure("look at", at.path().to_owned(), error);
        if !same_mount(at.fd(), above.fd()).map_err(fail)? {
            break;
        }
        at = above;
    }
    Ok(at)
}

fn make(parent: &Directory, temps: &TempNames, journal: &Journal) -> Result<Area, Failure> {
    let name = temps.make(NAME);
    let fail = |error| failure("make the directory", parent.path_of(&name), error);
    // The clock that file systems take times of birth from (current_time() in fs/inode.c).
    let now = clock_gettime(ClockId::RealtimeCoarse);
    mkdirat(parent.fd(), name.as_str(), Mode::from_raw_mode(0o700)).map_err(fail)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent.fd(), name.as_str(), flags, Mode::empty()).map_err(fail)?;
    let is = Identity::of(&fd).map_err(fail)?;
    if !parent.trusted() {
        // Whoever can rename things here could have put another directory of root's in its place.
        let now = (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0));
        let is_new = is_private(&fd).map_err(fail)? && !is.is_older_than(now);
        if !is_new || !same_mount(&fd, parent.fd()).map_err(fail)? {
            let reason = "somebody changed it meanwhile";
            return Err(Failure::path("make the directory", parent.path_of(&name), reason));
        }
        journal.area(&path_of(parent, &name), is)?;
    }
    Ok(Area { fd, parent: parent.clone(), name, is })
}

/// Is it an empty directory of ours that nobody else can enter?
fn is_private(fd: &OwnedFd) -> Result<bool, Errno> {
    let stat = fstat(fd)?;
    let private = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o777 == 0o700;
    let mut names = rustix::fs::Dir::read_from(fd)?;
    let empty = names.all(|name| name.is_ok_and(|name| matches!(name.file_name().to_bytes(), b"." | b"..")));
    Ok(private && empty)
}

/// The path below ROOT of what is called `name`, without links.
fn path_of(parent: &Directory, name: &str) -> String {
    format!("{}/{name}", parent.below_root())
}

/// Removes what killed runs left in directories of somebody else's, as the journal has it; what was taken elsewhere stays,
/// and is nothing that others can enter.
pub(super) fn sweep(root: &Directory, journal: &Journal) -> Vec<Note> {
    journal.left().iter().filter_map(|left| sweep_one(root, left)).collect()
}

fn sweep_one(root: &Directory, left: &LeftArea) -> Option<Note> {
    let (parent, name) = parent_of(root, &left.path).ok()??;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent.fd(), name, flags, Mode::empty()).ok()?;
    let is_it = Identity::of(&fd).is_ok_and(|found| found.is(&left.is))
        && same_mount(&fd, parent.fd()).unwrap_or(false);
    if !is_it {
        return None;
    }
    empty(&fd).ok()?;
    unlinkat(parent.fd(), name, AtFlags::REMOVEDIR).ok()?;
    Some(Note::LeftoverRemoved(parent.path_of(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::directory::Step;
    use super::*;

    #[test]
    fn there_are_not_many_however_many_directories_need_one() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Directory::root(scratch.path()).unwrap();
        let (areas, temps) = (Areas::default(), TempNames::new());
        let journal = Journal::none(temps.run().to_owned());
        for number in 0..MANY + 20 {
            let name = format!("d{number}");
            fs::create_dir(scratch.path().join(&name)).unwrap();
            let Ok(Step::Directory(dir)) = root.step(&name) else { panic!("{name} is a directory") };
            let area = areas.for_(&dir, &temps, &journal).unwrap();
            let again = areas.for_(&dir, &temps, &journal).unwrap();
            assert!(Arc::ptr_eq(&area, &again));
        }
        assert!(areas.0.lock().unwrap().len() <= MANY + 1);
        assert_eq!(areas.remove(), Ok(()));
        let left = |entry: std::io::Result<fs::DirEntry>| {
            !entry.unwrap().file_name().to_string_lossy().starts_with('d')
        };
        assert!(!fs::read_dir(scratch.path()).unwrap().any(left));
    }
}
