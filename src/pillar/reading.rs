//! One bare scalar by itself, as each dialect reads it.

use super::tag::{Tag, implied};
use super::{Dialect, Value, number, time};

/// What `dialect` makes of a bare scalar, as a value of a mapping; nothing if it refuses it.
pub fn read_plain(dialect: Dialect, text: &str) -> Option<Value> {
    match implied(dialect, text) {
        Tag::Null => Some(Value::Null),
        Tag::Bool => super::build::boolean(dialect, text).map(Value::Bool),
        Tag::Int => number::int(dialect, text).map(Value::Int),
        Tag::Float => number::float(dialect, text).map(Value::Float),
        Tag::Timestamp if dialect == Dialect::Ansible => time::isoformat(text).map(Value::Timestamp),
        Tag::Merge | Tag::Value => None,
        _ => Some(Value::Str(text.to_owned())),
    }
}
