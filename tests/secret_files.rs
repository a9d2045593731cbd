//! Secrets that are handed over as files: who can read them, what each generation reads, and when they go.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use support::host::{User, kill};
use support::service::{Release, Server, Service, Socket};
use support::{SOON, START, STOP};

/// A pillar's lines; `value` is JSON.
fn lines(value: &str) -> String {
    format!("secrets: {{API_TOKEN: {value}, OTHER_TOKEN: marmalade}}\nsecret_files: [API_TOKEN]\n")
}

/// What a user reads; none if it may not.
fn read_as(user: &str, path: &Path) -> Option<Vec<u8>> {
    let output = Command::new("chpst").args(["-u", user, "cat"]).arg(path).output().expect("chpst");
    output.status.success().then_some(output.stdout)
}

fn variables(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).expect("environ");
    String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned).collect()
}

/// Where a process is told that its secrets are.
fn directory_of(pid: u32) -> PathBuf {
    let all = variables(pid);
    let found = all.iter().find_map(|entry| entry.strip_prefix("CREDENTIALS_DIRECTORY="));
    PathBuf::from(found.unwrap_or_else(|| panic!("{all:?}")))
}

/// The directories of secrets in the run directory.
fn directories(service: &Service) -> Vec<String> {
    let mut all = support::row::names(&service.run_directory());
    all.retain(|name| name.starts_with("secrets"));
    all.sort();
    all
}

/// Waits until these are the directories of secrets.
fn until_there_are(service: &Service, wanted: &[&str]) {
    let until = Instant::now() + STOP;
    while directories(service) != wanted {
        assert!(Instant::now() < until, "{:?} instead of {wanted:?}", directories(service));
        std::thread::yield_now();
    }
}

#[test]
fn only_the_applications_user_can_read_them_and_nobody_can_change_them() {
    let value = "two lines\nand \"quotes\" ";
    let service = Service::start_native(
        Server::Sync,
        Socket::Unix,
        &lines(&serde_json::Value::from(value).to_string()),
    );
    let pid = service.master();
    let directory = directory_of(pid);
    assert_eq!(directory, service.run_directory().join("secrets.1"));
    assert_eq!(support::row::names(&directory), ["API_TOKEN"]);
    let all = variables(pid);
    assert!(!all.iter().any(|entry| entry.starts_with("API_TOKEN=") || entry.contains("quotes")), "{all:?}");
    assert!(all.contains(&"OTHER_TOKEN=marmalade".to_owned()), "{all:?}");

    let file = directory.join("API_TOKEN");
    assert_eq!(read_as(&service.name, &file).as_deref(), Some(value.as_bytes()));
    // Neither another user nor one that is in the application's group.
    let other = User::new();
    assert_eq!(read_as(&other.name, &file), None);
    assert_eq!(read_as(&format!("{}:{}", other.name, service.name), &file), None);
    assert_eq!(read_as("nobody", &file), None);
    let script = format!(
        "ls {0} && ! rm -f {0}/API_TOKEN && ! touch {0}/new && ! chmod 0777 {0} && ! chmod 0666 {0}/API_TOKEN && ! echo >{0}/API_TOKEN",
        directory.display()
    );
    let tried =
        Command::new("chpst").args(["-u", &service.name, "sh", "-c", &script]).output().expect("chpst");
    assert!(tried.status.success(), "{tried:?}");
    assert_eq!(fs::read(&file).expect("the file"), value.as_bytes());

    // Nowhere else: not in what others can read of the service.
    for path in [service.directory.join("run"), service.run_directory().join("state.json")] {
        assert!(!fs::read_to_string(&path).expect("a file").contains("two lines"), "{}", path.display());
    }
    assert!(!service.log.text(0).contains("two lines"));

    // Who removes the directory only makes the runtime make it again.
    let mark = service.log.mark();
    fs::remove_dir_all(&directory).expect("the directory");
    service.log.wait(mark, &["was removed and is made again"], SOON);
    assert_eq!(read_as(&service.name, &file).as_deref(), Some(value.as_bytes()));
    service.down();
}

