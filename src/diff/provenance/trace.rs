//! Tries other values of keys, and notes which differences they make.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::leaf::{Leaf, leaves};
use super::memo::{Budget, Key, Memo, OF_A_HOST, OF_PILLARS, Touched, outline, relative, shape};
use super::{Cause, OriginKind, host, origin};
use crate::diff::hunks::{Hunk, MOST_SHOWN, Sign, count, gained, removed};
use crate::diff::script::Script;
use crate::diff::service::beginning;
use crate::diff::{EntryDiff, Side, WhyUnshown};
use crate::failure::Failure;
use crate::model::Service;
use crate::plan::plan;
use crate::record::Site;
use crate::services::Known;
use crate::source::Sources;
use crate::template::Templates;
use crate::tree::{Entry, How, Kind};

/// Finds out what caused the differences of one service.
pub(in crate::diff) struct Tracer<'a> {
    pub(in crate::diff) old: Side<'a>,
    pub(in crate::diff) new: Side<'a>,
    /// The service by its pillars.
    pub(in crate::diff) was: Option<&'a Known>,
    pub(in crate::diff) is: Option<&'a Known>,
    /// Where it lay, and where it is to.
    pub(in crate::diff) from: Option<&'a Site>,
    pub(in crate::diff) to: Option<&'a Site>,
    pub(in crate::diff) sources: &'a Sources,
    pub(in crate::diff) memo: &'a Memo,
}

/// A pillar's side of one service.
struct Traced<'a> {
    known: &'a Known,
    templates: &'a Templates,
    sign: Sign,
    leaves: Vec<Leaf>,
    /// Its entries, if something had to be tried.
    base: Option<Vec<Entry>>,
    /// Bytes of entries that were made to try something.
    spent: usize,
}

/// What other values of a leaf do to each entry of a service, by its path.
type Tried = HashMap<String, Arc<Vec<Touched>>>;

/// Which keys can have caused anything.
enum Counts {
    /// Those that differ, and nothing else: both pillars are known.
    Differ(HashSet<String>),
    /// The old side is a host: what its run script tells, and that of the new side.
    Scripts(Option<Box<(Script, Script)>>, Vec<&'static str>),
}

impl Tracer<'_> {
    /// Fills in the causes of entries and hunks.
    pub(in crate::diff) fn trace(&self, entries: &mut [EntryDiff<'_>]) -> Result<(), Failure> {
        // What comes or goes with its service has no other cause.
        let (Some(is), Some(from), Some(to)) = (self.is, self.from, self.to) else { return Ok(()) };
        let mut new = Traced::new(is, self.new, Sign::Added);
        let mut old = self.was.map(|was| Traced::new(was, self.old, Sign::Removed));
        let counts = match &old {
            Some(old) => Counts::Differ(differing(&old.leaves, &new.leaves)),
            None => Counts::Scripts(self.scripts(from, to).map(Box::new), moved(from, to)),
        };
        for traced in old.iter_mut().chain([&mut new]) {
            if !traced.note(&counts, self.memo, entries)? {
                for entry in entries.iter_mut() {
                    entry.causes.clear();
                    entry.hunks.iter_mut().for_each(|hunk| hunk.causes.clear());
                }
                return Ok(());
            }
        }
        if let Counts::Scripts(scripts, moved) = &counts {
            host::note(scripts.as_deref(), moved, from, is, entries);
        }
        for entry in entries {
            for causes in entry.hunks.iter_mut().map(|hunk| &mut hunk.causes).chain([&mut entry.causes]) {
                for cause in causes.iter_mut() {
                    if let Some(old) = &old {
                        cause.old = origin(old.known, &old.leaves, &cause.key, self.sources);
                    }
                    cause.new = origin(is, &new.leaves, &cause.key, self.sources);
                }
                tidy(causes);
            }
        }
        Ok(())
    }

    /// The run scripts of both sides, if the old one is runsmith's.
    fn scripts(&self, from: &Site, to: &Site) -> Option<(Script, Script)> {
        let old = run_script(self.old, from).filter(|content| crate::record::is_marked(content))?;
        let script = |content: &[u8]| Script::read(&String::from_utf8_lossy(beginning(content)));
        Some((script(old), script(run_script(self.new, to)?)))
    }
}

fn run_script<'a>(side: Side<'a>, site: &Site) -> Option<&'a [u8]> {
    match &side.tree.get(&format!("{}/run", site.directory))?.kind {
        Kind::File(content) => Some(content),
        Kind::Directory | Kind::Link(_) => None,
    }
}

/// What runsvdir sees of a service, where that differs.
fn moved(from: &Site, to: &Site) -> Vec<&'static str> {
    let mut keys = vec![];
    if from.directory != to.directory {
        keys.push("service.directory");
    }
    match (&from.link, &to.link) {
        (Some(from), Some(to)) if from != to => keys.push("service.link"),
        (Some(_), None) | (None, Some(_)) => keys.push("service.enabled"),
        _ => {}
    }
    keys
}

impl Counts {
    /// Whether it is a host's service, and moves.
    fn moves(&self) -> bool {
        matches!(self, Self::Scripts(_, moved) if moved.contains(&"service.directory"))
    }

