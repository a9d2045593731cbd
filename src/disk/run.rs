//! What the parts of a run share: owners, temporary names, threads, and how entries are divided.

use std::collections::{HashMap, HashSet};
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
use super::names::Ids;
use super::recorded;
use crate::failure::Foreign;
use crate::record::{self, MadeKind, Record};
use crate::steps::is_within;
use crate::tree::{Entry, How, Seen, SeenKind};

/// What is the same for a whole run.
pub(super) struct Run {
    pub(super) ids: Ids,
    pub(super) temps: TempNames,
    pub(super) journal: Journal,
    /// Where new things are made that belong into directories of others.
    pub(super) areas: Areas,
    /// Keeps the old version of what is replaced or removed.
    pub(super) backup: Backup,
    /// What earlier runs made, by its path, and of directories the users they gave them to; nothing
    /// where no records are kept.
    made: RwLock<Option<HashMap<String, Option<String>>>>,
    /// What the records of services name that the run does not want; read when it is needed.
    others: OnceLock<HashSet<String>>,
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
        let mut made = HashMap::with_capacity(records.iter().map(|record| record.made.len()).sum());
        for one in records.iter().flat_map(|record| &record.made) {
            let owner = match &one.kind {
                MadeKind::Directory { owner } => Some(owner.clone()),
                MadeKind::File { .. } | MadeKind::Link { .. } => None,
            };
            made.insert(one.path.clone(), owner);
        }
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }

    /// What is to be changed at the path of an entry, if no record names it. Without records nothing is known.
    pub(super) fn foreign(&self, root: &Directory, entry: &Entry, ways: &[How]) -> Option<Foreign> {
        if ways.is_empty() || is_within(&entry.path, record::OWN) {
            return None;
        }
        if self.made.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.contains_key(&entry.path)
            || self.others.get_or_init(|| recorded::named(root)).contains(&entry.path)
        {
            return None;
        }
        let change: Vec<String> = ways.iter().map(How::to_string).collect();
        Some(Foreign { path: entry.path.clone(), kind: entry.kind.word(), change: change.join(", ") })
    }

    /// Whether a record names this path that the run has read.
    pub(super) fn names(&self, path: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().is_some_and(|made| made.contains_key(path))
    }

    /// Whether any record names this path, as far as records can be read.
    pub(super) fn is_recorded(&self, root: &Directory, path: &str) -> bool {
        self.names(path) || self.others.get_or_init(|| recorded::named(root)).contains(path)
    }

    /// Whether an earlier run gave the directory at this path to the user `owner`.
    pub(super) fn gave(&self, path: &str, owner: &str) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().and_then(|made| made.get(path)?.as_deref()).is_some_and(|before| before == owner)
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
