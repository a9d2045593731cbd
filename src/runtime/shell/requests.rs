//! Who has asked for what: written down, shown, and asked when something is to be given up.

use std::collections::BTreeMap;

use super::Shell;
use crate::runtime::action::{Action, GIVEN_UP, Step};
use crate::runtime::event::{Ask, Event, Generation, Ticket};
use crate::runtime::protocol::{Reply, Requester};

/// Who has asked for so many generations is remembered.
const REMEMBERED: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Requests {
    of: BTreeMap<Generation, Requester>,
    /// Who has asked for the next one: root, if root has.
    pub(super) waits: Option<Requester>,
    /// Signals that have come and were not taken in yet.
    signals: usize,
    /// Who has given up the candidate, until that is removed.
    given_up: Option<(Generation, Requester)>,
}

impl Requests {
    /// For the next run.
    pub(super) fn of_generations(&self) -> Vec<(Generation, Requester)> {
        self.of.iter().map(|(generation, who)| (*generation, who.clone())).collect()
    }

    /// What an earlier run has kept. `again`: this generation is asked for again.
    pub(super) fn adopt(
        &mut self,
        of: &[(Generation, Requester)],
        waits: Option<&Requester>,
        again: Option<Generation>,
    ) {
        self.of = of.iter().cloned().collect();
        let again = again.and_then(|generation| self.of.get(&generation)).cloned();
        waits.cloned().into_iter().chain(again).for_each(|who| self.add(who));
    }

    /// A signal has asked, which is told as an event in a moment.
    pub(super) fn add_signal(&mut self) {
        self.signals += 1;
    }

    fn add(&mut self, who: Requester) {
        if self.waits.as_ref().is_none_or(|before| before.uid != 0) {
            self.waits = Some(who);
        }
    }

    /// What is started now is started in the place of this one: who waits for that waits for the new one, which is root's, too, if
    /// that is.
    pub(super) fn supersede(&mut self, candidate: Generation) {
        let roots = self.of.get(&candidate).filter(|who| who.uid == 0).cloned();
        roots.into_iter().for_each(|who| self.add(who));
    }

    /// What was asked for is this generation from now on.
    pub(super) fn begin(&mut self, generation: Generation) {
        let Some(who) = self.waits.take() else { return };
        self.of.insert(generation, who);
        while self.of.len() > REMEMBERED {
            self.of.pop_first();
        }
    }

    /// Who has asked for a generation.
    pub(super) fn of(&self, generation: Generation) -> Option<&Requester> {
        self.of.get(&generation)
    }

    /// Who has given it up.
    pub(super) fn given_up(&self, generation: Generation) -> Option<&Requester> {
        self.given_up.as_ref().filter(|(one, _)| *one == generation).map(|(_, who)| who)
    }

    /// The reason of a back-out, with who wanted it.
    pub(super) fn explained(&self, reason: &str) -> String {
        match &self.given_up {
            Some((_, who)) if reason == GIVEN_UP => format!("{reason} by {who}"),
            _ => reason.to_owned(),
        }
    }
}

/// The candidate in whose place another one is started by these actions, although it has not failed.
pub(super) fn superseded(candidate: Option<Generation>, actions: &[Action]) -> Option<Generation> {
    let overtakes = |action: &Action| matches!(action, Action::Tell(Step::Overtaking(_, _)));
    candidate.filter(|_| actions.iter().any(overtakes))
}

impl Shell {
    fn requester(&self, ticket: Ticket) -> Option<Requester> {
        let (pid, uid) = self.control.identity(ticket)?;
        // Nobody else may connect, so no list of users has to be asked, which may take its time.
        let user = self.user_name(uid);
        Some(Requester { pid: Some(pid), uid, user })
    }

    fn by_signal(&self) -> Requester {
        let uid = rustix::process::geteuid().as_raw();
        Requester::by_signal(uid, self.user_name(uid))
    }

    fn user_name(&self, uid: u32) -> String {
        match uid {
            uid if uid == self.identity.uid => self.service.user.clone(),
            0 => "root".to_owned(),
            uid => uid.to_string(),
        }
    }

    /// Writes down who has asked for something. False: it is refused, and is not to be done.
    pub(super) fn note_request(&mut self, event: &Event) -> bool {
        let Event::Asked(ask) = event else { return true };
        let (who, what) = match ask {
            Ask::Upgrade(Some(ticket)) | Ask::Prove(ticket) => (self.requester(*ticket), "an upgrade"),
            Ask::Upgrade(None) | Ask::Restart => {
                // A successor that somebody has made the server start is asked for by nobody who is known.
                let is_signal = self.requests.signals > 0;
                self.requests.signals = self.requests.signals.saturating_sub(1);
                let what = if *ask == Ask::Restart { "a restart" } else { "an upgrade" };
                (is_signal.then(|| self.by_signal()), what)
            }
            Ask::Abort(ticket) => return self.note_abort(*ticket),
            Ask::Begin | Ask::Stop | Ask::Leave | Ask::Reopen | Ask::NotAgain => return true,
        };
        if let Some(who) = who {
            self.log.say(&format!("{what} is requested by {who}"));
            self.requests.add(who);
        }
        true
    }

