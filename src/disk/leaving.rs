//! What is there of what a run would change or take away: the wanted paths, and those that records say
//! an earlier run made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::fs::{Dir, DirEntry};

use super::directory::{Directory, Step};
use super::prune::{OWN, Own};
use super::read::{Found, read, read_for};
use super::run::Run;
use super::units::Units;
use super::{Note, Recording, names, ordered, prune, recorded, supervise};
use crate::failure::Failure;
use crate::record::{self, Leaving, Leftover, MadeKind, Record, Site, led_to, sha256};
use crate::tree::{Entry, Kind, Tree, is_variable};
use crate::visible::visible;

/// What is below `root` that [`apply`](super::apply) with this recording would look at: as [`read`],
/// the links of services that are not enabled, and, with pruning, what would be removed. Notes say
/// what would be left. `adopt` is as in [`Options`](super::Options::adopt).
///
/// # Errors
/// A record that cannot be read.
pub fn read_recorded(
    root: &Path,
    want: &Tree,
    recording: Recording<'_>,
    adopt: bool,
) -> Result<(Found, Vec<Note>), Failure> {
    let mut notes = vec![];
    let entries = ordered(want)?;
    let ids = names::Ids::resolve(&entries);
    let refused = ids.unknown(entries.iter().copied(), root);
    let run = Run::new(ids, None, adopt);
    let old = match root.is_dir() {
        true => recorded::read(&Directory::root(root)?, recording),
        false => Ok((vec![], vec![])),
    };
    let (old, unread) = match old {
        // Records are root's alone, and anybody may compare what he can read.
        Err(failure) if !run.ids.set && !recording.prune => {
            notes.push(Note::Unrecorded(failure.to_string()));
            (vec![], vec![])
        }
        Ok((old, unread)) if !run.ids.set && !recording.prune => {
            let first = unread.into_iter().next();
            notes.extend(first.map(|failed| Note::Unrecorded(failed.failure.to_string())));
            (old, vec![])
        }
        old => old?,
    };
    if notes.is_empty() {
        if root.is_dir() {
            run.journal.read(&Directory::root(root)?, false)?;
        }
        run.learn(&old);
    }
    if !root.is_dir() {
        let mut found = read_for(root, want, None)?;
        found.refused.extend(refused);
        return Ok((found, notes));
    }
    let top = Directory::root(root)?;
    let (new, used) = match notes.is_empty() {
        true => recorded::without_used(&run, &top, recording.records.iter(), &old, want),
        // What records name is not known.
        false => (recording.records.to_vec(), vec![]),
    };
    notes.extend(used);
    let wanted: Vec<Entry> =
        recorded::wanted_by(recording.records, &new, &entries).into_iter().cloned().collect();
    let used = match wanted.len() == entries.len() {
        true => vec![],
        false => {
            let kept: BTreeSet<&str> = wanted.iter().map(|entry| entry.path.as_str()).collect();
            entries
                .iter()
                .map(|entry| &entry.path)
                .filter(|path| !kept.contains(path.as_str()))
                .cloned()
                .collect()
        }
    };
    let reduced = Tree::new(wanted).unwrap_or_default();
    // Without a number for each name nobody can tell which owners differ.
    let mut found = read_for(root, &reduced, Some(&run).filter(|_| refused.is_none()))?;
    found.used = used;
    if !adopt {
        let is_unclaimed = |entry: &&Entry| match &entry.kind {
            Kind::File(content) => {
                !content.is_empty() && !record::is_marked(content) && !run.is_recorded(&top, &entry.path)
            }
            Kind::Directory | Kind::Link(_) => false,
        };
        found.unclaimed =
            found.tree.entries().iter().filter(is_unclaimed).map(|entry| entry.path.clone()).collect();
    }
    found.refused.extend(refused);
    match adopt {
        true => notes.extend(found.foreign.iter().cloned().map(Note::Adopted)),
        false => {
            let mut failed = vec![];
            Units::of(&new).fail_foreign(found.foreign.clone(), &mut failed);
            // Of a service whose record cannot be read nothing is known.
            let is_unread = |service: &String| unread.iter().any(|failed| failed.services.contains(service));
            failed.retain(|failed| !failed.services.iter().all(is_unread));
            found.refused.extend(failed.into_iter().map(|failed| failed.failure));
        }
    }
    found.refused.extend(unread.into_iter().map(|failed| failed.failure));
    found.sites = sites(root, &old, recording.records, &found.tree)?;
    if recording.prune {
        notes.extend(recorded::out_of_reach(&old, &recording));
    }
    let leaving = record::leaving(old, new, want, &|record| recording.goes(record), recording.disabled);
    let values = values_that_stay(root, leaving.leftovers.iter().map(|left| left.made.path.as_str()))?;
    let mut more = vec![];
    let links = recording.disabled.iter().map(|retired| (retired.link.as_str(), retired.directory.as_str()));
    for entry in at(root, links.clone().map(|(path, _)| (path, false)), &mut found)? {
        let leads = |(path, directory)| {
            entry.path == path && matches!(&entry.kind, Kind::Link(target) if target == directory)
        };
        if links.clone().any(leads) {
            more.push(entry);
        }
    }
    if recording.prune {
        let mut leaving = leaving;
        leaving.leftovers.retain(|left| {
            let reason = prune::needed(&top, &left.made, &left.service, recording.records);
            let is_free = reason.is_none();
            notes.extend(reason.map(|reason| Note::Kept(visible(&left.made.path).into_owned(), reason)));
            is_free
        });
        more.extend(pruned(root, &top, &leaving, &mut found)?);
    } else {
        let stays = |left: &&Leftover| !links.clone().any(|(path, _)| path == left.made.path);
        let mut stay = leaving.leftovers.iter().filter(stays);
        if let Some(first) = stay.next() {
            notes.push(Note::NotPruned(stay.count() + 1, visible(&first.made.path).into_owned()));
        }
    }
    more.sort_by(|a: &Entry, b| a.path.cmp(&b.path));
    more.dedup_by(|a, b| a.path == b.path);
    more.extend(found.tree.entries().iter().cloned());
    found.tree = Tree::new(more).unwrap_or(found.tree).hiding(values);
    Ok((found, notes))
}

