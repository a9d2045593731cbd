//! The application's user attacks the runtime: it is never blocked, exhausted or deceived. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::host::{kill, lives, processor_time, run};
use support::load::Address;
use support::row::{Python, Row, said};
use support::service::{Release, Server, Service, Socket};
use support::{BOOT, HANDOVER, SOON, START, STOP, wait_for_file};

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

/// The first worker starts a process whose main thread ends at once; another one answers requests.
const HEADLESS: &str = r#"
import os
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
if is_first and os.fork() == 0:
    import ctypes, platform, select, socket, threading, time
    listener = socket.socket(fileno=os.dup(3))
    def serve():
        open("MARK.serves", "w").close()
        while True:
            try:
                select.select([listener], [], [])
                one, _ = listener.accept()
                one.recv(1000)
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nattacker")
                one.close()
            except OSError: time.sleep(0.01)
    threading.Thread(target=serve).start()
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)
"#;

/// The same in a session of its own, with every signal ignored; and a process of the session that has to be killed keeps the generation
/// until the time to drain is over. So nobody has looked for the first one when the cgroup is killed.
const HEADLESS_ELSEWHERE: &str = r#"
import signal, subprocess
subprocess.Popen(["/bin/sh", "-c", "trap : TERM; while :; do sleep 1; done"])
def leave():
    os.setsid()
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
"#;

/// Sends the listening socket of the service to somebody.
const GIVES_AWAY: &str = r#"
import socket
to = socket.socket(socket.AF_UNIX)
try: to.connect("\0NAME"); socket.send_fds(to, [b"x"], [3])
except OSError: pass
"#;

/// Takes that socket, and answers by it. With a signal, it listens again.
const TAKES: &str = r#"
import os, select, signal, socket, sys, time
door = socket.socket(socket.AF_UNIX); door.bind("\0" + sys.argv[1]); door.listen(9)
os.write(1, b".")
_, fds, _, _ = socket.recv_fds(door.accept()[0], 9, 9)
listener = socket.socket(fileno=fds[0])
def listen(*_): listener.listen(9); os.write(1, b".")
signal.signal(signal.SIGUSR1, listen)
if len(sys.argv) > 2: os.link(*sys.argv[2:])
os.write(1, b".")
while True:
    try:
        select.select([listener], [], [])
        one, _ = listener.accept()
        one.recv(1000)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nattacker")
        one.close()
    except OSError: time.sleep(0.01)
"#;

/// Starts many processes that hear nothing, and once it is told to ends one after the other.
const DEATHS: &str = r#"
import os, signal, time
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
if is_first and os.fork() == 0:
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD): signal.signal(number, signal.SIG_IGN)
    pids = []
    for _ in range(400):
        pid = os.fork()
        if pid == 0:
            while True: signal.pause()
        pids.append(pid)
    open("MARK.begun", "w").close()
    while not os.path.exists("MARK.go"): time.sleep(0.02)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    os._exit(0)
"#;

/// Calls itself the service in very many sessions, until it is killed.
const SESSIONS: &str = r#"
import os, sys
name, count = sys.argv[1:]
CHILDREN = """
import ctypes, os, signal, sys
libc, parent = ctypes.CDLL(None), os.getpid()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        libc.prctl(1, signal.SIGKILL)
        if os.getppid() != parent: os._exit(0)
        os.setsid()
        os.write(1, b".")
        while True: signal.pause()
signal.pause()
"""
os.execve("/usr/bin/python3", ["python3", "-c", CHILDREN, count], {"RUNSMITH_SERVICE": name, "RUNSMITH_GENERATION": "7"})
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

