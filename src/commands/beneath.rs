//! Inputs below a directory or a repository, opened without leaving it.
//!
//! The author of a pull request decides what every link of a checkout leads to, and what is read here is shown in logs and
//! comments. A path of the command line that lies in the git work tree of the working directory stays in that work tree and out
//! of its `.git`; what a directory of the command line holds stays in that directory. Links that stay inside are followed.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::file::regular;
use crate::failure::Failure;

/// So many links are followed in one path: the kernel's own number (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// The name of a repository's own directory, which holds tokens of a checkout among other things.
const GIT: &str = ".git";

/// What is to be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Whatever can be read: a pipe or a device, too.
    Any,
}

impl Expect {
    fn flags(self) -> OFlags {
        let read = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        match self {
            // Another thing may be there by now: it is not waited for.
            Self::File => read | OFlags::NONBLOCK,
            Self::Directory => read | OFlags::DIRECTORY,
            Self::Any => read,
        }
    }

    /// Opening a device may do something, and opening a FIFO waits: what is there is looked at first.
    fn check(self, seen: &OwnedFd) -> io::Result<()> {
        if self == Self::File {
            regular(File::from(seen.try_clone()?).metadata()?.file_type())
        } else {
            Ok(())
        }
    }
}

/// A directory that nothing below it leads out of.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// As messages call it.
    name: String,
}

impl Directory {
    /// The directory at a path of the command line, as [`open`] opens it.
    pub(super) fn named(path: &Path) -> io::Result<Self> {
        let fd = open(path, Expect::Directory)?.into();
        Ok(Self { fd, name: path.to_string_lossy().into_owned() })
    }

    /// Opens a regular file below the directory.
    ///
    /// # Errors
    /// The system's; or it is not a regular file; or a link leads out of the directory, or into a `.git` in it.
    pub(super) fn file(&self, below: &Path) -> io::Result<File> {
        open_below(self.fd.as_fd(), below, Expect::File, &self.name).map(File::from)
    }

    /// What is in the directory.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        Ok(self.list()?.into_iter().map(|(name, _)| name).collect())
    }

    /// What is in the directory, in the order of the names; links are links.
    pub(super) fn list(&self) -> io::Result<Vec<(OsString, FileType)>> {
        let mut found = vec![];
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    FileType::from_raw_mode(fstat(openat(&self.fd, name, flags, Mode::empty())?)?.st_mode)
                }
                kind => kind,
            };
            found.push((name.to_owned(), kind));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// A directory in this one, which is not a link.
    pub(super) fn child(&self, name: &OsStr) -> io::Result<Self> {
        let flags = Expect::Directory.flags() | OFlags::NOFOLLOW;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self { fd, name: format!("{}/{}", self.name, name.to_string_lossy()) })
    }
}

/// Where a path of the command line is.
pub(super) struct Located {
    /// The top of the git work tree that it lies in, if it lies in one; without links.
    pub(super) tree: Option<PathBuf>,
    /// From there: links below the top are still links. From `/` where there is no work tree.
    pub(super) rest: PathBuf,
}

impl Located {
    /// The path from `/` on, with the links below the work tree's top still in it.
    pub(super) fn absolute(&self) -> PathBuf {
        self.tree.as_deref().unwrap_or(Path::new("/")).join(&self.rest)
    }
}

