//! What a change does: which files, which lines, what it means for a service that runs, and what in
//! the pillars caused it. Two trees and what is known of them in, a value for the reports out.

pub mod hunks;
pub mod impact;
pub mod provenance;
pub mod script;
pub mod words;

mod mask;
mod owner;
mod service;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::failure::Failure;
use crate::model::veil::{MASK, Veil};
use crate::record::Site;
use crate::services::{Known, Services, in_parallel};
use crate::source::Sources;
use crate::steps::is_within;
use crate::template::Templates;
use crate::tree::{Entry, How, Kind, Seen, Tree};
use hunks::{CONTEXT, Hunk, Line, MOST_SHOWN, Sign, hunks};
use impact::{Effects, Impact};
use owner::Owners;
use provenance::{Cause, Memo, Tracer};

/// One side of a comparison.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What is there, or would be.
    pub tree: &'a Tree,
    /// What made it; `None` for what was read from a disk.
    pub host: Option<&'a Services>,
    /// Of what was read from a disk, where services lie by what is written down about them.
    pub sites: &'a [Site],
    /// What it was rendered with.
    pub templates: &'a Templates,
}

/// Everything that differs.
#[derive(Debug, Default)]
pub struct Diff<'a> {
    /// Services with a difference, by name; last, without a name, what belongs to none.
    pub services: Vec<ServiceDiff<'a>>,
    /// All was compared: nothing on the old side could not be read.
    pub is_whole: bool,
    /// Of some services the causes are not known, because to find them would take too long.
    pub lacks_causes: bool,
}

/// What differs in one service.
#[derive(Debug)]
pub struct ServiceDiff<'a> {
    /// Its name; `None` for what belongs to no service that is known.
    pub name: Option<String>,
    /// Its key in the pillar, and where that stands: on the new side if it is there, else on the old.
    pub place: Option<(String, String)>,
    /// What the change does to it while it runs.
    pub impact: Impact,
    /// What differs, in the order of the paths.
    pub entries: Vec<EntryDiff<'a>>,
}

/// What differs at one path.
#[derive(Debug)]
pub struct EntryDiff<'a> {
    /// The path.
    pub path: &'a str,
    /// What was there.
    pub old: Option<&'a Entry>,
    /// What is to be there.
    pub new: Option<&'a Entry>,
    /// Every way to differ.
    pub ways: Vec<How>,
    /// Its content is a secret on either side, and its hunks show none of it.
    pub secret: bool,
    /// Its content is not secret and holds the value of a secret, which is masked in its hunks.
    pub masked: bool,
    /// What changed in its content; of a file that comes or goes all of it.
    pub hunks: Vec<Hunk<'a>>,
    /// There are no hunks, though the content differs.
    pub unshown: Option<Unshown>,
    /// What in the pillars caused that it comes, goes, or has another mode, owner or target.
    pub causes: Vec<Cause>,
    /// What is there was not made by runsmith: no record names it.
    pub foreign: bool,
}

/// The lines of a run that are shown, at the most. Nobody reads so many, and they are in memory at once.
pub const MOST_SHOWN_OF_ALL: usize = 4_000_000;

/// So many lines are looked for at once, before those that are too many are left out.
const LINES_AT_ONCE: usize = 1_000_000;

/// Content that differs and is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unshown {
    /// Lines that come; of a file that was not compared all that it has now.
    pub added: usize,
    /// Lines that go; of a file that was not compared all that it had.
    pub removed: usize,
    /// Why.
    pub why: WhyUnshown,
}

/// Why content is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyUnshown {
    /// The file has more than [`MOST_SHOWN`] lines, and was not compared.
    Long,
    /// All files together have more than [`MOST_SHOWN_OF_ALL`] lines that would be shown.
    Many,
    /// It was not made by runsmith, as far as that is known, and is not to be shown.
    Withheld,
}

impl WhyUnshown {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Many => "many",
            Self::Withheld => "withheld",
        }
    }
}

impl Diff<'_> {
    /// Marks the paths that hold what runsmith did not make.
    pub fn mark_foreign(&mut self, paths: &HashSet<&str>) {
        for entry in self.services.iter_mut().flat_map(|service| &mut service.entries) {
            entry.foreign = paths.contains(entry.path);
        }
    }
}

impl EntryDiff<'_> {
    /// Does the content differ, or come or go?
    pub fn touches_content(&self) -> bool {
        let file = |entry: Option<&Entry>| entry.is_some_and(|entry| matches!(entry.kind, Kind::File(_)));
        let whole = |how: &How| matches!(how, How::Created(_) | How::Removed(_) | How::Kind { .. });
        self.ways
            .iter()
            .any(|how| matches!(how, How::Content) || whole(how) && (file(self.old) || file(self.new)))
    }
}

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Compare owners and groups; who is not root cannot set them.
    pub owners: bool,
    /// Show the content of secret files.
    pub show_secrets: bool,
    /// Work out what in the pillars caused each hunk.
    pub causes: bool,
    /// So many services are worked out at once; the result is the same with any number.
    pub threads: usize,
    /// Paths of which nobody knows what is there and below: they are left out.
    pub unknown: &'a [String],
    /// Paths of which the content on the old side is not shown: it may be anybody's.
    pub withheld: &'a HashSet<String>,
}

