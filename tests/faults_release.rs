//! Releases and values that fail, crashes and reboots: what serves is what was proven, and a generation stays in its release.
//! `make faults` writes what was measured into docs/faults.md.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::faults::{Case, Disk, Requests, page, rows_are_tests, serves, state};
use support::host::{kill, lives, require, run, virtualenv};
use support::load::{Address, Load};
use support::row::said;
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON, START};

use Requests::{ClosedUnread, LostWithTheKilled, NoneLost};

const PROVEN: &[&str] = &["runsmith: proven:"];

/// Proven soon, so that tests need not wait for it long; and long enough to fail before that.
const SOON_PROVEN: &str = "restart: {min_uptime: 1}\n";
const LATE_PROVEN: &str = "restart: {min_uptime: 20}\n";

/// A helper that the release imports at the first request for /late.
const LATE_IMPORT: &str = "
import builtins
def late():
    import helper
    return helper.NAME
builtins.late = late
";

/// Name of the test, what is done, what is promised.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "late_import_after_a_back_out",
        "a broken release is switched to and backed out, then a module is imported for the first time",
        "it comes from the release that serves; none lost",
    ),
    (
        "late_import_after_a_back_out_by_the_shell_script",
        "the same with the shell script",
        "it comes from the release that serves; none lost",
    ),
    (
        "workers_recycled_after_a_back_out",
        "gunicorn without preload, max_requests; a broken release is backed out, then every worker is recycled",
        "the new workers load the release that serves; none lost",
    ),
    (
        "virtualenv_in_the_release",
        "the virtualenv lies in the release, made at `current`; another release is switched to, then a package is imported",
        "it comes from the release that serves; none lost",
    ),
    (
        "master_killed_after_a_back_out",
        "a broken release is backed out, then kill -9 of the master",
        "the proven release is started, its workers serve until then; none lost",
    ),
    (
        "master_of_unicorn_killed_after_a_back_out",
        "the same with unicorn",
        "the proven release is started; none lost",
    ),
    (
        "master_killed_after_a_back_out_by_usr2",
        "the same with gunicorn, unicorn and `strategy: usr2`",
        "the proven release is started; the address refuses while no master lives",
    ),
    (
        "reboot_after_a_back_out",
        "a broken release is backed out, then a reboot",
        "the proven release is started at once, and `status` says why",
    ),
    ("reboot_of_unicorn_after_a_back_out", "the same with unicorn", "the proven release is started at once"),
    (
        "reboot_after_a_switch_that_was_not_deployed",
        "a broken release is switched to and never deployed, then a reboot",
        "it fails, and the proven release is started at once",
    ),
    (
        "master_killed_with_nothing_changed",
        "kill -9 of the master of a proven generation, nothing changed on disk",
        "the same is started, and `status` calls it no fallback; none lost",
    ),
    (
        "proven_that_cannot_be_written_down",
        "nothing can be written to `state`, a second release is proven, a broken one is switched to; then kill -9 of the master",
        "the second release is started, and `status` says what is missing; none lost",
    ),
    (
        "snapshot_deleted_and_runtime_killed_on_probation",
        "what a generation on probation is made of is deleted from the run directory and the runtime killed; it is proven under the next one, a broken release is switched to and never deployed; then kill -9 of the master",
        "it is known to the keeper and written again; the release that served is started; none lost",
    ),
    (
        "snapshot_lost_for_good",
        "a second release is on probation; what it is made of is deleted, the keeper and the runtime killed, a broken release switched to and never deployed; then kill -9 of the master",
        "reported in log and status; the release that was proven before is started; none lost",
    ),
    (
        "run_directory_full_on_probation",
        "the disk of the run directory is full, a second release is deployed and the runtime killed; a broken one is switched to and never deployed; then kill -9 of the master",
        "`status` shows what cannot be written until it can; the second release is started; none lost",
    ),
    (
        "state_directory_full",
        "the disk of `state` is full, a second release is deployed and proven, then kill -9 of the runtime; later there is room, and a reboot",
        "`upgrade --proven` says so and exits 1, `status` shows it under both runs, and it is written by itself once there is room",
    ),
    (
        "master_killed_after_a_switch_that_was_not_deployed",
        "a good release is switched to and never deployed, then kill -9 of the master",
        "the release that served is started: nobody asked for the other one; none lost",
    ),
    (
        "reboot_after_a_value_was_backed_out",
        "a value that the release does not start with is rendered and backed out, then kill -9 of the master and a reboot",
        "the proven values are used both times",
    ),
    (
        "reboot_with_a_user_that_does_not_exist",
        "a user that does not exist is rendered and refused, then a reboot",
        "the proven values are used",
    ),
    (
        "failure_on_probation",
        "a release whose master exits soon after it took over",
        "the release that served before is started at once; `upgrade --proven` exits 1",
    ),
    (
        "failure_on_probation_before_anything_was_proven",
        "the same, before the release that served before was proven",
        "the release that served before is started at once",
    ),
    (
        "failure_on_probation_after_a_release_that_was_not_proven",
        "a release is proven, a second one is deployed and not proven yet, and a third one fails late",
        "the second one is started, and after a kill -9 of its master the first",
    ),
    (
        "state_deleted_while_it_serves",
        "`state` in the service directory is deleted, a broken release is switched to and never deployed; then kill -9 of the master",
        "the release that served is started, also under a new run of the runtime; none lost",
    ),
    (
        "sick_while_the_runtime_is_stopped",
        "a release fails its health check soon after it took over, while the runtime is stopped or killed until its probation is over",
        "it is not proven: the release that served before is started; none lost",
    ),
    (
        "processes_that_leave_the_session",
        "a release starts a process in a session of its own that ignores TERM and accepts on the listening socket; another one is deployed",
        "the process ends with its generation; lost is at most what it had in hand",
    ),
    (
        "failure_on_probation_of_what_was_deployed_twice",
        "before anything was proven, a release that fails late is deployed twice in a row",
        "the release that served before both is started",
    ),
    (
        "failure_of_uvicorn_on_probation",
        "uvicorn, which is ready once it has lived for a while, with a release that fails on import after that",
        "the release that served before is started at once; `upgrade --proven` exits 1; lost is only what uvicorn closes unread when it ends",
    ),
    (
        "workers_of_puma_that_cannot_load",
        "puma in cluster mode, with a release that no worker can load",
        "the release that served before is started after a few workers; `upgrade --proven` exits 1; lost is only what puma closes unread when it ends",
    ),
    (
        "failure_on_probation_by_usr2",
        "gunicorn and unicorn with `strategy: usr2`, and a release whose master exits soon after it took over",
        "the release that served before is started; the address refuses while no master lives",
    ),
    (
        "failure_of_a_successor_by_usr2",
        "gunicorn and unicorn with `strategy: usr2`, which log each request, and a release that fails on import: after a hand-over, and after a kill -9 of the keeper",
        "the reason and the last output are those of the release that failed; none lost",
    ),
    (
        "master_killed_on_the_first_probation",
        "nothing was ever proven; another release is switched to and never deployed, then kill -9 of the master",
        "the release that served is started again",
    ),
    (
        "first_start_overtaken_by_a_broken_release",
        "while the first release boots a broken one is switched to and deployed",
        "the deploy is refused, the first release serves",
    ),
    (
        "first_start_overtaken_by_a_good_release",
        "while the first release boots for ever another one is switched to and deployed",
        "the second one serves, without waiting for the first",
    ),
    (
        "damaged_records_and_a_reboot",
        "what is kept is garbage, another service's, or a directory; then a reboot",
        "what is on disk is started",
    ),
    (
        "fallback_turned_off",
        "`restart.fallback: none`; a broken release is backed out, then a reboot",
        "what is on disk is started, and fails",
    ),
    (
        "workers_that_cannot_load",
        "a release that no worker can load, without preload: unicorn starts workers again and again, gunicorn those that a signal ended",
        "backed out after a few workers; none lost",
    ),
    (
        "master_killed_and_a_slow_start",
        "kill -9 of the master of an application that boots for long (gunicorn sync, gthread, gevent)",
        "its workers serve until the successor does; none lost",
    ),
    (
        "aborts_with_requests_in_flight",
        "upgrades that are aborted while the new generation begins, again and again (gunicorn gthread, gevent)",
        "the old generation goes on; none lost",
    ),
    (
        "proven_release_removed",
        "the proven release is removed, a broken one is on disk, then a reboot and a repaired release",
        "what is on disk is started, again and again, until it serves",
    ),
    (
        "children_of_a_failed_candidate",
        "a release starts a process in a session of its own and then fails; what serves has such a process, too (gunicorn, unicorn)",
        "the process ends with the candidate, the other one lives on until `sv down`; none lost",
    ),
];

