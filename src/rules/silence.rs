//! Comments that silence a rule on one line: `# runsmith: allow(user-root) because …`.
//!
//! At the end of a line the comment is about that line; on a line of its own about the next one
//! that is neither blank nor a comment.

use std::collections::{HashMap, HashSet};

use super::{finding, judge};
use crate::diagnostic::{Diagnostic, MOST_PRINTED};
use crate::pillar::{Node, Value};
use crate::rule::{self, Family, Rule};
use crate::source::{Source, SourceId, Sources, Span};

/// A comment that begins with `runsmith:`, or is meant to.
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
    /// It names rules.
    Names {
        /// Those that it can silence.
        rules: Vec<&'static Rule>,
        /// The other names, and what is wrong with each.
        wrong: Vec<(Span, String)>,
        /// Without a reason it silences nothing.
        has_reason: bool,
    },
    /// It cannot be followed; what was to be written.
    Wrong(String),
}

/// What a comment begins with that is meant for us.
const MARK: &str = "runsmith:";

/// What a comment says that is meant to silence: ours, and what other tools say.
const VERBS: [&str; 4] = ["allow", "ignore", "disable", "silence"];

/// So many of them are looked for on a line.
const MOST_ON_LINE: usize = 10;

/// The comments of a YAML text. `documents` are what was read from it: a `#` within a value is none.
pub fn find(source: &Source, id: SourceId, documents: &[Node]) -> Vec<Silence> {
    let text = source.text();
    let mut found = vec![];
    let mut scalars: Option<Vec<Span>> = None;
    // So many wrong names there is something to say about.
    let mut left = MOST_PRINTED;
    // A line of many `#` is looked for once, and so is the end of a block of comments.
    let mut line = 0..0;
    // Where it begins behind byte order marks, of which there may be any number.
    let mut code_from = 0;
    let mut block = Block::default();
    // Each of them ends with the line, and so has what follows it.
    let mut on_line = 0;
    for (start, _) in text.match_indices('#') {
        if start >= line.end {
            let end = text[start..].find(['\n', '\r']).map_or(text.len(), |end| start + end);
            line = text[..start].rfind(['\n', '\r']).map_or(0, |end| end + 1)..end;
            code_from = end - text[line.clone()].trim_start_matches('\u{feff}').len();
            on_line = 0;
        }
        if on_line >= MOST_ON_LINE {
            continue;
        }
        let end = line.end;
        let code = &text[code_from..start];
        if !code.is_empty() && !code.ends_with([' ', '\t']) {
            continue;
        }
        let comment = text[start + 1..end].trim_start();
        let is_ours = comment.starts_with(MARK);
        if !is_ours && !is_meant(comment) {
            continue;
        }
        let scalars = scalars.get_or_insert_with(|| scalars_of(documents, id));
        let last = scalars.partition_point(|span| span.range().start <= start);
        if last.checked_sub(1).is_some_and(|last| start < scalars[last].range().end) {
            continue;
        }
        let own = source.position(start as u32).line;
        let is_alone = code.trim().is_empty() || code.trim_start().starts_with('#');
        let line = if is_alone { block.next_line(text, end, own) } else { own };
        let meaning = match is_ours {
            true => meaning(&comment[MARK.len()..], &mut left, |at, length| {
                let at = end - comment.len() + MARK.len() + at;
                Span::new(id, at, at + length)
            }),
            false => Meaning::Wrong(expected(comment)),
        };
        found.push(Silence { span: Span::new(id, start, end), line, meaning });
        on_line += 1;
    }
    found
}

/// Marks the values on the lines where a comment says that what looks like a secret is none.
pub fn make_ordinary(silences: &[Silence], source: &Source, node: &mut Node) {
    let says = |silence: &&Silence| {
        matches!(&silence.meaning, Meaning::Names { rules, has_reason: true, .. }
            if rules.iter().any(|rule| rule.name == rule::PLAIN_SECRET.name))
    };
    let lines: HashSet<usize> = silences.iter().filter(says).map(|silence| silence.line).collect();
    if !lines.is_empty() {
        mark(node, &lines, source);
    }
}

