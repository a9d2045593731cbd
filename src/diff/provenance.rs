//! Which keys of a pillar a line comes from.
//!
//! A line comes from a key if another value of the key makes another line. That is tried: each value
//! of the model is varied on its own, the service is planned again, and what is different then comes
//! from it. It holds for every template, filter and loop, for `--templates` too, and costs nothing
//! where nobody asks.

use std::sync::Arc;

use super::hunks::{Hunk, Sign, removed};
use super::{EntryDiff, Side};
use crate::failure::Failure;
use crate::model::Service;
use crate::pillar::{Node, Value};
use crate::plan::plan;
use crate::services::Known;
use crate::source::Sources;
use crate::template::Templates;
use crate::tree::{Entry, How, Kind};

mod leaf;

use leaf::{Leaf, leaves};

/// A value of the model that had a part in a difference, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its name, as the pillar's keys are called: `gunicorn.timeout`.
    pub key: String,
    /// Where the old value comes from; `None` where it was not there, or nobody knows.
    pub old: Option<Origin>,
    /// Where the new value comes from; `None` where it is not there any more.
    pub new: Option<Origin>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// How it came.
    pub kind: OriginKind,
    /// The key that was written; of runsmith's own default the key that could be.
    pub key: String,
    /// `file:line:column` of the value as it is written.
    pub place: Option<String>,
    /// Where that value was called in, by an alias or a merge key.
    pub via: Option<String>,
}

/// How a value came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginKind {
    /// It is written at the application.
    Written,
    /// It is written in `defaults`.
    Defaults,
    /// It is runsmith's default, made of another key that is written.
    Derived,
    /// It is runsmith's own default.
    Runsmith,
}

impl OriginKind {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Defaults => "defaults",
            Self::Derived => "derived",
            Self::Runsmith => "runsmith",
        }
    }
}

/// Finds out what caused the differences of one service.
pub(super) struct Tracer<'a> {
    pub(super) old: Side<'a>,
    pub(super) new: Side<'a>,
    pub(super) was: Option<&'a Known>,
    pub(super) is: Option<&'a Known>,
    pub(super) sources: &'a Sources,
}

impl Tracer<'_> {
    /// Fills in the causes of entries and hunks.
    pub(super) fn trace(&self, entries: &mut [EntryDiff<'_>]) -> Result<(), Failure> {
        // What comes or goes with its service has no other cause.
        let Some(is) = self.is else { return Ok(()) };
        if self.old.host.is_some() && self.was.is_none() || is_new(entries) {
            return Ok(());
        }
        let mut differing = None;
        if let Some(was) = self.was {
            differing = Some(differing_keys(was, is));
        }
        for (known, side, sign) in [(self.was, self.old, Sign::Removed), (self.is, self.new, Sign::Added)] {
            let Some(known) = known else { continue };
            let base = plan(&known.service, &known.key, side.templates)?;
            for leaf in leaves(known) {
                // With another kind of run script every line is another one; it counts if it did change.
                let counts = match &differing {
                    Some(keys) => keys.contains(&leaf.key),
                    None => leaf.key != "run_script",
                };
                if !counts {
                    continue;
                }
                for varied in leaf.variations(known, side.templates)? {
                    note(&leaf, &base, &varied, sign, differing.is_some(), entries);
                }
            }
        }
        for entry in entries {
            let (was, is) = (self.was, self.is);
            let all = entry.hunks.iter_mut().map(|hunk| &mut hunk.causes).chain([&mut entry.causes]);
            for causes in all {
                for cause in causes.iter_mut() {
                    cause.old = was.and_then(|known| origin(known, &cause.key, self.sources));
                    cause.new = is.and_then(|known| origin(known, &cause.key, self.sources));
                }
                // What somebody wrote says more than what nobody did.
                causes.sort_by_key(|cause| {
                    let kinds =
                        [&cause.old, &cause.new].into_iter().flatten().map(|origin| origin.kind as u8);
                    kinds.min().unwrap_or(u8::MAX)
                });
            }
        }
        Ok(())
    }
}

