//! The server: its command, its virtualenv, its settings.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ARGUMENT_MAX;
use super::application::unloadable;
use super::check::Check;
use crate::model::input::{LogKind, Server, Text, Words};
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

/// The name of the program that a word is the path of.
fn name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or_default()
}

/// The last word that names a server decides: `bundle exec unicorn`, `python -m gunicorn`.
pub(super) fn server_of(words: &[String]) -> Server {
    words
        .iter()
        .rev()
        .find_map(|word| match name(word) {
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
    environment: &BTreeMap<String, Text>,
) -> Vec<String> {
    let is_rails = words.iter().rev().find_map(|word| match name(word) {
        "unicorn" => Some(false),
        "unicorn_rails" => Some(true),
        _ => None,
    });
    let rack_env = environment.get("RACK_ENV").map(ToString::to_string);
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    match server {
        Server::Gunicorn => add(&["-c", &format!("{config}/gunicorn.py"), "--", app]),
        Server::Unicorn => {
            // Otherwise it is `development`, where unicorn adds Rack::Lint and error pages with code. What the option sets of
            // unicorn_rails is RAILS_ENV, which Rails asks before RACK_ENV.
            let is_set = match is_rails {
                Some(true) => environment.contains_key("RAILS_ENV"),
                _ => rack_env.is_some(),
            };
            if !is_set {
                add(&["-E", rack_env.as_deref().unwrap_or("production")]);
            }
            add(&["-c", &format!("{config}/unicorn.rb"), "--", app]);
        }
        Server::Any => {}
    }
    words
}

pub(super) fn app(
    given: Option<String>,
    server: Server,
    words: &[String],
    environment: &BTreeMap<String, Text>,
    check: &mut Check<'_>,
) -> String {
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
    } else if !app.contains('\0') {
        let why = match server {
            Server::Gunicorn => unloadable(&app),
            Server::Unicorn => no_rackup(&app, words, environment),
            Server::Any => None,
        };
        if let Some(why) = why {
            check.complain(&rule::APP, &["app"], format!("`app`: {why}"));
        }
    }
    app
}

/// Why unicorn cannot load this, whatever files there are (unicorn.rb, `builder`, 6.0); none if it may. What does not end in
/// `.ru` is given to Ruby's `require`, and the application is the constant of the file's name.
fn no_rackup(app: &str, words: &[String], environment: &BTreeMap<String, Text>) -> Option<String> {
    // Its pattern looks at the end of each line.
    if app.lines().any(|line| line.ends_with(".ru")) {
        return None;
    }
    let base = name(app.trim_end_matches('/'));
    let stem = base.strip_suffix(".rb").filter(|stem| !stem.is_empty()).unwrap_or(base);
    // What Ruby thinks of other letters depends on the locale.
    let may_begin = |c: char| c.is_ascii_alphabetic() || !c.is_ascii();
    let is_constant = stem.starts_with(may_begin)
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii());
    if !is_constant {
        return Some(format!(
            "`{app}` is neither a rackup file, whose name ends in .ru, nor a file of Ruby with the name of a constant; write the path of a rackup file, such as config.ru"
        ));
    }
    // Ruby looks for other paths in its own directories, which options, these variables and other programs change.
    let is_path = ["/", "./", "../"].iter().any(|begin| app.starts_with(begin));
    let is_plain = matches!(words, [word] if matches!(word.as_str(), "unicorn" | "unicorn_rails"))
        && !["RUBYLIB", "RUBYOPT"].iter().any(|name| environment.contains_key(*name));
    (!is_path && is_plain).then(|| {
        format!(
            "`{app}` is no rackup file, whose name ends in .ru, and Ruby looks for it among its libraries; write ./{app}"
        )
    })
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

    #[test]
    fn unicorn_runs_in_production_unless_the_pillar_says_otherwise() {
        let text = |value: &str| Text::String(value.to_owned());
        for (words, environment, wanted) in [
            ("unicorn", None, Some("production")),
            ("unicorn", Some("RACK_ENV"), None),
            ("unicorn", Some("RAILS_ENV"), Some("production")),
            ("bundle exec unicorn_rails", None, Some("production")),
            ("unicorn_rails", Some("RACK_ENV"), Some("staging")),
            ("unicorn_rails", Some("RAILS_ENV"), None),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let given = words.len();
            let environment =
                environment.map(|name| (name.to_owned(), text("staging"))).into_iter().collect();
            let command = command(words, Server::Unicorn, "/config", "config.ru", &environment);
            let mut added = vec!["-c", "/config/unicorn.rb", "--", "config.ru"];
            if let Some(wanted) = wanted {
                added.splice(0..0, ["-E", wanted]);
            }
            assert_eq!(command[given..], added, "{command:?}, {environment:?}");
        }
    }

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
