//! From what a pillar says to a [`Service`]: defaults filled in, values that only make sense
//! together checked together, every complaint collected.

mod application;
mod check;
mod handoff;
mod places;
mod server;
mod shared;
mod variables;

use std::collections::BTreeMap;

use super::duration::Duration;
use super::input::{Application, BindInput, Capabilities, OneOrMany, Server};
use super::is_application_name;
use super::service::{CgroupLimits, Hardening, Place, Restart, Service};
use crate::diagnostic::Diagnostic;
use crate::pillar::Node;
use crate::source::Span;
use check::Check;
use handoff::handoff;
use places::{layout, log, sockets};
use server::{app, command, gunicorn_settings, server_of, unicorn_settings, virtualenv, words};
use shared::shared_directories;
use variables::{limits, secret_files, variables};

/// The longest argument or variable that a program can be given, in bytes (MAX_ARG_STRLEN less the NUL).
const ARGUMENT_MAX: usize = 131_071;

/// What an application is read from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its key in `applications`, if it has one.
    pub name: Option<&'a str>,
    /// Where that key stands; without one, where the application begins.
    pub place: Span,
    /// Its values, with their places.
    pub node: &'a Node,
}

/// Fills in the defaults of an application that the schema accepted. The error is every complaint
/// about values that a schema cannot say: paths, addresses, and what does not fit together.
pub fn resolve(input: Application, context: Context<'_>) -> Result<Service, Vec<Diagnostic>> {
    let (service, found) = resolve_anyway(input, context);
    if found.is_empty() { Ok(service) } else { Err(found) }
}

/// As [`resolve`]; what is complained about has something in its place that nobody is to run.
pub fn resolve_anyway(input: Application, context: Context<'_>) -> (Service, Vec<Diagnostic>) {
    let mut check = Check { context, node: context.node, found: vec![] };
    let service = build(input, context, &mut check);
    shared_directories(&service, &mut check);
    (service, check.found)
}

fn build(input: Application, context: Context<'_>, check: &mut Check<'_>) -> Service {
    let mut application = input
        .application
        .or(input.unicorn_application)
        .or_else(|| context.name.map(str::to_owned))
        .unwrap_or_default();
    if application.is_empty() {
        check.missing("application", "it names the service", &[]);
        // Paths that are made of the name are not complained about as well.
        application.push('-');
    } else if !is_application_name(&application) {
        // The same goes for a name that is refused.
        application = "-".to_owned();
    }
    let user = input.user.unwrap_or_else(|| {
        check.missing("user", "the application runs as this user", &[]);
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
    let app = app(input.app, server, &words, &input.environment, check);
    let settings = match server {
        Server::Gunicorn => gunicorn_settings(input.gunicorn.0, &layout.logs.path, input.log.kind),
        Server::Unicorn => unicorn_settings(input.unicorn.0, &layout.logs.path, input.log.kind),
        Server::Any => BTreeMap::new(),
    };
    let handoff = handoff(&input.handoff, server, run_script, &settings, check);
    let default_bind = || OneOrMany::One(BindInput::Address("127.0.0.1:8000".to_owned()));
    let bind = sockets(input.bind.unwrap_or_else(default_bind), server, check);
    let command = command(words, server, &layout.config.path, &app, &input.environment);
    let (environment, secret_values) = variables(input.environment, input.secrets, run_script, check);
    let secret_files = secret_files(input.secret_files, (&environment, &secret_values), run_script, check);
    let log = log(input.log, &layout.logs.path, check);
    let directory = check.path(&["service", "directory"], input.service.directory, || "/etc/sv".to_owned());
    let link = check.path(&["service", "link"], input.service.link, || "/etc/service".to_owned());
    let waits =
        Duration { milliseconds: handoff.boot_timeout.milliseconds + handoff.drain_timeout.milliseconds };
    Service {
        command,
        server,
        app,
        home,
        virtualenv,
        bind,
        environment,
        secrets: secret_values.keys().cloned().collect(),
        secret_files,
        secret_values,
        limits: limits(input.limits, check),
        umask: input.umask.map_or_else(|| "0022".to_owned(), |umask| format!("{umask:0>4}")),
        nice: input.nice,
        oom_score_adj: input.oom_score_adj,
        hardening: Hardening {
            no_new_privileges: input.hardening.no_new_privileges.unwrap_or(true),
            capabilities: input.hardening.capabilities.unwrap_or(Capabilities::None),
            private_tmp: input.hardening.private_tmp.unwrap_or(false),
            read_only_system: input.hardening.read_only_system.unwrap_or(false),
        },
        cgroup: CgroupLimits {
            memory_max: input.cgroup.memory_max.and_then(|size| size.bytes()),
            tasks_max: input.cgroup.tasks_max,
        },
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
            fallback: input.restart.fallback.unwrap_or_default(),
        },
        log,
        service: Place {
            directory: format!("{directory}/{application}"),
            link: format!("{link}/{application}"),
            enabled: input.service.enabled.unwrap_or(true),
            down: input.service.down.unwrap_or(false),
            timeout: check.duration(&["service", "timeout"], input.service.timeout, waits),
            runtime: check
                .path(&["service", "runtime"], input.service.runtime, || "/usr/bin/runsmith".to_owned()),
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
