//! What is promised (docs/runtime.md), as far as it is the machine's to keep.

use std::collections::{BTreeMap, BTreeSet};

use runsmith::runtime::action::{Action, End, GIVEN_UP, Origin, Outcome, Step};
use runsmith::runtime::event::{Ask, Event, Generation, Moment, Terms, Ticket};
use runsmith::runtime::machine::{Machine, State};

/// What is true of a generation in the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fact {
    pub(crate) runs: bool,
    pub(crate) loaded: bool,
    pub(crate) ready: bool,
    /// Good answers in a row.
    pub(crate) good: u32,
    pub(crate) master_ended: bool,
    /// Told to go at this moment, for the first time.
    pub(crate) retired: Option<Moment>,
    pub(crate) killed: bool,
    pub(crate) checking: bool,
    /// Its workers die again and again.
    pub(crate) dying: bool,
    pub(crate) gone: bool,
    /// What it was started from: a number for release and values together.
    pub(crate) content: u32,
    /// It was started as the same as what served.
    same: bool,
    /// Since when it serves.
    serves: Option<Moment>,
    /// It was proven.
    proven: bool,
}

impl Fact {
    /// Its master runs its program, and nothing is loaded yet.
    pub(crate) fn running(content: u32) -> Self {
        Self { runs: true, content, ..Self::default() }
    }

    pub(crate) fn lives(&self) -> bool {
        !self.gone
    }

    fn is_proven(&self, terms: &Terms) -> bool {
        self.runs
            && self.ready
            && !self.master_ended
            && terms.health.is_none_or(|health| self.good >= health.successes)
    }
}

/// Everything a promise is about.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) facts: BTreeMap<Generation, Fact>,
    /// Asked, and not yet answered.
    pub(crate) open: BTreeSet<Ticket>,
    /// Asked, and to be answered once the new generation is proven.
    pub(crate) patient: BTreeSet<Ticket>,
    pub(crate) answered: BTreeSet<Ticket>,
    /// What is on disk.
    pub(crate) disk: u32,
    /// What was proven last, and what served before something unproven did: as the shell keeps it.
    pub(crate) proven: Option<u32>,
    before: Option<u32>,
    /// What is recorded as failed.
    condemned: BTreeSet<u32>,
    /// What has failed, whether it is recorded or not.
    failed: BTreeSet<u32>,
    /// What has just failed on probation.
    failed_last: Option<u32>,
    /// What serves, or served last.
    serving_last: Option<u32>,
    /// All that has served since the service is up.
    served: BTreeSet<u32>,
    /// What served before that and did not fail, whether it is kept or not.
    previous: Option<u32>,
    /// Somebody has asked for what is on disk, and it was not started yet.
    pub(crate) planned: bool,
    /// An earlier run has been asked, and nothing serves: that is the next start.
    pub(crate) resumed: bool,
    /// Something has served since the service is up.
    has_served: bool,
    pub(crate) stop_asked: bool,
    /// Nothing is to be started again.
    pub(crate) once: bool,
    pub(crate) closed: bool,
    pub(crate) end: Option<End>,
    pub(crate) hand_overs: u64,
    last_backoff: Option<(u32, u64)>,
    /// Logs were to be opened again while they loaded.
    owed: BTreeSet<Generation>,
}

impl Ledger {
    /// Nothing is left but what is on disk.
    pub(crate) fn reboot(&mut self) {
        for fact in self.facts.values_mut() {
            fact.gone = true;
        }
        self.facts.clear();
        self.owed.clear();
        self.open.clear();
        self.patient.clear();
        self.before = None;
        self.failed_last = None;
        self.previous = None;
        self.serving_last = None;
        self.served.clear();
        self.planned = false;
        self.resumed = false;
        self.has_served = false;
        self.last_backoff = None;
    }

