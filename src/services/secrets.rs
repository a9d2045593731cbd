//! Where secrets stand in a pillar, so that nothing printed shows them.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::model::secret::{
    NameSays, Named, assigns, is_named, is_ordinary, is_secret_option, is_shouted, is_variable, named, parts,
    value_in, why,
};
use crate::model::veil::{MASK, SHORTEST, Veil};
use crate::pillar::{self, Dialect, Format, Node, Pair, Style, Value};
use crate::schema;
use crate::source::{Source, SourceId, Span};
use crate::visible::is_invisible;

/// Where secrets stand in a document of which nobody knows yet what it is: all below `secrets`, what [the classifier](why)
/// recognises wherever it stands, and comments with any of these.
pub fn secrets_in_document(document: &Node, text: &str) -> Vec<Span> {
    let mut found = Found::default();
    found.collect(document, NameSays::of(""), Below::Anything);
    let Found { mut spans, sections, without_value } = found;
    spans.extend(spelt_otherwise(document, text, &spans));
    spans.extend(behind_keys(text, document.span.source, without_value));
    spans.extend(secrets_in_comments(text, document.span.source, &sections));
    // The same value comes by many aliases.
    spans.sort();
    spans.dedup();
    let cut: Vec<Span> = spans.iter().filter_map(|span| cut_off(text, *span)).collect();
    spans.extend(cut);
    spans.sort();
    spans
}

/// The rest of a secret that has ` #` in it and no quotes: it is a comment that begins without a blank.
fn cut_off(text: &str, secret: Span) -> Option<Span> {
    let end = secret.range().end;
    if text.get(..end)?.ends_with(['"', '\'']) {
        return None;
    }
    let rest = text.get(end..)?;
    let comment = rest.trim_start_matches([' ', '\t']);
    let inside = comment.strip_prefix('#')?;
    let is_cut = comment.len() < rest.len() && inside.starts_with(|c: char| !c.is_whitespace() && c != '#');
    let length = comment.find('\n').unwrap_or(comment.len());
    let start = end + (rest.len() - comment.len());
    is_cut.then(|| Span::new(secret.source, start, start + length))
}

/// Texts that hold the value of a secret, written otherwise: with escapes, or over lines. Whoever looks for the value in the text of
/// the pillar finds nothing there.
fn spelt_otherwise(document: &Node, text: &str, secrets: &[Span]) -> Vec<Span> {
    if secrets.is_empty() {
        return vec![];
    }
    let places: HashSet<Span> = secrets.iter().copied().collect();
    /// The same value comes by many aliases: so long a text is looked at once.
    const LONG: u32 = 1 << 10;
    let mut read = vec![];
    let mut waiting = vec![document];
    let mut seen = HashSet::new();
    while let Some(node) = waiting.pop() {
        if node.span.end - node.span.start >= LONG
            && !matches!(node.value, Value::Map(_) | Value::List(_))
            && !seen.insert(node.span)
        {
            continue;
        }
        match &node.value {
            // Keys are shown as they are.
            Value::Map(pairs) => waiting.extend(pairs.iter().map(|pair| &pair.value)),
            Value::List(items) => waiting.extend(items),
            Value::Str(value) if !places.contains(&node.span) && value.len() >= SHORTEST => {
                let written = text.get(node.span.range()).unwrap_or_default();
                if node.style != Style::Json && !written.contains(value.as_str()) {
                    read.push((node.span, value, written));
                }
            }
            _ => {}
        }
    }
    // Nearly no pillar has any.
    if read.is_empty() {
        return vec![];
    }
    let mut values = vec![];
    texts_at(document, &places, &mut values);
    let veil = Veil::over(with_words(values));
    let is_hidden =
        |value: &str, written: &str| veil.hides(value.as_bytes()) && !veil.hides(written.as_bytes());
    read.retain(|(_, value, written)| is_hidden(value, written));
    read.into_iter().map(|(span, ..)| span).collect()
}

/// What the dialects read a scalar as, where that differs from how it is written.
pub(crate) fn readings(text: &str) -> Vec<String> {
    read_by(&[Dialect::Salt, Dialect::Ansible, Dialect::Yaml12], text)
}

/// The same of a scalar that is in quotes or on several lines: the dialects read it alike.
pub(crate) fn reading(text: &str) -> Vec<String> {
    read_by(&[Dialect::Salt], text)
}

fn read_by(dialects: &[Dialect], text: &str) -> Vec<String> {
    let source = Source::new("", text);
    let mut all: Vec<String> = vec![];
    for &dialect in dialects {
        let Ok(parsed) = pillar::parse(&source, SourceId(0), Format::Yaml, dialect) else { continue };
        for node in &parsed.documents {
            let read = match &node.value {
                Value::Null | Value::List(_) | Value::Map(_) => continue,
                // Sentences have the form of Rust.
                Value::Float(number) => vec![node.key_text(), format!("{number:?}")],
                _ => vec![node.key_text()],
            };
            for one in read {
                if one != text && !all.contains(&one) {
                    all.push(one);
                }
            }
        }
    }
    all
}

/// These documents with a mask in the place of each value and key that is at one of these places, and in the place of the same
/// values elsewhere, and of what `written` covers.
pub fn masked(documents: &[Node], secrets: &HashSet<Span>, written: &Veil) -> Vec<Node> {
    let mut values = vec![];
    documents.iter().for_each(|document| texts_at(document, secrets, &mut values));
    let veil = Veil::over(with_words(values));
    let cover = |documents: &[Node], veil: &Veil| -> Vec<Node> {
        documents.iter().map(|document| covered(document, secrets, veil)).collect()
    };
    let covered = cover(documents, &veil);
    if written.is_empty() { covered } else { cover(&covered, written) }
}

