//! Which keys of a pillar a line comes from.
//!
//! A line comes from a key if another value of the key makes another line. That is tried: each value
//! of the model is varied on its own, the service is planned again, and what is different then comes
//! from it ([`trace`]). It holds for every template, filter and loop, for `--templates` too, and costs
//! nothing where nobody asks. What was found for a file holds for others that are alike ([`memo`]). Of
//! what lies on a host there is no pillar: its own lines say which keys it had ([`host`]).

use super::hunks::{MOST_SHOWN, count, removed};
use crate::failure::Failure;
use crate::pillar::{Node, Value};
use crate::plan::plan;
use crate::services::Known;
use crate::source::Sources;
use crate::template::Templates;
use crate::tree::{Entry, Kind};
use crate::visible::visible;

mod host;
mod leaf;
mod memo;
mod trace;

use leaf::{Leaf, leaves};

pub(super) use memo::Memo;
pub(super) use trace::Tracer;

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
    /// It lies on the host, and which pillar it came from is not known.
    Host,
}

impl OriginKind {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Defaults => "defaults",
            Self::Derived => "derived",
            Self::Runsmith => "runsmith",
            Self::Host => "host",
        }
    }
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
    let count = count(own);
    if count > MOST_SHOWN {
        return Err(Failure::Usage(format!(
            "--explain: {} has {count} lines; the most that are explained are {MOST_SHOWN}",
            visible(path)
        )));
    }
    let text = String::from_utf8_lossy(own);
    let mut lines: Vec<Explained> =
        text.lines().map(|line| Explained { text: line.to_owned(), origins: vec![] }).collect();
    let leaves = leaves(known);
    for leaf in &leaves {
        let mut touched: Vec<usize> = vec![];
        // With another kind of run script every line is another one.
        for varied in trace::variations(leaf, known, templates)?.iter().filter(|_| leaf.key != "run_script") {
            let there = varied.iter().find(|entry| entry.path == path);
            let moved = varied.get(at).filter(|_| varied.len() == base.len());
            if let Some(Entry { kind: Kind::File(other), .. }) = there.or(moved) {
                touched.extend(removed(own, other));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let Some(origin) = origin(known, &leaves, &leaf.key, sources) else { continue };
        for line in touched {
            if let Some(line) = lines.get_mut(line) {
                line.origins.push((leaf.key.clone(), origin.clone()));
            }
        }
    }
    Ok(Some(lines))
}

/// Where a value of the model comes from; `None` if the service has no such value.
fn origin(known: &Known, leaves: &[Leaf], key: &str, sources: &Sources) -> Option<Origin> {
    let leaf = leaves.iter().find(|leaf| leaf.key == key)?;
    let make = |kind, key: &str, node: &Node| Origin {
        kind,
        key: key.to_owned(),
        place: Some(sources.place(node.span)),
        via: node.via.map(|via| sources.place(via)),
    };
    for (at, path) in leaf.written.iter().enumerate() {
        if let Some(node) = written(&known.node, path) {
            let derived = at >= leaf.own;
            let kind = match (derived, is_default(known, node)) {
                (true, _) => OriginKind::Derived,
                (false, true) => OriginKind::Defaults,
                (false, false) => OriginKind::Written,
            };
            return Some(make(kind, path.trim_end_matches(".="), node));
        }
    }
    let (kind, place) = match key {
        // The key in `applications`.
        "application" => (OriginKind::Written, Some(sources.place(known.span))),
        _ => (OriginKind::Runsmith, None),
    };
    Some(Origin { kind, key: key.to_owned(), place, via: None })
}

/// The value at this path, as [`Leaf::written`] has it. Nothing (`null`) is as good as no key.
fn written<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    let short = path.strip_suffix(".=");
    let node = node.find(short.unwrap_or(path).split('.'))?;
    match node.value {
        Value::Null => None,
        Value::Map(_) if short.is_some() => None,
        _ => Some(node),
    }
}

/// Was it written outside the application itself, in `defaults`?
fn is_default(known: &Known, node: &Node) -> bool {
    let (own, at) = (known.node.span, node.span);
    let inside = at.source == own.source && at.start >= own.start && at.end <= own.end;
    !inside && node.via.is_none()
}
