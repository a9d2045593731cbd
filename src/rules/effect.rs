//! Keys that have no effect for this server or run script.
//!
//! Only the application's own keys count: among the defaults they may be meant for others.

use serde_json::Value as Json;

use super::{Subject, environment, finding, server};
use crate::diagnostic::Diagnostic;
use crate::model::input::{LogKind, RunScript, Server, Strategy};
use crate::pillar::Value;
use crate::rule;

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

/// Settings of gunicorn that this kind of worker, or another setting, makes idle.
fn settings(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    if service.server != Server::Gunicorn {
        return;
    }
    let mut idle = |name: &str, why: &str| {
        if let Some(span) = subject.own_key(&["gunicorn", name]) {
            let message = format!("`gunicorn.{name}` has no effect: {why}");
            found.push(finding(&rule::NO_EFFECT, message).at(span, "leave it out"));
        }
    };
    let class = server::class_of(subject);
    if class == "sync" {
        for name in ["worker_connections", "keepalive"] {
            idle(name, "a sync worker has one connection, for one request");
        }
    }
    if ["gevent", "tornado", "asgi"].iter().any(|name| class.contains(name)) {
        idle("threads", "only gthread workers have threads");
    }
    let is_on = |name: &str| service.settings.get(name) == Some(&Json::Bool(true));
    if is_on("control_socket_disable") {
        for name in ["control_socket", "control_socket_mode"] {
            idle(name, "the control socket is off (`control_socket_disable`)");
        }
    }
    if !is_on("reload") {
        for name in ["reload_engine", "reload_extra_files"] {
            idle(name, "`reload` is off");
        }
    }
    if service.inherits_sockets() {
        idle("reuse_port", "the runtime makes the sockets");
    }
}
