//! The application's user attacks a shell run script. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use support::host::{commands, kill, lives};
use support::log::Log;
use support::row::Python;
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON, START};

/// The process that looks at what is to be started, as the application's user, while there is one.
fn preflight(service: &Service) -> Option<u32> {
    let user = service.user.processes();
    let is_it = |command: &[String]| command.iter().any(|word| word.contains("current=$1 config=$2"));
    let found = commands().into_iter().filter(|(_, command)| is_it(command)).map(|(pid, _)| pid);
    found.into_iter().find(|pid| user.iter().any(|process| process.pid == *pid))
}

/// Waits for the next one.
fn await_preflight(service: &Service) -> u32 {
    let until = Instant::now() + SOON;
    loop {
        if let Some(pid) = preflight(service) {
            return pid;
        }
        assert!(Instant::now() < until, "nothing is looked at; the log:\n{}", service.log.text(0));
    }
}

/// A service whose virtualenv is its own, so that its user may change the server's program.
fn with_own_program() -> (Service, PathBuf) {
    let mut service = Service::render(Server::Any, Socket::Tcp, "");
    let program = service.scratch().join("program");
    // Its first line takes a moment to read, byte by byte.
    let blanks = " ".repeat(300_000);
    fs::write(&program, format!("#!/bin/sh{blanks}\nexec sleep 100000\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    service.runs(&format!("[{}]", program.display()));
    (service, program)
}

/// So that whoever looks at it does for a while. Another file takes its place, because the program runs.
fn takes_long_to_read(program: &Path) {
    let new = program.with_extension("new");
    let mut file = fs::File::create(&new).unwrap();
    file.write_all(b"#!").unwrap();
    file.write_all(&vec![b'a'; 50_000_000]).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

/// `current` is exchanged for a link into a directory of root's once it was looked at, and before the server is started.
#[test]
fn the_release_is_entered_as_the_user() {
    let (service, _) = with_own_program();
    let service = service.started();
    let closed = tempfile::Builder::new().prefix("rst").tempdir().unwrap();
    fs::create_dir(closed.path().join("in")).unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let evil = service.root.join("evil");
    symlink(closed.path().join("in"), &evil).unwrap();
    let current = service.root.join("current");
    let exchange = || renameat_with(CWD, &evil, CWD, &current, RenameFlags::EXCHANGE).unwrap();
    let mut hits = 0;
    for _ in 0..10 {
        let mark = service.log.mark();
        kill(service.master(), Signal::KILL);
        let looks = await_preflight(&service);
        while lives(looks) {
            std::thread::yield_now();
        }
        exchange();
        // It has become the server, or has not been able to.
        let line = service.log.wait(mark, &["can't cd", "ready:", "cannot start"], HANDOVER);
        for process in service.user.processes() {
            let inside = fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
            assert!(!inside.starts_with(closed.path()), "{process:?} is in {}", inside.display());
        }
        exchange();
        hits += u32::from(service.log.text(mark).contains("can't cd") || line.text.contains("cannot enter"));
        let after = service.log.mark();
        if service.user.masters().is_empty() {
            service.sv("2");
            service.log.wait(after, &["ready:"], HANDOVER);
        }
        if hits > 1 {
            break;
        }
    }
    assert!(hits > 0, "the attack was never in time: {}", service.log.text(0));
    // Where the link leads was never looked up as root.
    let path = closed.path().join("in").display().to_string();
    assert!(!service.log.text(0).contains(&format!("in {path}")), "{}", service.log.text(0));
    service.down();
}

/// Somebody writes for ever to what the process that looks says.
#[test]
fn what_is_said_by_who_looks_is_read_within_bounds() {
    let (service, program) = with_own_program();
    let service = service.started();
    let runtime = support::runsv::running(&service.directory);
    let master = service.master();
    takes_long_to_read(&program);
    let mark = service.log.mark();
    service.sv("2");
    let looks = await_preflight(&service);
    let output = taken(looks, 1);
    let until = Instant::now() + Duration::from_secs(7);
    let mut written = 0;
    while Instant::now() < until {
        match rustix::io::write(output.as_fd(), &[b'A'; 65_536]) {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    service.log.wait(mark, &["FAILED"], HANDOVER);
    let memory = fs::read_to_string(format!("/proc/{runtime}/status")).unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(written < 10_000_000 && peak < 32_768, "{written} bytes, {peak} KiB");
    let longest = service.log.text(mark).lines().map(str::len).max().unwrap();
    assert!(longest < 5_000, "{longest}");
    kill(master, Signal::KILL);
    service.sv("down");
}

/// A descriptor of a process.
fn taken(pid: u32, number: i32) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    let taken = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).expect("its output");
    rustix::io::ioctl_fionbio(&taken, false).unwrap();
    taken
}

/// What the helpers of the script get, any process of the user may look into.
#[test]
fn helpers_have_no_variables_of_roots_and_no_way_to_more_rights() {
    let (mut service, program) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut runsv = Command::new("runsv");
    runsv.env("ROOT_ONLY_TOKEN", "token-of-root");
    service.supervise_by(runsv, writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["ready:"], HANDOVER);
    let master = service.master();
    takes_long_to_read(&program);
    service.sv("2");
    let looks = await_preflight(&service);
    let environment = fs::read(Path::new("/proc").join(looks.to_string()).join("environ")).unwrap();
    let status = fs::read_to_string(format!("/proc/{looks}/status")).unwrap();
    let text = String::from_utf8_lossy(&environment);
    assert!(!text.contains("ROOT_ONLY") && text.contains("PATH="), "{text}");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapBnd:\t0000000000000000"), "{status}");
    kill(master, Signal::KILL);
    service.sv("down");
}

/// Between becoming the user and the program there is no moment in which a process could be taken that may gain rights.
#[test]
fn no_process_of_the_user_may_ever_gain_rights() {
    let (mut service, _) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    let uid = service.user.uid.to_string();
    let (stop, stops) = std::sync::mpsc::channel::<()>();
    let seen = std::thread::scope(|scope| {
        let looking = scope.spawn(move || {
            let mut seen = 0;
            // It ends with whoever waits, also by a panic.
            while stops.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
                    let field = |name: &str| {
                        let line = status.lines().find_map(|line| line.strip_prefix(name));
                        line.map(|value| value.trim().to_owned()).unwrap_or_default()
                    };
                    if field("Uid:").split('\t').next() == Some(&uid)
                        && field("State:").starts_with(['R', 'S', 'D'])
                    {
                        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
                        assert_eq!(field("CapBnd:"), "0000000000000000", "{status}");
                        seen += 1;
                    }
                }
            }
            seen
        });
        service.supervise_by(Command::new("runsv"), writer);
        service.log = Log::follow(reader);
        service.log.wait(0, &["ready:"], HANDOVER);
        for _ in 0..3 {
            let mark = service.log.mark();
            service.sv("2");
            service.log.wait(mark, &["ready:"], HANDOVER);
        }
        drop(stop);
        looking.join().unwrap()
    });
    assert!(seen > 20, "{seen}");
    service.down();
}

/// Traces each program that root runs as this user, and keeps its end from its parent (ptrace(2)). It says a byte for each.
const KEEPS: &str = r#"
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
os.write(1, b".")
last, tried = os.getpid(), {}
while True:
    newest = int(open("/proc/loadavg").read().split()[-1])
    # Its number is known before it has become this user.
    for pid in range(last + 1, newest + 1): tried[pid] = time.monotonic()
    last = max(last, newest)
    for pid, since in list(tried.items()):
        if libc.ptrace(0x4206, pid, None, None) == 0:
            os.write(1, b"k")
            del tried[pid]
        elif time.monotonic() - since > 2: del tried[pid]
"#;

/// Whoever traces what the script runs as the user keeps its end from the script, for ever: it goes on all the same.
#[test]
fn helpers_that_their_user_traces_do_not_hold_up_the_script() {
    let (mut service, program) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    service.supervise_by(Command::new("runsv"), writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["ready:"], HANDOVER);
    let mut attacker = Python::run(&service.user, KEEPS, &[]);
    attacker.wait_for_bytes(1);
    takes_long_to_read(&program);
    let mark = service.log.mark();
    service.sv("2");
    // What looks at the new program is held first.
    attacker.wait_for_bytes(1);
    service.log.wait(mark, &["hand-over FAILED"], HANDOVER);
    let down = Command::new("sv").args(["-w", "180", "down"]).arg(&service.directory).output().unwrap();
    drop(attacker);
    assert!(down.status.success(), "{down:?}; the log:\n{}", service.log.text(0));
    service.sv("exit");
}

/// Takes a pipe, by its path or out of a process, and holds the lock of it by a splice that nobody ends. It says a byte before.
const HOLDS: &str = r#"
import ctypes, os, socket, sys
if len(sys.argv) == 2: pipe = os.open(sys.argv[1], os.O_WRONLY)
else: pipe = ctypes.CDLL(None).syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0)
assert pipe >= 0
# Whoever hears this is to read it.
if len(sys.argv) == 2: os.write(pipe, b"x")
ends = socket.socketpair()
os.write(1, b".")
os.splice(ends[0].fileno(), pipe, 4096)
"#;

