//! What a change does: which files, which lines, what it means for a service that runs, and what in
//! the pillars caused it. Two trees and what is known of them in, a value for the reports out.

pub mod hunks;
pub mod impact;
pub mod provenance;
pub mod script;
pub mod words;

mod mask;
mod owner;

use std::collections::BTreeMap;

use crate::services::{Known, Services};
use crate::source::Sources;
use crate::steps::is_within;
use crate::template::Templates;
use crate::tree::{Entry, How, Kind, Seen, Tree};
use hunks::{CONTEXT, Hunk, Line, Sign, hunks};
use impact::{Effect, Effects, Impact, Role, effect};
use owner::Owners;
use provenance::{Cause, Tracer};
use script::{Script, Way, without_comments};

/// One side of a comparison.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What is there, or would be.
    pub tree: &'a Tree,
    /// What made it; `None` for what was read from a disk.
    pub host: Option<&'a Services>,
    /// What it was rendered with.
    pub templates: &'a Templates,
}

/// Everything that differs.
#[derive(Debug, Default)]
pub struct Diff<'a> {
    /// Services with a difference, by name; last, without a name, what belongs to none.
    pub services: Vec<ServiceDiff<'a>>,
}

/// What differs in one service.
#[derive(Debug)]
pub struct ServiceDiff<'a> {
    /// Its name; `None` for what belongs to no service that is known.
    pub name: Option<String>,
    /// Its key in the pillar, and where that stands: on the new side if it is there, else on the old.
    pub place: Option<(String, String)>,
    /// What the change does to it while it runs.
    pub impact: Impact,
    /// What differs, in the order of the paths.
    pub entries: Vec<EntryDiff<'a>>,
}

/// What differs at one path.
#[derive(Debug)]
pub struct EntryDiff<'a> {
    /// The path.
    pub path: &'a str,
    /// What was there.
    pub old: Option<&'a Entry>,
    /// What is to be there.
    pub new: Option<&'a Entry>,
    /// Every way to differ.
    pub ways: Vec<How>,
    /// Its content is a secret on either side, and its hunks show none of it.
    pub secret: bool,
    /// What changed in its content; of a file that comes or goes all of it.
    pub hunks: Vec<Hunk>,
    /// What in the pillars caused that it comes, goes, or has another mode, owner or target.
    pub causes: Vec<Cause>,
}

impl EntryDiff<'_> {
    /// Does the content differ, or come or go?
    pub fn touches_content(&self) -> bool {
        let file = |entry: Option<&Entry>| entry.is_some_and(|entry| matches!(entry.kind, Kind::File(_)));
        let whole = |how: &How| matches!(how, How::Created(_) | How::Removed(_) | How::Kind { .. });
        self.ways
            .iter()
            .any(|how| matches!(how, How::Content) || whole(how) && (file(self.old) || file(self.new)))
    }
}

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Compare owners and groups; who is not root cannot set them.
    pub owners: bool,
    /// Show the content of secret files.
    pub show_secrets: bool,
    /// Work out what in the pillars caused each hunk.
    pub causes: bool,
    /// Paths of which nobody knows what is there and below: they are left out.
    pub unknown: &'a [String],
}

impl Options<'_> {
    fn is_unknown(&self, path: &str) -> bool {
        self.unknown.iter().any(|unknown| is_within(path, unknown))
    }
}

/// Compares two sides; `sources` are those that the places of both point into.
///
/// # Errors
/// A template that fails while causes are looked for, though it did not before.
pub fn diff<'a>(
    old: Side<'a>,
    new: Side<'a>,
    sources: &Sources,
    options: Options<'_>,
) -> Result<Diff<'a>, crate::failure::Failure> {
    let owners = Owners::of(old, new);
    let mut found: BTreeMap<Option<String>, Vec<EntryDiff<'a>>> = BTreeMap::new();
    for (was, is) in differing(old.tree, new.tree, options.owners) {
        let path = was.or(is).map(|(_, entry)| entry.path.as_str()).unwrap_or_default();
        if options.is_unknown(path) {
            continue;
        }
        let name = owners.of_entry(was.map(|(at, _)| at), is.map(|(at, _)| at), path);
        let (was, is) = (was.map(|(_, entry)| entry), is.map(|(_, entry)| entry));
        found.entry(name).or_default().push(entry_diff(path, was, is, options));
    }
    // What belongs to no service comes last.
    let unowned = found.remove(&None);
    let mut services = vec![];
    for (name, entries) in found.into_iter().chain(unowned.map(|entries| (None, entries))) {
        let (was, is) = (known(old, name.as_deref()), known(new, name.as_deref()));
        let place = is.or(was).map(|known| (known.key.clone(), sources.place(known.span)));
        let impact = match &name {
            Some(_) => impact_of(&entries, old.tree, is.or(was), &owners.directories(name.as_deref())),
            None => Effects::default().impact("", 0),
        };
        let mut service = ServiceDiff { name, place, impact, entries };
        if options.causes {
            Tracer { old, new, was, is, sources }.trace(&mut service.entries)?;
        }
        if !options.show_secrets {
            mask::mask(&mut service.entries, was, is);
        }
        services.push(service);
    }
    Ok(Diff { services })
}

