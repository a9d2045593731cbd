//! What runsmith made for a service, written down on the host: so that a later run can tell what an
//! earlier one left from what somebody else put there.
//!
//! A record is a file of its own for each service, `/var/lib/runsmith/services/NAME` below ROOT, which
//! only root can read (it has digests of secrets). It is on disk before what it speaks of: a run
//! that is killed leaves nothing that no record knows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::steps::{is_below, is_within};
use crate::tree::{Entry, Kind, Tree};

/// Where records are, below ROOT.
pub const DIRECTORY: &str = "/var/lib/runsmith/services";

/// What a run that is killed is known by: see `disk::journal`.
pub const JOURNAL: &str = "/var/lib/runsmith/journal";

/// The directory of all that runsmith keeps on a host.
pub const OWN: &str = "/var/lib/runsmith";

/// Whether `path` is a record, or a directory that is there for records' sake unless `tree` has it too.
pub fn is_bookkeeping(path: &str, tree: &Tree) -> bool {
    let journal = path == JOURNAL || path.strip_prefix(JOURNAL) == Some(".new");
    (journal || is_within(path, DIRECTORY) || is_below(DIRECTORY, path))
        && tree.get(path).is_none()
        && !tree.leads_to(path)
}

/// What every rendered file begins with, so that a later run knows its own.
pub const MARKER: &str = "Managed by runsmith";

/// Whether a file says of itself that runsmith made it: its first lines do.
pub fn is_marked(content: &[u8]) -> bool {
    let head = content.get(..HEAD).unwrap_or(content);
    head.windows(MARKER.len()).any(|piece| piece == MARKER.as_bytes())
}

/// So many bytes of a file are its first lines.
pub const HEAD: usize = 1024;

/// The set of services that an earlier version made without `--set`: which pillar had them is not known.
pub const UNKNOWN_SET: &str = "default";

/// The set of services whose pillar has no name that a later run could know again: standard input, a pipe.
/// No service is ever taken away because of it.
pub const UNNAMED_SET: &str = "-";

/// The version of what is written; a reader refuses others.
const VERSION: u32 = 1;

/// What was made for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The name of the service.
    pub service: String,
    /// The runs it belongs to, `--set NAME` or the absolute path of the pillar that was given: `--prune` takes
    /// away whole services of its own set only.
    pub set: String,
    /// The service directory.
    pub directory: String,
    /// Seconds that `sv` may take to stop it.
    pub wait: u64,
    /// What was made, in the order of the paths.
    pub made: Vec<Made>,
    /// Directories that the service only uses. One that is there before a record names it stays as it is, and
    /// is not recorded.
    #[serde(skip)]
    pub used: Vec<String>,
    /// The run directory, in which root writes down what the living generations were started with.
    #[serde(skip)]
    pub run: String,
}

/// A path that was made, and how to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// As [`Entry::path`] has it.
    pub path: String,
    /// What it was.
    #[serde(flatten)]
    pub kind: MadeKind,
}

/// What was made at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MadeKind {
    /// A directory.
    Directory {
        /// Whom it was given to, by name.
        #[serde(default)]
        owner: String,
    },
    /// A file with this content.
    File {
        /// As `sha256sum` prints it.
        sha256: String,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
}

impl From<&Entry> for Made {
    fn from(entry: &Entry) -> Self {
        let kind = match &entry.kind {
            Kind::Directory => MadeKind::Directory { owner: entry.owner.to_string() },
            Kind::File(content) => MadeKind::File { sha256: sha256(content) },
            Kind::Link(target) => MadeKind::Link { target: target.clone() },
        };
        Self { path: entry.path.clone(), kind }
    }
}

