//! What only the host knows about a service: its users, paths, ports, limits and its server.
//!
//! This module asks and judges nothing: [`Host::ask`] gives [`Facts`], which `rules` turns into
//! findings. Nothing is changed on the host but for a scratch directory below `/tmp`, which holds
//! the rendered configuration while the server looks at it.
//!
//! Everything that answers may be hostile. Whatever belongs to the application (its virtualenv, its
//! release, its command) is looked at and run as the application's user, in a session of its own,
//! with no way back to more privileges, with the variables that the pillar gives it (never the
//! secrets, never ours), for a time that has a name, and with an end to what is read of its output.
//! No shell takes part.

#![allow(clippy::disallowed_methods, reason = "asking the host is what this module is for")]

pub mod environments;
pub mod helper;
mod limits;
mod listeners;
pub mod look;
mod names;
pub mod passing;
mod paths;
pub mod proc;
pub mod process;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::facts::{
    Asked, Command, Facts, LOG_PROGRAMS, SERVICE_PROGRAMS, SHELL_PROGRAMS, SYSTEM_PATH, User,
};
use crate::model::Service;
use crate::model::address::Address;
use crate::model::input::{LogKind, RunScript};
use names::Names;
pub use paths::{digest, real_path};
pub use process::Identity;
use process::Run;

/// What is the same for all services.
pub struct Host {
    names: Names,
    listeners: listeners::Listeners,
}

impl Host {
    /// Looks once at what all services share: who listens, and for whom.
    pub fn look() -> Self {
        Self { names: Names::default(), listeners: listeners::Listeners::read() }
    }

