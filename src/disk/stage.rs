//! Phase one: what is there, what is wanted, and everything new written under temporary names.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::area::Area;
use super::directory::{Directory, Step, failure, ours, word};
use super::identity::Identity;
use super::origin::There;
use super::run::{Group, Run, groups};
use super::units::Refusal;
use super::write::{self, Attributes, Filled, Filling};
use super::{Note, Stopped, commit, leftover, shared};
use crate::failure::{Failure, Foreign};
use crate::record;
use crate::steps::parent;
use crate::tree::{Change, Entry, How, Kind, SeenKind};
use crate::visible::visible;

/// Something that waits for phase three.
pub(super) struct Op {
    /// The directory it is in, as an entry's path (nothing for ROOT), and its device and inode.
    pub(super) parent: String,
    pub(super) parent_id: (u64, u64),
    pub(super) name: String,
    pub(super) act: Act,
    /// When its turn comes.
    pub(super) turn: Turn,
    /// What will have been changed by it.
    pub(super) changes: Vec<Change>,
}

/// The order of phase three; within a turn it is that of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Records: nothing may be there that no record knows.
    Record,
    /// Everything else.
    Plain,
    /// It makes a link appear, by which runsvdir finds a service that has to be whole.
    Link,
}

impl Turn {
    /// That of an operation by which these entries get their names.
    fn of<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Self {
        let mut turn = Self::Plain;
        for entry in entries {
            match &entry.kind {
                Kind::Link(_) => return Self::Link,
                _ if entry.path.starts_with(record::DIRECTORY) => turn = Self::Record,
                _ => {}
            }
        }
        turn
    }
}

/// What phase three has to do.
pub(super) enum Act {
    /// Give what has the temporary name its own, which is in `area` if the directory is not root's alone, or if it is a
    /// directory that others can put something into. `fresh`: only if nothing is there.
    Place { temp: String, area: Option<Arc<Area>>, fresh: bool },
    /// Set mode and owner of the directory that is there, if it is still this one.
    Settle { want: Attributes, is: Identity },
}

/// What phase one leaves to the others.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) ops: Vec<Op>,
    pub(super) notes: Vec<Note>,
    /// The file systems that were written to, each with something open on it.
    pub(super) devices: BTreeMap<u64, OwnedFd>,
    /// What could not be staged; the operations of everything else are there.
    pub(super) refusals: Vec<Refusal>,
    /// What no record names and was not staged for that.
    pub(super) foreign: Vec<Foreign>,
    /// New directories of root's where others can rename them.
    made: Vec<(String, Identity)>,
    /// Directories of root's that are there, where others can rename them, and that earlier runs have used.
    known: Vec<(String, Identity)>,
}

/// Compares ROOT with what is wanted and writes what is new under temporary names. What cannot be staged
/// is among the refusals, and does not keep the rest from being staged.
pub(super) fn stage(run: &Run, root: &Directory, entries: &[&Entry]) -> Staged {
    let mut stage = Stage::new(run, root);
    stage.existing(root, 1, entries);
    let mut staged = stage.staged;
    // Before any of them gets its name, which none does if something is refused.
    if staged.refusals.is_empty()
        && staged.foreign.is_empty()
        && let Err(failure) =
            run.journal.make(std::mem::take(&mut staged.made), std::mem::take(&mut staged.known))
    {
        staged.refusals.push(Refusal::of(entries.iter().copied(), failure));
    }
    staged
}

/// As [`stage`], where everything belongs together: the first refusal takes back all that was staged.
pub(super) fn stage_whole(run: &Run, root: &Directory, entries: &[&Entry]) -> Result<Staged, Stopped> {
    let mut staged = stage(run, root, entries);
    if staged.refusals.is_empty() {
        return Ok(staged);
    }
    commit::abandon(run, root, &staged.ops);
    run.backup.abandon();
    Err(staged.refusals.swap_remove(0).failure.into())
}

/// Whether what is there may be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Permit {
    /// A record names it, or no records are kept.
    Ours,
    /// No record names it, and it is taken over.
    Adopted,
    /// No record names it.
    Barred,
}

