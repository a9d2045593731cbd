//! A quick proof that an application is valid, for the many that are.
//!
//! Compiling the JSON Schema takes longer than rendering a service does, and its findings are only
//! needed where something is wrong. So the schema as it stands in `schemas/` is read into what few
//! keywords it uses, and a value that these prove valid needs no more. What is not proven is not
//! wrong yet: the whole validator decides. `tests/schema.rs` compares the two on mutated pillars.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IgnoredAny, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value as Json};

/// The part of a schema that proofs are made of.
///
/// A keyword that is not among the fields makes reading fail, and then nothing is ever proven: a new
/// keyword is never passed over.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Shape {
    #[serde(rename = "type")]
    types: Types,
    #[serde(rename = "enum")]
    options: Option<Vec<Json>>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    pattern: Option<Pattern>,
    min_length: Option<usize>,
    min_items: Option<usize>,
    items: Option<Box<Self>>,
    required: Vec<String>,
    properties: BTreeMap<String, Self>,
    additional_properties: Option<Additional>,
    property_names: Option<Box<Self>>,
    any_of: Vec<Self>,
    #[serde(rename = "$ref")]
    refers: Option<String>,
    /// Only the whole document has conditions; no proof is made from a shape that does.
    #[serde(rename = "if")]
    condition: Option<IgnoredAny>,

    // What says nothing about validity.
    #[serde(rename = "then")]
    _then: IgnoredAny,
    #[serde(rename = "else")]
    _else: IgnoredAny,
    #[serde(rename = "description")]
    _description: IgnoredAny,
    #[serde(rename = "default")]
    _default: IgnoredAny,
    #[serde(rename = "x-default")]
    _x_default: IgnoredAny,
    #[serde(rename = "examples")]
    _examples: IgnoredAny,
    #[serde(rename = "enumDescriptions")]
    _enum_descriptions: IgnoredAny,
    #[serde(rename = "x-choices")]
    _choices: IgnoredAny,
    #[serde(rename = "deprecated")]
    _deprecated: IgnoredAny,
    #[serde(rename = "x-server-version")]
    _version: IgnoredAny,
    #[serde(rename = "x-server-default")]
    _server_default: IgnoredAny,
}

/// The types that are allowed; none said, all.
#[derive(Default)]
enum Types {
    #[default]
    Any,
    One(Type),
    Several(Vec<Type>),
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

enum Additional {
    Allowed(bool),
    Shaped(Box<Shape>),
}

// Not `untagged`: that tries one after the other, and the texts of its errors took a tenth of a run.
impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Types;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a type, or several")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Types, E> {
                Type::deserialize(name.into_deserializer()).map(Types::One)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, names: A) -> Result<Types, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(names)).map(Types::Several)
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for Additional {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Additional;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a schema")
            }
            fn visit_bool<E: de::Error>(self, allowed: bool) -> Result<Additional, E> {
                Ok(Additional::Allowed(allowed))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Additional, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Additional::Shaped)
            }
        }
        deserializer.deserialize_any(One)
    }
}

/// The definitions of the schema, by name.
#[derive(Deserialize)]
pub(super) struct Shapes {
    #[serde(rename = "$defs")]
    definitions: BTreeMap<String, Shape>,
}

impl Shapes {
    /// Reads the schema document; nothing if it has a keyword that proofs do not know.
    pub(super) fn read(schema: &str) -> Option<Self> {
        serde_json::from_str(schema).ok()
    }

    /// Whether an application is certainly valid.
    pub(super) fn prove(&self, application: &Json) -> bool {
        self.definition("#/$defs/Application").is_some_and(|shape| self.fits(shape, application))
    }

    fn definition(&self, reference: &str) -> Option<&Shape> {
        self.definitions.get(reference.strip_prefix("#/$defs/")?)
    }

    fn fits(&self, shape: &Shape, value: &Json) -> bool {
        shape.condition.is_none()
            && shape.types.allow(value)
            && shape.options.as_ref().is_none_or(|options| options.contains(value))
            && (shape.any_of.is_empty() || shape.any_of.iter().any(|shape| self.fits(shape, value)))
            && shape
                .refers
                .as_ref()
                .is_none_or(|name| self.definition(name).is_some_and(|shape| self.fits(shape, value)))
            && match value {
                Json::Null | Json::Bool(_) => true,
                Json::Number(number) => shape.bounds(number),
                Json::String(text) => shape.text(text),
                Json::Array(items) => {
                    shape.min_items.is_none_or(|least| items.len() >= least)
                        && shape
                            .items
                            .as_ref()
                            .is_none_or(|shape| items.iter().all(|item| self.fits(shape, item)))
                }
                Json::Object(map) => {
                    shape.required.iter().all(|key| map.contains_key(key))
                        && map.iter().all(|(key, value)| self.key(shape, key, value))
                }
            }
    }

    fn key(&self, shape: &Shape, key: &str, value: &Json) -> bool {
        shape.property_names.as_ref().is_none_or(|names| self.fits(names, &Json::from(key)))
            && match (shape.properties.get(key), &shape.additional_properties) {
                (Some(property), _) => self.fits(property, value),
                (None, None | Some(Additional::Allowed(true))) => true,
                (None, Some(Additional::Allowed(false))) => false,
                (None, Some(Additional::Shaped(shape))) => self.fits(shape, value),
            }
    }
}

