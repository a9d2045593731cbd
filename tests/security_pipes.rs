//! The application's user holds the lock of a pipe that it shares with root: whoever uses that pipe waits, and not even SIGKILL ends
//! that. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::host::{kill, lives};
use support::row::{Python, said};
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON};

/// What `runsmith status` and `upgrade` promise: no answer within this is an error (`asking::ANSWER`), on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Takes a descriptor of a process, and holds the lock of its pipe. It says a byte once it does: then its thread waits in splice(2).
/// Its number in the table of system calls is not the same everywhere, so a thread that waits elsewhere is compared.
const HOLDS: &str = r#"
import ctypes, os, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
pid, number, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
fd = libc.syscall(438, os.pidfd_open(pid), number, 0)
if fd < 0: raise OSError(ctypes.get_errno(), "pidfd_getfd")
ours, theirs = socket.socketpair()
def splices():
    if way == "writes":
        # More than is read at once, so that somebody is about to read.
        os.write(fd, b"x" * 60000)
        os.splice(ours.fileno(), fd, 1)
    else:
        os.kill(pid, signal.SIGSTOP)
        ours.setblocking(False)
        try:
            while True: ours.send(b"x" * 4096)
        except BlockingIOError: pass
        ours.setblocking(True)
        os.set_blocking(fd, True)
        os.splice(fd, ours.fileno(), 65536)
thread = threading.Thread(target=splices, daemon=True); thread.start()
def waits():
    try: return open("/proc/self/task/%d/stat" % thread.native_id).read().rsplit(")")[1].split()[0] == "S"
    except OSError: return False
seen = 0
while seen < 50:
    seen = seen + 1 if waits() else 0
    time.sleep(0.001)
os.write(1, b".")
signal.pause()
"#;

/// The state of a process (proc_pid_stat(5)).
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// A process of the user's, but not of the service's, that holds the lock of the server's output, and so the keeper.
fn hold_keeper(service: &Service) -> (Python, u32) {
    let until = Instant::now() + SOON;
    loop {
        let keeper = service.keeper().expect("a keeper");
        let master = service.master().to_string();
        let mut attacker = Python::run(&service.user, HOLDS, &[&master, "1", "writes"]);
        attacker.wait_for_bytes(1);
        // It may have read everything before the lock was taken: then it waits for more.
        if (0..200).all(|_| state(keeper) == Some('D')) {
            return (attacker, keeper);
        }
        assert!(Instant::now() < until, "the keeper is never kept waiting: {:?}", state(keeper));
    }
}

/// The keeper cannot even be killed: another one takes its place, and then none; the runtime answers, and root's commands succeed.
#[test]
fn a_keeper_that_is_held_holds_up_nobody() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}");
    let (attacker, keeper) = hold_keeper(&service);
    // What was written stays in the pipe, so each further keeper is kept waiting as well.
    let until = Instant::now() + SOON;
    loop {
        let begun = Instant::now();
        let status = service.runsmith(&["status"]);
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        if said(&status).contains("so that they cannot be ended") {
            break;
        }
        assert!(Instant::now() < until, "{}", said(&status));
    }
    assert!(lives(keeper), "SIGKILL does nothing");
    assert_eq!(service.keepers().len(), 2, "{:?}", service.keepers());
    // A master that writes there is held, too, until its user lets it go.
    let mark = service.begin_deploy(2, Release::Good);
    service.wait_for_version("2", HANDOVER);
    drop(attacker);
    service.log.wait(mark, &["done: generation 2 serves alone"], SOON);
    assert_eq!(service.keepers().len(), 1, "{:?}", service.keepers());
    service.down();
}

/// Whoever reads the log is a process of the user's, too: the lock of the log's pipe keeps nobody of root's waiting for ever.
#[test]
fn a_log_that_is_held_holds_up_nobody() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}\n");
    service.supervise();
    let started =
        Command::new("sv").args(["-w", "60", "start"]).arg(&service.directory).output().expect("sv");
    assert!(started.status.success(), "{started:?}");
    let reader = service.svlogd();
    let mut attacker = Python::run(&service.user, HOLDS, &[&reader.to_string(), "0", "reads"]);
    attacker.wait_for_bytes(1);
    for number in 2..4 {
        service.release(number, Release::Good);
        service.switch(number);
        let upgrade = service.runsmith(&["upgrade"]);
        assert!(upgrade.status.success(), "{}", said(&upgrade));
        assert_eq!(service.version(), number.to_string());
    }
    let status = service.runsmith(&["status"]);
    assert!(said(&status).contains("keeps those waiting"), "{}", said(&status));
    // Only the run is killed: the next one cannot say what it does either.
    kill(service.runtime(), Signal::KILL);
    let until = Instant::now() + SOON;
    // The log is a problem, so the service counts as degraded.
    while !said(&service.runsmith(&["status"])).contains("DEGRADED") {
        assert!(Instant::now() < until, "{}", said(&service.runsmith(&["status"])));
    }
    assert_eq!(service.version(), "3");
    let down = service.sv("down");
    assert!(down.status.success(), "{down:?}");
    assert!(service.address.get("/").is_err(), "it answers");
    drop(attacker);
    kill(reader, Signal::CONT);
    service.sv("exit");
}
