//! Steps in words: one plain line each, as the log has them. docs/operator.md explains every one.

use super::action::Step;

/// The sentence for a step.
pub fn sentence(step: &Step) -> String {
    match step {
        Step::Starting(new) => format!("starting {new}"),
        Step::Overtaking(old, new) => {
            format!("{new} is started beside {old}, which is kept until one of them is ready")
        }
        Step::Dropped(generation, reason) => format!("{generation} is removed: {reason}"),
        Step::Proven(generation) => format!("proven: {generation} has served for min_uptime"),
        Step::FailedProbation(generation, reason) => {
            format!("{generation} FAILED on probation: {reason}")
        }
        Step::HandOver(old, new) => format!("hand-over: {new} is started beside {old}"),
        Step::Proving(new) => format!("{new} is loaded; its health is asked"),
        Step::Serves(new, true) => format!("ready: {new} serves; what was before it finishes its requests"),
        Step::Serves(new, false) => format!("ready: {new} serves"),
        Step::Done(new) => format!("done: {new} serves alone"),
        Step::BackingOut(new, reason) => format!("backing out of {new}: {reason}"),
        Step::Failed(Some(old), reason) => format!("hand-over FAILED: {reason}; {old} goes on serving"),
        Step::Failed(None, reason) => format!("start FAILED: {reason}"),
        Step::Died(generation, how) => format!("the master of {generation} {how}; nobody asked for that"),
        Step::BackOff(failures, wait) => back_off(*failures, *wait, false, "APP"),
        Step::Overdue(generation) => format!("{generation} did not finish in time and is killed"),
        Step::Hung(generation, reason) => {
            format!("{generation} does not answer health checks any more and is replaced: {reason}")
        }
        Step::Unreachable(generation) => {
            format!(
                "new connections do not reach {generation}; the same is started again, with the new socket"
            )
        }
        Step::Queued => "another hand-over follows this one".to_owned(),
        Step::Stopping => "stopping: requests in flight may finish".to_owned(),
        Step::Stopped => "stopped, nothing is left".to_owned(),
        Step::Leaving => "this run ends, the application goes on; the next run adopts it".to_owned(),
        Step::Adopted(generation) => format!("{generation} was running and goes on under this run"),
        Step::Reopened(generation) => format!("{generation} was told to open its logs again"),
    }
}

/// The sentence for [`Step::BackOff`]. `orphans`: workers whose master has ended go on serving meanwhile;
/// `reference`: how commands name the service.
pub fn back_off(failures: u32, wait: u64, orphans: bool, reference: &str) -> String {
    let meanwhile = if orphans { "only workers without a master serve" } else { "nothing serves" };
    format!(
        "{meanwhile}: {} in a row, next start in {} s (at once with `runsmith upgrade {reference}`)",
        count(failures, "failure"),
        wait as f64 / 1000.0
    )
}

/// A number and its noun, in the plural where that is right.
pub fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