/// The values in a rendered file, or in one that somebody has written in its place, that are secret by name or content. The pillar
/// that made the file is not known.
pub fn secrets_in_file(text: &str) -> Vec<String> {
    /// What follows in a run script or a server's configuration is the same for every service.
    const END: &str = "\n# From here on";
    let own = text.split(END).next().unwrap_or_default();
    let mut values = vec![];
    let mut follows = false;
    let mut has_names = false;
    for line in own.lines().filter(|line| !line.starts_with('#')) {
        let item = line.trim().trim_start_matches("- ").trim_matches(['"', '\'']);
        if follows && !is_ordinary(item) {
            values.push(item.to_owned());
        }
        follows = is_secret_option(item);
        // A bare `key` is a secret if its value is long and random.
        has_names |= !line.starts_with("secrets:")
            && (value_in(line).is_some() || ["key", "Key", "KEY"].iter().any(|key| line.contains(key)));
        // Where words of a shell are in quotes, a name and its value may be in two words. A quote in one of them stays one.
        let bare = line.replace("'\\''", "\"").replace(['\'', '\\'], "");
        for text in [line, bare.as_str()] {
            if assigns(text) {
                parts(text, &mut |part| values.push(part.to_owned()));
            }
        }
    }
    if has_names {
        values.extend(settings(own).into_iter().flat_map(|settings| values_of(&settings)));
    }
    values
}

/// The settings in a run script, which is YAML, or in a server's configuration in Python, whose lines are nearly that: `name = {…}`.
/// Nothing if the file is neither.
fn settings(text: &str) -> Option<Node> {
    let is_run_script = text.lines().any(|line| line.starts_with("application: "));
    let assigned = || {
        let settings =
            text.lines().filter_map(|line| line.split_once(" = ").filter(|(name, _)| is_variable(name)));
        settings.map(|(name, value)| format!("{name}: {value}\n")).collect()
    };
    let yaml = if is_run_script { Cow::Borrowed(text) } else { Cow::Owned(assigned()) };
    let source = Source::new("", &*yaml);
    let mut node = pillar::parse_rendered(&source, SourceId(0)).ok()?.documents.pop()?;
    if let Value::Map(pairs) = &mut node.value {
        // These are the names of variables, not their values.
        pairs.retain(|pair| !matches!(&pair.key.value, Value::Str(key) if named(key) == Named::All));
    }
    Some(node)
}

/// The values of documents that are secret, and each word of them that is one. They are masked in files that are rendered from a part of
/// these documents, too: another part may have the same value, by an alias for example, or a default that is replaced.
pub fn secret_values(documents: &[Node], secrets: &[Span]) -> HashSet<String> {
    let places: HashSet<Span> = secrets.iter().copied().collect();
    let mut texts = vec![];
    if !places.is_empty() {
        documents.iter().for_each(|document| texts_at(document, &places, &mut texts));
    }
    let texts: HashSet<Cow<'_, str>> = texts.into_iter().collect();
    with_words(texts.into_iter().collect()).into_iter().map(Cow::into_owned).collect()
}

/// The values of an application that are secret by name or content, wherever they stand in it.
pub(super) fn values_of(application: &Node) -> Vec<String> {
    let mut found = Found::default();
    found.collect(application, NameSays::of(""), Below::Anything);
    let places: HashSet<Span> = found.spans.into_iter().collect();
    let mut texts = vec![];
    if !places.is_empty() {
        texts_at(application, &places, &mut texts);
    }
    let mut values: Vec<String> = with_words(texts).into_iter().map(Cow::into_owned).collect();
    if !places.is_empty() {
        values.extend(words_of_commands(application, &places));
    }
    values
}

/// Where the string of a command is, which is split at blanks: a key of the application, or of a map in it.
const COMMANDS: [&[&str]; 2] = [&["unicorn_command"], &["log", "processor"]];

/// The words of commands that are in secrets which stand elsewhere: rendered, each word is on a line of its own.
fn words_of_commands(application: &Node, places: &HashSet<Span>) -> Vec<String> {
    let normal = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = vec![];
    let mut texts = vec![];
    elsewhere(application, &COMMANDS, places, &mut texts);
    texts.retain(|text| text.trim().contains(char::is_whitespace));
    if texts.is_empty() {
        return found;
    }
    let veil = Veil::over(texts.iter().map(|text| normal(text)));
    let commands = COMMANDS.iter().filter_map(|steps| application.find(steps.iter().copied()));
    for line in commands.filter_map(|node| if let Value::Str(line) = &node.value { Some(line) } else { None })
    {
        let line = normal(line);
        let mut ranges = veil.ranges(line.as_bytes()).into_iter().peekable();
        let mut at = 0;
        for word in line.split(' ') {
            let end = at + word.len();
            while ranges.next_if(|range| range.end <= at).is_some() {}
            if ranges.peek().is_some_and(|range| range.start < end) {
                found.extend(as_rendered(word));
            }
            at = end + 1;
        }
    }
    found
}

/// The texts at these places, but for what is below the keys that one of `commands` leads to.
fn elsewhere<'a>(
    node: &'a Node,
    commands: &[&[&str]],
    places: &HashSet<Span>,
    texts: &mut Vec<Cow<'a, str>>,
) {
    let Value::Map(pairs) = &node.value else { return texts_at(node, places, texts) };
    for pair in pairs {
        let key = if let Value::Str(key) = &pair.key.value { key.as_str() } else { "" };
        let below: Vec<&[&str]> = commands
            .iter()
            .filter_map(|steps| steps.split_first().filter(|(first, _)| **first == key).map(|(_, rest)| rest))
            .collect();
        if !below.iter().any(|rest| rest.is_empty()) {
            elsewhere(&pair.value, &below, places, texts);
        }
    }
}

