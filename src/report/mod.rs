//! Findings as people and programs want them: one file per format.

pub mod diff;
mod excerpt;
pub mod github;
pub mod gitlab;
mod hidden;
pub mod json;
pub mod junit;
pub mod patch;
mod pieces;
mod place;
pub mod rules;
pub mod sarif;
pub mod status;
mod stream;
pub mod text;
pub mod tree;
pub mod upgrade;
pub(crate) mod words;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::diagnostic::{Diagnostic, MOST_PRINTED, Severity};
use crate::failure::Failure;
use crate::model::secret::{password_in_url, value_in};
use crate::model::veil::{MASK, SHORTEST, Veil};
use crate::rule;
use crate::source::{SourceId, Sources, Span};
use crate::visible::visible;
use excerpt::floor;
pub use hidden::veil;
use hidden::{disjoint, with_others, without_passwords};
use pieces::{MOST_SEARCHED, Secrets};
use place::{Place, trimmed};

/// Findings fit to be printed, which every format begins with: in the order of file name, line and
/// column, those without a place first; those that are the same in everything once; no sentence
/// quotes a secret.
pub struct Findings<'a> {
    list: Vec<Cow<'a, Diagnostic>>,
    sources: &'a Sources,
    /// Without the blanks at their ends, ascending, none overlapping another.
    secrets: Vec<Span>,
    /// The values of secrets, for the sentences.
    veil: Veil,
}

/// So much of a secret is looked for in a sentence, in bytes: no sentence quotes more of a text.
const LONGEST_QUOTED: usize = 4 << 10;

/// A place that holds more secrets than this among other things is no value that a sentence quotes.
const MOST_SECRETS: usize = 8;

/// What is said of the findings that are not printed; as bad as the worst of them.
fn more(rest: &[&Diagnostic]) -> Option<Diagnostic> {
    let worst = rest.iter().map(|finding| finding.severity).min()?;
    let message = format!("{} more findings are not printed", rest.len());
    let mut more =
        Diagnostic::error(&rule::TOO_LARGE, message).help("Correct these first, then validate again.");
    more.severity = worst;
    Some(more)
}

impl<'a> Findings<'a> {
    /// `secrets` are the places that nothing printed may show, besides the labels that are hidden.
    pub fn new(diagnostics: &'a [Diagnostic], sources: &'a Sources, secrets: &[Span]) -> Self {
        let mut seen = HashSet::new();
        let mut list: Vec<_> = diagnostics.iter().filter(|finding| seen.insert(finding.said())).collect();
        // The offset orders as line and column do.
        let place = |finding: &Diagnostic| {
            let span = finding.span()?;
            Some((sources.get(span.source).name(), span.source, span.start))
        };
        // What has no sentences comes last, where it is only counted.
        list.sort_by(|a, b| (a.is_bare(), place(a)).cmp(&(b.is_bare(), place(b))));
        // What one finding hides no other may show: they may be about the same line.
        let labels = list.iter().flat_map(|finding| &finding.labels);
        let hidden = labels.filter(|label| label.hidden).map(|label| label.span);
        let secrets = disjoint(hidden.chain(secrets.iter().copied()), sources);
        let whole = list.partition_point(|finding| !finding.is_bare());
        let rest = list.split_off(whole.min(MOST_PRINTED));
        // Nothing is printed of a text that no finding is about.
        let shown: BTreeSet<SourceId> =
            list.iter().flat_map(|finding| &finding.labels).map(|label| label.span.source).collect();
        let veil = if list.is_empty() { Veil::default() } else { veil(&secrets, sources) };
        let secrets = with_others(secrets, &veil, shown, sources);
        let mut findings = Self { list: vec![], sources, secrets, veil };
        let mut left = MOST_SEARCHED;
        findings.list = list.into_iter().map(|finding| findings.redacted(finding, &mut left)).collect();
        findings.list.extend(more(&rest).map(Cow::Owned));
        findings
    }

