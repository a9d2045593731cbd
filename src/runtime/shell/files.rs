//! The files of the run directory: what was deleted there is made again.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};

use super::Shell;
use super::act::probe_name;
use crate::runtime::event::Generation;
use crate::runtime::linux::keepers::DOOR;
use crate::runtime::linux::keeping::Keeping;
use crate::runtime::linux::place::{DIRECTORY, KEEPER, STATE};
use crate::runtime::linux::watch::Watch;

/// The files that must be what this run has made: who has one open and deletes it leaves nobody able to come in.
pub(super) type Nodes = std::collections::BTreeMap<&'static str, (u64, u64)>;

impl Shell {
    /// Remembers what a file is that was just made.
    pub(super) fn know_file(&mut self, name: &'static str) {
        if let Some(node) = self.place.node(name) {
            self.nodes.insert(name, node);
        }
    }

    /// Somebody has deleted or replaced something in the run directory.
    pub(super) fn files_changed(&mut self) {
        if let Some(watch) = &self.watch {
            watch.take();
        }
        self.restore_files();
        self.look_at_sockets();
    }

    /// Makes again what is not there any more. Where nothing is missing, that is a look at each name.
    pub(super) fn restore_files(&mut self) {
        self.restore_secret_files();
        let missing: Vec<&'static str> = self
            .nodes
            .iter()
            .filter(|(name, node)| self.place.node(name) != Some(**node))
            .map(|(name, _)| *name)
            .collect();
        let has_lock = self.place.has_lock();
        // What could not be written is tried again in a while, and not whenever something happens here: that may be our own trying.
        let has_snapshots = self.trouble.snapshots.is_some() || self.missing_snapshots().is_empty();
        if missing.is_empty() && has_lock && has_snapshots {
            self.trouble.files = None;
            return;
        }
        // Nothing is made in a directory that others could change.
        let restored = self.place.restore();
        let mut trouble = None;
        let missing = match restored {
            Ok(()) => missing,
            Err(reason) => {
                trouble = Some(reason);
                vec![]
            }
        };
        if missing.contains(&DIRECTORY) {
            self.watch = None;
            self.watch_files();
        }
        let mut names: Vec<String> = vec![];
        if !has_lock && self.place.has_lock() {
            names.push("lock".to_owned());
        }
        for name in missing {
            match self.make_again(name) {
                Ok(()) => self.know_file(name),
                Err(error) => trouble = Some(format!("{name}: {error}")),
            }
            // What fails with keeper and state is said where it fails.
            let is_there = self.nodes.get(name).copied() == self.place.node(name);
            names.extend((is_there && name != DIRECTORY).then(|| name.to_owned()));
        }
        if !has_snapshots && trouble.is_none() {
            names.extend(self.write_snapshots());
        }
        let directory = &self.service.layout.run;
        if !names.is_empty() {
            self.log.say(&format!("deleted from {directory} and made again: {}", names.join(", ")));
        }
        match trouble {
            None => self.trouble.files = None,
            Some(reason) => {
                let trouble = format!("what was deleted from {directory} cannot be made again: {reason}");
                if self.trouble.files.as_ref() != Some(&trouble) {
                    self.log.say(&trouble);
                }
                self.trouble.files = Some(trouble);
                self.retry_soon();
            }
        }
    }

    fn make_again(&mut self, name: &str) -> std::io::Result<()> {
        match name {
            "control" => self.control.open_again(&self.place),
            "ready" => self.inbox.open_again(&self.place),
            KEEPER => {
                let keeper = self.keeper.as_ref().map(Keeping::identity);
                keeper.map_or(Ok(()), |keeper| self.place.keep_keeper(keeper, &self.boot))
            }
            DOOR => {
                self.remember_dropped();
                self.start_keeper(vec![]);
                Ok(())
            }
            STATE => {
                self.write_state();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// From now on the kernel reports what is deleted.
    pub(super) fn watch_files(&mut self) {
        self.begin_watch();
        self.know_file(DIRECTORY);
    }

    /// One instance is for everything that is watched.
    pub(super) fn begin_watch(&mut self) {
        self.forget_watched();
        match Watch::begin(self.place.directory()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => self.log.say(&format!(
                "files that are deleted from {} are made again only when something else happens: inotify: {error} (fs.inotify.max_user_instances may be too low)",
                self.service.layout.run
            )),
        }
        self.watch_sockets();
    }

    /// Holds on to a generation's private socket, so that it is reached whatever becomes of its name.
    pub(super) fn hold_probe(&mut self, generation: Generation) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held: Option<OwnedFd> = open(self.place.file(&probe_name(generation)), flags, Mode::empty()).ok();
        if let Some(held) = held {
            self.probes.insert(generation, held);
        }
    }

    /// Where a generation's private socket is reached.
    pub(super) fn probe_path(&self, generation: Generation) -> PathBuf {
        match self.probes.get(&generation) {
            // The descriptor's own name leads to the socket also once its file was deleted.
            Some(held) => PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())),
            None => self.place.file(&probe_name(generation)),
        }
    }
}
