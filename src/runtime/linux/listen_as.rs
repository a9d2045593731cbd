//! Unix sockets in directories that the application's user can write to are opened by that user, in a process of its own.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::launch::become_user;
use super::listen;
use crate::host::Identity;
use crate::host::helper::{self, Helper};
use crate::model::service::Socket;

/// The hidden command that is this process.
pub const COMMAND: &str = "listen-as";

#[derive(Serialize, Deserialize)]
struct Order {
    path: String,
    mode: u32,
    backlog: i32,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    unlink: bool,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    node: (u64, u64),
    error: Option<String>,
}

/// Has the application's user open a Unix socket; gives it with device and inode of its file.
pub(super) fn ask(
    path: &str,
    mode: u32,
    backlog: i32,
    identity: &Identity,
) -> Result<(OwnedFd, (u64, u64)), String> {
    let (reply, mut fds) = order(path, mode, backlog, identity, false).map_err(|error| error.to_string())?;
    match (reply.error, fds.pop()) {
        (None, Some(fd)) => Ok((fd, reply.node)),
        (Some(error), _) => Err(error),
        (None, None) => Err("no socket came".to_owned()),
    }
}

/// Has the application's user take away a file that it may have put there.
pub(crate) fn unlink(path: &str, identity: &Identity) {
    if !identity.switch {
        let _ = std::fs::remove_file(path);
        return;
    }
    // What cannot be removed is found, and taken away, by the next start.
    let _ = order(path, 0, 0, identity, true);
}

fn order(
    path: &str,
    mode: u32,
    backlog: i32,
    identity: &Identity,
    unlink: bool,
) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let Identity { uid, gid, groups, .. } = identity.clone();
    let order = Order { path: path.to_owned(), mode, backlog, uid, gid, groups, unlink };
    Helper::start(COMMAND)?.ask(&order, &[])
}

/// The process itself.
pub fn main() -> u8 {
    helper::serve(|order: Order, _| {
        let done = become_user(order.uid, order.gid, &order.groups).and_then(|()| {
            if order.unlink {
                std::fs::remove_file(&order.path).map_err(|error| error.to_string())?;
                return Ok((None, (0, 0)));
            }
            listen::bind_here(&order.path, order.mode, order.backlog).map(|(fd, node)| (Some(fd), node))
        });
        match done {
            Ok((fd, node)) => (Reply { node, error: None }, fd.into_iter().collect()),
            Err(error) => (Reply { node: (0, 0), error: Some(error) }, vec![]),
        }
    })
}

/// Who is to own a socket's file: what the pillar says of it, else the application's user and group.
pub(super) fn owner(socket: &Socket, identity: &Identity) -> Result<(u32, u32), String> {
    let number = |database, name: &Option<String>, default| match name {
        None => Ok(default),
        Some(name) => crate::host::number_of(database, name)?
            .ok_or_else(|| format!("there is no such {} on this host: {name}", word(database))),
    };
    Ok((number("passwd", &socket.user, identity.uid)?, number("group", &socket.group, identity.gid)?))
}

fn word(database: &str) -> impl AsRef<OsStr> + std::fmt::Display + use<> {
    (if database == "passwd" { "user" } else { "group" }).to_owned()
}
