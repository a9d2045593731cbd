//! A text and its corrected form as a unified diff.

use similar::TextDiff;

use super::hidden::{disjoint, veil, with_others};
use super::place::plain;
use crate::model::veil::{MASK, Veil};
use crate::source::{SourceId, Sources, Span};
use crate::visible::visible;

/// So many lines are shown around a change.
const CONTEXT: usize = 3;

/// The diff as `patch -p1` and `git apply` take it; nothing if the texts are the same.
pub fn patch(path: &str, before: &str, after: &str) -> String {
    let name = visible(plain(path).trim_start_matches('/')).into_owned();
    let diff = TextDiff::from_lines(before, after);
    let (old, new) = (format!("a/{name}"), format!("b/{name}"));
    diff.unified_diff().context_radius(CONTEXT).header(&old, &new).to_string()
}

/// What is masked in the texts of some sources: their secrets, and the same values elsewhere in them.
pub struct Masks<'a> {
    sources: &'a Sources,
    secrets: Vec<Span>,
    veil: Veil,
}

impl<'a> Masks<'a> {
    /// `secrets`: where they stand.
    pub fn new(sources: &'a Sources, secrets: &[Span]) -> Self {
        let secrets = disjoint(secrets.iter().copied(), sources);
        let veil = veil(&secrets, sources);
        Self { sources, secrets, veil }
    }

    /// A text with its secrets masked, and whether it has any. The lines stay as many as they were.
    pub fn masked(&self, id: SourceId) -> (String, bool) {
        let text = self.sources.get(id).text();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        let mut is_masked = false;
        let own = self.secrets.iter().copied().filter(|secret| secret.source == id).collect();
        for secret in with_others(own, &self.veil, [id], self.sources) {
            let range = secret.range();
            out.push_str(text.get(at..range.start).unwrap_or_default());
            let hidden = text.get(range.clone()).unwrap_or_default();
            out.push_str(MASK);
            out.extend(hidden.chars().filter(|c| *c == '\n'));
            at = range.end;
            is_masked = true;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        (out, is_masked)
    }
}
