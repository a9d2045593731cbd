//! The host goes wrong: state, disks, logs, addresses, users, files. Real servers under load; no request is lost.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use support::host::{Process, User, kill, run};
use support::load::{Address, Load};
use support::row::{Python, Row, said};
use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, SOON, START};

/// Name of the test, what is done, what is promised.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "a_state_that_cannot_be_used_is_said_and_the_keeper_has_another_copy",
        "the state is broken, half, empty, a directory, a FIFO, a link, 8 GiB long, of another boot, of a newer format, of another service; kill -9 of the runtime after each",
        "said in the log; same master, from the keeper's copy; none lost",
    ),
    (
        "without_keeper_and_state_the_application_is_found_and_its_sockets_are_taken_out_of_it",
        "the same with kill -9 of the keeper as well",
        "the application is found by its environment, its sockets are taken out of it, and it is replaced; none lost",
    ),
    (
        "unicorn_which_writes_over_its_environment_is_found_all_the_same",
        "the same with unicorn, and no state at all",
        "its sockets are taken out of it; same inode; none lost",
    ),
    (
        "a_state_that_names_foreign_processes_has_them_signalled_by_nobody",
        "the state names root's processes, another user's, process 1, the right number with a wrong start",
        "nobody's process is signalled; none lost",
    ),
    (
        "what_a_server_writes_is_read_again_after_keeper_and_runtime_have_gone",
        "kill -9 of runtime and keeper while each request writes to the log",
        "the next run takes the pipe out of the server; no request fails from then on",
    ),
    (
        "a_flooded_control_socket_keeps_root_from_nothing",
        "the application's user floods the control socket: 400 connections, garbage, half and huge lines, and who never reads",
        "root's `status` and `upgrade` succeed; none lost",
    ),
    (
        "a_third_user_may_ask_nothing",
        "a third user asks for `status` and `upgrade`",
        "refused; nothing happens",
    ),
    (
        "forged_claims_make_nothing_ready_and_a_flood_of_them_stops_nothing",
        "the application's user floods the readiness socket with forged claims while a generation loads",
        "nothing is ready before it is; then the hand-over succeeds; none lost",
    ),
    ("forty_workers_that_get_ready_at_once_are_all_heard", "40 workers get ready at once", "all are heard"),
    (
        "a_run_directory_that_somebody_else_can_change_is_refused",
        "the run directory is the user's, anybody's, a link, a file",
        "refused and said; starts by itself once it is fixed",
    ),
    (
        "a_run_directory_below_one_of_the_users_is_not_made",
        "the run directory lies below a directory of the user's",
        "nothing is made there",
    ),
    (
        "a_full_disk_for_the_state_costs_nothing",
        "the disk of the run directory is full",
        "the state is written into the room that is reserved for it; upgrades and kill -9 of runtime and keeper as ever; none lost",
    ),
    (
        "a_log_reader_that_stands_still_stops_no_request",
        "svlogd is stopped (SIGSTOP), and each request writes 3,000 bytes",
        "requests and an upgrade go on, lines are dropped and counted; none lost",
    ),
    (
        "a_log_that_nobody_reads_stops_nothing",
        "nobody has the log's reading end",
        "requests and upgrades go on; none lost",
    ),
    ("a_log_reader_that_dies_loses_no_request", "kill -9 of svlogd, three times", "none lost"),
    (
        "a_port_that_another_process_has_is_said_and_taken_once_it_is_free",
        "the port is another process's",
        "said; taken once it is free",
    ),
    (
        "what_is_in_a_unix_sockets_place_is_said_and_left_alone",
        "in the socket's place: a file, a directory, a link, a living foreign socket; a dead one",
        "said and left alone; the dead one is taken over",
    ),
    (
        "a_sockets_file_that_is_deleted_is_opened_again",
        "the socket's file is deleted while it serves (gunicorn, unicorn)",
        "it is opened again at once, and the same is started with it; refused for a moment, none lost after that",
    ),
    (
        "an_application_that_removes_its_socket_at_every_start",
        "the application removes its socket's file whenever it is started",
        "opened again and started again less and less often, shown; upgrades as ever",
    ),
    (
        "a_user_who_removes_the_socket_all_the_time",
        "the application's user removes the socket's file again and again",
        "opened again less and less often; root's `status` and `upgrade` succeed; well again once it ends",
    ),
    (
        "what_is_missing_at_an_upgrade_is_said_and_the_old_generation_goes_on",
        "at an upgrade: no such user, group, command, virtualenv, release, secret; a broken run script, or none",
        "backed out with the reason; same master; none lost",
    ),
    (
        "what_is_missing_at_the_start_is_said",
        "at the start: no such user, group, release, command",
        "said; starts once it is fixed",
    ),
    (
        "limits_that_cannot_be_reached_are_said_and_the_nearest_are_used",
        "a limit above the host's",
        "said; the nearest is used",
    ),
];

