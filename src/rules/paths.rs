//! Where files lie, and whom they belong to.

use super::{Subject, finding, is_within};
use crate::diagnostic::Diagnostic;
use crate::rule;
use crate::visible::visible;

/// Directories in which anybody may make files (hier(7), file-hierarchy(7)).
const PUBLIC: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock"];

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let layout = &service.layout;
    // What root runs or believes, and where the pillar says it.
    let roots: [(&str, &str, &[&str]); 4] = [
        ("the service directory", &service.service.directory, &["service", "directory"]),
        ("the link to the service directory", &service.service.link, &["service", "link"]),
        ("the run directory", &layout.run, &["layout", "run"]),
        ("the runtime", &service.service.runtime, &["service", "runtime"]),
    ];
    let mut own = vec![("root", service.root.as_str()), ("home", &service.home)];
    own.extend(service.virtualenv.as_deref().map(|path| ("virtualenv", path)));
    for (key, directory) in [
        ("layout.releases", &layout.releases),
        ("layout.pids", &layout.pids),
        ("layout.logs", &layout.logs),
        ("layout.sockets", &layout.sockets),
    ] {
        if directory.user == service.user {
            own.push((key, &directory.path));
        }
    }
    for (what, path, steps) in roots {
        let place = subject.place(steps);
        if let Some(public) = PUBLIC.iter().find(|public| is_within(path, public)) {
            let message = format!("{what} is {}, and anybody may make files in {public}", visible(path));
            found.push(
                finding(&rule::PUBLIC_DIRECTORY, message)
                    .at(place, "write a directory that only root can write to"),
            );
        } else if service.user != "root"
            && let Some((key, directory)) = own.iter().find(|(_, directory)| is_within(path, directory))
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