impl Shape {
    fn bounds(&self, number: &Number) -> bool {
        /// Whole numbers up to here are themselves as `f64`.
        const EXACT: u64 = 1 << 53;
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        let (least, most) = (self.minimum, self.maximum);
        match whole {
            Some(value) => {
                least.is_none_or(|least| i128::from(least) <= value)
                    && most.is_none_or(|most| value <= i128::from(most))
            }
            None => number.as_f64().is_some_and(|value| {
                least.is_none_or(|least| least.unsigned_abs() <= EXACT && least as f64 <= value)
                    && most.is_none_or(|most| most.unsigned_abs() <= EXACT && value <= most as f64)
            }),
        }
    }

    fn text(&self, text: &str) -> bool {
        self.min_length.is_none_or(|least| text.chars().take(least).count() == least)
            && self.pattern.is_none_or(|pattern| pattern.matches(text))
    }
}

impl Types {
    fn allow(&self, value: &Json) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one.is_of(value),
            Self::Several(several) => several.iter().any(|one| one.is_of(value)),
        }
    }
}

impl Type {
    /// `1.0` is an integer to the schema; here it is left to the validator.
    fn is_of(self, value: &Json) -> bool {
        match value {
            Json::Null => self == Self::Null,
            Json::Bool(_) => self == Self::Boolean,
            Json::Number(number) => self == Self::Number || (self == Self::Integer && !number.is_f64()),
            Json::String(_) => self == Self::String,
            Json::Array(_) => self == Self::Array,
            Json::Object(_) => self == Self::Object,
        }
    }
}

/// The patterns of the model, each as what proves it for a text of plain ASCII.
#[derive(Clone, Copy, Deserialize)]
enum Pattern {
    #[serde(rename = "^[a-z0-9][a-z0-9_.-]{0,63}$")]
    Application,
    #[serde(rename = "^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")]
    Account,
    #[serde(rename = "^[A-Za-z_][A-Za-z0-9_]*$")]
    Variable,
    #[serde(rename = "^0?[0-7]{3}$")]
    Umask,
    #[serde(rename = "^[0-7]?[0-7]{3}$")]
    Mode,
    #[serde(rename = "^[0-9]{1,9}(ms|s|m|h)?$")]
    Duration,
    #[serde(rename = "^[1-9][0-9]{0,5}[KMGT]$")]
    Size,
    #[serde(rename = "^/[!-~]*$")]
    UrlPath,
    #[serde(rename = "^/[!-~]{1,110}$")]
    Runtime,
    #[serde(rename = "^[!-~]+$")]
    Word,
    #[serde(rename = "\\S")]
    NotBlank,
    #[serde(
        rename = r"^([^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]([\s\S]*[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])?)?$"
    )]
    Stripped,
    /// Proven by none; the validator knows it.
    #[serde(other)]
    Other,
}

impl Pattern {
    fn matches(self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let octal = |digits: &[u8]| digits.iter().all(|digit| matches!(digit, b'0'..=b'7'));
        let graphic = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
        match (self, bytes) {
            (Self::Application, [first, rest @ ..]) => {
                (first.is_ascii_lowercase() || first.is_ascii_digit())
                    && rest.len() <= 63
                    && rest.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
            }
            (Self::Account, [first, rest @ ..]) => {
                (first.is_ascii_alphabetic() || *first == b'_')
                    && rest.len() <= 31
                    && rest
                        .iter()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
            }
            (Self::Variable, [first, rest @ ..]) => {
                (first.is_ascii_alphabetic() || *first == b'_')
                    && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            }
            (Self::Umask, [b'0', digits @ ..]) if digits.len() == 3 => octal(digits),
            (Self::Umask, digits) => digits.len() == 3 && octal(digits),
            (Self::Mode, digits) => matches!(digits.len(), 3 | 4) && octal(digits),
            (Self::Duration, _) => {
                let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
                matches!(&text[digits.len()..], "" | "ms" | "s" | "m" | "h")
                    && (1..=9).contains(&digits.len())
                    && digits.bytes().all(|digit| digit.is_ascii_digit())
            }
            (Self::Size, [b'1'..=b'9', digits @ .., b'K' | b'M' | b'G' | b'T']) => {
                digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit)
            }
            (Self::UrlPath, [b'/', rest @ ..]) => graphic(rest),
            (Self::Runtime, [b'/', rest @ ..]) => (1..=110).contains(&rest.len()) && graphic(rest),
            (Self::Word, [_, ..]) => graphic(bytes),
            (Self::NotBlank, _) => bytes.iter().any(u8::is_ascii_graphic),
            (Self::Stripped, []) => true,
            (Self::Stripped, [first, .., last]) => first.is_ascii_graphic() && last.is_ascii_graphic(),
            (Self::Stripped, [only]) => only.is_ascii_graphic(),
            (
                Self::Application
                | Self::Account
                | Self::Variable
                | Self::Size
                | Self::UrlPath
                | Self::Runtime
                | Self::Word,
                _,
            )
            | (Self::Other, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_no_keyword_that_proofs_do_not_know() {
        let error =
            serde_json::from_str::<Shapes>(crate::schema::text()).err().map(|error| error.to_string());
        assert_eq!(error, None);
    }
}
