//! `runsmith status`: what runs.

use std::io::Write;
use std::path::Path;

use super::newer;
use super::target::{self, Target};
use super::{Outcome, Stop, Terminal};
use crate::cli::{self, TableFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::status::{Entry, details, table};
use crate::runtime::linux::asking::{Asking, Silence};
use crate::runtime::linux::clock;
use crate::runtime::linux::runsv::{Wanted, wanted, was_wanted};
use crate::runtime::protocol::{Reply, Status, Wish};

pub(super) fn status(arguments: &cli::Status, terminal: &mut Terminal) -> Outcome {
    if arguments.services.is_empty() {
        if arguments.quiet {
            return Err(Failure::Usage("--quiet needs the name of a service".to_owned()).into());
        }
        return list(arguments.format, terminal);
    }
    let mut entries = vec![];
    let mut is_whole = true;
    for named in &arguments.services {
        let target = target::one(named)?;
        entries.push(ask(&target)?);
        // Whoever is quiet asks whether it serves, and what serves does not read the run script.
        is_whole &= arguments.quiet || !tell(&target, terminal);
    }
    let all_serve = entries.iter().all(Entry::serves);
    if !arguments.quiet {
        show(&entries, arguments.format, true, terminal)?;
    }
    Ok(match (is_whole, all_serve) {
        (false, _) => Exit::Trouble,
        (true, false) => Exit::Findings,
        (true, true) => Exit::Clean,
    })
}

/// Says what is wrong with a run script; whether something is.
fn tell(target: &Target, terminal: &mut Terminal) -> bool {
    if let Some(trouble) = &target.trouble {
        terminal.say("error", &format!("{trouble}; until it is mended, nothing new is started from it"));
    }
    target.trouble.is_some()
}

fn list(format: TableFormat, terminal: &mut Terminal) -> Outcome {
    let mut entries = vec![];
    let mut is_whole = true;
    for target in target::all() {
        is_whole &= !tell(&target, terminal);
        match ask(&target) {
            Ok(entry) => entries.push(entry),
            Err(Stop::Failure(failure)) => {
                terminal.say("error", &failure.to_string());
                is_whole = false;
            }
            Err(other) => return Err(other),
        }
    }
    if entries.is_empty() && is_whole {
        terminal.say("note", "no service of this host is executed by runsmith");
    }
    show(&entries, format, false, terminal)?;
    let as_wanted = entries.iter().all(|entry| entry.serves() || !entry.is_wanted);
    Ok(match (is_whole, as_wanted) {
        (false, _) => Exit::Trouble,
        (true, false) => Exit::Findings,
        (true, true) => Exit::Clean,
    })
}

/// Asks one service's runtime.
fn ask(target: &Target) -> Result<Entry, Stop> {
    let directory = target.directory.display().to_string();
    let wish = wanted(&directory);
    let refused = |error: std::io::Error| {
        let what = format!("the runtime of {}", target.name);
        Stop::from(Failure::path("ask", what, format!("{error}; only root and the application's user may")))
    };
    let status = match Asking::begin(&target.run, Wish::Status) {
        Ok(mut asking) => match asking.hear().map_err(refused)? {
            // A run directory that was guessed may be another service's.
            Some(Reply::Status(status))
                if target.trouble.is_none() || is_same(&status.directory, &target.directory) =>
            {
                Some(*status)
            }
            _ => None,
        },
        Err(Silence::Down) => None,
        Err(Silence::Refused(error)) => return Err(refused(error)),
    };
    let down = || Status {
        application: target.name.clone(),
        directory: directory.clone(),
        state: "down".to_owned(),
        addresses: target.addresses.clone(),
        ..Status::default()
    };
    let status = status.unwrap_or_else(down);
    Ok(Entry {
        is_supervised: wish != Wanted::Unknown,
        // A runsv that died left a service behind that ought to run.
        is_wanted: wish == Wanted::Up || (wish == Wanted::Unknown && was_wanted(&directory)),
        newer: newer::than(&status, target),
        status,
        root: target.root.clone(),
    })
}

fn is_same(one: &str, other: &Path) -> bool {
    matches!((std::fs::canonicalize(one), std::fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn show(entries: &[Entry], format: TableFormat, detailed: bool, terminal: &mut Terminal) -> Result<(), Stop> {
    let colour = terminal.result_coloured();
    match format {
        TableFormat::Json => {
            let list: Vec<_> = entries.iter().map(Entry::json).collect();
            let text = serde_json::to_string_pretty(&serde_json::json!({"version": 1, "services": list}));
            writeln!(terminal.out, "{}", text.unwrap_or_default())?;
        }
        TableFormat::Text if detailed => {
            for (number, entry) in entries.iter().enumerate() {
                if number > 0 {
                    writeln!(terminal.out)?;
                }
                terminal.out.write_all(details(entry, clock::wall(), colour).as_bytes())?;
            }
        }
        TableFormat::Text => terminal.out.write_all(table(entries, clock::wall(), colour).as_bytes())?,
    }
    Ok(())
}
