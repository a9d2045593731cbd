//! What `render --diff` promises: a patch that git and patch(1) take, nothing where nothing differs,
//! every key of the model named where it is changed, impact, and no secret anywhere.

#![allow(clippy::disallowed_methods, reason = "these tests are about files and programs")]
#![allow(clippy::unwrap_used, reason = "what surrounds a test may fail it too")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use serde_json::{Value, json};

/// Runs runsmith in a directory.
fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runsmith")).current_dir(directory).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `render NEW --diff --against OLD` with more arguments; the exit code and both streams.
fn against(directory: &Path, more: &[&str]) -> (i32, String, String) {
    let output =
        runsmith(directory, &[&["render", "new.yaml", "--diff", "--against", "old.yaml"], more].concat());
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn pair(old: &str, new: &str) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("old.yaml"), old).unwrap();
    fs::write(scratch.path().join("new.yaml"), new).unwrap();
    scratch
}

fn json_of(directory: &Path, more: &[&str]) -> Value {
    let (code, out, err) = against(directory, &[&["--format", "json"], more].concat());
    assert!(code < 2, "{err}");
    serde_json::from_str(&out).unwrap()
}

const BASE: &str = "application: web\nuser: nobody\ngroup: nogroup\nvirtualenv_home: /srv\n";

