//! Directories below ROOT, opened step by step so that no planted link is followed.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, openat, readlinkat,
    statat, statx,
};
use rustix::io::Errno;

use super::recorded::step_to;
use super::shown;
use crate::failure::Failure;
use crate::visible::visible;

/// A directory that is open. Cheap to clone.
#[derive(Clone)]
pub(super) struct Directory(Arc<Open>);

struct Open {
    fd: OwnedFd,
    stat: Stat,
    /// Where it really is, for messages; without a slash at the end.
    path: String,
    parent: Option<Directory>,
    /// What it is called there.
    name: String,
    /// Only root (or the user who runs this) can have put anything here.
    trusted: bool,
    /// Others can have given its name to another directory.
    exchangeable: bool,
}

/// What a step of a path leads to.
pub(super) enum Step {
    /// A directory, perhaps through a link that may be followed.
    Directory(Directory),
    /// Nothing is there.
    Missing,
    /// Something else is there, by its word.
    Other(&'static str),
}

/// Makes ROOT, and what is missing above it. Says whether it had to.
pub(super) fn make_root(root: &Path) -> Result<bool, Failure> {
    if std::fs::metadata(root).is_ok() {
        return Ok(false);
    }
    if let Ok(target) = std::fs::read_link(root) {
        let reason =
            format!("it is a link to {}, which is not there; make that, or remove the link", shown(&target));
        return Err(Failure::path("make the directory", shown(root), reason));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(root)
        .map_err(|error| Failure::path("make the directory", shown(root), Reason::from(&error)))?;
    Ok(true)
}

/// Opens the directory at an absolute path of this host; nothing if nothing is there. Links on the way are followed if only
/// root (or the user who runs this) can have made them.
///
/// # Errors
/// The system's; or somebody else's link, or something that is no directory, is on the way.
pub fn open_directory(path: &str) -> Result<Option<OwnedFd>, Failure> {
    let Some(found) = step_to(&Directory::root(Path::new("/"))?, path)? else { return Ok(None) };
    let fd = rustix::io::fcntl_dupfd_cloexec(found.fd(), 0);
    fd.map(Some).map_err(|error| failure("open the directory", found.path().to_owned(), error))
}

impl Directory {
    /// Opens ROOT, by whatever links the user's path has.
    pub(super) fn root(root: &Path) -> Result<Self, Failure> {
        let fail = |error| failure("open the directory", shown(root), error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, root, flags, Mode::empty()).map_err(fail)?;
        let stat = fstat(&fd).map_err(fail)?;
        let path = shown(root).trim_end_matches('/').to_owned();
        let trusted = only_ours(&stat);
        Ok(Self(Arc::new(Open {
            fd,
            stat,
            path,
            parent: None,
            name: String::new(),
            trusted,
            exchangeable: false,
        })))
    }

    /// What is called `name` in this directory.
    pub(super) fn step(&self, name: &str) -> Result<Step, Failure> {
        self.step_within(name, &Cell::new(MAX_LINKS))
    }

    fn step_within(&self, name: &str, links: &Cell<u32>) -> Result<Step, Failure> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(self.fd(), name, flags | OFlags::RDONLY, Mode::empty()) {
            // To go through a directory one need not be able to list it.
            Err(Errno::ACCESS) => openat(self.fd(), name, flags | OFlags::PATH, Mode::empty()),
            opened => opened,
        };
        match opened {
            Ok(fd) => Ok(Step::Directory(self.child(name, fd)?)),
            Err(Errno::NOENT) => Ok(Step::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = self.stat_of(name)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => self.follow(name, &stat, links).map(Step::Directory),
                    other => Ok(Step::Other(word(other))),
                }
            }
            Err(error) => Err(failure("open the directory", self.path_of(name), error)),
        }
    }

    /// Goes where a link leads, step by step and never above ROOT.
    fn follow(&self, name: &str, link: &Stat, links: &Cell<u32>) -> Result<Self, Failure> {
        let refuse = |reason: &str| Failure::path("follow the link", self.path_of(name), reason);
        if !self.0.trusted || !ours(link.st_uid) {
            return Err(refuse(
                "somebody other than root could have made it; put a directory in its place, \
                 or let root own it and every directory above it",
            ));
        }
        links.set(links.get().saturating_sub(1));
        if links.get() == 0 {
            return Err(refuse("too many links lead to each other"));
        }
        let target = self.link_target(name)?;
        let mut at = self.clone();
        if target.starts_with('/') {
            while let Some(parent) = at.0.parent.clone() {
                at = parent;
            }
        }
        for step in target.split('/') {
            at = match step {
                "" | "." => at,
                ".." => at.0.parent.clone().unwrap_or(at),
                step => match at.step_within(step, links)? {
                    Step::Directory(next) => next,
                    Step::Missing => {
                        return Err(refuse(&format!("it leads to {}, where nothing is", at.path_of(step))));
                    }
                    Step::Other(word) => {
                        return Err(refuse(&format!("it leads to {}, a {word}", at.path_of(step))));
                    }
                },
            };
        }
        Ok(at)
    }

