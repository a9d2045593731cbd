//! What `status` and `upgrade` say is wrong, why, and what to do next: true, and of use when it is copied.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use rustix::process::Signal;

use support::faults::state;
use support::host::kill;
use support::row::said;
use support::service::{Release, Server, Service, Socket};
use support::{SOON, START};

/// Whether the sentence is in the text, wherever its lines are folded.
fn has(text: &str, sentence: &str) -> bool {
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    bare(text).contains(&bare(sentence))
}

/// What `status` prints, as one line.
fn status(service: &Service) -> (String, Option<i32>) {
    let output = service.runsmith(&["status"]);
    (said(&output), output.status.code())
}

/// The same by the application's user.
fn status_by_user(service: &Service) -> Output {
    let program = service.scratch().join("runsmith");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_runsmith"), &program).expect("a copy");
    }
    Command::new("chpst")
        .args(["-u", &service.name])
        .arg(program)
        .arg("status")
        .arg(&service.directory)
        .output()
        .expect("chpst")
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// runsv is there and cannot execute the run script: the application serves, and the reason, which is in runsvdir's output only, is
/// shown with what to do.
#[test]
fn a_run_script_that_cannot_be_executed_is_shown() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let run = service.directory.join("run");
    let mode = fs::metadata(&run).expect("run").permissions().mode();
    set_mode(&run, mode & !0o111);
    kill(service.runtime(), Signal::KILL);
    service.until("no runtime", |service| state(service)["runtime_pid"] == 0);
    let (text, code) = status(&service);
    assert_eq!(code, Some(1), "{text}");
    assert!(has(&text, ": UNSUPERVISED") && has(&text, "the application serves, but no runtime"), "{text}");
    let advice = format!("which is not executable: `chmod +x {}`", run.display());
    assert!(has(&text, &advice), "{text}");
    assert_eq!(service.version(), "1");
    let output = service.runsmith(&["upgrade"]);
    assert!(has(&said(&output), &advice), "{}", said(&output));
    set_mode(&run, mode);
    service.log.wait(0, &["goes on under this run"], START);
    // Nothing was changed, whatever the file's times are.
    assert_eq!(state(&service)["newer"], serde_json::json!([]));

    let good = fs::read_to_string(&run).expect("run");
    service.edit_run(|text| text.replacen("#!/", "#!/nowhere/", 1));
    kill(service.runtime(), Signal::KILL);
    service.until("no runtime", |service| state(service)["runtime_pid"] == 0);
    let (text, _) = status(&service);
    assert!(
        has(&text, "its first line names /nowhere/")
            && has(&text, "No such file or directory; install runsmith there"),
        "{text}"
    );
    let mark = service.log.mark();
    service.edit_run(|_| good.clone());
    service.log.wait(mark, &["goes on under this run"], START);
    service.down();
}

/// The application's user may ask the runtime, and may not read what runsv does: nothing is claimed of that.
#[test]
fn what_only_root_can_read_is_not_guessed() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let output = status_by_user(&service);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(has(&text, "only root can read what it does") && !has(&text, "no runsv"), "{text}");
    service.down();
    let text = said(&status_by_user(&service));
    assert!(!has(&text, "no runsv"), "{text}");
}

/// A service that is not there does not hide the others.
#[test]
fn an_unknown_name_hides_nothing() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let output = service.runsmith(&["status", "no-such-service"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let text = said(&output);
    assert!(has(&text, "there is no service no-such-service") && has(&text, ": serving"), "{text}");
    service.down();
}

/// Programs get one document, whatever is wrong, and every service is in the list.
#[test]
fn errors_are_documents_too() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let json = |output: &Output| -> serde_json::Value {
        assert_eq!(output.status.code(), Some(2), "{}", said(output));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{}", said(output));
        serde_json::from_slice(&output.stdout).expect("one document")
    };
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_runsmith")).args(arguments).output().expect("runsmith")
    };
    let unknown = json(&run(&["status", "no-such-service", "--format", "json"]));
    assert_eq!(
        (&unknown["services"], &unknown["errors"][0]["service"]),
        (&serde_json::json!([]), &"no-such-service".into())
    );
    let unknown = json(&run(&["upgrade", "no-such-service", "--format", "json"]));
    assert_eq!((&unknown["service"], &unknown["result"]["is"]), (&"no-such-service".into(), &"error".into()));
    assert!(unknown["result"]["reason"].as_str().is_some_and(|why| why.contains("there is no service")));

    let runtime = service.runtime();
    kill(runtime, Signal::STOP);
    let silent = json(&service.runsmith(&["status", "--format", "json"]));
    let one = &silent["services"][0];
    assert_eq!((&one["application"], &one["state"]), (&service.name.as_str().into(), &"unknown".into()));
    let advice = format!("`kill -CONT {runtime}`");
    assert!(
        one["problems"][0]["message"].as_str().is_some_and(|message| message.contains(&advice)),
        "{silent}"
    );
    let silent = json(&service.runsmith(&["upgrade", "--format", "json"]));
    assert!(silent["result"]["reason"].as_str().is_some_and(|why| why.contains(&advice)), "{silent}");
    kill(runtime, Signal::CONT);
    service.down();
}

