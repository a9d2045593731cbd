//! What has changed on disk is taken up by an upgrade: addresses, sockets' modes, environment, user, limits, command; and a
//! new runsmith by the next run. Real servers under load; no request is lost.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use runsmith::runtime::state;
use rustix::process::Signal;
use support::faults::state as status;
use support::host::{User, free_port, kill, virtualenv};
use support::load::Address;
use support::row::{Row, said};
use support::service::{Server, Service, Socket};
use support::{SOON, START};

/// Writes other addresses into the pillar and renders it.
fn bind(service: &mut Service, addresses: &str) {
    service.rewrite(|pillar| {
        let old = pillar.lines().find(|line| line.starts_with("bind:")).unwrap().to_owned();
        pillar.replace(&old, &format!("bind: {addresses}"))
    });
}

#[test]
fn addresses_are_added_and_removed_and_a_taken_one_is_backed_out() {
    let mut row = Row::begin(Server::Gthread, Socket::Tcp, "");
    let Address::Tcp(first) = row.service.address else { panic!("TCP") };
    let (second, taken, third) = (free_port(), free_port(), free_port());
    let path = format!("{}/shared/sockets/more.sock", row.service.root.display());
    let old = format!("\"127.0.0.1:{first}\"");

    bind(&mut row.service, &format!("[{old}, \"127.0.0.1:{second}\", \"unix:{path}\", \"[::1]:{second}\"]"));
    row.upgrade();
    assert!(Address::Tcp(second).get("/").is_ok());
    assert!(Address::Unix(path.clone()).get("/").is_ok());
    assert!(TcpStream::connect(("::1", second)).is_ok());

    let other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    bind(&mut row.service, &format!("[{old}, \"127.0.0.1:{third}\", \"127.0.0.1:{taken}\"]"));
    row.upgrade_is_backed_out(&format!(
        "127.0.0.1:{taken} cannot be listened on: another process listens there"
    ));
    assert!(Address::Unix(path.clone()).get("/").is_ok(), "what was there before is there");
    assert!(TcpStream::connect(("127.0.0.1", third)).is_err(), "nothing of the failed one is left");
    drop(other);

    // All in one: one goes, one comes, one stays; in another order.
    bind(&mut row.service, &format!("[\"127.0.0.1:{taken}\", {old}]"));
    let mark = row.service.log.mark();
    row.upgrade();
    assert!(Address::Tcp(taken).get("/").is_ok());
    assert!(TcpStream::connect(("127.0.0.1", second)).is_err());
    assert!(!Path::new(&path).exists(), "{}", row.service.log.text(mark));
    row.service.log.wait(mark, &[&format!("no longer listening on unix:{path}")], SOON);
    bind(&mut row.service, &old);
    row.end();
}

/// "done" means that a removed address refuses, not that it soon will: whoever got through would wait for nobody.
#[test]
fn a_removed_address_refuses_from_the_moment_on_that_the_upgrade_is_done() {
    let mut service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let Address::Tcp(first) = service.address else { panic!("TCP") };
    let second = free_port();
    for _ in 0..6 {
        for (addresses, is_there) in [
            (format!("[\"127.0.0.1:{first}\", \"127.0.0.1:{second}\"]"), true),
            (format!("\"127.0.0.1:{first}\""), false),
        ] {
            bind(&mut service, &addresses);
            let output = service.runsmith(&["upgrade"]);
            assert!(output.status.success(), "{}", said(&output));
            assert_eq!(TcpStream::connect(("127.0.0.1", second)).is_ok(), is_there);
        }
    }
    service.down();
}

/// A name of this host's: the runtime that adopts the socket, from the keeper or out of the application, knows it again.
#[test]
fn a_hosts_name_is_known_again() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "");
    let Address::Tcp(first) = row.service.address else { panic!("TCP") };
    let port = free_port();
    let name = name_of_loopback();
    bind(&mut row.service, &format!("[\"127.0.0.1:{first}\", \"{name}:{port}\"]"));
    row.upgrade();
    let master = row.service.master();
    let mark = row.kill_runtime();
    assert_eq!(row.service.master(), master);
    row.upgrade();
    assert_eq!(row.service.log.count(mark, "listening on"), 0, "{}", row.service.log.text(mark));
    let mark = row.kill_both(|_| {});
    row.upgrade();
    assert_eq!(row.service.log.count(mark, "runsmith: listening on"), 0, "{}", row.service.log.text(mark));
    row.end();
}

