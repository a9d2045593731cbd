//! Where a text gives values to names, whatever the names are: `password=…`, `--password …`, `<password>…</password>`,
//! `IDENTIFIED BY '…'`, `machine … login … password …`.

use std::ops::Range;

use super::secret::{is_named, is_secret_option};

/// A value that follows a name and a sign.
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    /// `:` or `=`.
    pub(super) sign: char,
    /// Where what follows the sign begins.
    pub(super) at: usize,
}

/// Names with a sign and something behind it. What stands before a colon in a URL is a user or a host, and `a == b` compares.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = Given<'_>> {
    text.match_indices([':', '=']).filter_map(|(separator, sign)| {
        let name = name_before(text, separator).filter(|name| !name.is_empty())?;
        let before = text.get(..separator)?;
        let mut sign = sign.chars().next()?;
        let mut at = separator + 1;
        let rest = text.get(at..)?;
        if sign == ':' {
            if before.strip_suffix(name).is_some_and(|before| before.ends_with("://")) {
                return None;
            }
            // `name := value`
            if rest.starts_with('=') {
                (sign, at) = ('=', at + 1);
            }
        } else if rest.starts_with('=') {
            let value = rest.trim_start_matches('=');
            let is_blank = |c: char| c.is_whitespace();
            if before.ends_with(is_blank) || value.is_empty() || value.starts_with(is_blank) {
                return None;
            }
            at = text.len() - value.len();
        } else if rest.starts_with('>') {
            // `name => value`
            at += 1;
        }
        Some(Given { name, sign, at })
    })
}

/// Where the value itself begins of what a text gives to a name: behind quotes, also escaped ones, blanks and the word before a
/// credential of HTTP, and on the next line if there is nothing on this one.
pub(super) fn value_at(text: &str, given: &Given<'_>) -> usize {
    let start = unquoted(text, given.at);
    if given.sign != ':' { start } else { on_next_line(text, start).unwrap_or(start) }
}

/// What may come between a name and its secret is left out, the end of a line before which a backslash stands included.
pub(super) fn unquoted(text: &str, at: usize) -> usize {
    const SCHEMES: &[&str] = &["Bearer ", "Basic ", "Token "];
    let rest = text.get(at..).unwrap_or_default();
    let mut value = rest.trim_start_matches(['"', '\'', ' ', '\t', ',', '\\']);
    let before = rest.get(..rest.len() - value.len()).unwrap_or_default();
    if before.ends_with('\\') && value.starts_with(['\n', '\r']) {
        value = value.trim_start().trim_start_matches(['"', '\'']);
    }
    let is_scheme =
        |scheme: &&&str| value.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    if let Some(scheme) = SCHEMES.iter().find(is_scheme) {
        value = value.get(scheme.len()..).unwrap_or_default().trim_start_matches(' ');
    }
    text.len() - value.len()
}

/// Where a value begins on the line after the one that a text ends at `at`, if it ends there, or has the sign of a block of YAML.
/// It is indented deeper, or is a single word in which letters and digits are mixed; and it is no name with a value itself.
fn on_next_line(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let block = rest.trim_start_matches(['|', '>', '+', '-']);
    let after = block.trim_start_matches([' ', '\t', '\r']);
    if !after.starts_with('\n') {
        return None;
    }
    let next = after.trim_start();
    let start = text.len() - next.len();
    let line = next.lines().next()?.trim_end();
    let depth_at = |at: usize| {
        let begin = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(begin..at)?;
        Some(line.len() - line.trim_start_matches([' ', '\t']).len())
    };
    let is_key = line.ends_with(':') || line.contains(": ");
    let is_mixed = !line.contains([' ', ':', '=', '[', '{'])
        && line.bytes().any(|byte| byte.is_ascii_digit())
        && line.bytes().any(|byte| byte.is_ascii_alphabetic());
    let is_meant = !is_key && (depth_at(start)? > depth_at(at)? || is_mixed);
    let item = next.strip_prefix("- ").unwrap_or(next).trim_start_matches(['"', '\'', ' ', '\\']);
    is_meant.then_some(text.len() - item.len())
}

/// Where values begin that follow an option of a command in a word of its own: `--password X`, `"--token", "X"`.
pub(super) fn option_values(line: &str) -> impl Iterator<Item = usize> {
    let mut from = 0;
    let options = std::iter::from_fn(move || {
        let at = from + line.get(from..)?.find("--")?;
        let rest = line.get(at..)?;
        let end = at + rest.find(|c: char| !is_part_of_name(c)).unwrap_or(rest.len());
        // Dashes are a part of names: a row of thousands is one.
        from = end;
        Some(at..end)
    });
    let follows = move |option: &Range<usize>| {
        let rest = line.get(option.end..).unwrap_or_default();
        rest.starts_with([' ', '\t', '"', '\'', ',']) && !rest.trim_start().is_empty()
    };
    options
        .filter(move |option| follows(option) && line.get(option.clone()).is_some_and(is_secret_option))
        .map(|option| option.end)
}

