//! A tree onto a directory, and back.
//!
//! [`apply`] makes ROOT hold a [`Tree`] in three phases. A failure or a kill at any moment leaves
//! every file whole, the old one or the new one, and the next run completes the work:
//!
//!  1. *Stage*: compare what is there with what is wanted. What has to be written is written under
//!     a temporary name, with owner and then mode set: beside its place, or, where others can rename
//!     things, or could move some into it, in a directory that only root can enter ([`area`]). Directories that only need another
//!     mode or owner are noted down. A failure here removes the temporary names: nothing changed.
//!     With a [`Recording`] it is known which services want the path that failed: they are left as
//!     they are, and the others are staged again without them ([`recorded`]).
//!  2. *Sync*: one `syncfs` for each file system that was written to.
//!  3. *Commit*: rename into place and set modes and owners: records first, then in the order of the
//!     paths, but links (and new directories that hold links) last, so that runsvdir does not find a
//!     service before it is whole. Then one more sync.
//!
//! Between 2 and 3 services that are to go are stopped and unlinked ([`supervise`]); after 3, what
//! earlier runs made and nobody wants or changed is removed, if that is asked for ([`prune`]). What
//! earlier runs made is known from [records](crate::record), which this module keeps.
//!
//! A directory that is new is filled under its temporary name and renamed as a whole. The name
//! begins with a dot, which runsvdir ignores. A directory that exists is never replaced.
//!
//! Who can be trusted with a path: applications own their directories, and could plant things in
//! them. Every step of a path is therefore opened on its own, relative to the directory before it
//! and without following links. One kind of link is followed: one below which only root can have
//! put it, that is, root owns it and root alone can write in its directory and in all directories
//! between ROOT and that one (`/var/run -> /run`, `/var/www -> /data/www`). For a run by somebody
//! else, "root" is root or that user. Links resolve within ROOT, as after a chroot: absolute
//! targets begin there and `..` does not leave it. Any other link in the way is refused by name.
//!
//! A file is replaced and never changed in place: its other name (a hard link) may be somebody's `/etc/shadow`, and who has
//! it open for writing goes on writing to it whatever its mode is.
//!
//! A name proves nothing where others can rename things. What a killed run left, and which directory of root's was made by
//! runsmith, is known by device, inode and time of birth, from the [`journal`]; nothing is removed beyond a mount point. A
//! directory of root's that the journal does not have may be another one than records tell of ([`origin`]).
//! Content that others can change is read with a limit that holds while it is read ([`bounded`]).
//!
//! A directory that exists is given the wanted mode and owner if it has that owner already, if it is an ordinary one
//! of root's, as `mkdir` leaves it, or if it is to be root's. One that the host shares (a mount point, the sticky
//! bit, anybody may write in it) or that is a third user's is refused before anything changes.
//!
//! What no [record](crate::record) names is somebody else's: a service that would change it is refused as a whole, with
//! all of these paths, unless [`Options::adopt`] says otherwise. Directories that a service only uses stay as they are.
//!
//! Two runs do not mix. Root's lock a file that only root can open, `/run/runsmith/.apply.lock`, one
//! for all roots of the host: roots inside each other are kept apart, and no other user can stall
//! them. Where `/run` cannot be written, and for everybody else, the lock is on the directory ROOT
//! itself, and anyone who may read ROOT can hold it; that is why there is a limit to the waiting,
//! and why the caller is told who holds what.
//!
//! Owners are names of the host that runs this, not of ROOT's `/etc/passwd`.

#![allow(clippy::disallowed_methods, reason = "putting trees on disk is what this module is for")]

mod area;
mod backup;
mod bounded;
mod commit;
mod directory;
mod identity;
mod journal;
mod leaving;
mod leftover;
mod living;
mod lock;
mod names;
mod origin;
mod prune;
mod read;
mod recorded;
mod replace;
mod run;
mod shared;
mod stage;
mod supervise;
mod units;
mod write;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Foreign};
use crate::record::{self, Record, Retired};
use crate::tree::{Change, Entry, Tree};
use crate::visible::visible;

