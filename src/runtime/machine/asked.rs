//! What somebody asks for.

use super::super::action::{Action, Outcome, Step};
use super::super::event::{Ask, Moment, Ticket};
use super::{Machine, Next, REMOVAL, State};

impl Machine {
    pub(super) fn asked(&mut self, now: Moment, ask: Ask) {
        match ask {
            Ask::Upgrade(ticket) => {
                self.upgrade(now, Next { tickets: ticket.into_iter().collect(), leave: false })
            }
            Ask::Restart => self.upgrade(now, Next { tickets: vec![], leave: true }),
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
                self.start(now);
            }
            State::Booting(candidate) | State::Proving(candidate, _) => {
                // Nothing serves, and what is on disk now may be what mends it.
                let within = if candidate.loaded { self.terms.drain_timeout } else { REMOVAL };
                self.retire(now, candidate.generation, within);
                self.begin(next);
                self.start(now);
            }
            State::Resting(_) => {
                self.failures = 0;
                self.begin(next);
                self.start(now);
            }
            State::Clearing => {
                self.state = State::Clearing;
                self.begin(next);
            }
            State::Serving(serving) => {
                self.state = State::Serving(serving);
                self.begin(next);
                self.hand_over(now);
            }
            state @ (State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Draining(_)
            | State::BackingOut(_, _)) => {
                self.state = state;
                let queue = self.next.get_or_insert_default();
                queue.tickets.extend(next.tickets);
                queue.leave |= next.leave;
                self.tell(Step::Queued);
            }
            state @ (State::Stopping | State::Over(_)) => {
                self.state = state;
                self.refuse(&next.tickets, "the service is being stopped");
            }
        }
    }

    /// What was asked for is under way from now on.
    pub(super) fn begin(&mut self, next: Next) {
        self.asked.get_or_insert_default().extend(next.tickets);
        self.leave |= next.leave;
    }

    /// The hand-over that is under way has this outcome.
    pub(super) fn answer(&mut self, outcome: &Outcome) {
        for ticket in self.asked.take().unwrap_or_default() {
            self.act(Action::Answer(ticket, outcome.clone()));
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
                self.fail(now, "it was given up, as asked", true);
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
        tickets.extend(self.next.take().unwrap_or_default().tickets);
        self.refuse(&tickets, "the service is being stopped");
        self.act(Action::Close);
        if let Some(serving) = serving {
            self.retire(now, serving.generation, drain);
        }
        if let Some(candidate) = candidate {
            let within = if candidate.loaded { drain } else { REMOVAL };
            self.retire(now, candidate.generation, within);
        }
        for orphan in std::mem::take(&mut self.orphans) {
            self.retire(now, orphan, drain);
        }
        self.settle(now);
    }
}
