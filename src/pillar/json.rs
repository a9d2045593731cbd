//! JSON with spans, by RFC 8259; and as Python's `json` module has it, which Ansible tries on every
//! variables file before it reads YAML.

use super::number::{LONGEST_NUMBER, normal};
use super::{Int, MAX_DEPTH, MAX_NODES, MOST_FINDINGS, Node, Pair, Style, Used, Value};
use crate::diagnostic::Diagnostic;
use crate::rule;
use crate::source::{SourceId, Span};

/// How much is let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// RFC 8259 to the letter, and no key twice.
    Rfc,
    /// As Python's `json.loads`: `NaN` and `Infinity`, and the last of two equal keys wins.
    Python,
}

struct Reader<'a, 'u> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    source: SourceId,
    strictness: Strictness,
    /// What the texts of the run have used up.
    used: &'u mut Used,
    /// Keys given twice, which do not stop the reading; no more than anybody reads.
    repeated: Vec<Diagnostic>,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// The value of a JSON text, and the keys that are given twice; or what is wrong with it. Its values are added to those `used`.
pub(super) fn read(
    text: &str,
    source: SourceId,
    strictness: Strictness,
    used: &mut Used,
) -> std::result::Result<(Node, Vec<Diagnostic>), Box<Diagnostic>> {
    let mut reader =
        Reader { text, bytes: text.as_bytes(), at: 0, source, strictness, used, repeated: Vec::new() };
    if strictness == Strictness::Rfc && text.starts_with('\u{feff}') {
        reader.at = 3;
    }
    let node = reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() {
        return reader.fail("there is something after the end of the JSON value");
    }
    Ok((node, reader.repeated))
}

impl Reader<'_, '_> {
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn span(&self, start: usize) -> Span {
        Span::new(self.source, start, self.at)
    }

    fn fail<T>(&self, problem: &str) -> Result<T> {
        let width = self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        let place = Span::new(self.source, self.at, self.at + width);
        Err(Box::new(Diagnostic::error(&rule::JSON_SYNTAX, problem).at(place, "")))
    }

