//! What a runsv wants, asked of a real one, and of what it leaves behind.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runsmith::runtime::linux::process::Process;
use runsmith::runtime::linux::runsv::{Wanted, wanted, was_wanted};

/// How long the service runs that nobody stops, in seconds: longer than the test on any machine, and not for ever.
const LIFE: u32 = 600;

/// A runsv and its service, both ended with it.
struct Supervised {
    runsv: Child,
    directory: String,
}

impl Supervised {
    /// Starts a runsv and waits until it has recorded that its service runs.
    fn start(directory: &str) -> Self {
        let runsv = Command::new("runsv").arg(directory).stdin(Stdio::null()).spawn().unwrap();
        let started = Self { runsv, directory: directory.to_owned() };
        support::runsv::until_supervised(Path::new(directory));
        support::runsv::running(Path::new(directory));
        started
    }

    fn sv(&self, verb: &str) {
        let output = support::runsv::sv(Path::new(&self.directory), verb, 60);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn kill_runsv(&mut self) {
        self.runsv.kill().unwrap();
        self.runsv.wait().unwrap();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.runsv.kill();
        let _ = self.runsv.wait();
        let pid = fs::read_to_string(format!("{}/supervise/pid", self.directory)).unwrap_or_default();
        if let Some(service) = pid.trim().parse().ok().and_then(Process::open) {
            let _ = Command::new("kill").args(["-KILL", &service.pid.to_string()]).status();
        }
    }
}

#[test]
fn a_runsv_that_is_dead_wants_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("web");
    fs::create_dir(&directory).unwrap();
    let run = directory.join("run");
    fs::write(&run, format!("#!/bin/sh\nexec sleep {LIFE}\n")).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let directory = directory.to_str().unwrap();
    assert_eq!(wanted(directory), Wanted::Unknown, "nobody has been there");

    let mut supervised = Supervised::start(directory);
    assert_eq!(wanted(directory), Wanted::Up);
    supervised.kill_runsv();
    assert_eq!(fs::read(format!("{directory}/supervise/status")).unwrap()[17], b'u', "what runsv left");
    assert_eq!(wanted(directory), Wanted::Unknown, "runsv is dead");
    assert!(was_wanted(directory), "it did not say that it is no longer wanted");
    drop(supervised);

    let supervised = Supervised::start(directory);
    assert_eq!(wanted(directory), Wanted::Up, "another one is there");
    supervised.sv("down");
    assert_eq!(wanted(directory), Wanted::Down);
    supervised.sv("exit");
    assert_eq!(wanted(directory), Wanted::Unknown, "runsv has ended");
    assert!(!was_wanted(directory), "nor did anybody want it");
}
