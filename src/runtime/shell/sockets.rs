//! Unix sockets whose files others may remove or replace: they are opened again, and a generation is started that has them.
//!
//! A bound socket cannot get a file again, so the address is opened anew, and the workers of the generation that serves do not
//! have the new socket. Clients wait in its queue until another generation of the same has it.

use std::collections::BTreeSet;

use super::{Mode, Shell};
use crate::model::Service;
use crate::model::input::Strategy;
use crate::model::service::Socket;
use crate::runtime::event::{Event, Generation, Moment};
use crate::runtime::linux::clock;
use crate::runtime::linux::listen::{self, Kept, Listener};
use crate::runtime::machine::State;
use crate::runtime::protocol::Problem;

/// The wait after the first repair, in milliseconds; it doubles with each one in a row.
const FIRST_WAIT: u64 = 5_000;

/// The longest wait between two repairs, in milliseconds: an application that removes its socket whenever it starts is started
/// four times an hour because of that, and no more.
const LONGEST_WAIT: u64 = 15 * 60_000;

/// The longest wait before it is tried again to open a socket, in milliseconds. No generation is started for that, and a person
/// who has removed what is in the way is not to wait long.
const LONGEST_RETRY: u64 = 60_000;

/// After so long without a repair the next one is not in a row with the last one, in milliseconds; longer than the longest wait.
const FORGOTTEN: u64 = 2 * LONGEST_WAIT;

/// How often something may be done: the first time at once, then less and less often.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    count: u32,
    last: Option<Moment>,
}

impl Pace {
    /// When it may be done next; none: now.
    fn next(&self, longest: u64) -> Option<Moment> {
        let doublings = self.count.checked_sub(1)?;
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        Some(self.last?.after(FIRST_WAIT.saturating_mul(factor).min(longest)))
    }

    /// It is done now.
    fn note(&mut self, now: Moment) {
        if self.last.is_some_and(|last| now.since(last) >= FORGOTTEN) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
    }
}

/// What is known of the sockets' files.
#[derive(Default)]
pub(super) struct Sockets {
    /// Addresses were opened again.
    openings: Pace,
    /// They could not be, since the last time that they could.
    retries: Pace,
    /// Generations that were started because of it.
    replacements: Pace,
    /// Why the last opening failed.
    trouble: Option<String>,
    /// When it is looked at again.
    pub(super) due: Option<Moment>,
    /// Files that the kernel reports the loss of.
    watched: BTreeSet<(u64, u64)>,
    /// Not all files can be watched: they are looked at whenever something else happens.
    pub(super) are_unwatched: bool,
    /// What the server has bound itself (`usr2`): address and file.
    foreign: Vec<Kept>,
    /// The generation that is started because of it, and the reason for it.
    replacement: Option<(Generation, String)>,
    /// The addresses that were opened again, and that the generation that serves does not have.
    pub(super) reopened: BTreeSet<String>,
}

impl Shell {
    /// Looks at the sockets' files: opens again what was removed or replaced, and has a generation started that has it.
    pub(super) fn look_at_sockets(&mut self) {
        self.sockets.due = None;
        self.watch_sockets();
        if self.mode == Mode::Finish {
            return;
        }
        let Some(serving) = self.machine.serving().map(|serving| serving.generation) else { return };
        let Some(service) = self.generations.get(&serving).map(|live| live.service.clone()) else { return };
        if service.handoff.strategy != Strategy::Sockets {
            return self.look_at_foreign(&service);
        }
        let now = clock::now();
        let lost = self.lost(&service);
        if lost.is_empty() {
            self.sockets.trouble = None;
        } else {
            // What cannot be opened is tried again sooner than what is removed again and again.
            match self.sockets.openings.next(LONGEST_WAIT).max(self.sockets.retries.next(LONGEST_RETRY)) {
                Some(at) if at > now => self.look_again_at(at),
                _ => self.open_again(now, serving, &lost),
            }
        }
        if self.lacks(serving, &service).is_none() {
            self.sockets.reopened.clear();
        } else if matches!(self.machine.state(), State::Serving(_)) {
            // In a hand-over it is looked at again when that has ended.
            match self.sockets.replacements.next(LONGEST_WAIT) {
                Some(at) if at > now => self.look_again_at(at),
                _ => {
                    self.sockets.replacements.note(now);
                    self.tell(Event::Unreachable(serving));
                }
            }
        }
    }

    fn look_again_at(&mut self, at: Moment) {
        self.sockets.due = Some(self.sockets.due.map_or(at, |due| due.min(at)));
    }

    /// Unix sockets of a service that cannot be reached by their files.
    fn lost(&self, service: &Service) -> Vec<Socket> {
        let is_lost =
            |socket: &&Socket| self.reached_by(&socket.address).is_some_and(|one| !one.kept.is_in_place());
        service.bind.iter().filter(is_lost).cloned().collect()
    }

