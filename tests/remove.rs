//! `runsmith remove`: one service of several goes, with all that was made for it and nothing else.

#![allow(clippy::disallowed_methods, reason = "a test may look")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::SOON;
use support::service::{Server, Service, Socket};

const PILLAR: &str = "unicorn:
  defaults: {user: nobody, group: nogroup, virtualenv: /opt/venv}
  applications:
    lobby: {secrets: {API_TOKEN: s3cr3tv4lue}}
    shop: {bind: '127.0.0.1:8001'}
";

fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runsmith")).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything below a directory but runsmith's own records.
fn paths(directory: &Path) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(paths(&path));
        }
        found.push(path.display().to_string());
    }
    found.sort();
    found
}

fn listed(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect()
}

#[test]
fn one_of_two_services_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    fs::write(here.join("pillar.yaml"), PILLAR).unwrap();
    // In another set than the default one: that does not matter to who names a service.
    let made = runsmith(here, &["render", "pillar.yaml", "--out", "root", "--set", "web"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let before = paths(&here.join("root"));

    let shown = runsmith(here, &["remove", "lobby", "--root", "root", "--diff", "--format", "json"]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown.stderr));
    let diff: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(diff["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(diff["services"][0]["name"], "lobby");
    assert_eq!(diff["services"][0]["impact"]["effect"], "remove");
    assert!(!text(&shown.stdout).contains("s3cr3tv4lue"), "a secret is shown");
    assert_eq!(paths(&here.join("root")), before, "--diff changes nothing");

    let removed = runsmith(here, &["remove", "lobby", "--root", "root", "--format", "json"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let done: serde_json::Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(
        listed(&done["changes"]),
        listed(&diff["services"][0]["entries"]),
        "what --diff shows is done"
    );
    let after = paths(&here.join("root"));
    assert!(!after.iter().any(|path| path.contains("lobby")), "{after:#?}");
    let others: Vec<_> = before.into_iter().filter(|path| !path.contains("lobby")).collect();
    assert_eq!(after, others);

    let again = runsmith(here, &["remove", "lobby", "--root", "root", "--diff"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stdout));
    let again = runsmith(here, &["remove", "lobby", "--root", "root"]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(0), "nothing to change\n".to_owned()));
    let note = "note: no record of a service lobby is below root: nothing is removed for it\n";
    assert!(text(&again.stderr).starts_with(note), "{}", text(&again.stderr));
}

#[test]
fn what_two_services_were_made_with_stays_with_the_other() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    let logs =
        "{layout: {logs: {path: /srv/logs, user: root, group: root, mode: '0755'}}, log: {kind: none}, ";
    let shared =
        PILLAR.replace("lobby: {", &format!("lobby: {logs}")).replace("shop: {", &format!("shop: {logs}"));
    fs::write(here.join("pillar.yaml"), shared).unwrap();
    let made = runsmith(here, &["render", "pillar.yaml", "--out", "root", "--allow", "all"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(runsmith(here, &["remove", "lobby", "--root", "root"]).status.success());
    assert!(here.join("root/srv/logs").is_dir());
    assert!(runsmith(here, &["remove", "shop", "--root", "root"]).status.success());
    assert!(!here.join("root/srv/logs").exists());
}

#[test]
fn a_name_that_is_a_path_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["../services/lobby", "/etc", ".", "..", ""] {
        let refused = runsmith(scratch.path(), &["remove", name, "--root", "."]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let said = text(&refused.stderr);
        assert!(said.contains("is no name of an application"), "{said}");
    }
}

#[test]
fn pages_and_completions_know_every_command() {
    let here = Path::new("/");
    let main = text(&runsmith(here, &["man"]).stdout);
    let help = text(&runsmith(here, &["--help"]).stdout);
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names: Vec<&str> =
        commands.lines().filter(is_name).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 9 && names.contains(&"remove") && names.contains(&"man"), "{names:?}");
    for name in names {
        assert!(main.contains(&format!("runsmith\\-{name}(8)")), "{name} is not on the page:\n{main}");
        let page = runsmith(here, &["man", name]);
        assert!(page.status.success() && text(&page.stdout).contains(".SH SYNOPSIS"), "{name}");
    }
    assert_eq!(runsmith(here, &["man", "no-such"]).status.code(), Some(2));
    for shell in ["zsh", "fish"] {
        let script = runsmith(here, &["completions", shell]);
        assert!(script.status.success() && text(&script.stdout).contains("upgrade"), "{shell}");
    }
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("completion"), runsmith(here, &["completions", "bash"]).stdout).unwrap();
    // What bash itself offers after `runsmith up` and the tabulator.
    let ask = "source ./completion; COMP_WORDS=(runsmith up); COMP_CWORD=1; _runsmith runsmith up runsmith
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let offered = Command::new("bash").args(["-c", ask]).current_dir(scratch.path()).output().unwrap();
    assert_eq!(text(&offered.stdout), "upgrade\n", "{}", text(&offered.stderr));
}

#[test]
fn what_the_runtime_keeps_in_the_service_directory_is_its_own_and_goes_with_the_service() {
    const SOON_PROVEN: &str = "restart: {min_uptime: 1}\n";
    let service = Service::start_native(Server::Sync, Socket::Tcp, SOON_PROVEN);
    service.log.wait(0, &["runsmith: proven:"], SOON);
    let state = service.directory.join("state");
    let proven = fs::read(state.join("proven.json")).unwrap();
    fs::write(state.join("failed.json"), "{}").unwrap();

    // It is no difference, and no run takes it away while the service is wanted.
    let pillar = service.scratch().join("pillar.yaml");
    let render = |more: &[&str]| {
        let arguments = [&["render", pillar.to_str().unwrap(), "--no-sync"], more].concat();
        runsmith(Path::new("/"), &arguments)
    };
    let same = render(&["--diff", "--root", "/", "--prune"]);
    assert_eq!(same.status.code(), Some(0), "{}{}", text(&same.stdout), text(&same.stderr));
    let applied = render(&["--out", "/", "--prune"]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    assert_eq!(text(&applied.stdout), "nothing to change\n");
    assert_eq!(fs::read(state.join("proven.json")).unwrap(), proven);

    // It goes with the service, as was shown.
    let shown = runsmith(Path::new("/"), &["remove", &service.name, "--diff", "--format", "json"]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let removed = runsmith(Path::new("/"), &["remove", &service.name, "--format", "json"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let removed: serde_json::Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(listed(&removed["changes"]), listed(&shown["services"][0]["entries"]));
    assert!(!service.directory.exists(), "{:?}", paths(&service.directory));
}
