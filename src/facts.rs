//! What a host says about a service: values that `host` gathers and `rules` judges.
//!
//! Everything in here may have been chosen by somebody hostile: it is compared and shown (made
//! visible), never obeyed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::input::Resource;

/// What was asked of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// The answer.
    Answer(T),
    /// It could not be asked, or gave no answer; why, as the end of a sentence that begins with
    /// what was not looked at.
    Unknown(String),
    /// Asking makes no sense; another fact says why.
    Moot,
}

impl<T> Asked<T> {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Unknown(_) | Self::Moot => None,
        }
    }
}

/// Everything that was asked about one service.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The user's numbers; none if the host does not know it.
    pub user: Asked<Option<User>>,
    /// The group's number; none if the host does not know it.
    pub group: Asked<Option<u32>>,
    /// Other users that the pillar names and the host does not know.
    pub unknown_users: BTreeSet<String>,
    /// Other groups that the pillar names and the host does not know.
    pub unknown_groups: BTreeSet<String>,
    /// What lies at a path, links not followed, as whoever asks sees it.
    pub entries: BTreeMap<String, Entry>,
    /// What the application's user can do with paths.
    pub reach: Asked<Reach>,
    /// How the command was looked for.
    pub command: Asked<Command>,
    /// The runtime's answer to `--version`, its first line; none if it is no program that can be run.
    pub runtime: Asked<Option<String>>,
    /// Major and minor version of bash.
    pub bash: Asked<(u32, u32)>,
    /// Programs that are looked for in the directories of [`SYSTEM_PATH`], and are not there.
    pub missing_programs: Vec<&'static str>,
    /// Who listens on the host, as far as this service's addresses may be concerned.
    pub listeners: Asked<Vec<Listener>>,
    /// Host names among the addresses, and what they mean here.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Ports below this one only root can bind (net.ipv4.ip_unprivileged_port_start).
    pub unprivileged_port: Option<u16>,
    /// File systems of the directories of Unix sockets, by the socket's path.
    pub file_systems: BTreeMap<String, FileSystem>,
    /// What limits can be set to.
    pub limits: Asked<Limits>,
    /// What the installed server says of itself.
    pub server: Asked<ServerAnswer>,
    /// What the installed server says of the rendered configuration.
    pub configuration: Asked<Verdict>,
}

/// Where programs of the system are.
pub const SYSTEM_PATH: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Programs that a shell run script uses, as templates/run-shell calls them; a test compares.
pub const SHELL_PROGRAMS: &[&str] = &[
    "bash",
    "chgrp",
    "chmod",
    "chpst",
    "cut",
    "dd",
    "env",
    "flock",
    "getent",
    "head",
    "id",
    "ln",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "od",
    "prlimit",
    "readlink",
    "rm",
    "rmdir",
    "setpriv",
    "sha256sum",
    "sleep",
    "stat",
    "timeout",
    "tr",
];

/// Programs that every service needs.
pub const SERVICE_PROGRAMS: &[&str] = &["runsv", "runsvdir", "sv"];

/// Programs that the log service needs.
pub const LOG_PROGRAMS: &[&str] = &["chpst", "svlogd"];

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// HOME, as the host has it.
    pub home: String,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The owner's name; digits where it has none.
    pub owner: String,
    /// The group's name; digits where it has none.
    pub group: String,
    /// Permissions.
    pub mode: u32,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A link, and where it leads in the end; nothing if that is not there.
    Link(String, Option<String>),
    /// A Unix socket.
    Socket,
    /// A device or a FIFO.
    Other,
}

/// What the application's user can do with the paths that were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// What the user found, links followed. A path that is not here it did not reach.
    pub found: BTreeMap<String, Access>,
    /// Real paths, all links followed, of those that lead elsewhere.
    pub real: BTreeMap<String, String>,
}

/// What the kernel lets the user do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A directory.
    pub is_directory: bool,
    /// A file.
    pub is_file: bool,
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// It may be executed, or entered.
    pub execute: bool,
}

/// What came of a walk to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The user gets there.
    There(Access),
    /// This directory bars the way.
    Barred(String),
    /// Nothing is there.
    Absent,
}

impl Reach {
    /// How far the user gets on the way to `path`.
    pub fn walk(&self, path: &str) -> Walk {
        if let Some(access) = self.found.get(path) {
            return Walk::There(*access);
        }
        let barring = |path: &str| {
            ancestors(path)
                .find(|above| {
                    self.found.get(*above).is_some_and(|access| access.is_directory && !access.execute)
                })
                .map(str::to_owned)
        };
        // A link on the way leads somewhere that has directories above it, too.
        let real = std::iter::once(path).chain(ancestors(path)).filter_map(|step| self.real.get(step));
        barring(path)
            .or_else(|| real.filter_map(|real| barring(real)).next())
            .map_or(Walk::Absent, Walk::Barred)
    }

