//! Attacks on root's files by the application's user: what root removes, gives away, reads and shows while it puts a tree
//! on disk. The attack table is docs/security.md.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::host::User;
use support::row::Row;
use support::service::{Server, Socket};

const EXE: &str = env!("CARGO_BIN_EXE_runsmith");

/// So many bytes of memory and of written file are enough for everything here; who needs more is killed.
const ENOUGH: u64 = 512 << 20;

/// So many rounds a race is run.
const ROUNDS: usize = 40;

/// The service's directory.
const APP: &str = "var/www/shop";

/// A scratch ROOT with one service, whose user plays against root.
struct Host {
    scratch: tempfile::TempDir,
    user: User,
}

impl Host {
    fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("rss").tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { scratch, user: User::new() };
        host.pillar("{A_KEY: s3cret}");
        host
    }

    fn pillar(&self, secrets: &str) {
        let name = &self.user.name;
        let text = format!(
            "unicorn:\n  applications:\n    shop: {{user: {name}, group: {name}, virtualenv: /v, secrets: {secrets}}}\n"
        );
        fs::write(self.scratch.path().join("pillar.yaml"), text).unwrap();
        fs::write(self.scratch.path().join("none.yaml"), "unicorn: {applications: {}}\n").unwrap();
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// The arguments of a run of the program.
    fn arguments(&self, pillar: &str, more: &[&str]) -> Vec<String> {
        let path = |name: &str| self.scratch.path().join(name).to_str().unwrap().to_owned();
        let mut all = vec!["render".to_owned(), path(pillar), "--set".to_owned(), "shop".to_owned()];
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all.extend([if more.contains(&"--diff") { "--root" } else { "--out" }.to_owned(), path("root")]);
        all
    }

    /// Runs the program, with what it may use limited.
    fn run(&self, pillar: &str, more: &[&str]) -> Output {
        Command::new("prlimit")
            .args([format!("--as={}", 4 * ENOUGH), format!("--fsize={ENOUGH}")])
            .args(["--", EXE])
            .args(self.arguments(pillar, more))
            .output()
            .unwrap()
    }

    fn render(&self) -> Output {
        self.run("pillar.yaml", &["--no-sync"])
    }

    /// Renders, which has to succeed.
    fn rendered(&self) -> String {
        let output = self.render();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Renders until the first renaming, and is killed then.
    fn killed(&self) {
        let status = self.kill_command().status().expect("strace is needed: run scripts/setup test");
        assert_eq!(status.signal(), Some(9));
    }

    fn kill_command(&self) -> Command {
        self.kill_command_at(1)
    }

    /// It is killed when it is about to rename for this time, and each time after that.
    fn kill_command_at(&self, time: u32) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=?renameat,renameat2"]);
        command.args(["-e", &format!("inject=?renameat,renameat2:signal=KILL:when={time}+"), EXE]);
        command.args(self.arguments("pillar.yaml", &["--no-sync"])).stderr(Stdio::null());
        command
    }

    /// Renders until all is written under temporary names, which is when it syncs, and is stopped then.
    fn halted(&self) -> Halted {
        let log = self.scratch.path().join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=syncfs", "-e", "inject=syncfs:signal=STOP:when=1", "-o"]);
        command.arg(&log).arg(EXE).args(self.arguments("pillar.yaml", &[]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut strace = command.spawn().expect("strace is needed: run scripts/setup test");
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains("--- stopped by SIGSTOP")) {
                let process = line.split(' ').next().unwrap().to_owned();
                return Halted { strace, process };
            }
            assert!(strace.try_wait().unwrap().is_none(), "the run was not stopped: {text}");
            std::thread::yield_now();
        }
    }

    /// Makes a directory of somebody's.
    fn own(&self, path: &str, uid: u32) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(&at).unwrap();
        std::os::unix::fs::chown(&at, Some(uid), Some(uid)).unwrap();
        at
    }

    /// Changes what the pillar has beside the virtualenv.
    fn rewrite(&self, more: &str) {
        let pillar = self.scratch.path().join("pillar.yaml");
        let text = fs::read_to_string(&pillar).unwrap();
        fs::write(pillar, text.replace("virtualenv: /v", &format!("virtualenv: /v, {more}"))).unwrap();
    }

    /// The server's configuration, in root's directory in one of the user's.
    fn config(&self) -> PathBuf {
        let found = fs::read_dir(self.at(&format!("{APP}/shared/runsmith"))).unwrap().next();
        found.unwrap().unwrap().path()
    }

    /// The user's shell in the application's directory.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        let uid = self.user.uid;
        command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()]);
        command.args(["sh", "-c", script]).current_dir(self.at(APP));
        command
    }

    /// Has the user do something.
    fn attack(&self, script: &str) {
        let output = self.shell(&format!("set -e; {script}")).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
    }

    /// Root's own tree, which others cannot enter, in a directory of the user's.
    fn private(&self, path: &str) -> PathBuf {
        let tree = self.at(path);
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::write(tree.join("deep/key"), "root's").unwrap();
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o700)).unwrap();
        tree
    }

    /// Temporary names in a directory.
    fn temporary(&self, path: &str) -> Vec<String> {
        let names = fs::read_dir(self.at(path)).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.contains(".runsmith-")).collect()
    }
}

