//! Real Salt with the modules of this repository, in a scratch directory: masterless.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use super::host::{Process, kill, require, virtualenv};

/// The newest Salt, and the one with long-term support: virtualenvs of scripts/setup.
pub const BOTH: [&str; 2] = ["salt", "salt_lts"];

/// A minion that is its own master.
pub struct Salt {
    pub scratch: tempfile::TempDir,
    venv: &'static str,
}

/// What a state printed, and what it returned.
pub struct Applied {
    pub code: Option<i32>,
    pub text: String,
    /// What it logged, however small.
    pub log: String,
    /// The states of the run by their IDs, or the messages if it did not come to that.
    pub states: serde_json::Value,
}

impl Salt {
    /// Without the modules.
    pub fn bare(venv: &'static str) -> Self {
        require("Salt", &virtualenv(venv).join("bin/salt-call"));
        let scratch = tempfile::Builder::new().prefix("rst").tempdir().expect("a scratch directory");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for directory in ["etc", "states", "pillar"] {
            fs::create_dir(scratch.path().join(directory)).expect("mkdir");
        }
        let salt = Self { scratch, venv };
        let here = salt.path().display();
        let minion = format!(
            "id: one\nfile_client: local\nmaster_type: disable\nroot_dir: {here}/root\nfile_roots: {{base: [{here}/states]}}\n\
             pillar_roots: {{base: [{here}/pillar]}}\nrunsmith.executable: {}\n",
            env!("CARGO_BIN_EXE_runsmith")
        );
        salt.write("etc/minion", &minion);
        salt.write("pillar/top.sls", "base: {'*': [own]}\n");
        salt.write("pillar/own.sls", "{}\n");
        salt
    }

    /// With the modules, synchronised.
    pub fn new(venv: &'static str) -> Self {
        let salt = Self::bare(venv);
        salt.install();
        let (code, text) = salt.call(&["saltutil.sync_all"]);
        assert_eq!(code, Some(0), "{text}");
        salt
    }

    /// Puts the modules where the states are.
    pub fn install(&self) {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/salt");
        for entry in fs::read_dir(modules).expect("integrations/salt").flatten() {
            if entry.file_name().to_string_lossy().starts_with('_') {
                let to = self.path().join("states").join(entry.file_name());
                fs::create_dir(&to).expect("mkdir");
                fs::copy(entry.path().join("runsmith.py"), to.join("runsmith.py")).expect("a module");
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A program of this Salt, and nothing of the caller's.
    pub fn command(&self, program: &str) -> Command {
        command(self.venv, program, self.path())
    }

    /// `salt-call --local WORDS`: the exit code, and everything it printed.
    pub fn call(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.output(words);
        (output.status.code(), both(&output))
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command("salt-call")
            .args(["--local", "-c", "etc"])
            .args(words)
            .output()
            .unwrap_or_else(|error| panic!("salt-call: {error}"))
    }

    /// Applies an SLS, whose text is given, and reads what came of it.
    pub fn apply(&self, sls: &str, words: &[&str]) -> Applied {
        self.write("states/it.sls", sls);
        let output = self.output(&[&["--out=json", "-l", "debug", "state.apply", "it"], words].concat());
        let out = String::from_utf8_lossy(&output.stdout);
        let value: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {}", both(&output)));
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let important = |line: &&str| line.starts_with("[ERROR") || line.starts_with("[CRITICAL");
        let text = log.lines().filter(important).map(|line| format!("{line}\n")).collect::<String>();
        Applied {
            code: output.status.code(),
            text: format!("{out}{text}"),
            log,
            states: value["local"].clone(),
        }
    }

    /// The same with states as data.
    pub fn states(&self, states: &serde_json::Value, words: &[&str]) -> Applied {
        self.apply(&format!("#!json\n{states}\n"), words)
    }
}

impl Applied {
    /// What a state of that ID returned.
    pub fn of(&self, id: &str) -> &serde_json::Value {
        let all = self.states.as_object().unwrap_or_else(|| panic!("no state was run:\n{}", self.text));
        all.iter()
            .find_map(|(_, state)| (state["__id__"] == id).then_some(state))
            .unwrap_or_else(|| panic!("there is no state {id}:\n{}", self.text))
    }

    /// Why no state was run.
    pub fn refused(&self) -> String {
        let all = self.states.as_array().unwrap_or_else(|| panic!("states were run:\n{}", self.text));
        assert_eq!(self.code, Some(1), "{}", self.text);
        all.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A program of a Salt, with runsmith in PATH.
pub fn command(venv: &str, program: &str, directory: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_runsmith")).parent().expect("a directory");
    let bin = virtualenv(venv).join("bin");
    let rest = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SALT_")) {
        command.env_remove(name);
    }
    command
        .current_dir(directory)
        .env("PATH", format!("{}:{}:{rest}", bin.display(), binary.display()))
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONWARNINGS", "ignore")
        // So that whatever comes of this can be found; without the second one Salt's titles overwrite it.
        .env(MARK, directory)
        .env("SPT_NOENV", "1");
    command
}

/// Says which test a process belongs to, whoever started it.
const MARK: &str = "RUNSMITH_TEST_DIRECTORY";

/// Ends every process that comes of commands in a directory, and what those start meanwhile.
pub fn end_all(directory: &Path) {
    let mark = format!("{MARK}={}", directory.display());
    let is_ours = |pid: &u32| {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    loop {
        let living = Process::all().into_iter().filter(Process::lives).map(|one| one.pid);
        let ours: Vec<u32> = living.filter(is_ours).collect();
        if ours.is_empty() {
            return;
        }
        for pid in ours {
            kill(pid, Signal::KILL);
        }
    }
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
