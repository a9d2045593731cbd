//! Where secrets stand in a pillar, so that no excerpt shows them.

use crate::model::Service;
use crate::pillar::{Application, Node, Value};
use crate::source::{SourceId, Span};

/// Where secrets stand: no excerpt of a finding may show what is there.
pub fn secret_spans(applications: &[Application]) -> Vec<Span> {
    let mut spans = vec![];
    for application in applications {
        for (section, all) in [("secrets", true), ("environment", false)] {
            let Some(pair) = application.node.get(section) else { continue };
            let Value::Map(variables) = &pair.value.value else { continue };
            spans.extend(
                variables
                    .iter()
                    .filter(|variable| all || Service::is_secret_name(&variable.key.key_text()))
                    .map(|variable| variable.value.span),
            );
        }
    }
    spans
}

/// What a key of a pillar says about the value that follows.
enum Named {
    /// Whatever stands below it is secret.
    All,
    /// It is secret unless it is a map: an application may be called `monkey`.
    Value,
    /// Nothing.
    No,
}

fn named(key: &str) -> Named {
    if key.eq_ignore_ascii_case("secrets") || key.eq_ignore_ascii_case("secret") {
        Named::All
    } else if Service::is_secret_name(key) {
        Named::Value
    } else {
        Named::No
    }
}

/// Where secrets stand in a document of which nobody knows yet what it is: all below `secrets`, and
/// the values of keys that are named like one, wherever they are. Rather too many than one too few.
pub fn secrets_in_document(document: &Node) -> Vec<Span> {
    let mut spans = vec![];
    collect_secrets(document, false, &mut spans);
    // The same value comes by many aliases.
    spans.sort();
    spans.dedup();
    spans
}

fn collect_secrets(node: &Node, secret: bool, spans: &mut Vec<Span>) {
    match &node.value {
        Value::Map(pairs) => {
            for pair in pairs {
                match (named(&pair.key.key_text()), &pair.value.value) {
                    (Named::All, _) => collect_secrets(&pair.value, true, spans),
                    (Named::Value, Value::Map(_)) => collect_secrets(&pair.value, secret, spans),
                    (Named::Value, _) => collect_secrets(&pair.value, true, spans),
                    (Named::No, _) => collect_secrets(&pair.value, secret, spans),
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect_secrets(item, secret, spans)),
        Value::Null => {}
        _ if secret => spans.push(node.span),
        _ => {}
    }
}

/// Where secrets may stand in a text that could not be read: whatever follows such a key, on its
/// line and on the deeper ones below it. A guess that covers rather too much.
pub fn secrets_in_text(text: &str, id: SourceId) -> Vec<Span> {
    let mut spans = vec![];
    let mut at = 0;
    while let Some(line) = text.get(at..).and_then(|rest| rest.split_inclusive('\n').next()) {
        let end = at + line.len();
        let Some(value) = secret_value(line) else {
            at = end;
            continue;
        };
        let start = at + value;
        let end = end_of_value(text, start, end, depth(line), line.trim_start().starts_with('-'));
        spans.push(Span::new(id, start, end));
        at = end.max(start);
    }
    spans
}

/// Where on a line the value of the first key that is named like a secret begins.
fn secret_value(line: &str) -> Option<usize> {
    line.match_indices(':').find_map(|(colon, _)| {
        let before = line.get(..colon)?.trim_end().trim_end_matches(['"', '\'']);
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_part(*c))
            .last()
            .map_or(before.len(), |(at, _)| at);
        let is_secret = !matches!(named(before.get(start..)?), Named::No);
        is_secret.then_some(colon + 1)
    })
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t', '\u{feff}']).len()
}

/// Where a value ends that begins at `start` on a line that ends at `end` and is indented by `depth`.
fn end_of_value(text: &str, start: usize, mut end: usize, depth_of_key: usize, in_list: bool) -> usize {
    let value = text.get(start..).unwrap_or_default();
    let open = value.trim_start();
    if open.starts_with(['{', '[']) {
        // Brackets in quotes are counted too: the value then seems longer, which does no harm, or
        // ends too early, which its indentation makes good.
        let mut level = 0;
        for (at, c) in value.char_indices() {
            match c {
                '{' | '[' => level += 1,
                '}' | ']' => level -= 1,
                _ => continue,
            }
            if level == 0 {
                end = end.max(start + at);
                break;
            }
        }
        if level > 0 {
            return text.len();
        }
    } else if let Some(quote) = open.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inside = start + (value.len() - open.len()) + 1;
        match text.get(inside..).unwrap_or_default().find(quote) {
            Some(closing) => end = end.max(inside + closing + 1),
            None => return text.len(),
        }
    }
    // The rest of the line on which it seems to end, and what is deeper than its key.
    if !text.get(..end).is_some_and(|before| before.ends_with('\n')) {
        let rest = text.get(end..).unwrap_or_default();
        end += rest.find('\n').map_or(rest.len(), |at| at + 1);
    }
    for line in text.get(end..).unwrap_or_default().split_inclusive('\n') {
        let item = !in_list && depth(line) == depth_of_key && line.trim_start().starts_with('-');
        if !line.trim().is_empty() && depth(line) <= depth_of_key && !item {
            break;
        }
        end += line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a text that could not be read.
    fn left(text: &str) -> String {
        let mut out = String::new();
        let mut at = 0;
        for span in secrets_in_text(text, SourceId(0)) {
            out.push_str(&text[at..span.range().start]);
            at = span.range().end;
        }
        out + &text[at..]
    }

    #[test]
    fn secrets_of_a_text_that_cannot_be_read() {
        let cases = [
            ("secrets: {A: s3cr3t\nB: s3cr3t\n", "secrets:"),
            ("a: 1\nsecrets:\n  A: s3cr3t\n\n  B: s3cr3t\nuser: x\n", "a: 1\nsecrets:user: x\n"),
            ("x: {\"API_KEY\" : \"s3cr3t, s3cr3t\n", "x: {\"API_KEY\" :"),
            ("API_KEY: 's3cr3t\n s3cr3t' s3cr3t\nuser: x\n", "API_KEY:user: x\n"),
            ("secrets:\n- s3cr3t\n- s3cr3t\nuser: x", "secrets:user: x"),
            ("- token: |\n    s3cr3t\n  user: x\n", "- token:"),
            ("secrets: [s3cr3t,\ns3cr3t]\nuser: x\n", "secrets:user: x\n"),
            ("{\"secrets\":{\"A\":\"s3cr3t\"},\"b\":1}", "{\"secrets\":"),
            ("user: x\r\nbind: y\r\n", "user: x\r\nbind: y\r\n"),
            ("", ""),
            ("a\u{feff}漢:\npassword:", "a\u{feff}漢:\npassword:"),
        ];
        for (text, want) in cases {
            assert_eq!(left(text), want, "{text:?}");
        }
    }
}