    /// What may be spent on trying.
    fn budget(&self) -> Budget {
        match self {
            Self::Differ(_) => OF_PILLARS,
            Self::Scripts(..) => OF_A_HOST,
        }
    }

    /// Whether a leaf can have caused anything, and whether that is certain.
    fn leaf(&self, key: &str) -> Option<bool> {
        match self {
            Self::Differ(keys) => keys.contains(key).then_some(true),
            Self::Scripts(_, moved) if moved.contains(&key) => Some(true),
            Self::Scripts(None, _) => (key != "run_script").then_some(false),
            Self::Scripts(Some(scripts), _) => {
                let (old, new) = &**scripts;
                if key == "run_script" {
                    return (old.native != new.native).then_some(true);
                }
                match host::field(key, old, new) {
                    // They are not written alike.
                    Some(_) if old.native != new.native => None,
                    Some(field) => (old.fields.get(field) != new.fields.get(field)).then_some(true),
                    None => Some(false),
                }
            }
        }
    }
}

impl<'a> Traced<'a> {
    fn new(known: &'a Known, side: Side<'a>, sign: Sign) -> Self {
        Self { known, templates: side.templates, sign, leaves: leaves(known), base: None, spent: 0 }
    }

    /// Notes each leaf that counts wherever another value of it makes a difference that is one between
    /// the sides, too.
    /// Gives up, with `false`, where that takes more than [`Memo`] allows.
    fn note(&mut self, counts: &Counts, memo: &Memo, entries: &mut [EntryDiff<'_>]) -> Result<bool, Failure> {
        let service = &self.known.service;
        // To try anything makes a copy of all files, which those that count may be too large for.
        let own = |found: &EntryDiff<'_>| {
            if self.sign == Sign::Added { found.new } else { found.old }.map_or(0, size)
        };
        let bytes: usize = entries.iter().map(own).sum();
        let is_long =
            |found: &EntryDiff<'_>| found.unshown.is_some_and(|unshown| unshown.why == WhyUnshown::Long);
        if entries.iter().any(is_long) || counts.budget().is_less_than(bytes) {
            memo.give_up();
            return Ok(false);
        }
        let shape = shape(&self.leaves, service);
        // What each difference is to the service on this side; nothing if the side has nothing there.
        let mut alike: Vec<Option<(Key, &Entry)>> = entries
            .iter()
            .map(|found| {
                let own = if self.sign == Sign::Added { found.new } else { found.old }?;
                Some(((shape, relative(service, found.path), outline(own), String::new()), own))
            })
            .collect();
        for at in 0..self.leaves.len() {
            let key = self.leaves[at].key.clone();
            let Some(certain) = counts.leaf(&key) else { continue };
            let mut tried: Option<Tried> = None;
            for (found, alike) in entries.iter_mut().zip(&mut alike) {
                let Some((alike, _)) = alike else { continue };
                alike.3.clone_from(&key);
                let touched = match memo.get(alike) {
                    Some(touched) => touched,
                    None => {
                        let all = match &tried {
                            Some(all) => all,
                            None => match self.tried(at, memo, counts.budget())? {
                                Some(all) => tried.insert(all),
                                None => return Ok(false),
                            },
                        };
                        let touched = all.get(found.path).cloned().unwrap_or_default();
                        memo.put(alike.clone(), Arc::clone(&touched));
                        touched
                    }
                };
                // A file that is new because everything moves is no other value's.
                let comes = found.old.is_none() && found.new.is_some();
                for touched in touched.iter().filter(|_| certain || !(comes && counts.moves())) {
                    note(&key, touched, self.sign, certain, found);
                }
            }
        }
        Ok(true)
    }

    /// What other values of a leaf do to each of the service's entries, by their paths; nothing if that costs too much.
    fn tried(&mut self, at: usize, memo: &Memo, budget: Budget) -> Result<Option<Tried>, Failure> {
        if self.base.is_none() {
            self.base = Some(plan(&self.known.service, &self.known.key, self.templates)?);
        }
        let base = self.base.as_deref().unwrap_or_default();
        /// What an item of a list or a map of the service costs each time that its files are rendered, in bytes of a file.
        const ITEM: usize = 512;
        let service = &self.known.service;
        let items = service.bind.len() + service.environment.len() + service.secrets.len();
        let bytes = base.iter().map(size).sum::<usize>() + ITEM * items;
        self.spent += bytes * self.leaves[at].vary.len();
        if !memo.spend(bytes * self.leaves[at].vary.len(), self.spent, budget) {
            return Ok(None);
        }
        let all = variations(&self.leaves[at], self.known, self.templates)?;
        let touched = |(at, own): (usize, &Entry)| {
            let each = all
                .iter()
                .map(|varied| touched(at, own, base, varied))
                .filter(|one| *one != Touched::default());
            (own.path.clone(), Arc::new(each.collect()))
        };
        Ok(Some(base.iter().enumerate().map(touched).collect()))
    }
}

/// Bytes of an entry, about.
fn size(entry: &Entry) -> usize {
    match &entry.kind {
        Kind::File(content) => content.len() + entry.path.len(),
        Kind::Directory | Kind::Link(_) => entry.path.len(),
    }
}

