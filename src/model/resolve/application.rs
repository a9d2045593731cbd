//! What gunicorn can load: `MODULE`, `MODULE:VARIABLE` or `MODULE:FUNCTION(LITERALS)`.
//!
//! gunicorn reads what follows the colon by Python's own parser and takes a name, or a call of a name whose arguments
//! `ast.literal_eval` accepts (util.py, `import_app`, 27.0.1). tests/gunicorn_values.rs compares the two.

/// Why gunicorn cannot load this, whatever modules there are; none if it may.
pub(super) fn unloadable(app: &str) -> Option<String> {
    let (module, object) = app.split_once(':').map_or((app, None), |(module, object)| (module, Some(object)));
    if module.contains('/') || module.ends_with(".py") {
        let name = module.trim_start_matches("./").trim_end_matches(".py").replace('/', ".");
        let object = object.filter(|object| is_name(object)).unwrap_or("app");
        return Some(format!("`{module}` is a file, and gunicorn imports a module; write {name}:{object}"));
    }
    // Whatever else a file can be called gunicorn imports, a dash and a blank included.
    if module.split('.').any(str::is_empty) {
        return Some(format!(
            "`{module}` is not the name of a module; write MODULE:VARIABLE, such as wsgi:app"
        ));
    }
    let object = object?;
    if object.is_empty() {
        return Some(format!("no variable follows the colon; write {module}:app"));
    }
    match (Reader { rest: object }).object() {
        Some(Object::Loadable) => None,
        Some(Object::Arguments) => Some(format!(
            "the arguments of `{object}` are not all literals, and gunicorn evaluates nothing else; write text in quotes"
        )),
        None => Some(format!(
            "`{object}` is neither the name of a variable nor a call; write MODULE:VARIABLE, such as wsgi:app"
        )),
    }
}

/// Python's keywords (3.9 to 3.13).
const KEYWORDS: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&text)
}

/// What follows the colon.
enum Object {
    Loadable,
    /// A call whose arguments are something else than literals.
    Arguments,
}

