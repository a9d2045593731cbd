//! Everything that can be installed, made by its make target, installed on a clean root and used there.
//!
//! The targets are run with cargo's profile of tests, so that nothing is built twice.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::ansible::Ansible;
use support::host::run;
use support::page::follow;

const PILLAR: &str = "application: shop\nuser: nobody\ngroup: nogroup\nvirtualenv: /opt/venv\n";

/// The one file in a directory whose name ends so.
fn made(out: &Path, ending: &str) -> PathBuf {
    let mut all: Vec<_> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A program that was installed does what it is for.
fn works(program: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let pillar = scratch.path().join("pillar.yaml");
    fs::write(&pillar, PILLAR).unwrap();
    let root = scratch.path().join("root");
    let program = program.to_str().unwrap();
    assert_eq!(run(program, &["--version"]), "runsmith 0.1.0\n");
    let printed = run(program, &["render", pillar.to_str().unwrap(), "--out", root.to_str().unwrap()]);
    assert!(printed.contains("/etc/sv/shop/run: created file"), "{printed}");
    let script = root.join("etc/sv/shop/run");
    support::host::proves(program, &script);
}

/// The Debian package, on a root of its own.
fn a_debian_package(out: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let package = made(out, ".deb");
    let package = package.to_str().unwrap();

    // A root on which there is nothing but what dpkg keeps its books in.
    let root = scratch.path().join("root");
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let root = format!("--root={}", root.display());
        run("dpkg", &[&[root.as_str(), "--force-depends", "--force-not-root"], arguments].concat())
    };
    dpkg(&["--install", package]);
    works(&root.join("usr/bin/runsmith"));
    assert!(dpkg(&["--status", "runsmith"]).contains("Status: install ok installed"));
    assert_eq!(dpkg(&["--verify", "runsmith"]), "");

    // The libraries it asks for are those it depends on.
    let libraries = run("ldd", &[root.join("usr/bin/runsmith").to_str().unwrap()]);
    for line in libraries.lines().filter(|line| line.contains("=> /")) {
        let owner = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux"];
        assert!(owner.iter().any(|name| line.contains(name)), "{line}");
    }
    assert!(dpkg(&["--status", "runsmith"]).contains("Depends: libc6 (>= 2."));

    // Pages, completions, licences: what a user looks for, where it is looked for.
    let page =
        |name: &str| run("gzip", &["-dc", root.join("usr/share/man/man8").join(name).to_str().unwrap()]);
    assert!(page("runsmith.8.gz").contains("runsmith\\-upgrade(8)"));
    assert!(page("runsmith-upgrade.8.gz").contains(".TH runsmith-upgrade 8"));
    let commands = page("runsmith.8.gz").lines().filter(|line| line.starts_with("runsmith\\-")).count();
    let pages = fs::read_dir(root.join("usr/share/man/man8")).unwrap().count();
    assert_eq!(pages, commands + 1);
    let copyright = fs::read_to_string(root.join("usr/share/doc/runsmith/copyright")).unwrap();
    assert!(copyright.contains("License: Expat or Apache-2.0"));
    for line in include_str!("../LICENSE-MIT").lines().skip(4).filter(|line| !line.is_empty()) {
        assert!(copyright.contains(line), "{line}");
    }
    let bash = root.join("usr/share/bash-completion/completions/runsmith");
    run("bash", &["-n", bash.to_str().unwrap()]);
    for file in ["zsh/vendor-completions/_runsmith", "fish/vendor_completions.d/runsmith.fish"] {
        assert!(root.join("usr/share").join(file).is_file());
    }
    // Nobody but root owns anything or may write it.
    for line in run("dpkg-deb", &["--contents", package]).lines() {
        let mode = line.split_whitespace().next().unwrap();
        assert!(line.contains(" root/root ") && !mode[4..].contains('w'), "{line}");
    }

    dpkg(&["--remove", "runsmith"]);
    assert!(!root.join("usr/bin/runsmith").exists() && !root.join("usr/share/man").exists());
}

/// The wheel, in an environment of its own, where Ansible's module finds it.
fn a_wheel_beside_ansible(out: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let wheel = made(out, ".whl");
    let venv = scratch.path().join("venv");
    run("/usr/bin/python3", &["-m", "venv", venv.to_str().unwrap()]);
    let pip = venv.join("bin/pip");
    let pip = pip.to_str().unwrap();
    run(pip, &["install", "--quiet", "--no-index", "--no-deps", wheel.to_str().unwrap()]);
    works(&venv.join("bin/runsmith"));
    let metadata = run(
        "sh",
        &[
            "-c",
            &format!("cat {}/lib/python3*/site-packages/runsmith-0.1.0.dist-info/METADATA", venv.display()),
        ],
    );
    assert!(metadata.contains("License-Expression: MIT OR Apache-2.0"), "{metadata}");

    // The module finds it beside the interpreter that runs it, though PATH has another one, which is none.
    let ansible = Ansible::new();
    let decoy = ansible.path().join("decoy");
    fs::create_dir(&decoy).unwrap();
    fs::write(decoy.join("runsmith"), "#!/bin/sh\nexit 9\n").unwrap();
    fs::set_permissions(decoy.join("runsmith"), fs::Permissions::from_mode(0o755)).unwrap();
    let task = format!(
        "- runsmith.runsmith.service:\n    root: '{}'\n    pillar:\n{}  vars: {{ansible_python_interpreter: '{}'}}\n  environment: {{PATH: '{}:/usr/bin:/bin'}}\n",
        ansible.path().join("root").display(),
        PILLAR.lines().map(|line| format!("      {line}\n")).collect::<String>(),
        venv.join("bin/python3").display(),
        decoy.display(),
    );
    let played = ansible.play(&task, &["--limit", "one"]);
    assert_eq!(played.code, Some(0), "{}", played.text);
    assert!(ansible.path().join("root/etc/sv/shop/run").is_file());

    // Without it the decoy is found, and is no runsmith.
    run(pip, &["uninstall", "--quiet", "--yes", "runsmith"]);
    let (word, result) = ansible.play(&task, &["--limit", "one"]).only("one");
    assert_eq!(word, "fatal");
    assert!(result["msg"].as_str().unwrap().contains("is no runsmith"), "{result:#}");
}

/// The commands of the page, with the profile of tests and everything in a scratch directory; then each package is tried.
#[test]
fn what_the_page_makes_can_be_installed_and_used() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    let make = format!(
        "make -C {} PROFILE=dev PACKAGES={}",
        env!("CARGO_MANIFEST_DIR"),
        here.join("target/packages").display()
    );
    let shell = || {
        let mut shell = Command::new("sh");
        // How small the package is matters to nobody here.
        shell.env("RUNSMITH_DEB_LEVEL", "0");
        shell
    };
    let names = [
        ("$ make", format!("$ {make}")),
        ("ROOT=/usr/local", format!("ROOT={}", here.join("usr").display())),
        ("$ runsmith", format!("$ {}", here.join("usr/bin/runsmith").display())),
        ("_amd64", format!("_{}", run("dpkg", &["--print-architecture"]).trim())),
    ];
    let commands = follow(include_str!("../docs/install.md"), &names, here, &shell, &mut |_| {});
    assert_eq!(commands, 5);
    works(&here.join("usr/bin/runsmith"));
    let out = here.join("target/packages");
    a_debian_package(&out);
    a_wheel_beside_ansible(&out);
    assert!(fs::read_to_string(here.join("runsmith-upgrade.8")).unwrap().contains(".SH SYNOPSIS"));
}
