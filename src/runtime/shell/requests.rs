//! Who has asked for what: written down, shown, and asked when something is to be given up.

use std::collections::BTreeMap;

use super::Shell;
use crate::runtime::action::GIVEN_UP;
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
}
