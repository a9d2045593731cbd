//! `runsmith remove`: services stopped, unlinked, and what was made for them taken away.

use super::{Outcome, Terminal, beneath, render, threads};
use crate::cli::{self, TableFormat};
use crate::diff::{self, Side};
use crate::disk;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report;
use crate::source::Sources;
use crate::template::Templates;
use crate::tree::Tree;
use crate::visible::visible;

pub(super) fn remove(arguments: &cli::Remove, terminal: &mut Terminal) -> Outcome {
    // A name is that of a record, below one directory.
    for name in &arguments.services {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let sentence = format!("{} is no name of an application", visible(name));
            return Err(Failure::Usage(sentence).into());
        }
    }
    beneath::check_root(&arguments.root)?;
    // A typing error is to be seen; that nothing is left of a service is what was asked for.
    let known = disk::services(&arguments.root);
    for name in arguments.services.iter().filter(|name| !known.contains(*name)) {
        let root = arguments.root.display().to_string();
        terminal.say(
            "note",
            &format!(
                "no record of a service {} is below {}: nothing is removed for it",
                visible(name),
                visible(&root)
            ),
        );
    }
    let recording = disk::Recording {
        sets: &[],
        records: &[],
        disabled: &[],
        prune: true,
        only: Some(&arguments.services),
    };
    if arguments.diff {
        return would_remove(recording, arguments, terminal);
    }
    let backup = arguments.backup.as_deref();
    let options =
        disk::Options { waiting: &render::waiting, recording: Some(recording), backup, ..Default::default() };
    let is_json = arguments.format == TableFormat::Json;
    render::end(disk::apply(&Tree::default(), &arguments.root, &options), is_json, terminal)
}

fn would_remove(recording: disk::Recording<'_>, arguments: &cli::Remove, terminal: &mut Terminal) -> Outcome {
    let nothing = Tree::default();
    let (found, notes) = disk::read_recorded(&arguments.root, &nothing, recording, false)?;
    for note in notes {
        terminal.say("note", &note.to_string());
    }
    let found = super::diff::hidden(found, None);
    let templates = Templates::built_in()?;
    let side = |tree, sites| Side { tree, host: None, sites, templates: &templates };
    let options = diff::Options {
        owners: true,
        show_secrets: false,
        causes: false,
        threads: threads(),
        unknown: &found.unknown,
        withheld: &found.unclaimed,
    };
    let diff = diff::diff(side(&found.tree, &found.sites), side(&nothing, &[]), &Sources::new(), options)?;
    let sentences = |failures: &[Failure]| failures.iter().map(ToString::to_string).collect::<Vec<String>>();
    let (unreadable, refused) = (sentences(&found.unreadable), sentences(&found.refused));
    match arguments.format {
        TableFormat::Json => report::diff::json(&diff, &[], &unreadable, &refused, &mut terminal.out)?,
        TableFormat::Text => {
            let colour = terminal.result_coloured();
            report::diff::text(&diff, colour, &mut terminal.out)?;
        }
    }
    for failure in unreadable.iter().chain(&refused) {
        terminal.say("error", failure);
    }
    Ok(match (unreadable.is_empty() && refused.is_empty(), diff.services.is_empty()) {
        (false, _) => Exit::Trouble,
        (true, true) => Exit::Clean,
        (true, false) => Exit::Findings,
    })
}
