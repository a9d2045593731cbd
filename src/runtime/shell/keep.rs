//! What is kept for the next run, in a file and by the keeper.

use std::os::fd::AsFd as _;

use super::Shell;
use crate::runtime::action::End;
use crate::runtime::event::{Generation, Moment};
use crate::runtime::linux::clock;
use crate::runtime::linux::keepers::{self, DOOR};
use crate::runtime::linux::keeping::{self, Keeping};
use crate::runtime::linux::place::{KEEPER, STATE};
use crate::runtime::linux::process::{self, Process};
use crate::runtime::machine;
use crate::runtime::protocol::{Dropped, Problem};
use crate::runtime::state::{FORMAT, State};

/// After so long it is tried again what could not be done, in milliseconds: soon for a person who has made room, and seldom
/// enough to cost nothing meanwhile.
const RETRY: u64 = 5_000;

/// How soon after its start a keeper may be replaced, in milliseconds: twice as late each time, up to [`RETRY`].
const KEEPER_LIVES: u64 = 1_000;

/// A keeper that has lived for so long, in milliseconds, is replaced at once, as if it were the first.
const KEEPER_QUIET: u64 = 60_000;

/// So many keepers that were killed and do not end are left behind; then none is started until one has ended.
const MOST_HANGING: usize = 2;

/// When keepers may be started: one after the other, later and later.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Moment>,
    wait: u64,
}

impl Pace {
    /// Whether one may be started now.
    fn may_begin(&self, now: Moment) -> bool {
        self.last.is_none_or(|last| now.since(last) >= self.wait)
    }

    /// Whether one may be started now; if so it counts as started. Else when it may be.
    fn begin(&mut self, now: Moment) -> Result<(), Moment> {
        let lived = self.last.map_or(u64::MAX, |last| now.since(last));
        if lived < self.wait {
            return Err(now.after(self.wait - lived));
        }
        self.wait = if lived >= KEEPER_QUIET { KEEPER_LIVES } else { (2 * self.wait).min(RETRY) };
        self.last = Some(now);
        Ok(())
    }
}

/// What cannot be done as it should; said once, and tried again.
#[derive(Default)]
pub(super) struct Troubles {
    /// The state cannot be written.
    pub(super) state: Option<String>,
    /// There is no keeper.
    pub(super) keeper: Option<String>,
    /// Deleted files cannot be made again.
    pub(super) files: Option<String>,
    /// What a generation is made of cannot be written to the run directory.
    pub(super) snapshots: Option<String>,
    /// What has failed cannot be written down.
    pub(super) failed: Option<String>,
    /// Nobody knows any more what the generation that serves is made of.
    pub(super) lost: Option<String>,
}

impl Troubles {
    /// All of them, in one sentence.
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<String> = self.problems().map(|problem| problem.message).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Each of them, for the status.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let all = [
            ("state", &self.state),
            ("keeper", &self.keeper),
            ("files", &self.files),
            ("snapshot", &self.snapshots),
            ("failed", &self.failed),
            ("proven", &self.lost),
        ];
        all.into_iter().filter_map(|(code, trouble)| Some(Problem::new(code, trouble.as_ref()?)))
    }
}

impl Shell {
    /// Keeps the state if it has changed.
    pub(super) fn keep(&mut self) {
        if matches!(self.machine.state(), machine::State::Over(End::Stopped)) {
            // Nothing is left that another run could adopt.
            return;
        }
        let mut state = State {
            format: FORMAT,
            sequence: self.sequence,
            boot: self.boot.clone(),
            application: self.service.application.clone(),
            machine: self.machine.record(),
            generations: self.generations.values().map(|live| live.life.clone()).collect(),
            listeners: self.listeners.iter().map(|listener| listener.kept.clone()).collect(),
            keeper: self.keeper.as_ref().map(Keeping::identity),
            last: self.last.clone(),
            begun: self.undecided(),
            requested: self.requests.of_generations(),
            waits: self.requests.waits.clone(),
            fallback: self.fallback.clone(),
            toppled: self.toppled.clone(),
            given_up: self.given_up.clone(),
            suspect: self.suspect,
        };
        if self.hand_snapshots().is_err() {
            self.keeper_fails();
        }
        if self.kept.as_deref() == Some(&state.text()) {
            return;
        }
        self.sequence += 1;
        state.sequence = self.sequence;
        let new = state.text();
        let told = self.keeper.as_ref().is_none_or(|keeper| keeper.remember(&new).is_ok());
        (self.kept, self.recalled) = (Some(new), None);
        self.write_state();
        if !told {
            self.keeper_fails();
        }
    }

    /// Writes what is kept to its file.
    pub(super) fn write_state(&mut self) {
        let Some(text) = &self.kept else { return };
        match self.place.keep_state(text) {
            Ok(()) => {
                if self.trouble.state.take().is_some() {
                    self.log.say(&format!("{} is written again", self.place.file(STATE).display()));
                }
                self.know_file(STATE);
            }
            Err(error) => {
                let trouble = format!("{} cannot be written: {error}", self.place.file(STATE).display());
                if self.trouble.state.as_ref() != Some(&trouble) {
                    self.log.say(&format!("{trouble}; the keeper remembers what the next run needs"));
                }
                self.trouble.state = Some(trouble);
                self.retry_soon();
            }
        }
    }

