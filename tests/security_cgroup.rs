//! The application's user tries to leave its generation: what it has started ends with that. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::host::{User, kill, processor_time};
use support::row::{Row, said};
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON, START, wait_for_file};

/// Old generations get two seconds.
const SHORT: &str = "handoff: {drain_timeout: 2}";

/// The first worker starts a process that leaves everything by which it could be known, hears no signal, and keeps the
/// listening socket.
const LEAVES: &str = r#"
import os
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
if is_first and os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    os.set_inheritable(3, True)
    os.execve("/usr/bin/python3", ["python3", "-c", '''
import signal
for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
open("MARK.left", "w").close()
while True: signal.pause()
'''], {})
"#;

/// The first worker starts two chains of processes that live for a moment each: one in the session, one that has left it.
const CHAINS: &str = r#"
import os
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
chain = '''
import os, signal
for number in (signal.SIGTERM, signal.SIGQUIT): signal.signal(number, signal.SIG_IGN)
open("MARK.forks", "a").close()
while True:
    os.utime("MARK.forks")
    if os.fork(): os._exit(0)
'''
if is_first:
    for leaves in (False, True):
        if os.fork() == 0:
            if leaves: os.setsid()
            os.execve("/usr/bin/python3", ["python3", "-c", chain], {} if leaves else os.environ)
"#;

/// Ends every process of a user at once when a test fails: only that ends a chain.
struct End(String);

impl End {
    fn of(user: &User) -> Self {
        Self(user.name.clone())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let user = &self.0;
        let kill = ["--reuid", user, "--regid", user, "--clear-groups", "--", "kill", "-KILL", "-1"];
        let _ = Command::new("setpriv").args(kill).output();
    }
}

/// The cgroup that `status` shows of the generation that serves; else why there is none.
fn enclosure(service: &Service) -> Result<String, String> {
    let output = service.runsmith(&["status", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &json["services"][0]["serving"]["enclosure"];
    let text = said(&service.runsmith(&["status"]));
    match found["cgroup"].as_str() {
        Some(path) => {
            assert!(text.contains("known by their cgroup"), "{text}");
            assert!(found["reason"].is_null(), "{found}");
            Ok(path.to_owned())
        }
        None => {
            let reason = found["reason"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
            assert!(text.contains("known by their session and environment"), "{text}");
            assert!(text.contains(&reason), "{text}");
            Err(reason)
        }
    }
}

/// Runs it where something was done to the mounts of cgroups first.
fn supervise_where(service: &mut Service, mounts: &str) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new("unshare");
    let script = format!("{mounts}; exec runsv \"$1\"");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    service.supervise_by(command, writer);
    service.log = support::log::Log::follow(reader);
    service.log.wait(0, &["runsmith: done:"], START);
}

/// A release takes over, and the service ends: nothing is left of what has left its generation.
fn ends_with_its_generation(service: Service, mark: &str) {
    wait_for_file(&format!("{mark}.left"));
    let mut row = Row::of(service);
    row.upgrade();
    row.service.assert_one_generation();
    row.end();
}

#[test]
fn what_leaves_session_and_environment_ends_with_its_generation() {
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, SHORT, LEAVES);
    let service = service.started();
    let path = enclosure(&service).unwrap();
    assert!(fs::read_to_string(format!("{path}/cgroup.procs")).is_ok_and(|pids| pids.lines().count() >= 4));
    ends_with_its_generation(service, &mark);
    let (service, mark) = Service::native_with(Server::Sync, Socket::Unix, SHORT, LEAVES);
    let service = service.started();
    wait_for_file(&format!("{mark}.left"));
    service.down();
}

/// The freezer of version 1.
#[test]
fn it_ends_where_only_version_1_of_cgroups_is_mounted() {
    let (mut service, mark) = Service::native_with(Server::Sync, Socket::Tcp, SHORT, LEAVES);
    supervise_where(&mut service, "umount -l /sys/fs/cgroup/unified");
    let path = enclosure(&service).unwrap();
    assert!(path.contains("freezer"), "{path}");
    ends_with_its_generation(service, &mark);
}

#[test]
fn chains_of_short_processes_end_with_their_generation() {
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, SHORT, CHAINS);
    let _end = End::of(&service.user);
    let service = service.started();
    wait_for_file(&format!("{mark}.forks"));
    let runtime = service.runtime();
    let (begun, before) = (Instant::now(), processor_time(runtime));
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
    let (took, used) = (begun.elapsed(), processor_time(runtime) - before);
    service.assert_one_generation();
    // Who looks for processes that live for a moment does not see them; what they leave behind is seen.
    let touched = || fs::metadata(format!("{mark}.forks")).unwrap().modified().unwrap();
    let last = touched();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(touched(), last, "a chain goes on");
    assert!(took < HANDOVER, "{took:?}");
    // Each of these processes ends as a child of the runtime, which does not wake for each.
    assert!(used < took / 4, "{used:?} of {took:?}");
    service.down();
}

