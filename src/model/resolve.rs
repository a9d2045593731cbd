//! From what a pillar says to a [`Service`]: defaults filled in, values that only make sense
//! together checked together, every complaint collected.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::address::Address;
use super::duration::Duration;
use super::input::{
    Application, BindInput, DirectoryInput, DurationInput, HealthCheckInput, LimitInput, LimitValue, LogKind,
    OneOrMany, OwnedDirectoryInput, Ready, Resource, RunScript, Server, SocketInput, Strategy, Text, Words,
};
use super::paths;
use super::service::{Directory, Handoff, HealthCheck, Layout, Limit, Log, Place, Restart, Service, Socket};
use crate::diagnostic::Diagnostic;
use crate::pillar::Node;
use crate::source::Span;

/// How long a new generation may take to load the application: slow ones take half a minute.
const BOOT_TIMEOUT: Duration = Duration::seconds(60);
/// gunicorn's own default for graceful_timeout, in seconds.
const GRACEFUL_TIMEOUT: u64 = 30;
/// How much longer than the server we wait, so that the server's own limit acts first, in seconds.
const DRAIN_MARGIN: u64 = 10;
/// The longest argument or variable that a program can be given, in bytes (MAX_ARG_STRLEN less the NUL).
const ARGUMENT_MAX: usize = 131_071;
/// The backlog of gunicorn and of the gist.
const BACKLOG: u32 = 2048;

/// What an application is read from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its key in `applications`, if it has one.
    pub name: Option<&'a str>,
    /// Its values, with their places.
    pub node: &'a Node,
}

/// Fills in the defaults of an application that the schema accepted. The error is every complaint
/// about values that a schema cannot say: paths, addresses, and what does not fit together.
pub fn resolve(input: Application, context: Context<'_>) -> Result<Service, Vec<Diagnostic>> {
    let mut check = Check { node: context.node, found: vec![] };
    let service = build(input, context, &mut check);
    if check.found.is_empty() { Ok(service) } else { Err(check.found) }
}

fn build(input: Application, context: Context<'_>, check: &mut Check<'_>) -> Service {
    let mut application = input
        .application
        .or(input.unicorn_application)
        .or_else(|| context.name.map(str::to_owned))
        .unwrap_or_default();
    if application.is_empty() {
        check.missing("application", "it names the service");
        // Paths that are made of the name are not complained about as well.
        application.push('-');
    }
    let user = input.user.unwrap_or_else(|| {
        check.missing("user", "the application runs as this user");
        String::new()
    });
    let group = input.group.unwrap_or_else(|| user.clone());
    let words = words(input.unicorn_command, check, "unicorn_command", || vec!["gunicorn".to_owned()]);
    let server = input.server.unwrap_or_else(|| server_of(&words));
    let run_script = input.run_script.unwrap_or_default();
    let root = check.path(&["root"], input.root, || format!("/var/www/{application}"));
    let home = check.path(&["home"], input.home, || format!("/home/{user}"));
    let virtualenv = virtualenv(input.virtualenv, input.virtualenv_home, &application, server, check);
    let layout = layout(&input.layout, &root, &application, &user, &group, check);
    let app = app(input.app, server, check);
    let settings = match server {
        Server::Gunicorn => gunicorn_settings(input.gunicorn.0, &layout.logs.path, input.log.kind),
        Server::Unicorn => unicorn_settings(input.unicorn.0, &layout.logs.path, input.log.kind),
        Server::Any => BTreeMap::new(),
    };
    let handoff = handoff(&input.handoff, server, run_script, &settings, check);
    let default_bind = || OneOrMany::One(BindInput::Address("127.0.0.1:8000".to_owned()));
    let bind = sockets(input.bind.unwrap_or_else(default_bind), server, check);
    let (environment, secret_values) = variables(input.environment, input.secrets, run_script, check);
    let log = log(input.log, &layout.logs.path, check);
    let directory = check.path(&["service", "directory"], input.service.directory, || "/etc/sv".to_owned());
    let link = check.path(&["service", "link"], input.service.link, || "/etc/service".to_owned());
    let waits =
        Duration { milliseconds: handoff.boot_timeout.milliseconds + handoff.drain_timeout.milliseconds };
    Service {
        command: command(words, server, &layout.config.path, &app),
        server,
        app,
        home,
        virtualenv,
        bind,
        environment,
        secrets: secret_values.keys().cloned().collect(),
        secret_values,
        limits: limits(input.limits, check),
        umask: input.umask.map_or_else(|| "0022".to_owned(), |umask| format!("{umask:0>4}")),
        nice: input.nice,
        oom_score_adj: input.oom_score_adj,
        run_script,
        handoff,
        restart: Restart {
            min_uptime: check.duration(
                &["restart", "min_uptime"],
                input.restart.min_uptime,
                Duration::seconds(10),
            ),
            backoff_initial: check.duration(
                &["restart", "backoff_initial"],
                input.restart.backoff_initial,
                Duration::seconds(1),
            ),
            backoff_max: check.duration(
                &["restart", "backoff_max"],
                input.restart.backoff_max,
                Duration::seconds(60),
            ),
        },
        log,
        service: Place {
            directory: format!("{directory}/{application}"),
            link: format!("{link}/{application}"),
            enabled: input.service.enabled.unwrap_or(true),
            down: input.service.down.unwrap_or(false),
            timeout: check.duration(&["service", "timeout"], input.service.timeout, waits),
            runtime: input.service.runtime.unwrap_or_else(|| "/usr/bin/runsmith".to_owned()),
        },
        groups: input.groups,
        layout,
        root,
        settings,
        application,
        user,
        group,
    }
}

