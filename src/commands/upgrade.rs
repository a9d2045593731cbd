//! `runsmith upgrade`: a hand-over, step by step until it is settled.

use std::io::Write;

use super::target::{self, Target};
use super::{Outcome, Stop, Terminal};
use crate::cli::{self, TableFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::runtime::linux::asking::{ANSWER, Asking, Silence};
use crate::runtime::linux::runsv::{Wanted, wanted};
use crate::runtime::protocol::{Reply, Wish};
use crate::visible::visible;

pub(super) fn upgrade(arguments: &cli::Upgrade, terminal: &mut Terminal) -> Outcome {
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
        let reply = asking.hear().map_err(|silence| trouble(&target, silence))?;
        let Some(reply) = reply else {
            return Err(Failure::Usage(format!(
                "the runtime of {name} went away before the hand-over was settled; `runsmith status {name}` tells what became of it"
            ))
            .into());
        };
        match &reply {
            Reply::Step { after, sentence } => {
                if arguments.format == TableFormat::Text {
                    terminal.say(&format!("{after:7.2} s"), sentence);
                }
                steps.push(reply);
                continue;
            }
            Reply::Status(_) => continue,
            Reply::Done { .. } | Reply::BackedOut { .. } | Reply::Refused { .. } => {}
        }
        if arguments.format == TableFormat::Json {
            let text = serde_json::to_string_pretty(
                &serde_json::json!({"version": 1, "service": name, "result": reply, "steps": steps}),
            );
            writeln!(terminal.out, "{}", text.unwrap_or_default())?;
        }
        return end(&reply, arguments, name, terminal);
    }
}

fn end(reply: &Reply, arguments: &cli::Upgrade, name: &str, terminal: &mut Terminal) -> Outcome {
    let is_text = arguments.format == TableFormat::Text;
    match reply {
        Reply::Done { generation, probation_ms } => {
            if is_text && arguments.abort {
                writeln!(terminal.out, "{name}: given up; generation {generation} goes on serving")?;
            } else if is_text {
                let state = match probation_ms {
                    Some(left) => format!(
                        "serves alone, on probation for {} s: if it fails until then, what was proven before is started \
                         (`runsmith upgrade --proven {name}` would wait for that; `runsmith status {name}` shows it)",
                        left.div_ceil(1000)
                    ),
                    None => "serves alone and is proven".to_owned(),
                };
                writeln!(terminal.out, "{name}: done: generation {generation} {state}")?;
            }
            Ok(Exit::Clean)
        }
        Reply::BackedOut { reason, output, serving } => {
            if is_text {
                let goes_on = serving.map_or_else(
                    || "nothing serves".to_owned(),
                    |generation| format!("generation {generation} goes on serving"),
                );
                writeln!(terminal.out, "{name}: backed out: {}; {goes_on}", visible(reason))?;
                if !output.is_empty() {
                    writeln!(terminal.out, "what the failed generation said last:")?;
                    for line in output.lines() {
                        writeln!(terminal.out, "  | {}", visible(line))?;
                    }
                }
            }
            Ok(Exit::Findings)
        }
        Reply::Refused { reason } => Err(Failure::Usage(format!("{name}: {reason}")).into()),
        Reply::Step { .. } | Reply::Status(_) => Ok(Exit::Trouble),
    }
}

fn trouble(target: &Target, silence: Silence) -> Stop {
    let name = &target.name;
    let sentence = match silence {
        Silence::Down if wanted(&target.directory.display().to_string()) == Wanted::Up => format!(
            "no runtime of {name} answers in {}, although the service is to be up: see its log; if `layout.run` was changed \
             while it ran, that takes `sv down {dir}` and `sv up {dir}`",
            target.run,
            dir = target.directory.display()
        ),
        Silence::Down => {
            format!(
                "no runtime of {name} is at work: start the service with `sv up {}`",
                target.directory.display()
            )
        }
        Silence::Late => format!(
            "the runtime of {name} does not answer within {} s: it is stopped or blocked; see its log and `ps`",
            ANSWER.as_secs()
        ),
        Silence::Refused(error) => {
            format!("cannot ask the runtime of {name}: {error}; only root and the application's user may")
        }
    };
    Failure::Usage(sentence).into()
}
