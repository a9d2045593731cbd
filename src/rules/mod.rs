//! What a schema cannot say: one file for each family of checks.
//!
//! A check is a function over a service and the values it was made of, which remember their places.
//! What it finds has a rule of the registry in [`rule`](crate::rule), and [`judge`] settles how bad
//! that is: by the command line, and by comments in the pillar.

mod addresses;
mod beside;
mod command;
mod effect;
mod environment;
pub mod fix;
mod handoff;
mod host;
pub mod judge;
mod limits;
mod logging;
mod paths;
mod refused;
mod secrets;
mod server;
mod settings;
pub mod silence;
mod spelling;
mod times;
mod users;

use crate::diagnostic::{Diagnostic, Severity};
use crate::facts::Facts;
use crate::model::Service;
use crate::pillar::{Dialect, Node, Value};
use crate::rule::Rule;
use crate::source::{Sources, Span};

pub use addresses::{Claims, claims, clashes};
pub use beside::{Steps, check_beside, paths_of};

/// The texts that pillars were read from, and how.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// Every text that a span points into.
    pub sources: &'a Sources,
    /// By which rules they were read.
    pub dialect: Dialect,
}

/// A service, and what the pillar says of it.
pub(crate) struct Subject<'a> {
    service: &'a Service,
    /// The application's values over the defaults.
    node: &'a Node,
    /// Where the application is named: what has no place of its own is found there.
    span: Span,
    /// The options that a gunicorn gets besides its configuration.
    lines: Vec<command::Line>,
}

/// Everything the rules have to say about one service.
pub fn check(service: &Service, node: &Node, span: Span) -> Vec<Diagnostic> {
    check_all(&Subject::of(service, node, span))
}

fn check_all(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let mut found = vec![];
    addresses::check(subject, &mut found);
    users::check(subject, &mut found);
    paths::check(subject, &mut found);
    secrets::check(subject, &mut found);
    server::check(subject, &mut found);
    refused::check(subject, &mut found);
    logging::check(subject, &mut found);
    command::check(subject, &mut found);
    environment::check(subject, &mut found);
    times::check(subject, &mut found);
    limits::check(subject, &mut found);
    handoff::check(subject, &mut found);
    effect::check(subject, &mut found);
    found
}

/// Everything the rules have to say about one service on the host that `facts` are of.
pub fn check_host(service: &Service, node: &Node, span: Span, facts: &Facts) -> Vec<Diagnostic> {
    let mut found = vec![];
    host::check(&Subject::of(service, node, span), facts, &mut found);
    found
}

/// What can be said of an application's values alone, whether or not they make a service.
pub fn check_spelling(node: &Node, texts: Texts<'_>) -> Vec<Diagnostic> {
    spelling::check(node, texts)
}

impl<'a> Subject<'a> {
    fn of(service: &'a Service, node: &'a Node, span: Span) -> Self {
        Self { service, node, span, lines: command::lines(service, node) }
    }

    /// The value that the pillar gives at `steps`.
    fn given(&self, steps: &[&str]) -> Option<&Node> {
        self.node.find(steps.iter().copied()).filter(|node| node.value != Value::Null)
    }

    /// Where the pillar says what is at `steps`; where the application is named, if it does not.
    fn place(&self, steps: &[&str]) -> Span {
        self.given(steps).map_or(self.span, |node| node.span)
    }

    /// The key at `steps`, if the application itself has it: one among the defaults may be meant
    /// for others.
    fn own_key(&self, steps: &[&str]) -> Option<Span> {
        let (last, parents) = steps.split_last()?;
        let map = self.node.find(parents.iter().copied())?;
        let pair = map.get(last).filter(|pair| pair.value.value != Value::Null)?;
        let (whole, key) = (self.node.span, pair.key.span);
        let inside = whole.source == key.source && whole.start <= key.start && key.end <= whole.end;
        inside.then_some(key)
    }

    /// A setting of the server as the pillar gives it.
    fn setting(&self, name: &str) -> Option<&Node> {
        let section = match self.service.server {
            crate::model::input::Server::Gunicorn => "gunicorn",
            crate::model::input::Server::Unicorn => "unicorn",
            crate::model::input::Server::Any => return None,
        };
        self.given(&[section, name])
    }
}

/// A finding of a rule, as bad as the rule says.
fn finding(rule: &'static Rule, message: impl Into<String>) -> Diagnostic {
    match rule.severity {
        Severity::Error => Diagnostic::error(rule, message),
        Severity::Warning => Diagnostic::warning(rule, message),
        Severity::Note => Diagnostic { severity: Severity::Note, ..Diagnostic::error(rule, message) },
    }
}
