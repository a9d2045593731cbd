//! What `status` and `upgrade` say is wrong, why, and what to do next: true, and of use when it is copied.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use rustix::process::Signal;

use support::START;
use support::faults::state;
use support::host::kill;
use support::row::said;
use support::service::{Server, Service, Socket};

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
