//! The application's user plays against root: nothing that user can write decides whom root signals, what it opens, gives
//! away or removes.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::HANDOVER;
use support::host::User;
use support::load::Address;
use support::row::{Python, Row, names, said};
use support::service::{Server, Service, Socket};

/// What root has in a directory, and that nothing of it has changed.
#[derive(Debug, PartialEq, Eq)]
struct Roots(Vec<(String, u32, u32, u32, u64)>);

impl Roots {
    fn look(directory: &Path) -> Self {
        let one = |path: &Path, name: String| {
            let found = fs::symlink_metadata(path).unwrap();
            (name, found.mode(), found.uid(), found.gid(), found.ino())
        };
        let mut all = vec![one(directory, ".".to_owned())];
        all.extend(names(directory).into_iter().map(|name| one(&directory.join(&name), name)));
        Self(all)
    }
}

/// The directory of the sockets is now itself, now a link to root's.
const SWITCH: &str = r#"
import os, sys
real, root = sys.argv[1:]
number = 0
while True:
    try:
        os.rename(real, real + ".real")
        os.symlink(root, real)
        number += 1
        try:
            # So that the next upgrade has to open it anew.
            os.unlink(real + ".real/web.sock")
        except OSError:
            pass
        os.unlink(real)
        os.rename(real + ".real", real)
    except OSError:
        pass
    if number % 1000 == 0:
        os.write(1, b".")
"#;

/// A program that is ready at once.
const QUICK: &str = "import os, signal, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); signal.pause()";

#[test]
fn a_directory_that_is_now_a_link_to_roots_leads_root_nowhere() {
    let mut service = Service::native(Server::Any, Socket::Unix, "handoff: {ready: notify}");
    let Address::Unix(path) = service.address.clone() else { panic!("Unix") };
    service.runs(&format!("[/usr/bin/python3, -c, \"{QUICK}\"]"));
    service.rewrite(|pillar| {
        pillar.replace(
            &format!("bind: \"unix:{path}\""),
            &format!("bind: [{{address: \"unix:{path}\", mode: \"0660\", group: adm}}]"),
        )
    });
    let roots = service.scratch().join("roots");
    fs::create_dir(&roots).unwrap();
    // As the socket of another daemon, which the user cannot tell from its own by its name.
    let daemon = UnixListener::bind(roots.join("web.sock")).unwrap();
    fs::set_permissions(roots.join("web.sock"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(roots.join("precious"), "precious").unwrap();
    let before = Roots::look(&roots);

    let service = service.started();
    let sockets = Path::new(&path).parent().unwrap().to_owned();
    let mut switch =
        Python::run(&service.user, SWITCH, &[sockets.to_str().unwrap(), roots.to_str().unwrap()]);
    switch.wait_for_bytes(1);
    let mut outcomes = [0, 0];
    let until = Instant::now() + HANDOVER;
    // As often as it takes until the race was lost once.
    while outcomes[0] + outcomes[1] < 40 || (outcomes[1] == 0 && Instant::now() < until) {
        let output = service.runsmith(&["upgrade"]);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{}\n{}", said(&output), service.log.text(0));
        outcomes[usize::from(code == Some(1))] += 1;
        assert_eq!(Roots::look(&roots), before, "{}", service.log.text(0));
    }
    drop(switch);
    service.sv("down");
    assert_eq!(Roots::look(&roots), before);
    assert!(outcomes[1] > 0, "the race was never lost, so nothing was tried: {outcomes:?}");
    drop(daemon);
}

/// Links in place of the socket, and of PID files.
#[test]
fn planted_links_and_pid_files_are_neither_followed_nor_believed() {
    let row = Row::begin(Server::Sync, Socket::Unix, "");
    let Address::Unix(path) = row.service.address.clone() else { panic!("Unix") };
    let mut foreign = row.service.foreign(None, &row.service.pid_file());
    fs::copy(row.service.pid_file(), row.service.extra_pid_file()).unwrap();
    let mut row = row;
    row.upgrade();
    row.service.until_a_second_old();
    let mark = row.service.log.mark();
    let restart = row.service.sv("restart");
    assert!(restart.status.success(), "{}", said(&restart));
    row.service.log.wait(mark, &["goes on under this run"], HANDOVER);
    row.upgrade();
    foreign.assert_untouched();

    // The socket's file becomes a link to root's: what is opened anew is refused, and the old generation goes on.
    row.nothing_was_lost();
    let precious = row.service.scratch().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    let link = format!("{path}.link");
    symlink(&precious, &link).unwrap();
    fs::rename(&link, &path).unwrap();
    row.upgrade_is_backed_out("a file that is no socket is in its place");
    row.service.sv("down");
    foreign.assert_untouched();
    let found = fs::metadata(&precious).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(row.service.user.processes().is_empty());
}

/// With USR2 the server's own PID file is in the way of the next start, and is removed: by the user, and no more than that.
#[test]
fn a_pid_file_that_is_a_link_is_removed_and_not_what_it_leads_to() {
    let service = Service::native(Server::Sync, Socket::Tcp, "handoff: {strategy: usr2}");
    let roots = service.scratch().join("roots");
    fs::create_dir(&roots).unwrap();
    fs::write(roots.join("precious"), "1\n").unwrap();
    let before = Roots::look(&roots);
    symlink(roots.join("precious"), service.pid_file()).unwrap();
    symlink(&roots, service.extra_pid_file()).unwrap();
    let service = service.started();
    assert_eq!(Roots::look(&roots), before);
    assert_eq!(fs::read_to_string(roots.join("precious")).unwrap(), "1\n");
    service.sv("down");
    assert_eq!(Roots::look(&roots), before);
}

/// A process that says it is the service's.
struct Liar(Child);

impl Liar {
    fn tell(user: Option<&User>, name: &str) -> Self {
        let mut command = Command::new(if user.is_some() { "setpriv" } else { "sleep" });
        if let Some(user) = user {
            command.args(["--reuid", &user.name, "--regid", &user.name, "--init-groups", "--", "sleep"]);
        }
        command.arg("600").env("RUNSMITH_SERVICE", name).env("RUNSMITH_GENERATION", "1");
        Self(command.stdin(Stdio::null()).process_group(0).spawn().expect("sleep"))
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The variable by which processes are known when every record is lost is worth nothing in other users' processes.
#[test]
fn whoever_calls_itself_the_service_and_is_another_users_is_left_alone() {
    let row = Row::begin(Server::Sync, Socket::Tcp, "");
    let other = User::new();
    let name = row.service.name.clone();
    let mut roots = Liar::tell(None, &name);
    let mut others = Liar::tell(Some(&other), &name);
    // The user's own, which says nothing: it is not the service's either.
    let mut own = Liar::tell(Some(&row.service.user), "something-else");
    row.kill_both(|service| fs::remove_file(service.run_directory().join("state.json")).unwrap());
    assert!(roots.lives() && others.lives() && own.lives());
    let mut row = row;
    let output = row.service.runsmith(&["upgrade"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(roots.lives() && others.lives() && own.lives());
    row.nothing_was_lost();
    row.service.sv("down");
    assert!(roots.lives() && others.lives() && own.lives());
}