#[test]
fn the_rows_are_tests() {
    rows_are_tests(ROWS, include_str!("faults_release.rs"));
}

#[test]
fn the_page_has_the_rows() {
    page(ROWS, "releases, values, crashes and reboots");
}

/// A service whose first release is proven, under load.
fn proven(name: &'static str, server: Server, socket: Socket, more: &str) -> Case {
    let case = Case::start(name, server, socket, &format!("{SOON_PROVEN}{more}"));
    case.service.log.wait(0, PROVEN, SOON);
    case
}

/// Switches to a broken release and has it deployed: it is backed out.
fn back_out(service: &Service, number: u32) -> String {
    service.release(number, Release::Broken);
    service.switch(number);
    is_backed_out(service)
}

fn is_backed_out(service: &Service) -> String {
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), service.log.text(0));
    said(&output)
}

/// Switches back to the release that serves, and deploys the next one: everything goes on as ever.
fn deploys_again(case: Case, number: u32, requests: Requests) {
    case.service.release(number, Release::Good);
    case.service.switch(number);
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), case.service.log.text(0));
    assert!(state(&case.service)["fallback"].is_null());
    case.ends(&number.to_string(), requests);
}

/// Waits until one generation serves alone: the release with this number. `mark`: where in the log it gets ready.
fn serves_again(service: &Service, mark: usize, version: &str) {
    service.log.wait(mark, &["runsmith: ready:"], START);
    service.until_settled();
    assert_eq!(service.version(), version, "{}", service.log.text(0));
    let status = state(service);
    let release = format!("releases/{version}");
    assert!(status["serving"]["release"].as_str().is_some_and(|one| one.ends_with(&release)), "{status}");
}

#[test]
fn late_import_after_a_back_out() {
    let service = imports_late(Service::native(Server::Sync, Socket::Tcp, ""));
    let case = Case::of("late_import_after_a_back_out", service.started());
    switch_to_a_broken_helper(&case.service);
    is_backed_out(&case.service);
    each_worker_imports_from_release_1(&case.service);
    case.ends("1", NoneLost);
}

#[test]
fn late_import_after_a_back_out_by_the_shell_script() {
    let service = imports_late(Service::render(Server::Sync, Socket::Tcp, "")).started();
    switch_to_a_broken_helper(&service);
    let mark = service.log.mark();
    service.sv("2");
    service.log.wait(mark, &["hand-over FAILED"], HANDOVER);
    each_worker_imports_from_release_1(&service);
    service.down();
}

/// Its first release imports a module at the first request for /late.
fn imports_late(service: Service) -> Service {
    service.release_with(1, LATE_IMPORT, "");
    let app = service.root.join("releases/1/wsgi.py");
    let late =
        "body = late() + b' %d' % os.getpid() if environ['PATH_INFO'] == '/late' else b'1 %d' % os.getpid()";
    let text = fs::read_to_string(&app).unwrap().replace("body = b'1 %d' % os.getpid()", late);
    fs::write(&app, text).unwrap();
    fs::write(service.root.join("releases/1/helper.py"), "NAME = b'helper-of-1'").unwrap();
    service
}

/// `current` leads to a release that cannot be loaded and has another module of that name.
fn switch_to_a_broken_helper(service: &Service) {
    service.release(2, Release::Broken);
    fs::write(service.root.join("releases/2/helper.py"), "NAME = b'helper-of-2'").unwrap();
    service.switch(2);
}

/// Asked so often that each worker has imported it by itself.
fn each_worker_imports_from_release_1(service: &Service) {
    for _ in 0..12 {
        let body = service.address.get("/late").unwrap();
        assert!(body.starts_with("helper-of-1 "), "{body}\n{}", service.log.text(0));
    }
}

#[test]
fn workers_recycled_after_a_back_out() {
    let name = "workers_recycled_after_a_back_out";
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    service.rewrite(|pillar| pillar.replace("worker_class: sync", "preload_app: false, max_requests: 30"));
    let case = Case::of(name, service.started());
    let workers = |service: &Service| -> Vec<u32> {
        let master = service.master();
        service.user.processes().iter().filter(|one| one.parent == master).map(|one| one.pid).collect()
    };
    let master = case.service.master();
    back_out(&case.service, 2);
    let before = workers(&case.service);
    case.until("every worker is another one", |service| {
        let now = workers(service);
        now.len() == 3 && now.iter().all(|one| !before.contains(one))
    });
    assert_eq!(case.service.master(), master, "{}", case.service.log.text(0));
    case.ends("1", NoneLost);
}

