//! A service's log, as far as a command can see it: where it is, and whether its log service takes lines.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;

use super::target::Target;
use crate::disk;
use crate::host::look;
use crate::model::input::LogKind;
use crate::report::status::Log;
use crate::runtime::linux::process;
use crate::runtime::linux::runsv::{Supervised, Wanted, supervised, wanted};
use crate::runtime::protocol::{Problem, Status};

/// How long a log service that has just started may take until svlogd has its lock: it opens a few files.
const LOCKED: Duration = Duration::from_secs(1);

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
            let mut problem = trouble(&service, Path::new(directory), status);
            let stuck = status.problems.iter().any(|problem| problem.code == "log");
            if problem.is_none() {
                problem = obstacle(&service, Path::new(directory), stuck);
            }
            // Only root may look into `supervise`.
            if (detailed || stuck || problem.is_some()) && rustix::process::geteuid().is_root() {
                log.service = sv_status(&service);
            }
            (log, problem)
        }
    }
}

/// What keeps the log service from running.
fn trouble(service: &Path, directory: &Path, status: &Status) -> Option<Problem> {
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
            (_, Some(Supervised { pid: Some(pid) })) if holds_lock(pid, directory) => return None,
            (_, Some(Supervised { pid })) => no_lock(pid, directory),
        };
        if Instant::now() >= until {
            return problem(format!("the log service does not run: {reason}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Why svlogd has no lock.
fn no_lock(pid: Option<u32>, directory: &Path) -> String {
    let lock = directory.join("lock");
    if let Some(holder) = holder(&lock).filter(|holder| Some(*holder) != pid) {
        return format!("process {holder} holds its lock {}", lock.display());
    }
    match look::place(directory).map_err(std::io::Error::from) {
        Err(error) => format!("{}: {error}", directory.display()),
        Ok(_) => {
            format!("svlogd ends before it has its lock {}; runsvdir's output has its reason", lock.display())
        }
    }
}

/// Why a log service that runs takes no lines, or soon will not. `stuck`: lines are being dropped.
fn obstacle(service: &Path, directory: &Path, stuck: bool) -> Option<Problem> {
    let pid = supervised(service)?.pid?;
    let stat = process::stat(pid)?;
    let reason = if matches!(stat.state, b'T' | b't') {
        format!("svlogd, process {pid}, is stopped; `sv cont {}` continues it", service.display())
    } else if !stuck {
        return None;
    } else {
        match look::place(directory) {
            Err(_) => format!("{} is not there", directory.display()),
            Ok(place) if fstatvfs(&place).is_ok_and(|found| found.f_bavail == 0 || found.f_favail == 0) => {
                format!("the file system of {} is full", directory.display())
            }
            Ok(_) => format!("svlogd, process {pid}, does not read; runsvdir's output has its reason"),
        }
    };
    Some(Problem::new("log-service", reason))
}

/// Whether a process holds the lock of a log directory (svlogd(8)).
fn holds_lock(pid: u32, directory: &Path) -> bool {
    holder(&directory.join("lock")) == Some(pid)
}

/// Who holds a lock by flock(2).
fn holder(lock: &Path) -> Option<u32> {
    // The directory is the application's user's: nothing in it is opened.
    let (device, inode) = look::node(&look::at(lock).ok()?);
    disk::holder_of(device, inode)
}

/// What `sv status` says.
fn sv_status(service: &Path) -> Option<String> {
    let output =
        Command::new("sv").arg("status").arg(service).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = String::from_utf8_lossy(&output.ok()?.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
