//! What is kept for the next run, in a file and by the keeper.

use std::os::fd::AsFd as _;

use super::Shell;
use crate::runtime::linux::keeping::Keeping;
use crate::runtime::machine;
use crate::runtime::state::{FORMAT, State};

impl Shell {
    /// Keeps the state if it has changed.
    pub(super) fn keep(&mut self) {
        if self.end.is_some() || matches!(self.machine.state(), machine::State::Over(_)) {
            // What was kept last is what the next run goes on from.
            return;
        }
        let mut state = State {
            format: FORMAT,
            sequence: self.sequence,
            boot: self.boot.clone(),
            application: self.service.application.clone(),
            machine: self.machine.record(),
            generations: self.generations.values().map(|live| live.life.clone()).collect(),
            listeners: self.listeners.iter().map(|listener| listener.kept.clone()).collect(),
            last: self.last.clone(),
        };
        let text = |state: &State| serde_json::to_string(state).unwrap_or_default();
        if self.kept.as_deref() == Some(&text(&state)) {
            return;
        }
        self.sequence += 1;
        state.sequence = self.sequence;
        let new = text(&state);
        if let Some(keeper) = &self.keeper {
            // If it has gone, its end is told and another one gets it.
            let _ = keeper.remember(&new);
        }
        match self.place.keep_state(&new) {
            Ok(()) => self.trouble = None,
            Err(error) => {
                let trouble =
                    format!("{} cannot be written: {error}", self.place.file("state.json").display());
                if self.trouble.as_ref() != Some(&trouble) {
                    self.log.say(&format!("{trouble}; the keeper remembers what the next run needs"));
                }
                self.trouble = Some(trouble);
            }
        }
        self.kept = Some(new);
    }

    /// Has the keeper hold what there is now; starts one if there is none. `log`: it gets this run's log, too.
    pub(super) fn update_keeper(&mut self, log: bool) {
        let mut log = log;
        for _ in 0..2 {
            if self.keeper.is_none() {
                match Keeping::start(&self.place, &self.service.application) {
                    Ok(keeper) => self.keeper = Some(keeper),
                    Err(error) => {
                        self.log.say(&format!(
                            "there is no keeper: {error}; if this runtime is killed now, addresses may refuse"
                        ));
                        return;
                    }
                }
                log = true;
            }
            let Some(keeper) = &self.keeper else { return };
            let stdout = std::io::stdout();
            let log = log.then(|| stdout.as_fd());
            let mut told = keeper.keep(log, &self.listeners, &self.outputs);
            if let Some(kept) = &self.kept
                && told.is_ok()
            {
                told = keeper.remember(kept);
            }
            if told.is_ok() {
                return;
            }
            self.keeper = None;
        }
    }

    pub(super) fn keeper_has_gone(&mut self) {
        self.keeper = None;
        self.log.say("the keeper is gone; another one is started");
        self.update_keeper(true);
    }
}
