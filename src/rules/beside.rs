//! What can be said of an application that has an error elsewhere.
//!
//! Its faulty keys are left out, so that defaults stand in for them. A finding is told only if it
//! would be there whatever is written in their places: its rule needs none of them.

use super::{Subject, check_all};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::pillar::{Node, Value};
use crate::rule::{self, Rule};
use crate::source::Span;

/// The path of a value: the keys on the way to it.
pub type Steps = Vec<String>;

/// What a rule needs besides the value that it finds something at: where that is, and the keys.
///
/// What is not in this table is not told beside an error, because it depends on nearly everything.
/// `tests/beside.rs` breaks every other key of the pillars that show these rules.
const NEEDS: &[(&Rule, &str, &[&str])] = &[
    (&rule::USER_ROOT, "user", &[]),
    (&rule::USER_ROOT, "group", &["user"]),
    (&rule::NEW_PRIVILEGES, "hardening", &[]),
    (&rule::KEPT_CAPABILITIES, "hardening", &[]),
    (&rule::CORE_DUMP, "limits", &[]),
    (
        &rule::PRIVILEGED_PORT,
        "bind",
        &["user", "server", "unicorn_command", "run_script", "handoff.strategy"],
    ),
    // The path of a service ends in the application's name.
    (&rule::PUBLIC_DIRECTORY, "service", NAME),
    (&rule::PUBLIC_DIRECTORY, "layout", &[]),
    (&rule::OWNED_PATH, "service", OWNED),
    (&rule::OWNED_PATH, "layout", OWNED),
    (&rule::PLAIN_SECRET, "environment", &[]),
    (&rule::COMMAND_OPTION, "unicorn_command", OF_COMMAND),
    (&rule::COMMAND_OPTION, "environment", SERVER),
    (&rule::REMOVED_VALUE, "gunicorn", SERVER),
    (&rule::REMOVED_VALUE, "unicorn_command", SERVER),
    (&rule::REMOVED_VALUE, "environment", SERVER),
    (&rule::REFUSED_VALUE, "gunicorn", SWITCHES),
    (&rule::REFUSED_VALUE, "unicorn_command", SWITCHES),
    (&rule::REFUSED_VALUE, "environment.GUNICORN_CMD_ARGS", SWITCHES),
    (&rule::REFUSED_VALUE, "environment", SERVER),
    (&rule::NEEDS_PACKAGE, "gunicorn", SWITCHES),
    (&rule::NEEDS_PACKAGE, "unicorn_command", SWITCHES),
    (&rule::NEEDS_PACKAGE, "environment", SWITCHES),
    (&rule::CONTRADICTION, "gunicorn", SWITCHES),
    (&rule::CONTRADICTION, "unicorn_command", SWITCHES),
    (&rule::CONTRADICTION, "environment", SWITCHES),
    (&rule::NO_EFFECT, "gunicorn", SWITCHES),
    (&rule::NO_EFFECT, "unicorn_command", SWITCHES),
    (&rule::NO_EFFECT, "unicorn", SERVER),
    (&rule::NO_EFFECT, "app", SERVER),
    (&rule::NO_EFFECT, "environment", SERVER),
    (&rule::NO_EFFECT, "virtualenv_home", &[]),
    (&rule::NO_EFFECT, "log", &["log.kind"]),
    (&rule::NO_EFFECT, "handoff", &["run_script", "handoff.strategy"]),
    (&rule::NO_EFFECT, "service", &["run_script"]),
    (
        &rule::NO_EFFECT,
        "bind",
        &["run_script", "handoff.strategy", "server", "unicorn_command", "user", "group"],
    ),
    (&rule::TIMEOUT_ZERO, "handoff", &[]),
    (&rule::TIMEOUT_ZERO, "service", &[]),
    (&rule::TIMEOUT_ZERO, "restart", &[]),
    (&rule::TIMEOUT_ORDER, "restart", &["restart"]),
    (&rule::TIMEOUT_ORDER, "handoff", TIMES),
    (&rule::TIMEOUT_ORDER, "service", TIMES),
    (&rule::TIMEOUT_ORDER, "gunicorn", TIMES),
    (
        &rule::TIGHT_LIMIT,
        "limits.nofile",
        &[
            "server",
            "unicorn_command",
            OPTIONS,
            "gunicorn.worker_class",
            "gunicorn.threads",
            "gunicorn.worker_connections",
        ],
    ),
    (&rule::TIGHT_LIMIT, "limits.nproc", WORKERS),
    (&rule::TIGHT_LIMIT, "limits", &[]),
    (&rule::TIGHT_LIMIT, "cgroup.memory_max", SERVER),
    (&rule::TIGHT_LIMIT, "cgroup.tasks_max", WORKERS),
    (&rule::NO_EFFECT, "cgroup", &["run_script"]),
    (&rule::READY_SIGNAL, "handoff", &["server", "unicorn_command", OPTIONS, "gunicorn.preload_app"]),
];

