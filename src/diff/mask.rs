//! Secrets, kept out of what is shown of files that are not secret.

use super::EntryDiff;
use super::hunks::Sign;
use crate::model::veil::{MASK, Veil};
use crate::services::Known;

/// Masks what `veil` covers, and the whole value of a variable that was plain and is a secret now, or the other way around.
pub(super) fn mask(entries: &mut [EntryDiff<'_>], old: Option<&Known>, new: Option<&Known>, veil: &Veil) {
    let mut names: Vec<String> = vec![];
    for (one, other) in [(old, new), (new, old)] {
        let Some(one) = one else { continue };
        let plain = other.into_iter().flat_map(|other| other.service.environment.keys());
        names.extend(plain.filter(|name| one.service.secret_values.contains_key(*name)).cloned());
    }
    // Of what was read from a disk nothing else is known.
    let secret = entries.iter().filter(|entry| entry.secret);
    names.extend(secret.filter_map(|entry| entry.path.rsplit('/').next().map(str::to_owned)));
    names.sort();
    names.dedup();
    if veil.is_empty() && names.is_empty() {
        return;
    }
    for entry in entries.iter_mut().filter(|entry| !entry.secret) {
        for line in entry.hunks.iter_mut().flat_map(|hunk| &mut hunk.lines) {
            let text = String::from_utf8_lossy(&line.text);
            let shown = match assigned(&text, &names) {
                Some(kept) => format!("{kept}{MASK}"),
                None if veil.hides(&line.text) => veil.cover(&text).into_owned(),
                None => continue,
            };
            line.text = shown.into_bytes();
            entry.masked = true;
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
