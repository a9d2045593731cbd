//! `runsmith status` is true: what needs a person is shown with its reason and exits 1, with real servers and a real runsv.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use support::faults::{serves, state};
use support::host::{Process, kill};
use support::row::{said, unfolded};
use support::service::{Release, Server, Service, Socket, WORKERS};
use support::{BOOT, SOON, START};

/// The service alone, and as the only one of a host: text, text of the table, and exit codes that are alike.
fn shown(service: &Service) -> (String, String, i32) {
    let one = service.runsmith(&["status"]);
    let all = list(service);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(one.status.code(), all.status.code(), "{}\n{}", said(&one), said(&all));
    assert!(!said(&one).contains("panicked") && !said(&all).contains("panicked"));
    // `sv start` waits for what is asked quietly: that it serves, whatever else needs a person.
    let state = state(service);
    let all_of_the_log = state["problems"].as_array().is_some_and(|all| {
        all.iter().all(|problem| problem["code"].as_str().is_some_and(|code| code.starts_with("log")))
    });
    let serves = !state["serving"].is_null() && (state["state"] != "degraded" || all_of_the_log);
    assert_eq!(quiet(service), Some(i32::from(!serves)), "{}", said(&one));
    for line in text(&all).lines() {
        // Only a path may be longer: it is to be copied.
        assert!(line.chars().count() <= 80 || line.contains('/'), "{line:?} is wider than 80 columns");
    }
    (text(&one), text(&all), one.status.code().expect("a code"))
}

/// `runsmith status` on a host whose only service this is.
fn list(service: &Service) -> Output {
    let links = service.scratch().join("links");
    if !links.exists() {
        fs::create_dir(&links).expect("a directory");
        symlink(&service.directory, links.join(&service.name)).expect("a link");
    }
    Command::new(env!("CARGO_BIN_EXE_runsmith")).arg("status").env("SVDIR", links).output().expect("runsmith")
}

/// Waits until nothing needs a person. What is compared is asked for afterwards: one command may come before that moment and the next
/// one after it.
fn until_well_again(service: &Service) {
    service.until("it is well again", |service| {
        service.runsmith(&["status"]).status.code() == Some(0) && state(service)["state"] == "serving"
    });
    assert_eq!(shown(service).2, 0);
}

fn quiet(service: &Service) -> Option<i32> {
    service.runsmith(&["status", "--quiet"]).status.code()
}

fn workers(master: u32) -> Vec<u32> {
    Process::all().into_iter().filter(|one| one.parent == master && one.lives()).map(|one| one.pid).collect()
}

/// The messages of the problems with this code.
fn problems(service: &Service, code: &str) -> Vec<String> {
    let state = state(service);
    let all = state["problems"].as_array().cloned().unwrap_or_default();
    let of = all.iter().filter(|problem| problem["code"] == code);
    of.map(|problem| problem["message"].as_str().unwrap_or_default().to_owned()).collect()
}

fn until_state(service: &Service, wanted: &str) {
    service.until(wanted, |service| state(service)["state"] == wanted);
}

/// Workers that die by a signal while they load: the server starts others again and again, and serves nothing.
#[test]
fn workers_that_die_by_a_signal_are_shown() {
    // Proven soon: one on probation would be replaced.
    let mut service = Service::native(Server::Sync, Socket::Unix, "restart: {min_uptime: 0.5}\n");
    service.rewrite(|pillar| pillar.replace("worker_class: sync", "worker_class: sync, preload_app: false"));
    let flag = service.scratch().join("dies");
    let file = service.root.join("releases/1/wsgi.py");
    let good = fs::read_to_string(&file).expect("wsgi.py");
    let dies = format!(
        "import os, signal, time\nif os.path.exists({flag:?}):\n    time.sleep(0.2)\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    );
    fs::write(&file, dies + &good).expect("wsgi.py");
    let service = service.started();
    service.log.wait(0, &["runsmith: proven:"], SOON);
    let (text, table, code) = shown(&service);
    assert!(code == 0 && text.contains(": serving\n") && table.contains(" serving "), "{text}{table}");
    assert_eq!(quiet(&service), Some(0));

    fs::write(&flag, "").expect("a flag");
    for worker in workers(service.master()) {
        kill(worker, Signal::KILL);
    }
    until_state(&service, "degraded");
    service.until("the signal is shown", |service| {
        problems(service, "workers").iter().any(|message| message.contains("SIGSEGV"))
    });
    let (text, table, code) = shown(&service);
    assert_eq!(code, 1);
    assert!(text.contains(": DEGRADED\n") && text.contains("0 of 3 workers are ready"), "{text}");
    assert!(table.contains("DEGRADED") && table.contains("0/3") && table.contains("\n! "), "{table}");
    assert_eq!(quiet(&service), Some(1));

    fs::remove_file(&flag).expect("the flag");
    until_state(&service, "serving");
    assert_eq!(shown(&service).2, 0);
    service.down();
}

/// What an operator did by hand: unicorn has no workers after WINCH, and fewer after TTOU.
#[test]
fn workers_taken_away_by_hand_are_shown() {
    let service = Service::start_native(Server::Unicorn, Socket::Unix, "");
    kill(service.master(), Signal::TTOU);
    until_state(&service, "degraded");
    assert!(problems(&service, "workers")[0].starts_with("2 of 3 workers are ready"), "{}", state(&service));
    let advice = format!("; `runsmith upgrade {}` starts a whole generation", service.directory.display());
    assert!(problems(&service, "workers")[0].ends_with(&advice), "{}", state(&service));
    kill(service.master(), Signal::WINCH);
    service.until("no worker is left", |service| state(service)["serving"]["workers_ready"] == 0);
    until_state(&service, "degraded");
    assert_eq!((shown(&service).2, quiet(&service)), (1, Some(1)));
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    until_state(&service, "serving");
    service.down();
}

/// The next run knows which workers are ready, also one that got ready while no runtime was there to be told.
#[test]
fn a_run_that_adopts_knows_the_workers() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "");
    let mark = service.log.mark();
    service.sv("kill");
    service.log.wait(mark, &["goes on under this run"], SOON);
    assert_eq!(state(&service)["serving"]["workers_ready"], WORKERS);
    let (mark, runtime) = (service.log.mark(), service.runtime());
    kill(runtime, Signal::STOP);
    let before = workers(service.master());
    kill(before[0], Signal::KILL);
    service.until("another worker", |service| {
        let now = workers(service.master());
        now.len() == WORKERS && !now.contains(&before[0]) && service.address.get("/").is_ok()
    });
    kill(runtime, Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    assert_eq!(state(&service)["serving"]["workers_ready"], WORKERS);
    assert_eq!(state(&service)["state"], "serving");
    service.down();
}

