//! Values arrive as they are written, whatever characters they hold, or are refused with a reason.
//!
//! Random texts go through every key that ends in a shell script, a Python or Ruby configuration, an env file, a YAML
//! body or a path. `runsmith` puts the services on disk; then bash, sh, gunicorn's and unicorn's own loaders, PyYAML,
//! chpst and svlogd say what they find there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use runsmith::model::settings::{GUNICORN, Kind, Pillar, Setting, UNICORN};
use runsmith::source::{Source, SourceId};
use serde_json::{Value as Json, json};

/// How many times a tree with `SERVICES` services is rendered and read.
const BATCHES: u32 = 32;
/// Texts in one batch: somewhat more than the keys of its services, so that each key sees others each time.
const TEXTS: usize = 240;

/// gunicorn makes something else of these than a text (lists of networks, an address, files that must exist): for them
/// it is compared what its configuration file says.
const NOT_KEPT_AS_TEXT: [&str; 7] = [
    "forwarded_allow_ips",
    "forwarder_headers",
    "http_protocols",
    "proxy_allow_ips",
    "reload_extra_files",
    "statsd_host",
    "uwsgi_allow_ips",
];

/// What has a meaning in one of the languages, or does not show.
const PIECES: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\t",
    " ",
    "  ",
    "'",
    "\"",
    "'''",
    "\"\"\"",
    "\\",
    "\\\\",
    "\\n",
    "\\'",
    "\\0",
    "\\x41",
    "$(touch runsmith_canary)",
    "`touch runsmith_canary`",
    "\ntouch runsmith_canary\n",
    "';touch runsmith_canary;'",
    "#{`touch runsmith_canary`}",
    "\nimport os; os.system('touch runsmith_canary')\n",
    "\")\n`touch runsmith_canary`\n(\"",
    "$HOME",
    "${HOME}",
    "$'\\n'",
    "$",
    "#",
    "#$0",
    "#@a",
    "#{1 + 1}",
    " #",
    "%",
    "%s",
    "%(x)s",
    "%{x}",
    "!",
    "!!",
    "!ruby/object:X",
    "-",
    "--",
    "-n",
    "-e",
    "~",
    "~root",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "{}",
    "[]",
    "{{ x }}",
    "{% x %}",
    "{#",
    ";",
    "&",
    "|",
    "<",
    ">",
    "(",
    ")",
    "=",
    ":",
    ": ",
    ",",
    "@",
    "^",
    "null",
    "true",
    "no",
    "off",
    "0o17",
    "0x1f",
    "1_000",
    "1:30",
    "1e3",
    ".inf",
    "2001-01-01",
    "<<",
    "---",
    "...",
    "\n---\n",
    "\n...\n",
    "coding=utf-7",
    "-*- coding: latin-1 -*-",
    "+ACI-",
    "EOF",
    "unix:",
    "..",
    "é",
    "e\u{301}",
    "ß",
    "漢字",
    "😀",
    "👩\u{200d}💻",
    "\u{1f1e6}",
    "\u{202e}",
    "\u{200f}",
    "\u{2066}",
    "\u{feff}",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{3000}",
    "\u{ad}",
    "\u{1}",
    "\u{7}",
    "\u{8}",
    "\u{b}",
    "\u{c}",
    "\u{1a}",
    "\u{1b}[31m",
    "\u{1c}",
    "\u{1f}",
    "\u{7f}",
    "\u{80}",
    "\u{9f}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{1fffe}",
    "\u{e0001}",
    "\u{10ffff}",
    "a",
    "Z",
    "0",
    "x y",
];

/// A text without NUL, which nothing takes; seldom a very long one.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..8).prop_map(|pieces| pieces.concat());
    let any = any::<String>().prop_map(|text| text.replace('\0', "\u{1}"));
    let long = (prop::sample::select(PIECES), 1000..9000usize)
        // Long, and still what the kernel takes for one argument: 131,071 bytes.
        .prop_map(|(piece, times)| piece.repeat(times.min(100_000 / piece.len().max(1))));
    prop_oneof![60 => pieces, 40 => any, 1 => long]
}