/// A run that is stopped.
struct Halted {
    strace: Child,
    process: String,
}

impl Halted {
    /// Lets it go on to its end.
    fn goes_on(self) -> Output {
        assert!(Command::new("kill").args(["-CONT", &self.process]).status().unwrap().success());
        self.strace.wait_with_output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// It is as [`Host::private`] made it.
fn is_untouched(tree: &Path) {
    let found = fs::symlink_metadata(tree).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o700), "{}", tree.display());
    assert_eq!(fs::read_to_string(tree.join("deep/key")).unwrap(), "root's");
}

#[test]
fn a_tree_of_roots_with_the_name_of_a_leftover_stays() {
    let host = Host::new();
    host.rendered();
    for name in ["one", "two", "three"] {
        host.private(&format!("{APP}/{name}"));
    }
    host.pillar("{A_KEY: an0ther}");
    host.killed();
    // What root makes for the user's directories lies where the user cannot rename it, and only names can be seen.
    let run = host.temporary("etc/sv/shop/env").concat();
    let run = run.split(".runsmith-").nth(1).unwrap()[..16].to_owned();
    host.attack(&format!(
        "mv one .one.runsmith-{run}00000000; mv two shared/.two.runsmith-{run}00000001 || true
         mv three .three.runsmith-0123456789abcdef"
    ));
    let said = host.rendered();
    assert!(said.contains("left by a run that was killed"), "{said}");
    assert_eq!(host.temporary("etc/sv/shop/env"), Vec::<String>::new());
    is_untouched(&host.at(&format!("{APP}/.one.runsmith-{run}00000000")));
    is_untouched(&host.at(&format!("{APP}/two")));
    is_untouched(&host.at(&format!("{APP}/.three.runsmith-0123456789abcdef")));
}

/// What was staged gets its owner before it gets its place, and is removed with all that is in it if it is taken back.
#[test]
fn nothing_can_be_moved_into_what_is_not_yet_in_place() {
    let host = Host::new();
    let home = host.own("home", host.user.uid);
    host.own("home/own", host.user.uid);
    let victim = host.private("home/own/victim");
    fs::create_dir_all(host.at("var/www")).unwrap();
    let run = host.halted();
    let names = host.temporary("var/www");
    assert!(!names.is_empty());
    for name in &names {
        let mut shell = host.shell("mv own \"$0\"");
        let moved = shell.arg(host.at("var/www").join(name)).current_dir(&home).output().unwrap();
        assert!(!moved.status.success(), "moved into {name}");
    }
    // An operation of the service fails, and all of it is taken back.
    fs::create_dir(host.at(APP)).unwrap();
    let output = run.goes_on();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    is_untouched(&victim);
    assert_eq!(host.temporary("var/www"), Vec::<String>::new());
    fs::remove_dir(host.at(APP)).unwrap();
    host.rendered();
}

