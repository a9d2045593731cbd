//! The machine: what has happened goes in, what is to be done comes out.
//!
//! It is the only place that decides. It knows generations by their numbers, and time only as it is told; a story
//! that went wrong can be told again as a test. Each state carries its own deadline, so a timer can neither be
//! forgotten nor left armed, and every state answers every event, so a new event forces a decision everywhere.
//!
//! At most one generation *serves*, at most one is a *candidate* for its place. *Leavers* have been told to go and
//! each carries the moment after which it is killed. *Orphans* have lost their master: their workers go on serving
//! until another generation does, and become leavers then. docs/machine.md shows every transition, printed by a test.

#![deny(clippy::wildcard_enum_match_arm, reason = "a new event or state must be decided upon everywhere")]

use std::collections::BTreeMap;

use super::action::{Action, End, Origin, Outcome, Step};
use super::event::{Event, Generation, Moment, Terms, Ticket};

mod asked;
mod fallback;
mod record;
mod reopen;
mod rival;

pub use record::{Record, Remains};
pub use rival::Rival;

/// What a generation that never had a request gets to end by itself before it is killed, in milliseconds: an
/// interpreter that still imports ends at once when it is told to, or not at all.
pub const REMOVAL: u64 = 2_000;

/// A worker that begins may miss the signal that its master passes on: one of a candidate, and one that replaces a worker that
/// exited just before. So the workers are asked themselves after this many milliseconds, and again after twice as many, and so
/// on: how long a worker takes to install its signal handlers depends on the application and on the load.
pub const ASK_WORKERS: u64 = 1_000;

/// After this long a killed process is killed again, in milliseconds. Only one that waits for a broken disk is left by then.
pub const KILL_GRACE: u64 = 10_000;

/// So many failed health checks in a row, and a serving generation counts as hung: one may be lost to a busy moment.
pub const STRIKES: u32 = 3;

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was started yet.
    Down,
    /// Nothing serves; a candidate gets ready.
    Booting(Candidate),
    /// Nothing serves; the candidate is ready and its health is asked.
    Proving(Candidate, Proof),
    /// Nothing serves; the next start is at that moment.
    Resting(Moment),
    /// Nothing serves; what is left must go before the next start can be.
    Clearing,
    /// One generation serves, alone but for orphans.
    Serving(Serving),
    /// It serves, and a candidate gets ready.
    Succeeding(Serving, Candidate),
    /// It serves, and the candidate is ready and its health is asked.
    Vetting(Serving, Candidate, Proof),
    /// It serves; those before it finish their requests.
    Draining(Serving),
    /// It serves; a candidate has failed for this reason and is being removed.
    BackingOut(Serving, String),
    /// Everything was told to go.
    Stopping,
    /// The run has ended.
    Over(End),
}

/// The generation that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Which.
    pub generation: Generation,
    /// Since when.
    pub since: Moment,
    /// When its health is asked next; none while an answer is awaited, or where nobody asks.
    pub check: Option<Moment>,
    /// Failed checks in a row.
    pub strikes: u32,
    /// Until then it is on probation: it has not served for `min_uptime`. None: it is proven.
    pub probation: Option<Moment>,
    /// Its probation ended while nobody was there to see how it went.
    pub is_unattended: bool,
    /// What it was started from.
    pub origin: Origin,
    /// Its workers die again and again, while they load the application or soon after: it is not proven meanwhile.
    pub dying: bool,
}

/// The generation that is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub generation: Generation,
    /// Until then it must be ready, and its health proven.
    pub until: Moment,
    /// A worker of it may hold requests.
    pub loaded: bool,
    /// What it is started from.
    pub origin: Origin,
}

/// How far the proof of a candidate's health is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Good answers in a row.
    pub good: u32,
    /// When it is asked next; none while an answer is awaited.
    pub check: Option<Moment>,
    /// Why the last check failed.
    pub reason: Option<String>,
}

/// A generation that was told to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// Which.
    pub generation: Generation,
    /// Then it is killed, or killed again.
    pub until: Moment,
    /// It has been killed already.
    pub forced: bool,
    /// When its workers are asked themselves.
    pub ask_workers: Moment,
    /// How long after that they are asked again, in milliseconds.
    pub ask_again: u64,
}