pub use directory::open_directory;
pub use leaving::read_recorded;
pub use lock::holder_of;
pub use read::{Found, read, read_all};
pub use recorded::services;
pub use replace::replace;

/// How to apply.
pub struct Options<'a> {
    /// Make the result survive a power cut. Costs the time of writing to the device.
    pub durable: bool,
    /// Called once if another run has to be waited for, with words on who holds which file.
    pub waiting: &'a dyn Fn(&str),
    /// Called for each thing that is going to be removed, before anything is.
    pub removing: &'a dyn Fn(&str),
    /// How long to wait for other runs.
    pub patience: Duration,
    /// The directory of the lock that root's runs share; it is made if only it is missing.
    pub locks: &'a Path,
    /// Change also what no record names: its old version is kept, as with [`backup`](Self::backup).
    pub adopt: bool,
    /// What is written down of this run, and what it does about earlier ones; nothing if it is none.
    pub recording: Option<Recording<'a>>,
    /// Where the old version of what is replaced or removed is kept: a path below ROOT that is not
    /// there yet. An empty path takes the next number below [`BACKUPS`].
    pub backup: Option<&'a str>,
}

/// What is written down of a run.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// The sets of the run: `prune` takes away whole services of these.
    pub sets: &'a [String],
    /// A record for each of them.
    pub records: &'a [Record],
    /// Those that are to be stopped and found by no link.
    pub disabled: &'a [Retired],
    /// Remove what earlier runs made and nobody wants any more.
    pub prune: bool,
    /// Take away these services, whatever their set is, and no others; `records` is empty then.
    pub only: Option<&'a [String]>,
}

impl Recording<'_> {
    /// Whether a service that the run does not make is to go.
    fn goes(&self, record: &Record) -> bool {
        let is_ours = self.sets.contains(&record.set) && record.set != record::UNNAMED_SET;
        self.only.map_or(is_ours, |names| names.contains(&record.service))
    }
}

/// Where backups that are given no place go, below ROOT; root alone can look into them.
pub const BACKUPS: &str = "/var/lib/runsmith/backup";

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            durable: true,
            waiting: &|_| {},
            removing: &|_| {},
            patience: lock::PATIENCE,
            locks: Path::new(lock::DIRECTORY),
            adopt: false,
            recording: None,
            backup: None,
        }
    }
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Every change that was made, in the order of the paths.
    pub changes: Vec<Change>,
    /// What else the user should know.
    pub notes: Vec<Note>,
    /// Services that could not be done, and why; everything else was.
    pub failed: Vec<Failed>,
}

/// Services that could not be done: they are as they were, unless it was the renaming into place that failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// Their names, in order.
    pub services: Vec<String>,
    /// Why.
    pub failure: Failure,
    /// These are all services of the run.
    pub all: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// So many services are named.
        const NAMED: usize = 5;
        let names: Vec<_> = self.services.iter().take(NAMED).map(|name| visible(name)).collect();
        match (self.all || names.is_empty(), self.services.len().saturating_sub(NAMED)) {
            (true, _) => write!(f, "{}", self.failure),
            (false, 0) => write!(f, "{}: {}", names.join(", "), self.failure),
            (false, more) => write!(f, "{} and {more} more: {}", names.join(", "), self.failure),
        }
    }
}

