//! Numbers: which texts are one, and which one.

use super::{Dialect, Int};

/// Python refuses to read or write a longer integer (`sys.set_int_max_str_digits`).
pub(super) const LONGEST_NUMBER: usize = 4300;

/// The rest after as many bytes as `fits`, and how many they were.
fn eat(text: &[u8], fits: impl Fn(u8) -> bool) -> (&[u8], usize) {
    let count = text.iter().position(|byte| !fits(*byte)).unwrap_or(text.len());
    (&text[count..], count)
}

fn unsigned(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'-' | b'+') => &bytes[1..],
        _ => bytes,
    }
}

fn digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

/// `[eE][-+][0-9]+` or nothing, to the end.
fn is_exponent(text: &[u8], sign_required: bool) -> bool {
    match text {
        [] => true,
        [b'e' | b'E', b'-' | b'+', rest @ ..] => !rest.is_empty() && rest.iter().all(u8::is_ascii_digit),
        [b'e' | b'E', rest @ ..] if !sign_required => !rest.is_empty() && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// `(:[0-5]?[0-9])+`; tells what is left.
fn eat_sixties(mut text: &[u8]) -> Option<&[u8]> {
    let mut some = false;
    while let [b':', rest @ ..] = text {
        text = match rest {
            [b'0'..=b'5', b'0'..=b'9', rest @ ..] | [b'0'..=b'9', rest @ ..] => rest,
            _ => return None,
        };
        some = true;
    }
    some.then_some(text)
}

/// PyYAML's pattern for `tag:yaml.org,2002:float`.
pub(super) fn is_float_11(text: &str) -> bool {
    let signed = matches!(text.as_bytes().first(), Some(b'-' | b'+'));
    let bytes = unsigned(text);
    match bytes {
        [b'.', rest @ ..] => match rest {
            b"inf" | b"Inf" | b"INF" => true,
            b"nan" | b"NaN" | b"NAN" => !signed,
            [b'0'..=b'9', ..] if !signed => is_exponent(eat(rest, digit_or_underscore).0, true),
            _ => false,
        },
        [b'0'..=b'9', ..] => match eat(bytes, digit_or_underscore).0 {
            [b'.', rest @ ..] => is_exponent(eat(rest, digit_or_underscore).0, true),
            rest @ [b':', ..] => match eat_sixties(rest) {
                Some([b'.', rest @ ..]) => rest.iter().all(|byte| digit_or_underscore(*byte)),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

/// PyYAML's pattern for `tag:yaml.org,2002:int`.
pub(super) fn is_int_11(text: &str) -> bool {
    let bytes = unsigned(text);
    match bytes {
        b"0" => true,
        [b'0', b'b', rest @ ..] => !rest.is_empty() && rest.iter().all(|b| matches!(b, b'0' | b'1' | b'_')),
        [b'0', b'x', rest @ ..] => {
            !rest.is_empty() && rest.iter().all(|b| b.is_ascii_hexdigit() || *b == b'_')
        }
        [b'0', rest @ ..] => rest.iter().all(|b| matches!(b, b'0'..=b'7' | b'_')),
        [b'1'..=b'9', ..] => match eat(bytes, digit_or_underscore).0 {
            [] => true,
            rest => eat_sixties(rest).is_some_and(<[u8]>::is_empty),
        },
        _ => false,
    }
}

/// The core schema's integers, octal and hexadecimal included.
pub(super) fn is_int_12(text: &str) -> bool {
    match text.as_bytes() {
        [b'0', b'o', rest @ ..] => !rest.is_empty() && rest.iter().all(|b| matches!(b, b'0'..=b'7')),
        [b'0', b'x', rest @ ..] => !rest.is_empty() && rest.iter().all(u8::is_ascii_hexdigit),
        _ => {
            let bytes = unsigned(text);
            !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
        }
    }
}

/// The core schema's floats.
pub(super) fn is_float_12(text: &str) -> bool {
    let bytes = unsigned(text);
    match bytes {
        b".inf" | b".Inf" | b".INF" => true,
        b".nan" | b".NaN" | b".NAN" => bytes.len() == text.len(),
        [b'.', b'0'..=b'9', ..] => is_exponent(eat(&bytes[1..], |b| b.is_ascii_digit()).0, false),
        [b'0'..=b'9', ..] => {
            let rest = eat(bytes, |b| b.is_ascii_digit()).0;
            let rest = match rest {
                [b'.', rest @ ..] => eat(rest, |b| b.is_ascii_digit()).0,
                rest => rest,
            };
            is_exponent(rest, false)
        }
        _ => false,
    }
}

/// The integer a scalar tagged `int` is, as the dialect's constructor works it out; nothing if the
/// constructor fails.
pub(super) fn int(dialect: Dialect, text: &str) -> Option<Int> {
    if text.len() > LONGEST_NUMBER {
        return None;
    }
    match dialect {
        Dialect::Salt => int_11(without_zeros(text)),
        Dialect::Ansible => int_11(text),
        Dialect::Yaml12 => match text.as_bytes() {
            [b'0', b'o', ..] => digits(&text[2..], 8, false),
            [b'0', b'x', ..] => digits(&text[2..], 16, false),
            _ => python_int(text, 10),
        },
    }
}

/// salt/utils/yamlloader.py, `construct_scalar`: zeros in front are dropped.
pub(super) fn without_zeros(text: &str) -> &str {
    if text == "0" || !text.starts_with('0') || text.starts_with("0b") || text.starts_with("0x") {
        return text;
    }
    match text.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

/// PyYAML's `construct_yaml_int`.
fn int_11(text: &str) -> Option<Int> {
    // Most integers are a few digits.
    if text.len() < 18 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Int::Small);
    }
    let text = text.replace('_', "");
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let value = match text.as_bytes() {
        [] => return None,
        b"0" => Int::Small(0),
        [b'0', b'b', ..] => python_int(&text[2..], 2)?,
        [b'0', b'x', ..] => python_int(&text[2..], 16)?,
        [b'0', ..] => python_int(text, 8)?,
        _ if text.contains(':') => sixties(text)?,
        _ => python_int(text, 10)?,
    };
    Some(if negative { negate(value) } else { value })
}

/// Python's `str.strip()`.
fn strip(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || matches!(character, '\x1c'..='\x1f'))
}

/// `1:30` is ninety.
fn sixties(text: &str) -> Option<Int> {
    /// Five at once, as with [digits].
    const MOST: u32 = 60_u32.pow(5);
    let mut sum = Decimal::default();
    let (mut factor, mut summand) = (1, 0);
    for part in text.split(':') {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return odd_sixties(text);
        }
        if part.len() <= 2 {
            (factor, summand) = (factor * 60, summand * 60 + part.parse::<u32>().ok()?);
            if factor < MOST {
                continue;
            }
        }
        sum.multiply_add(factor, 0);
        sum.add(&Decimal(vec![summand]));
        (factor, summand) = (1, 0);
        if part.len() > 2 {
            let mut value = Decimal::default();
            part.bytes().for_each(|digit| value.multiply_add(10, u32::from(digit - b'0')));
            sum.multiply_add(60, 0);
            sum.add(&value);
        }
    }
    sum.multiply_add(factor, 0);
    sum.add(&Decimal(vec![summand]));
    Some(sum.into_int(false))
}

/// The same where an explicit `!!int` lets signs and blanks through that no pattern would.
fn odd_sixties(text: &str) -> Option<Int> {
    text.split(':')
        .try_fold(0_i64, |sum, part| match python_int(part, 10)? {
            Int::Small(value) => sum.checked_mul(60)?.checked_add(value),
            Int::Big(_) => None,
        })
        .map(Int::Small)
}

/// Python's `int(text, base)` for ASCII: blanks around, a sign, the base's own prefix.
fn python_int(text: &str, base: u32) -> Option<Int> {
    let text = strip(text);
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let prefixes = match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        16 => ["0x", "0X"],
        _ => return digits(text, base, negative),
    };
    let bare = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    digits(bare, base, negative)
}

fn digits(text: &str, base: u32, negative: bool) -> Option<Int> {
    if text.is_empty() || !text.chars().all(|character| character.is_digit(base)) {
        return None;
    }
    if let Ok(value) = i64::from_str_radix(text, base) {
        return Some(Int::Small(if negative { -value } else { value }));
    }
    let mut value = Decimal::default();
    // Many digits at once: the cost grows with the square of how often that is done.
    let most = match base {
        2 => 29,
        16 => 7,
        _ => 9,
    };
    for digits in text.as_bytes().chunks(most) {
        let (mut factor, mut summand) = (1, 0);
        for digit in digits {
            factor *= base;
            summand = summand * base + char::from(*digit).to_digit(base)?;
        }
        value.multiply_add(factor, summand);
    }
    Some(value.into_int(negative))
}

fn negate(value: Int) -> Int {
    match value {
        Int::Small(value) => match value.checked_neg() {
            Some(value) => Int::Small(value),
            None => Int::Big("9223372036854775808".into()),
        },
        Int::Big(text) => match text.strip_prefix('-') {
            Some(text) => Int::Big(text.into()),
            None => normal(format!("-{text}")),
        },
    }
}

/// An integer of any length in decimal: small if it fits.
pub(super) fn normal(text: String) -> Int {
    match text.parse() {
        Ok(value) => Int::Small(value),
        Err(_) => Int::Big(text),
    }
}

/// A number without bounds, nine decimal digits a limb, the lowest first. The highest is not zero but while it is worked out.
#[derive(Default)]
struct Decimal(Vec<u32>);

const LIMB: u64 = 1_000_000_000;

impl Decimal {
    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            let value = u64::from(*limb) * u64::from(factor) + carry;
            *limb = (value % LIMB) as u32;
            carry = value / LIMB;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn add(&mut self, other: &Self) {
        let mut carry = 0;
        for at in 0..self.0.len().max(other.0.len()) {
            if at == self.0.len() {
                self.0.push(0);
            }
            let value = u64::from(self.0[at]) + u64::from(other.0.get(at).copied().unwrap_or(0)) + carry;
            self.0[at] = (value % LIMB) as u32;
            carry = value / LIMB;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn into_int(mut self, negative: bool) -> Int {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        let mut limbs = self.0.iter().rev();
        let mut text = if negative { String::from("-") } else { String::new() };
        match limbs.next() {
            None => return Int::Small(0),
            Some(first) => text.push_str(&first.to_string()),
        }
        limbs.for_each(|limb| text.push_str(&format!("{limb:09}")));
        normal(text)
    }
}

/// The float a scalar tagged `float` is, as the dialect's constructor works it out.
pub(super) fn float(dialect: Dialect, text: &str) -> Option<f64> {
    if text.len() > LONGEST_NUMBER {
        return None;
    }
    if dialect == Dialect::Yaml12 {
        return match unsigned(text) {
            b".inf" | b".Inf" | b".INF" if text.starts_with('-') => Some(f64::NEG_INFINITY),
            b".inf" | b".Inf" | b".INF" => Some(f64::INFINITY),
            b".nan" | b".NaN" | b".NAN" => Some(f64::NAN),
            [b'0'..=b'9' | b'.', ..] => text.parse().ok(),
            _ => None,
        };
    }
    let text = text.replace('_', "").to_ascii_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let text = text.strip_prefix(['-', '+']).unwrap_or(&text);
    match text {
        "" => None,
        ".inf" => Some(sign * f64::INFINITY),
        ".nan" => Some(f64::NAN),
        _ if text.contains(':') => sixties_float(text).map(|value| sign * value),
        _ => python_float(text).map(|value| sign * value),
    }
}

/// Beyond twelve places the powers of sixty are no longer exact as floats.
const MOST_SIXTIES: usize = 12;

fn sixties_float(text: &str) -> Option<f64> {
    let mut value = 0.0;
    let mut base = 1.0;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > MOST_SIXTIES {
        return None;
    }
    for part in parts.iter().rev() {
        value += python_float(part)? * base;
        base *= 60.0;
    }
    Some(value)
}

/// Python's `float(text)`, and Rust's own, agree on ASCII but for the blanks around.
fn python_float(text: &str) -> Option<f64> {
    strip(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are Python's.
    #[test]
    fn long_numbers_are_what_python_makes_of_them() {
        for (text, value) in [
            (format!("0x{}", "f".repeat(40)), "1461501637330902918203684832716283019655932542975"),
            (format!("0{}", "7".repeat(60)), "1532495540865888858358347027150309183618739122183602175"),
            (format!("0b{}", "1".repeat(70)), "1180591620717411303423"),
            (format!("-1{}", "0".repeat(30)), "-1000000000000000000000000000000"),
            ("123456789012:1:59:00:30:07:15:02".to_owned(), "345599996888724860906102"),
            (format!("9{}", ":59".repeat(13)), "1306069401599999999999999"),
            (format!("1{}", ":00".repeat(12)), "2176782336000000000000"),
        ] {
            assert_eq!(int(Dialect::Ansible, &text), Some(Int::Big(value.to_owned())), "{text}");
        }
        assert_eq!(int(Dialect::Ansible, "1:00:30"), Some(Int::Small(3630)));
    }
}