impl Leaver {
    /// One that is told to go now, and is killed at `until`.
    fn new(now: Moment, generation: Generation, until: Moment) -> Self {
        let ask_workers = now.after(ASK_WORKERS);
        Self { generation, until, forced: false, ask_workers, ask_again: 2 * ASK_WORKERS }
    }

    /// When something is to be done about it.
    fn due(&self) -> Moment {
        if self.forced { self.until } else { self.until.min(self.ask_workers) }
    }
}

/// A hand-over that follows the one under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Next {
    tickets: Vec<Ticket>,
    /// These wait until it is proven.
    patient: Vec<Ticket>,
    leave: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    terms: Terms,
    /// Those of the generation that serves, while a candidate's count.
    before: Option<Terms>,
    leavers: Vec<Leaver>,
    orphans: Vec<Generation>,
    /// A candidate that was overtaken by a newer one before anything served.
    rival: Option<Rival>,
    /// What an unplanned start uses: none before anything has served.
    good: Option<Origin>,
    /// Something was proven, in this run or before.
    has_proven: bool,
    /// An earlier run had not finished what somebody had asked for.
    resumed: bool,
    /// What the start that waits for [`State::Clearing`] uses.
    clearing: Origin,
    /// The highest number that a generation has had.
    last: Generation,
    /// Failed starts and early deaths in a row.
    failures: u32,
    /// Starts that nobody asked for, since the service is up.
    restarts: u32,
    /// A hand-over that somebody asked for is under way; these wait for its outcome.
    asked: Option<Vec<Ticket>>,
    /// These wait until the candidate is proven; once it serves, until it is not on probation any more.
    patient: Vec<Ticket>,
    /// These waited for a generation that has failed on probation, and why it has: they are answered once it is decided what
    /// serves instead.
    disappointed: Vec<(Ticket, Outcome)>,
    /// Once it is through, the run ends.
    leave: bool,
    next: Option<Next>,
    once: bool,
    /// Of every generation that lives.
    logs: BTreeMap<Generation, reopen::Logs>,
    /// What the next run goes on from, once this one has ended and the application goes on.
    parting: Option<Record>,
    actions: Vec<Action>,
}

