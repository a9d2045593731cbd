//! `validate --host` on this host: real users, a real gunicorn, an old one, unicorn, a service that
//! runs under runsv, and what others have planted.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use runsmith::rule::{self, Family};
use rustix::process::Signal;
use serde_json::Value;
use support::STOP;
use support::host::{User, free_port, kill, require, virtualenv};
use support::service::{Release, Server, Service, Socket};

/// A finding: rule, severity, line, message and help.
#[derive(Clone, Debug)]
struct Found {
    rule: String,
    severity: String,
    line: u64,
    text: String,
}

fn found(output: &Output) -> Vec<Found> {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Where the test's directories lie is none of these rules' business.
    findings
        .filter(|finding| text(&finding["rule"]).starts_with("host-"))
        .map(|finding| Found {
            rule: text(&finding["rule"]),
            severity: text(&finding["severity"]),
            line: finding["place"]["line"].as_u64().unwrap_or_default(),
            text: format!("{} {}", text(&finding["message"]), finding["help"]),
        })
        .collect()
}

/// A user, its directories, and a pillar of lines.
struct Scratch {
    directory: tempfile::TempDir,
    user: User,
    port: u16,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("rst").tempdir().unwrap();
        let scratch = Self { directory, user: User::new(), port: free_port() };
        scratch.make("", 0o755);
        scratch.make("home", 0o755);
        scratch.make("root", 0o755);
        scratch.make("root/releases", 0o755);
        scratch.make("root/releases/1", 0o755);
        scratch.application("def app(environ, start_response):\n    pass\n");
        scratch.write("root/releases/1/config.ru", "run lambda { |env| [200, {}, []] }\n", 0o644);
        symlink("releases/1", scratch.path("root/current")).unwrap();
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn make(&self, name: &str, mode: u32) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What `wsgi:app` is.
    fn application(&self, text: &str) {
        self.write("root/releases/1/wsgi.py", text, 0o644);
    }

    /// A pillar with which nothing is wrong; `change` replaces or adds top-level lines.
    fn pillar(&self, change: &[&str]) -> String {
        let mut lines = vec![
            "application: web".to_owned(),
            format!("user: {}", self.user.name),
            format!("home: {}", self.text("home")),
            format!("root: {}", self.text("root")),
            format!("virtualenv: {}", virtualenv("gunicorn").display()),
            format!("bind: 127.0.0.1:{}", self.port),
            "run_script: shell".to_owned(),
            "limits: {nofile: 64}".to_owned(),
            format!("layout: {{run: {}}}", self.text("run")),
            format!("service: {{directory: {}, link: {}}}", self.text("sv"), self.text("service")),
        ];
        for line in change {
            let key = line.split(':').next().unwrap();
            match lines.iter_mut().find(|known| known.split(':').next() == Some(key)) {
                Some(known) => *known = (*line).to_owned(),
                None => lines.push((*line).to_owned()),
            }
        }
        lines.retain(|line| !line.ends_with(": -"));
        lines.join("\n") + "\n"
    }

    fn output(&self, change: &[&str]) -> Output {
        self.write("pillar.yaml", &self.pillar(change), 0o644);
        validate(&self.path("pillar.yaml"), &[])
    }

    fn validate(&self, change: &[&str]) -> Vec<Found> {
        found(&self.output(change))
    }

    /// The rule finds something, as severe as that, in the line of the key, and says these words.
    fn finds(&self, change: &[&str], rule: &str, severity: &str, key: &str, words: &[&str]) -> String {
        let all = self.validate(change);
        let pillar = self.pillar(change);
        let line = 1 + pillar.lines().position(|line| line.starts_with(&format!("{key}:"))).expect("the key");
        let one = all.iter().find(|found| {
            found.rule == rule
                && found.severity == severity
                && found.line == line as u64
                && words.iter().all(|word| found.text.contains(word))
        });
        assert!(one.is_some(), "{rule}, {severity}, line {line}, {words:?} in {all:#?}\n{pillar}");
        rule.to_owned()
    }
}

fn validate(pillar: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["validate", "--host", "--format", "json"])
        .args(more)
        .arg(pillar)
        .env("RST_INHERITED", "must not arrive")
        .output()
        .unwrap()
}

