//! Temporary names: how they are made, and how those of a killed run are found and removed.

use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;

use super::directory::Directory;
use super::identity::same_mount;
use super::journal::Journal;

const INFIX: &str = ".runsmith-";

/// The longest name a directory can hold, in bytes.
const LONGEST: usize = 255;

/// Temporary names of one run, each used once.
pub(super) struct TempNames {
    run: String,
    next: AtomicU32,
}

impl TempNames {
    /// Names that another run will not use.
    pub(super) fn new() -> Self {
        // The standard library's hash keys are random for each process: enough to keep runs apart.
        Self { run: format!("{:016x}", RandomState::new().hash_one(0)), next: AtomicU32::new(0) }
    }

    /// What all of them have in common.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// `.NAME.runsmith-RRRRRRRRRRRRRRRRXXXXXXXX`, with as much of NAME as fits: the run, and a number.
    pub(super) fn make(&self, name: &str) -> String {
        let suffix = format!("{INFIX}{}{:08x}", self.run, self.next.fetch_add(1, Ordering::Relaxed));
        let mut end = name.len().min(LONGEST - 1 - suffix.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!(".{}{suffix}", &name[..end])
    }

    /// The run that a temporary name is of; none if it is no such name.
    fn run_of(name: &[u8]) -> Option<&str> {
        let at = name.len().checked_sub(INFIX.len() + 24)?;
        let (before, suffix) = name.split_at(at);
        let digits = suffix.strip_prefix(INFIX.as_bytes())?;
        let hex = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
        (before.first() == Some(&b'.') && digits.iter().all(hex))
            .then(|| std::str::from_utf8(digits.get(..16)?).ok())
            .flatten()
    }
}

/// Removes what killed runs left in a directory, and returns the names. The journal says which runs those are, and only
/// where nobody else can rename things does a name say what has it. What cannot be removed stays: it is in nobody's way.
pub(super) fn sweep(dir: &Directory, buffer: &mut [MaybeUninit<u8>], journal: &Journal) -> Vec<String> {
    if !dir.trusted() || !journal.has_killed() {
        return vec![];
    }
    let mut found = vec![];
    let mut names = RawDir::new(dir.fd(), buffer);
    while let Some(Ok(entry)) = names.next() {
        let name = entry.file_name();
        if TempNames::run_of(name.to_bytes()).is_some_and(|run| journal.was_killed(run)) {
            found.push(name.to_owned());
        }
    }
    found.retain(|name| remove(dir.fd(), name.as_c_str()).is_ok());
    found.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Removes a file, a link, or a directory with everything in it, without following any link and without going through a
/// mount point. To be used where nobody else can rename things.
pub(super) fn remove(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    if !same_mount(&fd, parent)? {
        return Err(Errno::XDEV);
    }
    empty(&fd)?;
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes everything in a directory, as [`remove`] does.
pub(super) fn empty(fd: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = Vec::with_capacity(8 << 10);
    let mut inside = vec![];
    let mut names = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            inside.push(entry.file_name().to_owned());
        }
    }
    inside.iter().try_for_each(|name| remove(fd, name.as_c_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_known_again() {
        let names = TempNames { run: "0123456789abcdef".to_owned(), next: 0.into() };
        for name in ["run", "ä".repeat(127).as_str(), "x".repeat(255).as_str(), "a b\n'\""] {
            let temp = names.make(name);
            assert!(temp.len() <= LONGEST && temp.starts_with('.'));
            assert_eq!(TempNames::run_of(temp.as_bytes()), Some("0123456789abcdef"), "{temp}");
        }
        for name in ["run", ".runsmith-", ".x.runsmith-0123456789abcdef", ".bashrc"] {
            assert_eq!(TempNames::run_of(name.as_bytes()), None, "{name}");
        }
        assert_eq!(TempNames::run_of(format!(".x.runsmith-{}", "g".repeat(24)).as_bytes()), None);
    }
}
