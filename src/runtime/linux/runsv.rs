//! What runsv, the parent, has written down and is.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::process::{Process, stat};

/// The service's wish, as runsv keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is to run.
    Up,
    /// It is to end; or, while nobody has told it to, to run this once.
    Down,
    /// There is no runsv.
    Unknown,
    /// Only root may read it.
    Hidden,
}

/// Byte 17 of `supervise/status`, which runsv writes before it signals (runit 2.1.2, runsv.c): how `sv restart` is told from `sv down`.
///
/// The file stays when runsv dies, so it is read only if somebody has `supervise/ok` open for reading,
/// which is what sv asks first (runit 2.1.2, sv.c, svstatus_get).
pub fn wanted(directory: &str) -> Wanted {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(CWD, format!("{directory}/supervise/ok"), flags, Mode::empty()) {
        Ok(_) => {}
        Err(Errno::ACCESS) => return Wanted::Hidden,
        Err(_) => return Wanted::Unknown,
    }
    // It is there, whole, before `ok` is, and another one takes its place by a rename: what fails
    // once, for want of descriptors say, is no word about runsv.
    match wish(directory).or_else(|_| wish(directory)) {
        Ok(b'u') => Wanted::Up,
        Ok(b'd') => Wanted::Down,
        _ => Wanted::Unknown,
    }
}

/// Whether the last runsv wanted the service up, whether or not it is still there. One that is told to exit, or whose link
/// is taken away, writes that it does not; one that is killed, or goes down with the host, leaves what it wanted.
pub fn was_wanted(directory: &str) -> bool {
    wish(directory).is_ok_and(|wish| wish == b'u')
}

fn wish(directory: &str) -> io::Result<u8> {
    Ok(status(directory.as_ref())?[17])
}

/// `supervise/status` (runit 2.1.2, runsv.c, update_status).
fn status(directory: &Path) -> io::Result<[u8; 20]> {
    let mut status = [0; 20];
    fs::File::open(directory.join("supervise/status"))?.read_exact(&mut status)?;
    Ok(status)
}

/// What runsv has started in a service directory, whether or not runsv is still there.
pub struct Supervised {
    /// The process, if one runs: `run` or `finish`.
    pub pid: Option<u32>,
}

/// Looks at it; none if there was no runsv yet, or only root may look.
pub fn supervised(directory: &Path) -> Option<Supervised> {
    let status = status(directory).ok()?;
    let pid = u32::from_le_bytes([status[12], status[13], status[14], status[15]]);
    Some(Supervised { pid: (pid != 0).then_some(pid) })
}

/// Where runsvdir looks, unless SVDIR says otherwise (sv(8)).
pub const SERVICES: &str = "/etc/service";

/// Where Debian keeps services that runsvdir may or may not look at.
pub const ALL: &str = "/etc/sv";

/// How a command that is printed names a service: by its name if that leads to its directory, else by its directory, as one
/// word of a shell. `services`: where links to services are.
pub fn reference(name: &str, directory: &Path, services: &Path) -> String {
    let real = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let found = [services, Path::new(ALL)].into_iter().map(|parent| parent.join(name));
    let first = found.into_iter().find(|found| found.join("run").exists());
    if !name.is_empty() && first.and_then(|first| fs::canonicalize(first).ok()).as_ref() == Some(&real) {
        return name.to_owned();
    }
    word(&std::path::absolute(directory).unwrap_or(real).display().to_string())
}

/// One word of a shell.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./@:+,=-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whoever started this process.
pub struct Parent {
    process: Option<Process>,
    /// It is runsv, so that another run follows when it is gone.
    pub is_runsv: bool,
}

impl Parent {
    /// Looks at it.
    pub fn look() -> Self {
        let pid = parent_pid();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let process = if pid > 1 { Process::open(pid) } else { None };
        Self { is_runsv: name.trim() == "runsv" && process.is_some(), process }
    }

    /// Whether it has gone: then process 1, or whoever takes orphans, is the parent.
    pub fn has_gone(&self) -> bool {
        self.process.as_ref().is_some_and(|process| parent_pid() != process.pid)
    }

    /// Its end has been told.
    pub fn forget(&mut self) {
        self.process = None;
    }

    /// To wait for its end.
    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }
}

fn parent_pid() -> u32 {
    stat(std::process::id()).map_or(1, |stat| stat.parent)
}