#[test]
fn the_rows_are_tests() {
    support::faults::rows_are_tests(ROWS, include_str!("faults_host.rs"));
}

#[test]
fn the_page_has_every_row() {
    support::faults::page(ROWS, "the host and its users");
}

// --- the state

fn state(service: &Service) -> PathBuf {
    service.run_directory().join("state.json")
}

/// Whether a state that the runtime wrote is there. What stands in its place until then may be a FIFO, which nobody writes to,
/// or longer than memory is.
fn is_kept(path: &Path) -> bool {
    const BEGINNING: &[u8] = b"{\"format\":1,";
    let mut read = [0; BEGINNING.len()];
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        && fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut read).is_ok())
        && read == BEGINNING
}

/// Puts something else in the state's place.
fn replace(path: &Path, with: impl FnOnce(&Path, &str)) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    with(path, &text);
}

/// What is done to a state file, which had this text.
type Spoil = fn(&Path, &str);

/// What can be in the state's place, and what the log says of it.
fn states() -> Vec<(&'static str, Spoil)> {
    vec![
        ("cannot be read", |path, _| fs::write(path, "{\"format\": 1, ]").unwrap()),
        ("cannot be read", |path, text| fs::write(path, &text[..text.trim_end().len() / 2]).unwrap()),
        ("cannot be read", |path, _| fs::write(path, "").unwrap()),
        ("stream did not contain valid UTF-8", |path, _| fs::write(path, [0xff; 4096]).unwrap()),
        ("it is no file", |path, _| fs::create_dir(path).unwrap()),
        ("it is no file", |path, _| drop(run("mkfifo", &[path.to_str().unwrap()]))),
        ("cannot be read", |path, text| {
            fs::write(path, text).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_len(1 << 33).unwrap();
        }),
        ("symbolic link", |path, _| symlink("/etc/passwd", path).unwrap()),
        ("the machine was started anew since", |path, text| {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            let changed = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
            assert_ne!(changed, text);
            fs::write(path, changed).unwrap();
        }),
        ("its format is 99, and this runtime reads 1", |path, text| {
            fs::write(path, text.replace("\"format\":1", "\"format\":99")).unwrap();
        }),
        ("it is of \"another\"", |path, text| {
            let state: serde_json::Value = serde_json::from_str(text).unwrap();
            let name = state["application"].as_str().unwrap();
            fs::write(
                path,
                text.replace(&format!("\"application\":\"{name}\""), "\"application\":\"another\""),
            )
            .unwrap();
        }),
    ]
}

#[test]
fn a_state_that_cannot_be_used_is_said_and_the_keeper_has_another_copy() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let master = row.service.master();
    for (reason, make) in states() {
        let mark = row.kill_runtime_and(|service| replace(&state(service), make));
        row.service.log.wait(mark, &[reason], SOON);
        assert_eq!(row.service.master(), master, "{reason}");
        row.service.until("the state is kept again", |service| {
            let path = state(service);
            path.is_dir() || is_kept(&path)
        });
    }
    row.end();
}

/// Neither keeper nor state: the application is known by its environment, and its sockets are taken out of it.
#[test]
fn without_keeper_and_state_the_application_is_found_and_its_sockets_are_taken_out_of_it() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    for (number, (reason, make)) in states().into_iter().enumerate() {
        // Half of them, so that it does not take for ever; the other test has the others.
        if number % 3 != 0 {
            continue;
        }
        let old = row.service.master();
        let mark = row.kill_both(|service| replace(&state(service), make));
        row.service.log.wait(mark, &[reason], SOON);
        row.service.log.wait(mark, &["processes were found that no record names"], SOON);
        row.service.log.wait(mark, &["done:"], SOON);
        wait_until_gone(old, &row.service);
        // The old one finishes its requests.
        row.service.until_settled();
        assert_ne!(row.service.master(), old);
    }
    row.end();
}

fn wait_until_gone(pid: u32, service: &Service) {
    let until = Instant::now() + SOON;
    while support::host::lives(pid) {
        assert!(Instant::now() < until, "{pid} lives on; the log:\n{}", service.log.text(0));
        std::thread::yield_now();
    }
}

#[test]
fn unicorn_which_writes_over_its_environment_is_found_all_the_same() {
    let row = Row::begin(Server::Unicorn, Socket::Unix, "");
    let inode = row.service.inode();
    let old = row.service.master();
    let mark = row.kill_both(|service| fs::remove_file(state(service)).unwrap());
    wait_until_gone(old, &row.service);
    assert_eq!(row.service.inode(), inode, "{}", row.service.log.text(mark));
    row.end();
}

