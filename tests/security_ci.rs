//! The author of a pull request plays against the CI job that looks at it: the attack matrix of docs/security.md, section
//! "Continuous integration", with the real git, as root and as a user without any rights.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// The user and group `nobody`, as Debian numbers them.
const NOBODY: u32 = 65_534;

/// What a job must not show.
const TOKEN: &str = "ghs_tokenofthecheckout";

const BASE: &str = "application: web\nuser: deploy\ngroup: deploy\nvirtualenv_home: /home/deploy\n";

/// Most private memory of a process, in bytes: what docs/security.md promises for any input.
const MOST_MEMORY: u64 = 1 << 30;

/// Most processor time of a process, in seconds. A release build needs less than 10; this one is not optimised.
const MOST_SECONDS: u64 = 60;

/// The program under test where every user may execute it.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = Path::new("/tmp").join(format!("runsmith-security-ci-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.join("runsmith");
        // Not by this process: what another test starts meanwhile would have the file open for writing.
        let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_runsmith")).arg(&program).status();
        assert!(copy.unwrap().success());
        program
    })
}

/// A job: a checkout, and whoever works on it.
struct Job {
    scratch: tempfile::TempDir,
    uid: u32,
}

/// What a command printed and how it ended.
struct Ran {
    code: Option<i32>,
    out: String,
    errors: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), errors: text(&output.stderr) }
    }

    fn all(&self) -> String {
        format!("{}{}", self.out, self.errors)
    }
}

impl Job {
    /// A checkout of files that are committed at `main`.
    fn new(uid: u32, files: &[(&str, &str)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let job = Self { scratch, uid };
        for directory in ["work", "home", "outside"] {
            fs::create_dir(job.at(directory)).unwrap();
        }
        job.write("outside/token", TOKEN);
        files.iter().for_each(|(name, text)| job.write(&format!("work/{name}"), text));
        job.owned();
        job.git(&["init", "--quiet", "--initial-branch=main"]);
        job.commit();
        job
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.owned();
    }

    fn script(&self, name: &str, text: &str) -> String {
        self.write(name, text);
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
        self.at(name).to_str().unwrap().to_owned()
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        let path = self.at(name);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self.owned();
    }

    /// Gives everything to the job's user.
    fn owned(&self) {
        own(self.scratch.path(), self.uid);
    }

    /// A command of the job's user in a directory, with nothing of this process's environment but the search path.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)]);
        command.args(["--clear-groups", "--"]).arg(program).current_dir(self.at(directory));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.at("home"));
        command
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = self.command("git", "work");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@example.com");
        }
        let ran = Ran::of(&command.args(arguments).output().unwrap());
        assert_eq!(ran.code, Some(0), "git {arguments:?}: {}", ran.all());
        ran.out
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
    }

    fn runsmith(&self, arguments: &[&str]) -> Ran {
        self.runsmith_in("work", arguments)
    }

    fn runsmith_in(&self, directory: &str, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(program(), directory).args(arguments).output().unwrap())
    }

    /// What the change does, against `main`.
    fn diff(&self) -> Ran {
        self.runsmith(&["render", "pillar", "--diff", "--against", "git:main", "--allow", "all"])
    }

    /// A command that leaves a trace if it is ever executed.
    fn trap(&self) -> String {
        format!("touch {}", self.at("home/sprung").display())
    }

    fn is_sprung(&self) -> bool {
        self.at("home/sprung").exists()
    }
}

fn own(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path(), uid));
    }
}

/// Runs an attack against root and against a user without rights.
fn for_each_user(attack: impl Fn(u32)) {
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: they play several users");
    [0, NOBODY].into_iter().for_each(attack);
}

/// Is the change from the user `deploy` to root seen?
fn sees_the_change(ran: &Ran) {
    assert_eq!(ran.code, Some(1), "{}", ran.all());
    assert!(ran.out.contains("user: deploy\n") && ran.out.contains("user: root\n"), "{}", ran.all());
}

/// A checkout whose pull request makes root the user.
fn changed(uid: u32) -> Job {
    let job = Job::new(uid, &[("pillar/web.yaml", BASE)]);
    job.git(&["checkout", "--quiet", "-b", "change"]);
    job.write("work/pillar/web.yaml", &BASE.replace("user: deploy", "user: root"));
    job.commit();
    job
}

#[test]
fn a_planted_repository_is_no_repository() {
    for_each_user(|uid| {
        let job = changed(uid);
        sees_the_change(&job.diff());
        // Another repository, whose `main` has what the pull request has, as plain files of the tree.
        let planted = Job::new(uid, &[("web.yaml", &BASE.replace("user: deploy", "user: root"))]);
        for name in ["HEAD", "objects", "refs"] {
            let (from, to) = (planted.at("work/.git").join(name), job.at("work/pillar"));
            assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
        }
        let trap = job.script("work/trap", &format!("#!/bin/sh\n{}\n", job.trap()));
        job.write("work/pillar/config", &format!("[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = {}\n\tfsmonitor = {trap}\n\tpager = {trap}\n", job.at("work/pillar").display()));
        // The bait is real: git takes it.
        let bait =
            Ran::of(&job.command("git", "work/pillar").args(["rev-parse", "--git-dir"]).output().unwrap());
        assert_eq!(bait.out, ".\n", "{}", bait.all());
        sees_the_change(&job.diff());
        for (directory, pillar) in
            [("work/pillar", "."), ("work/pillar", "web.yaml"), ("work/pillar", "../pillar")]
        {
            let against = ["render", pillar, "--diff", "--against", "git:main", "--allow", "all"];
            sees_the_change(&job.runsmith_in(directory, &against));
        }
        let absolute = job.at("work/pillar/web.yaml");
        let against =
            ["render", absolute.to_str().unwrap(), "--diff", "--against", "git:main", "--allow", "all"];
        sees_the_change(&job.runsmith(&against));
        assert!(!job.is_sprung());
        // From elsewhere there is no repository, whatever the pillar's directory looks like.
        let ran = job.runsmith_in("outside", &against);
        assert!(ran.code == Some(2) && ran.errors.contains("is in no git repository"), "{}", ran.all());
    });
}

