//! Which keys a host's files had, told from their own lines: there is no pillar to ask.

use std::collections::HashSet;

use super::trace::push;
use super::{Cause, Origin, OriginKind};
use crate::diff::EntryDiff;
use crate::diff::hunks::{Hunk, Sign};
use crate::diff::script::{Script, keys_of_lines};
use crate::model::input::Server;
use crate::record::Site;
use crate::services::Known;
use crate::tree::{Entry, Kind};

/// The field of run scripts that holds the value of a key; nothing if neither has one for it alone.
pub(super) fn field<'a>(key: &'a str, old: &Script, new: &Script) -> Option<&'a str> {
    let key = match key {
        "unicorn_command" | "layout.config" => "command",
        // The script has its name, and a file the value.
        _ if key.starts_with("secrets.") => return None,
        _ => key,
    };
    let has = |name: &str| old.fields.contains_key(name) || new.fields.contains_key(name);
    let mut name = key;
    while !has(name) {
        name = name.rsplit_once('.')?.0;
    }
    Some(name)
}

/// Names the keys whose lines go, and of files that come or go the keys that say whether there are any.
pub(super) fn note(
    scripts: Option<&(Script, Script)>,
    moved: &[&'static str],
    from: &Site,
    is: &Known,
    entries: &mut [EntryDiff<'_>],
) {
    for found in entries {
        let path = found.path;
        let was_inside = path.strip_prefix(from.directory.as_str());
        let inside = was_inside.or_else(|| path.strip_prefix(is.service.service.directory.as_str()));
        if found.old.is_some() && found.new.is_none() && found.causes.is_empty() {
            let is_link = from.link.as_deref() == Some(path);
            let moves = |key: &&&str| match **key {
                "service.directory" => was_inside.is_some(),
                _ => is_link,
            };
            match moved.iter().find(moves) {
                Some(key) => gone(&mut found.causes, key),
                None => whole(inside, path, scripts).iter().for_each(|key| gone(&mut found.causes, key)),
            }
        }
        if found.secret {
            for hunk in found.hunks.iter_mut().filter(|hunk| hunk.causes.is_empty()) {
                hunk.causes.clone_from(&found.causes);
            }
            continue;
        }
        let (Some(old), Some(new)) = (text(found.old), text(found.new)) else { continue };
        let section = match is.service.server {
            Server::Gunicorn => "gunicorn",
            Server::Unicorn => "unicorn",
            Server::Any => "",
        };
        let configures =
            !section.is_empty() && path.ends_with(if section == "gunicorn" { ".py" } else { ".rb" });
        let read = |text: &str| match inside {
            Some("/run") => keys_of_lines(text),
            _ if configures => settings_of_lines(text, section),
            _ => vec![],
        };
        let (was, to_be) = (read(&old), read(&new));
        let kept: HashSet<&String> = match configures {
            // A default may stand where a setting stood.
            true => HashSet::new(),
            false => to_be.iter().flatten().collect(),
        };
        let settings = &is.service.settings;
        let set = |key: &str| {
            key.split_once('.').is_some_and(|(_, name)| configures && settings.contains_key(name))
        };
        let lines = |hunk: &Hunk<'_>, keys: &[Option<String>], sign| -> Vec<String> {
            hunk.changed(sign).iter().filter_map(|line| keys.get(*line)?.clone()).collect()
        };
        let removed = found.hunks.iter().flat_map(|hunk| lines(hunk, &was, Sign::Removed));
        let over: HashSet<String> = removed.filter(|key| !kept.contains(key) && !set(key)).collect();
        for hunk in &mut found.hunks {
            let touched = [lines(hunk, &was, Sign::Removed), lines(hunk, &to_be, Sign::Added)].concat();
            touched.iter().filter(|key| over.contains(*key)).for_each(|key| gone(&mut hunk.causes, key));
        }
    }
}

/// The keys that say whether there is such a file at all.
fn whole(inside: Option<&str>, path: &str, scripts: Option<&(Script, Script)>) -> Vec<String> {
    if let Some(name) = inside.and_then(|inside| inside.strip_prefix("/env/")) {
        return vec![format!("secrets.{name}")];
    }
    match inside {
        Some("/env") => return vec!["secrets".to_owned()],
        Some("/down") => return vec!["service.down".to_owned()],
        Some("/log" | "/log/run") => return vec!["log.kind".to_owned()],
        _ => {}
    }
    // Whatever places it, of what differs.
    let Some((old, new)) = scripts.filter(|(old, new)| old.native == new.native) else { return vec![] };
    let places = ["root", "layout.pids", "layout.sockets", "log.kind", "log.directory", "server", "command"];
    let differs = |field: &&str| {
        let (was, is) = (old.fields.get(*field), new.fields.get(*field));
        was != is
            && (was.is_none_or(|was| holds(was, path)) || matches!(*field, "log.kind" | "server" | "command"))
    };
    places
        .into_iter()
        .filter(differs)
        .map(|field| if field == "command" { "layout.config" } else { field }.to_owned())
        .collect()
}

/// Whether a field's text holds a path that is, or is above, this one.
fn holds(field: &str, path: &str) -> bool {
    let words = field.split(|c: char| c.is_whitespace() || "'\"".contains(c));
    words.filter(|word| word.starts_with('/')).any(|word| crate::steps::is_within(path, word))
}

/// The key of each line of a server's configuration: the setting it begins with.
fn settings_of_lines(text: &str, section: &str) -> Vec<Option<String>> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let key = |line: &str| {
        let (name, _) = line.split_once(if section == "gunicorn" { " = " } else { " " })?;
        (is_name(name) && !matches!(name, "import" | "def" | "if" | "end" | "class"))
            .then(|| format!("{section}.{name}"))
    };
    text.lines().map(key).collect()
}

fn text(entry: Option<&Entry>) -> Option<String> {
    match &entry?.kind {
        Kind::File(content) => Some(String::from_utf8_lossy(content).into_owned()),
        Kind::Directory | Kind::Link(_) => None,
    }
}

/// A key that a host's file had.
fn gone(causes: &mut Vec<Cause>, key: &str) {
    push(causes, key);
    let host = Origin { kind: OriginKind::Host, key: key.to_owned(), place: None, via: None };
    for cause in causes.iter_mut().filter(|cause| cause.key == key) {
        cause.old = Some(host.clone());
    }
}
