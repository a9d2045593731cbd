//! A tree, and changes to one, as text and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::tree::{Change, Entry, How, Kind, Tree};
use crate::visible::visible;

/// What stands instead of a secret.
const MASK: &str = "********";

/// The tree for people: each entry's path, mode and owner on a line, a file's content below it.
pub fn text(tree: &Tree, show_secrets: bool, colour: bool, out: &mut dyn Write) -> io::Result<()> {
    for entry in tree.entries() {
        let path = visible(&entry.path);
        let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        match &entry.kind {
            Kind::Link(target) => {
                writeln!(
                    out,
                    "{bold}==> {path} -> {}{plain}  link {}:{}",
                    visible(target),
                    entry.owner,
                    entry.group
                )?;
            }
            Kind::Directory => {
                writeln!(
                    out,
                    "{bold}==> {path}/{plain}  {:04o} {}:{}",
                    entry.mode, entry.owner, entry.group
                )?;
            }
            Kind::File(content) => {
                writeln!(out, "{bold}==> {path}{plain}  {:04o} {}:{}", entry.mode, entry.owner, entry.group)?;
                if entry.secret && !show_secrets {
                    writeln!(out, "{MASK}")?;
                } else {
                    print(content, out)?;
                }
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// A file's text, with what a terminal would obey spelt out.
fn print(content: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let text = String::from_utf8_lossy(content);
    for line in text.lines() {
        writeln!(out, "{}", visible(&line.replace('\t', "    ")))?;
    }
    Ok(())
}

/// The tree for programs: a list of entries. A secret's content is left out unless it is asked for.
pub fn json(tree: &Tree, show_secrets: bool, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\n  \"version\": 1,\n  \"entries\": [")?;
    for (index, entry) in tree.entries().iter().enumerate() {
        write!(out, "{}\n    ", if index > 0 { "," } else { "" })?;
        serde_json::to_writer(&mut *out, &object(entry, show_secrets))?;
    }
    writeln!(out, "\n  ]\n}}")
}

fn object(entry: &Entry, show_secrets: bool) -> Value {
    let mut object = json!({
        "path": entry.path,
        "kind": entry.kind.word(),
        "mode": format!("{:04o}", entry.mode),
        "owner": entry.owner,
        "group": entry.group,
    });
    match &entry.kind {
        Kind::File(_) if entry.secret && !show_secrets => object["secret"] = true.into(),
        Kind::File(content) => {
            object["content"] = String::from_utf8_lossy(content).into();
            if entry.secret {
                object["secret"] = true.into();
            }
        }
        Kind::Link(target) => object["target"] = target.as_str().into(),
        Kind::Directory => {}
    }
    object
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

/// What was changed, for programs.
pub fn changes_json(changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
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
    serde_json::to_writer_pretty(&mut *out, &json!({"version": 1, "changes": list}))?;
    writeln!(out)
}