/// A virtualenv in a release, made at the path by which `current` leads to it, as deploy tools do.
fn virtualenv_in(service: &Service, number: u32) {
    service.switch(number);
    let venv = service.root.join("current/venv");
    let path = venv.display().to_string();
    run("/usr/bin/python3", &["-m", "venv", "--without-pip", &path]);
    let library = fs::read_dir(venv.join("lib")).unwrap().next().unwrap().unwrap().path();
    let shared = fs::read_dir(virtualenv("gunicorn").join("lib")).unwrap().next().unwrap().unwrap().path();
    let shared = shared.join("site-packages").display().to_string();
    fs::write(library.join("site-packages/shared.pth"), shared).unwrap();
    fs::write(library.join("site-packages/late_package.py"), format!("NAME = b'package-of-{number}'"))
        .unwrap();
    let script = format!(
        "#!{path}/bin/python3\nimport sys\nfrom gunicorn.app.wsgiapp import run\nsys.argv[0] = 'gunicorn'\nsys.exit(run())\n"
    );
    let program = venv.join("bin/gunicorn");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn virtualenv_in_the_release() {
    let name = "virtualenv_in_the_release";
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let venv = service.root.join("current/venv").display().to_string();
    let shared = virtualenv("gunicorn").display().to_string();
    service
        .rewrite(|pillar| pillar.replace(&format!("virtualenv: {shared}"), &format!("virtualenv: {venv}")));
    for number in [2, 1] {
        service.release(number, Release::Good);
        let app = service.root.join(format!("releases/{number}/wsgi.py"));
        let late = format!(
            "body = __import__('late_package').NAME + b' {number}' if environ['PATH_INFO'] == '/late' else b'{number} %d'"
        );
        let text = fs::read_to_string(&app).unwrap().replace(&format!("body = b'{number} %d'"), &late);
        fs::write(&app, text).unwrap();
        virtualenv_in(&service, number);
    }
    let case = Case::of(name, service.started());
    case.service.switch(2);
    for _ in 0..12 {
        let body = case.service.address.get("/late").unwrap();
        assert!(body.starts_with("package-of-1 "), "{body}\n{}", case.service.log.text(0));
    }
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let body = case.service.address.get("/late").unwrap();
    assert!(body.starts_with("package-of-2 "), "{body}");
    case.ends("2", NoneLost);
}

fn master_killed(name: &'static str, server: Server, more: &str, requests: Requests) {
    let case = proven(name, server, Socket::Unix, more);
    back_out(&case.service, 2);
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    case.service.log.wait(mark, &["runsmith: ready:"], START);
    case.settles();
    serves_again(&case.service, 0, "1");
    deploys_again(case, 3, requests);
}

#[test]
fn master_killed_after_a_back_out() {
    master_killed("master_killed_after_a_back_out", Server::Sync, "", NoneLost);
}

#[test]
fn master_of_unicorn_killed_after_a_back_out() {
    master_killed("master_of_unicorn_killed_after_a_back_out", Server::Unicorn, "", NoneLost);
}

#[test]
fn master_killed_after_a_back_out_by_usr2() {
    for server in [Server::Gthread, Server::Unicorn] {
        let more = format!("{SOON_PROVEN}handoff: {{strategy: usr2}}\n");
        let service = Service::start_native(server, Socket::Tcp, &more);
        service.log.wait(0, PROVEN, SOON);
        let refused = back_out(&service, 2);
        assert!(refused.contains("there_is_no_such"), "{refused}");
        let mark = service.log.mark();
        kill(service.master(), Signal::KILL);
        serves_again(&service, mark, "1");
        service.log.wait(mark, PROVEN, SOON);
        deploys_again(Case::of("master_killed_after_a_back_out_by_usr2", service), 3, NoneLost);
    }
}

fn rebooted(server: Server) {
    let service = Service::start_native(server, Socket::Tcp, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    back_out(&service, 2);
    let mut service = service;
    service.reboot();
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "1");
    let status = state(&service);
    assert!(status["fallback"].as_str().is_some_and(|why| why.contains("has failed: ")), "{status}");
    // The reason is quoted; the release itself was not loaded.
    let text = service.log.text(0);
    let is_loaded = |line: &str| line.contains("there_is_no_such") && !line.contains("FALLBACK");
    assert!(!text.lines().any(is_loaded), "{text}");
    service.until_settled();
    // The same once more: what was fallen back to is still what is known to be good.
    service.reboot();
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "1");
    service.release(3, Release::Good);
    service.switch(3);
    let output = service.runsmith(&["upgrade", "--proven"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.reboot();
    serves_again(&service, 0, "3");
    assert!(!service.log.text(0).contains("FALLBACK"), "{}", service.log.text(0));
    service.down();
}

#[test]
fn reboot_after_a_back_out() {
    rebooted(Server::Sync);
}

#[test]
fn reboot_of_unicorn_after_a_back_out() {
    rebooted(Server::Unicorn);
}

#[test]
fn reboot_after_a_switch_that_was_not_deployed() {
    let mut service = Service::start_native(Server::Gthread, Socket::Unix, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    service.release(2, Release::Broken);
    service.switch(2);
    service.reboot();
    service.log.wait(0, &["start FAILED"], START);
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "1");
    assert!(state(&service)["fallback"].is_string());
    service.down();
}

#[test]
fn master_killed_with_nothing_changed() {
    let case = proven("master_killed_with_nothing_changed", Server::Sync, Socket::Unix, "");
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    serves_again(&case.service, mark, "1");
    let status = state(&case.service);
    assert!(
        status["fallback"].is_null() && status["problems"].as_array().is_some_and(Vec::is_empty),
        "{status}"
    );
    assert!(!case.service.log.text(0).contains("FALLBACK"), "{}", case.service.log.text(0));
    case.ends("1", NoneLost);
}

#[test]
fn proven_that_cannot_be_written_down() {
    let case = proven("proven_that_cannot_be_written_down", Server::Sync, Socket::Unix, "");
    let stored = case.service.directory.join("state");
    fs::rename(&stored, case.service.directory.join("state.away")).unwrap();
    fs::write(&stored, "in its place").unwrap();
    case.service.release(2, Release::Good);
    case.service.switch(2);
    let output = case.service.runsmith(&["upgrade", "--proven"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let problems = state(&case.service)["problems"].to_string();
    assert!(problems.contains("proven.json cannot be written"), "{problems}");
    case.service.release(3, Release::Broken);
    case.service.switch(3);
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    serves_again(&case.service, mark, "2");
    fs::remove_file(&stored).unwrap();
    deploys_again(case, 4, NoneLost);
}

/// Deletes what generations are made of and kills the runtime, with `meanwhile` between them: it cannot write it again.
fn delete_snapshots_and_kill(service: &Service, meanwhile: impl FnOnce()) -> usize {
    let mark = service.log.mark();
    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    for name in support::row::names(&service.run_directory()) {
        if name.starts_with("generation.") {
            fs::remove_file(service.run_directory().join(name)).unwrap();
        }
    }
    meanwhile();
    kill(runtime, Signal::KILL);
    mark
}

/// The release that is known to be good after a reboot.
fn proven_on_disk(service: &Service) -> String {
    let text = fs::read_to_string(service.directory.join("state/proven.json")).unwrap_or_default();
    let snapshot: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let release = snapshot["made"]["release"].as_str().unwrap_or_default();
    release.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A second release on probation, after the first one was proven.
fn second_on_probation(service: &Service) {
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
    assert!(state(service)["probation_ms"].is_u64(), "{}", state(service));
}

#[test]
fn snapshot_deleted_and_runtime_killed_on_probation() {
    let name = "snapshot_deleted_and_runtime_killed_on_probation";
    let case = Case::start(name, Server::Sync, Socket::Unix, LATE_PROVEN);
    case.service.log.wait(0, PROVEN, SOON);
    second_on_probation(&case.service);
    // While the runtime lives it is made again at once.
    let snapshot = case.service.run_directory().join("generation.2.json");
    let mark = case.service.log.mark();
    fs::remove_file(&snapshot).unwrap();
    case.service.log.wait(mark, &["made again: generation.2.json"], SOON);
    case.service.release(3, Release::Broken);
    let mark = delete_snapshots_and_kill(&case.service, || case.service.switch(3));
    case.service.log.wait(mark, &["generation 2 was running and goes on"], SOON);
    case.until("it is there again", |_| snapshot.exists());
    case.service.log.wait(mark, PROVEN, SOON);
    assert_eq!(proven_on_disk(&case.service), "2", "{}", case.service.log.text(mark));
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    serves_again(&case.service, mark, "2");
    deploys_again(case, 4, NoneLost);
}

#[test]
fn snapshot_lost_for_good() {
    let case = Case::start("snapshot_lost_for_good", Server::Sync, Socket::Unix, LATE_PROVEN);
    case.service.log.wait(0, PROVEN, SOON);
    second_on_probation(&case.service);
    case.service.release(3, Release::Broken);
    let mark = delete_snapshots_and_kill(&case.service, || {
        kill(case.service.keeper().expect("a keeper"), Signal::KILL);
        case.service.switch(3);
    });
    case.service.log.wait(mark, &["generation 2 was running and goes on"], SOON);
    case.service.log.wait(mark, PROVEN, SOON);
    let line = case.service.log.wait(mark, &["is not known any more"], SOON);
    let first = case.service.root.join("releases/1").display().to_string();
    let instead = format!("if it ends, {first}, which was proven before it, is started");
    assert!(line.text.contains(&instead), "{}", line.text);
    let output = case.service.runsmith(&["status"]);
    assert!(
        output.status.code() == Some(1) && said(&output).contains("is not known any more"),
        "{}",
        said(&output)
    );
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    case.service.log.wait(mark, &["FALLBACK"], START);
    serves_again(&case.service, mark, "1");
    assert!(
        !case.service.log.text(mark).contains("nothing that has served"),
        "{}",
        case.service.log.text(mark)
    );
    deploys_again(case, 4, NoneLost);
}

#[test]
fn run_directory_full_on_probation() {
    let service = Service::native(Server::Sync, Socket::Unix, "restart: {min_uptime: 30}\n");
    let disk = Disk::mount(&service.run_directory());
    let case = Case::of("run_directory_full_on_probation", service.started());
    case.service.log.wait(0, PROVEN, HANDOVER);
    // Room for the next state is reserved before the runtime answers.
    state(&case.service);
    disk.fill();
    second_on_probation(&case.service);
    // The first generation has left the room that it took; that is taken as well.
    state(&case.service);
    let runtime = case.service.runtime();
    kill(runtime, Signal::STOP);
    let _ = fs::remove_file(case.service.run_directory().join("generation.2.json"));
    disk.fill();
    kill(runtime, Signal::CONT);
    let codes = |service: &Service| -> Vec<String> {
        let problems = state(service)["problems"].clone();
        let problems = problems.as_array().cloned().unwrap_or_default();
        problems.iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
    };
    case.until("what cannot be written is shown", |service| codes(service) == ["snapshot"]);
    case.service.release(3, Release::Broken);
    let mark = case.service.log.mark();
    kill(case.service.runtime(), Signal::KILL);
    case.service.log.wait(mark, &["generation 2 was running and goes on"], SOON);
    case.service.switch(3);
    case.service.log.wait(mark, PROVEN, HANDOVER);
    assert_eq!(proven_on_disk(&case.service), "2", "{}", case.service.log.text(mark));
    assert_eq!(codes(&case.service), ["snapshot"], "{}", case.service.log.text(mark));
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    serves_again(&case.service, mark, "2");
    fs::remove_file(disk.filling()).unwrap();
    // Nobody asks.
    case.service.log.wait(mark, &["written again to"], SOON);
    assert!(state(&case.service)["trouble"].is_null(), "{}", state(&case.service));
    case.service.release(4, Release::Good);
    case.service.switch(4);
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let Case { service, load, .. } = case;
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    service.sv("down");
    drop(disk);
}

#[test]
fn state_directory_full() {
    let mut service = Service::start_native(Server::Sync, Socket::Unix, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    let stored = service.directory.join("state");
    let first = fs::read(stored.join("proven.json")).unwrap();
    let disk = Disk::mount(&stored);
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(stored.join("proven.json"), first).unwrap();
    disk.fill();
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade", "--proven"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("is proven") && text.contains("proven.json cannot be written: No space left"),
        "{text}"
    );
    let is_shown = |service: &Service| {
        let output = service.runsmith(&["status"]);
        let text = said(&output);
        assert!(output.status.code() == Some(1) && text.contains("proven.json cannot be written"), "{text}");
    };
    is_shown(&service);
    // What has failed cannot be written down either.
    service.release(3, Release::Broken);
    service.switch(3);
    is_backed_out(&service);
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    is_shown(&service);
    assert_eq!(proven_on_disk(&service), "1");
    fs::remove_file(disk.filling()).unwrap();
    // Nobody asks.
    service.log.wait(mark, &["proven.json is written again"], SOON);
    assert_eq!(proven_on_disk(&service), "2");
    service.switch(2);
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.switch(3);
    service.reboot();
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "2");
    service.down();
    drop(disk);
}

#[test]
fn master_killed_after_a_switch_that_was_not_deployed() {
    let name = "master_killed_after_a_switch_that_was_not_deployed";
    let case = proven(name, Server::Sync, Socket::Tcp, "");
    case.service.release(2, Release::Good);
    case.service.switch(2);
    let mark = case.service.log.mark();
    kill(case.service.master(), Signal::KILL);
    case.service.log.wait(mark, &["runsmith: ready:"], START);
    case.settles();
    serves_again(&case.service, 0, "1");
    deploys_again(case, 3, NoneLost);
}

#[test]
fn reboot_after_a_value_was_backed_out() {
    let needs = "import os\nassert os.environ.get('MODE') != 'broken', 'MODE is broken'\n";
    let ruby = "raise 'MODE is broken' if ENV['MODE'] == 'broken'\n";
    for server in [Server::Sync, Server::Unicorn] {
        let more = format!("{SOON_PROVEN}environment: {{MODE: good}}\nsecrets: {{HIDDEN: first-secret}}\n");
        let service = Service::native(server, Socket::Tcp, &more);
        service.release_with(1, needs, ruby);
        let mut service = service.started();
        service.log.wait(0, PROVEN, SOON);
        service.rewrite(|pillar| {
            pillar.replace("MODE: good", "MODE: broken").replace("first-secret", "second-secret")
        });
        is_backed_out(&service);
        let mark = service.log.mark();
        kill(service.master(), Signal::KILL);
        service.log.wait(mark, &["runsmith: ready:"], START);
        service.until_settled();
        let environment = |service: &Service| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{}/environ", service.master())).unwrap())
                .into_owned()
        };
        let has = |service: &Service| {
            let text = environment(service);
            assert!(text.contains("MODE=good") && text.contains("HIDDEN=first-secret"), "{text}");
        };
        has(&service);
        service.reboot();
        serves_again(&service, 0, "1");
        has(&service);
        service.down();
    }
}

#[test]
fn reboot_with_a_user_that_does_not_exist() {
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    let user = service.name.clone();
    service.edit_run(|text| text.replace(&format!("\nuser: {user}\n"), "\nuser: rst-nobody-x\n"));
    let refused = is_backed_out(&service);
    assert!(refused.contains("no such user on this host: rst-nobody-x"), "{refused}");
    service.reboot();
    serves_again(&service, 0, "1");
    assert!(service.log.text(0).contains("no such user on this host: rst-nobody-x"));
    service.down();
}

/// A release whose master exits once it is told to, by [`Service::go`]: after it took over, however long that takes.
fn fails_late(service: &Service, number: u32) {
    let go = service.scratch().join("go");
    // It keeps no master that is told to end.
    let python = format!(
        "import os, threading, time\ndef fail():\n    while not os.path.exists({go:?}): time.sleep(0.02)\n    os._exit(7)\n\
         threading.Thread(target=fail, daemon=True).start()\n"
    );
    let ruby = format!("Thread.new {{ sleep 0.02 until File.exist?({go:?}); exit!(7) }}\n");
    service.release_with(number, &python, &ruby);
    service.switch(number);
}

/// Deploys such a release with `upgrade --proven`, and has it fail once it serves alone: what was printed in the end.
fn fails_while_waited_for(service: &Service, number: u32) -> Output {
    fails_late(service, number);
    let mark = service.log.mark();
    let asked = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["upgrade", "--proven"])
        .arg(&service.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    service.log.wait(mark, &["runsmith: done:", "FAILED"], HANDOVER);
    service.go();
    asked.wait_with_output().unwrap()
}

#[test]
fn failure_on_probation() {
    for server in [Server::Gthread, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Tcp, LATE_PROVEN);
        if server == Server::Unicorn {
            service.rewrite(|pillar| {
                pillar.replace("worker_processes: 3", "worker_processes: 3, preload_app: true")
            });
        }
        let case = Case::of("failure_on_probation", service.started());
        case.service.log.wait(0, PROVEN, HANDOVER);
        let output = fails_while_waited_for(&case.service, 2);
        assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), case.service.log.text(0));
        assert!(said(&output).contains("exit code 7"), "{}", said(&output));
        case.settles();
        serves_again(&case.service, 0, "1");
        let status = state(&case.service);
        assert!(status["fallback"].as_str().is_some_and(|why| why.contains("exit code 7")), "{status}");
        deploys_again(case, 3, LostWithTheKilled(8));
    }
}