/// The texts of a batch, one after the other.
struct Texts {
    texts: Vec<String>,
    next: usize,
}

impl Texts {
    fn any(&mut self) -> String {
        self.next += 1;
        self.texts[(self.next - 1) % self.texts.len()].clone()
    }

    fn filled(&mut self) -> String {
        let text = self.any();
        if text.is_empty() { "-".to_owned() } else { text }
    }

    /// Without the blanks at both ends that Python's `str.strip` would drop.
    fn stripped(&mut self) -> String {
        self.any().trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)).to_owned()
    }

    /// One step of a path.
    fn step(&mut self) -> String {
        let step = cut(&self.any().replace('/', "\\"), 255);
        if matches!(step.as_str(), "" | "." | "..") { "~".to_owned() } else { step }
    }

    fn path(&mut self, below: &str) -> String {
        format!("{below}/{}/{}", self.step(), self.step())
    }

    /// What both servers take as the path of a Unix socket.
    fn socket(&mut self, below: &str) -> String {
        let name =
            self.any().replace('/', "\\").replace(|c: char| c.is_control(), "^").replace("unix:", "unix;");
        let name = cut(&name, 106 - below.len());
        let name = name.trim_end();
        format!("unix:{below}/{}", if matches!(name, "" | "." | "..") { "~" } else { name })
    }
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// A service of a batch: what its pillar says.
struct Service {
    name: &'static str,
    unicorn: bool,
    shell: bool,
    command: Vec<String>,
    pillar: Json,
    scratch: String,
}

impl Service {
    fn said(&self, pointer: &str) -> &str {
        self.pillar.pointer(pointer).and_then(Json::as_str).unwrap_or_else(|| panic!("no {pointer}"))
    }

    fn variables(&self, section: &str) -> BTreeMap<String, String> {
        self.pillar[section]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
            .collect()
    }

    fn directory(&self) -> String {
        format!("{}/{}", self.said("/service/directory"), self.name)
    }

    fn config(&self) -> Option<String> {
        let name = match (self.pillar["server"].as_str(), self.unicorn) {
            (Some("any"), _) => return None,
            (_, true) => "unicorn.rb",
            (_, false) => "gunicorn.py",
        };
        Some(format!("{}/{name}", self.said("/layout/config")))
    }

    /// The words that are executed.
    fn words(&self) -> Vec<String> {
        let mut words = self.command.clone();
        if let Some(config) = self.config() {
            // unicorn's own default is `development`.
            if self.unicorn && !self.variables("environment").iter().any(|(name, _)| name == "RACK_ENV") {
                words.extend(["-E".into(), "production".into()]);
            }
            words.extend(["-c".into(), config, "--".into(), self.said("/app").into()]);
        }
        words
    }
}

fn settings(table: &[Setting], texts: &mut Texts, scratch: &str) -> Json {
    let mut settings = serde_json::Map::new();
    for setting in table {
        if setting.pillar != Pillar::Allowed || setting.choices.is_some() {
            continue;
        }
        let mut one = || if setting.strips { texts.stripped() } else { texts.any() };
        let least = usize::try_from(setting.min_length.unwrap_or(0)).unwrap();
        let value = match setting.kind {
            // unicorn's are paths, which it makes absolute.
            Kind::String if setting.name.starts_with("std") => json!(texts.path(scratch)),
            Kind::String => {
                json!(std::iter::repeat_with(one).find(|text| text.chars().count() >= least))
            }
            Kind::StringList => {
                let fits = |text: &String| text.chars().count() >= least;
                let two: Vec<String> = std::iter::repeat_with(one).filter(fits).take(2).collect();
                json!(two)
            }
            Kind::Map if setting.values.as_deref() == Some("string") => json!({one(): one(), one(): one()}),
            Kind::Map => json!({one(): [one(), {one(): one(), "n": null, "t": true, "i": -1}]}),
            Kind::Boolean | Kind::Integer | Kind::Hook => continue,
        };
        settings.insert(setting.name.clone(), value);
    }
    settings.into()
}

