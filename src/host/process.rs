//! Programs that are asked something: for so long, for so much output, as somebody.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, setsid, waitpid,
};
use serde::{Deserialize, Serialize};

use super::helper::{self, Helper};
use super::paths::is_program;
use super::proc;
use crate::facts::SYSTEM_PATH;

/// The hidden command that runs a program of somebody's apart. A program can hold the lock of the pipe that its output goes into, and
/// who reads or closes that pipe waits then, and cannot be killed (splice(2) from a socket on which nothing comes). The helper is
/// killed when it takes too long, or left behind; and what the program leaves behind becomes a child of the helper's.
pub const COMMAND: &str = "run-apart";

/// How long a program may take to say what it is, or what it sees: an interpreter on a cold disk, a
/// name service that asks another host.
pub(super) const QUESTION: Duration = Duration::from_secs(20);

/// So much of what a program said last is kept, in bytes; what came before is dropped.
const OUTPUT: usize = 1 << 20;

/// A helper has so much longer than its program: until it has started, and has ended what is left.
const MARGIN: Duration = Duration::from_secs(10);

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The path of a program of the system, and its arguments.
    words: Result<Vec<String>, String>,
    what: String,
    errors: bool,
    /// It is not the system's: nobody knows what it starts.
    is_foreign: bool,
}

/// What a helper is asked to do.
#[derive(Serialize, Deserialize)]
struct Order {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    errors: bool,
    time: Duration,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    end: Result<End, String>,
}

impl Run {
    /// A program of the system, as we are.
    pub(super) fn system(program: &'static str, arguments: &[&str]) -> Self {
        let own =
            |path| std::iter::once(path).chain(arguments.iter().map(|word| (*word).to_owned())).collect();
        Self { words: find(program).map(own), what: program.to_owned(), errors: false, is_foreign: false }
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
        let what = words.first().cloned().unwrap_or_default();
        let words = chain(identity, directory, environment, words);
        Self { words, what, errors: false, is_foreign: true }
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

    /// Runs it until it ends or its time is over; then everything in its session is killed, and what else it has left behind. The
    /// error says why it could not be run.
    pub(super) fn run(self, time: Duration) -> Result<Ran, String> {
        let failed = |error: &dyn Display| format!("{} cannot be run: {error}", shown(&self.what));
        let variables = match self.is_foreign {
            true => vec![],
            false => vec![("PATH".to_owned(), SYSTEM_PATH.join(":"))],
        };
        let order = Order { words: self.words?, variables, errors: self.errors, time };
        // In tests of this library, this program is not the one that has the helper.
        let ran = if self.is_foreign && !cfg!(test) { apart(&order) } else { here(&order, None) };
        ran.map_err(|error| failed(&error))
    }
}

/// Has a helper run a program.
fn apart(order: &Order) -> io::Result<Ran> {
    // Its variables may be longer than a message.
    let text = memory(&serde_json::to_vec(order)?)?;
    let helper = Helper::start(COMMAND)?;
    let (reply, fds) = match helper.exchange::<Reply>(&(), &[text.as_fd()], order.time.saturating_add(MARGIN))
    {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Ok(Ran { end: End::Late, output: vec![] });
        }
        answer => answer?,
    };
    let end = reply.end.map_err(io::Error::other)?;
    let output = fds.into_iter().next().map(contents).transpose()?.unwrap_or_default();
    Ok(Ran { end, output })
}

/// The helper itself.
pub fn main() -> u8 {
    // It has work to do when somebody ends what asks it from a terminal.
    let _ = setsid();
    helper::serve(|(): (), fds| {
        let order =
            fds.into_iter().next().map(contents).unwrap_or_else(|| Err(io::ErrorKind::InvalidInput.into()));
        let ran = order.and_then(|order| {
            let ran = here(&serde_json::from_slice(&order)?, Some(io::stdin().as_fd()))?;
            Ok((ran.end, memory(&ran.output)?.into()))
        });
        match ran {
            Ok((end, output)) => (Reply { end: Ok(end) }, vec![output]),
            Err(error) => (Reply { end: Err(error.to_string()) }, vec![]),
        }
    })
}

