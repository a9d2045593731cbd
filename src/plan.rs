//! From a service to the files it consists of.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::model::Service;
use crate::model::input::{LimitValue, LogKind, RunScript};
use crate::model::service::Directory;
use crate::record::MARKER;
use crate::steps::{is_below, parent};
use crate::template::Templates;
use crate::tree::{Entry, Kind};

/// Whether files are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Each has its content.
    Rendered,
    /// Each is there, and empty: for whoever asks only what is made where. It takes a fraction of the time.
    Left,
}

/// Every file, directory and link of one service. `key` says where in the pillar it comes from:
/// a colon path, or nothing for a flat document.
pub fn plan(service: &Arc<Service>, key: &str, templates: &Templates) -> Result<Vec<Entry>, Failure> {
    plan_with(service, key, templates, Contents::Rendered)
}

/// The same, if need be without contents.
pub fn plan_with(
    service: &Arc<Service>,
    key: &str,
    templates: &Templates,
    contents: Contents,
) -> Result<Vec<Entry>, Failure> {
    let context = context(service, key);
    let owners = Owners {
        root: "root".into(),
        user: service.user.as_str().into(),
        group: service.group.as_str().into(),
    };
    let mut plan = Plan { service, templates, contents, context, owners, entries: Vec::with_capacity(32) };
    plan.service_directory(key)?;
    plan.application()?;
    // All services' are kept until the last one is done.
    plan.entries.shrink_to_fit();
    Ok(plan.entries)
}

/// What the templates see, made when it is asked for: a template asks for few of all the names there
/// are, and making every one took longer than rendering.
#[derive(Debug)]
struct Scope {
    service: Arc<Service>,
    /// The sentence that every file begins with.
    managed: Value,
}

/// Names, in the order of their letters, and how the value of each is made.
type Names = &'static [(&'static str, fn(&Arc<Scope>) -> Value)];

/// A map of what the templates see.
#[derive(Debug)]
struct View {
    scope: Arc<Scope>,
    names: Names,
}

impl View {
    fn of(scope: &Arc<Scope>, names: Names) -> Value {
        Value::from_object(Self { scope: Arc::clone(scope), names })
    }
}

impl Object for View {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.names.iter().find(|(name, _)| *name == key).map(|(_, make)| make(&self.scope))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.names.iter().map(|(name, _)| Value::from(*name)).collect())
    }
}

/// The server's settings as a map.
#[derive(Debug)]
struct Settings(Arc<Scope>);

impl Object for Settings {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.service.settings.get(key).map(|value| match value {
            Json::String(text) => Value::from(text.as_str()),
            Json::Bool(value) => Value::from(*value),
            other => other.as_i64().map_or_else(|| made(other), Value::from),
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.service.settings.keys().map(|name| Value::from(name.as_str())).collect())
    }
}

/// A value that is small or seldom asked for.
fn made(value: impl Serialize) -> Value {
    Value::from(Serde(value))
}

/// The directories that a service only uses: its root, what lies between that and the directories of its layout, and
/// those of its releases unless its pillar says what they are to be.
pub fn used(service: &Service) -> Vec<String> {
    let layout = &service.layout;
    let own = [&layout.pids, &layout.logs, &layout.sockets, &layout.config];
    let own: Vec<&str> =
        own.iter().map(|directory| &*directory.path).chain([&*service.log.directory]).collect();
    let releases = &layout.releases;
    let has_defaults =
        releases.mode == "0755" && releases.user == service.user && releases.group == service.group;
    let mut used = vec![service.root.clone()];
    for path in own.iter().copied().chain([&*releases.path]) {
        let mut above = parent(path);
        while is_below(above, &service.root) {
            used.push(above.to_owned());
            above = parent(above);
        }
    }
    used.extend(has_defaults.then(|| releases.path.clone()));
    used.retain(|path| !own.contains(&path.as_str()) && (has_defaults || *path != releases.path));
    used.sort();
    used.dedup();
    used
}

/// What the templates see of a service. The names here are what `--templates` may use. `key` is as in [`plan`].
pub fn context(service: &Arc<Service>, key: &str) -> Value {
    let managed = Value::from(format!("{MARKER} from {}.", origin(key, service)));
    View::of(&Arc::new(Scope { service: Arc::clone(service), managed }), TOP)
}