/// Finds the work tree that a path lies in. Links above a work tree are followed, links in it are not: those are its author's.
pub(super) fn locate(path: &Path) -> io::Result<Located> {
    let absolute = std::path::absolute(path)?;
    let mut steps = absolute.components();
    let mut here = PathBuf::from("/");
    let mut tree = None;
    let mut rest = PathBuf::new();
    loop {
        let left = steps.as_path();
        match steps.next() {
            None => break,
            Some(Component::Normal(name)) => {
                let next = here.join(name);
                let is_link = match std::fs::symlink_metadata(&next) {
                    Ok(seen) => seen.is_symlink(),
                    // Opening it says why.
                    Err(_) => {
                        rest = left.to_owned();
                        break;
                    }
                };
                if !is_link {
                    here = next;
                    if has_git(&here) {
                        tree = Some(here.clone());
                    }
                } else if tree.is_some() {
                    rest = left.to_owned();
                    break;
                } else {
                    match std::fs::canonicalize(&next) {
                        Ok(target) => here = target,
                        Err(_) => {
                            rest = left.to_owned();
                            break;
                        }
                    }
                    tree = tree_of(&here);
                }
            }
            Some(Component::ParentDir) => {
                here.pop();
                if tree.as_ref().is_some_and(|tree| !here.starts_with(tree)) {
                    tree = tree_of(&here);
                }
            }
            Some(Component::RootDir | Component::CurDir | Component::Prefix(_)) => {}
        }
    }
    let below = tree.as_deref().and_then(|tree| here.strip_prefix(tree).ok());
    let below = below.unwrap_or_else(|| here.strip_prefix("/").unwrap_or(&here));
    Ok(Located { rest: if rest.as_os_str().is_empty() { below.to_owned() } else { below.join(rest) }, tree })
}

/// The nearest directory, from this one upwards, that has a `.git`.
pub(super) fn tree_of(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find(|above| has_git(above)).map(Path::to_owned)
}

fn has_git(directory: &Path) -> bool {
    std::fs::symlink_metadata(directory.join(GIT)).is_ok()
}