    /// Whether the user can execute the file at `path`.
    pub fn can_execute(&self, path: &str) -> bool {
        matches!(self.walk(path), Walk::There(access) if access.is_file && access.execute)
    }

    /// Whether the user can enter the directory at `path`.
    pub fn can_enter(&self, path: &str) -> bool {
        matches!(self.walk(path), Walk::There(access) if access.is_directory && access.execute)
    }
}

/// The directories above an absolute path, the highest first, without `/` itself.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(end, _)| &path[..end])
}

/// How the command's first word was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Where it could be, in the order of PATH; one path if the word has a `/`.
    pub candidates: Vec<String>,
    /// The file that is executed; none if the user can execute none of them.
    pub file: Option<String>,
    /// The words behind `#!`, if that file begins so.
    pub interpreter: Vec<String>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub at: ListensAt,
    /// A process that holds it; none if whoever asks may not see it.
    pub holder: Option<Holder>,
}

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListensAt {
    /// An address and a port.
    Tcp(IpAddr, u16),
    /// The path of a Unix socket.
    Unix(String),
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// It belongs to this service.
    pub ours: bool,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Nothing can be made on it.
    pub read_only: bool,
    /// Its name, if it is one that other hosts may share.
    pub shared: Option<&'static str>,
    /// The directory itself is there.
    pub exists: bool,
}

/// What limits can be set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whose limits these are, in words.
    pub whose: String,
    /// Hard limits; none is unlimited.
    pub hard: BTreeMap<Resource, Option<u64>>,
    /// That process may raise them (CAP_SYS_RESOURCE).
    pub may_raise: bool,
    /// The most open files that the kernel lets anybody have (fs.nr_open).
    pub nr_open: Option<u64>,
}

/// What the installed server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAnswer {
    /// Its version.
    pub version: String,
    /// Its settings by name.
    pub settings: BTreeSet<String>,
    /// Why the class of the workers cannot be loaded.
    pub worker_class: Option<String>,
    /// Why the server itself cannot be loaded.
    pub error: Option<String>,
}

/// What the installed server says of the rendered configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it, and loads the application if it was asked to.
    Accepted,
    /// It does not take the configuration; its last lines.
    Refused(Vec<String>),
    /// It takes the configuration, and cannot load the application; its last lines.
    NotLoaded(Vec<String>),
    /// It had no answer within so many seconds.
    Late(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(kind: char, execute: bool) -> Access {
        Access { is_directory: kind == 'd', is_file: kind == 'f', read: true, write: false, execute }
    }

    fn reach(found: &[(&str, Access)], real: &[(&str, &str)]) -> Reach {
        Reach {
            found: found.iter().map(|(path, access)| ((*path).to_owned(), *access)).collect(),
            real: real.iter().map(|(path, real)| ((*path).to_owned(), (*real).to_owned())).collect(),
        }
    }

    #[test]
    fn the_directory_that_bars_the_way_is_named() {
        let (open, shut) = (access('d', true), access('d', false));
        let plain = reach(&[("/srv", open), ("/srv/venv", shut)], &[]);
        assert_eq!(plain.walk("/srv/venv/bin/gunicorn"), Walk::Barred("/srv/venv".into()));
        assert_eq!(plain.walk("/srv/other"), Walk::Absent);
        let linked = reach(
            &[("/srv", open), ("/srv/venv", open), ("/root", shut)],
            &[("/srv/venv/bin", "/root/venv/bin")],
        );
        assert_eq!(linked.walk("/srv/venv/bin/python"), Walk::Barred("/root".into()));
        assert!(reach(&[("/bin/sh", access('f', true))], &[]).can_execute("/bin/sh"));
        assert!(!reach(&[("/bin/sh", access('d', true))], &[]).can_execute("/bin/sh"));
    }

    /// What the list has the template uses, and what looks like a program in the template is in the list.
    #[test]
    fn the_programs_are_those_of_the_template() {
        let template = include_str!("../templates/run-shell");
        let words: BTreeSet<&str> = template
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
            .collect();
        for program in SHELL_PROGRAMS.iter().filter(|program| **program != "bash") {
            assert!(words.contains(program), "the run script does not use {program}");
        }
        // The programs of the packages that its head names, as Debian has them, as far as they are no plain words.
        for program in "awk sed grep nice renice nohup setsid setpriv basename dirname date dd ps pgrep pkill xargs sort \
                        uniq wc tail tee touch realpath stdbuf su sudo expr seq cat cp chown install ls find"
            .split_whitespace()
        {
            let called = template.lines().map(str::trim_start).any(|line| {
                !line.starts_with('#') && ["$(", "| ", "&& ", "as_user "].iter().any(|before| line.contains(&format!("{before}{program} ")))
            });
            assert!(!called || SHELL_PROGRAMS.contains(&program), "{program} is used and not in the list");
        }
    }
}