/// Something worth saying that is neither a change nor a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// ROOT did not exist and was made.
    RootMade(String),
    /// The run is not root's: owners and groups were neither compared nor set.
    OwnersLeftAlone,
    /// A run that was killed had left something, which is removed now.
    LeftoverRemoved(String),
    /// Earlier runs made this, nobody wants it any more, and it is left alone; why.
    Kept(String, String),
    /// So many paths of earlier runs are not wanted any more, and were not to be removed; the first one.
    NotPruned(usize, String),
    /// A service was taken over from another set of runs: service, and the set it was in.
    TakenOver(String, String),
    /// Services that other sets have, which no later run will take away by itself: their names, the set, and
    /// why no run has it any more.
    OutOfReach(Vec<String>, String, &'static str),
    /// Whole services cannot be taken away: the pillar has no name that tells which.
    Unnamed,
    /// Records cannot be read; why.
    Unrecorded(String),
    /// This was not made by an earlier run, and is taken over.
    Adopted(Foreign),
    /// A directory that is used as it is, whom it belongs to, and whom the service needs it to belong to.
    Used(String, String, String),
    /// A service that ran was stopped.
    Stopped(String),
    /// Where the old version of what was changed is.
    BackedUp(String),
    /// These services were to be removed, and are kept because not everything that is wanted could be made.
    PutOff(Vec<String>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootMade(path) => write!(f, "made the directory {path}"),
            Self::OwnersLeftAlone => f.write_str("owners and groups are left alone: only root can set them"),
            Self::LeftoverRemoved(path) => write!(f, "removed {path}, left by a run that was killed"),
            Self::Kept(path, reason) => write!(f, "kept {path}: {reason}"),
            Self::NotPruned(1, path) => {
                write!(f, "{path} was made by an earlier run and is not wanted any more; --prune removes it")
            }
            Self::NotPruned(count, path) => write!(
                f,
                "{count} paths were made by earlier runs and are not wanted any more, such as {path}; \
                 --prune removes them"
            ),
            Self::TakenOver(service, set) => {
                write!(f, "{service} belonged to the set {set}; it is taken over by the set of this run")
            }
            Self::OutOfReach(services, set, reason) => write!(
                f,
                "left alone: {}; {reason}; `--set {set}` lets --prune remove what the pillar does not have, \
                 `runsmith remove NAME` removes one",
                services.join(", ")
            ),
            Self::Unnamed => f.write_str(
                "--prune removes no whole service: a pillar from standard input or a pipe has no name by which \
                 a run knows its own; give it one with --set NAME",
            ),
            Self::Unrecorded(reason) => write!(f, "what earlier runs made is not known: {reason}"),
            Self::Adopted(thing) => write!(f, "adopted, though runsmith did not make it: {thing}"),
            Self::Used(path, owner, wanted) => write!(
                f,
                "{path} belongs to {owner} and not to {wanted}: it is used as it is, because runsmith did not make it"
            ),
            Self::Stopped(service) => write!(f, "stopped {service}"),
            Self::PutOff(services) => write!(
                f,
                "kept {}, which {} to be removed: not all services could be done",
                services.join(", "),
                if services.len() == 1 { "was" } else { "were" }
            ),
            Self::BackedUp(path) => write!(f, "what was there before is kept in {path}"),
        }
    }
}

/// It could not be finished.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Why.
    pub failure: Failure,
    /// What was done before, in the order of the paths. Empty unless committing had begun.
    pub done: Vec<Change>,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self { failure, done: vec![] }
    }
}

/// Makes the directory `root` hold `tree` and leaves everything else below it alone, but for what
/// [`Options::recording`] asks for.
///
/// A second run changes nothing and touches nothing. Missing directories above an entry are made,
/// 0755 and root's, and are reported as changes; so is ROOT itself, as a note.
pub fn apply(tree: &Tree, root: &Path, options: &Options<'_>) -> Result<Applied, Stopped> {
    let entries = ordered(tree)?;
    let ids = names::Ids::resolve(&entries);
    let failed = match options.recording {
        Some(recording) => unknown_owners(&ids, tree, recording, root),
        None => match ids.unknown(entries.iter().copied(), root) {
            Some(failure) => return Err(failure.into()),
            None => vec![],
        },
    };
    let mut notes = vec![];
    if !ids.set {
        notes.push(Note::OwnersLeftAlone);
    }
    if directory::make_root(root)? {
        notes.push(Note::RootMade(shown(root)));
    }
    let root = directory::Directory::root(root)?;
    let lock = lock::hold(&root, options)?;

    let mut run = run::Run::new(ids, options.backup, options.adopt);
    run.lock = lock;
    let durable = options.durable;
    let result = match options.recording {
        None => unrecorded(&run, &root, &entries, durable),
        Some(recording) => {
            run.journal.read(&root, durable)?;
            let recorded = recorded::Recorded { run: &run, root: &root, tree, recording, options };
            recorded.apply(&entries, failed)
        }
    };
    let mut applied = closed(&run, result)?;
    notes.append(&mut applied.notes);
    notes.extend(run.backup.note());
    Ok(Applied { notes, ..applied })
}

