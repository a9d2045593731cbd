//! What the shell knows of a generation: its processes, and how ready they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::host::Identity;
use crate::model::Service;
use crate::model::input::{Ready, Strategy};
use crate::runtime::event::{Generation, Moment};
use crate::runtime::linux::cgroup::Cgroup;
use crate::runtime::linux::clock;
use crate::runtime::linux::process::{self, Process, Stat};
use crate::runtime::server::{self, Signal};
use crate::runtime::state::Life;

use super::workers::{Dying, LateDeaths, Watch};

/// `ready: alive`: a master that lives so long counts as ready, in milliseconds. Whoever cannot bind, find its
/// program or read its configuration has ended by then.
pub(super) const ALIVE: u64 = 2_000;

/// So long the processes of a candidate may take to stand still, in milliseconds: they do so at once, unless they wait for a disk.
const STANDS_STILL: u64 = 500;

/// When workers of a generation that was adopted had loaded the application was not written down; it is long ago.
const ADOPTED: Moment = Moment(0);

/// Between two looks at whether they do.
const LOOK: Duration = Duration::from_millis(1);

/// So many processes of a generation are watched at a time: each takes a descriptor.
const MOST_MEMBERS: usize = 64;

/// The least time between two looks for the processes of one generation because some have ended, in milliseconds.
const LOOK_AGAIN: u64 = 100;

/// So many times longer than a look has taken is the time until the next one.
const LOOK_SHARE: u64 = 20;

/// A killed process ends within milliseconds. What is left after this long is held by something, in milliseconds.
const UNDYING: u64 = 5_000;

/// A generation of which something may live.
pub(super) struct Live {
    /// What the next run needs to know it again.
    pub(super) life: Life,
    /// The sessions of strays, if it stands for all of them ([`Life::is_of_strays`]).
    pub(super) strays: BTreeSet<u32>,
    /// The service as it was when this was started; for one that was adopted, as it was when this run began.
    pub(super) service: Rc<Service>,
    pub(super) identity: Rc<Identity>,
    /// The socket to its launcher, until its program runs.
    pub(super) launcher: Option<OwnedFd>,
    /// Why its launcher could not become the server, once that was heard.
    pub(super) failed: Option<String>,
    /// Its master, until that has ended.
    pub(super) master: Option<Process>,
    /// Its other processes, looked up once the master has ended: some of them, if there are very many.
    pub(super) members: Vec<Process>,
    /// The cgroup that it is in. With `usr2` all generations of a first start are in one.
    pub(super) cgroup: Option<Rc<Cgroup>>,
    /// When they are to be looked up again.
    pub(super) look_at: Option<Moment>,
    /// When it was killed first.
    killed: Option<Moment>,
    /// It was reported that it does not end all the same.
    pub(super) undying: bool,
    /// They are not looked up again before this.
    next_look: Moment,
    /// Workers that have loaded the application.
    pub(super) workers: BTreeMap<u32, Process>,
    /// Since when fewer workers are ready than there are to be.
    pub(super) short_since: Option<Moment>,
    /// Since when all of them are ready.
    pub(super) whole_since: Option<Moment>,
    /// Its workers have exited early since it was ready, and are not steady yet.
    pub(super) dying: Option<Dying>,
    /// When it counts as ready because it is alive.
    pub(super) alive_at: Option<Moment>,
    pub(super) has_loaded: bool,
    pub(super) is_ready: bool,
    /// Workers that have loaded the application and have not exited since, and when that was known.
    pub(super) loaded: BTreeMap<u32, Moment>,
    /// Workers that exited before they had loaded the application.
    pub(super) early_deaths: u32,
    /// Workers that exited soon after they had loaded it.
    pub(super) late_deaths: LateDeaths,
    /// How the workers of a program that does not report on them are watched.
    pub(super) watch: Option<Watch>,
    /// It was told to go; workers that turn up later are told, too.
    pub(super) is_retired: bool,
    /// When it was told so first.
    pub(super) retired_at: Option<Moment>,
}

