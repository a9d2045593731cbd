//! Which values are sensitive: the one classifier. It decides by the name of a value and by what the value holds; whatever it
//! recognises is kept in files of root's and masked wherever something is printed.

use std::ops::Range;

use crate::pillar::Value;

/// What a key of a pillar says about the value that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Whatever stands below it is secret: `secrets`, also if it is misspelt.
    All,
    /// It is secret unless it is a map (an application may be called `token`) or [ordinary](is_ordinary).
    Value,
    /// Nothing.
    No,
}

/// Why a value is sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// By its name.
    Name,
    /// It is a URL with a password in it.
    Url,
    /// It is or holds a private key.
    PrivateKey,
    /// It has the form of a token of a well-known service.
    Token,
    /// It gives a value to such a name: `host=db password=…`, `--password …`.
    Assignment,
}

impl Why {
    /// What follows the name of the value in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Name => "is named like a secret",
            Self::Url => "is a URL with a password in it",
            Self::PrivateKey => "is a private key",
            Self::Token => "has the form of a token",
            Self::Assignment => "holds a secret",
        }
    }
}

/// Whether the value `text` of the name `name` is sensitive, and why.
pub fn why(name: &str, text: &str) -> Option<Why> {
    if (is_named(name) && !is_ordinary(text)) || (is_bare_key(name) && is_random(text)) {
        return Some(Why::Name);
    }
    found(text)
}

/// What the key `key` says.
pub fn named(key: &str) -> Named {
    /// Letters that may be wrong, missing, too many or swapped.
    const MISTAKES: usize = 2;
    // A large pillar has a million keys, nearly none of which is worth a comparison: one that is near has as many
    // letters, and of the five different ones all but two.
    let has = |letter: u8| key.bytes().any(|byte| byte.eq_ignore_ascii_case(&letter));
    let may_be = (4..=9).contains(&key.len()) && b"secrt".iter().filter(|letter| has(**letter)).count() >= 3;
    let like_secrets = || {
        let lower = key.to_ascii_lowercase();
        ["secrets", "secret"].iter().any(|name| strsim::damerau_levenshtein(&lower, name) <= MISTAKES)
            // The one key of the model that is so near.
            && lower != "sockets"
    };
    if may_be && like_secrets() {
        Named::All
    } else if is_named(key) {
        Named::Value
    } else {
        Named::No
    }
}

/// Whether a name has any of some words in capitals anywhere in it, whatever its own letters are. It is asked a million times
/// of a large pillar: a copy of the name in capitals, and a search in it for each word, took a tenth of reading one.
fn has_any(name: &str, words: &[&str]) -> bool {
    let bytes = name.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let begins = |word: &&str| {
            word.as_bytes().first() == Some(&byte.to_ascii_uppercase())
                && bytes
                    .get(at..at + word.len())
                    .is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        };
        words.iter().any(begins)
    })
}

/// The words of a name: `db_password`, `apiKey` and `API-KEY` have two each. In capitals.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut before = None;
    for c in name.chars() {
        let is_next =
            c.is_ascii_uppercase() && before.is_some_and(|before: char| before.is_ascii_lowercase());
        if (is_next || !c.is_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_uppercase());
        }
        before = Some(c);
    }
    // A name may end in what is no letter.
    words.into_iter().filter(|word| !word.is_empty())
}

