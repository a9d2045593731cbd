//! Secrets that a generation gets as files: made when it is started, of what its snapshot has, and removed when it has gone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Shell;
use crate::host::Identity;
use crate::model::Service;
use crate::model::input::Strategy;
use crate::runtime::event::Generation;
use crate::runtime::linux::secret_files;
use crate::runtime::snapshot::Snapshot;

/// What the directories in the run directory are called; that of a generation has its number, too.
const NAME: &str = "secrets";

/// The generations that have such a directory.
pub(super) type Holders = BTreeSet<Generation>;

impl Shell {
    /// Makes the directory that this generation is to find its secrets in; none if it is to have none. With `usr2` a server
    /// hands its variables on to its successor, so all generations have one directory.
    pub(super) fn give_secret_files(
        &mut self,
        service: &Service,
        identity: &Identity,
        generation: Generation,
    ) -> Result<Option<PathBuf>, String> {
        if service.secret_files.is_empty() {
            return Ok(None);
        }
        let path = if service.handoff.strategy == Strategy::Usr2 {
            self.place.file(NAME)
        } else {
            self.secret_files_of(generation)
        };
        let snapshot = self.snapshot(generation).ok_or("what it is made of is not known")?;
        write(&path, &snapshot, identity)
            .map_err(|error| format!("its secrets cannot be written to {}: {error}", path.display()))?;
        self.secret_files.insert(generation);
        Ok(Some(path))
    }

    fn secret_files_of(&self, generation: Generation) -> PathBuf {
        self.place.file(&format!("{NAME}.{}", generation.0))
    }

    /// A generation has gone.
    pub(super) fn forget_secret_files(&mut self, generation: Generation) {
        self.secret_files.remove(&generation);
        let path = self.secret_files_of(generation);
        if let Err(error) = secret_files::remove(&path) {
            self.log.say(&format!("{} cannot be removed: {error}", path.display()));
        }
    }

    /// What an earlier run has given to generations that live is theirs; what it has given to others is removed.
    pub(super) fn adopt_secret_files(&mut self) {
        let given = secret_files::numbers(self.place.directory(), NAME);
        for generation in given.into_iter().map(Generation) {
            if self.generations.contains_key(&generation) {
                self.secret_files.insert(generation);
            } else {
                self.forget_secret_files(generation);
            }
        }
    }

    /// Makes the directories again that somebody has removed.
    pub(super) fn restore_secret_files(&mut self) {
        let lost: Vec<_> =
            self.secret_files.iter().copied().filter(|one| !self.secret_files_of(*one).is_dir()).collect();
        for generation in lost {
            let Some(identity) = self.generations.get(&generation).map(|live| live.identity.clone()) else {
                continue;
            };
            let Some(snapshot) = self.snapshot(generation) else { continue };
            if snapshot.service.handoff.strategy == Strategy::Usr2 {
                continue;
            }
            let path = self.secret_files_of(generation);
            match write(&path, &snapshot, &identity) {
                Ok(()) => self.log.say(&format!("{} was removed and is made again", path.display())),
                Err(error) => self.log.say(&format!("{} cannot be made again: {error}", path.display())),
            }
        }
    }
}

fn write(path: &std::path::Path, snapshot: &Snapshot, identity: &Identity) -> std::io::Result<()> {
    let names = &snapshot.service.secret_files;
    let secrets = names.iter().filter_map(|name| Some((name.as_str(), snapshot.secrets.get(name)?.as_str())));
    secret_files::write(path, (identity.switch && identity.uid != 0).then_some(identity.uid), secrets)
}
