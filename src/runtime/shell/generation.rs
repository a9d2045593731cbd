//! What the shell knows of a generation: its processes, and how ready they are.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::host::Identity;
use crate::model::Service;
use crate::model::input::Ready;
use crate::runtime::event::{Generation, Moment};
use crate::runtime::linux::process::{self, Process, Stat};
use crate::runtime::server::{self, Signal};
use crate::runtime::state::Life;

/// `ready: alive`: a master that lives so long counts as ready, in milliseconds. Whoever cannot bind, find its
/// program or read its configuration has ended by then.
pub(super) const ALIVE: u64 = 2_000;

/// A generation of which something may live.
pub(super) struct Live {
    /// What the next run needs to know it again.
    pub(super) life: Life,
    /// The service as it was when this was started; for one that was adopted, as it was when this run began.
    pub(super) service: Rc<Service>,
    pub(super) identity: Rc<Identity>,
    /// The socket to its launcher, until its program runs.
    pub(super) launcher: Option<OwnedFd>,
    /// Why its launcher could not become the server, once that was heard.
    pub(super) failed: Option<String>,
    /// Its master, until that has ended.
    pub(super) master: Option<Process>,
    /// Its other processes, looked up once the master has ended.
    pub(super) members: Vec<Process>,
    /// Workers that have loaded the application, by their start times.
    pub(super) workers: BTreeMap<u32, u64>,
    /// When it counts as ready because it is alive.
    pub(super) alive_at: Option<Moment>,
    pub(super) has_loaded: bool,
    pub(super) is_ready: bool,
    /// It was told to go; workers that turn up later are told, too.
    pub(super) is_retired: bool,
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
            service: Rc::clone(service),
            identity: Rc::clone(identity),
            launcher: None,
            failed: None,
            master,
            members: vec![],
            workers: BTreeMap::new(),
            alive_at: None,
            has_loaded: false,
            is_ready: false,
            is_retired: false,
        }
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
    pub(super) fn count(&mut self) -> bool {
        let master = self.life.master.0;
        self.workers.retain(|pid, start| {
            process::stat(*pid).is_some_and(|stat| stat.start == *start && stat.parent == master)
        });
        let ready = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        self.life.workers.0 = ready;
        self.life.workers.1.is_some_and(|of| ready >= of)
    }

    /// Its processes but for the master, as they are now. `others`: masters of other generations in the same session.
    pub(super) fn look(&mut self, all: &HashMap<u32, Stat>, others: &[u32]) {
        // Where there is no master of it, whoever leads the session is one of the others.
        let master = self.master.as_ref().map(|master| master.pid);
        let mut members = vec![];
        for (pid, stat) in all {
            if Some(*pid) == master || stat.session != self.life.session || others.contains(pid) {
                continue;
            }
            // Whoever has another generation's master above it belongs there.
            let mut above = stat.parent;
            let mut is_others = false;
            while let Some(parent) = all.get(&above) {
                is_others |= others.contains(&above);
                if is_others || parent.parent == above {
                    break;
                }
                above = parent.parent;
            }
            if !is_others {
                members.extend(Process::proven(*pid, stat.start, Some(self.life.uid)));
            }
        }
        self.members = members;
    }

    /// Tells it to finish: the master if it lives, which tells its workers; else each of them.
    pub(super) fn retire(&mut self) {
        self.is_retired = true;
        let signal = server::graceful(self.service.server);
        if let Some(master) = &self.master {
            master.signal(signal);
            // Whoever is stopped hears nothing; runsv does the same after TERM.
            master.wake();
        } else {
            for member in &self.members {
                member.signal(signal);
                member.wake();
            }
        }
    }

    /// Ends all of it.
    pub(super) fn kill(&mut self, all: &HashMap<u32, Stat>, others: &[u32]) {
        self.look(all, others);
        if let Some(master) = &self.master {
            master.kill();
        }
        for member in &self.members {
            member.kill();
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