/// Collects complaints, each at the value it is about.
struct Check<'a> {
    node: &'a Node,
    found: Vec<Diagnostic>,
}

impl Check<'_> {
    fn span(&self, steps: &[&str]) -> Span {
        self.node.locate(steps.iter().copied())
    }

    fn complain(&mut self, rule: &'static str, steps: &[&str], message: impl Into<String>) {
        let span = self.span(steps);
        self.found.push(Diagnostic::error(rule, message).at(span, ""));
    }

    fn missing(&mut self, key: &str, why: &str) {
        let diagnostic =
            Diagnostic::error("missing-key", format!("`{key}` is missing")).at(self.node.head(), why);
        self.found.push(diagnostic);
    }

    /// An absolute path, or the default.
    fn path(&mut self, steps: &[&str], given: Option<String>, default: impl FnOnce() -> String) -> String {
        let Some(path) = given else { return default() };
        match paths::absolute(&path) {
            Ok(()) => path,
            Err(reason) => {
                self.complain("path", steps, format!("`{}`: {reason}", steps.join(".")));
                // What is built upon it is not to be complained about as well.
                default()
            }
        }
    }

    fn duration(&mut self, steps: &[&str], given: Option<DurationInput>, default: Duration) -> Duration {
        given.map_or(default, |input| {
            Duration::parse(&input).unwrap_or_else(|reason| {
                self.complain("duration", steps, format!("`{}`: {reason}", steps.join(".")));
                default
            })
        })
    }
}

/// The words of a command. A string is split at blanks, as `chpst` and `env` would get them; what
/// looks like shell quoting in it would not work, so it is refused.
fn words(
    given: Option<Words>,
    check: &mut Check<'_>,
    key: &'static str,
    default: impl FnOnce() -> Vec<String>,
) -> Vec<String> {
    match given {
        None => default(),
        Some(Words::List(words)) => {
            if words.iter().any(|word| word.len() > ARGUMENT_MAX) {
                check.complain("too-long", &[key], format!("`{key}`: a word has more than {ARGUMENT_MAX} bytes, and the kernel takes no more for an argument"));
            }
            words
        }
        Some(Words::Line(line)) => {
            if let Some(sign) = line.chars().find(|c| "'\"\\$`;&|<>()*?[]{}~#!".contains(*c)) {
                check.complain(
                    "command",
                    &[key],
                    format!("`{key}`: {sign:?} has no meaning here, because no shell reads the command; write it as a list of words"),
                );
            }
            line.split_whitespace().map(str::to_owned).collect()
        }
    }
}

