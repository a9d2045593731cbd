//! runsv, as far as taking a service away has to do with it: stopping, unlinking, and waiting until it
//! has gone.
//!
//! The order that runit needs: first the service is stopped (`sv down`), because runsv would start it
//! again; then the link goes, because runsvdir would start runsv again; then runsv is told to exit and
//! is waited for, because it locks up if its directory is taken from under it.

use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::directory::{Directory, Step, failure, only_ours};
use super::lock::{self, Lock};
use super::recorded::removed;
use crate::failure::Failure;
use crate::record::Retired;
use crate::tree::Change;
use crate::visible::visible;

/// How long runsv may take to go after its service and log service have ended: it has nothing left to
/// do but to close files. It is also what svlogd has for its last lines.
const FAREWELL: Duration = Duration::from_secs(20);

/// What was done about a service.
#[derive(Debug, Default)]
pub(super) struct Unlinked {
    /// The link that was removed.
    pub(super) change: Option<Change>,
    /// It was supervised, and has been stopped.
    pub(super) stopped: bool,
}

/// Stops a service that its link makes run, and takes the link away. A link that leads elsewhere is
/// somebody else's, and so is what runs behind it: nothing is done then.
pub(super) fn retire(lock: &Lock, root: &Directory, retired: &Retired) -> Result<Unlinked, Failure> {
    let Some((parent, name)) = parent_of(root, &retired.link)? else { return Ok(Unlinked::default()) };
    match rustix::fs::readlinkat(parent.fd(), name, vec![]) {
        Ok(target) if target.to_bytes() == retired.directory.as_bytes() => {}
        Ok(_) | Err(Errno::NOENT | Errno::INVAL) => return Ok(Unlinked::default()),
        Err(error) => return Err(failure("read the link", parent.path_of(name), error)),
    }
    let runs = Supervised::find(root, &retired.directory)?;
    let _takes = runs.as_ref().map(|_| lock.takes(longest(retired.wait)));
    if let Some(runs) = &runs {
        runs.sv("down", retired.wait)?;
    }
    match unlinkat(parent.fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failure("remove the link", parent.path_of(name), error)),
    }
    if let Some(runs) = &runs {
        runs.exit(retired.wait)?;
    }
    Ok(Unlinked { change: Some(removed(&retired.link, "link")), stopped: runs.is_some() })
}

/// Waits until nothing supervises a service directory that is to be removed; stops what does.
pub(super) fn end(lock: &Lock, root: &Directory, directory: &str, wait: u64) -> Result<(), Failure> {
    let Some(runs) = Supervised::find(root, directory)? else { return Ok(()) };
    let _takes = lock.takes(longest(wait));
    runs.sv("down", wait)?;
    runs.exit(wait)
}

/// How long a service may take to end and its runsv to exit, if `sv` waits `wait` seconds for each.
fn longest(wait: u64) -> Duration {
    Duration::from_secs(wait.max(1).saturating_mul(2)).saturating_add(FAREWELL)
}

/// A service directory that a runsv works in.
struct Supervised {
    directory: Directory,
    /// Its `supervise`.
    supervise: Directory,
}

impl Supervised {
    /// A runsv that lives has `supervise/ok` open for reading.
    fn find(root: &Directory, directory: &str) -> Result<Option<Self>, Failure> {
        let Some((parent, name)) = parent_of(root, directory)? else { return Ok(None) };
        let Step::Directory(found) = parent.step(name)? else { return Ok(None) };
        let Step::Directory(supervise) = found.step("supervise")? else { return Ok(None) };
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(supervise.fd(), "ok", flags, Mode::empty()) {
            Ok(_) => {}
            Err(Errno::NXIO | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failure("look at", supervise.path_of("ok"), error)),
        }
        if !only_ours(found.stat()) || !only_ours(supervise.stat()) {
            let reason = "it is supervised, and others than root can write in it; stop it with sv";
            return Err(Failure::path("stop the service in", found.path(), reason));
        }
        Ok(Some(Self { directory: found, supervise }))
    }

    /// Gives a command to runsv by `sv`, and waits for its end as `sv` does.
    fn sv(&self, verb: &str, wait: u64) -> Result<(), Failure> {
        let path = self.directory.path();
        let refuse = |reason: String| Failure::path("stop the service in", path, reason);
        // In the directory that is open: whoever owns one above it could put another service at the path.
        let here = format!("/proc/self/fd/{}", self.directory.fd().as_raw_fd());
        let output = Command::new("sv")
            .args(["-w", &wait.max(1).to_string(), verb, "."])
            .current_dir(here)
            .env_remove("SVDIR")
            .env_remove("SVWAIT")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| refuse(format!("sv cannot be run ({error}); it comes with runit")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let said: Vec<_> = said.lines().map(visible).collect();
        Err(refuse(format!("sv {verb} says {:?}; nothing of it was removed", said.join("; "))))
    }

    /// Tells runsv to exit and waits until it has. Who took the link away has told runsvdir the same.
    fn exit(&self, wait: u64) -> Result<(), Failure> {
        // It may have gone already, which sv reports as a failure; the lock is what tells.
        let _ = self.sv("exit", wait);
        let path = self.supervise.path_of("lock");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let held = match openat(self.supervise.fd(), "lock", flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failure("look at", path, error)),
        };
        match lock::wait(held, FAREWELL) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(failure("lock", path, error)),
            None => {
                let reason =
                    format!("runsv has not gone within {} s; nothing of it was removed", FAREWELL.as_secs());
                Err(Failure::path("take away the service in", self.directory.path(), reason))
            }
        }
    }
}

/// The directory that a path is in, and its name there; nothing where no such directory is.
pub(super) fn parent_of<'p>(
    root: &Directory,
    path: &'p str,
) -> Result<Option<(Directory, &'p str)>, Failure> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut here = root.clone();
    for step in above.split('/').filter(|step| !step.is_empty()) {
        here = match here.step(step)? {
            Step::Directory(next) => next,
            Step::Missing | Step::Other(_) => return Ok(None),
        };
    }
    Ok(Some((here, name)))
}
