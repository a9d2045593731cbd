//! What is on disk and newer than the generation that serves: what an upgrade would take up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::target::Target;
use crate::host::{self, look};
use crate::model::Service;
use crate::runtime::linux::launch::secret;
use crate::runtime::linux::place::Place;
use crate::runtime::linux::stored::{read_file, read_unlinked};
use crate::runtime::linux::{clock, process};
use crate::runtime::protocol::Status;
use crate::runtime::snapshot::{Snapshot, hexadecimal};

/// Files of the service that were changed after the serving generation was started, and `current` if it leads elsewhere
/// since. A file counts by its ctime, which a rename into place sets; one that is changed while a generation starts counts
/// too: nobody knows which version that one has read.
pub(super) fn than(status: &Status, target: &Target) -> Vec<String> {
    let Some(serving) = &status.serving else { return vec![] };
    let (mut newer, compared) = different(status, target);
    if let Some(start) = serving.master.and_then(process::stat) {
        let started = clock::wall_of(start.start);
        for path in files(target).into_iter().filter(|path| !compared.contains(path)) {
            // What is no longer there was taken away: its directory tells of that.
            if look::at(&path).is_ok_and(|found| changed(&found) > started) {
                newer.push(path.display().to_string());
            }
        }
    }
    if !serving.release.is_empty() && leads_elsewhere(target, &serving.release) {
        newer.push(format!("{}/current", target.root));
    }
    newer.sort();
    newer.dedup();
    newer
}

/// What differs from what the serving generation is made of, however old it is: a start that nobody asked for uses what served.
/// Only root may read what a generation is made of; others get nothing. Also the files that were compared: their times mean
/// nothing after that, and change with `chmod` and `mv`, too.
fn different(status: &Status, target: &Target) -> (Vec<String>, Vec<PathBuf>) {
    let nothing = (vec![], vec![]);
    let (Some(serving), Some(service)) = (&status.serving, &target.service) else { return nothing };
    let Some(place) = Place::existing(&target.run) else { return nothing };
    let text = read_file(&place.file(&format!("generation.{}.json", serving.generation)));
    let Some(snapshot) = text.ok().and_then(|text| Snapshot::read(&text, &service.application).ok()) else {
        return nothing;
    };
    let mut different = vec![];
    let mut compared = vec![target.directory.join("run"), target.directory.join("env")];
    if snapshot.service != **service {
        different.push(target.directory.join("run").display().to_string());
    }
    let environment = target.directory.join("env");
    for name in &service.secrets {
        let path = environment.join(name);
        let now = secret(&environment.display().to_string(), name).ok();
        // One that is new shows in the run script, too.
        let Some(served) = snapshot.secrets.get(name) else { continue };
        if now.as_ref() != Some(served) {
            different.push(path.display().to_string());
        }
        compared.push(path);
    }
    if let (Some(path), Some(served)) = (service.config_file(), &snapshot.config) {
        if !holds(service, path, served.as_bytes()).unwrap_or(true) {
            different.push(path.to_owned());
        }
        compared.push(path.into());
    }
    (different, compared)
}

/// Whether a file has this content; nothing if that is not known. The application's user can put links in the place of the
/// directories above it: root follows none of them, and where there are some it is read as that user.
fn holds(service: &Service, path: &str, content: &[u8]) -> Option<bool> {
    match read_unlinked(path) {
        Ok(found) => Some(found == content),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NOSYS)) => {
            let identity = host::identity_of(service).ok()?;
            let found = host::digest(&identity, path, RESOLVED).ok()?;
            Some(found == Some(hexadecimal(&Sha256::digest(content))))
        }
        Err(_) => Some(false),
    }
}

/// How long a program of the system may take to find out where `current` leads, besides the helper that runs it; if it takes longer, it is not
/// known, and not reported as newer.
const RESOLVED: Duration = Duration::from_secs(5);

/// Whether `current` leads to another release, as the application's user sees it, whose link it is.
fn leads_elsewhere(target: &Target, release: &str) -> bool {
    if link_text(target).is_some_and(|to| to == Path::new(release)) {
        return false;
    }
    let Some(service) = &target.service else { return false };
    let Ok(identity) = host::identity_of(service) else { return false };
    let leads = host::real_path(&identity, &format!("{}/current", target.root), RESOLVED);
    leads.is_some_and(|leads| leads != release)
}

/// What the link says, as an absolute path: mostly this is the release, and nothing has to be followed.
fn link_text(target: &Target) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat2(CWD, &target.root, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok()?;
    let text = readlinkat(root, "current", vec![]).ok()?;
    Some(Path::new(&target.root).join(text.to_str().ok()?))
}

/// All that a new generation reads.
fn files(target: &Target) -> Vec<PathBuf> {
    let environment = target.directory.join("env");
    let mut files = vec![target.directory.join("run")];
    // A variable that has gone shows in the directory only.
    files.push(environment.clone());
    files.extend(std::fs::read_dir(environment).into_iter().flatten().flatten().map(|entry| entry.path()));
    files.extend(target.configuration.iter().cloned());
    files.sort();
    files
}

fn changed(found: &Stat) -> i128 {
    i128::from(found.st_ctime) * 1_000_000_000 + i128::from(found.st_ctime_nsec)
}
