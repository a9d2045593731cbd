//! Standard output, spelt such that the log of a CI job does not obey it.

use std::io::{self, Write};

use crate::visible::job_log::{Spelling, inert};

/// Bytes that are kept until they are worth a system call.
const BUFFER: usize = 1 << 16;

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
            return Ok(());
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
        Ok(())
    }

    /// Writes a line that has no end, too.
    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.inner.write_all(&inert(&line, self.spelling))?;
        self.inner.flush()
    }
}
