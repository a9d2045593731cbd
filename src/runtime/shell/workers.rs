//! Workers that die again and again while they load the application.
//!
//! gunicorn's master gives up when a worker cannot load the application, but starts one that was killed by a signal again
//! and again; unicorn and puma start every one again. So a candidate is given up after a few such deaths, whatever the server.

use std::collections::BTreeMap;

use super::Shell;
use super::generation::Live;
use crate::model::Service;
use crate::runtime::event::{Event, Generation, Moment};
use crate::runtime::linux::{clock, process};

/// So many workers may exit before they have loaded the application: one or two may be somebody's `kill`, or the kernel's when
/// memory is short for a moment.
const MOST_EARLY_DEATHS: u32 = 5;

/// How often the workers of a program that does not report on them are looked at while it is on probation, in milliseconds.
/// A master that starts its workers again at once loses several in that time.
const LOOK: u64 = 500;

/// Deaths count once they were seen at so many looks: a pool of helpers ends all at once, and is not started again.
const LOOKS: u32 = 3;

/// So many early deaths after the generation was ready are a problem: one or two may be somebody's `kill`.
const FEW_EARLY_DEATHS: u32 = 3;

/// Workers are steady again once all of them have been ready for so long, in milliseconds.
const STEADY: u64 = 5_000;

/// When workers exited.
pub(super) const EXITED_EARLY: &str = "before they had loaded the application";
pub(super) const EXITED_SOON: &str = "before or soon after they had loaded the application";

/// Workers of a generation that was ready exit before they have loaded the application, or soon after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dying {
    /// Since when.
    pub(super) since: Moment,
    /// How many have.
    pub(super) deaths: u32,
    /// At least one of them had loaded it.
    pub(super) had_loaded: bool,
}

/// Workers that exit soon after they have loaded the application, one after the other: each is a successor of the one
/// before. Workers that exit together, as after a HUP by hand, count as one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LateDeaths {
    deaths: u32,
    last: Option<Moment>,
}

impl LateDeaths {
    /// Counts a worker that had loaded the application at `loaded` and has exited; whether it is one of a row.
    fn count(&mut self, loaded: Moment, now: Moment) -> bool {
        if now.since(loaded) >= STEADY || self.last.is_some_and(|last| loaded <= last) {
            return false;
        }
        self.deaths += 1;
        self.last = Some(now);
        self.deaths > 1
    }
}

/// Whether its workers exit by themselves after so many requests.
fn recycles(service: &Service) -> bool {
    service.settings.get("max_requests").is_some_and(|value| value.as_u64() != Some(0))
}

/// Looks at the workers of a master from outside.
#[derive(Debug)]
pub(super) struct Watch {
    due: Moment,
    /// Process ids and start times at the last look.
    seen: BTreeMap<u32, u64>,
    deaths: u32,
    looks_with_deaths: u32,
}

impl Watch {
    /// Begins to look.
    pub(super) fn begin(now: Moment) -> Self {
        Self { due: now.after(LOOK), seen: BTreeMap::new(), deaths: 0, looks_with_deaths: 0 }
    }

    /// When the next look is.
    pub(super) fn due(&self) -> Moment {
        self.due
    }

    /// Takes in the workers that live now; whether too many have died.
    fn look(&mut self, now: Moment, workers: BTreeMap<u32, u64>) -> bool {
        self.due = now.after(LOOK);
        let died = self.seen.iter().filter(|(pid, start)| workers.get(pid) != Some(start)).count();
        // Those that began and died between two looks have used up process ids, but nobody has seen them.
        self.deaths = self.deaths.saturating_add(u32::try_from(died).unwrap_or(u32::MAX));
        self.looks_with_deaths += u32::from(died > 0);
        self.seen = workers;
        self.deaths >= MOST_EARLY_DEATHS && self.looks_with_deaths >= LOOKS
    }
}

impl Dying {
    /// Whether so many have died that it is a problem.
    pub(super) fn is_serious(self) -> bool {
        self.deaths >= FEW_EARLY_DEATHS
    }
}