/// A start that fails while nothing serves is no hand-over, and says why in the words of the application.
#[test]
fn a_first_start_that_fails_is_no_hand_over() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "restart: {backoff_initial: 60}");
    service.release(2, Release::Broken);
    service.switch(2);
    service.supervise();
    service.log.wait(0, &["start FAILED"], START);
    until_state(&service, "resting");
    let (text, table, code) = shown(&service);
    assert_eq!(code, 1);
    assert!(text.contains(": RESTING\n") && text.contains("last start     generation 1: FAILED"), "{text}");
    assert!(!text.contains("hand-over") && text.contains("1 failure in a row"), "{text}");
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("ModuleNotFoundError: No module named 'there_is_no_such_module'"), "{text}");
    assert!(table.contains("last start failed: the new master"), "{table}");
    assert_eq!(state(&service)["last"]["from"], serde_json::Value::Null);

    service.switch(1);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (text, _, code) = shown(&service);
    assert!(code == 0 && text.contains("last start     generation 2: done"), "{text}");
    service.down();
}

/// A start that nobody asked for, and that succeeds, is the last one from then on.
#[test]
fn a_start_that_follows_by_itself_is_the_last() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "restart: {backoff_initial: 1}");
    service.release(1, Release::Broken);
    service.supervise();
    service.log.wait(0, &["start FAILED"], START);
    service.release(1, Release::Good);
    service.log.wait(0, &["ready: generation"], START);
    service.until("it has settled", serves);
    let state = state(&service);
    assert_eq!((&state["last"]["done"], &state["last"]["reason"]), (&true.into(), &serde_json::Value::Null));
    service.down();
}

/// A back-out says in one line what the application said.
#[test]
fn a_back_out_shows_the_exception() {
    for (server, words) in [
        (Server::Sync, "before it was ready: ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        (
            Server::Unicorn,
            "before it was ready: cannot load such file -- there_is_no_such_library (LoadError)",
        ),
    ] {
        let service = Service::start_native(server, Socket::Unix, "");
        service.release(2, Release::Broken);
        service.switch(2);
        let output = service.runsmith(&["upgrade"]);
        let text = unfolded(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(text.lines().next().is_some_and(|line| line.contains(words)), "{text}");
        let last = state(&service)["last"].clone();
        assert!(last["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{last}");
        assert_eq!((&last["from"], &last["generation"]), (&1.into(), &2.into()));
        let (text, table, code) = shown(&service);
        // The old generation serves as before; but what is on disk would not be started by anybody.
        assert_eq!(code, 1);
        assert!(text.contains("last hand-over from generation 1 to 2: FAILED"), "{text}");
        assert!(table.contains("\n! ") && table.contains(" goes on serving, and not what is on"), "{table}");
        service.down();
    }
}

/// Workers whose master was killed serve on while the next start waits: they are not called nothing.
#[test]
fn orphaned_workers_are_shown() {
    let service = Service::start_native(
        Server::Unicorn,
        Socket::Unix,
        "restart: {min_uptime: 3600, backoff_initial: 60}",
    );
    let mark = service.log.mark();
    // unicorn's workers leave when they see that their master has gone; one that is stopped sees nothing.
    let stopped = workers(service.master());
    stopped.iter().for_each(|worker| kill(*worker, Signal::STOP));
    kill(service.master(), Signal::KILL);
    let line = service.log.wait(mark, &["in a row, next start in"], SOON);
    assert!(line.text.contains("only workers without a master serve: 1 failure in a row"), "{}", line.text);
    let (text, _, code) = shown(&service);
    assert_eq!(code, 1);
    assert!(text.contains("orphaned       generation 1, without a master, 3 workers"), "{text}");
    assert_eq!(state(&service)["leaving"][0]["orphaned"], true);
    stopped.iter().for_each(|worker| kill(*worker, Signal::CONT));
    service.down();
}

/// A service whose run cannot begin says why, and does not claim to listen.
#[test]
fn down_has_a_reason() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let name = service.name.clone();
    service.edit_run(|text| text.replace(&format!("\nuser: {name}\n"), "\nuser: nobody-at-all\n"));
    let output = service.runsmith(&["run", "--check"]);
    assert_eq!(output.status.code(), Some(2), "a directory is no run script: {}", said(&output));
    let check = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["run", "--check"])
        .arg(service.directory.join("run"))
        .output()
        .expect("runsmith");
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    assert!(said(&check).contains("there is no such user on this host: nobody-at-all"), "{}", said(&check));

    service.supervise();
    service.log.wait(0, &["this run cannot begin"], START);
    let (text, table, code) = shown(&service);
    assert_eq!(code, 1);
    assert!(text.contains(": DOWN\n") && !text.contains("listens on"), "{text}");
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("s ago: there is no such user on this host: nobody-at-all"), "{text}");
    assert!(table.contains("DOWN") && table.contains("could not begin"), "{table}");
    assert_eq!(problems(&service, "down").len(), 1);

    service.edit_run(|text| text.replace("\nuser: nobody-at-all\n", &format!("\nuser: {name}\n")));
    service.log.wait(0, &["runsmith: done:"], START);
    let (text, _, code) = shown(&service);
    assert!(code == 0 && text.contains("listens on") && !text.contains("problem"), "{text}");
    service.down();
    // Nobody wants it up: nothing is wrong.
    let (text, _, code) = shown(&service);
    assert!(code == 0 && text.contains(": down\n") && !text.contains("problem"), "{text}");
    assert_eq!(quiet(&service), Some(1));
}