    /// What the shell starts, and whether the promises allow it.
    fn content(&mut self, origin: Origin, terms: &Terms) -> Result<u32, String> {
        let kept = |first: Option<u32>, second: Option<u32>| first.or(second);
        let content = match origin {
            Origin::Disk => self.disk,
            Origin::First if self.condemned.contains(&self.disk) => self.proven.unwrap_or(self.disk),
            Origin::First => self.disk,
            Origin::Before => {
                let before = self.before.filter(|one| !self.condemned.contains(one));
                before.or(self.proven).or(self.before).unwrap_or(self.disk)
            }
            Origin::LastProven | Origin::Serving => kept(self.proven, self.before).unwrap_or(self.disk),
        };
        if std::mem::take(&mut self.resumed) && origin != Origin::Disk {
            return Err(format!("an earlier run was asked for what is on disk, and {origin:?} is started"));
        }
        if std::mem::take(&mut self.planned) || !terms.fallback {
            self.failed_last = None;
            return Ok(content);
        }
        if let Some(serving) = self.serving_last
            && !self.failed.contains(&serving)
            && content != serving
        {
            return Err(format!("{serving} was serving, and {content} is started"));
        }
        if self.has_served && matches!(origin, Origin::Disk | Origin::First) && self.keeps_something() {
            return Err("what is on disk is started, and nobody asked for it".to_owned());
        }
        let is_first = !self.has_served && self.last_backoff.is_none();
        if is_first && self.proven.is_some() && self.failed.contains(&content) && self.proven != Some(content)
        {
            return Err("what has failed is started, although something was proven".to_owned());
        }
        if self.has_served && !self.served.contains(&content) && self.proven != Some(content) {
            return Err(format!("{content} has never served, and nobody asked for it"));
        }
        // What is recorded as failed is no alternative.
        let is_other = |one: u32| Some(one) != self.failed_last && !self.condemned.contains(&one);
        let alternative = [self.proven, self.before].into_iter().flatten().any(is_other);
        let previous = self.previous.filter(|one| !self.failed.contains(one) && self.failed_last.is_some());
        if let Some(previous) = previous.filter(|one| *one != content) {
            return Err(format!("{previous} served before what has failed, and {content} is started"));
        }
        if self.failed_last.take() == Some(content) && alternative && self.last_backoff.is_none() {
            return Err("what has failed on probation is started again".to_owned());
        }
        Ok(content)
    }

    /// Something that has served is kept: what was proven, or what served before it.
    fn keeps_something(&self) -> bool {
        self.proven
            .is_some_and(|proven| self.facts.values().any(|fact| fact.proven && fact.content == proven))
    }

    fn living(&self) -> Vec<Generation> {
        self.facts.iter().filter(|(_, fact)| fact.lives()).map(|(generation, _)| *generation).collect()
    }

    /// Checks what was asked for after one event, and notes what it changes. `was`: the machine before.
    pub(crate) fn check(
        &mut self,
        was: &Machine,
        machine: &Machine,
        terms: &Terms,
        now: Moment,
        actions: &[Action],
    ) -> Result<(), String> {
        for action in actions {
            self.check_one(was, machine, terms, now, action, actions)?;
        }
        self.planned |= machine.is_queued();
        // Whoever asked is told how it went when everybody is; only what was asked for meanwhile is still to come.
        let is_told =
            actions.iter().any(|one| matches!(one, Action::Tell(Step::Done(_) | Step::Failed(_, _))));
        if is_told && !was.is_queued() && !self.open.is_empty() {
            return Err(format!("it is told how it went, and {:?} waits", self.open));
        }
        self.check_successors(machine, terms)?;
        self.check_state(machine)
    }

    /// A master has one successor at a time, so none may be left without a part beside it.
    fn check_successors(&self, machine: &Machine, terms: &Terms) -> Result<(), String> {
        let has_master =
            |one: &&Generation| self.facts.get(one).is_some_and(|fact| fact.lives() && !fact.master_ended);
        let left = machine.orphans().iter().find(has_master);
        match left.filter(|_| terms.exclusive && machine.serving().is_some()) {
            Some(left) => Err(format!("{left} has a master, and nobody tells it to go")),
            None => Ok(()),
        }
    }

    /// Every generation that lives opens its logs again: at once, or when it is ready.
    pub(crate) fn check_logs(&mut self, event: &Event, actions: &[Action]) -> Result<(), String> {
        let reopens = |generation| actions.contains(&Action::Reopen(generation));
        if *event == Event::Asked(Ask::Reopen) {
            for (generation, fact) in self.facts.iter().filter(|(_, fact)| fact.lives()) {
                if !fact.ready {
                    self.owed.insert(*generation);
                } else if !reopens(*generation) {
                    return Err(format!("{generation} does not open its logs again"));
                }
            }
        }
        if let Event::Ready(generation) = event
            && self.owed.remove(generation)
            && !reopens(*generation)
        {
            return Err(format!("{generation} is ready and does not open its logs again"));
        }
        Ok(())
    }

    /// The next run is not told what an earlier one owed: whoever loads then is told to go.
    pub(crate) fn forget_owed(&mut self) {
        self.owed.clear();
    }

