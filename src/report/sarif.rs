//! Findings as SARIF 2.1.0 (OASIS), with what GitHub's code scanning reads of it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::Findings;
use super::place::Place;
use super::rules::with;
use super::stream::{Each, write_json};
use crate::diagnostic::Diagnostic;
use crate::rule::Rule;
use crate::visible::visible;

/// The log of one run.
///
/// # Errors
/// Those of `out`.
pub fn sarif(findings: &Findings<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut rules: Vec<&Rule> = findings.iter().map(|finding| finding.rule).collect();
    rules.sort_unstable_by_key(|rule| rule.name);
    rules.dedup();
    let fingerprints = findings.fingerprints();
    let with_hash = |(finding, (hash, number)): (&Diagnostic, &(String, usize))| {
        let mut result = result(finding, findings, &rules);
        // The name and the form of GitHub's own fingerprint.
        result["partialFingerprints"] = json!({"primaryLocationLineHash": format!("{hash}:{number}")});
        result
    };
    let log = Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: json!({"driver": {
                "name": "runsmith",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().copied().map(rule).collect::<Vec<_>>(),
            }}),
            column_kind: "unicodeCodePoints",
            newline_sequences: ["\r\n", "\n", "\r"],
            results: Each(|| findings.iter().zip(&fingerprints).map(with_hash)),
        }],
    };
    write_json(&log, out)
}

#[derive(Serialize)]
struct Log<L> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<L>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<L> {
    tool: Value,
    column_kind: &'static str,
    newline_sequences: [&'static str; 3],
    results: L,
}

/// What GitHub shows beside a finding: the rule's texts, and its page.
fn rule(rule: &Rule) -> Value {
    let mut text = vec![rule.what.to_owned(), rule.why.to_owned()];
    let mut markdown = text.clone();
    if let Some(example) = &rule.example {
        for (word, shown) in [("Wrong", example.wrong), ("Right", example.right)] {
            text.push(format!("{word}{}:\n{shown}", with(example.arguments, "")));
            let with = with(example.arguments, "`");
            markdown.push(format!("{word}{with}:\n\n```{}\n{shown}```", example.format));
        }
    }
    json!({
        "id": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": format!("{} {}", rule.what, rule.why)},
        "help": {"text": text.join("\n\n"), "markdown": markdown.join("\n\n")},
        "defaultConfiguration": {"level": rule.severity.word()},
        "properties": {"tags": [rule.family.name()]},
    })
}

fn result(finding: &Diagnostic, findings: &Findings<'_>, rules: &[&Rule]) -> Value {
    let mut text = vec![findings.sentence(finding)];
    text.extend(finding.help.iter().map(|help| format!("help: {}", visible(help))));
    let mut result = json!({
        "ruleId": finding.rule.name,
        "ruleIndex": rules.binary_search_by_key(&finding.rule.name, |rule| rule.name).unwrap_or(0),
        "level": finding.severity.word(),
        "message": {"text": text.join("\n")},
    });
    if let Some(place) = findings.place_of(finding) {
        result["locations"] = json!([{"physicalLocation": physical(&place)}]);
    }
    let related: Vec<Value> = finding
        .labels
        .iter()
        .enumerate()
        .skip(1)
        .map(|(id, label)| {
            let mut location = json!({"id": id, "physicalLocation": physical(&findings.place(label.span))});
            if !label.text.is_empty() {
                location["message"] = json!({"text": visible(&label.text)});
            }
            location
        })
        .collect();
    if !related.is_empty() {
        result["relatedLocations"] = related.into();
    }
    result
}

fn physical(place: &Place<'_>) -> Value {
    json!({
        "artifactLocation": {"uri": uri(place.path())},
        "region": {
            "startLine": place.start.line,
            "startColumn": place.start.column,
            "endLine": place.end.line,
            "endColumn": place.end.column,
        },
    })
}

/// A path as a URI reference (RFC 3986): relative if the path is, everything encoded but what is
/// unreserved; so a colon in the first name makes no scheme.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_become_references() {
        assert_eq!(uri("a b/ä%.sls"), "a%20b/%C3%A4%25.sls");
        assert_eq!(uri("c:d#e?f"), "c%3Ad%23e%3Ff");
        assert_eq!(uri("/srv/pillar/x.sls"), "file:///srv/pillar/x.sls");
        assert_eq!(uri("../x.sls"), "../x.sls");
    }
}
