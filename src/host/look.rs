//! Looks at paths that lead through directories of others, without being led to where a look can wait for ever.
//!
//! Whoever owns a directory can put a link there that leads through `/proc/PID/root` or `/proc/PID/fd` (magic links, symlink(7))
//! into mounts that nobody else has, also of a file system that a program of that user's answers for. Root would wait for
//! that program, and not even be killed meanwhile. No other link leads out of the mounts that root itself has, so all others are
//! followed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, fstat, fstatfs, openat, openat2,
    readlinkat,
};
use rustix::io::Errno;

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// So many steps are taken one by one: some hundred are in the longest path, and links may lead through more.
const MOST_STEPS: usize = 4096;

/// How a place is opened: nothing is asked of what it is.
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What is at a path; a link as its last step is not followed.
pub fn at(path: impl AsRef<Path>) -> Result<Stat, Errno> {
    fstat(open(path.as_ref(), PLACE | OFlags::NOFOLLOW)?)
}

/// Its kind; none if nothing is there, or if it cannot be reached.
pub fn kind(path: impl AsRef<Path>) -> Option<FileType> {
    at(path).ok().map(|found| FileType::from_raw_mode(found.st_mode))
}

/// Whether something is there, and be it a link that leads nowhere.
pub fn is_there(path: impl AsRef<Path>) -> bool {
    at(path).is_ok()
}

/// Device and inode.
pub fn node(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// What a path leads to, opened as a place (`O_PATH`); all links are followed.
pub fn place(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    open(path.as_ref(), PLACE)
}

/// What is at a path, opened as a place (`O_PATH`); a link as its last step is not followed.
pub fn unfollowed(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    open(path.as_ref(), PLACE | OFlags::NOFOLLOW)
}

/// Opens a file to read it; all links are followed. On a kernel before Linux 5.6 somebody could exchange one meanwhile.
pub fn readable(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    let path = path.as_ref();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOSYS | Errno::PERM) => {
            by_steps(path, true)?;
            openat(CWD, path, flags, Mode::empty())
        }
        other => other,
    }
}

/// The name of what a place is, by the kernel's word. Of one that was removed it has a further word behind it, so it is to be
/// compared ([`leads_to`]). Whoever asks must be able to look at its own descriptors: not with another user's rights.
pub fn name_of(place: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Whether a path leads to what was opened.
pub fn leads_to(path: &Path, place: &OwnedFd) -> bool {
    matches!((at(path), fstat(place)), (Ok(found), Ok(place)) if node(&found) == node(&place))
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // A kernel before Linux 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => by_steps(path, !flags.contains(OFlags::NOFOLLOW)),
        other => other,
    }
}