#[test]
fn the_base_is_read_at_the_path_that_was_given() {
    for_each_user(|uid| {
        // The directory becomes a link to another one, and a file a directory.
        let job = changed(uid);
        fs::rename(job.at("work/pillar"), job.at("work/new")).unwrap();
        job.link("work/pillar", "new");
        sees_the_change(&job.diff());
        let job = Job::new(uid, &[("pillar", BASE)]);
        fs::remove_file(job.at("work/pillar")).unwrap();
        job.write("work/pillar/web.yaml", &BASE.replace("user: deploy", "user: root"));
        sees_the_change(&job.diff());
    });
}

#[test]
fn nothing_is_fetched_and_no_transport_runs() {
    for_each_user(|uid| {
        let job = changed(uid);
        let blob = job.git(&["rev-parse", "main:pillar/web.yaml"]);
        let (directory, name) = blob.trim().split_at(2);
        fs::remove_file(job.at(&format!("work/.git/objects/{directory}/{name}"))).unwrap();
        let trap = job.script("work/trap", &format!("#!/bin/sh\n{}\n", job.trap()));
        for (name, value) in [
            ("core.repositoryformatversion", "1"),
            ("extensions.partialClone", "origin"),
            ("remote.origin.promisor", "true"),
            ("remote.origin.url", &format!("ext::{trap}")),
            ("remote.origin.uploadpack", &trap),
            ("protocol.allow", "always"),
            ("protocol.ext.allow", "always"),
        ] {
            job.git(&["config", name, value]);
        }
        let ran = job.diff();
        assert!(ran.code == Some(2) && ran.errors.contains("nothing is fetched here"), "{}", ran.all());
        assert!(ran.errors.contains("pillar/web.yaml"), "{}", ran.errors);
        assert!(!job.is_sprung());
        // The bait is real: git runs it.
        let _ = job.command("git", "work").args(["cat-file", "-p", blob.trim()]).output().unwrap();
        assert!(job.is_sprung());
    });
}

#[test]
fn configuration_runs_nothing() {
    for_each_user(|uid| {
        let job = changed(uid);
        let trap = job.script("work/trap", &format!("#!/bin/sh\n{}\n", job.trap()));
        job.write("work/.gitconfig", &format!("[core]\n\tfsmonitor = {trap}\n\tpager = {trap}\n[filter \"x\"]\n\tsmudge = {trap}\n\tclean = {trap}\n[diff \"x\"]\n\ttextconv = {trap}\n\tcommand = {trap}\n"));
        job.write("work/.gitattributes", "* filter=x diff=x\n");
        job.script("work/hooks/post-index-change", &format!("#!/bin/sh\n{}\n", job.trap()));
        job.script("work/hooks/reference-transaction", &format!("#!/bin/sh\n{}\n", job.trap()));
        job.git(&["config", "include.path", "../.gitconfig"]);
        job.git(&["config", "core.hooksPath", job.at("work/hooks").to_str().unwrap()]);
        sees_the_change(&job.diff());
        assert!(!job.is_sprung());
        // The bait is real: git runs it.
        let _ = job.command("git", "work").arg("status").output().unwrap();
        assert!(job.is_sprung());
    });
}

#[test]
fn the_environment_and_the_home_change_nothing() {
    for_each_user(|uid| {
        let job = changed(uid);
        let other = Job::new(uid, &[("pillar/web.yaml", &BASE.replace("user: deploy", "user: root"))]);
        let trap = job.script("work/trap", &format!("#!/bin/sh\n{}\n", job.trap()));
        // A program that the checkout has, found by a search path with the working directory, and by an absolute one.
        job.script("work/git", &format!("#!/bin/sh\n{}\nexec /usr/bin/git \"$@\"\n", job.trap()));
        let search = format!(".::{}:{}", job.at("work").display(), std::env::var("PATH").unwrap());
        // A home in the checkout, whose configuration would write files.
        job.write(
            "work/.gitconfig",
            &format!("[trace2]\n\tnormalTarget = {0}\n\teventTarget = {0}\n\tperfTarget = {0}\n[safe]\n\tdirectory = *\n", job.at("home/trace").display()),
        );
        let at = |name: &str| other.at("work/.git").join(name);
        let mut command = job.command(program(), "work");
        command
            .args(["render", "pillar", "--diff", "--against", "git:main", "--allow", "all"])
            .env("HOME", job.at("work"))
            .env("PATH", search)
            .env("GIT_DIR", other.at("work/.git"))
            .env("GIT_COMMON_DIR", other.at("work/.git"))
            .env("GIT_WORK_TREE", other.at("work"))
            .env("GIT_OBJECT_DIRECTORY", at("objects"))
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", at("objects"))
            .env("GIT_INDEX_FILE", at("index"))
            .env("GIT_NAMESPACE", "x")
            .env("GIT_PREFIX", "x")
            .env("GIT_TRACE", job.at("home/trace"))
            .env("GIT_TRACE2_EVENT", job.at("home/trace"))
            .env("GIT_TRACE_SETUP", job.at("home/trace"))
            .env("GIT_EXEC_PATH", job.at("work"))
            .env("GIT_SSH_COMMAND", &trap)
            .env("GIT_PAGER", &trap)
            .env("GIT_EXTERNAL_DIFF", &trap)
            .env("GIT_ASKPASS", &trap)
            .env("GIT_CONFIG_GLOBAL", job.at("work/.gitconfig"))
            .env("GIT_CONFIG_PARAMETERS", format!("'core.fsmonitor={trap}'"))
            .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "core.fsmonitor")])
            .env("GIT_CONFIG_VALUE_0", &trap)
            .env("GIT_CEILING_DIRECTORIES", "/")
            .env("GIT_ALLOW_PROTOCOL", "ext:file");
        sees_the_change(&Ran::of(&command.output().unwrap()));
        assert!(!job.is_sprung() && !job.at("home/trace").exists());
    });
}