/// A shell service is handed over by sv: that is what who asks for an upgrade is told, and it does.
#[test]
fn a_shell_service_is_handed_over_by_sv() {
    let service = Service::start(Server::Sync, Socket::Unix, "");
    let output = service.runsmith(&["upgrade"]);
    let directory = service.directory.display();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(has(&said(&output), &format!("`sv hup {directory}` hands over")), "{}", said(&output));
    service.release(2, Release::Good);
    service.switch(2);
    service.sv("hup");
    service.wait_for_version("2", START);
    service.down();
}

/// The directory of the release that serves gets another name: nobody has made the server reload.
#[test]
fn a_release_that_was_renamed_is_called_that() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let (from, to) = (service.root.join("releases/1"), service.root.join("releases/1.old"));
    fs::rename(&from, &to).expect("another name");
    let (text, code) = status(&service);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        has(&text, "is not there any more: it was renamed or removed") && has(&text, "put it back"),
        "{text}"
    );
    assert!(!has(&text, "by hand"), "{text}");
    fs::rename(&to, &from).expect("its name");
    assert_eq!(status(&service).1, Some(0));
    service.down();
}

/// Nothing serves after a failed start: what to do is shown, and that the release that was proven is gone.
#[test]
fn a_start_that_failed_has_a_next_step() {
    let mut service =
        Service::native(Server::Sync, Socket::Unix, "restart: {min_uptime: 0.5, backoff_initial: 60}\n")
            .started();
    service.log.wait(0, &["runsmith: proven:"], SOON);
    service.release(2, Release::Broken);
    service.switch(2);
    let (from, to) = (service.root.join("releases/1"), service.root.join("releases/1.gone"));
    fs::rename(&from, &to).expect("another name");
    service.reboot();
    service.until("it rests", |service| state(service)["state"] == "resting");
    let (text, code) = status(&service);
    assert_eq!(code, Some(1), "{text}");
    let advice = format!(
        "fix what the last start failed for, then run `runsmith upgrade {}`",
        service.directory.display()
    );
    let gone = format!(
        "nothing can be fallen back to: {}, which was proven last, is not there any more",
        from.display()
    );
    assert!(has(&text, &advice) && has(&text, &gone), "{text}");
    fs::rename(&to, &from).expect("its name");
    service.down();
}

/// Workers whose master has ended serve: an upgrade that fails meanwhile does not say that nothing does.
#[test]
fn orphaned_workers_are_not_called_nothing() {
    let more = "restart: {min_uptime: 0.5, fallback: none, backoff_initial: 60, backoff_max: 60}\n";
    let service = Service::start_native(Server::Sync, Socket::Unix, more);
    service.log.wait(0, &["runsmith: proven:"], SOON);
    service.release(2, Release::Broken);
    service.switch(2);
    kill(service.master(), Signal::KILL);
    service.until("it rests", |service| state(service)["state"] == "resting");
    let (text, _) = status(&service);
    assert!(has(&text, "only workers without a master serve: fix what"), "{text}");
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(has(&said(&output), "; only workers without a master serve"), "{}", said(&output));
    assert!(!has(&said(&output), "nothing serves"), "{}", said(&output));
    assert_eq!(service.version(), "1");
    service.down();
}