/// Words whose last place in a name says that the value is about a secret and not one.
const ABOUT: &[&str] = &[
    "AGE",
    "ALG",
    "ALGORITHM",
    "ATTEMPTS",
    "AUDIENCE",
    "BACKEND",
    "BITS",
    "CHARS",
    "CLASS",
    "CLASSES",
    "COLUMN",
    "COUNT",
    "DAY",
    "DAYS",
    "DIR",
    "DIRECTORY",
    "DISABLED",
    "ENABLED",
    "ENCODING",
    "ENDPOINT",
    "EXPIRATION",
    "EXPIRE",
    "EXPIRES",
    "EXPIRY",
    "FIELD",
    "FILE",
    "FILENAME",
    "FILES",
    "FINGERPRINT",
    "FOLDER",
    "FORMAT",
    "HASHER",
    "HASHERS",
    "HEADER",
    "HINT",
    "HOST",
    "HOUR",
    "HOURS",
    "ID",
    "IDS",
    "INTERVAL",
    "ISSUER",
    "LABEL",
    "LENGTH",
    "LIFETIME",
    "LIMIT",
    "LOCATION",
    "MAX",
    "METHOD",
    "MIN",
    "MINUTE",
    "MINUTES",
    "MODE",
    "NAME",
    "NAMES",
    "PATH",
    "PATTERN",
    "PERIOD",
    "PLACEHOLDER",
    "POLICY",
    "PORT",
    "PREFIX",
    "PROMPT",
    "PROVIDER",
    "REGEX",
    "REGION",
    "REQUIRED",
    "RESET",
    "RETRIES",
    "ROTATION",
    "SCOPE",
    "SCOPES",
    "SECOND",
    "SECONDS",
    "SERVER",
    "SIZE",
    "SOURCE",
    "STORE",
    "STRENGTH",
    "SUFFIX",
    "TABLE",
    "TIMEOUT",
    "TTL",
    "TYPE",
    "URI",
    "URL",
    "URLS",
    "VALIDATOR",
    "VALIDATORS",
    "VERSION",
];

/// Words whose first place in a name says the same.
const MEASURED: &[&str] = &[
    "ALLOW", "COUNT", "DISABLE", "ENABLE", "HAS", "IS", "MAX", "MIN", "NUM", "REQUIRE", "REQUIRES", "USE",
    "USES",
];

/// Words before `KEY` of keys that are none of a lock.
const OTHER_KEYS: &[&str] = &[
    "AUTHORIZED",
    "BUCKET",
    "CACHE",
    "DICT",
    "FOREIGN",
    "GROUP",
    "HOST",
    "HOT",
    "IDEMPOTENCY",
    "INDEX",
    "JOIN",
    "KNOWN",
    "LOOKUP",
    "MAP",
    "METRIC",
    "OBJECT",
    "ORDER",
    "PARTITION",
    "PRIMARY",
    "PUB",
    "PUBLIC",
    "ROUTING",
    "SHARD",
    "SORT",
    "TRANSLATION",
    "UNIQUE",
];

/// Words before `KEY` that say that it opens something, also in the middle of a text.
const LOCKS: &[&str] = &[
    "ACCESS",
    "ACCOUNT",
    "ADMIN",
    "API",
    "APP",
    "APPLICATION",
    "AUTH",
    "CIPHER",
    "CLIENT",
    "COOKIE",
    "CRYPT",
    "CRYPTO",
    "DEPLOY",
    "ENCRYPTION",
    "FERNET",
    "HMAC",
    "JWT",
    "LICENSE",
    "MASTER",
    "PRIVATE",
    "SECRET",
    "SERVICE",
    "SESSION",
    "SIGNING",
    "SSH",
    "STORAGE",
];

/// What comes before `PASS` and `PWD` in one word.
const WHOSE: &[&str] = &[
    "ADMIN", "APP", "AUTH", "DB", "FTP", "HTTP", "LDAP", "MAIL", "MYSQL", "PG", "REDIS", "ROOT", "SMTP",
    "SQL", "SUDO", "USER",
];

/// Whether a name says that its value is a secret, and nothing in it says that it is not: `TOKEN_URL` tells where
/// tokens come from, `PASSWORD_MIN_LENGTH` is a number, a `SECRETARY` is a person and a `MONKEY` has no key.
pub fn is_named(name: &str) -> bool {
    // Nearly no name gets as far as being taken apart.
    const PARTS: &[&str] =
        &["AUTHORIZATION", "CREDENTIAL", "CREDS", "DSN", "KEY", "PASS", "PW", "SECRET", "TOKEN"];
    has_any(name, PARTS) && is_named_in_words(name, false)
}

