//! A directory as a tree.

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::bounded;
use super::directory::{Directory, Step, failure, only_ours, word};
use super::names::Ids;
use super::ordered;
use super::origin::There;
use super::run::{Group, Run, groups};
use super::shared::refuse_shared;
use super::stage::{foreign_new, in_the_way};
use crate::failure::{Failure, Foreign};
use crate::record::Site;
use crate::steps::parent;
use crate::tree::{Entry, Kind, Seen, SeenKind, Tree};

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What was found, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Found {
    /// Everything that was read.
    pub tree: Tree,
    /// One failure for each path that could not be.
    pub unreadable: Vec<Failure>,
    /// The same paths as the tree has them: nobody knows what is there and below.
    pub unknown: Vec<String>,
    /// Directories that are not there, on the way to what is wanted.
    pub missing: Vec<String>,
    /// What [`apply`](super::apply) would end with, one failure for each path.
    pub refused: Vec<Failure>,
    /// Where the services lie that records tell of.
    pub sites: Vec<Site>,
    /// What no record names, and [`apply`](super::apply) would change if it may adopt it; it refuses else.
    pub foreign: Vec<Foreign>,
    /// Wanted directories that would be used as they are, and not be changed.
    pub used: Vec<String>,
    /// Files at wanted paths that neither a record nor their own first lines claim: whoever wrote the pillar has named them, and
    /// may be somebody who is not to read them. None if they may be adopted.
    pub unclaimed: HashSet<String>,
}

/// Files larger than this in bytes are not read: none of ours is, and an application may have made it.
const MAX_BYTES: u64 = 32 << 20;

/// All files of a directory that somebody rendered into have at most so many bytes together: they are in memory at once.
const MAX_ALL: u64 = 512 << 20;

/// Where others can have put it, a file is read if it has at most so many bytes more than the one that is wanted: an earlier
/// version of it is not much longer. Comparing texts takes many times their size.
const MORE: u64 = 1 << 20;

/// So many of these bytes are read in a run, of all files together.
const MORE_IN_ALL: u64 = 64 << 20;

/// So many more bytes of a file are read whatever the others had, so that one user's files do not keep those of others from
/// being compared.
const FREE: u64 = 16 << 10;

/// Reads what is below `root` at the paths of `want`; paths where nothing is are left out. The
/// same links are followed as by [`apply`](super::apply). What is secret in `want` is secret here.
pub fn read(root: &Path, want: &Tree) -> Result<Found, Failure> {
    read_for(root, want, None)
}

/// As [`read`]; what a `run` would refuse to change is found too.
pub(super) fn read_for(root: &Path, want: &Tree, run: Option<&Run>) -> Result<Found, Failure> {
    let entries = ordered(want)?;
    if let Err(error) = std::fs::metadata(root)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        let mut reader = Reader::new();
        reader.missing(1, &entries);
        return reader.found();
    }
    let root = Directory::root(root)?;
    let mut reader = Reader { run: run.map(|run| (run, &root)), ..Reader::new() };
    reader.wanted(Within::root(&root), 1, &entries);
    reader.found()
}

/// Reads everything below `root`, a directory that somebody rendered into, but what git keeps there. Links are read and not followed.
pub fn read_all(root: &Path) -> Result<Found, Failure> {
    let root = Directory::root(root)?;
    let mut reader = Reader { left: MAX_ALL, ..Reader::new() };
    reader.all(Within::root(&root), "", 0);
    reader.found()
}

/// A directory that is looked into.
#[derive(Clone, Copy)]
struct Within<'d> {
    dir: &'d Directory,
    /// Its owner is who is to own it: nobody can have put a third user's directory in its place.
    is_owners: bool,
}

impl<'d> Within<'d> {
    fn root(dir: &'d Directory) -> Self {
        Self { dir, is_owners: true }
    }
}

struct Reader<'r> {
    ids: Ids,
    /// The run whose refusals are looked for.
    run: Option<(&'r Run, &'r Directory)>,
    entries: Vec<Entry>,
    unreadable: Vec<Failure>,
    unknown: Vec<String>,
    missing: Vec<String>,
    refused: Vec<Failure>,
    foreign: Vec<Foreign>,
    /// So many bytes may still be read of which there is a limit for all files together.
    left: u64,
}

