//! Why what is on disk does not serve, what to do about it, and what is started if what serves fails.

use rustix::fs::FileType;

use super::Shell;
use super::snapshots::memory;
use crate::host::look;
use crate::runtime::action::Origin;
use crate::runtime::event::Generation;
use crate::runtime::linux::clock;
use crate::runtime::linux::stored::Failed;
use crate::runtime::protocol::Problem;
use crate::runtime::snapshot::{Made, Snapshot};

/// Reading what is on disk takes milliseconds. After one that took longer than this, in milliseconds, a status goes by what was found
/// last.
const SLOW: u64 = 2_000;

/// For so long, in milliseconds.
const REST: u64 = 60_000;

/// What has become of what is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It was started, and has failed; or cannot even be read.
    Failed,
    /// Somebody has deployed it and given that up.
    GivenUp,
    /// Nobody has asked for it.
    Undeployed,
    /// It is being started.
    Starting,
}

/// Why what is on disk does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    kind: Kind,
    /// A clause; it names each release that it speaks of.
    pub(super) reason: String,
    /// What to do, if there is something to do.
    step: Option<String>,
}

impl Why {
    fn has_failed(&self) -> bool {
        self.kind == Kind::Failed
    }
}

/// What is started if the generation that serves fails on probation.
pub(super) struct AfterFailure {
    pub(super) release: String,
    /// It is something else than what serves.
    pub(super) is_other: bool,
}

impl Shell {
    /// Finds out why what is on disk does not serve. `serves`: the release that does, or is to.
    pub(super) fn why_not(&self, disk: Result<&Made, &str>, serves: &str) -> Why {
        let upgrade = format!("`runsmith upgrade {}`", self.reference());
        let made = match disk {
            Ok(made) => made,
            Err(reason) => {
                let reason = format!("what is on disk cannot be started: {reason}");
                return Why { kind: Kind::Failed, reason, step: Some(format!("fix it, then run {upgrade}")) };
            }
        };
        let is_same = made.release == serves;
        let name = match is_same {
            true => format!("{} with another run script, variables or configuration", made.release),
            false => made.release.clone(),
        };
        let back = match is_same {
            true => "or put back those that serve".to_owned(),
            false => format!("or set `current` back to {serves}"),
        };
        let candidate = self.machine.candidate().and_then(|candidate| self.made.get(&candidate.generation));
        let is_it = |fingerprint: &str| fingerprint == made.fingerprint;
        let failed = self.failed().into_iter().find(|one| is_it(&one.fingerprint));
        let (kind, mut reason, step) = if candidate.is_some_and(|one| is_it(&one.made.fingerprint)) {
            (Kind::Starting, format!("{name} is being started"), None)
        } else if let Some(failed) = failed {
            let reason = format!("{name} has failed: {}", failed.reason);
            (Kind::Failed, reason, Some(format!("fix it, then run {upgrade}, {back}")))
        } else if self.given_up.as_deref().is_some_and(is_it) {
            let step = format!("try it again with {upgrade}, {back}");
            (Kind::GivenUp, format!("the upgrade to {name} was given up"), Some(step))
        } else {
            let step =
                format!("deploy {} with {upgrade}, {back}", if is_same { "them" } else { &made.release });
            (Kind::Undeployed, format!("{name} is on disk and was not deployed"), Some(step))
        };
        if let Some(toppled) = self.toppled.as_ref().filter(|one| !is_it(&one.fingerprint)) {
            reason.push_str(&format!(
                "; {}, which served before, has failed: {}",
                toppled.release, toppled.reason
            ));
        }
        Why { kind, reason, step }
    }

    /// What serves has failed, and is replaced by a fallback.
    pub(super) fn topple(&mut self, generation: Generation, reason: &str) {
        let Some(origins) = self.made.get(&generation).filter(|origins| !origins.is_fallback) else { return };
        let Made { fingerprint, release, .. } = origins.made.clone();
        self.toppled = Some(Failed { fingerprint, release, reason: reason.to_owned(), at: clock::wall() });
    }

