//! What `render --out` promises where others have been before it: one service that cannot be done keeps no
//! other from being done.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::host::User;

/// A scratch ROOT for services of a user of its own, and the pillars that are rendered into it.
struct Place {
    // Ends its processes before the directory goes.
    user: User,
    scratch: tempfile::TempDir,
}

/// Services at ports of their own, so that a pillar may have all of them.
const SERVICES: [(&str, u16); 3] = [("lobby", 8001), ("shop", 8002), ("web", 8003)];

impl Place {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root: they set owners");
        let scratch = tempfile::Builder::new().prefix("rsf").tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { user: User::new(), scratch };
        fs::create_dir(place.at("/")).unwrap();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a pillar with these services; `more` is further keys of each.
    fn pillar(&self, file: &str, services: &[&str], more: &str) {
        let user = &self.user.name;
        let mut text = format!(
            "unicorn:\n  defaults: {{user: {user}, group: {user}, home: /srv, virtualenv: /v}}\n  applications:\n"
        );
        for name in services {
            let port = SERVICES.iter().find(|(known, _)| known == name).unwrap().1;
            text.push_str(&format!("    {name}: {{root: /srv/{name}, bind: \"127.0.0.1:{port}\"{more}}}\n"));
        }
        fs::write(self.scratch.path().join(file), text).unwrap();
    }

    fn runsmith(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        command.current_dir(&self.scratch).args(arguments).output().unwrap()
    }

    /// Renders; the exit code, and what is printed on both streams with the scratch directory taken out.
    fn out(&self, pillar: &str, more: &[&str]) -> (i32, String) {
        self.said(&self.runsmith(&[&["render", pillar, "--out", "root", "--no-sync"], more].concat()))
    }

