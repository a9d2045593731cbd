//! Generations in cgroups of their own: where that cannot be done they are known by their session and environment.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::Shell;
use super::generation::Live;
use crate::model::service::CgroupLimits;
use crate::runtime::event::Generation;
use crate::runtime::linux::cgroup::{self, Cgroup, Kept};
use crate::runtime::linux::process::Process;
use crate::runtime::protocol::Enclosure;

/// How long killed processes may take to end before they are looked at again later: only those that wait for a disk take longer.
const ENDS: Duration = Duration::from_millis(500);

/// The same at the end of the service.
const LAST_ENDS: Duration = Duration::from_secs(5);

/// So many processes that have left their session are named in the log one by one.
const NAMED: usize = 8;

/// The cgroups of a service.
pub(super) struct Cgroups {
    /// Where they are made; else why not.
    home: Result<cgroup::Home, String>,
    /// Why the last one could not be made there.
    trouble: Option<String>,
    /// The service's directory there.
    name: String,
    /// Those of generations that have gone: of earlier runs, or with processes that do not end.
    left: Vec<Cgroup>,
}

impl Cgroups {
    /// Looks for a place; nothing is made yet.
    pub(super) fn find(application: &str, directory: &str) -> Self {
        let name = cgroup::name(application, directory);
        Self { home: cgroup::Home::find(), trouble: None, name, left: vec![] }
    }

    /// Whether anything lives in a cgroup that this service has.
    pub(super) fn is_any_populated(&self) -> bool {
        self.home.iter().flat_map(|home| home.all(&self.name)).any(|one| one.is_populated())
    }

    /// The processes of those whose generations have gone.
    pub(super) fn left(&self) -> BTreeSet<u32> {
        self.left.iter().flat_map(Cgroup::pids).collect()
    }

    /// Removes what is empty by now.
    fn tidy(&mut self) {
        self.left.retain(|one| !one.remove());
        self.home.iter().for_each(|home| home.tidy(&self.name));
    }
}

impl Shell {
    /// Puts what will be a master into a cgroup of its own; gives that, and why its limits do not hold.
    pub(super) fn enclose(
        &mut self,
        generation: Generation,
        master: &Process,
        limits: &CgroupLimits,
    ) -> (Option<Rc<Cgroup>>, Option<String>) {
        let (cgroup, failed) = self.enclose_and_limit(generation, master, limits);
        for reason in &failed {
            self.log.say(reason);
        }
        (cgroup, (!failed.is_empty()).then(|| failed.join("; ")))
    }

    fn enclose_and_limit(
        &mut self,
        generation: Generation,
        master: &Process,
        limits: &CgroupLimits,
    ) -> (Option<Rc<Cgroup>>, Vec<String>) {
        self.cgroups.tidy();
        let made = self.cgroups.home.clone().and_then(|home| {
            let (made, failed) = home.make(&self.cgroups.name, generation.0, limits)?;
            match made.add(master) {
                Ok(()) => Ok((Rc::new(made), failed)),
                Err(error) => {
                    made.remove();
                    Err(format!("no process can be put into {}: {error}", made.kept().path))
                }
            }
        });
        match made {
            Ok((made, failed)) => {
                self.cgroups.trouble = None;
                (Some(made), failed)
            }
            Err(reason) => {
                let failed = (!limits.are_none()).then(|| {
                    format!("`cgroup.memory_max` and `cgroup.tasks_max` do not hold on this host: {reason}")
                });
                // `status` shows why.
                self.cgroups.trouble = Some(reason);
                (None, failed.into_iter().collect())
            }
        }
    }

    /// The cgroup that a record names, if that is still there and has the master in it. Generations may share one (`usr2`).
    pub(super) fn enclosed(&self, kept: &Kept, master: Option<&Process>) -> Option<Rc<Cgroup>> {
        let known = self.generations.values().filter_map(|live| live.cgroup.as_ref());
        let known = known.into_iter().find(|known| known.kept() == *kept).cloned();
        let found = known.or_else(|| Cgroup::proven(kept).map(Rc::new))?;
        master.is_none_or(|master| found.has(master.pid)).then_some(found)
    }

