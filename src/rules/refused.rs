//! Values of gunicorn's settings that it ends at, or cannot work with, in the configuration as well as among options.
//!
//! A validator of gunicorn (config.py) is called for each place where a setting is set, also for one that another overrules.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value as Json;

use super::command::{Given, integer};
use super::settings::Said;
use super::{Subject, finding, server};
use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::model::settings::{Kind, Pillar};
use crate::pillar::{Node, Value};
use crate::rule;

/// What is wrong, and what to write.
type Why = Option<(String, String)>;

/// How the text of a setting is looked at.
type Look = fn(&str) -> Why;

/// Settings whose texts gunicorn 27.0.1 takes apart whenever they are there.
const ALWAYS: &[(&str, Look)] = &[
    ("forwarded_allow_ips", networks),
    ("proxy_allow_ips", networks),
    ("uwsgi_allow_ips", networks),
    ("http_protocols", protocols),
    ("statsd_host", statsd),
    ("logger_class", logger),
    ("access_log_format", log_format),
];

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    // Most services set nothing that could be refused.
    let is_idle = subject.lines.is_empty() && subject.given(&["gunicorn"]).is_none();
    if subject.service.server != Server::Gunicorn || is_idle {
        return;
    }
    let dirty = subject.number("dirty_workers").unwrap_or(0) > 0;
    let sometimes: [(&str, Look, bool); 3] = [
        ("syslog_addr", syslog, subject.is_on("syslog")),
        ("raw_paste_global_conf", assignment, subject.is_filled("paste")),
        ("dirty_apps", dirty_app, dirty),
    ];
    let looks = ALWAYS.iter().copied();
    let looks = looks
        .chain(sometimes.into_iter().filter(|(.., is_read)| *is_read).map(|(name, look, _)| (name, look)));
    for (name, look) in looks {
        for (text, said) in texts(subject, name) {
            if let Some((what, help)) = look(text.trim()) {
                let message = format!("{}: {what}", said.name);
                found.push(finding(&rule::REFUSED_VALUE, message).at(said.span, help));
            }
        }
    }
    options(subject, found);
}

/// Every text that is given for a setting, the items of a list included.
pub(super) fn texts<'a>(subject: &'a Subject<'_>, name: &'a str) -> Vec<(&'a str, Said)> {
    let mut all = vec![];
    if let Some(node) = subject.setting(name) {
        let items =
            if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        let text = |item: &'a Node| match &item.value {
            Value::Str(text) => {
                Some((text.as_str(), Said { span: item.span, name: format!("`gunicorn.{name}`") }))
            }
            _ => None,
        };
        all.extend(items.iter().filter_map(text));
    }
    for line in &subject.lines {
        for given in line.settings().filter(|given| given.setting.name == name) {
            if let Some((text, span)) = &given.text {
                all.push((text.as_str(), Said { span: *span, name: line.called(given) }));
            }
        }
    }
    all
}

/// Values among options that the pillar's schema would refuse as well.
fn options(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    for line in &subject.lines {
        for given in line.settings().filter(|given| given.setting.pillar == Pillar::Allowed) {
            let Some((text, span)) = &given.text else { continue };
            if let Some(expected) = unfit(given, text) {
                let message = format!("{} cannot be {text:?}", line.called(given));
                found.push(finding(&rule::REFUSED_VALUE, message).at(*span, format!("expected {expected}")));
            }
        }
    }
}

/// What a setting would take instead of this text; none if it takes it.
fn unfit(given: &Given, text: &str) -> Option<String> {
    let setting = given.setting;
    match setting.kind {
        Kind::Integer => {
            let range = match (setting.minimum, setting.maximum) {
                (Some(least), Some(most)) => format!(" from {least} to {most}"),
                (Some(least), None) => format!(" of at least {least}"),
                _ => String::new(),
            };
            let fits = integer(text, setting).is_some_and(|number| {
                setting.minimum.is_none_or(|least| number >= least)
                    && setting.maximum.is_none_or(|most| number <= most)
            });
            (!fits).then(|| format!("a whole number{range}"))
        }
        Kind::String if setting.choices.is_some() => {
            let choices = setting.choices.iter().flatten().filter_map(Json::as_str);
            let aliases = setting.aliases.iter().filter_map(Json::as_str);
            let word = if setting.any_case { text.trim().to_lowercase() } else { text.to_owned() };
            let is_one = choices.clone().chain(aliases).any(|one| one == word);
            (!is_one).then(|| choices.collect::<Vec<_>>().join(", "))
        }
        Kind::String | Kind::StringList => {
            let least = setting.min_length.unwrap_or(0);
            ((text.trim().chars().count() as u64) < least).then(|| "a value".to_owned())
        }
        Kind::Boolean | Kind::Map | Kind::Hook => None,
    }
}

