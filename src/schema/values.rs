//! What is wrong with a value, in words.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value as Json;

use super::words::{kind_of, show, typed};
use crate::diagnostic::{Diagnostic, Fix};
use crate::model::secret;
use crate::pillar::{Node, Value};
use crate::rule;

/// What to do about a variable that is a boolean or a float.
const QUOTE_IT: &str = "quote it: Salt, Ansible and YAML 1.2 spell such a value differently";

/// Where `json` has floating point numbers without a fraction: a JSON Schema takes them for whole numbers, and neither
/// gunicorn nor a field of ours does.
pub(super) fn integral_floats(json: &Json, steps: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match json {
        Json::Number(number) if number.is_f64() => {
            if number.as_f64().is_some_and(|value| value.fract() == 0.0) {
                found.push(steps.clone());
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                steps.push(index.to_string());
                integral_floats(item, steps, found);
                steps.pop();
            }
        }
        Json::Object(map) => {
            for (key, value) in map {
                steps.push(key.clone());
                integral_floats(value, steps, found);
                steps.pop();
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

pub(super) fn not_whole(steps: &[String], node: &Node) -> Diagnostic {
    /// Whole numbers up to here are themselves as `f64`.
    const EXACT: f64 = (1_u64 << 53) as f64;
    let place = node.find(steps.iter().map(String::as_str)).unwrap_or(node);
    let hidden = secret::is_at(steps.iter().map(String::as_str), Some(&place.value));
    let shown = if hidden { kind_of(&place.value).to_owned() } else { typed(&place.value) };
    let message = format!("`{}` is {shown}", dotted(steps, None));
    let diagnostic = Diagnostic::error(&rule::WRONG_TYPE, message);
    if matches!(steps.first().map(String::as_str), Some("environment" | "secrets")) {
        return diagnostic
            .at(place.span, "expected a string or a whole number")
            .hide_if(hidden)
            .help(QUOTE_IT)
            .fix(Fix::quoting(place.span));
    }
    match place.value {
        Value::Float(value) if !hidden && value.abs() <= EXACT => {
            let whole = value.to_string();
            diagnostic.at(place.span, format!("write {whole}")).fix(Fix::risky(place.span, whole))
        }
        _ => diagnostic.at(place.span, "expected a whole number, without point and exponent").hide_if(hidden),
    }
}

pub(super) fn wrong_value(
    error: &ValidationError<'_>,
    steps: &[String],
    expected: &str,
    node: &Node,
) -> Diagnostic {
    let name = dotted(steps, None);
    let place = node.find(steps.iter().map(String::as_str)).unwrap_or(node);
    let secret = secret::is_at(steps.iter().map(String::as_str), Some(&place.value));
    let shown = if secret { "a value".to_owned() } else { show(&place.value) };
    let (rule, message) = match error.kind() {
        ValidationErrorKind::Type { .. } => (
            &rule::WRONG_TYPE,
            format!(
                "`{name}` is {}",
                if secret { kind_of(&place.value).to_owned() } else { typed(&place.value) }
            ),
        ),
        ValidationErrorKind::Minimum { limit } => {
            (&rule::OUT_OF_RANGE, format!("`{name}` is {shown}, and the least is {limit}"))
        }
        ValidationErrorKind::Maximum { limit } => {
            (&rule::OUT_OF_RANGE, format!("`{name}` is {shown}, and the most is {limit}"))
        }
        ValidationErrorKind::Enum { .. } => (&rule::NOT_ALLOWED, format!("`{name}` cannot be {shown}")),
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::MinItems { .. } => {
            (&rule::EMPTY, format!("`{name}` is empty"))
        }
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => (
            &rule::WRONG_TYPE,
            format!(
                "`{name}` is {}",
                if secret { kind_of(&place.value).to_owned() } else { typed(&place.value) }
            ),
        ),
        _ => (&rule::NOT_ALLOWED, format!("`{name}` cannot be {shown}")),
    };
    let mut diagnostic = Diagnostic::error(rule, message).at(place.span, expected);
    if secret {
        diagnostic = diagnostic.hide();
    }
    let is_bare = place.style == crate::pillar::Style::Plain
        && matches!(place.value, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_));
    if rule == &rule::WRONG_TYPE && is_bare && expected.contains("a string") {
        diagnostic = diagnostic.fix(Fix::quoting(place.span));
    }
    if matches!(steps.first().map(String::as_str), Some("environment" | "secrets"))
        && matches!(place.value, Value::Bool(_) | Value::Float(_))
    {
        diagnostic = diagnostic.help(QUOTE_IT);
    }
    if name.ends_with("umask") && matches!(place.value, Value::Int(_)) {
        diagnostic = diagnostic.help("quote it: bare, `0022` is 22 to Salt and 18 to Ansible");
    }
    diagnostic
}

/// Where a value stands, as findings call it; `key` is one step more.
pub(super) fn dotted(steps: &[String], key: Option<&str>) -> String {
    let all = secret::dotted(steps.iter().map(String::as_str).chain(key));
    if all.is_empty() { "the application".to_owned() } else { all }
}
