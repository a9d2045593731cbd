//! From a service to the files it consists of.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value};
use serde_json::{Map, Value as Json, json};

use crate::failure::Failure;
use crate::model::Service;
use crate::model::input::{LimitValue, LogKind, RunScript};
use crate::model::service::Directory;
use crate::template::Templates;
use crate::tree::{Entry, Kind};

/// What every rendered file begins with, so that a later run knows its own.
pub const MARKER: &str = "Managed by runsmith";

/// Where the directories of PATH after the virtualenv's are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every file, directory and link of one service. `key` says where in the pillar it comes from:
/// a colon path, or nothing for a flat document.
pub fn plan(service: &Service, key: &str, templates: &Templates) -> Result<Vec<Entry>, Failure> {
    let context = Names::of(context(service, key)?);
    let mut plan = Plan { service, templates, context, entries: Vec::with_capacity(32) };
    plan.service_directory(key)?;
    plan.application()?;
    Ok(plan.entries)
}

/// A map of the context. A template asks for few of all the names there are, so each is made a
/// template's value when it is asked for; making all of them took as long as rendering.
#[derive(Debug)]
struct Names {
    /// The maps in this one that are asked often.
    maps: Vec<(String, Value)>,
    rest: Map<String, Json>,
}

impl Names {
    /// Maps in this map, and maps in those, stay maps of names.
    fn of(value: Json) -> Value {
        let Json::Object(mut rest) = value else { return Value::from(Serde(value)) };
        let mut maps = vec![];
        for (name, value) in &mut rest {
            if value.is_object() {
                maps.push((name.clone(), Self::of(value.take())));
            }
        }
        Value::from_object(Self { maps, rest })
    }
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if let Some((_, map)) = self.maps.iter().find(|(name, _)| name == key) {
            return Some(map.clone());
        }
        self.rest.get(key).map(|value| match value {
            Json::String(text) => Value::from(text.as_str()),
            other => Value::from(Serde(other)),
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        // In the order of the names, as a map of the template language has them.
        let mut names: Vec<&String> = self.rest.keys().collect();
        names.sort_unstable();
        Enumerator::Values(names.into_iter().map(|name| Value::from(name.as_str())).collect())
    }
}

struct Plan<'a> {
    service: &'a Service,
    templates: &'a Templates,
    context: Value,
    entries: Vec<Entry>,
}

impl Plan<'_> {
    fn service_directory(&mut self, key: &str) -> Result<(), Failure> {
        let service = self.service;
        let place = &service.service;
        let at = place.directory.as_str();
        let native = service.run_script == RunScript::Native;
        self.directory(at, 0o755, "root", "root");
        for name in ["run", "finish", "check"] {
            let template = format!("{name}-{}", if native { "native" } else { "shell" });
            self.file(format!("{at}/{name}"), &template, 0o755)?;
        }
        self.directory(&format!("{at}/env"), 0o700, "root", "root");
        for (name, value) in &service.secret_values {
            // As chpst -e reads it: the first line counts, a NUL in it means a newline.
            let content =
                format!("{}\n{} from {}\n", value.replace('\n', "\0"), MARKER, origin(key, service));
            self.push(format!("{at}/env/{name}"), Kind::File(content.into_bytes()), 0o600, "root", "root");
            if let Some(entry) = self.entries.last_mut() {
                entry.secret = true;
            }
        }
        if service.log.kind == LogKind::Svlogd {
            self.directory(&format!("{at}/log"), 0o755, "root", "root");
            self.file(format!("{at}/log/run"), "log-run", 0o755)?;
        }
        if place.down {
            let content = format!("{MARKER} from {}\n", origin(key, service));
            self.push(format!("{at}/down"), Kind::File(content.into_bytes()), 0o644, "root", "root");
        }
        if place.enabled {
            self.push(place.link.clone(), Kind::Link(at.to_owned()), 0o777, "root", "root");
        }
        Ok(())
    }

    fn application(&mut self) -> Result<(), Failure> {
        let service = self.service;
        let layout = &service.layout;
        let (user, group) = (service.user.as_str(), service.group.as_str());
        self.directory(&service.root, 0o755, user, group);
        let own: Vec<&Directory> =
            [&layout.releases, &layout.pids, &layout.logs, &layout.sockets].into_iter().collect();
        for directory in own.iter().copied().chain([&layout.config]) {
            self.parents(&directory.path, user, group);
            let mode = u32::from_str_radix(&directory.mode, 8).unwrap_or(0o755);
            self.directory(&directory.path, mode, &directory.user, &directory.group);
        }
        if let Some(name) = service.config_name() {
            self.file(format!("{}/{name}", layout.config.path), name, 0o644)?;
        }
        if service.log.kind == LogKind::Svlogd {
            let directory = &service.log.directory;
            self.parents(directory, user, group);
            self.directory(directory, 0o755, user, group);
            self.file(format!("{directory}/config"), "svlogd-config", 0o644)?;
        }
        Ok(())
    }

    /// Directories between the application's root and `path`: they are the application's.
    fn parents(&mut self, path: &str, user: &str, group: &str) {
        let root = &self.service.root;
        let Some(rest) = path.strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix('/')) else {
            return;
        };
        let mut parent = root.clone();
        let mut steps: Vec<&str> = rest.split('/').collect();
        steps.pop();
        for step in steps {
            parent = format!("{parent}/{step}");
            if !self.entries.iter().any(|entry| entry.path == parent) {
                self.directory(&parent, 0o755, user, group);
            }
        }
    }

    fn file(&mut self, path: String, template: &str, mode: u32) -> Result<(), Failure> {
        let content = self.templates.render(template, &self.context)?;
        self.push(path, Kind::File(content.into_bytes()), mode, "root", "root");
        Ok(())
    }

    fn directory(&mut self, path: &str, mode: u32, owner: &str, group: &str) {
        self.push(path.to_owned(), Kind::Directory, mode, owner, group);
    }

    fn push(&mut self, path: String, kind: Kind, mode: u32, owner: &str, group: &str) {
        let (owner, group) = (owner.to_owned(), group.to_owned());
        self.entries.push(Entry { path, kind, mode, owner, group, secret: false });
    }
}

