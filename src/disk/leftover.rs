//! Temporary names: how they are made, and how those of a killed run are found and removed.

use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Stat, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::MAX_DEPTH;
use super::directory::{Directory, only_ours, ours};
use super::identity::same_mount;
use super::journal::Journal;

const INFIX: &str = ".runsmith-";

/// The longest name a directory can hold, in bytes.
const LONGEST: usize = 255;

/// So many directories deep is removed, and no deeper: each level has a descriptor and a stack frame. A run makes
/// [`MAX_DEPTH`] levels, in a directory for them.
const DEEPEST: usize = MAX_DEPTH + 1;

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
///
/// What others could have moved into a directory is not removed: one in which others can write is left as it is, unless it
/// lies in a directory that nobody else can enter.
pub(super) fn remove(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    let parent = parent.as_fd();
    let is_hidden = is_private(&fstat(parent)?);
    remove_within(parent, name, is_hidden, DEEPEST)
}

/// Removes everything in a directory, as [`remove`] does.
pub(super) fn empty(fd: &OwnedFd) -> Result<(), Errno> {
    let is_hidden = is_private(&fstat(fd)?);
    empty_within(fd, is_hidden, DEEPEST)
}

/// Whether nobody but root (or the user who runs this) can enter a directory.
fn is_private(stat: &Stat) -> bool {
    ours(stat.st_uid) && stat.st_mode & 0o077 == 0
}

/// `is_hidden`: a directory above it is one that nobody else can enter. `levels`: so many more may follow.
fn remove_within(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    is_hidden: bool,
    levels: usize,
) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    if !same_mount(&fd, parent)? {
        return Err(Errno::XDEV);
    }
    let stat = fstat(&fd)?;
    let is_hidden = is_hidden || is_private(&stat);
    if is_hidden || only_ours(&stat) {
        let levels = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
        empty_within(&fd, is_hidden, levels)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn empty_within(fd: &OwnedFd, is_hidden: bool, levels: usize) -> Result<(), Errno> {
    let mut buffer = Vec::with_capacity(8 << 10);
    let mut inside = vec![];
    let mut names = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            inside.push(entry.file_name().to_owned());
        }
    }
    inside.iter().try_for_each(|name| remove_within(fd.as_fd(), name.as_c_str(), is_hidden, levels))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn directory(path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn what_others_can_have_moved_into_a_directory_is_not_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        // Anybody can enter, and write in what is below.
        directory(scratch.path(), 0o755);
        directory(&at("left/open"), 0o777);
        directory(&at("left"), 0o755);
        fs::write(at("left/open/moved"), "somebody's").unwrap();
        assert_eq!(remove(open(scratch.path()), "left"), Err(Errno::NOTEMPTY));
        assert_eq!(fs::read_to_string(at("left/open/moved")).unwrap(), "somebody's");
        // Nobody else can enter: all of it is this user's.
        directory(&at("left"), 0o700);
        assert_eq!(remove(open(scratch.path()), "left"), Ok(()));
        directory(&at("area"), 0o700);
        directory(&at("area/tree/open"), 0o777);
        fs::write(at("area/tree/open/file"), "").unwrap();
        let area = open(&at("area"));
        assert_eq!(remove(&area, "tree"), Ok(()));
        directory(&at("area/tree/open"), 0o777);
        fs::write(at("area/tree/open/file"), "").unwrap();
        assert_eq!(empty(&area), Ok(()));
        assert_eq!(fs::read_dir(at("area")).unwrap().count(), 0);
        // An empty one holds nothing of anybody's.
        directory(&at("left/open"), 0o777);
        assert_eq!(remove(open(scratch.path()), "left"), Ok(()));
    }

    #[test]
    fn removal_ends_at_the_depth_that_runs_make() {
        let scratch = tempfile::tempdir().unwrap();
        let deep = |levels: usize| scratch.path().join("top").join("d/".repeat(levels - 1));
        fs::create_dir_all(deep(DEEPEST)).unwrap();
        assert_eq!(remove(open(scratch.path()), "top"), Ok(()));
        fs::create_dir_all(deep(DEEPEST + 1)).unwrap();
        assert_eq!(remove(open(scratch.path()), "top"), Err(Errno::NAMETOOLONG));
        assert!(deep(DEEPEST).exists());
    }

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
