//! What a server says, made so that nothing of it can be taken for a line of the runtime's.
//!
//! Both are in one log, and only the runtime's lines begin with `runsmith:`. A line of the server that begins like that, or would
//! look so, is marked. What a terminal would obey is spelt out, so that no line can look like another one; colours may stay.

use std::borrow::Cow;

use crate::visible::is_invisible;

/// How the runtime's lines begin.
const OURS: &str = "runsmith:";

/// What is put before a line of the server that begins like that.
pub const MARK: &[u8] = b"output: ";

/// Ends a colour, at the end of what has one.
const PLAIN: &[u8] = b"\x1b[0m";

/// Adds `said`, whole lines or pieces of one, to `out`. Where a piece begins a line may begin: the runtime may have said
/// something in between.
pub fn add(said: &[u8], out: &mut Vec<u8>) {
    for line in said.split_inclusive(|byte| *byte == b'\n') {
        if poses(line) {
            out.extend_from_slice(MARK);
        }
        if line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | 0x80..)) && !has_c1(line) {
            out.extend_from_slice(line);
        } else {
            spell(line, out);
        }
    }
}

/// Whether text begins as a line of the runtime's does, to whoever looks at it: what cannot be seen does not count. One that
/// ends before that is known does, too, because it may go on like that.
pub fn poses(line: &[u8]) -> bool {
    if line.first().is_none_or(|first| matches!(first, b'!'..=b'~') && !first.eq_ignore_ascii_case(&b'r')) {
        return false;
    }
    let text = String::from_utf8_lossy(line);
    let mut rest: &str = &text;
    let mut ours = OURS.chars();
    let mut wanted = ours.next();
    // A word of another script alone looks like none of ours, but for letters that are made to: wide or mathematical ones, for example.
    let mut is_alike = false;
    while let Some(first) = rest.chars().next() {
        if let Some(colour) = colour(rest.as_bytes()) {
            // What follows it may not be seen.
            if rest.get(..colour).is_some_and(conceals) {
                return rest.to_ascii_lowercase().contains(OURS);
            }
            rest = rest.get(colour..).unwrap_or_default();
            continue;
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        let is_before = wanted == Some('r');
        // Controls are spelt out, so they are seen; a tab is not.
        let is_unseen = (is_invisible(first) && !first.is_control()) || first == char::REPLACEMENT_CHARACTER;
        // Whoever turns the order of characters round can have them end as they like.
        if matches!(first, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            return true;
        }
        let is_blank = first.is_whitespace() && (first == '\t' || !first.is_control());
        if is_unseen || (is_before && is_blank) {
            continue;
        }
        // Other scripts have letters and signs that look the same. Which of them do depends on the font.
        let is_foreign = !first.is_ascii() && !first.is_whitespace();
        let is_like = |wanted: char| wanted.eq_ignore_ascii_case(&first) || is_foreign;
        if wanted.is_none_or(|wanted| !is_like(wanted)) {
            return false;
        }
        is_alike |= first.is_ascii_alphabetic() || (first >= '\u{2000}' && wanted != Some(':'));
        wanted = ours.next();
        if wanted.is_none() {
            return is_alike;
        }
    }
    wanted != Some('r')
}

/// The length of the colour that text begins with: `ESC [ numbers m` (ECMA-48, SGR).
fn colour(text: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(b"\x1b[")?;
    let end = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (rest.get(end) == Some(&b'm')).then_some(end + 3)
}

/// Whether a colour conceals what follows (ECMA-48, SGR 8), or may.
fn conceals(colour: &str) -> bool {
    colour
        .trim_matches(|c: char| !c.is_ascii_digit())
        .split([';', ':'])
        .any(|number| number.trim_start_matches('0') == "8")
}

/// Whether there is one of the controls that take two bytes (U+0080 to U+009F).
fn has_c1(text: &[u8]) -> bool {
    text.windows(2).any(|pair| matches!(pair, [0xc2, 0x80..=0x9f]))
}

/// Adds a line with what acts instead of being seen spelt out, and with the end of its colours.
fn spell(line: &[u8], out: &mut Vec<u8>) {
    let (text, end) = match line {
        [text @ .., b'\r', b'\n'] => (text, &b"\r\n"[..]),
        [text @ .., b'\n'] => (text, &b"\n"[..]),
        text => (text, &b""[..]),
    };
    let mut is_coloured = false;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (taken, shown): (usize, Cow<'_, [u8]>) = match (colour(rest), rest) {
            (Some(length), _) => {
                is_coloured = true;
                (length, Cow::Borrowed(rest.get(..length).unwrap_or_default()))
            }
            (None, [0xc2, second @ 0x80..=0x9f, ..]) => (2, escaped(*second)),
            (None, [first @ (0..=8 | 10..=31 | 127), ..]) => (1, escaped(*first)),
            (None, _) => (1, Cow::Borrowed(rest.get(..1).unwrap_or_default())),
        };
        out.extend_from_slice(&shown);
        at += taken;
    }
    if is_coloured {
        out.extend_from_slice(PLAIN);
    }
    out.extend_from_slice(end);
}

