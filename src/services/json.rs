//! A node as JSON, for the schema and for what serde reads.

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostic;
use crate::model::secret::dotted;
use crate::pillar::{Int, Node, Value};
use crate::rule;

/// A node as JSON, for the schema. Nothing (`null`) is the same as a missing key, except among a
/// server's own settings. What JSON does not have is a finding.
pub(super) fn json(node: &Node, path: &mut Vec<String>, found: &mut Vec<Diagnostic>) -> Json {
    let mut unfit = |what: &str| {
        let message = format!("`{}` is {what} here", dotted(path.iter().map(String::as_str)));
        found.push(Diagnostic::error(&rule::WRONG_TYPE, message).at(node.span, "quote it"));
        Json::Null
    };
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(Int::Small(number)) => Json::from(*number),
        // Only a variable takes a number of this size, and writes it in decimal.
        Value::Int(Int::Big(number)) => Json::from(number.as_str()),
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
            Json::from("")
        }
        Value::Str(text) => Json::String(text.clone()),
        Value::Bytes(_) => unfit("binary data"),
        Value::Timestamp(_) => unfit("a date"),
        Value::Vault(_) => unfit("still encrypted"),
        Value::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                list.push(json(item, path, found));
                path.pop();
            }
            Json::Array(list)
        }
        Value::Map(pairs) => {
            let settings = path.first().is_some_and(|key| key == "gunicorn" || key == "unicorn");
            let mut map = Map::with_capacity(pairs.len());
            for pair in pairs {
                let Value::Str(key) = &pair.key.value else {
                    found.push(
                        Diagnostic::error(&rule::WRONG_TYPE, "this key is not a string here")
                            .at(pair.key.span, "quote it"),
                    );
                    continue;
                };
                path.push(key.clone());
                let value = json(&pair.value, path, found);
                path.pop();
                if settings || !matches!(pair.value.value, Value::Null) {
                    map.insert(key.clone(), value);
                }
            }
            Json::Object(map)
        }
    }
}