#[test]
fn every_rule_of_the_family_finds_something() {
    let scratch = Scratch::new();
    let other = User::new();
    let mut seen = BTreeSet::new();
    let mut see = |rule: String| {
        seen.insert(rule);
    };
    see(scratch.finds(&["user: no-such-user"], "host-user", "error", "user", &["no user no-such-user"]));
    scratch.finds(&["group: no-such-group"], "host-user", "error", "group", &["no group no-such-group"]);
    scratch.finds(&["groups: [root, no-such-group]"], "host-user", "error", "groups", &["no-such-group"]);
    let layout =
        format!("layout: {{run: {}, logs: {{path: shared/logs, user: no-such-user}}}}", scratch.text("run"));
    scratch.finds(&[&layout], "host-user", "error", "layout", &["no-such-user"]);

    let home = format!("home: {}", scratch.text("nowhere"));
    see(scratch.finds(&[&home], "host-home", "warning", "home", &["is not there"]));

    scratch.make("shut", 0o700);
    scratch.make("shut/venv/bin", 0o755);
    let shut = format!("virtualenv: {}", scratch.text("shut/venv"));
    let bars = format!("cannot enter {} (mode 0700, root:root)", scratch.text("shut"));
    see(scratch.finds(&[&shut], "host-command", "error", "virtualenv", &[&bars]));
    symlink(scratch.path("shut/venv"), scratch.path("linked")).unwrap();
    let linked = format!("virtualenv: {}", scratch.text("linked"));
    scratch.finds(&[&linked], "host-command", "error", "virtualenv", &[&scratch.text("shut")]);
    let nowhere = format!("virtualenv: {}", scratch.text("nowhere"));
    scratch.finds(&[&nowhere], "host-command", "error", "virtualenv", &["is not there"]);
    scratch.finds(
        &["unicorn_command: gunicron"],
        "host-command",
        "error",
        "unicorn_command",
        &["no command gunicron"],
    );

    let native =
        |runtime: &str| format!("service: {{directory: {}, runtime: {runtime}}}", scratch.text("sv"));
    let missing = native(&scratch.text("nowhere"));
    let rule = scratch.finds(
        &["run_script: native", &missing],
        "host-run-script",
        "error",
        "service",
        &["no program"],
    );
    see(rule);
    scratch.finds(
        &["run_script: native", &native("/bin/true")],
        "host-run-script",
        "error",
        "service",
        &["not runsmith"],
    );

    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let bind = format!("bind: 127.0.0.1:{}", listener.local_addr().unwrap().port());
    let pid = format!("(pid {})", std::process::id());
    see(scratch.finds(&[&bind], "host-address", "error", "bind", &[&pid, "does not belong to this service"]));
    scratch.finds(
        &["bind: \"no-such-host.invalid:80\""],
        "host-address",
        "error",
        "bind",
        &["means nothing"],
    );
    scratch.write("plain", "", 0o644);
    let plain = format!("bind: \"unix:{}\"", scratch.text("plain"));
    scratch.finds(&[&plain], "host-address", "error", "bind", &["is no socket"]);

    let nowhere = format!("bind: \"unix:{}\"", scratch.text("nowhere/x.sock"));
    see(scratch.finds(&[&nowhere], "host-socket", "warning", "bind", &["rendering does not make it"]));
    let roots = format!("bind: \"unix:{}\"", scratch.text("home/x.sock"));
    scratch.finds(&[&roots], "host-socket", "warning", "bind", &["may not write", "mode 0755, root:root"]);

    // More than any kernel gives.
    let most = fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
    let rule =
        scratch.finds(&["limits: {nofile: unlimited}"], "host-limit", "warning", "limits", &["allows"]);
    see(rule);
    assert!(most.trim().parse::<u64>().is_ok());

    scratch.make("foreign", 0o755);
    chown(scratch.path("foreign"), Some(other.uid), None).unwrap();
    let layout = format!("layout: {{run: {}, logs: {}}}", scratch.text("run"), scratch.text("foreign"));
    let belongs = format!("belongs to {}, and not to {}", other.name, scratch.user.name);
    see(scratch.finds(&[&layout], "host-owner", "error", "layout", &[&belongs]));

    let package = ["gunicorn: {worker_class: tornado}"];
    see(scratch.finds(&package, "host-package", "error", "gunicorn", &["No module named 'tornado'"]));

    require("the old gunicorn", &virtualenv("gunicorn_old"));
    let old = format!("virtualenv: {}", virtualenv("gunicorn_old").display());
    let asgi = ["gunicorn: {http_parser: fast}", &old];
    see(scratch.finds(&asgi, "host-version", "error", "gunicorn", &["20.1.0", "`http_parser`"]));
    scratch.finds(&asgi, "host-version", "warning", "virtualenv", &["`control_socket_disable`"]);

    let statsd = ["gunicorn: {statsd_host: \"localhost:port\"}"];
    see(scratch.finds(&statsd, "host-config", "error", "gunicorn", &["refuses", "Value must be one of"]));

    scratch.application("raise RuntimeError('the application is broken')\n");
    see(scratch.finds(&[], "host-app", "error", "virtualenv", &["the application is broken"]));
    let secrets = ["secrets: {DB_PASSWORD: hunter2}", "app: wsgi:app"];
    scratch.finds(&secrets, "host-app", "warning", "app", &["without the service's secrets"]);
    scratch.application("import time\ntime.sleep(1000)\n");
    let handoff = ["app: wsgi:app", "handoff: {boot_timeout: 1}"];
    scratch.finds(&handoff, "host-app", "error", "app", &["after 1 s", "boot_timeout"]);

    fs::remove_file(scratch.path("root/current")).unwrap();
    see(scratch.finds(&[], "host-release", "error", "root", &["there is no"]));
    symlink("releases/2", scratch.path("root/current")).unwrap();
    scratch.finds(&[], "host-release", "error", "root", &["leads to releases/2, which is not there"]);

    // A Python that says anything but an answer, without an end.
    scratch.make("garbage/bin", 0o755);
    scratch.write("garbage/bin/python", "#!/bin/sh\nhead -c 3000000 /dev/zero\n", 0o755);
    scratch.write("garbage/bin/gunicorn", &format!("#!{}\n", scratch.text("garbage/bin/python")), 0o755);
    let garbage = format!("virtualenv: {}", scratch.text("garbage"));
    let unchecked = ["the installed server", "did not answer"];
    see(scratch.finds(&[&garbage], "host-unchecked", "note", "application", &unchecked));

    let family = rule::all().into_iter().filter(|rule| rule.family == Family::Host);
    assert_eq!(seen, family.map(|rule| rule.name.to_owned()).collect());
}

