//! How generations are replaced.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::Check;
use crate::model::duration::Duration;
use crate::model::input::{HandoffInput, HealthCheckInput, Ready, RunScript, Server, Strategy};
use crate::model::service::{Handoff, HealthCheck};
use crate::model::settings::GRACEFUL_TIMEOUT;
use crate::rule;

/// How long a new generation may take to load the application: slow ones take half a minute.
const BOOT_TIMEOUT: Duration = Duration::seconds(60);

/// How much longer than the server we wait, so that the server's own limit acts first, in seconds.
const DRAIN_MARGIN: u64 = 10;

pub(super) fn handoff(
    input: &HandoffInput,
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
            &rule::HANDOFF,
            &["handoff", "strategy"],
            "`handoff.strategy: sockets` needs `run_script: native`: a shell cannot hold sockets, it hands over by USR2",
        );
    }
    if server == Server::Any && run_script == RunScript::Native && strategy == Strategy::Usr2 {
        check.complain(
            &rule::HANDOFF,
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
            &rule::HANDOFF,
            &["handoff", "ready"],
            "`handoff.ready: workers` works with gunicorn and unicorn only; this program can say it by `notify` or be `alive`",
        );
    }
    if run_script == RunScript::Shell && ready == Ready::Notify {
        check.complain(
            &rule::HANDOFF,
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
