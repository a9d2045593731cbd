//! The shell run script with a program that knows of no hand-over: it is stopped and started.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use support::service::{Release, Server, Service, Socket};
use support::{HANDOVER, START};

#[test]
fn any_program_is_stopped_and_started() {
    let service = Service::start(Server::Any, Socket::Tcp, "");
    assert_eq!(service.version(), "1");

    service.release(2, Release::Good);
    service.switch(2);
    let mark = service.log.mark();
    service.sv("2");
    service.log.wait(mark, &["cannot be handed over by a shell"], HANDOVER);
    service.log.wait(mark, &["runsmith: ready:"], START);
    service.wait_for_version("2", START);

    let mark = service.log.mark();
    let restart = service.sv("restart");
    assert!(restart.status.success(), "{restart:?}\n{}", service.log.text(mark));
    service.wait_for_version("2", START);

    service.sv("1");
    service.log.wait(mark, &["USR1 is not sent"], START);
    service.down();
}
