//! The fault matrix: what goes wrong under load, with real runsv, gunicorn and unicorn, and which promises are kept.
//! `make faults` writes what was measured into docs/faults.md.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use support::faults::{Case, Requests, page, rows_are_tests, serves, state};
use support::host::{Process, kill, lives};
use support::load::Load;
use support::row::{said, unfolded};
use support::service::{Release, Server, Service, Socket};
use support::{BOOT, HANDOVER, SOON, STOP, runsv};

use Requests::{LostWithTheKilled, NoneLost};

const DONE: &[&str] = &["runsmith: done:"];
const FAILED: &[&str] = &["runsmith: hand-over FAILED"];
const ADOPTED: &[&str] = &["goes on under this run"];
/// An application with a health check that the tests control by a file.
const CHECKED: &str = "handoff: {boot_timeout: 30, health_check: {path: /health, timeout: 5, interval: 0.2}}";

/// Name of the test, what is done, what is promised.
const ROWS: &[(&str, &str, &str)] = &[
    ("runtime_killed_at_rest", "kill -9 of the runtime", "same master and workers, adopted; none lost"),
    (
        "master_killed_at_rest",
        "kill -9 of the master",
        "its workers serve until the next generation does; none lost",
    ),
    (
        "worker_killed_at_rest",
        "kill -9 of a worker",
        "the master replaces it; only what that worker had in hand is lost",
    ),
    (
        "runsv_killed_at_rest",
        "kill -9 of runsv, and a new one",
        "the second runtime takes over; same master; none lost",
    ),
    ("runsvdir_killed_at_rest", "kill -9 of runsvdir", "nothing happens"),
    ("keeper_killed_at_rest", "kill -9 of the keeper", "another keeper; same master; none lost"),
    (
        "runtime_and_master_killed",
        "kill -9 of runtime and master at once",
        "addresses never refuse; none lost",
    ),
    (
        "runtime_and_keeper_killed",
        "kill -9 of runtime and keeper at once",
        "sockets are taken out of the master; none lost",
    ),
    (
        "runtime_killed_again_and_again",
        "kill -9 of the runtime, five times in a row",
        "same master; none lost",
    ),
    (
        "runtime_killed_before_readiness",
        "kill -9 of the runtime while a new generation loads",
        "the hand-over is done again; none lost",
    ),
    (
        "runtime_killed_twice",
        "kill -9 of the runtime while a new generation loads, and again after a release was switched to that nobody has deployed",
        "the hand-over is done again, once; the second time the same master is adopted; none lost",
    ),
    (
        "runtime_killed_in_a_hand_over_by_usr2",
        "gunicorn and unicorn with `strategy: usr2`: kill -9 of the runtime before the old master is asked, and twice as soon as it has a new child",
        "the hand-over is done again, one generation is left, and another upgrade succeeds; none lost",
    ),
    (
        "master_killed_before_readiness",
        "kill -9 of the old master while a new generation loads",
        "the new one takes over; none lost",
    ),
    (
        "candidate_killed_before_readiness",
        "kill -9 of the new master while it loads",
        "backed out; same old master; none lost",
    ),
    (
        "runsv_killed_before_readiness",
        "kill -9 of runsv while a new generation loads",
        "the hand-over is done again; none lost",
    ),
    (
        "keeper_killed_before_readiness",
        "kill -9 of the keeper while a new generation loads",
        "the hand-over goes on; none lost",
    ),
    (
        "runtime_killed_before_retiring",
        "kill -9 of the runtime between readiness and retiring (health check held)",
        "the hand-over is done again; none lost",
    ),
    (
        "master_killed_before_retiring",
        "kill -9 of the old master between readiness and retiring",
        "the new one takes over; none lost",
    ),
    (
        "candidate_killed_before_retiring",
        "kill -9 of the new master between readiness and retiring",
        "backed out; same old master; only what it had in hand is lost",
    ),
    (
        "worker_killed_before_retiring",
        "kill -9 of an old worker whose successor has no signal handlers yet when its generation is stopped",
        "it gets the signal again, and finishes; only what the killed one had in hand is lost",
    ),
    (
        "runtime_killed_while_draining",
        "kill -9 of the runtime while the old generation drains",
        "the next runtime sees it out; none lost",
    ),
    (
        "old_master_killed_unseen",
        "kill -9 of the old master when the new one is ready, before the runtime looks",
        "its workers finish; none lost",
    ),
    (
        "old_master_killed_while_draining",
        "kill -9 of the old master while it drains",
        "its workers finish; none lost",
    ),
    (
        "new_master_killed_while_draining",
        "kill -9 of the new master while the old one drains",
        "its workers serve until the next generation; none lost",
    ),
    (
        "runsv_killed_while_draining",
        "kill -9 of runsv while the old generation drains",
        "the next runtime sees it out; none lost",
    ),
    (
        "master_stopped_with_health_check",
        "SIGSTOP of the master, with a health check",
        "noticed, replaced, and killed after drain_timeout; none lost",
    ),
    (
        "master_stopped_and_upgraded",
        "SIGSTOP of the master, then an upgrade",
        "the new one takes over; none lost",
    ),
    (
        "worker_stopped_and_upgraded",
        "SIGSTOP of a worker, then an upgrade",
        "killed after drain_timeout; only what it had in hand is lost",
    ),
    (
        "runtime_stopped_and_continued",
        "SIGSTOP of the runtime, a deploy asked for, SIGCONT",
        "nothing is noticed; then the deploy happens; none lost",
    ),
    (
        "runtime_stopped_for_longer_than_anybody_waits",
        "SIGSTOP of the runtime, `upgrade`, which gives up after a few seconds, SIGCONT; then a shorter SIGSTOP",
        "the first request is withdrawn and nothing is begun, the second one succeeds; none lost",
    ),
    (
        "upgrade_interrupted",
        "two `upgrade` commands, the second one queued, get INT and TERM",
        "each prints that the hand-over goes on, and it does; none lost",
    ),
    (
        "release_that_cannot_be_imported",
        "a release that cannot be imported",
        "backed out with its traceback; same old master; none lost",
    ),
    (
        "release_that_cannot_be_loaded_by_unicorn",
        "the same with Ruby unicorn",
        "backed out; same old master; none lost",
    ),
    (
        "release_that_hangs",
        "a release that hangs on import",
        "removed after boot_timeout; same old master; none lost",
    ),
    (
        "release_whose_workers_fail",
        "a release whose workers fail, without preload_app",
        "backed out; same old master; none lost",
    ),
    (
        "release_that_dies_when_ready",
        "a release that dies right after it got ready",
        "started again; addresses never refuse",
    ),
    (
        "release_whose_workers_die",
        "a release whose workers die one by one",
        "gunicorn replaces them; addresses never refuse",
    ),
    (
        "release_that_keeps_dying",
        "a release whose master dies again and again",
        "restarts back off, visibly; a good release ends it",
    ),
    (
        "health_check_that_fails",
        "a release whose health check answers 500",
        "removed; same old master; none lost",
    ),
    ("health_check_that_hangs", "a release whose health check hangs", "removed; same old master; none lost"),
    (
        "health_check_that_recovers",
        "a release whose health check answers 500, then 200",
        "takes over once it is healthy; none lost",
    ),
    (
        "old_release_deleted",
        "the old release is deleted before the upgrade",
        "the new one takes over; none lost",
    ),
    ("current_leads_nowhere", "current leads nowhere", "refused with the reason; same old master; none lost"),
    (
        "interpreter_gone",
        "the virtualenv's interpreter is gone, then comes back",
        "backed out; same old master; then done; none lost",
    ),
    ("two_upgrades_at_once", "two upgrades asked for at once", "one follows the other; none lost"),
    (
        "upgrade_while_draining",
        "an upgrade asked for while the old generation drains",
        "one more follows; none lost",
    ),
    (
        "upgrade_given_up",
        "upgrade --abort while the new generation loads",
        "same old master; the requester gets the result; none lost",
    ),
    (
        "upgrade_command_killed",
        "the upgrade command is killed while it waits",
        "the hand-over goes on; none lost",
    ),
    (
        "request_longer_than_drain_timeout",
        "a request that takes longer than drain_timeout",
        "its generation is killed; only that request is lost",
    ),
    ("stop_while_booting", "sv down while the first generation loads", "nothing is left"),
    ("stop_while_handing_over", "sv down while a new generation loads", "both stop; nothing is left"),
    (
        "stop_while_draining",
        "sv down while the old generation drains",
        "both stop; requests in flight finish; nothing is left",
    ),
    (
        "runtime_killed_and_down",
        "sv down, and kill -9 of the runtime while it stops",
        "finish ends what is left",
    ),
];