#[test]
fn a_name_means_one_commit() {
    for_each_user(|uid| {
        // Who may push a tag, or a replacement, does not choose what is compared with.
        let job = changed(uid);
        let blobs =
            ["main", "change"].map(|name| job.git(&["rev-parse", &format!("{name}:pillar/web.yaml")]));
        job.git(&["replace", blobs[0].trim(), blobs[1].trim()]);
        sees_the_change(&job.diff());
        job.git(&["tag", "main", "change"]);
        let ran = job.diff();
        assert!(
            ran.code == Some(2) && ran.errors.contains("more than one ref has this name"),
            "{}",
            ran.all()
        );
        let named = ["render", "pillar", "--diff", "--against", "git:refs/heads/main", "--allow", "all"];
        sees_the_change(&job.runsmith(&named));
    });
}

#[test]
fn a_checkout_of_another_user_is_trusted_only_if_the_user_says_so() {
    for_each_user(|uid| {
        let job = changed(uid);
        let other = if uid == 0 { NOBODY } else { 1 };
        own(&job.at("work"), other);
        let ran = job.diff();
        assert!(ran.code == Some(2) && ran.errors.contains("safe.directory"), "{}", ran.all());
        let command =
            ran.errors.lines().find_map(|line| line.split_once("git config ")).expect("what to do").1;
        let words: Vec<&str> = command.split(' ').collect();
        let told = job.command("git", "outside").arg("config").args(words).output().unwrap();
        assert!(told.status.success(), "{}", Ran::of(&told).all());
        sees_the_change(&job.diff());
    });
}

/// Nothing of what is outside is shown, and the file is named.
fn refuses(job: &Job, arguments: &[&str], file: &str, why: &str) {
    let ran = job.runsmith(arguments);
    assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.all());
    assert!(!ran.all().contains(TOKEN), "{arguments:?}: {}", ran.all());
    assert!(ran.errors.contains(file) && ran.errors.contains(why), "{arguments:?}: {}", ran.all());
}

/// Every command and format that reads a pillar at `pillar`.
fn readers(pillar: &str) -> Vec<Vec<&str>> {
    let mut all =
        vec![vec!["read", pillar], vec!["render", pillar], vec!["render", pillar, "--format", "json"]];
    for format in ["text", "json", "github", "sarif", "junit", "gitlab"] {
        all.push(vec!["validate", pillar, "--format", format]);
    }
    for format in ["text", "json", "patch", "markdown"] {
        all.push(vec!["render", pillar, "--diff", "--against", "git:main", "--format", format]);
    }
    all.push(vec!["render", "good.yaml", "--diff", "--against", pillar]);
    all.push(vec!["validate", pillar, "--fix", "--diff"]);
    all
}

#[test]
fn pillars_do_not_lead_out_of_the_checkout() {
    for_each_user(|uid| {
        let job = Job::new(uid, &[("pillar/web.yaml", BASE), ("good.yaml", BASE), ("one/x", "")]);
        job.git(&["config", "http.extraheader", TOKEN]);
        let outside = job.at("outside/token");
        for (target, why) in [
            (PathBuf::from("../../outside/token"), "leads out of"),
            (outside.clone(), "leads out of"),
            (PathBuf::from("/proc/self/environ"), "leads out of"),
        ] {
            job.link("work/pillar/more.yaml", &target);
            for reader in readers("pillar") {
                refuses(&job, &reader, "pillar/more.yaml", why);
            }
            // Named itself, as pre-commit names files.
            for reader in readers("pillar/more.yaml") {
                refuses(&job, &reader, "pillar/more.yaml", why);
            }
        }
        job.link("work/pillar/more.yaml", "../.git/config");
        for reader in readers("pillar") {
            refuses(&job, &reader, "pillar/more.yaml", "leads out of pillar");
        }
        for reader in readers("pillar/more.yaml").into_iter().chain(readers(".")) {
            refuses(&job, &reader, "pillar/more.yaml", "`.git`");
        }
        // The directory itself.
        fs::remove_dir_all(job.at("work/pillar")).unwrap();
        job.link("work/pillar", "../outside");
        job.write("outside/web.yaml", TOKEN);
        for reader in readers("pillar") {
            refuses(&job, &reader, "pillar", "leads out of");
        }
    });
}

#[test]
fn templates_do_not_lead_out_of_their_directory() {
    for_each_user(|uid| {
        let job = Job::new(uid, &[("pillar/web.yaml", BASE), ("templates/README", "")]);
        job.git(&["config", "http.extraheader", TOKEN]);
        let against: &[&[&str]] = &[
            &[],
            &["--diff", "--against", "git:main"],
            &["--diff", "--against", "git:main", "--format", "markdown"],
        ];
        for (target, directory) in [
            ("../.git/config", "templates"),
            ("../../outside/token", "templates"),
            ("/etc/passwd", "templates"),
        ] {
            fs::remove_file(job.at("work/templates/README")).ok();
            job.link("work/templates/gunicorn-ready.py", target);
            for rest in against {
                let arguments = [&["render", "pillar", "--templates", directory][..], rest].concat();
                refuses(&job, &arguments, "templates/gunicorn-ready.py", "leads out of templates");
            }
        }
        // The directory itself.
        fs::remove_dir_all(job.at("work/templates")).unwrap();
        job.link("work/templates", "../outside");
        refuses(&job, &["render", "pillar", "--templates", "templates"], "templates", "leads out of");
    });
}

