//! Scalars: libyaml's `scanner.c`, the part that folds lines. A scalar on one line without escapes
//! is not copied.

use super::directive::hex;
use super::scanner::Scanner;
use super::token::{Kind, Mark, Result, Token, error};
use crate::pillar::Style;
use std::borrow::Cow;

/// Line breaks between two pieces of a scalar.
#[derive(Default)]
struct Breaks {
    first: Option<char>,
    others: String,
}

impl Breaks {
    /// One line break becomes a space, more of them one less; LS and PS stay.
    fn fold_into(&mut self, text: &mut String) {
        match self.first.take() {
            Some('\n') if self.others.is_empty() => text.push(' '),
            Some('\n') | None => text.push_str(&self.others),
            Some(separator) => {
                text.push(separator);
                text.push_str(&self.others);
            }
        }
        self.others.clear();
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn scan_plain_scalar(&mut self) -> Result<Token<'a>> {
        let start = self.cursor.mark;
        let mut end = start;
        // Borrowed as long as it is on one line.
        let mut folded: Option<String> = None;
        let mut breaks = Breaks::default();
        let mut after_break = false;
        let indent = self.indent + 1;
        loop {
            if self.cursor.is_document_indicator() || self.cursor.is(b'#') {
                break;
            }
            let from = self.cursor.mark.byte;
            self.scan_plain_piece(start)?;
            let to = self.cursor.mark.byte;
            if to > from {
                if after_break {
                    let text =
                        folded.get_or_insert_with(|| self.cursor.slice(start.byte, end.byte).to_owned());
                    breaks.fold_into(text);
                    text.push_str(self.cursor.slice(from, to));
                    after_break = false;
                } else if let Some(text) = &mut folded {
                    // With the blanks before it.
                    text.push_str(self.cursor.slice(end.byte, to));
                }
                end = self.cursor.mark;
            }
            if !(self.cursor.is_blank() || self.cursor.is_break()) {
                break;
            }
            while self.cursor.is_blank() || self.cursor.is_break() {
                if self.cursor.is_blank() {
                    let column = i64::from(self.cursor.mark.column);
                    if after_break && column < indent && self.cursor.is(b'\t') {
                        let problem = "found a tab character that violates indentation";
                        return error("while scanning a plain scalar", start, problem, self.cursor.mark);
                    }
                    self.cursor.skip();
                } else {
                    let character = self.cursor.skip_line();
                    if after_break {
                        breaks.others.push(character);
                    } else {
                        breaks.first = Some(character);
                        after_break = true;
                    }
                }
            }
            if self.flow_level == 0 && i64::from(self.cursor.mark.column) < indent {
                break;
            }
        }
        if after_break {
            self.simple_key_allowed = true;
        }
        let value = match folded {
            Some(text) => Cow::Owned(text),
            None => Cow::Borrowed(self.cursor.slice(start.byte, end.byte)),
        };
        Ok(Token { kind: Kind::Scalar(value, Style::Plain), start, end })
    }