    /// Each finding, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> + Clone {
        self.list.iter().map(AsRef::as_ref)
    }

    /// How many there are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The secrets in some bytes of a source.
    fn secrets_in(&self, source: SourceId, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let first = self
            .secrets
            .partition_point(|secret| (secret.source, secret.range().end) <= (source, range.start));
        self.secrets
            .get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |secret| secret.source == source && secret.range().start < range.end)
            .map(|secret| secret.range())
    }

    /// Whoever makes a finding keeps secrets out of its sentences; if one quotes the text it points
    /// at all the same, and that is a secret, or a piece of it, it says so no more. Secrets are looked at for `left` bytes.
    fn redacted(&self, finding: &'a Diagnostic, left: &mut usize) -> Cow<'a, Diagnostic> {
        let mut words: Vec<Cow<'_, str>> = vec![];
        // Beginnings of longer texts: whatever follows one in a sentence may be the rest of it.
        let mut beginnings: Vec<&str> = vec![];
        for label in &finding.labels {
            let source = self.sources.get(label.span.source);
            let range = trimmed(source.text(), label.span.range());
            // A place that holds a secret among other things is not quoted as a whole.
            if let Some(secret) = self.secrets_in(label.span.source, range.clone()).next()
                && secret.start <= range.start
                && range.end <= secret.end
                && let Some(text) = source.text().get(range)
            {
                let bare = |c: char| c.is_whitespace() || "\"'*&!|>[]{},".contains(c);
                // Thousands of findings may be about the same text.
                let start = text.get(..floor(text, LONGEST_QUOTED)).unwrap_or_default();
                let mut end = text;
                if start.len() < text.len() {
                    beginnings.extend([start, start.trim_start_matches(bare)]);
                    let value = value_in(start).and_then(|at| start.get(at..));
                    beginnings.extend(value.map(|value| value.trim_start_matches(bare)));
                    end = text.get(floor(text, text.len() - LONGEST_QUOTED)..).unwrap_or_default();
                } else {
                    words.extend([text, text.trim_matches(bare)].map(Cow::Borrowed));
                }
                // What is quoted may be a part of it.
                if let Some(value) = value_in(end).and_then(|at| end.get(at..)) {
                    words.push(value.trim_matches(bare).into());
                    words.extend(value.rsplit_once('@').map(|(password, _)| format!(":{password}@").into()));
                }
            }
        }
        // So short a word is also a part of others; where it is quoted, it is found as a piece.
        words.retain(|word| word.chars().count() > 3);
        // What is shorter would be found in any sentence.
        beginnings.retain(|start| start.len() >= SHORTEST);
        let sentences = || {
            let texts = std::iter::once(&finding.message).chain(&finding.help);
            texts.chain(finding.labels.iter().map(|label| &label.text)).map(String::as_str)
        };
        let common = self.secrets_of(finding, left).in_common(sentences());
        let said = |text: &str| {
            password_in_url(text).is_some()
                || words.iter().any(|word| text.contains(word.as_ref()))
                || beginnings.iter().any(|start| text.contains(start))
                || matches!(common.cover(text), Cow::Owned(_))
                || self.veil.hides(text.as_bytes())
        };
        if !sentences().any(said) {
            return Cow::Borrowed(finding);
        }
        let mut finding = finding.clone();
        let clean = |text: &mut String| {
            if let Some(at) = beginnings.iter().filter_map(|start| text.find(start)).min() {
                text.truncate(at);
                text.push_str(MASK);
            }
            let mut clean = common.cover(text).into_owned();
            for word in &words {
                clean = clean.replace(word.as_ref(), MASK);
            }
            *text = self.veil.cover(&without_passwords(&clean)).into_owned();
        };
        clean(&mut finding.message);
        finding.help.iter_mut().for_each(clean);
        finding.labels.iter_mut().for_each(|label| clean(&mut label.text));
        Cow::Owned(finding)
    }

    /// The secrets that a finding is about: what it points at is a part of one, or holds a few.
    fn secrets_of(&self, finding: &Diagnostic, left: &mut usize) -> Secrets {
        let mut secrets = Secrets::default();
        let mut seen: Vec<(SourceId, Range<usize>)> = vec![];
        // Whoever hides a place knows that it is a secret, and quotes nothing of it: its words are those of the sentence.
        for label in finding.labels.iter().filter(|label| !label.hidden) {
            let source = label.span.source;
            let text = self.sources.get(source).text();
            let range = trimmed(text, label.span.range());
            let found: Vec<_> = self.secrets_in(source, range.clone()).take(MOST_SECRETS + 1).collect();
            if found.len() > MOST_SECRETS {
                continue;
            }
            for secret in found {
                let key = (source, secret.clone());
                if seen.contains(&key) {
                    continue;
                }
                seen.push(key);
                let is_all = secret.start <= range.start && range.end <= secret.end;
                secrets.add(text.get(secret).unwrap_or_default(), is_all, left);
            }
        }
        secrets
    }

    fn place(&self, span: Span) -> Place<'_> {
        Place::new(span, self.sources)
    }

    /// The place a finding is about, if it has one.
    fn place_of(&self, finding: &Diagnostic) -> Option<Place<'_>> {
        finding.span().map(|span| self.place(span))
    }

    /// What each finding is known by from run to run: its rule, its file and the first line of the
    /// text it points at, secrets masked. Where on which line that text stands does not count, so
    /// that lines above may come and go. The number tells findings apart that are alike in all of
    /// that, the first is 1.
    fn fingerprints(&self) -> Vec<(String, usize)> {
        let mut alike: HashMap<String, usize> = HashMap::new();
        self.iter()
            .map(|finding| {
                let hash = match finding.span() {
                    Some(span) => {
                        let path = self.place(span).path();
                        hash(&[finding.rule.name, path, &self.masked(span)])
                    }
                    None => hash(&[finding.rule.name, "", &finding.message]),
                };
                let count = alike.entry(hash.clone()).or_default();
                *count += 1;
                (hash, *count)
            })
            .collect()
    }

    /// The first line of the text under a span, or so much of it as is looked at, secrets masked.
    fn masked(&self, span: Span) -> String {
        const MOST: usize = 400;
        let text = self.sources.get(span.source).text();
        let range = trimmed(text, span.range());
        let shown = text.get(range.clone()).unwrap_or_default();
        let mut out = String::new();
        let mut after = range.start;
        let line = shown.char_indices().take(MOST).take_while(|(_, c)| !matches!(c, '\n' | '\r'));
        for (at, c) in line.map(|(at, c)| (range.start + at, c)) {
            if at < after {
                continue;
            }
            match self.secrets_in(span.source, at..at + 1).next() {
                Some(secret) => {
                    out.push_str(MASK);
                    after = secret.end;
                }
                None => out.push(c),
            }
        }
        out
    }

    /// What is wrong and what is expected instead, on one line.
    fn sentence(&self, finding: &Diagnostic) -> String {
        let message = visible(&finding.message);
        match finding.labels.first().map(|label| visible(&label.text)).filter(|text| !text.is_empty()) {
            Some(label) => format!("{message}: {label}"),
            None => message.into_owned(),
        }
    }

    /// The sentence, the other places and what to do, a line each.
    fn lines(&self, finding: &Diagnostic) -> Vec<String> {
        let mut lines = vec![self.sentence(finding)];
        for label in finding.labels.iter().skip(1) {
            let place = visible(&self.sources.place(label.span)).into_owned();
            let words = visible(&label.text);
            let words = if words.is_empty() { "see also".into() } else { words };
            lines.push(format!("{words}: {place}"));
        }
        lines.extend(finding.help.iter().map(|help| format!("help: {}", visible(help))));
        lines
    }
}