#[test]
fn failure_on_probation_before_anything_was_proven() {
    let service = Service::start_native(Server::Gthread, Socket::Tcp, "restart: {min_uptime: 300}\n");
    fails_late(&service, 2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("on probation"), "{}", said(&output));
    assert!(state(&service)["probation_ms"].as_u64().is_some_and(|left| left > 0));
    let mark = service.log.mark();
    service.go();
    service.log.wait(mark, &["FAILED on probation"], SOON);
    service.log.wait(mark, &["runsmith: ready:"], START);
    service.until_settled();
    serves_again(&service, 0, "1");
    service.down();
}

#[test]
fn failure_on_probation_after_a_release_that_was_not_proven() {
    let mut service = Service::start_native(Server::Gthread, Socket::Tcp, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    service.rewrite(|pillar| pillar.replace("min_uptime: 1}", "min_uptime: 300}"));
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    fails_late(&service, 3);
    let mark = service.log.mark();
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.go();
    service.log.wait(mark, &["FAILED on probation"], SOON);
    serves_again(&service, mark, "2");
    service.until_settled();
    // It fails as well: the next one in turn is what was proven.
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["FAILED on probation"], SOON);
    serves_again(&service, mark, "1");
    service.down();
}

/// Deploys a release that fails on probation; the first one serves again, and a third one is deployed.
fn fails_on_probation(case: Case, reason: &str, make: &dyn Fn(&Service, u32), requests: Requests) {
    case.service.switch(2);
    let output = case.service.runsmith(&["upgrade", "--proven"]);
    assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), case.service.log.text(0));
    assert!(said(&output).contains(reason), "{}", said(&output));
    case.settles();
    serves_again(&case.service, 0, "1");
    make(&case.service, 3);
    case.service.switch(3);
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), case.service.log.text(0));
    case.ends("3", requests);
}