/// The same, one step after the other: no link of a file system of the kind that has magic ones is followed.
fn by_steps(path: &Path, follows_last: bool) -> Result<OwnedFd, Errno> {
    let root = || openat(CWD, "/", PLACE, Mode::empty());
    let mut here = if path.is_absolute() { root()? } else { openat(CWD, ".", PLACE, Mode::empty())? };
    let mut left = steps(path);
    if left.is_empty() && !path.is_absolute() {
        return Err(Errno::NOENT);
    }
    let (mut links, mut taken) = (0, 0);
    while let Some(step) = left.pop() {
        taken += 1;
        if taken > MOST_STEPS {
            return Err(Errno::NAMETOOLONG);
        }
        let next = openat(&here, &step, PLACE | OFlags::NOFOLLOW, Mode::empty())?;
        let is_link = FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink;
        if !is_link || (left.is_empty() && !follows_last) {
            here = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS || fstatfs(&next)?.f_type == PROC_SUPER_MAGIC {
            return Err(Errno::LOOP);
        }
        let target = readlinkat(&next, "", vec![])?;
        let target = Path::new(OsStr::from_bytes(target.to_bytes()));
        if target.is_absolute() {
            here = root()?;
        }
        left.extend(steps(target));
    }
    Ok(here)
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let is_step = |step: &Component<'_>| matches!(step, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_step).map(|step| step.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    /// Both ways give the same.
    fn both(path: &Path, follows_last: bool) -> Result<(u64, u64), Errno> {
        let flags = if follows_last { PLACE } else { PLACE | OFlags::NOFOLLOW };
        let node = |opened: Result<OwnedFd, Errno>| opened.and_then(|fd| Ok(node(&fstat(fd)?)));
        let (one, other) = (node(open(path, flags)), node(by_steps(path, follows_last)));
        assert_eq!(one, other, "{}", path.display());
        one
    }

    #[test]
    fn all_links_are_followed_but_magic_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let found = |name: &str| fs::metadata(at(name)).map(|found| (found.dev(), found.ino())).unwrap();
        fs::create_dir_all(at("one/two")).unwrap();
        fs::write(at("one/two/file"), "text").unwrap();
        symlink("one/two", at("relative")).unwrap();
        symlink(at("one"), at("absolute")).unwrap();
        symlink("../absolute/two/../two", at("one/winding")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for name in ["one/two/file", "relative/file", "absolute/two/file", "one/winding/file"] {
            assert_eq!(both(&at(name), true), Ok(found("one/two/file")), "{name}");
            assert_eq!(both(&at(name), false), Ok(found("one/two/file")), "{name}");
        }
        assert_eq!(both(&at("relative"), true), Ok(found("one/two")));
        assert_ne!(both(&at("relative"), false), Ok(found("one/two")), "the link itself");
        assert_eq!(both(&at("broken"), true), Err(Errno::NOENT));
        assert!(both(&at("broken"), false).is_ok() && is_there(at("broken")));
        assert_eq!(both(&at("loop"), true), Err(Errno::LOOP));
        assert_eq!(both(&at("one/two/file/more"), true), Err(Errno::NOTDIR));
        assert_eq!(both(&at("nothing/more"), true), Err(Errno::NOENT));
        assert!(both(Path::new("/"), true).is_ok());
        assert_eq!(both(Path::new(""), true), Err(Errno::NOENT));
        assert_eq!(kind(at("relative")), Some(FileType::Symlink));

        let read =
            |name: &str| readable(at(name)).map(|file| io::read_to_string(fs::File::from(file)).unwrap());
        assert_eq!(read("one/winding/file").as_deref(), Ok("text"));
        let opened = place(at("one/winding")).unwrap();
        let real = name_of(&opened).unwrap();
        assert_eq!(real, fs::canonicalize(at("one/two")).unwrap());
        assert!(leads_to(&real, &opened) && !leads_to(&at("one"), &opened));
        fs::rename(at("one/two"), at("one/three")).unwrap();
        assert_eq!(name_of(&opened).unwrap(), fs::canonicalize(at("one/three")).unwrap());
        fs::remove_file(at("one/three/file")).unwrap();
        fs::remove_dir(at("one/three")).unwrap();
        assert!(!leads_to(&name_of(&opened).unwrap(), &opened));
    }

    /// As whoever owns a directory lets a path lead into the mounts of a process of theirs, or to a descriptor of it.
    #[test]
    fn no_magic_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let own = std::process::id();
        fs::write(at("file"), "text").unwrap();
        symlink(format!("/proc/{own}/root"), at("root")).unwrap();
        symlink(format!("/proc/{own}/cwd"), at("cwd")).unwrap();
        symlink("root", at("further")).unwrap();
        for name in ["root/tmp", "cwd/src", "further/tmp", "root/proc/self"] {
            for follows_last in [true, false] {
                assert_eq!(both(&at(name), follows_last), Err(Errno::LOOP), "{name}");
            }
            assert!(readable(at(name)).is_err() && kind(at(name)).is_none(), "{name}");
        }
        assert_eq!(both(&at("root"), true), Err(Errno::LOOP));
        // What is not followed can be looked at.
        assert!(both(&at("root"), false).is_ok());
    }
}
