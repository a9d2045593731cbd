//! The values of the model: how each is varied, and which keys of a pillar it comes from.

use serde_json::{Value as Json, json};

use crate::model::Service;
use crate::model::duration::Duration;
use crate::model::input::{Capabilities, Fallback, LogKind, Ready, Resource, RunScript, Server, Strategy};
use crate::model::service::{Directory, HealthCheck, Limit, LimitValue, Socket};
use crate::services::Known;

/// Makes another value of one leaf.
type Vary = Box<dyn Fn(&mut Service)>;

/// One value of the model.
pub(super) struct Leaf {
    /// Its name.
    pub(super) key: String,
    /// What it is, to be compared.
    pub(super) value: Json,
    /// Other values.
    pub(super) vary: Vec<Vary>,
    /// Where a pillar may say it, as `a.b` (a last `=` asks for a value that is not a map: the short form of a
    /// key that also takes one); the first one there counts. Then what its default is made of.
    pub(super) written: Vec<String>,
    /// How many of those say the value itself.
    pub(super) own: usize,
}

/// A part of a limit: its name, what it is, and how it is varied.
type LimitPart = (&'static str, LimitValue, fn(&mut Limit));

/// A directory of the layout: its name, what it is, and where it is in a service.
type LayoutPart<'a> = (&'static str, &'a Directory, fn(&mut Service) -> &mut Directory);

/// Collects the leaves of a service.
struct Leaves<'a> {
    service: &'a Service,
    found: Vec<Leaf>,
}

/// Every value of a service.
pub(super) fn leaves(known: &Known) -> Vec<Leaf> {
    let mut leaves = Leaves { service: &known.service, found: vec![] };
    leaves.application();
    leaves.process();
    leaves.sockets();
    leaves.handoff();
    leaves.log();
    leaves.layout();
    leaves.place();
    leaves.settings();
    leaves.found
}

fn longer(text: &mut String) {
    text.push('x');
}

fn more(number: &mut u32) {
    *number = number.wrapping_add(1);
}

fn later(duration: &mut Duration) {
    duration.milliseconds += 1000;
}

/// Another mode in as many octal digits.
fn other_mode(mode: &mut String) {
    let bits = u32::from_str_radix(mode, 8).unwrap_or(0) ^ 0o7777;
    *mode = format!("{bits:04o}");
}