#[test]
fn state_deleted_while_it_serves() {
    for adopted in [false, true] {
        let case = proven("state_deleted_while_it_serves", Server::Sync, Socket::Unix, "");
        fs::remove_dir_all(case.service.directory.join("state")).unwrap();
        case.service.release(2, Release::Broken);
        case.service.switch(2);
        if adopted {
            let mark = case.service.log.mark();
            case.service.sv("kill");
            case.service.log.wait(mark, &["goes on under this run"], START);
        }
        let mark = case.service.log.mark();
        kill(case.service.master(), Signal::KILL);
        case.service.log.wait(mark, &["runsmith: ready:"], START);
        case.settles();
        serves_again(&case.service, 0, "1");
        deploys_again(case, 3, NoneLost);
    }
}

#[test]
fn sick_while_the_runtime_is_stopped() {
    for killed in [false, true] {
        let more = "restart: {min_uptime: 20}\nhandoff: {health_check: {path: /health, timeout: 5, interval: 0.2}}\n";
        let mut case = Case::start("sick_while_the_runtime_is_stopped", Server::Sync, Socket::Unix, more);
        case.service.log.wait(0, PROVEN, SOON);
        let flag = case.service.scratch().join("sick");
        case.service.release(2, Release::Good);
        let wsgi = case.service.root.join("releases/2/wsgi.py");
        let text = fs::read_to_string(&wsgi).unwrap();
        let sick =
            format!("    if environ['PATH_INFO'] == '/health' and os.path.exists({flag:?}): raise OSError\n");
        fs::write(&wsgi, text.replace("    body = ", &format!("{sick}    body = "))).unwrap();
        case.service.switch(2);
        let output = case.service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let mark = case.service.log.mark();
        let begun = Instant::now();
        if killed {
            case.service.kill_runsv();
        } else {
            kill(case.service.runtime(), Signal::STOP);
        }
        fs::write(&flag, "").unwrap();
        // Until its probation is over, whatever happens; the runtime cannot report that.
        thread::sleep(Duration::from_secs(22).saturating_sub(begun.elapsed()));
        if killed {
            case.service.supervise();
        } else {
            kill(case.service.runtime(), Signal::CONT);
        }
        let mark = if killed { 0 } else { mark };
        case.service.log.wait(mark, &["generation 2 FAILED on probation"], START);
        assert!(
            !case.service.log.text(mark).contains("proven: generation 2"),
            "{}",
            case.service.log.text(0)
        );
        case.settles();
        serves_again(&case.service, mark, "1");
        deploys_again(case, 3, NoneLost);
    }
}

