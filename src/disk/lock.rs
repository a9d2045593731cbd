//! One run at a time: which file stands for that, and waiting for it.
//!
//! A lock on ROOT itself can be held by whoever may read ROOT, for as long as they like. Root's runs
//! therefore lock a file that only root can open, one for all roots of the host: that keeps roots
//! inside each other apart too. Where it cannot be made (a container that may only be read), and for
//! everybody else, the lock is on ROOT, which leaves no file behind.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, flock, fstat, futimens,
    major, minor, mkdirat, openat,
};
use rustix::io::Errno;

use super::directory::{Directory, failure};
use super::{Options, shown};
use crate::failure::Failure;

/// The directory of root's lock. Gone after a boot, as every lock is.
pub(super) const DIRECTORY: &str = "/run/runsmith";

/// The file in it.
const FILE: &str = ".apply.lock";

/// How long a run waits for one other. Thousands of services take seconds to put on disk: who holds the
/// lock for a minute, and has not said that it takes longer, is stuck, or is not one of ours.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// No run says that it takes longer than this. What lies further ahead was written before the clock was set back.
const LONGEST: Duration = Duration::from_secs(3600);

/// The lock of a run; it is released when this is dropped, or the process is gone.
#[derive(Debug, Default)]
pub(super) struct Lock {
    fd: Option<OwnedFd>,
    /// Only root can open it: what it says is what a run of root's has said.
    is_private: bool,
}

impl Lock {
    /// Tells those who wait that this run waits itself, up to `limit`, for a service that is to go; they have [`PATIENCE`] after
    /// that. It holds until what is returned is dropped.
    ///
    /// The time of the last change of the file says it. Where it cannot be set, they fail earlier, and may be run again.
    pub(super) fn takes(&self, limit: Duration) -> Takes<'_> {
        self.set(limit.min(LONGEST));
        Takes(self)
    }

    fn set(&self, limit: Duration) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = since.saturating_add(limit).as_secs();
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let until = Timespec { tv_sec: i64::try_from(until).unwrap_or(0), tv_nsec: 0 };
        if let Some(fd) = self.fd.as_ref().filter(|_| self.is_private) {
            let _ = futimens(fd, &Timestamps { last_access: omitted, last_modification: until });
        }
    }
}

/// What a run waits for has not ended.
#[must_use]
pub(super) struct Takes<'a>(&'a Lock);

impl Drop for Takes<'_> {
    fn drop(&mut self) {
        self.0.set(Duration::ZERO);
    }
}

/// Keeps other runs away until what is returned is dropped, or the process is gone.
pub(super) fn hold(root: &Directory, options: &Options<'_>) -> Result<Lock, Failure> {
    let private = if rustix::process::geteuid().is_root() { private(options.locks)? } else { None };
    let is_private = private.is_some();
    let (fd, path) = match private {
        Some(found) => found,
        None => on(root)?,
    };
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Lock { fd: Some(fd), is_private }),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failure("lock", path, error)),
    }
    let mut seen = holder(&fd);
    let say = |pid| (options.waiting)(&format!("{} holds {path}", named(pid)));
    say(seen);
    let waiting = fd.try_clone().map_err(|error| Failure::path("lock", &path, error))?;
    let waiting = waiter(waiting);
    let mut limit = options.patience;
    loop {
        match waiting.recv_timeout(limit) {
            // The lock is that of the open file, so it stays when the thread closes its own descriptor.
            Ok(Ok(())) => return Ok(Lock { fd: Some(fd), is_private }),
            Ok(Err(error)) => return Err(failure("lock", path, error)),
            Err(_) => {}
        }
        let now = holder(&fd);
        let more = remaining(&fd).map(|rest| rest + options.patience);
        // Whoever may read ROOT can hold a lock on it, one process after the other, for ever.
        let goes_on = is_private && (more.is_some() || (now.is_some() && now != seen));
        if !goes_on {
            let waited = limit.as_secs();
            return Err(Failure::path("lock", path, format!("{} has held it for {waited} s", named(now))));
        }
        if now != seen {
            say(now);
        }
        seen = now;
        limit = more.unwrap_or(options.patience);
    }
}