/// Another name of the loopback address than `localhost`, if /etc/hosts has one.
fn name_of_loopback() -> String {
    let hosts = fs::read_to_string("/etc/hosts").unwrap();
    let mut names = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: std::net::IpAddr = words.next()?.parse().ok()?;
        address.is_loopback().then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    names
        .find_map(|names| names.into_iter().find(|name| name != "localhost"))
        .unwrap_or_else(|| "localhost".to_owned())
}

#[test]
fn mode_and_owner_of_a_socket_follow_the_pillar_and_its_inode_stays() {
    let mut row = Row::begin(Server::Sync, Socket::Unix, "");
    let Address::Unix(path) = row.service.address.clone() else { panic!("Unix") };
    let looks = |path: &str| {
        let found = fs::metadata(path).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid(), found.ino())
    };
    let (mode, uid, gid, inode) = looks(&path);
    assert_eq!((mode, uid), (0o777, row.service.user.uid));
    let adm: u32 =
        support::host::run("getent", &["group", "adm"]).split(':').nth(2).unwrap().parse().unwrap();
    bind(
        &mut row.service,
        &format!("[{{address: \"unix:{path}\", mode: \"0660\", user: nobody, group: adm, backlog: 7}}]"),
    );
    // The clients are root's, who may connect to anything.
    let mark = row.service.log.mark();
    row.upgrade();
    row.service.log.wait(mark, &["has another mode or owner now"], SOON);
    assert_eq!(looks(&path), (0o660, 65534, adm, inode));
    bind(&mut row.service, &format!("\"unix:{path}\""));
    row.upgrade();
    assert_eq!(looks(&path), (0o777, uid, gid, inode));
    row.end();
}

fn master(service: &Service) -> u32 {
    let pid = status(service)["serving"]["master"].as_u64().expect("a master");
    u32::try_from(pid).unwrap()
}

fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn environment_secrets_limits_user_command_and_virtualenv_are_taken_up() {
    let more = "environment: {COLOUR: red, GOES: away}\nsecrets: {API_TOKEN: \"first one\"}\numask: \"0022\"\nlimits: {nofile: 400}\n";
    let mut row = Row::begin(Server::Sync, Socket::Tcp, more);
    let pid = master(&row.service);
    let has = |pid: u32, entry: &str| environment(pid).contains(&entry.to_owned());
    assert!(has(pid, "COLOUR=red") && has(pid, "GOES=away") && has(pid, "API_TOKEN=first one"));

    let next = User::new();
    let venv = virtualenv("gunicorn").display().to_string();
    let other_venv = row.service.scratch().join("venv");
    // A directory of its own: a link would be resolved to the first one.
    fs::create_dir(&other_venv).unwrap();
    for name in ["bin", "lib", "pyvenv.cfg"] {
        symlink(Path::new(&venv).join(name), other_venv.join(name)).unwrap();
    }
    let user = row.service.name.clone();
    row.service.rewrite(|pillar| {
        pillar
            .replace("COLOUR: red, GOES: away", "COLOUR: green")
            .replace("first one", "second one")
            .replace("umask: \"0022\"", "umask: \"0077\"\nnice: 3\noom_score_adj: 200")
            .replace("nofile: 400", "nofile: 500")
            .replace(&format!("virtualenv: {venv}"), &format!("virtualenv: {}", other_venv.display()))
            .replace("unicorn_command: gunicorn", "unicorn_command: [gunicorn, --log-level, debug]")
            .replace(
                &format!("\nuser: {user}\ngroup: {user}\n"),
                &format!("\nuser: {0}\ngroup: {0}\n", next.name),
            )
    });
    row.service.release(2, support::service::Release::Good);
    row.service.switch(2);
    let output = row.service.runsmith(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), row.service.log.text(0));
    let pid = master(&row.service);
    assert!(has(pid, "COLOUR=green") && has(pid, "API_TOKEN=second one"), "{:?}", environment(pid));
    assert!(!environment(pid).iter().any(|entry| entry.starts_with("GOES=")));
    assert!(has(pid, &format!("VIRTUAL_ENV={}", other_venv.display())));
    assert!(has(pid, &format!("USER={}", next.name)));
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(text.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", next.uid)), "{text}");
    assert!(text.contains("Umask:\t0077"), "{text}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files            500")), "{limits}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "200");
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(words.contains("--log-level\0debug"), "{words}");
    assert!(row.service.user.processes().is_empty(), "nothing of the old user's is left");

    // The run that adopts now knows it as the new user's, and still serves; then everything goes.
    row.kill_runtime();
    assert_eq!(master(&row.service), pid);
    row.nothing_was_lost();
    row.service.sv("down");
    assert!(next.processes().is_empty());
}

