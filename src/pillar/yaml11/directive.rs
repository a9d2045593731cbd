//! Directives, anchors and tags: libyaml's `scanner.c`, the part with the punctuation.

use super::scanner::Scanner;
use super::token::{Kind, Mark, Result, error};
use std::borrow::Cow;

/// The longest version number libyaml reads.
const LONGEST_VERSION: usize = 9;

impl<'a> Scanner<'a> {
    pub(super) fn scan_directive(&mut self) -> Result<Kind<'a>> {
        let start = self.cursor.mark;
        self.cursor.skip();
        let name = self.scan_name();
        let context = "while scanning a directive";
        if name.is_empty() {
            return error(context, start, "could not find expected directive name", self.cursor.mark);
        }
        if !self.cursor.is_blankz() {
            return error(context, start, "found unexpected non-alphabetical character", self.cursor.mark);
        }
        let kind = match name {
            "YAML" => self.scan_version(start)?,
            "TAG" => self.scan_tag_directive(start)?,
            _ => return error(context, start, "found unknown directive name", self.cursor.mark),
        };
        self.cursor.skip_blanks();
        self.cursor.skip_comment();
        if !self.cursor.is_breakz() {
            return error(context, start, "did not find expected comment or line break", self.cursor.mark);
        }
        if self.cursor.is_break() {
            self.cursor.skip_line();
        }
        Ok(kind)
    }

    fn scan_name(&mut self) -> &'a str {
        let start = self.cursor.mark.byte;
        while self.cursor.is_alpha() {
            self.cursor.skip();
        }
        self.cursor.slice(start, self.cursor.mark.byte)
    }

    fn scan_version(&mut self, start: Mark) -> Result<Kind<'a>> {
        self.cursor.skip_blanks();
        let major = self.scan_version_number(start)?;
        if !self.cursor.is(b'.') {
            let problem = "did not find expected digit or '.' character";
            return error("while scanning a %YAML directive", start, problem, self.cursor.mark);
        }
        self.cursor.skip();
        let minor = self.scan_version_number(start)?;
        Ok(Kind::VersionDirective(major, minor))
    }

    fn scan_version_number(&mut self, start: Mark) -> Result<u32> {
        let context = "while scanning a %YAML directive";
        let mut value = 0;
        let mut length = 0;
        while self.cursor.byte(0).is_ascii_digit() {
            length += 1;
            if length > LONGEST_VERSION {
                return error(context, start, "found extremely long version number", self.cursor.mark);
            }
            value = value * 10 + u32::from(self.cursor.byte(0) - b'0');
            self.cursor.skip();
        }
        if length == 0 {
            return error(context, start, "did not find expected version number", self.cursor.mark);
        }
        Ok(value)
    }

    fn scan_tag_directive(&mut self, start: Mark) -> Result<Kind<'a>> {
        let context = "while scanning a %TAG directive";
        self.cursor.skip_blanks();
        let handle = self.scan_tag_handle(true, start)?;
        if !self.cursor.is_blank() {
            return error(context, start, "did not find expected whitespace", self.cursor.mark);
        }
        self.cursor.skip_blanks();
        let prefix = self.scan_tag_uri(true, "", start)?;
        if !self.cursor.is_blankz() {
            return error(context, start, "did not find expected whitespace or line break", self.cursor.mark);
        }
        Ok(Kind::TagDirective(handle.into(), prefix))
    }

    pub(super) fn scan_anchor(&mut self, alias: bool) -> Result<Kind<'a>> {
        let start = self.cursor.mark;
        self.cursor.skip();
        let name = self.scan_name();
        let ends = self.cursor.is_blankz()
            || matches!(self.cursor.byte(0), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !ends {
            let context = if alias { "while scanning an alias" } else { "while scanning an anchor" };
            let problem = "did not find expected alphabetic or numeric character";
            return error(context, start, problem, self.cursor.mark);
        }
        Ok(if alias { Kind::Alias(name) } else { Kind::Anchor(name) })
    }

    pub(super) fn scan_tag(&mut self) -> Result<Kind<'a>> {
        let context = "while scanning a tag";
        let start = self.cursor.mark;
        let (handle, suffix): (Cow<'a, str>, Cow<'a, str>);
        if self.cursor.byte(1) == b'<' {
            self.cursor.skip_many(2);
            handle = "".into();
            suffix = self.scan_tag_uri(true, "", start)?;
            if !self.cursor.is(b'>') {
                return error(context, start, "did not find the expected '>'", self.cursor.mark);
            }
            self.cursor.skip();
        } else {
            let head = self.scan_tag_handle(false, start)?;
            if head.len() > 1 && head.ends_with('!') {
                handle = head.into();
                suffix = self.scan_tag_uri(false, "", start)?;
            } else {
                let rest = self.scan_tag_uri(false, head, start)?;
                // A lone `!` is the handle of nothing: libyaml keeps it as the suffix.
                (handle, suffix) = if rest.is_empty() { ("".into(), "!".into()) } else { ("!".into(), rest) };
            }
        }
        let ends = self.cursor.is_blankz() || self.flow_level > 0 && self.cursor.is(b',');
        if !ends {
            return error(context, start, "did not find expected whitespace or line break", self.cursor.mark);
        }
        Ok(Kind::Tag(handle, suffix))
    }

    fn scan_tag_handle(&mut self, directive: bool, start: Mark) -> Result<&'a str> {
        let context = if directive { "while scanning a directive" } else { "while scanning a tag" };
        let from = self.cursor.mark.byte;
        if !self.cursor.is(b'!') {
            return error(context, start, "did not find expected '!'", self.cursor.mark);
        }
        self.cursor.skip();
        self.scan_name();
        if self.cursor.is(b'!') {
            self.cursor.skip();
        } else if directive && self.cursor.mark.byte - from != 1 {
            return error("while parsing a directive", start, "did not find expected '!'", self.cursor.mark);
        }
        Ok(self.cursor.slice(from, self.cursor.mark.byte))
    }

    /// The rest of a tag after `head`, whose first character is no part of it. `verbatim` allows
    /// the indicators of flow collections.
    fn scan_tag_uri(&mut self, verbatim: bool, head: &str, start: Mark) -> Result<Cow<'a, str>> {
        let context = "while parsing a tag";
        let mut bytes = head.as_bytes().get(1..).unwrap_or_default().to_vec();
        let mut length = head.len();
        loop {
            match self.cursor.byte(0) {
                b'%' => self.scan_uri_escapes(&mut bytes, start)?,
                byte if is_uri(byte) || verbatim && matches!(byte, b',' | b'[' | b']') => {
                    bytes.push(byte);
                    self.cursor.skip();
                }
                _ => break,
            }
            length += 1;
        }
        if length == 0 {
            return error(context, start, "did not find expected tag URI", self.cursor.mark);
        }
        match String::from_utf8(bytes) {
            Ok(uri) => Ok(uri.into()),
            Err(_) => error(context, start, "found escapes that are not UTF-8", self.cursor.mark),
        }
    }

    fn scan_uri_escapes(&mut self, bytes: &mut Vec<u8>, start: Mark) -> Result<()> {
        let context = "while parsing a tag";
        let mut width = 0;
        loop {
            let digits = (hex(self.cursor.byte(1)), hex(self.cursor.byte(2)));
            let (true, (Some(high), Some(low))) = (self.cursor.is(b'%'), digits) else {
                return error(context, start, "did not find URI escaped octet", self.cursor.mark);
            };
            let octet = high << 4 | low;
            if width == 0 {
                width = match octet {
                    0..=0x7F => 1,
                    0xC0..=0xDF => 2,
                    0xE0..=0xEF => 3,
                    0xF0..=0xF7 => 4,
                    _ => {
                        let problem = "found an incorrect leading UTF-8 octet";
                        return error(context, start, problem, self.cursor.mark);
                    }
                };
            } else if octet & 0xC0 != 0x80 {
                return error(context, start, "found an incorrect trailing UTF-8 octet", self.cursor.mark);
            }
            bytes.push(octet);
            self.cursor.skip_many(3);
            width -= 1;
            if width == 0 {
                return Ok(());
            }
        }
    }
}

pub(super) fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn is_uri(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-;/?:@&=+$.!~*'()".contains(&byte)
}
