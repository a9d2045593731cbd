//! What has happened, looked up and told.

use super::generation::{Live, others};
use super::{Shell, Source};
use crate::model::input::{Ready, Server};
use crate::runtime::event::{Ask, Event, Generation, Moment, Ticket};
use crate::runtime::linux::descriptors::most_workers;
use crate::runtime::linux::health::Progress;
use crate::runtime::linux::inbox::{Claim, Says};
use crate::runtime::linux::launch::{self, Said};
use crate::runtime::linux::process::Process;
use crate::runtime::linux::runsv::{Wanted, wanted};
use crate::runtime::linux::signals::Told;
use crate::runtime::linux::{clock, process};
use crate::runtime::protocol::{Reply, Status, Wish};

/// So many workers of all generations are known at the most: who forks them may say anything.
const MOST_WORKERS: usize = 4096;

/// Orphans of the application end with us. After the end of one the next ones are taken together, in so many milliseconds: somebody
/// may start processes without end, and each would wake this process. Other signals wait for as long.
const ORPHANS: u64 = 20;

impl Shell {
    /// The status of a moment ago, for who is not root: however often the application's user asks, it costs little.
    fn recent_status(&self, ticket: Ticket) -> Option<Box<Status>> {
        /// In milliseconds: a status takes a tenth of that at the most.
        const RECENT: u64 = 250;
        let is_root = self.control.identity(ticket).is_none_or(|(_, uid)| uid == 0);
        let (at, status) = self.recent.as_ref().filter(|_| !is_root)?;
        (clock::now().since(*at) < RECENT).then(|| status.clone())
    }

    fn new_status(&mut self) -> Box<Status> {
        // What was put right meanwhile is not shown.
        if self.retry_at.is_some() {
            self.retry();
        }
        self.look_at_the_keeper();
        self.look_at_the_disk();
        self.look_at_sockets();
        let status = Box::new(self.status());
        self.recent = Some((clock::now(), status.clone()));
        status
    }

    pub(super) fn notice(&mut self, source: &Source) {
        match source {
            Source::Signals => self.signalled(),
            Source::Parent => {
                if self.parent.has_gone() {
                    self.parent_has_gone();
                }
            }
            Source::Keeper => self.keeper_has_gone(),
            Source::Files => self.files_changed(),
            Source::Inbox => {
                for claim in self.inbox.take() {
                    self.claimed(claim);
                }
            }
            Source::Door => self.control.accept(clock::now()),
            Source::Peer(ticket) => {
                if let Some(wish) = self.control.serve(*ticket) {
                    match wish {
                        Wish::Status => {
                            let status = self.recent_status(*ticket).unwrap_or_else(|| self.new_status());
                            self.control.finish(*ticket, &Reply::Status(status));
                        }
                        Wish::Upgrade => self.ask(Ask::Upgrade(Some(*ticket))),
                        Wish::Prove => self.ask(Ask::Prove(*ticket)),
                        Wish::Abort => self.ask(Ask::Abort(*ticket)),
                    }
                }
            }
            Source::Launcher(generation) => self.launched(*generation),
            Source::Master(generation) => self.master_has_ended(*generation),
            Source::Member(generation) => self.member_has_ended(*generation),
            Source::Worker(generation) => {
                if let Some(live) = self.generations.get_mut(generation) {
                    live.count(clock::now());
                }
            }
            Source::Check(generation) => self.check_goes_on(*generation),
        }
    }

    /// Takes the ends of children; whether one of them was a master's.
    pub(super) fn reap(&mut self) -> bool {
        let is_master = |pid| {
            self.generations.values().any(|live| live.master.as_ref().is_some_and(|master| master.pid == pid))
        };
        let (ended, are_all) = process::reap(is_master);
        self.unreaped = !are_all;
        let any = !ended.is_empty();
        self.ended.extend(ended);
        any
    }

    fn signalled(&mut self) {
        let all = self.signals.take();
        for told in &all {
            match told {
                Told::Child => {
                    let is_only_orphans = !self.reap() && all.len() == 1;
                    self.orphans_until = is_only_orphans.then(|| clock::now().after(ORPHANS));
                }
                Told::Term => match wanted(&self.service.service.directory) {
                    Wanted::Up => {
                        self.requests.add_signal();
                        self.ask(Ask::Restart);
                    }
                    Wanted::Down | Wanted::Unknown | Wanted::Hidden => self.ask(Ask::Stop),
                },
                Told::Upgrade => {
                    self.requests.add_signal();
                    self.ask(Ask::Upgrade(None));
                }
                Told::Reopen => self.ask(Ask::Reopen),
                Told::Status => {
                    for line in self.status().lines() {
                        self.log.say(&line);
                    }
                }
            }
        }
    }

    fn parent_has_gone(&mut self) {
        if self.parent.is_runsv {
            self.log.say("runsv is gone");
            self.ask(Ask::Leave);
        } else {
            self.log.say("whoever started this run is gone");
            self.ask(Ask::Stop);
        }
        self.parent.forget();
    }