/// A word as it stands in a rendered list: by itself a word in small letters is a part of everything, and is not looked for.
fn as_rendered(word: &str) -> impl Iterator<Item = String> {
    [word.to_owned(), format!("- {word}"), format!("- \"{word}\""), format!("'{word}'")].into_iter()
}

/// These texts, and each word of them that is secret if the text is split at blanks, as a command is: then each word is written
/// by itself.
fn with_words(mut texts: Vec<Cow<'_, str>>) -> Vec<Cow<'_, str>> {
    let mut words = vec![];
    for text in texts.iter().filter(|text| text.contains(char::is_whitespace)) {
        let mut follows = false;
        for word in text.split_whitespace() {
            if (follows && !is_ordinary(word)) || why("", word).is_some() {
                words.push(Cow::Owned(word.to_owned()));
            }
            follows = is_secret_option(word);
        }
    }
    texts.extend(words);
    texts
}

/// The texts at these places.
fn texts_at<'a>(node: &'a Node, places: &HashSet<Span>, texts: &mut Vec<Cow<'a, str>>) {
    match &node.value {
        Value::Map(pairs) => {
            for pair in pairs {
                texts_at(&pair.key, places, texts);
                texts_at(&pair.value, places, texts);
            }
        }
        Value::List(items) => items.iter().for_each(|item| texts_at(item, places, texts)),
        Value::Null => {}
        Value::Str(text) if places.contains(&node.span) => texts.push(text.into()),
        // A number is written the same elsewhere, also within a text.
        _ if places.contains(&node.span) => texts.push(node.key_text().into()),
        _ => {}
    }
}

fn covered(node: &Node, secrets: &HashSet<Span>, veil: &Veil) -> Node {
    let both = |pair: &Pair| Pair {
        // What would make two keys alike, or a key another one, is left.
        key: covered(&pair.key, secrets, &Veil::default()),
        value: covered(&pair.value, secrets, veil),
    };
    let value = match &node.value {
        Value::Map(pairs) => Value::Map(pairs.iter().map(both).collect()),
        Value::List(items) => Value::List(items.iter().map(|item| covered(item, secrets, veil)).collect()),
        Value::Null => Value::Null,
        _ if secrets.contains(&node.span) => Value::Str(MASK.to_owned()),
        Value::Str(text) => Value::Str(veil.cover(text).into_owned()),
        other => match veil.cover(&node.key_text()) {
            Cow::Borrowed(_) => other.clone(),
            Cow::Owned(covered) => Value::Str(covered),
        },
    };
    Node { value, ..node.hollow() }
}

/// What a value stands below.
#[derive(Clone, Copy, PartialEq)]
enum Below {
    Anything,
    /// A map of variables, where a name that says secret says so of a map as well.
    Variables,
    /// A name of a secret: what is ordinary is none all the same.
    Named,
    /// `secrets`.
    Secret,
}

#[derive(Default)]
struct Found {
    spans: Vec<Span>,
    /// What stands below `secrets`, comments and all.
    sections: Vec<Span>,
    /// Where keys end that are to have a secret, and have no value.
    without_value: Vec<u32>,
}

impl Found {
    /// `name` is what the key says that the value has, or the list that it is in.
    fn collect(&mut self, node: &Node, name: NameSays, below: Below) {
        let is_sensitive = match &node.value {
            Value::Map(pairs) => return self.map(pairs, below),
            Value::List(items) => {
                // `["gunicorn", "--token", "hunter2"]`
                let mut follows = false;
                for item in items {
                    let below = if follows && below != Below::Secret { Below::Named } else { below };
                    self.collect(item, name, below);
                    follows = matches!(&item.value, Value::Str(word) if is_secret_option(word));
                }
                return;
            }
            Value::Null => false,
            _ if below == Below::Secret => true,
            _ if node.ordinary => false,
            Value::Str(text) => {
                (below == Below::Named && !is_ordinary(text))
                    || name.why(text).is_some()
                    || has_lost_its_colon(text)
            }
            Value::Bool(_) => false,
            _ => below == Below::Named,
        };
        if is_sensitive {
            self.spans.push(node.span);
        }
    }

    fn map(&mut self, pairs: &[Pair], below: Below) {
        // `secrets:` with nothing below it, because what follows has lost its indentation.
        let mut lost = false;
        // `{PASSWORD: hun,ter2}` has a second key, without a value or a colon.
        let mut is_split = false;
        for pair in pairs {
            let key: Cow<'_, str> = match &pair.key.value {
                Value::Str(key) => shown(key),
                _ => Cow::Owned(pair.key.key_text()),
            };
            // `{A:hunter2}` has a key and no value.
            let is_rest = is_split
                && matches!(pair.value.value, Value::Null)
                && pair.value.span.start <= pair.key.span.end;
            if (below == Below::Secret && !is_variable(&key))
                || is_rest
                || assigns(&key)
                || has_lost_its_colon(&key)
            {
                self.spans.push(pair.key.span);
            }
            let is_map = matches!(pair.value.value, Value::Map(_));
            let below = match named(&key) {
                Named::All => {
                    lost = matches!(pair.value.value, Value::Null);
                    self.sections.push(pair.value.span);
                    Below::Secret
                }
                _ if below == Below::Secret || (lost && is_shouted(&key)) => Below::Secret,
                Named::Value if !is_map || below == Below::Variables => Below::Named,
                _ if key == "environment" && below == Below::Anything => Below::Variables,
                _ => below,
            };
            if matches!(pair.value.value, Value::Null) && matches!(below, Below::Secret | Below::Named) {
                self.without_value.push(pair.key.span.end);
            }
            is_split = is_rest
                || matches!(below, Below::Secret | Below::Named) && !matches!(pair.value.value, Value::Null);
            self.collect(&pair.value, NameSays::of(&key), below);
        }
    }
}

