//! Events to a graph: anchors found, aliases tied to what they name, nothing expanded yet.

use super::event::{Event, Events, Properties, Range, SyntaxError};
use super::tag::{Tag, Tags};
use super::{Dialect, MAX_DEPTH, MOST_FINDINGS, Style};
use std::borrow::Cow;
use std::collections::HashMap;

/// One node as it was written.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    pub(super) range: Range,
    pub(super) style: Style,
    pub(super) tag: Tag,
    /// Whether an alias may call it in again.
    pub(super) anchored: bool,
    pub(super) content: Content<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Content<'a> {
    Scalar(Cow<'a, str>),
    List(Vec<Link>),
    Map(Vec<Entry>),
}

/// A node where it is used, and the alias or merge key that called it in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) node: u32,
    pub(super) via: Option<Range>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Link,
    pub(super) value: Link,
}

/// One document.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Raw<'a>>,
    /// Nothing if the document is empty.
    pub(super) root: Option<Link>,
    pub(super) tags: Tags<'a>,
}

/// Why a graph could not be made, or not be used.
#[derive(Debug)]
pub(super) enum Flaw<'a> {
    Syntax(SyntaxError),
    UndefinedAlias(Cow<'a, str>, Range),
    RecursiveAlias(Cow<'a, str>, Range),
    DuplicateAnchor(Range, Range),
    TooDeep(Range),
    TooMany(Range),
}

/// A collection that is not closed yet.
struct Open {
    node: u32,
    /// The key that waits for its value.
    key: Option<Link>,
}

struct Composer<'a> {
    dialect: Dialect,
    /// How many nodes it may have.
    most: usize,
    nodes: Vec<Raw<'a>>,
    tags: Tags<'a>,
    open: Vec<Open>,
    root: Option<Link>,
    /// The node an anchor names, by the anchor's name.
    anchors: HashMap<Cow<'a, str>, u32>,
    flaws: Vec<Flaw<'a>>,
}

/// The next document, of `most` nodes at the most, with everything that is wrong with it; nothing at the end of the stream. A
/// document with flaws is not to be built, and after [`Flaw::Syntax`], [`Flaw::TooDeep`] and
/// [`Flaw::TooMany`] there is no next one.
pub(super) fn compose<'a>(
    events: &mut impl Events<'a>,
    dialect: Dialect,
    most: usize,
) -> Option<(Graph<'a>, Vec<Flaw<'a>>)> {
    match events.next_event() {
        Ok((Event::StreamEnd, _)) => return None,
        Ok(_) => {}
        Err(error) => return Some((empty(), vec![Flaw::Syntax(error)])),
    }
    let mut composer = Composer {
        dialect,
        most,
        nodes: Vec::new(),
        tags: Tags::default(),
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        flaws: Vec::new(),
    };
    loop {
        match events.next_event() {
            Ok((Event::DocumentEnd | Event::StreamEnd, _)) => break,
            Ok((event, range)) => {
                if let Err(flaw) = composer.take(event, range) {
                    composer.flaws.push(flaw);
                    break;
                }
            }
            Err(error) => {
                composer.flaws.push(Flaw::Syntax(error));
                break;
            }
        }
    }
    let Composer { nodes, tags, root, flaws, .. } = composer;
    Some((Graph { nodes, root, tags }, flaws))
}

fn empty<'a>() -> Graph<'a> {
    Graph { nodes: Vec::new(), root: None, tags: Tags::default() }
}

impl Flaw<'_> {
    /// Whether nothing can be read after it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Syntax(_) | Self::TooDeep(_) | Self::TooMany(_))
    }
}

