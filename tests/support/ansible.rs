//! Real Ansible with the collection, built and installed as a user would, in a scratch directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::host::{require, virtualenv};

/// The inventory of plays on two hosts, both this machine.
const INVENTORY: &str = "all:
  vars: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}
  hosts: {one: {}, two: {}}
";

/// A control node.
pub struct Ansible {
    pub scratch: tempfile::TempDir,
}

/// What a play printed.
pub struct Played {
    pub code: Option<i32>,
    pub text: String,
}

impl Ansible {
    /// A control node without the collection.
    pub fn bare() -> Self {
        require("Ansible", &virtualenv("ansible").join("bin/ansible-playbook"));
        let scratch = tempfile::Builder::new().prefix("rst").tempdir().expect("a scratch directory");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::write(scratch.path().join("inventory.yaml"), INVENTORY).expect("an inventory");
        Self { scratch }
    }

    /// With the collection, built and installed.
    pub fn new() -> Self {
        let ansible = Self::bare();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/ansible");
        let source = source.to_str().expect("UTF-8");
        ansible.must("ansible-galaxy", &["collection", "build", source]);
        ansible.must("ansible-galaxy", &["collection", "install", "runsmith-runsmith-0.1.0.tar.gz"]);
        ansible
    }

    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// A command with this control node's environment, and nothing of the caller's Ansible.
    pub fn command(&self, program: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_runsmith")).parent().expect("a directory");
        let path = [virtualenv("ansible").join("bin"), binary.to_owned()];
        let path = path.iter().map(PathBuf::as_path).map(Path::display).map(|one| one.to_string());
        let rest = std::env::var("PATH").unwrap_or_default();
        let path = path.chain([rest]).collect::<Vec<_>>().join(":");
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANSIBLE_")) {
            command.env_remove(name);
        }
        command
            .current_dir(self.path())
            .env("PATH", path)
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_HOME", self.path().join("home"))
            .env("ANSIBLE_COLLECTIONS_PATH", self.path().join("home/collections"))
            .env("ANSIBLE_CONFIG", self.path().join("ansible.cfg"))
            .env("ANSIBLE_REMOTE_TMP", self.path().join("tmp"))
            .env("ANSIBLE_NOCOLOR", "1");
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
        text
    }

    /// Plays tasks on both hosts; each result is printed on one line.
    pub fn play(&self, tasks: &str, arguments: &[&str]) -> Played {
        let indented: String = tasks.lines().map(|line| format!("    {line}\n")).collect();
        let play = format!("- hosts: all\n  gather_facts: false\n  tasks:\n{indented}");
        fs::write(self.path().join("play.yaml"), play).expect("a play");
        let all = [&["-i", "inventory.yaml", "play.yaml", "-v"], arguments].concat();
        let output = self.run("ansible-playbook", &all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Played { code: output.status.code(), text: text + &String::from_utf8_lossy(&output.stderr) }
    }
}

impl Played {
    /// The results of a host, task by task: `ok`, `changed` or `fatal`, and what the module returned.
    pub fn of(&self, host: &str) -> Vec<(String, serde_json::Value)> {
        let lines = self.text.lines().filter_map(|line| {
            let (word, rest) = line.split_once(&format!(": [{host}]"))?;
            let (_, json) = rest.split_once(" => ")?;
            Some((word.to_owned(), serde_json::from_str(json).ok()?))
        });
        lines.collect()
    }

    /// The one result of a host.
    pub fn only(&self, host: &str) -> (String, serde_json::Value) {
        let mut all = self.of(host);
        assert_eq!(all.len(), 1, "one result is expected:\n{}", self.text);
        all.remove(0)
    }
}
