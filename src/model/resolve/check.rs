//! Complaints, each at the value it is about.

use super::Context;
use crate::diagnostic::Diagnostic;
use crate::model::duration::Duration;
use crate::model::input::DurationInput;
use crate::model::paths;
use crate::pillar::Node;
use crate::rule::{self, Rule};
use crate::source::Span;

/// Collects complaints, each at the value it is about.
pub(super) struct Check<'a> {
    pub(super) context: Context<'a>,
    pub(super) node: &'a Node,
    pub(super) found: Vec<Diagnostic>,
}

impl Check<'_> {
    pub(super) fn span(&self, steps: &[&str]) -> Span {
        self.node.locate(steps.iter().copied())
    }

    pub(super) fn complain(&mut self, rule: &'static Rule, steps: &[&str], message: impl Into<String>) {
        let span = self.span(steps);
        self.found.push(Diagnostic::error(rule, message).at(span, ""));
    }

    /// A key that the application has to have; `help` says what to do.
    pub(super) fn missing(&mut self, key: &str, why: &str, help: &[&str]) {
        let of = self.context.name.map(|name| format!(" in the application `{name}`")).unwrap_or_default();
        let mut diagnostic = Diagnostic::error(&rule::MISSING_KEY, format!("`{key}` is missing{of}"))
            .at(self.context.place, why);
        if let Some(null) = self.node.find([key]) {
            diagnostic = diagnostic.at(null.span, "a null takes the default away");
        }
        diagnostic.help.extend(help.iter().map(|&text| text.to_owned()));
        self.found.push(diagnostic);
    }

    /// An absolute path, or the default.
    pub(super) fn path(
        &mut self,
        steps: &[&str],
        given: Option<String>,
        default: impl FnOnce() -> String,
    ) -> String {
        let Some(path) = given else { return default() };
        match paths::absolute(&path) {
            Ok(()) => path,
            Err(reason) => {
                self.complain(&rule::PATH, steps, format!("`{}`: {reason}", steps.join(".")));
                // What is built upon it is not to be complained about as well.
                default()
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        steps: &[&str],
        given: Option<DurationInput>,
        default: Duration,
    ) -> Duration {
        given.map_or(default, |input| {
            Duration::parse(&input).unwrap_or_else(|reason| {
                self.complain(&rule::DURATION, steps, format!("`{}`: {reason}", steps.join(".")));
                default
            })
        })
    }
}
