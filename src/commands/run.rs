//! `runsmith run --check`: proves a rendered native run script.

use std::io::Write;

use super::{Outcome, Stop, Terminal, any_error, file};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::services;
use crate::source::{MAX_BYTES, Source, SourceId, Sources};

pub(super) fn check(arguments: &cli::Run, terminal: &mut Terminal) -> Outcome {
    let name = arguments.file.to_string_lossy();
    let bytes = file::read(&arguments.file, MAX_BYTES as u64 >> 20, "run script")
        .map_err(|error| Failure::path("read", name.as_ref(), error))?;
    let id = SourceId(0);
    let mut sources = Sources::new();
    let source = match Source::from_bytes(&*name, bytes, id) {
        Ok(source) => source,
        Err(refused) => {
            let (source, finding) = *refused;
            let secrets = services::secrets_in_text(source.text(), id);
            sources.add(source);
            return Err(Stop::Findings(vec![finding], sources, secrets));
        }
    };
    let result = services::rendered(&source, id);
    // Whoever edited it may have put one where only names belong.
    let secrets = services::secrets_in_text(source.text(), id);
    sources.add(source);
    match result {
        Ok(service) => {
            writeln!(terminal.out, "{name}: the service {} can be executed", service.application)?;
            Ok(Exit::Clean)
        }
        Err(found) => {
            debug_assert!(any_error(&found));
            Err(Stop::Findings(found, sources, secrets))
        }
    }
}
