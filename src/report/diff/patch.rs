//! git's extended format, which `git apply` and `patch -p1` take.
//!
//! git knows two modes of a file and neither owners nor directories. What it does not know stands in
//! lines that begin with `#` in front of a file's part, where both programs skip text.

use std::io::{self, Write};

use super::facts;
use crate::diff::hunks::{CONTEXT, Hunk, MOST_SHOWN, count, hunks};
use crate::diff::{Diff, WhyUnshown};
use crate::tree::{Entry, Kind};
use crate::visible::visible;

/// How many files a patch has left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Because they are secret, or show a secret.
    pub masked: usize,
    /// Because they have too many lines.
    pub long: usize,
    /// Because what is there was not made by runsmith.
    pub withheld: usize,
}

/// Everything that differs. Of secrets only that they differ, unless the diff was made with them.
/// Says how many files were left out.
pub fn patch(diff: &Diff<'_>, show_secrets: bool, out: &mut dyn Write) -> io::Result<LeftOut> {
    let mut left_out = LeftOut::default();
    for service in &diff.services {
        if let Some(name) = &service.name {
            let impact = &service.impact;
            let reasons = if impact.reasons.is_empty() {
                String::new()
            } else {
                format!(" ({})", impact.reasons.join("; "))
            };
            writeln!(out, "# {}: {}{}", visible(name), impact.effect.words(), visible(&reasons))?;
        }
        for entry in &service.entries {
            let why = match entry {
                _ if show_secrets => None,
                _ if entry.secret && entry.touches_content() => Some("a secret changed; it is"),
                // Who applies a patch must not write a mask.
                _ if entry.masked => Some("its changes show a secret; they are"),
                _ => None,
            };
            if let Some(why) = why {
                left_out.masked += 1;
                writeln!(out, "# {}: {why} left out without --show-secrets", visible(entry.path))?;
                continue;
            }
            if entry.unshown.is_some_and(|unshown| unshown.why == WhyUnshown::Withheld) {
                left_out.withheld += 1;
                let why = "no record names what is there; it is left out without --adopt";
                writeln!(out, "# {}: {why}", visible(entry.path))?;
                continue;
            }
            let is_long =
                |entry: Option<&Entry>| entry.is_some_and(|entry| count(content(entry)) > MOST_SHOWN);
            if entry.touches_content() && (is_long(entry.old) || is_long(entry.new)) {
                left_out.long += 1;
                let why = "it has more lines than are compared; its changes are left out";
                writeln!(out, "# {}: {why}", visible(entry.path))?;
                continue;
            }
            let file = |entry: &Entry| !matches!(entry.kind, Kind::Directory);
            for fact in facts(entry) {
                writeln!(out, "# {}: {fact}", visible(entry.path))?;
            }
            let (old, new) = (entry.old.filter(|old| file(old)), entry.new.filter(|new| file(new)));
            match (old, new) {
                (Some(old), Some(new)) if git_kind(old) == git_kind(new) => {
                    // What is not shown because of all the others is a part of the patch.
                    let known = if entry.unshown.is_some() { None } else { Some(entry.hunks.as_slice()) };
                    both(entry.path, old, new, known, out)?;
                }
                (old, new) => {
                    if let Some(old) = old {
                        deleted(entry.path, old, out)?;
                    }
                    if let Some(new) = new {
                        created(entry.path, new, out)?;
                    }
                }
            }
        }
    }
    Ok(left_out)
}

/// Whether git would give it the mode 100755.
fn is_executable(mode: u32) -> bool {
    mode & 0o100 != 0
}

fn git_kind(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Link(_))
}

fn git_mode(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::Link(_) => "120000",
        _ if is_executable(entry.mode) => "100755",
        _ => "100644",
    }
}

/// What git takes for the content: of a link its target.
fn content(entry: &Entry) -> &[u8] {
    match &entry.kind {
        Kind::File(bytes) => bytes,
        Kind::Link(target) => target.as_bytes(),
        Kind::Directory => &[],
    }
}

fn both(
    path: &str,
    old: &Entry,
    new: &Entry,
    known: Option<&[Hunk<'_>]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (was, is) = (content(old), content(new));
    let (from, to) = (git_mode(old), git_mode(new));
    if from == to && was == is {
        return Ok(());
    }
    header(path, out)?;
    if from != to {
        writeln!(out, "old mode {from}\nnew mode {to}")?;
    }
    if was == is {
        return Ok(());
    }
    names(Some(path), Some(path), out)?;
    match known.filter(|_| !git_kind(new)) {
        Some(known) => body(known, out),
        None => body(&hunks(was, is, CONTEXT), out),
    }
}

fn created(path: &str, new: &Entry, out: &mut dyn Write) -> io::Result<()> {
    header(path, out)?;
    writeln!(out, "new file mode {}", git_mode(new))?;
    let found = hunks(&[], content(new), CONTEXT);
    if !found.is_empty() {
        names(None, Some(path), out)?;
    }
    body(&found, out)
}

fn deleted(path: &str, old: &Entry, out: &mut dyn Write) -> io::Result<()> {
    header(path, out)?;
    writeln!(out, "deleted file mode {}", git_mode(old))?;
    let found = hunks(content(old), &[], CONTEXT);
    if !found.is_empty() {
        names(Some(path), None, out)?;
    }
    body(&found, out)
}

fn header(path: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "diff --git {} {}", quoted('a', path), quoted('b', path))
}

fn names(old: Option<&str>, new: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    for (sign, side, path) in [("---", 'a', old), ("+++", 'b', new)] {
        let name = path.map_or_else(|| "/dev/null".to_owned(), |path| quoted(side, path));
        // A tab ends a name that has blanks.
        let tab = if name.contains(' ') && !name.starts_with('"') { "\t" } else { "" };
        writeln!(out, "{sign} {name}{tab}")?;
    }
    Ok(())
}

fn body(hunks: &[Hunk<'_>], out: &mut dyn Write) -> io::Result<()> {
    for hunk in hunks {
        let because = super::causes(&hunk.causes);
        let because = if because.is_empty() { because } else { format!(" {because}") };
        writeln!(out, "{}{because}", hunk.header())?;
        for line in &hunk.lines {
            write!(out, "{}", line.sign.character())?;
            out.write_all(&line.text)?;
            out.write_all(if line.newline { b"\n" } else { b"\n\\ No newline at end of file\n" })?;
        }
    }
    Ok(())
}

/// A name as git writes it: in C's way, in quotes, if it has anything but plain characters.
fn quoted(side: char, path: &str) -> String {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if path.bytes().all(plain) {
        return format!("{side}{path}");
    }
    let mut out = format!("\"{side}");
    for byte in path.bytes() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            byte if plain(byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_git_does() {
        assert_eq!(quoted('a', "/etc/sv/a b/run"), "a/etc/sv/a b/run");
        assert_eq!(quoted('b', "/ü\"\\\n\u{1b}"), r#""b/\303\274\"\\\n\033""#);
    }
}