    fn child(&self, name: &str, fd: OwnedFd) -> Result<Self, Failure> {
        let path = self.path_of(name);
        let stat = fstat(&fd).map_err(|error| failure("look at", path.clone(), error))?;
        let trusted = self.0.trusted && only_ours(&stat);
        // Below the sticky bit others cannot rename what is not theirs.
        let is_kept = ours(self.stat().st_uid) && self.stat().st_mode & STICKY != 0 && ours(stat.st_uid);
        let exchangeable = self.0.exchangeable || !(only_ours(self.stat()) || is_kept);
        let (parent, name) = (Some(self.clone()), name.to_owned());
        Ok(Self(Arc::new(Open { fd, stat, path, parent, name, trusted, exchangeable })))
    }

    /// Where a link points. A target that is not UTF-8 has replacement characters in it.
    pub(super) fn link_target(&self, name: &str) -> Result<String, Failure> {
        let target = readlinkat(self.fd(), name, vec![])
            .map_err(|error| failure("read the link", self.path_of(name), error))?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// Facts on what is called `name`, a link itself and not what it leads to.
    pub(super) fn stat_of(&self, name: &str) -> Result<Stat, Failure> {
        statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failure("look at", self.path_of(name), error))
    }

    /// Its descriptor; one for paths only, if it may be entered but not listed.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0.fd
    }

    /// What it was when it was opened.
    pub(super) fn stat(&self) -> &Stat {
        &self.0.stat
    }

    /// Whether another file system, or another part of one, begins here. ROOT is not asked about: nobody wants it changed.
    pub(super) fn is_mount_point(&self) -> bool {
        let other_device =
            self.0.parent.as_ref().is_some_and(|parent| parent.stat().st_dev != self.stat().st_dev);
        // A bind mount may be of the same device; kernels before 5.8 do not tell.
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        other_device
            || statx(self.fd(), "", flags, StatxFlags::empty()).is_ok_and(|found| {
                found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
                    && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            })
    }

    /// What it is in, on the way without links; none of ROOT.
    pub(super) fn parent(&self) -> Option<&Self> {
        self.0.parent.as_ref()
    }

    /// Its path below ROOT, as entries have theirs, without links; nothing of ROOT itself.
    pub(super) fn below_root(&self) -> String {
        match &self.0.parent {
            Some(parent) => format!("{}/{}", parent.below_root(), self.0.name),
            None => String::new(),
        }
    }

    /// Nobody but root (or the user who runs this) can have put anything here.
    pub(super) fn trusted(&self) -> bool {
        self.0.trusted
    }

    /// Whether others than root (or the user who runs this) can have given its name to another directory of root's.
    pub(super) fn is_exchangeable(&self) -> bool {
        self.0.exchangeable
    }

    /// Whether others can have given the name of something of root's to another thing in it.
    pub(super) fn has_exchangeable(&self) -> bool {
        self.0.exchangeable || !only_ours(self.stat())
    }

    /// The path of itself, fit to be shown.
    pub(super) fn path(&self) -> &str {
        if self.0.path.is_empty() { "/" } else { &self.0.path }
    }

    /// The path of something in it, fit to be shown.
    pub(super) fn path_of(&self, name: &str) -> String {
        format!("{}/{}", self.0.path, visible(name))
    }
}

/// The sticky bit: many write here, and each may rename and remove only what is his.
const STICKY: u32 = 0o1000;

/// As many as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// Root, or the user who runs this.
pub(super) fn ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Owned by root (or the user who runs this), and others cannot write in it.
pub(super) fn only_ours(stat: &Stat) -> bool {
    ours(stat.st_uid) && stat.st_mode & 0o022 == 0
}

/// The word for something that is there.
pub(super) fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "thing of unknown kind",
    }
}

/// The system refused.
pub(super) fn failure(verb: &'static str, path: String, error: Errno) -> Failure {
    Failure::path(verb, path, Reason::from(&std::io::Error::from(error)))
}

/// The system's sentence without the number that Rust adds to it.
pub(super) struct Reason(String);

impl From<&std::io::Error> for Reason {
    fn from(error: &std::io::Error) -> Self {
        let text = error.to_string();
        Self(text.split(" (os error").next().unwrap_or_default().to_owned())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
