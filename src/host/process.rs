//! Programs that are asked something: for so long, for so much output, as somebody.

use std::io::{Read as _, pipe};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, waitpid,
};

use super::paths::is_program;
use super::proc;
use crate::facts::SYSTEM_PATH;

/// How long a program may take to say what it is, or what it sees: an interpreter on a cold disk, a
/// name service that asks another host.
pub(super) const QUESTION: Duration = Duration::from_secs(20);

/// So much of what a program said last is kept, in bytes; what came before is dropped.
const OUTPUT: usize = 1 << 20;

/// Whether this process ends what a program has left behind. A runtime must not: orphans of the application become its children at any
/// time, and may have requests to finish.
static ENDS_ORPHANS: AtomicBool = AtomicBool::new(false);

/// From now on what a program of the application leaves behind ends with it.
pub(super) fn end_what_is_left() {
    ENDS_ORPHANS.store(true, Ordering::Relaxed);
}

/// What a program has left behind is known by being there when it has ended.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// So often the processes that a program has left behind are looked for.
const ROUNDS: u32 = 1000;

/// Who the application runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// We are root and become that user; otherwise we are that user already.
    pub switch: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It did not within its time, and was killed.
    Late,
}

/// A program that was run.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: End,
    /// What it said last, up to [`OUTPUT`].
    pub(super) output: Vec<u8>,
}

impl Ran {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// A program that is to be run.
pub(super) struct Run {
    command: Result<Command, String>,
    what: String,
    errors: bool,
    /// It is not the system's: nobody knows what it starts.
    is_foreign: bool,
}

impl Run {
    /// A program of the system, as we are.
    pub(super) fn system(program: &'static str, arguments: &[&str]) -> Self {
        let command = find(program).map(|path| {
            let mut command = Command::new(path);
            command.args(arguments).env_clear().env("PATH", SYSTEM_PATH.join(":")).current_dir("/");
            command
        });
        Self { command, what: program.to_owned(), errors: false, is_foreign: false }
    }

    /// Somebody's program, as the application's user: `words` in the directory `directory`, with these
    /// variables and no others.
    ///
    /// Three programs follow each other in one process: `setsid`, so that it has no terminal to type
    /// into; `setpriv`, which gives up root for good; `env`, which sets the variables only then, because
    /// LD_PRELOAD may be among them. The last `setpriv` is there to run a word that has a `=`.
    pub(super) fn new(
        identity: &Identity,
        directory: &str,
        environment: &[(String, String)],
        words: &[String],
    ) -> Self {
        let command = chain(identity, directory, environment, words);
        Self { command, what: words.first().cloned().unwrap_or_default(), errors: false, is_foreign: true }
    }

    /// What it says on standard error counts, too.
    pub(super) fn with_errors(mut self) -> Self {
        self.errors = true;
        self
    }

    /// Runs it; the error says why it could not be, or that it did not end.
    pub(super) fn answer(self, time: Duration) -> Result<Ran, String> {
        let what = self.what.clone();
        let ran = self.run(time)?;
        if ran.end == End::Late {
            return Err(format!("{} had no answer within {} s", shown(&what), time.as_secs()));
        }
        Ok(ran)
    }

    /// Runs it until it ends or its time is over; then everything in its session is killed. The error
    /// says why it could not be run.
    pub(super) fn run(self, time: Duration) -> Result<Ran, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{} cannot be run: {error}", shown(&self.what));
        let mut command = self.command?;
        let (mut reader, writer) = pipe().map_err(|error| failed(&error))?;
        let errors = if self.errors {
            Stdio::from(writer.try_clone().map_err(|error| failed(&error))?)
        } else {
            Stdio::null()
        };
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let before = (self.is_foreign && ENDS_ORPHANS.load(Ordering::Relaxed)).then(|| {
            let one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            // What it starts and leaves behind comes to us, not to process 1.
            let _ = set_child_subreaper(Some(getpid()));
            (one, children())
        });
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        // Its end of the pipe is its own alone.
        drop(command);
        let group = Pid::from_child(&child);
        let ended = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(ended) => ended,
            Err(error) => {
                end(&mut child, group);
                return Err(failed(&error));
            }
        };

