//! Text in, values that remember their span out.
//!
//! [`parse`] is the way in. A text goes through three stages: a scanner splits it into events
//! (`yaml11` as libyaml does, for Salt and Ansible; `yaml12` for YAML 1.2), `graph` ties aliases to
//! their anchors, and `build` makes values of it, by the rules of the dialect. What each dialect
//! makes of what is told in `docs/dialects.md` and compared with the real loaders in
//! `tests/dialects.rs`.

mod base64;
mod build;
mod event;
mod graph;
mod jinja;
mod json;
mod key;
mod merge;
mod number;
mod print;
mod reading;
mod select;
mod tag;
mod time;
mod yaml11;
mod yaml12;

use crate::diagnostic::{Diagnostic, Severity};
use crate::rule;
use crate::source::{MAX_BYTES, Source, SourceId, Span};
use event::{Events, Range};
use graph::Flaw;

/// How deep lists and mappings may be nested, expanded aliases counted. People stop at ten.
pub const MAX_DEPTH: usize = 128;

/// How many values the documents of one run may have. 10,000 services have 300,000.
pub const MAX_NODES: usize = 4_000_000;

/// How many bytes aliases and merge keys may copy in one run. 10,000 services that merge forty defaults each copy 80 MB.
pub const MAX_EXPANSION: usize = 128 << 20;

/// What the texts of one run have used up of what they may have together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Values, as they were written.
    nodes: usize,
    /// Bytes that aliases and merge keys have copied.
    expanded: usize,
}

/// More findings than anybody reads at once: what comes after them is left out.
const MOST_FINDINGS: usize = 100;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, of whatever dialect.
    Yaml,
    /// JSON by RFC 8259, where no dialect counts.
    Json,
}

pub use reading::read_plain;
pub use select::{Application, Merged, descend, select};

/// How a scalar was written; a quoted one is a string in every dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bare: the dialect decides what it is.
    Plain,
    /// `'…'` or `"…"`.
    Quoted,
    /// `|` or `>`.
    Block,
    /// A number or a word of JSON, where no dialect counts.
    Json,
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