    /// Who can be replaced is, by the same, when its socket is lost.
    pub(crate) fn check_socket(
        &self,
        event: &Event,
        was: &Machine,
        terms: &Terms,
        actions: &[Action],
    ) -> Result<(), String> {
        let starts = actions.iter().find_map(|one| match one {
            Action::Start(_, Origin::Serving) => Some(true),
            Action::Start(_, _) | Action::Succeed(_, _) => Some(false),
            _ => None,
        });
        let Event::Unreachable(serving) = event else {
            return match starts {
                Some(true) => Err("what serves is started again, and no socket is lost".to_owned()),
                _ => Ok(()),
            };
        };
        let is_alone = matches!(was.state(), State::Serving(one) if one.generation == *serving);
        match (is_alone && !terms.exclusive, starts) {
            (true, Some(true)) | (false, None) => Ok(()),
            (true, Some(false)) => Err(format!("{serving} is replaced by something else")),
            (true, None) => Err(format!("nobody can connect to {serving}, and it is not replaced")),
            (false, Some(_)) => Err("a generation is started that is of no use".to_owned()),
        }
    }

    fn fact(&mut self, generation: Generation, what: &str) -> Result<&mut Fact, String> {
        match self.facts.get_mut(&generation) {
            Some(fact) if fact.gone => Err(format!("{what} of {generation}, which is gone")),
            Some(fact) => Ok(fact),
            None => Err(format!("{what} of {generation}, which never was")),
        }
    }