/// The last word that names a server decides: `bundle exec unicorn`, `python -m gunicorn`.
fn server_of(words: &[String]) -> Server {
    let name = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    words
        .iter()
        .rev()
        .find_map(|word| match name(word).as_str() {
            "gunicorn" => Some(Server::Gunicorn),
            "unicorn" | "unicorn_rails" => Some(Server::Unicorn),
            _ => None,
        })
        .unwrap_or(Server::Any)
}

/// gunicorn and unicorn get their configuration and what to load; any other command is whole.
fn command(mut words: Vec<String>, server: Server, config: &str, app: &str) -> Vec<String> {
    match server {
        Server::Gunicorn => {
            words.extend(["-c".to_owned(), format!("{config}/gunicorn.py"), "--".to_owned(), app.to_owned()]);
        }
        Server::Unicorn => {
            words.extend(["-c".to_owned(), format!("{config}/unicorn.rb"), "--".to_owned(), app.to_owned()]);
        }
        Server::Any => {}
    }
    words
}

fn app(given: Option<String>, server: Server, check: &mut Check<'_>) -> String {
    let app = given.unwrap_or_else(|| match server {
        Server::Unicorn => "config.ru".to_owned(),
        Server::Gunicorn | Server::Any => "wsgi:app".to_owned(),
    });
    if app.len() > ARGUMENT_MAX {
        check.complain(
            "too-long",
            &["app"],
            format!("`app` has more than {ARGUMENT_MAX} bytes, and the kernel takes no more for an argument"),
        );
    }
    if app.trim() != app {
        check.complain("app", &["app"], "`app` begins or ends with a blank");
    }
    app
}

fn virtualenv(
    given: Option<String>,
    home: Option<String>,
    application: &str,
    server: Server,
    check: &mut Check<'_>,
) -> Option<String> {
    let key = if given.is_some() { "virtualenv" } else { "virtualenv_home" };
    let path = match (given, home) {
        (Some(path), _) => path,
        (None, Some(home)) => {
            check.path(&["virtualenv_home"], Some(home.clone()), String::new);
            format!("{home}/.virtualenvs/{application}")
        }
        (None, None) => {
            if server == Server::Gunicorn {
                let diagnostic = Diagnostic::error("missing-key", "`virtualenv_home` is missing")
                    .at(check.node.head(), "")
                    .help("gunicorn is started from a virtualenv: set `virtualenv_home`, which holds `.virtualenvs/APPLICATION`, or `virtualenv`, its whole path");
                check.found.push(diagnostic);
            }
            return None;
        }
    };
    if key == "virtualenv" {
        check.path(&[key], Some(path.clone()), String::new);
    }
    if path.contains(':') {
        check.complain(
            "path",
            &[key],
            format!("`{key}` has a \":\", which separates the directories of PATH"),
        );
    }
    Some(path)
}

fn handoff(
    input: &super::input::HandoffInput,
    server: Server,
    run_script: RunScript,
    settings: &BTreeMap<String, Json>,
    check: &mut Check<'_>,
) -> Handoff {
    let strategy = input.strategy.unwrap_or(match run_script {
        RunScript::Native => Strategy::Sockets,
        RunScript::Shell => Strategy::Usr2,
    });
    if run_script == RunScript::Shell && strategy == Strategy::Sockets {
        check.complain(
            "handoff",
            &["handoff", "strategy"],
            "`handoff.strategy: sockets` needs `run_script: native`: a shell cannot hold sockets, it hands over by USR2",
        );
    }
    if server == Server::Any && run_script == RunScript::Native && strategy == Strategy::Usr2 {
        check.complain(
            "handoff",
            &["handoff", "strategy"],
            "`handoff.strategy: usr2` works with gunicorn and unicorn only; other programs inherit sockets",
        );
    }
    let ready = input.ready.unwrap_or(match server {
        Server::Gunicorn | Server::Unicorn => Ready::Workers,
        Server::Any => Ready::Alive,
    });
    if server == Server::Any && ready == Ready::Workers {
        check.complain(
            "handoff",
            &["handoff", "ready"],
            "`handoff.ready: workers` works with gunicorn and unicorn only; this program can say it by `notify` or be `alive`",
        );
    }
    if run_script == RunScript::Shell && ready == Ready::Notify {
        check.complain(
            "handoff",
            &["handoff", "ready"],
            "`handoff.ready: notify` needs `run_script: native`: a shell cannot receive it",
        );
    }
    let graceful = settings.get("graceful_timeout").and_then(Json::as_u64).unwrap_or(GRACEFUL_TIMEOUT);
    let drain = Duration::seconds(graceful.min(80_000) + DRAIN_MARGIN);
    Handoff {
        strategy,
        boot_timeout: check.duration(&["handoff", "boot_timeout"], input.boot_timeout.clone(), BOOT_TIMEOUT),
        drain_timeout: check.duration(&["handoff", "drain_timeout"], input.drain_timeout.clone(), drain),
        ready,
        health_check: input.health_check.clone().map(|input| health_check(input, check)),
    }
}

