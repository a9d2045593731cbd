//! Removes what earlier runs made and nobody wants any more, unless somebody changed it.

use std::collections::BTreeSet;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::bounded::{self, Refused};
use super::directory::{Directory, Step, failure, word};
use super::recorded::{deepest_first, removed};
use super::run::Run;
use super::{Note, living, origin, supervise};
use crate::failure::Failure;
use crate::record::{Leaving, Leftover, Made, MadeKind, Record, sha256};
use crate::steps::{is_below, parent};
use crate::tree::Change;
use crate::visible::visible;

/// A directory that the processes of a service make in its service directory, and the names that they put into it.
pub(super) struct Own {
    pub(super) name: &'static str,
    pub(super) files: &'static [&'static str],
}

/// That of runsv, which a log service has, too. runsv never removes it.
const SUPERVISE: Own = Own {
    name: "supervise",
    files: &["control", "lock", "ok", "pid", "pid.new", "stat", "stat.new", "status", "status.new"],
};

/// That of the runtime: the last known good and what has failed. It is of no use without the service, and as secret as `env/`.
const STATE: Own =
    Own { name: "state", files: &["proven.json", "proven.json.new", "failed.json", "failed.json.new"] };

/// All of them.
pub(super) const OWN: &[Own] = &[SUPERVISE, STATE];

/// A file that is larger than this in bytes is none of ours, and is not read.
const LARGEST: u64 = 64 << 20;

/// What was removed, and what was not.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) changes: Vec<Change>,
    /// Files and links that are kept: somebody changed them, or they could not be removed.
    pub(super) kept: Vec<String>,
    /// Services of which something could not be removed, and why.
    pub(super) failed: Vec<(String, Failure)>,
    pub(super) notes: Vec<Note>,
}

/// What is at the path of a leftover.
enum There {
    /// As it was made.
    AsMade,
    Missing,
    /// Something else; why it is kept.
    Other(String),
}

impl Pruned {
    fn keep(&mut self, path: &str, reason: String) {
        self.kept.push(path.to_owned());
        self.notes.push(Note::Kept(visible(path).into_owned(), reason));
    }
}

/// Removes leftovers. Nothing is removed of a service directory that runsv still works in, nor what living generations of
/// `wanted` services need.
pub(super) fn prune(
    run: &Run,
    root: &Directory,
    leaving: &Leaving,
    wanted: &[Record],
) -> Result<Pruned, Failure> {
    let mut pruned = Pruned::default();
    for (directory, wait) in &leaving.directories {
        let end = || {
            supervise::end(&run.lock, root, directory, *wait)?;
            OWN.iter().try_for_each(|own| leave(run, root, directory, own))?;
            leave(run, root, &format!("{directory}/log"), &SUPERVISE)
        };
        if let Err(failure) = end() {
            let mut of = leaving.leftovers.iter().filter(|left| left.made.path == *directory);
            pruned.failed.extend(of.next().map(|left| (left.service.clone(), failure)));
        }
    }
    let mut needed_paths: Vec<String> = vec![];
    // All of a service that would not end stays.
    let alive: BTreeSet<String> = pruned.failed.iter().map(|(service, _)| service.clone()).collect();
    for Leftover { made, service } in &leaving.leftovers {
        if alive.contains(service) {
            pruned.kept.push(made.path.clone());
            continue;
        }
        let word = match made.kind {
            MadeKind::Directory { .. } => continue,
            MadeKind::File { .. } => "file",
            MadeKind::Link { .. } => "link",
        };
        if let Some(reason) = needed(root, made, service, wanted) {
            pruned.keep(&made.path, reason);
            needed_paths.push(made.path.clone());
            continue;
        }
        match one(run, root, made) {
            Ok(There::Missing) => {}
            Ok(There::Other(reason)) => pruned.keep(&made.path, reason),
            Ok(There::AsMade) => pruned.changes.push(removed(&made.path, word)),
            Err(failure) => {
                pruned.kept.push(made.path.clone());
                pruned.failed.push((service.clone(), failure));
            }
        }
    }
    directories(run, root, leaving, &alive, &needed_paths, &mut pruned)?;
    Ok(pruned)
}

