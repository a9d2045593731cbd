//! What each `sv` command means to a service that the runtime executes, with the real sv; and what is left after very many.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::faults::{Case, Requests, serves, state};
use support::host::{kill, lives};
use support::load::Load;
use support::service::{Release, Server, Service, Socket, WORKERS};
use support::{HANDOVER, SOON, STOP};

/// How long `sv` waits for what is to succeed, in seconds.
const PATIENCE: u32 = 180;

fn sv(service: &Service, command: &str, seconds: u32) -> Output {
    support::runsv::sv(&service.directory, command, seconds)
}

/// Tells runsv and waits for nothing.
fn told(service: &Service, command: &str) {
    let status = Command::new("sv").arg(command).arg(&service.directory).output().expect("sv").status;
    assert!(status.success(), "sv {command}");
}

/// `sv start` returns once the service is ready, and not before.
#[test]
fn start_waits_for_readiness() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    service.release(1, Release::Waiting);
    fs::write(service.directory.join("down"), "").expect("down");
    service.supervise();
    let output = sv(&service, "start", 1);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!service.checks());
    service.go();
    let output = sv(&service, "start", PATIENCE);
    assert!(output.status.success() && serves(&service), "{output:?}");
    service.down();
    let output = sv(&service, "up", PATIENCE);
    assert!(output.status.success(), "{output:?}");
    service.log.wait(0, &["ready: generation 1 serves"], SOON);
    service.down();
}

#[test]
fn stop_and_exit_leave_nothing() {
    for command in ["stop", "exit"] {
        let service = Service::start_native(Server::Gthread, Socket::Unix, "");
        let mut load = Load::start(&service.address, 0, 0);
        load.slow();
        let mark = service.log.mark();
        service.begin(command);
        service.log.wait(mark, &["nothing is left"], STOP);
        service.assert_nothing_left();
        let seen = load.finish();
        assert!(seen.failures.is_empty() && seen.answers.len() == 1, "{command}: {:?}", seen.failures);
    }
}

/// What does not finish within `drain_timeout` is killed.
#[test]
fn down_has_an_end() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 1}");
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.log.mark();
    service.begin("down");
    service.log.wait(mark, &["did not finish in time and is killed"], STOP);
    service.log.wait(mark, &["nothing is left"], STOP);
    service.assert_nothing_left();
    assert_eq!(load.finish().failures.len(), 1);
}

/// `sv restart` and `sv term` are hand-overs, and `sv restart` exits 0; the runtime is another one, the socket the same.
#[test]
fn restart_and_term_are_hand_overs() {
    let case = Case::start("restart", Server::Gthread, Socket::Unix, "");
    for (number, command) in [(2, "restart"), (3, "term")] {
        let runtime = case.service.runtime();
        case.service.release(number, Release::Good);
        case.service.switch(number);
        let mark = case.service.log.mark();
        let output = sv(&case.service, command, PATIENCE);
        assert!(output.status.success(), "{output:?}");
        case.service.log.wait(mark, &["goes on under this run"], HANDOVER);
        assert_eq!(case.service.version(), number.to_string());
        assert_ne!(case.service.runtime(), runtime);
        case.until("there is one keeper", |service| service.keepers().len() == 1);
    }
    case.ends("3", Requests::NoneLost);
}

/// A restart that is backed out is no success.
#[test]
fn restart_that_is_backed_out() {
    let case = Case::start("restart that is backed out", Server::Sync, Socket::Unix, "");
    let (runtime, master) = (case.service.runtime(), case.service.master());
    case.service.release(2, Release::Broken);
    case.service.switch(2);
    let mark = case.service.log.mark();
    let output = sv(&case.service, "restart", 4);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // sv may have lost its patience before the new generation has failed.
    case.service.log.wait(mark, &["runsmith: hand-over FAILED"], HANDOVER);
    assert_eq!((case.service.runtime(), case.service.master()), (runtime, master));
    case.ends("1", Requests::NoneLost);
}

#[test]
fn signals_are_hand_overs() {
    let case = Case::start("signals", Server::Sync, Socket::Tcp, "");
    for (number, command) in (2..).zip(["hup", "2", "quit", "interrupt", "reload"]) {
        let runtime = case.service.runtime();
        case.service.release(number, Release::Good);
        case.service.switch(number);
        let mark = case.service.log.mark();
        assert!(sv(&case.service, command, PATIENCE).status.success());
        case.service.log.wait(mark, &["runsmith: done:"], HANDOVER);
        assert_eq!(
            (case.service.version(), case.service.runtime()),
            (number.to_string(), runtime),
            "{command}"
        );
    }
    case.ends("6", Requests::NoneLost);
}