fn is_named_in_words(name: &str, in_text: bool) -> bool {
    // A shell's working directory.
    if name == "PWD" {
        return false;
    }
    let words: Vec<String> = words(name).collect();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    if ABOUT.contains(&last.as_str()) || (words.len() > 1 && MEASURED.contains(&first.as_str())) {
        return false;
    }
    words.iter().enumerate().any(|(at, word)| {
        let one = word.strip_suffix('S').unwrap_or(word);
        let before = at.checked_sub(1).and_then(|at| words.get(at)).map_or("", String::as_str);
        let ends = |ends: &[&str]| ends.iter().any(|end| word.ends_with(end) || one.ends_with(end));
        let is_whose = |end: &str| word.strip_suffix(end).is_some_and(|whose| WHOSE.contains(&whose));
        match word.as_str() {
            "PASS" | "PASSPHRASE" | "PASSCODE" | "PW" | "PWD" | "CREDENTIAL" | "CREDENTIALS" | "CREDS" => {
                !matches!(before, "OLD" | "BY") || word != "PWD" && word != "PASS"
            }
            "AUTHORIZATION" => words.len() == at + 1,
            "KEY" | "KEYS" if LOCKS.contains(&before) => true,
            "KEY" | "KEYS" => !in_text && at > 0 && words.len() == at + 1 && !OTHER_KEYS.contains(&before),
            _ => {
                word.contains("PASSWORD")
                    || word.contains("PASSWD")
                    || ends(&["SECRET", "TOKEN", "DSN", "APIKEY", "ACCESSKEY", "SECRETKEY", "PRIVATEKEY"])
                    || is_whose("PASS")
                    || is_whose("PWD")
            }
        }
    })
}

/// A key of what, nobody knows.
fn is_bare_key(name: &str) -> bool {
    ["key", "keys"].iter().any(|key| name.eq_ignore_ascii_case(key))
}

/// Whether a text is as long and as mixed as keys are, and nothing that people write.
fn is_random(text: &str) -> bool {
    const SHORTEST: usize = 16;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    text.len() >= SHORTEST
        && text.bytes().all(is_part)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('/')
}

/// Whether a text is no secret whatever its name is: nothing, a switch, or a path below the usual directories.
pub fn is_ordinary(text: &str) -> bool {
    const SWITCHES: &[&str] = &["true", "false", "yes", "no", "on", "off", "none", "null"];
    const ROOTS: &[&str] =
        &["/etc/", "/home/", "/mnt/", "/opt/", "/root/", "/run/", "/srv/", "/tmp/", "/usr/", "/var/"];
    text.is_empty()
        || SWITCHES.iter().any(|switch| text.eq_ignore_ascii_case(switch))
        || (text.starts_with('/')
            && ROOTS.iter().any(|root| text.starts_with(root))
            && !text.contains(char::is_whitespace))
}

/// Whether a text begins with what a program fills in later.
fn is_filled_in(text: &str) -> bool {
    ["%(", "${", "$(", "{{", "{%", "<"].iter().any(|sign| text.starts_with(sign))
        || text.chars().next().is_none_or(|first| first == '=')
        // Where this ends at the first other byte: it is asked for each name in a text.
        || text.bytes().all(|byte| byte == b'*')
}

/// Why a text is sensitive whatever its name is.
fn found(text: &str) -> Option<Why> {
    // Nearly no value of a large pillar has any of these.
    if text.bytes().any(|byte| matches!(byte, b':' | b'=' | b'-')) {
        if password_in_url(text).is_some() {
            return Some(Why::Url);
        }
        if private_key_in(text).is_some() {
            return Some(Why::PrivateKey);
        }
        if assigned_in(text).is_some() || option_value_in(text).is_some() {
            return Some(Why::Assignment);
        }
    }
    token_in(text).map(|_| Why::Token)
}

