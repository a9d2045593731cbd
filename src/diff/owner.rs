//! Which service a path belongs to.

use std::collections::HashMap;

use super::Side;
use super::script::Script;
use crate::services::{Known, Services};
use crate::tree::{Kind, Tree};

/// Who owns what, on both sides.
pub(super) struct Owners<'a> {
    old: Option<&'a Services>,
    new: Option<&'a Services>,
    /// Directories and links, and the name of the service that each belongs to: for what only lies on a disk.
    places: HashMap<String, String>,
    /// The service directories of each service.
    directories: HashMap<String, Vec<String>>,
}

impl<'a> Owners<'a> {
    pub(super) fn of(old: Side<'a>, new: Side<'a>) -> Self {
        let mut owners =
            Self { old: old.host, new: new.host, places: HashMap::new(), directories: HashMap::new() };
        for known in [new.host, old.host].into_iter().flatten().flat_map(|host| &host.known) {
            owners.learn(known);
        }
        if old.host.is_none() {
            owners.find(old.tree);
        }
        owners
    }

    fn learn(&mut self, known: &Known) {
        let service = &known.service;
        let name = &service.application;
        let layout = &service.layout;
        let directories = [&layout.releases, &layout.pids, &layout.logs, &layout.sockets, &layout.config];
        let paths = directories.into_iter().map(|directory| &directory.path);
        let own = [&service.service.link, &service.root, &service.log.directory];
        for path in paths.chain(own) {
            self.place(path, name);
        }
        self.directory(&service.service.directory, name);
    }

    fn place(&mut self, path: &str, name: &str) {
        if !self.places.contains_key(path) {
            self.places.insert(path.to_owned(), name.to_owned());
        }
    }

    fn directory(&mut self, path: &str, name: &str) {
        self.place(path, name);
        let known = self.directories.entry(name.to_owned()).or_default();
        if !known.iter().any(|directory| directory == path) {
            known.push(path.to_owned());
        }
    }

    /// The services of a tree that was read from a disk: each run script of ours says where its files are.
    fn find(&mut self, tree: &Tree) {
        for entry in tree.entries() {
            let Some(directory) = entry.path.strip_suffix("/run") else { continue };
            let Kind::File(bytes) = &entry.kind else { continue };
            if directory.ends_with("/log") || self.places.contains_key(directory) || !is_ours(bytes) {
                continue;
            }
            let name = directory.rsplit('/').next().unwrap_or_default().to_owned();
            let script = Script::read(&String::from_utf8_lossy(bytes));
            self.directory(directory, &name);
            for field in ["root", "layout.pids", "layout.sockets", "log.directory", "config", "service.link"]
            {
                if let Some(path) = script.path(field) {
                    self.place(path.strip_suffix("/current").unwrap_or(path), &name);
                }
            }
        }
        for entry in tree.entries() {
            if let Kind::Link(target) = &entry.kind
                && let Some(name) = self.places.get(target).cloned()
            {
                self.place(&entry.path, &name);
            }
        }
    }

    /// The service of an entry, by its indexes in the two trees.
    pub(super) fn of_entry(&self, old: Option<usize>, new: Option<usize>, path: &str) -> Option<String> {
        let name = |host: Option<&Services>, at: Option<usize>| {
            let host = host?;
            let owner = *host.owners.get(at?)?;
            Some(host.known.get(owner)?.service.application.clone())
        };
        name(self.new, new).or_else(|| name(self.old, old)).or_else(|| {
            let mut path = path;
            loop {
                if let Some(name) = self.places.get(path) {
                    return Some(name.clone());
                }
                path = path.rsplit_once('/')?.0;
            }
        })
    }

    /// The service directories that a service has or had.
    pub(super) fn directories(&self, name: Option<&str>) -> Vec<String> {
        name.and_then(|name| self.directories.get(name)).cloned().unwrap_or_default()
    }
}

/// Was it rendered by runsmith? Its first lines say so.
fn is_ours(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(1024)];
    String::from_utf8_lossy(head).contains(crate::plan::MARKER)
}
