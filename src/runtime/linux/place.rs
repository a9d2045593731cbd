//! The run directory (`layout.run`, `/run/runsmith/APPLICATION`): what is kept there, and who else is at work.
//!
//! Only root can have changed anything on the way to it and in it; that is proven before anything there is believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags, fallocate, flock, renameat_with};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::kernel;
use super::process::Process;
use crate::host::look;
use crate::runtime::state::LONGEST;

/// The file that says why a run could not begin.
const FAILURE: &str = "failure";

/// The state.
pub const STATE: &str = "state.json";

/// The directory itself, as a name in it.
pub const DIRECTORY: &str = ".";

/// What is written next, and before that keeps the room for it.
const SPARE: &str = "state.json.new";

/// A state file takes a multiple of this, in bytes: a page, and a block of the usual file systems.
const BLOCK: usize = 4096;

/// Which process the keeper is.
pub const KEEPER: &str = "keeper.pid";

/// That file is never longer, in bytes.
const LONGEST_KEEPER: u64 = 256;

/// How long an earlier runtime may take to leave, once its runsv is gone or it was told to: it only has to write a file.
const FAREWELL: Duration = Duration::from_secs(20);

/// So many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// The run directory, proven.
pub struct Place {
    path: PathBuf,
    /// Held as long as this runtime lives.
    lock: Option<File>,
}

impl Place {
    /// Makes the directory if need be, and proves it. The error is the end of a sentence.
    pub fn open(path: &str) -> Result<Self, String> {
        let shown = Path::new(path);
        make(shown).map_err(|reason| format!("the run directory {path} cannot be used: {reason}"))?;
        trusted(shown).map_err(|reason| format!("the run directory {path} cannot be used: {reason}"))?;
        Ok(Self { path: shown.to_owned(), lock: None })
    }

    /// The directory as it is, for whoever only looks.
    pub fn existing(path: &str) -> Option<Self> {
        let path = Path::new(path);
        // Nothing is looked at beyond a step that somebody else could lead elsewhere.
        trusted(path).is_ok().then(|| Self { path: path.to_owned(), lock: None })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// The same; the error says why it cannot be used. A directory that is not there is as good as an empty one.
    pub fn examined(path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        if look::place(path).is_ok() {
            trusted(path)
                .map_err(|reason| format!("the run directory {} cannot be used: {reason}", path.display()))?;
        }
        Ok(Self { path: path.to_owned(), lock: None })
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
        file.take(LONGEST).read_to_string(&mut text).ok()?;
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
                Some(process) => drop(process.await_end(left)),
                // It has just taken the lock and not said so, or has just ended.
                None => std::thread::yield_now(),
            }
        }
        self.take_lock(file);
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
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.file(STATE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Keeps what the next run needs, whole or not at all. It need not survive a reboot, so nothing is synced.
    ///
    /// Two files take turns, so that a disk that has filled up is no reason to keep nothing: the room that the new state takes is
    /// there already. Line ends fill the rest of a file.
    pub fn keep_state(&self, text: &str) -> io::Result<()> {
        let spare = self.file(SPARE);
        let written = self.write_spare(&spare, text);
        if let Err(error) = written.and_then(|()| self.exchange(&spare)) {
            let _ = fs::remove_file(&spare);
            return Err(error);
        }
        // Room for the next one, now that there is some; if there is none, the next one has what is free by then.
        let _ = reserve(&spare, text.len());
        Ok(())
    }

    fn write_spare(&self, spare: &Path, text: &str) -> io::Result<()> {
        let mut file = reserve(spare, text.len())?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length.max(bytes.len()), b'\n');
        file.write_all(&bytes)
    }

    /// The new state and the old one change places.
    fn exchange(&self, spare: &Path) -> io::Result<()> {
        let state = self.file(STATE);
        match renameat_with(CWD, spare, CWD, &state, RenameFlags::EXCHANGE) {
            // There is no old one, or the file system cannot do that.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(spare, &state),
            other => Ok(other?),
        }
    }

    /// Writes down which process the keeper is, for a run that finds no state.
    pub fn keep_keeper(&self, (pid, start): (u32, u64), boot: &str) -> io::Result<()> {
        // Always of one length, so that it can be written over on a full disk.
        let text = format!("{pid:<10} {start:<20} {boot}\n");
        self.own_file(KEEPER)?.write_all(text.as_bytes())
    }