/// `password: &hunter2` is a key without a value, because a password that begins like that needs quotes: what stands behind
/// the key on its line is masked. `ends` is where such keys end.
fn behind_keys(text: &str, id: SourceId, mut ends: Vec<u32>) -> Vec<Span> {
    // The same key comes by many aliases, and many keys may stand on one line: in their order, each byte is looked at once.
    ends.sort_unstable();
    ends.dedup();
    let mut spans = vec![];
    let mut masked_to = 0;
    for end in ends.into_iter().map(|end| end as usize).filter(|end| *end < text.len()) {
        if end < masked_to {
            continue;
        }
        let rest = text.get(end..).unwrap_or_default();
        let is_between = |c: char| c != '\n' && (c.is_whitespace() || ":\"'".contains(c));
        let meant = rest.trim_start_matches(is_between);
        if meant.starts_with(['&', '*', '!']) {
            let start = end + rest.len() - meant.len();
            masked_to = start + meant.find('\n').unwrap_or(meant.len());
            spans.push(Span::new(id, start, masked_to));
        }
    }
    spans
}

/// Comments that stand within one of the `sections`, or give a value to a name that says secret.
fn secrets_in_comments(text: &str, id: SourceId, sections: &[Span]) -> Vec<Span> {
    let mut spans = vec![];
    // Where each section begins, and the furthest end of it and those before.
    let mut starts_of: Vec<(u32, u32)> =
        sections.iter().map(|section| (section.start, section.end)).collect();
    starts_of.sort_unstable();
    let mut furthest = 0;
    for (_, end) in &mut starts_of {
        furthest = furthest.max(*end);
        *end = furthest;
    }
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let starts =
            |(hash, _): &(usize, &str)| *hash == 0 || line[..*hash].ends_with([' ', '\t', '\u{feff}']);
        // What is within quotes may look like a comment; then too much is masked.
        if let Some((hash, _)) = line.match_indices('#').find(starts) {
            let (start, end) = (at + hash + 1, at + line.len());
            // What follows the last value on its line belongs to it. Of the sections that begin before, in their
            // order, the furthest end counts.
            let before = starts_of.partition_point(|(begin, _)| *begin as usize <= start);
            let furthest = before.checked_sub(1).map_or(0, |last| starts_of[last].1 as usize);
            let inside = furthest > at;
            let value = if inside { Some(0) } else { value_of_line(&text[start..end]) };
            spans.extend(value.map(|value| Span::new(id, start + value, end)));
        }
        at += line.len();
    }
    spans
}

/// Where secrets may stand in a text that could not be read: whatever follows such a key, on its
/// line and on the deeper ones below it. A guess that covers rather too much.
pub fn secrets_in_text(text: &str, id: SourceId) -> Vec<Span> {
    named_in_text(text, id, true)
}

/// Finds values of secret names in a text whose documents lack a part of it: the first value of a key that is given twice.
pub fn secrets_in_dropped(text: &str, id: SourceId) -> Vec<Span> {
    named_in_text(text, id, false)
}

fn named_in_text(text: &str, id: SourceId, with_strays: bool) -> Vec<Span> {
    let mut spans = values(text, id, value_of_line);
    if with_strays {
        spans.extend(strays(text, id, &spans));
    }
    // What a secret is an alias of is a secret where it stands.
    let masked: Vec<&str> = spans.iter().filter_map(|span| text.get(span.range())).collect();
    let names: HashSet<&str> = masked.iter().flat_map(|text| aliases(text)).collect();
    if !names.is_empty() {
        spans.extend(values(text, id, |line| {
            line.match_indices('&').find_map(|(at, _)| {
                let name = name_at(&line[at + 1..]);
                names.contains(name).then_some(at + 1 + name.len())
            })
        }));
    }
    spans.sort();
    spans.dedup_by(|next, kept| {
        let overlaps = next.start <= kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
        }
        overlaps
    });
    spans
}

/// The names after an asterisk.
fn aliases(text: &str) -> impl Iterator<Item = &str> {
    text.split('*').skip(1).map(name_at).filter(|name| !name.is_empty())
}

/// The name of an anchor that a text begins with.
fn name_at(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).unwrap_or(text.len())]
}

/// Where the value begins in a line as [`value_in`] has it, also if its name is written with escapes, or with characters that do not
/// show, or if the sign between them was forgotten.
fn value_of_line(line: &str) -> Option<usize> {
    let plain = Plain::of(line).and_then(|plain| Some(plain.place(value_in(&plain.text)?)));
    value_in(line).into_iter().chain(plain).chain(behind_variable(line)).min()
}

