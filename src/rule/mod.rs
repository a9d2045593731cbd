//! What findings are called, how bad they are, and what they mean: every rule there is.
//!
//! A finding can only be made with a rule of this registry; `runsmith rule`, docs/rules.md and the
//! SARIF report print what it says. A rule's examples are the files of `fixtures/rules/NAME`.

mod addresses;
mod handoff;
mod host;
mod limits;
mod paths;
mod reading;
mod secrets;
mod server;
mod shape;
mod silence;
mod spelling;
mod times;
mod users;
mod values;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use crate::diagnostic::Severity;

pub use addresses::*;
pub use handoff::*;
pub use host::*;
pub use limits::*;
pub use paths::*;
pub use reading::*;
pub use secrets::*;
pub use server::*;
pub use shape::*;
pub use silence::*;
pub use spelling::*;
pub use times::*;
pub use users::*;
pub use values::*;

/// One rule: a name, and all there is to say about it.
#[derive(Debug)]
pub struct Rule {
    /// By which findings, flags and comments call it: small letters and hyphens.
    pub name: &'static str,
    /// What it is about.
    pub family: Family,
    /// How bad a finding is, unless somebody says otherwise.
    pub severity: Severity,
    /// Whether somebody may say otherwise.
    pub switch: Switch,
    /// What is wrong, in one sentence without a full stop.
    pub summary: &'static str,
    /// What is looked at, and what to do.
    pub what: &'static str,
    /// Why it matters on a host.
    pub why: &'static str,
    /// What it finds and what it lets pass, if a small pillar can show it.
    pub example: Option<Example>,
}

/// A pillar with a mistake, and one without it.
#[derive(Debug)]
pub struct Example {
    /// What the texts are: `yaml` or `json`.
    pub format: &'static str,
    /// What `validate` is to be given besides the pillar, if it is more than that: `--dialect ansible`.
    pub arguments: &'static str,
    /// Exactly this rule finds something in it.
    pub wrong: &'static str,
    /// No rule finds anything in it.
    pub right: &'static str,
}

/// Whether `--deny`, `--warn`, `--allow` and comments in a pillar can change what a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// They can.
    Free,
    /// Where it warns they can; where it is an error nothing can be rendered.
    Warnings,
    /// They cannot: without it no service could be rendered.
    Fixed,
}

/// What a rule is about; the order is that in which rules are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// The text as YAML or JSON.
    Reading,
    /// Keys, types and values, as the JSON Schema has them.
    Shape,
    /// Values that a schema cannot judge, without which no service can be rendered.
    Values,
    /// What is written in a way that others read differently, or that has had its day.
    Spelling,
    /// Where services listen.
    Addresses,
    /// Who services run as.
    Users,
    /// Where files lie, and whom they belong to.
    Paths,
    /// What nobody should read.
    Secrets,
    /// The server, its settings and its command.
    Server,
    /// Time-outs that have to fit together.
    Times,
    /// Resource limits.
    Limits,
    /// How a new generation takes over.
    Handoff,
    /// What only the host knows.
    Host,
    /// Comments that silence a rule.
    Silence,
}

impl Family {
    /// As it is listed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Shape => "shape",
            Self::Values => "values",
            Self::Spelling => "spelling",
            Self::Addresses => "addresses",
            Self::Users => "users",
            Self::Paths => "paths",
            Self::Secrets => "secrets",
            Self::Server => "server",
            Self::Times => "times",
            Self::Limits => "limits",
            Self::Handoff => "handoff",
            Self::Host => "host",
            Self::Silence => "silence",
        }
    }

    /// What its rules have in common, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Reading => "The text as YAML or JSON, as the dialect's owner reads it",
            Self::Shape => "Keys, types and values, as the JSON Schema has them",
            Self::Values => "Values that a schema cannot judge, without which no service can be rendered",
            Self::Spelling => "What others read differently, or what has had its day",
            Self::Addresses => "Where services listen",
            Self::Users => "Who services run as",
            Self::Paths => "Where files lie, and whom they belong to",
            Self::Secrets => "What nobody should read",
            Self::Server => "The server, its settings and its command",
            Self::Times => "Time-outs that have to fit together",
            Self::Limits => "Resource limits",
            Self::Handoff => "How a new generation takes over",
            Self::Host => "What only the host knows, asked by `validate --host`",
            Self::Silence => "Comments that silence a rule",
        }
    }
}

