//! The keeper, the log and the run directory go wrong: stopped, of another version, deleted, full. Real servers under load.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use support::faults::{Case, Disk, Requests::NoneLost, serves, state};
use support::host::{kill, lives};
use support::row::{names, said};
use support::service::{Release, Server, Service, Socket, WORKERS};
use support::{HANDOVER, SOON, START};

const ADOPTED: &[&str] = &["goes on under this run"];

/// Name of the test, what is done, what is promised.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "restart_and_kill_forget_nothing",
        "`sv restart` and `sv kill` (gunicorn)",
        "status knows the last hand-over and the workers that are ready; none lost",
    ),
    (
        "restart_and_kill_of_unicorn_forget_nothing",
        "the same with Ruby unicorn",
        "status knows the last hand-over and the workers that are ready; none lost",
    ),
    (
        "runsv_killed_with_a_log_service",
        "kill -9 of runsv with a log service, and a new one, twice",
        "the old svlogd ends, the new one has the lock and the log goes on; none lost",
    ),
    (
        "run_directory_gone_and_runtime_killed",
        "the run directory disappears and the runtime is killed",
        "the application is found by its environment and replaced; one keeper; after `sv exit` nothing listens; none lost",
    ),
    (
        "keeper_stopped",
        "SIGSTOP of the keeper of a server that logs much",
        "noticed at once, said, replaced; no request waits; none lost",
    ),
    (
        "keeper_stopped_before_each_of_many_upgrades",
        "SIGSTOP of the keeper before each of 14 upgrades",
        "one keeper at the end; `sv down` leaves nothing, `sv up` serves; none lost",
    ),
    (
        "keeper_stopped_and_runtime_killed",
        "SIGSTOP of the keeper, kill -9 of the runtime, SIGCONT of the keeper",
        "the old keeper has ended; `sv down` leaves nothing, `sv up` serves; none lost",
    ),
    (
        "keeper_stopped_and_runtime_and_master_killed",
        "SIGSTOP of the keeper, kill -9 of runtime and master",
        "addresses never refuse; one keeper; none lost",
    ),
    (
        "keeper_socket_deleted_and_runtime_killed",
        "the keeper's socket is deleted and the runtime killed before it can make it again",
        "same master; one keeper; none lost",
    ),
    (
        "finish_ends_a_keeper_without_records",
        "the run directory disappears, the runtime is killed while the service is to be down",
        "finish ends keeper and application; nothing is left",
    ),
    (
        "keeper_of_an_older_version",
        "the keeper is of a version before there were versions",
        "replaced in order: it is asked for what it holds, and to end; none lost",
    ),
    (
        "keeper_of_a_newer_version",
        "the keeper is of a later version, with requests of its own",
        "replaced in order; none lost",
    ),
    (
        "keeper_that_is_not_understood",
        "the keeper's answers are not understood",
        "its sockets are taken out of it, and it is killed; none lost",
    ),
    (
        "keeper_that_never_answers",
        "the keeper takes requests and never answers",
        "its sockets are taken out of it, and it is killed; none lost",
    ),
    (
        "runtime_of_an_older_version",
        "a runtime of the first version uses this version's keeper, and asks for what no version knows",
        "everything it knows works; the keeper goes on; none lost",
    ),
    (
        "files_of_the_run_directory_deleted",
        "each file of the run directory is deleted, one by one, then all of them, then the directory",
        "made again at once; status and upgrades as ever; none lost",
    ),
    (
        "private_socket_deleted",
        "the private socket for health checks is deleted",
        "health checks go on; none lost",
    ),
    (
        "state_that_cannot_be_written_for_a_while",
        "the disk of the run directory is full, and the room reserved for the state is gone",
        "said in log and status; written again once there is room; none lost",
    ),
    (
        "numbers_are_used_once",
        "an upgrade whose state cannot be written, then kill -9 of runtime and keeper",
        "no generation number is used twice; none lost",
    ),
];

