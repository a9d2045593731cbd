//! The keeper: a process that holds what must outlive the runtime, and does nothing by itself.
//!
//! It holds the listening sockets, so that no address ever refuses while the service is up, even if runtime and master are
//! killed together; and it carries the server's output to the log, so that a server never writes into a pipe that nobody reads.
//! It remembers the last lines of each generation's output, and a copy of the state for the case of a full disk.
//! Its standard input is the socket it listens on; only whoever has started it can connect to it. It needs no right for any of
//! that, and gives up all it has.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with, listen};
use serde::{Deserialize, Serialize};

use super::line_mark::LineMark;
use super::listen::Kept;
use super::{apart, clock, keepers, kernel, memory, passing, privileges};
use crate::runtime::event::Moment;
use crate::runtime::protocol::Dropped;
use crate::runtime::state::LONGEST;

/// The hidden command that is this process.
pub const COMMAND: &str = "keep";

/// So much of each generation's output is remembered, in bytes.
const REMEMBERED: usize = 4096;

/// So much of a pipe that two generations write to is remembered while one of them gets ready, in bytes: what the other one says
/// about its requests does not displace what the new one has said about its failure.
const REMEMBERED_OF_BOTH: usize = 64 << 10;

/// So much output is read at once; a line that is longer is passed on in pieces (pipe(7), PIPE_BUF).
const PART: usize = 4096;

/// So many parts are in a pipe at the most (pipe(7)).
const PIPE: usize = (64 << 10) / PART;

/// So many may be connected at once: a runtime, the one after it, and somebody who looks.
const CONNECTIONS: usize = 8;

/// The version of what runtime and keeper say to each other; 0 is a keeper from before there was one.
///
/// Versions meet when runsmith is upgraded or downgraded while a service runs. What holds for all of them: the door is the
/// socket `keeper`; [`Request::Give`] is answered with a [`Held`], whose unknown fields are ignored and whose descriptors are
/// the listeners and the outputs it names; [`Request::End`] ends the keeper. A runtime that adopts asks for nothing else,
/// unless the version is known to answer, and starts a keeper of its own version.
///
/// 2 counts the lines that are dropped: they are part of [`Held`], and a runtime asks its own keeper by [`Request::Dropped`].
///
/// 3 remembers apart what is said since a generation was begun that writes to another one's pipe ([`Request::Also`]).
///
/// 4 holds what generations are made of ([`Request::Hold`]). It does not come with [`Held`], whose descriptors older runtimes count,
/// but is asked for by [`Request::GiveFiles`], of a keeper whose version is known to have it.
///
/// 5 has the state in a file without a name, however long it is ([`Request::RememberFile`]). A [`Held`] has the text as well if it
/// fits; if not, it says so by [`Held::has_state_file`], and then a runtime that adopts also asks for [`Request::State`]. A runtime of
/// this very version also has it note where the log ends ([`Request::Mark`]).
pub const PROTOCOL: u32 = 5;

/// The first version that answers [`Request::GiveFiles`].
pub const HOLDS_FILES: u32 = 4;

/// From this version on the state is in a file.
pub const IN_FILES: u32 = 5;

/// A state up to this length is part of an answer, in bytes: with everything else that is less than the longest message.
const INLINE: usize = 48 << 10;

/// So long a keeper that nobody is connected to waits before it looks whether another one has taken its place, in milliseconds:
/// a run that begins takes less. It looks again later and later.
const ALONE: u64 = 15_000;

/// It waits no longer than this.
const LONGEST_ALONE: u64 = 15 * 60_000;

/// What a runtime asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// From now on hold this and nothing else. With it come the log (if `log`), the listeners, and the outputs.
    Keep {
        /// The log comes first.
        log: bool,
        /// Then the [`LineMark`].
        #[serde(default)]
        mark: bool,
        /// The listening sockets.
        listeners: Vec<Kept>,
        /// The generations whose output it is.
        outputs: Vec<u32>,
    },
    /// Remember this state: what a runtime of an earlier version says.
    Remember(String),
    /// Remember the state in the file that comes with it.
    RememberFile,
    /// Note in the [`LineMark`] that comes with it whether the log is within a line, for a runtime that takes over.
    Mark,
    /// Give the file with the state; it comes with an answer of one byte.
    State,
    /// Give what you hold.
    Give,
    /// The last lines of a generation's output.
    Last(u32),
    /// What the first generation's pipe says from now on may be of the second one, and is remembered as its output, too.
    Also(Option<(u32, u32)>),
    /// How many lines were dropped; answered with a [`Dropped`].
    Dropped,
    /// From now on hold these files, and no others: they come with it.
    Hold(Vec<String>),
    /// Give the files; answered with a [`Files`].
    GiveFiles,
    /// So many lines were dropped by the keepers before.
    DroppedBefore(Dropped),
    /// Pass on what is there, and end.
    End,
}