/// How long the holder of a lock has said that it still takes; nothing if that has passed.
fn remaining(fd: &OwnedFd) -> Option<Duration> {
    let stat = fstat(fd).ok()?;
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).ok()?);
    until.duration_since(SystemTime::now()).ok().filter(|rest| !rest.is_zero() && *rest <= LONGEST)
}

/// Waits until nobody else holds a lock; nothing if that takes longer than `limit`.
pub(super) fn wait(fd: OwnedFd, limit: Duration) -> Option<Result<(), Errno>> {
    waiter(fd).recv_timeout(limit).ok()
}

/// Gets how it went, once nobody else holds a lock.
///
/// The kernel wakes whoever waits in line; a thread of its own, because that call knows no time-out.
/// Where the patience ends first, the thread and its descriptor go with the process, which then fails.
fn waiter(fd: OwnedFd) -> mpsc::Receiver<Result<(), Errno>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let locked = loop {
            match flock(&fd, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                locked => break locked,
            }
        };
        let _ = sender.send(locked);
    });
    receiver
}

/// Opens the file that only root can open, made where it is missing, and says its path; nothing
/// where that cannot be.
fn private(directory: &Path) -> Result<Option<(OwnedFd, String)>, Failure> {
    let opened = directory_of_root(directory).and_then(|dir| {
        let stat = fstat(&dir)?;
        let safe = stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
        // Reading is enough to lock, and is possible where the file is there and nothing can be written.
        let flags = OFlags::RDONLY
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        if safe { openat(&dir, FILE, flags, Mode::from_raw_mode(0o600)).map(Some) } else { Ok(None) }
    });
    let path = shown(directory);
    match opened {
        Ok(Some(fd)) => Ok(Some((fd, format!("{path}/{FILE}")))),
        Ok(None) => Err(Failure::path(
            "lock",
            path,
            "others than root can write here; let root own it, with mode 0755",
        )),
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::NOENT) => Ok(None),
        Err(error) => Err(failure("lock", format!("{path}/{FILE}"), error)),
    }
}

fn directory_of_root(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(CWD, path, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mode = Mode::from_raw_mode(0o755);
    match mkdirat(CWD, path, mode) {
        Err(Errno::EXIST) => open(),
        Err(error) => Err(error),
        Ok(()) => {
            let dir = open()?;
            // Whatever the umask is.
            fchmod(&dir, mode)?;
            Ok(dir)
        }
    }
}

/// Opens ROOT anew: the lock lasts as long as this descriptor, whatever is cloned elsewhere.
fn on(root: &Directory) -> Result<(OwnedFd, String), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = root.path().to_owned();
    match openat(root.fd(), ".", flags, Mode::empty()) {
        Ok(fd) => Ok((fd, path)),
        Err(error) => Err(failure("lock", path, error)),
    }
}

/// Who has locked it, as far as `/proc/locks` tells: it knows nothing of processes in other
/// containers, and on some file systems (btrfs) it has another device than `stat`.
fn holder(fd: &OwnedFd) -> Option<u32> {
    /// The kernel may leave out lines of a list that changes while it is read.
    const LOOKS: usize = 5;
    fstat(fd).ok().and_then(|stat| (0..LOOKS).find_map(|_| holder_of(stat.st_dev, stat.st_ino)))
}

fn named(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another run".to_owned(), |pid| format!("process {pid}"))
}

/// The process that has locked a file by flock(2), as the kernel's table has it (proc_locks(5)). Anybody can make that long: no more of
/// it is read than some hundred thousand locks take.
pub fn holder_of(device: u64, inode: u64) -> Option<u32> {
    const MOST: u64 = 8 << 20;
    let mut table = String::new();
    std::fs::File::open("/proc/locks").ok()?.take(MOST).read_to_string(&mut table).ok()?;
    pid_in(&table, &format!("{:02x}:{:02x}:{inode}", major(device), minor(device)))
}

/// The process that holds a file; lines with an arrow are those who wait for it.
fn pid_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, held, ..] if held == file => pid.parse().ok().filter(|pid| *pid > 0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 fe:00:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 fe:00:13 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE -1 fe:00:14 0 EOF\n";
        assert_eq!(pid_in(locks, "fe:00:12"), Some(4711));
        for file in ["fe:00:13", "fe:00:14", "fe:00:1"] {
            assert_eq!(pid_in(locks, file), None, "{file}");
        }
    }
}