    /// Up to a blank, a line break, or what ends a plain scalar.
    fn scan_plain_piece(&mut self, start: Mark) -> Result<()> {
        let in_flow = self.flow_level > 0;
        loop {
            let run = self.cursor.run(|byte| match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b':' | 0xC2 | 0xE2 => true,
                b',' | b'[' | b']' | b'{' | b'}' => in_flow,
                _ => false,
            });
            self.cursor.skip_bytes(run);
            if self.cursor.is_blankz() {
                return Ok(());
            }
            match self.cursor.byte(0) {
                b':' if self.cursor.is_blankz_at(1) => return Ok(()),
                b':' if in_flow && matches!(self.cursor.byte(1), b',' | b'?' | b'[' | b']' | b'{' | b'}') => {
                    let problem = "found unexpected ':'";
                    return error("while scanning a plain scalar", start, problem, self.cursor.mark);
                }
                b',' | b'[' | b']' | b'{' | b'}' => return Ok(()),
                _ => self.cursor.skip(),
            }
        }
    }

    pub(super) fn scan_flow_scalar(&mut self, single: bool) -> Result<Kind<'a>> {
        let start = self.cursor.mark;
        let quote = if single { b'\'' } else { b'"' };
        self.cursor.skip();
        let run = self.cursor.run(|byte| match byte {
            b'\r' | b'\n' | 0xC2 | 0xE2 => true,
            b'\\' => !single,
            _ => byte == quote,
        });
        if self.cursor.byte(run) == quote && !(single && self.cursor.byte(run + 1) == quote) {
            let from = self.cursor.mark.byte;
            self.cursor.skip_bytes(run);
            let value = self.cursor.slice(from, from + run as u32);
            self.cursor.skip();
            return Ok(Kind::Scalar(value.into(), Style::Quoted));
        }
        let mut text = String::new();
        let mut breaks = Breaks::default();
        loop {
            if self.cursor.is_document_indicator() {
                let problem = "found unexpected document indicator";
                return error("while scanning a quoted scalar", start, problem, self.cursor.mark);
            }
            if self.cursor.is_end() {
                let problem = "found unexpected end of stream";
                return error("while scanning a quoted scalar", start, problem, self.cursor.mark);
            }
            let mut after_break = self.scan_quoted_piece(quote, start, &mut text)?;
            if self.cursor.is(quote) {
                break;
            }
            let mut blanks = self.cursor.mark.byte..self.cursor.mark.byte;
            while self.cursor.is_blank() || self.cursor.is_break() {
                if self.cursor.is_blank() {
                    self.cursor.skip();
                    if !after_break {
                        blanks.end = self.cursor.mark.byte;
                    }
                } else {
                    let character = self.cursor.skip_line();
                    if after_break {
                        breaks.others.push(character);
                    } else {
                        breaks.first = Some(character);
                        after_break = true;
                    }
                }
            }
            if after_break {
                breaks.fold_into(&mut text);
            } else {
                text.push_str(self.cursor.slice(blanks.start, blanks.end));
            }
        }
        self.cursor.skip();
        Ok(Kind::Scalar(text.into(), Style::Quoted))
    }

    /// Up to a blank, a line break or the closing quote; tells whether an escaped line break ended it.
    fn scan_quoted_piece(&mut self, quote: u8, start: Mark, text: &mut String) -> Result<bool> {
        while !self.cursor.is_blankz() {
            let from = self.cursor.mark.byte;
            match self.cursor.byte(0) {
                b'\'' if quote == b'\'' && self.cursor.byte(1) == b'\'' => {
                    text.push('\'');
                    self.cursor.skip_many(2);
                }
                byte if byte == quote => break,
                b'\\' if quote == b'"' && self.cursor.is_break_at(1) => {
                    self.cursor.skip();
                    self.cursor.skip_line();
                    return Ok(true);
                }
                b'\\' if quote == b'"' => text.push(self.scan_escape(start)?),
                _ => {
                    self.cursor.skip();
                    let run = self.cursor.run(|byte| {
                        byte == quote || matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\\' | 0xC2 | 0xE2)
                    });
                    self.cursor.skip_bytes(run);
                    text.push_str(self.cursor.slice(from, self.cursor.mark.byte));
                }
            }
        }
        Ok(false)
    }

    fn scan_escape(&mut self, start: Mark) -> Result<char> {
        let context = "while parsing a quoted scalar";
        let character = match self.cursor.byte(1) {
            b'0' => '\0',
            b'a' => '\x07',
            b'b' => '\x08',
            b't' | b'\t' => '\t',
            b'n' => '\n',
            b'v' => '\x0B',
            b'f' => '\x0C',
            b'r' => '\r',
            b'e' => '\x1B',
            b' ' => ' ',
            b'"' => '"',
            b'/' => '/',
            b'\\' => '\\',
            b'N' => '\u{85}',
            b'_' => '\u{A0}',
            b'L' => '\u{2028}',
            b'P' => '\u{2029}',
            b'x' => return self.scan_code(2, start),
            b'u' => return self.scan_code(4, start),
            b'U' => return self.scan_code(8, start),
            _ => return error(context, start, "found unknown escape character", self.cursor.mark),
        };
        self.cursor.skip_many(2);
        Ok(character)
    }

    fn scan_code(&mut self, length: usize, start: Mark) -> Result<char> {
        let context = "while parsing a quoted scalar";
        self.cursor.skip_many(2);
        let mut value: u32 = 0;
        for at in 0..length {
            let Some(digit) = hex(self.cursor.byte(at)) else {
                let problem = "did not find expected hexadecimal number";
                return error(context, start, problem, self.cursor.mark);
            };
            value = value << 4 | u32::from(digit);
        }
        let Some(character) = char::from_u32(value) else {
            let problem = "found invalid Unicode character escape code";
            return error(context, start, problem, self.cursor.mark);
        };
        self.cursor.skip_many(length);
        Ok(character)
    }

    pub(super) fn scan_block_scalar(&mut self, literal: bool) -> Result<Token<'a>> {
        let context = "while scanning a block scalar";
        let start = self.cursor.mark;
        self.cursor.skip();
        let (keep, increment) = self.scan_block_header(start)?;
        self.cursor.skip_blanks();
        self.cursor.skip_comment();
        if !self.cursor.is_breakz() {
            return error(context, start, "did not find expected comment or line break", self.cursor.mark);
        }
        if self.cursor.is_break() {
            self.cursor.skip_line();
        }
        let mut end = self.cursor.mark;
        let mut indent = match increment {
            Some(increment) => Some(self.indent.max(0) + increment),
            None => None,
        };
        let mut text = String::new();
        let mut first = None;
        let mut others = String::new();
        let mut led_by_blank = false;
        let mut column = self.scan_block_breaks(&mut indent, &mut others, start, &mut end)?;
        while i64::from(self.cursor.mark.column) == column && !self.cursor.is_end() {
            let blank = self.cursor.is_blank();
            // A folded line joins the next one, unless either of them begins with a blank.
            if !literal && first == Some('\n') && !led_by_blank && !blank {
                if others.is_empty() {
                    text.push(' ');
                }
            } else {
                text.extend(first);
            }
            first = None;
            text.push_str(&others);
            others.clear();
            led_by_blank = blank;
            let from = self.cursor.mark.byte;
            loop {
                let run = self.cursor.run(|byte| matches!(byte, b'\r' | b'\n' | 0xC2 | 0xE2));
                self.cursor.skip_bytes(run);
                if self.cursor.is_breakz() {
                    break;
                }
                self.cursor.skip();
            }
            text.push_str(self.cursor.slice(from, self.cursor.mark.byte));
            if self.cursor.is_break() {
                first = Some(self.cursor.skip_line());
            }
            column = self.scan_block_breaks(&mut indent, &mut others, start, &mut end)?;
        }
        if keep != Some(false) {
            text.extend(first);
        }
        if keep == Some(true) {
            text.push_str(&others);
        }
        Ok(Token { kind: Kind::Scalar(text.into(), Style::Block), start, end })
    }

    /// Chomping (`+` keeps, `-` strips) and indentation, in either order.
    fn scan_block_header(&mut self, start: Mark) -> Result<(Option<bool>, Option<i64>)> {
        let mut keep = None;
        let mut increment = None;
        for _ in 0..2 {
            match self.cursor.byte(0) {
                sign @ (b'+' | b'-') if keep.is_none() => keep = Some(sign == b'+'),
                b'0' if increment.is_none() => {
                    let problem = "found an indentation indicator equal to 0";
                    return error("while scanning a block scalar", start, problem, self.cursor.mark);
                }
                digit @ b'1'..=b'9' if increment.is_none() => increment = Some(i64::from(digit - b'0')),
                _ => break,
            }
            self.cursor.skip();
        }
        Ok((keep, increment))
    }

    /// Past empty lines and the indentation of the next one. Without an indentation yet, the most
    /// indented of these lines sets it. Tells the column of the text.
    fn scan_block_breaks(
        &mut self,
        indent: &mut Option<i64>,
        breaks: &mut String,
        start: Mark,
        end: &mut Mark,
    ) -> Result<i64> {
        let mut deepest = 0;
        *end = self.cursor.mark;
        loop {
            let unset = |column: u32| indent.is_none_or(|indent| i64::from(column) < indent);
            while unset(self.cursor.mark.column) && self.cursor.is(b' ') {
                self.cursor.skip();
            }
            deepest = deepest.max(i64::from(self.cursor.mark.column));
            if unset(self.cursor.mark.column) && self.cursor.is(b'\t') {
                let problem = "found a tab character where an indentation space is expected";
                return error("while scanning a block scalar", start, problem, self.cursor.mark);
            }
            if !self.cursor.is_break() {
                break;
            }
            breaks.push(self.cursor.skip_line());
            *end = self.cursor.mark;
        }
        Ok(*indent.get_or_insert_with(|| deepest.max(self.indent + 1).max(1)))
    }
}
