//! What the parts of a run share: owners, temporary names, threads, and how entries are divided.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::area::Areas;
use super::backup::Backup;
use super::directory::Directory;
use super::journal::Journal;
use super::leftover::{TempNames, remove};
use super::lock::Lock;
use super::names::Ids;
use super::origin::{self, There};
use super::recorded;
use crate::failure::Foreign;
use crate::record::{self, MadeKind, Record};
use crate::steps::{is_within, parent};
use crate::tree::{Entry, How, Seen, SeenKind};

/// What is the same for a whole run.
pub(super) struct Run {
    /// Keeps other runs away; of a run that changes nothing there is none.
    pub(super) lock: Lock,
    pub(super) ids: Ids,
    pub(super) temps: TempNames,
    pub(super) journal: Journal,
    /// Where new things are made that belong into directories of others.
    pub(super) areas: Areas,
    /// Keeps the old version of what is replaced or removed.
    pub(super) backup: Backup,
    /// What earlier runs made, by its path; nothing where no records are kept.
    made: RwLock<Option<BTreeMap<String, MadeKind>>>,
    /// What the records of services name that the run does not want; read when it is needed.
    others: OnceLock<BTreeMap<String, MadeKind>>,
    /// Change what no record names, too.
    pub(super) adopt: bool,
    /// How many more threads may be started.
    threads: AtomicUsize,
    /// Something with a temporary name could not be removed.
    leaves: AtomicBool,
}

/// Below this many entries a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 4000;

impl Run {
    /// A run with the owners it needs, and the place for old versions if they are to be kept.
    pub(super) fn new(ids: Ids, backup: Option<&str>, adopt: bool) -> Self {
        let spare = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let temps = TempNames::new();
        Self {
            lock: Lock::default(),
            ids,
            journal: Journal::none(temps.run().to_owned()),
            temps,
            areas: Areas::default(),
            backup: Backup::new(backup, adopt),
            made: RwLock::new(None),
            others: OnceLock::new(),
            adopt,
            threads: AtomicUsize::new(spare.min(3)),
            leaves: AtomicBool::new(false),
        }
    }

    /// Removes what was begun under a temporary name in `dir`, where nobody else can rename things.
    pub(super) fn discard(&self, dir: impl AsFd, name: &str) {
        if !matches!(remove(dir, name), Ok(()) | Err(Errno::NOENT)) {
            self.leaves.store(true, Ordering::Relaxed);
        }
    }

    /// Whether something could not be removed; the next run does.
    pub(super) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Learns from the records what earlier runs made; what it knew before is forgotten.
    pub(super) fn learn(&self, records: &[Record]) {
        let all = records.iter().flat_map(|record| &record.made);
        let made = all.map(|one| (one.path.clone(), one.kind.clone())).collect();
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }

    /// What is to be changed at the path of an entry in `dir`, if no record names it, or if `dir` may be another directory
    /// than the records tell of and what is there is not as it was made. Without records nothing is known.
    pub(super) fn foreign(
        &self,
        root: &Directory,
        dir: &Directory,
        entry: &Entry,
        ways: &[How],
        there: &There<'_>,
    ) -> Option<Foreign> {
        if ways.is_empty() || is_within(&entry.path, record::OWN) {
            return None;
        }
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let made = made.as_ref()?;
        let others = || self.others.get_or_init(|| recorded::named(root));
        // Whether a directory may be changed is asked for by itself.
        let is_doubtful =
            !matches!(there, There::Directory) && origin::is_doubtful(self, dir, parent(&entry.path));
        let is_ours = |made: &BTreeMap<String, MadeKind>| {
            made.get(&entry.path).is_some_and(|made| !is_doubtful || there.is(made))
        };
        if is_ours(made) || is_ours(others()) {
            return None;
        }
        let change: Vec<String> = ways.iter().map(How::to_string).collect();
        Some(Foreign { path: entry.path.clone(), kind: entry.kind.word(), change: change.join(", ") })
    }

    /// Whether what is not there yet in `dir`, the directory at this path, may not be made there: `dir` may be another
    /// directory than the records tell of, because it has nothing of what earlier runs made directly in it. Where nothing has
    /// been made before, somebody may have prepared it.
    pub(super) fn is_foreign(&self, root: &Directory, dir: &Directory, at: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let Some(made) = made.as_ref().filter(|_| !is_within(at, record::OWN)) else { return false };
        if !origin::is_doubtful(self, dir, at) {
            return false;
        }
        let mut is_recorded = false;
        let mut is_it = |made: &BTreeMap<String, MadeKind>| {
            let mut all = origin::directly_in(made, at).inspect(|_| is_recorded = true);
            all.any(|(name, made)| origin::is_as_made(dir, name, made))
        };
        let is_it = is_it(made) || is_it(self.others.get_or_init(|| recorded::named(root)));
        is_recorded && !is_it
    }

