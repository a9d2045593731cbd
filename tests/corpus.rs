//! Every text of the fuzzer's corpus becomes findings, fixes and reports, as it does under the fuzzer.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]

#[path = "support/findings.rs"]
mod findings;

use std::path::Path;

use findings::Found;
use runsmith::pillar::{Dialect, Format};

const READINGS: [(Format, Dialect); 4] = [
    (Format::Yaml, Dialect::Salt),
    (Format::Yaml, Dialect::Ansible),
    (Format::Yaml, Dialect::Yaml12),
    (Format::Json, Dialect::Salt),
];

#[test]
fn the_corpus_is_read_without_a_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/findings");
    let mut bytes = 0;
    let (mut clean, mut wrong) = (0, 0);
    for entry in std::fs::read_dir(corpus).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        bytes += text.len();
        for (format, dialect) in READINGS {
            let found = Found::of(text.clone(), format, dialect);
            found.check_places();
            found.check_fixes();
            found.check_reports();
            if found.is_wrong() { wrong += 1 } else { clean += 1 }
        }
    }
    assert!(bytes < 200_000, "the corpus is small: {bytes} bytes");
    assert!(clean > 50 && wrong > 500, "it has what is right and what is wrong: {clean} and {wrong}");
}
