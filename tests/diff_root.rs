//! What `render --diff` promises against a root: where a service lay is known, so is what `--out` would
//! refuse or replace, and both count alike.

#![allow(clippy::disallowed_methods, reason = "these tests are about files and programs")]
#![allow(clippy::unwrap_used, reason = "what surrounds a test may fail it too")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const BASE: &str = "application: web\nuser: nobody\ngroup: nogroup\nvirtualenv_home: /srv\n";

/// A directory with pillars and a root.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root: they set owners");
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a root that an older pillar was rendered to.
    fn with(old: &str) -> Self {
        let place = Self::new();
        let (code, out) = place.run(&format!("{BASE}{old}"), &["--out", "root", "--no-sync"]);
        assert_eq!(code, 0, "{out}");
        place
    }

    /// The program where everybody may execute it: others may not enter where it was built.
    fn program(&self) -> PathBuf {
        let program = self.0.path().join("runsmith");
        // Not by this process: what another test starts meanwhile would have the file open for writing.
        let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_runsmith")).arg(&program).status();
        assert!(copy.unwrap().success());
        program
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Renders a pillar with these arguments; the exit code, and what is printed on both streams.
    fn run(&self, pillar: &str, arguments: &[&str]) -> (i32, String) {
        fs::write(self.0.path().join("new.yaml"), pillar).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let output =
            command.current_dir(&self.0).args(["render", "new.yaml"]).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        // Runs of other tests have to be waited for.
        let text = String::from_utf8(text).unwrap();
        let lines = text.lines().filter(|line| !line.contains("waiting for it to end"));
        (output.status.code().unwrap(), lines.map(|line| format!("{line}\n")).collect())
    }

    fn json(&self, new: &str, arguments: &[&str]) -> Value {
        fs::write(self.0.path().join("new.yaml"), format!("{BASE}{new}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let output = command
            .current_dir(&self.0)
            .args(["render", "new.yaml", "--diff", "--format", "json"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.code().unwrap() < 2, "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The impact on the only service.
    fn impact(&self, new: &str, arguments: &[&str]) -> Value {
        self.json(new, arguments)["services"][0]["impact"].clone()
    }
}

const ROOT: &[&str] = &["--root", "root"];
const ADOPT: &[&str] = &["--root", "root", "--adopt"];
const PRUNE: &[&str] = &["--root", "root", "--prune"];
const AGAINST: &[&str] = &["--against", "old.yaml"];
const RENDERED: &[&str] = &["--against", "root"];

/// The old directory is the one that runsv works in, whoever tells where that was.
#[test]
fn a_service_that_moves_is_out_where_it_was() {
    for (key, old, new) in
        [("directory", "/etc/sv/web", "/srv/sv/web"), ("link", "/etc/service/web", "/srv/service/web")]
    {
        let moved = format!("service: {{{key}: {}}}\n", new.trim_end_matches("/web"));
        for arguments in [ROOT, PRUNE, AGAINST, RENDERED] {
            let place = Place::with("service: {timeout: 31}\n");
            fs::write(place.0.path().join("old.yaml"), format!("{BASE}service: {{timeout: 31}}\n")).unwrap();
            let impact = place.impact(&moved, arguments);
            assert_eq!(impact["effect"], "supervise", "{key} {arguments:?}: {impact}");
            let reasons = impact["reasons"].as_array().unwrap();
            let said = format!("`service.{key}` moves from {old} to {new}: an outage");
            assert!(reasons.len() == 1 && reasons[0].as_str().unwrap().starts_with(&said), "{impact}");
            assert_eq!(impact["commands"], serde_json::json!(["sv -w 31 exit /etc/sv/web"]), "{arguments:?}");
        }
    }
    // Without a record the link tells it.
    let place = Place::with("");
    fs::remove_dir_all(place.at("/var/lib/runsmith")).unwrap();
    fs::remove_file(place.at("/etc/service/web")).unwrap();
    symlink("../sv/web", place.at("/etc/service/web")).unwrap();
    let impact = place.impact("service: {directory: /srv/sv}\n", ADOPT);
    assert_eq!(impact["commands"], serde_json::json!(["sv -w 100 exit /etc/sv/web"]), "{impact}");
    assert_eq!(impact["effect"], "supervise");
    // A link that leads there by another way is no move.
    assert_eq!(place.impact("gunicorn: {timeout: 7}\n", ADOPT)["effect"], "upgrade");
}

/// Everything that moves is caused by the key that moves it.
#[test]
fn what_moves_names_the_key_that_moves_it() {
    for (moved, cause) in [
        ("service: {directory: /srv/sv}\n", "service.directory"),
        ("service: {link: /srv/service}\n", "service.link"),
        ("service: {enabled: false}\n", "service.enabled"),
    ] {
        for arguments in [ROOT, PRUNE] {
            let diff = Place::with("").json(moved, arguments);
            for entry in diff["services"][0]["entries"].as_array().unwrap() {
                let hunks = entry["hunks"].as_array().unwrap().iter().map(|hunk| &hunk["causes"]);
                for causes in hunks.filter(|_| entry["change"] == "changed").chain([&entry["causes"]]) {
                    let keys: Vec<&Value> =
                        causes.as_array().unwrap().iter().map(|cause| &cause["key"]).collect();
                    let expected = if entry["path"].as_str().unwrap().ends_with("/run") && keys.is_empty() {
                        // It is the same path, and its hunk has the cause.
                        entry["change"] == "changed"
                    } else {
                        keys == [cause]
                    };
                    assert!(expected, "{cause} {arguments:?}: {entry:#}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_enabled_needs_nothing() {
    let place = Place::with("service: {enabled: false}\n");
    fs::write(place.0.path().join("old.yaml"), format!("{BASE}service: {{enabled: false}}\n")).unwrap();
    let new = "service: {enabled: false}\ngunicorn: {timeout: 7}\nbind: 127.0.0.1:9000\nlog: {size: 5000}\n";
    for arguments in [ROOT, PRUNE, AGAINST, RENDERED] {
        let impact = place.impact(new, arguments);
        assert_eq!(
            (&impact["effect"], &impact["commands"]),
            (&"nothing".into(), &serde_json::json!([])),
            "{impact}"
        );
    }
    assert_eq!(place.impact("", ROOT)["effect"], "enable");
    // What does not run need not be stopped.
    let gone = "application: other\nuser: nobody\ngroup: nogroup\nvirtualenv_home: /srv\n";
    fs::write(place.0.path().join("new.yaml"), gone).unwrap();
    let (code, out) = place.run(gone, &["--diff", "--root", "root", "--prune"]);
    assert!(code == 1 && out.contains("==> web\nimpact: removed\nD /etc/sv/web/"), "{out}");
}

fn keys(causes: &Value) -> BTreeSet<&str> {
    causes.as_array().unwrap().iter().map(|cause| cause["key"].as_str().unwrap()).collect()
}

/// What a root has and the pillar has no more is named by what the root's files say.
#[test]
fn a_root_tells_which_keys_it_had() {
    for script in ["native", "shell"] {
        let around = format!("run_script: {script}\n");
        let place = Place::with(&format!(
            "{around}environment: {{A: x, C: y}}\nsecrets: {{B: s3cr3t}}\nnice: 3\ngunicorn: {{backlog: 7, workers: 2}}\nlog: {{size: 5000}}\n"
        ));
        let diff = place.json(&format!("{around}environment: {{C: y}}\n"), PRUNE);
        let entries = diff["services"][0]["entries"].as_array().unwrap();
        let causes = |path: &str| -> BTreeSet<&str> {
            let entry = entries.iter().find(|entry| entry["path"].as_str().unwrap().ends_with(path));
            let entry = entry.unwrap_or_else(|| panic!("{script}: {path} does not differ: {diff:#}"));
            let hunks = entry["hunks"].as_array().unwrap();
            hunks.iter().map(|hunk| &hunk["causes"]).chain([&entry["causes"]]).flat_map(keys).collect()
        };
        let run = causes("/web/run");
        assert!(run.is_superset(&BTreeSet::from(["environment.A", "nice"])), "{script}: {run:?}");
        let more = BTreeSet::from([
            "environment.A",
            "nice",
            "secrets.B",
            "secrets",
            "bind",
            "gunicorn.backlog",
            "bind.0.backlog",
        ]);
        assert!(run.is_subset(&more), "{script}: only those that differ: {run:?}");
        assert_eq!(causes("/env/B"), BTreeSet::from(["secrets.B"]), "{script}");
        assert_eq!(
            causes("/gunicorn.py"),
            BTreeSet::from(["gunicorn.backlog", "gunicorn.workers"]),
            "{script}"
        );
        assert_eq!(causes("/config"), BTreeSet::from(["log.size"]), "{script}");
    }
    // Nobody's key changed a mode by hand.
    let place = Place::with("");
    fs::set_permissions(place.at("/etc/sv/web/run"), fs::Permissions::from_mode(0o644)).unwrap();
    let diff = place.json("", ROOT);
    let entry = &diff["services"][0]["entries"][0];
    assert!(entry["path"] == "/etc/sv/web/run" && keys(&entry["causes"]).is_empty(), "{entry:#}");
}

/// A key that replaces a default is the cause of all that goes for it, and the other way around.
#[test]
fn a_key_that_replaces_a_default_is_named_where_the_default_goes() {
    for (old, new) in [("", "gunicorn: {workers: 4}\n"), ("gunicorn: {workers: 4}\n", "")] {
        let place = Place::with(old);
        fs::write(place.0.path().join("old.yaml"), format!("{BASE}{old}")).unwrap();
        for arguments in [ROOT, AGAINST] {
            let diff = place.json(new, arguments);
            let entries = diff["services"][0]["entries"].as_array().unwrap();
            assert_eq!(entries.len(), 1, "{diff:#}");
            let hunks = entries[0]["hunks"].as_array().unwrap();
            assert_eq!(hunks.len(), 2);
            let all: Vec<_> = hunks.iter().map(|hunk| keys(&hunk["causes"])).collect();
            // That the line with the default comes back is in no key, but that the value goes is.
            let named = BTreeSet::from(["gunicorn.workers"]);
            assert!(all.contains(&named) && all.iter().all(|keys| keys.is_subset(&named)), "{all:?}");
            assert!(new.is_empty() || !all.contains(&BTreeSet::new()), "{arguments:?} {all:?}");
        }
    }
}

/// A key of a third user's, a thing in the way: what `--out` ends with, `--diff` says before.
#[test]
fn what_out_would_refuse_is_said_before() {
    type Spoil = fn(&Place);
    let cases: [(&str, &str, Spoil); 7] = [
        ("a directory is in its place", "", |place| {
            fs::remove_file(place.at("/etc/sv/web/finish")).unwrap();
            fs::create_dir(place.at("/etc/sv/web/finish")).unwrap();
        }),
        ("a link is in its place", "", |place| {
            fs::remove_file(place.at("/etc/sv/web/finish")).unwrap();
            symlink("run", place.at("/etc/sv/web/finish")).unwrap();
        }),
        ("a file is in its place", "", |place| {
            fs::remove_dir_all(place.at("/etc/sv/web/env")).unwrap();
            fs::write(place.at("/etc/sv/web/env"), "x").unwrap();
        }),
        ("cannot make the link root/etc/service/web: a directory is in its place", "", |place| {
            fs::remove_file(place.at("/etc/service/web")).unwrap();
            fs::create_dir(place.at("/etc/service/web")).unwrap();
        }),
        ("it belongs to bin", "", |place| {
            chown(place.at("/var/www/web/releases"), Some(2), Some(2)).unwrap();
        }),
        ("it has the sticky bit", "user: games\n", |place| {
            fs::set_permissions(place.at("/var/www/web/shared/logs"), fs::Permissions::from_mode(0o1777))
                .unwrap();
        }),
        ("this host has no user nobody-knows", "user: nobody-knows\n", |_| {}),
    ];
    for (reason, more, spoil) in cases {
        let place = Place::with("");
        spoil(&place);
        let base = if more.is_empty() { BASE.to_owned() } else { BASE.replace("user: nobody\n", more) };
        let (code, diff) = place.run(&base, &["--diff", "--root", "root"]);
        let said = diff.lines().find_map(|line| line.strip_prefix("error: --out would be refused: "));
        let said = said.unwrap_or_else(|| panic!("{reason}: {diff}"));
        assert!(code == 2 && said.contains(reason), "{reason}: {code} {said}");
        assert_eq!(place.run(&base, &["--diff", "--root", "root", "--exit-zero"]).0, 2);
        let (code, json) = place.run(&base, &["--diff", "--root", "root", "--format", "json"]);
        let json: Value = serde_json::Deserializer::from_str(&json).into_iter().next().unwrap().unwrap();
        assert!(code == 2 && json["refused"][0] == said, "{json:#}");
        let (code, out) = place.run(&base, &["--out", "root", "--no-sync"]);
        assert!(code == 2 && out.contains(said), "--diff said: {said}\n--out said: {out}");
    }
}

/// A link on the way that somebody else can have made is not followed, and nobody says that nothing changes behind it.
#[test]
fn what_was_not_compared_is_not_said_to_be_the_same() {
    let place = Place::with("");
    fs::remove_dir_all(place.at("/var/www/web/shared")).unwrap();
    symlink("/tmp", place.at("/var/www/web/shared")).unwrap();
    std::os::unix::fs::lchown(place.at("/var/www/web/shared"), Some(65534), Some(65534)).unwrap();
    for arguments in [&["--diff", "--root", "root"][..], &["--diff", "--root", "root", "--stat"]] {
        let (code, diff) = place.run(BASE, arguments);
        assert_eq!(code, 2, "{diff}");
        assert!(diff.contains("no change is seen; what cannot be read is not compared"), "{diff}");
        assert!(diff.contains("cannot follow the link root/var/www/web/shared"), "{diff}");
        assert!(!diff.contains("nothing changes"), "{diff}");
    }
}

/// What runsmith did not make is refused and named by `--diff` and by `--out`, and so is what would be adopted.
#[test]
fn what_is_not_ours_is_refused_or_adopted_and_a_diff_shows_it() {
    let place = Place::new();
    for path in ["/etc/sv/web", "/etc/service"] {
        fs::create_dir_all(place.at(path)).unwrap();
    }
    fs::write(place.at("/etc/sv/web/run"), "#!/bin/sh\nexec by-hand\n").unwrap();
    // That it says so of itself proves nothing.
    fs::write(place.at("/etc/sv/web/finish"), "#!/bin/sh\n# Managed by runsmith\n").unwrap();
    symlink("/opt/other", place.at("/etc/service/web")).unwrap();
    let named = |text: &str, start: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.contains(", to be changed: "));
        lines.filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
    };
    let expected: BTreeSet<String> = [
        "/etc/service/web: a link, to be changed: target /opt/other -> /etc/sv/web",
        "/etc/sv/web/finish: a file, to be changed: content, mode 0644 -> 0755",
        "/etc/sv/web/run: a file, to be changed: content, mode 0644 -> 0755",
    ]
    .map(str::to_owned)
    .into();
    let (code, diff) = place.run(BASE, &["--diff", "--root", "root"]);
    assert_eq!((code, named(&diff, "  ")), (2, expected.clone()), "{diff}");
    assert!(
        diff.contains("error: --out would be refused: runsmith did not make what is at 3 paths"),
        "{diff}"
    );
    assert_eq!(diff.matches("    runsmith did not make what is there\n").count(), 3, "{diff}");
    let (code, json) = place.run(BASE, &["--diff", "--root", "root", "--format", "json"]);
    let json: Value = serde_json::Deserializer::from_str(&json).into_iter().next().unwrap().unwrap();
    let entries = json["services"][0]["entries"].as_array().unwrap().iter();
    let foreign: Vec<_> =
        entries.filter(|entry| entry["foreign"] == true).filter_map(|entry| entry["path"].as_str()).collect();
    assert_eq!((code, foreign), (2, vec!["/etc/service/web", "/etc/sv/web/finish", "/etc/sv/web/run"]));
    let (code, out) = place.run(BASE, &["--out", "root", "--no-sync"]);
    assert_eq!((code, named(&out, "  ")), (2, expected.clone()), "{out}");
    assert!(!place.at("/etc/sv/web/check").exists() && !place.at("/var").exists());

    let start = "note: adopted, though runsmith did not make it: ";
    let (code, diff) = place.run(BASE, &["--diff", "--root", "root", "--adopt"]);
    assert_eq!((code, named(&diff, start)), (1, expected.clone()), "{diff}");
    let (code, out) = place.run(BASE, &["--out", "root", "--no-sync", "--adopt"]);
    assert_eq!((code, named(&out, start)), (0, expected), "{out}");
    // From now on a record names them.
    fs::write(place.at("/etc/sv/web/run"), "#!/bin/sh\nexec by-hand\n").unwrap();
    let moved = format!("{BASE}service: {{directory: /srv/sv}}\n");
    for (arguments, ends) in [(["--diff", "--root", "root"], 1), (["--out", "root", "--no-sync"], 0)] {
        let (code, said) = place.run(&moved, &arguments);
        assert!(code == ends && !said.contains("did not make"), "{said}");
    }
}

/// Who writes a pillar names paths of the host. What is there and neither a record nor its own first lines claim may be anybody's, a
/// configuration with a password for example: it is not shown unless whoever runs it says that it may be adopted.
#[test]
fn what_nobody_claims_is_not_shown_unless_it_may_be_adopted() {
    use std::os::unix::process::CommandExt as _;
    const TOKEN: &str = "ghs_tokenofthecheckout";
    let place = Place::new();
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.program();
    let config = place.at("/srv/work/private/config");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, format!("[http]\n\textraheader = {TOKEN}\n")).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let pillar = format!("{BASE}log: {{directory: /srv/work/private}}\n");
    let run = |pillar: &str, uid: u32, more: &[&str]| {
        fs::write(place.0.path().join("new.yaml"), pillar).unwrap();
        let mut command = Command::new(&program);
        command.current_dir(&place.0).uid(uid).gid(uid);
        let output =
            command.args(["render", "new.yaml", "--diff", "--root", "root"]).args(more).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    for uid in [0, 65534] {
        for format in ["text", "json", "markdown", "patch"] {
            let (code, out) = run(&pillar, uid, &["--format", format]);
            assert!(code > 0 && out.contains("/srv/work/private/config"), "{uid} {format}: {out}");
            assert!(!out.contains(TOKEN) && !out.contains("extraheader"), "{uid} {format}: {out}");
            let says = if format == "json" { "\"withheld\"" } else { "without --adopt" };
            assert!(out.contains(says), "{uid} {format}: {out}");
        }
        let (_, out) = run(&pillar, uid, &["--stat"]);
        assert!(!out.contains(TOKEN), "{out}");
        let (_, out) = run(&pillar, uid, &["--adopt"]);
        assert!(out.contains("extraheader"), "{uid}: {out}");
        // What is git's own is refused as a place at all.
        let (code, out) = run(&pillar.replace("private", ".git"), uid, &[]);
        assert!(code == 2 && out.contains("\".git\" step"), "{out}");
    }
    // Something else in the place of what is wanted is not shown, either.
    let link = place.at("/etc/service/web");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    fs::write(&link, TOKEN).unwrap();
    let (code, out) = run(BASE, 0, &[]);
    assert!(code == 2 && !out.contains(TOKEN) && out.contains("file becomes link"), "{out}");
    // A record names it from now on.
    fs::remove_file(&link).unwrap();
    fs::remove_dir_all(config.parent().unwrap()).unwrap();
    let (code, out) = place.run(&pillar, &["--out", "root", "--no-sync"]);
    assert_eq!(code, 0, "{out}");
    fs::write(&config, "changed by hand\n").unwrap();
    assert!(run(&pillar, 0, &[]).1.contains("-changed by hand"));
}

/// Who is not root may compare what he can read, without records and owners.
#[test]
fn anybody_may_compare() {
    use std::os::unix::process::CommandExt as _;
    let place = Place::with("");
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(place.0.path().join("new.yaml"), format!("{BASE}gunicorn: {{timeout: 7}}\n")).unwrap();
    let program = place.program();
    let mut command = Command::new(&program);
    let command = command
        .current_dir(&place.0)
        .uid(65534)
        .gid(65534)
        .args(["render", "new.yaml", "--diff", "--root", "root"]);
    let output = command.output().unwrap();
    let (out, talk) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{out}{talk}");
    assert!(
        out.contains("+timeout = 7") && out.contains("1 service changes; 0 paths added, 1 changed"),
        "{out}"
    );
    assert!(talk.contains("note: what earlier runs made is not known: cannot "), "{talk}");
    let output = command.arg("--prune").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "what would go cannot be told");
}

/// The paths that `--diff` counts are those that `--out` changes.
#[test]
fn diff_and_out_count_alike() {
    let place = Place::new();
    for (new, more) in [
        ("secrets: {A: x, B: y}\n", None),
        ("secrets: {A: z}\n", None),
        ("secrets: {A: z}\n", Some("--prune")),
        ("root: /srv/deep/er/web\nservice: {directory: /srv/sv}\n", None),
        ("root: /srv/deep/er/web\nservice: {directory: /srv/sv}\n", Some("--prune")),
        ("service: {enabled: false}\nlog: {kind: none}\n", Some("--prune")),
        ("service: {enabled: false}\nlog: {kind: none}\n", Some("--prune")),
    ] {
        let pillar = format!("{BASE}{new}");
        let (_, diff) = place.run(&pillar, &[&["--diff", "--root", "root"], more.as_slice()].concat());
        let (_, out) = place.run(&pillar, &[&["--out", "root", "--no-sync"], more.as_slice()].concat());
        let number = |text: &str, word: &str| -> usize {
            let before = text.split(word).next().unwrap_or_default();
            before
                .rsplit([' ', '\n'])
                .find(|word| !word.is_empty())
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        let summary =
            diff.lines().find(|line| line.contains("; ") && line.contains(" removed")).unwrap_or_default();
        let counted = number(summary, " path") + number(summary, " changed,") + number(summary, " removed");
        let done =
            out.lines().find(|line| line.ends_with(" changed") && line.contains(" path")).unwrap_or_default();
        assert_eq!(counted, number(done, " path"), "{new} {more:?}\n{summary}\n{done}\n{diff}\n{out}");
        assert_eq!(
            place.run(&pillar, &[&["--diff", "--root", "root"], more.as_slice()].concat()).0,
            0,
            "{new}"
        );
    }
}