#[test]
fn the_rows_are_the_tests() {
    rows_are_tests(ROWS, include_str!("faults.rs"));
}

#[test]
fn the_page_has_the_rows() {
    page(ROWS, "runtime, servers and releases");
}

/// What is done while a hand-over is at a step.
fn kill_at(service: &Service, whom: Whom, old: u32) {
    let pid = match whom {
        Whom::Runtime => service.runtime(),
        Whom::OldMaster => old,
        Whom::NewMaster => new_master(service, old),
        Whom::Keeper => service.keeper().expect("a keeper"),
    };
    kill(pid, Signal::KILL);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Runtime,
    OldMaster,
    NewMaster,
    Keeper,
}

/// The master that is not the old one.
fn new_master(service: &Service, old: u32) -> u32 {
    let masters = service.user.masters();
    *masters.iter().find(|pid| **pid != old).unwrap_or_else(|| panic!("no new master in {masters:?}"))
}

fn workers(master: u32) -> Vec<u32> {
    Process::all().into_iter().filter(|one| one.parent == master && one.lives()).map(|one| one.pid).collect()
}

/// Kills somebody while release 2 loads; gives the case and the old master.
fn before_readiness(name: &'static str, whom: Option<Whom>) -> (Case, u32) {
    let mut case = Case::start(name, Server::Sync, Socket::Unix, "handoff: {boot_timeout: 40}");
    let old = case.service.master();
    let mark = case.service.begin_deploy(2, Release::Waiting);
    case.service.log.wait(mark, &["generation 2 is master"], SOON);
    // Its interpreter runs: the launcher is done.
    case.until("the new master runs", |service| service.user.masters().len() == 2);
    match whom {
        Some(whom) => kill_at(&case.service, whom, old),
        None => {
            case.service.kill_runsv();
            case.service.supervise();
        }
    }
    (case, old)
}

#[test]
fn runtime_killed_at_rest() {
    let case = Case::start("runtime_killed_at_rest", Server::Gthread, Socket::Tcp, "");
    let (master, runtime) = (case.service.master(), case.service.runtime());
    let before = workers(master);
    let mark = case.service.log.mark();
    kill(runtime, Signal::KILL);
    case.service.log.wait(mark, ADOPTED, SOON);
    assert_eq!((case.service.master(), workers(master)), (master, before));
    case.ends("1", NoneLost);
}

#[test]
fn master_killed_at_rest() {
    let case = Case::start("master_killed_at_rest", Server::Sync, Socket::Tcp, "restart: {min_uptime: 0}");
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], SOON);
    assert_eq!(state(&case.service)["restarts"], 1);
    case.ends("1", NoneLost);
}