fn mark(node: &mut Node, lines: &HashSet<usize>, source: &Source) {
    match &mut node.value {
        Value::Map(pairs) => pairs.iter_mut().for_each(|pair| mark(&mut pair.value, lines, source)),
        Value::List(items) => items.iter_mut().for_each(|item| mark(item, lines, source)),
        _ => node.ordinary = lines.contains(&source.position(node.span.start).line),
    }
}

/// Whether a comment that does not begin with the mark was meant to: it nearly does, and goes on as
/// one that silences does. Prose about runsmith is not meant.
fn is_meant(comment: &str) -> bool {
    let comment = comment.trim_start_matches('#').trim_start();
    if !comment.starts_with(['r', 'R']) {
        return false;
    }
    let (name, rest) = first_word(comment);
    let (verb, rest) = first_word(rest.trim_start_matches([':', ' ', '\t', '-', '.', ',', ';', '=']));
    let verb = verb.to_lowercase();
    let is_near = |most: usize| VERBS.iter().any(|word| strsim::damerau_levenshtein(&verb, word) <= most);
    let is_followed = if rest.starts_with('(') {
        is_near(2)
    } else {
        // What runsmith allows is told in prose, and so is whatever names no rule.
        is_near(1)
            && !verb.ends_with(['s', 'd'])
            && names_of(rest).next().is_some_and(|name| name.contains('-') && rule::named(name).is_some())
    };
    is_followed && strsim::damerau_levenshtein(&name.to_lowercase(), MARK.trim_end_matches(':')) <= 2
}

/// The letters that a text begins with, and the rest.
fn first_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

/// What looks like names of rules, whatever stands between them.
fn names_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|name| !name.is_empty())
}

/// What is to be written instead of a comment that cannot be followed: with the rules that it names.
fn expected(comment: &str) -> String {
    /// Nobody means more.
    const MOST: usize = 10;
    let names =
        names_of(comment).filter(|name| name.contains('-') && judge::silenceable(name, false).is_ok());
    let names: Vec<_> = names.take(MOST).collect();
    let names = if names.is_empty() { "RULE".to_owned() } else { names.join(", ") };
    format!("expected `# {MARK} allow({names}) because REASON`")
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

/// Lines that are blank or comments, as far as they were read, and the line after them.
#[derive(Default)]
struct Block {
    /// Where the last of these lines ends.
    end: usize,
    /// The next line, if there is one.
    next: Option<usize>,
}

impl Block {
    /// The line that a comment alone on line `own` is about; the comment's line ends at `end`. Comments come in the order of the
    /// text, so each line is read once.
    fn next_line(&mut self, text: &str, end: usize, own: usize) -> usize {
        if end > self.end {
            *self = Self::after(text, end, own);
        }
        self.next.unwrap_or(own + 1)
    }

    /// The block that goes on after line `line`, which ends at `end`.
    fn after(text: &str, mut end: usize, mut line: usize) -> Self {
        loop {
            let rest = &text[end..];
            let Some(rest) = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])) else {
                return Self { end, next: None };
            };
            line += 1;
            let length = rest.find(['\n', '\r']).unwrap_or(rest.len());
            let words = rest[..length].trim();
            if !words.is_empty() && !words.starts_with('#') {
                return Self { end, next: Some(line) };
            }
            end = text.len() - rest.len() + length;
        }
    }
}

