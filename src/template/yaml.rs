//! A value as a YAML document that all three dialects read alike, and that diffs line by line.

use std::fmt::{self, Write};

use serde_json::Value;

use super::quote;

/// A map as a block document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) -> fmt::Result {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                spaces(indent, out);
                quote::yaml(key, out)?;
                out.push(':');
                below(value, indent, out)?;
            }
            Ok(())
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                spaces(indent, out);
                out.push('-');
                let mut inner = String::new();
                below(item, indent, &mut inner)?;
                // A map in a list begins on the dash's line.
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        out.push(' ');
                        out.push_str(inner.trim_start());
                    }
                    _ => out.push_str(&inner),
                }
            }
            Ok(())
        }
        _ => {
            scalar(value, out)?;
            out.push('\n');
            Ok(())
        }
    }
}

fn spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

fn below(value: &Value, indent: usize, out: &mut String) -> fmt::Result {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, indent + 2, out)
    } else {
        out.push(' ');
        block(value, indent, out)
    }
}

fn scalar(value: &Value, out: &mut String) -> fmt::Result {
    match value {
        Value::Null => out.write_str("null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Number(number) => write!(out, "{number}"),
        Value::String(text) => quote::yaml(text, out),
        Value::Array(_) => out.write_str("[]"),
        Value::Object(_) => out.write_str("{}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_blocks() {
        let value =
            json!({"a": "x", "b": {"c": [1, "no"], "d": {}}, "e": [{"f": 1, "g": [true]}, "0022"], "h": []});
        let text = "a: x\nb:\n  c:\n    - 1\n    - \"no\"\n  d: {}\ne:\n  - f: 1\n    g:\n      - true\n  - \"0022\"\nh: []\n";
        assert_eq!(document(&value), text);
    }
}
