//! Every rule is shown by pillars: `fixtures/rules/NAME` holds `wrong.*`, in which exactly that rule
//! finds something, `right.*`, in which none does, whatever further `wrong-*.*` the rule needs, and
//! `diagnostics.txt`, what `validate` says of all the wrong ones. `arguments` may hold further
//! arguments, a line each. `make golden` rewrites the texts, and docs/rules.md.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runsmith::diagnostic::Severity;
use runsmith::rule::{self, Rule};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(rule: &Rule) -> PathBuf {
    root().join("fixtures/rules").join(rule.name)
}

/// Compares a file with what it should hold, or writes it.
fn golden(path: &Path, want: &str) -> bool {
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(path, want).unwrap();
    }
    std::fs::read_to_string(path).is_ok_and(|have| have == want)
}

fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runsmith")).current_dir(directory).args(arguments).output().unwrap()
}

/// `validate` on some pillars of a folder, with the arguments that it holds.
fn validate(folder: &Path, pillars: &[String], format: &str) -> Output {
    let more = std::fs::read_to_string(folder.join("arguments")).unwrap_or_default();
    let mut arguments = vec!["validate", "--format", format];
    arguments.extend(more.lines());
    arguments.extend(pillars.iter().map(String::as_str));
    runsmith(folder, &arguments)
}

/// The pillars of a folder whose names begin like that, in order.
fn pillars(folder: &Path, stem: &str) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<String> =
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(stem) && !name.ends_with(".txt"));
    names.sort();
    names
}

/// Rule and severity of each finding.
fn found(output: &Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings.map(|finding| (text(finding, "rule"), text(finding, "severity"))).collect()
}

#[test]
fn every_rule_finds_its_wrong_example_and_no_rule_the_right_one() {
    let mut wrong = vec![];
    for rule in rule::all() {
        let folder = folder(rule);
        if rule.example.is_none() {
            assert!(BUILT.contains(&rule.name) || rule == &rule::INVALID, "{} needs examples", rule.name);
            continue;
        }
        for pillar in pillars(&folder, "wrong") {
            let findings = found(&validate(&folder, std::slice::from_ref(&pillar), "json"));
            let others: Vec<_> = findings.iter().filter(|(name, _)| name != rule.name).collect();
            if findings.is_empty() || !others.is_empty() {
                wrong.push(format!("{}/{pillar}: {findings:?}", rule.name));
            }
            if pillar.starts_with("wrong.") && findings.iter().any(|(_, word)| word != rule.severity.word()) {
                wrong.push(format!("{}/{pillar}: {findings:?}, not {:?}", rule.name, rule.severity));
            }
        }
        for pillar in pillars(&folder, "right") {
            let output = validate(&folder, std::slice::from_ref(&pillar), "json");
            let findings = found(&output);
            if !findings.is_empty() || output.status.code() != Some(0) {
                wrong.push(format!("{}/{pillar}: {findings:?}", rule.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Messages, lines and columns.
#[test]
fn findings_stand_where_they_stood() {
    let mut wrong = vec![];
    for rule in rule::all().into_iter().filter(|rule| rule.example.is_some()) {
        let folder = folder(rule);
        let output = validate(&folder, &pillars(&folder, "wrong"), "text");
        let want = format!(
            "{}exit code {}\n",
            String::from_utf8(output.stdout).unwrap(),
            output.status.code().expect("an exit code")
        );
        if !golden(&folder.join("diagnostics.txt"), &want) {
            wrong.push(rule.name);
        }
    }
    assert_eq!(wrong, Vec::<&str>::new(), "run `make golden` and review the difference");
}

#[test]
fn no_folder_is_without_a_rule() {
    let names: HashSet<_> = rule::all().iter().map(|rule| rule.name).collect();
    for entry in std::fs::read_dir(root().join("fixtures/rules")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(name.as_str()), "fixtures/rules/{name}: no rule is called so");
    }
}

/// Rules whose examples are too large for a repository, or no text: they are made here.
const BUILT: &[&str] = &["not-utf-8", "too-large", "too-deep", "too-long", "run-script"];

#[test]
fn rules_without_a_small_example_find_something() {
    let scratch = tempfile::tempdir().unwrap();
    let base = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\n";
    let file = |name: &str| scratch.path().join(name);
    std::fs::write(file("not-utf-8.yaml"), b"application: caf\xe9\n").unwrap();
    std::fs::File::create(file("too-large.yaml")).unwrap().set_len((32 << 20) + 1).unwrap();
    std::fs::write(file("too-deep.yaml"), format!("{base}app: {}{}\n", "[".repeat(200), "]".repeat(200)))
        .unwrap();
    std::fs::write(file("too-long.yaml"), format!("{base}environment: {{TEXT: {}}}\n", "x".repeat(131_072)))
        .unwrap();
    for rule in BUILT.iter().filter(|rule| **rule != "run-script") {
        let output = runsmith(scratch.path(), &["validate", "--format", "json", &format!("{rule}.yaml")]);
        assert_eq!(found(&output), [((*rule).to_owned(), "error".to_owned())]);
    }
    std::fs::write(file("run"), "#!/bin/sh\n").unwrap();
    let output = runsmith(scratch.path(), &["run", "--check", "run"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error[run-script]"));
}

#[test]
fn the_page_of_rules_is_that_of_the_registry() {
    let page = runsmith::report::rules::page(&rule::all());
    assert!(golden(&root().join("docs/rules.md"), &page), "run `make golden` and review the difference");
}

#[test]
fn the_command_lists_and_explains() {
    let text = |arguments: &[&str]| {
        let output = runsmith(root(), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = text(&["rule"]);
    for rule in rule::all() {
        assert!(list.contains(&format!("  {} ", rule.name)), "{}", rule.name);
        let page = text(&["rule", rule.name]);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [rule.summary, rule.what, rule.why] {
            assert!(words(&page).contains(&words(part)), "{}: {page}", rule.name);
        }
    }
    let listed: Value = serde_json::from_str(&text(&["rule", "--format", "json"])).unwrap();
    let names: BTreeSet<_> =
        listed["rules"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    assert_eq!(names, rule::all().iter().map(|rule| rule.name).collect());

    let output = runsmith(root(), &["rule", "unknown_keys"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "error: there is no rule `unknown_keys`; did you mean `unknown-key`?\n");
    let output = runsmith(root(), &["rule", "xyzzy"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("`runsmith rule` lists them"));
}

/// A rule that cries wolf is silenced by habit: what renders has no findings.
#[test]
fn pillars_that_render_have_no_findings() {
    for entry in std::fs::read_dir(root().join("fixtures")).unwrap() {
        let case = entry.unwrap().path();
        if case.join("expected").exists() {
            assert_eq!(found(&validate(&case, &pillars(&case, "pillar"), "json")), [], "{}", case.display());
        }
    }
}

/// What a fixed rule finds keeps a service from being rendered: it is an error, always.
#[test]
fn fixed_rules_are_errors() {
    for rule in rule::all() {
        assert!(rule.is_switchable(Severity::Error) || rule.severity == Severity::Error, "{}", rule.name);
    }
}
