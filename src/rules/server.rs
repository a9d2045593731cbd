//! The server, its settings and its command.

use serde_json::Value as Json;

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::pillar::{Node, Value};
use crate::rule;
use crate::source::Span;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    options(subject, found);
    if subject.service.server == Server::Gunicorn {
        worker_class(subject, found);
        removed_values(subject, found);
        contradictions(subject, found);
    }
}

/// The class of gunicorn's workers: its default is `sync`, which `threads` makes `gthread`.
pub(super) fn class_of(subject: &Subject<'_>) -> String {
    let settings = &subject.service.settings;
    let class = settings.get("worker_class").and_then(Json::as_str).unwrap_or("sync");
    let threads = settings.get("threads").and_then(Json::as_u64).unwrap_or(1);
    // config.py, worker_class_str
    if (class == "sync" || class.ends_with("SyncWorker")) && threads > 1 {
        "gthread".to_owned()
    } else {
        class.to_owned()
    }
}

/// Worker classes of gunicorn 27 that need nothing but gunicorn (gunicorn/workers/__init__.py).
const BUILT_IN: &[&str] = &["sync", "gthread", "asgi"];

fn worker_class(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(node) = subject.setting("worker_class") else { return };
    let Value::Str(class) = &node.value else { return };
    let name = class.strip_prefix("egg:").unwrap_or(class);
    if let Some((gone, version, instead)) = [
        ("eventlet", "26.0.0", "gevent, gthread or tornado"),
        ("gaiohttp", "20.0", "asgi, or aiohttp's own worker class"),
    ]
    .into_iter()
    .find(|(gone, ..)| name.contains(gone))
    {
        let message = format!("gunicorn's worker class {gone} is gone since {version}");
        found.push(finding(&rule::REMOVED_VALUE, message).at(node.span, format!("write {instead}")));
        return;
    }
    let package = match name {
        _ if BUILT_IN.contains(&name) || name.starts_with("gunicorn.workers.s") => return,
        "gunicorn.workers.gthread.ThreadWorker" | "gunicorn.workers.gasgi.ASGIWorker" => return,
        _ if name.contains("gevent") => "gevent",
        _ if name.contains("tornado") => "tornado",
        _ => name.split(['.', '#', ':']).next().unwrap_or(name),
    };
    found.push(
        finding(&rule::NEEDS_PACKAGE, format!("the worker class {name} needs the package {package}"))
            .at(node.span, "it must be in the application's virtualenv"),
    );
}

fn removed_values(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(node) = subject.setting("http_protocols") else { return };
    if let Value::Str(text) = &node.value
        && text.split(',').any(|protocol| protocol.trim() == "h3")
    {
        found.push(
            finding(&rule::REMOVED_VALUE, "gunicorn's protocol h3 is gone since 26.2.1")
                .at(node.span, "write h1, h2 or both"),
        );
    }
}

fn contradictions(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let settings = &subject.service.settings;
    let is_set = |name: &str| settings.get(name) == Some(&Json::Bool(true));
    let number = |name: &str| settings.get(name).and_then(Json::as_u64);
    if is_set("reload") && is_set("preload_app") {
        let by_default = subject.setting("preload_app").is_none();
        let said = if by_default { "`preload_app`, which is on by default," } else { "`preload_app`" };
        let mut contradiction = finding(
            &rule::CONTRADICTION,
            format!("`gunicorn.reload` cannot work with {said} because a preloaded application is not loaded again"),
        )
        .at(subject.place(&["gunicorn", "reload"]), "leave it out, or set `preload_app: false`");
        if !by_default {
            contradiction = contradiction.at(subject.place(&["gunicorn", "preload_app"]), "preloaded here");
        }
        found.push(contradiction);
    }
    let explicit_sync =
        subject.setting("worker_class").filter(|node| node.value == Value::Str("sync".to_owned()));
    if let (Some(class), Some(threads)) = (explicit_sync, subject.setting("threads"))
        && number("threads").is_some_and(|threads| threads > 1)
    {
        found.push(
            finding(&rule::CONTRADICTION, "with `threads` gunicorn uses gthread workers, not sync ones")
                .at(class.span, "write gthread, or leave `threads` out")
                .at(threads.span, "more than one thread"),
        );
    }
    let jitter = subject.setting("max_requests_jitter").filter(|_| number("max_requests_jitter") > Some(0));
    if let Some(jitter) = jitter
        && number("max_requests").unwrap_or(0) == 0
    {
        found.push(
            finding(
                &rule::CONTRADICTION,
                "`gunicorn.max_requests_jitter` varies `max_requests`, which is not set",
            )
            .at(jitter.span, "set `max_requests`, or leave it out"),
        );
    }
    if let Some(key) = subject.setting("keyfile")
        && subject.setting("certfile").is_none()
    {
        found.push(
            finding(
                &rule::CONTRADICTION,
                "`gunicorn.keyfile` without `certfile`: a key needs its certificate",
            )
            .at(key.span, "set `certfile` too"),
        );
    }
}

