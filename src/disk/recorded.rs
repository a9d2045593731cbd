//! A run that is written down: records are read, services that are to go are stopped, and what earlier
//! runs left is removed.

use std::collections::BTreeSet;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::directory::{Directory, Step, failure, ours};
use super::run::Run;
use super::{Applied, Note, Recording, Stopped, by_steps, commit, in_order, prune, stage, supervise};
use crate::failure::Failure;
use crate::record::{self, Leaving, Record};
use crate::tree::{Change, Entry, How, Kind, Tree};
use crate::visible::visible;

/// The longest record that is read, in bytes: a service has some tens of paths, this is for thousands.
const LONGEST: u64 = 16 << 20;

/// A run and what it makes of the records there are.
pub(super) struct Recorded<'a> {
    run: &'a Run,
    root: &'a Directory,
    tree: &'a Tree,
    recording: Recording<'a>,
    leaving: Leaving,
    notes: Vec<Note>,
}

impl<'a> Recorded<'a> {
    /// Reads the records that matter to the run, and changes nothing.
    pub(super) fn new(
        run: &'a Run,
        root: &'a Directory,
        tree: &'a Tree,
        recording: Recording<'a>,
    ) -> Result<Self, Failure> {
        let old = read(root, recording)?;
        let mut notes = vec![];
        let new: BTreeSet<&str> = recording.records.iter().map(|record| record.service.as_str()).collect();
        for record in &old {
            if record.set != recording.set && new.contains(record.service.as_str()) {
                notes.push(Note::TakenOver(record.service.clone(), visible(&record.set).into_owned()));
            }
        }
        run.learn(&old);
        let leaving = record::leaving(
            old,
            recording.records.to_vec(),
            tree,
            &|record| recording.goes(record),
            recording.disabled,
        );
        Ok(Self { run, root, tree, recording, leaving, notes })
    }

    /// Makes ROOT hold the tree and its records; `entries` are the tree's, in the order of their steps.
    pub(super) fn apply(mut self, entries: &[&Entry], durable: bool) -> Result<Applied, Stopped> {
        let staged = {
            let records = record_entries(self.leaving.records.iter().map(Record::entry));
            let all = in_order(entries.iter().copied().chain(&records).collect())?;
            let mut staged = stage::stage(self.run, self.root, &all)?;
            self.notes.append(&mut staged.notes);
            staged
        };
        let mut done = vec![];
        if let Err(failure) = self.retire(&mut done) {
            commit::abandon(self.root, &staged.ops);
            self.run.backup.abandon();
            return Err(Stopped { failure, done });
        }
        match commit::commit(self.root, staged, durable) {
            Ok(changes) => done.extend(changes),
            Err(mut stopped) => {
                stopped.done.splice(0..0, done);
                stopped.done = self.shown(stopped.done);
                return Err(stopped);
            }
        }
        let result = if self.recording.prune { self.prune(&mut done, durable) } else { Ok(()) };
        if !self.recording.prune
            && let Some(first) = self.leaving.leftovers.first()
        {
            let path = visible(&first.made.path).into_owned();
            self.notes.push(Note::NotPruned(self.leaving.leftovers.len(), path));
        }
        let changes = self.shown(done);
        match result {
            Ok(()) => Ok(Applied { changes, notes: self.notes }),
            Err(failure) => Err(Stopped { failure, done: changes }),
        }
    }

    fn retire(&mut self, done: &mut Vec<Change>) -> Result<(), Failure> {
        let left: &[record::Retired] = if self.recording.prune { &self.leaving.retired } else { &[] };
        for retired in self.recording.disabled.iter().chain(left) {
            let unlinked = supervise::retire(self.root, retired)?;
            if unlinked.stopped {
                self.notes.push(Note::Stopped(retired.service.clone()));
            }
            done.extend(unlinked.change);
        }
        Ok(())
    }

    fn prune(&mut self, done: &mut Vec<Change>, durable: bool) -> Result<(), Failure> {
        let pruned = prune::prune(self.run, self.root, &self.leaving)?;
        done.extend(pruned.changes);
        let kept: BTreeSet<&str> = pruned.kept.iter().map(|(path, _)| path.as_str()).collect();
        let mut records = vec![];
        for (service, after) in self.leaving.after(self.tree, &kept) {
            match after {
                Some(record) => records.push(record.entry()),
                None => forget(self.root, service)?,
            }
        }
        if !records.is_empty() {
            let records = record_entries(records.into_iter());
            let staged = stage::stage(self.run, self.root, &in_order(records.iter().collect())?)
                .map_err(|stopped| stopped.failure)?;
            commit::commit(self.root, staged, durable).map_err(|stopped| stopped.failure)?;
        }
        self.notes.extend(pruned.notes);
        Ok(())
    }