/// What follows the mark means; `place` says where so many of its bytes are.
fn meaning(text: &str, left: &mut usize, place: impl Fn(usize, usize) -> Span) -> Meaning {
    let command = text.trim_start();
    let Some((names, reason)) = command.strip_prefix("allow(").and_then(|rest| rest.split_once(')')) else {
        return Meaning::Wrong(expected(text));
    };
    let (mut rules, mut wrong) = (vec![], vec![]);
    let mut at = text.len() - command.len() + "allow(".len();
    for given in names.split(',') {
        let name = given.trim();
        if name.is_empty() {
            return Meaning::Wrong(expected(text));
        }
        match judge::silenceable(name, *left > 0) {
            Ok(rule) => rules.push(rule),
            // Nobody reads about more.
            Err(_) if *left == 0 => {}
            Err(sentence) => {
                *left -= 1;
                let blanks = given.len() - given.trim_start().len();
                wrong.push((place(at + blanks, name.len()), sentence));
            }
        }
        at += given.len() + 1;
    }
    let reason = reason.trim();
    let reason = reason.strip_prefix("because").unwrap_or(reason);
    Meaning::Names { rules, wrong, has_reason: reason.chars().any(char::is_alphanumeric) }
}

/// Comments by the line they are about and the rule that they silence there.
pub(super) struct Lines<'a> {
    sources: &'a Sources,
    /// The first such comment.
    first: HashMap<(SourceId, usize, &'static str), usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(silences: &[Silence], sources: &'a Sources) -> Self {
        let mut first = HashMap::new();
        for (index, silence) in silences.iter().enumerate() {
            let Meaning::Names { rules, has_reason: true, .. } = &silence.meaning else { continue };
            for rule in rules {
                first.entry((silence.span.source, silence.line, rule.name)).or_insert(index);
            }
        }
        Self { sources, first }
    }

    /// Which comment silences a finding: one that names its rule, about a line that it has a place on.
    pub(super) fn silencing(&self, finding: &Diagnostic) -> Option<usize> {
        if self.first.is_empty() {
            return None;
        }
        finding.labels.iter().find_map(|label| {
            let source = label.span.source;
            let line = self.sources.get(source).position(label.span.start).line;
            self.first.get(&(source, line, finding.rule.name)).copied()
        })
    }
}

