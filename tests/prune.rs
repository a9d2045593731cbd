//! What `render --out` promises about what earlier runs made: it is known, kept or removed as asked,
//! and a service that goes is stopped, unlinked and removed, with a real runsvdir.

#![allow(clippy::disallowed_methods, reason = "these tests are about what is on disk")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use rustix::process::Signal;
use support::host::{User, forget, free_port, kill};

/// A pillar that changes, and a scratch ROOT that it is rendered into.
struct Place {
    scratch: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run the tests as root: they set owners");
        let scratch = tempfile::Builder::new().prefix("rsp").tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { scratch }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path.trim_start_matches('/'))
    }

    fn render(&self, applications: &str, more: &[&str]) -> Output {
        let pillar = self.scratch.path().join("pillar.yaml");
        let defaults = "user: nobody, group: nogroup, virtualenv: /v";
        fs::write(&pillar, format!("unicorn:\n  defaults: {{{defaults}}}\n  applications:\n{applications}"))
            .unwrap();
        Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(["render", pillar.to_str().unwrap(), "--no-sync", "--out"])
            .arg(self.scratch.path().join("root"))
            .args(more)
            .output()
            .unwrap()
    }

    /// What is said, result and talk, with the scratch directory taken out.
    fn says(&self, applications: &str, more: &[&str]) -> String {
        let output = self.render(applications, more);
        let text = self.text(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    fn text(&self, output: &Output) -> String {
        let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&both)
            .replace(self.scratch.path().join("root").to_str().unwrap(), "ROOT");
        // Runs of other tests have to be waited for.
        let lines = text.lines().filter(|line| !line.contains("waiting for it to end"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn record(&self, service: &str) -> String {
        fs::read_to_string(self.at("/var/lib/runsmith/services").join(service)).unwrap_or_default()
    }
}

const WITH: &str = "    web: {secrets: {ONE: a, TWO: b}}\n";
const WITHOUT: &str = "    web: {secrets: {ONE: a}}\n";

#[test]
fn what_is_not_wanted_any_more_is_named_and_pruned_when_asked() {
    let place = Place::new();
    place.says(WITH, &[]);
    let two = place.at("/etc/sv/web/env/TWO");
    let said = place.says(WITHOUT, &[]);
    assert!(said.contains("note: /etc/sv/web/env/TWO was made by an earlier run and is not wanted any more; --prune removes it"), "{said}");
    assert!(two.exists());
    let said = place.says(WITHOUT, &["--prune"]);
    assert!(said.contains("/etc/sv/web/env/TWO: removed file"), "{said}");
    assert!(!two.exists() && !place.record("web").contains("TWO"), "{}", place.record("web"));
    let again = place.says(WITHOUT, &["--prune"]);
    assert_eq!(again, "nothing to change\n");
}

#[test]
fn records_are_root_s_and_a_second_run_leaves_them_alone() {
    let place = Place::new();
    place.says(WITH, &[]);
    let stat = |path: &str| fs::metadata(place.at(path)).unwrap();
    assert_eq!(stat("/var/lib/runsmith/services").mode() & 0o7777, 0o700);
    let before = stat("/var/lib/runsmith/services/web");
    assert_eq!((before.mode() & 0o7777, before.uid()), (0o600, 0));
    assert_eq!(place.says(WITH, &[]), "nothing to change\n");
    let after = stat("/var/lib/runsmith/services/web");
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    assert!(!place.record("web").contains("hunter"), "digests, not contents");
}

#[test]
fn what_somebody_changed_is_kept_and_named() {
    let place = Place::new();
    place.says(WITH, &[]);
    let two = place.at("/etc/sv/web/env/TWO");
    fs::write(&two, "by hand\n").unwrap();
    for _ in 0..2 {
        let said = place.says(WITHOUT, &["--prune"]);
        assert!(said.contains("kept /etc/sv/web/env/TWO: somebody changed it"), "{said}");
        assert_eq!(fs::read_to_string(&two).unwrap(), "by hand\n");
    }
    fs::remove_file(&two).unwrap();
    assert_eq!(place.says(WITHOUT, &["--prune"]), "nothing to change\n");
    assert!(!place.record("web").contains("TWO"));
}

#[test]
fn a_service_that_has_gone_goes_with_prune_and_its_data_stays() {
    let place = Place::new();
    place.says("    gone: {}\n    web: {bind: \"127.0.0.1:8001\"}\n", &[]);
    fs::create_dir(place.at("/var/www/gone/releases/7")).unwrap();
    place.says("    web: {bind: \"127.0.0.1:8001\"}\n", &[]);
    assert!(place.at("/etc/sv/gone/run").exists(), "nothing goes without --prune");
    let said = place.says("    web: {bind: \"127.0.0.1:8001\"}\n", &["--prune"]);
    assert!(
        said.contains("/etc/service/gone: removed link") && said.contains("/etc/sv/gone: removed directory"),
        "{said}"
    );
    assert!(said.contains("kept /var/www/gone: it holds releases, which runsmith did not make"), "{said}");
    assert!(
        !place.at("/etc/sv/gone").exists() && fs::symlink_metadata(place.at("/etc/service/gone")).is_err()
    );
    assert!(place.at("/var/www/gone/releases/7").exists() && place.at("/etc/sv/web/run").exists());
    assert!(!place.at("/var/www/gone/shared").exists());
    let again = place.says("    web: {bind: \"127.0.0.1:8001\"}\n", &["--prune"]);
    assert!(again.ends_with("nothing to change\n") || again.starts_with("nothing to change\n"), "{again}");
}

#[test]
fn what_runsmith_gave_to_one_user_it_can_give_to_another() {
    let place = Place::new();
    place.says("    web: {}\n", &[]);
    let said = place.says("    web: {user: games, group: games}\n", &[]);
    assert!(said.contains("/var/www/web: owner nobody -> games"), "{said}");
    // Somebody else's in the meantime.
    std::os::unix::fs::chown(place.at("/var/www/web/releases"), Some(1), Some(1)).unwrap();
    let output = place.render("    web: {}\n", &[]);
    let text = place.text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("/var/www/web/releases: it belongs to daemon"), "{text}");
}

#[test]
fn other_sets_are_left_alone() {
    let place = Place::new();
    place.says("    theirs: {}\n", &["--set", "theirs"]);
    let said = place.says("    web: {bind: \"127.0.0.1:8001\"}\n", &["--prune", "--set", "ours"]);
    assert!(!said.contains("theirs"), "{said}");
    assert!(place.at("/etc/sv/theirs/run").exists());
    let said = place.says("    theirs: {}\n", &["--set", "ours"]);
    assert!(
        said.contains("theirs belonged to the set theirs; it is taken over by the set of this run"),
        "{said}"
    );
    let said = place.says("    theirs: {}\n", &["--set", "ours", "--prune"]);
    assert!(!place.at("/etc/sv/web").exists(), "{said}");
}

/// The last one of a set goes too, if the pillar says in so many words that there is none.
#[test]
fn the_last_service_of_a_set_can_be_pruned() {
    let place = Place::new();
    place.says("    last: {}\n", &[]);
    for (nothing, arguments, exit) in [
        ("    {}\n", vec![], 1),
        ("", vec!["--prune"], 1),
        ("    {}\n", vec!["--prune", "--key", "elsewhere"], 2),
        ("    {}\n  oops: {}\n", vec!["--prune"], 1),
    ] {
        let output = place.render(nothing, &arguments);
        assert_eq!(output.status.code(), Some(exit), "{nothing:?} {arguments:?}: {}", place.text(&output));
        assert!(place.at("/etc/sv/last/run").exists());
    }
    let said = place.says("    {}\n", &["--prune", "--set", "another"]);
    assert_eq!(said, "nothing to change\n", "the set counts");
    let diff = |pillar: &str, more: &[&str]| {
        fs::write(place.scratch.path().join("pillar.yaml"), pillar).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
        let arguments = ["render", "pillar.yaml", "--diff"];
        let output = command.current_dir(&place.scratch).args(arguments).args(more).output().unwrap();
        (output.status.code().unwrap(), place.text(&output))
    };
    let nothing = "unicorn: {applications: {}}\n";
    let (code, said) = diff(nothing, &["--root", "root", "--prune"]);
    assert!(code == 1 && said.contains("==> last\nimpact: removed\n"), "{said}");
    assert_eq!(diff(nothing, &["--root", "root"]).0, 2);
    let said = place.says("    {}\n", &["--prune"]);
    assert!(said.contains("/etc/service/last: removed link"), "{said}");
    assert!(!place.at("/etc/sv/last").exists() && place.record("last").is_empty());
    assert_eq!(place.says("    {}\n", &["--prune"]), "nothing to change\n");
    assert_eq!(diff(nothing, &["--root", "root", "--prune"]).0, 0);
    // Where everything is new, nothing was there before.
    fs::write(place.scratch.path().join("old.yaml"), nothing).unwrap();
    let (code, said) = diff("application: a\nuser: b\nvirtualenv: /v\n", &["--against", "old.yaml"]);
    assert!(code == 1 && said.contains("impact: new service"), "{said}");
}

#[test]
fn a_service_that_moves_leaves_nothing_where_it_was() {
    let place = Place::new();
    place.says("    web: {}\n", &[]);
    let said = place.says("    web: {service: {directory: /srv/sv, link: /srv/service}}\n", &["--prune"]);
    assert!(
        !place.at("/etc/sv/web").exists() && fs::symlink_metadata(place.at("/etc/service/web")).is_err(),
        "{said}"
    );
    assert!(
        place.at("/srv/sv/web/run").exists() && fs::symlink_metadata(place.at("/srv/service/web")).is_ok()
    );
}

#[test]
fn a_record_that_others_could_have_written_is_refused() {
    let place = Place::new();
    place.says("    web: {}\n", &[]);
    let record = place.at("/var/lib/runsmith/services/web");
    let good = fs::read(&record).unwrap();
    let refused = |said: &str| {
        let output = place.render("    web: {}\n", &["--prune"]);
        let text = place.text(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said) && text.contains("ROOT/var/lib/runsmith/services/web"), "{text}");
    };
    fs::set_permissions(&record, fs::Permissions::from_mode(0o622)).unwrap();
    refused("others than root could have written it");
    fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
    for bad in ["", "{", "[]", "{\"version\":9}", "\0\0"] {
        fs::write(&record, bad).unwrap();
        refused("it is not a record of runsmith");
    }
    fs::write(&record, String::from_utf8(good.clone()).unwrap().replace("/etc/sv/web/run", "/etc/../../x"))
        .unwrap();
    refused("is not the path of anything runsmith makes");
    fs::remove_file(&record).unwrap();
    symlink("/etc/passwd", &record).unwrap();
    refused("cannot read the record");
    fs::remove_file(&record).unwrap();
    fs::write(&record, good).unwrap();
    fs::set_permissions(place.at("/var/lib/runsmith/services"), fs::Permissions::from_mode(0o777)).unwrap();
    refused("others than root could have written it");
}

#[test]
fn a_backup_brings_back_what_was_replaced_and_removed() {
    let place = Place::new();
    place.says(WITH, &[]);
    let run = place.at("/etc/sv/web/run");
    fs::write(&run, "by hand\n").unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o750)).unwrap();
    fs::remove_file(place.at("/etc/service/web")).unwrap();
    symlink("/elsewhere", place.at("/etc/service/web")).unwrap();
    let www = fs::metadata(place.at("/var/www/web")).unwrap();
    let said = place.says(WITHOUT, &["--prune", "--backup"]);
    assert!(said.contains("what was there before is kept in ROOT/var/lib/runsmith/backup/0001"), "{said}");
    let kept = place.at("/var/lib/runsmith/backup/0001");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_to_string(kept.join("etc/sv/web/run")).unwrap(), "by hand\n");
    let script = format!("cp -a {}/* {}/", kept.display(), place.at("/").display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    assert_eq!(fs::read_to_string(&run).unwrap(), "by hand\n");
    assert_eq!(fs::metadata(&run).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::read_link(place.at("/etc/service/web")).unwrap(), Path::new("/elsewhere"));
    assert!(fs::read_to_string(place.at("/etc/sv/web/env/TWO")).unwrap().starts_with("b\n"));
    assert_eq!(fs::metadata(place.at("/etc/sv/web/env")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(place.at("/var/www/web")).unwrap().uid(), www.uid());

    // Nothing changes, so nothing is kept; the next number, a place of one's own, and one that is taken.
    place.says(WITHOUT, &["--prune"]);
    place.says(WITHOUT, &["--prune", "--backup"]);
    assert!(!place.at("/var/lib/runsmith/backup/0002").exists());
    place.says(WITH, &["--backup=/root/before"]);
    assert!(place.at("/root/before/etc/sv/web/run").exists());
    fs::write(&run, "by hand\n").unwrap();
    for taken in ["--backup=/root/before", "--backup=/root/../x", "--backup=/var/www/web/shared/x"] {
        let output = place.render(WITH, &[taken]);
        assert_eq!(output.status.code(), Some(2), "{taken}: {}", place.text(&output));
        assert_eq!(fs::read_to_string(&run).unwrap(), "by hand\n", "{taken}");
    }
}

/// What cannot be stopped fails in the first pass of a run, when the old version of another service's file is kept already.
#[test]
fn a_service_that_cannot_be_stopped_keeps_no_other_from_being_backed_up() {
    let place = Place::new();
    let [stubborn, other, gone] =
        ["stubborn: {}", "other: {bind: \"127.0.0.1:8001\"}", "gone: {bind: \"127.0.0.1:8002\"}"];
    place.says(&format!("    {stubborn}\n    {other}\n    {gone}\n"), &[]);
    // As if a runsv worked there that others than root had started.
    let supervise = place.at("/etc/sv/stubborn/supervise");
    fs::create_dir(&supervise).unwrap();
    fs::set_permissions(&supervise, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Command::new("mkfifo").arg(supervise.join("ok")).status().unwrap().success());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let _runs = rustix::fs::open(supervise.join("ok"), flags, rustix::fs::Mode::empty()).unwrap();
    let run = place.at("/etc/sv/other/run");
    let wanted = fs::read_to_string(&run).unwrap();
    fs::write(&run, "by hand\n").unwrap();
    let output = place.render(&format!("    {other}\n"), &["--prune", "--backup"]);
    let said = place.text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: stubborn: cannot stop the service in"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert_eq!(fs::read_to_string(&run).unwrap(), wanted, "{said}");
    let kept = place.at("/var/lib/runsmith/backup/0001/etc/sv/other/run");
    assert_eq!(fs::read_to_string(kept).unwrap(), "by hand\n");
    assert!(place.at("/etc/sv/stubborn/run").exists() && !place.at("/etc/sv/gone").exists(), "{said}");
}

#[test]
fn a_run_that_is_killed_while_it_prunes_is_completed_by_the_next() {
    const OLD: &str =
        "    gone: {secrets: {A: a}}\n    web: {bind: \"127.0.0.1:8001\", secrets: {ONE: a, TWO: b}}\n";
    const NEW: &str = "    web: {bind: \"127.0.0.1:8001\", secrets: {ONE: a}}\n";
    let place = Place::new();
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = |injection: Option<String>| {
        let _ = fs::remove_dir_all(place.at("/"));
        place.says(OLD, &[]);
        let pillar = place.scratch.path().join("pillar.yaml");
        place.render(NEW, &[]);
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", log.path().to_str().unwrap(), "-e", "trace=unlinkat,renameat2,?renameat"]);
        strace.args(injection.iter().flat_map(|injection| ["-e", injection.as_str()]));
        strace.args([
            env!("CARGO_BIN_EXE_runsmith"),
            "render",
            pillar.to_str().unwrap(),
            "--no-sync",
            "--prune",
            "--out",
        ]);
        strace.arg(place.at("/")).output().expect("strace is needed: run scripts/setup test")
    };
    let done = |what: &str| {
        assert_eq!(place.says(NEW, &["--prune"]).lines().last(), Some("nothing to change"), "{what}");
        assert!(!place.at("/etc/sv/gone").exists() && !place.at("/etc/sv/web/env/TWO").exists(), "{what}");
        assert!(!place.at("/var/lib/runsmith/services/gone").exists(), "{what}");
        assert!(place.at("/etc/sv/web/env/ONE").exists(), "{what}");
    };
    assert!(run(None).status.success());
    let calls = fs::read_to_string(log.path()).unwrap();
    done("not killed");
    let mut killed = 0;
    for name in ["unlinkat", "renameat2", "renameat"] {
        for at in 1..=calls.lines().filter(|line| line.starts_with(&format!("{name}("))).count() {
            let output = run(Some(format!("inject={name}:signal=KILL:when={at}")));
            assert!(!output.status.success(), "{name} {at}");
            killed += 1;
            // Nothing that is still there has been forgotten, or it could never be pruned.
            place.says(NEW, &["--prune"]);
            done(&format!("{name} {at}"));
        }
    }
    assert!(killed >= 15, "{killed} calls:\n{calls}");
}

/// Services at their real paths in a scratch directory, run by a real runsvdir.
struct Live {
    // Ends its processes before the directory goes.
    user: User,
    scratch: tempfile::TempDir,
    ports: [u16; 2],
    runsvdir: Option<Child>,
}

impl Live {
    fn new() -> Self {
        let (user, ports) = (User::new(), [free_port(), free_port()]);
        let scratch = tempfile::Builder::new().prefix("rsl").tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(scratch.path().join("service")).unwrap();
        let mut live = Self { user, scratch, ports, runsvdir: None };
        live.runsvdir = Some(
            Command::new("runsvdir").arg(live.at("service")).spawn().expect("runsvdir; run scripts/setup"),
        );
        live
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    /// Applies a pillar with the services of these names; `more` is further keys of each.
    fn apply(&self, names: &[String], more: &str, arguments: &[&str]) -> Output {
        let at = self.scratch.path().display();
        let mut pillar = format!(
            "unicorn:\n  defaults:\n    user: {0}\n    group: {0}\n    home: {at}\n    run_script: shell\n    server: any\n  \
             applications:\n",
            self.user.name
        );
        for (index, name) in names.iter().enumerate() {
            let port = self.ports[index];
            pillar.push_str(&format!(
                "    {name}:\n      root: {at}/{name}\n      layout: {{run: {at}/run/{name}}}\n      bind: \"127.0.0.1:{port}\"\n      \
                 unicorn_command: [/usr/bin/python3, -m, http.server, --bind, 127.0.0.1, \"{port}\"]\n      {more}\n"
            ));
        }
        let file = self.at("pillar.yaml");
        fs::write(&file, pillar).unwrap();
        for name in names {
            let release = self.at(name).join("releases/1");
            fs::create_dir_all(&release).unwrap();
            let _ = symlink("releases/1", self.at(name).join("current"));
        }
        Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(["render", file.to_str().unwrap(), "--no-sync", "--out", "/", "--set", &self.user.name])
            .args(arguments)
            .output()
            .unwrap()
    }

    fn place(&self) -> String {
        let at = self.scratch.path().display();
        format!("service: {{directory: {at}/sv, link: {at}/service}}")
    }

    fn wait_for(&self, name: &str) {
        let service = self.at("sv").join(name);
        support::runsv::until_answers(&service);
        let started = support::runsv::sv(&service, "start", 120);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stdout));
    }

    fn names(&self) -> Vec<String> {
        ["a", "b"].map(|letter| format!("{}{letter}", self.user.name)).to_vec()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for name in self.names() {
            let _ =
                Command::new("sv").args(["-w", "20", "force-stop"]).arg(self.at("sv").join(&name)).output();
            forget(&name);
        }
        if let Some(mut runsvdir) = self.runsvdir.take() {
            kill(runsvdir.id(), Signal::HUP);
            let _ = runsvdir.wait();
        }
        for name in self.names() {
            let _ = Command::new("sv")
                .args(["-w", "20", "force-shutdown"])
                .arg(self.at("sv").join(&name))
                .output();
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn a_live_service_is_stopped_unlinked_and_removed_and_its_neighbour_goes_on() {
    let live = Live::new();
    let names = live.names();
    let applied = live.apply(&names, &live.place(), &[]);
    assert!(applied.status.success(), "{}", text(&applied));
    for name in &names {
        live.wait_for(name);
    }
    let pid = || fs::read_to_string(live.at("sv").join(&names[1]).join("supervise/pid")).unwrap();
    let before = pid();
    let applied =
        live.apply(&names[1..], &live.place().replace(&live.ports[0].to_string(), "0"), &["--prune"]);
    let said = text(&applied);
    assert!(applied.status.success(), "{said}");
    assert!(said.contains(&format!("stopped {}", names[0])), "{said}");
    assert!(!live.at("sv").join(&names[0]).exists(), "{said}");
    assert!(fs::symlink_metadata(live.at("service").join(&names[0])).is_err(), "{said}");
    assert!(live.at(&names[0]).join("releases/1").exists(), "the application's data stay: {said}");
    assert_eq!(pid(), before, "the neighbour was not touched");
}

#[test]
fn a_service_that_is_disabled_is_stopped_and_unlinked_and_can_come_back() {
    let live = Live::new();
    let names = &live.names()[..1];
    let applied = live.apply(names, &live.place(), &[]);
    assert!(applied.status.success(), "{}", text(&applied));
    live.wait_for(&names[0]);
    let disabled = live.place().replace('}', ", enabled: false}");
    let applied = live.apply(names, &disabled, &[]);
    let said = text(&applied);
    assert!(applied.status.success(), "{said}");
    assert!(
        said.contains(&format!("{}: removed link", live.at("service").join(&names[0]).display())),
        "{said}"
    );
    assert!(live.user.processes().is_empty(), "left behind: {:?}\n{said}", live.user.processes());
    assert!(live.at("sv").join(&names[0]).join("run").exists(), "{said}");
    let again = live.apply(names, &disabled, &[]);
    assert!(text(&again).starts_with("nothing to change\n"), "{}", text(&again));
    assert!(!text(&again).contains("not wanted any more"), "{}", text(&again));
    let back = live.apply(names, &live.place(), &[]);
    assert!(back.status.success(), "{}", text(&back));
    live.wait_for(&names[0]);
}

#[test]
fn a_service_that_does_not_stop_keeps_everything() {
    let live = Live::new();
    let names = &live.names()[..1];
    let applied = live.apply(names, &live.place().replace('}', ", timeout: 1}"), &[]);
    assert!(applied.status.success(), "{}", text(&applied));
    // Somebody's own run script, which TERM does not end.
    let run = live.at("sv").join(&names[0]).join("run");
    fs::write(&run, "#!/usr/bin/python3\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('ready', 'w')\nwhile True: signal.pause()\n").unwrap();
    // It is up once it ignores TERM.
    for (script, body) in [("check", "test -e ready"), ("finish", "exit 0")] {
        fs::write(live.at("sv").join(&names[0]).join(script), format!("#!/bin/sh\n{body}\n")).unwrap();
    }
    let _ = Command::new("sv").args(["-w", "20", "force-stop"]).arg(live.at("sv").join(&names[0])).output();
    live.wait_for(&names[0]);
    let applied = live.apply(&[format!("{}b", live.user.name)], &live.place(), &["--prune"]);
    let said = text(&applied);
    assert_eq!(applied.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot stop the service in") && said.contains("timeout"), "{said}");
    assert!(run.exists() && fs::symlink_metadata(live.at("service").join(&names[0])).is_ok(), "{said}");
    let pid = fs::read_to_string(live.at("sv").join(&names[0]).join("supervise/pid")).unwrap();
    kill(pid.trim().parse().unwrap(), Signal::KILL);
}
