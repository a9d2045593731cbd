//! What runsv has recorded about a service.
//!
//! runsv starts a run first and records it afterwards. Until then its records are about the time before: `sv down` has nothing
//! to stop and succeeds, and `supervise/pid` names the run that has ended. On a busy machine that takes long enough to be seen.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use super::SOON;
use super::host::lives;

/// The last record: `supervise/status` (runit 2.1.2, runsv.c, update_status), which is written after `supervise/pid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was made, as TAI64N.
    made: [u8; 12],
    /// The process that runs; 0 if there is none.
    pub pid: u32,
    /// `u` or `d`.
    pub wanted: u8,
    /// 0 down, 1 `run`, 2 `finish`.
    pub state: u8,
}

/// What is recorded about the service in this directory; none if no runsv has been there.
pub fn record(service: &Path) -> Option<Record> {
    let bytes: [u8; 20] = fs::read(service.join("supervise/status")).ok()?.try_into().ok()?;
    let made = bytes[..12].try_into().ok()?;
    let pid = u32::from_le_bytes(bytes[12..16].try_into().ok()?);
    Some(Record { made, pid, wanted: bytes[17], state: bytes[19] })
}

/// Waits until a record is as it is to be, and gives it. Each new record is an event: it comes by a rename.
pub fn until_recorded(service: &Path, what: &str, mut is: impl FnMut(&Record) -> bool) -> Record {
    /// A process can also end or begin to live without a record.
    const LOOK: Duration = Duration::from_millis(200);
    let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
    let until = Instant::now() + SOON;
    let mut is_watched = false;
    loop {
        if !is_watched {
            is_watched = add_watch(&events, service.join("supervise"), WatchFlags::MOVED_TO).is_ok();
        }
        let found = record(service);
        if let Some(found) = found.filter(|found| is(found)) {
            return found;
        }
        assert!(Instant::now() < until, "{}: not within {SOON:?}: {what}; {found:?}", service.display());
        // An interruption is no more than another look.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&LOOK.try_into().expect("a time")));
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&events, &mut buffer);
        while reader.next().is_ok() {}
    }
}

/// Waits until a runsv that was just started answers `sv`: `sv start` may be asked then, and nothing else.
pub fn until_answers(service: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    // sv can speak to runsv once runsv reads this FIFO; there is nothing to wait on before that.
    let ok = service.join("supervise/ok");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let until = Instant::now() + SOON;
    while fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&ok).is_err() {
        assert!(Instant::now() < until, "runsv does not read {}", ok.display());
        std::thread::yield_now();
    }
}

/// The same, and until it has recorded its first run, unless the service is down at first.
pub fn until_supervised(service: &Path) {
    until_answers(service);
    if service.join("down").exists() {
        return;
    }
    // The first record says that nothing runs; a run that has ended since has left another one.
    let first = record(service);
    until_recorded(service, "the first run is recorded", |found| found.state != 0 || Some(*found) != first);
}

/// The process that runsv runs now, once it is recorded.
pub fn running(service: &Path) -> u32 {
    until_recorded(service, "a run is recorded", |found| found.state == 1 && lives(found.pid)).pid
}

/// `sv -w SECONDS COMMAND`. sv knows the new run by its start in whole seconds (docs/operator.md), so `sv restart` asks a run
/// of another second.
pub fn sv(service: &Path, command: &str, seconds: u32) -> Output {
    if command == "restart" {
        until_a_second_old(service);
    }
    Command::new("sv")
        .args(["-w", &seconds.to_string(), command])
        .arg(service)
        .output()
        .expect("sv is missing; run scripts/setup")
}

/// Waits until the run is of an earlier second than now, as sv counts them.
pub fn until_a_second_old(service: &Path) {
    until_recorded(service, "the run is a second old", |found| {
        if found.state != 1 {
            return false;
        }
        let status = Command::new("sv").arg("status").arg(service).output().expect("sv");
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        text.starts_with("run:") && !text.contains(") 0s")
    });
}
