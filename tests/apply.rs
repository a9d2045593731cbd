//! What `disk::apply` promises, on a real file system, as root. Runs that are killed, refused by the
//! system or another user's are the real binary; strace does the killing and refusing, at a call.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, reason = "what surrounds a test may fail it too")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runsmith::disk::{self, Applied, Note, Options, Recording, Stopped};
use runsmith::record::Record;
use runsmith::tree::{Entry, Kind, Tree, compare};

fn entry(path: &str, kind: Kind, mode: u32, owner: &str) -> Entry {
    let group = if owner == "nobody" { "nogroup" } else { owner };
    Entry { path: path.into(), kind, mode, owner: owner.into(), group: group.into(), secret: false }
}

fn file(path: &str, text: &str) -> Entry {
    entry(path, Kind::File(text.into()), 0o644, &me())
}

fn dir(path: &str) -> Entry {
    entry(path, Kind::Directory, 0o755, &me())
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Link(target.into()), 0o777, &me())
}

fn me() -> String {
    "root".into()
}

fn tree(entries: Vec<Entry>) -> Tree {
    Tree::new(entries).unwrap()
}

/// A path, its inode, mode, and the times of its last change of content and of anything.
type Fact = (PathBuf, u64, u32, (i64, i64), (i64, i64));

/// A scratch ROOT; its directory is root's alone, so that links in it can be trusted. The second
/// directory holds the lock of runs within this process, which need not wait for those of others.
struct Scratch(tempfile::TempDir, tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root: they set owners");
        let open =
            || tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        Self(open(), open())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn quick(&self) -> Options<'_> {
        Options { durable: false, locks: self.1.path(), ..Options::default() }
    }

    fn durable(&self) -> Options<'_> {
        Options { durable: true, ..self.quick() }
    }

    fn apply(&self, tree: &Tree) -> Result<Applied, Stopped> {
        disk::apply(tree, self.root(), &self.quick())
    }

    /// Applies as a run that keeps records and a journal.
    fn apply_recorded(&self, tree: &Tree) -> Result<Applied, Stopped> {
        let recording = Recording { sets: &[], records: &[], disabled: &[], prune: false, only: None };
        disk::apply(tree, self.root(), &Options { recording: Some(recording), ..self.quick() })
    }

    /// Writes down that a run with this number was killed.
    fn was_killed(&self, run: &str) {
        let directory = self.at("/var/lib/runsmith");
        fs::create_dir_all(&directory).unwrap();
        let journal = fs::OpenOptions::new().append(true).create(true).open(directory.join("journal"));
        writeln!(journal.unwrap(), "{{\"run\":\"{run}\"}}").unwrap();
    }

    /// Applies and returns what changed, one line each.
    fn changes(&self, tree: &Tree) -> Vec<String> {
        lines(&self.apply(tree).unwrap())
    }

    /// Applies and returns why that failed, with ROOT taken out; nothing may be left behind.
    fn failure(&self, tree: &Tree) -> String {
        let stopped = self.apply(tree).unwrap_err();
        assert_eq!(stopped.done, []);
        assert_eq!(self.temporary(), Vec::<String>::new());
        stopped.failure.to_string().replace(&*self.root().to_string_lossy(), "ROOT")
    }

    /// Every path below ROOT with what a change to it would change.
    fn facts(&self) -> Vec<Fact> {
        self.facts_below("/")
    }

    fn facts_below(&self, path: &str) -> Vec<Fact> {
        let mut facts: Vec<_> = walk(&self.at(path))
            .into_iter()
            .map(|path| {
                let stat = fs::symlink_metadata(&path).unwrap();
                let times = ((stat.mtime(), stat.mtime_nsec()), (stat.ctime(), stat.ctime_nsec()));
                (path, stat.ino(), stat.mode(), times.0, times.1)
            })
            .collect();
        facts.sort();
        facts
    }

    /// All that ROOT holds, but for records.
    fn holds(&self) -> Tree {
        let found = disk::read_all(self.root()).unwrap().tree;
        tree(found.entries().iter().filter(|entry| !bookkeeping(&entry.path)).cloned().collect())
    }

    fn temporary(&self) -> Vec<String> {
        let paths = walk(self.root()).into_iter().map(|path| path.to_string_lossy().into_owned());
        paths.filter(|path| path.contains(".runsmith-")).collect()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.at(path)).unwrap()
    }
}

fn lines(applied: &Applied) -> Vec<String> {
    applied.changes.iter().map(ToString::to_string).collect()
}

fn walk(under: &Path) -> Vec<PathBuf> {
    let mut paths = vec![under.to_owned()];
    for entry in fs::read_dir(under).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            paths.extend(walk(&entry.path()));
        } else {
            paths.push(entry.path());
        }
    }
    paths
}

fn service() -> Vec<Entry> {
    vec![
        dir("/etc/sv/web"),
        entry("/etc/sv/web/run", Kind::File("#!/bin/sh\n".into()), 0o755, "root"),
        entry("/etc/sv/web/env", Kind::Directory, 0o700, "root"),
        entry("/etc/sv/web/env/TOKEN", Kind::File("s3cret".into()), 0o600, "root"),
        dir("/etc/sv/web-two"),
        file("/etc/sv/web-two/run", ""),
        link("/etc/service/web", "/etc/sv/web"),
        entry("/var/www/web/shared", Kind::Directory, 0o2750, "nobody"),
        entry("/var/www/web/shared/config", Kind::File("x = 1\n".into()), 0o4711, "nobody"),
    ]
}

#[test]
fn a_fresh_tree_is_made_as_wanted() {
    let scratch = Scratch::new();
    let want = tree(service());
    let applied = disk::apply(&want, scratch.root(), &scratch.durable()).unwrap();
    let expected = [
        "/etc: created directory",
        "/etc/service: created directory",
        "/etc/service/web: created link",
        "/etc/sv: created directory",
        "/etc/sv/web: created directory",
        "/etc/sv/web-two: created directory",
        "/etc/sv/web-two/run: created file",
        "/etc/sv/web/env: created directory",
        "/etc/sv/web/env/TOKEN: created file",
        "/etc/sv/web/run: created file",
        "/var: created directory",
        "/var/www: created directory",
        "/var/www/web: created directory",
        "/var/www/web/shared: created directory",
        "/var/www/web/shared/config: created file",
    ];
    assert_eq!(lines(&applied), expected);
    assert_eq!(scratch.stat("/etc/sv").mode() & 0o7777, 0o755);
    assert_eq!(scratch.stat("/etc/sv/web/env/TOKEN").mode() & 0o7777, 0o600);
    assert_eq!(scratch.stat("/var/www/web/shared/config").mode() & 0o7777, 0o4711);
    let found = disk::read(scratch.root(), &want).unwrap();
    assert_eq!(found.unreadable, []);
    assert_eq!(compare(&found.tree, &want, true), []);
    assert_eq!(scratch.temporary(), Vec::<String>::new());
}

#[test]
fn an_unchanged_tree_is_not_touched() {
    let scratch = Scratch::new();
    let want = tree(service());
    scratch.apply(&want).unwrap();
    let before = scratch.facts();
    assert_eq!(disk::apply(&want, scratch.root(), &scratch.durable()).unwrap().changes, []);
    assert_eq!(scratch.facts(), before);
}

