//! `runsmith render --diff`: what a change does, before it is made; and `--explain`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::beneath;
use super::inputs::{self, Given, Pillars, Reading};
use super::judge::levels;
use super::render::templates;
use super::{Outcome, Stop, Terminal, any_error, git, nothing, threads, width};
use crate::cli::{self, TreeFormat};
use crate::diagnostic::{Diagnostic, Severity};
use crate::diff::{self, Options, Side, provenance};
use crate::disk;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::model::veil::{MASK, Veil};
use crate::record;
use crate::report;
use crate::rules::Texts as RuleTexts;
use crate::rules::judge::judge;
use crate::services::{self, Asked, Rendered, Services};
use crate::source::{Sources, Span};
use crate::template::Templates;
use crate::tree::{Entry, Kind, Tree, is_variable};
use crate::visible::visible;

/// What is compared with.
enum Old {
    /// What lies on a disk.
    Disk(Box<disk::Found>),
    /// What other pillars make, and with which templates.
    Host(Box<Services>, Option<Box<Templates>>),
}

/// The pillars of both sides while they are read: their texts are numbered through.
struct Texts {
    sources: Sources,
    secrets: Vec<Span>,
}

pub(super) fn diff(arguments: &cli::Render, terminal: &mut Terminal) -> Outcome {
    let mut texts = Texts { sources: Sources::new(), secrets: vec![] };
    let pillars = inputs::read_all(&arguments.inputs)?;
    let templates = templates(arguments.templates.as_deref())
        .map_err(|failure| report::covered(failure, &pillars.secrets, &pillars.sources))?;
    let sets = inputs::sets(arguments.set.as_deref(), &pillars.sets);
    let Some(mut new) = host(pillars, &templates, Which::New, arguments, &mut texts, terminal)? else {
        return Ok(Exit::Trouble);
    };
    if let Some(path) = &arguments.explain {
        return explain(path, &new, &templates, &texts.sources, arguments, terminal);
    }
    let old = match &arguments.against {
        None => {
            let found = on_root(arguments, &sets, &new, terminal)?;
            on_the_way(&mut new, &found.missing);
            without(&mut new, &found.used);
            disk(found, &new)
        }
        Some(against) => match against.strip_prefix("git:") {
            Some(revision) => {
                let found = git::read(revision, arguments)
                    .map_err(|failure| report::covered(failure, &texts.secrets, &texts.sources))?;
                let mut reading = Reading::new(&arguments.inputs, std::mem::take(&mut texts.sources));
                for text in found.texts {
                    reading.add(text.name, &text.path, text.bytes, text.size);
                }
                let used = found.templates.as_ref().unwrap_or(&templates);
                let Some(host) = host(reading.pillars, used, Which::Old, arguments, &mut texts, terminal)?
                else {
                    return Ok(Exit::Trouble);
                };
                Old::Host(Box::new(host), found.templates.map(Box::new))
            }
            None => {
                let Some(old) = other(Path::new(against), &new, &templates, arguments, &mut texts, terminal)?
                else {
                    return Ok(Exit::Trouble);
                };
                old
            }
        },
    };
    compare(&old, &new, &templates, &texts.sources, arguments, terminal)
}

/// Which side is read. What is over need not be found fault with, as long as it can be rendered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Old,
    New,
}

/// What pillars make; `None` if they are wrong, which has been said then.
fn host(
    pillars: Pillars,
    templates: &Templates,
    which: Which,
    arguments: &cli::Render,
    texts: &mut Texts,
    terminal: &mut Terminal,
) -> Result<Option<Services>, Stop> {
    let Pillars { documents, findings, sources, secrets, silences, dialect, sets, .. } = pillars;
    let hidden = services::secret_values(&documents, &secrets);
    let sets = inputs::sets(arguments.set.as_deref(), &sets);
    texts.sources = sources;
    texts.secrets.extend(secrets);
    let key = arguments.key.as_deref();
    // What is over need not have had any.
    let (documents, emptied) = match arguments.prune || which == Which::Old {
        true => services::without_empty(documents, key),
        false => (documents, false),
    };
    let is_unreadable = any_error(&findings);
    let (applications, unfit) = services::select(documents, key);
    let findings = [findings, unfit].concat();
    if is_unreadable || (applications.is_empty() && any_error(&findings)) {
        terminal.findings(&findings, &texts.sources, &texts.secrets);
        return Ok(None);
    }
    if applications.is_empty() && !emptied && which == Which::New {
        return Err(Failure::Usage(nothing(key)).into());
    }
    let levels = levels(&arguments.severities)?;
    let judged = |found| {
        let mut found: Vec<Diagnostic> = [findings, found].concat();
        match which {
            Which::New => judge(found, &silences, &levels, &texts.sources, key.is_none()),
            Which::Old => {
                found.retain(|finding| {
                    finding.severity == Severity::Error && !finding.rule.is_switchable(finding.severity)
                });
                found
            }
        }
    };
    let spoken = RuleTexts { sources: &texts.sources, dialect };
    let asked = Asked {
        threads: threads(),
        sets: arguments.against.is_none().then_some(sets.as_slice()),
        known: true,
        files: true,
    };
    match services::render(applications, templates, spoken, asked, judged)
        .map_err(|failure| report::covered(failure, &texts.secrets, &texts.sources))?
    {
        Rendered::Services(services, found) => {
            terminal.findings(&found, &texts.sources, &texts.secrets);
            Ok(Some(services.hiding(hidden)))
        }
        Rendered::Findings(found) => {
            terminal.findings(&found, &texts.sources, &texts.secrets);
            Ok(None)
        }
    }
}