/// What the keeper answers to [`Request::Give`]; the descriptors come with it, listeners first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// The keeper's own number.
    pub pid: u32,
    /// The listening sockets.
    pub listeners: Vec<Kept>,
    /// The generations whose output it is.
    pub outputs: Vec<u32>,
    /// The state it remembers, if that is not too long.
    pub state: Option<String>,
    /// It remembers a longer one: see [`Request::State`].
    #[serde(default)]
    pub has_state_file: bool,
    /// See [`PROTOCOL`].
    #[serde(default)]
    pub protocol: u32,
    /// Lines that were dropped.
    #[serde(default)]
    pub dropped: Dropped,
}

/// What the keeper answers to [`Request::GiveFiles`]; the descriptors come with it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Files {
    /// Their names, in the order of the descriptors.
    pub names: Vec<String>,
}

struct Output {
    generation: u32,
    pipe: OwnedFd,
    /// What was read and is not a line yet.
    line: Vec<u8>,
    is_open: bool,
}

/// See [`Request::Also`].
struct Also {
    pipe: u32,
    generation: u32,
    said: Vec<u8>,
}

/// So long a server waits for a log that takes nothing, in milliseconds, before its lines are dropped instead: whoever reads
/// a log may fall behind for a moment, but requests do not wait for one who has stopped.
const PATIENCE: u64 = 1_000;

#[derive(Default)]
struct Keeper {
    /// The runtime's user.
    owner: u32,
    log: Option<OwnedFd>,
    listeners: Vec<(Kept, OwnedFd)>,
    files: Vec<(String, OwnedFd)>,
    outputs: Vec<Output>,
    last: VecDeque<(u32, Vec<u8>)>,
    also: Option<Also>,
    /// The state, in a file without a name.
    state: Option<File>,
    /// Where others find it.
    place: Option<Door>,
    /// Nobody is connected to it.
    alone: Option<Alone>,
    /// Read, and not yet written: the log has no room.
    unwritten: Vec<u8>,
    /// Since when the log has taken nothing.
    stuck: Option<Moment>,
    /// It has taken nothing for too long: so many lines were dropped since, and the log does not know it yet.
    dropped: Option<u64>,
    /// All that were dropped.
    all_dropped: Dropped,
    /// Where it is noted whether the log is within a line, and what was noted last.
    mark: Option<LineMark>,
    is_marked: bool,
    /// The generation of which a part of a line was passed on last.
    unended: Option<u32>,
    connections: Vec<OwnedFd>,
    was_asked: Cell<bool>,
    is_over: bool,
}

/// The process itself.
pub fn main() -> u8 {
    let work = || -> io::Result<()> {
        let door = fcntl_dupfd_cloexec(io::stdin(), 3)?;
        // Told again by this process, so that it counts as the one that listens (unix(7), SO_PEERCRED).
        listen(&door, 16)?;
        // Its name in lists of processes; it was started as /proc/self/exe.
        let _ = rustix::thread::set_name(c"runsmith");
        // A signal meant for the runtime's group is none of its.
        let _ = rustix::process::setsid();
        let interrupter = kernel::Interrupter::new()?;
        let log = log(io::stdout().as_fd());
        let place = Door::of(&door);
        // Whoever reads the log knows that it has ended once nobody can write there any more: when a runtime brings another
        // log, nothing of the old one may stay open here.
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        let owner = rustix::process::geteuid();
        privileges::become_nobody();
        // What it holds may block it for as long as somebody else has set: a closed socket that lingers.
        interrupter.work();
        let mut keeper = Keeper { log, place, owner: owner.as_raw(), ..Keeper::default() };
        while keeper.turn(&door, &interrupter)? {}
        Ok(())
    };
    u8::from(work().is_err())
}

/// The log, opened again where that is possible: not waiting is then the keeper's alone.
pub(super) fn log(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).or_else(|_| fcntl_dupfd_cloexec(fd, 3)).ok()
}

