//! What runs, for whoever is on call.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::runtime::protocol::{GenerationStatus, LastHandOver, Status};
use crate::visible::visible;

/// One service.
pub struct Entry {
    /// What its runtime says.
    pub status: Status,
    /// runsv watches over it.
    pub is_supervised: bool,
    /// It is to be up.
    pub is_wanted: bool,
    /// Where its releases are.
    pub root: String,
    /// What was changed on disk since the generation that serves was started, and it may not have read.
    pub newer: Vec<String>,
}

impl Entry {
    /// Whether a generation serves.
    pub fn serves(&self) -> bool {
        self.status.serving.is_some()
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let mut json = serde_json::to_value(&self.status).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.insert("supervised".to_owned(), json!(self.is_supervised));
            map.insert("wanted_up".to_owned(), json!(self.is_wanted));
            map.insert("newer".to_owned(), json!(self.newer));
        }
        json
    }

    fn state(&self) -> String {
        match self.status.state.as_str() {
            "down" if !self.is_supervised && self.is_wanted => "DOWN (no runsv)".to_owned(),
            "down" if !self.is_supervised => "down (no runsv)".to_owned(),
            "down" if self.is_wanted => "DOWN".to_owned(),
            "resting" => "RESTING".to_owned(),
            other => other.to_owned(),
        }
    }

    fn colour(&self) -> &'static str {
        match self.status.state.as_str() {
            "serving" if self.status.failures == 0 => "\x1b[32m",
            "down" if !self.is_wanted => "\x1b[2m",
            "down" | "resting" => "\x1b[1;31m",
            _ => "\x1b[33m",
        }
    }

    /// The release without the root that all have in common.
    fn release(&self, generation: &GenerationStatus) -> String {
        let within = generation.release.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        visible(within.unwrap_or(&generation.release)).into_owned()
    }
}

/// A line for each service. `now`: seconds since 1970.
pub fn table(entries: &[Entry], now: u64, colour: bool) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let heads = ["SERVICE", "STATE", "FOR", "MASTER", "WORKERS", "RESTARTS", "RELEASE", "LAST HAND-OVER"];
    let rows: Vec<[String; 8]> = entries
        .iter()
        .map(|entry| {
            let status = &entry.status;
            let one = status.serving.as_ref().or(status.candidate.as_ref());
            let dash = || "-".to_owned();
            [
                visible(&status.application).into_owned(),
                entry.state(),
                one.and_then(|one| one.serving_for_ms).map_or_else(dash, |ms| span(ms / 1000)),
                one.and_then(|one| one.master).map_or_else(dash, |pid| pid.to_string()),
                one.map_or_else(dash, workers),
                if status.runtime_pid == 0 { dash() } else { status.restarts.to_string() },
                one.map_or_else(dash, |one| entry.release(one)),
                status.last.as_ref().map_or_else(dash, |last| hand_over(last, now)),
            ]
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &[&str], paint: Option<&str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padded = format!("{cell:width$}  ");
            match paint {
                Some(paint) if at == 1 => {
                    let _ = write!(text, "{paint}{padded}\x1b[0m");
                }
                _ => text.push_str(&padded),
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(&heads, None);
    for (entry, row) in entries.iter().zip(&rows) {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        line(&cells, colour.then(|| entry.colour()));
    }
    out
}

/// Everything about one service.
pub fn details(entry: &Entry, now: u64, colour: bool) -> String {
    let status = &entry.status;
    let mut out = String::new();
    let (paint, plain) = if colour { (entry.colour(), "\x1b[0m") } else { ("", "") };
    let _ = writeln!(out, "{}: {paint}{}{plain}", visible(&status.application), entry.state());
    let mut say = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<14} {value}");
    };
    for (name, one) in [("serves", &status.serving), ("gets ready", &status.candidate)] {
        if let Some(one) = one {
            say(name, generation(entry, one));
        }
    }
    for one in &status.leaving {
        say("leaves", generation(entry, one));
    }
    if status.queued {
        say("then", "another hand-over, which was asked for meanwhile".to_owned());
    }
    if let Some(ms) = status.next_start_in_ms {
        say(
            "next start",
            format!("in {} (at once with `sv 2` or `runsmith upgrade`)", span(ms.div_ceil(1000))),
        );
    }
    if let Some(last) = &status.last {
        say("last hand-over", format!("to generation {}: {}", last.generation, hand_over(last, now)));
    }
    if let Some(trouble) = &status.trouble {
        say("trouble", visible(trouble).into_owned());
    }
    say(
        "restarts",
        format!("{} that nobody asked for; {} failures in a row", status.restarts, status.failures),
    );
    if !entry.newer.is_empty() {
        let newer: Vec<_> = entry.newer.iter().map(|path| visible(path)).collect();
        say("not yet used", format!("{} (`runsmith upgrade` takes it)", newer.join(", ")));
    }
    say("listens on", status.addresses.iter().map(|one| visible(one)).collect::<Vec<_>>().join(", "));
    if status.runtime_pid != 0 {
        let (pid, version, keeper) = (status.runtime_pid, &status.runtime_version, status.keeper_pid);
        say("runtime", format!("{pid}, runsmith {version}; its keeper is {keeper}"));
    }
    let supervised = match (entry.is_supervised, entry.is_wanted) {
        (false, true) => {
            "no runsv watches over it any more, and the last one wanted it up: does runsvdir run?"
        }
        (false, false) => "no runsv watches over it: is it linked into runsvdir's directory?",
        (true, true) => "wants it up",
        (true, false) => "wants it down (or runs it once)",
    };
    say("runsv", format!("{supervised} ({})", visible(&status.directory)));
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
    if one.workers.is_some() {
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

fn workers(one: &GenerationStatus) -> String {
    one.workers.map_or_else(|| "-".to_owned(), |of| format!("{}/{of}", one.workers_ready))
}

fn hand_over(last: &LastHandOver, now: u64) -> String {
    let ago = span(now.saturating_sub(last.at));
    let took = last.took_ms as f64 / 1000.0;
    match &last.reason {
        None => format!("done {ago} ago in {took:.1} s"),
        Some(reason) => format!("FAILED {ago} ago: {}", visible(reason)),
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
