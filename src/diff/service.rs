//! What the differences of one service do to it while it runs.

use super::EntryDiff;
use super::hunks::MOST_SHOWN;
use super::impact::{Effect, Effects, Impact, Role, effect};
use super::script::{Script, Way, without_comments};
use crate::record::{Site, led_to};
use crate::services::Known;
use crate::tree::{Entry, Kind, Tree};

/// Where a service of a pillar lies once it is applied.
pub(super) fn site(known: &Known) -> Site {
    let place = &known.service.service;
    Site {
        service: known.service.application.clone(),
        directory: place.directory.clone(),
        link: place.enabled.then(|| place.link.clone()),
        wait: place.timeout.whole_seconds(),
        paths: vec![],
    }
}

/// Where the service lies that is to become `known`, as far as a tree without a record tells: there, or
/// where the link leads that is to lead there; nowhere if it is new.
pub(super) fn found(old: &Tree, known: &Known) -> Option<Site> {
    let to_be = Site { link: Some(known.service.service.link.clone()), ..site(known) };
    let link = to_be.link.as_deref().unwrap_or_default();
    let leads = old.get(link).and_then(|entry| match &entry.kind {
        Kind::Link(target) => Some(led_to(link, target)),
        Kind::File(_) | Kind::Directory => None,
    });
    match leads {
        Some(directory) if directory != to_be.directory => Some(Site { directory, ..to_be }),
        leads if is_there(old, &to_be.directory) => Some(Site { link: leads.and(to_be.link), ..to_be }),
        _ => None,
    }
}

/// Seconds that `sv` waits where nobody says it: the default of `service.timeout`.
const DEFAULT_WAIT: u64 = 100;

/// Where a service lies of which nothing but its files is known, and which is to go.
pub(super) fn gone(old: &Tree, name: &str, directory: String) -> Site {
    let leads =
        |entry: &&Entry| matches!(&entry.kind, Kind::Link(to) if led_to(&entry.path, to) == directory);
    let link = old.entries().iter().find(leads).map(|entry| entry.path.clone());
    Site { service: name.to_owned(), directory, link, wait: DEFAULT_WAIT, paths: vec![] }
}

/// Whether a tree has the run script of a service directory.
pub(super) fn is_there(tree: &Tree, directory: &str) -> bool {
    tree.get(&format!("{directory}/run")).is_some()
}

