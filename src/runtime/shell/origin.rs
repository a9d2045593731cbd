//! What a generation is started from, and what is kept of it: the last known good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::FileType;

use super::fallback::Why;
use super::snapshots::memory;
use super::{Reader, Shell};
use crate::host::{self, Identity, look};
use crate::model::Service;
use crate::model::input::{Fallback, Strategy};
use crate::runtime::action::Origin;
use crate::runtime::event::Generation;
use crate::runtime::linux::log::Log;
use crate::runtime::linux::place::Place;
use crate::runtime::linux::stored::{self, Failed, Stored};
use crate::runtime::linux::{clock, take};
use crate::runtime::snapshot::{Made, Reading, Snapshot};
use crate::runtime::state::Life;

/// So many generations that are gone are remembered, in case the machine still has something to say about them.
const REMEMBERED: usize = 8;

/// What a generation was made of.
pub(super) struct Origins {
    pub(super) made: Made,
    /// It was started from what was on disk.
    pub(super) from_disk: bool,
    /// Somebody has deployed something else, which has failed.
    pub(super) is_fallback: bool,
}

/// What is read first of all: the service, or what was proven last if the run script cannot be read or executed. A value
/// that was rendered and refused must not keep a host from serving after a reboot.
pub(super) fn begin(
    read: &Reader,
    directory: &Path,
    log: &mut Log,
) -> Result<(Rc<Service>, Rc<Identity>), String> {
    let from_disk = read(None).and_then(|reading| {
        let identity = host::identity_of(&reading.service).inspect_err(|reason| {
            if let Ok(place) = Place::open(&reading.service.layout.run) {
                place.note_failure(reason);
            }
        })?;
        Ok((reading.service, identity))
    });
    let reason = match from_disk {
        Ok((service, identity)) => return Ok((Rc::new(service), Rc::new(identity))),
        Err(reason) => reason,
    };
    let proven = Stored::of(directory).proven_of_anybody();
    let Some(service) = proven.map(|one| one.service).filter(falls_back) else { return Err(reason) };
    let Ok(identity) = host::identity_of(&service) else { return Err(reason) };
    log.say(&format!("{reason}; this run goes by what was proven last"));
    Ok((Rc::new(service), Rc::new(identity)))
}

fn falls_back(service: &Service) -> bool {
    service.restart.fallback == Fallback::Proven
}

/// The name of a generation's own copy of the server's configuration.
pub(super) fn config_name(generation: Generation, like: &str) -> String {
    let extension = Path::new(like).extension().unwrap_or_default().to_string_lossy();
    format!("config.{}.{extension}", generation.0)
}

impl Shell {
    /// Whether something is kept that was proven before this run.
    pub(super) fn has_proven(&mut self) -> bool {
        if !falls_back(&self.service) {
            return false;
        }
        match self.stored.proven(&self.service.application) {
            Ok(proven) => proven.is_some() || self.proven_here.is_some(),
            Err(reason) => {
                let path = self.stored.file(stored::PROVEN);
                self.log
                    .say(&format!("{} is not used: {reason}; nothing is known to be good", path.display()));
                false
            }
        }
    }

    /// How long the generation that serves is still on probation, in milliseconds.
    pub(super) fn probation_ms(&self) -> Option<u64> {
        let until = self.machine.serving()?.probation?;
        Some(until.since(clock::now()))
    }

    /// Finds out what a generation is to be started from, and writes it down.
    pub(super) fn reading(&mut self, generation: Generation, origin: Origin) -> Result<Reading, String> {
        let kept = match origin {
            Origin::Disk => None,
            Origin::First => return self.first(generation),
            Origin::Serving => return self.serving_again(generation),
            // It was the same as what has failed if a service was only restarted.
            Origin::Before => self.before(true).or_else(|| self.proven()).or_else(|| self.before(false)),
            Origin::LastProven => self.proven().or_else(|| self.before(false)),
        };
        match kept {
            Some(snapshot) => {
                // Mostly it is what is on disk, too; then nothing is fallen back to.
                let reading = self.read_snapshot(generation);
                if let Ok(reading) = &reading
                    && reading.made.fingerprint == snapshot.made.fingerprint
                {
                    self.is_from_disk(generation, &reading.made);
                    return Ok(reading.clone());
                }
                let disk = reading.as_ref().map(|reading| &reading.made).map_err(String::as_str);
                let why = self.why_not(disk, &snapshot.made.release);
                self.use_kept(generation, &snapshot, why)
            }
            None => {
                if origin != Origin::Disk {
                    self.log.say("nothing that has served is kept any more: what is on disk is started");
                }
                self.use_disk(generation)
            }
        }
    }

