//! What a rendered run script says, told from its text alone: what lies on a host has no pillar.

use std::collections::BTreeMap;

/// How a service is replaced by its successor, which decides what a change costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A native run script with `strategy: sockets`: each generation takes everything as it is on disk.
    Sockets,
    /// USR2, by a native or a shell run script: the master keeps what it was started with.
    Usr2,
    /// A shell run script of a program that is neither gunicorn nor unicorn: it is stopped and started.
    Stop,
}

/// A run script in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Is it the service as data, or a shell script?
    pub native: bool,
    /// Each value that it sets, by the name of the model (`handoff.ready`), as it is written.
    pub fields: BTreeMap<String, String>,
    /// The program of a shell script, without comments.
    pub program: String,
}

/// The shell script's names for what the model calls otherwise.
const SHELL: &[(&str, &str)] = &[
    ("APPLICATION", "application"),
    ("SERVER", "server"),
    ("USER_NAME", "user"),
    ("GROUP_NAME", "group"),
    ("OWN_GROUPS", "groups"),
    ("EXTRA_GROUPS", "groups"),
    ("HOME_DIRECTORY", "home"),
    ("VIRTUALENV", "virtualenv"),
    ("SERVER_PATH", "virtualenv"),
    ("COMMAND", "command"),
    ("CURRENT", "root"),
    ("CONFIG", "config"),
    ("PID_FILE", "layout.pids"),
    ("RUN_DIRECTORY", "layout.run"),
    ("BINDS", "bind"),
    ("ENVIRONMENT", "environment"),
    ("LIMITS", "limits"),
    ("UMASK", "umask"),
    ("NICE", "nice"),
    ("OOM_SCORE_ADJ", "oom_score_adj"),
    ("NO_NEW_PRIVILEGES", "hardening.no_new_privileges"),
    ("CAPABILITIES", "hardening.capabilities"),
    ("READY_MEANS", "handoff.ready"),
    ("BOOT_TIMEOUT", "handoff.boot_timeout"),
    ("DRAIN_TIMEOUT", "handoff.drain_timeout"),
    ("MIN_UPTIME", "restart.min_uptime"),
    ("BACKOFF_INITIAL", "restart.backoff_initial"),
    ("BACKOFF_MAX", "restart.backoff_max"),
];

/// Where the part of a shell script begins that is the same for every service.
const PROGRAM: &str = "# From here on the text is the same for every service.";

/// Maps of a native script that are told apart by their keys.
const MAPS: &[&str] = &["hardening", "cgroup", "handoff", "restart", "log", "layout", "service"];

impl Script {
    /// The parts of a run script's text. What is in no known form is the program.
    pub fn read(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        if first.starts_with("#!") && first.trim_end().ends_with(" run") { native(text) } else { shell(text) }
    }

