//! Findings as commands of a GitHub workflow, which shows them beside the lines of a pull request.
//! The escaping is that of GitHub's documentation ("Workflow commands for GitHub Actions") and of
//! its own toolkit: `%`, CR and LF everywhere, `:` and `,` in properties.

use super::Findings;
use crate::diagnostic::Severity;
use crate::visible::visible;

/// One line a finding; nothing at all if there are none.
pub fn github(findings: &Findings<'_>) -> String {
    let mut out = String::new();
    for finding in findings.iter() {
        let command = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let mut properties = vec![];
        if let Some(place) = findings.place_of(finding) {
            properties.push(("file", file(place.path())));
            properties.push(("line", place.start.line.to_string()));
            properties.push(("endLine", place.end.line.to_string()));
            // GitHub takes columns only for a place on one line.
            if place.start.line == place.end.line {
                properties.push(("col", place.start.column.to_string()));
                properties.push(("endColumn", place.end.column.to_string()));
            }
        }
        properties.push(("title", format!("runsmith {}", finding.rule.name)));
        let properties: Vec<_> =
            properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
        let message = data(&findings.lines(finding).join("\n"));
        out.push_str(&format!("::{command} {}::{message}\n", properties.join(",")));
    }
    out
}

/// A file's name without control characters, which a log would pass on to a terminal; GitHub has escapes of its own for the
/// ends of lines.
fn file(name: &str) -> String {
    let lines = name.split_inclusive(['\r', '\n']);
    let shown = lines.map(|line| {
        let text = line.trim_end_matches(['\r', '\n']);
        format!("{}{}", visible(text), &line[text.len()..])
    });
    shown.collect()
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
