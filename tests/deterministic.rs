//! The same pillar gives the same bytes: whoever renders it, where, when, and in whatever order its keys stand.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value as Json, json};

/// Enough applications that the work is divided among threads.
const APPLICATIONS: usize = 100;

/// Every key that is a map, several of each, and texts that locales sort and spell differently.
fn pillar() -> Json {
    let applications: Map<String, Json> = (0..APPLICATIONS)
        .map(|number| {
            let (server, command) =
                [("gunicorn", "gunicorn"), ("unicorn", "unicorn"), ("any", "/opt/server")][number % 3];
            let shell = server != "any" && number % 2 == 1;
            let application = json!({
                "unicorn_command": command,
                "server": server,
                "run_script": if shell { "shell" } else { "native" },
                "bind": [{"address": format!("unix:/run/app{number}.sock"), "mode": "0660", "backlog": 64}, format!("127.0.0.1:{}", 8000 + number)],
                "environment": {"ZULU": "ä", "alpha": "Ä", "Beta": "İı", "_": "z", "N": number},
                "secrets": {"B_TOKEN": "1,5", "A_TOKEN": "ß\n"},
                "limits": {"nproc": 100, "core": 0, "as": "unlimited"},
                "groups": ["b", "a"],
                "gunicorn": {
                    "workers": 2,
                    "access_log_format": "%(t)s é",
                    "secure_scheme_headers": {"X-B": "1", "X-A": "2", "x-a": "3"},
                    "logconfig_dict": {"version": 1, "z": {"y": 1.5, "b": null}, "a": [{"q": 1, "p": 0.1}]},
                },
                "unicorn": {"worker_processes": 2, "timeout": 30},
                "handoff": {"drain_timeout": "1m", "boot_timeout": 2.5},
                "log": {"size": 100_000, "number": 3},
            });
            (format!("app{number}"), application)
        })
        .collect();
    json!({"unicorn": {"defaults": {"user": "deploy", "virtualenv_home": "/home/deploy"}, "applications": applications}})
}

/// The same, with the keys of every map the other way round.
fn reversed(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            Json::Object(map.iter().rev().map(|(key, value)| (key.clone(), reversed(value))).collect())
        }
        Json::Array(items) => items.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

/// As YAML, in blocks, with each text quoted as JSON quotes it.
fn yaml(value: &Json, indent: usize, out: &mut String) {
    let blank = " ".repeat(indent);
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("\n{blank}{key}:"));
                yaml(value, indent + 2, out);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&format!("\n{blank}-"));
                yaml(item, indent + 2, out);
            }
        }
        // YAML 1.1 knows no float without a point.
        Json::Number(number) if number.is_f64() => out.push_str(&format!(" {:?}", number.as_f64().unwrap())),
        other => out.push_str(&format!(" {other}")),
    }
}

struct Host {
    scratch: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("rsd").tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Where another user can execute it.
        std::fs::copy(env!("CARGO_BIN_EXE_runsmith"), scratch.path().join("runsmith")).unwrap();
        Self { scratch }
    }

    fn runsmith(&self) -> String {
        self.scratch.path().join("runsmith").to_str().unwrap().to_owned()
    }

    /// The whole tree, with paths, modes, owners and contents.
    fn render(
        &self,
        before: &[&str],
        text: &str,
        format: &str,
        change: impl FnOnce(&mut Command),
    ) -> Vec<u8> {
        let runsmith = self.runsmith();
        let words: Vec<&str> = before
            .iter()
            .copied()
            .chain([&*runsmith, "render", "-", "--input-format", format, "--format=json", "--show-secrets"])
            // Every application has the keys of every server.
            .chain(["--allow", "all"])
            .collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}; run `scripts/setup test`", words[0]));
        let mut stdin = child.stdin.take().unwrap();
        let text = text.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{words:?}: {}\n{said}", output.status);
        writer.join().unwrap().unwrap();
        output.stdout
    }
}

/// Says where they differ, not all of what they are.
fn same(one: &[u8], two: &[u8], what: &str) {
    let (one, two) = (String::from_utf8_lossy(one), String::from_utf8_lossy(two));
    for (number, (a, b)) in one.lines().zip(two.lines()).enumerate() {
        assert_eq!(a, b, "{what}: line {number}");
    }
    assert_eq!(one.len(), two.len(), "{what}");
}

#[test]
fn the_same_bytes_everywhere() {
    let host = Host::new();
    let pillar = pillar();
    let text = pillar.to_string();
    let want = host.render(&[], &text, "json", |_| {});
    assert!(want.len() > 1_000_000, "{} services are rendered", APPLICATIONS);
    let again = |what: &str, before: &[&str], change: &dyn Fn(&mut Command)| {
        same(&host.render(before, &text, "json", |command| change(command)), &want, what);
    };
    again("a second run", &[], &|_| {});
    for (locale, zone) in
        [("tr_TR.UTF-8", "Asia/Kathmandu"), ("C", "America/St_Johns"), ("de_DE.ISO-8859-1", ":bad")]
    {
        again(&format!("{locale}, {zone}"), &[], &|command| {
            command.env("LANG", locale).env("LC_ALL", locale).env("TZ", zone);
        });
    }
    again("no environment at all", &[], &|command| {
        command.env_clear();
    });
    again("another directory", &[], &|command| {
        command.current_dir(host.scratch.path());
    });
    again("one processor, so one thread", &["taskset", "-c", "0"], &|_| {});
    again("another user", &["chpst", "-u", "nobody"], &|_| {});
    again("another clock", &["unshare", "--time", "--boottime", "1000000"], &|_| {});
    let back = reversed(&pillar);
    same(&host.render(&[], &back.to_string(), "json", |_| {}), &want, "the keys of every map reversed");
    // As Salt hands it over: one line, in an order of its own. As a person writes it: blocks.
    for (what, value) in [("YAML", &pillar), ("YAML, reversed", &back)] {
        let mut text = String::new();
        yaml(value, 0, &mut text);
        same(&host.render(&[], &text, "yaml", |_| {}), &want, what);
    }
}

/// Files are as the tree says, whatever the umask of who writes them.
#[test]
fn the_umask_changes_nothing() {
    let host = Host::new();
    let pillar = json!({"application": "a", "user": "nobody", "group": "nogroup", "virtualenv": "/v", "secrets": {"S": "x"}}).to_string();
    let list = |umask: &str, root: &Path| {
        std::fs::create_dir(root).unwrap();
        let script = format!(
            "umask {umask}; printf %s \"$1\" | \"$2\" render - --out \"$3\" >/dev/null && cd \"$3\" && find . -mindepth 1 -printf '%p %y %m %u %g %l\\n' | sort"
        );
        let output = Command::new("sh")
            .args(["-c", &script, "sh", &pillar, &host.runsmith()])
            .arg(root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let want = list("022", &host.scratch.path().join("022"));
    assert!(want.contains("./etc/sv/a/env/S f 600"), "{want}");
    for umask in ["000", "077", "0777"] {
        assert_eq!(list(umask, &host.scratch.path().join(umask)), want, "umask {umask}");
    }
}