impl Dialect {
    /// Who reads that way, as findings call it.
    pub fn reader(self) -> &'static str {
        match self {
            Self::Salt => "Salt",
            Self::Ansible => "Ansible",
            Self::Yaml12 => "YAML 1.2",
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it was written, without anchor and tag; for an alias, where the anchor's value was written.
    pub span: Span,
    /// Where it was called in: the outermost alias or merge key on the way to it, if there is one.
    pub via: Option<Span>,
    /// How it was written.
    pub style: Style,
    /// A comment says that it is no secret, whatever it looks like; or it is a null that takes a default away.
    pub ordinary: bool,
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
    /// A sequence; also a `!!set`, and `!!pairs` as a list of lists of two.
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

    /// How many values it holds, itself counted; at `most` it is not counted further.
    pub fn count(&self, most: usize) -> usize {
        let mut waiting = vec![self];
        let mut count = 0;
        while let Some(node) = waiting.pop() {
            count += 1;
            if count >= most {
                break;
            }
            match &node.value {
                Value::Map(pairs) => waiting.extend(pairs.iter().map(|pair| &pair.value)),
                Value::List(items) => waiting.extend(items),
                _ => {}
            }
        }
        count
    }

    /// How many bytes its keys and values have as text.
    pub fn text_bytes(&self) -> usize {
        let mut waiting = vec![self];
        let mut bytes = 0_usize;
        while let Some(node) = waiting.pop() {
            bytes = bytes.saturating_add(match &node.value {
                Value::Str(text)
                | Value::Timestamp(text)
                | Value::Vault(text)
                | Value::Int(Int::Big(text)) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                Value::Map(pairs) => {
                    waiting.extend(pairs.iter().flat_map(|pair| [&pair.key, &pair.value]));
                    0
                }
                Value::List(items) => {
                    waiting.extend(items);
                    0
                }
                Value::Null | Value::Bool(_) | Value::Int(Int::Small(_)) | Value::Float(_) => 0,
            });
        }
        bytes
    }

    /// Where it begins: of a map its first key, so that an excerpt shows one line and not all.
    pub fn head(&self) -> Span {
        match &self.value {
            Value::Map(pairs) => pairs.iter().map(|pair| pair.key.span).min().unwrap_or(self.span),
            _ => self.span,
        }
    }

    /// A node at the same place that holds nothing.
    pub fn hollow(&self) -> Self {
        Self {
            span: self.span,
            via: self.via,
            style: self.style,
            ordinary: self.ordinary,
            value: Value::Null,
        }
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

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// One value a document. A document with nothing in it (`---` and no more, or only comments)
    /// has none; one that says `null` or `~` has [`Value::Null`]. Salt's and Ansible's own loaders
    /// take one document only; a pillar may have more.
    pub documents: Vec<Node>,
    /// What the dialect lets pass and somebody will regret.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a text the way `dialect` does; `id` is the source's number, which spans will carry.
///
/// # Errors
/// Everything that is wrong with the text, in the order of the text, warnings included: every
/// duplicate key, unknown tag and so on; of syntax errors the first, since what comes after it is
/// guesswork. The dialect refuses all of it, but for the limits on size and depth and for what is
/// told in `docs/dialects.md`.
pub fn parse(
    source: &Source,
    id: SourceId,
    format: Format,
    dialect: Dialect,
) -> Result<Parsed, Vec<Diagnostic>> {
    parse_one_of(source, id, format, dialect, &mut Used::default())
}

/// As [`parse`], of one of the texts of a run: what they have together is limited.
///
/// # Errors
/// As [`parse`].
pub fn parse_one_of(
    source: &Source,
    id: SourceId,
    format: Format,
    dialect: Dialect,
    used: &mut Used,
) -> Result<Parsed, Vec<Diagnostic>> {
    let text = source.text();
    if let Some(finding) = too_large(text.len() as u64, id) {
        return Err(vec![finding]);
    }
    if format == Format::Json {
        return match json::read(text, id, json::Strictness::Rfc, used) {
            Ok((node, repeated)) if repeated.is_empty() => {
                Ok(Parsed { documents: vec![node], warnings: Vec::new() })
            }
            Ok((_, repeated)) => Err(repeated),
            Err(finding) => Err(vec![*finding]),
        };
    }
    if let Some(finding) = jinja::renderer_line(text, id) {
        return Err(vec![finding]);
    }
    // ansible/parsing/utils/yaml.py, from_yaml: what is JSON is read as JSON.
    if dialect == Dialect::Ansible {
        // What is no JSON has used up nothing.
        let mut tried = *used;
        if let Ok((node, warnings)) = json::read(text, id, json::Strictness::Python, &mut tried) {
            *used = tried;
            return Ok(Parsed { documents: vec![node], warnings });
        }
    }
    if let Some(finding) = control_character(text, id) {
        return Err(vec![finding]);
    }
    let jinja = jinja::suspected(text);
    match dialect {
        Dialect::Salt | Dialect::Ansible => {
            documents(&mut yaml11::Parser::new(text), text, id, dialect, jinja, used)
        }
        Dialect::Yaml12 => documents(&mut yaml12::Scanner::new(text), text, id, dialect, jinja, used),
    }
}

/// Reads YAML that was rendered, not written by hand: braces in it are only text.
///
/// # Errors
/// As [`parse`].
pub fn parse_rendered(source: &Source, id: SourceId) -> Result<Parsed, Vec<Diagnostic>> {
    let text = source.text();
    if let Some(finding) = too_large(text.len() as u64, id).or_else(|| control_character(text, id)) {
        return Err(vec![finding]);
    }
    documents(&mut yaml12::Scanner::new(text), text, id, Dialect::Yaml12, false, &mut Used::default())
}

fn documents<'a>(
    events: &mut impl Events<'a>,
    text: &'a str,
    id: SourceId,
    dialect: Dialect,
    look_for_jinja: bool,
    used: &mut Used,
) -> Result<Parsed, Vec<Diagnostic>> {
    let mut documents = Vec::new();
    let mut findings = Vec::new();
    while let Some((mut graph, flaws)) = graph::compose(events, dialect, MAX_NODES.saturating_sub(used.nodes))
    {
        used.nodes = used.nodes.saturating_add(graph.nodes.len());
        let is_final = flaws.iter().any(Flaw::is_final);
        if flaws.is_empty() {
            let (node, jinja) =
                build::build(&mut graph, dialect, id, look_for_jinja, &mut used.expanded, &mut findings);
            if let Some(range) = jinja {
                return Err(vec![jinja::finding(dialect, id, range)]);
            }
            documents.extend(node);
        } else {
            findings.extend(flaws.into_iter().map(|flaw| flaw_finding(flaw, id, text)));
        }
        let is_wrong = || findings.iter().any(|finding| finding.severity == Severity::Error);
        // Whatever copies more is refused.
        let is_spent = used.expanded > MAX_EXPANSION;
        if is_final || is_spent || findings.len() >= MOST_FINDINGS && is_wrong() {
            break;
        }
    }
    if findings.iter().all(|finding| finding.severity != Severity::Error) {
        return Ok(Parsed { documents, warnings: findings });
    }
    if look_for_jinja && let Some(range) = jinja::in_text(text) {
        return Err(vec![jinja::finding(dialect, id, range)]);
    }
    findings.sort_by_key(|finding| finding.span().map(|span| span.start));
    Err(findings)
}

/// The finding on a text of that many bytes, if they are too many; whoever reads a file asks before
/// it costs memory. `id` is the source it would have been.
pub fn too_large(bytes: u64, id: SourceId) -> Option<Diagnostic> {
    if bytes <= MAX_BYTES as u64 {
        return None;
    }
    let message = format!("this file is larger than {} MiB, the most that is read", MAX_BYTES >> 20);
    Some(
        Diagnostic::error(&rule::TOO_LARGE, message)
            .at(Span::new(id, 0, 0), "")
            .help("A pillar of 10,000 services has 4 MiB: split it into several files."),
    )
}

/// The finding on a text with which all texts of one run have that many bytes, if they are too many together. `id` is as in
/// [`too_large`].
pub fn too_large_together(bytes: u64, id: SourceId) -> Option<Diagnostic> {
    if bytes <= MAX_BYTES as u64 {
        return None;
    }
    let message = format!(
        "with this file the pillars have more than {} MiB, the most that is read in one run",
        MAX_BYTES >> 20
    );
    Some(
        Diagnostic::error(&rule::TOO_LARGE, message)
            .at(Span::new(id, 0, 0), "")
            .help("Name fewer pillars at once."),
    )
}

fn too_deep(at: Span) -> Diagnostic {
    Diagnostic::error(&rule::TOO_DEEP, format!("nested deeper than {MAX_DEPTH} levels"))
        .at(at, "")
        .help("Something opens brackets or indents without end here.")
}

/// What libyaml's reader lets through: the printable characters of YAML 1.1.
fn control_character(text: &str, id: SourceId) -> Option<Diagnostic> {
    let suspicious = |byte: u8| !matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    // All but the rarest pillars are plain ASCII nearly everywhere.
    let mut at = 0;
    while let Some(next) = text.as_bytes()[at..].iter().position(|byte| suspicious(*byte)) {
        at += next;
        let character = text[at..].chars().next()?;
        let printable =
            matches!(character, '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !printable {
            let finding = Diagnostic::error(
                &rule::CONTROL_CHARACTER,
                format!("the character U+{:04X} may not stand in YAML", character as u32),
            )
            .at(Span::new(id, at, at + character.len_utf8()), "")
            .help(format!("Remove it, or write it in double quotes as \"\\x{:02x}\".", character as u32));
            return Some(finding);
        }
        at += character.len_utf8();
    }
    None
}

fn flaw_finding(flaw: Flaw<'_>, id: SourceId, text: &str) -> Diagnostic {
    let span = |range: Range| Span { source: id, start: range.start, end: range.end };
    match flaw {
        Flaw::Syntax(error) => {
            let at = error.at as usize;
            let width = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            let width = if text[at..].starts_with(['\r', '\n']) { 0 } else { width };
            let mut finding =
                Diagnostic::error(&rule::YAML_SYNTAX, error.problem).at(Span::new(id, at, at + width), "");
            if let Some((context, from)) = error.context {
                finding = finding.at(Span::new(id, from as usize, from as usize), context);
            }
            match text.as_bytes().get(at) {
                Some(b'\t') => finding.help("Indent with spaces: YAML takes no tabs there."),
                Some(b'@' | b'`' | b'%') => finding.help("Quote a value that begins with this character."),
                Some(b':') => finding.help("Quote a value that has a colon followed by a space."),
                _ => finding,
            }
        }
        Flaw::UndefinedAlias(name, range) => Diagnostic::error(
            &rule::UNDEFINED_ALIAS,
            format!("there is no anchor `&{name}` before this alias"),
        )
        .at(span(range), "")
        .help("Quote it if the asterisk is meant, else set the anchor first."),
        Flaw::RecursiveAlias(name, range) => Diagnostic::error(
            &rule::RECURSIVE_ALIAS,
            format!("`*{name}` stands inside the value that it names"),
        )
        .at(span(range), "")
        .help("A value cannot contain itself: write out what is meant."),
        // Its name is not quoted: a password that begins with `&` and has no quotes looks like one.
        Flaw::DuplicateAnchor(range, first) => {
            Diagnostic::error(&rule::DUPLICATE_ANCHOR, "an anchor is set twice")
                .at(span(range), "")
                .at(span(first), "set first here")
                .help("Give each anchor a name of its own.")
        }
        Flaw::TooDeep(range) => too_deep(span(range)),
        Flaw::TooMany(range) => too_many(span(range)),
    }
}

/// The finding on the first value that is too much.
fn too_many(at: Span) -> Diagnostic {
    let message =
        format!("up to here the pillars have more than {MAX_NODES} values, the most that is read in one run");
    Diagnostic::error(&rule::TOO_LARGE, message).at(at, "").help("Name fewer pillars at once.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aliases that copy some ten million bytes.
    fn nested() -> String {
        let each = (1..6).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 8].join(", ")));
        format!("a0: &a0 [x, x, x, x]\n{}", each.collect::<String>())
    }

    /// What is kept of one document is in memory while the next one is read, whichever text it is in.
    #[test]
    fn what_aliases_copy_is_counted_for_all_documents_and_texts() {
        let parse = |text: String, used: &mut Used| {
            parse_one_of(&Source::new("t", text), SourceId(0), Format::Yaml, Dialect::Salt, used)
        };
        let one = parse(nested(), &mut Used::default());
        assert!(one.is_ok());
        let mut used = Used::default();
        let refused = |found: Result<Parsed, Vec<Diagnostic>>| match found {
            Ok(_) => None,
            Err(found) => Some((found.len(), found[0].rule.name)),
        };
        assert_eq!(
            refused(parse(format!("---\n{}", nested()).repeat(30), &mut used)),
            Some((1, "alias-bomb"))
        );
        let mut used = Used::default();
        let at = (0..30).find_map(|_| refused(parse(nested(), &mut used)));
        assert_eq!(at, Some((1, "alias-bomb")));
        // Values are counted alike.
        let mut used = Used { nodes: MAX_NODES - 5, expanded: 0 };
        assert_eq!(refused(parse("a: 1\n---\nb: 1\n".to_owned(), &mut used)), Some((1, "too-large")));
    }
}