#[test]
fn only_what_differs_is_changed() {
    let scratch = Scratch::new();
    scratch.apply(&tree(service())).unwrap();
    fs::create_dir(scratch.at("/etc/sv/web/supervise")).unwrap();
    fs::write(scratch.at("/etc/sv/web/supervise/pid"), "1\n").unwrap();
    fs::write(scratch.at("/var/www/web/shared/mine"), "app's").unwrap();
    let before = scratch.facts();
    let mut entries = service();
    entries[1].kind = Kind::File("#!/bin/sh\nexec true\n".into());
    entries[3].mode = 0o400;
    entries[6].kind = Kind::Link("../sv/web".into());
    let want = tree(entries);
    let expected = [
        "/etc/service/web: target /etc/sv/web -> ../sv/web",
        "/etc/sv/web/env/TOKEN: mode 0600 -> 0400",
        "/etc/sv/web/run: content",
    ];
    assert_eq!(scratch.changes(&want), expected);
    let changed: Vec<_> = before
        .iter()
        .zip(scratch.facts())
        .filter(|(old, new)| **old != *new)
        .map(|(old, _)| format!("/{}", old.0.strip_prefix(scratch.root()).unwrap().display()))
        .collect();
    // The directories in which something was renamed, and the three themselves.
    let expected = [
        "/etc/service",
        "/etc/service/web",
        "/etc/sv/web",
        "/etc/sv/web/env",
        "/etc/sv/web/env/TOKEN",
        "/etc/sv/web/run",
    ];
    assert_eq!(changed, expected);
    assert_eq!(scratch.changes(&want), Vec::<String>::new());
}

#[test]
fn owners_are_set_and_set_back() {
    let scratch = Scratch::new();
    let mut entries = service();
    scratch.apply(&tree(entries.clone())).unwrap();
    let inode = scratch.stat("/etc/sv/web/run").ino();
    assert_eq!(scratch.stat("/var/www/web/shared/config").uid(), 65534);
    for at in [0, 1, 6] {
        entries[at].owner = "nobody".into();
    }
    entries[7].group = "root".into();
    let expected = [
        "/etc/service/web: owner root -> nobody",
        "/etc/sv/web: owner root -> nobody",
        "/etc/sv/web/run: owner root -> nobody",
        "/var/www/web/shared: group nogroup -> root",
    ];
    assert_eq!(scratch.changes(&tree(entries)), expected);
    assert_eq!(scratch.stat("/etc/service/web").uid(), 65534);
    // Never in place: somebody may have it open for writing.
    assert_ne!(scratch.stat("/etc/sv/web/run").ino(), inode);
    chown(scratch.at("/etc/sv/web/run"), Some(3_999_999_999), None).unwrap();
    lchown(scratch.at("/etc/service/web"), None, Some(7)).unwrap();
    let expected = [
        "/etc/service/web: owner nobody -> root",
        "/etc/service/web: group lp -> root",
        "/etc/sv/web: owner nobody -> root",
        "/etc/sv/web/run: owner 3999999999 -> root",
        "/var/www/web/shared: group root -> nogroup",
    ];
    assert_eq!(scratch.changes(&tree(service())), expected);
    // A mode with set-user-ID survives the change of owner.
    assert_eq!(scratch.stat("/var/www/web/shared/config").mode() & 0o7777, 0o4711);
}

#[test]
fn unknown_users_and_groups_are_named_before_anything_is_written() {
    let scratch = Scratch::new();
    let mut entries = service();
    entries[0].owner = "no-such-user".into();
    entries[1].owner = "a\nb".into();
    entries[2].group = "no-such-group".into();
    assert_eq!(
        scratch.failure(&tree(entries)),
        "cannot set the owners below ROOT: this host has no users a\\nb, no-such-user and no group no-such-group"
    );
    assert_eq!(walk(scratch.root()).len(), 1);
}

/// `mkdir -p` by root, and another mode of one's own, are what administrators leave behind.
#[test]
fn ordinary_directories_get_mode_and_owner() {
    let scratch = Scratch::new();
    for (path, mode, owner) in
        [("/plain", 0o755, 0), ("/full", 0o700, 0), ("/own", 0o1777, 65534), ("/back", 0o777, 65534)]
    {
        fs::create_dir(scratch.at(path)).unwrap();
        fs::write(scratch.at(path).join("kept"), "").unwrap();
        fs::set_permissions(scratch.at(path), fs::Permissions::from_mode(mode)).unwrap();
        chown(scratch.at(path), Some(owner), Some(owner)).unwrap();
    }
    let mut wanted: Vec<_> =
        ["/plain", "/full", "/own"].map(|path| entry(path, Kind::Directory, 0o755, "nobody")).into();
    wanted.push(dir("/back"));
    scratch.apply(&tree(wanted)).unwrap();
    for (path, owner) in [("/plain", 65534), ("/full", 65534), ("/own", 65534), ("/back", 0)] {
        let stat = scratch.stat(path);
        assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o755, owner), "{path}");
        assert!(scratch.at(path).join("kept").exists());
    }
}

/// Whoever is given `/tmp`, a volume or somebody's home can do harm there: nothing is written at all.
#[test]
fn directories_that_others_use_are_not_given_away() {
    let scratch = Scratch::new();
    let cases = [
        ("/tmp", 0o1777, 0, "nobody", "it has the sticky bit"),
        ("/tmp", 0o1777, 0, "root", "it has the sticky bit"),
        ("/spool", 0o1730, 0, "nobody", "it has the sticky bit"),
        ("/open", 0o777, 0, "nobody", "anybody may write in it"),
        ("/home/other", 0o700, 54_321, "nobody", "it belongs to 54321"),
    ];
    for (path, mode, uid, owner, sign) in cases {
        fs::create_dir_all(scratch.at(path)).unwrap();
        fs::set_permissions(scratch.at(path), fs::Permissions::from_mode(mode)).unwrap();
        chown(scratch.at(path), Some(uid), None).unwrap();
        let before = scratch.facts();
        let want = tree(vec![file("/a", "new"), entry(path, Kind::Directory, 0o755, owner), file("/z", "")]);
        let expected = format!(
            "cannot change mode or owner of the directory ROOT{path}: {sign}, so others use it too; \
             name a directory of the service's own in the pillar, or, if it is that, \
             give it to {owner} with mode 0755 yourself"
        );
        assert_eq!(scratch.failure(&want), expected);
        let inside =
            |facts: Vec<Fact>| facts.into_iter().filter(|fact| fact.0 != scratch.root()).collect::<Vec<_>>();
        assert_eq!(inside(scratch.facts()), inside(before), "{path}");
    }
    // As it is wanted, it is left alone and not refused.
    let want = tree(vec![entry("/tmp", Kind::Directory, 0o1777, "root"), file("/tmp/web/x", "")]);
    assert_eq!(scratch.changes(&want), ["/tmp/web: created directory", "/tmp/web/x: created file"]);
}

