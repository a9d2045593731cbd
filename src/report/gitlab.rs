//! Findings as a code quality report of GitLab: a list of what its documentation asks for.

use serde_json::{Value, json};

use super::{Findings, json_text};
use crate::diagnostic::Severity;

/// The report; an empty list if there are no findings.
pub fn gitlab(findings: &Findings<'_>) -> String {
    let issues = findings.iter().zip(findings.fingerprints()).map(|(finding, (hash, number))| {
        let place = findings.place_of(finding);
        // GitLab drops an issue without a path and a line.
        let (path, line) = place.map_or((".", 1), |place| (place.path(), place.start.line));
        let fingerprint = if number == 1 { hash } else { format!("{hash}-{number}") };
        json!({
            "description": findings.lines(finding).join("\n"),
            "check_name": finding.rule.name,
            "fingerprint": fingerprint,
            "severity": match finding.severity {
                Severity::Error => "major",
                Severity::Warning => "minor",
                Severity::Note => "info",
            },
            "location": {"path": path, "lines": {"begin": line}},
        })
    });
    json_text(&Value::Array(issues.collect()))
}
