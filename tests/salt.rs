//! Real Salt, the newest one and the one with long-term support: masterless, and a master with minions that are all this machine.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use support::host::{User, free_port, run, virtualenv};
use support::load::{Address, Load};
use support::page::follow;
use support::salt::{BOTH, Salt, command, end_all};
use support::service::{Release, Server, Service, Socket};

/// Every path below a directory, with its content's length, its mode and when its inode was changed.
fn listing(directory: &Path) -> Vec<(PathBuf, u64, u32, i64)> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        // The runtime writes there whenever a generation is proven.
        if path.ends_with("state") {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let length = if meta.is_file() { meta.len() } else { 0 };
        found.push((path.clone(), length, meta.mode(), meta.ctime_nsec()));
        if meta.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}

/// Thirty applications; `workers` of one of them, and how many bad ones.
fn thirty(workers: u32) -> serde_json::Value {
    let applications: serde_json::Map<_, _> = (0..30)
        .map(|number| {
            let mut one = json!({"bind": format!("127.0.0.1:{}", 7000 + number), "secrets": {"API_TOKEN": "s3cr3tv4lue"}});
            if number == 7 {
                one["gunicorn"] = json!({"workers": workers});
            }
            (format!("app{number}"), one)
        })
        .collect();
    json!({"unicorn": {
        "defaults": {"user": "nobody", "group": "nogroup", "virtualenv": "/opt/venv"},
        "applications": applications,
    }})
}