/// What the differences of one service do to it: where it was and where it is to be, if it was or is.
pub(super) fn impact(entries: &[EntryDiff<'_>], old: &Tree, was: Option<&Site>, is: Option<&Site>) -> Impact {
    let mut effects = Effects::default();
    let stands = match (was, is) {
        (None, None) => return effects.impact("", 0),
        (None, Some(is)) => {
            effects.push(
                Effect::Add,
                if is.link.is_some() { "runsvdir starts it" } else { "it is not enabled" },
            );
            is
        }
        (Some(was), None) => {
            effects.push(Effect::Remove, "");
            was
        }
        (Some(was), Some(is)) => match (&was.link, &is.link) {
            (None, None) => {
                let reasons = vec!["it is not enabled, before or after".to_owned()];
                return Impact { effect: Effect::Nothing, reasons, commands: vec![] };
            }
            (None, Some(_)) => {
                effects.push(Effect::Enable, "runsvdir starts it");
                is
            }
            (Some(_), None) => {
                effects.push(Effect::Disable, "runsvdir stops it");
                was
            }
            (Some(from), Some(to)) if was.directory != is.directory || from != to => {
                let mut moves = |role, field, key, from: &str, to: &str| {
                    // Where it moves to, every file of it is new.
                    let (effect, why) = effect(role, field, Way::Sockets);
                    if from != to {
                        effects.push(effect, format!("`{key}` moves from {from} to {to}: {why}"));
                    }
                };
                moves(Role::Run, "service.directory", "service.directory", &was.directory, &is.directory);
                moves(Role::Link, "path", "service.link", from, to);
                was
            }
            (Some(_), Some(_)) => {
                files(entries, old, &is.directory, &mut effects);
                is
            }
        },
    };
    let mut impact = effects.impact(&stands.directory, stands.wait);
    if was.is_none_or(|was| was.link.is_none()) {
        // Nothing runs.
        impact.commands.clear();
    }
    impact
}

/// As much of a run script as is looked into. Those of services are shorter; a value may make one as long as one likes.
pub(super) fn beginning(script: &[u8]) -> &[u8] {
    /// In bytes, as of a service's files of which the causes are looked for.
    const MOST_BYTES: usize = 32 << 20;
    let script = script.get(..MOST_BYTES).unwrap_or(script);
    let end = script.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(MOST_SHOWN);
    end.and_then(|(at, _)| script.get(..at)).unwrap_or(script)
}

/// The effects of the files of a service that stays where it is.
fn files(entries: &[EntryDiff<'_>], old: &Tree, directory: &str, effects: &mut Effects) {
    let path = format!("{directory}/run");
    let read = |entry: Option<&Entry>| match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => Some(Script::read(&String::from_utf8_lossy(beginning(bytes)))),
        _ => None,
    };
    let was = read(old.get(&path));
    let run = entries.iter().find(|entry| entry.path == path);
    let is = run.and_then(|run| read(run.new));
    // The script that hands over is the one on disk.
    let script = was.as_ref().or(is.as_ref());
    let way = script.map_or(Way::Sockets, Script::way);
    effects.native = script.is_some_and(|script| script.native);
    match (&was, &is) {
        // Too long, or not to be shown.
        (Some(_), Some(_)) if run.is_some_and(|run| run.unshown.is_some()) => {
            effects.push(
                Effect::Restart,
                "`run` changes and is not looked into: any of its values may be another one",
            );
        }
        (Some(was), Some(is)) => effects.run(was, is),
        _ => {}
    }
    for entry in entries.iter().filter(|entry| entry.touches_content()) {
        one(entry, way, directory, effects);
    }
}

/// The effect of one file, the run script excepted.
fn one(entry: &EntryDiff<'_>, way: Way, directory: &str, effects: &mut Effects) {
    let inside = entry.path.strip_prefix(directory).filter(|inside| inside.starts_with('/'));
    let base = entry.path.rsplit('/').next().unwrap_or_default();
    let whole = entry.old.is_none() || entry.new.is_none();
    let text = |entry: Option<&Entry>| match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => without_comments(&String::from_utf8_lossy(bytes)),
        _ => String::new(),
    };
    let role = match inside {
        Some("/run") => return,
        Some("/finish") => Role::Finish,
        Some("/check") => Role::Check,
        Some("/down") => Role::Down,
        Some("/log/run") => Role::LogRun,
        Some(path) if path.starts_with("/env/") => Role::Variable,
        _ if base == "config" => Role::LogConfig,
        _ if matches!(base, "gunicorn.py" | "unicorn.rb") => Role::ServerConfig,
        _ => Role::Other,
    };
    if role == Role::ServerConfig && entry.unshown.is_none() {
        let (was, is) = (text(entry.old), text(entry.new));
        for field in settings(&was, &is) {
            let (effect, why) = effect(role, &field, way);
            effects.push(effect, format!("`{base}` changes: {why}"));
        }
        return;
    }
    // svlogd reads its first lines as comments, too.
    if !whole && entry.unshown.is_none() && role != Role::Variable && text(entry.old) == text(entry.new) {
        return;
    }
    let (effect, why) = effect(role, if whole && role == Role::LogRun { "exists" } else { "" }, way);
    let name = inside.map_or(base, |path| path.trim_start_matches('/'));
    let verb = match (entry.old, entry.new) {
        (None, _) => "is added",
        (_, None) => "is removed",
        _ => "changes",
    };
    // A log service's new directory says nothing to the one that runs.
    if role != Role::LogConfig || !whole {
        effects.push(effect, format!("`{name}` {verb}: {why}"));
    }
}

/// Names that begin the lines which only one of two configurations has.
fn settings(old: &str, new: &str) -> Vec<String> {
    let name = |line: &str| line.split([' ', '=']).next().unwrap_or_default().to_owned();
    let only = |one: &str, other: &str| -> Vec<String> {
        let other: std::collections::HashSet<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(name).collect()
    };
    let mut names = only(old, new);
    names.extend(only(new, old));
    names.sort();
    names.dedup();
    names
}