fn known<'a>(side: Side<'a>, name: Option<&str>) -> Option<&'a Known> {
    let (host, name) = (side.host?, name?);
    // A host of 10,000 services is asked for each that differs: those are in the order of their names, mostly.
    let services = &host.known;
    let guess = services.partition_point(|known| known.service.application.as_str() < name);
    let is = |known: &&Known| known.service.application == name;
    services.get(guess).filter(is).or_else(|| services.iter().find(is))
}

/// An entry and its index in its tree.
type Indexed<'a> = Option<(usize, &'a Entry)>;

/// Pairs of entries that differ; one is missing where something comes or goes.
fn differing<'a>(old: &'a Tree, new: &'a Tree, owners: bool) -> Vec<(Indexed<'a>, Indexed<'a>)> {
    let mut pairs = vec![];
    let mut have = old.entries().iter().enumerate().peekable();
    for (at, want) in new.entries().iter().enumerate() {
        while let Some(gone) = have.next_if(|(_, old)| old.path < want.path) {
            pairs.push((Some(gone), None));
        }
        match have.next_if(|(_, old)| old.path == want.path) {
            Some(same) if ways(same.1, want, owners).is_empty() => {}
            other => pairs.push((other, Some((at, want)))),
        }
    }
    pairs.extend(have.map(|gone| (Some(gone), None)));
    pairs
}

fn ways(old: &Entry, new: &Entry, owners: bool) -> Vec<How> {
    let mut seen = Seen::from(old);
    if !owners {
        seen.owner = None;
    }
    seen.differs_from(new)
}

fn entry_diff<'a>(
    path: &'a str,
    old: Option<&'a Entry>,
    new: Option<&'a Entry>,
    options: Options<'_>,
) -> EntryDiff<'a> {
    let ways = match (old, new) {
        (Some(old), Some(new)) => ways(old, new, options.owners),
        (None, Some(new)) => vec![How::Created(new.kind.word())],
        (Some(old), None) => vec![How::Removed(old.kind.word())],
        (None, None) => vec![],
    };
    let secret = [old, new].into_iter().flatten().any(|entry| entry.secret);
    let mut found = EntryDiff { path, old, new, ways, secret, hunks: vec![], causes: vec![] };
    if !found.touches_content() {
        return found;
    }
    let bytes = |entry: Option<&'a Entry>| match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => bytes.as_slice(),
        _ => &[],
    };
    let (was, is) = (bytes(old), bytes(new));
    found.hunks = if secret && !options.show_secrets { masked(was, is) } else { hunks(was, is, CONTEXT) };
    found
}

/// What stands instead of a secret, whatever its length.
pub const MASK: &str = "********";

/// A hunk that says that a secret changed and nothing of it.
fn masked(old: &[u8], new: &[u8]) -> Vec<Hunk> {
    let line = |sign| Line { sign, text: MASK.as_bytes().to_vec(), newline: true };
    let mut lines = vec![];
    if !old.is_empty() {
        lines.push(line(Sign::Removed));
    }
    if !new.is_empty() {
        lines.push(line(Sign::Added));
    }
    let count = |bytes: &[u8]| usize::from(!bytes.is_empty());
    let (old_lines, new_lines) = (count(old), count(new));
    vec![Hunk { old_start: 0, old_lines, new_start: 0, new_lines, lines, causes: vec![] }]
}

