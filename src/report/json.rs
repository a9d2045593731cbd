//! Findings as JSON: all that is known about them. docs/formats.md tells what each key means.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::Findings;
use super::place::Place;
use super::stream::{Each, write_json};
use crate::diagnostic::{Diagnostic, Label, Severity};

/// Changes when a key changes its meaning or goes; new keys may come at any time.
const VERSION: u32 = 1;

/// All findings, and what was checked: so many `applications`, in every source.
///
/// # Errors
/// Those of `out`.
pub fn json(findings: &Findings<'_>, applications: usize, out: &mut dyn Write) -> io::Result<()> {
    let report = Report {
        version: VERSION,
        tool: json!({"name": "runsmith", "version": env!("CARGO_PKG_VERSION")}),
        findings: Each(|| findings.iter().map(|finding| object(finding, findings))),
        summary: json!({
            "errors": findings.count(Severity::Error),
            "warnings": findings.count(Severity::Warning),
            "notes": findings.count(Severity::Note),
            "applications": applications,
            "files": findings.sources.iter().len(),
        }),
    };
    write_json(&report, out)
}

#[derive(Serialize)]
struct Report<L> {
    version: u32,
    tool: Value,
    findings: L,
    summary: Value,
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