        let until = Instant::now() + time;
        let mut output = Tail::default();
        let mut part = vec![0; 1 << 16];
        let mut open = true;
        let mut late = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut polled = vec![PollFd::new(&ended, PollFlags::IN)];
            if open {
                polled.push(PollFd::new(&reader, PollFlags::IN));
            }
            let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut polled, Some(&wait)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    end(&mut child, group);
                    return Err(failed(&error));
                }
                Ok(_) => {}
            }
            let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (is_over, can_read) = (is_ready(0), is_ready(1));
            drop(polled);
            if can_read {
                match reader.read(&mut part) {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => {
                        output.push(&part[..count]);
                    }
                }
            }
            // Who ended has said all it will; what it left running may hold the pipe open for ever.
            if is_over && !can_read {
                break;
            }
            if left.is_zero() {
                late = !is_over;
                break;
            }
        }
        let end = end(&mut child, group);
        if let Some((_one, before)) = before {
            end_orphans(&before);
        }
        Ok(Ran { end: if late { End::Late } else { end }, output: output.into_bytes() })
    }
}

/// The last part of an output, in whole lines: half a line may hide that it holds a secret.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    /// The beginning of the first line is gone.
    is_half: bool,
}

impl Tail {
    fn push(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        if self.bytes.len() > 2 * OUTPUT {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.bytes.len() > OUTPUT {
            self.bytes.drain(..self.bytes.len() - OUTPUT);
            self.is_half = true;
        }
        if self.is_half {
            let end = self.bytes.iter().position(|byte| *byte == b'\n');
            self.bytes.drain(..end.map_or(self.bytes.len(), |end| end + 1));
            self.is_half = end.is_none();
        }
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.cut();
        self.bytes
    }
}

/// Ends what is left of a program and its session.
fn end(child: &mut Child, group: Pid) -> End {
    // It is our child and not yet waited for, so its number is nobody else's. Before `setsid` it has no group.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.kill();
    match within(KILLED, || child.try_wait().transpose()) {
        Some(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Late,
        },
        Some(Err(_)) | None => End::Late,
    }
}

/// A killed process ends within milliseconds. Another process of its user that traces it can keep its end from us for ever, and so can a
/// file system of that user's: it is left behind then.
const KILLED: Duration = Duration::from_secs(1);

/// Looks for an answer until there is one, for so long. There is no event to wait for: a traced process has ended for everybody but
/// for its parent.
fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    const LOOK: Duration = Duration::from_millis(2);
    let until = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(LOOK);
    }
}