    /// Asks everything about one service; `configuration` is the server's rendered one.
    pub fn ask(&mut self, service: &Service, configuration: Option<&[u8]>) -> Facts {
        let user = self.names.user(&service.user);
        let group = self.names.group(&service.group);
        let identity = self.identity(service, &user, &group);
        let (unknown_users, unknown_groups) = self.unknown(service);

        let entries = paths::entries(&paths::of_service(service), identity.answer(), &mut self.names);
        let mut reach = as_user(&identity, |identity| paths::reach(identity, &paths::for_user(service)));
        let command = command(service, &identity, &mut reach);
        let (server, verdict) = server::ask(service, configuration, &identity, &reach, &command);
        Facts {
            runtime: runtime(service, &identity),
            bash: bash(service, &identity),
            missing_programs: missing_programs(service),
            listeners: self.listeners.of(service, user.answer().and_then(Option::as_ref)),
            names: resolved(service),
            unprivileged_port: number("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
            file_systems: paths::file_systems(service, identity.answer()),
            limits: limits::ask(service),
            server,
            configuration: verdict,
            user,
            group,
            unknown_users,
            unknown_groups,
            entries,
            reach,
            command,
        }
    }

    /// Users and groups beside the application's own that the host does not know.
    fn unknown(&mut self, service: &Service) -> (BTreeSet<String>, BTreeSet<String>) {
        let layout = &service.layout;
        let directories = [&layout.releases, &layout.pids, &layout.logs, &layout.sockets, &layout.config];
        let mut users: BTreeSet<String> =
            directories.iter().map(|directory| directory.user.clone()).collect();
        users.extend(service.bind.iter().filter_map(|socket| socket.user.clone()));
        users.remove(&service.user);
        users.retain(|name| self.names.user(name) == Asked::Answer(None));
        let mut groups: BTreeSet<String> =
            directories.iter().map(|directory| directory.group.clone()).collect();
        groups.extend(service.bind.iter().filter_map(|socket| socket.group.clone()));
        groups.extend(service.groups.iter().flatten().cloned());
        groups.remove(&service.group);
        groups.retain(|name| self.names.group(name) == Asked::Answer(None));
        (users, groups)
    }

    /// Who the application runs as, if that can be had here.
    fn identity(
        &mut self,
        service: &Service,
        user: &Asked<Option<User>>,
        group: &Asked<Option<u32>>,
    ) -> Asked<Identity> {
        let groups = match &service.groups {
            None => self.names.groups_of(&service.user),
            Some(names) => {
                let mut numbers = vec![];
                let mut trouble = None;
                for name in names {
                    match self.names.group(name) {
                        Asked::Answer(Some(number)) => numbers.push(number),
                        Asked::Unknown(reason) => trouble = Some(reason),
                        Asked::Answer(None) | Asked::Moot => {}
                    }
                }
                trouble.map_or(Asked::Answer(numbers), Asked::Unknown)
            }
        };
        match (user, group, groups) {
            (Asked::Unknown(reason), ..) | (_, Asked::Unknown(reason), _) => Asked::Unknown(reason.clone()),
            (Asked::Answer(Some(user)), Asked::Answer(Some(group)), groups) => {
                let groups = match groups {
                    Asked::Answer(groups) => groups,
                    Asked::Unknown(reason) => return Asked::Unknown(reason),
                    Asked::Moot => vec![],
                };
                let me = rustix::process::geteuid().as_raw();
                if me != 0 && me != user.uid {
                    let reason = format!("only root can look as the user {}", service.user);
                    return Asked::Unknown(reason);
                }
                Asked::Answer(Identity { uid: user.uid, gid: *group, groups, switch: me == 0 })
            }
            _ => Asked::Moot,
        }
    }
}

/// Who a service's processes are to be; the error says why that cannot be had here, as a sentence.
pub fn identity_of(service: &Service) -> Result<Identity, String> {
    let mut host = Host { names: Names::default(), listeners: listeners::Listeners::none() };
    let (user, group) = (host.names.user(&service.user), host.names.group(&service.group));
    if let Some(name) =
        service.groups.iter().flatten().find(|name| host.names.group(name) == Asked::Answer(None))
    {
        return Err(format!("there is no such group on this host: {name}"));
    }
    match host.identity(service, &user, &group) {
        Asked::Answer(identity) => Ok(identity),
        Asked::Unknown(reason) => Err(reason),
        Asked::Moot if user == Asked::Answer(None) => {
            Err(format!("there is no such user on this host: {}", service.user))
        }
        Asked::Moot => Err(format!("there is no such group on this host: {}", service.group)),
    }
}

/// The number of a user (`passwd`) or group (`group`); none if the host does not know the name.
pub fn number_of(database: &str, name: &str) -> Result<Option<u32>, String> {
    let mut names = Names::default();
    let asked = if database == "passwd" {
        match names.user(name) {
            Asked::Answer(user) => Asked::Answer(user.map(|user| user.uid)),
            Asked::Unknown(reason) => Asked::Unknown(reason),
            Asked::Moot => Asked::Moot,
        }
    } else {
        names.group(name)
    };
    match asked {
        Asked::Answer(number) => Ok(number),
        Asked::Unknown(reason) => Err(reason),
        Asked::Moot => Ok(None),
    }
}

/// Asks something that takes the application's user.
fn as_user<T>(identity: &Asked<Identity>, ask: impl FnOnce(&Identity) -> Result<T, String>) -> Asked<T> {
    match identity {
        Asked::Answer(identity) => match ask(identity) {
            Ok(answer) => Asked::Answer(answer),
            Err(reason) => Asked::Unknown(reason),
        },
        Asked::Unknown(reason) => Asked::Unknown(reason.clone()),
        Asked::Moot => Asked::Moot,
    }
}

/// Finds the command as the server's start would: in PATH, as the user.
fn command(
    service: &Service,
    identity: &Asked<Identity>,
    reach: &mut Asked<crate::facts::Reach>,
) -> Asked<Command> {
    let candidates = paths::candidates(service);
    let (identity, reach) = match (identity, reach) {
        (Asked::Answer(identity), Asked::Answer(reach)) => (identity, reach),
        (_, Asked::Unknown(reason)) => return Asked::Unknown(reason.clone()),
        _ => return Asked::Moot,
    };
    let file = candidates.iter().find(|path| reach.can_execute(path)).cloned();
    let interpreter = file.as_ref().map_or_else(Vec::new, |file| paths::interpreter(identity, file));
    if let Some(first) = interpreter.first()
        && first.starts_with('/')
        && let Ok(more) = paths::reach(identity, std::slice::from_ref(first))
    {
        reach.found.extend(more.found);
        reach.real.extend(more.real);
    }
    Asked::Answer(Command { candidates, file, interpreter })
}

/// What the runtime of the native run script answers to `--version`.
fn runtime(service: &Service, identity: &Asked<Identity>) -> Asked<Option<String>> {
    let runtime = &service.service.runtime;
    if service.run_script != RunScript::Native {
        return Asked::Moot;
    }
    // Who asks sees whether it is there; what it is it says as the application's user.
    if !paths::is_program(runtime) {
        return Asked::Answer(None);
    }
    as_user(identity, |identity| {
        let words = [runtime.clone(), "--version".to_owned()];
        let run = Run::new(identity, "/", &[], &words);
        let ran = run.answer(process::QUESTION)?;
        Ok(Some(ran.text().lines().next().unwrap_or_default().chars().take(100).collect()))
    })
}

/// The version of bash, for a shell run script.
fn bash(service: &Service, identity: &Asked<Identity>) -> Asked<(u32, u32)> {
    if service.run_script != RunScript::Shell || !paths::is_program("/bin/bash") {
        return Asked::Moot;
    }
    as_user(identity, |identity| {
        let words = ["/bin/bash".to_owned(), "--version".to_owned()];
        let ran = Run::new(identity, "/", &[], &words).answer(process::QUESTION)?;
        bash_version(&ran.text()).ok_or_else(|| "/bin/bash does not tell its version".to_owned())
    })
}

/// `GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)`.
fn bash_version(text: &str) -> Option<(u32, u32)> {
    let rest = text.lines().next()?.split_once("version ")?.1;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn missing_programs(service: &Service) -> Vec<&'static str> {
    let shell = service.run_script == RunScript::Shell;
    let log = service.log.kind == LogKind::Svlogd;
    let wanted: BTreeSet<&str> = SERVICE_PROGRAMS
        .iter()
        .chain(LOG_PROGRAMS.iter().filter(|_| log))
        .chain(SHELL_PROGRAMS.iter().filter(|_| shell))
        .copied()
        .collect();
    let is_there = |program: &&str| {
        SYSTEM_PATH.iter().any(|directory| paths::is_program(&format!("{directory}/{program}")))
    };
    wanted.into_iter().filter(|program| !is_there(program)).collect()
}

/// What the host names among the addresses mean here.
fn resolved(service: &Service) -> BTreeMap<String, Vec<IpAddr>> {
    let mut resolved = BTreeMap::new();
    for socket in &service.bind {
        if let Ok(Address::Host(host, _)) = Address::parse(&socket.address)
            && host.parse::<IpAddr>().is_err()
        {
            let addresses = names::addresses(&host);
            resolved.insert(host, addresses);
        }
    }
    resolved
}

/// A number that the kernel tells in a file.
fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_bash_says() {
        assert_eq!(bash_version("GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)\n"), Some((5, 2)));
        assert_eq!(bash_version("zsh 5.9"), None);
        assert_eq!(bash_version(""), None);
    }
}
