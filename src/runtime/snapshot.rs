//! What a generation is made of, in one file: format 1, JSON, readable by root alone because it holds secrets.
//!
//! It is taken when a generation is started, lies in the run directory as long as the generation lives, and is kept as the
//! last known good in the service directory once the generation is proven.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::Service;

/// The format that is written. A reader refuses others: a start then uses what is on disk.
pub const FORMAT: u32 = 1;

/// Everything a generation is started from, but for the code and the virtualenv themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`FORMAT`].
    pub format: u32,
    /// Short for everything below.
    pub made: Made,
    /// The run script.
    pub service: Service,
    /// Its variables that only root may see.
    pub secrets: BTreeMap<String, String>,
    /// The server's configuration file, if it has one of ours.
    pub config: Option<String>,
}

/// Where a generation runs, and a digest that tells two of them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The release: the path without links that `current` led to.
    pub release: String,
    /// The virtualenv: its path without links.
    pub virtualenv: Option<String>,
    /// SHA-256 over release, run script, secrets and configuration, in hexadecimal.
    pub fingerprint: String,
}

/// What the runtime needs of a snapshot: everything but what only the server gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The run script.
    pub service: Service,
    /// Where it would run now.
    pub made: Made,
}

/// What a snapshot is made of, before it is one.
pub struct Parts {
    /// The run script.
    pub service: Service,
    /// The release: the path without links that `current` led to.
    pub release: String,
    /// The virtualenv: its path without links.
    pub virtualenv: Option<String>,
    /// Its variables that only root may see.
    pub secrets: BTreeMap<String, String>,
    /// The server's configuration file.
    pub config: Option<String>,
}

impl Snapshot {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        let Parts { service, release, virtualenv, secrets, config } = parts;
        let mut digest = Sha256::new();
        let text = serde_json::to_vec(&(&release, &virtualenv, &service, &secrets, &config));
        digest.update(text.unwrap_or_default());
        let fingerprint = hexadecimal(&digest.finalize());
        let made = Made { release, virtualenv, fingerprint };
        Self { format: FORMAT, made, service, secrets, config }
    }

    /// Reads one. The error is the end of a sentence; it never quotes the text, which has secrets in it.
    pub fn read(text: &[u8], application: &str) -> Result<Self, String> {
        let snapshot: Self = serde_json::from_slice(text)
            .map_err(|error| format!("it is damaged at line {} column {}", error.line(), error.column()))?;
        if snapshot.format != FORMAT {
            return Err(format!("its format is {}, and this runtime reads {FORMAT}", snapshot.format));
        }
        if snapshot.service.application != application {
            return Err(format!("it belongs to the service {:?}", snapshot.service.application));
        }
        Ok(snapshot)
    }
}

/// Bytes as text, two digits each.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path of a generation, with the links that lead to its release and its virtualenv replaced by where they led when it was
/// started: so that what it loads later comes from the same release.
pub fn pinned(text: &str, pins: &[(String, String)]) -> String {
    let mut text = text.to_owned();
    for (link, real) in pins {
        if link == real || link.is_empty() {
            continue;
        }
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(link.as_str()) {
            let (before, from) = rest.split_at(at);
            let after = &from[link.len()..];
            let begins =
                out.chars().chain(before.chars()).next_back().is_none_or(|one| ":=, \"'".contains(one));
            let ends = after.chars().next().is_none_or(|one| "/:, \"'".contains(one));
            out.push_str(before);
            out.push_str(if begins && ends { real } else { link });
            rest = after;
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// Variables that name where code is loaded from.
const CODE_PATHS: &[&str] = &[
    "PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "RUBYLIB",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_GEMFILE",
    "BUNDLE_PATH",
    "BUNDLE_APP_CONFIG",
    "LD_LIBRARY_PATH",
    "NODE_PATH",
];

/// Whether a variable names where code is loaded from: only these are pinned, others arrive as they are written.
pub fn is_code_path(name: &str) -> bool {
    CODE_PATHS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_replaced_where_a_path_begins_and_a_name_ends() {
        let pins = [("/srv/web/current".to_owned(), "/srv/web/releases/7".to_owned())];
        for (text, expected) in [
            ("/srv/web/current", "/srv/web/releases/7"),
            ("/srv/web/current/venv/bin", "/srv/web/releases/7/venv/bin"),
            ("--chdir=/srv/web/current/src", "--chdir=/srv/web/releases/7/src"),
            (
                "/usr/lib:/srv/web/current/lib:/srv/web/current",
                "/usr/lib:/srv/web/releases/7/lib:/srv/web/releases/7",
            ),
            ("/srv/web/currently", "/srv/web/currently"),
            ("/data/srv/web/current", "/data/srv/web/current"),
            ("gunicorn", "gunicorn"),
            ("", ""),
        ] {
            assert_eq!(pinned(text, &pins), expected, "{text}");
        }
    }
}
