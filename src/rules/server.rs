//! The server, its settings and its command.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value as Json;

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::model::nearest;
use crate::model::settings::GUNICORN;
use crate::pillar::{Node, Value};
use crate::rule::{self, Rule};

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    if subject.service.server == Server::Gunicorn {
        worker_class(subject, found);
        packages(subject, found);
        refused_values(subject, found);
        removed_values(subject, found);
        contradictions(subject, found);
    }
}

/// The class of gunicorn's workers: its default is `sync`, which `threads` makes `gthread`.
pub(super) fn class_of(subject: &Subject<'_>) -> String {
    let settings = &subject.service.settings;
    let class = settings.get("worker_class").and_then(Json::as_str).unwrap_or("sync");
    let threads = settings.get("threads").and_then(Json::as_u64).unwrap_or(1);
    // config.py, worker_class_str
    if (class == "sync" || class.ends_with("SyncWorker")) && threads > 1 {
        "gthread".to_owned()
    } else {
        class.to_owned()
    }
}

/// Worker classes of gunicorn 27 that need nothing but gunicorn (gunicorn/workers/__init__.py).
const BUILT_IN: &[&str] = &["sync", "gthread", "asgi"];

/// What there is to say of a worker class: the rule, the sentence, and what to write.
pub(super) fn class(class: &str) -> Option<(&'static Rule, String, String)> {
    let name = class.strip_prefix("egg:").unwrap_or(class);
    if let Some((gone, version, instead)) = [
        ("eventlet", "26.0.0", "gevent, gthread or tornado"),
        ("gaiohttp", "20.0", "asgi, or aiohttp's own worker class"),
    ]
    .into_iter()
    .find(|(gone, ..)| name.contains(gone))
    {
        let message = format!("gunicorn's worker class {gone} is gone since {version}");
        return Some((&rule::REMOVED_VALUE, message, format!("write {instead}")));
    }
    let known = GUNICORN.settings.iter().find(|setting| setting.name == "worker_class");
    let known = known.map_or(&[][..], |setting| &setting.known);
    if name == class && !name.contains(['.', '#', ':']) && !known.iter().any(|one| one == name) {
        let help = nearest(name, known).map_or_else(
            || format!("write one of {}, or a class with its module", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return Some((&rule::REFUSED_VALUE, format!("gunicorn has no worker class `{name}`"), help));
    }
    let package = match name {
        _ if BUILT_IN.contains(&name) || name.starts_with("gunicorn.workers.s") => return None,
        "gunicorn.workers.gthread.ThreadWorker" | "gunicorn.workers.gasgi.ASGIWorker" => return None,
        _ if name.contains("gevent") => "gevent",
        _ if name.contains("tornado") => "tornado",
        _ => name.split(['.', '#', ':']).next().unwrap_or(name),
    };
    let message = format!("the worker class {name} needs the package {package}");
    Some((&rule::NEEDS_PACKAGE, message, VIRTUALENV.to_owned()))
}

const VIRTUALENV: &str = "it must be in the application's virtualenv";

fn worker_class(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(node) = subject.setting("worker_class") else { return };
    let Value::Str(text) = &node.value else { return };
    if let Some((rule, message, help)) = class(text) {
        found.push(finding(rule, message).at(node.span, help));
    }
}

/// What other settings need besides gunicorn; it imports them when it starts (27.0.1).
fn packages(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let needs = |name: &str, value: &str| match (name, value) {
        ("http_protocols", value) if value.split(',').any(|protocol| protocol.trim() == "h2") => Some("h2"),
        ("http_parser", "fast") => Some("gunicorn_h1c"),
        ("reload_engine", "inotify") => Some("inotify"),
        ("paste", value) if !value.trim().is_empty() => Some("PasteDeploy"),
        _ => None,
    };
    for name in ["http_protocols", "http_parser", "reload_engine", "paste"] {
        let Some(node) = subject.setting(name) else { continue };
        let Value::Str(value) = &node.value else { continue };
        if let Some(package) = needs(name, value) {
            let message = format!("`gunicorn.{name}` needs the package {package}");
            found.push(finding(&rule::NEEDS_PACKAGE, message).at(node.span, VIRTUALENV));
        }
    }
}

/// Texts that gunicorn takes apart when it reads its configuration (config.py, 27.0.1).
fn refused_values(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let mut say = |name: &str, node: &Node, what: &str, help: &str| {
        let message = format!("`gunicorn.{name}`: {what}, and gunicorn ends");
        found.push(finding(&rule::REFUSED_VALUE, message).at(node.span, help));
    };
    for name in ["forwarded_allow_ips", "proxy_allow_ips"] {
        let Some(node) = subject.setting(name) else { continue };
        let Value::Str(value) = &node.value else { continue };
        let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "*");
        for part in parts {
            if let Some(what) = no_network(part) {
                say(name, node, &what, "write addresses and networks, separated by commas, or *");
            }
        }
    }
    if let Some(node) = subject.setting("statsd_host")
        && let Value::Str(value) = &node.value
        && !value.starts_with("unix://")
        && let Some((_, port)) = value.trim().rsplit_once(':')
        && port.parse::<u16>().is_err()
    {
        say("statsd_host", node, "its port is no number", "write HOST:PORT or unix://PATH");
    }
}

/// Why this is no network, as Python's ipaddress has it; none if it is one.
pub(super) fn no_network(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(one, other)| (one, Some(other)));
    let none = || Some(format!("{text} is neither an address nor a network"));
    let Ok(address) = address.parse::<IpAddr>() else { return none() };
    let (bits, value) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address))),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    // A netmask instead of a length is taken, too.
    let length = match length {
        None => bits,
        Some(mask) if address.is_ipv4() && mask.contains('.') => match mask.parse::<Ipv4Addr>() {
            Ok(mask) => u32::from(mask).count_ones(),
            Err(_) => return none(),
        },
        Some(length) => match length.parse::<u32>() {
            Ok(length) if length <= bits => length,
            _ => return none(),
        },
    };
    let host = if length == 0 { value } else { value & ((1_u128 << (bits - length)) - 1) };
    (host != 0).then(|| format!("{text} has bits of a host beyond its length"))
}

