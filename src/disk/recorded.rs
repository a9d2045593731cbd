//! A run that is written down: records are read, services that are to go are stopped, and what earlier
//! runs left is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::bounded;
use super::directory::{Directory, Step, failure, ours};
use super::run::Run;
use super::units::{self, Units};
use super::{
    Applied, Failed, Note, Options, Recording, Stopped, area, by_steps, commit, in_order, prune, stage,
    supervise,
};
use crate::failure::Failure;
use crate::record::{self, Leaving, MadeKind, Record};
use crate::steps::is_within;
use crate::tree::{Change, Entry, How, Kind, Tree};
use crate::visible::visible;

/// The longest record that is read, in bytes: a service has some tens of paths, this is for thousands.
const LONGEST: u64 = 16 << 20;

/// A run and what it makes of the records there are. Each service is done for itself: where one cannot
/// be, it is left as it was, and the others are done without it.
pub(super) struct Recorded<'a> {
    pub(super) run: &'a Run,
    pub(super) root: &'a Directory,
    pub(super) tree: &'a Tree,
    pub(super) recording: Recording<'a>,
    pub(super) options: &'a Options<'a>,
}

/// What was done so far, over all passes.
#[derive(Default)]
struct Progress {
    done: Vec<Change>,
    notes: Vec<Note>,
    failed: Vec<Failed>,
    /// What is to be removed has been listed.
    listed: bool,
}

impl Progress {
    fn names(&self) -> BTreeSet<String> {
        self.failed.iter().flat_map(|failed| &failed.services).cloned().collect()
    }