#[test]
fn the_rows_are_the_tests() {
    support::faults::rows_are_tests(ROWS, include_str!("faults_keeper.rs"));
}

#[test]
fn the_page_has_the_rows() {
    support::faults::page(ROWS, "the keeper, the log and the run directory");
}

// --- what several tests do

/// A keeper of its own, and no other; its number.
fn one_keeper(service: &Service) -> u32 {
    service.until("there is one keeper, which the status names", |service| {
        let keepers = service.keepers();
        keepers.len() == 1 && state(service)["keeper_pid"] == keepers[0]
    });
    service.keepers()[0]
}

/// What is there after `sv down`, and after `sv up`; then the service stops for good, within the time that `sv` has.
fn goes_down_and_up(service: &Service) {
    service.down();
    assert_eq!(service.keepers(), [0; 0], "{}", service.log.text(0));
    assert!(service.address.get("/").is_err(), "the address is listened on after `sv down`");
    let mark = service.log.mark();
    assert!(service.sv("up").status.success());
    service.log.wait(mark, &["runsmith: ready:"], START);
    service.until("it serves again", serves);
}

fn upgrade(service: &Service, number: u32) {
    service.release(number, Release::Good);
    service.switch(number);
    let output = service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}\n{}", said(&output), service.log.text(0));
    assert_eq!(service.version(), number.to_string());
}

/// kill -9 of the runtime, with `meanwhile` between its last breath and the next run, which adopts the application.
fn kill_runtime(service: &Service, meanwhile: impl FnOnce()) {
    let mark = service.log.mark();
    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    meanwhile();
    kill(runtime, Signal::KILL);
    service.log.wait(mark, ADOPTED, SOON);
}

/// A release that writes 3,000 bytes to its standard error for each request.
fn talkative(service: &Service, number: u32) {
    service.release(number, Release::Good);
    let file = service.root.join(format!("releases/{number}/wsgi.py"));
    let text = fs::read_to_string(&file).expect("wsgi.py");
    let body = "    import sys; sys.stderr.write('x' * 3000 + '\\n'); sys.stderr.flush()\n    body =";
    fs::write(file, text.replace("    body =", body)).expect("wsgi.py");
}

// --- what the next run knows

fn forget_nothing(name: &'static str, server: Server) {
    let case = Case::start(name, server, Socket::Unix, "");
    case.service.release(2, Release::Good);
    case.service.switch(2);
    case.service.until_a_second_old();
    let mark = case.service.log.mark();
    assert!(case.service.sv("restart").status.success(), "{}", case.service.log.text(0));
    case.service.log.wait(mark, ADOPTED, HANDOVER);
    let knows = |service: &Service| {
        service.until_settled();
        let status = state(service);
        assert_eq!(status["last"]["generation"], 2, "{status:#}");
        assert_eq!(status["last"]["done"], true, "{status:#}");
        assert_eq!(status["serving"]["generation"], 2, "{status:#}");
        assert_eq!(status["serving"]["workers_ready"], WORKERS, "{status:#}");
        assert_eq!(status["serving"]["workers"], WORKERS, "{status:#}");
        assert_eq!(status["failures"], 0, "{status:#}");
    };
    knows(&case.service);
    let mark = case.service.log.mark();
    assert!(case.service.sv("kill").status.success());
    case.service.log.wait(mark, ADOPTED, SOON);
    knows(&case.service);
    case.ends("2", NoneLost);
}

#[test]
fn restart_and_kill_forget_nothing() {
    forget_nothing("restart_and_kill_forget_nothing", Server::Sync);
}

#[test]
fn restart_and_kill_of_unicorn_forget_nothing() {
    forget_nothing("restart_and_kill_of_unicorn_forget_nothing", Server::Unicorn);
}

// --- the log

