//! What outlives a reboot: `state` in the service directory, beside runsv's own `supervise`, for root alone.
//!
//! `proven.json` is the [`Snapshot`] of the generation that was proven last; `failed.json` says what has failed. Whatever is
//! damaged, foreign or half-written counts as missing, and never prevents a start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, Serialize};

use super::place;
use crate::runtime::snapshot::Snapshot;

/// The directory's name.
pub const DIRECTORY: &str = "state";

/// The last known good.
pub const PROVEN: &str = "proven.json";

/// What has failed.
pub const FAILED: &str = "failed.json";

/// No file of ours is longer, in bytes.
const LONGEST: u64 = 16 << 20;

/// So many failures are remembered: more releases than anybody keeps on a host.
pub const MOST_FAILED: usize = 16;

/// The format of [`FAILED`].
const FORMAT: u32 = 1;

/// Something that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// [`Made::fingerprint`](crate::runtime::snapshot::Made::fingerprint).
    pub fingerprint: String,
    /// Its release.
    pub release: String,
    /// Why, in one line.
    pub reason: String,
    /// When: seconds since 1970.
    pub at: u64,
}

#[derive(Serialize, Deserialize)]
struct Failures {
    format: u32,
    failed: Vec<Failed>,
}

/// The directory, whether it is there or not.
pub struct Stored {
    directory: PathBuf,
}

impl Stored {
    /// That of a service.
    pub fn of(service_directory: &Path) -> Self {
        // Who may change it is looked up along its whole path.
        let whole = fs::canonicalize(service_directory).unwrap_or_else(|_| service_directory.to_owned());
        Self { directory: whole.join(DIRECTORY) }
    }

    /// Where a file of it is, for messages.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The last known good; none if there is none. The error is the end of a sentence.
    pub fn proven(&self, application: &str) -> Result<Option<Snapshot>, String> {
        match self.read(PROVEN) {
            Ok(None) => Ok(None),
            Ok(Some(text)) => Snapshot::read(&text, application).map(Some),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The last known good, whatever service it says it is.
    pub fn proven_of_anybody(&self) -> Option<Snapshot> {
        let text = self.read(PROVEN).ok().flatten()?;
        let snapshot: Snapshot = serde_json::from_slice(&text).ok()?;
        Snapshot::read(&text, &snapshot.service.application).ok()
    }

    /// Keeps the text of a snapshot as the last known good.
    pub fn keep_proven(&self, snapshot: &[u8]) -> io::Result<()> {
        self.write(PROVEN, snapshot)
    }

    /// What has failed, the newest first.
    pub fn failed(&self) -> Vec<Failed> {
        let text = self.read(FAILED).ok().flatten().unwrap_or_default();
        let failures = serde_json::from_slice::<Failures>(&text).ok();
        failures.filter(|failures| failures.format == FORMAT).map(|one| one.failed).unwrap_or_default()
    }

    /// Writes down that something has failed.
    pub fn add_failed(&self, new: Failed) -> io::Result<()> {
        let mut failed = self.failed();
        failed.retain(|one| one.fingerprint != new.fingerprint);
        failed.insert(0, new);
        failed.truncate(MOST_FAILED);
        self.write_failed(failed)
    }

    /// Something is proven, so it does not count as failed any more.
    pub fn remove_failed(&self, fingerprint: &str) -> io::Result<()> {
        let mut failed = self.failed();
        let before = failed.len();
        failed.retain(|one| one.fingerprint != fingerprint);
        if failed.len() == before { Ok(()) } else { self.write_failed(failed) }
    }

    fn write_failed(&self, failed: Vec<Failed>) -> io::Result<()> {
        self.write(FAILED, &serde_json::to_vec(&Failures { format: FORMAT, failed })?)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if !self.directory.is_dir() {
            return Ok(None);
        }
        place::trusted(&self.directory).map_err(io::Error::other)?;
        match read_file(&self.file(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file whole or not at all; it is on the disk when this returns.
    fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        if !self.directory.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&self.directory)?;
        }
        place::trusted(&self.directory).map_err(io::Error::other)?;
        let new = self.file(&format!("{name}.new"));
        let write = || {
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&new, self.file(name))?;
            File::open(&self.directory)?.sync_all()
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }
}

/// A regular file, whole; nothing else is opened, and nothing that is too long to be ours.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    read_opened(OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

/// A regular file, whole, if no link is on the way to it: what lies below a directory of somebody else's, who could put some there.
/// ELOOP where there is one.
pub fn read_unlinked(path: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    read_opened(file.into())
}

fn read_opened(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = vec![];
    file.take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it is too long"));
    }
    Ok(text)
}