/// A text without what may come between a name and its secret.
fn unquoted(text: &str) -> &str {
    let text = text.trim_start_matches(['"', '\'', ' ', '\t', ',']);
    ["Bearer ", "Basic ", "Token "].iter().find_map(|word| text.strip_prefix(word)).unwrap_or(text)
}

fn private_key_in(text: &str) -> Option<usize> {
    let begin = text.find("-----BEGIN ");
    begin.filter(|at| text[*at..].contains("PRIVATE KEY")).or_else(|| text.find("PuTTY-User-Key-File-"))
}

/// Each part of a sensitive text that is a secret by itself: passwords of URLs, what is given to names and options, tokens.
/// Where a value ends is a guess: it is there as far as it seems to go, and to the next blank.
pub fn parts(text: &str) -> Vec<&str> {
    /// Values that are looked for in one word. Each goes on to the end of the word, so the sum of all would be quadratic.
    const MOST_IN_A_WORD: usize = 8;
    let is_end = |c: char| matches!(c, '"' | '\'' | ',' | ';' | '}' | '&');
    let mut parts: Vec<&str> = passwords(text).filter_map(|range| text.get(range)).collect();
    let mut starts: Vec<(usize, bool)> =
        assignments(text).chain(option_values(text).map(|at| (at, false))).collect();
    starts.sort_unstable();
    // Where the last word ends, and how many values have begun in it.
    let (mut word_end, mut begun) = (0, 0);
    for (at, is_bare) in starts {
        let value = unquoted(text.get(at..).unwrap_or_default());
        let start = text.len() - value.len();
        if start >= word_end {
            word_end = start + value.find(char::is_whitespace).unwrap_or(value.len());
            begun = 0;
        }
        begun += 1;
        if begun > MOST_IN_A_WORD {
            continue;
        }
        let word = text.get(start..word_end).unwrap_or_default();
        let short = word.split(is_end).next().unwrap_or_default();
        if !is_bare || is_random(short) {
            parts.extend([short, word].into_iter().filter(|part| !is_filled_in(part) && !is_ordinary(part)));
        }
    }
    let token = |range| text.get::<Range<usize>>(range)?.split_whitespace().next();
    parts.extend(tokens(text).filter_map(token));
    parts
}

/// Where values begin that a text gives to names of secrets, and whether the name is only `key`.
fn assignments(text: &str) -> impl Iterator<Item = (usize, bool)> {
    text.match_indices([':', '=']).filter_map(|(separator, _)| {
        let name = name_before(text, separator)?;
        let before = text.get(..separator)?.strip_suffix(name).unwrap_or_default();
        let is_bare = is_bare_key(name);
        // What stands before a colon in a URL is a user or a host.
        ((is_bare || named(name) != Named::No) && !before.ends_with("://"))
            .then_some((separator + 1, is_bare))
    })
}

/// Where the first token of a well-known form is.
fn token_in(text: &str) -> Option<Range<usize>> {
    tokens(text).next()
}

