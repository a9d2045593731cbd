//! A named text, and places in it.
//!
//! A [`Span`] is a range of bytes of one source; people see lines and columns, counted from one
//! and in characters, which [`Source::position`] works out when somebody asks.

use crate::diagnostic::Diagnostic;
use crate::rule;
use std::sync::OnceLock;

/// Which of the [`Sources`] a span points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// A range of bytes in one source: `start` is included, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The text it points into.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes from `start` up to `end` of `source`.
    pub fn new(source: SourceId, start: usize, end: usize) -> Self {
        // A source is at most MAX_BYTES long, so the narrowing never loses anything.
        Self { source, start: start as u32, end: end as u32 }
    }

    /// The bytes as a range that indexes the source's text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Line and column, both counted from one; the column in characters, a byte order mark not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, the first is 1.
    pub line: usize,
    /// Column in characters, the first is 1.
    pub column: usize,
}

/// The longest text that is read, in bytes. A pillar of 10,000 services has 4 MB; what is longer
/// is a mistake or an attack, and is refused before it costs memory.
pub const MAX_BYTES: usize = 32 << 20;

/// A text and the name people know it by.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    index: OnceLock<Index>,
}

/// What makes positions cheap in a text of any shape, one line of 30 MB among them.
#[derive(Debug)]
struct Index {
    line_starts: Vec<u32>,
    /// How many characters begin before each block of [`BLOCK`] bytes.
    characters: Vec<u32>,
}

/// Bytes of a text that are counted for one position at most.
const BLOCK: usize = 4096;

impl Index {
    fn new(text: &str) -> Self {
        let mut count = 0;
        let blocks = text.as_bytes().chunks(BLOCK).map(characters);
        let characters = std::iter::once(0).chain(blocks.map(|more| {
            count += more;
            count
        }));
        Self { line_starts: line_starts(text), characters: characters.collect() }
    }

    /// How many characters of `text` begin before `offset`.
    fn characters_before(&self, text: &str, offset: usize) -> usize {
        let block = offset / BLOCK;
        let rest = text.as_bytes().get(block * BLOCK..offset).map_or(0, characters);
        (self.characters.get(block).copied().unwrap_or(0) + rest) as usize
    }
}

/// How many characters begin in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count() as u32
}

impl Source {
    /// `name` is what findings print before line and column: a path as it was given, or `-`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), index: OnceLock::new() }
    }

    /// A source of bytes as they were read. A UTF-8 byte order mark is kept and counts for nothing.
    ///
    /// # Errors
    /// The bytes are no UTF-8: the finding points at the first one that is not, in a source of the
    /// same name that has the text up to there; add that source under `id` to show it.
    pub fn from_bytes(
        name: impl Into<String>,
        bytes: Vec<u8>,
        id: SourceId,
    ) -> Result<Self, Box<(Self, Diagnostic)>> {
        let error = match String::from_utf8(bytes) {
            Ok(text) => return Ok(Self::new(name, text)),
            Err(error) => error,
        };
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let message = match bytes.as_slice() {
            [0xFF, 0xFE, ..] => "this file is UTF-16 (little-endian), and UTF-8 is read".to_owned(),
            [0xFE, 0xFF, ..] => "this file is UTF-16 (big-endian), and UTF-8 is read".to_owned(),
            _ => format!("the byte 0x{:02X} is no UTF-8", bytes.get(valid).copied().unwrap_or(0)),
        };
        let help = match bytes.as_slice() {
            // iconv sees by the mark which one it is, and takes the mark away.
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "Convert it: `iconv -f UTF-16 -t UTF-8`.",
            _ => "Convert it: `iconv -f LATIN1 -t UTF-8`, or whatever encoding it has.",
        };
        // The rest of the line, unreadable bytes shown as such, so that the place can be seen.
        let end = bytes[valid..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| valid + at);
        let text = String::from_utf8_lossy(&bytes[..end.min(valid + 200)]).into_owned();
        let width = text.get(valid..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        let finding = Diagnostic::error(&rule::NOT_UTF_8, message)
            .at(Span::new(id, valid, valid + width), "")
            .help(help);
        Err(Box::new((Self::new(name, text), finding)))
    }

    /// What people call it: the path as it was given, or `-`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text under a span; nothing if the span lies outside.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or("")
    }

    /// Line and column of a byte offset. An offset past the end is the end.
    pub fn position(&self, offset: u32) -> Position {
        let index = self.index.get_or_init(|| Index::new(&self.text));
        let line = index.line_starts.partition_point(|&start| start <= offset).saturating_sub(1);
        let start = index.line_starts.get(line).copied().unwrap_or(0) as usize;
        let mut end = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let mark = usize::from(line == 0 && end > 0 && self.text.starts_with('\u{feff}'));
        let count = |offset| index.characters_before(&self.text, offset);
        Position { line: line + 1, column: count(end) - count(start) - mark + 1 }
    }
}

/// Lines end at LF, CRLF or a lone CR, as YAML has it.
fn line_starts(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for (at, byte) in bytes.iter().enumerate() {
        let ends = *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
        if ends {
            starts.push(at as u32 + 1);
        }
    }
    starts
}

/// Every text of one run, so that a [`Span`] can be small.
#[derive(Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// No text yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a source and says by which number spans name it.
    pub fn add(&mut self, source: Source) -> SourceId {
        self.0.push(source);
        SourceId(self.0.len() as u32 - 1)
    }

    /// How many there are; the next one added gets this number.
    pub fn next_id(&self) -> SourceId {
        SourceId(self.0.len() as u32)
    }

    /// The source a span points into.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.0[id.0 as usize]
    }

    /// Every source, in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Source> {
        self.0.iter()
    }

    /// `file:line:column` of where a span starts.
    pub fn place(&self, span: Span) -> String {
        let source = self.get(span.source);
        let at = source.position(span.start);
        format!("{}:{}:{}", source.name(), at.line, at.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, offset: u32) -> (usize, usize) {
        let position = Source::new("x", text).position(offset);
        (position.line, position.column)
    }

    #[test]
    fn counts_characters_not_bytes() {
        assert_eq!(at("äö: x\nb: ü!", 6), (1, 5));
        assert_eq!(at("äö: x\nb: ü!", 13), (2, 5));
    }

    #[test]
    fn knows_every_line_ending() {
        assert_eq!(at("a\r\nb\rc\nd", 3), (2, 1));
        assert_eq!(at("a\r\nb\rc\nd", 5), (3, 1));
        assert_eq!(at("a\r\nb\rc\nd", 7), (4, 1));
    }

    #[test]
    fn a_long_line_is_counted_in_blocks() {
        let text = format!("\u{feff}{}\n{}", "ä漢".repeat(5000), "😀b".repeat(9000));
        let source = Source::new("x", text.as_str());
        for (offset, _) in text.char_indices().step_by(97) {
            let before = text[..offset].rsplit('\n').next().unwrap().trim_start_matches('\u{feff}');
            assert_eq!(source.position(offset as u32).column, before.chars().count() + 1, "{offset}");
        }
    }

    #[test]
    fn a_byte_order_mark_has_no_column() {
        assert_eq!(at("\u{feff}key: 1", 3), (1, 1));
    }

    #[test]
    fn past_the_end_is_the_end() {
        assert_eq!(at("ab", 99), (1, 3));
    }
}
