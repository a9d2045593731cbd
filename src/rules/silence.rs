//! Comments that silence a rule on one line: `# runsmith: allow(user-root) because …`.
//!
//! At the end of a line the comment is about that line; on a line of its own about the next one
//! that is neither blank nor a comment.

use std::collections::HashMap;

use super::{finding, judge};
use crate::diagnostic::Diagnostic;
use crate::pillar::{Node, Value};
use crate::rule::{self, Family, Rule};
use crate::source::{Source, SourceId, Sources, Span};

/// A comment that begins with `runsmith:`.
#[derive(Debug)]
pub struct Silence {
    /// The comment, from its `#`.
    span: Span,
    /// The line it is about, the first is 1.
    line: usize,
    meaning: Meaning,
}

#[derive(Debug)]
enum Meaning {
    /// It silences these.
    Rules(Vec<&'static Rule>),
    /// It would, had it a reason.
    NoReason,
    /// It does not, and why.
    Wrong(String),
}

/// What a comment begins with that is meant for us.
const MARK: &str = "runsmith:";

/// So many lines of comments and blanks may stand between a comment and the line it is about.
const FAR: usize = 1000;

/// The comments of a YAML text. `documents` are what was read from it: a `#` within a value is none.
pub fn find(source: &Source, id: SourceId, documents: &[Node]) -> Vec<Silence> {
    let text = source.text();
    let mut found = vec![];
    let mut scalars: Option<Vec<Span>> = None;
    for (at, _) in text.match_indices(MARK) {
        let line_start = text[..at].rfind(['\n', '\r']).map_or(0, |end| end + 1);
        let before = &text[line_start..at];
        let Some(hash) = before.rfind('#') else { continue };
        let code = before[..hash].trim_start_matches('\u{feff}');
        let begins = code.is_empty() || code.ends_with([' ', '\t']);
        if !begins || !before[hash + 1..].trim().is_empty() {
            continue;
        }
        let start = line_start + hash;
        let scalars = scalars.get_or_insert_with(|| scalars_of(documents, id));
        let last = scalars.partition_point(|span| span.range().start <= start);
        if last.checked_sub(1).is_some_and(|last| start < scalars[last].range().end) {
            continue;
        }
        let end = text[at..].find(['\n', '\r']).map_or(text.len(), |end| at + end);
        let own = source.position(start as u32).line;
        let line = if code.trim().is_empty() { own + next_line(&text[end..]) } else { own };
        let meaning = meaning(text[at + MARK.len()..end].trim());
        found.push(Silence { span: Span::new(id, start, end), line, meaning });
    }
    found
}

/// Where the scalars of the documents stand, in order.
fn scalars_of(documents: &[Node], id: SourceId) -> Vec<Span> {
    let mut spans = vec![];
    let mut waiting: Vec<&Node> = documents.iter().collect();
    while let Some(node) = waiting.pop() {
        match &node.value {
            Value::List(items) => waiting.extend(items),
            Value::Map(pairs) => waiting.extend(pairs.iter().flat_map(|pair| [&pair.key, &pair.value])),
            _ if node.span.source == id => spans.push(node.span),
            _ => {}
        }
    }
    spans.sort();
    spans
}

/// How many lines on the next one is that is neither blank nor a comment; `rest` begins with a line end.
fn next_line(mut rest: &str) -> usize {
    for count in 1..FAR {
        let Some(line) = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])) else { break };
        let end = line.find(['\n', '\r']).unwrap_or(line.len());
        let words = line[..end].trim();
        if !words.is_empty() && !words.starts_with('#') {
            return count;
        }
        rest = &line[end..];
    }
    1
}

fn meaning(text: &str) -> Meaning {
    let expected = "expected `allow(RULE) because REASON`".to_owned();
    let Some((names, reason)) = text.strip_prefix("allow(").and_then(|rest| rest.split_once(')')) else {
        return Meaning::Wrong(expected);
    };
    let mut rules = vec![];
    for name in names.split(',').map(str::trim) {
        if name.is_empty() {
            return Meaning::Wrong(expected);
        }
        match judge::silenceable(name) {
            Ok(rule) => rules.push(rule),
            Err(sentence) => return Meaning::Wrong(sentence),
        }
    }
    let reason = reason.trim();
    let reason = reason.strip_prefix("because").unwrap_or(reason);
    if reason.chars().any(char::is_alphanumeric) { Meaning::Rules(rules) } else { Meaning::NoReason }
}