/// What the application is called.
const NAME: &[&str] = &["application", "unicorn_application"];

/// Which server it is.
const SERVER: &[&str] = &["server", "unicorn_command"];

/// How many workers and threads there are.
const WORKERS: &[&str] = &[
    "server",
    "unicorn_command",
    OPTIONS,
    "gunicorn.workers",
    "gunicorn.threads",
    "unicorn.worker_processes",
];

/// Options that a gunicorn reads besides those of its command.
const OPTIONS: &str = "environment.GUNICORN_CMD_ARGS";

/// What unicorn's words are held against, besides what says which server it is.
const OF_COMMAND: &[&str] =
    &["server", "unicorn_command", "app", "environment.RACK_ENV", "environment.RAILS_ENV"];

/// What decides which settings of gunicorn are read, and how.
const SWITCHES: &[&str] = &[
    "server",
    "unicorn_command",
    OPTIONS,
    "run_script",
    "handoff.strategy",
    "gunicorn.certfile",
    "gunicorn.control_socket_disable",
    "gunicorn.dirty_apps",
    "gunicorn.dirty_workers",
    "gunicorn.http_protocols",
    "gunicorn.keyfile",
    "gunicorn.logconfig_dict",
    "gunicorn.logconfig_json",
    "gunicorn.logger_class",
    "gunicorn.max_requests",
    "gunicorn.max_requests_jitter",
    "gunicorn.paste",
    "gunicorn.preload_app",
    "gunicorn.protocol",
    "gunicorn.proxy_protocol",
    "gunicorn.reload",
    "gunicorn.statsd_host",
    "gunicorn.syslog",
    "gunicorn.threads",
    "gunicorn.worker_class",
];

/// What the application's user owns.
const OWNED: &[&str] = &[
    "application",
    "unicorn_application",
    "user",
    "root",
    "home",
    "layout",
    "log",
    "virtualenv",
    "virtualenv_home",
    "service",
];

/// How long a generation takes.
const TIMES: &[&str] = &[
    "handoff",
    "service",
    "server",
    "unicorn_command",
    OPTIONS,
    "gunicorn.graceful_timeout",
    "gunicorn.timeout",
    "gunicorn.preload_app",
];

/// What the rules have to say about a service, made of `node`, that would hold as well if something
/// else stood at the `unknown` places. An empty path is any key.
pub fn check_beside(service: &Service, node: &Node, span: Span, unknown: &[Steps]) -> Vec<Diagnostic> {
    let mut found = check_all(&Subject::of(service, node, span));
    found.retain(|finding| {
        let mut places = vec![];
        for label in &finding.labels {
            let before = places.len();
            places.extend(paths_of(node, label.span));
            // Where the application is named stands what is so by default.
            if places.len() == before {
                return false;
            }
        }
        let Some(place) = places.first() else { return false };
        let row = NEEDS.iter().find(|(rule, at, _)| *rule == finding.rule && begins(place, at));
        row.is_some_and(|(_, _, needs)| {
            !needs.iter().any(|need| unknown.iter().any(|steps| meets(steps, need)))
        })
    });
    found
}

/// The paths of what stands there: the key that does, or the deepest value. One anchor may stand for several.
pub fn paths_of(node: &Node, span: Span) -> Vec<Steps> {
    let mut paths = vec![];
    gather(node, span, &mut vec![], &mut paths);
    paths
}

fn gather(node: &Node, span: Span, path: &mut Steps, paths: &mut Vec<Steps>) -> bool {
    let mut is_inside = false;
    let mut look = |name: String, key: Option<&Node>, value: &Node| {
        path.push(name);
        if key.is_some_and(|key| key.span == span) {
            paths.push(path.clone());
            is_inside = true;
        } else {
            is_inside |= gather(value, span, path, paths);
        }
        path.pop();
    };
    match &node.value {
        Value::Map(pairs) => {
            pairs.iter().for_each(|pair| look(pair.key.key_text(), Some(&pair.key), &pair.value))
        }
        Value::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| look(index.to_string(), None, item))
        }
        _ => {}
    }
    let whole = node.span;
    if !is_inside && whole.source == span.source && whole.start <= span.start && span.end <= whole.end {
        paths.push(path.clone());
        is_inside = true;
    }
    is_inside
}

/// Whether a path is the one written with dots, or below it.
fn begins(steps: &[String], dotted: &str) -> bool {
    let mut steps = steps.iter();
    dotted.split('.').all(|step| steps.next().is_some_and(|one| one == step))
}

/// Whether one of two paths is the other one, or below it.
fn meets(steps: &[String], dotted: &str) -> bool {
    steps.iter().zip(dotted.split('.')).all(|(one, other)| one == other)
}
