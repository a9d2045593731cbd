//! Which service is meant: by its name, as `sv` takes it, or by its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::run;
use crate::failure::Failure;
use crate::model::Service;
use crate::visible::visible;

/// Where runsvdir looks, unless SVDIR says otherwise (sv(8)).
const SERVICES: &str = "/etc/service";

/// Where Debian keeps services that runsvdir may or may not look at.
const ALL: &str = "/etc/sv";

/// A service of this host.
pub(super) struct Target {
    /// Its name.
    pub(super) name: String,
    /// Its directory.
    pub(super) directory: PathBuf,
    /// What its run script says.
    pub(super) service: Service,
}

/// Where links to services are.
fn services() -> PathBuf {
    std::env::var_os("SVDIR").filter(|value| !value.is_empty()).map_or_else(|| SERVICES.into(), PathBuf::from)
}

/// The service that `named` means.
pub(super) fn one(named: &str) -> Result<Target, Failure> {
    let candidates = if named.contains('/') || named == "." {
        vec![PathBuf::from(named)]
    } else {
        vec![services().join(named), Path::new(ALL).join(named)]
    };
    let found = candidates.iter().find(|directory| directory.join("run").exists());
    let Some(directory) = found else {
        let looked: Vec<_> = candidates.iter().map(|path| path.join("run").display().to_string()).collect();
        return Err(Failure::Usage(format!(
            "there is no service {}: looked for {}; `runsmith status` lists those of this host",
            visible(named),
            looked.join(" and ")
        )));
    };
    let run = directory.join("run");
    if !is_ours(&run) {
        return Err(Failure::Usage(format!(
            "{} is not executed by runsmith (`run_script: native`); `sv status` tells of it",
            run.display()
        )));
    }
    target(directory).map_err(Failure::Usage)
}

fn target(directory: &Path) -> Result<Target, String> {
    let service = run::read(&directory.join("run"))?;
    Ok(Target { name: service.application.clone(), directory: directory.to_owned(), service })
}

/// Every service of this host that runsmith executes, by name; a run script that cannot be read is said.
pub(super) fn all() -> Vec<Result<Target, String>> {
    let mut found: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for directory in [services(), ALL.into()] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // A service that is linked is one and the same.
            if let Ok(real) = std::fs::canonicalize(entry.path())
                && is_ours(&real.join("run"))
            {
                found.entry(real).or_insert_with(|| entry.path());
            }
        }
    }
    let mut targets: Vec<_> = found.keys().map(|directory| target(directory)).collect();
    let name = |target: &Result<Target, String>| {
        target.as_ref().map_or_else(Clone::clone, |target| target.name.clone())
    };
    targets.sort_by_key(name);
    targets
}

/// Whether the first line says that runsmith executes it.
fn is_ours(run: &Path) -> bool {
    use std::io::Read as _;
    let mut start = vec![];
    let is_file = std::fs::metadata(run).is_ok_and(|found| found.is_file());
    let read =
        is_file.then(|| std::fs::File::open(run).and_then(|file| file.take(4096).read_to_end(&mut start)));
    if !matches!(read, Some(Ok(_))) {
        return false;
    }
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"#!/") && line.ends_with(b" run")
}
