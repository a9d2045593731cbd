//! What `render --out` promises about what it did not make: a file, a directory or a link that no record names is not
//! replaced, given away, taken or removed, unless `--adopt` says so; then the old version is kept.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::host::User;

const EXE: &str = env!("CARGO_BIN_EXE_runsmith");

/// The application's directory, as Capistrano has it.
const APP: &str = "/var/www/shop";

/// A scratch ROOT, and the user of the application.
struct Place {
    scratch: tempfile::TempDir,
    user: User,
}

/// Kind, owner, group, mode and content of each path.
type Facts = BTreeMap<String, (u32, u32, u32, Vec<u8>)>;

impl Place {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root: they set owners");
        let scratch = tempfile::Builder::new().prefix("rsa").tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        Self { scratch, user: User::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Makes a file of the user's, and directories of the user's on the way below [`APP`].
    fn own(&self, path: &str, mode: u32, content: Option<&str>) {
        let at = self.at(path);
        match content {
            Some(content) => fs::write(&at, content).unwrap(),
            None => fs::create_dir_all(&at).unwrap(),
        }
        chown(&at, Some(self.user.uid), Some(self.user.uid)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What Capistrano and the team have made, with its own configuration of unicorn.
    fn capistrano(&self) {
        fs::create_dir_all(self.at("/var/www")).unwrap();
        for path in ["", "/releases", "/releases/1", "/shared", "/shared/config", "/shared/log"] {
            self.own(&format!("{APP}{path}"), 0o775, None);
        }
        symlink("releases/1", self.at(&format!("{APP}/current"))).unwrap();
        lchown(self.at(&format!("{APP}/current")), Some(self.user.uid), Some(self.user.uid)).unwrap();
        self.own(
            &format!("{APP}/shared/config/unicorn.rb"),
            0o664,
            Some("worker_processes 2 # the team's\n"),
        );
        self.own(&format!("{APP}/shared/config/master.key"), 0o600, Some("k3y"));
    }

    fn command(&self, applications: &str, more: &[&str]) -> Command {
        let pillar = self.scratch.path().join("pillar.yaml");
        let name = &self.user.name;
        let defaults = format!("user: {name}, group: {name}, unicorn_command: unicorn, virtualenv: /v");
        fs::write(&pillar, format!("unicorn:\n  defaults: {{{defaults}}}\n  applications:\n{applications}"))
            .unwrap();
        let mut command = Command::new(EXE);
        command.arg("render").arg(pillar).args(more);
        command.arg(if more.contains(&"--diff") { "--root" } else { "--out" }).arg(self.at(""));
        command
    }

    /// Renders; the exit code and what is printed, with ROOT taken out.
    fn render(&self, applications: &str, more: &[&str]) -> (i32, String) {
        self.printed(&self.command(applications, more).output().unwrap())
    }

    /// Renders, which has to succeed.
    fn rendered(&self, applications: &str, more: &[&str]) -> String {
        let (code, text) = self.render(applications, more);
        assert_eq!(code, 0, "{text}");
        text
    }

    /// Renders, which has to be refused.
    fn refused(&self, applications: &str, more: &[&str]) -> String {
        let (code, text) = self.render(applications, more);
        assert_eq!(code, 2, "{text}");
        text
    }

    fn remove(&self, name: &str) -> String {
        let output = Command::new(EXE).args(["remove", name, "--root"]).arg(self.at("")).output().unwrap();
        let (code, text) = self.printed(&output);
        assert_eq!(code, 0, "{text}");
        text
    }

    fn printed(&self, output: &Output) -> (i32, String) {
        let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let root = self.at("");
        let text =
            String::from_utf8_lossy(&both).replace(root.to_str().unwrap().trim_end_matches('/'), "ROOT");
        // Runs of other tests have to be waited for.
        let lines = text.lines().filter(|line| !line.contains("waiting for it to end"));
        (output.status.code().unwrap(), lines.map(|line| format!("{line}\n")).collect())
    }

    /// Everything at and below a path.
    fn facts(&self, path: &str) -> Facts {
        fn add(path: &Path, facts: &mut Facts) {
            let found = fs::symlink_metadata(path).unwrap();
            let content = match () {
                () if found.is_dir() => vec![],
                () if found.is_symlink() => {
                    fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
                }
                () => fs::read(path).unwrap(),
            };
            let fact = (found.mode(), found.uid(), found.gid(), content);
            facts.insert(path.to_str().unwrap().to_owned(), fact);
            if found.is_dir() {
                fs::read_dir(path).unwrap().for_each(|entry| add(&entry.unwrap().path(), facts));
            }
        }
        let mut facts = Facts::new();
        add(&self.at(path), &mut facts);
        facts
    }

    /// What was there before is there still.
    fn has_all(&self, before: &Facts, path: &str) {
        let now = self.facts(path);
        for (path, fact) in before {
            assert_eq!(now.get(path), Some(fact), "{path}");
        }
    }
}

/// Paths that a refusal names.
fn named(text: &str) -> Vec<&str> {
    let named =
        text.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": ")).map(|(path, _)| path);
    named.filter(|path| path.starts_with('/')).collect()
}

/// Where its configuration goes is said, so that it meets the team's.
const SHOP: &str = "    shop: {layout: {config: shared/config}}\n";

#[test]
fn a_first_render_on_a_capistrano_tree_takes_nothing() {
    let place = Place::new();
    place.capistrano();
    let before = place.facts("");
    let team = place.facts("/var/www");
    for arguments in [&["--no-sync"][..], &["--no-sync", "--prune"], &["--no-sync", "--backup"], &["--diff"]]
    {
        let text = place.refused(SHOP, arguments);
        let paths = [format!("{APP}/shared/config"), format!("{APP}/shared/config/unicorn.rb")];
        assert_eq!(named(&text), paths, "{text}");
        assert!(text.contains("use --adopt") && text.contains("move them away"), "{text}");
        assert_eq!(place.facts(""), before, "{arguments:?}");
    }
    // A neighbour of the same run is made.
    let text = place.refused(&format!("{SHOP}    lobby: {{bind: \"127.0.0.1:8001\"}}\n"), &["--no-sync"]);
    assert!(text.contains("error: shop: runsmith did not make what is at 2 paths"), "{text}");
    assert!(place.at("/etc/service/lobby").symlink_metadata().is_ok());
    assert!(!place.at("/etc/sv/shop").exists());
    place.has_all(&team, "/var/www");
    // For programs.
    let output = place.command(SHOP, &["--no-sync", "--format", "json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["failed"][0]["services"], serde_json::json!(["shop"]), "{json:#}");
    assert_eq!(
        json["failed"][0]["foreign"][1],
        serde_json::json!({
            "path": format!("{APP}/shared/config/unicorn.rb"),
            "kind": "file",
            "change": format!("content, mode 0664 -> 0644, owner {0} -> root, group {0} -> root", place.user.name),
        })
    );
    // Its own place needs no permission, and what was there stays: while it is there, pruned, and removed.
    let elsewhere = "    shop: {}\n";
    let text = place.rendered(elsewhere, &["--no-sync"]);
    assert!(place.at("/etc/sv/shop/run").exists() && !text.contains("did not make"), "{text}");
    place.has_all(&team, "/var/www");
    assert_eq!(place.rendered(elsewhere, &["--no-sync"]), "nothing to change\n");
    place.rendered("    lobby: {}\n", &["--no-sync", "--prune"]);
    assert!(!place.at("/etc/sv/shop").exists());
    place.has_all(&team, "/var/www");
    assert!(!place.at(&format!("{APP}/shared/runsmith")).exists());
    place.rendered(elsewhere, &["--no-sync"]);
    place.remove("shop");
    place.has_all(&team, "/var/www");
}

#[test]
fn what_is_adopted_is_kept_and_comes_back() {
    let place = Place::new();
    place.capistrano();
    let before = place.facts("/var/www");
    let (code, shown) = place.render(SHOP, &["--diff", "--adopt"]);
    assert!(
        code == 1 && shown.matches("note: adopted, though runsmith did not make it: ").count() == 2,
        "{shown}"
    );
    assert_eq!(place.facts("/var/www"), before);
    let text = place.rendered(SHOP, &["--no-sync", "--adopt"]);
    assert!(
        text.contains("note: what was there before is kept in ROOT/var/lib/runsmith/backup/0001\n"),
        "{text}"
    );
    let config = fs::metadata(place.at(&format!("{APP}/shared/config"))).unwrap();
    assert_eq!((config.uid(), config.mode() & 0o7777), (0, 0o755));
    // What is only used, and what nobody wants, is as it was.
    for path in ["", "/releases", "/shared", "/shared/config/master.key", "/current"] {
        let path = place.at(&format!("{APP}{path}")).to_str().unwrap().to_owned();
        assert_eq!(place.facts("/var/www")[&path], before[&path], "{path}");
    }
    // From now on a record names it: no permission is needed, and no backup is made.
    let other = SHOP.replace("layout", "unicorn: {timeout: 77}, layout");
    let text = place.rendered(&other, &["--no-sync", "--adopt"]);
    assert!(!text.contains("kept in") && !text.contains("did not make"), "{text}");
    assert!(!place.at("/var/lib/runsmith/backup/0002").exists());
    place.rendered(SHOP, &["--no-sync"]);
    // Removing takes away what runsmith wrote; the old version is where it was said to be.
    place.remove("shop");
    let mut copied = Command::new("sh");
    copied.args(["-c", "cp -a var/lib/runsmith/backup/0001/* ."]).current_dir(place.at(""));
    assert!(copied.status().unwrap().success());
    place.has_all(&before, "/var/www");
}

#[test]
fn a_service_of_somebody_else_is_not_taken() {
    let place = Place::new();
    for path in ["/etc/sv/shop", "/etc/service", "/opt/shop"] {
        fs::create_dir_all(place.at(path)).unwrap();
    }
    fs::write(place.at("/etc/sv/shop/run"), "#!/bin/sh\nexec by-hand\n").unwrap();
    symlink("/opt/shop", place.at("/etc/service/shop")).unwrap();
    let before = place.facts("");
    for applications in ["    shop: {}\n", "    shop: {service: {enabled: false}}\n"] {
        let text = place.refused(applications, &["--no-sync", "--prune"]);
        assert!(named(&text).contains(&"/etc/sv/shop/run"), "{text}");
        assert_eq!(place.facts(""), before);
    }
    // A directory in the place of a file cannot be adopted.
    fs::create_dir(place.at("/etc/sv/shop/finish")).unwrap();
    let before = place.facts("/etc");
    let text = place.refused("    shop: {}\n", &["--no-sync", "--adopt"]);
    assert!(text.contains("ROOT/etc/sv/shop/finish: a directory is in its place; move it away"), "{text}");
    assert_eq!(place.facts("/etc"), before);
    fs::remove_dir(place.at("/etc/sv/shop/finish")).unwrap();
    place.rendered("    shop: {}\n", &["--no-sync", "--adopt"]);
    let kept = place.at("/var/lib/runsmith/backup/0001/etc");
    assert_eq!(fs::read_to_string(kept.join("sv/shop/run")).unwrap(), "#!/bin/sh\nexec by-hand\n");
    assert_eq!(fs::read_link(kept.join("service/shop")).unwrap(), Path::new("/opt/shop"));
}

#[test]
fn without_a_record_what_is_as_wanted_is_recorded_and_the_rest_refused() {
    let place = Place::new();
    let both = "    shop: {}\n    lobby: {bind: \"127.0.0.1:8001\"}\n";
    place.rendered(both, &["--no-sync"]);
    let record = place.at("/var/lib/runsmith/services/shop");
    let made = || -> Vec<String> {
        let record: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        let made = record["made"].as_array().unwrap().iter();
        made.map(|made| made["path"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = made();
    // Lost, and nothing else has changed.
    fs::remove_file(&record).unwrap();
    assert_eq!(place.rendered(both, &["--no-sync"]), "nothing to change\n");
    // Directories that are only used are not recorded a second time: nobody knows who made them.
    all.retain(|path| ![APP, "/var/www/shop/releases", "/var/www/shop/shared"].contains(&path.as_str()));
    assert_eq!(made(), all);
    // Lost, and something else is wanted; or wanted at another mode.
    let other = both.replace("shop: {}", "shop: {unicorn: {timeout: 77}}");
    fs::remove_file(&record).unwrap();
    fs::set_permissions(place.at("/etc/sv/shop/check"), fs::Permissions::from_mode(0o700)).unwrap();
    let before = place.facts("/etc");
    let text = place.refused(&other, &["--no-sync"]);
    assert!(named(&text).contains(&"/etc/sv/shop/check") && text.contains("mode 0700 -> 0755"), "{text}");
    assert_eq!(place.facts("/etc"), before);
    let text = place.rendered(&other, &["--no-sync", "--adopt"]);
    assert!(text.contains("/etc/sv/shop/check: mode 0700 -> 0755\n"), "{text}");
    // Damaged: it is a failure of its service, and of no other.
    fs::write(&record, "{").unwrap();
    let changed = other.replace("lobby: {", "lobby: {unicorn: {timeout: 66}, ").replace("77", "55");
    let before = place.facts("/etc/sv/shop");
    let shown = place.refused(&changed, &["--diff"]);
    assert!(shown.contains("error: --out would be refused: cannot use the record"), "{shown}");
    let text = place.refused(&changed, &["--no-sync"]);
    assert!(
        text.contains("error: shop: cannot use the record ROOT/var/lib/runsmith/services/shop"),
        "{text}"
    );
    assert!(text.contains("/unicorn.rb: content\n") && !text.contains("did not make"), "{text}");
    assert_eq!(place.facts("/etc/sv/shop"), before);
}

#[test]
fn what_the_record_of_any_service_names_needs_no_permission() {
    let place = Place::new();
    place.rendered("    old: {root: /srv/shop}\n", &["--no-sync"]);
    // The application has another name now, and the same configuration file with another text.
    place.rendered("    shop: {root: /srv/shop, unicorn: {timeout: 77}}\n", &["--no-sync"]);
    // What was made by a run without a record of its directories' owners: the one of an earlier version.
    let record = place.at("/var/lib/runsmith/services/shop");
    let text = fs::read_to_string(&record).unwrap();
    let mut older: Value = serde_json::from_str(&text).unwrap();
    for made in older["made"].as_array_mut().unwrap() {
        made.as_object_mut().unwrap().remove("owner");
    }
    fs::write(&record, older.to_string()).unwrap();
    let text =
        place.rendered("    shop: {root: /srv/shop, unicorn: {timeout: 66}}\n", &["--no-sync", "--prune"]);
    assert!(text.contains("/unicorn.rb: content\n") && !text.contains("did not make"), "{text}");
}

#[test]
fn a_directory_that_is_only_used_stays_as_it_is() {
    let place = Place::new();
    // By root's hand, and not given to the user.
    for path in [APP, &format!("{APP}/shared")] {
        fs::create_dir_all(place.at(path)).unwrap();
        fs::set_permissions(place.at(path), fs::Permissions::from_mode(0o751)).unwrap();
    }
    let before = place.facts("/var/www");
    for arguments in [&["--no-sync"][..], &["--no-sync", "--adopt"], &["--no-sync", "--prune"]] {
        let text = place.rendered("    shop: {}\n", arguments);
        let name = &place.user.name;
        let note = format!("note: ROOT{APP} belongs to root and not to {name}: it is used as it is");
        assert!(text.contains(&note), "{text}");
        place.has_all(&before, "/var/www");
    }
    let (code, text) = place.render("    shop: {}\n", &["--diff"]);
    assert!(code == 0 && text.contains("nothing changes"), "{text}");
    // Nothing but these are left.
    place.remove("shop");
    assert_eq!(place.facts("/var/www"), before);
    // A run that makes them owns them: what somebody changes is set back, and they go.
    fs::remove_dir_all(place.at(APP)).unwrap();
    place.rendered("    shop: {}\n", &["--no-sync"]);
    fs::set_permissions(place.at(APP), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(
        place.rendered("    shop: {}\n", &["--no-sync"]).contains(&format!("{APP}: mode 0700 -> 0755\n"))
    );
    place.remove("shop");
    assert!(!place.at(APP).exists());
}

/// Somebody makes the service directory while the run is at work, between its look and its renaming.
#[test]
fn what_appears_meanwhile_is_not_runsmiths() {
    let place = Place::new();
    fs::create_dir_all(place.at("/etc/sv")).unwrap();
    let run = place.command("    shop: {}\n", &[]);
    let log = place.scratch.path().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=syncfs", "-e", "inject=syncfs:signal=STOP:when=1", "-o"]);
    command.arg(&log).arg(run.get_program()).args(run.get_args());
    let strace = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut strace = strace.expect("strace is needed: run scripts/setup test");
    // It syncs once everything is compared, and written under temporary names; then it is stopped.
    let stopped = loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("--- stopped by SIGSTOP")) {
            break line.split(' ').next().unwrap().to_owned();
        }
        assert!(strace.try_wait().unwrap().is_none(), "the run was not stopped: {text}");
        std::thread::yield_now();
    };
    let mine = place.at("/etc/sv/shop/run");
    fs::create_dir(place.at("/etc/sv/shop")).unwrap();
    fs::write(&mine, "by hand").unwrap();
    assert!(Command::new("kill").args(["-CONT", &stopped]).status().unwrap().success());
    let (code, text) = place.printed(&strace.wait_with_output().unwrap());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("ROOT/etc/sv/shop"), "{text}");
    // Nothing was made: neither this, nor what was left out because of it.
    let record = fs::read_to_string(place.at("/var/lib/runsmith/services/shop")).unwrap_or_default();
    for path in ["/etc/sv/shop/run", "/etc/service/shop", "/var/www/shop/shared/runsmith"] {
        assert!(!record.contains(&format!("\"{path}\"")), "{record}");
        assert!(path == "/etc/sv/shop/run" || place.at(path).symlink_metadata().is_err());
    }
    // The next run does not take for runsmith's what somebody makes there.
    fs::create_dir_all(place.at("/etc/service")).unwrap();
    symlink("/opt/by-hand", place.at("/etc/service/shop")).unwrap();
    let text = place.refused("    shop: {}\n", &["--no-sync"]);
    for path in ["/etc/sv/shop/run", "/etc/service/shop"] {
        assert!(named(&text).contains(&path), "{text}");
    }
    assert_eq!(fs::read_to_string(&mine).unwrap(), "by hand");
    assert_eq!(fs::read_link(place.at("/etc/service/shop")).unwrap(), Path::new("/opt/by-hand"));
}

#[test]
fn what_cannot_be_kept_is_not_adopted() {
    let place = Place::new();
    place.capistrano();
    // Larger than what a backup takes, without needing so much of the disk.
    let file = place.at(&format!("{APP}/shared/config/unicorn.rb"));
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(80 << 20).unwrap();
    let before = fs::metadata(&file).unwrap();
    let text = place.refused(SHOP, &["--no-sync", "--adopt"]);
    assert!(
        text.contains("cannot keep the old version of ROOT/var/www/shop/shared/config/unicorn.rb"),
        "{text}"
    );
    let now = fs::metadata(&file).unwrap();
    assert_eq!((now.len(), now.uid(), now.ino()), (before.len(), before.uid(), before.ino()));
    assert!(!place.at("/etc/sv/shop").exists() && !place.at("/var/lib/runsmith/backup/0001").exists());
}