/// Where tokens of a well-known form are. The forms are those that the services document.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    /// What a token begins with, and how many characters follow at least.
    const FORMS: &[(&str, usize)] = &[
        ("AGE-SECRET-KEY-1", 40),
        ("AIza", 35),
        ("EAACEdEose0cBA", 8),
        ("SG.", 40),
        ("dckr_pat_", 20),
        ("doo_v1_", 40),
        ("dop_v1_", 40),
        ("eyJ", 30),
        ("ghp_", 30),
        ("gho_", 30),
        ("ghr_", 30),
        ("ghs_", 30),
        ("ghu_", 30),
        ("github_pat_", 30),
        ("gldt-", 20),
        ("glpat-", 20),
        ("glrt-", 20),
        ("glsa_", 20),
        ("hf_", 30),
        ("hvb.", 20),
        ("hvs.", 20),
        ("lin_api_", 30),
        ("npm_", 30),
        ("pypi-", 50),
        ("rk_live_", 16),
        ("rk_test_", 16),
        ("rubygems_", 40),
        ("shpat_", 30),
        ("shpss_", 30),
        ("sk-", 32),
        ("sk_live_", 16),
        ("sk_test_", 16),
        ("whsec_", 20),
        ("xapp-", 20),
        ("xoxa-", 20),
        ("xoxb-", 20),
        ("xoxp-", 20),
        ("xoxr-", 20),
        ("xoxs-", 20),
        ("ya29.", 30),
    ];
    const SHORTEST: usize = 22;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let bytes = text.as_bytes();
    let is_token = move |range: &Range<usize>| {
        let word = &text[range.clone()];
        word.len() >= SHORTEST
            && FORMS.iter().any(|(begin, least)| {
                word.strip_prefix(begin).is_some_and(|rest| {
                    rest.len() >= *least
                        && rest.bytes().any(|byte| byte.is_ascii_digit())
                        // Of three parts, the first two are JSON.
                        && (*begin != "eyJ" || rest.contains(".eyJ"))
                        // A sentence with dashes is none.
                        && (*begin != "sk-" || rest.bytes().any(|byte| byte.is_ascii_uppercase()))
                })
            })
    };
    let mut at = if text.len() < SHORTEST { bytes.len() } else { 0 };
    let words = std::iter::from_fn(move || {
        at += bytes[at..].iter().position(|byte| is_part(*byte))?;
        let start = at;
        at += bytes[at..].iter().position(|byte| !is_part(*byte)).unwrap_or(bytes.len() - at);
        Some(start..at)
    });
    const HOOK: &str = "hooks.slack.com/services/";
    let hook =
        move || text.find(HOOK).map(|at| at + HOOK.len()..text.len()).filter(|range| range.len() >= SHORTEST);
    words.filter(is_token).chain(std::iter::once_with(hook).flatten())
}