    fn change(&mut self, run: &Run, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.done.extend(run.journal.changes());
        }
        self.done.extend(changes);
    }

    fn note(&mut self, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            // A pass says again what the one before said.
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

impl Recorded<'_> {
    /// Makes ROOT hold the tree and its records; `entries` are the tree's, in the order of their steps.
    /// `failed` are services that cannot be done whatever the disk says.
    pub(super) fn apply(self, entries: &[&Entry], failed: Vec<Failed>) -> Result<Applied, Stopped> {
        let mut progress = Progress { failed, ..Progress::default() };
        progress.note(area::sweep(self.root, &self.run.journal));
        let whole = loop {
            let out = progress.names();
            let is_whole = self.pass(entries, &out, &mut progress);
            // A pass that fails has one service less to do the next time.
            if !matches!(is_whole, Ok(false)) || progress.names().len() <= out.len() {
                break is_whole;
            }
        };
        let Progress { done, notes, mut failed, .. } = progress;
        let wanted: BTreeSet<&str> =
            self.recording.records.iter().map(|record| record.service.as_str()).collect();
        for failed in &mut failed {
            let count = failed.services.iter().filter(|name| wanted.contains(name.as_str())).count();
            failed.all = count == wanted.len() && count > 0;
        }
        let changes = self.shown(done);
        match whole {
            Ok(_) => Ok(Applied { changes, notes, failed }),
            Err(failure) => Err(Stopped { failure, done: changes }),
        }
    }

    /// Does all services but those that are `out`. Says whether none failed: else what was not done of the
    /// others is left to the next pass.
    fn pass(
        &self,
        entries: &[&Entry],
        out: &BTreeSet<String>,
        progress: &mut Progress,
    ) -> Result<bool, Failure> {
        let (old, unread) = read(self.root, self.recording)?;
        let is_known = |failed: &Failed| failed.services.iter().all(|service| out.contains(service));
        if !unread.iter().all(is_known) {
            for failed in unread {
                units::add(&mut progress.failed, failed.services, failed.failure);
            }
            return Ok(false);
        }
        self.run.learn(&old);
        let new = self.recording.records.iter().filter(|record| !out.contains(&record.service));
        let (new, notes) = without_used(self.run, self.root, new, &old, self.tree);
        progress.note(notes);
        let entries = wanted_by(self.recording.records, &new, entries);
        let leaving = self.leaving(old, new, out, progress);
        let units = Units::of(&leaving.records);
        if !leaving.records.is_empty() {
            self.run.journal.open(self.root)?;
        }
        let staged = {
            // Where nothing can be done, no directory for records is made.
            let is_needless = leaving.records.is_empty() && directory(self.root)?.is_none();
            let records = match is_needless {
                true => vec![],
                false => record_entries(leaving.records.iter().map(Record::entry)),
            };
            let all = in_order(entries.into_iter().chain(&records).collect())?;
            stage::stage(self.run, self.root, &all)
        };
        let undo = |progress: &Progress, ops: &[stage::Op]| {
            commit::abandon(self.run, self.root, ops);
            // What was kept of something that has changed already stays.
            if progress.done.is_empty() {
                self.run.backup.abandon();
            }
        };
        if !staged.refusals.is_empty() || !staged.foreign.is_empty() {
            undo(progress, &staged.ops);
            units.fail(staged.refusals, &mut progress.failed);
            units.fail_foreign(staged.foreign, &mut progress.failed);
            return Ok(false);
        }
        if self.recording.prune && self.recording.only.is_none() && !progress.listed {
            progress.listed = true;
            for what in removals(self.root, &leaving, self.recording.records) {
                (self.options.removing)(&what);
            }
        }
        if !self.retire(&leaving, out, progress) {
            undo(progress, &staged.ops);
            return Ok(false);
        }
        let mut staged = staged;
        progress.note(std::mem::take(&mut staged.notes));
        let paths = |changes: &[Change]| -> Vec<String> {
            changes.iter().map(|change| change.path.clone()).collect()
        };
        let together = |one: &[Change], other: &[Change]| {
            let [one, other] =
                [one, other].map(|changes| units.at(paths(changes).iter().map(String::as_str)));
            !one.is_disjoint(&other)
        };
        match commit::commit_each(self.run, self.root, staged, self.options.durable, together) {
            Ok(commit::Committed { done, refusals, left }) => {
                progress.change(self.run, done);
                if !refusals.is_empty() {
                    self.unmake(&leaving, &left)?;
                    units.fail(refusals, &mut progress.failed);
                    return Ok(false);
                }
            }
            Err(stopped) => {
                progress.change(self.run, stopped.done);
                return Err(stopped.failure);
            }
        }
        if self.recording.prune {
            self.prune(&leaving, progress)?;
        } else if let Some(first) = leaving.leftovers.first() {
            let path = visible(&first.made.path).into_owned();
            progress.note([Note::NotPruned(leaving.leftovers.len(), path)]);
        }
        Ok(true)
    }

    /// What the records tell of services that are not `out`; `new` are the wanted ones.
    fn leaving(
        &self,
        old: Vec<Record>,
        new: Vec<Record>,
        out: &BTreeSet<String>,
        progress: &mut Progress,
    ) -> Leaving {
        let recording = &self.recording;
        let wanted: BTreeMap<&str, &str> =
            recording.records.iter().map(|record| (record.service.as_str(), record.set.as_str())).collect();
        // What replaces a service that is to go may be the one that cannot be made.
        let incomplete = out.iter().any(|name| wanted.contains_key(name.as_str()));
        let mut put_off = vec![];
        for record in &old {
            let set = wanted.get(record.service.as_str());
            if set.is_some_and(|set| is_taken_over(record, set)) && !out.contains(&record.service) {
                let set = visible(&record.set).into_owned();
                progress.note([Note::TakenOver(record.service.clone(), set)]);
            }
            if set.is_none() && incomplete && recording.prune && recording.goes(record) {
                put_off.push(record.service.clone());
            }
        }
        if !put_off.is_empty() {
            progress.note([Note::PutOff(put_off)]);
        }
        if recording.prune {
            progress.note(out_of_reach(&old, recording));
        }
        let goes = |record: &Record| recording.goes(record) && !incomplete && !out.contains(&record.service);
        record::leaving(old, new, self.tree, &goes, recording.disabled)
    }

    /// Stops services that are to go. Says whether all did.
    fn retire(&self, leaving: &Leaving, out: &BTreeSet<String>, progress: &mut Progress) -> bool {
        let left: &[record::Retired] = if self.recording.prune { &leaving.retired } else { &[] };
        let mut all = true;
        let disabled = self.recording.disabled.iter().filter(|retired| !out.contains(&retired.service));
        for retired in disabled.chain(left) {
            match supervise::retire(&self.run.lock, self.root, retired) {
                Ok(unlinked) => {
                    if unlinked.stopped {
                        progress.note([Note::Stopped(retired.service.clone())]);
                    }
                    progress.done.extend(unlinked.change);
                }
                Err(failure) => {
                    units::add(&mut progress.failed, vec![retired.service.clone()], failure);
                    all = false;
                }
            }
        }
        all
    }

    /// Takes out of the records what was not made after all, unless an earlier run made it: what is there now, or will be, is
    /// somebody else's.
    fn unmake(&self, leaving: &Leaving, left: &[String]) -> Result<(), Failure> {
        let left: HashSet<&str> =
            left.iter().map(String::as_str).filter(|path| !self.run.names(path)).collect();
        let mut records = vec![];
        for record in &leaving.records {
            // A record that could not be put on disk itself is the earlier one still, or none.
            if left.contains(record.entry_path().as_str())
                || !record.made.iter().any(|made| left.contains(made.path.as_str()))
            {
                continue;
            }
            let mut record = record.clone();
            record.made.retain(|made| !left.contains(made.path.as_str()));
            match record.made.is_empty() {
                true => forget(self.root, &record.service)?,
                false => records.push(record.entry()),
            }
        }
        self.write(records)
    }

    /// Puts records on disk.
    fn write(&self, records: Vec<Entry>) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let records = record_entries(records.into_iter());
        let staged = stage::stage_whole(self.run, self.root, &in_order(records.iter().collect())?)
            .map_err(|stopped| stopped.failure)?;
        commit::commit(self.run, self.root, staged, self.options.durable)
            .map(drop)
            .map_err(|stopped| stopped.failure)
    }

    fn prune(&self, leaving: &Leaving, progress: &mut Progress) -> Result<(), Failure> {
        let pruned = prune::prune(self.run, self.root, leaving, self.recording.records)?;
        progress.done.extend(pruned.changes);
        for (service, failure) in pruned.failed {
            units::add(&mut progress.failed, vec![service], failure);
        }
        let kept: BTreeSet<&str> = pruned.kept.iter().map(String::as_str).collect();
        let mut records = vec![];
        for (service, after) in leaving.after(self.tree, &kept) {
            match after {
                Some(record) => records.push(record.entry()),
                None => forget(self.root, service)?,
            }
        }
        self.write(records)?;
        progress.note(pruned.notes);
        Ok(())
    }

    /// Records are bookkeeping: a change of them alone is none. What is above a wanted path is shown.
    fn shown(&self, mut changes: Vec<Change>) -> Vec<Change> {
        changes.retain(|change| !record::is_bookkeeping(&change.path, self.tree));
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }
}