    /// What earlier runs have left and no record names: it is removed if it is empty. If a generation's processes are in it, it is
    /// that one's: a runtime of an earlier version, which knew no cgroups, was at work in between. Else it ends with the strays
    /// in it.
    pub(super) fn take_cgroups(&mut self) {
        let Ok(home) = &self.cgroups.home else { return };
        let is_known =
            |one: &Cgroup| self.generations.values().any(|live| live.cgroup.as_deref() == Some(one));
        let left: Vec<Cgroup> =
            home.all(&self.cgroups.name).into_iter().filter(|one| !is_known(one)).collect();
        for one in left {
            let processes = one.processes();
            let mut of = self.generations.values_mut().filter(|live| {
                live.cgroup.is_none() && processes.values().any(|stat| live.has_session(stat.session))
            });
            if let Some(live) = of.next() {
                live.life.cgroup = Some(one.kept());
                live.cgroup = Some(Rc::new(one));
                for other in of {
                    other.life.cgroup.clone_from(&live.life.cgroup);
                    other.cgroup.clone_from(&live.cgroup);
                }
            } else {
                self.cgroups.left.push(one);
            }
        }
        self.cgroups.tidy();
    }

    /// Nothing is left of a generation but what has left its session: that ends now.
    pub(super) fn end_cgroup(&mut self, generation: Generation, cgroup: Rc<Cgroup>) {
        if self.generations.values().any(|live| live.cgroup.as_ref() == Some(&cgroup)) {
            return;
        }
        let Some(cgroup) = Rc::into_inner(cgroup) else { return };
        if cgroup.is_populated() {
            let mut strays: Vec<u32> = cgroup.processes().into_keys().collect();
            strays.sort_unstable();
            for pid in strays.iter().take(NAMED) {
                self.log.say(&format!("process {pid} of {generation} had left its session and is killed"));
            }
            if let Some(more) = strays.len().checked_sub(NAMED).filter(|more| *more > 0) {
                self.log.say(&format!(
                    "{more} more processes of {generation} had left their sessions and are killed"
                ));
            }
            cgroup.kill();
            if !cgroup.await_empty(ENDS) {
                self.log.say(&not_ended(&cgroup));
            }
        }
        self.cgroups.left.push(cgroup);
        self.cgroups.tidy();
    }

    /// With `strategy: usr2` all generations are in one cgroup: it is killed once all of them are to end. What starts processes faster than
    /// they are looked for would never end otherwise. Returns whether it was killed.
    pub(super) fn kill_shared_cgroup(&self, generation: Generation) -> bool {
        let live = self.generations.get(&generation).filter(|live| live.own_cgroup().is_none());
        let Some(cgroup) = live.and_then(|live| live.cgroup.as_ref()) else { return false };
        let mut sharing = self.generations.values().filter(|other| other.cgroup.as_ref() == Some(cgroup));
        let are_all = sharing.all(Live::is_killed);
        if are_all {
            cgroup.kill();
        }
        are_all
    }

    /// Ends what is left in cgroups of generations that have gone. `is_last`: the service ends.
    pub(super) fn end_cgroups(&mut self, is_last: bool) {
        self.cgroups.tidy();
        let is_others = |one: &Cgroup| {
            let processes = one.processes();
            let is_its = |live: &Live| processes.values().any(|stat| live.has_session(stat.session));
            self.generations.values().any(is_its)
        };
        let left: Vec<&Cgroup> = self.cgroups.left.iter().filter(|one| is_last || !is_others(one)).collect();
        for left in &left {
            left.kill();
        }
        for left in left {
            let is_empty = left.await_empty(if is_last { LAST_ENDS } else { ENDS });
            if !is_empty && is_last {
                self.log.say(&not_ended(left));
            }
        }
        self.cgroups.tidy();
    }

    /// How the processes of a generation are known, for the status.
    pub(super) fn enclosure(&self, generation: Generation) -> Enclosure {
        let live = self.generations.get(&generation);
        let cgroup = live.and_then(Live::own_cgroup);
        let trouble = self.cgroups.home.as_ref().err().or(self.cgroups.trouble.as_ref());
        let reason = match (trouble, live.and_then(|live| live.cgroup.as_ref())) {
            (_, Some(_)) => {
                "with `strategy: usr2` all generations have the same, which ends with the service"
            }
            (Some(reason), None) => reason.as_str(),
            (None, None) => "an earlier run has started it without one",
        };
        Enclosure {
            cgroup: cgroup.map(|cgroup| cgroup.kept().path),
            reason: cgroup.is_none().then(|| reason.to_owned()),
        }
    }
}

/// What the log says of a cgroup that was killed and is not empty.
fn not_ended(cgroup: &Cgroup) -> String {
    format!("processes in {} were killed and have not ended yet", cgroup.kept().path)
}