impl Shell {
    /// A master reports that a worker has exited.
    pub(super) fn worker_exited(&mut self, sender: u32, uid: u32, master: u32, worker: u32) {
        let of = self.generations.iter_mut().find(|(_, live)| {
            live.life.uid == uid
                && sender == master
                && live.master.as_ref().is_some_and(|process| process.pid == master)
        });
        let Some((generation, live)) = of else { return };
        let generation = *generation;
        let loaded = live.loaded.remove(&worker);
        if live.is_retired {
            return;
        }
        let now = clock::now();
        let had_loaded = loaded.is_some();
        if let Some(loaded) = loaded
            && (!live.is_ready || recycles(&live.service) || !live.late_deaths.count(loaded, now))
        {
            return;
        }
        if live.is_ready {
            let deaths = if had_loaded { live.late_deaths.deaths - 1 } else { 0 };
            let dying = live.dying.get_or_insert(Dying { since: now, deaths, had_loaded });
            dying.deaths += 1;
            dying.had_loaded |= had_loaded;
            live.count(now);
            live.whole_since = None;
            self.events.push_back(Event::Dying(generation));
        }
        live.early_deaths += 1;
        if live.early_deaths >= MOST_EARLY_DEATHS {
            live.early_deaths = 0;
            self.is_unstable(generation);
        }
    }

    /// Looks at the workers of those that do not report on them.
    pub(super) fn look_at_workers(&mut self, now: Moment) {
        let is_due = |watch: &Watch| watch.due() <= now;
        if !self.generations.values().any(|live| live.watch.as_ref().is_some_and(is_due)) {
            return;
        }
        let all = process::all();
        let proven = self.machine.serving().filter(|serving| serving.probation.is_none());
        let proven = proven.map(|serving| serving.generation);
        let mut unstable = vec![];
        for (generation, live) in &mut self.generations {
            let master = live.master.as_ref().map(|master| master.pid);
            if master.is_none() || live.is_retired || proven == Some(*generation) {
                live.watch = None;
            }
            let Some(watch) = live.watch.as_mut().filter(|watch| is_due(watch)) else { continue };
            let workers = all
                .iter()
                // A program that the application runs is not a worker: workers are forked only.
                .filter(|(_, stat)| Some(stat.parent) == master && !stat.has_run)
                .map(|(pid, stat)| (*pid, stat.start));
            if watch.look(now, workers.collect()) {
                unstable.push(*generation);
            }
        }
        for generation in unstable {
            self.is_unstable(generation);
        }
    }

    /// The workers of a generation may have become steady again.
    pub(super) fn look_at_the_dying(&mut self, now: Moment) {
        let mut steady = vec![];
        for (generation, live) in &mut self.generations {
            let is_whole = |live: &Live| live.whole_since.is_some_and(|since| now.since(since) >= STEADY);
            if live.dying.is_some() && is_whole(live) {
                // A worker may have exited meanwhile.
                live.count(now);
                if is_whole(live) {
                    live.dying = None;
                    live.early_deaths = 0;
                    live.late_deaths = LateDeaths::default();
                    steady.push(*generation);
                }
            }
        }
        for generation in steady {
            self.tell(Event::Steady(generation));
        }
    }

    fn is_unstable(&mut self, generation: Generation) {
        let had_loaded = self
            .generations
            .get(&generation)
            .and_then(|live| live.dying)
            .is_some_and(|dying| dying.had_loaded);
        let when = if had_loaded { EXITED_SOON } else { EXITED_EARLY };
        self.tell(Event::Unstable(generation, format!("{MOST_EARLY_DEATHS} of its workers exited {when}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_exit_one_after_the_other_are_a_row_and_all_at_once_are_not() {
        let mut row = LateDeaths::default();
        let counted: Vec<bool> =
            (0..4).map(|n| row.count(Moment(n * 2_000), Moment(n * 2_000 + 1_000))).collect();
        assert_eq!(counted, [false, true, true, true]);
        let mut together = LateDeaths::default();
        assert!((0..9).all(|n| !together.count(Moment(n), Moment(1_000 + n))));
        let mut old = LateDeaths::default();
        assert!((0..9).all(|n| !old.count(Moment(n * 9_000), Moment(n * 9_000 + STEADY))));
    }

    #[test]
    fn deaths_at_several_looks_are_too_many_and_one_pool_is_not() {
        let workers = |from: u32| (from..from + 2).map(|pid| (pid, 1)).collect::<BTreeMap<_, _>>();
        let mut watch = Watch::begin(Moment(0));
        let looks: Vec<bool> = (0..5).map(|look| watch.look(Moment(0), workers(10 * look))).collect();
        assert_eq!(looks, [false, false, false, true, true]);
        let mut watch = Watch::begin(Moment(0));
        let pool = (0..20).map(|pid| (pid, 1)).collect();
        assert!(!watch.look(Moment(0), pool));
        assert!(!watch.look(Moment(0), BTreeMap::new()));
        assert!(!watch.look(Moment(0), workers(50)));
    }
}