/// Why a living generation of a service that stays needs this.
pub(super) fn needed(root: &Directory, made: &Made, service: &str, wanted: &[Record]) -> Option<String> {
    let MadeKind::File { .. } = made.kind else { return None };
    let record = wanted.iter().find(|record| record.service == service)?;
    living::by_whom(root, &record.run, &made.path)
}

/// Removes a file or a link, if it is as it was made.
fn one(run: &Run, root: &Directory, made: &Made) -> Result<There, Failure> {
    let (dir, name) = match supervise::parent_of(root, &made.path) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(There::Missing),
        // Whoever owns a directory on the way must not keep everything else from being removed.
        Err(failure) => return Ok(There::Other(failure.to_string())),
    };
    if let Some(reason) = of_another(run, &dir, &made.path) {
        return Ok(There::Other(reason));
    }
    match look(run, root, &dir, name, &made.path, &made.kind)? {
        There::AsMade => match unlinkat(dir.fd(), name, AtFlags::empty()) {
            Ok(()) => Ok(There::AsMade),
            Err(Errno::NOENT) => Ok(There::Missing),
            Err(error) => Err(failure("remove", dir.path_of(name), error)),
        },
        other => Ok(other),
    }
}

/// Directories, the deepest first. One that holds something else stays, with all above it.
fn directories(
    run: &Run,
    root: &Directory,
    leaving: &Leaving,
    alive: &BTreeSet<String>,
    needed: &[String],
    pruned: &mut Pruned,
) -> Result<(), Failure> {
    let paths: Vec<&str> = leaving
        .leftovers
        .iter()
        .filter(|left| matches!(left.made.kind, MadeKind::Directory { .. }) && !alive.contains(&left.service))
        .map(|left| left.made.path.as_str())
        .collect();
    // What holds something that is kept stays, and is known to the record until that has gone.
    let holds = |path: &&str| needed.iter().any(|kept| is_below(kept, path));
    let (held_back, mut paths): (Vec<&str>, Vec<&str>) = paths.into_iter().partition(holds);
    pruned.kept.extend(held_back.into_iter().map(str::to_owned));
    deepest_first(&mut paths);
    let mut full: Vec<(&str, String)> = vec![];
    for path in paths {
        let Ok(Some((dir, name))) = supervise::parent_of(root, path) else { continue };
        if let Some(reason) = of_another(run, &dir, path) {
            full.push((path, reason));
            continue;
        }
        match unlinkat(dir.fd(), name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                run.journal.gone(path)?;
                pruned.changes.push(removed(path, "directory"));
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                full.push((path, held(run, &dir, name).unwrap_or_else(|failure| failure.to_string())))
            }
            Err(Errno::NOTDIR) => full.push((path, "it is no directory any more".to_owned())),
            Err(Errno::BUSY) => full.push((path, "something is mounted on it".to_owned())),
            Err(error) => {
                let owner = leaving.leftovers.iter().find(|left| left.made.path == path);
                let failure = failure("remove the directory", dir.path_of(name), error);
                pruned.kept.push(path.to_owned());
                pruned.failed.extend(owner.map(|left| (left.service.clone(), failure)));
            }
        }
    }
    // The outermost tells it all.
    for (path, reason) in &full {
        let inside = |(above, _): &(&str, String)| is_below(path, above);
        if !full.iter().any(inside) {
            pruned.notes.push(Note::Kept(visible(path).into_owned(), reason.clone()));
        }
    }
    Ok(())
}

/// Why nothing is removed in a directory of root's that runsmith did not make, or of a third user's, where others can rename
/// it: it may be another one than that of the record, and its owner alone may remove what is in it.
fn of_another(run: &Run, dir: &Directory, path: &str) -> Option<String> {
    if origin::is_known(run, dir, parent(path)) {
        return None;
    }
    let (uid, path) = (dir.stat().st_uid, dir.path());
    let whose = if uid == 0 { String::new() } else { format!(", which is {}'s", run.ids.user(uid)) };
    Some(format!(
        "runsmith did not make {path}{whose}, and others than root can rename it; look at it and remove it by hand"
    ))
}

