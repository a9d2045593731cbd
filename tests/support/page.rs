//! A page of the documentation, followed: its files are written, its commands are typed in order, and what it shows of
//! their output must be in what they print.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Names on the page and what they are in this run: directories, ports, users.
pub type Names<'a> = &'a [(&'a str, String)];

/// What Ansible and Salt print where a command fails.
const FAILURES: [&str; 5] = ["failed=1", "Failed: 1", "Failed: 3", "Data failed to compile", "error["];

/// Follows a page in `directory`. Blocks with a first line `# NAME` are files (which begin there, or behind it with their own
/// `#!`), `console` blocks are typed into `shell`; `before` is called with each command. Gives how many there were.
pub fn follow(
    page: &str,
    names: Names<'_>,
    directory: &Path,
    shell: &dyn Fn() -> Command,
    before: &mut dyn FnMut(&str),
) -> usize {
    let page = names.iter().fold(page.to_owned(), |text, (name, here)| text.replace(name, here));
    let mut commands = 0;
    let mut blocks = page.split("\n```");
    blocks.next();
    while let Some(block) = blocks.next() {
        let (language, body) = block.split_once('\n').unwrap_or((block, ""));
        if language == "console" {
            commands += type_in(body, directory, shell, before);
        } else if let Some(name) = body.lines().next().and_then(|line| line.strip_prefix("# ")) {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
            let rest = body.split_once('\n').map_or("", |(_, rest)| rest);
            let text = if rest.starts_with("#!") { rest } else { body };
            fs::write(path, format!("{text}\n")).expect("a file of the page");
        }
        blocks.next();
    }
    commands
}

fn type_in(body: &str, directory: &Path, shell: &dyn Fn() -> Command, before: &mut dyn FnMut(&str)) -> usize {
    let mut commands: Vec<(&str, Vec<&str>)> = vec![];
    for line in body.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, vec![])),
            (None, Some((_, shown))) => shown.push(line),
            (None, None) => panic!("{line:?} is shown before any command"),
        }
    }
    for (command, shown) in &commands {
        before(command);
        let begun = std::time::Instant::now();
        let output = shell()
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(directory)
            .output()
            .expect("a shell");
        eprintln!("{:6.2} s  {command}", begun.elapsed().as_secs_f64());
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let squeezed = squeeze(&printed);
        let mut rest = squeezed.as_str();
        for line in shown {
            let wanted = squeeze(line);
            let Some(at) = rest.find(&wanted) else {
                panic!("$ {command}\ndoes not print {line:?} there, but:\n{printed}");
            };
            rest = &rest[at + wanted.len()..];
        }
        // A command that fails is meant to only if the page shows that.
        let says = shown.iter().any(|line| FAILURES.iter().any(|words| line.contains(words)));
        assert!(output.status.success() != says, "$ {command}\nended with {}:\n{printed}", output.status);
    }
    commands.len()
}

/// One blank instead of many: columns are as wide as the longest name.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
