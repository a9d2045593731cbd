//! Every rule is shown by pillars: `fixtures/rules/NAME` holds `wrong.*`, in which exactly that rule
//! finds something, `right.*`, in which none does, whatever further `wrong-*.*` the rule needs, and
//! `diagnostics.txt`, what `validate` says of each of the wrong ones. `arguments` may hold further
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
            // What a host lacks no pillar shows: tests/host.rs makes each of that family find something.
            let needs_none =
                BUILT.contains(&rule.name) || rule == &rule::INVALID || rule.family == rule::Family::Host;
            assert!(needs_none, "{} needs examples", rule.name);
            continue;
        }
        for pillar in pillars(&folder, "wrong") {
            let findings = found(&validate(&folder, std::slice::from_ref(&pillar), "json"));
            // A secret in a command is one that everybody sees, whatever else is wrong with the command.
            let beside = |name: &str| rule == &rule::COMMAND_OPTION && name == rule::PLAIN_SECRET.name;
            let others: Vec<_> =
                findings.iter().filter(|(name, _)| name != rule.name && !beside(name)).collect();
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
        let mut want = String::new();
        for pillar in pillars(&folder, "wrong") {
            let output = validate(&folder, &[pillar], "text");
            want.push_str(&String::from_utf8(output.stdout).unwrap());
            want.push_str(&format!("exit code {}\n\n", output.status.code().expect("an exit code")));
        }
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

/// What an example shows it shows with the arguments of its folder, so they are told with it; and it can be copied.
#[test]
fn examples_are_as_they_are_validated() {
    let page = std::fs::read_to_string(root().join("docs/rules.md")).unwrap();
    for rule in rule::all() {
        let Some(example) = &rule.example else { continue };
        let file = std::fs::read_to_string(folder(rule).join("arguments")).unwrap_or_default();
        assert_eq!(example.arguments, file.lines().collect::<Vec<_>>().join(" "), "{}", rule.name);
        let output = runsmith(root(), &["rule", rule.name]);
        let text = String::from_utf8(output.stdout).unwrap();
        let named = |quote: &str| format!("Wrong, with {quote}{}{quote}", example.arguments);
        assert_eq!(text.contains("Wrong, with"), !example.arguments.is_empty(), "{text}");
        assert!(example.arguments.is_empty() || text.contains(&named("")) && page.contains(&named("`")));
        for tabbed in example.wrong.lines().filter(|line| line.contains('\t')) {
            assert!(text.contains(tabbed) && page.contains(&format!("\n{tabbed}\n")), "{tabbed:?}: {text}");
            assert!(text.contains("There is a tab on line"), "{text}");
        }
    }
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

/// What the options say about severities counts for `validate` and for `render`.
#[test]
fn severities_are_set_by_options() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
    let base = "application: web\nvirtualenv_home: /v\n";
    write("root.yaml", &format!("{base}user: root\nservice: {{timeout: 0}}\n"));
    write("twice.yaml", &format!("{base}user: deploy\nuser: deploy\n"));
    write("silent.yaml", &format!("{base}user: root # runsmith: allow(user-root) because it mounts\n"));
    write("wrong.yaml", "application: web\n");
    let run = |arguments: &[&str]| {
        let output = runsmith(scratch.path(), arguments);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let rules: Vec<_> = said
            .lines()
            .filter_map(|line| line.split_once(": ").map(|(head, _)| head))
            .filter(|head| head.ends_with(']') && !head.contains(' '))
            .map(str::to_owned)
            .collect();
        (output.status.code().unwrap(), rules.join(" "), said)
    };
    for (arguments, code, rules) in [
        ("root.yaml", 0, "warning[user-root] warning[timeout-zero]"),
        ("root.yaml --deny user-root", 1, "error[user-root] warning[timeout-zero]"),
        ("root.yaml --deny user-root,timeout-zero", 1, "error[user-root] error[timeout-zero]"),
        ("root.yaml --deny all --allow user-root", 1, "error[timeout-zero]"),
        ("root.yaml --allow user-root --allow timeout-zero", 0, ""),
        ("root.yaml --allow all --warn user-root", 0, "warning[user-root]"),
        ("twice.yaml --dialect ansible", 0, "warning[duplicate-key]"),
        ("twice.yaml --dialect ansible --deny all", 1, "error[duplicate-key]"),
        ("twice.yaml --dialect ansible --allow duplicate-key", 0, ""),
        ("twice.yaml --allow duplicate-key", 1, "error[duplicate-key]"),
        ("silent.yaml --deny all", 0, ""),
        ("wrong.yaml --allow all", 1, "error[missing-key] error[missing-key]"),
    ] {
        for command in ["validate", "render"] {
            let words: Vec<&str> = std::iter::once(command).chain(arguments.split(' ')).collect();
            let (have, found, said) = run(&words);
            assert_eq!((have, found.as_str()), (code, rules), "{command} {arguments}: {said}");
            let rendered = said.contains("==> /etc/sv/web/");
            assert_eq!(rendered, command == "render" && code == 0, "{command} {arguments}");
        }
    }
    for (arguments, sentence) in [
        ("--deny user-rot", "there is no rule `user-rot`; did you mean `user-root`?"),
        ("--allow missing-key", "cannot be allowed"),
        ("--deny user-root --allow user-root", "both denied and allowed"),
    ] {
        let words: Vec<&str> = ["validate", "root.yaml"].into_iter().chain(arguments.split(' ')).collect();
        let (code, _, said) = run(&words);
        assert!(code == 2 && said.contains(sentence), "{arguments}: {said}");
    }
}