    /// Records are bookkeeping: a change of them alone is none. What is above a wanted path is shown.
    fn shown(&self, mut changes: Vec<Change>) -> Vec<Change> {
        changes.retain(|change| !record::is_bookkeeping(&change.path, self.tree));
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }
}

/// The directories of records, and records.
fn record_entries(records: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let directory = |path: &str, mode| Entry {
        path: path.to_owned(),
        kind: Kind::Directory,
        mode,
        owner: "root".into(),
        group: "root".into(),
        secret: false,
    };
    let above = record::DIRECTORY.rsplit_once('/').map_or("", |(above, _)| above);
    let mut entries = vec![directory(above, 0o755), directory(record::DIRECTORY, 0o700)];
    entries.extend(records);
    entries
}

/// The directory of the records, if there is one; only root may be able to write there.
fn directory(root: &Directory) -> Result<Option<Directory>, Failure> {
    let mut here = root.clone();
    for step in record::DIRECTORY.split('/').filter(|step| !step.is_empty()) {
        here = match here.step(step)? {
            Step::Directory(next) => next,
            Step::Missing => return Ok(None),
            Step::Other(word) => {
                let reason = format!("a {word} is in its place; move it away");
                return Err(Failure::path("read the directory", here.path_of(step), reason));
            }
        };
    }
    Ok(Some(here))
}

/// The records of the run's own services; with pruning, of every service.
pub(super) fn read(root: &Directory, recording: Recording<'_>) -> Result<Vec<Record>, Failure> {
    let Some(dir) = directory(root)? else { return Ok(vec![]) };
    let fail = |error| failure("list", dir.path().to_owned(), error);
    let mut names: BTreeSet<String> = recording.records.iter().map(|record| record.service.clone()).collect();
    if recording.prune {
        for name in Dir::read_from(dir.fd()).map_err(fail)? {
            let name = name.map_err(fail)?;
            let name = name.file_name().to_string_lossy();
            // Temporary names begin with a dot.
            if !name.starts_with('.') {
                names.insert(name.into_owned());
            }
        }
    }
    let mut records = vec![];
    for name in names {
        records.extend(one(&dir, &name)?);
    }
    Ok(records)
}

fn one(dir: &Directory, name: &str) -> Result<Option<Record>, Failure> {
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let refuse = |reason: String| Failure::path("use the record", dir.path_of(name), reason);
    let fd = match openat(dir.fd(), name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failure("read the record", dir.path_of(name), error)),
    };
    let stat = fstat(&fd).map_err(|error| failure("read the record", dir.path_of(name), error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || !dir.trusted()
        || !ours(stat.st_uid)
        || stat.st_mode & 0o022 != 0
    {
        // It says what root removes.
        return Err(refuse("others than root could have written it; look at it and move it away".to_owned()));
    }
    let mut bytes = vec![];
    std::fs::File::from(fd)
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::path("read the record", dir.path_of(name), error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(refuse(format!("it is longer than {} MiB; move it away", LONGEST >> 20)));
    }
    let record = Record::read(&bytes).map_err(|reason| refuse(format!("{reason}; move it away")))?;
    if record.service != name {
        return Err(refuse(format!("it is that of {}; move it away", visible(&record.service))));
    }
    Ok(Some(record))
}

/// Removes the record of a service that nothing is left of.
fn forget(root: &Directory, service: &str) -> Result<(), Failure> {
    let Some(dir) = directory(root)? else { return Ok(()) };
    match unlinkat(dir.fd(), service, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failure("remove the record", dir.path_of(service), error)),
    }
}

/// What a removal changes.
pub(super) fn removed(path: &str, word: &'static str) -> Change {
    Change { path: path.to_owned(), how: How::Removed(word) }
}

/// The deepest paths first.
pub(super) fn deepest_first(paths: &mut [&str]) {
    paths.sort_by(|a, b| by_steps(b, a));
}
