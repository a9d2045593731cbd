//! What is kept out of everything printed of a pillar: where its secrets are, and wherever else their values are.

use std::borrow::Cow;

use super::place::trimmed;
use crate::model::secret::{is_ordinary, passwords_in_urls};
use crate::model::veil::{MASK, Veil};
use crate::services::reading;
use crate::source::{SourceId, Sources, Span};

/// So many bytes of guesses are taken apart, and of scalars read as YAML, in all. It takes some time for each byte, and a pillar that
/// cannot be read may be one guess from its beginning to its end.
const MOST_READ: usize = 1 << 20;

/// Each of them counts so many bytes more: it takes longer to begin than to read a few bytes.
const EACH: usize = 64;

/// What covers the values that are at these places.
pub fn veil(secrets: &[Span], sources: &Sources) -> Veil {
    let mut values: Vec<Cow<'_, str>> = vec![];
    let mut room = MOST_READ;
    for secret in secrets {
        let Some(text) = sources.get(secret.source).text().get(secret.range()) else { continue };
        let bare = text.trim_matches(|c: char| c.is_whitespace() || ",]}".contains(c));
        let is_guess = is_guess(bare);
        // Others write the same value without escapes, or on one line.
        let is_spelt = bare.contains('\n') || (bare.starts_with('"') && bare.contains('\\'));
        if (is_guess || is_spelt)
            && let Some(left) = room.checked_sub(bare.len() + EACH)
        {
            room = left;
            if is_guess {
                values.extend(guessed(bare).into_iter().map(Cow::Borrowed));
            }
            if is_spelt {
                values.extend(reading(bare).into_iter().map(Cow::Owned));
            }
        }
        // What goes on for lines may be a guess in a text that cannot be read: keys and items of lists are no secrets.
        if bare.contains('\n') {
            let is_structure = |line: &str| {
                line.starts_with(['-', '#', '{', '[', '}', ']']) || line.ends_with(':') || line.contains(": ")
            };
            let lines = bare
                .lines()
                .map(|line| line.trim_matches(|c: char| c.is_whitespace() || "\"'|>".contains(c)));
            values.extend(lines.filter(|line| !is_structure(line)).map(Cow::Borrowed));
            continue;
        }
        // The name of an anchor or an alias, where a value was meant.
        values.push(bare.trim_start_matches(['&', '*', '!']).into());
        values.extend(whole_number(bare).map(Cow::Owned));
        let quoted = |quote: char| bare.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inside) = quoted('"') {
            values.extend(serde_json::from_str::<String>(bare).ok().map(Cow::Owned));
            values.push(inside.into());
        } else if let Some(inside) = quoted('\'') {
            values.push(inside.replace("''", "'").into());
        } else {
            values.push(bare.into());
        }
    }
    Veil::over(values)
}

/// Whether a secret may be a guess in a text that cannot be read, or a comment: whatever follows a key. A scalar is in quotes, or on one
/// line and has no colon that a blank follows.
fn is_guess(text: &str) -> bool {
    let is_quoted = |quote: char| {
        let inside = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        inside.is_some_and(|inside| !inside.contains(quote))
    };
    !is_quoted('"')
        && !is_quoted('\'')
        && (text.starts_with(['{', '['])
            || text.contains(['\n', '"', '\''])
            || text.contains(": ")
            || text.contains(" #"))
}

/// What may be a value in a guess: what follows a key on each line, each item, and what is in quotes and is no key.
fn guessed(text: &str) -> Vec<&str> {
    let mut values = vec![];
    for line in text.lines() {
        let mut line = line.trim().trim_start_matches('#').trim_start();
        while let Some(rest) = ["- ", "? ", ": "].iter().find_map(|mark| line.strip_prefix(mark)) {
            line = rest.trim_start();
        }
        // A bracket or a comma may be a part of the value.
        values.extend(behind_key(line));
        for item in line.split(['{', '}', '[', ']', ',']) {
            values.extend(behind_key(item));
            values.extend(item.split_once('=').map(|(_, value)| value));
        }
        for quote in ['"', '\''] {
            let mut rest = line;
            while let Some((_, after)) = rest.split_once(quote) {
                let Some((inside, behind)) = after.split_once(quote) else { break };
                if !behind.trim_start().starts_with(':') {
                    values.push(inside);
                }
                rest = behind;
            }
        }
    }
    let mut bare: Vec<&str> = values.iter().map(|value| value.trim_matches(is_around)).collect();
    // What follows may be a comment.
    bare.extend(values.iter().filter_map(|value| Some(value.split_once(" #")?.0.trim_matches(is_around))));
    bare.retain(|value| !is_ordinary(value));
    bare
}

/// What follows a key with its colon, or all if there is none; nothing if nothing follows.
fn behind_key(text: &str) -> Option<&str> {
    let ends_key = |(at, _): &(usize, &str)| {
        let before = text.get(..*at).unwrap_or_default();
        let after = text.get(at + 1..).unwrap_or_default();
        before.ends_with(['"', '\'']) || after.is_empty() || after.starts_with([' ', '\t', '"', '\''])
    };
    let value = match text.match_indices(':').find(ends_key) {
        Some((at, _)) => text.get(at + 1..)?,
        None => text,
    };
    (!value.trim().is_empty()).then_some(value)
}

