//! For programs: docs/formats.md tells what each key is.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::Summary;
use crate::diff::hunks::{Hunk, Line};
use crate::diff::provenance::{Cause, Origin};
use crate::diff::{Diff, EntryDiff, ServiceDiff};
use crate::model::input::RunScript;
use crate::report::stream::{Each, write_json};
use crate::services::Known;
use crate::tree::{Entry, Kind};

/// Everything, the services that are wanted, what could not be read, and what could not be done.
pub fn json(
    diff: &Diff<'_>,
    wanted: &[Known],
    unreadable: &[String],
    refused: &[String],
    out: &mut dyn Write,
) -> io::Result<()> {
    let summary = Summary::of(diff);
    let report = Report {
        version: 1,
        tool: json!({"name": "runsmith", "version": env!("CARGO_PKG_VERSION")}),
        services: Each(|| diff.services.iter().map(service)),
        wanted: Each(|| wanted.iter().map(place)),
        unreadable,
        refused,
        summary: json!({
            "services": summary.services,
            "added": summary.added,
            "removed": summary.removed,
            "changed": summary.changed,
            "lines_added": summary.lines_added,
            "lines_removed": summary.lines_removed,
        }),
    };
    write_json(&report, out)
}

/// Written as it is made: the lines of a large diff are not in memory once more.
#[derive(Serialize)]
struct Report<'a, S, W> {
    version: u32,
    tool: Value,
    services: S,
    wanted: W,
    unreadable: &'a [String],
    refused: &'a [String],
    summary: Value,
}

/// Where a service is on the host, and how it is started: for programs that act on it.
fn place(known: &Known) -> Value {
    let service = &known.service;
    let run_script = match service.run_script {
        RunScript::Native => "native",
        RunScript::Shell => "shell",
    };
    json!({
        "name": service.application,
        "key": known.key,
        "directory": service.service.directory,
        "link": service.service.link,
        "root": service.root,
        "enabled": service.service.enabled,
        "down": service.service.down,
        "timeout": service.service.timeout.whole_seconds(),
        "run_script": run_script,
        "runtime": service.service.runtime,
    })
}

/// A service; its fields in the order of their documentation.
#[derive(Serialize)]
struct Service<'a, E> {
    name: &'a Option<String>,
    key: Option<&'a String>,
    place: Option<&'a String>,
    impact: Value,
    entries: E,
}

fn service<'a>(service: &'a ServiceDiff<'_>) -> impl Serialize + 'a {
    let (key, place) = service.place.as_ref().map_or((None, None), |(key, place)| (Some(key), Some(place)));
    Service {
        name: &service.name,
        key,
        place,
        impact: json!({
            "effect": service.impact.effect.name(),
            "reasons": service.impact.reasons,
            "commands": service.impact.commands,
        }),
        entries: Each(|| service.entries.iter().map(entry)),
    }
}

#[derive(Serialize)]
struct Path<'a, H> {
    path: &'a str,
    change: &'static str,
    secret: bool,
    foreign: bool,
    content: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unshown: Option<Value>,
    old: Option<Value>,
    new: Option<Value>,
    causes: Vec<Value>,
    hunks: H,
}

fn entry<'a>(entry: &'a EntryDiff<'_>) -> impl Serialize + 'a {
    let change = match (entry.old, entry.new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    Path {
        path: entry.path,
        change,
        secret: entry.secret,
        foreign: entry.foreign,
        content: entry.touches_content(),
        unshown: entry.unshown.map(|unshown| {
            json!({
                "why": unshown.why.name(),
                "lines_added": unshown.added,
                "lines_removed": unshown.removed,
            })
        }),
        old: entry.old.map(state),
        new: entry.new.map(state),
        causes: causes(&entry.causes),
        hunks: Each(|| entry.hunks.iter().map(hunk)),
    }
}

fn state(entry: &Entry) -> Value {
    let target = match &entry.kind {
        Kind::Link(target) => Some(target),
        Kind::File(_) | Kind::Directory => None,
    };
    json!({
        "kind": entry.kind.word(),
        "mode": format!("{:04o}", entry.mode),
        "owner": &*entry.owner,
        "group": &*entry.group,
        "target": target,
    })
}

#[derive(Serialize)]
struct Lines<L> {
    old_start: usize,
    old_lines: usize,
    new_start: usize,
    new_lines: usize,
    causes: Vec<Value>,
    lines: L,
}

fn hunk<'a>(hunk: &'a Hunk<'_>) -> impl Serialize + 'a {
    Lines {
        old_start: hunk.old_start + 1,
        old_lines: hunk.old_lines,
        new_start: hunk.new_start + 1,
        new_lines: hunk.new_lines,
        causes: causes(&hunk.causes),
        lines: Each(|| hunk.lines.iter().map(OneLine)),
    }
}

struct OneLine<'a>(&'a Line<'a>);

impl Serialize for OneLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            sign: char,
            text: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            newline: Option<bool>,
        }
        let text = String::from_utf8_lossy(&self.0.text);
        let newline = (!self.0.newline).then_some(false);
        Shown { sign: self.0.sign.character(), text: &text, newline }.serialize(serializer)
    }
}

fn causes(causes: &[Cause]) -> Vec<Value> {
    let side = |origin: &Option<Origin>| {
        origin.as_ref().map(|origin| {
            json!({"kind": origin.kind.name(), "key": origin.key, "place": origin.place, "via": origin.via})
        })
    };
    causes
        .iter()
        .map(|cause| json!({"key": cause.key, "old": side(&cause.old), "new": side(&cause.new)}))
        .collect()
}
