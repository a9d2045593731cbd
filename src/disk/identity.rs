//! What a file is, apart from its names: the only thing that another user cannot forge.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags, fstat, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A file or directory, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// When it was made: seconds since 1970 and nanoseconds. None where the file system does not keep that. An inode
    /// number is used again after its file has gone; a time of birth cannot be set by anybody.
    birth: Option<(i64, u32)>,
}

impl Identity {
    /// That of what is open.
    pub(super) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let fd = fd.as_fd();
        let stat = fstat(fd)?;
        let birth = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok().and_then(|found| {
            let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
            known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
        });
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, birth })
    }

    /// Whether both are the same file. The number of a device may change with a boot, and the time of birth says more.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
            && match (self.birth, other.birth) {
                (Some(one), Some(other)) => one == other,
                _ => self.device == other.device,
            }
    }

    /// Whether it was made before `time` (seconds since 1970, nanoseconds); not known without a time of birth.
    pub(super) fn is_older_than(&self, time: (i64, u32)) -> bool {
        self.birth.is_some_and(|birth| birth < time)
    }
}

/// The number of the mount that something open is on: bind mounts of one file system have different ones. None before
/// Linux 5.8.
fn mount_of(fd: impl AsFd) -> Option<u64> {
    let found = statx(fd.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

/// Whether no mount point lies between two things that are open.
pub(super) fn same_mount(one: impl AsFd, other: impl AsFd) -> Result<bool, Errno> {
    let (one, other) = (one.as_fd(), other.as_fd());
    let same_device = fstat(one)?.st_dev == fstat(other)?.st_dev;
    Ok(same_device
        && match (mount_of(one), mount_of(other)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_and_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(scratch.path().join("one")).unwrap();
        let one = Identity::of(&file).unwrap();
        std::fs::rename(scratch.path().join("one"), scratch.path().join("two")).unwrap();
        assert!(one.is(&Identity::of(&file).unwrap()));
        let other = std::fs::File::create(scratch.path().join("one")).unwrap();
        assert!(!one.is(&Identity::of(other).unwrap()));
        // The same inode number, made at another time.
        let again = Identity { birth: Some((1, 0)), ..one };
        assert!(one.birth.is_none() || !one.is(&again));
        assert!(Identity { birth: Some((1, 0)), ..one }.is_older_than((1, 1)));
        assert!(same_mount(&file, &file).unwrap());
        assert!(!same_mount(&file, std::fs::File::open("/proc/self/stat").unwrap()).unwrap());
    }
}
