//! Deploys under load with runsmith's own runtime: real runsv, real servers, no request lost.
//!
//! A few hand-overs each, as a test; `make soak` goes on until there were very many (docs/soak.md).

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::load::{Load, Seen};
use support::service::{Release, Server, Service, Socket};

/// The cases: the test's name, the server, where it listens, and how it is replaced.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("gunicorn_sync_tcp", "gunicorn, sync", "TCP", "sockets"),
    ("gunicorn_sync_unix", "gunicorn, sync", "Unix", "sockets"),
    ("gunicorn_gthread_tcp", "gunicorn, gthread", "TCP", "sockets"),
    ("gunicorn_gthread_unix", "gunicorn, gthread", "Unix", "sockets"),
    ("gunicorn_gevent_tcp", "gunicorn, gevent", "TCP", "sockets"),
    ("gunicorn_gevent_unix", "gunicorn, gevent", "Unix", "sockets"),
    ("unicorn_tcp", "unicorn", "TCP", "sockets"),
    ("unicorn_unix", "unicorn", "Unix", "sockets"),
    ("gunicorn_by_usr2_unix", "gunicorn, gthread", "Unix", "usr2"),
    ("unicorn_by_usr2_tcp", "unicorn", "TCP", "usr2"),
];

/// How far a long run goes: at least so many hand-overs and so many requests.
const SOAK: (u32, usize) = (100, 100_000);

/// Where the numbers of a long run are collected: by `make soak`.
fn soak() -> Option<PathBuf> {
    std::env::var_os("RUNSMITH_SOAK").map(PathBuf::from)
}

/// Deploys until it is enough, a request of three seconds in flight at each; from `first` on. How many there were.
fn deploy_often(service: &Service, load: &mut Load, first: u32, few: u32) -> u32 {
    let (least, requests) = if soak().is_some() { SOAK } else { (few, 0) };
    let mut count = 0;
    while count < least || load.count() < requests {
        let number = first + count;
        load.slow();
        let end = service.deploy(number, Release::Good);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        let since = load.seen().versions_since(end.at);
        assert!(since.iter().all(|version| *version == number.to_string()), "{since:?}");
        count += 1;
    }
    count
}

/// Nothing was lost and nothing is left; the numbers are written down if they are collected.
fn ends(name: &str, service: &Service, load: Load, inode: Option<u64>, count: u32, begun: Instant) {
    let seen = load.finish_after(1000);
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    assert_eq!(service.inode(), inode);
    service.assert_one_generation();
    service.down();
    let Some(directory) = soak() else { return };
    fs::create_dir_all(&directory).expect("a directory for numbers");
    fs::write(directory.join(name), numbers(&seen, count, begun.elapsed())).expect("numbers");
}

fn numbers(seen: &Seen, count: u32, took: Duration) -> String {
    let mut short: Vec<Duration> =
        seen.answers.iter().filter(|answer| !answer.slow).map(|answer| answer.took).collect();
    short.sort();
    let at = |share: usize| short[(short.len() - 1) * share / 1000].as_secs_f64() * 1000.0;
    format!(
        "{count} | {} | {} | {:.1} | {:.1} | {:.0} | {:.0}",
        seen.answers.len() + seen.failures.len(),
        seen.failures.len(),
        at(500),
        at(999),
        at(1000),
        took.as_secs_f64()
    )
}

/// Five deploys, eight short and two kept-alive clients.
fn deploys(name: &str, server: Server, socket: Socket) {
    let service = Service::start_native(server, socket, "");
    let (inode, begun) = (service.inode(), Instant::now());
    let mut load = Load::start(&service.address, 8, 2);
    let count = deploy_often(&service, &mut load, 2, 5);
    ends(name, &service, load, inode, count, begun);
}

#[test]
fn gunicorn_sync_tcp() {
    deploys("gunicorn_sync_tcp", Server::Sync, Socket::Tcp);
}

#[test]
fn gunicorn_sync_unix() {
    deploys("gunicorn_sync_unix", Server::Sync, Socket::Unix);
}