impl Machine {
    /// A machine that has started nothing.
    pub fn new(terms: Terms) -> Self {
        Self {
            state: State::Down,
            terms,
            before: None,
            leavers: vec![],
            orphans: vec![],
            rival: None,
            good: None,
            has_proven: false,
            resumed: false,
            clearing: Origin::First,
            last: Generation(0),
            failures: 0,
            restarts: 0,
            asked: None,
            patient: vec![],
            disappointed: vec![],
            leave: false,
            next: None,
            once: false,
            logs: BTreeMap::new(),
            parting: None,
            actions: vec![],
        }
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Those who were told to go.
    pub fn leavers(&self) -> &[Leaver] {
        &self.leavers
    }

    /// Those whose master has ended while they were needed.
    pub fn orphans(&self) -> &[Generation] {
        &self.orphans
    }

    /// Failed starts and early deaths in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts that nobody asked for, since the service is up.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether another hand-over follows the one under way.
    pub fn is_queued(&self) -> bool {
        self.next.is_some()
    }

    /// The generation that serves.
    pub fn serving(&self) -> Option<&Serving> {
        match &self.state {
            State::Serving(serving)
            | State::Succeeding(serving, _)
            | State::Vetting(serving, _, _)
            | State::Draining(serving)
            | State::BackingOut(serving, _) => Some(serving),
            State::Down
            | State::Booting(_)
            | State::Proving(_, _)
            | State::Resting(_)
            | State::Clearing
            | State::Stopping
            | State::Over(_) => None,
        }
    }

    /// The generation that is to serve.
    pub fn candidate(&self) -> Option<&Candidate> {
        match &self.state {
            State::Booting(candidate)
            | State::Proving(candidate, _)
            | State::Succeeding(_, candidate)
            | State::Vetting(_, candidate, _) => Some(candidate),
            State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => None,
        }
    }

    /// When [`Event::Due`] is to be told, if nothing else happens before. None: it waits for events alone.
    pub fn deadline(&self) -> Option<Moment> {
        let probation = self.proven_at();
        let rival = self.rival.as_ref().map(Rival::deadline);
        let own = match &self.state {
            State::Booting(candidate) | State::Succeeding(_, candidate) => Some(candidate.until),
            State::Proving(candidate, proof) | State::Vetting(_, candidate, proof) => {
                Some(proof.check.map_or(candidate.until, |check| check.min(candidate.until)))
            }
            State::Resting(until) => Some(*until),
            State::Serving(serving) => serving.check,
            State::Down
            | State::Clearing
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => None,
        };
        let leavers = self.leavers.iter().map(Leaver::due);
        leavers.chain(own).chain(probation).chain(rival).min()
    }

    /// Takes in what happened at `now`; gives what is to be done, in this order.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.logs_before(&event);
        self.prove_if_due(now, &event);
        match event {
            Event::Started(generation, terms) => self.started(now, generation, terms),
            Event::NotStarted(generation, reason) => self.not_started(now, generation, &reason),
            Event::Loaded(generation) => self.loaded(now, generation),
            Event::Ready(generation) => self.ready(now, generation),
            Event::Healthy(generation) => self.healthy(now, generation),
            Event::Sick(generation, reason) => self.sick(now, generation, reason),
            Event::Ended(generation, how) => self.ended(now, generation, &how),
            Event::Unstable(generation, how) => self.unstable(now, generation, &how),
            Event::Unreachable(generation) => self.unreachable(now, generation),
            Event::Dying(generation) => self.is_dying(generation, true),
            Event::Steady(generation) => self.is_dying(generation, false),
            Event::Gone(generation) => self.gone(now, generation),
            Event::Asked(ask) => self.asked(now, ask),
            Event::Due => self.due(now),
        }
        // With a `min_uptime` of 0 there is no probation at all.
        self.prove_if_due(now, &Event::Due);
        self.logs_after();
        std::mem::take(&mut self.actions)
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn tell(&mut self, step: Step) {
        self.act(Action::Tell(step));
    }

    fn is_candidate(&self, generation: Generation) -> bool {
        self.candidate().is_some_and(|candidate| candidate.generation == generation)
    }

    fn serves(&self, generation: Generation) -> bool {
        self.serving().is_some_and(|serving| serving.generation == generation)
    }

    // --- what a candidate does

    fn started(&mut self, now: Moment, generation: Generation, terms: Terms) {
        if self.rival_started(now, generation, terms) {
            return;
        }
        if !self.is_candidate(generation) {
            // It was told to go before it had begun.
            return;
        }
        if self.serving().is_some() {
            self.before.get_or_insert(self.terms);
        }
        self.terms = terms;
        let until = now.after(terms.boot_timeout);
        match &mut self.state {
            State::Booting(candidate)
            | State::Succeeding(_, candidate)
            | State::Proving(candidate, _)
            | State::Vetting(_, candidate, _) => candidate.until = until,
            State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => {}
        }
    }

    fn not_started(&mut self, now: Moment, generation: Generation, reason: &str) {
        if self.is_candidate(generation) {
            self.fail(now, reason, false);
        }
        self.drop_rival(now, generation, reason, false);
        self.gone(now, generation);
    }

    fn loaded(&mut self, now: Moment, generation: Generation) {
        let drained = now.after(self.terms.drain_timeout);
        for leaver in
            self.leavers.iter_mut().filter(|leaver| leaver.generation == generation && !leaver.forced)
        {
            // It has got so far before it heard that it is to go, and may hold requests now.
            leaver.until = leaver.until.max(drained);
        }
        self.rival_loaded(generation);
        match &mut self.state {
            State::Booting(candidate) | State::Succeeding(_, candidate)
                if candidate.generation == generation =>
            {
                candidate.loaded = true;
            }
            // Whoever is further has loaded before, and whoever leaves has its deadline already.
            State::Booting(_)
            | State::Succeeding(_, _)
            | State::Proving(_, _)
            | State::Vetting(_, _, _)
            | State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => {}
        }
    }

    fn ready(&mut self, now: Moment, generation: Generation) {
        if self.is_rival(generation) {
            return self.rival_ready(now);
        }
        if !self.is_candidate(generation) {
            return;
        }
        let health = self.terms.health;
        let state = std::mem::replace(&mut self.state, State::Down);
        self.state = match state {
            State::Booting(candidate) if health.is_some() => {
                State::Proving(Candidate { loaded: true, ..candidate }, Proof::default())
            }
            State::Succeeding(serving, candidate) if health.is_some() => {
                State::Vetting(serving, Candidate { loaded: true, ..candidate }, Proof::default())
            }
            State::Booting(candidate) => return self.take_over(now, None, &candidate),
            State::Succeeding(serving, candidate) => {
                return self.take_over(now, Some(&serving), &candidate);
            }
            // It is told again, as each further worker gets ready.
            again @ (State::Proving(_, _) | State::Vetting(_, _, _)) => {
                self.state = again;
                return;
            }
            other @ (State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_)) => {
                self.state = other;
                return;
            }
        };
        self.tell(Step::Proving(generation));
        self.act(Action::Check(generation));
    }

