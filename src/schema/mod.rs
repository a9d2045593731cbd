//! The JSON Schema of a pillar, derived from [`model::input`](crate::model::input), and the findings
//! it gives.

mod findings;
mod proof;
mod values;
mod words;

use std::collections::HashSet;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::model::input::Application;

pub use findings::Checker;

/// Where the schema says it lives.
pub const ID: &str = "https://runsmith.dev/schemas/pillar.schema.json";

/// Whether any map of a pillar has this key, whichever it is: where a text cannot be read, nobody knows in which map a key is.
pub fn has_key(key: &str) -> bool {
    static KEYS: OnceLock<HashSet<String>> = OnceLock::new();
    let all = KEYS.get_or_init(|| {
        let mut keys = HashSet::new();
        collect_keys(&document(), &mut keys);
        keys
    });
    all.contains(key)
}

fn collect_keys(schema: &Value, keys: &mut HashSet<String>) {
    match schema {
        Value::Object(map) => {
            keys.extend(
                map.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned(),
            );
            let names = map.get("propertyNames").and_then(|names| names.get("enum")?.as_array());
            keys.extend(names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            map.values().for_each(|below| collect_keys(below, keys));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

/// The whole JSON Schema (2020-12): for editors, and for `runsmith schema`.
///
/// A document is a flat application, `{defaults, applications}`, or either of them below the key
/// `unicorn` of a larger pillar.
pub fn document() -> Value {
    let mut application = application();
    allow_nothing(&mut application);
    let definitions_of = application.get_mut("$defs").and_then(Value::as_object_mut);
    // A null takes the default of a setting away, as of any other key.
    for settings in definitions_of.into_iter().flat_map(|definitions| definitions.values_mut()) {
        let properties = settings.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flat_map(|properties| properties.values_mut()).for_each(or_null);
    }
    let mut definitions =
        application.as_object_mut().and_then(|schema| schema.remove("$defs")).unwrap_or_default();
    if let Some(application) = application.as_object_mut() {
        application.remove("$schema");
        application.remove("title");
    }
    if let Some(definitions) = definitions.as_object_mut() {
        definitions.insert("Application".to_owned(), application);
        definitions.insert(
            "Applications".to_owned(),
            json!({
                "type": "object",
                "properties": {
                    "defaults": {
                        "anyOf": [{"$ref": "#/$defs/Application"}, {"type": "null"}],
                        "description": "What every application of this pillar has unless it says otherwise: maps are merged key by key, everything else is replaced.",
                        "default": {},
                        "examples": [{"user": "deploy", "virtualenv_home": "/home/deploy"}]
                    },
                    "applications": {
                        "type": "object",
                        "description": "The applications by name.",
                        "x-default": "none: it is required",
                        "examples": [{"leaderboards": {"gunicorn": {"workers": 4}}}],
                        "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_.-]{0,63}$"},
                        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/Application"}, {"type": "null"}]}
                    }
                },
                "required": ["applications"],
                "additionalProperties": false
            }),
        );
        definitions.insert(
            "Pillar".to_owned(),
            json!({
                "if": {"required": ["applications"]},
                "then": {"$ref": "#/$defs/Applications"},
                "else": {"$ref": "#/$defs/Application", "required": ["user"]}
            }),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "runsmith pillar",
        "description": "A few values per application, from which runsmith renders complete runit services.",
        "if": {
            "required": ["unicorn"],
            "not": {"anyOf": [{"required": ["application"]}, {"required": ["unicorn_application"]}]}
        },
        "then": {
            "properties": {
                "unicorn": {
                    "$ref": "#/$defs/Pillar",
                    "description": "The pillar of runsmith within a larger one.",
                    "x-default": "the document itself",
                    "examples": [{"applications": {"leaderboards": {"user": "deploy", "virtualenv_home": "/home/deploy"}}}]
                }
            }
        },
        "else": {"$ref": "#/$defs/Pillar"},
        "$defs": definitions
    })
}

/// The whole schema as it stands in `schemas/pillar.schema.json`.
pub fn text() -> &'static str {
    include_str!("../../schemas/pillar.schema.json")
}

/// The schema of one application with its definitions.
pub(crate) fn application() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Application>());
    tidy(&mut schema);
    schema
}