/// With the real servers, on a host that has everything, nothing is found. What runs, runs as the
/// application's user with the pillar's variables and no others, and leaves nothing behind.
#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let scratch = Scratch::new();
    scratch.make("out", 0o777);
    let report = scratch.text("out/report");
    scratch.application(&format!(
        "import os\nwith open({report:?}, 'w') as out:\n    \
         print(os.getuid(), os.getgid(), os.getgroups(), os.getcwd(), os.getsid(0) == os.getpid(), dict(os.environ), file=out)\n\
         def app(environ, start_response):\n    pass\n"
    ));
    let change =
        ["gunicorn: {worker_class: gthread}", "environment: {LD_PRELOAD: ''}", "secrets: {A_TOKEN: hunter2}"];
    let all = scratch.validate(&change);
    assert!(all.is_empty(), "{all:#?}");
    let said = fs::read_to_string(&report).unwrap();
    let uid = scratch.user.uid;
    assert!(said.starts_with(&format!("{uid} ")), "{said}");
    assert!(said.contains(&scratch.text("root/releases/1")) && said.contains("True {"), "{said}");
    for wrong in ["RST_INHERITED", "hunter2", "A_TOKEN"] {
        assert!(!said.contains(wrong), "{said}");
    }
    assert!(said.contains(&format!("'USER': '{}'", scratch.user.name)), "{said}");
    assert!(!scratch.path("root/releases/1/__pycache__").exists());

    let unicorn = ["virtualenv: -", "unicorn_command: unicorn", "unicorn: {worker_processes: 2}"];
    let all = scratch.validate(&unicorn);
    assert!(all.is_empty(), "{all:#?}");

    // The runtime as a release would install it.
    fs::copy(env!("CARGO_BIN_EXE_runsmith"), scratch.path("runsmith")).unwrap();
    let service =
        format!("service: {{directory: {}, runtime: {}}}", scratch.text("sv"), scratch.text("runsmith"));
    let all = scratch.validate(&["run_script: native", &service]);
    assert!(all.is_empty(), "{all:#?}");
}

