//! The pipe that a server writes to, taken out of the server: what is left to do when keeper and runtime have both gone.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::listen::is_named;
use super::process::Process;

/// The reading end of the pipe that is a process's standard output; none if that is something else. While nobody has it,
/// whatever the server says fails, and with it a request that says something.
pub fn recover(process: &Process) -> Option<OwnedFd> {
    if !is_named(process.pid, 1, "pipe:[") {
        return None;
    }
    let writing = pidfd_getfd(process, 1, PidfdGetfdFlags::empty()).ok()?;
    // Of what the application's user can have put there, only a pipe without a name is opened again: it is nobody else's.
    let own = format!("/proc/self/fd/{}", writing.as_raw_fd());
    let leads_to = fs::read_link(&own).ok()?;
    if !leads_to.to_str()?.starts_with("pipe:[") {
        return None;
    }
    open(own, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Whether two descriptors are of one pipe.
pub fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    matches!((fstat(one), fstat(other)), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