/// The files and links of a rendered pillar, put below a directory as git would keep them: plain, with
/// one bit of the mode.
fn plant(pillar: &Path, directory: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["render", pillar.to_str().unwrap(), "--format", "json", "--show-secrets"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    for entry in tree["entries"].as_array().unwrap() {
        let path = directory.join(entry["path"].as_str().unwrap().trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = entry["target"].as_str() {
            std::os::unix::fs::symlink(target, &path).unwrap();
        } else if let Some(content) = entry["content"].as_str() {
            fs::write(&path, content).unwrap();
            let mode = u32::from_str_radix(entry["mode"].as_str().unwrap(), 8).unwrap();
            let mode = if mode & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Every file and link below a directory: path, whether it can be executed, content or target.
fn listing(directory: &Path, modes: bool) -> Vec<(String, bool, Vec<u8>)> {
    let mut found = vec![];
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(directory).unwrap().to_string_lossy().into_owned();
            if name == ".git" {
            } else if stat.is_dir() {
                waiting.push(path);
            } else if stat.is_symlink() {
                found.push((
                    name,
                    false,
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                ));
            } else {
                let executable = modes && stat.permissions().mode() & 0o100 != 0;
                found.push((name, executable, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// One application of a random pillar; values are such that hunks, names and quotes get interesting.
fn application() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("plain".to_owned()),
        Just("it's \"quoted\" \\ $HOME".to_owned()),
        Just("ümlaut 漢 \u{1f600}".to_owned()),
        Just("two\nlines\n".to_owned()),
        Just("@@ -1,2 +1,2 @@".to_owned()),
        "[a-z ]{0,12}",
    ];
    let variables = proptest::collection::btree_map("[A-E]", word.clone(), 0..4);
    // chpst would drop a blank at the end.
    let secrets = proptest::collection::btree_map("[V-Z]", word.prop_map(|word| word + "."), 0..3);
    let root = prop_oneof![Just("/srv/web"), Just("/srv/a b/web"), Just("/srv/ü\"q\\/web")];
    let choice = (any::<bool>(), any::<bool>(), any::<bool>(), 0usize..3, 1u32..5);
    (variables, secrets, root, choice).prop_map(|(variables, secrets, root, choice)| {
        let (shell, down, enabled, log, workers) = choice;
        let log = ["svlogd", "files", "none"][log];
        json!({
            "user": "nobody", "group": "nogroup", "virtualenv": "/srv/venv", "root": root,
            "environment": variables, "secrets": secrets,
            "run_script": if shell { "shell" } else { "native" },
            "service": {"down": down, "enabled": enabled},
            "log": {"kind": log},
            "gunicorn": {"workers": workers},
        })
    })
}

fn pillar() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-c]", application(), 1..4).prop_map(|mut applications| {
        for (port, application) in applications.values_mut().enumerate() {
            let root = format!("{}{port}", application["root"].as_str().unwrap());
            application["bind"] = json!(format!("127.0.0.1:{}", 8000 + port));
            application["root"] = Value::from(root);
        }
        json!({"unicorn": {"applications": applications}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The patch turns the old tree into the new one, byte for byte and mode for mode; against itself
    /// there is nothing.
    #[test]
    fn git_and_patch_apply_it((old, new) in (pillar(), pillar())) {
        let scratch = pair(&old.to_string(), &new.to_string());
        let at = |name: &str| scratch.path().join(name);
        for name in ["git", "gnu", "want"] {
            fs::create_dir(at(name)).unwrap();
        }
        plant(&at("old.yaml"), &at("git"));
        plant(&at("old.yaml"), &at("gnu"));
        plant(&at("new.yaml"), &at("want"));
        let (code, patch, errors) = against(scratch.path(), &["--format", "patch", "--show-secrets"]);
        prop_assert!(code < 2, "{errors}");
        // A difference of modes that git has not, or of directories, is one all the same.
        prop_assert!(code == 1 || listing(&at("git"), true) == listing(&at("want"), true));
        fs::write(at("patch"), &patch).unwrap();
        if patch.contains("diff --git") {
            // A repository of its own, so that no other one around it counts.
            let run = |program: &str, directory: &str, arguments: &[&str]| {
                Command::new(program).current_dir(at(directory)).args(arguments).output().unwrap()
            };
            assert!(run("git", "git", &["init", "-q"]).status.success());
            let output = run("git", "git", &["apply", "--whitespace=nowarn", "../patch"]);
            prop_assert!(output.status.success(), "{}\n{patch}", text(&output.stderr));
            let output = run("patch", "gnu", &["-p1", "-s", "--no-backup-if-mismatch", "-i", "../patch"]);
            prop_assert!(output.status.success(), "{}{}\n{patch}", text(&output.stdout), text(&output.stderr));
            prop_assert_eq!(listing(&at("gnu"), false), listing(&at("want"), false));
        }
        prop_assert_eq!(listing(&at("git"), true), listing(&at("want"), true));
        fs::copy(at("new.yaml"), at("old.yaml")).unwrap();
        for format in ["text", "patch", "markdown", "json"] {
            prop_assert_eq!(against(scratch.path(), &["--format", format]).0, 0);
        }
        prop_assert_eq!(against(scratch.path(), &["--format", "patch"]).1, "");
    }
}

/// What was applied does not differ; what was made then by another pillar does, and --prune shows
/// what goes.
#[test]
fn apply_then_diff_is_empty() {
    let scratch = pair(
        &format!("{BASE}secrets: {{A: s3cr3t-a, B: s3cr3t-b}}\n"),
        &format!("{BASE}secrets: {{A: s3cr3t-a}}\nservice: {{enabled: false}}\n"),
    );
    let run = |arguments: &[&str]| {
        let output = runsmith(scratch.path(), arguments);
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(run(&["render", "old.yaml", "--out", "root"]).0, 0);
    for format in ["text", "patch", "markdown", "json"] {
        let (code, out) = run(&["render", "old.yaml", "--diff", "--root", "root", "--format", format]);
        assert_eq!(code, 0, "{out}");
    }
    let (code, out) = run(&["render", "old.yaml", "--diff", "--against", "root/"]);
    assert_eq!(code, 0, "neither records nor directories on the way are a difference: {out}");
    let (code, out) = run(&["render", "new.yaml", "--diff", "--root", "root"]);
    assert_eq!(code, 1);
    assert!(out.contains("impact: disabled") && out.contains("link removed"), "{out}");
    assert!(out.contains("--prune removes it") && !out.contains("env/B  (secret)"), "{out}");
    let (code, out) = run(&["render", "new.yaml", "--diff", "--root", "root", "--prune"]);
    assert_eq!(code, 1);
    assert!(out.contains("D /etc/sv/web/env/B  (secret)") && !out.contains("s3cr3t"), "{out}");
    assert_eq!(run(&["render", "new.yaml", "--out", "root", "--prune"]).0, 0);
    assert_eq!(run(&["render", "new.yaml", "--diff", "--root", "root", "--prune"]).0, 0);
    assert_eq!(run(&["render", "new.yaml", "--diff", "--root", "root", "--exit-zero"]).0, 0);
}

/// All that the file system has besides content; and what cannot be read ends in 2 and is no difference.
#[test]
fn a_root_shows_all_that_differs() {
    let scratch = pair(BASE, BASE);
    let root = scratch.path().join("root");
    let run = |arguments: &[&str]| {
        let output = runsmith(scratch.path(), arguments);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(run(&["render", "new.yaml", "--out", "root"]).0, 0);
    let at = |path: &str| root.join(path);
    fs::set_permissions(at("etc/sv/web/run"), fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(at("etc/sv/web/check"), Some(65534), Some(65534)).unwrap();
    fs::remove_file(at("etc/service/web")).unwrap();
    std::os::unix::fs::symlink("/etc/sv/other", at("etc/service/web")).unwrap();
    fs::remove_file(at("etc/sv/web/finish")).unwrap();
    fs::create_dir(at("etc/sv/web/finish")).unwrap();
    fs::write(at("etc/sv/web/log/run"), b"\xff\0not text").unwrap();
    let (code, out, errors) = run(&["render", "new.yaml", "--diff", "--root", "root"]);
    assert_eq!(code, 2, "a directory in a file's place cannot be replaced: {out}");
    assert!(errors.contains("root/etc/sv/web/finish: a directory is in its place"), "{errors}");
    for line in [
        "mode 0644 -> 0755",
        "owner nobody -> root",
        "group nogroup -> root",
        "target /etc/sv/other -> /etc/sv/web",
        "directory becomes file, mode 0755, root:root",
        "-\u{fffd}\\u{0}not text",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    fs::remove_file(at("etc/sv/web/check")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("etc/sv/web/check"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    let (code, out, errors) = run(&["render", "new.yaml", "--diff", "--root", "root"]);
    assert_eq!(code, 2);
    assert!(errors.contains("cannot read root/etc/sv/web/check: it is a named pipe"), "{errors}");
    assert!(!out.contains("/etc/sv/web/check"), "{out}");
}

/// What a pillar needs besides for a key to have a meaning, and another value than the example where
/// that is the default: by the beginning of the key's path.
const AROUND: &[(&str, &str)] = &[
    ("bind.", r#"{"bind": {"address": "unix:/run/old.sock"}}"#),
    ("handoff.health_check.", r#"{"handoff": {"health_check": {"path": "/old"}}}"#),
    ("handoff.ready", r#"{"virtualenv": "/srv/v"}"#),
    ("limits.nofile.", r#"{"limits": {"nofile": {"soft": 10, "hard": 70000}}}"#),
    ("secret_files", r#"{"secrets": {"DATABASE_URL": "x"}}"#),
    ("unicorn.", r#"{"unicorn_command": "unicorn"}"#),
];

/// Every key below a schema, with an example of its value; the servers' settings are one key each.
fn keys(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for inner in ["anyOf", "oneOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten() {
        keys(inner, path, found);
    }
    if let Some(value) = schema.get("additionalProperties").filter(|_| path == "limits") {
        keys(value, "limits.nofile", found);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let example = inner["examples"][0].clone();
        assert!(!example.is_null(), "{path} has no example");
        found.push((path.clone(), example));
        if !matches!(path.as_str(), "gunicorn" | "unicorn") {
            keys(inner, &path, found);
        }
    }
}

/// Sets a value at a path.
fn set(value: &mut Value, path: &str, to: Value) {
    let mut at = value;
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = to;
}

/// Another value of the same kind, for an example that is the default.
fn other(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with('/') || text.contains('/') => json!(format!("{text}2")),
        Value::String(_) => json!("other"),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::Bool(truth) => json!(!truth),
        other => other.clone(),
    }
}

#[test]
fn every_key_of_the_model_is_named_where_it_changes() {
    let schema = runsmith::schema::document();
    let mut found = vec![];
    keys(&schema["$defs"]["Application"], "", &mut found);
    assert!(found.len() > 70, "{found:?}");
    let mut unnamed = vec![];
    for (key, example) in found {
        // A service of another name is another service: there the places of both are said.
        if matches!(key.as_str(), "application" | "unicorn_application") {
            continue;
        }
        let mut old = json!({"application": "web", "user": "nobody", "virtualenv_home": "/srv"});
        for (beginning, around) in AROUND {
            if key.starts_with(beginning) {
                let around: Value = serde_json::from_str(around).unwrap();
                for (name, value) in around.as_object().unwrap() {
                    old[name] = value.clone();
                }
            }
        }
        if key == "unicorn" {
            old["unicorn_command"] = json!("unicorn");
        }
        let mut named = false;
        let mut said = String::new();
        let second = if key == "server" { json!("any") } else { other(&example) };
        for value in [example.clone(), second] {
            let mut new = old.clone();
            if key == "virtualenv" {
                new.as_object_mut().unwrap().remove("virtualenv_home");
            }
            set(&mut new, &key, value);
            let scratch = pair(&old.to_string(), &new.to_string());
            let (code, out, errors) = against(scratch.path(), &["--format", "json", "--allow", "all"]);
            said = errors;
            if code != 1 {
                continue;
            }
            let diff: Value = serde_json::from_str(&out).unwrap();
            named |= causes(&diff).iter().any(|cause| {
                let new = &cause["new"];
                let written = new["key"].as_str().unwrap_or_default();
                let is_key =
                    written == key || written.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.'));
                is_key && new["place"].as_str().unwrap_or_default().starts_with("new.yaml:1:")
            });
            said.push_str(&out);
        }
        if !named {
            unnamed.push(format!("{key}: {}", said.chars().take(600).collect::<String>()));
        }
    }
    assert!(unnamed.is_empty(), "{}", unnamed.join("\n\n"));
}

/// Every cause in a difference.
fn causes(diff: &Value) -> Vec<&Value> {
    let entries =
        diff["services"].as_array().unwrap().iter().flat_map(|one| one["entries"].as_array().unwrap());
    entries
        .flat_map(|entry| {
            let hunks = entry["hunks"].as_array().unwrap().iter();
            let all = hunks.flat_map(|hunk| hunk["causes"].as_array().unwrap());
            all.chain(entry["causes"].as_array().unwrap())
        })
        .collect()
}

/// Through `defaults`, anchors and merge keys, and where nobody wrote anything.
#[test]
fn provenance_finds_the_place_as_it_is_written() {
    let pillar = |timeout, nice| {
        format!(
            "x: &common\n  gunicorn: {{timeout: {timeout}}}\nunicorn:\n  defaults: {{user: nobody, virtualenv_home: /srv, nice: {nice}}}\n  \
             applications:\n    web:\n      <<: *common\n      umask: &mask \"0027\"\n"
        )
    };
    let scratch =
        pair(&pillar(30, 1), &pillar(40, 2).replace("umask: &mask \"0027\"", "bind: 127.0.0.1:9000"));
    let (code, out, _) = against(scratch.path(), &[]);
    assert_eq!(code, 1);
    for line in [
        "gunicorn.timeout new.yaml:2:23 by new.yaml:7:7",
        "nice new.yaml:4:57 (defaults)",
        "bind.0 new.yaml:8:13, was runsmith's default",
        "umask runsmith's default, was old.yaml:8:20",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let output = runsmith(scratch.path(), &["render", "new.yaml", "--explain", "/etc/sv/web/run"]);
    let out = text(&output.stdout);
    for line in [
        "<- nice new.yaml:4:57 (defaults)",
        "<- group default made of user new.yaml:4:20",
        "<- umask runsmith's default",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

/// What each kind of change needs, told by the effect's name.
#[test]
fn the_impact_is_that_of_the_table() {
    let usr2 = "run_script: shell\n";
    for (around, old, new, effect) in [
        ("", "", "service: {timeout: 7}\n", "nothing"),
        ("", "", "log: {size: 5000}\n", "reload-logs"),
        ("", "", "log: {directory: /var/log/web}\n", "restart-logs"),
        ("", "", "gunicorn: {timeout: 7}\n", "upgrade"),
        ("", "", "bind: 127.0.0.1:9000\n", "upgrade"),
        ("", "", "layout: {run: /run/other}\n", "restart"),
        ("", "", "run_script: shell\n", "restart"),
        ("", "", "handoff: {strategy: usr2}\n", "restart"),
        ("", "", "service: {directory: /srv/sv}\n", "supervise"),
        ("", "", "log: {kind: none}\n", "supervise"),
        ("", "", "service: {enabled: false}\n", "disable"),
        ("", "service: {enabled: false}\n", "", "enable"),
        (usr2, "", "gunicorn: {timeout: 7}\n", "upgrade"),
        (usr2, "", "handoff: {boot_timeout: 7}\n", "upgrade"),
        (usr2, "", "bind: 127.0.0.1:9000\n", "restart"),
        (usr2, "", "home: /srv/home\n", "restart"),
        (usr2, "", "secrets: {A: s3cr3t}\n", "restart"),
        ("run_script: shell\nunicorn_command: ./serve\n", "", "handoff: {boot_timeout: 7}\n", "restart"),
    ] {
        let scratch = pair(&format!("{BASE}{around}{old}"), &format!("{BASE}{around}{new}"));
        let diff = json_of(scratch.path(), &["--allow", "all"]);
        let impact = &diff["services"][0]["impact"];
        assert_eq!(impact["effect"], effect, "{around}{old}{new}: {impact}");
    }
}

const OLD_SECRETS: &str = "secrets: {GONE: s3cr3t-gone, KEPT: s3cr3t-old, MOVED: s3cr3t-moved}\nenvironment: {PUBLIC: s3cr3t-public, API_TOKEN: s3cr3t-token}\n";
const NEW_SECRETS: &str = "secrets: {COME: s3cr3t-come, KEPT: s3cr3t-new, PUBLIC: s3cr3t-public}\nenvironment: {MOVED: s3cr3t-moved}\n";

/// A repository with the old pillar at `main` and the new one in the working tree.
fn repository(old: &str, new: &str) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("pillar")).unwrap();
    fs::write(scratch.path().join("pillar/web.yaml"), old).unwrap();
    git(scratch.path(), &["init", "-q", "-b", "main"]);
    git(scratch.path(), &["add", "."]);
    git(scratch.path(), &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "old"]);
    fs::write(scratch.path().join("pillar/web.yaml"), new).unwrap();
    scratch
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git").current_dir(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let (old, new) = (format!("{BASE}{OLD_SECRETS}"), format!("{BASE}{NEW_SECRETS}"));
    let scratch = repository(&old, &new);
    fs::write(scratch.path().join("old.yaml"), &old).unwrap();
    let run = |arguments: &[&str]| {
        let output =
            runsmith(scratch.path(), &[&["render", "pillar/web.yaml", "--diff"], arguments].concat());
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let rendered = runsmith(scratch.path(), &["render", "old.yaml", "--out", "tree"]);
    assert!(rendered.status.success());
    let sides = [
        &["--against", "old.yaml"][..],
        &["--against", "git:main"],
        &["--against", "tree"],
        &["--root", "tree", "--prune"],
    ];
    for side in sides {
        for format in [
            &["--format", "text"][..],
            &["--format", "patch"],
            &["--format", "markdown"],
            &["--format", "json"],
            &["--stat"],
            &["--color", "always"],
        ] {
            let (code, out) = run(&[side, format].concat());
            assert_eq!(code, 1, "{side:?} {format:?}: {out}");
            assert!(!out.contains("s3cr3t"), "{side:?} {format:?}: {out}");
            assert!(out.contains("env/KEPT") || out.contains("env&#47;KEPT"), "{out}");
        }
    }
    assert!(run(&["--against", "old.yaml", "--show-secrets"]).1.contains("s3cr3t-new"));
    // What cannot be read at the other side.
    for broken in [format!("{old}secrets: [\n"), format!("{old}: x"), format!("{BASE}secrets: s3cr3t-x\n")] {
        let scratch = repository(&broken, &new);
        let output = runsmith(scratch.path(), &["render", "pillar", "--diff", "--against", "git:main"]);
        let out = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{out}");
        assert!(out.contains("main:pillar/web.yaml:") && !out.contains("s3cr3t"), "{out}");
    }
}

#[test]
fn against_a_revision() {
    let scratch = repository(BASE, &format!("{BASE}nice: 5\n"));
    let run = |directory: &Path, arguments: &[&str]| {
        let output = runsmith(directory, arguments);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let top = scratch.path();
    let (code, out, _) = run(top, &["render", "pillar", "--diff", "--against", "git:main"]);
    assert_eq!(code, 1);
    assert!(out.contains("nice pillar/web.yaml:5:7, was runsmith's default"), "{out}");
    // From within, by file; and since the branch left main.
    git(top, &["checkout", "-q", "-b", "topic"]);
    git(top, &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qam", "new"]);
    git(top, &["checkout", "-q", "main"]);
    fs::write(top.join("pillar/web.yaml"), format!("{BASE}umask: \"0027\"\n")).unwrap();
    git(top, &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qam", "elsewhere"]);
    git(top, &["checkout", "-q", "topic"]);
    let (code, out, _) =
        run(&top.join("pillar"), &["render", "web.yaml", "--diff", "--against", "git:main..."]);
    assert_eq!(code, 1);
    assert!(out.contains("+nice: 5") && !out.contains("umask: \"0027\""), "{out}");
    // A pillar that was not there is new.
    fs::write(top.join("pillar/more.yaml"), BASE.replace("web", "more") + "bind: 127.0.0.1:9000\n").unwrap();
    let (code, out, _) =
        run(top, &["render", "pillar/more.yaml", "--diff", "--against", "git:HEAD", "--stat"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("more (pillar/more.yaml:1:1): new service\n"), "{out}");
    // Templates of that revision, too.
    fs::create_dir(top.join("templates")).unwrap();
    fs::write(top.join("templates/log-run"), "#!/bin/sh\n# {{ managed | comment }}\nexec old\n").unwrap();
    git(top, &["add", "templates"]);
    git(top, &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "templates"]);
    fs::write(top.join("templates/log-run"), "#!/bin/sh\n# {{ managed | comment }}\nexec new\n").unwrap();
    let both =
        ["render", "pillar", "--diff", "--templates", "templates", "--against", "git:HEAD", "--allow", "all"];
    let (_, out, errors) = run(top, &both);
    assert!(out.contains("-exec old\n+exec new\n"), "{out}{errors}");
    for (revision, sentence) in [
        ("git:-h", "that is no revision"),
        ("git:", "that is no revision"),
        ("git:nowhere", "there is no such revision here"),
        ("git:--output=/tmp/x", "that is no revision"),
    ] {
        let (code, _, errors) = run(top, &["render", "pillar", "--diff", "--against", revision]);
        assert!(code == 2 && errors.contains(sentence), "{revision}: {errors}");
    }
    let outside = pair(BASE, BASE);
    let (code, _, errors) = run(outside.path(), &["render", "new.yaml", "--diff", "--against", "git:HEAD"]);
    assert!(code == 2 && errors.contains("is in no git repository"), "{errors}");
}

/// A comment has a largest size; what is cut is said, and fences and tables hold.
#[test]
fn markdown_is_cut_with_a_note() {
    let scratch = pair(BASE, &format!("{BASE}run_script: shell\nenvironment: {{A: \"```<b>|@x\"}}\n"));
    let (code, out, _) = against(scratch.path(), &["--format", "markdown"]);
    assert_eq!(code, 1);
    assert!(out.contains("````diff\n") && out.ends_with("</details>\n"), "{out}");
    let (_, out, _) = against(scratch.path(), &["--format", "markdown", "--limit", "3000"]);
    assert!(out.len() <= 3000 && out.contains("not shown in full"), "{}: {out}", out.len());
    let (code, _, errors) = against(scratch.path(), &["--format", "markdown", "--limit", "999"]);
    assert!(code == 2 && errors.contains("the least is 1000"), "{errors}");
    // Down to the least, and with more services than the table has room for.
    let many = |timeout: u32| {
        let one = |at: usize| {
            format!(
                "    application-number-{at:03}: {{bind: \"127.0.0.1:{}\", gunicorn: {{timeout: {timeout}}}}}\n",
                9000 + at
            )
        };
        let all: String = (0..120).map(one).collect();
        format!(
            "unicorn:\n  defaults: {{user: nobody, group: nogroup, virtualenv_home: /srv}}\n  applications:\n{all}"
        )
    };
    let scratch = pair(&many(60), &many(61));
    for limit in (1000..12_000).step_by(997) {
        let (_, out, _) = against(scratch.path(), &["--format", "markdown", "--limit", &limit.to_string()]);
        assert!(out.len() <= limit, "{limit}: {}", out.len());
        assert!(
            out.contains("the table is cut") && out.contains(&format!("at most {limit} characters")),
            "{out}"
        );
    }
}

/// A value may be nearly all newlines, and each is a line of a shell run script.
#[test]
fn a_file_of_very_many_lines_is_told_and_not_shown() {
    let newlines = |count: usize| format!("environment: {{A: \"x{}\"}}\n", "\\n".repeat(count));
    let base = format!("{BASE}run_script: shell\n");
    let scratch = pair(&base, &format!("{base}{}", newlines(120_000)));
    let (code, out, errors) = against(scratch.path(), &[]);
    assert!(code == 1 && out.len() < 20_000, "{errors}{out:.1000}");
    assert!(out.contains("too long to show: ") && out.contains("M /etc/sv/web/run"), "{out}");
    assert!(out.contains(" lines added") && out.contains("`run` changes and is not looked into"), "{out}");
    let diff = json_of(scratch.path(), &[]);
    let entries = diff["services"][0]["entries"].as_array().unwrap();
    let run = entries.iter().find(|entry| entry["path"] == "/etc/sv/web/run").unwrap();
    assert_eq!((&run["unshown"]["why"], &run["hunks"]), (&json!("long"), &json!([])), "{run}");
    assert!(run["unshown"]["lines_added"].as_u64().unwrap() > 120_000, "{run}");
    let (_, out, _) = against(scratch.path(), &["--format", "markdown"]);
    assert!(out.contains("too long to show") && !out.contains("not shown in full"), "{out:.1000}");
    let (_, out, errors) = against(scratch.path(), &["--format", "patch"]);
    assert!(
        out.contains("# /etc/sv/web/run: it has more lines than are compared") && out.len() < 5_000,
        "{out:.1000}"
    );
    assert!(errors.contains("note: 1 file is too long for a patch"), "{errors}");
    let (_, out, _) = against(scratch.path(), &["--stat"]);
    assert!(out.contains("too long to show"), "{out}");
    let output = runsmith(scratch.path(), &["render", "new.yaml", "--explain", "/etc/sv/web/run"]);
    assert!(
        output.status.code() == Some(2)
            && text(&output.stderr).contains("lines; the most that are explained")
    );
    // Those of all files together have a limit as well; a patch is made of one file after the other.
    let each = |count: usize| -> String {
        let one = |n: usize| format!("    a{n:02}: {{bind: 'unix:/run/{n}', environment: {{A: *n}}}}\n");
        let all: String = (0..45).map(one).collect();
        format!(
            "x: &n \"x{}\"\nunicorn:\n  defaults: {{user: nobody, group: nogroup, virtualenv_home: /srv, run_script: shell}}\n  \
             applications:\n{all}",
            "\\n".repeat(count)
        )
    };
    let scratch = pair(&each(0), &each(90_000));
    let diff = json_of(scratch.path(), &[]);
    let why = |service: &Value| service["entries"][0]["unshown"]["why"].clone();
    let services = diff["services"].as_array().unwrap();
    assert_eq!((why(&services[0]), why(&services[44])), (Value::Null, json!("many")));
    assert!(diff["summary"]["lines_added"].as_u64().unwrap() > 45 * 90_000, "{}", diff["summary"]);
    let (_, out, errors) = against(scratch.path(), &["--format", "patch"]);
    assert!(out.matches("\n+++ ").count() >= 45 && !errors.contains("too long"), "{errors}");
}

/// The page that tells about reviews has the table that is in the program.
#[test]
fn the_page_has_the_table_of_impacts() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/code-review.md");
    let text = fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once("<!-- impact -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /impact -->").unwrap();
    let table = runsmith::diff::impact::table();
    let want = format!("{before}<!-- impact -->\n\n{table}\n<!-- /impact -->{after}");
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        fs::write(&page, want).unwrap();
        return;
    }
    assert!(text == want, "the page has another table; run `make golden` and review the difference");
}