struct Stage<'r> {
    run: &'r Run,
    root: &'r Directory,
    staged: Staged,
    bytes: Vec<u8>,
    listing: Vec<u8>,
}

type Done = Result<(), Failure>;

impl<'r> Stage<'r> {
    fn new(run: &'r Run, root: &'r Directory) -> Self {
        Self { run, root, staged: Staged::default(), bytes: vec![], listing: Vec::with_capacity(32 << 10) }
    }

    /// A directory that is there, and what is wanted in it.
    fn existing(&mut self, dir: &Directory, at: usize, entries: &[&Entry]) {
        for name in leftover::sweep(dir, self.listing.spare_capacity_mut(), &self.run.journal) {
            self.staged.notes.push(Note::LeftoverRemoved(dir.path_of(&name)));
        }
        self.children(dir, at, entries);
    }

    fn children(&mut self, dir: &Directory, at: usize, entries: &[&Entry]) {
        if let Some((first, second)) = self.run.split(entries, at) {
            let mut other = Stage::new(self.run, self.root);
            let two = std::thread::scope(|scope| {
                let two = scope.spawn(|| other.children(dir, at, second));
                self.children(dir, at, first);
                two.join()
            });
            self.run.joined();
            self.staged.ops.append(&mut other.staged.ops);
            self.staged.notes.append(&mut other.staged.notes);
            self.staged.devices.append(&mut other.staged.devices);
            self.staged.made.append(&mut other.staged.made);
            self.staged.known.append(&mut other.staged.known);
            self.staged.refusals.append(&mut other.staged.refusals);
            self.staged.foreign.append(&mut other.staged.foreign);
            if two.is_err() {
                let failure = Failure::path("compare", dir.path(), "a thread ended early");
                self.staged.refusals.push(Refusal::of(second.iter().copied(), failure));
            }
            return;
        }
        for group in groups(entries, at) {
            if let Err(failure) = self.child(dir, &group) {
                let entries = group.entry.into_iter().chain(group.rest.iter().copied());
                self.staged.refusals.push(Refusal::of(entries, failure));
            }
        }
    }

    fn child(&mut self, dir: &Directory, group: &Group<'_, '_>) -> Done {
        match group.entry.map(|entry| (entry, &entry.kind)) {
            Some((entry, Kind::File(_) | Kind::Link(_))) if !group.rest.is_empty() => {
                let reason = format!("it is wanted as a {} and holds entries", entry.kind.word());
                Err(Failure::path("put on disk", visible(&entry.path), reason))
            }
            Some((entry, Kind::File(bytes))) => self.file(dir, group, entry, bytes),
            Some((entry, Kind::Link(target))) => self.link(dir, group, entry, target),
            Some((_, Kind::Directory)) | None => self.directory(dir, group),
        }
    }

    fn directory(&mut self, dir: &Directory, group: &Group<'_, '_>) -> Done {
        let found = match dir.step(group.name)? {
            Step::Missing => return self.fresh_directory(dir, group),
            Step::Other(word) => return Err(in_the_way(dir, group.name, "directory", word)),
            Step::Directory(found) => found,
        };
        if let Some(entry) = group.entry {
            let ways = self.run.compare(entry, SeenKind::Directory, found.stat());
            match self.permit(dir, entry, &ways, &There::Directory) {
                Permit::Barred => {}
                permit => {
                    if !ways.is_empty() {
                        shared::refuse_shared(self.run, &found, entry)?;
                    }
                    if permit == Permit::Adopted {
                        self.run.backup.directory(self.root, group.path, found.stat())?;
                    }
                    self.settle(dir, group, entry, &found, ways)?;
                }
            }
        }
        if group.rest.is_empty() {
            return Ok(());
        }
        self.existing(&found, group.below, group.rest);
        Ok(())
    }

