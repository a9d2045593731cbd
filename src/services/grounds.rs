//! Which services may want one path, told without planning all of their files.
//!
//! Whatever a service consists of lies in a few places, its grounds. Where no ground of one lies within one of
//! another, no path of one is a path of the other, and their files need not be planned to know.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::Service;
use crate::model::input::LogKind;
use crate::steps::{is_below, is_within, parent};

/// Where all paths of a service lie: it has each of these, or something below it.
struct Grounds<'a> {
    root: &'a str,
    logs: &'a str,
    /// The directory of svlogd's log, by default below `logs`.
    service_log: Option<&'a str>,
    /// The others.
    rest: [&'a str; 6],
}

impl<'a> Grounds<'a> {
    fn of(service: &'a Service) -> Self {
        let (place, layout) = (&service.service, &service.layout);
        Self {
            root: &service.root,
            logs: &layout.logs.path,
            service_log: (service.log.kind == LogKind::Svlogd).then_some(&service.log.directory),
            rest: [
                &place.directory,
                // It is there only if the service is enabled. The reservation costs others at most some time.
                &place.link,
                &layout.releases.path,
                &layout.pids.path,
                &layout.sockets.path,
                &layout.config.path,
            ],
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        [self.root, self.logs].into_iter().chain(self.service_log).chain(self.rest)
    }

    /// Those that lie in none of the others.
    fn outer(&self) -> impl Iterator<Item = &'a str> {
        let is_inner = |ground: &str| self.all().any(|other| is_below(ground, other));
        self.all().filter(move |ground| !is_inner(ground))
    }
}

/// Whether a service may want one path of its own twice. Most have each directory below `root` and in none of the
/// others.
pub(super) fn may_meet_itself(service: &Service) -> bool {
    let grounds = Grounds::of(service);
    let meets = |(at, one): (usize, &str), (other_at, other): (usize, &str)| {
        let usual = other == grounds.root && is_below(one, other)
            || Some(one) == grounds.service_log && other == grounds.logs && is_below(one, other);
        at != other_at && !usual && is_within(one, other)
    };
    grounds
        .all()
        .enumerate()
        .any(|one| grounds.all().enumerate().any(|other| meets(one, other)))
}

/// For each service whether it may want a path that another one wants as well.
pub(super) fn meetings(services: &[&Service]) -> Vec<bool> {
    let mut meets = vec![false; services.len()];
    let mut owners: HashMap<&str, usize> = HashMap::with_capacity(services.len() * 3);
    for (at, service) in services.iter().enumerate() {
        for ground in Grounds::of(service).outer() {
            match owners.entry(ground) {
                Entry::Vacant(free) => {
                    free.insert(at);
                }
                Entry::Occupied(taken) if *taken.get() != at => {
                    meets[at] = true;
                    meets[*taken.get()] = true;
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    // Most grounds lie side by side in one directory, in which nobody has ground that holds them all.
    let mut free = "";
    for (at, service) in services.iter().enumerate() {
        for ground in Grounds::of(service).outer() {
            let directory = parent(ground);
            if directory == free {
                continue;
            }
            let mut is_free = true;
            let mut above = directory;
            while !above.is_empty() {
                if let Some(owner) = owners.get(above) {
                    is_free = false;
                    if *owner != at {
                        meets[at] = true;
                        meets[*owner] = true;
                    }
                }
                above = parent(above);
            }
            if is_free {
                free = directory;
            }
        }
    }
    meets
}
