//! Who listens on this host, and for whom: what /proc tells.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use rustix::fs::OFlags;

use super::environments::Environments;
use super::proc;
use crate::facts::{Asked, Holder, Listener, ListensAt, User};
use crate::model::Service;
use crate::model::address::Address;

/// So much of a table is read, in bytes.
const TABLE: u64 = 64 << 20;

/// Every listening socket, and every process.
pub(super) struct Listeners {
    sockets: Result<Vec<(ListensAt, u64)>, String>,
    /// A process that holds each listening socket, by the socket's number.
    holders: HashMap<u64, Vec<u32>>,
    processes: HashMap<u32, Process>,
}

/// A process as /proc/PID/stat has it.
#[derive(Clone, Debug)]
struct Process {
    name: String,
    parent: u32,
    /// Clock ticks since boot.
    start: u64,
    uid: u32,
}

impl Listeners {
    /// Nobody was looked for.
    pub(super) fn none() -> Self {
        Self { sockets: Ok(vec![]), holders: HashMap::new(), processes: HashMap::new() }
    }

    /// Reads the tables of sockets, the processes, and who holds what.
    pub(super) fn read() -> Self {
        let sockets = sockets();
        let mut processes = HashMap::new();
        let mut holders: HashMap<u64, Vec<u32>> = HashMap::new();
        let listening: HashSet<u64> =
            sockets.iter().flatten().map(|(_, inode)| *inode).filter(|inode| *inode != 0).collect();
        for pid in pids() {
            let Some(process) = process(pid) else { continue };
            processes.insert(pid, process);
            // Only root may look at the files of others.
            for number in proc::sockets(pid).filter_map(|inode| inode.parse().ok()) {
                if listening.contains(&number) {
                    holders.entry(number).or_default().push(pid);
                }
            }
        }
        Self { sockets, holders, processes }
    }

    /// Those that have a port or a path of the service.
    pub(super) fn of(&self, service: &Service, user: Option<&User>) -> Asked<Vec<Listener>> {
        let sockets = match &self.sockets {
            Ok(sockets) => sockets,
            Err(reason) => return Asked::Unknown(reason.clone()),
        };
        let mut ports = HashSet::new();
        let mut paths = HashSet::new();
        for socket in &service.bind {
            match Address::parse(&socket.address) {
                Ok(Address::Host(_, port) | Address::V6(_, port)) => {
                    ports.insert(port);
                }
                Ok(Address::Unix(path)) => {
                    paths.insert(path);
                }
                Err(_) => {}
            }
        }
        let roots = self.roots(service, user);
        let environments = Environments::default();
        let of_service = |at: &ListensAt| match at {
            ListensAt::Tcp(_, port) => ports.contains(port),
            ListensAt::Unix(path) => paths.contains(path),
        };
        let listeners = sockets.iter().filter(|(at, _)| of_service(at)).map(|(at, inode)| Listener {
            at: at.clone(),
            holder: self.holder(*inode, service, user, &roots, &environments),
        });
        Asked::Answer(listeners.collect())
    }

    /// One of those who hold a socket; one of ours if there is one, otherwise the oldest.
    fn holder(
        &self,
        inode: u64,
        service: &Service,
        user: Option<&User>,
        roots: &HashSet<u32>,
        environments: &Environments,
    ) -> Option<Holder> {
        let holders = self.holders.get(&inode)?;
        let is_ours = |pid: u32| self.is_ours(pid, service, user, roots, environments);
        let ours = holders.iter().copied().find(|pid| is_ours(*pid));
        let oldest = holders
            .iter()
            .copied()
            .min_by_key(|pid| (self.processes.get(pid).map_or(u64::MAX, |process| process.start), *pid));
        let pid = ours.or(oldest)?;
        let name = self.processes.get(&pid).map(|process| process.name.clone()).unwrap_or_default();
        Some(Holder { pid, name, ours: ours.is_some() })
    }

    /// Processes that are the service's without doubt: what its runsv started, and the masters that
    /// its run script wrote down.
    fn roots(&self, service: &Service, user: Option<&User>) -> HashSet<u32> {
        let mut roots = HashSet::new();
        if let Some(pid) = supervised(&service.service.directory) {
            roots.insert(pid);
        }
        let state = own_file(&format!("{}/state", service.layout.run)).unwrap_or_default();
        for (pid, start) in masters(&state) {
            let Some(process) = self.processes.get(&pid) else { continue };
            if process.start == start && user.is_some_and(|user| user.uid == process.uid) {
                roots.insert(pid);
            }
        }
        roots
    }

    /// Whether a process belongs to the service: it is one of its roots or descends from one, or it
    /// runs as the application's user and was started with the service's name.
    fn is_ours(
        &self,
        pid: u32,
        service: &Service,
        user: Option<&User>,
        roots: &HashSet<u32>,
        environments: &Environments,
    ) -> bool {
        let mut at = pid;
        let mut seen = HashSet::new();
        while at > 1 && seen.insert(at) {
            if roots.contains(&at) {
                return true;
            }
            let Some(process) = self.processes.get(&at) else { break };
            at = process.parent;
        }
        let is_users =
            self.processes.get(&pid).is_some_and(|process| user.is_some_and(|user| user.uid == process.uid));
        is_users && environments.has(pid, "RUNSMITH_SERVICE", &service.application)
    }
}

