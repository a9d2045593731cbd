//! What runs, for whoever is on call.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::upgrade::if_it_fails;
use super::words::{fitted, wrapped};
use crate::runtime::protocol::{Dropped, Enclosure, GenerationStatus, LastHandOver, Problem, Status};
use crate::runtime::words::count;
use crate::visible::visible;

/// Where the values of [`details`] begin, in columns.
const INDENT: usize = 17;

/// The widest a release is shown in [`table`], in columns: a commit is told apart by fewer.
const RELEASE: usize = 16;

/// One service.
pub struct Entry {
    /// What its runtime says.
    pub status: Status,
    /// runsv watches over it.
    pub is_supervised: bool,
    /// Only root may read whether it does, and whether it is to be up.
    pub is_hidden: bool,
    /// It is to be up.
    pub is_wanted: bool,
    /// Where its releases are.
    pub root: String,
    /// How commands name it.
    pub reference: String,
    /// What was changed on disk since the generation that serves was started, and it may not have read.
    pub newer: Vec<String>,
    /// Where its log is.
    pub log: Log,
    /// What needs a person, besides what the runtime reports.
    pub problems: Vec<Problem>,
}

/// Where a service's log is.
#[derive(Default)]
pub struct Log {
    /// The file, or the directory of the files; none if the output goes to whatever runsv's goes to.
    pub path: Option<String>,
    /// What is to be said besides the path, or instead of it.
    pub note: Option<String>,
    /// What `sv status` says of the log service; none if there is none, or it was not asked.
    pub service: Option<String>,
}

impl Entry {
    /// Whether a generation serves.
    pub fn serves(&self) -> bool {
        self.status.serving.is_some()
    }

    /// Whether a generation serves with the workers it is to have, and by the addresses it is to have.
    pub fn serves_well(&self) -> bool {
        let is_log = |problem: &Problem| matches!(problem.code.as_str(), "log" | "log-service");
        self.serves() && (self.status.state != "degraded" || self.status.problems.iter().all(is_log))
    }

    /// Whether a person has to do something: the service is to serve and does not, or something is wrong with it.
    pub fn needs_a_person(&self) -> bool {
        (self.is_wanted && !self.serves()) || self.problems().next().is_some()
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let mut json = serde_json::to_value(&self.status).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.insert("problems".to_owned(), json!(self.problems().collect::<Vec<_>>()));
            let known = |what: bool| (!self.is_hidden).then_some(what);
            map.insert("supervised".to_owned(), json!(known(self.is_supervised)));
            map.insert("wanted_up".to_owned(), json!(known(self.is_wanted)));
            map.insert("newer".to_owned(), json!(self.newer));
            map.insert("log".to_owned(), json!({"path": self.log.path, "service": self.log.service}));
        }
        json
    }

    fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.status.problems.iter().chain(&self.problems)
    }

    fn state(&self) -> String {
        match self.status.state.as_str() {
            "down" if !self.is_supervised && self.is_wanted => "DOWN (no runsv)".to_owned(),
            "down" if !self.is_supervised => "down (no runsv)".to_owned(),
            "down" if self.is_wanted => "DOWN".to_owned(),
            "resting" => "RESTING".to_owned(),
            "degraded" => "DEGRADED".to_owned(),
            "unsupervised" => "UNSUPERVISED".to_owned(),
            other => other.to_owned(),
        }
    }

    fn colour(&self) -> &'static str {
        match self.status.state.as_str() {
            "down" if !self.is_wanted => "\x1b[2m",
            "down" | "resting" | "degraded" | "unsupervised" => "\x1b[1;31m",
            "serving" if self.status.failures == 0 && !self.needs_a_person() => "\x1b[32m",
            _ => "\x1b[33m",
        }
    }

    /// The release without the root that all have in common.
    fn release(&self, generation: &GenerationStatus) -> String {
        self.within(&generation.release)
    }

    fn within(&self, release: &str) -> String {
        // Where the run script cannot be read, the root is not known.
        let root = Some(self.root.as_str()).filter(|root| !root.is_empty());
        let within = root.and_then(|root| release.strip_prefix(root)?.strip_prefix('/'));
        visible(within.unwrap_or(release)).into_owned()
    }
}

