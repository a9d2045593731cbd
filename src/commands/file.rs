//! Files that are read whole: only real ones, and only up to a size.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The bytes of a file that may have at most so many bytes: `most`, whole KiB.
///
/// # Errors
/// The system's; or it is no regular file, which is seen at once: a FIFO would be waited for and a device read for ever;
/// or it is larger, being no `what`.
pub(super) fn read(path: &Path, most: u64, what: &str) -> io::Result<Vec<u8>> {
    // Opening a device may do something; opening a socket fails with words that say nothing.
    regular(std::fs::metadata(path)?.file_type())?;
    // Another thing may be there by now: it is not waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    read_open(OpenOptions::new().read(true).custom_flags(flags).open(path)?, most, what)
}

/// As [`read`], of a file that is open.
pub(super) fn read_open(file: File, most: u64, what: &str) -> io::Result<Vec<u8>> {
    regular(file.metadata()?.file_type())?;
    let mut bytes = vec![];
    if file.metadata()?.len() <= most {
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= most {
            return Ok(bytes);
        }
    }
    Err(io::Error::other(too_large(most, what)))
}

/// What is wrong with a file that has more than `most` bytes.
pub(super) fn too_large(most: u64, what: &str) -> String {
    let most = if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{} KiB", most >> 10) };
    format!("it is larger than {most}, the most that a {what} may have")
}

/// Refuses what is no regular file.
pub(super) fn regular(kind: FileType) -> io::Result<()> {
    let word = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {word}, and a file is expected")))
}
