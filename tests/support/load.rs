//! Clients that never stop asking. HTTP/1.1 by hand, so that nothing is retried behind the test's back.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a client waits for an answer before it counts as failed: longer than any boot on a busy machine.
const ANSWER: Duration = Duration::from_secs(120);
/// Between two requests of one client: ten clients without it would take both cores from the server.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the service listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(u16),
    Unix(String),
}

/// An answered request: when it was begun, and which version of the application answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub begun: Instant,
    pub took: Duration,
    /// It was asked to take three seconds.
    pub slow: bool,
    pub version: String,
    pub body: String,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub answers: Vec<Answer>,
    pub failures: Vec<String>,
}

impl Seen {
    /// Whether a request failed because the server closed its connection before it had read from it, as a server may that is told to
    /// end: a request that is written to a Unix socket after that is a broken pipe.
    pub fn is_closed_unread(failure: &str) -> bool {
        ["short: Connection reset", "short: unexpected end of file", "short: Broken pipe"]
            .iter()
            .any(|how| failure.starts_with(how))
    }

    /// Versions that answered a request begun after `since`.
    pub fn versions_since(&self, since: Instant) -> Vec<String> {
        let mut versions: Vec<_> = self
            .answers
            .iter()
            .filter(|answer| answer.begun > since)
            .map(|answer| answer.version.clone())
            .collect();
        versions.sort();
        versions.dedup();
        versions
    }
}

trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// Makes a call again that a signal has interrupted. A read with a limit of time is interrupted by SIGSTOP and SIGCONT, too,
/// which no handler has to be there for (signal(7)); nothing of it was done, so it is no failure of who was asked.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // That is what the kernel calls a limit that is over.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER:?}")));
            }
            other => return other,
        }
    }
}

/// One connection. What a signal interrupts is done again, whoever reads or writes.
pub struct Connection(Box<dyn Stream>);

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        again(|| self.0.read(buffer))
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        again(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        again(|| self.0.flush())
    }
}

/// Why a request was not answered.
pub enum Trouble {
    /// The server had closed a kept-alive connection that lay idle: nothing was lost, the client opens another one.
    ClosedWhileIdle,
    Failed(io::Error),
}

impl Address {
    /// A connection to it.
    pub fn connect(&self) -> io::Result<Connection> {
        Ok(Connection(match self {
            Self::Tcp(port) => {
                let stream = again(|| TcpStream::connect(("127.0.0.1", *port)))?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = again(|| UnixStream::connect(path))?;
                stream.set_read_timeout(Some(ANSWER))?;
                Box::new(stream)
            }
        }))
    }

