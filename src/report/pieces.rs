//! Pieces of a secret in the sentences of a finding about the place where it stands. A sentence may quote the port of an address, an
//! option of a command, a step of a path: if that is a part of a secret, it is masked, however short it is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use crate::model::veil::{MASK, SHORTEST};
use crate::services::readings;

/// So many bytes of secrets are looked at for the sentences of all findings: much more than the findings of a run are about, and done
/// in a second. Beyond that every quotation in a sentence about a secret is masked.
pub(super) const MOST_SEARCHED: usize = 64 << 20;

/// A byte of a secret counts so often, because it is read in each dialect, too.
const COST: usize = 8;

/// A longer secret is not searched, in bytes: every quotation is masked.
const LONGEST_SEARCHED: usize = 64 << 10;

/// So many quotations of one sentence are looked for; no sentence has more, unless what it quotes is full of quotes.
const MOST_QUOTED: usize = 64;

/// So many bytes in a row that a sentence and a secret have in common.
type Window = [u8; SHORTEST];

/// Secrets that a finding is about.
#[derive(Default)]
pub(super) struct Secrets {
    /// As they are written and as they are read, in small letters: an address is quoted as the kernel takes it.
    texts: Vec<String>,
    /// One of them is not searched.
    is_unknown: bool,
    /// The finding is about nothing else than a secret.
    is_all: bool,
}

impl Secrets {
    /// Adds a secret. `is_all`: what the finding points at is a part of it; else it is a part of that. Of `left` is taken what it
    /// costs.
    pub(super) fn add(&mut self, text: &str, is_all: bool, left: &mut usize) {
        self.is_all |= is_all;
        let cost = left.checked_sub(COST * text.len()).filter(|_| text.len() <= LONGEST_SEARCHED);
        let Some(rest) = cost else {
            self.is_unknown |= is_all;
            return;
        };
        *left = rest;
        let bare = text.trim_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
        self.texts.push(bare.to_ascii_lowercase());
        let read = readings(text);
        let encoded = read.iter().map(String::as_str).chain([bare]).filter(|text| text.contains('%'));
        let decoded: Vec<String> = encoded.map(decoded).collect();
        self.texts.extend(read.iter().chain(&decoded).map(|text| text.to_ascii_lowercase()));
    }

    /// What these sentences have of them.
    pub(super) fn in_common<'s>(self, sentences: impl Iterator<Item = &'s str>) -> Common {
        let mut common = Common { windows: HashSet::new(), words: HashSet::new(), secrets: self };
        if common.secrets.texts.is_empty() {
            return common;
        }
        let sentences: Vec<String> = sentences.map(str::to_ascii_lowercase).collect();
        let said: HashSet<Window> = sentences.iter().flat_map(|text| windows(text)).collect();
        let words: HashSet<&str> = sentences.iter().flat_map(|text| words(text)).collect();
        for text in &common.secrets.texts {
            common.windows.extend(windows(text).filter(|window| said.contains(window)));
            let found = self::words(text).filter(|word| words.contains(word));
            common.words.extend(found.map(str::to_owned));
        }
        common
    }
}

/// What sentences have of secrets.
pub(super) struct Common {
    windows: HashSet<Window>,
    words: HashSet<String>,
    secrets: Secrets,
}

