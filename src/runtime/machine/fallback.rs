//! Probation, and what an unplanned start uses: the last known good.
//!
//! A generation that takes over is on *probation* until it has served for `min_uptime`; then it is *proven*. Before anything
//! has served, an unplanned start uses what is on disk, and what was proven last if that fails. Once something has served,
//! it uses what served: what is on disk may be a release that nobody has deployed, or one that has failed.

use super::super::action::{Action, Origin, Outcome, Step};
use super::super::event::{Event, Generation, Moment};
use super::{Candidate, Machine, Serving, State};

/// While a health check fails or workers die, the end of probation is looked at again after this many milliseconds.
const NOT_WHILE_SICK: u64 = 1_000;

/// Whoever looks so many milliseconds after the end of probation was stopped or absent, and does not know how it went.
const LATE: u64 = 2_000;

impl Machine {
    /// Something was proven by an earlier run, or before this start of the machine, and is still kept.
    pub fn knows_proven(&mut self) {
        self.has_proven = true;
    }

    /// What is started if the generation that serves fails on probation.
    pub fn after_failure(&self) -> Origin {
        let mut then = self.clone();
        then.failures += 1;
        if let Some(serving) = self.serving() {
            then.has_failed(serving.origin);
            then.keep_itself(serving.generation);
        }
        then.unplanned()
    }

    /// What an unplanned start uses now.
    pub(super) fn unplanned(&self) -> Origin {
        match self.good {
            _ if !self.terms.fallback => Origin::Disk,
            Some(good) => good,
            None if self.failures == 0 => Origin::First,
            // What is on disk has failed, or both have: each has its turn.
            None if self.has_proven && self.failures % 2 == 1 => Origin::LastProven,
            None => Origin::Disk,
        }
    }

    /// What was started from there has failed.
    pub(super) fn has_failed(&mut self, origin: Origin) {
        if origin == Origin::Before && self.good == Some(Origin::Before) && self.has_proven {
            self.good = Some(Origin::LastProven);
        }
    }

    /// Nothing serves: the next start is now if it uses something else than what has just failed, and later if not.
    pub(super) fn start_again(&mut self, now: Moment, failed: Origin) {
        let next = self.unplanned();
        let is_disk = |origin| matches!(origin, Origin::Disk | Origin::First);
        let differs = next != failed && !(is_disk(next) && is_disk(failed));
        // What has served is tried at once, however often others have failed; each of several is tried once.
        if differs && (self.good.is_some() || self.failures <= 1) && !self.once {
            return self.start(now, next);
        }
        self.rest(now);
    }

    /// The candidate takes over from `old`.
    pub(super) fn remember_before(&mut self, old: Option<&Serving>, candidate: &Candidate) {
        match old {
            // Neither is the same; what served before it still is.
            Some(_) if candidate.origin == Origin::Serving && self.good.is_some() => {}
            Some(old) if old.probation.is_some() => {
                self.act(Action::KeepBefore(old.generation));
                self.good = Some(Origin::Before);
            }
            Some(_) => self.good = Some(Origin::LastProven),
            None => {}
        }
        // After a boot nothing has served yet; from now on something has.
        if self.good.is_none() && candidate.origin == Origin::LastProven {
            self.good = Some(Origin::LastProven);
        }
    }

    /// The first generation that serves has failed on probation, and nothing served before it: from now on what was proven by an
    /// earlier run is started, or itself again if nothing was. What is on disk may be something that nobody has deployed. True
    /// if it is itself.
    pub(super) fn keep_itself(&mut self, generation: Generation) -> bool {
        if self.good.is_some() || !self.terms.fallback {
            return false;
        }
        if self.has_proven {
            self.good = Some(Origin::LastProven);
            return false;
        }
        self.act(Action::KeepBefore(generation));
        self.good = Some(Origin::Before);
        true
    }

    /// When the generation that serves is proven, if the time alone decides that.
    pub(super) fn proven_at(&self) -> Option<Moment> {
        let serving = self.serving()?;
        let takes_an_answer = matches!(self.state, State::Serving(_)) || serving.is_unattended;
        serving.probation.filter(|_| !(self.is_checked() && takes_an_answer))
    }

    /// Whether the health of the generation that serves is checked.
    pub(super) fn is_checked(&self) -> bool {
        self.before.unwrap_or(self.terms).health.is_some()
    }

