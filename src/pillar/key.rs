//! When two keys of a mapping are the same one.

use super::{Dialect, Int, Node, Pair, Value};
use std::collections::HashMap;

/// A key as its dialect compares it.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Big(String),
    Float(u64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Timestamp(&'a str),
    Vault(&'a str),
}

/// Python holds `True`, `1` and `1.0` for the same key; YAML 1.2 compares type and value.
fn key(dialect: Dialect, node: &Node) -> Option<Key<'_>> {
    let python = dialect != Dialect::Yaml12;
    Some(match &node.value {
        Value::Null => Key::Null,
        Value::Bool(value) if python => Key::Int(i64::from(*value)),
        Value::Bool(value) => Key::Bool(*value),
        Value::Int(Int::Small(value)) => Key::Int(*value),
        Value::Int(Int::Big(text)) => Key::Big(text.clone()),
        Value::Float(value) if python && value.is_finite() && value.fract() == 0.0 => {
            // Exact: a float without a fraction is an integer. To write out the digits of a large one takes some microseconds.
            const I64: f64 = 9_223_372_036_854_775_808.0;
            match (-I64..I64).contains(value) {
                true => Key::Int(*value as i64),
                false => Key::Big(format!("{value:.0}")),
            }
        }
        // PyYAML has one NaN, which is the same key as itself; Ansible makes a new one each time.
        Value::Float(value) if value.is_nan() && dialect == Dialect::Ansible => return None,
        Value::Float(value) => Key::Float(value.to_bits()),
        Value::Str(text) => Key::Str(text),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        Value::Timestamp(text) => Key::Timestamp(text),
        Value::Vault(text) => Key::Vault(text),
        Value::List(_) | Value::Map(_) => return None,
    })
}

/// A mapping this short is compared pair by pair.
const SHORT: usize = 12;

/// Pairs whose key an earlier pair has: their place, and that of the first one.
pub(super) fn repeated(dialect: Dialect, pairs: &[Pair]) -> Vec<(usize, usize)> {
    if pairs.len() <= SHORT && all_different_texts(pairs) {
        return Vec::new();
    }
    let mut first = HashMap::with_capacity(pairs.len());
    let mut repeated = Vec::new();
    for (at, pair) in pairs.iter().enumerate() {
        let Some(key) = key(dialect, &pair.key) else { continue };
        match first.get(&key) {
            Some(earlier) => repeated.push((at, *earlier)),
            None => {
                first.insert(key, at);
            }
        }
    }
    repeated
}

fn all_different_texts(pairs: &[Pair]) -> bool {
    pairs.iter().enumerate().all(|(at, pair)| match &pair.key.value {
        Value::Str(text) => !pairs[..at]
            .iter()
            .any(|earlier| matches!(&earlier.key.value, Value::Str(other) if other == text)),
        _ => false,
    })
}