/// The digest of a file's content, as `sha256sum` prints it.
pub fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let mut text = String::with_capacity(64);
    for byte in digest {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

impl Record {
    /// What is to be made for a service: `entries` are its own, in the order of their paths.
    pub fn new(service: &str, set: &str, directory: &str, wait: u64, entries: &[Entry]) -> Self {
        Self {
            version: VERSION,
            service: service.to_owned(),
            set: set.to_owned(),
            directory: directory.to_owned(),
            wait,
            made: entries.iter().map(Made::from).collect(),
            used: vec![],
            run: String::new(),
        }
    }

    /// The same, with the directories that the service only uses: see [`used`](Self::used).
    pub fn using(self, used: Vec<String>) -> Self {
        Self { used, ..self }
    }

    /// The same, with the run directory: see [`run`](Self::run).
    pub fn running_in(self, run: &str) -> Self {
        Self { run: run.to_owned(), ..self }
    }

    /// Reads what [`text`](Self::text) wrote. The error is a reason, for a sentence with the path in it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not a record of runsmith ({error})"))?;
        if record.version != VERSION {
            return Err(format!("it has version {}, this is for version {VERSION}", record.version));
        }
        let plain = |path: &String| {
            path.starts_with('/') && !path.split('/').skip(1).any(|step| matches!(step, "" | "." | ".."))
        };
        let mut paths = record.made.iter().map(|made| &made.path).chain([&record.directory]);
        if let Some(path) = paths.find(|path| !plain(path)) {
            return Err(format!("{path:?} is not the path of anything runsmith makes"));
        }
        drop(paths);
        Ok(record)
    }

    /// As it is written down: JSON, one path a line.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{{\"version\":{},\"service\":{},\"set\":{},\"directory\":{},\"wait\":{},\"made\":[",
            self.version,
            json(&self.service),
            json(&self.set),
            json(&self.directory),
            self.wait
        );
        for (index, made) in self.made.iter().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            text.push_str(&json(made));
        }
        text.push_str("\n]}\n");
        text
    }

    /// The entry that it is written down as.
    pub fn entry(&self) -> Entry {
        Entry {
            path: self.entry_path(),
            kind: Kind::File(self.text().into_bytes()),
            mode: 0o600,
            owner: "root".into(),
            group: "root".into(),
            secret: true,
        }
    }

    /// Where it is written down, below ROOT.
    pub fn entry_path(&self) -> String {
        format!("{DIRECTORY}/{}", self.service)
    }

    /// The link by which runsvdir finds the service directory, if one was made.
    fn link(&self) -> Option<(&str, &str)> {
        self.made.iter().find_map(|made| match &made.kind {
            MadeKind::Link { target } if *target == self.directory => Some((&*made.path, &**target)),
            _ => None,
        })
    }
}

/// Where a service lies, as runit sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub service: String,
    /// The service directory.
    pub directory: String,
    /// The link by which runsvdir finds that; nothing if no link leads there.
    pub link: Option<String>,
    /// Seconds that `sv` may take to stop it.
    pub wait: u64,
    /// Every path that was made for it.
    pub paths: Vec<String>,
}

/// Where the services of the `old` records lie. `leads` says whether what is at a path is a link to a
/// directory. If there are several, that of the `new` record counts, because it stays.
pub fn sites(old: &[Record], new: &[Record], mut leads: impl FnMut(&str, &str) -> bool) -> Vec<Site> {
    let stays: BTreeMap<&str, &str> =
        new.iter().filter_map(|record| Some((record.service.as_str(), record.link()?.0))).collect();
    let mut sites = vec![];
    for record in old {
        let is_link =
            |made: &&Made| matches!(&made.kind, MadeKind::Link { target } if *target == record.directory);
        let mut links: Vec<&str> =
            record.made.iter().filter(is_link).map(|made| made.path.as_str()).collect();
        let stays = stays.get(record.service.as_str());
        links.sort_by_key(|link| Some(link) != stays);
        let link = links.into_iter().find(|link| leads(link, &record.directory));
        sites.push(Site {
            service: record.service.clone(),
            directory: record.directory.clone(),
            link: link.map(str::to_owned),
            wait: record.wait,
            paths: record.made.iter().map(|made| made.path.clone()).collect(),
        });
    }
    sites
}

/// The path that a link leads to, from the path of the link and its target.
pub fn led_to(link: &str, target: &str) -> String {
    let from =
        if target.starts_with('/') { "" } else { link.rsplit_once('/').map_or("", |(above, _)| above) };
    let mut steps: Vec<&str> = vec![];
    for step in from.split('/').chain(target.split('/')) {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

/// What is made of strings and numbers always can be written.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A service that is to be stopped and no longer found by runsvdir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Its name.
    pub service: String,
    /// The service directory that runsv works in.
    pub directory: String,
    /// The link's path. Where it points elsewhere than to `directory`, it is somebody else's.
    pub link: String,
    /// Seconds that `sv` may take to stop it.
    pub wait: u64,
}

/// A path that an earlier run made and nobody wants any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The service it was made for.
    pub service: String,
    /// What was made.
    pub made: Made,
}

/// What earlier runs made, held against what this one wants.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Records to be on disk before anything else: what is wanted, and what is left over.
    pub records: Vec<Record>,
    /// Services that were found by a link which is left over.
    pub retired: Vec<Retired>,
    /// Service directories that are left over as a whole, and the seconds that `sv` may take to stop
    /// what runs there.
    pub directories: Vec<(String, u64)>,
    /// Every path that is left over, in the order of the paths.
    pub leftovers: Vec<Leftover>,
}