fn assert_refused(address: &Address) {
    // An answer that comes late would be none.
    for _ in 0..5 {
        let answer = address.get("/");
        assert!(
            answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
            "{answer:?}"
        );
    }
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

/// A service whose first worker has started such a process, which serves.
fn with_a_headless_process(script: &str) -> Service {
    let (service, mark) =
        Service::native_with(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}", script);
    let service = service.started();
    wait_for_file(&format!("{mark}.serves"));
    service
}

/// Such a process ends with its generation, and with the service.
fn ends_with_its_generation(script: &str) {
    let service = with_a_headless_process(script);
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
    service.assert_one_generation();
    for _ in 0..30 {
        assert_eq!(service.version(), "2", "{}", service.log.text(0));
    }
    service.down();
    assert_refused(&service.address);
}

/// What has a living thread is alive.
#[test]
fn a_process_whose_main_thread_has_ended_is_not_gone() {
    ends_with_its_generation(HEADLESS);
    // The same when nothing takes over.
    let service = with_a_headless_process(HEADLESS);
    service.down();
    assert_refused(&service.address);
    service.sv("up");
    service.wait_for_version("1", START);
    service.down();
}

/// `cgroup.kill` sends its signal to first threads only.
#[test]
fn a_process_whose_main_thread_has_ended_is_killed_with_its_cgroup() {
    let script = HEADLESS
        .replace("import os\n", &format!("import os\n{HEADLESS_ELSEWHERE}"))
        .replace("    import ctypes,", "    leave()\n    import ctypes,");
    ends_with_its_generation(&script);
}

/// Whoever has a copy of a listening socket, and is not the service's, serves nobody once the service is down.
fn a_copy_serves_nobody(socket: Socket) {
    let (service, _) = Service::native_with(Server::Sync, socket, "handoff: {drain_timeout: 2}", GIVES_AWAY);
    let mut arguments = vec![service.name.clone()];
    let address = match &service.address {
        Address::Tcp(port) => Address::Tcp(*port),
        Address::Unix(path) => {
            let link = service.root.join("shared/logs/link").display().to_string();
            arguments.extend([path.clone(), link.clone()]);
            Address::Unix(link)
        }
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut attacker = Python::run(&service.user, TAKES, &arguments);
    attacker.wait_for_bytes(1);
    let service = service.started();
    attacker.wait_for_bytes(1);
    let mark = service.log.mark();
    service.sv("down");
    service.log.wait(mark, &["nothing is left"], STOP);
    assert_refused(&address);
    service.sv("up");
    service.wait_for_version("1", START);
    assert!((0..30).all(|_| service.version() == "1"));
    let mark = service.log.mark();
    service.sv("down");
    service.log.wait(mark, &["nothing is left"], STOP);
    kill(attacker.pid(), Signal::USR1);
    attacker.wait_for_bytes(1);
    assert_refused(&address);
}

#[test]
fn a_copy_of_a_tcp_socket_serves_nobody_once_the_service_is_down() {
    a_copy_serves_nobody(Socket::Tcp);
}

#[test]
fn a_copy_of_a_unix_socket_serves_nobody_once_the_service_is_down() {
    a_copy_serves_nobody(Socket::Unix);
}

/// Clients are refused from the moment on at which the service is to end, and what was accepted or waits is answered.
#[test]
fn while_the_service_ends_clients_go_elsewhere() {
    let service = Service::native(Server::Gthread, Socket::Tcp, "");
    let mark = service.root.join("shared/logs/held").display().to_string();
    let file = service.root.join("releases/1/wsgi.py");
    let app = "def app(environ, start_response):\n";
    let marks = format!("{app}    if environ['PATH_INFO'] == '/held': open({mark:?}, 'w').close()\n");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace(app, &marks)).unwrap();
    let service = service.started();
    service.hold();
    let held = {
        let address = service.address.clone();
        std::thread::spawn(move || address.get("/held"))
    };
    wait_for_file(&mark);
    service.begin_down();
    let until = Instant::now() + SOON;
    while service.address.get("/").is_ok() {
        assert!(Instant::now() < until);
    }
    assert_refused(&service.address);
    service.let_go();
    assert!(held.join().unwrap().is_ok_and(|body| body.starts_with("1 ")));
    service.log.wait(0, &["nothing is left"], STOP);
    service.assert_nothing_left();
}

/// Each end of a process is no reason to look at all there are.
#[test]
fn hundreds_of_deaths_cost_the_runtime_little() {
    let (service, mark) =
        Service::native_with(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 120}", DEATHS);
    let service = service.started();
    wait_for_file(&format!("{mark}.begun"));
    let runtime = service.runtime();
    // Fewer descriptors than processes.
    run("prlimit", &["--pid", &runtime.to_string(), "--nofile=256:"]);
    let at = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(at, &["ready: generation 2"], HANDOVER);
    let before = processor_time(runtime);
    fs::write(format!("{mark}.go"), "").unwrap();
    let until = Instant::now() + SOON;
    while service.user.processes().len() > service.processes {
        assert!(Instant::now() < until, "{}", service.log.text(0));
        service.log.next(Duration::from_millis(200));
    }
    let took = processor_time(runtime) - before;
    assert!(took < Duration::from_secs(1), "{took:?}");
    service.assert_one_generation();
    service.down();
}

/// A runtime that does not answer is reported, and the others are, too. A hand-over that was begun before ends as well.
#[test]
fn a_blocked_runtime_blocks_neither_status_nor_upgrade() {
    // It is stopped while a generation gets ready, for as long as two commands take to give up.
    let more = "handoff: {drain_timeout: 2, boot_timeout: 300}";
    let (blocked, other) = (Service::start_native(Server::Sync, Socket::Tcp, more), service());
    let links = blocked.scratch().join("links");
    fs::create_dir(&links).unwrap();
    for one in [&blocked, &other] {
        symlink(&one.directory, links.join(&one.name)).unwrap();
    }
    blocked.release(2, Release::Waiting);
    blocked.switch(2);
    let mark = blocked.log.mark();
    let begun = blocked.begin_upgrade();
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

/// So many sessions: their generations would not have fitted into a message.
const BOMBS: usize = 1150;

#[test]
fn a_thousand_sessions_that_call_themselves_the_service_are_one_generation() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 5}");
    let mut attacker = Python::run(&row.service.user, SESSIONS, &[&row.service.name, &BOMBS.to_string()]);
    attacker.wait_for_bytes(BOMBS);
    let mark = row.kill_runtime();
    let log = &row.service.log;
    assert_eq!(log.count(mark, "processes were found that no record names"), 1, "{}", log.text(mark));
    let status = row.service.runsmith(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}\n{}", said(&status), log.text(0));
    let state = fs::read_to_string(row.service.run_directory().join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["generations"].as_array().unwrap().len(), 2, "{state}");
    let keepers = row.service.keepers();
    assert!((1..=2).contains(&keepers.len()), "{keepers:?}\n{}", log.text(0));
    // Nobody starts keepers one after the other.
    assert_eq!(log.count(mark, "keeper"), 0, "{}", log.text(mark));
    row.upgrade();
    assert_eq!(row.service.keepers().len(), 1);
    row.service.until("the strays have gone", |service| service.user.processes().len() == service.processes);
    drop(attacker);
    works(row);
}