/// Where a value begins that a text gives to a name of a secret: `host=db password=hunter2`. In a text a key may be
/// anything, `order=key:asc`, and a colon may be one of prose: `password: eight letters or more`.
fn assigned_in(text: &str) -> Option<usize> {
    const LONGEST: usize = 100;
    text.match_indices([':', '=']).find_map(|(separator, sign)| {
        let name = name_before(text, separator)?;
        let is_key = sign == "=" && is_bare_key(name);
        // It is asked of every value that has one of the signs.
        let has_name = is_named(name) && is_named_in_words(name, true);
        if !is_key && !has_name {
            return None;
        }
        let value = unquoted(text.get(separator + 1..)?);
        let end = |c: char| matches!(c, '"' | '\'' | ',' | ';' | '}' | '&' | '\n');
        // A text may be full of such names: of what follows each no more is looked at than anybody writes on a line.
        let most = (0..=LONGEST.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        let whole = value[..value[..most].find(end).unwrap_or(most)].trim();
        let is_meant = !is_key || is_random(whole);
        let is_prose = sign == ":" && whole.contains(' ');
        (is_meant && !is_prose && !is_filled_in(value) && !is_ordinary(whole)).then_some(separator + 1)
    })
}

/// Whether a text is sensitive whatever its name is.
pub fn assigns(text: &str) -> bool {
    found(text).is_some()
}

/// Where in a line the secret begins: what follows the first key or name of a secret and `:` or `=`, the password of a URL, a
/// token. The line may be of a text that cannot be read, so it covers rather too much.
pub fn value_in(line: &str) -> Option<usize> {
    let token = token_in(line).map(|range| range.start);
    // Nearly no value of a large pillar has any of these.
    if !line.bytes().any(|byte| matches!(byte, b':' | b'=' | b'-')) {
        return token;
    }
    let named = named_before(line, |name| named(name) != Named::No);
    let others = option_value_in(line).into_iter().chain(password_in_url(line)).chain(private_key_in(line));
    named.into_iter().chain(token).chain(others).min()
}

/// Where the first value begins that follows an option of a command in a word of its own.
fn option_value_in(line: &str) -> Option<usize> {
    option_values(line).next()
}

/// Where values begin that follow an option of a command in a word of its own: `--password X`, `"--token", "X"`.
fn option_values(line: &str) -> impl Iterator<Item = usize> {
    let mut from = 0;
    let options = std::iter::from_fn(move || {
        let at = from + line[from..].find("--")?;
        let rest = &line[at..];
        let end = at + rest.find(|c: char| !is_part_of_name(c)).unwrap_or(rest.len());
        // Dashes are a part of names: a row of thousands is one.
        from = end;
        Some(at..end)
    });
    let follows = move |option: &Range<usize>| {
        let rest = &line[option.end..];
        rest.starts_with([' ', '\t', '"', '\'', ',']) && !rest.trim_start().is_empty()
    };
    options
        .filter(move |option| follows(option) && is_secret_option(&line[option.clone()]))
        .map(|option| option.end)
}

/// Whether the word of a command is an option whose value, which follows, is a secret.
pub fn is_secret_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && is_named(word.trim_start_matches('-'))
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Where the password begins in `scheme://user:password@host`.
pub fn password_in_url(text: &str) -> Option<usize> {
    passwords(text).next().map(|password| password.start)
}

/// Where passwords are in URLs.
fn passwords(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(at, sign)| {
        let is_scheme = text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        let begin = at + sign.len();
        let rest = &text[begin..];
        let (user, _) = rest[..authority(rest)].rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        let start = begin + name.len() + 1;
        (is_scheme && !is_filled_in(password)).then_some(start..start + password.len())
    })
}

/// How long the part of a URL is that a text begins with, in which user, password and host stand.
fn authority(text: &str) -> usize {
    text.find(['/', '?', '#', ' ', '\n']).unwrap_or(text.len())
}

/// Where the value begins of the first name before `:` or `=` that is meant.
fn named_before(line: &str, is_meant: impl Fn(&str) -> bool) -> Option<usize> {
    line.match_indices([':', '='])
        .find_map(|(separator, _)| is_meant(name_before(line, separator)?).then_some(separator + 1))
}

/// The name that ends before a separator.
fn name_before(line: &str, separator: usize) -> Option<&str> {
    let before = line.get(..separator)?.trim_end().trim_end_matches(['"', '\'']);
    let start = before
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_part_of_name(*c))
        .last()
        .map_or(before.len(), |(at, _)| at);
    before.get(start..)
}

/// Whether what stands at `steps` (keys and indexes from an application on) is secret.
pub fn is_at<'a>(steps: impl IntoIterator<Item = &'a str>, value: Option<&Value>) -> bool {
    steps.into_iter().any(|step| named(step) != Named::No || is_bare_key(step))
        || matches!(value, Some(Value::Str(text)) if assigns(text))
}

/// Steps as they are written in a sentence: `secrets.A`. What stands in the place of a key and holds a secret, as in
/// `{A:hunter2}`, is left out.
pub fn dotted<'a>(steps: impl IntoIterator<Item = &'a str>) -> String {
    let mut below = false;
    let shown = |step: &'a str| {
        let odd =
            assigns(step) || below && !is_variable(step) && !step.bytes().all(|byte| byte.is_ascii_digit());
        below |= named(step) == Named::All;
        if odd { "…" } else { step }
    };
    steps.into_iter().map(shown).collect::<Vec<_>>().join(".")
}