/// A line for each service, and below them what needs a person. `now`: seconds since 1970; `width`: columns.
pub fn table(entries: &[Entry], now: u64, width: usize, colour: bool) -> String {
    if entries.is_empty() {
        return String::new();
    }
    const HEADS: [&str; 6] = ["SERVICE", "STATE", "FOR", "WORKERS", "RELEASE", "LAST HAND-OVER"];
    let rows: Vec<[String; 6]> = entries
        .iter()
        .map(|entry| {
            let status = &entry.status;
            let one = status.serving.as_ref().or(status.candidate.as_ref());
            let dash = || "-".to_owned();
            let release = one.map_or_else(dash, |one| entry.release(one));
            [
                visible(&status.application).into_owned(),
                entry.state(),
                one.and_then(|one| one.serving_for_ms).map_or_else(dash, |ms| about(ms / 1000)),
                one.map_or_else(dash, workers),
                fitted(release.rsplit_once("releases/").map_or(&*release, |(_, name)| name), RELEASE),
                status.last.as_ref().map_or_else(dash, |last| {
                    let outcome = if last.done { "done" } else { "FAILED" };
                    format!("{outcome} {} ago", about(now.saturating_sub(last.at)))
                }),
            ]
        })
        .collect();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEADS.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..HEADS.len()).map(widest).collect();
    // A name that leaves no room for the rest is cut.
    let rest: usize = widths.iter().skip(1).map(|width| width + 2).sum();
    if let Some(first) = widths.first_mut() {
        *first = (*first).min(width.saturating_sub(rest).max(HEADS[0].len()));
    }
    let mut out = String::new();
    let mut line = |cells: [&str; 6], paint: Option<&str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padded = format!("{:width$}  ", fitted(cell, *width));
            match paint {
                Some(paint) if at == 1 => {
                    let _ = write!(text, "{paint}{padded}\x1b[0m");
                }
                _ => text.push_str(&padded),
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(HEADS, None);
    for (entry, row) in entries.iter().zip(&rows) {
        line(row.each_ref().map(String::as_str), colour.then(|| entry.colour()));
    }
    for (entry, sentence) in entries.iter().flat_map(|entry| notes(entry).map(move |one| (entry, one))) {
        let sentence = format!("{}: {sentence}", visible(&entry.status.application));
        for (number, part) in wrapped(&sentence, width.saturating_sub(2)).iter().enumerate() {
            let _ = writeln!(out, "{} {part}", if number == 0 { '!' } else { ' ' });
        }
    }
    out
}

/// What the table says of a service below its lines: what needs a person, so that the exit code is 1.
fn notes(entry: &Entry) -> impl Iterator<Item = String> {
    let last = entry.status.last.as_ref().filter(|_| !entry.serves() && entry.needs_a_person());
    let failed = last.and_then(|last| {
        let reason = last.reason.as_deref()?;
        Some(format!("{} failed: {}", name(last), visible(reason)))
    });
    entry.problems().map(|problem| visible(&problem.message).into_owned()).chain(failed)
}

/// Everything about one service. `now`: seconds since 1970; `width`: columns.
pub fn details(entry: &Entry, now: u64, width: usize, colour: bool) -> String {
    let (status, reference) = (&entry.status, &entry.reference);
    let mut out = String::new();
    let (paint, plain) = if colour { (entry.colour(), "\x1b[0m") } else { ("", "") };
    let _ = writeln!(out, "{}: {paint}{}{plain}", visible(&status.application), entry.state());
    let mut say = |name: &str, value: &str| {
        for (number, part) in wrapped(value, width.saturating_sub(INDENT)).iter().enumerate() {
            let _ = writeln!(out, "  {:<14} {part}", if number == 0 { name } else { "" });
        }
    };
    for problem in entry.problems() {
        say("problem", &visible(&problem.message));
    }
    for (name, one) in [("serves", &status.serving), ("gets ready", &status.candidate)] {
        if let Some(one) = one {
            say(name, &generation(entry, one));
        }
    }
    for one in &status.leaving {
        if one.orphaned {
            say("orphaned", &format!("{}; they serve until another generation does", generation(entry, one)));
        } else {
            say("leaves", &generation(entry, one));
        }
    }
    if status.queued {
        say("then", "another hand-over, which was requested meanwhile");
    }
    if let Some(ms) = status.next_start_in_ms {
        say(
            "next start",
            &format!("in {} (at once with `runsmith upgrade {reference}`)", span(ms.div_ceil(1000))),
        );
    }
    if let Some(last) = &status.last {
        say(name(last), &hand_over(last, now));
    }
    // Where nothing is fallen back to, it makes no difference.
    let next = status.probation_next.as_deref().map(|release| entry.within(release));
    if let (Some(ms), Some(then)) =
        (status.probation_ms, if_it_fails(status.probation_falls_back, next.as_deref()))
    {
        let left = span(ms.div_ceil(1000));
        say("on probation", &format!("for another {left}; if it fails before then, {then}"));
    }
    if let Some(enclosure) = status.serving.as_ref().and_then(|one| one.enclosure.as_ref()) {
        say("processes", &known_by(enclosure));
    }
    if status.runtime_pid != 0 {
        let failures = count(status.failures, "failure");
        say("restarts", &format!("{} unplanned; {failures} in a row", status.restarts));
    }
    if !entry.newer.is_empty() {
        let newer: Vec<_> = entry.newer.iter().map(|path| visible(path)).collect();
        let what = match &status.disk_failed {
            Some(_) => "has failed: see `problem`".to_owned(),
            None => format!("`runsmith upgrade {reference}` takes it"),
        };
        say("not yet used", &format!("{} ({what})", newer.join(", ")));
    }
    if !status.addresses.is_empty() {
        say("listens on", &status.addresses.iter().map(|one| visible(one)).collect::<Vec<_>>().join(", "));
    }
    for part in [&entry.log.path, &entry.log.note].into_iter().flatten() {
        say("log", &visible(part));
    }
    if let Some(dropped) = &status.dropped {
        say("log lines", &lost(dropped, now));
    }
    if let Some(line) = &entry.log.service {
        say("log service", &visible(line));
    }
    if status.runtime_pid != 0 {
        let (pid, version, keeper) = (status.runtime_pid, &status.runtime_version, status.keeper_pid);
        say("runtime", &format!("{pid}, runsmith {version}; its keeper is {keeper}"));
    }
    let supervised = match (entry.is_supervised, entry.is_wanted) {
        _ if entry.is_hidden => "only root can read what it does",
        (false, true) => {
            "no runsv watches over it any more, and the last one wanted it up: does runsvdir run?"
        }
        (false, false) => "no runsv watches over it: is it linked into runsvdir's directory?",
        (true, true) => "wants it up",
        (true, false) => "wants it down (or runs it once)",
    };
    say("runsv", &format!("{supervised} ({})", visible(&status.directory)));
    out
}