/// A file without a name that holds this.
fn memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("runsmith", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn contents(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::from(file).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Runs a program as a child of this process. In a helper, `asker` is the socket by which it was asked: the program ends when who
/// asked is gone, and so does what it leaves behind.
fn here(order: &Order, asker: Option<BorrowedFd<'_>>) -> io::Result<Ran> {
    let mut words = order.words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).env_clear().envs(order.variables.iter().map(|(name, value)| (name, value)));
    command.current_dir("/");
    let (mut reader, writer) = pipe()?;
    let errors = if order.errors { Stdio::from(writer.try_clone()?) } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    if asker.is_some() {
        // What it starts and leaves behind comes to us, not to process 1.
        let _ = set_child_subreaper(Some(getpid()));
    }
    let mut child = command.spawn()?;
    // Its end of the pipe is its own alone.
    drop(command);
    let group = Pid::from_child(&child);
    let ended = match pidfd_open(group, PidfdFlags::empty()) {
        Ok(ended) => ended,
        Err(error) => {
            end(&mut child, group);
            return Err(error.into());
        }
    };

    let until = Instant::now() + order.time;
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
        if let Some(asker) = &asker {
            // It has nothing more to say; that it is gone shows in any case.
            polled.push(PollFd::new(asker, PollFlags::empty()));
        }
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut polled, Some(&wait)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                end(&mut child, group);
                return Err(error.into());
            }
            Ok(_) => {}
        }
        let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (is_over, can_read) = (is_ready(0), open && is_ready(1));
        let is_alone = asker.is_some() && is_ready(1 + usize::from(open));
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
        if left.is_zero() || is_alone {
            late = !is_over;
            break;
        }
    }
    let end = end(&mut child, group);
    if asker.is_some() {
        end_orphans();
    }
    Ok(Ran { end: if late { End::Late } else { end }, output: output.into_bytes() })
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

/// The children of this process, where the kernel lists them (CONFIG_PROC_CHILDREN, which distributions have); of very many, some.
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let lists = proc::threads(own).filter_map(|thread| proc::text(own, &format!("task/{thread}/children")));
    lists.flat_map(|list| listed(&list)).collect()
}

/// The process ids of such a list. A long one may have been cut within a number, which would be that of another process: each has a
/// blank behind it.
fn listed(list: &str) -> Vec<Pid> {
    let whole = list.rfind(' ').and_then(|end| list.get(..end)).unwrap_or_default();
    whole.split(' ').filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// So long what a program has left behind is killed. One that starts others all the time may go on after it.
const ORPHANS: Duration = Duration::from_secs(5);

/// Ends what a program has left behind, in whatever session: it has become a child of this process, which has no others.
fn end_orphans() {
    let until = Instant::now() + ORPHANS;
    loop {
        let mut orphans = children();
        if orphans.is_empty() {
            return;
        }
        for orphan in &orphans {
            // It is our child and not yet waited for, so its number is nobody else's.
            let _ = kill_process(*orphan, Signal::KILL);
        }
        within(KILLED, || {
            orphans.retain(|orphan| matches!(waitpid(Some(*orphan), WaitOptions::NOHANG), Ok(None)));
            orphans.is_empty().then_some(())
        });
        if Instant::now() >= until {
            return;
        }
    }
}

fn chain(
    identity: &Identity,
    directory: &str,
    environment: &[(String, String)],
    words: &[String],
) -> Result<Vec<String>, String> {
    let (env, setpriv) = (find("env")?, find("setpriv")?);
    let mut chain = vec![find("setsid")?];
    let mut add = |words: &[&str]| chain.extend(words.iter().map(|word| (*word).to_owned()));
    if identity.switch {
        let groups = match identity.groups.as_slice() {
            [] => "--clear-groups".to_owned(),
            groups => format!("--groups={}", groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        };
        let (user, group) = (format!("--reuid={}", identity.uid), format!("--regid={}", identity.gid));
        add(&[&setpriv, &user, &group, &groups, "--inh-caps=-all", "--no-new-privs", "--"]);
    }
    add(&[&env, "-C", directory, "--"]);
    chain.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
    chain.extend([setpriv, "--no-new-privs".to_owned(), "--".to_owned()]);
    chain.extend(words.iter().cloned());
    Ok(chain)
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

    /// The kernel's list has a blank behind each number, and what is read of it may end anywhere.
    #[test]
    fn a_list_that_is_cut_has_no_half_numbers() {
        let listed =
            |text| super::listed(text).iter().map(|pid| pid.as_raw_nonzero().get()).collect::<Vec<_>>();
        assert_eq!(listed("12345 12346 "), [12345, 12346]);
        assert_eq!(listed("12345 12346 1234"), [12345, 12346]);
        assert_eq!(listed("1234"), [0; 0]);
        assert_eq!(listed(""), [0; 0]);
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
