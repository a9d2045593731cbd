//! Time-outs that have to fit together.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::duration::{Duration, MAX_MILLISECONDS};
use crate::model::input::Server;
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    zeros(subject, found);
    server(subject, found);
    sv(subject, found);
    health(subject, found);
    let restart = &subject.service.restart;
    if restart.backoff_initial > restart.backoff_max {
        found.push(
            finding(
                &rule::TIMEOUT_ORDER,
                format!(
                    "the first wait before a restart is {}, and the longest {}",
                    seconds(restart.backoff_initial),
                    seconds(restart.backoff_max)
                ),
            )
            .at(subject.place(&["restart", "backoff_initial"]), "write less than `restart.backoff_max`"),
        );
    }
}

fn zeros(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let zeros: [(&[&str], Duration, &str); 4] = [
        (
            &["handoff", "boot_timeout"],
            service.handoff.boot_timeout,
            "no generation could get ready in time: write how long the application may take to load",
        ),
        (
            &["handoff", "drain_timeout"],
            service.handoff.drain_timeout,
            "requests in flight would be cut off: write how long they may take",
        ),
        (
            &["service", "timeout"],
            service.service.timeout,
            "sv would not wait at all: write how long a hand-over may take",
        ),
        (
            &["restart", "backoff_initial"],
            service.restart.backoff_initial,
            "a server that dies at once would be started again without a pause",
        ),
    ];
    let check = service.handoff.health_check.as_ref();
    let of_check = check.map(|check| {
        let steps: &[&str] = &["handoff", "health_check", "timeout"];
        (steps, check.timeout, "no answer could come in time: write how long one may take")
    });
    for (steps, value, why) in zeros.into_iter().chain(of_check) {
        if value.milliseconds == 0 && subject.given(steps).is_some() {
            found.push(
                finding(&rule::TIMEOUT_ZERO, format!("`{}` is 0", steps.join(".")))
                    .at(subject.place(steps), why),
            );
        }
    }
}

/// The server's own time-outs against ours.
fn server(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    if service.server != Server::Gunicorn {
        return;
    }
    let setting = |name: &str| subject.number(name).map(Duration::seconds);
    let drain = service.handoff.drain_timeout;
    if let Some(graceful) = subject.number("graceful_timeout")
        && Duration::seconds(graceful) > drain
        && drain.milliseconds > 0
    {
        let message = format!(
            "gunicorn gives requests {graceful} s to finish (`graceful_timeout`), and is killed after {} (`handoff.drain_timeout`)",
            seconds(drain)
        );
        let is_a_day = Duration::seconds(graceful).milliseconds >= MAX_MILLISECONDS;
        let help = match is_a_day {
            true => "write a smaller `graceful_timeout`".to_owned(),
            false => format!("write at least {}, or a smaller `graceful_timeout`", graceful + 1),
        };
        let order = finding(&rule::TIMEOUT_ORDER, message);
        let given = subject.given(&["handoff", "drain_timeout"]);
        found.push(match (given, subject.said("graceful_timeout")) {
            (Some(given), Some(said)) => order.at(given.span, help).at(said.span, "so long gunicorn waits"),
            (None, Some(said)) => {
                let more =
                    format!("write less, or {} as `handoff.drain_timeout`", graceful.saturating_add(1));
                let help = if is_a_day { help } else { more };
                order.at(said.span, help)
            }
            (_, None) => order.at(subject.place(&["handoff", "drain_timeout"]), help),
        });
    }
    let boot = service.handoff.boot_timeout;
    if let (Some(said), Some(given)) = (subject.said("timeout"), subject.given(&["handoff", "boot_timeout"]))
        && let Some(timeout) = setting("timeout")
        && timeout.milliseconds > 0
        && timeout < boot
        && !subject.is_on("preload_app")
    {
        let message = format!(
            "a worker that loads the application for longer than {} is killed by gunicorn (`timeout`), so `handoff.boot_timeout` of {} is never reached",
            seconds(timeout),
            seconds(boot)
        );
        found.push(
            finding(&rule::TIMEOUT_ORDER, message)
                .at(said.span, "write as much as `handoff.boot_timeout`, or set `preload_app`")
                .at(given.span, "so long a generation may take to get ready"),
        );
    }
}

/// sv waits long enough for what it asked for.
fn sv(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let wait = service.service.timeout;
    if wait.milliseconds == 0 || subject.given(&["service", "timeout"]).is_none() {
        return;
    }
    let longest = [
        ("boot_timeout", service.handoff.boot_timeout, "to get ready"),
        ("drain_timeout", service.handoff.drain_timeout, "for requests in flight"),
    ];
    if let Some((key, time, what)) =
        longest.into_iter().filter(|(_, time, _)| *time > wait).max_by_key(|(_, time, _)| *time)
    {
        let message = format!(
            "sv waits {} (`service.timeout`), and the service may take {} {what} (`handoff.{key}`)",
            seconds(wait),
            seconds(time)
        );
        let sum = service.handoff.boot_timeout.milliseconds + service.handoff.drain_timeout.milliseconds;
        let words = format!("write {}, or leave it out", Duration { milliseconds: sum }.whole_seconds());
        let mut order =
            finding(&rule::TIMEOUT_ORDER, message).at(subject.place(&["service", "timeout"]), words);
        if let Some(node) = subject.given(&["handoff", key]) {
            order = order.at(node.span, "so long it may take");
        }
        found.push(order);
    }
}

/// A health check that can be passed before the new generation is given up.
fn health(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let handoff = &subject.service.handoff;
    let Some(check) = &handoff.health_check else { return };
    let boot = handoff.boot_timeout;
    let waits = check.interval.milliseconds.saturating_mul(u64::from(check.successes.saturating_sub(1)));
    if boot.milliseconds == 0 {
        return;
    }
    if waits >= boot.milliseconds {
        let message = format!(
            "{} healthy answers, one every {}, take longer than `handoff.boot_timeout` of {}",
            check.successes,
            seconds(check.interval),
            seconds(boot)
        );
        let steps: &[&str] = &["handoff", "health_check", "successes"];
        found.push(
            finding(&rule::TIMEOUT_ORDER, message)
                .at(subject.place(steps), "write fewer, or a longer `handoff.boot_timeout`"),
        );
    } else if check.timeout > boot {
        let message = format!(
            "an answer to the health check may take {}, and all of it has to be done within `handoff.boot_timeout` of {}",
            seconds(check.timeout),
            seconds(boot)
        );
        let steps: &[&str] = &["handoff", "health_check", "timeout"];
        found.push(finding(&rule::TIMEOUT_ORDER, message).at(subject.place(steps), "write less"));
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.milliseconds as f64 / 1000.0)
}