const TOP: Names = &[
    ("body", |scope| {
        // It fails for what a service does not have; were it to, the run script must not be empty.
        crate::template::document(&*scope.service).map_or(Value::UNDEFINED, Value::from)
    }),
    ("inherits_sockets", |scope| Value::from(scope.service.inherits_sockets())),
    ("managed", |scope| scope.managed.clone()),
    ("paths", |scope| View::of(scope, PATHS)),
    ("service", |scope| View::of(scope, SERVICE)),
    ("settings", |scope| Value::from_object(Settings(Arc::clone(scope)))),
];

const SERVICE: Names = &[
    ("app", |scope| Value::from(scope.service.app.as_str())),
    ("application", |scope| Value::from(scope.service.application.as_str())),
    ("bind", |scope| made(sockets(&scope.service))),
    ("cgroup", |scope| {
        let cgroup = scope.service.cgroup;
        made(json!({"memory_max": cgroup.memory_max, "tasks_max": cgroup.tasks_max}))
    }),
    ("command", |scope| made(&scope.service.command)),
    ("environment", |scope| made(&scope.service.environment)),
    ("group", |scope| Value::from(scope.service.group.as_str())),
    ("groups", |scope| made(&scope.service.groups)),
    ("handoff", |scope| {
        let handoff = &scope.service.handoff;
        made(json!({
            "strategy": handoff.strategy,
            "boot_timeout": handoff.boot_timeout.whole_seconds(),
            "drain_timeout": handoff.drain_timeout.whole_seconds(),
            "ready": handoff.ready,
            "health_check": handoff.health_check,
        }))
    }),
    ("hardening", |scope| {
        let hardening = scope.service.hardening;
        made(json!({
            "no_new_privileges": hardening.no_new_privileges,
            "capabilities": hardening.capabilities,
            "private_tmp": hardening.private_tmp,
            "read_only_system": hardening.read_only_system,
        }))
    }),
    ("home", |scope| Value::from(scope.service.home.as_str())),
    ("layout", |scope| made(&scope.service.layout)),
    ("limits", |scope| made(limits(&scope.service))),
    ("log", |scope| View::of(scope, LOG)),
    ("nice", |scope| made(scope.service.nice)),
    ("oom_score_adj", |scope| made(scope.service.oom_score_adj)),
    ("restart", |scope| {
        let restart = &scope.service.restart;
        made(json!({
            "min_uptime": restart.min_uptime.whole_seconds(),
            "backoff_initial": restart.backoff_initial.whole_seconds(),
            "backoff_max": restart.backoff_max.whole_seconds(),
        }))
    }),
    ("root", |scope| Value::from(scope.service.root.as_str())),
    ("run_script", |scope| made(scope.service.run_script)),
    ("secret_files", |scope| made(&scope.service.secret_files)),
    ("secrets", |scope| made(&scope.service.secrets)),
    ("server", |scope| made(scope.service.server)),
    ("service", |scope| View::of(scope, PLACE)),
    ("umask", |scope| Value::from(scope.service.umask.as_str())),
    ("user", |scope| Value::from(scope.service.user.as_str())),
    ("virtualenv", |scope| made(&scope.service.virtualenv)),
];

const LOG: Names = &[
    ("directory", |scope| Value::from(scope.service.log.directory.as_str())),
    ("kind", |scope| made(scope.service.log.kind)),
    ("number", |scope| Value::from(scope.service.log.number)),
    ("processor", |scope| made(&scope.service.log.processor)),
    ("size", |scope| Value::from(scope.service.log.size)),
];

const PLACE: Names = &[
    ("directory", |scope| Value::from(scope.service.service.directory.as_str())),
    ("down", |scope| Value::from(scope.service.service.down)),
    ("enabled", |scope| Value::from(scope.service.service.enabled)),
    ("link", |scope| Value::from(scope.service.service.link.as_str())),
    ("runtime", |scope| Value::from(scope.service.service.runtime.as_str())),
    ("timeout", |scope| made(scope.service.service.timeout)),
];

