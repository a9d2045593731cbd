//! Where services listen.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{Subject, finding, paths};
use crate::diagnostic::{Diagnostic, Kept};
use crate::model::Service;
use crate::model::address::Address;
use crate::model::input::{RunScript, Server};
use crate::pillar::{Node, Value};
use crate::rule;
use crate::source::Span;
use crate::steps::{is_within, parent};
use crate::visible::visible;

/// Ports below this one are root's by default (net.ipv4.ip_unprivileged_port_start).
pub(super) const UNPRIVILEGED_PORT: u16 = 1024;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    // The runtime binds as root and hands the sockets on; otherwise the server binds as its user.
    if service.user == "root" || service.inherits_sockets() || service.server == Server::Any {
        return;
    }
    for (index, socket) in service.bind.iter().enumerate() {
        if let Ok(Address::Host(_, port) | Address::V6(_, port)) = Address::parse(&socket.address)
            && port < UNPRIVILEGED_PORT
        {
            let message = format!("the server binds port {port} itself, as the user {}", service.user);
            let help = match service.run_script {
                RunScript::Native => "With `handoff.strategy: sockets` the runtime binds it as root.",
                RunScript::Shell => "With `run_script: native` the runtime binds it as root.",
            };
            found.push(
                finding(&rule::PRIVILEGED_PORT, message)
                    .at(
                        bind_place(subject.node, subject.span, index),
                        "only root may bind ports below 1024 on most hosts",
                    )
                    .help(help),
            );
        }
    }
}

/// Where the pillar says which address is the `index`th; where the application is, if it is the default.
pub(super) fn bind_place(node: &Node, span: Span, index: usize) -> Span {
    let Some(bind) = node.find(["bind"]).filter(|bind| bind.value != Value::Null) else { return span };
    let item = match &bind.value {
        Value::List(items) => items.get(index).unwrap_or(bind),
        _ => bind,
    };
    item.find(["address"]).unwrap_or(item).span
}

/// What a service takes for itself on a host, so that no other may have it.
#[derive(Debug)]
pub struct Claims {
    service: Arc<Service>,
    addresses: Vec<(Address, Span)>,
    /// The PID file and where the pillar says it, if the server writes one itself.
    pid_file: Option<(String, Span)>,
    /// Where the pillar says what the run directory is.
    run: Span,
    /// Where the pillar says each of [`paths::trusted`].
    trusted: [Span; paths::TRUSTED],
}

/// What a service takes for itself on a host; `span` is where it is named.
pub fn claims(service: &Arc<Service>, node: &Node, span: Span) -> Claims {
    let place = |steps: &[&str]| {
        node.find(steps.iter().copied())
            .filter(|node| node.value != Value::Null)
            .map_or(span, |node| node.span)
    };
    let addresses = service.bind.iter().enumerate().filter_map(|(index, socket)| {
        Some((Address::parse(&socket.address).ok()?, bind_place(node, span, index)))
    });
    let pid_file = service.config_name().filter(|_| !service.inherits_sockets()).map(|name| {
        let pids = ["layout", "pids", "path"];
        let steps = if node.has(&pids) { &pids[..] } else { &pids[..2] };
        (format!("{}/{name}", service.layout.pids.path), place(steps))
    });
    Claims {
        addresses: addresses.collect(),
        pid_file,
        run: place(&["layout", "run"]),
        trusted: paths::trusted(service).map(|(_, _, steps)| place(steps)),
        service: Arc::clone(service),
    }
}

impl Claims {
    fn application(&self) -> &str {
        &self.service.application
    }
}

/// Adds what two services, or one twice, want for themselves.
pub fn clashes(all: &[Claims], found: &mut Kept) {
    addresses(all, found);
    owned_by_others(all, found);
    same_state(all, found);
}

