//! The settings of the servers, as the servers themselves list them.
//!
//! The tables are made by `scripts/gunicorn-settings` and `scripts/unicorn-settings` from the
//! installed servers and kept in `data/`, with the version they came from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Every setting of one server.
#[derive(Debug, Default, Deserialize)]
pub struct Table {
    /// The server's name.
    pub server: String,
    /// The version the table was taken from.
    pub version: String,
    /// The settings in the server's own order.
    pub settings: Vec<Setting>,
    /// Settings, and values of settings, that earlier versions had.
    pub removed: Vec<Removed>,
}

/// One setting.
#[derive(Debug, Deserialize)]
pub struct Setting {
    /// Its own name.
    pub name: String,
    /// What its value is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// The server's default, where it is a plain value.
    pub default: Value,
    /// The least number it takes.
    pub minimum: Option<i64>,
    /// The greatest number it takes.
    pub maximum: Option<i64>,
    /// The only values it takes.
    pub choices: Option<Vec<Value>>,
    /// What the values of a map are: `string` or `any`.
    pub values: Option<String>,
    /// A value that shows what it takes, where the default does not.
    #[serde(default)]
    pub example: Value,
    /// Whether the server drops blanks at both ends of a text.
    #[serde(default)]
    pub strips: bool,
    /// What it does, in a sentence or two.
    pub description: String,
    /// What else to know.
    pub note: Option<String>,
    /// The version that deprecated it.
    pub deprecated: Option<String>,
    /// Whether a pillar may set it.
    pub pillar: Pillar,
    /// The pillar's own key that sets it.
    pub owner: Option<String>,
    /// Why a pillar may not set it.
    pub reason: Option<String>,
}

/// What a setting's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A text.
    String,
    /// Texts.
    StringList,
    /// Names and values.
    Map,
    /// A function of the configuration file.
    Hook,
}

/// Whether a pillar may set a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pillar {
    /// It may.
    Allowed,
    /// It is code, and nothing from a pillar is run as code.
    Hook,
    /// The pillar has a key of its own for it.
    Owned,
    /// It would keep the service from working.
    Refused,
}

/// A setting, or a value of one, that is gone.
#[derive(Debug, Deserialize)]
pub struct Removed {
    /// The setting.
    pub name: String,
    /// The value, if the setting itself is still there.
    pub value: Option<String>,
    /// The version it went away in.
    pub version: String,
    /// What to do instead.
    pub instead: String,
}

/// A text without blanks at its ends, as Python's `str.strip` knows them. They are listed, because `\s` is another set
/// in each dialect of patterns: a schema's has U+FEFF and lacks U+0085 and U+001C to U+001F.
const STRIPPED: &str = concat!(
    r"^([^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
    r"([\s\S]*[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])?)?$"
);

impl Setting {
    /// Why a pillar may not set it, and what to do instead; nothing if it may.
    pub fn refusal(&self) -> Option<String> {
        match self.pillar {
            Pillar::Allowed => None,
            Pillar::Hook => Some(
                "it is code, and nothing from a pillar is run as code: put it into the application"
                    .to_owned(),
            ),
            Pillar::Owned => {
                self.owner.as_ref().map(|owner| format!("the pillar's own key for it is `{owner}`"))
            }
            Pillar::Refused => self.reason.clone(),
        }
    }

    fn schema(&self) -> Map<String, Value> {
        let mut schema = Map::new();
        let text = || {
            if self.strips {
                json!({"type": "string", "pattern": STRIPPED})
            } else {
                json!({"type": "string"})
            }
        };
        let name = match self.kind {
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::String | Kind::Hook => "string",
            Kind::StringList => "array",
            Kind::Map => "object",
        };
        schema.insert("type".into(), if self.nullable { json!([name, "null"]) } else { json!(name) });
        match self.kind {
            Kind::String if self.strips => {
                schema.insert("pattern".into(), STRIPPED.into());
            }
            Kind::StringList => {
                schema.insert("items".into(), text());
            }
            Kind::Map if self.values.as_deref() == Some("string") => {
                schema.insert("additionalProperties".into(), json!({"type": "string"}));
            }
            Kind::Boolean | Kind::Integer | Kind::String | Kind::Map | Kind::Hook => {}
        }
        for (keyword, bound) in [("minimum", self.minimum), ("maximum", self.maximum)] {
            if let Some(bound) = bound {
                schema.insert(keyword.into(), bound.into());
            }
        }
        if let Some(choices) = &self.choices {
            schema.insert("enum".into(), choices.clone().into());
        }
        let note = self.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
        schema.insert("description".into(), format!("{}{note}", self.description).into());
        schema.insert("default".into(), self.default.clone());
        let example = if self.example.is_null() { &self.default } else { &self.example };
        schema.insert("examples".into(), json!([example]));
        if self.deprecated.is_some() {
            schema.insert("deprecated".into(), true.into());
        }
        schema
    }
}

impl Table {
    /// The setting of that name.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    fn parse(text: &str) -> Self {
        // The text is part of the binary and a test reads it, so the empty table is never seen.
        serde_json::from_str(text).unwrap_or_default()
    }

    fn schema(&self) -> Schema {
        let allowed = self.settings.iter().filter(|setting| setting.pillar == Pillar::Allowed);
        let properties: Map<_, _> =
            allowed.map(|setting| (setting.name.clone(), setting.schema().into())).collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("x-server-version".into(), self.version.clone().into());
        schema.insert("properties".into(), Value::Object(properties));
        schema.insert("additionalProperties".into(), false.into());
        schema.into()
    }
}

/// gunicorn's settings.
pub static GUNICORN: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("../../data/gunicorn-settings.json")));

/// Ruby unicorn's settings.
pub static UNICORN: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("../../data/unicorn-settings.json")));

/// Settings of gunicorn by their own names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct GunicornSettings(pub BTreeMap<String, Value>);

/// Settings of Ruby unicorn by their own names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct UnicornSettings(pub BTreeMap<String, Value>);

impl JsonSchema for GunicornSettings {
    fn schema_name() -> Cow<'static, str> {
        "GunicornSettings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        GUNICORN.schema()
    }
}

impl JsonSchema for UnicornSettings {
    fn schema_name() -> Cow<'static, str> {
        "UnicornSettings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        UNICORN.schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        for (table, server) in [(&*GUNICORN, "gunicorn"), (&*UNICORN, "unicorn")] {
            assert_eq!(table.server, server);
            assert!(!table.version.is_empty());
            assert!(table.settings.len() > 20, "{server}: {}", table.settings.len());
            for setting in &table.settings {
                assert!(!setting.description.is_empty(), "{}", setting.name);
                if setting.pillar != Pillar::Allowed {
                    assert!(setting.refusal().is_some(), "{}: says why not", setting.name);
                }
            }
        }
    }
}
