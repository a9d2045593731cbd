//! What others read differently, and what has had its day.

use super::{Texts, finding};
use crate::diagnostic::{Diagnostic, Fix};
use crate::model::secret;
use crate::pillar::{Dialect, Int, Node, Pair, Style, Value, read_plain};
use crate::rule;

pub(super) fn check(node: &Node, texts: Texts<'_>) -> Vec<Diagnostic> {
    let mut found = vec![];
    scalars(node, texts, false, &mut found);
    old_keys(node, &mut found);
    found
}

/// Bare scalars that Salt, Ansible and YAML 1.2 read differently.
fn scalars(node: &Node, texts: Texts<'_>, secret: bool, found: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Map(pairs) => {
            for Pair { key, value } in pairs {
                let name = if let Value::Str(name) = &key.value { name.as_str() } else { "" };
                found.extend(scalar(key, "", texts, || false));
                let is_secret = || secret || name == "secrets" || secret::is_named(name);
                if is_scalar(value) {
                    found.extend(scalar(value, name, texts, is_secret));
                } else {
                    scalars(value, texts, is_secret(), found);
                }
            }
        }
        Value::List(items) => {
            for item in items {
                if is_scalar(item) {
                    found.extend(scalar(item, "", texts, || secret));
                } else {
                    scalars(item, texts, secret, found);
                }
            }
        }
        _ => {}
    }
}

fn is_scalar(node: &Node) -> bool {
    !matches!(node.value, Value::List(_) | Value::Map(_))
}

/// Texts that begin like this may be something else to somebody.
fn may_be_special(text: &str) -> bool {
    let word = || {
        ["yes", "no", "on", "off", "true", "false", "null"].iter().any(|word| text.eq_ignore_ascii_case(word))
    };
    text.starts_with(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '-', '+', '.', '=', '<', '~'])
        || word()
}

/// `name` is the key it is the value of; a key or an item has none.
fn scalar(node: &Node, name: &str, texts: Texts<'_>, is_secret: impl Fn() -> bool) -> Option<Diagnostic> {
    if node.style != Style::Plain || matches!(&node.value, Value::Str(text) if !may_be_special(text)) {
        return None;
    }
    let text = texts.sources.get(node.span.source).slice(node.span);
    // What most scalars are is the same to everybody.
    let is_plain = text == "true"
        || text == "false"
        || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if is_plain {
        return None;
    }
    // A tag, and not the text, made the value what it is.
    let is_as_read = |value: &Value| same(value, &node.value);
    if !read_plain(texts.dialect, text).as_ref().is_some_and(is_as_read) {
        return None;
    }
    let [salt, ansible, plain] =
        [Dialect::Salt, Dialect::Ansible, Dialect::Yaml12].map(|dialect| read_plain(dialect, text));
    let alike = |a: &Option<Value>, b: &Option<Value>| match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    if alike(&salt, &ansible) && alike(&ansible, &plain) {
        return None;
    }
    let secret = is_secret();
    let name = if name.is_empty() { "this".to_owned() } else { format!("`{name}`") };
    let message = if secret {
        format!("Salt, Ansible and YAML 1.2 read {name} differently")
    } else {
        format!("{name} is {}", told(&[("Salt", &salt), ("Ansible", &ansible), ("YAML 1.2", &plain)]))
    };
    let spelt = plainly(&node.value)?;
    let words = if secret {
        "quote it, or write it in plain decimal digits".to_owned()
    } else {
        format!("write {spelt}, which all of them read as {} does", texts.dialect.reader())
    };
    let finding = finding(&rule::DIALECT_SCALAR, message)
        .at(node.span, words)
        .hide_if(secret)
        .fix(Fix::safe(node.span, spelt));
    Some(if let Some(via) = node.via { finding.at(via, "called in here") } else { finding })
}