/// Waits until a process sleeps.
fn until_it_sleeps(pid: u32) {
    let until = Instant::now() + SOON;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S')) {
            return;
        }
        assert!(Instant::now() < until, "{stat}");
        std::thread::yield_now();
    }
}

/// A process of the user's, no part of the service, that holds the lock of a pipe.
fn holder(service: &Service, pipe: &[&str]) -> Python {
    let mut attacker = Python::run(&service.user, HOLDS, pipe);
    attacker.wait_for_bytes(1);
    until_it_sleeps(attacker.pid());
    attacker
}

/// `sv down` that succeeds; of the user's processes only the others are left, so many of them.
fn goes_down(service: &Service, others: usize) {
    let down = Command::new("sv").args(["-w", "180", "down"]).arg(&service.directory).output().unwrap();
    let left = service.user.processes();
    assert!(down.status.success() && left.len() == others, "{down:?}, {left:?}");
}

/// Somebody writes a byte into the pipe of claims, and holds its lock: who reads, opens or closes it then cannot even be killed.
#[test]
fn the_pipe_of_claims_may_be_locked() {
    let service = Service::start(Server::Sync, Socket::Tcp, "");
    let fifo = service.run_directory().join("ready").display().to_string();
    let first = holder(&service, &[&fifo]);
    // A run that is killed ends, and the next one has another pipe.
    let mark = service.log.mark();
    service.sv("kill");
    service.log.wait(mark, &["goes on under this run"], SOON);
    let line = service.deploy(2, Release::Good);
    assert!(line.text.contains("done:"), "{}", service.log.text(0));
    let second = holder(&service, &[&fifo]);
    goes_down(&service, 2);
    let mark = service.log.mark();
    service.sv("up");
    service.log.wait(mark, &["runsmith: ready:"], START);
    drop((first, second));
    service.down();
}

