//! Passwords and tokens in URLs: `scheme://user:password@host`, `https://TOKEN@host`.

use std::ops::Range;

use super::given::up_to;
use super::placeholder::{is_filled_in, is_placeholders};
use super::secret::is_random;

/// So far is looked for the end of a password that has blanks in it.
const LONGEST_WITH_BLANKS: usize = 100;

/// Where the password or the token of the first URL begins that has one.
pub fn password_in_url(text: &str) -> Option<usize> {
    passwords_in_urls(text).next().map(|password| password.start)
}

/// Where passwords and tokens are in URLs. Of a URL that can be read in two ways both are given.
pub fn passwords_in_urls(text: &str) -> impl Iterator<Item = Range<usize>> {
    let flat = (text.contains("{{") && text.contains("://")).then(|| flat(text));
    let plain = flat.is_none().then(|| in_plain(text, text));
    let flat: Option<Vec<_>> = flat.map(|flat| in_plain(&flat, text).collect());
    flat.into_iter().flatten().chain(plain.into_iter().flatten())
}

/// A text in which the expressions of templates have nothing that ends a URL or a part of it, and the same places. An expression may
/// hold a URL itself.
fn flat(text: &str) -> String {
    /// Longer ones are left as they are.
    const LONGEST: usize = 200;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, expression) = rest.split_at(at);
        out.push_str(before);
        let length = up_to(expression, LONGEST).find("}}").map_or(2, |end| end + 2);
        let (expression, after) = expression.split_at(length);
        if expression.contains("://") {
            out.push_str(expression);
        } else {
            let is_end =
                |c| matches!(c, ' ' | '/' | ':' | '@' | '?' | '#' | ',' | '"' | '\'' | '(' | '[' | '\t');
            out.extend(expression.chars().map(|c| if is_end(c) { '_' } else { c }));
        }
        rest = after;
    }
    out + rest
}

/// The same in a text whose parts are found in `flat`, which has the same places.
fn in_plain(flat: &str, text: &str) -> impl Iterator<Item = Range<usize>> {
    flat.match_indices("://").flat_map(move |(at, sign)| {
        let is_scheme = flat[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '}');
        let begin = at + sign.len();
        let rest = flat.get(begin..).filter(|_| is_scheme).unwrap_or_default();
        let found = in_rest(rest, text.get(begin..).unwrap_or_default());
        found.into_iter().flatten().map(move |range| begin + range.start..begin + range.end)
    })
}

/// Where they are in what follows `://`: a token in the place of the user, the password as the standard has it, and the password
/// with what should be written as `%2F` and the like. `written` has the same places.
fn in_rest(rest: &str, written: &str) -> [Option<Range<usize>>; 3] {
    // What belongs to the next URL does not belong to this one.
    let rest = rest.get(..rest.find("://").unwrap_or(rest.len())).unwrap_or_default();
    let end = rest.find(['/', '?', '#', ' ', '\n']).unwrap_or(rest.len());
    let (authority, _) = rest.split_at(end);
    let meant = |range: Range<usize>| {
        let password = written.get(range.clone()).unwrap_or_default();
        (!password.is_empty() && !is_placeholders(password)).then_some(range)
    };
    let Some((user, _)) = authority.rsplit_once('@') else {
        return [None, None, odd_password(rest, authority).and_then(meant)];
    };
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(name.len() + 1..name.len() + 1 + password.len())),
        None => (user, None),
    };
    // What stands between two values of JSON is no user.
    let password = password.filter(|_| !name.contains(['"', ',']));
    let last = word(rest).rfind('@').unwrap_or(0);
    let long = password.clone().filter(|short| last > short.end).map(|short| short.start..last);
    // `https://{{ token | default('…') }}@host`
    let is_literal =
        name.starts_with("{{") && written.get(..name.len()).is_some_and(|name| name.contains(['"', '\'']));
    [(is_token(name) || is_literal).then_some(0..name.len()), password.and_then(meant), long.and_then(meant)]
}

/// The password of a URL that has a `/`, `?`, `#` or a blank in it before the first `@`. A port could be meant, and the rest be a
/// path: `https://host:80/x?y=a@b`.
fn odd_password(rest: &str, authority: &str) -> Option<Range<usize>> {
    let (name, after) = authority.split_once(':')?;
    let is_user = !name.contains(['"', ',', '\'', '[', '(', ' ']);
    if !is_user || is_port(after) {
        return None;
    }
    let start = name.len() + 1;
    let word = word(rest);
    if let Some(end) = word.rfind('@').filter(|end| *end >= start) {
        return Some(start..end);
    }
    // A blank ends what people write around a URL as well: then what follows `@` has to look like a host.
    let near = up_to(rest, start + LONGEST_WITH_BLANKS).split(['\n', '"', '\'', '<', '`']).next()?;
    let end = near.find('@').filter(|end| *end >= start)?;
    let is_host = rest.get(end + 1..)?.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    (is_host && rest.get(word.len()..)?.starts_with([' ', '\t'])).then_some(start..end)
}

