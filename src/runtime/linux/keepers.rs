//! Keepers that nobody is connected to: found among all processes, proven, and ended.
//!
//! A keeper may be stopped, may be of another version, or may have lost its socket's file. Left alone it would go on holding
//! the listening sockets, so that the addresses accept connections that nobody answers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::keeper::COMMAND;
use super::privileges;
use super::process::{self, Process};
use crate::host::proc;

/// So many sockets can have had a path: each keeper has had one, and whoever adds lines to the table adds no keeper.
const MOST: usize = 4096;

/// The flag of a socket that listens (__SO_ACCEPTCON), as the table has it.
const LISTENS: &str = "00010000";

/// The socket in the run directory that a keeper listens on.
pub const DOOR: &str = "keeper";

/// Whether a keeper of a runtime that runs as `me` may run as this user: as nobody else's since it gives up its rights, as
/// the runtime's own before, and where it cannot.
pub fn is_user(uid: u32, me: u32) -> bool {
    uid == me || (me == 0 && privileges::is_nobodys(uid))
}

/// The keepers of a service that live. Each runs as a user that a keeper runs as, with the keeper's command line, and either it has
/// the socket that is bound to this run directory, or a record that only root can have written names it by number and start.
pub fn living(directory: &Path, application: &str, recorded: &[(u32, u64)]) -> Vec<Process> {
    let me = rustix::process::geteuid().as_raw();
    let command = format!("runsmith\0{COMMAND}\0{application}\0");
    // Whose it is comes first: a command line is in memory that its owner can make long, or slow to read.
    let is_keepers = |pid: u32| process::user_of(pid).is_some_and(|uid| is_user(uid, me));
    let is_keeper = |pid: u32| is_keepers(pid) && proc::has_command(pid, command.as_bytes());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let candidates: Vec<u32> = pids.filter(|pid| is_keeper(*pid)).collect();
    if candidates.is_empty() {
        return vec![];
    }
    let doors = sockets_at(&directory.join(DOOR));
    let mut found = vec![];
    for pid in candidates {
        // Opened before it is proven: what was looked up so far may have been another process with this number.
        let Some(process) = Process::open(pid) else { continue };
        let is_recorded = recorded.contains(&(pid, process.start));
        // A container that shares the host's network can have a keeper with the same name and paths.
        let is_proven = is_keeper(pid)
            && (is_recorded || (is_of_this_host(pid) && proc::sockets(pid).any(|one| doors.contains(&one))));
        if is_proven && !process.has_ended() {
            found.push(process);
        }
    }
    found
}

/// Whether a process has the process numbers that this one has (pid_namespaces(7)).
fn is_of_this_host(pid: u32) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    namespace("self").is_some_and(|ours| namespace(&pid.to_string()) == Some(ours))
}

/// The inodes of the Unix sockets that are bound to a path, also of those whose file has gone.
fn sockets_at(path: &Path) -> HashSet<String> {
    bound_to(path).into_iter().map(|(_, inode)| inode).collect()
}

/// How many Unix sockets that are bound to a path listen, also of those whose file has gone.
pub fn listening_at(path: &Path) -> usize {
    bound_to(path).iter().filter(|(flags, _)| flags == LISTENS).count()
}

/// Flags and inodes of the Unix sockets that are bound to a path (proc_net_unix(5)). Everybody can add lines to the table, with any
/// bytes in them.
fn bound_to(path: &Path) -> Vec<(String, String)> {
    let Ok(file) = File::open("/proc/net/unix") else { return vec![] };
    let wanted = path.display().to_string();
    let found = |line: Vec<u8>| {
        let line = String::from_utf8(line).ok()?;
        let mut fields = line.split_ascii_whitespace().skip(3);
        let (flags, inode) = (fields.next()?, fields.nth(2)?);
        // The path is the rest of the line, blanks included.
        let (_, path) = line.split_once(&format!(" {inode} "))?;
        (path == wanted).then(|| (flags.to_owned(), inode.to_owned()))
    };
    BufReader::new(file).split(b'\n').map_while(Result::ok).filter_map(found).take(MOST).collect()
}
