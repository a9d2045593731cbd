//! What the next run needs to know, and how a machine goes on from it.

use serde::{Deserialize, Serialize};

use super::super::action::{Action, Origin, Step};
use super::super::event::{Generation, Moment, Terms};
use super::{Candidate, Leaver, Machine, Next, Serving, State};

/// The machine's part of what is kept for the next run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The highest number that a generation has had.
    pub last: u32,
    /// The generation that serves, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<(Generation, Moment)>,
    /// What the generation that serves was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Until when it is on probation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation: Option<Moment>,
    /// What an unplanned start uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Origin>,
    /// The generation that was to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Generation>,
    /// What that was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_origin: Option<Origin>,
    /// Those who were told to go, and when their time is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leavers: Vec<(Generation, Moment)>,
    /// Those whose master has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Generation>,
    /// The candidate that was overtaken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<Generation>,
    /// Failed starts and early deaths in a row.
    #[serde(default)]
    pub failures: u32,
    /// Starts that nobody asked for.
    #[serde(default)]
    pub restarts: u32,
    /// When the next start is, if nothing serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resting: Option<Moment>,
    /// Another hand-over was asked for and has not begun.
    #[serde(default)]
    pub queued: bool,
    /// Those that have been ready: they can open their logs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<Generation>,
    /// Everything was told to go.
    #[serde(default)]
    pub stopping: bool,
}

/// What is left of a generation that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Its master lives.
    Master,
    /// Only workers live.
    Workers,
    /// Nothing does.
    Nothing,
}

impl Machine {
    /// What the next run needs to know.
    pub fn record(&self) -> Record {
        if let Some(parting) = &self.parting {
            return parting.clone();
        }
        Record {
            last: self.last.0,
            serving: self.serving().map(|serving| (serving.generation, serving.since)),
            origin: self.serving().map(|serving| serving.origin),
            probation: self.serving().and_then(|serving| serving.probation),
            good: self.good,
            candidate: self.candidate().map(|candidate| candidate.generation),
            candidate_origin: self.candidate().map(|candidate| candidate.origin),
            leavers: self.leavers.iter().map(|leaver| (leaver.generation, leaver.until)).collect(),
            orphans: self.orphans.clone(),
            overtaken: self.rival().map(|one| one.generation),
            failures: self.failures,
            restarts: self.restarts,
            resting: if let State::Resting(until) = self.state { Some(until) } else { None },
            queued: self.next.is_some() || self.is_to_begin(),
            ready: self.logs_record(),
            stopping: self.state == State::Stopping,
        }
    }

    /// Somebody has asked for a start that has not begun: what was there before has to go first, or this run has just begun.
    fn is_to_begin(&self) -> bool {
        self.resumed || (self.state == State::Clearing && self.clearing == Origin::Disk)
    }

    /// Goes on from what an earlier run has kept; `left` says what there is of each generation. Gives the machine and what
    /// is to be done first; where nothing serves, somebody has to ask for an upgrade.
    pub fn adopt(
        record: &Record,
        terms: Terms,
        now: Moment,
        left: impl Fn(Generation) -> Remains,
    ) -> (Self, Vec<Action>) {
        let mut machine = Self::new(terms);
        machine.last = Generation(record.last);
        machine.good = record.good;
        machine.has_proven = record.good == Some(Origin::LastProven);
        machine.failures = record.failures;
        machine.restarts = record.restarts;
        machine.adopt_logs(record, &left);
        for (generation, until) in &record.leavers {
            if left(*generation) != Remains::Nothing {
                // Told again: whoever has heard it the first time is not disturbed by it.
                machine.leavers.push(Leaver::new(now, *generation, *until));
                machine.act(Action::Retire(*generation));
            }
        }
        let serves = record.serving.is_some_and(|(one, _)| left(one) == Remains::Master);
        // Nobody knows any more how far one that was overtaken is; but it may serve until another one does.
        for orphan in record.orphans.iter().chain(&record.overtaken) {
            match left(*orphan) {
                Remains::Nothing => {}
                // It is a successor that an earlier run had asked for. Its master has no other one as long as this one lives.
                Remains::Master if terms.exclusive && serves => {
                    machine.retire(now, *orphan, terms.drain_timeout);
                }
                Remains::Master | Remains::Workers => machine.orphans.push(*orphan),
            }
        }
        let candidate = record.candidate.filter(|candidate| left(*candidate) != Remains::Nothing);
        if let Some(candidate) = candidate {
            // Who has told the earlier run that it is ready does not tell it again; and it may hold requests by now.
            let loaded = true;
            let origin = Origin::Disk;
            let candidate = Candidate { generation: candidate, until: now, loaded, origin };
            machine.retire_candidate(now, &candidate, &terms);
        }
        // What somebody asked for is begun again; what nobody asked for is decided anew.
        let is_asked =
            record.candidate.is_some() && record.candidate_origin.unwrap_or(Origin::Disk) == Origin::Disk;
        let is_to_begin = is_asked || record.queued;
        match record.serving {
            Some((generation, since)) if left(generation) == Remains::Master => {
                machine.tell(Step::Adopted(generation));
                let serving = Serving {
                    generation,
                    since,
                    check: None,
                    strikes: 0,
                    probation: record.probation,
                    origin: record.origin.unwrap_or(Origin::Disk),
                    dying: false,
                    is_unattended: false,
                };
                if record.candidate.is_some() {
                    let reason = "the runtime was started anew before the new master was ready";
                    machine.next = is_to_begin.then(Next::default);
                    machine.state = State::BackingOut(serving, reason.to_owned());
                } else {
                    if record.queued {
                        machine.next = Some(Next::default());
                    }
                    machine.state = State::Draining(serving);
                }
                machine.settle(now);
            }
            Some((generation, _)) => {
                machine.resumed = is_to_begin;
                if left(generation) == Remains::Workers {
                    machine.orphans.push(generation);
                }
                machine.restarts += 1;
                if record.probation.is_some_and(|until| now < until) {
                    machine.failures += 1;
                    machine.has_failed(record.origin.unwrap_or(Origin::Disk));
                    let reason = "it ended on probation, while no runtime was there".to_owned();
                    machine.act(Action::Condemn(generation, reason));
                    machine.keep_itself(generation);
                } else if record.probation.is_some() {
                    // It has served for long enough, and no runtime was there to say so.
                    machine.act(Action::KeepBefore(generation));
                    machine.good = Some(Origin::Before);
                }
            }
            None => {
                machine.resumed = is_to_begin;
                if let Some(until) = record.resting {
                    machine.state = State::Resting(until);
                }
            }
        }
        machine.logs_after();
        let actions = std::mem::take(&mut machine.actions);
        (machine, actions)
    }
}