impl Options<'_> {
    fn is_unknown(&self, path: &str) -> bool {
        self.unknown.iter().any(|unknown| is_within(path, unknown))
    }
}

/// Compares two sides; `sources` are those that the places of both point into.
///
/// # Errors
/// A template that fails while causes are looked for, though it did not before.
pub fn diff<'a>(
    old: Side<'a>,
    new: Side<'a>,
    sources: &Sources,
    options: Options<'_>,
) -> Result<Diff<'a>, Failure> {
    let pairs = differing(old.tree, new.tree, options.owners);
    let goes = pairs.iter().any(|(_, is)| is.is_none());
    let owners = Owners::of(old, new, goes);
    let mut found: BTreeMap<Option<String>, Vec<(&'a str, Indexed<'a>, Indexed<'a>)>> = BTreeMap::new();
    for (was, is) in pairs {
        let path = was.or(is).map(|(_, entry)| entry.path.as_str()).unwrap_or_default();
        if !options.is_unknown(path) {
            let name = owners.of_entry(was.map(|(at, _)| at), is.map(|(at, _)| at), path);
            found.entry(name).or_default().push((path, was, is));
        }
    }
    // What belongs to no service comes last.
    let unowned = found.remove(&None);
    let named: Vec<_> = found.into_iter().chain(unowned.map(|entries| (None, entries))).collect();
    let sites: HashMap<&str, &Site> = old.sites.iter().map(|site| (site.service.as_str(), site)).collect();
    let memo = Memo::default();
    let hides = !options.show_secrets && !named.is_empty();
    let veil = if hides { Veil::over(old.tree.secrets().chain(new.tree.secrets())) } else { Veil::default() };
    let one = |(name, pairs): (Option<String>, Vec<(&'a str, Indexed<'a>, Indexed<'a>)>)| {
        let pairs = pairs.into_iter().map(|(path, was, is)| {
            entry_diff(path, was.map(|(_, entry)| entry), is.map(|(_, entry)| entry), options)
        });
        let mut entries: Vec<EntryDiff<'a>> = pairs.collect();
        let (was, is) = (known(old, name.as_deref()), known(new, name.as_deref()));
        let place = is.or(was).map(|known| (known.key.clone(), sources.place(known.span)));
        let to = is.map(service::site);
        let from = match old.host {
            Some(_) => was.map(service::site),
            None => from(old, &sites, is, name.as_deref(), || owners.directory_of(name.as_deref())),
        };
        let mut impact = match &name {
            Some(_) => service::impact(&entries, old.tree, from.as_ref(), to.as_ref()),
            None => Effects::default().impact("", 0),
        };
        if options.causes {
            let tracer =
                Tracer { old, new, was, is, from: from.as_ref(), to: to.as_ref(), sources, memo: &memo };
            tracer.trace(&mut entries)?;
        }
        if !options.show_secrets {
            mask::mask(&mut entries, was, is, &veil);
            impact.reasons.iter_mut().for_each(|reason| *reason = veil.cover(reason).into_owned());
        }
        Ok(ServiceDiff { name, place, impact, entries })
    };
    // Some at a time, so that what is too much is never in memory; which these are depends on the lines alone.
    let mut services = vec![];
    let mut shown = 0;
    let mut waiting = named.into_iter().peekable();
    while waiting.peek().is_some() {
        let mut lines = 0_usize;
        let mut some = vec![];
        while lines < LINES_AT_ONCE
            && let Some(next) = waiting.next()
        {
            lines =
                next.1.iter().fold(lines, |lines, (_, was, is)| lines.saturating_add(lines_of(*was, *is)));
            some.push(next);
        }
        for service in in_parallel(some, options.threads, one) {
            let mut service = service?;
            limit(&mut service, &mut shown);
            services.push(service);
        }
    }
    Ok(Diff { services, is_whole: options.unknown.is_empty(), lacks_causes: memo.is_spent() })
}

/// Where a service lies on a disk: by its record, if what that says is still so, or by what is there.
fn from(
    old: Side<'_>,
    sites: &HashMap<&str, &Site>,
    is: Option<&Known>,
    name: Option<&str>,
    directory: impl FnOnce() -> Option<String>,
) -> Option<Site> {
    let name = name?;
    let site = sites.get(name).copied();
    let elsewhere = |site: &&Site| is.is_none_or(|is| is.service.service.directory != site.directory);
    let holds = |site: &&Site| elsewhere(site) || service::is_there(old.tree, &site.directory);
    let found = is.and_then(|is| service::found(old.tree, is));
    let linked = |site: &&Site| site.link.is_some();
    site.filter(linked)
        .or(found.as_ref().filter(linked))
        .or(site.filter(holds))
        .or(found.as_ref())
        .cloned()
        .or_else(|| Some(service::gone(old.tree, name, directory().filter(|_| is.is_none())?)))
}

fn known<'a>(side: Side<'a>, name: Option<&str>) -> Option<&'a Known> {
    let (host, name) = (side.host?, name?);
    // A host of 10,000 services is asked for each that differs: those are in the order of their names, mostly.
    let services = &host.known;
    let guess = services.partition_point(|known| known.service.application.as_str() < name);
    let is = |known: &&Known| known.service.application == name;
    services.get(guess).filter(is).or_else(|| services.iter().find(is))
}

