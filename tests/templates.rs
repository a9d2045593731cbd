//! docs/templates.md names every template and every name that templates see, and no other; its example is true.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use runsmith::template::Templates;
use serde_json::Value;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/templates.md")).unwrap()
}

/// The first column of the table whose head is `head`.
fn column(page: &str, head: &str) -> BTreeSet<String> {
    let table = page.split(head).nth(1).unwrap_or_else(|| panic!("no table {head}"));
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    let names: BTreeSet<_> = rows.iter().map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(names.len(), rows.len(), "a name twice");
    names
}

/// The names below `value`: maps are entered, but for those whose keys are the pillar's own.
fn names(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let own = ["settings", "service.environment"].contains(&at);
    match value {
        Value::Object(map) if !own => {
            for (name, value) in map {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let only_holds = value.is_object() && !["settings", "service.environment"].contains(&&*at);
                if !only_holds || at == "service.handoff.health_check" {
                    found.insert(at.clone());
                }
                names(value, &at, found);
            }
        }
        Value::Array(items) => {
            items.iter().filter(|item| item.is_object()).for_each(|item| names(item, at, found))
        }
        _ => {}
    }
}

#[test]
fn the_page_has_every_name_and_no_other() {
    let mut have = BTreeSet::new();
    for context in runsmith::services::specimens().unwrap() {
        names(&context, "", &mut have);
    }
    assert!(have.contains("service.bind.umask") && have.contains("paths.path"), "{have:?}");
    let told = column(&page(), "| name | is |");
    let missing: Vec<_> = have.difference(&told).collect();
    let wrong: Vec<_> = told.difference(&have).collect();
    assert_eq!((missing, wrong), (vec![], vec![]), "missing in docs/templates.md, and wrong there");
}

#[test]
fn the_page_has_every_template_and_no_other() {
    let have: BTreeSet<_> = Templates::names().map(str::to_owned).collect();
    assert_eq!(column(&page(), "| template | renders |"), have);
}

#[test]
fn the_example_is_true() {
    let page = page();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).expect(language);
        rest.split("```").next().unwrap()
    };
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("templates")).unwrap();
    std::fs::write(scratch.path().join("templates/log-run"), block("jinja")).unwrap();
    std::fs::write(scratch.path().join("pillar.yaml"), block("yaml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .current_dir(scratch.path())
        .args(["render", "pillar.yaml", "--templates", "templates", "--format", "json"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = tree["entries"].as_array().unwrap();
    let log = entries.iter().find(|entry| entry["path"] == "/etc/sv/leaderboards/log/run").unwrap();
    assert_eq!(log["content"], block("sh"));
}