/// Adds to what was said last, of which so many bytes are kept: whole lines.
fn keep_last(last: &mut Vec<u8>, bytes: &[u8], most: usize) {
    last.extend_from_slice(bytes);
    if last.len() > most {
        last.drain(..last.len() - most);
        // Half a line may have half a secret, which nobody recognises.
        let begun = last.iter().position(|byte| *byte == b'\n').map_or(last.len(), |end| end + 1);
        last.drain(..begun);
    }
}

/// A file without a name that holds a text.
pub(super) fn in_file(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// The text in such a file, whoever has read from it before.
pub(super) fn read_state(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let length = usize::try_from(length).ok().filter(|_| length <= LONGEST);
    let mut bytes = vec![0; length.ok_or_else(|| io::Error::other("the state is too long"))?];
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Nobody is connected to a keeper.
#[derive(Clone, Copy)]
struct Alone {
    /// When it looks whether another one has taken its place, if there may be one.
    at: Option<Moment>,
    /// How long it has waited for that, in milliseconds.
    wait: u64,
}

/// The name of the socket that a keeper listens on, and what had that name when it began.
struct Door {
    path: PathBuf,
    node: (u64, u64),
}

impl Door {
    fn of(door: &OwnedFd) -> Option<Self> {
        let bound = UnixListener::from(door.try_clone().ok()?).local_addr().ok()?;
        let path = bound.as_pathname()?.to_owned();
        let found = std::fs::symlink_metadata(&path).ok()?;
        Some(Self { path, node: (found.dev(), found.ino()) })
    }

    /// Whether another socket has the name by now.
    fn is_replaced(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| (found.dev(), found.ino()) != self.node)
    }

    /// Whether somebody else listens there. A keeper that holds nothing ends once nobody is connected to it, so whoever does
    /// has what the runtime gave it first: the listening sockets.
    fn is_taken_over(&self) -> bool {
        self.is_replaced() && keepers::listening_at(&self.path) > 1
    }
}

/// Whole lines in a text.
fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[derive(Clone, Copy)]
enum Source {
    Door,
    Log,
    Connection(usize),
    Output(usize),
}

impl Keeper {
    /// Waits for something and does it; false: it is over.
    fn turn(&mut self, door: &OwnedFd, interrupter: &kernel::Interrupter) -> io::Result<bool> {
        // A log that takes nothing is not waited for at the end either.
        if self.is_over && (self.unwritten.is_empty() || self.dropped.is_some()) {
            return Ok(false);
        }
        let ready = self.wait(door, interrupter)?;
        // From the back: what goes does not move what comes first.
        for source in ready.into_iter().rev() {
            match source {
                Source::Door => self.accept(door),
                Source::Log => {}
                Source::Connection(at) => self.serve(at),
                Source::Output(at) => self.read(at),
            }
        }
        self.outputs.retain(|output| output.is_open);
        if self.stuck.is_some_and(|since| clock::now().since(since) >= PATIENCE) {
            self.dropped.get_or_insert(0);
        }
        self.write();
        self.look_for_another();
        // Nothing is to be held, and nobody is there who could change that.
        let is_idle = self.connections.is_empty() && self.listeners.is_empty() && self.outputs.is_empty();
        Ok(!(is_idle && (self.unwritten.is_empty() || self.dropped.is_some())))
    }

    fn wait(&self, door: &OwnedFd, interrupter: &kernel::Interrupter) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Door];
        let mut fds = vec![PollFd::new(door, PollFlags::IN)];
        for (at, connection) in self.connections.iter().enumerate() {
            sources.push(Source::Connection(at));
            fds.push(PollFd::new(connection, PollFlags::IN));
        }
        if self.unwritten.is_empty() || self.dropped.is_some() {
            for (at, output) in self.outputs.iter().enumerate() {
                sources.push(Source::Output(at));
                fds.push(PollFd::new(&output.pipe, PollFlags::IN));
            }
        }
        let mut limit = None;
        if !self.unwritten.is_empty()
            && let Some(log) = &self.log
        {
            // The server waits, as it would if it wrote there itself, but not for ever.
            sources.push(Source::Log);
            fds.push(PollFd::new(log, PollFlags::OUT));
            limit = self.stuck.filter(|_| self.dropped.is_none()).map(|since| since.after(PATIENCE));
        }
        let limit = limit.into_iter().chain(self.alone.and_then(|alone| alone.at)).min().map(clock::until);
        interrupter.rest();
        // What a runtime asks for comes seldom, and takes more code than carrying lines does.
        if self.was_asked.take() {
            memory::give_back();
        }
        loop {
            match poll(&mut fds, limit.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        interrupter.work();
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    fn accept(&mut self, door: &OwnedFd) {
        let Ok(connection) = accept_with(door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        let is_ours = socket_peercred(&connection)
            .is_ok_and(|peer| peer.uid.as_raw() == self.owner || peer.uid.is_root());
        if is_ours && self.connections.len() < CONNECTIONS {
            self.connections.push(connection);
        }
    }

    fn serve(&mut self, at: usize) {
        let Some(connection) = self.connections.get(at) else { return };
        let message = match passing::receive(connection, passing::LONGEST) {
            Ok(message) if !message.bytes.is_empty() => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => {
                self.connections.remove(at);
                return;
            }
        };
        self.was_asked.set(true);
        match serde_json::from_slice(&message.bytes) {
            Ok(Request::Keep { log, mark, listeners, outputs }) => {
                self.keep((log, mark), listeners, &outputs, message.fds);
            }
            Ok(Request::Remember(state)) => self.state = in_file(&state).ok(),
            Ok(Request::RememberFile) => self.state = message.fds.into_iter().next().map(File::from),
            Ok(Request::Mark) => {
                let is_within = self.is_within();
                self.mark = message.fds.into_iter().next().map(LineMark::shared);
                if let Some(mark) = &self.mark {
                    mark.set(is_within);
                }
            }
            Ok(Request::State) => {
                let state = self.state.as_ref().and_then(|state| state.try_clone().ok());
                let fds: Vec<_> = state.iter().map(AsFd::as_fd).collect();
                self.answer(at, b"\n", &fds);
            }
            Ok(Request::Give) => self.give(at),
            Ok(Request::Last(generation)) => {
                let also = self.also.as_ref().filter(|also| also.generation == generation);
                let pipe = also.map_or(generation, |also| also.pipe);
                self.read_all(pipe);
                let also = self.also.as_ref().filter(|also| also.generation == generation);
                let last = self.last.iter().find(|(one, _)| *one == generation);
                let text = match (also, last) {
                    (Some(also), _) => also.said.as_slice(),
                    (None, Some((_, last))) => last.as_slice(),
                    (None, None) => &[],
                };
                // An empty message would read as the end.
                self.answer(at, &[b"\n", text].concat(), &[]);
            }
            Ok(Request::Also(also)) => {
                if let Some((pipe, _)) = also {
                    // What is in the pipe by now was said before.
                    self.read_all(pipe);
                }
                self.also = also.map(|(pipe, generation)| Also { pipe, generation, said: vec![] });
            }
            Ok(Request::Dropped) => {
                let text = serde_json::to_vec(&self.all_dropped).unwrap_or_default();
                self.answer(at, &text, &[]);
            }
            Ok(Request::Hold(names)) => self.files = names.into_iter().zip(message.fds).collect(),
            Ok(Request::GiveFiles) => {
                let files = Files { names: self.files.iter().map(|(name, _)| name.clone()).collect() };
                let text = serde_json::to_vec(&files).unwrap_or_default();
                let fds: Vec<_> = self.files.iter().map(|(_, fd)| fd.as_fd()).collect();
                let sent = self.connections.get(at).map(|to| passing::send(to, &text, &fds));
                if !matches!(sent, Some(Ok(()))) && at < self.connections.len() {
                    self.connections.remove(at);
                }
            }
            Ok(Request::DroppedBefore(before)) => self.all_dropped = self.all_dropped.and(&before),
            Ok(Request::End) => {
                self.listeners.clear();
                self.drain();
                self.is_over = true;
            }
            // It is not of this version ([`PROTOCOL`]), and learns so by this.
            Err(_) => {
                self.connections.remove(at);
            }
        }
    }

    fn keep(
        &mut self,
        (has_log, has_mark): (bool, bool),
        listeners: Vec<Kept>,
        outputs: &[u32],
        fds: Vec<OwnedFd>,
    ) {
        let mut fds = fds.into_iter();
        if has_log {
            self.log = fds.next();
            self.all_dropped.end();
        }
        if has_mark {
            self.mark = fds.next().map(LineMark::shared);
            self.is_marked = false;
        }
        self.listeners = listeners.into_iter().zip(fds.by_ref()).collect();
        let mut old = std::mem::take(&mut self.outputs);
        for (generation, pipe) in outputs.iter().copied().zip(fds) {
            // What is half read stays.
            let line = old.iter_mut().find(|output| output.generation == generation);
            let line = line.map(|output| std::mem::take(&mut output.line)).unwrap_or_default();
            let flags = fcntl_getfl(&pipe).map(|flags| fcntl_setfl(&pipe, flags | OFlags::NONBLOCK));
            let is_open = flags.is_ok();
            self.outputs.push(Output { generation, pipe, line, is_open });
        }
        // A pipe that nobody names any more has ended or ends now; what is in it was said.
        for output in old {
            if !outputs.contains(&output.generation) {
                self.outputs.push(output);
            }
        }
    }

    fn give(&mut self, at: usize) {
        let state = self.state.as_ref().and_then(|state| read_state(state).ok());
        let held = Held {
            pid: std::process::id(),
            has_state_file: state.as_ref().is_some_and(|state| state.len() > INLINE),
            listeners: self.listeners.iter().map(|(kept, _)| kept.clone()).collect(),
            outputs: self.outputs.iter().map(|output| output.generation).collect(),
            state: state.filter(|state| state.len() <= INLINE),
            protocol: PROTOCOL,
            dropped: self.all_dropped.clone(),
        };
        let fds = self.listeners.iter().map(|(_, fd)| fd.as_fd());
        let fds: Vec<_> = fds.chain(self.outputs.iter().map(|output| output.pipe.as_fd())).collect();
        let text = serde_json::to_vec(&held).unwrap_or_default();
        let sent = self.connections.get(at).map(|to| passing::send(to, &text, &fds));
        if !matches!(sent, Some(Ok(()))) {
            self.connections.remove(at);
        }
    }

    /// Lets the addresses go if nobody is connected to this keeper and another one has its place: it would hold them for ever,
    /// and nobody could find it.
    fn look_for_another(&mut self) {
        if !self.connections.is_empty() {
            self.alone = None;
            return;
        }
        let now = clock::now();
        let alone = *self.alone.get_or_insert(Alone { at: Some(now.after(ALONE)), wait: ALONE });
        if alone.at.is_none_or(|at| at > now) {
            return;
        }
        let wait = alone.wait.saturating_mul(2).min(LONGEST_ALONE);
        // As long as its own name leads to it there is nothing to look for: whoever finds it connects.
        let is_replaced = self.place.as_ref().is_some_and(Door::is_replaced);
        self.alone = Some(Alone { at: is_replaced.then(|| now.after(wait)), wait });
        if self.place.as_ref().is_some_and(Door::is_taken_over) {
            // It ends once it has nothing to pass on either. It cannot know whether the other one reads what the servers write.
            self.listeners.clear();
        }
    }

    fn answer(&mut self, at: usize, text: &[u8], fds: &[BorrowedFd<'_>]) {
        let sent = self.connections.get(at).map(|to| passing::send(to, text, fds));
        if !matches!(sent, Some(Ok(()))) && at < self.connections.len() {
            self.connections.remove(at);
        }
    }

    /// Reads what a server has said; whole lines are passed on.
    fn read(&mut self, at: usize) {
        let Some(output) = self.outputs.get_mut(at) else { return };
        let mut part = [0; PART];
        let count = match (&std::fs::File::from(match output.pipe.try_clone() {
            Ok(pipe) => pipe,
            Err(_) => return,
        }))
            .read(&mut part)
        {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        output.line.extend_from_slice(part.get(..count).unwrap_or_default());
        let end = if count == 0 {
            output.is_open = false;
            // What ends without a newline gets one, so that it does not run into somebody else's line.
            if !output.line.is_empty() || self.unended == Some(output.generation) {
                output.line.push(b'\n');
            }
            output.line.len()
        } else if output.line.len() >= PART {
            output.line.len()
        } else {
            output.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
        };
        let rest = output.line.split_off(end);
        let whole = std::mem::replace(&mut output.line, rest);
        let generation = output.generation;
        self.remember(generation, &whole);
        if let Some(dropped) = &mut self.dropped {
            let lines = lines(&whole);
            *dropped += lines;
            self.all_dropped.lose(lines, clock::wall());
        } else {
            self.pass_on(generation, &whole);
        }
    }

    /// Whether the log ends within a line. The runtime may have ended that.
    fn is_within(&self) -> bool {
        self.mark.as_ref().map_or(self.is_marked, LineMark::is_within)
    }

    /// What a generation has said; what another one has begun does not run into it.
    fn pass_on(&mut self, generation: u32, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let is_within = match self.unwritten.last() {
            Some(last) => *last != b'\n',
            None => self.is_within(),
        };
        if is_within && self.unended.is_some_and(|other| other != generation) {
            self.unwritten.push(b'\n');
        }
        apart::add(bytes, &mut self.unwritten);
        self.unended = (*last != b'\n').then_some(generation);
    }

    /// All that is in a generation's pipe.
    fn read_all(&mut self, generation: u32) {
        let Some(at) = self.outputs.iter().position(|output| output.generation == generation) else { return };
        for _ in 0..PIPE {
            let is_empty = self.outputs.get(at).is_none_or(|output| {
                !output.is_open || rustix::io::ioctl_fionread(&output.pipe).is_ok_and(|bytes| bytes == 0)
            });
            if is_empty {
                return;
            }
            self.read(at);
        }
    }

    /// All that is in the pipes, before it ends.
    fn drain(&mut self) {
        for at in 0..self.outputs.len() {
            for _ in 0..64 {
                let before = self.unwritten.len();
                self.read(at);
                if self.unwritten.len() == before {
                    break;
                }
            }
        }
        // The rest of a line that is half read comes to the next keeper, which goes on where this one has ended.
        for output in std::mem::take(&mut self.outputs) {
            if self.dropped.is_none() {
                self.pass_on(output.generation, &output.line);
            }
        }
    }

    fn remember(&mut self, generation: u32, bytes: &[u8]) {
        if let Some(also) = self.also.as_mut().filter(|also| also.pipe == generation) {
            keep_last(&mut also.said, bytes, REMEMBERED_OF_BOTH);
        }
        if self.last.iter().all(|(one, _)| *one != generation) {
            if self.last.len() > 3 {
                self.last.pop_front();
            }
            self.last.push_back((generation, vec![]));
        }
        if let Some((_, last)) = self.last.iter_mut().find(|(one, _)| *one == generation) {
            keep_last(last, bytes, REMEMBERED);
        }
    }

    /// Passes on what was read, as far as there is room.
    fn write(&mut self) {
        let Some(log) = &self.log else {
            self.all_dropped.lose(lines(&self.unwritten), clock::wall());
            self.unwritten.clear();
            return;
        };
        while !self.unwritten.is_empty() {
            // The runtime may have ended the line that was cut here, and what follows would begin one.
            if self.is_marked && apart::poses(self.unwritten.get(..PART).unwrap_or(&self.unwritten)) {
                self.unwritten.splice(..0, apart::MARK.iter().copied());
            }
            // Whole lines, as many as the kernel takes in one piece.
            let most = self.unwritten.len().min(PART);
            let end =
                self.unwritten.iter().take(most).rposition(|byte| *byte == b'\n').map_or(most, |end| end + 1);
            let piece = self.unwritten.get(..end).unwrap_or_default();
            // No line of the runtime comes between a part of a line and its mark.
            let _locked = (self.is_marked || piece.last() != Some(&b'\n'))
                .then(|| self.mark.as_ref().and_then(LineMark::lock));
            match rustix::io::write(log, piece) {
                Ok(count) => {
                    let is_within = self.unwritten.get(count.saturating_sub(1)) != Some(&b'\n');
                    // The runtime takes the mark away when it has ended the line.
                    if let Some(mark) = self.mark.as_ref().filter(|_| is_within || self.is_marked) {
                        mark.set(is_within);
                    }
                    self.is_marked = is_within;
                    self.unwritten.drain(..count);
                    self.stuck = None;
                    self.all_dropped.end();
                    if self.unwritten.is_empty()
                        && let Some(dropped @ 1..) = self.dropped.take()
                    {
                        let end = if is_within { "\n" } else { "" };
                        let line = format!(
                            "{end}runsmith: {dropped} lines of the server found no room in the log\n"
                        );
                        self.unwritten.extend_from_slice(line.as_bytes());
                        self.unended = None;
                    }
                }
                Err(Errno::AGAIN) => {
                    self.stuck.get_or_insert_with(clock::now);
                    return;
                }
                Err(Errno::INTR) => {}
                // Nobody reads any more, and nobody will until a runtime brings another log.
                Err(_) => {
                    self.all_dropped.lose(lines(&self.unwritten), clock::wall());
                    self.unwritten.clear();
                }
            }
        }
        (self.stuck, self.dropped) = (None, None);
    }
}