/// Where what follows the name of a secret variable begins, whatever stands between them: `DB_PASSWORD value`.
fn behind_variable(line: &str) -> Option<usize> {
    // Nearly no line has one.
    if !line.contains('_') {
        return None;
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut from = 0;
    std::iter::from_fn(|| {
        let start = from + line.get(from..)?.find(is_part)?;
        let rest = line.get(start..)?;
        let word = rest.get(..rest.find(|c| !is_part(c)).unwrap_or(rest.len()))?;
        from = start + word.len();
        Some((word, from))
    })
    .find_map(|(word, end)| {
        if !is_secret_variable(word) {
            return None;
        }
        // Only the next character is looked at: a line may have very many names, and end in very many blanks.
        let behind = line.get(end..)?.trim_start_matches(['"', '\'', ' ', '\t', '\\']).chars().next()?;
        (!behind.is_whitespace() && !matches!(behind, ':' | '=')).then_some(end)
    })
}

/// Whether a word can be nothing but the name of a secret variable: `DB_PASSWORD`.
fn is_secret_variable(word: &str) -> bool {
    word.contains('_') && is_shouted(word) && is_named(word)
}

/// Whether a text is the name of a secret variable and one word, or what is in quotes, behind it: a colon was forgotten. With more
/// words it is a sentence.
fn has_lost_its_colon(text: &str) -> bool {
    let Some((name, value)) = text.trim().split_once(char::is_whitespace) else { return false };
    let value = value.trim_start();
    is_secret_variable(name) && (value.starts_with(['"', '\'']) || !value.contains(char::is_whitespace))
}

/// From a section of secrets on, what may be the rest of it in a text that cannot be read, wherever it has got to: lines that belong to
/// no key, and the values of keys that no pillar has.
fn strays(text: &str, id: SourceId, spans: &[Span]) -> Vec<Span> {
    let is_section = |span: &&Span| {
        let before =
            text.get(..span.range().start).unwrap_or_default().trim_end_matches([':', '=', ' ', '\t']);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let name =
            line.rsplit(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).find(|name| !name.is_empty());
        name.is_some_and(|name| named(name) == Named::All)
    };
    let Some(first) = spans.iter().filter(is_section).map(|span| span.range().start).min() else {
        return vec![];
    };
    let mut found = vec![];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if start < first {
            continue;
        }
        let mut bare = line.trim();
        while let Some(rest) = bare.strip_prefix("- ") {
            bare = rest.trim_start();
        }
        let (mut has_key, mut stray, mut name_from) = (false, None, 0);
        for (sign, _) in bare.match_indices([':', ',', '{', '[']) {
            let name = bare.get(name_from..sign).unwrap_or_default().trim();
            let rest = bare.get(sign + 1..).unwrap_or_default();
            name_from = sign + 1;
            let is_key = bare.as_bytes().get(sign) == Some(&b':')
                && !name.is_empty()
                && (rest.is_empty() || rest.starts_with([' ', '\t', '"', '\'', '[', '{']));
            has_key |= is_key;
            if is_key && is_stray(name, rest) {
                stray = Some(rest.len());
                break;
            }
        }
        let is_mark =
            bare.starts_with('#') || matches!(bare, "---" | "...") || !bare.contains(char::is_alphanumeric);
        let end = start + line.trim_end().len();
        match stray {
            Some(length) if !bare.starts_with('#') => found.push(Span::new(id, end - length, end)),
            None if !has_key && !is_mark => found.push(Span::new(id, start, at)),
            _ => {}
        }
    }
    found
}

/// Whether what follows a key may be a secret that has lost its place: the key is none of a pillar's.
fn is_stray(key: &str, value: &str) -> bool {
    const LONGEST: usize = 200;
    if key.len() > LONGEST {
        return false;
    }
    let key = key.trim_matches(['"', '\'']);
    // Of a long line, no more is looked at than a value needs.
    let most = value.char_indices().nth(LONGEST).map_or(value.len(), |(at, _)| at);
    let value = value.get(..most).unwrap_or_default().trim();
    let is_name = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    // An application may have any name, and its map be on the same line.
    let is_map = value.starts_with(['{', '[']) && !is_shouted(key);
    let is_nothing = value.is_empty() || value.starts_with(['*', '#']);
    is_name && !is_map && !is_nothing && !is_ordinary(value) && !schema::has_key(key)
}

/// A key without characters that do not show: nobody sees that it is another one.
fn shown(key: &str) -> Cow<'_, str> {
    if key.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !key.contains(is_invisible) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(key.chars().filter(|c| !is_invisible(*c)).collect())
}

/// What is left out of a line: its end and its tabs stay, and what stands for bytes that are no character goes, too.
fn is_dropped(c: char) -> bool {
    c == '\u{fffd}' || (is_invisible(c) && !matches!(c, '\t' | '\n' | '\r'))
}

/// A line in which names are written as they are meant.
struct Plain {
    text: String,
    /// Where its bytes are in the line, wherever that is not as far behind as before.
    places: Vec<(usize, usize)>,
}

impl Plain {
    /// None if the line has nothing in it that could be written otherwise.
    fn of(line: &str) -> Option<Self> {
        if !line.contains('\\') && !line.contains(is_dropped) {
            return None;
        }
        let mut plain = Self { text: String::with_capacity(line.len()), places: vec![] };
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let (meant, length) = escape(rest).unwrap_or((c, c.len_utf8()));
            rest = rest.get(length..).unwrap_or_default();
            if !is_dropped(meant) {
                plain.text.push(meant);
            }
            if is_dropped(meant) || length != meant.len_utf8() {
                plain.places.push((plain.text.len(), line.len() - rest.len()));
            }
        }
        Some(plain)
    }

    /// Where a byte of the text is in the line.
    fn place(&self, at: usize) -> usize {
        let before = self.places.partition_point(|(plain, _)| *plain <= at);
        let known = before.checked_sub(1).and_then(|last| self.places.get(last));
        known.map_or(at, |(plain, place)| place + (at - plain))
    }
}

/// What a text begins with, if that is the escape of a character that a name or the beginning of a URL may have, or of one that does not
/// show; and how long it is.
/// Quotes and blanks stay escaped: they end nothing.
fn escape(text: &str) -> Option<(char, usize)> {
    let rest = text.strip_prefix('\\')?;
    let digits = match rest.chars().next()? {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        // YAML 1.2, 5.7; none of them shows.
        '0' | 'a' | 'b' | 'v' | 'f' | 'e' | 'N' | 'L' | 'P' => return Some(('\0', 2)),
        // JSON (RFC 8259, 7).
        '/' => return Some(('/', 2)),
        _ => return None,
    };
    let code = u32::from_str_radix(rest.get(1..=digits)?, 16).ok()?;
    let c = char::from_u32(code)?;
    let is_meant = c.is_alphanumeric() || matches!(c, '_' | '-' | '.') || is_dropped(c);
    is_meant.then_some((c, 2 + digits))
}