/// How deep parentheses may nest; Python's own parser ends at 200.
const DEEPEST: u32 = 100;

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
    }

    fn take(&mut self, sign: &str) -> bool {
        self.blanks();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn while_in(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A name or a call, in parentheses or not, and nothing after it.
    fn object(mut self) -> Option<Object> {
        // A blank at the beginning is an indentation to Python.
        if self.rest.starts_with(char::is_whitespace) {
            return None;
        }
        let mut open = 0_u32;
        while self.take("(") {
            open += 1;
        }
        let name = self.while_in(|c| c.is_alphanumeric() || c == '_');
        if !is_name(name) {
            return None;
        }
        let mut arguments = None;
        loop {
            if open > 0 && self.take(")") {
                open -= 1;
            } else if arguments.is_none() && self.take("(") {
                arguments = Some(self.arguments());
                if arguments == Some(false) {
                    // Whether the rest is a call at all is Python's to say.
                    return self.rest.ends_with(')').then_some(Object::Arguments);
                }
            } else {
                break;
            }
        }
        self.blanks();
        (open == 0 && self.rest.is_empty()).then_some(Object::Loadable)
    }

    /// Literals, then literals with names, and the parenthesis that ends them.
    fn arguments(&mut self) -> bool {
        let mut is_named = false;
        loop {
            if self.take(")") {
                return true;
            }
            self.blanks();
            let before = self.rest;
            let name = self.while_in(|c| c.is_alphanumeric() || c == '_');
            if is_name(name) && self.take("=") {
                is_named = true;
            } else {
                self.rest = before;
                if is_named {
                    return false;
                }
            }
            if !self.literal(0) {
                return false;
            }
            if !self.take(",") {
                return self.take(")");
            }
        }
    }

    /// As `ast.literal_eval` has them.
    fn literal(&mut self, depth: u32) -> bool {
        self.blanks();
        if depth > DEEPEST {
            return false;
        }
        for (open, close) in [("(", ")"), ("[", "]"), ("{", "}")] {
            if self.take(open) {
                return self.items(close, open == "{", depth);
            }
        }
        if self.take("...") {
            return true;
        }
        match self.rest.chars().next() {
            Some('+' | '-' | '0'..='9' | '.') => self.number(),
            Some(_) => self.word(),
            None => false,
        }
    }

    fn items(&mut self, close: &str, may_be_map: bool, depth: u32) -> bool {
        let mut is_map = None;
        let mut count = 0_u32;
        loop {
            if self.take(close) {
                // A comma alone is no tuple.
                return true;
            }
            if !self.literal(depth + 1) {
                return false;
            }
            count += 1;
            let has_value = may_be_map && self.take(":");
            if *is_map.get_or_insert(has_value) != has_value || (has_value && !self.literal(depth + 1)) {
                return false;
            }
            if !self.take(",") {
                return self.take(close) && count > 0;
            }
        }
    }

    /// A signed number, or a sum of a real and an imaginary one.
    fn number(&mut self) -> bool {
        let mut digits = || {
            let _ = self.take("+") || self.take("-");
            self.blanks();
            let start = self.rest;
            self.while_in(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            let read = &start[..start.len() - self.rest.len()];
            // The sign of an exponent is a part of the number.
            let is_based = read.starts_with("0x") || read.starts_with("0X");
            if !is_based && read.ends_with(['e', 'E']) && self.rest.starts_with(['+', '-']) {
                self.rest = &self.rest[1..];
                self.while_in(|c| c.is_ascii_alphanumeric() || c == '_');
            }
            &start[..start.len() - self.rest.len()]
        };
        let first = digits();
        if !is_number(first) {
            return false;
        }
        let before = self.rest;
        if self.take("+") || self.take("-") {
            self.blanks();
            let second = self.while_in(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            return is_number(second) && second.ends_with(['j', 'J']) && !first.ends_with(['j', 'J']);
        }
        self.rest = before;
        true
    }

    /// A text with its prefix, more of them after it, or a name that is a value.
    fn word(&mut self) -> bool {
        let mut is_text = false;
        loop {
            self.blanks();
            let before = self.rest;
            let prefix = self.while_in(|c| c.is_ascii_alphanumeric() || c == '_').to_lowercase();
            if self.rest.starts_with(['"', '\'']) && matches!(&*prefix, "" | "r" | "b" | "u" | "br" | "rb") {
                if !self.text() {
                    return false;
                }
                is_text = true;
                continue;
            }
            self.rest = before;
            if is_text {
                return true;
            }
            let name = self.while_in(|c| c.is_alphanumeric() || c == '_');
            return match name {
                "True" | "False" | "None" => true,
                "set" => self.take("(") && self.take(")"),
                _ => false,
            };
        }
    }

    fn text(&mut self) -> bool {
        let quote = if self.rest.starts_with("\"\"\"") || self.rest.starts_with("'''") {
            &self.rest[..3]
        } else {
            &self.rest[..1]
        };
        let mut at = quote.len();
        while at < self.rest.len() {
            let tail = &self.rest[at..];
            if let Some(rest) = tail.strip_prefix(quote) {
                self.rest = rest;
                return true;
            }
            let mut chars = tail.chars();
            let first = chars.next().map_or(1, char::len_utf8);
            let escaped = if tail.starts_with('\\') { chars.next().map_or(0, char::len_utf8) } else { 0 };
            if tail.starts_with('\n') && quote.len() == 1 {
                return false;
            }
            at += first + escaped;
        }
        false
    }
}

/// A number of Python's without a sign.
fn is_number(text: &str) -> bool {
    let small = text.to_ascii_lowercase();
    let is_apart = |digits: &str, radix: u32| {
        !digits.is_empty()
            && digits.split('_').all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)))
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = small.strip_prefix(prefix) {
            return is_apart(digits.strip_prefix('_').unwrap_or(digits), radix);
        }
    }
    let (real, is_imaginary) = small.strip_suffix('j').map_or((&*small, false), |real| (real, true));
    let (mantissa, exponent) = real.split_once('e').map_or((real, None), |(one, other)| (one, Some(other)));
    if exponent.is_some_and(|digits| !is_apart(digits.trim_start_matches(['+', '-']), 10)) {
        return false;
    }
    match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            let fits = |digits: &str| digits.is_empty() || is_apart(digits, 10);
            (!whole.is_empty() || !fraction.is_empty()) && fits(whole) && fits(fraction)
        }
        None => {
            // A whole number with a zero at its beginning is no number, unless it is zero.
            let is_padded =
                mantissa.starts_with('0') && mantissa.bytes().any(|digit| matches!(digit, b'1'..=b'9'));
            is_apart(mantissa, 10) && (!is_padded || exponent.is_some() || is_imaginary)
        }
    }
}
