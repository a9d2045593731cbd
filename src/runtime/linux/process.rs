//! Processes: what proves one to be the service's, and how it is signalled.
//!
//! A number alone proves nothing: it may be another process by now. A [`Process`] is a pidfd, taken first, whose start
//! time and user were compared afterwards; what the pidfd means can change no more.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use super::clock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal as Number, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait, waitpid,
};

use crate::host::proc;
pub use crate::host::proc::user_of;
use crate::runtime::server::Signal;

/// What /proc/PID/stat says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `T`, `Z` and so on.
    pub state: u8,
    /// The parent.
    pub parent: u32,
    /// The session.
    pub session: u32,
    /// When it began, in ticks since the machine's start: with the number it names a process for good.
    pub start: u64,
    /// It has run a program since it was forked: masters have, workers are only forked (PF_FORKNOEXEC in the flags).
    pub has_run: bool,
}

/// The kernel's flag of a process that was forked and has run no program since (include/linux/sched.h).
const FORKED_ONLY: u64 = 0x40;

/// A process that was proven to be the service's.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its start time, as [`Stat::start`].
    pub start: u64,
    /// Whose it is, where that was proven: it is signalled only as long as that is so. A program with the setuid bit that it runs
    /// makes it another user's.
    user: Option<u32>,
    fd: OwnedFd,
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// SIGKILL in a mask of signals (proc_pid_status(5)).
const KILLED: u64 = 1 << (9 - 1);

/// What there is of a process, if it lives: a zombie has ended, unless other threads than its first one go on.
pub fn stat(pid: u32) -> Option<Stat> {
    let (mut stat, threads) = read_stat(pid, "stat")?;
    if is_dead(stat.state) {
        // The first thread is shown as a zombie for as long as another one lives (pthread_exit(3) in `main`).
        stat.state = (threads > 1).then(|| living_thread(pid)).flatten()?;
    }
    Some(stat)
}

/// Whether the first thread of a process has ended, and another one lives.
pub fn is_headless(pid: u32) -> bool {
    read_stat(pid, "stat").is_some_and(|(stat, threads)| is_dead(stat.state) && threads > 1)
}

fn is_dead(state: u8) -> bool {
    matches!(state, b'Z' | b'X' | b'x')
}

/// The state of a thread that lives, of a process whose first one does not.
fn living_thread(pid: u32) -> Option<u8> {
    for (count, thread) in proc::threads(pid).enumerate() {
        // One with more threads than are looked at counts as alive.
        if count >= proc::MOST_THREADS {
            return Some(b'S');
        }
        let state = read_stat(pid, &format!("task/{thread}/stat")).map(|(stat, _)| stat.state);
        if let Some(state) = state.filter(|state| !is_dead(*state)) {
            return Some(state);
        }
    }
    None
}

/// A process or thread, and how many threads its process has; also of one that has ended.
fn read_stat(pid: u32, name: &str) -> Option<(Stat, u64)> {
    let bytes = proc::file(pid, name)?;
    let fields: Vec<&str> = proc::behind_name(&bytes)?.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let stat = Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: u32::try_from(number(1)?).ok()?,
        session: u32::try_from(number(3)?).ok()?,
        start: number(19)?,
        has_run: number(6)? & FORKED_ONLY == 0,
    };
    Some((stat, number(17)?))
}

/// Why a process does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// SIGSTOP or the like; SIGCONT continues it.
    BySignal,
    /// This process traces it, a debugger for example.
    ByTracer(u32),
}

/// How long a traced process must not have run to count as stopped: strace(1) stops one for microseconds at each system call.
const TRACE_STOP: Duration = Duration::from_millis(20);

/// So many traced processes are looked at: whoever starts many costs no more than that.
const MOST_TRACED: usize = 64;

