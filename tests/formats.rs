//! `validate` and what findings are printed as: golden outputs (`make golden` rewrites them), and
//! each format read back by somebody else's rules.

#![allow(clippy::disallowed_methods, reason = "tests are effects")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const FORMATS: &[(&str, &str)] = &[
    ("text", "txt"),
    ("json", "json"),
    ("github", "github.txt"),
    ("sarif", "sarif"),
    ("junit", "xml"),
    ("gitlab", "gitlab.json"),
];

/// A byte order mark, CRLF, tabs, wide characters, and secrets in places that findings are about.
const WRONG: &str = concat!(
    "\u{feff}# 漢字 😀\r\n",
    "unicorn:\r\n",
    "  defaults: {user: deploy, virtualenv_home: /home/deploy}\r\n",
    "  applications:\r\n",
    "    web:\r\n",
    "      environment: {\"漢字\": \"ok\", PI: 3.14}\r\n",
    "      umask:\t0022\t# tabs\r\n",
    "      secrets: {API_TOKEN: [hunter2-秘], OTHER: \"swordfish\"}\r\n",
    "      gunicorn: {wrokers: 4, timeout: \"100%, or: so\"}\r\n",
    "    web2:\r\n",
    "      handoff: {boot_timeout: \"<&\\x1b]0;\\u202e\\uFFFE\\r\\n::error::x\"}\r\n",
    "      bind: [\"8000\"]\r\n",
);

/// What cannot be read, with secrets where it breaks.
const BROKEN: &str = "application: web\nsecrets:\n  A: *hunter2-b\n  B: {swordfish\nuser: deploy\n";

const SECRETS: &[&str] = &["hunter2", "swordfish", "秘"];

fn scratch() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
    write("wrong: 100%,ä.yaml", WRONG);
    write("broken.sls", BROKEN);
    write(
        "good.yaml",
        "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\nbind: \"unix:/run/web.sock\"\n",
    );
    write(
        "good.json",
        r#"{"applications": {"a": {"user": "b", "virtualenv_home": "/h"}, "b": {"user": "b", "virtualenv_home": "/h", "bind": "127.0.0.1:8001"}}}"#,
    );
    write("warned.yaml", "application: web\napplication: web\nuser: deploy\nvirtualenv_home: /home/deploy\n");
    scratch
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
    command.current_dir(directory).arg("validate").args(arguments).env_remove("NO_COLOR");
    command
}

