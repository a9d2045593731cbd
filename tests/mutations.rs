//! Valid pillars are broken in some thousand ways, and what `validate` says of each is compared with
//! Python's jsonschema, which judges by `schemas/pillar.schema.json` what Salt's own loader reads.
//!
//! The two agree on what is valid, but for what a rule refuses that no schema can say; every finding
//! stands at the mutated place or its parent; nothing panics. What is broken, and how, comes of a
//! number: `RUNSMITH_MUTATIONS=COUNT` and `RUNSMITH_SEED=NUMBER` try more than the usual ones.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by them")]

#[path = "support/findings.rs"]
mod findings;
#[path = "mutations/mutant.rs"]
mod mutant;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use findings::Found;
use mutant::{Mutant, Random, Tree};
use runsmith::diagnostic::{Diagnostic, Label, Severity};
use runsmith::pillar::{Dialect, Format};
use runsmith::rule::{self, Family};
use serde_json::{Value as Json, json};

/// How many pillars are broken, unless `RUNSMITH_MUTATIONS` says otherwise.
const MUTATIONS: usize = 2_400;

/// Rules of reading and shape that find what neither Salt's loader nor the schema can refuse, and why
/// they cannot. All other rules of these families agree with them exactly.
const BEYOND: &[(&str, &str)] = &[
    ("jinja", "Salt renders the file before it loads it"),
    ("renderer", "Salt renders the file before it loads it"),
    (
        "missing-key",
        "what an application lacks is known once the defaults are merged in, and depends on its server",
    ),
    ("nul", "a NUL is a character like any other in JSON and in YAML's double quotes"),
];

