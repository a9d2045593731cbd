//! What runs, for whoever asks.

use std::path::{Path, PathBuf};

use super::Shell;
use super::generation::others;
use super::workers::{EXITED_EARLY, EXITED_SOON};
use crate::host::look;
use crate::model::input::{Fallback, LogKind, Strategy};
use crate::runtime::cause;
use crate::runtime::event::{Generation, Moment};
use crate::runtime::linux::process::Stopped;
use crate::runtime::linux::{clock, process, runsv};
use crate::runtime::machine::State;
use crate::runtime::protocol::{Dropped, GenerationStatus, Problem, Status};
use crate::runtime::words::count;

/// How long no worker may be ready before that is a problem, in milliseconds: a single worker that is recycled is
/// replaced within that, if the application was loaded before.
const NONE_READY: u64 = 2_000;

/// How long a part of the workers may be missing at least before that is a problem, in milliseconds; longer where the
/// generation took longer to start: a worker that is recycled loads the application anew.
const SOME_READY: u64 = 5_000;

impl Shell {
    pub(super) fn status(&mut self) -> Status {
        let now = clock::now();
        for live in self.generations.values_mut() {
            live.count(now);
        }
        self.look_at_the_dying(now);
        let shortage = self.shortage(now);
        let socket = self.lost_socket();
        let obstacle = self.log.obstacle();
        let dropped = self.dropped(obstacle.is_none());
        let log = self.log_problem(obstacle, &dropped);
        let stopped = self.stopped();
        let unhealthy = self.unhealthy(now);
        // Looked for once: environments of the application's processes are read for it.
        let serving = self.machine.serving().map(|serving| serving.generation);
        let successor = serving.and_then(|serving| self.unasked_successor(serving)).map(|found| found.pid);
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
                orphaned: self.machine.orphans().contains(&generation),
                fingerprint: live.map(|live| live.life.fingerprint.clone()).unwrap_or_default(),
                enclosure: live.map(|_| self.enclosure(generation)),
            }
        };
        let machine = &self.machine;
        let state = match machine.state() {
            State::Down => "down",
            State::Booting(_) | State::Proving(_, _) | State::Clearing => "booting",
            State::Resting(_) => "resting",
            State::Serving(_)
                if shortage.is_some()
                    || stopped.is_some()
                    || unhealthy.is_some()
                    || socket.is_some()
                    || dropped.since.is_some() =>
            {
                "degraded"
            }
            State::Serving(_) => "serving",
            State::Succeeding(_, _) | State::Vetting(_, _, _) => "handing-over",
            State::Draining(_) => "draining",
            State::BackingOut(_, _) => "backing-out",
            State::Stopping | State::Over(_) => "stopping",
        };
        let after_failure = self.after_failure();
        let unkept = self.unkept.clone().map(|message| Problem::new("proven", message));
        let problems = [
            stopped,
            shortage,
            unhealthy,
            self.disk_problem(),
            self.resting_problem(),
            self.second_master(successor),
            unkept,
            self.other_release(successor),
            self.unlimited(),
            self.undying(now),
            socket,
            log,
        ];
        let problems = problems.into_iter().flatten();
        let problems = problems.chain(self.trouble.problems()).collect();
        let leaving = machine.leavers().iter().map(|leaver| leaver.generation);
        let leaving = leaving.chain(machine.orphans().iter().copied());
        Status {
            application: self.service.application.clone(),
            directory: self.service.service.directory.clone(),
            state: state.to_owned(),
            serving: machine.serving().map(|serving| one(serving.generation)),
            candidate: machine.candidate().map(|candidate| one(candidate.generation)),
            leaving: leaving.map(one).collect(),
            addresses: self.addresses(),
            restarts: machine.restarts(),
            failures: machine.failures(),
            next_start_in_ms: match machine.state() {
                State::Resting(until) => Some(until.since(now)),
                _ => None,
            },
            queued: machine.is_queued(),
            last: self.last.clone(),
            probation_ms: self.probation_ms(),
            probation_falls_back: after_failure.as_ref().is_some_and(|next| next.is_other),
            probation_next: after_failure.map(|next| next.release),
            fallback: self.fallback_reason(),
            disk_failed: self.disk_failed(),
            trouble: self.trouble.text(),
            dropped: (dropped.lines > 0).then_some(dropped),
            problems,
            runtime_pid: std::process::id(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            keeper_pid: self.keeper.as_ref().map_or(0, |keeper| keeper.identity().0),
        }
    }
}