/// Notes the leaf wherever its variation makes a difference that is one between the sides, too.
/// `changed` says that the leaf is known to differ: then it is also what moved an entry.
fn note(
    leaf: &Leaf,
    base: &[Entry],
    varied: &[Entry],
    sign: Sign,
    changed: bool,
    entries: &mut [EntryDiff<'_>],
) {
    for found in entries {
        let Some(at) = base.iter().position(|entry| entry.path == found.path) else { continue };
        let own = &base[at];
        let there = varied.iter().find(|entry| entry.path == found.path);
        // It may only have moved.
        let moved = varied.get(at).filter(|_| varied.len() == base.len());
        let comes_or_goes = found.old.is_none() || found.new.is_none();
        if comes_or_goes && there.is_none() && (changed || moved.is_none()) {
            push(&mut found.causes, &leaf.key);
        }
        let Some(other) = there.or(moved) else { continue };
        if !comes_or_goes && found.ways.iter().any(|how| is_way(how, own, other)) {
            push(&mut found.causes, &leaf.key);
        }
        let (Kind::File(own), Kind::File(other)) = (&own.kind, &other.kind) else { continue };
        if own == other {
            continue;
        }
        if found.secret {
            found.hunks.iter_mut().for_each(|hunk| push(&mut hunk.causes, &leaf.key));
            continue;
        }
        let touched = removed(own, other);
        for hunk in &mut found.hunks {
            if touches(hunk, sign, &touched) {
                push(&mut hunk.causes, &leaf.key);
            }
        }
    }
}

/// Does the service itself come, on a side that has no pillar?
fn is_new(entries: &[EntryDiff<'_>]) -> bool {
    let run = entries.iter().find(|entry| entry.path.ends_with("/run") && !entry.path.ends_with("/log/run"));
    run.is_some_and(|run| run.old.is_none() || run.new.is_none())
        && entries.iter().all(|entry| entry.old.is_none() || entry.new.is_none())
}

/// Do two entries differ in that way?
fn is_way(how: &How, a: &Entry, b: &Entry) -> bool {
    match how {
        How::Mode { .. } => a.mode != b.mode,
        How::Owner { .. } => a.owner != b.owner,
        How::Group { .. } => a.group != b.group,
        How::Target { .. } => a.kind != b.kind,
        How::Created(_) | How::Removed(_) | How::Kind { .. } | How::Content => false,
    }
}

fn touches(hunk: &Hunk, sign: Sign, touched: &[usize]) -> bool {
    hunk.changed(sign).iter().any(|line| touched.binary_search(line).is_ok())
}

fn push(causes: &mut Vec<Cause>, key: &str) {
    if !causes.iter().any(|cause| cause.key == key) {
        causes.push(Cause { key: key.to_owned(), old: None, new: None });
    }
}

/// Values of the model that are not the same in two services.
fn differing_keys(old: &Known, new: &Known) -> Vec<String> {
    let (was, is) = (leaves(old), leaves(new));
    let mut keys: Vec<String> = vec![];
    for (one, other) in [(&was, &is), (&is, &was)] {
        for leaf in one {
            let same = other.iter().any(|known| known.key == leaf.key && known.value == leaf.value);
            if !same && !keys.contains(&leaf.key) {
                keys.push(leaf.key.clone());
            }
        }
    }
    keys
}

/// A line of a rendered file and what it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The line, without its newline.
    pub text: String,
    /// What it comes from; nothing if it is the template's own.
    pub origins: Vec<(String, Origin)>,
}

/// What each line of one rendered file comes from. The path must be one of the service's files.
///
/// # Errors
/// As [`plan`].
pub fn explain(
    known: &Known,
    path: &str,
    templates: &Templates,
    sources: &Sources,
) -> Result<Option<Vec<Explained>>, Failure> {
    let base = plan(&known.service, &known.key, templates)?;
    let Some(at) = base.iter().position(|entry| entry.path == path) else { return Ok(None) };
    let Kind::File(own) = &base[at].kind else { return Ok(None) };
    let text = String::from_utf8_lossy(own);
    let mut lines: Vec<Explained> =
        text.lines().map(|line| Explained { text: line.to_owned(), origins: vec![] }).collect();
    for leaf in leaves(known) {
        let mut touched: Vec<usize> = vec![];
        // With another kind of run script every line is another one.
        for varied in leaf.variations(known, templates)?.iter().filter(|_| leaf.key != "run_script") {
            let there = varied.iter().find(|entry| entry.path == path);
            let moved = varied.get(at).filter(|_| varied.len() == base.len());
            if let Some(Entry { kind: Kind::File(other), .. }) = there.or(moved) {
                touched.extend(removed(own, other));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let Some(origin) = origin(known, &leaf.key, sources) else { continue };
        for line in touched {
            if let Some(line) = lines.get_mut(line) {
                line.origins.push((leaf.key.clone(), origin.clone()));
            }
        }
    }
    Ok(Some(lines))
}

/// Where a value of the model comes from; `None` if the service has no such value.
fn origin(known: &Known, key: &str, sources: &Sources) -> Option<Origin> {
    let leaf = leaves(known).into_iter().find(|leaf| leaf.key == key)?;
    let make = |kind, key: &str, node: &Node| Origin {
        kind,
        key: key.to_owned(),
        place: Some(sources.place(node.span)),
        via: node.via.map(|via| sources.place(via)),
    };
    for (at, steps) in leaf.written.iter().enumerate() {
        if let Some(node) = written(&known.node, steps) {
            let derived = at >= leaf.own;
            let kind = match (derived, is_default(known, node)) {
                (true, _) => OriginKind::Derived,
                (false, true) => OriginKind::Defaults,
                (false, false) => OriginKind::Written,
            };
            return Some(make(kind, steps.join(".").trim_end_matches(".="), node));
        }
    }
    let (kind, place) = match key {
        // The key in `applications`.
        "application" => (OriginKind::Written, Some(sources.place(known.span))),
        _ => (OriginKind::Runsmith, None),
    };
    Some(Origin { kind, key: key.to_owned(), place, via: None })
}

/// The value at these steps. Nothing (`null`) is as good as no key. A step `=` asks for a value that
/// is not a map: the short form of a key that also takes a map.
fn written<'a>(node: &'a Node, steps: &[String]) -> Option<&'a Node> {
    let short = steps.last().is_some_and(|last| last == "=");
    let steps = if short { &steps[..steps.len() - 1] } else { steps };
    let node = node.find(steps.iter().map(String::as_str))?;
    match node.value {
        Value::Null => None,
        Value::Map(_) if short => None,
        _ => Some(node),
    }
}

/// Was it written outside the application itself, in `defaults`?
fn is_default(known: &Known, node: &Node) -> bool {
    let (own, at) = (known.node.span, node.span);
    let inside = at.source == own.source && at.start >= own.start && at.end <= own.end;
    !inside && node.via.is_none()
}

impl Leaf {
    /// The service's entries with other values of this leaf.
    fn variations(&self, known: &Known, templates: &Templates) -> Result<Vec<Vec<Entry>>, Failure> {
        let mut all = vec![];
        for vary in &self.vary {
            let mut service = Service::clone(&known.service);
            vary(&mut service);
            all.push(plan(&Arc::new(service), &known.key, templates)?);
        }
        Ok(all)
    }
}
