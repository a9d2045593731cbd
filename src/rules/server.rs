//! The server, its settings and its command.

use serde_json::Value as Json;

use super::settings::Said;
use super::{Subject, finding, refused};
use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::model::nearest;
use crate::pillar::Value;
use crate::rule::{self, Rule};

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    if subject.service.server == Server::Gunicorn {
        worker_class(subject, found);
        packages(subject, found);
        removed_values(subject, found);
        contradictions(subject, found);
    }
}

/// The class of gunicorn's workers: its default is `sync`, which `threads` makes `gthread`.
pub(super) fn class_of(subject: &Subject<'_>) -> String {
    let class = subject.value("worker_class");
    let class = class.as_deref().and_then(Json::as_str).unwrap_or("sync");
    let threads = subject.number("threads").unwrap_or(1);
    if is_sync(class) && threads > 1 { "gthread".to_owned() } else { class.to_owned() }
}

/// Whether threads make gthread workers of that class (config.py, worker_class_str).
fn is_sync(class: &str) -> bool {
    class == "sync" || class.ends_with("SyncWorker")
}

/// Classes of workers that are part of gunicorn 27, their short names, and the package each needs (workers/__init__.py).
const CLASSES: &[(&str, &str, Option<&str>)] = &[
    ("gunicorn.workers.sync.SyncWorker", "sync", None),
    ("gunicorn.workers.gthread.ThreadWorker", "gthread", None),
    ("gunicorn.workers.gasgi.ASGIWorker", "asgi", None),
    ("gunicorn.workers.ggevent.GeventWorker", "gevent", Some("gevent")),
    ("gunicorn.workers.ggevent.GeventPyWSGIWorker", "gevent_wsgi", Some("gevent")),
    ("gunicorn.workers.ggevent.GeventPyWSGIWorker", "gevent_pywsgi", Some("gevent")),
    ("gunicorn.workers.gtornado.TornadoWorker", "tornado", Some("tornado")),
];

/// The class of gunicorn's own that a text names by its path or its short name; none for others'.
fn own(class: &str) -> Option<&'static (&'static str, &'static str, Option<&'static str>)> {
    let short = class.trim_start_matches('#');
    CLASSES.iter().find(|(path, name, _)| *path == class || *name == short)
}

/// The short name of a class of gunicorn's own; none for others'.
pub(super) fn kind_of(class: &str) -> Option<&'static str> {
    own(class).map(|(_, name, _)| *name)
}

/// Loggers that are part of gunicorn 27 (config.py, `logger_class`).
pub(super) fn is_own_logger(class: &str) -> bool {
    matches!(class, "simple" | "gunicorn.glogging.Logger" | "gunicorn.instrument.statsd.Statsd")
}

/// Classes that are gone: of which module, since when, and what to write.
const GONE: &[(&str, &str, &str, &str)] = &[
    ("eventlet", "gunicorn.workers.geventlet", "26.0.0", "gevent, gthread or tornado"),
    ("gaiohttp", "gunicorn.workers.gaiohttp", "20.0", "asgi, or aiohttp's own worker class"),
];

