//! A live service is applied over and over under load: nothing of it is restarted, no request fails.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::process::Command;

use support::load::Load;
use support::service::{Release, Server, Service, Socket};

/// How often it is applied.
const TIMES: u32 = 100;

#[test]
fn a_live_service_that_is_applied_a_hundred_times_goes_on() {
    let service = Service::start(Server::Gthread, Socket::Unix, "");
    let (master, inode) = (service.master(), service.inode());
    let pid = || service.runtime();
    let run = || fs::read(service.directory.join("run")).unwrap();
    let (before, script) = (pid(), run());
    let mark = service.log.mark();
    let load = Load::start(&service.address, 8, 2);
    let pillar = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let mut changed = 0;
    for round in 0..TIMES {
        // The server's configuration changes every other time, and is replaced under the server's feet.
        let timeout = 60 + round / 2 % 2;
        let text = service.pillar().replace("threads: 4", &format!("threads: 4, timeout: {timeout}"));
        fs::write(pillar.path(), text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(["render", "--out", "/", "--prune", "--set", &service.name])
            .arg(pillar.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        changed += u32::from(said.contains("gunicorn.py: content"));
    }
    let seen = load.finish_after(1000);
    assert!(changed >= TIMES / 4, "the configuration changed only {changed} times");
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    assert_eq!((pid(), service.master(), service.inode()), (before, master, inode));
    assert!(run() == script, "the run script was not to change");
    assert_eq!(service.log.count(mark, "runsmith: "), 0, "{}", service.log.text(mark));
    println!("{} requests, 0 failed, {changed} of {TIMES} runs changed something", seen.answers.len());
    service.down();
}

/// Renders the service's pillar with its configuration at a place below its root, or at the default one, as a configuration
/// management does; gives what is printed.
fn apply(service: &Service, config: Option<&str>) -> String {
    let pillar = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let layout = config.map_or_else(String::new, |path| format!(", config: {path}"));
    let text = service.pillar().replace("/run}\n", &format!("/run{layout}}}\n"));
    fs::write(pillar.path(), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["render", "--out", "/", "--prune", "--set", &service.name])
        .arg(pillar.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The configuration moves to its place below `shared/runsmith`, where an earlier version had it below `shared/config`: what
/// runs goes on, hands over, and keeps the old file for as long as a generation lives that may read it again.
fn moves(service: Service, name: &str, is_usr2: bool) {
    apply(&service, Some("shared/config"));
    let (old, new) = (service.root.join("shared/config"), service.root.join("shared/runsmith"));
    assert!(old.join(name).exists() && !new.exists());
    fs::write(old.join("master.key"), "the team's").unwrap();
    let service = service.started();
    let master = service.master();
    let load = Load::start(&service.address, 4, 2);
    let said = apply(&service, None);
    assert!(said.contains(&format!("note: kept {}: ", old.join(name).display())), "{said}");
    assert!(said.contains("was started with it and still runs") && !said.contains("to be removed"), "{said}");
    assert!(old.join(name).exists() && new.join(name).exists());
    assert_eq!(service.master(), master);
    service.deploy(2, Release::Good);
    assert_eq!(service.version(), "2");
    let said = apply(&service, None);
    // It still is what USR2 starts again.
    assert_eq!(old.join(name).exists(), is_usr2, "{said}");
    service.deploy(3, Release::Good);
    assert_eq!(service.version(), "3");
    let seen = load.finish_after(100);
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    service.down();
    apply(&service, None);
    assert!(!old.join(name).exists() && old.join("master.key").exists());
    assert!(new.join(name).exists());
}

#[test]
fn a_configuration_moves_to_its_own_place_and_what_runs_goes_on() {
    moves(Service::native(Server::Gthread, Socket::Unix, ""), "gunicorn.py", false);
    moves(Service::native(Server::Unicorn, Socket::Tcp, ""), "unicorn.rb", false);
}

#[test]
fn a_configuration_that_usr2_needs_stays_until_its_server_has_ended() {
    moves(Service::native(Server::Unicorn, Socket::Tcp, "handoff: {strategy: usr2}\n"), "unicorn.rb", true);
    moves(Service::render(Server::Sync, Socket::Tcp, ""), "gunicorn.py", true);
}