/// Opens a path of the command line: within its git work tree, if that is the working directory's or lies in it; else as any
/// program does. (Where etckeeper is used, all of /etc is a work tree: a link in it is then its administrator's.)
///
/// # Errors
/// The system's; or it is not what is expected; or a link in the work tree leads out of it, or into its `.git`.
pub(super) fn open(path: &Path, expect: Expect) -> io::Result<File> {
    let located = locate(path)?;
    let own = std::env::current_dir().ok().and_then(|here| tree_of(&here));
    let is_own = |tree: &&PathBuf| own.as_ref().is_some_and(|own| tree.starts_with(own));
    let Some(tree) = located.tree.as_ref().filter(is_own) else {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        if expect == Expect::File {
            expect.check(&openat(CWD, path, flags, Mode::empty())?)?;
        }
        let fd = openat(CWD, path, expect.flags(), Mode::empty())?;
        expect.check(&fd)?;
        return Ok(fd.into());
    };
    let top = openat(CWD, tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("the work tree {}", tree.display());
    open_below(top.as_fd(), &located.rest, expect, &name).map(File::from)
}

/// Looks whether a path of the command line may be the root that is compared with or written to.
///
/// # Errors
/// It is something else than a directory, or a link in the work tree leads out of it, or into its `.git`.
pub(super) fn check_root(path: &Path) -> Result<(), Failure> {
    match open(path, Expect::Directory) {
        // What the system refuses, it refuses later, with a better reason.
        Err(error) if error.raw_os_error().is_none() => {
            Err(Failure::path("open", path.to_string_lossy(), error))
        }
        _ => Ok(()),
    }
}

/// Whether a path of the command line is a directory, as [`open`] would open it.
pub(super) fn is_directory(path: &Path) -> bool {
    open(path, Expect::Directory).is_ok()
}

fn open_below(root: BorrowedFd<'_>, path: &Path, expect: Expect, name: &str) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let in_one_step = |flags| openat2(root, path, flags, Mode::empty(), inside);
    if let Ok(seen) = in_one_step(OFlags::PATH | OFlags::CLOEXEC) {
        expect.check(&seen)?;
        if let Ok(fd) = in_one_step(expect.flags()) {
            expect.check(&fd)?;
            return Ok(fd);
        }
    }
    // A link is in the way, or the kernel (before 5.6) or a sandbox does not have openat2.
    walk(root, path, expect, name)
}

/// Goes step by step, never up from `root`, and follows links itself: what the kernel follows may lead anywhere.
fn walk(root: BorrowedFd<'_>, path: &Path, expect: Expect, name: &str) -> io::Result<OwnedFd> {
    let leaves = || {
        let reason = format!("a link leads out of {name}, and nothing outside of it is read");
        io::Error::new(io::ErrorKind::PermissionDenied, reason)
    };
    // Directories that were entered, from the root down.
    let mut above: Vec<OwnedFd> = vec![];
    // Steps, and whether a link has them.
    let mut rest: VecDeque<(OsString, bool)> = VecDeque::new();
    put_before(&mut rest, path, false).ok_or_else(leaves)?;
    let mut links = 0;
    loop {
        let Some((step, is_linked)) = rest.pop_front() else {
            let here = above.last().map_or(root, |fd| fd.as_fd());
            return finish(here, OsStr::new("."), expect);
        };
        if step == ".." {
            above.pop().ok_or_else(leaves)?;
            continue;
        }
        if is_linked && step.eq_ignore_ascii_case(GIT) {
            let reason =
                "a link leads into the repository's own directory `.git`, and nothing in that is read";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let here = above.last().map_or(root, |fd| fd.as_fd());
        let seen = openat(here, &step, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&seen)?.st_mode) == FileType::Symlink {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(&seen, "", vec![])?;
            put_before(&mut rest, Path::new(OsStr::from_bytes(target.to_bytes())), true)
                .ok_or_else(leaves)?;
        } else if rest.is_empty() {
            return finish(here, &step, expect);
        } else {
            above.push(seen);
        }
    }
}

/// Puts the steps of a path before those that are left; nothing if it begins at `/`.
fn put_before(rest: &mut VecDeque<(OsString, bool)>, path: &Path, is_linked: bool) -> Option<()> {
    let steps: Vec<Component<'_>> = path.components().collect();
    for step in steps.into_iter().rev() {
        match step {
            Component::Normal(_) | Component::ParentDir => {
                rest.push_front((step.as_os_str().to_owned(), is_linked));
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(())
}

/// Opens what is not a link.
fn finish(here: BorrowedFd<'_>, step: &OsStr, expect: Expect) -> io::Result<OwnedFd> {
    let seen = openat(here, step, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    expect.check(&seen)?;
    let fd = openat(here, step, expect.flags() | OFlags::NOFOLLOW, Mode::empty())?;
    expect.check(&fd)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Both ways to open are held against the same cases: the kernel's, and the one step by step.
    #[test]
    fn links_stay_inside() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("in/deep/.git")).unwrap();
        std::fs::write(at("in/file"), "inside").unwrap();
        std::fs::write(at("in/deep/.git/config"), "token").unwrap();
        std::fs::write(at("outside"), "token").unwrap();
        let links = [
            ("in/ok", "file"),
            ("in/deep/up", "../file"),
            ("in/twice", "ok"),
            ("in/by-directory", "deep"),
            ("in/out", "../outside"),
            ("in/absolute", "/etc/hostname"),
            ("in/parent", ".."),
            ("in/magic", "/proc/self/root"),
            ("in/git", "deep/.git/config"),
            ("in/loop", "loop"),
            ("in/nowhere", "not-there"),
        ];
        for (link, target) in links {
            symlink(target, at(link)).unwrap();
        }
        let root = openat(CWD, at("in"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let cases = [
            ("file", Ok("inside")),
            ("ok", Ok("inside")),
            ("deep/up", Ok("inside")),
            ("twice", Ok("inside")),
            ("by-directory/up", Ok("inside")),
            ("deep/../file", Ok("inside")),
            ("deep/.git/config", Ok("token")),
            ("out", Err("leads out of")),
            ("absolute", Err("leads out of")),
            ("parent/outside", Err("leads out of")),
            ("../outside", Err("leads out of")),
            ("magic/etc/hostname", Err("leads out of")),
            ("git", Err("`.git`")),
            ("loop", Err("symbolic links")),
            ("nowhere", Err("No such file")),
            ("deep", Err("it is a directory")),
        ];
        for (path, want) in cases {
            let all = [open_below, walk].map(|open| {
                let fd = open(root.as_fd(), Path::new(path), Expect::File, "IN");
                fd.map_err(|error| error.to_string()).map(|fd| {
                    let mut text = String::new();
                    File::from(fd).read_to_string(&mut text).unwrap();
                    text
                })
            });
            for have in all {
                match (&have, want) {
                    (Ok(have), Ok(want)) => assert_eq!(have, want, "{path}"),
                    (Err(have), Err(want)) => assert!(have.contains(want), "{path}: {have}"),
                    _ => panic!("{path}: {have:?}"),
                }
            }
        }
    }
}
