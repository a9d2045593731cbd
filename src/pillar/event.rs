//! What a YAML scanner says about a text, in the order it stands there.
//!
//! Two scanners speak it: [`super::yaml11`] splits a text as libyaml does, which is what Salt and
//! Ansible use; [`super::yaml12`] splits it as YAML 1.2 does.

use super::Style;
use std::borrow::Cow;

/// A range of bytes of the text being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// What stands before a node: `&anchor` and `!tag`.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties<'a> {
    pub(super) anchor: Option<Cow<'a, str>>,
    /// The tag with its handle resolved, and where it stands.
    pub(super) tag: Option<(Cow<'a, str>, Range)>,
}

/// One thing found; its place is told beside it.
#[derive(Clone, Debug)]
pub(super) enum Event<'a> {
    DocumentStart,
    DocumentEnd,
    StreamEnd,
    Alias(Cow<'a, str>),
    Scalar {
        properties: Properties<'a>,
        value: Cow<'a, str>,
        style: Style,
    },
    ListStart(Properties<'a>),
    MapStart(Properties<'a>),
    /// The end of a list or map; an empty range if nothing in the text marks it.
    CollectionEnd,
}

/// Why a text cannot be split any further.
#[derive(Clone, Debug)]
pub(super) struct SyntaxError {
    pub(super) problem: Cow<'static, str>,
    /// Byte offset of the problem.
    pub(super) at: u32,
    /// What was being read, and where it began.
    pub(super) context: Option<(&'static str, u32)>,
}

/// A scanner: one event a call; after an error or the end of the stream it is not asked again.
pub(super) trait Events<'a> {
    fn next_event(&mut self) -> Result<(Event<'a>, Range), SyntaxError>;
}
