//! The other end of the control socket: how commands ask a runtime.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Take, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::place::Place;
use super::process;
use super::signals::Interrupts;
use crate::host::proc;
use crate::runtime::protocol::{Reply, Wish};

/// How long a runtime may take to accept a connection, to take a request, and to report what runs, all together: it does
/// nothing that takes longer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// How long a runtime may be silent during a hand-over before it is asked whether it still answers: workers load and requests
/// finish for as long as the pillar allows, so that silence alone means nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// The number of a process is never longer, in bytes.
const LONGEST_NUMBER: u64 = 32;

/// So many lines that name a socket of the runtime's are looked at: the table is as long as somebody makes it, and who forges more
/// has opened as many sockets.
const MOST_LINES: usize = 65_536;

/// How long a runtime may be stopped by a signal before it counts as stopped: somebody may look at it with a tool that stops it for
/// a moment.
const STOPPED: Duration = Duration::from_secs(3);

/// How often it is looked at whether it is stopped, while nothing is heard: the kernel reports that to its parent alone.
const LOOK: Duration = Duration::from_millis(500);

/// How long whoever is interrupted waits for a first line: a runtime that works writes one at once.
const FIRST: Duration = Duration::from_millis(300);

/// An answer is never longer, in bytes.
const LONGEST: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// No runtime is at work.
    Down,
    /// It cannot be asked.
    Refused(io::Error),
    /// It is at work and does not answer in time.
    Late,
    /// Somebody has stopped it by a signal: its number.
    Stopped(u32),
    /// This process was told to end by the signal with this number.
    Interrupted(u8),
}

/// Where the runtime that runsv has started in this service directory listens, as the kernel knows it: for when the run
/// script cannot tell. Only root may look.
pub fn run_directory(service: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(service.join("supervise/pid")).ok()?.take(LONGEST_NUMBER).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let sockets: HashSet<String> = proc::sockets(pid).collect();
    let table = File::open(format!("/proc/{pid}/net/unix")).ok()?;
    let mut full = None;
    for run in listed(BufReader::new(table), &sockets) {
        match listener(&run) {
            Ok(listener) if listener == pid => return Some(run),
            // Its queue is full, so nobody can tell; it is the one if no other is.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => full = full.or(Some(run)),
            Ok(_) | Err(_) => {}
        }
    }
    full
}

/// The run directories in a table of Unix sockets (proc_net_unix(5)), as far as these sockets have them; each once. Everybody
/// can add lines to the table, also with a path that has a line of its own in it, which names a socket of whose process was asked
/// about: so a line counts only if nobody but root can have changed what is there.
fn listed(table: impl BufRead, sockets: &HashSet<String>) -> impl Iterator<Item = String> {
    let mut known = HashSet::new();
    // Num RefCount Protocol Flags Type St Inode Path
    let path = |line: Vec<u8>| {
        let line = String::from_utf8(line).ok()?;
        let mut fields = line.split_ascii_whitespace().skip(6);
        let inode = fields.next()?;
        let path = fields.next()?.strip_suffix("/control")?;
        (sockets.contains(inode) && path.starts_with('/')).then(|| path.to_owned())
    };
    let paths = table.split(b'\n').map_while(Result::ok).filter_map(path).take(MOST_LINES);
    paths.filter(move |run| known.insert(run.clone()) && Place::existing(run).is_some())
}

/// The process that listens in a run directory.
fn listener(run: &str) -> io::Result<u32> {
    let place = Place::existing(run).ok_or(io::ErrorKind::PermissionDenied)?;
    let peer = socket_peercred(place.connect("control", SocketType::STREAM)?)?;
    Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
}

/// Somebody to ask.
pub struct Asking {
    stream: BufReader<Take<UnixStream>>,
    run: String,
    /// Until then everything must have been heard; none: as long as the runtime answers others.
    until: Option<Instant>,
    /// The runtime's number, by the kernel's word.
    runtime: Option<u32>,
    /// Since when it is stopped.
    stopped: Option<Instant>,
    /// Who waits for a hand-over may be told to end.
    interrupts: Option<Interrupts>,
    has_heard: bool,
}