    /// A first start uses what is on disk, unless that has failed before.
    fn first(&mut self, generation: Generation) -> Result<Reading, String> {
        let reading = match self.read_snapshot(generation) {
            Ok(reading) => reading,
            Err(reason) => match self.proven() {
                Some(snapshot) => {
                    let why = self.why_not(Err(&reason), &snapshot.made.release);
                    return self.use_kept(generation, &snapshot, why);
                }
                None => return Err(reason),
            },
        };
        let has_failed = self.failed().iter().any(|one| one.fingerprint == reading.made.fingerprint);
        if falls_back(&reading.service)
            && has_failed
            && let Some(snapshot) = self.proven()
            && snapshot.made.fingerprint != reading.made.fingerprint
        {
            let why = self.why_not(Ok(&reading.made), &snapshot.made.release);
            return self.use_kept(generation, &snapshot, why);
        }
        self.is_from_disk(generation, &reading.made);
        Ok(reading)
    }

    fn use_disk(&mut self, generation: Generation) -> Result<Reading, String> {
        let reading = self.read_snapshot(generation)?;
        self.is_from_disk(generation, &reading.made);
        Ok(reading)
    }

    pub(super) fn is_from_disk(&mut self, generation: Generation, made: &Made) {
        (self.fallback, self.toppled, self.suspect) = (None, None, false);
        self.given_up = self.given_up.take().filter(|one| *one != made.fingerprint);
        self.remember(generation, Origins { made: made.clone(), from_disk: true, is_fallback: false });
    }

    /// A generation that an earlier run has started.
    pub(super) fn know_again(&mut self, life: &Life) {
        let made =
            Made { release: life.release.clone(), virtualenv: None, fingerprint: life.fingerprint.clone() };
        let origins = Origins { made, from_disk: !life.fallback, is_fallback: life.fallback };
        self.remember(life.generation, origins);
    }

    fn remember(&mut self, generation: Generation, origins: Origins) {
        self.made.insert(generation, origins);
        while self.made.len() > REMEMBERED {
            self.made.pop_first();
        }
    }

    /// What is on disk becomes this generation's snapshot.
    fn read_snapshot(&mut self, generation: Generation) -> Result<Reading, String> {
        let file = memory().map_err(|error| format!("there is no memory for what it is made of: {error}"))?;
        let reading = (self.read)(Some(&file))?;
        self.hold_snapshot(generation, file);
        Ok(reading)
    }

    /// Starts what was kept: it becomes this generation's snapshot, too.
    fn use_kept(&mut self, generation: Generation, snapshot: &Snapshot, why: Why) -> Result<Reading, String> {
        let file = memory().map_err(|error| format!("there is no memory for what it is made of: {error}"))?;
        take::write(snapshot, &file)?;
        self.hold_snapshot(generation, file);
        let Snapshot { made, service, .. } = snapshot.clone();
        let why = self.fallback.insert(why.reason).clone();
        self.log.say(&format!(
            "FALLBACK: {generation} is started from what has served, {}, and not from what is on disk: {why}; \
             `runsmith upgrade {}` tries what is on disk",
            made.release,
            self.reference()
        ));
        self.remember(generation, Origins { made: made.clone(), from_disk: false, is_fallback: true });
        Ok(Reading { service, made })
    }

    /// The same as what serves is started again, also if something else is on disk by now: nobody has deployed that.
    fn serving_again(&mut self, generation: Generation) -> Result<Reading, String> {
        let serving = self.machine.serving().map(|serving| serving.generation);
        let snapshot = serving.and_then(|serving| self.snapshot(serving));
        let snapshot = snapshot.and_then(|snapshot| self.with_release(snapshot)).ok_or_else(|| {
            format!(
                "what serves cannot be started again: what it was made of is not known any more; `runsmith upgrade {}` starts \
                 what is on disk",
                self.reference()
            )
        })?;
        if let Ok(reading) = self.read_snapshot(generation)
            && reading.made.fingerprint == snapshot.made.fingerprint
        {
            self.is_from_disk(generation, &reading.made);
            return Ok(reading);
        }
        let is_fallback =
            serving.and_then(|serving| self.made.get(&serving)).is_some_and(|origins| origins.is_fallback);
        let file = memory().map_err(|error| format!("there is no memory for what it is made of: {error}"))?;
        take::write(&snapshot, &file)?;
        self.hold_snapshot(generation, file);
        let Snapshot { made, service, .. } = snapshot;
        self.log.say(&format!(
            "{generation} is started from what serves, {}: nobody has deployed what is on disk",
            made.release
        ));
        self.remember(generation, Origins { made: made.clone(), from_disk: false, is_fallback });
        Ok(Reading { service, made })
    }