/// What was read from a disk.
fn disk(found: disk::Found, new: &Services) -> Old {
    Old::Disk(Box::new(hidden(found, Some(&new.tree))))
}

/// Marks what may be secret of what was read from a disk: a file that its owner alone may read, or that is a variable of a service; and
/// what is recognised in other files, since nothing is known of the pillars that made them. What is shown of the `new` files is ordinary in
/// the old ones, too: a comment in the pillar may say so.
pub(super) fn hidden(mut found: disk::Found, new: Option<&Tree>) -> disk::Found {
    found.tree.hide(|entry| {
        matches!(entry.kind, Kind::File(_)) && (entry.mode & 0o077 == 0 || is_variable(&entry.path))
    });
    let nothing = Tree::default();
    let wanted = new.unwrap_or(&nothing);
    let mut values = recognised(&found.tree, wanted);
    if let Some(new) = new
        && !values.is_empty()
    {
        let veil = Veil::over(new.secrets());
        recognised(new, &found.tree).iter().filter(|value| !veil.hides(value.as_bytes())).for_each(|value| {
            values.remove(value);
        });
    }
    found.tree = found.tree.hiding(values);
    found
}

/// What looks like a secret in files that are not secret. What is the same in the `other` tree is not shown.
fn recognised(tree: &Tree, other: &Tree) -> HashSet<String> {
    let differs = |entry: &&Entry| other.get(&entry.path).is_none_or(|other| other.kind != entry.kind);
    let shown = tree.entries().iter().filter(|entry| !entry.secret).filter(differs);
    let files = shown.filter_map(|entry| match &entry.kind {
        Kind::File(content) => Some(content),
        Kind::Directory | Kind::Link(_) => None,
    });
    files.flat_map(|content| services::secrets_in_file(&String::from_utf8_lossy(content))).collect()
}

/// What lies on ROOT of all that a run with these arguments would touch.
fn on_root(
    arguments: &cli::Render,
    sets: &[String],
    new: &Services,
    terminal: &mut Terminal,
) -> Result<disk::Found, Failure> {
    let recording = disk::Recording {
        sets,
        records: &new.records,
        disabled: &new.disabled,
        prune: arguments.prune,
        only: None,
    };
    beneath::check_root(&arguments.root)?;
    let (found, notes) = disk::read_recorded(&arguments.root, &new.tree, recording, arguments.adopt)?;
    for note in notes {
        terminal.say("note", &note.to_string());
    }
    Ok(found)
}

/// Adds the directories that are made on the way to what is wanted: nobody's, as [`disk::apply`] makes them.
fn on_the_way(new: &mut Services, missing: &[String]) {
    if missing.is_empty() {
        return;
    }
    let directory = |path: &String| Entry {
        path: path.clone(),
        kind: Kind::Directory,
        mode: 0o755,
        owner: "root".into(),
        group: "root".into(),
        secret: false,
    };
    // No application's number.
    let nobody = usize::MAX;
    let own = new.tree.entries().iter().cloned().zip(new.owners.iter().copied());
    let mut all: Vec<(Entry, usize)> =
        own.chain(missing.iter().map(|path| (directory(path), nobody))).collect();
    all.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let (entries, owners): (Vec<Entry>, Vec<usize>) = all.into_iter().unzip();
    if let Ok(tree) = new.tree.with(entries) {
        new.tree = tree;
        new.owners = owners;
    }
}

