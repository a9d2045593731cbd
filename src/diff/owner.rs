//! Which service a path belongs to.

use std::collections::HashMap;

use super::Side;
use super::script::Script;
use crate::record::is_marked;
use crate::services::{Known, Services};
use crate::tree::{Kind, Tree};

/// Who owns what, on both sides.
pub(super) struct Owners<'a> {
    old: Option<&'a Services>,
    new: Option<&'a Services>,
    /// Directories and links, and the name of the service that each belongs to: for what only lies on a disk.
    places: HashMap<String, String>,
    /// The service directories of services that only lie on a disk.
    directories: HashMap<String, String>,
    /// Every path that was made for a service, by what is written down.
    recorded: HashMap<&'a str, &'a str>,
}

impl<'a> Owners<'a> {
    /// `goes`: something is to be removed, and it has to be found out of which service.
    pub(super) fn of(old: Side<'a>, new: Side<'a>, goes: bool) -> Self {
        let mut owners = Self {
            old: old.host,
            new: new.host,
            places: HashMap::new(),
            directories: HashMap::new(),
            recorded: HashMap::new(),
        };
        for site in old.sites.iter().filter(|_| goes) {
            owners.recorded.extend(site.paths.iter().map(|path| (path.as_str(), site.service.as_str())));
        }
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
        self.place(&service.service.directory, name);
    }

    fn place(&mut self, path: &str, name: &str) {
        if !self.places.contains_key(path) {
            self.places.insert(path.to_owned(), name.to_owned());
        }
    }

    /// The services of a tree that was read from a disk: each run script of ours says where its files are.
    fn find(&mut self, tree: &Tree) {
        for entry in tree.entries() {
            let Some(directory) = entry.path.strip_suffix("/run") else { continue };
            let Kind::File(bytes) = &entry.kind else { continue };
            if directory.ends_with("/log") || self.places.contains_key(directory) || !is_marked(bytes) {
                continue;
            }
            let recorded = self.recorded.get(entry.path.as_str()).map(|name| (*name).to_owned());
            let name =
                recorded.unwrap_or_else(|| directory.rsplit('/').next().unwrap_or_default().to_owned());
            let script = Script::read(&String::from_utf8_lossy(bytes));
            self.place(directory, &name);
            self.directories.entry(name.clone()).or_insert_with(|| directory.to_owned());
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
        let recorded = || self.recorded.get(path).map(|name| (*name).to_owned());
        name(self.new, new).or_else(|| name(self.old, old)).or_else(recorded).or_else(|| {
            let mut path = path;
            loop {
                if let Some(name) = self.places.get(path) {
                    return Some(name.clone());
                }
                path = path.rsplit_once('/')?.0;
            }
        })
    }

    /// The service directory of a service that only lies on a disk.
    pub(super) fn directory_of(&self, name: Option<&str>) -> Option<String> {
        self.directories.get(name?).cloned()
    }
}
