//! Pillars broken at random: what is broken is chosen in the values, and the text is then either
//! patched at that place or written anew in another style.

#![allow(clippy::single_range_in_vec_init, reason = "places are ranges, however many")]

use std::ops::Range;

use runsmith::pillar::{Dialect, Format, Node, Style, Value, parse};
use runsmith::source::{Source, SourceId};

/// The ways in which a pillar is broken.
pub(crate) const KINDS: &[&str] = &["renamed", "removed", "retyped", "duplicated", "moved", "changed"];

/// Numbers that only look random: splitmix64, by Sebastiano Vigna, in the public domain.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub(crate) fn weighted<'a, T>(&mut self, items: &'a [T], weight: impl Fn(&T) -> usize) -> &'a T {
        let mut at = self.below(items.iter().map(&weight).sum());
        for item in items {
            match at.checked_sub(weight(item)) {
                Some(rest) => at = rest,
                None => return item,
            }
        }
        &items[0]
    }
}

/// A broken pillar.
pub(crate) struct Mutant {
    /// Which pillar it was.
    pub(crate) name: String,
    /// What was done to it, for people; the first word is one of [`KINDS`].
    pub(crate) what: String,
    /// What it is now.
    pub(crate) text: String,
    /// The bytes that were mutated, and those by which their parent is named.
    pub(crate) places: Vec<Range<usize>>,
    /// The application it is in, or all that its defaults are for.
    pub(crate) parents: Vec<Range<usize>>,
}

impl Mutant {
    /// A pillar as it is.
    pub(crate) fn none(name: &str, text: &str) -> Self {
        let text = text.to_owned();
        Self {
            name: name.to_owned(),
            what: "nothing done".to_owned(),
            places: vec![0..text.len()],
            parents: vec![],
            text,
        }
    }

    /// What makes another document of it shows in all of it.
    fn widened(mut self, reshapes: bool) -> Self {
        if reshapes {
            self.places.push(0..self.text.len());
        }
        self
    }

    pub(crate) fn kind(&self) -> &str {
        self.what.split(' ').next().unwrap_or_default()
    }
}

/// A value as it is written. `marked` is what was mutated, or is the parent of that.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    marked: bool,
    /// A mutation may show anywhere in it.
    is_wide: bool,
    kind: Kind,
    /// Where it stands in the text that was read.
    place: Range<usize>,
    /// Where it is named there: the key before it, its own keys, and their values
    /// if those are scalars.
    names: Vec<Range<usize>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Scalar(String),
    List(Vec<Tree>),
    Map(Vec<Pair>),
}

#[derive(Clone, Debug)]
struct Pair {
    marked: bool,
    key: String,
    value: Tree,
    /// Where key and value stand in the text that was read; none for what an alias or a merge key brought.
    place: Option<(Range<usize>, Range<usize>)>,
}

/// Steps into lists and maps, each an index.
type Steps = Vec<usize>;

impl Tree {
    /// Reads a valid pillar of one document.
    pub(crate) fn read(text: &str) -> Self {
        let source = Source::new("", text);
        let parsed = parse(&source, SourceId(0), Format::Yaml, Dialect::Salt).expect("a valid pillar");
        Self::of(parsed.documents.first().expect("a document"), text)
    }

    fn of(node: &Node, text: &str) -> Self {
        let kind = match &node.value {
            Value::List(items) => Kind::List(items.iter().map(|item| Self::of(item, text)).collect()),
            Value::Map(pairs) => Kind::Map(
                pairs
                    .iter()
                    .map(|pair| Pair {
                        marked: false,
                        key: raw(&pair.key, text),
                        value: Self::of(&pair.value, text).named(pair.key.span.range()),
                        place: (pair.key.via.is_none() && pair.value.via.is_none())
                            .then(|| (pair.key.span.range(), pair.value.span.range())),
                    })
                    .collect(),
            ),
            _ => Kind::Scalar(raw(node, text)),
        };
        let names = match &node.value {
            Value::Map(pairs) => pairs
                .iter()
                .flat_map(|pair| {
                    let value = !matches!(pair.value.value, Value::Map(_) | Value::List(_));
                    [Some(pair.key.span.range()), value.then(|| pair.value.span.range())]
                })
                .flatten()
                .collect(),
            _ => vec![],
        };
        Self { marked: false, is_wide: false, kind, names, place: node.span.range() }
    }

