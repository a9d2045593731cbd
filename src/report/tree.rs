//! A tree, and changes to one, as text and as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::stream::{write_json, write_line};
use crate::failure::Failure;
use crate::model::veil::{MASK, Veil};
use crate::tree::{Change, Entry, How, Kind, Tree};
use crate::visible::visible;

/// What covers the secrets of a tree in its other files; nothing if they are to be shown.
fn veil(tree: &Tree, show_secrets: bool) -> Veil {
    if show_secrets { Veil::default() } else { Veil::over(tree.secrets()) }
}

/// The tree for people: each entry's path, mode and owner on a line, a file's content below it. Says how many files besides the
/// secret ones hold a secret, which is masked in them.
pub fn text(tree: &Tree, show_secrets: bool, colour: bool, out: &mut dyn Write) -> io::Result<usize> {
    let veil = veil(tree, show_secrets);
    let mut masked = 0;
    let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    // Put together first: formatting each piece into `out` took longer than printing the content.
    let mut line = String::new();
    for entry in tree.entries() {
        line.clear();
        for piece in [bold, "==> ", &visible(&entry.path)] {
            line.push_str(piece);
        }
        match &entry.kind {
            Kind::Link(target) => {
                for piece in [" -> ", &visible(target), plain, "  link"] {
                    line.push_str(piece);
                }
            }
            Kind::Directory | Kind::File(_) => {
                let slash = if entry.kind == Kind::Directory { "/" } else { "" };
                for piece in [slash, plain, "  "] {
                    line.push_str(piece);
                }
                octal(entry.mode, &mut line);
            }
        }
        for piece in [" ", &entry.owner, ":", &entry.group, "\n"] {
            line.push_str(piece);
        }
        out.write_all(line.as_bytes())?;
        if let Kind::File(content) = &entry.kind {
            if entry.secret && !show_secrets {
                writeln!(out, "{MASK}")?;
            } else if veil.hides(content) {
                masked += 1;
                print(veil.cover(&String::from_utf8_lossy(content)).as_bytes(), out)?;
            } else {
                print(content, out)?;
            }
            out.write_all(b"\n")?;
        }
    }
    Ok(masked)
}

/// A mode in four octal digits.
fn octal(mode: u32, out: &mut String) {
    for shift in [9, 6, 3, 0] {
        out.push(char::from(b'0' + (mode >> shift & 7) as u8));
    }
}

/// A file's text, with what a terminal would obey spelt out.
fn print(content: &[u8], out: &mut dyn Write) -> io::Result<()> {
    // Nearly every file is plain ASCII, and is printed as it is. Looked at in pieces, without a
    // branch for each byte.
    let plain = |piece: &[u8]| {
        piece.iter().fold(true, |plain, byte| plain & (matches!(byte, b' '..=b'~') | (*byte == b'\n')))
    };
    if content.chunks(256).all(plain) {
        out.write_all(content)?;
        return if content.ends_with(b"\n") || content.is_empty() { Ok(()) } else { writeln!(out) };
    }
    let text = String::from_utf8_lossy(content);
    for line in text.lines() {
        writeln!(out, "{}", visible(&line.replace('\t', "    ")))?;
    }
    Ok(())
}

/// An entry for programs.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    kind: &'a str,
    mode: String,
    owner: &'a str,
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// The tree for programs: a list of entries. A secret's content is left out unless it is asked for; that of a file that holds a
/// secret among other things, too, because a program would write the mask. Says how many of these there are.
pub fn json(tree: &Tree, show_secrets: bool, out: &mut dyn Write) -> io::Result<usize> {
    let veil = veil(tree, show_secrets);
    let mut masked = 0;
    write!(out, "{{\n  \"version\": 1,\n  \"entries\": [")?;
    for (index, entry) in tree.entries().iter().enumerate() {
        out.write_all(if index > 0 { b",\n    " } else { b"\n    " })?;
        let mut shown = shown(entry, show_secrets);
        if shown.content.as_ref().is_some_and(|content| veil.hides(content.as_bytes())) {
            masked += 1;
            (shown.content, shown.secret) = (None, Some(true));
        }
        write_line(&shown, out)?;
    }
    writeln!(out, "\n  ]\n}}")?;
    Ok(masked)
}

