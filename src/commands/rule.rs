//! `runsmith rule`: what findings are called and mean.

use std::io::{self, Write};

use super::{Outcome, Terminal, width};
use crate::cli::{self, TableFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report;
use crate::rule;
use crate::rules::judge;

pub(super) fn rule(arguments: &cli::Rule, terminal: &mut Terminal) -> Outcome {
    let colour = terminal.result_coloured();
    let width = width(io::stdout());
    let rules = match &arguments.name {
        None => rule::all(),
        Some(name) => vec![rule::named(name).ok_or_else(|| Failure::Usage(judge::unknown(name)))?],
    };
    let text = match (arguments.format, rules.as_slice()) {
        (TableFormat::Json, _) => report::rules::json(&rules),
        (TableFormat::Text, [one]) if arguments.name.is_some() => report::rules::explain(one, colour, width),
        (TableFormat::Text, _) => report::rules::table(&rules, colour, width),
    };
    terminal.out.write_all(text.as_bytes())?;
    Ok(Exit::Clean)
}