    fn said(&self, output: &Output) -> (i32, String) {
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&text).replace(self.scratch.path().to_str().unwrap(), "SCRATCH");
        // Runs of other tests have to be waited for.
        let lines = text.lines().filter(|line| !line.contains("waiting for it to end"));
        (output.status.code().unwrap(), lines.map(|line| format!("{line}\n")).collect())
    }

    /// Whether a service is on disk with the value of a secret.
    fn has(&self, service: &str, value: &str) -> bool {
        fs::read_to_string(self.at(&format!("/etc/sv/{service}/env/TOKEN")))
            .is_ok_and(|text| text.starts_with(&format!("{value}\n")))
    }

    /// Starts a program as the user, and waits until it has printed a line.
    fn as_user(&self, script: &str) -> Program {
        let mut child = Command::new("setpriv")
            .args(["--reuid", &self.user.name, "--regid", &self.user.name, "--clear-groups"])
            .args(["/usr/bin/python3", "-c", script])
            .current_dir(self.at("/srv/web"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "begun\n");
        Program(child)
    }
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ALL: &[&str] = &["lobby", "shop", "web"];

/// A lease makes whoever opens the file wait for its holder, or fail.
const LEASE: &str = "
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
os.rename('shared/logs/service', 'shared/logs/aside')
os.mkdir('shared/logs/service')
held = os.open('shared/logs/service/config', os.O_RDWR | os.O_CREAT)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.write(1, b'begun\\n')
signal.pause()
";

/// Every directory that root goes through, exchanged over and over.
const RENAMES: &str = "
import os
begun = False
while True:
    for path in ('shared/logs', 'shared/pids', 'shared'):
        try:
            os.rename(path, path + '.aside')
            os.symlink('/etc', path)
            os.unlink(path)
            os.rename(path + '.aside', path)
        except OSError:
            pass
    if not begun:
        os.write(1, b'begun\\n')
        begun = True
";

/// The secret of each service is rotated, whatever the user of one of them does meanwhile.
#[test]
fn one_user_blocks_no_other_service() {
    for trick in ["link", "lease", "renames", "owner"] {
        let place = Place::new();
        place.pillar("all.yaml", ALL, ", secrets: {TOKEN: one}");
        let (code, said) = place.out("all.yaml", &[]);
        assert_eq!(code, 0, "{said}");
        let mut user = None;
        place.pillar("all.yaml", ALL, ", secrets: {TOKEN: two}");
        match trick {
            "link" => {
                fs::remove_dir(place.at("/srv/web/shared/pids")).unwrap();
                symlink("/etc", place.at("/srv/web/shared/pids")).unwrap();
            }
            "lease" => user = Some(place.as_user(LEASE)),
            "renames" => user = Some(place.as_user(RENAMES)),
            _ => {
                // The pillar of one service names a user that this host does not know.
                let file = place.scratch.path().join("all.yaml");
                let text = fs::read_to_string(&file).unwrap();
                let layout = "web: {layout: {sockets: {user: no-such-user}}, ";
                fs::write(&file, text.replace("web: {", layout)).unwrap();
            }
        }
        let (code, said) = place.out("all.yaml", &[]);
        drop(user);
        assert!(place.has("lobby", "two") && place.has("shop", "two"), "{trick}: {said}");
        // Who renames may lose every race, and then there is nothing to report.
        if trick == "renames" {
            assert!(code == 0 || said.contains("error: web: cannot "), "{said}");
            continue;
        }
        assert_eq!(code, 2, "{trick}: {said}");
        let reason = match trick {
            "link" => "error: web: cannot follow the link root/srv/web/shared/pids",
            "lease" => "error: web: cannot read root/srv/web/shared/logs/service/config: ",
            _ => "error: web: cannot set the owners below root: this host has no user no-such-user",
        };
        assert!(said.contains(reason), "{trick}: {said}");
        assert!(place.has("web", "one"), "{trick}: a service that fails is left as it was: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{trick}: {said}");
    }
}

/// On a host where nothing is yet, directories that all services share are made for those that can be done.
#[test]
fn a_service_that_fails_leaves_nothing_of_it_in_new_directories() {
    let place = Place::new();
    fs::create_dir_all(place.at("/srv/web/shared")).unwrap();
    symlink("/etc", place.at("/srv/web/shared/pids")).unwrap();
    for path in ["/srv/web", "/srv/web/shared"] {
        chown(place.at(path), Some(place.user.uid), Some(place.user.uid)).unwrap();
    }
    place.pillar("all.yaml", ALL, ", secrets: {TOKEN: one}");
    let output = place.runsmith(&["render", "all.yaml", "--out", "root", "--no-sync", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = result["failed"].as_array().unwrap();
    assert!(failed.len() == 1 && failed[0]["services"] == serde_json::json!(["web"]), "{result}");
    let paths: Vec<&str> =
        result["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"/etc/sv/shop/run") && paths.contains(&"/etc/service/shop"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("/web")), "{paths:?}");
    assert!(place.has("lobby", "one") && place.has("shop", "one"));
    for path in ["/etc/sv/web", "/etc/service/web", "/var/lib/runsmith/services/web", "/srv/web/releases"] {
        assert!(fs::symlink_metadata(place.at(path)).is_err(), "{path}");
    }
    // Once the link has gone, the next run does what is left.
    fs::remove_file(place.at("/srv/web/shared/pids")).unwrap();
    let (code, said) = place.out("all.yaml", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(place.has("web", "one") && !said.contains("shop"), "{said}");
    assert_eq!(fs::metadata(place.at("/srv/web/shared/pids")).unwrap().uid(), place.user.uid);
}

/// What is to go may be what the failed one replaces: it stays until all could be done.
#[test]
fn nothing_is_removed_as_long_as_a_service_fails() {
    let place = Place::new();
    place.pillar("pillar.yaml", &["lobby", "shop"], ", secrets: {TOKEN: one}");
    assert_eq!(place.out("pillar.yaml", &[]).0, 0);
    place.pillar("pillar.yaml", &["lobby", "web"], ", secrets: {TOKEN: two}");
    fs::create_dir_all(place.at("/srv/web/shared")).unwrap();
    symlink("/etc", place.at("/srv/web/shared/pids")).unwrap();
    for path in ["/srv/web", "/srv/web/shared"] {
        chown(place.at(path), Some(place.user.uid), Some(place.user.uid)).unwrap();
    }
    let (code, said) = place.out("pillar.yaml", &["--prune"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("note: kept shop, which was to be removed: not all services could be done"),
        "{said}"
    );
    assert!(place.has("lobby", "two") && place.has("shop", "one"), "{said}");
    fs::remove_file(place.at("/srv/web/shared/pids")).unwrap();
    let (code, said) = place.out("pillar.yaml", &["--prune"]);
    assert_eq!(code, 0, "{said}");
    assert!(place.has("web", "two") && !place.at("/etc/sv/shop").exists(), "{said}");
}

impl Place {
    /// The services that there are records of, each with its set.
    fn sets(&self) -> Vec<(String, String)> {
        let mut sets: Vec<_> = fs::read_dir(self.at("/var/lib/runsmith/services"))
            .unwrap()
            .map(|entry| {
                let record: Value =
                    serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
                let text = |key: &str| record[key].as_str().unwrap().to_owned();
                (text("service"), text("set").replace(self.scratch.path().to_str().unwrap(), "SCRATCH"))
            })
            .collect();
        sets.sort();
        sets
    }

    /// Makes the records as a version left them that did not know from which pillar a service came.
    fn age_records(&self) {
        for entry in fs::read_dir(self.at("/var/lib/runsmith/services")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let (before, rest) = text.split_once("\"set\":\"").unwrap();
            let after = rest.split_once('"').unwrap().1;
            fs::write(&path, format!("{before}\"set\":\"default\"{after}")).unwrap();
        }
    }
}

#[test]
fn pillars_side_by_side_prune_their_own_and_list_it_first() {
    let place = Place::new();
    place.pillar("one.yaml", &["lobby", "shop"], "");
    place.pillar("two.yaml", &["web"], ", secrets: {TOKEN: one}");
    assert_eq!(place.out("one.yaml", &[]).0, 0);
    assert_eq!(place.out("two.yaml", &["--prune"]).0, 0);
    let (code, said) = place.out("./one.yaml", &["--prune"]);
    assert_eq!((code, said.as_str()), (0, "nothing to change\n"), "the same file by another name");
    let set = |service: &str, set: &str| (service.to_owned(), set.to_owned());
    let expected =
        [set("lobby", "SCRATCH/one.yaml"), set("shop", "SCRATCH/one.yaml"), set("web", "SCRATCH/two.yaml")];
    assert_eq!(place.sets(), expected);

    place.pillar("one.yaml", &["lobby"], "");
    place.pillar("two.yaml", &["web"], "");
    let (code, said) = place.out("one.yaml", &["--prune"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("note: to be removed: the service shop, "), "{said}");
    assert!(!place.at("/etc/sv/shop").exists() && place.has("web", "one"), "{said}");
    let (_, said) = place.out("two.yaml", &["--prune"]);
    assert!(said.contains("note: to be removed: /etc/sv/web/env/TOKEN\n"), "{said}");
    assert!(place.at("/etc/sv/lobby/run").exists(), "{said}");

    // What is listed is on standard error before anything is stopped or removed: here that is refused.
    place.pillar("two.yaml", &["lobby"], "");
    let strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/stdout", "-e", "trace=write,unlinkat", "-s", "60"])
        .args([env!("CARGO_BIN_EXE_runsmith"), "render", "two.yaml", "--out", "root", "--no-sync", "--prune"])
        .current_dir(&place.scratch)
        .output()
        .expect("strace is needed: run scripts/setup test");
    let calls = String::from_utf8_lossy(&strace.stdout).into_owned();
    let at = |what: &str| calls.lines().position(|line| line.contains(what));
    let listed = at("note: to be removed: the service web").unwrap_or_else(|| panic!("{calls}"));
    assert!(at("unlinkat(").is_some_and(|removed| listed < removed), "{calls}");
}

/// A pillar that gets another name takes its services along; those that it does not have any more are
/// named with the way to reach them.
#[test]
fn a_pillar_that_is_renamed_takes_its_services_along() {
    let place = Place::new();
    place.pillar("old.yaml", &["lobby", "shop"], "");
    assert_eq!(place.out("old.yaml", &[]).0, 0);
    fs::remove_file(place.scratch.path().join("old.yaml")).unwrap();
    place.pillar("new.yaml", &["lobby"], "");
    let old = place.scratch.path().join("old.yaml");
    for show in [true, false] {
        let (code, said) = match show {
            true => {
                place.said(&place.runsmith(&["render", "new.yaml", "--diff", "--root", "root", "--prune"]))
            }
            false => place.out("new.yaml", &["--prune"]),
        };
        assert_eq!(code, 0, "{said}");
        let note = "note: left alone: shop; the pillar that they were made from is not there any more; \
                    `--set SCRATCH/old.yaml` lets --prune remove what the pillar does not have";
        assert!(said.contains(note), "{said}");
        assert!(place.at("/etc/sv/shop/run").exists(), "{said}");
        let taken =
            "note: lobby belonged to the set SCRATCH/old.yaml; it is taken over by the set of this run";
        assert_eq!(said.contains(taken), !show, "{said}");
    }
    let (code, said) = place.out("new.yaml", &["--prune", "--set", old.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert!(!place.at("/etc/sv/shop").exists() && place.at("/etc/sv/lobby/run").exists(), "{said}");
}

/// A directory of pillars is one source, whichever of its files a service comes from.
#[test]
fn a_directory_of_pillars_is_one_source() {
    let place = Place::new();
    fs::create_dir(place.scratch.path().join("pillars")).unwrap();
    place.pillar("pillars/a.yaml", &["lobby"], "");
    place.pillar("pillars/b.yaml", &["shop"], "");
    assert_eq!(place.out("pillars", &[]).0, 0);
    assert!(place.sets().iter().all(|(_, set)| set == "SCRATCH/pillars"), "{:?}", place.sets());
    fs::remove_file(place.scratch.path().join("pillars/b.yaml")).unwrap();
    let (code, said) = place.out("pillars/", &["--prune"]);
    assert_eq!(code, 0, "{said}");
    assert!(!place.at("/etc/sv/shop").exists(), "{said}");
}

/// Records that do not say from which pillar a service came are reached by name only.
#[test]
fn services_of_an_earlier_version_are_not_pruned_unless_their_set_is_named() {
    let place = Place::new();
    place.pillar("one.yaml", &["lobby", "shop", "web"], "");
    assert_eq!(place.out("one.yaml", &[]).0, 0);
    place.age_records();
    place.pillar("one.yaml", &["lobby"], "");
    let (code, said) = place.out("one.yaml", &["--prune"]);
    assert_eq!(code, 0, "{said}");
    let note = "note: left alone: shop, web; an earlier version made them, and did not record from which pillar; \
                `--set default` lets --prune remove what the pillar does not have, `runsmith remove NAME` removes one";
    assert!(said.contains(note) && !said.contains("taken over"), "{said}");
    assert!(place.at("/etc/sv/shop/run").exists() && place.at("/etc/sv/web/run").exists(), "{said}");
    let (code, said) = place.said(&place.runsmith(&["remove", "web", "--root", "root"]));
    assert_eq!(code, 0, "{said}");
    assert!(!place.at("/etc/sv/web").exists() && place.at("/etc/sv/shop/run").exists(), "{said}");
    let (code, said) = place.out("one.yaml", &["--prune", "--set", "default"]);
    assert_eq!(code, 0, "{said}");
    assert!(!place.at("/etc/sv/shop").exists() && place.at("/etc/sv/lobby/run").exists(), "{said}");
}

/// What comes from a pipe cannot be told from what comes from another.
#[test]
fn a_pillar_without_a_name_takes_no_service_away() {
    let place = Place::new();
    let render = |services: &[&str], more: &[&str]| {
        place.pillar("text.yaml", services, "");
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let text = fs::File::open(place.scratch.path().join("text.yaml")).unwrap();
        command.current_dir(&place.scratch).stdin(text);
        command.args(["render", "-", "--out", "root", "--no-sync", "--prune"]).args(more);
        place.said(&command.output().unwrap())
    };
    assert_eq!(render(&["lobby", "shop"], &[]).0, 0);
    let (code, said) = render(&["lobby"], &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("note: --prune removes no whole service: a pillar from standard input"), "{said}");
    assert!(place.at("/etc/sv/shop/run").exists(), "{said}");
    assert_eq!(render(&["lobby", "shop"], &["--set", "mine"]).0, 0);
    let (code, said) = render(&["lobby"], &["--set", "mine"]);
    assert_eq!(code, 0, "{said}");
    assert!(!place.at("/etc/sv/shop").exists(), "{said}");
}