/// The log service is part of the service: down, without its lock, or stuck, it is shown with the reason.
#[test]
fn a_log_service_that_takes_nothing_is_shown() {
    let service = Service::native_with_log(Server::Sync, Socket::Unix, "");
    let log = service.directory.join("log");
    let logs = service.root.join("shared/logs/service");
    let mut service = service;
    service.supervise();
    service.until("it serves", serves);
    let path = format!("{}/current", logs.display());
    let sv = |command: &str| {
        let done = Command::new("sv").args(["-w", "20", command]).arg(&log).output().expect("sv");
        assert!(done.status.success(), "{}", said(&done));
    };
    let shows = |words: &[&str]| {
        let (text, table, code) = shown(&service);
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, 1, "{text}");
        for word in words {
            assert!(joined.contains(word), "{word:?} is not in\n{text}");
        }
        assert!(joined.contains(&path) && joined.contains("log service "), "{text}");
        assert!(table.contains("\n! "), "{table}");
    };
    let (text, _, code) = shown(&service);
    assert!(code == 0 && text.contains(&path) && text.contains("log service    run: "), "{text}");

    sv("down");
    shows(&["the log service is down", "sv up"]);
    // Another process has its lock: svlogd ends at once, again and again.
    let lock = fs::OpenOptions::new().write(true).open(logs.join("lock")).expect("the lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    let _ = Command::new("sv").args(["-w", "0", "up"]).arg(&log).output();
    support::runsv::until_recorded(&log, "it is to be up", |found| found.wanted == b'u');
    shows(&[&format!("process {} holds its lock", std::process::id())]);
    drop(lock);
    until_well_again(&service);

    // It is stopped, and the application says more than the pipe holds.
    sv("pause");
    let python = service.root.join("releases/2/wsgi.py");
    service.release(2, Release::Good);
    let good = fs::read_to_string(&python).expect("wsgi.py");
    fs::write(
        &python,
        format!("import sys\nfor _ in range(3000):\n    print('x' * 100, file=sys.stderr)\n{good}"),
    )
    .expect("wsgi.py");
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service
        .until("lines are dropped", |service| state(service)["dropped"]["lines_since"].as_u64() > Some(500));
    let hint = format!("`sv status {}`", log.display());
    shows(&[
        "lines for the log dropped in the last",
        "it is full",
        "is stopped",
        "sv cont",
        &hint,
        "lines are being dropped since",
    ]);
    assert_eq!(state(&service)["state"], "degraded");
    let number = |service: &Service| state(service)["dropped"]["lines"].as_u64().expect("a number");
    let before = number(&service);
    sv("cont");
    until_well_again(&service);
    // It is degraded only while lines are dropped; what was dropped is shown, also by the next keeper and the next run.
    let is_over = |service: &Service| {
        let state = state(service);
        state["state"] == "serving"
            && state["dropped"]["since"].is_null()
            && shown(service).0.contains("  log lines      ")
    };
    assert!(is_over(&service) && number(&service) >= before, "{}", shown(&service).0);
    let written = fs::read_to_string(logs.join("current")).expect("the log");
    assert!(written.contains("lines of the server found no room in the log"), "{written}");
    let keeper = state(&service)["keeper_pid"].clone();
    fs::remove_file(service.run_directory().join("keeper")).expect("the keeper's socket");
    service.until("another keeper", |service| state(service)["keeper_pid"] != keeper);
    assert!(is_over(&service) && number(&service) >= before, "{}", shown(&service).0);
    let runtime = state(&service)["runtime_pid"].clone();
    service.sv("kill");
    service.until("another run", |service| {
        let state = state(service);
        !state["runtime_pid"].is_null() && state["runtime_pid"] != 0 && state["runtime_pid"] != runtime
    });
    assert!(is_over(&service) && number(&service) >= before, "{}", shown(&service).0);
    let _ = service.sv("down");
}

/// The directory of the log is the application's user's, who can put links in its place.
#[test]
fn a_link_in_the_place_of_the_log_is_followed_as_the_user() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Unix, "");
    let logs = service.root.join("shared/logs/service");
    service.supervise();
    service.until("it serves", serves);
    until_well_again(&service);
    // Root's, where nobody else can look, with a lock that this process holds.
    let hidden = service.scratch().join("hidden");
    fs::create_dir(&hidden).expect("a directory");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).expect("its mode");
    let lock = fs::File::create(hidden.join("lock")).expect("a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    let aside = logs.with_file_name("aside");
    fs::rename(&logs, &aside).expect("the log");
    symlink(&hidden, &logs).expect("a link");
    let (text, _, code) = shown(&service);
    let text = joined(&text);
    assert!(code == 1 && text.contains("cannot follow the link"), "{text}");
    assert!(!text.contains(&format!("process {} holds", std::process::id())), "{text}");
    // Where the user can look, svlogd's lock is found.
    fs::remove_file(&logs).expect("the link");
    symlink(&aside, &logs).expect("a link");
    let (text, _, code) = shown(&service);
    assert_eq!(code, 0, "{text}");
    let _ = service.sv("down");
}

