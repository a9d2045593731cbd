//! The control socket: who may ask, and for how much.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, SocketType, accept_with};

use super::place::Place;
use crate::runtime::event::{Moment, Ticket};
use crate::runtime::protocol::{Reply, Wish};

/// So many of the application's user may be connected at once, and so many more of root.
const PEERS: usize = 16;

/// A wish is never longer, in bytes.
const LONGEST: usize = 256;

/// How long a peer may take to say what it wants, in milliseconds: programs say it at once.
const REQUEST: u64 = 5_000;

/// So much may wait for a peer that does not read, in bytes; then it is given up.
const UNREAD: usize = 64 << 10;

/// Somebody who is connected.
struct Peer {
    ticket: Ticket,
    stream: UnixStream,
    is_root: bool,
    /// Process and user, as the kernel says.
    identity: (u32, u32),
    input: Vec<u8>,
    output: Vec<u8>,
    wish: Option<Wish>,
    since: Moment,
    /// Everything was said; it goes once it has read that.
    is_over: bool,
    is_gone: bool,
}

/// The socket `control` in the run directory, and all who are connected.
pub struct Control {
    door: OwnedFd,
    user: u32,
    peers: Vec<Peer>,
    next: u32,
}

impl Control {
    /// Opens it for root and this user.
    pub fn open(place: &Place, user: u32) -> io::Result<Self> {
        let door = place.socket("control", SocketType::STREAM, Some(user))?;
        Ok(Self { door, user, peers: vec![], next: 1 })
    }

    /// Opens it again, where its file has gone; whoever is connected stays so.
    pub fn open_again(&mut self, place: &Place) -> io::Result<()> {
        self.door = place.socket("control", SocketType::STREAM, Some(self.user))?;
        Ok(())
    }

    /// From now on it is for root and this user.
    pub fn give(&mut self, place: &Place, user: u32) -> io::Result<()> {
        if self.user != user {
            place.give("control", user)?;
            self.user = user;
        }
        Ok(())
    }

    /// What to wait for: the door, then each peer.
    pub fn sources(&self) -> impl Iterator<Item = (Option<Ticket>, BorrowedFd<'_>, PollFlags)> {
        let peers = self.peers.iter().map(|peer| {
            let flags = if peer.output.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            (Some(peer.ticket), peer.stream.as_fd(), flags)
        });
        std::iter::once((None, self.door.as_fd(), PollFlags::IN)).chain(peers)
    }

    /// When somebody's time to speak is over.
    pub fn deadline(&self) -> Option<Moment> {
        let silent = self.peers.iter().filter(|peer| peer.wish.is_none());
        silent.map(|peer| peer.since.after(REQUEST)).min()
    }

    /// Lets in who knocks, if it may and there is room.
    pub fn accept(&mut self, now: Moment) {
        let Ok(fd) = accept_with(&self.door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        let Ok(peer) = socket_peercred(&fd) else { return };
        let is_root = peer.uid.is_root();
        let room = if is_root { 2 * PEERS } else { PEERS };
        let taken = self.peers.iter().filter(|peer| is_root || !peer.is_root).count();
        if !(is_root || peer.uid.as_raw() == self.user) || taken >= room {
            return;
        }
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.peers.push(Peer {
            ticket,
            stream: UnixStream::from(fd),
            is_root,
            identity: (peer.pid.as_raw_nonzero().get().unsigned_abs(), peer.uid.as_raw()),
            input: vec![],
            output: vec![],
            wish: None,
            since: now,
            is_over: false,
            is_gone: false,
        });
    }

    /// Reads from a peer, and writes to it; gives what it wants, once.
    pub fn serve(&mut self, ticket: Ticket) -> Option<Wish> {
        let peer = self.peers.iter_mut().find(|peer| peer.ticket == ticket)?;
        peer.write();
        let mut part = [0; LONGEST];
        loop {
            match peer.stream.read(&mut part) {
                Ok(0) => peer.is_gone = true,
                Ok(count) if peer.wish.is_none() => {
                    peer.input.extend_from_slice(part.get(..count).unwrap_or_default());
                    if peer.input.len() > LONGEST {
                        peer.is_gone = true;
                    }
                }
                // More than one wish was not asked for.
                Ok(_) => peer.is_gone = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => peer.is_gone = true,
            }
            if peer.is_gone || peer.input.contains(&b'\n') {
                break;
            }
        }
        if peer.wish.is_some() || !peer.input.contains(&b'\n') {
            return None;
        }
        match serde_json::from_slice(&std::mem::take(&mut peer.input)) {
            // Whoever has gone has given it up: it was told that nothing was begun.
            Ok(_) if has_hung_up(&peer.stream) => {
                peer.is_gone = true;
                None
            }
            Ok(wish) => {
                peer.wish = Some(wish);
                Some(wish)
            }
            Err(_) => {
                peer.is_gone = true;
                None
            }
        }
    }

    /// Process and user of whoever has this ticket.
    pub fn identity(&self, ticket: Ticket) -> Option<(u32, u32)> {
        self.peers.iter().find(|peer| peer.ticket == ticket).map(|peer| peer.identity)
    }

    /// A line for one.
    pub fn say(&mut self, ticket: Ticket, reply: &Reply) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.ticket == ticket) {
            peer.say(reply);
        }
    }

    /// The last line for one.
    pub fn finish(&mut self, ticket: Ticket, reply: &Reply) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.ticket == ticket) {
            peer.say(reply);
            peer.is_over = true;
        }
    }

    /// A step, for all who wait for a hand-over.
    pub fn step(&mut self, now: Moment, sentence: &str) {
        for peer in self
            .peers
            .iter_mut()
            .filter(|peer| matches!(peer.wish, Some(Wish::Upgrade | Wish::Prove)) && !peer.is_over)
        {
            let after = now.since(peer.since) as f64 / 1000.0;
            peer.say(&Reply::Step { after, sentence: sentence.to_owned() });
        }
    }

    /// Lets go of those who have gone, have heard all, or say nothing.
    pub fn tidy(&mut self, now: Moment) {
        self.peers.retain(|peer| {
            let is_silent = peer.wish.is_none() && now.since(peer.since) >= REQUEST;
            !(peer.is_gone || is_silent || (peer.is_over && peer.output.is_empty()))
        });
    }
}

/// Whether the other end was closed: not only for writing, as a program does that has said all and listens.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
        && fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
}

impl Peer {
    fn say(&mut self, reply: &Reply) {
        let mut line = serde_json::to_vec(reply).unwrap_or_default();
        line.push(b'\n');
        self.output.extend_from_slice(&line);
        self.write();
        if self.output.len() > UNREAD {
            self.is_gone = true;
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}
