//! One run at a time on a ROOT.

use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use super::Options;
use super::directory::{Directory, failure};
use crate::failure::Failure;

const PAUSE: Duration = Duration::from_millis(20);

/// Holds ROOT for this run until what is returned is dropped, or the process is gone.
pub(super) fn hold(root: &Directory, options: &Options<'_>) -> Result<std::os::fd::OwnedFd, Failure> {
    let fail = |error| failure("lock", root.path().to_owned(), error);
    // A descriptor of its own: the lock lasts as long as this one, whatever is cloned elsewhere.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(root.fd(), ".", flags, Mode::empty()).map_err(fail)?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(Errno::WOULDBLOCK) if waited >= options.patience => {
                let reason = format!("another run has held it for {} s", options.patience.as_secs());
                return Err(Failure::path("lock", root.path(), reason));
            }
            Err(Errno::WOULDBLOCK) => {
                if waited.is_zero() {
                    (options.waiting)();
                }
                sleep(PAUSE);
                waited += PAUSE;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(fail(error)),
        }
    }
}