/// Where there is no log service, too, it is said where the log is.
#[test]
fn the_place_of_the_log_is_always_shown() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    assert!(shown(&service).0.contains("  log            none of its own"));
    service.down();
    let files = Service::native_with_log(Server::Sync, Socket::Unix, "log: {kind: files}\n");
    let text = shown(&files).0;
    assert!(
        text.contains(&format!("  log            {}", files.root.join("shared/logs").display())),
        "{text}"
    );
    assert!(Path::new(&files.root.join("shared/logs")).is_dir());
}

/// A server that is made to reload by hand may follow `current`: `status` does not name the old release alone then.
#[test]
fn a_reload_by_hand_is_shown() {
    for server in [Server::Sync, Server::Unicorn] {
        let mut service = Service::native(server, Socket::Unix, "");
        service.rewrite(|pillar| {
            let pillar = pillar.replace("worker_class: sync", "worker_class: sync, preload_app: false");
            pillar.replace("worker_processes: 3", "worker_processes: 3, preload_app: false")
        });
        let service = service.started();
        let master = service.master();
        let before = workers(master);
        service.release(2, Release::Good);
        service.switch(2);
        kill(master, Signal::HUP);
        service.until("the workers are others", |service| {
            let now = workers(master);
            now.len() == WORKERS
                && !now.iter().any(|worker| before.contains(worker))
                && state(service)["serving"]["workers_ready"] == WORKERS
        });
        let answers: std::collections::BTreeSet<String> = (0..20).map(|_| service.version()).collect();
        let shown_release = state(&service)["serving"]["release"].as_str().map(str::to_owned);
        assert!(shown_release.is_some_and(|release| release.ends_with("/releases/1")));
        let problem = problems(&service, "release");
        if answers.contains("2") {
            assert!(problem[0].contains("/releases/2,") && problem[0].contains("/releases/1"), "{problem:?}");
            let (text, _, code) = shown(&service);
            assert!(code == 1 && text.contains("reload by hand"), "{text}");
        } else {
            assert!(problem.is_empty(), "{answers:?}, and {problem:?}");
        }
        let end = service.deploy(2, Release::Good);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        assert!(problems(&service, "release").is_empty());
        service.down();
    }
}

/// The text in one line, as it was before it was wrapped.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The Unix socket of a service.
fn socket(service: &Service) -> PathBuf {
    service.root.join("shared/sockets/web.sock")
}

/// Mode, user and group of a file.
fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).expect("a file");
    (found.mode() & 0o7777, found.uid(), found.gid())
}

/// Waits until one generation with this number serves and nobody has to do anything.
fn until_well(service: &Service, generation: u32) {
    service.until("it is well again", |service| {
        let state = state(service);
        state["state"] == "serving"
            && state["serving"]["generation"] == generation
            && state["problems"].as_array().is_some_and(Vec::is_empty)
    });
}

/// A Unix socket whose file somebody removes, or replaces by another file's name, is opened again, and what serves is started
/// again with it: not what merely lies on disk. Afterwards `status` shows why.
#[test]
fn a_socket_that_is_removed_is_opened_again() {
    for server in [Server::Sync, Server::Unicorn] {
        let service = Service::start_native(server, Socket::Unix, "");
        let path = socket(&service);
        let before = owner(&path);
        // Nobody has deployed it.
        service.release(2, Release::Good);
        service.switch(2);
        fs::remove_file(&path).expect("the socket");
        until_well(&service, 2);
        assert_eq!((service.version().as_str(), owner(&path)), ("1", before));
        let last = state(&service)["last"].clone();
        let because = format!("the file of unix:{} was removed or replaced", path.display());
        assert!(last["done"] == true && last["because"] == because.as_str(), "{last}");
        let (text, _, code) = shown(&service);
        assert!(code == 0 && joined(&text).contains(&format!("; started because {because}")), "{text}");
        assert!(text.contains("1 unplanned") && text.contains("not yet used"), "{text}");

        let elsewhere = service.root.join("shared/elsewhere");
        fs::rename(&path, &elsewhere).expect("the socket");
        until_well(&service, 3);
        assert_eq!((service.version().as_str(), owner(&path)), ("1", before));
        fs::remove_file(elsewhere).expect("the old socket");
        let end = service.deploy(2, Release::Good);
        assert!(end.text.contains("done:") && service.version() == "2", "{}", service.log.text(0));
        assert_eq!(state(&service)["last"]["because"], serde_json::Value::Null);
        service.down();
    }
}

/// What is in the socket's place, or has become of its directory, is shown, left alone, and tried again.
#[test]
fn a_socket_that_cannot_be_opened_again_is_shown() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let path = socket(&service);
    let foreign = service.root.join("shared/foreign");
    fs::write(&foreign, "precious").expect("a file");
    fs::rename(&foreign, &path).expect("a file in its place");
    until_state(&service, "degraded");
    let (text, table, code) = shown(&service);
    assert_eq!((code, quiet(&service)), (1, Some(1)));
    for words in
        ["nobody can connect to unix:", "a file that is no socket is in its place; remove it", "retrying in "]
    {
        assert!(joined(&text).contains(words), "{words:?} is not in\n{text}");
    }
    assert!(text.contains(": DEGRADED\n") && table.contains("\n! "), "{text}{table}");
    assert_eq!(problems(&service, "socket").len(), 1);
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    fs::remove_file(&path).expect("the file");
    until_well(&service, 2);
    assert_eq!(service.version(), "1");

    let (sockets, moved) = (service.root.join("shared/sockets"), service.root.join("shared/moved"));
    fs::rename(&sockets, &moved).expect("the directory");
    service.until("it is shown", |service| {
        problems(service, "socket").iter().any(|message| message.contains("its directory is not there"))
    });
    assert_eq!(shown(&service).2, 1);
    // With the directory the same socket comes back.
    fs::rename(&moved, &sockets).expect("the directory");
    until_well(&service, 2);
    assert_eq!(service.version(), "1");
    service.down();
}

