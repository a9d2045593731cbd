//! `runsmith upgrade`: a hand-over, step by step until it is settled.

use std::io::Write;

use serde::Serialize;
use serde_json::json;

use super::status::stopped_runtime;
use super::target::{self, Target};
use super::unsupervised;
use super::{Outcome, Stop, Terminal, columns};
use crate::cli::{self, TableFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::upgrade::{Asked, outcome};
use crate::runtime::linux::asking::{ANSWER, Asking, Silence};
use crate::runtime::linux::runsv::{Wanted, wanted};
use crate::runtime::protocol::{Reply, Wish};

pub(super) fn upgrade(arguments: &cli::Upgrade, terminal: &mut Terminal) -> Outcome {
    let mut is_printed = false;
    let outcome = hand_over(arguments, terminal, &mut is_printed);
    if arguments.format == TableFormat::Json
        && !is_printed
        && let Err(Stop::Failure(failure)) = &outcome
    {
        let result = json!({"is": "error", "reason": failure.to_string()});
        print(&arguments.service, &result, &[], terminal)?;
    }
    outcome
}

/// The one document for programs.
fn print(
    service: &str,
    result: &impl Serialize,
    steps: &[Reply],
    terminal: &mut Terminal,
) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(
        &json!({"version": 1, "service": service, "result": result, "steps": steps}),
    );
    writeln!(terminal.out, "{}", text.unwrap_or_default())?;
    Ok(())
}

fn hand_over(arguments: &cli::Upgrade, terminal: &mut Terminal, is_printed: &mut bool) -> Outcome {
    let target = target::one(&arguments.service)?;
    let name = &target.name;
    // Nothing new can be begun with it; what has begun can be given up all the same.
    if let (Some(trouble), false) = (&target.trouble, arguments.abort) {
        return Err(Failure::Usage(trouble.clone()).into());
    }
    let wish = match (arguments.abort, arguments.proven) {
        (true, _) => Wish::Abort,
        (false, true) => Wish::Prove,
        (false, false) => Wish::Upgrade,
    };
    let mut asking = Asking::begin(&target.run, wish).map_err(|silence| trouble(&target, silence))?;
    let mut steps = vec![];
    loop {
        let reply = match asking.hear() {
            Ok(reply) => reply,
            Err(Silence::Interrupted(signal)) => {
                terminal.say("note", &interrupted(&target, wish, asking.has_heard()));
                return Ok(Exit::Interrupted(signal));
            }
            Err(Silence::Stopped(pid)) if asking.has_heard() => {
                return Err(Failure::Usage(format!(
                    "the runtime of {name} is stopped by a signal: the hand-over goes on after `kill -CONT {pid}`; \
                     `runsmith status {}` shows it then",
                    target.reference()
                ))
                .into());
            }
            Err(silence) => return Err(trouble(&target, silence)),
        };
        let Some(reply) = reply else {
            return Err(Failure::Usage(format!(
                "the runtime of {name} ended before the hand-over was settled; `runsmith status {}` shows what became of it",
                target.reference()
            ))
            .into());
        };
        match &reply {
            Reply::Step { after, sentence } => {
                if arguments.format == TableFormat::Text {
                    terminal.step(&format!("{after:7.2} s"), sentence);
                }
                steps.push(reply);
                continue;
            }
            Reply::Status(_) => continue,
            Reply::Done { .. } | Reply::BackedOut { .. } | Reply::Refused { .. } => {}
        }
        if arguments.format == TableFormat::Json {
            *is_printed = true;
            print(name, &reply, &steps, terminal)?;
        }
        return end(&reply, arguments, &target, terminal);
    }
}