/// As a runtime of this version it has the keeper remember a state that no message could hold, and asks for it.
const LONG_STATE: &str = r#"
import array, json, os, socket, sys
def connect():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(sys.argv[1] + "/keeper")
    return connection
def ask(connection, request):
    connection.send(json.dumps(request).encode())
    text, parts, _, _ = connection.recvmsg(1 << 17, socket.CMSG_SPACE(1000))
    fds = array.array("i")
    for _, _, data in parts:
        fds.frombytes(data)
    return text, fds
keeper = connect()
before = json.loads(ask(keeper, "Give")[0])
assert before["state"] and not before["has_state_file"], before
state = "x" * 900000
file = os.memfd_create("state")
os.write(file, state.encode())
keeper.sendmsg([b'"RememberFile"'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
text, fds = ask(connect(), "Give")
held = json.loads(text)
assert held["state"] is None and held["has_state_file"] and len(fds) == len(held["listeners"]) + len(held["outputs"]), held
text, fds = ask(connect(), "State")
assert text == b"\n" and os.pread(fds[0], 1 << 20, 0).decode() == state
# What an earlier version says is kept as well.
keeper.send(json.dumps({"Remember": before["state"]}).encode())
assert json.loads(ask(connect(), "Give")[0])["state"] == before["state"]
"#;

#[test]
fn a_state_may_be_longer_than_a_message() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    // Nothing is left for the runtime to say to its keeper.
    row.service.log.wait(0, &["proven: generation 1"], SOON);
    row.service.runsmith(&["status"]);
    let output = Command::new("/usr/bin/python3")
        .args(["-c", LONG_STATE, &run_directory(&row.service)])
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", said(&output));
    row.kill_runtime();
    works(row);
}

/// Puts another keeper in the place of the one that runs, with all that it holds, and ends.
const SECOND_KEEPER: &str = r#"
import array, json, os, socket, subprocess, sys
program, run, name = sys.argv[1:]
path = run + "/keeper"
def connect():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    return connection
old = connect()
old.send(b'"Give"')
text, parts, _, _ = old.recvmsg(1 << 17, socket.CMSG_SPACE(1000))
fds = array.array("i")
for _, _, data in parts:
    fds.frombytes(data)
held = json.loads(text)
os.unlink(path)
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.bind(path)
door.listen(16)
log = subprocess.DEVNULL
subprocess.Popen(["runsmith", "keep", name], executable=program, stdin=door, stdout=log, stderr=log)
new = connect()
request = {"Keep": {"log": False, "listeners": held["listeners"], "outputs": held["outputs"]}}
new.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
new.send(b'"Give"')
assert new.recv(1 << 17)
"#;

#[test]
fn a_keeper_that_nobody_can_find_ends() {
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let (runtime, keeper) = (service.runtime(), service.keeper().unwrap());
    service.kill_runsv();
    service.until("the runtime has ended", |_| !lives(runtime));
    assert_eq!(service.keepers(), [keeper]);
    let output = Command::new("/usr/bin/python3")
        .args(["-c", SECOND_KEEPER, env!("CARGO_BIN_EXE_runsmith"), &run_directory(&service), &service.name])
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((service.keepers().len(), service.version()), (2, "1".to_owned()));
    // As long as it may be the one that reads what the server writes, it goes on.
    for process in service.user.processes() {
        kill(process.pid, Signal::KILL);
    }
    service.until("the first keeper has ended", |_| !lives(keeper));
    // The other one goes on: clients wait.
    assert_eq!(service.keepers().len(), 1);
    service.supervise();
    service.log.wait(0, &["done:"], HANDOVER);
    service.until("one keeper", |service| service.keepers().len() == 1);
    assert_eq!(service.version(), "1");
    service.down();
}

/// `runsmith ARGUMENTS… DIRECTORY` as the application's user.
fn as_user(service: &Service, arguments: &[&str]) -> (Option<i32>, String) {
    let user = &service.user.name;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--", env!("CARGO_BIN_EXE_runsmith")]);
    let output = command.args(arguments).arg(&service.directory).current_dir("/").output().expect("setpriv");
    (output.status.code(), said(&output))
}

/// What `status` shows of the last hand-over.
fn last(service: &Service) -> serde_json::Value {
    let output = service.runsmith(&["status", "--format", "json"]);
    let all: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    all["services"][0]["last"].clone()
}

#[test]
fn who_asks_is_written_down_and_what_root_asks_for_is_given_up_by_root_alone() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let service = &row.service;
    service.release(2, Release::Waiting);
    service.switch(2);
    let begin = |what: &dyn Fn() -> Child| {
        let mark = service.log.mark();
        let child = what();
        service.log.wait(mark, &["hand-over: generation"], SOON);
        (child, mark)
    };
    let refused = || {
        let (code, said) = as_user(service, &["upgrade", "--abort"]);
        assert!(
            code == Some(2) && said.contains("of root (uid 0) has requested it, so only root can give it up"),
            "{said}"
        );
    };
    let (roots, mark) = begin(&|| service.begin_upgrade());
    refused();
    let uid = service.user.uid;
    service.log.wait(mark, &[&format!("(uid {uid}) wants the hand-over to be given up, and may not")], SOON);
    // The next run knows it, too. Whoever has asked the run before has no answer.
    let mark = row.kill_runtime();
    assert_eq!(roots.wait_with_output().unwrap().status.code(), Some(2));
    service.log.wait(mark, &["hand-over: generation"], HANDOVER);
    refused();
    let given_up = service.runsmith(&["upgrade", "--abort"]);
    assert_eq!(given_up.status.code(), Some(0), "{}", said(&given_up));
    let shown = last(service);
    assert_eq!(
        (&shown["requested_by"]["uid"], &shown["given_up_by"]["user"]),
        (&0.into(), &"root".into()),
        "{shown}"
    );

    // The user's own is the user's to give up.
    let user = &service.user.name;
    let directory = service.directory.display().to_string();
    let (users, mark) = begin(&|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]);
        command.args([env!("CARGO_BIN_EXE_runsmith"), "upgrade", &directory]).current_dir("/");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("setpriv")
    });
    let requested = format!("an upgrade is requested by process {} of {user} (uid {uid})", users.id());
    service.log.wait(mark, &[&requested], SOON);
    let (code, told) = as_user(service, &["upgrade", "--abort"]);
    assert_eq!(code, Some(0), "{told}");
    let output = users.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("of {user} (uid {uid})")), "{}", said(&output));
    let shown = last(service);
    assert_eq!(
        (&shown["requested_by"]["user"], &shown["given_up_by"]["uid"]),
        (&user.as_str().into(), &uid.into()),
        "{shown}"
    );
    // What `sv` asks for is root's.
    let (_, mark) = begin(&|| {
        service.begin("2");
        Command::new("true").spawn().expect("true")
    });
    refused();
    service.go();
    service.log.wait(mark, &["done: generation"], HANDOVER);
    assert_eq!(last(service)["requested_by"]["pid"], serde_json::Value::Null);
    let text = said(&service.runsmith(&["status"]));
    assert!(text.contains("requested by a signal of root (uid 0)"), "{text}");
    let mut row = row;
    row.nothing_was_lost();
    row.service.down();
}