    /// How many pairs it holds.
    pub(crate) fn size(&self) -> usize {
        match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => items.iter().map(Self::size).sum(),
            Kind::Map(pairs) => pairs.iter().map(|pair| 1 + pair.value.size()).sum(),
        }
    }

    /// The places of all pairs, each as the steps to its map and its index there.
    fn pairs(&self, at: &Steps, all: &mut Vec<(Steps, usize)>) {
        let below = |step: usize| [at.as_slice(), &[step]].concat();
        match &self.kind {
            Kind::Scalar(_) => {}
            Kind::List(items) => {
                items.iter().enumerate().for_each(|(step, item)| item.pairs(&below(step), all));
            }
            Kind::Map(pairs) => {
                for (step, pair) in pairs.iter().enumerate() {
                    all.push((at.clone(), step));
                    pair.value.pairs(&below(step), all);
                }
            }
        }
    }

    /// The places of all maps.
    fn maps(&self, at: &Steps, all: &mut Vec<Steps>) {
        let below = |step: usize| [at.as_slice(), &[step]].concat();
        match &self.kind {
            Kind::Scalar(_) => {}
            Kind::List(items) => {
                items.iter().enumerate().for_each(|(step, item)| item.maps(&below(step), all));
            }
            Kind::Map(pairs) => {
                all.push(at.clone());
                pairs.iter().enumerate().for_each(|(step, pair)| pair.value.maps(&below(step), all));
            }
        }
    }

    fn at(&mut self, steps: &[usize]) -> &mut Self {
        let [step, rest @ ..] = steps else { return self };
        match &mut self.kind {
            Kind::List(items) => items[*step].at(rest),
            Kind::Map(pairs) => pairs[*step].value.at(rest),
            Kind::Scalar(_) => panic!("no steps lead into a scalar"),
        }
    }

    /// How many of the steps lead to the map in which a change at `steps` may show: the application it is
    /// in; what is changed in `defaults` shows in the applications beside it.
    fn reach(&self, steps: &[usize]) -> usize {
        let mut tree = self;
        for (taken, step) in steps.iter().enumerate() {
            tree = match &tree.kind {
                Kind::List(items) => &items[*step],
                Kind::Map(pairs) if pairs[*step].key == "defaults" => return taken,
                Kind::Map(pairs) if pairs[*step].key == "applications" => {
                    return (taken + 2).min(steps.len());
                }
                Kind::Map(pairs) => &pairs[*step].value,
                Kind::Scalar(_) => break,
            };
        }
        0
    }

    /// The pairs of the map there, which is marked.
    fn marked_map(&mut self, steps: &[usize]) -> &mut Vec<Pair> {
        let reach = self.reach(steps);
        self.at(&steps[..reach]).is_wide = true;
        let map = self.at(steps);
        map.marked = true;
        match &mut map.kind {
            Kind::Map(pairs) => pairs,
            _ => panic!("no map"),
        }
    }

    fn named(mut self, key: Range<usize>) -> Self {
        self.names.push(key);
        self
    }

    fn scalar(text: &str) -> Self {
        Self { marked: true, is_wide: false, kind: Kind::Scalar(text.to_owned()), names: vec![], place: 0..0 }
    }
}

/// A scalar as it is written, or in double quotes if that goes over lines.
fn raw(node: &Node, text: &str) -> String {
    let slice = &text[node.span.range()];
    match &node.value {
        Value::Null if slice.is_empty() => "~".to_owned(),
        Value::Str(value)
            if matches!(node.style, Style::Block)
                || slice.contains(['\n', '\r'])
                || (node.style == Style::Plain && slice.contains([',', '[', ']', '{', '}'])) =>
        {
            serde_json::to_string(value).expect("a string")
        }
        _ => slice.to_owned(),
    }
}

/// Keys that say what a document is: all of it is read otherwise with one more of them.
const SHAPING: &[&str] = &["application", "unicorn_application", "unicorn", "applications", "defaults"];

