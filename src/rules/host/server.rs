//! What the installed server says.

use super::finding;
use crate::diagnostic::{Diagnostic, Severity};
use crate::facts::{Facts, ServerAnswer, Verdict};
use crate::model::input::Server;
use crate::model::settings::{GUNICORN, UNICORN};
use crate::rule;
use crate::rules::Subject;
use crate::source::Span;

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    if let Some(answer) = facts.server.answer() {
        installed(subject, answer, found);
    }
    if let Some(verdict) = facts.configuration.answer() {
        configuration(subject, verdict, found);
    }
}

fn name(subject: &Subject<'_>) -> &'static str {
    match subject.service.server {
        Server::Gunicorn => "gunicorn",
        Server::Unicorn => "unicorn",
        Server::Any => "the server",
    }
}

/// Where the pillar says which server is to be used.
fn server_place(subject: &Subject<'_>) -> Span {
    let keys = ["unicorn_command", "virtualenv", "virtualenv_home"];
    keys.into_iter().find_map(|key| subject.given(&[key])).map_or(subject.span, |node| node.span)
}

fn installed(subject: &Subject<'_>, answer: &ServerAnswer, found: &mut Vec<Diagnostic>) {
    let server = name(subject);
    if let Some(error) = &answer.error {
        let message = format!("{server} cannot be loaded: {error}");
        found.push(finding(&rule::HOST_PACKAGE, message).at(server_place(subject), ""));
        return;
    }
    if let Some(error) = &answer.worker_class {
        let class =
            subject.service.settings.get("worker_class").and_then(|class| class.as_str()).unwrap_or("sync");
        let place = subject.setting("worker_class").map_or_else(|| server_place(subject), |node| node.span);
        let class = crate::visible::visible(class).into_owned();
        let message = format!("the worker class {class} cannot be loaded: {error}");
        found.push(
            finding(&rule::HOST_PACKAGE, message)
                .at(place, "")
                .help("Install what it needs into the application's virtualenv."),
        );
    }
    let lacking: Vec<&str> = subject
        .service
        .settings
        .keys()
        .map(String::as_str)
        .filter(|name| !answer.settings.contains(*name))
        .collect();
    let (given, filled): (Vec<&str>, Vec<&str>) =
        lacking.into_iter().partition(|name| subject.setting(name).is_some());
    let version = &answer.version;
    for setting in given {
        let place = subject.setting(setting).map_or(subject.span, |node| node.span);
        let message = format!("{server} {version}, which is installed, has no setting `{setting}`");
        let table = if subject.service.server == Server::Unicorn { &UNICORN } else { &GUNICORN };
        let since = table.get(setting).and_then(|setting| setting.added.as_deref());
        let help = match since {
            Some(since) => format!(
                "It came with {server} {since}: install that or a newer one, or leave the setting out."
            ),
            None => format!("Install a newer {server}, or leave the setting out."),
        };
        found.push(finding(&rule::HOST_VERSION, message).at(place, "").help(help));
    }
    if !filled.is_empty() {
        let list: Vec<_> = filled.iter().map(|name| format!("`{name}`")).collect();
        let message = format!(
            "{server} {version}, which is installed, has no {}, which runsmith sets",
            list.join(", ")
        );
        // gunicorn passes over names that it does not know; for unicorn they are calls of nothing.
        let diagnostic = finding(&rule::HOST_VERSION, message).at(server_place(subject), "");
        let severity = match subject.service.server {
            Server::Gunicorn => Severity::Warning,
            Server::Unicorn | Server::Any => diagnostic.severity,
        };
        found.push(Diagnostic { severity, ..diagnostic.help(format!("Install a newer {server}.")) });
    }
}

fn configuration(subject: &Subject<'_>, verdict: &Verdict, found: &mut Vec<Diagnostic>) {
    let server = name(subject);
    let section = if subject.given(&[server]).is_some() { Some(subject.place(&[server])) } else { None };
    let app = subject.given(&["app"]).map_or_else(|| server_place(subject), |node| node.span);
    let has_secrets = !subject.service.secrets.is_empty();
    let without = "The check runs without the service's secrets, which may be what it lacks.";
    let (mut diagnostic, lines) = match verdict {
        Verdict::Accepted => return,
        Verdict::Refused(lines) => {
            let message = format!("{server}, which is installed, refuses the rendered configuration");
            (
                finding(&rule::HOST_CONFIG, message).at(section.unwrap_or_else(|| server_place(subject)), ""),
                lines.as_slice(),
            )
        }
        Verdict::NotLoaded(lines) => {
            let app_name = crate::visible::visible(&subject.service.app).into_owned();
            (
                finding(&rule::HOST_APP, format!("{server} cannot load {app_name}")).at(app, ""),
                lines.as_slice(),
            )
        }
        Verdict::Late(seconds) => {
            let message =
                format!("{server} had not loaded the application and its configuration after {seconds} s");
            let help = "That is `handoff.boot_timeout`: a hand-over would be backed out then.";
            (finding(&rule::HOST_APP, message).at(app, "").help(help), &[][..])
        }
    };
    if !lines.is_empty() {
        diagnostic = diagnostic.help(format!("It says: {}", lines.join(" | ")));
    }
    if has_secrets && diagnostic.rule == &rule::HOST_APP {
        diagnostic.severity = Severity::Warning;
        diagnostic = diagnostic.help(without);
    }
    found.push(diagnostic);
}