/// The directory that is compared with, or rendered into, is the pull request's, too.
#[test]
fn rendered_directories_do_not_lead_out_of_the_checkout() {
    const HEADER: &str = "c0ffeeC0FFEE1234";
    for_each_user(|uid| {
        let managed = "#!/x\n# Managed by runsmith from the pillar of web.\n";
        let job = Job::new(uid, &[("pillar/web.yaml", BASE), ("etc/sv/web/run", managed)]);
        job.git(&["config", "http.extraheader", &format!("Cookie: x={HEADER}")]);
        let difference = ["render", "pillar", "--allow", "all", "--diff"];
        let compared: [&[&str]; 4] = [
            &["--against", "rend"],
            &["--root", "rend"],
            &["--root", "rend", "--adopt"],
            &["--root", ".", "--adopt"],
        ];
        for target in [".", "../outside", ".git"] {
            job.link("work/rend", target);
            for more in compared {
                for format in ["text", "json", "markdown", "patch"] {
                    let ran = job.runsmith(&[&difference, more, &["--format", format]].concat());
                    let shown = ran.all();
                    assert!(
                        !shown.contains(HEADER) && !shown.contains(TOKEN.trim()),
                        "{target} {more:?}: {shown}"
                    );
                }
            }
        }
        for target in ["../outside", ".git"] {
            job.link("work/rend", target);
            for more in [&["--diff", "--root", "rend"][..], &["--out", "rend"]] {
                let ran = job.runsmith(&[&["render", "pillar", "--allow", "all"], more].concat());
                assert!(
                    ran.code == Some(2) && ran.errors.contains("a link leads"),
                    "{target} {more:?}: {}",
                    ran.all()
                );
            }
            let ran = job.runsmith(&["remove", "web", "--root", "rend"]);
            assert!(ran.code == Some(2) && ran.errors.contains("a link leads"), "{target}: {}", ran.all());
        }
        let outside: Vec<_> =
            fs::read_dir(job.at("outside")).unwrap().flatten().map(|one| one.file_name()).collect();
        assert_eq!(outside, ["token"]);
    });
}

