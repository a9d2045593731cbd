//! What `disk::apply` promises, on a real file system. Tests that need root (owners, other users)
//! say so and do nothing for anybody else.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, reason = "what surrounds a test may fail it too")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runsmith::disk::{self, Applied, Options, Stopped};
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

fn root_user() -> bool {
    rustix::process::geteuid().is_root()
}

fn tree(entries: Vec<Entry>) -> Tree {
    Tree::new(entries).unwrap()
}

/// A path, its inode, mode, and the times of its last change of content and of anything.
type Fact = (PathBuf, u64, u32, (i64, i64), (i64, i64));

/// A scratch ROOT; its directory is root's alone, so that links in it can be trusted.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn apply(&self, tree: &Tree) -> Result<Applied, Stopped> {
        disk::apply(tree, self.root(), &quick())
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
        let mut facts: Vec<_> = walk(self.root())
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

fn quick() -> Options<'static> {
    Options { durable: false, ..Options::default() }
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
    let applied = disk::apply(&want, scratch.root(), &Options::default()).unwrap();
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
    assert_eq!(compare(&found.tree, &want, root_user()), []);
    assert_eq!(scratch.temporary(), Vec::<String>::new());
}

#[test]
fn an_unchanged_tree_is_not_touched() {
    let scratch = Scratch::new();
    let want = tree(service());
    scratch.apply(&want).unwrap();
    let before = scratch.facts();
    assert_eq!(disk::apply(&want, scratch.root(), &Options::default()).unwrap().changes, []);
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
    let expected =
        ["/etc/service", "/etc/service/web", "/etc/sv/web", "/etc/sv/web/env/TOKEN", "/etc/sv/web/run"];
    assert_eq!(changed, expected);
    assert_eq!(scratch.changes(&want), Vec::<String>::new());
}

#[test]
fn owners_are_set_and_set_back() {
    if !root_user() {
        return;
    }
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
    assert_eq!(scratch.stat("/etc/sv/web/run").ino(), inode);
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
    if !root_user() {
        return;
    }
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
    assert_eq!(compare(&disk::read(scratch.root(), &want).unwrap().tree, &want, root_user()), []);
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
    if !root_user() {
        return;
    }
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
    if !root_user() {
        return;
    }
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
    let half = scratch.at("/etc/sv/.web.runsmith-00000000deadbeef");
    fs::create_dir_all(half.join("env")).unwrap();
    fs::write(half.join("env/TOKEN"), "half").unwrap();
    symlink(scratch.at("/etc/sv/web"), half.join("env/link")).unwrap();
    fs::write(scratch.at("/etc/sv/web/.run.runsmith-0123456789abcdef"), "half").unwrap();
    fs::write(scratch.at("/etc/sv/web/.run.runsmith-notes"), "somebody's").unwrap();
    let applied = scratch.apply(&want).unwrap();
    assert_eq!(applied.changes, []);
    let notes: Vec<_> = applied.notes.iter().map(ToString::to_string).collect();
    let notes = notes.join("\n").replace(scratch.root().to_str().unwrap(), "ROOT");
    let expected = "removed ROOT/etc/sv/.web.runsmith-00000000deadbeef, left by a run that was killed\n\
                    removed ROOT/etc/sv/web/.run.runsmith-0123456789abcdef, left by a run that was killed";
    assert_eq!(
        notes.split('\n').filter(|line| line.contains("removed")).collect::<Vec<_>>().join("\n"),
        expected
    );
    assert_eq!(scratch.temporary().len(), 1);
    assert_eq!(scratch.text("/etc/sv/web/run"), "#!/bin/sh\n");
}

