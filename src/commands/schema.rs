//! `runsmith schema`: the JSON Schema on standard output.

use std::io::Write;

use super::{Outcome, Terminal};
use crate::exit::Exit;
use crate::schema;

pub(super) fn schema(terminal: &mut Terminal) -> Outcome {
    terminal.out.write_all(schema::text().as_bytes())?;
    Ok(Exit::Clean)
}
