//! A node as JSON, for the schema and for what serde reads.

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostic;
use crate::model::secret::dotted;
use crate::model::settings::{GUNICORN, Pillar, UNICORN};
use crate::pillar::{Int, Node, Value};
use crate::rule;

/// What becomes of a key whose value is nothing (`null`).
pub(super) enum Nulls<'a> {
    /// It is there, with nothing.
    Kept,
    /// It is the same as a missing key, so that it takes a default away, and is told: where its map is, and its name.
    /// Kept is what a server's own setting may be.
    Dropped(&'a mut Vec<(Vec<String>, String)>),
}

impl Nulls<'_> {
    /// Whether a null at `key` of the map at `path` is dropped.
    fn drop(&mut self, path: &[String], key: &str) -> bool {
        let Self::Dropped(told) = self else { return false };
        let table = match path.first().map(String::as_str) {
            Some("gunicorn") => Some(&*GUNICORN),
            Some("unicorn") => Some(&*UNICORN),
            _ => None,
        };
        if let Some(table) = table {
            let setting = table.get(key).filter(|_| path.len() == 1);
            return setting.is_some_and(|setting| setting.pillar == Pillar::Allowed && !setting.nullable);
        }
        told.push((path.to_vec(), key.to_owned()));
        true
    }
}

/// A node as JSON, for the schema. What JSON does not have is a finding.
pub(super) fn json(
    node: &Node,
    nulls: &mut Nulls<'_>,
    path: &mut Vec<String>,
    found: &mut Vec<Diagnostic>,
) -> Json {
    let mut unfit = |what: &str| {
        let message = format!("`{}` is {what} here", dotted(path.iter().map(String::as_str)));
        found.push(Diagnostic::error(&rule::WRONG_TYPE, message).at(node.span, "quote it"));
        Json::Null
    };
    let is_variable = matches!(path.first().map(String::as_str), Some("environment" | "secrets"));
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(Int::Small(number)) => Json::from(*number),
        // Only a variable takes a number of this size, and writes it in decimal.
        Value::Int(Int::Big(number)) if is_variable => Json::from(number.as_str()),
        // Beyond what any key takes, on the same side.
        Value::Int(Int::Big(number)) if number.starts_with('-') => Json::from(i64::MIN),
        Value::Int(Int::Big(_)) => Json::from(u64::MAX),
        Value::Float(number) => {
            serde_json::Number::from_f64(*number).map_or_else(|| unfit("not a number"), Json::Number)
        }
        Value::Str(text) if text.contains('\0') => {
            found.push(
                Diagnostic::error(
                    &rule::NUL,
                    format!("`{}` holds a NUL character", dotted(path.iter().map(String::as_str))),
                )
                .at(node.span, "no path, variable or argument can hold it")
                .hide_if(path.first().is_some_and(|first| first == "secrets" || first == "environment")),
            );
            // Not empty, which would be another complaint.
            Json::from(text.replace('\0', "o"))
        }
        Value::Str(text) => Json::String(text.clone()),
        Value::Bytes(_) => unfit("binary data"),
        Value::Timestamp(_) => unfit("a date"),
        Value::Vault(_) => unfit("still encrypted"),
        Value::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                list.push(json(item, nulls, path, found));
                path.pop();
            }
            Json::Array(list)
        }
        Value::Map(pairs) => {
            let mut map = Map::with_capacity(pairs.len());
            for pair in pairs {
                let Value::Str(key) = &pair.key.value else {
                    found.push(
                        Diagnostic::error(&rule::WRONG_TYPE, "this key is not a string here")
                            .at(pair.key.span, "quote it"),
                    );
                    continue;
                };
                if matches!(pair.value.value, Value::Null) && nulls.drop(path, key) {
                    continue;
                }
                path.push(key.clone());
                let value = json(&pair.value, nulls, path, found);
                path.pop();
                map.insert(key.clone(), value);
            }
            Json::Object(map)
        }
    }
}
