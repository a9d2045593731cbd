//! Findings as a code quality report of GitLab: a list of what its documentation asks for.

use std::io::{self, Write};

use serde_json::json;

use super::Findings;
use super::stream::{Each, write_json};
use crate::diagnostic::{Diagnostic, Severity};

/// The report; an empty list if there are no findings.
///
/// # Errors
/// Those of `out`.
pub fn gitlab(findings: &Findings<'_>, out: &mut dyn Write) -> io::Result<()> {
    let fingerprints = findings.fingerprints();
    let issue = |(finding, (hash, number)): (&Diagnostic, &(String, usize))| {
        let place = findings.place_of(finding);
        // GitLab drops an issue without a path and a line.
        let (path, line) = place.map_or((".", 1), |place| (place.path(), place.start.line));
        let fingerprint = if *number == 1 { hash.clone() } else { format!("{hash}-{number}") };
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
    };
    write_json(&Each(|| findings.iter().zip(&fingerprints).map(issue)), out)
}