#[test]
fn gunicorn_gthread_tcp() {
    deploys("gunicorn_gthread_tcp", Server::Gthread, Socket::Tcp);
}

#[test]
fn gunicorn_gthread_unix() {
    deploys("gunicorn_gthread_unix", Server::Gthread, Socket::Unix);
}

#[test]
fn gunicorn_gevent_tcp() {
    deploys("gunicorn_gevent_tcp", Server::Gevent, Socket::Tcp);
}

#[test]
fn gunicorn_gevent_unix() {
    deploys("gunicorn_gevent_unix", Server::Gevent, Socket::Unix);
}

#[test]
fn unicorn_tcp() {
    deploys("unicorn_tcp", Server::Unicorn, Socket::Tcp);
}

#[test]
fn unicorn_unix() {
    deploys("unicorn_unix", Server::Unicorn, Socket::Unix);
}

/// The same by USR2, where the server keeps its sockets and starts its successor itself; a broken release is among them.
fn deploys_by_usr2(name: &str, server: Server, socket: Socket) {
    let service = Service::start_native(server, socket, "handoff: {strategy: usr2}");
    let (inode, begun) = (service.inode(), Instant::now());
    let mut load = Load::start(&service.address, 8, 2);
    let count = deploy_often(&service, &mut load, 2, 3);
    let master = service.master();
    let next = count + 2;
    let end = service.deploy(next, Release::Broken);
    assert!(end.text.contains("FAILED"), "{}", service.log.text(0));
    assert_eq!(service.master(), master);
    let end = service.deploy(next + 1, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    ends(name, &service, load, inode, count + 1, begun);
}

#[test]
fn gunicorn_by_usr2_unix() {
    deploys_by_usr2("gunicorn_by_usr2_unix", Server::Gthread, Socket::Unix);
}

#[test]
fn unicorn_by_usr2_tcp() {
    deploys_by_usr2("unicorn_by_usr2_tcp", Server::Unicorn, Socket::Tcp);
}

const HEAD: &str = "\
| server | socket | strategy | hand-overs | requests | failed | median, ms | 99.9 %, ms | slowest, ms | took, s |
|---|---|---|---|---|---|---|---|---|---|
";

/// Where the second table begins, whose numbers tests/sv.rs takes.
const GROWTH: &str = "<!-- growth: printed by `make soak` -->\n";

/// docs/soak.md has a row for each case, and says of each that nothing failed; `make soak` writes it anew.
#[test]
fn the_page_has_the_cases() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/soak.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once("<!-- printed by `make soak` -->\n").expect("the table's beginning");
    let (table, after) = rest.split_once("<!-- end -->\n").expect("the table's end");
    if let (Some(directory), Some(_)) = (soak(), std::env::var_os("RUNSMITH_BLESS")) {
        let mut new = HEAD.to_owned();
        for (name, server, socket, strategy) in CASES {
            let line = fs::read_to_string(directory.join(name)).expect("a case's numbers");
            new.push_str(&format!("| {server} | {socket} | {strategy} | {line} |\n"));
        }
        let text = format!("{before}<!-- printed by `make soak` -->\n{new}<!-- end -->\n{after}");
        let (before, rest) = text.split_once(GROWTH).expect("the second table's beginning");
        let (_, after) = rest.split_once("<!-- end -->\n").expect("the second table's end");
        let growth = fs::read_to_string(directory.join("upgrades")).expect("the numbers of tests/sv.rs");
        fs::write(&path, format!("{before}{GROWTH}{growth}<!-- end -->\n{after}")).expect("the page");
        return;
    }
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let wanted: Vec<Vec<&str>> =
        CASES.iter().map(|(_, server, socket, strategy)| vec![*server, *socket, *strategy]).collect();
    let told: Vec<Vec<&str>> = rows.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(told, wanted, "docs/soak.md has other rows than the cases; run `make soak`");
    for row in rows {
        let number = |at: usize| row[at].parse::<usize>().expect("a number");
        assert!(number(3) >= SOAK.0 as usize && number(4) >= SOAK.1 && number(5) == 0, "{row:?}");
    }
}