/// With a state that names processes which are not the service's, nobody is signalled who is not.
#[test]
fn a_state_that_names_foreign_processes_has_them_signalled_by_nobody() {
    let row = Row::begin(Server::Sync, Socket::Unix, "");
    let other = User::new();
    let scratch = row.service.scratch().to_owned();
    let mut root = row.service.foreign(None, &scratch.join("1.pid"));
    let mut others = row.service.foreign(Some(&other), &scratch.join("2.pid"));
    let pid = |name: &str| -> u32 {
        fs::read_to_string(scratch.join(name)).unwrap().trim().parse().expect("a pid")
    };
    let uid = row.service.user.uid;
    // Whose process, its start (none: a wrong one), and whose the state says it is.
    let cases = [
        (pid("1.pid"), true, uid),
        (pid("1.pid"), true, 0),
        (pid("2.pid"), true, uid),
        (pid("2.pid"), true, other.uid),
        (0, false, uid),
        (1, true, 0),
        (u32::MAX, false, uid),
    ];
    for (foreign, right_start, says) in cases {
        let master = row.service.master();
        let mark = row.kill_both(|service| {
            replace(&state(service), |path, text| {
                let mut state: serde_json::Value = serde_json::from_str(text).unwrap();
                let life = &mut state["generations"][0];
                let foreign = if foreign == 0 { master } else { foreign };
                let start = if right_start { start_of(foreign) } else { 1 };
                life["master"] = serde_json::json!([foreign, start]);
                life["session"] = serde_json::json!(foreign);
                life["uid"] = serde_json::json!(says);
                fs::write(path, state.to_string()).unwrap();
            });
        });
        row.service.log.wait(mark, &["done:"], SOON);
        row.service.until("the state names one generation", |service| {
            let text = fs::read_to_string(state(service)).unwrap_or_default();
            let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            state["generations"].as_array().is_some_and(|all| all.len() == 1)
        });
        wait_until_gone(master, &row.service);
        root.assert_untouched();
        others.assert_untouched();
    }
    row.end();
    root.assert_untouched();
    others.assert_untouched();
}

fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap()
}

/// Without keeper and runtime nobody reads what the server writes. The next run does again, or each request that writes would fail.
#[test]
fn what_a_server_writes_is_read_again_after_keeper_and_runtime_have_gone() {
    let service = Service::native(Server::Sync, Socket::Tcp, "");
    talkative(&service, 1);
    let mut row = Row::of(service.started());
    row.nothing_was_lost();
    let master = row.service.master();
    let mark = row.kill_both(|_| {});
    row.service.log.wait(mark, &["goes on under this run"], SOON);
    let row = Row::of_running(row);
    row.service.log.wait(mark, &["xxxxxxxxx"], SOON);
    assert_eq!(row.service.master(), master);
    row.end();
}

// --- who asks, and who shouts

/// Hundreds of connections: garbage, half lines, huge lines, and some who ask and never read.
const CONTROL_FLOOD: &str = r#"
import os, socket, sys
path, kinds = sys.argv[1], [b"garbage\n", b'{"ask":"sta', b"x" * 100000, b'{"ask":"status"}\n' * 9, b"", b"\0\xff\n"]
held, number = [], 0
while True:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        connection.connect(path)
        connection.send(kinds[number % len(kinds)])
        held.append(connection)
    except OSError:
        pass
    number += 1
    if len(held) > 400:
        held.pop(0).close()
    if number % 100 == 0:
        os.write(1, b".")
"#;

#[test]
fn a_flooded_control_socket_keeps_root_from_nothing() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "");
    let control = row.service.run_directory().join("control");
    let control = control.to_str().unwrap();
    let mut flood = Python::run(&row.service.user, CONTROL_FLOOD, &[control]);
    flood.wait_for_bytes(5);
    for _ in 0..20 {
        let begun = Instant::now();
        let output = row.service.runsmith(&["status"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    // No `Row::upgrade`: the flood is the user's as well, and not the service's.
    row.service.release(2, Release::Good);
    row.service.switch(2);
    let output = row.service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", said(&output));
    flood.wait_for_bytes(5);
    drop(flood);
    let fds = support::row::names(Path::new(&format!("/proc/{}/fd", row.service.runtime())));
    // 16 connections, and what the runtime has at rest.
    assert!(fds.len() < 48, "{fds:?}");
    row.nothing_was_lost();
    row.service.down();
}

#[test]
fn a_third_user_may_ask_nothing() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let third = User::new();
    let script = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))";
    let directory = row.service.directory.display().to_string();
    let ask = |user: &User, what: &str| {
        Python::output(user, script, &[env!("CARGO_BIN_EXE_runsmith"), what, &directory])
    };
    let master = row.service.master();
    for what in ["status", "upgrade"] {
        let output = ask(&third, what);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("only root and the application's user may"), "{}", said(&output));
    }
    assert_eq!(row.service.master(), master);
    for what in ["status", "upgrade"] {
        let output = ask(&row.service.user, what);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    assert_ne!(row.service.master(), master);
    drop(row);
}

