//! Values of gunicorn's settings, in the pillar, among the words of the command and in GUNICORN_CMD_ARGS: what `validate`
//! finds wrong the installed gunicorn ends at, and what gunicorn serves with is let pass.

#![allow(clippy::disallowed_methods, reason = "a test is an effect")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Settings and values that each is tried with.
fn settings() -> Vec<(&'static str, Vec<Value>)> {
    let networks = || {
        [
            "*",
            " *",
            "",
            "127.0.0.1",
            "10.0.0.1, ",
            "10.0.0.1, *",
            "10.0.0.0/8",
            "10.0.0.1/8",
            "10.0.0.1,,::1",
            "10.0.0.1, ,::1",
            "fe80::1%eth0",
            "fe80::1%eth0/64",
            "fe80::%eth0/64",
            "::/0",
            "::1/129",
            "localhost",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/0.255.255.255",
            "10.0.0.0/255.0.255.0",
            "10.0.0.0/+8",
            "01.2.3.4",
            "1.2.3",
            "10.0.0.0/08",
            "::1%",
            "::ffff:1.2.3.4",
            "1.2.3.4/0",
            "0.0.0.0/0",
            "10.0.0.0/0.0.0.0",
            "10.0.0.0/255.255.255.255",
        ]
        .into_iter()
        .map(Value::from)
        .collect()
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    vec![
        ("forwarded_allow_ips", networks()),
        ("proxy_allow_ips", networks()),
        ("uwsgi_allow_ips", networks()),
        ("http_protocols", texts(&["h1", "H1", "h1, ", "", ",", "x", "h1,h1", "h1 h1", "h3", "h1,H1"])),
        (
            "statsd_host",
            texts(&[
                "127.0.0.1:8125",
                "localhost",
                "unix:/run/x",
                "unix:///run/x",
                "unix:8125",
                "unix:",
                "[::1]",
                "[::1]:8125",
                "[::1]:x",
                "::1",
                "tcp://h",
                "tcp://h:1",
                "tcp://h:x",
                "udp://h:8125",
                "h:udp",
                "h:",
                "fd://x",
                "fd://-",
                "",
                "h:1:2",
                "h:1:x",
                "http://h",
            ]),
        ),
        ("loglevel", texts(&["info", "INFO", "Warning", "debug", "CRITICAL"])),
        ("header_map", texts(&["drop", "DROP", "Refuse", "dangerous", "x", ""])),
        ("http_parser", texts(&["auto", "python", "PYTHON", "x"])),
        ("asgi_loop", texts(&["auto", "AUTO", "asyncio", "x"])),
        ("asgi_lifespan", [texts(&["auto", "on", "OFF", "x"]), vec![json!(true)]].concat()),
        ("reload_engine", texts(&["auto", "poll", "AUTO", "x", ""])),
        (
            "proxy_protocol",
            [
                texts(&["off", "v1", "V1", "v2", "auto", "true", "FALSE", "1", "0", "none", "v3", "x"]),
                vec![json!(true), json!(false), json!(1)],
            ]
            .concat(),
        ),
        (
            "http2_cleartext",
            [
                texts(&["off", "OFF", "both", "upgrade", "Prior-knowledge", "true", "x"]),
                vec![json!(true), json!(false)],
            ]
            .concat(),
        ),
        (
            "reload_extra_files",
            vec![
                json!(""),
                json!("/"),
                json!(["/"]),
                json!([""]),
                json!([]),
                json!("/no-such-*"),
                json!([1]),
            ],
        ),
        ("raw_paste_global_conf", vec![json!("a=b"), json!(["a=b"]), json!("x")]),
        ("dirty_apps", vec![json!("a:B"), json!(["a:B", "c:D:2"]), json!("a")]),
        (
            "worker_class",
            texts(&[
                "sync",
                "gthread",
                "asgi",
                "#sync",
                "gunicorn.workers.sync.SyncWorker",
                "gunicorn.workers.gthread.ThreadWorker",
                "gunicorn.workers.gasgi.ASGIWorker",
                "gunicorn.workers.sync",
                "gunicorn.workers.sync:SyncWorker",
                "egg:gunicorn#sync",
                "egg:",
                "egg:gunicorn",
                ".sync",
                "sync.",
                "a..b",
                "gunicorn.workers.base.Worker",
                "gunicorn.workers.sync.Syncworker",
                "Sync",
                "eventlet",
                "gaiohttp",
                "gunicorn.workers.geventlet.EventletWorker",
                "gthred",
                "sync worker",
                "a-b.C",
            ]),
        ),
        (
            "logger_class",
            texts(&[
                "simple",
                "gunicorn.glogging.Logger",
                "gunicorn.instrument.statsd.Statsd",
                "x",
                "statsd",
                "egg:",
                "egg:gunicorn#simple",
                "gunicorn.glogging:Logger",
                "gunicorn.glogging",
                "gunicorn.glogging.Log",
                ".Logger",
            ]),
        ),
        (
            "access_log_format",
            texts(&[
                "",
                "%(h)s",
                "%(h)s %%",
                "100%",
                "%(h)",
                "%(D)d",
                "%(h)z",
                "%h",
                "%({x-request-id}i)s",
                "%(a(b)c)s",
                "%(h)-10s %(s)5.5s",
                "%s",
                "%(h)r %(h)a",
                "%(T)s/%(D)s",
                "%",
                "%(h",
                "%(h)ls",
                "%d",
                "%(B)x",
                "%(B)o %(D)x %(M)i %(T).2f",
                "%(s)d",
                "%({host}i)d",
            ]),
        ),
        (
            "logconfig_dict",
            vec![
                json!({}),
                json!({"version": 1}),
                json!({"version": 2}),
                json!({"root": {"level": "INFO", "handlers": ["console"]}}),
                json!({"root": {"level": "INFO", "handlers": ["nowhere"]}}),
                json!({"handlers": {"mine": {"class": "logging.NullHandler"}}}),
                json!({"handlers": {"mine": {"class": "logging.NullHandler"}}, "root": {"handlers": ["mine"]}, "loggers": {}}),
                json!({"handlers": {"mine": {"class": "logging.NullHandler"}}, "root": {"handlers": ["mine"]}}),
                json!({"handlers": {"console": {"class": "logging.StreamHandler"}, "error_console": {"class": "logging.StreamHandler"}}}),
                json!({"loggers": {"shop": {"handlers": ["console"], "level": "DEBUG"}}}),
                json!({"loggers": {"shop": {"handlers": ["x"]}}}),
                json!({"handlers": []}),
                json!({"loggers": {"x": {"level": "bogus"}}}),
                json!({"loggers": {"x": {"level": "WARN"}}}),
                json!({"root": {"level": "info", "handlers": ["console"]}}),
                json!({"formatters": {"g": {"style": "q", "format": "x"}}}),
                json!({"incremental": true}),
                json!({"incremental": true, "handlers": {}}),
                json!({"filters": {"f": {"name": "x"}}, "loggers": {"x": {"filters": ["f"]}}}),
                json!({"loggers": {"x": {"filters": ["f"]}}}),
                json!({"formatters": {"mine": {"format": "%(message)s"}}, "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "mine"}, "error_console": {"class": "logging.StreamHandler", "formatter": "mine"}}}),
                json!({"handlers": {"console": {"class": "logging.StreamHandler", "formatter": "mine"}, "error_console": {"class": "logging.StreamHandler"}}}),
            ],
        ),
        (
            "backlog",
            vec![
                json!(0),
                json!(64),
                json!(2_147_483_647_i64),
                json!(2_147_483_648_i64),
                json!(-1),
                json!("64"),
            ],
        ),
        ("worker_connections", vec![json!(1), json!(1_000_000_000_000_i64), json!(-1)]),
        ("timeout", vec![json!(0), json!(1), json!(-1), json!("x"), json!(1.5)]),
        ("preload_app", vec![json!(true), json!(null), json!("x"), json!(1)]),
        ("cert_reqs", vec![json!(0), json!(2)]),
        ("keepalive", vec![json!(0), json!(86_400)]),
        ("errorlog", texts(&["-", ""])),
        ("proc_name", texts(&["x", ""])),
        ("control_socket_mode", vec![json!(384), json!(-1)]),
    ]
}

/// Words among which the options are tried, in the command and in GUNICORN_CMD_ARGS.
const WORDS: &[&[&str]] = &[
    &[],
    &["-w", "2"],
    &["-w2"],
    &["-w=2"],
    &["-w", "x"],
    &["-w", "-1"],
    &["-w", "1e3"],
    &["-w", "+2"],
    &["-w", "1_0"],
    &["-w", ""],
    &["--threads=x"],
    &["--threads", "4"],
    &["--thread=4"],
    &["-t", "1e3"],
    &["-t", "30"],
    &["--timeout=-1"],
    &["-k", "gthread"],
    &["-kgthread"],
    &["-k", "Sync"],
    &["-k", "eventlet"],
    &["-k", "gunicorn.workers.sync"],
    &["--worker-class=#sync"],
    &["--log-level", "INFO"],
    &["--proxy-protocol"],
    &["--proxy-protocol", "v1"],
    &["--proxy-protocol=x"],
    &["--proxy-protocol", "-R"],
    &["--http2-cleartext", "OFF"],
    &["--header-map", "x"],
    &["--preload"],
    &["--preload=1"],
    &["-R"],
    &["-RR"],
    &["-Rw2"],
    &["-Rx"],
    &["--no-sendfile"],
    &["--forwarded-allow-ips", "*"],
    &["--forwarded-allow-ips=10.0.0.1/8"],
    &["--forwarded-allow-ips", "x"],
    &["--backlog", "2147483648"],
    &["--backlog", "64"],
    &["--limit-request-line", "0"],
    &["--max-requests", "-1"],
    &["--max-requests"],
    &["--max-requests", "--reload"],
    &["--bogus"],
    &["--work", "2"],
    &["--worker", "2"],
    &["--log-file", "-"],
    &["--error-logfile="],
    &["--statsd-host", "h:x"],
    &["--statsd-host=h"],
    &["--access-logformat", "%(h)s %"],
    &["--reload-extra-file", "/"],
    &["--reload-extra-file="],
    &["--keep-alive", "5"],
    &["-v"],
    &["--help"],
    &["--version"],
    &["--log-syslog", "--log-syslog-to", "udp://127.0.0.1:514"],
    &["--log-syslog", "--log-syslog-to", "127.0.0.1:514"],
    &["--log-syslog", "--log-syslog-to", "udp://127.0.0.1:x"],
    &["--log-syslog-to", "127.0.0.1:514"],
    &["--dirty-workers", "1", "--dirty-app", "a"],
    &["--dirty-workers", "1", "--dirty-app", "a:B"],
    &["--dirty-workers", "1", "--dirty-app", "a:B:0"],
    &["--dirty-workers", "1", "--dirty-app", "a:B:x"],
    &["--http-protocols", "h1,h1"],
    &["--control-socket-mode", "0600"],
    &["--control-socket-mode", "0o600"],
    &["--control-socket-mode", "x"],
    &["--logger-class", "x"],
    &["--env", "A=B"],
    &["-n", "a b"],
    &["-n", "-x"],
    &["-n", "-1"],
    &["-n=-x"],
    &["--asgi-loop", "X"],
];

/// What the server loads; `wsgi` has `app`, `make`, which takes anything, and `none`.
const APPS: &[&str] = &[
    "wsgi:app",
    "wsgi:(app)",
    "wsgi:make()",
    "wsgi:make(1, 'a')",
    "wsgi:make(a=1)",
    "wsgi:make(a=b)",
    "wsgi:make(b)",
    "wsgi:make()()",
    "wsgi:a b",
    "wsgi:make(",
    "wsgi:make)",
    "wsgi:make(*[1])",
    "wsgi:make(**{'a': 1})",
    "wsgi:make([1, {'a': (2, None)}], True)",
    "wsgi:make(-1)",
    "wsgi:make(1+2j)",
    "wsgi:make(1+2)",
    "wsgi:make(b'x')",
    "wsgi:make(f'x')",
    "wsgi:make('a' 'b')",
    "wsgi:app.x",
    "wsgi:app[0]",
    "wsgi:1",
    "wsgi:",
    "wsgi:class",
    "wsgi:None",
    "wsgi:make(x for x in [])",
    "wsgi:make(print())",
    "wsgi:make(')')",
    "wsgi:make(\"(\")",
    "wsgi:make({1, 2})",
    "wsgi:make(set())",
    "wsgi:make ()",
    "wsgi: make()",
    "wsgi.py:app",
    "./wsgi:app",
    "wsgi:app:x",
    ":app",
    "wsgi:'app'",
    "wsgi:lambda: 1",
    "wsgi:make(a=1, a=2)",
    "wsgi:make(1,)",
    "wsgi:make(,)",
    "wsgi:make(...)",
    "wsgi:make(0x1f, 1_000, 1e3)",
    "wsgi:make(01)",
    "wsgi:make(a=1, 2)",
    "wsgi:(make)()",
    "wsgi:(make())",
    "wsgi:make(True, None)",
    "wsgi:make(not True)",
    "wsgi:await x",
    "wsgi:make(\n1)",
    "wsgi:((app))",
    "wsgi:make(())",
    "wsgi:make((1,), [], {}, {'a': 1, 'b': [2]})",
    "wsgi:make((,))",
    "wsgi:make({1: 2, 3})",
    "wsgi:make({'a'})",
    "wsgi:make('it\\'s', \"\"\"a\"b\"\"\", r'\\x', u'x', Rb'x')",
    "wsgi:make('a)",
    "wsgi:make(1.5, .5, 5., 1e-3, 0, 00, 0_0, 1j, -2-3j, +1, 0b1, 0o7)",
    "wsgi:make(--1)",
    "wsgi:make(1__0)",
    "wsgi:make(0x)",
    "wsgi:make(1.e)",
    "wsgi:make(1 2)",
    "wsgi:make(1j+1)",
    "wsgi:make(a='b', c=None,)",
    "wsgi:make(a=)",
    "wsgi:make(=1)",
    "wsgi:make('a' if True else 'b')",
    "wsgi:make(if=1)",
    "wsgi:make(ä=1)",
    "wsgi:make('ä')",
    "wsgi:make(1)x",
    "wsgi:make(1),",
    "wsgi:app,",
    "wsgi:make(1)(",
    "wsgi:make(1))",
    "wsgi:((app)",
];

/// What gunicorn serves with, and `validate` refuses all the same: how a case is called, and why.
const STRICTER: &[(&str, &str)] = &[
    ("backlog = \"64\"", "a number in quotes: the schema wants a number"),
    ("words [\"--env\", \"A=B\"]", "the pillar has `environment`"),
    ("variable [\"--env\", \"A=B\"]", "the pillar has `environment`"),
];

struct Case {
    name: String,
    gunicorn: Value,
    pillar: Value,
}

fn pillar() -> Value {
    json!({"application": "shop", "user": "deploy", "virtualenv_home": "/home/deploy"})
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (name, values) in settings() {
        for value in values {
            let mut settings = json!({name: value});
            // What makes gunicorn look at it.
            if name == "raw_paste_global_conf" || name == "dirty_apps" {
                continue;
            }
            if name == "reload_extra_files" {
                settings["reload"] = json!(true);
                settings["preload_app"] = json!(false);
            }
            let mut pillar = pillar();
            pillar["gunicorn"] = settings.clone();
            cases.push(Case {
                name: format!("{name} = {value}"),
                gunicorn: json!({"settings": settings}),
                pillar,
            });
        }
    }
    for words in WORDS {
        let mut command = vec!["gunicorn"];
        command.extend(*words);
        let mut by_command = pillar();
        by_command["unicorn_command"] = json!(command);
        cases.push(Case {
            name: format!("words {words:?}"),
            gunicorn: json!({"words": words}),
            pillar: by_command,
        });
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let variable = quoted.join(" ");
        let mut by_variable = pillar();
        by_variable["environment"] = json!({"GUNICORN_CMD_ARGS": variable});
        cases.push(Case {
            name: format!("variable {words:?}"),
            gunicorn: json!({"variable": variable}),
            pillar: by_variable,
        });
    }
    for app in APPS {
        let mut pillar = pillar();
        pillar["app"] = json!(app);
        cases.push(Case { name: format!("app {app}"), gunicorn: json!({"app": app}), pillar });
    }
    cases
}

fn python() -> PathBuf {
    let venvs =
        std::env::var_os("RUNSMITH_VENVS").map_or_else(|| "/var/lib/runsmith-test".into(), PathBuf::from);
    let python = venvs.join("gunicorn/bin/python");
    assert!(python.exists(), "no {}; run `scripts/setup test`", python.display());
    python
}

/// Why gunicorn would not serve, for each case.
fn ask(cases: &[Case], scratch: &Path) -> Vec<Option<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/values/gunicorn_verdict.py");
    let mut child = Command::new(python())
        .arg("-B")
        .arg(script)
        .arg(scratch)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut verdicts = vec![];
    for case in cases {
        writeln!(input, "{}", case.gunicorn).unwrap();
        let line = answers.next().unwrap_or_else(|| panic!("{}: no answer", case.name)).unwrap();
        verdicts.push(serde_json::from_str(&line).unwrap());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    verdicts
}

/// The errors that `validate` finds, by the file.
fn findings(cases: &[Case], scratch: &Path) -> BTreeMap<usize, Vec<String>> {
    for (index, case) in cases.iter().enumerate() {
        std::fs::write(scratch.join(format!("{index}.json")), case.pillar.to_string()).unwrap();
    }
    let files = (0..cases.len()).map(|index| format!("{index}.json"));
    let mut all = BTreeMap::new();
    for file in files {
        let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .current_dir(scratch)
            .args(["validate", "--format", "json", &file])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors = report["findings"].as_array().unwrap().iter().filter(|one| one["severity"] == "error");
        let told = errors
            .map(|one| format!("{}: {}", one["rule"].as_str().unwrap(), one["message"].as_str().unwrap()));
        all.insert(file.trim_end_matches(".json").parse().unwrap(), told.collect());
    }
    all
}

#[test]
fn what_gunicorn_ends_at_is_found_and_nothing_else() {
    let scratch = tempfile::Builder::new().prefix("rsg").tempdir().unwrap();
    let (pillars, server) = (scratch.path().join("pillars"), scratch.path().join("server"));
    std::fs::create_dir(&pillars).unwrap();
    std::fs::create_dir(&server).unwrap();
    let cases = cases();
    let verdicts = ask(&cases, &server);
    let found = findings(&cases, &pillars);
    let mut wrong = vec![];
    let mut stricter = vec![];
    for (index, (case, verdict)) in cases.iter().zip(verdicts).enumerate() {
        match (verdict, &found[&index][..]) {
            (Some(why), []) => wrong.push(format!("{}: nothing is found, and gunicorn: {why}", case.name)),
            (None, [_, ..]) if STRICTER.iter().any(|(name, _)| *name == case.name) => {
                stricter.push(case.name.as_str());
            }
            (None, [told, ..]) => wrong.push(format!("{}: gunicorn serves, and {told}", case.name)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let named: Vec<&str> = STRICTER.iter().map(|(name, _)| *name).collect();
    assert_eq!(stricter, named, "what is stricter than gunicorn");
}