/// Takes directories away that are used as they are.
fn without(new: &mut Services, used: &[String]) {
    if used.is_empty() {
        return;
    }
    let all = new.tree.entries().iter().cloned().zip(new.owners.iter().copied());
    let (entries, owners): (Vec<Entry>, Vec<usize>) =
        all.filter(|(entry, _)| !used.contains(&entry.path)).unzip();
    if let Ok(tree) = new.tree.with(entries) {
        new.tree = tree;
        new.owners = owners;
    }
}

/// What was rendered into a directory, without what is there for its sake: runsmith's own records, and
/// the directories on the way to what is wanted. The content of a file that does not say that runsmith manages it is not shown:
/// whoever wrote the directory, or put a link in its place, may be somebody who is not to read it.
fn wanted_only(mut found: disk::Found, want: &Tree) -> disk::Found {
    let kept = |entry: &Entry| {
        let on_the_way = entry.kind == Kind::Directory && want.leads_to(&entry.path);
        want.get(&entry.path).is_some() || !(on_the_way || record::is_bookkeeping(&entry.path, want))
    };
    let is_record =
        |entry: &&Entry| entry.path.strip_prefix(record::DIRECTORY).is_some_and(|name| name.starts_with('/'));
    let records = found.tree.entries().iter().filter(is_record).filter_map(|entry| match &entry.kind {
        Kind::File(content) => record::Record::read(content).ok(),
        Kind::Directory | Kind::Link(_) => None,
    });
    let leads = |path: &str, directory: &str| match found.tree.get(path).map(|entry| &entry.kind) {
        Some(Kind::Link(target)) => record::led_to(path, target) == directory,
        _ => false,
    };
    found.sites = record::sites(&records.collect::<Vec<_>>(), &[], leads);
    let is_unclaimed = |entry: &&Entry| {
        matches!(&entry.kind, Kind::File(content) if !content.is_empty() && !record::is_marked(content))
            && !is_variable(&entry.path)
    };
    found.unclaimed =
        found.tree.entries().iter().filter(is_unclaimed).map(|entry| entry.path.clone()).collect();
    let entries = found.tree.entries().iter().filter(|entry| kept(entry)).cloned().collect();
    found.tree = found.tree.with(entries).unwrap_or_default();
    found
}

/// A pillar, a directory of pillars, or a directory that was rendered: that is one which holds a run
/// script that says it is runsmith's, or nothing at all.
fn other(
    path: &Path,
    new: &Services,
    templates: &Templates,
    arguments: &cli::Render,
    texts: &mut Texts,
    terminal: &mut Terminal,
) -> Result<Option<Old>, Stop> {
    if beneath::is_directory(path) {
        let found = disk::read_all(path)?;
        let ours = |kind: &Kind| matches!(kind, Kind::File(bytes) if record::is_marked(bytes));
        let entries = found.tree.entries();
        let rendered = entries.iter().any(|entry| entry.path.ends_with("/run") && ours(&entry.kind));
        if rendered || entries.is_empty() {
            return Ok(Some(disk(wanted_only(found, &new.tree), new)));
        }
    }
    let mut reading = Reading::new(&arguments.inputs, std::mem::take(&mut texts.sources));
    for Given { path, bytes, size } in inputs::load_all(&[PathBuf::from(path)])? {
        reading.add(path.to_string_lossy().into_owned(), &path, bytes, size);
    }
    let host = host(reading.pillars, templates, Which::Old, arguments, texts, terminal)?;
    Ok(host.map(|host| Old::Host(Box::new(host), None)))
}

