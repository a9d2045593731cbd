//! Mappings: what merge keys bring in, and keys that are there twice.

use super::build::Builder;
use super::graph::{Content, Entry, Link};
use super::key::repeated;
use super::tag::Tag;
use super::{Dialect, MAX_DEPTH, Node, Pair, Style, Value};
use crate::diagnostic::Diagnostic;
use crate::rule;
use std::collections::{HashMap, HashSet};

impl Builder<'_, '_> {
    /// Salt refuses a key that is there already; Ansible warns, and the last one wins.
    pub(super) fn without_repeated(&mut self, mut pairs: Vec<Pair>) -> Vec<Pair> {
        let repeated = repeated(self.dialect, &pairs);
        if repeated.is_empty() {
            return pairs;
        }
        for (at, first) in &repeated {
            self.repeated_key(&pairs[*at].key, &pairs[*first].key);
        }
        if self.dialect != Dialect::Ansible {
            return pairs;
        }
        // As in a Python dict: the first key keeps its place, the last value stays.
        for (at, first) in &repeated {
            let value = std::mem::replace(&mut pairs[*at].value.value, Value::Null);
            let Pair { value: last, .. } = &pairs[*at];
            pairs[*first].value = Node { value, ..last.clone() };
        }
        let gone: HashSet<usize> = repeated.iter().map(|(at, _)| *at).collect();
        let mut at = 0;
        pairs.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        pairs
    }

    fn repeated_key(&mut self, key: &Node, first: &Node) {
        let shown = match &key.value {
            Value::Str(text) if text.len() <= 60 => format!("the key `{text}`"),
            _ => "this key".to_owned(),
        };
        let message = format!("{shown} is given twice in the same mapping");
        let label = match (&key.value, &first.value) {
            (a, b) if a == b => "",
            _ => "Python takes it for the same key",
        };
        let finding = match self.dialect {
            Dialect::Ansible => {
                // Overriding what a merge key brought is what merge keys are for.
                if first.via.is_some() {
                    return;
                }
                Diagnostic::warning(&rule::DUPLICATE_KEY, message)
                    .help("Ansible uses the last value and drops the first: remove one of them.")
            }
            Dialect::Salt | Dialect::Yaml12 => {
                Diagnostic::error(&rule::DUPLICATE_KEY, message).help("Remove or rename one of them.")
            }
        };
        let at = key.via.unwrap_or(key.span);
        let mut finding = finding.at(at, label).at(first.via.unwrap_or(first.span), "given first here");
        if key.via.is_some() {
            finding = finding.at(key.span, "merged in from here");
            finding.help = vec![
                "Salt refuses merged mappings that share a key: merge one of them, or write the key out."
                    .to_owned(),
            ];
        }
        self.found(finding);
    }

    /// PyYAML's `flatten_mapping`: puts what merge keys bring in front of a mapping's own entries,
    /// once and for all. What is no mapping is left as it is.
    pub(super) fn flatten(&mut self, link: Link, depth: usize) -> Option<()> {
        if self.dialect == Dialect::Yaml12 {
            return Some(());
        }
        let raw = &self.graph.nodes[link.node as usize];
        let Content::Map(entries) = &raw.content else { return Some(()) };
        let tags = |entry: &Entry| self.graph.nodes[entry.key.node as usize].tag;
        if !entries.iter().any(|entry| matches!(tags(entry), Tag::Merge | Tag::Value)) {
            return Some(());
        }
        if depth > MAX_DEPTH {
            let range = raw.range;
            self.too_deep(range);
            return None;
        }
        let entries = entries.clone();
        let mut own = Vec::with_capacity(entries.len());
        let mut merged = Vec::new();
        for entry in entries {
            match self.graph.nodes[entry.key.node as usize].tag {
                Tag::Merge => self.merge(entry, depth, &mut merged)?,
                Tag::Value => {
                    self.graph.nodes[entry.key.node as usize].tag = Tag::Str;
                    own.push(entry);
                }
                _ => own.push(entry),
            }
        }
        if self.dialect == Dialect::Salt {
            self.drop_overridden(&own, &mut merged);
        }
        merged.append(&mut own);
        self.graph.nodes[link.node as usize].content = Content::Map(merged);
        Some(())
    }

    fn merge(&mut self, entry: Entry, depth: usize, merged: &mut Vec<Entry>) -> Option<()> {
        let via = self.graph.nodes[entry.key.node as usize].range;
        let targets = match &self.graph.nodes[entry.value.node as usize].content {
            Content::Map(_) => vec![entry.value],
            // The first one in the list wins: it comes last.
            Content::List(items) => items.iter().rev().copied().collect(),
            Content::Scalar(_) => return self.unmergeable(entry.value),
        };
        for target in targets {
            self.flatten(target, depth + 1)?;
            let Content::Map(entries) = &self.graph.nodes[target.node as usize].content else {
                return self.unmergeable(target);
            };
            let entries = entries.clone();
            self.charge(entries.len() * size_of::<Entry>(), via)?;
            merged.extend(entries.into_iter().map(|Entry { key, value }| Entry {
                key: Link { via: Some(via), ..key },
                value: Link { via: Some(via), ..value },
            }));
        }
        Some(())
    }

    fn unmergeable(&mut self, link: Link) -> Option<()> {
        let range = self.graph.nodes[link.node as usize].range;
        let finding = Diagnostic::error(&rule::MERGE_KEY, "`<<` merges a mapping, or a list of mappings")
            .at(self.span(link.via.unwrap_or(range)), "this is something else")
            .help("Write `<<: *anchor` with the anchor of a mapping, or quote the key: \"<<\".");
        self.found(finding);
        None
    }

    /// Salt drops what the mapping itself has, comparing keys as they are written.
    fn drop_overridden(&self, own: &[Entry], merged: &mut Vec<Entry>) {
        let text = |entry: &Entry| match &self.graph.nodes[entry.key.node as usize].content {
            Content::Scalar(text) => Some(text.as_ref()),
            _ => None,
        };
        let own: HashSet<&str> = own.iter().filter_map(text).collect();
        // The same long key may come by many aliases: it is compared once.
        let mut known: HashMap<u32, bool> = HashMap::new();
        merged.retain(|entry| {
            let is_own = || text(entry).is_some_and(|text| own.contains(text));
            !*known.entry(entry.key.node).or_insert_with(is_own)
        });
    }

    /// YAML 1.2 has no merge key; whoever writes one expects it to merge.
    pub(super) fn warn_of_merge_key(&mut self, key: &Node) {
        if key.style != Style::Plain || !matches!(&key.value, Value::Str(text) if text == "<<") {
            return;
        }
        let finding = Diagnostic::warning(
            &rule::MERGE_KEY,
            "YAML 1.2 has no merge key: `<<` is a key like any other",
        )
        .at(key.span, "")
        .help(
            "Read the file with `--dialect salt` or `--dialect ansible`, which merge; or write the keys out.",
        );
        self.found(finding);
    }
}
