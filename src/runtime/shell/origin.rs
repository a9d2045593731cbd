//! What a generation is started from, and what is kept of it: the last known good.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Reader, Shell};
use crate::host::{self, Identity};
use crate::model::Service;
use crate::model::input::{Fallback, Strategy};
use crate::runtime::action::Origin;
use crate::runtime::event::Generation;
use crate::runtime::linux::log::Log;
use crate::runtime::linux::place::Place;
use crate::runtime::linux::stored::{self, Failed, Stored};
use crate::runtime::linux::{clock, take};
use crate::runtime::snapshot::{Made, Reading, Snapshot};

/// What served before the generation that serves, while that is on probation: a name in the run directory.
const BEFORE: &str = "before.json";

/// So many generations that are gone are remembered, in case the machine still has something to say about them.
const REMEMBERED: usize = 8;

/// What a generation was made of.
pub(super) struct Origins {
    pub(super) made: Made,
    /// It was started from what was on disk.
    from_disk: bool,
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

/// The name of a generation's snapshot in the run directory.
pub(super) fn snapshot_name(generation: Generation) -> String {
    format!("generation.{}.json", generation.0)
}

/// The name of a generation's own copy of the server's configuration.
fn config_name(generation: Generation, like: &str) -> String {
    let extension = Path::new(like).extension().unwrap_or_default().to_string_lossy();
    format!("config.{}.{extension}", generation.0)
}

impl Shell {
    pub(super) fn has_proven(&self) -> bool {
        falls_back(&self.service)
            && self.stored.proven(&self.service.application).is_ok_and(|proven| proven.is_some())
    }

    /// How long the generation that serves is still on probation, in milliseconds.
    pub(super) fn probation_ms(&self) -> Option<u64> {
        let until = self.machine.serving()?.probation?;
        Some(until.since(clock::now()))
    }

    /// Finds out what a generation is to be started from, and writes it down.
    pub(super) fn reading(&mut self, generation: Generation, origin: Origin) -> Result<Reading, String> {
        let path = self.place.file(&snapshot_name(generation));
        let kept = match origin {
            Origin::Disk => None,
            Origin::First => return self.first(generation, &path),
            // It was the same as what has failed if a service was only restarted.
            Origin::Before => self.before(true).or_else(|| self.proven()).or_else(|| self.before(false)),
            Origin::LastProven => self.proven().or_else(|| self.before(false)),
        };
        match kept {
            Some(snapshot) => self.from_kept(generation, &path, snapshot),
            None => {
                if origin != Origin::Disk {
                    self.log.say("nothing that has served is kept any more: what is on disk is started");
                }
                self.from_disk(generation, &path)
            }
        }
    }

    /// A first start uses what is on disk, unless that has failed before.
    fn first(&mut self, generation: Generation, path: &Path) -> Result<Reading, String> {
        let reading = match (self.read)(Some(path)) {
            Ok(reading) => reading,
            Err(reason) => match self.proven() {
                Some(snapshot) => {
                    self.fallback = Some(reason);
                    return self.from_kept(generation, path, snapshot);
                }
                None => return Err(reason),
            },
        };
        let failed = self.stored.failed();
        let failed = failed.iter().find(|one| one.fingerprint == reading.made.fingerprint);
        if falls_back(&reading.service)
            && let Some(failed) = failed
            && let Some(snapshot) = self.proven()
            && snapshot.made.fingerprint != reading.made.fingerprint
        {
            self.fallback = Some(format!("what is on disk has failed before: {}", failed.reason));
            return self.from_kept(generation, path, snapshot);
        }
        self.is_from_disk(generation, &reading.made);
        Ok(reading)
    }

    fn from_disk(&mut self, generation: Generation, path: &Path) -> Result<Reading, String> {
        let reading = (self.read)(Some(path))?;
        self.is_from_disk(generation, &reading.made);
        Ok(reading)
    }

    fn is_from_disk(&mut self, generation: Generation, made: &Made) {
        self.fallback = None;
        self.remember(generation, Origins { made: made.clone(), from_disk: true });
    }

    fn remember(&mut self, generation: Generation, origins: Origins) {
        self.made.insert(generation, origins);
        while self.made.len() > REMEMBERED {
            self.made.pop_first();
        }
    }

