//! Phases two and three: make the new things durable, then give them their names.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, fstat, openat, renameat, renameat_with, syncfs};
use rustix::io::Errno;

use super::directory::{Directory, Step, failure};
use super::stage::{Act, Op, Staged, meddled};
use super::units::Refusal;
use super::{Stopped, write};
use crate::failure::Failure;
use crate::tree::Change;

/// Finishes what was staged, where everything belongs together, and returns what was changed by it.
pub(super) fn commit(root: &Directory, staged: Staged, durable: bool) -> Result<Vec<Change>, Stopped> {
    let (done, mut refusals) = commit_each(root, staged, durable, |_, _| true)?;
    match refusals.pop() {
        Some(refusal) => Err(Stopped { failure: refusal.failure, done }),
        None => Ok(done),
    }
}

/// Finishes what was staged. An operation that fails takes with it those still to come that belong to
/// the same service, as `together` says of the paths of both; the others go on. Returns what was
/// changed, and what was refused.
///
/// # Errors
/// What was written cannot be made durable.
pub(super) fn commit_each(
    root: &Directory,
    staged: Staged,
    durable: bool,
    mut together: impl FnMut(&[Change], &[Change]) -> bool,
) -> Result<(Vec<Change>, Vec<Refusal>), Stopped> {
    let Staged { mut ops, devices, .. } = staged;
    if ops.is_empty() {
        return Ok((vec![], vec![]));
    }
    let sync = |devices| if durable { sync(root, devices) } else { Ok(()) };
    if let Err(failure) = sync(&devices) {
        abandon(root, &ops);
        return Err(failure.into());
    }
    // A stable sort: within a turn the order is that of the paths.
    ops.sort_by_key(|op| op.turn);
    let mut parents = Parents::new(root);
    let mut done = vec![];
    let mut refusals: Vec<Refusal> = vec![];
    let mut left: Vec<Op> = vec![];
    let mut failed: Vec<Change> = vec![];
    for op in ops {
        if !failed.is_empty() && together(&failed, &op.changes) {
            left.push(op);
            continue;
        }
        match finish(&mut parents, &op) {
            Ok(()) => done.extend(op.changes),
            Err(failure) => {
                let paths = op.changes.iter().map(|change| change.path.clone()).collect();
                refusals.push(Refusal { paths, failure });
                failed.extend(op.changes.iter().cloned());
                left.push(op);
            }
        }
    }
    done.sort_by(|a, b| a.path.cmp(&b.path));
    let synced = sync(&devices);
    abandon(root, &left);
    match synced {
        Ok(()) => Ok((done, refusals)),
        Err(failure) => Err(Stopped { failure, done }),
    }
}

fn sync(root: &Directory, devices: &BTreeMap<u64, OwnedFd>) -> Result<(), Failure> {
    for fd in devices.values() {
        match syncfs(fd) {
            Ok(()) => {}
            // A descriptor for paths only, of a directory that may not be listed.
            Err(Errno::BADF) => rustix::fs::sync(),
            Err(error) => return Err(failure("sync what was written below", root.path().to_owned(), error)),
        }
    }
    Ok(())
}

fn finish(parents: &mut Parents, op: &Op) -> Result<(), Failure> {
    let dir = parents.open(op)?;
    let fd = dir.fd();
    let name = op.name.as_str();
    match &op.act {
        Act::Place { temp, fresh: false } => renameat(fd, temp.as_str(), fd, name)
            .map_err(|error| failure("replace", dir.path_of(name), error)),
        Act::Place { temp, fresh: true } => {
            match renameat_with(fd, temp.as_str(), fd, name, RenameFlags::NOREPLACE) {
                // Some file systems (NFS) do not know the flag; phase one saw nothing there.
                Err(Errno::INVAL | Errno::NOSYS) => renameat(fd, temp.as_str(), fd, name),
                result => result,
            }
            .map_err(|error| failure("make", dir.path_of(name), error))
        }
        Act::Settle { want, kind, inode } => {
            let fail = |error| failure("set mode and owner of", dir.path_of(name), error);
            let opened = match kind {
                FileType::Symlink => {
                    let Some(owner) = want.owner else { return Ok(()) };
                    return match write::own_link(fd, name, owner) {
                        Err(Errno::STALE) => Err(meddled(&dir, name)),
                        result => result.map_err(fail),
                    };
                }
                FileType::Directory => match dir.step(name)? {
                    Step::Directory(found) if found.stat().st_ino == *inode => {
                        return want.settle(found.fd()).map_err(fail);
                    }
                    _ => return Err(meddled(&dir, name)),
                },
                _ => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    openat(fd, name, flags, Mode::empty()).map_err(fail)?
                }
            };
            let stat = fstat(&opened).map_err(fail)?;
            if stat.st_ino != *inode || stat.st_nlink != 1 {
                return Err(meddled(&dir, name));
            }
            want.settle(&opened).map_err(fail)
        }
    }
}

/// Removes what waits under temporary names, as far as that goes.
pub(super) fn abandon(root: &Directory, ops: &[Op]) {
    let mut parents = Parents::new(root);
    for op in ops {
        if let (Act::Place { temp, .. }, Ok(dir)) = (&op.act, parents.open(op)) {
            write::discard(dir.fd(), temp, dir.stat().st_dev);
        }
    }
}

/// Opens the directories of operations again. Keeping each one open from phase one on would need
/// as many descriptors as there are directories.
struct Parents {
    root: Directory,
    steps: Vec<(String, Directory)>,
}

impl Parents {
    fn new(root: &Directory) -> Self {
        Self { root: root.clone(), steps: vec![] }
    }

    fn open(&mut self, op: &Op) -> Result<Directory, Failure> {
        let mut kept = 0;
        let mut here = self.root.clone();
        for step in op.parent.split('/').filter(|step| !step.is_empty()) {
            if let Some((_, dir)) = self.steps.get(kept).filter(|(name, _)| name == step) {
                here = dir.clone();
            } else {
                self.steps.truncate(kept);
                let Step::Directory(next) = here.step(step)? else { return Err(meddled(&here, step)) };
                self.steps.push((step.to_owned(), next.clone()));
                here = next;
            }
            kept += 1;
        }
        self.steps.truncate(kept);
        if (here.stat().st_dev, here.stat().st_ino) != op.parent_id {
            return Err(meddled(&here, &op.name));
        }
        Ok(here)
    }
}