/// The children of this process, where the kernel lists them (CONFIG_PROC_CHILDREN, which distributions have).
fn children() -> Vec<u32> {
    let own = std::process::id();
    let lists = proc::threads(own).filter_map(|thread| proc::text(own, &format!("task/{thread}/children")));
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The session of a process; 0 if that is outside of its namespace, which getsid(2) gives as well and rustix does not take.
fn session(pid: u32) -> Option<u32> {
    proc::text(pid, "stat")?.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

/// So many processes that cannot be ended are waited for, a second each.
const MOST_LEFT: usize = 3;

/// Ends what a program has left behind, in whatever session: it has become our child. One that starts others all the time is
/// looked for so many times.
fn end_orphans(before: &[u32]) {
    let own = session(std::process::id());
    // Only such programs have sessions of their own.
    let is_orphan = |pid: &u32| session(*pid) != own && !before.contains(pid);
    let mut left: Vec<Pid> = vec![];
    for _ in 0..ROUNDS {
        let orphans = children().into_iter().filter(is_orphan);
        let mut orphans: Vec<Pid> =
            orphans.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect();
        orphans.retain(|orphan| !left.contains(orphan));
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            // It is our child and not yet waited for, so its number is nobody else's.
            let _ = kill_process(orphan, Signal::KILL);
            if within(KILLED, || waitpid(Some(orphan), WaitOptions::NOHANG).transpose()).is_none() {
                left.push(orphan);
                if left.len() >= MOST_LEFT {
                    return;
                }
            }
        }
    }
}

fn chain(
    identity: &Identity,
    directory: &str,
    environment: &[(String, String)],
    words: &[String],
) -> Result<Command, String> {
    let (env, setpriv) = (find("env")?, find("setpriv")?);
    let mut command = Command::new(find("setsid")?);
    if identity.switch {
        command
            .arg(&setpriv)
            .arg(format!("--reuid={}", identity.uid))
            .arg(format!("--regid={}", identity.gid));
        if identity.groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let groups: Vec<_> = identity.groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        command.args(["--inh-caps=-all", "--no-new-privs", "--"]);
    }
    command.arg(&env).arg("-C").arg(directory).arg("--");
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(&setpriv).args(["--no-new-privs", "--"]).args(words);
    command.env_clear().current_dir("/");
    Ok(command)
}

/// A program of the system.
fn find(program: &str) -> Result<String, String> {
    SYSTEM_PATH
        .iter()
        .map(|directory| format!("{directory}/{program}"))
        .find(|path| is_program(path))
        .ok_or_else(|| format!("there is no {program} on this host"))
}

fn shown(text: &str) -> String {
    crate::visible::visible(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Identity {
        let switch = rustix::process::geteuid().is_root();
        let uid = if switch { 65_534 } else { rustix::process::geteuid().as_raw() };
        Identity { uid, gid: 65_534, groups: vec![], switch }
    }

    fn run(words: &[&str], time: Duration) -> Ran {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let environment = [("PATH".to_owned(), SYSTEM_PATH.join(":")), ("A".to_owned(), "b c".to_owned())];
        Run::new(&me(), "/", &environment, &words).with_errors().run(time).unwrap()
    }

    #[test]
    fn says_what_it_said_and_how_it_ended() {
        let ran = run(&["sh", "-c", "echo out; echo err >&2; echo $A; exit 3"], QUESTION);
        assert_eq!((ran.end, ran.text().as_str()), (End::Code(3), "out\nerr\nb c\n"));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"], QUESTION).end, End::Signal(9));
    }

    /// Output without an end is cut, a program without an end is killed, and so is what it left running.
    #[test]
    fn everything_has_an_end() {
        let ran = run(&["yes", "no"], Duration::from_millis(500));
        assert!(ran.end == End::Late && ran.output.len() <= OUTPUT && ran.output.starts_with(b"no\n"));
        assert_eq!(run(&["cat", "/dev/zero"], Duration::from_millis(500)).end, End::Late);
        let ran = run(&["sh", "-c", "head -c 5000000 /dev/zero; echo; echo last"], QUESTION);
        assert!(ran.end == End::Code(0) && ran.output == b"last\n", "{}", ran.output.len());
        let ran = run(&["sh", "-c", "sleep 1000 & echo $!"], QUESTION);
        assert_eq!(ran.end, End::Code(0));
        let left = Pid::from_raw(ran.text().trim().parse().unwrap()).unwrap();
        // It is killed, and its death may take a moment.
        if let Ok(left) = pidfd_open(left, PidfdFlags::empty()) {
            let limit = Timespec { tv_sec: QUESTION.as_secs() as i64, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&left, PollFlags::IN)], Some(&limit)), Ok(1));
        }
    }

    #[test]
    fn nothing_is_inherited_and_nothing_can_be_regained() {
        let ran = run(&["env"], QUESTION);
        let mut names: Vec<_> =
            ran.text().lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["A", "PATH"]);
        if me().switch {
            let ran = run(&["grep", "-E", "^(Uid|Groups|CapEff|NoNewPrivs):", "/proc/self/status"], QUESTION);
            let text: Vec<_> = ran.text().lines().map(|line| line.trim().replace('\t', " ")).collect();
            let caps = "CapEff: 0000000000000000";
            let wanted = ["Uid: 65534 65534 65534 65534", "Groups:", caps, "NoNewPrivs: 1"];
            assert_eq!(text, wanted);
        }
    }
}
