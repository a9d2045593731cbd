//! Where files lie, and whom they belong to.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::Service;
use crate::model::input::LogKind;
use crate::rule;
use crate::steps::is_within;
use crate::visible::visible;

/// Directories in which anybody may make files (hier(7), file-hierarchy(7)).
const PUBLIC: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock"];

/// How many there are of what root runs or believes.
pub(super) const TRUSTED: usize = 4;

/// What root runs or believes, in words, and where the pillar says it.
pub(super) fn trusted(service: &Service) -> [(&'static str, &str, &'static [&'static str]); TRUSTED] {
    let place = &service.service;
    [
        ("the service directory", &place.directory, &["service", "directory"]),
        ("the link to the service directory", &place.link, &["service", "link"]),
        ("the run directory", &service.layout.run, &["layout", "run"]),
        ("the runtime", &place.runtime, &["service", "runtime"]),
    ]
}

/// What the application's user owns: the key and the path.
pub(super) fn owned(service: &Service) -> impl Iterator<Item = (&'static str, &str)> {
    let layout = &service.layout;
    let directories = [
        ("layout.releases", &layout.releases),
        ("layout.pids", &layout.pids),
        ("layout.logs", &layout.logs),
        ("layout.sockets", &layout.sockets),
    ];
    let own = directories.into_iter().filter(|(_, directory)| directory.user == service.user);
    let has_log = service.log.kind == LogKind::Svlogd;
    [("root", service.root.as_str()), ("home", &service.home)]
        .into_iter()
        .chain(service.virtualenv.as_deref().map(|path| ("virtualenv", path)))
        .chain(own.map(|(key, directory)| (key, directory.path.as_str())))
        .chain(has_log.then_some(("log.directory", service.log.directory.as_str())))
}

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    for (what, path, steps) in trusted(service) {
        let place = subject.place(steps);
        if let Some(public) = PUBLIC.iter().find(|public| is_within(path, public)) {
            let message = format!("{what} is {}, and anybody may make files in {public}", visible(path));
            found.push(
                finding(&rule::PUBLIC_DIRECTORY, message)
                    .at(place, "write a directory that only root can write to"),
            );
        } else if service.user != "root"
            && let Some((key, directory)) = owned(service).find(|(_, directory)| is_within(path, directory))
        {
            let message =
                format!("{what} is {}, below `{key}`, which belongs to {}", visible(path), service.user);
            found.push(
                finding(&rule::OWNED_PATH, message)
                    .at(place, format!("write a path outside of {}", visible(directory)))
                    .help("Root runs what lies there: whoever breaks into the application would be root."),
            );
        }
    }
}