/// What an application prints while it is loaded is shown in part, and never a line that may hold a secret.
#[test]
fn what_an_application_says_is_no_way_for_secrets() {
    let scratch = Scratch::new();
    scratch.application(
        "import sys\nprint('x' * 3000000, '\\x1b[31m')\n\
         raise RuntimeError('DB_PASSWORD=hunter2\\nsee postgres://web:hunter2@db/web\\nvalue hunter3 is wrong')\n",
    );
    let output = scratch.output(&["secrets: {OTHER: hunter3}", "app: wsgi:app"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("may hold a secret is left out"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("hunter3") && said.len() < 20_000, "{said}");
}

/// The application's code is run as its user, and gets no file that whoever calls has open; what it starts ends with the check.
#[test]
fn what_is_asked_gets_no_descriptors_and_leaves_nothing() {
    let scratch = Scratch::new();
    scratch.application(
        "import os, subprocess, sys\n\
         null = subprocess.DEVNULL\n\
         subprocess.Popen(['sleep', '98765'], start_new_session=True, stdin=null, stdout=null, stderr=null)\n\
         print('OPEN', sorted(int(one) for one in os.listdir('/proc/self/fd')), flush=True)\n\
         raise RuntimeError('as it should be: ' + str([os.path.exists('/proc/self/fd/%d' % n) for n in (9, 10)]))\n",
    );
    let pillar = scratch.path("pillar.yaml");
    fs::write(&pillar, scratch.pillar(&["app: wsgi:app"])).unwrap();
    let output = Command::new("bash")
        .args(["-c", "exec 9</etc/shadow 10>/dev/null; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_runsmith")])
        .args(["validate", "--host"])
        .arg(&pillar)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("as it should be: [False, False]"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let left = support::host::commands().into_iter().find(|(_, command)| command == &["sleep", "98765"]);
    assert!(left.is_none(), "{left:?}");
}

/// The application's code holds the lock of the pipe that its output goes into, so that whoever reads or closes the pipe waits, and
/// cannot be killed. That is a helper, which is left behind.
#[test]
fn who_holds_its_output_holds_up_nobody_who_asks() {
    let scratch = Scratch::new();
    // The pipe has room for more than is read at once (F_SETPIPE_SZ), and is never empty, so that somebody is about to read when the lock
    // is taken.
    scratch.application(
        "import fcntl, os, socket, time\n\
         ours, theirs = socket.socketpair()\n\
         fcntl.fcntl(1, 1031, 1 << 20)\n\
         if os.fork() == 0:\n    while True: os.write(1, b'x' * (1 << 20))\n\
         time.sleep(0.2)\n\
         os.splice(ours.fileno(), 1, 1)\n",
    );
    let helper = || {
        support::host::commands().into_iter().find(|(_, command)| command == &["/proc/self/exe", "run-apart"])
    };
    let mut was_held = false;
    for _ in 0..10 {
        let begun = Instant::now();
        let output = scratch.output(&["app: wsgi:app", "handoff: {boot_timeout: 2}"]);
        assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
        let all = found(&output);
        assert!(all.iter().any(|one| one.rule == "host-app" && one.text.contains("after 2 s")), "{all:#?}");
        was_held |= helper().is_some();
        // The lock ends with its holder, and so does the helper.
        for process in scratch.user.processes() {
            kill(process.pid, Signal::KILL);
        }
        if was_held {
            break;
        }
    }
    assert!(was_held, "no helper was ever kept waiting");
}

/// A port or a socket that the service itself has is its own, before and after a hand-over; to
/// another service it is somebody's.
#[test]
fn what_a_running_service_has_is_its_own() {
    for (server, socket) in [(Server::Sync, Socket::Tcp), (Server::Unicorn, Socket::Unix)] {
        let service = Service::start(server, socket, "limits: {nofile: 64}\n");
        let scratch = tempfile::tempdir().unwrap();
        let pillar = scratch.path().join("pillar.yaml");
        for deployed in [false, true] {
            if deployed {
                service.deploy(2, Release::Good);
            }
            fs::write(&pillar, service.pillar()).unwrap();
            let all = found(&validate(&pillar, &[]));
            assert!(!all.iter().any(|found| found.rule == "host-address"), "{deployed}: {all:#?}");
        }
        let other = service.pillar().replace(&format!("application: {}", service.name), "application: other");
        let other = other.replace("layout: {run: ", "layout: {run: /nowhere");
        fs::write(&pillar, other).unwrap();
        let all = found(&validate(&pillar, &[]));
        assert!(
            all.iter().any(|found| found.rule == "host-address" && found.text.contains("(pid ")),
            "{all:#?}"
        );
    }
}

/// Who is neither root nor the application's user is told what was not looked at.
#[test]
fn what_only_root_can_see_is_said() {
    let scratch = Scratch::new();
    scratch.write("pillar.yaml", &scratch.pillar(&[]), 0o644);
    fs::copy(env!("CARGO_BIN_EXE_runsmith"), scratch.path("runsmith")).unwrap();
    let run = |uid: u32| {
        let output = Command::new("setpriv")
            .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"])
            .arg(scratch.path("runsmith"))
            .args(["validate", "--host", "--format", "json"])
            .arg(scratch.path("pillar.yaml"))
            .output()
            .unwrap();
        (output.status.code(), found(&output))
    };
    let (code, all) = run(65_534);
    let note =
        all.iter().find(|found| found.rule == "host-unchecked" && found.text.contains("only root can look"));
    assert!(code == Some(0) && note.is_some_and(|note| note.severity == "note"), "{all:#?}");
    // The application's user itself sees enough.
    let (code, all) = run(scratch.user.uid);
    assert!(
        code == Some(0) && !all.iter().any(|found| found.text.contains("only root can look")),
        "{all:#?}"
    );
}
