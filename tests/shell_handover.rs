//! Deploys under load with the shell run script: real runsv, real servers, no request lost.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]

mod support;

use support::load::Load;
use support::service::{Release, Server, Service, Socket};

/// Deploys in a row.
const DEPLOYS: u32 = 5;

/// Eight clients with a connection for each request, two that keep theirs, and a three-second
/// request in flight at each deploy.
fn drops_nothing(server: Server, socket: Socket) {
    let service = Service::start(server, socket, "");
    let inode = service.inode();
    let mut load = Load::start(&service.address, 8, 2);
    let mut ends = vec![];
    let mut seconds = vec![];
    for number in 2..2 + DEPLOYS {
        load.slow();
        let before = std::time::Instant::now();
        let end = service.deploy(number, Release::Good);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        seconds.push((end.at - before).as_secs_f32());
        service.assert_one_generation();
        assert_eq!(service.version(), number.to_string(), "the new release answers");
        assert_eq!(service.inode(), inode, "the Unix socket is the same file");
        ends.push((number, end.at));
    }
    let seen = load.finish_after(100 * DEPLOYS as usize);
    for (number, end) in ends {
        let since = seen.versions_since(end);
        assert!(
            since.iter().all(|version| version.parse::<u32>().is_ok_and(|it| it >= number)),
            "after {number} took over: {since:?}"
        );
    }
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    service.down();
    println!(
        "{server:?} {socket:?}: {} requests, 0 failed, seconds per deploy {seconds:.1?}",
        seen.answers.len()
    );
}

#[test]
fn gunicorn_sync_on_tcp() {
    drops_nothing(Server::Sync, Socket::Tcp);
}

#[test]
fn gunicorn_sync_on_unix() {
    drops_nothing(Server::Sync, Socket::Unix);
}

#[test]
fn gunicorn_gthread_on_tcp() {
    drops_nothing(Server::Gthread, Socket::Tcp);
}

#[test]
fn gunicorn_gthread_on_unix() {
    drops_nothing(Server::Gthread, Socket::Unix);
}

#[test]
fn gunicorn_gevent_on_tcp() {
    drops_nothing(Server::Gevent, Socket::Tcp);
}

#[test]
fn gunicorn_gevent_on_unix() {
    drops_nothing(Server::Gevent, Socket::Unix);
}

#[test]
fn unicorn_on_tcp() {
    drops_nothing(Server::Unicorn, Socket::Tcp);
}

#[test]
fn unicorn_on_unix() {
    drops_nothing(Server::Unicorn, Socket::Unix);
}
