//! What a difference is printed as: golden outputs (`make golden` rewrites them).

#![allow(clippy::disallowed_methods, reason = "tests are effects")]
#![allow(clippy::unwrap_used, reason = "what surrounds a test may fail it too")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The golden file's ending, and how it is asked for.
const FORMATS: &[(&str, &[&str])] = &[
    ("txt", &["--color", "never"]),
    ("colour.txt", &["--color", "always"]),
    ("stat.txt", &["--stat", "--color", "never"]),
    ("stat.colour.txt", &["--stat", "--color", "always"]),
    ("patch", &["--format", "patch"]),
    ("md", &["--format", "markdown"]),
    ("json", &["--format", "json"]),
];

/// Something of everything: values in words, what terminals obey, no newline at the end, secrets that
/// come, change and go, links, modes, owners, services that move, are disabled and need nothing.
const OLD: &str = r#"unicorn:
  defaults: {user: deploy, virtualenv_home: /home/deploy}
  applications:
    gate: {bind: "127.0.0.1:8001", service: {enabled: false}}
    hall: {bind: "127.0.0.1:8002"}
    lobby: {bind: "127.0.0.1:8003", run_script: shell, layout: {logs: {mode: "0750"}}}
    move: {bind: "127.0.0.1:8004", log: {kind: none}}
    shop:
      environment: {GREETING: "it's 5 o'clock", "GONE": "`x`"}
      secrets: {OLD_KEY: s3cr3t-old, DATABASE_URL: "s3cr3t-one"}
      gunicorn: {workers: 4, timeout: 60}
"#;
const NEW: &str = r#"unicorn:
  defaults: {user: deploy, virtualenv_home: /home/deploy}
  applications:
    gate: {bind: "127.0.0.1:8001", service: {enabled: false}, gunicorn: {timeout: 7}}
    hall: {bind: "127.0.0.1:8002", service: {enabled: false}}
    lobby: {bind: "127.0.0.1:8103", run_script: shell, layout: {logs: {mode: "0755", group: adm}}}
    move: {bind: "127.0.0.1:8004", log: {kind: none}, service: {link: /srv/service}}
    shop:
      environment: {GREETING: "it's 6 o'clock \x1b[31m\u202e 漢字"}
      secrets: {NEW_KEY: s3cr3t-new, DATABASE_URL: "s3cr3t-two"}
      gunicorn: {timeout: 90}
"#;

fn diff(arguments: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("old.yaml"), OLD).unwrap();
    std::fs::write(scratch.path().join("new.yaml"), NEW).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .current_dir(&scratch)
        .env_remove("NO_COLOR")
        .args(["render", "new.yaml", "--diff", "--against", "old.yaml", "--allow", "all"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_format_is_as_expected() {
    let mut differ: Vec<PathBuf> = vec![];
    for (ending, arguments) in FORMATS {
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format!("diff.{ending}"));
        let have = diff(arguments);
        assert!(!have.contains("s3cr3t"), "{ending} shows a secret");
        if std::env::var_os("RUNSMITH_BLESS").is_some() {
            std::fs::write(&golden, &have).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != have {
            differ.push(golden);
        }
        assert_eq!(have, diff(arguments), "{ending} is the same every time");
    }
    assert_eq!(differ, Vec::<PathBuf>::new(), "run `make golden` and review the difference");
}