/// The key that a line gives after a question mark, without quotes, tags and anchors; empty if it stands on the next line.
fn explicit_key(line: &str) -> Option<Cow<'_, str>> {
    let mut rest = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    while let Some(item) = rest.strip_prefix("- ") {
        rest = item.trim_start();
    }
    let key = rest.strip_prefix('?').filter(|key| key.is_empty() || key.starts_with([' ', '\t']))?;
    Some(bare_key(key))
}

fn bare_key(text: &str) -> Cow<'_, str> {
    let mut key = text.trim();
    while key.starts_with(['!', '&', '|', '>']) {
        key = key.trim_start_matches(|c: char| !c.is_whitespace()).trim_start();
    }
    let key = key.split(" #").next().unwrap_or_default();
    let key = key.trim_matches(|c: char| c.is_whitespace() || "\"':".contains(c));
    Plain::of(key).map_or(Cow::Borrowed(key), |plain| Cow::Owned(plain.text))
}

/// The values that begin on a line where `find` says.
fn values(text: &str, id: SourceId, find: impl Fn(&str) -> Option<usize>) -> Vec<Span> {
    let mut spans = vec![];
    let mut at = 0;
    let mut is_key_next = false;
    while let Some(line) = text.get(at..).and_then(|rest| rest.split_inclusive('\n').next()) {
        let end = at + line.len();
        let key = match explicit_key(line) {
            Some(key) => {
                is_key_next = key.is_empty();
                Some(key)
            }
            None if is_key_next && !line.trim().is_empty() => {
                is_key_next = false;
                Some(bare_key(line))
            }
            None => None,
        };
        // A key on a line of its own has its value on others, which begin like keys.
        if key.is_some_and(|key| named(&key) != Named::No) {
            // It may be a map, with the value in it.
            spans.extend(find(line).map(|value| Span::new(id, at + value, end)));
            spans.push(Span::new(id, end, text.len()));
            break;
        }
        // The name of a variable without anything: its value has got on the next line.
        let lone = line.trim().trim_matches(|c: char| "\"',{[".contains(c));
        if is_secret_variable(lone) {
            let next = text.get(end..).and_then(|rest| rest.split_inclusive('\n').next());
            spans.extend(next.map(|next| Span::new(id, end, end + next.len())));
        }
        // `secrets` without its colon.
        let section = || (named(lone) == Named::All).then_some(line.trim_end().len());
        let Some(value) = find(line).or_else(section) else {
            at = end;
            continue;
        };
        let start = at + value;
        let end = end_of_value(text, start, end, depth(line), line.trim_start().starts_with('-'));
        spans.push(Span::new(id, start, end));
        at = end.max(start);
    }
    spans
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t', '\u{feff}']).len()
}

/// Where a value ends that begins at `start` on a line that ends at `end` and is indented by `depth`.
fn end_of_value(text: &str, start: usize, mut end: usize, depth_of_key: usize, in_list: bool) -> usize {
    let value = text.get(start..).unwrap_or_default();
    let mut open = value.trim_start();
    while open.starts_with(['&', '!']) {
        open = open.trim_start_matches(|c: char| !c.is_whitespace()).trim_start();
    }
    let begin = start + (value.len() - open.len());
    if open.starts_with(['{', '[']) {
        match (end_of_brackets(open, false), end_of_brackets(open, true)) {
            (Some(one), Some(other)) => end = end.max(begin + one.max(other)),
            _ => return text.len(),
        }
    } else if let Some(quote) = open.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        match open.get(1..).unwrap_or_default().find(quote) {
            Some(closing) => end = end.max(begin + 1 + closing + 1),
            None => return text.len(),
        }
    }
    // The rest of the line on which it seems to end, and what is deeper than its key.
    if !text.get(..end).is_some_and(|before| before.ends_with('\n')) {
        let rest = text.get(end..).unwrap_or_default();
        end += rest.find('\n').map_or(rest.len(), |at| at + 1);
    }
    let nothing =
        open.is_empty() || value.split_inclusive('\n').next().is_some_and(|line| line.trim().is_empty());
    let mut is_below = false;
    for line in text.get(end..).unwrap_or_default().split_inclusive('\n') {
        let item = !in_list && depth(line) == depth_of_key && line.trim_start().starts_with("- ");
        let deeper = depth(line) > depth_of_key;
        is_below |= deeper || item;
        let key = key_of(line);
        // Variables that have lost their indentation, and lines that are nobody's.
        let lost = match key {
            Some(key) => nothing && !is_below && is_shouted(key),
            None => true,
        };
        if !line.trim().is_empty() && !deeper && !item && !lost {
            break;
        }
        end += line.len();
    }
    end
}

/// Where the bracket that opens a text is closed. Brackets in quotes count or do not: where the quotes
/// are is a guess in a text that cannot be read.
fn end_of_brackets(text: &str, quotes: bool) -> Option<usize> {
    let mut level = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match c {
            _ if quote.is_some() => quote = quote.filter(|open| *open != c),
            '"' | '\'' if quotes => quote = Some(c),
            '{' | '[' => level += 1,
            '}' | ']' => level -= 1,
            _ => {}
        }
        if level == 0 {
            return Some(at);
        }
    }
    None
}