/// The server's configuration lies below a directory of the application's user, who can put links in the place of directories
/// above it. Root reads nothing through them that this user could not read.
#[test]
fn the_configuration_is_read_as_the_user() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let private = service.scratch().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let shadow = private.join("shadow");
    fs::write(&shadow, "root:$6$PRETENDED:1::\n").unwrap();
    let fifo = service.scratch().join("fifo");
    run("mkfifo", &["-m", "666", fifo.to_str().unwrap()]);
    let (ours, away) = (service.root.join("shared/runsmith"), service.root.join("shared/away"));
    let good = away.join("gunicorn.py");
    let mark = service.log.mark();
    let attack = |target: &Path| {
        fs::rename(&ours, &away).unwrap();
        fs::create_dir(&ours).unwrap();
        symlink(target, ours.join("gunicorn.py")).unwrap();
    };
    let undo = || {
        fs::remove_dir_all(&ours).unwrap();
        fs::rename(&away, &ours).unwrap();
    };
    let known = |service: &Service| {
        let files = fs::read_dir(service.run_directory()).unwrap().map(|entry| entry.unwrap().path());
        let texts = files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap_or_default());
        let all = texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect::<String>();
        all + &service.log.text(mark)
    };
    let cases: [(&Path, &str); 3] = [
        (&shadow, "Permission denied"),
        (Path::new("/dev/zero"), "it is not a regular file"),
        (&fifo, "it is not a regular file"),
    ];
    for (target, words) in cases {
        attack(target);
        let output = service.runsmith(&["upgrade"]);
        let text = said(&output);
        assert_ne!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("cannot be read as the application's user") && text.contains(words), "{text}");
        assert!(!known(&service).contains("PRETENDED") && !text.contains("PRETENDED"), "{}", known(&service));
        undo();
    }
    // Nor does `status` compare as root: what this user cannot read is not what serves, and what it can read may be.
    let newer = |service: &Service| {
        let output = service.runsmith(&["status", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        status["services"][0]["newer"].to_string()
    };
    let copy = private.join("copy");
    fs::copy(ours.join("gunicorn.py"), &copy).unwrap();
    attack(&copy);
    assert!(newer(&service).contains("gunicorn.py"), "{}", newer(&service));
    undo();
    attack(&good);
    assert!(!newer(&service).contains("gunicorn.py"), "{}", newer(&service));
    undo();
    let output = service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", said(&output));
    service.down();
}

/// The application prints its secrets when it fails: whatever runsmith quotes of that has them masked, also if the generation has
/// gone by then, and under the next run.
#[test]
fn what_a_failed_generation_has_printed_is_quoted_without_its_secrets() {
    const SECRETS: [&str; 2] = ["hunter2hunter", "s3cretTokenAAAA1234"];
    for is_preloaded in [true, false] {
        let more = format!(
            "environment: {{DATABASE_URL: \"postgres://app:{}@db/x\"}}\nsecrets: {{API_TOKEN: {}}}\nhandoff: {{boot_timeout: {BOOT}}}",
            SECRETS[0], SECRETS[1]
        );
        let mut service = Service::native(Server::Sync, Socket::Tcp, &more);
        // A master that loads the application ends with it; else its workers do.
        service.rewrite(|pillar| {
            pillar.replace("gunicorn: {", &format!("gunicorn: {{preload_app: {is_preloaded}, "))
        });
        let service = service.started();
        let shown = |service: &Service| {
            let mut all: String = service
                .log
                .text(0)
                .lines()
                .filter(|line| line.trim_start().starts_with("runsmith:"))
                .collect();
            for arguments in [&["status"][..], &["status", "--format", "json"]] {
                all += &said(&service.runsmith(arguments));
            }
            all
        };
        let assert_masked = |text: &str| {
            // What workers print may come too early to be quoted.
            assert!(!is_preloaded || text.contains("no database at ********"), "{text}");
            assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "a secret is shown:\n{text}");
        };
        service.release(2, Release::Good);
        let crash = "import os\nraise RuntimeError('no database at ' + os.environ['DATABASE_URL'] + ' ' + os.environ['API_TOKEN'])\n";
        fs::write(service.root.join("releases/2/wsgi.py"), crash).unwrap();
        service.switch(2);
        assert_masked(&said(&service.runsmith(&["upgrade"])));
        let output = service.runsmith(&["upgrade", "--format", "json"]);
        assert_masked(&said(&output));
        assert_masked(&shown(&service));
        let mark = service.log.mark();
        kill(service.runtime(), Signal::KILL);
        service.log.wait(mark, &["goes on under this run"], SOON);
        service.until("it answers", |service| service.runsmith(&["status", "--quiet"]).status.success());
        assert_masked(&shown(&service));
        service.down();
    }
}

