//! What the kernel offers and rustix has no call for: a timer that interrupts a blocked system call, and some
//! questions about sockets and what they can be told.
//!
//! A descriptor that somebody else has made can make closing it wait: a TCP socket with SO_LINGER and bytes that nobody
//! takes waits for as long as its owner has set. Root gets such descriptors without asking, with a message
//! (SCM_RIGHTS, unix(7)); the kernel closes those that nobody takes in the receiver's name. Two means are used against that: sockets that others
//! can write to refuse descriptors, where the kernel has that (Linux 6.16), and everywhere a timer's signal ends the wait.

#![allow(unsafe_code, reason = "these calls take pointers, and no safe wrapper for them exists")]

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{fstat, stat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use signal_hook::consts::SIGURG;

use super::process::Process;

/// How long a system call of the runtime can be blocked while it works: then a signal interrupts it, and again after the
/// same time. What the runtime does without being blocked by somebody else takes less.
pub const LONGEST_BLOCK: Duration = Duration::from_millis(100);

/// SO_PASSRIGHTS (asm-generic/socket.h, Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;

/// SO_NETNS_COOKIE (asm-generic/socket.h, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// SO_BINDTOIFINDEX (asm-generic/socket.h, Linux 5.1).
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// No network interface has this number: they are counted from 1.
const NOWHERE: libc::c_int = libc::c_int::MAX;

/// SIOCGSKNS (linux/sockios.h, Linux 4.10): a descriptor of the network namespace of a socket.
const SIOCGSKNS: u32 = 0x894c;

/// SIOCUNIXFILE (linux/un.h, Linux 4.14): a descriptor of the file that a Unix socket is bound to.
const SIOCUNIXFILE: u32 = 0x89e0;

/// Interrupts this thread's system calls while it works.
pub struct Interrupter(libc::timer_t);

impl Interrupter {
    /// Makes it for the calling thread; it begins at rest.
    pub fn new() -> io::Result<Self> {
        // A caught signal interrupts, an ignored one does not. Nothing else in the program uses this one.
        signal_hook::flag::register(SIGURG, Arc::default())?;
        // SAFETY: the structure is plain data for which zeros are valid; the kernel reads it, and writes the timer's name.
        let (made, timer) = unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGURG;
            event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
            let mut timer: libc::timer_t = zeroed();
            (libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), timer)
        };
        if made == 0 { Ok(Self(timer)) } else { Err(io::Error::last_os_error()) }
    }

    /// From now on no call is blocked for longer than [`LONGEST_BLOCK`].
    pub fn work(&self) {
        self.set(LONGEST_BLOCK);
    }

    /// From now on nothing is interrupted, so that a wait for events costs nothing.
    pub fn rest(&self) {
        self.set(Duration::ZERO);
    }

    fn set(&self, every: Duration) {
        let every =
            libc::timespec { tv_sec: every.as_secs() as libc::time_t, tv_nsec: every.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the timer is this value's own, and lives as long as it; the kernel only reads the times.
        unsafe { libc::timer_settime(self.0, 0, &raw const times, std::ptr::null_mut()) };
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own, and nobody uses it afterwards.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// A process that writes to a pipe in this one's place. Whoever shares a pipe can keep all others waiting who write to it, so that they do
/// not even end by SIGKILL (splice(2) holds the pipe's lock while it waits).
#[derive(Debug)]
pub struct Writer(libc::pid_t);

/// How a write has ended.
#[derive(Debug)]
pub enum Written {
    /// All was written.
    Whole,
    /// There is no room, or nobody reads it.
    Not,
    /// Not yet: the process is kept waiting, and was killed.
    Hangs(Writer),
}

/// Has another process write to a pipe, in one piece, if there is room; waits for it for so long at the most.
pub fn write_apart(pipe: impl AsFd, bytes: &[u8], limit: Duration) -> Written {
    let number = pipe.as_fd().as_raw_fd();
    // SAFETY: without flags the child has a copy of this process's memory; it makes system calls alone and returns nowhere. Without a
    // signal its end is taken by nobody but `Writer::has_ended`, and wakes nobody.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: as above; the bytes live as long as the copy.
        unsafe {
            // What it may hold on to for long is the pipe alone. None of these is the last close: this process has them, too.
            if number > 0 {
                libc::syscall(libc::SYS_close_range, 0, number - 1, 0);
            }
            libc::syscall(libc::SYS_close_range, number + 1, libc::c_uint::MAX, 0);
            let mut room = libc::pollfd { fd: number, events: libc::POLLOUT, revents: 0 };
            let has_room = libc::poll(&raw mut room, 1, 0) == 1 && room.revents == libc::POLLOUT;
            let is_whole = has_room
                && usize::try_from(libc::write(number, bytes.as_ptr().cast(), bytes.len()))
                    == Ok(bytes.len());
            libc::_exit(libc::c_int::from(!is_whole))
        }
    }
    let Some(writer) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).map(Writer) else {
        return Written::Not;
    };
    if writer.waits(limit) {
        return if writer.ended() == Some(0) { Written::Whole } else { Written::Not };
    }
    // SAFETY: it is a child whose end was not taken, so the number is its own.
    unsafe { libc::kill(writer.0, libc::SIGKILL) };
    if writer.waits(LONGEST_BLOCK) {
        writer.ended();
        return Written::Not;
    }
    Written::Hangs(writer)
}