impl Asking {
    /// Asks the runtime whose run directory this is.
    pub fn begin(run: &str, wish: Wish) -> Result<Self, Silence> {
        // A directory that somebody else can have made would let that one answer.
        if Place::existing(run).is_none() {
            return Err(Silence::Down);
        }
        let until = Instant::now() + ANSWER;
        let interrupts = if wish == Wish::Status { None } else { Interrupts::watch().ok() };
        let begin = || -> io::Result<UnixStream> {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            // The limit counts for a place in a full queue as well (unix(7), SO_SNDTIMEO).
            set_socket_timeout(&socket, Timeout::Send, Some(ANSWER))?;
            connect(&socket, &SocketAddrUnix::new(Path::new(run).join("control"))?)?;
            let mut stream = UnixStream::from(socket);
            stream.write_all(format!("{}\n", serde_json::to_string(&wish)?).as_bytes())?;
            Ok(stream)
        };
        match begin() {
            Ok(stream) => Ok(Self {
                runtime: socket_peercred(&stream)
                    .ok()
                    .map(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs()),
                stream: BufReader::new(stream.take(LONGEST)),
                run: run.to_owned(),
                until: (wish == Wish::Status).then_some(until),
                stopped: None,
                interrupts,
                has_heard: false,
            }),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(Silence::Down)
            }
            Err(error) if is_late(&error) => Err(Silence::Late),
            Err(error) => Err(Silence::Refused(error)),
        }
    }

    /// The next line; none once everything was said, or the runtime has gone.
    pub fn hear(&mut self) -> Result<Option<Reply>, Silence> {
        let mut line = vec![];
        let mut silent = Instant::now();
        loop {
            if !self.stream.buffer().contains(&b'\n') && !self.is_readable(self.pause())? {
                if let Some(until) = self.until
                    && Instant::now() >= until
                {
                    return Err(Silence::Late);
                }
                if self.until.is_none() && silent.elapsed() >= SILENCE {
                    if !answers(&self.run) {
                        return Err(Silence::Late);
                    }
                    silent = Instant::now();
                }
                continue;
            }
            let read = self
                .stream
                .get_ref()
                .get_ref()
                .set_read_timeout(Some(LOOK))
                .and_then(|()| self.stream.read_until(b'\n', &mut line));
            match read {
                Ok(_) if line.is_empty() => return Ok(None),
                Ok(_) => {
                    self.has_heard = true;
                    let reply = serde_json::from_slice(&line);
                    return reply.map(Some).map_err(|error| Silence::Refused(error.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                // The rest of the line is still to come.
                Err(error) if is_late(&error) => {}
                Err(error) => return Err(Silence::Refused(error)),
            }
        }
    }

    /// Whether the runtime has said anything: then what was asked for has begun, or is to follow what is under way.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// How long to wait before it is looked at again how the runtime is.
    fn pause(&self) -> Duration {
        self.until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()).min(LOOK))
    }

    /// Waits for something to read; false if nothing came. What was said before this process was told to end is read first.
    fn is_readable(&mut self, limit: Duration) -> Result<bool, Silence> {
        let stream = self.stream.get_ref().get_ref();
        let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
        fds.extend(self.interrupts.as_ref().map(|interrupts| PollFd::new(interrupts, PollFlags::IN)));
        wait(&mut fds, limit)?;
        let has_come = |fds: &[PollFd<'_>], at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if has_come(&fds, 0) {
            self.stopped = None;
            return Ok(true);
        }
        if has_come(&fds, 1)
            && let Some(signal) = self.interrupts.as_mut().and_then(Interrupts::take)
        {
            let mut fds = [PollFd::new(self.stream.get_ref().get_ref(), PollFlags::IN)];
            if !self.has_heard {
                wait(&mut fds, FIRST)?;
            }
            self.has_heard |= has_come(&fds, 0);
            return Err(Silence::Interrupted(signal));
        }
        let is_stopped = |pid: u32| process::stat(pid).is_some_and(|stat| stat.state == b'T');
        match self.runtime.filter(|pid| is_stopped(*pid)) {
            Some(pid) if self.stopped.get_or_insert_with(Instant::now).elapsed() >= STOPPED => {
                Err(Silence::Stopped(pid))
            }
            Some(_) => Ok(false),
            None => {
                self.stopped = None;
                Ok(false)
            }
        }
    }
}

/// Waits for one of these, for so long at the most. An interruption is no more than another look.
fn wait(fds: &mut [PollFd<'_>], limit: Duration) -> Result<(), Silence> {
    let limit = Timespec::try_from(limit).map_err(|_| Silence::Late)?;
    match poll(fds, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Silence::Refused(error.into())),
    }
}

/// Whether a runtime reports what runs, or has ended: then the connection to it is about to end, too.
fn answers(run: &str) -> bool {
    match Asking::begin(run, Wish::Status) {
        Ok(mut asking) => !matches!(asking.hear(), Err(Silence::Late)),
        Err(silence) => !matches!(silence, Silence::Late),
    }
}

/// How the kernel reports that a socket's limit has passed.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::fstat;
    use rustix::net::bind;

    use super::*;

    /// More lines than a runtime has sockets, with directories of root's and others, each with the number of its socket.
    #[test]
    fn forged_lines_do_not_hide_where_a_runtime_listens() {
        let scratch = tempfile::tempdir().unwrap();
        let (service, run) = (scratch.path().join("service"), scratch.path().join("run"));
        fs::create_dir_all(service.join("supervise")).unwrap();
        fs::write(service.join("supervise/pid"), format!("{}\n", std::process::id())).unwrap();
        let run = run.to_str().unwrap();
        let control = Place::open(run).unwrap().socket("control", SocketType::STREAM, None).unwrap();
        let inode = fstat(&control).unwrap().st_ino;
        let directories = fs::read_dir("/usr/share").unwrap().flatten().map(|entry| entry.path());
        let directories = directories.filter(|path| path.as_os_str().len() < 50).take(40);
        let mut forged = vec![];
        for directory in directories.chain(["/nowhere".into(), "/tmp".into(), "/".into()]) {
            let name = format!("\n0: 2 0 10000 1 1 {inode} {}/control\n", directory.display());
            let socket =
                socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
            forged.push(socket);
        }
        assert!(forged.len() > 20);
        assert_eq!(run_directory(&service).as_deref(), Some(run));
        // Nobody listens there any more.
        drop(control);
        assert_eq!(run_directory(&service), None);
    }

    /// What others could have changed is not even looked at; nor is the same directory twice.
    #[test]
    fn a_directory_that_is_listed_is_roots_alone() {
        let sockets = HashSet::from(["7".to_owned()]);
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
            0: 2 0 10000 1 1 7 /usr/control\n0: 2 0 10000 1 1 7 /tmp/control\n0: 2 0 10000 1 1 8 /etc/control\n\
            0: 2 0 10000 1 1 7 /usr/control\n0: 2 0 10000 1 1 7 /nowhere/control\n0: 2 0 10000 1 1 7 /usr/ready\n\
            0: 2 0 10000 1 1 7 /control\n0: 2 0 10000 1 1 7 usr/control\n";
        let found: Vec<String> = listed(table.as_bytes(), &sockets).collect();
        assert_eq!(found, ["/usr"]);
    }
}