/// What may stand around a value.
fn is_around(c: char) -> bool {
    c.is_whitespace() || "\"'{}[],:|>&*!".contains(c)
}

/// A whole number as everybody writes it, if it is written otherwise: `987_654_321`, `0x3ADE68B1`.
fn whole_number(text: &str) -> Option<String> {
    let digits = text.replace('_', "");
    let number = match digits.get(..2) {
        Some("0x" | "0X") => u128::from_str_radix(&digits[2..], 16).ok()?,
        Some("0o" | "0O") => u128::from_str_radix(&digits[2..], 8).ok()?,
        Some("0b" | "0B") => u128::from_str_radix(&digits[2..], 2).ok()?,
        _ => digits.parse().ok()?,
    };
    Some(number.to_string()).filter(|number| number != text)
}

/// These places, and all others in the texts `shown` that have the same values.
pub(super) fn with_others(
    mut secrets: Vec<Span>,
    veil: &Veil,
    shown: impl IntoIterator<Item = SourceId>,
    sources: &Sources,
) -> Vec<Span> {
    let known = secrets.len();
    for id in shown {
        let found = veil.ranges(sources.get(id).text().as_bytes());
        secrets.extend(found.into_iter().map(|range| Span::new(id, range.start, range.end)));
    }
    if secrets.len() == known { secrets } else { disjoint(secrets.into_iter(), sources) }
}

/// A sentence with a mask in the place of the password of each URL.
pub(super) fn without_passwords(text: &str) -> String {
    let mut ranges: Vec<_> = passwords_in_urls(text).collect();
    // Of a URL that can be read in two ways both passwords are masked.
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        if range.start >= at {
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(MASK);
        }
        at = at.max(range.end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// Spans without blanks at their ends, in order, overlapping ones made one.
pub(super) fn disjoint(spans: impl Iterator<Item = Span>, sources: &Sources) -> Vec<Span> {
    let trim = |span: Span| {
        let range = trimmed(sources.get(span.source).text(), span.range());
        Span::new(span.source, range.start, range.end)
    };
    let mut spans: Vec<Span> = spans.map(trim).filter(|span| span.start < span.end).collect();
    spans.sort();
    spans.dedup_by(|next, kept| {
        let overlap = next.source == kept.source && next.start < kept.end;
        if overlap {
            kept.end = kept.end.max(next.end);
        }
        overlap
    });
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is masked of a text if a guess stands in it.
    fn covered(guess: &str, text: &str) -> String {
        let mut sources = Sources::new();
        let id = sources.add(crate::source::Source::new("t", guess));
        veil(&[Span::new(id, 0, guess.len())], &sources).cover(text).into_owned()
    }

    #[test]
    fn the_password_of_each_url_is_masked_as_far_as_it_goes() {
        for (text, want) in [
            ("no a://u:hunter2@h, b://v:x@h", "no a://u:********@h, b://v:********@h"),
            ("no a://u:pa/ss#w?d@h/db here", "no a://u:********@h/db here"),
            ("no http://h:80/x here", "no http://h:80/x here"),
        ] {
            assert_eq!(without_passwords(text), want);
        }
    }

    /// In a text that cannot be read, a guess has keys, brackets and comments in it, besides the value.
    #[test]
    fn each_value_of_a_guess_is_masked_elsewhere() {
        for guess in [
            " {X: hunter2zz}\n",
            "{\"X\":\"hunter2zz\"}",
            "{\"X\" : \"hunter2zz\", \"MY_NAME\": 1",
            " [a, hunter2zz",
            "\n  MY_NAME: hunter2zz # why\n  - hunter2zz {\n",
            "\n  MY_NAME:\n    hunter2zz\n",
            " B: 'hunter2zz'\n",
            "{MY_NAME=hunter2zz, B: 1",
            "\n  - &x hunter2zz: 1\n  - hunter2zz\n",
        ] {
            assert_eq!(covered(guess, "- hunter2zz {"), "- ******** {", "{guess}");
            assert_eq!(covered(guess, "MY_NAME: /home/deploy"), "MY_NAME: /home/deploy", "{guess}");
        }
        assert_eq!(covered("{X: \"hun,ter2\"}", "is hun,ter2"), "is ********");
        assert_eq!(covered(" [x, hunter2:99999", "- hunter2:99999"), "- ********");
        // A scalar is one value.
        assert_eq!(covered("\"a1, hunter2zz\"", "hunter2zz"), "hunter2zz");
        assert_eq!(covered("b1,hunter2zz", "hunter2zz"), "hunter2zz");
        // What others write without escapes, or on one line.
        assert_eq!(covered("\"hunter2\\x3a99\"", "is hunter2:99"), "is ********");
        assert_eq!(covered("hunter2\n  horse9", "is hunter2 horse9"), "is ********");
        let long = format!("- hunter2zz\n{}", "- b\n".repeat(MOST_READ / 4));
        assert_eq!(covered(&long, "hunter2zz"), "hunter2zz");
    }
}
