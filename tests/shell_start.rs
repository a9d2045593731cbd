//! What the server is started with by the shell run script, and that `sv start` waits for it.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::process::Command;

use support::log::Log;
use support::service::{Release, Server, Service, Socket, WORKERS};
use support::{HANDOVER, SOON, START};

/// Under `nohup`, or in the background of a script, runsv ignores signals, and what it starts does, too. bash cannot trap those.
#[test]
fn signals_that_whoever_started_runsv_ignores_arrive() {
    let mut service = Service::render(Server::Sync, Socket::Tcp, "");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut runsv = Command::new("env");
    runsv.args(["--ignore-signal=HUP,INT,QUIT,USR1,USR2,ALRM,TERM", "runsv"]);
    service.supervise_by(runsv, writer);
    service.log = Log::follow(reader);
    service.log.wait(0, &["runsmith: ready:"], START);
    for (number, signal) in [(2, "hup"), (3, "interrupt"), (4, "quit"), (5, "2")] {
        service.release(number, Release::Good);
        service.switch(number);
        let mark = service.log.mark();
        service.sv(signal);
        service.log.wait(mark, &["runsmith: done:"], HANDOVER);
        assert_eq!(service.version(), number.to_string(), "{signal}");
    }
    let mark = service.log.mark();
    service.sv("alarm");
    service.log.wait(mark, &["runsmith: status: serving"], SOON);
    service.sv("1");
    service.log.wait(mark, &["to reopen its logs"], SOON);
    // The server ignores none of them, and cannot have been started with this variable.
    let status = fs::read_to_string(format!("/proc/{}/status", service.master())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x6a07, 0, "{status}");
    assert!(!service.log.text(0).contains("ignores signals"), "{}", service.log.text(0));
    let environment = fs::read(format!("/proc/{}/environ", service.master())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("RUNSMITH_RESET"));
    service.down();
}

/// A value that no quoting gets right by luck.
const ODD: &str = " it's \"$HOME\" `id` \\ *;\n-é\t";

#[test]
fn server_gets_what_the_pillar_says() {
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let more = format!(
        "environment: {{ODD: {odd}, EMPTY: ''}}\nsecrets: {{API_KEY: {key}}}\nlimits: {{nofile: {{soft: 1234, hard: 2345}}, core: 0}}\n\
         umask: '0027'\nnice: 5\noom_score_adj: 100\ngroups: [adm]\n",
        odd = json(ODD),
        key = json("two\nlines and 'quotes'"),
    );
    let mut service = Service::render_with_log(Server::Sync, Socket::Tcp, &more);
    service.supervise();
    let output = service.sv("start");
    assert!(output.status.success(), "{output:?}");
    // sv closes standard output for ./check, which it asks again and again.
    assert!(!String::from_utf8_lossy(&output.stderr).contains("descriptor"), "{output:?}");
    // `sv start` has returned, so it serves: no waiting here.
    assert_eq!(service.version(), "1");
    service.assert_one_generation();
    // bash ignores QUIT by itself, which is nothing to report.
    let run = fs::read_to_string(service.directory.join("supervise/pid")).unwrap();
    let run = fs::read(format!("/proc/{}/environ", run.trim())).unwrap();
    assert!(!String::from_utf8_lossy(&run).contains("RUNSMITH_RESET"), "the script has started again");
    let master = service.master();

    let proc = |name: &str| fs::read(format!("/proc/{master}/{name}")).unwrap();
    let text = |name: &str| String::from_utf8(proc(name)).unwrap();
    let environment = text("environ");
    let variable =
        |name: &str| environment.split('\0').find_map(|entry| entry.strip_prefix(&format!("{name}=")));
    assert_eq!(variable("ODD"), Some(ODD));
    assert_eq!(variable("EMPTY"), Some(""));
    assert_eq!(variable("API_KEY"), Some("two\nlines and 'quotes'"));
    assert_eq!(variable("USER"), Some(service.name.as_str()));
    assert_eq!(variable("RUNSMITH_SERVICE"), Some(service.name.as_str()));
    assert_eq!(variable("PWD").map(str::to_owned), Some(format!("{}/releases/1", service.root.display())));
    assert!(variable("PATH").is_some_and(|path| path.starts_with("/") && path.contains("/bin:")));
    assert_eq!(variable("SHELL"), None, "nothing of runsv's environment is passed on");

    let status = text("status");
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Umask:"), "0027");
    assert_eq!(line("Uid:"), vec![service.user.uid.to_string(); 4].join("\t"));
    let adm = fs::read_to_string("/etc/group").unwrap();
    let adm = adm.lines().find_map(|line| line.strip_prefix("adm:x:")).unwrap().split(':').next().unwrap();
    assert_eq!(line("Groups:").split(' ').next(), Some(adm));
    // 32 and 33 are the C library's own.
    let ignored = u64::from_str_radix(&line("SigIgn:"), 16).unwrap() & 0x7fff_ffff;
    assert_eq!(ignored, 0x0100_1000, "only what Python itself ignores: PIPE and XFSZ");
    let limits = text("limits");
    assert!(
        limits.lines().any(|line| line.split_whitespace().collect::<Vec<_>>()[..5]
            == ["Max", "open", "files", "1234", "2345"]),
        "{limits}"
    );
    assert_eq!(text("oom_score_adj").trim(), "100");
    let stat = text("stat");
    assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("5"), "nice");
    let fifo = service.run_directory().join("ready");
    for entry in fs::read_dir(format!("/proc/{master}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        assert!(
            !target.starts_with(fifo.parent().unwrap()),
            "the script's {} is open in the server",
            target.display()
        );
    }

    // It is written once the service has started.
    let log = service.root.join("shared/logs/service/current");
    let line = format!("runsmith: ready: {WORKERS} workers of master {master}");
    service.until("the log has it", |_| fs::read_to_string(&log).is_ok_and(|log| log.contains(&line)));
    service.sv("down");
    service.assert_nothing_left();
}

