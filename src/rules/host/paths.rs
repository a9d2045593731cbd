//! The command, the run script's programs, the release, and whose directories are there.

use super::{finding, standing};
use crate::diagnostic::Diagnostic;
use crate::facts::{Asked, EntryKind, Facts, Reach, Walk};
use crate::model::input::{LogKind, RunScript};
use crate::rule;
use crate::rules::Subject;
use crate::source::Span;
use crate::visible::visible;

/// The shell run script needs `wait`, arrays and `read` as bash has them since.
const BASH: (u32, u32) = (4, 4);

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    command(subject, facts, found);
    run_script(subject, facts, found);
    release(subject, facts, found);
    owners(subject, facts, found);
}

/// Where the pillar says where the virtualenv is.
fn virtualenv_place(subject: &Subject<'_>) -> Span {
    let key = if subject.given(&["virtualenv"]).is_some() { "virtualenv" } else { "virtualenv_home" };
    subject.place(&[key])
}

fn command(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let (Some(reach), Some(command)) = (facts.reach.answer(), facts.command.answer()) else { return };
    let user = &service.user;
    let mut say = |message: String, span: Span, help: Option<String>| {
        let diagnostic = finding(&rule::HOST_COMMAND, message).at(span, "");
        found.push(match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    };
    if let Some(virtualenv) = &service.virtualenv {
        let bin = format!("{virtualenv}/bin");
        if let Some(message) = obstacle(reach, facts, user, "the virtualenv", &bin) {
            say(message, virtualenv_place(subject), None);
            return;
        }
    }
    let word = visible(service.command.first().map(String::as_str).unwrap_or_default());
    let place = if subject.given(&["unicorn_command"]).is_some() {
        subject.place(&["unicorn_command"])
    } else {
        virtualenv_place(subject)
    };
    let Some(file) = &command.file else {
        // The one that was most likely meant: what is there and cannot be executed.
        let near = command.candidates.iter().find_map(|path| match reach.walk(path) {
            Walk::There(access) if access.is_directory => Some(format!("{} is a directory", visible(path))),
            Walk::There(_) => {
                Some(format!("the user {user} cannot execute {}{}", visible(path), standing(facts, path)))
            }
            Walk::Barred(at) => Some(format!(
                "on the way to {} the user {user} cannot enter {}{}",
                visible(path),
                visible(&at),
                standing(facts, &at)
            )),
            Walk::Absent => None,
        });
        let message = match (near, command.candidates.as_slice()) {
            (Some(near), _) => format!("the command {word}: {near}"),
            (None, [path]) => format!("the command {} is not there", visible(path)),
            (None, _) => format!("there is no command {word} for the user {user}"),
        };
        let dirs: Vec<_> =
            command.candidates.iter().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
        let help = (dirs.len() > 1).then(|| format!("It was looked for in {}.", visible(&dirs.join(", "))));
        say(message, place, help);
        return;
    };
    if let Some(interpreter) = command.interpreter.first().filter(|word| word.starts_with('/'))
        && !reach.can_execute(interpreter)
    {
        let why = match reach.walk(interpreter) {
            Walk::There(_) => "cannot be executed by that user".to_owned(),
            Walk::Barred(at) => {
                format!("is behind {}{}, which that user cannot enter", visible(&at), standing(facts, &at))
            }
            Walk::Absent => "is not there".to_owned(),
        };
        let message =
            format!("the command {} is run by {}, which {why}", visible(file), visible(interpreter));
        let help = "A virtualenv keeps the path of its Python: make it anew where it is used.".to_owned();
        say(message, place, Some(help));
    }
}

/// What keeps the user from entering a directory.
fn obstacle(reach: &Reach, facts: &Facts, user: &str, what: &str, path: &str) -> Option<String> {
    let shown = visible(path);
    match reach.walk(path) {
        Walk::There(access) if access.is_directory && access.execute => None,
        Walk::There(access) if !access.is_directory => Some(format!("{what}: {shown} is not a directory")),
        Walk::There(_) => {
            Some(format!("{what}: the user {user} cannot enter {shown}{}", standing(facts, path)))
        }
        Walk::Barred(at) => Some(format!(
            "{what}: on the way to {shown} the user {user} cannot enter {}{}",
            visible(&at),
            standing(facts, &at)
        )),
        Walk::Absent => Some(format!("{what}: {shown} is not there")),
    }
}

fn run_script(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let runtime = visible(&service.service.runtime);
    let place = subject.place(&["service", "runtime"]);
    match &facts.runtime {
        Asked::Answer(None) => found.push(
            finding(
                &rule::HOST_RUN_SCRIPT,
                format!("the run script is executed by {runtime}, which is no program on this host"),
            )
            .at(place, "")
            .help("Install runsmith there, set `service.runtime`, or use `run_script: shell`."),
        ),
        Asked::Answer(Some(line)) if line.strip_prefix("runsmith ").is_none() => found.push(
            finding(
                &rule::HOST_RUN_SCRIPT,
                format!("the run script is executed by {runtime}, which is not runsmith"),
            )
            .at(place, "")
            .help(format!("It answers to --version: {:?}.", visible(line))),
        ),
        Asked::Answer(Some(_)) | Asked::Unknown(_) | Asked::Moot => {}
    }
    if let Asked::Answer((major, minor)) = facts.bash
        && (major, minor) < BASH
    {
        found.push(
            finding(
                &rule::HOST_RUN_SCRIPT,
                format!("the run script needs bash 4.4, and this host has {major}.{minor}"),
            )
            .at(subject.place(&["run_script"]), ""),
        );
    }
    if !facts.missing_programs.is_empty() {
        let steps: &[&str] =
            if service.run_script == RunScript::Shell { &["run_script"] } else { &["service"] };
        let message = format!("this host has no {}", facts.missing_programs.join(", "));
        found.push(
            finding(&rule::HOST_RUN_SCRIPT, message)
                .at(subject.place(steps), "")
                .help("Debian has them in runit, bash, coreutils, util-linux and libc-bin."),
        );
    }
}

fn release(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let current = service.current();
    let shown = visible(&current);
    let message = match facts.entries.get(&current).map(|entry| &entry.kind) {
        Some(EntryKind::Link(target, None)) => {
            Some(format!("{shown} leads to {}, which is not there", visible(target)))
        }
        Some(EntryKind::Link(_, Some(_)) | EntryKind::Directory) => facts
            .reach
            .answer()
            .and_then(|reach| obstacle(reach, facts, &service.user, "the release", &current)),
        Some(EntryKind::File | EntryKind::Socket | EntryKind::Other) => {
            Some(format!("{shown} is no link to a release"))
        }
        None => match facts.reach.answer() {
            // We may not see what the user sees.
            Some(reach) if reach.can_enter(&current) => None,
            Some(_) => Some(format!("there is no {shown}, the link to the release that serves")),
            None => Some(format!(
                "there is no {shown}, as far as can be seen, the link to the release that serves"
            )),
        },
    };
    if let Some(message) = message {
        let place = subject.place(&["root"]);
        found.push(
            finding(&rule::HOST_RELEASE, message)
                .at(place, "")
                .help("Deploy a release, and let `current` lead to it."),
        );
    }
}

fn owners(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let layout = &service.layout;
    let mut directories = vec![
        ("releases", &layout.releases.path, &layout.releases.user),
        ("pids", &layout.pids.path, &layout.pids.user),
        ("logs", &layout.logs.path, &layout.logs.user),
        ("sockets", &layout.sockets.path, &layout.sockets.user),
        ("config", &layout.config.path, &layout.config.user),
        ("", &service.root, &service.user),
    ];
    if service.log.kind == LogKind::Svlogd {
        directories.push(("log", &service.log.directory, &service.user));
    }
    for (key, path, owner) in directories {
        let Some(entry) = facts.entries.get(path) else { continue };
        let message = match &entry.kind {
            EntryKind::Directory if entry.owner == *owner || entry.owner == "root" => continue,
            EntryKind::Directory => {
                format!("{} belongs to {}, and not to {owner}", visible(path), visible(&entry.owner))
            }
            // Rendering follows those of root, and refuses others by name.
            EntryKind::Link(..) => continue,
            EntryKind::File | EntryKind::Socket | EntryKind::Other => {
                format!("{} is there and is no directory", visible(path))
            }
        };
        let given: &[&[&str]] = match key {
            "" => &[&["root"]],
            "log" => &[&["log", "directory"], &["layout", "logs"]],
            key => &[&["layout", key, "path"], &["layout", key]],
        };
        let place = given.iter().find_map(|steps| subject.given(steps)).map(|node| node.span);
        let place = place.unwrap_or_else(|| subject.place(&["root"]));
        found.push(
            finding(&rule::HOST_OWNER, message)
                .at(place, "")
                .help("Name another directory, or give that one to its new owner by hand."),
        );
    }
}
