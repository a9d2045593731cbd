//! What a change does, for people, for `git apply`, for a pull request and for programs.

mod explain;
mod json;
mod markdown;
mod patch;
mod stat;
mod text;

use std::fmt::Write as _;

use crate::diff::hunks::Sign;
use crate::diff::provenance::{Cause, Origin, OriginKind};
use crate::diff::{Diff, EntryDiff, MOST_SHOWN_OF_ALL, ServiceDiff, Unshown, WhyUnshown};
use crate::tree::{How, Kind};
use crate::visible::visible;

pub use explain::{explained, explained_json};
pub use json::json;
pub use markdown::{GITHUB_LIMIT, markdown};
pub use patch::{LeftOut, patch};
pub use stat::stat;
pub use text::text;

/// How many causes a line for people names.
const MOST_CAUSES: usize = 4;

/// How much differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Services with a difference.
    pub services: usize,
    /// Paths that come.
    pub added: usize,
    /// Paths that go.
    pub removed: usize,
    /// Paths that stay and change.
    pub changed: usize,
    /// Lines that come.
    pub lines_added: usize,
    /// Lines that go.
    pub lines_removed: usize,
    /// Something could not be read, so it was not compared.
    pub is_partial: bool,
}

impl Summary {
    /// Counts.
    pub fn of(diff: &Diff<'_>) -> Self {
        let mut summary = Self {
            services: diff.services.iter().filter(|one| one.name.is_some()).count(),
            is_partial: !diff.is_whole,
            ..Self::default()
        };
        for entry in diff.services.iter().flat_map(|service| &service.entries) {
            match (entry.old, entry.new) {
                (None, _) => summary.added += 1,
                (_, None) => summary.removed += 1,
                _ => summary.changed += 1,
            }
            let (added, removed) = counts(entry);
            summary.lines_added += added;
            summary.lines_removed += removed;
        }
        summary
    }

    /// One line: `2 services change; 1 path added, 3 changed, 0 removed; 5 lines added, 3 removed`.
    pub fn line(self) -> String {
        if self == Self::default() {
            return "nothing changes".to_owned();
        }
        let partial = if self.is_partial { "; what cannot be read is not compared" } else { "" };
        if self == (Self { is_partial: true, ..Self::default() }) {
            return format!("no change is seen{partial}");
        }
        let services = match self.services {
            1 => "1 service changes".to_owned(),
            count => format!("{count} services change"),
        };
        let paths = if self.added == 1 { "1 path" } else { &format!("{} paths", self.added) };
        let lines = if self.lines_added == 1 { "1 line" } else { &format!("{} lines", self.lines_added) };
        format!(
            "{services}; {paths} added, {} changed, {} removed; {lines} added, {} removed{partial}",
            self.changed, self.removed, self.lines_removed
        )
    }
}

/// Lines that are added and removed.
fn counts(entry: &EntryDiff<'_>) -> (usize, usize) {
    if let Some(unshown) = entry.unshown {
        return (unshown.added, unshown.removed);
    }
    let of = |sign| entry.hunks.iter().flat_map(|hunk| &hunk.lines).filter(|line| line.sign == sign).count();
    (of(Sign::Added), of(Sign::Removed))
}

/// What differs besides content, a clause each.
fn facts(entry: &EntryDiff<'_>) -> Vec<String> {
    let mut facts = vec![];
    if entry.foreign {
        facts.push("runsmith did not make what is there".to_owned());
    }
    if let Some(Unshown { added, removed, why }) = entry.unshown {
        facts.push(match why {
            WhyUnshown::Long => format!("too long to show: {removed} lines before, {added} after"),
            WhyUnshown::Withheld => "its content is not shown without --adopt: no record names it".to_owned(),
            WhyUnshown::Many => {
                format!("not shown, because more than {MOST_SHOWN_OF_ALL} lines differ: {added} lines added, {removed} removed")
            }
        });
    }
    for how in &entry.ways {
        match how {
            How::Content => {}
            How::Created(word) => {
                let mut fact = format!("new {word}");
                if let Some(new) = entry.new {
                    describe(new, &mut fact);
                }
                facts.push(fact);
            }
            How::Removed(word) => facts.push(format!("{word} removed")),
            How::Kind { old, new } => {
                let mut fact = format!("{old} becomes {new}");
                if let Some(new) = entry.new {
                    describe(new, &mut fact);
                }
                facts.push(fact);
            }
            How::Target { old, new } => facts.push(format!("target {} -> {}", visible(old), visible(new))),
            How::Mode { old, new } => facts.push(format!("mode {old:04o} -> {new:04o}")),
            How::Owner { old, new } => facts.push(format!("owner {} -> {}", visible(old), visible(new))),
            How::Group { old, new } => facts.push(format!("group {} -> {}", visible(old), visible(new))),
        }
    }
    facts
}

fn describe(entry: &crate::tree::Entry, out: &mut String) {
    let _ = match &entry.kind {
        Kind::Link(target) => write!(out, " -> {}", visible(target)),
        Kind::File(_) | Kind::Directory => write!(out, ", mode {:04o}", entry.mode),
    };
    let _ = write!(out, ", {}:{}", visible(&entry.owner), visible(&entry.group));
}

/// A service's name as a heading has it, and where it stands.
fn heading(service: &ServiceDiff<'_>) -> String {
    let Some(name) = &service.name else { return "belongs to no single service".to_owned() };
    match &service.place {
        Some((key, place)) if key.is_empty() => format!("{} ({})", visible(name), visible(place)),
        Some((key, place)) => format!("{} ({} at {})", visible(name), visible(key), visible(place)),
        None => visible(name).into_owned(),
    }
}

/// Causes as people read them: `gunicorn.timeout pillar.yaml:9:16; nice runsmith's default, was …`.
fn causes(causes: &[Cause]) -> String {
    let mut said: Vec<String> = causes.iter().take(MOST_CAUSES).map(cause).collect();
    if causes.len() > MOST_CAUSES {
        said.push(format!("and {} more", causes.len() - MOST_CAUSES));
    }
    said.join("; ")
}

fn cause(cause: &Cause) -> String {
    let key = visible(&cause.key);
    match (&cause.old, &cause.new) {
        (Some(old), Some(new)) if old.kind != new.kind => {
            format!("{key} {}, was {}", origin(new), origin(old))
        }
        (_, Some(new)) => format!("{key} {}", origin(new)),
        (Some(old), None) => format!("{key} is gone, was {}", origin(old)),
        (None, None) => key.into_owned(),
    }
}

/// Where a value comes from, as people read it.
fn origin(origin: &Origin) -> String {
    let place = visible(origin.place.as_deref().unwrap_or_default());
    let via = origin.via.as_deref().map(|via| format!(" by {}", visible(via))).unwrap_or_default();
    match origin.kind {
        OriginKind::Written => format!("{place}{via}"),
        OriginKind::Defaults => format!("{place}{via} (defaults)"),
        OriginKind::Derived => format!("default made of {} {place}{via}", visible(&origin.key)),
        OriginKind::Runsmith => "runsmith's default".to_owned(),
        OriginKind::Host => "on the host".to_owned(),
    }
}

/// A line's bytes as a terminal may show them.
fn shown(text: &[u8]) -> String {
    visible(&String::from_utf8_lossy(text).replace('\t', "    ")).into_owned()
}