/// What goes on to the next blank or quote.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Whether what follows a host and a colon is a port: a number, or what stands for one.
fn is_port(text: &str) -> bool {
    /// 65535
    const DIGITS: usize = 5;
    let number = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.get(number..).unwrap_or_default();
    let ends = rest.is_empty() || rest.starts_with(['"', '\'', ',', ';', ')', ']', '}', '>', '|', '\\', '&']);
    (number <= DIGITS && ends) || text.eq_ignore_ascii_case("port") || is_filled_in(text)
}

/// Whether the user of a URL is none but a token. `deploy-user-prod-01` is a name: none of its parts is long and mixed.
fn is_token(user: &str) -> bool {
    /// A part of a token without `-` and `_`.
    const PART: usize = 10;
    /// A UUID, whose parts are shorter.
    const HEX_DIGITS: usize = 32;
    let is_mixed = |part: &str| {
        part.len() >= PART
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && part.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let is_hex = || {
        user.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            && user.bytes().filter(u8::is_ascii_hexdigit).count() >= HEX_DIGITS
    };
    is_random(user) && (user.split(['-', '_']).any(is_mixed) || is_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_of_urls() {
        for (text, wanted) in [
            ("postgres://u:p@h/db", vec!["p"]),
            ("postgres://u:p@w@h/db", vec!["p@w"]),
            ("postgres://u:pa/ss#w?d@host/db", vec!["pa/ss#w?d"]),
            ("postgres://u:pa?ss@host", vec!["pa?ss"]),
            ("postgres://u:pa#ss@host", vec!["pa#ss"]),
            ("see postgres://u:pa ss@host/db", vec!["pa ss"]),
            ("postgres://u:p@s/s@h/db", vec!["p", "p@s/s"]),
            ("http://u:p@h/path/@scope", vec!["p", "p@h/path/"]),
            ("http://o'brien:p'w@h", vec!["p'w"]),
            ("postgres://u:{{ x }}hunter2@h", vec!["{{ x }}hunter2"]),
            ("postgres://u:${X:-hunter2}@h", vec!["${X:-hunter2}"]),
            ("postgres://${USER}:hunter2@h", vec!["hunter2"]),
            ("postgres://{{ user }}:hunter2@{{ host }}/db", vec!["hunter2"]),
            ("postgres://app_{{ env }}:hunter2@h", vec!["hunter2"]),
            ("postgres://u:{{ pw | default(\"hunter2\") }}@h", vec!["{{ pw | default(\"hunter2\") }}"]),
            (
                "postgres://u:{{ salt['pillar.get']('db:password','hunter2') }}@h/db",
                vec!["{{ salt['pillar.get']('db:password','hunter2') }}"],
            ),
            ("https://{{ t | default('hunter2') }}@h/x", vec!["{{ t | default('hunter2') }}"]),
            ("postgres://{{ user }}:{{ pw }}@{{ host }}/db", vec![]),
            ("http://{{ host }}:{{ port }}/a@b", vec![]),
            ("postgres://{{ env }}_app:{{ pw }}@db/app", vec![]),
            ("ssh://{{ env }}-deploy@git.example/x.git", vec![]),
            ("postgres://u:{{ 123456 }}@h", vec!["{{ 123456 }}"]),
            ("{{ scheme }}://u:hunter2@h", vec!["hunter2"]),
            ("{{ pillar.get('db', 'postgres://app:hunter2@db/app') }}", vec!["hunter2"]),
            ("{{ a }} {{ b", vec![]),
            ("https://0123456789abcdefABCD@h/x", vec!["0123456789abcdefABCD"]),
            ("https://0123456789abcdefABCD:x-oauth-basic@h/x", vec!["0123456789abcdefABCD", "x-oauth-basic"]),
            ("https://123e4567-e89b-12d3-a456-426614174000@h", vec!["123e4567-e89b-12d3-a456-426614174000"]),
            ("a://u:p1@h,b://v:p2@h", vec!["p1", "p2"]),
            ("http://host/a:b@c", vec![]),
            ("https://h:80/x?y=a@b", vec![]),
            ("https://h:/x@y", vec![]),
            ("http://[::1]:80/x@y", vec![]),
            ("https://h:port/x@y", vec![]),
            ("https://h:${PORT}/x@y", vec![]),
            ("{\"u\":\"http://h\",\"mail\":\"a@b\"}", vec![]),
            ("see http://h:80 and write to a@b", vec![]),
            ("https://user@host/a:b@c", vec![]),
            ("ssh://deploy-user-prod-01@host/x", vec![]),
            ("redis://:${PASSWORD}@h/0", vec![]),
            ("postgres://u:{{ password }}@h", vec![]),
            ("postgres://u:$PW@h", vec![]),
            ("http://u:@h", vec![]),
            ("://u:p@h", vec![]),
        ] {
            let found: Vec<&str> = passwords_in_urls(text).map(|range| &text[range]).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }
}
