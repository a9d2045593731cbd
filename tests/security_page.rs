//! docs/security.md names a test in each row of its attack tables. Each of them exists, and no attack is left out of the page.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads files")]

use std::collections::BTreeSet;
use std::path::Path;

/// The sections that have an attack table.
const SECTIONS: [&str; 5] = ["Disk", "Runtime", "The application", "Continuous integration", "Secrets"];

/// The head of an attack table.
const HEAD: &str = "| attack | what happens | test |";

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the attack table in each section, as their cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let mut rows = vec![];
    for section in SECTIONS {
        let start = page.find(&format!("\n## {section}\n"));
        let start = start.unwrap_or_else(|| panic!("docs/security.md has no section {section}"));
        let body = &page[start + 1..];
        let body = &body[..body[3..].find("\n## ").map_or(body.len(), |end| end + 3)];
        assert_eq!(body.matches(HEAD).count(), 1, "the section {section} has one table with the head {HEAD}");
        let table = body.split(HEAD).nth(1).unwrap().trim_start();
        for line in table.lines().take_while(|line| line.starts_with('|')).skip(1) {
            let cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
            rows.push(cells.collect());
        }
    }
    rows
}

/// The functions of a test program (`tests/NAME.rs`) or of a source file that are tests.
fn tests(program: &str) -> BTreeSet<String> {
    let path = if program.ends_with(".rs") { program.to_owned() } else { format!("tests/{program}.rs") };
    let text = text(&path);
    let bodies = text.split("#[test]\n").skip(1);
    let name = |body: &str| Some(body.split_once("fn ")?.1.split_once('(')?.0.to_owned());
    bodies.filter_map(name).collect()
}

#[test]
fn every_attack_names_tests_that_exist() {
    let rows = rows(&text("docs/security.md"));
    assert!(rows.len() >= 10, "the tables are not found");
    for row in &rows {
        let [attack, happens, named] = row.as_slice() else {
            panic!("a row needs three cells: {row:?}");
        };
        assert!(!attack.is_empty() && !happens.is_empty(), "{row:?}");
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test for: {attack}");
        for name in names {
            let (program, function) =
                name.split_once("::").unwrap_or_else(|| panic!("{name} is not PROGRAM::FUNCTION"));
            assert!(tests(program).contains(function), "there is no test {name}");
        }
    }
}

#[test]
fn every_attack_that_is_tested_is_on_the_page() {
    let page = text("docs/security.md");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(program) = name.strip_suffix(".rs").filter(|name| name.starts_with("security_")) else {
            continue;
        };
        if program == "security_page" {
            continue;
        }
        for function in tests(program) {
            let named = format!("`{program}::{function}`");
            assert!(page.contains(&named), "docs/security.md has no row that names {named}");
        }
    }
}
