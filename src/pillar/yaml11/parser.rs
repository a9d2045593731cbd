//! Tokens to events: libyaml's `parser.c`.

use super::scanner::Scanner;
use super::token::{Kind, Mark, Result, error};
use crate::pillar::Style;
use crate::pillar::event::{Event, Events, Properties, Range, SyntaxError};
use std::borrow::Cow;

/// More `%TAG` lines than anybody writes; libyaml looks through all of them for each one.
const MOST_TAG_DIRECTIVES: usize = 100;

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    ImplicitDocumentStart,
    DocumentStart,
    DocumentContent,
    DocumentEnd,
    BlockSequenceFirstEntry,
    BlockSequenceEntry,
    IndentlessSequenceEntry,
    BlockMappingFirstKey,
    BlockMappingKey,
    BlockMappingValue,
    FlowSequenceFirstEntry,
    FlowSequenceEntry,
    FlowSequenceEntryMappingKey,
    FlowSequenceEntryMappingValue,
    FlowSequenceEntryMappingEnd,
    FlowMappingFirstKey,
    FlowMappingKey,
    FlowMappingValue,
    FlowMappingEmptyValue,
    BlockNode,
    End,
}

/// The scanner of the dialects `salt` and `ansible`.
#[derive(Debug)]
pub(in crate::pillar) struct Parser<'a> {
    pub(super) scanner: Scanner<'a>,
    pub(super) state: State,
    pub(super) states: Vec<State>,
    /// Where the open collections began.
    marks: Vec<Mark>,
    tag_directives: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

pub(super) type Found<'a> = Result<(Event<'a>, Range)>;

pub(super) fn range(start: Mark, end: Mark) -> Range {
    Range { start: start.byte, end: end.byte }
}

pub(super) fn empty_scalar<'a>(at: Mark) -> Found<'a> {
    let event = Event::Scalar { properties: Properties::default(), value: "".into(), style: Style::Plain };
    Ok((event, range(at, at)))
}

impl<'a> Events<'a> for Parser<'a> {
    fn next_event(&mut self) -> std::result::Result<(Event<'a>, Range), SyntaxError> {
        match self.state {
            State::ImplicitDocumentStart => self.document_start(true),
            State::DocumentStart => self.document_start(false),
            State::DocumentContent => self.document_content(),
            State::DocumentEnd => self.document_end(),
            State::BlockNode => self.node(true, false),
            State::BlockSequenceFirstEntry => self.block_sequence_entry(true),
            State::BlockSequenceEntry => self.block_sequence_entry(false),
            State::IndentlessSequenceEntry => self.indentless_sequence_entry(),
            State::BlockMappingFirstKey => self.block_mapping_key(true),
            State::BlockMappingKey => self.block_mapping_key(false),
            State::BlockMappingValue => self.block_mapping_value(),
            State::FlowSequenceFirstEntry => self.flow_sequence_entry(true),
            State::FlowSequenceEntry => self.flow_sequence_entry(false),
            State::FlowSequenceEntryMappingKey => self.flow_sequence_entry_mapping_key(),
            State::FlowSequenceEntryMappingValue => self.flow_sequence_entry_mapping_value(),
            State::FlowSequenceEntryMappingEnd => self.flow_sequence_entry_mapping_end(),
            State::FlowMappingFirstKey => self.flow_mapping_key(true),
            State::FlowMappingKey => self.flow_mapping_key(false),
            State::FlowMappingValue => self.flow_mapping_value(false),
            State::FlowMappingEmptyValue => self.flow_mapping_value(true),
            State::End => Ok((Event::StreamEnd, Range::default())),
        }
    }
}

impl<'a> Parser<'a> {
    pub(in crate::pillar) fn new(text: &'a str) -> Self {
        Self {
            scanner: Scanner::new(text),
            state: State::ImplicitDocumentStart,
            states: Vec::new(),
            marks: Vec::new(),
            tag_directives: Vec::new(),
        }
    }

    fn pop_state(&mut self) {
        self.state = self.states.pop().unwrap_or(State::End);
    }