/// An earlier version left directories that were the user's already.
#[test]
fn a_leftover_that_others_can_enter_is_not_emptied() {
    let host = Host::new();
    host.rendered();
    host.pillar("{A_KEY: an0ther}");
    host.killed();
    let run = host.temporary("etc/sv/shop/env").concat();
    let run = &run.split(".runsmith-").nth(1).unwrap()[..16];
    let left = format!("var/www/.shop.runsmith-{run}000000fe");
    let empty = host.own(&format!("var/www/.lobby.runsmith-{run}000000ff"), host.user.uid);
    host.own(&left, host.user.uid);
    host.own(&format!("{left}/own"), host.user.uid);
    let victim = host.private(&format!("{left}/own/victim"));
    host.rendered();
    is_untouched(&victim);
    assert!(!empty.exists());
    assert_eq!(host.temporary("etc/sv/shop/env"), Vec::<String>::new());
}

/// Commands in a mount namespace of their own, which ends with them.
fn in_namespace(script: &str, arguments: &[&str]) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", text(&output));
    text(&output)
}

#[test]
fn what_is_mounted_below_a_leftover_stays() {
    let host = Host::new();
    host.rendered();
    host.pillar("{A_KEY: an0ther}");
    host.killed();
    let left = host.temporary("etc/sv/shop/env").concat();
    let run = &left.split(".runsmith-").nth(1).unwrap()[..16];
    let half = host.at(&format!("etc/sv/.x.runsmith-{run}000000ff"));
    fs::create_dir_all(half.join("inner/mounted")).unwrap();
    let victim = host.private("victim");
    // A bind mount is of the same device: only the number of its mount tells.
    let script = "mount --bind \"$1\" \"$2/inner/mounted\"; shift 2; \"$@\"";
    let mut arguments = vec![victim.to_str().unwrap(), half.to_str().unwrap(), EXE];
    let render = host.arguments("pillar.yaml", &["--no-sync"]);
    arguments.extend(render.iter().map(String::as_str));
    in_namespace(script, &arguments);
    is_untouched(&victim);
    // Without the mount it is only a leftover.
    host.pillar("{A_KEY: s3cret}");
    host.rendered();
    assert!(!half.exists());
}

/// The user's directory is a file system of its own: root has no place on it that the user cannot rename.
#[test]
fn a_leftover_in_somebody_elses_file_system_is_known_by_the_journal_alone() {
    let host = Host::new();
    host.rendered();
    let render = host.arguments("pillar.yaml", &["--no-sync"]).join(" ");
    let kill =
        "strace -f -qq -o /dev/null -e trace=?renameat,renameat2 -e inject=?renameat,renameat2:signal=KILL";
    let uid = host.user.uid;
    let as_user = format!("setpriv --reuid={uid} --regid={uid} --clear-groups");
    let script = format!(
        "mount -t tmpfs none $1; chown {uid}:{uid} $1; cd $1
         if {kill} {EXE} {render} 2>/dev/null; then exit 1; fi
         left=$(ls -A | grep '^[.]new[.]runsmith-'); test -e $left
         mkdir -m 700 keep; echo \"root's\" > keep/key
         {as_user} mv $left aside; {as_user} mv keep $left
         {EXE} {render} > said 2>&1; test -d aside
         grep \"root's\" $left/key; stat -c '%u %a' $left
         # Nobody touches this one.
         rm -r releases shared
         if {kill} {EXE} {render} 2>/dev/null; then exit 1; fi
         ls -A | grep -c '^[.]new[.]runsmith-'
         {EXE} {render} > said 2>&1; grep -c 'left by a run that was killed' said
         ls -A | grep -c '^[.]new[.]runsmith-'"
    );
    let said = in_namespace(&script, &[host.at(APP).to_str().unwrap()]);
    let lines: Vec<&str> = said.lines().collect();
    // The tree of root's, untouched; it and one leftover; one removed; only the tree of root's.
    assert_eq!(lines, ["root's", "0 700", "2", "1", "1"]);
}