/// Claims for every master that there is, by a process that is no worker.
const READINESS_FLOOD: &str = r#"
import os, socket, sys
path, number = sys.argv[1], 0
speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
speaker.connect(path)
while True:
    mine = []
    for p in os.listdir("/proc"):
        try:
            if p.isdigit() and os.stat("/proc/" + p).st_uid == os.getuid(): mine.append(p)
        except OSError: pass
    for pid in mine:
        for claim in (b"ready %s %d 1\n" % (pid.encode(), os.getpid()), b"READY=1\n", b"successor %s %d\n" % (pid.encode(), os.getpid()), b"x" * 9000, b"", b"\xff\0"):
            speaker.send(claim)
            number += 1
            if number % 100 == 0:
                os.write(1, b".")
"#;

#[test]
fn forged_claims_make_nothing_ready_and_a_flood_of_them_stops_nothing() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let ready = row.service.run_directory().join("ready");
    let ready = ready.to_str().unwrap();
    let third = User::new();
    let refused = Python::output(
        &third,
        "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(sys.argv[1])",
        &[ready],
    );
    assert!(said(&refused).contains("PermissionError"), "{}", said(&refused));

    let mark = row.service.begin_deploy(2, Release::Waiting);
    row.service.log.wait(mark, &["is master"], SOON);
    let mut flood = Python::run(&row.service.user, READINESS_FLOOD, &[ready]);
    flood.wait_for_bytes(30);
    assert_eq!(row.service.log.count(mark, "ready:"), 0, "{}", row.service.log.text(mark));
    assert_eq!(row.service.version(), "1");
    row.service.go();
    row.service.log.wait(mark, &["done:"], HANDOVER);
    drop(flood);
    row.end();
}

/// A datagram socket holds ten messages on a plain kernel (unix(7), max_dgram_qlen).
#[test]
fn forty_workers_that_get_ready_at_once_are_all_heard() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    service.rewrite(|pillar| pillar.replace("workers: 3", "workers: 40"));
    let service = service.started();
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(service.log.count(0, "does not know that worker"), 0, "{}", service.log.text(0));
    service.down();
}

// --- directories and disks

#[test]
fn a_run_directory_that_somebody_else_can_change_is_refused() {
    type Plant = fn(&Path, &User);
    let planted: [(&str, Plant); 4] = [
        ("belongs to somebody other than root", |path, user| {
            fs::create_dir(path).unwrap();
            chown(path, Some(user.uid), None).unwrap();
        }),
        ("others may write to", |path, _| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("is a link that somebody other than root has made", |path, user| {
            symlink("/etc", path).unwrap();
            std::os::unix::fs::lchown(path, Some(user.uid), None).unwrap();
        }),
        ("is no directory", |path, _| fs::write(path, "").unwrap()),
    ];
    for (reason, plant) in planted {
        let mut service = Service::native(Server::Sync, Socket::Tcp, "");
        let path = service.run_directory();
        let _ = fs::remove_dir(&path);
        plant(&path, &service.user);
        service.supervise();
        let line = service.log.wait(0, &["this run cannot begin"], START);
        assert!(line.text.contains(reason) && line.text.contains(path.to_str().unwrap()), "{}", line.text);
        assert!(service.user.processes().is_empty());
        // Mended, it starts by itself.
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        service.log.wait(line.next, &["ready:"], START);
        service.down();
    }
}

/// Root makes no directory where the user's link would have it made.
#[test]
fn a_run_directory_below_one_of_the_users_is_not_made() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let base = service.scratch().join("theirs");
    let aim = service.scratch().join("aim");
    fs::create_dir(&base).unwrap();
    fs::create_dir(&aim).unwrap();
    chown(&base, Some(service.user.uid), None).unwrap();
    symlink(&aim, base.join("run")).unwrap();
    let old = service.run_directory().display().to_string();
    service
        .edit_run(|text| text.replace(&format!("run: {old}"), &format!("run: {}/run/deep", base.display())));
    service.supervise();
    let line = service.log.wait(0, &["this run cannot begin"], START);
    assert!(line.text.contains("belongs to somebody other than root"), "{}", line.text);
    assert!(support::row::names(&aim).is_empty());
}

