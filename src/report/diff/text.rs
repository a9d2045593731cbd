//! For people: a heading a service with what the change does to it, then each path.

use std::io::{self, Write};
use std::ops::Range;

use super::{Summary, causes, facts, heading};
use crate::diff::hunks::{Hunk, Line, Sign};
use crate::diff::words::changed_words;
use crate::diff::{Diff, ServiceDiff};
use crate::visible::visible;

/// Everything, and a line that counts. With `colour`, changed words stand out; without, lines are all there is.
pub fn text(diff: &Diff<'_>, colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let paint = Paint(colour);
    for service in &diff.services {
        head(service, paint, out)?;
        for entry in &service.entries {
            let slash = if matches!(
                entry.new.or(entry.old).map(|entry| &entry.kind),
                Some(crate::tree::Kind::Directory)
            ) {
                "/"
            } else {
                ""
            };
            let secret = if entry.secret { "  (secret)" } else { "" };
            let sign = match (entry.old, entry.new) {
                (None, _) => "A",
                (_, None) => "D",
                _ => "M",
            };
            writeln!(out, "{} {}{slash}{secret}", sign, paint.bold(&visible(entry.path)))?;
            for fact in facts(entry) {
                writeln!(out, "    {fact}")?;
            }
            if !entry.causes.is_empty() {
                writeln!(out, "    {}", paint.cyan(&causes(&entry.causes)))?;
            }
            for hunk in &entry.hunks {
                print(hunk, entry.secret, paint, out)?;
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "{}", Summary::of(diff).line())
}

fn head(service: &ServiceDiff<'_>, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", paint.bold(&format!("==> {}", heading(service))))?;
    if service.name.is_none() {
        return Ok(());
    }
    let impact = &service.impact;
    writeln!(out, "impact: {}", paint.bold(impact.effect.words()))?;
    for reason in &impact.reasons {
        writeln!(out, "    {}", visible(reason))?;
    }
    for command in &impact.commands {
        writeln!(out, "    $ {}", visible(command))?;
    }
    Ok(())
}

fn print(hunk: &Hunk<'_>, secret: bool, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
    let header = if secret { "@@ secret @@".to_owned() } else { hunk.header() };
    let because = causes(&hunk.causes);
    let because = if because.is_empty() { because } else { format!(" {because}") };
    writeln!(out, "{}{}", paint.cyan(&header), paint.cyan(&because))?;
    let marks = if paint.0 { changed_words(&hunk.lines) } else { vec![vec![]; hunk.lines.len()] };
    for (line, marks) in hunk.lines.iter().zip(marks) {
        writeln!(out, "{}", paint.line(line, &marks))?;
        if !line.newline {
            writeln!(out, "\\ No newline at end of file")?;
        }
    }
    Ok(())
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    fn line(self, line: &Line<'_>, marks: &[Range<usize>]) -> String {
        let (plain, strong) = match line.sign {
            Sign::Same => return format!(" {}", super::shown(&line.text)),
            Sign::Removed => ("31", "31;7"),
            Sign::Added => ("32", "32;7"),
        };
        let mut out = self.with(plain, &line.sign.character().to_string());
        let mut at = 0;
        for mark in marks {
            out.push_str(&self.with(plain, &super::shown(&line.text[at..mark.start])));
            out.push_str(&self.with(strong, &super::shown(&line.text[mark.clone()])));
            at = mark.end;
        }
        out.push_str(&self.with(plain, &super::shown(&line.text[at..])));
        out
    }
}