/// A hand-over that somebody gives up has not failed: there is nothing to fix, also while a fallback serves.
#[test]
fn what_was_given_up_has_not_failed() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    let mark = service.log.mark();
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", end.text);
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 3 serves"], START);
    service.until("it has settled", |service| state(service)["state"] == "serving");
    assert!(has(&status(&service).0, "FALLBACK"), "{}", status(&service).0);

    service.release(3, Release::Waiting);
    service.switch(3);
    let asked = service.begin_upgrade();
    service.log.wait(mark, &["generation 4 is master"], START);
    let output = service.runsmith(&["upgrade", "--abort"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = asked.wait_with_output().expect("runsmith");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(
        has(&text, "it was given up, as requested by process")
            && has(&text, "of root (uid 0); generation 3")
            && !has(&text, "next:"),
        "{text}"
    );
    let (text, _) = status(&service);
    assert!(
        has(
            &text,
            &format!(
                "not what is on disk: the upgrade to {} was given up; try it again",
                release(&service, 3)
            )
        ),
        "{text}"
    );
    assert!(!has(&text, "has failed"), "{text}");
    service.down();
}

/// A fallback that ends is started again: the reason is still that of what is on disk.
#[test]
fn the_reason_of_a_fallback_is_of_what_is_on_disk() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    let mark = service.log.mark();
    let end = service.deploy(2, Release::Good);
    assert!(end.text.contains("done:"), "{}", end.text);
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 3 serves"], START);
    service.until("it has settled", |service| state(service)["state"] == "serving");
    let reason = state(&service)["fallback"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("signal 9")), "{reason}");

    // Nobody deploys this one.
    service.release(3, Release::Good);
    service.switch(3);
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 4 serves"], START);
    service.until("it has settled", |service| state(service)["state"] == "serving");
    let now = state(&service);
    // What was started again has failed, too; it is not what is on disk.
    let third = release(&service, 3);
    assert!(
        now["fallback"]
            .as_str()
            .unwrap_or_default()
            .starts_with(&format!("{third} is on disk and was not deployed")),
        "{now}"
    );
    let (text, _) = status(&service);
    let step = format!(
        "deploy {third} with `runsmith upgrade {}`, or set `current` back to {}",
        service.directory.display(),
        release(&service, 1)
    );
    assert!(has(&text, &step) && !has(&text, "fix"), "{text}");
    service.down();
}

/// The path of a release.
fn release(service: &Service, number: u32) -> String {
    service.root.join(format!("releases/{number}")).display().to_string()
}

/// A release fails on probation while another one, which was backed out, is on disk: each is named with its own reason.
#[test]
fn a_fallback_names_each_release() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    let mark = service.log.mark();
    assert!(service.deploy(2, Release::Good).text.contains("done:"));
    service.release(3, Release::Broken);
    service.switch(3);
    assert_eq!(service.runsmith(&["upgrade"]).status.code(), Some(1));
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 4 serves"], START);
    service.until("it has settled", |service| state(service)["state"] == "serving");
    let (first, second, third) = (release(&service, 1), release(&service, 2), release(&service, 3));
    let is_named = || {
        let (text, code) = status(&service);
        assert_eq!(code, Some(1), "{text}");
        let begin = format!("FALLBACK: {first} serves again, and not what is on disk: {third} has failed: ");
        assert!(has(&text, &begin) && has(&text, "there_is_no_such_module"), "{text}");
        let other = format!(
            "; {second}, which served before, has failed: its master was ended by signal 9 (KILL); fix it"
        );
        assert!(has(&text, &other) && has(&text, &format!("set `current` back to {first}")), "{text}");
        let reason = state(&service)["fallback"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains(&third) && reason.contains(&second), "{reason}");
    };
    is_named();
    // The next run knows as much.
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    is_named();
    // What is on disk is looked at anew each time: now it is what has failed on probation.
    service.switch(2);
    let (text, _) = status(&service);
    assert!(has(&text, &format!("{second} has failed: its master was ended by signal 9")), "{text}");
    assert!(!has(&text, &third), "{text}");
    service.switch(1);
    assert_eq!(status(&service).1, Some(0), "{}", status(&service).0);
    service.down();
}