/// Those of some processes that are stopped, and by what. However many there are, it waits once.
pub fn stopped(pids: &[u32]) -> Vec<(u32, Stopped)> {
    let mut found = vec![];
    let mut traced = vec![];
    for pid in pids {
        match stat(*pid).map(|stat| stat.state) {
            Some(b'T') => found.push((*pid, Stopped::BySignal)),
            Some(b't') if traced.len() < MOST_TRACED => {
                traced.extend(switches(*pid).map(|before| (*pid, before)))
            }
            _ => {}
        }
    }
    if !traced.is_empty() {
        std::thread::sleep(TRACE_STOP);
        traced.retain(|(pid, before)| {
            stat(*pid).is_some_and(|stat| stat.state == b't') && switches(*pid).as_ref() == Some(before)
        });
        found.extend(traced.into_iter().map(|(pid, (tracer, _, _))| (pid, Stopped::ByTracer(tracer))));
        found.sort_unstable_by_key(|(pid, _)| *pid);
    }
    found
}

/// Who traces a process (ptrace(2)).
pub fn tracer(pid: u32) -> Option<u32> {
    switches(pid).map(|(tracer, _, _)| tracer).filter(|tracer| *tracer != 0)
}

/// Who traces a process, and how often it has been given the processor and has given it up (proc_pid_status(5)).
fn switches(pid: u32) -> Option<(u32, u64, u64)> {
    let text = proc::text(pid, "status")?;
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let tracer = u32::try_from(field("TracerPid:")?).ok()?;
    Some((tracer, field("voluntary_ctxt_switches:")?, field("nonvoluntary_ctxt_switches:")?))
}

/// Whether a process waits for something, and no signal ends that wait.
pub fn is_uninterruptible(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == b'D')
}

/// Whether a process was killed and cannot end, because it waits for something that no signal ends.
pub fn hangs(pid: u32) -> bool {
    let Some(text) = proc::text(pid, "status") else { return false };
    let pending = text.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    pending.is_some_and(|mask| mask & KILLED != 0) && is_uninterruptible(pid)
}

/// Whether real, effective, saved and file system user are all this one.
pub fn runs_as(pid: u32, uid: u32) -> bool {
    user_of(pid) == Some(uid)
}

/// The working directory of a process; one that was deleted by the name it had.
pub fn directory(pid: u32) -> Option<PathBuf> {
    let leads = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let name = leads.to_str()?;
    Some(PathBuf::from(name.strip_suffix(" (deleted)").unwrap_or(name)))
}

impl Process {
    /// The process with this number, as it is now; none if it has ended.
    pub fn open(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // Read after the descriptor was taken: if the number was used again in between, the start differs.
        let start = stat(pid)?.start;
        Some(Self { pid, start, user: None, fd })
    }

    /// The process with this number and start; none if that one has ended, or is not this user's (where that counts).
    pub fn proven(pid: u32, start: u64, uid: Option<u32>) -> Option<Self> {
        let mut process = Self::open(pid)?;
        process.user = uid;
        (process.start == start && process.is_users()).then_some(process)
    }

    /// From now on it is signalled only as long as it runs as this user.
    pub fn belongs_to(&mut self, uid: u32) {
        self.user = Some(uid);
    }

    /// Whether it runs as the user that it belongs to.
    pub fn is_users(&self) -> bool {
        self.user.is_none_or(|uid| runs_as(self.pid, uid))
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        stat(self.pid).is_none_or(|stat| stat.start != self.start)
    }

    /// Waits for its end, for so long at the most; whether it has ended.
    pub fn await_end(&self, limit: Duration) -> bool {
        let until = clock::now().after(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            // A signal that interrupts the wait does not make it longer.
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&clock::until(until))) {
                Err(Errno::INTR) => {}
                other => return other == Ok(1),
            }
        }
    }

    /// Sends a signal to exactly this process.
    pub fn signal(&self, signal: Signal) {
        self.send(match signal {
            Signal::Term => Number::TERM,
            Signal::Quit => Number::QUIT,
            Signal::Usr1 => Number::USR1,
            Signal::Usr2 => Number::USR2,
        });
    }

    /// Lets it go on if it was stopped: a stopped process hears nothing.
    pub fn wake(&self) {
        self.send(Number::CONT);
    }

    /// Has it stand still until it is woken.
    pub fn stop(&self) {
        self.send(Number::STOP);
    }

    /// Ends it.
    pub fn kill(&self) {
        self.send(Number::KILL);
    }

    fn send(&self, signal: Number) {
        if !self.is_users() {
            return;
        }
        // Who has ended needs none.
        let _ = pidfd_send_signal(&self.fd, signal);
    }
}

