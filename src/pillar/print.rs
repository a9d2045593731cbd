//! A value as JSON, as Python's `json.dumps(value, indent=2, ensure_ascii=False)` writes it, but for characters that a terminal
//! would obey or that do not show: these are escaped, which means the same.
//!
//! Where JSON has no word for what YAML can say: bytes are their base64, dates their ISO form, an
//! infinity or NaN the string `"Infinity"`, `"-Infinity"` or `"NaN"`, and a vault text the object
//! `{"__ansible_vault": …}` that Ansible itself uses. Keys that are no strings are written as
//! `json.dumps` does (`true`, `1`, `null`).

use super::{Int, Node, Value, base64};
use crate::visible::misleads;
use std::fmt::{self, Write};

/// The key Ansible's own JSON has for an encrypted text.
const VAULT: &str = "__ansible_vault";

impl Node {
    /// Writes the value as JSON, two spaces an indentation, keys in their order, every digit of an
    /// integer kept; no line break at the end.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        write(self, out, 0)
    }

    /// The value as `serde_json` has it, for validation and templates. An integer beyond 64 bits
    /// becomes a float; of keys that are written alike (`1` and `"1"`) the last one stays.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(Int::Small(value)) => Json::from(*value),
            Value::Int(Int::Big(text)) => match text.parse::<u64>() {
                Ok(value) => Json::from(value),
                Err(_) => Json::from(text.parse::<f64>().unwrap_or(f64::MAX)),
            },
            Value::Float(value) if value.is_finite() => Json::from(*value),
            Value::Vault(text) => Json::from_iter([(VAULT, text.as_str())]),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(pairs) => {
                Json::Object(pairs.iter().map(|pair| (pair.key.key_text(), pair.value.to_json())).collect())
            }
            Value::Float(_) | Value::Str(_) | Value::Bytes(_) | Value::Timestamp(_) => {
                Json::String(self.key_text())
            }
        }
    }

    /// The value as the text it has as a key in JSON: a string itself, others as `json.dumps`
    /// writes them. A list or a map has none.
    pub fn key_text(&self) -> String {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(Int::Small(value)) => value.to_string(),
            Value::Float(value) => float(*value),
            Value::Str(text) | Value::Timestamp(text) | Value::Vault(text) | Value::Int(Int::Big(text)) => {
                text.clone()
            }
            Value::Bytes(bytes) => base64::encode(bytes),
            Value::List(_) | Value::Map(_) => String::new(),
        }
    }
}

/// Recursion is safe: no value is nested deeper than `MAX_DEPTH`.
fn write(node: &Node, out: &mut dyn Write, level: usize) -> fmt::Result {
    match &node.value {
        Value::Null => out.write_str("null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(Int::Small(value)) => write!(out, "{value}"),
        Value::Int(Int::Big(text)) => out.write_str(text),
        Value::Float(value) if value.is_finite() => out.write_str(&float(*value)),
        Value::Str(text) | Value::Timestamp(text) => string(text, out),
        Value::Float(_) | Value::Bytes(_) => string(&node.key_text(), out),
        Value::Vault(text) => {
            out.write_str("{\n")?;
            indent(level + 1, out)?;
            write!(out, "\"{VAULT}\": ")?;
            string(text, out)?;
            close('}', level, out)
        }
        Value::List(items) if items.is_empty() => out.write_str("[]"),
        Value::Map(pairs) if pairs.is_empty() => out.write_str("{}"),
        Value::List(items) => {
            out.write_char('[')?;
            for (at, item) in items.iter().enumerate() {
                separate(at, level, out)?;
                write(item, out, level + 1)?;
            }
            close(']', level, out)
        }
        Value::Map(pairs) => {
            out.write_char('{')?;
            for (at, pair) in pairs.iter().enumerate() {
                separate(at, level, out)?;
                match &pair.key.value {
                    Value::Str(text) => string(text, out)?,
                    _ => string(&pair.key.key_text(), out)?,
                }
                out.write_str(": ")?;
                write(&pair.value, out, level + 1)?;
            }
            close('}', level, out)
        }
    }
}

fn separate(at: usize, level: usize, out: &mut dyn Write) -> fmt::Result {
    out.write_str(if at == 0 { "\n" } else { ",\n" })?;
    indent(level + 1, out)
}

fn close(bracket: char, level: usize, out: &mut dyn Write) -> fmt::Result {
    out.write_char('\n')?;
    indent(level, out)?;
    out.write_char(bracket)
}

fn indent(level: usize, out: &mut dyn Write) -> fmt::Result {
    (0..level).try_for_each(|_| out.write_str("  "))
}

fn string(text: &str, out: &mut dyn Write) -> fmt::Result {
    out.write_char('"')?;
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            ' '..='~' => continue,
            // What a terminal would obey, or what makes others show elsewhere.
            c if misleads(c) => "",
            _ => continue,
        };
        out.write_str(&text[from..at])?;
        if escape.is_empty() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        } else {
            out.write_str(escape)?;
        }
        from = at + c.len_utf8();
    }
    out.write_str(&text[from..])?;
    out.write_char('"')
}

/// Python's `repr(float)`: the shortest digits that give the same float, with an exponent from
/// 1e16 on and below 1e-4.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => {
            let plain = format!("{value}");
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        exponent => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = "a\"\\\n\u{1}\u{7f}\u{9b}\u{202e}\u{e0041}é漢";
        let mut out = String::new();
        string(text, &mut out).unwrap();
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001\\u007f\\u009b\\u202e\\udb40\\udc41é漢\"");
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}