/// Holds `old` records against the `new` ones of this run, which wants `tree`. Services that are in
/// `old` and not in `new` are left over as a whole if the run takes them away (`goes`).
/// The links of services that are not enabled are no matter of leftovers: they go in any case.
pub fn leaving(
    old: Vec<Record>,
    new: Vec<Record>,
    tree: &Tree,
    goes: &dyn Fn(&Record) -> bool,
    disabled: &[Retired],
) -> Leaving {
    let mut left = Leaving::default();
    let mut old: BTreeMap<String, Record> =
        old.into_iter().map(|record| (record.service.clone(), record)).collect();
    let mut pairs = vec![];
    for record in new {
        let before = old.remove(&record.service);
        pairs.push((Some(record), before));
    }
    let (gone, others): (Vec<Record>, Vec<Record>) = old.into_values().partition(|record| goes(record));
    // What a service that stays was made with is not left over, whoever else made it too.
    let elsewhere: BTreeSet<&str> =
        others.iter().flat_map(|record| &record.made).map(|made| made.path.as_str()).collect();
    pairs.extend(gone.into_iter().map(|record| (None, Some(record))));
    for (wanted, before) in pairs {
        let kept = |made: &&Made| {
            tree.get(&made.path).is_none()
                && !elsewhere.contains(made.path.as_str())
                && !disabled.iter().any(|retired| retired.link == made.path)
        };
        let over: Vec<Made> = before.iter().flat_map(|record| &record.made).filter(kept).cloned().collect();
        if let Some(before) = &before {
            if let Some((link, _)) = before.link()
                && over.iter().any(|made| made.path == link)
            {
                left.retired.push(Retired {
                    service: before.service.clone(),
                    directory: before.directory.clone(),
                    link: link.to_owned(),
                    wait: before.wait,
                });
            }
            if over.iter().any(|made| made.path == before.directory) {
                left.directories.push((before.directory.clone(), before.wait));
            }
            let leftover = |made: &Made| Leftover { service: before.service.clone(), made: made.clone() };
            left.leftovers.extend(over.iter().map(leftover));
        }
        let Some(mut record) = wanted.or(before.map(|before| Record { made: vec![], ..before })) else {
            continue;
        };
        record.made.extend(over);
        record.made.sort_by(|a, b| a.path.cmp(&b.path));
        record.made.dedup_by(|a, b| a.path == b.path);
        left.records.push(record);
    }
    left.leftovers.sort_by(|a, b| a.made.path.cmp(&b.made.path));
    left.leftovers.dedup_by(|a, b| a.made.path == b.made.path);
    left
}