fn health_check(input: HealthCheckInput, check: &mut Check<'_>) -> HealthCheck {
    let at = |key| ["handoff", "health_check", key];
    HealthCheck {
        path: input.path,
        host: input.host.unwrap_or_else(|| "localhost".to_owned()),
        status: input
            .status
            .map_or_else(|| vec![200], |status| status.into_vec().iter().map(|status| status.0).collect()),
        timeout: check.duration(&at("timeout"), input.timeout, Duration::seconds(5)),
        interval: check.duration(&at("interval"), input.interval, Duration::seconds(1)),
        successes: input.successes.unwrap_or(1),
    }
}

fn sockets(input: OneOrMany<BindInput>, server: Server, check: &mut Check<'_>) -> Vec<Socket> {
    let single = matches!(input, OneOrMany::One(_));
    let mut sockets: Vec<Socket> = vec![];
    for (index, bind) in input.into_vec().into_iter().enumerate() {
        let index = index.to_string();
        let steps: &[&str] = if single { &["bind"] } else { &["bind", &index] };
        let socket = match bind {
            BindInput::Address(address) => {
                SocketInput { address, mode: None, user: None, group: None, backlog: None }
            }
            BindInput::Socket(socket) => *socket,
        };
        let address = match Address::parse(&socket.address) {
            Ok(address) => address,
            Err(reason) => {
                check.complain("address", steps, format!("`bind`: {reason}"));
                continue;
            }
        };
        let path = address.unix_path().unwrap_or_default();
        if path.chars().any(char::is_control) {
            check.complain("address", steps, "`bind`: the path of a Unix socket has a control character");
        }
        if server == Server::Gunicorn && path.contains("unix:") {
            check.complain(
                "address",
                steps,
                "`bind`: gunicorn takes only what follows the last \"unix:\" for the path",
            );
        }
        if server == Server::Gunicorn && path.trim() != path {
            check.complain("address", steps, "`bind`: gunicorn drops the blank at the end of the path");
        }
        let address = address.to_string();
        if sockets.iter().any(|earlier| earlier.address == address) {
            check.complain("address", steps, format!("`bind`: {address:?} is there already"));
        }
        sockets.push(Socket {
            mode: socket.mode.map(|mode| format!("{mode:0>4}")),
            user: socket.user,
            group: socket.group,
            backlog: socket.backlog.unwrap_or(BACKLOG),
            address,
        });
    }
    sockets
}

type Variables = BTreeMap<String, String>;

