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
    ("a key of the section at column 0", "yaml", "secrets:\n  SALT: x\nPEPPER: y\n  GARLIC: hunter2\n"),
    (
        "a key of the section that is indented too little",
        "yaml",
        "a:\n  secrets:\n      SALT: x\n    PEPPER: hunter2\n",
    ),
    ("a section without its colon", "yaml", "web:\n  secrets\n    SALT: hunter2\n"),
    ("an item at the level of the section", "yaml", "web:\n  secrets:\n    SALT: x\n  - PEPPER: hunter2\n"),
    (
        "a URL with expressions beside its password",
        "yaml",
        "environment:\n  A: postgres://{{ user }}:hunter2@{{ host }}/db\n",
    ),
    (
        "a URL with a password in an expression",
        "yaml",
        "environment:\n  A: postgres://u:{{ pw | default('hunter2') }}@h/db\n",
    ),
    ("a URL whose slashes JSON has escaped", "json", "{\"A\":\"postgres:\\/\\/u:hunter2@h\"},}\n"),
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
    ("a copy elsewhere", "yaml", "secrets: {X: hunter2zz}\nlist:\n- hunter2zz: {\n"),
    ("a copy of a value in quotes", "yaml", "secrets: {X: \"hunter2zz\"}\nlist:\n- [hunter2zz\n"),
    (
        "a copy of a value on a line of its own",
        "yaml",
        "secrets:\n  X: hunter2zz # why\nlist:\n- [hunter2zz\n",
    ),
    ("a copy in JSON", "json", "{\n\"secrets\": {\"A\": \"hunter2zz\"},\n\"b\": hunter2zz\n}\n"),
    ("an explicit key in quotes", "yaml", "? \"password\"\n: [hunter2\n"),
    ("an explicit key with a tag", "yaml", "? !!str password\n: [hunter2\n"),
    ("an explicit key on the next line", "yaml", "?\n  password\n: [hunter2\n"),
    ("a key with escapes", "yaml", "\"\\x73ecrets\": {A: hunter2\nuser: deploy\n"),
    ("a key with escapes of JSON", "json", "{\"pass\\u0077ord\": hunter2}"),
    ("a control character in a key", "yaml", "pass\u{b}word: hunter2\n"),
    ("a key that is no UTF-8", "yaml", "pass\u{ad}word: hunter2\n"),
    ("an unknown tag without a blank", "yaml", "password: !hunter2 x\n"),
    ("an unknown tag with an escape", "yaml", "password: !hunt%65r2 x\n"),
    ("an alias that is a password", "yaml", "user: x\npassword: *hunter2\n"),
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
    ("what does not show in a key", "gunicorn: {\"pass\\u200bword\": hunter2}\n"),
    ("what does not show in the name of the section", "\"secr\\u2060ets\": {A: hunter2}\n"),
    ("by an alias", "extra: &e hunter2\nsecrets: {A: *e, B: [*e]}\n"),
    ("by a merge key", "extra: &e {B: hunter2}\nsecrets: {<<: *e, C: [1]}\n"),
    ("overridden in a map that is merged", "environment: {<<: {DB_PASS: hunter2}, DB_PASS: b, X Y: 1}\n"),
    ("overridden in a list of maps", "environment: {<<: [{A: b}, {DB_PASS: hunter2}], DB_PASS: b, X Y: 1}\n"),
    ("pairs", "extra: !!pairs [{user: d}, {secrets: {A: hunter2}}]\n"),
    ("a set", "extra: !!set {a: {U: \"postgres://u:hunter2@h/x\"}}\n"),
    ("cut by a comma", "environment: {LANG: C, DB_PASS: Xk9,hunter2, N: 1}\n"),
    ("cut by a comma to what is no name", "environment: {LANG: C, DB_PASS: Xk9,2-hunter2, N: 1}\n"),
    ("cut by a comma below secrets", "secrets: {A: b, PEPPER: x,hunter2, Z: q}\n"),
    ("cut by a hash", "environment:\n  DB_PASS: a #hunter2\n  X Y: 1\n"),
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

/// A value that needs quotes and has none, and one that is written otherwise elsewhere, are masked as well.
#[test]
fn what_is_meant_is_masked_however_it_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let pillars = [
        (
            "application: shop\nuser: deploy\nvirtualenv_home: /h\nbad: 1\nsecrets:\n  DB: &hunter2hunter\n",
            "hunter2hunter",
        ),
        (
            "application: shop\nuser: deploy\nbad: 1\nsecrets: {DB: &hunter2hunter , A: &hunter2hunter x}\n",
            "hunter2hunter",
        ),
        (
            "application: shop\nuser: deploy\nenvironment:\n  DB_PASSWORD: &hunter2hunter\n  bad key: 1\n",
            "hunter2hunter",
        ),
        (
            "application: shop\nuser: deploy\nbad: 1\nsecrets: {PIN: 987_654_321}\nbind: 987654321\n",
            "987654321",
        ),
        (
            "application: shop\nuser: deploy\nbad: 1\nsecrets: {PIN: 0x3ADE68B1}\numask: 987654321\n",
            "987654321",
        ),
        (
            "application: shop\nuser: deploy\nbad: 1\nsecrets: {DB: \"postgres://u:hunt%40er2@h/d\"}\nbind: hunt@er2\n",
            "hunt@er2",
        ),
    ];
    for (pillar, secret) in pillars {
        std::fs::write(scratch.path().join("pillar.yaml"), pillar).unwrap();
        for format in ["text", "json", "github", "sarif", "junit", "gitlab"] {
            let output = runsmith(scratch.path(), &["validate", "pillar.yaml", "--format", format]);
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!shown.contains(secret), "{format} of\n{pillar}\nshows {secret}:\n{shown}");
        }
    }
}

