//! `runsmith completions` and `runsmith man`: what packages carry beside the binary, made from the command line itself.

use std::io::Write;

use clap::CommandFactory as _;

use super::{Outcome, Terminal};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::visible::visible;

pub(super) fn completions(arguments: &cli::Completions, terminal: &mut Terminal) -> Outcome {
    let mut command = cli::Cli::command();
    let mut text = vec![];
    // Into memory: the generator panics if it cannot write.
    clap_complete::generate(arguments.shell, &mut command, "runsmith", &mut text);
    terminal.out.write_all(&text)?;
    Ok(Exit::Clean)
}

pub(super) fn man(arguments: &cli::Man, terminal: &mut Terminal) -> Outcome {
    let mut command = cli::Cli::command();
    // Global options are known to the commands only after this.
    command.build();
    let page = match &arguments.command {
        None => clap_mangen::Man::new(command),
        Some(name) => {
            let Some(found) = command.find_subcommand(name) else {
                let names: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
                let sentence =
                    format!("there is no command {}; there are {}", visible(name), names.join(", "));
                return Err(Failure::Usage(sentence).into());
            };
            // man(1) finds the page of a command by this name, as it finds git-log.
            clap_mangen::Man::new(found.clone()).title(format!("runsmith-{name}"))
        }
    };
    page.section("8").manual("runsmith").render(&mut terminal.out)?;
    Ok(Exit::Clean)
}
