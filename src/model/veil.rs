//! The values of secrets, masked wherever else they are: in files that are not secret, in sentences, in the texts of pillars.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::given::up_to;
use super::secret::parts;
use crate::quote;
use crate::visible::visible;

/// What is printed instead of a secret, whatever its length.
pub const MASK: &str = "********";

/// Values of fewer bytes are not masked elsewhere: `1` or `true` is a part of everything.
pub const SHORTEST: usize = 6;

/// In what an application says no name of ours is, and shorter values are masked, too.
const SHORTEST_SAID: usize = 4;

/// So many bytes of values are looked for exactly: the search takes some 50 bytes of memory for each.
const MOST: usize = 2 << 20;

/// A value of more bytes is not looked for as a whole: in a text that repeats itself, as the value does, each byte of the text would
/// cost as much as the value is long.
const LONGEST: usize = 4 << 10;

/// So many bytes of a longer one are looked for, and what follows them on their line is covered.
const BEGINNING: usize = 1 << 10;

/// What covers secrets.
#[derive(Debug, Default)]
pub struct Veil(Finder);

#[derive(Debug, Default)]
enum Finder {
    /// There is nothing to hide.
    #[default]
    Nothing,
    /// Each value. The first `long` of them are beginnings of values: the rest of the line belongs to them.
    Values { finder: Box<AhoCorasick>, long: usize },
    /// There are too many values: a line that has the first bytes of any is covered from there to its end.
    Beginnings(HashSet<[u8; SHORTEST]>),
}

impl Veil {
    /// Covers these values, as they are and as the rendered languages write them, each line of them, and each secret that one of
    /// them holds among other things.
    pub fn over<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        // A single word in small letters is not looked for: `production` and `unicorn` are parts of everything, and names of keys.
        let is_meant = |needle: &str| needle.trim().len() >= SHORTEST && !is_word(needle);
        Self::of(values, is_meant)
    }

    /// The same for what an application says: shorter values are covered, and words.
    pub fn over_what_is_said<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::of(values, |needle| needle.trim().len() >= SHORTEST_SAID)
    }

    fn of<T: AsRef<str>>(values: impl IntoIterator<Item = T>, is_meant: impl Fn(&str) -> bool) -> Self {
        let mut needles = Needles::new(is_meant);
        values.into_iter().for_each(|value| needles.value(value.as_ref()));
        Self(needles.finder())
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Finder::Nothing)
    }

    /// Whether any of the values is in a text.
    pub fn hides(&self, text: &[u8]) -> bool {
        match &self.0 {
            Finder::Nothing => false,
            Finder::Values { finder, .. } => finder.is_match(text),
            Finder::Beginnings(all) => text.windows(SHORTEST).any(|window| begins(all, window)),
        }
    }

    /// Where the values are in a text, in order.
    pub fn ranges(&self, text: &[u8]) -> Vec<Range<usize>> {
        match &self.0 {
            Finder::Nothing => vec![],
            Finder::Values { finder, long } => {
                let mut ranges = vec![];
                let mut covered = 0;
                for found in finder.find_iter(text) {
                    if found.end() <= covered {
                        continue;
                    }
                    let start = found.start().max(covered);
                    covered = found.end();
                    if found.pattern().as_usize() < *long {
                        let rest = text.get(covered..).unwrap_or_default();
                        covered += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    }
                    ranges.push(start..covered);
                }
                ranges
            }
            Finder::Beginnings(all) => {
                let mut ranges = vec![];
                let mut at = 0;
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    if let Some(begin) = line.windows(SHORTEST).position(|window| begins(all, window)) {
                        ranges.push(at + begin..at + line.strip_suffix(b"\n").unwrap_or(line).len());
                    }
                    at += line.len();
                }
                ranges
            }
        }
    }

    /// A text with a mask in the place of each of the values.
    pub fn cover<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let ranges = self.ranges(text.as_bytes());
        if ranges.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for range in ranges {
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(MASK);
            at = range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }
}

fn begins(all: &HashSet<[u8; SHORTEST]>, window: &[u8]) -> bool {
    <[u8; SHORTEST]>::try_from(window).is_ok_and(|window| all.contains(&window))
}

