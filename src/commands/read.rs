//! `runsmith read`: pillars as the dialect reads them, as JSON.

use std::collections::HashSet;
use std::io::Write;

use super::{Outcome, Terminal, inputs};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::model::veil::Veil;
use crate::pillar::{Node, descend};
use crate::report;
use crate::services;
use crate::source::Span;

pub(super) fn read(arguments: &cli::Read, terminal: &mut Terminal) -> Outcome {
    let pillars = inputs::read(&arguments.inputs)?;
    terminal.findings(&pillars.findings, &pillars.sources, &pillars.secrets);
    let read = if arguments.show_secrets {
        pillars.documents
    } else {
        let secrets: HashSet<Span> = pillars.secrets.iter().copied().collect();
        let written = match pillars.may_drop {
            true => report::veil(&pillars.secrets, &pillars.sources),
            false => Veil::default(),
        };
        services::masked(&pillars.documents, &secrets, &written)
    };
    let is_masked = !arguments.show_secrets && !pillars.secrets.is_empty();
    let documents: Vec<Node> = match &arguments.key {
        None => read,
        Some(key) => read.into_iter().filter_map(|document| descend(document, key)).collect(),
    };
    if documents.is_empty() {
        let what = arguments.key.as_ref().map_or_else(
            || "there is no document: every input is empty".to_owned(),
            |key| format!("no document has the key {key}"),
        );
        return Err(Failure::Usage(what).into());
    }
    if is_masked {
        terminal.say("note", "secrets are masked; --show-secrets prints them");
    }
    for document in &documents {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = document.write_json(&mut text);
        text.push('\n');
        terminal.out.write_all(text.as_bytes())?;
    }
    Ok(Exit::Clean)
}
