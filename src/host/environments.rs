//! Environments that processes began with.
//!
//! The kernel gives the environment of a process only while that process does not begin another program, and waits for that; only
//! the end of who asks ends the wait (`exec_update_lock`, mm_access in kernel/fork.c). A process that begins a program closes
//! files, and closing one of a file system that its user has made takes as long as that user likes (fuse(4)). So the environments
//! of other users' processes are read by a helper, which is killed when it takes too long.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::io::read;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::helper::{self, Helper};
use super::proc;

/// The hidden command that is the helper.
pub const COMMAND: &str = "read-environments";

/// Arguments and variables of a program together are never longer, in bytes: three quarters of 8 MiB (execve(2), `_STK_LIM`).
const LONGEST_ENVIRONMENT: usize = 6 << 20;

/// So much is read of all environments that one search looks at, in bytes; of each one more only [`LEAST`].
const LONGEST_SEARCH: usize = 256 << 20;

/// So much is read of an environment in any case: more than nearly all have.
const LEAST: usize = 64 << 10;

/// A variable is compared up to this length, in bytes: what is looked for is shorter.
const LONGEST_ENTRY: usize = 4096;

/// How long a helper may take for one process, the time in which it is started included: milliseconds, unless the machine is very busy.
const LIMIT: Duration = Duration::from_secs(2);

/// So many times a search waits for that long; then it goes on with what it can read itself. A runtime that searches is to answer
/// within 10 s.
const MOST_WAITS: usize = 2;

/// So many processes whose environments could not be read in time are remembered.
const MOST_HELD: usize = 256;

/// For so long nobody waits again for one of these. It is longer than somebody asks again who waits for a status.
const HELD: Duration = Duration::from_secs(60);

/// A process: its number and its start.
type Known = (u32, u64);

thread_local! {
    /// Processes whose environments could not be read in time, and when that was; the oldest first.
    static HELD_PROCESSES: RefCell<VecDeque<(Known, Instant)>> = const { RefCell::new(VecDeque::new()) };
}

/// A search through the environments that processes began with. What a process wrote over its own since is what is seen, so
/// what is found is a claim of whoever owns the process. A helper costs as much as a program that is started, so whoever searches
/// compares users first.
pub struct Environments {
    /// So many bytes may still be read.
    left: Cell<usize>,
    /// Started when it is needed, and ended with the search.
    helper: RefCell<Option<Helper>>,
    /// So many times it was waited for in vain.
    waits: Cell<usize>,
    /// How long it is waited for.
    limit: Duration,
}

impl Default for Environments {
    fn default() -> Self {
        let left = Cell::new(LONGEST_SEARCH);
        Self { left, helper: RefCell::new(None), waits: Cell::new(0), limit: LIMIT }
    }
}

/// What a helper is asked.
#[derive(Serialize, Deserialize)]
struct Question {
    pid: u32,
    name: String,
    /// Only this value counts.
    value: Option<String>,
    /// So many bytes may be read.
    left: usize,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
struct Answer {
    value: Option<String>,
    /// So many bytes were read.
    read: usize,
}

impl Environments {
    /// Whether the variable NAME has this value.
    pub fn has(&self, pid: u32, name: &str, value: &str) -> bool {
        self.find(pid, name, Some(value)).is_some()
    }

    /// Whether there is a variable NAME.
    pub fn names(&self, pid: u32, name: &str) -> bool {
        self.find(pid, name, None).is_some()
    }

    /// What the variable NAME is, as text.
    pub fn value(&self, pid: u32, name: &str) -> Option<String> {
        self.find(pid, name, None)
    }

    /// The next look of the same search: as much may be read again, and nobody is waited for more often than in one.
    pub fn look_again(&self) {
        self.left.set(LONGEST_SEARCH);
    }

    fn find(&self, pid: u32, name: &str, value: Option<&str>) -> Option<String> {
        let question =
            Question { pid, name: name.to_owned(), value: value.map(str::to_owned), left: self.left.get() };
        let is_ours = proc::user_of(pid) == Some(geteuid().as_raw());
        let answer = if is_ours { answer(&question) } else { self.ask(&question)? };
        self.left.set(self.left.get().saturating_sub(answer.read));
        answer.value
    }