/// The files in `env` that the script was not rendered with: a secret that left the pillar, somebody's
/// notes. None of them reaches the application, and none that it was rendered with may be missing.
#[test]
fn only_the_secrets_of_the_pillar_are_passed_on() {
    let mut service = Service::render(
        Server::Sync,
        Socket::Tcp,
        "secrets: {API_KEY: swordfish, EMPTY_KEY: ''} # runsmith: allow(empty-secret) for this test\n",
    );
    let env = service.directory.join("env");
    fs::write(env.join("GONE_TOKEN"), "hunter2\n").unwrap();
    fs::write(env.join("API_KEY~"), "hunter2\n").unwrap();
    fs::create_dir(env.join("OLD")).unwrap();
    service.supervise();
    service.log.wait(0, &["runsmith: ready:"], support::START);
    let master = service.master();
    let environment = fs::read(format!("/proc/{master}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let mut secrets: Vec<_> = environment
        .split('\0')
        .filter(|entry| ["KEY", "TOKEN", "OLD", "hunter2"].iter().any(|word| entry.contains(word)))
        .filter(|entry| !entry.starts_with("RUNSMITH_"))
        .collect();
    secrets.sort_unstable();
    assert_eq!(secrets, ["API_KEY=swordfish", "EMPTY_KEY="]);

    // A secret whose file is gone: said by name, and the master that has it goes on.
    fs::rename(env.join("API_KEY"), service.root.join("kept")).unwrap();
    let mark = service.log.mark();
    service.sv("2");
    let end = service.log.wait(mark, &["runsmith: hand-over FAILED", "runsmith: done:"], support::HANDOVER);
    let want = format!("the secret API_KEY is not in {}: render the service again", env.display());
    assert!(end.text.contains(&want), "{}", end.text);
    assert_eq!(service.master(), master);
    assert_eq!(service.version(), "1");
    let mark = service.log.mark();
    service.begin_down();
    service.log.wait(mark, &["nothing is left"], support::STOP);
    let mark = service.log.mark();
    service.begin("up");
    let end = service.log.wait(mark, &["runsmith: cannot start", "runsmith: ready:"], support::START);
    assert!(end.text.contains(&want), "{}", end.text);
    fs::rename(service.root.join("kept"), env.join("API_KEY")).unwrap();
    service.log.wait(mark, &["runsmith: ready:"], support::START);
    for secret in ["swordfish", "hunter2"] {
        assert_eq!(service.log.count(0, secret), 0, "{}", service.log.text(0));
    }
    service.down();
}

/// The kernel's list of a process's children is taken as it is: each one counts once.
#[test]
fn children_are_counted_once() {
    let service = Service::start(Server::Sync, Socket::Tcp, "");
    let mark = service.log.mark();
    service.sv("alarm");
    let line = service.log.wait(mark, &["runsmith: status:"], SOON);
    let want = format!("serving, master {} with {WORKERS} children,", service.master());
    assert!(line.text.contains(&want), "{}", line.text);
    service.down();
}

/// Whoever asks may have closed any descriptor, as sv does with standard output: no message is lost where one can be heard, and
/// nothing complains.
#[test]
fn closed_descriptors_make_no_noise() {
    let service = Service::render(Server::Sync, Socket::Tcp, "");
    for (closed, heard) in [("<&-", true), ("2>&-", true), (">&-", false), ("<&- >&- 2>&-", false)] {
        let command = std::process::Command::new("sh")
            .args(["-c", &format!("exec ./check {closed}")])
            .current_dir(&service.directory)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let expected = if heard { "runsmith: not ready\n" } else { "" };
        assert_eq!(
            (command.status.code(), text(&command.stdout), text(&command.stderr)),
            (Some(1), expected.to_owned(), String::new()),
            "{closed}"
        );
    }
}