/// What a value is replaced by: of every type, of every dialect's pitfalls, of the schema's bounds.
const VALUES: &[&str] = &[
    "~",
    "true",
    "no",
    "0",
    "1",
    "-1",
    "0022",
    "022",
    "65536",
    "4294967296",
    "99999999999999999999",
    "1.5",
    "1.0",
    "1e3",
    ".inf",
    "12:30:45",
    "2026-01-01",
    "\"\"",
    "\" \"",
    "\"a\\0b\"",
    "text",
    "\"2m\"",
    "ünï",
    "'0022'",
    "/",
    "/srv/x",
    "../x",
    "unix:/run/x.sock",
    "[]",
    "[1, two]",
    "[[]]",
    "{}",
    "{a: b}",
    "{path: /x}",
    "{soft: 1}",
    "!!binary aGk=",
    "!x y",
    "*nowhere",
    "{{ x }}",
    "any",
    "unicorn",
    "gunicorn",
    "!!set {a, b}",
    "unlimited",
];

/// What a key is replaced by, besides others of the pillar and its own misspelt.
const KEYS: &[&str] = &[
    "12",
    "~",
    "\"\"",
    "true",
    "A-B",
    "ünï",
    "workers",
    "user",
    "path",
    "application",
    "applications",
    "unicorn",
    "gunicorn",
    "defaults",
    "unicorn_application",
    "x",
    "\"a\\0b\"",
    "[a]",
    "soft",
];

/// Breaks the pillar in one way; nothing if the way that was chosen does not apply to the place that was.
pub(crate) fn mutate(name: &str, text: &str, tree: &Tree, random: &mut Random) -> Option<Mutant> {
    let mut all = vec![];
    tree.pairs(&vec![], &mut all);
    let (map, index) = random.of(&all).clone();
    let mut tree = tree.clone();
    let pair = match &tree.at(&map).kind {
        Kind::Map(pairs) => pairs[index].clone(),
        _ => panic!("no map"),
    };
    let kind = *random.of(KINDS);
    let patched = random.percent(40);
    let (what, key, value) = match kind {
        "renamed" => {
            let key = other_key(&pair.key, &all, &mut tree, random);
            (format!("renamed {} to {key}", pair.key), Some(key), None)
        }
        "retyped" => {
            let value = (*random.of(VALUES)).to_owned();
            (format!("retyped {} to {value}", pair.key), None, Some(value))
        }
        "changed" => {
            let Kind::Scalar(old) = &pair.value.kind else { return None };
            let value = other_scalar(old, random);
            (format!("changed {} from {old} to {value}", pair.key), None, Some(value))
        }
        _ => (format!("{kind} {}", pair.key), None, None),
    };
    let new_key = if kind == "moved" { Some(&pair.key) } else { key.as_ref() };
    let reshapes = new_key.is_some_and(|key| SHAPING.contains(&key.as_str()));
    if patched
        && (key.is_some() || value.is_some())
        && let Some(place) = &pair.place
    {
        let reach = tree.reach(&map);
        let parent = tree.at(&map[..reach]).place.clone();
        let (range, new) = match (&key, &value) {
            (Some(key), _) => (place.0.clone(), key),
            (_, Some(value)) => (place.1.clone(), value),
            (None, None) => return None,
        };
        let mutant = patch(text, range, new, place, tree.at(&map), parent);
        return Some(Mutant { name: name.to_owned(), what, ..mutant }.widened(reshapes));
    }
    let pairs = tree.marked_map(&map);
    match kind {
        "renamed" => {
            pairs[index].key = key?;
            pairs[index].marked = true;
        }
        "retyped" | "changed" => {
            pairs[index].value = Tree::scalar(&value?);
            pairs[index].marked = true;
        }
        "removed" => {
            pairs.remove(index);
        }
        "duplicated" => {
            let copy = Pair { marked: true, ..pair };
            pairs[index].marked = true;
            let at = random.below(pairs.len() + 1);
            pairs.insert(at, copy);
        }
        "moved" => {
            pairs.remove(index);
            let mut maps = vec![];
            tree.maps(&vec![], &mut maps);
            let target = random.of(&maps).clone();
            if target == map {
                return None;
            }
            let pairs = tree.marked_map(&target);
            let at = random.below(pairs.len() + 1);
            pairs.insert(at, Pair { marked: true, ..pair });
        }
        _ => panic!("{kind} is no way of breaking"),
    }
    let mut written = Writer::new(random);
    written.document(&tree);
    let mutant = Mutant {
        name: name.to_owned(),
        what: format!("{what} (written anew)"),
        text: written.text,
        places: written.places,
        parents: written.parents,
    };
    Some(mutant.widened(reshapes))
}

