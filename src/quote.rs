//! Values as words of sh, literals of Python and Ruby, and scalars of YAML.
//!
//! Each function gives text that its language reads back as exactly the value. NUL never gets
//! here: a pillar that holds one is refused.

use std::fmt::{self, Write};

/// One word of sh in single quotes, where only the single quote itself is special.
/// A word that needs no quotes gets them all the same, so that a change of value is all that a diff shows.
pub(crate) fn sh(text: &str, out: &mut dyn Write) -> fmt::Result {
    out.write_char('\'')?;
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.write_str("'\\''")?;
        }
        out.write_str(part)?;
    }
    out.write_char('\'')
}

/// A Python string literal in double quotes.
pub(crate) fn python(text: &str, out: &mut dyn Write) -> fmt::Result {
    escaped(text, out, |c, out| match c {
        '#' => out.write_char('#'),
        '"' | '\\' => write!(out, "\\{c}"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c if u32::from(c) < 0x10000 => write!(out, "\\u{:04x}", u32::from(c)),
        c => write!(out, "\\U{:08x}", u32::from(c)),
    })
}

/// A Ruby string literal in double quotes; `#` is escaped because `#{`, `#$` and `#@` interpolate.
pub(crate) fn ruby(text: &str, out: &mut dyn Write) -> fmt::Result {
    escaped(text, out, |c, out| match c {
        '"' | '\\' | '#' => write!(out, "\\{c}"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    })
}

/// A YAML scalar that every dialect reads as this string: bare where no dialect sees anything else
/// in it, otherwise in double quotes.
pub(crate) fn yaml(text: &str, out: &mut dyn Write) -> fmt::Result {
    if is_plain(text) {
        return out.write_str(text);
    }
    escaped(text, out, |c, out| match c {
        '"' | '\\' => write!(out, "\\{c}"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '#' => out.write_char('#'),
        c if u32::from(c) < 0x10000 => write!(out, "\\u{:04x}", u32::from(c)),
        c => write!(out, "\\U{:08x}", u32::from(c)),
    })
}

/// In double quotes, with what is not plainly visible handed to `special`: quotes, backslashes,
/// `#`, controls, line separators, byte order marks, and what turns the direction of text, which
/// could make a reviewer read something else than the machine.
fn escaped(
    text: &str,
    out: &mut dyn Write,
    special: impl Fn(char, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    out.write_char('"')?;
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        if matches!(c, '"' | '\\' | '#') || hidden(c) {
            out.write_str(&text[plain..at])?;
            special(c, out)?;
            plain = at + c.len_utf8();
        }
    }
    out.write_str(&text[plain..])?;
    out.write_char('"')
}

/// Characters that do not show, or that make others show elsewhere.
pub fn hidden(c: char) -> bool {
    // Nearly all of a text is this, so it comes first.
    if matches!(c, ' '..='~') {
        return false;
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{fffe}' | '\u{ffff}')
}

fn is_plain(text: &str) -> bool {
    let first = text.as_bytes().first().copied().unwrap_or(b'-');
    (first.is_ascii_alphabetic() || first == b'/' || first == b'_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'.' | b'-' | b'+'))
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
}

/// One line for a comment: what does not show is spelt out, so that no value ends the comment.
pub fn comment(text: &str) -> String {
    // Nearly every text is plain ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(hidden) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(quote: fn(&str, &mut dyn Write) -> fmt::Result, text: &str) -> String {
        let mut out = String::new();
        quote(text, &mut out).unwrap();
        out
    }

    #[test]
    fn quotes() {
        assert_eq!(with(sh, "it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(with(sh, ""), "''");
        assert_eq!(with(python, "a\"\\\n\u{7f}ü\u{202e}#"), "\"a\\\"\\\\\\n\\x7fü\\u202e#\"");
        assert_eq!(with(ruby, "#{1} \"\u{1}"), "\"\\#{1} \\\"\\u{1}\"");
        assert_eq!(with(yaml, "/srv/x.sock"), "/srv/x.sock");
        assert_eq!(with(yaml, "no"), "\"no\"");
        assert_eq!(with(yaml, "0022"), "\"0022\"");
        assert_eq!(with(yaml, "a: b # c"), "\"a: b # c\"");
        assert_eq!(comment("a\nb"), "a\\u{a}b");
    }
}
