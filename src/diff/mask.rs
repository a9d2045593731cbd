//! Secrets, kept out of what is shown.

use super::hunks::Sign;
use super::{EntryDiff, MASK};
use crate::services::Known;

/// Values shorter than this are not looked for: they are parts of everything.
const SHORTEST: usize = 4;

/// Masks what a secret's value is in lines of files that are not secret themselves: a variable that
/// was plain and is a secret now, or the other way around.
pub(super) fn mask(entries: &mut [EntryDiff<'_>], old: Option<&Known>, new: Option<&Known>) {
    let mut lines: Vec<String> = vec![];
    let mut values: Vec<String> = vec![];
    for (one, other) in [(old, new), (new, old)] {
        let Some(one) = one else { continue };
        values.extend(one.service.secret_values.values().cloned());
        let plain = other.into_iter().flat_map(|other| &other.service.environment);
        for (name, value) in plain.filter(|(name, _)| one.service.secret_values.contains_key(*name)) {
            lines.push(name.clone());
            values.push(value.clone());
        }
    }
    // What was read from a disk: the first line of each file in `env` is a value.
    for entry in entries.iter().filter(|entry| entry.secret) {
        for side in [entry.old, entry.new].into_iter().flatten() {
            if let crate::tree::Kind::File(bytes) = &side.kind {
                let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                values.push(String::from_utf8_lossy(first).replace('\0', "\n"));
                lines.extend(entry.path.rsplit('/').next().map(str::to_owned));
            }
        }
    }
    let mut needles: Vec<String> = values.iter().flat_map(|value| spellings(value)).collect();
    needles.retain(|needle| needle.len() >= SHORTEST);
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    needles.dedup();
    lines.sort();
    lines.dedup();
    if needles.is_empty() && lines.is_empty() {
        return;
    }
    for entry in entries.iter_mut().filter(|entry| !entry.secret) {
        for line in entry.hunks.iter_mut().flat_map(|hunk| &mut hunk.lines) {
            let Ok(text) = std::str::from_utf8(&line.text) else { continue };
            if let Some(kept) = assigned(text, &lines) {
                line.text = format!("{kept}{MASK}").into_bytes();
                continue;
            }
            let mut shown = text.to_owned();
            for needle in &needles {
                if shown.contains(needle.as_str()) {
                    shown = shown.replace(needle.as_str(), MASK);
                }
            }
            if shown != text {
                line.text = shown.into_bytes();
            }
        }
        // A line that is masked on both sides is still one that changed.
        debug_assert!(entry.hunks.iter().all(|hunk| hunk.lines.iter().any(|line| line.sign != Sign::Same)));
    }
}

/// What stands in front of the value, if the line sets one of these variables in a run script.
fn assigned<'a>(text: &'a str, names: &[String]) -> Option<&'a str> {
    let start = text.len() - text.trim_start_matches([' ', '\'', '"']).len();
    let rest = &text[start..];
    if start < 2 {
        return None;
    }
    names.iter().find_map(|name| {
        let after = rest.strip_prefix(name.as_str())?;
        let after = after.strip_prefix(['\'', '"']).unwrap_or(after);
        let length = text.len() - after.len() + 1;
        after.starts_with([':', '=']).then(|| &text[..length])
    })
}

/// A value as the rendered languages write it, line by line.
fn spellings(value: &str) -> Vec<String> {
    let escaped = format!("{value:?}");
    let json = serde_json::Value::from(value).to_string();
    let inside = |text: &str| text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let mut all = vec![value.replace('\'', "'\\''"), inside(&escaped), inside(&json)];
    all.extend(value.lines().map(str::to_owned));
    all
}