fn networks(text: &str) -> Why {
    let what = no_networks(text)?;
    Some((
        format!("{what}, and gunicorn ends"),
        "write addresses and networks, separated by commas, or *".to_owned(),
    ))
}

/// What among addresses and networks is none, as config.py's `validate_string_to_addr_list` splits them.
pub(super) fn no_networks(text: &str) -> Option<String> {
    let mut parts = text.split(',').filter(|part| !part.is_empty()).map(str::trim);
    parts.find_map(|part| if part == "*" { None } else { no_network(part) })
}

/// Why this is no network, as Python's ipaddress has it; none if it is one.
fn no_network(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(one, other)| (one, Some(other)));
    let none = || Some(format!("{text:?} is neither an address nor a network"));
    // A zone is taken since Python 3.9.
    let address = match address.split_once('%') {
        Some((address, zone)) if address.contains(':') && !zone.is_empty() && !zone.contains('%') => address,
        _ => address,
    };
    let Ok(address) = address.parse::<IpAddr>() else { return none() };
    let (bits, value) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address))),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    let length = match length {
        None => bits,
        Some(mask) if address.is_ipv4() && mask.contains('.') => {
            match mask.parse::<Ipv4Addr>().map(mask_length) {
                Ok(Some(length)) => length,
                _ => return none(),
            }
        }
        Some(length) => match length.parse::<u32>() {
            Ok(number) if number <= bits && length.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return none(),
        },
    };
    let host = if length == 0 { value } else { value & ((1_u128 << (bits - length)) - 1) };
    (host != 0).then(|| format!("{text:?} has bits of a host beyond its length"))
}

/// The length that a netmask stands for, or a mask of the host's bits; none if its ones have gaps.
fn mask_length(mask: Ipv4Addr) -> Option<u32> {
    let is_net = |mask: u32| mask.leading_ones() + mask.trailing_zeros().min(32) == 32 || mask == u32::MAX;
    let mask = u32::from(mask);
    [mask, !mask].into_iter().find(|mask| is_net(*mask)).map(u32::leading_ones)
}

/// config.py, `validate_http_protocols`.
fn protocols(text: &str) -> Why {
    let help = || "write h1, h2 or both, separated by a comma".to_owned();
    let mut seen: Vec<String> = vec![];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let name = part.to_lowercase();
        // h3 was one, and `removed-value` says so.
        if !matches!(&*name, "h1" | "h2" | "h3") {
            return Some((format!("there is no protocol {part:?}, and gunicorn ends"), help()));
        }
        if seen.contains(&name) {
            return Some((format!("{name} is there twice, and gunicorn ends"), help()));
        }
        seen.push(name);
    }
    None
}

/// config.py, `validate_statsd_address`, and util.py, `parse_address`.
fn statsd(text: &str) -> Why {
    let help = || "write HOST:PORT or unix:PATH".to_owned();
    if text.starts_with("unix:") {
        return None;
    }
    if let Some(number) = text.strip_prefix("fd://") {
        let what = match number.trim().parse::<i64>() {
            Ok(_) => "statistics are sent to an address, not a descriptor",
            Err(_) => "it is no address, and gunicorn ends",
        };
        return Some((what.to_owned(), help()));
    }
    let text = text.split("tcp://").nth(usize::from(text.starts_with("tcp://"))).unwrap_or(text);
    let port = if text.contains('[') && text.contains(']') {
        text.split("]:").nth(1)
    } else {
        text.split(':').nth(1)
    };
    let port = port?;
    match port.trim().parse::<i64>() {
        Ok(1..=65535) => None,
        Ok(_) => Some(("there is no such port, and no statistics are sent".to_owned(), help())),
        Err(_) => Some(("its port is no number, and gunicorn ends".to_owned(), help())),
    }
}

