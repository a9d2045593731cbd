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

use super::action::{Action, End, Outcome, Step};
use super::event::{Event, Generation, Moment, Terms, Ticket};

mod asked;
mod record;
mod reopen;

pub use record::{Record, Remains};

/// What a generation that never had a request gets to end by itself before it is killed, in milliseconds: an
/// interpreter that still imports ends at once when it is told to, or not at all.
pub const REMOVAL: u64 = 2_000;

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
}

/// A hand-over that follows the one under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Next {
    tickets: Vec<Ticket>,
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
    /// The highest number that a generation has had.
    last: Generation,
    /// Failed starts and early deaths in a row.
    failures: u32,
    /// Starts that nobody asked for, since the service is up.
    restarts: u32,
    /// A hand-over that somebody asked for is under way; these wait for its outcome.
    asked: Option<Vec<Ticket>>,
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
            last: Generation(0),
            failures: 0,
            restarts: 0,
            asked: None,
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
        self.leavers.iter().map(|leaver| leaver.until).chain(own).min()
    }

    /// Takes in what happened at `now`; gives what is to be done, in this order.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.logs_before(&event);
        match event {
            Event::Started(generation, terms) => self.started(now, generation, terms),
            Event::NotStarted(generation, reason) => self.not_started(now, generation, &reason),
            Event::Loaded(generation) => self.loaded(now, generation),
            Event::Ready(generation) => self.ready(now, generation),
            Event::Healthy(generation) => self.healthy(now, generation),
            Event::Sick(generation, reason) => self.sick(now, generation, reason),
            Event::Ended(generation, how) => self.ended(now, generation, &how),
            Event::Gone(generation) => self.gone(now, generation),
            Event::Asked(ask) => self.asked(now, ask),
            Event::Due => self.due(now),
        }
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
                return self.take_over(now, Some(serving.generation), &candidate);
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
                self.take_over(now, Some(serving.generation), &candidate);
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
                    self.restarts += 1;
                    self.failures += 1;
                    self.tell(Step::Hung(generation, reason));
                    self.hand_over(now);
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
    fn take_over(&mut self, now: Moment, old: Option<Generation>, candidate: &Candidate) {
        let generation = candidate.generation;
        self.before = None;
        let before: Vec<_> = old.into_iter().chain(std::mem::take(&mut self.orphans)).collect();
        self.tell(Step::Serves(generation, !before.is_empty()));
        for one in before {
            self.retire(now, one, self.terms.drain_timeout);
        }
        self.state = State::Draining(Serving { generation, since: now, check: None, strikes: 0 });
        self.settle(now);
    }

    /// Tells a generation to go within so many milliseconds.
    fn retire(&mut self, now: Moment, generation: Generation, within: u64) {
        self.leavers.push(Leaver { generation, until: now.after(within), forced: false });
        self.act(Action::Retire(generation));
    }

    /// The candidate is not to serve.
    fn fail(&mut self, now: Moment, reason: &str, is_left: bool) {
        let within = |loaded, terms: &Terms| if loaded { terms.drain_timeout } else { REMOVAL };
        match std::mem::replace(&mut self.state, State::Down) {
            State::Booting(candidate) | State::Proving(candidate, _) => {
                self.failures += 1;
                if is_left {
                    self.retire(now, candidate.generation, within(candidate.loaded, &self.terms));
                }
                self.tell(Step::Failed(None, reason.to_owned()));
                self.answer(&Outcome::BackedOut(reason.to_owned()));
                self.rest(now);
            }
            State::Succeeding(serving, candidate) | State::Vetting(serving, candidate, _) => {
                self.tell(Step::BackingOut(candidate.generation, reason.to_owned()));
                if is_left {
                    self.retire(now, candidate.generation, within(candidate.loaded, &self.terms));
                }
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
        let (since, outcome) = match state {
            State::Succeeding(_, candidate) => {
                self.state = State::Booting(candidate);
                return;
            }
            State::Vetting(_, candidate, proof) => {
                self.state = State::Proving(candidate, proof);
                return;
            }
            State::Serving(serving) => (serving.since, None),
            State::Draining(serving) => (serving.since, Some(format!("the new master {how}"))),
            State::BackingOut(serving, reason) => (serving.since, Some(reason)),
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
            return self.start(now);
        }
        if now.since(since) >= self.terms.min_uptime {
            self.failures = 0;
            return self.start(now);
        }
        self.failures += 1;
        self.rest(now);
    }

    fn gone(&mut self, now: Moment, generation: Generation) {
        // Nobody told of its end; with this it has one.
        if self.is_candidate(generation) {
            self.fail(now, "the new master has gone", false);
        } else if self.serves(generation) {
            self.died(now, generation, "has gone");
        }
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
                self.answer(&Outcome::Done(generation));
                self.go_on(now);
            }
            State::BackingOut(serving, reason) => {
                let generation = serving.generation;
                self.terms = self.before.take().unwrap_or(self.terms);
                self.serve(now, serving, self.failures);
                self.act(Action::Settled(generation));
                self.tell(Step::Failed(Some(generation), reason.clone()));
                self.answer(&Outcome::BackedOut(reason));
                self.leave = false;
                self.go_on(now);
            }
            State::Clearing if self.orphans.is_empty() => self.start(now),
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
            self.hand_over(now);
        } else if self.leave {
            self.leave_now();
        }
    }

    fn leave_now(&mut self) {
        self.tell(Step::Leaving);
        self.parting = Some(self.record());
        self.state = State::Over(End::Left);
        self.act(Action::End(End::Left));
    }

    // --- starts

    fn number(&mut self) -> Generation {
        self.last = Generation(self.last.0.saturating_add(1));
        self.last
    }

    fn candidate_at(&mut self, now: Moment) -> Candidate {
        Candidate { generation: self.number(), until: now.after(self.terms.boot_timeout), loaded: false }
    }

    /// A first generation, while nothing serves.
    fn start(&mut self, now: Moment) {
        if self.terms.exclusive && !(self.leavers.is_empty() && self.orphans.is_empty()) {
            for orphan in std::mem::take(&mut self.orphans) {
                self.retire(now, orphan, self.terms.drain_timeout);
            }
            self.state = State::Clearing;
            return;
        }
        let candidate = self.candidate_at(now);
        let generation = candidate.generation;
        self.state = State::Booting(candidate);
        self.tell(Step::Starting(generation));
        self.act(Action::Start(generation));
    }

    /// A successor of the generation that serves.
    fn hand_over(&mut self, now: Moment) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Serving(serving) => {
                let candidate = self.candidate_at(now);
                let (old, new) = (serving.generation, candidate.generation);
                self.state = State::Succeeding(Serving { check: None, ..serving }, candidate);
                self.tell(Step::HandOver(old, new));
                self.act(if self.terms.exclusive { Action::Succeed(old, new) } else { Action::Start(new) });
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
            State::Resting(until) if *until <= now => self.start(now),
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
