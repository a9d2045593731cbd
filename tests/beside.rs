//! What is found beside an error would be found without it, too: every key of the pillars that show the rules is
//! broken, and no rule may then find what it did not find before, when something right stood there.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "support/findings.rs"]
mod findings;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use findings::Found;
use runsmith::diagnostic::{Diagnostic, Severity};
use runsmith::pillar::{Dialect, Format, Node, Value, parse};
use runsmith::rule::Family;
use runsmith::source::{Source, SourceId};

fn found(text: &str) -> Found {
    Found::of(text.as_bytes().to_vec(), Format::Yaml, Dialect::Salt)
}

/// Whether a rule found it that looks at values which make a service.
fn is_of_rules(finding: &&Diagnostic) -> bool {
    use Family::{Addresses, Handoff, Limits, Paths, Secrets, Server, Times, Users};
    let families = [Addresses, Handoff, Limits, Paths, Secrets, Server, Times, Users];
    families.contains(&finding.rule.family)
}

fn is_broken(found: &Found) -> bool {
    let is_fixed =
        |one: &Diagnostic| one.severity == Severity::Error && !one.rule.is_switchable(one.severity);
    found.applications == 0 || found.diagnostics.iter().any(is_fixed)
}

/// What rules say, whatever number of characters stands before it.
fn said(found: &Found) -> BTreeSet<String> {
    let texts =
        |one: &Diagnostic| one.labels.iter().map(|label| label.text.clone()).collect::<Vec<_>>().join("; ");
    let rules = found.diagnostics.iter().filter(is_of_rules);
    rules.map(|one| format!("{}: {}: {}", one.rule, one.message, texts(one))).collect()
}

/// The pillars among the fixtures from which services can be made.
fn pillars() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let folders = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    };
    let mut pillars = vec![];
    for folder in folders(&root).into_iter().chain(folders(&root.join("rules"))) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if !is_broken(&found(&text)) {
                pillars.push((path, text));
            }
        }
    }
    pillars.sort();
    pillars
}

/// Where each key and its value stand.
fn pairs(node: &Node, pairs_found: &mut Vec<(Range<usize>, Range<usize>)>) {
    match &node.value {
        Value::Map(pairs_here) => {
            for pair in pairs_here.iter().filter(|pair| pair.key.via.is_none() && pair.value.via.is_none()) {
                pairs_found.push((pair.key.span.range(), pair.value.span.range()));
                pairs(&pair.value, pairs_found);
            }
        }
        Value::List(items) => items.iter().for_each(|item| pairs(item, pairs_found)),
        _ => {}
    }
}

/// A text broken at each of its keys in several ways.
fn broken(text: &str) -> Vec<String> {
    let source = Source::new("pillar", text);
    let parsed = parse(&source, SourceId(0), Format::Yaml, Dialect::Salt).unwrap();
    let mut places = vec![];
    parsed.documents.iter().for_each(|document| pairs(document, &mut places));
    let mut texts = vec![];
    for (key, value) in places {
        let replaced =
            |at: &Range<usize>, new: &str| format!("{}{new}{}", &text[..at.start], &text[at.end..]);
        let name = &text[key.clone()];
        for new in [format!("{name}{}", &name[name.len() - 1..]), "xyzzy".to_owned()] {
            texts.push(replaced(&key, &new));
        }
        // The blank is for a value that is empty.
        for new in [" [[]]", " -1.5", " \"\"", " x/../y"] {
            texts.push(replaced(&value, new));
        }
    }
    texts
}

#[test]
fn what_is_found_beside_an_error_was_there_before() {
    let mut new: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut tried, mut told) = (0, BTreeMap::<String, usize>::new());
    for (path, text) in pillars() {
        let before = said(&found(&text));
        for broken in broken(&text) {
            let found = found(&broken);
            if !is_broken(&found) || found.applications == 0 {
                continue;
            }
            tried += 1;
            for one in said(&found) {
                let rule = one.split(':').next().unwrap().to_owned();
                if before.contains(&one) {
                    *told.entry(rule).or_default() += 1;
                } else {
                    new.entry(rule).or_default().push(format!("{}: {one}\n{broken}", path.display()));
                }
            }
        }
    }
    println!("{tried} pillars: {told:#?}");
    for (rule, cases) in &new {
        let shortest = cases.iter().min_by_key(|case| case.len()).unwrap();
        println!("==== {rule}: {} times, such as {shortest}", cases.len());
    }
    assert!(new.is_empty(), "{:?}", new.keys());
    assert!(tried > 1000 && told.len() >= 12, "{tried} pillars: {told:?}");
}

/// Rules and what they are found beside, of a pillar with several mistakes.
fn rules_of(text: &str) -> BTreeSet<&'static str> {
    found(text).diagnostics.iter().map(|one| one.rule.name).collect()
}

#[test]
fn every_mistake_shows_in_one_run() {
    let base = "application: web\nvirtualenv_home: /home/deploy\n";
    for (rest, rules) in [
        ("user: deploy\nlimits: {nofile: 20}\nfrobnicate: 1\ngunicorn: {wokers: 4}\n", vec!["unknown-key"]),
        ("user: deploy\nlimits: {nofile: 20}\ngunicorn: {wokers: 4}\n", vec!["unknown-key", "tight-limit"]),
        ("user: deploy\nlimits: {nofile: 20}\ngunicrn: {workers: 4}\n", vec!["unknown-key"]),
        ("user: deploy\nlimits: {as: 20}\ngunicrn: {workers: 4}\n", vec!["unknown-key", "tight-limit"]),
        ("user: root\ngunicorn: {workers: many}\n", vec!["wrong-type", "user-root"]),
        ("user: root\nhome: deploy\nservice: {timeout: 0}\n", vec!["path", "user-root", "timeout-zero"]),
        ("user: deploy\nbind: [8000, 80]\nenvironment: {API_TOKEN: x}\n", vec!["wrong-type", "plain-secret"]),
        ("service: {timeout: 0}\n", vec!["missing-key", "timeout-zero"]),
    ] {
        assert_eq!(rules_of(&format!("{base}{rest}")), rules.into_iter().collect(), "{rest}");
    }
    // What is so by default, and told where the application is named, is not told.
    let text = format!("{base}user: deploy\nhome: /run/runsmith\n");
    assert_eq!(rules_of(&text), ["owned-path"].into());
    assert_eq!(rules_of(&format!("{text}umask: 22\n")), ["wrong-type"].into());
}

/// Whom rules have not looked at, and whom only in part.
#[test]
fn what_was_not_looked_at_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(
        scratch.path().join("p.yaml"),
        "defaults: {user: deploy, virtualenv_home: /home/deploy}\napplications: {a: {umask: 22}, b: {umask: 22}, c: 5, d: {}}\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .current_dir(&scratch)
        .args(["validate", "p.yaml"])
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        talk,
        "note: rules have looked only in part at 2 applications: fix the errors and validate again\n",
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