    fn healthy(&mut self, now: Moment, generation: Generation) {
        if self.is_rival(generation) {
            return self.rival_healthy(now);
        }
        let Some(health) = self.terms.health else { return };
        let again = Some(now.after(health.interval));
        let proven = match &mut self.state {
            State::Proving(candidate, proof) | State::Vetting(_, candidate, proof)
                if candidate.generation == generation =>
            {
                proof.good += 1;
                proof.check = again;
                proof.good >= health.successes
            }
            State::Serving(serving) if serving.generation == generation => {
                serving.strikes = 0;
                serving.check = again;
                false
            }
            State::Proving(_, _)
            | State::Vetting(_, _, _)
            | State::Serving(_)
            | State::Down
            | State::Booting(_)
            | State::Resting(_)
            | State::Clearing
            | State::Succeeding(_, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => false,
        };
        if !proven {
            return;
        }
        match std::mem::replace(&mut self.state, State::Down) {
            State::Proving(candidate, _) => self.take_over(now, None, &candidate),
            State::Vetting(serving, candidate, _) => {
                self.take_over(now, Some(&serving), &candidate);
            }
            other @ (State::Down
            | State::Booting(_)
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Succeeding(_, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_)) => self.state = other,
        }
    }

    fn sick(&mut self, now: Moment, generation: Generation, reason: String) {
        if self.is_rival(generation) {
            return self.rival_sick(now, reason);
        }
        let Some(health) = self.terms.health else { return };
        let again = Some(now.after(health.interval));
        match &mut self.state {
            State::Proving(candidate, proof) | State::Vetting(_, candidate, proof)
                if candidate.generation == generation =>
            {
                *proof = Proof { good: 0, check: again, reason: Some(reason) };
            }
            State::Serving(serving) if serving.generation == generation => {
                serving.strikes += 1;
                serving.check = again;
                if serving.strikes >= STRIKES {
                    serving.check = None;
                    let early = serving.probation.is_some();
                    self.tell(Step::Hung(generation, reason.clone()));
                    self.replace(now, generation, early, &reason);
                }
            }
            State::Proving(_, _)
            | State::Vetting(_, _, _)
            | State::Serving(_)
            | State::Down
            | State::Booting(_)
            | State::Resting(_)
            | State::Clearing
            | State::Succeeding(_, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => {}
        }
    }

    /// The candidate serves; those before it are told to go.
    fn take_over(&mut self, now: Moment, old: Option<&Serving>, candidate: &Candidate) {
        let generation = candidate.generation;
        self.before = None;
        self.remember_before(old, candidate);
        let origin = old.map(|old| old.origin);
        let old = old.map(|old| old.generation);
        let before: Vec<_> = old.into_iter().chain(std::mem::take(&mut self.orphans)).collect();
        self.tell(Step::Serves(generation, !before.is_empty()));
        for one in before {
            self.retire(now, one, self.terms.drain_timeout);
        }
        self.retire_rival(now);
        self.state = State::Draining(self.newly_serving(now, candidate, origin));
        self.settle(now);
    }

    /// A candidate that serves from now on. `before`: what the generation that served before was started from.
    fn newly_serving(&self, now: Moment, candidate: &Candidate, before: Option<Origin>) -> Serving {
        // Then it is the same.
        let origin = Some(candidate.origin).filter(|origin| *origin != Origin::Serving);
        let origin = origin.or(before).unwrap_or(Origin::LastProven);
        Serving {
            generation: candidate.generation,
            since: now,
            check: None,
            strikes: 0,
            probation: Some(now.after(self.terms.min_uptime)),
            origin,
            dying: false,
            is_unattended: false,
        }
    }

    /// Tells a generation to go within so many milliseconds.
    fn retire(&mut self, now: Moment, generation: Generation, within: u64) {
        self.leavers.push(Leaver::new(now, generation, now.after(within)));
        self.act(Action::Retire(generation));
    }

    /// Tells a candidate to go.
    fn retire_candidate(&mut self, now: Moment, candidate: &Candidate, terms: &Terms) {
        let within = if candidate.loaded { terms.drain_timeout } else { REMOVAL };
        self.retire(now, candidate.generation, within);
    }

    /// The candidate has failed, and what it was started from is to blame. `is_left`: something of it may live.
    fn fail(&mut self, now: Moment, reason: &str, is_left: bool) {
        if let Some(candidate) = self.candidate().cloned() {
            self.condemn(&candidate, reason);
        }
        self.give_up(now, reason, is_left);
    }

    /// The candidate is not to serve.
    fn give_up(&mut self, now: Moment, reason: &str, is_left: bool) {
        let terms = self.terms;
        match std::mem::replace(&mut self.state, State::Down) {
            State::Booting(candidate) | State::Proving(candidate, _) => {
                if is_left {
                    self.retire_candidate(now, &candidate, &terms);
                }
                if self.go_back_to_rival(&candidate, reason) {
                    return;
                }
                self.failures += 1;
                self.has_failed(candidate.origin);
                self.tell(Step::Failed(None, reason.to_owned()));
                self.answer(&Outcome::BackedOut(reason.to_owned()));
                if let Some(next) = self.next.take() {
                    self.begin(next);
                    return self.start(now, Origin::Disk);
                }
                self.start_again(now, candidate.origin);
            }
            State::Succeeding(serving, candidate) | State::Vetting(serving, candidate, _) => {
                self.tell(Step::BackingOut(candidate.generation, reason.to_owned()));
                if is_left {
                    self.retire_candidate(now, &candidate, &terms);
                }
                self.has_failed(candidate.origin);
                self.state = State::BackingOut(serving, reason.to_owned());
                self.settle(now);
            }
            other @ (State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_)) => self.state = other,
        }
    }

    // --- how processes end

    fn ended(&mut self, now: Moment, generation: Generation, how: &str) {
        if self.is_candidate(generation) {
            self.fail(now, &format!("the new master {how} before it was ready"), true);
        } else if self.is_rival(generation) {
            self.drop_rival(now, generation, &format!("the new master {how} before it was ready"), true);
        } else if self.serves(generation) {
            self.died(now, generation, how);
        } else if let Some(leaver) = self.leavers.iter().find(|leaver| leaver.generation == generation) {
            // Workers that have lost their master are told themselves.
            let again = if leaver.forced { Action::Kill } else { Action::Retire };
            self.act(again(generation));
        }
    }

    /// The master of the generation that serves has ended.
    fn died(&mut self, now: Moment, generation: Generation, how: &str) {
        self.tell(Step::Died(generation, how.to_owned()));
        self.orphans.push(generation);
        let state = std::mem::replace(&mut self.state, State::Down);
        let (serving, outcome, follower) = match state {
            State::Succeeding(serving, candidate) => (serving, None, Some(State::Booting(candidate))),
            State::Vetting(serving, candidate, proof) => {
                (serving, None, Some(State::Proving(candidate, proof)))
            }
            State::Serving(serving) => (serving, None, None),
            State::Draining(serving) => (serving, Some(format!("the new master {how}")), None),
            State::BackingOut(serving, reason) => (serving, Some(reason), None),
            other @ (State::Down
            | State::Booting(_)
            | State::Proving(_, _)
            | State::Resting(_)
            | State::Clearing
            | State::Stopping
            | State::Over(_)) => {
                self.state = other;
                return;
            }
        };
        let early = serving.probation.is_some();
        let mut is_kept = false;
        if early {
            self.fails_probation(&serving, &format!("its master {how}"));
            is_kept = self.keep_itself(generation);
        }
        if let Some(state) = follower {
            // Somebody gets ready already.
            self.restarts += 1;
            self.state = state;
            return;
        }
        if let Some(reason) = outcome {
            self.answer(&Outcome::BackedOut(reason));
        }
        if self.once {
            return self.stop(now);
        }
        self.restarts += 1;
        if let Some(next) = self.next.take() {
            // Somebody has asked for another one anyway.
            self.begin(next);
            return self.start(now, Origin::Disk);
        }
        if early {
            self.failures += 1;
            if is_kept {
                return self.rest(now);
            }
            return self.start_again(now, serving.origin);
        }
        self.failures = 0;
        self.start(now, self.unplanned());
    }

    fn gone(&mut self, now: Moment, generation: Generation) {
        // Nobody told of its end; with this it has one.
        if self.is_candidate(generation) {
            self.fail(now, "the new master has gone", false);
        } else if self.serves(generation) {
            self.died(now, generation, "has gone");
        }
        self.drop_rival(now, generation, "the new master has gone", false);
        self.leavers.retain(|leaver| leaver.generation != generation);
        self.orphans.retain(|orphan| *orphan != generation);
        self.settle(now);
    }

    /// Goes on once those who leave have left.
    fn settle(&mut self, now: Moment) {
        if !self.leavers.is_empty() {
            return;
        }
        match std::mem::replace(&mut self.state, State::Down) {
            State::Draining(serving) => {
                let generation = serving.generation;
                self.serve(now, serving, 0);
                self.act(Action::Settled(generation));
                if self.asked.is_some() {
                    self.tell(Step::Done(generation));
                }
                self.answer_done(generation);
                self.answer_disappointed();
                self.go_on(now);
            }
            State::BackingOut(serving, reason) => {
                let generation = serving.generation;
                self.terms = self.before.take().unwrap_or(self.terms);
                self.serve(now, serving, self.failures);
                self.act(Action::Settled(generation));
                self.tell(Step::Failed(Some(generation), reason.clone()));
                self.answer_backed_out(generation, reason);
                self.answer_disappointed();
                self.leave = false;
                self.go_on(now);
            }
            State::Clearing if self.orphans.is_empty() => self.start(now, self.clearing),
            State::Stopping if self.orphans.is_empty() => {
                self.tell(Step::Stopped);
                self.state = State::Over(End::Stopped);
                self.act(Action::End(End::Stopped));
            }
            other @ (State::Clearing
            | State::Stopping
            | State::Down
            | State::Booting(_)
            | State::Proving(_, _)
            | State::Resting(_)
            | State::Serving(_)
            | State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Over(_)) => self.state = other,
        }
    }

    /// One generation serves alone; its health is asked the later, the more often it has failed.
    fn serve(&mut self, now: Moment, serving: Serving, failures: u32) {
        let wait = |health: super::event::Health| now.after(health.interval.max(self.backoff(failures)));
        let check = self.terms.health.map(wait);
        self.state = State::Serving(Serving { check, strikes: 0, ..serving });
    }

    /// After a hand-over: the next one, or the end of the run.
    fn go_on(&mut self, now: Moment) {
        if let Some(next) = self.next.take() {
            let leave = self.leave;
            self.begin(next);
            self.leave |= leave;
            self.hand_over(now, Origin::Disk);
        } else if self.leave {
            self.leave_now();
        }
    }

    fn leave_now(&mut self) {
        self.tell(Step::Leaving);
        self.answer_disappointed();
        self.parting = Some(self.record());
        self.state = State::Over(End::Left);
        self.act(Action::End(End::Left));
    }

    // --- starts

    fn number(&mut self) -> Generation {
        self.last = Generation(self.last.0.saturating_add(1));
        self.last
    }

    fn candidate_at(&mut self, now: Moment, origin: Origin) -> Candidate {
        let until = now.after(self.terms.boot_timeout);
        Candidate { generation: self.number(), until, loaded: false, origin }
    }

    /// A first generation, while nothing serves.
    fn start(&mut self, now: Moment, origin: Origin) {
        // What an earlier run was asked for is begun now, or something newer in its place.
        self.resumed = false;
        if self.terms.exclusive && !(self.leavers.is_empty() && self.orphans.is_empty()) {
            for orphan in std::mem::take(&mut self.orphans) {
                self.retire(now, orphan, self.terms.drain_timeout);
            }
            self.state = State::Clearing;
            self.clearing = origin;
            return;
        }
        let candidate = self.candidate_at(now, origin);
        let generation = candidate.generation;
        self.state = State::Booting(candidate);
        self.tell(Step::Starting(generation));
        self.act(Action::Start(generation, origin));
    }

    /// A successor of the generation that serves.
    fn hand_over(&mut self, now: Moment, origin: Origin) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Serving(serving) => {
                let candidate = self.candidate_at(now, origin);
                let (old, new) = (serving.generation, candidate.generation);
                self.state = State::Succeeding(Serving { check: None, ..serving }, candidate);
                self.tell(Step::HandOver(old, new));
                self.act(if self.terms.exclusive {
                    Action::Succeed(old, new)
                } else {
                    Action::Start(new, origin)
                });
            }
            other @ (State::Down
            | State::Booting(_)
            | State::Proving(_, _)
            | State::Resting(_)
            | State::Clearing
            | State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_)) => self.state = other,
        }
    }

    fn rest(&mut self, now: Moment) {
        if self.once {
            return self.stop(now);
        }
        let wait = self.backoff(self.failures);
        self.tell(Step::BackOff(self.failures, wait));
        self.state = State::Resting(now.after(wait));
        self.answer_disappointed();
    }

    /// Milliseconds that follow so many failures in a row.
    fn backoff(&self, failures: u32) -> u64 {
        let Some(doublings) = failures.checked_sub(1) else { return 0 };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.terms.backoff_initial.saturating_mul(factor).min(self.terms.backoff_max)
    }

    // --- time

    fn due(&mut self, now: Moment) {
        let mut overdue = vec![];
        for leaver in &mut self.leavers {
            if leaver.until <= now {
                overdue.push((leaver.generation, leaver.forced));
                leaver.forced = true;
                leaver.until = now.after(KILL_GRACE);
            }
        }
        self.ask_workers(now);
        self.rival_due(now);
        for (generation, again) in overdue {
            if !again {
                self.tell(Step::Overdue(generation));
            }
            self.act(Action::Kill(generation));
        }
        let late =
            |what: &str, terms: &Terms| format!("{what} within {} s", terms.boot_timeout as f64 / 1000.0);
        match &mut self.state {
            State::Booting(candidate) | State::Succeeding(_, candidate) if candidate.until <= now => {
                let reason = late("the new master was not ready", &self.terms);
                self.fail(now, &reason, true);
            }
            State::Proving(candidate, proof) | State::Vetting(_, candidate, proof)
                if candidate.until <= now =>
            {
                let last = proof.reason.take();
                let last = last.unwrap_or_else(|| "it has not answered yet".to_owned());
                let reason = late("the new master's health was not proven", &self.terms);
                self.fail(now, &format!("{reason}: {last}"), true);
            }
            State::Proving(candidate, Proof { check, .. })
            | State::Vetting(_, candidate, Proof { check, .. }) => {
                if check.is_some_and(|check| check <= now) {
                    *check = None;
                    let generation = candidate.generation;
                    self.act(Action::Check(generation));
                }
            }
            State::Serving(serving) => {
                if serving.check.is_some_and(|check| check <= now) {
                    serving.check = None;
                    let generation = serving.generation;
                    self.act(Action::Check(generation));
                }
            }
            State::Resting(until) if *until <= now => self.start(now, self.unplanned()),
            State::Booting(_)
            | State::Succeeding(_, _)
            | State::Resting(_)
            | State::Down
            | State::Clearing
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_) => {}
        }
    }
}
