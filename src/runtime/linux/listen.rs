//! Listening sockets: opened by the runtime, held for as long as the service is up.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd, umask};
use serde::{Deserialize, Serialize};

use super::listen_as;
use super::place::trusted;
use super::process::Process;
use crate::host::Identity;
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
    Ok(Listener { kept: Kept { address: socket.address.clone(), node }, fd })
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
    let mode = socket.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(MODE);
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    // Where the application's user can write, a path is what that user makes of it, so root does not go there.
    let (fd, node) = if !identity.switch || trusted(directory).is_ok() {
        bind_here(path, mode, backlog)?
    } else {
        listen_as::ask(path, mode, backlog, identity)?
    };
    if identity.switch {
        let (user, group) = listen_as::owner(socket, identity)?;
        own(path, node, user, group).map_err(|reason| format!("its owner cannot be set: {reason}"))?;
    }
    Ok((fd, node))
}

/// Gives the socket's file to somebody; that very file, whatever its name leads to by now.
fn own(path: &str, node: (u64, u64), user: u32, group: u32) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| error.to_string())?;
    let found = fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || (found.st_dev, found.st_ino) != node {
        return Err("somebody has put something else there meanwhile".to_owned());
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(|error| error.to_string())
}

/// Opens a Unix socket as whoever this process is. What a dead server has left there is taken away; nothing else is.
pub fn bind_here(path: &str, mode: u32, backlog: i32) -> Result<(OwnedFd, (u64, u64)), String> {
    let address = SocketAddrUnix::new(path).map_err(|error| error.to_string())?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
        Ok(found) if found.file_type().is_socket() => {
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
        Ok(found) if found.is_dir() => return Err("a directory is in its place; remove it".to_owned()),
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
    let found = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    Ok((socket, (found.dev(), found.ino())))
}

impl Kept {
    /// Whether the socket can still be reached by its name.
    pub fn is_in_place(&self) -> bool {
        let Some(node) = self.node else { return true };
        let found = self.address.strip_prefix("unix:").and_then(|path| fs::symlink_metadata(path).ok());
        found.is_some_and(|found| (found.dev(), found.ino()) == node)
    }
}

impl Listener {
    /// Whether the socket is what it is known as, and listens.
    pub fn is_true(&self) -> bool {
        listens(&self.fd) && self.fd.try_clone().is_ok_and(|fd| names(fd).contains(&self.kept.address))
    }

    /// Takes a Unix socket's file away, if it is still this one's.
    pub fn unlink(&self, identity: &Identity) {
        let Some(path) = self.kept.address.strip_prefix("unix:") else { return };
        if !self.kept.is_in_place() {
            return;
        }
        let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
        if !identity.switch || trusted(directory).is_ok() {
            let _ = fs::remove_file(path);
        } else {
            listen_as::unlink(path, identity);
        }
    }
}

fn listens(fd: &OwnedFd) -> bool {
    socket_acceptconn(fd).unwrap_or(false)
}

/// The ways a pillar may have written where this socket listens.
fn names(fd: OwnedFd) -> Vec<String> {
    let listener = TcpListener::from(fd);
    if let Ok(address) = listener.local_addr() {
        let mut names = vec![address.to_string()];
        if address.ip().is_loopback() {
            names.push(format!("localhost:{}", address.port()));
        }
        return names;
    }
    let listener = UnixListener::from(OwnedFd::from(listener));
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname()).and_then(Path::to_str);
    path.map(|path| format!("unix:{path}")).into_iter().collect()
}

/// Takes the sockets that are wanted out of a living process of the service (pidfd_getfd(2)): what is left to do when the
/// keeper has gone as well. `uid` owns the process, which is why each is proven to listen where it is to.
pub fn recover(process: &Process, wanted: &[Kept]) -> Vec<Listener> {
    let mut found: Vec<Listener> = vec![];
    for number in FIRST..FIRST + 2 * i32::try_from(MOST).unwrap_or(0) {
        let Ok(fd) = pidfd_getfd(process, number, PidfdGetfdFlags::empty()) else { continue };
        if !listens(&fd) {
            continue;
        }
        let names = fd.try_clone().map(names).unwrap_or_default();
        let kept = wanted.iter().find(|kept| names.contains(&kept.address));
        if let Some(kept) = kept.filter(|kept| !found.iter().any(|one| one.kept.address == kept.address)) {
            found.push(Listener { kept: kept.clone(), fd });
        }
    }
    found
}
