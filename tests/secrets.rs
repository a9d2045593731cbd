//! No command shows a secret of a pillar, also of one that cannot be read: every way to break a pillar near a secret,
//! in every format.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and writes files")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const FORMATS: &[&str] = &["text", "json", "github", "sarif", "junit", "gitlab"];

/// What may not be seen. No key, file name or sentence of ours has it in it.
const SECRET: &str = "hunter2";

/// What is wrong, the ending of the file, and the text.
const BROKEN: &[(&str, &str, &str)] = &[
    ("a key twice on a line with secrets", "yaml", "secrets: {A: hunter2, A: hunter2x}\nuser: deploy\n"),
    (
        "a URL in the place of the application",
        "yaml",
        "application: a\nuser: d\nvirtualenv_home: /h\napp: https://bob:hunter2@db/x\n",
    ),
    (
        "a URL in the place of a name",
        "yaml",
        "unicorn:\n  defaults: {user: d, virtualenv_home: /h}\n  applications:\n    \"postgres://bob:hunter2@db/x\": {}\n",
    ),
    (
        "an option in a word of its own",
        "yaml",
        "{application: a, user: d, unicorn_command: [\"gunicorn\", \"--token\", hunter2], virtualenv_home: v}\n",
    ),
    (
        "an option of a command",
        "yaml",
        "{application: a, user: d, unicorn_command: gunicorn --password hunter2, virtualenv_home: v}\n",
    ),
    (
        "a string that connects",
        "yaml",
        "application: a\nuser: d\nvirtualenv_home: /h\nenvironment: {DB: \"host=x password=hunter2\", DB_PASS: hunter2x, 1X: a}\n",
    ),
    ("a key twice beside a secret", "yaml", "environment: {X: 1, X: 2, DB_PASSWORD: hunter2}\n"),
    ("an unclosed flow map", "yaml", "application: web\nsecrets: {A: hunter2\nuser: deploy\n"),
    ("an unclosed flow map of several lines", "yaml", "secrets: {\nA: hunter2,\nB: hunter2x\nuser: deploy\n"),
    ("brackets in quotes", "yaml", "secrets: {A: \"}\",\nB: hunter2\nuser: [\n"),
    ("a tag before the map", "yaml", "secrets: !!map {A: 1,\nB: hunter2\nuser: [\n"),
    ("a block scalar that is not indented", "yaml", "secrets:\n  A: |\nhunter2\nuser: deploy\n"),
    ("a block scalar indented too little", "yaml", "secrets:\n  A: |\n    x\n   hunter2\n user: deploy\n"),
    (
        "a key in PEM that is not indented",
        "yaml",
        "secrets:\n  A: |\n-----BEGIN PRIVATE KEY-----\nhunter2==\n-----END PRIVATE KEY-----\nuser: deploy\n",
    ),
    ("a quote in quotes", "yaml", "secrets:\n  A: 'it's hunter2'\nuser: deploy\n"),
    ("a quote that never ends", "yaml", "secrets:\n  A: \"hunter2\nuser: deploy\nhome: hunter2x\n"),
    ("an escape that YAML has not", "yaml", "secrets:\n  A: \"hunter2\\q\"\n"),
    ("a colon in a bare secret", "yaml", "secrets:\n  A: hunter2: x\n"),
    ("a tab", "yaml", "secrets:\n\tA: hunter2\n"),
    ("a tab below", "yaml", "secrets:\n  A: x\n\tB: hunter2\n"),
    ("a percent sign", "yaml", "secrets:\n  A: %hunter2\n"),
    ("a control character", "yaml", "secrets:\n  A: \u{1}hunter2\n"),
    ("Jinja", "yaml", "secrets:\n  A: \"{{ x }}hunter2\"\n"),
    ("bare Jinja", "yaml", "secrets:\n  A: {{ x }}hunter2\n"),
    ("Jinja that holds the secret", "yaml", "secrets:\n  A: {{ salt['x']('hunter2') }}\n"),
    ("Jinja that sets the secret", "yaml", "{% set db_password = 'hunter2' %}\nuser: deploy\n"),
    ("an undefined alias", "yaml", "secrets: {A: *hunter2}\n"),
    ("an undefined alias after a secret", "yaml", "environment: {API_TOKEN: hunter2, B: *nothing}\n"),
    ("an anchor of a secret", "yaml", "x: &a hunter2\nsecrets: {A: *a}\ny: [\n"),
    ("an anchor that is set twice", "yaml", "x: {y: &a 1, z: &a hunter2}\nsecrets: {A: *a}\n"),
    ("an unknown tag", "yaml", "secrets: {A: !foo hunter2}\n"),
    ("a bad integer", "yaml", "secrets: {A: !!int hunter2}\n"),
    ("a bad integer with an escape", "yaml", "secrets: {A: !!int \"hunter\\x32\"}\n"),
    ("bad base64", "yaml", "secrets: {A: !!binary hunter2}\n"),
    ("no separator", "yaml", "secrets:\n  A hunter2\n  B: x\n"),
    ("an explicit key", "yaml", "? secrets\n: {A: hunter2\n"),
    ("a comment inside", "yaml", "secrets:\n  # A: hunter2\n  A: [\n"),
    ("a comment that names one", "yaml", "user: [deploy # password: hunter2\n"),
    ("lost indentation", "yaml", "application: web\nsecrets:\nDB: hunter2\nuser: [\n"),
    ("bytes that are no UTF-8", "yaml", "secrets: {A: hunter2\u{fffd}}\n"),
    (
        "a password in a URL beside a mistake",
        "yaml",
        "environment: {URL: \"postgres://u:hunter2@h/db\", Y: yes}\n",
    ),
    (
        "a password in a URL that cannot be read",
        "yaml",
        "environment: {URL: postgres://u:hunter2@h/db, X: [\n",
    ),
    (
        "a comment behind the last secret",
        "yaml",
        "application: web\nsecrets: {A: x, B: 1.5} # hunter2\nuser: [\n",
    ),
    ("a comment behind secrets that can be read", "yaml", "secrets: {A: x, B: 1.5} # hunter2\n"),
    ("JSON without a comma", "json", "{\"secrets\": {\"A\": \"hunter2\" \"B\": \"hunter2x\"}}"),
    ("JSON with a quote in quotes", "json", "{\"secrets\": {\"A\": \"x\"hunter2\"}}"),
    ("JSON with a bad escape", "json", "{\"secrets\": {\"A\": \"hunter2\\q\"}}"),
    ("JSON without quotes", "json", "{\"secrets\": {\"A\": hunter2}}"),
    ("JSON that ends early", "json", "{\"secrets\": {\"A\": \"hunter2"),
    ("JSON with a comma too many", "json", "{\"secrets\": {\"A\": \"hunter2\",}}"),
    ("JSON with a key twice", "json", "{\"secrets\": {\"A\": \"hunter2\", \"A\": \"hunter2x\"}}"),
    ("JSON on lines", "json", "{\n\"secrets\": {\n\"A\": \"hunter2\"\n\"B\": 1\n}\n}\n"),
];