fn validate(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(directory, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// Both wrong pillars in one run.
fn wrong(format: &str) -> String {
    let arguments = ["broken.sls", "wrong: 100%,ä.yaml", "good.yaml", "--format", format];
    let (code, out, talk) = validate(scratch().path(), &arguments);
    let unjudged =
        "note: rules have looked only in part at 2 applications: fix the errors and validate again\n";
    let expected = if format == "text" { unjudged } else { "" };
    assert_eq!((code, talk.as_str()), (1, expected), "{out}");
    out
}

fn wrong_json() -> Value {
    serde_json::from_str(&wrong("json")).unwrap()
}

fn golden(ending: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format!("wrong.{ending}"))
}

#[test]
fn every_format_is_as_expected() {
    let mut differ = vec![];
    for (format, ending) in FORMATS {
        let have = wrong(format);
        if std::env::var_os("RUNSMITH_BLESS").is_some() {
            std::fs::write(golden(ending), &have).unwrap();
        }
        if std::fs::read_to_string(golden(ending)).unwrap_or_default() != have {
            differ.push(golden(ending));
        }
        assert_eq!(have, wrong(format), "{format} is the same every time");
    }
    assert_eq!(differ, Vec::<PathBuf>::new(), "run `make golden` and review the difference");
}

#[test]
fn no_format_shows_a_secret() {
    let scratch = scratch();
    for (format, _) in FORMATS {
        for colour in ["always", "never"] {
            let arguments = [".", "--format", format, "--color", colour];
            let output = command(scratch.path(), &arguments).output().unwrap();
            for text in [output.stdout, output.stderr] {
                let text = String::from_utf8(text).unwrap();
                for secret in SECRETS {
                    assert!(!text.contains(secret), "{format} shows {secret}:\n{text}");
                }
            }
        }
    }
    // Whoever else reads pillars says no more.
    for arguments in [["render", "broken.sls"], ["read", "broken.sls"], ["render", "wrong: 100%,ä.yaml"]] {
        let binary = env!("CARGO_BIN_EXE_runsmith");
        let output = Command::new(binary).current_dir(scratch.path()).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.is_empty() && SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    }
}

/// Nor does one let a file's name speak to a terminal.
#[test]
fn no_format_prints_control_characters_of_a_file_name() {
    let scratch = tempfile::tempdir().unwrap();
    let name = "a\u{1b}[31mb\nc\u{9b}d.yaml";
    std::fs::write(scratch.path().join(name), "application: web\nuser: deploy\numask: 0022\n").unwrap();
    for (format, _) in FORMATS {
        let (code, out, errors) = validate(scratch.path(), &["--format", format, name]);
        assert_eq!(code, 1, "{format}: {errors}");
        assert!(!out.contains(['\u{1b}', '\u{9b}']), "{format}: {out:?}");
    }
}

#[test]
fn places_are_those_of_the_text() {
    let mut seen = 0;
    for finding in wrong_json()["findings"].as_array().unwrap() {
        let place = &finding["place"];
        assert_eq!(place, &finding["labels"][0]["place"]);
        let number = |key: &str| place[key].as_u64().unwrap() as usize;
        let text = if place["path"] == "broken.sls" { BROKEN } else { WRONG };
        let bytes = &text[number("start_byte")..number("end_byte")];
        assert_eq!(number("line"), number("end_line"), "every place of this pillar is on one line");
        let line = text.trim_start_matches('\u{feff}').lines().nth(number("line") - 1).unwrap();
        let width = number("end_column") - number("column");
        let characters: String = line.chars().skip(number("column") - 1).take(width).collect();
        assert_eq!(characters, bytes, "{finding:#}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
    let findings = wrong_json();
    let files: BTreeSet<_> = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["place"]["path"].to_string())
        .collect();
    assert_eq!(files.len(), 2, "the complaints of both come together");
    assert_eq!(findings["summary"]["errors"].as_u64(), Some(seen));
    assert_eq!(findings["summary"]["files"], 3);
}

#[test]
fn sarif_is_what_oasis_says() {
    let schema = include_str!("schemas/sarif-2.1.0.json");
    let mut schema: Value = serde_json::from_str(schema).unwrap();
    // OASIS's pattern of a key that is not used here has a bracket too many, which the validator refuses.
    for definition in ["run", "toolComponent"] {
        let pattern = &mut schema["definitions"][definition]["properties"]["language"]["pattern"];
        assert_eq!(*pattern, "^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$");
        *pattern = "^[a-zA-Z]{2}(-[a-zA-Z]{2})?$".into();
    }
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let log: Value = serde_json::from_str(&wrong("sarif")).unwrap();
    let errors: Vec<_> = validator.iter_errors(&log).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut bad = log.clone();
    bad["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0.into();
    assert!(!validator.is_valid(&bad), "the schema looks at lines");

    let run = &log["runs"][0];
    let json = wrong_json();
    let findings = json["findings"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), findings.len());
    let mut prints = BTreeSet::new();
    for (result, finding) in results.iter().zip(findings) {
        assert_eq!(result["ruleId"], finding["rule"]);
        assert_eq!(
            run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize]["id"],
            finding["rule"]
        );
        let physical = &result["locations"][0]["physicalLocation"];
        let region = &physical["region"];
        for (have, want) in [
            ("startLine", "line"),
            ("startColumn", "column"),
            ("endLine", "end_line"),
            ("endColumn", "end_column"),
        ] {
            assert_eq!(region[have], finding["place"][want]);
        }
        let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
        assert!(["broken.sls", "wrong%3A%20100%25%2C%C3%A4.yaml"].contains(&uri), "{uri}");
        assert!(prints.insert(result["partialFingerprints"].to_string()), "unique");
    }
    let (_, clean, _) = validate(scratch().path(), &["good.yaml", "--format", "sarif"]);
    assert!(validator.is_valid(&serde_json::from_str(&clean).unwrap()), "{clean}");
}

#[test]
fn fingerprints_survive_lines_that_come_and_go() {
    let prints = |text: &str| {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("p.yaml"), text).unwrap();
        let (_, sarif, _) = validate(scratch.path(), &["./p.yaml", "--format", "sarif"]);
        let (_, gitlab, _) = validate(scratch.path(), &["p.yaml", "--format", "gitlab"]);
        let (sarif, gitlab): (Value, Value) =
            (serde_json::from_str(&sarif).unwrap(), serde_json::from_str(&gitlab).unwrap());
        let sarif: Vec<_> = sarif["runs"][0]["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["partialFingerprints"].clone())
            .collect();
        let gitlab: Vec<_> =
            gitlab.as_array().unwrap().iter().map(|issue| issue["fingerprint"].clone()).collect();
        assert!(sarif.len() > 3 && sarif.len() == gitlab.len());
        assert_eq!(
            gitlab.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(),
            gitlab.len(),
            "unique"
        );
        (sarif, gitlab)
    };
    let before = prints(WRONG);
    let shifted =
        WRONG.replace("unicorn:\r\n", "# more\n# and more\nunicorn:\n").replace("web:\r\n", "web:\n\n\n");
    assert_eq!(before, prints(&shifted));
    // Another value of a secret is no other finding: nobody can try values against the fingerprint.
    assert_eq!(before, prints(&WRONG.replace("hunter2-秘", "correct horse")));
    assert_ne!(before, prints(&WRONG.replace("wrokers", "wroker")));
}

#[test]
fn junit_is_read_by_a_parser() {
    let script = "import json, sys, xml.etree.ElementTree as t\n\
        root = t.fromstring(sys.stdin.buffer.read())\n\
        print(json.dumps([dict(root.attrib)] + [dict(c.attrib, children=[[e.tag, dict(e.attrib), e.text] for e in c]) for c in root.iter('testcase')]))";
    let parse = |xml: &str| -> Value {
        let mut python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed");
        std::io::Write::write_all(&mut python.stdin.take().unwrap(), xml.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{xml}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let report = parse(&wrong("junit"));
    assert_eq!((&report[0]["tests"], &report[0]["failures"]), (&"3".into(), &"2".into()));
    let cases: BTreeMap<_, _> = report.as_array().unwrap()[1..]
        .iter()
        .map(|case| (case["name"].as_str().unwrap(), &case["children"]))
        .collect();
    assert_eq!(cases["good.yaml"].as_array().unwrap().len(), 0);
    let failure = cases["wrong: 100%,ä.yaml"].as_array().unwrap();
    assert_eq!((failure.len(), failure[0][0].as_str()), (1, Some("failure")), "one for all");
    // The body is the text, finding by finding.
    let body = failure[0][2].as_str().unwrap();
    let text = wrong("text");
    assert!(body.len() > 500 && text.contains(body.trim_end()), "{body}\n----\n{text}");

    let scratch = scratch();
    let (code, xml, _) =
        validate(scratch.path(), &["warned.yaml", "--dialect", "ansible", "--format", "junit"]);
    let report = parse(&xml);
    assert_eq!(
        (code, &report[0]["failures"], &report[1]["children"][0][0]),
        (0, &"0".into(), &"system-out".into())
    );
}

#[test]
fn github_reads_what_was_meant() {
    let unescape = |text: &str| {
        text.replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%0D", "\r")
            .replace("%0A", "\n")
            .replace("%25", "%")
    };
    let (text, json) = (wrong("github"), wrong_json());
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(text.lines().count(), findings.len());
    for (line, finding) in text.lines().zip(findings) {
        let (head, message) = line.strip_prefix("::error ").unwrap().split_once("::").unwrap();
        let properties: BTreeMap<_, _> = head.split(',').map(|pair| pair.split_once('=').unwrap()).collect();
        let place = &finding["place"];
        assert_eq!(unescape(properties["file"]), place["path"]);
        for (have, want) in
            [("line", "line"), ("col", "column"), ("endLine", "end_line"), ("endColumn", "end_column")]
        {
            assert_eq!(properties[have], place[want].to_string());
        }
        assert_eq!(unescape(properties["title"]), format!("runsmith {}", finding["rule"].as_str().unwrap()));
        let message = unescape(message);
        let first = message.lines().next().unwrap();
        let visible = runsmith::visible::visible(finding["message"].as_str().unwrap()).into_owned();
        assert!(first.starts_with(&visible), "{first}");
        for help in finding["help"].as_array().unwrap() {
            assert!(message.contains(&format!("\nhelp: {}", help.as_str().unwrap())), "{message}");
        }
    }
}

#[test]
fn exit_codes_and_clean_runs() {
    let scratch = scratch();
    let run = |arguments: &[&str]| validate(scratch.path(), arguments);
    let clean = run(&["good.yaml", "good.json"]);
    assert_eq!(clean, (0, "no findings: 3 applications in 2 files\n".to_owned(), String::new()));
    let (code, out, talk) = run(&["warned.yaml", "--dialect", "ansible"]);
    assert!(
        code == 0
            && out.ends_with("\n1 warning in 1 file; `runsmith rule NAME` explains\n")
            && talk.is_empty(),
        "{out}{talk}"
    );
    for (format, want) in [("github", ""), ("gitlab", "[]\n")] {
        assert_eq!(run(&["good.yaml", "--format", format]), (0, want.to_owned(), String::new()));
    }
    let before: BTreeSet<_> =
        std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(run(&["good.yaml", "wrong: 100%,ä.yaml"]).0, 1);
    for arguments in
        [&["missing.yaml"][..], &["good.yaml", "--key", "no:such"], &["good.yaml", "--format", "xml"]]
    {
        let (code, out, talk) = run(arguments);
        assert!(code == 2 && out.is_empty() && !talk.is_empty(), "{out}{talk}");
    }
    let after: BTreeSet<_> =
        std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(before, after, "nothing is written");
}

#[test]
fn who_reads_one_line_only_is_no_trouble() {
    let scratch = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    let applications: String = (0..500).map(|number| format!("  a{number}: {{user: 1}}\n")).collect();
    std::fs::write(scratch.path().join("many.yaml"), format!("applications:\n{applications}")).unwrap();
    let mut child = command(scratch.path(), &["many.yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("error["), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), String::new()));
}

/// What a terminal of so many columns is sent.
fn on_terminal(directory: &Path, columns: usize, environment: &[(&str, &str)], arguments: &str) -> String {
    let line = format!("stty cols {columns}; exec {} validate {arguments}", env!("CARGO_BIN_EXE_runsmith"));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(directory)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("script is needed");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_what_fits_it() {
    let scratch = tempfile::tempdir().unwrap();
    let long = format!(
        "application: web\nuser: deploy\nvirtualenv_home: {}\numask: 0022\nx: {}1\n",
        "/漢".repeat(90),
        "\t".repeat(9)
    );
    std::fs::write(
        scratch.path().join("p.yaml"),
        long.replace("umask: 0022", &format!("umask: 0022 # {}", "漢".repeat(99))),
    )
    .unwrap();
    let coloured = on_terminal(scratch.path(), 50, &[], "p.yaml");
    assert!(coloured.contains("\u{1b}[1m"), "{coloured}");
    let plain = on_terminal(scratch.path(), 50, &[("NO_COLOR", "1")], "p.yaml");
    assert!(!plain.contains('\u{1b}') && plain.contains("error["), "{plain}");
    let lines: Vec<_> = plain.lines().filter(|line| line.contains(" | ")).collect();
    let width = |line: &str| line.chars().map(|c| if c < '\u{1100}' { 1 } else { 2 }).sum::<usize>();
    let excerpts: Vec<_> =
        lines.iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert!(!excerpts.is_empty() && excerpts.iter().all(|line| width(line) <= 50), "{plain}");
    assert!(
        on_terminal(scratch.path(), 140, &[("NO_COLOR", "1")], "p.yaml").lines().any(|line| width(line) > 60)
    );
    let json = on_terminal(scratch.path(), 50, &[], "p.yaml --format json");
    assert!(serde_json::from_str::<Value>(&json).is_ok(), "no colour in {json}");
}

#[test]
fn a_progress_line_comes_and_goes() {
    let scratch = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let text = format!(
            "application: a{number}\nuser: deploy\nvirtualenv_home: /home/deploy\nbind: \"127.0.0.1:{}\"\n",
            8000 + number
        );
        std::fs::write(scratch.path().join(format!("{number}.yaml")), text).unwrap();
    }
    let shown = on_terminal(scratch.path(), 80, &[], ".");
    assert!(shown.starts_with("\rreading 1 of 30 pillars\u{1b}[K"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[Kno findings: 30 applications in 30 files\n"), "{shown:?}");
    let few = on_terminal(scratch.path(), 80, &[], "1.yaml 2.yaml");
    assert_eq!(few, "no findings: 2 applications in 2 files\n");
    let (_, _, talk) = validate(scratch.path(), &["."]);
    assert_eq!(talk, "", "only a terminal is told");
}
