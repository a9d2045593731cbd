//! The gist's five values give a complete service: its scripts are quiet under shellcheck, its configuration is
//! accepted by the servers, and a real runsvdir runs it. The other servers and run scripts likewise.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::Signal;
use support::host::{User, forget, free_port, kill, require, run, virtualenv};
use support::load::Address;
use support::{START, STOP};

/// As the gist has it: nothing else is said.
fn five(user: &str, home: &str) -> String {
    format!(
        "application: leaderboards\nuser: {user}\ngroup: {user}\nvirtualenv_home: {home}\nunicorn_command: gunicorn\n"
    )
}

/// A directory that every user may enter.
fn scratch() -> tempfile::TempDir {
    let scratch = tempfile::Builder::new().prefix("rsg").tempdir().expect("a scratch directory");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    scratch
}

fn render(pillar: &str, scratch: &Path, out: &str) {
    let file = scratch.join("pillar.yaml");
    fs::write(&file, pillar).expect("the pillar");
    run(env!("CARGO_BIN_EXE_runsmith"), &["render", "--out", out, file.to_str().expect("UTF-8")]);
}

/// Every script of a tree, by its first line.
fn scripts(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            scripts(&path, found);
        } else if kind.is_file() {
            let text = fs::read_to_string(&path).expect("a text");
            if text.starts_with("#!/bin/sh\n") || text.starts_with("#!/bin/bash\n") {
                found.push(path.to_str().expect("UTF-8").to_owned());
            }
        }
    }
}

/// Servers, run scripts, and how many scripts of sh or bash belong to them: run, finish, check, log/run.
/// A shell run script for any program is not there, since a shell cannot hold sockets.
const KINDS: [(&str, &str, usize); 5] = [
    ("gunicorn", "native", 3),
    ("gunicorn", "shell", 4),
    ("unicorn", "native", 3),
    ("unicorn", "shell", 4),
    ("any", "native", 3),
];

#[test]
fn every_script_is_quiet_under_shellcheck() {
    let user = User::new();
    for (server, kind, count) in KINDS {
        let scratch = scratch();
        let mut pillar = five(&user.name, "/home/deploy");
        pillar.push_str(&format!("run_script: {kind}\n"));
        if server != "gunicorn" {
            pillar.push_str(&format!("server: {server}\n"));
        }
        let out = scratch.path().join("out");
        fs::create_dir(&out).expect("a directory");
        render(&pillar, scratch.path(), out.to_str().expect("UTF-8"));
        let mut found = vec![];
        scripts(&out, &mut found);
        assert_eq!(found.len(), count, "{server}, {kind}: {found:?}");
        let words: Vec<&str> =
            ["--severity=style"].into_iter().chain(found.iter().map(String::as_str)).collect();
        assert_eq!(run("shellcheck", &words), "", "{server}, {kind}");
        if kind == "native" {
            let script = out.join("etc/sv/leaderboards/run");
            support::host::proves(env!("CARGO_BIN_EXE_runsmith"), &script);
        }
    }
}

/// A service of the five values, with all its places in a scratch directory.
struct Place {
    // Ends its processes before the directory goes.
    user: User,
    port: u16,
    scratch: tempfile::TempDir,
}

impl Place {
    fn new(server: &str, kind: &str) -> Self {
        let venv = virtualenv("gunicorn");
        require("gunicorn's virtualenv", &venv.join("bin/gunicorn"));
        let (user, scratch, port) = (User::new(), scratch(), free_port());
        let at = scratch.path().to_str().expect("UTF-8");
        fs::create_dir(scratch.path().join(".virtualenvs")).expect("a directory");
        symlink(&venv, scratch.path().join(".virtualenvs/leaderboards")).expect("a link");
        let mut pillar = five(&user.name, at);
        if server == "unicorn" {
            pillar = pillar.replace("unicorn_command: gunicorn", "unicorn_command: unicorn");
        }
        pillar.push_str(&format!(
            "run_script: {kind}\nhome: {at}\nroot: {at}/root\nbind: 127.0.0.1:{port}\nlayout: {{run: {at}/run}}\n\
             service: {{directory: {at}/sv, link: {at}/service}}\n"
        ));
        render(&pillar, scratch.path(), "/");
        let release = scratch.path().join("root/releases/1");
        fs::create_dir(&release).expect("a release");
        fs::write(
            release.join("wsgi.py"),
            "def app(environ, start_response):\n    start_response('200 OK', [('Content-Length', '5')])\n    return [b'hello']\n",
        )
        .expect("wsgi.py");
        fs::write(release.join("config.ru"), "run ->(_) { [200, {}, ['hello']] }\n").expect("config.ru");
        symlink("releases/1", scratch.path().join("root/current")).expect("a link");
        Self { user, port, scratch }
    }

