//! A live service is applied over and over under load: nothing of it is restarted, no request fails.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::process::Command;

use support::load::Load;
use support::service::{Server, Service, Socket};

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
