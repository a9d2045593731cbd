//! Deploys under load with runsmith's own runtime: real runsv, real servers, no request lost.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use support::load::Load;
use support::service::{Release, Server, Service, Socket};

/// Five deploys, eight short and two kept-alive clients, and a request of three seconds in flight at each.
fn deploys(server: Server, socket: Socket) {
    let service = Service::start_native(server, socket, "");
    let inode = service.inode();
    let mut load = Load::start(&service.address, 8, 2);
    for number in 2..=6 {
        load.slow();
        let end = service.deploy(number, Release::Good);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        let since = load.seen().versions_since(end.at);
        assert!(since.iter().all(|version| *version == number.to_string()), "{since:?}");
    }
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    assert!(seen.answers.len() > 1000, "only {} requests", seen.answers.len());
    assert_eq!(service.inode(), inode);
    service.assert_one_generation();
    service.down();
}

#[test]
fn gunicorn_sync_tcp() {
    deploys(Server::Sync, Socket::Tcp);
}

#[test]
fn gunicorn_gthread_unix() {
    deploys(Server::Gthread, Socket::Unix);
}

#[test]
fn gunicorn_gevent_tcp() {
    deploys(Server::Gevent, Socket::Tcp);
}

#[test]
fn unicorn_unix() {
    deploys(Server::Unicorn, Socket::Unix);
}

#[test]
fn unicorn_tcp() {
    deploys(Server::Unicorn, Socket::Tcp);
}

/// The same by USR2, where the server keeps its sockets and starts its successor itself.
fn deploys_by_usr2(server: Server, socket: Socket) {
    let service = Service::start_native(server, socket, "handoff: {strategy: usr2}");
    let inode = service.inode();
    let mut load = Load::start(&service.address, 4, 2);
    for number in 2..=4 {
        load.slow();
        let end = service.deploy(number, Release::Good);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        let since = load.seen().versions_since(end.at);
        assert!(since.iter().all(|version| *version == number.to_string()), "{since:?}");
    }
    let master = service.master();
    let end = service.deploy(5, Release::Broken);
    assert!(end.text.contains("FAILED"), "{}", service.log.text(0));
    assert_eq!(service.master(), master);
    let end = service.deploy(6, Release::Good);
    assert!(end.text.contains("done:"), "{}", service.log.text(0));
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, service.log.text(0));
    assert_eq!(service.inode(), inode);
    service.assert_one_generation();
    service.down();
}

#[test]
fn gunicorn_by_usr2_unix() {
    deploys_by_usr2(Server::Gthread, Socket::Unix);
}

#[test]
fn unicorn_by_usr2_tcp() {
    deploys_by_usr2(Server::Unicorn, Socket::Tcp);
}