    /// Where new things are made for `dir`: nothing but `dir` itself, or an area. `is_open`: others will be able to put
    /// something into what is made.
    fn area(&self, dir: &Directory, is_open: bool) -> Result<Option<Arc<Area>>, Failure> {
        self.run.journal.begin()?;
        if dir.trusted() && !is_open {
            return Ok(None);
        }
        self.run.areas.for_(dir, &self.run.temps, &self.run.journal).map(Some)
    }

    fn fresh_directory(&mut self, dir: &Directory, group: &Group<'_, '_>) -> Done {
        if self.permit_new(dir, group) == Permit::Barred {
            return Ok(());
        }
        let want = group
            .entry
            .map_or_else(|| Attributes::of_parent(self.run), |entry| Attributes::of(self.run, entry));
        // It gets its owner before it gets its place, and what is taken back is removed with all that is in it: until then
        // nobody may be able to move anything there.
        let is_open =
            |entry: &&Entry| entry.kind == Kind::Directory && Attributes::of(self.run, entry).is_open();
        let area = self.area(dir, want.is_open() || group.rest.iter().any(is_open))?;
        let place = area.as_ref().map_or(dir.fd(), |area| &area.fd);
        let temp = self.run.temps.make(group.name);
        let fail = |error| failure("make the directory", dir.path_of(group.name), error);
        let fd = write::directory(place, &temp).map_err(fail)?;
        let mut filled = Filled::default();
        filled
            .changes
            .push(Change { path: group.path.to_owned(), how: How::Created(Kind::Directory.word()) });
        let fill = |filled: &mut Filled| {
            let root = self.root.path().trim_end_matches('/');
            let is_exposed = !dir.trusted();
            filled.directory(group.path, &fd, want, is_exposed).map_err(fail)?;
            let filling = Filling { run: self.run, root };
            write::fill(&filling, &fd, group.below, group.rest, is_exposed || want.is_open(), filled)?;
            want.settle(&fd).map_err(fail)
        };
        if let Err(failure) = fill(&mut filled) {
            self.run.discard(place, &temp);
            return Err(failure);
        }
        self.touched(dir, Some(fd));
        self.staged.made.append(&mut filled.made);
        let turn = Turn::of(group.entry.into_iter().chain(group.rest.iter().copied()));
        self.push(dir, group, Act::Place { temp, area, fresh: true }, turn, filled.changes);
        Ok(())
    }