    /// What was proven last, if its release is still there.
    fn proven(&mut self) -> Option<Snapshot> {
        let stored = match self.stored.proven(&self.service.application) {
            Ok(stored) => stored,
            Err(reason) => {
                let path = self.stored.file(stored::PROVEN);
                self.log.say(&format!("{} is not used: {reason}", path.display()));
                None
            }
        };
        let here = self.proven_here();
        // What could not be written down is the newer one; and what is written down may have been deleted while this run goes on.
        let both = if self.unkept.is_some() { [here, stored] } else { [stored, here] };
        both.into_iter().flatten().find_map(|snapshot| self.with_release(snapshot))
    }

    /// What served before. `sound`: only if that is not what has just failed, as it is after a restart of the same. What failed
    /// earlier and was deployed again since has served again.
    fn before(&mut self, sound: bool) -> Option<Snapshot> {
        let snapshot = self.held_before()?;
        let has_failed =
            sound && self.failed().first().is_some_and(|last| last.fingerprint == snapshot.made.fingerprint);
        if has_failed { None } else { self.with_release(snapshot) }
    }

    fn with_release(&mut self, snapshot: Snapshot) -> Option<Snapshot> {
        let release = &snapshot.made.release;
        // The path was taken without links. Whether the user can enter it is found when it is entered.
        if look::kind(release) == Some(FileType::Directory) {
            return Some(snapshot);
        }
        self.log.say(&format!("the release {release}, which has served, is not there any more"));
        None
    }

    /// What it was started from has failed.
    pub(super) fn condemn(&mut self, generation: Generation, reason: &str) {
        let is_fallback = self.made.get(&generation).is_some_and(|origins| origins.is_fallback);
        self.suspect |= !is_fallback;
        let Some(origins) = self.made.get(&generation).filter(|origins| !origins.is_fallback) else { return };
        let failed = Failed {
            fingerprint: origins.made.fingerprint.clone(),
            release: origins.made.release.clone(),
            reason: reason.to_owned(),
            at: clock::wall(),
        };
        self.add_failed(failed);
    }

    /// Links that are replaced by where they led when the generation was started. With `usr2` the server starts its
    /// successor from its own words and variables, so the links must stay in them unless this is a fallback.
    pub(super) fn pins(
        &self,
        service: &Service,
        generation: Generation,
        made: &Made,
    ) -> Vec<(String, String)> {
        let is_disk = self.made.get(&generation).is_none_or(|origins| origins.from_disk);
        if service.handoff.strategy == Strategy::Usr2 && is_disk {
            return vec![];
        }
        let mut pins = BTreeMap::from([(service.current(), made.release.clone())]);
        if let (Some(written), Some(real)) = (&service.virtualenv, &made.virtualenv) {
            pins.insert(written.clone(), real.clone());
        }
        // A virtualenv may lie in the release: the longer path is looked for first.
        pins.into_iter().rev().collect()
    }

    /// The server's configuration as this generation is to have it: the file that the command names if that has not changed
    /// since, else a copy.
    pub(super) fn config(
        &self,
        service: &Service,
        generation: Generation,
        identity: &Identity,
    ) -> Result<Option<(String, PathBuf)>, String> {
        let is_disk = self.made.get(&generation).is_none_or(|origins| origins.from_disk);
        let Some(path) = service.config_file().filter(|_| !is_disk) else { return Ok(None) };
        let text = self
            .snapshot_text(generation)
            .map_err(|error| format!("what {generation} is made of cannot be read: {error}"))?;
        let snapshot = Snapshot::read(&text, &service.application)?;
        let Some(config) = snapshot.config else { return Ok(None) };
        // The application's user can put links on the way to it; root follows none.
        if stored::read_unlinked(path).is_ok_and(|now| now == config.as_bytes()) {
            return Ok(None);
        }
        let copy = self.place.file(&config_name(generation, path));
        self.place
            .write_for(&copy, config.as_bytes(), identity.gid)
            .map_err(|error| format!("{} cannot be written: {error}", copy.display()))?;
        Ok(Some((path.to_owned(), copy)))
    }
}