    fn path(&self, below: &str) -> String {
        self.scratch.path().join(below).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        forget("leaderboards");
    }
}

#[test]
fn gunicorn_accepts_its_configuration() {
    for kind in ["native", "shell"] {
        let place = Place::new("gunicorn", kind);
        let gunicorn = place.path(".virtualenvs/leaderboards/bin/gunicorn");
        // As the application's user, in the release, without a locale: as it is started.
        let words = [
            &gunicorn,
            "--check-config",
            "-c",
            &place.path("root/shared/runsmith/gunicorn.py"),
            "--",
            "wsgi:app",
        ];
        let script = "cd \"$0\" && exec env -i PYTHONDONTWRITEBYTECODE=1 chpst -u \"$@\"";
        let current = place.path("root/current");
        let all: Vec<&str> = ["-c", script, &current, &place.user.name].into_iter().chain(words).collect();
        run("sh", &all);
    }
}

#[test]
fn ruby_accepts_unicorns_configuration() {
    for kind in ["native", "shell"] {
        let place = Place::new("unicorn", kind);
        let config = place.path("root/shared/runsmith/unicorn.rb");
        assert_eq!(run("ruby", &["-wc", &config]), "Syntax OK\n");
        let load = "require 'unicorn'; puts Unicorn::Configurator.new(config_file: ARGV[0]).set[:listeners]";
        let listeners =
            run("env", &["LC_ALL=C", "chpst", "-u", &place.user.name, "ruby", "-e", load, &config]);
        assert_eq!(listeners, format!("127.0.0.1:{}\n", place.port));
    }
}

/// runsvdir with everything below it. Dropping it stops all of that.
struct Supervisor {
    runsvdir: Child,
    service: String,
}

impl Supervisor {
    fn start(place: &Place) -> Self {
        let service = place.path("sv/leaderboards");
        let runsvdir = Command::new("runsvdir").arg(place.path("service")).spawn();
        let runsvdir = runsvdir.unwrap_or_else(|error| panic!("runsvdir: {error}; run scripts/setup"));
        let supervisor = Self { runsvdir, service };
        support::runsv::until_answers(Path::new(&supervisor.service));
        supervisor
    }

    fn sv(&self, limit: std::time::Duration, command: &str) -> std::process::Output {
        Command::new("sv")
            .args(["-w", &limit.as_secs().to_string(), command, &self.service])
            .output()
            .expect("sv")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // First the one that would start them again; at HUP it tells each runsv to end, with its service and log.
        let _ = self.sv(STOP, "force-stop");
        kill(self.runsvdir.id(), Signal::HUP);
        let _ = self.runsvdir.wait();
        let _ = self.sv(STOP, "force-shutdown");
    }
}

#[test]
fn runsvdir_starts_it_and_it_answers() {
    let place = Place::new("gunicorn", "shell");
    let log = place.path("root/shared/logs/service/current");
    let supervisor = Supervisor::start(&place);
    let started = supervisor.sv(START, "start");
    let told = || fs::read_to_string(&log).unwrap_or_default();
    assert!(started.status.success(), "{}\n{}", String::from_utf8_lossy(&started.stdout), told());
    assert_eq!(Address::Tcp(place.port).get("/").expect("an answer"), "hello", "{}", told());
    let stopped = supervisor.sv(STOP, "stop");
    assert!(stopped.status.success(), "{}\n{}", String::from_utf8_lossy(&stopped.stdout), told());
    assert!(Address::Tcp(place.port).get("/").is_err(), "nobody answers once it is down");
    drop(supervisor);
    // gunicorn writes it after the answer; now that svlogd has ended, it is there.
    assert!(told().contains("GET / HTTP/1.1"), "svlogd has the access log:\n{}", told());
    assert!(place.user.processes().is_empty(), "left behind: {:?}\n{}", place.user.processes(), told());
}