/// Another process of the user's holds the lock of the log's pipe: no line can be written, and who tries cannot even be killed.
#[test]
fn the_log_may_be_locked_from_outside() {
    let (service, _) = with_own_program();
    let service = service.started();
    let attacker = holder(&service, &[&service.master().to_string(), "1"]);
    goes_down(&service, 1);
    drop(attacker);
    service.sv("exit");
}

/// The same by a process of the service, which does not end when it is asked to.
#[test]
fn the_log_may_be_locked_from_within() {
    let (mut service, program) = with_own_program();
    let mark = service.root.join("shared/logs/mark");
    let text = format!(
        "#!/usr/bin/python3\nimport os, signal, socket\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nends = socket.socketpair()\n\
         open({mark:?} + '.waits', 'w').close()\nsignal.sigwait([signal.SIGUSR1])\n\
         open({mark:?}, 'w').close()\nos.splice(ends[0].fileno(), 1, 4096)\n"
    );
    fs::write(program, text).unwrap();
    service.rewrite(|pillar| format!("{pillar}\nhandoff: {{drain_timeout: 2}}\n"));
    let service = service.started();
    let master = service.master();
    service.until("it waits for the signal", |_| mark.with_extension("waits").exists());
    kill(master, Signal::USR1);
    service.until("it has heard the signal", |_| mark.exists());
    until_it_sleeps(master);
    goes_down(&service, 0);
    service.sv("exit");
}