impl<'a> Composer<'a> {
    fn take(&mut self, event: Event<'a>, range: Range) -> Result<(), Flaw<'a>> {
        match event {
            Event::DocumentStart | Event::DocumentEnd | Event::StreamEnd => {}
            Event::Alias(name) => {
                let link = self.resolve(name, range);
                self.attach(link);
            }
            Event::Scalar { properties, value, style } => {
                let tag = self.tags.of_scalar(self.dialect, &properties, &value, style);
                let link = self.add(properties, range, style, tag, Content::Scalar(value))?;
                self.attach(link);
            }
            Event::ListStart(properties) => {
                let tag = self.tags.of_collection(self.dialect, &properties, Tag::List);
                self.begin(properties, range, tag, Content::List(Vec::new()))?;
            }
            Event::MapStart(properties) => {
                let tag = self.tags.of_collection(self.dialect, &properties, Tag::Map);
                self.begin(properties, range, tag, Content::Map(Vec::new()))?;
            }
            Event::CollectionEnd => self.end(range),
        }
        Ok(())
    }

    fn add(
        &mut self,
        properties: Properties<'a>,
        range: Range,
        style: Style,
        tag: Tag,
        content: Content<'a>,
    ) -> Result<Link, Flaw<'a>> {
        if self.nodes.len() >= self.most {
            return Err(Flaw::TooMany(range));
        }
        let node = self.nodes.len() as u32;
        let anchored = properties.anchor.is_some();
        self.nodes.push(Raw { range, style, tag, anchored, content });
        if let Some(name) = properties.anchor {
            self.name(name, node, range);
        }
        Ok(Link { node, via: None })
    }

    /// Keeps a flaw that does not end the reading.
    fn flaw(&mut self, flaw: Flaw<'a>) {
        if self.flaws.len() < MOST_FINDINGS {
            self.flaws.push(flaw);
        }
    }

    /// PyYAML refuses a second anchor of the same name; YAML 1.2 lets it win from there on.
    fn name(&mut self, name: Cow<'a, str>, node: u32, range: Range) {
        match self.anchors.get(&name) {
            Some(first) if self.dialect != Dialect::Yaml12 => {
                let first = self.nodes[*first as usize].range;
                self.flaw(Flaw::DuplicateAnchor(range, first));
            }
            _ => {
                self.anchors.insert(name, node);
            }
        }
    }

    fn resolve(&mut self, name: Cow<'a, str>, range: Range) -> Link {
        match self.anchors.get(&name) {
            Some(node) => {
                if self.open.iter().any(|open| open.node == *node) {
                    self.flaw(Flaw::RecursiveAlias(name, range));
                    return Link { node: 0, via: None };
                }
                Link { node: *node, via: Some(range) }
            }
            None => {
                self.flaw(Flaw::UndefinedAlias(name, range));
                // Never followed: a graph with flaws is not built.
                Link { node: 0, via: None }
            }
        }
    }

    fn begin(
        &mut self,
        properties: Properties<'a>,
        range: Range,
        tag: Tag,
        content: Content<'a>,
    ) -> Result<(), Flaw<'a>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Flaw::TooDeep(range));
        }
        let link = self.add(properties, range, Style::Collection, tag, content)?;
        self.open.push(Open { node: link.node, key: None });
        Ok(())
    }

    fn end(&mut self, range: Range) {
        let Some(open) = self.open.pop() else { return };
        let end = if range.end > range.start { range.end } else { self.end_of_last(open.node) };
        let raw = &mut self.nodes[open.node as usize];
        raw.range.end = raw.range.end.max(end);
        self.attach(Link { node: open.node, via: None });
    }

    /// A block collection ends where its last child ends, not where the next line begins.
    fn end_of_last(&self, node: u32) -> u32 {
        let last = match &self.nodes[node as usize].content {
            Content::List(items) => items.last().copied(),
            Content::Map(entries) => entries.last().map(|entry| entry.value),
            Content::Scalar(_) => None,
        };
        match last {
            Some(Link { via: Some(range), .. }) => range.end,
            Some(Link { node, via: None }) => self.nodes[node as usize].range.end,
            None => 0,
        }
    }

    fn attach(&mut self, link: Link) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(link);
            return;
        };
        match &mut self.nodes[open.node as usize].content {
            Content::List(items) => items.push(link),
            Content::Map(entries) => match open.key.take() {
                None => open.key = Some(link),
                Some(key) => entries.push(Entry { key, value: link }),
            },
            Content::Scalar(_) => {}
        }
    }
}
