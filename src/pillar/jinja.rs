//! A pillar that nobody rendered yet.

use super::Dialect;
use super::event::Range;
use crate::diagnostic::Diagnostic;
use crate::rule;
use crate::source::{SourceId, Span};

/// Whether the text has anything that could be Jinja; most have not.
pub(super) fn suspected(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Where a string that came out of the YAML still asks to be rendered, from its beginning.
pub(super) fn in_value(text: &str) -> Option<usize> {
    [("{{", "}}"), ("{%", "%}")]
        .into_iter()
        .filter_map(|(open, close)| {
            let at = text.find(open)?;
            text[at..].contains(close).then_some(at)
        })
        .min()
}

/// The first `{{`, `{%` or `{#` of a text that is no YAML, comments left out.
pub(super) fn in_text(text: &str) -> Option<Range> {
    let mut start = 0;
    // What is never closed is no Jinja, only many braces.
    let pairs = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")].map(|(open, close)| (open, text.rfind(close)));
    for line in text.split_inclusive('\n') {
        let code = without_comment(line);
        let first = pairs
            .iter()
            .filter_map(|(open, last_close)| {
                let at = code.find(open)?;
                last_close.is_some_and(|close| close > start + at).then_some(at)
            })
            .min();
        if let Some(at) = first {
            let end = code[at..].find(['}', '\r', '\n']).map_or(code.len(), |end| at + end);
            let end = if code[end..].starts_with("}}") { end + 2 } else { code.len().min(end + 1) };
            return Some(Range { start: (start + at) as u32, end: (start + end) as u32 });
        }
        start += line.len();
    }
    None
}

/// A comment begins at a `#` that begins the line or stands after a blank; quotes are not looked at.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| at == &0 || line[..*at].ends_with([' ', '\t']);
    match line.match_indices('#').find(begins) {
        Some((at, _)) => &line[..at],
        None => line,
    }
}

/// The one thing to say about such a text.
pub(super) fn finding(dialect: Dialect, source: SourceId, range: Range) -> Diagnostic {
    let place = Span { source, start: range.start, end: range.end };
    let finding = Diagnostic::error(&rule::JINJA, "this file is a Jinja template that is not rendered yet")
        .at(place, "still to be filled in");
    match dialect {
        Dialect::Ansible => finding
            .help("Let Ansible render it: `ansible localhost -e @FILE -m ansible.builtin.copy -a 'dest=OUT content={{ NAME | to_json }}'`, then give OUT to runsmith.")
            .help("If the braces are meant as they are, tag the value `!unsafe`."),
        Dialect::Salt | Dialect::Yaml12 => finding
            .help("Let Salt render it: `salt-call --local slsutil.renderer FILE --out=json | runsmith … --key local -`.")
            .help("If the braces are meant as they are, give the pillar as JSON: there they are only text."),
    }
}

/// Renderers a first line like `#!jinja|yaml` may name beside YAML itself; the text after them is
/// YAML, once they ran.
const TEMPLATES: [&str; 6] = ["jinja", "mako", "cheetah", "genshi", "wempy", "yamlex"];

/// Renderers that make something of a text that is no YAML (salt/renderers).
const OTHERS: [&str; 14] = [
    "py",
    "pydsl",
    "pyobjects",
    "json",
    "json5",
    "hjson",
    "toml",
    "msgpack",
    "gpg",
    "nacl",
    "pass",
    "stateconf",
    "dson",
    "aws_kms",
];

/// What is wrong with a first line that names Salt's renderers, if anything is.
pub(super) fn renderer_line(text: &str, source: SourceId) -> Option<Diagnostic> {
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).strip_prefix("#!")?;
    let line = line.lines().next().unwrap_or("");
    let names = || line.split('|').filter_map(|part| part.split_whitespace().next());
    let other = names().find(|name| OTHERS.contains(name))?;
    if names().any(|name| !OTHERS.contains(&name) && !TEMPLATES.contains(&name) && name != "yaml") {
        return None;
    }
    let start = text.find("#!").unwrap_or(0);
    let place = Span::new(source, start, start + 2 + line.len());
    let message = format!("Salt's renderer `{other}` makes this pillar, not YAML alone");
    Some(Diagnostic::error(&rule::RENDERER, message).at(place, "").help(
        "Let Salt render it: `salt-call --local slsutil.renderer FILE --out=json | runsmith … --key local -`.",
    ))
}
