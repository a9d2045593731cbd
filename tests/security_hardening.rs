//! What an application that is taken over can gain: nothing by any program of the host. Each test is a row of docs/security.md.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use support::host::run;
use support::log::Log;
use support::row::{Row, said};
use support::service::{Release, Server, Service, Socket};
use support::{SOON, START, wait_for_file};

/// No capability, as /proc/PID/status has it.
const NONE: &str = "0000000000000000";

/// A field of /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{name}: {text}")).trim().to_owned()
}

/// The soft and the hard limit of core files.
fn core(pid: u32) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process");
    let line =
        text.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("core").to_owned();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

/// Every process of the application has no capability, no way to any, and leaves no core.
fn assert_hardened(service: &Service) {
    let processes = service.user.processes();
    assert!(!processes.is_empty());
    for process in processes {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(process.pid, set), NONE, "{set} of {process:?}");
        }
        assert_eq!(field(process.pid, "NoNewPrivs"), "1", "{process:?}");
        assert_eq!(core(process.pid), ("0".to_owned(), "0".to_owned()), "{process:?}");
    }
}

/// Root's login has a key in its session keyring, and starts runsv.
const WITH_A_KEY: &str = r#"
import ctypes, os, platform, sys
add_key, keyctl = {"x86_64": (248, 250)}.get(platform.machine(), (217, 219))
libc = ctypes.CDLL(None)
libc.syscall(keyctl, 1, None)
libc.syscall(add_key, b"user", b"of-root", b"root alone", 10, -3)
os.execvp("runsv", ["runsv", sys.argv[1]])
"#;

/// Looks for that key, and revokes the keyring.
const LOOKS_FOR_THE_KEY: &str = r#"
import ctypes, os, platform
libc, keyctl = ctypes.CDLL(None), {"x86_64": 250}.get(platform.machine(), 219)
found = libc.syscall(keyctl, 10, -3, b"user", b"of-root", 0)
libc.syscall(keyctl, 3, -3)
open("MARK.new", "w").write(str(found))
os.rename("MARK.new", "MARK")
"#;

