//! A first start that is overtaken: somebody asks for a newer generation while nothing serves and one gets ready.
//!
//! The older one, the *rival*, is kept: whichever of the two is ready first serves. If that is the rival, the newer one
//! goes on as its successor; so nobody waits longer because of what was asked for, and a broken release costs nothing.

use super::super::action::{Action, Outcome, Step};
use super::super::event::{Generation, Moment, Terms};
use super::{Candidate, Machine, Next, Proof, State};
use crate::runtime::action::Origin;

/// A candidate that was overtaken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Itself.
    pub candidate: Candidate,
    /// How far the proof of its health is, once it is ready.
    pub proof: Option<Proof>,
    /// The lengths of time that count for it.
    pub terms: Terms,
}

impl Rival {
    pub(super) fn deadline(&self) -> Moment {
        let check = self.proof.as_ref().and_then(|proof| proof.check);
        check.map_or(self.candidate.until, |check| check.min(self.candidate.until))
    }
}

impl Machine {
    /// The candidate that was overtaken.
    pub fn rival(&self) -> Option<&Candidate> {
        self.rival.as_ref().map(|rival| &rival.candidate)
    }

    pub(super) fn is_rival(&self, generation: Generation) -> bool {
        self.rival().is_some_and(|rival| rival.generation == generation)
    }

    /// A newer generation is started beside this candidate. Of three, the one in the middle goes.
    pub(super) fn overtake(&mut self, now: Moment, candidate: Candidate, proof: Option<Proof>, next: Next) {
        let terms = self.terms;
        if self.rival.is_some() {
            self.retire_candidate(now, &candidate, &terms);
        }
        let rival = self.rival.get_or_insert(Rival { candidate, proof, terms });
        let old = rival.candidate.generation;
        self.begin(next);
        // What was to follow is what is started now.
        if let Some(queued) = self.next.take() {
            self.begin_too(queued);
        }
        let candidate = self.candidate_at(now, Origin::Disk);
        let new = candidate.generation;
        self.state = State::Booting(candidate);
        self.tell(Step::Overtaking(old, new));
        self.act(Action::Start(new, Origin::Disk));
    }

    pub(super) fn rival_started(&mut self, now: Moment, generation: Generation, terms: Terms) -> bool {
        let Some(rival) = self.rival.as_mut().filter(|rival| rival.candidate.generation == generation) else {
            return false;
        };
        rival.terms = terms;
        rival.candidate.until = now.after(terms.boot_timeout);
        true
    }

    pub(super) fn rival_loaded(&mut self, generation: Generation) {
        if let Some(rival) = self.rival.as_mut().filter(|rival| rival.candidate.generation == generation) {
            rival.candidate.loaded = true;
        }
    }

    pub(super) fn rival_ready(&mut self, now: Moment) {
        let Some(rival) = &mut self.rival else { return };
        rival.candidate.loaded = true;
        if rival.terms.health.is_none() {
            return self.rival_serves(now);
        }
        if rival.proof.is_none() {
            rival.proof = Some(Proof::default());
            let generation = rival.candidate.generation;
            self.tell(Step::Proving(generation));
            self.act(Action::Check(generation));
        }
    }

    pub(super) fn rival_healthy(&mut self, now: Moment) {
        let Some(rival) = &mut self.rival else { return };
        let (Some(health), Some(proof)) = (rival.terms.health, &mut rival.proof) else { return };
        proof.good += 1;
        proof.check = Some(now.after(health.interval));
        if proof.good >= health.successes {
            self.rival_serves(now);
        }
    }

    pub(super) fn rival_sick(&mut self, now: Moment, reason: String) {
        let Some(rival) = &mut self.rival else { return };
        let (Some(health), Some(proof)) = (rival.terms.health, &mut rival.proof) else { return };
        *proof = Proof { good: 0, check: Some(now.after(health.interval)), reason: Some(reason) };
    }

    /// It was ready first: the newer one goes on as its successor.
    fn rival_serves(&mut self, now: Moment) {
        let Some(rival) = self.rival.take() else { return };
        let generation = rival.candidate.generation;
        let orphans = std::mem::take(&mut self.orphans);
        self.tell(Step::Serves(generation, !orphans.is_empty()));
        for orphan in orphans {
            self.retire(now, orphan, rival.terms.drain_timeout);
        }
        let mut serving = self.newly_serving(now, &rival.candidate, None);
        serving.probation = Some(now.after(rival.terms.min_uptime));
        self.before = Some(rival.terms);
        self.state = match std::mem::replace(&mut self.state, State::Down) {
            State::Booting(candidate) => State::Succeeding(serving, candidate),
            State::Proving(candidate, proof) => State::Vetting(serving, candidate, proof),
            // A rival is there only while a newer one gets ready.
            other @ (State::Down
            | State::Resting(_)
            | State::Clearing
            | State::Serving(_)
            | State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping
            | State::Over(_)) => other,
        };
    }

    /// The newer one has failed: the rival goes on alone. False if there is none.
    pub(super) fn go_back_to_rival(&mut self, failed: &Candidate, reason: &str) -> bool {
        let Some(rival) = self.rival.take() else { return false };
        self.tell(Step::Dropped(failed.generation, reason.to_owned()));
        self.has_failed(failed.origin);
        self.answer(&Outcome::BackedOut(reason.to_owned()));
        self.leave = false;
        self.terms = rival.terms;
        self.state = match rival.proof {
            None => State::Booting(rival.candidate),
            Some(proof) => State::Proving(rival.candidate, proof),
        };
        true
    }

    /// It has failed; the newer one goes on. `is_left`: something of it may live.
    pub(super) fn drop_rival(&mut self, now: Moment, generation: Generation, reason: &str, is_left: bool) {
        if !self.is_rival(generation) {
            return;
        }
        if let Some(rival) = self.rival().cloned() {
            self.condemn(&rival, reason);
        }
        self.tell(Step::Dropped(generation, reason.to_owned()));
        if is_left {
            self.retire_rival(now);
        } else {
            self.rival = None;
        }
    }

    /// It is not needed any more.
    pub(super) fn retire_rival(&mut self, now: Moment) {
        if let Some(rival) = self.rival.take() {
            self.retire_candidate(now, &rival.candidate, &rival.terms);
        }
    }

    pub(super) fn rival_due(&mut self, now: Moment) {
        let Some(rival) = &mut self.rival else { return };
        let generation = rival.candidate.generation;
        if rival.candidate.until <= now {
            let seconds = rival.terms.boot_timeout as f64 / 1000.0;
            let last = rival.proof.take().and_then(|proof| proof.reason);
            let last = last.map(|last| format!(": {last}")).unwrap_or_default();
            let reason = format!("the new master was not ready within {seconds} s{last}");
            return self.drop_rival(now, generation, &reason, true);
        }
        if let Some(proof) = &mut rival.proof
            && proof.check.is_some_and(|check| check <= now)
        {
            proof.check = None;
            self.act(Action::Check(generation));
        }
    }
}
