//! Files in /proc about processes of others, read within bounds.
//!
//! What a process is may be decided by whoever owns it: how long its arguments are (PR_SET_MM_MAP, prctl(2)), and how many
//! descriptors it has. So nothing here takes more memory than a buffer, and a read that is interrupted because it was blocked counts
//! as none. What the kernel reads only while the process runs no new program is in `environments`: that can wait for ever.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::io::read;

/// What /proc tells of a process by itself (`stat`, `status`, `limits`) is never longer, in bytes.
const LONGEST: usize = 64 << 10;

/// So much is read at once.
pub(super) const PART: usize = 16 << 10;

/// So many descriptors of a process are looked at: more than a runtime or a keeper has.
const MOST_DESCRIPTORS: usize = 4096;

/// So many threads of a process whose first one has ended are looked at.
pub const MOST_THREADS: usize = 4096;

pub(super) fn open(pid: u32, name: &str) -> Option<OwnedFd> {
    File::open(format!("/proc/{pid}/{name}")).ok().map(OwnedFd::from)
}

/// A file that the kernel writes by itself: `stat`, `status`, `limits`. What is longer than it can be is cut.
pub fn file(pid: u32, name: &str) -> Option<Vec<u8>> {
    whole(pid, name, LONGEST)
}

fn whole(pid: u32, name: &str, most: usize) -> Option<Vec<u8>> {
    let file = open(pid, name)?;
    let mut bytes = vec![];
    let mut part = [0; PART];
    while bytes.len() < most {
        let room = PART.min(most - bytes.len());
        match read(&file, part.get_mut(..room)?).ok()? {
            0 => break,
            count => bytes.extend_from_slice(part.get(..count)?),
        }
    }
    Some(bytes)
}

/// The state of a process (`R`, `S`, `Z` and so on) and when it began (proc_pid_stat(5)); also of one that has ended and was not
/// waited for.
pub fn state(pid: u32) -> Option<(u8, u64)> {
    let bytes = file(pid, "stat")?;
    let mut fields = behind_name(&bytes)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The fields of `stat` that follow the name of the program (proc_pid_stat(5)). The name may hold anything, also blanks, parentheses and
/// bytes that are not text.
pub fn behind_name(stat: &[u8]) -> Option<&str> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(stat.get(end + 2..)?).ok()
}

/// The user that a process runs as, if all four of its users are the same (proc_pid_status(5)).
pub fn user_of(pid: u32) -> Option<u32> {
    let text = text(pid, "status")?;
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let ids: Vec<u32> = ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
    match ids.as_slice() {
        [real, effective, saved, files] if [effective, saved, files] == [real; 3] => Some(*real),
        _ => None,
    }
}

/// The numbers of a process's threads.
pub fn threads(pid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The same as text.
pub fn text(pid: u32, name: &str) -> Option<String> {
    file(pid, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The memory of this process, in bytes (proc(5), `VmRSS` of status); 0 if the kernel does not say.
pub fn own_memory() -> u64 {
    let text = text(std::process::id(), "status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// Whether the command line of a process is this one: its words, a NUL after each.
pub fn has_command(pid: u32, command: &[u8]) -> bool {
    whole(pid, "cmdline", command.len() + 1).is_some_and(|line| line == command)
}

/// The inodes of the sockets that a process has open, as /proc writes them.
pub fn sockets(pid: u32) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.take(MOST_DESCRIPTORS).filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    })
}