#[test]
fn one_state_makes_shows_and_removes_any_number_of_services() {
    for venv in BOTH {
        let salt = Salt::new(venv);
        let root = salt.path().join("services");
        fs::create_dir(&root).unwrap();
        let sls = format!("#!runsmith --pillar unicorn --root {}\n", root.display());

        // Check mode shows everything, with modes and owners, and writes nothing.
        salt.write("pillar/own.sls", &thirty(2).to_string());
        let shown = salt.apply(&sls, &["test=True"]);
        let state = shown.of("it");
        assert_eq!((shown.code, &state["result"]), (Some(0), &json!(null)), "{}", shown.text);
        let changes = &state["changes"]["app7"];
        assert_eq!(changes["impact"], "add; runsvdir starts it");
        let config = &changes["/var/www/app7/shared/runsmith/gunicorn.py"];
        assert_eq!(config["new"], "file 0644 root:root");
        assert!(config["diff"].as_str().unwrap().contains("+workers = 2"), "{config:#}");
        assert_eq!(changes["/var/www/app7/shared/pids"]["new"], "directory 0755 nobody:nogroup");
        assert_eq!(changes["/etc/sv/app7/env/API_TOKEN"]["new"], "file 0600 root:root");
        assert_eq!(listing(&root), vec![]);

        let made = salt.apply(&sls, &[]);
        assert_eq!(made.of("it")["result"], true, "{}", made.text);
        let token = root.join("etc/sv/app0/env/API_TOKEN");
        assert_eq!(fs::read_to_string(&token).unwrap().lines().next(), Some("s3cr3tv4lue"));
        assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            fs::read_to_string(root.join("etc/sv/app29/run")).unwrap().contains("unicorn:applications:app29")
        );

        // No value of the pillar is an argument of the state.
        let (code, lows) = salt.call(&["state.show_low_sls", "it"]);
        assert!(code == Some(0) && lows.contains("unicorn") && !lows.contains("s3cr3tv4lue"), "{lows}");

        // Nothing to do is nothing done.
        let before = listing(&root);
        let again = salt.apply(&sls, &[]);
        assert_eq!((again.code, &again.of("it")["changes"]), (Some(0), &json!({})), "{}", again.text);
        assert_eq!(listing(&root), before);

        // One value: one file of one service, and what it needs. A mode that somebody changed is shown, too.
        salt.write("pillar/own.sls", &thirty(14).to_string());
        fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
        let before = listing(&root);
        let shown = salt.apply(&sls, &["test=True"]);
        let changes = shown.of("it")["changes"].as_object().unwrap();
        assert_eq!(changes.keys().collect::<Vec<_>>(), ["app0", "app7"], "{}", shown.text);
        assert!(changes["app7"]["impact"].as_str().unwrap().starts_with("upgrade; "), "{changes:#?}");
        let diff = changes["app7"]["/var/www/app7/shared/runsmith/gunicorn.py"]["diff"].as_str().unwrap();
        assert!(diff.contains("\n-workers = 2\n+workers = 14\n"), "{diff}");
        assert_eq!(
            changes["app0"]["/etc/sv/app0/env/API_TOKEN"],
            json!({"mode": {"old": "0644", "new": "0600"}})
        );
        assert_eq!(listing(&root), before, "test=True wrote something");
        let changed =
            salt.apply(&format!("#!runsmith --pillar unicorn --backup --root {}\n#\n", root.display()), &[]);
        assert_eq!(changed.of("it")["changes"].as_object().unwrap(), changes);
        assert!(root.join("var/lib/runsmith/backup/0001/var/www/app7/shared/runsmith/gunicorn.py").is_file());

        // Away, shown first; the others stay.
        let away = json!({"away": {"runsmith.absent": [{"services": ["app3", "app4"]}, {"root": root}]}});
        let before = listing(&root);
        let shown = salt.states(&away, &["test=True"]);
        assert_eq!(shown.of("away")["changes"]["app3"]["/etc/sv/app3/run"]["old"], "file 0755 root:root");
        assert_eq!(listing(&root), before, "test=True wrote something");
        assert_eq!(salt.states(&away, &[]).of("away")["result"], true);
        assert!(!root.join("etc/sv/app3").exists() && root.join("etc/sv/app5/run").exists());
        let gone = salt.states(&away, &[]);
        assert_eq!(gone.of("away")["changes"], json!({}));

        // What somebody put there meanwhile is named, and adopted only if that is asked for.
        fs::create_dir(root.join("etc/sv/app3")).unwrap();
        fs::write(root.join("etc/sv/app3/run"), "by hand").unwrap();
        let before = listing(&root);
        for arguments in [&["test=True"][..], &[]] {
            let refused = salt.apply(&sls, arguments);
            let state = refused.of("it");
            assert_eq!(state["result"], false, "{}", refused.text);
            let comment = state["comment"].as_str().unwrap();
            assert!(comment.contains("/etc/sv/app3/run: a file, to be changed: content"), "{comment}");
            assert_eq!(listing(&root), before);
        }
        let adopted =
            salt.apply(&format!("#!runsmith --pillar unicorn --adopt --root {}\n#\n", root.display()), &[]);
        assert_eq!(adopted.of("it")["result"], true, "{}", adopted.text);
        let kept = root.join("var/lib/runsmith/backup/0002/etc/sv/app3/run");
        assert_eq!(fs::read_to_string(kept).unwrap(), "by hand");

        // No secret in anything that Salt printed or logged, or that it keeps besides the pillar's own file.
        for applied in [&shown, &made, &again, &changed, &gone] {
            assert!(!applied.text.contains("s3cr3tv4lue"), "a secret is shown");
            assert!(!applied.log.contains("s3cr3tv4lue"), "a secret is logged");
            assert!(applied.log.contains("[DEBUG"), "there is no log");
        }
        for (path, ..) in listing(&salt.path().join("root")) {
            let bytes = fs::read(&path).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("s3cr3tv4lue"), "{}", path.display());
        }
    }
}

/// A pillar with two mistakes, and its lines.
const WRONG: &str = "application: shop
user: nobody
group: nogroup
virtualenv: /opt/venv
umask: 0022
gunicorn: {worker: 2}
";