    fn file(&mut self, dir: &Directory, group: &Group<'_, '_>, entry: &Entry, bytes: &[u8]) -> Done {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match openat(dir.fd(), group.name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                return match self.permit_new(dir, group) {
                    Permit::Barred => Ok(()),
                    Permit::Ours | Permit::Adopted => self.new_file(dir, group, entry, bytes, None),
                };
            }
            // A link, a socket, or a device that has no driver.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                let kind = FileType::from_raw_mode(dir.stat_of(group.name)?.st_mode);
                return Err(in_the_way(dir, group.name, "file", word(kind)));
            }
            Err(error) => return Err(failure("read", dir.path_of(group.name), error)),
        };
        let fail = |error| failure("read", dir.path_of(group.name), error);
        let stat = fstat(&fd).map_err(fail)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(in_the_way(dir, group.name, "file", word(kind)));
        }
        let same_length = u64::try_from(stat.st_size).is_ok_and(|size| size == bytes.len() as u64);
        let mut buffer = std::mem::take(&mut self.bytes);
        let have = if same_length {
            read_up_to(&fd, bytes.len(), &mut buffer).map_err(fail)?;
            Some(buffer.as_slice())
        } else {
            None
        };
        let ways = self.run.compare(entry, SeenKind::File(have), &stat);
        self.bytes = buffer;
        // Never in place: with a second name (a hard link) it may be somebody else's too, and who has it open for writing
        // keeps that.
        if !ways.is_empty() {
            let permit = self.permit(dir, entry, &ways, &There::File(&fd));
            if permit == Permit::Barred {
                return Ok(());
            }
            if !group.path.starts_with(record::DIRECTORY) {
                self.run.backup.file(self.root, group.path, &fd, &stat, permit == Permit::Adopted)?;
            }
            return self.new_file(dir, group, entry, bytes, Some(ways));
        }
        Ok(())
    }

    /// Stages a file; `ways` tells how the one that is there differs, if one is.
    fn new_file(
        &mut self,
        dir: &Directory,
        group: &Group<'_, '_>,
        entry: &Entry,
        bytes: &[u8],
        ways: Option<Vec<How>>,
    ) -> Done {
        let area = self.area(dir, false)?;
        let place = area.as_ref().map_or(dir.fd(), |area| &area.fd);
        let temp = self.run.temps.make(group.name);
        let fd = write::file(place, &temp, bytes, Attributes::of(self.run, entry))
            .map_err(|error| failure("write", dir.path_of(group.name), error))?;
        let fresh = ways.is_none();
        self.touched(dir, Some(fd));
        let changes = changes(entry, ways.unwrap_or_else(|| vec![How::Created(entry.kind.word())]));
        self.push(dir, group, Act::Place { temp, area, fresh }, Turn::of([entry]), changes);
        Ok(())
    }

    fn link(&mut self, dir: &Directory, group: &Group<'_, '_>, entry: &Entry, target: &str) -> Done {
        let ways = match rustix::fs::readlinkat(dir.fd(), group.name, vec![]) {
            Ok(have) => {
                let stat = dir.stat_of(group.name)?;
                let have = have.to_string_lossy();
                let ways = self.run.compare(entry, SeenKind::Link(&have), &stat);
                if ways.is_empty() {
                    return Ok(());
                }
                let permit = self.permit(dir, entry, &ways, &There::Link(&have));
                if permit == Permit::Barred {
                    return Ok(());
                }
                self.run.backup.link(self.root, group.path, &have, permit == Permit::Adopted)?;
                Some(ways)
            }
            Err(Errno::NOENT) if self.permit_new(dir, group) == Permit::Barred => return Ok(()),
            Err(Errno::NOENT) => None,
            Err(Errno::INVAL) => {
                let kind = FileType::from_raw_mode(dir.stat_of(group.name)?.st_mode);
                return Err(in_the_way(dir, group.name, "link", word(kind)));
            }
            Err(error) => return Err(failure("read the link", dir.path_of(group.name), error)),
        };
        let area = self.area(dir, false)?;
        let place = area.as_ref().map_or(dir.fd(), |area| &area.fd);
        let temp = self.run.temps.make(group.name);
        write::link(place, &temp, target, Attributes::of(self.run, entry))
            .map_err(|error| failure("make the link", dir.path_of(group.name), error))?;
        let fresh = ways.is_none();
        self.touched(dir, None);
        let changes = changes(entry, ways.unwrap_or_else(|| vec![How::Created(entry.kind.word())]));
        self.push(dir, group, Act::Place { temp, area, fresh }, Turn::Link, changes);
        Ok(())
    }

    /// Whether what is in `dir` and differs in these ways may be changed.
    fn permit(&mut self, dir: &Directory, entry: &Entry, ways: &[How], there: &There<'_>) -> Permit {
        let foreign = self.run.foreign(self.root, dir, entry, ways, there);
        if !ways.is_empty() && !matches!(there, There::Directory) {
            self.prove(dir, parent(&entry.path));
        }
        self.permit_all(foreign.into_iter().collect())
    }

    /// Whether what is not there yet may be made in `dir`.
    fn permit_new(&mut self, dir: &Directory, group: &Group<'_, '_>) -> Permit {
        let at = parent(group.path);
        // Each is of a service that is not done without it.
        let all = group.entry.into_iter().chain(group.rest.iter().copied());
        let is_foreign = self.run.is_foreign(self.root, dir, at);
        self.prove(dir, at);
        self.permit_all(if is_foreign { all.map(foreign_new).collect() } else { vec![] })
    }

    fn permit_all(&mut self, foreign: Vec<Foreign>) -> Permit {
        if foreign.is_empty() {
            return Permit::Ours;
        }
        if !self.run.adopt {
            self.staged.foreign.extend(foreign);
            return Permit::Barred;
        }
        self.staged.notes.extend(foreign.into_iter().map(Note::Adopted));
        Permit::Adopted
    }

    /// Has the journal know a directory of root's in which something is as earlier runs made it: once this run has begun to
    /// change that, nobody could tell any more.
    fn prove(&mut self, dir: &Directory, at: &str) {
        if self.run.has_proven(dir, at)
            && let Ok(is) = Identity::of(dir.fd())
        {
            self.staged.known.push((at.to_owned(), is));
        }
    }

    fn settle(
        &mut self,
        dir: &Directory,
        group: &Group<'_, '_>,
        entry: &Entry,
        found: &Directory,
        ways: Vec<How>,
    ) -> Done {
        if ways.is_empty() {
            return Ok(());
        }
        let is =
            Identity::of(found.fd()).map_err(|error| failure("look at", found.path().to_owned(), error))?;
        let want = Attributes::of(self.run, entry);
        let becomes_roots = found.stat().st_uid != 0 && want.owner.is_some_and(|(uid, _)| uid == 0);
        if becomes_roots && found.is_exchangeable() {
            // Nobody could tell later that it is the one that is meant.
            self.staged.known.push((entry.path.clone(), is));
        }
        let act = Act::Settle { want, is };
        self.touched(dir, None);
        self.push(dir, group, act, Turn::of([entry]), changes(entry, ways));
        Ok(())
    }

    fn push(&mut self, dir: &Directory, group: &Group<'_, '_>, act: Act, turn: Turn, changes: Vec<Change>) {
        let parent = group.path.len() - group.name.len() - 1;
        self.staged.ops.push(Op {
            parent: group.path[..parent].to_owned(),
            parent_id: (dir.stat().st_dev, dir.stat().st_ino),
            name: group.name.to_owned(),
            act,
            turn,
            changes,
        });
    }

    /// Remembers that something is written in `dir`; `fd` is something that was.
    fn touched(&mut self, dir: &Directory, fd: Option<OwnedFd>) {
        let device = dir.stat().st_dev;
        if self.staged.devices.contains_key(&device) {
            return;
        }
        let fd = match fd {
            Some(fd) => Ok(fd),
            None => rustix::io::fcntl_dupfd_cloexec(dir.fd(), 0),
        };
        if let Ok(fd) = fd {
            self.staged.devices.insert(device, fd);
        }
    }
}

