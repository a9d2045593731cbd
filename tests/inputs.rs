//! Inputs and outputs that are not what a command expects: it says so in a sentence, at once, and ends in 2.

#![allow(clippy::disallowed_methods, reason = "a test starts programs and writes files")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PILLAR: &str = "application: web\nuser: nobody\ngroup: nogroup\nvirtualenv_home: /home/deploy\n";

/// What ends a command that would read for ever.
const LIMIT_SECONDS: &str = "120";

/// With little memory, so that who reads without end does not take the machine's.
fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("prlimit")
        .args(["--as=1073741824", "timeout", LIMIT_SECONDS, env!("CARGO_BIN_EXE_runsmith")])
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("prlimit is missing; run scripts/setup")
}

#[track_caller]
fn refused(directory: &Path, arguments: &[&str], want: &str) {
    let Output { status, stdout, stderr } = runsmith(directory, arguments);
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(said, format!("error: {want}\n"), "{arguments:?}");
    assert_eq!((status.code(), stdout.len()), (Some(2), 0), "{arguments:?}: {said}");
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

fn sparse(path: &Path, bytes: u64) {
    fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_run_script_is_a_file_of_some_size() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fifo(&at("fifo"));
    sparse(&at("large"), (32 << 20) + 1);
    fs::create_dir(at("directory")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    for (path, reason) in [
        ("/dev/zero", "it is a device, and a file is expected"),
        ("fifo", "it is a FIFO, and a file is expected"),
        ("socket", "it is a socket, and a file is expected"),
        ("directory", "it is a directory, and a file is expected"),
        ("large", "it is larger than 32 MiB, the most that a run script may have"),
    ] {
        refused(scratch.path(), &["run", "--check", path], &format!("cannot read {path}: {reason}"));
    }
}

#[test]
fn a_template_is_a_text_of_some_size() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("pillar.yaml"), PILLAR).unwrap();
    let fifo_path = scratch.path().join("fifo");
    fifo(&fifo_path);
    let large = scratch.path().join("large");
    sparse(&large, 60 << 20);
    let nul = scratch.path().join("nul");
    fs::write(&nul, "#!/bin/sh\n# {{ managed | comment }}\n\0\n").unwrap();
    let latin = scratch.path().join("latin");
    fs::write(&latin, b"# {{ managed | comment }}\n\xe4\n").unwrap();
    let bare = scratch.path().join("bare");
    fs::write(&bare, "#!/bin/sh\nexec svlogd {{ service.log.directory }}\n").unwrap();
    for (target, want) in [
        (
            Path::new("/dev/zero"),
            "cannot read the template t/log-run: a link leads out of t, and nothing outside of it is read",
        ),
        (&fifo_path, "cannot read the template t/log-run: it is a FIFO, and a file is expected"),
        (scratch.path(), "cannot read the template t/log-run: it is a directory, and a file is expected"),
        (
            &large,
            "cannot read the template t/log-run: it is larger than 256 KiB, the most that a template may have",
        ),
        (&nul, "t/log-run:3: a NUL character, which no text has"),
        (&latin, "cannot read the template t/log-run: it is no UTF-8"),
        (
            &bare,
            "t/log-run: what it renders does not say that it is managed; write `# {{ managed | comment }}` near its top",
        ),
    ] {
        let templates = scratch.path().join("t");
        fs::create_dir(&templates).unwrap();
        let place = templates.join("log-run");
        match target {
            target if target.is_file() => drop(fs::copy(target, &place).unwrap()),
            target if target.is_dir() => fs::create_dir(&place).unwrap(),
            target if target == fifo_path.as_path() => fifo(&place),
            target => symlink(target, &place).unwrap(),
        }
        refused(scratch.path(), &["render", "pillar.yaml", "--templates", "t"], want);
        fs::remove_dir_all(templates).unwrap();
    }
    // A part of another template need not say it.
    fs::create_dir(scratch.path().join("t")).unwrap();
    fs::write(scratch.path().join("t/gunicorn-ready.py"), "# nothing\n").unwrap();
    fs::write(scratch.path().join("t/log-run"), "#!/bin/sh\n# {{ managed | comment }}\nexec svlogd .\n")
        .unwrap();
    let output = runsmith(scratch.path(), &["render", "pillar.yaml", "--templates", "t"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(String::from_utf8(output.stdout).unwrap().contains("\nexec svlogd .\n"));
}

#[test]
fn what_is_named_like_a_pillar_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let pillars = scratch.path().join("pillars");
    let case = |make: &dyn Fn(&Path), name: &str, what: &str| {
        fs::create_dir(&pillars).unwrap();
        fs::write(pillars.join("good.yaml"), PILLAR).unwrap();
        make(&pillars.join(name));
        let want = format!("cannot read pillars/{name}: it is {what}, and a file is expected");
        refused(scratch.path(), &["validate", "pillars"], &want);
        fs::remove_dir_all(&pillars).unwrap();
    };
    case(&fifo, "x.yaml", "a FIFO");
    case(&|path| drop(UnixListener::bind(path).unwrap()), "x.sls", "a socket");
    case(&|path| fs::create_dir(path).unwrap(), "x.json", "a directory");
    case(&|path| symlink(".", path).unwrap(), "x.yml", "a directory");
    // Others are none of ours, and directories are searched.
    fs::create_dir(&pillars).unwrap();
    fifo(&pillars.join("x"));
    fs::create_dir(pillars.join("more")).unwrap();
    fs::write(pillars.join("more/good.yaml"), PILLAR).unwrap();
    assert_eq!(runsmith(scratch.path(), &["validate", "pillars"]).status.code(), Some(0));
}

#[test]
fn output_that_cannot_be_written_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("pillar.yaml"), PILLAR).unwrap();
    let commands = [
        "schema",
        "--help",
        "render --help",
        "--version",
        "render pillar.yaml",
        "read pillar.yaml",
        "validate pillar.yaml",
    ];
    for command in commands {
        let shell = format!("exec \"$0\" {command} >/dev/full");
        let output = Command::new("sh")
            .args(["-c", &shell, env!("CARGO_BIN_EXE_runsmith")])
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let reason = "No space left on device";
        assert_eq!(said, format!("error: cannot write to standard output: {reason}\n"), "{shell}");
        assert_eq!(output.status.code(), Some(2), "{shell}");
        // Thrown away on purpose, also as Python's subprocess.DEVNULL does it.
        for to in [">/dev/null", "1<>/dev/null"] {
            let shell = format!("exec \"$0\" {command} {to}");
            let mut sh = Command::new("sh");
            sh.args(["-c", &shell, env!("CARGO_BIN_EXE_runsmith")]).current_dir(scratch.path());
            assert_eq!(sh.output().unwrap().status.code(), Some(0), "{shell}");
        }
    }
}

