//! The launcher: what a new master is until it runs its program.
//!
//! It is a process of its own, so that its number is known (and LISTEN_PID can say it) and written down before the server
//! runs. It takes what root alone can give (limits, priority, secrets), gives up root for good, goes where `current`
//! leads as the application's user, and becomes the server. Whatever fails is said to the runtime, and nothing has run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Gid, Resource as Kernel, Rlimit, Uid, getrlimit, setpriority_process, setrlimit, setsid, umask,
};
use rustix::thread::{CapabilitySet, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::{interpreter, isolation, listen, passing, privileges};
use crate::model::input::{Capabilities, LimitValue, Resource};
use crate::model::service::Hardening;

/// The hidden command that is this process.
pub const COMMAND: &str = "launch";

/// How long it waits for the runtime to write down that it is there.
const GO_LIMIT: Duration = Duration::from_secs(60);

/// Where the socket to the runtime is moved: out of the way of those that the server inherits.
const ASIDE: i32 = 200;

/// A secret is never longer, in bytes: the kernel takes no longer variable (execve(2), MAX_ARG_STRLEN).
const LONGEST_SECRET: u64 = 128 << 10;

/// Everything that the new master is to be.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Its command.
    pub command: Vec<String>,
    /// Its variables, but for the secrets and what only the process knows.
    pub environment: Vec<(String, String)>,
    /// Its user; none: as we are.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// Where it runs: the release, without links that may be switched.
    pub directory: String,
    /// Links, and where they led: a program that names its interpreter by one gets the other.
    pub pins: Vec<(String, String)>,
    /// Limits: resource, soft, hard.
    pub limits: Vec<(Resource, LimitValue, LimitValue)>,
    /// Its mask.
    pub umask: u32,
    /// As nice(1) counts.
    pub nice: Option<i8>,
    /// As proc(5) has it.
    pub oom_score_adj: Option<i16>,
    /// What is taken from it for good.
    pub hardening: Hardening,
    /// The secrets that it gets as files, and not as variables.
    #[serde(default)]
    pub secret_files: Vec<String>,
    /// So many listening sockets come with it.
    pub listeners: usize,
}

/// The process itself: standard input is the socket to the runtime, the output is already the server's.
pub fn main() -> u8 {
    let Ok(runtime) = fcntl_dupfd_cloexec(io::stdin(), ASIDE) else { return 1 };
    match launch(&runtime) {
        Err(reason) => {
            // If the runtime has gone, nobody wants to know.
            let _ = passing::send(&runtime, reason.as_bytes(), &[]);
            1
        }
        Ok(never) => match never {},
    }
}