#[test]
fn a_directory_of_roots_is_not_given_away() {
    let host = Host::new();
    host.rendered();
    // To be the user's.
    let tls = host.private(&format!("{APP}/tls"));
    host.attack("mv releases r.x; mv tls releases");
    let output = host.render();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("others than root can rename things in"), "{}", text(&output));
    is_untouched(&host.at(&format!("{APP}/releases")));
    host.attack("mv releases tls; mv r.x releases");
    is_untouched(&tls);
    host.rendered();

    // To be root's with another mode.
    let shared = format!("{APP}/shared");
    let tls = host.private(&format!("{shared}/tls"));
    host.attack("cd shared; mv runsmith c.x; mv tls runsmith");
    for more in [&["--no-sync"][..], &["--diff"]] {
        let output = host.run("pillar.yaml", more);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
    is_untouched(&host.at(&format!("{shared}/runsmith")));
    host.attack("cd shared; mv runsmith tls; mv c.x runsmith");
    is_untouched(&tls);

    // A directory that runsmith made is known again, wherever it has been.
    let config = host.at(&format!("{shared}/runsmith"));
    let inode = fs::metadata(&config).unwrap().ino();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o700)).unwrap();
    host.rendered();
    let found = fs::metadata(&config).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (inode, 0o755));
}

/// Another user's directory neither.
#[test]
fn a_directory_of_a_third_user_is_not_given_away() {
    let host = Host::new();
    host.rendered();
    let third = host.at(&format!("{APP}/third"));
    fs::create_dir(&third).unwrap();
    std::os::unix::fs::chown(&third, Some(65_534), Some(65_534)).unwrap();
    host.attack("mv releases r.x; mv third releases");
    let output = host.render();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(fs::metadata(host.at(&format!("{APP}/releases"))).unwrap().uid(), 65_534);
}

/// In the place of a directory that is to be root's lies one of the user's, of root's, of a third user's.
#[test]
fn what_is_adopted_is_the_users_own() {
    let other = User::new();
    for (owner, adopted) in [(None, true), (Some(0), false), (Some(other.uid), false)] {
        let host = Host::new();
        let own = host.user.uid;
        for path in ["", "/shared", "/shared/config"] {
            let at = host.at(&format!("{APP}{path}"));
            fs::create_dir_all(&at).unwrap();
            std::os::unix::fs::chown(at, Some(own), Some(own)).unwrap();
        }
        let config = host.at(&format!("{APP}/shared/config"));
        let uid = owner.unwrap_or(own);
        fs::set_permissions(&config, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&config, Some(uid), Some(uid)).unwrap();
        let pillar = host.scratch.path().join("pillar.yaml");
        let changed = fs::read_to_string(&pillar)
            .unwrap()
            .replace("virtualenv: /v", "virtualenv: /v, layout: {config: shared/config}");
        fs::write(&pillar, changed).unwrap();
        let output = host.run("pillar.yaml", &["--no-sync", "--adopt"]);
        let found = fs::metadata(&config).unwrap();
        let is = (found.uid(), found.mode() & 0o7777);
        assert_eq!(output.status.success(), adopted, "{}", text(&output));
        assert_eq!(is, if adopted { (0, 0o755) } else { (uid, 0o700) }, "{}", text(&output));
        assert_eq!(host.at("etc/sv/shop").exists(), adopted);
    }
}

#[test]
fn a_prune_removes_nothing_in_a_directory_of_roots() {
    let host = Host::new();
    host.rendered();
    // A copy has the content that the record has.
    let shared = host.at(&format!("{APP}/shared"));
    let copy = shared.join("copy");
    assert!(Command::new("cp").arg("-a").arg(shared.join("runsmith")).arg(&copy).status().unwrap().success());
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    let before = names(&copy);
    assert!(before > 0);
    host.attack("cd shared; mv runsmith c.x; mv copy runsmith");
    let output = host.run("none.yaml", &["--no-sync", "--prune"]);
    assert!(text(&output).contains("remove it by hand"), "{}", text(&output));
    assert_eq!(names(&shared.join("runsmith")), before);
}

