//! What generations are made of, held so that neither a file that is deleted, nor a full disk, nor the end of this run loses it: in
//! memory by this run and by the keeper, and in the run directory.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use super::Shell;
use super::origin::config_name;
use crate::model::input::Fallback;
use crate::model::veil::Veil;
use crate::runtime::event::Generation;
use crate::runtime::linux::stored::{self, Failed};
use crate::runtime::machine::Record;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::state::{Life, State};
use crate::visible::without_numbers;

/// What served before the generation that serves, while that is on probation: a name in the run directory.
const BEFORE: &str = "before.json";

/// What was proven last and cannot be written down: a name that the keeper has it by.
const PROVEN: &str = "proven.json";

/// The secrets of so many generations are remembered. The last words of older ones are not asked for any more.
const REMEMBERED: usize = 16;

/// A file of this kind that an earlier run has left.
pub(super) type Named = (String, File);

/// The name of a generation's snapshot in the run directory.
pub(super) fn snapshot_name(generation: Generation) -> String {
    format!("generation.{}.json", generation.0)
}

/// A file without a name, in memory.
pub(super) fn memory() -> std::io::Result<File> {
    Ok(File::from(memfd_create("snapshot", MemfdFlags::CLOEXEC)?))
}

/// All that is in a file, from its beginning; where others read it from is not changed.
pub(super) fn whole(file: &File) -> std::io::Result<Vec<u8>> {
    let mut text = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// The same file once more.
fn again(file: &File) -> Option<File> {
    file.try_clone().ok()
}

/// A file's text, held in memory.
fn held(path: &Path) -> Option<File> {
    let text = stored::read_file(path).ok()?;
    let mut file = memory().ok()?;
    file.write_all(&text).ok()?;
    Some(file)
}

/// Copies a snapshot to where only root can read it, whole or not at all.
fn copy(file: &File, path: &Path) -> std::io::Result<()> {
    let write = || {
        let _ = fs::remove_file(path);
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        new.write_all(&whole(file)?)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

impl Shell {
    /// Holds a generation's snapshot as long as the generation lives.
    pub(super) fn hold_snapshot(&mut self, generation: Generation, file: File) {
        let _ = fs::remove_file(self.place.file(&snapshot_name(generation)));
        self.know_secrets(generation, &file);
        self.snapshots.insert(generation, file);
        self.write_snapshots();
    }

    /// Remembers what is to be masked in what a generation prints, longer than its snapshot is there.
    fn know_secrets(&mut self, generation: Generation, file: &File) {
        let Some(snapshot) = self.read_held(file) else { return };
        self.secrets.retain(|(one, _)| *one != generation);
        self.secrets.push_back((generation, snapshot.secrets.into_values().collect()));
        while self.secrets.len() > REMEMBERED {
            self.secrets.pop_front();
        }
    }

    /// A text that this generation has printed, with the secrets of all generations masked. Nothing, if it has secrets that are not
    /// known any more.
    pub(super) fn without_secrets(&self, generation: Generation, text: &str) -> String {
        let is_known = self.secrets.iter().any(|(one, _)| *one == generation);
        if !is_known && (!self.service.secrets.is_empty() || !self.secrets.is_empty()) {
            return String::new();
        }
        let secrets = self.secrets.iter().flat_map(|(_, secrets)| secrets);
        Veil::over_what_is_said(secrets).cover(text).into_owned()
    }

    pub(super) fn forget_snapshot(&mut self, generation: Generation) {
        self.snapshots.remove(&generation);
        let _ = fs::remove_file(self.place.file(&snapshot_name(generation)));
        for like in ["gunicorn.py", "unicorn.rb"] {
            let _ = fs::remove_file(self.place.file(&config_name(generation, like)));
        }
    }

    /// Everything of this kind that has a name in the run directory.
    fn named(&self) -> Vec<(String, &File)> {
        let snapshots = self.snapshots.iter().map(|(one, file)| (snapshot_name(*one), file));
        snapshots.chain(self.before.iter().map(|file| (BEFORE.to_owned(), file))).collect()
    }

    /// Those that are not there, or not whole.
    pub(super) fn missing_snapshots(&self) -> Vec<String> {
        let is_there = |name: &str, file: &File| {
            let length = file.metadata().map(|found| found.len()).ok();
            let found = fs::symlink_metadata(self.place.file(name)).ok();
            found.is_some_and(|found| found.is_file() && Some(found.len()) == length)
        };
        let missing = self.named().into_iter().filter(|(name, file)| !is_there(name, file));
        missing.map(|(name, _)| name).collect()
    }

    /// Writes those that are not there; gives the names that are there again.
    pub(super) fn write_snapshots(&mut self) -> Vec<String> {
        let mut written = vec![];
        let mut trouble = None;
        let missing = self.missing_snapshots();
        for (name, file) in self.named().into_iter().filter(|(name, _)| missing.contains(name)) {
            let path = self.place.file(&name);
            match copy(file, &path) {
                Ok(()) => written.push(name),
                Err(error) => {
                    trouble.get_or_insert(format!(
                        "{} cannot be written: {error}; what the generation is made of is held by the runtime and the keeper, and lost \
                         with both of them",
                        path.display()
                    ));
                }
            }
        }
        match trouble {
            Some(trouble) => {
                if self.trouble.snapshots.as_ref() != Some(&trouble) {
                    self.log.say(&trouble);
                }
                self.trouble.snapshots = Some(trouble);
                self.retry_soon();
            }
            None => {
                if self.trouble.snapshots.take().is_some() && !written.is_empty() {
                    let directory = self.place.directory().display();
                    self.log.say(&format!("written again to {directory}: {}", written.join(", ")));
                }
            }
        }
        written
    }

    /// Has the keeper hold what this run holds, if that is not the same already.
    pub(super) fn hand_snapshots(&mut self) -> std::io::Result<()> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let mut files = self.named();
        if self.unkept.is_some() {
            files.extend(self.proven_here.iter().map(|file| (PROVEN.to_owned(), file)));
        }
        let node = |file: &File| file.metadata().map(|found| found.ino()).unwrap_or(0);
        let nodes: Vec<(String, u64)> = files.iter().map(|(name, file)| (name.clone(), node(file))).collect();
        if self.handed == nodes {
            return Ok(());
        }
        let files: Vec<(String, BorrowedFd<'_>)> =
            files.into_iter().map(|(name, file)| (name, file.as_fd())).collect();
        keeper.hold(&files)?;
        self.handed = nodes;
        Ok(())
    }

    /// The text of a generation's snapshot: there are secrets in it.
    pub(super) fn snapshot_text(&self, generation: Generation) -> std::io::Result<Vec<u8>> {
        match self.snapshots.get(&generation) {
            Some(file) => whole(file),
            None => stored::read_file(&self.place.file(&snapshot_name(generation))),
        }
    }

    /// A generation's snapshot.
    pub(super) fn snapshot(&self, generation: Generation) -> Option<Snapshot> {
        Snapshot::read(&self.snapshot_text(generation).ok()?, &self.service.application).ok()
    }

    fn read_held(&self, file: &File) -> Option<Snapshot> {
        Snapshot::read(&whole(file).ok()?, &self.service.application).ok()
    }

    /// What was proven last, as far as this run holds it.
    pub(super) fn proven_here(&self) -> Option<Snapshot> {
        self.read_held(self.proven_here.as_ref()?)
    }

    /// What served before, whatever has become of its release.
    pub(super) fn held_before(&self) -> Option<Snapshot> {
        match &self.before {
            Some(file) => self.read_held(file),
            None => {
                let text = stored::read_file(&self.place.file(BEFORE)).ok()?;
                Snapshot::read(&text, &self.service.application).ok()
            }
        }
    }

    /// Another generation takes over from this one, which is not proven.
    pub(super) fn keep_before(&mut self, generation: Generation) {
        // If the same is deployed twice and fails, what served before both is what to go back to.
        if self.is_followed_by_the_same(generation) && self.held_before().is_some() {
            return;
        }
        let (from, to) = (self.place.file(&snapshot_name(generation)), self.place.file(BEFORE));
        let Some(file) = self.snapshots.get(&generation).and_then(again).or_else(|| held(&from)) else {
            self.log.say(&format!(
                "what {generation} was made of cannot be kept: it is not known any more; if what serves now fails, what served before \
                 both is started"
            ));
            return;
        };
        self.before = Some(file);
        let _ = fs::remove_file(&to);
        // It is never written to again, so another name for it is enough, also on a full disk.
        if fs::hard_link(&from, &to).is_err() {
            self.write_snapshots();
        }
    }

    /// Whether the generation that serves instead of this one was made of the same.
    fn is_followed_by_the_same(&self, generation: Generation) -> bool {
        let fingerprint = |one: Generation| self.made.get(&one).map(|origins| &origins.made.fingerprint);
        let serving = self.machine.serving().map(|serving| serving.generation);
        let follower = serving.filter(|serving| *serving != generation).and_then(fingerprint);
        follower.is_some() && follower == fingerprint(generation)
    }

    /// What served before is not needed any more.
    fn forget_before(&mut self) {
        let _ = fs::remove_file(self.place.file(BEFORE));
        self.before = None;
    }

    /// It has served for `min_uptime`.
    pub(super) fn prove(&mut self, generation: Generation) {
        let Some(origins) = self.made.get(&generation) else { return };
        let fingerprint = origins.made.fingerprint.clone();
        let is_fallback = !origins.from_disk;
        let held = self.snapshots.get(&generation).and_then(again);
        let held = held.or_else(|| self.recover(generation, &fingerprint, vec![]));
        self.trouble.lost = None;
        // A fallback is mostly what was proven last, and that is written down already.
        let is_known = is_fallback
            && self.unkept.is_none()
            && matches!(self.stored.proven(&self.service.application), Ok(Some(one)) if one.made.fingerprint == fingerprint);
        match held {
            // Should what is written down be lost, this run still knows it.
            Some(file) => self.proven_here = Some(file),
            None if is_known => self.proven_here = None,
            // What is known to be good stays what it was.
            None => return self.is_lost(generation),
        }
        if !is_known {
            self.store_proven();
        }
        self.is_good(&fingerprint);
        self.forget_before();
    }

    /// Nobody knows any more what a generation is made of that serves well.
    fn is_lost(&mut self, generation: Generation) {
        if self.service.restart.fallback == Fallback::None {
            return;
        }
        let instead = self.proven_here().or_else(|| self.stored.proven(&self.service.application).ok()?);
        let instead = instead.or_else(|| self.held_before());
        let instead = match instead {
            Some(snapshot) => format!("{}, which was proven before it, is started", snapshot.made.release),
            None => "what is on disk is started".to_owned(),
        };
        let trouble = format!(
            "what {generation} is made of is not known any more: its snapshot was deleted, and what is on disk is something else by now; \
             if it ends, {instead}; `runsmith upgrade {}` starts what is on disk",
            self.reference()
        );
        self.log.say(&trouble);
        self.trouble.lost = Some(trouble);
    }

    /// Writes down what is known to be good, where it outlives a reboot.
    pub(super) fn store_proven(&mut self) {
        let Some(file) = &self.proven_here else { return };
        let Some(snapshot) = self.read_held(file) else { return };
        let path = self.stored.file(stored::PROVEN);
        let text = whole(file).map_err(|error| error.to_string());
        let kept = text.and_then(|text| self.stored.keep_proven(&text).map_err(|error| error.to_string()));
        match kept {
            Ok(()) => {
                if self.unkept.take().is_some() {
                    self.log.say(&format!("{} is written again", path.display()));
                }
            }
            Err(error) => {
                let trouble = format!(
                    "{} cannot be written: {error}; after a reboot it is not known that {} is good",
                    path.display(),
                    snapshot.made.release
                );
                if self.unkept.as_ref() != Some(&trouble) {
                    self.log.say(&format!("{trouble}; it is tried again every 5 seconds"));
                }
                self.unkept = Some(trouble);
                self.retry_soon();
            }
        }
    }

    /// Why what was proven last would not be known after a reboot; none if it would.
    pub(super) fn not_written_down(&self) -> Option<String> {
        let trouble = self.unkept.as_ref().or(self.trouble.lost.as_ref());
        trouble.map(|trouble| without_numbers(trouble).into_owned())
    }

    /// What has failed, the newest first.
    pub(super) fn failed(&self) -> Vec<Failed> {
        let mut failed = self.stored.failed();
        for one in self.unwritten.iter().rev() {
            failed.retain(|other| other.fingerprint != one.fingerprint);
            failed.insert(0, one.clone());
        }
        failed
    }

    /// Remembers that something has failed.
    pub(super) fn add_failed(&mut self, failed: Failed) {
        self.unwritten.retain(|one| one.fingerprint != failed.fingerprint);
        self.unwritten.insert(0, failed);
        self.unwritten.truncate(stored::MOST_FAILED);
        self.store_failed();
    }

    /// Writes that down where it outlives a reboot.
    pub(super) fn store_failed(&mut self) {
        while let Some(oldest) = self.unwritten.last() {
            if let Err(error) = self.stored.add_failed(oldest.clone()) {
                let trouble = format!(
                    "{} cannot be written: {error}; after a reboot it is not known that {} has failed",
                    self.stored.file(stored::FAILED).display(),
                    oldest.release
                );
                if self.trouble.failed.as_ref() != Some(&trouble) {
                    self.log.say(&format!("{trouble}; it is tried again every 5 seconds"));
                }
                self.trouble.failed = Some(trouble);
                return self.retry_soon();
            }
            self.unwritten.pop();
        }
        if self.trouble.failed.take().is_some() {
            let path = self.stored.file(stored::FAILED);
            self.log.say(&format!("{} is written again", path.display()));
        }
    }

    /// It does not count as failed any more.
    fn is_good(&mut self, fingerprint: &str) {
        self.unwritten.retain(|one| one.fingerprint != fingerprint);
        // Where that cannot be written, what is proven cannot be either, and that is reported.
        let _ = self.stored.remove_failed(fingerprint);
        if self.unwritten.is_empty() {
            self.trouble.failed = None;
        }
    }

    /// What a generation is made of, which an earlier run has started: from the keeper, else from its file, else from what is on disk
    /// if that is the same.
    fn recover(&mut self, generation: Generation, fingerprint: &str, given: Vec<File>) -> Option<File> {
        let is_it = |shell: &Self, file: &File| {
            let snapshot = shell.read_held(file);
            // An earlier version did not say what a generation is made of.
            snapshot.is_some_and(|one| fingerprint.is_empty() || one.made.fingerprint == fingerprint)
        };
        let of_file = held(&self.place.file(&snapshot_name(generation)));
        if let Some(file) = given.into_iter().chain(of_file).find(|file| is_it(self, file)) {
            return Some(file);
        }
        if fingerprint.is_empty() {
            return None;
        }
        let file = memory().ok()?;
        (self.read)(Some(&file)).ok()?;
        is_it(self, &file).then_some(file)
    }

    /// Takes over what an earlier run knew of what its generations are made of.
    pub(super) fn take_snapshots(&mut self, given: Vec<Named>, state: Option<&State>) {
        let (mut proven, mut before, mut snapshots) = (None, None, vec![]);
        for (name, file) in given {
            match &*name {
                PROVEN => proven = Some(file),
                BEFORE => before = Some(file),
                _ => snapshots.push((name, file)),
            }
        }
        let Some(state) = state else { return };
        self.before = before.or_else(|| held(&self.place.file(BEFORE)));
        self.proven_here = proven;
        let serving = state.machine.serving.map(|(serving, _)| serving);
        for Life { generation, fingerprint, .. } in &state.generations {
            let name = snapshot_name(*generation);
            let given: Vec<File> =
                snapshots.extract_if(.., |(one, _)| *one == name).map(|(_, file)| file).collect();
            let on_disk = held(&self.place.file(&name));
            if let Some(file) = given.first().or(on_disk.as_ref()) {
                self.know_secrets(*generation, file);
            }
            let is_needed = self.generations.contains_key(generation) || serving == Some(*generation);
            if is_needed && let Some(file) = self.recover(*generation, fingerprint, given) {
                self.know_secrets(*generation, &file);
                self.snapshots.insert(*generation, file);
            }
        }
        self.write_snapshots();
    }

    /// What is known to be good and is not written down, because an earlier run could not, is written down now.
    pub(super) fn adopt_proven(&mut self, record: &Record) {
        let serving = record.serving.filter(|_| record.probation.is_none()).map(|(serving, _)| serving);
        if let Some(file) = serving.and_then(|serving| self.snapshots.get(&serving)).and_then(again) {
            self.proven_here = Some(file);
        }
        let fingerprint = |one: &Snapshot| one.made.fingerprint.clone();
        let stored = self.stored.proven(&self.service.application).ok().flatten();
        let stored = stored.as_ref().map(fingerprint);
        let made = serving.and_then(|serving| self.made.get(&serving)).map(|one| &one.made.fingerprint);
        let made = made.filter(|one| !one.is_empty()).cloned();
        let here = self.proven_here().as_ref().map(fingerprint);
        if let (Some(serving), Some(made)) = (serving, made)
            && here.as_ref() != Some(&made)
        {
            if stored.as_ref() != Some(&made) && self.machine.serving().is_some() {
                self.is_lost(serving);
            }
            return;
        }
        if here.is_some() && here != stored {
            self.store_proven();
        }
    }

    /// A generation that is newer than the record was to serve when the record could not be written any more: what it is made of is newer
    /// than what the record knows to have served.
    pub(super) fn take_stray_snapshot(&mut self, strays: Option<Generation>, last: u32) {
        let newest = strays.filter(|newest| newest.0 > last && self.machine.serving().is_none());
        let file = newest.and_then(|newest| held(&self.place.file(&snapshot_name(newest))));
        let Some(file) = file.filter(|file| self.read_held(file).is_some()) else { return };
        let _ = fs::remove_file(self.place.file(BEFORE));
        self.before = Some(file);
        self.write_snapshots();
    }

    /// What is left of generations that have ended while no runtime was there.
    pub(super) fn forget_dead_snapshots(&mut self) {
        let dead: Vec<_> =
            self.snapshots.keys().filter(|one| !self.generations.contains_key(one)).copied().collect();
        for generation in dead {
            self.forget_snapshot(generation);
        }
    }
}
