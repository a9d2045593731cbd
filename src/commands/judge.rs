//! What the command line says about how bad findings are.

use crate::cli::Severities;
use crate::failure::Failure;
use crate::rules::judge::{Level, Levels};

/// The levels of `--deny`, `--warn` and `--allow`.
pub(super) fn levels(severities: &Severities) -> Result<Levels, Failure> {
    let given =
        [(&severities.deny, Level::Deny), (&severities.warn, Level::Warn), (&severities.allow, Level::Allow)];
    let names =
        given.into_iter().flat_map(|(names, level)| names.iter().map(move |name| (name.trim(), level)));
    Levels::read(names).map_err(Failure::Usage)
}