/// What was backed out and is still on disk needs a person: nobody is invited to try the same again, and the overview, the details and the
/// exit code agree.
#[test]
fn what_was_backed_out_is_shown_while_it_is_on_disk() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 0.5}\n");
    service.log.wait(0, &["runsmith: proven:"], SOON);
    service.release(2, Release::Broken);
    service.switch(2);
    let (text, code) = status(&service);
    assert!(code == Some(0) && has(&text, "takes it)"), "{text}");
    assert_eq!(service.runsmith(&["upgrade"]).status.code(), Some(1));
    let links = service.scratch().join("links");
    fs::create_dir(&links).expect("a directory");
    std::os::unix::fs::symlink(&service.directory, links.join(&service.name)).expect("a link");
    let list = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let output = command.arg("status").env("SVDIR", &links).output().expect("runsmith");
        (said(&output), output.status.code())
    };
    let (first, second) = (release(&service, 1), release(&service, 2));
    let is_shown = || {
        let (text, code) = status(&service);
        assert_eq!(code, Some(1), "{text}");
        let begin = format!("{first} goes on serving, and not what is on disk: {second} has failed: ");
        assert!(has(&text, &begin) && has(&text, "there_is_no_such_module"), "{text}");
        assert!(has(&text, "current (has failed: see `problem`)") && !has(&text, "takes it"), "{text}");
        let (text, code) = list();
        assert!(code == Some(1) && text.contains("\n! ") && has(&text, &begin), "{text}");
        assert!(state(&service)["disk_failed"].as_str().is_some_and(|why| why.starts_with(&second)));
    };
    is_shown();
    let mark = service.log.mark();
    kill(service.runtime(), Signal::KILL);
    service.log.wait(mark, &["goes on under this run"], SOON);
    is_shown();
    service.switch(1);
    let ((text, code), (table, coded)) = (status(&service), list());
    assert!(code == Some(0) && coded == Some(0) && !table.contains("\n! "), "{text}{table}");
    service.switch(2);
    is_shown();
    service.switch(1);
    assert_eq!(service.runsmith(&["upgrade"]).status.code(), Some(0));
    assert_eq!(status(&service).1, Some(0));
    service.down();
}

/// What is started if a generation fails on probation: a first one is started again, because nothing served before it.
#[test]
fn probation_names_what_would_be_started() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "restart: {min_uptime: 3600}\n");
    let (text, _) = status(&service);
    assert!(has(&text, "if it fails before then, the same is started again"), "{text}");
    let now = state(&service);
    assert_eq!(
        (&now["probation_falls_back"], &now["probation_next"]),
        (&false.into(), &release(&service, 1).into())
    );
    // It fails, and the same is started again; then there is still nothing else.
    let mark = service.log.mark();
    kill(service.master(), Signal::KILL);
    service.log.wait(mark, &["ready: generation 2 serves"], START);
    service.until("it has settled", |service| state(service)["state"] == "serving");
    let (text, _) = status(&service);
    assert!(has(&text, "the same is started again") && !has(&text, "what served before"), "{text}");
    assert_eq!(state(&service)["probation_falls_back"], false);
    service.release(2, Release::Good);
    service.switch(2);
    let output = service.runsmith(&["upgrade"]);
    let next = format!("if it fails before then, {} is started again", release(&service, 1));
    assert!(has(&said(&output), &next), "{}", said(&output));
    let (text, _) = status(&service);
    assert!(has(&text, "if it fails before then, releases/1 is started again"), "{text}");
    assert_eq!(state(&service)["probation_falls_back"], true);
    service.down();
}

/// USR2 by hand makes unicorn start a second master beside the first: that is shown, and an upgrade ends it. gunicorn's second
/// master does not get the sockets, and ends by itself at once.
#[test]
fn a_second_master_is_shown() {
    let service = Service::start_native(Server::Unicorn, Socket::Unix, "");
    assert_eq!(status(&service).1, Some(0));
    kill(service.master(), Signal::USR2);
    service.until("the second master is shown", |service| {
        let now = state(service);
        now["problems"].as_array().is_some_and(|all| all.iter().any(|one| one["code"] == "second-master"))
    });
    let (text, code) = status(&service);
    assert_eq!(code, Some(1), "{text}");
    let advice = format!("`runsmith upgrade {}` makes it one again", service.directory.display());
    assert!(has(&text, &advice), "{text}");
    let output = service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(status(&service).1, Some(0), "{}", status(&service).0);
    service.assert_one_generation();
    service.down();
}

