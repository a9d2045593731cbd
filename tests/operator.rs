//! The operator's page explains every line that the runtime can write.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

use runsmith::runtime::action::Step;
use runsmith::runtime::event::Generation;
use runsmith::runtime::words::sentence;

/// One of each. A new step fails to compile here until it is added.
fn every_step() -> Vec<Step> {
    let (old, new) = (Generation(1), Generation(2));
    let why = || "REASON".to_owned();
    let all = vec![
        Step::Starting(new),
        Step::HandOver(old, new),
        Step::Proving(new),
        Step::Serves(new, false),
        Step::Serves(new, true),
        Step::Done(new),
        Step::BackingOut(new, why()),
        Step::Failed(Some(old), why()),
        Step::Failed(None, why()),
        Step::Died(new, "was ended".to_owned()),
        Step::BackOff(2, 1500),
        Step::Overdue(new),
        Step::Hung(new, why()),
        Step::Unreachable(new),
        Step::Queued,
        Step::Stopping,
        Step::Stopped,
        Step::Leaving,
        Step::Adopted(new),
        Step::Reopened(new),
        Step::Overtaking(old, new),
        Step::Dropped(new, why()),
        Step::Proven(new),
        Step::FailedProbation(new, why()),
    ];
    for step in &all {
        match step {
            Step::Starting(_)
            | Step::HandOver(_, _)
            | Step::Proving(_)
            | Step::Serves(_, _)
            | Step::Done(_)
            | Step::BackingOut(_, _)
            | Step::Failed(_, _)
            | Step::Died(_, _)
            | Step::BackOff(_, _)
            | Step::Overdue(_)
            | Step::Hung(_, _)
            | Step::Unreachable(_)
            | Step::Queued
            | Step::Stopping
            | Step::Stopped
            | Step::Leaving
            | Step::Adopted(_)
            | Step::Reopened(_)
            | Step::Overtaking(_, _)
            | Step::Dropped(_, _)
            | Step::Proven(_)
            | Step::FailedProbation(_, _) => {}
        }
    }
    all
}

#[test]
fn every_step_is_on_the_page() {
    let page = include_str!("../docs/operator.md");
    let lines: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        // What stands for anything is cut out of what is on the page.
        .map(|(line, _)| line.split(['…']).flat_map(|part| part.split("REASON")).map(str::trim).collect())
        .collect();
    for step in every_step() {
        let said =
            sentence(&step).replace("generation 2", "generation N").replace("generation 1", "generation M");
        let said = said.replace("1.5 s", "S s");
        let is_told = lines
            .iter()
            .any(|parts| parts.iter().all(|part| said.contains(part)) && !parts.join("").is_empty());
        assert!(is_told, "docs/operator.md does not explain {said:?}");
    }
}