    /// Starts what was kept: it becomes this generation's snapshot, too.
    fn from_kept(
        &mut self,
        generation: Generation,
        path: &Path,
        snapshot: Snapshot,
    ) -> Result<Reading, String> {
        take::write(&snapshot, path)?;
        let Snapshot { made, service, .. } = snapshot;
        let why = self.fallback.get_or_insert_with(|| "the last start failed".to_owned()).clone();
        self.log.say(&format!(
            "FALLBACK: {generation} is started from what has served, {}, and not from what is on disk: {why}; \
             `runsmith upgrade {}` tries what is on disk",
            made.release, self.service.application
        ));
        self.remember(generation, Origins { made: made.clone(), from_disk: false });
        Ok(Reading { service, made })
    }

    /// What was proven last, if its release is still there.
    fn proven(&mut self) -> Option<Snapshot> {
        match self.stored.proven(&self.service.application) {
            Ok(snapshot) => self.with_release(snapshot?),
            Err(reason) => {
                let path = self.stored.file(stored::PROVEN);
                self.log.say(&format!("{} is not used: {reason}", path.display()));
                None
            }
        }
    }

    /// What served before. `sound`: only if that is not recorded as failed.
    fn before(&mut self, sound: bool) -> Option<Snapshot> {
        let text = stored::read_file(&self.place.file(BEFORE)).ok()?;
        let snapshot = Snapshot::read(&text, &self.service.application).ok()?;
        let has_failed = sound
            && self.stored.failed().iter().any(|failed| failed.fingerprint == snapshot.made.fingerprint);
        if has_failed { None } else { self.with_release(snapshot) }
    }

    fn with_release(&mut self, snapshot: Snapshot) -> Option<Snapshot> {
        let release = &snapshot.made.release;
        // The path was taken without links. Whether the user can enter it is found when it is entered.
        if fs::symlink_metadata(release).is_ok_and(|found| found.is_dir()) {
            return Some(snapshot);
        }
        self.log.say(&format!("the release {release}, which has served, is not there any more"));
        None
    }

    /// It has served for `min_uptime`.
    pub(super) fn prove(&mut self, generation: Generation) {
        let Some(origins) = self.made.get(&generation) else { return };
        if !origins.from_disk {
            return;
        }
        let snapshot = self.place.file(&snapshot_name(generation));
        let fingerprint = origins.made.fingerprint.clone();
        let kept = self.stored.keep_proven(&snapshot).and_then(|()| self.stored.remove_failed(&fingerprint));
        if let Err(error) = kept {
            let path = self.stored.file(stored::PROVEN);
            self.log.say(&format!(
                "{} cannot be written: {error}; after a reboot nothing is known to be good",
                path.display()
            ));
        }
        let _ = fs::remove_file(self.place.file(BEFORE));
    }

    /// What it was started from has failed.
    pub(super) fn condemn(&mut self, generation: Generation, reason: &str) {
        self.fallback = Some(reason.to_owned());
        let Some(origins) = self.made.get(&generation).filter(|origins| origins.from_disk) else { return };
        let failed = Failed {
            fingerprint: origins.made.fingerprint.clone(),
            release: origins.made.release.clone(),
            reason: reason.to_owned(),
            at: clock::wall(),
        };
        if let Err(error) = self.stored.add_failed(failed) {
            let path = self.stored.file(stored::FAILED);
            self.log.say(&format!("{} cannot be written: {error}", path.display()));
        }
    }

    /// Another generation takes over from this one, which is not proven.
    pub(super) fn keep_before(&mut self, generation: Generation) {
        let (from, to) = (self.place.file(&snapshot_name(generation)), self.place.file(BEFORE));
        let _ = fs::remove_file(&to);
        // It is never written to again, so another name for it is enough.
        if let Err(error) = fs::hard_link(&from, &to) {
            self.log.say(&format!("what {generation} was made of cannot be kept: {error}"));
        }
    }

    pub(super) fn forget_snapshot(&mut self, generation: Generation) {
        let _ = fs::remove_file(self.place.file(&snapshot_name(generation)));
        for like in ["gunicorn.py", "unicorn.rb"] {
            let _ = fs::remove_file(self.place.file(&config_name(generation, like)));
        }
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
        let snapshot = stored::read_file(&self.place.file(&snapshot_name(generation)))
            .map_err(|error| format!("what {generation} is made of cannot be read: {error}"))?;
        let snapshot = Snapshot::read(&snapshot, &service.application)?;
        let Some(config) = snapshot.config else { return Ok(None) };
        if stored::read_file(Path::new(path)).is_ok_and(|now| now == config.as_bytes()) {
            return Ok(None);
        }
        let copy = self.place.file(&config_name(generation, path));
        self.place
            .write_for(&copy, config.as_bytes(), identity.gid)
            .map_err(|error| format!("{} cannot be written: {error}", copy.display()))?;
        Ok(Some((path.to_owned(), copy)))
    }
}