fn service(name: &'static str, texts: &mut Texts, scratch: &Path) -> Service {
    let shell = name.starts_with("shell");
    let unicorn = name.ends_with("-unicorn");
    let server = name.rsplit('-').next().unwrap();
    let show = scratch.join("show");
    let scratch = scratch.join(name);
    let scratch = scratch.to_str().unwrap();
    // Words of ours between the program and its `-c` would be options of the server.
    let command: Vec<String> = if server == "any" {
        (0..5).map(|_| texts.filled()).collect()
    } else {
        // What begins like a variable or a word of the shell is refused (rule `command-option`).
        vec![if shell { format!("~{}", texts.filled()) } else { format!("/{}", texts.filled()) }]
    };
    let virtualenv = texts.path("/srv").replace(':', ";");
    // gunicorn's is a module and what is in it, of which only a literal among the arguments may be anything (rule `app`).
    let literal = |text: String| text.replace('\\', r"\\").replace('"', "\\\"");
    let app = if server == "gunicorn" {
        format!("a:b(\"\"\"{}\"\"\")", literal(texts.any()))
    } else {
        // unicorn's is a rackup file by its name.
        format!("{}.ru", texts.stripped())
    };
    let secret = |texts: &mut Texts| {
        let value = texts.any();
        // A shell run script's secrets are read by chpst, which drops these: refused, see below.
        let value = if shell { value.trim_end_matches([' ', '\t']).to_owned() } else { value };
        // A secret without a value is refused (rule `empty-secret`).
        if value.is_empty() { "x".to_owned() } else { value }
    };
    let root = texts.path(scratch);
    // Two trees that random names cannot lead into each other.
    let below = |part: &str| format!("{scratch}/{part}");
    let pillar = json!({
        "user": "nobody",
        "group": "nogroup",
        "server": server,
        "run_script": if shell { "shell" } else { "native" },
        "unicorn_command": command,
        "app": app,
        "home": texts.path("/home"),
        "virtualenv": virtualenv,
        "root": root,
        "bind": [texts.socket("/s"), {"address": texts.socket("/t"), "mode": "0660"}, "127.0.0.1:8000"],
        "environment": {"_": texts.any(), "A": texts.any(), "B": texts.any(), "LANG": texts.any(), "LONG_NAME_9": texts.any()},
        "secrets": {"API_TOKEN": secret(texts), "DATABASE_URL": secret(texts), "S": secret(texts)},
        "layout": {
            // Relative: below root.
            "releases": format!("releases/{}", texts.step()),
            "pids": texts.path(&below("pids")),
            "logs": {"path": texts.path(&below("logs")), "mode": "0750"},
            "sockets": texts.path(&below("sockets")),
            "config": texts.path(&below("config")),
            "run": texts.path("/run"),
        },
        "service": {
            "directory": texts.path(&below("sv")),
            "link": texts.path(&below("service")),
            // It shows what it is called with.
            "runtime": show,
        },
        "log": {
            "directory": texts.path(&below("log")),
            "size": 2048,
            "processor": ["printf", "%s\\0", texts.filled().replace('\n', " "), texts.filled().replace('\n', " ")],
        },
        "gunicorn": settings(&GUNICORN.settings, texts, scratch),
        "unicorn": settings(&UNICORN.settings, texts, &below("out")),
    });
    Service { name, unicorn, shell, command, pillar, scratch: scratch.to_owned() }
}

/// A program that answers each line of JSON with one.
struct Reader {
    name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Reader {
    fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("{name} cannot be started ({error}); run `scripts/setup test`")
            });
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { name, child, to, from }
    }

    fn ask(&mut self, question: &Json) -> Json {
        let mut answer = String::new();
        writeln!(self.to, "{question}").unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.from.read_line(&mut answer).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let answer: Json = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{} about {question}: {error}", self.name));
        assert_eq!(answer.get("problem"), None, "{} about {question}", self.name);
        answer
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/values").join(file)
}

fn python(venv: &str, script: &str) -> Reader {
    let venvs =
        std::env::var_os("RUNSMITH_VENVS").map_or_else(|| "/var/lib/runsmith-test".into(), PathBuf::from);
    let python = venvs.join(venv).join("bin/python");
    assert!(python.exists(), "no {}; run `scripts/setup test`", python.display());
    // As under runit: no locale.
    Reader::start(Command::new(python).arg("-B").arg(here(script)).env("LC_ALL", "C"))
}