    /// Whether something in `dir`, the directory at this path, is as an earlier run made it, and the journal does not have
    /// `dir`, which others can have put there.
    pub(super) fn has_proven(&self, dir: &Directory, at: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let Some(made) = made.as_ref().filter(|_| origin::is_doubtful(self, dir, at)) else { return false };
        origin::directly_in(made, at).any(|(name, made)| origin::is_as_made(dir, name, made))
    }

    /// Whether a record names this path that the run has read.
    pub(super) fn names(&self, path: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().is_some_and(|made| made.contains_key(path))
    }

    /// Whether any record names this path, as far as records can be read.
    pub(super) fn is_recorded(&self, root: &Directory, path: &str) -> bool {
        self.names(path) || self.others.get_or_init(|| recorded::named(root)).contains_key(path)
    }

    /// Whether an earlier run gave the directory at this path to the user `owner`.
    pub(super) fn gave(&self, path: &str, owner: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let made = made.as_ref().and_then(|made| made.get(path));
        matches!(made, Some(MadeKind::Directory { owner: before }) if before == owner)
    }

    /// Every way in which what is there is not what is wanted.
    pub(super) fn compare(&self, entry: &Entry, kind: SeenKind<'_>, stat: &Stat) -> Vec<How> {
        let mode = stat.st_mode & 0o7777;
        if !self.ids.set {
            return Seen { kind, mode, owner: None }.differs_from(entry);
        }
        let (uid, gid) = self.ids.of(entry);
        // A number may have several names; it is the wanted one if the number is right.
        let owner = if stat.st_uid == uid { entry.owner.to_string() } else { self.ids.user(stat.st_uid) };
        let group = if stat.st_gid == gid { entry.group.to_string() } else { self.ids.group(stat.st_gid) };
        Seen { kind, mode, owner: Some((&owner, &group)) }.differs_from(entry)
    }

    /// Cuts entries in two between children of one directory, if that is worth a thread and one
    /// is to be had; [`Run::joined`] gives it back.
    pub(super) fn split<'a, 'e>(
        &self,
        entries: &'a [&'e Entry],
        at: usize,
    ) -> Option<(&'a [&'e Entry], &'a [&'e Entry])> {
        if entries.len() < WORTH_A_THREAD {
            return None;
        }
        let middle = entries.len() / 2;
        let name = child(entries.get(middle)?, at);
        let mut cut = middle;
        while cut > 0 && child(entries[cut - 1], at) == name {
            cut -= 1;
        }
        // A cut far from the middle leaves one thread idle; a level further down may do better.
        if cut < entries.len() / 4 {
            return None;
        }
        let take = |spare: usize| spare.checked_sub(1);
        self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(entries.split_at(cut))
    }

    /// A thread has ended.
    pub(super) fn joined(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }
}

/// A child of a directory and all that is wanted below it.
pub(super) struct Group<'a, 'e> {
    /// The child's name.
    pub(super) name: &'e str,
    /// Its path, as an entry has it.
    pub(super) path: &'e str,
    /// Its entry; none for a directory that is only on the way to others.
    pub(super) entry: Option<&'e Entry>,
    /// What is wanted below it.
    pub(super) rest: &'a [&'e Entry],
    /// Where the names of its own children begin.
    pub(super) below: usize,
}

/// The name of the child that an entry is, or is below of.
fn child(entry: &Entry, at: usize) -> &str {
    let rest = entry.path.get(at..).unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

/// The children of a directory. All entries are below it, and `at` is where names begin.
pub(super) fn groups<'a, 'e>(mut entries: &'a [&'e Entry], at: usize) -> impl Iterator<Item = Group<'a, 'e>> {
    std::iter::from_fn(move || {
        let first: &'e Entry = entries.first()?;
        let name = child(first, at);
        let same = entries.iter().take_while(|entry| child(entry, at) == name).count();
        let (mine, others) = entries.split_at(same);
        entries = others;
        let end = at + name.len();
        let entry = (first.path.len() == end).then_some(first);
        let rest = if entry.is_some() { &mine[1..] } else { mine };
        Some(Group { name, path: &first.path[..end], entry, rest, below: end + 1 })
    })
}