/// Every command that shows what is in a pillar of the application `shop`; `old.yaml` is another one of it.
const SHOWING: &[&[&str]] = &[
    &["render"],
    &["render", "--format", "json"],
    &["render", "--diff", "--against", "old.yaml"],
    &["render", "--diff", "--against", "old.yaml", "--format", "json"],
    &["render", "--diff", "--against", "old.yaml", "--format", "markdown"],
    &["render", "--diff", "--against", "old.yaml", "--format", "patch"],
    &["render", "--explain", "/etc/sv/shop/run"],
    &["read"],
    &["validate"],
];

/// Settings that hold the secret `Hunter2xyzAbc` where the name of the key says nothing of it.
fn holding() -> Vec<Value> {
    vec![
        json!({"server": "any", "unicorn_command": "/usr/bin/my-server --token Hunter2xyzAbc", "bind": "unix:/run/shop/a.sock",
            "environment": {"GREETING": "say Hunter2xyzAbc"}}),
        json!({"gunicorn": {"access_log_format": "%(h)s token=Hunter2xyzAbc", "statsd_prefix": "postgres://u:Hunter2xyzAbc@h/x"},
            "environment": {"GREETING": "say Hunter2xyzAbc"}}),
        json!({"handoff": {"health_check": {"path": "/health?token=Hunter2xyzAbc"}}, "environment": {"A": "Hunter2xyzAbc"}}),
        // Split at blanks: each secret is a word by itself, whichever it is of.
        json!({"server": "any", "unicorn_command": "/usr/bin/my-server --token Aaaaaa11x --password Hunter2xyzAbc", "bind": "unix:/run/shop/a.sock"}),
        json!({"server": "any", "unicorn_command": "/usr/bin/my-server --token=Aaaaaa11x --password=Hunter2xyzAbc", "bind": "unix:/run/shop/a.sock"}),
        json!({"server": "any", "unicorn_command": "/usr/bin/my-server --token Hunter2xyzAbc --dsn postgres://u:Pw123456@h/db", "bind": "unix:/run/shop/a.sock"}),
        json!({"server": "any", "unicorn_command": "/usr/bin/my-server --dsn postgres://u:Pw123456@h/db --url postgres://u:Hunter2xyzAbc@h/db", "bind": "unix:/run/shop/a.sock"}),
        json!({"log": {"processor": "/usr/bin/ship --token Aaaaaa11x --password Hunter2xyzAbc"}}),
    ]
}

/// Not only variables hold secrets: a word of the command, a setting, the path of a health check. They are kept where they are, and shown
/// nowhere, and neither are copies of them.
#[test]
fn secrets_in_commands_settings_and_paths_are_masked_in_what_is_rendered() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("old.yaml"), "application: shop\nuser: deploy\nvirtualenv_home: /h\n")
        .unwrap();
    for mut pillar in holding() {
        for (key, value) in [("application", "shop"), ("user", "deploy"), ("virtualenv_home", "/h")] {
            pillar[key] = json!(value);
        }
        std::fs::write(scratch.path().join("p.json"), pillar.to_string()).unwrap();
        for arguments in SHOWING {
            let output = runsmith(scratch.path(), &[*arguments, &["p.json"]].concat());
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!shown.contains("Hunter2xyzAbc"), "{arguments:?} of {pillar}:\n{shown}");
        }
        // Rendered as it is for who asks for it.
        let output = runsmith(scratch.path(), &["render", "--show-secrets", "p.json"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Hunter2xyzAbc"));
    }
}