    /// The keeper that an earlier run has written down, if that was since this start of the machine: number and start.
    pub fn recorded_keeper(&self, boot: &str) -> Option<(u32, u64)> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.file(KEEPER)).ok()?;
        let mut text = String::new();
        file.take(LONGEST_KEEPER).read_to_string(&mut text).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (pid, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (words.next() == Some(boot)).then_some((pid, start))
    }

    /// Device and inode of what has this name here.
    pub fn node(&self, name: &str) -> Option<(u64, u64)> {
        fs::symlink_metadata(self.file(name)).ok().map(|found| (found.dev(), found.ino()))
    }

    /// Whether the lock that this runtime holds is still the one that others would find.
    pub fn has_lock(&self) -> bool {
        let held = self.lock.as_ref().and_then(|lock| lock.metadata().ok());
        held.map(|held| (held.dev(), held.ino())) == self.node("lock")
    }

    /// Makes the directory and the lock again, where somebody has taken them away. The error is the end of a sentence.
    pub fn restore(&mut self) -> Result<(), String> {
        make(&self.path)?;
        trusted(&self.path)?;
        if self.has_lock() {
            return Ok(());
        }
        let file = self.own_file("lock").map_err(|error| format!("lock: {error}"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| "lock: another runtime of this service holds it".to_owned())?;
        self.take_lock(file);
        Ok(())
    }

    fn take_lock(&mut self, file: File) {
        let number = std::process::id().to_string();
        let written = file.set_len(0).and_then(|()| (&file).write_all(number.as_bytes()));
        // A full disk: whoever waits for us is told a wrong number, and no more.
        let _ = written;
        self.lock = Some(file);
    }

    /// Writes a file that the members of a group may read.
    pub fn write_for(&self, path: &Path, text: &[u8], group: u32) -> io::Result<()> {
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
        std::os::unix::fs::fchown(&file, None, Some(group))?;
        file.write_all(text)
    }

    /// Takes away what this runtime has made here, and the directory if nothing else is in it.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = [STATE, SPARE, "before.json", "ready", "control", "keeper", KEEPER, "lock", FAILURE];
            let numbered = ["probe.", "generation.", "config."];
            if ours.contains(&&*name) || numbered.iter().any(|begin| name.starts_with(begin)) {
                let _ = fs::remove_file(entry.path());
            } else if name == "secrets" || name.starts_with("secrets.") {
                let _ = super::secret_files::remove(&entry.path());
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
        if user.is_some() {
            // Where the kernel cannot, taking a message is interrupted (see `kernel`).
            kernel::refuse_rights(&socket);
        }
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

/// The file that is written next, with room for a state of so many bytes and for one that is a little longer.
fn reserve(spare: &Path, length: usize) -> io::Result<File> {
    let is_file = fs::symlink_metadata(spare).map(|found| found.is_file());
    if is_file.is_ok_and(|is_file| !is_file) {
        // What somebody has put in the state's place comes here by the exchange.
        fs::remove_file(spare).or_else(|_| fs::remove_dir(spare))?;
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let file =
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(spare)?;
    let room = (length + length / 2).next_multiple_of(BLOCK) as u64;
    let mut is = file.metadata()?.len();
    if is > 4 * room {
        // A file that somebody else has made may be of any length.
        file.set_len(room)?;
        is = room;
    }
    match fallocate(&file, FallocateFlags::empty(), 0, room.max(is)) {
        // It is written as far as there is room.
        Err(Errno::NOSPC | Errno::OPNOTSUPP) => {}
        other => other?,
    }
    Ok(file)
}

/// Makes a directory and what leads to it. Nothing is made where somebody else could have it made elsewhere: each step is
/// proven before the next one is taken from there.
fn make(directory: &Path) -> Result<(), String> {
    if look::is_there(directory) {
        return Ok(());
    }
    let above = directory.parent().ok_or("it is not a path")?;
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

/// `last`: others may not even add something to the directory itself. Each directory and each link on the way is looked at, also those
/// that links lead through: one that root has made may lead to one that somebody else has made.
fn proven(directory: &Path, last: bool) -> Result<(), String> {
    /// As many as the kernel follows (path_resolution(7)).
    const MOST_LINKS: usize = 40;
    let me = rustix::process::geteuid().as_raw();
    let steps =
        |path: &Path| path.components().rev().map(|step| step.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut left = steps(directory);
    if left.is_empty() {
        return Err("it is not a path".to_owned());
    }
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(step) = left.pop() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&step);
        let shown = next.display();
        let found = fs::symlink_metadata(&next).map_err(|error| format!("{shown}: {error}"))?;
        if found.is_symlink() {
            links += 1;
            if found.uid() != 0 {
                return Err(format!("{shown} is a link that somebody other than root has made"));
            }
            if links > MOST_LINKS {
                return Err(format!("{shown}: too many links"));
            }
            // The system's own, such as /var/run.
            let target = fs::read_link(&next).map_err(|error| format!("{shown}: {error}"))?;
            if target.is_absolute() {
                at = PathBuf::new();
            }
            left.extend(steps(&target));
            continue;
        }
        let is_last = last && left.is_empty();
        if !found.is_dir() {
            return Err(format!("{shown} is no directory"));
        } else if found.uid() != 0 && found.uid() != me {
            return Err(format!("{shown} belongs to somebody other than root"));
        } else if found.mode() & 0o022 != 0 && (is_last || found.mode() & 0o1000 == 0) {
            return Err(format!("others may write to {shown}"));
        }
        at = next;
    }
    Ok(())
}