/// Where the kernel has no keys, or lets nobody have any, there is none to find.
#[test]
fn keys_of_whoever_starts_runsv_do_not_reach_the_application() {
    let (mut service, mark) = Service::native_with(Server::Sync, Socket::Tcp, "", LOOKS_FOR_THE_KEY);
    let mut runsv = Command::new("python3");
    runsv.args(["-c", WITH_A_KEY]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    service.supervise_by(runsv, writer);
    service.log = Log::follow(reader);
    wait_for_file(&mark);
    assert_eq!(fs::read_to_string(&mark).expect("what was found"), "-1");
    service.down();
}

/// A copy of a program of the host in the service's own directory, which root has.
fn copy(service: &Service, program: &str, mode: u32) -> PathBuf {
    let path = service.scratch().join(program);
    fs::copy(format!("/usr/bin/{program}"), &path).expect(program);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    path
}

#[test]
fn no_process_of_the_application_has_a_way_to_more_rights() {
    let ways = [
        (true, Server::Sync, ""),
        (true, Server::Unicorn, "handoff: {strategy: usr2}\n"),
        (false, Server::Sync, "nice: -1\nsecrets: {API_TOKEN: swordfish}\n"),
        (false, Server::Unicorn, ""),
    ];
    for (native, server, more) in ways {
        let start = if native { Service::start_native } else { Service::start };
        let service = start(server, Socket::Unix, more);
        assert_hardened(&service);
        // With USR2 the master has started this one itself.
        let line = service.deploy(2, Release::Good);
        assert!(line.text.contains("done:"), "{}", line.text);
        service.wait_for_version("2", SOON);
        assert_hardened(&service);
        service.down();
    }
}

#[test]
fn each_protection_is_turned_off_by_its_key() {
    for native in [true, false] {
        let make = if native { Service::native } else { Service::render };
        let mut service = make(Server::Any, Socket::Tcp, "");
        service.runs("[/usr/bin/sleep, \"100000\"]");
        service = service.started();
        assert_hardened(&service);
        service.down();
        let keys = [
            ("hardening: {no_new_privileges: false}\n", ["0", NONE, "0"]),
            ("hardening: {capabilities: inherited}\n", ["1", &field(std::process::id(), "CapBnd"), "0"]),
            ("limits: {core: {soft: 0, hard: 4096}}\n", ["1", NONE, "4096"]),
        ];
        let pillar = service.pillar();
        for (key, wanted) in keys {
            service.rewrite(|_| format!("{pillar}{key}"));
            let mark = service.log.mark();
            service.begin("up");
            service.log.wait(mark, &[if native { "runsmith: done:" } else { "runsmith: ready:" }], START);
            let pid = service.master();
            let is = [field(pid, "NoNewPrivs"), field(pid, "CapBnd"), core(pid).1];
            assert_eq!(is, wanted, "{key}");
            assert_eq!(field(pid, "CapInh"), NONE);
            service.down();
        }
    }
}

#[test]
fn what_an_earlier_version_has_rendered_is_hardened_at_the_hand_over_after_a_render() {
    let service = Service::native(Server::Sync, Socket::Unix, "");
    let old = "hardening:\n  no_new_privileges: true\n  capabilities: \"none\"\n";
    service.edit_run(|text| {
        assert!(text.contains(old), "{text}");
        text.replace(old, "").replace("  core:\n    soft: 0\n    hard: 0\n", "")
    });
    let service = service.started();
    let inherited = [field(service.master(), "NoNewPrivs"), field(service.master(), "CapBnd")];
    assert_eq!(inherited, ["0", &field(std::process::id(), "CapBnd")]);
    let line = service.deploy(2, Release::Good);
    assert!(line.text.contains("done:"), "{}", line.text);
    assert_eq!(field(service.master(), "NoNewPrivs"), "0", "a new runtime takes nothing by itself");

    let pillar = service.scratch().join("pillar.yaml");
    let pillar = pillar.to_str().expect("UTF-8");
    let diff = ["render", pillar, "--diff", "--root", "/"];
    let diff = Command::new(env!("CARGO_BIN_EXE_runsmith")).args(diff).output().expect("runsmith");
    let diff = String::from_utf8_lossy(&diff.stdout).into_owned();
    for line in ["+hardening:", "+  no_new_privileges: true", "+  core:"] {
        assert!(diff.contains(line), "{line}: {diff}");
    }
    run(env!("CARGO_BIN_EXE_runsmith"), &["render", pillar, "--out", "/"]);
    let line = service.deploy(3, Release::Good);
    assert!(line.text.contains("done:"), "{}", line.text);
    assert_hardened(&service);
    service.down();
}

#[test]
fn a_shell_script_without_setpriv_starts_and_says_what_is_not_taken() {
    let mut service = Service::render(Server::Any, Socket::Tcp, "");
    service.runs("[/usr/bin/sleep, \"100000\"]");
    service.edit_run(|text| text.replace("setpriv -", "no-such-setpriv -"));
    let service = service.started();
    let pid = service.master();
    assert_eq!([field(pid, "NoNewPrivs"), field(pid, "CapInh"), field(pid, "CapEff")], ["0", NONE, NONE]);
    assert_eq!(core(pid).1, "0");
    assert_eq!(service.log.count(0, "hardening.no_new_privileges: it cannot be set"), 1);
    service.down();
}

/// The application's user may have svlogd run a processor of its own: the log service has no more rights than the application.
#[test]
fn a_log_service_has_no_more_rights_than_the_application() {
    for render in [Service::native_with_log, Service::render_with_log] {
        let mut service = render(Server::Any, Socket::Tcp, "");
        service.runs("[/usr/bin/sleep, \"100000\"]");
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let mut runsv = Command::new("runsv");
        runsv.env("ROOT_ONLY_TOKEN", "token-of-root");
        service.supervise_by(runsv, writer);
        let scratch = service.scratch().display().to_string();
        let until = Instant::now() + START;
        let pid = loop {
            let own = support::host::commands().into_iter().find(|(_, command)| {
                command.first().is_some_and(|word| word == "svlogd")
                    && command.last().is_some_and(|directory| directory.starts_with(&scratch))
            });
            if let Some((pid, _)) = own {
                break pid;
            }
            assert!(Instant::now() < until, "there is no svlogd");
            std::thread::yield_now();
        };
        assert!(field(pid, "Uid").starts_with(&service.user.uid.to_string()));
        assert_eq!(
            ["CapBnd", "CapInh", "CapPrm", "NoNewPrivs"].map(|name| field(pid, name)),
            [NONE, NONE, NONE, "1"]
        );
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
        assert!(
            environment.starts_with(b"PATH=") && environment.iter().filter(|byte| **byte == 0).count() == 1
        );
        service.sv("exit");
    }
}

#[test]
fn a_setuid_program_gives_the_application_nothing() {
    for native in [true, false] {
        let make = if native { Service::native } else { Service::render };
        let mut service = make(Server::Any, Socket::Tcp, "");
        let (setuid, out) = (copy(&service, "id", 0o6755), service.root.join("shared/logs"));
        let script =
            format!("{0} -u >{1}/ids; {0} -g >>{1}/ids; exec sleep 100000", setuid.display(), out.display());
        service.runs(&format!("[/bin/sh, -c, \"{script}\"]"));
        service = service.started();
        let ids = || fs::read_to_string(out.join("ids")).expect("ids");
        let gid = run("id", &["-g", &service.name]);
        assert_eq!(ids(), format!("{}\n{gid}", service.user.uid));
        service.down();

        // The program would have: only the key is in its way.
        service.rewrite(|pillar| format!("{pillar}hardening: {{no_new_privileges: false}}\n"));
        let mark = service.log.mark();
        service.begin("up");
        service.log.wait(mark, &[if native { "runsmith: done:" } else { "runsmith: ready:" }], START);
        assert_eq!(ids(), "0\n0\n");
        service.down();
    }
}

#[test]
fn a_program_with_capabilities_is_named_and_gives_none() {
    let mut service = Service::native(Server::Any, Socket::Tcp, "");
    let program = copy(&service, "sleep", 0o755);
    run("setcap", &["cap_net_raw+ep", program.to_str().expect("UTF-8")]);
    service.runs(&format!("[{}, \"100000\"]", program.display()));
    service.supervise();
    let line = service.log.wait(0, &["cannot be run"], START);
    assert!(
        line.text.contains("has capabilities") && line.text.contains("hardening.capabilities"),
        "{}",
        line.text
    );
    service.sv("down");

    service.rewrite(|pillar| {
        format!("{pillar}hardening: {{capabilities: inherited, no_new_privileges: false}}\n")
    });
    let mark = service.log.mark();
    service.begin("up");
    service.log.wait(mark, &["runsmith: done:"], START);
    assert_eq!(field(service.master(), "CapEff"), "0000000000002000");
    service.down();
}

#[test]
fn an_application_that_runs_as_root_has_no_capability() {
    let mut service = Service::native(Server::Any, Socket::Tcp, "");
    service.runs("[/usr/bin/sleep, \"100000\"]");
    let user = format!("user: {0}\ngroup: {0}\n", service.name);
    service.rewrite(|pillar| pillar.replace(&user, "user: root\ngroup: root\n"));
    service.supervise();
    let line = service.log.wait(0, &["is master "], START);
    let pid = line.text.split("is master ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    service.log.wait(0, &["runsmith: done:"], START);
    let pid: u32 = pid.expect("a number");
    let all = ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs"].map(|name| field(pid, name));
    assert!(field(pid, "Uid").starts_with("0\t"));
    service.sv("down");
    assert_eq!(all, [NONE, NONE, NONE, "1"]);
}

/// What the runtime needs (`privileges::OF_RUNTIME`): chown, dac_override, dac_read_search, fowner, kill, setgid, setuid, setpcap,
/// net_bind_service, net_admin, net_raw, sys_ptrace, sys_nice, sys_resource; as far as this host has them.
fn of_runtime() -> String {
    let has = u64::from_str_radix(&field(std::process::id(), "CapBnd"), 16).expect("a mask");
    let needed =
        [0, 1, 2, 3, 5, 6, 7, 8, 10, 12, 13, 19, 23, 24].iter().fold(0, |mask, number| mask | 1 << number);
    format!("{:016x}", has & needed)
}

/// No capability in any set, and no way to any.
fn assert_has_no_rights(pid: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(pid, set), NONE, "{set}");
    }
    assert_eq!(field(pid, "NoNewPrivs"), "1");
}

