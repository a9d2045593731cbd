//! Where findings are met before a host is: the hook under the real pre-commit, and the examples of
//! docs/ci.md, whose commands are run as GitHub and GitLab run them.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and reads files")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const RIGHT: &str = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A command in `directory` that finds the binary under test as `runsmith`, and nobody's settings.
fn command(program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_runsmith")).parent().unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env("PATH", format!("{}:{}", binary.display(), std::env::var("PATH").unwrap()))
        .env("HOME", directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
        .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE");
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = command("git", directory).args(arguments).output().expect("git is needed");
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
}

/// A repository of these files, all committed.
fn repository(directory: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(name, text)| write(directory, name, text));
    git(directory, &["init", "--quiet"]);
    git(directory, &["add", "--all"]);
    git(directory, &["commit", "--quiet", "--message", "x"]);
}

/// The exit code and all that pre-commit prints. It keeps what it makes below `home`.
fn pre_commit(directory: &Path, home: &Path, arguments: &[&str]) -> (i32, String) {
    let venvs = std::env::var("RUNSMITH_VENVS").unwrap_or("/var/lib/runsmith-test".into());
    let program = PathBuf::from(venvs).join("precommit/bin/pre-commit");
    assert!(program.exists(), "no {}; `scripts/setup` installs it", program.display());
    let output = command(program, directory)
        .args(arguments)
        .env("PRE_COMMIT_HOME", home.join("pre-commit"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    (output.status.code().expect("an exit code"), text(&output))
}

/// The manifest is the checked-in one but for its language: to build runsmith would take minutes.
#[test]
fn the_hook_finds_what_is_wrong_in_pillars_and_looks_at_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path();
    let (code, told) = pre_commit(root(), home, &["validate-manifest", ".pre-commit-hooks.yaml"]);
    assert_eq!(code, 0, "{told}");
    let manifest = std::fs::read_to_string(root().join(".pre-commit-hooks.yaml")).unwrap();
    assert_eq!(manifest.matches("language: rust").count(), 1);
    let hooks = home.join("hooks");
    repository(
        &hooks,
        &[(".pre-commit-hooks.yaml", &manifest.replace("language: rust", "language: system"))],
    );
    let hooks = hooks.to_str().unwrap();

    let work = home.join("work");
    repository(
        &work,
        &[
            ("pillar/web.sls", &RIGHT.replace("user", "usr")),
            ("pillar/top.sls", "base: {'*': [web]}\n"),
            ("roles/pillars/lobby.yml", "application: lobby\nuser: 1\nvirtualenv_home: /home/deploy\n"),
            ("pillar.json", "{\"application\": 1}\n"),
            ("compose.yaml", "services: {web: {image: x}}\n"),
            ("states/pillared.sls", "include: [x]\n"),
            ("pillar/README.md", "# ours\n"),
        ],
    );
    let run = || pre_commit(&work, home, &["try-repo", hooks, "runsmith-validate", "--all-files"]);
    let (code, told) = run();
    assert_eq!(code, 1, "{told}");
    for place in ["pillar/web.sls:2:1", "roles/pillars/lobby.yml:2:7", "pillar.json:1:17"] {
        assert!(told.contains(place), "{place} in {told}");
    }
    for name in ["top.sls", "compose.yaml", "pillared", "README"] {
        assert!(!told.contains(name), "{name} in {told}");
    }

    write(&work, "pillar/web.sls", RIGHT);
    write(&work, "roles/pillars/lobby.yml", &RIGHT.replace("web", "lobby"));
    git(&work, &["rm", "--quiet", "pillar.json"]);
    git(&work, &["add", "--all"]);
    let (code, told) = run();
    assert!(code == 1 && told.contains("error[bind-clash]") || code == 0, "{told}");
    write(
        &work,
        "roles/pillars/lobby.yml",
        &(RIGHT.replace("web", "lobby") + "bind: [\"127.0.0.1:8001\"]\n"),
    );
    git(&work, &["add", "--all"]);
    let (code, told) = run();
    assert!(code == 0 && told.contains("Passed"), "{told}");
}

/// The YAML blocks of docs/ci.md by the name in their first line.
fn examples() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(root().join("docs/ci.md")).unwrap();
    page.split("\n```yaml\n")
        .skip(1)
        .map(|block| {
            let body = block.split("\n```").next().unwrap();
            let name = body.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a file's name");
            (name.to_owned(), format!("{body}\n"))
        })
        .collect()
}

