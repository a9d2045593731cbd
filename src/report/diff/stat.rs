//! A summary, as `git diff --stat` has it.

use std::io::{self, Write};

use super::{Summary, counts, facts, heading};
use crate::diff::Diff;
use crate::visible::visible;

/// The widest bar of signs.
const BAR: usize = 40;

/// A line a path below its service, aligned, with a bar that fits `width` columns.
pub fn stat(diff: &Diff<'_>, colour: bool, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let entries = || diff.services.iter().flat_map(|service| &service.entries);
    let paths = entries().map(|entry| visible(entry.path).chars().count()).max().unwrap_or(0);
    let most = entries().map(counts).map(|(added, removed)| added + removed).max().unwrap_or(0);
    let digits = most.to_string().len();
    let bar = width.saturating_sub(paths + digits + 5).clamp(1, BAR);
    let (green, red, plain) = if colour { ("\x1b[32m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
    for service in &diff.services {
        writeln!(out, "{}: {}", heading(service), service.impact.effect.words())?;
        for entry in &service.entries {
            let path = visible(entry.path);
            let pad = " ".repeat(paths - path.chars().count());
            let (added, removed) = counts(entry);
            write!(out, " {path}{pad} | ")?;
            if added + removed == 0 {
                writeln!(out, "{}", facts(entry).join("; "))?;
                continue;
            }
            // Something is never nothing.
            let scaled = |count: usize| if most <= bar { count } else { (count * bar).div_ceil(most) };
            let (plus, minus) = ("+".repeat(scaled(added)), "-".repeat(scaled(removed)));
            write!(out, "{:>digits$} {green}{plus}{plain}{red}{minus}{plain}", added + removed)?;
            let others = facts(entry);
            writeln!(
                out,
                "{}",
                if others.is_empty() { String::new() } else { format!("  {}", others.join("; ")) }
            )?;
        }
    }
    writeln!(out, "{}", Summary::of(diff).line())
}
