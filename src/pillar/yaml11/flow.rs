//! Tokens to events inside `[…]` and `{…}`: libyaml's `parser.c`, the flow part.

use super::parser::{Found, Parser, State, empty_scalar, range};
use super::token::Kind;
use crate::pillar::event::{Event, Properties};

impl<'a> Parser<'a> {
    pub(super) fn flow_sequence_entry(&mut self, first: bool) -> Found<'a> {
        if first {
            self.open()?;
        } else if !matches!(self.scanner.peek()?.kind, Kind::FlowSequenceEnd) {
            let token = self.scanner.peek()?;
            let at = token.start;
            if !matches!(token.kind, Kind::FlowEntry) {
                return self.unexpected(
                    "while parsing a flow sequence",
                    "did not find expected ',' or ']'",
                    at,
                );
            }
            self.scanner.skip();
        }
        let token = self.scanner.peek()?;
        let place = range(token.start, token.end);
        match token.kind {
            Kind::Key => {
                self.scanner.skip();
                self.state = State::FlowSequenceEntryMappingKey;
                Ok((Event::MapStart(Properties::default()), place))
            }
            Kind::FlowSequenceEnd => self.close(true),
            _ => {
                self.states.push(State::FlowSequenceEntry);
                self.node(false, false)
            }
        }
    }

    pub(super) fn flow_sequence_entry_mapping_key(&mut self) -> Found<'a> {
        let token = self.scanner.peek()?;
        let end = token.end;
        if matches!(token.kind, Kind::Value | Kind::FlowEntry | Kind::FlowSequenceEnd) {
            // libyaml drops the token here, so `[? : x]` is an error of its own kind; so be it.
            self.scanner.skip();
            self.state = State::FlowSequenceEntryMappingValue;
            return empty_scalar(end);
        }
        self.states.push(State::FlowSequenceEntryMappingValue);
        self.node(false, false)
    }

    pub(super) fn flow_sequence_entry_mapping_value(&mut self) -> Found<'a> {
        if matches!(self.scanner.peek()?.kind, Kind::Value) {
            self.scanner.skip();
            if !matches!(self.scanner.peek()?.kind, Kind::FlowEntry | Kind::FlowSequenceEnd) {
                self.states.push(State::FlowSequenceEntryMappingEnd);
                return self.node(false, false);
            }
        }
        self.state = State::FlowSequenceEntryMappingEnd;
        empty_scalar(self.scanner.peek()?.start)
    }

    pub(super) fn flow_sequence_entry_mapping_end(&mut self) -> Found<'a> {
        let at = self.scanner.peek()?.start;
        self.state = State::FlowSequenceEntry;
        Ok((Event::CollectionEnd, range(at, at)))
    }

    pub(super) fn flow_mapping_key(&mut self, first: bool) -> Found<'a> {
        if first {
            self.open()?;
        } else if !matches!(self.scanner.peek()?.kind, Kind::FlowMappingEnd) {
            let token = self.scanner.peek()?;
            let at = token.start;
            if !matches!(token.kind, Kind::FlowEntry) {
                return self.unexpected(
                    "while parsing a flow mapping",
                    "did not find expected ',' or '}'",
                    at,
                );
            }
            self.scanner.skip();
        }
        match self.scanner.peek()?.kind {
            Kind::Key => {
                self.scanner.skip();
                let token = self.scanner.peek()?;
                if matches!(token.kind, Kind::Value | Kind::FlowEntry | Kind::FlowMappingEnd) {
                    let at = token.start;
                    self.state = State::FlowMappingValue;
                    return empty_scalar(at);
                }
                self.states.push(State::FlowMappingValue);
                self.node(false, false)
            }
            Kind::FlowMappingEnd => self.close(true),
            _ => {
                self.states.push(State::FlowMappingEmptyValue);
                self.node(false, false)
            }
        }
    }

    pub(super) fn flow_mapping_value(&mut self, empty: bool) -> Found<'a> {
        if !empty && matches!(self.scanner.peek()?.kind, Kind::Value) {
            self.scanner.skip();
            if !matches!(self.scanner.peek()?.kind, Kind::FlowEntry | Kind::FlowMappingEnd) {
                self.states.push(State::FlowMappingKey);
                return self.node(false, false);
            }
        }
        self.state = State::FlowMappingKey;
        empty_scalar(self.scanner.peek()?.start)
    }
}