/// The values of variables that earlier runs have made and nobody wants any more: other files may hold them, too. Whoever cannot read
/// them does not get them.
fn values_that_stay<'a>(root: &Path, paths: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Failure> {
    let variables = paths.filter(|path| is_variable(path)).map(|path| (path, false));
    let mut there = at(root, variables, &mut Found::default())?;
    there.iter_mut().for_each(|entry| entry.secret = true);
    Ok(Tree::new(there).unwrap_or_default().secrets().collect())
}

/// Where the services of these records lie; of the links that nobody wants any more, root is asked.
fn sites(root: &Path, old: &[Record], new: &[Record], known: &Tree) -> Result<Vec<Site>, Failure> {
    let links = old
        .iter()
        .flat_map(|record| &record.made)
        .filter(|made| matches!(made.kind, MadeKind::Link { .. }) && known.get(&made.path).is_none());
    let mut others = Found::default();
    let others = at(root, links.map(|made| (made.path.as_str(), false)), &mut others)?;
    let leads = |path: &str, directory: &str| {
        let entry = known.get(path).or_else(|| others.iter().find(|entry| entry.path == path));
        matches!(entry.map(|entry| &entry.kind), Some(Kind::Link(to)) if led_to(path, to) == directory)
    };
    Ok(record::sites(old, new, leads))
}

/// What is at these paths, each a directory or not; what cannot be read is added to `found`.
fn at<'a>(
    root: &Path,
    paths: impl Iterator<Item = (&'a str, bool)>,
    found: &mut Found,
) -> Result<Vec<Entry>, Failure> {
    let entries = paths.map(|(path, directory)| Entry {
        path: path.to_owned(),
        kind: if directory { Kind::Directory } else { Kind::Link(String::new()) },
        mode: 0o777,
        owner: "root".into(),
        group: "root".into(),
        secret: false,
    });
    let paths = Tree::new(entries.collect()).unwrap_or_default();
    let more = read(root, &paths)?;
    found.unreadable.extend(more.unreadable);
    found.unknown.extend(more.unknown);
    Ok(more.tree.entries().to_vec())
}

