//! What is kept out of everything printed of a pillar: where its secrets are, and wherever else their values are.

use std::borrow::Cow;

use super::place::trimmed;
use crate::model::secret::password_in_url;
use crate::model::veil::{MASK, Veil};
use crate::source::{SourceId, Sources, Span};

/// What covers the values that are at these places.
pub(super) fn veil(secrets: &[Span], sources: &Sources) -> Veil {
    let mut values: Vec<Cow<'_, str>> = vec![];
    for secret in secrets {
        let Some(text) = sources.get(secret.source).text().get(secret.range()) else { continue };
        let bare = text.trim_matches(|c: char| c.is_whitespace() || ",]}".contains(c));
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
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = password_in_url(rest) {
        let end = rest[at..].find(['/', '?', '#', ' ', '\n']).map_or(rest.len(), |end| at + end);
        let end = rest[..end].rfind('@').unwrap_or(end);
        out.push_str(&rest[..at]);
        out.push_str(MASK);
        rest = &rest[end..];
    }
    out + rest
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
