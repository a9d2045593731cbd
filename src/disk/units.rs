//! Whose path it is that something failed at: each service fails for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Failed;
use crate::failure::{Failure, Foreign};
use crate::record::Record;
use crate::tree::Entry;

/// Something that could not be done, and the paths of the entries that are not made because of it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) paths: Vec<String>,
    pub(super) failure: Failure,
}

impl Refusal {
    pub(super) fn of<'e>(entries: impl IntoIterator<Item = &'e Entry>, failure: Failure) -> Self {
        Self { paths: entries.into_iter().map(|entry| entry.path.clone()).collect(), failure }
    }
}

/// Which services want a path.
pub(super) struct Units<'r> {
    services: HashMap<String, Vec<&'r str>>,
    all: BTreeSet<&'r str>,
}

impl<'r> Units<'r> {
    /// Those of these records. A record belongs to its service, too.
    pub(super) fn of(records: impl IntoIterator<Item = &'r Record>) -> Self {
        let mut units = Self { services: HashMap::new(), all: BTreeSet::new() };
        for record in records {
            let name = record.service.as_str();
            units.all.insert(name);
            let paths = record.made.iter().map(|made| made.path.clone());
            for path in paths.chain([record.entry_path()]) {
                units.services.entry(path).or_default().push(name);
            }
        }
        units
    }

    /// The services that want one of these paths; all, if none wants any: then it is what all are below.
    pub(super) fn at<'p>(&self, paths: impl IntoIterator<Item = &'p str>) -> BTreeSet<&'r str> {
        let found: BTreeSet<&str> =
            paths.into_iter().filter_map(|path| self.services.get(path)).flatten().copied().collect();
        if found.is_empty() { self.all.clone() } else { found }
    }

    /// Adds the services that want what no record names to what failed, each with all of these paths.
    pub(super) fn fail_foreign(&self, things: Vec<Foreign>, failed: &mut Vec<Failed>) {
        let mut of: BTreeMap<&str, BTreeSet<Foreign>> = BTreeMap::new();
        if self.all.is_empty() && !things.is_empty() {
            return add(failed, vec![], Failure::Foreign(things));
        }
        for thing in things {
            for service in self.at([thing.path.as_str()]) {
                of.entry(service).or_default().insert(thing.clone());
            }
        }
        for (service, things) in of {
            add(failed, vec![service.to_owned()], Failure::Foreign(things.into_iter().collect()));
        }
    }

    /// Adds what was refused to what failed; the same failure of several services is one.
    pub(super) fn fail(&self, refusals: Vec<Refusal>, failed: &mut Vec<Failed>) {
        for Refusal { paths, failure } in refusals {
            let services = self.at(paths.iter().map(String::as_str));
            add(failed, services.into_iter().map(str::to_owned).collect(), failure);
        }
    }
}

/// Adds a failure of these services; one that is known already is theirs, too.
pub(super) fn add(failed: &mut Vec<Failed>, services: Vec<String>, failure: Failure) {
    match failed.iter_mut().find(|known| known.failure == failure) {
        Some(known) => {
            known.services.extend(services);
            known.services.sort();
            known.services.dedup();
        }
        None => failed.push(Failed { services, failure, all: false }),
    }
}
