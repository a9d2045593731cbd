//! Who may import whom: the table of CONTRIBUTING.md as data, held against every `use crate::…`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module, and the modules of this crate it may name. A module always may name itself.
const MAY: &[(&str, &[&str])] = &[
    // Values: what everybody speaks of.
    ("source", &["diagnostic", "rule"]),
    ("rule", &["diagnostic"]),
    ("diagnostic", &["rule", "source"]),
    ("visible", &[]),
    ("quote", &[]),
    ("failure", &["visible"]),
    ("exit", &[]),
    ("steps", &[]),
    ("tree", &["visible"]),
    ("record", &["steps", "tree"]),
    // Pure stages, in the order of the data.
    ("pillar", &["source", "diagnostic", "rule", "visible"]),
    ("model", &["source", "diagnostic", "rule", "pillar", "steps", "quote", "visible"]),
    ("schema", &["diagnostic", "rule", "failure", "pillar", "model"]),
    ("facts", &["model"]),
    ("template", &["failure", "visible", "quote"]),
    ("plan", &["failure", "model", "record", "steps", "template", "tree"]),
    ("rules", &["source", "diagnostic", "rule", "pillar", "model", "facts", "visible", "steps"]),
    (
        "services",
        &[
            "rules",
            "steps",
            "source",
            "diagnostic",
            "rule",
            "failure",
            "pillar",
            "schema",
            "model",
            "template",
            "plan",
            "record",
            "tree",
            "visible",
        ],
    ),
    (
        "diff",
        &[
            "source", "failure", "pillar", "model", "template", "plan", "record", "services", "tree",
            "steps", "visible",
        ],
    ),
    (
        "report",
        &[
            "source",
            "diagnostic",
            "failure",
            "rule",
            "model",
            "services",
            "tree",
            "visible",
            "diff",
            "runtime",
        ],
    ),
    // Effects.
    ("host", &["facts", "model", "visible"]),
    ("runtime", &["host", "model", "visible"]),
    ("disk", &["failure", "record", "tree", "visible", "steps"]),
    // Story.
    ("cli", &["record"]),
    (
        "commands",
        &[
            "cli",
            "diagnostic",
            "diff",
            "disk",
            "exit",
            "failure",
            "host",
            "model",
            "pillar",
            "plan",
            "record",
            "report",
            "rule",
            "rules",
            "runtime",
            "schema",
            "services",
            "source",
            "template",
            "tree",
            "visible",
        ],
    ),
];

#[test]
fn nobody_imports_what_comes_later() {
    let allowed: BTreeMap<&str, &[&str]> = MAY.iter().copied().collect();
    let mut wrong = vec![];
    let mut seen = vec![];
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let module = module_of(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        seen.push(module.clone());
        let Some(may) = allowed.get(module.as_str()) else {
            wrong.push(format!("{module}: not in the table"));
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if name != module && !may.contains(&name.as_str()) && !line.trim_start().starts_with("//") {
                    wrong.push(format!("{}:{}: {module} may not name {name}", file.display(), number + 1));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    for (module, _) in MAY {
        assert!(seen.iter().any(|seen| seen == module), "{module} is in the table and not in src/");
    }
}

/// Only effect modules may open the lints that keep effects out; each says why in the same line.
#[test]
fn effects_are_opened_in_their_places_only() {
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let module = module_of(&file);
        let opened = text.contains("allow(clippy::disallowed_methods");
        assert!(
            !opened || ["disk", "host", "commands", "runtime"].contains(&module.as_str()),
            "{}",
            file.display()
        );
    }
}

fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
