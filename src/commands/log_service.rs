//! A service's log, as far as a command can see it: where it is, and whether its log service takes lines.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, fstatvfs, statat};

use super::target::Target;
use crate::disk;
use crate::host;
use crate::model::input::LogKind;
use crate::report::status::Log;
use crate::runtime::linux::process;
use crate::runtime::linux::runsv::{Supervised, Wanted, supervised, wanted};
use crate::runtime::protocol::{Problem, Status};

/// How long a log service that has just started may take until svlogd has its lock: it opens a few files.
const LOCKED: Duration = Duration::from_secs(1);

/// How long it may take to find out, as the application's user, where links of that user's lead.
const RESOLVED: Duration = Duration::from_secs(5);

/// Between two looks at a log service that starts: nothing reports that it has its lock.
const LOOK: Duration = Duration::from_millis(50);

/// The log of a service, and what is wrong with its log service. `detailed`: what `sv status` says of it is asked for
/// even if all is well.
pub(super) fn look(target: &Target, status: &Status, detailed: bool) -> (Log, Option<Problem>) {
    let Some((kind, directory)) = &target.log else { return (Log::default(), None) };
    let log = |path: String| Log { path: Some(path), ..Log::default() };
    match kind {
        LogKind::None => {
            let note = "none of its own: its output goes where runsv's goes, usually to runsvdir";
            (Log { note: Some(note.to_owned()), ..Log::default() }, None)
        }
        LogKind::Files => {
            let files = Path::new(directory).parent().unwrap_or(Path::new(directory));
            let note = "the server's files; the runtime's lines go where runsv's output goes";
            (Log { note: Some(note.to_owned()), ..log(files.display().to_string()) }, None)
        }
        LogKind::Svlogd => {
            let mut log = log(format!("{directory}/current"));
            let service = target.directory.join("log");
            let place = Directory { target, path: directory, opened: OnceCell::new() };
            let mut problem = trouble(&service, &place, status);
            let stuck = status.problems.iter().any(|problem| problem.code == "log");
            if problem.is_none() {
                problem = obstacle(&service, &place, stuck);
            }
            // Only root may look into `supervise`.
            if (detailed || stuck || problem.is_some()) && rustix::process::geteuid().is_root() {
                log.service = sv_status(&service);
            }
            (log, problem)
        }
    }
}

/// The directory of a service's log.
struct Directory<'a> {
    target: &'a Target,
    path: &'a str,
    /// Once it was to be looked at; or why it cannot be, in words that follow the path.
    opened: OnceCell<Result<OwnedFd, String>>,
}

impl Directory<'_> {
    fn opened(&self) -> Result<&OwnedFd, &str> {
        self.opened.get_or_init(|| open(self.target, self.path)).as_ref().map_err(String::as_str)
    }

    fn lock(&self) -> String {
        format!("{}/{LOCK}", self.path)
    }

    /// Who holds svlogd's lock, by flock(2). The directory is the application's user's: nothing in it is opened.
    fn holder(&self) -> Option<u32> {
        let found = statat(self.opened().ok()?, LOCK, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        disk::holder_of(found.st_dev, found.st_ino)
    }
}

/// The name of svlogd's lock in the directory of its log (svlogd(8)).
const LOCK: &str = "lock";

/// Opens the directory of a log. The application's user can have put links on the way: they are followed to where that user
/// finds svlogd's lock.
fn open(target: &Target, path: &str) -> Result<OwnedFd, String> {
    let failure = match disk::open_directory(path) {
        Ok(opened) => return opened.ok_or_else(|| " is not there".to_owned()),
        Err(failure) => failure,
    };
    let real = || {
        let identity = host::identity_of(target.service.as_deref()?).ok()?;
        let lock = host::real_path(&identity, &format!("{path}/{LOCK}"), RESOLVED)?;
        Some(lock.rsplit_once('/')?.0.to_owned())
    };
    let opened = real().and_then(|real| disk::open_directory(&real).ok()?);
    opened.ok_or_else(|| format!(": {failure}"))
}

/// What keeps the log service from running.
fn trouble(service: &Path, directory: &Directory<'_>, status: &Status) -> Option<Problem> {
    if status.runtime_pid == 0 || !rustix::process::geteuid().is_root() {
        return None;
    }
    let shown = service.display();
    let problem = |message: String| Some(Problem::new("log-service", message));
    let until = Instant::now() + LOCKED;
    loop {
        let reason = match (wanted(&service.display().to_string()), supervised(service)) {
            (Wanted::Unknown | Wanted::Hidden, _) | (_, None) => {
                return problem(format!(
                    "no runsv runs the log service {shown}; a `log` that is newer than runsv takes `sv exit` and `sv up`"
                ));
            }
            (Wanted::Down, Some(Supervised { pid: None })) => {
                return problem(format!("the log service is down; `sv up {shown}` starts it"));
            }
            (_, Some(Supervised { pid: Some(pid) })) if directory.holder() == Some(pid) => return None,
            (_, Some(Supervised { pid })) => no_lock(pid, directory),
        };
        if Instant::now() >= until {
            return problem(format!("the log service does not run: {reason}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Why svlogd has no lock.
fn no_lock(pid: Option<u32>, directory: &Directory<'_>) -> String {
    let lock = directory.lock();
    if let Some(holder) = directory.holder().filter(|holder| Some(*holder) != pid) {
        return format!("process {holder} holds its lock {lock}");
    }
    match directory.opened() {
        Err(reason) => format!("{}{reason}", directory.path),
        Ok(_) => {
            format!("svlogd ends before it has its lock {lock}; runsvdir's output has its reason")
        }
    }
}

/// Why a log service that runs takes no lines, or soon will not. `stuck`: lines are being dropped.
fn obstacle(service: &Path, directory: &Directory<'_>, stuck: bool) -> Option<Problem> {
    let pid = supervised(service)?.pid?;
    let stat = process::stat(pid)?;
    let reason = if matches!(stat.state, b'T' | b't') {
        format!("svlogd, process {pid}, is stopped; `sv cont {}` continues it", service.display())
    } else if !stuck {
        return None;
    } else {
        match directory.opened() {
            Ok(fd) if fstatvfs(fd).is_ok_and(|found| found.f_bavail == 0 || found.f_favail == 0) => {
                format!("the file system of {} is full", directory.path)
            }
            Ok(_) => format!("svlogd, process {pid}, does not read; runsvdir's output has its reason"),
            Err(reason) => format!("{}{reason}", directory.path),
        }
    };
    Some(Problem::new("log-service", reason))
}

/// What `sv status` says.
fn sv_status(service: &Path) -> Option<String> {
    let output =
        Command::new("sv").arg("status").arg(service).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = String::from_utf8_lossy(&output.ok()?.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