    /// The generation that serves is proven once its time has come. Where its health is checked that takes a good answer, unless
    /// a hand-over is under way, in which only the candidate is checked: and then it takes somebody who was there at the time.
    pub(super) fn prove_if_due(&mut self, now: Moment, event: &Event) {
        let is_checked = self.is_checked();
        let is_alone = matches!(self.state, State::Serving(_));
        let (State::Serving(serving)
        | State::Succeeding(serving, _)
        | State::Vetting(serving, _, _)
        | State::Draining(serving)
        | State::BackingOut(serving, _)) = &mut self.state
        else {
            return;
        };
        let Some(until) = serving.probation.filter(|until| *until <= now) else { return };
        // It may have ended long ago: whoever reports it may have been stopped, or had to wait for a busy machine.
        let is_bad_news = matches!(
            event,
            Event::Ended(one, _) | Event::Gone(one) | Event::Dying(one) | Event::Unstable(one, _)
                if *one == serving.generation
        );
        if is_bad_news {
            return;
        }
        serving.is_unattended |= now.since(until) > LATE;
        let takes_an_answer = is_checked && (is_alone || serving.is_unattended);
        if takes_an_answer && (*event != Event::Healthy(serving.generation) || serving.strikes > 0) {
            return;
        }
        if serving.strikes > 0 || serving.dying {
            serving.probation = Some(now.after(NOT_WHILE_SICK));
            return;
        }
        serving.probation = None;
        let generation = serving.generation;
        self.good = Some(Origin::LastProven);
        self.has_proven = true;
        self.failures = 0;
        self.act(Action::Prove(generation));
        self.tell(Step::Proven(generation));
        if matches!(self.state, State::Serving(_)) {
            self.answer_proven(generation);
        }
    }

    /// A generation has failed within `min_uptime` after it took over.
    pub(super) fn fails_probation(&mut self, serving: &Serving, reason: &str) {
        self.act(Action::Condemn(serving.generation, reason.to_owned()));
        self.tell(Step::FailedProbation(serving.generation, reason.to_owned()));
        self.has_failed(serving.origin);
        let outcome = Outcome::FailedProbation(serving.generation, reason.to_owned());
        let patient = std::mem::take(&mut self.patient);
        self.disappointed.extend(patient.into_iter().map(|ticket| (ticket, outcome.clone())));
    }

    /// It is decided what serves after a generation has failed on probation.
    pub(super) fn answer_disappointed(&mut self) {
        for (ticket, outcome) in std::mem::take(&mut self.disappointed) {
            self.act(Action::Answer(ticket, outcome));
        }
    }

    /// The generation that serves alone cannot go on.
    pub(super) fn replace(&mut self, now: Moment, generation: Generation, early: bool, reason: &str) {
        let Some(serving) = self.serving().filter(|serving| serving.generation == generation).cloned() else {
            return;
        };
        self.restarts += 1;
        self.failures += 1;
        if early {
            self.fails_probation(&serving, reason);
            self.keep_itself(generation);
        }
        self.hand_over(now, self.unplanned());
    }

    /// New connections do not reach the generation that serves: the same is started again, whatever is on disk. A server that
    /// owns its addresses would pass the old ones on.
    pub(super) fn unreachable(&mut self, now: Moment, generation: Generation) {
        let State::Serving(serving) = &self.state else { return };
        if serving.generation != generation || self.terms.exclusive {
            return;
        }
        self.restarts += 1;
        self.tell(Step::Unreachable(generation));
        self.hand_over(now, Origin::Serving);
    }

    /// What a candidate was started from has failed. If the same serves, that is no reason to distrust it.
    pub(super) fn condemn(&mut self, candidate: &Candidate, reason: &str) {
        if candidate.origin != Origin::Serving {
            self.act(Action::Condemn(candidate.generation, reason.to_owned()));
        }
    }

    /// Workers of a generation die again and again while they load the application.
    pub(super) fn unstable(&mut self, now: Moment, generation: Generation, how: &str) {
        if self.is_candidate(generation) {
            return self.fail(now, how, true);
        }
        self.drop_rival(now, generation, how, true);
        if let State::Serving(serving) = &self.state
            && serving.generation == generation
            && serving.probation.is_some()
        {
            self.replace(now, generation, true, how);
        }
    }

    /// Whether workers of the generation that serves die again and again.
    pub(super) fn is_dying(&mut self, generation: Generation, is_dying: bool) {
        if let State::Serving(serving)
        | State::Succeeding(serving, _)
        | State::Vetting(serving, _, _)
        | State::Draining(serving)
        | State::BackingOut(serving, _) = &mut self.state
            && serving.generation == generation
        {
            serving.dying = is_dying;
        }
    }

    /// Leavers whose workers may have missed that they are to go.
    pub(super) fn ask_workers(&mut self, now: Moment) {
        let mut due = vec![];
        for leaver in &mut self.leavers {
            if leaver.ask_workers <= now && !leaver.forced {
                leaver.ask_workers = now.after(leaver.ask_again);
                leaver.ask_again = leaver.ask_again.saturating_mul(2);
                due.push(leaver.generation);
            }
        }
        for generation in due {
            self.act(Action::AskWorkers(generation));
        }
    }
}
