//! Text to tokens: libyaml's `scanner.c`, the part that decides what begins where.

use super::cursor::Cursor;
use super::token::{Kind, Mark, Result, SimpleKey, Token, error};
use std::collections::VecDeque;

/// A simple key is at most this many characters long (YAML 1.1, and libyaml enforces it).
const LONGEST_KEY: u32 = 1024;

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) cursor: Cursor<'a>,
    tokens: VecDeque<Token<'a>>,
    /// How many tokens were taken out of the queue.
    taken: usize,
    available: bool,
    pub(super) flow_level: u32,
    /// Column of the innermost block collection; -1 outside all.
    pub(super) indent: i64,
    indents: Vec<i64>,
    pub(super) simple_key_allowed: bool,
    simple_keys: Vec<SimpleKey>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            cursor: Cursor::new(text),
            tokens: VecDeque::with_capacity(16),
            taken: 0,
            available: false,
            flow_level: 0,
            indent: -1,
            indents: Vec::new(),
            simple_key_allowed: true,
            simple_keys: vec![SimpleKey::default()],
        }
    }

    /// The next token, left where it is.
    pub(super) fn peek(&mut self) -> Result<&mut Token<'a>> {
        if !self.available {
            self.fetch_more_tokens()?;
        }
        let at = self.cursor.mark;
        match self.tokens.front_mut() {
            Some(token) => Ok(token),
            None => error("", at, "did not find expected <stream-end>", at),
        }
    }

    /// Drops the token that `peek` showed.
    pub(super) fn skip(&mut self) {
        self.available = false;
        self.taken += 1;
        self.tokens.pop_front();
    }

    fn fetch_more_tokens(&mut self) -> Result<()> {
        while self.tokens.is_empty() || self.head_may_be_a_key()? {
            self.fetch_next_token()?;
        }
        self.available = true;
        Ok(())
    }

    /// Whether the first token in the queue may still turn out to be a key: then more must be read.
    fn head_may_be_a_key(&mut self) -> Result<bool> {
        for at in 0..self.simple_keys.len() {
            if self.still_possible(at)? && self.simple_keys[at].token_number == self.taken {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn still_possible(&mut self, at: usize) -> Result<bool> {
        let here = self.cursor.mark;
        let Some(key) = self.simple_keys.get_mut(at) else { return Ok(false) };
        if !key.possible {
            return Ok(false);
        }
        if key.mark.line < here.line || key.mark.index + LONGEST_KEY < here.index {
            if key.required {
                return error("while scanning a simple key", key.mark, "could not find expected ':'", here);
            }
            key.possible = false;
        }
        Ok(key.possible)
    }

    fn fetch_next_token(&mut self) -> Result<()> {
        self.scan_to_next_token();
        let column = i64::from(self.cursor.mark.column);
        self.unroll_indent(column);
        if self.cursor.is_end() {
            return self.fetch_stream_end();
        }
        let first = self.cursor.byte(0);
        if column == 0 && first == b'%' {
            return self.fetch_directive();
        }
        if self.cursor.is_document_indicator() {
            return self.fetch_document_indicator(first);
        }
        let in_flow = self.flow_level > 0;
        let alone = self.cursor.is_blankz_at(1);
        match first {
            b'[' => self.fetch_flow_start(Kind::FlowSequenceStart),
            b'{' => self.fetch_flow_start(Kind::FlowMappingStart),
            b']' => self.fetch_flow_end(Kind::FlowSequenceEnd),
            b'}' => self.fetch_flow_end(Kind::FlowMappingEnd),
            b',' => self.fetch_flow_entry(),
            b'-' if alone => self.fetch_block_entry(),
            b'?' if in_flow || alone => self.fetch_key(),
            b':' if in_flow || alone => self.fetch_value(),
            b'*' | b'&' => self.fetch_anchor(first == b'*'),
            b'!' => self.fetch_tag(),
            b'|' | b'>' if !in_flow => self.fetch_block_scalar(first == b'|'),
            b'\'' | b'"' => self.fetch_flow_scalar(first == b'\''),
            b'-' | b'?' | b':' => self.fetch_plain_scalar(),
            b'#' | b'|' | b'>' | b'%' | b'@' | b'`' | b' ' | b'\t' => self.stray_character(),
            _ => self.fetch_plain_scalar(),
        }
    }

    fn stray_character(&self) -> Result<()> {
        let at = self.cursor.mark;
        error("while scanning for the next token", at, "found character that cannot start any token", at)
    }

    fn save_simple_key(&mut self) -> Result<()> {
        let mark = self.cursor.mark;
        let required = self.flow_level == 0 && self.indent == i64::from(mark.column);
        if self.simple_key_allowed {
            self.remove_simple_key()?;
            let token_number = self.taken + self.tokens.len();
            if let Some(last) = self.simple_keys.last_mut() {
                *last = SimpleKey { possible: true, required, token_number, mark };
            }
        }
        Ok(())
    }

    fn remove_simple_key(&mut self) -> Result<()> {
        let here = self.cursor.mark;
        if let Some(key) = self.simple_keys.last_mut() {
            if key.possible && key.required {
                return error("while scanning a simple key", key.mark, "could not find expected ':'", here);
            }
            key.possible = false;
        }
        Ok(())
    }

    /// Begins a block collection at `column` if it is deeper than the one around; its token goes
    /// before the one with the number `before`, or to the end of the queue.
    fn roll_indent(&mut self, column: u32, before: Option<usize>, kind: Kind<'a>, mark: Mark) {
        if self.flow_level > 0 || self.indent >= i64::from(column) {
            return;
        }
        self.indents.push(self.indent);
        self.indent = i64::from(column);
        let token = Token { kind, start: mark, end: mark };
        match before {
            Some(number) => self.tokens.insert(number - self.taken, token),
            None => self.tokens.push_back(token),
        }
    }

    fn unroll_indent(&mut self, column: i64) {
        if self.flow_level > 0 {
            return;
        }
        while self.indent > column {
            self.push(Kind::BlockEnd, self.cursor.mark);
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    /// A token from `start` to here.
    fn push(&mut self, kind: Kind<'a>, start: Mark) {
        self.tokens.push_back(Token { kind, start, end: self.cursor.mark });
    }

    /// A token of `width` characters.
    fn push_indicator(&mut self, kind: Kind<'a>, width: usize) {
        let start = self.cursor.mark;
        self.cursor.skip_many(width);
        self.push(kind, start);
    }

    fn leave_all_blocks(&mut self) -> Result<()> {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        Ok(())
    }

    fn fetch_stream_end(&mut self) -> Result<()> {
        if self.cursor.mark.column != 0 {
            self.cursor.mark.column = 0;
            self.cursor.mark.line += 1;
        }
        self.leave_all_blocks()?;
        self.push(Kind::StreamEnd, self.cursor.mark);
        Ok(())
    }

    fn fetch_directive(&mut self) -> Result<()> {
        self.leave_all_blocks()?;
        let start = self.cursor.mark;
        let kind = self.scan_directive()?;
        self.push(kind, start);
        Ok(())
    }

    fn fetch_document_indicator(&mut self, first: u8) -> Result<()> {
        self.leave_all_blocks()?;
        let kind = if first == b'-' { Kind::DocumentStart } else { Kind::DocumentEnd };
        self.push_indicator(kind, 3);
        Ok(())
    }

    fn fetch_flow_start(&mut self, kind: Kind<'a>) -> Result<()> {
        self.save_simple_key()?;
        self.simple_keys.push(SimpleKey::default());
        self.flow_level += 1;
        self.simple_key_allowed = true;
        self.push_indicator(kind, 1);
        Ok(())
    }

    fn fetch_flow_end(&mut self, kind: Kind<'a>) -> Result<()> {
        self.remove_simple_key()?;
        if self.flow_level > 0 {
            self.flow_level -= 1;
            self.simple_keys.pop();
        }
        self.simple_key_allowed = false;
        self.push_indicator(kind, 1);
        Ok(())
    }

    fn fetch_flow_entry(&mut self) -> Result<()> {
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        self.push_indicator(Kind::FlowEntry, 1);
        Ok(())
    }

    /// In a block, `-`, `?` and `:` may begin a collection, but only where a key may stand.
    fn begin_block(&mut self, kind: Kind<'a>, problem: &'static str) -> Result<()> {
        if self.flow_level == 0 {
            let mark = self.cursor.mark;
            if !self.simple_key_allowed {
                return error("", mark, problem, mark);
            }
            self.roll_indent(mark.column, None, kind, mark);
        }
        Ok(())
    }

    fn fetch_block_entry(&mut self) -> Result<()> {
        let problem = "block sequence entries are not allowed in this context";
        self.begin_block(Kind::BlockSequenceStart, problem)?;
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        self.push_indicator(Kind::BlockEntry, 1);
        Ok(())
    }

    fn fetch_key(&mut self) -> Result<()> {
        self.begin_block(Kind::BlockMappingStart, "mapping keys are not allowed in this context")?;
        self.remove_simple_key()?;
        self.simple_key_allowed = self.flow_level == 0;
        self.push_indicator(Kind::Key, 1);
        Ok(())
    }

    fn fetch_value(&mut self) -> Result<()> {
        let innermost = self.simple_keys.len().saturating_sub(1);
        if self.still_possible(innermost)? {
            let key = self.simple_keys[innermost];
            let token = Token { kind: Kind::Key, start: key.mark, end: key.mark };
            self.tokens.insert(key.token_number - self.taken, token);
            self.roll_indent(key.mark.column, Some(key.token_number), Kind::BlockMappingStart, key.mark);
            self.simple_keys[innermost].possible = false;
            self.simple_key_allowed = false;
        } else {
            self.begin_block(Kind::BlockMappingStart, "mapping values are not allowed in this context")?;
            self.simple_key_allowed = self.flow_level == 0;
        }
        self.push_indicator(Kind::Value, 1);
        Ok(())
    }

    fn fetch_anchor(&mut self, alias: bool) -> Result<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.cursor.mark;
        let kind = self.scan_anchor(alias)?;
        self.push(kind, start);
        Ok(())
    }

    fn fetch_tag(&mut self) -> Result<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.cursor.mark;
        let kind = self.scan_tag()?;
        self.push(kind, start);
        Ok(())
    }

    fn fetch_block_scalar(&mut self, literal: bool) -> Result<()> {
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        let token = self.scan_block_scalar(literal)?;
        self.tokens.push_back(token);
        Ok(())
    }

    fn fetch_flow_scalar(&mut self, single: bool) -> Result<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.cursor.mark;
        let kind = self.scan_flow_scalar(single)?;
        self.push(kind, start);
        Ok(())
    }

    fn fetch_plain_scalar(&mut self) -> Result<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let token = self.scan_plain_scalar()?;
        self.tokens.push_back(token);
        Ok(())
    }

    fn scan_to_next_token(&mut self) {
        loop {
            if self.cursor.mark.column == 0 && self.cursor.bytes_are("\u{feff}".as_bytes()) {
                self.cursor.skip();
            }
            // A tab may not indent, but it may separate.
            while self.cursor.is(b' ')
                || (self.flow_level > 0 || !self.simple_key_allowed) && self.cursor.is(b'\t')
            {
                self.cursor.skip();
            }
            self.cursor.skip_comment();
            if !self.cursor.is_break() {
                return;
            }
            self.cursor.skip_line();
            if self.flow_level == 0 {
                self.simple_key_allowed = true;
            }
        }
    }
}
