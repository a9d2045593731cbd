//! Logs are opened again by every generation that lives: at once by one that is ready, later by one that loads. A master
//! that loads has no handler yet and would die of the signal.

use std::collections::BTreeMap;

use super::super::action::{Action, Step};
use super::super::event::{Event, Generation};
use super::{Machine, Record, Remains, State};

/// How far a generation that lives is with its logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Logs {
    /// It has been ready: it hears the signal.
    is_ready: bool,
    /// They were to be opened again while it loaded.
    is_owed: bool,
}

impl Machine {
    /// Somebody has rotated the logs.
    pub(super) fn reopen(&mut self) {
        if matches!(self.state, State::Over(_)) {
            return;
        }
        for (generation, logs) in std::mem::take(&mut self.logs) {
            let is_ready = logs.is_ready;
            self.logs.insert(generation, Logs { is_owed: !is_ready, ..logs });
            if is_ready {
                self.reopen_one(generation);
            }
        }
    }

    fn reopen_one(&mut self, generation: Generation) {
        self.act(Action::Reopen(generation));
        self.tell(Step::Reopened(generation));
    }

    /// What an event says of a generation's logs; before it is decided upon.
    pub(super) fn logs_before(&mut self, event: &Event) {
        if let Event::Ready(generation) = event
            && let Some(logs) = self.logs.get_mut(generation)
        {
            let was = std::mem::replace(logs, Logs { is_ready: true, is_owed: false });
            if was.is_owed && !matches!(self.state, State::Over(_)) {
                self.reopen_one(*generation);
            }
        }
        if let Event::Gone(generation) | Event::NotStarted(generation, _) = event {
            self.logs.remove(generation);
        }
    }

    /// Generations that this step has started.
    pub(super) fn logs_after(&mut self) {
        for action in &self.actions {
            if let Action::Start(new, _) | Action::Succeed(_, new) = action {
                self.logs.entry(*new).or_default();
            }
        }
    }

    /// Those that are ready, for the next run.
    pub(super) fn logs_record(&self) -> Vec<Generation> {
        self.logs.iter().filter(|(_, logs)| logs.is_ready).map(|(generation, _)| *generation).collect()
    }

    /// What an earlier run knew. Whoever serves is ready, whatever an older record says.
    pub(super) fn adopt_logs(&mut self, record: &Record, left: &impl Fn(Generation) -> Remains) {
        let served = record.serving.map(|(generation, _)| generation);
        let ready = record.ready.iter().chain(&served);
        let mut logs: BTreeMap<Generation, Logs> =
            ready.map(|generation| (*generation, Logs { is_ready: true, is_owed: false })).collect();
        for generation in record
            .candidate
            .iter()
            .chain(&record.overtaken)
            .chain(&record.orphans)
            .chain(record.leavers.iter().map(|(one, _)| one))
        {
            logs.entry(*generation).or_default();
        }
        logs.retain(|generation, _| left(*generation) != Remains::Nothing);
        self.logs = logs;
    }
}
