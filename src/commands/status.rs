//! `runsmith status`: what runs.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::log_service;
use super::newer;
use super::target::{self, Target};
use super::unsupervised;
use super::{Outcome, Stop, Terminal, columns};
use crate::cli::{self, TableFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::status::{Entry, details, table};
use crate::runtime::linux::asking::{ANSWER, Asking, Silence};
use crate::runtime::linux::place::Place;
use crate::runtime::linux::runsv::{Wanted, supervised, wanted, was_wanted};
use crate::runtime::linux::{clock, process};
use crate::runtime::protocol::{Problem, Reply, Status, Wish};

/// So many services are asked at once: each takes a thread, and up to [`ANSWER`] twice.
const AT_ONCE: usize = 64;

pub(super) fn status(arguments: &cli::Status, terminal: &mut Terminal) -> Outcome {
    if arguments.services.is_empty() {
        if arguments.quiet {
            return Err(Failure::Usage("--quiet needs the name of a service".to_owned()).into());
        }
        return list(arguments.format, terminal);
    }
    let mut entries = vec![];
    let mut errors = vec![];
    let mut is_whole = true;
    for named in &arguments.services {
        let target = match target::one(named) {
            Ok(target) => target,
            // One that cannot be shown does not hide the others.
            Err(failure) if !arguments.quiet => {
                errors.push(error(named, &failure, terminal));
                continue;
            }
            Err(failure) => return Err(failure.into()),
        };
        match ask(&target, !arguments.quiet) {
            Ok(entry) => {
                entries.push(entry);
                // Whoever is quiet asks whether it serves, and what serves does not read the run script.
                is_whole &= arguments.quiet || !tell(&target, terminal);
            }
            Err(Stop::Failure(failure)) if !arguments.quiet => {
                errors.push(error(&target.name, &failure, terminal));
                entries
                    .extend((arguments.format == TableFormat::Json).then(|| unanswered(&target, &failure)));
            }
            Err(stop) => return Err(stop),
        }
    }
    is_whole &= errors.is_empty();
    if arguments.quiet {
        // `sv start` waits until this succeeds: a fallback that serves, or a log that takes nothing, must not make it wait.
        return Ok(if entries.iter().all(Entry::serves_well) { Exit::Clean } else { Exit::Findings });
    }
    let exit = exit(&entries, is_whole);
    show(&entries, &errors, arguments.format, true, terminal).map_err(|stop| stop.ending(exit))?;
    Ok(exit)
}

/// What could not be asked, for people, and as JSON has it.
fn error(service: &str, failure: &Failure, terminal: &mut Terminal) -> Json {
    let message = failure.to_string();
    terminal.step("error", &message);
    json!({"service": service, "message": message})
}

/// A service whose runtime does not answer: a program that reads the list is to find it there.
fn unanswered(target: &Target, failure: &Failure) -> Entry {
    let wish = wanted(&target.directory.display().to_string());
    Entry {
        is_supervised: wish != Wanted::Unknown,
        is_hidden: wish == Wanted::Hidden,
        is_wanted: wish == Wanted::Up,
        log: Default::default(),
        problems: vec![Problem::new("unanswered", failure.to_string())],
        newer: vec![],
        status: Status {
            application: target.name.clone(),
            directory: target.directory.display().to_string(),
            state: "unknown".to_owned(),
            ..Status::default()
        },
        root: target.root.clone(),
        reference: target.reference(),
    }
}

/// One service or all: what needs a person is a finding.
fn exit(entries: &[Entry], is_whole: bool) -> Exit {
    match (is_whole, entries.iter().any(Entry::needs_a_person)) {
        (false, _) => Exit::Trouble,
        (true, true) => Exit::Findings,
        (true, false) => Exit::Clean,
    }
}

/// Says what is wrong with a run script; whether something is.
fn tell(target: &Target, terminal: &mut Terminal) -> bool {
    if let Some(trouble) = &target.trouble {
        terminal.step("error", &format!("{trouble}; until it is fixed, nothing new is started from it"));
    }
    target.trouble.is_some()
}

fn list(format: TableFormat, terminal: &mut Terminal) -> Outcome {
    let mut entries = vec![];
    let mut errors = vec![];
    let mut is_whole = true;
    let targets = target::all();
    for (target, asked) in targets.iter().zip(ask_all(&targets)) {
        is_whole &= !tell(target, terminal);
        match asked {
            Ok(entry) => entries.push(entry),
            Err(Stop::Failure(failure)) => {
                errors.push(error(&target.name, &failure, terminal));
                entries.push(unanswered(target, &failure));
            }
            Err(other) => return Err(other),
        }
    }
    is_whole &= errors.is_empty();
    if entries.is_empty() && is_whole {
        terminal.say("note", &format!("runsmith executes no service below {}", target::places()));
    }
    let exit = exit(&entries, is_whole);
    show(&entries, &errors, format, false, terminal).map_err(|stop| stop.ending(exit))?;
    Ok(exit)
}

/// Asks the runtimes of several services, many at a time: one that does not answer does not delay the others.
fn ask_all(targets: &[Target]) -> Vec<Result<Entry, Stop>> {
    targets.chunks(AT_ONCE).flat_map(ask_at_once).collect()
}

fn ask_at_once(targets: &[Target]) -> Vec<Result<Entry, Stop>> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = targets.iter().map(|target| scope.spawn(move || ask(target, false))).collect();
        let asked = asking.into_iter().zip(targets).map(|(one, target)| {
            one.join().unwrap_or_else(|_| {
                let what = format!("the runtime of {}", target.name);
                Err(Failure::path("ask", what, "the thread that asks has ended").into())
            })
        });
        asked.collect()
    })
}

