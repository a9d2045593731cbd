//! Findings as a JUnit report: one case a file, which fails if there is an error in it. Jenkins keeps
//! one failure of a case, so that all findings of a file are in one.

use std::collections::BTreeMap;

use super::{Findings, summary, text};
use crate::diagnostic::{Diagnostic, Severity};
use crate::visible::misleads;

/// The report, with a case for each source and one for findings without a place, if there are any.
pub fn junit(findings: &Findings<'_>) -> String {
    let mut cases: BTreeMap<Option<&str>, Vec<&Diagnostic>> =
        findings.sources.iter().map(|source| (Some(source.name()), vec![])).collect();
    for finding in findings.iter() {
        let name = finding.span().map(|span| findings.sources.get(span.source).name());
        cases.entry(name).or_default().push(finding);
    }
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let failures = cases.values().filter(|found| found.iter().any(is_error)).count();
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\"", cases.len());
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"runsmith validate\" {counts}>\n"
    );
    for (name, found) in &cases {
        let mut case = format!(
            "    <testcase classname=\"runsmith.validate\" name=\"{}\"",
            escaped(name.unwrap_or("(no place)"))
        );
        if let Some(name) = name {
            case.push_str(&format!(" file=\"{}\"", escaped(name)));
        }
        let first = found.iter().copied().find(|finding| is_error(finding)).or(found.first().copied());
        if let Some(place) = first.and_then(|finding| findings.place_of(finding)) {
            case.push_str(&format!(" line=\"{}\"", place.start.line));
        }
        out.push_str(&case);
        let Some(first) = first else {
            out.push_str("/>\n");
            continue;
        };
        let body = escaped_text(&text::some(findings, found));
        if is_error(&first) {
            let message = match found.as_slice() {
                [one] => findings.sentence(one),
                _ => summary(found.iter().copied()).unwrap_or_default(),
            };
            out.push_str(&format!(
                ">\n      <failure type=\"{}\" message=\"{}\">{body}</failure>\n    </testcase>\n",
                escaped(first.rule.name),
                escaped(&message)
            ));
        } else {
            out.push_str(&format!(">\n      <system-out>{body}</system-out>\n    </testcase>\n"));
        }
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// For an attribute: line ends and tabs too, which a parser would make blanks.
fn escaped(text: &str) -> String {
    escaped_text(text).replace('\t', "&#9;").replace('\n', "&#10;")
}

/// For text. What XML 1.0 forbids even as a reference is spelt out.
fn escaped_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.extend(c.escape_unicode()),
            // The same character to a parser, and no surprise to who looks at the file.
            c if misleads(c) => out.push_str(&format!("&#x{:x};", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_is_escaped() {
        assert_eq!(escaped("<a b=\"c\">&\t\n\r"), "&lt;a b=&quot;c&quot;&gt;&amp;&#9;&#10;&#13;");
        assert_eq!(escaped("a\u{202e}b"), "a&#x202e;b");
        assert_eq!(escaped_text("]]>\u{0}\u{1b}\u{fffe}漢\n"), "]]&gt;\\u{0}\\u{1b}\\u{fffe}漢\n");
    }
}