    fn master_has_ended(&mut self, generation: Generation) {
        // Its end as a child may have been told by now, or be told in a moment.
        self.reap();
        let others = others(&self.generations, generation);
        let Some(live) = self.generations.get_mut(&generation) else { return };
        let all = live.processes();
        let heard = live.launcher.as_ref().and_then(|socket| match launch::hear(socket) {
            Said::Failed(reason) => Some(reason),
            Said::Nothing | Said::Runs => None,
        });
        if let Some(reason) = heard.or_else(|| live.failed.take()) {
            // It has ended before it ran anything, and has said why.
            self.forget(generation);
            self.tell(Event::NotStarted(generation, reason));
            return;
        }
        live.launcher = None;
        let Some(master) = live.master.take() else { return };
        let how = self.ended.remove(&master.pid).or_else(|| process::end_of(master.pid));
        let how = how.unwrap_or_else(|| "has ended".to_owned());
        live.alive_at = None;
        live.look(&all, &others);
        let is_gone = live.members.is_empty();
        if wanted(&self.service.service.directory) == Wanted::Down {
            self.ask(Ask::NotAgain);
        }
        self.tell(Event::Ended(generation, how));
        if is_gone {
            self.forget(generation);
            self.tell(Event::Gone(generation));
        }
    }

    fn member_has_ended(&mut self, generation: Generation) {
        self.ended.clear();
        self.reap();
        let Some(live) = self.generations.get_mut(&generation) else { return };
        if live.master.is_some() {
            live.members.clear();
        } else if live.may_look(clock::now()) {
            self.look_at_members(generation);
        }
    }

    /// Looks up what is left of generations whose members have ended a while ago.
    pub(super) fn look_at_the_rest(&mut self, now: Moment) {
        let is_due = |live: &Live| live.look_at.is_some_and(|at| at <= now);
        let due = self.generations.iter().filter(|(_, live)| is_due(live)).map(|(one, _)| *one);
        for generation in due.collect::<Vec<_>>() {
            self.look_at_members(generation);
        }
    }

    /// Looks up the members of a generation without a master: whether there are any, and whether some have begun.
    fn look_at_members(&mut self, generation: Generation) {
        let others = others(&self.generations, generation);
        let Some(live) = self.generations.get_mut(&generation) else { return };
        let all = live.processes();
        let known: Vec<u32> = live.members.iter().map(|member| member.pid).collect();
        let are_all = live.look(&all, &others);
        if live.members.is_empty() {
            self.forget(generation);
            self.tell(Event::Gone(generation));
        } else if live.is_retired && are_all && live.members.iter().any(|one| !known.contains(&one.pid)) {
            live.retire(&all, &others);
        }
    }

    /// A claim counts if the kernel and /proc agree with it.
    fn claimed(&mut self, claim: Claim) {
        if let Says::Successor { old } = claim.says {
            return self.successor_claimed(claim.sender, claim.uid, old);
        }
        if let Says::Exited { master, worker } = claim.says {
            return self.worker_exited(claim.sender, claim.uid, master, worker);
        }
        let Some(stat) = process::stat(claim.sender) else { return };
        let of = self.generations.iter().find(|(_, live)| {
            live.life.uid == claim.uid
                && live.master.as_ref().is_some_and(|master| match claim.says {
                    Says::Worker { master: said, .. } => master.pid == said && stat.parent == said,
                    Says::Ready => claim.sender == master.pid || stat.session == live.life.session,
                    Says::Exited { .. } | Says::Successor { .. } => false,
                })
        });
        let Some(generation) = of.map(|(generation, _)| *generation) else { return };
        let known: usize = self.generations.values().map(|live| live.workers.len()).sum();
        let Some(live) = self.generations.get_mut(&generation) else { return };
        let mut is_news = true;
        match claim.says {
            Says::Worker { of, .. } if live.ready() == Ready::Workers => {
                if known >= MOST_WORKERS.min(most_workers()) && !live.workers.contains_key(&claim.sender) {
                    return;
                }
                let Some(worker) = Process::proven(claim.sender, stat.start, Some(claim.uid)) else { return };
                // Once unicorn runs, it counts down what it says here by TTOU; gunicorn says what is configured.
                if !live.is_ready || live.service.server == Server::Gunicorn {
                    live.life.workers.1 = Some(of);
                }
                // To count is to look at each worker, and whoever claims does so as often as it likes.
                is_news = live.workers.get(&claim.sender).is_none_or(|known| known.start != stat.start);
                live.workers.insert(claim.sender, worker);
                live.loaded.insert(claim.sender, clock::now());
                if live.loaded.len() > 2 * MOST_WORKERS {
                    // Those whose end nobody has reported.
                    live.loaded.retain(|pid, _| process::stat(*pid).is_some());
                }
            }
            Says::Ready if live.ready() == Ready::Notify => {}
            Says::Worker { .. } | Says::Ready | Says::Exited { .. } | Says::Successor { .. } => return,
        }
        let is_first = !std::mem::replace(&mut live.has_loaded, true);
        let is_ready = live.ready() == Ready::Notify || (is_news && live.count(clock::now()));
        let becomes_ready = is_ready && !std::mem::replace(&mut live.is_ready, true);
        if is_first {
            self.tell(Event::Loaded(generation));
        }
        if becomes_ready {
            self.tell(Event::Ready(generation));
        }
    }

    fn check_goes_on(&mut self, generation: Generation) {
        let Some(check) = self.checks.iter_mut().find(|check| check.generation == generation) else {
            return;
        };
        let event = match check.go_on() {
            Progress::Waiting => return,
            Progress::Good => Event::Healthy(generation),
            Progress::Bad(reason) => {
                // The application's answer is quoted.
                let shown = self.without_secrets(generation, &reason);
                let unknown =
                    "it failed; its answer is not shown, because the generation's secrets are not known";
                Event::Sick(generation, if shown.is_empty() { unknown.to_owned() } else { shown })
            }
        };
        self.checks.retain(|check| check.generation != generation);
        self.tell(event);
    }
}