/// The svlogd that has this service's log open, once there is one: by its working directory.
fn svlogds(service: &Service) -> Vec<u32> {
    let log = service.directory.join("log");
    let is_ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == log);
    let all = support::host::Process::all().into_iter();
    all.filter(|one| one.command == "svlogd" && one.lives()).map(|one| one.pid).filter(is_ours).collect()
}

#[test]
fn runsv_killed_with_a_log_service() {
    let mut service = Service::native_with_log(Server::Gthread, Socket::Tcp, "");
    service.supervise();
    service.wait_for_version("1", START);
    service.until("it serves", serves);
    let mut case = Case::of("runsv_killed_with_a_log_service", service);
    let master = case.service.master();
    let current = case.service.root.join("shared/logs/service/current");
    let log = || fs::read_to_string(&current).unwrap_or_default();
    for _ in 0..2 {
        case.until("svlogd runs", |service| svlogds(service).len() == 1);
        let (old, adopted) = (svlogds(&case.service)[0], log().matches(ADOPTED[0]).count());
        case.service.kill_runsv();
        case.service.supervise();
        case.until("the next run writes to the log", |_| log().matches(ADOPTED[0]).count() > adopted);
        case.until("the old svlogd has ended", |service| !lives(old) && svlogds(service).len() == 1);
        one_keeper(&case.service);
        assert_eq!(case.service.master(), master);
    }
    // What the server says arrives, too.
    let before = log().matches("Handling signal: usr1").count();
    case.service.sv("1");
    case.until("the server's line is in the log", |_| {
        log().matches("Handling signal: usr1").count() > before
    });
    case.until("enough requests", |_| case.load.seen().answers.len() > 50);
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    // With the log service: it ends only if nobody holds its pipe.
    assert!(service.sv("exit").status.success());
    assert!(service.address.get("/").is_err());
    assert_eq!(service.keepers(), [0; 0]);
    service.assert_nothing_left();
}

// --- keepers

#[test]
fn run_directory_gone_and_runtime_killed() {
    let case = Case::start("run_directory_gone_and_runtime_killed", Server::Sync, Socket::Tcp, "");
    let (master, keeper) = (case.service.master(), case.service.keeper().expect("a keeper"));
    kill_runtime_without_directory(&case.service);
    case.until("the old keeper has ended", |_| !lives(keeper));
    one_keeper(&case.service);
    case.settles();
    // Without a record of it the application is an orphan, which is replaced; it is not left alone.
    case.until("the application without a record has gone", |_| !lives(master));
    case.until("enough requests", |_| case.load.seen().answers.len() > 50);
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    assert!(service.sv("exit").status.success());
    assert!(service.address.get("/").is_err(), "{}", service.log.text(0));
    assert_eq!(service.keepers(), [0; 0]);
    service.assert_nothing_left();
}

fn kill_runtime_without_directory(service: &Service) {
    let mark = service.log.mark();
    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    fs::remove_dir_all(service.run_directory()).expect("the run directory");
    kill(runtime, Signal::KILL);
    service.log.wait(mark, &["goes on under this run", "processes were found that no record names"], SOON);
    service.log.wait(mark, &["done:"], HANDOVER);
}

#[test]
fn keeper_stopped() {
    let service = Service::native(Server::Sync, Socket::Tcp, "");
    talkative(&service, 1);
    let case = Case::of("keeper_stopped", service.started());
    let master = case.service.master();
    for _ in 0..3 {
        let keeper = one_keeper(&case.service);
        let mark = case.service.log.mark();
        kill(keeper, Signal::STOP);
        let line = case.service.log.wait(mark, &["is stopped (SIGSTOP)"], SOON);
        assert!(line.text.contains(&keeper.to_string()), "{}", line.text);
        case.until("it has ended", |_| !lives(keeper));
        let count = case.load.seen().answers.len();
        case.until("requests go on", |_| case.load.seen().answers.len() > count + 100);
        // What the server says arrives, by another one.
        let mark = case.service.log.mark();
        case.service.log.wait(mark, &["xxxxxxxx"], SOON);
        assert_ne!(one_keeper(&case.service), keeper);
    }
    assert_eq!(case.service.master(), master);
    case.ends("1", NoneLost);
}

