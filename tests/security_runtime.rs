//! The application's user attacks the runtime: it is never blocked, exhausted or deceived. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::host::kill;
use support::row::{Python, Row, said};
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON};

/// What `runsmith status` and `upgrade` promise: no answer within this is an error (`asking::ANSWER`), on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A TCP socket whose closing waits for 1,000,000 seconds: what was sent is not read, and SO_LINGER is set.
const LINGERING: &str = r#"
import array, os, select, signal, socket, struct, sys, time
def lingering():
    listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(1)
    ours = socket.socket(); ours.connect(listener.getsockname()); theirs, _ = listener.accept()
    ours.setblocking(False)
    try:
        while True: ours.send(b"x" * 65536)
    except BlockingIOError: pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000000))
    held.extend([listener, theirs])
    return ours
held = []
"#;

/// Sends such a socket to `ready` and `control` of a run directory, from processes that end at once.
const PASSES: &str = r#"
run = sys.argv[1]
def attack(kind, name, text):
    pid = os.fork()
    if pid == 0:
        evil = lingering()
        to = socket.socket(socket.AF_UNIX, kind); to.settimeout(20)
        to.connect(run + "/" + name)
        try: to.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [evil.fileno()]))])
        except PermissionError: pass
        # A process that ends does not wait for what it has open.
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
for _ in range(8):
    attack(socket.SOCK_DGRAM, "ready", b"ready 1 2 3\n")
    attack(socket.SOCK_STREAM, "control", b"x")
    attack(socket.SOCK_STREAM, "control", b'{"ask":"status"}\n')
print("sent")
"#;

/// Many connections that say nothing, garbage, or ask and do not read.
const GARBAGE: &str = r#"
import os, resource, signal, socket, sys
run = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ready.connect(run + "/ready")
held = []
for number in range(400):
    one = socket.socket(socket.AF_UNIX)
    one.connect(run + "/control")
    held.append(one)
    try: one.sendall([b"", b"\xff\0\n", b"x" * 100, b"x" * 100000, b'{"ask":"stop"}\n', b'{"ask":"status"}\n' * 50][number % 6])
    except OSError: pass
    ready.send([b"", b"\xff\0", b"x" * 9000, b"ready 1 2 3\n", b"READY=1"][number % 5])
os.write(1, b".")
signal.pause()
"#;

/// Fills the queue of a socket that nobody accepts from.
const FULL: &str = "
import os, signal, socket, sys
held = []
try:
    while True:
        one = socket.socket(socket.AF_UNIX); one.setblocking(False); one.connect(sys.argv[1] + '/control'); held.append(one)
except BlockingIOError: pass
os.write(1, b'.')
signal.pause()
";

/// Calls itself the service, with an environment of so many bytes: PR_SET_MM_MAP names any memory as it
/// (prctl(2)).
const LONG: &str = r#"
import ctypes, mmap, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
length, variables = int(sys.argv[1]), sys.argv[2].encode()
memory = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:len(variables) + 1] = variables + b"\0"
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fields = open("/proc/self/stat").read().rsplit(") ", 1)[1].split()
code, end_code, stack, data, end_data, brk, arguments, end_arguments = (int(fields[at]) for at in (23, 24, 25, 42, 43, 44, 45, 46))
libc.sbrk.restype = ctypes.c_void_p
auxv = b""
map = ctypes.create_string_buffer(struct.pack("12QIi", code, end_code, data, end_data, brk, libc.sbrk(0), stack, arguments, end_arguments, start, start + length, 0, 0, -1))
if libc.prctl(35, 14, map, len(map) - 1, 0):
    raise OSError(ctypes.get_errno(), "prctl")
assert len(open("/proc/self/environ", "rb").read(100)) == 100
os.write(1, b".")
signal.pause()
"#;

fn attack(service: &Service, script: &str, arguments: &[&str]) -> String {
    let output = Python::output(&service.user, script, arguments);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run_directory(service: &Service) -> String {
    service.run_directory().display().to_string()
}

/// The runtime answers, hands over, and stops.
fn works(row: Row) {
    let status = row.service.runsmith(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}\n{}", said(&status), row.service.log.text(0));
    row.end();
}

/// A service whose old generations get two seconds.
fn service() -> Service {
    Service::start_native(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}")
}

/// `runsmith upgrade` that goes on meanwhile.
fn begin_upgrade(service: &Service) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
    command.arg("upgrade").arg(&service.directory).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("runsmith")
}