    fn check_one(
        &mut self,
        was: &Machine,
        machine: &Machine,
        terms: &Terms,
        now: Moment,
        action: &Action,
        all: &[Action],
    ) -> Result<(), String> {
        if self.end.is_some() {
            return Err(format!("{action:?} after the end"));
        }
        match action {
            Action::Start(new, _) | Action::Succeed(_, new) => {
                if self.facts.contains_key(new) {
                    return Err(format!("the number of {new} is used again"));
                }
                if self.closed {
                    return Err(format!("{new} is started after the addresses were closed"));
                }
                if let Action::Succeed(old, _) = action {
                    let fact = self.fact(*old, "a successor")?;
                    if fact.master_ended {
                        return Err(format!("{old} is asked for a successor and has no master"));
                    }
                } else if terms.exclusive && !self.living().is_empty() {
                    return Err(format!("{new} is started beside {:?}", self.living()));
                }
                let others = self.facts.iter().filter(|(generation, fact)| {
                    fact.lives()
                        && fact.retired.is_none()
                        && !fact.master_ended
                        && !machine_serves(machine, **generation)
                        && machine.rival().is_none_or(|rival| rival.generation != **generation)
                        // After a restart of the runtime an overtaken one is kept as those without a master are.
                        && !machine.orphans().contains(generation)
                });
                if let Some((other, _)) = others.into_iter().next() {
                    return Err(format!("{new} is started beside the candidate {other}"));
                }
                let same = matches!(action, Action::Start(_, Origin::Serving));
                let content = match action {
                    Action::Start(_, Origin::Serving) => {
                        let serving = was.serving().and_then(|one| self.facts.get(&one.generation));
                        serving
                            .map(|fact| fact.content)
                            .ok_or("nothing serves that could be started again")?
                    }
                    Action::Start(_, origin) => self.content(*origin, terms)?,
                    // The server starts its successor itself, from what is on disk.
                    _ => {
                        self.planned = false;
                        self.disk
                    }
                };
                self.facts.insert(*new, Fact { content, same, ..Fact::default() });
                self.hand_overs += 1;
            }
            Action::Check(generation) => {
                let is_ready = self.fact(*generation, "a check")?;
                if !is_ready.ready {
                    return Err(format!("{generation} is checked before it is ready"));
                }
                is_ready.checking = true;
            }
            Action::Retire(generation) => {
                let stopping = self.stop_asked || self.once;
                let served = machine_serves(was, *generation);
                let another = self.facts.iter().any(|(other, fact)| {
                    other != generation && fact.lives() && fact.retired.is_none() && fact.is_proven(terms)
                });
                let excused = all.iter().any(|one| match one {
                    Action::Tell(
                        Step::BackingOut(one, _) | Step::Dropped(one, _) | Step::FailedProbation(one, _),
                    ) => one == generation,
                    Action::Tell(Step::Failed(None, _)) => true,
                    _ => false,
                });
                let overtaken = was.serving().is_none()
                    && was.rival().is_none()
                    && was.candidate().is_some_and(|one| one.generation == *generation);
                let fact = self.fact(*generation, "a retreat")?;
                if overtaken
                    && !excused
                    && !stopping
                    && !another
                    && !fact.master_ended
                    && !was_adopted(was, machine)
                {
                    return Err(format!("{generation} gets ready, and is told to go before another one is"));
                }
                if served && !fact.master_ended && !stopping && !another {
                    return Err(format!(
                        "{generation} serves, and is told to go before another one is ready"
                    ));
                }
                fact.retired.get_or_insert(now);
            }
            Action::Kill(generation) => {
                let drain = terms.drain_timeout;
                let fact = self.fact(*generation, "a kill")?;
                let Some(since) = fact.retired else {
                    return Err(format!("{generation} is killed and was not told to go"));
                };
                let least = if fact.loaded { drain } else { 0 };
                if now.since(since) < least {
                    return Err(format!("{generation} may hold requests and is killed too early"));
                }
                fact.killed = true;
            }
            Action::Reopen(generation) => {
                if !self.fact(*generation, "logs")?.ready {
                    return Err(format!("{generation} opens logs before it is ready"));
                }
            }
            Action::Answer(ticket, outcome) => {
                let is_unplanned =
                    all.iter().any(|one| matches!(one, Action::Tell(Step::Failed(Some(_), _))))
                        && self.facts.values().next_back().is_some_and(|fact| fact.same);
                // What was asked for meanwhile begins now: that ends the wait, too.
                let is_unplanned = is_unplanned && !was.is_queued();
                if is_unplanned && matches!(outcome, Outcome::BackedOut(_)) && self.patient.contains(ticket) {
                    return Err(format!(
                        "{ticket:?} waits for what serves, and is told of another generation"
                    ));
                }
                let waited = self.open.remove(ticket) | self.patient.remove(ticket);
                if !waited || !self.answered.insert(*ticket) {
                    return Err(format!("{ticket:?} is answered and nobody waits"));
                }
                if let Outcome::Proven(generation) = outcome
                    && !self.fact(*generation, "a proof")?.proven
                {
                    return Err(format!("{generation} is called proven and is not"));
                }
                if let Outcome::Done(generation) = outcome {
                    let fact = self.fact(*generation, "a success")?;
                    if !fact.ready || fact.master_ended {
                        return Err(format!("{generation} is a success and not ready"));
                    }
                }
            }
            Action::Settled(generation) => {
                let left: Vec<_> = self.living().into_iter().filter(|one| one != generation).collect();
                // What this very step starts next comes after.
                if !left.is_empty() {
                    return Err(format!("{generation} is to be alone, and there is {left:?}"));
                }
                let follows =
                    all.iter().any(|other| matches!(other, Action::Start(_, _) | Action::Succeed(_, _)));
                if was.is_queued() && !follows {
                    return Err("what was asked for meanwhile does not follow".to_owned());
                }
            }
            Action::Close => {
                if !(self.stop_asked || self.once) {
                    return Err("the addresses are closed and nobody asked for a stop".to_owned());
                }
                self.closed = true;
            }
            Action::End(end) => {
                if *end == End::Stopped && !self.living().is_empty() {
                    return Err(format!("stopped, and {:?} lives", self.living()));
                }
                if *end == End::Stopped && !(self.open.is_empty() && self.patient.is_empty()) {
                    return Err(format!("stopped, and {:?} {:?} waits", self.open, self.patient));
                }
                self.end = Some(*end);
            }
            Action::Tell(Step::BackOff(failures, wait)) => {
                if *wait > terms.backoff_max || *wait < terms.backoff_initial.min(terms.backoff_max) {
                    return Err(format!("a wait of {wait} ms after {failures} failures"));
                }
                if let Some((before, last)) = self.last_backoff
                    && *failures > before
                    && *wait < last
                {
                    return Err(format!("{failures} failures wait {wait} ms, {before} waited {last} ms"));
                }
                self.last_backoff = Some((*failures, *wait));
            }
            Action::Prove(generation) => {
                let fact = self.fact(*generation, "a proof")?;
                if fact.serves.is_none_or(|since| now.since(since) < terms.min_uptime) || fact.master_ended {
                    return Err(format!("{generation} is proven before it has served for min_uptime"));
                }
                if fact.dying {
                    return Err(format!("{generation} is proven while its workers die"));
                }
                fact.proven = true;
                let content = fact.content;
                self.proven = Some(content);
                self.previous = Some(content);
                self.before = None;
                self.condemned.remove(&content);
                self.failed.remove(&content);
                self.last_backoff = None;
                if machine.failures() != 0 && !machine_changed_since(all) {
                    return Err(format!("{generation} is proven, and failures are still counted"));
                }
            }
            Action::Condemn(generation, _) => {
                if let Some(fact) = self.facts.get(generation) {
                    if fact.same && fact.serves.is_none() {
                        return Err(format!("what serves is recorded as failed, as {generation}"));
                    }
                    self.condemned.insert(fact.content);
                    self.failed.insert(fact.content);
                }
            }
            Action::KeepBefore(generation) => {
                let content = |one: &Generation| self.facts.get(one).map(|fact| fact.content);
                let serving = machine.serving().map(|one| one.generation).filter(|one| one != generation);
                // What is deployed twice is no step back: what served before both is kept.
                if self.before.is_none() || serving.as_ref().and_then(content) != content(generation) {
                    self.before = content(generation);
                }
            }
            Action::AskWorkers(generation) => {
                if self.fact(*generation, "a second request")?.retired.is_none() {
                    return Err(format!("workers of {generation} are asked to go, and it is not"));
                }
            }
            Action::Tell(Step::Serves(generation, _)) => {
                self.has_served = true;
                let old = was.serving().map(|one| one.generation).filter(|one| one != generation);
                let old = old.and_then(|old| self.facts.get(&old)).map(|fact| fact.content);
                let fact = self.fact(*generation, "service")?;
                fact.serves = Some(now);
                let content = fact.content;
                let is_new = |old: &u32| !self.failed.contains(old) && *old != content;
                if let Some(old) = old.filter(is_new) {
                    self.previous = Some(old);
                }
                self.serving_last = Some(content);
                self.served.insert(content);
            }
            Action::Tell(Step::FailedProbation(generation, _)) => {
                let content = self.facts.get(generation).map(|fact| fact.content);
                self.failed.extend(content);
                self.failed_last = content;
                self.last_backoff = None;
            }
            Action::Tell(Step::BackingOut(generation, reason) | Step::Dropped(generation, reason)) => {
                if reason != GIVEN_UP {
                    let content =
                        self.facts.get(generation).filter(|fact| !fact.same).map(|fact| fact.content);
                    self.failed.extend(content);
                }
            }
            Action::Tell(Step::Failed(None, _)) => {
                let content =
                    was.candidate().and_then(|one| self.facts.get(&one.generation)).map(|fact| fact.content);
                self.failed.extend(content);
            }
            Action::Tell(_) => {}
        }
        Ok(())
    }