fn generation(entry: &Entry, one: &GenerationStatus) -> String {
    let mut text = format!("generation {}, ", one.generation);
    match one.master {
        Some(pid) => {
            let _ = write!(text, "master {pid}");
        }
        None => text.push_str("without a master"),
    }
    if one.orphaned {
        let _ = write!(text, ", {}", count(one.workers_ready, "worker"));
    } else if one.workers.is_some() {
        let _ = write!(text, ", {} workers", workers(one));
    }
    if let Some(ms) = one.serving_for_ms {
        let _ = write!(text, ", for {}", span(ms / 1000));
    }
    if !one.release.is_empty() {
        let _ = write!(text, ", {}", entry.release(one));
    }
    text
}

/// What tells which processes belong to a generation.
fn known_by(enclosure: &Enclosure) -> String {
    match (&enclosure.cgroup, &enclosure.reason) {
        (Some(_), _) => "known by their cgroup".to_owned(),
        (None, reason) => {
            let why = reason.as_deref().map(|reason| format!(": {}", visible(reason))).unwrap_or_default();
            format!("known by their session and environment, not by a cgroup of their own{why}")
        }
    }
}

fn workers(one: &GenerationStatus) -> String {
    one.workers.map_or_else(|| "-".to_owned(), |of| format!("{}/{of}", one.workers_ready))
}

/// What the last start was: one that replaced a generation, or one while nothing served.
fn name(last: &LastHandOver) -> &'static str {
    if last.from.is_some() { "last hand-over" } else { "last start" }
}

fn hand_over(last: &LastHandOver, now: u64) -> String {
    let ago = span(now.saturating_sub(last.at));
    let took = last.took_ms as f64 / 1000.0;
    let whose = match last.from {
        Some(from) => format!("from generation {from} to {}", last.generation),
        None => format!("generation {}", last.generation),
    };
    let because = last.because.as_deref().map(|reason| format!("; started because {}", visible(reason)));
    let who = last.requested_by.as_ref().map(|who| format!("; requested by {}", visible(&who.to_string())));
    let because = because.unwrap_or_default() + &who.unwrap_or_default();
    match &last.reason {
        None => format!("{whose}: done {ago} ago in {took:.1} s{because}"),
        Some(reason) => format!("{whose}: FAILED {ago} ago: {}{because}", visible(reason)),
    }
}

/// Lines that are not in the log. `now`: seconds since 1970.
fn lost(dropped: &Dropped, now: u64) -> String {
    let lines = count(u32::try_from(dropped.lines).unwrap_or(u32::MAX), "line");
    let ago = |at: Option<u64>| span(now.saturating_sub(at.unwrap_or(now)));
    match dropped.since {
        Some(since) => format!("{lines} dropped; lines are being dropped since {} ago", ago(Some(since))),
        None if dropped.first == dropped.last => format!("{lines} dropped {} ago", ago(dropped.last)),
        None => format!(
            "{lines} dropped, the first {} ago, the last {} ago",
            ago(dropped.first),
            ago(dropped.last)
        ),
    }
}

/// A length of time, in its two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A length of time, in its largest unit.
fn about(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
