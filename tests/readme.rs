//! The examples of README and of other pages: every `console` block is typed in order into a shell, in
//! one directory that holds the files which the page shows, and must print what the page says.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

use std::path::Path;
use std::process::Command;

/// Pages whose examples are typed.
const PAGES: &[&str] = &["README.md", "docs/apply.md", "docs/code-review.md"];

#[test]
fn every_example_prints_what_it_says() {
    for name in PAGES {
        page_prints_what_it_says(name);
    }
}

fn page_prints_what_it_says(name: &str) {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&readme).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut commands = 0;
    let mut page = String::new();
    let mut blocks = text.split("\n```");
    page.push_str(blocks.next().unwrap());
    while let Some(block) = blocks.next() {
        let (language, body) = block.split_once('\n').unwrap_or((block, ""));
        page.push_str(&format!("\n```{language}\n"));
        match language {
            "console" => page.push_str(&replay(body, scratch.path(), &mut commands)),
            "yaml" => {
                let name =
                    body.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a file's name");
                std::fs::write(scratch.path().join(name), format!("{body}\n")).unwrap();
                page.push_str(body);
            }
            _ => page.push_str(body),
        }
        // What stands between the end of this block and the next one.
        page.push_str(&format!("\n```{}", blocks.next().unwrap_or_default()));
    }
    assert!(commands >= 3, "{name} has only {commands} commands");
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&readme, page).unwrap();
        return;
    }
    assert!(page == text, "{name} says something else; run `make golden` and review the difference");
}

/// Types the commands of a block; gives the block as it should be.
fn replay(body: &str, directory: &Path, commands: &mut usize) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_runsmith")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut shown = vec![];
    for line in body.lines().filter(|line| line.starts_with("$ ")) {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {}", &line[2..])])
            .current_dir(directory)
            .env("PATH", &path)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        *commands += 1;
        shown.push(line.to_owned());
        let printed = String::from_utf8(output.stdout).unwrap();
        // Runs of other tests have to be waited for.
        let lines = printed.trim_end().lines().filter(|line| !line.contains("waiting for it to end"));
        shown.extend(lines.map(str::to_owned));
    }
    shown.join("\n")
}

/// The numbers that the demo prints are those that README shows.
#[test]
fn the_demo_in_the_readme_is_the_demo() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let demo = std::fs::read_to_string(root.join("tests/demo.rs")).unwrap();
    for label in
        ["requests            ", "failed              ", "versions seen       ", "seconds per deploy  "]
    {
        assert!(readme.contains(label) && demo.contains(label), "{label}");
    }
}
