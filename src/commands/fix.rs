//! `validate --fix`: what can be corrected is, in place or as a patch.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::inputs::{self, Given, Pillars};
use super::{Stop, Terminal, counted, validate};
use crate::cli;
use crate::diagnostic::Fix;
use crate::disk;
use crate::failure::Failure;
use crate::pillar;
use crate::report;
use crate::rule;
use crate::rules::fix::{Fixed as Corrected, apply, same_values};
use crate::rules::judge::Levels;
use crate::services;
use crate::source::SourceId;

/// A fix may lay bare the next finding; what takes more turns than that goes round in a circle.
const TURNS: usize = 8;

/// A file and what became of it.
struct Changed {
    path: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    /// How many fixes that took.
    fixes: usize,
}

/// Corrects the pillars and gives the texts as they are then, of which findings are told.
pub(super) fn fix(
    arguments: &cli::Validate,
    levels: &Levels,
    mut given: Vec<Given>,
    terminal: &mut Terminal,
) -> Result<Fixed, Stop> {
    if given.iter().any(|given| given.path.as_os_str() == "-") {
        return Err(Failure::Usage(
            "standard input (-) cannot be corrected in place: name a file".to_owned(),
        )
        .into());
    }
    let before: Vec<Vec<u8>> = given.iter().map(|given| given.bytes.clone()).collect();
    let is_wanted = |fix: &Fix| fix.is_safe || arguments.unsafe_fixes;
    let mut fixes = vec![0; given.len()];
    for _ in 0..TURNS {
        let checked = validate::check(arguments, levels, inputs::parse(given.clone(), &arguments.inputs))?;
        let mut is_done = true;
        for (index, (given, fixes)) in given.iter_mut().zip(&mut fixes).enumerate() {
            let id = SourceId(index as u32);
            let source = checked.pillars.sources.get(id);
            let mut fixed = apply(source.text(), id, &checked.found, is_wanted);
            let is_right = |fixed: &Corrected| {
                arguments.unsafe_fixes
                    || is_same(given, &fixed.text, &checked.pillars, arguments.key.as_deref())
            };
            if fixed.count > 0 && !is_right(&fixed) {
                // A key that is renamed at an anchor is renamed wherever that is merged, also where no application is.
                let rest: Vec<_> =
                    checked.found.iter().filter(|one| one.rule != &rule::DEPRECATED_KEY).cloned().collect();
                fixed = apply(source.text(), id, &rest, is_wanted);
                if fixed.count > 0 && !is_right(&fixed) {
                    let why = "a fix would have changed a value; please report it";
                    return Err(Failure::path("correct", given.path.to_string_lossy(), why).into());
                }
            }
            if fixed.count == 0 {
                continue;
            }
            given.bytes = fixed.text.into_bytes();
            given.size = given.bytes.len() as u64;
            *fixes += fixed.count;
            is_done = false;
        }
        if is_done {
            break;
        }
    }
    let changed: Vec<Changed> = given
        .iter()
        .zip(before)
        .zip(fixes)
        .filter(|((given, before), _)| given.bytes != *before)
        .map(|((given, before), fixes)| Changed {
            path: given.path.clone(),
            before,
            after: given.bytes.clone(),
            fixes,
        })
        .collect();
    if arguments.diff {
        say(&changed.iter().collect::<Vec<_>>(), "would be made", terminal);
    } else {
        write(&changed, terminal)?;
    }
    Ok(Fixed { given, changed })
}

/// Writes every file that can be written. Files have nothing to do with each other: one that cannot
/// be does not keep the others from it, and all that failed are told.
fn write(changed: &[Changed], terminal: &mut Terminal) -> Result<(), Failure> {
    let mut made = vec![];
    let mut failures = vec![];
    for file in changed {
        match disk::replace(&file.path, &file.before, &file.after) {
            Ok(()) => made.push(file),
            Err(failure) => failures.push(failure),
        }
    }
    say(&made, "made", terminal);
    let Some(last) = failures.pop() else { return Ok(()) };
    for failure in failures {
        terminal.say("error", &failure.to_string());
    }
    Err(last)
}

/// Says how many fixes there are in how many files, if there are any.
fn say(files: &[&Changed], done: &str, terminal: &mut Terminal) {
    let fixes: usize = files.iter().map(|file| file.fixes).sum();
    if fixes > 0 {
        let files = counted(files.len(), "file");
        terminal.say("note", &format!("{} in {files} {done}", counted(fixes, "fix")));
    }
}

/// What [`fix`] leaves.
pub(super) struct Fixed {
    /// The texts, corrected.
    pub(super) given: Vec<Given>,
    changed: Vec<Changed>,
}

impl Fixed {
    /// A unified diff of every file that would change, its secrets masked, and whether there were any.
    pub(super) fn patch(&self, arguments: &cli::Validate) -> (String, bool) {
        let mut patch = String::new();
        let mut is_masked = false;
        // A secret of one file may stand in any other: all are read together, as they are now and as those were that have changed.
        let mut all = self.given.clone();
        all.extend(self.changed.iter().map(|file| Given {
            path: file.path.clone(),
            bytes: file.before.clone(),
            size: file.before.len() as u64,
        }));
        let pillars = inputs::parse(all, &arguments.inputs);
        let masks = report::patch::Masks::new(&pillars.sources, &pillars.secrets);
        for (number, file) in self.changed.iter().enumerate() {
            let after = self.given.iter().position(|given| given.path == file.path).unwrap_or_default();
            let [before, after] = [self.given.len() + number, after].map(|at| {
                let (text, masked) = masks.masked(SourceId(u32::try_from(at).unwrap_or(u32::MAX)));
                is_masked |= masked;
                text
            });
            patch.push_str(&report::patch::patch(&file.path.to_string_lossy(), &before, &after));
        }
        (patch, is_masked)
    }
}

/// Whether the dialect reads the same values as before, which every safe fix promises.
fn is_same(given: &Given, text: &str, pillars: &Pillars, key: Option<&str>) -> bool {
    let read = |text: &str| {
        let source = crate::source::Source::new("", text);
        let format = inputs::format_of(&given.path, text, None);
        pillar::parse(&source, SourceId(0), format, pillars.dialect).map(|parsed| parsed.documents)
    };
    let before = read(&String::from_utf8_lossy(&given.bytes));
    let (Ok(before), Ok(after)) = (before, read(text)) else { return false };
    let (applications, _) = services::select(before.clone(), key);
    let paths: BTreeSet<String> = applications.into_iter().map(|application| application.key).collect();
    same_values(&before, &after, &paths)
}