/// Holds processes at their end: in that state SIGKILL does nothing, until the tracer ends (ptrace(2), PTRACE_EVENT_EXIT).
const HOLDS: &str = r#"
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    if libc.ptrace(0x4206, pid, None, ctypes.c_void_p(0x40)):
        raise OSError(ctypes.get_errno(), "ptrace is not permitted here (/proc/sys/kernel/yama/ptrace_scope)")
os.write(1, b".")
signal.pause()
"#;

/// Processes that somebody holds are never gone: a hand-over and the stop of the service wait for them, and say whom to end.
#[test]
fn what_a_tracer_holds_is_reported_until_it_lets_go() {
    let service = service();
    let old: Vec<String> = service.user.processes().iter().map(|one| one.pid.to_string()).collect();
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let mut tracer = Python::run(&service.user, HOLDS, &old);
    tracer.wait_for_bytes(1);
    let mark = service.begin_deploy(2, Release::Good);
    let line = service.log.wait(mark, &["generation 1 does not end"], SOON);
    assert!(line.text.contains(&format!("process {} traces", tracer.pid())), "{}", line.text);
    let status = service.runsmith(&["status", "--format", "json"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.status.code() == Some(1) && text.contains("\"undying\"") && text.contains("kill -KILL"),
        "{text}"
    );
    assert_eq!(service.version(), "2");
    drop(tracer);
    service.log.wait(mark, &["done: generation 2 serves alone"], SOON);
    assert_eq!(service.runsmith(&["status"]).status.code(), Some(0));
    service.down();
}

/// Waits for a program that root runs as this user, and holds its end back: its parent cannot wait for it then (ptrace(2)).
const KEEPS: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.write(1, b".")
seen = set()
while True:
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or name in seen or os.stat("/proc/" + name).st_uid != os.getuid(): continue
            if open("/proc/" + name + "/comm").read() not in ("sha256sum\n", "readlink\n"): continue
        except OSError: continue
        seen.add(name)
        libc.ptrace(0x4206, int(name), None, None)
"#;

/// `status` reads what only the application's user can reach as that user, by a program that this user can hold.
#[test]
fn a_program_that_its_user_holds_does_not_hold_up_status() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let (ours, away) = (service.root.join("shared/runsmith"), service.root.join("shared/away"));
    fs::rename(&ours, &away).unwrap();
    // It takes longer to read than anybody waits.
    let long = service.scratch().join("long");
    fs::create_dir(&long).unwrap();
    let file = fs::File::create(long.join("gunicorn.py")).unwrap();
    file.set_len(1 << 40).unwrap();
    for path in [&long, &long.join("gunicorn.py")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink(&long, &ours).unwrap();
    let mut attacker = Python::run(&service.user, KEEPS, &[]);
    attacker.wait_for_bytes(1);
    let limit = LIMIT.as_secs().to_string();
    let status = Command::new("timeout")
        .args(["-k", "1", &limit, env!("CARGO_BIN_EXE_runsmith"), "status"])
        .arg(&service.directory)
        .output()
        .unwrap();
    assert_ne!(status.status.code(), Some(124), "status waits for ever: {}", said(&status));
    assert!(said(&status).contains("serving"), "{}", said(&status));
    drop(attacker);
    fs::remove_file(&ours).unwrap();
    fs::rename(&away, &ours).unwrap();
    service.down();
}

/// Each directory and each link on the way to a place of root's is proven, also those that links lead through.
#[test]
fn a_link_of_roots_that_leads_through_a_users_is_not_trusted() {
    use runsmith::runtime::linux::place::trusted;
    use std::os::unix::fs::lchown;
    let scratch = tempfile::Builder::new().prefix("rst").tempdir_in("/srv").unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["private", "theirs"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink("private", at("good")).unwrap();
    symlink("good/../private", at("winding")).unwrap();
    symlink("loop", at("loop")).unwrap();
    // A link of root's to a link in a directory of somebody else's, which leads to a directory of root's.
    symlink(at("private"), at("theirs/link")).unwrap();
    lchown(at("theirs/link"), Some(65534), Some(65534)).unwrap();
    lchown(at("theirs"), Some(65534), Some(65534)).unwrap();
    symlink("theirs/link", at("bad")).unwrap();
    symlink(at("private"), at("foreign")).unwrap();
    lchown(at("foreign"), Some(65534), Some(65534)).unwrap();
    for (name, is_trusted) in [
        ("private", true),
        ("good", true),
        ("winding", true),
        ("bad", false),
        ("foreign", false),
        ("loop", false),
        ("theirs", false),
    ] {
        assert_eq!(trusted(&at(name)).is_ok(), is_trusted, "{name}: {:?}", trusted(&at(name)));
    }
}

/// A path that leads through a process leads into the mounts of that process, where a look can wait for as long as their owner likes.
/// The runtime and `status` go no such way, wherever a directory of the user's leads.
#[test]
fn root_is_led_through_no_process_of_the_users() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "handoff: {drain_timeout: 2}");
    let mut through = Python::run(&service.user, "import os, signal\nos.write(1, b'.')\nsignal.pause()", &[]);
    through.wait_for_bytes(1);
    let directories = ["releases", "shared/sockets", "shared/runsmith", "shared/pids"];
    let places = directories.map(|name| (service.root.join(name), service.root.join(format!("{name}.away"))));
    for (ours, away) in &places {
        fs::rename(ours, away).unwrap();
        // All is where it was, for whoever goes there.
        symlink(format!("/proc/{}/root{}", through.pid(), away.display()), ours).unwrap();
    }
    // The runtime hears of the socket's directory by an event of the kernel's.
    let until = Instant::now() + SOON;
    let mut status = service.runsmith(&["status"]);
    while !said(&status).contains("nobody can connect to unix:") && Instant::now() < until {
        status = service.runsmith(&["status"]);
    }
    let text = said(&status);
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("releases/1, the release that serves, is not there any more"), "{text}");
    assert!(text.contains("nobody can connect to unix:") && text.contains("Too many levels"), "{text}");
    let upgrade = service.runsmith(&["upgrade"]);
    assert_eq!(upgrade.status.code(), Some(1), "{}", said(&upgrade));
    assert!(said(&upgrade).contains("cannot enter"), "{}", said(&upgrade));
    for (ours, away) in &places {
        fs::remove_file(ours).unwrap();
        fs::rename(away, ours).unwrap();
    }
    service.until("it serves", |service| service.runsmith(&["status"]).status.code() == Some(0));
    assert_eq!(service.version(), "1");
    drop(through);
    service.down();
}