#[test]
fn keeper_stopped_before_each_of_many_upgrades() {
    let case = Case::start("keeper_stopped_before_each_of_many_upgrades", Server::Sync, Socket::Tcp, "");
    for number in 2..16 {
        kill(case.service.keeper().expect("a keeper"), Signal::STOP);
        upgrade(&case.service, number);
    }
    one_keeper(&case.service);
    case.until("enough requests", |_| case.load.seen().answers.len() > 50);
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    goes_down_and_up(&service);
    service.down();
}

#[test]
fn keeper_stopped_and_runtime_killed() {
    let case = Case::start("keeper_stopped_and_runtime_killed", Server::Gthread, Socket::Unix, "");
    let (master, keeper) = (case.service.master(), one_keeper(&case.service));
    kill_runtime(&case.service, || kill(keeper, Signal::STOP));
    kill(keeper, Signal::CONT);
    case.until("the old keeper has ended", |_| !lives(keeper));
    one_keeper(&case.service);
    assert_eq!(case.service.master(), master);
    upgrade(&case.service, 2);
    case.until("enough requests", |_| case.load.seen().answers.len() > 50);
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    goes_down_and_up(&service);
    service.down();
}

#[test]
fn keeper_stopped_and_runtime_and_master_killed() {
    let more = "restart: {min_uptime: 0}";
    let case = Case::start("keeper_stopped_and_runtime_and_master_killed", Server::Sync, Socket::Unix, more);
    let (master, keeper) = (case.service.master(), one_keeper(&case.service));
    let mark = case.service.log.mark();
    let runtime = case.service.runtime();
    kill(runtime, Signal::STOP);
    kill(keeper, Signal::STOP);
    kill(runtime, Signal::KILL);
    kill(master, Signal::KILL);
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], HANDOVER);
    case.until("the old keeper has ended", |_| !lives(keeper));
    one_keeper(&case.service);
    case.ends("1", NoneLost);
}

#[test]
fn keeper_socket_deleted_and_runtime_killed() {
    let case = Case::start("keeper_socket_deleted_and_runtime_killed", Server::Sync, Socket::Tcp, "");
    let (master, keeper) = (case.service.master(), one_keeper(&case.service));
    kill_runtime(&case.service, || {
        fs::remove_file(case.service.run_directory().join("keeper")).expect("the keeper's socket");
    });
    case.until("the old keeper has ended", |_| !lives(keeper));
    one_keeper(&case.service);
    assert_eq!(case.service.master(), master);
    case.ends("1", NoneLost);
}

#[test]
fn finish_ends_a_keeper_without_records() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let (runtime, keeper) = (service.runtime(), service.keeper().expect("a keeper"));
    kill(runtime, Signal::STOP);
    fs::remove_dir_all(service.run_directory()).expect("the run directory");
    // runsv notes that it is to be down; the signals that it sends find a runtime that stands still.
    service.begin_down();
    support::runsv::until_recorded(&service.directory, "it is to be down", |found| found.wanted == b'd');
    kill(runtime, Signal::KILL);
    service.until("nothing of the application is left", |service| service.user.processes().is_empty());
    service.until("the keeper has ended", |_| !lives(keeper));
    service.until("finish has ended", |service| service.keepers().is_empty());
    assert!(service.address.get("/").is_err(), "{}", service.log.text(0));
}

// --- two versions

