//! What the scanner hands to the parser.

use crate::pillar::Style;
use crate::pillar::event::SyntaxError;
use std::borrow::Cow;

/// A place in the text. libyaml counts lines, columns and indices in characters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// Byte offset.
    pub(super) byte: u32,
    /// Characters before it.
    pub(super) index: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Kind<'a> {
    StreamEnd,
    VersionDirective(u32, u32),
    TagDirective(Cow<'a, str>, Cow<'a, str>),
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(&'a str),
    Anchor(&'a str),
    Tag(Cow<'a, str>, Cow<'a, str>),
    Scalar(Cow<'a, str>, Style),
}

#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) start: Mark,
    pub(super) end: Mark,
}

/// What may turn out to be a mapping's key once a `:` follows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SimpleKey {
    pub(super) possible: bool,
    pub(super) required: bool,
    pub(super) token_number: usize,
    pub(super) mark: Mark,
}

pub(super) type Result<T> = std::result::Result<T, SyntaxError>;

/// An error at `at`, found while reading what began at `from`.
pub(super) fn error<T>(context: &'static str, from: Mark, problem: &'static str, at: Mark) -> Result<T> {
    let context = (!context.is_empty()).then_some((context, from.byte));
    Err(SyntaxError { problem: problem.into(), at: at.byte, context })
}