fn shown(entry: &Entry, show_secrets: bool) -> Shown<'_> {
    let (content, target) = match &entry.kind {
        Kind::File(_) if entry.secret && !show_secrets => (None, None),
        // Checking a text that is valid is faster than looking for what is not.
        Kind::File(content) => {
            let text = std::str::from_utf8(content).map(Cow::Borrowed);
            (Some(text.unwrap_or_else(|_| String::from_utf8_lossy(content))), None)
        }
        Kind::Link(target) => (None, Some(target.as_str())),
        Kind::Directory => (None, None),
    };
    Shown {
        path: &entry.path,
        kind: entry.kind.word(),
        mode: format!("{:04o}", entry.mode),
        owner: &entry.owner,
        group: &entry.group,
        content,
        secret: (entry.secret && matches!(entry.kind, Kind::File(_))).then_some(true),
        target,
    }
}

/// What was changed, a line each, and how much it was.
pub fn changes_text(changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        writeln!(out, "{change}")?;
    }
    let mut paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    paths.dedup();
    match paths.len() {
        0 => writeln!(out, "nothing to change"),
        1 => writeln!(out, "1 path changed"),
        count => writeln!(out, "{count} paths changed"),
    }
}

/// What was changed, and which services failed and why, for programs.
pub fn changes_json(
    changes: &[Change],
    failed: &[(&[String], &Failure)],
    out: &mut dyn Write,
) -> io::Result<()> {
    let list: Vec<Value> = changes
        .iter()
        .map(|change| {
            let path = &change.path;
            match &change.how {
                How::Created(kind) => json!({"path": path, "change": "created", "kind": kind}),
                How::Removed(kind) => json!({"path": path, "change": "removed", "kind": kind}),
                How::Content => json!({"path": path, "change": "content"}),
                How::Kind { old, new } => json!({"path": path, "change": "kind", "old": old, "new": new}),
                How::Target { old, new } => json!({"path": path, "change": "target", "old": old, "new": new}),
                How::Mode { old, new } => {
                    json!({"path": path, "change": "mode", "old": format!("{old:04o}"), "new": format!("{new:04o}")})
                }
                How::Owner { old, new } => json!({"path": path, "change": "owner", "old": old, "new": new}),
                How::Group { old, new } => json!({"path": path, "change": "group", "old": old, "new": new}),
            }
        })
        .collect();
    let foreign = |failure: &Failure| -> Vec<Value> {
        let things = failure.foreign().iter();
        things.map(|thing| json!({"path": thing.path, "kind": thing.kind, "change": thing.change})).collect()
    };
    let failed: Vec<Value> = failed
        .iter()
        .map(|(services, failure)| {
            json!({"services": services, "message": failure.to_string(), "foreign": foreign(failure)})
        })
        .collect();
    write_json(&json!({"version": 1, "changes": list, "failed": failed}), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_in_json() {
        let text = "a\u{9b}31m\u{202e}\u{e0041}\u{7f}é";
        let entry = Entry {
            path: format!("/{text}"),
            kind: Kind::File(text.into()),
            mode: 0o644,
            owner: "root".into(),
            group: "root".into(),
            secret: false,
        };
        let mut out = vec![];
        json(&Tree::new(vec![entry]).unwrap_or_default(), false, &mut out).unwrap();
        let change = Change { path: text.to_owned(), how: How::Created("file") };
        changes_json(&[change], &[], &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains(['\u{9b}', '\u{202e}', '\u{e0041}', '\u{7f}']), "{out}");
        let values = serde_json::Deserializer::from_str(&out).into_iter::<Value>();
        let values: Vec<Value> = values.map(Result::unwrap).collect();
        assert_eq!(values[0]["entries"][0]["content"], text);
        assert_eq!(values[1]["changes"][0]["path"], text);
    }
}
