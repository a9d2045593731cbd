//! Phases two and three: make the new things durable, then give them their names.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{RenameFlags, renameat, renameat_with, syncfs};
use rustix::io::Errno;

use super::Stopped;
use super::directory::{Directory, Step, failure};
use super::identity::Identity;
use super::run::Run;
use super::stage::{Act, Op, Staged, meddled};
use super::units::Refusal;
use crate::failure::Failure;
use crate::tree::Change;

/// Finishes what was staged, where everything belongs together, and returns what was changed by it.
pub(super) fn commit(
    run: &Run,
    root: &Directory,
    staged: Staged,
    durable: bool,
) -> Result<Vec<Change>, Stopped> {
    let Committed { done, mut refusals, .. } = commit_each(run, root, staged, durable, |_, _| true)?;
    match refusals.pop() {
        Some(refusal) => Err(Stopped { failure: refusal.failure, done }),
        None => Ok(done),
    }
}

/// What came of it, where each service is done for itself.
#[derive(Default)]
pub(super) struct Committed {
    pub(super) done: Vec<Change>,
    /// The operations that failed.
    pub(super) refusals: Vec<Refusal>,
    /// The paths of all operations that were not done: those that failed, and those that were left out because of that.
    pub(super) left: Vec<String>,
}

/// Finishes what was staged. An operation that fails takes with it those still to come that belong to
/// the same service, as `together` says of the paths of both; the others go on.
///
/// # Errors
/// What was written cannot be made durable.
pub(super) fn commit_each(
    run: &Run,
    root: &Directory,
    staged: Staged,
    durable: bool,
    mut together: impl FnMut(&[Change], &[Change]) -> bool,
) -> Result<Committed, Stopped> {
    let Staged { mut ops, devices, .. } = staged;
    if ops.is_empty() {
        return Ok(Committed::default());
    }
    let sync = |devices| if durable { sync(root, devices) } else { Ok(()) };
    if let Err(failure) = sync(&devices) {
        abandon(run, root, &ops);
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
    abandon(run, root, &left);
    match synced {
        Ok(()) => {
            let paths = left.into_iter().flat_map(|op| op.changes).map(|change| change.path);
            Ok(Committed { done, refusals, left: paths.collect() })
        }
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
        Act::Place { temp, area, fresh } => {
            let from = area.as_ref().map_or(fd, |area| &area.fd);
            let temp = temp.as_str();
            if !fresh {
                return renameat(from, temp, fd, name)
                    .map_err(|error| failure("replace", dir.path_of(name), error));
            }
            match renameat_with(from, temp, fd, name, RenameFlags::NOREPLACE) {
                // Some file systems (NFS) do not know the flag; phase one saw nothing there.
                Err(Errno::INVAL | Errno::NOSYS) => renameat(from, temp, fd, name),
                result => result,
            }
            .map_err(|error| failure("make", dir.path_of(name), error))
        }
        Act::Settle { want, is } => {
            let fail = |error| failure("set mode and owner of", dir.path_of(name), error);
            match dir.step(name)? {
                Step::Directory(found) if Identity::of(found.fd()).map_err(fail)?.is(is) => {
                    want.settle(found.fd()).map_err(fail)
                }
                _ => Err(meddled(&dir, name)),
            }
        }
    }
}

/// Removes what waits under temporary names, as far as that goes. Areas go as a whole, when the run ends.
pub(super) fn abandon(run: &Run, root: &Directory, ops: &[Op]) {
    let mut parents = Parents::new(root);
    for op in ops {
        if let (Act::Place { temp, area: None, .. }, Ok(dir)) = (&op.act, parents.open(op)) {
            run.discard(dir.fd(), temp);
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