/// Many children that are traced, and many requests, take little of the runtime's time.
const TRACED: &str = r#"
import os
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
if is_first:
    import ctypes, signal
    libc = ctypes.CDLL(None)
    for _ in range(200):
        if os.fork() == 0:
            libc.prctl(1, signal.SIGKILL)
            libc.ptrace(0, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
"#;

#[test]
fn hundreds_of_traced_children_do_not_hold_up_the_runtime() {
    let (service, _) =
        Service::native_with(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 2}\n", TRACED);
    let service = service.started();
    let before = processor_time(service.runtime());
    for _ in 0..5 {
        assert!(said(&service.runsmith(&["status"])).contains("rst"));
    }
    let used = processor_time(service.runtime()) - before;
    // One look at each of them, busily, took 20 ms: 20 s for all of these.
    assert!(used < Duration::from_secs(5), "{used:?}");
    service.down();
}

/// Removes the service's socket, and stops every process of its user but itself, over and over. The way to the socket takes long.
const STOPS: &str = r#"
import os, signal, sys
real = os.path.dirname(sys.argv[1])
os.rename(real, real + ".real")
os.mkdir(real + ".x")
for number in range(35):
    to = "sockets.%d" % (number - 1) if number else "sockets.real"
    os.symlink("sockets.x/../" * 300 + to, real + ".%d" % number)
os.symlink("sockets.34", real)
os.write(1, b".")
while True:
    try: os.unlink(real + ".real/web.sock")
    except OSError: pass
    for _ in range(100):
        try: os.kill(-1, signal.SIGSTOP)
        except ProcessLookupError: pass
"#;

#[test]
fn a_stopped_helper_holds_up_nobody_and_ends() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "handoff: {drain_timeout: 2}");
    let Address::Unix(path) = service.address.clone() else { panic!("Unix") };
    let mark = service.log.mark();
    let mut attacker = Python::run(&service.user, STOPS, &[&path]);
    attacker.wait_for_bytes(1);
    service.log.wait(mark, &["somebody has stopped the helper process"], SOON);
    let status = service.runsmith(&["status"]);
    assert!(said(&status).contains("socket"), "{}", said(&status));
    drop(attacker);
    let directory = Path::new(&path).parent().unwrap();
    fs::remove_file(directory).unwrap();
    fs::rename(format!("{}.real", directory.display()), directory).unwrap();
    let stopped = service.user.processes();
    let is_helper = |process: &support::host::Process| {
        process.command.starts_with("runsmith") || process.command == "exe"
    };
    service.until("no helper is left", |service| !service.user.processes().iter().any(is_helper));
    for process in stopped {
        kill(process.pid, Signal::CONT);
    }
    // A generation that was begun while the attack went on may have failed.
    service.log.wait(mark, &["ready: generation"], HANDOVER);
    service.until("it serves", |service| service.runsmith(&["status"]).status.code() == Some(0));
    service.down();
}

