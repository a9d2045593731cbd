//! Splits a text into events as YAML 1.2 does: granit-parser's events in our words.

use super::event::{Event, Events, Properties, Range, SyntaxError};
use super::{MAX_DEPTH, Style};
use granit_parser::{Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::borrow::Cow;

/// How far the scanner looks ahead for the colon of a key, and a little more.
const LOOKAHEAD: usize = 1100;

/// The scanner of the dialect `yaml1.2`.
pub(super) struct Scanner<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            emit_unresolved_aliases: true,
            // More than is accepted, and than the scanner looks ahead: the composer says it first.
            flow_nesting_limit: MAX_DEPTH + LOOKAHEAD,
            block_nesting_limit: MAX_DEPTH + LOOKAHEAD,
        };
        Self { parser: Parser::new_from_str_with_options(text, options) }
    }
}

impl<'a> Events<'a> for Scanner<'a> {
    fn next_event(&mut self) -> Result<(Event<'a>, Range), SyntaxError> {
        loop {
            let (event, span) = match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Range::default())),
                Some(Ok(found)) => found,
                Some(Err(error)) => return Err(syntax_error(&error)),
            };
            let range = range(&span);
            let event = match event {
                granit_parser::Event::StreamEnd => Event::StreamEnd,
                granit_parser::Event::DocumentStart(..) => Event::DocumentStart,
                granit_parser::Event::DocumentEnd => Event::DocumentEnd,
                // An anchor that is given twice has two numbers, so the numbers can be the names.
                granit_parser::Event::Alias(anchor) => Event::Alias(anchor.to_string().into()),
                granit_parser::Event::UnresolvedAlias(name) => Event::Alias(name),
                granit_parser::Event::Scalar(value, style, anchor, tag) => Event::Scalar {
                    properties: properties(anchor, tag.as_deref(), &span),
                    value,
                    style: match style {
                        ScalarStyle::Plain => Style::Plain,
                        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    },
                },
                granit_parser::Event::SequenceStart(_, anchor, tag) => {
                    Event::ListStart(properties(anchor, tag.as_deref(), &span))
                }
                granit_parser::Event::MappingStart(_, anchor, tag) => {
                    Event::MapStart(properties(anchor, tag.as_deref(), &span))
                }
                granit_parser::Event::SequenceEnd | granit_parser::Event::MappingEnd => Event::CollectionEnd,
                _ => continue,
            };
            return Ok((event, range));
        }
    }
}

fn range(span: &granit_parser::Span) -> Range {
    let bytes = span.byte_range().unwrap_or_default();
    Range { start: bytes.start as u32, end: bytes.end as u32 }
}

fn properties<'a>(anchor: usize, tag: Option<&Tag>, span: &granit_parser::Span) -> Properties<'a> {
    let place = span.tag_span().map(|span| range(&span)).unwrap_or_default();
    Properties {
        anchor: (anchor != 0).then(|| Cow::Owned(anchor.to_string())),
        tag: tag.map(|tag| (Cow::Owned(format!("{}{}", tag.handle(), tag.suffix())), place)),
    }
}

fn syntax_error(error: &ScanError) -> SyntaxError {
    SyntaxError {
        problem: error.info().into(),
        at: error.marker().byte_offset().unwrap_or_default() as u32,
        context: None,
    }
}