#[test]
fn processes_that_leave_the_session() {
    let leaves = "import os, signal, socket, time\n\
        if os.fork() == 0:\n    os.setsid()\n    if os.fork() != 0: os._exit(0)\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
        listener = socket.socket(fileno=os.dup(3))\n    listener.setblocking(False)\n    while True:\n        \
        try: listener.accept()[0].sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\n2 99')\n        \
        except OSError: time.sleep(0.05)\n";
    let case = Case::start("processes_that_leave_the_session", Server::Sync, Socket::Unix, "");
    case.service.release_with(2, leaves, "");
    case.service.switch(2);
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // Master, workers, and what has left.
    case.until("it has left", |service| service.user.processes().len() > service.processes);
    case.service.release(3, Release::Good);
    case.service.switch(3);
    let mark = case.service.log.mark();
    let output = case.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    case.service.log.wait(mark, &["had left its session and is killed"], SOON);
    case.ends("3", LostWithTheKilled(2));
}

#[test]
fn failure_on_probation_of_what_was_deployed_twice() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "restart: {min_uptime: 300}\n");
    fails_late(&service, 2);
    let mark = service.log.mark();
    for _ in 0..2 {
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    service.go();
    service.log.wait(mark, &["FAILED on probation"], SOON);
    service.log.wait(mark, &["FALLBACK"], START);
    service.until("the release before both serves", |service| service.version() == "1");
    serves_again(&service, mark, "1");
    service.down();
}

#[test]
fn failure_of_uvicorn_on_probation() {
    let program = virtualenv("uvicorn").join("bin/uvicorn");
    require("uvicorn", &program);
    let asgi = |number: u32, first: &str| {
        format!(
            "import asyncio, os, time\n{first}\nasync def app(scope, receive, send):\n\
             \x20   if scope['type'] != 'http': return\n\
             \x20   body = b'{number} %d' % os.getpid()\n\
             \x20   length = (b'content-length', str(len(body)).encode())\n\
             \x20   await send({{'type': 'http.response.start', 'status': 200, 'headers': [length]}})\n\
             \x20   await send({{'type': 'http.response.body', 'body': body}})\n"
        )
    };
    let make = |service: &Service, number: u32, first: &str| {
        service.release(number, Release::Good);
        fs::write(service.root.join(format!("releases/{number}/asgi.py")), asgi(number, first)).unwrap();
    };
    let command = format!("[{}, \"asgi:app\", --fd, \"3\"]", program.display());
    let name = "failure_of_uvicorn_on_probation";
    let mut service = Service::native(Server::Any, Socket::Unix, "restart: {min_uptime: 40}\n");
    service.runs(&command);
    service.processes = 1;
    make(&service, 1, "");
    let case = Case::of(name, service.started());
    case.service.log.wait(0, PROVEN, HANDOVER);
    make(&case.service, 2, "time.sleep(5)\nimport there_is_no_such_module");
    // When it ends, uvicorn closes connections that it has accepted and not read from yet: at most one for each client.
    let again = |service: &Service, number: u32| make(service, number, "");
    fails_on_probation(case, "there_is_no_such_module", &again, LostWithTheKilled(6));
}

#[test]
fn workers_of_puma_that_cannot_load() {
    require("puma", std::path::Path::new("/usr/bin/puma"));
    let mut service = Service::native(Server::Any, Socket::Tcp, "restart: {min_uptime: 40}\n");
    let Address::Tcp(port) = service.address else { panic!("a port") };
    let bind = format!("tcp://127.0.0.1:{port}");
    service
        .runs(&format!("[/usr/bin/puma, -e, production, -w, \"2\", -t, \"4:8\", -b, \"{bind}\", config.ru]"));
    service.processes = 3;
    let case = Case::of("workers_of_puma_that_cannot_load", service.started());
    case.service.log.wait(0, PROVEN, HANDOVER);
    case.service.release(2, Release::Broken);
    let make = |service: &Service, number: u32| service.release(number, Release::Good);
    // When it ends, puma closes connections of which nothing has arrived yet: three masters end, one of two short clients may be in each.
    fails_on_probation(case, "of its workers exited", &make, ClosedUnread(6));
}

#[test]
fn failure_on_probation_by_usr2() {
    for server in [Server::Gthread, Server::Unicorn] {
        let more = "restart: {min_uptime: 20}\nhandoff: {strategy: usr2}\n";
        let mut service = Service::native(server, Socket::Tcp, more);
        service.rewrite(|pillar| {
            pillar.replace("worker_processes: 3", "worker_processes: 3, preload_app: true")
        });
        let service = service.started();
        service.log.wait(0, PROVEN, HANDOVER);
        let mark = service.log.mark();
        let output = fails_while_waited_for(&service, 2);
        assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), service.log.text(0));
        serves_again(&service, mark, "1");
        service.log.wait(mark, PROVEN, HANDOVER);
        deploys_again(Case::of("failure_on_probation_by_usr2", service), 3, NoneLost);
    }
}

