//! Findings as text for people: a sentence, the lines it is about with carets, what to do.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::excerpt::{REACH, excerpt, floor};
use super::place::trimmed;
use super::{Findings, counted, summary};
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
    let findings = Findings::new(diagnostics, sources, look.secrets);
    of(&findings, look.colour, look.width)
}

/// As [`text`].
pub fn of(findings: &Findings<'_>, colour: bool, width: usize) -> String {
    let painter = Painter { findings, colour, width };
    let mut out = String::new();
    for finding in findings.iter() {
        out.push_str(&painter.finding(finding));
        out.push_str("\n\n");
    }
    if let Some(summary) = summary(findings.iter()) {
        out.push_str(&summary);
        out.push_str("; `runsmith rule NAME` explains\n");
    }
    out
}

/// What is said when there are no findings: what was looked at.
pub fn clean(applications: usize, files: usize) -> String {
    format!("no findings: {} in {}\n", counted(applications, "application"), counted(files, "file"))
}

/// Some of the findings, plain, each ending with a newline, an empty line between them.
pub(super) fn some(findings: &Findings<'_>, list: &[&Diagnostic]) -> String {
    let painter = Painter { findings, colour: false, width: Look::default().width };
    let texts: Vec<_> = list.iter().map(|finding| painter.finding(finding) + "\n").collect();
    texts.join("\n")
}

struct Painter<'a> {
    findings: &'a Findings<'a>,
    colour: bool,
    width: usize,
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
        let title = level.primary_title(visible(&finding.message)).id(finding.rule.name);
        let mut group = Group::with_title(title);
        for cluster in self.clusters(finding) {
            group = group.elements(self.cluster(&cluster));
        }
        group = group.elements(finding.help.iter().map(|help| Level::HELP.message(visible(help))));
        let renderer = if self.colour { Renderer::styled() } else { Renderer::plain() };
        // Excerpts are cut before; the renderer is not to cut them once more.
        let text = renderer.term_width(1 << 16).render(&[group]);
        text.lines().filter(|line| !is_bare_mark(line)).collect::<Vec<_>>().join("\n")
    }

    fn clusters<'d>(&self, finding: &'d Diagnostic) -> Vec<Cluster<'d>> {
        let mut clusters: Vec<Cluster<'d>> = vec![];
        let mut labels: Vec<_> = finding.labels.iter().enumerate().collect();
        labels.sort_by_key(|(_, label)| label.span);
        for (index, label) in labels {
            let source = self.findings.sources.get(label.span.source);
            let mut range = trimmed(source.text(), label.span.range());
            let first = source.position(range.start as u32).line;
            let mut last = source.position(range.end as u32).line;
            let mut words = label.text.clone();
            if last - first >= MANY {
                // No line is shown further than it is looked at around a place.
                let to = floor(source.text(), range.start + 2 * REACH);
                let line = source.text().get(range.start..to).unwrap_or_default();
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
        let source = self.findings.sources.get(cluster.source);
        let mut by_weight: Vec<_> = cluster.labels.iter().collect();
        by_weight.sort_by_key(|(index, ..)| *index);
        let focus: Vec<_> = by_weight.iter().map(|(.., range, _)| range.clone()).collect();
        let span = focus.iter().map(|range| range.start).min().unwrap_or(0)
            ..focus.iter().map(|range| range.end).max().unwrap_or(0);
        // Asked for each character that is shown: between the ends of a line may be millions of secrets.
        let secret = |at: usize| self.findings.secrets_in(cluster.source, at..at + 1).next();
        let gutter = cluster.lines.1.to_string().len() + 3;
        let width = self.width.saturating_sub(gutter).max(20);
        let excerpt = excerpt(source, span, &focus, &secret, width);

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

#[cfg(test)]
mod tests;