/// What serves cannot be started again: the hand-over is backed out, what serves is not called bad for that, and it is tried
/// again by itself.
#[test]
fn a_replacement_that_is_backed_out_is_shown_and_tried_again() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let file = service.root.join("releases/1/wsgi.py");
    let good = fs::read_to_string(&file).expect("wsgi.py");
    fs::write(&file, format!("import there_is_no_such_module\n{good}")).expect("wsgi.py");
    fs::remove_file(socket(&service)).expect("the socket");
    service.until("it is shown", |service| {
        let state = state(service);
        let message = problems(service, "socket");
        state["state"] == "degraded"
            && message.iter().any(|one| one.contains("No module named 'there_is_no_such_module'"))
    });
    let (text, _, code) = shown(&service);
    assert_eq!((code, quiet(&service)), (1, Some(1)));
    for words in [
        "clients of unix:",
        " wait: it was opened again because",
        "generation 1 does not have it",
        "retrying in ",
    ] {
        assert!(joined(&text).contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!service.directory.join("state/failed.json").exists(), "{}", service.log.text(0));
    fs::write(&file, good).expect("wsgi.py");
    service.until("another one serves", |service| {
        let state = state(service);
        state["state"] == "serving" && state["serving"]["generation"].as_u64() > Some(1)
    });
    assert_eq!((shown(&service).2, service.version().as_str()), (0, "1"));
    service.down();
}

/// The runtime is killed between the loss of the socket and the hand-over: the next run does it.
#[test]
fn a_socket_that_is_removed_while_no_runtime_is_there() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "");
    let mark = service.log.mark();
    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    fs::remove_file(socket(&service)).expect("the socket");
    kill(runtime, Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    until_well(&service, 2);
    assert_eq!(service.version(), "1");

    // And in the middle of it: the socket is open again, and no generation has it yet.
    let go = service.scratch().join("slow");
    let file = service.root.join("releases/1/wsgi.py");
    let good = fs::read_to_string(&file).expect("wsgi.py");
    fs::write(&go, "").expect("a flag");
    fs::write(&file, format!("import os, time\nwhile os.path.exists({go:?}): time.sleep(0.02)\n{good}"))
        .expect("wsgi.py");
    fs::remove_file(socket(&service)).expect("the socket");
    service.until("a successor loads", |service| state(service)["candidate"]["generation"] == 3);
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    fs::remove_file(&go).expect("the flag");
    service.until("it is well again", |service| {
        let state = state(service);
        state["state"] == "serving" && state["serving"]["generation"].as_u64() > Some(3)
    });
    assert_eq!((shown(&service).2, service.version().as_str()), (0, "1"));
    service.down();
}

/// With USR2 the server owns its sockets and passes the old ones on, so only a new start opens them again.
#[test]
fn a_socket_of_usr2_that_is_removed_is_shown() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "handoff: {strategy: usr2}");
    assert_eq!(shown(&service).2, 0);
    let mark = service.log.mark();
    fs::remove_file(socket(&service)).expect("the socket");
    service.log.wait(mark, &["the server owns its sockets"], SOON);
    until_state(&service, "degraded");
    let (text, _, code) = shown(&service);
    assert!(
        code == 1 && joined(&text).contains("with `strategy: usr2` the server owns its sockets"),
        "{text}"
    );
    service.sv("down");
    service.sv("up");
    until_well_again(&service);
    assert_eq!(service.version(), "1");
    service.down();
}

/// Lines of `upgrade` fit 80 columns, but for commands, which can be copied.
fn assert_narrow(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        for line in String::from_utf8_lossy(text).lines() {
            let is_command = line.trim_start().starts_with('`');
            assert!(line.chars().count() <= 80 || is_command, "{line:?} is wider than 80 columns");
        }
    }
}

/// Whoever waits with `--proven` learns at the end what serves: its generation has failed on probation, and another one serves.
#[test]
fn a_failure_on_probation_ends_with_what_serves() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    let mark = service.log.mark();
    service.release(2, Release::Good);
    service.switch(2);
    let asked = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["upgrade", "--proven"])
        .arg(&service.directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runsmith");
    service.log.wait(mark, &["done: generation 2 serves alone"], START);
    kill(service.master(), Signal::KILL);
    let output = asked.wait_with_output().expect("runsmith");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = unfolded(&output.stdout);
    let release = service.root.join("releases/1");
    let expected = format!(
        "{}: failed: generation 2 failed on probation: its master was ended by signal 9 (KILL); generation 3, release {}, serves now\n",
        service.name,
        release.display()
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains(&format!("`runsmith upgrade {}`", service.directory.display())), "{text}");
    assert_narrow(&output);
    assert_eq!(service.version(), "1");
    service.down();
}

/// A master that is killed while another generation gets ready was not asked to end: that counts.
#[test]
fn a_death_during_a_hand_over_counts() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let mark = service.begin_deploy(2, Release::Waiting);
    service.log.wait(mark, &["generation 2 is master"], START);
    let masters = state(&service)["serving"]["master"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    kill(masters.expect("a master"), Signal::KILL);
    service.log.wait(mark, &["the master of generation 1 was ended"], SOON);
    service.go();
    service.log.wait(mark, &["done: generation 2"], START);
    assert_eq!(state(&service)["restarts"], 1);
    service.down();
}

