//! Listening sockets: opened by the runtime, held for as long as the service is up.

use std::cell::Cell;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{geteuid, umask};
use serde::{Deserialize, Serialize};

use super::place::trusted;
use super::{kernel, listen_as, shared};
use crate::host::{Identity, look};
use crate::model::address::Address;
use crate::model::service::Socket;

/// The mode of a Unix socket whose pillar says none: what gunicorn and unicorn give theirs.
const MODE: u32 = 0o777;

/// Inherited descriptors begin here (sd_listen_fds(3)).
pub const FIRST: i32 = 3;

/// So many addresses a service can have: with its other descriptors they go in one message.
pub const MOST: usize = 100;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// What it is known by.
    pub kept: Kept,
    /// The socket.
    pub fd: OwnedFd,
    /// How long this run has made its queue.
    pub(super) backlog: Cell<Option<i32>>,
}

/// What is known of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// As the pillar has it.
    pub address: String,
    /// Device and inode of a Unix socket's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<(u64, u64)>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens what the pillar says. The error is the end of a sentence that begins with the address.
pub fn open(socket: &Socket, identity: &Identity) -> Result<Listener, String> {
    let backlog = i32::try_from(socket.backlog).unwrap_or(i32::MAX);
    let (fd, node) = match Address::parse(&socket.address)? {
        Address::Unix(path) => {
            let (fd, node) = unix(socket, &path, identity, backlog)?;
            (fd, Some(node))
        }
        Address::V6(host, port) => (tcp(SocketAddr::from((host, port)), backlog)?, None),
        Address::Host(host, port) => {
            let mut found = (host.as_str(), port).to_socket_addrs().map_err(|error| error.to_string())?;
            let first = found.next().ok_or_else(|| format!("nobody knows the host {host}"))?;
            (tcp(first, backlog)?, None)
        }
    };
    let kept = Kept { address: socket.address.clone(), node };
    Ok(Listener { kept, fd, backlog: Cell::new(Some(backlog)) })
}

fn tcp(address: SocketAddr, backlog: i32) -> Result<OwnedFd, String> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = || {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, backlog)?;
        Ok(socket)
    };
    open().map_err(|error: Errno| match error {
        Errno::ADDRINUSE => {
            "another process listens there; `ss -ltnp` tells which, and `runsmith validate --host` too"
                .to_owned()
        }
        Errno::ADDRNOTAVAIL => "this host does not have that address".to_owned(),
        error => error.to_string(),
    })
}

fn unix(
    socket: &Socket,
    path: &str,
    identity: &Identity,
    backlog: i32,
) -> Result<(OwnedFd, (u64, u64)), String> {
    let mode = mode_of(socket);
    // Where the application's user can write, a path is what that user makes of it, so root does not go there.
    let here = is_ours(path, identity);
    let (fd, node) =
        if here { bind_here(path, mode, backlog)? } else { listen_as::ask(path, mode, backlog, identity)? };
    if identity.switch {
        let (user, group) = listen_as::owner(socket, identity)?;
        let maker = if here { geteuid().as_raw() } else { identity.uid };
        let file = file_of(path, node).map_err(|reason| format!("its owner cannot be set: {reason}"))?;
        // A path can have been turned to somebody else's socket before its node was looked up.
        if file.1.st_uid != maker {
            return Err("somebody has put something else there meanwhile".to_owned());
        }
        give(&file, user, group).map_err(|error| format!("its owner cannot be set: {error}"))?;
    }
    Ok((fd, node))
}

/// Whether nobody but root can have changed where a path leads.
fn is_ours(path: &str, identity: &Identity) -> bool {
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    !identity.switch || trusted(directory).is_ok()
}

/// The socket's file, and what it is; that very file, whatever its name leads to by now.
fn file_of(path: &str, node: (u64, u64)) -> Result<(OwnedFd, Stat), String> {
    let file = look::unfollowed(path).map_err(|error| error.to_string())?;
    let found = fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || look::node(&found) != node {
        return Err("somebody has put something else there meanwhile".to_owned());
    }
    Ok((file, found))
}

