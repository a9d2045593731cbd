//! A rendered file, and beside each line what it comes from.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{MOST_CAUSES, origin};
use crate::diff::provenance::Explained;
use crate::visible::visible;

/// The widest line that others are aligned with.
const WIDEST: usize = 60;

/// For people: the line, then its keys and where they stand.
pub fn explained(lines: &[Explained], colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let shown: Vec<String> =
        lines.iter().map(|line| visible(&line.text.replace('\t', "    ")).into_owned()).collect();
    let width = |text: &String| text.chars().count();
    let widest = shown.iter().map(width).filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let (cyan, plain) = if colour { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
    for (line, text) in lines.iter().zip(&shown) {
        if line.origins.is_empty() {
            writeln!(out, "{text}")?;
            continue;
        }
        let mut said: Vec<String> = line
            .origins
            .iter()
            .take(MOST_CAUSES)
            .map(|(key, from)| format!("{} {}", visible(key), origin(from)))
            .collect();
        if line.origins.len() > MOST_CAUSES {
            said.push(format!("and {} more", line.origins.len() - MOST_CAUSES));
        }
        let pad = " ".repeat(widest.saturating_sub(width(text)));
        writeln!(out, "{text}{pad}  {cyan}<- {}{plain}", said.join("; "))?;
    }
    Ok(())
}

/// For programs.
pub fn explained_json(path: &str, lines: &[Explained], out: &mut dyn Write) -> io::Result<()> {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            let origins: Vec<Value> = line
                .origins
                .iter()
                .map(|(key, from)| {
                    json!({"key": key, "kind": from.kind.name(), "written": from.key, "place": from.place, "via": from.via})
                })
                .collect();
            json!({"text": line.text, "origins": origins})
        })
        .collect();
    out.write_all(
        crate::report::stream::json_text(&json!({"version": 1, "path": path, "lines": lines})).as_bytes(),
    )
}