/// What is wrong with a comment; `used` says that it silenced something, or might have.
pub(super) fn complaints(silence: &Silence, used: bool) -> Vec<Diagnostic> {
    let at = silence.span;
    let (rules, wrong, has_reason) = match &silence.meaning {
        Meaning::Wrong(sentence) => {
            let found = finding(&rule::SILENCE_RULE, "this comment silences nothing");
            return vec![found.at(at, sentence.clone())];
        }
        Meaning::Names { rules, wrong, has_reason } => (rules, wrong, *has_reason),
    };
    let mut found: Vec<_> = wrong
        .iter()
        .map(|(name, sentence)| {
            finding(&rule::SILENCE_RULE, "this comment names what it cannot silence")
                .at(*name, sentence.clone())
        })
        .collect();
    if !has_reason {
        let message = "a rule is silenced without a reason, so it is not silenced";
        found.push(finding(&rule::SILENCE_REASON, message).at(at, "write `because` and the reason"));
    // What is so on one host need not be so where this is looked at.
    } else if !used && !rules.is_empty() && rules.iter().all(|rule| rule.family != Family::Host) {
        let names: Vec<_> = rules.iter().map(|rule| format!("`{rule}`")).collect();
        let message = format!("nothing on line {} is found by {}", silence.line, names.join(" or "));
        found.push(finding(&rule::SILENCE_UNUSED, message).at(at, "remove this comment"));
    }
    found
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
        assert_eq!(lines(&format!("# prose {comment}\n\nb: 2\n")), [3]);
        // Blocks one after the other, a comment at the end of a line between them, and one with nothing after it.
        let blocks =
            format!("{comment}\n#\n{comment} {comment}\nb: 2 {comment}\n{comment}\nc: 3\n{comment}\n# x\n");
        assert_eq!(lines(&blocks), [4, 4, 4, 4, 6, 8]);
    }

    #[test]
    fn a_long_block_is_about_the_line_after_it() {
        const COMMENTS: usize = 20_000;
        let comment = "# runsmith: allow(user-root) because x\n";
        let found = lines(&format!("{}b: 2\n", comment.repeat(COMMENTS)));
        assert_eq!(found, vec![COMMENTS + 1; COMMENTS]);
    }

    /// What is silenced, then what is said of the comment.
    fn told(text: &str) -> String {
        let source = Source::new("x", text);
        let [silence] = &find(&source, SourceId(0), &[])[..] else { return "nothing".to_owned() };
        let said = complaints(silence, true);
        let said = said.iter().map(|one| format!("{}: {}", one.rule, one.labels[0].text));
        let rules: Vec<_> = match &silence.meaning {
            Meaning::Names { rules, has_reason: true, .. } => {
                rules.iter().map(|rule| rule.name.to_owned()).collect()
            }
            _ => vec![],
        };
        rules.into_iter().chain(said).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_a_comment_means() {
        let told = |comment: &str| told(&format!("a: 1 # runsmith: {comment}"));
        assert_eq!(told("allow(user-root) because it must"), "user-root");
        assert_eq!(told("allow(user-root, no-effect): it must"), "user-root; no-effect");
        for text in ["allow(user-root)", "allow(user-root) because", "allow(user-root) because …"] {
            assert_eq!(told(text), "silence-reason: write `because` and the reason");
        }
        assert!(told("allow(user-rot) because x").contains("did you mean `user-root`?"));
        assert!(told("allow(yaml-syntax) because x").contains("cannot silence"));
        assert!(told("allow(silence-unused) because x").contains("cannot silence"));
        for text in ["allow user-root", "Allow(user-root) because x", "allow (user-root) because x"] {
            assert!(told(text).ends_with("expected `# runsmith: allow(user-root) because REASON`"), "{text}");
        }
        for text in ["allow() because x", "", "renders this file"] {
            assert!(told(text).ends_with("expected `# runsmith: allow(RULE) because REASON`"), "{text}");
        }
    }

    #[test]
    fn a_wrong_name_voids_no_other() {
        assert_eq!(
            told("a: 1 # runsmith: allow(user-rot, no-effect, yaml-syntax) because x"),
            "no-effect; silence-rule: there is no rule `user-rot`; did you mean `user-root`?; silence-rule: a \
             comment cannot silence `yaml-syntax`: with such a finding no service can be rendered"
        );
        let text = "a: 1 #\trunsmith:  allow( no-effect , user-rot) because x";
        let found = complaints(&find(&Source::new("x", text), SourceId(0), &[])[0], true);
        assert_eq!(&text[found[0].labels[0].span.range()], "user-rot");
    }

    #[test]
    fn what_was_meant_to_silence_is_told() {
        for comment in [
            "runsmith allow user-root: it mounts",
            "runsmith allow(user-root) because it mounts",
            "runsmith - alow (user-root) because it mounts",
            "Runsmith: allow(user-root) because it mounts",
            "runsmith : allow(user-root)",
            "RUNSMITH ignore user-root",
            "runsmiht: allow(user-root) because it mounts",
            "runsmith-disable(user-root)",
        ] {
            let told = told(&format!("user: root # {comment}"));
            assert_eq!(
                told, "silence-rule: expected `# runsmith: allow(user-root) because REASON`",
                "{comment}"
            );
        }
        for prose in [
            "runsmith renders this file",
            "runsmith allows user-root and says so",
            "Runsmith: see the page about user-root",
            "runsmith allows (since 1.0) what we need",
            "runsmith allow us to go on",
            "runsmith ignores (unlike Salt) this key",
            "runsmith",
            "runner: allow(user-root)",
            "see runsmith allow(user-root)",
            "clippy: allow(user-root)",
        ] {
            assert_eq!(told(&format!("user: root # {prose}")), "nothing", "{prose}");
        }
    }
}