/// What is looked for, collected in bounded memory: a pillar of megabytes may be one value that holds others in every few bytes.
struct Needles<F> {
    is_meant: F,
    values: HashSet<String>,
    /// The first bytes of long values.
    long: HashSet<String>,
    /// How many bytes both have.
    bytes: usize,
    /// Instead of both, once they have too many.
    beginnings: Option<HashSet<[u8; SHORTEST]>>,
}

impl<F: Fn(&str) -> bool> Needles<F> {
    fn new(is_meant: F) -> Self {
        Self { is_meant, values: HashSet::new(), long: HashSet::new(), bytes: 0, beginnings: None }
    }

    /// A value, and each secret that it holds among other things.
    fn value(&mut self, value: &str) {
        self.add(value);
        parts(value, &mut |part| {
            // Several parts may go on to the end of a text of megabytes, whose lines have been added.
            if part.len() > LONGEST {
                self.whole(part)
            } else {
                self.add(part)
            }
            // In a URL, what would end the password is written as `%40`.
            let near = up_to(part, LONGEST);
            let is_whole = near.len() == part.len();
            let decoded = near.contains('%').then(|| percent_decoded(near, is_whole)).flatten();
            if let Some(decoded) = decoded {
                if is_whole { self.add(&decoded) } else { self.long(&decoded) }
            }
        });
    }

    /// A value as the rendered languages write it, whole and line by line.
    fn add(&mut self, value: &str) {
        self.whole(value);
        // What is shown line by line is masked line by line; a word of sh goes on over lines, so each is quoted, too.
        if value.contains(['\n', '\r']) || value.trim() != value {
            value.lines().for_each(|line| self.whole(line.trim()));
        }
    }

    fn whole(&mut self, value: &str) {
        // Of the one only so much is looked for, of the other so much is enough.
        if value.len() > LONGEST || (value.len() > BEGINNING && self.beginnings.is_some()) {
            return self.long(value);
        }
        // Most pieces of a long text are no secrets, or come again.
        if (value.len() < SHORTEST_SAID && value.bytes().all(|byte| byte.is_ascii_graphic()))
            || self.values.contains(value)
        {
            return;
        }
        written(value, &mut |needle| {
            if self.is_looked_for(needle) {
                self.keep(needle, false);
            }
        });
    }

    /// The first bytes of a value. A character is written alike whatever follows it.
    fn long(&mut self, value: &str) {
        if self.is_looked_for(value) {
            let beginning = up_to(value.trim_start(), BEGINNING);
            written(beginning, &mut |needle| self.keep(needle, true));
        }
    }

    fn is_looked_for(&self, needle: &str) -> bool {
        (self.is_meant)(needle) && !is_frame(needle)
    }

    fn keep(&mut self, needle: &str, is_long: bool) {
        if let Some(beginnings) = &mut self.beginnings {
            beginnings.extend(beginning(needle));
            return;
        }
        let kept = if is_long { &mut self.long } else { &mut self.values };
        if kept.contains(needle) {
            return;
        }
        kept.insert(needle.to_owned());
        self.bytes += needle.len();
        if self.bytes > MOST {
            self.only_beginnings();
        }
    }

    fn only_beginnings(&mut self) {
        let all = std::mem::take(&mut self.values).into_iter().chain(std::mem::take(&mut self.long));
        self.beginnings.get_or_insert_default().extend(all.filter_map(|needle| beginning(&needle)));
        self.bytes = 0;
    }

    fn finder(mut self) -> Finder {
        if self.beginnings.is_none() {
            if self.values.is_empty() && self.long.is_empty() {
                return Finder::Nothing;
            }
            // Of two that begin alike the longer one is meant.
            let mut builder = AhoCorasick::builder();
            // The crate takes a table of a kilobyte for each byte of a few values, unless the kind is given.
            builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA));
            if let Ok(finder) = builder.build(self.long.iter().chain(&self.values)) {
                return Finder::Values { finder: Box::new(finder), long: self.long.len() };
            }
            self.only_beginnings();
        }
        Finder::Beginnings(self.beginnings.unwrap_or_default())
    }
}

/// The first bytes of a value. What is blank there is in every line.
fn beginning(needle: &str) -> Option<[u8; SHORTEST]> {
    needle.trim_start().as_bytes().get(..SHORTEST)?.try_into().ok()
}