/// Services that keep what they know at one path.
fn same_state(all: &[Claims], found: &mut Kept) {
    let mut taken: HashMap<(&str, Cow<'_, str>), (&str, Span)> = HashMap::with_capacity(2 * all.len());
    for claims in all {
        let application = claims.application();
        let run = ("run directory", claims.service.layout.run.as_str(), claims.run);
        let pid_file = claims.pid_file.as_ref().map(|(path, span)| ("PID file", path.as_str(), *span));
        for (what, path, span) in [run].into_iter().chain(pid_file) {
            let (other, first) = match taken.entry((what, on_disk(path))) {
                Entry::Occupied(taken) => *taken.get(),
                Entry::Vacant(free) => {
                    free.insert((application, span));
                    continue;
                }
            };
            let message = format!("the applications `{other}` and `{application}` have the same {what}");
            let label = format!("`{application}` needs one of its own");
            let diagnostic = finding(&rule::STATE_CLASH, message).at(span, label);
            found.push(if first == span {
                diagnostic
            } else {
                diagnostic.at(first, format!("`{other}` has it"))
            });
        }
    }
}

/// What root runs for one application, below what another one's user owns.
fn owned_by_others(all: &[Claims], found: &mut Kept) {
    let mut owners: HashMap<&str, (&Claims, &str)> = HashMap::with_capacity(8 * all.len());
    for claims in all.iter().filter(|claims| claims.service.user != "root") {
        for (key, path) in paths::owned(&claims.service) {
            owners.entry(path).or_insert((claims, key));
        }
    }
    // What root runs lies side by side in a few directories above which nobody owns any: the last of each kind.
    let mut unowned = [""; paths::TRUSTED];
    for claims in all {
        let own = &claims.service;
        for (kind, (what, path, _)) in paths::trusted(own).into_iter().enumerate() {
            let mut is_unowned = true;
            let mut above = path;
            while !above.is_empty() && above != unowned[kind] {
                let owner = owners.get(above);
                is_unowned &= owner.is_none();
                // Below what its own user has, it has been found already.
                if let Some((other, key)) = owner.filter(|(other, _)| other.application() != own.application)
                    && !paths::owned(own).any(|(_, own)| is_within(path, own))
                {
                    let message = format!(
                        "{what} of `{}` is {}, below `{key}` of `{}`, which belongs to {}",
                        own.application,
                        visible(path),
                        other.application(),
                        other.service.user
                    );
                    found.push(
                        finding(&rule::OWNED_PATH, message)
                            .at(claims.trusted[kind], format!("write a path outside of {}", visible(above)))
                            .help("Root runs what lies there: whoever breaks into the application would be root."),
                    );
                    break;
                }
                above = parent(above);
            }
            if is_unowned {
                unowned[kind] = parent(path);
            }
        }
    }
}

/// An address that is taken, as the pillar has it, by whom, and where that stands.
type Taken<'a> = (&'a Address, &'a str, Span);

/// Who listens on one port, by their numbers; none of them overlap.
#[derive(Default)]
struct Port {
    all: Vec<usize>,
    /// Those that overlap with more than the same address.
    wide: Vec<usize>,
}

/// By address and port, so that ten thousand services need not each be compared with each.
fn addresses(all: &[Claims], found: &mut Kept) {
    let bounds: Vec<(Address, Taken<'_>)> = all
        .iter()
        .flat_map(|claims| claims.addresses.iter().map(move |(address, span)| (claims, address, span)))
        .map(|(claims, address, span)| (as_bound(address), (address, claims.application(), *span)))
        .collect();
    let mut same: HashMap<&Address, usize> = HashMap::with_capacity(bounds.len());
    let mut ports: HashMap<u16, Port> = HashMap::with_capacity(bounds.len().min(1 << 16));
    for (number, (bound, taken)) in bounds.iter().enumerate() {
        let overlaps = |other: &&usize| overlap(&bounds[**other].0, bound);
        let mut port = match bound {
            Address::Unix(_) => None,
            Address::Host(_, port) | Address::V6(_, port) => Some(ports.entry(*port).or_default()),
        };
        // The first one is enough: who moves away from it is told about the next.
        let first = match &port {
            Some(port) if is_wide(bound) => port.all.iter().find(overlaps).copied(),
            Some(port) => same.get(bound).into_iter().chain(port.wide.iter().filter(overlaps)).min().copied(),
            None => same.get(bound).copied(),
        };
        if let Some(first) = first {
            found.push(clash(bounds[first].1, *taken));
            continue;
        }
        same.insert(bound, number);
        if let Some(port) = &mut port {
            port.all.push(number);
            if is_wide(bound) {
                port.wide.push(number);
            }
        }
    }
}

/// The address as the kernel takes it: names of hosts have no capitals, an IPv4 address within an IPv6 one is that address.
fn as_bound(address: &Address) -> Address {
    match address {
        Address::Host(host, port) => {
            Address::Host(host.to_ascii_lowercase().trim_end_matches('.').to_owned(), *port)
        }
        Address::V6(host, port) => match host.to_ipv4_mapped() {
            Some(v4) => Address::Host(v4.to_string(), *port),
            None => Address::V6(*host, *port),
        },
        Address::Unix(path) => Address::Unix(on_disk(path).into_owned()),
    }
}

/// Where a path leads: /var/run and /var/lock are links on every system that has runit from a package.
fn on_disk(path: &str) -> Cow<'_, str> {
    [("/var/run/", "/run/"), ("/var/lock/", "/run/lock/")]
        .into_iter()
        .find_map(|(link, target)| Some(Cow::from(format!("{target}{}", path.strip_prefix(link)?))))
        .unwrap_or(Cow::Borrowed(path))
}

fn clash(first: Taken<'_>, second: Taken<'_>) -> Diagnostic {
    let same = first.0 == second.0;
    let who = if first.1 == second.1 {
        format!("the application `{}` listens twice", first.1)
    } else {
        format!("the applications `{}` and `{}` listen", first.1, second.1)
    };
    let message = if same {
        format!("{who} on {}", second.0)
    } else {
        format!("{who} on {} and {}, which overlap", first.0, second.0)
    };
    let own = match second.0 {
        Address::Unix(_) => "give it a path of its own",
        _ => "give it a port of its own",
    };
    let diagnostic = finding(&rule::BIND_CLASH, message).at(second.2, format!("`{}`: {own}", second.1));
    if first.2 == second.2 { diagnostic } else { diagnostic.at(first.2, format!("`{}`", first.1)) }
}

/// Whether an address overlaps with others than itself.
fn is_wide(address: &Address) -> bool {
    is_any(address) || is_loopback(address)
}

fn is_any(address: &Address) -> bool {
    match address {
        Address::Host(host, _) => host == "0.0.0.0",
        Address::V6(host, _) => host.is_unspecified(),
        Address::Unix(_) => false,
    }
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Host(host, _) => host == "localhost" || host == "127.0.0.1",
        Address::V6(host, _) => host.is_loopback(),
        Address::Unix(_) => false,
    }
}

