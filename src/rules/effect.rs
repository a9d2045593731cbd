//! Keys that have no effect for this server or run script.
//!
//! Only the application's own keys count: among the defaults they may be meant for others.

use serde_json::Value as Json;

use super::{Subject, command, environment, finding, server};
use crate::diagnostic::Diagnostic;
use crate::model::input::{LogKind, RunScript, Server, Strategy};
use crate::pillar::Value;
use crate::rule;
use crate::source::Span;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let mut idle = |steps: &[&str], why: String| {
        if let Some(span) = subject.own_key(steps) {
            let message = format!("`{}` has no effect: {why}", steps.join("."));
            found.push(finding(&rule::NO_EFFECT, message).at(span, "leave it out"));
        }
    };
    let name = match service.server {
        Server::Gunicorn => "gunicorn",
        Server::Unicorn => "unicorn",
        Server::Any => "neither gunicorn nor unicorn",
    };
    for section in ["gunicorn", "unicorn"] {
        if section != name {
            idle(&[section], format!("the server is {name}"));
        }
    }
    if service.server == Server::Gunicorn && !environment::ends_at_concurrency(subject) {
        // Without a number of its own the configuration counts the processors.
        let why = "the rendered configuration sets `workers`; write `gunicorn.workers`".to_owned();
        idle(&["environment", "WEB_CONCURRENCY"], why);
    }
    if service.server == Server::Any {
        idle(&["app"], "the program has its whole command in `unicorn_command`".to_owned());
    }
    if subject.own_key(&["virtualenv"]).is_some() {
        idle(&["virtualenv_home"], "`virtualenv` says where it is".to_owned());
    }
    if service.log.kind != LogKind::Svlogd {
        for key in ["size", "number", "processor", "directory"] {
            idle(&["log", key], "only `log.kind: svlogd` has it".to_owned());
        }
    }
    if service.run_script == RunScript::Shell {
        idle(&["handoff", "health_check"], "a shell run script makes no requests".to_owned());
        idle(&["service", "runtime"], "a shell run script is executed by bash".to_owned());
        idle(&["cgroup"], "a shell run script makes no cgroups".to_owned());
    }
    if service.run_script == RunScript::Native && service.handoff.strategy == Strategy::Usr2 {
        let why =
            "with `usr2` both masters share their sockets, so neither can be asked by itself".to_owned();
        idle(&["handoff", "health_check"], why);
    }
    sockets(subject, found);
    settings(subject, found);
}

/// Files have a mode and an owner, ports have not.
fn sockets(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(bind) = subject.given(&["bind"]) else { return };
    let items =
        if let Value::List(items) = &bind.value { items.as_slice() } else { std::slice::from_ref(bind) };
    for (item, socket) in items.iter().zip(&subject.service.bind) {
        let (keys, why): (&[&str], String) = if socket.unix_path().is_none() {
            (&["mode", "user", "group"], format!("{} is no Unix socket", socket.address))
        } else if !subject.service.inherits_sockets() {
            (&["user", "group"], "the server makes the socket, as its own user".to_owned())
        } else {
            continue;
        };
        for key in keys {
            let own = if *key == "user" { &subject.service.user } else { &subject.service.group };
            let is_idle = |value: &Value| match value {
                Value::Str(name) => *key == "mode" || name != own,
                _ => false,
            };
            if let Some(pair) = item.get(key).filter(|pair| is_idle(&pair.value.value)) {
                let message = format!("`bind`: `{key}` has no effect: {why}");
                found.push(finding(&rule::NO_EFFECT, message).at(pair.key.span, "leave it out"));
            }
        }
    }
}

/// Settings of gunicorn that an option, the kind of worker, or another setting makes idle.
fn settings(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    if subject.service.server != Server::Gunicorn {
        return;
    }
    let mut say = |name: String, span: Span, why: &str| {
        // gunicorn ends at a value that it refuses, also where it would not read it.
        if found.iter().any(|other| other.rule == &rule::REFUSED_VALUE && other.message.starts_with(&name)) {
            return;
        }
        let message = format!("{name} has no effect: {why}");
        found.push(finding(&rule::NO_EFFECT, message).at(span, "leave it out"));
    };
    let section = subject.given(&["gunicorn"]).map(|node| &node.value);
    if let Some(Value::Map(pairs)) = section {
        for pair in pairs {
            let Value::Str(name) = &pair.key.value else { continue };
            if let Some(why) = idle(subject, name)
                && subject.option(name).is_none()
                && let Some(span) = subject.own_key(&["gunicorn", name])
            {
                say(format!("`gunicorn.{name}`"), span, why);
            }
        }
    }
    let mut told = vec![];
    for name in subject.lines.iter().flat_map(command::Line::settings).map(|given| &given.setting.name) {
        if told.contains(&name) {
            continue;
        }
        told.push(name);
        if let (Some((line, given)), Some(why)) = (subject.option(name), idle(subject, name)) {
            say(line.called(given), given.span, why);
        }
    }
    overruled(subject, found);
}

