//! Files in /proc about processes of others, read within bounds.
//!
//! What a process is may be decided by whoever owns it: how long its environment is (PR_SET_MM_MAP, prctl(2)), whether reading
//! it takes long, and how many descriptors it has. So nothing here takes more memory than a buffer, and a read that is
//! interrupted because it was blocked counts as none.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::io::read;

/// What /proc tells of a process by itself (`stat`, `status`, `limits`) is never longer, in bytes.
const LONGEST: usize = 64 << 10;

/// Arguments and variables of a program together are never longer, in bytes: three quarters of 8 MiB (execve(2), `_STK_LIM`).
const LONGEST_ENVIRONMENT: usize = 6 << 20;

/// So much is read of all environments that one search looks at, in bytes; of each one more only [`LEAST`].
const LONGEST_SEARCH: usize = 256 << 20;

/// So much is read of an environment in any case: more than nearly all have.
const LEAST: usize = 64 << 10;

/// A variable is compared up to this length, in bytes: what is looked for is shorter.
const LONGEST_ENTRY: usize = 4096;

/// So much is read at once.
const PART: usize = 16 << 10;

/// So many descriptors of a process are looked at: more than a runtime or a keeper has.
const MOST_DESCRIPTORS: usize = 4096;

/// So many threads of a process whose first one has ended are looked at.
pub const MOST_THREADS: usize = 4096;

fn open(pid: u32, name: &str) -> Option<OwnedFd> {
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

/// A search through the environments that processes began with. What a process wrote over its own since is what is seen, so
/// what is found is a claim of whoever owns the process.
pub struct Environments {
    left: Cell<usize>,
}

impl Default for Environments {
    fn default() -> Self {
        Self { left: Cell::new(LONGEST_SEARCH) }
    }
}

impl Environments {
    /// Whether the variable NAME has this value.
    pub fn has(&self, pid: u32, name: &str, value: &str) -> bool {
        self.find(pid, name, |found| (found == value.as_bytes()).then_some(())).is_some()
    }

    /// Whether there is a variable NAME.
    pub fn names(&self, pid: u32, name: &str) -> bool {
        self.find(pid, name, |_| Some(())).is_some()
    }

    /// What the variable NAME is, if it is text.
    pub fn value(&self, pid: u32, name: &str) -> Option<String> {
        self.find(pid, name, |found| Some(String::from_utf8_lossy(found).into_owned()))
    }

    /// The first value of a variable with which `take` can do something. A longer one than [`LONGEST_ENTRY`] is passed over.
    fn find<T>(&self, pid: u32, name: &str, take: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let of_it = |entry: &[u8]| take(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?);
        let mut length = 0;
        let found = self.look(pid, "environ", &mut length, of_it);
        if found.is_some() || length > 0 {
            return found;
        }
        // A thread that has ended has no memory any more; the others of its process have.
        for thread in threads(pid).filter(|thread| *thread != pid).take(MOST_THREADS) {
            let found = self.look(pid, &format!("task/{thread}/environ"), &mut length, of_it);
            if length > 0 {
                return found;
            }
        }
        None
    }

    /// The first entry that `of_it` makes something of, in an environment of which `length` bytes are read.
    fn look<T>(
        &self,
        pid: u32,
        file: &str,
        length: &mut usize,
        of_it: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let file = open(pid, file)?;
        let most = LONGEST_ENVIRONMENT.min(self.left.get()).max(LEAST);
        let (mut part, mut entry) = ([0; PART], vec![]);
        while *length < most {
            // What blocks is interrupted, where somebody has seen to that.
            let count = read(&file, &mut part).ok().filter(|count| *count > 0)?;
            *length += count;
            self.left.set(self.left.get().saturating_sub(count));
            for byte in part.get(..count)? {
                if *byte == 0 {
                    let found = if entry.len() <= LONGEST_ENTRY { of_it(&entry) } else { None };
                    if found.is_some() {
                        return found;
                    }
                    entry.clear();
                } else if entry.len() <= LONGEST_ENTRY {
                    entry.push(*byte);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process with these variables, which has begun.
    fn process(variables: &[(&str, &str)]) -> Child {
        let mut command = Command::new("cat");
        command.env_clear().envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        use std::io::{Read as _, Write as _};
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn variables_are_found_wherever_they_are_and_only_whole() {
        let long = "x".repeat(100_000);
        let mut child = process(&[("A", &long), ("B", "RUNSMITH=1"), ("C", ""), ("Z", "last"), ("ZZ", "1")]);
        let (pid, looks) = (child.id(), Environments::default());
        assert!(looks.has(pid, "Z", "last") && looks.names(pid, "C") && looks.has(pid, "C", ""));
        assert!(!looks.has(pid, "Z", "las") && !looks.names(pid, "RUNSMITH") && !looks.names(pid, "x"));
        assert_eq!(looks.value(pid, "ZZ").as_deref(), Some("1"));
        assert!(!looks.names(pid, "A"), "too long to be meant");
        assert!(has_command(pid, b"cat\0") && !has_command(pid, b"cat") && !has_command(pid, b"ca\0"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_search_has_an_end() {
        let long = "x".repeat(100_000);
        let mut child = process(&[("A", &long), ("Z", "last")]);
        let (pid, looks) = (child.id(), Environments { left: Cell::new(150_000) });
        let found: Vec<bool> = (0..3).map(|_| looks.has(pid, "Z", "last")).collect();
        assert_eq!(found, [true, false, false]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