fn escaped(byte: u8) -> Cow<'static, [u8]> {
    Cow::Owned(char::from(byte).escape_default().to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(said: &[u8]) -> String {
        let mut out = vec![];
        add(said, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn what_looks_like_a_line_of_the_runtimes_is_marked() {
        for posing in [
            "runsmith: done",
            "Runsmith: done",
            "  runsmith: done",
            "\t\u{a0}runsmith: done",
            "\u{200b}runsmith: done",
            "run\u{2060}smith: done",
            "\u{1b}[1mrun\u{1b}[0msmith: done",
            "\u{fe0f}runsmith: done",
            "\u{3164} runsmith: done",
            "\u{2800}runsmith: done",
            "\u{1b}[8mhidden \u{1b}[0mrunsmith: done",
            "\u{202e}enod :htimsnur",
            "\u{2067}enod :htimsnur",
            "runsmith\u{ff1a} done",
            "runsmith\u{2236} done",
            "runsmith\u{589} done",
            "runsmith\u{fe30} done",
            "runsm\u{2373}th: done",
            "run\u{455}mith: done",
            "runsm\u{456}t\u{4bb}: done",
            "\u{ff52}unsmith: done",
            "runsm",
            "r",
        ] {
            assert!(poses(posing.as_bytes()), "{posing:?}");
            assert!(shown(posing.as_bytes()).starts_with("output: "), "{posing:?}");
        }
        for odd in [&b"\xffrunsmith: done"[..], b"\xc2runsmith: done"] {
            assert!(poses(odd), "{odd:?}");
        }
        for other in [
            "Внимание: диск",
            "",
            "  ",
            "\n",
            "run\n",
            "unsmith:",
            "x runsmith: done",
            "[runsmith: done",
            "runsmith done",
            "\rrunsmith: x",
        ] {
            assert!(!poses(other.as_bytes()), "{other:?}");
        }
        assert_eq!(shown(b"one\nrunsmith: two\nthree\n"), "one\noutput: runsmith: two\nthree\n");
    }

    #[test]
    fn what_a_terminal_obeys_is_spelt_out() {
        for (said, expected) in [
            ("a\rrunsmith: b\r\n", "a\\rrunsmith: b\r\n"),
            ("\0runsmith: b\n", "\\u{0}runsmith: b\n"),
            ("x\u{1b}[1Grunsmith: b\n", "x\\u{1b}[1Grunsmith: b\n"),
            ("x\u{9b}1Gr\n", "x\\u{9b}1Gr\n"),
            ("x\u{8}\u{b}\u{c}\u{7f}\n", "x\\u{8}\\u{b}\\u{c}\\u{7f}\n"),
            ("\u{1b}[8mhidden\n", "\u{1b}[8mhidden\u{1b}[0m\n"),
            ("\u{1b}[31mred", "\u{1b}[31mred\u{1b}[0m"),
            ("tab\tpäth 漢\n", "tab\tpäth 漢\n"),
            ("end\u{1b}[3", "end\\u{1b}[3"),
        ] {
            assert_eq!(shown(said.as_bytes()), expected, "{said:?}");
        }
        let mut out = vec![];
        add(b"\xff\xfe latin \xe4\n", &mut out);
        assert_eq!(out, b"\xff\xfe latin \xe4\n");
    }
}
