//! What the process is given: variables and limits.

use std::collections::{BTreeMap, HashSet};

use super::ARGUMENT_MAX;
use super::check::Check;
use crate::model::CREDENTIALS;
use crate::model::input::{LimitInput, LimitValue, Resource, RunScript, Text};
use crate::model::paths;
use crate::model::secret;
use crate::model::service::Limit;
use crate::pillar::{Node, Value};
use crate::rule;

pub(super) type Variables = BTreeMap<String, String>;

/// Plain variables, and those that are kept in files: all of `secrets`, and of `environment` those that are sensitive.
pub(super) fn variables(
    environment: BTreeMap<String, Text>,
    secrets: BTreeMap<String, Text>,
    run_script: RunScript,
    check: &mut Check<'_>,
) -> (Variables, Variables) {
    let mut plain = Variables::new();
    let mut kept = Variables::new();
    let ordinary = ordinary(check.node);
    for (name, value) in environment {
        let value = value.to_string();
        let is_sensitive = secret::why(&name, &value).is_some() && !ordinary.contains(name.as_str());
        let target = if is_sensitive { &mut kept } else { &mut plain };
        target.insert(name, value);
    }
    for (name, value) in secrets {
        if plain.contains_key(&name) || kept.contains_key(&name) {
            check.complain(
                &rule::SECRET,
                &["secrets", &name],
                format!("`{name}` is in `environment` and in `secrets`"),
            );
        }
        kept.insert(name, value.to_string());
    }
    for (name, value) in plain.iter().chain(&kept) {
        let why = taken(name, kept.contains_key(name));
        let is_long = name.len() + 1 + value.len() > ARGUMENT_MAX;
        let has_long_name = kept.contains_key(name) && name.len() > paths::NAME_MAX;
        // To look for the place of every variable would take the square of their number.
        if why.is_none() && !is_long && !has_long_name {
            continue;
        }
        let place = ["secrets", "environment"].into_iter().find(|key| check.node.has(&[key, name]));
        let steps = [place.unwrap_or("environment"), name];
        if let Some(why) = why {
            check.complain(&rule::VARIABLE, &steps, format!("`{name}` cannot be set: {why}"));
        }
        if is_long {
            check.complain(&rule::TOO_LONG, &steps, format!("`{name}` and its value have more than {ARGUMENT_MAX} bytes, and the kernel takes no more for a variable"));
        }
        if has_long_name {
            check.complain(
                &rule::TOO_LONG,
                &steps,
                format!("the name of a secret is that of a file and may have {} bytes", paths::NAME_MAX),
            );
        }
    }
    if run_script == RunScript::Shell {
        let names: Vec<_> = kept
            .iter()
            .filter(|(_, value)| value.ends_with([' ', '\t']))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let place = ["secrets", "environment"].into_iter().find(|key| check.node.has(&[key, &name]));
            check.complain(
                &rule::SECRET,
                &[place.unwrap_or("secrets"), &name],
                format!("the value of `{name}` ends in a blank, which chpst would drop; the native run script keeps it"),
            );
        }
    }
    (plain, kept)
}

/// The secrets that are handed over as files, by name.
pub(super) fn secret_files(
    mut names: Vec<String>,
    (plain, kept): (&Variables, &Variables),
    run_script: RunScript,
    check: &mut Check<'_>,
) -> Vec<String> {
    if names.is_empty() {
        return names;
    }
    if run_script == RunScript::Shell {
        let message =
            "`secret_files` takes the native run script: a shell cannot give a file to one user alone";
        check.complain(&rule::SECRET, &["secret_files"], message.to_owned());
    }
    for (at, name) in names.iter().enumerate() {
        if !kept.contains_key(name) {
            let message = format!("`secret_files` names `{name}`, which is not in `secrets`");
            check.complain(&rule::SECRET, &["secret_files", &at.to_string()], message);
        }
    }
    if plain.contains_key(CREDENTIALS) || kept.contains_key(CREDENTIALS) {
        let place = ["secrets", "environment"].into_iter().find(|key| check.node.has(&[key, CREDENTIALS]));
        let message = format!("`{CREDENTIALS}` cannot be set: it has the directory of `secret_files`");
        check.complain(&rule::VARIABLE, &[place.unwrap_or("environment"), CREDENTIALS], message);
    }
    names.sort();
    names.dedup();
    names
}

/// The variables of which a comment says that they are no secrets.
fn ordinary(node: &Node) -> HashSet<&str> {
    let variables = node.get("environment").map(|pair| &pair.value.value);
    let Some(Value::Map(variables)) = variables else { return HashSet::new() };
    let names = variables.iter().filter_map(|pair| match &pair.key.value {
        Value::Str(name) if pair.value.ordinary => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// Why a variable would not arrive: the service itself sets it.
fn taken(name: &str, secret: bool) -> Option<&'static str> {
    match name {
        "RUNSMITH_SERVICE" | "RUNSMITH_TOKEN" | "RUNSMITH_READY" => Some("runsmith sets it itself"),
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "GUNICORN_FD" | "GUNICORN_PID" | "UNICORN_FD"
        | "UNICORN_WORKER" => Some("by it a server is told which sockets it inherits"),
        "NOTIFY_SOCKET" => Some("by it a server is told where to say that it is ready"),
        "PWD" => Some("it is the release that the server runs in"),
        "HOME" | "USER" | "LOGNAME" | "PATH" | "VIRTUAL_ENV" if secret => {
            Some("every service has it, so it is no secret; use `environment`")
        }
        _ => None,
    }
}

pub(super) fn limits(
    given: BTreeMap<Resource, LimitInput>,
    check: &mut Check<'_>,
) -> BTreeMap<Resource, Limit> {
    let [core, nofile] = [0, 65_535].map(LimitValue::Number).map(|value| Limit { soft: value, hard: value });
    let mut limits = BTreeMap::from([(Resource::Core, core), (Resource::Nofile, nofile)]);
    for (resource, input) in given {
        let limit = match input {
            LimitInput::Both(value) => Limit { soft: value, hard: value },
            LimitInput::Each(each) => Limit { soft: each.soft, hard: each.hard.unwrap_or(each.soft) },
        };
        let number = |value| match value {
            LimitValue::Number(number) => number,
            LimitValue::Word(_) => u64::MAX,
        };
        if number(limit.soft) > number(limit.hard) {
            let name = format!("{resource:?}").to_ascii_lowercase();
            check.complain(
                &rule::LIMIT,
                &["limits", &name],
                format!("`limits.{name}`: the soft limit is above the hard limit"),
            );
        }
        limits.insert(resource, limit);
    }
    limits
}