/// Every living process.
pub fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, stat(pid)?))).collect()
}

/// Everything that some processes have started, and what that has started, with themselves. Parents were read one after the
/// other, so two processes may seem to have started each other: one of them had a number that was used again meanwhile.
pub fn below(all: &HashMap<u32, Stat>, roots: &[u32]) -> HashSet<u32> {
    let mut found = HashSet::new();
    if roots.is_empty() {
        return found;
    }
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, stat) in all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut open = roots.to_vec();
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// So many ends of children are taken at once: whoever starts processes as fast as they are taken keeps nobody from anything else.
const MOST_ENDS: usize = 1024;

/// Takes the ends of children; of those that are known, how it was. Others are orphans of the application, which
/// may start as many as it likes. False: there may be more.
pub fn reap(is_known: impl Fn(u32) -> bool) -> (Vec<(u32, String)>, bool) {
    taken(is_known, || {
        let (pid, status) = wait(WaitOptions::NOHANG).ok()??;
        Some((pid.as_raw_nonzero().get().unsigned_abs(), status))
    })
}

fn taken(
    is_known: impl Fn(u32) -> bool,
    mut next: impl FnMut() -> Option<(u32, WaitStatus)>,
) -> (Vec<(u32, String)>, bool) {
    let mut ended = vec![];
    for _ in 0..MOST_ENDS {
        let Some((pid, status)) = next() else { return (ended, true) };
        if is_known(pid) {
            ended.push((pid, how(status)));
        }
    }
    (ended, false)
}

/// Takes the end of this child, and tells how it was; none if it is no child, or has not ended.
pub fn end_of(pid: u32) -> Option<String> {
    let (_, status) = waitpid(Some(Pid::from_raw(i32::try_from(pid).ok()?)?), WaitOptions::NOHANG).ok()??;
    Some(how(status))
}

/// How a process has ended, in words.
fn how(status: WaitStatus) -> String {
    if let Some(code) = status.exit_status() {
        format!("ended with exit code {code}")
    } else if let Some(signal) = status.terminating_signal() {
        format!("was ended by signal {signal}{}", name(signal))
    } else {
        "has ended".to_owned()
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        6 => " (ABRT)",
        7 => " (BUS)",
        9 => " (KILL)",
        11 => " (SEGV)",
        14 => " (ALRM)",
        15 => " (TERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_children_are_taken_in_parts() {
        // Another test may wait for a child of its own, so none is waited for here but this one.
        let mut child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let own = Pid::from_child(&child);
        let (_, status) = waitpid(Some(own), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(end_of(child.id()), None, "it was taken");
        assert!(child.try_wait().is_err());
        let mut left = u32::try_from(MOST_ENDS).unwrap() + 10;
        let mut next = || {
            left = left.checked_sub(1)?;
            Some((left, status))
        };
        let (first, are_all) = taken(|pid| pid == 10 || pid == 2, &mut next);
        assert_eq!((first, are_all), (vec![(10, "ended with exit code 3".to_owned())], false));
        let (rest, are_all) = taken(|pid| pid == 10 || pid == 2, &mut next);
        assert_eq!((rest, are_all), (vec![(2, "ended with exit code 3".to_owned())], true));
    }

    #[test]
    fn processes_that_seem_to_have_started_each_other_are_no_endless_row() {
        let one = |parent| Stat { state: b'S', parent, session: 1, start: 1, has_run: false };
        let all =
            HashMap::from([(2, one(4)), (3, one(2)), (4, one(3)), (5, one(4)), (6, one(1)), (7, one(7))]);
        assert_eq!(below(&all, &[3]), HashSet::from([2, 3, 4, 5]));
        assert_eq!(below(&all, &[7]), HashSet::from([7]));
        assert!(below(&all, &[]).is_empty());
    }
}