    /// What is on disk now, compared with what serves: somebody may have put back what serves, or something else.
    pub(super) fn look_at_the_disk(&mut self) {
        let before = self.why.take();
        let Some(generation) = self.machine.serving().map(|serving| serving.generation) else { return };
        let Some(live) = self.generations.get(&generation) else { return };
        let is_fallback = live.life.fallback;
        // Where what serves was started from what is on disk and nothing has failed since there is nothing to find out, and this
        // costs a process.
        if !is_fallback && !self.suspect {
            return;
        }
        let now = clock::now();
        if self.disk_rests.is_some_and(|(of, until)| of == generation && now < until) {
            self.why = before;
            return;
        }
        let (fingerprint, release) = (live.life.fingerprint.clone(), live.life.release.clone());
        let reading = memory().map_err(|error| error.to_string()).and_then(|file| (self.read)(Some(&file)));
        // Whoever can make that slow would have the runtime answer nobody else.
        let has_waited = clock::now().since(now) >= SLOW;
        self.disk_rests = has_waited.then(|| (generation, clock::now().after(REST)));
        let disk = reading.as_ref().map(|reading| &reading.made).map_err(String::as_str);
        if disk.is_ok_and(|made| made.fingerprint == fingerprint) {
            if let Some(live) = self.generations.get_mut(&generation)
                && std::mem::take(&mut live.life.fallback)
            {
                self.log.say(&format!(
                    "what is on disk is what {generation} is made of: nothing is fallen back to any more"
                ));
            }
            if let Ok(reading) = &reading {
                self.is_from_disk(generation, &reading.made);
                // What has failed may come back to where it was.
                self.suspect = true;
            }
            return;
        }
        let why = self.why_not(disk, &release);
        if is_fallback {
            self.fallback = Some(why.reason.clone());
        }
        self.why = Some(why);
    }

    /// Why what is on disk has failed when it was started; none if it has not, or does serve.
    pub(super) fn disk_failed(&self) -> Option<String> {
        let why = self.why.as_ref().filter(|why| why.has_failed())?;
        Some(Problem::new("", why.reason.clone()).message)
    }

    /// Why what serves, or is started while nothing does, is not what is on disk.
    pub(super) fn fallback_reason(&self) -> Option<String> {
        let serving = self.machine.serving().map(|serving| serving.generation);
        let shown = serving.or_else(|| self.machine.candidate().map(|candidate| candidate.generation))?;
        // What was given up may have failed, and nothing was fallen back to.
        self.fallback.clone().filter(|_| self.generations.get(&shown).is_some_and(|live| live.life.fallback))
    }

    /// What is on disk is not what serves, and a person has to do something: what was proven serves again, or what was deployed last was
    /// backed out and would not be used by the next start either.
    pub(super) fn disk_problem(&self) -> Option<Problem> {
        let serving = self.machine.serving()?;
        let live = self.generations.get(&serving.generation)?;
        let release = &live.life.release;
        let step = match &self.why {
            Some(why) => why.step.as_ref().map(|step| format!("; {step}")).unwrap_or_default(),
            None => format!("; `runsmith upgrade {}` tries what is on disk", self.reference()),
        };
        if live.life.fallback {
            let reason = self.why.as_ref().map(|why| &why.reason).or(self.fallback.as_ref());
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let message = format!("FALLBACK: {release} serves again, and not what is on disk{reason}{step}");
            return Some(Problem::new("fallback", message));
        }
        let why = self.why.as_ref().filter(|why| why.has_failed())?;
        let message = format!("{release} goes on serving, and not what is on disk: {}{step}", why.reason);
        Some(Problem::new("backed-out", message))
    }

    /// What is started if the generation that serves fails on probation; none if that is what is on disk by then, or it is proven.
    pub(super) fn after_failure(&self) -> Option<AfterFailure> {
        let serving = self.machine.serving().filter(|serving| serving.probation.is_some())?;
        let life = &self.generations.get(&serving.generation)?.life;
        let is_other = |one: &Snapshot| one.made.fingerprint != life.fingerprint;
        let is_there = |one: &Snapshot| look::kind(&one.made.release) == Some(FileType::Directory);
        let before = self.held_before().filter(is_there);
        let proven = || {
            let here = self.proven_here();
            let stored = self.stored.proven(&self.service.application).ok().flatten();
            let both = if self.unkept.is_some() { [here, stored] } else { [stored, here] };
            both.into_iter().flatten().find(is_there)
        };
        let next = match self.machine.after_failure() {
            Origin::Before => before.clone().filter(is_other).or_else(proven).or(before),
            Origin::LastProven => proven().or(before),
            Origin::Disk | Origin::First | Origin::Serving => return None,
        };
        Some(match next {
            Some(next) => AfterFailure { is_other: is_other(&next), release: next.made.release },
            None => AfterFailure { is_other: false, release: life.release.clone() },
        })
    }
}