impl Rule {
    /// Whether its findings of that severity can be denied, warned of or allowed.
    pub fn is_switchable(&self, severity: Severity) -> bool {
        match self.switch {
            Switch::Free => true,
            Switch::Warnings => severity != Severity::Error,
            Switch::Fixed => false,
        }
    }
}

// A rule is its name: two never share one.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Rule {}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every rule, by family and then by name.
pub fn all() -> Vec<&'static Rule> {
    let mut all: Vec<&'static Rule> = [
        addresses::ALL,
        handoff::ALL,
        host::ALL,
        limits::ALL,
        paths::ALL,
        reading::ALL,
        secrets::ALL,
        server::ALL,
        shape::ALL,
        silence::ALL,
        spelling::ALL,
        times::ALL,
        users::ALL,
        values::ALL,
    ]
    .concat();
    all.sort_by_key(|rule| (rule.family, rule.name));
    all
}

/// The rule of that name.
pub fn named(name: &str) -> Option<&'static Rule> {
    static NAMED: LazyLock<HashMap<&'static str, &'static Rule>> =
        LazyLock::new(|| all().into_iter().map(|rule| (rule.name, rule)).collect());
    NAMED.get(name).copied()
}

/// The name that was most likely meant by one that no rule has.
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase().replace('_', "-");
    all()
        .into_iter()
        .map(|rule| (strsim::damerau_levenshtein(&lower, rule.name), rule.name))
        .filter(|(distance, rule)| *distance <= 1 + rule.len().min(name.len()) / 3)
        .min()
        .map(|(_, name)| name)
}

/// The rules of one family, and the list of them. `yaml` and `json` take the examples from
/// `fixtures/rules/NAME`, with the arguments that those need; `none` says that no small pillar can show it.
macro_rules! rules {
    ($family:ident: $($id:ident = $name:tt, $severity:ident, $switch:ident, $example:ident $(($arguments:literal))? {
        $summary:literal, what: $what:literal, why: $why:literal $(,)?
    })*) => {
        $(
            #[doc = $summary]
            pub static $id: $crate::rule::Rule = $crate::rule::Rule {
                name: $name,
                family: $crate::rule::Family::$family,
                severity: $crate::diagnostic::Severity::$severity,
                switch: $crate::rule::Switch::$switch,
                summary: $summary,
                what: $what,
                why: $why,
                example: $crate::rule::example!($example $name $($arguments)?),
            };
        )*
        pub(super) static ALL: &[&$crate::rule::Rule] = &[$(&$id),*];
    };
}

macro_rules! example {
    (none $name:tt) => {
        None
    };
    ($format:ident $name:tt $($arguments:literal)?) => {
        Some($crate::rule::Example {
            format: stringify!($format),
            arguments: concat!($($arguments)?),
            wrong: include_str!(concat!("../../fixtures/rules/", $name, "/wrong.", stringify!($format))),
            right: include_str!(concat!("../../fixtures/rules/", $name, "/right.", stringify!($format))),
        })
    };
}

use {example, rules};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_registry_is_whole() {
        let names: BTreeSet<_> = all().iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), all().len(), "no two rules share a name");
        for rule in all() {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(rule.name.chars().all(fits), "{}", rule.name);
            assert!(!rule.summary.ends_with('.'), "{}", rule.name);
            for text in [rule.what, rule.why] {
                assert!(text.ends_with('.') && text.len() > 20, "{}: {text}", rule.name);
            }
        }
    }

    #[test]
    fn a_misspelt_name_has_a_neighbour() {
        assert_eq!(nearest("unknown_key"), Some("unknown-key"));
        assert_eq!(nearest("duplicated-key"), Some("duplicate-key"));
        assert_eq!(nearest("xyzzy"), None);
    }
}