/// The pillar has another user and nobody has asked for an upgrade: a run that begins then adopts what is still the old user's.
#[test]
fn a_changed_user_does_not_hide_the_application_from_the_next_run() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "");
    let pid = row.service.master();
    let next = User::new();
    let user = row.service.name.clone();
    row.service.rewrite(|pillar| {
        pillar.replace(
            &format!("\nuser: {user}\ngroup: {user}\n"),
            &format!("\nuser: {0}\ngroup: {0}\n", next.name),
        )
    });
    row.kill_runtime();
    assert_eq!(master(&row.service), pid);
    assert!(row.service.runsmith(&["upgrade"]).status.success());
    assert!(row.service.user.processes().is_empty());
    assert_eq!(next.masters().len(), 1);
    row.nothing_was_lost();
    row.service.sv("down");
}

// --- the binary

fn copy(to: &Path) -> (u64, u64) {
    fs::copy(env!("CARGO_BIN_EXE_runsmith"), to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    node(to)
}

fn node(path: &Path) -> (u64, u64) {
    let found = fs::metadata(path).unwrap();
    (found.dev(), found.ino())
}

/// Which file a process runs.
fn runs(pid: u32) -> (u64, u64) {
    node(&PathBuf::from(format!("/proc/{pid}/exe")))
}

#[test]
fn a_new_runsmith_is_picked_up_and_a_deleted_one_goes_on() {
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    let binary = service.scratch().join("runsmith");
    let first = copy(&binary);
    let shown = binary.display().to_string();
    service.rewrite(|pillar| pillar.replace(env!("CARGO_BIN_EXE_runsmith"), &shown));
    let mut row = Row::of(service.started());
    assert_eq!(runs(row.service.runtime()), first);
    let replace = |row: &Row| {
        let new = row.service.scratch().join("runsmith.new");
        let node = copy(&new);
        fs::rename(new, row.service.scratch().join("runsmith")).unwrap();
        node
    };

    // By `sv kill`: the application is not touched.
    let second = replace(&row);
    assert_ne!(first, second);
    let master = row.service.master();
    let mark = row.service.log.mark();
    row.service.sv("kill");
    row.service.log.wait(mark, &["goes on under this run"], SOON);
    assert_eq!(runs(row.service.runtime()), second);
    assert_eq!(row.service.master(), master);

    // By `sv restart`, which replaces the application, too.
    row.upgrade();
    row.service.until_a_second_old();
    let third = replace(&row);
    let restart = row.service.sv("restart");
    assert!(restart.status.success(), "{}", said(&restart));
    assert_eq!(runs(row.service.runtime()), third);
    assert_ne!(row.service.master(), master);
    row.upgrade();

    // Deleted while it runs: everything that it starts is still itself, and an upgrade succeeds; also with no keeper.
    fs::remove_file(&binary).unwrap();
    row.upgrade();
    kill(row.service.keeper().expect("a keeper"), Signal::KILL);
    row.service.log.wait(0, &["the keeper is gone; another one is started"], SOON);
    row.upgrade();
    copy(&binary);
    let mark = row.service.log.mark();
    row.service.sv("kill");
    row.service.log.wait(mark, &["goes on under this run"], START);
    row.end();
}

/// The state as the first release has written it: every later one reads it, for ever.
#[test]
fn the_first_releases_state_is_read() {
    let text = include_str!("state/1.json");
    let boot = "6f2c1c2e-0f5a-4b0e-9a43-0f6c8a1d7b11";
    let state = state::read(text, "leaderboards", boot).unwrap();
    assert_eq!(state.sequence, 17);
    assert_eq!(state.machine.last, 4);
    assert_eq!(state.machine.serving.map(|(generation, since)| (generation.0, since.0)), Some((3, 81230)));
    assert_eq!(state.machine.candidate.map(|generation| generation.0), Some(4));
    assert_eq!(
        state.machine.leavers.first().map(|(generation, until)| (generation.0, until.0)),
        Some((2, 120_000))
    );
    assert_eq!(state.machine.orphans.first().map(|generation| generation.0), Some(1));
    assert_eq!((state.machine.failures, state.machine.restarts, state.machine.queued), (1, 2, true));
    let life = &state.generations[1];
    assert_eq!(
        (life.master, life.session, life.uid, life.workers, life.probe),
        ((903, 8100), 903, 1001, (4, Some(4)), true)
    );
    assert_eq!(state.listeners[1].node, Some((2049, 131)));
    assert!(state.last.is_some_and(|last| !last.done && last.took_ms == 1270));
    assert!(state::read(text, "lobby", boot).is_err());
    assert!(state::read(text, "leaderboards", "another").is_err());
}