/// An entry and its index in its tree.
type Indexed<'a> = Option<(usize, &'a Entry)>;

/// Pairs of entries that differ; one is missing where something comes or goes.
fn differing<'a>(old: &'a Tree, new: &'a Tree, owners: bool) -> Vec<(Indexed<'a>, Indexed<'a>)> {
    let mut pairs = vec![];
    let mut have = old.entries().iter().enumerate().peekable();
    for (at, want) in new.entries().iter().enumerate() {
        while let Some(gone) = have.next_if(|(_, old)| old.path < want.path) {
            pairs.push((Some(gone), None));
        }
        match have.next_if(|(_, old)| old.path == want.path) {
            Some(same) if ways(same.1, want, owners).is_empty() => {}
            other => pairs.push((other, Some((at, want)))),
        }
    }
    pairs.extend(have.map(|gone| (Some(gone), None)));
    pairs
}

/// How many lines can be shown of what differs at a path.
fn lines_of(was: Indexed<'_>, is: Indexed<'_>) -> usize {
    let (was, is) = (bytes(was.map(|(_, entry)| entry)), bytes(is.map(|(_, entry)| entry)));
    if was == is { 0 } else { hunks::at_most(was, is) }
}

/// Leaves out the hunks of what is too much, with those that are `shown` already.
fn limit(service: &mut ServiceDiff<'_>, shown: &mut usize) {
    for entry in &mut service.entries {
        let lines: usize = entry.hunks.iter().map(|hunk| hunk.lines.len()).sum();
        if *shown + lines <= MOST_SHOWN_OF_ALL {
            *shown += lines;
            continue;
        }
        let of =
            |sign| entry.hunks.iter().flat_map(|hunk| &hunk.lines).filter(|line| line.sign == sign).count();
        entry.unshown =
            Some(Unshown { added: of(Sign::Added), removed: of(Sign::Removed), why: WhyUnshown::Many });
        entry.hunks = vec![];
    }
}

/// The content of a file; nothing of anything else.
fn bytes(entry: Option<&Entry>) -> &[u8] {
    match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => bytes,
        _ => &[],
    }
}

fn ways(old: &Entry, new: &Entry, owners: bool) -> Vec<How> {
    let mut seen = Seen::from(old);
    if !owners {
        seen.owner = None;
    }
    seen.differs_from(new)
}

fn entry_diff<'a>(
    path: &'a str,
    old: Option<&'a Entry>,
    new: Option<&'a Entry>,
    options: Options<'_>,
) -> EntryDiff<'a> {
    let ways = match (old, new) {
        (Some(old), Some(new)) => ways(old, new, options.owners),
        (None, Some(new)) => vec![How::Created(new.kind.word())],
        (Some(old), None) => vec![How::Removed(old.kind.word())],
        (None, None) => vec![],
    };
    let secret = [old, new].into_iter().flatten().any(|entry| entry.secret);
    let mut found = EntryDiff {
        path,
        old,
        new,
        ways,
        secret,
        masked: false,
        hunks: vec![],
        unshown: None,
        causes: vec![],
        foreign: false,
    };
    if !found.touches_content() {
        return found;
    }
    let (was, is) = (bytes(old), bytes(new));
    if secret && !options.show_secrets {
        found.hunks = masked(was, is);
        return found;
    }
    let (removed, added) = (hunks::count(was), hunks::count(is));
    if options.withheld.contains(path) {
        found.unshown = Some(Unshown { added, removed, why: WhyUnshown::Withheld });
    } else if removed.max(added) > MOST_SHOWN {
        found.unshown = Some(Unshown { added, removed, why: WhyUnshown::Long });
    } else {
        found.hunks = hunks(was, is, CONTEXT);
    }
    found
}

/// A hunk that says that a secret changed and nothing of it.
fn masked(old: &[u8], new: &[u8]) -> Vec<Hunk<'static>> {
    let line = |sign| Line { sign, text: MASK.as_bytes().into(), newline: true };
    let mut lines = vec![];
    if !old.is_empty() {
        lines.push(line(Sign::Removed));
    }
    if !new.is_empty() {
        lines.push(line(Sign::Added));
    }
    let count = |bytes: &[u8]| usize::from(!bytes.is_empty());
    let (old_lines, new_lines) = (count(old), count(new));
    vec![Hunk { old_start: 0, old_lines, new_start: 0, new_lines, lines, causes: vec![] }]
}