/// Plain variables, and those that are kept in files: all of `secrets`, and of `environment` those
/// whose names say so.
fn variables(
    environment: BTreeMap<String, Text>,
    secrets: BTreeMap<String, Text>,
    run_script: RunScript,
    check: &mut Check<'_>,
) -> (Variables, Variables) {
    let text = |value: Text| match value {
        Text::String(text) => text,
        Text::Integer(number) => number.to_string(),
    };
    let mut plain = Variables::new();
    let mut kept = Variables::new();
    for (name, value) in environment {
        let target = if Service::is_secret_name(&name) { &mut kept } else { &mut plain };
        target.insert(name, text(value));
    }
    for (name, value) in secrets {
        if plain.contains_key(&name) || kept.contains_key(&name) {
            check.complain(
                "secret",
                &["secrets", &name],
                format!("`{name}` is in `environment` and in `secrets`"),
            );
        }
        kept.insert(name, text(value));
    }
    for (name, value) in plain.iter().chain(&kept) {
        let place = ["secrets", "environment"].into_iter().find(|key| check.node.has(&[key, name]));
        let steps = [place.unwrap_or("environment"), name];
        if let Some(why) = taken(name, kept.contains_key(name)) {
            check.complain("variable", &steps, format!("`{name}` cannot be set: {why}"));
        }
        if name.len() + 1 + value.len() > ARGUMENT_MAX {
            check.complain("too-long", &steps, format!("`{name}` and its value have more than {ARGUMENT_MAX} bytes, and the kernel takes no more for a variable"));
        }
        if kept.contains_key(name) && name.len() > super::paths::NAME_MAX {
            check.complain(
                "too-long",
                &steps,
                format!(
                    "the name of a secret is that of a file and may have {} bytes",
                    super::paths::NAME_MAX
                ),
            );
        }
    }
    if run_script == RunScript::Shell {
        let names: Vec<_> = kept
            .iter()
            .filter(|(_, value)| value.ends_with([' ', '\t']))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let place = ["secrets", "environment"].into_iter().find(|key| check.node.has(&[key, &name]));
            check.complain(
                "secret",
                &[place.unwrap_or("secrets"), &name],
                format!("the value of `{name}` ends in a blank, which chpst would drop; the native run script keeps it"),
            );
        }
    }
    (plain, kept)
}

/// Why a variable would not arrive: the service itself sets it.
fn taken(name: &str, secret: bool) -> Option<&'static str> {
    match name {
        "RUNSMITH_SERVICE" | "RUNSMITH_TOKEN" | "RUNSMITH_READY" => Some("runsmith sets it itself"),
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "GUNICORN_FD" | "GUNICORN_PID" | "UNICORN_FD"
        | "UNICORN_WORKER" => Some("by it a server is told which sockets it inherits"),
        "NOTIFY_SOCKET" => Some("by it a server is told where to say that it is ready"),
        "HOME" | "USER" | "LOGNAME" | "PWD" | "PATH" | "VIRTUAL_ENV" if secret => {
            Some("every service has it, so it is no secret; use `environment`")
        }
        _ => None,
    }
}

fn limits(given: BTreeMap<Resource, LimitInput>, check: &mut Check<'_>) -> BTreeMap<Resource, Limit> {
    let nofile = LimitValue::Number(65_535);
    let mut limits = BTreeMap::from([(Resource::Nofile, Limit { soft: nofile, hard: nofile })]);
    for (resource, input) in given {
        let limit = match input {
            LimitInput::Both(value) => Limit { soft: value, hard: value },
            LimitInput::Each(each) => Limit { soft: each.soft, hard: each.hard.unwrap_or(each.soft) },
        };
        let number = |value| match value {
            LimitValue::Number(number) => number,
            LimitValue::Word(_) => u64::MAX,
        };
        if number(limit.soft) > number(limit.hard) {
            let name = format!("{resource:?}").to_ascii_lowercase();
            check.complain(
                "limit",
                &["limits", &name],
                format!("`limits.{name}`: the soft limit is above the hard limit"),
            );
        }
        limits.insert(resource, limit);
    }
    limits
}

fn log(input: super::input::LogInput, logs: &str, check: &mut Check<'_>) -> Log {
    let processor = input.processor.map(|given| {
        if matches!(&given, Words::List(words) if words.iter().any(|word| word.contains('\n'))) {
            check.complain(
                "command",
                &["log", "processor"],
                "`log.processor`: svlogd's config has one line for it, so no word may hold a newline",
            );
        }
        match given {
            Words::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            Words::List(words) => words,
        }
    });
    Log {
        kind: input.kind.unwrap_or_default(),
        directory: check.path(&["log", "directory"], input.directory, || format!("{logs}/service")),
        size: input.size.unwrap_or(1_000_000),
        number: input.number.unwrap_or(10),
        processor,
    }
}