#[test]
fn mistakes_of_a_pillar_are_told_with_file_line_and_rule() {
    for venv in BOTH {
        let salt = Salt::new(venv);
        let good = WRONG.replace("0022", "'0022'").replace("worker:", "workers:");
        // Whichever renderers come before, lines are those of the file.
        for pipe in ["#!runsmith", "#!jinja|runsmith", "#!yaml|runsmith"] {
            let options = "--root /nonexistent/../ --deny all";
            let told = salt.apply(&format!("{pipe} {options}\n\n{WRONG}"), &[]).refused();
            for said in
                ["error[wrong-type]", "--> salt://it.sls:7:8", "error[unknown-key]", "--> salt://it.sls:8:12"]
            {
                assert!(told.contains(said), "{pipe}: {said}:\n{told}");
            }
            assert!(!told.contains("Traceback"), "{told}");
        }
        let told = salt.apply(&format!("#!jinja|yaml|runsmith\n{WRONG}"), &[]).refused();
        assert!(told.contains("--> values of salt://it.sls:"), "{told}");

        // The same pillar, right, in every way that it can come.
        let root = salt.path().join("services");
        let mut seen = vec![];
        for pipe in ["#!runsmith", "#!jinja|runsmith", "#!yaml|runsmith", "#!jinja|yaml|runsmith"] {
            let applied = salt.apply(&format!("{pipe} --root {}\n{good}", root.display()), &["test=True"]);
            seen.push(applied.of("it")["changes"].clone());
            assert_eq!(seen[0], *seen.last().unwrap());
            assert_eq!(seen[0]["shop"]["/etc/sv/shop/run"]["new"], "file 0755 root:root", "{}", applied.text);
        }

        // What is wrong with the SLS itself.
        salt.write(
            "pillar/own.sls",
            "unicorn: {application: shop, user: nobody, virtualenv: /opt/venv, umask: 22}\n",
        );
        for (sls, said) in [
            ("#!runsmith\n# nothing\n", "there is nothing in it"),
            ("#!runsmith --pilar unicorn\n#\n", "unrecognized arguments: --pilar unicorn"),
            ("#!runsmith --pillar 'uni\n#\n", "No closing quotation"),
            ("#!runsmith --pillar unicorn\napplication: shop\n", "there is a body"),
            ("#!runsmith --pillar nowhere:at:all\n#\n", "has nothing at `nowhere:at:all`"),
            ("#!runsmith --pillar unicorn\n#\n", "error[wrong-type]: `umask` is a whole number here, 22"),
            ("#!runsmith\nuser: {{ grains.id }}\n", "`#!jinja|runsmith` lets Salt render"),
            ("#!runsmith\na: [\n", "error[yaml"),
            ("#!runsmith\na: 1\na: 2\n", "error[duplicate-key"),
        ] {
            let told = salt.apply(sls, &[]).refused();
            assert!(told.contains(said) && !told.contains("Traceback"), "{sls}: {told}");
        }

        // The external pillar says the same, and what another one has found stays. Minions that are not meant need no key.
        let minion = fs::read_to_string(salt.path().join("etc/minion")).unwrap();
        let external = "ext_pillar:\n- runsmith:\n- runsmith: {key: other, required: 'o*'}\n- runsmith: {key: x, required: 'x*'}\n";
        salt.write("etc/minion", &format!("{minion}{external}"));
        let told = salt.apply("it: {test.nop: []}\n", &[]).refused();
        for said in ["runsmith: error[wrong-type]: `umask`", "the pillar of one has nothing at `other`"] {
            assert!(told.contains(said) && !told.contains("nothing at `x`"), "{told}");
        }
        let nowhere = minion.replace(env!("CARGO_BIN_EXE_runsmith"), "/nonexistent/runsmith");
        salt.write("etc/minion", &format!("{nowhere}ext_pillar: [{{runsmith: {{}}}}]\n"));
        let told = salt.apply("it: {test.nop: []}\n", &[]).refused();
        assert!(told.contains("runsmith: there is no program /nonexistent/runsmith"), "{told}");
        salt.write("etc/minion", &minion);

        // The execution module, too, with an exit code.
        let (code, text) = salt.call(&["runsmith.validate"]);
        assert!(code == Some(1) && text.contains("wrong-type"), "{code:?} {text}");
        salt.write("pillar/own.sls", &json!({"unicorn": {"application": "shop", "user": "nobody", "group": "nogroup", "virtualenv": "/opt/venv"}}).to_string());
        for (words, said) in [
            (&["runsmith.validate"][..], "valid:\n        True"),
            (&["runsmith.render", "--out=json"], "\"path\": \"/etc/sv/shop/run\""),
            (&["runsmith.diff", &format!("root={}", root.display())], "impact: new service"),
            (&["runsmith.version"], env!("CARGO_PKG_VERSION")),
        ] {
            let (code, text) = salt.call(words);
            assert!(code == Some(0) && text.contains(said), "{words:?}: {code:?} {text}");
        }
        assert!(!root.exists(), "something was written");
    }
}