/// What a line begins with that ends a value above it: a key; empty for the item of a list, the
/// beginning of a document, a bracket or a comment.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line == "---"
        || line == "..."
        || line.starts_with("- ")
        || line.starts_with(['{', '[', '}', ']', '#', '"', '\''])
    {
        return Some("");
    }
    let (key, rest) = line.split_once(':')?;
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    ((rest.is_empty() || rest.starts_with([' ', '\t'])) && key.chars().all(is_part)).then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a text that could not be read.
    fn left(text: &str) -> String {
        let mut out = String::new();
        let mut at = 0;
        for span in secrets_in_text(text, SourceId(0)) {
            out.push_str(&text[at..span.range().start]);
            at = span.range().end;
        }
        out + &text[at..]
    }

    fn parsed(text: &str) -> Node {
        let source = crate::source::Source::new("t", text);
        let format = crate::pillar::Format::Yaml;
        let parsed = crate::pillar::parse(&source, SourceId(0), format, crate::pillar::Dialect::Salt);
        parsed.unwrap().documents.remove(0)
    }

    /// Keys without values are looked behind once, however many there are on a line.
    #[test]
    fn what_stands_behind_a_key_without_a_value_is_masked() {
        for (text, masked) in [
            ("password: &hunter2\nuser: x\n", vec!["&hunter2"]),
            ("x: &n\nsecrets: {A: *n, B: *n}\nb: 1\n", vec!["*n, B: *n}"]),
            ("secrets: {A, B: , 'C' : !!null }\n", vec!["!!null }"]),
            ("password:\n\n  \nuser: x\n", vec![]),
            ("x: &x {password: }\ny: [*x, *x]\n", vec![]),
        ] {
            let document = parsed(text);
            let mut found = Found::default();
            found.collect(&document, NameSays::of(""), Below::Anything);
            let spans = behind_keys(text, SourceId(0), found.without_value);
            assert_eq!(spans.iter().map(|span| &text[span.range()]).collect::<Vec<_>>(), masked, "{text}");
        }
        let keys: Vec<String> = (0..200_000).map(|n| format!("K{n}")).collect();
        let text = format!("secrets: {{{}}}\n", keys.join(","));
        assert!(secrets_in_document(&parsed(&text), &text).len() <= 1);
    }

    #[test]
    fn each_secret_word_of_a_command_is_a_value() {
        for (command, words) in [
            ("srv --token Aaaaaa11x --password Bbb,'22y", vec!["Aaaaaa11x", "Bbb,'22y"]),
            (
                "srv --token=Tok12345x --dsn postgres://u:Pw123456@h/db",
                vec!["--token=Tok12345x", "postgres://u:Pw123456@h/db"],
            ),
            ("srv --verbose yes", vec![]),
        ] {
            let values = values_of(&parsed(&format!("unicorn_command: \"{command}\"\n")));
            assert!(
                words.iter().all(|word| values.iter().any(|value| value == word)),
                "{command}: {values:?}"
            );
            assert_eq!(values.is_empty(), words.is_empty(), "{command}: {values:?}");
        }
    }

    /// Rendered, each word of a command is on a line of its own.
    #[test]
    fn the_words_of_a_secret_in_a_command_are_values() {
        let values = |pillar: &str| {
            let values = values_of(&parsed(pillar));
            let veil = Veil::over(values);
            veil.cover("- srv\n- correct\n- horse\n  'stop'\n- st9x\n- the-correct-one").into_owned()
        };
        let secret = "secrets: {A: correct horse  stop st9x}\n";
        let masked = "- srv\n********\n********\n  ********\n********\n- the-correct-one";
        let open = "- srv\n- correct\n- horse\n  'stop'\n- st9x\n- the-correct-one";
        for (pillar, want) in [
            ("unicorn_command: srv -x correct   horse stop st9x\n", masked),
            ("unicorn_command: srv -x=correct horse stop st9x\nlog: {processor: x correct}\n", masked),
            ("log: {processor: srv correct horse stop st9x --y}\n", masked),
            // Nobody splits these.
            ("unicorn_command: [srv, correct horse stop st9x]\n", open),
            ("app: srv correct horse stop st9x\n", open),
            ("unicorn_command: srv correct\n", open),
        ] {
            let shown = values(&format!("{secret}{pillar}"));
            let want = if pillar.contains("-x=") {
                want.replace("\n********\n********\n  ", "\n- correct\n********\n  ")
            } else {
                want.to_owned()
            };
            assert_eq!(shown, want, "{pillar}");
        }
        assert_eq!(
            values("x: &x srv correct horse\nsecrets: {A: *x}\nunicorn_command: *x\n").matches(MASK).count(),
            2
        );
        // Its own secret is none that stands elsewhere.
        assert_eq!(values("unicorn_command: srv correct horse --token Aaaaaa11x\n"), open);
    }

    #[test]
    fn a_key_with_what_does_not_show_is_what_it_looks_like() {
        for text in [
            "\"pass\\u200bword\": s3cr3t\n",
            "\"secr\\u2060ets\": {A: s3cr3t}\n",
            "pass\u{200d}word: s3cr3t\n",
        ] {
            let spans = secrets_in_document(&parsed(text), text);
            assert_eq!(
                spans.iter().map(|span| &text[span.range()]).collect::<Vec<_>>(),
                ["s3cr3t"],
                "{text}"
            );
        }
    }

    #[test]
    fn a_copy_that_is_written_otherwise_is_a_secret() {
        for (text, copies) in [
            (
                "secrets: {A: 'hunter2:99'}\nb: \"x hunter2\\x3a99\"\nc: \"a\\tb\"\n",
                vec!["\"x hunter2\\x3a99\""],
            ),
            ("secrets: {A: \"hunter2\\x3a99\"}\nb: hunter2:99\n", vec![]),
            ("secrets: {A: hunter2 horse}\nb: hunter2\n  horse\n", vec!["hunter2\n  horse"]),
            ("secrets: {A: hunter2-horse}\nb: |\n  hunter2-horse\n  x\n", vec![]),
        ] {
            let document = parsed(text);
            let spans = secrets_in_document(&document, text);
            let found = spans.iter().map(|span| text[span.range()].trim_end()).skip(1).collect::<Vec<_>>();
            assert_eq!(found, copies, "{text}");
        }
    }

    #[test]
    fn a_scalar_is_read_as_each_dialect_reads_it() {
        for (text, read) in [
            ("\"a\\x3ab\"", vec!["a:b"]),
            ("'it''s'", vec!["it's"]),
            ("a\n  b", vec!["a b"]),
            ("0x1F", vec!["31"]),
            ("yes", vec!["true"]),
            ("1e3", vec!["1000.0"]),
            ("plain", vec![]),
            ("*x", vec![]),
            ("", vec![]),
        ] {
            let found = readings(text);
            assert!(read.iter().all(|read| found.iter().any(|one| one == read)), "{text}: {found:?}");
            assert_eq!(found.is_empty(), read.is_empty(), "{text}: {found:?}");
        }
    }

    #[test]
    fn secrets_of_a_text_that_cannot_be_read() {
        let cases = [
            ("secrets: {A: s3cr3t\nB: s3cr3t\n", "secrets:"),
            ("a: 1\nsecrets:\n  A: s3cr3t\n\n  B: s3cr3t\nuser: x\n", "a: 1\nsecrets:user: x\n"),
            ("x: {\"API_KEY\" : \"s3cr3t, s3cr3t\n", "x: {\"API_KEY\" :"),
            ("API_KEY: 's3cr3t\n s3cr3t' s3cr3t\nuser: x\n", "API_KEY:user: x\n"),
            ("secrets:\n- s3cr3t\n- s3cr3t\nuser: x", "secrets:user: x"),
            ("- token: |\n    s3cr3t\n  user: x\n", "- token:"),
            ("secrets: [s3cr3t,\ns3cr3t]\nuser: x\n", "secrets:user: x\n"),
            ("{\"secrets\":{\"A\":\"s3cr3t\"},\"b\":1}", "{\"secrets\":"),
            ("user: x\r\nbind: y\r\n", "user: x\r\nbind: y\r\n"),
            ("", ""),
            ("a\u{feff}漢:\npassword:", "a\u{feff}漢:\npassword:"),
            // A sign was forgotten.
            ("x:\n  DB_PASSWORD s3cr3t\n", "x:\n  DB_PASSWORD"),
            ("x:\n  DB_PASSWORD; s3cr3t\nuser: x\n", "x:\n  DB_PASSWORDuser: x\n"),
            ("{\"DB_PASSWORD\", \"s3cr3t\"}", "{\"DB_PASSWORD"),
            ("user: MY_TOKEN\nbind: y\n", "user: MY_TOKEN\nbind: y\n"),
            ("{\"DB_PASSWORD\"\n\"s3cr3t\"}", "{\"DB_PASSWORD\"\n"),
            ("? {secrets: {B: s3cr3t}}\n: x\n", "? {secrets:"),
            ("DB_PASSWORD\r\n  \r\n", "DB_PASSWORD\r\n"),
            ("a:\n  ? b: {user: x, secrets: {B: s3cr3t}}\n", "a:\n  ? b: {user: x, secrets:"),
            // Lines that have lost their indentation, or that stand behind one that does not belong there.
            ("secrets:\n  - a\n- s3cr3t\nuser: x\n", "secrets:user: x\n"),
            ("a:\n  secrets:\n    A:\n \"s3cr3t\"\nuser: x\n", "a:\n  secrets:user: x\n"),
            ("web:\n  secrets\n    SALT: s3cr3t\nuser: x\n", "web:\n  secretsuser: x\n"),
            (
                "web:\n  secrets:\n    A: s3cr3t\n  SALT: s3cr3t\n    BERRY: s3cr3t\n",
                "web:\n  secrets:  SALT:\n    BERRY:\n",
            ),
            ("a:\n  secrets:\n    A: s3cr3t\n  - b: s3cr3t\n    user: x\n", "a:\n  secrets:"),
            ("secrets: {A: b}\n{user: x, \"b\": s3cr3t, c: d}\n", "secrets:{user: x, \"b\":\n"),
            (
                "secrets: {A: b}\nweb: {user: x}\n<<: *a\nb: /etc/x\n",
                "secrets:web: {user: x}\n<<: *a\nb: /etc/x\n",
            ),
            (
                "  secrets:\n    A: |\n      s3cr3t\n  gunicorn: {workers: 4}\n      s3cr3t\n  user: x\n",
                "  secrets:  gunicorn: {workers: 4}\n  user: x\n",
            ),
            ("secrets: {A: b}\n:  s3cr3t\nuser: x\n", "secrets:user: x\n"),
            ("? \"password\"\n: s3cr3t\n", "? \"password\"\n"),
            ("- ? !!str &a password # why\n  : s3cr3t\n", "- ? !!str &a password # why\n"),
            ("?\n\n  'pass\u{200b}word'\n: s3cr3t\n", "?\n\n  'pass\u{200b}word'\n"),
            ("? user\n: deploy\n? >\n  home\n: x\n", "? user\n: deploy\n? >\n  home\n: x\n"),
            ("\"\\x73ecrets\": {A: s3cr3t}\nuser: [", "\"\\x73ecrets\":user: ["),
            ("{\"pass\\u0077ord\": \"s3cr3t\", [", "{\"pass\\u0077ord\":"),
            ("\"pass\\U00000077\\eord\": s3cr3t\n", "\"pass\\U00000077\\eord\":"),
            ("pass\u{200b}\u{fe0f}word: s3cr3t\n", "pass\u{200b}\u{fe0f}word:"),
            ("pass\u{fffd}w\u{1}ord: s3cr3t\n", "pass\u{fffd}w\u{1}ord:"),
            ("{\"A\":\"a:\\/\\/u:s3cr3t@h\"},}\n", "{\"A\":\"a:\\/\\/u:"),
            ("a: \\x41\\u12 漢\\\nb\u{ad}: 1\n", "a: \\x41\\u12 漢\\\nb\u{ad}: 1\n"),
        ];
        for (text, want) in cases {
            assert_eq!(left(text), want, "{text:?}");
        }
    }
}
