//! Promises that runsmith does not keep yet. What would break one is not done, or not looked at, until its row is removed.

/// Such a promise: its name, and what it is.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    (
        "probation",
        "A generation that fails within `restart.min_uptime` is replaced by the one before: no release fails late.",
    ),
    ("abort", "Removing a candidate loses no request of gunicorn's: an abort may lose what is in flight."),
];

/// Whether a promise is not kept yet; `CHAOS_KNOWN=none` looks at all of them.
pub(crate) fn known(name: &str) -> bool {
    let all = std::env::var("CHAOS_KNOWN").unwrap_or_default();
    all != "none"
        && KNOWN.iter().any(|(one, _)| *one == name)
        && !all.split(',').any(|not| not == format!("-{name}"))
}
