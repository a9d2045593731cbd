//! What runs, for whoever asks.

use super::Shell;
use crate::runtime::event::Generation;
use crate::runtime::linux::clock;
use crate::runtime::machine::State;
use crate::runtime::protocol::{GenerationStatus, Status};

impl Shell {
    pub(super) fn status(&mut self) -> Status {
        for live in self.generations.values_mut() {
            live.count();
        }
        let now = clock::now();
        let one = |generation: Generation| {
            let live = self.generations.get(&generation);
            let serving = self.machine.serving().filter(|serving| serving.generation == generation);
            GenerationStatus {
                generation: generation.0,
                master: live.and_then(|live| live.master.as_ref()).map(|master| master.pid),
                workers_ready: live.map_or(0, |live| live.life.workers.0),
                workers: live.and_then(|live| live.life.workers.1),
                serving_for_ms: serving.map(|serving| now.since(serving.since)),
                release: live.map(|live| live.life.release.clone()).unwrap_or_default(),
            }
        };
        let machine = &self.machine;
        let state = match machine.state() {
            State::Down => "down",
            State::Booting(_) | State::Proving(_, _) | State::Clearing => "booting",
            State::Resting(_) => "resting",
            State::Serving(_) => "serving",
            State::Succeeding(_, _) | State::Vetting(_, _, _) => "handing-over",
            State::Draining(_) => "draining",
            State::BackingOut(_, _) => "backing-out",
            State::Stopping | State::Over(_) => "stopping",
        };
        let leaving = machine.leavers().iter().map(|leaver| leaver.generation);
        let leaving = leaving.chain(machine.orphans().iter().copied());
        Status {
            application: self.service.application.clone(),
            directory: self.service.service.directory.clone(),
            state: state.to_owned(),
            serving: machine.serving().map(|serving| one(serving.generation)),
            candidate: machine.candidate().map(|candidate| one(candidate.generation)),
            leaving: leaving.map(one).collect(),
            addresses: self.listeners.iter().map(|listener| listener.kept.address.clone()).collect(),
            restarts: machine.restarts(),
            failures: machine.failures(),
            next_start_in_ms: match machine.state() {
                State::Resting(until) => Some(until.since(now)),
                _ => None,
            },
            queued: machine.is_queued(),
            last: self.last.clone(),
            trouble: self.trouble.clone(),
            runtime_pid: std::process::id(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            keeper_pid: self.keeper.as_ref().map_or(0, |keeper| keeper.pid),
        }
    }
}

impl Status {
    /// One line for the log, and for each generation one more.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "status: {}; {} restarts, {} failures in a row; runtime {}, keeper {}",
            self.state, self.restarts, self.failures, self.runtime_pid, self.keeper_pid
        )];
        let all = self.serving.iter().map(|one| ("serves", one));
        let all = all.chain(self.candidate.iter().map(|one| ("gets ready", one)));
        for (what, one) in all.chain(self.leaving.iter().map(|one| ("leaves", one))) {
            let master = one.master.map_or_else(|| "no master".to_owned(), |pid| format!("master {pid}"));
            let workers = match one.workers {
                Some(of) => format!("{} of {of} workers", one.workers_ready),
                None => format!("{} workers", one.workers_ready),
            };
            lines.push(format!(
                "status: generation {} {what}: {master}, {workers} ready, {}",
                one.generation, one.release
            ));
        }
        if let Some(trouble) = &self.trouble {
            lines.push(format!("status: {trouble}"));
        }
        if let Some(last) = &self.last {
            let outcome =
                last.reason.as_deref().map_or("done".to_owned(), |reason| format!("backed out: {reason}"));
            lines.push(format!("status: last hand-over: generation {}, {outcome}", last.generation));
        }
        lines
    }
}