/// The service's entries with other values of this leaf.
pub(super) fn variations(
    leaf: &Leaf,
    known: &Known,
    templates: &Templates,
) -> Result<Vec<Vec<Entry>>, Failure> {
    let mut all = vec![];
    for vary in &leaf.vary {
        let mut service = Service::clone(&known.service);
        vary(&mut service);
        all.push(plan(&Arc::new(service), &known.key, templates)?);
    }
    Ok(all)
}

/// What became of the entry `own`, which is the one at `at` of `base`.
fn touched(at: usize, own: &Entry, base: &[Entry], varied: &[Entry]) -> Touched {
    let mut touched = Touched::default();
    // Mostly nothing comes or goes.
    let same = varied.get(at).filter(|entry| entry.path == own.path);
    let there = same.or_else(|| varied.iter().find(|entry| entry.path == own.path));
    let elsewhere = varied.get(at).filter(|_| varied.len() == base.len());
    touched.gone = there.is_none();
    touched.moved = touched.gone && elsewhere.is_some();
    let Some(other) = there.or(elsewhere) else { return touched };
    touched.mode = own.mode != other.mode;
    touched.owner = own.owner != other.owner;
    touched.group = own.group != other.group;
    match (&own.kind, &other.kind) {
        (Kind::File(own), Kind::File(other)) if own != other => {
            touched.content = true;
            // The lines of a longer one are not shown.
            if count(own).max(count(other)) <= MOST_SHOWN {
                touched.lines = removed(own, other);
                touched.gained = gained(own, other);
            }
        }
        (Kind::Link(own), Kind::Link(other)) => touched.target = own != other,
        _ => {}
    }
    touched
}

/// Notes the leaf where what its other values do is a difference between the sides, too. `certain`: it
/// is known to differ, and then it is also what moved an entry.
fn note(key: &str, touched: &Touched, sign: Sign, certain: bool, found: &mut EntryDiff<'_>) {
    let comes_or_goes = found.old.is_none() || found.new.is_none();
    if comes_or_goes && touched.gone && (certain || !touched.moved) {
        push(&mut found.causes, key);
    }
    if !comes_or_goes && found.ways.iter().any(|how| is_way(how, touched)) {
        push(&mut found.causes, key);
    }
    // Every value has a part in a file that comes or goes.
    if !touched.content || (comes_or_goes && !certain) {
        return;
    }
    for hunk in &mut found.hunks {
        if found.secret || touches(hunk, sign, touched) {
            push(&mut hunk.causes, key);
        }
    }
}

/// Does another value make an entry differ in that way?
fn is_way(how: &How, touched: &Touched) -> bool {
    match how {
        How::Mode { .. } => touched.mode,
        How::Owner { .. } => touched.owner,
        How::Group { .. } => touched.group,
        How::Target { .. } => touched.target,
        How::Created(_) | How::Removed(_) | How::Kind { .. } | How::Content => false,
    }
}

/// Are lines of the hunk others with another value, or are those of its other side what another value makes?
fn touches(hunk: &Hunk<'_>, sign: Sign, touched: &Touched) -> bool {
    let other = if sign == Sign::Added { Sign::Removed } else { Sign::Added };
    hunk.changed(sign).iter().any(|line| touched.lines.binary_search(line).is_ok())
        || hunk
            .lines
            .iter()
            .any(|line| line.sign == other && touched.gained.iter().any(|gained| *gained == *line.text))
}

pub(super) fn push(causes: &mut Vec<Cause>, key: &str) {
    if !causes.iter().any(|cause| cause.key == key) {
        causes.push(Cause { key: key.to_owned(), old: None, new: None });
    }
}

/// Leaves out what a more precise key says, and puts first what somebody wrote.
fn tidy(causes: &mut Vec<Cause>) {
    let keys: Vec<String> = causes.iter().map(|cause| cause.key.clone()).collect();
    let is_precise = |cause: &Cause| {
        let below =
            |key: &String| key.strip_prefix(cause.key.as_str()).is_some_and(|rest| rest.starts_with('.'));
        !(matches!(&*cause.key, "environment" | "secrets" | "limits") && keys.iter().any(below))
    };
    causes.retain(is_precise);
    causes.sort_by_key(|cause| {
        let kinds = [&cause.old, &cause.new].into_iter().flatten();
        let written = kinds.filter(|origin| origin.kind != OriginKind::Host).map(|origin| origin.kind as u8);
        written.min().unwrap_or(u8::MAX)
    });
}

/// Values of the model that are not the same in two services.
fn differing(old: &[Leaf], new: &[Leaf]) -> HashSet<String> {
    let mut keys = HashSet::new();
    for (one, other) in [(old, new), (new, old)] {
        let known: HashMap<&str, &Leaf> = other.iter().map(|leaf| (leaf.key.as_str(), leaf)).collect();
        for leaf in one {
            let same = known.get(leaf.key.as_str()).is_some_and(|known| known.value == leaf.value);
            if !same {
                keys.insert(leaf.key.clone());
            }
        }
    }
    keys
}