/// The text with some bytes of a pair of `map` replaced, all else as it was.
fn patch(
    text: &str,
    range: Range<usize>,
    new: &str,
    place: &(Range<usize>, Range<usize>),
    map: &Tree,
    parent: Range<usize>,
) -> Mutant {
    let mut patched = text.to_owned();
    // What follows an empty value's colon is kept apart from it.
    let blank = if range.is_empty() { " " } else { "" };
    patched.replace_range(range.clone(), &format!("{blank}{new}"));
    let end = range.start + blank.len() + new.len();
    let by = patched.len().wrapping_sub(text.len());
    let shift = |at: usize| if at < range.end { at } else { at.wrapping_add(by) };
    let end = place.1.end.wrapping_add(by).max(end);
    // A comment at the end of the line is about it.
    let end = patched[end..].find(['\n', '\r']).map_or(patched.len(), |line| end + line);
    let mut places = vec![place.0.start..end];
    places.extend(map.names.iter().map(|name| shift(name.start)..shift(name.end)));
    let parents = vec![parent.start..parent.end.wrapping_add(by)];
    Mutant { name: String::new(), what: String::new(), text: patched, places, parents }
}

fn other_key(key: &str, all: &[(Steps, usize)], tree: &mut Tree, random: &mut Random) -> String {
    let bare: Vec<char> = key.trim_matches(['"', '\'']).chars().collect();
    let at = random.below(bare.len());
    match random.below(6) {
        0 if bare.len() > 1 => {
            bare.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, c)| c).collect()
        }
        1 => bare
            .iter()
            .enumerate()
            .flat_map(|(index, c)| if index == at { vec![c, c] } else { vec![c] })
            .collect(),
        2 => key.to_uppercase(),
        3 => format!("{}s", key.trim_matches('"').replace('_', "-")),
        4 => {
            let (map, index) = random.of(all).clone();
            match &tree.at(&map).kind {
                Kind::Map(pairs) => pairs[index].key.clone(),
                _ => panic!("no map"),
            }
        }
        _ => (*random.of(KEYS)).to_owned(),
    }
}

fn other_scalar(old: &str, random: &mut Random) -> String {
    let bare = old.trim_matches(['"', '\'']);
    if let Ok(number) = bare.parse::<i64>()
        && random.percent(60)
    {
        let other = match random.below(6) {
            0 => number + 1,
            1 => number - 1,
            2 => -number,
            3 => number.saturating_mul(1000),
            4 => number / 7,
            _ => i64::MAX,
        };
        return other.to_string();
    }
    match random.below(9) {
        0 => bare.to_owned(),
        1 => format!("\"{bare}\""),
        2 => format!("'{}'", bare.replace('\'', "''")),
        3 => format!("\"{} \"", bare.replace(['"', '\\'], "")),
        4 => bare.chars().skip(1).collect(),
        5 => format!("{bare}{bare}"),
        6 => format!("-{bare}"),
        7 => format!("\"{}\\n\"", bare.replace(['"', '\\'], "")),
        _ => bare.to_uppercase(),
    }
}

/// The pillar as it is, written anew: its comments are gone.
pub(crate) fn bare(tree: &Tree) -> String {
    let mut random = Random::new(0);
    let mut written = Writer::new(&mut random);
    written.document(tree);
    written.text
}

/// Writes a tree as YAML, in a style of its own each time, and remembers where what is marked went.
struct Writer<'a> {
    random: &'a mut Random,
    text: String,
    places: Vec<Range<usize>>,
    parents: Vec<Range<usize>>,
    end: &'static str,
    step: usize,
    flow: usize,
    comments: usize,
}

