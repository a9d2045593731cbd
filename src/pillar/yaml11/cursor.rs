//! A place in the text that moves on, and what stands there.

use super::token::Mark;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a str,
    bytes: &'a [u8],
    pub(super) mark: Mark,
}

impl<'a> Cursor<'a> {
    /// At the beginning; a byte order mark is no part of the text.
    pub(super) fn new(text: &'a str) -> Self {
        let byte = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Self { text, bytes: text.as_bytes(), mark: Mark { byte, ..Mark::default() } }
    }

    /// The byte `ahead` of here; 0 past the end. The text itself holds no 0: that was checked before.
    pub(super) fn byte(&self, ahead: usize) -> u8 {
        self.bytes.get(self.mark.byte as usize + ahead).copied().unwrap_or(0)
    }

    pub(super) fn is(&self, byte: u8) -> bool {
        self.byte(0) == byte
    }

    pub(super) fn is_end(&self) -> bool {
        self.mark.byte as usize >= self.bytes.len()
    }

    pub(super) fn is_blank_at(&self, ahead: usize) -> bool {
        matches!(self.byte(ahead), b' ' | b'\t')
    }

    pub(super) fn is_blank(&self) -> bool {
        self.is_blank_at(0)
    }

    /// A line break: LF, CR, NEL, LS or PS.
    pub(super) fn is_break_at(&self, ahead: usize) -> bool {
        match self.byte(ahead) {
            b'\n' | b'\r' => true,
            0xC2 => self.byte(ahead + 1) == 0x85,
            0xE2 => self.byte(ahead + 1) == 0x80 && matches!(self.byte(ahead + 2), 0xA8 | 0xA9),
            _ => false,
        }
    }

    pub(super) fn is_break(&self) -> bool {
        self.is_break_at(0)
    }

    pub(super) fn is_breakz(&self) -> bool {
        self.is_end() || self.is_break()
    }

    pub(super) fn is_blankz_at(&self, ahead: usize) -> bool {
        match self.byte(ahead) {
            0 | b' ' | b'\t' => true,
            b'!'..=0x7F => false,
            _ => self.is_break_at(ahead),
        }
    }

    pub(super) fn is_blankz(&self) -> bool {
        self.is_blankz_at(0)
    }

    /// libyaml's idea of a letter: what names, anchors and tag handles are made of.
    pub(super) fn is_alpha(&self) -> bool {
        let byte = self.byte(0);
        byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
    }

    /// `---` or `...` at the beginning of a line.
    pub(super) fn is_document_indicator(&self) -> bool {
        self.mark.column == 0 && (self.bytes_are(b"---") || self.bytes_are(b"...")) && self.is_blankz_at(3)
    }

    pub(super) fn bytes_are(&self, what: &[u8]) -> bool {
        self.bytes.get(self.mark.byte as usize..).is_some_and(|rest| rest.starts_with(what))
    }

    /// Past one character that ends no line.
    pub(super) fn skip(&mut self) {
        let width = match self.byte(0) {
            0..=0x7F => 1,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            _ => 4,
        };
        self.mark.byte += width;
        self.mark.index += 1;
        self.mark.column += 1;
    }

    pub(super) fn skip_many(&mut self, count: usize) {
        for _ in 0..count {
            self.skip();
        }
    }

    /// Past `bytes` bytes that hold no line break.
    pub(super) fn skip_bytes(&mut self, bytes: usize) {
        let from = self.mark.byte as usize;
        let passed = self.bytes.get(from..from + bytes).unwrap_or_default();
        let characters = passed.iter().filter(|byte| !is_continuation(**byte)).count() as u32;
        self.mark.byte += bytes as u32;
        self.mark.index += characters;
        self.mark.column += characters;
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.is_blank() {
            self.skip();
        }
    }

    pub(super) fn skip_comment(&mut self) {
        if self.is(b'#') {
            while !self.is_breakz() {
                self.skip();
            }
        }
    }

    /// Past a line break; tells what it counts as: LS and PS stay what they are, all others are LF.
    pub(super) fn skip_line(&mut self) -> char {
        let (width, characters, counts_as) = match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'\r', b'\n', _) => (2, 2, '\n'),
            (b'\r' | b'\n', _, _) => (1, 1, '\n'),
            (0xC2, 0x85, _) => (2, 1, '\n'),
            (0xE2, 0x80, 0xA8) => (3, 1, '\u{2028}'),
            (0xE2, 0x80, 0xA9) => (3, 1, '\u{2029}'),
            _ => return '\n',
        };
        self.mark.byte += width;
        self.mark.index += characters;
        self.mark.column = 0;
        self.mark.line += 1;
        counts_as
    }

    pub(super) fn slice(&self, from: u32, to: u32) -> &'a str {
        self.text.get(from as usize..to as usize).unwrap_or("")
    }

    /// How many bytes from here hold no byte that `stops`.
    pub(super) fn run(&self, stops: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(self.mark.byte as usize..).unwrap_or_default();
        rest.iter().position(|byte| stops(*byte)).unwrap_or(rest.len())
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}