/// The entries that `new` records name; of all records of the run, they are those that are left.
pub(super) fn wanted_by<'e>(all: &[Record], new: &[Record], entries: &[&'e Entry]) -> Vec<&'e Entry> {
    let count = |records: &[Record]| records.iter().map(|record| record.made.len()).sum::<usize>();
    if count(all) == count(new) {
        return entries.to_vec();
    }
    let paths: HashSet<&str> =
        new.iter().flat_map(|record| &record.made).map(|made| made.path.as_str()).collect();
    entries.iter().copied().filter(|entry| paths.contains(entry.path.as_str())).collect()
}

/// Records of a run without the directories that their services only use and that are there, unless `old` ones name
/// them; and what is to be noted of these.
pub(super) fn without_used<'r>(
    run: &Run,
    root: &Directory,
    new: impl Iterator<Item = &'r Record>,
    old: &[Record],
    tree: &Tree,
) -> (Vec<Record>, Vec<Note>) {
    let old: HashMap<&str, &Record> = old.iter().map(|record| (record.service.as_str(), record)).collect();
    let mut notes = vec![];
    let without = |record: &Record| {
        let before = old.get(record.service.as_str());
        let is_ours =
            |path: &str| before.is_some_and(|record| record.made.iter().any(|made| made.path == path));
        let mut record = record.clone();
        for path in &record.used {
            if is_ours(path) {
                continue;
            }
            // What else is there is found in its turn.
            let Ok(Some(found)) = step_to(root, path) else { continue };
            let wanted = tree.get(path).map(|entry| run.ids.of(entry).0);
            if let Some(entry) = tree.get(path)
                && run.ids.set
                && wanted != Some(found.stat().st_uid)
            {
                let owner = run.ids.user(found.stat().st_uid);
                notes.push(Note::Used(found.path().to_owned(), owner, entry.owner.to_string()));
            }
            record.made.retain(|made| made.path != *path);
        }
        record
    };
    let records = new.map(without).collect();
    (records, notes)
}

/// The services below `root` that a record names, by their applications.
pub fn services(root: &Path) -> HashSet<String> {
    let names = || {
        let dir = directory(&Directory::root(root).ok()?).ok()??;
        let names = Dir::read_from(dir.fd()).ok()?.flatten();
        Some(names.map(|name| name.file_name().to_string_lossy().into_owned()).collect())
    };
    names().unwrap_or_default()
}

