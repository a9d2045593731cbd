//! A directory as a tree.

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::bounded;
use super::directory::{Directory, Step, failure, word};
use super::names::Ids;
use super::ordered;
use super::run::{Run, groups};
use super::shared::refuse_shared;
use super::stage::in_the_way;
use crate::failure::{Failure, Foreign};
use crate::record::Site;
use crate::tree::{Entry, How, Kind, Seen, SeenKind, Tree};

use std::collections::HashSet;
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

/// Files larger than this are not read: none of ours is, and an application may have made it.
const MAX_BYTES: u64 = 32 << 20;

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
    reader.wanted(&root, 1, &entries);
    reader.found()
}

/// Reads everything below `root`, a directory that somebody rendered into. Links are read and not
/// followed.
pub fn read_all(root: &Path) -> Result<Found, Failure> {
    let mut reader = Reader::new();
    reader.all(&Directory::root(root)?, "", 0);
    reader.found()
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
    fn refuse_shared(&mut self, found: &Directory, entry: &Entry) {
        let Some((run, root)) = self.run else { return };
        let ways = run.compare(entry, SeenKind::Directory, found.stat());
        if ways.is_empty() || self.is_barred(run, root, entry, &ways) || !run.ids.set {
            return;
        }
        self.refused.extend(refuse_shared(run, found, entry).err());
    }

    /// Would a run leave this alone, because it was not made by one?
    fn is_barred(&mut self, run: &Run, root: &Directory, entry: &Entry, ways: &[How]) -> bool {
        let thing = run.foreign(root, entry, ways);
        let is_foreign = thing.is_some();
        self.foreign.extend(thing);
        is_foreign && !run.adopt
    }

    /// Refuses what somebody could have put into the place of what is wanted, so that root shows what root alone may see:
    /// in a directory of somebody else's, a file or directory that is neither that user's, nor everybody's to read, nor has
    /// the owner that is wanted.
    fn refuse_hidden(
        &self,
        dir: &Directory,
        name: &str,
        stat: &Stat,
        wanted: Option<&Entry>,
    ) -> Result<(), Failure> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // To go through a directory is enough to reach what is in it.
        let (everybody, its_group) = if is_directory { (0o001, 0o010) } else { (0o004, 0o040) };
        let is_wanted = wanted.is_some_and(|entry| {
            let by_group = stat.st_gid != 0
                && stat.st_mode & its_group != 0
                && *entry.group == *self.ids.group(stat.st_gid);
            *entry.owner == *self.ids.user(stat.st_uid) && (stat.st_uid != 0 || by_group)
        });
        let is_theirs = stat.st_uid != 0 && stat.st_uid == dir.stat().st_uid;
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
    fn refuse_other(&mut self, dir: &Directory, name: &str, path: &str, wanted: &Entry) {
        let Some(have) = self.entries.last().filter(|have| have.path == path) else { return };
        let Some((run, root)) = self.run else { return };
        if have.kind.word() != wanted.kind.word() {
            self.refused.push(in_the_way(dir, name, wanted.kind.word(), have.kind.word()));
            return;
        }
        let seen = Seen::from(have);
        let ways = Seen { owner: seen.owner.filter(|_| run.ids.set), ..seen }.differs_from(wanted);
        self.is_barred(run, root, wanted, &ways);
    }

    fn wanted(&mut self, dir: &Directory, at: usize, entries: &[&Entry]) {
        for group in groups(entries, at) {
            let secret = group.entry.is_some_and(|entry| entry.secret);
            let wants_directory = group.entry.is_none_or(|entry| entry.kind == Kind::Directory);
            let step = if wants_directory { dir.step(group.name) } else { Ok(Step::Other("file")) };
            match step {
                Err(failure) => self.fail(group.path, failure),
                Ok(Step::Missing) => {
                    if group.entry.is_none() {
                        self.missing.push(group.path.to_owned());
                    }
                    self.missing(group.below, group.rest);
                }
                Ok(Step::Directory(found)) => {
                    if let Err(failure) = self.refuse_hidden(dir, group.name, found.stat(), group.entry) {
                        self.fail(group.path, failure);
                        continue;
                    }
                    if let Some(entry) = group.entry {
                        self.push(group.path, Kind::Directory, found.stat(), secret);
                        self.refuse_shared(&found, entry);
                    }
                    self.wanted(&found, group.below, group.rest);
                }
                Ok(Step::Other(_)) if group.entry.is_none() => {
                    let reason = "something that is not a directory is in its place";
                    self.fail(group.path, Failure::path("read", dir.path_of(group.name), reason));
                }
                Ok(Step::Other(_)) => match (self.one(dir, group.name, group.path, group.entry), group.entry)
                {
                    (Err(failure), _) => self.fail(group.path, failure),
                    (Ok(()), Some(entry)) => self.refuse_other(dir, group.name, group.path, entry),
                    (Ok(()), None) => {}
                },
            }
        }
    }

    fn all(&mut self, dir: &Directory, path: &str, depth: usize) {
        let fail = |error| failure("list", dir.path().to_owned(), error);
        let names = match Dir::read_from(dir.fd()).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(names) => names,
            Err(error) => return self.fail(path, fail(error)),
        };
        for name in names {
            let name = name.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
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
                    return self.one(dir, name, &place, None);
                }
                if let Step::Directory(found) = dir.step(name)? {
                    self.refuse_hidden(dir, name, found.stat(), None)?;
                    self.push(&place, Kind::Directory, found.stat(), false);
                    self.all(&found, &place, depth + 1);
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
        dir: &Directory,
        name: &str,
        path: &str,
        wanted: Option<&Entry>,
    ) -> Result<(), Failure> {
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
                self.refuse_hidden(dir, name, &stat, wanted)?;
                let bytes = bounded::read(&fd, MAX_BYTES);
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
