//! What is said over the control socket: a line of JSON each way, version 1.
//!
//! The asker sends one [`Wish`]; the runtime answers with [`Reply`] lines and closes the connection after the last.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::visible::without_numbers;

/// What somebody wants of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// What runs.
    Status,
    /// A hand-over, step by step until it is settled.
    Upgrade,
    /// The same; the last line comes once the new generation is proven, or has failed.
    Prove,
    /// The hand-over that is under way is given up.
    Abort,
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Reply {
    /// What runs: the only line.
    Status(Box<Status>),
    /// A step of the hand-over.
    Step {
        /// Seconds since it was asked for.
        after: f64,
        /// As the log has it.
        sentence: String,
    },
    /// It is settled: the last line.
    Done {
        /// The generation that serves.
        generation: u32,
        /// Milliseconds until it is proven; none if it is.
        #[serde(default)]
        probation_ms: Option<u64>,
        /// If it fails until then, what served before it is started again.
        #[serde(default)]
        falls_back: bool,
        /// The release that is started then, which may be its own; none if that is what is on disk by then.
        #[serde(default)]
        next: Option<String>,
        /// Another hand-over, which was asked for meanwhile, follows.
        #[serde(default)]
        queued: bool,
        /// It is proven, and why that could not be written down; none if it was.
        #[serde(default)]
        unkept: Option<String>,
    },
    /// It was backed out, or has failed on probation: the last line.
    BackedOut {
        /// The generation had taken over, and has failed on probation.
        #[serde(default)]
        on_probation: bool,
        /// Why.
        reason: String,
        /// What the failed generation said last.
        output: String,
        /// The generation that serves now, if one does.
        serving: Option<u32>,
        /// Its release.
        #[serde(default)]
        release: Option<String>,
        /// The generation that is started now, if one is.
        #[serde(default)]
        candidate: Option<u32>,
        /// No generation serves, but workers whose master has ended do.
        #[serde(default)]
        orphans: bool,
        /// Nothing has failed: somebody gave it up.
        #[serde(default)]
        given_up: bool,
    },
    /// It was not begun: the last line.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What runs, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The service.
    pub application: String,
    /// Its directory.
    pub directory: String,
    /// One word: `serving`, `degraded`, `handing-over`, `draining`, `backing-out`, `booting`, `resting`, `stopping`, `down`;
    /// `unsupervised` where a command found what serves and no runtime.
    pub state: String,
    /// The generation that serves.
    pub serving: Option<GenerationStatus>,
    /// The generation that is to serve.
    pub candidate: Option<GenerationStatus>,
    /// Those that finish their requests.
    #[serde(default)]
    pub leaving: Vec<GenerationStatus>,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Starts that nobody asked for, since the service is up.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds until the next start, while nothing serves.
    pub next_start_in_ms: Option<u64>,
    /// Another hand-over follows.
    pub queued: bool,
    /// The last hand-over.
    pub last: Option<LastHandOver>,
    /// Milliseconds until the generation that serves is proven: it has not served for `restart.min_uptime` yet.
    #[serde(default)]
    pub probation_ms: Option<u64>,
    /// If it fails until then, what served before it is started again.
    #[serde(default)]
    pub probation_falls_back: bool,
    /// The release that is started if it fails until then, which may be its own; none if that is what is on disk by then.
    #[serde(default)]
    pub probation_next: Option<String>,
    /// Why what serves, or is started, is not what is on disk; none if somebody asked for what serves.
    #[serde(default)]
    pub fallback: Option<String>,
    /// Why what is on disk has failed when it was started; none if it serves, or was not started.
    #[serde(default)]
    pub disk_failed: Option<String>,
    /// What the runtime cannot do as it should; none if all is well.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Lines that the log did not take; none if it has taken all.
    #[serde(default)]
    pub dropped: Option<Dropped>,
    /// Everything that needs a person; empty if all is well.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The runtime's own number.
    pub runtime_pid: u32,
    /// Its version.
    pub runtime_version: String,
    /// The keeper's number.
    pub keeper_pid: u32,
}

/// Lines that the log did not take: they are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many, since the service is up.
    pub lines: u64,
    /// When the first one was dropped, in seconds since 1970.
    pub first: Option<u64>,
    /// When the last one was.
    pub last: Option<u64>,
    /// Since when lines are dropped now; none if the log takes them again.
    pub since: Option<u64>,
    /// How many were dropped since then.
    pub lines_since: u64,
}