/// With `usr2` all generations are in one cgroup, which cannot end with one of them. It ends with the service.
#[test]
fn chains_of_short_processes_end_with_a_service_that_has_one_cgroup() {
    let more = "handoff: {strategy: usr2, drain_timeout: 2}";
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, more, CHAINS);
    let _end = End::of(&service.user);
    let service = service.started();
    wait_for_file(&format!("{mark}.forks"));
    service.down();
    let touched = || fs::metadata(format!("{mark}.forks")).unwrap().modified().unwrap();
    let last = touched();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(touched(), last, "a chain goes on");
}

#[test]
fn the_next_run_knows_the_cgroup_and_proves_it() {
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, SHORT, LEAVES);
    let service = service.started();
    wait_for_file(&format!("{mark}.left"));
    let path = enclosure(&service);
    let row = Row::of(service);
    row.kill_runtime();
    assert_eq!(enclosure(&row.service), path);
    // A state that an earlier version has written, which knows no cgroups.
    row.kill_both(|service| {
        let file = service.run_directory().join("state.json");
        let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(state["generations"][0].as_object_mut().unwrap().remove("cgroup").is_some());
        fs::write(&file, state.to_string()).unwrap();
    });
    assert_eq!(enclosure(&row.service), path);
    let mut row = row;
    row.upgrade();
    row.service.assert_one_generation();
    row.end();
}

/// Root, or a program of root's with rules of its own, moves the processes elsewhere: their session tells, and nothing is lost.
#[test]
fn a_generation_that_is_moved_to_another_cgroup_is_known_by_its_session() {
    let row = Row::begin(Server::Sync, Socket::Tcp, SHORT);
    let path = enclosure(&row.service).unwrap();
    let elsewhere = std::path::Path::new(&path).ancestors().nth(3).unwrap().join("cgroup.procs");
    for process in row.service.user.processes() {
        fs::write(&elsewhere, process.pid.to_string()).unwrap();
    }
    assert_eq!(fs::read_to_string(format!("{path}/cgroup.procs")).unwrap(), "");
    let mark = row.service.log.mark();
    // Its workers go on until another generation serves.
    kill(row.service.master(), Signal::KILL);
    row.service.log.wait(mark, &["ready: generation 2"], HANDOVER);
    let until = Instant::now() + SOON;
    while row.service.user.processes().len() > row.service.processes {
        assert!(Instant::now() < until, "{}", row.service.log.text(0));
        row.service.log.next(Duration::from_millis(200));
    }
    row.service.assert_one_generation();
    row.end();
}

/// Every record is lost: what the kernel has in the service's cgroups is the service's.
#[test]
fn what_hides_is_found_when_every_record_is_lost() {
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, SHORT, LEAVES);
    let service = service.started();
    wait_for_file(&format!("{mark}.left"));
    let mut row = Row::of(service);
    row.kill_both(|service| fs::remove_file(service.run_directory().join("state.json")).unwrap());
    row.service.log.wait(0, &["processes were found that no record names"], HANDOVER);
    row.upgrade();
    row.service.assert_one_generation();
    row.end();
}