/// Why a directory stays: the first of the things in it. What they are called is not shown to who could not list them: others
/// can have put a directory there for that.
fn held(run: &Run, dir: &Directory, name: &str) -> Result<String, Failure> {
    const SHOWN: usize = 3;
    /// So many are looked at: whoever owns it can make millions.
    const READ: usize = 1000;
    /// Everybody may list it.
    const LISTED: u32 = 0o004;
    let full = || Ok("it is not empty".to_owned());
    let Step::Directory(found) = dir.step(name)? else { return full() };
    let stat = found.stat();
    let is_theirs = stat.st_uid != 0 && stat.st_uid == dir.stat().st_uid;
    if run.ids.set && dir.has_exchangeable() && stat.st_mode & LISTED == 0 && !is_theirs {
        return full();
    }
    let fail = |error| failure("list", found.path().to_owned(), error);
    let mut names: Vec<String> = Dir::read_from(found.fd())
        .map_err(fail)?
        .filter_map(Result::ok)
        .map(|entry| visible(&entry.file_name().to_string_lossy()).into_owned())
        .filter(|name| name != "." && name != "..")
        .take(READ)
        .collect();
    names.sort();
    let more = match names.len() {
        READ => " and many more".to_owned(),
        count if count > SHOWN => format!(" and {} more", count - SHOWN),
        _ => String::new(),
    };
    names.truncate(SHOWN);
    Ok(format!("it holds {}{more}, which runsmith did not make", names.join(", ")))
}

/// Removes what runsv or the runtime left in a directory that they work in no more.
fn leave(run: &Run, root: &Directory, at: &str, own: &Own) -> Result<(), Failure> {
    let Some((parent, name)) = supervise::parent_of(root, at)? else { return Ok(()) };
    let Step::Directory(dir) = parent.step(name)? else { return Ok(()) };
    let Step::Directory(left) = dir.step(own.name)? else { return Ok(()) };
    if run.ids.set && dir.has_exchangeable() {
        // It may be another service's by now. What holds it is kept and named.
        return Ok(());
    }
    for name in own.files {
        match unlinkat(left.fd(), *name, AtFlags::empty()) {
            // A directory of such a name is somebody else's.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(error) => return Err(failure("remove", left.path_of(name), error)),
        }
    }
    match unlinkat(dir.fd(), own.name, AtFlags::REMOVEDIR) {
        // Something else is in it, or it is a link to elsewhere: then the service directory stays, and is named.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(failure("remove the directory", dir.path_of(own.name), error)),
    }
}

/// Whether a file or link is as it was made; its old version is kept if it is and that is asked for.
fn look(
    run: &Run,
    root: &Directory,
    dir: &Directory,
    name: &str,
    path: &str,
    made: &MadeKind,
) -> Result<There, Failure> {
    const CHANGED: &str = "somebody changed it; look at it and remove it by hand";
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match made {
        MadeKind::Directory { .. } => Ok(There::Missing),
        MadeKind::Link { target } => match rustix::fs::readlinkat(dir.fd(), name, vec![]) {
            Ok(have) if have.to_bytes() == target.as_bytes() => {
                run.backup.link(root, path, target, false)?;
                Ok(There::AsMade)
            }
            Ok(_) => Ok(There::Other(CHANGED.to_owned())),
            Err(Errno::NOENT) => Ok(There::Missing),
            Err(Errno::INVAL) => Ok(There::Other("it is no link any more".to_owned())),
            Err(error) => Err(failure("read the link", dir.path_of(name), error)),
        },
        MadeKind::File { sha256: digest } => {
            let fd = match openat(dir.fd(), name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => return Ok(There::Missing),
                Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                    return Ok(There::Other("it is no file any more".to_owned()));
                }
                Err(error) => return Err(failure("read", dir.path_of(name), error)),
            };
            let fail = |error| failure("read", dir.path_of(name), error);
            let stat = fstat(&fd).map_err(fail)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::RegularFile {
                return Ok(There::Other(format!("it is a {} now", word(kind))));
            }
            let bytes = match bounded::read(&fd, LARGEST) {
                Ok(bytes) => bytes,
                Err(Refused::System(error)) => return Err(fail(error)),
                Err(_) => return Ok(There::Other(CHANGED.to_owned())),
            };
            if sha256(&bytes) != *digest {
                return Ok(There::Other(CHANGED.to_owned()));
            }
            run.backup.file(root, path, &fd, &stat, false)?;
            Ok(There::AsMade)
        }
    }
}