impl Leaves<'_> {
    /// A leaf that one key says, or a default made of others.
    fn add(&mut self, key: &str, value: Json, from: &[&str], vary: impl Fn(&mut Service) + 'static) {
        self.add_as(key, value, &[key], from, vec![Box::new(vary)]);
    }

    fn add_as(&mut self, key: &str, value: Json, own: &[&str], from: &[&str], vary: Vec<Vary>) {
        let written = own.iter().chain(from).map(|path| (*path).to_owned()).collect();
        self.found.push(Leaf { key: key.to_owned(), value, vary, written, own: own.len() });
    }

    fn application(&mut self) {
        let s = self.service;
        let own = ["application", "unicorn_application"];
        let vary: Vary = Box::new(|s| longer(&mut s.application));
        self.add_as("application", json!(s.application), &own, &[], vec![vary]);
        self.add("user", json!(s.user), &[], |s| longer(&mut s.user));
        self.add("group", json!(s.group), &["user"], |s| longer(&mut s.group));
        self.add("groups", json!(s.groups), &[], |s| {
            let groups = s.groups.get_or_insert_default();
            groups.iter_mut().for_each(longer);
            groups.push("x".into());
        });
        self.add("home", json!(s.home), &["user"], |s| longer(&mut s.home));
        let from = ["virtualenv_home"];
        self.add("virtualenv", json!(s.virtualenv), &from, |s| longer(s.virtualenv.get_or_insert_default()));
        self.add("root", json!(s.root), &["application", "unicorn_application"], |s| longer(&mut s.root));
        self.add("run_script", json!(s.run_script), &[], |s| {
            s.run_script = match s.run_script {
                RunScript::Native => RunScript::Shell,
                RunScript::Shell => RunScript::Native,
            };
        });
        self.add("server", json!(s.server), &["unicorn_command"], |s| {
            s.server = match s.server {
                Server::Gunicorn => Server::Unicorn,
                Server::Unicorn | Server::Any => Server::Gunicorn,
            };
        });
        let own = own_words(s);
        self.add("unicorn_command", json!(s.command[..own]), &[], move |s| {
            s.command[..own].iter_mut().for_each(longer);
        });
        self.add("app", json!(s.app), &["unicorn_command"], |s| {
            longer(&mut s.app);
            if s.config_name().is_some() {
                s.command.last_mut().into_iter().for_each(longer);
            }
        });
    }

    fn process(&mut self) {
        let s = self.service;
        self.add("environment", json!(s.environment.keys().collect::<Vec<_>>()), &[], |s| {
            s.environment.insert("x".into(), String::new());
        });
        for (name, value) in &s.environment {
            let (one, two) = (name.clone(), name.clone());
            let vary: Vec<Vary> = vec![
                Box::new(move |s| s.environment.get_mut(&one).into_iter().for_each(longer)),
                Box::new(move |s| drop(s.environment.remove(&two))),
            ];
            self.add_as(&format!("environment.{name}"), json!(value), &[], &[], vary);
            self.at(vec![format!("environment.{name}")]);
        }
        self.add("secrets", json!(s.secrets), &[], |s| s.secrets.push("x".into()));
        self.add("secret_files", json!(s.secret_files), &[], |s| s.secret_files.push("x".into()));
        for (name, value) in &s.secret_values {
            let (one, two) = (name.clone(), name.clone());
            let vary: Vec<Vary> = vec![
                Box::new(move |s| s.secret_values.get_mut(&one).into_iter().for_each(longer)),
                Box::new(move |s| {
                    s.secret_values.remove(&two);
                    s.secrets.retain(|name| *name != two);
                }),
            ];
            self.add_as(&format!("secrets.{name}"), json!(value), &[], &[], vary);
            self.at(["secrets", "environment"].map(|map| format!("{map}.{name}")).to_vec());
        }
        self.add("limits", json!(s.limits.len()), &[], |s| {
            let free =
                [Resource::Rtprio, Resource::Msgqueue].into_iter().find(|name| !s.limits.contains_key(name));
            let value = LimitValue::Number(1);
            s.limits.extend(free.map(|name| (name, Limit { soft: value, hard: value })));
        });
        for (resource, limit) in &s.limits {
            let name = format!("{resource:?}").to_ascii_lowercase();
            let resource = *resource;
            let parts: [LimitPart; 2] = [
                ("soft", limit.soft, |limit| limit.soft = other_limit(limit.soft)),
                ("hard", limit.hard, |limit| limit.hard = other_limit(limit.hard)),
            ];
            for (part, value, vary) in parts {
                let (one, two) = (format!("limits.{name}.{part}"), format!("limits.{name}.="));
                // A hard limit that is not given is the soft one.
                let soft = format!("limits.{name}.soft");
                let from = if part == "hard" { vec![soft.as_str()] } else { vec![] };
                let vary: Vary = Box::new(move |s| s.limits.get_mut(&resource).into_iter().for_each(vary));
                self.add_as(&one, json!(value), &[&one, &two], &from, vec![vary]);
            }
        }
        self.add("umask", json!(s.umask), &[], |s| other_mode(&mut s.umask));
        self.add("nice", json!(s.nice), &[], |s| s.nice = Some(s.nice.map_or(1, |nice| nice ^ 1)));
        self.add("oom_score_adj", json!(s.oom_score_adj), &[], |s| {
            s.oom_score_adj = Some(s.oom_score_adj.map_or(1, |score| score ^ 1));
        });
        self.add("cgroup.memory_max", json!(s.cgroup.memory_max), &[], |s| {
            s.cgroup.memory_max = Some(s.cgroup.memory_max.map_or(1, |bytes| bytes ^ 1));
        });
        self.add("cgroup.tasks_max", json!(s.cgroup.tasks_max), &[], |s| {
            s.cgroup.tasks_max = Some(s.cgroup.tasks_max.map_or(1, |tasks| tasks ^ 1));
        });
        let hardening = s.hardening;
        self.add("hardening.no_new_privileges", json!(hardening.no_new_privileges), &[], |s| {
            s.hardening.no_new_privileges ^= true;
        });
        self.add("hardening.capabilities", json!(hardening.capabilities), &[], |s| {
            s.hardening.capabilities = match s.hardening.capabilities {
                Capabilities::None => Capabilities::Inherited,
                Capabilities::Inherited => Capabilities::None,
            };
        });
        self.add("hardening.private_tmp", json!(hardening.private_tmp), &[], |s| {
            s.hardening.private_tmp ^= true;
        });
        self.add("hardening.read_only_system", json!(hardening.read_only_system), &[], |s| {
            s.hardening.read_only_system ^= true;
        });
    }

    /// Other places for the leaf that was added last.
    fn at(&mut self, written: Vec<String>) {
        if let Some(leaf) = self.found.last_mut() {
            leaf.own = written.len();
            leaf.written = written;
        }
    }

    fn sockets(&mut self) {
        self.add("bind", json!(self.service.bind.len()), &[], |s| {
            s.bind.push(Socket { address: "x".into(), mode: None, user: None, group: None, backlog: 1 });
        });
        for (at, socket) in self.service.bind.iter().enumerate() {
            let mut one = |part: &str, value: Json, vary: fn(&mut Socket)| {
                let key = if part == "address" { format!("bind.{at}") } else { format!("bind.{at}.{part}") };
                let of_list = format!("bind.{at}.{part}");
                let alone = format!("bind.{part}");
                let mut own = vec![of_list.as_str(), alone.as_str()];
                let short = format!("bind.{at}.=");
                if part == "address" {
                    own.extend([short.as_str(), "bind.="]);
                }
                let vary: Vary = Box::new(move |s| s.bind.get_mut(at).into_iter().for_each(vary));
                self.add_as(&key, value, &own, &[], vec![vary]);
            };
            one("address", json!(socket.address), |socket| longer(&mut socket.address));
            one("mode", json!(socket.mode), |socket| {
                other_mode(socket.mode.get_or_insert_with(|| "0777".into()))
            });
            one("user", json!(socket.user), |socket| longer(socket.user.get_or_insert_default()));
            one("group", json!(socket.group), |socket| longer(socket.group.get_or_insert_default()));
            one("backlog", json!(socket.backlog), |socket| more(&mut socket.backlog));
        }
    }

    fn handoff(&mut self) {
        let handoff = &self.service.handoff;
        self.add("handoff.strategy", json!(handoff.strategy), &["run_script"], |s| {
            s.handoff.strategy = match s.handoff.strategy {
                Strategy::Sockets => Strategy::Usr2,
                Strategy::Usr2 => Strategy::Sockets,
            };
        });
        self.add("handoff.boot_timeout", json!(handoff.boot_timeout), &[], |s| {
            later(&mut s.handoff.boot_timeout)
        });
        let from = ["gunicorn.graceful_timeout"];
        self.add("handoff.drain_timeout", json!(handoff.drain_timeout), &from, |s| {
            later(&mut s.handoff.drain_timeout);
        });
        self.add("handoff.ready", json!(handoff.ready), &["server", "unicorn_command"], |s| {
            s.handoff.ready = match s.handoff.ready {
                Ready::Workers => Ready::Notify,
                Ready::Notify | Ready::Alive => Ready::Workers,
            };
        });
        self.add("handoff.health_check", json!(handoff.health_check.is_some()), &[], |s| {
            s.handoff.health_check = match s.handoff.health_check {
                Some(_) => None,
                None => Some(HealthCheck {
                    path: "/".into(),
                    host: "x".into(),
                    status: vec![],
                    timeout: Duration::seconds(1),
                    interval: Duration::seconds(1),
                    successes: 1,
                }),
            };
        });
        if let Some(check) = &handoff.health_check {
            let mut one = |part: &str, value: Json, vary: fn(&mut HealthCheck)| {
                self.add(&format!("handoff.health_check.{part}"), value, &[], move |s| {
                    s.handoff.health_check.as_mut().into_iter().for_each(vary);
                });
            };
            one("path", json!(check.path), |check| longer(&mut check.path));
            one("host", json!(check.host), |check| longer(&mut check.host));
            one("status", json!(check.status), |check| {
                check.status.iter_mut().for_each(|status| *status ^= 1)
            });
            one("timeout", json!(check.timeout), |check| later(&mut check.timeout));
            one("interval", json!(check.interval), |check| later(&mut check.interval));
            one("successes", json!(check.successes), |check| more(&mut check.successes));
        }
        let restart = &self.service.restart;
        self.add("restart.min_uptime", json!(restart.min_uptime), &[], |s| later(&mut s.restart.min_uptime));
        self.add("restart.backoff_initial", json!(restart.backoff_initial), &[], |s| {
            later(&mut s.restart.backoff_initial);
        });
        self.add("restart.backoff_max", json!(restart.backoff_max), &[], |s| {
            later(&mut s.restart.backoff_max)
        });
        self.add("restart.fallback", json!(restart.fallback), &[], |s| {
            s.restart.fallback = match s.restart.fallback {
                Fallback::Proven => Fallback::None,
                Fallback::None => Fallback::Proven,
            };
        });
    }

    fn log(&mut self) {
        let log = &self.service.log;
        self.add("log.kind", json!(log.kind), &[], |s| {
            s.log.kind = match s.log.kind {
                LogKind::Svlogd => LogKind::None,
                LogKind::Files | LogKind::None => LogKind::Svlogd,
            };
        });
        let from = ["layout.logs.path", "layout.logs.=", "root"];
        self.add("log.directory", json!(log.directory), &from, |s| longer(&mut s.log.directory));
        self.add("log.size", json!(log.size), &[], |s| more(&mut s.log.size));
        self.add("log.number", json!(log.number), &[], |s| more(&mut s.log.number));
        self.add("log.processor", json!(log.processor), &[], |s| {
            let words = s.log.processor.get_or_insert_default();
            words.iter_mut().for_each(longer);
            words.push("x".into());
        });
    }

    fn layout(&mut self) {
        let layout = &self.service.layout;
        let all: [LayoutPart<'_>; 5] = [
            ("releases", &layout.releases, |s| &mut s.layout.releases),
            ("pids", &layout.pids, |s| &mut s.layout.pids),
            ("logs", &layout.logs, |s| &mut s.layout.logs),
            ("sockets", &layout.sockets, |s| &mut s.layout.sockets),
            ("config", &layout.config, |s| &mut s.layout.config),
        ];
        for (name, directory, find) in all {
            let owner = if name == "config" { vec![] } else { vec!["user"] };
            let group = if name == "config" { vec![] } else { vec!["group", "user"] };
            let (path, short) = (format!("layout.{name}.path"), format!("layout.{name}.="));
            let vary: Vary = Box::new(move |s| {
                let was = find(s).path.clone();
                longer(&mut find(s).path);
                // The command and some settings hold it.
                let is = find(s).path.clone();
                s.command.iter_mut().for_each(|word| *word = word.replace(&was, &is));
            });
            let key = format!("layout.{name}");
            self.add_as(&key, json!(directory.path), &[&path, &short], &["root"], vec![vary]);
            self.add(&format!("{key}.mode"), json!(directory.mode), &[], move |s| {
                other_mode(&mut find(s).mode)
            });
            self.add(&format!("{key}.user"), json!(directory.user), &owner, move |s| {
                longer(&mut find(s).user)
            });
            self.add(&format!("{key}.group"), json!(directory.group), &group, move |s| {
                longer(&mut find(s).group)
            });
        }
        let from = ["application", "unicorn_application"];
        self.add("layout.run", json!(layout.run), &from, |s| longer(&mut s.layout.run));
    }

    fn place(&mut self) {
        let place = &self.service.service;
        self.add("service.directory", json!(place.directory), &[], |s| longer(&mut s.service.directory));
        self.add("service.link", json!(place.link), &[], |s| longer(&mut s.service.link));
        self.add("service.enabled", json!(place.enabled), &[], |s| s.service.enabled ^= true);
        self.add("service.down", json!(place.down), &[], |s| s.service.down ^= true);
        let from = ["handoff.boot_timeout", "handoff.drain_timeout", "gunicorn.graceful_timeout"];
        self.add("service.timeout", json!(place.timeout), &from, |s| later(&mut s.service.timeout));
        self.add("service.runtime", json!(place.runtime), &[], |s| longer(&mut s.service.runtime));
    }

    fn settings(&mut self) {
        let section = match self.service.server {
            Server::Gunicorn => "gunicorn",
            Server::Unicorn => "unicorn",
            Server::Any => return,
        };
        for (name, value) in &self.service.settings {
            let (one, two) = (name.clone(), name.clone());
            let vary: Vec<Vary> = vec![
                Box::new(move |s| s.settings.get_mut(&one).into_iter().for_each(other_setting)),
                Box::new(move |s| drop(s.settings.remove(&two))),
            ];
            let from: &[&str] =
                if name.ends_with("log") || name.ends_with("_path") { &["log.kind"] } else { &[] };
            self.add_as(
                &format!("{section}.{name}"),
                value.clone(),
                &[&format!("{section}.{name}")],
                from,
                vary,
            );
        }
    }
}

fn other_limit(value: LimitValue) -> LimitValue {
    match value {
        LimitValue::Number(number) => LimitValue::Number(number ^ 1),
        LimitValue::Word(_) => LimitValue::Number(1),
    }
}

fn other_setting(value: &mut Json) {
    *value = match &*value {
        Json::String(text) => Json::from(format!("{text}x")),
        Json::Bool(truth) => Json::from(!truth),
        Json::Number(number) => Json::from(number.as_i64().map_or(1, |number| number ^ 1)),
        Json::Null | Json::Array(_) | Json::Object(_) => Json::from("x"),
    };
}

/// How many words of the command are the pillar's own; what follows is made of `app` and `layout.config`.
fn own_words(service: &Service) -> usize {
    let config = service.config_name().map(|name| format!("{}/{name}", service.layout.config.path));
    let added = match &config {
        Some(config) => {
            let environment =
                usize::from(service.command.iter().rev().nth(4).is_some_and(|word| word == "production"));
            if service.command.contains(config) { 4 + 2 * environment } else { 0 }
        }
        None => 0,
    };
    service.command.len().saturating_sub(added)
}