/// What an example says, as YAML 1.2.
fn read(directory: &Path, name: &str, text: &str) -> Value {
    write(directory, name, text);
    let output =
        command("runsmith", directory).args(["read", "--dialect", "yaml1.2", name]).output().unwrap();
    assert!(output.status.success(), "{name}: {}", self::text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit codes of the commands of a job, those that install left out, each as the service runs it.
fn run(directory: &Path, commands: &[&str]) -> Vec<(String, i32, String)> {
    commands
        .iter()
        .filter(|line| !line.starts_with("cargo install"))
        .map(|line| {
            let output = command("bash", directory).args(["-eo", "pipefail", "-c", line]).output().unwrap();
            ((*line).to_owned(), output.status.code().expect("an exit code"), text(&output))
        })
        .collect()
}

/// A directory with a pillar that has a mistake, and one without.
fn pillars() -> [tempfile::TempDir; 2] {
    [RIGHT.replace("user:", "usr:"), RIGHT.to_owned()].map(|pillar| {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), "pillar/web.yaml", &pillar);
        scratch
    })
}

fn json(directory: &Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(directory.join(name)).unwrap()).unwrap()
}

#[test]
fn the_workflow_for_github_annotates_and_reports() {
    let example = &examples()[".github/workflows/pillars.yml"];
    for (scratch, wrong) in pillars().iter().zip([true, false]) {
        let at = scratch.path();
        let workflow = read(at, "workflow.yml", example);
        let steps = workflow["jobs"]["validate"]["steps"].as_array().unwrap();
        let commands: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
        let ran = run(at, &commands);
        let [(_, annotations, said), (_, report, nothing)] = ran.as_slice() else { panic!("{ran:?}") };
        assert_eq!((*annotations, *report, nothing.as_str()), (i32::from(wrong), 0, ""));
        assert_eq!(said.contains("::error file=pillar/web.yaml,line=2,"), wrong, "{said}");
        // The report that is made is the one that is sent.
        let sent = steps.iter().find_map(|step| step["with"]["sarif_file"].as_str()).unwrap();
        let results = json(at, sent)["runs"][0]["results"].as_array().unwrap().len();
        assert_eq!(results > 0, wrong);
    }
}

#[test]
fn the_job_for_gitlab_reports_and_fails() {
    let example = &examples()[".gitlab-ci.yml"];
    for (scratch, wrong) in pillars().iter().zip([true, false]) {
        let at = scratch.path();
        let job = read(at, "gitlab.yml", example)["pillars"].take();
        let script = ["before_script", "script"].map(|key| job[key].as_array().unwrap().clone()).concat();
        let ran = run(at, &script.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        let codes: Vec<i32> = ran.iter().map(|(_, code, _)| *code).collect();
        assert_eq!(codes, [0, 0, i32::from(wrong)], "{ran:?}");
        let reports = &job["artifacts"]["reports"];
        let issues = json(at, reports["codequality"].as_str().unwrap());
        assert_eq!(!issues.as_array().unwrap().is_empty(), wrong);
        let junit = std::fs::read_to_string(at.join(reports["junit"].as_str().unwrap())).unwrap();
        assert_eq!(junit.contains("<failure"), wrong, "{junit}");
    }
}

#[test]
fn the_examples_for_pre_commit_are_its_own() {
    let [wrong, right] = pillars();
    let examples = examples();
    let at = wrong.path();
    let (code, told) = {
        write(at, "remote.yaml", &examples[".pre-commit-config.yaml"]);
        pre_commit(at, at, &["validate-config", "remote.yaml"])
    };
    assert_eq!(code, 0, "{told}");
    let remote = read(at, "remote.yaml", &examples[".pre-commit-config.yaml"]);
    let manifest = std::fs::read_to_string(root().join(".pre-commit-hooks.yaml")).unwrap();
    assert_eq!(remote["repos"][0]["hooks"][0]["id"], read(at, "hooks.yaml", &manifest)[0]["id"]);
    for (scratch, code) in [(&wrong, 1), (&right, 0)] {
        let at = scratch.path();
        let config = &examples["local/.pre-commit-config.yaml"];
        repository(at, &[(".pre-commit-config.yaml", config), (".gitignore", "pre-commit\n*.yaml.out\n")]);
        let (have, told) = pre_commit(at, at, &["run", "--all-files"]);
        assert_eq!(have, code, "{told}");
        assert_eq!(told.contains("error[unknown-key]"), code == 1, "{told}");
    }
}

#[test]
fn the_line_for_editors_names_the_schema() {
    let page = std::fs::read_to_string(root().join("docs/ci.md")).unwrap();
    let name = "pillar/web.yaml";
    let example = &examples()[name];
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let making = page.split('`').find(|code| code.starts_with("runsmith schema >")).expect("how it is made");
    assert_eq!(run(at, &[making]), [(making.to_owned(), 0, String::new())]);
    let line = "# yaml-language-server: $schema=";
    let schema = example.lines().find_map(|text| text.strip_prefix(line)).expect("the line");
    let pillar = read(at, name, example);
    // Relative to the pillar.
    let schema = json(&at.join("pillar"), schema);
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&pillar) && !validator.is_valid(&serde_json::json!({"usr": "x"})));
}