/// What can be read and has something wrong in it.
const WRONG: &[(&str, &str)] = &[
    ("secret", "secret: {A: hunter2}\n"),
    ("secert", "secert: {A: hunter2}\n"),
    ("Secrets", "Secrets: {A: hunter2}\n"),
    ("secrets_", "secrets_: {A: hunter2}\n"),
    ("screts with a scalar", "screts: hunter2\n"),
    ("a number", "environment: {DB_PASSWORD: 12.5, X: 1.5, MY_TOKEN: hunter2}\n"),
    ("names that say so", "gunicorn: {x_secret_x: hunter2, y: 1, apiKey: hunter2, sentry_dsn: hunter2}\n"),
    ("a string", "secrets: hunter2\n"),
    ("a folded string", "secrets: >\n  hunter2\n  hunter2\n"),
    ("a string with escapes", "secrets: \"hunter\\x32\"\n"),
    (
        "a string of many letters",
        "secrets: hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2\n",
    ),
    ("a list", "secrets: [hunter2]\n"),
    ("a list of lists", "secrets: {A: [hunter2, [hunter2]]}\n"),
    ("a map of maps", "secrets: {A: {B: hunter2}}\n"),
    ("a map for a variable", "environment: {DB_PASSWORD: {value: hunter2}}\n"),
    ("no blank after the colon", "secrets: {A:hunter2}\n"),
    ("no blank after the colon, several", "secrets: {A:hunter2, B: x, A=hunter2}\n"),
    ("no blank after the colon of a variable", "environment: {DB_PASSWORD:hunter2}\n"),
    ("no blank after the colon, on lines", "secrets:\n  A:hunter2\n"),
    ("a variable as a string", "environment: DB_PASSWORD=hunter2\n"),
    ("a variable as a string with escapes", "environment: \"DB_PASSWORD=hunter\\x32\"\n"),
    ("variables as a list", "environment: [\"DB_PASSWORD=hunter2\", \"X: 1\"]\n"),
    ("a misspelt section", "enviroment: {DB_PASSWORD: hunter2}\n"),
    ("lost indentation", "secrets:\nDB: hunter2\n"),
    ("a comment", "secrets:\n  # B: hunter2\n  A: [x]\nbnd: 1 # token: hunter2\n"),
    ("a NUL", "secrets: {A: \"hunter2\\0\"}\n"),
    ("a date", "secrets: {A: 2001-01-01, \"hunter2 \": 1.5}\n"),
    ("a neighbour", "secrets: {A: hunter2}\nbnd: 1\nhandoff: {boot_timeout: [\n 1]}\n"),
    ("by an alias", "extra: &e hunter2\nsecrets: {A: *e, B: [*e]}\n"),
    ("by a merge key", "extra: &e {B: hunter2}\nsecrets: {<<: *e, C: [1]}\n"),
];