/// A file system of a few pages.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=16k,mode=0755", "tmpfs", path.to_str().unwrap()]);
        Self(path.to_owned())
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.join("filling")).unwrap();
        while file.write_all(&[b'x'; 512]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_for_the_state_costs_nothing() {
    let mut service = Service::native(Server::Gthread, Socket::Unix, "");
    let _ = fs::create_dir(service.run_directory());
    let small = Small::mount(&service.run_directory());
    service.supervise();
    service.log.wait(0, &["done: generation 1 serves alone"], START);
    let mut row = Row::of(service);
    // Room for the next state is reserved before the runtime answers.
    assert!(row.service.runsmith(&["status", "--quiet"]).status.success());
    small.fill();
    row.upgrade();
    // The next run starts on the full disk.
    let master = row.service.master();
    row.kill_runtime();
    assert_eq!(row.service.master(), master);
    row.upgrade();
    // With no keeper the file is all there is, and it is up to date.
    let master = row.service.master();
    row.kill_both(|_| {});
    assert_eq!(row.service.master(), master, "{}", row.service.log.text(0));
    // What a generation is made of is held without a file then, and the log says so.
    assert_eq!(row.service.log.count(0, "state.json cannot be written"), 0, "{}", row.service.log.text(0));
    fs::remove_file(row.service.run_directory().join("filling")).unwrap();
    row.upgrade();
    row.nothing_was_lost();
    row.service.sv("down");
    drop(small);
}

/// Text as it was before its rows were made to fit a width.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// --- the log

/// A release that writes so much for each request that any pipe is full soon.
fn talkative(service: &Service, number: u32) {
    service.release(number, Release::Good);
    let file = service.root.join(format!("releases/{number}/wsgi.py"));
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(
        "    body =",
        "    import sys; sys.stderr.write('x' * 3000 + '\\n'); sys.stderr.flush()\n    body =",
    );
    fs::write(file, text).unwrap();
}

/// svlogd stands still: the pipe fills, and requests go on.
#[test]
fn a_log_reader_that_stands_still_stops_no_request() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Tcp, "");
    service.supervise();
    service.wait_for_version("1", START);
    talkative(&service, 2);
    service.switch(2);
    assert!(service.runsmith(&["upgrade"]).status.success());
    kill(service.svlogd(), Signal::STOP);
    let begun = Instant::now();
    let load = Load::start(&service.address, 4, 1);
    // More than the pipes and buffers together hold.
    while load.seen().answers.len() < 400 {
        assert!(begun.elapsed() < START, "only {} answers", load.seen().answers.len());
        std::thread::yield_now();
    }
    service.release(3, Release::Good);
    service.switch(3);
    let output = service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", said(&output));
    kill(service.svlogd(), Signal::CONT);
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    let current = service.root.join("shared/logs/service/current");
    let until = Instant::now() + SOON;
    while !fs::read_to_string(&current)
        .unwrap_or_default()
        .contains("lines of the server found no room in the log")
    {
        assert!(Instant::now() < until, "{}", fs::read_to_string(&current).unwrap_or_default().len());
        std::thread::yield_now();
    }
    service.sv("down");
    service.assert_nothing_left();
}

/// svlogd stands still and the runtime is killed: the next run is started, though `finish` cannot write either.
#[test]
fn the_next_run_is_started_while_the_log_takes_nothing() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Tcp, "");
    service.supervise();
    service.wait_for_version("1", START);
    service.until_settled();
    kill(service.svlogd(), Signal::STOP);
    // Filled to the last byte: a short line finds no room either.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let log = format!("/proc/{}/fd/1", service.runtime());
    let mut log = fs::OpenOptions::new().append(true).custom_flags(nonblocking).open(log).unwrap();
    for size in [4096, 1] {
        while log.write(&vec![b'\n'; size]).is_ok() {}
    }
    let (master, runtime) = (service.master(), service.runtime());
    kill(runtime, Signal::KILL);
    let next = support::runsv::until_recorded(&service.directory, "the next run", |found| {
        found.state == 1 && found.pid != runtime && support::host::lives(found.pid)
    });
    service
        .until("the next run answers", |service| support::faults::state(service)["runtime_pid"] == next.pid);
    assert_eq!(service.master(), master);
    kill(service.svlogd(), Signal::CONT);
    service.sv("down");
    service.assert_nothing_left();
}

/// Nobody reads the log, not even runsv.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    service.supervise_by(Command::new("runsv"), writer);
    service.wait_for_version("1", START);
    let load = Load::start(&service.address, 4, 1);
    for number in 2..4 {
        talkative(&service, number);
        service.switch(number);
        let output = service.runsmith(&["upgrade"]);
        assert!(output.status.success(), "{}", said(&output));
        service.wait_for_version(&number.to_string(), SOON);
    }
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    service.sv("down");
    service.assert_nothing_left();
}