#[test]
fn who_becomes_another_user_is_not_signalled() {
    let more = "handoff: {ready: alive, drain_timeout: 1}\nhardening: {no_new_privileges: false, capabilities: inherited}";
    let mut service = Service::native(Server::Any, Socket::Tcp, more);
    // As any program with the setuid bit that the application's user may run.
    let program = service.scratch().join("setuid");
    fs::copy("/usr/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let go = service.scratch().join("go");
    let script = format!(
        "import os, time\nwhile not os.path.exists({go:?}): time.sleep(0.02)\nos.execv({program:?}, [\"sleep\", \"600\"])\n"
    );
    fs::write(service.scratch().join("script"), script).unwrap();
    service.runs(&format!("[/usr/bin/python3, {}]", service.scratch().join("script").display()));
    let service = service.started();
    let master = service.master();
    service.go();
    service.until("it is root's", |service| {
        service.user.processes().iter().any(|one| one.pid == master && one.command == "setuid")
    });
    let mark = service.log.mark();
    service.sv("down");
    // It has got no TERM, which would have ended it at once.
    service.log.wait(mark, &["did not finish in time and is killed"], STOP);
    service.log.wait(mark, &["nothing is left"], STOP);
    // Where it is in a cgroup of its own it has ended with that.
    let is_left = service.log.count(mark, "runs as another user by now: it is left alone") == 1;
    assert_eq!(lives(master), is_left, "{}", service.log.text(0));
    kill(master, Signal::KILL);
}

/// The master puts a socket of another network namespace, with the same address, in the place of the one it has inherited.
const ELSEWHERE: &str = r#"
import os
if not os.path.exists("MARK"):
    import ctypes, fcntl, socket, struct
    port = socket.socket(fileno=os.dup(3)).getsockname()[1]
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        assert ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0
        link = socket.socket()
        fcntl.ioctl(link, 0x8914, struct.pack("16sH14x", b"lo", 1))
        listener = socket.socket(); listener.bind(("127.0.0.1", port)); listener.listen(9)
        socket.send_fds(theirs, [b"x"], [listener.fileno()])
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 9, 9)
    os.wait()
    os.dup2(fds[0], 3)
    open("MARK", "w").close()