/// Giving up a hand-over says that another one, which was queued, begins.
#[test]
fn giving_up_names_what_is_queued() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let mark = service.begin_deploy(2, Release::Waiting);
    service.log.wait(mark, &["generation 2 is master"], START);
    service.sv("2");
    service.log.wait(mark, &["another hand-over follows this one"], SOON);
    let output = service.runsmith(&["upgrade", "--abort"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("given up; generation 1 goes on serving"), "{}", said(&output));
    assert!(
        said(&output).contains("another upgrade was requested meanwhile and begins now"),
        "{}",
        said(&output)
    );
    assert_narrow(&output);
    service.go();
    service.log.wait(mark, &["done: generation 3"], START);
    let output = service.runsmith(&["upgrade", "--abort"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    service.down();
}

/// runsv was killed: its runtime leaves, the application serves on, and nothing calls that down.
#[test]
fn an_application_without_a_runtime_is_no_outage() {
    let mut service = Service::start_native(Server::Sync, Socket::Unix, "");
    let master = service.master();
    let mark = service.log.mark();
    service.kill_runsv();
    service.log.wait(mark, &["this run ends, the application goes on"], SOON);
    service.until("the runtime has left", |service| state(service)["runtime_pid"] == 0);
    let (text, table, code) = shown(&service);
    assert!(
        code == 1 && text.contains(": UNSUPERVISED\n") && table.contains(" UNSUPERVISED "),
        "{text}{table}"
    );
    assert!(text.contains(&format!("generation 1, master {master}, 3/3 workers")), "{text}");
    let start = format!("`runsv {}`", service.directory.display());
    assert!(text.contains("the application serves, but no runtime") && text.contains(&start), "{text}");
    let state_now = state(&service);
    assert_eq!(
        (&state_now["state"], &state_now["serving"]["master"]),
        (&"unsupervised".into(), &master.into())
    );
    assert_eq!(service.version(), "1");
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("generation 1 goes on serving") && said(&output).contains(&start),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("sv up"), "{}", said(&output));
    assert_narrow(&output);

    service.supervise();
    service.log.wait(0, &["goes on under this run"], START);
    assert_eq!(shown(&service).2, 0);
    assert_eq!(service.master(), master);
    service.down();
}

/// A runtime that is killed while the old generation finishes its requests: the next one knows of the hand-over.
#[test]
fn a_hand_over_is_not_forgotten_by_adoption() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "");
    service.hold();
    let address = service.address.clone();
    let held = std::thread::spawn(move || address.get("/held"));
    service.until("the request is in hand", |service| {
        service.user.processes().iter().any(|one| one.lives()) && service.address.get("/").is_ok()
    });
    let mark = service.begin_deploy(2, Release::Good);
    service.log.wait(mark, &["ready: generation 2 serves"], START);
    let is_draining = state(&service)["state"] == "draining";
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], START);
    service.let_go();
    let _ = held.join().expect("a thread");
    until_state(&service, "serving");
    let last = state(&service)["last"].clone();
    assert_eq!(
        (&last["generation"], &last["from"], &last["done"]),
        (&2.into(), &1.into(), &true.into()),
        "{is_draining}"
    );
    service.down();
}

/// What is on disk and was never deployed is not forgotten by a start that nobody asked for.
#[test]
fn what_is_not_deployed_is_shown_after_a_crash() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "restart: {min_uptime: 0.5}\n");
    service.supervise();
    service.log.wait(0, &["runsmith: proven:"], START);
    assert_eq!(state(&service)["newer"], serde_json::json!([]));
    service.edit_run(|text| text.replace("backoff_initial: 1\n", "backoff_initial: 2\n"));
    let run = service.directory.join("run").display().to_string();
    let is_newer = |service: &Service| {
        state(service)["newer"].as_array().is_some_and(|all| all.iter().any(|path| *path == run.as_str()))
    };
    assert!(is_newer(&service), "{}", state(&service));
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 2 serves"], START);
    service.until("it has settled", serves);
    assert!(is_newer(&service), "{}", state(&service));
    let text = shown(&service).0;
    assert!(
        text.contains("not yet used")
            && text.contains(&format!("`runsmith upgrade {}`", service.directory.display())),
        "{text}"
    );
    service.down();
}

/// A release whose workers load while the flag is not there, and exit with code 7 so many seconds after their start if it is.
fn with_dying_workers(server: Server, seconds: &str, more: &str) -> (Service, std::path::PathBuf) {
    let mut service = Service::native(server, Socket::Unix, more);
    service.rewrite(|pillar| {
        let pillar = pillar.replace("worker_class: sync", "worker_class: sync, preload_app: false");
        pillar.replace("worker_processes: 3", "worker_processes: 3, preload_app: false")
    });
    let flag = service.scratch().join("dies");
    let python = format!(
        "import os, time\nif os.path.exists({flag:?}):\n    time.sleep({seconds})\n    os._exit(7)\n"
    );
    let ruby = format!("if File.exist?({flag:?})\n  sleep {seconds}\n  exit!(7)\nend\n");
    service.release_with(1, &python, &ruby);
    (service.started(), flag)
}