/// Asks one service's runtime. `detailed`: everything is wanted that there is to say.
fn ask(target: &Target, detailed: bool) -> Result<Entry, Stop> {
    let directory = target.directory.display().to_string();
    let wish = wanted(&directory);
    let failed = |silence: Silence| {
        let reason = match silence {
            Silence::Refused(error) => format!("{error}; only root and the application's user may"),
            Silence::Stopped(pid) => format!("it is stopped by a signal: `kill -CONT {pid}`"),
            Silence::Down | Silence::Late | Silence::Interrupted(_) => {
                let seconds = ANSWER.as_secs();
                match stopped_runtime(target) {
                    Some(pid) => format!("it is stopped by a signal: `kill -CONT {pid}`"),
                    None => format!("no answer within {seconds} s: it is blocked; see its log"),
                }
            }
        };
        Stop::from(Failure::path("ask", format!("the runtime of {}", target.name), reason))
    };
    let status = match Asking::begin(&target.run, Wish::Status) {
        Ok(mut asking) => match asking.hear().map_err(failed)? {
            // A run directory that was guessed may be another service's.
            Some(Reply::Status(status))
                if target.trouble.is_none() || is_same(&status.directory, &target.directory) =>
            {
                Some(*status)
            }
            _ => None,
        },
        Err(Silence::Down) => None,
        Err(silence) => return Err(failed(silence)),
    };
    let down = || Status {
        application: target.name.clone(),
        directory: directory.clone(),
        state: "down".to_owned(),
        ..Status::default()
    };
    let status = status.or_else(|| unsupervised::look(target)).unwrap_or_else(down);
    // A runsv that died left a service behind that ought to run.
    let is_wanted = wish == Wanted::Up || (wish == Wanted::Unknown && was_wanted(&directory));
    let (log, log_problem) = log_service::look(target, &status, detailed);
    let why_down = if status.state == unsupervised::STATE {
        Some(no_runtime(target, wish))
    } else {
        (is_wanted && status.runtime_pid == 0).then(|| why_down(target, wish))
    };
    Ok(Entry {
        is_supervised: wish != Wanted::Unknown,
        is_hidden: wish == Wanted::Hidden,
        is_wanted,
        log,
        problems: why_down.into_iter().chain(log_problem).collect(),
        newer: newer::than(&status, target),
        status,
        root: target.root.clone(),
        reference: target.reference(),
    })
}

/// The application serves, and nothing watches over it.
fn no_runtime(target: &Target, wish: Wanted) -> Problem {
    let failed = failed_start(&target.run);
    let failed = failed.map(|(reason, ago)| format!("the last run could not begin {ago} s ago: {reason}"));
    let advice = unsupervised::advice(target, wish, failed);
    let message = format!(
        "the application serves, but no runtime supervises it: if it ends, nothing replaces it, and `runsmith upgrade` does not work; {advice}"
    );
    Problem::new("unsupervised", message)
}

/// The process of a runtime that somebody has stopped.
pub(super) fn stopped_runtime(target: &Target) -> Option<u32> {
    let pid = supervised(&target.directory)?.pid?;
    (process::stopped(&[pid]) == [(pid, process::Stopped::BySignal)]).then_some(pid)
}

/// Why no runtime answers although the service is to be up.
fn why_down(target: &Target, wish: Wanted) -> Problem {
    let obstacle = if wish == Wanted::Up { unsupervised::obstacle(target) } else { None };
    let message = if let Some(reason) = obstacle {
        reason
    } else if let Some((reason, ago)) = failed_start(&target.run) {
        format!("the run could not begin {ago} s ago: {reason}")
    } else if wish == Wanted::Unknown {
        "no runsv watches over it, so nothing starts it".to_owned()
    } else {
        format!("no runtime answers in {}; the log has its last words", target.run)
    };
    Problem::new("down", message)
}

/// Why the last run could not begin, and how many seconds ago that was.
fn failed_start(run: &str) -> Option<(String, u64)> {
    let (reason, at) = match Place::examined(run) {
        Ok(place) => place.failure()?,
        Err(reason) => (reason, SystemTime::now()),
    };
    Some((reason, at.elapsed().unwrap_or_default().as_secs()))
}

fn is_same(one: &str, other: &Path) -> bool {
    matches!((std::fs::canonicalize(one), std::fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn show(
    entries: &[Entry],
    errors: &[Json],
    format: TableFormat,
    detailed: bool,
    terminal: &mut Terminal,
) -> Result<(), Stop> {
    let (colour, width) = (terminal.result_coloured(), columns());
    match format {
        TableFormat::Json => {
            let list: Vec<_> = entries.iter().map(Entry::json).collect();
            let text =
                serde_json::to_string_pretty(&json!({"version": 1, "services": list, "errors": errors}));
            writeln!(terminal.out, "{}", text.unwrap_or_default())?;
        }
        TableFormat::Text if detailed => {
            for (number, entry) in entries.iter().enumerate() {
                if number > 0 {
                    writeln!(terminal.out)?;
                }
                terminal.out.write_all(details(entry, clock::wall(), width, colour).as_bytes())?;
            }
        }
        TableFormat::Text => {
            terminal.out.write_all(table(entries, clock::wall(), width, colour).as_bytes())?
        }
    }
    Ok(())
}