fn layout(
    input: &super::input::LayoutInput,
    root: &str,
    application: &str,
    user: &str,
    group: &str,
    check: &mut Check<'_>,
) -> Layout {
    let mut directory =
        |key: &'static str, given: &Option<DirectoryInput>, default: &str, owner: (&str, &str)| {
            let given = match given {
                None => OwnedDirectoryInput { path: None, mode: None, user: None, group: None },
                Some(DirectoryInput::Path(path)) => {
                    OwnedDirectoryInput { path: Some(path.clone()), mode: None, user: None, group: None }
                }
                Some(DirectoryInput::Directory(directory)) => directory.clone(),
            };
            let path = given.path.as_deref().unwrap_or(default);
            let path = paths::below(root, path).unwrap_or_else(|reason| {
                check.complain("path", &["layout", key], format!("`layout.{key}`: {reason}"));
                format!("{root}/{default}")
            });
            Directory {
                path,
                mode: given.mode.map_or_else(|| "0755".to_owned(), |mode| format!("{mode:0>4}")),
                user: given.user.unwrap_or_else(|| owner.0.to_owned()),
                group: given.group.unwrap_or_else(|| owner.1.to_owned()),
            }
        };
    let own = (user, group);
    Layout {
        releases: directory("releases", &input.releases, "releases", own),
        pids: directory("pids", &input.pids, "shared/pids", own),
        logs: directory("logs", &input.logs, "shared/logs", own),
        sockets: directory("sockets", &input.sockets, "shared/sockets", own),
        config: directory("config", &input.config, "shared/config", ("root", "root")),
        run: check.path(&["layout", "run"], input.run.clone(), || format!("/run/runsmith/{application}")),
    }
}

/// The gist's choices where they are sound. `preload_app` is: with it a worker that is replaced
/// after `current` has moved still runs its own generation's code. Its `max_requests` is not: all
/// workers would be replaced at about the same time, under load. gevent needs a package.
fn gunicorn_settings(
    given: BTreeMap<String, Json>,
    logs: &str,
    kind: Option<LogKind>,
) -> BTreeMap<String, Json> {
    let mut settings = BTreeMap::from([
        ("preload_app".to_owned(), Json::from(true)),
        ("timeout".to_owned(), Json::from(120)),
        ("graceful_timeout".to_owned(), Json::from(GRACEFUL_TIMEOUT)),
        ("keepalive".to_owned(), Json::from(2)),
        // Its commands cannot replace a master, and it is gone after the first hand-over.
        ("control_socket_disable".to_owned(), Json::from(true)),
    ]);
    match kind.unwrap_or_default() {
        LogKind::Svlogd => {
            settings.insert("accesslog".to_owned(), Json::from("-"));
            settings.insert("errorlog".to_owned(), Json::from("-"));
        }
        LogKind::Files => {
            settings.insert("accesslog".to_owned(), Json::from(format!("{logs}/access.log")));
            settings.insert("errorlog".to_owned(), Json::from(format!("{logs}/error.log")));
        }
        LogKind::None => {}
    }
    settings.extend(given);
    settings
}

fn unicorn_settings(
    given: BTreeMap<String, Json>,
    logs: &str,
    kind: Option<LogKind>,
) -> BTreeMap<String, Json> {
    let mut settings = BTreeMap::from([
        ("preload_app".to_owned(), Json::from(true)),
        ("timeout".to_owned(), Json::from(120)),
    ]);
    if kind == Some(LogKind::Files) {
        settings.insert("stdout_path".to_owned(), Json::from(format!("{logs}/access.log")));
        settings.insert("stderr_path".to_owned(), Json::from(format!("{logs}/error.log")));
    }
    settings.extend(given);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{GUNICORN, Table, UNICORN};

    /// The tables are not asked at every run, because reading them takes longer than rendering a service.
    #[test]
    fn the_servers_have_the_settings_that_are_filled_in() {
        let known = |table: &Table, settings: BTreeMap<String, Json>| {
            settings
                .keys()
                .for_each(|name| assert!(table.get(name).is_some(), "{} has no {name}", table.server));
        };
        for kind in [LogKind::Svlogd, LogKind::Files, LogKind::None] {
            known(&GUNICORN, gunicorn_settings(BTreeMap::new(), "/logs", Some(kind)));
            known(&UNICORN, unicorn_settings(BTreeMap::new(), "/logs", Some(kind)));
        }
    }
}
