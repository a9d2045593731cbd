//! `runsmith render`: pillars in, a tree of files out: printed, or put on disk.

use std::io::Write;
use std::path::Path;

use super::beneath::{self, Directory};
use super::judge::levels;
use super::{Outcome, Stop, Terminal, any_error, diff, file, inputs, nothing, threads};
use crate::cli::{self, TreeFormat};
use crate::disk;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::host::proc::own_memory;
use crate::report;
use crate::rules::Texts;
use crate::rules::judge::judge;
use crate::services::{self, Asked, Rendered, Services};
use crate::template::{self, Templates};

/// The largest template, in bytes.
pub(super) const MAX_TEMPLATE: u64 = template::MOST_BYTES as u64;

pub(super) fn render(arguments: &cli::Render, terminal: &mut Terminal) -> Outcome {
    if arguments.diff || arguments.explain.is_some() {
        return diff::diff(arguments, terminal);
    }
    if matches!(arguments.format, TreeFormat::Patch | TreeFormat::Markdown) {
        return Err(Failure::Usage("--format patch and --format markdown need --diff".to_owned()).into());
    }
    if arguments.adopt && arguments.out.is_none() {
        return Err(
            Failure::Usage("--adopt needs --out, or --diff to show what it would change".to_owned()).into()
        );
    }
    if arguments.prune && arguments.out.is_none() {
        return Err(
            Failure::Usage("--prune needs --out, or --diff to show what it would remove".to_owned()).into()
        );
    }
    let levels = levels(&arguments.severities)?;
    let pillars = inputs::read(&arguments.inputs)?;
    // A message about a template quotes it, and it may have the value of a secret.
    let templates = templates(arguments.templates.as_deref())
        .map_err(|failure| report::covered(failure, &pillars.secrets, &pillars.sources))?;
    let key = arguments.key.as_deref();
    let hidden = services::secret_values(&pillars.documents, &pillars.secrets);
    let (documents, emptied) = match arguments.prune {
        true => services::without_empty(pillars.documents, key),
        false => (pillars.documents, false),
    };
    let (applications, unfit) = services::select(documents, key);
    let findings = [pillars.findings, unfit].concat();
    if applications.is_empty() && any_error(&findings) {
        return Err(Stop::Findings(findings, pillars.sources, pillars.secrets));
    }
    if applications.is_empty() && !emptied {
        return Err(Failure::Usage(nothing(key)).into());
    }
    let secrets = pillars.secrets;
    let sets = inputs::sets(arguments.set.as_deref(), &pillars.sets);
    let of_records = arguments.out.is_some().then_some(sets.as_slice());
    let asked = Asked { threads: threads(), sets: of_records, known: false, files: true };
    let texts = Texts { sources: &pillars.sources, dialect: pillars.dialect };
    let judged = |found| {
        let found = [findings, found].concat();
        judge(found, &pillars.silences, &levels, &pillars.sources, key.is_none())
    };
    let rendered = match services::render(applications, &templates, texts, asked, judged)
        .map_err(|failure| report::covered(failure, &secrets, &pillars.sources))?
    {
        Rendered::Services(services, found) => {
            terminal.findings(&found, &pillars.sources, &secrets);
            services.hiding(hidden)
        }
        Rendered::Findings(found) => return Err(Stop::Findings(found, pillars.sources, secrets)),
    };
    match &arguments.out {
        Some(root) => put(&rendered, &sets, root, arguments, terminal),
        None => {
            let (tree, show) = (&rendered.tree, arguments.show_secrets);
            let colour = terminal.result_coloured();
            let masked = match arguments.format {
                TreeFormat::Text => report::tree::text(tree, show, colour, &mut terminal.out)?,
                _ => report::tree::json(tree, show, &mut terminal.out)?,
            };
            if masked > 0 {
                terminal.say("note", &with_secrets(masked));
            }
            Ok(Exit::Clean)
        }
    }
}

/// What is said of files that are not secret, and hold the value of a secret all the same.
pub(super) fn with_secrets(files: usize) -> String {
    let these = if files == 1 { "1 file that is" } else { &format!("{files} files that are") };
    let hold = if files == 1 { "holds" } else { "hold" };
    format!("{these} not secret {hold} the value of a secret, which is not shown; --show-secrets shows it")
}