/// An option of the server's command line: its names, and what to do instead.
type Option = (&'static str, &'static [&'static str], &'static str);

/// Options whose settings the pillar owns or refuses; a test holds them against the table.
const GUNICORN_OPTIONS: &[Option] = &[
    ("config", &["-c", "--config"], "leave it out: the configuration file is rendered"),
    ("bind", &["-b", "--bind"], "write `bind`"),
    ("check_config", &["--check-config"], "leave it out: the server would end at once"),
    ("print_config", &["--print-config"], "leave it out: the server would end at once"),
    ("chdir", &["--chdir"], "leave it out: the server starts in ROOT/current"),
    (
        "daemon",
        &["-D", "--daemon"],
        "leave it out: runit supervises the server, which must stay in the foreground",
    ),
    ("raw_env", &["-e", "--env"], "write `environment`"),
    ("pidfile", &["-p", "--pid"], "leave it out, or write `layout.pids`"),
    ("user", &["-u", "--user"], "write `user`"),
    ("group", &["-g", "--group"], "write `group`"),
    ("umask", &["-m", "--umask"], "write `umask`"),
    ("initgroups", &["--initgroups"], "leave it out, or write `groups`"),
];

/// As `unicorn --help` (6.0) has them.
const UNICORN_OPTIONS: &[Option] = &[
    ("host", &["-o", "--host"], "write `bind`"),
    ("port", &["-p", "--port"], "write `bind`"),
    ("listen", &["-l", "--listen"], "write `bind`"),
    (
        "daemonize",
        &["-D", "--daemonize"],
        "leave it out: runit supervises the server, which must stay in the foreground",
    ),
    ("config-file", &["-c", "--config-file"], "leave it out: the configuration file is rendered"),
];

fn options(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let (known, name) = match subject.service.server {
        Server::Gunicorn => (GUNICORN_OPTIONS, "gunicorn"),
        Server::Unicorn => (UNICORN_OPTIONS, "unicorn"),
        Server::Any => return,
    };
    if let Some(command) = subject.given(&["unicorn_command"]) {
        let words: Vec<(&str, Span)> = match &command.value {
            Value::Str(line) => line.split_whitespace().map(|word| (word, command.span)).collect(),
            Value::List(items) => items.iter().filter_map(|item| Some((text(item)?, item.span))).collect(),
            _ => vec![],
        };
        // What stands before the server's own word is another program's.
        let start = words.iter().rposition(|(word, _)| {
            matches!(word.rsplit('/').next(), Some("gunicorn" | "unicorn" | "unicorn_rails"))
        });
        let words = start.map_or(&[][..], |start| &words[start + 1..]);
        each_option(words, known, |option, word, span| {
            let message = format!("`{word}` among the words of the command overrules what the pillar says");
            found.push(finding(&rule::COMMAND_OPTION, message).at(span, option.2));
        });
    }
    if name == "gunicorn"
        && let Some(node) = subject.given(&["environment", "GUNICORN_CMD_ARGS"])
        && let Some(line) = text(node)
    {
        let words: Vec<_> = line.split_whitespace().map(|word| (word, node.span)).collect();
        each_option(&words, known, |option, word, span| {
            let message = format!("`{word}` in GUNICORN_CMD_ARGS overrules what the pillar says");
            found.push(finding(&rule::COMMAND_OPTION, message).at(span, option.2));
        });
    }
}

fn text(node: &Node) -> std::option::Option<&str> {
    match &node.value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

fn each_option(words: &[(&str, Span)], known: &[Option], mut say: impl FnMut(&Option, &str, Span)) {
    for (word, span) in words.iter().take_while(|(word, _)| *word != "--") {
        let written = word.split_once('=').map_or(*word, |(name, _)| name);
        let is_meant = |name: &str| {
            // A short option may have its value at once: `-b127.0.0.1:80`.
            written == name || (name.len() == 2 && !word.starts_with("--") && word.starts_with(name))
        };
        if let Some((option, name)) =
            known.iter().find_map(|option| Some((option, *option.1.iter().find(|name| is_meant(name))?)))
        {
            say(option, name, *span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    /// Every option of gunicorn whose setting a pillar may not set is known here, and no other.
    #[test]
    fn the_options_are_those_of_the_table() {
        let table: Json = serde_json::from_str(include_str!("../../data/gunicorn-settings.json")).unwrap();
        let mut wanted = vec![];
        for setting in table["settings"].as_array().unwrap() {
            let names: Vec<_> =
                setting["cli"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            if setting["pillar"] != "allowed" && !names.is_empty() {
                wanted.push((setting["name"].as_str().unwrap().to_owned(), names.join(" ")));
            }
        }
        let known: Vec<_> =
            GUNICORN_OPTIONS.iter().map(|option| (option.0.to_owned(), option.1.join(" "))).collect();
        assert_eq!(known, wanted);
    }

    #[test]
    fn what_the_table_has_as_gone_is_found() {
        for removed in
            crate::model::settings::GUNICORN.removed.iter().filter_map(|removed| removed.value.as_deref())
        {
            assert!(["eventlet", "gaiohttp", "h3"].contains(&removed), "{removed}");
        }
    }
}