fn removed_values(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(node) = subject.setting("http_protocols") else { return };
    if let Value::Str(text) = &node.value
        && text.split(',').any(|protocol| protocol.trim() == "h3")
    {
        found.push(
            finding(&rule::REMOVED_VALUE, "gunicorn's protocol h3 is gone since 26.2.1")
                .at(node.span, "write h1, h2 or both"),
        );
    }
}

fn contradictions(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let settings = &subject.service.settings;
    let is_set = |name: &str| settings.get(name) == Some(&Json::Bool(true));
    let number = |name: &str| settings.get(name).and_then(Json::as_u64);
    if is_set("reload") && is_set("preload_app") {
        let by_default = subject.setting("preload_app").is_none();
        let said = if by_default { "`preload_app`, which is on by default," } else { "`preload_app`" };
        let mut contradiction = finding(
            &rule::CONTRADICTION,
            format!("`gunicorn.reload` cannot work with {said} because a preloaded application is not loaded again"),
        )
        .at(subject.place(&["gunicorn", "reload"]), "leave it out, or set `preload_app: false`");
        if !by_default {
            contradiction = contradiction.at(subject.place(&["gunicorn", "preload_app"]), "preloaded here");
        }
        found.push(contradiction);
    }
    let explicit_sync =
        subject.setting("worker_class").filter(|node| node.value == Value::Str("sync".to_owned()));
    if let (Some(class), Some(threads)) = (explicit_sync, subject.setting("threads"))
        && number("threads").is_some_and(|threads| threads > 1)
    {
        found.push(
            finding(&rule::CONTRADICTION, "with `threads` gunicorn uses gthread workers, not sync ones")
                .at(class.span, "write gthread, or leave `threads` out")
                .at(threads.span, "more than one thread"),
        );
    }
    let jitter = subject.setting("max_requests_jitter").filter(|_| number("max_requests_jitter") > Some(0));
    if let Some(jitter) = jitter
        && number("max_requests").unwrap_or(0) == 0
    {
        found.push(
            finding(
                &rule::CONTRADICTION,
                "`gunicorn.max_requests_jitter` varies `max_requests`, which is not set",
            )
            .at(jitter.span, "set `max_requests`, or leave it out"),
        );
    }
    if let Some(key) = subject.setting("keyfile")
        && subject.setting("certfile").is_none()
    {
        found.push(
            finding(
                &rule::CONTRADICTION,
                "`gunicorn.keyfile` without `certfile`: a key needs its certificate",
            )
            .at(key.span, "set `certfile` too"),
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_table_has_as_gone_is_found() {
        for removed in
            crate::model::settings::GUNICORN.removed.iter().filter_map(|removed| removed.value.as_deref())
        {
            assert!(["eventlet", "gaiohttp", "h3"].contains(&removed), "{removed}");
        }
    }
}
