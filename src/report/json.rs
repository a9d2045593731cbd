//! Findings as JSON: all that is known about them. docs/formats.md tells what each key means.

use serde_json::{Value, json};

use super::place::Place;
use super::{Findings, json_text};
use crate::diagnostic::{Diagnostic, Label, Severity};

/// Changes when a key changes its meaning or goes; new keys may come at any time.
const VERSION: u32 = 1;

/// All findings, and what was checked: so many `applications`, in every source.
pub fn json(findings: &Findings<'_>, applications: usize) -> String {
    let list: Vec<Value> = findings.iter().map(|finding| object(finding, findings)).collect();
    json_text(&json!({
        "version": VERSION,
        "tool": {"name": "runsmith", "version": env!("CARGO_PKG_VERSION")},
        "findings": list,
        "summary": {
            "errors": findings.count(Severity::Error),
            "warnings": findings.count(Severity::Warning),
            "notes": findings.count(Severity::Note),
            "applications": applications,
            "files": findings.sources.iter().len(),
        },
    }))
}

fn object(finding: &Diagnostic, findings: &Findings<'_>) -> Value {
    let labels: Vec<Value> = finding.labels.iter().map(|label| labelled(label, findings)).collect();
    json!({
        "rule": finding.rule.name,
        "severity": finding.severity.word(),
        "message": finding.message,
        "place": findings.place_of(finding).map(|place| placed(&place)),
        "labels": labels,
        "help": finding.help,
    })
}

fn labelled(label: &Label, findings: &Findings<'_>) -> Value {
    json!({
        "place": placed(&findings.place(label.span)),
        "text": label.text,
        "secret": label.hidden,
    })
}

fn placed(place: &Place<'_>) -> Value {
    json!({
        "path": place.name,
        "line": place.start.line,
        "column": place.start.column,
        "end_line": place.end.line,
        "end_column": place.end.column,
        "start_byte": place.bytes.start,
        "end_byte": place.bytes.end,
    })
}