/// schemars writes documented enum variants as a `oneOf` of constants, which validators can only
/// call "not valid under any of the given schemas"; as an `enum` they can say what is allowed.
/// `$ref`s of settings and formats of numbers that no validator checks go as well.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for keyword in ["oneOf", "anyOf"] {
                if let Some(variants) = map.get(keyword).and_then(constants) {
                    map.remove(keyword);
                    map.insert("type".to_owned(), "string".into());
                    map.extend(variants);
                }
            }
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.contains("int") || format == "double")
            {
                map.remove("format");
            }
            // Rust's integers end somewhere, and so do those of whoever reads a number as a double.
            if map.get("type").is_some_and(|types| types == "integer" || types == &json!(["integer", "null"]))
            {
                map.entry("maximum").or_insert_with(|| i64::MAX.into());
                map.entry("minimum").or_insert_with(|| i64::MIN.into());
            }
            // `default: {}` of a struct is the same as its absence; what each key defaults to is said at the key.
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lets every key of an application be `null`, which takes its default away. What is required is not let.
fn allow_nothing(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let required = map.get("required").cloned().unwrap_or_default();
    let is_required =
        |name: &str| required.as_array().is_some_and(|names| names.iter().any(|key| key == name));
    for (keyword, inner) in map.iter_mut() {
        match (keyword.as_str(), inner) {
            // The settings of servers: below their own keys `null` is a value.
            ("$defs", _) => {}
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties.iter_mut() {
                    allow_nothing(property);
                    if !is_required(name) {
                        or_null(property);
                    }
                }
            }
            ("items", items) => allow_nothing(items),
            ("anyOf", Value::Array(variants)) => variants.iter_mut().for_each(allow_nothing),
            _ => {}
        }
    }
    if let Some(others @ Value::Object(_)) = map.get_mut("additionalProperties") {
        allow_nothing(others);
        or_null(others);
    }
}

/// A schema that `null` is valid by, too.
fn or_null(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let nothing = json!({"type": "null"});
    if let Some(reference) = map.remove("$ref") {
        map.insert("anyOf".to_owned(), json!([{"$ref": reference}, nothing]));
    } else if let Some(Value::Array(variants)) = map.get_mut("anyOf") {
        if !variants.contains(&nothing) {
            variants.push(nothing);
        }
    } else {
        match map.get_mut("type") {
            Some(Value::Array(types)) if !types.contains(&"null".into()) => types.push("null".into()),
            Some(one @ Value::String(_)) => *one = json!([one, "null"]),
            _ => {}
        }
        for (keyword, other) in [("enum", Value::Null), ("enumDescriptions", "The default.".into())] {
            if let Some(Value::Array(options)) = map.get_mut(keyword)
                && !options.contains(&other)
            {
                options.push(other);
            }
        }
    }
}

fn constants(variants: &Value) -> Option<Map<String, Value>> {
    let variants = variants.as_array()?;
    let names: Option<Vec<Value>> = variants.iter().map(|variant| variant.get("const").cloned()).collect();
    let texts: Vec<Value> =
        variants.iter().map(|variant| variant.get("description").cloned().unwrap_or_default()).collect();
    let mut map = Map::new();
    map.insert("enum".to_owned(), Value::Array(names?));
    map.insert("enumDescriptions".to_owned(), Value::Array(texts));
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key says what it is, what it is by default, and shows an example.
    #[test]
    fn every_key_is_documented() {
        let schema = document();
        let mut poor = vec![];
        walk(&schema, "", &mut poor);
        assert_eq!(poor, Vec::<String>::new());
    }

    fn walk(schema: &Value, at: &str, poor: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                if let Some(Value::Object(properties)) = map.get("properties") {
                    for (name, property) in properties {
                        let has = |keyword: &str| property.get(keyword).is_some();
                        let example = property.get("examples").and_then(|examples| examples.get(0));
                        if !has("description") {
                            poor.push(format!("{at}/{name}: description"));
                        }
                        if !has("default") && !has("x-default") {
                            poor.push(format!("{at}/{name}: default"));
                        }
                        if example.is_none_or(Value::is_null) {
                            poor.push(format!("{at}/{name}: example"));
                        }
                    }
                }
                for (name, value) in map {
                    walk(value, &format!("{at}/{name}"), poor);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, at, poor)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_is_a_schema() {
        assert!(jsonschema::meta::is_valid(&document()));
    }

    #[test]
    fn its_examples_and_defaults_are_valid() {
        let validator = jsonschema::validator_for(&application()).unwrap();
        let schema = application();
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            let examples = property["examples"].as_array().unwrap().iter();
            for example in examples.chain(property.get("default")) {
                let instance = json!({ name.as_str(): example });
                let errors: Vec<_> =
                    validator.iter_errors(&instance).map(|error| error.to_string()).collect();
                assert_eq!(errors, Vec::<String>::new(), "{name}: {example}");
            }
        }
    }
}
