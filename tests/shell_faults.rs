//! What goes wrong, with the shell run script: real runsv, real servers, real kills.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]

mod support;

use std::fs;

use rustix::process::Signal;

use support::host::{kill, lives};
use support::load::{Load, Seen};
use support::service::{Release, Server, Service, Socket};
use support::{BOOT, HANDOVER, NOTICED, SOON, START, STOP};

const DONE: &[&str] = &["runsmith: done:"];
const FAILED: &[&str] = &["runsmith: hand-over FAILED"];
const ASKED: &[&str] = &["is asked for a successor"];

/// Each of the clients has got each answer, and there were enough of them.
fn assert_no_failure(load: Load, service: &Service) -> Seen {
    let seen = load.finish_after(20);
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    seen
}

/// A bad release is backed out under load, and a good one can follow.
fn backs_out(server: Server, kind: Release, boot_timeout: u32, reason: &str) {
    let service = Service::start(server, Socket::Unix, &format!("handoff: {{boot_timeout: {boot_timeout}}}"));
    let (master, inode) = (service.master(), service.inode());
    let mut load = Load::start(&service.address, 2, 1);
    load.slow();
    let end = service.deploy(2, kind);
    assert!(end.text.contains("FAILED") && end.text.contains(reason), "{}", end.text);
    assert_eq!(service.master(), master, "the old master is the only one");
    assert!(!service.extra_pid_file().exists());
    assert_eq!(fs::read_to_string(service.pid_file()).unwrap().trim(), master.to_string());
    let end = service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    let seen = assert_no_failure(load, &service);
    assert_eq!(seen.versions_since(end.at).iter().filter(|version| *version != "3").count(), 0);
    assert_eq!(service.inode(), inode);
    service.assert_one_generation();
    service.down();
}

#[test]
fn gunicorn_release_that_cannot_be_imported() {
    backs_out(Server::Sync, Release::Broken, 30, "ended");
}

#[test]
fn unicorn_release_that_cannot_be_loaded() {
    backs_out(Server::Unicorn, Release::Broken, 30, "ended");
}

#[test]
fn gunicorn_release_that_never_becomes_ready() {
    backs_out(Server::Gthread, Release::Hanging, BOOT, &format!("not ready within {BOOT} s"));
}

#[test]
fn unicorn_release_that_never_becomes_ready() {
    backs_out(Server::Unicorn, Release::Hanging, BOOT, &format!("not ready within {BOOT} s"));
}

/// The old release is pruned before the hand-over; then `current` itself leads nowhere.
fn deleted_release(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let load = Load::start(&service.address, 2, 1);
    service.release(2, Release::Good);
    service.switch(2);
    fs::remove_dir_all(service.root.join("releases/1")).unwrap();
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    let master = service.master();
    fs::remove_dir_all(service.root.join("releases/2")).unwrap();
    let mark = service.log.mark();
    service.sv("2");
    let end = service.log.wait(mark, FAILED, SOON);
    assert!(end.text.contains("cannot enter"), "{}", end.text);
    assert_eq!(service.master(), master);
    let end = service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    assert_no_failure(load, &service);
    service.down();
}

#[test]
fn gunicorn_deleted_release() {
    deleted_release(Server::Sync);
}

#[test]
fn unicorn_deleted_release() {
    deleted_release(Server::Unicorn);
}