#[test]
fn each_generation_has_its_own_until_it_has_gone() {
    // On probation until the end: what served before is what a fallback starts.
    let lines = |value: &str| format!("{}restart: {{min_uptime: 3600}}\n", lines(value));
    let mut service = Service::start_native(Server::Gthread, Socket::Unix, &lines("first"));
    let (old, first) = (service.master(), directory_of(service.master()));
    let slow = {
        let address = service.address.clone();
        service.hold();
        std::thread::spawn(move || address.get("/held"))
    };
    service.render_again(&lines("second"));
    let mark = service.begin_deploy(2, Release::Good);
    service.log.wait(mark, &["ready: generation 2 serves"], START);
    service.wait_for_version("2", SOON);
    let masters = service.user.masters();
    let new = *masters.iter().find(|pid| **pid != old).expect("a new master");
    let second = directory_of(new);
    assert_eq!(directories(&service), ["secrets.1", "secrets.2"]);
    assert_eq!(read_as(&service.name, &first.join("API_TOKEN")).as_deref(), Some(&b"first"[..]));
    assert_eq!(read_as(&service.name, &second.join("API_TOKEN")).as_deref(), Some(&b"second"[..]));

    // A runtime that is killed meanwhile leaves each what it has.
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], START);
    assert_eq!(directories(&service), ["secrets.1", "secrets.2"]);
    service.let_go();
    let body = slow.join().expect("a thread").expect("an answer");
    assert!(body.starts_with("1 "), "{body}");
    until_there_are(&service, &["secrets.2"]);

    // One that fails leaves nothing.
    service.render_again(&lines("third"));
    let line = service.deploy(3, Release::Broken);
    assert!(line.text.contains("FAILED"), "{}", line.text);
    assert_eq!(directories(&service), ["secrets.2"]);

    // Another start than a deploy takes them of what it starts, and not of what is on disk: here that is the release before.
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["generation 4 serves"], START);
    until_there_are(&service, &["secrets.4"]);
    let file = service.run_directory().join("secrets.4/API_TOKEN");
    assert_eq!(read_as(&service.name, &file).as_deref(), Some(&b"first"[..]));

    // A leftover of a run that was killed goes with the next one.
    let left = service.run_directory().join("secrets.77");
    fs::create_dir(&left).expect("a directory");
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], START);
    assert!(!left.exists());
    service.down();
}

#[test]
fn by_usr2_they_stay_where_the_first_start_has_put_them() {
    let service = Service::start_native(
        Server::Sync,
        Socket::Unix,
        &format!("{}handoff: {{strategy: usr2}}\n", lines("first")),
    );
    let directory = directory_of(service.master());
    assert_eq!(directory, service.run_directory().join("secrets"));
    let line = service.deploy(2, Release::Good);
    assert!(line.text.contains("done:"), "{}", line.text);
    assert_eq!(directory_of(service.master()), directory);
    assert_eq!(read_as(&service.name, &directory.join("API_TOKEN")).as_deref(), Some(&b"first"[..]));
    service.down();
}

/// A file system without access control lists: the file is its user's.
#[test]
fn without_access_control_lists_the_owner_can_read_them() {
    let mut service = Service::native(Server::Any, Socket::Tcp, &lines("first"));
    let run = service.run_directory();
    fs::create_dir(&run).expect("the run directory");
    let mounted = Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&run).status().expect("mount");
    assert!(mounted.success(), "a ramfs could not be mounted");
    service.runs("[/usr/bin/sleep, \"100000\"]");
    service.supervise();
    service.log.wait(0, &["runsmith: done:"], START);
    let file = directory_of(service.master()).join("API_TOKEN");
    let read = read_as(&service.name, &file);
    let other = User::new();
    let by_another = read_as(&format!("{}:{}", other.name, service.name), &file);
    service.sv("down");
    support::host::run("umount", &["-l", run.to_str().expect("UTF-8")]);
    assert_eq!(read.as_deref(), Some(&b"first"[..]));
    assert_eq!(by_another, None);
}