#[test]
fn one_reopens_logs_and_alarm_tells_the_status() {
    for server in [Server::Sync, Server::Unicorn] {
        let service = Service::start_native(server, Socket::Unix, "");
        let mark = service.log.mark();
        service.sv("1");
        service.log.wait(mark, &["generation 1 was told to open its logs again"], SOON);
        // The server says so in its own words.
        service.log.wait(mark, &["usr1", "done reopening logs"], SOON);
        let mark = service.log.mark();
        service.sv("alarm");
        service.log.wait(mark, &["status: serving; 0 restarts"], SOON);
        service.log.wait(
            mark,
            &["status: generation 1 serves: master", &format!("{WORKERS} of {WORKERS} workers")],
            SOON,
        );
        service.down();
    }
}

/// Files that are rotated while a hand-over is under way are let go by everybody: by the old generation at once, also while
/// it drains, and by the new one as soon as it can hear the signal.
#[test]
fn rotated_logs_are_let_go_by_every_generation() {
    for server in [Server::Sync, Server::Unicorn] {
        let mut service = Service::native_with_log(server, Socket::Unix, "log: {kind: files}");
        service.supervise();
        service.until("it serves", serves);
        let logs = service.root.join("shared/logs");
        let rotate = |number: u32| {
            for entry in fs::read_dir(&logs).expect("logs").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".log") {
                    fs::rename(entry.path(), logs.join(format!("{name}.{number}"))).expect("rotated");
                }
            }
            service.sv("1");
        };
        let has_rotated = |pid: u32, number: u32| {
            descriptors(pid).iter().any(|target| target.ends_with(&format!(".log.{number}")))
        };
        let old = service.master();
        let mut load = Load::start(&service.address, 0, 0);
        let mark = service.begin_deploy(2, Release::Waiting);
        service.log.wait(mark, &["generation 2 is master"], SOON);
        service.until("the new master has its log", |service| {
            let masters = service.user.masters();
            masters.iter().any(|pid| *pid != old && descriptors(*pid).iter().any(|one| one.ends_with(".log")))
        });
        rotate(1);
        service.log.wait(mark, &["generation 1 was told to open its logs again"], SOON);
        assert_eq!(service.log.count(mark, "generation 2 was told to open its logs again"), 0);
        service.until("the old one lets go", |_| !has_rotated(old, 1));
        load.slow();
        service.go();
        service.log.wait(mark, &["generation 2 was told to open its logs again"], HANDOVER);
        let new = *service.user.masters().iter().find(|pid| **pid != old).expect("the new master");
        service.until("the new one lets go", |_| !has_rotated(new, 1));
        service.log.wait(mark, &["runsmith: ready: generation 2"], HANDOVER);
        // The old one drains: a request of three seconds is in flight.
        rotate(2);
        service.log.wait(mark, &["runsmith: done: generation 2"], HANDOVER);
        service.until("the new one lets go again", |_| !has_rotated(new, 2));
        let seen = load.finish();
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
        service.down();
    }
}

/// `sv kill` ends the runtime alone, and the next one adopts what runs.
#[test]
fn kill_leaves_the_application() {
    let case = Case::start("kill", Server::Gevent, Socket::Unix, "");
    let (runtime, master) = (case.service.runtime(), case.service.master());
    let mark = case.service.log.mark();
    case.service.sv("kill");
    case.service.log.wait(mark, &["generation 1 was running and goes on under this run"], SOON);
    assert_ne!(case.service.runtime(), runtime);
    assert_eq!(case.service.master(), master);
    case.ends("1", Requests::NoneLost);
}

/// `sv once` is as up, but what ends is not started again; `sv term` is then a stop.
#[test]
fn once_is_not_started_again() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    fs::write(service.directory.join("down"), "").expect("down");
    service.supervise();
    service.sv("once");
    service.log.wait(0, &["ready: generation 1"], support::START);
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["nothing is left"], STOP);
    service.assert_nothing_left();
    // runsv has taken its end in.
    service.sv("down");
    let mark = service.log.mark();
    service.sv("once");
    service.log.wait(mark, &["ready: generation 1"], support::START);
    service.begin("term");
    service.log.wait(mark, &["nothing is left"], STOP);
    service.assert_nothing_left();
}

