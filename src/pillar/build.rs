//! A graph to a tree: aliases followed, mappings merged, scalars made values. What PyYAML's
//! `constructor.py` does, with Salt's and Ansible's changes to it.

use super::event::Range;
use super::graph::{Content, Entry, Graph, Link};
use super::tag::{Tag, implied};
use super::{
    Dialect, MAX_DEPTH, MAX_EXPANSION, MOST_FINDINGS, Node, Pair, Style, Value, base64, number, time,
};
use crate::diagnostic::{Diagnostic, Severity};
use crate::rule;
use crate::source::{SourceId, Span};

pub(super) struct Builder<'g, 'a> {
    pub(super) graph: &'g mut Graph<'a>,
    pub(super) dialect: Dialect,
    source: SourceId,
    /// Bytes that aliases and merge keys have copied so far, in this document and those before it.
    expanded: &'g mut usize,
    /// Those before it.
    expanded_before: usize,
    findings: &'g mut Vec<Diagnostic>,
    /// Set when going on would only repeat what was said.
    gave_up: bool,
    look_for_jinja: bool,
    /// The first string that still has Jinja in it.
    jinja: Option<Range>,
}

/// How a node is reached.
#[derive(Clone, Copy)]
struct Way {
    /// The outermost alias or merge key on it.
    via: Option<Range>,
    /// Whether the node may be reached again: then it is copied, else taken.
    shared: bool,
    depth: usize,
    /// Under `!unsafe`, where Ansible leaves braces alone.
    literal: bool,
}

/// The tree of a graph without flaws; findings are added to `findings`, and there is no tree if one
/// of them is an error. Beside it where Jinja was found, if `look_for_jinja`. What aliases and merge keys copy is added to
/// `expanded`.
pub(super) fn build(
    graph: &mut Graph<'_>,
    dialect: Dialect,
    source: SourceId,
    look_for_jinja: bool,
    expanded: &mut usize,
    findings: &mut Vec<Diagnostic>,
) -> (Option<Node>, Option<Range>) {
    let Some(root) = graph.root else { return (None, None) };
    let raw = &graph.nodes[root.node as usize];
    if matches!(&raw.content, Content::Scalar(text) if text.is_empty() && raw.tag == Tag::Null) {
        return (None, None);
    }
    let mut builder = Builder {
        graph,
        dialect,
        source,
        expanded_before: *expanded,
        expanded,
        findings,
        gave_up: false,
        look_for_jinja,
        jinja: None,
    };
    let node = builder.node(root, Way { via: None, shared: false, depth: 0, literal: false });
    (node, builder.jinja)
}

impl Builder<'_, '_> {
    pub(super) fn span(&self, range: Range) -> Span {
        Span { source: self.source, start: range.start, end: range.end }
    }

    /// Adds a finding unless it was made before: an alias leads to the same place again and again.
    pub(super) fn found(&mut self, finding: Diagnostic) {
        let enough = self.findings.len() >= MOST_FINDINGS;
        let is_error = finding.severity == Severity::Error;
        if self.gave_up || (enough && !is_error) {
            return;
        }
        let known = |other: &Diagnostic| other.rule == finding.rule && other.span() == finding.span();
        if self.findings.iter().any(known) {
            return;
        }
        self.findings.push(finding);
        self.gave_up = is_error && enough;
    }

    /// Counts what an alias or a merge key copies.
    pub(super) fn charge(&mut self, bytes: usize, at: Range) -> Option<()> {
        *self.expanded = self.expanded.saturating_add(bytes);
        if *self.expanded <= MAX_EXPANSION {
            return Some(());
        }
        let message = match self.expanded_before {
            0 => "aliases and merge keys blow this document up beyond all measure",
            _ => "up to this document, aliases and merge keys blow the pillars up beyond all measure",
        };
        let finding = Diagnostic::error(&rule::ALIAS_BOMB, message)
            .at(self.span(at), "expanded again and again")
            .help("Write the values out, or refer to fewer of them.");
        self.give_up(finding);
        None
    }