/// Whether the kernel refuses to bind the second one, both being on one port: `0.0.0.0` is every IPv4
/// address, `[::]` every address (gunicorn and the runtime leave IPV6_V6ONLY off, as Linux does).
fn overlap(one: &Address, two: &Address) -> bool {
    match (one, two) {
        _ if one == two => true,
        (Address::V6(host, _), _) | (_, Address::V6(host, _)) if host.is_unspecified() => true,
        (Address::Host(..), Address::Host(..)) => {
            is_any(one) || is_any(two) || (is_loopback(one) && is_loopback(two))
        }
        // `localhost` may be either.
        (Address::Host(host, _), Address::V6(v6, _)) | (Address::V6(v6, _), Address::Host(host, _)) => {
            host == "localhost" && v6.is_loopback()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap() {
        let overlap = |one: &str, two: &str| {
            let [one, two] = [one, two].map(|text| Address::parse(text).unwrap());
            assert_eq!(super::overlap(&one, &two), super::overlap(&two, &one), "{one} {two}");
            super::overlap(&one, &two)
        };
        assert!(overlap("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "[::1]:80"));
        assert!(overlap("[::]:80", "0.0.0.0:80"));
        assert!(overlap("localhost:80", "127.0.0.1:80"));
        assert!(overlap("localhost:80", "[::1]:80"));
        let bound = |text: &str| as_bound(&Address::parse(text).unwrap());
        assert!(super::overlap(&bound("LOCALHOST:80"), &bound("localhost.:80")));
        assert!(super::overlap(&bound("[::ffff:127.0.0.1]:80"), &bound("localhost:80")));
        assert_eq!(bound("unix:/var/run/x.sock"), bound("unix:/run/x.sock"));
        assert_eq!(on_disk("/var/lock/x"), "/run/lock/x");
        assert_eq!(on_disk("/var/running/x"), "/var/running/x");
        assert!(!overlap("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlap("127.0.0.1:80", "[::1]:80"));
        assert!(!overlap("0.0.0.0:80", "[::1]:80"));
        assert!(!overlap("web.example:80", "127.0.0.1:80"));
        for (text, wide) in [
            ("0.0.0.0:80", true),
            ("[::]:80", true),
            ("localhost:80", true),
            ("127.0.0.1:80", true),
            ("[::1]:80", true),
            ("127.0.0.2:80", false),
            ("web.example:80", false),
            ("[::2]:80", false),
        ] {
            assert_eq!(is_wide(&bound(text)), wide, "{text}");
        }
    }
}
