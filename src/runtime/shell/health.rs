//! Health checks of the generation that serves, as `status` reports them.

use super::Shell;
use crate::runtime::action::{Action, Step};
use crate::runtime::event::{Event, Generation, Moment};
use crate::runtime::linux::clock;
use crate::runtime::protocol::Problem;

/// Replacements by a failed health check are counted over so many milliseconds.
pub(super) const WINDOW: u64 = 600_000;

/// So many replacements within [`WINDOW`] are a problem that a restart does not solve.
const MANY: usize = 3;

/// The health check of the generation that serves fails.
pub(super) struct Sick {
    generation: Generation,
    since: Moment,
    reason: String,
}

impl Shell {
    /// Takes in an answer to a health check.
    pub(super) fn note_health(&mut self, event: &Event) {
        match event {
            Event::Sick(generation, reason)
                if self.machine.serving().is_some_and(|one| one.generation == *generation) =>
            {
                let since = match &self.sick {
                    Some(sick) if sick.generation == *generation => sick.since,
                    _ => clock::now(),
                };
                self.sick = Some(Sick { generation: *generation, since, reason: reason.clone() });
            }
            Event::Healthy(generation) => {
                self.sick.take_if(|sick| sick.generation == *generation);
            }
            _ => {}
        }
    }

    /// Counts replacements by a failed health check.
    pub(super) fn note_replacements(&mut self, actions: &[Action]) {
        let is_hung = |action: &Action| matches!(action, Action::Tell(Step::Hung(_, _)));
        if actions.iter().any(is_hung) {
            let now = clock::now();
            self.hung.retain(|at| now.since(*at) < WINDOW);
            self.hung.push(now);
        }
    }

    /// The generation that serves does not pass its health check, or a new one is started for that again and again.
    pub(super) fn unhealthy(&self, now: Moment) -> Option<Problem> {
        let serving = self.machine.serving()?.generation;
        let often = self.hung.iter().filter(|at| now.since(**at) < WINDOW).count();
        let often = (often >= MANY).then(|| {
            let minutes = WINDOW / 60_000;
            format!("a new generation was started {often} times within {minutes} minutes because the health check failed")
        });
        let sick = self.sick.as_ref().filter(|sick| sick.generation == serving).map(|sick| {
            format!("its health check has failed for {} s: {}", now.since(sick.since) / 1000, sick.reason)
        });
        let parts: Vec<String> = sick.into_iter().chain(often).collect();
        (!parts.is_empty()).then(|| Problem::new("health", parts.join("; ")))
    }
}