/// glogging.py, `parse_syslog_address`.
fn syslog(text: &str) -> Why {
    let help = || "write udp://HOST:PORT, tcp://HOST:PORT or unix://PATH".to_owned();
    if text.starts_with("unix://") {
        return None;
    }
    let rest = text.strip_prefix("udp://").or_else(|| text.strip_prefix("tcp://"));
    let Some(rest) = rest else {
        return Some((
            "it has none of the schemes that gunicorn knows, and gunicorn ends".to_owned(),
            help(),
        ));
    };
    let rest = rest.rsplit(']').next().unwrap_or(rest);
    let port = rest.split_once(':').map(|(_, port)| port)?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(("its port is no number, and gunicorn ends".to_owned(), help()));
    }
    let fits = port.parse::<u16>().is_ok_and(|port| port > 0);
    (!fits).then(|| ("there is no such port, and nothing is logged there".to_owned(), help()))
}

/// config.py, `paste_global_conf`: a name, a sign, a value; a backslash keeps a sign from being it.
fn assignment(text: &str) -> Why {
    let mut before = ' ';
    for c in text.chars() {
        if c == '=' && before != '\\' {
            return None;
        }
        before = c;
    }
    Some(("it assigns nothing, and no worker starts".to_owned(), "write KEY=VALUE".to_owned()))
}

/// dirty/app.py, `parse_dirty_app_spec`.
fn dirty_app(text: &str) -> Why {
    let parts: Vec<&str> = text.split(':').collect();
    let fits = match parts[..] {
        [module, class] => !module.is_empty() && !class.is_empty(),
        [module, class, count] => {
            !module.is_empty()
                && !class.is_empty()
                && count.trim().parse::<i64>().is_ok_and(|count| count > 0)
        }
        _ => false,
    };
    let what = || format!("{text:?} names no class, and no dirty worker starts");
    (!fits).then(|| (what(), "write MODULE:CLASS, or MODULE:CLASS:WORKERS".to_owned()))
}

/// util.py, `load_class`: gunicorn 27 has no entry points for loggers, so a name without module is only its own.
fn logger(text: &str) -> Why {
    let help = || "write a class with its module".to_owned();
    let what = if server::is_own_logger(text) { None } else { server::no_class(text) }?;
    Some((format!("{what}, and gunicorn ends"), help()))
}

/// Python's `%` with a map at its right side (glogging.py, `access`): a format that fails is a traceback in the error log
/// for each request, instead of its line in the access log.
fn log_format(text: &str) -> Why {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let from = &rest[at..];
        let mut tail = &from[1..];
        if let Some(after) = tail.strip_prefix('%') {
            rest = after;
            continue;
        }
        let mut name = "";
        if tail.starts_with('(') {
            // Parentheses nest.
            let mut depth = 0;
            let end = tail.char_indices().find_map(|(index, c)| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                (depth == 0).then_some(index + 1)
            });
            (name, tail) = tail.split_at(end.unwrap_or(tail.len()));
        }
        let tail = tail
            .trim_start_matches(['#', '0', '-', ' ', '+'])
            .trim_start_matches(|c: char| c.is_ascii_digit());
        let tail =
            tail.strip_prefix('.').map_or(tail, |tail| tail.trim_start_matches(|c: char| c.is_ascii_digit()));
        let tail = tail.strip_prefix(['h', 'l', 'L']).unwrap_or(tail);
        // All but these are texts.
        let is_number = matches!(name, "(B)" | "(D)" | "(M)" | "(T)");
        let kinds = if is_number { "sradiouxXeEfFgG" } else { "sra" };
        let kind = tail.chars().next().filter(|c| kinds.contains(*c));
        if kind.is_none() {
            let shown: String = from.chars().take(12).collect();
            let what = format!("Python cannot format {shown:?}, and no request is logged");
            return Some((what, "write %(NAME)s, and %% for a percent sign".to_owned()));
        }
        rest = &tail[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_pythons() {
        for text in [
            "*",
            "",
            "10.0.0.1,",
            "10.0.0.1, *",
            "10.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/0.255.255.255",
            "::1",
            "fe80::1%eth0",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert_eq!(networks(text), None, "{text}");
        }
        for text in [
            "x",
            "10.0.0.1/8",
            "10.0.0.0/255.0.255.0",
            "10.0.0.1, ,10.0.0.2",
            "fe80::1%eth0/64",
            "10.0.0.0/+8",
            "10.0.0.1/33",
            "1.2.3",
            "01.2.3.4",
            "::1%",
        ] {
            assert!(networks(text).is_some(), "{text}");
        }
    }
}