/// What there is to say of a worker class: the rule, the sentence, and what to write.
fn class(class: &str) -> Option<(&'static Rule, String, String)> {
    let name = class.strip_prefix("egg:gunicorn#").unwrap_or(class).trim_start_matches('#');
    if let Some((gone, _, version, instead)) =
        GONE.iter().find(|(gone, module, ..)| name == *gone || name.starts_with(module))
    {
        let message = format!("gunicorn's worker class {gone} is gone since {version}");
        return Some((&rule::REMOVED_VALUE, message, format!("write {instead}")));
    }
    if let Some((_, short, package)) = own(class) {
        let message = format!("the worker class {short} needs the package {}", (*package)?);
        return Some((&rule::NEEDS_PACKAGE, message, VIRTUALENV.to_owned()));
    }
    let known: Vec<String> = CLASSES.iter().map(|(_, short, _)| (*short).to_owned()).collect();
    if let Some(what) = no_class(class) {
        let own = CLASSES.iter().find(|(path, ..)| path.starts_with(&format!("{class}.")));
        let near = own.map(|(_, short, _)| (*short).to_owned()).or_else(|| nearest(name, &known));
        let help = near.map_or_else(
            || format!("write one of {}, or a class with its module", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return Some((&rule::REFUSED_VALUE, format!("{what}, and gunicorn ends"), help));
    }
    let package = class.strip_prefix("egg:").unwrap_or(class);
    let package = package.split(['.', '#']).next().unwrap_or(package);
    let message = format!("the worker class {class} needs the package {package}");
    let place = "it must be in the application's virtualenv, or in its release";
    Some((&rule::NEEDS_PACKAGE, message, place.to_owned()))
}

/// Why no class can be loaded by that text, whatever packages there are (util.py, `load_class`); none if one may.
///
/// gunicorn 27 has no entry points of its own, so that its names are its only short ones.
pub(super) fn no_class(text: &str) -> Option<String> {
    if let Some(entry) = text.strip_prefix("egg:") {
        let package = entry.split('#').next().unwrap_or(entry);
        return (package.is_empty() || package == "gunicorn")
            .then(|| format!("{text:?} names no entry point of another package"));
    }
    if !text.contains('.') {
        return Some(format!("gunicorn has no class {text:?}"));
    }
    let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !text.split('.').all(is_name) {
        return Some(format!("{text:?} is not the name of a class with its module"));
    }
    (text.starts_with("gunicorn.") && own(text).is_none())
        .then(|| format!("gunicorn has no class {text:?} for this"))
}

const VIRTUALENV: &str = "it must be in the application's virtualenv";

fn worker_class(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    for (text, said) in refused::texts(subject, "worker_class") {
        if let Some((rule, message, help)) = class(text.trim()) {
            let message = if said.name.starts_with("`gunicorn.") {
                message
            } else {
                format!("{}: {message}", said.name)
            };
            found.push(finding(rule, message).at(said.span, help));
        }
    }
}

/// What other settings need besides gunicorn; it imports them when it starts, or for a request (27.0.1).
fn packages(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let word = |name: &str| subject.word(name).unwrap_or_default();
    let is_asgi = || kind_of(&class_of(subject)) == Some("asgi");
    let needs = [
        ("http_protocols", "h2", subject.lists("http_protocols", "h2")),
        ("http_parser", "gunicorn_h1c", word("http_parser") == "fast"),
        ("reload_engine", "inotify", word("reload_engine") == "inotify" && subject.is_on("reload")),
        ("paste", "PasteDeploy", subject.is_filled("paste")),
        ("asgi_loop", "uvloop", word("asgi_loop") == "uvloop" && is_asgi()),
    ];
    for (name, package, _) in needs.into_iter().filter(|(.., is_needed)| *is_needed) {
        let Some(said) = subject.said(name) else { continue };
        let message = format!("{} needs the package {package}", said.name);
        found.push(finding(&rule::NEEDS_PACKAGE, message).at(said.span, VIRTUALENV));
    }
}

fn removed_values(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    for (text, said) in refused::texts(subject, "http_protocols") {
        if text.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("h3")) {
            found.push(
                finding(&rule::REMOVED_VALUE, "gunicorn's protocol h3 is gone since 26.2.1")
                    .at(said.span, "write h1, h2 or both"),
            );
        }
    }
}

fn contradictions(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let mut say = |message: String, said: &Said, help: &str, other: Option<(Said, &str)>| {
        let contradiction = finding(&rule::CONTRADICTION, message).at(said.span, help);
        found.push(match other {
            Some((other, label)) => contradiction.at(other.span, label),
            None => contradiction,
        });
    };
    if subject.is_on("reload")
        && subject.is_on("preload_app")
        && let Some(reload) = subject.said("reload")
    {
        let preload = subject.said("preload_app");
        let said = preload.as_ref().map_or_else(
            || "`preload_app`, which is on by default,".to_owned(),
            |preload| preload.name.replace("gunicorn.", ""),
        );
        let message = format!(
            "{} cannot work with {said} because a preloaded application is not loaded again",
            reload.name
        );
        let other = preload.map(|preload| (preload, "preloaded here"));
        say(message, &reload, "leave it out, or set `preload_app: false`", other);
    }
    if let (Some(class), Some(threads)) = (subject.said("worker_class"), subject.said("threads"))
        && subject.value("worker_class").is_some_and(|class| class.as_str().is_some_and(is_sync))
        && subject.number("threads").is_some_and(|threads| threads > 1)
    {
        let message = "with `threads` gunicorn uses gthread workers, not sync ones".to_owned();
        let other = Some((threads, "more than one thread"));
        say(message, &class, "write gthread, or leave `threads` out", other);
    }
    if let Some(jitter) = subject.said("max_requests_jitter")
        && subject.number("max_requests_jitter") > Some(0)
        && subject.number("max_requests").unwrap_or(0) == 0
    {
        let message = format!("{} varies `max_requests`, which is not set", jitter.name);
        say(message, &jitter, "set `max_requests`, or leave it out", None);
    }
    if let Some(key) = subject.said("keyfile")
        && !subject.is_filled("certfile")
    {
        let message = format!("{} without `certfile`: a key needs its certificate", key.name);
        say(message, &key, "set `certfile` too", None);
    }
    if let Some(sendfile) = subject.setting("sendfile")
        && sendfile.value == Value::Bool(true)
    {
        let said = Said { span: sendfile.span, name: String::new() };
        let message = "`gunicorn.sendfile` turns sendfile off, also as true".to_owned();
        say(message, &said, "leave it out to have it on, or write false", None);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_table_has_as_gone_is_found() {
        for removed in
            crate::model::settings::GUNICORN.removed.iter().filter_map(|removed| removed.value.as_deref())
        {
            assert!(["eventlet", "gaiohttp", "h3"].contains(&removed), "{removed}");
        }
    }
}
