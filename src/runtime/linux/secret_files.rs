//! Secrets as files: a directory of root's that one user may read, and nobody else, whatever groups the user has.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr};
use rustix::io::Errno;

/// Rights in an access control list (acl(5)).
const READ: u16 = 4;
const READ_AND_ENTER: u16 = 5;

/// Makes the directory anew, with a file for each secret: its name and its value, to the byte. `reader`: the user that may read
/// them; none: only who makes them. The user opens it when it is complete, and cannot change it: the files are root's.
pub fn write<'a>(
    directory: &Path,
    reader: Option<u32>,
    secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    remove(directory)?;
    let write = || {
        DirBuilder::new().mode(0o700).create(directory)?;
        for (name, value) in secrets {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o400).open(directory.join(name))?;
            file.write_all(value.as_bytes())?;
            if let Some(reader) = reader
                && !admit(&file, reader, READ)?
            {
                // Without lists only the owner's rights are one user's.
                fchown(&file, Some(reader), None)?;
            }
        }
        if let Some(reader) = reader {
            let opened = File::open(directory)?;
            if !admit(&opened, reader, READ_AND_ENTER)? {
                // The names stand in the run script.
                opened.set_permissions(Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = remove(directory);
    })
}

/// Removes it, if it is there.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Something else has its name.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(directory),
        other => other,
    }
}

/// The numbers N of all that is called `NAME.N` in a directory.
pub fn numbers(directory: &Path, name: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let number =
        |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok();
    entries.filter_map(number).collect()
}

/// Lets one user more use a file, as its access control list; false: its file system has none.
fn admit(file: &File, user: u32, rights: u16) -> io::Result<bool> {
    match fsetxattr(file, "system.posix_acl_access", &list(user, rights), XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The list as the kernel takes it (linux/posix_acl_xattr.h, version 2): for the owner, the user, the group, the most that user and
/// group may have, and everybody else.
fn list(user: u32, rights: u16) -> Vec<u8> {
    /// The entry is not about anybody in particular.
    const NOBODY: u32 = u32::MAX;
    let entries = [
        (0x01, if rights == READ { READ } else { 7 }, NOBODY),
        (0x02, rights, user),
        (0x04, 0, NOBODY),
        (0x10, rights, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (kind, rights, who) in entries {
        let (kind, rights): (u16, u16) = (kind, rights);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(who.to_le_bytes());
    }
    bytes
}