    /// One request on a connection of its own.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut connection = self.connect()?;
        match connection.get(path, false, false) {
            Ok((body, _)) => Ok(body),
            Err(Trouble::Failed(error)) => Err(error),
            Err(Trouble::ClosedWhileIdle) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Connection {
    /// The body, and whether the connection stays open. `keep`: it is to; `used`: it had a request before.
    pub fn get(&mut self, path: &str, keep: bool, used: bool) -> Result<(String, bool), Trouble> {
        let idle = |error: io::Error| {
            let closed =
                [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            if used && closed.contains(&error.kind()) {
                Trouble::ClosedWhileIdle
            } else {
                Trouble::Failed(error)
            }
        };
        let connection = if keep { "keep-alive" } else { "close" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        self.write_all(request.as_bytes()).map_err(idle)?;
        let mut bytes = vec![];
        let mut part = [0; 32_768];
        loop {
            let count = match self.read(&mut part) {
                Ok(0) if bytes.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(0) => Err(io::Error::other(format!("the answer ends after {} bytes", bytes.len()))),
                other => other,
            }
            // Once the answer has begun, nothing is excused.
            .map_err(|error| if bytes.is_empty() { idle(error) } else { Trouble::Failed(error) })?;
            bytes.extend_from_slice(&part[..count]);
            if let Some(answer) = parse(&bytes).map_err(|what| Trouble::Failed(io::Error::other(what)))? {
                return Ok(answer);
            }
        }
    }
}

/// The body and whether the connection stays open, once the whole answer is there.
fn parse(bytes: &[u8]) -> Result<Option<(String, bool)>, String> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200 ") && !head.starts_with("HTTP/1.0 200 ") {
        return Err(format!("the answer was {head:?}"));
    }
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize =
        header("content-length").and_then(|value| value.parse().ok()).ok_or("no Content-Length")?;
    let open = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((body.len() >= length).then(|| (body.to_owned(), open)))
}

/// Running clients.
pub struct Load {
    address: Address,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    /// There is one more answer.
    more: Condvar,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Shared {
    fn note(&self, begun: Instant, what: &str, result: Result<String, String>) {
        let mut seen = self.seen.lock().unwrap();
        match result {
            Ok(body) => {
                let version = body.split(' ').next().unwrap_or_default().to_owned();
                let slow = what == "slow:";
                seen.answers.push(Answer { begun, took: begun.elapsed(), slow, version, body });
                self.more.notify_all();
            }
            Err(error) => seen.failures.push(format!("{what} {error}, begun {:?} ago", begun.elapsed())),
        }
    }

    /// True when the clients are to end.
    fn pause(&self) -> bool {
        let stopped = self.stopped.lock().unwrap();
        *self.stop.wait_timeout(stopped, PAUSE).unwrap().0
    }
}

impl Load {
    /// `short` clients with a connection for each request, `kept` ones that keep theirs.
    pub fn start(address: &Address, short: usize, kept: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = (0..short + kept)
            .map(|number| {
                let (address, shared) = (address.clone(), Arc::clone(&shared));
                std::thread::spawn(move || {
                    if number < short {
                        ask_shortly(&address, &shared)
                    } else {
                        ask_kept_alive(&address, &shared)
                    }
                })
            })
            .collect();
        Self { address: address.clone(), shared, clients }
    }

    /// Begins one request that takes three seconds; its end is counted with the others.
    pub fn slow(&mut self) {
        self.begin("/slow");
    }

    /// Begins one request that takes until [`Service::let_go`]: for what must be in flight however long a hand-over takes.
    ///
    /// [`Service::let_go`]: super::service::Service::let_go
    pub fn held(&mut self, service: &super::service::Service) {
        service.hold();
        self.begin("/held");
    }

    fn begin(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (address, shared) = (self.address.clone(), Arc::clone(&self.shared));
        let (sent, wait) = std::sync::mpsc::channel();
        self.clients.push(std::thread::spawn(move || {
            let begun = Instant::now();
            let result = address.connect().and_then(|mut connection| {
                connection.write_all(request.as_bytes())?;
                let _ = sent.send(());
                let mut bytes = vec![];
                connection.read_to_end(&mut bytes)?;
                parse(&bytes).map_err(io::Error::other)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            });
            shared.note(begun, "slow:", result.map(|(body, _)| body).map_err(|error| error.to_string()));
        }));
        let _ = wait.recv();
    }

    /// How many answers there were so far.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().answers.len()
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Ends the clients once there are so many answers.
    pub fn finish_after(self, answers: usize) -> Seen {
        let mut seen = self.shared.seen.lock().unwrap();
        let until = Instant::now() + super::HANDOVER;
        while seen.answers.len() < answers {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {answers} answers; {:#?}", seen.answers.len(), seen.failures);
            seen = self.shared.more.wait_timeout(seen, left).unwrap().0;
        }
        drop(seen);
        self.finish()
    }

    /// Ends the clients; those with a request in flight get their answer first.
    pub fn finish(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stop.notify_all();
        for client in self.clients.drain(..) {
            client.join().expect("a client");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stop.notify_all();
    }
}

fn ask_shortly(address: &Address, shared: &Shared) {
    while !shared.pause() {
        let begun = Instant::now();
        shared.note(begun, "short:", address.get("/").map_err(|error| error.to_string()));
    }
}

fn ask_kept_alive(address: &Address, shared: &Shared) {
    let mut kept: Option<Connection> = None;
    while !shared.pause() {
        let begun = Instant::now();
        let result = loop {
            let used = kept.is_some();
            let mut connection = match kept.take().map_or_else(|| address.connect(), Ok) {
                Ok(connection) => connection,
                Err(error) => break Err(error.to_string()),
            };
            match connection.get("/", true, used) {
                Ok((body, open)) => {
                    kept = open.then_some(connection);
                    break Ok(body);
                }
                Err(Trouble::ClosedWhileIdle) => {}
                Err(Trouble::Failed(error)) => break Err(error.to_string()),
            }
        };
        shared.note(begun, "kept alive:", result);
    }
}