    fn document_start(&mut self, implicit: bool) -> Found<'a> {
        if !implicit {
            while matches!(self.scanner.peek()?.kind, Kind::DocumentEnd) {
                self.scanner.skip();
            }
        }
        let token = self.scanner.peek()?;
        let start = token.start;
        let bare = !matches!(
            token.kind,
            Kind::VersionDirective(..) | Kind::TagDirective(..) | Kind::DocumentStart | Kind::StreamEnd
        );
        if matches!(token.kind, Kind::StreamEnd) {
            self.state = State::End;
            return Ok((Event::StreamEnd, range(start, start)));
        }
        self.process_directives()?;
        if implicit && bare {
            self.states.push(State::DocumentEnd);
            self.state = State::BlockNode;
            return Ok((Event::DocumentStart, range(start, start)));
        }
        let token = self.scanner.peek()?;
        let (at, end) = (token.start, token.end);
        if !matches!(token.kind, Kind::DocumentStart) {
            return error("", at, "did not find expected <document start>", at);
        }
        self.scanner.skip();
        self.states.push(State::DocumentEnd);
        self.state = State::DocumentContent;
        Ok((Event::DocumentStart, range(start, end)))
    }

    fn process_directives(&mut self) -> Result<()> {
        let mut version_seen = false;
        loop {
            let token = self.scanner.peek()?;
            let at = token.start;
            match &mut token.kind {
                Kind::VersionDirective(major, minor) => {
                    if version_seen {
                        return error("", at, "found duplicate %YAML directive", at);
                    }
                    if *major != 1 || !matches!(minor, 1 | 2) {
                        return error("", at, "found incompatible YAML document", at);
                    }
                    version_seen = true;
                }
                Kind::TagDirective(handle, prefix) => {
                    let (handle, prefix) = (std::mem::take(handle), std::mem::take(prefix));
                    if self.tag_directives.iter().any(|(known, _)| *known == handle) {
                        return error("", at, "found duplicate %TAG directive", at);
                    }
                    if self.tag_directives.len() >= MOST_TAG_DIRECTIVES {
                        return error("", at, "found more %TAG directives than are read", at);
                    }
                    self.tag_directives.push((handle, prefix));
                }
                _ => break,
            }
            self.scanner.skip();
        }
        for (handle, prefix) in [("!", "!"), ("!!", "tag:yaml.org,2002:")] {
            if !self.tag_directives.iter().any(|(known, _)| known == handle) {
                self.tag_directives.push((handle.into(), prefix.into()));
            }
        }
        Ok(())
    }

    fn document_content(&mut self) -> Found<'a> {
        let token = self.scanner.peek()?;
        if matches!(
            token.kind,
            Kind::VersionDirective(..)
                | Kind::TagDirective(..)
                | Kind::DocumentStart
                | Kind::DocumentEnd
                | Kind::StreamEnd
        ) {
            let at = token.start;
            self.pop_state();
            return empty_scalar(at);
        }
        self.node(true, false)
    }

    fn document_end(&mut self) -> Found<'a> {
        let token = self.scanner.peek()?;
        let (start, end) = (token.start, token.end);
        if matches!(token.kind, Kind::DocumentEnd) {
            self.scanner.skip();
        }
        self.tag_directives.clear();
        self.state = State::DocumentStart;
        Ok((Event::DocumentEnd, range(start, end)))
    }

    /// An alias, or properties and content.
    pub(super) fn node(&mut self, block: bool, indentless: bool) -> Found<'a> {
        let token = self.scanner.peek()?;
        let start = token.start;
        if let Kind::Alias(name) = token.kind {
            let place = range(start, token.end);
            self.scanner.skip();
            self.pop_state();
            return Ok((Event::Alias(name.into()), place));
        }
        let (properties, end_of_properties) = self.properties(start)?;
        let token = self.scanner.peek()?;
        let place = range(token.start, token.end);
        let at = token.start;
        let (event, state) = match &mut token.kind {
            Kind::BlockEntry if indentless => (Event::ListStart(properties), State::IndentlessSequenceEntry),
            Kind::Scalar(value, style) => {
                let event = Event::Scalar { properties, value: std::mem::take(value), style: *style };
                self.scanner.skip();
                self.pop_state();
                return Ok((event, place));
            }
            Kind::FlowSequenceStart => (Event::ListStart(properties), State::FlowSequenceFirstEntry),
            Kind::FlowMappingStart => (Event::MapStart(properties), State::FlowMappingFirstKey),
            Kind::BlockSequenceStart if block => {
                (Event::ListStart(properties), State::BlockSequenceFirstEntry)
            }
            Kind::BlockMappingStart if block => (Event::MapStart(properties), State::BlockMappingFirstKey),
            _ if properties.anchor.is_some() || properties.tag.is_some() => {
                self.pop_state();
                // A lone `!` with nothing after it is an empty string, not null.
                let properties = match properties.tag {
                    Some((tag, at)) if tag == "!" => {
                        Properties { tag: Some(("tag:yaml.org,2002:str".into(), at)), ..properties }
                    }
                    _ => properties,
                };
                let event = Event::Scalar { properties, value: "".into(), style: Style::Plain };
                return Ok((event, Range { start: end_of_properties, end: end_of_properties }));
            }
            _ => {
                let context = if block { "while parsing a block node" } else { "while parsing a flow node" };
                return error(context, start, "did not find expected node content", at);
            }
        };
        self.state = state;
        Ok((event, place))
    }

    /// An anchor and a tag in either order, and where they end.
    fn properties(&mut self, start: Mark) -> Result<(Properties<'a>, u32)> {
        let mut properties = Properties::default();
        let mut end = start;
        for _ in 0..2 {
            let token = self.scanner.peek()?;
            let (from, to) = (token.start, token.end);
            match &mut token.kind {
                Kind::Anchor(name) if properties.anchor.is_none() => {
                    properties.anchor = Some((*name).into());
                }
                Kind::Tag(handle, suffix) if properties.tag.is_none() => {
                    let (handle, suffix) = (std::mem::take(handle), std::mem::take(suffix));
                    let tag = if handle.is_empty() {
                        suffix
                    } else {
                        match self.tag_directives.iter().find(|(known, _)| *known == handle) {
                            Some((_, prefix)) => format!("{prefix}{suffix}").into(),
                            None => {
                                return error(
                                    "while parsing a node",
                                    start,
                                    "found undefined tag handle",
                                    from,
                                );
                            }
                        }
                    };
                    properties.tag = Some((tag, range(from, to)));
                }
                _ => break,
            }
            end = to;
            self.scanner.skip();
        }
        Ok((properties, end.byte))
    }

    /// Past the token that opened a collection, which errors in it point to.
    pub(super) fn open(&mut self) -> Result<()> {
        let start = self.scanner.peek()?.start;
        self.marks.push(start);
        self.scanner.skip();
        Ok(())
    }

    pub(super) fn close(&mut self, closing: bool) -> Found<'a> {
        let token = self.scanner.peek()?;
        let place = if closing { range(token.start, token.end) } else { range(token.start, token.start) };
        self.scanner.skip();
        self.marks.pop();
        self.pop_state();
        Ok((Event::CollectionEnd, place))
    }

    pub(super) fn unexpected(&mut self, context: &'static str, problem: &'static str, at: Mark) -> Found<'a> {
        let from = self.marks.pop().unwrap_or(at);
        error(context, from, problem, at)
    }

    fn block_sequence_entry(&mut self, first: bool) -> Found<'a> {
        if first {
            self.open()?;
        }
        let token = self.scanner.peek()?;
        let (start, end) = (token.start, token.end);
        match token.kind {
            Kind::BlockEntry => {
                self.scanner.skip();
                if matches!(self.scanner.peek()?.kind, Kind::BlockEntry | Kind::BlockEnd) {
                    self.state = State::BlockSequenceEntry;
                    return empty_scalar(end);
                }
                self.states.push(State::BlockSequenceEntry);
                self.node(true, false)
            }
            Kind::BlockEnd => self.close(false),
            _ => self.unexpected(
                "while parsing a block collection",
                "did not find expected '-' indicator",
                start,
            ),
        }
    }

    fn indentless_sequence_entry(&mut self) -> Found<'a> {
        let token = self.scanner.peek()?;
        let (start, end) = (token.start, token.end);
        if !matches!(token.kind, Kind::BlockEntry) {
            self.pop_state();
            return Ok((Event::CollectionEnd, range(start, start)));
        }
        self.scanner.skip();
        if matches!(self.scanner.peek()?.kind, Kind::BlockEntry | Kind::Key | Kind::Value | Kind::BlockEnd) {
            self.state = State::IndentlessSequenceEntry;
            return empty_scalar(end);
        }
        self.states.push(State::IndentlessSequenceEntry);
        self.node(true, false)
    }

    fn block_mapping_key(&mut self, first: bool) -> Found<'a> {
        if first {
            self.open()?;
        }
        let token = self.scanner.peek()?;
        let (start, end) = (token.start, token.end);
        match token.kind {
            Kind::Key => {
                self.scanner.skip();
                if matches!(self.scanner.peek()?.kind, Kind::Key | Kind::Value | Kind::BlockEnd) {
                    self.state = State::BlockMappingValue;
                    return empty_scalar(end);
                }
                self.states.push(State::BlockMappingValue);
                self.node(true, true)
            }
            Kind::BlockEnd => self.close(false),
            _ => self.unexpected("while parsing a block mapping", "did not find expected key", start),
        }
    }

    fn block_mapping_value(&mut self) -> Found<'a> {
        let token = self.scanner.peek()?;
        let (start, end) = (token.start, token.end);
        if !matches!(token.kind, Kind::Value) {
            self.state = State::BlockMappingKey;
            return empty_scalar(start);
        }
        self.scanner.skip();
        if matches!(self.scanner.peek()?.kind, Kind::Key | Kind::Value | Kind::BlockEnd) {
            self.state = State::BlockMappingKey;
            return empty_scalar(end);
        }
        self.states.push(State::BlockMappingKey);
        self.node(true, true)
    }
}