    /// The socket that is reached by an address, if its file is in place: the last one that was opened.
    fn reached_by(&self, address: &str) -> Option<&Listener> {
        self.listeners.iter().rev().find(|one| one.kept.address == address)
    }

    /// An address that a generation has an older socket of.
    fn lacks(&self, generation: Generation, service: &Service) -> Option<String> {
        let held = self.generations.get(&generation)?.life.sockets.as_ref()?;
        let is_older = |socket: &&Socket| {
            let node = self.reached_by(&socket.address).and_then(|one| one.kept.node);
            node.is_some_and(|node| !held.contains(&node))
        };
        service.bind.iter().find(is_older).map(|socket| socket.address.clone())
    }

    /// Whether a generation that lives has this socket; of one that an earlier version has started that is not known.
    pub(super) fn is_held(&self, kept: &Kept) -> bool {
        self.generations.values().any(|live| match (&live.life.sockets, kept.node) {
            (Some(held), Some(node)) => held.contains(&node),
            _ => true,
        })
    }

    fn open_again(&mut self, now: Moment, serving: Generation, lost: &[Socket]) {
        let Some(identity) = self.generations.get(&serving).map(|live| live.identity.clone()) else { return };
        let mut trouble = None;
        for socket in lost {
            let address = &socket.address;
            match listen::open(socket, &identity) {
                Ok(listener) => {
                    self.log
                        .say(&format!("the file of {address} was removed or replaced: it is opened again"));
                    // One that was opened and lost before any generation had it is nobody's.
                    let listeners = std::mem::take(&mut self.listeners);
                    self.listeners = listeners
                        .into_iter()
                        .filter(|one| one.kept.address != *address || self.is_held(&one.kept))
                        .collect();
                    self.listeners.push(listener);
                    self.sockets.reopened.insert(address.clone());
                }
                Err(reason) => trouble = Some(format!("{address} cannot be opened again: {reason}")),
            }
        }
        if let Some(trouble) = &trouble
            && self.sockets.trouble.as_ref() != Some(trouble)
        {
            self.log.say(&format!("the file of a socket was removed or replaced: {trouble}"));
        }
        if trouble.is_some() {
            self.sockets.retries.note(now);
        } else {
            self.sockets.openings.note(now);
            self.sockets.retries = Pace::default();
        }
        self.sockets.trouble = trouble;
        if let Some(at) = self.sockets.retries.next(LONGEST_RETRY) {
            self.look_again_at(at);
        }
        self.update_keeper(false);
        // With a new instance, the files that were replaced are not watched any more.
        self.watch = None;
        self.begin_watch();
    }

    /// Has the kernel report what becomes of the sockets' files.
    pub(super) fn watch_sockets(&mut self) {
        let Some(watch) = &self.watch else { return };
        let mut failed = None;
        for kept in self.listeners.iter().map(|one| &one.kept).chain(&self.sockets.foreign) {
            let Some(node) = kept.node.filter(|node| !self.sockets.watched.contains(node)) else { continue };
            // What is not in place is not watched, but opened again.
            let Some((file, directory)) = listen::file(kept) else { continue };
            match watch.follow(&file, directory) {
                Ok(()) => {
                    self.sockets.watched.insert(node);
                }
                Err(error) => failed = Some(format!("{}: {error}", kept.address)),
            }
        }
        let was = std::mem::replace(&mut self.sockets.are_unwatched, failed.is_some());
        if let Some(reason) = failed.filter(|_| !was) {
            self.log.say(&format!(
                "a socket's file that is removed is noticed only when something else happens: inotify: {reason} \
                 (fs.inotify.max_user_watches may be too low)"
            ));
        }
    }

    /// Nothing is watched any more.
    pub(super) fn forget_watched(&mut self) {
        self.sockets.watched.clear();
    }

    /// Remembers why a generation is started: because of a socket.
    pub(super) fn begins_for_sockets(&mut self, generation: Generation) {
        let addresses: Vec<String> = self.sockets.reopened.iter().cloned().collect();
        let reason = match addresses.as_slice() {
            [] => "a socket was opened again".to_owned(),
            addresses => format!("the file of {} was removed or replaced", addresses.join(", ")),
        };
        self.sockets.replacement = Some((generation, reason));
    }

    /// Why a generation was started that nobody had asked for.
    pub(super) fn started_because(&self, generation: Generation) -> Option<String> {
        let (_, reason) = self.sockets.replacement.as_ref().filter(|(one, _)| *one == generation)?;
        Some(reason.clone())
    }

