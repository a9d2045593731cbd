//! Messages with descriptors, between the runtime, its keeper and its launchers.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, UCred, recv, recvmsg, sendmsg, socketpair,
};

/// So many descriptors go with one message; the kernel's limit is 253 (unix(7), SCM_RIGHTS).
pub const MOST: usize = 250;

/// The longest message, in bytes.
pub const LONGEST: usize = 128 << 10;

/// A message that has come.
#[derive(Debug, Default)]
pub struct Message {
    /// What it says.
    pub bytes: Vec<u8>,
    /// What came with it. They are closed in programs that are run, unless asked otherwise.
    pub fds: Vec<OwnedFd>,
    /// Who sent it, as the kernel says (SO_PASSCRED).
    pub sender: Option<UCred>,
}

/// Two connected ends that keep messages apart and know when the other one has gone.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message; never waits, and a gone reader is an error.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    Ok(())
}

/// Takes one message; [`io::ErrorKind::WouldBlock`] if there is none. No bytes and no descriptors: the other end has gone.
pub fn receive(socket: impl AsFd, longest: usize) -> io::Result<Message> {
    take(socket, longest, RecvFlags::CMSG_CLOEXEC)
}

/// The same, but the descriptors stay open in a program that is run. They get the lowest free numbers, in order.
pub fn receive_to_keep(socket: impl AsFd, longest: usize) -> io::Result<Message> {
    take(socket, longest, RecvFlags::empty())
}

/// The same without room for descriptors: the kernel closes those that came. From a sender that nobody trusts; a message
/// that brought some is given like any other.
pub fn receive_bare(socket: impl AsFd, longest: usize) -> io::Result<Message> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    take_into(socket, longest, RecvFlags::CMSG_CLOEXEC, &mut space, ReturnFlags::TRUNC)
}

fn take(socket: impl AsFd, longest: usize, flags: RecvFlags) -> io::Result<Message> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    take_into(socket, longest, flags, &mut space, ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
}

/// `cut`: what must not have been left out.
fn take_into(
    socket: impl AsFd,
    longest: usize,
    flags: RecvFlags,
    space: &mut [MaybeUninit<u8>],
    cut: ReturnFlags,
) -> io::Result<Message> {
    // A message comes whole, so that its length is known before; room for the longest would be kept by whoever waits for months.
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, length) = recv(&socket, &mut [0; 0][..], peek)?;
    let mut bytes = vec![0; length.min(longest)];
    let mut ancillary = RecvAncillaryBuffer::new(space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags | RecvFlags::DONTWAIT)?;
    let mut message = Message::default();
    for part in ancillary.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(fds) => message.fds.extend(fds),
            RecvAncillaryMessage::ScmCredentials(sender) => message.sender = Some(sender),
            _ => {}
        }
    }
    if received.flags.intersects(cut) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    bytes.truncate(received.bytes);
    message.bytes = bytes;
    Ok(message)
}

/// Waits until there is something to take, or the other end has gone.
pub fn wait(socket: impl AsFd, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    loop {
        // A signal that interrupts the wait does not make it longer.
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
        }
    }
}