/// A third user's directory, with copies of rendered files, itself or the one above it renamed to one that is pruned.
#[test]
fn a_prune_removes_nothing_in_a_directory_of_a_third_user() {
    const THIRD: &str = "65534:65534";
    for (directory, attack) in [
        ("logs/service", "cd shared/logs; mv service s.x; mv copy service"),
        ("logs", "cd shared; mv logs l.x; mv copy logs"),
    ] {
        let host = Host::new();
        host.rendered();
        let original = host.at(&format!("{APP}/shared/{directory}"));
        let copy = original.with_file_name("copy");
        assert!(Command::new("cp").arg("-a").arg(&original).arg(&copy).status().unwrap().success());
        assert!(Command::new("chown").args(["-R", THIRD]).arg(&copy).status().unwrap().success());
        host.attack(attack);
        let output = host.run("none.yaml", &["--no-sync", "--prune"]);
        assert!(text(&output).contains("remove it by hand"), "{}", text(&output));
        assert!(host.at(APP).join(PLACE).exists(), "{}", text(&output));
    }
}

#[test]
fn a_prune_shows_no_names_of_a_private_directory() {
    let host = Host::new();
    // Only used, so that what is in it is named for itself.
    host.own(APP, host.user.uid);
    host.rendered();
    let tls = host.private(&format!("{APP}/tls"));
    fs::write(tls.join("name-for-root-alone"), "").unwrap();
    host.attack("mv releases r.x; mv tls releases");
    let output = host.run("none.yaml", &["--no-sync", "--prune"]);
    let said = text(&output);
    assert!(said.contains(&format!("kept /{APP}/releases: it is not empty")), "{said}");
    assert!(!said.contains("name-for-root-alone"), "{said}");
    is_untouched(&host.at(&format!("{APP}/releases")));
}

/// Root's directory, which everybody may read, is renamed to that of the server's configuration.
#[test]
fn what_is_in_another_directory_of_roots_is_not_replaced() {
    let host = Host::new();
    host.rendered();
    let config = host.config();
    let name = config.file_name().unwrap();
    let other = host.at(&format!("{APP}/shared/other"));
    for content in [Some("root's"), None] {
        fs::create_dir(&other).unwrap();
        fs::write(other.join("more"), "root's").unwrap();
        content.inspect(|content| fs::write(other.join(name), content).unwrap());
        let swap = "cd shared; mv runsmith c.x; mv other runsmith";
        host.attack(swap);
        for more in [&["--no-sync"][..], &["--no-sync", "--backup"], &["--diff"]] {
            let output = host.run("pillar.yaml", more);
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(config.strip_prefix(host.root()).unwrap().to_str().unwrap()), "{said}");
            assert!(said.contains("did not make"), "{said}");
            assert_eq!(fs::read_to_string(&config).ok().as_deref(), content);
        }
        host.attack("cd shared; mv runsmith other; mv c.x runsmith");
        host.rendered();
        fs::remove_dir_all(&other).unwrap();
    }
    // With permission it is kept.
    fs::create_dir(&other).unwrap();
    fs::write(other.join(name), "root's").unwrap();
    host.attack("cd shared; mv runsmith c.x; mv other runsmith");
    let output = host.run("pillar.yaml", &["--no-sync", "--adopt"]);
    assert!(output.status.success(), "{}", text(&output));
    let kept = host.at("var/lib/runsmith/backup/0001").join(config.strip_prefix(host.root()).unwrap());
    assert_eq!(fs::read_to_string(kept).unwrap(), "root's");
}

/// What an administrator gave to root by hand, and what an earlier version made, the journal does not have.
#[test]
fn a_directory_that_the_journal_does_not_have_is_used_if_it_is_the_one() {
    for by_hand in [false, true] {
        let host = Host::new();
        if by_hand {
            host.own(APP, host.user.uid);
            host.own(&format!("{APP}/shared"), host.user.uid);
            fs::create_dir(host.at(&format!("{APP}/shared/runsmith"))).unwrap();
        }
        host.rendered();
        let changed = |timeout: u32| {
            host.pillar("{A_KEY: s3cret}");
            host.rewrite(&format!("gunicorn: {{timeout: {timeout}}}"));
        };
        let lost = || match fs::remove_file(host.at("var/lib/runsmith/journal")) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        };
        lost();
        changed(71);
        assert!(host.rendered().contains("content"));
        // Killed when its record is new and the file is not.
        lost();
        changed(72);
        assert_eq!(host.kill_command_at(2).status().unwrap().signal(), Some(9));
        assert!(!fs::read_to_string(host.config()).unwrap().contains("timeout = 72"));
        host.rendered();
        assert!(fs::read_to_string(host.config()).unwrap().contains("timeout = 72"));
        // It is known by now: a file that somebody has changed, or removed, is set back.
        fs::write(host.config(), "by hand").unwrap();
        host.rendered();
        fs::remove_file(host.config()).unwrap();
        host.rendered();
        assert!(fs::read_to_string(host.config()).unwrap().contains("timeout = 72"));
    }
}