#[test]
fn links_that_stay_inside_are_followed() {
    for_each_user(|uid| {
        let job = Job::new(
            uid,
            &[
                ("pillar/sets/a/web.yaml", BASE),
                ("one/templates/log-run", "#!/bin/sh\n# {{ managed | comment }}\nexec mine\n"),
            ],
        );
        // As Kubernetes mounts a ConfigMap, and as directories are shared.
        job.link("work/pillar/..data", "sets/a");
        job.link("work/pillar/twice.yaml", "..data/web.yaml");
        job.link("work/alias.yaml", "pillar/twice.yaml");
        job.link("work/by-name", "pillar");
        job.link("work/templates", "one/templates");
        for pillar in ["pillar", "pillar/twice.yaml", "alias.yaml", "by-name", "by-name/twice.yaml", "."] {
            let ran = job.runsmith(&["validate", pillar]);
            assert_eq!(ran.out, "no findings: 1 application in 1 file\n", "{pillar}: {}", ran.all());
        }
        let ran = job.runsmith(&["render", "pillar", "--templates", "templates", "--allow", "all"]);
        assert!(ran.out.contains("exec mine\n"), "{}", ran.all());
        // Outside of any repository a file that is named is what any program would open.
        let alone = tempfile::tempdir().unwrap();
        fs::set_permissions(alone.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(alone.path().join("real"), BASE).unwrap();
        fs::create_dir(alone.path().join("links")).unwrap();
        symlink("../real", alone.path().join("links/web.yaml")).unwrap();
        own(alone.path(), uid);
        let named = alone.path().join("links/web.yaml");
        assert_eq!(job.runsmith(&["validate", named.to_str().unwrap()]).code, Some(0));
        // What a directory holds stays in it all the same.
        let ran = job.runsmith(&["validate", alone.path().join("links").to_str().unwrap()]);
        assert!(ran.code == Some(2) && ran.errors.contains("leads out of"), "{}", ran.all());
    });
}

/// Runs with at most a gibibyte of private memory and a bounded time of the processor.
fn limited(job: &Job, arguments: &[&str]) -> Ran {
    let mut command = job.command("prlimit", "work");
    command.args([format!("--data={MOST_MEMORY}"), format!("--cpu={MOST_SECONDS}"), "--core=0".to_owned()]);
    command.arg(program()).args(arguments);
    Ran::of(&command.output().unwrap())
}

#[test]
fn templates_have_fuel() {
    for_each_user(|uid| {
        let ten_thousand = |text: &str| text.replace("MANY", "[0] * 10000");
        let loops =
            "{% for a in MANY %}{% for b in MANY %}{% for c in MANY %}x{% endfor %}{% endfor %}{% endfor %}";
        let doubled = |start: &str, step: &str, end: &str| {
            format!("{{% set s = {start} %}}{}{end}", format!("{{% set s = {step} %}}").repeat(40))
        };
        let text = |step: &str| doubled("'xxxxxxxxxxxxxxxx'", step, "{{ s }}");
        let attacks = [
            ten_thousand(loops),
            ten_thousand(&loops.replace('x', "")),
            text("s ~ s"),
            text("s + s"),
            text("s * 2"),
            text("s | replace('x', 'xxxx')"),
            text("[s, s] | join(s)"),
            text("[s, s] | join"),
            text("s | indent(width=1000) ~ s"),
            doubled("[1]", "(s + s) | list", ""),
            "{{ 'x' * 99999999 * 2 }}".to_owned(),
        ];
        // What fuel does not count.
        let long = [
            doubled("[1]", "s + s", ""),
            doubled("[1]", "[s, s]", "{{ s | string }}"),
            doubled("[1]", "{'a': s, 'b': s}", "{{ s | lower }}"),
            "{% set y = ['a' * 60000] * 100000 %}{{ y | join | length }}".to_owned(),
        ];
        let job = Job::new(uid, &[("pillar/web.yaml", BASE)]);
        for attack in attacks.into_iter().chain(long) {
            let template = format!("#!/bin/sh\n# {{{{ managed | comment }}}}\n{attack}\n");
            job.write("work/templates/log-run", &template);
            let ran = limited(&job, &["render", "pillar", "--templates", "templates"]);
            assert_eq!(ran.code, Some(2), "{attack:.100}: {:.1000}", ran.all());
            let [named, why] =
                ["templates/log-run:", "it does too much work"].map(|part| ran.errors.contains(part));
            assert!(named && why, "{attack:.100}: {:.1000}", ran.all());
        }
    });
}

/// What needs more than a run may have ends with an answer, whatever it is.
#[test]
fn what_needs_too_much_ends_with_an_answer() {
    let job = Job::new(NOBODY, &[("good.yaml", BASE)]);
    let ends = |limit: &str, arguments: &[&str], why: &str| {
        let mut command = job.command("prlimit", "work");
        command.args([limit, "--core=0"]).arg(program()).args(arguments);
        let ran = Ran::of(&command.output().unwrap());
        let answers = ran.code == Some(2) && ran.errors.contains(why);
        assert!(answers, "{arguments:?} {limit}: {:?} {:.1000}", ran.code, ran.errors);
    };
    job.write("work/pillar/web.yaml", &format!("{BASE}x: [{}]\n", "1,".repeat(500_000)));
    for arguments in readers("pillar/web.yaml") {
        ends("--data=33554432", &arguments, "this needs more than 32 MiB of memory");
    }
    // Ten times what an optimised program does in a second.
    let each: String = (0..14_000).map(|n| format!("  a{n}: {{bind: 'unix:/run/{n}'}}\n")).collect();
    let defaults = "defaults: {user: deploy, virtualenv_home: /h, run_script: shell}";
    job.write("work/pillar/web.yaml", &format!("{defaults}\napplications:\n{each}"));
    let why = "this takes more than 1 s of the processor";
    ends("--cpu=1:60", &["render", "pillar/web.yaml", "--format", "json"], why);
}

/// Neither a long row of operators nor a deep value overflows a stack.
#[test]
fn templates_of_one_long_expression_end() {
    let job = Job::new(NOBODY, &[("pillar/web.yaml", BASE)]);
    let row = |one: &str, count: usize| format!("{{{{ {}1 }}}}", one.repeat(count));
    let deep = |step: &str, end: &str| {
        format!("{{% set s = [1] %}}{}{end}", format!("{{% set s = {step} %}}").repeat(10_000))
    };
    for (attack, code) in [
        (row("-", 250_000), 0),
        (row("not ", 60_000), 0),
        (row("1+", 130_000), 0),
        (row("x.", 130_000), 2),
        (row("(", 100_000), 2),
        (deep("[s]", ""), 0),
        (deep("{'a': s}", "{{ s | string | length }}"), 0),
        (deep("[s]", "{{ s == [s] }}"), 0),
        ("x".repeat(300_000), 2),
    ] {
        let template = format!("#!/bin/sh\n# {{{{ managed | comment }}}}\n{attack}\n");
        job.write("work/templates/log-run", &template);
        let ran = limited(&job, &["render", "pillar", "--templates", "templates"]);
        assert_eq!(ran.code, Some(code), "{attack:.100}: {:.1000}", ran.all());
        assert!(ran.errors.len() < 1000, "{attack:.100}: {:.1000}", ran.all());
    }
}

/// Texts of many values, by what they are called; `share` divides the numbers that no bound of the input depends on. With 1 some
/// texts have nearly 32 MiB.
fn large(share: usize) -> Vec<(&'static str, String)> {
    // Nearly as many as one application may have.
    let few = 4_900 / share.min(8);
    let below = |section: &str, count: usize, line: fn(usize) -> String| {
        let lines: String = (0..count).map(|n| format!("  {}\n", line(n))).collect();
        format!("{BASE}{section}:\n{lines}")
    };
    let flow = |open: &str, close: &str, count: usize| {
        format!("{BASE}x: {}1{}\n", open.repeat(count), close.repeat(count))
    };
    let applications = |count: usize, more: fn(usize) -> String| {
        let each: String = (0..count).map(|n| format!("    a{n}: {{{}}}\n", more(n))).collect();
        format!("unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h}}\n  applications:\n{each}")
    };
    let shared = |count: usize, defaults: &str| {
        let each: String = (0..count).map(|n| format!("    a{n}:\n")).collect();
        format!(
            "unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h, {defaults}}}\n  applications:\n{each}"
        )
    };
    let nested = |levels: usize| {
        let each: String = (1..levels)
            .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
            .collect();
        format!("a0: &a0 [x, x]\n{each}")
    };
    let bomb = format!("{}{BASE}", nested(12));
    let chain: String = (1..20_000 / share).map(|n| format!("a{n}: &a{n} {{y: *a{}}}\n", n - 1)).collect();
    let merged: String =
        (1..3_000 / share).map(|n| format!("d{n}: &d{n} {{<<: *d{}, k{n}: 1}}\n", n - 1)).collect();
    // One value that seems to hold a secret in every few bytes.
    let many = |one: &str| one.repeat(30_000_000 / share / one.len());
    let variable = |one: &str| format!("{BASE}environment: {{A: '{}'}}\n", many(one));
    let command = |one: &str| format!("{BASE}unicorn_command: '{}'\n", many(one));
    vec![
        ("names before quotes and backslashes in a variable", variable("password=\"\\")),
        ("names before quotes and backslashes in a command", command("password=\"\\")),
        ("JSON within JSON in a variable", variable("{\"password\":")),
        ("JSON within JSON in a command", command("{\"password\":")),
        ("names before brackets in a variable", variable("token:[")),
        ("names before brackets in a command", command("token:[")),
        ("names that are values in a variable", variable("password=")),
        ("names that are values in a command", command("password=")),
        ("variables", below("environment", 200_000 / share, |n| format!("V{n}: x"))),
        ("variables that are allowed", below("environment", few, |n| format!("V{n}: x"))),
        ("secrets that are allowed", below("secrets", few, |n| format!("V{n}: secret{n}"))),
        ("wrong variables", below("environment", few, |n| format!("V{n}: {{}}"))),
        ("wrong names", below("environment", few, |n| format!("'V {n}': x"))),
        ("addresses", below("bind", 60_000 / share, |n| format!("- 127.0.{}.{}:80", n / 250, n % 250 + 1))),
        ("addresses that are allowed", below("bind", few, |n| format!("- unix:/run/{n}.sock"))),
        ("one address", below("bind", few, |_| "- 127.0.0.1:80".to_owned())),
        ("unknown keys", (0..200_000 / share).fold(BASE.to_owned(), |text, n| format!("{text}u{n}: 1\n"))),
        ("settings", below("gunicorn", few, |n| format!("unknown{n}: 1"))),
        ("applications", applications(20_000 / share, |n| format!("bind: 'unix:/run/{n}.sock'"))),
        ("applications at one address", applications(12_000 / share, |_| "bind: '127.0.0.1:80'".to_owned())),
        (
            "documents",
            (0..15_000 / share)
                .map(|n| format!("---\n{}bind: unix:/run/{n}.sock\n", BASE.replace("web", &format!("a{n}"))))
                .collect(),
        ),
        ("lists in lists", flow("[", "]", 3_000_000 / share)),
        ("maps in maps", flow("{a: ", "}", 1_000_000 / share)),
        ("alias bomb", bomb),
        ("chain of aliases", format!("a0: &a0 {{x: 1}}\n{chain}{BASE}")),
        ("chain of merges", format!("d0: &d0 {{k: 1}}\n{merged}{BASE}")),
        ("comments", format!("{}{BASE}", "# password: x\n".repeat(2_000_000 / share))),
        (
            "comments that silence",
            format!("{}{BASE}", "# runsmith: allow(user-root) because x\n".repeat(300_000 / share)),
        ),
        ("number signs", format!("{BASE}{}\n", "#".repeat(30_000_000 / share))),
        ("one long value", format!("{BASE}environment: {{A: \"{}\"}}\n", "x".repeat(30_000_000 / share))),
        (
            "aliases of secrets",
            format!("{}@\n", (0..200_000 / share).map(|n| format!("PASSWORD: *a{n}\n")).collect::<String>()),
        ),
        ("values", format!("{BASE}x: [{}]\n", "1,".repeat(10_000_000 / share))),
        // JSON, which begins with a bracket.
        ("values of JSON", format!("[{}0]", "0,".repeat(16_000_000 / share))),
        ("keys of JSON", format!("{{{}\"\":0}}", "\"\":0,".repeat(6_000_000 / share))),
        ("objects of JSON within others", {
            let pair = |inner: &str| format!("{{\"a\":{inner},\"a\":{inner}}}");
            (0..16).fold(format!("[{}0]", "0,".repeat(2_000 / share)), |inner, _| {
                if inner.len() < (12 << 20) { pair(&inner) } else { inner }
            })
        }),
        // Small documents, each of which blows up to a half of what one may have.
        ("documents of nested aliases", format!("---\n{}", nested(7)).repeat(100)),
        ("long defaults", {
            let value = "x".repeat(130_000);
            let values = (0..8).map(|n| format!("V{n}: {value}")).collect::<Vec<_>>().join(", ");
            let each: String =
                (0..14_000 / share).map(|n| format!("    a{n}: {{bind: 'unix:/run/{n}'}}\n")).collect();
            format!(
                "unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h, environment: {{{values}}}}}\n  applications:\n{each}"
            )
        }),
        ("keys without values", {
            let keys: Vec<String> = (0..500_000 / share).map(|n| format!("A{n}")).collect();
            format!("{BASE}secrets: {{{}}}\n", keys.join(", "))
        }),
        ("findings about one long place", {
            let blanks = " ".repeat(10_000_000 / share);
            let lines: String = (0..few - 1).map(|n| format!("  A{n}: *x\n")).collect();
            format!("{BASE}secrets:\n  A: &x \"****{blanks}\n    \"\n{lines}")
        }),
        ("newlines in a shell run script", {
            let lines: String = (0..900 / share).map(|n| format!("  A{n}: *x\n")).collect();
            let value = "\\n".repeat(131_000);
            format!("{BASE}run_script: shell\nenvironment:\n  A: &x \"{value}\"\n{lines}")
        }),
        ("newlines in many run scripts", {
            let value = "\\n".repeat(99_000);
            let each: String =
                (0..1_200 / share).map(|n| format!("    a{n}: {{bind: 'unix:/run/{n}'}}\n")).collect();
            format!(
                "unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h, run_script: shell, environment: {{A: \"{value}\"}}}}\n  \
                 applications:\n{each}"
            )
        }),
        ("variables that become secrets", {
            let lines: String = (0..few).map(|n| format!("  V{n}: \"a{n}\"\n")).collect();
            format!(
                "{BASE}secrets:\n{lines}environment: {{X: \"{}\"}}\nrun_script: shell\n",
                "\\n".repeat(60_000)
            )
        }),
        (
            "options in a command",
            format!(
                "{BASE}unicorn_command: srv {}\nserver: any\n",
                "--token Aaaaaa11x ".repeat(1_000_000 / share)
            ),
        ),
        (
            "dashes",
            format!("{BASE}x: '{}' # {}\n", "-".repeat(10_000_000 / share), "-".repeat(10_000_000 / share)),
        ),
        (
            "names before asterisks",
            format!(
                "{BASE}x: '{}{}'\n",
                "password=true;".repeat(500_000 / share),
                "*".repeat(10_000_000 / share)
            ),
        ),
        ("comments on a line", format!("{BASE}{}\n", "# runsmith: user-root ".repeat(500_000 / share))),
        ("letters of an option", format!("{BASE}unicorn_command: gunicorn -{}\n", "R".repeat(120_000))),
        ("keys that are nearly right", {
            let near =
                ["worker", "bund", "timeuot", "keepaliv", "backlgo", "preload_ap", "max_request", "umsk"];
            let lines = (0..few).map(|n| format!("  qqqqqqq{n}: 1\n")).collect::<String>();
            let near = near.map(|name| format!("  {name}: 1\n")).concat();
            format!("{BASE}gunicorn:\n{near}{lines}")
        }),
        ("deep directories", {
            let path = "a/".repeat(1_900);
            let layout = ["pids", "logs", "sockets"].map(|name| format!("{name}: {name}/{path}x")).join(", ");
            let each: String =
                (0..2_000 / share).map(|n| format!("    a{n}: {{bind: 'unix:/run/{n}'}}\n")).collect();
            format!(
                "unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h, layout: {{{layout}}}}}\n  applications:\n{each}"
            )
        }),
        ("findings about defaults", {
            let values = |value: &str| {
                (0..125).map(|n| format!("DB_PASSWORD_{n}: {value}")).collect::<Vec<_>>().join(", ")
            };
            let wrong = (0..20).map(|n| format!("'W {n}': 1")).collect::<Vec<_>>().join(", ");
            shared(6_000 / share, &format!("environment: {{{}, N: 010, {wrong}}}", values("hunter2x")))
        }),
        ("numbers in defaults", {
            let values = (0..125).map(|n| format!("N{n}: 010")).collect::<Vec<_>>().join(", ");
            shared(6_000 / share, &format!("environment: {{{values}}}"))
        }),
        ("addresses in defaults", {
            let all = (0..120).map(|n| format!("'127.0.0.1:{}'", 2_000 + n)).collect::<Vec<_>>().join(", ");
            shared(6_000 / share, &format!("bind: [{all}]"))
        }),
        ("secrets in defaults", {
            let values = (0..125).map(|n| format!("S{n}: secret{n}")).collect::<Vec<_>>().join(", ");
            shared(6_000 / share, &format!("secrets: {{{values}}}"))
        }),
        ("a secret that repeats itself", {
            let secret = |end: &str| "aB".repeat(65_000) + end;
            let text = "aB".repeat(12_000_000 / share);
            format!("{BASE}secrets: {{K: {}, L: {}}}\nenvironment: {{A: {text}}}\n", secret("c"), secret("d"))
        }),
        (
            "wrong names in comments that silence",
            format!(
                "{BASE}{}",
                "# runsmith: allow(user-rot, bind-clsh, no-efect) because x\n".repeat(400_000 / share)
            ),
        ),
        ("long numbers", {
            let number = format!("0x{},", "f".repeat(3_500));
            format!("{BASE}environment: {{X: [{}]}}\n", number.repeat(8_000 / share))
        }),
        (
            "names of secrets before blanks",
            format!("{BASE}x: [{}{}\n", "A_KEY: ".repeat(500_000 / share), " ".repeat(10_000_000 / share)),
        ),
        ("documents that are none", "--- &a b\n".repeat(3_500_000 / share)),
        ("applications that are none", {
            let each: String = (0..2_000_000 / share).map(|n| format!(" a{n}: 1\n")).collect();
            format!("applications:\n{each}")
        }),
        ("many wrong applications", {
            let values = (0..1_000).map(|n| format!("V{n}: {{}}")).collect::<Vec<_>>().join(", ");
            let each: String =
                (0..1_000 / share).map(|n| format!("    a{n}: {{environment: {{{values}}}}}\n")).collect();
            format!("unicorn:\n  defaults: {{user: deploy, virtualenv_home: /h}}\n  applications:\n{each}")
        }),
    ]
}

/// Any input ends within a gibibyte and a bounded time of the processor, with an answer: none of them is too much.
fn ends(share: usize, commands: &[&[&str]]) {
    let job = Job::new(NOBODY, &[("pillar/web.yaml", BASE)]);
    for (name, text) in large(share) {
        assert!(text.len() < 32 << 20, "{name}");
        let is_json = text.starts_with(['[', '{']);
        // What is JSON Ansible reads as such in YAML, too.
        let ways: &[(&str, &[&str])] = match is_json {
            true => &[("web.json", &[]), ("web.yaml", &["--dialect", "ansible"])],
            false => &[("web.yaml", &[])],
        };
        for (file, dialect) in ways {
            let file = format!("work/pillar/{file}");
            job.write(&file, &text);
            if is_json && !file.ends_with("web.yaml") {
                fs::remove_file(job.at("work/pillar/web.yaml")).unwrap();
            }
            for command in commands {
                let ran = limited(&job, &[command, *dialect].concat());
                let is_in_bounds = !["s of the processor", "MiB of memory, the most"]
                    .iter()
                    .any(|why| ran.errors.contains(why));
                assert!(
                    matches!(ran.code, Some(0..=2)) && is_in_bounds,
                    "{name}: {command:?} {dialect:?}: {:?} {:.1000}",
                    ran.code,
                    ran.errors
                );
            }
            if !file.ends_with("web.yaml") {
                fs::remove_file(job.at(&file)).unwrap();
            }
        }
    }
}

const VALIDATED: &[&[&str]] = &[&["validate", "pillar"], &["validate", "pillar", "--format", "json"]];
const READ: &[&[&str]] = &[&["read", "pillar"]];
const RENDERED: &[&[&str]] = &[&["render", "pillar", "--format", "json", "--allow", "all"]];
const COMPARED: &[&[&str]] =
    &[&["render", "pillar", "--diff", "--against", "git:main", "--format", "markdown", "--allow", "all"]];

const COMPARED_BY_PROGRAMS: &[&[&str]] =
    &[&["render", "pillar", "--diff", "--against", "git:main", "--format", "json", "--allow", "all"]];

/// The share of the largest inputs that every run of the tests tries.
const SHARE: usize = 20;

#[test]
fn any_pillar_is_validated_in_bounds() {
    ends(SHARE, VALIDATED);
}

#[test]
fn any_pillar_is_read_in_bounds() {
    ends(SHARE, READ);
}

#[test]
fn any_pillar_is_rendered_in_bounds() {
    ends(SHARE, RENDERED);
}

#[test]
fn any_pillar_is_compared_in_bounds() {
    ends(SHARE, COMPARED);
    // It takes the same way; what it alone does is to write.
    ends(3 * SHARE, COMPARED_BY_PROGRAMS);
}

#[test]
#[ignore = "takes minutes without optimisation: cargo test --release --test security_ci -- --ignored"]
fn the_largest_pillars_end_in_bounds() {
    ends(1, &[VALIDATED, READ, RENDERED, COMPARED, COMPARED_BY_PROGRAMS].concat());
}

/// Does a runner obey a line? As GitHub's (`ActionCommand.cs`) and Azure's (`CommandStringConvertor`) find commands.
fn is_obeyed(line: &str) -> bool {
    let word = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).starts_with('[');
    let line = line.trim_start();
    // A command's name does not begin with a colon: `::: file:1:1` is a place in a finding.
    line.starts_with("::") && !line.starts_with("::: ")
        || line.match_indices("##").any(|(at, _)| word(&line[at + 2..]))
}