/// A keeper of another version, in Python: it takes over from the one that runs, writes down what it is asked for, and
/// answers by what its version knows.
const KEEPER: &str = r#"
import array, json, os, socket, sys
run, version, journal = os.environ["RUN"], os.environ["VERSION"], os.environ["JOURNAL"]
def receive(connection):
    text, parts, _, _ = connection.recvmsg(1 << 17, socket.CMSG_SPACE(1000))
    fds = array.array("i")
    for _, kind, data in parts:
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(data[:len(data) // 4 * 4])
    return text, fds
old = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
old.connect(run + "/keeper")
old.send(b'"Give"')
text, fds = receive(old)
held = json.loads(text)
held["pid"] = os.getpid()
held.pop("protocol", None)
if version == "newer":
    held.update({"protocol": 99, "weather": {"rain": True}})
if version == "garbled":
    held = {"version": 7}
os.unlink(run + "/keeper")
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.bind(run + "/keeper")
door.listen(16)
print("ready", flush=True)
while True:
    connection, _ = door.accept()
    while True:
        text, _ = receive(connection)
        if not text:
            break
        request = json.loads(text)
        with open(journal, "a") as file:
            file.write(json.dumps(request) + "\n")
        if version == "silent":
            continue
        if request == "Give":
            connection.sendmsg([json.dumps(held).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        elif request == "End":
            sys.exit(0)
        else:
            break
    connection.close()
"#;

/// A process that stands in for the keeper.
struct Double {
    child: Child,
    journal: PathBuf,
}

impl Double {
    /// Starts it; returns once it listens.
    fn start(service: &Service, version: &str) -> Self {
        let (script, journal) = (service.scratch().join("keep"), service.scratch().join("journal"));
        fs::write(script, KEEPER).expect("a script");
        // Its words are those of a keeper: the program's name, the file `keep`, the service's name.
        let mut child = Command::new("/usr/bin/python3")
            .arg0("runsmith")
            .args(["keep", &service.name])
            .current_dir(service.scratch())
            .env("RUN", service.run_directory())
            .env("VERSION", version)
            .env("JOURNAL", &journal)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it speaks");
        assert_eq!(line, "ready\n");
        Self { child, journal }
    }

    fn asked(&self) -> Vec<String> {
        fs::read_to_string(&self.journal).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A runtime of this version adopts from a keeper of another one. What that keeper was asked for.
fn adopts_from(name: &'static str, version: &str) -> Vec<String> {
    let case = Case::start(name, Server::Gthread, Socket::Unix, "");
    let (master, keeper) = (case.service.master(), one_keeper(&case.service));
    let mut double = None;
    kill_runtime(&case.service, || {
        double = Some(Double::start(&case.service, version));
        kill(keeper, Signal::KILL);
    });
    let double = double.expect("it was started");
    let pid = double.child.id();
    case.until("the other keeper has ended", |_| !lives(pid));
    assert_ne!(one_keeper(&case.service), pid);
    assert_eq!(case.service.master(), master, "{}", case.service.log.text(0));
    upgrade(&case.service, 2);
    let asked = double.asked();
    case.ends("2", NoneLost);
    asked
}

#[test]
fn keeper_of_an_older_version() {
    assert_eq!(adopts_from("keeper_of_an_older_version", "older"), ["\"Give\"", "\"End\""]);
}

#[test]
fn keeper_of_a_newer_version() {
    assert_eq!(adopts_from("keeper_of_a_newer_version", "newer"), ["\"Give\"", "\"End\""]);
}

#[test]
fn keeper_that_is_not_understood() {
    assert_eq!(adopts_from("keeper_that_is_not_understood", "garbled"), ["\"Give\""]);
}

#[test]
fn keeper_that_never_answers() {
    assert_eq!(adopts_from("keeper_that_never_answers", "silent"), ["\"Give\""]);
}

/// What a runtime of the first version asks its keeper for, in the words of that version.
const RUNTIME: &str = r#"
import array, json, socket, sys
def connect():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(sys.argv[1])
    return connection
def give(connection):
    connection.send(b'"Give"')
    text, parts, _, _ = connection.recvmsg(1 << 17, socket.CMSG_SPACE(1000))
    fds = array.array("i")
    for _, _, data in parts:
        fds.frombytes(data[:len(data) // 4 * 4])
    held = json.loads(text)
    assert len(fds) == len(held["listeners"]) + len(held["outputs"]), held
    return held, fds
keeper = connect()
held, fds = give(keeper)
assert held["listeners"] and held["outputs"] and held["pid"] and held["state"], held
keep = {"Keep": {"log": False, "listeners": held["listeners"], "outputs": held["outputs"]}}
keeper.sendmsg([json.dumps(keep).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
keeper.send(json.dumps({"Remember": held["state"]}).encode())
keeper.send(json.dumps({"Last": held["outputs"][0]}).encode())
last = keeper.recv(1 << 17)
assert last.startswith(b"\n") and b"Booting worker" in last, last
keeper.send(b'{"Weather":{"where":"here"}}')
assert keeper.recv(100) == b"", "the connection ends"
again, _ = give(connect())
for name in ("pid", "listeners", "outputs", "state"):
    assert again[name] == held[name], (name, again, held)
"#;

#[test]
fn runtime_of_an_older_version() {
    let case = Case::start("runtime_of_an_older_version", Server::Sync, Socket::Tcp, "");
    // Nothing is left for the runtime to say to its keeper.
    case.service.log.wait(0, &["proven: generation 1"], SOON);
    state(&case.service);
    let keeper = one_keeper(&case.service);
    let output = Command::new("/usr/bin/python3")
        .args(["-c", RUNTIME])
        .arg(case.service.run_directory().join("keeper"))
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", said(&output));
    // What it was given by that is what it still has.
    assert_eq!(one_keeper(&case.service), keeper);
    upgrade(&case.service, 2);
    kill_runtime(&case.service, || {});
    case.ends("2", NoneLost);
}

// --- files

/// Whether all files of the run directory are there.
fn is_whole(service: &Service) -> bool {
    let there = names(&service.run_directory());
    ["control", "keeper", "keeper.pid", "lock", "ready", "state.json"]
        .iter()
        .all(|name| there.iter().any(|one| one == name))
}

#[test]
fn files_of_the_run_directory_deleted() {
    let case = Case::start("files_of_the_run_directory_deleted", Server::Gthread, Socket::Tcp, "");
    let run = case.service.run_directory();
    let mut number = 1;
    let mut delete = |what: &str, by: &dyn Fn()| {
        number += 1;
        let mark = case.service.log.mark();
        by();
        case.service.log.wait(mark, &["and made again"], SOON);
        case.until("everything is there again", is_whole);
        case.until("the status is known", serves);
        // Readiness arrives, whoever asks is answered, and the next run adopts.
        upgrade(&case.service, number);
        let master = case.service.master();
        kill_runtime(&case.service, || {});
        case.until("one keeper", |service| service.keepers().len() == 1);
        assert_eq!(case.service.master(), master, "after {what} was deleted");
        case.until("it serves", serves);
    };
    for name in ["control", "ready", "state.json", "lock", "keeper", "keeper.pid"] {
        delete(name, &|| fs::remove_file(run.join(name)).expect(name));
    }
    delete("all", &|| {
        for name in ["control", "ready", "state.json", "lock", "keeper", "keeper.pid"] {
            fs::remove_file(run.join(name)).expect(name);
        }
    });
    // The directory goes as a whole, so that nothing is made again in it while it goes.
    let away = case.service.scratch().join("run.away");
    delete("the directory", &|| fs::rename(&run, &away).expect("the directory"));
    delete("the new directory", &|| {
        // What is made again while this deletes may keep it from ending.
        let _ = fs::remove_dir_all(&run);
    });
    let last = number.to_string();
    fs::remove_dir_all(away).expect("the old directory");
    case.ends(&last, NoneLost);
}

#[test]
fn private_socket_deleted() {
    let more = "handoff: {health_check: {path: /, timeout: 5, interval: 0.2}}";
    let case = Case::start("private_socket_deleted", Server::Gthread, Socket::Tcp, more);
    let master = case.service.master();
    fs::remove_file(case.service.run_directory().join("probe.1")).expect("the private socket");
    // Three failed checks in a row would replace it; each takes 0.2 s, and so do many more of these.
    let begun = Instant::now();
    case.until("a few checks", |_| begun.elapsed().as_secs() >= 2);
    assert_eq!(case.service.log.count(0, "does not answer health checks"), 0, "{}", case.service.log.text(0));
    assert_eq!((case.service.master(), &state(&case.service)["restarts"]), (master, &0.into()));
    upgrade(&case.service, 2);
    case.ends("2", NoneLost);
}

/// The number of the generation that the state's file names as the last one.
fn number_on_disk(service: &Service) -> u64 {
    let text = fs::read_to_string(service.run_directory().join("state.json")).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    state["machine"]["last"].as_u64().unwrap_or_default()
}

#[test]
fn state_that_cannot_be_written_for_a_while() {
    let service = Service::native(Server::Gthread, Socket::Unix, "");
    let disk = Disk::mount(&service.run_directory());
    let case = Case::of("state_that_cannot_be_written_for_a_while", service.started());
    // A state that is written meanwhile would reserve room again. Nothing is left to write once the generation is proven and the
    // runtime has answered after that; and nothing is written while it is stopped.
    case.service.log.wait(0, &["proven: generation 1"], SOON);
    state(&case.service);
    let runtime = case.service.runtime();
    kill(runtime, Signal::STOP);
    fs::remove_file(case.service.run_directory().join("state.json.new")).expect("the reserved room");
    disk.fill();
    kill(runtime, Signal::CONT);
    // While the new generation loads, none has ended whose files would leave room.
    let mark = case.service.begin_deploy(2, Release::Waiting);
    let line = case.service.log.wait(mark, &["state.json cannot be written"], SOON);
    assert!(line.text.contains("No space left"), "{}", line.text);
    case.service.log.wait(mark, &["generation 2 is master"], SOON);
    let trouble = state(&case.service)["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|trouble| trouble.contains("No space left")), "{trouble}");
    assert_eq!(number_on_disk(&case.service), 1);
    fs::remove_file(disk.filling()).expect("the file");
    // Nothing else happens, and nobody asks.
    case.service.log.wait(mark, &["state.json is written again"], SOON);
    assert_eq!(number_on_disk(&case.service), 2);
    case.until("no trouble is left", |service| state(service)["trouble"].is_null());
    assert!(case.service.run_directory().join("generation.2.json").exists());
    case.service.go();
    case.service.log.wait(mark, &["done: generation 2 serves alone"], SOON);
    case.until("enough requests", |_| case.load.seen().answers.len() > 50);
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    service.sv("down");
    assert_eq!(service.keepers(), [0; 0]);
    drop(disk);
}

#[test]
fn numbers_are_used_once() {
    let case = Case::start("numbers_are_used_once", Server::Sync, Socket::Tcp, "");
    let file = case.service.run_directory().join("state.json");
    let old = fs::read_to_string(&file).expect("the state");
    upgrade(&case.service, 2);
    let mark = case.service.log.mark();
    let runtime = case.service.runtime();
    kill(runtime, Signal::STOP);
    kill(case.service.keeper().expect("a keeper"), Signal::KILL);
    // As if nothing could have been written since.
    fs::write(&file, old).expect("the state");
    kill(runtime, Signal::KILL);
    case.service.log.wait(mark, &["done:"], HANDOVER);
    assert_eq!(case.service.log.count(mark, "starting generation 2"), 0, "{}", case.service.log.text(mark));
    case.settles();
    assert_eq!(state(&case.service)["serving"]["generation"], 3);
    case.ends("2", NoneLost);
}