impl Common {
    /// A sentence without pieces of the secrets.
    pub(super) fn cover<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.secrets.texts.is_empty() && !self.secrets.is_unknown {
            return Cow::Borrowed(text);
        }
        let lower = text.to_ascii_lowercase();
        let mut ranges = self.runs(&lower);
        // What is near to a secret says what the secret is near to.
        let is_guess = self.secrets.is_all && text.contains("did you mean");
        let all = self.secrets.is_unknown || is_guess;
        for (pieces, all) in [(quoted(&lower), all), (between_quotes(&lower), false)] {
            let all = all || pieces.len() > MOST_QUOTED;
            ranges.extend(
                pieces
                    .into_iter()
                    .filter_map(|range| if all { Some(range) } else { self.found(&lower, range) }),
            );
        }
        ranges.extend(self.compounds(&lower));
        masked(text, ranges)
    }

    /// What stands there, if it is a piece of a secret or holds a word of one; without the sign that a sentence sets before a name.
    fn found(&self, text: &str, range: Range<usize>) -> Option<Range<usize>> {
        let piece = text.get(range.clone()).filter(|piece| !piece.is_empty())?;
        let plain = unescaped(piece);
        let is_piece = |text: &String| text.contains(piece) || (!plain.is_empty() && text.contains(&*plain));
        if self.secrets.texts.iter().any(is_piece) {
            return Some(range);
        }
        let name = piece.trim_start_matches(['&', '*', '!']);
        self.has_word(name).then_some(range.end - name.len()..range.end)
    }

    fn has_word(&self, text: &str) -> bool {
        words(text).any(|word| {
            (word.len() > 1 || word.bytes().all(|byte| byte.is_ascii_digit())) && self.words.contains(word)
        })
    }

    /// Whatever is long enough, quoted or not.
    fn runs(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = vec![];
        for (at, _) in windows(text).enumerate().filter(|(_, window)| self.windows.contains(window)) {
            match ranges.last_mut() {
                Some(last) if at <= last.end => last.end = at + SHORTEST,
                _ => ranges.push(at..at + SHORTEST),
            }
        }
        ranges
    }

    /// Words that nobody writes in a sentence of their own accord, a number or `0.0.0.0:80`, if they hold a word of a secret.
    fn compounds(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges = vec![];
        let mut at = 0;
        for word in text.split_inclusive(char::is_whitespace) {
            let is_mark = |c: char| c.is_whitespace() || "`'\".,;:()…".contains(c);
            let bare = word.trim_start_matches(|c| is_mark(c) || "&*!".contains(c));
            let start = at + word.len() - bare.len();
            let bare = bare.trim_end_matches(is_mark);
            // A digit is a part of many numbers.
            let is_part = |word: &str| (word.len() > 1 || word == bare) && self.words.contains(word);
            if !bare.chars().all(|c| c.is_alphabetic() || c == '-') && words(bare).any(is_part) {
                ranges.push(start..start + bare.len());
            }
            at += word.len();
        }
        ranges
    }
}

fn windows(text: &str) -> impl Iterator<Item = Window> {
    text.as_bytes().windows(SHORTEST).filter_map(|window| window.try_into().ok())
}

/// Letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What stands between quotes as sentences set them. What is cut off may have lost the second one.
fn quoted(text: &str) -> Vec<Range<usize>> {
    let mut ranges = vec![];
    let mut before = None;
    let mut after = 0;
    for (at, quote) in text.char_indices() {
        let previous = before.replace(quote);
        let is_apostrophe = previous.is_some_and(char::is_alphanumeric);
        if at < after || !matches!(quote, '`' | '"' | '\'') || is_apostrophe {
            continue;
        }
        let start = at + 1;
        let rest = text.get(start..).unwrap_or_default();
        let end = match closing(rest, quote) {
            Some(end) => end,
            None if quote == '\'' => continue,
            None => rest.find('…').unwrap_or(rest.len()),
        };
        ranges.push(start..start + end);
        after = start + end + 1;
    }
    ranges
}

/// Where a quotation ends. Rust escapes quotes in what it quotes itself, not in what stands between backquotes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        if c == quote && !is_escaped {
            return Some(at);
        }
        is_escaped = c == '\\' && !is_escaped && quote != '`';
        None
    })
}

/// What stands between any two quotes of a kind that follow each other: what is quoted may hold quotes itself.
fn between_quotes(text: &str) -> Vec<Range<usize>> {
    let mut ranges = vec![];
    for quote in ['`', '"', '\''] {
        let places: Vec<usize> = text.match_indices(quote).map(|(at, _)| at).collect();
        let pairs =
            places.windows(2).filter_map(|pair| if let [a, b] = pair { Some(a + 1..*b) } else { None });
        ranges.extend(pairs.filter(|range| {
            text.get(range.clone()).is_some_and(|piece| piece.contains(char::is_alphanumeric))
        }));
    }
    ranges
}