    /// Has a helper read it; none if that takes too long.
    fn ask(&self, question: &Question) -> Option<Answer> {
        let known = (question.pid, proc::state(question.pid)?.1);
        if self.waits.get() >= MOST_WAITS || is_held(known) {
            return None;
        }
        let mut helper = self.helper.borrow_mut();
        let asked = match helper.take().map_or_else(|| Helper::start(COMMAND), Ok) {
            Ok(started) => {
                // One that has failed is killed; the next process is asked about by another one.
                started.exchange(question, &[], self.limit).map(|(answer, _)| {
                    *helper = Some(started);
                    answer
                })
            }
            Err(error) => Err(error),
        };
        asked
            .inspect_err(|error| {
                self.waits.set(self.waits.get() + 1);
                if error.kind() == ErrorKind::TimedOut {
                    note_held(known);
                }
            })
            .ok()
    }
}

fn is_held(known: Known) -> bool {
    HELD_PROCESSES.with_borrow_mut(|all| {
        while all.front().is_some_and(|(_, since)| since.elapsed() >= HELD) {
            all.pop_front();
        }
        all.iter().any(|(one, _)| *one == known)
    })
}

fn note_held(known: Known) {
    HELD_PROCESSES.with_borrow_mut(|all| {
        all.push_back((known, Instant::now()));
        if all.len() > MOST_HELD {
            all.pop_front();
        }
    });
}

/// The helper itself.
pub fn main() -> u8 {
    helper::serve_all(|question: Question| answer(&question))
}

/// The first value of a variable that counts. A longer one than [`LONGEST_ENTRY`] is passed over.
fn answer(question: &Question) -> Answer {
    let (pid, mut read) = (question.pid, 0);
    let mut value = look(question, "environ", &mut read);
    if value.is_none() && read == 0 {
        // A thread that has ended has no memory any more; the others of its process have.
        for thread in proc::threads(pid).filter(|thread| *thread != pid).take(proc::MOST_THREADS) {
            value = look(question, &format!("task/{thread}/environ"), &mut read);
            if read > 0 {
                break;
            }
        }
    }
    Answer { value, read }
}

/// The same in one of the files of a process, of which so many bytes are read.
fn look(question: &Question, file: &str, total: &mut usize) -> Option<String> {
    let counts = |entry: &[u8]| {
        let value = entry.strip_prefix(question.name.as_bytes())?.strip_prefix(b"=")?;
        let is_it = question.value.as_ref().is_none_or(|wanted| value == wanted.as_bytes());
        is_it.then(|| String::from_utf8_lossy(value).into_owned())
    };
    let file = proc::open(question.pid, file)?;
    let most = LONGEST_ENVIRONMENT.min(question.left).max(LEAST);
    let (mut part, mut entry) = ([0; proc::PART], vec![]);
    while *total < most {
        // What blocks is interrupted, where somebody has seen to that.
        let count = read(&file, &mut part).ok().filter(|count| *count > 0)?;
        *total += count;
        for byte in part.get(..count)? {
            if *byte == 0 {
                let found = if entry.len() <= LONGEST_ENTRY { counts(&entry) } else { None };
                if found.is_some() {
                    return found;
                }
                entry.clear();
            } else if entry.len() <= LONGEST_ENTRY {
                entry.push(*byte);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process with these variables, which has begun.
    fn process(variables: &[(&str, &str)]) -> Child {
        let mut command = Command::new("cat");
        command.env_clear().envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        use std::io::{Read as _, Write as _};
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn variables_are_found_wherever_they_are_and_only_whole() {
        let long = "x".repeat(100_000);
        let mut child = process(&[("A", &long), ("B", "RUNSMITH=1"), ("C", ""), ("Z", "last"), ("ZZ", "1")]);
        let (pid, looks) = (child.id(), Environments::default());
        assert!(looks.has(pid, "Z", "last") && looks.names(pid, "C") && looks.has(pid, "C", ""));
        assert!(!looks.has(pid, "Z", "las") && !looks.names(pid, "RUNSMITH") && !looks.names(pid, "x"));
        assert_eq!(looks.value(pid, "ZZ").as_deref(), Some("1"));
        assert!(!looks.names(pid, "A"), "too long to be meant");
        assert!(proc::has_command(pid, b"cat\0") && !proc::has_command(pid, b"cat"));
        assert!(!proc::has_command(pid, b"ca\0"));
        // Who reads it itself needs no helper.
        assert!(looks.helper.borrow().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_search_has_an_end() {
        let long = "x".repeat(100_000);
        let mut child = process(&[("A", &long), ("Z", "last")]);
        let (pid, looks) = (child.id(), Environments { left: Cell::new(150_000), ..Default::default() });
        let found: Vec<bool> = (0..3).map(|_| looks.has(pid, "Z", "last")).collect();
        assert_eq!(found, [true, false, false]);
        looks.look_again();
        assert!(looks.has(pid, "Z", "last"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the helper of a search says, of a process of another user's.
    fn search(limit: Duration) -> (Environments, std::os::fd::OwnedFd) {
        let (ours, theirs) = super::super::passing::pair().unwrap();
        let helper = RefCell::new(Some(Helper::behind(ours)));
        (Environments { helper, limit, ..Default::default() }, theirs)
    }

    fn question(pid: u32) -> Question {
        Question { pid, name: "Z".to_owned(), value: None, left: 1 }
    }

    #[test]
    fn another_users_process_is_asked_about_by_a_helper() {
        let (looks, theirs) = search(LIMIT);
        let helper =
            std::thread::spawn(move || helper::answer_all(theirs.as_fd(), |one: Question| answer(&one)));
        let mut children = [process(&[("Z", "one")]), process(&[("Z", "other")])];
        let found: Vec<_> =
            children.iter().map(|child| looks.ask(&question(child.id())).unwrap().value.unwrap()).collect();
        assert_eq!(found, ["one", "other"]);
        drop(looks);
        helper.join().unwrap().unwrap();
        children.iter_mut().for_each(|child| {
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }

    /// A helper that does not answer is ended; the process that it was asked about is left out, and nobody waits for it again.
    #[test]
    fn what_cannot_be_read_in_time_is_left_out() {
        let mut child = process(&[("Z", "last")]);
        let (looks, theirs) = search(Duration::ZERO);
        assert!(looks.ask(&question(child.id())).is_none());
        assert!(looks.helper.borrow().is_none() && looks.waits.get() == 1);
        // Its end shows as that of the socket: the order is read, and nothing follows.
        let order = super::super::passing::receive(&theirs, 1000).unwrap();
        assert!(!order.bytes.is_empty());
        // A process that another test starts may have had a copy of the other end for a moment.
        super::super::passing::wait(&theirs, LIMIT).unwrap();
        assert!(super::super::passing::receive(&theirs, 1000).unwrap().bytes.is_empty());
        let (next, theirs) = search(LIMIT);
        assert!(next.ask(&question(child.id())).is_none() && next.waits.get() == 0);
        assert!(super::super::passing::receive(&theirs, 1000).is_err(), "nobody was asked");
        // What can be read without a helper still is.
        looks.waits.set(MOST_WAITS);
        assert!(looks.has(child.id(), "Z", "last"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_search_waits_a_few_times() {
        let mut child = process(&[("Z", "last")]);
        let (looks, theirs) = search(LIMIT);
        looks.waits.set(MOST_WAITS);
        assert!(looks.ask(&question(child.id())).is_none());
        assert!(super::super::passing::receive(&theirs, 1000).is_err(), "nobody was asked");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn so_many_are_remembered() {
        let known = |number: usize| (u32::try_from(number).unwrap(), 1);
        assert!(!is_held(known(0)));
        (0..=MOST_HELD).for_each(|number| note_held(known(number)));
        // The oldest one is forgotten; the same number with another start is another process.
        assert!(!is_held(known(0)) && is_held(known(1)) && is_held(known(MOST_HELD)) && !is_held((1, 2)));
    }
}
