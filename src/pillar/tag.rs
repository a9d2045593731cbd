//! Tags, written or implied: what a dialect takes a node for.

use super::event::{Properties, Range};
use super::number::{is_float_11, is_float_12, is_int_11, is_int_12};
use super::time::is_timestamp;
use super::{Dialect, Style};
use std::borrow::Cow;

/// What a node is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Str,
    Int,
    Float,
    Bool,
    Null,
    Timestamp,
    Binary,
    /// `<<`
    Merge,
    /// `=`: PyYAML knows it as a key only.
    Value,
    List,
    Map,
    OrderedMap,
    Pairs,
    Set,
    Vault,
    Unsafe,
    /// One that the dialect does not know: its number in [`Tags`].
    Unknown(u32),
}

/// The tags of a document that its dialect does not know, with their places.
#[derive(Debug, Default)]
pub(super) struct Tags<'a>(Vec<(Cow<'a, str>, Range)>);

const CORE: &str = "tag:yaml.org,2002:";

impl<'a> Tags<'a> {
    pub(super) fn get(&self, number: u32) -> (&str, Range) {
        match self.0.get(number as usize) {
            Some((name, range)) => (name, *range),
            None => ("", Range::default()),
        }
    }

    pub(super) fn of_scalar(
        &mut self,
        dialect: Dialect,
        properties: &Properties<'a>,
        value: &str,
        style: Style,
    ) -> Tag {
        match &properties.tag {
            None if style == Style::Plain => implied(dialect, value),
            None => Tag::Str,
            // "Not specific": a string by YAML 1.2; libyaml takes the value for a plain one.
            Some((tag, _)) if tag == "!" => match dialect {
                Dialect::Yaml12 => Tag::Str,
                Dialect::Salt | Dialect::Ansible => implied(dialect, value),
            },
            Some((tag, range)) => self.known(dialect, tag, *range),
        }
    }

    pub(super) fn of_collection(
        &mut self,
        dialect: Dialect,
        properties: &Properties<'a>,
        default: Tag,
    ) -> Tag {
        match &properties.tag {
            None => default,
            Some((tag, _)) if tag == "!" => default,
            Some((tag, range)) => self.known(dialect, tag, *range),
        }
    }

    fn known(&mut self, dialect: Dialect, tag: &str, range: Range) -> Tag {
        let python = dialect != Dialect::Yaml12;
        let ansible = dialect == Dialect::Ansible;
        let known = match tag.strip_prefix(CORE) {
            Some("str") => Some(Tag::Str),
            Some("int") => Some(Tag::Int),
            Some("float") => Some(Tag::Float),
            Some("bool") => Some(Tag::Bool),
            Some("null") => Some(Tag::Null),
            Some("seq") => Some(Tag::List),
            Some("map") => Some(Tag::Map),
            Some("timestamp") if python => Some(Tag::Timestamp),
            Some("binary") if python => Some(Tag::Binary),
            Some("omap") if python => Some(Tag::OrderedMap),
            Some("pairs") if python => Some(Tag::Pairs),
            Some("set") if python => Some(Tag::Set),
            Some("python/unicode") if python => Some(Tag::Str),
            Some("python/dict") if ansible => Some(Tag::Map),
            // Known to the resolver; a key may be tagged so, a value may not.
            Some("merge") if python => Some(Tag::Merge),
            Some("value") if python => Some(Tag::Value),
            Some(_) => None,
            None => match tag {
                "!vault" | "!vault-encrypted" if ansible => Some(Tag::Vault),
                "!unsafe" if ansible => Some(Tag::Unsafe),
                _ => None,
            },
        };
        known.unwrap_or_else(|| {
            self.0.push((tag.to_owned().into(), range));
            Tag::Unknown(self.0.len() as u32 - 1)
        })
    }
}

/// What a dialect takes an untagged plain scalar for.
pub(super) fn implied(dialect: Dialect, value: &str) -> Tag {
    match dialect {
        Dialect::Salt | Dialect::Ansible => implied_11(value),
        Dialect::Yaml12 => implied_12(value),
    }
}

/// PyYAML's `resolver.py`: YAML 1.1 without `y` and `n`, and with its own idea of numbers.
fn implied_11(value: &str) -> Tag {
    let Some(first) = value.bytes().next() else { return Tag::Null };
    // Python's `$` also matches before a line break at the end, which `! |` and `!unsafe |` have.
    let text = value.strip_suffix('\n').unwrap_or(value);
    match first {
        b'0'..=b'9' | b'-' | b'+' | b'.' => {
            if is_float_11(text) {
                Tag::Float
            } else if is_int_11(text) {
                Tag::Int
            } else if is_timestamp(text) {
                Tag::Timestamp
            } else {
                Tag::Str
            }
        }
        b'~' if text == "~" => Tag::Null,
        b'<' if text == "<<" => Tag::Merge,
        b'=' if text == "=" => Tag::Value,
        b'n' | b'N' if matches!(text, "null" | "Null" | "NULL") => Tag::Null,
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' => match text {
            "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false" | "False"
            | "FALSE" | "on" | "On" | "ON" | "off" | "Off" | "OFF" => Tag::Bool,
            _ => Tag::Str,
        },
        _ => Tag::Str,
    }
}

/// YAML 1.2.2, section 10.3.2: the core schema.
fn implied_12(value: &str) -> Tag {
    match value.bytes().next() {
        None => Tag::Null,
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') if is_int_12(value) => Tag::Int,
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') if is_float_12(value) => Tag::Float,
        Some(b'~' | b'n' | b'N') if matches!(value, "~" | "null" | "Null" | "NULL") => Tag::Null,
        Some(b't' | b'T' | b'f' | b'F')
            if matches!(value, "true" | "True" | "TRUE" | "false" | "False" | "FALSE") =>
        {
            Tag::Bool
        }
        _ => Tag::Str,
    }
}
