//! Schemas and values in words that a pillar's author knows.

use serde_json::Value as Json;

use crate::pillar::Value;

/// What one schema wants, in words.
pub(super) fn describe(schema: &Json) -> Vec<String> {
    // What is only another spelling of a choice need not be told.
    if let Some(options) = schema["x-choices"].as_array().or(schema["enum"].as_array()) {
        return options.iter().filter(|option| !option.is_null()).map(ToString::to_string).collect();
    }
    // The ends of all numbers are nobody's bounds.
    let bound =
        |keyword: &str, end: i64| schema[keyword].as_number().filter(|bound| bound.as_i64() != Some(end));
    let range = match (bound("minimum", i64::MIN), bound("maximum", i64::MAX)) {
        (Some(low), Some(high)) => format!(" from {low} to {high}"),
        (Some(low), None) => format!(" of at least {low}"),
        (None, Some(high)) => format!(" of at most {high}"),
        (None, None) => String::new(),
    };
    let pattern = schema["pattern"].as_str().and_then(pattern_words).unwrap_or_default();
    let types: Vec<&str> = match &schema["type"] {
        Json::String(name) => vec![name],
        Json::Array(names) => names.iter().filter_map(Json::as_str).collect(),
        _ => vec![],
    };
    types
        .iter()
        .filter(|name| **name != "null")
        .map(|name| match *name {
            "integer" | "number" => format!("{}{range}", article(name)),
            "string" => {
                let example = schema["examples"]
                    .get(0)
                    .filter(|_| schema.get("default").is_none() && schema.get("x-default").is_none());
                let example = example.map(|example| format!(" such as {example}")).unwrap_or_default();
                format!("{}{pattern}{example}", article(name))
            }
            "object" => match schema["properties"].as_object() {
                Some(properties) if properties.len() <= 6 => {
                    format!(
                        "a map with {}",
                        properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                    )
                }
                _ => article(name),
            },
            _ => article(name),
        })
        .collect()
}

/// The patterns of the model, for people.
fn pattern_words(pattern: &str) -> Option<String> {
    let words = match pattern {
        "^[a-z0-9][a-z0-9_.-]{0,63}$" => " of small letters, digits, `_`, `.` and `-`, at most 64",
        "^[A-Za-z_][A-Za-z0-9_.-]{0,31}$" => " of letters, digits, `_`, `.` and `-`, at most 32",
        "^0?[0-7]{3}$" | "^[0-7]?[0-7]{3}$" => " of three or four octal digits",
        "^[0-9]{1,9}(ms|s|m|h)?$" => " of a number with a unit (ms, s, m, h)",
        "^[1-9][0-9]{0,5}[KMGT]$" => " of a number with a unit (K, M, G, T)",
        "^/[!-~]*$" => " that begins with `/` and has no blanks",
        "^/[!-~]{1,110}$" => " that is an absolute path of at most 111 characters without blanks",
        "\\S" => " that is not blank",
        "^[!-~]+$" => " without blanks",
        _ if pattern.contains("x1c") => " without blanks at its ends",
        _ => return None,
    };
    Some(words.to_owned())
}

fn article(name: &str) -> String {
    match name {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "object" => "a map",
        "array" => "a list",
        "null" => "nothing",
        other => return other.to_owned(),
    }
    .to_owned()
}

pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Int(_) => "a whole number",
        Value::Float(_) => "a floating point number",
        Value::Str(_) => "a string",
        Value::Bytes(_) => "binary data",
        Value::Timestamp(_) => "a date",
        Value::Vault(_) => "an encrypted value",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// What a value is, with the value where it is short.
pub(super) fn typed(value: &Value) -> String {
    match value {
        Value::Null | Value::Bytes(_) | Value::Vault(_) | Value::List(_) | Value::Map(_) => {
            kind_of(value).to_owned()
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Timestamp(_) => {
            format!("{} here, {}", kind_of(value), show(value))
        }
    }
}

pub(super) fn show(value: &Value) -> String {
    /// Longer values would bury the message; the excerpt shows them.
    const LONGEST: usize = 60;
    let text = match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(crate::pillar::Int::Small(value)) => value.to_string(),
        Value::Int(crate::pillar::Int::Big(value)) => value.clone(),
        Value::Float(value) => format!("{value:?}"),
        Value::Str(value) => format!("{value:?}"),
        Value::Timestamp(value) => value.clone(),
        Value::Null | Value::Bytes(_) | Value::Vault(_) | Value::List(_) | Value::Map(_) => {
            kind_of(value).to_owned()
        }
    };
    if text.chars().count() > LONGEST {
        format!("{}…", text.chars().take(LONGEST).collect::<String>())
    } else {
        text
    }
}