/// Somebody holds the lock of the pipe that takes what the process that looks says.
#[test]
fn the_answer_of_who_looks_may_be_locked() {
    let (service, program) = with_own_program();
    let service = service.started();
    let master = service.master();
    takes_long_to_read(&program);
    let mark = service.log.mark();
    service.sv("2");
    let looks = await_preflight(&service);
    let output = taken(looks, 1);
    let (end, other_end) = std::os::unix::net::UnixStream::pair().unwrap();
    let line = std::thread::scope(|scope| {
        let holds = scope.spawn(|| {
            let flags = rustix::pipe::SpliceFlags::empty();
            rustix::pipe::splice(end.as_fd(), None, output.as_fd(), None, 4096, flags)
        });
        let line = service.log.wait(mark, &["FAILED"], HANDOVER);
        // So that the thread ends.
        drop(other_end);
        let _ = holds.join().unwrap();
        line
    });
    assert!(line.text.contains("the checks did not finish"), "{}", line.text);
    assert_eq!(service.master(), master);
    kill(master, Signal::KILL);
    service.sv("down");
}

/// The environment of a process can be kept from who reads it, by a program that it never gets to run (a file of FUSE that is closed
/// meanwhile). Here the helper never gets to read one.
#[test]
fn an_environment_that_cannot_be_read_does_not_hold_up_the_script() {
    let mut service = Service::render(Server::Sync, Socket::Tcp, "");
    service.edit_run(|text| {
        let reads = "head -c \"$2\" -- \"$file\"";
        assert!(text.contains(reads), "{text}");
        text.replace(reads, "sleep 1000")
    });
    service.supervise();
    service.log.wait(0, &["runsmith: ready:"], START);
    let line = service.deploy(2, Release::Good);
    assert!(line.text.contains("done:"), "{}", service.log.text(0));
    service.down();
}

/// The directory of the PID files leads to one that only root can enter.
#[test]
fn the_users_directories_are_looked_at_as_the_user() {
    let mut service = Service::render(Server::Sync, Socket::Tcp, "");
    let closed = tempfile::Builder::new().prefix("rst").tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let file = service.pid_file();
    let directory = file.parent().unwrap();
    for suffix in ["", ".2", ".parked"] {
        let name = format!("{}{suffix}", file.file_name().unwrap().to_str().unwrap());
        fs::write(closed.path().join(name), "1\n").unwrap();
    }
    fs::remove_dir(directory).unwrap();
    symlink(closed.path(), directory).unwrap();
    service.supervise();
    service.log.wait(0, &["runsmith: starting"], START);
    assert_eq!(service.log.count(0, "stale PID file"), 0, "{}", service.log.text(0));
    service.sv("down");
    assert_eq!(fs::read_dir(closed.path()).unwrap().count(), 3);
}

/// The first thread of the server ends and looks like a zombie, while another one goes on: it is no server that has died.
#[test]
fn a_process_whose_first_thread_has_ended_is_not_waited_for() {
    let (service, program) = with_own_program();
    let text = "#!/usr/bin/python3\nimport ctypes, threading, time\n\
                threading.Thread(target=time.sleep, args=(100000,)).start()\nctypes.CDLL(None).pthread_exit(None)\n";
    fs::write(program, text).unwrap();
    let service = service.started();
    service.down();
}