/// Two readings that are one value; a number that is no number is itself here.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// `10 to Salt and YAML 1.2, 8 to Ansible`.
fn told(readings: &[(&str, &Option<Value>)]) -> String {
    let mut told: Vec<(String, Vec<&str>)> = vec![];
    for (reader, value) in readings {
        let value = shown(value);
        match told.iter_mut().find(|(other, _)| *other == value) {
            Some((_, readers)) => readers.push(reader),
            None => told.push((value, vec![reader])),
        }
    }
    let parts = told.iter().map(|(value, readers)| format!("{value} to {}", readers.join(" and ")));
    parts.collect::<Vec<_>>().join(", ")
}

fn shown(value: &Option<Value>) -> String {
    match value {
        None => "refused".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Int(Int::Small(value))) => value.to_string(),
        Some(Value::Int(Int::Big(value))) => value.clone(),
        Some(Value::Float(value)) => format!("{value:?}"),
        Some(Value::Str(text)) => format!("the text {text:?}"),
        Some(Value::Timestamp(text)) => format!("the date {text}"),
        Some(_) => "something else".to_owned(),
    }
}

/// The value so that every dialect reads it; nothing if there is no such way.
fn plainly(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(Int::Small(value)) => Some(value.to_string()),
        Value::Int(Int::Big(value)) => Some(value.clone()),
        Value::Float(value) if value.is_finite() => {
            let text = format!("{value:?}");
            // YAML 1.1 wants a sign in an exponent, and a point before it.
            Some(text).filter(|text| !text.contains('e'))
        }
        // What looks like a number or a word has nothing in it that needs escaping.
        Value::Str(text) if !text.contains(['"', '\\', '\n']) => Some(format!("\"{text}\"")),
        _ => None,
    }
}

/// Settings that the servers still take and heed no more, with the version since which that is so.
const DROPPED: &[(&str, &str, &str)] = &[("gunicorn", "ssl_version", "gunicorn 21.0")];

/// Keys that have a better name, and settings that the server is about to drop.
fn old_keys(node: &Node, found: &mut Vec<Diagnostic>) {
    if let Some(pair) = node.get("unicorn_application").filter(|pair| pair.value.value != Value::Null) {
        let other =
            node.get("application").map(|pair| &pair.value.value).filter(|value| **value != Value::Null);
        let (message, label) = match other {
            Some(other) if *other != pair.value.value => {
                ("`unicorn_application` and `application` disagree: `application` counts", "leave it out")
            }
            Some(_) => (
                "`unicorn_application` is the gist's name for `application`, which is there, too",
                "leave it out",
            ),
            None => ("`unicorn_application` is the gist's name for `application`", "write `application`"),
        };
        let old = finding(&rule::DEPRECATED_KEY, message).at(pair.key.span, label);
        let name = if pair.key.style == Style::Plain { "application" } else { "\"application\"" };
        // With both there, renaming one would make it a duplicate.
        let is_alone = node.get("application").is_none();
        found.push(if is_alone { old.fix(Fix::safe(pair.key.span, name)) } else { old });
    }
    for (section, setting, version) in DROPPED {
        let Some(settings) = node.get(section).map(|pair| &pair.value) else { continue };
        if let Some(pair) = settings.get(setting) {
            let message = format!("`{section}.{setting}` is ignored since {version}");
            found.push(finding(&rule::DEPRECATED_KEY, message).at(pair.key.span, "leave it out"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{GUNICORN, UNICORN};

    /// The tables are not asked at every run, because reading them takes longer than a service does.
    #[test]
    fn the_dropped_settings_are_those_of_the_tables() {
        let mut deprecated = vec![];
        for table in [&*GUNICORN, &*UNICORN] {
            for setting in &table.settings {
                if let Some(version) = &setting.deprecated {
                    deprecated.push((
                        table.server.clone(),
                        setting.name.clone(),
                        format!("{} {version}", table.server),
                    ));
                }
            }
        }
        let known: Vec<_> =
            DROPPED.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
        assert_eq!(known, deprecated);
    }
}