/// A file of the user's in the place of a rendered one: the configuration of svlogd lies in the user's directory.
const PLACE: &str = "shared/logs/service/config";

#[test]
fn a_file_that_grows_while_it_is_read_is_an_error_of_that_file() {
    let host = Host::new();
    host.rendered();
    let is_there = host.at(APP).join(PLACE).exists();
    assert!(is_there, "{PLACE} is not where the user can replace it");
    // Now small, now four gigabytes without a byte on the disk.
    let script = format!(
        "import os
os.unlink('{PLACE}')
fd = os.open('{PLACE}', os.O_RDWR | os.O_CREAT)
print('begun', flush=True)
while True:
    if os.fstat(fd).st_nlink == 0:
        os.close(fd)
        try:
            os.unlink('{PLACE}')
        except OSError:
            pass
        fd = os.open('{PLACE}', os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b'#' * 5000, 0)
    os.ftruncate(fd, 4 << 30)
    os.ftruncate(fd, 0)"
    );
    let mut racer = host.shell("exec python3 -c \"$0\"");
    racer.arg(&script).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut racer = racer.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(racer.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut ends = vec![];
    for round in 0..ROUNDS {
        let backup = format!("--backup=/var/backups/{round}");
        for more in [&["--diff"][..], &["--no-sync", &backup]] {
            let output = host.run("pillar.yaml", more);
            ends.push((output.status.code(), text(&output)));
        }
        let output = host.run("none.yaml", &["--no-sync", "--prune", "--backup"]);
        ends.push((output.status.code(), text(&output)));
        ends.push((host.render().status.code(), String::new()));
    }
    racer.kill().unwrap();
    racer.wait().unwrap();
    for (code, said) in ends {
        assert!(matches!(code, Some(0..=2)), "it was killed, or ended by itself: {code:?} {said}");
        assert!(!said.contains("memory allocation"), "{said}");
    }
}

#[test]
fn a_sparse_file_is_an_error_of_that_file() {
    let host = Host::new();
    host.rendered();
    // Less than would be too long for `--diff`.
    host.attack(&format!("rm -f {PLACE}; echo '#' > {PLACE}; truncate -s 900K {PLACE}"));
    for more in [&["--diff"][..], &["--no-sync", "--backup"]] {
        let output = host.run("pillar.yaml", more);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(PLACE) && text(&output).contains("holes"), "{}", text(&output));
    }
}