    /// What could not be done is tried again in a while.
    pub(super) fn retry_soon(&mut self) {
        self.retry_at.get_or_insert(clock::now().after(RETRY));
    }

    /// Tries again what could not be done.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        if self.trouble.files.is_some() {
            self.restore_files();
        }
        if self.trouble.state.is_some() {
            self.write_state();
        }
        if self.trouble.snapshots.is_some() {
            self.write_snapshots();
        }
        if self.unkept.is_some() {
            self.store_proven();
        }
        if self.trouble.failed.is_some() {
            self.store_failed();
        }
        if self.keeper.is_none() {
            self.renew_keeper(vec![]);
        } else if self.keeper_is_silent.get() {
            self.look_at_the_keeper();
        }
    }

    /// Has the keeper hold what there is now; starts one if there is none. `log`: it gets this run's log, too.
    pub(super) fn update_keeper(&mut self, log: bool) {
        let Some(keeper) = &self.keeper else {
            self.renew_keeper(vec![]);
            return;
        };
        let stdout = std::io::stdout();
        let log = log.then(|| stdout.as_fd());
        let mark = log.and_then(|_| self.log.mark());
        let mut told = keeper.keep(log, mark, &self.listeners, &self.outputs);
        if let Some(kept) = &self.kept
            && told.is_ok()
        {
            told = keeper.remember(kept);
        }
        if told.is_err() {
            self.keeper_fails();
        }
    }

    /// Starts a keeper in the place of one that has ended, does not answer or is of an earlier run; in a while, if the last one
    /// was started a moment ago.
    pub(super) fn renew_keeper(&mut self, silent: Vec<Process>) {
        if let Err(at) = self.keeper_pace.begin(clock::now()) {
            self.retry_at = Some(self.retry_at.map_or(at, |other| other.min(at)));
            if self.trouble.keeper.is_some() {
                // Why is known.
            } else if self.keeper.is_none() {
                self.no_keeper("the last one has ended soon after its start");
            } else {
                self.keeper_is_silent.set(true);
            }
            return;
        }
        self.start_keeper(silent);
    }

    /// Starts a keeper that holds what there is now, and ends the one before it and all others of this service, among them
    /// `silent` ones that do not answer. There is never a moment without one, and there are two at the most: one that cannot be
    /// told what it is to hold ends, too.
    pub(super) fn start_keeper(&mut self, silent: Vec<Process>) {
        let application = self.service.application.clone();
        let recorded: Vec<_> = self.place.recorded_keeper(&self.boot).into_iter().collect();
        let earlier = keepers::living(self.place.directory(), &application, &recorded);
        let held: Vec<String> = earlier
            .iter()
            .filter(|one| process::is_uninterruptible(one.pid))
            .map(|one| format!("keeper {}", one.pid))
            .collect();
        if held.len() >= MOST_HANGING {
            self.keeper = None;
            return self.no_keeper(&format!(
                "a process of the user {} keeps {} waiting, so that they cannot be ended; end its processes that are not the service's",
                self.service.user,
                held.join(" and ")
            ));
        }
        let begun = Keeping::start(&self.place, &application).and_then(|keeper| {
            let told = keeper.keep(None, self.log.mark(), &self.listeners, &[]);
            // Before the one that knows it ends: this run may be killed in between.
            let known = self.kept.as_ref().or(self.recalled.as_ref());
            match told.and_then(|()| known.map_or(Ok(()), |state| keeper.remember(state))) {
                Ok(()) => Ok(keeper),
                Err(error) => {
                    keeper.give_up();
                    Err(error)
                }
            }
        });
        let keeper = match begun {
            Ok(keeper) => keeper,
            Err(error) => return self.no_keeper(&error.to_string()),
        };
        self.know_file(DOOR);
        // Whoever finds no record finds it among all processes.
        if self.place.keep_keeper(keeper.identity(), &self.boot).is_ok() {
            self.know_file(KEEPER);
        }
        // Only one at a time reads what the servers say, so that lines stay whole and in order.
        if let Some(old) = self.keeper.take() {
            old.end();
        }
        let others = earlier.into_iter().chain(silent).filter(|other| !process::hangs(other.pid));
        for other in others.filter(|other| (other.pid, other.start) != keeper.identity()) {
            if !other.has_ended() {
                self.log.say(&format!("keeper {} is of an earlier run and is ended", other.pid));
                keeping::end(&other);
            }
        }
        // From now on it knows of what those before it have dropped, and the next run learns it from it.
        self.dropped.end();
        let told = keeper.add_dropped(&self.dropped);
        let told = told.and_then(|()| keeper.keep(None, None, &self.listeners, &self.outputs));
        let told = told.and_then(|()| self.also.map_or(Ok(()), |also| keeper.also(Some(also))));
        match told.and_then(|()| self.kept.as_ref().map_or(Ok(()), |kept| keeper.remember(kept))) {
            Ok(()) => {
                self.keeper = Some(keeper);
                self.dropped = Dropped::default();
                self.trouble.keeper = None;
                self.handed.clear();
                if let Err(error) = self.hand_snapshots() {
                    if let Some(keeper) = self.keeper.take() {
                        keeper.give_up();
                    }
                    self.no_keeper(&error.to_string());
                }
            }
            Err(error) => {
                // Left alone it would hold the addresses, and nobody would know it.
                keeper.give_up();
                self.no_keeper(&error.to_string());
            }
        }
    }

    fn no_keeper(&mut self, error: &str) {
        let trouble =
            format!("there is no keeper: {error}; if this runtime is killed now, addresses may refuse");
        if self.trouble.keeper.as_ref() != Some(&trouble) {
            self.log.say(&trouble);
        }
        self.trouble.keeper = Some(trouble);
        self.retry_soon();
    }

    /// The keeper does not take what it is to hold, or does not answer.
    fn keeper_fails(&mut self) {
        if let Some(keeper) = self.keeper.as_ref().filter(|_| self.keeper_pace.may_begin(clock::now())) {
            let pid = keeper.identity().0;
            let why = if keeper.is_stopped() { "is stopped (SIGSTOP)" } else { "does not answer" };
            self.log.say(&format!("keeper {pid} {why}; another one takes its place"));
        }
        self.renew_keeper(vec![]);
    }

    /// Somebody may have stopped the keeper. This run is its parent, so the kernel reports it (SIGCHLD); whatever else
    /// wakes this run is an occasion to look, too.
    pub(super) fn look_at_the_keeper(&mut self) {
        let is_silent = self.keeper_is_silent.take();
        if self.keeper.as_ref().is_some_and(|keeper| is_silent || keeper.is_stopped()) {
            self.keeper_fails();
        }
    }

    /// Its connection has ended.
    pub(super) fn keeper_has_gone(&mut self) {
        // One that lives on is found among all processes, and ended.
        self.keeper = None;
        self.log.say("the keeper is gone; another one is started");
        self.renew_keeper(vec![]);
    }

    /// A successor that writes to its master's pipe is begun, or none is any more: what was said before explains nothing of it.
    pub(super) fn hear_also(&mut self, successor: Option<Generation>) {
        let also = successor.map(|one| (self.pipe_of(one).0, one.0));
        if also.is_none() && self.also.is_none() {
            return;
        }
        self.also = also;
        if self.keeper.as_ref().is_some_and(|keeper| keeper.also(also).is_err()) {
            self.keeper_fails();
        }
    }

    /// The last lines that a generation has said.
    pub(super) fn last_lines(&self, generation: Generation) -> String {
        let Some(keeper) = &self.keeper else { return String::new() };
        keeper.last(generation.0).unwrap_or_else(|_| {
            // It is replaced at the next occasion to look at it.
            self.keeper_is_silent.set(true);
            String::new()
        })
    }

    /// The keeper is to be replaced: what it has dropped is known to the next one, too.
    pub(super) fn remember_dropped(&mut self) {
        self.dropped = self.dropped_by_keeper();
    }

    /// The keeper counts for the next run what this one could not say.
    pub(super) fn count_dropped(&mut self) {
        let Some(dropped) = self.log.take_dropped() else { return };
        let told = self.keeper.as_ref().is_some_and(|keeper| keeper.add_dropped(&dropped).is_ok());
        if !told {
            self.dropped = self.dropped.and(&dropped);
        }
    }

    fn dropped_by_keeper(&self) -> Dropped {
        match self.keeper.as_ref().map(Keeping::dropped) {
            Some(Ok(dropped)) => dropped,
            Some(Err(_)) => {
                // It is replaced at the next occasion to look at it.
                self.keeper_is_silent.set(true);
                Dropped::default()
            }
            None => self.dropped.clone(),
        }
    }

    /// The lines that the log did not take: the server's and this runtime's. `takes`: whether it takes lines now.
    pub(super) fn dropped(&mut self, takes: bool) -> Dropped {
        if takes {
            self.log.takes();
        }
        self.count_dropped();
        self.dropped_by_keeper().and(self.log.dropped())
    }

    /// Ends every keeper of this service.
    pub(super) fn end_keepers(&mut self) {
        let recorded: Vec<_> = self.place.recorded_keeper(&self.boot).into_iter().collect();
        if let Some(keeper) = self.keeper.take() {
            keeper.end();
        }
        let others = keepers::living(self.place.directory(), &self.service.application, &recorded);
        for other in others.iter().filter(|other| !process::hangs(other.pid)) {
            keeping::end(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepers_are_started_later_and_later() {
        let mut pace = Pace::default();
        let mut now = Moment(5);
        let mut waits = vec![];
        for _ in 0..6 {
            assert_eq!(pace.begin(now), Ok(()));
            let at = pace.begin(now).unwrap_err();
            waits.push(at.since(now));
            assert!(!pace.may_begin(Moment(at.0 - 1)) && pace.may_begin(at));
            now = at;
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
        now = now.after(KEEPER_QUIET);
        assert_eq!(pace.begin(now), Ok(()));
        assert_eq!(pace.begin(now), Err(now.after(1_000)));
    }
}