#[test]
fn a_log_obeys_nothing_of_a_pillar() {
    const COMMANDS: &str =
        "a\\n::set-output name=x::y\\n  ::add-mask::z\\n##[add-mask]w\\n##vso[task.setvariable variable=a]b";
    for_each_user(|uid| {
        let template = "#!/bin/sh\n# {{ managed | comment }}\n::set-output name=x::y\n  ::add-mask::z\necho ##[add-mask]w\n##vso[task.setvariable variable=a]b\n";
        let job = Job::new(uid, &[("pillar/web.yaml", BASE), ("templates/log-run", template)]);
        let pillar = format!(
            "{BASE}# ##[add-mask]comment\nenvironment:\n  A: \"{COMMANDS}\"\n  '##[b]': x\n  PASSWORD: ##[c]\n  '::set-output name=d::e': |\n    ::x::y\n    ##[z]\n'::add-mask::f': ##[g]\n"
        );
        let good = format!("{BASE}environment:\n  A: \"{COMMANDS}\"\n");
        job.write("work/wrong.yaml", &pillar);
        job.write("work/broken.yaml", &format!("{pillar}\n::set-output::x: [\n"));
        job.write("work/pillar/web.yaml", &good);
        job.write("work/##[h]::i.yaml", &pillar);
        let mut all: Vec<Vec<&str>> = vec![];
        for file in
            ["wrong.yaml", "broken.yaml", "##[h]::i.yaml", "::nothing::j.yaml", "##[nothing]", "pillar"]
        {
            all.extend(readers(file));
            all.push(vec!["render", file, "--templates", "templates", "--allow", "all"]);
            all.push(vec!["render", file, "--templates", "templates", "--allow", "all", "--color", "always"]);
            all.push(vec![
                "render",
                file,
                "--templates",
                "templates",
                "--diff",
                "--against",
                "git:main",
                "--allow",
                "all",
            ]);
            all.push(vec![
                "render",
                file,
                "--templates",
                "templates",
                "--diff",
                "--against",
                "git:main",
                "--allow",
                "all",
                "--stat",
            ]);
            all.push(vec![
                "render",
                file,
                "--templates",
                "templates",
                "--allow",
                "all",
                "--explain",
                "/etc/sv/web/log/run",
            ]);
            all.push(vec!["render", file, "--##[option]::k"]);
            all.push(vec!["render", file, "--diff", "--against", "git:##[revision]"]);
            all.push(vec!["validate", file, "--key", "##[key]"]);
        }
        let mut shown = 0;
        for arguments in &all {
            // A patch is bytes for a program; docs/security.md says where it goes.
            if arguments.contains(&"patch") || arguments.contains(&"--fix") {
                continue;
            }
            let ran = job.runsmith(arguments);
            let is_own = |line: &str| {
                arguments.contains(&"github")
                    && ["::error ", "::warning ", "::notice "].iter().any(|own| line.starts_with(own))
            };
            for line in ran.all().split(['\n', '\r']) {
                let rest = if is_own(line) { line.trim_start_matches(':') } else { line };
                assert!(!is_obeyed(rest), "{arguments:?}: {line}");
                shown += usize::from(rest.contains("u{23}#") || rest.contains("u{3a}:"));
            }
        }
        assert!(shown > 100, "{shown}");
        // A program reads what the pillar says.
        let json = |arguments: &[&str]| serde_json::from_str::<Value>(&job.runsmith(arguments).out).unwrap();
        let value = COMMANDS.replace("\\n", "\n");
        assert_eq!(json(&["read", "pillar/web.yaml"])["environment"]["A"], value.as_str());
        let tree =
            json(&["render", "pillar", "--templates", "templates", "--allow", "all", "--format", "json"]);
        let entry =
            tree["entries"].as_array().unwrap().iter().find(|entry| entry["path"] == "/etc/sv/web/log/run");
        assert!(entry.unwrap()["content"].as_str().unwrap().contains("\n::set-output name=x::y\n"));
        // And files are written as they are.
        let ran = job.runsmith(&[
            "render",
            "pillar",
            "--templates",
            "templates",
            "--allow",
            "all",
            "--diff",
            "--against",
            "git:main",
            "--format",
            "patch",
        ]);
        assert!(ran.out.contains("##[add-mask]w"), "{}", ran.out);
    });
}
