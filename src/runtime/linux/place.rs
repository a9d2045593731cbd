//! The run directory (`layout.run`, `/run/runsmith/APPLICATION`): what is kept there, and who else is at work.
//!
//! Only root can have changed anything on the way to it and in it; that is proven before anything there is believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::process::Process;

/// A state file is never longer, in bytes; a longer one is not ours.
const LONGEST_STATE: u64 = 1 << 20;

/// The file that says why a run could not begin.
const FAILURE: &str = "failure";

/// How long an earlier runtime may take to leave, once its runsv is gone or it was told to: it only has to write a file.
const FAREWELL: Duration = Duration::from_secs(20);

/// So many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// The run directory, proven.
pub struct Place {
    path: PathBuf,
    /// Held as long as this runtime lives.
    _lock: Option<File>,
}

impl Place {
    /// Makes the directory if need be, and proves it. The error is the end of a sentence.
    pub fn open(path: &str) -> Result<Self, String> {
        let shown = Path::new(path);
        make(shown).map_err(|reason| format!("the run directory {path} cannot be used: {reason}"))?;
        trusted(shown).map_err(|reason| format!("the run directory {path} cannot be used: {reason}"))?;
        Ok(Self { path: shown.to_owned(), _lock: None })
    }

    /// The directory as it is, for whoever only looks.
    pub fn existing(path: &str) -> Option<Self> {
        let path = Path::new(path);
        (path.is_dir() && trusted(path).is_ok()).then(|| Self { path: path.to_owned(), _lock: None })
    }

    /// The same; the error says why it cannot be used. A directory that is not there is as good as an empty one.
    pub fn examined(path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        if path.exists() {
            trusted(path)
                .map_err(|reason| format!("the run directory {} cannot be used: {reason}", path.display()))?;
        }
        Ok(Self { path: path.to_owned(), _lock: None })
    }

    /// Notes for whoever asks why a run could not begin.
    pub fn note_failure(&self, reason: &str) {
        // Where there is no room, the log has it.
        let _ = self.own_file(FAILURE).and_then(|mut file| {
            file.set_len(0)?;
            file.write_all(reason.as_bytes())
        });
    }

    /// A run has begun, or none is wanted any more.
    pub fn forget_failure(&self) {
        let _ = fs::remove_file(self.file(FAILURE));
    }

    /// Why the last run could not begin, and when that was; none if it has begun.
    pub fn failure(&self) -> Option<(String, SystemTime)> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.file(FAILURE)).ok()?;
        let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
        let mut text = String::new();
        file.take(LONGEST_STATE).read_to_string(&mut text).ok()?;
        Some((text, found.modified().ok()?))
    }

    /// A path in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until no other runtime of this service is at work; `waiting` is told of the one that is.
    pub fn lock(&mut self, mut waiting: impl FnMut(u32)) -> Result<(), String> {
        let path = self.file("lock");
        let file = self.own_file("lock").map_err(|error| format!("{}: {error}", path.display()))?;
        let until = Instant::now() + FAREWELL;
        let mut told = false;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(format!("{} cannot be locked: {error}", path.display()));
            }
            let mut text = String::new();
            let _ = File::open(&path).and_then(|file| file.take(20).read_to_string(&mut text));
            let pid = text.trim().parse().unwrap_or(0);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("another runtime of this service, pid {pid}, is at work"));
            }
            if !told {
                waiting(pid);
                told = true;
            }
            match Process::open(pid) {
                Some(process) => await_end(&process, left),
                // It has just taken the lock and not said so, or has just ended.
                None => std::thread::yield_now(),
            }
        }
        let number = std::process::id().to_string();
        let written = file.set_len(0).and_then(|()| (&file).write_all(number.as_bytes()));
        // A full disk: whoever waits for us is told a wrong number, and no more.
        let _ = written;
        self._lock = Some(file);
        Ok(())
    }

    fn own_file(&self, name: &str) -> io::Result<File> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        OpenOptions::new()
            .write(true)
            .read(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(self.file(name))
    }

    /// What an earlier run has kept; none if there is nothing.
    pub fn state(&self) -> io::Result<Option<String>> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.file("state.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = String::new();
        file.take(LONGEST_STATE).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Keeps what the next run needs, whole or not at all. It need not survive a reboot, so nothing is synced.
    pub fn keep_state(&self, text: &str) -> io::Result<()> {
        let new = self.file("state.json.new");
        let write = || {
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, self.file("state.json"))
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Takes away what this runtime has made here, and the directory if nothing else is in it.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = ["state.json", "state.json.new", "ready", "control", "keeper", "lock", FAILURE];
            if ours.contains(&&*name) || name.starts_with("probe.") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// A socket with this name, made anew: of this kind, for this user alone (and root), if one is given.
    pub fn socket(&self, name: &str, kind: SocketType, user: Option<u32>) -> io::Result<OwnedFd> {
        let path = self.file(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::Error::other("a directory is in its place")),
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        // Nobody but root can have put anything else there meanwhile.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some(user) = user {
            self.give(name, user)?;
        }
        if kind != SocketType::DGRAM {
            listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    }

    /// Gives a socket in it to another user, who may then connect.
    pub fn give(&self, name: &str, user: u32) -> io::Result<()> {
        std::os::unix::fs::lchown(self.file(name), Some(user), None)
    }

    /// Connects to a socket in it.
    pub fn connect(&self, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(self.file(name))?)?;
        Ok(socket)
    }
}

fn await_end(process: &Process, limit: Duration) {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&limit));
}

/// Makes a directory and what leads to it. Nothing is made where somebody else could have it made elsewhere: each step is
/// proven before the next one is taken from there.
fn make(directory: &Path) -> Result<(), String> {
    if fs::symlink_metadata(directory).is_ok() {
        return Ok(());
    }
    let above = directory.parent().ok_or("it is no path")?;
    make(above)?;
    proven(above, false)?;
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("{} cannot be made: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Whether only root, or whoever this runtime is, can have changed what is in this directory and what leads there.
///
/// A directory with the sticky bit on the way is fine: others cannot rename what root has in it.
pub fn trusted(directory: &Path) -> Result<(), String> {
    proven(directory, true)
}

/// `last`: others may not even add something to the directory itself.
fn proven(directory: &Path, mut last: bool) -> Result<(), String> {
    let me = rustix::process::geteuid().as_raw();
    for step in directory.ancestors() {
        let found = fs::symlink_metadata(step).map_err(|error| format!("{}: {error}", step.display()))?;
        if found.is_symlink() {
            // The system's own, such as /var/run, lead where only root can have put something.
            let target = fs::canonicalize(step).map_err(|error| format!("{}: {error}", step.display()))?;
            if found.uid() != 0 {
                return Err(format!("{} is a link that somebody other than root has made", step.display()));
            }
            proven(&target, last)?;
        } else if !found.is_dir() {
            return Err(format!("{} is no directory", step.display()));
        } else if found.uid() != 0 && found.uid() != me {
            return Err(format!("{} belongs to somebody other than root", step.display()));
        } else if found.mode() & 0o022 != 0 && (last || found.mode() & 0o1000 == 0) {
            return Err(format!("others may write to {}", step.display()));
        }
        last = false;
    }
    Ok(())
}