    /// Says this and nothing else: the rest would only repeat it.
    fn give_up(&mut self, finding: Diagnostic) {
        self.findings.clear();
        self.findings.push(finding);
        self.gave_up = true;
    }

    pub(super) fn too_deep(&mut self, at: Range) {
        let finding = super::too_deep(self.span(at));
        self.give_up(finding);
    }

    fn node(&mut self, link: Link, way: Way) -> Option<Node> {
        let tag = self.graph.nodes[link.node as usize].tag;
        self.tagged(link, tag, way)
    }

    /// The node read as if it had that tag.
    fn tagged(&mut self, link: Link, tag: Tag, way: Way) -> Option<Node> {
        if self.gave_up {
            return None;
        }
        let raw = &self.graph.nodes[link.node as usize];
        let (range, style) = (raw.range, raw.style);
        let way = Way {
            via: way.via.or(link.via),
            shared: way.shared || raw.anchored || link.via.is_some(),
            ..way
        };
        if way.depth > MAX_DEPTH {
            self.too_deep(way.via.unwrap_or(range));
            return None;
        }
        if let Some(via) = way.via {
            let text = match &raw.content {
                Content::Scalar(text) => text.len(),
                _ => 0,
            };
            self.charge(size_of::<Node>() + text, via)?;
        }
        let value = match tag {
            Tag::Unsafe | Tag::Vault => return self.unsafe_or_vault(link, tag, way),
            Tag::List => self.list(link, way)?,
            Tag::Map => Value::Map(self.map(link, way)?),
            Tag::OrderedMap if self.dialect == Dialect::Salt => Value::Map(self.map(link, way)?),
            Tag::OrderedMap | Tag::Pairs => self.pairs(link, way)?,
            // Python makes a set of it, which is a list to everybody else.
            Tag::Set => Value::List(self.map(link, way)?.into_iter().map(|pair| pair.key).collect()),
            Tag::Unknown(number) => return self.unknown_tag(number),
            Tag::Merge | Tag::Value => return self.misplaced(tag, range),
            _ => self.scalar(link, tag, way)?,
        };
        let via = way.via.map(|via| self.span(via));
        Some(Node { span: self.span(range), via, style, ordinary: false, value })
    }

    fn unknown_tag(&mut self, number: u32) -> Option<Node> {
        let (name, range) = self.graph.tags.get(number);
        let shown =
            name.strip_prefix("tag:yaml.org,2002:").map_or(name.to_owned(), |name| format!("!!{name}"));
        let message = format!("{} does not know the tag `{shown}`", self.dialect.reader());
        let help = match (self.dialect, shown.as_str()) {
            (Dialect::Salt | Dialect::Yaml12, "!vault" | "!unsafe" | "!vault-encrypted") => {
                "That is Ansible's: read this file with `--dialect ansible`."
            }
            _ => "Remove the tag, or write the value it stands for.",
        };
        let finding = Diagnostic::error(&rule::UNKNOWN_TAG, message).at(self.span(range), "").help(help);
        self.found(finding);
        None
    }

    /// `<<` or `=` where no key is.
    fn misplaced(&mut self, tag: Tag, range: Range) -> Option<Node> {
        let text = if tag == Tag::Merge { "<<" } else { "=" };
        let message = format!("{} refuses a bare `{text}` as a value", self.dialect.reader());
        let finding = Diagnostic::error(&rule::BARE_INDICATOR, message)
            .at(self.span(range), "")
            .help(format!("Quote it if the text is meant: \"{text}\"."));
        self.found(finding);
        None
    }

    fn mismatch(&mut self, expected: &str, range: Range) {
        let finding =
            Diagnostic::error(&rule::TAG_MISMATCH, format!("the tag asks for {expected}, and this is none"))
                .at(self.span(range), "")
                .help("Remove the tag, or write what it asks for.");
        self.found(finding);
    }

