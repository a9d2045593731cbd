//! What a generation does not share with the host: its temporary directories, and the right to write to the system's. It has mounts of
//! its own for that, which go with its last process.

use std::ffi::CString;
use std::fs;
use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

use super::kernel::{make_read_only, unshare_mounts};
use crate::model::service::{Hardening, SYSTEM, TEMPORARY};

/// Isolates this process and what it starts, as far as the pillar wants that. It takes CAP_SYS_ADMIN. The error is a sentence: who
/// has asked for isolation does not run without.
pub fn isolate(hardening: &Hardening) -> Result<(), String> {
    if !hardening.isolates() {
        return Ok(());
    }
    let key = if hardening.private_tmp { "private_tmp" } else { "read_only_system" };
    let failed = |error: io::Error| format!("hardening.{key}: it gets no mounts of its own: {error}");
    unshare_mounts().map_err(failed)?;
    // What the host mounts later is seen here, and nothing of here there.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|error| failed(error.into()))?;
    if hardening.private_tmp {
        for directory in TEMPORARY.into_iter().filter(|path| is_directory(path)) {
            mount("tmpfs", directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")
                .map_err(|error| format!("hardening.private_tmp: {directory} cannot be replaced: {error}"))?;
        }
    }
    if hardening.read_only_system {
        for directory in SYSTEM.into_iter().filter(|path| is_directory(path)) {
            read_only(directory).map_err(|error| {
                format!("hardening.read_only_system: {directory} cannot be made read-only: {error}")
            })?;
        }
    }
    Ok(())
}

/// A link leads to a directory that is looked at itself.
fn is_directory(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn read_only(directory: &str) -> io::Result<()> {
    mount_bind_recursive(directory, directory)?;
    make_read_only(&CString::new(directory)?)
}