impl Shell {
    /// What clients reach it by, in the order of the pillar: a socket that is being replaced is there twice. With `usr2` the server
    /// opens them by itself.
    fn addresses(&self) -> Vec<String> {
        let serving = self.machine.serving().and_then(|serving| self.generations.get(&serving.generation));
        if let Some(live) = serving.filter(|live| live.service.handoff.strategy == Strategy::Usr2) {
            return live.service.bind.iter().map(|socket| socket.address.clone()).collect();
        }
        let mut addresses: Vec<String> =
            self.listeners.iter().map(|listener| listener.kept.address.clone()).collect();
        let place = |address: &String| self.service.bind.iter().position(|socket| socket.address == *address);
        addresses.sort_by_key(|address| place(address).unwrap_or(usize::MAX));
        addresses.dedup();
        addresses
    }

    /// How commands that are printed name this service.
    pub(super) fn reference(&self) -> String {
        let directory = Path::new(&self.service.service.directory);
        runsv::reference(&self.service.application, directory, Path::new(runsv::SERVICES))
    }

    /// Lines for the log are dropped now. `obstacle`: why the log takes nothing.
    fn log_problem(&self, obstacle: Option<&str>, dropped: &Dropped) -> Option<Problem> {
        let reason = match obstacle {
            Some(obstacle) => format!("the pipe to the log takes nothing, {obstacle}"),
            None => "the log has not taken any line since".to_owned(),
        };
        let mut message = match dropped.since {
            Some(since) => {
                let seconds = clock::wall().saturating_sub(since);
                let lines = u32::try_from(dropped.lines_since).unwrap_or(u32::MAX);
                format!("{} for the log dropped in the last {seconds} s: {reason}", count(lines, "line"))
            }
            None => {
                obstacle?;
                format!("{reason}; lines are dropped until it does")
            }
        };
        if self.service.log.kind == LogKind::Svlogd {
            let path = format!("{}/log", self.service.service.directory);
            message.push_str(&format!("; `sv status {}` shows the log service", runsv::word(&path)));
        }
        Some(Problem::new("log", message))
    }

    /// Processes of the generation that serves that do not run: requests wait for them.
    fn stopped(&self) -> Option<Problem> {
        let serving = self.machine.serving()?;
        let master = self.generations.get(&serving.generation)?.master.as_ref()?.pid;
        let all = process::all();
        // A program that the application runs is its own affair.
        let children =
            all.iter().filter(|(_, stat)| stat.parent == master && !stat.has_run).map(|(pid, _)| *pid);
        let mut workers: Vec<u32> = children.collect();
        workers.sort_unstable();
        let of = workers.len();
        workers.push(master);
        let mut workers = process::stopped(&workers);
        let its_master = workers.extract_if(.., |(pid, _)| *pid == master).next();
        let how = |all: &[(u32, Stopped)]| {
            let pids = |is: fn(&Stopped) -> bool| {
                let pids = all.iter().filter(|(_, how)| is(how)).map(|(pid, _)| pid.to_string());
                pids.collect::<Vec<_>>().join(" ")
            };
            match all.iter().find_map(|(pid, how)| match how {
                Stopped::ByTracer(tracer) => Some((*pid, *tracer)),
                Stopped::BySignal => None,
            }) {
                Some((pid, tracer)) => format!("process {pid} by its tracer, process {tracer}"),
                None => format!("by a signal: `kill -CONT {}`", pids(|how| *how == Stopped::BySignal)),
            }
        };
        let mut parts = vec![];
        if let Some(master) = its_master {
            parts.push(format!("its master is stopped, {}", how(&[master])));
        }
        if !workers.is_empty() {
            let are = if workers.len() == 1 { "is" } else { "are" };
            parts.push(format!(
                "{} of {} {are} stopped, {}",
                workers.len(),
                count(u32::try_from(of).unwrap_or(u32::MAX), "worker"),
                how(&workers)
            ));
        }
        (!parts.is_empty()).then(|| Problem::new("stopped", parts.join("; ")))
    }