    /// Ansible's `_resolve_and_construct_object`: quoted or not, the value is read as a plain one.
    fn unsafe_or_vault(&mut self, link: Link, tag: Tag, way: Way) -> Option<Node> {
        let raw = &self.graph.nodes[link.node as usize];
        let range = raw.range;
        let inner = match &raw.content {
            Content::Scalar(text) => implied(self.dialect, text),
            Content::List(_) => Tag::List,
            Content::Map(_) => Tag::Map,
        };
        let node = self.tagged(link, inner, Way { literal: true, ..way })?;
        match (tag, node.value) {
            (Tag::Vault, Value::Str(text)) => Some(Node { value: Value::Vault(text), ..node }),
            (Tag::Vault, _) => {
                self.mismatch("an encrypted text", range);
                None
            }
            (_, value) => Some(Node { value, ..node }),
        }
    }

    /// The items of a list, taken or copied; nothing if it is none.
    fn items(&mut self, link: Link, way: Way) -> Option<Vec<Link>> {
        let raw = &mut self.graph.nodes[link.node as usize];
        let range = raw.range;
        match &mut raw.content {
            Content::List(items) if way.shared => Some(items.clone()),
            Content::List(items) => Some(std::mem::take(items)),
            _ => {
                self.mismatch("a list", range);
                None
            }
        }
    }

    /// All findings of all children, then the value if every child has one.
    fn list(&mut self, link: Link, way: Way) -> Option<Value> {
        let items = self.items(link, way)?;
        let below = Way { depth: way.depth + 1, ..way };
        let mut nodes = Vec::with_capacity(items.len());
        let mut complete = true;
        for item in items {
            match self.node(item, below) {
                Some(node) => nodes.push(node),
                None => complete = false,
            }
        }
        complete.then_some(Value::List(nodes))
    }

    /// `!!pairs`, and Ansible's `!!omap`: a list of mappings with one key each, as a list of pairs.
    fn pairs(&mut self, link: Link, way: Way) -> Option<Value> {
        let items = self.items(link, way)?;
        let below = Way { depth: way.depth + 2, ..way };
        let mut nodes = Vec::with_capacity(items.len());
        for item in items {
            let raw = &self.graph.nodes[item.node as usize];
            let range = raw.range;
            let entry = match &raw.content {
                Content::Map(entries) if entries.len() == 1 => entries[0],
                _ => {
                    self.mismatch("mappings with one key each", range);
                    return None;
                }
            };
            // Each is looked at once only, but its mapping may be anchored.
            let below = Way { via: below.via.or(item.via), shared: true, ..below };
            let value = Value::List(vec![self.node(entry.key, below)?, self.node(entry.value, below)?]);
            let via = below.via.map(|via| self.span(via));
            nodes.push(Node {
                span: self.span(range),
                via,
                style: Style::Collection,
                ordinary: false,
                value,
            });
        }
        Some(Value::List(nodes))
    }

    fn map(&mut self, link: Link, way: Way) -> Option<Vec<Pair>> {
        self.flatten(link, way.depth)?;
        let raw = &mut self.graph.nodes[link.node as usize];
        let entries = match &mut raw.content {
            Content::Map(entries) if way.shared => entries.clone(),
            Content::Map(entries) => std::mem::take(entries),
            _ => {
                let range = raw.range;
                self.mismatch("a mapping", range);
                return None;
            }
        };
        let below = Way { depth: way.depth + 1, ..way };
        let mut pairs = Vec::with_capacity(entries.len());
        let mut complete = true;
        for Entry { key, value } in entries {
            let key = self.key(key, below);
            if let (Dialect::Yaml12, Some(key)) = (self.dialect, &key) {
                self.warn_of_merge_key(key);
            }
            let value = self.node(value, below);
            match (key, value) {
                (Some(key), Some(value)) => pairs.push(Pair { key, value }),
                _ => complete = false,
            }
        }
        let pairs = self.without_repeated(pairs);
        complete.then_some(pairs)
    }

