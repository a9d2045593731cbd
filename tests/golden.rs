//! Golden cases: `fixtures/NAME` holds `pillar.*` and either `expected/` (the rendered tree, with
//! `tree.txt` for kinds, modes and owners) or `diagnostics.txt`. `arguments` may hold further
//! arguments, a line each. `make golden` rewrites them; `git diff` is the review.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> =
        std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // tests/rules.rs has those.
    cases.retain(|case| !case.ends_with("rules"));
    cases.sort();
    assert!(cases.len() > 10, "the cases are in {}", fixtures().display());
    cases
}

fn bless() -> bool {
    std::env::var_os("RUNSMITH_BLESS").is_some()
}

#[test]
fn every_case_is_as_expected() {
    let mut wrong = vec![];
    for case in cases() {
        let output = render(&case);
        let want = if output.status.success() {
            tree(&output)
        } else {
            let code = output.status.code().expect("an exit code");
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(output.stdout.is_empty(), "{}: nothing is printed beside findings", case.display());
            BTreeMap::from([(
                PathBuf::from("diagnostics.txt"),
                format!("{text}exit code {code}\n").into_bytes(),
            )])
        };
        if bless() {
            write(&case, &want);
        }
        let have = read(&case);
        let all: BTreeSet<_> = want.keys().chain(have.keys()).collect();
        for path in all {
            if want.get(path) != have.get(path) {
                wrong.push(format!("{}", case.join(path).display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "run `make golden` and review the difference");
}

fn render(case: &Path) -> Output {
    let arguments = std::fs::read_to_string(case.join("arguments")).unwrap_or_default();
    let pillar =
        std::fs::read_dir(case).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pillars: Vec<String> = pillar.filter(|name| name.starts_with("pillar")).collect();
    pillars.sort();
    Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .current_dir(case)
        .arg("render")
        .args(pillars)
        .args(["--format", "json", "--show-secrets"])
        .args(arguments.lines())
        .output()
        .unwrap()
}

/// The files of `expected/` that a rendered tree makes.
fn tree(output: &Output) -> BTreeMap<PathBuf, Vec<u8>> {
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut files = BTreeMap::new();
    let mut list = String::new();
    for entry in tree["entries"].as_array().unwrap() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let target = entry["target"].as_str().map(|target| format!(" -> {target}")).unwrap_or_default();
        let secret = if entry["secret"] == true { " secret" } else { "" };
        let line = format!("{:9} {} {}:{}", text("kind"), text("mode"), text("owner"), text("group"));
        list.push_str(&format!("{line} {}{target}{secret}\n", text("path")));
        if let Some(content) = entry["content"].as_str() {
            files.insert(
                Path::new("expected").join(text("path").trim_start_matches('/')),
                content.as_bytes().to_vec(),
            );
        }
    }
    files.insert(PathBuf::from("expected/tree.txt"), list.into_bytes());
    files
}

fn read(case: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![case.join("expected"), case.join("diagnostics.txt")];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(content) = std::fs::read(&path) {
            files.insert(path.strip_prefix(case).unwrap().to_owned(), content);
        }
    }
    files
}

fn write(case: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let _ = std::fs::remove_dir_all(case.join("expected"));
    let _ = std::fs::remove_file(case.join("diagnostics.txt"));
    for (path, content) in files {
        let path = case.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// Every key that a pillar may have stands in at least one case that renders.
#[test]
fn the_cases_cover_every_key() {
    let mut used = BTreeSet::new();
    for case in cases().iter().filter(|case| case.join("expected").exists()) {
        let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .arg("read")
            .args(pillars(case))
            .args(std::fs::read_to_string(case.join("arguments")).unwrap_or_default().lines())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for document in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>() {
            keys(&document.unwrap(), &mut used);
        }
    }
    let mut known = BTreeSet::new();
    let schema = runsmith::schema::document();
    properties(&schema, &mut known);
    let missing: Vec<_> = known.difference(&used).collect();
    assert!(missing.is_empty(), "no golden case has {missing:?}");
}

fn pillars(case: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("pillar")).collect()
}

fn keys(value: &Value, used: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                used.insert(key.clone());
                keys(value, used);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, used)),
        _ => {}
    }
}

/// Names of the schema's properties, but for the servers' own settings.
fn properties(schema: &Value, known: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) if !map.contains_key("x-server-version") => {
            known.extend(
                map.get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.clone()),
            );
            map.values().for_each(|value| properties(value, known));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, known)),
        _ => {}
    }
}