const PATHS: Names = &[
    ("backlog", |scope| {
        Value::from(scope.service.bind.iter().map(|socket| socket.backlog).max().unwrap_or_default())
    }),
    ("binds", |scope| scope.service.bind.iter().map(|socket| Value::from(socket.address.as_str())).collect()),
    ("config", |scope| {
        let config = &scope.service.layout.config.path;
        scope.service.config_name().map(|name| format!("{config}/{name}")).into()
    }),
    ("current", |scope| Value::from(scope.service.current())),
    ("env", |scope| Value::from(format!("{}/env", scope.service.service.directory))),
    ("logs", |scope| Value::from(scope.service.layout.logs.path.as_str())),
    ("path", |scope| Value::from(scope.service.search_path())),
    ("pidfile", |scope| pidfile(&scope.service).into()),
    ("pids", |scope| Value::from(scope.service.layout.pids.path.as_str())),
    ("releases", |scope| Value::from(scope.service.layout.releases.path.as_str())),
    ("run", |scope| Value::from(scope.service.layout.run.as_str())),
    ("sockets", |scope| Value::from(scope.service.layout.sockets.path.as_str())),
];

struct Plan<'a> {
    service: &'a Service,
    templates: &'a Templates,
    contents: Contents,
    context: Value,
    owners: Owners,
    entries: Vec<Entry>,
}

/// The names that nearly all entries share.
struct Owners {
    root: Arc<str>,
    user: Arc<str>,
    group: Arc<str>,
}

impl Owners {
    fn shared(&self, name: &str) -> Arc<str> {
        [&self.root, &self.user, &self.group]
            .into_iter()
            .find(|known| ***known == *name)
            .map_or_else(|| name.into(), Arc::clone)
    }
}

impl Plan<'_> {
    fn service_directory(&mut self, key: &str) -> Result<(), Failure> {
        let service = self.service;
        let place = &service.service;
        let at = place.directory.as_str();
        let native = service.run_script == RunScript::Native;
        self.directory(at, 0o755, "root", "root");
        for name in ["run", "finish", "check"] {
            let template = [name, if native { "-native" } else { "-shell" }].concat();
            self.file([at, "/", name].concat(), &template, 0o755)?;
        }
        self.directory(&[at, "/env"].concat(), 0o700, "root", "root");
        for (name, value) in &service.secret_values {
            // As chpst -e reads it: the first line counts, a NUL in it means a newline.
            let content =
                format!("{}\n{} from {}\n", value.replace('\n', "\0"), MARKER, origin(key, service));
            self.push([at, "/env/", name].concat(), Kind::File(content.into_bytes()), 0o600, "root", "root");
            if let Some(entry) = self.entries.last_mut() {
                entry.secret = true;
            }
        }
        if service.log.kind == LogKind::Svlogd {
            self.directory(&[at, "/log"].concat(), 0o755, "root", "root");
            self.file([at, "/log/run"].concat(), "log-run", 0o755)?;
        }
        if place.down {
            let content = format!("{MARKER} from {}\n", origin(key, service));
            self.push([at, "/down"].concat(), Kind::File(content.into_bytes()), 0o644, "root", "root");
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
            self.file([&layout.config.path, "/", name].concat(), name, 0o644)?;
        }
        if service.log.kind == LogKind::Svlogd {
            let directory = &service.log.directory;
            self.parents(directory, user, group);
            self.directory(directory, 0o755, user, group);
            self.file([directory, "/config"].concat(), "svlogd-config", 0o644)?;
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
            parent = [&parent, "/", step].concat();
            if !self.entries.iter().any(|entry| entry.path == parent) {
                self.directory(&parent, 0o755, user, group);
            }
        }
    }

    fn file(&mut self, path: String, template: &str, mode: u32) -> Result<(), Failure> {
        let mut content = match self.contents {
            Contents::Rendered => self.templates.render(template, &self.context)?,
            Contents::Left => String::new(),
        };
        content.shrink_to_fit();
        self.push(path, Kind::File(content.into_bytes()), mode, "root", "root");
        Ok(())
    }

    fn directory(&mut self, path: &str, mode: u32, owner: &str, group: &str) {
        self.push(path.to_owned(), Kind::Directory, mode, owner, group);
    }

    fn push(&mut self, path: String, kind: Kind, mode: u32, owner: &str, group: &str) {
        let (owner, group) = (self.owners.shared(owner), self.owners.shared(group));
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