/// Of what lies on a disk nothing is known but the files.
#[test]
fn secrets_on_disk_are_masked_in_a_difference() {
    let all = holding().into_iter().chain([
        json!({"app": "wsgi:create(password='Hunter2xyzAbc')"}),
        json!({"gunicorn": {"logconfig_dict": {"version": 1, "handlers": {"console": {"class": "x.Y", "password": "Hunter2xyzAbc"}, "error_console": {"class": "x.Y"}}}}}),
        json!({"gunicorn": {"dogstatsd_tags": "api_key:Hunter2xyzAbc", "secure_scheme_headers": {"X-AUTH-TOKEN": "Hunter2xyzAbc"}}}),
        json!({"log": {"processor": "/usr/bin/curl -H 'Authorization: Bearer Hunter2xyzAbc' https://logs.example/"}}),
    ]);
    for (mut pillar, script) in all.flat_map(|pillar| [(pillar.clone(), "native"), (pillar, "shell")]) {
        let only_native = pillar.pointer("/handoff/health_check").is_some();
        if only_native && script == "shell" {
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        for (key, value) in [("application", "shop"), ("user", "root"), ("virtualenv_home", "/h")] {
            pillar[key] = json!(value);
        }
        pillar["run_script"] = json!(script);
        let text = pillar.to_string();
        std::fs::write(scratch.path().join("old.json"), &text).unwrap();
        let changed = text.replace("Hunter2xyzAbc", "Another9xyzQrs").replace("Aaaaaa11x", "Cccccc33z");
        std::fs::write(scratch.path().join("new.json"), changed).unwrap();
        std::fs::create_dir(scratch.path().join("empty")).unwrap();
        let output = runsmith(scratch.path(), &["render", "old.json", "--out", "full", "--allow", "all"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let differences = [
            ["render", "new.json", "--diff", "--root", "full"],
            ["render", "new.json", "--diff", "--against", "full"],
            ["render", "new.json", "--diff", "--root", "empty"],
            ["remove", "shop", "--diff", "--root", "full"],
        ];
        for arguments in differences {
            let formats: &[&str] = if arguments[0] == "remove" {
                &["text", "json"]
            } else {
                &["text", "json", "markdown", "patch"]
            };
            for format in formats {
                let output = runsmith(scratch.path(), &[&arguments[..], &["--format", format]].concat());
                assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
                let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                for secret in ["Hunter2xyzAbc", "Another9xyzQrs", "Aaaaaa11x", "Cccccc33z", "Pw123456"] {
                    assert!(
                        !shown.contains(secret),
                        "{secret} by {arguments:?} --format {format} of {text}:\n{shown}"
                    );
                }
            }
        }
    }
}

/// A variable that nobody wants any more lies on the disk until it is pruned, and other files may hold its value.
#[test]
fn a_secret_that_was_renamed_is_masked_in_a_difference() {
    let scratch = tempfile::tempdir().unwrap();
    let pillar = |rest: &str| format!("application: shop\nuser: root\nvirtualenv_home: /h\n{rest}");
    let write = |name: &str, rest: &str| std::fs::write(scratch.path().join(name), pillar(rest)).unwrap();
    write("old.yaml", "secrets: {API_TOKEN: Hunter2xyzAbc}\nenvironment: {M: is Hunter2xyzAbc}\n");
    write("new.yaml", "secrets: {API_TOK: Another9xyzQrs}\nenvironment: {M: x}\n");
    let output = runsmith(scratch.path(), &["render", "old.yaml", "--out", "full", "--allow", "all"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for prune in [&[][..], &["--prune"]] {
        let arguments = [&["render", "new.yaml", "--diff", "--root", "full"], prune].concat();
        let output = runsmith(scratch.path(), &arguments);
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(shown.contains("-  M:") && !shown.contains("Hunter2xyzAbc"), "{shown}");
    }
}

/// What a comment makes ordinary is shown of the file on the disk, too, and the patch has it.
#[test]
fn an_ordinary_value_on_disk_is_shown_in_a_difference() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, channel: &str| {
        let pillar = format!(
            "application: shop\nuser: root\nvirtualenv_home: /h\nenvironment:\n  CHANNEL: {channel}\n  \
             DSN: https://public1key@sentry/1 # runsmith: allow(plain-secret) because the key is public\n"
        );
        std::fs::write(scratch.path().join(name), pillar).unwrap();
    };
    write("old.yaml", "stable");
    write("new.yaml", "next");
    let output = runsmith(scratch.path(), &["render", "old.yaml", "--out", "full", "--allow", "all"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for format in ["text", "patch"] {
        let output =
            runsmith(scratch.path(), &["render", "new.yaml", "--diff", "--root", "full", "--format", format]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            shown.contains("+  CHANNEL: next") && shown.contains("https://public1key@sentry/1"),
            "{shown}"
        );
    }
}

/// Another part of the document has the secret, and the application a copy of it.
#[test]
fn a_secret_beside_the_applications_is_masked_in_what_is_rendered() {
    let scratch = tempfile::tempdir().unwrap();
    let base = "user: deploy, virtualenv_home: /h";
    let beside = |secret: &str| {
        [
            format!(
                "postgres: {{password: &pw {secret}}}\nunicorn: {{applications: {{shop: {{{base}, environment: {{PGCONN: *pw}}}}}}}}\n"
            ),
            format!(
                "defaults: {{environment: {{DB_PASS: {secret}}}}}\napplications: {{shop: {{{base}, environment: {{DB_PASS: null, N: {secret}}}}}}}\n"
            ),
            format!(
                "defaults: {{secrets: {{DB: {secret}}}}}\napplications: {{shop: {{{base}, secrets: {{DB: other11xx}}, environment: {{N: {secret}}}}}}}\n"
            ),
        ]
    };
    for (old, new) in beside("Hunter2xyzAbc").into_iter().zip(beside("Another9xyzQrs")) {
        std::fs::write(scratch.path().join("old.yaml"), &old).unwrap();
        std::fs::write(scratch.path().join("p.yaml"), &new).unwrap();
        for arguments in SHOWING {
            let output = runsmith(scratch.path(), &[*arguments, &["p.yaml"]].concat());
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            for secret in ["Hunter2xyzAbc", "Another9xyzQrs"] {
                assert!(!shown.contains(secret), "{secret} by {arguments:?} of {new}:\n{shown}");
            }
        }
    }
}

/// A value of several lines is several lines of a shell run script, in each of which a quote is written as a shell needs it.
#[test]
fn each_line_of_a_secret_is_masked_however_it_is_quoted() {
    let scratch = tempfile::tempdir().unwrap();
    let base = "application: shop\nuser: deploy\nvirtualenv_home: /h\n";
    std::fs::write(scratch.path().join("old.yaml"), base).unwrap();
    const PARTS: [&str; 6] = ["Zq9one", "two-Kp", "Xw8three", "four-Lm", "Bv7five", "six-Tr"];
    let value = "Zq9one'two-Kp\\nXw8three'four-Lm\\nBv7five\\\"#\\\\six-Tr";
    for script in ["shell", "native"] {
        let pillar = format!(
            "{base}run_script: {script}\nsecrets: {{KEY: \"{value}\"}}\nenvironment: {{NOTE: \"is {value}\\nright\"}}\n"
        );
        std::fs::write(scratch.path().join("p.yaml"), pillar).unwrap();
        for arguments in SHOWING {
            let output = runsmith(scratch.path(), &[*arguments, &["p.yaml"]].concat());
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            for part in PARTS {
                assert!(!shown.contains(part), "{part} by {arguments:?} of a {script} script:\n{shown}");
            }
        }
    }
}

/// What one file calls a secret is masked in the corrections of another one.
#[test]
fn corrections_have_the_secrets_of_all_files_masked() {
    let scratch = tempfile::tempdir().unwrap();
    let secrets = "application: a\nuser: deploy\nvirtualenv_home: /h\nsecrets: {DB: Hunter2xyzAbc}\n";
    let wrong = "application: b\nuser: deploy\nvirtualenv_home: /h\nenvironment: {GREETING: say-Hunter2xyzAbc, FLAG: 0o17}\n\
                 bind: 127.0.0.1:9\n";
    std::fs::write(scratch.path().join("s.yaml"), secrets).unwrap();
    std::fs::write(scratch.path().join("w.yaml"), wrong).unwrap();
    let output =
        runsmith(scratch.path(), &["validate", "--fix", "--diff", "--unsafe-fixes", "s.yaml", "w.yaml"]);
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(shown.contains("GREETING") && !shown.contains("Hunter2xyzAbc"), "{shown}");
}

/// A character that does not show, as it comes along when a value is pasted: each language writes it in its own way.
#[test]
fn a_value_with_what_does_not_show_is_masked_in_every_output() {
    let scratch = tempfile::tempdir().unwrap();
    for hidden in [
        "\u{200b}",
        "\u{feff}",
        "\u{ad}",
        "\u{202e}",
        "\u{2028}",
        "\u{85}",
        "\u{7f}",
        "\u{7}",
        "\u{1b}",
        "\u{e0041}",
    ] {
        let secret = format!("Zq9Xw{hidden}K7mm2");
        let pillar = json!({
            "application": "shop", "user": "deploy", "virtualenv_home": "/h", "secrets": {"A": secret},
            "environment": {"PLAIN": format!("pre {secret}")}, "unicorn_command": ["gunicorn", "-n", secret],
            "gunicorn": {"access_log_format": secret},
        });
        std::fs::write(scratch.path().join("pillar.json"), pillar.to_string()).unwrap();
        std::fs::write(
            scratch.path().join("old.yaml"),
            "application: shop\nuser: deploy\nvirtualenv_home: /h\n",
        )
        .unwrap();
        for arguments in SHOWING {
            let output = runsmith(scratch.path(), &[*arguments, &["pillar.json"]].concat());
            let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(
                !shown.is_empty() && !shown.contains("Zq9Xw") && !shown.contains("K7mm2"),
                "{arguments:?} {hidden:?}:\n{shown}"
            );
        }
    }
}

/// Kinds of secrets, as variables of an application. What stands for the secret in each has SECRET in it.
const KINDS: &[(&str, &str)] = &[
    ("DB_PASSWORD", "hunter2"),
    ("DBPASSWORD", "hunter2"),
    ("MYSQL_PASSWD", "hunter2"),
    ("SMTP_PWD", "hunter2"),
    ("DB_PASS", "hunter2"),
    ("DBPASS", "hunter2"),
    ("PGPASSWORD", "hunter2"),
    ("KEY_PASSPHRASE", "hunter2"),
    ("ADMIN_PW", "hunter2"),
    ("SECRET_KEY_BASE", "hunter2"),
    ("CLIENT_SECRET", "hunter2"),
    ("clientSecret", "hunter2"),
    ("API_KEY", "hunter2"),
    ("apiKey", "hunter2"),
    ("APIKEY", "hunter2"),
    ("STRIPE_KEY", "hunter2"),
    ("SIGNING_KEYS", "hunter2"),
    ("ENCRYPTION_KEY_OLD", "hunter2"),
    ("ACCESS_TOKEN", "hunter2"),
    ("AUTH_TOKENS", "hunter2"),
    ("SENTRY_DSN", "https://hunter2@sentry/1"),
    ("AWS_CREDENTIALS", "hunter2"),
    ("SERVICE_CREDS", "hunter2"),
    ("AUTHORIZATION", "hunter2"),
    ("DATABASE_URL", "postgres://u:hunter2@h/db"),
    ("CACHE", "redis://:hunter2@h/0"),
    ("PROXY", "see http://u:hunter2@proxy:3128 for it"),
    ("DSN_OF_JDBC_1", "jdbc:x?user=u&password=hunter2"),
    ("CONNECTION", "host=db password=hunter2 user=u"),
    ("ODBC", "Server=x;Password='hunter2';"),
    ("JSON", "{\"auth_token\": \"hunter2\"}"),
    ("OPTIONS", "--verbose --password hunter2"),
    ("OPTION", "--api-key=hunter2"),
    ("HEADER", "Authorization: Bearer hunter2"),
    ("PEM", "-----BEGIN RSA PRIVATE KEY-----\nhunter2==\n-----END RSA PRIVATE KEY-----"),
    ("GITHUB", "ghp_hunter2abcdefghijABCDEFGHIJ0123456789"),
    ("GITLAB", "glpat-hunter2abcdefghij0123"),
    ("SLACK", "xoxb-hunter2abcdefghij0123"),
    ("STRIPE", "sk_live_hunter2abcdefghij0123"),
    ("JWT", "eyJhunter2bGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlc2ln"),
    ("MASTERKEY", "hunter2"),
    ("ENCRYPTIONKEY", "hunter2"),
    ("PASS1", "hunter2"),
    ("PASSWORD2", "hunter2"),
    ("AUTH_JWT", "hunter2"),
    ("HTTP_BASIC_AUTH", "u:hunter2"),
    ("SESSION_COOKIE", "hunter2"),
    ("OTP_SEED", "hunter2"),
    ("APP_SESSION_KEY", "hunter2abcdefghij0"),
    ("DOLLAR_PASSWORD", "$hunter2"),
    ("DEFAULT_OF_A_SHELL", "password=${X:-hunter2}"),
    ("COMMAND_OF_A_SHELL", "password=$(echo hunter2)"),
    ("MARKUP", "password=<b>hunter2"),
    ("URL_WITH_SIGNS", "postgres://u:hunter2/x#y?z@h/db"),
    ("URL_WITH_BLANK", "postgres://u:hunter2 x@h/db"),
    ("URL_WITH_USER", "https://hunter2abcdefghij0123@h/x"),
    ("NEXT_LINE", "db_password:\n  hunter2\n"),
    ("TWO_SIGNS", "password==hunter2"),
    ("RUBY", ":password => 'hunter2'"),
    ("ESCAPED", "{\\\"password\\\":\\\"hunter2\\\"}"),
    ("XML", "<password>hunter2</password>"),
    ("NETRC", "machine h login u password hunter2"),
    ("SQL", "ALTER ROLE x WITH PASSWORD 'hunter2'"),
    ("MYSQL", "CREATE USER x IDENTIFIED BY 'hunter2'"),
    ("PYPI", "pypi-AgEIcHlwaS5vcmchunter2"),
    ("AGE_OF_X", "AGE-SECRET-KEY-1hunter2ABCDEFGHIJ"),
    (
        "SSH",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nhunter2==\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
    ),
];

/// Variables that look like secrets and are none. Each value has `plainNx` in it, where N is its place.
const LOOK_ALIKES: &[(&str, &str)] = &[
    ("KEYBOARD", "plain0x"),
    ("PUBLIC_KEY", "plain1x"),
    ("public_key_path", "/x/plain2x"),
    ("PUBLIC_KEY_PATH", "/x/plain3x"),
    ("TOKEN_URL", "https://plain4x/token"),
    ("PASSWORD_MIN_LENGTH", "plain5x"),
    ("SECRETARY", "plain6x"),
    ("MONKEY", "plain7x"),
    ("TURKEY", "plain8x"),
    ("KEYSTONE", "plain9x"),
    ("TOKENIZER", "plain10x"),
    ("BROKEN", "plain11x"),
    ("COMPASS", "plain12x"),
    ("PASSENGER", "plain13x"),
    ("BYPASS", "plain14x"),
    ("OLD_PWD", "plain15x"),
    ("MAX_TOKENS", "plain16x"),
    ("USE_PASSWORD", "plain17x"),
    ("AWS_ACCESS_KEY_ID", "plain18x"),
    ("SSL_KEY_FILE", "plain19x"),
    ("SSL_KEY", "/etc/ssl/plain20x.key"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/app/plain21x.json"),
    ("PRIMARY_KEY", "plain22x"),
    ("SORT_KEY", "plain23x"),
    ("CACHE_KEY", "plain24x"),
    ("KEY", "plain25x"),
    ("SECRET_NAME", "plain26x"),
    ("TOKEN_TTL", "plain27x"),
    ("PASSWORD_RESET_TIMEOUT", "plain28x"),
    ("SESSION_TOKEN_HEADER", "plain29x"),
    ("CSRF_TOKEN_NAME", "plain30x"),
    ("PASSWORD_HASHERS", "plain31x"),
    ("DATABASE_HOST", "postgres://plain32x/db"),
    ("USER_AT", "http://plain33x@host/"),
    ("FILLED_IN", "password=${plain34x}"),
    ("PROSE", "your password: at least plain35x letters"),
    ("ORDER", "order=key:plain36x"),
    ("CERTIFICATE", "-----BEGIN CERTIFICATE-----\nplain37x\n-----END CERTIFICATE-----"),
    ("SHORT_FORM", "ghp_plain38x"),
    ("SKETCH", "sk-plain39x-is-a-branch-of-a-repository"),
    ("NO_PASSWORD", "plain40x"),
    ("PASS_THROUGH", "plain41x"),
    ("PASSTHROUGH", "plain42x"),
    ("PASSWORDLESS", "plain43x"),
    ("SECRET_MANAGER", "plain44x"),
    ("SESSION_KEY", "plain45x"),
    ("A_VARIABLE", "password=$TOKEN plain46x"),
    ("SHELL_TOKEN", "${token_plain47x}"),
    ("COMPARED", "token == plain48x"),
    ("EMPTY_FIELDS", "password:\nusername: plain49x\n"),
    ("HOST_AND_PORT", "https://plain50x:80/x?y=a@b"),
    ("TO_BE_REPLACED", "mysql -p <password> plain51x"),
    ("IDENTIFIED", "users are identified by plain52x"),
    ("SSH_USER", "ssh://deploy-user-plain53x@host/x"),
];

/// Every output of every command that has the pillar's values in it.
const COMMANDS: &[&[&str]] = &[
    &["validate", "p.yaml"],
    &["validate", "--format", "json", "p.yaml"],
    &["validate", "--format", "github", "p.yaml"],
    &["validate", "--format", "sarif", "p.yaml"],
    &["validate", "--format", "junit", "p.yaml"],
    &["validate", "--format", "gitlab", "p.yaml"],
    &["validate", "--fix", "--diff", "p.yaml"],
    &["read", "p.yaml"],
    &["render", "p.yaml"],
    &["render", "--format", "json", "p.yaml"],
    &["render", "p.yaml", "--diff", "--against", "empty"],
    &["render", "p.yaml", "--diff", "--against", "empty", "--format", "patch"],
    &["render", "p.yaml", "--diff", "--against", "empty", "--format", "markdown"],
    &["render", "p.yaml", "--diff", "--against", "empty", "--format", "json"],
    &["render", "p.yaml", "--explain", "/etc/sv/web/run"],
    &["render", "p.yaml", "--explain", "/etc/sv/web/run", "--format", "json"],
    &["render", "p.yaml", "--explain", "/etc/sv/web/env/DB_PASS"],
];

#[test]
fn no_output_shows_any_kind_of_secret_and_each_look_alike_is_shown() {
    assert!(KINDS.len() >= 40 && LOOK_ALIKES.len() >= 40);
    for script in ["native", "shell"] {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("empty")).unwrap();
        let all: serde_json::Map<String, Value> =
            KINDS.iter().chain(LOOK_ALIKES).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let pillar = json!({"application": "web", "user": "deploy", "virtualenv_home": "/home/deploy",
            "run_script": script, "environment": all});
        // JSON, line by line, is YAML.
        std::fs::write(scratch.path().join("p.yaml"), format!("{pillar:#}\n")).unwrap();
        // The findings of `validate` do not quote it, and it has no file of its own any more.
        let shows = |words: &&&[&str]| words[0] != "validate" && !words.contains(&"/etc/sv/web/env/DB_PASS");
        for arguments in COMMANDS.iter().filter(shows) {
            let output = runsmith(scratch.path(), arguments);
            let all = [&output.stdout[..], &output.stderr].concat();
            let text = String::from_utf8_lossy(&all);
            assert_ne!(output.status.code(), Some(2), "{arguments:?}: {text}");
            let line = text.lines().find(|line| line.contains(SECRET));
            assert_eq!(line, None, "{script}: {arguments:?} shows a secret");
            if arguments.iter().any(|word| *word == "validate" || word.starts_with("/etc/sv/web/env")) {
                continue;
            }
            for (at, (name, _)) in LOOK_ALIKES.iter().enumerate() {
                assert!(text.contains(&format!("plain{at}x")), "{script}: {arguments:?} masks {name}");
            }
        }
        // Every user may read the run script, and only root the files beside it.
        let output = runsmith(scratch.path(), &["render", "p.yaml", "--format", "json", "--show-secrets"]);
        let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
        let holding = |entry: &&Value| entry["content"].as_str().is_some_and(|text| text.contains(SECRET));
        let entries: Vec<&Value> = tree["entries"].as_array().unwrap().iter().filter(holding).collect();
        assert_eq!(entries.len(), KINDS.len(), "{script}");
        for entry in entries {
            assert_eq!((&entry["mode"], &entry["owner"]), (&json!("0600"), &json!("root")), "{entry}");
        }
    }
}

#[test]
fn a_comment_with_a_reason_makes_a_value_ordinary_everywhere() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("empty")).unwrap();
    for (reason, is_shown) in [(" because a browser is sent it", true), ("", false)] {
        let text = format!(
            "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\nenvironment:\n  SENTRY_DSN: https://hunter2@sentry/1 # runsmith: allow(plain-secret){reason}\n"
        );
        std::fs::write(scratch.path().join("p.yaml"), text).unwrap();
        for arguments in
            COMMANDS.iter().filter(|words| words[0] != "validate" && words.len() != 4 || words[0] == "read")
        {
            if arguments.contains(&"/etc/sv/web/env/DB_PASS") {
                continue;
            }
            let output = runsmith(scratch.path(), arguments);
            let all = [&output.stdout[..], &output.stderr].concat();
            let text = String::from_utf8_lossy(&all);
            assert_eq!(text.contains(SECRET), is_shown, "{arguments:?} {reason:?}: {text}");
        }
    }
}

/// A pillar whose secret is a part of a value that is not secret, too. It has a second secret that is a part of everything.
const TWICE: &str = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\n\
    secrets: {A: hunter2-value, URL: 'postgres://u:hunter2-pass@h/db', LEVEL: '1'}\n\
    environment: {NOTE: is NUMBER hunter2-value right, DB: pass hunter2-pass on, VERSION: '1.1'}\n";

#[test]
fn the_value_of_a_secret_is_masked_wherever_else_it_is() {
    for script in ["native", "shell"] {
        let scratch = tempfile::tempdir().unwrap();
        for directory in ["empty", "old"] {
            std::fs::create_dir(scratch.path().join(directory)).unwrap();
        }
        let text = format!("{TWICE}run_script: {script}\n");
        std::fs::write(scratch.path().join("p.yaml"), text.replace("NUMBER", "2")).unwrap();
        std::fs::write(scratch.path().join("old/p.yaml"), text.replace("NUMBER", "1")).unwrap();
        let diffs = ["text", "json", "markdown", "patch"]
            .map(|format| vec!["render", "p.yaml", "--diff", "--against", "old", "--format", format]);
        let commands = COMMANDS.iter().map(|words| words.to_vec()).chain(diffs);
        for arguments in commands.filter(|words| !words.contains(&"/etc/sv/web/env/DB_PASS")) {
            let output = runsmith(scratch.path(), &arguments);
            let all = [&output.stdout[..], &output.stderr].concat();
            let text = String::from_utf8_lossy(&all);
            assert_ne!(output.status.code(), Some(2), "{arguments:?}: {text}");
            assert!(!text.contains(SECRET), "{script}: {arguments:?} shows a secret: {text}");
            // A patch or a tree without them is for nobody to apply: what holds one is left out as a whole.
            let is_whole = !text.contains("left out") && !text.contains("\"secret\":true");
            if arguments[0] != "validate" && !arguments.contains(&"old") && is_whole {
                assert!(text.contains("1.1"), "{arguments:?} masks what is short: {text}");
            }
            if arguments.contains(&"--show-secrets") {
                continue;
            }
            let shown = runsmith(scratch.path(), &[&arguments[..], &["--show-secrets"]].concat());
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            if arguments[0] != "validate" {
                assert!(shown.contains(SECRET), "{script}: {arguments:?} --show-secrets hides it: {shown}");
            }
        }
        let tree = runsmith(scratch.path(), &["render", "p.yaml", "--format", "json"]);
        let note = String::from_utf8(tree.stderr).unwrap();
        assert!(note.contains("1 file that is not secret holds the value of a secret"), "{note}");
        let tree: Value = serde_json::from_slice(&tree.stdout).unwrap();
        let run =
            tree["entries"].as_array().unwrap().iter().find(|one| one["path"] == "/etc/sv/web/run").unwrap();
        assert_eq!((&run["secret"], &run["content"]), (&json!(true), &Value::Null), "{run}");
        let patch = runsmith(
            scratch.path(),
            &["render", "p.yaml", "--diff", "--against", "old", "--format", "patch"],
        );
        let patch = String::from_utf8(patch.stdout).unwrap();
        assert!(patch.contains("# /etc/sv/web/run: its changes show a secret; they are left out"), "{patch}");
    }
}

/// A template that fails may quote what it was given.
#[test]
fn a_template_that_fails_shows_no_secret() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("templates")).unwrap();
    std::fs::write(scratch.path().join("p.yaml"), TWICE).unwrap();
    let unknown = format!("{{{{ service[\"{SECRET}-value\"] }}}}");
    for (body, why) in [("{{ body | round }}", "cannot round value"), (&unknown, "the model does not have")] {
        let template = format!("#!/x\n# {{{{ managed }}}}\n{body}\n");
        std::fs::write(scratch.path().join("templates/run-native"), template).unwrap();
        for more in [&[][..], &["--diff", "--against", "."]] {
            let output =
                runsmith(scratch.path(), &[&["render", "p.yaml", "--templates", "templates"], more].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(why) && !text.contains(SECRET), "{text}");
        }
    }
}

/// A finding is about a value that is a secret elsewhere, too, and quotes a piece of it: a port, an option, a step of a path.
#[test]
fn findings_quote_no_piece_of_a_secret() {
    /// What may not be seen: too short to be looked for elsewhere, and nothing else has them in it.
    const PIECES: [&str; 4] = ["hunter2", "qz7", "kx9", "99997"];
    let scratch = tempfile::tempdir().unwrap();
    let cases = [
        ("a port", "secrets: {A: &x \"hunter2:99997\"}\nbind: *x\n"),
        ("a port, written again", "secrets: {A: \"hunter2:99997\"}\nbind: \"hunter2:99997\"\n"),
        ("a port, written otherwise", "secrets: {A: \"hunter2:99997\"}\nbind: \"hunter2\\x3a99997\"\n"),
        (
            "a port, written otherwise first",
            "secrets: {A: \"hunter2\\x3a99997\"}\nbind: [\"hunter2:99997\"]\n",
        ),
        ("a host", "secrets: {A: &x \"qz7!:80\"}\nbind: [*x]\n"),
        ("an address that is there twice", "secrets: {A: &x \"qz7:81\"}\nbind: [*x, *x]\n"),
        ("a port without a host", "secrets: {A: &x \":qz7\"}\nbind: *x\n"),
        ("a module", "secrets: {A: &x qz7.py:kx9}\napp: *x\n"),
        ("an attribute", "secrets: {A: &x \"qz7:kx9(\"}\napp: *x\n"),
        ("a file of Ruby", "secrets: {A: &x qz7-kx9}\napp: *x\nunicorn_command: unicorn\n"),
        ("a format", "secrets: {A: &x \"%(qz7)y kx9\"}\ngunicorn: {access_log_format: *x}\n"),
        ("a network", "secrets: {A: &x \"10.0.0.0/8,qz7\"}\ngunicorn: {forwarded_allow_ips: *x}\n"),
        ("an option", "secrets: {A: &x \"gunicorn --qz7 kx9\"}\nunicorn_command: *x\n"),
        ("an option of unicorn", "secrets: {A: &x \"unicorn --qz7=1 kx9\"}\nunicorn_command: *x\n"),
        ("a value of an option", "secrets: {A: &x \"gunicorn -w qz7\"}\nunicorn_command: *x\n"),
        ("options of a variable", "secrets: {A: &x \"--qz7 kx9\"}\nenvironment: {GUNICORN_CMD_ARGS: *x}\n"),
        ("a path", "secrets: {A: &x qz7/kx9}\nroot: *x\n"),
        ("a step of a path", "secrets: {A: &x /qz7//kx9}\nroot: *x\n"),
        ("a word", "secrets: {A: &x qz7}\nrun_script: *x\n"),
        ("a duration", "secrets: {A: &x 12qz7}\nhandoff: {boot_timeout: *x}\n"),
        ("a number", "secrets: {A: &x 0x1869d}\ngunicorn: {preload_app: *x}\n"),
    ];
    for (what, more) in cases {
        let good = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\n";
        std::fs::write(scratch.path().join("p.yaml"), format!("{good}{more}")).unwrap();
        let output = runsmith(scratch.path(), &["validate", "p.yaml"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().any(|line| line.contains("********")), "{what} is no mistake:\n{text}");
        let formats = FORMATS.iter().map(|format| vec!["validate", "p.yaml", "--format", format]);
        for arguments in formats.chain([vec!["render", "p.yaml"], vec!["read", "p.yaml"]]) {
            let output = runsmith(scratch.path(), &arguments);
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let shown = PIECES.iter().find(|piece| text.contains(*piece));
            assert_eq!(shown, None, "{what}: {arguments:?} of\n{more}\n{text}");
        }
    }
}

/// A command that is a string is split at blanks, and so is a secret in it.
#[test]
fn a_secret_with_blanks_is_masked_in_a_command() {
    let scratch = tempfile::tempdir().unwrap();
    let base = "application: shop\nuser: deploy\nvirtualenv_home: /h\nserver: any\nbind: \"unix:/run/shop/a.sock\"\n";
    std::fs::write(scratch.path().join("old.yaml"), format!("{base}unicorn_command: srv\n")).unwrap();
    let secret = "zebra quilt mango staple9";
    for script in ["native", "shell"] {
        for command in [
            format!("unicorn_command: \"srv -x {secret}\""),
            format!("unicorn_command: \"srv --x={secret} --y\""),
            format!("unicorn_command: srv\nlog: {{processor: \"/usr/bin/ship {secret}\"}}"),
        ] {
            let pillar = format!("{base}run_script: {script}\nsecrets: {{A: \"{secret}\"}}\n{command}\n");
            std::fs::write(scratch.path().join("p.yaml"), &pillar).unwrap();
            for arguments in SHOWING {
                let output = runsmith(scratch.path(), &[*arguments, &["p.yaml"]].concat());
                let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                let shown = secret.split(' ').find(|word| text.contains(word));
                assert_eq!(shown, None, "{arguments:?} of\n{pillar}\n{text}");
            }
            let output = runsmith(scratch.path(), &["render", "--show-secrets", "p.yaml"]);
            assert!(String::from_utf8_lossy(&output.stdout).contains("quilt"), "{pillar}");
        }
    }
}

/// A finding shows the line that it is about, and the value of a secret may be on that line.
#[test]
fn findings_mask_the_value_of_a_secret_wherever_else_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let cases = [
        ("a plain value", "secrets: {A: hunter2-value}\nenvironment: {NOTE: hunter2-value, 1X: a}\n"),
        ("in quotes", "secrets: {A: \"hunter2-value\"}\nenvironment: {NOTE: 'is hunter2-value', 1X: a}\n"),
        (
            "with an escape",
            "secrets: {A: \"hunter2\\tvalue\"}\nenvironment: {NOTE: \"hunter2\\tvalue\", 1X: a}\n",
        ),
        (
            "over lines",
            "secrets:\n  A: |\n    hunter2-value\n    second\nenvironment: {NOTE: hunter2-value, 1X: a}\n",
        ),
        (
            "the password of a URL",
            "secrets: {A: 'http://u:hunter2-pass@h/'}\nenvironment: {NOTE: hunter2-pass, 1X: a}\n",
        ),
        ("a comment", "secrets: {A: hunter2-value}\nenvironment: {1X: a} # hunter2-value\n"),
        ("a message", "secrets: {A: hunter2-value}\nlayout: hunter2-value\n"),
    ];
    for (what, more) in cases {
        std::fs::write(scratch.path().join("pillar.yaml"), format!("{GOOD}{more}")).unwrap();
        assert_eq!(runsmith(scratch.path(), &["validate", "pillar.yaml"]).status.code(), Some(1), "{what}");
        let found = all_leaks(scratch.path(), "pillar.yaml");
        assert_eq!(found.len(), 0, "{what}:\n{}", found.join("\n"));
    }
}