    /// What root has asked for is given up by root alone.
    fn note_abort(&mut self, ticket: Ticket) -> bool {
        let Some(who) = self.requester(ticket) else { return true };
        let Some(candidate) = self.machine.candidate().map(|candidate| candidate.generation) else {
            return true;
        };
        if let Some(of) = self.requests.of(candidate).filter(|of| !who.may_undo(of)) {
            let reason = format!("{of} has requested it, so only root can give it up");
            self.log.say(&format!("{who} wants the hand-over to be given up, and may not: {reason}"));
            self.control.finish(ticket, &Reply::Refused { reason });
            return false;
        }
        self.log.say(&format!("{who} wants the hand-over to be given up"));
        self.requests.given_up = Some((candidate, who));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::event::{Moment, Terms};
    use crate::runtime::machine::Machine;

    #[test]
    fn what_root_and_somebody_else_ask_for_together_is_roots() {
        let user = Requester { pid: Some(7), uid: 1000, user: "deploy".to_owned() };
        let root = Requester { pid: Some(8), uid: 0, user: "root".to_owned() };
        let signal = Requester::by_signal(0, "root".to_owned());
        let mut requests = Requests::default();
        [&user, &root, &signal, &user].into_iter().for_each(|who| requests.add(who.clone()));
        requests.begin(Generation(2));
        assert_eq!((requests.of(Generation(2)), &requests.waits), (Some(&root), &None));
        assert!(!user.may_undo(&root) && user.may_undo(&user) && root.may_undo(&user));
        // Nobody has asked for the next one.
        requests.begin(Generation(3));
        assert_eq!(requests.of(Generation(3)), None);
        // The next run begins again what was under way.
        let mut next = Requests::default();
        next.adopt(&requests.of_generations(), Some(&user), Some(Generation(2)));
        assert_eq!(next.waits, Some(root));
        assert_eq!(signal.to_string(), "a signal of root (uid 0)");
    }

    /// Nothing serves yet, and root asks for a second generation; then somebody else asks for a third, which is started in its place:
    /// root waits for that one now.
    #[test]
    fn what_is_started_in_the_place_of_what_root_has_asked_for_is_roots() {
        let user = Requester { pid: Some(7), uid: 1000, user: "deploy".to_owned() };
        let root = Requester { pid: Some(8), uid: 0, user: "root".to_owned() };
        let terms = Terms {
            boot_timeout: 30_000,
            drain_timeout: 30_000,
            min_uptime: 5_000,
            backoff_initial: 1_000,
            backoff_max: 60_000,
            health: None,
            exclusive: false,
            fallback: true,
        };
        let (mut machine, mut requests) = (Machine::new(terms), Requests::default());
        let mut step = |who: Option<&Requester>, ask: Ask| {
            who.into_iter().for_each(|who| requests.add(who.clone()));
            let before = machine.candidate().map(|candidate| candidate.generation);
            let actions = machine.step(Moment(0), Event::Asked(ask));
            superseded(before, &actions).into_iter().for_each(|one| requests.supersede(one));
            let started = actions.iter().find_map(|action| match action {
                Action::Start(generation, _) => Some(*generation),
                _ => None,
            });
            let started = started.unwrap();
            requests.begin(started);
            (started, requests.of(started).cloned())
        };
        assert_eq!(step(None, Ask::Begin), (Generation(1), None));
        let roots = step(Some(&root), Ask::Upgrade(Some(Ticket(1))));
        assert_eq!(roots, (Generation(2), Some(root.clone())));
        let users = step(Some(&user), Ask::Upgrade(Some(Ticket(2))));
        assert_eq!(users, (Generation(3), Some(root.clone())));
        assert!(!user.may_undo(&root));
        assert_eq!(step(Some(&user), Ask::Upgrade(Some(Ticket(3)))), (Generation(4), Some(root)));
        // What nobody but the user has asked for is the user's.
        let (mut machine, mut requests) = (Machine::new(terms), Requests::default());
        requests.add(user.clone());
        machine.step(Moment(0), Event::Asked(Ask::Begin));
        requests.begin(Generation(1));
        let actions = machine.step(Moment(0), Event::Asked(Ask::Upgrade(None)));
        assert_eq!(superseded(Some(Generation(1)), &actions), Some(Generation(1)));
        requests.supersede(Generation(1));
        requests.begin(Generation(2));
        assert_eq!(requests.of(Generation(2)), None);
    }
}