    /// How it replaces its server.
    pub fn way(&self) -> Way {
        let is = |name: &str, value: &str| {
            self.fields.get(name).is_some_and(|text| text.trim().trim_matches('\'') == value)
        };
        match self.native {
            true if is("handoff.strategy", "usr2") => Way::Usr2,
            true => Way::Sockets,
            false if is("server", "any") => Way::Stop,
            false => Way::Usr2,
        }
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> Vec<&str> {
        let lines = self.fields.get("bind").map(String::as_str).unwrap_or_default().lines().map(str::trim);
        let address = lines.filter_map(|line| match self.native {
            true => line.trim_start_matches("- ").strip_prefix("address:"),
            false => Some(line),
        });
        // Quotes are shown to nobody.
        address.map(|text| text.trim().trim_matches(['"', '\''])).filter(|text| !text.is_empty()).collect()
    }

    /// A field that is one path.
    pub fn path(&self, field: &str) -> Option<&str> {
        let text = self.fields.get(field)?.trim().trim_matches(['"', '\'']);
        text.starts_with('/').then_some(text)
    }
}

fn native(text: &str) -> Script {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let (mut top, mut name) = ("", String::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let key = line.trim_start().split_once(':').map(|(key, _)| key);
        match key {
            Some(key) if indent == 0 => {
                top = key;
                name = key.to_owned();
            }
            Some(key) if indent == 2 && MAPS.contains(&top) => name = format!("{top}.{key}"),
            _ => {}
        }
        let begins = indent == 0 || (indent == 2 && MAPS.contains(&top));
        let value = if begins { line.split_once(':').map_or(line, |(_, value)| value) } else { line };
        if begins && value.trim().is_empty() && MAPS.contains(&name.as_str()) {
            continue;
        }
        let field = fields.entry(name.clone()).or_default();
        field.push_str(value);
        field.push('\n');
    }
    Script { native: true, fields, program: String::new() }
}

fn shell(text: &str) -> Script {
    let (head, program) = text.split_once(PROGRAM).unwrap_or(("", text));
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut name = None;
    for line in head.lines() {
        if let Some((variable, value)) = line.strip_prefix("readonly ").and_then(|line| line.split_once('='))
        {
            name = SHELL.iter().find(|(shell, _)| *shell == variable).map(|(_, name)| *name);
            if let Some(name) = name {
                let field = fields.entry(name.to_owned()).or_default();
                // What stands behind the parenthesis is a comment.
                field.push_str(if value.starts_with("( #") { "(" } else { value });
                field.push('\n');
            }
        } else if let Some(field) = name.and_then(|name| fields.get_mut(name))
            && !line.is_empty()
            && line != ")"
            && !line.starts_with('#')
        {
            field.push_str(line);
            field.push('\n');
        }
    }
    if let Some(bind) = fields.get_mut("bind") {
        *bind = bind.trim_start_matches("(\n").to_owned();
    }
    Script { native: false, fields, program: without_comments(program) }
}

/// The pillar's key of each line of a run script, as far as the line is one key's: `nice`, `environment.NAME`.
pub(super) fn keys_of_lines(text: &str) -> Vec<Option<String>> {
    let first = text.lines().next().unwrap_or_default();
    let native = first.starts_with("#!") && first.trim_end().ends_with(" run");
    let mut top = String::new();
    let mut keys = vec![];
    for line in text.lines() {
        if line == PROGRAM {
            break;
        }
        let inside = line.starts_with(' ');
        if native && !inside {
            top = line.split_once(':').map(|(key, _)| key.to_owned()).unwrap_or_default();
        } else if !inside
            && let Some((variable, _)) = line.strip_prefix("readonly ").and_then(|rest| rest.split_once('='))
        {
            top = SHELL
                .iter()
                .find(|(shell, _)| *shell == variable)
                .map(|(_, name)| (*name).to_owned())
                .unwrap_or_default();
        } else if !inside {
            top.clear();
        }
        keys.push(key_of_line(line, &top, native).filter(|key| !key.is_empty() && !key.starts_with('#')));
    }
    keys
}

fn key_of_line(line: &str, top: &str, native: bool) -> Option<String> {
    let own = line.trim_start();
    let indent = line.len() - own.len();
    let quoted = own.trim_start_matches(['-', ' ', '"', '\'']);
    let name = || quoted.split([':', '=', '"', '\'']).next().unwrap_or_default();
    match top {
        // A list or a map of which each line is another one's.
        "environment" | "secrets" if indent == 2 => Some(format!("{top}.{}", name())),
        "limits" if indent == 2 && native => Some(format!("limits.{}", name())),
        "environment" | "secrets" | "limits" | "command" | "bind" => None,
        _ if indent == 2 && MAPS.contains(&top) => Some(format!("{top}.{}", name())),
        _ if indent == 0 && !MAPS.contains(&top) => Some(top.to_owned()),
        _ => None,
    }
}

/// A program's text without the lines that are only comments.
pub(super) fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_script_in_parts() {
        let text = "#!/usr/bin/runsmith run\n# Managed\napplication: web\nbind:\n  - address: \"127.0.0.1:8000\"\n    backlog: 1\n  - address: unix:/run/x\nroot: /srv\nhandoff:\n  strategy: usr2\n  health_check:\n    path: /\nenvironment: {}\n";
        let script = Script::read(text);
        assert!(script.native);
        assert_eq!(script.way(), Way::Usr2);
        assert_eq!(script.addresses(), ["127.0.0.1:8000", "unix:/run/x"]);
        assert_eq!(script.path("root"), Some("/srv"));
        assert_eq!(script.fields["handoff.health_check"], "\n    path: /\n");
        assert!(!script.fields.contains_key("handoff"));
    }

    #[test]
    fn lines_have_the_keys_that_made_them() {
        let native = "#!/usr/bin/runsmith run\n# x\nnice: 3\nenvironment:\n  A: x\n  \"B\": |\n    C: y\nsecrets:\n  - D\nlimits:\n  nofile:\n    soft: 1\nhandoff:\n  ready: workers\n";
        let keys = |text: &str| {
            keys_of_lines(text).into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            keys(native),
            "  nice  environment.A environment.B   secrets.D  limits.nofile   handoff.ready"
        );
        let shell = "#!/bin/bash\nreadonly NICE=3\nreadonly ENVIRONMENT=( # secrets\n  'A=x y'\n)\n# From here on the text is the same for every service.\nNICE=1\n";
        assert_eq!(keys(shell), " nice  environment.A ");
    }

    #[test]
    fn a_shell_script_in_parts() {
        let text = "#!/bin/bash\nreadonly SERVER='any'\nreadonly BINDS=(\n  127.0.0.1:8000\n  'unix:/a b'\n)\nreadonly ENVIRONMENT=( # secrets\n  A=1\n)\nreadonly CURRENT=/srv/current\n# ---\n# From here on the text is the same for every service.\n# x\n\nrun\n";
        let script = Script::read(text);
        assert_eq!(script.way(), Way::Stop);
        assert_eq!(script.addresses(), ["127.0.0.1:8000", "unix:/a b"]);
        assert_eq!(script.fields["environment"], "(\n  A=1\n");
        assert_eq!(script.program, "run");
    }
}