#[test]
fn two_runs_wait_for_each_other() {
    let scratch = Scratch::new();
    let held = fs::File::open(scratch.root()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let waiting = || {
        told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let options = Options { durable: false, waiting: &waiting, patience: Duration::from_millis(60) };
    let stopped = disk::apply(&tree(service()), scratch.root(), &options).unwrap_err();
    let expected = format!("cannot lock {}: another run has held it for 0 s", scratch.root().display());
    assert_eq!((stopped.failure.to_string(), told.into_inner()), (expected, 1));
    drop(held);

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
}

#[test]
fn a_missing_root_is_made_and_said() {
    let scratch = Scratch::new();
    let root = scratch.at("/not/yet");
    let applied = disk::apply(&tree(vec![file("/x", "1")]), &root, &quick()).unwrap();
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

/// This test binary again, as another process that only runs [`child`]; `wrap` comes before it.
fn another(wrap: &[&str], root: &Path, story: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut words: Vec<_> = wrap.iter().map(std::ffi::OsString::from).collect();
    words.push(exe.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", "child", "--ignored", "--nocapture", "--quiet"]);
    command.env("RUNSMITH_ROOT", root).env("RUNSMITH_STORY", story);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    command
}

/// Two hundred files, half of them in directories that one version has and the other makes anew.
fn version(text: &str) -> Tree {
    let text = text.repeat(3000);
    tree((0..200).map(|n| file(&format!("/d{}/{n}", n % 5), &text)).collect())
}

#[test]
#[ignore = "is run by other tests in a process of its own"]
fn child() {
    let Ok(root) = std::env::var("RUNSMITH_ROOT") else { return };
    let root = Path::new(&root);
    match std::env::var("RUNSMITH_STORY").unwrap().as_str() {
        "loop" => loop {
            for text in ["one", "two"] {
                disk::apply(&version(text), root, &quick()).unwrap();
            }
        },
        _ => match disk::apply(&tree(service()), root, &quick()) {
            Ok(applied) => {
                let notes = applied.notes.iter().map(ToString::to_string).collect::<Vec<_>>();
                println!("@{} changes; {}@", applied.changes.len(), notes.join("; "));
            }
            Err(stopped) => println!("@{}@", stopped.failure),
        },
    }
}

/// What the child said.
fn said(mut command: Command) -> String {
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    output.split('@').nth(1).unwrap_or(&output).to_owned()
}

#[test]
fn a_run_that_is_killed_leaves_whole_files_and_the_next_completes_it() {
    let scratch = Scratch::new();
    let (one, two) = ("one".repeat(3000), "two".repeat(3000));
    let mut seen_leftovers = 0;
    for round in 0..40u64 {
        if round % 4 == 0 {
            // Sometimes everything is new.
            for n in 0..5 {
                let _ = fs::remove_dir_all(scratch.at(&format!("/d{n}")));
            }
        }
        let mut run = another(&["env"], scratch.root(), "loop").spawn().unwrap();
        std::thread::sleep(Duration::from_micros(3000 + round * 977));
        run.kill().unwrap();
        run.wait().unwrap();
        for path in walk(scratch.root()).iter().filter(|path| path.is_file()) {
            if !path.to_string_lossy().contains(".runsmith-") {
                let text = fs::read_to_string(path).unwrap();
                assert!(text == one || text == two, "{} is in halves", path.display());
            }
        }
        seen_leftovers += scratch.temporary().len();
        scratch.apply(&version("one")).unwrap();
        assert_eq!(scratch.temporary(), Vec::<String>::new());
        assert!((0..200).all(|n| scratch.text(&format!("/d{}/{n}", n % 5)) == one));
    }
    assert!(seen_leftovers > 0, "no run was killed in the middle of anything");
}

#[test]
fn a_full_disk_changes_nothing() {
    let scratch = Scratch::new();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(scratch.root())
        .stderr(std::process::Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let old = tree(vec![file("/a/x", "old"), file("/b/x", "old")]);
    scratch.apply(&old).unwrap();
    let new = tree(vec![
        file("/a/x", "new"),
        file("/b/x", &"big".repeat(200_000)),
        file("/c/d", &"new".repeat(200_000)),
    ]);
    let failed = scratch.failure(&new);
    let fresh = scratch.failure(&tree(vec![file("/a/x", "new"), file("/c/d/e", &"new".repeat(200_000))]));
    let texts = (scratch.text("/a/x"), scratch.text("/b/x"), scratch.at("/c").exists());
    let remount =
        Command::new("mount").args(["-o", "remount,ro"]).arg(scratch.root()).status().unwrap().success();
    let read_only = remount.then(|| scratch.failure(&tree(vec![file("/a/x", "new")])));
    let unchanged = scratch.apply(&old).map(|applied| applied.changes);
    Command::new("umount").arg(scratch.root()).status().unwrap();
    assert_eq!(failed, "cannot write ROOT/b/x: No space left on device");
    assert_eq!(fresh, "cannot write ROOT/c/d/e: No space left on device");
    assert_eq!(texts, ("old".into(), "old".into(), false));
    assert_eq!(read_only.unwrap(), "cannot write ROOT/a/x: Read-only file system");
    assert_eq!(unchanged, Ok(vec![]));
}

#[test]
fn who_is_not_root_leaves_owners_alone() {
    if !root_user() {
        return;
    }
    // A place where the other user can start this binary and write.
    let scratch = Scratch::new();
    chown(scratch.root(), Some(65534), Some(65534)).unwrap();
    let exe = scratch.at("/exe");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    let root = scratch.at("/root");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let run = || {
        let mut command = Command::new(nobody[0]);
        command.args(&nobody[1..]).arg(&exe).args([
            "--exact",
            "child",
            "--ignored",
            "--nocapture",
            "--quiet",
        ]);
        command.env("RUNSMITH_ROOT", &root).env("RUNSMITH_STORY", "once").current_dir("/");
        said(command).replace(scratch.root().to_str().unwrap(), "ROOT")
    };
    let note = "owners and groups are left alone: only root can set them";
    assert_eq!(run(), format!("15 changes; {note}; made the directory ROOT/root"));
    assert_eq!(run(), format!("0 changes; {note}"));
    chown(root.join("etc/sv"), Some(0), Some(0)).unwrap();
    fs::remove_dir_all(root.join("etc/sv/web-two")).unwrap();
    assert_eq!(run(), "cannot make the directory ROOT/root/etc/sv/web-two: Permission denied");
    chown(root.join("etc/sv/web/env/TOKEN"), Some(0), Some(0)).unwrap();
    assert_eq!(run(), "cannot read ROOT/root/etc/sv/web/env/TOKEN: Permission denied");
}

#[test]
fn a_user_who_races_gains_nothing() {
    if !root_user() {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.at("/victim/shared/deep")).unwrap();
    for path in ["/victim/config", "/victim/shared/config", "/victim/shared/deep/x"] {
        fs::write(scratch.at(path), "victim's").unwrap();
    }
    fs::create_dir_all(scratch.at("/app/shared")).unwrap();
    for path in ["/app", "/app/shared"] {
        chown(scratch.at(path), Some(65534), Some(65534)).unwrap();
    }
    let before: Vec<_> =
        scratch.facts().into_iter().filter(|fact| fact.0.starts_with(scratch.at("/victim"))).collect();
    let script = "cd \"$0/app\" || exit 1
        while :; do
            mv -T shared aside; ln -s ../victim/shared shared; rm -f shared; ln -s \"$0/victim/shared\" shared
            rm -f shared; mv -T aside shared
            rm -f shared/config; ln -s ../../victim/config shared/config; rm -f shared/config; mkfifo shared/config
            rm -rf shared/config shared/deep; ln -s ../../victim/shared/deep shared/deep; rm -rf shared/deep
            for temp in shared/.*.runsmith-*; do rm -rf \"$temp\"; ln -s ../../victim/shared/deep \"$temp\"; done
            rm -rf shared/.*.runsmith-*
        done";
    let mut user = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .arg(scratch.root())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut outcomes = [0, 0];
    for round in 0..600 {
        let want = tree(vec![
            entry("/app/shared", Kind::Directory, 0o750 + round % 2, "nobody"),
            entry("/app/shared/config", Kind::File(format!("{round}").into()), 0o640, "nobody"),
            entry("/app/shared/deep", Kind::Directory, 0o700, "nobody"),
            entry("/app/shared/deep/x", Kind::File(format!("{round}").into()), 0o600, "nobody"),
        ]);
        outcomes[usize::from(scratch.apply(&want).is_ok())] += 1;
        disk::read(scratch.root(), &want).unwrap();
    }
    user.kill().unwrap();
    user.wait().unwrap();
    let after: Vec<_> =
        scratch.facts().into_iter().filter(|fact| fact.0.starts_with(scratch.at("/victim"))).collect();
    assert_eq!(after, before);
    assert_eq!(scratch.text("/victim/shared/deep/x"), "victim's");
    assert!(outcomes[0] > 0, "the user was never fast enough: {outcomes:?}");
}