fn launch(runtime: &OwnedFd) -> Result<std::convert::Infallible, String> {
    let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    passing::wait(runtime, GO_LIMIT).map_err(said("the launcher heard nothing"))?;
    let mut message =
        passing::receive_to_keep(runtime, passing::LONGEST).map_err(said("the launcher heard nothing"))?;
    let text = message.fds.pop().ok_or("the launcher received no order")?;
    let snapshot = fs::File::from(message.fds.pop().ok_or("the launcher received no order")?);
    let mut text = fs::File::from(text);
    let mut bytes = vec![];
    text.rewind().and_then(|()| text.read_to_end(&mut bytes)).map_err(said("the order cannot be read"))?;
    drop(text);
    let order: Order =
        serde_json::from_slice(&bytes).map_err(|error| format!("the order cannot be read: {error}"))?;
    let inherited = message.fds;
    let placed = (listen::FIRST..).zip(&inherited).all(|(number, fd)| fd.as_raw_fd() == number);
    if !placed || inherited.len() != order.listeners {
        return Err("the listening sockets did not come where they belong".to_owned());
    }

    // A session of its own: no terminal, and its processes are known by it. Its number is the master's.
    setsid().map_err(|error| format!("it gets no session: {error}"))?;
    for (resource, soft, hard) in &order.limits {
        limit(*resource, *soft, *hard);
    }
    if let Some(nice) = order.nice
        && let Err(error) = setpriority_process(None, nice.into())
    {
        say(&format!("nice cannot be {nice}: {error}"));
    }
    if let Some(score) = order.oom_score_adj
        && let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        say(&format!("oom_score_adj cannot be {score}: {error}"));
    }
    let mut secrets = secrets(&snapshot)?;
    secrets.retain(|name, _| !order.secret_files.contains(name));
    drop(snapshot);
    let null = fs::File::open("/dev/null").map_err(said("/dev/null cannot be opened"))?;

    // From here on only what was said by the runtime's "go" may happen: the process is written down.
    passing::wait(runtime, GO_LIMIT).map_err(said("the runtime said nothing"))?;
    let go = passing::receive(runtime, passing::LONGEST).map_err(said("the runtime said nothing"))?;
    if go.bytes != b"go" {
        return Err("the runtime has gone".to_owned());
    }
    hear_signals();
    rustix::stdio::dup2_stdin(&null).map_err(|error| format!("standard input cannot be set: {error}"))?;
    drop(null);
    isolation::isolate(&order.hardening)?;
    umask(Mode::from_raw_mode(order.umask));
    give_up_capabilities(&order)?;
    if let Some((uid, gid, groups)) = &order.user {
        become_user(*uid, *gid, groups)?;
    }
    if order.hardening.no_new_privileges {
        privileges::refuse_new().map_err(|error| format!("no-new-privileges cannot be set: {error}"))?;
    }
    let directory = &order.directory;
    let user = order.environment.iter().find(|(name, _)| name == "USER");
    let user = user.map_or_else(|| "the user".to_owned(), |(_, name)| format!("the user {name}"));
    std::env::set_current_dir(directory)
        .map_err(|error| format!("{user} cannot enter {directory}: {error}; does it lead to a release?"))?;
    let directory = std::env::current_dir().map_err(said("the release has no path"))?;
    // The first one is where the command is looked up, the last one is what the application sees.
    let mut paths =
        order.environment.iter().filter(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
    let path = paths.next().unwrap_or_default();
    let seen = paths.next_back().unwrap_or(path);
    let words = interpreter::pinned_command(&order.command, path, &order.pins);
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(interpreter::located(program, path, seen));
    command.args(arguments).env_clear().envs(order.environment.iter().map(|(name, value)| (name, value)));
    command.envs(&secrets);
    command.env("PWD", directory);
    if order.listeners > 0 {
        command
            .env("LISTEN_FDS", order.listeners.to_string())
            .env("LISTEN_PID", std::process::id().to_string());
    }
    for fd in &inherited {
        fcntl_setfd(fd, FdFlags::empty())
            .map_err(|error| format!("a socket cannot be inherited: {error}"))?;
    }
    let error = command.exec();
    let shown = if words == order.command { program } else { order.command.first().unwrap_or(program) };
    let reason = interpreter::why_not(program, path, &error);
    Err(format!("{shown} cannot be run: {reason}"))
}

/// What whoever started runsvdir had ignored is not ignored by the server: a caught signal is the default one in a program
/// that is run (execve(2)), an ignored one stays so.
fn hear_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The forbidden ones cannot be ignored, or end a program that makes them by itself whether they are or not (signal(7)).
    let ignored = (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1);
    for signal in ignored.filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal)) {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
}

/// Takes from the server, and from root among its processes, whatever capability a program could give it. It has to be done
/// before root is given up.
fn give_up_capabilities(order: &Order) -> Result<(), String> {
    if order.hardening.capabilities != Capabilities::None {
        return Ok(());
    }
    let Err(error) = privileges::bound(CapabilitySet::empty()) else { return Ok(()) };
    // Only who may set capabilities may empty the set. To who is not root and gets no new privileges it gives nothing.
    let is_root =
        order.user.as_ref().map_or_else(|| rustix::process::geteuid().is_root(), |user| user.0 == 0);
    if error != rustix::io::Errno::PERM {
        return Err(format!("its capabilities cannot be given up: {error}"));
    }
    if is_root || !order.hardening.no_new_privileges {
        say(&format!("hardening.capabilities: the bounding set cannot be emptied here: {error}"));
    }
    Ok(())
}

/// Gives up root for good: groups first, because they cannot be set afterwards.
pub(super) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), String> {
    let failed =
        |error: rustix::io::Errno| format!("the process cannot become the application's user: {error}");
    // Its own group is among them, as initgroups(3) and chpst have it.
    let own = Some(gid).filter(|gid| !groups.contains(gid));
    let groups: Vec<Gid> = own.into_iter().chain(groups.iter().copied()).map(Gid::from_raw).collect();
    set_thread_groups(&groups).map_err(failed)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    // The kernel could keep a way back only if it were told to; that it did not is cheap to see.
    if !uid.is_root() && set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok() {
        return Err("the process could become root again, so it does not go on".to_owned());
    }
    Ok(())
}