/// A mount point of the same file system, too: only the kernel's own word tells that one.
#[test]
fn mount_points_are_not_given_away() {
    let _alone = alone();
    let scratch = Scratch::new();
    fs::create_dir(scratch.at("/volume")).unwrap();
    fs::create_dir(scratch.at("/bound")).unwrap();
    let root = scratch.root().to_string_lossy().into_owned();
    // In a mount name space of its own: nothing is left mounted, whatever becomes of the test.
    let exe = env!("CARGO_BIN_EXE_runsmith");
    for (place, mount) in [
        ("volume", format!("mount -t tmpfs -o mode=755 runsmith-test {root}/volume")),
        ("bound", format!("mount --bind {root}/etc {root}/bound")),
    ] {
        fs::create_dir_all(scratch.at("/etc")).unwrap();
        let pillar = scratch.1.path().join("pillar.yaml");
        let text = format!(
            "{{application: web, user: nobody, group: nogroup, virtualenv: /v, root: /srv/web, layout: {{sockets: /{place}}}}}"
        );
        fs::write(&pillar, text).unwrap();
        let script = format!("{mount} && exec {exe} render {} --out {root} --adopt", pillar.display());
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected =
            format!("cannot change mode or owner of the directory {root}/{place}: it is a mount point, ");
        assert!(said.contains(&expected), "{said}");
        assert!(!scratch.at("/srv").exists(), "nothing is written");
    }
}

#[test]
fn what_is_in_the_way_is_named_and_left() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.at("/a/dir")).unwrap();
    fs::write(scratch.at("/a/file"), "mine").unwrap();
    symlink("/etc/passwd", scratch.at("/a/link")).unwrap();
    assert!(Command::new("mkfifo").arg(scratch.at("/a/pipe")).status().unwrap().success());
    drop(std::os::unix::net::UnixListener::bind(scratch.at("/a/socket")).unwrap());
    let before = scratch.facts();
    let new = || file("/a/.new", "staged first, removed again");
    for (want, expected) in [
        (file("/a/dir", ""), "cannot write ROOT/a/dir: a directory is in its place; move it away"),
        (file("/a/link", ""), "cannot write ROOT/a/link: a link is in its place; move it away"),
        (file("/a/pipe", ""), "cannot write ROOT/a/pipe: a named pipe is in its place; move it away"),
        (file("/a/socket", ""), "cannot write ROOT/a/socket: a socket is in its place; move it away"),
        (dir("/a/file"), "cannot make the directory ROOT/a/file: a file is in its place; move it away"),
        (
            file("/a/file/x", ""),
            "cannot make the directory ROOT/a/file: a file is in its place; move it away",
        ),
        (dir("/a/pipe"), "cannot make the directory ROOT/a/pipe: a named pipe is in its place; move it away"),
        (link("/a/dir", "/x"), "cannot make the link ROOT/a/dir: a directory is in its place; move it away"),
        (link("/a/file", "/x"), "cannot make the link ROOT/a/file: a file is in its place; move it away"),
    ] {
        assert_eq!(scratch.failure(&tree(vec![new(), want])), expected);
    }
    let times = |facts: Vec<Fact>| facts.into_iter().map(|fact| (fact.0, fact.1, fact.2)).collect::<Vec<_>>();
    assert_eq!(times(scratch.facts()), times(before));
}

#[test]
fn paths_that_are_not_below_root_are_refused() {
    let scratch = Scratch::new();
    let long = format!("/{}", "x".repeat(256));
    let deep = "/d".repeat(129);
    for (path, reason) in [
        ("etc", "the path does not begin with /"),
        ("/", "the path has an empty step, . or .."),
        ("/a//b", "the path has an empty step, . or .."),
        ("/a/../b", "the path has an empty step, . or .."),
        ("/a/\0", "the path has a zero byte"),
        (&long, "a step of the path is longer than 255 bytes"),
        (&deep, "the path has more than 128 steps"),
    ] {
        let expected = format!("cannot put on disk {}: {reason}", runsmith::visible::visible(path));
        assert_eq!(scratch.failure(&tree(vec![file(path, "")])), expected);
    }
    let both = tree(vec![file("/a", ""), file("/a/b", "")]);
    assert_eq!(scratch.failure(&both), "cannot put on disk /a: it is wanted as a file and holds entries");
    assert_eq!(walk(scratch.root()).len(), 1);
}

#[test]
fn any_name_and_any_bytes_arrive() {
    let scratch = Scratch::new();
    let long = format!("/{}", "ä".repeat(127));
    let names =
        ["/a b", "/'q\"", "/new\nline", "/ünï漢😀", "/-rf", "/back\\slash", "/$(id)", &long, "/.hidden"];
    let mut entries: Vec<_> = names
        .iter()
        .flat_map(|name| [file(&format!("/d{name}"), "x"), dir(&format!("/e{name}{name}"))])
        .collect();
    entries.push(entry("/bytes", Kind::File((0..=255).cycle().take(1 << 20).collect()), 0o644, "root"));
    let want = tree(entries);
    // In new directories, and again in ones that exist.
    scratch.apply(&want).unwrap();
    for name in names {
        fs::write(scratch.at(&format!("/d{name}")), "y").unwrap();
    }
    assert_eq!(scratch.apply(&want).unwrap().changes.len(), names.len());
    let all = disk::read_all(scratch.root()).unwrap();
    assert_eq!(compare(&disk::read(scratch.root(), &want).unwrap().tree, &want, true), []);
    assert_eq!(all.unreadable, []);
    assert_eq!(scratch.changes(&want), Vec::<String>::new());
}

#[test]
fn links_that_root_made_are_followed_within_root() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.at("/data/www")).unwrap();
    fs::create_dir_all(scratch.at("/run")).unwrap();
    fs::create_dir_all(scratch.at("/var/lib")).unwrap();
    symlink("/data/www", scratch.at("/var/www")).unwrap();
    symlink("../../../../run", scratch.at("/var/run")).unwrap();
    let want = tree(vec![dir("/var/www"), file("/var/www/web/x", "1"), file("/var/run/y", "2")]);
    scratch.apply(&want).unwrap();
    assert_eq!((scratch.text("/data/www/web/x"), scratch.text("/run/y")), ("1".into(), "2".into()));
    assert_eq!(scratch.changes(&want), Vec::<String>::new());

    symlink("loop", scratch.at("/var/loop")).unwrap();
    assert_eq!(
        scratch.failure(&tree(vec![file("/var/loop/x", "")])),
        "cannot follow the link ROOT/var/loop: too many links lead to each other"
    );
    symlink("/nowhere/at/all", scratch.at("/var/dangling")).unwrap();
    assert_eq!(
        scratch.failure(&tree(vec![file("/var/dangling/x", "")])),
        "cannot follow the link ROOT/var/dangling: it leads to ROOT/nowhere, where nothing is"
    );
}