fn ruby(locale: &str) -> Reader {
    Reader::start(Command::new("ruby").arg(here("unicorn_reader.rb")).env("LC_ALL", locale))
}

struct Readers {
    gunicorn: Reader,
    unicorn: [Reader; 2],
    yaml: Reader,
}

/// A directory that every user may enter; gone when the test is over.
fn scratch() -> tempfile::TempDir {
    assert!(
        rustix::process::geteuid().is_root(),
        "owners are set and users are changed here: this test needs root"
    );
    let scratch = tempfile::Builder::new().prefix("rsv").tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    scratch
}

fn output(command: &mut Command) -> Vec<u8> {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `scripts/setup test`"));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The texts before each NUL.
fn parts(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut parts: Vec<String> = text.split('\0').map(str::to_owned).collect();
    assert_eq!(parts.pop().as_deref(), Some(""), "a NUL at the end");
    parts
}

fn render(pillar: &Json, arguments: &[&str]) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        // Whatever the texts are like, the files are made.
        .args(["render", "-", "--input-format", "json", "--allow", "all"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = pillar.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

#[test]
fn every_text_arrives() {
    let mut readers = Readers {
        gunicorn: python("gunicorn", "gunicorn_reader.py"),
        unicorn: [ruby("C"), ruby("C.UTF-8")],
        yaml: python("bench", "yaml_reader.py"),
    };
    // A batch that fails names the key and the text; smaller batches would not tell more.
    let config =
        Config { cases: BATCHES, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let readers = std::cell::RefCell::new(&mut readers);
    let arrived = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&prop::collection::vec(text(), TEXTS), |texts| {
        arrived.set(arrived.get() + batch(Texts { texts, next: 0 }, &mut readers.borrow_mut()));
        Ok(())
    });
    match result {
        Ok(()) => println!("{} texts arrived", arrived.get()),
        // Not all the texts of the batch.
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

const SERVICES: [&str; 5] =
    ["shell-gunicorn", "shell-unicorn", "native-gunicorn", "native-unicorn", "native-any"];

/// Says how many texts were in it.
fn batch(mut texts: Texts, readers: &mut Readers) -> usize {
    let scratch = scratch();
    let show = scratch.path().join("show");
    fs::write(&show, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
    fs::set_permissions(&show, fs::Permissions::from_mode(0o755)).unwrap();
    // It stands in a comment at the top of each file, where Python and Ruby look for an encoding.
    let key = format!("coding=latin-1 {}", texts.any().replace(':', "\u{2236}"));
    let key = cut(&key, 2000);
    let services = SERVICES.map(|name| service(name, &mut texts, scratch.path()));
    let applications: serde_json::Map<_, _> =
        services.iter().map(|service| (service.name.to_owned(), service.pillar.clone())).collect();
    let output = render(
        &json!({ key.clone(): {"applications": applications} }),
        &[&format!("--key={key}"), "--out=/", "--no-sync"],
    );
    assert!(
        output.status.success(),
        "{}\n{:#}",
        String::from_utf8_lossy(&output.stderr),
        json!(applications)
    );
    for service in &services {
        paths(service);
        log(service);
        secrets(service);
        match (service.config(), service.unicorn) {
            (None, _) => {}
            (Some(config), false) => gunicorn(service, &config, &mut readers.gunicorn),
            (Some(config), true) => {
                for reader in &mut readers.unicorn {
                    unicorn(service, &config, reader);
                }
            }
        }
        if service.shell { shell(service) } else { native(service, &mut readers.yaml) }
    }
    for name in SERVICES {
        // What `--out=/` wrote down.
        let _ = fs::remove_file(Path::new("/var/lib/runsmith/services").join(name));
    }
    let mut ran = vec![];
    find("runsmith_canary", scratch.path(), &mut ran);
    ran.extend(Path::new("runsmith_canary").exists().then(|| "runsmith_canary".into()));
    assert_eq!(ran, Vec::<PathBuf>::new(), "nothing of a pillar is run");
    texts.next
}

fn find(name: &str, directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            find(name, &entry.path(), found);
        }
    }
}

/// The tree itself.
fn paths(service: &Service) {
    let at = service.directory();
    let link = format!("{}/{}", service.said("/service/link"), service.name);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&at), "service.directory and service.link");
    let releases = format!("{}/{}", service.said("/root"), service.said("/layout/releases"));
    for directory in [
        &*releases,
        service.said("/layout/pids"),
        service.said("/layout/logs/path"),
        service.said("/layout/sockets"),
        service.said("/layout/config"),
        service.said("/log/directory"),
    ] {
        assert!(Path::new(directory).is_dir(), "no directory {directory:?}");
    }
}

/// The log service: executed, with the real chpst and svlogd, which rotates and runs the processor.
fn log(service: &Service) {
    let directory = service.said("/log/directory");
    let lines = format!("{}\n", "x".repeat(99)).repeat(30);
    let mut child = Command::new("timeout")
        .args(["120", "sh"])
        .arg(format!("{}/log/run", service.directory()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("timeout");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).expect("svlogd reads");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "svlogd in {directory:?}: {}", String::from_utf8_lossy(&output.stdout));
    let old = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(".s"));
    let old = old.unwrap_or_else(|| panic!("svlogd has not rotated in {directory:?}"));
    let want = [service.said("/log/processor/2"), service.said("/log/processor/3")];
    assert_eq!(parts(&fs::read(old).unwrap()), want, "log.processor");
}

/// The env files, as chpst reads them; where a value ends in a blank, which chpst drops, as they are defined: the first
/// line, a NUL in it standing for a newline.
fn secrets(service: &Service) {
    let directory = format!("{}/env", service.directory());
    let listed = output(Command::new("chpst").args(["-e", &directory, "/usr/bin/env", "-0"]).env_clear());
    let listed = parts(&listed);
    for (name, value) in service.variables("secrets") {
        if value.ends_with([' ', '\t']) {
            let content = fs::read_to_string(format!("{directory}/{name}")).unwrap();
            assert_eq!(content.split('\n').next().unwrap().replace('\0', "\n"), value, "secrets.{name}");
        } else {
            let entry = format!("{name}={value}");
            assert!(
                listed.contains(&entry),
                "{}: secrets.{name}: {entry:?} is not in {listed:?}",
                service.name
            );
        }
    }
}

fn gunicorn(service: &Service, config: &str, reader: &mut Reader) {
    let words = service.words();
    let seen = reader.ask(&json!(words[service.command.len()..]));
    let about = |name: &str| format!("{}: {name}", service.name);
    assert_eq!(seen["config"], json!(config), "{}", about("the path of the configuration"));
    assert_eq!(seen["app"], json!([service.said("/app")]), "{}", about("app"));
    let binds = [service.said("/bind/0"), service.said("/bind/1/address"), service.said("/bind/2")];
    assert_eq!(seen["kept"]["bind"], json!(binds), "{}", about("bind"));
    let unix = |bind: &str| json!(bind.strip_prefix("unix:").unwrap());
    assert_eq!(
        seen["addresses"],
        json!([unix(binds[0]), unix(binds[1]), ["127.0.0.1", 8000]]),
        "{}",
        about("bind")
    );
    for (name, value) in service.pillar["gunicorn"].as_object().unwrap() {
        assert_eq!(&seen["said"][name], value, "{}", about(name));
        if !NOT_KEPT_AS_TEXT.contains(&name.as_str()) {
            assert_eq!(&seen["kept"][name], value, "{}", about(name));
        }
    }
    if service.shell {
        assert_eq!(seen["current"], json!(format!("{}/current", service.said("/root"))), "{}", about("root"));
        let file = format!("{}/gunicorn.pid", service.said("/layout/pids"));
        assert_eq!(seen["kept"]["pidfile"], json!(file), "{}", about("layout.pids"));
    }
}

fn unicorn(service: &Service, config: &str, reader: &mut Reader) {
    let about = |name: &str| format!("{}: {name}, read by {}", service.name, reader.name);
    let about: BTreeMap<&str, String> =
        ["bind", "root", "layout.pids", "settings"].map(|name| (name, about(name))).into();
    // unicorn enters its working directory and looks whether its files can be written.
    let current = format!("{}/current", service.said("/root"));
    fs::create_dir_all(&current).unwrap();
    for name in ["/unicorn/stdout_path", "/unicorn/stderr_path"] {
        fs::create_dir_all(Path::new(service.said(name)).parent().unwrap()).unwrap();
    }
    let seen = reader.ask(&json!(config));
    let unix = |bind: &str| bind.strip_prefix("unix:").unwrap().to_owned();
    let binds = json!([
        unix(service.said("/bind/0")),
        unix(service.said("/bind/1/address")),
        service.said("/bind/2")
    ]);
    assert_eq!(seen["listeners"], binds, "{}", about["bind"]);
    assert_eq!(seen["current"], json!(current), "{}", about["root"]);
    for (name, value) in service.pillar["unicorn"].as_object().unwrap() {
        assert_eq!(&seen["kept"][name], value, "{}: {name}", about["settings"]);
    }
    if service.shell {
        let file = format!("{}/unicorn.pid", service.said("/layout/pids"));
        assert_eq!(seen["kept"]["pid"], json!(file), "{}", about["layout.pids"]);
    }
}

/// The shell run script's assignments, executed by bash.
fn shell(service: &Service) {
    let script = fs::read_to_string(format!("{}/run", service.directory())).unwrap();
    let (own, _) =
        script.rsplit_once("# From here on the text is the same").expect("the end of the assignments");
    let file = format!("{}/assignments", service.scratch);
    fs::write(&file, own).unwrap();
    // As under runit, and with a locale.
    for locale in ["C", "C.UTF-8"] {
        let read = output(
            Command::new("bash").arg(here("bash_reader.sh")).arg(&file).env_clear().env("LC_ALL", locale),
        );
        let mut read = parts(&read).into_iter();
        let virtualenv = service.said("/virtualenv");
        let config = service.config().unwrap();
        let (path, current) = (
            format!("{virtualenv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            format!("{}/current", service.said("/root")),
        );
        let stem = if service.unicorn { "unicorn" } else { "gunicorn" };
        let pid_file = format!("{}/{stem}.pid", service.said("/layout/pids"));
        for (name, want) in [
            ("home", service.said("/home")),
            ("virtualenv", virtualenv),
            ("virtualenv in PATH", &path),
            ("root", &current),
            ("layout.config", &config),
            ("layout.pids", &pid_file),
            ("layout.run", service.said("/layout/run")),
        ] {
            assert_eq!(read.next().as_deref(), Some(want), "{}: {name}", service.name);
        }
        let binds = ["/bind/0", "/bind/1/address", "/bind/2"].map(|bind| service.said(bind).to_owned());
        let environment =
            service.variables("environment").into_iter().map(|(name, value)| format!("{name}={value}"));
        for (name, want) in [
            ("unicorn_command and app", service.words()),
            ("bind", binds.to_vec()),
            ("environment", environment.collect()),
        ] {
            let count: usize = read.next().unwrap().parse().unwrap();
            assert_eq!(read.by_ref().take(count).collect::<Vec<_>>(), want, "{}: {name}", service.name);
        }
        assert_eq!(read.next(), None);
    }
}

/// The native run script: read by runsmith and by PyYAML; and its check, executed by sh.
fn native(service: &Service, reader: &mut Reader) {
    let run = format!("{}/run", service.directory());
    let checked = Command::new(env!("CARGO_BIN_EXE_runsmith")).args(["run", "--check", "--", &run]).output();
    let checked = checked.expect("runsmith");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // The host need not know the user.
    assert!(checked.status.success() || said.contains("there is no such user on this host"), "{run}: {said}");
    let source = Source::new("run", fs::read_to_string(&run).unwrap());
    let ours = runsmith::services::rendered(&source, SourceId(0)).expect("a run script");
    let ours = serde_json::to_value(ours).unwrap();
    let theirs = reader.ask(&json!(run));
    for (name, seen) in
        [("runsmith", &ours), ("PyYAML in Python", &theirs["python"]), ("PyYAML in C", &theirs["c"])]
    {
        let about = |key: &str| format!("{}: {key}, read by {name}", service.name);
        for key in ["app", "home", "virtualenv", "root", "environment"] {
            assert_eq!(seen[key], service.pillar[key], "{}", about(key));
        }
        assert_eq!(seen["command"], json!(service.words()), "{}", about("unicorn_command"));
        for (index, bind) in ["/bind/0", "/bind/1/address", "/bind/2"].iter().enumerate() {
            assert_eq!(seen["bind"][index]["address"], service.said(bind), "{}", about("bind"));
        }
        for pointer in ["/layout/pids/path", "/layout/sockets/path"] {
            let said = pointer.trim_end_matches("/path");
            assert_eq!(seen.pointer(pointer).unwrap(), service.said(said), "{}", about(pointer));
        }
        for pointer in ["/layout/run", "/log/directory"] {
            assert_eq!(seen.pointer(pointer).unwrap(), service.said(pointer), "{}", about(pointer));
        }
        assert_eq!(
            seen["service"]["directory"],
            json!(service.directory()),
            "{}",
            about("service.directory")
        );
        assert_eq!(seen["secrets"], json!(["API_TOKEN", "DATABASE_URL", "S"]), "{}", about("secrets"));
        assert_eq!(seen, &ours, "read by {name}");
    }
    let check = output(Command::new("sh").arg(format!("{}/check", service.directory())));
    assert_eq!(parts(&check), ["status", "--quiet", &service.directory()], "the arguments of check");
}

/// A pillar with one more thing in it than a service needs.
fn with(pointer: &str, value: Json, base: &Json) -> Json {
    let mut pillar = base.clone();
    let mut place = &mut pillar;
    for step in pointer.split('/') {
        place = match place {
            Json::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            other => &mut other[step],
        };
    }
    *place = value;
    pillar
}

/// What is said about a pillar that is refused.
fn refusal(pillar: &Json) -> String {
    let output = render(pillar, &["--format=json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{pillar}\n{said}");
    assert!(output.stdout.is_empty(), "nothing is rendered of {pillar}");
    said
}

/// Every text of every key with a NUL in it, all at once: each is a finding.
#[test]
fn nul_is_refused_everywhere() {
    let scratch = Path::new("/scratch");
    for name in SERVICES {
        let mut texts = Texts { texts: vec!["x".into(), "y".into(), "z".into()], next: 0 };
        let mut pillar = service(name, &mut texts, scratch).pillar;
        pillar["application"] = json!(name);
        // A schema's pattern or choice hides nothing either.
        let mut places = vec![];
        spoil(&mut pillar, &mut vec![], &mut places);
        assert!(places.len() > 60, "{places:?}");
        let said = refusal(&pillar);
        for place in places {
            let finding = format!("error[nul]: `{place}` holds a NUL character");
            assert!(said.contains(&finding), "{name}: no {finding:?} in:\n{said}");
        }
    }
}

/// Puts a NUL into every text.
fn spoil(value: &mut Json, path: &mut Vec<String>, places: &mut Vec<String>) {
    match value {
        Json::String(text) => {
            text.push_str("\0x");
            places.push(path.join("."));
        }
        Json::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(index.to_string());
                spoil(item, path, places);
                path.pop();
            }
        }
        Json::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                spoil(item, path, places);
                path.pop();
            }
        }
        _ => {}
    }
}