#[test]
fn the_keeper_has_no_rights_and_is_a_user_that_nobody_is() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let assert_is_nobody = || {
        let keeper = service.keeper().expect("a keeper");
        assert_has_no_rights(keeper);
        for ids in ["Uid", "Gid"] {
            let ids = field(keeper, ids);
            let ids: Vec<u32> = ids.split('\t').map(|id| id.parse().expect("a number")).collect();
            assert!(ids.iter().all(|id| *id == ids[0] && (65_520..65_534).contains(id)), "{ids:?}");
            let passwd =
                Command::new("getent").args(["passwd", &ids[0].to_string()]).output().expect("getent");
            assert!(!passwd.status.success(), "{ids:?} is somebody");
        }
        assert_eq!(field(keeper, "Groups"), "");
        // What may be dumped belongs to its user here, and everything else to root.
        assert_eq!(fs::metadata(format!("/proc/{keeper}/fd")).expect("fd").uid(), 0);
    };
    assert_is_nobody();
    // The next runtime takes everything from it, and its keeper is one, too.
    let mark = service.log.mark();
    support::host::kill(service.runtime(), rustix::process::Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], START);
    let line = service.deploy(2, Release::Good);
    assert!(line.text.contains("done:"), "{}", line.text);
    assert_is_nobody();
    service.down();
    assert!(service.keepers().is_empty());
}