fn compare(
    old: &Old,
    new: &Services,
    templates: &Templates,
    sources: &Sources,
    arguments: &cli::Render,
    terminal: &mut Terminal,
) -> Outcome {
    let (tree, host, used, found) = match old {
        Old::Disk(found) => (&found.tree, None, templates, Some(&**found)),
        Old::Host(host, used) => (&host.tree, Some(&**host), used.as_deref().unwrap_or(templates), None),
    };
    let unknown = found.map_or(&[][..], |found| found.unknown.as_slice());
    let root = rustix::process::geteuid().is_root();
    if !root && found.is_some() {
        terminal.say("note", "owners and groups are not compared: only root can set them");
    }
    let none = HashSet::new();
    let options = Options {
        owners: root || found.is_none(),
        show_secrets: arguments.show_secrets,
        causes: !arguments.stat,
        threads: threads(),
        unknown,
        withheld: found.map_or(&none, |found| &found.unclaimed),
    };
    let known = &new.known;
    let old = Side { tree, host, sites: found.map_or(&[], |found| &found.sites), templates: used };
    let new = Side { tree: &new.tree, host: Some(new), sites: &[], templates };
    let mut diff = diff::diff(old, new, sources, options)?;
    let foreign = found.map_or(&[][..], |found| &found.foreign);
    diff.mark_foreign(&foreign.iter().map(|thing| thing.path.as_str()).collect());
    let sentences = |failures: fn(&disk::Found) -> &Vec<Failure>| -> Vec<String> {
        found.map(failures).into_iter().flatten().map(ToString::to_string).collect()
    };
    let (unreadable, refused) = (sentences(|found| &found.unreadable), sentences(|found| &found.refused));
    let (colour, columns) = (terminal.result_coloured(), width(std::io::stdout()));
    let exit = match (
        unreadable.is_empty() && refused.is_empty(),
        diff.services.is_empty() || arguments.exit_zero,
    ) {
        (false, _) => Exit::Trouble,
        (true, true) => Exit::Clean,
        (true, false) => Exit::Findings,
    };
    let gone = |error: std::io::Error| Stop::from(error).ending(exit);
    match arguments.format {
        TreeFormat::Json => {
            report::diff::json(&diff, known, &unreadable, &refused, &mut terminal.out).map_err(gone)?
        }
        _ if arguments.stat => report::diff::stat(&diff, colour, columns, &mut terminal.out).map_err(gone)?,
        TreeFormat::Text => report::diff::text(&diff, colour, &mut terminal.out).map_err(gone)?,
        TreeFormat::Markdown => {
            let limit = arguments.limit.unwrap_or(report::diff::GITHUB_LIMIT);
            report::diff::markdown(&diff, limit, &mut terminal.out).map_err(gone)?;
        }
        TreeFormat::Patch => {
            let report::diff::LeftOut { masked, long, withheld } =
                report::diff::patch(&diff, arguments.show_secrets, &mut terminal.out).map_err(gone)?;
            if masked > 0 {
                let files = if masked == 1 {
                    "1 file with secrets is"
                } else {
                    &format!("{masked} files with secrets are")
                };
                terminal.say("note", &format!("{files} left out of the patch; --show-secrets includes them"));
            }
            if withheld > 0 {
                let files = if withheld == 1 { "1 file" } else { &format!("{withheld} files") };
                terminal.say(
                    "note",
                    &format!("{files} that no record names left out of the patch; --adopt includes them"),
                );
            }
            if long > 0 {
                let files = if long == 1 { "1 file is" } else { &format!("{long} files are") };
                terminal.say("note", &format!("{files} too long for a patch, and left out"));
            }
        }
    }
    if diff.lacks_causes {
        terminal.say(
            "note",
            "what caused the differences of some services is not shown: they have so many values that to find out takes too long",
        );
    }
    for failure in &unreadable {
        terminal.say("error", failure);
    }
    for failure in &refused {
        terminal.say("error", &format!("--out would be refused: {failure}"));
    }
    Ok(exit)
}

/// Prints one file and what each line comes from.
fn explain(
    path: &str,
    new: &Services,
    templates: &Templates,
    sources: &Sources,
    arguments: &cli::Render,
    terminal: &mut Terminal,
) -> Outcome {
    let entries = new.tree.entries();
    let at = entries.iter().position(|entry| entry.path == path && matches!(entry.kind, Kind::File(_)));
    let known = at.and_then(|at| new.known.get(*new.owners.get(at)?));
    let (Some(at), Some(known)) = (at, known) else {
        let sentence = format!("--explain: no file {} is rendered", visible(path));
        return Err(Failure::Usage(sentence).into());
    };
    let Some(mut lines) = provenance::explain(known, path, templates, sources)? else {
        return Ok(Exit::Trouble);
    };
    if entries[at].secret && !arguments.show_secrets {
        for line in &mut lines {
            line.text = MASK.to_owned();
        }
    } else if !arguments.show_secrets {
        let veil = Veil::over(new.tree.secrets());
        for line in &mut lines {
            line.text = veil.cover(&line.text).into_owned();
        }
    }
    match arguments.format {
        TreeFormat::Json => report::diff::explained_json(path, &lines, &mut terminal.out)?,
        TreeFormat::Text => report::diff::explained(&lines, terminal.result_coloured(), &mut terminal.out)?,
        TreeFormat::Patch | TreeFormat::Markdown => {
            let sentence = "--explain prints --format text or json".to_owned();
            return Err(Failure::Usage(sentence).into());
        }
    }
    Ok(Exit::Clean)
}