/// Why gunicorn passes over a setting that it would take; none if it does not.
fn idle(subject: &Subject<'_>, name: &str) -> Option<&'static str> {
    // What gunicorn's own classes do is known; one from elsewhere may do anything.
    let kind = || server::kind_of(&server::class_of(subject));
    let dirty = || subject.number("dirty_workers").unwrap_or(0) > 0;
    let (is_idle, why) = match name {
        "worker_connections" | "keepalive" => {
            (kind() == Some("sync"), "a sync worker has one connection, for one request")
        }
        "threads" => (
            kind().is_some_and(|kind| !matches!(kind, "sync" | "gthread")),
            "only gthread workers have threads",
        ),
        "asgi_loop" | "asgi_lifespan" | "asgi_disconnect_grace_period" | "websocket_max_message_size" => {
            (kind().is_some_and(|kind| kind != "asgi"), "only asgi workers read it")
        }
        "control_socket" | "control_socket_mode" => {
            (subject.is_on("control_socket_disable"), "the control socket is off (`control_socket_disable`)")
        }
        "reload_engine" | "reload_extra_files" => (!subject.is_on("reload"), "`reload` is off"),
        "reuse_port" => (subject.service.inherits_sockets(), "the runtime makes the sockets"),
        "backlog" => (
            subject.service.inherits_sockets(),
            "the runtime makes the sockets; write `backlog` below `bind`",
        ),
        "syslog_addr" | "syslog_prefix" | "syslog_facility" | "disable_redirect_access_to_syslog" => {
            (!subject.is_on("syslog"), "`syslog` is off")
        }
        "raw_paste_global_conf" => (!subject.is_filled("paste"), "`paste` is not set"),
        "cert_reqs" | "ca_certs" | "suppress_ragged_eofs" | "do_handshake_on_connect" | "ciphers" => (
            !subject.is_filled("certfile") && !subject.is_filled("keyfile"),
            "there is no TLS without `certfile`",
        ),
        "dirty_apps" => (!dirty(), "`dirty_workers` is 0"),
        "dirty_workers" => (dirty() && !subject.is_filled("dirty_apps"), "`dirty_apps` names none"),
        "dirty_timeout" | "dirty_threads" | "dirty_graceful_timeout" if dirty() => {
            (!subject.is_filled("dirty_apps"), "`dirty_apps` names none")
        }
        "dirty_timeout" | "dirty_threads" | "dirty_graceful_timeout" => (true, "`dirty_workers` is 0"),
        "uwsgi_allow_ips" => {
            (subject.word("protocol").as_deref() != Some("uwsgi"), "`protocol` is not uwsgi")
        }
        "proxy_allow_ips" => (!has_proxy(subject), "`proxy_protocol` is off"),
        "http2_cleartext"
        | "http2_max_concurrent_streams"
        | "http2_initial_window_size"
        | "http2_max_frame_size"
        | "http2_max_header_list_size" => {
            (!subject.lists("http_protocols", "h2"), "`http_protocols` has no h2")
        }
        "statsd_prefix" | "dogstatsd_tags" | "enable_backlog_metric" => {
            // A logger of somebody else's may read them whatever there is.
            let logger = subject.value("logger_class");
            let is_own = logger.as_deref().and_then(Json::as_str).is_none_or(server::is_own_logger);
            (is_own && !subject.is_filled("statsd_host"), "`statsd_host` is not set")
        }
        "logconfig" | "logconfig_json" if subject.is_filled("logconfig_dict") => {
            (true, "`logconfig_dict` counts instead")
        }
        "logconfig" => (subject.is_filled("logconfig_json"), "`logconfig_json` counts instead"),
        _ => return None,
    };
    is_idle.then_some(why)
}

/// Whether gunicorn waits for the line of a proxy.
fn has_proxy(subject: &Subject<'_>) -> bool {
    match subject.value("proxy_protocol").as_deref() {
        None => false,
        Some(Json::Bool(is_on)) => *is_on,
        Some(Json::String(word)) => {
            !["off", "false", "0", "none"].contains(&word.trim().to_lowercase().as_str())
        }
        Some(_) => true,
    }
}

/// Settings of the pillar that an option sets as well.
fn overruled(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    if subject.lines.is_empty() {
        return;
    }
    if let Some((line, given)) = subject.option("config")
        && !line.has_application()
    {
        let why = "the command names the configuration that is rendered";
        let message = format!("{} has no effect: {why}", line.called(given));
        found.push(finding(&rule::NO_EFFECT, message).at(given.span, "leave it out"));
    }
    for name in subject.service.settings.keys() {
        let Some((line, given)) = subject.option(name) else { continue };
        let Some(span) = subject.own_key(&["gunicorn", name]) else { continue };
        let message = format!("`gunicorn.{name}` has no effect: {} overrules it", line.called(given));
        found.push(
            finding(&rule::NO_EFFECT, message)
                .at(span, "leave one of them out")
                .at(given.span, "this counts"),
        );
    }
}
