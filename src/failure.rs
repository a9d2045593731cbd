//! The world refusing: a file that cannot be read or written, a template that cannot be used.
//! The first failure ends a command, after all that has nothing to do with it (`validate --fix`); a user's wrong text is a [`Diagnostic`](crate::diagnostic) instead.

use std::fmt;

use crate::visible::without_numbers;

use crate::visible::visible;

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
    /// These paths hold what runsmith did not make, and must not be changed without permission.
    Foreign(Vec<Foreign>),
    /// Something asked for on the command line cannot be done.
    Usage(String),
    /// A template does not fit the model or is not a template.
    Template(String),
}

/// Something at a wanted path that no record names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The path, as the entry has it, below ROOT.
    pub path: String,
    /// What is there: `file`, `directory` or `link`.
    pub kind: &'static str,
    /// What would be changed of it, in words.
    pub change: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a {}, to be changed: {}", visible(&self.path), self.kind, self.change)
    }
}

impl Failure {
    /// The paths that runsmith did not make, if they are what failed.
    pub fn foreign(&self) -> &[Foreign] {
        match self {
            Self::Foreign(things) => things,
            _ => &[],
        }
    }

    /// `verb` and `path` failed for `reason`.
    pub fn path(verb: &'static str, path: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Path { verb, path: path.into(), reason: without_numbers(&reason.to_string()).into_owned() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { verb, path, reason } => write!(f, "cannot {verb} {path}: {reason}"),
            Self::Foreign(things) => {
                let (paths, them) = if things.len() == 1 { ("path", "it") } else { ("paths", "them") };
                writeln!(
                    f,
                    "runsmith did not make what is at {} {paths}, and nothing was changed:",
                    things.len()
                )?;
                for thing in things {
                    writeln!(f, "  {thing}")?;
                }
                write!(
                    f,
                    "move {them} away, name another place in the pillar, or use --adopt, which takes {them} over and keeps \
                     the old version below /var/lib/runsmith/backup"
                )
            }
            Self::Usage(sentence) | Self::Template(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Failure {}