#[test]
fn failure_of_a_successor_by_usr2() {
    for server in [Server::Gthread, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Tcp, "handoff: {strategy: usr2}\n");
        service
            .rewrite(|pillar| pillar.replace("gunicorn: {workers", "gunicorn: {accesslog: \"-\", workers"));
        let logs = "use Rack::CommonLogger";
        service.release_with(1, "", logs);
        let case = Case::of("failure_of_a_successor_by_usr2", service.started());
        let service = &case.service;
        service.release_with(2, "", logs);
        service.switch(2);
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
        let fails = || {
            let mark = service.log.mark();
            service.log.wait(mark, &["HTTP/1.1\" 200"], SOON);
            let output = service.runsmith(&["upgrade", "--format", "json"]);
            assert_eq!(output.status.code(), Some(1), "{}\n{}", said(&output), service.log.text(0));
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let text = |field: &str| told["result"][field].as_str().unwrap_or_default().to_owned();
            assert!(text("reason").contains("boom at import"), "{told:#}\n{}", service.log.text(mark));
            assert!(text("output").contains("boom at import"), "{told:#}\n{}", service.log.text(mark));
            assert!(!text("output").contains("HTTP/1.1\" 200"), "{told:#}");
        };
        service.release_with(3, "raise ValueError('boom at import')", "raise 'boom at import'");
        service.switch(3);
        fails();
        let keeper = service.keeper().unwrap();
        kill(keeper, Signal::KILL);
        case.until("another keeper", |service| service.keeper().is_some_and(|pid| pid != keeper));
        fails();
        service.switch(2);
        case.ends("2", NoneLost);
    }
}

#[test]
fn master_killed_on_the_first_probation() {
    let service = Service::start_native(Server::Sync, Socket::Unix, LATE_PROVEN);
    service.release(2, Release::Good);
    service.switch(2);
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    serves_again(&service, mark, "1");
    assert!(state(&service)["fallback"].is_string(), "{}", state(&service));
    service.down();
}

#[test]
fn first_start_overtaken_by_a_broken_release() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    service.release(1, Release::Waiting);
    service.supervise();
    service.log.wait(0, &["generation 1 is master"], SOON);
    back_out(&service, 2);
    service.go();
    service.log.wait(0, &["ready: generation 1 serves"], START);
    assert_eq!(service.version(), "1");
    service.until_settled();
    service.down();
}

#[test]
fn first_start_overtaken_by_a_good_release() {
    for server in [Server::Sync, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Unix, "");
        service.release(1, Release::Hanging);
        service.supervise();
        service.log.wait(0, &["generation 1 is master"], SOON);
        service.release(2, Release::Good);
        service.switch(2);
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), service.log.text(0));
        assert_eq!(service.version(), "2");
        service.until_settled();
        service.down();
    }
}

#[test]
fn damaged_records_and_a_reboot() {
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    let stored = service.directory.join("state");
    let whole = fs::read_to_string(stored.join("proven.json")).unwrap();
    assert_eq!(fs::metadata(&stored).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(stored.join("proven.json")).unwrap().permissions().mode() & 0o7777, 0o600);
    let other = whole.replace(&service.name, "another");
    let version = whole.replacen("\"format\":1", "\"format\":99", 1);
    let damages: [&dyn Fn(&Path); 7] = [
        &|path| fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        &|path| fs::write(path, "").unwrap(),
        &|path| fs::write(path, [0xff; 4096]).unwrap(),
        &|path| fs::write(path, &other).unwrap(),
        &|path| fs::write(path, &version).unwrap(),
        &|path| symlink("/dev/zero", path).unwrap(),
        &|path| fs::create_dir(path).unwrap(),
    ];
    for damage in damages {
        for file in ["proven.json", "failed.json"] {
            let path = stored.join(file);
            let _ = fs::remove_file(&path);
            damage(&path);
        }
        // It is on disk, and the service starts with it.
        service.reboot();
        serves_again(&service, 0, "1");
        for file in ["proven.json", "failed.json"] {
            let _ = fs::remove_dir(stored.join(file));
        }
    }
    // Once it is proven it is kept again.
    service.log.wait(0, PROVEN, SOON);
    service.until("it is kept", |_| {
        fs::read_to_string(stored.join("proven.json")).is_ok_and(|now| now == whole)
    });
    service.down();
}

#[test]
fn fallback_turned_off() {
    let more = "restart: {min_uptime: 1, fallback: none}\n";
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, more);
    service.log.wait(0, PROVEN, SOON);
    back_out(&service, 2);
    service.reboot();
    service.log.wait(0, &["start FAILED"], START);
    service.log.wait(0, &["next start in"], START);
    assert!(!service.log.text(0).contains("FALLBACK"), "{}", service.log.text(0));
    assert!(!serves(&service));
    service.switch(1);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.down();
}

#[test]
fn workers_that_cannot_load() {
    for server in [Server::Unicorn, Server::Sync] {
        let mut service = Service::native(server, Socket::Tcp, "handoff: {boot_timeout: 60}\n");
        service.rewrite(|pillar| {
            let pillar = pillar.replace("worker_class: sync", "worker_class: sync, preload_app: false");
            pillar.replace("worker_processes: 3", "worker_processes: 3, preload_app: false")
        });
        let case = Case::of("workers_that_cannot_load", service.started());
        let dies = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n";
        case.service.release_with(2, dies, "require 'there_is_no_such_library'\n");
        case.service.switch(2);
        let mark = case.service.log.mark();
        let refused = is_backed_out(&case.service);
        assert!(refused.contains("5 of its workers exited before they had loaded"), "{refused}");
        // The report of a death and its removal take a moment, in which a few more are started.
        let spawned = case.service.log.count(mark, "spawned pid=") + case.service.log.count(mark, "SIGSEGV");
        assert!(spawned < 200, "{spawned} workers were started");
        case.ends("1", NoneLost);
    }
}

#[test]
fn master_killed_and_a_slow_start() {
    for server in [Server::Sync, Server::Gthread, Server::Gevent] {
        let service = Service::native(server, Socket::Unix, SOON_PROVEN);
        let (hold, go) = (service.scratch().join("hold"), service.scratch().join("go"));
        let python = format!(
            "import os, time\nwhile os.path.exists({hold:?}) and not os.path.exists({go:?}):\n    time.sleep(0.02)\n"
        );
        service.release_with(1, &python, "");
        let case = Case::of("master_killed_and_a_slow_start", service.started());
        case.service.log.wait(0, PROVEN, SOON);
        fs::write(&hold, "").unwrap();
        let mark = case.service.log.mark();
        kill(case.service.master(), Signal::KILL);
        case.service.log.wait(mark, &["generation 2 is master"], START);
        // Workers look for their master at each request, and once a second.
        let before = case.load.count();
        case.until("its workers go on serving", |_| case.load.count() > before + 300);
        assert_eq!(case.service.log.count(mark, "Parent changed"), 0, "{}", case.service.log.text(mark));
        case.service.go();
        case.service.log.wait(mark, &["runsmith: ready: generation 2"], START);
        case.ends("1", NoneLost);
    }
}

