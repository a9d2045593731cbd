//! Fixes put into a text: everything that no fix names stays as it is, byte for byte.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Edit, Fix};
use crate::pillar::{Node, Value};
use crate::source::SourceId;

/// A text with fixes in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The whole text.
    pub text: String,
    /// How many fixes are in it.
    pub count: usize,
}

/// Puts into `text`, which is the source `id`, every fix of the findings that `is_wanted`. Of two that
/// would change the same place in different ways the first one counts: the other may come in the next turn.
pub fn apply(text: &str, id: SourceId, found: &[Diagnostic], is_wanted: impl Fn(&Fix) -> bool) -> Fixed {
    let mut fixes: Vec<&Fix> = found
        .iter()
        .filter_map(|finding| finding.fix.as_ref())
        .filter(|fix| is_wanted(fix) && fix.edits.iter().all(|edit| edit.span.source == id))
        .filter(|fix| fix.edits.iter().all(|edit| text.get(edit.span.range()).is_some()))
        .collect();
    fixes.sort_by_key(|fix| fix.edits.iter().map(|edit| (edit.span.start, edit.span.end)).min());
    fixes.dedup();
    let mut edits: Vec<&Edit> = vec![];
    let mut end = 0;
    let mut count = 0;
    for fix in fixes {
        let start = fix.edits.iter().map(|edit| edit.span.start).min().unwrap_or(0);
        // What touches the last one is left for the next turn, too.
        if count > 0 && start <= end {
            continue;
        }
        end = fix.edits.iter().map(|edit| edit.span.end).max().unwrap_or(end);
        edits.extend(&fix.edits);
        count += 1;
    }
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len() + 2 * edits.len());
    let mut at = 0;
    for edit in edits {
        let range = edit.span.range();
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Fixed { text: out, count }
}

/// Keys of which one is the other's new name.
const RENAMED: &[(&str, &str)] = &[("unicorn_application", "application")];

/// Whether two readings are the same values in the same order; a renamed key is the same key where an application has it.
/// `applications` are their colon paths: elsewhere others read it.
pub fn same_values(before: &[Node], after: &[Node], applications: &BTreeSet<String>) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(one, two)| same(one, two, "", applications))
}

fn same(one: &Node, two: &Node, path: &str, applications: &BTreeSet<String>) -> bool {
    match (&one.value, &two.value) {
        (Value::Map(one), Value::Map(two)) => {
            one.len() == two.len()
                && one.iter().zip(two).all(|(one, two)| {
                    let (renamed, below) = match (&one.key.value, &two.key.value) {
                        (Value::Str(old), Value::Str(new)) => (
                            RENAMED.contains(&(old.as_str(), new.as_str())) && applications.contains(path),
                            if path.is_empty() { old.clone() } else { format!("{path}:{old}") },
                        ),
                        _ => (false, format!("{path}:")),
                    };
                    (renamed || same(&one.key, &two.key, path, applications))
                        && same(&one.value, &two.value, &below, applications)
                })
        }
        (Value::List(one), Value::List(two)) => {
            let below = format!("{path}:");
            one.len() == two.len()
                && one.iter().zip(two).all(|(one, two)| same(one, two, &below, applications))
        }
        (Value::Float(one), Value::Float(two)) => one.to_bits() == two.to_bits(),
        (one, two) => one == two,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule;
    use crate::source::Span;

    fn fixed(text: &str, edits: &[(usize, usize, &str)]) -> Fixed {
        let id = SourceId(0);
        let found: Vec<_> = edits
            .iter()
            .map(|(start, end, new)| {
                Diagnostic::error(&rule::EMPTY, "m").fix(Fix::safe(Span::new(id, *start, *end), *new))
            })
            .collect();
        apply(text, id, &found, |_| true)
    }

    #[test]
    fn edits_are_put_in_and_nothing_else_moves() {
        let text = "\u{feff}a: yes\t# ä\r\nb: 010\r\n";
        let have = fixed(text, &[(19, 22, "10"), (6, 9, "true"), (6, 9, "true")]);
        assert_eq!(have, Fixed { text: "\u{feff}a: true\t# ä\r\nb: 10\r\n".to_owned(), count: 2 });
    }

    #[test]
    fn of_two_that_overlap_one_waits() {
        assert_eq!(fixed("abcd", &[(0, 2, "x"), (1, 3, "y")]), Fixed { text: "xcd".to_owned(), count: 1 });
        assert_eq!(fixed("abcd", &[(0, 99, "x")]), Fixed { text: "abcd".to_owned(), count: 0 });
    }
}