fn give((file, found): &(OwnedFd, Stat), user: u32, group: u32) -> io::Result<bool> {
    if (found.st_uid, found.st_gid) == (user, group) {
        return Ok(false);
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    chownat(file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
    Ok(true)
}

/// Gives a socket that goes on listening what the pillar says of it now: backlog, mode and owner. Whether mode or owner
/// were other ones. The error is the end of a sentence that begins with the address.
pub fn adjust(listener: &Listener, socket: &Socket, identity: &Identity) -> Result<bool, String> {
    let failed = |error: io::Error| format!("cannot be given mode and owner as the pillar has them: {error}");
    shared::set_backlog(listener, i32::try_from(socket.backlog).unwrap_or(i32::MAX)).map_err(failed)?;
    let (Some(path), Some(node)) = (socket.unix_path(), listener.kept.node) else { return Ok(false) };
    let file = file_of(path, node).map_err(|reason| failed(io::Error::other(reason)))?;
    // Whoever owns the directory could have given this name to another user's socket, before the node was learnt.
    let is_proven = kernel::file_of(listener.as_fd()) == Some(node);
    if identity.switch && !is_proven && !is_ours(path, identity) {
        let (user, _) = listen_as::owner(socket, identity)?;
        let owner = file.1.st_uid;
        if owner == 0 || (owner != identity.uid && owner != user) {
            return Err(failed(io::Error::other("it is another user's")));
        }
    }
    let mode = mode_of(socket);
    let is_other = file.1.st_mode & 0o7777 != mode;
    if is_other {
        // The descriptor's own name leads to the file itself, by no path that could have been changed.
        let name = format!("/proc/self/fd/{}", file.0.as_raw_fd());
        fs::set_permissions(name, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    if !identity.switch {
        return Ok(is_other);
    }
    let (user, group) = listen_as::owner(socket, identity)?;
    Ok(give(&file, user, group).map_err(failed)? || is_other)
}

fn mode_of(socket: &Socket) -> u32 {
    socket.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(MODE)
}

/// Opens a Unix socket as whoever this process is. What a dead server has left there is taken away; nothing else is.
pub fn bind_here(path: &str, mode: u32, backlog: i32) -> Result<(OwnedFd, (u64, u64)), String> {
    let address = SocketAddrUnix::new(path).map_err(|error| error.to_string())?;
    match look::at(path).map(|found| FileType::from_raw_mode(found.st_mode)) {
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.to_string()),
        Ok(FileType::Socket) => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let knock = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .and_then(|socket| connect(&socket, &address));
            match knock {
                Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(|error| error.to_string())?,
                Ok(()) | Err(Errno::AGAIN) => return Err("another process listens there".to_owned()),
                Err(Errno::PROTOTYPE) => return Err("a socket of another kind is there".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(FileType::Directory) => return Err("a directory is in its place; remove it".to_owned()),
        Ok(_) => return Err("a file that is no socket is in its place; remove it".to_owned()),
    }
    let open = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The file has its mode from the first moment on; nothing else makes files meanwhile.
        let old = umask(Mode::from_raw_mode(!mode & 0o777));
        let bound = bind(&socket, &address);
        umask(old);
        bound?;
        listen(&socket, backlog)?;
        Ok(socket)
    };
    let socket = open().map_err(|error: Errno| match error {
        Errno::NOENT => "its directory is not there".to_owned(),
        error => error.to_string(),
    })?;
    let node = node_at(path).ok_or("somebody has put something else there meanwhile")?;
    Ok((socket, node))
}

/// The socket's own file and the directory it is in, opened as places; none if it is not in place.
pub fn file(kept: &Kept) -> Option<(OwnedFd, OwnedFd)> {
    let path = Path::new(kept.address.strip_prefix("unix:")?);
    // Where links of somebody else lead, nothing is done but to look whether the socket is there.
    let directory = look::place(path.parent()?).ok()?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory, path.file_name()?, flags, Mode::empty()).ok()?;
    let found = fstat(&file).ok()?;
    (kept.node == Some(look::node(&found))).then_some((file, directory))
}

impl Kept {
    /// The Unix socket that somebody else has bound to an address; none if there is none.
    pub fn found(address: &str) -> Option<Self> {
        let node = node_at(address.strip_prefix("unix:")?)?;
        Some(Self { address: address.to_owned(), node: Some(node) })
    }

    /// Whether the socket can still be reached by its name.
    pub fn is_in_place(&self) -> bool {
        let Some(node) = self.node else { return true };
        let found = self.address.strip_prefix("unix:").and_then(|path| look::at(path).ok());
        found.is_some_and(|found| look::node(&found) == node)
    }
}

impl Listener {
    /// One that this run has not opened.
    pub fn of(kept: Kept, fd: OwnedFd) -> Self {
        Self { kept, fd, backlog: Cell::new(None) }
    }

    /// Takes a Unix socket's file away, if it is still this one's.
    pub fn unlink(&self, identity: &Identity) {
        let Some(path) = self.kept.address.strip_prefix("unix:") else { return };
        if !self.kept.is_in_place() {
            return;
        }
        if is_ours(path, identity) {
            let _ = fs::remove_file(path);
        } else {
            listen_as::unlink(path, identity);
        }
    }
}

fn listens(fd: &OwnedFd) -> bool {
    socket_acceptconn(fd).unwrap_or(false)
}

/// Whether a socket is bound to an address, however the pillar writes it.
fn is_at(fd: &OwnedFd, address: &str) -> bool {
    let (Ok(fd), Ok(address)) = (fd.try_clone(), Address::parse(address)) else { return false };
    let listener = TcpListener::from(fd);
    let bound = listener.local_addr();
    match (address, bound) {
        (Address::V6(host, port), Ok(bound)) => bound == SocketAddr::from((host, port)),
        (Address::Host(host, port), Ok(bound)) => {
            bound.port() == port
                && (host, port).to_socket_addrs().is_ok_and(|mut found| found.any(|one| one == bound))
        }
        (Address::Unix(path), Err(_)) => {
            let bound = UnixListener::from(OwnedFd::from(listener)).local_addr();
            bound.is_ok_and(|bound| bound.as_pathname() == Some(Path::new(&path)))
        }
        (Address::V6(..) | Address::Host(..), Err(_)) | (Address::Unix(_), Ok(_)) => false,
    }
}

/// Whether a socket is what it is known as, and listens. Who has kept it knows what a host's name meant.
pub(super) fn is_true(fd: &OwnedFd, kept: &Kept) -> bool {
    let is_name = matches!(Address::parse(&kept.address), Ok(Address::Host(host, _)) if host.parse::<IpAddr>().is_err());
    listens(fd) && (is_name || is_at(fd, &kept.address))
}

/// The one of these that a socket of somebody else's is, if it listens there and here.
pub(super) fn identify<'a>(fd: &OwnedFd, mut wanted: impl Iterator<Item = &'a Kept>) -> Option<Kept> {
    // The same address in another network namespace is another one.
    if !listens(fd) || !kernel::is_here(fd) {
        return None;
    }
    let kept = wanted.find(|kept| is_at(fd, &kept.address))?;
    // Of two that were bound to one path, a process may have either.
    let node = kernel::file_of(fd).or(kept.node);
    let node = node.or_else(|| node_at(kept.address.strip_prefix("unix:")?));
    Some(Kept { address: kept.address.clone(), node })
}

/// Device and inode of the socket's file that a path leads to.
fn node_at(path: &str) -> Option<(u64, u64)> {
    let found = look::at(path).ok()?;
    (FileType::from_raw_mode(found.st_mode) == FileType::Socket).then(|| look::node(&found))
}