#[test]
fn links_that_a_user_could_have_made_are_refused() {
    let reason = "somebody other than root could have made it; put a directory in its place, \
                  or let root own it and every directory above it";
    let outside = Scratch::new();
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.at("/app/kept")).unwrap();
    fs::create_dir(scratch.at("/victim")).unwrap();
    chown(scratch.at("/app"), Some(65534), Some(65534)).unwrap();
    for target in [outside.root().to_str().unwrap(), "/victim", "../victim", "kept"] {
        symlink(target, scratch.at("/app/shared")).unwrap();
        for owner in [65534, 0] {
            // Root's own link counts for nothing where a user can exchange it.
            lchown(scratch.at("/app/shared"), Some(owner), None).unwrap();
            for want in [
                entry("/app/shared", Kind::Directory, 0o700, "nobody"),
                file("/app/shared/x", ""),
                file("/app/shared/deep/x", ""),
            ] {
                let expected = format!("cannot follow the link ROOT/app/shared: {reason}");
                assert_eq!(scratch.failure(&tree(vec![want])), expected);
            }
        }
        fs::remove_file(scratch.at("/app/shared")).unwrap();
    }
    // A directory of root's inside a user's can have been moved there by that user.
    symlink("/victim", scratch.at("/app/kept/link")).unwrap();
    assert_eq!(
        scratch.failure(&tree(vec![file("/app/kept/link/x", "")])),
        format!("cannot follow the link ROOT/app/kept/link: {reason}")
    );
    assert_eq!(walk(outside.root()).len(), 1);
    assert_eq!(walk(&scratch.at("/victim")).len(), 1);

    symlink("/etc/passwd", scratch.at("/app/config")).unwrap();
    lchown(scratch.at("/app/config"), Some(65534), None).unwrap();
    assert_eq!(
        scratch.failure(&tree(vec![file("/app/config", "")])),
        "cannot write ROOT/app/config: a link is in its place; move it away (it is not root's)"
    );
}