#[test]
fn the_keeper_stays_within_reach_of_a_runtime_that_may_not_trace() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut runsv = Command::new("setpriv");
    runsv.args(["--bounding-set=-sys_ptrace", "--", "runsv"]);
    service.supervise_by(runsv, writer);
    service.log = support::log::Log::follow(reader);
    service.log.wait(0, &["runsmith: done:"], START);
    let keeper = service.keeper().expect("a keeper");
    assert_has_no_rights(keeper);
    assert_eq!(field(keeper, "Uid"), "0\t0\t0\t0");
    // A keeper that does not answer is found, and what it holds is taken out of it.
    support::host::kill(keeper, rustix::process::Signal::STOP);
    service.down();
    assert!(service.keepers().is_empty());
}

#[test]
fn the_runtime_has_what_it_needs_and_no_more() {
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, "");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(service.runtime(), set), of_runtime(), "{set}");
    }
    assert_eq!(field(service.runtime(), "CapInh"), NONE);

    // What it has given up it cannot give: such a change is refused while it runs, and the difference says so.
    service.rewrite(|pillar| format!("{pillar}hardening: {{capabilities: inherited}}\n"));
    let refused = service.runsmith(&["upgrade"]);
    let text = said(&refused);
    assert!(!refused.status.success() && text.contains("`hardening.capabilities` has changed"), "{text}");
    assert_eq!(service.version(), "1");
    service.down();
    let mark = service.log.mark();
    service.begin("up");
    service.log.wait(mark, &["runsmith: done:"], START);
    let all = field(std::process::id(), "CapBnd");
    assert_eq!(field(service.master(), "CapBnd"), all);
    assert_eq!(field(service.runtime(), "CapBnd"), all);
    assert_eq!(field(service.runtime(), "CapEff"), of_runtime());
    service.down();
}