/// svlogd is killed again and again.
#[test]
fn a_log_reader_that_dies_loses_no_request() {
    let mut service = Service::native_with_log(Server::Sync, Socket::Tcp, "");
    service.supervise();
    service.wait_for_version("1", START);
    let load = Load::start(&service.address, 4, 1);
    let mut last = 0;
    for number in 2..5 {
        let pid = service.svlogd();
        assert_ne!(pid, last);
        last = pid;
        kill(pid, Signal::KILL);
        wait_until_gone(pid, &service);
        talkative(&service, number);
        service.switch(number);
        let output = service.runsmith(&["upgrade"]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    service.sv("down");
    service.assert_nothing_left();
}

// --- addresses

#[test]
fn a_port_that_another_process_has_is_said_and_taken_once_it_is_free() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let Address::Tcp(port) = service.address else { panic!("TCP") };
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    service.supervise();
    let line = service.log.wait(0, &["start FAILED"], START);
    assert!(line.text.contains("another process listens there"), "{}", line.text);
    let status = unwrapped(&said(&service.runsmith(&["status"])));
    assert!(status.contains("another process listens there"), "{status}");
    drop(other);
    service.log.wait(line.next, &["ready:"], START);
    service.down();
}

#[test]
fn what_is_in_a_unix_sockets_place_is_said_and_left_alone() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    let Address::Unix(path) = service.address.clone() else { panic!("Unix") };
    let path = Path::new(&path);
    fs::write(path, "precious").unwrap();
    service.supervise();
    service.log.wait(0, &["a file that is no socket is in its place"], START);
    assert_eq!(fs::read_to_string(path).unwrap(), "precious");

    let again = |service: &Service, reason: &str| {
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(
            said(&output).contains(reason) && said(&output).contains("nothing serves"),
            "{}",
            said(&output)
        );
    };
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    again(&service, "a directory is in its place");
    fs::remove_dir(path).unwrap();
    let precious = service.scratch().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, path).unwrap();
    again(&service, "a file that is no socket is in its place");
    assert!(path.is_symlink() && precious.exists());
    fs::remove_file(path).unwrap();
    // The user must be able to knock, or whoever listens there could not be told from a dead one.
    let foreign = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    again(&service, "another process listens there");
    // A dead one of the user's is what a killed server leaves. It takes the place at once, before the runtime opens its own there.
    let beside = path.with_extension("dead");
    let dead = Python::output(
        &service.user,
        "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])",
        &[beside.to_str().unwrap()],
    );
    assert!(dead.status.success(), "{}", said(&dead));
    fs::rename(&beside, path).unwrap();
    drop(foreign);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(service.version(), "1");
    service.down();
}

/// The file of the service's Unix socket.
fn socket(service: &Service) -> &Path {
    let Address::Unix(path) = &service.address else { panic!("Unix") };
    Path::new(path)
}

/// How often the socket was opened again, and how often a generation was started for that.
fn repairs(service: &Service) -> (usize, usize) {
    let text = service.log.text(0);
    (text.matches("it is opened again").count(), text.matches("new connections do not reach").count())
}

#[test]
fn a_sockets_file_that_is_deleted_is_opened_again() {
    for server in [Server::Gthread, Server::Unicorn] {
        let service = Service::start_native(server, Socket::Unix, "");
        let load = Load::start(&service.address, 4, 1);
        let master = service.master();
        service.until("enough requests", |_| load.seen().answers.len() > 50);
        let begun = Instant::now();
        fs::remove_file(socket(&service)).unwrap();
        service.until("another generation serves", |service| {
            !service.user.masters().contains(&master) && support::faults::serves(service)
        });
        let since = Instant::now();
        service.until("it answers", |_| !load.seen().versions_since(since).is_empty());
        let seen = load.finish();
        // Only whoever came before it was open again was refused: by what is not there, or by what nobody listens on yet.
        let is_refusal = |one: &&String| one.contains("No such file") || one.contains("refused");
        let other: Vec<_> = seen.failures.iter().filter(|one| !is_refusal(one)).collect();
        assert!(other.is_empty(), "{other:#?}\n{}", service.log.text(0));
        support::faults::measured("a_sockets_file_that_is_deleted_is_opened_again", &seen, begun.elapsed());
        assert_eq!(repairs(&service), (1, 1));
        // Nobody asks it any more, so nothing is excused from here on.
        Row::of(service).end();
    }
}