fn end(reply: &Reply, arguments: &cli::Upgrade, target: &Target, terminal: &mut Terminal) -> Outcome {
    if arguments.format == TableFormat::Text {
        let reference = target.reference();
        let (name, abort, width) = (&*target.name, arguments.abort, columns());
        let asked = Asked { name, reference: &reference, abort, width };
        terminal.out.write_all(outcome(reply, &asked).as_bytes())?;
    }
    match reply {
        // It serves; but a person has to make room, or it is not known after a reboot that it is good.
        Reply::Done { unkept: Some(_), .. } => Ok(Exit::Findings),
        Reply::Done { unkept: None, .. } => Ok(Exit::Clean),
        Reply::BackedOut { .. } => Ok(Exit::Findings),
        Reply::Refused { reason } => Err(Failure::Usage(format!("{}: {reason}", target.name)).into()),
        Reply::Step { .. } | Reply::Status(_) => Ok(Exit::Trouble),
    }
}

fn trouble(target: &Target, silence: Silence) -> Stop {
    let name = &target.name;
    let wish = wanted(&target.directory.display().to_string());
    let serving = match silence {
        Silence::Down => unsupervised::look(target).and_then(|status| status.serving),
        Silence::Late | Silence::Refused(_) | Silence::Stopped(_) | Silence::Interrupted(_) => None,
    };
    if let Some(serving) = serving {
        return Failure::Usage(format!(
            "no runtime of {name} is at work, so nothing can be handed over; generation {} goes on serving: {}",
            serving.generation,
            unsupervised::advice(target, wish, None)
        ))
        .into();
    }
    let obstacle = unsupervised::obstacle(target);
    let sentence = match silence {
        Silence::Down if wish == Wanted::Hidden => {
            format!(
                "no runtime of {name} is at work; only root can read why: `runsmith status {}`",
                target.reference()
            )
        }
        Silence::Down if wish == Wanted::Up && obstacle.is_some() => {
            format!("no runtime of {name} is at work: {}", obstacle.unwrap_or_default())
        }
        Silence::Down if wish == Wanted::Up => format!(
            "no runtime of {name} answers in {}, although the service is to be up: see its log; if `layout.run` was changed \
             while it ran, that takes `sv down {dir}` and `sv up {dir}`",
            target.run,
            dir = target.sv_reference()
        ),
        Silence::Down if wish == Wanted::Unknown => format!(
            "no runtime of {name} is at work, and runsv does not run: start runsvdir, or `runsv {}`",
            target.sv_reference()
        ),
        Silence::Down => {
            format!(
                "no runtime of {name} is at work: start the service with `sv up {}`",
                target.sv_reference()
            )
        }
        Silence::Stopped(pid) => stopped(target, pid),
        Silence::Late | Silence::Interrupted(_) => match stopped_runtime(target) {
            Some(pid) => stopped(target, pid),
            None => format!(
                "the runtime of {name} does not answer within {} s: it is blocked; see its log",
                ANSWER.as_secs()
            ),
        },
        Silence::Refused(error) => {
            format!("cannot ask the runtime of {name}: {error}; only root and the application's user may")
        }
    };
    Failure::Usage(sentence).into()
}

/// It has not read what it is asked for, and drops it once this end is closed.
fn stopped(target: &Target, pid: u32) -> String {
    format!(
        "the runtime of {} is stopped by a signal, so nothing was begun, and the request is withdrawn: `kill -CONT {pid}`, then do the \
         same again",
        target.name
    )
}

/// What becomes of it when whoever waits is told to end. `has_begun`: the runtime has taken the request.
fn interrupted(target: &Target, wish: Wish, has_begun: bool) -> String {
    let (name, reference) = (&target.name, target.reference());
    match wish {
        Wish::Upgrade | Wish::Prove if has_begun => format!(
            "{name}: the hand-over goes on; `runsmith status {reference}` shows it, `runsmith upgrade --abort {reference}` takes it back"
        ),
        Wish::Upgrade | Wish::Prove => {
            format!(
                "{name}: nothing was begun, and the request is withdrawn; `runsmith status {reference}` shows what serves"
            )
        }
        Wish::Abort | Wish::Status => {
            format!("{name}: `runsmith status {reference}` shows what became of it")
        }
    }
}
