//! JSON that is written as it is made: a report may have hundreds of thousands of findings.

use std::io::{self, BufWriter, Write};

use serde::ser::{Serialize, SerializeSeq as _, Serializer};
use serde_json::Value;

/// A list whose elements are made one after the other.
pub(super) struct Each<F>(pub(super) F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for element in (self.0)() {
            list.serialize_element(&element)?;
        }
        list.end()
    }
}

/// JSON for people and programs, ending with a newline; what a terminal would obey is written `\u009b`, which means the same.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_json(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(Harmless(out));
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// JSON on one line, as [`write_json`], without a newline at its end.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_line(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    // serde_json writes in small pieces, each of which would be a virtual call.
    let mut out = BufWriter::new(Harmless(out));
    serde_json::to_writer(&mut out, value)?;
    // What the line is written to keeps its own buffer.
    out.into_inner().map(|_| ()).map_err(|error| error.into_error())
}

/// [`write_json`] as a text.
pub(super) fn json_text(value: &Value) -> String {
    let mut out = vec![];
    let _ = write_json(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Escapes what a terminal would obey. serde_json has escaped the controls below 0x80 but for DEL; others are in strings only.
struct Harmless<'a>(&'a mut dyn Write);

impl Write for Harmless<'_> {
    /// Takes whole texts, as serde_json writes them and a buffer keeps them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let acts = |c: char| c >= '\u{7f}' && crate::visible::misleads(c);
        let mut from = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| acts(*c)) {
            self.0.write_all(&text.as_bytes()[from..at])?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(self.0, "\\u{unit:04x}")?;
            }
            from = at + c.len_utf8();
        }
        self.0.write_all(&text.as_bytes()[from..])?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_cut_and_nothing_acts() {
        let text: String = "a\u{9b}é€\u{202e}😀\u{e0041}".repeat(5_000);
        let value = Value::String(text);
        let written = json_text(&value);
        assert!(!written.contains(['\u{9b}', '\u{202e}', '\u{e0041}']) && written.contains("\\u009b"));
        assert!(written.contains("é€"));
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
        assert!(json_text(&serde_json::json!({"list": []})).contains("[]"));
    }
}
