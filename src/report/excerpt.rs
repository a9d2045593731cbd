//! A few lines of a source, fit to be printed: cut to a width, secrets masked, and every character
//! that a terminal would obey spelled out. Nothing here looks at more of a line than is shown, so
//! that a line of 30 MB costs as much as a short one.

use std::ops::Range;

use crate::model::veil::MASK;
use crate::source::Source;
use crate::visible::misleads;

/// What stands for a part of a line that is not shown.
const CUT: &str = "…";

/// No line is looked at further than this many bytes from the place in question.
pub(super) const REACH: usize = 4096;

/// Lines as they are printed, and where each byte of the source went.
pub(super) struct Excerpt {
    /// The lines, each but the last with a newline.
    pub(super) text: String,
    /// Offset in the source and offset in the text, both ascending.
    places: Vec<(usize, usize)>,
}

/// The lines from the one that holds `span`'s start to the one that holds its end.
///
/// `focus` are the places that have to be seen, in the order of their importance; `secret` tells of a byte the secret that it
/// is in. `width` is how many columns a line may take.
pub(super) fn excerpt(
    source: &Source,
    span: Range<usize>,
    focus: &[Range<usize>],
    secret: &impl Fn(usize) -> Option<Range<usize>>,
    width: usize,
) -> Excerpt {
    let text = source.text();
    let mut out = Excerpt { text: String::new(), places: vec![] };
    let mut at = span.start;
    loop {
        let line = line_around(text, at);
        let important = focus.iter().find(|focus| focus.start <= line.end && line.start <= focus.end);
        let wanted = important.map_or(line.start, |focus| focus.start.max(line.start));
        out.line(text, &line, wanted, secret, width);
        let Some(next) = next_line(text, line.end).filter(|next| *next <= span.end) else { break };
        out.text.push('\n');
        at = next;
    }
    // The renderer knows no empty line at the end.
    if out.text.ends_with('\n') {
        out.text.push(' ');
    }
    out
}

impl Excerpt {
    /// Where a place of the source is in the text; the nearest place that is shown.
    pub(super) fn place(&self, offset: usize) -> usize {
        let after = self.places.partition_point(|(from, _)| *from < offset);
        self.places.get(after).or(self.places.last()).map_or(0, |(_, to)| *to)
    }

    fn line(
        &mut self,
        text: &str,
        line: &Range<usize>,
        wanted: usize,
        secret: &impl Fn(usize) -> Option<Range<usize>>,
        width: usize,
    ) {
        let shown = window(text, line, wanted, width);
        if shown.start > line_start(text, shown.start) {
            self.text.push_str(CUT);
        }
        let mut at = shown.start;
        let mut rest = text.get(shown.clone()).unwrap_or_default();
        while let Some(c) = rest.chars().next() {
            self.places.push((at, self.text.len()));
            if let Some(secret) = secret(at) {
                self.text.push_str(MASK);
                let end = secret.end.min(shown.end);
                at =
                    (at + 1..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(at + c.len_utf8());
            } else {
                match c {
                    '\t' => self.text.push_str("    "),
                    '\u{feff}' if at == 0 => {}
                    c if misleads(c) => self.text.extend(c.escape_default()),
                    c => self.text.push(c),
                }
                at += c.len_utf8();
            }
            rest = text.get(at..shown.end).unwrap_or_default();
        }
        self.places.push((shown.end, self.text.len()));
        if shown.end < line.end || text.get(shown.end..).is_some_and(|rest| !at_line_end(rest)) {
            self.text.push_str(CUT);
        }
    }
}

/// How many columns a character takes, by a rule of thumb that is never too small.
fn columns(c: char) -> usize {
    match c {
        '\t' => 4,
        c if misleads(c) => 10,
        '\u{0}'..='\u{10ff}' => 1,
        _ => 2,
    }
}

/// The part of a line that fits, around `wanted`.
fn window(text: &str, line: &Range<usize>, wanted: usize, width: usize) -> Range<usize> {
    let before = text.get(line.start..wanted).unwrap_or_default();
    let after = text.get(wanted..line.end).unwrap_or_default();
    let whole: usize = before.chars().chain(after.chars()).map(columns).sum();
    let uncut = line_start(text, line.start) == line.start && text.get(line.end..).is_none_or(at_line_end);
    if whole <= width && uncut {
        return line.clone();
    }
    let mut start = wanted;
    // A third of the room is for what comes before; what does not need it leaves it to the rest.
    let mut room = width / 3;
    for (at, c) in before.char_indices().rev() {
        let Some(left) = room.checked_sub(columns(c)) else { break };
        room = left;
        start = line.start + at;
    }
    let used: usize = text.get(start..wanted).unwrap_or_default().chars().map(columns).sum();
    let mut room = width.saturating_sub(used + 2);
    let mut end = wanted;
    for c in after.chars() {
        let Some(left) = room.checked_sub(columns(c)) else { break };
        room = left;
        end += c.len_utf8();
    }
    start..end
}

fn breaks(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Where the line that holds `at` begins, or as far before as is looked.
fn line_start(text: &str, at: usize) -> usize {
    let from = floor(text, at.saturating_sub(REACH));
    let before = text.as_bytes().get(from..at).unwrap_or_default();
    before.iter().rposition(breaks).map_or(from, |found| from + found + 1)
}

/// The line that holds `at` without its end, or as much of it as is looked at.
fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = floor(text, at);
    // Between the two bytes of CRLF is not the beginning of a line.
    let at = if at > 0 && text.get(at - 1..=at) == Some("\r\n") { at - 1 } else { at };
    let to = floor(text, at + REACH);
    let after = text.as_bytes().get(at..to).unwrap_or_default();
    line_start(text, at)..after.iter().position(breaks).map_or(to, |found| at + found)
}

fn at_line_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['\n', '\r'])
}

/// Where the line after the one that ends at `end` begins; none if the end was out of reach.
fn next_line(text: &str, end: usize) -> Option<usize> {
    let rest = text.get(end..)?;
    let length = if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with(['\n', '\r'])) };
    (length > 0).then_some(end + length)
}

/// The nearest character boundary at or before `at`, within the text.
pub(super) fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