fn changes(entry: &Entry, ways: Vec<How>) -> Vec<Change> {
    ways.into_iter().map(|how| Change { path: entry.path.clone(), how }).collect()
}

/// What is not there yet, and may not be made where it is wanted.
pub(super) fn foreign_new(entry: &Entry) -> Foreign {
    let change = "new in a directory that runsmith did not make".to_owned();
    Foreign { path: entry.path.clone(), kind: entry.kind.word(), change }
}

/// Reads a file that was `length` bytes long a moment ago.
fn read_up_to(fd: &OwnedFd, length: usize, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    // Room for one more, so that a file that grew meanwhile is not taken for the wanted one. A
    // regular file gives all it has: no second read is needed to find its end.
    buffer.resize(length + 1, 0);
    let mut filled = 0;
    while filled < length {
        match rustix::io::read(fd, buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

pub(super) fn in_the_way(dir: &Directory, name: &str, wanted: &'static str, word: &'static str) -> Failure {
    let verb = match wanted {
        "directory" => "make the directory",
        "link" => "make the link",
        _ => "write",
    };
    let mut reason = format!("a {word} is in its place; move it away");
    if word == "link" && !ours_at(dir, name) {
        reason.push_str(" (it is not root's)");
    }
    Failure::path(verb, dir.path_of(name), reason)
}

fn ours_at(dir: &Directory, name: &str) -> bool {
    dir.stat_of(name).is_ok_and(|stat| ours(stat.st_uid))
}

/// Somebody exchanged a new directory before it could be filled.
pub(super) fn meddled(dir: &Directory, name: &str) -> Failure {
    Failure::path("write", dir.path_of(name), "somebody changed it meanwhile")
}