/// Rules about two services, which may clash over what one of them has from the defaults.
const SEVERAL: &[&str] = &["bind-clash", "double-service", "path-clash"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The valid pillars among the fixtures, by name.
fn pillars() -> Vec<(String, String)> {
    let mut found = vec![];
    for (directory, file) in [("fixtures", "pillar.yaml"), ("fixtures/rules", "right.yaml")] {
        for entry in std::fs::read_dir(root().join(directory)).expect("a directory") {
            let path = entry.expect("an entry").path().join(file);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if !Found::of(text.clone().into_bytes(), Format::Yaml, Dialect::Salt).is_wrong() {
                let name = path.strip_prefix(root()).expect("a path below").display().to_string();
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

/// What jsonschema says of each text, as Salt reads it: `{"unreadable": why}` or `{"errors": [...]}`.
fn judge(texts: &[&str]) -> Vec<Json> {
    let venvs = std::env::var("RUNSMITH_VENVS").unwrap_or("/var/lib/runsmith-test".into());
    let python = PathBuf::from(venvs).join("salt/bin/python");
    assert!(python.exists(), "no {}; `scripts/setup` installs it", python.display());
    let mut child = Command::new(python)
        .arg("-B")
        .arg(root().join("tests/mutations/judge.py"))
        .arg(root().join("schemas/pillar.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines: String = texts.iter().map(|text| format!("{}\n", json!(text))).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("Python ends");
    writer.join().expect("a thread").expect("Python reads all texts");
    assert!(output.status.success(), "judge.py failed");
    let verdicts: Vec<Json> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a verdict"))
        .collect();
    assert_eq!(verdicts.len(), texts.len(), "every text is judged");
    verdicts
}

fn is_beyond(finding: &Diagnostic) -> bool {
    BEYOND.iter().any(|(name, _)| *name == finding.rule.name)
}

/// Where `validate` and jsonschema differ about a text, if they do.
fn disagreement(found: &Found, verdict: &Json) -> Option<String> {
    let errors: Vec<&Diagnostic> =
        found.diagnostics.iter().filter(|finding| finding.severity == Severity::Error).collect();
    // `wrong-type` refuses 1.0 where a whole number belongs; to JSON Schema it is one.
    let is_whole_float = |finding: &Diagnostic| {
        let text = finding.span().and_then(|span| found.sources.get(span.source).text().get(span.range()));
        finding.rule == &rule::WRONG_TYPE
            && text.is_some_and(|text| {
                text.contains(['.', 'e', 'E'])
                    && text.parse().is_ok_and(|number: f64| number.is_finite() && number.fract() == 0.0)
            })
    };
    let is_exact = |finding: &&&Diagnostic| matches!(finding.rule.family, Family::Reading | Family::Shape);
    if verdict.get("unreadable").is_some() {
        let refused = errors.iter().any(|finding| finding.rule.family == Family::Reading);
        return (!refused).then(|| "Salt refuses to read what is no error of reading".to_owned());
    }
    let exact: Vec<_> = errors.iter().filter(is_exact).collect();
    if verdict["errors"] != json!([]) {
        return exact.is_empty().then(|| "the schema refuses what is not found".to_owned());
    }
    if found.applications == 0 && errors.is_empty() {
        return Some("the schema accepts what has no application".to_owned());
    }
    let unexplained = exact.iter().find(|finding| !is_beyond(finding) && !is_whole_float(finding));
    unexplained.map(|finding| format!("the schema accepts what `{}` refuses", finding.rule))
}

/// By what a finding is known again in another text.
fn known(finding: &Diagnostic) -> (String, String) {
    (finding.rule.to_string(), finding.message.clone())
}

/// New findings that stand neither at the mutated place nor at its parent. What the text and the schema
/// have against a pillar stands at the place, at the parent's name or beside the place; what a rule has
/// against several values of an application together may stand at any of them.
fn strays<'a>(mutant: &Mutant, found: &'a Found, old: &BTreeSet<(String, String)>) -> Vec<&'a Diagnostic> {
    let at = |label: &Label, places: &[Range<usize>]| {
        let span = label.span.range();
        places.iter().any(|place| span.start <= place.end && place.start <= span.end)
    };
    let is_stray = |finding: &&Diagnostic| {
        let is_rule = is_beyond(finding) || !matches!(finding.rule.family, Family::Reading | Family::Shape);
        let is_near = |label: &Label| at(label, &mutant.places) || is_rule && at(label, &mutant.parents);
        !old.contains(&known(finding))
            && !SEVERAL.contains(&finding.rule.name)
            && !finding.labels.iter().any(is_near)
    };
    found.diagnostics.iter().filter(is_stray).collect()
}

#[test]
fn validate_agrees_with_salt_and_jsonschema() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a whole number"))
    };
    let count = number("RUNSMITH_MUTATIONS", MUTATIONS as u64) as usize;
    let mut random = Random::new(number("RUNSMITH_SEED", 1));
    let pillars = pillars();
    assert!(pillars.len() >= 30, "only {} valid pillars", pillars.len());

    // First each pillar as it stands.
    let mut mutants: Vec<Mutant> = pillars.iter().map(|(name, text)| Mutant::none(name, text)).collect();
    let unbroken = mutants.len();
    let trees: Vec<(&String, &String, Tree)> =
        pillars.iter().map(|(name, text)| (name, text, Tree::read(text))).collect();
    while mutants.len() < unbroken + count {
        // The larger a pillar, the more there is to break in it.
        let (name, text, tree) = random.weighted(&trees, |(_, _, tree)| tree.size());
        mutants.extend(mutant::mutate(name, text, tree, &mut random));
    }

    let mut old: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
    for (name, text, tree) in &trees {
        for text in [(*text).clone(), mutant::bare(tree)] {
            let found = Found::of(text.into_bytes(), Format::Yaml, Dialect::Salt);
            old.entry(name).or_default().extend(found.diagnostics.iter().map(known));
        }
    }

    let verdicts = judge(&mutants.iter().map(|mutant| mutant.text.as_str()).collect::<Vec<_>>());
    let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut outcomes: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for (at, (mutant, verdict)) in mutants.iter().zip(&verdicts).enumerate() {
        let found = Found::of(mutant.text.clone().into_bytes(), Format::Yaml, Dialect::Salt);
        found.check_places();
        found.check_fixes();
        found.check_reports();
        let mut complain = |what: String| {
            let all: Vec<String> = found
                .diagnostics
                .iter()
                .map(|finding| {
                    let place = finding.span().map(|span| found.sources.place(span)).unwrap_or_default();
                    format!("{place} {}[{}] {}", finding.severity.word(), finding.rule, finding.message)
                })
                .collect();
            let told = format!(
                "{} in {}, at {:?}\n{}\nvalidate: {all:#?}\njsonschema: {verdict:#}\n",
                mutant.what, mutant.name, mutant.places, mutant.text
            );
            failures.entry(what).or_default().push(told);
        };
        if let Some(what) = disagreement(&found, verdict) {
            complain(what);
        }
        if at < unbroken {
            if found.is_wrong() || verdict["errors"].as_array().is_none_or(|errors| !errors.is_empty()) {
                complain("a valid pillar is none".to_owned());
            }
            continue;
        }
        for finding in strays(mutant, &found, &old[mutant.name.as_str()]) {
            complain(format!("`{}` is found elsewhere", finding.rule));
        }
        let outcome = match (found.is_wrong(), verdict["errors"] == json!([])) {
            (false, true) => "valid to both",
            (true, true) => "a rule",
            (_, false) if verdict.get("unreadable").is_some() => "unreadable to both",
            _ => "invalid to both",
        };
        *outcomes.entry((mutant.kind().to_owned(), outcome)).or_default() += 1;
    }
    let told: Vec<String> = failures
        .iter()
        .map(|(what, cases)| {
            let shortest = cases.iter().min_by_key(|case| case.len()).map_or("", String::as_str);
            format!("==== {what}: {} times, such as\n{shortest}", cases.len())
        })
        .collect();
    println!("{outcomes:#?}");
    assert!(
        told.is_empty(),
        "{}\n{:?}",
        told.join("\n"),
        failures.iter().map(|(what, cases)| (what, cases.len())).collect::<Vec<_>>()
    );

    // It was no idle test: each way of breaking came up, and so did each outcome.
    for kind in mutant::KINDS {
        let times: usize =
            outcomes.iter().filter(|((name, _), _)| name == kind).map(|(_, times)| times).sum();
        assert!(times * 20 >= count, "{kind}: only {times} times");
    }
    for outcome in ["valid to both", "a rule", "unreadable to both", "invalid to both"] {
        let times: usize =
            outcomes.iter().filter(|((_, name), _)| *name == outcome).map(|(_, times)| times).sum();
        assert!(times * 50 >= count, "{outcome}: only {times} times");
    }
}

/// What explains a difference is a rule that `runsmith rule` and docs/rules.md tell about.
#[test]
fn what_explains_a_difference_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/rules.md")).expect("docs/rules.md");
    for (name, why) in BEYOND {
        let rule = rule::named(name).unwrap_or_else(|| panic!("no rule is called {name}"));
        assert!(matches!(rule.family, Family::Reading | Family::Shape) && !why.is_empty());
    }
    for rule in rule::all() {
        assert!(
            page.contains(&format!("`{}`", rule.name)) || page.contains(&format!("# {}", rule.name)),
            "{rule}"
        );
    }
}