/// What else cannot arrive exactly, and what is said about it.
#[test]
fn what_cannot_arrive_is_refused_with_the_reason() {
    let base = json!({
        "application": "a", "user": "u", "virtualenv": "/v", "run_script": "native", "bind": ["127.0.0.1:1"],
        "environment": {}, "secrets": {}, "gunicorn": {}, "layout": {}, "service": {}, "log": {},
    });
    let long = "x".repeat(131_072);
    let cases = [
        // NUL, in what is a name.
        ("environment/A\0B", json!("x"), "A\\0B"),
        // What names and patterns allow.
        ("environment/A=B", json!("x"), "A=B"),
        ("environment/1", json!("x"), "1"),
        ("environment/É", json!("x"), "É"),
        ("application", json!("../x"), "application"),
        ("application", json!("a\n"), "application"),
        ("user", json!("u\n"), "user"),
        ("user", json!("-u"), "user"),
        ("service/runtime", json!("/a b"), "service.runtime"),
        // A value that YAML's dialects spell differently.
        ("environment/A", json!(true), "environment.A"),
        ("environment/A", json!(1.5), "environment.A"),
        // What the kernel does not take.
        ("environment/A", json!(long), "more than 131071 bytes"),
        ("secrets/A", json!(long), "more than 131071 bytes"),
        ("app", json!(long), "more than 131071 bytes"),
        ("unicorn_command", json!(["gunicorn", long]), "more than 131071 bytes"),
        ("home", json!(format!("/{}", "x/".repeat(2100) + "x")), "the kernel takes 4095"),
        ("root", json!(format!("/{}", "x".repeat(256))), "file systems take 255"),
        ("bind/0", json!(format!("unix:/{}", "x".repeat(107))), "the kernel takes 107"),
        // A secret's name is that of a file.
        (&*format!("secrets/{}", "S".repeat(256)), json!("x"), "may have 255 bytes"),
        // Paths that lead elsewhere than they read, or are not paths.
        ("root", json!("/srv/../etc"), "\"..\" step"),
        ("root", json!("srv"), "begins with \"/\""),
        ("root", json!("/"), "\"/\" itself"),
        ("layout/pids", json!("../x"), "\"..\" step"),
        ("layout/logs", json!("a//b"), "empty step"),
        ("service/directory", json!("~/sv"), "begins with \"/\""),
        ("virtualenv", json!("/a:b"), "separates the directories of PATH"),
        // What the servers would make something else of.
        ("bind/0", json!("unix:/run/x "), "gunicorn drops the blank"),
        ("bind/0", json!("unix:/run/x\u{2003}"), "gunicorn drops the blank"),
        ("bind/0", json!("unix:/run/unix:x"), "gunicorn takes only what follows"),
        ("bind/0", json!("unix:/run/a\nb"), "control character"),
        ("bind/0", json!("unix:@x"), "abstract socket"),
        ("app", json!(" a"), "begins or ends with a blank"),
        ("gunicorn/accesslog", json!(" x"), "gunicorn.accesslog"),
        ("gunicorn/accesslog", json!("x\u{85}"), "gunicorn.accesslog"),
        ("gunicorn/accesslog", json!("x\u{1f}"), "gunicorn.accesslog"),
        ("gunicorn/dirty_apps", json!(["x "]), "gunicorn.dirty_apps"),
        ("gunicorn/no_such", json!("x"), "no_such"),
        ("gunicorn/post_fork", json!("x"), "nothing from a pillar is run as code"),
        // What has a meaning to a shell and none here.
        ("unicorn_command", json!("gunicorn 'a b'"), "no shell reads the command"),
        ("unicorn_command", json!("gunicorn $X"), "no shell reads the command"),
        ("unicorn_command", json!(["gunicorn", ""]), "unicorn_command"),
        // One line for it.
        ("log/processor", json!(["gzip", "a\nb"]), "one line"),
        // What the service sets by itself.
        ("environment/RUNSMITH_READY", json!("x"), "runsmith sets it itself"),
        ("environment/LISTEN_FDS", json!("3"), "which sockets it inherits"),
        ("secrets/PATH", json!("/bin"), "it is no secret"),
    ];
    for (pointer, value, reason) in cases {
        let said = refusal(&with(pointer, value, &base));
        assert!(said.contains(reason), "{pointer}: no {reason:?} in:\n{said}");
        assert!(said.contains("1 error"), "{pointer}: one finding is expected:\n{said}");
    }
    // chpst reads a shell run script's secrets, and it drops blanks at their ends.
    let shell = with("run_script", json!("shell"), &base);
    for blank in [" ", "\t", "\n "] {
        let said = refusal(&with("secrets/A", json!(format!("x{blank}")), &shell));
        assert!(said.contains("chpst would drop"), "{said}");
    }
}
