//! Findings as text for people: a sentence, the lines it is about with carets, what to do.

use std::collections::BTreeSet;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::excerpt::excerpt;
use super::in_order;
use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{SourceId, Sources, Span};
use crate::visible::visible;

/// How the text is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// With ANSI colours.
    pub colour: bool,
    /// How many columns a line of an excerpt may take, with its number; messages are not wrapped.
    pub width: usize,
    /// Places that no excerpt may show, besides the labels that are hidden.
    pub secrets: &'a [Span],
}

impl Default for Look<'_> {
    fn default() -> Self {
        Self { colour: false, width: 140, secrets: &[] }
    }
}

/// All findings in order, and a line that counts them; nothing at all if there are none.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, look: Look<'_>) -> String {
    let findings = in_order(diagnostics, sources);
    // What one finding hides no other may show: they may be about the same line.
    let labels = findings.iter().flat_map(|finding| &finding.labels);
    let mut secrets: Vec<Span> = labels.filter(|label| label.hidden).map(|label| label.span).collect();
    secrets.extend(look.secrets);
    secrets.sort();
    secrets.dedup();
    let painter = Painter { sources, look, secrets };
    let mut out = String::new();
    for finding in &findings {
        out.push_str(&painter.finding(finding));
        out.push_str("\n\n");
    }
    if let Some(summary) = summary(&findings) {
        out.push_str(&summary);
        out.push('\n');
    }
    out
}

/// `3 errors, 1 warning in 2 files`; none if nothing was found.
fn summary(findings: &[&Diagnostic]) -> Option<String> {
    let count = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let parts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| {
            count(findings.iter().filter(|finding| finding.severity == severity).count(), severity.word())
        })
        .collect();
    let files: BTreeSet<_> = findings.iter().filter_map(|finding| Some(finding.span()?.source)).collect();
    let files = count(files.len(), "file").map_or_else(String::new, |files| format!(" in {files}"));
    (!parts.is_empty()).then(|| parts.join(", ") + &files)
}

struct Painter<'a> {
    sources: &'a Sources,
    look: Look<'a>,
    secrets: Vec<Span>,
}

/// Labels of one source that are near enough to share an excerpt.
struct Cluster<'a> {
    source: SourceId,
    /// First and last line.
    lines: (usize, usize),
    /// With the index in the finding: 0 is the place it is about.
    labels: Vec<(usize, &'a Label, Range<usize>, String)>,
}

/// Labels with at most so many lines between them are shown together.
const NEAR: usize = 4;

/// A place of more lines than this is shown by its first one.
const MANY: usize = 8;

impl Painter<'_> {
    fn finding(&self, finding: &Diagnostic) -> String {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(visible(&finding.message)).id(finding.rule);
        let mut group = Group::with_title(title);
        for cluster in self.clusters(finding) {
            group = group.elements(self.cluster(&cluster));
        }
        group = group.elements(finding.help.iter().map(|help| Level::HELP.message(visible(help))));
        let renderer = if self.look.colour { Renderer::styled() } else { Renderer::plain() };
        // Excerpts are cut before; the renderer is not to cut them once more.
        let text = renderer.term_width(1 << 16).render(&[group]);
        text.lines().filter(|line| !is_bare_mark(line)).collect::<Vec<_>>().join("\n")
    }

    fn clusters<'d>(&self, finding: &'d Diagnostic) -> Vec<Cluster<'d>> {
        let mut clusters: Vec<Cluster<'d>> = vec![];
        let mut labels: Vec<_> = finding.labels.iter().enumerate().collect();
        labels.sort_by_key(|(_, label)| label.span);
        for (index, label) in labels {
            let source = self.sources.get(label.span.source);
            let mut range = trimmed(source.text(), label.span.range());
            let first = source.position(range.start as u32).line;
            let mut last = source.position(range.end as u32).line;
            let mut words = label.text.clone();
            if last - first >= MANY {
                let line = source.text().get(range.start..).unwrap_or_default();
                let length = line.find(['\n', '\r']).unwrap_or(line.len());
                range.end = range.start + length;
                words = format!("{words} (up to line {last})").trim_start().to_owned();
                last = first;
            }
            let labelled = (index, label, range, words);
            match clusters.last_mut() {
                Some(cluster) if cluster.source == label.span.source && first <= cluster.lines.1 + NEAR => {
                    cluster.lines.1 = cluster.lines.1.max(last);
                    cluster.labels.push(labelled);
                }
                _ => clusters.push(Cluster {
                    source: label.span.source,
                    lines: (first, last),
                    labels: vec![labelled],
                }),
            }
        }
        // The one that holds the place it is about comes first, the others in their order.
        clusters.sort_by_key(|cluster| cluster.labels.iter().all(|(index, ..)| *index != 0));
        clusters
    }

    fn cluster<'d>(&self, cluster: &Cluster<'d>) -> Vec<Element<'d>> {
        let source = self.sources.get(cluster.source);
        let mut by_weight: Vec<_> = cluster.labels.iter().collect();
        by_weight.sort_by_key(|(index, ..)| *index);
        let focus: Vec<_> = by_weight.iter().map(|(.., range, _)| range.clone()).collect();
        let span = focus.iter().map(|range| range.start).min().unwrap_or(0)
            ..focus.iter().map(|range| range.end).max().unwrap_or(0);
        let secrets: Vec<_> = self
            .secrets
            .iter()
            .filter(|secret| secret.source == cluster.source)
            .map(|secret| trimmed(source.text(), secret.range()))
            .collect();
        let gutter = cluster.lines.1.to_string().len() + 3;
        let width = self.look.width.saturating_sub(gutter).max(20);
        let excerpt = excerpt(source, span, &focus, &secrets, width);

        // The renderer would count columns in the excerpt, which is cut and escaped.
        let place = source.position(focus.first().map_or(0, |range| range.start as u32));
        let name = visible(source.name()).into_owned();
        let origin = Origin::path(name).line(place.line).char_column(place.column);
        let annotations: Vec<_> = by_weight
            .iter()
            .map(|(index, _, range, words)| {
                let (start, end) = (excerpt.place(range.start), excerpt.place(range.end));
                let kind = if *index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                let words = (!words.is_empty()).then(|| visible(words).into_owned());
                kind.span(start..end.max(start)).label(words)
            })
            .collect();
        let snippet = Snippet::source(excerpt.text).line_start(cluster.lines.0).annotations(annotations);
        vec![origin.into(), snippet.into()]
    }
}

/// Is it a line with nothing but `:::`? The renderer writes one for an excerpt whose place was
/// written before it.
fn is_bare_mark(line: &str) -> bool {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    first.chars().chain(rest.flat_map(str::chars)).filter(|c| *c != ' ').eq(":::".chars())
}

/// A range within the text, without the line ends and blanks at its end: a block scalar's span
/// ends where the next line begins, which it is not about.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let mut start = range.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = range.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let kept = text.get(start..end).unwrap_or_default().trim_end().len();
    start..start + kept
}

#[cfg(test)]
mod tests;
