//! The world refusing: a file that cannot be read or written, a template that cannot be used.
//! The first failure ends a command, after all that has nothing to do with it (`validate --fix`); a user's wrong text is a [`Diagnostic`](crate::diagnostic) instead.

use std::fmt;

/// What was tried, on what, and the system's reason.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// A path could not be read, written, or changed.
    Path {
        /// What was tried: "read", "write", "make the directory".
        verb: &'static str,
        /// On which path.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// Something asked for on the command line cannot be done.
    Usage(String),
    /// A template does not fit the model or is not a template.
    Template(String),
}

impl Failure {
    /// `verb` and `path` failed for `reason`.
    pub fn path(verb: &'static str, path: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Path { verb, path: path.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { verb, path, reason } => write!(f, "cannot {verb} {path}: {reason}"),
            Self::Usage(sentence) | Self::Template(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Failure {}
