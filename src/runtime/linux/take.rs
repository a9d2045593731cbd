//! Takes a snapshot of what is on disk, in a process of its own.
//!
//! What the application's user controls, such as the link `current`, is resolved as that user: root would be led to places
//! that only root may see. No magic link is followed (`host::look`), and where a file system of that user's makes it wait
//! all the same, the process has a time limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::{FileType, fstat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::launch;
use crate::host::{self, Identity, look};
use crate::model::Service;
use crate::runtime::snapshot::{Parts, Snapshot};

/// A server's configuration is never longer, in bytes; what `render` writes is a few kilobytes.
const LONGEST_CONFIG: u64 = 4 << 20;

/// What a service is made of now. The error is a sentence.
pub fn take(service: Service) -> Result<Snapshot, String> {
    let identity = host::identity_of(&service)?;
    let current = service.current();
    let release = resolve(&current, &identity).map_err(|error| {
        format!("the user {} cannot enter {current}: {error}; does it lead to a release?", service.user)
    })?;
    // Whether the user has it is found when the command is looked for.
    let virtualenv = service.virtualenv.as_ref().map(|venv| resolve(venv, &identity).unwrap_or(venv.clone()));
    let directory = format!("{}/env", service.service.directory);
    let mut secrets = BTreeMap::new();
    for name in &service.secrets {
        secrets.insert(name.clone(), launch::secret(&directory, name)?);
    }
    let config = match service.config_file() {
        Some(path) => Some(read_config(path, &identity)?),
        None => None,
    };
    Ok(Snapshot::new(Parts { service, release, virtualenv, secrets, config }))
}

/// Writes a snapshot into a file that nothing is in yet.
pub fn write(snapshot: &Snapshot, mut file: &File) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("what it is made of cannot be written down: {error}");
    let text = serde_json::to_vec(snapshot).map_err(|error| failed(error.into()))?;
    file.write_all(&text).map_err(failed)
}

/// Reads the server's configuration. The application's user can put a link in its place, or in the place of a directory above it, so
/// it is opened as that user, as the server itself will open it.
fn read_config(path: &str, identity: &Identity) -> Result<String, String> {
    let failed = |error: std::io::Error| {
        format!(
            "the configuration {path} cannot be read as the application's user: {error}; render the service again"
        )
    };
    let opened = as_user(identity, || look::readable(path)).and_then(|opened| Ok(opened?));
    let file = File::from(opened.map_err(failed)?);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = vec![];
    file.take(LONGEST_CONFIG).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a path leads to, as the application's user sees it.
fn resolve(path: &str, identity: &Identity) -> std::io::Result<String> {
    let place = as_user(identity, || look::place(path))??;
    let real = look::name_of(&place)?;
    as_user(identity, || {
        let found = fstat(&place)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory));
        }
        // It may have been removed or renamed meanwhile.
        if look::leads_to(&real, &place) { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    })??;
    real.into_os_string().into_string().map_err(|_| std::io::Error::other("its name is not UTF-8"))
}

/// Does something with the rights of the application's user. The saved user stays root, so nobody else may signal or trace
/// this process meanwhile (kill(2), ptrace(2)).
fn as_user<T>(identity: &Identity, act: impl FnOnce() -> T) -> std::io::Result<T> {
    if !identity.switch {
        return Ok(act());
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (root, uid, gid) = (Uid::ROOT, Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
    set_thread_res_uid(root, uid, root)?;
    let result = act();
    set_thread_res_uid(root, root, root)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_groups(&[])?;
    Ok(result)
}
