//! A value as a YAML document that all three dialects read alike, and that diffs line by line.

use std::fmt::{self, Write};

use serde::ser::{self, Impossible, Serialize, Serializer};

use crate::quote;

/// A map as a block document. The error says what YAML cannot be made of: bytes, or a variant with values.
pub fn document(value: &impl Serialize) -> Result<String, fmt::Error> {
    // The body of a run script has about so many bytes.
    let mut out = String::with_capacity(2048);
    value.serialize(Block { out: &mut out, indent: 0, after: After::Nothing }).map_err(|Wrong| fmt::Error)?;
    Ok(out)
}

/// What stands in front of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The document begins.
    Nothing,
    /// `key:`
    Key,
    /// `-`
    Dash,
    /// The value is itself a key, and no line ends with it.
    Indent,
}

/// Writes one value; what is in it stands at `indent`.
struct Block<'a> {
    out: &'a mut String,
    indent: usize,
    after: After,
}

impl<'a> Block<'a> {
    /// A value of one line.
    fn line(self, write: impl FnOnce(&mut String) -> fmt::Result) -> Result<(), Wrong> {
        if matches!(self.after, After::Key | After::Dash) {
            self.out.push(' ');
        }
        write(self.out).map_err(|fmt::Error| Wrong)?;
        if self.after != After::Indent {
            self.out.push('\n');
        }
        Ok(())
    }

    fn display(self, value: impl fmt::Display) -> Result<(), Wrong> {
        self.line(|out| write!(out, "{value}"))
    }

    /// A map (or, if not `inline`, a list) with something in it begins.
    fn begin(self, inline: bool) -> Entries<'a> {
        // A map in a list begins on the dash's line.
        let begun = inline && self.after == After::Dash;
        match self.after {
            After::Nothing | After::Indent => {}
            After::Dash if begun => self.out.push(' '),
            After::Key | After::Dash => self.out.push('\n'),
        }
        Entries { out: self.out, indent: self.indent, begun, empty: None }
    }

    fn empty(self, text: &'static str) -> Entries<'a> {
        Entries { empty: Some((text, self.after)), begun: false, out: self.out, indent: self.indent }
    }
}

/// The entries of a map or a list.
struct Entries<'a> {
    out: &'a mut String,
    indent: usize,
    /// The first one stands on the line that has begun.
    begun: bool,
    /// There are none: what is written instead.
    empty: Option<(&'static str, After)>,
}

impl Entries<'_> {
    fn indent(&mut self) {
        if !std::mem::take(&mut self.begun) {
            const SPACES: &str = "                ";
            match SPACES.get(..self.indent) {
                Some(spaces) => self.out.push_str(spaces),
                None => self.out.extend(std::iter::repeat_n(' ', self.indent)),
            }
        }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T, after: After) -> Result<(), Wrong> {
        value.serialize(Block { out: self.out, indent: self.indent + 2, after })
    }

    fn finish(self) -> Result<(), Wrong> {
        match self.empty {
            Some((text, after)) => {
                Block { out: self.out, indent: self.indent, after }.line(|out| out.write_str(text))
            }
            None => Ok(()),
        }
    }
}

impl ser::SerializeSeq for Entries<'_> {
    type Ok = ();
    type Error = Wrong;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Wrong> {
        self.indent();
        self.out.push('-');
        self.value(value, After::Dash)
    }
    fn end(self) -> Result<(), Wrong> {
        self.finish()
    }
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = Wrong;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Wrong> {
        self.indent();
        self.value(key, After::Indent)?;
        self.out.push(':');
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Wrong> {
        self.value(value, After::Key)
    }
    fn end(self) -> Result<(), Wrong> {
        self.finish()
    }
}

impl ser::SerializeStruct for Entries<'_> {
    type Ok = ();
    type Error = Wrong;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Wrong> {
        ser::SerializeMap::serialize_entry(self, key, value)
    }
    fn end(self) -> Result<(), Wrong> {
        self.finish()
    }
}

/// A value that is not written here.
#[derive(Debug)]
struct Wrong;

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this value is not written as YAML")
    }
}

impl std::error::Error for Wrong {}

impl ser::Error for Wrong {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Methods of a serializer for what is not written.
macro_rules! refuse {
    ($($name:ident($($type:ty),*) $(<$t:ident>)?;)*) => {
        $(fn $name $(<$t: Serialize + ?Sized>)? (self, $(_: $type),*) -> Result<(), Wrong> { Err(Wrong) })*
    };
}

/// Numbers, each by its `Display`.
macro_rules! numbers {
    ($($name:ident($type:ty);)*) => {
        $(fn $name(self, value: $type) -> Result<(), Wrong> { self.display(value) })*
    };
}

impl<'a> Serializer for Block<'a> {
    type Ok = ();
    type Error = Wrong;
    type SerializeSeq = Entries<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Entries<'a>;
    type SerializeTuple = Impossible<(), Wrong>;
    type SerializeTupleStruct = Impossible<(), Wrong>;
    type SerializeTupleVariant = Impossible<(), Wrong>;
    type SerializeStructVariant = Impossible<(), Wrong>;

    numbers! {
        serialize_bool(bool); serialize_i8(i8); serialize_i16(i16); serialize_i32(i32); serialize_i64(i64);
        serialize_u8(u8); serialize_u16(u16); serialize_u32(u32); serialize_u64(u64);
    }
    refuse! {
        serialize_bytes(&[u8]); serialize_char(char); serialize_f32(f32); serialize_unit_struct(&'static str);
        serialize_newtype_variant(&'static str, u32, &'static str, &T) <T>;
    }
    fn serialize_f64(self, value: f64) -> Result<(), Wrong> {
        self.line(|out| write!(out, "{value:?}"))
    }
    fn serialize_str(self, text: &str) -> Result<(), Wrong> {
        self.line(|out| quote::yaml(text, out))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Wrong> {
        self.serialize_str(name)
    }
    fn serialize_none(self) -> Result<(), Wrong> {
        self.serialize_unit()
    }
    fn serialize_unit(self) -> Result<(), Wrong> {
        self.display("null")
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Wrong> {
        value.serialize(self)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Wrong> {
        value.serialize(self)
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<Entries<'a>, Wrong> {
        match length {
            Some(0) => Ok(self.empty("[]")),
            Some(_) => Ok(self.begin(false)),
            None => Err(Wrong),
        }
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Entries<'a>, Wrong> {
        match length {
            Some(0) => Ok(self.empty("{}")),
            Some(_) => Ok(self.begin(true)),
            None => Err(Wrong),
        }
    }
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Entries<'a>, Wrong> {
        self.serialize_map(Some(length))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Wrong> {
        Err(Wrong)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTuple, Wrong> {
        Err(Wrong)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Wrong> {
        Err(Wrong)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Wrong> {
        Err(Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_blocks() {
        let value = json!({"a": "x", "b": {"c": [1, "no"], "d": {}}, "e": [{"f": 1, "g": [true]}, "0022", [2], []], "h": [], "i": 0.5});
        let text = "a: x\nb:\n  c:\n    - 1\n    - \"no\"\n  d: {}\ne:\n  - f: 1\n    g:\n      - true\n  - \"0022\"\n  -\n    - 2\n  - []\nh: []\ni: 0.5\n";
        assert_eq!(document(&value).unwrap(), text);
    }
}