/// Some workers of a generation that serves die again and again while they load: that is shown at once, and not only once no
/// worker has been ready for long enough.
#[test]
fn workers_that_go_on_dying_are_shown() {
    for (server, words) in [(Server::Sync, "exited with code 7"), (Server::Unicorn, "exit 7")] {
        let (service, flag) = with_dying_workers(server, "0.1", "restart: {min_uptime: 0.5}\n");
        service.log.wait(0, &["runsmith: proven:"], SOON);
        fs::write(&flag, "").expect("a flag");
        kill(workers(service.master())[0], Signal::KILL);
        service.until("the deaths are shown", |service| {
            problems(service, "workers").iter().any(|message| {
                message.contains("exited before they had loaded the application") && message.contains(words)
            })
        });
        let (text, table, code) = shown(&service);
        assert!(code == 1 && text.contains(": DEGRADED\n") && table.contains("DEGRADED"), "{text}{table}");
        // It serves with what is left, and is proven: nobody takes it away.
        assert_eq!(service.version(), "1");
        fs::remove_file(&flag).expect("the flag");
        until_state(&service, "serving");
        assert_eq!((shown(&service).2, state(&service)["restarts"].clone()), (0, 0.into()));
        service.down();
    }
}

/// A generation is not proven while its workers go on dying: so it is still on probation when too many have.
#[test]
fn a_generation_whose_workers_die_is_not_proven() {
    let (service, flag) = with_dying_workers(Server::Sync, "2.5", "restart: {min_uptime: 12}\n");
    fs::write(&flag, "").expect("a flag");
    kill(workers(service.master())[0], Signal::KILL);
    service.log.wait(0, &["generation 1 FAILED on probation: 5 of its workers exited"], START);
    assert!(!service.log.text(0).contains("proven: generation 1"), "{}", service.log.text(0));
    fs::remove_file(&flag).expect("the flag");
    service.down();
}

/// Workers that have loaded the application and die soon after, one after the other: it is not proven, and shown.
#[test]
fn workers_that_die_soon_after_they_have_loaded_are_shown() {
    for server in [Server::Sync, Server::Unicorn] {
        let service = Service::start_native(server, Socket::Tcp, "restart: {min_uptime: 20}\n");
        let flag = service.scratch().join("dying");
        let python = format!(
            "import os, threading\ndef late():\n    if os.path.exists({flag:?}): os.kill(os.getpid(), 11)\n\
             os.register_at_fork(after_in_child=lambda: threading.Timer(0.7, late).start())\n"
        );
        let ruby = format!(
            "Process.singleton_class.prepend(Module.new {{ def _fork; super.tap {{ |pid| Thread.new {{ sleep 0.7; \
             Process.kill(:KILL, Process.pid) if File.exist?({flag:?}) }} if pid == 0 }}; end }})\n"
        );
        service.release_with(2, &python, &ruby);
        service.switch(2);
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        fs::write(&flag, "").expect("a flag");
        for worker in workers(service.master()) {
            kill(worker, Signal::KILL);
        }
        service.until("the deaths are shown", |service| {
            let shown = |message: &String| message.contains("exited before or soon after they had loaded");
            problems(service, "workers").iter().any(shown) || state(service)["restarts"] == 1
        });
        service.log.wait(0, &["generation 2 FAILED on probation: 5 of its workers exited"], START);
        assert!(!service.log.text(0).contains("proven: generation 2"), "{}", service.log.text(0));
        service.until("the release before serves", |service| service.version() == "1");
        fs::remove_file(&flag).expect("the flag");
        service.down();
    }
}

/// A health check that fails while nothing better can be started.
#[test]
fn a_health_check_that_fails_is_shown() {
    let more = format!(
        "restart: {{min_uptime: 0.5}}\nhandoff: {{boot_timeout: {BOOT}, drain_timeout: 2, \
         health_check: {{path: /health, timeout: 2, interval: 0.2}}}}\n"
    );
    let service = Service::native(Server::Sync, Socket::Tcp, &more);
    let flag = service.scratch().join("sick");
    let wsgi = service.root.join("releases/1/wsgi.py");
    let text = fs::read_to_string(&wsgi).expect("a release").replace(
        "    body = ",
        &format!("    if environ['PATH_INFO'] == '/health' and os.path.exists({flag:?}): raise OSError\n    body = "),
    );
    fs::write(&wsgi, text).expect("a release");
    let service = service.started();
    service.log.wait(0, &["runsmith: proven:"], SOON);
    let code = |service: &Service| service.runsmith(&["status"]).status.code();
    assert_eq!(code(&service), Some(0));
    fs::write(&flag, "").expect("a flag");
    service.until("the failure is shown", |service| {
        problems(service, "health").iter().any(|message| message.contains("its health check has failed for"))
            && state(service)["state"] == "degraded"
    });
    assert_eq!(
        (code(&service), list(&service).status.code(), service.version().as_str()),
        (Some(1), Some(1), "1")
    );
    // It is replaced in vain, again and again: that stays visible once the check passes.
    service.until("it is replaced again and again", |service| {
        problems(service, "health").iter().any(|message| message.contains("times within 10 minutes"))
    });
    fs::remove_file(&flag).expect("the flag");
    service.until("the check passes", |service| {
        problems(service, "health").iter().all(|message| !message.contains("has failed for"))
    });
    service.down();
}

