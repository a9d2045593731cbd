//! Temporary names: how they are made, and how those of a killed run are found and removed.

use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

const INFIX: &str = ".runsmith-";

/// The longest name a directory can hold, in bytes.
const LONGEST: usize = 255;

/// Temporary names of one run, each used once.
pub(super) struct TempNames {
    nonce: u32,
    next: AtomicU32,
}

impl TempNames {
    /// Names that another run will not use.
    pub(super) fn new() -> Self {
        // The standard library's hash keys are random for each process: enough to keep runs apart.
        Self { nonce: RandomState::new().hash_one(0) as u32, next: AtomicU32::new(0) }
    }

    /// `.NAME.runsmith-XXXXXXXXXXXXXXXX`, with as much of NAME as fits.
    pub(super) fn make(&self, name: &str) -> String {
        let suffix = format!("{INFIX}{:08x}{:08x}", self.nonce, self.next.fetch_add(1, Ordering::Relaxed));
        let mut end = name.len().min(LONGEST - 1 - suffix.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!(".{}{suffix}", &name[..end])
    }

    /// Is it a temporary name, of a run other than this one?
    fn foreign(&self, name: &[u8]) -> bool {
        let Some(at) = name.len().checked_sub(INFIX.len() + 16) else { return false };
        let (before, suffix) = name.split_at(at);
        let Some(digits) = suffix.strip_prefix(INFIX.as_bytes()) else { return false };
        let hex = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
        before.first() == Some(&b'.')
            && digits.iter().all(hex)
            && !digits.starts_with(format!("{:08x}", self.nonce).as_bytes())
    }

    /// Removes what a killed run left in a directory, if it belongs to one of `owners`, and
    /// returns the names. What cannot be removed stays: it is in nobody's way.
    pub(super) fn sweep(&self, fd: &OwnedFd, buffer: &mut [MaybeUninit<u8>], owners: &[u32]) -> Vec<String> {
        let mut found = vec![];
        let mut names = RawDir::new(fd, buffer);
        while let Some(Ok(entry)) = names.next() {
            if self.foreign(entry.file_name().to_bytes()) {
                found.push(entry.file_name().to_owned());
            }
        }
        let mut removed = vec![];
        for name in found {
            let Ok(stat) = statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if owners.contains(&stat.st_uid) && remove(fd, name.as_c_str(), stat.st_dev).is_ok() {
                removed.push(name.to_string_lossy().into_owned());
            }
        }
        removed
    }
}

/// Removes a file, a link, or a directory with everything in it, on the file system `device` only
/// and without following any link.
pub(super) fn remove(
    parent: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    device: u64,
) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    if fstat(&fd)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    let mut buffer = Vec::with_capacity(8 << 10);
    let mut inside = vec![];
    let mut names = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            inside.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in &inside {
        if *kind == FileType::Directory {
            remove(&fd, name.as_c_str(), device)?;
        } else {
            match unlinkat(&fd, name.as_c_str(), AtFlags::empty()) {
                Err(Errno::ISDIR) => remove(&fd, name.as_c_str(), device)?,
                result => result?,
            }
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_known_again() {
        let (one, two) = (TempNames { nonce: 1, next: 0.into() }, TempNames { nonce: 2, next: 0.into() });
        for name in ["run", "ä".repeat(127).as_str(), "x".repeat(255).as_str(), "a b\n'\""] {
            let temp = one.make(name);
            assert!(temp.len() <= LONGEST && temp.starts_with('.'));
            assert!(two.foreign(temp.as_bytes()), "{temp}");
            assert!(!one.foreign(temp.as_bytes()), "{temp}");
        }
        for name in ["run", ".runsmith-", ".x.runsmith-0123", ".x.runsmith-0123456789abcdeg", ".bashrc"] {
            assert!(!one.foreign(name.as_bytes()), "{name}");
        }
    }
}