#[test]
fn a_file_with_two_names_is_replaced_and_the_other_is_not_touched() {
    let scratch = Scratch::new();
    fs::write(scratch.at("/shadow"), "same").unwrap();
    fs::set_permissions(scratch.at("/shadow"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(scratch.at("/app")).unwrap();
    chown(scratch.at("/app"), Some(65534), Some(65534)).unwrap();
    fs::hard_link(scratch.at("/shadow"), scratch.at("/app/config")).unwrap();
    let want = tree(vec![entry("/app/config", Kind::File("same".into()), 0o644, "nobody")]);
    let found = disk::read(scratch.root(), &want).unwrap();
    assert_eq!(
        found.unreadable[0].to_string().replace(scratch.root().to_str().unwrap(), "ROOT"),
        "cannot read ROOT/app/config: it has several names (hard links), and others than root can write here"
    );
    let expected = [
        "/app/config: mode 0600 -> 0644",
        "/app/config: owner root -> nobody",
        "/app/config: group root -> nogroup",
    ];
    assert_eq!(scratch.changes(&want), expected);
    let (old, new) = (scratch.stat("/shadow"), scratch.stat("/app/config"));
    assert_eq!((old.uid(), old.mode() & 0o7777, old.nlink()), (0, 0o600, 1));
    assert_eq!((new.uid(), new.mode() & 0o7777, new.nlink()), (65534, 0o644, 1));
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let scratch = Scratch::new();
    let want = tree(service());
    scratch.apply(&want).unwrap();
    scratch.was_killed("00000000deadbeef");
    let half = scratch.at("/etc/sv/.web.runsmith-00000000deadbeef00000001");
    fs::create_dir_all(half.join("env")).unwrap();
    fs::write(half.join("env/TOKEN"), "half").unwrap();
    symlink(scratch.at("/etc/sv/web"), half.join("env/link")).unwrap();
    fs::write(scratch.at("/etc/sv/web/.run.runsmith-00000000deadbeef00000002"), "half").unwrap();
    // No run has this number, and this is no such name.
    fs::write(scratch.at("/etc/sv/web/.run.runsmith-0123456789abcdef00000001"), "somebody's").unwrap();
    fs::write(scratch.at("/etc/sv/web/.run.runsmith-notes"), "somebody's").unwrap();
    let applied = scratch.apply_recorded(&want).unwrap();
    assert_eq!(applied.changes, []);
    let notes: Vec<_> = applied.notes.iter().map(ToString::to_string).collect();
    let notes = notes.join("\n").replace(scratch.root().to_str().unwrap(), "ROOT");
    let expected = "removed ROOT/etc/sv/.web.runsmith-00000000deadbeef00000001, left by a run that was killed\n\
                    removed ROOT/etc/sv/web/.run.runsmith-00000000deadbeef00000002, left by a run that was killed";
    assert_eq!(
        notes.split('\n').filter(|line| line.contains("removed")).collect::<Vec<_>>().join("\n"),
        expected
    );
    assert_eq!(scratch.temporary().len(), 2);
    assert_eq!(scratch.text("/etc/sv/web/run"), "#!/bin/sh\n");
}

/// What a run in this process is told, and what it fails with, while somebody holds what it needs.
fn kept_waiting(root: &Path, locks: &Path) -> (Vec<String>, String) {
    let told = std::sync::Mutex::new(vec![]);
    let waiting = |held: &str| told.lock().unwrap().push(held.to_owned());
    let options = Options {
        durable: false,
        waiting: &waiting,
        patience: Duration::from_millis(60),
        locks,
        ..Options::default()
    };
    let stopped = disk::apply(&tree(service()), root, &options).unwrap_err();
    // How long it was held is no matter of this test, and more than a second on a busy machine.
    let said = stopped.failure.to_string();
    let (said, seconds) = said.rsplit_once(" for ").unwrap();
    assert!(seconds.strip_suffix(" s").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{seconds}");
    (told.into_inner().unwrap(), said.to_owned())
}

fn lock(path: &Path) -> fs::File {
    let held = fs::File::open(path).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    held
}

/// As [`kept_waiting`] returns it: this process holds the file.
fn held_by_this(file: &Path) -> (Vec<String>, String) {
    let (file, process) = (file.display(), format!("process {}", std::process::id()));
    (vec![format!("{process} holds {file}")], format!("cannot lock {file}: {process} has held it"))
}

#[test]
fn two_runs_wait_for_each_other() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let want = |text: String| tree((0..200).map(|n| file(&format!("/d/{n}"), &text)).collect());
    std::thread::scope(|scope| {
        for run in 0..4 {
            let (scratch, want) = (&scratch, want(run.to_string().repeat(1000)));
            scope.spawn(move || scratch.apply(&want).unwrap());
        }
    });
    let last = scratch.text("/d/0");
    assert!((0..200).all(|n| scratch.text(&format!("/d/{n}")) == last));
    assert_eq!(scratch.temporary(), Vec::<String>::new());

    let locks = scratch.1.path();
    let path = locks.join(".apply.lock");
    let held = lock(&path);
    assert_eq!(held.metadata().unwrap().mode() & 0o7777, 0o600);
    // Whatever the ROOT is.
    for root in [scratch.root(), &scratch.at("/d"), other.root()] {
        assert_eq!(kept_waiting(root, locks), held_by_this(&path));
    }
    drop(held);
    // Somebody who may read ROOT keeps nobody waiting.
    let _held = lock(scratch.root());
    scratch.apply(&want("free".into())).unwrap();
}

/// A run that waits for many others has patience with each of them.
#[test]
fn a_run_waits_for_one_other_after_the_other() {
    let scratch = Scratch::new();
    let locks = scratch.1.path();
    scratch.apply(&tree(service())).unwrap();
    let path = locks.join(".apply.lock");
    // Each says that it has the lock, and has it until it is killed.
    let holder = || {
        let mut command = Command::new("flock");
        command.arg(&path).args(["-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    };
    let mut first = holder();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let second = holder();
    // It stands in line before the run does.
    let waits = format!("-> FLOCK  ADVISORY  WRITE {} ", second.id());
    while !fs::read_to_string("/proc/locks").unwrap().contains(&waits) {
        std::thread::yield_now();
    }
    let holders = Mutex::new(vec![second, first]);
    let told = Mutex::new(vec![]);
    let waiting = |held: &str| {
        told.lock().unwrap().push(held.to_owned());
        let mut holder = holders.lock().unwrap().pop().unwrap();
        end_group(&mut holder);
    };
    let options = Options { waiting: &waiting, patience: Duration::from_secs(1), locks, ..scratch.quick() };
    disk::apply(&tree(vec![file("/d/x", "x")]), scratch.root(), &options).unwrap();
    for mut left in holders.into_inner().unwrap() {
        end_group(&mut left);
    }
    let told = told.into_inner().unwrap();
    assert!(told.iter().all(|held| held.ends_with(&format!(" holds {}", path.display()))), "{told:?}");
}

/// Ends `flock` and what it has started, which has the lock as well.
fn end_group(child: &mut std::process::Child) {
    let group = rustix::process::Pid::from_child(child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
}

/// A run that waits for a service to end says for how long.
#[test]
fn a_run_has_the_patience_that_the_holder_asks_for() {
    const LONGER: Duration = Duration::from_secs(2);
    let scratch = Scratch::new();
    let locks = scratch.1.path();
    scratch.apply(&tree(service())).unwrap();
    let path = locks.join(".apply.lock");
    let held = lock(&path);
    let ahead = |time: Duration| held.set_modified(std::time::SystemTime::now() + time).unwrap();
    let began = std::time::Instant::now();
    ahead(LONGER + Duration::from_secs(1));
    assert_eq!(kept_waiting(scratch.root(), locks), held_by_this(&path));
    assert!(began.elapsed() >= LONGER, "the run failed before the holder was to be ready");
    // Written before the clock was set back, by a day: it would keep everybody waiting.
    ahead(Duration::from_secs(24 * 3600));
    assert_eq!(kept_waiting(scratch.root(), locks), held_by_this(&path));
}

#[test]
fn the_lock_is_where_only_root_can_reach_it() {
    let scratch = Scratch::new();
    let locks = scratch.1.path();
    let refused = |locks: &Path| {
        let options = Options { locks, ..scratch.quick() };
        let stopped = disk::apply(&tree(service()), scratch.root(), &options).unwrap_err();
        stopped.failure.to_string().replace(&*scratch.1.path().to_string_lossy(), "LOCKS")
    };
    symlink("/etc/passwd", locks.join(".apply.lock")).unwrap();
    assert_eq!(refused(locks), "cannot lock LOCKS/.apply.lock: Too many levels of symbolic links");
    symlink(".", locks.join("link")).unwrap();
    assert_eq!(refused(&locks.join("link")), "cannot lock LOCKS/link/.apply.lock: Not a directory");
    fs::remove_file(locks.join(".apply.lock")).unwrap();
    let reason = "others than root can write here; let root own it, with mode 0755";
    chown(locks, Some(65534), None).unwrap();
    assert_eq!(refused(locks), format!("cannot lock LOCKS: {reason}"));
    chown(locks, Some(0), None).unwrap();
    fs::set_permissions(locks, fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(refused(locks), format!("cannot lock LOCKS: {reason}"));
    assert_eq!(walk(scratch.root()).len(), 1);

    let new = locks.join("new");
    disk::apply(&tree(service()), scratch.root(), &Options { locks: &new, ..scratch.quick() }).unwrap();
    assert_eq!(fs::metadata(&new).unwrap().mode() & 0o7777, 0o755);
    // Nothing can be made in /proc: then it is ROOT.
    let _held = lock(scratch.root());
    assert_eq!(kept_waiting(scratch.root(), Path::new("/proc/runsmith")), held_by_this(scratch.root()));
}

#[test]
fn a_missing_root_is_made_and_said() {
    let scratch = Scratch::new();
    let root = scratch.at("/not/yet");
    let applied = disk::apply(&tree(vec![file("/x", "1")]), &root, &scratch.quick()).unwrap();
    assert_eq!(lines(&applied), ["/x: created file"]);
    let notes: Vec<_> = applied.notes.iter().map(ToString::to_string).collect();
    assert!(notes.contains(&format!("made the directory {}", root.display())), "{notes:?}");
    assert_eq!(disk::read(&scratch.at("/neither"), &tree(vec![])).unwrap().tree, tree(vec![]));
}

#[test]
fn a_large_tree_in_two_threads_is_the_same() {
    let scratch = Scratch::new();
    let mut entries = vec![];
    for service in 0..700 {
        entries.extend((0..10).map(|n| file(&format!("/etc/sv/s{service}/f{n}"), &format!("{service} {n}"))));
        entries.push(link(&format!("/etc/service/s{service}"), &format!("/etc/sv/s{service}")));
    }
    let want = tree(entries);
    let changes = scratch.changes(&want);
    assert_eq!(changes.len(), 700 * 12 + 3);
    assert!(changes.is_sorted_by_key(|line| line.split_once(':').unwrap().0.to_owned()));
    assert_eq!(scratch.changes(&want), Vec::<String>::new());
    for service in 0..700 {
        let path = scratch.at(&format!("/etc/sv/s{service}"));
        if service % 2 == 0 {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::write(path.join("f3"), "other").unwrap();
        }
    }
    assert_eq!(scratch.changes(&want).len(), 350 + 350 * 11);
    assert_eq!(disk::read(scratch.root(), &want).unwrap().tree, want);
}

/// Runs of the binary share a lock with everything root does on the host: one at a time.
static BINARY: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    BINARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applications for the binary to render, one file each.
struct Pillars(tempfile::TempDir);

impl Pillars {
    fn new() -> Self {
        let pillars =
            Self(tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap());
        pillars.write("old", "one", "environment: {A: '1', B: '1'}");
        pillars.write("new", "one", "environment: {A: '2', B: '1', C: '3'}\nnice: 5\ngunicorn: {workers: 4}");
        pillars.write("more", "two", "environment: {A: '1'}");
        pillars
    }

    fn write(&self, name: &str, application: &str, more: &str) {
        let text = format!(
            "application: {application}\nuser: nobody\ngroup: nogroup\nvirtualenv_home: /srv\nbind: unix:/run/{application}.sock\n\
             unicorn_command: gunicorn\n{more}\n"
        );
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name).with_extension("yaml")
    }

    /// The binary, about to render some of them; `wrap` comes before it.
    fn render(&self, wrap: &[&str], exe: &Path, names: &[&str], root: &Path) -> Command {
        let words: Vec<&OsStr> = wrap.iter().map(OsStr::new).chain([exe.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("render").args(names.iter().map(|name| self.path(name)));
        command.arg("--out").arg(root).current_dir("/");
        command
    }

    /// What the binary makes of them.
    fn tree(&self, names: &[&str]) -> Tree {
        let scratch = Scratch::new();
        let output = self.render(&["env"], EXE.as_ref(), names, scratch.root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        scratch.holds()
    }
}

const EXE: &str = env!("CARGO_BIN_EXE_runsmith");

/// Calls by which a run changes the disk, as strace has them; `?` is for those a machine may not have.
const CALLS: &str =
    "trace=openat,write,fchmod,fchown,fchownat,symlinkat,mkdirat,?renameat,renameat2,syncfs,unlinkat";

/// Where the binary keeps its records, below ROOT.
const RECORDS: &str = "/var/lib/runsmith/services";

/// Whether a path is on the way to the records or one of them.
fn bookkeeping(path: &str) -> bool {
    path == "/var/lib" || path.starts_with("/var/lib/runsmith")
}

/// A call of a run that changes the disk: its name, and the how manieth of that name it is.
#[derive(Debug, PartialEq)]
struct Call {
    name: String,
    at: usize,
    /// Nothing has its own name before the first renaming.
    renaming: bool,
}

/// One state of ROOT, and runs of the binary from it to another in which a call goes wrong.
struct Faults {
    scratch: Scratch,
    pillars: Pillars,
    log: tempfile::NamedTempFile,
    old: Tree,
    new: Tree,
    /// What a killed run left, planted.
    leftovers: bool,
}

impl Faults {
    fn new(leftovers: bool) -> Self {
        let pillars = Pillars::new();
        let new = pillars.tree(&["new", "more"]);
        // Something of every kind is to be changed, and some of it in place.
        let mut old = pillars.tree(&["old"]).entries().to_vec();
        for entry in &mut old {
            match entry.path.as_str() {
                "/etc/sv/one/finish" => entry.owner = "nobody".into(),
                "/etc/sv/one/log/run" => entry.mode = 0o700,
                "/etc/sv/one/check" | "/var/www/one/shared/logs/service/config" => {
                    entry.kind = Kind::File("old".into());
                }
                "/etc/service/one" => entry.kind = Kind::Link("/elsewhere".into()),
                "/var/www/one/shared/logs" => entry.group = "root".into(),
                _ => {}
            }
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        Self { scratch: Scratch::new(), pillars, log, old: tree(old), new, leftovers }
    }

    /// ROOT as it was before.
    fn restore(&self) {
        for path in ["/etc", "/var"] {
            let _ = fs::remove_dir_all(self.scratch.at(path));
        }
        self.scratch.apply(&self.old).unwrap();
        // It was an earlier run that made it.
        let record = Record::new("one", "default", "/etc/sv/one", 1, self.old.entries());
        let records = self.scratch.at(RECORDS);
        fs::create_dir_all(&records).unwrap();
        fs::write(records.join("one"), record.text()).unwrap();
        if self.leftovers {
            self.scratch.was_killed("00000000deadbeef");
            let half = self.scratch.at("/etc/sv/.two.runsmith-00000000deadbeef00000001");
            fs::create_dir_all(half.join("env")).unwrap();
            fs::write(half.join("env/A"), "half").unwrap();
            fs::write(self.scratch.at("/etc/sv/one/.run.runsmith-00000000deadbeef00000002"), "half").unwrap();
        }
    }

    /// Runs the binary under strace, with what that is to inject.
    fn run(&self, injections: &[String]) -> Output {
        let mut wrap = vec!["strace", "-qq", "-o", self.log.path().to_str().unwrap(), "-e", CALLS];
        for injection in injections {
            wrap.extend(["-e", injection.as_str()]);
        }
        loop {
            let mut run = self.pillars.render(&wrap, EXE.as_ref(), &["new", "more"], self.scratch.root());
            let output = run.output().expect("strace is needed: run scripts/setup test");
            // To say that it waits for somebody else's run it writes, and is off the count. That writing may
            // be the very call that is refused, so that only strace has seen it.
            let calls = fs::read_to_string(self.log.path()).unwrap_or_default();
            let refused =
                calls.lines().any(|line| line.starts_with("write(2, \"note: ") && line.contains(" holds "));
            if !refused && !String::from_utf8_lossy(&output.stderr).contains("waiting for it to end") {
                return output;
            }
            self.restore();
        }
    }

    /// Every call that changes the disk in a run that nothing happens to.
    fn calls(&self) -> Vec<Call> {
        self.restore();
        let output = self.run(&[]);
        assert!(
            output.status.success(),
            "strace cannot trace here (a container needs CAP_SYS_PTRACE): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(self.scratch.holds(), self.new);
        let mut counts = BTreeMap::new();
        let mut renaming = false;
        let mut calls = vec![];
        for line in fs::read_to_string(self.log.path()).unwrap().lines() {
            let Some((name, rest)) = line.split_once('(') else { continue };
            let at = *counts.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1);
            renaming |= name.starts_with("rename");
            let changes = match name {
                "openat" => rest.contains("O_CREAT") && !rest.contains("apply.lock"),
                // Not to standard output and standard error.
                "write" => !rest.starts_with("1,") && !rest.starts_with("2,"),
                _ => true,
            };
            if changes {
                calls.push(Call { name: name.to_owned(), at, renaming });
            }
        }
        calls
    }

    /// What is there is, piece by piece, the old or the new, and is otherwise temporary.
    fn assert_whole(&self, what: &dyn fmt::Debug) {
        let found = disk::read_all(self.scratch.root()).unwrap();
        assert_eq!(found.unreadable, [], "{what:?}");
        let records = ["one", "two"].map(|name| fs::read_to_string(self.scratch.at(RECORDS).join(name)));
        let records = records.map(Result::unwrap_or_default).concat();
        for entry in found.tree.entries().iter().filter(|entry| !entry.path.contains(".runsmith-")) {
            if bookkeeping(&entry.path) {
                continue;
            }
            if self.new.get(&entry.path).is_some() && self.old.get(&entry.path).is_none() {
                assert!(
                    records.contains(&format!("\"path\":\"{}\"", entry.path)),
                    "{what:?}: {} is there and no record knows it",
                    entry.path
                );
            }
            let of = |tree: &Tree| tree.get(&entry.path).cloned();
            let (old, new) = (of(&self.old), of(&self.new));
            let same = |other: &Option<Entry>| other.as_ref().is_some_and(|other| other.kind == entry.kind);
            assert!(same(&old) || same(&new), "{what:?}: {} is neither old nor new", entry.path);
            // What is new came with its mode and owner.
            assert!(same(&old) || new.as_ref() == Some(entry), "{what:?}: {entry:?}");
        }
    }

    /// Of a service that failed nothing has changed.
    fn assert_failed_are_old(&self, stderr: &str, what: &dyn fmt::Debug) {
        let failed = |name: &str| {
            let mut lines = stderr.lines().filter_map(|line| line.strip_prefix("error: "));
            lines.any(|line| {
                line.starts_with("cannot ")
                    || line.split_once(": cannot").is_some_and(|(names, _)| names.contains(name))
            })
        };
        let now = disk::read_all(self.scratch.root()).unwrap().tree;
        for name in ["one", "two"].into_iter().filter(|name| failed(name)) {
            let of = |tree: &Tree| -> Vec<Entry> {
                let entries = tree.entries().iter().filter(|entry| {
                    !bookkeeping(&entry.path) && entry.path.split('/').any(|step| step == name)
                });
                entries.cloned().collect()
            };
            assert!(of(&now) == of(&self.old), "{what:?}: {name} failed and is changed\n{stderr}");
        }
    }

    /// The next run, that nothing happens to, leaves what is wanted and nothing else.
    fn assert_completed(&self, what: &dyn fmt::Debug) {
        let records = ["one", "two"].map(|name| {
            let entries = self.new.entries().iter();
            let own = entries.filter(|entry| entry.path.split('/').any(|step| step == name)).cloned();
            Record::new(name, "default", &format!("/etc/sv/{name}"), 1, &own.collect::<Vec<_>>())
        });
        let recording = Recording { sets: &[], records: &records, disabled: &[], prune: false, only: None };
        let options = Options { recording: Some(recording), ..self.scratch.quick() };
        let applied = disk::apply(&self.new, self.scratch.root(), &options).unwrap();
        assert_eq!(applied.failed, [], "{what:?}");
        assert_eq!(self.scratch.temporary(), Vec::<String>::new(), "{what:?}");
        assert!(self.scratch.holds() == self.new, "{what:?}");
    }

    /// Kills a run as it enters each call that changes the disk, and returns how many there were.
    fn kill_at_each(&self, wanted: impl Fn(&Call) -> bool) -> BTreeMap<String, usize> {
        let mut killed = BTreeMap::new();
        for call in self.calls().into_iter().filter(wanted) {
            let mut injections = vec![format!("inject={}:signal=KILL:when={}", call.name, call.at)];
            if call.name != "syncfs" {
                // The disk of the machine is no part of this.
                injections.push("inject=syncfs:retval=0".into());
            }
            self.restore();
            let output = self.run(&injections);
            assert_eq!(
                output.status.signal(),
                Some(9),
                "{call:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            self.assert_whole(&call);
            self.assert_completed(&call);
            *killed.entry(call.name).or_insert(0) += 1;
        }
        killed
    }
}

#[test]
fn a_run_that_is_killed_at_any_call_leaves_whole_files_and_the_next_completes_it() {
    let _alone = alone();
    let killed = Faults::new(false).kill_at_each(|_| true);
    for call in ["openat", "write", "fchmod", "fchown", "symlinkat", "mkdirat", "renameat2", "syncfs"] {
        assert!(killed.contains_key(call), "no {call} in {killed:?}");
    }
    assert!(killed["openat"] >= 10, "fewer than ten files are written: {killed:?}");
}

#[test]
fn a_run_that_is_killed_while_it_removes_leaves_that_to_the_next() {
    let _alone = alone();
    let killed = Faults::new(true).kill_at_each(|call| call.name == "unlinkat");
    assert!(killed["unlinkat"] >= 4, "{killed:?}");

    // Killed while it takes back what it staged, because something was refused.
    let faults = Faults::new(false);
    let calls = faults.calls();
    let last = calls.iter().rfind(|call| call.name == "write" && !call.renaming).unwrap();
    for at in 1..=6 {
        faults.restore();
        let refuse = format!("inject=write:error=ENOSPC:when={}", last.at);
        let kill = format!("inject=unlinkat:signal=KILL:when={at}");
        assert_eq!(faults.run(&[refuse, kill]).status.signal(), Some(9), "at {at}");
        faults.assert_whole(&at);
        faults.assert_completed(&at);
    }
}

#[test]
fn what_the_system_refuses_is_said_and_leaves_whole_files() {
    let _alone = alone();
    let faults = Faults::new(false);
    let calls = faults.calls();
    let mut refused = 0;
    for (index, call) in calls.iter().enumerate() {
        let (before, after) = (&calls[..index], &calls[index + 1..]);
        let same = |others: &[Call]| others.iter().filter(|other| other.name == call.name).count();
        // The first of its name and the last.
        if same(before) != 0 && same(after) != 0 {
            continue;
        }
        for (error, text) in [
            ("ENOSPC", "No space left on device"),
            ("EACCES", "Permission denied"),
            ("EROFS", "Read-only file system"),
        ] {
            let what = (call, error);
            let mut injections = vec![format!("inject={}:error={error}:when={}", call.name, call.at)];
            if call.name != "syncfs" {
                injections.push("inject=syncfs:retval=0".into());
            }
            faults.restore();
            let output = faults.run(&injections);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{what:?}: {stderr}");
            assert!(stderr.contains(text) && stderr.contains("error: "), "{what:?}: {stderr}");
            // What could not be removed is left to the next run.
            if call.name != "unlinkat" {
                assert_eq!(faults.scratch.temporary(), Vec::<String>::new(), "{what:?}");
            }
            faults.assert_whole(&what);
            if !call.renaming {
                faults.assert_failed_are_old(&stderr, &what);
            }
            faults.assert_completed(&what);
            refused += 1;
        }
    }
    assert!(refused >= 40, "{refused}");
}

/// Starts a run that finds `file` locked, and lets it go on when it says so.
fn waits_for(mut run: Command, held: fs::File, file: &Path) {
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    let note = said.by_ref().map(Result::unwrap).find(|line| line.contains("waiting for it to end"));
    let expected =
        format!("note: process {} holds {}; waiting for it to end", std::process::id(), file.display());
    assert_eq!(note, Some(expected));
    drop(held);
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    assert!(run.wait().unwrap().success(), "{rest:?}");
}

#[test]
fn the_binary_waits_for_the_lock_of_the_host() {
    let _alone = alone();
    let (scratch, pillars) = (Scratch::new(), Pillars::new());
    let file = Path::new("/run/runsmith/.apply.lock");
    let render = |wrap: &[&str]| pillars.render(wrap, EXE.as_ref(), &["old"], scratch.root());
    assert!(render(&["env"]).output().unwrap().status.success());
    let stat = |path: &Path| fs::symlink_metadata(path).map(|stat| (stat.uid(), stat.mode())).unwrap();
    assert_eq!(stat(file), (0, 0o100_600));
    assert_eq!(stat(file.parent().unwrap()), (0, 0o40_755));
    waits_for(render(&["env"]), lock(file), file);

    // In a container that may only be read it is the lock of ROOT.
    let log = tempfile::NamedTempFile::new().unwrap();
    let log_path = log.path().to_str().unwrap();
    let trace = ["strace", "-qq", "-o", log_path, "-e", "trace=openat"];
    assert!(render(&trace).output().unwrap().status.success());
    let text = fs::read_to_string(log_path).unwrap();
    let at =
        text.lines().filter(|line| line.starts_with("openat(")).position(|line| line.contains("apply.lock"));
    let refuse = format!("inject=openat:error=EROFS:when={}", at.unwrap() + 1);
    let wrap: Vec<&str> = trace.into_iter().chain(["-e", &refuse]).collect();
    waits_for(render(&wrap), lock(scratch.root()), scratch.root());
}

#[test]
fn who_is_not_root_leaves_owners_alone() {
    let _alone = alone();
    let pillars = Pillars::new();
    // A place where the other user can start the binary and write.
    let scratch = Scratch::new();
    chown(scratch.root(), Some(65534), Some(65534)).unwrap();
    let exe = scratch.at("/exe");
    // Not by this process: what another test starts meanwhile would have the file open for writing.
    assert!(Command::new("cp").arg(EXE).arg(&exe).status().unwrap().success());
    let root = scratch.at("/root");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let render = || pillars.render(&nobody, &exe, &["old"], &root);
    let run = || {
        let output = render().output().unwrap();
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (last, stderr.replace(scratch.root().to_str().unwrap(), "ROOT"))
    };
    let note = "note: owners and groups are left alone: only root can set them\n";
    assert_eq!(run(), ("23 paths changed".into(), format!("{note}note: made the directory ROOT/root\n")));
    assert_eq!(run(), ("nothing to change".into(), note.into()));
    waits_for(render(), lock(&root), &root);
    chown(root.join("etc/sv/one"), Some(0), Some(0)).unwrap();
    fs::remove_dir_all(root.join("etc/sv/one/log")).unwrap();
    let error =
        format!("{note}error: cannot make the directory ROOT/root/etc/sv/one/log: Permission denied\n");
    assert_eq!(run(), (String::new(), error.clone()));
    chown(root.join("etc/sv/one/check"), Some(0), Some(0)).unwrap();
    fs::set_permissions(root.join("etc/sv/one/check"), fs::Permissions::from_mode(0o700)).unwrap();
    // Everything that is in the way is reported at once.
    let check = "error: cannot read ROOT/root/etc/sv/one/check: Permission denied\n";
    let expected = error.replace("error: ", &format!("{check}error: "));
    assert_eq!(run(), (String::new(), expected));
}

/// A process that does something over and over as a user who owns directories below ROOT.
struct Racer(std::process::Child);

impl Racer {
    /// `script` is the body of a loop, in the directory `app` below ROOT, which is `$0`.
    fn new(scratch: &Scratch, script: &str) -> Self {
        let user = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"])
            .arg(format!("cd \"$0/app\" || exit 1\nwhile :; do\n{script}\ndone"))
            .arg(scratch.root())
            .stderr(Stdio::null())
            .spawn();
        Self(user.unwrap())
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_user_who_races_a_prune_removes_nothing_of_others() {
    let scratch = Scratch::new();
    // The victim's files have what was made: by content alone they could not be told apart.
    fs::create_dir_all(scratch.at("/victim/shared/deep")).unwrap();
    for path in ["/victim/config", "/victim/shared/config", "/victim/shared/deep/x"] {
        fs::write(scratch.at(path), "made").unwrap();
    }
    fs::create_dir_all(scratch.at("/app/shared")).unwrap();
    for path in ["/app", "/app/shared"] {
        chown(scratch.at(path), Some(65534), Some(65534)).unwrap();
    }
    let before = scratch.facts_below("/victim");
    let racer = Racer::new(
        &scratch,
        "mv -T shared aside; ln -s ../victim/shared shared; rm -f shared; mv -T aside shared
         mv -T shared/deep aside; ln -s ../../victim/shared/deep shared/deep; rm -f shared/deep; mv -T aside shared/deep
         rm -f shared/config; ln -s ../../victim/config shared/config; rm -f shared/config; mkfifo shared/config
         rm -f shared/config; printf made > shared/config",
    );
    let keep = entry("/app", Kind::Directory, 0o755, "nobody");
    let full = [
        keep.clone(),
        entry("/app/shared", Kind::Directory, 0o755, "nobody"),
        entry("/app/shared/config", Kind::File("made".into()), 0o644, "nobody"),
        entry("/app/shared/deep", Kind::Directory, 0o755, "nobody"),
        entry("/app/shared/deep/x", Kind::File("made".into()), 0o644, "nobody"),
    ];
    let apply = |entries: &[Entry], prune| {
        let records = [Record::new("app", "default", "/etc/sv/app", 1, entries)];
        let sets = ["default".to_owned()];
        let recording = Recording { sets: &sets, records: &records, disabled: &[], prune, only: None };
        let options = Options { recording: Some(recording), ..scratch.quick() };
        disk::apply(&tree(entries.to_vec()), scratch.root(), &options)
    };
    let (mut pruned, mut hindered) = (0, 0);
    for _ in 0..300 {
        hindered += usize::from(apply(&full, false).is_err());
        match apply(std::slice::from_ref(&keep), true) {
            Ok(applied) => {
                pruned += usize::from(!applied.changes.is_empty());
                hindered += usize::from(applied.notes.iter().any(|note| matches!(note, Note::Kept(..))));
            }
            Err(_) => hindered += 1,
        }
    }
    drop(racer);
    assert_eq!(scratch.facts_below("/victim"), before);
    assert!(pruned > 0 && hindered > 0, "the user was never fast enough, or always: {pruned}, {hindered}");
}

#[test]
fn a_user_who_races_gains_nothing() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.at("/victim/shared/deep")).unwrap();
    for path in ["/victim/config", "/victim/shared/config", "/victim/shared/deep/x"] {
        fs::write(scratch.at(path), "victim's").unwrap();
    }
    fs::create_dir_all(scratch.at("/app/shared")).unwrap();
    for path in ["/app", "/app/shared"] {
        chown(scratch.at(path), Some(65534), Some(65534)).unwrap();
    }
    let before = scratch.facts_below("/victim");
    let racer = Racer::new(
        &scratch,
        "mv -T shared aside; ln -s ../victim/shared shared; rm -f shared; ln -s \"$0/victim/shared\" shared
         rm -f shared; mv -T aside shared
         rm -f shared/config; ln -s ../../victim/config shared/config; rm -f shared/config; mkfifo shared/config
         rm -rf shared/config shared/deep; ln -s ../../victim/shared/deep shared/deep; rm -rf shared/deep
         ln ../victim/config shared/config; rm -f shared/config
         for temp in shared/.*.runsmith-*; do rm -rf \"$temp\"; ln -s ../../victim/shared/deep \"$temp\"; done
         rm -rf shared/.*.runsmith-*",
    );
    let mut outcomes = [0, 0];
    for round in 0..600 {
        let want = tree(vec![
            entry("/app/shared", Kind::Directory, 0o750 + round % 2, "nobody"),
            entry("/app/shared/config", Kind::File(format!("{round}").into()), 0o640, "nobody"),
            entry("/app/shared/deep", Kind::Directory, 0o700, "nobody"),
            entry("/app/shared/deep/x", Kind::File(format!("{round}").into()), 0o600, "nobody"),
        ]);
        outcomes[usize::from(scratch.apply(&want).is_ok())] += 1;
        let found = disk::read(scratch.root(), &want).unwrap().tree;
        let victims = |entry: &&Entry| entry.kind == Kind::File("victim's".into());
        assert_eq!(found.entries().iter().find(victims), None, "read into a diff");
    }
    drop(racer);
    // The shell's last command may still be at work elsewhere.
    assert_eq!(scratch.facts_below("/victim"), before);
    assert_eq!(scratch.text("/victim/shared/deep/x"), "victim's");
    assert!(outcomes[0] > 0, "the user was never fast enough: {outcomes:?}");
}
