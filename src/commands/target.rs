//! Which service is meant: by its name, as `sv` takes it, or by its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::run;
use crate::failure::Failure;
use crate::model::Service;
use crate::model::input::LogKind;
use crate::model::service::RUN;
use crate::runtime::linux::asking;
use crate::runtime::linux::runsv::{ALL, SERVICES, reference};
use crate::visible::visible;

/// A service of this host.
pub(super) struct Target {
    /// Its name.
    pub(super) name: String,
    /// Its directory.
    pub(super) directory: PathBuf,
    /// `layout.run`: where its runtime can be asked.
    pub(super) run: String,
    /// `root`: where its releases are; empty if that is not known.
    pub(super) root: String,
    /// The files that its command names as configuration.
    pub(super) configuration: Vec<PathBuf>,
    /// `log`: its kind and svlogd's directory; none if that is not known.
    pub(super) log: Option<(LogKind, String)>,
    /// As its run script has it; none if that cannot be read.
    pub(super) service: Option<Box<Service>>,
    /// Why its run script cannot be read. What runs already is asked all the same.
    pub(super) trouble: Option<String>,
}

impl Target {
    /// How a command that is printed names it, so that it works when it is copied.
    pub(super) fn reference(&self) -> String {
        // A directory is found whatever its run script says.
        let name = self.directory.file_name().map(|name| name.to_string_lossy().into_owned());
        reference(&name.unwrap_or_default(), &self.directory, &services())
    }

    /// The same for `sv`, which finds names below SVDIR or /etc/service only.
    pub(super) fn sv_reference(&self) -> String {
        reference("", &self.directory, &services())
    }
}

/// Where links to services are.
fn services() -> PathBuf {
    std::env::var_os("SVDIR").filter(|value| !value.is_empty()).map_or_else(|| SERVICES.into(), PathBuf::from)
}

/// Where services are looked for by their names, for people.
pub(super) fn places() -> String {
    format!("{} (SVDIR) and {ALL}; one that lies elsewhere is named by its directory", services().display())
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
        let name = reference("", directory, &services());
        return Err(Failure::Usage(format!(
            "{} is not executed by runsmith (`run_script: native`): `sv status {name}` tells of it; if it is runsmith's shell script \
             (`run_script: shell`), `sv hup {name}` hands over to what is on disk",
            run.display()
        )));
    }
    Ok(target(directory))
}

fn target(directory: &Path) -> Target {
    // It is printed in commands, which may be copied into another directory.
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    match run::read(&directory.join("run")) {
        Ok(service) => Target {
            name: service.application.clone(),
            directory,
            run: service.layout.run.clone(),
            root: service.root.clone(),
            configuration: service
                .command
                .windows(2)
                .filter(|words| words[0] == "-c")
                .map(|words| PathBuf::from(&words[1]))
                .collect(),
            log: Some((service.log.kind, service.log.directory.clone())),
            service: Some(Box::new(service)),
            trouble: None,
        },
        Err(trouble) => {
            let real = std::fs::canonicalize(&directory);
            let name = real.ok().and_then(|real| Some(real.file_name()?.to_string_lossy().into_owned()));
            let name = name.unwrap_or_default();
            Target {
                run: asking::run_directory(&directory).unwrap_or_else(|| format!("{RUN}/{name}")),
                name,
                directory,
                root: String::new(),
                configuration: vec![],
                log: None,
                service: None,
                trouble: Some(trouble),
            }
        }
    }
}

/// Every service of this host that runsmith executes, by name.
pub(super) fn all() -> Vec<Target> {
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
    targets.sort_by(|one, other| one.name.cmp(&other.name));
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
