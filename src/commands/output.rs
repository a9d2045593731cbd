//! Standard output, spelt such that the log of a CI job does not obey it.

use std::io::{self, Write};

use crate::visible::job_log::{Spelling, inert};

/// Bytes that are kept until they are worth a system call.
const BUFFER: usize = 1 << 16;

/// A line of so many bytes is not kept until it ends.
const LONG: usize = 1 << 20;

/// So many bytes of a line are kept at the most, because they may be the beginning of a command.
const LONGEST_WORD: usize = 1 << 12;

/// Standard output; whole lines pass through [`inert`].
pub(crate) struct Output {
    inner: io::BufWriter<io::Stdout>,
    spelling: Spelling,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Output {
    /// For people, unless [`Self::spell`] says otherwise.
    pub(super) fn new() -> Self {
        let inner = io::BufWriter::with_capacity(BUFFER, io::stdout());
        Self { inner, spelling: Spelling::Text, line: vec![] }
    }

    /// How what follows is spelt.
    pub(super) fn spell(&mut self, spelling: Spelling) {
        self.spelling = spelling;
    }
}

impl Output {
    /// Writes most of a long line of JSON: a file of hundreds of megabytes is one. In JSON it does no harm if what follows is
    /// taken for the beginning of a line, since its spelling means the same.
    fn write_long(&mut self) -> io::Result<()> {
        if self.spelling != Spelling::Json || self.line.len() < LONG {
            return Ok(());
        }
        let rest = self.line.split_off(end_of_words(&self.line));
        self.inner.write_all(&inert(&self.line, self.spelling))?;
        self.line = rest;
        Ok(())
    }
}

/// Where the last piece of a line begins that may be the first half of `##WORD[`. No command has a word of `LONGEST_WORD` bytes.
fn end_of_words(line: &[u8]) -> usize {
    let is_part = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b'-' | b':' | b'\\') || !byte.is_ascii()
    };
    let from = line.len().saturating_sub(LONGEST_WORD);
    let tail = line.get(from..).unwrap_or_default();
    from + tail.iter().rposition(|byte| !is_part(byte)).map_or(0, |at| at + 1)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.spelling == Spelling::Exact {
            return self.inner.write_all(bytes);
        }
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            return self.write_long();
        };
        let (whole, rest) = bytes.split_at(end + 1);
        if self.line.is_empty() {
            self.inner.write_all(&inert(whole, self.spelling))?;
        } else {
            self.line.extend_from_slice(whole);
            self.inner.write_all(&inert(&self.line, self.spelling))?;
            self.line.clear();
        }
        self.line.extend_from_slice(rest);
        self.write_long()
    }

    /// Writes a line that has no end, too.
    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.inner.write_all(&inert(&line, self.spelling))?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_where_no_command_is() {
        for (line, kept) in [
            ("a b ##add", "##add"),
            ("a ##add-mask[x", "x"),
            ("a::b", "a::b"),
            ("x \\u003", "\\u003"),
            ("é, é", "é"),
            ("a ", ""),
        ] {
            assert_eq!(&line[end_of_words(line.as_bytes())..], kept, "{line}");
        }
    }
}
