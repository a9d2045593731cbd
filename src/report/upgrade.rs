//! What became of an upgrade, for people.

use super::words::hanging;
use crate::runtime::protocol::Reply;
use crate::visible::visible;

/// Continuation lines begin here, in columns.
const INDENT: usize = 2;

/// What was asked, and of whom.
pub struct Asked<'a> {
    /// The service's name.
    pub name: &'a str,
    /// How commands name it.
    pub reference: &'a str,
    /// A hand-over was to be given up.
    pub abort: bool,
    /// The columns that lines may take.
    pub width: usize,
}

/// What is started if a generation fails on probation; none if that is what is on disk by then. `next`: the release, unless an
/// earlier version has answered.
pub(super) fn if_it_fails(falls_back: bool, next: Option<&str>) -> Option<String> {
    match next {
        Some(release) if falls_back => Some(format!("{release} is started again")),
        Some(_) => Some("the same is started again".to_owned()),
        None => falls_back.then(|| "what served before it is started again".to_owned()),
    }
}

/// The outcome in a few lines; empty for what is none.
pub fn outcome(reply: &Reply, asked: &Asked) -> String {
    let (name, reference) = (visible(asked.name), asked.reference);
    let mut lines = vec![];
    let mut output = String::new();
    match reply {
        Reply::Done { generation, queued, .. } if asked.abort => {
            lines.push(format!("{name}: given up; generation {generation} goes on serving"));
            if *queued {
                lines.push(format!(
                    "another upgrade was requested meanwhile and begins now: `runsmith status {reference}` shows it, \
                     `runsmith upgrade --abort {reference}` gives it up, too"
                ));
            }
        }
        Reply::Done { generation, probation_ms, falls_back, next, queued, unkept } => {
            let state = match probation_ms.map(|left| left.div_ceil(1000)) {
                None => "serves alone and is proven".to_owned(),
                Some(left) => match if_it_fails(*falls_back, next.as_deref().map(visible).as_deref()) {
                    Some(then) => format!(
                        "serves alone, on probation for {left} s: if it fails before then, {then}; `runsmith status {reference}` shows it"
                    ),
                    None => format!("serves alone, on probation for {left} s"),
                },
            };
            lines.push(format!("{name}: done: generation {generation} {state}"));
            if let Some(trouble) = unkept {
                lines.push(format!(
                    "problem: {}; `runsmith status {reference}` shows it as long as it is so",
                    visible(trouble)
                ));
            }
            if *queued {
                lines.push("another upgrade, which was requested meanwhile, begins now".to_owned());
            }
        }
        Reply::BackedOut {
            on_probation,
            reason,
            output: last,
            serving,
            release,
            candidate,
            orphans,
            given_up,
        } => {
            let what = if *on_probation { "failed" } else { "backed out" };
            let from = release.iter().filter(|release| !release.is_empty());
            let from: String = from.map(|release| format!(", release {},", visible(release))).collect();
            let now = match (serving, candidate) {
                (Some(serving), _) if *on_probation => format!("generation {serving}{from} serves now"),
                (Some(serving), _) => format!("generation {serving}{from} goes on serving"),
                (None, candidate) => {
                    let now = if *orphans { "only workers without a master serve" } else { "nothing serves" };
                    let started = candidate.map(|one| format!(", and generation {one} is being started"));
                    format!("{now}{}", started.unwrap_or_default())
                }
            };
            lines.push(format!("{name}: {what}: {}; {now}", visible(reason)));
            if !given_up {
                lines.push(format!("next: fix what failed, then run `runsmith upgrade {reference}`"));
            }
            if !last.is_empty() {
                output.push_str("the last output of the generation that failed:\n");
                for line in last.lines() {
                    output.push_str(&format!("  | {}\n", visible(line)));
                }
            }
        }
        Reply::Refused { .. } | Reply::Step { .. } | Reply::Status(_) => {}
    }
    let lines = lines.iter().map(|line| hanging(line, asked.width, INDENT) + "\n");
    lines.collect::<String>() + &output
}
