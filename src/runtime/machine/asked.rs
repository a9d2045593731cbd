//! What somebody asks for.

use super::super::action::{Action, GIVEN_UP, Origin, Outcome, Step};
use super::super::event::{Ask, Generation, Moment, Ticket};
use super::{Machine, Next, State};

/// While nothing serves, what is asked for replaces what was asked for before, which goes. If so many are going, it waits.
const MOST_LEAVERS: usize = 8;

impl Machine {
    pub(super) fn asked(&mut self, now: Moment, ask: Ask) {
        match ask {
            Ask::Begin => {
                if self.state == State::Down {
                    // It is reported like what somebody has asked for.
                    self.begin(Next::default());
                    let origin = if self.resumed { Origin::Disk } else { self.unplanned() };
                    self.start(now, origin);
                }
            }
            Ask::Upgrade(ticket) => {
                self.upgrade(now, Next { tickets: ticket.into_iter().collect(), ..Next::default() })
            }
            Ask::Prove(ticket) => self.upgrade(now, Next { patient: vec![ticket], ..Next::default() }),
            Ask::Restart => self.upgrade(now, Next { leave: true, ..Next::default() }),
            Ask::Abort(ticket) => self.abort(now, ticket),
            Ask::Stop => self.stop(now),
            Ask::Leave => match self.state {
                State::Over(_) => {}
                State::Down
                | State::Booting(_)
                | State::Proving(_, _)
                | State::Resting(_)
                | State::Clearing
                | State::Serving(_)
                | State::Succeeding(_, _)
                | State::Vetting(_, _, _)
                | State::Draining(_)
                | State::BackingOut(_, _)
                | State::Stopping => self.leave_now(),
            },
            Ask::Reopen => self.reopen(),
            Ask::NotAgain => self.once = true,
        }
    }

