//! One file that somebody wrote by hand, replaced by a corrected one.

use std::io::{Read, Write};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::directory::{Directory, Step, failure, word};
use super::shown;
use crate::failure::Failure;

/// So many names are tried for the new text beside its place.
const NAMES: u32 = 100;

/// Puts `new` in the place of a file that holds `old`, whole or not at all, with the mode and the
/// owner that the file has. Extended attributes are not kept.
///
/// # Errors
/// The system's; the path is a link, or goes through one that somebody other than root (or the user
/// who runs this) could have made; the file holds something else by now; its owner cannot be kept.
pub fn replace(path: &Path, old: &[u8], new: &[u8]) -> Result<(), Failure> {
    let refuse = |reason: &str| Failure::path("write to", shown(path), reason);
    let fail = |error: Errno| failure("write to", shown(path), error);
    let whole = std::path::absolute(path).map_err(|error| Failure::path("write to", shown(path), error))?;
    let mut steps: Vec<String> = vec![];
    for step in whole.components() {
        match step {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(refuse("the path has a \"..\" step: write the path it leads to"));
            }
            Component::Normal(name) => match name.to_str() {
                Some(name) => steps.push(name.to_owned()),
                None => return Err(refuse("its name is not UTF-8")),
            },
        }
    }
    let name = steps.pop().ok_or_else(|| refuse("it is a directory"))?;
    let mut directory = Directory::root(Path::new("/"))?;
    for step in &steps {
        directory = match directory.step(step)? {
            Step::Directory(next) => next,
            Step::Missing => return Err(refuse("its directory is not there")),
            Step::Other(word) => return Err(refuse(&format!("{step} is a {word}"))),
        };
    }

    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory.fd(), name.as_str(), flags, Mode::empty()) {
        Err(Errno::LOOP) => return Err(refuse("it is a link: name the file that it leads to")),
        file => file.map_err(fail)?,
    };
    let stat = fstat(&file).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refuse(&format!("it is a {}", word(FileType::from_raw_mode(stat.st_mode)))));
    }
    let mut bytes = Vec::with_capacity(old.len());
    let read = std::fs::File::from(file).take(old.len() as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::path("read", shown(path), error))?;
    if bytes != old {
        return Err(refuse("it has changed since it was read"));
    }

    let (temp, mut out) = temporary(&directory).map_err(fail)?;
    let write = |out: &mut std::fs::File| -> Result<(), Failure> {
        out.write_all(new).map_err(|error| Failure::path("write to", shown(path), error))?;
        let made = fstat(&*out).map_err(fail)?;
        if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fchown(&*out, Some(uid), Some(gid)).map_err(|error| match error {
                Errno::PERM => refuse("its owner or group could not be kept: it is somebody else's"),
                error => fail(error),
            })?;
        }
        fchmod(&*out, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(fail)?;
        fsync(&*out).map_err(fail)?;
        renameat(directory.fd(), temp.as_str(), directory.fd(), name.as_str()).map_err(fail)
    };
    let written = write(&mut out);
    if written.is_err() {
        // What keeps the name from going keeps the file from having been written, which is said.
        let _ = unlinkat(directory.fd(), temp.as_str(), AtFlags::empty());
        return written;
    }
    fsync(directory.fd()).map_err(fail)
}

/// A new file that only this process knows of, and its name.
fn temporary(directory: &Directory) -> Result<(String, std::fs::File), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let process = std::process::id();
    for number in 0..NAMES {
        let name = format!(".runsmith-fix.{process}.{number}");
        match openat(directory.fd(), name.as_str(), flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => return Ok((name, std::fs::File::from(fd))),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}