fn is_word(needle: &str) -> bool {
    needle.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// What is printed instead of secrets already, and the first and last line of keys.
fn is_frame(needle: &str) -> bool {
    needle.trim_matches('*').is_empty()
        || ["-----BEGIN", "-----END", "---- BEGIN ", "---- END "]
            .iter()
            .any(|frame| needle.starts_with(frame))
}

/// A text in which each `%` and two digits are a byte (RFC 3986, 2.1). One that is not whole may end within a character.
fn percent_decoded(text: &str, is_whole: bool) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &others[2..] } else { others };
    }
    if !is_whole && let Err(error) = std::str::from_utf8(&bytes) {
        bytes.truncate(error.valid_up_to());
    }
    String::from_utf8(bytes).ok()
}

/// Hands over a text as the rendered languages write it.
fn written(value: &str, each: &mut dyn FnMut(&str)) {
    let inside = |text: &str| text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned();
    each(value);
    if value.contains('\'') {
        each(&value.replace('\'', "''"));
    }
    // Without these every language writes it as it is.
    if value.contains(['"', '\\', '\'', '#']) || value.chars().any(|c| c.is_control() || !c.is_ascii()) {
        // The functions that render are asked, so that no character can be written as this does not know.
        for quote in [quote::sh, quote::python, quote::ruby, quote::yaml] {
            let mut written = String::new();
            if quote(value, &mut written).is_ok() {
                each(&inside(&written));
            }
        }
        each(&inside(&format!("{value:?}")));
        each(&inside(&serde_json::Value::from(value).to_string()));
        each(&visible(value));
        each(&value.replace('\\', "\\\\").replace('"', "\\\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(values: &[&str], text: &str) -> String {
        Veil::over(values).cover(text).into_owned()
    }

    #[test]
    fn a_value_is_covered_however_it_is_written() {
        let cases = [
            ("hunter2", "x=hunter2;y=hunter2", "x=********;y=********"),
            ("it's me", "'it'\\''s me' 'it''s me'", "'********' '********'"),
            ("a\"b\\c\"d", r#"{"x": "a\"b\\c\"d"}"#, "{\"x\": \"********\"}"),
            ("postgres://u:hunter2@h/db", "PGPASSWORD=hunter2", "PGPASSWORD=********"),
            ("host=db password=hunter2 user=u", "is hunter2 right", "is ******** right"),
            ("Authorization: Bearer hunter2", "Bearer hunter2", "Bearer ********"),
            ("first line\nsecond line", "a second line b", "a ******** b"),
            ("hunter2hunter3", "hunter2hunter3", "********"),
            ("one'two three\nfour \"fi've\" six", "A='one'\\''two three", "A='********"),
            ("one'two three\nfour \"fi've\" six", "four \"fi'\\''ve\" six'", "********'"),
            ("one\"two three\nfour", "x: \"one\\\"two three\" y", "x: \"********\" y"),
            (
                "srv --token Aaaaaa11x --password Bbbbbb22y",
                "- Aaaaaa11x\n- Bbbbbb22y",
                "- ********\n- ********",
            ),
            ("postgres://u:hunt%40r2@h/db", "is hunt@r2 right", "is ******** right"),
        ];
        for (value, text, want) in cases {
            assert_eq!(covered(&[value], text), want, "{value:?}");
        }
        assert_eq!(covered(&["hunter2", "hunter2hunter3"], "hunter2hunter3"), "********");
    }

    /// A character that does not show, pasted into a value, is written differently by each language.
    #[test]
    fn a_value_with_any_character_is_covered_in_every_language() {
        let all = (1..0x250)
            .chain(0x600..0x620)
            .chain(0x1800..0x1810)
            .chain(0x2000..0x2070)
            .chain([0xfeff, 0xfff9, 0xfffe, 0xffff, 0x1_f600, 0xe_0041])
            .filter_map(char::from_u32);
        for c in all {
            let value = format!("Zq9Xw{c}K7mm2");
            let mut written: Vec<String> = vec![
                value.clone(),
                format!("{value:?}"),
                serde_json::Value::from(value.as_str()).to_string(),
                visible(&value).into_owned(),
            ];
            for quote in [quote::sh, quote::python, quote::ruby, quote::yaml] {
                let mut text = String::new();
                quote(&value, &mut text).unwrap();
                written.push(text);
            }
            for text in written {
                let shown = covered(&[&value], &text);
                assert!(
                    !shown.contains("Zq9Xw") && !shown.contains("K7mm2"),
                    "{c:?}: {text} is shown as {shown}"
                );
            }
        }
    }

    #[test]
    fn what_is_short_or_a_frame_is_shown() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----";
        let text = "-----BEGIN PRIVATE KEY----- 12345 ********* true unicorn_command";
        assert_eq!(covered(&[pem, "12345", "true", "unicorn", "*********", "      ", ""], text), text);
        assert_eq!(covered(&[pem], "MIIEvQIBADANBg"), "********");
        assert!(Veil::over(["12345"]).is_empty());
    }

    #[test]
    fn what_is_said_has_words_and_short_values_covered() {
        let said =
            Veil::over_what_is_said(["swordfish", "1234", "yes"]).cover("swordfish 1234 yes").into_owned();
        assert_eq!(said, "******** ******** yes");
    }

    /// A value may be as long as a variable can be; it takes no time and memory that somebody notices.
    #[test]
    fn a_long_value_is_covered() {
        for one in ["a1", "hunter2 ", "\u{e9}\"'1"] {
            let value = one.repeat(LONGEST / one.len());
            assert_eq!(covered(&[&value], &format!("x {value} y\nz")), "x ******** y\nz");
            // Of a longer one the rest of the line is a part.
            let value = one.repeat(16 << 10);
            assert_eq!(covered(&[&value], &format!("x {value} y\nz")), "x ********\nz");
        }
    }

    /// What no variable can hold may stand elsewhere all the same, and be megabytes: its rest is covered with its beginning.
    #[test]
    fn the_rest_of_a_line_belongs_to_a_very_long_value() {
        for value in ["a1".repeat(100 << 10), "password='x%41' \u{e9}\"".repeat(20 << 10)] {
            let veil = Veil::over([&value]);
            assert!(matches!(veil.0, Finder::Values { long: 1.., .. }));
            assert_eq!(veil.cover(&format!("x {value} y\nz\n")), "x ********\nz\n");
            let mut written = String::new();
            quote::python(&value, &mut written).unwrap();
            assert_eq!(veil.cover(&format!("x = {written}\n")), "x = \"********\n");
        }
    }

    /// However many secrets one value seems to hold, and however long each goes on, what is kept of them is bounded.
    #[test]
    fn a_long_value_of_many_secrets_takes_bounded_memory() {
        for one in
            ["password=\"\\", "{\"password\":", "token:[", "password=", "password=hunter2%40x&", "token: a\n"]
        {
            let value = one.repeat(1 << 20 >> 4);
            let mut needles = Needles::new(|_: &str| true);
            needles.value(&value);
            assert!(needles.bytes <= MOST && needles.beginnings.is_none(), "{one}: {}", needles.bytes);
            let count = needles.values.len() + needles.long.len();
            assert!(count < 500, "{one}: {count}");
            let shown = Veil::over([&value]).cover(&format!("x {value}")).into_owned();
            assert!(!shown.contains("hunter2") && shown.len() <= value.len(), "{one}: {shown:.100}");
        }
        // Each of them is another one.
        let numbers: String = (0..200_000)
            .map(|number| format!("password={:03}\\{:03} ", number % 1000, number / 1000))
            .collect();
        let mut needles = Needles::new(|needle: &str| needle.len() >= SHORTEST);
        needles.value(&numbers);
        assert!(needles.bytes <= MOST && needles.values.is_empty() && needles.long.is_empty());
        assert_eq!(Veil::over([&numbers]).cover("x 999\\\\199 y\nz"), "x ********\nz");
    }

    /// However many values there are, memory is bounded, and none is shown.
    #[test]
    fn too_many_values_cover_the_rest_of_a_line() {
        let values: Vec<String> = (0..120_000).map(|number| format!("{number:06}-is-a-secret")).collect();
        let veil = Veil::over(&values);
        assert!(matches!(veil.0, Finder::Beginnings(_)));
        assert!(veil.hides(b"x 119999-is-a-secret"));
        assert_eq!(veil.cover("a: 000007-is-a-secret b\nc: 1\n"), "a: ********\nc: 1\n");
        assert!(!veil.hides(b"nothing of it"));
    }
}