    fn check_state(&self, machine: &Machine) -> Result<(), String> {
        if self.end.is_some() {
            return Ok(());
        }
        let waits = match machine.state() {
            State::Down | State::Over(_) => false,
            State::Serving(serving) => {
                let living = self.living();
                if living != [serving.generation] {
                    return Err(format!("{} is to serve alone, and there is {living:?}", serving.generation));
                }
                // The next run would deploy what is on disk.
                if machine.record().queued {
                    return Err("all that was asked for is done, and the record says that something is not"
                        .to_owned());
                }
                false
            }
            State::Booting(_)
            | State::Proving(_, _)
            | State::Resting(_)
            | State::Clearing
            | State::Succeeding(_, _)
            | State::Vetting(_, _, _)
            | State::Draining(_)
            | State::BackingOut(_, _)
            | State::Stopping => true,
        };
        if waits && machine.deadline().is_none() {
            return Err(format!("{:?} waits without an end", machine.state()));
        }
        if let Some(serving) = machine.serving() {
            let fact = self.facts.get(&serving.generation);
            if fact.is_none_or(|fact| fact.gone || fact.master_ended) {
                return Err(format!("{} is to serve and has ended", serving.generation));
            }
            if fact.is_some_and(|fact| fact.retired.is_some()) && !self.stop_asked {
                return Err(format!("{} serves and was told to go", serving.generation));
            }
        }
        // Whoever lives has a part: it serves, is to serve, leaves, or waits to be told.
        for generation in self.living() {
            let has_part = machine_serves(machine, generation)
                || machine.candidate().is_some_and(|one| one.generation == generation)
                || machine.rival().is_some_and(|one| one.generation == generation)
                || machine.leavers().iter().any(|one| one.generation == generation)
                || machine.orphans().contains(&generation);
            if !has_part {
                return Err(format!("{generation} lives and has no part"));
            }
        }
        Ok(())
    }
}

fn machine_serves(machine: &Machine, generation: Generation) -> bool {
    machine.serving().is_some_and(|serving| serving.generation == generation)
}

/// An earlier run's candidate is not known to be good any more: the next run removes it.
fn was_adopted(was: &Machine, machine: &Machine) -> bool {
    machine.candidate().is_none() && was.candidate().is_some() && machine.rival().is_none()
}

/// Something failed in the same step.
fn machine_changed_since(all: &[Action]) -> bool {
    all.iter().any(|one| matches!(one, Action::Condemn(_, _) | Action::Tell(Step::Hung(_, _))))
}