/// Processes that somebody has stopped take no requests, however many of them there are.
#[test]
fn stopped_processes_are_shown() {
    let service = Service::start_native(Server::Gthread, Socket::Unix, "");
    let master = service.master();
    let shows = |service: &Service, words: &str| {
        let (text, table, code) = shown(service);
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(code == 1 && text.contains(": DEGRADED\n") && table.contains("DEGRADED"), "{text}{table}");
        assert!(joined.contains(words), "{words:?} is not in\n{text}");
        assert_eq!(problems(service, "stopped").len(), 1);
    };
    let is_stopped = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
    };
    let stop = |pid: u32| {
        kill(pid, Signal::STOP);
        service.until("it is stopped", |_| is_stopped(pid));
    };
    stop(master);
    shows(&service, &format!("its master is stopped, by a signal: `kill -CONT {master}`"));
    kill(master, Signal::CONT);
    until_state(&service, "serving");
    assert_eq!(shown(&service).2, 0);

    let mut all = workers(master);
    all.sort_unstable();
    // The master would kill them after a while; it must not run meanwhile.
    stop(master);
    all.iter().for_each(|worker| stop(*worker));
    let pids: Vec<String> = all.iter().map(u32::to_string).collect();
    shows(&service, &format!("3 of 3 workers are stopped, by a signal: `kill -CONT {}`", pids.join(" ")));
    all.iter().chain([&master]).for_each(|pid| kill(*pid, Signal::CONT));
    until_state(&service, "serving");

    // A runtime that is stopped cannot answer; who to continue is known all the same.
    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains(&format!("`kill -CONT {runtime}`")), "{}", said(&output));
    assert_narrow(&output);
    kill(runtime, Signal::CONT);
    service.down();
}

/// After a back-out what serves is what was asked for before: nothing has fallen back.
#[test]
fn a_back_out_is_no_fallback() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    // There is nothing else to go back to.
    let now = state(&service);
    assert!(now["probation_ms"].is_u64() && now["probation_falls_back"] == false, "{now}");
    assert!(shown(&service).0.contains("on probation"));
    let end = service.deploy(2, Release::Broken);
    assert!(end.text.contains("FAILED"), "{}", end.text);
    assert_eq!(state(&service)["fallback"], serde_json::Value::Null);
    let end = service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", end.text);
    assert_eq!(state(&service)["probation_falls_back"], true);
    assert!(shown(&service).0.contains("on probation"));
    service.down();
}

/// A run script with mistakes: what serves is shown with its whole path, and the command that shows the mistakes can be copied.
#[test]
fn a_broken_run_script_hides_nothing() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    service.edit_run(|text| text.replace("\nrestart:\n", "\nrestarrt:\n"));
    let output = service.runsmith(&["status"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let release = format!(" {}\n", service.root.join("releases/1").display());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&release), "{}", said(&output));
    let check = format!("`runsmith run --check {}`", service.directory.join("run").display());
    assert!(said(&output).contains(&check), "{}", said(&output));
    service.edit_run(|text| text.replace("\nrestarrt:\n", "\nrestart:\n"));
    service.down();
}

/// The system's reasons are printed without Rust's numbers, in answers and in the log.
#[test]
fn reasons_have_no_numbers() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let text = fs::read_to_string(service.directory.join("run")).expect("run");
    let config =
        text.lines().find_map(|line| Some(line.split_once("- /")?.1).filter(|path| path.ends_with(".py")));
    fs::remove_file(format!("/{}", config.expect("a configuration"))).expect("the configuration");
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let all = format!("{}{}{}", said(&output), shown(&service).0, service.log.text(0));
    assert!(all.contains("No such file or directory") && !all.contains("os error"), "{all}");
    service.down();
}

/// With `usr2` neither master can be asked by itself: a health check is left out, as `validate` says, and nothing fails for it.
#[test]
fn a_health_check_with_usr2_has_no_effect() {
    let more = "handoff: {strategy: usr2, boot_timeout: 20, health_check: {path: /nothing-there}}\n";
    for server in [Server::Sync, Server::Unicorn] {
        let service = Service::start_native(server, Socket::Tcp, more);
        let (text, _, code) = shown(&service);
        assert!(code == 0 && text.contains("listens on"), "{text}");
        assert!(service.deploy(2, Release::Good).text.contains("done:"), "{}", service.log.text(0));
        service.down();
    }
}

/// Who closes the pipe before anything is written still learns how it went.
#[test]
fn a_closed_pipe_changes_no_exit_code() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    assert!(service.deploy(2, Release::Broken).text.contains("FAILED"));
    let links = service.scratch().join("links");
    list(&service);
    for arguments in [
        format!("status {}", service.directory.display()),
        format!("status --format json {}", service.directory.display()),
        "status".to_owned(),
        format!("upgrade {}", service.directory.display()),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(arguments.split(' '))
            .env("SVDIR", &links)
            .stdout(writer)
            .stderr(Stdio::null())
            .status()
            .expect("runsmith");
        assert_eq!(status.code(), Some(1), "{arguments}");
    }
    service.down();
}

/// The release that serves is taken away.
#[test]
fn a_release_that_is_gone_is_shown() {
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let elsewhere = service.scratch().join("elsewhere");
    fs::rename(service.root.join("releases/1"), &elsewhere).expect("a rename");
    let (text, _, code) = shown(&service);
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(code == 1 && joined.contains("is not there any more"), "{text}");
    fs::rename(elsewhere, service.root.join("releases/1")).expect("a rename");
    assert_eq!(shown(&service).2, 0);
    service.down();
}

/// A svlogd that is stopped will lose lines soon: it is shown before it does.
#[test]
fn a_stopped_svlogd_is_shown() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Unix, "");
    service.supervise();
    service.until("it serves", serves);
    let pid = service.svlogd();
    kill(pid, Signal::STOP);
    service.until("it is stopped", |_| Process::read(pid).is_some_and(|one| one.state == 'T'));
    let output = service.runsmith(&["status"]);
    assert!(
        output.status.code() == Some(1) && said(&output).contains("is stopped; `sv cont"),
        "{}",
        said(&output)
    );
    kill(pid, Signal::CONT);
    assert_eq!(service.runsmith(&["status"]).status.code(), Some(0));
    service.sv("down");
}
