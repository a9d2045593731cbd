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
    let longest = names.iter().map(String::len).max().unwrap_or(0);
    for entry in entries.iter_mut().filter(|entry| !entry.secret) {
        for line in entry.hunks.iter_mut().flat_map(|hunk| &mut hunk.lines) {
            let text = String::from_utf8_lossy(&line.text);
            let shown = match assigned(&text, &names, longest) {
                Some(kept) => format!("{kept}{MASK}"),
                None if veil.hides(&line.text) => veil.cover(&text).into_owned(),
                None => continue,
            };
            line.text = shown.into_bytes().into();
            entry.masked = true;
        }
        // A line that is masked on both sides is still one that changed.
        debug_assert!(entry.hunks.iter().all(|hunk| hunk.lines.iter().any(|line| line.sign != Sign::Same)));
    }
}

/// What stands in front of the value, if the line sets one of these variables in a run script. `names` are sorted; the longest
/// has `longest` bytes.
fn assigned<'a>(text: &'a str, names: &[String], longest: usize) -> Option<&'a str> {
    let start = text.len() - text.trim_start_matches([' ', '\'', '"']).len();
    let rest = text.get(start..)?;
    if start < 2 {
        return None;
    }
    let is_name = |name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    // A name ends before a separator, with or without a quote; of a disk it may have separators itself.
    let separators =
        rest.bytes().take(longest + 2).enumerate().filter(|(_, byte)| matches!(byte, b':' | b'='));
    let mut ends = separators.filter_map(|(at, _)| Some((rest.get(..at)?, start + at + 1)));
    let (_, end) =
        ends.find(|(name, _)| is_name(name) || name.strip_suffix(['\'', '"']).is_some_and(is_name))?;
    text.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_sets_a_variable_is_cut_before_its_value() {
        let mut names: Vec<String> = (0..5_000).map(|n| format!("V{n}")).collect();
        names.extend(["A:B".to_owned(), "PASSWORD".to_owned()]);
        names.sort();
        for (line, kept) in [
            ("  'PASSWORD=x'", Some("  'PASSWORD=")),
            ("  PASSWORD: x", Some("  PASSWORD:")),
            ("  \"PASSWORD\": x=y", Some("  \"PASSWORD\":")),
            ("  A:B=c", Some("  A:B=")),
            ("  V4999=x", Some("  V4999=")),
            ("  V5000=x", None),
            ("  PASSWORDS=x", None),
            ("  x PASSWORD=x", None),
            ("PASSWORD=x", None),
            ("  PASSWORD", None),
            ("  \u{e9}:PASSWORD=x", None),
        ] {
            assert_eq!(assigned(line, &names, 8), kept, "{line}");
        }
    }
}
