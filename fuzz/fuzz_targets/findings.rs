//! Bytes to findings, in every dialect and as JSON: nothing panics, every place lies on characters of the
//! text, and every report can be made.

#![no_main]

#[path = "../../tests/support/findings.rs"]
mod findings;

use findings::Found;
use libfuzzer_sys::fuzz_target;
use runsmith::pillar::{Dialect, Format};

const READINGS: [(Format, Dialect); 4] = [
    (Format::Yaml, Dialect::Salt),
    (Format::Yaml, Dialect::Ansible),
    (Format::Yaml, Dialect::Yaml12),
    (Format::Json, Dialect::Salt),
];

fuzz_target!(|bytes: &[u8]| {
    for (format, dialect) in READINGS {
        let found = Found::of(bytes.to_vec(), format, dialect);
        found.check_places();
        found.check_fixes();
        found.check_reports();
    }
});