/// The rest of a pillar, before what is wrong.
const GOOD: &str = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\nrunscript: 1\n";

fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
    command.current_dir(directory).args(arguments).env_remove("NO_COLOR").output().unwrap()
}

/// What it shows that it should not.
fn leaks(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = runsmith(directory, arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(!text.is_empty(), "{arguments:?} says nothing");
    text.contains(SECRET).then(|| format!("{}:\n{text}", arguments.join(" ")))
}

fn all_leaks(directory: &Path, file: &str) -> Vec<String> {
    let formats =
        FORMATS.iter().flat_map(|format| ["salt", "ansible", "yaml1.2"].map(|dialect| (format, dialect)));
    let mut found: Vec<_> = formats
        .filter_map(|(format, dialect)| {
            leaks(directory, &["validate", file, "--format", format, "--dialect", dialect])
        })
        .collect();
    found.extend(leaks(directory, &["render", file]));
    found.extend(leaks(directory, &["read", file]));
    found
}

#[test]
fn nothing_shows_a_secret_of_a_text_that_cannot_be_read() {
    let scratch = tempfile::tempdir().unwrap();
    let mut found = vec![];
    for (what, ending, text) in BROKEN {
        let file = format!("pillar.{ending}");
        // Whatever encoding that is.
        let bytes: Vec<u8> = text.chars().map(|c| if c == '\u{fffd}' { 0xff } else { c as u8 }).collect();
        std::fs::write(scratch.path().join(&file), bytes).unwrap();
        let output = runsmith(scratch.path(), &["validate", &file]);
        assert_eq!(output.status.code(), Some(1), "{what} is no mistake at all");
        found.extend(all_leaks(scratch.path(), &file).into_iter().map(|leak| format!("--- {what}\n{leak}")));
    }
    assert_eq!(found.len(), 0, "{}", found.join("\n"));
}

#[test]
fn nothing_shows_a_secret_of_a_pillar_with_mistakes() {
    let scratch = tempfile::tempdir().unwrap();
    let mut found = vec![];
    for (what, text) in WRONG {
        std::fs::write(scratch.path().join("pillar.yaml"), format!("{GOOD}{text}")).unwrap();
        let output = runsmith(scratch.path(), &["validate", "pillar.yaml"]);
        assert_eq!(output.status.code(), Some(1), "{what} is no mistake at all");
        found.extend(
            all_leaks(scratch.path(), "pillar.yaml").into_iter().map(|leak| format!("--- {what}\n{leak}")),
        );
    }
    assert_eq!(found.len(), 0, "{}", found.join("\n"));
}

/// A rendered run script that somebody has edited.
#[test]
fn nothing_shows_a_secret_of_a_run_script() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(
        scratch.path().join("pillar.yaml"),
        "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\nenvironment: {A: b}\n",
    )
    .unwrap();
    let output = runsmith(scratch.path(), &["render", "pillar.yaml", "--format", "json"]);
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut entries = tree["entries"].as_array().unwrap().iter();
    let run = entries.find(|entry| entry["path"] == "/etc/sv/web/run").unwrap()["content"].as_str().unwrap();
    let mut found = vec![];
    for edit in [
        "environment:\n  DB_PASSWORD: [hunter2]\n",
        "environment:\n  DB_PASSWORD: hunter2: x\n",
        "environment:\n  DB_PASSWORD: 'hunter2\n",
        "environment: DB_PASSWORD=hunter2\n",
        "environment: \"DB_PASSWORD=hunter\\x32\"\n",
        "secrets: hunter2\nenvironment:\n",
        "secrets: {A: hunter2}\nenvironment:\n",
        "DB_TOKEN: hunter2\nenvironment:\n",
        "environment:\n  DB_PASSWORD: !foo hunter2\n",
    ] {
        let (before, after) = run.split_once("environment:").unwrap();
        let rest: String = after.lines().skip(2).map(|line| format!("{line}\n")).collect();
        std::fs::write(scratch.path().join("run"), format!("{before}{edit}{rest}")).unwrap();
        assert_eq!(runsmith(scratch.path(), &["run", "--check", "run"]).status.code(), Some(1), "{edit}");
        found.extend(leaks(scratch.path(), &["run", "--check", "run"]));
    }
    assert_eq!(found.len(), 0, "{}", found.join("\n"));
}

