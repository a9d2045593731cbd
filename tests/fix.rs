//! `validate --fix`: the dialect reads the same values afterwards, and nothing else in the file moves.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;

const DIALECTS: [&str; 3] = ["salt", "ansible", "yaml1.2"];

const BASE: &str = "application: web\nuser: deploy\nvirtualenv_home: /home/deploy\n";

fn runsmith(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What the dialect reads.
fn read(directory: &Path, dialect: &str) -> String {
    let output = runsmith(directory, &["read", "p.yaml", "--dialect", dialect, "--show-secrets"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Corrects a text; gives it as it is then, and the findings that are left.
fn fixed(text: &str, arguments: &[&str]) -> (String, String, Option<i32>) {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("p.yaml"), text).unwrap();
    let output = runsmith(scratch.path(), &[&["validate", "--fix", "p.yaml"], arguments].concat());
    let left = String::from_utf8(output.stdout).unwrap();
    (fs::read_to_string(scratch.path().join("p.yaml")).unwrap(), left, output.status.code())
}

/// Texts that some dialect reads differently, or the same, in every place where a scalar may stand.
const SCALARS: &[&str] = &[
    "010",
    "0022",
    "08",
    "0o22",
    "0x1F",
    "0b11",
    "1_000",
    "-010",
    "12:30",
    "20:30.15",
    "1e3",
    "1.0e+3",
    "1.10",
    "yes",
    "No",
    "ON",
    "off",
    "true",
    "TRUE",
    "y",
    "2026-01-01",
    "2026-01-01 10:20:30 +2",
    "~",
    "null",
    "+1",
    ".5",
    "1.",
    "12345678901234567890",
    "0o8",
    "1:2:3",
    "plain",
    "'010'",
    "\"yes\"",
    "!!str 010",
    "! 1e3",
    "! 010",
];

#[test]
fn the_dialect_reads_the_same_values() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("p.yaml");
    let mut changed = 0;
    for dialect in DIALECTS {
        for scalar in SCALARS {
            let texts = [
                format!("{BASE}environment: {{A: {scalar}, B: {scalar} , \"C\":{scalar}}}\n"),
                format!("\u{feff}{BASE}# 漢 {scalar}\nenvironment:\n  A:\t{scalar}\t# 010 yes {scalar}\n  ? {scalar}\n  : ä\n")
                    .replace('\n', "\r\n"),
                format!("{BASE}groups: [{scalar}, &x {scalar}, *x]\nbind:\n- {scalar}\n-  {scalar}\n"),
                format!("{BASE}environment: &e {{<<: {{B: {scalar}}}, A: {scalar}}}\n"),
            ];
            for text in texts {
                fs::write(&file, &text).unwrap();
                let can_read = runsmith(scratch.path(), &["read", "p.yaml", "--dialect", dialect]);
                if can_read.status.code() != Some(0) {
                    continue;
                }
                let before = read(scratch.path(), dialect);
                let output = runsmith(scratch.path(), &["validate", "--fix", "p.yaml", "--dialect", dialect]);
                assert_ne!(
                    output.status.code(),
                    Some(2),
                    "{text}{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                assert_eq!(read(scratch.path(), dialect), before, "{dialect}: {text}");
                let after = fs::read_to_string(&file).unwrap();
                changed += usize::from(after != text);
                let rest =
                    |text: &str| text.split(['#', '\r']).skip(1).map(str::to_owned).collect::<Vec<_>>();
                assert_eq!(rest(&after).len(), rest(&text).len(), "comments and line ends stay");
                assert_eq!(after.starts_with('\u{feff}'), text.starts_with('\u{feff}'));
                let left = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(!left.contains("[dialect-scalar]"), "{dialect}: {text}{left}");
            }
        }
    }
    assert!(changed > 100, "{changed} texts were corrected");
}

#[test]
fn everything_else_stays_byte_for_byte() {
    let text = "\u{feff}# 漢字 yes\r\napplication:\tweb\t# 010\r\nuser: deploy\r\nvirtualenv_home: /home/deploy\r\n\r\n\
                gunicorn: {workers: 010 , reload :  no}   # no\r\nservice:\r\n    enabled:   yes\r\n";
    let want = text
        .replace("workers: 010", "workers: 10")
        .replace(":  no}", ":  false}")
        .replace("   yes", "   true");
    let (have, left, code) = fixed(text, &[]);
    assert_eq!(have, want);
    assert_eq!((left.as_str(), code), ("no findings: 1 application in 1 file\n", Some(0)));
}

#[test]
fn an_old_key_is_renamed() {
    let rest = "user: deploy\nvirtualenv_home: /home/deploy\n";
    for (old, new) in [("unicorn_application", "application"), ("'unicorn_application'", "\"application\"")] {
        let (have, _, code) = fixed(&format!("# gist\n{old}: web # named\n{rest}"), &[]);
        assert_eq!((have, code), (format!("# gist\n{new}: web # named\n{rest}"), Some(0)));
    }
    // With both there, it would be a duplicate.
    let both = format!("application: web\nunicorn_application: web\n{rest}");
    assert_eq!(fixed(&both, &[]).0, both);
}

/// A key is not renamed where something else than an application has it, or would have it twice; nothing is to be reported.
#[test]
fn a_key_that_others_merge_stays() {
    let texts = [
        // The anchor is a value of its own, which whoever reads the pillar sees.
        "base: &base\n  unicorn_application: web\n  user: deploy\n  virtualenv_home: /v\nunicorn:\n  applications:\n    web:\n      <<: *base\n",
        // One of those that merge it has the new name already.
        "unicorn:\n  applications:\n    one: &one\n      unicorn_application: web\n      user: deploy\n      virtualenv_home: /v\n    two:\n      <<: *one\n      application: shop\n      bind: 127.0.0.1:8001\n",
    ];
    for text in texts {
        let (after, left, _) = fixed(text, &[]);
        assert_eq!(after, text, "{left}");
        assert!(left.contains("warning[deprecated-key]"), "{left}");
    }
    // What else there is to correct in such a file is corrected.
    let (after, ..) = fixed(&format!("{}      umask: 0022\n", texts[0]), &[]);
    assert!(after.contains("unicorn_application"), "{after}");
}

/// A misspelt key is not corrected to one that is there, nor two to one.
#[test]
fn no_correction_makes_a_key_double() {
    for (settings, count) in [("worker: 4, workers: 2", 1), ("worker: 4, workerss: 2", 0)] {
        let text = format!("{BASE}gunicorn: {{{settings}}}\n");
        let (after, left, code) = fixed(&text, &["--unsafe-fixes"]);
        assert_eq!(code, Some(1), "{left}");
        assert!(!left.contains("duplicate-key") && left.contains("unknown-key"), "{after}\n{left}");
        assert_eq!(after.matches("workers:").count(), count, "{after}");
    }
}

/// What comes from the defaults is overruled by the corrected key; what an alias calls in is somebody else's as well.
#[test]
fn keys_are_corrected_where_they_are_the_applications_own() {
    let nested = "unicorn:\n  defaults: {user: deploy, virtualenv_home: /h, gunicorn: {workers: 2}}\n  applications:\n    web:\n      gunicorn: {worker: 4}\n";
    let (after, _, code) = fixed(nested, &["--unsafe-fixes"]);
    assert!(after.contains("{workers: 4}") && code == Some(0), "{after}");
    let text = format!("{BASE}environment: &env {{LIMIT: \"1\"}}\nlimits: *env\n");
    let (after, left, code) = fixed(&text, &["--unsafe-fixes"]);
    assert_eq!((after, code), (text, Some(1)), "{left}");
    // Its option on the command line is the setting that was meant.
    let (after, ..) = fixed(&format!("{BASE}gunicorn: {{preload: true}}\n"), &["--unsafe-fixes"]);
    assert!(after.contains("{preload_app: true}"), "{after}");
    // Neither would be taken in quotes.
    for wrong in ["umask: 22", "bind: 8000"] {
        let text = format!("{BASE}{wrong}\n");
        let (after, left, code) = fixed(&text, &["--unsafe-fixes"]);
        assert_eq!((after, code), (text, Some(1)), "{left}");
    }
}

#[test]
fn what_changes_a_value_is_asked_for() {
    let text = format!(
        "{BASE}umask: 0027 # ours\ngunicorn: {{wokers: 4, threads: 2.0}}\nenvironment: {{DEBUG: yes, RATE: 1.0}}\n"
    );
    let (have, left, code) = fixed(&text, &[]);
    assert_eq!((have.as_str(), code), (text.as_str(), Some(1)));
    assert!(left.contains("did you mean `workers`?") && left.contains("quote it"), "{left}");
    let (have, left, code) = fixed(&text, &["--unsafe-fixes"]);
    let want = text.replace("0027", "\"0027\"").replace("wokers", "workers").replace("yes", "\"yes\"");
    let want = want.replace("2.0", "2").replace("1.0", "\"1.0\"");
    assert_eq!((have, code), (want, Some(0)), "{left}");
}

#[test]
fn a_patch_is_shown_and_nothing_written() {
    let scratch = tempfile::tempdir().unwrap();
    let text = format!("{BASE}# 1\n# 2\n# 3\n# 4\ngunicorn: {{workers: 010}}\r\nservice: {{enabled: yes}}");
    let file = scratch.path().join("p.yaml");
    fs::write(&file, &text).unwrap();
    let output = runsmith(scratch.path(), &["validate", "--fix", "--diff", "p.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 fixes in 1 file would be made"));
    fs::write(scratch.path().join("patch"), &output.stdout).unwrap();
    let applied = Command::new("git").args(["apply", "patch"]).current_dir(scratch.path()).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let want = fixed(&text, &[]).0;
    assert_eq!(fs::read_to_string(&file).unwrap(), want);
    let clean = runsmith(scratch.path(), &["validate", "--fix", "--diff", "p.yaml"]);
    assert_eq!((clean.status.code(), clean.stdout.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_patch_shows_no_secret() {
    let scratch = tempfile::tempdir().unwrap();
    let text = format!(
        "{BASE}secrets: {{API: hunter2}}\nservice: {{enabled: yes}}\nenvironment: {{DB_PASSWORD: hunter2, BUILD: 1e3}}\n"
    );
    fs::write(scratch.path().join("p.yaml"), text).unwrap();
    let output = runsmith(scratch.path(), &["validate", "--fix", "--diff", "p.yaml"]);
    let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains("+service: {enabled: true}"), "{shown}");
    assert!(shown.contains("secrets masked"), "{shown}");
}

#[test]
fn mode_and_owner_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("p.yaml");
    fs::write(&file, format!("{BASE}service: {{enabled: yes}}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&file, Some(65534), Some(65534)).unwrap();
    assert_eq!(runsmith(scratch.path(), &["validate", "--fix", "p.yaml"]).status.code(), Some(0));
    let facts = fs::metadata(&file).unwrap();
    assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o640, 65534, 65534));
    assert!(fs::read_to_string(&file).unwrap().contains("enabled: true"));
    let names: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["p.yaml"], "nothing is left beside it");
}

/// A text that has something to correct.
fn crooked() -> String {
    format!("{BASE}service: {{enabled: yes}}\n")
}

/// The other name would go on holding the old text.
#[test]
fn a_file_with_several_names_stays_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (file, other) = (scratch.path().join("p.yaml"), scratch.path().join("other"));
    fs::write(&file, crooked()).unwrap();
    fs::hard_link(&file, &other).unwrap();
    let output = runsmith(scratch.path(), &["validate", "--fix", "p.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write to p.yaml: it has 2 names (hard links)"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().ino(), fs::metadata(&other).unwrap().ino());
    assert_eq!(fs::read_to_string(&file).unwrap(), crooked());
    // What would be done is shown all the same.
    let output = runsmith(scratch.path(), &["validate", "--fix", "--diff", "p.yaml"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("+service: {enabled: true}"));
}

/// One file that cannot be written keeps no other from being corrected, and all is told.
#[test]
fn what_can_be_written_is_and_the_rest_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let names = ["a.yaml", "b.yaml", "c.yaml", "d.yaml"];
    for (port, name) in names.iter().enumerate() {
        let text = crooked().replace("application: web", &format!("application: web{port}"));
        fs::write(scratch.path().join(name), format!("{text}bind: 127.0.0.1:800{port}\n")).unwrap();
    }
    for name in ["a.yaml", "c.yaml"] {
        fs::hard_link(scratch.path().join(name), scratch.path().join(format!("{name}.other"))).unwrap();
    }
    let output = runsmith(scratch.path(), &[&["validate", "--fix"][..], &names].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for line in ["error: cannot write to a.yaml", "error: cannot write to c.yaml", "2 fixes in 2 files made"]
    {
        assert!(said.contains(line), "{said}");
    }
    let is_fixed = |name| fs::read_to_string(scratch.path().join(name)).unwrap().contains("enabled: true");
    assert_eq!(names.map(is_fixed), [false, true, false, true]);
}

#[test]
fn extended_attributes_and_access_lists_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("p.yaml");
    fs::write(&file, crooked()).unwrap();
    // Linux, posix_acl_xattr.h: version 2; owner rw, user 65534 rw, group none, mask rw, others none.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, mode, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, 65534), (4, 0, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([tag.to_le_bytes(), mode.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    let attributes =
        [("user.origin", b"by hand".to_vec()), ("user.empty", vec![]), ("system.posix_acl_access", list)];
    for (name, value) in &attributes {
        rustix::fs::setxattr(&file, *name, value, XattrFlags::CREATE).unwrap();
    }
    let before = fs::metadata(&file).unwrap().mode();
    assert_eq!(runsmith(scratch.path(), &["validate", "--fix", "p.yaml"]).status.code(), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("enabled: true"));
    assert_eq!(fs::metadata(&file).unwrap().mode(), before);
    for (name, value) in &attributes {
        let mut kept = Vec::with_capacity(100);
        rustix::fs::getxattr(&file, *name, spare_capacity(&mut kept)).expect(name);
        assert_eq!(kept, *value, "{name}");
    }
}

/// To write in the directory is not to write to a file that is read-only.
#[test]
fn a_file_that_is_read_only_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("p.yaml");
    fs::write(&file, crooked()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    for path in [scratch.path(), &file] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let program = scratch.path().join("runsmith");
    fs::copy(env!("CARGO_BIN_EXE_runsmith"), &program).unwrap();
    let output = Command::new(program)
        .current_dir(scratch.path())
        .args(["validate", "--fix", "p.yaml"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write to p.yaml: Permission denied"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), crooked());
}

#[test]
fn links_and_standard_input_are_not_written_to() {
    let scratch = tempfile::tempdir().unwrap();
    let text = format!("{BASE}service: {{enabled: yes}}\n");
    fs::write(scratch.path().join("real"), &text).unwrap();
    symlink("real", scratch.path().join("p.yaml")).unwrap();
    // A directory in which anybody could have put the link.
    fs::create_dir(scratch.path().join("real.d")).unwrap();
    fs::write(scratch.path().join("real.d/q.yaml"), &text).unwrap();
    fs::create_dir(scratch.path().join("open")).unwrap();
    fs::set_permissions(scratch.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink("../real.d", scratch.path().join("open/d")).unwrap();
    for (path, reason) in [
        ("p.yaml", "it is a link: name the file that it leads to"),
        ("open/d/q.yaml", "somebody other than root could have made it"),
        ("-", "standard input (-) cannot be corrected in place"),
    ] {
        let output = runsmith(scratch.path(), &["validate", "--fix", path]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(reason), "{path}: {said}");
    }
    for path in ["real", "real.d/q.yaml"] {
        assert_eq!(fs::read_to_string(scratch.path().join(path)).unwrap(), text);
    }
    let output = runsmith(scratch.path(), &["validate", "--diff", "real"]);
    assert_eq!(output.status.code(), Some(2), "--diff is for --fix");
}
