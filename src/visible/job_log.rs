//! Text that the log of a CI job does not obey.
//!
//! A runner reads what a step prints and obeys some of it: GitHub a line that begins with `::`, blanks before it not counted,
//! and `##[…]` anywhere in a line (actions/runner, `ActionCommand.TryParseV2` and `TryParse`); Azure Pipelines `##vso[…]` and
//! `##[…]`, TeamCity `##teamcity[…]`. What a pillar holds must not be obeyed when it is shown.

use std::borrow::Cow;

/// How a character is spelt that must not be there as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// For people, as [`super::visible`] has it: `\u{23}`.
    Text,
    /// In a JSON document, in which a string's value stays the same: `\u0023`.
    Json,
    /// In XML, in which the text stays the same: `&#35;`.
    Xml,
    /// Commands for GitHub, which begin with `::`: only `##[…]` is spelt out.
    Commands,
    /// Not at all: bytes for a program.
    Exact,
}

impl Spelling {
    fn of(self, character: u8) -> String {
        match self {
            Self::Text | Self::Commands => format!("\\u{{{character:x}}}"),
            Self::Json => format!("\\u{character:04x}"),
            Self::Xml => format!("&#{character};"),
            Self::Exact => char::from(character).to_string(),
        }
    }
}

/// Whole lines with everything that a runner would obey spelt out: the first character of it.
pub fn inert(text: &[u8], spelling: Spelling) -> Cow<'_, [u8]> {
    let is_suspicious = |pair: &[u8]| matches!(pair, b"##" | b"::");
    if spelling == Spelling::Exact || !text.windows(2).any(is_suspicious) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    for line in text.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let mut rest = line;
        let start = blank(line);
        // No command's name begins with a colon: `::: file:1:1` is how a finding shows a place in another file.
        let is_command = line[start..].starts_with(b"::") && !line[start..].starts_with(b"::: ");
        if spelling != Spelling::Commands && is_command {
            out.extend_from_slice(&line[..start]);
            out.extend_from_slice(spelling.of(b':').as_bytes());
            rest = &line[start + 1..];
        }
        while let Some(at) = bracket(rest) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(spelling.of(b'#').as_bytes());
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }
    Cow::Owned(out)
}

/// How many bytes of a line are blanks or colours before anything that is seen.
fn blank(line: &[u8]) -> usize {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut rest = text;
    loop {
        let trimmed =
            rest.trim_start_matches(|c: char| c.is_whitespace() || super::misleads(c) && c != '\u{1b}');
        let coloured = trimmed.strip_prefix("\u{1b}[").and_then(|code| {
            code.split_once('m').filter(|(code, _)| code.bytes().all(|c| c.is_ascii_digit() || c == b';'))
        });
        match coloured {
            Some((_, after)) => rest = after,
            None => return text.len() - trimmed.len(),
        }
    }
}

/// Where `##WORD[` begins, with or without a word.
fn bracket(line: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + line[from..].windows(2).position(|pair| pair == b"##")?;
        let word =
            line[at + 2..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        if line.get(at + 2 + word) == Some(&b'[') {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, spelling: Spelling) -> String {
        String::from_utf8(inert(text.as_bytes(), spelling).into_owned()).unwrap()
    }

    #[test]
    fn what_a_runner_obeys_is_spelt_out() {
        for (raw, shown) in [
            ("::add-mask::x", "\\u{3a}:add-mask::x"),
            ("a\n \t::x\n::y\r::z", "a\n \t\\u{3a}:x\n\\u{3a}:y\r\\u{3a}:z"),
            ("\u{1b}[1m\u{a0}::x", "\u{1b}[1m\u{a0}\\u{3a}:x"),
            ("x ##[add-mask]y ##[z]", "x \\u{23}#[add-mask]y \\u{23}#[z]"),
            ("##vso[task.setvariable variable=a]b", "\\u{23}#vso[task.setvariable variable=a]b"),
            ("###[a", "#\\u{23}#[a"),
            ("##teamcity[x]", "\\u{23}#teamcity[x]"),
            ("a ::b ## c [d] C++::e", "a ::b ## c [d] C++::e"),
            ("[::]:80\n##\n[", "[::]:80\n##\n["),
            ("  ::: x::y:1:1\n:::x::", "  ::: x::y:1:1\n\\u{3a}::x::"),
        ] {
            assert_eq!(text(raw, Spelling::Text), shown);
            assert_eq!(text(raw, Spelling::Exact), raw);
        }
        assert_eq!(text("::error ::##[x]", Spelling::Commands), "::error ::\\u{23}#[x]");
    }

    #[test]
    fn a_document_keeps_its_value() {
        let value = serde_json::json!({"::a": "##[b]", "c": "\n::d ##vso[e]"});
        let shown = text(&value.to_string(), Spelling::Json);
        assert!(!shown.contains("##"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(text("<a>\n::b ##[c]</a>", Spelling::Xml), "<a>\n&#58;:b &#35;#[c]</a>");
    }
}