/// What the differences of one service do to it.
fn impact_of(entries: &[EntryDiff<'_>], old: &Tree, known: Option<&Known>, directories: &[String]) -> Impact {
    let mut effects = Effects::default();
    let find = |name: &str| {
        let is = |entry: &&EntryDiff<'_>| {
            directories.iter().any(|directory| entry.path.strip_prefix(directory.as_str()) == Some(name))
        };
        entries.iter().find(is)
    };
    let text = |entry: Option<&Entry>| match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    let run = find("/run");
    let was = run.map(|run| text(run.old).map(|text| Script::read(&text)));
    let is = run.map(|run| text(run.new).map(|text| Script::read(&text)));
    // The script that hands over: the one on disk; without a change to it, the one that stays.
    let stays = || {
        let path = directories.iter().find_map(|directory| old.get(&format!("{directory}/run")));
        text(path).map(|text| Script::read(&text).way())
    };
    let way = match (&was, &is) {
        (Some(Some(script)), _) | (_, Some(Some(script))) => script.way(),
        _ => stays().unwrap_or(Way::Sockets),
    };
    let link = entries.iter().find(|entry| {
        let links = |entry: Option<&Entry>| {
            matches!(entry.map(|entry| &entry.kind), Some(Kind::Link(target)) if directories.contains(target))
        };
        links(entry.old) || links(entry.new)
    });
    let enabled = |entry: Option<&Entry>| entry.is_some_and(|entry| matches!(entry.kind, Kind::Link(_)));
    match (&was, &is) {
        (Some(None), Some(Some(_))) if !moved(entries) => {
            let linked = link.is_some_and(|link| enabled(link.new));
            effects.push(Effect::Add, if linked { "runsvdir starts it" } else { "it is not enabled" });
        }
        (Some(Some(_)), Some(None)) if !moved(entries) => effects.push(Effect::Remove, ""),
        (Some(was), Some(is)) => {
            if moved(entries) {
                let (effect, why) = effect(Role::Run, "service.directory", way);
                effects.push(effect, why);
            }
            if let (Some(was), Some(is)) = (was, is) {
                effects.run(was, is);
            }
        }
        _ => {}
    }
    if let Some(link) = link {
        match (enabled(link.old), enabled(link.new)) {
            (false, true) => effects.push(Effect::Enable, "runsvdir starts it"),
            (true, false) => effects.push(Effect::Disable, "runsvdir stops it"),
            _ => {
                let (effect, why) = effect(Role::Link, "target", way);
                effects.push(effect, why);
            }
        }
    }
    for entry in entries.iter().filter(|entry| entry.touches_content()) {
        // What moved with its directory did not come or go.
        if !moved(entries) || !entry.path.ends_with("/log/run") {
            one(entry, way, directories, &mut effects);
        }
    }
    let place = known.map(|known| &known.service.service);
    let directory = place.map(|place| place.directory.as_str()).or(directories.first().map(String::as_str));
    // runsv runs where the service was.
    let was = entries.iter().find(|entry| entry.new.is_none() && entry.path.ends_with("/run"));
    let was = was
        .filter(|_| moved(entries))
        .and_then(|entry| entry.path.strip_suffix("/log/run").or(entry.path.strip_suffix("/run")));
    let directory = was.or(directory);
    let seconds = place.map_or(DEFAULT_WAIT, |place| place.timeout.whole_seconds());
    effects.impact(directory.unwrap_or_default(), seconds)
}

/// Seconds that `sv` waits where no pillar says it: the default of `service.timeout`.
const DEFAULT_WAIT: u64 = 100;

/// Does a run script go at one path and come at another?
fn moved(entries: &[EntryDiff<'_>]) -> bool {
    let runs = |with: fn(&EntryDiff<'_>) -> bool| {
        entries
            .iter()
            .any(|entry| entry.path.ends_with("/run") && !entry.path.ends_with("/log/run") && with(entry))
    };
    runs(|entry| entry.old.is_none()) && runs(|entry| entry.new.is_none())
}

/// The effect of one file, the run script excepted.
fn one(entry: &EntryDiff<'_>, way: Way, directories: &[String], effects: &mut Effects) {
    let inside = directories.iter().find_map(|directory| entry.path.strip_prefix(directory.as_str()));
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
    if role == Role::ServerConfig {
        let (was, is) = (text(entry.old), text(entry.new));
        for field in settings(&was, &is) {
            let (effect, why) = effect(role, &field, way);
            effects.push(effect, format!("`{base}` changes: {why}"));
        }
        return;
    }
    // svlogd reads its first lines as comments, too.
    if !whole && role != Role::Variable && text(entry.old) == text(entry.new) {
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
