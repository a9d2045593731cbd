//! Whether a directory is the one that records and the journal tell of, where others can rename things.
//!
//! Whoever can rename a directory can put any other one that lies beside it in its place: one of root's, or of a third
//! user's. Nothing in such a one is runsmith's, whatever it is called.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};

use super::bounded;
use super::directory::Directory;
use super::run::Run;
use crate::record::{MadeKind, sha256};
use crate::steps::parent;

/// A file that is larger than this in bytes is none of ours, and is not read.
const LARGEST: u64 = 64 << 20;

/// What is at the path of an entry.
pub(super) enum There<'a> {
    Directory,
    /// A file that is open.
    File(&'a OwnedFd),
    /// A file with this content.
    Content(&'a [u8]),
    /// A link, and where it leads.
    Link(&'a str),
}

impl There<'_> {
    /// Whether it is what was made there. Of a directory nobody can tell by what is in it.
    pub(super) fn is(&self, made: &MadeKind) -> bool {
        match (self, made) {
            (Self::File(fd), MadeKind::File { sha256: digest }) => {
                bounded::read(fd, LARGEST).is_ok_and(|bytes| sha256(&bytes) == *digest)
            }
            (Self::Content(bytes), MadeKind::File { sha256: digest }) => sha256(bytes) == *digest,
            (Self::Link(have), MadeKind::Link { target }) => have == target,
            _ => false,
        }
    }
}

/// Whether a directory of root's may be another one than records tell of: others can have given it its name, and the journal
/// does not have it. `path` is its own, as entries have theirs.
pub(super) fn is_doubtful(run: &Run, dir: &Directory, path: &str) -> bool {
    run.ids.set
        && dir.is_exchangeable()
        && dir.stat().st_uid == 0
        && !run.journal.made(path, dir.fd())
        && !run.journal.knows(path, dir.fd())
}

/// Whether a directory is the one from which earlier runs may have left something: nobody else can have given it its name;
/// or runsmith made it; or it belongs to whom a run gave it, or to the owner of the directory above, who could only have put
/// something else of his own there.
pub(super) fn is_known(run: &Run, dir: &Directory, path: &str) -> bool {
    let (mut dir, mut path) = (dir, path);
    loop {
        if !run.ids.set || !dir.is_exchangeable() {
            return true;
        }
        let uid = dir.stat().st_uid;
        if uid == 0 {
            return run.journal.made(path, dir.fd());
        }
        if run.gave(path, &run.ids.user(uid)) {
            return true;
        }
        match dir.parent() {
            Some(above) if above.stat().st_uid == uid => dir = above,
            _ => return false,
        }
        path = parent(path);
    }
}

/// What is made directly in the directory at a path: the names, and what was made.
pub(super) fn directly_in<'m>(
    made: &'m BTreeMap<String, MadeKind>,
    path: &str,
) -> impl Iterator<Item = (&'m str, &'m MadeKind)> {
    let start = format!("{path}/");
    let length = start.len();
    let below = made.range(start.clone()..).take_while(move |(path, _)| path.starts_with(&start));
    below
        .filter_map(move |(path, kind)| Some((path.get(length..)?, kind)))
        .filter(|(name, kind)| !name.contains('/') && !matches!(kind, MadeKind::Directory { .. }))
}

/// Whether what is called `name` is as it was made.
pub(super) fn is_as_made(dir: &Directory, name: &str, made: &MadeKind) -> bool {
    match made {
        MadeKind::Directory { .. } => false,
        MadeKind::Link { .. } => readlinkat(dir.fd(), name, vec![])
            .is_ok_and(|target| There::Link(&target.to_string_lossy()).is(made)),
        MadeKind::File { .. } => {
            let flags =
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let Ok(fd) = openat(dir.fd(), name, flags, Mode::empty()) else { return false };
            let is_file =
                fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
            is_file && There::File(&fd).is(made)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_directly_in_a_directory_is_found() {
        let file = || MadeKind::File { sha256: String::new() };
        let made = [
            ("/a", MadeKind::Directory { owner: String::new() }),
            ("/a-b", file()),
            ("/a/b", file()),
            ("/a/c", MadeKind::Directory { owner: String::new() }),
            ("/a/c/d", file()),
            ("/a/e", MadeKind::Link { target: "/x".to_owned() }),
            ("/ab", file()),
        ];
        let made = made.into_iter().map(|(path, kind)| (path.to_owned(), kind)).collect();
        let names = |path: &str| directly_in(&made, path).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("/a"), ["b", "e"]);
        assert_eq!(names("/a/c"), ["d"]);
        assert_eq!(names("/a/b"), Vec::<&str>::new());
    }
}