    /// What was killed and does not end: a hand-over, or the stop of the service, waits for it.
    fn undying(&self, now: Moment) -> Option<Problem> {
        let (generation, why) = self
            .generations
            .iter()
            .find_map(|(generation, live)| Some((*generation, live.why_undying(now)?)))?;
        Some(Problem::new("undying", format!("{generation} does not end: {why}")))
    }

    /// Limits of the generation that serves do not hold.
    fn unlimited(&self) -> Option<Problem> {
        let serving = self.machine.serving()?.generation;
        let reason = self.generations.get(&serving)?.life.unlimited.as_ref()?;
        Some(Problem::new("limits", reason))
    }

    /// Nothing serves, because the last start failed: what to do. The reason is that of the last start.
    fn resting_problem(&self) -> Option<Problem> {
        if !matches!(self.machine.state(), State::Resting(_)) {
            return None;
        }
        let meanwhile =
            if self.orphans_serve() { "only workers without a master serve" } else { "nothing serves" };
        let mut message = format!(
            "{meanwhile}: fix what the last start failed for, then run `runsmith upgrade {}`",
            self.reference()
        );
        if self.service.restart.fallback == Fallback::Proven {
            match self.stored.proven(&self.service.application) {
                Ok(Some(proven)) if !look::is_there(&proven.made.release) => {
                    message.push_str(&format!(
                        "; nothing can be fallen back to: {}, which was proven last, is not there any more",
                        proven.made.release
                    ));
                }
                Ok(None) => {
                    message.push_str("; nothing can be fallen back to: nothing was proven yet");
                }
                _ => {}
            }
        }
        Some(Problem::new("resting", message))
    }

    /// Somebody has sent the server's signal for a hand-over of its own: there are two masters, whose workers all serve.
    fn second_master(&self, successor: Option<u32>) -> Option<Problem> {
        if self.machine.candidate().is_some() {
            return None;
        }
        let serving = self.machine.serving()?.generation;
        let second = successor?;
        let message = format!(
            "a second master, process {}, which nobody asked runsmith for, serves beside that of generation {}: somebody has sent \
             USR2 to the server; `runsmith upgrade {}` makes it one again",
            second,
            serving.0,
            self.reference()
        );
        Some(Problem::new("second-master", message))
    }

    /// Processes of the generation that serves that run in another release than the one it was started in: by their
    /// working directories, which servers set when they load the application. A server that is told by hand to reload (HUP;
    /// USR1 and USR2 with puma) may follow `current`.
    fn other_release(&self, successor: Option<u32>) -> Option<Problem> {
        let serving = self.machine.serving()?;
        let live = self.generations.get(&serving.generation)?;
        let master = live.master.as_ref()?.pid;
        let release = Path::new(&live.life.release);
        let releases = release.parent()?;
        let all = process::all();
        // A successor that it has started with `usr2` is another generation.
        let masters = others(&self.generations, serving.generation);
        let children = all
            .iter()
            .filter(|(pid, stat)| stat.parent == master && !masters.contains(pid) && Some(**pid) != successor)
            .map(|(pid, _)| *pid);
        let mut strange: Vec<(u32, PathBuf)> = children
            .chain([master])
            .filter_map(|pid| Some((pid, process::directory(pid)?)))
            .filter(|(_, directory)| directory.starts_with(releases) && !directory.starts_with(release))
            .collect();
        strange.sort_unstable();
        if strange.is_empty() && !look::is_there(release) {
            let message = format!(
                "{}, the release that serves, is not there any more: what it has not loaded yet is missing, and it cannot be started \
                 again; put it back, or let {} lead to another release and run `runsmith upgrade {}`",
                release.display(),
                live.service.current(),
                self.reference()
            );
            return Some(Problem::new("release", message));
        }
        let (pid, directory) = strange.first()?;
        let inside = directory.strip_prefix(releases).ok()?.components().next()?;
        if !look::is_there(release) {
            let message = format!(
                "{}, the release that serves, is not there any more: it was renamed or removed (process {pid} runs in {}); \
                 put it back, or let {} lead to another release and run `runsmith upgrade {}`",
                release.display(),
                releases.join(inside).display(),
                live.service.current(),
                self.reference()
            );
            return Some(Problem::new("release", message));
        }
        let message = format!(
            "{} in {}, process {pid} for one, and not in {}: the server was made to reload by hand, or a release was renamed; `runsmith upgrade {}` makes it one release again",
            if strange.len() == 1 {
                "1 process runs".to_owned()
            } else {
                format!("{} processes run", strange.len())
            },
            releases.join(inside).display(),
            release.display(),
            self.reference(),
        );
        Some(Problem::new("release", message))
    }