/// The secrets of a snapshot.
fn secrets(mut snapshot: &fs::File) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct Secrets {
        secrets: BTreeMap<String, String>,
    }
    let mut text = vec![];
    snapshot
        .rewind()
        .and_then(|()| snapshot.read_to_end(&mut text))
        .map_err(|error| format!("what it is made of cannot be read: {error}"))?;
    // The error names no text: it may be a secret.
    let read: Secrets =
        serde_json::from_slice(&text).map_err(|_| "what it is made of cannot be read: it is damaged")?;
    Ok(read.secrets)
}

/// As chpst -e reads a file: its first line, in which a NUL means a newline.
pub(crate) fn secret(directory: &str, name: &str) -> Result<String, String> {
    let path = format!("{directory}/{name}");
    let again = "render the service again";
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|file| file.take(LONGEST_SECRET).read_to_string(&mut text))
        .map_err(|error| format!("the secret {path} cannot be read: {error}; {again}"))?;
    Ok(text.split('\n').next().unwrap_or_default().replace('\0', "\n"))
}

/// Sets a limit as far as this host lets it be, and says where it does not.
fn limit(resource: Resource, soft: LimitValue, hard: LimitValue) {
    let number = |value| match value {
        LimitValue::Number(number) => Some(number),
        LimitValue::Word(_) => None,
    };
    let (kernel, name) = kernel(resource);
    let wanted = Rlimit { current: number(soft), maximum: number(hard) };
    if setrlimit(kernel, wanted).is_ok() {
        return;
    }
    // No limit is the highest.
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let reachable = getrlimit(kernel).maximum;
    let nearest =
        Rlimit { current: least(wanted.current, reachable), maximum: least(wanted.maximum, reachable) };
    let shown =
        |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
    let (soft, hard) = (shown(wanted.current), shown(wanted.maximum));
    match setrlimit(kernel, nearest) {
        Ok(()) => say(&format!(
            "limit {name}: {soft}:{hard} cannot be reached here, it is {}:{}",
            shown(nearest.current),
            shown(nearest.maximum)
        )),
        Err(error) => say(&format!("limit {name}: {soft}:{hard} could not be set: {error}")),
    }
}

fn kernel(resource: Resource) -> (Kernel, &'static str) {
    match resource {
        Resource::As => (Kernel::As, "as"),
        Resource::Core => (Kernel::Core, "core"),
        Resource::Cpu => (Kernel::Cpu, "cpu"),
        Resource::Data => (Kernel::Data, "data"),
        Resource::Fsize => (Kernel::Fsize, "fsize"),
        Resource::Locks => (Kernel::Locks, "locks"),
        Resource::Memlock => (Kernel::Memlock, "memlock"),
        Resource::Msgqueue => (Kernel::Msgqueue, "msgqueue"),
        Resource::Nofile => (Kernel::Nofile, "nofile"),
        Resource::Nproc => (Kernel::Nproc, "nproc"),
        Resource::Rss => (Kernel::Rss, "rss"),
        Resource::Rtprio => (Kernel::Rtprio, "rtprio"),
        Resource::Sigpending => (Kernel::Sigpending, "sigpending"),
        Resource::Stack => (Kernel::Stack, "stack"),
    }
}

/// Into the server's output, which is the log's, too.
fn say(sentence: &str) {
    use std::io::Write as _;
    let _ = writeln!(io::stdout(), "launcher: {sentence}");
}

/// What the launcher has said, for the runtime.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// The program runs: the socket was closed by that.
    Runs,
    /// It does not, and why.
    Failed(String),
}

/// Hears what the launcher has said.
pub fn hear(launcher: impl AsFd) -> Said {
    let hear = || passing::receive(&launcher, passing::LONGEST);
    // If it ended before it had read "go", that is told first and once, and what it had said comes after it.
    let message = hear().or_else(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => hear(),
        _ => Err(error),
    });
    match message {
        Ok(message) if message.bytes.is_empty() => Said::Runs,
        Ok(message) => Said::Failed(String::from_utf8_lossy(&message.bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Nothing,
        Err(error) => Said::Failed(format!("the launcher cannot be heard: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_ended_before_it_was_told_to_go_is_heard() {
        let (ours, theirs) = passing::pair().unwrap();
        assert_eq!(hear(&ours), Said::Nothing);
        passing::send(&theirs, b"why", &[]).unwrap();
        passing::send(&ours, b"go", &[]).unwrap();
        drop(theirs);
        assert_eq!(hear(&ours), Said::Failed("why".to_owned()));
        assert_eq!(hear(&ours), Said::Runs);
    }
}