    /// What is known of a generation's sockets, if an earlier version of the runtime has started it: what is kept.
    pub(super) fn suppose_sockets(&mut self) {
        let nodes: Vec<(u64, u64)> = self.listeners.iter().filter_map(|one| one.kept.node).collect();
        for live in self.generations.values_mut() {
            live.life.sockets.get_or_insert_with(|| nodes.clone());
        }
    }

    /// With `usr2` the server has bound its addresses itself, and passes them on.
    fn look_at_foreign(&mut self, service: &Service) {
        let lost = self.lost_foreign(service);
        let trouble = lost.map(|address| {
            format!(
                "the file of {address} was removed or replaced; with `strategy: usr2` the server owns its sockets, so it takes \
                 `sv down {0}` and `sv up {0}` to open it again",
                self.reference()
            )
        });
        if let Some(trouble) = &trouble
            && self.sockets.trouble.as_ref() != Some(trouble)
        {
            self.log.say(trouble);
        }
        self.sockets.trouble = trouble;
    }

    fn lost_foreign(&self, service: &Service) -> Option<String> {
        let known = |address: &str| self.sockets.foreign.iter().find(|one| one.address == address);
        let mut unix = service.bind.iter().filter(|socket| socket.unix_path().is_some());
        let lost = unix.find(|socket| match known(&socket.address) {
            Some(kept) => !kept.is_in_place(),
            None => Kept::found(&socket.address).is_none(),
        });
        lost.map(|socket| socket.address.clone())
    }

    /// The server binds its addresses anew.
    pub(super) fn forget_foreign(&mut self) {
        self.sockets.foreign.clear();
    }

    /// A generation serves alone: what it has bound itself is there.
    pub(super) fn know_foreign(&mut self) {
        if self.service.handoff.strategy == Strategy::Sockets {
            return;
        }
        for socket in self.service.bind.iter().filter(|socket| socket.unix_path().is_some()) {
            if !self.sockets.foreign.iter().any(|one| one.address == socket.address) {
                self.sockets.foreign.extend(Kept::found(&socket.address));
            }
        }
    }

    /// A Unix socket that nobody reaches: its file was removed or replaced, or the generation that serves has an older one.
    pub(super) fn lost_socket(&self) -> Option<Problem> {
        let serving = self.machine.serving()?.generation;
        let live = self.generations.get(&serving)?;
        let application = self.reference();
        if live.service.handoff.strategy != Strategy::Sockets {
            let address = self.lost_foreign(&live.service)?;
            let trouble = self.sockets.trouble.clone();
            let trouble = trouble.unwrap_or_else(|| "its file was removed or replaced".to_owned());
            return Some(Problem::new("socket", format!("nobody can connect to {address}: {trouble}")));
        }
        let next = match self.sockets.due {
            Some(at) => format!("retrying in {} s", at.since(clock::now()).div_ceil(1000)),
            None => "a new generation is started".to_owned(),
        };
        if let Some(socket) = self.lost(&live.service).first() {
            let why =
                self.sockets.trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            let again = if why.is_empty() && self.sockets.openings.count > 1 {
                format!(" ({} times in a row: find out who does that)", self.sockets.openings.count)
            } else {
                String::new()
            };
            let message = format!(
                "nobody can connect to {}: its file was removed or replaced{again}{why}; {next} (at once with `runsmith upgrade \
                 {application}`)",
                socket.address
            );
            return Some(Problem::new("socket", message));
        }
        let address = self.lacks(serving, &live.service)?;
        let failed =
            self.last.as_ref().filter(|last| last.because.is_some()).and_then(|last| last.reason.as_deref());
        let failed = failed.map(|reason| format!("; a new generation failed: {reason}")).unwrap_or_default();
        let message = format!(
            "clients of {address} wait: it was opened again because its file was removed or replaced, and generation {} does not \
             have it{failed}; {next} (at once with `runsmith upgrade {application}`)",
            serving.0
        );
        Some(Problem::new("socket", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_again_and_again_is_repaired_less_and_less_often() {
        let mut pace = Pace::default();
        let mut now = Moment(1_000);
        assert_eq!(pace.next(LONGEST_WAIT), None);
        let mut waits = vec![];
        for _ in 0..12 {
            pace.note(now);
            let next = pace.next(LONGEST_WAIT).unwrap_or(now);
            waits.push(next.since(now) / 1000);
            now = next;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]);
        assert_eq!(pace.next(LONGEST_RETRY).map(|next| next.since(now)), Some(0));
        // After a quiet time the next one is the first again.
        now = now.after(FORGOTTEN);
        assert!(pace.next(LONGEST_WAIT).is_some_and(|next| next <= now));
        pace.note(now);
        assert_eq!(pace.next(LONGEST_WAIT).map(|next| next.since(now)), Some(FIRST_WAIT));
    }
}
