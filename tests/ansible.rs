//! Real Ansible on several hosts that are all this machine: batches, check mode, differences, failures, rolling deploys.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use support::ansible::Ansible;
use support::host::{Process, User, free_port, kill, virtualenv};
use support::load::{Address, Load};
use support::page::follow;
use support::service::{Release, Server, Service, Socket};

/// Thirty applications in one pillar; `workers` of one of them, and any number of further lines of the task.
fn batch(ansible: &Ansible, workers: u32, more: &str) -> String {
    let applications: String = (0..30)
        .map(|number| {
            let own = if number == 7 { format!(", gunicorn: {{workers: {workers}}}") } else { String::new() };
            format!(
                "        app{number}: {{bind: '127.0.0.1:{}', secrets: {{API_TOKEN: s3cr3tv4lue}}{own}}}\n",
                7000 + number
            )
        })
        .collect();
    format!(
        "- runsmith.runsmith.service:
    executable: {runsmith}
    root: '{root}/roots/{{{{ inventory_hostname }}}}'
{more}    pillar:
      defaults: {{user: nobody, group: nogroup, virtualenv: /opt/venv}}
      applications:
{applications}",
        runsmith = env!("CARGO_BIN_EXE_runsmith"),
        root = ansible.path().display(),
    )
}

/// Every path below a directory, with its content's length.
fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        // The runtime writes there once a generation has served for min_uptime.
        if path.ends_with("state") {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        found.push((path.clone(), if meta.is_file() { meta.len() } else { 0 }));
        if meta.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn one_task_makes_shows_and_removes_any_number_of_services() {
    let ansible = Ansible::new();
    let roots = ansible.path().join("roots");
    fs::create_dir(&roots).unwrap();

    // Check mode shows everything and writes nothing.
    let checked = ansible.play(&batch(&ansible, 2, ""), &["--check", "--diff"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert!(checked.text.contains("+workers = 2"), "{}", checked.text);
    assert_eq!(listing(&roots), vec![]);
    for host in ["one", "two"] {
        let (word, result) = checked.only(host);
        assert_eq!((word.as_str(), result["services"].as_array().map(Vec::len)), ("changed", Some(30)));
        assert_eq!(result["services"][0]["effect"], "add");
    }

    let made = ansible.play(&batch(&ansible, 2, ""), &["-vvv"]);
    assert_eq!(made.code, Some(0), "{}", made.text);
    for host in ["one", "two"] {
        assert!(roots.join(host).join("etc/sv/app29/run").is_file());
        let token = roots.join(host).join("etc/sv/app0/env/API_TOKEN");
        assert_eq!(fs::read_to_string(&token).unwrap().lines().next(), Some("s3cr3tv4lue"));
        assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    // Nothing to do is nothing done.
    let before = listing(&roots);
    let again = ansible.play(&batch(&ansible, 2, ""), &["--diff"]);
    for host in ["one", "two"] {
        let (word, result) = again.only(host);
        assert_eq!((word.as_str(), &result["changed"], result.get("changes")), ("ok", &false.into(), None));
    }
    assert_eq!(listing(&roots), before);

    // One value: one file of one service, its cause and what it needs.
    let shown = ansible.play(&batch(&ansible, 14, ""), &["--check", "--diff"]);
    assert!(shown.text.contains("-workers = 2\n+workers = 14\n"), "{}", shown.text);
    assert_eq!(listing(&roots), before, "check mode wrote something");
    let changed = ansible.play(&batch(&ansible, 14, "    backup: true\n"), &["--limit", "one"]);
    let (word, result) = changed.only("one");
    assert_eq!(word, "changed");
    assert_eq!(result["services"][0]["name"], "app7");
    assert_eq!(result["services"][0]["effect"], "upgrade");
    assert_eq!(
        result["changes"],
        serde_json::json!([{"path": "/var/www/app7/shared/runsmith/gunicorn.py", "change": "content"}])
    );
    assert!(
        roots.join("one/var/lib/runsmith/backup/0001/var/www/app7/shared/runsmith/gunicorn.py").is_file()
    );
    assert_eq!(
        fs::read_to_string(roots.join("two/var/www/app7/shared/runsmith/gunicorn.py"))
            .unwrap()
            .matches("workers = 2\n")
            .count(),
        1
    );

    // No secret in anything that Ansible printed.
    for played in [&checked, &made, &again, &shown, &changed] {
        assert!(!played.text.contains("s3cr3tv4lue"), "a secret is shown");
    }

    // Away, shown first; the others stay.
    let away = format!(
        "- runsmith.runsmith.service:
    executable: {}
    root: '{}/{{{{ inventory_hostname }}}}'
    name: [app3, app4]
    state: absent\n",
        env!("CARGO_BIN_EXE_runsmith"),
        roots.display()
    );
    let before = listing(&roots);
    let shown = ansible.play(&away, &["--check", "--diff"]);
    assert!(shown.text.contains("D /etc/sv/app3/run"), "{}", shown.text);
    assert_eq!(shown.only("one").0, "changed");
    assert_eq!(listing(&roots), before, "check mode wrote something");
    assert_eq!(ansible.play(&away, &[]).only("two").0, "changed");
    assert!(!roots.join("two/etc/sv/app3").exists() && roots.join("two/etc/sv/app5/run").exists());
    assert_eq!(ansible.play(&away, &[]).only("two").0, "ok");

    // What somebody put there meanwhile is named, and adopted only if that is asked for.
    fs::create_dir(roots.join("one/etc/sv/app3")).unwrap();
    fs::write(roots.join("one/etc/sv/app3/run"), "by hand").unwrap();
    let before = listing(&roots);
    for arguments in [&["--limit", "one", "--check"][..], &["--limit", "one"]] {
        let refused = ansible.play(&batch(&ansible, 14, ""), arguments);
        let (word, result) = refused.only("one");
        assert_eq!(word, "fatal", "{}", refused.text);
        let message = result["msg"].as_str().unwrap();
        assert!(message.contains("/etc/sv/app3/run: a file, to be changed: content"), "{message}");
        assert_eq!(listing(&roots), before);
    }
    let adopted = ansible.play(&batch(&ansible, 14, "    adopt: true\n"), &["--limit", "one"]);
    assert_eq!(adopted.only("one").0, "changed", "{}", adopted.text);
    let kept = roots.join("one/var/lib/runsmith/backup/0002/etc/sv/app3/run");
    assert_eq!(fs::read_to_string(kept).unwrap(), "by hand");
}

#[test]
fn filter_and_lookup_have_the_files() {
    let ansible = Ansible::new();
    let pillar = "application: shop\nuser: nobody\ngroup: nogroup\nvirtualenv: /opt/venv\nsecrets: {API_TOKEN: s3cr3tv4lue}\n";
    fs::write(ansible.path().join("pillar.yaml"), pillar).unwrap();
    fs::write(ansible.path().join("wrong.yaml"), format!("{pillar}gunicorn: {{worker: 2}}\n")).unwrap();
    let played = ansible.play(
        "- debug: {msg: \"{{ query('runsmith.runsmith.render', 'pillar.yaml') }}\"}
- debug: {msg: \"{{ query('ansible.builtin.file', 'pillar.yaml') | first | from_yaml | runsmith.runsmith.render }}\"}
- debug: {msg: \"{{ query('runsmith.runsmith.render', 'wrong.yaml') }}\"}
  ignore_errors: true
- debug: {msg: \"{{ {'user': 'nobody'} | runsmith.runsmith.render }}\"}
  ignore_errors: true
",
        &["--limit", "one"],
    );
    // debug prints many lines; what was said is enough.
    let count = |what: &str| played.text.matches(what).count();
    assert_eq!(count("\"path\": \"/etc/sv/shop/env/API_TOKEN\""), 2, "{}", played.text);
    assert_eq!(count("s3cr3tv4lue"), 0, "a secret is shown");
    assert!(
        played.text.contains("gunicorn 27.0.1 has no such setting: `gunicorn.worker`"),
        "{}",
        played.text
    );
    assert!(played.text.contains("wrong.yaml:6:12"), "{}", played.text);
    assert!(
        played.text.contains("`application` is missing") || played.text.contains("missing-key"),
        "{}",
        played.text
    );
}

#[test]
fn every_option_is_documented() {
    let ansible = Ansible::new();
    let text = ansible.must("ansible-doc", &["--json", "runsmith.runsmith.service"]);
    let doc: serde_json::Value = serde_json::from_str(&text).unwrap();
    let options = &doc["runsmith.runsmith.service"]["doc"]["options"];
    let source = include_str!("../integrations/ansible/plugins/modules/service.py");
    let spec = source.split("argument_spec={").nth(1).unwrap().split("required_if").next().unwrap();
    let names: Vec<&str> = spec
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\": {").map(|(name, _)| name))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    assert_eq!(options.as_object().unwrap().len(), names.len());
    for name in names {
        assert!(
            options[name]["description"].is_string() || options[name]["description"].is_array(),
            "{name}"
        );
    }
    for kind in ["filter", "lookup"] {
        assert!(ansible.must("ansible-doc", &["-t", kind, "runsmith.runsmith.render"]).contains("EXAMPLES"));
    }
}

/// A task that may fail.
fn task(options: &str) -> String {
    format!("- runsmith.runsmith.service: {{{options}}}\n  ignore_errors: true\n")
}

#[test]
fn what_goes_wrong_is_said() {
    let ansible = Ansible::new();
    let here = ansible.path().display().to_string();
    let script = |name: &str, body: &str| {
        let path = ansible.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let old = script("old", "echo runsmith 0.0.9");
    let other = script("other", "echo Hello");
    fs::write(ansible.path().join("file"), "").unwrap();
    let machine = String::from_utf8(Command::new("uname").arg("-m").output().unwrap().stdout).unwrap();
    let machine = machine.trim();
    // A program for a machine that this is not: 8 is MIPS in no table of ours, 22 is s390x.
    fs::create_dir(ansible.path().join("dist")).unwrap();
    let mut head = fs::read(env!("CARGO_BIN_EXE_runsmith")).unwrap();
    head.truncate(64);
    head[5] = 2;
    head[18..20].copy_from_slice(&22u16.to_be_bytes());
    fs::write(ansible.path().join(format!("dist/runsmith-{machine}")), head).unwrap();
    fs::create_dir(ansible.path().join("empty")).unwrap();

    let good = "pillar: {application: shop, user: nobody, group: nogroup, virtualenv: /opt/venv}";
    let runsmith = format!("executable: {}", env!("CARGO_BIN_EXE_runsmith"));
    let cases = [
        // Binary missing, by path and altogether.
        (format!("executable: {here}/nothing, root: {here}/root, {good}"), "there is no program"),
        // Wrong version, and something else of that name.
        (format!("executable: {old}, root: {here}/root, {good}"), "needs 0.1.0 or newer"),
        (format!("executable: {other}, root: {here}/root, {good}"), "is no runsmith: it answers 'Hello'"),
        // Wrong pillar: every finding. 18 is what Ansible made of a bare 0022.
        (
            format!(
                "{runsmith}, root: {here}/root, pillar: {{application: shop, user: nobody, group: nogroup, virtualenv: /opt/venv, umask: 0022, worker: 1}}"
            ),
            "`umask` is a whole number here, 18",
        ),
        // A root that cannot be read.
        (format!("{runsmith}, root: {here}/file, {good}"), "file"),
        // Nothing of a service runs.
        (
            format!("{runsmith}, name: no-such-service, state: upgraded"),
            "there is no service no-such-service",
        ),
        (format!("{runsmith}, name: ../x, state: absent, root: {here}/root"), "is no name of an application"),
        (format!("{runsmith}, root: {here}/root, state: upgraded, {good}"), "only services of the root /"),
        (
            format!("{runsmith}, root: {here}/root"),
            "state is present but all of the following are missing: pillar",
        ),
        // Shipping: nothing for this machine, and something for another one.
        (format!("ship: empty, root: {here}/root, {good}"), "cannot read"),
        (format!("ship: dist, root: {here}/root, {good}"), "is for s390x, and the host is"),
    ];
    let tasks: String = cases.iter().map(|(options, _)| task(options)).collect();
    let played = ansible.play(&tasks, &[]);
    for host in ["one", "two"] {
        let results = played.of(host);
        assert_eq!(results.len(), cases.len(), "{}", played.text);
        for ((word, result), (options, said)) in results.iter().zip(&cases) {
            let message = result["msg"].as_str().unwrap_or_default();
            assert!(word == "fatal" && message.contains(said), "{options}: {word} {result:#}");
            assert_eq!(result["changed"], false, "{options}");
            assert!(!message.contains("Traceback"), "{message}");
        }
        let rules: Vec<_> =
            results[3].1["findings"].as_array().unwrap().iter().map(|one| one["rule"].clone()).collect();
        assert_eq!(rules, ["wrong-type", "unknown-key"]);
    }
    assert!(!ansible.path().join("root").exists(), "something was written");
}

/// A task that brings a service up to its pillar, which is linked as that of a real host.
fn upgraded(service: &Service, more: &str) -> String {
    let pillar = service.pillar().replace("enabled: false", "enabled: true");
    let lines: String = pillar.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "- runsmith.runsmith.service:\n    executable: {}\n    state: upgraded\n    pillar:\n{lines}{more}",
        env!("CARGO_BIN_EXE_runsmith")
    )
}

#[test]
fn each_change_gets_what_it_needs_and_no_more() {
    let ansible = Ansible::new();
    let service = Service::start_native(Server::Sync, Socket::Tcp, "");
    let play = |task: &str, arguments: &[&str]| {
        let played = ansible.play(task, &[&["--limit", "one"], arguments].concat());
        let (word, result) = played.only("one");
        let actions = result["actions"].as_array().cloned().unwrap_or_default();
        let actions: Vec<String> =
            actions.iter().map(|one| one["action"].as_str().unwrap_or_default().to_owned()).collect();
        (word, actions, result)
    };

    // Newly linked: it ran before, with another run script.
    let (word, actions, result) = play(&upgraded(&service, ""), &[]);
    assert_eq!(
        (word.as_str(), actions),
        ("changed", vec!["start".to_owned(), "upgrade".to_owned()]),
        "{result:#}"
    );
    assert_eq!(result["services"][0]["effect"], "enable");
    let master = service.master();

    // Nothing is newer than what serves.
    let (word, actions, result) = play(&upgraded(&service, ""), &[]);
    assert_eq!((word.as_str(), actions), ("ok", vec![]), "{result:#}");
    assert_eq!(service.master(), master);

    // A value: an upgrade, foreseen in check mode and not done there.
    service.change_pillar("handoff: {boot_timeout: 50}");
    let task = upgraded(&service, "");
    let files = listing(&service.directory);
    let (word, actions, result) = play(&task, &["--check"]);
    assert_eq!((word.as_str(), actions), ("changed", vec!["upgrade".to_owned()]), "{result:#}");
    assert_eq!((listing(&service.directory), service.master()), (files, master));
    let (word, actions, result) = play(&task, &[]);
    assert_eq!((word.as_str(), actions), ("changed", vec!["upgrade".to_owned()]), "{result:#}");
    assert_eq!(result["actions"][0]["result"]["is"], "done");
    let second = service.master();
    assert_ne!(second, master);
    assert_eq!(play(&task, &[]).0, "ok");

    // Files that somebody else has put there since, and a release: by name, without a pillar.
    let named = format!(
        "- runsmith.runsmith.service: {{executable: {}, state: upgraded, name: {}}}\n",
        env!("CARGO_BIN_EXE_runsmith"),
        service.directory.display()
    );
    assert_eq!(play(&named, &[]).0, "ok");
    service.release(2, Release::Good);
    service.switch(2);
    let (word, actions, result) = play(&named, &[]);
    assert_eq!((word.as_str(), actions), ("changed", vec!["upgrade".to_owned()]), "{result:#}");
    assert!(result["actions"][0]["why"][0].as_str().unwrap().contains("current is newer"), "{result:#}");
    assert_eq!(service.version(), "2");
    let forced = named.replace("state: upgraded", "state: upgraded, force: true");
    assert_eq!(play(&forced, &[]).1, ["upgrade"]);

    // Backed out: the task fails, says why and what serves, and the old generation never noticed.
    let third = service.master();
    service.release(3, Release::Broken);
    service.switch(3);
    let (word, actions, result) = play(&named, &[]);
    assert_eq!((word.as_str(), actions), ("fatal", vec!["upgrade".to_owned()]), "{result:#}");
    assert_eq!(result["actions"][0]["result"]["is"], "backed-out");
    let message = result["msg"].as_str().unwrap();
    assert!(message.contains("backed out") && message.contains("there_is_no_such_module"), "{message}");
    assert_eq!((service.version().as_str(), service.master()), ("2", third));

    // Down: nobody is upgraded, and it is not started behind somebody's back.
    service.switch(2);
    service.down();
    let (word, _, result) = play(&named, &[]);
    assert_eq!(word, "fatal");
    assert!(result["msg"].as_str().unwrap().contains("is down: nobody wants it up"), "{result:#}");
    service.assert_nothing_left();

    // A way of hand-over that needs an outage: it is stopped and started.
    service.sv("up");
    service.change_pillar("handoff: {strategy: usr2}");
    let (word, actions, result) = play(&upgraded(&service, ""), &[]);
    assert_eq!(word, "changed", "{result:#}");
    assert_eq!(result["services"][0]["effect"], "restart");
    assert!(actions.len() == 2 && actions[0].contains("stop") && actions[1].contains("start"), "{actions:?}");
    assert_eq!(service.version(), "2");
    service.down();
}

/// What the page starts; dropping it ends that, whatever became of the page.
struct Try {
    ansible: Ansible,
    user: User,
}

impl Try {
    fn base(&self) -> PathBuf {
        self.ansible.path().join("try")
    }

    /// What serves on a host.
    fn master(&self, host: &str, prefix: &str) -> serde_json::Value {
        let service = self.base().join(format!("{host}/sv/{prefix}-{host}"));
        let text =
            self.ansible.must("runsmith", &["status", "--format", "json", &service.display().to_string()]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["services"][0]["serving"]["master"].clone()
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        // runsvdir first, then each runsv, the runtime and keepers; the user's processes end with the user.
        let ours = self.base().display().to_string();
        let _ = &self.user;
        for entry in fs::read_dir(self.base()).into_iter().flatten().flatten() {
            let pid = fs::read_to_string(entry.path().join("runsvdir.pid")).unwrap_or_default();
            let Ok(pid) = pid.trim().parse::<u32>() else { continue };
            let is_ours = |(one, words): &(u32, Vec<String>)| {
                *one == pid && words.iter().any(|word| word.starts_with(&ours))
            };
            if support::host::commands().iter().any(is_ours) {
                let children: Vec<u32> =
                    Process::all().into_iter().filter(|one| one.parent == pid).map(|one| one.pid).collect();
                kill(pid, Signal::KILL);
                for child in children {
                    for one in Process::all().into_iter().filter(|one| one.parent == child) {
                        kill(one.pid, Signal::KILL);
                    }
                    kill(child, Signal::KILL);
                }
            }
        }
        for host in ["web1", "web2", "web3", "web4"] {
            let service = format!("{}-{host}", self.user.name);
            let keeper = ["runsmith".to_owned(), "keep".to_owned(), service.clone()];
            for (pid, words) in support::host::commands() {
                if words == keeper {
                    kill(pid, Signal::KILL);
                }
            }
            support::host::forget(&service);
        }
    }
}

#[test]
fn the_page_leads_from_nothing_to_a_rolling_deploy() {
    let all = Try { ansible: Ansible::bare(), user: User::new() };
    let here = all.ansible.path();
    fs::remove_file(here.join("inventory.yaml")).unwrap();
    std::os::unix::fs::symlink(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations"),
        here.join("integrations"),
    )
    .unwrap();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let prefix = all.user.name.clone();
    let mut names = vec![
        ("/srv/try", all.base().display().to_string()),
        ("/opt/gunicorn", virtualenv("gunicorn").display().to_string()),
        ("user: deploy", format!("user: {prefix}")),
        ("group: deploy", format!("group: {prefix}")),
        ("shop-", format!("{prefix}-")),
    ];
    for (name, port) in ["8101", "8102", "8103", "8104"].into_iter().zip(&ports) {
        names.push((name, port.to_string()));
    }

    // From the first deploy on, somebody asks each host all the time; what is bad on one is nobody's failed request.
    let mut loads: Vec<Load> = vec![];
    let mut untouched = vec![];
    let mut deploys = 0;
    let mut before = |command: &str| {
        let is_deploy = command.contains("deploy.yaml");
        if is_deploy {
            deploys += 1;
        }
        if is_deploy && deploys == 2 {
            loads = ports.iter().map(|port| Load::start(&Address::Tcp(*port), 1, 1)).collect();
        }
        if is_deploy && deploys == 3 {
            untouched = ["web2", "web3", "web4"].map(|host| all.master(host, &prefix)).to_vec();
            assert!(untouched.iter().all(serde_json::Value::is_u64), "{untouched:?}");
        }
        // What was checked before is still to be done.
        if command.ends_with("site.yaml") && deploys == 4 {
            let config = all.base().join("web1/www/shared/runsmith/gunicorn.py");
            assert!(
                fs::read_to_string(config).unwrap().contains("workers = 2\n"),
                "check mode wrote something"
            );
        }
        // The deploy has ended at web2: there and behind it the same masters serve.
        if command.contains("curl") && deploys == 3 {
            let now = ["web2", "web3", "web4"].map(|host| all.master(host, &prefix)).to_vec();
            assert_eq!(now, untouched);
        }
        if command.contains("away.yaml") {
            for load in loads.drain(..) {
                let seen = load.finish();
                assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
                assert!(seen.answers.len() > 200, "only {} requests", seen.answers.len());
                let mut versions: Vec<_> =
                    seen.answers.iter().map(|answer| answer.version.as_str()).collect();
                // Who asked first need not be answered first.
                versions.sort_unstable();
                versions.dedup();
                assert_eq!(versions, ["1", "2"]);
            }
        }
    };
    let page = include_str!("../docs/ansible.md");
    let commands = follow(page, &names, here, &|| all.ansible.command("sh"), &mut before);
    assert!(commands > 20 && deploys == 4, "{commands} commands, {deploys} deploys");
    assert_eq!(all.user.processes().len(), 0, "left behind");
    for host in ["web1", "web2", "web3", "web4"] {
        assert!(!all.base().join(host).join("sv").join(format!("{prefix}-{host}")).exists());
        assert!(
            all.base().join(host).join("www/releases/2/wsgi.py").exists(),
            "releases are nobody's to remove"
        );
    }
}