/// Where the service comes from, for the first line of each file.
fn origin(key: &str, service: &Service) -> String {
    if key.is_empty() {
        format!("the pillar of {}", service.application)
    } else {
        format!("the pillar key {}", crate::template::comment(key))
    }
}

/// What the templates see. The names here are what `--templates` may use.
pub fn context(service: &Service, key: &str) -> Result<Json, Failure> {
    let body = serde_json::to_value(service).map_err(|error| Failure::Template(error.to_string()))?;
    let layout = &service.layout;
    let text = crate::template::document(&body);
    let mut seen = body;
    if let Some(map) = seen.as_object_mut() {
        for name in ["groups", "virtualenv", "nice", "oom_score_adj"] {
            map.entry(name).or_insert(Json::Null);
        }
        map.insert("run_script".into(), json!(service.run_script));
        map.insert("bind".into(), sockets(service));
        map.insert("limits".into(), limits(service));
        map.insert(
            "handoff".into(),
            json!({
                "strategy": service.handoff.strategy,
                "boot_timeout": service.handoff.boot_timeout.whole_seconds(),
                "drain_timeout": service.handoff.drain_timeout.whole_seconds(),
                "ready": service.handoff.ready,
                "health_check": service.handoff.health_check,
            }),
        );
        map.insert(
            "restart".into(),
            json!({
                "min_uptime": service.restart.min_uptime.whole_seconds(),
                "backoff_initial": service.restart.backoff_initial.whole_seconds(),
                "backoff_max": service.restart.backoff_max.whole_seconds(),
            }),
        );
        map.insert(
            "log".into(),
            json!({
                "kind": service.log.kind,
                "directory": service.log.directory,
                "size": service.log.size,
                "number": service.log.number,
                "processor": service.log.processor,
            }),
        );
    }
    let settings: Map<String, Json> =
        service.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let path =
        service.virtualenv.as_ref().map_or_else(|| PATH.to_owned(), |venv| format!("{venv}/bin:{PATH}"));
    let config = service.config_name().map(|name| format!("{}/{name}", layout.config.path));
    Ok(json!({
        "managed": format!("{MARKER} from {}.", origin(key, service)),
        "service": seen,
        "settings": settings,
        "inherits_sockets": service.inherits_sockets(),
        "body": text,
        "paths": {
            "current": format!("{}/current", service.root),
            "releases": layout.releases.path,
            "pids": layout.pids.path,
            "logs": layout.logs.path,
            "sockets": layout.sockets.path,
            "config": config,
            "pidfile": pidfile(service),
            "run": layout.run,
            "env": format!("{}/env", service.service.directory),
            "path": path,
            "binds": service.bind.iter().map(|socket| socket.address.as_str()).collect::<Vec<_>>(),
            "backlog": service.bind.iter().map(|socket| socket.backlog).max().unwrap_or_default(),
        },
    }))
}

fn pidfile(service: &Service) -> Option<String> {
    let name = service.config_name()?;
    let stem = name.split('.').next().unwrap_or(name);
    Some(format!("{}/{stem}.pid", service.layout.pids.path))
}

fn sockets(service: &Service) -> Json {
    service
        .bind
        .iter()
        .map(|socket| {
            let path = socket.unix_path();
            let (host, port) = match path {
                Some(_) => (None, None),
                None => socket.address.rsplit_once(':').map_or((None, None), |(host, port)| {
                    (Some(host.trim_start_matches('[').trim_end_matches(']')), port.parse::<u16>().ok())
                }),
            };
            let umask = socket.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
            json!({
                "address": socket.address,
                "kind": if path.is_some() { "unix" } else { "tcp" },
                "host": host,
                "port": port,
                "path": path,
                "mode": socket.mode,
                "umask": umask.map(|mode| format!("{:03o}", 0o777 & !mode)),
                "user": socket.user,
                "group": socket.group,
                "backlog": socket.backlog,
            })
        })
        .collect()
}

fn limits(service: &Service) -> Json {
    let value = |value| match value {
        LimitValue::Number(number) => number.to_string(),
        LimitValue::Word(_) => "unlimited".to_owned(),
    };
    service
        .limits
        .iter()
        .map(|(resource, limit)| json!({"name": resource, "soft": value(limit.soft), "hard": value(limit.hard)}))
        .collect()
}