/// What elements of XML hold that are named like secrets. An element that is not ended is something else: `<password>` alone is to
/// be replaced by one.
pub(super) fn elements(text: &str) -> impl Iterator<Item = Range<usize>> {
    const RAW: &str = "![CDATA[";
    text.match_indices('<').filter_map(|(open, _)| {
        let rest = text.get(open + 1..)?;
        let end = rest.find(|c: char| !is_part_of_name(c) && c != ':').filter(|end| *end > 0)?;
        rest.get(..end)?.rsplit(':').next().filter(|name| is_named(name))?;
        // Nothing is looked at beyond the next bracket that opens, so that each byte is looked at once.
        let close = end + rest.get(end..)?.find(['<', '>'])?;
        let inside = rest.get(close..)?.strip_prefix('>').filter(|_| !rest[..close].ends_with('/'))?;
        let start = text.len() - inside.len();
        let length = inside.find('<')?;
        let next = inside.get(length + 1..)?;
        if let Some(raw) = next.strip_prefix(RAW).filter(|_| inside[..length].trim().is_empty()) {
            let raw = raw.split('<').next().unwrap_or_default();
            let start = start + length + 1 + RAW.len();
            return Some(start..start + raw.find("]]>").unwrap_or(raw.len()));
        }
        next.starts_with('/').then_some(start..start + length)
    })
}

/// What sentences of two languages give: SQL, `PASSWORD '…'` and `IDENTIFIED BY …`, and netrc, `machine … login … password …`.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut sql = Sql::Other;
    let mut netrc = Netrc::Other;
    words(text).filter_map(move |(start, word)| {
        let whole = || start..start + word.len();
        let begins_line = text.get(..start).is_none_or(|before| before.is_empty() || before.ends_with('\n'));
        let by_netrc = netrc.takes(word, begins_line).then(whole);
        let by_sql = sql.takes(word).and_then(|expected| match expected {
            Expected::Quoted { in_capitals } => quoted(text, start, word, in_capitals),
            // Oracle's password needs no quotes.
            Expected::Bare => Some(whole()),
        });
        by_sql.or(by_netrc)
    })
}

/// Words between blanks, and where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = text.get(from..)?;
        let word = rest.trim_start();
        let start = text.len() - word.len();
        let word = word.split(char::is_whitespace).next().filter(|word| !word.is_empty())?;
        from = start + word.len();
        Some((start, word))
    })
}

/// What stands in quotes from a word on. In a text that need not be SQL it is one word: `password "is wrong"` is prose.
fn quoted(text: &str, start: usize, word: &str, in_capitals: bool) -> Option<Range<usize>> {
    let quote = word.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inside = text.get(start + 1..)?;
    let end = inside.find(quote).unwrap_or(word.len() - 1);
    (in_capitals || end < word.len()).then_some(start + 1..start + 1 + end)
}

/// What may be a password in a statement of SQL.
enum Expected {
    Quoted { in_capitals: bool },
    Bare,
}

/// What comes next in a statement of SQL; `true`: the words before are in capitals, so that this is no prose.
#[derive(Clone, Copy)]
enum Sql {
    Other,
    /// A password in quotes, after a word that ends in PASSWORD.
    Password(bool),
    /// After IDENTIFIED: `WITH method`, and then `BY` or `AS`.
    Identified(bool),
    Method(bool),
    /// After `BY`.
    By(bool),
}

impl Sql {
    /// What a word may be.
    fn takes(&mut self, word: &str) -> Option<Expected> {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        let in_capitals = !word.bytes().any(|byte| byte.is_ascii_lowercase());
        let before = *self;
        *self = match before {
            Self::Identified(all) if is("WITH") => Self::Method(all),
            Self::Identified(all) if is("BY") || is("AS") => Self::By(all),
            Self::Method(all) => Self::Identified(all),
            Self::By(all) if is("PASSWORD") || is("VALUES") => Self::By(all),
            _ if is("IDENTIFIED") => Self::Identified(in_capitals),
            _ if is_password(word) => Self::Password(in_capitals),
            _ => Self::Other,
        };
        let (in_capitals, may_be_bare) = match (before, *self) {
            (Self::Password(all), _) => (all, false),
            (Self::By(_), Self::By(_)) => return None,
            (Self::By(all), _) => (all, all),
            _ => return None,
        };
        if word.starts_with(['\'', '"']) {
            return Some(Expected::Quoted { in_capitals });
        }
        (may_be_bare && word.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(Expected::Bare)
    }
}

/// Whether a word is a name of a password alone.
fn is_password(word: &str) -> bool {
    let word = word.trim_start_matches(['(', ';', ',']);
    ["PASSWORD", "PASSWD"].iter().any(|name| {
        word.len() >= name.len()
            && word.get(word.len() - name.len()..).is_some_and(|end| end.eq_ignore_ascii_case(name))
    }) && word.chars().all(is_part_of_name)
        && is_named(word)
}

/// What is expected in a file of netrc.
#[derive(Clone, Copy)]
enum Netrc {
    Other,
    Machine,
    /// Pairs follow.
    Entry,
    /// The second of a pair.
    Value,
    Password,
}

impl Netrc {
    /// Whether a word is the password.
    fn takes(&mut self, word: &str, begins_line: bool) -> bool {
        let before = *self;
        *self = match (before, word) {
            (Self::Machine | Self::Value | Self::Password, _) => Self::Entry,
            (_, "machine") => Self::Machine,
            (_, "default") if begins_line => Self::Entry,
            (Self::Entry, "login" | "account") => Self::Value,
            (Self::Entry, "password") => Self::Password,
            _ => Self::Other,
        };
        matches!(before, Self::Password)
    }
}

pub(super) fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The name that ends before a separator, in quotes, also in escaped ones.
pub(super) fn name_before(line: &str, separator: usize) -> Option<&str> {
    let before = line.get(..separator)?.trim_end().trim_end_matches(['"', '\'', '\\']);
    let start = before
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_part_of_name(*c))
        .last()
        .map_or(before.len(), |(at, _)| at);
    before.get(start..)
}

/// The first bytes of a text, at most so many, and no part of a character.
pub(super) fn up_to(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
