//! The JSON Schema in the repository is the one the types give.

use std::path::Path;

/// `make golden` sets RUNSMITH_BLESS and rewrites the file; `git diff` is the review.
#[test]
fn the_schema_file_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pillar.schema.json");
    let want = format!("{}\n", serde_json::to_string_pretty(&runsmith::schema::document()).unwrap());
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
        return;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), want, "run `make golden` and review the difference");
}