/// A thousand commands in random order, none of which is waited for; in the end it serves, and nothing is left over.
#[test]
fn a_thousand_commands_in_random_order() {
    const COMMANDS: &[&str] = &[
        "up",
        "down",
        "once",
        "pause",
        "cont",
        "hup",
        "alarm",
        "interrupt",
        "quit",
        "1",
        "2",
        "term",
        "kill",
        "cont",
        "up",
        "hup",
        "2",
        "term",
    ];
    let service = Service::start_native(Server::Sync, Socket::Unix, "handoff: {drain_timeout: 5}");
    // Knuth's MMIX generator: the same order each time.
    let mut dice = 42_u64;
    for _ in 0..1000 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let command = COMMANDS[(dice >> 33) as usize % COMMANDS.len()];
        told(&service, command);
    }
    // As an operator would: until it is up, it is told to be.
    service.until("it is up again", |service| {
        told(service, "cont");
        told(service, "up");
        serves(service)
    });
    service.until_settled();
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    service.until_settled();
    assert_eq!(state(&service)["state"], "serving");
    service.down();
    assert!(service.keeper().is_none_or(|pid| !lives(pid)));
}

/// Descriptors, threads and memory of a process: count, count, KiB.
fn size(pid: u32) -> (usize, usize, usize) {
    let entries = |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).expect("proc").count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    (entries("fd"), entries("task"), memory.trim().trim_end_matches(" kB").parse().expect("KiB"))
}

/// What the descriptors of a process are, for who reads a failure.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("proc").flatten();
    let shown = |path: PathBuf| fs::read_link(path).map(|target| target.display().to_string());
    entries.filter_map(|entry| shown(entry.path()).ok()).collect()
}

/// The sizes once both processes have nothing in hand: who asked last hangs up, what is remembered is written, and what the
/// last generation said is read, after `upgrade` has told its end.
fn at_rest(service: &Service, pids: [u32; 2]) -> [(usize, usize, usize); 2] {
    /// So many looks in a row that find the same, one each 50 ms unless a line is logged.
    const LOOKS: usize = 6;
    let until = Instant::now() + SOON;
    let mut sizes = pids.map(size);
    let mut alike = 0;
    while alike < LOOKS && Instant::now() < until {
        service.log.next(Duration::from_millis(50));
        let now = pids.map(size);
        alike = if now.map(|size| size.0) == sizes.map(|size| size.0) { alike + 1 } else { 0 };
        sizes = now;
    }
    sizes
}

/// Upgrades in a row: 40 here, 200 with `make soak`. Nothing grows.
#[test]
fn upgrades_in_a_row_do_not_grow_anything() {
    let soak = std::env::var_os("RUNSMITH_SOAK").map(PathBuf::from);
    let count = if soak.is_some() { 200 } else { 40 };
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let upgrade = || {
        let output = service.runsmith(&["upgrade"]);
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            service.log.text(0)
        );
    };
    // What is allocated once is allocated by then.
    (0..10).for_each(|_| upgrade());
    let pids = [service.runtime(), service.keeper().expect("a keeper")];
    let (before, descriptors_before) = (at_rest(&service, pids), pids.map(descriptors));
    (0..count).for_each(|_| upgrade());
    let after = at_rest(&service, pids);
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(
            (before.0, before.1),
            (after.0, after.1),
            "descriptors, threads: {descriptors_before:?} became {:?}",
            pids.map(descriptors)
        );
        assert!(after.2 <= before.2 + 64, "{} KiB became {} KiB", before.2, after.2);
    }
    if let Some(directory) = soak {
        let mut table =
            "| process | upgrades | descriptors, before and after | threads | anonymous memory, KiB |\n\
                         |---|---|---|---|---|\n"
                .to_owned();
        for (name, (before, after)) in ["runtime", "keeper"].into_iter().zip(before.into_iter().zip(after)) {
            table.push_str(&format!(
                "| {name} | {count} | {}, {} | {}, {} | {}, {} |\n",
                before.0, after.0, before.1, after.1, before.2, after.2
            ));
        }
        fs::create_dir_all(&directory).expect("a directory for numbers");
        fs::write(directory.join("upgrades"), table).expect("numbers");
    }
    service.assert_one_generation();
    let run = service.run_directory();
    let left: Vec<_> = fs::read_dir(&run).expect("run").flatten().map(|entry| entry.file_name()).collect();
    // With what the generation is made of; `before.json` goes once it is proven.
    let left: Vec<_> = left.into_iter().filter(|name| *name != "before.json").collect();
    assert_eq!(left.len(), 8, "{left:?}");
    assert!(Path::new(&run).join("state.json").metadata().expect("state").len() <= 4096);
    service.down();
}