#[test]
fn what_goes_wrong_is_said() {
    for venv in BOTH {
        let salt = Salt::bare(venv);
        let here = salt.path().display().to_string();
        let script = |name: &str, body: &str| {
            let path = salt.write(name, &format!("#!/bin/sh\n{body}\n"));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let (old, other) = (script("old", "echo runsmith 0.0.9"), script("other", "echo Hello"));
        salt.write("file", "");
        let shop =
            json!({"application": "shop", "user": "nobody", "group": "nogroup", "virtualenv": "/opt/venv"});
        salt.write("pillar/own.sls", &json!({"unicorn": shop}).to_string());

        // Not synchronised: Salt itself says so of a state; of a renderer it says nothing but this, and ends with 1.
        salt.install();
        let unsynced = salt.apply("#!runsmith --pillar unicorn\n#\n", &[]);
        assert!(
            unsynced.code == Some(1)
                && unsynced.text.contains("The renderer \"runsmith --pillar unicorn\" is not available"),
            "{}",
            unsynced.text
        );
        let unsynced = salt.states(&json!({"it": {"runsmith.managed": []}}), &[]);
        assert!(
            unsynced.code == Some(1) && unsynced.text.contains("'runsmith.managed' is not available"),
            "{}",
            unsynced.text
        );
        assert_eq!(salt.call(&["saltutil.sync_all"]).0, Some(0));

        let managed = |options: serde_json::Value| {
            let all: Vec<_> =
                options.as_object().unwrap().iter().map(|(key, value)| json!({key: value})).collect();
            json!({"runsmith.managed": all})
        };
        let root = format!("{here}/root-of-services");
        let cases = [
            (
                "missing",
                managed(json!({"executable": format!("{here}/nothing"), "root": root})),
                "there is no program",
            ),
            ("old", managed(json!({"executable": old, "root": root})), "need 0.1.0 or newer"),
            (
                "other",
                managed(json!({"executable": other, "root": root})),
                "is no runsmith: it answers 'Hello'",
            ),
            // Every finding.
            (
                "invalid",
                managed(
                    json!({"pillar": {"application": "shop", "user": "nobody", "group": "nogroup", "virtualenv": "/opt/venv", "umask": 22, "worker": 1}, "root": root}),
                ),
                "`umask` is a whole number here, 22",
            ),
            (
                "nothing",
                managed(json!({"key": "a:b", "root": root})),
                "the pillar of one has nothing at `a:b`",
            ),
            ("unreadable", managed(json!({"root": format!("{here}/file")})), "file"),
            // What Salt 3008 gives to whoever asks for a pillar outside of Jinja.
            (
                "masked",
                managed(
                    json!({"pillar": {"application": "shop", "user": "nobody", "group": "nogroup", "virtualenv": "/opt/venv", "secrets": {"TOKEN": "**********"}}, "root": root}),
                ),
                "`pillar:secrets:TOKEN` is masked: Salt 3008",
            ),
            (
                "unknown",
                json!({"runsmith.upgraded": [{"name": "no-such-service"}]}),
                "there is no service no-such-service",
            ),
            (
                "odd",
                json!({"runsmith.absent": [{"name": "../x"}, {"root": root}]}),
                "is no name of an application",
            ),
        ];
        let states: serde_json::Map<_, _> =
            cases.iter().map(|(id, state, _)| ((*id).to_owned(), state.clone())).collect();
        for words in [&["test=True"][..], &[]] {
            let applied = salt.states(&states.clone().into(), words);
            for (id, _, said) in &cases {
                let state = applied.of(id);
                let comment = state["comment"].as_str().unwrap_or_default();
                assert!(state["result"] == false && comment.contains(said), "{id}: {state:#}");
                assert!(!comment.contains("Traceback") && state["changes"] == json!({}), "{state:#}");
            }
            let invalid = applied.of("invalid")["comment"].as_str().unwrap();
            assert!(
                invalid.contains("error[wrong-type]") && invalid.contains("error[unknown-key]"),
                "{invalid}"
            );
        }
        assert!(!Path::new(&root).exists(), "something was written");

        // In the configuration, and the renderer: before any state.
        let minion = fs::read_to_string(salt.path().join("etc/minion")).unwrap();
        salt.write("etc/minion", &minion.replace(env!("CARGO_BIN_EXE_runsmith"), &format!("{here}/nothing")));
        let told = salt.apply("#!runsmith --pillar unicorn\n#\n", &[]).refused();
        assert!(told.contains("there is no program") && !told.contains("Traceback"), "{told}");
        let (code, text) = salt.call(&["runsmith.status"]);
        assert!(
            code == Some(1) && text.contains("'runsmith.status': there is no program"),
            "{code:?} {text}"
        );
        salt.write("etc/minion", &minion);

        // A pillar that goes through a template of Python is masked by Salt 3008, and only by that.
        let masked = salt.apply(
            "#!py|runsmith\ndef run():\n    return __salt__['pillar.get']('unicorn')\n",
            &["test=True"],
        );
        if venv == "salt" {
            let told = masked.refused();
            assert!(told.contains("is masked: Salt 3008"), "{told}");
        } else {
            assert_eq!(masked.of("it")["result"], json!(null), "{}", masked.text);
        }
    }
}

/// A state that brings a service up to its pillar, which is linked as that of a real host.
fn managed(salt: &Salt, service: &Service) -> String {
    let pillar = service.pillar().replace("enabled: false", "enabled: true");
    salt.write("pillar/own.sls", &format!("unicorn:\n{}", indented(&pillar)));
    "#!runsmith --pillar unicorn\n".to_owned()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// What a state did to what runs.
fn actions(state: &serde_json::Value, service: &Service) -> Vec<String> {
    let actions = state["changes"][&service.name]["actions"].as_array().cloned().unwrap_or_default();
    actions.iter().map(|one| one["action"].as_str().unwrap_or_default().to_owned()).collect()
}

fn each_change_gets_what_it_needs_and_no_more(venv: &'static str) {
    let salt = Salt::new(venv);
    let secret = "secrets: {API_TOKEN: s3cr3tv4lue}";
    let service = Service::start_native(Server::Sync, Socket::Tcp, secret);
    let sls = managed(&salt, &service);

    // Newly linked: it ran before, with another run script.
    let applied = salt.apply(&sls, &[]);
    let state = applied.of("it");
    assert_eq!(state["result"], true, "{}", applied.text);
    assert_eq!(actions(state, &service), ["start", "upgrade"], "{state:#}");
    assert!(state["changes"][&service.name]["impact"].as_str().unwrap().starts_with("enable"), "{state:#}");
    let master = service.master();

    // Nothing is newer than what serves.
    let applied = salt.apply(&sls, &[]);
    assert_eq!((&applied.of("it")["result"], &applied.of("it")["changes"]), (&json!(true), &json!({})));
    assert_eq!(service.master(), master);

    // A value: an upgrade, foreseen with test=True and not done there.
    service.change_pillar(&format!("{secret}\nhandoff: {{boot_timeout: 50}}"));
    let sls = managed(&salt, &service);
    let files = listing(&service.directory);
    let applied = salt.apply(&sls, &["test=True"]);
    let state = applied.of("it");
    assert_eq!(state["result"], json!(null), "{state:#}");
    assert_eq!(actions(state, &service), ["upgrade"], "{state:#}");
    assert_eq!((listing(&service.directory), service.master()), (files, master));
    let applied = salt.apply(&sls, &[]);
    let state = applied.of("it");
    assert_eq!(actions(state, &service), ["upgrade"], "{state:#}");
    let done = state["changes"][&service.name]["actions"][0]["result"].as_str().unwrap();
    assert!(done.starts_with("done: generation"), "{state:#}");
    let second = service.master();
    assert_ne!(second, master);
    assert_eq!(salt.apply(&sls, &[]).of("it")["changes"], json!({}));

    // A release, by the service's name or directory and without a pillar; what is watched counts, too.
    let named = json!({"it": {"runsmith.upgraded": [{"name": service.directory}]}});
    assert_eq!(salt.states(&named, &[]).of("it")["changes"], json!({}));
    service.release(2, Release::Good);
    service.switch(2);
    let applied = salt.states(&named, &["test=True"]);
    assert_eq!(
        (&applied.of("it")["result"], actions(applied.of("it"), &service)),
        (&json!(null), vec!["upgrade".to_owned()])
    );
    let applied = salt.states(&named, &[]);
    assert_eq!(actions(applied.of("it"), &service), ["upgrade"], "{}", applied.text);
    assert!(applied.of("it")["comment"].as_str().unwrap().contains("current is newer"), "{}", applied.text);
    assert_eq!(service.version(), "2");
    let watched = salt.path().join("watched");
    let watching = json!({
        "file": {"file.managed": [{"name": watched}, {"contents": "hello"}]},
        "it": {"runsmith.upgraded": [{"name": service.directory}, {"watch": [{"file": "file"}]}]},
    });
    let third = service.master();
    let applied = salt.states(&watching, &["test=True"]);
    assert_eq!(actions(applied.of("it"), &service), ["upgrade"], "{}", applied.text);
    assert_eq!(service.master(), third);
    let applied = salt.states(&watching, &[]);
    assert_eq!(actions(applied.of("it"), &service), ["upgrade"], "{}", applied.text);
    assert_ne!(service.master(), third);
    assert_eq!(salt.states(&watching, &[]).of("it")["changes"], json!({}));

    // Backed out: the state fails, says why and what serves, and the old generation never noticed.
    let fourth = service.master();
    service.release(3, Release::Broken);
    let crash = "import os\nraise RuntimeError('no database at ' + os.environ['API_TOKEN'])\n";
    fs::write(service.root.join("releases/3/wsgi.py"), crash).unwrap();
    service.switch(3);
    let applied = salt.states(&named, &[]);
    let state = applied.of("it");
    assert_eq!((applied.code, &state["result"]), (Some(1), &json!(false)), "{}", applied.text);
    let comment = state["comment"].as_str().unwrap();
    assert!(comment.contains("backed out") && comment.contains("no database at ********"), "{comment}");
    assert!(
        !applied.text.contains("s3cr3tv4lue") && !applied.log.contains("s3cr3tv4lue"),
        "a secret is shown"
    );
    assert_eq!(state["changes"][&service.name]["actions"][0]["result"], "backed-out");
    assert_eq!((service.version().as_str(), service.master()), ("2", fourth));
    let (code, text) = salt.call(&["runsmith.upgrade", service.directory.to_str().unwrap()]);
    assert!(
        code == Some(1) && text.contains("backed-out") && !text.contains("s3cr3tv4lue"),
        "{code:?} {text}"
    );

    // Down: nobody is upgraded, and it is not started behind somebody's back.
    service.switch(2);
    service.down();
    let applied = salt.states(&named, &[]);
    let comment = applied.of("it")["comment"].as_str().unwrap().to_owned();
    assert!(applied.code == Some(1) && comment.contains("is down: nobody wants it up"), "{comment}");
    service.assert_nothing_left();

    // A way of hand-over that needs an outage: it is stopped and started.
    service.sv("up");
    service.change_pillar(&format!("{secret}\nhandoff: {{strategy: usr2}}"));
    let sls = managed(&salt, &service);
    let applied = salt.apply(&sls, &[]);
    let state = applied.of("it");
    assert_eq!(state["result"], true, "{}", applied.text);
    assert!(state["changes"][&service.name]["impact"].as_str().unwrap().starts_with("restart"), "{state:#}");
    let done = actions(state, &service);
    assert!(done.len() == 2 && done[0].contains("stop") && done[1].contains("start"), "{done:?}");
    assert_eq!(service.version(), "2");
    service.down();
}

#[test]
fn a_new_service_that_does_not_come_up_is_said_why() {
    let salt = Salt::new("salt");
    let mut service = Service::native(Server::Sync, Socket::Tcp, "");
    service.release(1, Release::Broken);
    service.supervise();
    service.log.wait(0, &["start FAILED"], support::START);
    let pillar = service.pillar().replace("enabled: false", "enabled: true, timeout: 3");
    salt.write("pillar/own.sls", &format!("unicorn:\n{}", indented(&pillar)));
    let applied = salt.apply("#!runsmith --pillar unicorn\n", &[]);
    let state = applied.of("it");
    let comment = state["comment"].as_str().unwrap();
    assert_eq!((applied.code, &state["result"]), (Some(1), &json!(false)), "{}", applied.text);
    assert!(comment.contains("failed: timeout") && comment.contains("ended with exit code"), "{comment}");
    assert_eq!(actions(state, &service), ["start"]);

    // Without a release it is made and waits, and a release makes it serve.
    fs::remove_file(service.root.join("current")).unwrap();
    let applied = salt.apply("#!runsmith --pillar unicorn\n", &[]);
    let state = applied.of("it");
    assert_eq!((&state["result"], &state["changes"]), (&json!(true), &json!({})), "{}", applied.text);
    assert!(state["comment"].as_str().unwrap().contains("No release to serve yet"), "{state:#}");
    service.release(1, Release::Good);
    service.switch(1);
    // Whoever is first: runsv's next start, or the state.
    let applied = salt.apply("#!runsmith --pillar unicorn\n", &[]);
    assert_eq!(applied.of("it")["result"], true, "{}", applied.text);
    assert_eq!(service.version(), "1");
    service.down();
}

#[test]
fn each_change_gets_what_it_needs_and_no_more_by_the_newest() {
    each_change_gets_what_it_needs_and_no_more("salt");
}

#[test]
fn each_change_gets_what_it_needs_and_no_more_by_the_one_with_long_term_support() {
    each_change_gets_what_it_needs_and_no_more("salt_lts");
}

/// A master and eight minions, which the page starts; dropping it ends them, whatever became of the page.
struct Fleet {
    scratch: tempfile::TempDir,
    user: User,
    venv: &'static str,
}

const HOSTS: [&str; 8] = ["web1", "web2", "web3", "web4", "web5", "web6", "web7", "web8"];

impl Fleet {
    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn directory(&self, host: &str) -> PathBuf {
        self.path().join(host).join("sv").join(format!("{}-{host}", self.user.name))
    }

    /// What serves on each host.
    fn masters(&self, hosts: &[&str]) -> Vec<u64> {
        let of = |host: &&str| {
            let directory = self.directory(host).display().to_string();
            let text = run(env!("CARGO_BIN_EXE_runsmith"), &["status", "--format", "json", &directory]);
            let status: serde_json::Value = serde_json::from_str(&text).unwrap();
            status["services"][0]["serving"]["master"].as_u64().unwrap_or_else(|| panic!("{host}: {text}"))
        };
        hosts.iter().map(of).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["master/var/log/salt/master", "web1/var/log/salt/minion"] {
                eprintln!("--- {log}:\n{}", fs::read_to_string(self.path().join(log)).unwrap_or_default());
            }
        }
        end_all(self.path());
        for host in HOSTS {
            let service = format!("{}-{host}", self.user.name);
            // Keepers inherit nothing by which they could be found.
            let keeper = ["runsmith".to_owned(), "keep".to_owned(), service.clone()];
            for (pid, words) in support::host::commands() {
                if words == keeper {
                    support::host::kill(pid, rustix::process::Signal::KILL);
                }
            }
            support::host::forget(&service);
        }
    }
}

fn the_page_leads_from_nothing_to_a_rolling_deploy(venv: &'static str) {
    support::host::require("Salt", &virtualenv(venv).join("bin/salt-master"));
    let scratch = tempfile::Builder::new().prefix("rst").tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let all = Fleet { scratch, user: User::new(), venv };
    let ports: Vec<u16> = HOSTS.iter().map(|_| free_port()).collect();
    let prefix = all.user.name.clone();
    let mut names = vec![
        ("/srv/try", all.path().display().to_string()),
        ("/usr/src/runsmith", env!("CARGO_MANIFEST_DIR").to_owned()),
        ("/usr/bin/runsmith", env!("CARGO_BIN_EXE_runsmith").to_owned()),
        ("/opt/gunicorn", virtualenv("gunicorn").display().to_string()),
        ("user: deploy", format!("user: {prefix}")),
        ("group: deploy", format!("group: {prefix}")),
        ("shop-", format!("{prefix}-")),
        ("8505", free_port().to_string()),
        ("8506", free_port().to_string()),
    ];
    for (name, port) in
        ["8101", "8102", "8103", "8104", "8105", "8106", "8107", "8108"].into_iter().zip(&ports)
    {
        names.push((name, port.to_string()));
    }

    // From the second deploy on, somebody asks each host all the time; what is bad on one is nobody's failed request.
    let mut loads: Vec<Load> = vec![];
    let (mut deploys, mut untouched, mut applied) = (0, vec![], vec![]);
    let behind = ["web3", "web5", "web6", "web7", "web8"];
    let mut before = |command: &str| {
        let is_deploy = command.contains("state.orchestrate");
        deploys += usize::from(is_deploy);
        if is_deploy && deploys == 3 {
            untouched = all.masters(&behind);
            loads = ports.iter().map(|port| Load::start(&Address::Tcp(*port), 1, 0)).collect();
        }
        // The deploy has ended at web3: there, and behind its batch, the same masters serve.
        if command.contains("curl") && deploys == 3 {
            assert_eq!(all.masters(&behind), untouched);
        }
        // Nothing was upgraded when nothing was newer, nor by looking at what would be.
        if is_deploy && deploys == 2 || command.ends_with("state.apply services test=True") && deploys == 4 {
            applied = all.masters(&HOSTS);
        }
        if command.contains("runsmith.diff") || command.contains("printf") && deploys == 2 {
            assert_eq!(all.masters(&HOSTS), applied);
            if deploys == 4 {
                let config =
                    fs::read_to_string(all.path().join("web1/www/shared/runsmith/gunicorn.py")).unwrap();
                assert!(config.contains("workers = 2\n"), "test=True wrote something");
            }
        }
        // Two at a time, every host has got what it needs: another generation.
        if command.contains("runsmith.status") {
            let now = all.masters(&HOSTS);
            assert!(now.iter().zip(&applied).all(|(new, old)| new != old), "{now:?} {applied:?}");
        }
        if command.contains("state.apply away") {
            for load in loads.drain(..) {
                let seen = load.finish();
                assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
                assert!(seen.answers.len() > 200, "only {} requests", seen.answers.len());
                let mut versions: Vec<_> = seen.answers.iter().map(|one| one.version.as_str()).collect();
                // Who asked first need not be answered first.
                versions.sort_unstable();
                versions.dedup();
                assert_eq!(versions, ["1", "2"]);
            }
            // No secret in what the master keeps of jobs, nor in any log.
            for kept in ["master", "web1", "web3"] {
                for (path, ..) in listing(&all.path().join(kept).join("var")) {
                    // The master keeps minions' pillars, so that it can target by them: that is where they are from.
                    if path
                        .components()
                        .any(|one| one.as_os_str() == "minions" || one.as_os_str() == "pillar")
                    {
                        continue;
                    }
                    let bytes = fs::read(&path).unwrap_or_default();
                    let found = bytes.windows(15).any(|part| part == b"not-for-anybody");
                    assert!(!found, "{} has a secret", path.display());
                }
            }
        }
    };
    let page = include_str!("../docs/salt.md");
    let shell = || command(all.venv, "sh", all.path());
    let commands = follow(page, &names, all.path(), &shell, &mut before);
    assert!(commands > 30 && deploys == 4, "{commands} commands, {deploys} deploys");
    assert_eq!(all.user.processes().len(), 0, "left behind");
    for host in HOSTS {
        assert!(!all.directory(host).exists());
        assert!(
            all.path().join(host).join("www/releases/2/wsgi.py").exists(),
            "releases are nobody's to remove"
        );
    }
}

#[test]
fn the_page_leads_from_nothing_to_a_rolling_deploy_by_the_newest() {
    the_page_leads_from_nothing_to_a_rolling_deploy("salt");
}

#[test]
fn the_page_leads_from_nothing_to_a_rolling_deploy_by_the_one_with_long_term_support() {
    the_page_leads_from_nothing_to_a_rolling_deploy("salt_lts");
}