#[test]
fn descriptors_sent_to_the_runtime_do_not_block_it() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let script = format!("{LINGERING}{PASSES}");
    assert_eq!(attack(&row.service, &script, &[&run_directory(&row.service)]), "sent\n");
    works(row);
}

#[test]
fn garbage_and_hundreds_of_connections_do_not_block_the_runtime() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "");
    let mut attacker = Python::run(&row.service.user, GARBAGE, &[&run_directory(&row.service)]);
    attacker.wait_for_bytes(1);
    let status = row.service.runsmith(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}\n{}", said(&status), row.service.log.text(0));
    row.upgrade();
    drop(attacker);
    works(row);
}

/// A runtime that does not answer is reported, and the others are, too. A hand-over that was begun before ends as well.
#[test]
fn a_blocked_runtime_blocks_neither_status_nor_upgrade() {
    let (blocked, other) = (service(), service());
    let links = blocked.scratch().join("links");
    fs::create_dir(&links).unwrap();
    for one in [&blocked, &other] {
        symlink(&one.directory, links.join(&one.name)).unwrap();
    }
    blocked.release(2, Release::Waiting);
    blocked.switch(2);
    let mark = blocked.log.mark();
    let begun = begin_upgrade(&blocked);
    blocked.log.wait(mark, &["hand-over: generation"], SOON);
    let runtime = blocked.runtime();
    kill(runtime, Signal::STOP);
    let mut full = Python::run(&blocked.user, FULL, &[&run_directory(&blocked)]);
    full.wait_for_bytes(1);
    let ask = |arguments: &[&str]| {
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let output = command.args(arguments).env("SVDIR", &links).output().unwrap();
        assert!(begun.elapsed() < LIMIT, "{arguments:?} took {:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    let all = ask(&["status"]);
    let of_other = all.lines().find(|line| line.starts_with(&other.name)).unwrap_or_else(|| panic!("{all}"));
    assert!(of_other.contains("serving"), "{all}");
    assert!(all.contains(&format!("the runtime of {}: it is stopped by a signal", blocked.name)), "{all}");
    let stopped = format!("`kill -CONT {runtime}`");
    assert!(all.contains(&stopped), "{all}");
    let refused = ask(&["upgrade", &blocked.name]);
    assert!(refused.contains(&stopped), "{refused}");
    let output = begun.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains(&stopped), "{}", said(&output));
    drop(full);
    kill(runtime, Signal::CONT);
    blocked.go();
    blocked.log.wait(mark, &["done: generation 2"], HANDOVER);
    blocked.down();
    other.down();
}

/// The most memory that a process has had, in bytes (proc_pid_status(5), VmHWM).
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// So much memory the runtime may take while it looks at the processes of others, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn an_environment_of_a_gigabyte_takes_no_memory_of_roots() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let variables = format!("RUNSMITH_SERVICE={}", row.service.name);
    let length = (1u64 << 30).to_string();
    // The variable is at the beginning, or nowhere.
    let attackers = [variables.as_str(), "X=1"].map(|variables| {
        let mut attacker = Python::run(&row.service.user, LONG, &[&length, variables]);
        attacker.wait_for_bytes(1);
        attacker
    });
    row.kill_runtime();
    let status = row.service.runsmith(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}\n{}", said(&status), row.service.log.text(0));
    let peak = peak(row.service.runtime());
    assert!(peak < MEMORY, "{peak} bytes\n{}", row.service.log.text(0));
    let found = row.service.log.count(0, "processes were found that no record names");
    assert_eq!(found, 1, "{}", row.service.log.text(0));
    drop(attackers);
    works(row);
}

#[test]
fn an_environment_of_a_gigabyte_takes_no_memory_of_a_shell_run_script() {
    let service = Service::start(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}");
    let length = (1u64 << 30).to_string();
    let ours = format!("RUNSMITH_SERVICE={}", service.name);
    let attackers = [ours.as_str(), "X=1"].map(|variables| {
        let mut attacker = Python::run(&service.user, LONG, &[&length, variables]);
        attacker.wait_for_bytes(1);
        attacker
    });
    // Without a record it looks for processes that call themselves the service, and ends them.
    let mark = service.log.mark();
    let script = service.runtime();
    kill(script, Signal::STOP);
    fs::remove_file(service.run_directory().join("state")).unwrap();
    kill(script, Signal::KILL);
    service.log.wait(mark, &["of which no record is left"], SOON);
    service.log.wait(mark, &["runsmith: ready:"], HANDOVER);
    let peak = peak(service.runtime());
    assert!(peak < MEMORY, "{peak} bytes\n{}", service.log.text(0));
    drop(attackers);
    service.down();
}
