//! Text from elsewhere, made safe to print: what a terminal would obey is spelled out instead.

pub mod job_log;

use std::borrow::Cow;

/// `text` with every character that a terminal or a reader's eye could be misled by written as an
/// escape (`\n`, `\t`, `\u{1b}`): controls, bidirectional overrides, line separators and the
/// byte order mark. Anything else stays as it is, quotes and backslashes too.
pub fn visible(text: &str) -> Cow<'_, str> {
    // Nearly every text is plain ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(misleads) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if misleads(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// `text` without the numbers that Rust puts behind the system's reasons, ` (os error 2)`: they tell people nothing.
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = " (os error ";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let number = after.get(..end).unwrap_or_default();
        out.push_str(before);
        match after.get(end..).and_then(|tail| tail.strip_prefix(')')) {
            Some(tail) if !number.is_empty() => rest = tail,
            _ => {
                out.push_str(BEGIN);
                rest = after;
            }
        }
    }
    if out.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Is it a character that acts instead of being seen?
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Is it a character that a terminal or a browser shows nothing for, or one that [misleads]?
pub fn is_invisible(c: char) -> bool {
    misleads(c)
        || matches!(c,
            '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200c}' | '\u{200d}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0080}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_out_what_a_terminal_would_obey() {
        assert_eq!(visible("a\u{1b}[31m\nb\tc"), "a\\u{1b}[31m\\nb\\tc");
        assert_eq!(visible("x\u{202e}y\u{9b}"), "x\\u{202e}y\\u{9b}");
        assert_eq!(visible("soft\u{ad}hyphen"), "soft\\u{ad}hyphen");
        assert_eq!(without_numbers("a: no (os error 2); b: no (os error 13)"), "a: no; b: no");
        assert_eq!(without_numbers("(os error x) (os error 2"), "(os error x) (os error 2");
        assert!(matches!(visible("päth 'q' \\ 漢"), Cow::Borrowed(_)));
    }
}