#[test]
fn an_application_that_removes_its_socket_at_every_start() {
    let mut service = Service::native(Server::Sync, Socket::Unix, "");
    let path = socket(&service).to_owned();
    let remove = format!("import os\ntry: os.unlink({path:?})\nexcept FileNotFoundError: pass");
    service.release_with(1, &remove, "");
    service.supervise();
    let begun = Instant::now();
    // The first time at once, then after five seconds, then after ten.
    let mut mark = 0;
    let mut starts = vec![];
    for _ in 0..3 {
        let line = service.log.wait(mark, &["new connections do not reach"], HANDOVER);
        starts.push(begun.elapsed().as_secs_f32());
        mark = line.next;
    }
    service.until("it is shown", |service| {
        let status = unwrapped(&said(&service.runsmith(&["status"])));
        status.contains("DEGRADED")
            && status.contains("times in a row: find out who does that)")
            && status.contains("retrying in")
    });
    assert!(starts[2] - starts[1] > 9.0 && starts[1] - starts[0] > 4.0, "{starts:?}");
    // Another release is deployed as ever; by the time that is loaded the address is open.
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(service.version(), "2");
    assert_eq!(service.runsmith(&["status"]).status.code(), Some(0));
    service.down();
}

#[test]
fn a_user_who_removes_the_socket_all_the_time() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let path = socket(&service).to_str().unwrap().to_owned();
    let begun = Instant::now();
    let script = "import os, sys, time\nsys.stdout.write('x'); sys.stdout.flush()\nwhile True:\n    try: os.unlink(sys.argv[1])\n    except FileNotFoundError: time.sleep(0.01)";
    let mut remover = Python::run(&service.user, script, &[&path]);
    remover.wait_for_bytes(1);
    service.log.wait(0, &["new connections do not reach"], HANDOVER);
    service.release(2, Release::Good);
    service.switch(2);
    // It may be removed in the moment in which it is opened; then the upgrade says so, and the next one succeeds.
    let mut upgrades = 0;
    service.until("an upgrade succeeds", |service| {
        upgrades += 1;
        service.runsmith(&["upgrade"]).status.code() == Some(0)
    });
    // A hand-over that opens it again may be under way.
    service.until("it is shown", |service| said(&service.runsmith(&["status"])).contains("DEGRADED"));
    let mark = service.log.mark();
    service.log.wait(mark, &["it is opened again"], HANDOVER);
    drop(remover);
    // At once, and then after 5, 10, 20 … seconds; each upgrade opens it once more.
    let (opened, started) = repairs(&service);
    let most = 2 + (begun.elapsed().as_secs_f32() / 5.0 + 1.0).log2().ceil() as usize;
    assert!(
        opened <= most + upgrades && started <= most,
        "{opened} {started} {most}\n{}",
        service.log.text(0)
    );
    // Whoever does not want to wait has it opened at once.
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.until("it is well again", |service| service.runsmith(&["status"]).status.code() == Some(0));
    assert_eq!(service.version(), "2");
    service.down();
}

// --- what a service is made of