/// What is as an earlier run made it, and directories that hold nothing else.
fn pruned(root: &Path, top: &Directory, leaving: &Leaving, found: &mut Found) -> Result<Vec<Entry>, Failure> {
    let made: BTreeMap<&str, &MadeKind> =
        leaving.leftovers.iter().map(|left| (left.made.path.as_str(), &left.made.kind)).collect();
    let paths = made.iter().map(|(path, kind)| (*path, matches!(kind, MadeKind::Directory { .. })));
    let there = at(root, paths, found)?;
    let mut gone: Vec<Entry> = vec![];
    let mut directories = vec![];
    for entry in there {
        match (&entry.kind, made.get(entry.path.as_str())) {
            (Kind::File(bytes), Some(MadeKind::File { sha256: digest })) if sha256(bytes) == *digest => {
                gone.push(entry);
            }
            (Kind::Link(target), Some(MadeKind::Link { target: was })) if target == was => gone.push(entry),
            (Kind::Directory, Some(MadeKind::Directory { .. })) => directories.push(entry),
            _ => {}
        }
    }
    // The deepest first: whether one goes depends on those in it.
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.path.matches('/').count()));
    let mut paths: BTreeSet<String> = gone.iter().map(|entry| entry.path.clone()).collect();
    for entry in directories {
        if is_left_empty(top, &entry.path, &paths) {
            paths.insert(entry.path.clone());
            gone.push(entry);
        }
    }
    Ok(gone)
}

/// Would a directory be empty without these paths and what the processes of a service made? One that cannot be looked at would
/// stay: whoever can rename it must not end the whole run.
fn is_left_empty(root: &Directory, path: &str, gone: &BTreeSet<String>) -> bool {
    let Ok(Some((parent, name))) = supervise::parent_of(root, path) else { return false };
    let Ok(Step::Directory(dir)) = parent.step(name) else { return false };
    names_in(&dir).all(|name| {
        let Some(name) = name else { return false };
        let own = OWN.iter().find(|own| own.name == name);
        gone.contains(&format!("{path}/{name}")) || own.is_some_and(|own| holds_nothing_else(&dir, own))
    })
}

/// Is this directory one that a run removes, or is something of somebody else in it?
fn holds_nothing_else(service: &Directory, own: &Own) -> bool {
    let Ok(Step::Directory(dir)) = service.step(own.name) else { return false };
    names_in(&dir).all(|name| name.is_some_and(|name| own.files.contains(&name.as_str())))
}

/// What is in a directory, as far as it is asked for: there may be millions of names. Nothing in the place of a name that
/// cannot be read.
fn names_in(dir: &Directory) -> impl Iterator<Item = Option<String>> {
    let (entries, unread) = match Dir::read_from(dir.fd()) {
        Ok(entries) => (Some(entries), None),
        Err(_) => (None, Some(None)),
    };
    let name = |entry: rustix::io::Result<DirEntry>| Some(entry.ok()?.file_name().to_str().ok()?.to_owned());
    let names = entries.into_iter().flatten().map(name);
    names.filter(|name| !matches!(name.as_deref(), Some("." | ".."))).chain(unread)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_not_left_empty() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        // Where anybody can rename things: its links are not followed.
        fs::create_dir_all(at("open/full")).unwrap();
        fs::create_dir(at("open/empty")).unwrap();
        fs::write(at("open/full/file"), "").unwrap();
        symlink("empty", at("open/link")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let root = Directory::root(scratch.path()).unwrap();
        let is_left_empty = |path: &str, gone: &[&str]| {
            super::is_left_empty(&root, path, &gone.iter().map(|path| (*path).to_owned()).collect())
        };
        assert!(!is_left_empty("/open/link", &[]) && !is_left_empty("/open/link/x", &[]));
        assert!(is_left_empty("/open/empty", &[]) && !is_left_empty("/open/missing", &[]));
        assert!(!is_left_empty("/open/full", &[]) && is_left_empty("/open/full", &["/open/full/file"]));
    }
}
