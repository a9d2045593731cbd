//! Text in, values that remember their span out.

mod select;

use crate::source::Span;

pub use select::{Application, select};

/// How a scalar was written; a quoted one is a string in every dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bare: the dialect decides what it is.
    Plain,
    /// `'…'` or `"…"`.
    Quoted,
    /// `|` or `>`.
    Block,
    /// Not a scalar.
    Collection,
}

/// Whose reading of YAML counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Salt's loader: PyYAML's YAML 1.1, leading zeros of integers dropped, no dates, strict on duplicates.
    #[default]
    Salt,
    /// Ansible's loader: PyYAML's YAML 1.1, octal integers, dates, the last duplicate wins.
    Ansible,
    /// YAML 1.2's core schema.
    Yaml12,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it was written; for an alias, where the anchor's value was written.
    pub span: Span,
    /// Where it was called in: the alias or the merge key, if it came by one.
    pub via: Option<Span>,
    /// How it was written.
    pub style: Style,
    /// What the dialect makes of it.
    pub value: Value,
}

/// What a dialect makes of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any size.
    Int(Int),
    /// A floating point number, `.inf` and `.nan` among them.
    Float(f64),
    /// Text.
    Str(String),
    /// `!!binary`.
    Bytes(Vec<u8>),
    /// A date or time (Ansible), as Python's `isoformat()` writes it.
    Timestamp(String),
    /// Ansible's `!vault`: the ciphertext.
    Vault(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order it was written, each key once.
    Map(Vec<Pair>),
}

/// An integer as Python has it: without bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Int {
    /// What fits.
    Small(i64),
    /// What does not, in decimal.
    Big(String),
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The key; nearly always a string, but YAML lets it be anything.
    pub key: Node,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The value of the string key `name`, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Pair> {
        match &self.value {
            Value::Map(pairs) => {
                pairs.iter().find(|pair| matches!(&pair.key.value, Value::Str(key) if key == name))
            }
            _ => None,
        }
    }

    /// The place of the value at `steps` (keys, or indexes of a list); the deepest one on the way that exists.
    pub fn locate<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> Span {
        let mut node = self;
        for step in steps {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.span
    }

    /// A node at the same place that holds nothing.
    fn hollow(&self) -> Self {
        Self { span: self.span, via: self.via, style: self.style, value: Value::Null }
    }

    /// The value at `steps`, if there is one.
    pub fn find<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        steps.into_iter().try_fold(self, |node, step| node.child(step))
    }

    /// The place of the key `key` of the map at `steps`.
    pub fn key_span<'a>(&self, steps: impl IntoIterator<Item = &'a str>, key: &str) -> Span {
        let map = self.find(steps).unwrap_or(self);
        map.get(key).map_or(map.span, |pair| pair.key.span)
    }

    /// Whether there is a value at `steps`.
    pub fn has(&self, steps: &[&str]) -> bool {
        let mut node = self;
        steps.iter().all(|step| node.child(step).map(|child| node = child).is_some())
    }

    fn child(&self, step: &str) -> Option<&Self> {
        match &self.value {
            Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => self.get(step).map(|pair| &pair.value),
        }
    }
}