/// The same of a process in a session of its own, which its environment alone tells of: it ends with the service.
#[test]
fn a_process_whose_first_thread_has_ended_is_known_by_its_environment() {
    let (service, program) = with_own_program();
    let mark = service.root.join("shared/logs/mark");
    let text = format!(
        "#!/usr/bin/python3\nimport ctypes, os, signal, threading, time\nif os.fork() == 0:\n    os.setsid()\n    \
         threading.Thread(target=time.sleep, args=(100000,)).start()\n    open('{0}.new', 'w').write(str(os.getpid()))\n    \
         os.rename('{0}.new', '{0}')\n    ctypes.CDLL(None).pthread_exit(None)\nsignal.pause()\n",
        mark.display()
    );
    fs::write(program, text).unwrap();
    let service = service.started();
    while !mark.exists() {
        std::thread::yield_now();
    }
    let pid = fs::read_to_string(&mark).unwrap();
    service.down();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    assert!(threads <= 1, "{}", service.log.text(0));
}

/// What runsv has open besides is neither the script's nor the application's.
#[test]
fn descriptors_of_whoever_starts_runsv_do_not_reach_the_application() {
    let (mut service, _) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    let secret = service.scratch().join("of-root");
    fs::write(&secret, "root alone").unwrap();
    let mut runsv = Command::new("bash");
    let open = format!("exec 60<{0} 255<{0}; exec runsv \"$0\"", secret.display());
    runsv.args(["-c", &open]);
    service.supervise_by(runsv, writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["ready:"], HANDOVER);
    for pid in [service.runtime(), service.master()] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            assert_ne!(fs::read_link(entry.path()).ok(), Some(secret.clone()), "{pid}: {entry:?}");
        }
    }
    service.down();
}

/// Whoever can open the script's lock can hold it: nobody but root can, and one that an earlier version has left is replaced.
#[test]
fn the_lock_of_the_script_is_roots_alone() {
    let (mut service, _) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    let run = service.run_directory();
    fs::create_dir_all(&run).unwrap();
    let lock = run.join("lock");
    fs::write(&lock, "").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    let holds = "import fcntl, os, signal, sys\nfcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX)\nos.write(1, b'.')\nsignal.pause()";
    let mut outsider = Python::run(&service.user, holds, &[lock.to_str().unwrap()]);
    outsider.wait_for_bytes(1);
    service.supervise_by(Command::new("runsv"), writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["ready:"], HANDOVER);
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    drop(outsider);
    service.down();
}

/// Whoever stops what sends SIGKILL as the user is killed by root.
#[test]
fn who_stops_what_kills_is_killed_all_the_same() {
    const STOPS: &str = r#"
import os, signal
os.write(1, b".")
mine, seen = os.getpid(), set()
while True:
    for name in os.listdir("/proc"):
        if not name.isdigit() or name in seen or int(name) == mine: continue
        try:
            if os.stat("/proc/" + name).st_uid == os.getuid(): os.kill(int(name), signal.SIGSTOP)
            else: continue
        except OSError: continue
"#;
    let (mut service, _) = with_own_program();
    let (reader, writer) = std::io::pipe().unwrap();
    service.supervise_by(Command::new("runsv"), writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["ready:"], HANDOVER);
    let master = service.master();
    let mut attacker = Python::run(&service.user, STOPS, &[]);
    attacker.wait_for_bytes(1);
    let down = Command::new("sv").args(["-w", "180", "down"]).arg(&service.directory).output().unwrap();
    drop(attacker);
    assert!(down.status.success(), "{down:?}; the log:\n{}", service.log.text(0));
    assert!(!lives(master), "{}", service.log.text(0));
    service.sv("exit");
}

/// Nobody reads the log, and it is full: the application ends all the same.
#[test]
fn a_log_that_nobody_reads_does_not_keep_a_shell_script_from_ending() {
    let (mut service, _) = with_own_program();
    let (_reader, writer) = std::io::pipe().unwrap();
    let full = writer.try_clone().unwrap();
    service.supervise_by(Command::new("runsv"), writer);
    let until = Instant::now() + SOON;
    while service.user.masters().is_empty() {
        assert!(Instant::now() < until, "nothing was started");
    }
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while rustix::io::write(&full, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let down = Command::new("sv").args(["-w", "60", "down"]).arg(&service.directory).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(service.user.processes().is_empty());
    service.sv("exit");
}
