//! What is on disk and newer than the generation that serves: what an upgrade would take up.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::target::Target;
use crate::runtime::linux::{clock, process};
use crate::runtime::protocol::Status;

/// Files of the service that were changed after the serving generation was started, and `current` if it leads elsewhere
/// since. A file counts by its ctime, which a rename into place sets; one that is changed while a generation starts counts
/// too: nobody knows which version that one has read.
pub(super) fn than(status: &Status, target: &Target) -> Vec<String> {
    let Some(serving) = &status.serving else { return vec![] };
    let mut newer = vec![];
    if let Some(start) = serving.master.and_then(process::stat) {
        let started = clock::wall_of(start.start);
        for path in files(target) {
            // What is no longer there was taken away: its directory tells of that.
            if std::fs::symlink_metadata(&path).is_ok_and(|found| changed(&found) > started) {
                newer.push(path.display().to_string());
            }
        }
    }
    let current = Path::new(&target.root).join("current");
    let leads = std::fs::canonicalize(&current);
    if !serving.release.is_empty() && leads.is_ok_and(|leads| leads != Path::new(&serving.release)) {
        newer.push(current.display().to_string());
    }
    newer
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

fn changed(found: &std::fs::Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}