#[test]
fn help_on_encodings_names_the_encoding() {
    let scratch = tempfile::tempdir().unwrap();
    for (bytes, help) in [
        (&b"\xff\xfea\0"[..], "`iconv -f UTF-16 -t UTF-8`"),
        (&b"\xfe\xff\0a"[..], "`iconv -f UTF-16 -t UTF-8`"),
        (&b"a: \xe4\n"[..], "`iconv -f LATIN1 -t UTF-8`"),
    ] {
        fs::File::create(scratch.path().join("x.yaml")).unwrap().write_all(bytes).unwrap();
        let said = String::from_utf8(runsmith(scratch.path(), &["validate", "x.yaml"]).stdout).unwrap();
        assert!(said.contains(help), "{said}");
    }
}

#[test]
fn a_root_that_is_a_link_to_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("pillar.yaml"), PILLAR).unwrap();
    symlink("nowhere", scratch.path().join("root")).unwrap();
    let want = "cannot make the directory root: it is a link to nowhere, which is not there; make that, or remove the link";
    refused(scratch.path(), &["render", "pillar.yaml", "--out", "root"], want);
}

/// By two names, or by a link as well, it is one file, whose applications are not there twice.
#[test]
fn a_file_is_read_once() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("pillars")).unwrap();
    fs::write(scratch.path().join("pillars/web.yaml"), PILLAR).unwrap();
    symlink("web.yaml", scratch.path().join("pillars/also.yaml")).unwrap();
    symlink("web.yaml", scratch.path().join("pillars/yet.yaml")).unwrap();
    for pillars in
        [&["pillars"][..], &["pillars/web.yaml", "./pillars/web.yaml"], &["pillars/yet.yaml", "pillars"]]
    {
        let Output { status, stdout, stderr } = runsmith(scratch.path(), &[&["validate"], pillars].concat());
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert_eq!(
            (status.code(), said.as_str()),
            (Some(0), "no findings: 1 application in 1 file\n"),
            "{pillars:?}"
        );
    }
}

/// What is corrected is the file, whichever name comes first.
#[test]
fn a_file_that_a_link_leads_to_is_corrected() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("web.yaml"), PILLAR.replace("application:", "unicorn_application:"))
        .unwrap();
    symlink("web.yaml", scratch.path().join("also.yaml")).unwrap();
    let Output { status, stderr, .. } = runsmith(scratch.path(), &["validate", "--fix", "."]);
    assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(fs::read_to_string(scratch.path().join("web.yaml")).unwrap(), PILLAR);
    assert!(scratch.path().join("also.yaml").is_symlink());
}

/// Beside what is no map, the mistakes of the others are told, and nothing is rendered.
#[test]
fn what_is_no_application_hides_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let text = "unicorn:\n  defaults: {user: nobody, virtualenv_home: /h, nyce: 3}\n  applications:\n    a: {bind: \"127.0.0.1:80000\"}\n    b: {}\n    c: oops\n";
    fs::write(scratch.path().join("p.yaml"), text).unwrap();
    for command in ["validate", "render"] {
        let Output { status, stdout, stderr } = runsmith(scratch.path(), &[command, "p.yaml"]);
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        for part in ["application `c` is not a map", "unknown key: `nyce`", "80000"] {
            assert!(said.contains(part), "{command}: {part}\n{said}");
        }
        assert_eq!(status.code(), Some(1), "{command}: {said}");
    }
}