/// Comments by the line they are about.
pub(super) struct Lines<'a> {
    sources: &'a Sources,
    silences: &'a [Silence],
    by_line: HashMap<(SourceId, usize), Vec<usize>>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(silences: &'a [Silence], sources: &'a Sources) -> Self {
        let mut by_line: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, silence) in silences.iter().enumerate() {
            by_line.entry((silence.span.source, silence.line)).or_default().push(index);
        }
        Self { sources, silences, by_line }
    }

    /// Which comment silences a finding: one that names its rule, about a line that it has a place on.
    pub(super) fn silencing(&self, finding: &Diagnostic) -> Option<usize> {
        if self.silences.is_empty() {
            return None;
        }
        let names = |index: &&usize| match &self.silences[**index].meaning {
            Meaning::Rules(rules) => rules.contains(&finding.rule),
            Meaning::NoReason | Meaning::Wrong(_) => false,
        };
        finding.labels.iter().find_map(|label| {
            let source = label.span.source;
            let line = self.sources.get(source).position(label.span.start).line;
            self.by_line.get(&(source, line))?.iter().find(names).copied()
        })
    }
}

/// What is wrong with a comment, if anything is; `used` says that it silenced something, or might have.
pub(super) fn complaint(silence: &Silence, used: bool) -> Option<Diagnostic> {
    let at = silence.span;
    match &silence.meaning {
        // What is so on one host need not be so where this is looked at.
        Meaning::Rules(rules) if !used && rules.iter().all(|rule| rule.family != Family::Host) => {
            let names: Vec<_> = rules.iter().map(|rule| format!("`{rule}`")).collect();
            let message = format!("nothing on line {} is found by {}", silence.line, names.join(" or "));
            Some(finding(&rule::SILENCE_UNUSED, message).at(at, "remove this comment"))
        }
        Meaning::Rules(_) => None,
        Meaning::NoReason => Some(
            finding(&rule::SILENCE_REASON, "a rule is silenced without a reason, so it is not silenced")
                .at(at, "write `because` and the reason"),
        ),
        Meaning::Wrong(sentence) => {
            Some(finding(&rule::SILENCE_RULE, "this comment silences nothing").at(at, sentence.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source::new("x", text);
        find(&source, SourceId(0), &[]).iter().map(|silence| silence.line).collect()
    }

    #[test]
    fn a_comment_is_about_a_line() {
        let comment = "# runsmith: allow(user-root) because x";
        assert_eq!(lines(&format!("a: 1\nb: 2 {comment}\nc: 3\n")), [2]);
        assert_eq!(lines(&format!("{comment}\nb: 2\n")), [2]);
        assert_eq!(lines(&format!("a: 1\r\n  {comment}\r\n\r\n# more\r\nb: 2\r\n")), [5]);
        assert_eq!(lines(&format!("\u{feff}{comment}\n{comment}\nb: 2")), [3, 3]);
        assert_eq!(lines(&format!("a: b{comment}\n")), Vec::<usize>::new());
        assert_eq!(lines("a: 1 # see runsmith: allow(x)\n"), Vec::<usize>::new());
        assert_eq!(lines(comment), [2]);
    }

    #[test]
    fn what_a_comment_means() {
        let kind = |text: &str| match meaning(text) {
            Meaning::Rules(rules) => rules.iter().map(|rule| rule.name).collect::<Vec<_>>().join(" "),
            Meaning::NoReason => "no reason".to_owned(),
            Meaning::Wrong(sentence) => sentence,
        };
        assert_eq!(kind("allow(user-root) because it must"), "user-root");
        assert_eq!(kind("allow(user-root, no-effect): it must"), "user-root no-effect");
        for text in ["allow(user-root)", "allow(user-root) because", "allow(user-root) because …"] {
            assert_eq!(kind(text), "no reason");
        }
        assert!(kind("allow(user-rot) because x").contains("did you mean `user-root`?"));
        assert!(kind("allow(yaml-syntax) because x").contains("cannot silence"));
        assert!(kind("allow(silence-unused) because x").contains("cannot silence"));
        for text in ["allow user-root", "deny(user-root) because x", "allow() because x", ""] {
            assert!(kind(text).contains("expected"), "{text}");
        }
    }
}
