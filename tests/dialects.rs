//! What the dialects read is compared with what Salt's and Ansible's own loaders read: on the texts
//! of `tests/dialects/cases.txt`, and on some thousand texts made of them.
//!
//! The loaders run in the virtual environments that `scripts/setup` makes.
#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by them")]

use runsmith::diagnostic::Severity;
use runsmith::pillar::{Dialect, Format, Int, MAX_DEPTH, Node, Value, parse};
use runsmith::source::{Source, SourceId};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const CASES: &str = include_str!("dialects/cases.txt");

/// What we refuse though the loaders read it, and why that is right: `docs/dialects.md` tells.
const REFUSALS: [&str; 7] =
    ["alias-bomb", "jinja", "recursive-alias", "renderer", "too-deep", "too-large", "vault-key"];

fn here(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dialects").join(file)
}

/// The cases as name and text.
fn cases() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let mut kind = "";
    let mut open: Option<(String, String)> = None;
    for (at, line) in CASES.lines().enumerate() {
        let name = format!("cases.txt:{}", at + 1);
        if let Some(section) = line.strip_prefix("=== ") {
            cases.extend(open.take());
            kind = section;
            if kind.starts_with("text ") {
                open = Some((name, String::new()));
            }
            continue;
        }
        match kind {
            "" => {}
            "values" => cases.push((name, format!("key: {line}\n"))),
            "lines" => cases.push((name, format!("{line}\n"))),
            "escaped" => cases.push((name, serde_json::from_str(line).expect("a JSON string"))),
            _ => {
                if let Some((_, text)) = &mut open {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    cases.extend(open);
    cases
}

/// What a loader says of each text.
fn load(loader: &str, texts: &[String]) -> Vec<Json> {
    let venvs = std::env::var("RUNSMITH_VENVS").unwrap_or("/var/lib/runsmith-test".into());
    let python = PathBuf::from(venvs).join(loader).join("bin/python");
    assert!(
        python.exists(),
        "{loader} is missing: no {}; `scripts/setup` installs it (RUNSMITH_VENVS names another place)",
        python.display()
    );
    let mut child = Command::new(python)
        .arg(here("load.py"))
        .arg(loader)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines: String = texts.iter().map(|text| format!("{}\n", json!(text))).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("Python ends");
    writer.join().expect("a thread").expect("Python reads all texts");
    assert!(output.status.success(), "load.py {loader} failed");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<Json> =
        out.lines().map(|line| serde_json::from_str(line).unwrap_or(json!({"unreadable": line}))).collect();
    assert_eq!(answers.len(), texts.len(), "{loader} answers every text");
    answers
}

/// A value as `load.py` writes it.
fn typed(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(Int::Small(value)) => json!({"int": value.to_string()}),
        Value::Int(Int::Big(text)) => json!({"int": text}),
        Value::Float(value) => {
            let text = match node.key_text().as_str() {
                "NaN" => "nan".to_owned(),
                "Infinity" => "inf".to_owned(),
                "-Infinity" => "-inf".to_owned(),
                text => text.to_owned(),
            };
            assert!(value.is_nan() || text.parse() == Ok(*value), "{text} is {value}");
            json!({"float": text})
        }
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => {
            json!({"bytes": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
        }
        Value::Timestamp(text) => json!({"time": text}),
        Value::Vault(text) => json!({"vault": text}),
        Value::List(items) => items.iter().map(typed).collect(),
        Value::Map(pairs) => {
            let pairs: Vec<Json> =
                pairs.iter().map(|pair| json!([typed(&pair.key), typed(&pair.value)])).collect();
            json!({"map": pairs})
        }
    }
}

/// Whether we read what a loader reads; a set has no order, and is a list for us.
fn same(theirs: &Json, ours: &Json) -> bool {
    match (theirs, ours) {
        (Json::Object(object), Json::Array(items)) if object.contains_key("set") => {
            let mut items: Vec<String> = items.iter().map(Json::to_string).collect();
            let mut set: Vec<String> =
                object["set"].as_array().expect("a list").iter().map(Json::to_string).collect();
            items.sort();
            set.sort();
            items == set
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|b| same(value, b)))
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => theirs == ours,
    }
}

/// Every span lies in the text, on characters, and inside the span of what it is part of.
fn check_spans(text: &str, node: &Node) {
    let slice = text.get(node.span.range()).unwrap_or_else(|| panic!("{:?} in {text:?}", node.span));
    if let (Value::Str(value), true) = (&node.value, matches!(node.style, runsmith::pillar::Style::Plain)) {
        let one_line = !slice.contains(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']);
        assert!(!one_line || slice == value, "{slice:?} is {value:?} in {text:?}");
    }
    let inside = |inner: &Node| {
        assert!(
            inner.via.is_some() || node.span.start <= inner.span.start && inner.span.end <= node.span.end,
            "{:?} in {:?} in {text:?}",
            inner.span,
            node.span
        );
        check_spans(text, inner);
    };
    match &node.value {
        Value::List(items) => items.iter().for_each(inside),
        Value::Map(pairs) => pairs.iter().for_each(|pair| {
            inside(&pair.key);
            inside(&pair.value);
        }),
        _ => {}
    }
}

/// Where we and a loader differ on a text, told in a few lines; nothing if we agree.
fn difference(dialect: Dialect, name: &str, text: &str, theirs: &Json) -> Option<String> {
    let source = Source::new(name, text);
    let ours = match parse(&source, SourceId(0), Format::Yaml, dialect) {
        Ok(parsed) => {
            parsed.documents.iter().for_each(|node| check_spans(text, node));
            let documents: Vec<Json> = parsed.documents.iter().map(typed).collect();
            json!({ "documents": documents })
        }
        Err(findings) => {
            assert!(!findings.is_empty() && findings.iter().all(|finding| finding.span().is_some()));
            if findings.iter().any(|finding| REFUSALS.contains(&finding.rule.name)) {
                return None;
            }
            if theirs.get("error").is_some() {
                return None;
            }
            json!({ "error": findings[0].message, "rule": findings[0].rule.name })
        }
    };
    let mut theirs = theirs.clone();
    // A document with nothing in it is none for us, and null for the loaders; so is one that says so.
    let mut ours_without_null = ours.clone();
    for side in [&mut theirs, &mut ours_without_null] {
        if let Some(documents) = side.get_mut("documents").and_then(Json::as_array_mut) {
            documents.retain(|document| !document.is_null());
        }
    }
    if same(&theirs, &ours_without_null) {
        return None;
    }
    Some(format!("{name} {dialect:?}\n  text   {}\n  theirs {theirs}\n  ours   {ours}", json!(text)))
}

fn compare(dialect: Dialect, loader: &str, cases: &[(String, String)]) {
    let texts: Vec<String> = cases.iter().map(|(_, text)| text.clone()).collect();
    let answers = load(loader, &texts);
    let differences: Vec<String> = cases
        .iter()
        .zip(&answers)
        .filter_map(|((name, text), theirs)| difference(dialect, name, text, theirs))
        .collect();
    let read = answers.iter().filter(|answer| answer.get("documents").is_some()).count();
    assert!(read * 5 > cases.len(), "only {read} of {} texts are YAML at all", cases.len());
    let shown = differences.iter().take(60).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {} differ:\n{shown}", differences.len(), cases.len());
}

#[test]
fn salt_reads_the_same() {
    let cases = cases();
    assert!(cases.len() > 500, "{} cases", cases.len());
    compare(Dialect::Salt, "salt", &cases);
}

#[test]
fn ansible_reads_the_same() {
    compare(Dialect::Ansible, "ansible", &cases());
}

/// Xorshift: the same texts everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

const PIECES: [&str; 74] = [
    "a",
    "b",
    "key",
    "x y",
    "1",
    "010",
    "0x1f",
    "1.5",
    "1:30",
    "~",
    "yes",
    "no",
    "true",
    "null",
    "=",
    "<<",
    "2026-01-01",
    "\"a b\"",
    "'it''s'",
    "\"\\n\\u00e9\"",
    "é",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    ":",
    ": ",
    ":\n",
    "- ",
    "-\n",
    "-",
    "? ",
    "?",
    ", ",
    ",",
    "[",
    "]",
    "{",
    "}",
    "[]",
    "{}",
    "&x ",
    "&y ",
    "*x",
    "*y ",
    "!",
    "! ",
    "!!str ",
    "!!int ",
    "!!set ",
    "!foo ",
    "|\n",
    ">\n",
    "|-\n",
    ">+\n",
    "|2\n",
    "|",
    ">",
    "#",
    " # c\n",
    "\n",
    "\n",
    "\n  ",
    "\n    ",
    "\n\n",
    " ",
    "  ",
    "\t",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "<<: *x\n",
    "\r\n",
    "\\",
];

/// Texts made of the cases by cutting, pasting and sprinkling, and some of pieces alone.
fn generated(count: usize, seed: u64) -> Vec<(String, String)> {
    let cases = cases();
    let mut dice = Dice(seed | 1);
    (0..count)
        .map(|number| {
            let mut text: Vec<char> = match dice.roll(3) {
                0 => Vec::new(),
                _ => dice.pick(&cases).1.chars().take(400).collect(),
            };
            let changes = if text.is_empty() { 4 + dice.roll(14) } else { 1 + dice.roll(5) };
            let fresh = text.is_empty();
            for _ in 0..changes {
                let at = if fresh { text.len() } else { dice.roll(text.len() + 1) };
                match if fresh { 0 } else { dice.roll(5) } {
                    0 | 1 => {
                        let piece: Vec<char> = dice.pick(&PIECES).chars().collect();
                        text.splice(at..at, piece);
                    }
                    2 => {
                        let end = (at + 1 + dice.roll(4)).min(text.len());
                        text.drain(at.min(end)..end);
                    }
                    3 => {
                        let other: Vec<char> = dice.pick(&cases).1.chars().take(60).collect();
                        text.splice(at..at, other);
                    }
                    _ => {
                        let end = (at + 1 + dice.roll(20)).min(text.len());
                        let copy: Vec<char> = text[at.min(end)..end].to_vec();
                        let to = dice.roll(text.len() + 1);
                        text.splice(to..to, copy);
                    }
                }
            }
            (format!("text {number} of seed {seed}"), text.into_iter().collect())
        })
        .collect()
}

/// `FUZZ_COUNT` and `FUZZ_SEED` ask for more, or for others.
fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn salt_reads_generated_texts_the_same() {
    let texts = generated(asked("FUZZ_COUNT", 3000) as usize, asked("FUZZ_SEED", 20_261_123));
    compare(Dialect::Salt, "salt", &texts);
}

#[test]
fn ansible_reads_generated_texts_the_same() {
    let texts = generated(asked("FUZZ_COUNT", 3000) as usize, asked("FUZZ_SEED", 20_261_124));
    compare(Dialect::Ansible, "ansible", &texts);
}

#[test]
fn depth_is_limited_where_the_loaders_still_read() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let read = |text: String| parse(&Source::new("x", text), SourceId(0), Format::Yaml, Dialect::Salt);
    assert!(read(nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(nested(MAX_DEPTH + 1)).expect_err("too deep")[0].rule.name, "too-deep");
}

/// A value as the page shows it.
fn shown(dialect: Dialect, text: &str) -> String {
    match parse(&Source::new("x", format!("key: {text}\n")), SourceId(0), Format::Yaml, dialect) {
        Err(findings) => match findings.iter().find(|finding| finding.severity == Severity::Error) {
            Some(finding) => format!("error: {}", finding.rule),
            None => "refused without an error".to_owned(),
        },
        Ok(parsed) => {
            let value = &parsed.documents[0].get("key").expect("there").value;
            let mut json = String::new();
            value.write_json(&mut json).expect("a string takes everything");
            let json = json.split_whitespace().collect::<Vec<_>>().join(" ");
            match value.value {
                Value::Timestamp(_) => format!("date `{json}`"),
                Value::Bytes(_) => format!("bytes `{json}`"),
                Value::Vault(_) => "encrypted".to_owned(),
                _ => format!("`{json}`"),
            }
        }
    }
}

#[test]
fn yaml_1_2_reads_what_its_specification_says() {
    for line in include_str!("dialects/yaml12.txt").lines().filter(|line| !line.starts_with('#')) {
        let (text, expected) = line.split_once(" => ").expect("TEXT => JSON");
        let read =
            parse(&Source::new("x", format!("key: {text}\n")), SourceId(0), Format::Yaml, Dialect::Yaml12);
        let found = match read {
            Err(_) => "error".to_owned(),
            Ok(parsed) => {
                let mut json = String::new();
                parsed.documents[0].get("key").expect("there").value.write_json(&mut json).expect("written");
                // On one line, as the case is.
                let words: Vec<&str> = json.lines().map(str::trim).collect();
                words.join(" ").replace("[ ", "[").replace(" ]", "]").replace("{ ", "{").replace(" }", "}")
            }
        };
        assert_eq!(found, expected, "{text}");
    }
}

/// The table of `docs/dialects.md` is what the code does; `make golden` rewrites it.
#[test]
fn the_page_shows_what_is_read() {
    const ROW: &str = "| `` ";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/dialects.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let mut rows = 0;
    let now: String = page
        .lines()
        .map(|line| {
            let Some(text) = line.strip_prefix(ROW).and_then(|rest| rest.split_once(" `` |")) else {
                return format!("{line}\n");
            };
            rows += 1;
            let text = text.0.replace("\\|", "|");
            let cells =
                [Dialect::Salt, Dialect::Ansible, Dialect::Yaml12].map(|dialect| shown(dialect, &text));
            format!("{ROW}{} `` | {} |\n", text.replace('|', "\\|"), cells.join(" | "))
        })
        .collect();
    assert!(rows > 50, "{rows} rows");
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&path, &now).expect("the page can be written");
    }
    assert!(
        page == now || std::env::var_os("RUNSMITH_BLESS").is_some(),
        "docs/dialects.md is out of date: make golden"
    );
}