fn put(
    services: &Services,
    sets: &[String],
    root: &Path,
    arguments: &cli::Render,
    terminal: &mut Terminal,
) -> Outcome {
    beneath::check_root(root)?;
    let recording = disk::Recording {
        sets,
        records: &services.records,
        disabled: &services.disabled,
        prune: arguments.prune,
        only: None,
    };
    let options = disk::Options {
        durable: !arguments.no_sync,
        waiting: &waiting,
        removing: &removing,
        recording: Some(recording),
        backup: arguments.backup.as_deref(),
        adopt: arguments.adopt,
        ..Default::default()
    };
    let is_json = arguments.format != TreeFormat::Text;
    end(disk::apply(&services.tree, root, &options), is_json, terminal)
}

/// Says that another run is at work.
pub(super) fn waiting(held: &str) {
    // In one piece: standard error is not buffered, and others may write to it too.
    let note = format!("note: {held}; waiting for it to end\n");
    let _ = std::io::stderr().write_all(note.as_bytes());
}

/// Says what will be removed, before it is.
pub(super) fn removing(what: &str) {
    let _ = std::io::stderr().write_all(format!("note: {what}\n").as_bytes());
}

/// Prints what a run changed.
pub(super) fn end(
    result: Result<disk::Applied, disk::Stopped>,
    is_json: bool,
    terminal: &mut Terminal,
) -> Outcome {
    match result {
        Ok(applied) => {
            for note in &applied.notes {
                terminal.say("note", &note.to_string());
            }
            if is_json {
                let failed = applied.failed.iter().map(|one| (&*one.services, &one.failure));
                let failed: Vec<_> = failed.collect();
                report::tree::changes_json(&applied.changes, &failed, &mut terminal.out)?;
            } else if applied.failed.is_empty() || !applied.changes.is_empty() {
                report::tree::changes_text(&applied.changes, &mut terminal.out)?;
            }
            for failed in &applied.failed {
                terminal.say("error", &failed.to_string());
            }
            Ok(if applied.failed.is_empty() { Exit::Clean } else { Exit::Trouble })
        }
        Err(stopped) => {
            if !stopped.done.is_empty() && is_json {
                report::tree::changes_json(&stopped.done, &[], &mut terminal.out)?;
            } else if !stopped.done.is_empty() {
                report::tree::changes_text(&stopped.done, &mut terminal.out)?;
            }
            Err(stopped.failure.into())
        }
    }
}

/// The built-in templates, some replaced by the files of a directory and checked against the model.
pub(super) fn templates(directory: Option<&Path>) -> Result<Templates, Failure> {
    let Some(directory) = directory else { return Templates::built_in() };
    let mut replacements = vec![];
    let refuse =
        |error: std::io::Error| Failure::path("read the directory", directory.to_string_lossy(), error);
    let opened = Directory::named(directory).map_err(refuse)?;
    for name in opened.names().map_err(refuse)? {
        let path = directory.join(&name);
        let shown = name.to_string_lossy().into_owned();
        if !is_template(&shown) {
            continue;
        }
        let refuse = |error| Failure::path("read the template", path.to_string_lossy(), error);
        let file = opened.file(Path::new(&name)).map_err(refuse)?;
        let bytes = file::read_open(file, MAX_TEMPLATE, "template").map_err(refuse)?;
        let name = shown;
        let text = String::from_utf8(bytes).map_err(|_| refuse(std::io::Error::other("it is no UTF-8")))?;
        replacements.push((name, text));
    }
    replace(replacements, &directory.display().to_string())
}

/// Hidden files and an editor's copies are none.
pub(super) fn is_template(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with('~')
}

/// The built-in templates, some replaced, from a place that messages call `place`.
pub(super) fn replace(mut replacements: Vec<(String, String)>, place: &str) -> Result<Templates, Failure> {
    replacements.sort();
    let placed = |failure| match failure {
        Failure::Template(sentence) => Failure::Template(format!("{place}/{sentence}")),
        other => other,
    };
    let templates = Templates::with(replacements).map_err(placed)?.within(own_memory);
    for context in services::specimens()? {
        templates.check(&context).map_err(placed)?;
    }
    Ok(templates)
}
