//! For programs: docs/formats.md tells what each key is.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Summary;
use crate::diff::hunks::Hunk;
use crate::diff::provenance::{Cause, Origin};
use crate::diff::{Diff, EntryDiff, ServiceDiff};
use crate::model::input::RunScript;
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
    let services: Vec<Value> = diff.services.iter().map(service).collect();
    let summary = Summary::of(diff);
    let value = json!({
        "version": 1,
        "tool": {"name": "runsmith", "version": env!("CARGO_PKG_VERSION")},
        "services": services,
        "wanted": wanted.iter().map(place).collect::<Vec<_>>(),
        "unreadable": unreadable,
        "refused": refused,
        "summary": {
            "services": summary.services,
            "added": summary.added,
            "removed": summary.removed,
            "changed": summary.changed,
            "lines_added": summary.lines_added,
            "lines_removed": summary.lines_removed,
        },
    });
    out.write_all(crate::report::stream::json_text(&value).as_bytes())
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

fn service(service: &ServiceDiff<'_>) -> Value {
    let entries: Vec<Value> = service.entries.iter().map(entry).collect();
    let (key, place) = service.place.as_ref().map_or((None, None), |(key, place)| (Some(key), Some(place)));
    json!({
        "name": service.name,
        "key": key,
        "place": place,
        "impact": {
            "effect": service.impact.effect.name(),
            "reasons": service.impact.reasons,
            "commands": service.impact.commands,
        },
        "entries": entries,
    })
}

fn entry(entry: &EntryDiff<'_>) -> Value {
    let change = match (entry.old, entry.new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let hunks: Vec<Value> = entry.hunks.iter().map(hunk).collect();
    json!({
        "path": entry.path,
        "change": change,
        "secret": entry.secret,
        "foreign": entry.foreign,
        "content": entry.touches_content(),
        "old": entry.old.map(state),
        "new": entry.new.map(state),
        "causes": causes(&entry.causes),
        "hunks": hunks,
    })
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

fn hunk(hunk: &Hunk) -> Value {
    let lines: Vec<Value> = hunk
        .lines
        .iter()
        .map(|line| {
            let text = String::from_utf8_lossy(&line.text);
            let mut value = json!({"sign": line.sign.character(), "text": text});
            if !line.newline {
                value["newline"] = Value::from(false);
            }
            value
        })
        .collect();
    json!({
        "old_start": hunk.old_start + 1,
        "old_lines": hunk.old_lines,
        "new_start": hunk.new_start + 1,
        "new_lines": hunk.new_lines,
        "causes": causes(&hunk.causes),
        "lines": lines,
    })
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
