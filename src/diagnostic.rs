//! What is wrong with a user's text: a value, which `report` turns into words.

mod kept;

pub use kept::Kept;

use crate::rule::Rule;
use crate::source::Span;

/// So many findings are printed, the first ones by place. Nobody reads more, and a file can have millions.
pub const MOST_PRINTED: usize = 10_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The pillar cannot be used as it is.
    Error,
    /// It can be used, and somebody will regret it.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word printed before the message.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A place in a source with what is to be said there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What stands beside the carets; may be empty.
    pub text: String,
    /// The text under the span is a secret: no excerpt may show it.
    pub hidden: bool,
}

/// A text to be put in the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edit {
    /// What goes.
    pub span: Span,
    /// What comes; it may be empty.
    pub text: String,
}

/// What would make a finding go away.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fix {
    /// All of them, or none; no two overlap.
    pub edits: Vec<Edit>,
    /// Whether the dialect reads the same values as before.
    pub is_safe: bool,
}

impl Fix {
    /// Puts `text` in the place of `span`; the dialect reads the same value.
    pub fn safe(span: Span, text: impl Into<String>) -> Self {
        Self { edits: vec![Edit { span, text: text.into() }], is_safe: true }
    }

    /// Puts `text` in the place of `span`; the dialect reads another value, which is probably meant.
    pub fn risky(span: Span, text: impl Into<String>) -> Self {
        Self { is_safe: false, ..Self::safe(span, text) }
    }

    /// Puts double quotes around what stands at `span`, by which the dialect reads a text.
    pub fn quoting(span: Span) -> Self {
        let edit = |at: u32| Edit { span: Span { start: at, end: at, ..span }, text: "\"".to_owned() };
        Self { edits: vec![edit(span.start), edit(span.end)], is_safe: false }
    }
}

/// One finding: a rule, a sentence, the places it speaks of, and what to do about it.
///
/// A message never quotes the value of a secret: whoever makes one knows which values those are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// What `runsmith rule` tells about it.
    pub rule: &'static Rule,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where; the first one is the place it is about, the others explain.
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Vec<String>,
    /// What `validate --fix` would write.
    pub fix: Option<Fix>,
}

/// What a finding says, and where.
pub type Said<'a> = (&'static str, Severity, &'a str, &'a [Label], &'a [String]);

impl Diagnostic {
    /// What it says: two that say the same are one for whoever reads them, whatever would correct them.
    pub fn said(&self) -> Said<'_> {
        (self.rule.name, self.severity, &self.message, &self.labels, &self.help)
    }

    /// An error found by `rule`.
    pub fn error(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity: Severity::Error,
            message: message.into(),
            labels: vec![],
            help: vec![],
            fix: None,
        }
    }

    /// A warning found by `rule`.
    pub fn warning(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, message) }
    }

    /// Adds a place; the first one added is the place the finding is about.
    #[must_use]
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into(), hidden: false });
        self
    }

    /// Adds a place whose text is a secret: it is pointed at and never shown.
    #[must_use]
    pub fn at_hidden(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into(), hidden: true });
        self
    }

    /// The place added last holds a secret, which is not to be shown.
    #[must_use]
    pub fn hide(mut self) -> Self {
        if let Some(label) = self.labels.last_mut() {
            label.hidden = true;
        }
        self
    }

    /// As [`hide`](Self::hide), if `secret`.
    #[must_use]
    pub fn hide_if(self, secret: bool) -> Self {
        if secret { self.hide() } else { self }
    }

    /// Adds a sentence on what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Adds what would make it go away.
    #[must_use]
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }

    /// Takes the sentences away, which cost the most memory.
    pub fn strip(&mut self) {
        self.message = String::new();
        self.labels.iter_mut().for_each(|label| label.text = String::new());
        self.labels.shrink_to_fit();
        self.help = vec![];
        self.fix = None;
    }

    /// Whether its sentences are [gone](Self::strip): it counts, and is not printed.
    pub fn is_bare(&self) -> bool {
        self.message.is_empty()
    }

    /// The place it is about, if it has one.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}