/// Numbers in PID files decide nothing: neither root's processes nor the user's own others are touched.
fn foreign_pid_files(server: Server) {
    let mut service = Service::render(server, Socket::Tcp, "");
    let mut roots = service.foreign(None, &service.pid_file());
    let mut users = service.foreign(Some(&service.user), &service.extra_pid_file());
    service.supervise();
    service.log.wait(0, &["runsmith: ready:"], START);
    roots.assert_untouched();
    users.assert_untouched();
    assert_eq!(service.version(), "1");

    let mut again = service.foreign(None, &service.extra_pid_file());
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    assert_eq!(service.version(), "2");
    let mut third = service.foreign(Some(&service.user), &service.pid_file());
    let end = service.deploy(3, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    service.sv("down");
    service.log.wait(0, &["nothing is left"], SOON);
    for process in [&mut roots, &mut users, &mut again, &mut third] {
        process.assert_untouched();
    }
}

#[test]
fn gunicorn_pid_files_that_name_others() {
    foreign_pid_files(Server::Sync);
}

#[test]
fn unicorn_pid_files_that_name_others() {
    foreign_pid_files(Server::Unicorn);
}

/// kill -9 of the first master, a child of the script, and of one that came by a hand-over.
fn master_killed_at_rest(server: Server, socket: Socket) {
    let service = Service::start(server, socket, "restart: {min_uptime: 1}");
    for number in [1, 2] {
        if number == 2 {
            service.deploy(2, Release::Good);
        }
        let master = service.master();
        let mark = service.log.mark();
        let killed = std::time::Instant::now();
        kill(master, Signal::KILL);
        let noticed = service.log.wait(mark, &[&format!("runsmith: master {master} ")], SOON);
        assert!(noticed.at - killed < NOTICED, "noticed after {:?}", noticed.at - killed);
        service.log.wait(mark, &["runsmith: ready:"], START);
        assert_eq!(service.version(), number.to_string());
        assert_ne!(service.master(), master);
        service.assert_one_generation();
    }
    service.down();
}

#[test]
fn gunicorn_master_killed_at_rest() {
    master_killed_at_rest(Server::Sync, Socket::Tcp);
}

#[test]
fn unicorn_master_killed_at_rest() {
    master_killed_at_rest(Server::Unicorn, Socket::Unix);
}

/// kill -9 of the old master while the new one loads: the new one takes over. kill -9 of the new
/// one while it loads: the old one goes on.
fn master_killed_during_hand_over(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let inode = service.inode();
    let old = service.master();
    let load = Load::start(&service.address, 2, 1);
    let mark = service.begin_deploy(2, Release::Waiting);
    let new = successor(&service, old, mark);
    kill(new, Signal::KILL);
    let end = service.log.wait(mark, FAILED, SOON);
    assert!(end.text.contains("ended before it was ready"), "{}", end.text);
    assert_no_failure(load, &service);
    assert_eq!(service.master(), old);

    let mark = service.begin_deploy(3, Release::Waiting);
    let new = successor(&service, old, mark);
    kill(old, Signal::KILL);
    service.log.wait(mark, &["is gone", "died of signal"], NOTICED);
    service.go();
    service.log.wait(mark, DONE, HANDOVER);
    assert_eq!(service.master(), new);
    service.assert_one_generation();
    assert_eq!(service.version(), "3");
    assert_eq!(service.inode(), inode);
    let end = service.deploy(4, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    service.down();
}

/// The new master, once the script says that it knows it.
fn successor(service: &Service, old: u32, mark: usize) -> u32 {
    let line = service.log.wait(mark, &["has a successor"], SOON);
    let new = line.text.rsplit_once("successor, ").expect("its number").1.parse().expect("a number");
    assert!(new != old && lives(new), "{}", line.text);
    new
}

#[test]
fn gunicorn_master_killed_during_hand_over() {
    master_killed_during_hand_over(Server::Sync);
}

#[test]
fn unicorn_master_killed_during_hand_over() {
    master_killed_during_hand_over(Server::Unicorn);
}

/// kill -9 of the old master while it finishes its requests.
fn master_killed_while_it_drains(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let inode = service.inode();
    let old = service.master();
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.begin_deploy(2, Release::Good);
    service.log.wait(mark, &["finishes its requests"], HANDOVER);
    kill(old, Signal::KILL);
    service.let_go();
    service.log.wait(mark, DONE, HANDOVER);
    // The worker with the request in flight lost its master, and finished the request all the same.
    assert_no_slow_failure(&load.finish(), &service);
    service.assert_one_generation();
    assert_eq!(service.version(), "2");
    assert_eq!(service.inode(), inode);
    service.down();
}

#[test]
fn gunicorn_master_killed_while_it_drains() {
    master_killed_while_it_drains(Server::Sync);
}

#[test]
fn unicorn_master_killed_while_it_drains() {
    master_killed_while_it_drains(Server::Unicorn);
}

/// `sv restart` is a hand-over and reports success.
fn restart(server: Server) {
    let service = Service::start(server, Socket::Tcp, "");
    let old = service.master();
    let mut load = Load::start(&service.address, 4, 1);
    load.slow();
    service.release(2, Release::Good);
    service.switch(2);
    let mark = service.log.mark();
    let output = service.sv("restart");
    assert!(output.status.success(), "sv restart: {output:?}\n{}", service.log.text(0));
    service.log.wait(mark, DONE, HANDOVER);
    assert_no_failure(load, &service);
    assert_ne!(service.master(), old);
    assert_eq!(service.version(), "2");
    service.assert_one_generation();
    assert!(service.checks());
    service.down();
}

#[test]
fn gunicorn_restart() {
    restart(Server::Sync);
}

#[test]
fn unicorn_restart() {
    restart(Server::Unicorn);
}

/// `sv down` while the new master loads, and while the old one finishes a request.
fn down_during_hand_over(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let mark = service.begin_deploy(2, Release::Waiting);
    service.log.wait(mark, &["has a successor"], SOON);
    service.down();

    service.switch(1);
    let mark = service.log.mark();
    service.sv("up");
    service.log.wait(mark, &["runsmith: ready:"], START);
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.begin_deploy(3, Release::Good);
    service.log.wait(mark, &["finishes its requests"], HANDOVER);
    let mark = service.log.mark();
    service.begin_down();
    service.log.wait(mark, &["runsmith: stopping"], SOON);
    service.let_go();
    service.log.wait(mark, &["nothing is left"], STOP);
    service.assert_nothing_left();
    assert_no_slow_failure(&load.finish(), &service);
}

fn assert_no_slow_failure(seen: &Seen, service: &Service) {
    assert!(seen.failures.is_empty() && seen.answers.len() == 1, "{seen:?}\n{}", service.log.text(0));
}

#[test]
fn gunicorn_down_during_hand_over() {
    down_during_hand_over(Server::Sync);
}

#[test]
fn unicorn_down_during_hand_over() {
    down_during_hand_over(Server::Unicorn);
}

/// Three more requests during a hand-over make one more hand-over.
#[test]
fn asked_again_during_hand_over() {
    let service = Service::start(Server::Gthread, Socket::Tcp, "");
    let load = Load::start(&service.address, 2, 1);
    let mark = service.begin_deploy(2, Release::Waiting);
    service.log.wait(mark, &["has a successor"], SOON);
    service.release(3, Release::Good);
    service.switch(3);
    for command in ["2", "hup", "quit"] {
        service.sv(command);
    }
    service.go();
    let first = service.log.wait(mark, DONE, HANDOVER);
    service.log.wait(first.next, DONE, HANDOVER);
    assert_no_failure(load, &service);
    assert_eq!(service.version(), "3");
    service.assert_one_generation();
    let mark = service.log.mark();
    service.sv("alarm");
    service.log.wait(mark, &["runsmith: status: serving"], SOON);
    assert_eq!(service.log.count(0, ASKED[0]), 2);
    service.down();
}

/// `sv kill` ends the run script only.
fn script_killed(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let master = service.master();
    let mut load = Load::start(&service.address, 2, 1);

    let mark = service.log.mark();
    service.sv("kill");
    service.log.wait(mark, &["goes on under this run"], SOON);
    assert_eq!(service.master(), master);
    assert!(service.checks());

    // During a hand-over: it is backed out, because nobody heard which workers are ready.
    let mark = service.begin_deploy(2, Release::Waiting);
    service.log.wait(mark, &["has a successor"], SOON);
    service.sv("kill");
    service.log.wait(mark, FAILED, HANDOVER);
    assert_eq!(service.master(), master);
    assert_eq!(service.version(), "1");

    // While the old master finishes a request: the next run sees it out.
    load.held(&service);
    let mark = service.begin_deploy(3, Release::Good);
    service.log.wait(mark, &["finishes its requests"], HANDOVER);
    service.sv("kill");
    service.let_go();
    service.log.wait(mark, DONE, HANDOVER);
    service.assert_one_generation();
    assert_no_failure(load, &service);
    assert_eq!(service.version(), "3");
    service.down();
}

#[test]
fn gunicorn_script_killed() {
    script_killed(Server::Sync);
}

#[test]
fn unicorn_script_killed() {
    script_killed(Server::Unicorn);
}

/// The run script is killed while it stops the service: nobody would run it again, so `finish` ends the rest.
#[test]
fn script_killed_while_it_stops() {
    let service = Service::start(Server::Sync, Socket::Unix, "");
    let mut load = Load::start(&service.address, 0, 0);
    load.held(&service);
    let mark = service.log.mark();
    service.begin_down();
    service.log.wait(mark, &["runsmith: stopping"], SOON);
    // `sv kill` would wait for the end of it all.
    service.begin("kill");
    service.let_go();
    service.log.wait(mark, &["nothing is left"], HANDOVER);
    service.assert_nothing_left();
    assert_no_slow_failure(&load.finish(), &service);
}

/// A server that cannot start is tried again ever more rarely, and at once when a new release comes.
#[test]
fn server_that_cannot_start() {
    let mut service =
        Service::render(Server::Sync, Socket::Tcp, "restart: {backoff_initial: 2, backoff_max: 600}");
    service.release(1, Release::Broken);
    let begun = std::time::Instant::now();
    service.supervise();
    let first = service.log.wait(0, &["next start in 2 s"], START);
    let second = service.log.wait(first.next, &["next start in 4 s"], START);
    // From a moment that is surely before the wait: a line may be read long after it was written.
    assert!((second.at - begun).as_secs_f32() > 2.0);
    assert!(!service.checks());
    let mark = service.log.mark();
    service.release(2, Release::Good);
    service.switch(2);
    service.sv("2");
    service.log.wait(mark, &["runsmith: ready:"], START);
    assert_eq!(service.version(), "2");
    service.down();
}

/// Only what is written into the FIFO by a worker of the right master counts, and rubbish does no harm.
#[test]
fn claims_are_checked() {
    use std::io::Write as _;

    let service = Service::start(Server::Sync, Socket::Tcp, &format!("handoff: {{boot_timeout: {BOOT}}}"));
    let old = service.master();
    let fifo = service.run_directory().join("ready");
    let mut fifo = fs::OpenOptions::new().write(true).open(fifo).unwrap();
    let mark = service.begin_deploy(2, Release::Hanging);
    let new = successor(&service, old, mark);
    let own = std::process::id();
    let worker = service.user.processes().iter().find(|one| one.parent == old).unwrap().pid;
    let rubbish = format!(
        "ready {new} {own} 1\nready {new} {worker} 1\nready {new} {new} 1\nready 1 1 1\nready $(reboot) 1 1\n\0\u{1}\n{}\n",
        "x".repeat(4000)
    );
    for _ in 0..20 {
        fifo.write_all(rubbish.as_bytes()).unwrap();
    }
    let end = service.log.wait(mark, &["done:", "FAILED"], HANDOVER);
    assert!(end.text.contains(&format!("not ready within {BOOT} s (0 of")), "{}", end.text);
    assert_eq!(service.master(), old);
    service.down();
}

/// kill -9 of runsv: its run script leaves, the next runsv's goes on with the same server.
#[test]
fn runsv_killed() {
    let mut service = Service::start(Server::Sync, Socket::Tcp, "");
    let master = service.master();
    let load = Load::start(&service.address, 2, 1);
    service.kill_runsv();
    service.log.wait(0, &["this script leaves, the application goes on"], SOON);
    service.supervise();
    service.log.wait(0, &["goes on under this run"], SOON);
    assert_eq!(service.master(), master);
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    assert_no_failure(load, &service);
    service.assert_one_generation();
    service.down();
}

/// Somebody sends USR2 to the master by hand: the script completes what was begun.
fn usr2_by_hand(server: Server) {
    let service = Service::start(server, Socket::Unix, "");
    let load = Load::start(&service.address, 2, 1);
    service.release(2, Release::Good);
    service.switch(2);
    let mark = service.log.mark();
    kill(service.master(), Signal::USR2);
    service.log.wait(mark, DONE, HANDOVER);
    assert_no_failure(load, &service);
    service.assert_one_generation();
    assert_eq!(service.version(), "2");
    service.down();
}

#[test]
fn gunicorn_usr2_by_hand() {
    usr2_by_hand(Server::Sync);
}

#[test]
fn unicorn_usr2_by_hand() {
    usr2_by_hand(Server::Unicorn);
}

/// `sv 1` reaches the server as what it is; a server that loads gets it later, because it would die of it.
#[test]
fn logs_are_reopened() {
    let mut service = Service::render(Server::Sync, Socket::Tcp, "");
    service.release(1, Release::Waiting);
    service.supervise();
    service.log.wait(0, &["runsmith: starting"], START);
    service.sv("1");
    service.go();
    service.log.wait(0, &["runsmith: ready:"], START);
    service.log.wait(0, &["Handling signal: usr1"], SOON);
    service.down();
}
