//! No directory of the system, and none of runit's, is given to an application.

use super::check::Check;
use crate::diagnostic::Diagnostic;
use crate::model::input::LogKind;
use crate::model::service::{Directory, Service};
use crate::model::system::{Standing, keeps_services, standing};
use crate::rule;
use crate::steps::{is_below, is_within};

/// Complains about every directory that rendering would give to the application and that is not for it to have.
///
/// Only what the pillar says is looked at, and ROOT by whatever way it came about: a default is below one of these,
/// and [`standing`] is such that what leads to a directory of the system is one itself.
pub(super) fn shared_directories(service: &Service, check: &mut Check<'_>) {
    let Service { layout, log, root, .. } = service;
    let before = check.found.len();
    let owner = (service.user.as_str(), "0755");
    let place = [&["root"][..], &["service", "directory"], &["service", "link"]];
    let place = place.into_iter().find(|steps| check.node.has(steps));
    judge("root", root, owner, place, service, check);
    let root_is_bad = check.found.len() > before;

    let named: [(&str, &Directory); 5] = [
        ("releases", &layout.releases),
        ("pids", &layout.pids),
        ("logs", &layout.logs),
        ("sockets", &layout.sockets),
        ("config", &layout.config),
    ];
    for (key, directory) in named {
        let steps: [&[&str]; 2] = [&["layout", key, "path"], &["layout", key]];
        let Some(steps) = steps.into_iter().find(|steps| check.node.has(steps)) else { continue };
        let path = &directory.path;
        let name = format!("layout.{key}");
        if current(&name, path, root, steps, check) || (root_is_bad && is_below(path, root)) {
            continue;
        }
        judge(&name, path, (&directory.user, &directory.mode), Some(steps), service, check);
    }
    if log.kind == LogKind::Svlogd && check.node.has(&["log", "directory"]) {
        let steps: &[&str] = &["log", "directory"];
        let path = &log.directory;
        let is_told =
            current("log.directory", path, root, steps, check) || (root_is_bad && is_below(path, root));
        if !is_told {
            judge("log.directory", path, owner, Some(steps), service, check);
        }
    }
    service_directory(service, check);
}

/// What is wrong with giving `path` to `owner` (with a mode); `name` is how the pillar calls it, `steps` where it does.
fn judge(
    name: &str,
    path: &str,
    (owner, mode): (&str, &str),
    steps: Option<&[&str]>,
    service: &Service,
    check: &mut Check<'_>,
) {
    let place = &service.service;
    let parent = |path: &str| path.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned());
    let (services, links) = (parent(&place.directory), parent(&place.link));
    let holds = |inner: &str| is_within(inner, path);
    let (message, help) = if let Some(standing) = standing(path) {
        let reason = match standing {
            Standing::Shared => "is a directory of the system".to_owned(),
            Standing::Within(top) => format!("is in {top}, where no application has a directory"),
        };
        let own = match standing {
            Standing::Shared => format!("{}/{}", path.trim_end_matches('/'), service.application),
            Standing::Within(_) => String::new(),
        };
        let help = if own.is_empty() || crate::model::system::standing(&own).is_some() {
            "name a directory of the application's own, such as one below /srv or /var/www".to_owned()
        } else {
            format!("name a directory of the application's own, such as {own}")
        };
        (format!("{path} {reason}, and rendering would give it to {owner} with mode {mode}"), help)
    } else if holds(&place.directory) {
        let directory = &place.directory;
        let which = if *directory == path { "is" } else { "holds" };
        (
            format!(
                "{path} {which} the service directory {directory}, and rendering would give it to {owner}, who could then have root run anything"
            ),
            "keep service directories where only root can write".to_owned(),
        )
    } else if holds(&links) {
        let which = if links == path { "is" } else { "holds" };
        (
            format!(
                "{path} {which} the directory that runsvdir watches, and rendering would give it to {owner}, who could then have root run anything"
            ),
            "keep `service.link` where only root can write".to_owned(),
        )
    } else if is_below(path, &place.directory) || parent(path) == services {
        (
            format!("{path} is in {services}, where every directory is a service"),
            "name a directory elsewhere".to_owned(),
        )
    } else if is_below(path, &links) {
        (
            format!("{path} is in {links}, where runsvdir starts everything as a service"),
            "name a directory elsewhere".to_owned(),
        )
    } else {
        return;
    };
    let span = steps.map_or_else(|| check.node.head(), |steps| check.span(steps));
    check.found.push(
        Diagnostic::error(&rule::SHARED_DIRECTORY, format!("`{name}`: {message}")).at(span, "").help(help),
    );
}

/// The service directory is root's, and what it has is replaced: it cannot be a directory of the system either.
fn service_directory(service: &Service, check: &mut Check<'_>) {
    for (key, path) in [("directory", &service.service.directory), ("link", &service.service.link)] {
        let Some((parent, name)) = path.rsplit_once('/').filter(|(parent, _)| !keeps_services(parent)) else {
            continue;
        };
        let parent = if parent.is_empty() { "/" } else { parent };
        let message = format!(
            "`service.{key}`: {parent} is a directory of the system, where {name} could be somebody else's name"
        );
        let own = if key == "link" { "/etc/service" } else { "/etc/sv" };
        let help = format!("name a directory that holds nothing but services, such as {own}");
        let span = check.span(&["service", key]);
        check.found.push(Diagnostic::error(&rule::SHARED_DIRECTORY, message).at(span, "").help(help));
    }
    let parent = service.service.directory.rsplit_once('/').map_or("", |(parent, _)| parent);
    if !keeps_services(parent) {
        return;
    }
    let directory = &service.service.directory;
    if standing(directory) == Some(Standing::Shared) {
        let span = check.span(&["service", "directory"]);
        let message = format!(
            "`service.directory`: {directory}, which it makes of the application's name, is a directory of the system"
        );
        let help = "keep service directories in one of their own, such as /etc/sv";
        check.found.push(Diagnostic::error(&rule::SHARED_DIRECTORY, message).at(span, "").help(help));
    }
}

/// Complains if a directory would be at or below the link to the release that serves; says whether it is.
fn current(name: &str, path: &str, root: &str, steps: &[&str], check: &mut Check<'_>) -> bool {
    let current = format!("{root}/current");
    let taken = is_within(path, &current);
    if taken {
        let message = format!(
            "`{name}`: {current} is the link to the release that serves, and no directory can be at or below it"
        );
        let diagnostic = Diagnostic::error(&rule::PATH_CLASH, message).at(check.span(steps), "");
        check.found.push(diagnostic);
    }
    taken
}
