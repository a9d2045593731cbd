//! Pillars that say that there is no application, on purpose.

use crate::pillar::{Node, Value};

/// The documents that have applications, or should; and whether any other says `applications: {}` where they belong.
/// Nothing there, or nothing behind the key, says no such thing: that is rather a mistake.
pub fn without_empty(documents: Vec<Node>, key: Option<&str>) -> (Vec<Node>, bool) {
    let count = documents.len();
    let others: Vec<Node> = documents.into_iter().filter(|document| !is_empty(document, key)).collect();
    let any = others.len() < count;
    (others, any)
}

fn is_empty(document: &Node, key: Option<&str>) -> bool {
    let place = match key {
        Some(key) => document.find(key.split(':')),
        None => Some(document.find(["unicorn"]).unwrap_or(document)),
    };
    let Some(place) = place else { return false };
    let Value::Map(pairs) = &place.value else { return false };
    let known = |name: &str| {
        pairs.iter().filter(|pair| matches!(&pair.key.value, Value::Str(key) if key == name)).count()
    };
    let none = place
        .find(["applications"])
        .is_some_and(|node| matches!(&node.value, Value::Map(pairs) if pairs.is_empty()));
    // Anything else beside them is a finding.
    none && known("applications") + known("defaults") == pairs.len()
}
