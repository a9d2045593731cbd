//! What the words of gunicorn's command line are to Python's argparse (3.9 to 3.13), which reads them.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Word;
use crate::model::settings::{GUNICORN, Kind, Setting};
use crate::source::Span;

/// What a word, or a letter of it, is.
pub(in crate::rules) enum Part {
    /// An option of a setting.
    Setting(Given),
    /// `-h` and `-v`: gunicorn prints something and ends.
    Ends(String, Span),
    /// It could be several.
    Ambiguous(String, Vec<&'static str>, Span),
    /// There is no such option.
    Unknown(String, Span),
    /// The application.
    Application(String, Span),
    /// `--`: what follows is no option any more.
    EndOfOptions(Span),
}

/// An option of a setting, as it was given.
pub(in crate::rules) struct Given {
    pub(in crate::rules) setting: &'static Setting,
    /// The option as it was written: abbreviated, or a letter of several in one word.
    pub(in crate::rules) written: String,
    /// The whole word, and where it stands.
    pub(in crate::rules) word: Arc<str>,
    pub(in crate::rules) span: Span,
    /// The text given for its value, and where that stands.
    pub(in crate::rules) text: Option<(String, Span)>,
}

impl Given {
    /// Whether the option is followed by a value: whether it must be, and whether it may be.
    pub(in crate::rules) fn takes_value(&self) -> (bool, bool) {
        let takes = self.setting.kind != Kind::Boolean;
        (takes && self.setting.bare.is_none(), takes)
    }

    /// What the setting becomes; none where gunicorn ends because of it.
    pub(in crate::rules) fn value(&self) -> Option<Json> {
        let text = self.text.as_ref().map(|(text, _)| text.as_str());
        match self.setting.kind {
            Kind::Boolean => Some(self.setting.sets.clone().unwrap_or(Json::Bool(true))),
            Kind::Integer => integer(text?, self.setting).map(Json::from),
            Kind::String => text.or(self.setting.bare.as_deref()).map(|text| text.trim().into()),
            Kind::StringList => text.map(|text| vec![text.trim()].into()),
            Kind::Map | Kind::Hook => None,
        }
    }
}

/// Python's `int(text)`; `auto_int` of gunicorn's config.py for what is octal, where a leading 0 is `0o`.
pub(in crate::rules) fn integer(text: &str, setting: &Setting) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    // One underscore between digits is no part of the number.
    let is_apart = digits.split('_').all(|part| !part.is_empty());
    let digits = digits.replace('_', "");
    let is_octal = setting.format.as_deref() == Some("octal");
    let small = digits.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| small.starts_with(prefix));
    let (radix, digits) = match based {
        Some((_, radix)) if is_octal => (radix, &small[2..]),
        None if is_octal && small.starts_with('0') => (8, small.as_str()),
        _ => (10, small.as_str()),
    };
    if !is_apart || !digits.chars().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

/// Options that argparse adds, and that are no setting.
const ENDING: &[&str] = &["-h", "--help", "-v", "--version"];

/// Whether argparse takes a word for an option: negative numbers are values, and so is what has a blank in it.
fn is_option(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else { return false };
    let is_known = || find(word.split_once('=').map_or(word, |(name, _)| name)).is_some();
    !rest.is_empty() && !is_number(rest) && (!word.contains(' ') || is_known())
}

/// argparse's `^-\d+$|^-\d*\.\d+$`, without the sign.
fn is_number(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && !fraction.is_empty() && is_digits(fraction),
        None => !text.is_empty() && is_digits(text),
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    GUNICORN.settings.iter().find(|setting| setting.cli.iter().any(|one| one == name))
}

/// Every option of a setting, and those that argparse adds.
fn names() -> impl Iterator<Item = &'static str> {
    let all = GUNICORN.settings.iter().flat_map(|setting| setting.cli.iter().map(String::as_str));
    all.chain(ENDING.iter().copied())
}

/// What each word is, in order.
pub(super) fn read(words: &[Word<'_>]) -> Vec<Part> {
    let mut parts = vec![];
    let mut rest = words.iter().peekable();
    // Nobody knows whether an option that is none, or several, was to have a value.
    let mut may_be_value = false;
    while let Some(&(word, span)) = rest.next() {
        if word == "--" {
            parts.push(Part::EndOfOptions(span));
            break;
        }
        if !is_option(word) {
            if !std::mem::take(&mut may_be_value) {
                parts.push(Part::Application(word.to_owned(), span));
            }
            continue;
        }
        may_be_value = false;
        for mut part in options(word, span) {
            match &mut part {
                Part::Unknown(..) | Part::Ambiguous(..) => may_be_value = true,
                // argparse takes no option for a value, also where one is missing.
                Part::Setting(given) if given.text.is_none() && given.takes_value().1 => {
                    let next = rest.next_if(|(next, _)| !is_option(next));
                    given.text = next.map(|(text, span)| ((*text).to_owned(), *span));
                }
                _ => {}
            }
            parts.push(part);
        }
    }
    parts
}

/// The options of one word: whole, abbreviated where only one begins so, short ones in a row.
fn options(word: &str, span: Span) -> Vec<Part> {
    // A word may have thousands of letters, each an option that has this word.
    let whole: Arc<str> = word.into();
    let setting = |setting, written: &str, text: Option<&str>| {
        let text = text.map(|text| (text.to_owned(), span));
        Part::Setting(Given { setting, written: written.to_owned(), word: Arc::clone(&whole), span, text })
    };
    if word.starts_with("--") {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if let Some(found) = find(name) {
            return vec![setting(found, name, value)];
        }
        let near: Vec<&'static str> = names().filter(|one| one.starts_with(name)).collect();
        return vec![match near[..] {
            [] => Part::Unknown(name.to_owned(), span),
            [one] => find(one).map_or(Part::Ends(name.to_owned(), span), |found| setting(found, name, value)),
            _ => Part::Ambiguous(name.to_owned(), near, span),
        }];
    }
    let mut parts = vec![];
    for (start, letter) in word.char_indices().skip(1) {
        let name = format!("-{letter}");
        if let Some(ends) = ENDING.iter().find(|one| **one == name) {
            parts.push(Part::Ends((*ends).to_owned(), span));
            continue;
        }
        let Some(found) = find(&name) else {
            parts.push(Part::Unknown(word.to_owned(), span));
            break;
        };
        let rest = &word[start + letter.len_utf8()..];
        if found.kind == Kind::Boolean {
            parts.push(setting(found, &name, None));
            continue;
        }
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        parts.push(setting(found, &name, value));
        break;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let plain = GUNICORN.get("workers").unwrap();
        let octal = GUNICORN.get("control_socket_mode").unwrap();
        for (text, number, mode) in [
            ("4", Some(4), Some(4)),
            (" +4 ", Some(4), Some(4)),
            ("-1", Some(-1), Some(-1)),
            ("1_000", Some(1000), Some(1000)),
            ("_1", None, None),
            ("1e3", None, None),
            ("0600", Some(600), Some(0o600)),
            ("0o600", None, Some(0o600)),
            ("0x1f", None, Some(31)),
            ("", None, None),
            ("x", None, None),
        ] {
            assert_eq!(integer(text, plain), number, "{text:?}");
            assert_eq!(integer(text, octal), mode, "{text:?}");
        }
    }
}
