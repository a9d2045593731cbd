//! Addresses that somebody else has, and the directories of sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{finding, standing};
use crate::diagnostic::Diagnostic;
use crate::facts::{EntryKind, Facts, Listener, ListensAt, Walk};
use crate::model::address::Address;
use crate::rule;
use crate::rules::Subject;
use crate::rules::addresses::{UNPRIVILEGED_PORT, bind_place};
use crate::source::Span;
use crate::steps::is_within;
use crate::visible::visible;

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    for (index, socket) in subject.service.bind.iter().enumerate() {
        let place = bind_place(subject.node, subject.span, index);
        let Ok(address) = Address::parse(&socket.address) else { continue };
        match &address {
            Address::Host(host, port) => match ips(facts, host) {
                Some(addresses) if addresses.is_empty() => {
                    let message = format!("the host name {} means nothing on this host", visible(host));
                    found.push(finding(&rule::HOST_ADDRESS, message).at(place, ""));
                }
                Some(addresses) => tcp(subject, facts, &addresses, *port, place, found),
                None => {}
            },
            Address::V6(address, port) => {
                tcp(subject, facts, &[(*address).into()], *port, place, found);
            }
            Address::Unix(path) => unix(subject, facts, path, place, found),
        }
    }
}

/// What a host stands for; nothing if the host was not asked.
fn ips(facts: &Facts, host: &str) -> Option<Vec<IpAddr>> {
    host.parse().map_or_else(|_| facts.names.get(host).cloned(), |address| Some(vec![address]))
}

fn tcp(
    subject: &Subject<'_>,
    facts: &Facts,
    addresses: &[IpAddr],
    port: u16,
    place: Span,
    found: &mut Vec<Diagnostic>,
) {
    let service = subject.service;
    let foreign = facts.listeners.answer().into_iter().flatten().find(|listener| {
        let ours = listener.holder.as_ref().is_some_and(|holder| holder.ours);
        !ours && matches!(listener.at, ListensAt::Tcp(at, taken) if taken == port && addresses.iter().any(|one| meets(*one, at)))
    });
    if let Some(listener) = foreign {
        taken(listener, &service.user, place, found);
    }
    // Ports below 1024 were found without looking at a host.
    let binds_itself = !service.inherits_sockets() && service.user != "root";
    if let Some(first) = facts.unprivileged_port
        && binds_itself
        && (UNPRIVILEGED_PORT..first).contains(&port)
    {
        let message = format!(
            "on this host only root may bind ports below {first}, and the server binds {port} itself, as {}",
            service.user
        );
        found.push(
            finding(&rule::HOST_ADDRESS, message)
                .at(place, "")
                .help("net.ipv4.ip_unprivileged_port_start says so."),
        );
    }
}

/// Whether who listens at `at` keeps others from listening at `wanted`.
fn meets(wanted: IpAddr, at: IpAddr) -> bool {
    let any = |address: IpAddr| address.is_unspecified();
    match (wanted, at) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            wanted == at || any(wanted) || any(at)
        }
        // A socket for all of IPv6 takes IPv4 as well, unless it was told not to: /proc does not say.
        (IpAddr::V4(wanted), IpAddr::V6(at)) => {
            at == Ipv6Addr::UNSPECIFIED || at.to_ipv4_mapped() == Some(wanted)
        }
        (IpAddr::V6(wanted), IpAddr::V4(at)) => {
            wanted.to_ipv4_mapped() == Some(at)
                || (wanted == Ipv6Addr::UNSPECIFIED && at == Ipv4Addr::UNSPECIFIED)
        }
    }
}

fn taken(listener: &Listener, user: &str, place: Span, found: &mut Vec<Diagnostic>) {
    let at = match &listener.at {
        ListensAt::Tcp(IpAddr::V6(address), port) => format!("[{address}]:{port}"),
        ListensAt::Tcp(address, port) => format!("{address}:{port}"),
        ListensAt::Unix(path) => visible(path).into_owned(),
    };
    let (message, help) = match &listener.holder {
        Some(holder) => (
            format!(
                "{} (pid {}) listens on {at}, and does not belong to this service",
                visible(&holder.name),
                holder.pid
            ),
            "Stop it, or choose another address.".to_owned(),
        ),
        None => (
            format!("somebody listens on {at}"),
            format!("Who it is, and whether it is this service, only root and the user {user} can see."),
        ),
    };
    let mut diagnostic = finding(&rule::HOST_ADDRESS, message).at(place, "").help(help);
    if listener.holder.is_none() {
        // It may well be ours.
        diagnostic.severity = crate::diagnostic::Severity::Warning;
    }
    found.push(diagnostic);
}

fn unix(subject: &Subject<'_>, facts: &Facts, path: &str, place: Span, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let listeners = facts.listeners.answer().into_iter().flatten();
    for listener in listeners {
        let ours = listener.holder.as_ref().is_some_and(|holder| holder.ours);
        if !ours && matches!(&listener.at, ListensAt::Unix(at) if at == path) {
            taken(listener, &service.user, place, found);
            return;
        }
    }
    if let Some(entry) = facts.entries.get(path)
        && !matches!(entry.kind, EntryKind::Socket)
    {
        let message = format!("{} is there and is no socket", visible(path));
        found.push(
            finding(&rule::HOST_ADDRESS, message).at(place, "").help("Remove it, or choose another path."),
        );
    }
    let (Some(file_system), Some((directory, _))) = (facts.file_systems.get(path), path.rsplit_once('/'))
    else {
        return;
    };
    let shown = visible(directory);
    let layout = &service.layout;
    let made = [&layout.releases, &layout.pids, &layout.logs, &layout.sockets, &layout.config];
    let is_made = made.iter().any(|made| is_within(&made.path, directory));
    let user = &service.user;
    let trouble = if file_system.read_only {
        Some(format!("the file system of {shown} is read-only"))
    } else if let Some(name) = file_system.shared {
        Some(format!("{shown} is on a file system that other hosts may share ({name})"))
    } else if !file_system.exists && !is_made {
        Some(format!("{shown} is not there, and rendering does not make it"))
    } else if let Some(reach) = facts.reach.answer().filter(|_| !service.inherits_sockets()) {
        match reach.walk(directory) {
            Walk::There(access) if access.is_directory && !(access.write && access.execute) => {
                // What rendering makes it also gives to its owner.
                (!is_made).then(|| {
                    format!(
                        "the server makes its socket itself, and the user {user} may not write in {shown}{}",
                        standing(facts, directory)
                    )
                })
            }
            Walk::Barred(at) => Some(format!(
                "on the way to {shown} the user {user} cannot enter {}{}",
                visible(&at),
                standing(facts, &at)
            )),
            Walk::There(_) | Walk::Absent => None,
        }
    } else {
        None
    };
    if let Some(message) = trouble {
        found.push(finding(&rule::HOST_SOCKET, message).at(place, ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_meets_itself_and_the_one_that_means_all() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (wanted, at) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("0.0.0.0", "10.0.0.1"),
            ("127.0.0.1", "::"),
            ("::1", "::"),
            ("10.0.0.1", "::ffff:10.0.0.1"),
        ] {
            assert!(meets(ip(wanted), ip(at)), "{wanted} {at}");
        }
        for (wanted, at) in
            [("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "::1"), ("::1", "127.0.0.1"), ("::1", "0.0.0.0")]
        {
            assert!(!meets(ip(wanted), ip(at)), "{wanted} {at}");
        }
    }
}