/// The services that users or groups are wanted for which the host does not have.
fn unknown_owners(ids: &names::Ids, tree: &Tree, recording: Recording<'_>, root: &Path) -> Vec<Failed> {
    let mut failed = vec![];
    if tree.entries().iter().all(|entry| ids.knows(entry)) {
        return failed;
    }
    for record in recording.records {
        let entries = record.made.iter().filter_map(|made| tree.get(&made.path));
        if let Some(failure) = ids.unknown(entries, root) {
            units::add(&mut failed, vec![record.service.clone()], failure);
        }
    }
    failed
}

fn unrecorded(
    run: &run::Run,
    root: &directory::Directory,
    entries: &[&Entry],
    durable: bool,
) -> Result<Applied, Stopped> {
    let mut staged = stage::stage_whole(run, root, entries)?;
    let notes = std::mem::take(&mut staged.notes);
    let changes = commit::commit(run, root, staged, durable)?;
    Ok(Applied { changes, notes, failed: vec![] })
}

/// Takes away what a run needed while it was at work. What cannot be stays in the journal, for the next run.
fn closed(run: &run::Run, result: Result<Applied, Stopped>) -> Result<Applied, Stopped> {
    let areas = run.areas.remove();
    let changes = result.as_ref().map_or_else(|stopped| &stopped.done, |applied| &applied.changes);
    let ended = match (areas.is_ok() && !run.leaves(), changes.is_empty()) {
        (true, true) => {
            run.journal.abandon();
            Ok(())
        }
        (true, false) => run.journal.end(),
        (false, _) => Ok(()),
    };
    match (areas.and(ended), result) {
        (Err(failure), Ok(applied)) => Err(Stopped { failure, done: applied.changes }),
        // What stopped it is what is reported.
        (_, result) => result,
    }
}

/// Directories deeper than this are refused: each level holds a file descriptor open.
const MAX_DEPTH: usize = 128;

/// Entries such that everything below a directory follows it at once (`/a`, `/a/b`, `/a-b`),
/// where a [`Tree`]'s own order has `/a-b` in between; and proof that each path is normal.
fn ordered(tree: &Tree) -> Result<Vec<&Entry>, Failure> {
    in_order(tree.entries().iter().collect())
}

fn in_order(mut entries: Vec<&Entry>) -> Result<Vec<&Entry>, Failure> {
    for entry in &entries {
        let Some(steps) = entry.path.strip_prefix('/') else {
            return Err(refused(entry, "the path does not begin with /"));
        };
        if steps.split('/').any(|step| matches!(step, "" | "." | "..")) {
            return Err(refused(entry, "the path has an empty step, . or .."));
        }
        if steps.split('/').any(|step| step.len() > 255) {
            return Err(refused(entry, "a step of the path is longer than 255 bytes"));
        }
        if steps.split('/').count() > MAX_DEPTH {
            return Err(refused(entry, "the path has more than 128 steps"));
        }
        if steps.contains('\0') {
            return Err(refused(entry, "the path has a zero byte"));
        }
    }
    entries.sort_by(|a, b| by_steps(&a.path, &b.path));
    Ok(entries)
}

/// Compares paths as if `/` came before every other character.
fn by_steps(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.as_bytes().iter().map(key).cmp(b.as_bytes().iter().map(key))
}

fn refused(entry: &Entry, reason: &str) -> Failure {
    Failure::path("put on disk", visible(&entry.path), reason)
}

/// A path as messages show it.
fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}
