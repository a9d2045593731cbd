//! Where a finding is, as every format counts it.

use std::ops::Range;

use crate::source::{Position, Sources, Span};

/// A place in words of people: from the first character to the one after the last.
pub(super) struct Place<'a> {
    /// The file as it was given, or `-`.
    pub(super) name: &'a str,
    /// Line and column of the first character.
    pub(super) start: Position,
    /// Line and column of the character after the last.
    pub(super) end: Position,
    /// The bytes, counted from 0 at the beginning of the file, a byte order mark included.
    pub(super) bytes: Range<usize>,
}

impl<'a> Place<'a> {
    pub(super) fn new(span: Span, sources: &'a Sources) -> Self {
        let source = sources.get(span.source);
        let bytes = trimmed(source.text(), span.range());
        let at = |offset: usize| source.position(offset as u32);
        Self { name: source.name(), start: at(bytes.start), end: at(bytes.end), bytes }
    }

    /// The path without `./` before it, which services that match it with a repository's paths want.
    pub(super) fn path(&self) -> &'a str {
        plain(self.name)
    }
}

/// A path without `./` before it.
pub(super) fn plain(mut path: &str) -> &str {
    while let Some(rest) = path.strip_prefix("./").map(|rest| rest.trim_start_matches('/')) {
        if rest.is_empty() {
            break;
        }
        path = rest;
    }
    path
}

/// So many bytes of blanks are left out at the end of a place.
const MOST_BLANKS: usize = 16 << 10;

/// A range within the text, without the line ends and blanks at its end: a block scalar's span
/// ends where the next line begins, which it is not about.
pub(super) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let mut start = range.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = range.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    // Thousands of findings may be about the same place: of millions of blanks some are left.
    let mut from = start.max(end.saturating_sub(MOST_BLANKS));
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let kept = text.get(from..end).unwrap_or_default().trim_end().len();
    start..from + kept
}
