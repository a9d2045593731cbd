//! For a comment on a pull request: a table of the services, and each one folded below it.

use std::io::{self, Write};

use super::{Summary, causes, facts, shown};
use crate::diff::{Diff, EntryDiff, ServiceDiff};
use crate::visible::visible;

/// The longest comment that GitHub takes, in characters.
pub const GITHUB_LIMIT: usize = 65_536;

/// Kept free for the notes on what was left out.
const NOTES: usize = 300;

/// Everything that fits `limit` bytes (no character has less than one), and a note on the rest.
pub fn markdown(diff: &Diff<'_>, limit: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut text = format!("**runsmith**: {}\n", Summary::of(diff).line());
    let room = limit.saturating_sub(NOTES);
    if !diff.services.is_empty() {
        text.push_str("\n| service | impact | paths |\n|---|---|---|\n");
    }
    let mut rows = 0;
    for service in &diff.services {
        let row = row(service);
        // Half of the room is for what changes.
        if text.len() + row.len() > room / 2 {
            break;
        }
        text.push_str(&row);
        rows += 1;
    }
    if rows < diff.services.len() {
        let rest = diff.services.len() - rows;
        text.push_str(&format!(
            "\n{rest} more services change; the table is cut at the size of a comment.\n"
        ));
    }
    let mut left_out = 0;
    for service in &diff.services {
        let free = room.saturating_sub(text.len());
        if let Some(whole) = section(service, free, Cut::No) {
            text.push_str(&whole);
            continue;
        }
        text.extend(section(service, free, Cut::BetweenPaths));
        left_out += 1;
    }
    if left_out > 0 {
        let services = if left_out == 1 { "1 service is" } else { &format!("{left_out} services are") };
        text.push_str(&format!(
            "\n**{services} not shown in full**: a comment has at most {limit} characters. `runsmith render --diff` shows everything.\n"
        ));
    }
    out.write_all(text.as_bytes())
}

fn row(service: &ServiceDiff<'_>) -> String {
    let impact = match &service.name {
        Some(_) => format!("**{}**{}", service.impact.effect.words(), reasons(service)),
        None => String::new(),
    };
    format!("| {} | {impact} | {} |\n", name(service), service.entries.len())
}

fn name(service: &ServiceDiff<'_>) -> String {
    service
        .name
        .as_deref()
        .map_or_else(|| "(none)".to_owned(), |name| format!("<code>{}</code>", escaped(name)))
}

fn reasons(service: &ServiceDiff<'_>) -> String {
    let reasons = &service.impact.reasons;
    if reasons.is_empty() { String::new() } else { format!(": {}", escaped(&reasons.join("; "))) }
}

/// What becomes of a section that does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// There is none.
    No,
    /// The paths that do not fit are left out, and a note says so.
    BetweenPaths,
}

/// The end of each section.
const END: &str = "</details>\n";

/// One service, folded, if it fits `limit` bytes. No more of it is made than that: a file may be larger than all that is shown.
fn section(service: &ServiceDiff<'_>, limit: usize, cut: Cut) -> Option<String> {
    let effect = if service.name.is_some() { service.impact.effect.words() } else { "" };
    let mut text = format!("\n<details><summary>{} {effect}</summary>\n\n", name(service));
    if let Some((key, place)) = &service.place {
        let key = if key.is_empty() { "the pillar" } else { key };
        text.push_str(&format!("<code>{}</code> at <code>{}</code>\n\n", escaped(key), escaped(place)));
    }
    if !service.impact.commands.is_empty() {
        let lines: Vec<_> = service.impact.commands.iter().map(|command| visible(command)).collect();
        text.push_str(&fenced("sh", &lines.join("\n")));
    }
    let kept = if cut == Cut::No { END.len() } else { NOTES };
    for (at, entry) in service.entries.iter().enumerate() {
        let room = limit.checked_sub(text.len() + kept);
        match room.and_then(|room| path(entry, room)) {
            Some(part) => text.push_str(&part),
            None if cut == Cut::No => return None,
            None => {
                let rest = service.entries.len() - at;
                text.push_str(&format!("{rest} more paths are left out.\n\n"));
                break;
            }
        }
    }
    text.push_str(END);
    (text.len() <= limit).then_some(text)
}

/// What differs at one path, if it fits `room` bytes.
fn path(entry: &EntryDiff<'_>, room: usize) -> Option<String> {
    let mut part = format!("<code>{}</code>", escaped(entry.path));
    let mut notes = facts(entry);
    if entry.secret {
        notes.push("secret".to_owned());
    }
    notes.extend(Some(causes(&entry.causes)).filter(|causes| !causes.is_empty()));
    if !notes.is_empty() {
        part.push_str(&format!(": {}", escaped(&notes.join("; "))));
    }
    part.push_str("\n\n");
    let mut lines = String::new();
    for hunk in &entry.hunks {
        let header = if entry.secret { "@@ secret @@".to_owned() } else { hunk.header() };
        lines.push_str(format!("{header} {}", causes(&hunk.causes)).trim_end());
        lines.push('\n');
        for line in &hunk.lines {
            lines.push(line.sign.character());
            lines.push_str(&shown(&line.text));
            lines.push('\n');
            if !line.newline {
                lines.push_str("\\ No newline at end of file\n");
            }
            if part.len() + lines.len() > room {
                return None;
            }
        }
    }
    if let Some(lines) = lines.strip_suffix('\n') {
        part.push_str(&fenced("diff", lines));
    }
    (part.len() <= room).then_some(part)
}

/// A block of code whose fence is longer than any run of backticks in it.
fn fenced(language: &str, text: &str) -> String {
    let mut longest = 2;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    format!("{fence}{language}\n{text}\n{fence}\n\n")
}

/// Text that neither Markdown nor HTML takes for its own, and that mentions nobody.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '@' | '\\' | '!' | '$' | ':' => {
                out.push_str(&format!("&#{};", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_what_is_in_it() {
        assert_eq!(fenced("diff", "a```b"), "````diff\na```b\n````\n\n");
        assert_eq!(fenced("", "a"), "```\na\n```\n\n");
    }

    #[test]
    fn nothing_is_markup() {
        assert_eq!(escaped("<b>|`@x*"), "&lt;b&gt;&#124;&#96;&#64;x&#42;");
    }
}