impl<'a> Writer<'a> {
    fn new(random: &'a mut Random) -> Self {
        let end = if random.percent(15) { "\r\n" } else { "\n" };
        let step = 1 + random.below(4);
        let flow = *random.of(&[0, 10, 30, 100]);
        let comments = *random.of(&[0, 0, 20]);
        Self { random, text: String::new(), places: vec![], parents: vec![], end, step, flow, comments }
    }

    fn document(&mut self, tree: &Tree) {
        if self.random.percent(10) {
            self.text.push('\u{feff}');
        }
        if self.random.percent(20) {
            self.text.push_str("# 漢字\t😀");
            self.line();
        }
        if self.random.percent(self.flow) {
            self.flow(tree);
            self.line();
        } else {
            self.block(tree, 0);
        }
    }

    fn line(&mut self) {
        self.text.push_str(self.end);
    }

    /// Ends a line, maybe with a comment.
    fn end(&mut self) {
        if self.random.percent(self.comments) {
            self.text.push_str(" # ünï");
        }
        self.line();
    }

    fn mark(&mut self, marked: bool, start: usize, end: usize) {
        if marked {
            self.places.push(start..end);
        }
    }

    /// At the beginning of a line that is indented already.
    fn block(&mut self, tree: &Tree, indent: usize) {
        let start = self.text.len();
        match &tree.kind {
            Kind::Map(pairs) if !pairs.is_empty() => {
                for (index, pair) in pairs.iter().enumerate() {
                    if index > 0 {
                        self.text.push_str(&" ".repeat(indent));
                    }
                    let from = self.text.len();
                    self.text.push_str(&pair.key);
                    self.text.push(':');
                    self.mark(pair.value.marked, from, self.text.len());
                    // A parent is told by its keys, and by what they have to do with each other.
                    self.mark(tree.marked, from, self.text.len());
                    self.below(&pair.value, indent);
                    let to = from + self.text[from..].trim_end().len();
                    let is_scalar = matches!(pair.value.kind, Kind::Scalar(_));
                    self.mark(pair.marked || (tree.marked && is_scalar), from, to);
                }
            }
            Kind::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push_str(&" ".repeat(indent));
                    }
                    self.text.push('-');
                    self.text.push_str(&" ".repeat(self.step));
                    if self.random.percent(self.flow) {
                        self.flow(item);
                        self.end();
                    } else {
                        self.block(item, indent + 1 + self.step);
                    }
                }
            }
            _ => {
                self.flow(tree);
                return self.end();
            }
        }
        if tree.is_wide {
            self.parents.push(start..self.text.len());
        }
    }

    /// After `key:`.
    fn below(&mut self, value: &Tree, indent: usize) {
        let is_empty = match &value.kind {
            Kind::Map(pairs) => pairs.is_empty(),
            Kind::List(items) => items.is_empty(),
            Kind::Scalar(_) => true,
        };
        if is_empty || self.random.percent(self.flow) {
            self.text.push(' ');
            self.flow(value);
            self.end();
        } else {
            self.end();
            let indent = indent + self.step;
            self.text.push_str(&" ".repeat(indent));
            self.block(value, indent);
        }
    }

    fn flow(&mut self, tree: &Tree) {
        let start = self.text.len();
        match &tree.kind {
            Kind::Scalar(text) => self.text.push_str(text),
            Kind::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push_str(", ");
                    }
                    self.flow(item);
                }
                self.text.push(']');
            }
            Kind::Map(pairs) => {
                self.text.push('{');
                for (index, pair) in pairs.iter().enumerate() {
                    if index > 0 {
                        self.text.push_str(", ");
                    }
                    let from = self.text.len();
                    self.text.push_str(&pair.key);
                    self.mark(pair.value.marked, from, self.text.len());
                    self.text.push_str(": ");
                    self.flow(&pair.value);
                    let to = self.text.len();
                    self.mark(pair.marked, from, to);
                }
                self.text.push('}');
            }
        }
        let end = self.text.len();
        self.mark(tree.marked, start, end);
        if tree.is_wide {
            self.parents.push(start..end);
        }
    }
}
