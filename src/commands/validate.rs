//! `runsmith validate`: every finding of every pillar, on standard output.

use std::io::{self, Write};

use super::fix::{self, Fixed};
use super::inputs::Pillars;
use super::judge::levels;
use super::progress::Progress;
use super::{Outcome, Stop, Terminal, any_error, counted, inputs, nothing, threads, width};
use crate::cli::{self, FindingFormat};
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::host::Host;
use crate::report::{self, Findings};
use crate::rules::judge::{Levels, judge};
use crate::rules::{self, Texts};
use crate::runtime::linux::descriptors::close_in_programs;
use crate::services::{self, Configured, Unjudged};

pub(super) fn validate(arguments: &cli::Validate, terminal: &mut Terminal) -> Outcome {
    if arguments.host {
        // What whoever calls has open is for no program of the application's.
        close_in_programs();
    }
    let levels = levels(&arguments.severities)?;
    let mut given = inputs::load(&arguments.inputs)?;
    if arguments.fix {
        let fixed = fix::fix(arguments, &levels, given, terminal)?;
        if arguments.diff {
            return show_patch(arguments, &levels, fixed, terminal);
        }
        given = fixed.given;
    }
    let pillars = inputs::parse(given, &arguments.inputs);
    let checked = check_with(arguments, &levels, pillars, arguments.host)?;
    let Checked { pillars, found, count, unjudged } = checked;
    if count == 0 && !any_error(&found) {
        terminal.findings(&found, &pillars.sources, &pillars.secrets);
        return Err(Failure::Usage(nothing(arguments.key.as_deref())).into());
    }
    let exit = if any_error(&found) { Exit::Findings } else { Exit::Clean };
    let findings = Findings::new(&found, &pillars.sources, &pillars.secrets);
    let coloured = terminal.result_coloured();
    let out = &mut terminal.out;
    let written = match arguments.format {
        FindingFormat::Text if found.is_empty() => {
            out.write_all(report::text::clean(count, pillars.sources.iter().len()).as_bytes())
        }
        FindingFormat::Text => {
            out.write_all(report::text::of(&findings, coloured, width(io::stdout())).as_bytes())
        }
        FindingFormat::Json => report::json::json(&findings, count, out),
        FindingFormat::Github => out.write_all(report::github::github(&findings).as_bytes()),
        FindingFormat::Sarif => report::sarif::sarif(&findings, out),
        FindingFormat::Junit => out.write_all(report::junit::junit(&findings).as_bytes()),
        FindingFormat::Gitlab => report::gitlab::gitlab(&findings, out),
    };
    let written = written.and_then(|()| terminal.out.flush());
    match written.map_err(Stop::from) {
        Ok(()) => {
            let Unjudged { partly, wholly } = unjudged;
            for (count, how) in [(wholly, "not looked at"), (partly, "looked only in part at")] {
                if count > 0 && arguments.format == FindingFormat::Text {
                    let whom = counted(count, "application");
                    terminal
                        .say("note", &format!("rules have {how} {whom}: fix the errors and validate again"));
                }
            }
            Ok(exit)
        }
        // Who has seen enough still asks how it went.
        Err(Stop::Gone(_)) => Err(Stop::Gone(exit)),
        Err(stop) => Err(stop),
    }
}

/// Pillars, and what was found in them.
pub(super) struct Checked {
    /// Without their documents.
    pub(super) pillars: Pillars,
    /// Every finding, judged.
    pub(super) found: Vec<Diagnostic>,
    /// How many applications were looked at.
    count: usize,
    /// How many of them the rules have not looked at.
    unjudged: Unjudged,
}

/// Everything that is found in pillars, without a look at this host.
pub(super) fn check(
    arguments: &cli::Validate,
    levels: &Levels,
    pillars: Pillars,
) -> Result<Checked, Failure> {
    check_with(arguments, levels, pillars, false)
}

fn check_with(
    arguments: &cli::Validate,
    levels: &Levels,
    mut pillars: Pillars,
    host: bool,
) -> Result<Checked, Failure> {
    let key = arguments.key.as_deref();
    let (applications, unfit) = services::select(std::mem::take(&mut pillars.documents), key);
    let mut found = std::mem::take(&mut pillars.findings);
    found.extend(unfit);
    let count = applications.len();
    let texts = Texts { sources: &pillars.sources, dialect: pillars.dialect };
    let unjudged = if host {
        let (looked, services) = services::check_and_keep(applications, texts, threads())?;
        found.extend(looked.found);
        found.extend(on_this_host(&services));
        looked.unjudged
    } else {
        let (looked, remains) = services::check(applications, texts, threads())?;
        found.extend(looked.found);
        // The command ends soon, or looks again at few files.
        std::mem::forget(remains);
        looked.unjudged
    };
    let found = judge(found, &pillars.silences, levels, &pillars.sources, key.is_none());
    Ok(Checked { pillars, found, count, unjudged })
}

/// `--fix --diff`: differences are told by the exit code as well.
fn show_patch(arguments: &cli::Validate, levels: &Levels, fixed: Fixed, terminal: &mut Terminal) -> Outcome {
    let (patch, is_masked) = fixed.patch(arguments);
    if is_masked {
        terminal.say("note", "the patch has secrets masked, so it cannot be applied where they stand");
    }
    terminal.out.write_all(patch.as_bytes())?;
    let left = check(arguments, levels, inputs::parse(fixed.given, &arguments.inputs))?;
    let is_clean = patch.is_empty() && !any_error(&left.found);
    Ok(if is_clean { Exit::Clean } else { Exit::Findings })
}

/// What this host has against the services whose pillars can be used.
fn on_this_host(services: &[Configured]) -> Vec<Diagnostic> {
    let mut found = vec![];
    let mut host = Host::look();
    let mut progress = Progress::new("asking about", services.len(), "services");
    for (known, configuration) in services {
        progress.step();
        let facts = host.ask(&known.service, configuration.as_deref());
        found.extend(rules::check_host(&known.service, &known.node, known.span, &facts));
    }
    found
}
