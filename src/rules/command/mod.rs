//! The words of the server's command, as the server reads them.

mod argparse;
mod gunicorn;
mod unicorn;

use super::{Subject, finding};
use argparse::Part;
pub(super) use argparse::{Given, integer};

use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::model::{Service, secret};
use crate::pillar::{Node, Value};
use crate::rule;
use crate::source::Span;

/// A word, and where it stands.
type Word<'a> = (&'a str, Span);

/// Options that gunicorn reads, and where they are from.
pub(super) struct Line {
    /// Where the words are, for a sentence.
    place: &'static str,
    /// Whether the application follows, so that another one is one too many.
    has_application: bool,
    /// What argparse makes of them; none if gunicorn cannot take them apart.
    parts: Vec<Part>,
    span: Span,
    /// Whether gunicorn cannot take them apart, because a quote is not closed.
    is_open: bool,
}

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let server = subject.service.server;
    if server == Server::Any {
        return;
    }
    if let Some(command) = subject.given(&["unicorn_command"]) {
        let words = words(command);
        let count = words.len();
        shell(&words, found);
        if server == Server::Unicorn
            && let Some((program, words)) = of_server(&words)
        {
            // What follows the words of the command is added by the service.
            let added = subject.service.command.get(count..).unwrap_or_default();
            unicorn::check(program, words, COMMAND, &after(subject, program, added), found);
        }
    }
    for line in &subject.lines {
        gunicorn::check(line, found);
    }
}

/// Where the words of `unicorn_command` are, for a sentence.
const COMMAND: &str = "among the words of the command";

/// The server's own word, and what follows it: what stands before is another program's.
fn of_server<'a, 'b>(words: &'a [Word<'b>]) -> Option<(&'static str, &'a [Word<'b>])> {
    let name = |word: &str| {
        let name = word.rsplit('/').next()?;
        ["gunicorn", "unicorn", "unicorn_rails"].into_iter().find(|one| *one == name)
    };
    let (at, program) = words.iter().enumerate().rev().find_map(|(at, (word, _))| Some((at, name(word)?)))?;
    Some((program, &words[at + 1..]))
}

/// The options that a gunicorn gets, in the order in which they count: later ones more.
pub(super) fn lines(service: &Service, node: &Node) -> Vec<Line> {
    if service.server != Server::Gunicorn {
        return vec![];
    }
    let mut lines = vec![];
    if let Some(node) = node.find(["environment", "GUNICORN_CMD_ARGS"])
        && let Some(line) = text(node)
    {
        let words = split(line);
        let is_open = words.is_none();
        let words = words.unwrap_or_default();
        let words: Vec<_> = words.iter().map(|word| (word.as_str(), node.span)).collect();
        let parts = argparse::read(&words);
        lines.push(Line {
            place: "in GUNICORN_CMD_ARGS",
            has_application: false,
            parts,
            span: node.span,
            is_open,
        });
    }
    if let Some(command) = node.find(["unicorn_command"]) {
        let words = words(command);
        let parts = of_server(&words).map_or_else(Vec::new, |(_, words)| argparse::read(words));
        let span = command.span;
        lines.push(Line { place: COMMAND, has_application: true, parts, span, is_open: false });
    }
    lines
}

impl Line {
    /// The settings that its options set, in order.
    pub(super) fn settings(&self) -> impl Iterator<Item = &Given> {
        self.parts.iter().filter_map(|part| if let Part::Setting(given) = part { Some(given) } else { None })
    }

    /// Whether the application follows: whether these are the words of the command.
    pub(super) fn has_application(&self) -> bool {
        self.has_application
    }

    /// How a sentence calls one of its options: as it was written, and where.
    pub(super) fn called(&self, given: &Given) -> String {
        format!("`{}` {}", given.written, self.place)
    }
}

fn after<'a>(subject: &Subject<'a>, program: &str, added: &'a [String]) -> unicorn::After<'a> {
    let variable = unicorn::variable(program);
    unicorn::After {
        added,
        app: &subject.service.app,
        variable,
        set: subject.service.environment.get(variable).map(String::as_str),
    }
}

fn words(command: &Node) -> Vec<Word<'_>> {
    match &command.value {
        Value::Str(line) => line.split_whitespace().map(|word| (word, command.span)).collect(),
        Value::List(items) => items.iter().filter_map(|item| Some((text(item)?, item.span))).collect(),
        _ => vec![],
    }
}

/// Words as Python's `shlex.split` has them, which gunicorn reads GUNICORN_CMD_ARGS with: a shell's quotes and backslashes,
/// and no comments. None if something is left open.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            // Within double quotes it escapes them and itself only.
            (Some('"'), '\\') => {
                let next = rest.next()?;
                let kept = if matches!(next, '"' | '\\') { "" } else { "\\" };
                word.get_or_insert_default().push_str(kept);
                word.get_or_insert_default().push(next);
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(rest.next()?),
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (_, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

/// Words that only a shell understands at the beginning of a command.
const SHELL: &[&str] = &[".", "cd", "command", "eval", "exec", "export", "set", "source", "ulimit", "umask"];

fn shell(words: &[Word<'_>], found: &mut Vec<Diagnostic>) {
    let Some((first, span)) = words.first() else { return };
    let named = first.split_once('=').map(|(name, _)| name);
    if let Some(name) = named.filter(|name| secret::is_variable(name)) {
        let message = format!("the command begins with the variable `{name}`, and no shell reads it");
        found.push(finding(&rule::COMMAND_OPTION, message).at_hidden(*span, "write it below `environment`"));
    } else if SHELL.contains(first) {
        let message =
            format!("the command begins with `{first}`, which only a shell knows, and no shell reads it");
        found.push(finding(&rule::COMMAND_OPTION, message).at(*span, "begin with the program"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_shlex() {
        for (line, words) in [
            ("-w 4  --name 'a b'", Some(vec!["-w", "4", "--name", "a b"])),
            ("a\"b c\"d ''", Some(vec!["ab cd", ""])),
            ("\"a\\\"b\\n\" \\x '\\'", Some(vec!["a\"b\\n", "x", "\\"])),
            ("a # b", Some(vec!["a", "#", "b"])),
            ("'a", None),
            ("a\\", None),
            ("", Some(vec![])),
        ] {
            let words = words.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(split(line), words, "{line}");
        }
    }
}
