//! One file that somebody wrote by hand, replaced by a corrected one.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path};

use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, accessat, fchmod, fchown, fgetxattr,
    fgetxattr_query, flistxattr, flistxattr_query, fsetxattr, fstat, fsync, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::directory::{Directory, Reason, Step, failure, word};
use super::shown;
use crate::failure::Failure;
use crate::visible::visible;

/// So many names are tried for the new text beside its place.
const NAMES: u32 = 100;

/// Attributes that the kernel makes of a file's content itself (ima and evm; Linux,
/// Documentation/ABI/testing/evm and ima_policy): those of the old text would be wrong.
const OF_CONTENT: [&[u8]; 2] = [b"security.ima", b"security.evm"];

/// Puts `new` in the place of a file that holds `old`, whole or not at all, with the mode, the owner
/// and the extended attributes (access lists among them) that the file has.
///
/// # Errors
/// The system's; the path is a link, or goes through one that somebody other than root (or the user
/// who runs this) could have made; the file has other names, which would go on holding `old`; it may
/// not be written to; it holds something else by now; its owner or an attribute cannot be kept.
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
    if stat.st_nlink > 1 {
        // Written in place it could be torn, and whoever else uses it under another name was not asked.
        return Err(refuse(&format!(
            "it has {} names (hard links), and only this one would get the new text; \
             make it a file of its own, or write what --fix --diff shows",
            stat.st_nlink
        )));
    }
    // Who may write in the directory could replace it all the same, which is not what a file that is read-only asks for.
    accessat(directory.fd(), name.as_str(), Access::WRITE_OK, AtFlags::EACCESS).map_err(fail)?;
    let mut bytes = Vec::with_capacity(old.len());
    let file = File::from(file);
    let read = (&file).take(old.len() as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::path("read", shown(path), error))?;
    if bytes != old {
        return Err(refuse("it has changed since it was read"));
    }

    let (temp, mut out) = temporary(&directory).map_err(fail)?;
    let write = |out: &mut File| -> Result<(), Failure> {
        out.write_all(new).map_err(|error| Failure::path("write to", shown(path), error))?;
        let made = fstat(&*out).map_err(fail)?;
        if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fchown(&*out, Some(uid), Some(gid)).map_err(|error| match error {
                Errno::PERM => refuse("its owner or group could not be kept: it is somebody else's"),
                error => fail(error),
            })?;
        }
        // Before the mode, which may keep an owner from setting them.
        keep_attributes(&file, out).map_err(|(name, error)| {
            refuse(&format!(
                "its attribute {} could not be kept: {}",
                visible(&name),
                Reason::from(&error.into())
            ))
        })?;
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

/// Gives `to` the extended attributes of `from`; the name of one that it cannot have, and why.
fn keep_attributes(from: &File, to: &File) -> Result<(), (String, Errno)> {
    let unnamed = |error| ("list".to_owned(), error);
    let size = match flistxattr_query(from) {
        // A file system that has none.
        Err(Errno::NOTSUP) | Ok(0) => return Ok(()),
        size => size.map_err(unnamed)?,
    };
    let mut names = vec![0; size];
    flistxattr(from, names.as_mut_slice()).map_err(unnamed)?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !OF_CONTENT.contains(name)) {
        let keep = || {
            let value = attribute(from, name)?;
            // One that it got when it was made need not be set, which its owner may not be allowed to (labels of SELinux).
            if attribute(to, name).as_ref() == Ok(&value) {
                return Ok(());
            }
            fsetxattr(to, name, &value, XattrFlags::empty())
        };
        keep().map_err(|error| (String::from_utf8_lossy(name).into_owned(), error))?;
    }
    Ok(())
}

/// The value of an extended attribute.
fn attribute(file: &File, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; fgetxattr_query(file, name)?];
    let size = fgetxattr(file, name, value.as_mut_slice())?;
    value.truncate(size);
    Ok(value)
}

/// A new file that only this process knows of, and its name.
fn temporary(directory: &Directory) -> Result<(String, File), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let process = std::process::id();
    for number in 0..NAMES {
        let name = format!(".runsmith-fix.{process}.{number}");
        match openat(directory.fd(), name.as_str(), flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => return Ok((name, File::from(fd))),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}