/// Every path that a record names which can be read, and what was made there.
pub(super) fn named(root: &Directory) -> BTreeMap<String, MadeKind> {
    let Ok(Some(dir)) = directory(root) else { return BTreeMap::new() };
    let Ok(names) = Dir::read_from(dir.fd()) else { return BTreeMap::new() };
    let names = names.flatten().map(|name| name.file_name().to_string_lossy().into_owned());
    let records = names.filter(|name| !name.starts_with('.')).filter_map(|name| one(&dir, &name).ok()?);
    records.flat_map(|record| record.made).map(|made| (made.path, made.kind)).collect()
}

/// Whether somebody may be surprised that a service is in another set now. Which one it was in before
/// is not known of all.
fn is_taken_over(record: &Record, set: &str) -> bool {
    record.set != set && ![record::UNKNOWN_SET, record::UNNAMED_SET].contains(&record.set.as_str())
}

/// What `prune` leaves though it may be meant: services whose pillar is not known, or has gone.
pub(super) fn out_of_reach(old: &[Record], recording: &Recording<'_>) -> Vec<Note> {
    let mut notes = vec![];
    if recording.only.is_some() {
        return notes;
    }
    if recording.sets.iter().any(|set| set == record::UNNAMED_SET) {
        notes.push(Note::Unnamed);
    }
    let wanted: BTreeSet<&str> = recording.records.iter().map(|record| record.service.as_str()).collect();
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for record in old.iter().filter(|record| !wanted.contains(record.service.as_str())) {
        if !recording.sets.contains(&record.set) {
            others.entry(&record.set).or_default().push(visible(&record.service).into_owned());
        }
    }
    for (set, services) in others {
        let reason = if set == record::UNKNOWN_SET {
            "an earlier version made them, and did not record from which pillar"
        } else if set.starts_with('/') && std::fs::symlink_metadata(set).is_err() {
            "the pillar that they were made from is not there any more"
        } else {
            continue;
        };
        notes.push(Note::OutOfReach(services, visible(set).into_owned(), reason));
    }
    notes
}

/// What a run is going to remove, a line for each whole service and for each path of the others.
fn removals(root: &Directory, leaving: &Leaving, wanted_records: &[Record]) -> Vec<String> {
    let wanted: BTreeSet<&str> = wanted_records.iter().map(|record| record.service.as_str()).collect();
    let mut whole: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = vec![];
    let is_there = |path: &str| {
        let found = supervise::parent_of(root, path);
        matches!(found, Ok(Some((dir, name))) if dir.stat_of(name).is_ok())
    };
    let needed: Vec<&str> = leaving
        .leftovers
        .iter()
        .filter(|left| prune::needed(root, &left.made, &left.service, wanted_records).is_some())
        .map(|left| left.made.path.as_str())
        .collect();
    let leaves = |left: &&record::Leftover| {
        is_there(&left.made.path) && !needed.iter().any(|path| is_within(path, &left.made.path))
    };
    for left in leaving.leftovers.iter().filter(leaves) {
        match wanted.contains(left.service.as_str()) {
            true => lines.push(format!("to be removed: {}", visible(&left.made.path))),
            false => *whole.entry(&left.service).or_default() += 1,
        }
    }
    let services = whole.into_iter().map(|(service, count)| {
        let paths = if count == 1 { "path" } else { "paths" };
        format!("to be removed: the service {}, {count} {paths}", visible(service))
    });
    services.chain(lines).collect()
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
    step_to(root, record::DIRECTORY)
}

/// The directory at a path below `root`, if it is there.
pub(super) fn step_to(root: &Directory, path: &str) -> Result<Option<Directory>, Failure> {
    let mut here = root.clone();
    for step in path.split('/').filter(|step| !step.is_empty()) {
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

/// The records of the run's own services; with pruning, of every service. One that cannot be read is a failure of its
/// service; with pruning it is one of the run, because nobody knows what the service needs.
pub(super) fn read(
    root: &Directory,
    recording: Recording<'_>,
) -> Result<(Vec<Record>, Vec<Failed>), Failure> {
    let Some(dir) = directory(root)? else { return Ok((vec![], vec![])) };
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
    let (mut records, mut failed) = (vec![], vec![]);
    for name in names {
        match one(&dir, &name) {
            Ok(record) => records.extend(record),
            Err(failure) if !recording.prune => units::add(&mut failed, vec![name], failure),
            Err(failure) => return Err(failure),
        }
    }
    Ok((records, failed))
}

fn one(dir: &Directory, name: &str) -> Result<Option<Record>, Failure> {
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
    let bytes = bounded::read(&fd, LONGEST).map_err(|refused| match refused.reason() {
        Some(reason) => refuse(format!("{reason}; move it away")),
        None => refused.of("read the record", dir.path_of(name)),
    })?;
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
