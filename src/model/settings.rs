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
    /// Its options on the command line.
    #[serde(default)]
    pub cli: Vec<String>,
    /// Values that need no module of somebody else's, where others are possible.
    #[serde(default)]
    pub known: Vec<String>,
    /// What its value is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// More about its texts, or how its number is written.
    pub format: Option<String>,
    /// Whether it may be null.
    pub nullable: bool,
    /// The server's default, where it is a plain value.
    pub default: Value,
    /// The least number it takes.
    pub minimum: Option<i64>,
    /// The greatest number it takes.
    pub maximum: Option<i64>,
    /// How short a text it takes, or each of its texts, in characters.
    pub min_length: Option<u64>,
    /// The only values it takes.
    pub choices: Option<Vec<Value>>,
    /// Whether its choices may be written in capitals.
    #[serde(default)]
    pub any_case: bool,
    /// Other ways to write its choices.
    #[serde(default)]
    pub aliases: Vec<Value>,
    /// What true and false stand for among its choices, if anything.
    pub booleans: Option<BTreeMap<String, String>>,
    /// Whether one text is a list of one.
    #[serde(default)]
    pub or_string: bool,
    /// What its option on the command line means without a value, where it needs none.
    pub bare: Option<String>,
    /// What its option on the command line sets, where it takes no value and does not mean true.
    pub sets: Option<Value>,
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
    /// The first version that has it, if the server's documentation says so.
    pub added: Option<String>,
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

    /// Every way to write one of its choices: as the server lists them, and as operators write a level of a log.
    fn spellings(&self, choices: &[Value]) -> Vec<Value> {
        let mut all = choices.to_vec();
        all.extend(self.aliases.iter().cloned());
        if self.booleans.is_some() {
            all.extend([true.into(), false.into()]);
        }
        if self.any_case {
            let words: Vec<String> = all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
            let capital = |word: &String| {
                let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
                first.to_uppercase() + rest
            };
            all.extend(words.iter().map(|word| word.to_uppercase().into()));
            all.extend(words.iter().map(|word| capital(word).into()));
        }
        let mut seen = vec![];
        for one in all {
            if !seen.contains(&one) {
                seen.push(one);
            }
        }
        seen
    }

    /// Its schema; `rendered` is its default where the rendered configuration has one.
    fn schema(&self, server: &str, rendered: Option<Rendered>) -> Map<String, Value> {
        let mut schema = Map::new();
        let name = match self.kind {
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::String | Kind::Hook => "string",
            Kind::StringList => "array",
            Kind::Map => "object",
        };
        let also =
            [(self.booleans.is_some(), "boolean"), (self.or_string, "string"), (self.nullable, "null")];
        let mut types = vec![name];
        types.extend(also.iter().filter(|(is_so, _)| *is_so).map(|(_, name)| *name));
        schema.insert("type".into(), if let [one] = types[..] { json!(one) } else { json!(types) });
        if self.strips && (self.kind == Kind::String || self.or_string) {
            schema.insert("pattern".into(), STRIPPED.into());
        }
        match self.kind {
            Kind::StringList => {
                let mut text = json!({"type": "string"});
                if self.strips {
                    text["pattern"] = STRIPPED.into();
                }
                if let Some(length) = self.min_length {
                    text["minLength"] = length.into();
                }
                schema.insert("items".into(), text);
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
        if let Some(length) = self.min_length.filter(|_| self.kind != Kind::StringList) {
            schema.insert("minLength".into(), length.into());
        }
        if let Some(choices) = &self.choices {
            let spellings = self.spellings(choices);
            if spellings.len() > choices.len() {
                schema.insert("x-choices".into(), choices.clone().into());
            }
            schema.insert("enum".into(), spellings.into());
        }
        let note = self.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
        schema.insert("description".into(), format!("{}{note}", self.description).into());
        match rendered {
            Some(Rendered::Value(value)) if value != self.default => {
                let text = format!("`{value}`; {server}'s own: `{}`", self.default);
                schema.insert("default".into(), value);
                schema.insert("x-default".into(), text.into());
                schema.insert("x-server-default".into(), self.default.clone());
            }
            Some(Rendered::Words(words)) => {
                let own =
                    if self.default.is_null() { "none".to_owned() } else { format!("`{}`", self.default) };
                schema.insert("x-default".into(), format!("{words}; {server}'s own: {own}").into());
                schema.insert("x-server-default".into(), self.default.clone());
            }
            Some(Rendered::Value(_)) | None => {
                schema.insert("default".into(), self.default.clone());
            }
        }
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

    fn schema_of(&self, setting: &Setting) -> Map<String, Value> {
        let (values, words) = if self.server == "gunicorn" {
            (gunicorn_defaults(), GUNICORN_WORDS)
        } else {
            (unicorn_defaults(), UNICORN_WORDS)
        };
        let words = words.iter().find(|(name, _)| *name == setting.name);
        let value = values.into_iter().find(|(name, _)| *name == setting.name);
        let rendered =
            words.map(|(_, words)| Rendered::Words(words)).or(value.map(|(_, value)| Rendered::Value(value)));
        setting.schema(&self.server, rendered)
    }

    fn schema(&self) -> Schema {
        let allowed = self.settings.iter().filter(|setting| setting.pillar == Pillar::Allowed);
        let properties: Map<_, _> =
            allowed.map(|setting| (setting.name.clone(), self.schema_of(setting).into())).collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("x-server-version".into(), self.version.clone().into());
        schema.insert("properties".into(), Value::Object(properties));
        schema.insert("additionalProperties".into(), false.into());
        schema.into()
    }
}

/// What the rendered configuration has where a pillar says nothing.
enum Rendered {
    /// Always this.
    Value(Value),
    /// What depends on the rest of the pillar, or on the host, in words.
    Words(&'static str),
}

/// gunicorn's own default for graceful_timeout, in seconds.
pub(crate) const GRACEFUL_TIMEOUT: u64 = 30;

/// The gist's choices where they are sound. `preload_app` is: with it a worker that is replaced
/// after `current` has moved still runs its own generation's code. Its `max_requests` is not: all
/// workers would be replaced at about the same time, under load. gevent needs a package.
pub(crate) fn gunicorn_defaults() -> Vec<(&'static str, Value)> {
    vec![
        ("preload_app", true.into()),
        ("timeout", 120.into()),
        ("graceful_timeout", GRACEFUL_TIMEOUT.into()),
        ("keepalive", 2.into()),
        // Its commands cannot replace a master, and it is gone after the first hand-over.
        ("control_socket_disable", true.into()),
    ]
}

/// As [`gunicorn_defaults`], for Ruby unicorn.
pub(crate) fn unicorn_defaults() -> Vec<(&'static str, Value)> {
    vec![("preload_app", true.into()), ("timeout", 120.into())]
}

/// What else `templates/gunicorn.py` and `log.kind` set.
const GUNICORN_WORDS: &[(&str, &str)] = &[
    ("backlog", "the greatest `backlog` of `bind`"),
    ("workers", "twice the number of processors, and one"),
    ("proc_name", "the application's name"),
    ("accesslog", "`\"-\"`; LOGS/access.log with `log.kind: files`; not set with `none`"),
    ("errorlog", "`\"-\"`; LOGS/error.log with `log.kind: files`; not set with `none`"),
];

/// What else `templates/unicorn.rb` and `log.kind` set.
const UNICORN_WORDS: &[(&str, &str)] = &[
    ("worker_processes", "twice the number of processors, and one"),
    ("stdout_path", "LOGS/access.log with `log.kind: files`, otherwise not set"),
    ("stderr_path", "LOGS/error.log with `log.kind: files`, otherwise not set"),
];

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

    /// Whoever reads the page of keys learns what is rendered, and what the server would do by itself.
    #[test]
    fn rendered_defaults_are_told() {
        let default = |table: &Table, name: &str| {
            let schema = Value::from(table.schema());
            let property = &schema["properties"][name];
            (property["default"].clone(), property["x-default"].as_str().map(str::to_owned))
        };
        assert_eq!(default(&GUNICORN, "timeout"), (120.into(), Some("`120`; gunicorn's own: `30`".into())));
        assert_eq!(default(&GUNICORN, "keepalive"), (2.into(), None));
        assert_eq!(default(&GUNICORN, "threads"), (1.into(), None));
        let workers = "twice the number of processors, and one; gunicorn's own: `1`";
        assert_eq!(default(&GUNICORN, "workers"), (Value::Null, Some(workers.into())));
        assert_eq!(default(&UNICORN, "timeout"), (120.into(), Some("`120`; unicorn's own: `60`".into())));
        for (table, words) in [(&GUNICORN, GUNICORN_WORDS), (&UNICORN, UNICORN_WORDS)] {
            words.iter().for_each(|(name, _)| assert!(table.get(name).is_some(), "{name}"));
        }
    }

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