    fn blanks(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// One more value or key, of those that a run may have.
    fn count(&mut self, start: usize) -> Result<()> {
        self.used.nodes += 1;
        if self.used.nodes > MAX_NODES {
            return Err(Box::new(super::too_many(Span::new(self.source, start, start + 1))));
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Node> {
        self.blanks();
        let start = self.at;
        self.count(start)?;
        if depth > MAX_DEPTH {
            return Err(Box::new(super::too_deep(Span::new(self.source, start, start + 1))));
        }
        let mut style = Style::Json;
        let value = match self.byte() {
            b'{' => {
                style = Style::Collection;
                self.object(depth)?
            }
            b'[' => {
                style = Style::Collection;
                self.array(depth)?
            }
            b'"' => {
                style = Style::Quoted;
                Value::Str(self.string()?)
            }
            b'-' | b'0'..=b'9' => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { span: self.span(start), via: None, style, ordinary: false, value })
    }

    fn word(&mut self) -> Result<Value> {
        let words = [
            ("null", Value::Null, false),
            ("true", Value::Bool(true), false),
            ("false", Value::Bool(false), false),
            ("NaN", Value::Float(f64::NAN), true),
            ("Infinity", Value::Float(f64::INFINITY), true),
            ("-Infinity", Value::Float(f64::NEG_INFINITY), true),
        ];
        for (word, value, python) in words {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                if python && self.strictness == Strictness::Rfc {
                    return self.fail("JSON has no NaN and no Infinity");
                }
                self.at += word.len();
                return Ok(value);
            }
        }
        match self.byte() {
            b'\'' => self.fail("JSON strings stand in double quotes"),
            _ if self.at >= self.text.len() => self.fail("the JSON text ends where a value is expected"),
            _ => self.fail("a JSON value is expected here"),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.byte() == b']' {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blanks();
            match self.byte() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Value::List(items));
                }
                _ => return self.fail("expected `,` or `]`"),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut pairs = Vec::new();
        self.blanks();
        if self.byte() == b'}' {
            self.at += 1;
            return Ok(Value::Map(pairs));
        }
        loop {
            self.blanks();
            let start = self.at;
            if self.byte() != b'"' {
                return self.fail("expected a key in double quotes");
            }
            self.count(start)?;
            let value = Value::Str(self.string()?);
            let key =
                Node { span: self.span(start), via: None, style: Style::Quoted, ordinary: false, value };
            self.blanks();
            if self.byte() != b':' {
                return self.fail("expected `:` after the key");
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            pairs.push(Pair { key, value });
            self.blanks();
            match self.byte() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(self.mapping(pairs));
                }
                _ => return self.fail("expected `,` or `}`"),
            }
        }
    }

    /// A mapping; or what Ansible's decoder makes of one that stands for a text of its own.
    fn mapping(&mut self, pairs: Vec<Pair>) -> Value {
        if self.strictness == Strictness::Python {
            for pair in &pairs {
                match (&pair.key.value, &pair.value.value) {
                    (Value::Str(key), Value::Str(text)) if key == "__ansible_unsafe" => {
                        return Value::Str(text.clone());
                    }
                    (Value::Str(key), Value::Str(text)) if key == "__ansible_vault" => {
                        return Value::Vault(text.clone());
                    }
                    _ => {}
                }
            }
        }
        Value::Map(self.once_each(pairs))
    }

    fn once_each(&mut self, mut pairs: Vec<Pair>) -> Vec<Pair> {
        let repeated = super::key::repeated(super::Dialect::Yaml12, &pairs);
        if repeated.is_empty() {
            return pairs;
        }
        for (at, first) in &repeated {
            if self.repeated.len() < MOST_FINDINGS {
                let message = "this key is given twice in the same object";
                let finding = match self.strictness {
                    Strictness::Rfc => Diagnostic::error(&rule::DUPLICATE_KEY, message),
                    Strictness::Python => Diagnostic::warning(&rule::DUPLICATE_KEY, message),
                };
                let finding = finding
                    .at(pairs[*at].key.span, "")
                    .at(pairs[*first].key.span, "given first here")
                    .help("Remove or rename one of them.");
                self.repeated.push(finding);
            }
            // Taken, not copied: objects within objects would be copied once on each level.
            let hollow = pairs[*at].value.hollow();
            let last = std::mem::replace(&mut pairs[*at].value, hollow);
            pairs[*first].value = last;
        }
        let gone: std::collections::HashSet<usize> = repeated.iter().map(|(at, _)| *at).collect();
        let mut at = 0;
        pairs.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        pairs
    }

    fn digits(&mut self) -> Result<()> {
        if !self.byte().is_ascii_digit() {
            return self.fail("expected a digit");
        }
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        if self.byte() == b'-' {
            self.at += 1;
            if self.byte() == b'I' {
                self.at = start;
                return self.word();
            }
        }
        if self.byte() == b'0' {
            self.at += 1;
            if self.byte().is_ascii_digit() {
                return self.fail("a JSON number has no zeros in front");
            }
        } else {
            self.digits()?;
        }
        let mut is_int = true;
        if self.byte() == b'.' {
            is_int = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            is_int = false;
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if text.len() > LONGEST_NUMBER {
            self.at = start;
            return self.fail("this number has too many digits");
        }
        if is_int {
            return Ok(Value::Int(match text {
                "-0" => Int::Small(0),
                _ => normal(text.to_owned()),
            }));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() || self.strictness == Strictness::Python => {
                Ok(Value::Float(value))
            }
            _ => {
                self.at = start;
                self.fail("this number is too large")
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let from = self.at;
            while !matches!(self.byte(), b'"' | b'\\' | 0..=0x1F) {
                self.at += 1;
            }
            out.push_str(&self.text[from..self.at]);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => out.push(self.escape()?),
                _ if self.at >= self.text.len() => return self.fail("the string is never closed"),
                _ => return self.fail("a control character in a JSON string must be escaped"),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        self.at += 2;
        let character = match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0C',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut unit = self.unit()?;
                if (0xD800..0xDC00).contains(&unit) && self.bytes[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.unit()?;
                    // Anything but a low half makes no character: the check below says so.
                    if (0xDC00..0xE000).contains(&low) {
                        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    }
                }
                match char::from_u32(unit) {
                    Some(character) => character,
                    None => {
                        self.at = start;
                        return self.fail("half a surrogate pair is no character");
                    }
                }
            }
            _ => {
                self.at = start;
                return self.fail("JSON has no such escape");
            }
        };
        Ok(character)
    }

    fn unit(&mut self) -> Result<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.byte()).to_digit(16) else {
                return self.fail("expected four hexadecimal digits");
            };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, used: &mut Used) -> Result<(Node, Vec<Diagnostic>)> {
        read(text, SourceId(0), Strictness::Rfc, used)
    }

    #[test]
    fn values_of_all_texts_are_counted_and_so_are_keys() {
        let mut used = Used { nodes: MAX_NODES - 9, expanded: 0 };
        assert!(of("[0, 0]", &mut used).is_ok() && of("{\"a\": [], \"b\": 1}", &mut used).is_ok());
        assert_eq!(used.nodes, MAX_NODES - 1);
        let refused = of("[0]", &mut used).unwrap_err();
        assert!(
            refused.rule == &rule::TOO_LARGE && refused.message.contains("4000000 values"),
            "{refused:?}"
        );
    }

    #[test]
    fn of_keys_that_are_given_twice_some_are_told() {
        let text = format!("{{{}\"\":1}}", "\"\":0,".repeat(50_000));
        let (node, repeated) = of(&text, &mut Used::default()).unwrap();
        assert_eq!(repeated.len(), MOST_FINDINGS);
        let Value::Map(pairs) = node.value else { panic!("a map") };
        assert!(matches!(&pairs[..], [Pair { value: Node { value: Value::Int(Int::Small(1)), .. }, .. }]));
    }
}