/// As in a container: nothing can be made there, and everything else is as it was.
#[test]
fn where_no_cgroup_can_be_made_sessions_tell() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, SHORT);
    supervise_where(
        &mut service,
        "for one in /sys/fs/cgroup/unified /sys/fs/cgroup/freezer; do mount -o remount,bind,ro $one; done",
    );
    let reason = enclosure(&service).unwrap_err();
    assert!(reason.starts_with("no cgroup can be made in /"), "{reason}");
    let mut row = Row::of(service);
    row.upgrade();
    row.kill_runtime();
    kill(row.service.master(), Signal::KILL);
    row.end();
}

/// The first worker takes all that it can get: processes, then memory.
const GREEDY: &str = r#"
import os
try: os.close(os.open("MARK", os.O_CREAT | os.O_EXCL)); is_first = True
except FileExistsError: is_first = False
if is_first and os.fork() == 0:
    import signal, time
    os.setsid()
    while not os.path.exists("MARK.go"): time.sleep(0.02)
    pids = []
    try:
        while len(pids) < 300:
            pid = os.fork()
            if pid == 0:
                while True: signal.pause()
            pids.append(pid)
    except OSError: pass
    open("MARK.forks", "w").write(str(len(pids)))
    for pid in pids: os.kill(pid, signal.SIGKILL)
    for pid in pids: os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        taken = []
        while len(taken) < 400: taken.append(b"x" * 10_000_000)
        os._exit(0)
    open("MARK.end", "w").write(str(os.waitpid(pid, 0)[1]))
    os.rename("MARK.end", "MARK.ended")
    os._exit(0)
"#;

/// The limits of a generation.
const LIMITS: &str = "cgroup: {tasks_max: 60, memory_max: 300M}";

#[test]
fn a_generation_gets_no_more_processes_and_memory_than_it_may() {
    let more = format!("{LIMITS}\n{SHORT}");
    let (service, mark) = Service::native_with(Server::Sync, Socket::Tcp, &more, GREEDY);
    // Where the limit leaves room for them, its workers have begun.
    let mut row = Row::of(service.started());
    fs::write(format!("{mark}.go"), "").unwrap();
    wait_for_file(&format!("{mark}.ended"));
    let read = |name: &str| fs::read_to_string(format!("{mark}.{name}")).unwrap();
    let forks: u32 = read("forks").parse().unwrap();
    assert!(forks > 30 && forks < 60, "{forks}");
    // Ended by KILL.
    assert_eq!(read("ended"), "9", "{}", row.service.log.text(0));
    assert_eq!(row.service.runsmith(&["status"]).status.code(), Some(0));
    row.upgrade();
    row.end();
}

#[test]
fn limits_that_do_not_hold_are_reported() {
    for (mounts, reason) in [
        ("umount -l /sys/fs/cgroup/memory /sys/fs/cgroup/pids", "it has no controller `memory`"),
        ("umount -l /sys/fs/cgroup/unified /sys/fs/cgroup/freezer", "no cgroup file system is mounted"),
    ] {
        let mut service = Service::native(Server::Sync, Socket::Tcp, LIMITS);
        supervise_where(&mut service, mounts);
        let output = service.runsmith(&["status", "--format", "json"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problem = &json["services"][0]["problems"][0];
        assert_eq!(problem["code"], "limits", "{json}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("cgroup.memory_max") && message.contains(reason), "{message}");
        assert!(message.contains("cgroup.tasks_max"), "{message}");
        assert!(service.log.text(0).contains(reason), "{}", service.log.text(0));
        let mut row = Row::of(service);
        let mark = row.kill_runtime();
        let output = row.service.runsmith(&["status"]);
        assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), row.service.log.text(mark));
        row.upgrade_to_what_is_there();
        row.nothing_was_lost();
        row.service.down();
    }
}