impl Reader<'_> {
    fn new() -> Self {
        Self {
            ids: Ids::host(),
            run: None,
            entries: vec![],
            unreadable: vec![],
            unknown: vec![],
            missing: vec![],
            refused: vec![],
            foreign: vec![],
            left: MORE_IN_ALL,
        }
    }

    fn fail(&mut self, path: &str, failure: Failure) {
        self.unreadable.push(failure);
        self.unknown.push(path.to_owned());
    }

    fn found(self) -> Result<Found, Failure> {
        // Every path was visited once, so that none can clash with another.
        let tree = Tree::new(self.entries).unwrap_or_default();
        Ok(Found {
            tree,
            unreadable: self.unreadable,
            unknown: self.unknown,
            missing: self.missing,
            refused: self.refused,
            sites: vec![],
            foreign: self.foreign,
            used: vec![],
            unclaimed: HashSet::new(),
        })
    }

    /// Nothing is there: the directories on the way to entries, all of them.
    fn missing(&mut self, at: usize, entries: &[&Entry]) {
        for group in groups(entries, at) {
            if group.entry.is_none() {
                self.missing.push(group.path.to_owned());
            }
            self.missing(group.below, group.rest);
        }
    }

    /// Would a run give this directory another mode or owner, and refuse to?
    fn refuse_shared(&mut self, dir: &Directory, found: &Directory, entry: &Entry) {
        let Some((run, root)) = self.run else { return };
        let ways = run.compare(entry, SeenKind::Directory, found.stat());
        let foreign = run.foreign(root, dir, entry, &ways, &There::Directory);
        if ways.is_empty() || self.is_barred(run, foreign) || !run.ids.set {
            return;
        }
        self.refused.extend(refuse_shared(run, found, entry).err());
    }

    /// Would a run leave this alone, because it was not made by one?
    fn is_barred(&mut self, run: &Run, thing: Option<Foreign>) -> bool {
        let is_foreign = thing.is_some();
        self.foreign.extend(thing);
        is_foreign && !run.adopt
    }

    /// Would a run not make what is missing in a directory, because that may be another one than the records tell of?
    fn refuse_new(&mut self, dir: &Directory, group: &Group<'_, '_>) {
        let Some((run, root)) = self.run else { return };
        if run.is_foreign(root, dir, parent(group.path)) {
            self.foreign.extend(group.entry.into_iter().chain(group.rest.iter().copied()).map(foreign_new));
        }
    }

    /// Refuses what somebody could have put into the place of what is wanted, so that root shows what root alone may see:
    /// in a directory of somebody else's, a file or directory that is neither that user's, nor everybody's to read, nor has
    /// the owner that is wanted.
    fn refuse_hidden(
        &self,
        within: Within<'_>,
        name: &str,
        stat: &Stat,
        wanted: Option<&Entry>,
    ) -> Result<(), Failure> {
        let Within { dir, is_owners } = within;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // To go through a directory is enough to reach what is in it.
        let (everybody, its_group) = if is_directory { (0o001, 0o010) } else { (0o004, 0o040) };
        let is_wanted = wanted.is_some_and(|entry| {
            let by_group = stat.st_gid != 0
                && stat.st_mode & its_group != 0
                && *entry.group == *self.ids.group(stat.st_gid);
            *entry.owner == *self.ids.user(stat.st_uid) && (stat.st_uid != 0 || by_group)
        });
        let is_theirs = is_owners && stat.st_uid != 0 && stat.st_uid == dir.stat().st_uid;
        if !self.ids.set || !dir.has_exchangeable() || stat.st_mode & everybody != 0 || is_wanted || is_theirs
        {
            return Ok(());
        }
        let word = word(FileType::from_raw_mode(stat.st_mode));
        let owner = self.ids.user(stat.st_uid);
        let reason = format!(
            "it is a {word} of {owner}'s that not everybody may read, and others than root can rename things in {}, so it may \
             have been put there to be shown",
            dir.path()
        );
        Err(Failure::path("read", dir.path_of(name), reason))
    }

    /// Would a run find something else in an entry's place? It is the last one that was read.
    fn refuse_other(&mut self, dir: &Directory, group: &Group<'_, '_>, wanted: &Entry) {
        let Some(have) = self.entries.last().filter(|have| have.path == group.path) else {
            return self.refuse_new(dir, group);
        };
        let Some((run, root)) = self.run else { return };
        if have.kind.word() != wanted.kind.word() {
            self.refused.push(in_the_way(dir, group.name, wanted.kind.word(), have.kind.word()));
            return;
        }
        let seen = Seen::from(have);
        let ways = Seen { owner: seen.owner.filter(|_| run.ids.set), ..seen }.differs_from(wanted);
        let there = match &have.kind {
            Kind::Directory => There::Directory,
            Kind::File(bytes) => There::Content(bytes),
            Kind::Link(target) => There::Link(target),
        };
        let foreign = run.foreign(root, dir, wanted, &ways, &there);
        self.is_barred(run, foreign);
    }

    /// A directory in another one; `wanted` is its entry.
    fn within<'d>(&self, above: Within<'_>, dir: &'d Directory, wanted: Option<&Entry>) -> Within<'d> {
        let uid = dir.stat().st_uid;
        let is_owners = !dir.is_exchangeable()
            || (above.is_owners && uid == above.dir.stat().st_uid)
            || wanted.is_some_and(|entry| *entry.owner == *self.ids.user(uid));
        Within { dir, is_owners }
    }

    fn wanted(&mut self, within: Within<'_>, at: usize, entries: &[&Entry]) {
        let dir = within.dir;
        for group in groups(entries, at) {
            let secret = group.entry.is_some_and(|entry| entry.secret);
            let wants_directory = group.entry.is_none_or(|entry| entry.kind == Kind::Directory);
            let step = if wants_directory { dir.step(group.name) } else { Ok(Step::Other("file")) };
            match step {
                Err(failure) => self.fail(group.path, failure),
                Ok(Step::Missing) => {
                    self.refuse_new(dir, &group);
                    if group.entry.is_none() {
                        self.missing.push(group.path.to_owned());
                    }
                    self.missing(group.below, group.rest);
                }
                Ok(Step::Directory(found)) => {
                    if let Err(failure) = self.refuse_hidden(within, group.name, found.stat(), group.entry) {
                        self.fail(group.path, failure);
                        continue;
                    }
                    if let Some(entry) = group.entry {
                        self.push(group.path, Kind::Directory, found.stat(), secret);
                        self.refuse_shared(dir, &found, entry);
                    }
                    self.wanted(self.within(within, &found, group.entry), group.below, group.rest);
                }
                Ok(Step::Other(_)) if group.entry.is_none() => {
                    let reason = "something that is not a directory is in its place";
                    self.fail(group.path, Failure::path("read", dir.path_of(group.name), reason));
                }
                Ok(Step::Other(_)) => {
                    match (self.one(within, group.name, group.path, group.entry), group.entry) {
                        (Err(failure), _) => self.fail(group.path, failure),
                        (Ok(()), Some(entry)) => self.refuse_other(dir, &group, entry),
                        (Ok(()), None) => {}
                    }
                }
            }
        }
    }

    fn all(&mut self, within: Within<'_>, path: &str, depth: usize) {
        let dir = within.dir;
        let fail = |error| failure("list", dir.path().to_owned(), error);
        let names = match Dir::read_from(dir.fd()).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(names) => names,
            Err(error) => return self.fail(path, fail(error)),
        };
        for name in names {
            let name = name.file_name();
            if matches!(name.to_bytes(), b"." | b".." | b".git") {
                continue;
            }
            let Ok(name) = name.to_str() else {
                let place = dir.path_of(&name.to_string_lossy());
                self.fail(path, Failure::path("read", place, "its name is not UTF-8"));
                continue;
            };
            if depth == super::MAX_DEPTH {
                self.fail(path, Failure::path("read", dir.path_of(name), "too many directories deep"));
                continue;
            }
            let place = format!("{path}/{name}");
            let result = dir.stat_of(name).and_then(|stat| {
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return self.one(within, name, &place, None);
                }
                if let Step::Directory(found) = dir.step(name)? {
                    self.refuse_hidden(within, name, found.stat(), None)?;
                    self.push(&place, Kind::Directory, found.stat(), false);
                    self.all(self.within(within, &found, None), &place, depth + 1);
                }
                Ok(())
            });
            if let Err(failure) = result {
                self.fail(&place, failure);
            }
        }
    }

    /// A file or a link; a directory too, but not what is in it.
    fn one(
        &mut self,
        within: Within<'_>,
        name: &str,
        path: &str,
        wanted: Option<&Entry>,
    ) -> Result<(), Failure> {
        let dir = within.dir;
        let secret = wanted.is_some_and(|entry| entry.secret);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fail = |error| failure("read", dir.path_of(name), error);
        let fd = match openat(dir.fd(), name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP) => {
                let stat = dir.stat_of(name)?;
                let target = dir.link_target(name)?;
                self.push(path, Kind::Link(target), &stat, secret);
                return Ok(());
            }
            Err(Errno::NXIO) => {
                return Err(Failure::path("read", dir.path_of(name), "it is a socket or a device"));
            }
            Err(error) => return Err(fail(error)),
        };
        let stat = fstat(&fd).map_err(fail)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink > 1 && !dir.trusted() => {
                // It would show somebody a file that they cannot read, under a name they made.
                let reason = "it has several names (hard links), and others than root can write here";
                return Err(Failure::path("read", dir.path_of(name), reason));
            }
            FileType::RegularFile => {
                self.refuse_hidden(within, name, &stat, wanted)?;
                let is_roots = !dir.has_exchangeable() && only_ours(&stat);
                let bytes = self.content(&fd, is_roots, wanted);
                Kind::File(bytes.map_err(|refused| refused.of("read", dir.path_of(name)))?)
            }
            FileType::Directory => Kind::Directory,
            other => {
                return Err(Failure::path("read", dir.path_of(name), format!("it is a {}", word(other))));
            }
        };
        self.push(path, kind, &stat, secret);
        Ok(())
    }

    /// The content of a file; `is_roots`: nobody but root (or the user who runs this) can have put it there or made it long.
    fn content(
        &mut self,
        fd: &OwnedFd,
        is_roots: bool,
        wanted: Option<&Entry>,
    ) -> Result<Vec<u8>, bounded::Refused> {
        let Some(wanted) = wanted else {
            // All that is there is read.
            let bytes = bounded::read(fd, MAX_BYTES.min(self.left))?;
            self.left = self.left.saturating_sub(bytes.len() as u64);
            return Ok(bytes);
        };
        if is_roots {
            return bounded::read(fd, MAX_BYTES);
        }
        let length = if let Kind::File(bytes) = &wanted.kind { bytes.len() as u64 } else { 0 };
        let bytes = bounded::read(fd, length + self.left.clamp(FREE, MORE))?;
        self.left = self.left.saturating_sub((bytes.len() as u64).saturating_sub(length + FREE));
        Ok(bytes)
    }

    fn push(&mut self, path: &str, kind: Kind, stat: &Stat, secret: bool) {
        let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { stat.st_mode & 0o7777 };
        let (owner, group) = (self.ids.user(stat.st_uid), self.ids.group(stat.st_gid));
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            mode,
            owner: owner.into(),
            group: group.into(),
            secret,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(path: &str, length: usize) -> Entry {
        Entry {
            path: path.to_owned(),
            kind: Kind::File(vec![b'\n'; length]),
            mode: 0o644,
            owner: "root".into(),
            group: "root".into(),
            secret: false,
        }
    }

    #[test]
    fn what_others_can_make_longer_is_read_up_to_a_little_more_than_is_wanted() {
        let scratch = tempfile::tempdir().unwrap();
        // Where anybody can write, and where nobody else can.
        for name in ["open", "own"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        fs::set_permissions(scratch.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let more = usize::try_from(MORE).unwrap();
        let write = |path: &str, length: usize| {
            fs::write(scratch.path().join(path.trim_start_matches('/')), vec![b'\n'; length]).unwrap();
        };
        let read_with = |left: u64, entries: &[Entry]| {
            let root = Directory::root(scratch.path()).unwrap();
            let mut reader = Reader { left, ..Reader::new() };
            reader.wanted(Within::root(&root), 1, &entries.iter().collect::<Vec<_>>());
            (reader.unknown.clone(), reader.unreadable.iter().map(ToString::to_string).collect::<String>())
        };
        write("/open/as-wanted", 3 * more);
        write("/open/long", more);
        write("/open/longer", more + 10);
        write("/own/long", 2 * more);
        let entries = [
            file("/open/as-wanted", 3 * more),
            file("/open/long", 0),
            file("/open/longer", 9),
            file("/own/long", 0),
        ];
        let (unknown, said) = read_with(MORE_IN_ALL, &entries);
        assert_eq!(unknown, ["/open/longer"], "{said}");
        assert!(said.contains("larger than 1 MiB"), "{said}");

        // All together, and what is left when nothing is.
        let free = usize::try_from(FREE).unwrap();
        write("/open/free", free);
        write("/open/next", free + 1);
        let entries = [file("/open/free", 0), file("/open/long", 0), file("/open/next", 0)];
        let (unknown, said) = read_with(MORE - FREE, &entries);
        assert_eq!(unknown, ["/open/long"], "{said}");
        let (unknown, said) = read_with(MORE + 1, &entries);
        assert_eq!(unknown, Vec::<String>::new(), "{said}");
        let (unknown, said) = read_with(0, &entries);
        assert_eq!(unknown, ["/open/long", "/open/next"], "{said}");
        assert!(said.contains("larger than 16 KiB"), "{said}");
    }
}
