//! Promises that runsmith does not keep yet. What would break one is not done, or not looked at, until its row is removed.

/// Such a promise: its name, and what it is.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    (
        "pinned",
        "A generation stays in its release: `current` is switched back at once when a release has failed.",
    ),
    (
        "known-good",
        "An unplanned start falls back to the last proven release: nothing is killed while `current` leads to a broken one.",
    ),
    (
        "probation",
        "A generation that fails within `restart.min_uptime` is replaced by the one before: no release fails late.",
    ),
    ("adopted", "Status knows after an adoption how many workers are ready: not compared then."),
    ("log", "The log goes on after kill -9 of runsv: runsv is not killed alone."),
    ("keeper", "A keeper that stands still is replaced and ended: it is not stopped."),
    ("files", "Deleted files of the run directory are made again: none is deleted."),
    ("abort", "Removing a candidate loses no request of gunicorn's: an abort may lose what is in flight."),
];

/// Whether a promise is not kept yet; `CHAOS_KNOWN=none` looks at all of them.
pub(crate) fn known(name: &str) -> bool {
    let all = std::env::var("CHAOS_KNOWN").unwrap_or_default();
    all != "none"
        && KNOWN.iter().any(|(one, _)| *one == name)
        && !all.split(',').any(|not| not == format!("-{name}"))
}