/// A failure without the values of secrets: a template that fails may quote what it was given.
pub fn covered(failure: Failure, secrets: &[Span], sources: &Sources) -> Failure {
    match failure {
        Failure::Template(sentence) => {
            let secrets = disjoint(secrets.iter().copied(), sources);
            Failure::Template(veil(&secrets, sources).cover(&sentence).into_owned())
        }
        other => other,
    }
}

/// `3 errors, 1 warning in 2 files`; none if there are no findings.
fn summary<'d>(findings: impl Iterator<Item = &'d Diagnostic> + Clone) -> Option<String> {
    let parts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .map(|severity| (findings.clone().filter(|finding| finding.severity == severity).count(), severity))
        .filter(|(count, _)| *count > 0)
        .map(|(count, severity)| counted(count, severity.word()))
        .collect();
    let files: BTreeSet<_> = findings.filter_map(|finding| Some(finding.span()?.source)).collect();
    let files =
        if files.is_empty() { String::new() } else { format!(" in {}", counted(files.len(), "file")) };
    (!parts.is_empty()).then(|| parts.join(", ") + &files)
}

pub(crate) fn counted(count: usize, word: &str) -> String {
    let plural = if word.ends_with('x') { "es" } else { "s" };
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}{plural}") }
}

/// FNV-1a, 128 bits, in hexadecimal: the same on every machine and in every version.
fn hash(parts: &[&str]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut state = OFFSET;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        state = (state ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    format!("{state:032x}")
}