impl Writer {
    /// Whether it has ended within this time.
    fn waits(&self, limit: Duration) -> bool {
        Process::open(self.0.unsigned_abs()).is_none_or(|process| process.await_end(limit))
    }

    /// Takes its end, if it has ended: the exit code, and -1 for any other end.
    fn ended(&self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: the kernel writes to a number of this size.
        let found = unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG | libc::__WALL) };
        match found {
            0 => None,
            _ if found > 0 && libc::WIFEXITED(status) => Some(libc::WEXITSTATUS(status)),
            _ => Some(-1),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended().is_some()
    }
}

/// Leaves the session keyring that this process was started with for an empty one (keyctl(2)). Whoever has a keyring may read the keys in
/// it and revoke it, whatever user they become: that of a login of root's is not for an application. Where the kernel has none, or a
/// container lets nobody ask for one, there is nothing to leave.
pub fn leave_session_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: no name is given, so nothing is read; the call changes the credentials of this thread alone.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Gives this process mounts of its own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: the call takes a number; only a program that shares descriptors with another thread has to mind CLONE_FILES.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if unshared == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a mount read-only, and all below it (mount_setattr(2), Linux 5.12).
pub fn make_read_only(mount: &CStr) -> io::Result<()> {
    // SAFETY: the structure is plain data for which zeros are valid.
    let mut attributes: libc::mount_attr = unsafe { zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    // SAFETY: the kernel reads a path that ends with NUL and a structure of this size, which live until the call is over.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            mount.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel refuse messages with descriptors on a Unix socket, and on the connections that it accepts; whether it can.
pub fn refuse_rights(socket: impl AsFd) -> bool {
    set(socket, SO_PASSRIGHTS, 0)
}

fn set(socket: impl AsFd, option: libc::c_int, value: libc::c_int) -> bool {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads a number of this length, which lives until the call is over.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    set == 0
}

/// Binds a TCP socket to a network interface that there is not: connections are refused from then on, and what it has in its
/// queue can still be accepted. It takes CAP_NET_RAW to undo that. Whether it could be done.
pub fn detach(socket: impl AsFd) -> bool {
    set(socket, SO_BINDTOIFINDEX, NOWHERE)
}

/// What names the network namespace that a socket belongs to; none if the kernel does not tell.
pub fn network_of(socket: impl AsFd) -> Option<u64> {
    let mut cookie: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most this length to a number of this size, and then the length.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (got == 0).then_some(cookie)
}

/// Whether a socket belongs to the network namespace of this process. One of another namespace may have the same address, and
/// nobody who connects here reaches it. Where the kernel does not tell it counts as none of this one.
pub fn is_here(socket: impl AsFd) -> bool {
    let flags = SocketFlags::CLOEXEC;
    let ours = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let ours = ours.ok().and_then(network_of);
    match (ours, network_of(&socket)) {
        (Some(ours), Some(its)) => ours == its,
        _ => namespace_of(&socket).is_some_and(|its| {
            let ours = stat("/proc/self/ns/net");
            ours.is_ok_and(|ours| (ours.st_dev, ours.st_ino) == its)
        }),
    }
}

/// Device and inode of the network namespace of a socket, for kernels before SO_NETNS_COOKIE.
fn namespace_of(socket: impl AsFd) -> Option<(u64, u64)> {
    let found = fstat(asked(socket, SIOCGSKNS)?).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// The descriptor that a request to a socket gives.
fn asked(socket: impl AsFd, request: u32) -> Option<OwnedFd> {
    // SAFETY: these requests take no argument and give a new descriptor, which nobody else owns.
    unsafe {
        let number = libc::ioctl(socket.as_fd().as_raw_fd(), request as _);
        (number >= 0).then(|| OwnedFd::from_raw_fd(number))
    }
}

/// Device and inode of the file that a Unix socket was bound to, wherever its name leads by now; none if the kernel does not
/// tell, which takes CAP_NET_ADMIN.
pub fn file_of(socket: impl AsFd) -> Option<(u64, u64)> {
    let found = fstat(asked(socket, SIOCUNIXFILE)?).ok()?;
    Some((found.st_dev, found.st_ino))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;

    use rustix::net::sockopt::{set_socket_linger, set_socket_passcred};

    use super::*;
    use crate::runtime::linux::passing;

    /// How long closing takes if nothing interrupts it.
    const LINGER: Duration = Duration::from_secs(1_000_000);

    /// For what ends at once, on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    /// A socket whose closing waits for a reader that never reads.
    fn lingering() -> (TcpStream, [OwnedFd; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 1 << 16]).is_ok() {}
        set_socket_linger(&ours, Some(LINGER)).unwrap();
        (ours, [listener.into(), theirs.into()])
    }

    /// Does something in a thread of its own; whether it ends soon.
    fn ends(action: impl FnOnce() + Send + 'static) -> bool {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let interrupter = Interrupter::new().unwrap();
            interrupter.work();
            action();
            let _ = tell.send(());
        });
        told.recv_timeout(SOON).is_ok()
    }

    #[test]
    fn closing_what_lingers_is_interrupted() {
        let (ours, _theirs) = lingering();
        assert!(ends(move || drop(ours)));
    }

    /// As on a kernel that cannot refuse descriptors: the kernel closes what came with the message.
    #[test]
    fn receiving_what_lingers_is_interrupted() {
        let (here, there) = passing::pair().unwrap();
        // As the socket for readiness: who sends is what there is room for.
        set_socket_passcred(&here, true).unwrap();
        let (ours, _theirs) = lingering();
        passing::send(&there, b"claim", &[ours.as_fd()]).unwrap();
        drop(ours);
        assert!(ends(move || {
            let message = passing::receive_bare(&here, 100).unwrap();
            assert_eq!((message.bytes.as_slice(), message.fds.len()), (&b"claim"[..], 0));
        }));
    }

    #[test]
    fn another_process_writes_to_a_pipe() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert!(matches!(write_apart(&writer, b"one\n", SOON), Written::Whole));
        let mut line = [0; 4];
        std::io::Read::read_exact(&mut reader, &mut line).unwrap();
        assert_eq!(&line, b"one\n");
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while (&writer).write(&[0; 1 << 16]).is_ok() {}
        assert!(matches!(write_apart(&writer, b"two\n", SOON), Written::Not), "it is full");
        drop(reader);
        assert!(matches!(write_apart(&writer, b"three\n", SOON), Written::Not), "nobody reads it");
    }

    /// Whoever waits for the lock of a pipe does not even end by SIGKILL.
    #[test]
    fn who_writes_to_a_pipe_whose_lock_is_held_is_left_behind() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let (silent, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let held = writer.try_clone().unwrap();
        // It waits in the kernel for a byte of the socket, and has the lock meanwhile.
        let holder = std::thread::spawn(move || {
            rustix::pipe::splice(&silent, None, &held, None, 1, rustix::pipe::SpliceFlags::empty())
        });
        let until = std::time::Instant::now() + SOON;
        let hanging = loop {
            match write_apart(&writer, b"x", LONGEST_BLOCK) {
                Written::Hangs(hanging) => break hanging,
                // The lock is not held yet.
                _ => assert!(std::time::Instant::now() < until),
            }
        };
        assert!(!hanging.has_ended());
        (&other).write_all(b"y").unwrap();
        assert_eq!(holder.join().unwrap(), Ok(1));
        while !hanging.has_ended() {
            assert!(std::time::Instant::now() < until);
        }
    }

    #[test]
    fn rights_are_refused_where_the_kernel_can() {
        let (here, there) = passing::pair().unwrap();
        let refuses = refuse_rights(&here);
        let file = std::fs::File::open("/dev/null").unwrap();
        let sent = passing::send(&there, b"claim", &[file.as_fd()]);
        assert_eq!(sent.is_err(), refuses, "{sent:?}");
    }

    #[test]
    fn a_detached_socket_refuses_and_gives_what_it_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        assert!(detach(&listener));
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        listener.accept().unwrap();
    }

    #[test]
    fn a_socket_tells_its_file_and_network() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(network_of(&socket), network_of(&other));
        assert!(is_here(&socket) && is_here(&other));
        let here = stat("/proc/self/ns/net").unwrap();
        let told = namespace_of(&other);
        assert!(told.is_none_or(|told| told == (here.st_dev, here.st_ino)), "{told:?}");
        let found = rustix::fs::lstat(&path).unwrap();
        let told = file_of(&socket);
        assert!(told.is_none_or(|told| told == (found.st_dev, found.st_ino)), "{told:?}");
        assert_eq!(file_of(&other), None);
    }
}