#[test]
fn worker_killed_at_rest() {
    let case = Case::start("worker_killed_at_rest", Server::Sync, Socket::Unix, "");
    let master = case.service.master();
    let worker = workers(master)[0];
    kill(worker, Signal::KILL);
    case.until("another worker", |_| workers(master).len() == 3 && !workers(master).contains(&worker));
    assert_eq!(case.service.master(), master);
    case.ends("1", LostWithTheKilled(2));
}

#[test]
fn runsv_killed_at_rest() {
    let mut case = Case::start("runsv_killed_at_rest", Server::Gthread, Socket::Unix, "");
    let master = case.service.master();
    case.service.kill_runsv();
    case.service.supervise();
    case.service.log.wait(0, ADOPTED, SOON);
    assert_eq!(case.service.master(), master);
    case.ends("1", NoneLost);
}

#[test]
fn runsvdir_killed_at_rest() {
    let service = Service::native(Server::Sync, Socket::Tcp, "");
    let links = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(&service.directory, links.path().join("app")).expect("a link");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut runsvdir = Command::new("runsvdir")
        .arg("-P")
        .arg(links.path())
        .stdout(writer.try_clone().expect("a descriptor"))
        .stderr(Stdio::null())
        .spawn()
        .expect("runsvdir");
    drop(writer);
    let mut service = service;
    service.log = support::log::Log::follow(reader);
    service.log.wait(0, &["runsmith: ready:"], support::START);
    let runsv = Process::read(service.runtime()).expect("the runtime").parent;
    let case = Case::of("runsvdir_killed_at_rest", service);
    let (master, runtime) = (case.service.master(), case.service.runtime());
    runsvdir.kill().expect("kill");
    runsvdir.wait().expect("wait");
    case.service.version();
    assert_eq!((case.service.master(), case.service.runtime()), (master, runtime));
    assert!(lives(runsv));
    case.ends("1", NoneLost);
    kill(runsv, Signal::TERM);
}

#[test]
fn keeper_killed_at_rest() {
    let case = Case::start("keeper_killed_at_rest", Server::Gthread, Socket::Tcp, "");
    let (master, keeper) = (case.service.master(), case.service.keeper().expect("a keeper"));
    let mark = case.service.log.mark();
    kill(keeper, Signal::KILL);
    // Whichever is noticed first.
    case.service.log.wait(
        mark,
        &["the keeper is gone", "does not answer; another one takes its place"],
        SOON,
    );
    case.until("another keeper", |service| service.keeper().is_some_and(|pid| pid != keeper));
    // What the server says still arrives.
    let mark = case.service.log.mark();
    case.service.sv("1");
    case.service.log.wait(mark, &["[INFO] Handling signal: usr1"], SOON);
    assert_eq!(case.service.master(), master);
    case.ends("1", NoneLost);
}

#[test]
fn runtime_and_master_killed() {
    let case =
        Case::start("runtime_and_master_killed", Server::Sync, Socket::Unix, "restart: {min_uptime: 0}");
    let mark = case.service.log.mark();
    let (runtime, master) = (case.service.runtime(), case.service.master());
    kill(runtime, Signal::KILL);
    kill(master, Signal::KILL);
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], SOON);
    case.ends("1", NoneLost);
}

#[test]
fn runtime_and_keeper_killed() {
    let case = Case::start("runtime_and_keeper_killed", Server::Gthread, Socket::Unix, "");
    let master = case.service.master();
    let mark = case.service.log.mark();
    let (runtime, keeper) = (case.service.runtime(), case.service.keeper().expect("a keeper"));
    // It is not to begin another keeper in between.
    kill(runtime, Signal::STOP);
    kill(keeper, Signal::KILL);
    kill(runtime, Signal::KILL);
    case.service.log.wait(mark, ADOPTED, SOON);
    assert!(case.service.log.count(mark, "was taken out of process") > 0);
    assert_eq!(case.service.master(), master);
    // The sockets that were recovered serve the next generation.
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("2", NoneLost);
}

#[test]
fn runtime_killed_again_and_again() {
    let case = Case::start("runtime_killed_again_and_again", Server::Sync, Socket::Tcp, "");
    let master = case.service.master();
    for _ in 0..5 {
        let mark = case.service.log.mark();
        kill(case.service.runtime(), Signal::KILL);
        case.service.log.wait(mark, ADOPTED, SOON);
    }
    assert_eq!(case.service.master(), master);
    case.ends("1", NoneLost);
}

