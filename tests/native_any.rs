//! Programs that are neither gunicorn nor unicorn, under load: uvicorn, puma, and one that only says READY=1.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;

use support::host::{require, virtualenv};
use support::load::{Load, Seen};
use support::row::said;
use support::service::{Release, Server, Service, Socket};
use support::{BOOT, HANDOVER, START};

/// What a release of uvicorn's is.
const ASGI: &str = r#"
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(3)
    body = b"RELEASE %d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"#;

/// A server that takes descriptor 3, says READY=1, and finishes its requests when it is told to end.
const PLAIN: &str = r#"
import os, select, signal, socket, threading, time
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
listener, (told, tell) = socket.socket(fileno=3), socket.socketpair()
listener.setblocking(False)
tell.setblocking(False)
signal.set_wakeup_fd(tell.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)
def answer(connection):
    connection.setblocking(True)
    request = b""
    while b"\r\n\r\n" not in request:
        part = connection.recv(4096)
        if not part:
            return
        request += part
    time.sleep(3 if b"/slow" in request else 0)
    body = b"RELEASE %d" % os.getpid()
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    connection.close()
HELLO
threads = []
while True:
    if told in select.select([listener, told], [], [])[0]:
        break
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    threads = [one for one in threads if one.is_alive()] + [threading.Thread(target=answer, args=(connection,))]
    threads[-1].start()
for thread in threads:
    thread.join()
"#;

const READY: &str = r#"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=up\nREADY=1\n", os.environ["NOTIFY_SOCKET"])"#;

/// A service of this command, with release 1 as `make` makes it.
fn start(socket: Socket, command: &str, more: &str, make: &dyn Fn(&Service, u32)) -> Service {
    let mut service = Service::native(Server::Any, socket, more);
    service.runs(command);
    make(&service, 1);
    service.started()
}

/// uvicorn and puma may close a connection that they have accepted and not yet read from when they are told to end: at each of four
/// deploys one of each of the four short clients.
const CLOSED: usize = 4 * 4;

/// Four deploys, four short and two kept-alive clients, and a request of three seconds in flight at each.
///
/// `excused`: connections that the server itself may close before it has read a request from them.
fn deploys(service: &Service, make: &dyn Fn(&Service, u32), excused: usize) {
    let inode = service.inode();
    let mut load = Load::start(&service.address, 4, 2);
    for number in 2..=5 {
        make(service, number);
        service.switch(number);
        load.slow();
        let mark = service.log.mark();
        service.sv("2");
        let end = service.log.wait(mark, &["runsmith: done:", "FAILED"], HANDOVER);
        assert!(end.text.contains("done:"), "{}", service.log.text(0));
        let since = load.seen().versions_since(end.at);
        assert!(since.iter().all(|version| *version == number.to_string()), "{since:?}");
    }
    let seen = load.finish_after(500);
    let closed = seen.failures.iter().filter(|failure| Seen::is_closed_unread(failure)).count();
    assert!(
        closed == seen.failures.len() && closed <= excused,
        "{:#?}\n{}",
        seen.failures,
        service.log.text(0)
    );
    assert_eq!(service.inode(), inode);
    service.master();
    service.down();
}

fn uvicorn(socket: Socket) {
    let program = virtualenv("uvicorn").join("bin/uvicorn");
    require("uvicorn", &program);
    let make = |service: &Service, number: u32| {
        service.release(number, Release::Good);
        let file = service.root.join(format!("releases/{number}/asgi.py"));
        fs::write(file, ASGI.replace("RELEASE", &number.to_string())).unwrap();
    };
    let command = format!("[{}, \"asgi:app\", --fd, \"3\"]", program.display());
    let service = start(socket, &command, "", &make);
    // When it is told to finish, uvicorn closes the connections that it has accepted and not read from yet
    // (h11_impl.py, shutdown): a client that comes in that millisecond has to ask again. At most one at each hand-over.
    deploys(&service, &make, CLOSED);
}

#[test]
fn uvicorn_tcp() {
    uvicorn(Socket::Tcp);
}

#[test]
fn uvicorn_unix() {
    uvicorn(Socket::Unix);
}

fn puma(socket: Socket) {
    require("puma", std::path::Path::new("/usr/bin/puma"));
    let make = |service: &Service, number: u32| service.release(number, Release::Good);
    let mut service = Service::native(Server::Any, socket, "");
    let bind = match &service.address {
        support::load::Address::Tcp(port) => format!("tcp://127.0.0.1:{port}"),
        support::load::Address::Unix(path) => format!("unix://{path}"),
    };
    service.runs(&format!("[/usr/bin/puma, -e, production, -t, \"4:8\", -b, \"{bind}\", config.ru]"));
    let service = service.started();
    // puma closes connections of which nothing has arrived yet (puma 5.6.5, server.rb, reactor_wakeup).
    deploys(&service, &make, CLOSED);
}

#[test]
fn puma_tcp() {
    puma(Socket::Tcp);
}

#[test]
fn puma_unix() {
    puma(Socket::Unix);
}

fn plain(service: &Service, number: u32, hello: &str) {
    service.release(number, Release::Good);
    let text = PLAIN.replace("RELEASE", &number.to_string()).replace("HELLO", hello);
    fs::write(service.root.join(format!("releases/{number}/serve.py")), text).unwrap();
}

#[test]
fn a_program_that_says_ready_hands_over_and_one_that_never_does_is_backed_out() {
    let make = |service: &Service, number: u32| plain(service, number, READY);
    let command = "[/usr/bin/python3, -u, serve.py]";
    let service =
        start(Socket::Unix, command, &format!("handoff: {{ready: notify, boot_timeout: {BOOT}}}"), &make);
    plain(&service, 9, "print('this one says nothing')");
    service.switch(9);
    let master = service.master();
    let load = Load::start(&service.address, 2, 0);
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains(&format!("the new master was not ready within {BOOT} s")), "{told}");
    assert!(told.contains("this one says nothing"), "{told}");
    assert_eq!(service.master(), master);
    let seen = load.finish();
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    service.wait_for_version("1", START);
    deploys(&service, &make, 0);
}
