//! `runsmith validate`: every finding of every pillar, on standard output.

use std::io::{self, Write};

use super::judge::levels;
use super::{Outcome, Stop, Terminal, any_error, inputs, nothing, threads, width};
use crate::cli::{self, FindingFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::{self, Findings};
use crate::rules::Texts;
use crate::rules::judge::judge;
use crate::services;

pub(super) fn validate(arguments: &cli::Validate, terminal: &mut Terminal) -> Outcome {
    let levels = levels(&arguments.severities)?;
    let pillars = inputs::read_all(&arguments.inputs)?;
    let key = arguments.key.as_deref();
    let (applications, unfit) = services::select(pillars.documents, key);
    let mut found = pillars.findings;
    found.extend(unfit);
    if applications.is_empty() && !any_error(&found) {
        terminal.findings(&found, &pillars.sources, &pillars.secrets);
        return Err(Failure::Usage(nothing(key)).into());
    }
    let mut secrets = pillars.secrets;
    secrets.extend(services::secret_spans(&applications));
    let count = applications.len();
    let texts = Texts { sources: &pillars.sources, dialect: pillars.dialect };
    found.extend(services::check(applications, texts, threads())?);
    let found = judge(found, &pillars.silences, &levels, &pillars.sources, key.is_none());

    let exit = if any_error(&found) { Exit::Findings } else { Exit::Clean };
    let findings = Findings::new(&found, &pillars.sources, &secrets);
    let text = match arguments.format {
        FindingFormat::Text if found.is_empty() => report::text::clean(count, pillars.sources.iter().len()),
        FindingFormat::Text => report::text::of(&findings, terminal.result_coloured(), width(io::stdout())),
        FindingFormat::Json => report::json::json(&findings, count),
        FindingFormat::Github => report::github::github(&findings),
        FindingFormat::Sarif => report::sarif::sarif(&findings),
        FindingFormat::Junit => report::junit::junit(&findings),
        FindingFormat::Gitlab => report::gitlab::gitlab(&findings),
    };
    let written = terminal.out.write_all(text.as_bytes()).and_then(|()| terminal.out.flush());
    match written.map_err(Stop::from) {
        Ok(()) => Ok(exit),
        // Who has seen enough still asks how it went.
        Err(Stop::Gone(_)) => Err(Stop::Gone(exit)),
        Err(stop) => Err(stop),
    }
}