/// Whether a key could be the name of an environment variable.
pub fn is_variable(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && key.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Whether a key can be nothing else than the name of an environment variable, as people write them.
pub fn is_shouted(key: &str) -> bool {
    is_variable(key) && !key.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_named_so() {
        for key in ["secrets", "secret", "Secrets", "SECRETS", "secert", "screts", "secrets_", "secretes"] {
            assert_eq!(named(key), Named::All, "{key}");
        }
        for key in ["DB_PASSWORD", "apiKey", "sentry_dsn", "x_secret_x"] {
            assert_eq!(named(key), Named::Value, "{key}");
        }
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../schemas/pillar.schema.json")).unwrap();
        let mut wrong = vec![];
        keys(&schema, &mut |key| wrong.extend((named(key) == Named::All).then(|| key.to_owned())));
        wrong.dedup();
        assert_eq!(wrong, ["secrets"], "a key of the model is taken for a misspelling");
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "DB_PASSWORD",
            "DBPASSWORD",
            "apiKey",
            "API_KEY",
            "API-KEYS",
            "APIKEY",
            "STRIPE_KEY",
            "CLIENT_SECRET",
            "clientSecret",
            "SECRETS",
            "ACCESS_TOKEN",
            "SENTRY_DSN",
            "DB_PASS",
            "DBPASS",
            "PW",
            "SMTP_PWD",
            "pwd",
            "MYSQL_PWD",
            "PASSPHRASE",
            "AWS_CREDENTIALS",
            "PRIVATE_KEY",
            "SECRET_KEY_BASE",
            "API_KEY_PROD",
            "PGPASSWORD",
            "Authorization",
        ] {
            assert!(is_named(name), "{name}");
        }
        for name in [
            "TOKEN_URL",
            "PASSWORD_MIN_LENGTH",
            "SECRETARY",
            "MONKEY",
            "KEYBOARD",
            "PUBLIC_KEY",
            "public_key_path",
            "SSL_KEY_FILE",
            "secret_files",
            "TOKENIZER",
            "AWS_ACCESS_KEY_ID",
            "PASSENGER",
            "COMPASS",
            "PWD",
            "OLD_PWD",
            "BY_PASS",
            "MAX_TOKENS",
            "key",
            "KEYS",
            "primary_key",
            "KEYSTONE",
            "BROKEN",
            "TURKEY",
            "USE_PASSWORD",
            "PASS_",
            "",
            "_",
        ] {
            assert_eq!(is_named(name), name == "PASS_", "{name}");
        }
    }

    #[test]
    fn texts_that_hold_secrets() {
        for (text, is_secret) in [
            ("host=x password=hunter2", true),
            ("jdbc:x?user=u&password=hunter2", true),
            ("password=%(secret)s", false),
            ("password=${DB_PASSWORD}", false),
            ("key=", false),
            ("a: b", false),
            ("key:asc", false),
            ("token == x", false),
            ("primary_key=id password=hunter2", true),
            ("password: hunter2", true),
            ("your password: at least eight letters", false),
            ("Authorization: Bearer 0123abcd", true),
            ("{\"auth_token\": \"hunter2\"}", true),
            ("https://maps.example/?key=0123456789abcdefgh", true),
            ("https://example/?key=name", false),
            ("ghp_0123456789abcdefghijABCDEFGHIJ012345", true),
            ("see ghp_0123", false),
            ("-----BEGIN RSA PRIVATE KEY-----\nx", true),
            ("-----BEGIN CERTIFICATE-----\nx", false),
            ("/etc/ssl/private/a-long-name-of-a-file-0123456789.pem", false),
            ("redis://:${PASSWORD}@h/0", false),
        ] {
            assert_eq!(assigns(text), is_secret, "{text}");
        }
        assert_eq!(why("SSL_KEY", "/etc/ssl/private/x.key"), None);
        assert_eq!(why("DB_PASSWORD", ""), None);
        assert_eq!(why("key", "us"), None);
        assert_eq!(why("key", "0123456789abcdefgh"), Some(Why::Name));
        assert_eq!(why("x", "postgres://u:p@w@h/db"), Some(Why::Url));
        assert_eq!(why("x", "host=x password='hunter2' x"), Some(Why::Assignment));
    }

    #[test]
    fn a_text_of_many_names_is_looked_at_in_a_moment() {
        for text in ["key=", "password:", "token: \"", "a://b:", "--token ", "-----BEGIN "] {
            let _ = (why("x", &text.repeat(20_000)), value_in(&text.repeat(20_000)));
        }
        for text in
            ["key=", "password:", "token: \"", "a://b:", "a://b:c@", "--token ", "token=x&", "--token='"]
        {
            let text = text.repeat(20_000);
            let bytes: usize = parts(&text).iter().map(|part| part.len()).sum();
            assert!(bytes <= 20 * text.len(), "{text:.20}: {bytes}");
        }
    }

    #[test]
    fn every_secret_of_a_text_is_a_part() {
        for (text, wanted) in [
            ("srv --token Aaaaaa11x --password Bbbbbb22y", vec!["Aaaaaa11x", "Bbbbbb22y"]),
            ("srv --token=Aaaaaa11x --password=Bb,2y", vec!["Aaaaaa11x", "Bb,2y"]),
            ("--token Tok12345x --dsn postgres://u:Pw123456@h/db", vec!["Tok12345x", "Pw123456"]),
            ("a://u:Pw1@h b://v:Pw2@h", vec!["Pw1", "Pw2"]),
            ("host=db password='hunter2' token=x1", vec!["hunter2", "x1"]),
            (
                "x glpat-0123456789abcdefghij y glpat-0123456789abcdefghik",
                vec!["glpat-0123456789abcdefghij", "glpat-0123456789abcdefghik"],
            ),
            ("--token-file /etc/x --private-key /etc/ssl/x.key password=${X} https://token:80/", vec![]),
        ] {
            let parts = parts(text);
            assert!(wanted.iter().all(|part| parts.contains(part)), "{text}: {parts:?}");
            assert!(!wanted.is_empty() || parts.is_empty(), "{text}: {parts:?}");
        }
    }

    fn keys(schema: &serde_json::Value, look: &mut dyn FnMut(&str)) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "properties" {
                value.as_object().into_iter().flatten().for_each(|(key, _)| look(key));
            }
            keys(value, look);
        }
    }

    #[test]
    fn a_path_shows_names_only() {
        assert_eq!(dotted(["secrets", "A", "0"]), "secrets.A.0");
        assert_eq!(dotted(["secrets", "A:hunter2"]), "secrets.…");
        assert_eq!(dotted(["environment", "API_KEY=hunter2"]), "environment.…");
        assert_eq!(dotted(["environment", "x y"]), "environment.x y");
    }

    #[test]
    fn what_follows_a_name_is_its_value() {
        for (text, value) in [
            ("DB_PASSWORD=x", Some("x")),
            ("a: b, \"API_KEY\" : x", Some(" x")),
            ("{% set token = 'x' %}", Some(" 'x' %}")),
            ("user: x", None),
            ("postgres://app:pw@db/app", Some("pw@db/app")),
            ("see amqp://a:b@c", Some("b@c")),
            ("http://:x@h", Some("x@h")),
            ("postgres://db/app", None),
            ("http://user@host/", None),
            ("http://host/a:b@c", None),
            ("a:b@c", None),
            ("http://u:@h", None),
            ("://a:b@c", None),
            ("unix:/run/web.sock", None),
            ("gunicorn --token hunter2", Some(" hunter2")),
            ("[\"gunicorn\", \"--token\", hunter2]", Some("\", hunter2]")),
            ("gunicorn --keyfile /x --token", None),
        ] {
            assert_eq!(value_in(text).map(|at| &text[at..]), value, "{text}");
        }
    }
}