/// Writes what it sees of the host's directories.
const LOOKS: &str = r#"
import os
def is_read_only(path): return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
seen = {path: is_read_only(path) for path in ("/usr", "/etc", "/usr/share", "/", "/tmp", "/var/tmp")}
for path in ("/tmp", "/var/tmp"):
    seen["in " + path] = os.listdir(path)
    open(path + "/NAME", "w").close()
try: open("/usr/NAME", "w"); seen["wrote"] = True
except OSError as error: seen["wrote"] = error.errno
import json
open("MARK." + str(os.getpid()), "w").write(json.dumps(seen))
"#;

/// What the master of the generation that serves has seen.
fn seen(service: &Service, mark: &str) -> serde_json::Value {
    let text = fs::read(format!("{mark}.{}", service.master())).expect("what it has seen");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn an_isolated_generation_has_its_own_temporary_files_and_cannot_write_to_the_system() {
    // Other tests mount file systems below /tmp meanwhile.
    let mounts = || -> Vec<String> {
        let all = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let is_others = |line: &&str| line.split(' ').nth(4).is_some_and(|at| at.starts_with("/tmp/"));
        all.lines().filter(|line| !is_others(line)).map(str::to_owned).collect()
    };
    for (server, more) in [
        (Server::Sync, "hardening: {private_tmp: true, read_only_system: true}\n"),
        (Server::Sync, "hardening: {private_tmp: true, read_only_system: true}\nhandoff: {strategy: usr2}\n"),
    ] {
        let more = format!("{more}secrets: {{KEY: very-secret-value}}\nsecret_files: [KEY]\n");
        let (service, mark) = Service::native_with(server, Socket::Unix, &more, LOOKS);
        let before = mounts();
        let service = service.started();
        let first = seen(&service, &mark);
        // EROFS, or EACCES where the directory's mode refuses first.
        assert!(first["wrote"] == 30, "{first}");
        for (path, is_read_only) in [
            ("/usr", true),
            ("/etc", true),
            ("/usr/share", true),
            ("/", false),
            ("/tmp", false),
            ("/var/tmp", false),
        ] {
            assert_eq!(first[path], is_read_only, "{path}: {first}");
        }
        assert_eq!(
            (&first["in /tmp"], &first["in /var/tmp"]),
            (&serde_json::json!([]), &serde_json::json!([]))
        );
        // Nothing of it is the host's.
        assert!(!PathBuf::from("/tmp").join(&service.name).exists());
        assert_eq!(mounts(), before);
        assert_hardened(&service);
        let mut row = Row::of(service);
        row.kill_runtime();
        row.upgrade_to_what_is_there();
        if !more.contains("usr2") {
            let second = seen(&row.service, &mark);
            assert_eq!(second["in /tmp"], serde_json::json!([]), "{second}");
        }
        row.end();
    }
}

#[test]
fn isolation_begins_where_the_right_to_mount_is_there() {
    let service = Service::native(Server::Sync, Socket::Tcp, "# private_tmp\n");
    let mut service = service.started();
    // A runtime that isolates nothing has given up that right, and says so before anything is replaced.
    service.rewrite(|pillar| format!("{pillar}hardening: {{private_tmp: true}}\n"));
    let refused = service.runsmith(&["upgrade"]);
    let text = said(&refused);
    assert!(!refused.status.success() && text.contains("`hardening` has changed"), "{text}");
    assert_eq!(service.version(), "1");
    service.down();
    let mark = service.log.mark();
    service.begin("up");
    service.log.wait(mark, &["runsmith: done:"], START);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", service.master())).expect("mounts");
    assert!(mounts.lines().any(|line| line.contains(" /tmp ") && line.contains(" - tmpfs ")), "{mounts}");
    // Without, one generation later.
    service.rewrite(|pillar| pillar.replace("hardening: {private_tmp: true}\n", ""));
    assert_eq!(service.runsmith(&["upgrade"]).status.code(), Some(0));
    service.down();
}