#[test]
fn a_long_file_of_line_breaks_is_an_error_of_that_file() {
    let host = Host::new();
    host.rendered();
    host.attack(&format!("rm -f {PLACE}; head -c 30M /dev/zero | tr '\\0' '\\n' > {PLACE}"));
    let output = host.run("pillar.yaml", &["--diff"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains(&format!("{PLACE}: it is larger than 1 MiB")), "{}", text(&output));
    host.rendered();
    assert_eq!(host.run("pillar.yaml", &["--diff"]).status.code(), Some(0));
}

/// A third user's directory, itself or the one above it renamed to one where `--diff` looks.
#[test]
fn what_a_third_user_alone_may_read_is_not_shown() {
    let host = Host::new();
    host.rendered();
    let third = host.own(&format!("{APP}/shared/logs/third"), 65_534);
    let deep = host.own(&format!("{APP}/shared/third/service"), 65_534);
    host.own(&format!("{APP}/shared/third"), 65_534);
    for directory in [&third, &deep] {
        let file = directory.join("config");
        fs::write(&file, "for a third user alone").unwrap();
        std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for attack in
        ["cd shared/logs; mv service s.x; mv third service", "cd shared; mv logs l.x; mv third logs"]
    {
        host.attack(attack);
        for more in [&["--diff"][..], &["--diff", "--format", "json"], &["--diff", "--format", "patch"]] {
            let output = host.run("pillar.yaml", more);
            assert!(!text(&output).contains("for a third user alone"), "{attack}: {}", text(&output));
            assert!(text(&output).contains("may have been put there to be shown"), "{}", text(&output));
            assert_eq!(output.status.code(), Some(2), "{attack}: {}", text(&output));
        }
    }
}

#[test]
fn what_root_alone_may_read_is_not_shown() {
    let host = Host::new();
    host.rendered();
    let logs = host.at(&format!("{APP}/shared/logs/service"));
    fs::write(logs.join("note"), "for root alone").unwrap();
    fs::set_permissions(logs.join("note"), fs::Permissions::from_mode(0o600)).unwrap();
    // A directory that nobody else may enter, with a file in it that would be open to everybody.
    let hidden = host.at(&format!("{APP}/shared/logs/hidden"));
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("config"), "for root alone").unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    let other = host.scratch.path().join("elsewhere");
    fs::write(&other, "for root alone").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let holder = Command::new("sleep").arg("600").stdin(fs::File::open(&other).unwrap()).spawn().unwrap();
    let held = format!("/proc/{}/fd/0", holder.id());
    let mut holder = holder;
    for attack in [
        "cd shared/logs/service; mv config c.x; mv note config",
        "cd shared/logs; mv service/config service/note; mv service/c.x service/config; mv service s.x; mv hidden service",
        &format!(
            "cd shared/logs; mv service hidden; mv s.x service; rm service/config; ln -s {held} service/config"
        ),
        &format!("cd shared/logs/service; rm config; ln -s {} config", other.display()),
        "cd shared/logs; mv service s.x; ln -s ../../.. service",
    ] {
        host.attack(attack);
        for more in [&["--diff"][..], &["--diff", "--format", "json"], &["--diff", "--format", "patch"]] {
            let output = host.run("pillar.yaml", more);
            assert!(!text(&output).contains("for root alone"), "{attack}: {}", text(&output));
            assert_ne!(output.status.code(), Some(0), "{attack}: {}", text(&output));
        }
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_file_that_somebody_has_open_for_writing_is_replaced() {
    let host = Host::new();
    host.rendered();
    let file = host.at(APP).join(PLACE);
    let wanted = fs::read(&file).unwrap();
    // The same content, owned by the user: only mode and owner have to change.
    let script = format!(
        "cat {PLACE} > c.x; mv -f c.x {PLACE}; exec 9<>{PLACE}; echo open; read go; echo evil >&9; echo done"
    );
    let mut writer = host.shell(&script);
    writer.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open");
    host.rendered();
    writer.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "done");
    writer.wait().unwrap();
    assert_eq!(fs::read(&file).unwrap(), wanted);
    assert_eq!(fs::metadata(&file).unwrap().uid(), 0);
}

/// Everything at once and over and over: renames, links, pipes and other names of root's files, while root renders and
/// prunes with the real program.
#[test]
fn a_user_who_races_the_program_changes_nothing_of_roots() {
    let host = Host::new();
    host.rendered();
    let victim = host.at("victim");
    for name in ["config", "runsmith/gunicorn.py", "shared/config", "service/config"] {
        fs::create_dir_all(victim.join(name).parent().unwrap()).unwrap();
        fs::write(victim.join(name), "root's").unwrap();
    }
    let look = || {
        let found =
            Command::new("find").arg(&victim).args(["-printf", "%p %i %m %u %g %s %T@ %C@\n"]).output();
        String::from_utf8(found.unwrap().stdout).unwrap()
    };
    let before = look();
    let mut racer = host.shell(
        "echo begun; exec >&- 2>&-
         while :; do
             mv shared s.x; ln -s ../../../victim shared; rm -f shared; mv -T s.x shared
             mv shared/logs/service shared/x; ln -s ../../../../../victim/service shared/logs/service
             rm -f shared/logs/service; mv -T shared/x shared/logs/service
             rm -f shared/logs/service/config; ln -s ../../../../../../victim/config shared/logs/service/config
             rm -f shared/logs/service/config; mkfifo shared/logs/service/config; rm -f shared/logs/service/config
             mv releases r.x; ln -s ../../../victim releases; rm -f releases; mv -T r.x releases
         done",
    );
    // Its shell starts programs: all of them go with their group.
    let mut racer = racer.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(racer.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    for round in 0..ROUNDS {
        host.pillar(&format!("{{A_KEY: number{round}}}"));
        let _ = host.render();
        if round % 4 == 3 {
            let _ = host.run("none.yaml", &["--no-sync", "--prune"]);
        }
    }
    let group = rustix::process::Pid::from_child(&racer);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    racer.wait().unwrap();
    assert_eq!(look(), before);
    assert_eq!(host.temporary("var/www"), Vec::<String>::new());
    assert_eq!(host.temporary("etc/sv"), Vec::<String>::new());
}

/// Root's directory with a link in it whose target nobody else may learn.
fn hidden_link(scratch: &Path, target: &Path) -> PathBuf {
    let hidden = scratch.join("hidden");
    fs::create_dir(&hidden).unwrap();
    std::os::unix::fs::symlink(target, hidden.join("link")).unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    hidden.join("link")
}

#[test]
fn a_link_of_the_users_is_followed_as_the_user_when_the_host_is_asked() {
    let host = Host::new();
    let root = host.scratch.path().join("app");
    fs::create_dir_all(root.join("shared")).unwrap();
    for path in [root.clone(), root.join("shared")] {
        std::os::unix::fs::chown(path, Some(host.user.uid), Some(host.user.uid)).unwrap();
    }
    let target = host.scratch.path().join("name-for-root-alone");
    fs::create_dir(&target).unwrap();
    let link = hidden_link(host.scratch.path(), &target);
    let held = Command::new("sleep").arg("600").current_dir(&target).spawn();
    let mut held = held.unwrap();
    let name = &host.user.name;
    let pillar = host.scratch.path().join("pillar.yaml");
    let content = format!(
        "unicorn:\n  applications:\n    shop:\n      user: {name}\n      group: {name}\n      virtualenv: /v\n      root: {}\n      \
         bind: unix:{}/shared/sockets/s\n",
        root.display(),
        root.display()
    );
    fs::write(&pillar, content).unwrap();
    for to in [link.display().to_string(), format!("/proc/{}/cwd", held.id())] {
        let attack = "ln -sfn \"$0\" current; cd shared; ln -sfn \"$0\" pids; ln -sfn \"$0\" sockets";
        let mut shell = host.shell(attack);
        assert!(shell.arg(&to).current_dir(&root).status().unwrap().success());
        for format in ["text", "json"] {
            let mut validate = Command::new(EXE);
            validate.args(["validate", pillar.to_str().unwrap(), "--host", "--format", format]);
            let output = validate.output().unwrap();
            let said = text(&output);
            assert!(!said.contains("name-for-root-alone"), "{to}: {said}");
            assert!(said.contains("current"), "{to}: nothing was found out about it: {said}");
        }
    }
    held.kill().unwrap();
    held.wait().unwrap();
}

#[test]
fn a_link_of_the_users_is_followed_as_the_user_by_the_runtime() {
    let mut row = Row::begin(Server::Sync, Socket::Tcp, "");
    let root = row.service.root.clone();
    let target = row.service.scratch().join("name-for-root-alone");
    fs::create_dir(&target).unwrap();
    let link = hidden_link(row.service.scratch(), &target);
    fs::remove_file(root.join("current")).unwrap();
    std::os::unix::fs::symlink(link, root.join("current")).unwrap();
    let mut said = row.upgrade_is_backed_out("cannot enter");
    for arguments in [&["status"][..], &["status", "--format", "json"]] {
        said.push_str(&text(&row.service.runsmith(arguments)));
    }
    said.push_str(&row.service.log.text(0));
    assert!(!said.contains("name-for-root-alone"), "{said}");
    row.nothing_was_lost();
    row.service.sv("down");
}