impl Leaving {
    /// The records of those services that something was left over of, once the leftovers but those
    /// at `kept` paths have gone; none for a service of which nothing is left.
    pub fn after(&self, tree: &Tree, kept: &BTreeSet<&str>) -> Vec<(&str, Option<Record>)> {
        let touched: BTreeSet<&str> = self.leftovers.iter().map(|left| left.service.as_str()).collect();
        let gone: BTreeSet<&str> = self
            .leftovers
            .iter()
            .map(|left| left.made.path.as_str())
            .filter(|path| !kept.contains(path) && tree.get(path).is_none())
            .collect();
        let records = self.records.iter().filter(|record| touched.contains(record.service.as_str()));
        records
            .map(|record| {
                let mut after = record.clone();
                after.made.retain(|made| !gone.contains(made.path.as_str()));
                (record.service.as_str(), Some(after).filter(|after| !after.made.is_empty()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Entry {
        let kind = Kind::File(text.into());
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            owner: "root".into(),
            group: "root".into(),
            secret: false,
        }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { kind: Kind::Link(target.into()), ..file(path, "") }
    }

    fn directory(path: &str) -> Entry {
        Entry { kind: Kind::Directory, ..file(path, "") }
    }

    fn service(name: &str) -> Vec<Entry> {
        let at = format!("/etc/sv/{name}");
        vec![
            link(&format!("/etc/service/{name}"), &at),
            directory(&at),
            file(&format!("{at}/env-\n\"A"), "a"),
            file(&format!("{at}/run"), "run"),
            directory("/srv/shared"),
        ]
    }

    fn record(name: &str, set: &str, entries: &[Entry]) -> Record {
        Record::new(name, set, &format!("/etc/sv/{name}"), 70, entries)
    }

    fn paths(left: &Leaving) -> Vec<&str> {
        left.leftovers.iter().map(|left| left.made.path.as_str()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record("web", "default", &service("web"));
        assert_eq!(Record::read(record.text().as_bytes()), Ok(record.clone()));
        assert!(record.text().contains(&sha256(b"run")));
        assert_eq!(sha256(b"")[..8], *"e3b0c442");
        for (from, to) in [("\"version\":1", "\"version\":2"), ("/etc/sv/web/run", "/etc/../run"), ("{", "")]
        {
            assert!(Record::read(record.text().replacen(from, to, 1).as_bytes()).is_err(), "{from}");
        }
    }

    #[test]
    fn a_service_lies_where_a_link_of_its_record_leads() {
        let mut moved = service("web");
        moved.push(link("/etc/runit/web", "/etc/sv/web"));
        moved.sort_by(|a, b| a.path.cmp(&b.path));
        let old = [record("web", "default", &moved)];
        let new = [record("web", "default", &[link("/etc/service/web", "/etc/sv/web")])];
        let there = |link: &str, directory: &str| directory == "/etc/sv/web" && link != "/etc/none";
        assert_eq!(sites(&old, &[], there)[0].link.as_deref(), Some("/etc/runit/web"));
        assert_eq!(sites(&old, &new, there)[0].link.as_deref(), Some("/etc/service/web"), "it stays");
        let site = &sites(&old, &new, |_, _| false)[0];
        assert_eq!((site.link.as_deref(), &*site.directory, site.wait), (None, "/etc/sv/web", 70));
        assert!(site.paths.contains(&"/srv/shared".to_owned()));
    }

    #[test]
    fn a_link_leads_to_a_normal_path() {
        for (target, path) in [
            ("/etc/sv/web", "/etc/sv/web"),
            ("../sv/web", "/etc/sv/web"),
            ("/etc//sv/./web/", "/etc/sv/web"),
            ("../../../x", "/x"),
            ("", "/etc/service"),
        ] {
            assert_eq!(led_to("/etc/service/web", target), path, "{target}");
        }
    }

    #[test]
    fn the_first_lines_say_who_made_it() {
        assert!(is_marked(b"#!/bin/sh\n# Managed by runsmith from x.\n") && !is_marked(b"#!/bin/sh\n"));
        let late = [&[b'x'; HEAD][..], MARKER.as_bytes()].concat();
        assert!(!is_marked(&late) && !is_marked(b""));
    }

    #[test]
    fn a_file_that_is_not_wanted_any_more_is_left_over() {
        let old = record("web", "default", &service("web"));
        let mut entries = service("web");
        entries.retain(|entry| !entry.path.contains("env-"));
        let new = record("web", "default", &entries);
        let tree = Tree::new(entries).unwrap();
        let left =
            leaving(vec![old.clone()], vec![new.clone()], &tree, &|record| record.set == "default", &[]);
        assert_eq!(paths(&left), ["/etc/sv/web/env-\n\"A"]);
        assert_eq!((&left.retired, &left.directories), (&vec![], &vec![]));
        assert_eq!(left.records, [old]);
        assert_eq!(left.after(&tree, &BTreeSet::new()), [("web", Some(new))]);
    }

    #[test]
    fn a_service_that_has_gone_is_left_over_in_its_own_set_only() {
        let old = || {
            vec![
                record("gone", "default", &service("gone")),
                record("other", "other", &service("other")),
                record("web", "default", &service("web")),
            ]
        };
        let new = record("web", "default", &service("web"));
        let tree = Tree::new(service("web")).unwrap();
        let left = leaving(old(), vec![new.clone()], &tree, &|record| record.set == "default", &[]);
        let expected = ["/etc/service/gone", "/etc/sv/gone", "/etc/sv/gone/env-\n\"A", "/etc/sv/gone/run"];
        assert_eq!(paths(&left), expected);
        assert_eq!(left.directories, [("/etc/sv/gone".to_owned(), 70)]);
        let retired = left.retired.first().unwrap();
        assert_eq!(
            (&*retired.link, &*retired.directory, retired.wait),
            ("/etc/service/gone", "/etc/sv/gone", 70)
        );
        let kept = BTreeSet::from(["/etc/sv/gone/run"]);
        let after = left.after(&tree, &kept);
        let [("gone", Some(record))] = &after[..] else { panic!("{after:?}") };
        assert_eq!(record.made.len(), 1, "only what was changed by hand: {record:?}");
    }

    #[test]
    fn a_service_that_moves_is_retired_where_it_was() {
        let old = record("web", "default", &service("web"));
        let entries = vec![link("/etc/service/web", "/srv/sv/web"), directory("/srv/sv/web")];
        let new = Record::new("web", "default", "/srv/sv/web", 70, &entries);
        let tree = Tree::new(entries).unwrap();
        let left = leaving(vec![old], vec![new], &tree, &|record| record.set == "default", &[]);
        // The link stays, and leads elsewhere: that is a change, which the run itself makes.
        assert_eq!(left.retired, []);
        assert_eq!(left.directories, [("/etc/sv/web".to_owned(), 70)]);
        assert!(paths(&left).contains(&"/etc/sv/web/run"), "{left:?}");
    }
}
