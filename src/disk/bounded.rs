//! Content of files, read and copied with a limit that holds while it happens: whoever owns a file can let it grow at any
//! moment.

use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::{Errno, read as read_some, write as write_some};

use super::directory::failure;
use crate::failure::Failure;

/// So many bytes are read at once.
const PART: usize = 64 << 10;

/// Why a file's content was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is larger than so many bytes.
    Large(u64),
    /// It became longer meanwhile.
    Grew,
    /// Parts of it have never been written: it costs its owner nothing to make it very long.
    Sparse,
    System(Errno),
}

impl Refused {
    /// In words; what the system says is none of them.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Large(limit) if *limit < 1 << 20 => Some(format!("it is larger than {} KiB", limit >> 10)),
            Self::Large(limit) => Some(format!("it is larger than {} MiB", limit >> 20)),
            Self::Grew => Some("it grew while it was read".to_owned()),
            Self::Sparse => Some("it has holes (a sparse file), which no file of runsmith's has".to_owned()),
            Self::System(_) => None,
        }
    }

    /// As the end of the attempt to do something with the file at `path`.
    pub(super) fn of(self, verb: &'static str, path: String) -> Failure {
        match (self.reason(), self) {
            (Some(reason), _) => Failure::path(verb, path, reason),
            (None, Self::System(error)) => failure(verb, path, error),
            (None, other) => Failure::path(verb, path, format!("{other:?}")),
        }
    }
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

/// All bytes of a regular file, at most `limit` of them.
pub(super) fn read(file: impl AsFd, limit: u64) -> Result<Vec<u8>, Refused> {
    let mut bytes = vec![];
    each(file.as_fd(), limit, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    Ok(bytes)
}

/// Writes all bytes of a regular file to another one, at most `limit` of them.
pub(super) fn copy(from: impl AsFd, to: impl AsFd, limit: u64) -> Result<(), Refused> {
    let to = to.as_fd();
    each(from.as_fd(), limit, |mut part| {
        while !part.is_empty() {
            match write_some(to, part) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(count) => part = part.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

fn each(
    file: impl AsFd,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<(), Refused> {
    let file = file.as_fd();
    let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    if size > limit {
        return Err(Refused::Large(limit));
    }
    // A file system that knows no holes says that the first one is at the end.
    if size > 0 && seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < size) {
        return Err(Refused::Sparse);
    }
    seek(file, SeekFrom::Start(0))?;
    let mut part = vec![0; PART.min(usize::try_from(size).unwrap_or(PART) + 1)];
    let mut left = size;
    loop {
        match read_some(file, part.as_mut_slice()) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                left = left.checked_sub(count as u64).ok_or(Refused::Grew)?;
                take(part.get(..count).unwrap_or_default())?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn the_limit_holds_while_it_is_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 200_000]).unwrap();
        assert_eq!(read(&file, 200_000).unwrap(), [7; 200_000]);
        assert_eq!(read(&file, 199_999), Err(Refused::Large(199_999)));
        let mut seen = 0;
        let grown = each(&file, 1 << 20, |part| {
            seen += part.len();
            // At its end: where it is read from stays as it is.
            file.write_all_at(&[7; PART], file.metadata().unwrap().len()).unwrap();
            Ok(())
        });
        assert_eq!(grown, Err(Refused::Grew));
        assert!(seen <= 200_000, "{seen}");
        let copied = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        copy(&file, &copied, 10).unwrap();
        assert_eq!(read(&copied, 10).unwrap(), [7; 10]);
        file.set_len(20 << 20).unwrap();
        assert_eq!(read(&file, 32 << 20), Err(Refused::Sparse));
    }
}