    fn key(&mut self, link: Link, way: Way) -> Option<Node> {
        let key = self.node(link, way)?;
        match key.value {
            Value::List(_) | Value::Map(_) => {}
            // Ansible must decrypt it to compare it, and cannot while it reads.
            Value::Vault(_) => {
                let finding = Diagnostic::error(&rule::VAULT_KEY, "an encrypted text cannot be a key")
                    .at(key.span, "")
                    .help("Write the key in clear text, and encrypt its value.");
                self.found(finding);
                return None;
            }
            _ => return Some(key),
        }
        let finding = Diagnostic::error(&rule::UNHASHABLE_KEY, "a list or a mapping cannot be a key")
            .at(key.span, "this stands where a key is expected")
            .help("If it is a placeholder like `{{ name }}`, fill it in first; else quote it.");
        self.found(finding);
        None
    }

    fn scalar(&mut self, link: Link, tag: Tag, way: Way) -> Option<Value> {
        let dialect = self.dialect;
        let raw = &mut self.graph.nodes[link.node as usize];
        let range = raw.range;
        let Content::Scalar(text) = &mut raw.content else {
            self.mismatch("a scalar", range);
            return None;
        };
        if self.look_for_jinja
            && !way.literal
            && self.jinja.is_none()
            && matches!(tag, Tag::Str | Tag::Timestamp)
            && super::jinja::in_value(text).is_some()
        {
            self.jinja = Some(range);
        }
        let value = match tag {
            Tag::Null if dialect == Dialect::Yaml12 && implied(dialect, text) != Tag::Null => None,
            Tag::Null => Some(Value::Null),
            Tag::Bool => boolean(dialect, text).map(Value::Bool),
            Tag::Int => {
                let value = number::int(dialect, text).map(Value::Int);
                if dialect == Dialect::Salt && text.starts_with('0') {
                    // Salt drops the zeros in the node itself: a merge further down compares what is left.
                    *text = number::without_zeros(text).to_owned().into();
                }
                value
            }
            Tag::Float => number::float(dialect, text).map(Value::Float),
            Tag::Binary => base64::decode(dialect, text).map(Value::Bytes),
            Tag::Timestamp if dialect == Dialect::Ansible => time::isoformat(text).map(Value::Timestamp),
            // Salt leaves a date the text it was.
            _ if way.shared => Some(Value::Str(text.as_ref().to_owned())),
            _ => Some(Value::Str(std::mem::take(text).into_owned())),
        };
        if value.is_none() {
            let long = text.len() > number::LONGEST_NUMBER && matches!(tag, Tag::Int | Tag::Float);
            let finding = self.bad_scalar(tag, range, long);
            self.found(finding);
        }
        value
    }

    fn bad_scalar(&self, tag: Tag, range: Range, long: bool) -> Diagnostic {
        let what = match tag {
            Tag::Int => "an integer",
            Tag::Float => "a float",
            Tag::Bool => "true or false",
            Tag::Binary => "base64",
            Tag::Null => "null",
            _ => "a date that exists",
        };
        if long {
            let message = format!("a number may have {} digits at most", number::LONGEST_NUMBER);
            return Diagnostic::error(&rule::BAD_SCALAR, message)
                .at(self.span(range), "")
                .help("Quote it if the text is meant.");
        }
        Diagnostic::error(&rule::BAD_SCALAR, format!("{} cannot read this as {what}", self.dialect.reader()))
            .at(self.span(range), "")
            .help("Correct it, or quote it if the text is meant.")
    }
}

pub(super) fn boolean(dialect: Dialect, text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        "yes" | "on" if dialect != Dialect::Yaml12 => Some(true),
        "no" | "off" if dialect != Dialect::Yaml12 => Some(false),
        _ => None,
    }
}
