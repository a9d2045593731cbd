//! The server: its command, its virtualenv, its settings.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ARGUMENT_MAX;
use super::application::unloadable;
use super::check::Check;
use crate::model::input::{LogKind, Server, Words};
use crate::model::settings::{gunicorn_defaults, unicorn_defaults};
use crate::rule;

/// The words of a command. A string is split at blanks, as `chpst` and `env` would get them; what
/// looks like shell quoting in it would not work, so it is refused.
pub(super) fn words(
    given: Option<Words>,
    check: &mut Check<'_>,
    key: &'static str,
    default: impl FnOnce() -> Vec<String>,
) -> Vec<String> {
    match given {
        None => default(),
        Some(Words::List(words)) => {
            if words.iter().any(|word| word.len() > ARGUMENT_MAX) {
                check.complain(&rule::TOO_LONG, &[key], format!("`{key}`: a word has more than {ARGUMENT_MAX} bytes, and the kernel takes no more for an argument"));
            }
            words
        }
        Some(Words::Line(line)) => {
            if let Some(sign) = line.chars().find(|c| "'\"\\$`;&|<>()*?[]{}~#!".contains(*c)) {
                check.complain(
                    &rule::COMMAND,
                    &[key],
                    format!("`{key}`: {sign:?} has no meaning here, because no shell reads the command; write it as a list of words"),
                );
            }
            line.split_whitespace().map(str::to_owned).collect()
        }
    }
}

/// The last word that names a server decides: `bundle exec unicorn`, `python -m gunicorn`.
pub(super) fn server_of(words: &[String]) -> Server {
    let name = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    words
        .iter()
        .rev()
        .find_map(|word| match name(word).as_str() {
            "gunicorn" => Some(Server::Gunicorn),
            "unicorn" | "unicorn_rails" => Some(Server::Unicorn),
            _ => None,
        })
        .unwrap_or(Server::Any)
}

/// gunicorn and unicorn get their configuration and what to load; any other command is whole.
pub(super) fn command(
    mut words: Vec<String>,
    server: Server,
    config: &str,
    app: &str,
    has_rack_env: bool,
) -> Vec<String> {
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    match server {
        Server::Gunicorn => add(&["-c", &format!("{config}/gunicorn.py"), "--", app]),
        Server::Unicorn => {
            // Otherwise it is `development`, where unicorn adds Rack::Lint and error pages with code.
            if !has_rack_env {
                add(&["-E", "production"]);
            }
            add(&["-c", &format!("{config}/unicorn.rb"), "--", app]);
        }
        Server::Any => {}
    }
    words
}

pub(super) fn app(given: Option<String>, server: Server, check: &mut Check<'_>) -> String {
    let app = given.unwrap_or_else(|| match server {
        Server::Unicorn => "config.ru".to_owned(),
        Server::Gunicorn | Server::Any => "wsgi:app".to_owned(),
    });
    if app.len() > ARGUMENT_MAX {
        check.complain(
            &rule::TOO_LONG,
            &["app"],
            format!("`app` has more than {ARGUMENT_MAX} bytes, and the kernel takes no more for an argument"),
        );
    }
    if app.trim() != app {
        check.complain(&rule::APP, &["app"], "`app` begins or ends with a blank");
    } else if server == Server::Gunicorn
        && !app.contains('\0')
        && let Some(why) = unloadable(&app)
    {
        check.complain(&rule::APP, &["app"], format!("`app`: {why}"));
    }
    app
}

pub(super) fn virtualenv(
    given: Option<String>,
    home: Option<String>,
    application: &str,
    server: Server,
    check: &mut Check<'_>,
) -> Option<String> {
    let key = if given.is_some() { "virtualenv" } else { "virtualenv_home" };
    let path = match (given, home) {
        (Some(path), _) => path,
        (None, Some(home)) => {
            check.path(&["virtualenv_home"], Some(home.clone()), String::new);
            format!("{home}/.virtualenvs/{application}")
        }
        (None, None) => {
            if server == Server::Gunicorn {
                let help = "gunicorn is started from a virtualenv: set `virtualenv_home`, which holds `.virtualenvs/APPLICATION`, or `virtualenv`, its whole path";
                check.missing("virtualenv_home", "", &[help]);
            }
            return None;
        }
    };
    if key == "virtualenv" {
        check.path(&[key], Some(path.clone()), String::new);
    }
    if path.contains(':') {
        check.complain(
            &rule::PATH,
            &[key],
            format!("`{key}` has a \":\", which separates the directories of PATH"),
        );
    }
    Some(path)
}

/// gunicorn's settings: those given, over ours.
pub(super) fn gunicorn_settings(
    given: BTreeMap<String, Json>,
    logs: &str,
    kind: Option<LogKind>,
) -> BTreeMap<String, Json> {
    let mut settings = named(gunicorn_defaults());
    match kind.unwrap_or_default() {
        LogKind::Svlogd => {
            settings.insert("accesslog".to_owned(), Json::from("-"));
            settings.insert("errorlog".to_owned(), Json::from("-"));
        }
        LogKind::Files => {
            settings.insert("accesslog".to_owned(), Json::from(format!("{logs}/access.log")));
            settings.insert("errorlog".to_owned(), Json::from(format!("{logs}/error.log")));
        }
        LogKind::None => {}
    }
    settings.extend(given);
    settings
}

fn named(defaults: Vec<(&'static str, Json)>) -> BTreeMap<String, Json> {
    defaults.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Ruby unicorn's settings: those given, over ours.
pub(super) fn unicorn_settings(
    given: BTreeMap<String, Json>,
    logs: &str,
    kind: Option<LogKind>,
) -> BTreeMap<String, Json> {
    let mut settings = named(unicorn_defaults());
    if kind == Some(LogKind::Files) {
        settings.insert("stdout_path".to_owned(), Json::from(format!("{logs}/access.log")));
        settings.insert("stderr_path".to_owned(), Json::from(format!("{logs}/error.log")));
    }
    settings.extend(given);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{GUNICORN, Table, UNICORN};

    /// The tables are not asked at every run, because reading them takes longer than rendering a service.
    #[test]
    fn the_servers_have_the_settings_that_are_filled_in() {
        let known = |table: &Table, settings: BTreeMap<String, Json>| {
            settings
                .keys()
                .for_each(|name| assert!(table.get(name).is_some(), "{} has no {name}", table.server));
        };
        for kind in [LogKind::Svlogd, LogKind::Files, LogKind::None] {
            known(&GUNICORN, gunicorn_settings(BTreeMap::new(), "/logs", Some(kind)));
            known(&UNICORN, unicorn_settings(BTreeMap::new(), "/logs", Some(kind)));
        }
    }
}