/// Everything that can be missing at an upgrade: the old generation goes on, and whoever asked learns why.
#[test]
fn what_is_missing_at_an_upgrade_is_said_and_the_old_generation_goes_on() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "secrets: {API_TOKEN: \"sehr geheim 1\"}");
    let run_file = row.service.directory.join("run");
    let right = fs::read_to_string(&run_file).unwrap();
    let user = row.service.name.clone();
    let venv = support::host::virtualenv("gunicorn").display().to_string();
    let wrong: Vec<(&str, String)> = vec![
        (
            "there is no such user on this host: rst-nobody-x",
            right.replace(&format!("\nuser: {user}\n"), "\nuser: rst-nobody-x\n"),
        ),
        (
            "there is no such group on this host: rst-nobody-x",
            right.replace(&format!("\ngroup: {user}\n"), "\ngroup: rst-nobody-x\n"),
        ),
        ("gunicorn-x cannot be run", right.replace("\n  - gunicorn\n", "\n  - gunicorn-x\n")),
        ("gunicorn cannot be run", right.replace(&venv, "/nowhere/venv")),
    ];
    for (reason, text) in wrong {
        assert_ne!(text, right, "{reason}");
        row.service.edit_run(|_| text);
        row.upgrade_is_backed_out(reason);
    }
    row.service.edit_run(|_| right.clone());

    // A run script that cannot be read is said at once to whoever asks, and in the log to whoever used `sv`.
    let unreadable = [
        format!("{right}\nnonsense: 1\n"),
        right.replace("umask: \"0022\"", "umask: ["),
        "#!/bin/sh\nexec gunicorn\n".to_owned(),
        String::new(),
        "\u{0}\u{1}".to_owned(),
    ];
    for text in unreadable {
        let master = row.service.master();
        let is_ours =
            text.starts_with("#!/") && text.lines().next().is_some_and(|line| line.ends_with(" run"));
        row.service.edit_run(|_| text);
        let output = row.service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let mark = row.service.log.mark();
        row.service.sv("2");
        let line = row.service.log.wait(mark, &["hand-over FAILED"], SOON);
        assert!(line.text.contains("has mistakes") && line.text.contains("goes on serving"), "{}", line.text);
        assert_eq!(row.service.master(), master);
        if is_ours {
            // What serves is told of all the same.
            let output = row.service.runsmith(&["status"]);
            assert_eq!(output.status.code(), Some(2), "{}", said(&output));
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(told.contains(&format!("master {master}")), "{}", said(&output));
            assert!(said(&output).contains("until it is fixed"), "{}", said(&output));
            // What is asked quietly is whether it serves, and what serves does not read the run script.
            assert_eq!(row.service.runsmith(&["status", "--quiet"]).status.code(), Some(0));
        }
    }
    row.service.edit_run(|_| right.clone());

    // A runtime has its run directory until it ends.
    row.service.edit_run(|text| text.replace("/run\n", "/run2\n"));
    let output = row.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("if `layout.run` was changed while it ran"), "{}", said(&output));
    let mark = row.service.log.mark();
    row.service.sv("2");
    let line = row.service.log.wait(mark, &["hand-over FAILED"], SOON);
    assert!(
        line.text.contains("`layout.run` has changed, which takes `sv down` and `sv up`"),
        "{}",
        line.text
    );
    row.service.edit_run(|_| right.clone());

    // The run script is not there at all.
    let away = row.service.scratch().join("run.away");
    fs::rename(&run_file, &away).unwrap();
    let mark = row.service.log.mark();
    row.service.sv("2");
    let line = row.service.log.wait(mark, &["hand-over FAILED"], SOON);
    assert!(line.text.contains("cannot be read"), "{}", line.text);
    fs::rename(&away, &run_file).unwrap();

    let current = row.service.root.join("current");
    let release = fs::read_link(&current).unwrap();
    fs::remove_file(&current).unwrap();
    row.upgrade_is_backed_out("does it lead to a release?");
    symlink("releases/there-is-none", &current).unwrap();
    row.upgrade_is_backed_out("does it lead to a release?");
    fs::remove_file(&current).unwrap();
    symlink(&release, &current).unwrap();

    let secret = row.service.directory.join("env/API_TOKEN");
    let away = row.service.scratch().join("token.away");
    fs::rename(&secret, &away).unwrap();
    row.upgrade_is_backed_out("render the service again");
    fs::rename(&away, &secret).unwrap();
    row.upgrade();
    assert!(!row.service.log.text(0).contains("sehr geheim"));
    row.end();
}

/// The same at the first start: the log says it, and once it is fixed, it starts.
#[test]
fn what_is_missing_at_the_start_is_said() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let user = service.name.clone();
    let run_file = service.directory.join("run");
    let right = fs::read_to_string(&run_file).unwrap();
    service.edit_run(|text| text.replace(&format!("\nuser: {user}\n"), "\nuser: rst-nobody-x\n"));
    service.supervise();
    let line = service.log.wait(0, &["this run cannot begin"], START);
    assert!(line.text.contains("there is no such user on this host: rst-nobody-x"), "{}", line.text);
    service.edit_run(|_| right.replace(&format!("\ngroup: {user}\n"), "\ngroup: rst-nobody-x\n"));
    let line = service.log.wait(line.next, &["no such group on this host: rst-nobody-x"], START);
    let away = service.scratch().join("current.away");
    fs::rename(service.root.join("current"), &away).unwrap();
    service.edit_run(|_| right.clone());
    let line = service.log.wait(line.next, &["start FAILED"], START);
    assert!(line.text.contains("does it lead to a release?"), "{}", line.text);
    fs::rename(&away, service.root.join("current")).unwrap();
    service.edit_run(|_| right.replace("\n  - gunicorn\n", "\n  - gunicorn-x\n"));
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("gunicorn-x cannot be run"), "{}", said(&output));
    service.edit_run(|_| right.clone());
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    service.down();
}

#[test]
fn limits_that_cannot_be_reached_are_said_and_the_nearest_are_used() {
    let service =
        Service::start_native(Server::Sync, Socket::Tcp, "limits: {nofile: {soft: 900, hard: 2147483647}}");
    let Some(hard) = hard_limit(std::process::id()) else {
        panic!("this host has no limit on open files; the test needs one");
    };
    let line = service.log.wait(0, &["limit nofile"], SOON);
    assert!(
        line.text.contains(&format!("900:2147483647 cannot be reached here, it is 900:{hard}")),
        "{}",
        line.text
    );
    assert_eq!(hard_limit(service.master()), Some(hard));
    assert!(Process::read(service.master()).is_some());
    service.down();
}

fn hard_limit(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
    line.split_whitespace().nth(4).unwrap().parse().ok()
}