#[test]
fn runtime_killed_before_readiness() {
    let (case, _) = before_readiness("runtime_killed_before_readiness", Some(Whom::Runtime));
    case.service.log.wait(0, ADOPTED, SOON);
    case.service.go();
    case.service.log.wait(0, &["done: generation 3"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn runtime_killed_twice() {
    let (case, _) = before_readiness("runtime_killed_twice", Some(Whom::Runtime));
    case.service.log.wait(0, ADOPTED, SOON);
    case.service.go();
    case.service.log.wait(0, &["done: generation 3"], HANDOVER);
    case.settles();
    let master = case.service.master();
    case.service.release(3, Release::Good);
    case.service.switch(3);
    let mark = case.service.log.mark();
    kill(case.service.runtime(), Signal::KILL);
    case.service.log.wait(mark, ADOPTED, SOON);
    case.settles();
    assert_eq!(case.service.master(), master);
    assert_eq!(case.service.log.count(mark, "hand-over:"), 0, "{}", case.service.log.text(mark));
    case.ends("2", NoneLost);
}

#[test]
fn runtime_killed_in_a_hand_over_by_usr2() {
    for server in [Server::Gthread, Server::Unicorn] {
        let name = "runtime_killed_in_a_hand_over_by_usr2";
        let case = Case::start(name, server, Socket::Tcp, "handoff: {strategy: usr2, boot_timeout: 40}\n");
        let service = &case.service;
        // A number that no process has any more is the last one.
        let end = service.deploy(2, Release::Broken);
        assert!(end.text.contains("FAILED"), "{}", service.log.text(0));
        let master = service.master();
        let before = workers(master);
        let successor = || workers(master).into_iter().find(|pid| !before.contains(pid));
        let mark = service.begin_deploy(3, Release::Good);
        service.log.wait(mark, &["hand-over:"], SOON);
        for is_asked in [false, true, true] {
            // It takes its time until it reports.
            case.until("a successor", |service| {
                !is_asked || successor().is_some() || service.version() == "3"
            });
            let now = successor();
            let mark = service.log.mark();
            kill(service.runtime(), Signal::KILL);
            service.log.wait(mark, ADOPTED, SOON);
            // It becomes the candidate, or it goes.
            case.until("no other one is left", |service| {
                now.is_none_or(|one| !lives(one)) || service.version() == "3"
            });
        }
        case.until("the new release serves", |service| service.version() == "3");
        case.settles();
        service.release(4, Release::Good);
        service.switch(4);
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
        case.ends("4", NoneLost);
    }
}

#[test]
fn master_killed_before_readiness() {
    let (case, _) = before_readiness("master_killed_before_readiness", Some(Whom::OldMaster));
    case.service.log.wait(0, &["nobody asked for that"], SOON);
    case.service.go();
    case.service.log.wait(0, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn candidate_killed_before_readiness() {
    let (case, old) = before_readiness("candidate_killed_before_readiness", Some(Whom::NewMaster));
    let end = case.service.log.wait(0, FAILED, SOON);
    assert!(end.text.contains("signal 9"), "{}", end.text);
    assert_eq!(case.service.master(), old);
    // `current` leads to release 2; the master that goes on serves what it has loaded.
    case.ends("1", NoneLost);
}

#[test]
fn runsv_killed_before_readiness() {
    let (case, _) = before_readiness("runsv_killed_before_readiness", None);
    case.service.log.wait(0, ADOPTED, SOON);
    case.service.go();
    case.service.log.wait(0, &["done: generation 3"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn keeper_killed_before_readiness() {
    let (case, _) = before_readiness("keeper_killed_before_readiness", Some(Whom::Keeper));
    case.service.log.wait(0, &["the keeper is gone"], SOON);
    case.service.go();
    case.service.log.wait(0, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

/// A release whose `/health` answers what the file `health` says: a status, or `hang`.
fn checked_release(service: &Service, number: u32) {
    service.release(number, Release::Good);
    let file = service.root.join(format!("releases/{number}/wsgi.py"));
    let wsgi = fs::read_to_string(&file).expect("wsgi.py");
    let health = service.root.join("health");
    let wsgi = wsgi.replace(
        "    time.sleep(3 if",
        &format!(
            "    if environ['PATH_INFO'] == '/health':\n        said = open({health:?}).read()\n\
             \x20       if said == 'hang': time.sleep(8)\n        start_response('200 OK' if said == 'hang' else said, [('Content-Length', '0')])\n        return []\n\
             \x20   time.sleep(3 if"
        ),
    );
    fs::write(file, wsgi).expect("wsgi.py");
}

/// The same as release 2, with a file of its own that says something else at first: the generation that serves is asked, too, and
/// three failures in a row replace it.
fn second_checked_release(service: &Service, said: &str) {
    checked_release(service, 2);
    let file = service.root.join("releases/2/wsgi.py");
    let wsgi = fs::read_to_string(&file).expect("wsgi.py");
    fs::write(&file, wsgi.replace("root/health", "root/health2")).expect("wsgi.py");
    write_health(service, "health2", said);
}

fn write_health(service: &Service, name: &str, said: &str) {
    let file = service.root.join(name);
    fs::write(file.with_extension("new"), said).expect("health");
    fs::rename(file.with_extension("new"), file).expect("health");
}

/// What every release says from now on.
fn say_health(service: &Service, said: &str) {
    for name in ["health", "health2"] {
        write_health(service, name, said);
    }
}

/// A service with a health check that answers 200.
fn checked(name: &'static str) -> Case {
    let service = Service::native(Server::Gthread, Socket::Tcp, CHECKED);
    checked_release(&service, 1);
    say_health(&service, "200 OK");
    Case::of(name, service.started())
}

/// Release 2 is loaded, and its health is not proven.
fn before_retiring(name: &'static str, whom: Whom) -> (Case, u32) {
    let case = checked(name);
    let old = case.service.master();
    second_checked_release(&case.service, "503 Wait");
    case.service.switch(2);
    let mark = case.service.log.mark();
    case.service.sv("2");
    case.service.log.wait(mark, &["its health is asked"], HANDOVER);
    kill_at(&case.service, whom, old);
    (case, old)
}

#[test]
fn runtime_killed_before_retiring() {
    let (case, _) = before_retiring("runtime_killed_before_retiring", Whom::Runtime);
    case.service.log.wait(0, ADOPTED, SOON);
    say_health(&case.service, "200 OK");
    case.service.log.wait(0, &["done: generation 3"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn master_killed_before_retiring() {
    let (case, _) = before_retiring("master_killed_before_retiring", Whom::OldMaster);
    case.service.log.wait(0, &["nobody asked for that"], SOON);
    say_health(&case.service, "200 OK");
    case.service.log.wait(0, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn candidate_killed_before_retiring() {
    let (case, old) = before_retiring("candidate_killed_before_retiring", Whom::NewMaster);
    case.service.log.wait(0, FAILED, HANDOVER);
    say_health(&case.service, "200 OK");
    assert_eq!(case.service.master(), old);
    case.ends("1", LostWithTheKilled(3));
}

/// A worker that takes its time before it installs its signal handlers, as on a busy machine.
#[test]
fn worker_killed_before_retiring() {
    const WORKER: &str = "import os, sys, time\nfrom gunicorn.workers.sync import SyncWorker\n\
                          class Worker(SyncWorker):\n    def init_process(self):\n        if os.path.exists(SLOW):\n            \
                          print('a slow worker begins', file=sys.stderr, flush=True)\n            time.sleep(5)\n        \
                          super().init_process()\n";
    let mut service = Service::native(Server::Sync, Socket::Tcp, "handoff: {drain_timeout: 45}\n");
    let (slow, python) = (service.root.join("slow"), service.root.join("python"));
    service.rewrite(|pillar| {
        let pillar =
            pillar.replace("worker_class: sync", "worker_class: slow_worker.Worker, graceful_timeout: 300");
        format!("{pillar}environment: {{PYTHONPATH: {python:?}}}\n")
    });
    fs::create_dir_all(&python).expect("a directory");
    fs::write(python.join("slow_worker.py"), WORKER.replace("SLOW", &format!("{slow:?}"))).expect("a module");
    let case = Case::of("worker_killed_before_retiring", service.started());
    let old = case.service.master();
    let mark = case.service.log.mark();
    fs::write(&slow, "").expect("a file");
    kill(workers(old)[0], Signal::KILL);
    case.service.log.wait(mark, &["a slow worker begins"], SOON);
    fs::remove_file(&slow).expect("a file");
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    assert_eq!(case.service.log.count(mark, "is killed"), 0, "{}", case.service.log.text(0));
    case.ends("2", LostWithTheKilled(3));
}

/// Release 2 serves, and a request of three seconds keeps release 1.
fn while_draining(name: &'static str, whom: Option<Whom>) -> Case {
    let mut case = Case::start(name, Server::Sync, Socket::Unix, "restart: {min_uptime: 0}");
    let old = case.service.master();
    case.load.held(&case.service);
    let mark = case.service.begin_deploy(2, Release::Good);
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], HANDOVER);
    match whom {
        Some(whom) => kill_at(&case.service, whom, old),
        None => {
            case.service.kill_runsv();
            case.service.supervise();
        }
    }
    case.service.let_go();
    case
}

#[test]
fn runtime_killed_while_draining() {
    let case = while_draining("runtime_killed_while_draining", Some(Whom::Runtime));
    case.service.log.wait(0, ADOPTED, SOON);
    case.ends("2", NoneLost);
}

/// The runtime learns of both at the same moment: the new release is ready, and the old master is dead. Its workers have no parent
/// by which they are known, and one of them has a request.
#[test]
fn old_master_killed_unseen() {
    let mut case =
        Case::start("old_master_killed_unseen", Server::Sync, Socket::Unix, "handoff: {boot_timeout: 40}");
    let old = case.service.master();
    case.load.held(&case.service);
    let mark = case.service.begin_deploy(2, Release::Waiting);
    case.service.log.wait(mark, &["generation 2 is master"], SOON);
    case.until("the new master runs", |service| service.user.masters().len() == 2);
    let new = new_master(&case.service, old);
    case.service.sv("pause");
    case.until("the runtime is stopped", |service| {
        Process::read(service.runtime()).is_some_and(|runtime| runtime.state == 'T')
    });
    case.service.go();
    // A worker that reads its socket has reported before.
    case.until("release 2 answers", |service| service.version() == "2");
    assert!(!workers(new).is_empty());
    kill(old, Signal::KILL);
    case.service.sv("cont");
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], HANDOVER);
    case.service.let_go();
    case.service.log.wait(mark, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn old_master_killed_while_draining() {
    let case = while_draining("old_master_killed_while_draining", Some(Whom::OldMaster));
    case.service.log.wait(0, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn new_master_killed_while_draining() {
    let case = while_draining("new_master_killed_while_draining", Some(Whom::NewMaster));
    case.service.log.wait(0, &["ready: generation 3"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn runsv_killed_while_draining() {
    let case = while_draining("runsv_killed_while_draining", None);
    case.service.log.wait(0, ADOPTED, SOON);
    case.ends("2", NoneLost);
}

#[test]
fn master_stopped_with_health_check() {
    let service = Service::native(
        Server::Gthread,
        Socket::Tcp,
        "handoff: {drain_timeout: 4, health_check: {path: /health, timeout: 5, interval: 0.2}}\n",
    );
    checked_release(&service, 1);
    say_health(&service, "200 OK");
    let case = Case::of("master_stopped_with_health_check", service.started());
    kill(case.service.master(), Signal::STOP);
    case.service.log.wait(0, &["does not answer health checks any more"], SOON);
    case.service.log.wait(0, &["runsmith: ready: generation 2"], HANDOVER);
    case.ends("1", NoneLost);
}

#[test]
fn master_stopped_and_upgraded() {
    let case = Case::start("master_stopped_and_upgraded", Server::Sync, Socket::Tcp, "");
    kill(case.service.master(), Signal::STOP);
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("2", NoneLost);
}

#[test]
fn worker_stopped_and_upgraded() {
    let case =
        Case::start("worker_stopped_and_upgraded", Server::Sync, Socket::Unix, "handoff: {drain_timeout: 3}");
    kill(workers(case.service.master())[0], Signal::STOP);
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("2", LostWithTheKilled(3));
}

#[test]
fn runtime_stopped_and_continued() {
    let case = Case::start("runtime_stopped_and_continued", Server::Gthread, Socket::Unix, "");
    case.service.sv("pause");
    case.until("it stands still", |service| {
        Process::read(service.runtime()).is_some_and(|runtime| runtime.state == 'T')
    });
    let mark = case.service.begin_deploy(2, Release::Good);
    assert_eq!(case.service.version(), "1");
    case.service.sv("cont");
    case.service.log.wait(mark, DONE, HANDOVER);
    case.ends("2", NoneLost);
}

/// A program that is told to end, or ends by itself: its exit code, and all it printed.
fn waits_for(child: std::process::Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("its end");
    (output.status.code(), said(&output))
}

#[test]
fn runtime_stopped_for_longer_than_anybody_waits() {
    let name = "runtime_stopped_for_longer_than_anybody_waits";
    let case = Case::start(name, Server::Gthread, Socket::Unix, "");
    let service = &case.service;
    let runtime = service.runtime();
    service.release(2, Release::Good);
    service.switch(2);
    let mark = service.log.mark();
    let begun = std::time::Instant::now();
    kill(runtime, Signal::STOP);
    let (code, text) = waits_for(service.begin_upgrade());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("`kill -CONT {runtime}`")) && text.contains("is withdrawn"), "{text}");
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
    kill(runtime, Signal::CONT);
    // Who asks later is answered later.
    assert_eq!(state(service)["state"], "serving");
    assert_eq!((service.log.count(mark, "hand-over:"), service.version().as_str()), (0, "1"));

    kill(runtime, Signal::STOP);
    let upgrade = service.begin_upgrade();
    case.until("it is connected", |_| {
        let links = fs::read_dir(format!("/proc/{}/fd", upgrade.id())).into_iter().flatten().flatten();
        let links = links.filter_map(|one| fs::read_link(one.path()).ok());
        // Two of them are its own, by which it hears of signals.
        links.filter(|one| one.to_string_lossy().starts_with("socket:")).count() == 3
    });
    kill(runtime, Signal::CONT);
    let (code, text) = waits_for(upgrade);
    assert_eq!(code, Some(0), "{text}\n{}", service.log.text(mark));
    case.ends("2", NoneLost);
}

#[test]
fn upgrade_interrupted() {
    let case = Case::start("upgrade_interrupted", Server::Gthread, Socket::Unix, "");
    let service = &case.service;
    service.release(2, Release::Waiting);
    service.switch(2);
    let mark = service.log.mark();
    let first = service.begin_upgrade();
    service.log.wait(mark, &["hand-over:"], SOON);
    let second = service.begin_upgrade();
    service.log.wait(mark, &["follows"], SOON);
    for (upgrade, signal, expected) in [(first, Signal::INT, 130), (second, Signal::TERM, 143)] {
        kill(upgrade.id(), signal);
        let (code, text) = waits_for(upgrade);
        assert_eq!(code, Some(expected), "{text}");
        let advice = format!("`runsmith upgrade --abort {}` takes it back", service.directory.display());
        assert!(text.contains("the hand-over goes on") && text.contains(&advice), "{text}");
    }
    service.go();
    service.log.wait(mark, &["done: generation 3"], HANDOVER);
    case.ends("2", NoneLost);
}

/// A bad release is backed out, the requester gets the reason, and a good one can follow.
fn backed_out(
    name: &'static str,
    server: Server,
    more: &str,
    spoil: impl Fn(&Service, u32),
    reason: &str,
    said: &str,
) {
    let case = Case::start(name, server, Socket::Unix, more);
    let old = case.service.master();
    spoil(&case.service, 2);
    case.service.switch(2);
    let output = case.service.runsmith(&["upgrade"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(reason) && text.contains(said), "{text}");
    assert_eq!(case.service.master(), old);
    assert_eq!(state(&case.service)["last"]["done"], false);
    let end = case.service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("3", NoneLost);
}

#[test]
fn release_that_cannot_be_imported() {
    let spoil = |service: &Service, number| service.release(number, Release::Broken);
    let said = "there_is_no_such_module";
    backed_out("release_that_cannot_be_imported", Server::Sync, "", spoil, "exit code", said);
}

#[test]
fn release_that_cannot_be_loaded_by_unicorn() {
    let spoil = |service: &Service, number| service.release(number, Release::Broken);
    let said = "there_is_no_such_library";
    backed_out("release_that_cannot_be_loaded_by_unicorn", Server::Unicorn, "", spoil, "exit code", said);
}

#[test]
fn release_that_hangs() {
    let spoil = |service: &Service, number| service.release(number, Release::Hanging);
    let (more, reason) = (format!("handoff: {{boot_timeout: {BOOT}}}"), format!("not ready within {BOOT} s"));
    backed_out("release_that_hangs", Server::Gthread, &more, spoil, &reason, "");
}

#[test]
fn release_whose_workers_fail() {
    let case = Case::start("release_whose_workers_fail", Server::Gthread, Socket::Tcp, "");
    let old = case.service.master();
    let config = case.service.root.join("shared/runsmith/gunicorn.py");
    let text = fs::read_to_string(&config).expect("gunicorn.py");
    fs::write(&config, text.replace("preload_app = True", "preload_app = False")).expect("gunicorn.py");
    let end = case.service.deploy(2, Release::Broken);
    assert!(end.text.contains("FAILED"), "{}", case.service.log.text(0));
    assert_eq!(case.service.master(), old);
    case.ends("1", NoneLost);
}

/// A release that does something once it is loaded.
fn odd_release(service: &Service, number: u32, python: &str) {
    service.release(number, Release::Good);
    let file = service.root.join(format!("releases/{number}/wsgi.py"));
    let wsgi = fs::read_to_string(&file).expect("wsgi.py");
    fs::write(file, format!("{python}\n{wsgi}")).expect("wsgi.py");
}

#[test]
fn release_that_dies_when_ready() {
    let case = Case::start(
        "release_that_dies_when_ready",
        Server::Sync,
        Socket::Unix,
        "restart: {backoff_initial: 0.5}",
    );
    // It is told to, because how long it takes to get ready is the machine's affair.
    let go = format!("{:?}", case.service.scratch().join("go"));
    let master = "import os, signal, threading, time\n\
                  def end(pid=os.getpid()):\n    while not os.path.exists(GO): time.sleep(0.02)\n    os.kill(pid, signal.SIGKILL)\n\
                  threading.Thread(target=end, daemon=True).start()";
    odd_release(&case.service, 2, &master.replace("GO", &go));
    case.service.switch(2);
    let mark = case.service.log.mark();
    case.service.sv("2");
    case.service.log.wait(mark, &["runsmith: ready: generation 2"], HANDOVER);
    case.service.go();
    case.service.log.wait(mark, &["nobody asked for that"], HANDOVER);
    let end = case.service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("3", LostWithTheKilled(20));
}

#[test]
fn release_whose_workers_die() {
    let case = Case::start("release_whose_workers_die", Server::Sync, Socket::Tcp, "");
    // They are told to begin with it, because how long they take to get ready is the machine's affair.
    let go = format!("{:?}", case.service.scratch().join("go"));
    let worker = "import os, signal, threading, time\n\
                  def end():\n    while not os.path.exists(GO): time.sleep(0.02)\n    time.sleep(1.5)\n    os.kill(os.getpid(), signal.SIGKILL)\n\
                  os.register_at_fork(after_in_child=lambda: threading.Thread(target=end, daemon=True).start())";
    odd_release(&case.service, 2, &worker.replace("GO", &go));
    case.service.switch(2);
    let mark = case.service.log.mark();
    case.service.sv("2");
    case.service.log.wait(mark, &["ready: generation 2"], HANDOVER);
    case.service.go();
    case.service.log.wait(mark, &["was sent SIGKILL"], SOON);
    let end = case.service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("3", LostWithTheKilled(20));
}

#[test]
fn release_that_keeps_dying() {
    let more = "restart: {min_uptime: 30, backoff_initial: 0.2, backoff_max: 1}";
    let case = Case::start("release_that_keeps_dying", Server::Sync, Socket::Unix, more);
    // Nothing served before it, so it is itself what is started again.
    case.service.release(1, Release::Broken);
    kill(case.service.master(), Signal::KILL);
    case.service.log.wait(0, &["3 failures in a row"], SOON);
    let status = state(&case.service);
    assert!(status["failures"].as_u64().is_some_and(|failures| failures >= 3), "{status}");
    assert!(["resting", "booting"].contains(&status["state"].as_str().unwrap_or_default()), "{status}");
    case.service.release(3, Release::Good);
    case.service.switch(3);
    let output = case.service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    case.ends("3", NoneLost);
}

fn sick(name: &'static str, said: &str, reason: &str) {
    let case = checked(name);
    let old = case.service.master();
    second_checked_release(&case.service, said);
    case.service.switch(2);
    let output = case.service.runsmith(&["upgrade"]);
    let text = unfolded(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains(reason), "{text}");
    assert_eq!(case.service.master(), old);
    case.ends("1", NoneLost);
}

#[test]
fn health_check_that_fails() {
    sick("health_check_that_fails", "500 Broken", "500 Broken");
}

#[test]
fn health_check_that_hangs() {
    sick("health_check_that_hangs", "hang", "no answer within 5 s");
}

#[test]
fn health_check_that_recovers() {
    let case = checked("health_check_that_recovers");
    second_checked_release(&case.service, "500 Warming");
    case.service.switch(2);
    let mark = case.service.log.mark();
    case.service.sv("2");
    case.service.log.wait(mark, &["its health is asked"], HANDOVER);
    assert_eq!(state(&case.service)["state"], "handing-over");
    say_health(&case.service, "200 OK");
    case.service.log.wait(mark, DONE, HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn old_release_deleted() {
    let case = Case::start("old_release_deleted", Server::Unicorn, Socket::Tcp, "");
    case.service.release(2, Release::Good);
    case.service.switch(2);
    fs::remove_dir_all(case.service.root.join("releases/1")).expect("rm");
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("2", NoneLost);
}

#[test]
fn current_leads_nowhere() {
    let case = Case::start("current_leads_nowhere", Server::Sync, Socket::Tcp, "");
    let old = case.service.master();
    case.service.switch(9);
    let output = case.service.runsmith(&["upgrade"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains("cannot enter"), "{text}");
    assert_eq!(case.service.master(), old);
    case.ends("1", NoneLost);
}

#[test]
fn interpreter_gone() {
    let service = Service::native(Server::Gthread, Socket::Unix, "");
    // A virtualenv of its own, whose interpreter can go.
    let real = support::host::virtualenv("gunicorn");
    let own = service.root.join("venv");
    fs::create_dir_all(own.join("bin")).expect("a virtualenv");
    for name in ["lib", "pyvenv.cfg"] {
        std::os::unix::fs::symlink(real.join(name), own.join(name)).expect("a link");
    }
    let python = own.join("bin/python3");
    std::os::unix::fs::symlink("/usr/bin/python3", &python).expect("a link");
    let gunicorn = format!(
        "#!{}\nimport sys\nfrom gunicorn.app.wsgiapp import run\nsys.exit(run())\n",
        python.display()
    );
    fs::write(own.join("bin/gunicorn"), gunicorn).expect("gunicorn");
    support::host::run("chmod", &["+x", own.join("bin/gunicorn").to_str().expect("UTF-8")]);
    let run = service.directory.join("run");
    let text = fs::read_to_string(&run)
        .expect("run")
        .replace(&format!("virtualenv: {}", real.display()), &format!("virtualenv: {}", own.display()));
    fs::write(&run, text).expect("run");
    let case = Case::of("interpreter_gone", service.started());
    let old = case.service.master();
    fs::remove_file(&python).expect("rm");
    let end = case.service.deploy(2, Release::Good);
    assert!(end.text.contains("cannot be run"), "{}", case.service.log.text(0));
    assert_eq!(case.service.master(), old);
    std::os::unix::fs::symlink("/usr/bin/python3", &python).expect("a link");
    let end = case.service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", case.service.log.text(0));
    case.ends("3", NoneLost);
}

#[test]
fn two_upgrades_at_once() {
    let case = Case::start("two_upgrades_at_once", Server::Gthread, Socket::Tcp, "");
    case.service.release(2, Release::Good);
    case.service.switch(2);
    let upgrade = || {
        Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(["upgrade", "--format", "json"])
            .arg(&case.service.directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runsmith")
    };
    let both = [upgrade(), upgrade()];
    let mut generations = vec![];
    for one in both {
        let output = one.wait_with_output().expect("runsmith");
        assert!(output.status.success());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        generations.push(json["result"]["generation"].as_u64());
    }
    generations.sort_unstable();
    assert_eq!(generations, [Some(2), Some(3)]);
    case.ends("2", NoneLost);
}

#[test]
fn upgrade_while_draining() {
    let mut case = Case::start("upgrade_while_draining", Server::Sync, Socket::Tcp, "");
    case.load.held(&case.service);
    let mark = case.service.begin_deploy(2, Release::Good);
    case.service.log.wait(mark, &["ready: generation 2"], HANDOVER);
    let mark = case.service.begin_deploy(3, Release::Good);
    case.service.log.wait(mark, &["another hand-over follows"], SOON);
    case.service.let_go();
    case.service.log.wait(mark, &["done: generation 3"], HANDOVER);
    case.ends("3", NoneLost);
}

#[test]
fn upgrade_given_up() {
    let case = Case::start("upgrade_given_up", Server::Gthread, Socket::Unix, "");
    let old = case.service.master();
    case.service.release(2, Release::Waiting);
    case.service.switch(2);
    let upgrade = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .arg("upgrade")
        .arg(&case.service.directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runsmith");
    case.service.log.wait(0, &["generation 2 is master"], SOON);
    let output = case.service.runsmith(&["upgrade", "--abort"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = upgrade.wait_with_output().expect("runsmith");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains("given up"), "{text}");
    assert_eq!(case.service.master(), old);
    case.ends("1", NoneLost);
}

#[test]
fn upgrade_command_killed() {
    let case = Case::start("upgrade_command_killed", Server::Sync, Socket::Unix, "");
    case.service.release(2, Release::Waiting);
    case.service.switch(2);
    let mut upgrade = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .arg("upgrade")
        .arg(&case.service.directory)
        .stderr(Stdio::null())
        .spawn()
        .expect("runsmith");
    case.service.log.wait(0, &["generation 2 is master"], SOON);
    upgrade.kill().expect("kill");
    upgrade.wait().expect("wait");
    case.service.go();
    case.service.log.wait(0, &["done: generation 2"], HANDOVER);
    case.ends("2", NoneLost);
}

#[test]
fn request_longer_than_drain_timeout() {
    // So long that a short request in flight is answered on any machine.
    let more = "handoff: {drain_timeout: 5}";
    let mut case = Case::start("request_longer_than_drain_timeout", Server::Sync, Socket::Tcp, more);
    case.load.held(&case.service);
    let mark = case.service.begin_deploy(2, Release::Good);
    case.service.log.wait(mark, &["did not finish in time and is killed"], HANDOVER);
    case.service.log.wait(mark, DONE, HANDOVER);
    let seen = case.ends("2", LostWithTheKilled(1));
    assert!(seen.failures.iter().all(|one| one.starts_with("slow:")), "{:?}", seen.failures);
}

/// Told to stop at a step: whatever was going on, nothing is left.
fn stopped(service: &Service) {
    if runsv::record(&service.directory).is_some_and(|record| record.wanted != b'd') {
        service.down();
    }
    service.assert_nothing_left();
    assert!(service.keeper().is_none_or(|pid| !lives(pid)));
}

#[test]
fn stop_while_booting() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    service.release(1, Release::Waiting);
    service.supervise();
    service.log.wait(0, &["generation 1 is master"], SOON);
    stopped(&service);
}

#[test]
fn stop_while_handing_over() {
    let service = Service::start_native(Server::Gthread, Socket::Tcp, "");
    service.release(2, Release::Waiting);
    service.switch(2);
    let mark = service.log.mark();
    service.sv("2");
    service.log.wait(mark, &["generation 2 is master"], SOON);
    stopped(&service);
}

#[test]
fn stop_while_draining() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "");
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.begin_deploy(2, Release::Good);
    service.log.wait(mark, &["ready: generation 2"], HANDOVER);
    let mark = service.log.mark();
    service.begin_down();
    service.log.wait(mark, &["runsmith: stopping"], SOON);
    service.let_go();
    service.log.wait(mark, &["nothing is left"], STOP);
    stopped(&service);
    let seen = load.finish();
    assert!(seen.failures.is_empty() && seen.answers.len() == 1, "{:?}", seen.failures);
}

#[test]
fn runtime_killed_and_down() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.log.mark();
    let runtime = service.runtime();
    service.begin_down();
    service.log.wait(mark, &["runsmith: stopping"], SOON);
    kill(runtime, Signal::KILL);
    service.let_go();
    service.log.wait(mark, &["nothing is left"], STOP);
    service.assert_nothing_left();
    assert!(!serves(&service));
    let seen = load.finish();
    assert!(seen.failures.is_empty() && seen.answers.len() == 1, "{:?}", seen.failures);
}