#[test]
fn aborts_with_requests_in_flight() {
    for server in [Server::Gthread, Server::Gevent] {
        let case = Case::start("aborts_with_requests_in_flight", server, Socket::Tcp, "");
        case.service.release(2, Release::Good);
        case.service.switch(2);
        for attempt in 0..6 {
            let mark = case.service.log.mark();
            case.service.sv("2");
            case.service.log.wait(mark, &[" is master "], START);
            // From just after the fork of the master to just before every worker is ready.
            let before = case.load.count();
            case.until("the new generation gets on", |_| case.load.count() > before + 40 * attempt);
            let output = case.service.runsmith(&["upgrade", "--abort"]);
            if output.status.code() != Some(0) {
                // It was ready before.
                case.service.log.wait(mark, &["runsmith: done:"], HANDOVER);
            }
            case.settles();
        }
        case.service.release(3, Release::Good);
        case.service.switch(3);
        let output = case.service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), case.service.log.text(0));
        case.ends("3", NoneLost);
    }
}

#[test]
fn proven_release_removed() {
    let more = "restart: {min_uptime: 1, backoff_initial: 0.2, backoff_max: 1}\n";
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, more);
    service.log.wait(0, PROVEN, SOON);
    back_out(&service, 2);
    service.reboot();
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "1");
    fs::remove_dir_all(service.root.join("releases/1")).unwrap();
    service.reboot();
    service.log.wait(0, &["is not there any more"], START);
    service.log.wait(0, &["start FAILED"], START);
    service.release(2, Release::Good);
    service.log.wait(0, &["runsmith: ready:"], HANDOVER);
    assert_eq!(service.version(), "2");
    service.until_settled();
    service.down();
}

/// After a fallback somebody puts back on disk what serves: then `status` has nothing to report, and does not go on warning.
#[test]
fn the_fallback_is_over_once_what_serves_is_on_disk_again() {
    let mut service = Service::start_native(Server::Gthread, Socket::Unix, SOON_PROVEN);
    service.log.wait(0, PROVEN, SOON);
    back_out(&service, 2);
    service.reboot();
    service.log.wait(0, &["FALLBACK"], START);
    serves_again(&service, 0, "1");
    service.until_settled();
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("FALLBACK"), "{}", said(&output));
    // `sv start` waits for this, and what serves is ready.
    let check = Command::new(service.directory.join("check")).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", said(&check));
    service.switch(1);
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("FALLBACK"), "{}", said(&output));
    assert!(state(&service)["fallback"].is_null(), "{}", state(&service));
    // The next run knows it, too.
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], START);
    service.until_settled();
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.down();
}

/// An interpreter that loads may take the signal to end for an error of what it loads, and go on. A candidate that is removed then
/// must not load the application and take requests.
#[test]
fn the_candidate_that_is_removed_never_serves() {
    for server in [Server::Sync, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Tcp, SOON_PROVEN);
        let (go, deaf) = (service.scratch().join("go"), service.scratch().join("deaf.rb"));
        let [loads, told] = ["loads", "told"].map(|name| service.root.join("shared").join(name));
        let ruby = format!(
            "if ENV['RUNSMITH_GENERATION'] == '2'\n  begin\n    File.write({loads:?}, '')\n    \
             sleep 0.02 until File.exist?({go:?})\n  rescue SignalException\n    File.write({told:?}, '')\n    retry\n  end\nend\n"
        );
        fs::write(&deaf, ruby).unwrap();
        let python = format!(
            "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: open({told:?}, 'w').close())\n\
             open({loads:?}, 'w').close()\nwhile not os.path.exists({go:?}): time.sleep(0.02)\n"
        );
        if server == Server::Unicorn {
            service.rewrite(|pillar| format!("{pillar}environment: {{RUBYOPT: \"-r{}\"}}\n", deaf.display()));
        }
        let case = Case::of("the_candidate_that_is_removed_never_serves", service.started());
        case.service.release_with(2, &python, "");
        case.service.switch(2);
        case.service.sv("2");
        case.until("the new generation loads", |_| loads.exists());
        let candidate = state(&case.service)["candidate"]["master"].as_u64().unwrap();
        let output = case.service.runsmith(&["upgrade", "--abort"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), case.service.log.text(0));
        case.until("it is told, or has ended", |_| told.exists() || !lives(candidate as u32));
        case.service.go();
        let seen = case.ends("1", NoneLost);
        let strange: Vec<_> = seen.answers.iter().filter(|one| one.version != "1").take(3).collect();
        assert!(strange.is_empty(), "{server:?}: the candidate has answered: {strange:?}");
    }
}

/// Processes of the service's user that have this word on their command line.
fn with_word(service: &Service, word: &str) -> Vec<u32> {
    let user = service.user.processes();
    let commands =
        support::host::commands().into_iter().filter(|(_, command)| command.iter().any(|one| one == word));
    let all = commands.filter(|(pid, _)| user.iter().any(|one| one.pid == *pid));
    all.map(|(pid, _)| pid).collect()
}

#[test]
fn children_of_a_failed_candidate() {
    for server in [Server::Sync, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Unix, "");
        // The first generation begins one, the second one, too, and fails after that.
        let begins = |seconds: &str| {
            (
                format!(
                    "import subprocess\nsubprocess.Popen(['sleep', '{seconds}'], start_new_session=True)"
                ),
                format!("Process.detach(spawn('setsid', 'sleep', '{seconds}'))"),
            )
        };
        let (python, ruby) = begins("7001");
        service.release_with(1, &python, &ruby);
        let (python, ruby) = begins("7002");
        service.release_with(
            2,
            &format!("{python}\nimport there_is_no_such_module"),
            &format!("{ruby}\nrequire 'there_is_no_such_library'"),
        );
        service.supervise();
        service.log.wait(0, &["runsmith: done:"], START);
        let kept = with_word(&service, "7001");
        assert_eq!(kept.len(), 1, "{}", service.log.text(0));
        let load = Load::start(&service.address, 2, 1);
        service.switch(2);
        is_backed_out(&service);
        service.log.wait(0, &["of generation 2 had left its session and is killed"], SOON);
        service.until("it has ended", |service| with_word(service, "7002").is_empty());
        assert_eq!(with_word(&service, "7001"), kept);
        assert_eq!(service.version(), "1");
        let seen = load.finish();
        assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
        service.down();
    }
}

/// A release that has failed once is deployed again and serves; the next one fails on probation. What served before that is
/// started, and not an older one: its failure was before it was deployed again.
#[test]
fn the_release_that_was_deployed_again_is_gone_back_to() {
    let service = Service::start_native(Server::Gthread, Socket::Tcp, LATE_PROVEN);
    service.log.wait(0, PROVEN, HANDOVER);
    let upgrades = |number: u32| {
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{number}: {}\n{}", said(&output), service.log.text(0));
    };
    service.release(2, Release::Good);
    service.switch(2);
    upgrades(2);
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["FALLBACK"], START);
    serves_again(&service, mark, "1");
    upgrades(2);
    let mark = service.log.mark();
    fails_late(&service, 3);
    service.sv("2");
    service.log.wait(mark, &["done: generation 5"], HANDOVER);
    service.go();
    service.log.wait(mark, &["FALLBACK"], HANDOVER);
    serves_again(&service, mark, "2");
    service.down();
}