    fn upgrade(&mut self, now: Moment, next: Next) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Down => {
                self.begin(next);
                self.start(now, Origin::Disk);
            }
            state @ (State::Booting(_) | State::Proving(_, _))
                if self.terms.exclusive || self.leavers.len() >= MOST_LEAVERS =>
            {
                // It owns the addresses, so nothing can be started beside it; or somebody asks faster than what was asked for
                // before can go.
                self.state = state;
                self.queue(next);
            }
            State::Booting(candidate) => self.overtake(now, candidate, None, next),
            State::Proving(candidate, proof) => self.overtake(now, candidate, Some(proof), next),
            State::Resting(_) => {
                self.failures = 0;
                self.begin(next);
                self.start(now, Origin::Disk);
            }
            State::Clearing => {
                self.state = State::Clearing;
                self.clearing = Origin::Disk;
                self.begin(next);
            }
            State::Serving(serving) => {
                self.state = State::Serving(serving);
                self.begin(next);
                self.hand_over(now, Origin::Disk);
            }
            state @ (State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Draining(_)
            | State::BackingOut(_, _)) => {
                self.state = state;
                self.queue(next);
            }
            state @ (State::Stopping | State::Over(_)) => {
                self.state = state;
                self.refuse(&next.tickets, "the service is being stopped");
                self.refuse(&next.patient, "the service is being stopped");
            }
        }
    }

    /// Whoever has gone waits for nothing any more.
    pub fn forget_gone(&mut self, is_there: impl Fn(Ticket) -> bool) {
        let next = self.next.iter_mut().flat_map(|next| [&mut next.tickets, &mut next.patient]);
        for tickets in next.chain(&mut self.asked).chain([&mut self.patient]) {
            tickets.retain(|ticket| is_there(*ticket));
        }
        self.disappointed.retain(|(ticket, _)| is_there(*ticket));
    }

    /// It follows what is under way.
    fn queue(&mut self, next: Next) {
        let queue = self.next.get_or_insert_default();
        queue.tickets.extend(next.tickets);
        queue.patient.extend(next.patient);
        queue.leave |= next.leave;
        self.tell(Step::Queued);
    }

    /// What was asked for is under way from now on.
    pub(super) fn begin(&mut self, next: Next) {
        // Those who wait for the generation before it to be proven wait no longer.
        let superseded = "another hand-over has begun before it was proven";
        let before = std::mem::replace(&mut self.patient, next.patient);
        for ticket in before {
            self.act(Action::Answer(ticket, Outcome::BackedOut(superseded.to_owned())));
        }
        self.asked.get_or_insert_default().extend(next.tickets);
        self.leave |= next.leave;
    }

    /// And so is this.
    pub(super) fn begin_too(&mut self, next: Next) {
        self.patient.extend(next.patient);
        self.asked.get_or_insert_default().extend(next.tickets);
        self.leave |= next.leave;
    }

    /// The hand-over that is under way has this outcome.
    pub(super) fn answer(&mut self, outcome: &Outcome) {
        let mut tickets = self.asked.take().unwrap_or_default();
        tickets.append(&mut self.patient);
        for ticket in tickets {
            self.act(Action::Answer(ticket, outcome.clone()));
        }
    }

    /// The new generation serves alone. Those who want it proven go on waiting.
    pub(super) fn answer_done(&mut self, generation: Generation) {
        for ticket in self.asked.take().unwrap_or_default() {
            self.act(Action::Answer(ticket, Outcome::Done(generation)));
        }
        if self.serving().is_some_and(|serving| serving.probation.is_none()) {
            self.answer_proven(generation);
        }
    }

    /// The new generation was backed out. If nobody had asked for it, those who want the one that serves proven go on waiting.
    pub(super) fn answer_backed_out(&mut self, serving: Generation, reason: String) {
        if self.asked.is_some() {
            let is_given_up = reason == GIVEN_UP;
            let outcome = if is_given_up { Outcome::GivenUp(reason) } else { Outcome::BackedOut(reason) };
            self.answer(&outcome);
        } else if self.serving().is_some_and(|serving| serving.probation.is_none()) {
            self.answer_proven(serving);
        }
    }

    /// It is proven.
    pub(super) fn answer_proven(&mut self, generation: Generation) {
        for ticket in std::mem::take(&mut self.patient) {
            self.act(Action::Answer(ticket, Outcome::Proven(generation)));
        }
    }

    fn refuse(&mut self, tickets: &[Ticket], reason: &str) {
        for ticket in tickets {
            self.act(Action::Answer(*ticket, Outcome::Refused(reason.to_owned())));
        }
    }

    fn abort(&mut self, now: Moment, ticket: Ticket) {
        let refused = match &self.state {
            State::Succeeding(serving, _) | State::Vetting(serving, _, _) => {
                self.act(Action::Answer(ticket, Outcome::Done(serving.generation)));
                self.give_up(now, GIVEN_UP, true);
                return;
            }
            State::Draining(_) => "it is too late: the old generation was told to finish",
            State::BackingOut(_, _) => "it is being backed out already",
            State::Booting(_) | State::Proving(_, _) | State::Clearing => {
                "no generation serves that could go on without it"
            }
            State::Down | State::Resting(_) | State::Serving(_) | State::Stopping | State::Over(_) => {
                "no hand-over is under way"
            }
        };
        self.refuse(&[ticket], refused);
    }

    pub(super) fn stop(&mut self, now: Moment) {
        let drain = self.terms.drain_timeout;
        let (serving, candidate) = match std::mem::replace(&mut self.state, State::Stopping) {
            state @ (State::Stopping | State::Over(_)) => {
                self.state = state;
                return;
            }
            State::Serving(serving) | State::Draining(serving) | State::BackingOut(serving, _) => {
                (Some(serving), None)
            }
            State::Succeeding(serving, candidate) | State::Vetting(serving, candidate, _) => {
                (Some(serving), Some(candidate))
            }
            State::Booting(candidate) | State::Proving(candidate, _) => (None, Some(candidate)),
            State::Down | State::Resting(_) | State::Clearing => (None, None),
        };
        self.tell(Step::Stopping);
        let mut tickets = self.asked.take().unwrap_or_default();
        tickets.append(&mut self.patient);
        let next = self.next.take().unwrap_or_default();
        tickets.extend(next.tickets.into_iter().chain(next.patient));
        self.refuse(&tickets, "the service is being stopped");
        self.answer_disappointed();
        self.act(Action::Close);
        if let Some(serving) = serving {
            self.retire(now, serving.generation, drain);
        }
        if let Some(candidate) = candidate {
            let terms = self.terms;
            self.retire_candidate(now, &candidate, &terms);
        }
        self.retire_rival(now);
        for orphan in std::mem::take(&mut self.orphans) {
            self.retire(now, orphan, drain);
        }
        self.settle(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::event::{Event, Terms};
    use super::*;

    /// Somebody asks for a hand-over and goes, a thousand times, while one is under way.
    #[test]
    fn who_has_gone_is_not_remembered() {
        let terms = Terms {
            boot_timeout: 30_000,
            drain_timeout: 30_000,
            min_uptime: 0,
            backoff_initial: 1_000,
            backoff_max: 60_000,
            health: None,
            exclusive: false,
            fallback: false,
        };
        let mut machine = Machine::new(terms);
        let one = Generation(1);
        for event in
            [Event::Asked(Ask::Begin), Event::Started(one, terms), Event::Loaded(one), Event::Ready(one)]
        {
            machine.step(Moment(0), event);
        }
        machine.step(Moment(1), Event::Asked(Ask::Upgrade(Some(Ticket(0)))));
        for number in 1..=1000 {
            let ask =
                if number % 2 == 0 { Ask::Prove(Ticket(number)) } else { Ask::Upgrade(Some(Ticket(number))) };
            machine.step(Moment(1), Event::Asked(ask));
            // Two of them stay.
            machine.forget_gone(|ticket| [0, 1, number].contains(&ticket.0));
        }
        let next = machine.next.clone().unwrap();
        assert_eq!((next.tickets, next.patient), (vec![Ticket(1)], vec![Ticket(1000)]));
        assert_eq!(machine.asked, Some(vec![Ticket(0)]));
        machine.forget_gone(|_| false);
        // Something was asked for all the same.
        assert_eq!((machine.asked.clone(), machine.is_queued()), (Some(vec![]), true));
    }
}