    /// Whether the generation that serves has had fewer workers than it is to have for longer than one takes to load.
    fn shortage(&self, now: Moment) -> Option<Problem> {
        let serving = self.machine.serving()?;
        let live = self.generations.get(&serving.generation)?;
        let (ready, of) = (live.life.workers.0, live.life.workers.1?);
        if let Some(dying) = live.dying.filter(|dying| dying.is_serious()) {
            let are = if ready == 1 { "is" } else { "are" };
            let mut message = format!(
                "{ready} of {} {are} ready; {} exited {}, within {} s",
                count(of, "worker"),
                count(dying.deaths, "worker"),
                if dying.had_loaded { EXITED_SOON } else { EXITED_EARLY },
                now.since(dying.since).div_ceil(1000),
            );
            if let Some(words) = cause::of_worker(&self.last_words(serving.generation)) {
                message.push_str(&format!("; the server reported: {words}"));
            }
            return Some(Problem::new("workers", message));
        }
        let short = now.since(live.short_since?);
        let grace =
            if ready == 0 { NONE_READY } else { SOME_READY.max(2 * serving.since.since(live.life.since)) };
        if ready >= of || short < grace {
            return None;
        }
        let are = if ready == 1 { "is" } else { "are" };
        let mut message = format!("{ready} of {} {are} ready, for {} s", count(of, "worker"), short / 1000);
        if let Some(words) = cause::of_worker(&self.last_words(serving.generation)) {
            message.push_str(&format!("; the server reported: {words}"));
        }
        message.push_str(&format!("; `runsmith upgrade {}` starts a whole generation", self.reference()));
        Some(Problem::new("workers", message))
    }
}

impl Status {
    /// One line for the log, and for each generation one more.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "status: {}; {}, {} in a row; runtime {}, keeper {}",
            self.state,
            count(self.restarts, "restart"),
            count(self.failures, "failure"),
            self.runtime_pid,
            self.keeper_pid
        )];
        let all = self.serving.iter().map(|one| ("serves", one));
        let all = all.chain(self.candidate.iter().map(|one| ("gets ready", one)));
        let leaving =
            self.leaving.iter().map(|one| (if one.orphaned { "is orphaned" } else { "leaves" }, one));
        for (what, one) in all.chain(leaving) {
            let master = one.master.map_or_else(|| "no master".to_owned(), |pid| format!("master {pid}"));
            let workers = match one.workers {
                Some(of) => format!("{} of {}", one.workers_ready, count(of, "worker")),
                None => count(one.workers_ready, "worker"),
            };
            lines.push(format!(
                "status: generation {} {what}: {master}, {workers} ready, {}",
                one.generation, one.release
            ));
        }
        lines.extend(self.problems.iter().map(|problem| format!("status: {}", problem.message)));
        if let Some(last) = &self.last {
            let outcome =
                last.reason.as_deref().map_or("done".to_owned(), |reason| format!("backed out: {reason}"));
            let what = if last.from.is_some() { "hand-over" } else { "start" };
            let who = last.requested_by.as_ref().map(|who| format!(", requested by {who}"));
            let who = who.unwrap_or_default();
            lines.push(format!("status: last {what}: generation {}, {outcome}{who}", last.generation));
        }
        lines
    }
}
