//! Where services listen.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::model::address::Address;
use crate::model::input::{RunScript, Server};
use crate::pillar::{Node, Value};
use crate::rule;
use crate::source::Span;
use crate::steps::is_within;
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
#[derive(Debug, Default)]
pub struct Claims {
    application: String,
    addresses: Vec<(Address, Span)>,
    /// What it is in words, the path, and where the pillar says it.
    paths: Vec<(&'static str, String, Span)>,
    user: String,
    /// What its user owns: the key and the path.
    owned: Vec<(&'static str, String)>,
    /// What root runs or believes: in words, the path, and where the pillar says it.
    trusted: Vec<(&'static str, String, Span)>,
}

/// What a service takes for itself on a host; `span` is where it is named.
pub fn claims(service: &Service, node: &Node, span: Span) -> Claims {
    let place = |steps: &[&str]| {
        node.find(steps.iter().copied())
            .filter(|node| node.value != Value::Null)
            .map_or(span, |node| node.span)
    };
    let addresses = service.bind.iter().enumerate().filter_map(|(index, socket)| {
        Some((Address::parse(&socket.address).ok()?, bind_place(node, span, index)))
    });
    let mut paths = vec![("run directory", service.layout.run.clone(), place(&["layout", "run"]))];
    if !service.inherits_sockets() && service.config_name().is_some() {
        let pids = if node.has(&["layout", "pids", "path"]) {
            place(&["layout", "pids", "path"])
        } else {
            place(&["layout", "pids"])
        };
        paths.push((
            "PID file",
            format!("{}/{}", service.layout.pids.path, service.config_name().unwrap_or_default()),
            pids,
        ));
    }
    Claims {
        application: service.application.clone(),
        addresses: addresses.collect(),
        paths,
        user: service.user.clone(),
        owned: super::paths::owned(service).map(|(key, path)| (key, path.to_owned())).collect(),
        trusted: super::paths::trusted(service)
            .map(|(what, path, steps)| (what, path.to_owned(), place(steps)))
            .collect(),
    }
}

/// What two services, or one twice, want for themselves.
pub fn clashes(all: &[Claims]) -> Vec<Diagnostic> {
    let mut found = vec![];
    addresses(all, &mut found);
    owned_by_others(all, &mut found);
    let mut taken: HashMap<(&str, Cow<'_, str>), (&str, Span)> = HashMap::new();
    for claims in all {
        for (what, path, span) in &claims.paths {
            let key = (*what, on_disk(path));
            let Some((other, first)) = taken.get(&key) else {
                taken.insert(key, (&claims.application, *span));
                continue;
            };
            let message =
                format!("the applications `{other}` and `{}` have the same {what}", claims.application);
            let label = format!("`{}` needs one of its own", claims.application);
            let diagnostic = finding(&rule::STATE_CLASH, message).at(*span, label);
            found.push(if first == span {
                diagnostic
            } else {
                diagnostic.at(*first, format!("`{other}` has it"))
            });
        }
    }
    found
}

/// What root runs for one application, below what another one's user owns.
fn owned_by_others(all: &[Claims], found: &mut Vec<Diagnostic>) {
    let mut owners: HashMap<&str, (&Claims, &str)> = HashMap::new();
    for claims in all.iter().filter(|claims| claims.user != "root") {
        for (key, path) in &claims.owned {
            owners.entry(path).or_insert((claims, key));
        }
    }
    for claims in all {
        for (what, path, span) in &claims.trusted {
            // Below what its own user has, it has been found already.
            if claims.owned.iter().any(|(_, own)| is_within(path, own)) {
                continue;
            }
            let mut above = Some(path.as_str());
            while let Some(at) = above.filter(|at| !at.is_empty()) {
                if let Some((other, key)) =
                    owners.get(at).filter(|(other, _)| other.application != claims.application)
                {
                    let message = format!(
                        "{what} of `{}` is {}, below `{key}` of `{}`, which belongs to {}",
                        claims.application,
                        visible(path),
                        other.application,
                        other.user
                    );
                    found.push(
                        finding(&rule::OWNED_PATH, message)
                            .at(*span, format!("write a path outside of {}", visible(at)))
                            .help("Root runs what lies there: whoever breaks into the application would be root."),
                    );
                    break;
                }
                above = at.rsplit_once('/').map(|(parent, _)| parent);
            }
        }
    }
}

/// By port, so that ten thousand services need not each be compared with each.
fn addresses(all: &[Claims], found: &mut Vec<Diagnostic>) {
    type Taken<'a> = (&'a Address, &'a str, Span);
    let mut ports: HashMap<u16, Vec<(Address, Taken<'_>)>> = HashMap::new();
    let mut sockets: HashMap<String, Taken<'_>> = HashMap::new();
    for claims in all {
        for (address, span) in &claims.addresses {
            let taken: Taken<'_> = (address, &claims.application, *span);
            let other = match as_bound(address) {
                Address::Unix(path) => match sockets.get(&path) {
                    Some(other) => Some(*other),
                    None => {
                        sockets.insert(path, taken);
                        None
                    }
                },
                bound @ (Address::Host(_, port) | Address::V6(_, port)) => {
                    let others = ports.entry(port).or_default();
                    // The first one is enough: who moves away from it is told about the next.
                    let other =
                        others.iter().find(|(other, _)| overlap(other, &bound)).map(|(_, other)| *other);
                    if other.is_none() {
                        others.push((bound, taken));
                    }
                    other
                }
            };
            found.extend(other.map(|other| clash(other, taken)));
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

fn clash(first: (&Address, &str, Span), second: (&Address, &str, Span)) -> Diagnostic {
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

/// Whether the kernel refuses to bind the second one, both being on one port: `0.0.0.0` is every IPv4
/// address, `[::]` every address (gunicorn and the runtime leave IPV6_V6ONLY off, as Linux does).
fn overlap(one: &Address, two: &Address) -> bool {
    let any = |address: &Address| match address {
        Address::Host(host, _) => host == "0.0.0.0",
        Address::V6(host, _) => host.is_unspecified(),
        Address::Unix(_) => false,
    };
    let loopback = |address: &Address| match address {
        Address::Host(host, _) => host == "localhost" || host == "127.0.0.1",
        Address::V6(host, _) => host.is_loopback(),
        Address::Unix(_) => false,
    };
    match (one, two) {
        _ if one == two => true,
        (Address::V6(host, _), _) | (_, Address::V6(host, _)) if host.is_unspecified() => true,
        (Address::Host(..), Address::Host(..)) => any(one) || any(two) || (loopback(one) && loopback(two)),
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
    }
}