/// The process that a runsv keeps running in a service directory, if one does.
pub(super) fn supervised(directory: &str) -> Option<u32> {
    own_file(&format!("{directory}/supervise/pid"))?.trim().parse().ok()
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    process(pid).map(|process| process.parent)
}

/// The numbers of all processes of root that have that name.
pub(super) fn called(name: &str) -> Option<u32> {
    let mut pids: Vec<u32> = pids().collect();
    pids.sort_unstable();
    pids.into_iter().find(|pid| process(*pid).is_some_and(|process| process.name == name && process.uid == 0))
}

/// `master PID START` and `other PID START` of a shell run script's state file.
fn masters(state: &str) -> Vec<(u32, u64)> {
    state
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(' ').filter(|(key, _)| matches!(*key, "master" | "other"))?;
            let (pid, start) = rest.split_once(' ')?;
            Some((pid.parse().ok().filter(|pid| *pid > 1)?, start.trim().parse().ok()?))
        })
        .collect()
}

/// A small file that only root, or we, can have written.
fn own_file(path: &str) -> Option<String> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).ok()?;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let stat = file.metadata().ok()?;
    let me = rustix::process::geteuid().as_raw();
    if !stat.is_file() || (stat.uid() != 0 && stat.uid() != me) {
        return None;
    }
    let mut text = String::new();
    file.take(TABLE).read_to_string(&mut text).ok()?;
    Some(text)
}

fn bounded(path: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    std::fs::File::open(path).ok()?.take(TABLE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn process(pid: u32) -> Option<Process> {
    let stat = proc::file(pid, "stat")?;
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let stat = String::from_utf8_lossy(&stat);
    // The name may hold blanks and parentheses.
    let (head, fields) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = fields.split(' ').collect();
    Some(Process { name, parent: fields.get(1)?.parse().ok()?, start: fields.get(19)?.parse().ok()?, uid })
}

/// Everything that listens, by TCP and by Unix sockets, with the socket's number.
fn sockets() -> Result<Vec<(ListensAt, u64)>, String> {
    let mut sockets = vec![];
    for table in ["tcp", "tcp6", "unix"] {
        let read = if table == "unix" { unix } else { tcp };
        let path = format!("/proc/net/{table}");
        match bounded(&path) {
            Some(bytes) => sockets.extend(String::from_utf8_lossy(&bytes).lines().skip(1).filter_map(read)),
            // A kernel without IPv6 has no such table.
            None if table == "tcp6" => {}
            None => return Err(format!("{path} cannot be read")),
        }
    }
    Ok(sockets)
}

/// `0: 0100007F:1F90 00000000:0000 0A … uid timeout inode`; state 0A is LISTEN.
fn tcp(line: &str) -> Option<(ListensAt, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in the order of the machine.
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let address: IpAddr = match words?.as_slice() {
        [one] => Ipv4Addr::from(*one).into(),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip([a, b, c, d].into_iter().flatten()) {
                *to = *from;
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((ListensAt::Tcp(address, port), fields.get(9)?.parse().ok()?))
}

/// `ffff…: 00000002 00000000 00010000 0001 01 12345 /run/x.sock`; flag 0x10000 is __SO_ACCEPTCON.
fn unix(line: &str) -> Option<(ListensAt, u64)> {
    let mut fields = line.splitn(7, ' ');
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    // The number is padded; what follows it is the path, blanks and all.
    let (inode, path) = fields.nth(2)?.trim_start().split_once(' ')?;
    let listens = flags & 0x1_0000 != 0 && path.starts_with('/');
    let inode = inode.parse().ok()?;
    listens.then(|| (ListensAt::Unix(path.to_owned()), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_tables_of_the_kernel() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let at = ListensAt::Tcp(IpAddr::from([127, 0, 0, 1]), 8080);
        assert_eq!(tcp(line), cfg!(target_endian = "little").then_some((at, 12_345)));
        assert_eq!(tcp(&line.replace(" 0A ", " 01 ")), None);
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01   4711 /run/a b.sock";
        assert_eq!(unix(line), Some((ListensAt::Unix("/run/a b.sock".into()), 4711)));
        assert_eq!(unix(&line.replace("00010000", "00000000")), None);
        assert_eq!((tcp(""), unix(""), tcp("a b c 0A"), unix("é é é é é é é é")), (None, None, None, None));
    }

    #[test]
    fn reads_the_masters_of_a_state_file() {
        let state = "boot x\nmaster 12 345\nother 0 0\nlast master 9 9\nmaster x y\n";
        assert_eq!(masters(state), [(12, 345)]);
    }

    #[test]
    fn finds_a_listener_and_who_holds_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = ListensAt::Tcp(IpAddr::from([127, 0, 0, 1]), listener.local_addr().unwrap().port());
        let all = Listeners::read();
        let (_, inode) = all.sockets.as_ref().unwrap().iter().find(|(one, _)| *one == at).unwrap();
        assert!(all.holders[inode].contains(&std::process::id()));
    }
}