/// A program that is not there, or whose interpreter is not, is named with its path.
#[test]
fn reasons_name_the_path() {
    let service = Service::start_native(Server::Sync, Socket::Unix, "");
    let run = fs::read_to_string(service.directory.join("run")).expect("run");
    let venv =
        run.lines().find_map(|line| line.strip_prefix("virtualenv: ")).expect("a virtualenv").to_owned();
    let own = service.root.join("venv/bin");
    fs::create_dir_all(&own).expect("a directory");
    fs::write(own.join("gunicorn"), "#!/nowhere/bin/python\n").expect("a program");
    set_mode(&own.join("gunicorn"), 0o755);
    let own = service.root.join("venv").display().to_string();
    for (virtualenv, reason) in [
        (
            "/nowhere/venv",
            "gunicorn cannot be run: it is in none of the directories /nowhere/venv/bin,".to_owned(),
        ),
        (&own, format!("the first line of {own}/bin/gunicorn names /nowhere/bin/python")),
    ] {
        service.edit_run(|text| text.replace(&venv, virtualenv));
        let output = service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(has(&said(&output), &reason), "{}", said(&output));
        service.edit_run(|_| run.clone());
    }
    service.down();
}

/// The command is found in the virtualenv first, whatever PATH the application gets; the application gets the one that is written.
#[test]
fn a_path_of_the_application_hides_no_command() {
    for (path, is_native) in [("/usr/bin:/bin", true), ("/nowhere", true), ("", true), ("/nowhere", false)] {
        let more = format!("environment: {{PATH: {path:?}}}\n");
        let make = if is_native { Service::native } else { Service::render };
        let service = make(Server::Sync, Socket::Unix, &more).started();
        let environment = fs::read(format!("/proc/{}/environ", service.master())).expect("its environment");
        let wanted = format!("PATH={path}");
        let seen: Vec<_> =
            environment.split(|byte| *byte == 0).filter(|one| one.starts_with(b"PATH=")).collect();
        assert_eq!(seen, [wanted.as_bytes()], "{}", String::from_utf8_lossy(&environment));
        service.down();
    }
}

/// The server writes a long line that never ends: what runsmith writes next is a line of its own all the same.
#[test]
fn a_line_that_never_ends_does_not_swallow_others() {
    let service = Service::native(Server::Sync, Socket::Unix, "");
    let flag = service.scratch().join("writes");
    let python = format!(
        "import os, threading, time\n\
         def write():\n    while not os.path.exists({flag:?}):\n        time.sleep(0.02)\n    os.write(1, b'y' * 5001)\n\
         threading.Thread(target=write, daemon=True).start()\n"
    );
    service.release_with(1, &python, "");
    let service = service.started();
    fs::write(&flag, "").expect("a flag");
    // The log is read by lines: this one shows once something ends it.
    service.until("the line has ended", |service| {
        service.sv("alarm");
        service.log.text(0).contains("yyy")
    });
    service.until("a line follows", |service| service.log.text(0).contains("y\n  "));
    let text = service.log.text(0);
    assert!(text.contains("y\n  runsmith: ") && !text.contains("yrunsmith:"), "{text}");
    service.down();
}

/// The server writes long lines without end while the runtime writes its own: none of those begins within a line.
#[test]
fn no_line_is_lost_in_a_flood_of_others() {
    let service = Service::native(Server::Sync, Socket::Unix, "");
    let flag = service.scratch().join("stops");
    let python = format!(
        "import os, threading\n\
         def write():\n    while not os.path.exists({flag:?}):\n        os.write(1, b'y' * 4099)\n\
         threading.Thread(target=write, daemon=True).start()\n"
    );
    let service = service.started();
    service.release_with(2, &python, "");
    service.switch(2);
    assert_eq!(service.runsmith(&["upgrade"]).status.code(), Some(0));
    let runtime = service.runtime();
    for _ in 0..200 {
        kill(runtime, Signal::ALARM);
        // It answers after it has written, whatever it shows of a log that is full.
        service.runsmith(&["status"]);
    }
    fs::write(&flag, "").expect("a flag");
    service.down();
    let text = service.log.text(0);
    let glued = text.matches("yrunsmith:").count();
    let own = text.lines().filter(|line| line.starts_with("  runsmith: status: serving")).count();
    // Some found no room, which is reported.
    assert!(glued == 0 && own > 0, "{glued} glued, {own} not");
}