impl Live {
    /// One that begins, or goes on.
    pub(super) fn new(
        life: Life,
        service: &Rc<Service>,
        identity: &Rc<Identity>,
        master: Option<Process>,
    ) -> Self {
        Self {
            life,
            strays: BTreeSet::new(),
            service: Rc::clone(service),
            identity: Rc::clone(identity),
            launcher: None,
            failed: None,
            master,
            members: vec![],
            cgroup: None,
            look_at: None,
            killed: None,
            undying: false,
            next_look: Moment(0),
            workers: BTreeMap::new(),
            short_since: None,
            whole_since: None,
            dying: None,
            alive_at: None,
            has_loaded: false,
            is_ready: false,
            loaded: BTreeMap::new(),
            early_deaths: 0,
            late_deaths: LateDeaths::default(),
            watch: None,
            is_retired: false,
            retired_at: None,
        }
    }

    /// Whether a session is one of its own.
    pub(super) fn has_session(&self, session: u32) -> bool {
        if self.life.is_of_strays() { self.strays.contains(&session) } else { self.life.session == session }
    }

    /// Its cgroup, if nothing else is in it.
    pub(super) fn own_cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_deref().filter(|_| self.service.handoff.strategy == Strategy::Sockets)
    }

    /// Every process that may be its: what is in its cgroup, or every one there is. Root may have moved them to another cgroup
    /// (cgrulesengd does, by its rules).
    pub(super) fn processes(&self) -> HashMap<u32, Stat> {
        let inside = self.own_cgroup().map(Cgroup::processes);
        let is_here =
            |inside: &HashMap<u32, Stat>| inside.values().any(|stat| stat.session == self.life.session);
        inside.filter(is_here).unwrap_or_else(process::all)
    }

    /// What is in its cgroup and has left its session; none if it has no cgroup of its own.
    pub(super) fn strays_inside(&self) -> Option<Vec<(u32, u64)>> {
        let inside = self.own_cgroup()?.processes();
        let left = inside.into_iter().filter(|(_, stat)| stat.session != self.life.session);
        Some(left.map(|(pid, stat)| (pid, stat.start)).collect())
    }

    /// What it takes to be ready.
    pub(super) fn ready(&self) -> Ready {
        self.service.handoff.ready
    }

    /// Whether it counts as ready from `now` on because it is alive; true once.
    pub(super) fn is_alive_since(&mut self, now: Moment) -> bool {
        let is_due = self.alive_at.is_some_and(|at| at <= now) && self.master.is_some();
        if is_due {
            self.alive_at = None;
            self.is_ready = true;
        }
        is_due
    }

    /// Counts the workers that have loaded the application and live; whether they are as many as there are to be.
    pub(super) fn count(&mut self, now: Moment) -> bool {
        let master = self.master.as_ref().map(|master| master.pid);
        self.workers.retain(|pid, worker| {
            // The workers of a master that has ended have another parent.
            let is_its = |stat: &Stat| master.is_none_or(|master| stat.parent == master);
            process::stat(*pid).is_some_and(|stat| stat.start == worker.start && is_its(&stat))
        });
        self.life.ready = self.workers.values().map(|worker| (worker.pid, worker.start)).collect();
        let ready = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        self.life.workers.0 = ready;
        let is_whole = self.life.workers.1.is_some_and(|of| ready >= of);
        if is_whole {
            self.short_since = None;
            self.whole_since.get_or_insert(now);
        } else if self.is_ready {
            self.short_since.get_or_insert(now);
        }
        if !is_whole {
            self.whole_since = None;
        }
        is_whole
    }

    /// Knows its workers again. One that got ready while no runtime listened could not report it, so processes that the
    /// master has forked count, as many as there are to be; one that still loads is counted a little early.
    pub(super) fn adopt_workers(&mut self, all: &HashMap<u32, Stat>) {
        let Some(of) = self.life.workers.1 else { return };
        let master = self.master.as_ref().map(|master| master.pid);
        let known = &self.life.ready;
        let mut found: Vec<(bool, u64, u32)> = all
            .iter()
            .map(|(pid, stat)| (*pid, stat, known.contains(&(*pid, stat.start))))
            .filter(|(_, stat, is_known)| match master {
                Some(master) => stat.parent == master && (*is_known || !stat.has_run),
                None => *is_known,
            })
            .map(|(pid, stat, is_known)| (!is_known, stat.start, pid))
            .collect();
        found.sort_unstable();
        let processes =
            found.into_iter().filter_map(|(_, start, pid)| Process::proven(pid, start, Some(self.life.uid)));
        self.workers = processes.take(of as usize).map(|worker| (worker.pid, worker)).collect();
        self.loaded = self.workers.keys().map(|pid| (*pid, ADOPTED)).collect();
    }

    /// Its processes but for the master, as they are now: so many that descriptors suffice for all generations; the others are
    /// found once those have ended. Whether these are all. `others`: masters of other generations in the same session.
    pub(super) fn look(&mut self, all: &HashMap<u32, Stat>, others: &[u32]) -> bool {
        let begun = clock::now();
        let mut members = vec![];
        self.each_member(all, others, |member| {
            members.push(member);
            if members.len() < MOST_MEMBERS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.members = members;
        let now = clock::now();
        self.look_at = None;
        self.next_look = now.after(LOOK_AGAIN.max(now.since(begun).saturating_mul(LOOK_SHARE)));
        self.members.len() < MOST_MEMBERS
    }

    /// Gives each of its processes but for the master, as they are now, until it is not to go on.
    fn each_member(
        &self,
        all: &HashMap<u32, Stat>,
        others: &[u32],
        mut take: impl FnMut(Process) -> ControlFlow<()>,
    ) {
        // Where there is no master of it, whoever leads the session is one of the others.
        let master = self.master.as_ref().map(|master| master.pid);
        let is_in_session = |stat: &Stat| self.has_session(stat.session);
        let others: Vec<u32> =
            others.iter().copied().filter(|pid| all.get(pid).is_some_and(is_in_session)).collect();
        // Whoever has another generation's master above it belongs there.
        let not_its = process::below(all, &others);
        for (pid, stat) in all.iter().filter(|(_, stat)| is_in_session(stat)) {
            if Some(*pid) != master
                && !not_its.contains(pid)
                && let Some(member) = Process::proven(*pid, stat.start, Some(self.life.uid))
                && take(member).is_break()
            {
                return;
            }
        }
    }

    /// Does something to each of its processes but for the master, as they are now.
    pub(super) fn all_members(
        &self,
        all: &HashMap<u32, Stat>,
        others: &[u32],
        mut what: impl FnMut(&Process),
    ) {
        self.each_member(all, others, |member| {
            what(&member);
            ControlFlow::Continue(())
        });
    }

    /// Forgets members that have ended, up to the first that has not; whether its processes may be looked up again now. If not
    /// they will be, in a while: somebody may start and end processes all the time.
    pub(super) fn may_look(&mut self, now: Moment) -> bool {
        let ended = self.members.iter().take_while(|member| member.await_end(Duration::ZERO)).count();
        self.members.drain(..ended);
        let may = self.next_look <= now;
        self.look_at = (!may).then_some(self.next_look);
        may
    }

    /// Tells it to finish: the master if it lives, which tells its workers; else each of them.
    pub(super) fn retire(&mut self, all: &HashMap<u32, Stat>, others: &[u32]) {
        self.is_retired = true;
        self.retired_at.get_or_insert_with(clock::now);
        let signal = server::graceful(self.service.server);
        if let Some(master) = &self.master {
            master.signal(signal);
            // Whoever is stopped hears nothing; runsv does the same after TERM.
            master.wake();
        } else {
            self.all_members(all, others, |member| {
                member.signal(signal);
                member.wake();
            });
        }
    }

    /// Whether a worker may have missed the signal to go that its master passed on: one that is known to have loaded the
    /// application before had its signal handlers then.
    pub(super) fn may_have_missed(&self, worker: u32) -> bool {
        let loaded = self.loaded.get(&worker).filter(|loaded| **loaded != ADOPTED);
        loaded.is_none_or(|loaded| self.retired_at.is_none_or(|retired| *loaded >= retired))
    }

    /// Whether it has no child, so no worker and no request, in this list of all processes: of a server that has workers. With
    /// `usr2` its PID file is not ours to remove. The children of a master that has just exited have another parent already, and
    /// may hold requests: so the master has to live after the list was read.
    pub(super) fn has_no_worker(&self, all: &HashMap<u32, Stat>) -> bool {
        let Some(master) = &self.master else { return false };
        self.ready() == Ready::Workers
            && self.service.handoff.strategy == Strategy::Sockets
            && !all.values().any(|stat| stat.parent == master.pid)
            && !master.await_end(Duration::ZERO)
    }

    /// Stops all of it; whether all of it stands still. Then nothing of it accepts a connection or starts a process.
    pub(super) fn stand_still(&self, others: &[u32]) -> bool {
        let until = clock::now().after(STANDS_STILL);
        let mut still = 0;
        loop {
            let all = self.processes();
            let mut moving = 0;
            let mut halt = |one: &Process| {
                if all.get(&one.pid).is_some_and(|stat| !matches!(stat.state, b'T' | b't')) {
                    one.stop();
                    moving += 1;
                }
            };
            self.master.iter().for_each(&mut halt);
            self.all_members(&all, others, halt);
            still = if moving == 0 { still + 1 } else { 0 };
            // A process that was forked while this one looked is found at the second look.
            if still == 2 {
                return true;
            }
            if clock::now() >= until {
                return false;
            }
            if let Some(master) = self.master.as_ref().filter(|_| still == 0) {
                let _ = master.await_end(LOOK);
            }
        }
    }

    /// Lets all of it go on.
    pub(super) fn wake(&self, all: &HashMap<u32, Stat>, others: &[u32]) {
        self.master.iter().for_each(Process::wake);
        self.all_members(all, others, Process::wake);
    }

    /// Ends all of it.
    pub(super) fn kill(&mut self, now: Moment, all: &HashMap<u32, Stat>, others: &[u32]) {
        self.killed.get_or_insert(now);
        self.look(all, others);
        if let Some(master) = &self.master {
            master.kill();
        }
        self.all_members(all, others, Process::kill);
        // Whatever else it has started, and whatever that is doing.
        self.own_cgroup().into_iter().for_each(Cgroup::kill);
    }

    /// Whether all of it was killed once.
    pub(super) fn is_killed(&self) -> bool {
        self.killed.is_some()
    }

    /// What does not end although it was killed a while ago, and why; none if it was not killed, or not that long ago.
    pub(super) fn why_undying(&self, now: Moment) -> Option<String> {
        self.killed.filter(|killed| now.since(*killed) >= UNDYING)?;
        let all = self.processes();
        let inside = self.own_cgroup().is_some();
        let mut left: Vec<u32> = all
            .iter()
            .filter(|(_, stat)| inside || stat.session == self.life.session)
            .filter(|(_, stat)| stat.state != b'Z' && stat.state != b'X')
            .map(|(pid, _)| *pid)
            .collect();
        left.sort_unstable();
        let tracers = left.iter().filter_map(|pid| Some((*pid, process::tracer(*pid)?)));
        let why = match (tracers.into_iter().next(), left.first()) {
            (Some((pid, tracer)), _) => {
                format!("process {tracer} traces process {pid}, and holds it: `kill -KILL {tracer}`")
            }
            (None, Some(pid)) => format!(
                "process {pid} waits for the kernel, for a disk or a network file system that does not answer, for example: \
                 `cat /proc/{pid}/stack`"
            ),
            (None, None) => return None,
        };
        Some(format!(
            "{} killed and not gone: {why}",
            if left.len() == 1 {
                "1 process was".to_owned()
            } else {
                format!("{} processes were", left.len())
            }
        ))
    }

    /// Has its logs opened again: by the master if it lives, which tells its workers; else by each of those.
    pub(super) fn reopen(&self) {
        let Some(signal) = server::reopen(self.service.server) else { return };
        if let Some(master) = &self.master {
            master.signal(signal);
        } else {
            for worker in self.workers.values() {
                worker.signal(signal);
            }
        }
    }

    /// A signal for the master alone.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(master) = &self.master {
            master.signal(signal);
        }
    }
}

/// The masters of all generations but this one.
pub(super) fn others(generations: &BTreeMap<Generation, Live>, but: Generation) -> Vec<u32> {
    let others = generations.iter().filter(|(generation, live)| **generation != but && live.master.is_some());
    others.map(|(_, live)| live.life.master.0).collect()
}
