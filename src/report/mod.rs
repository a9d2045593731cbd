//! Findings as people and programs want them: one file per format.

mod excerpt;
pub mod text;
pub mod tree;

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::source::Sources;

/// Findings in the order of file name, line and column, those without a place first; findings that
/// are the same in everything once.
pub fn in_order<'a>(diagnostics: &'a [Diagnostic], sources: &Sources) -> Vec<&'a Diagnostic> {
    let mut seen = HashSet::new();
    let mut findings: Vec<_> = diagnostics.iter().filter(|finding| seen.insert(*finding)).collect();
    // The offset orders as line and column do.
    let place = |finding: &Diagnostic| {
        let span = finding.span()?;
        Some((sources.get(span.source).name(), span.source, span.start))
    };
    findings.sort_by(|a, b| place(a).cmp(&place(b)));
    findings
}