"#;

#[test]
fn a_socket_of_another_network_namespace_is_not_taken_for_the_services() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let mark = row.service.scratch().join("mark");
    fs::create_dir(&mark).unwrap();
    run("chown", &[&row.service.user.name, mark.to_str().unwrap()]);
    let attack = ELSEWHERE.replace("MARK", mark.join("done").to_str().unwrap());
    row.service.release_with(2, &attack, "");
    row.service.switch(2);
    let output = row.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), row.service.log.text(0));
    assert!(mark.join("done").exists(), "{}", row.service.log.text(0));
    row.service.release(3, Release::Good);
    row.service.switch(3);
    // Nobody has the socket any more but the workers, and the state says what is to be found.
    let begun = row.service.log.mark();
    let runtime = row.service.runtime();
    kill(runtime, Signal::STOP);
    kill(row.service.keeper().expect("a keeper"), Signal::KILL);
    kill(runtime, Signal::KILL);
    row.service.log.wait(begun, &["goes on under this run"], SOON);
    let output = row.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), row.service.log.text(0));
    row.service.wait_for_version("3", SOON);
    row.service.assert_one_generation();
    row.service.down();
}

/// Says what the runtime would say: at once, where a long line was cut, and where a keeper has passed on the beginning of a line.
const FORGES: &str = r#"
import os, threading, time
def until(name):
    while not os.path.exists("SCRATCH/" + name): time.sleep(0.02)
def forge():
    until("begin")
    os.write(1, b"x" * 4096)
    until("one")
    os.write(1, b"runsmith: forged-partial\nrunsmith: forged-plain\nx\rrunsmith: forged-cr\n\0runsmith: forged-nul\nx\x1b[1Grunsmith: forged-escape\n\xe2\x80\x8brunsmith: forged-unseen\n")
    os.write(1, b"runsm")
    until("two")
    os.write(1, b"ith: forged-split\n")
threading.Thread(target=forge).start()
"#;

#[test]
fn no_line_of_the_server_passes_for_one_of_the_runtimes() {
    let service = Service::native(Server::Sync, Socket::Tcp, "");
    let scratch = service.scratch().display().to_string();
    service.release_with(1, &FORGES.replace("SCRATCH", &scratch), "");
    let row = Row::of(service.started());
    let service = &row.service;
    let tell = |name: &str| fs::write(service.scratch().join(name), "").unwrap();
    let mark = service.log.mark();
    tell("begin");
    service.log.wait(mark, &["xxxxxxxx"], SOON);
    // The runtime ends the line that was begun.
    service.begin("alarm");
    service.log.wait(mark, &["runsmith: status:"], SOON);
    tell("one");
    service.log.wait(mark, &["forged-unseen"], SOON);
    row.kill_runtime();
    service.until("one keeper", |service| service.keepers().len() == 1);
    tell("two");
    service.log.wait(mark, &["forged-split"], SOON);
    let text = service.log.text(mark);
    for forged in text.lines().filter(|line| line.contains("forged")) {
        let seen = forged.trim_start().trim_start_matches('\u{200b}');
        assert!(!seen.starts_with("runsmith:"), "{forged:?}\n{text}");
    }
    assert!(text.contains("\n  runsmith: generation 1 was running and goes on under this run\n"), "{text}");
    for marked in ["output: runsmith: forged-partial", "output: runsmith: forged-plain", "output: runsm"] {
        assert!(text.contains(marked), "{marked}\n{text}");
    }
    assert!(!text.contains(['\r', '\0', '\u{1b}']), "{text:?}");
    row.end();
}