/// A text as it was before Rust escaped it.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.strip_prefix("u{").and_then(|code| code.split_once('}'));
        let c = code.and_then(|(digits, _)| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        let mut chars = after.chars();
        match (c, code, chars.next()) {
            (Some(c), Some((_, behind)), _) => {
                out.push(c);
                rest = behind;
                continue;
            }
            (.., Some('n')) => out.push('\n'),
            (.., Some('r')) => out.push('\r'),
            (.., Some('t')) => out.push('\t'),
            (.., Some('0')) => out.push('\0'),
            (.., Some(c)) => out.push(c),
            (.., None) => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A text in which each `%` and two digits are a byte: so tags are read (YAML 1.2, 5.6).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { others.get(2..).unwrap_or_default() } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text with a mask in the place of each run of bytes that is in some of these ranges.
fn masked(text: &str, mut ranges: Vec<Range<usize>>) -> Cow<'_, str> {
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    // A mask is longer than a quote is: of very many, those that only a quote parts become one.
    let apart = usize::from(ranges.len() > MOST_QUOTED);
    ranges.dedup_by(|next, kept| {
        let meet = next.start <= kept.end + apart;
        if meet {
            kept.end = kept.end.max(next.end);
        }
        meet
    });
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for Range { mut start, mut end } in ranges {
        // A window may begin within a character.
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        // Blanks at its ends part it from what follows.
        let piece = text.get(start..end).unwrap_or_default();
        if piece.trim().is_empty() {
            continue;
        }
        start += piece.len() - piece.trim_start().len();
        end -= piece.len() - piece.trim_end().len();
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(MASK);
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(secret: &str, is_all: bool, sentence: &str) -> String {
        let mut secrets = Secrets::default();
        let mut left = MOST_SEARCHED;
        secrets.add(secret, is_all, &mut left);
        secrets.in_common([sentence].into_iter()).cover(sentence).into_owned()
    }

    #[test]
    fn pieces_of_a_secret_are_masked_in_a_sentence_about_it() {
        for (secret, sentence, want) in [
            (
                "hunter2:99999",
                "`bind`: \"99999\" is not a port: expected a number from 1 to 65535",
                "`bind`: \"********\" is not a port: expected a number from 1 to 65535",
            ),
            // However short, and whatever is made of it.
            ("ab:x", "`app`: `ab` is a file; write ab:x", "`app`: `********` is a file; write ********"),
            ("*:x7", "for every address write \"0.0.0.0:x7\"", "for every address write \"********\""),
            ("a&b", "'&' has no meaning here", "'********' has no meaning here"),
            ("\"a\\x09b\"", "it holds \"a\\tb\"", "it holds \"********\""),
            ("HUNTER:80", "listens on hunter:80, which overlaps", "listens on ********, which overlaps"),
            ("0x1F", "`workers` is 31, and the most is 9", "`workers` is ********, and the most is 9"),
            ("a`b", "no `a`b` here", "no `********`********` here"),
            ("!hun%74er", "the tag `!hunter`", "the tag `********`"),
            ("*ab", "there is no anchor `&ab` here", "there is no anchor `&********` here"),
            ("correct horse", "a correct horse is none", "a ******** is none"),
            ("horses x", "four horses run", "four ******** run"),
            ("h\u{e9}\u{e9}\u{e9}\u{e9}r", "is xh\u{e9}\u{e9}\u{e9}\u{e9}rx", "is x********x"),
            // Of what is cut off.
            ("abc-def", "no \"abc-de…", "no \"********…"),
            ("1e3", "YAML 1.2 reads 1000.0 here", "YAML 1.2 reads ******** here"),
            ("7", "it is 7, and YAML 1.7 too", "it is ********, and YAML 1.7 too"),
            // The words of a sentence are its own.
            ("drop it", "what the tool would drop; it ends", "what the tool would drop; it ends"),
            ("swordfish", "gunicorn's own `bind` is \"1\"", "gunicorn's own `bind` is \"1\""),
            ("1.5", "YAML 1.2 reads `1.5`", "YAML 1.2 reads `********`"),
            ("abc", "", ""),
            ("", "no `x`", "no `x`"),
        ] {
            assert_eq!(cover(secret, true, sentence), want, "{secret}: {sentence}");
        }
        // What it is like would say what it is.
        assert_eq!(cover("gevnt", true, "did you mean `gevent`?"), "did you mean `********`?");
        assert_eq!(cover("gevnt", false, "did you mean `gevent`?"), "did you mean `gevent`?");
    }

    /// What is quoted may be full of quotes, each of which might begin a quotation.
    #[test]
    fn a_sentence_with_very_many_quotes() {
        let secret = "`a".repeat(20_000);
        let sentence = format!("`app`: `{secret}` is none");
        let shown = cover(&secret, true, &sentence);
        assert!(!shown.contains('a') && shown.len() < 100, "{shown:.1000}");
        assert_eq!(cover("x1", true, &"`y` ".repeat(MOST_QUOTED)), "`y` ".repeat(MOST_QUOTED));
        assert!(!cover("x1", true, &"`y` ".repeat(MOST_QUOTED + 1)).contains('y'));
    }

    /// The secrets of all findings together are searched up to a limit.
    #[test]
    fn what_is_not_searched_has_every_quotation_masked() {
        let long = "x".repeat(LONGEST_SEARCHED + 1);
        let want = "`********`: \"********\" is none";
        assert_eq!(cover(&long, true, "`bind`: \"99999\" is none"), want);
        // A place that has it among other things is not quoted as a whole.
        assert_eq!(cover(&long, false, "`bind`: \"99999\" is none"), "`bind`: \"99999\" is none");
        let mut left = 10 * COST;
        let mut first = Secrets::default();
        first.add("hunter2:99", true, &mut left);
        assert!(left == 0 && !first.is_unknown);
        let mut second = Secrets::default();
        second.add("x", true, &mut left);
        assert_eq!(second.in_common(std::iter::empty()).cover("`bind`: \"99999\" is none"), want);
    }
}