/// `read` prints what a dialect reads, secrets only for who asks for them.
#[test]
fn read_masks_secrets() {
    let scratch = tempfile::tempdir().unwrap();
    let pillar = "unicorn: {applications: {web: {secrets: {A: hunter2, N: 1, E: null}, environment: {DB_PASSWORD: 12, B: x}}}}\n";
    std::fs::write(scratch.path().join("pillar.yaml"), pillar).unwrap();
    let read = |more: &[&str]| {
        let output = runsmith(scratch.path(), &[&["read", "pillar.yaml"], more].concat());
        assert_eq!(output.status.code(), Some(0));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        (value, String::from_utf8(output.stderr).unwrap())
    };
    let mask = "********";
    let web = |secrets: Value, password: Value| {
        json!({"unicorn": {"applications": {"web": {
            "secrets": secrets, "environment": {"DB_PASSWORD": password, "B": "x"},
        }}}})
    };
    let note = "note: secrets are masked; --show-secrets prints them\n".to_owned();
    let masked = web(json!({"A": mask, "N": mask, "E": null}), json!(mask));
    assert_eq!(read(&[]), (masked, note.clone()));
    let clear = web(json!({"A": "hunter2", "N": 1, "E": null}), json!(12));
    assert_eq!(read(&["--show-secrets"]), (clear, String::new()));
    assert_eq!(
        read(&["--key", "unicorn:applications:web:secrets"]),
        (json!({"A": mask, "N": mask, "E": null}), note)
    );
}