impl Dropped {
    /// So many lines are dropped now, in seconds since 1970.
    pub fn lose(&mut self, lines: u64, now: u64) {
        if lines == 0 {
            return;
        }
        self.lines = self.lines.saturating_add(lines);
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.since.get_or_insert(now);
        self.lines_since = self.lines_since.saturating_add(lines);
    }

    /// The log takes lines again.
    pub fn end(&mut self) {
        (self.since, self.lines_since) = (None, 0);
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>, choose: fn(u64, u64) -> u64| match (one, other) {
            (Some(one), Some(other)) => Some(choose(one, other)),
            (one, other) => one.or(other),
        };
        Self {
            lines: self.lines.saturating_add(other.lines),
            first: both(self.first, other.first, u64::min),
            last: both(self.last, other.last, u64::max),
            since: both(self.since, other.since, u64::min),
            lines_since: self.lines_since.saturating_add(other.lines_since),
        }
    }
}

/// Something that needs a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind it is, for programs: docs/formats.md has the list.
    pub code: String,
    /// What is wrong, and what to do if that is not clear: a sentence without a full stop.
    pub message: String,
}

impl Problem {
    /// One of this kind.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: without_numbers(&message.into()).into_owned() }
    }
}

/// A generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: u32,
    /// Its master; none while it is launched, or once it has ended.
    pub master: Option<u32>,
    /// Workers that are known to have loaded the application.
    pub workers_ready: u32,
    /// Workers in all, once one has said how many.
    pub workers: Option<u32>,
    /// Milliseconds since it serves.
    pub serving_for_ms: Option<u64>,
    /// The release that `current` led to when it was started.
    pub release: String,
    /// Its master has ended; its workers serve until another generation does.
    #[serde(default)]
    pub orphaned: bool,
    /// Tells two generations apart that are made of something else: release, run script, secrets or configuration.
    #[serde(default)]
    pub fingerprint: String,
    /// How its processes are known; none where no runtime could tell.
    #[serde(default)]
    pub enclosure: Option<Enclosure>,
}

/// How the processes of a generation are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// By their cgroup: its directory. None: by their session and environment, which a process can leave.
    pub cgroup: Option<String>,
    /// Why there is no cgroup.
    pub reason: Option<String>,
}

/// Who has asked for something, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// The process that has asked; none for a signal, as `sv` sends it, which only root can send.
    pub pid: Option<u32>,
    /// Whose process it was.
    pub uid: u32,
    /// The name of that user.
    pub user: String,
}

impl Requester {
    /// Whoever has sent a signal to the runtime, which runs as `uid`: nobody else may.
    pub fn by_signal(uid: u32, user: String) -> Self {
        Self { pid: None, uid, user }
    }

    /// Whether it may give up what `other` has asked for.
    pub fn may_undo(&self, other: &Self) -> bool {
        self.uid == 0 || self.uid == other.uid
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid, user } = self;
        match pid {
            Some(pid) => write!(f, "process {pid} of {user} (uid {uid})"),
            None => write!(f, "a signal of {user} (uid {uid})"),
        }
    }
}

/// How the last hand-over went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastHandOver {
    /// Seconds since 1970, when it was over.
    pub at: u64,
    /// Whether the new generation took over.
    pub done: bool,
    /// The generation that was started.
    pub generation: u32,
    /// The generation that served before; none for a start while nothing served.
    #[serde(default)]
    pub from: Option<u32>,
    /// Why it was started, if nobody had asked for it and the generation before it served well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Who has asked for it; none if nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,
    /// Who has given it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_by: Option<Requester>,
    /// Why it was backed out.
    pub reason: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_lines_add_up() {
        let mut one = Dropped::default();
        one.lose(0, 5);
        assert_eq!(one, Dropped::default());
        one.lose(2, 10);
        one.lose(3, 12);
        let now = Dropped { lines: 5, first: Some(10), last: Some(12), since: Some(10), lines_since: 5 };
        assert_eq!(one, now);
        one.end();
        one.lose(1, 20);
        let again = Dropped { lines: 6, first: Some(10), last: Some(20), since: Some(20), lines_since: 1 };
        assert_eq!(one, again);
        one.end();
        assert_eq!(one.and(&now), now.and(&one));
        let both = Dropped { lines: 11, first: Some(10), last: Some(20), since: Some(10), lines_since: 5 };
        assert_eq!(one.and(&now), both);
    }
}
