//! Which values are sensitive: the one classifier. It decides by the name of a value and by what the value holds; whatever it
//! recognises is kept in files of root's and masked wherever something is printed.

use std::ops::Range;

use super::given::{assignments, elements, name_before, option_values, sentences, unquoted, up_to, value_at};
use super::placeholder::{is_filled_in, is_placeholders, is_variable_of_shell};
pub use super::url_password::{password_in_url, passwords_in_urls};
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
    NameSays::of(name).why(text)
}

/// What a name says about its values: a list may have millions of them, and a name be long.
#[derive(Clone, Copy, Debug)]
pub struct NameSays {
    is_named: bool,
    is_bare_key: bool,
}

impl NameSays {
    /// What this name says.
    pub fn of(name: &str) -> Self {
        Self { is_named: is_named(name), is_bare_key: is_bare_key(name) }
    }

    /// Whether it says that a value is secret, unless the value is [ordinary](is_ordinary).
    pub fn is_named(self) -> bool {
        self.is_named
    }

    /// Whether a value is sensitive, and why.
    pub fn why(self, text: &str) -> Option<Why> {
        if (self.is_named && !is_ordinary(text)) || (self.is_bare_key && is_random(text)) {
            return Some(Why::Name);
        }
        found(text)
    }
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

/// The words of a name: `db_password`, `apiKey` and `API-KEY` have two each. In capitals, without numbers: the second password
/// is called `PASSWORD2` or `PASSWORD_2`.
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
    words.into_iter().filter_map(|mut word| {
        word.truncate(word.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        // A name may end in what is no letter.
        Some(word).filter(|word| !word.is_empty())
    })
}

/// Words whose last place in a name says that the value is about a secret and not one.
const ABOUT: &[&str] = &[
    "AGE",
    "ALG",
    "ALGORITHM",
    "ARN",
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
    "MANAGER",
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
    "ALLOW", "COUNT", "DISABLE", "ENABLE", "HAS", "IS", "MAX", "MIN", "NO", "NUM", "REQUIRE", "REQUIRES",
    "USE", "USES", "WITHOUT",
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
    "PUBLISHABLE",
    "ROUTING",
    "SHARD",
    "SITE",
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
    "SIGNING",
    "SSH",
    "STORAGE",
];

/// Keys that are one word.
const KEYS: &[&str] = &[
    "ACCESSKEY",
    "ACCOUNTKEY",
    "APIKEY",
    "AUTHKEY",
    "DEPLOYKEY",
    "ENCRYPTIONKEY",
    "HMACKEY",
    "JWTKEY",
    "LICENSEKEY",
    "MASTERKEY",
    "PASSKEY",
    "PRIVATEKEY",
    "PRIVKEY",
    "SECRETKEY",
    "SIGNINGKEY",
    "STORAGEKEY",
];

/// Words before `SEED` of what one-time passwords are made from.
const ONE_TIME: &[&str] = &["HOTP", "MFA", "OTP", "TOTP"];

/// What comes before `PASS`, `PW` and `PWD` in one word.
const WHOSE: &[&str] = &[
    "ADMIN",
    "APP",
    "AUTH",
    "BIND",
    "DB",
    "FTP",
    "HTTP",
    "KEY",
    "KEYSTORE",
    "LDAP",
    "MAIL",
    "MYSQL",
    "PG",
    "REDIS",
    "REQUIRE",
    "ROOT",
    "SMTP",
    "SQL",
    "SSH",
    "STORE",
    "SUDO",
    "TRUSTSTORE",
    "USER",
];

/// What comes before `AUTH` in names of passwords, or of a user with a password.
const AUTHENTICATED: &[&str] = &["BASIC", "PROXY", "REDIS"];

/// What comes before `SALT` in names of what hashes are protected by. Other salts are a tool's.
const SALTED: &[&str] = &["COOKIE", "ENCRYPTION", "HASH", "HASHIDS", "SESSION", "SIGNING"];

/// Whether a name says that its value is a secret, and nothing in it says that it is not: `TOKEN_URL` tells where
/// tokens come from, `PASSWORD_MIN_LENGTH` is a number, a `SECRETARY` is a person and a `MONKEY` has no key.
pub fn is_named(name: &str) -> bool {
    may_be_named(name) && is_named_in_words(name, false)
}

/// Whether a name is worth being taken apart: nearly none is.
fn may_be_named(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "AUTH",
        "BEARER",
        "COOKIE",
        "CREDENTIAL",
        "CREDS",
        "DSN",
        "JWT",
        "KEY",
        "PASS",
        "PW",
        "SALT",
        "SECRET",
        "SEED",
        "TOKEN",
    ];
    has_any(name, PARTS)
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
        let after = words.get(at + 1).map_or("", String::as_str);
        let is_last = words.len() == at + 1;
        let ends = |ends: &[&str]| ends.iter().any(|end| word.ends_with(end) || one.ends_with(end));
        let is_whose = |end: &str| word.strip_suffix(end).is_some_and(|whose| WHOSE.contains(&whose));
        match word.as_str() {
            "PASS" if matches!(after, "THROUGH" | "THRU") => false,
            "PASS" | "PASSPHRASE" | "PASSPHRASES" | "PASSCODE" | "PW" | "PWD" | "CREDENTIAL"
            | "CREDENTIALS" | "CREDS" => !matches!(before, "OLD" | "BY") || word != "PWD" && word != "PASS",
            "AUTHORIZATION" | "BASICAUTH" => is_last,
            "AUTH" => is_last && AUTHENTICATED.contains(&before),
            "BEARER" => is_last && !in_text,
            "SALT" => is_last && SALTED.contains(&before),
            "COOKIE" => is_last && before == "SESSION",
            "JWT" => is_last && !in_text,
            "SEED" => ONE_TIME.contains(&before),
            // It is a secret only if it looks like one.
            "KEY" | "KEYS" if before == "SESSION" => false,
            "KEY" | "KEYS" if LOCKS.contains(&before) => true,
            "KEY" | "KEYS" => !in_text && at > 0 && is_last && !OTHER_KEYS.contains(&before),
            "TOKEN" | "TOKENS" if matches!(before, "PUBLIC" | "PUBLISHABLE") => false,
            "SECRET" | "SECRETS" if after == "MANAGER" => false,
            "PASSWORDLESS" | "NOPASSWORD" | "NOPASSWD" => false,
            _ => {
                word.contains("PASSWORD")
                    || word.contains("PASSWD")
                    || ends(&["SECRET", "TOKEN", "DSN"])
                    || ends(KEYS)
                    || is_whose("PASS")
                    || is_whose("PW")
                    || is_whose("PWD")
            }
        }
    })
}

/// A key of what, nobody knows. That of a session may be its name.
fn is_bare_key(name: &str) -> bool {
    const SESSIONS: &[&str] = &["session_key", "session_keys", "session-key", "sessionkey"];
    let ends = |end: &str| {
        let at = name.len().checked_sub(end.len());
        at.and_then(|at| name.get(at..)).is_some_and(|rest| rest.eq_ignore_ascii_case(end))
    };
    ["key", "keys"].iter().any(|key| name.eq_ignore_ascii_case(key)) || SESSIONS.iter().any(|key| ends(key))
}

/// Whether a text is as long and as mixed as keys are, and nothing that people write.
pub(super) fn is_random(text: &str) -> bool {
    const SHORTEST: usize = 16;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    text.len() >= SHORTEST
        && text.bytes().all(is_part)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('/')
}

/// Whether a text is no secret whatever its name is: nothing, a switch, `${VARIABLE}`, or a path below the usual
/// directories.
pub fn is_ordinary(text: &str) -> bool {
    const SWITCHES: &[&str] = &["true", "false", "yes", "no", "on", "off", "none", "null"];
    const ROOTS: &[&str] =
        &["/etc/", "/home/", "/mnt/", "/opt/", "/root/", "/run/", "/srv/", "/tmp/", "/usr/", "/var/"];
    text.is_empty()
        || SWITCHES.iter().any(|switch| text.eq_ignore_ascii_case(switch))
        || (text.starts_with('/')
            && ROOTS.iter().any(|root| text.starts_with(root))
            && !text.contains(char::is_whitespace))
        || is_variable_of_shell(text)
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
        if is_assigned_in(text) || is_option_value_in(text) {
            return Some(Why::Assignment);
        }
    }
    if held(text).next().is_some() {
        return Some(Why::Assignment);
    }
    token_in(text).map(|_| Why::Token)
}

/// What elements of XML hold, and what sentences of SQL and netrc give.
fn held(text: &str) -> impl Iterator<Item = Range<usize>> {
    let has_elements = text.contains("</") || text.contains("<![");
    let has_sentences =
        text.contains(char::is_whitespace) && has_any(text, &["PASSWORD", "PASSWD", "IDENTIFIED"]);
    let elements = has_elements.then(|| elements(text)).into_iter().flatten();
    let sentences = has_sentences.then(|| sentences(text)).into_iter().flatten();
    elements.chain(sentences).filter(|range| {
        let value = text.get(range.clone()).unwrap_or_default().trim();
        !is_placeholders(value) && !is_ordinary(value)
    })
}

fn private_key_in(text: &str) -> Option<usize> {
    // SSH2 has four dashes and a blank.
    const BEGINS: &[&str] = &["-----BEGIN ", "---- BEGIN "];
    let begin = BEGINS.iter().filter_map(|begin| text.find(begin)).min();
    begin.filter(|at| text[*at..].contains("PRIVATE KEY")).or_else(|| text.find("PuTTY-User-Key-File-"))
}

/// Hands over each part of a sensitive text that is a secret by itself: passwords of URLs, what is given to names and options,
/// tokens. Where a value ends is a guess: it is there as far as it seems to go, and to the next blank. A text of megabytes can
/// have a part in every few bytes, so they are never all in memory.
pub fn parts<'a>(text: &'a str, each: &mut dyn FnMut(&'a str)) {
    for range in passwords_in_urls(text).chain(held(text)) {
        each(text.get(range).unwrap_or_default().trim());
    }
    let mut values = Values::new(text);
    for given in assignments(text) {
        let is_bare = is_bare_key(given.name);
        if is_bare || named(given.name) != Named::No {
            let start = value_at(text, &given);
            if values.are_too_many(start, each) {
                break;
            }
            values.hand_over(start, is_bare, each);
        }
    }
    let mut values = Values::new(text);
    for at in option_values(text) {
        let start = unquoted(text, at);
        if values.are_too_many(start, each) {
            break;
        }
        values.hand_over(start, false, each);
    }
    for range in tokens(text) {
        each(text.get(range).and_then(|token| token.split_whitespace().next()).unwrap_or_default());
    }
}

/// Values of a text whose beginnings come in their order, and where they may end.
struct Values<'a> {
    text: &'a str,
    /// Where the last word ends, and how many values have begun in it.
    word: (usize, usize),
    /// Where the last value ends by its quotes or separators, and how many others have begun within it.
    short: (usize, usize),
    /// How many have been handed over.
    count: usize,
}

impl<'a> Values<'a> {
    /// Nobody writes so many into one text. To look at each name of a text of megabytes would take too long.
    const MOST: usize = 5_000;

    /// So many values are handed over that go on to the same end. The sum of all would be quadratic.
    const MOST_TO_AN_END: usize = 8;

    fn new(text: &'a str) -> Self {
        Self { text, word: (0, 0), short: (0, 0), count: 0 }
    }

    /// Hands over each piece of the rest of the text, whatever it is, if there are too many values.
    fn are_too_many(&mut self, start: usize, each: &mut dyn FnMut(&'a str)) -> bool {
        self.count += 1;
        if self.count <= Self::MOST {
            return false;
        }
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || b":=\"',;}&".contains(byte);
        let rest = self.text.get(start..).unwrap_or_default();
        let mut at = 0;
        for piece in rest.as_bytes().split(is_between) {
            if !piece.is_empty() {
                each(rest.get(at..at + piece.len()).unwrap_or_default());
            }
            at += piece.len() + 1;
        }
        true
    }

    fn hand_over(&mut self, start: usize, is_bare: bool, each: &mut dyn FnMut(&'a str)) {
        let value = self.text.get(start..).unwrap_or_default();
        if start >= self.word.0 {
            self.word = (start + value.find(char::is_whitespace).unwrap_or(value.len()), 0);
        }
        let word = self.text.get(start..self.word.0).unwrap_or_default();
        self.word.1 += 1;
        if start >= self.short.0 {
            self.short = (start + word.find(is_end_of_value).unwrap_or(word.len()), 0);
        }
        let mut short = self.text.get(start..self.short.0).unwrap_or_default();
        self.short.1 += 1;
        if self.short.1 > Self::MOST_TO_AN_END {
            short = short.split([':', '=']).next().unwrap_or_default();
        }
        // What escapes a quote, or closes what is not a part of it.
        let short = short.trim_end_matches('\\');
        let bare = short.trim_end_matches([')', ']', '>', '|', '`', '.']);
        if (is_bare && !is_random(short)) || is_filled_in(value) {
            return;
        }
        let whole = Some(word).filter(|_| self.word.1 <= Self::MOST_TO_AN_END);
        for part in [Some(bare), Some(short).filter(|short| *short != bare), whole].into_iter().flatten() {
            if !is_ordinary(part) {
                each(part);
            }
        }
    }
}

/// What a value in a text ends at, if it has no blank before.
fn is_end_of_value(c: char) -> bool {
    matches!(c, '"' | '\'' | ',' | ';' | '}' | '&')
}

/// Where the first token of a well-known form is.
fn token_in(text: &str) -> Option<Range<usize>> {
    tokens(text).next()
}

/// Where tokens of a well-known form are. The forms are those that the services document.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    /// What a token begins with, and how many characters follow at least.
    const FORMS: &[(&str, usize)] = &[
        (AGE, 10),
        ("AGE-SECRET-KEY-PQ-1", 10),
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
        ("pypi-AgE", 14),
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
    const AGE: &str = "AGE-SECRET-KEY-1";
    const SHORTEST: usize = 22;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let bytes = text.as_bytes();
    let is_token = move |range: &Range<usize>| {
        let word = &text[range.clone()];
        word.len() >= SHORTEST
            && FORMS.iter().any(|(begin, least)| {
                word.strip_prefix(begin).is_some_and(|rest| {
                    rest.len() >= *least
                        // In what is encoded a digit may be missing.
                        && (*begin == AGE || rest.bytes().any(|byte| byte.is_ascii_digit()))
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

/// Whether a text gives a value to a name of a secret: `host=db password=hunter2`. In a text a key may be anything,
/// `order=key:asc`, and a colon may be one of prose: `password: eight letters or more`.
fn is_assigned_in(text: &str) -> bool {
    assignments(text).any(|given| {
        let is_key = given.sign == '=' && is_bare_key(given.name);
        // It is asked of every value that has one of the signs.
        if !is_key && !may_be_named(given.name) {
            return false;
        }
        let value = text.get(value_at(text, &given)..).unwrap_or_default();
        let whole = beginning(value, |c| is_end_of_value(c) || c == '\n').trim().trim_end_matches('\\');
        let is_prose = given.sign == ':' && whole.contains(' ');
        // To take the name apart takes longest.
        !is_prose
            && !is_ordinary(whole)
            && !is_filled_in(value)
            && ((is_key && is_random(whole)) || (is_named(given.name) && is_named_in_words(given.name, true)))
    })
}

/// Whether an option of a command gives one.
fn is_option_value_in(text: &str) -> bool {
    option_values(text).any(|at| {
        let value = text.get(unquoted(text, at)..).unwrap_or_default();
        let whole = beginning(value, |c| is_end_of_value(c) || c.is_whitespace());
        !is_filled_in(value) && !is_ordinary(whole)
    })
}

/// What a value begins with. A text may be full of names: of what follows each no more is looked at than anybody writes on a line.
fn beginning(value: &str, is_end: impl Fn(char) -> bool) -> &str {
    const LONGEST: usize = 100;
    up_to(value, LONGEST).split(is_end).next().unwrap_or_default()
}

/// Whether a text is sensitive whatever its name is.
pub fn assigns(text: &str) -> bool {
    found(text).is_some()
}

/// Where in a line the secret begins: what follows the first key or name of a secret and `:` or `=`, the password of a URL, a
/// token. The line may be of a text that cannot be read, so it covers rather too much.
pub fn value_in(line: &str) -> Option<usize> {
    let unnamed = token_in(line).into_iter().chain(held(line)).map(|range| range.start).min();
    // Nearly no value of a large pillar has any of these.
    if !line.bytes().any(|byte| matches!(byte, b':' | b'=' | b'-')) {
        return unnamed;
    }
    let named = named_before(line, |name| named(name) != Named::No);
    let option = option_values(line).next();
    let others = option.into_iter().chain(password_in_url(line)).chain(private_key_in(line));
    named.into_iter().chain(unnamed).chain(others).min()
}

/// Whether the word of a command is an option whose value, which follows, is a secret.
pub fn is_secret_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && is_named(word.trim_start_matches('-'))
}

/// Where the value begins of the first name before `:` or `=` that is meant.
fn named_before(line: &str, is_meant: impl Fn(&str) -> bool) -> Option<usize> {
    line.match_indices([':', '='])
        .find_map(|(separator, _)| is_meant(name_before(line, separator)?).then_some(separator + 1))
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
            "MASTERKEY",
            "ENCRYPTIONKEY",
            "AccountKey",
            "STORAGEKEY",
            "SIGNINGKEYS",
            "PASS1",
            "PASSWORD2",
            "DB_PASS_2",
            "STRIPE_KEY_2",
            "JWT",
            "AUTH_JWT",
            "BASIC_AUTH",
            "HTTP_BASIC_AUTH",
            "SESSION_COOKIE",
            "OTP_SEED",
            "SECRET_MANAGER_TOKEN",
            "REDIS_AUTH",
            "PROXY_AUTH",
            "LDAP_BINDPW",
            "DBPW",
            "SSHPASS",
            "requirepass",
            "KEYPASS",
            "STOREPASS",
            "PASSPHRASES",
            "PRIVKEY",
            "PASSKEY",
            "BEARER",
            "SIGNING_SALT",
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
            "NO_PASSWORD",
            "NOPASSWD",
            "PASS_THROUGH",
            "PASSTHROUGH",
            "PASSWORDLESS",
            "PASSWORDLESS_LOGIN",
            "SECRET_MANAGER",
            "SECRETS_MANAGER_PROJECT",
            "PASSWORD_MANAGER",
            "SESSION_KEY",
            "SESSION_COOKIE_NAME",
            "SESSION_COOKIE_SECURE",
            "JWT_ALGORITHM",
            "USE_JWT",
            "BASIC_AUTH_REALM",
            "AUTH",
            "COOKIE",
            "RANDOM_SEED",
            "SALT",
            "SALT_MASTER",
            "BEARER_FORMAT",
            "REDIS_AUTH_ENABLED",
            "HTTP_AUTH",
            "STRIPE_PUBLISHABLE_KEY",
            "RECAPTCHA_SITE_KEY",
            "SECRET_ARN",
            "MAPBOX_PUBLIC_TOKEN",
            "TOKEN_URL_2",
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
            // What is filled in later has no other text beside it.
            ("password=${X:-hunter2}", true),
            ("password=${X}hunter2", true),
            ("password=$(echo hunter2)", true),
            ("password={{ x }}hunter2", true),
            ("password={{ x | default('hunter2') }}", true),
            ("password=<b>hunter2", true),
            ("password=\"<password>\"", false),
            ("password=$TOKEN", false),
            ("password=\"$TOKEN\"", false),
            ("password=$ecret1", true),
            ("--token $TOKEN x", false),
            ("--token ${X:-hunter2}", true),
            ("--token=$(cat /run/token) x", false),
            ("Authorization: Bearer ${TOKEN}", false),
            ("authorization: bearer hunter2", true),
            ("https://u:$PASSWORD@h", false),
            ("https://0123456789abcdefABCD@h/x", true),
            ("postgres://u:pa/ss#w?d@host/db", true),
            ("https://h:80/x?y=a@b", false),
            ("https://token:80/", false),
            // Signs.
            ("password==hunter2", true),
            ("if token == x", false),
            ("token ==x", false),
            ("password != x", false),
            (":password => 'hunter2'", true),
            ("password := hunter2", true),
            ("{\\\"password\\\":\\\"hunter2\\\"}", true),
            // On the next line.
            ("password:\n  hunter2\n", true),
            ("a:\n  password: |\n    hunter2\n", true),
            ("password:\r\n  \"hunter2\"", true),
            ("password:\nhunter2\n", true),
            ("passwords:\n  - hunter2\n", true),
            ("--password \\\n  hunter2", true),
            ("password:\nusername:\n", false),
            ("password:\n  min: 8\n", false),
            ("Enter your token:\n  then press enter\n", false),
            ("PASSWORD=\nUSER=deploy\n", false),
            ("token:\n", false),
            // XML, SQL and netrc.
            ("<password>hunter2</password>", true),
            ("<x:Password a='1'>hunter2</x:Password>", true),
            ("<password><![CDATA[hunter2]]></password>", true),
            ("<user password=\"hunter2\"/>", true),
            ("<password></password><token/>x</a>", false),
            ("<password>${X}</password>", false),
            ("mysql -p <password> <database>", false),
            ("ALTER ROLE x WITH PASSWORD 'hunter2'", true),
            ("CREATE ROLE x ENCRYPTED PASSWORD 'correct horse'", true),
            ("create user x identified by 'hunter2'", true),
            ("IDENTIFIED WITH mysql_native_password BY 'hunter2'", true),
            ("IDENTIFIED BY hunter2;", true),
            ("users are identified by name", false),
            ("password \"is not what it was\"", false),
            ("unexpected token 'x'", false),
            ("machine h login u password hunter2", true),
            ("default login u password hunter2", true),
            ("machine learning needs a password today", false),
            ("login with password authentication", false),
            // Tokens and keys.
            ("pypi-AgEIcHlwaS5vcmcCJDhunter2", true),
            ("AGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", true),
            ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nx", true),
            ("---- BEGIN SSH2 PUBLIC KEY ----\nx", false),
        ] {
            assert_eq!(assigns(text), is_secret, "{text}");
        }
        assert_eq!(why("SSL_KEY", "/etc/ssl/private/x.key"), None);
        assert_eq!(why("DB_PASSWORD", ""), None);
        assert_eq!(why("DB_PASSWORD", "$TOKEN"), Some(Why::Name));
        assert_eq!(why("DB_PASSWORD", "${TOKEN}"), None);
        assert_eq!(why("DB_PASSWORD", "${TOKEN:-hunter2}"), Some(Why::Name));
        assert_eq!(why("SESSION_KEY", "user_id"), None);
        assert_eq!(why("SESSION_KEY", "0123456789abcdefgh"), Some(Why::Name));
        assert_eq!(why("key", "us"), None);
        assert_eq!(why("key", "0123456789abcdefgh"), Some(Why::Name));
        assert_eq!(why("x", "postgres://u:p@w@h/db"), Some(Why::Url));
        assert_eq!(why("x", "host=x password='hunter2' x"), Some(Why::Assignment));
    }

    #[test]
    fn a_text_of_many_names_is_looked_at_in_a_moment() {
        const MANY: &[&str] = &[
            "key=",
            "password:",
            "password:\n",
            "password:\n  ",
            "token: \"",
            "a://b:",
            "a://b:c@",
            "a://b:c/",
            "--token ",
            "token=x&",
            "--token='",
            "-----BEGIN ",
            "password=\"\\",
            "{\"password\":",
            "token:[",
            "password=",
            "password=${A:-",
            "password={{ ",
            "<password",
            "<password>",
            "<password>x</",
            "<password><![CDATA[",
            "PASSWORD '",
            "PASSWORD ' \"",
            "IDENTIFIED BY ",
            "machine a login b password c ",
        ];
        for one in MANY {
            let text = one.repeat(20_000);
            let _ = (why("x", &text), value_in(&text));
            let (mut count, mut bytes) = (0, 0);
            parts(&text, &mut |part| (count, bytes) = (count + 1, bytes + part.len()));
            // Three for each of so many names, and the pieces of the rest.
            assert!(count <= 3 * 2 * Values::MOST + 4 * 20_000, "{one}: {count}");
            assert!(bytes <= 60 * text.len(), "{one}: {bytes}");
        }
    }

    /// Then each piece of the rest is one.
    #[test]
    fn what_follows_very_many_secrets_is_a_part() {
        for (one, end) in [("password=x1,", "password=hunter2"), ("--token x1 ", "--token hunter2")] {
            let text = format!("{}{end}", one.repeat(2 * Values::MOST));
            let mut has_it = false;
            super::parts(&text, &mut |part| has_it |= part == "hunter2");
            assert!(has_it, "{one}");
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
            ("{\\\"password\\\":\\\"hunter2\\\"}", vec!["hunter2"]),
            ("(password=hunter2)", vec!["hunter2", "hunter2)"]),
            ("password==hunter2 :token => 'Tok12345x'", vec!["hunter2", "Tok12345x"]),
            ("password:\n  hunter2\nx", vec!["hunter2"]),
            ("<password>hunter2 x</password>", vec!["hunter2 x"]),
            ("IDENTIFIED BY 'hunter2 x';", vec!["hunter2 x"]),
            ("machine h login u password hunter2", vec!["hunter2"]),
            ("postgres://u:pa/ss@host/db", vec!["pa/ss"]),
            (
                "token=a1b2c3&token=b1&token=c1&token=d1&token=e1&token=f1&token=g1&token=h1&token=hunter2",
                vec!["a1b2c3", "hunter2"],
            ),
            ("--token-file /etc/x --private-key /etc/ssl/x.key password=${X} https://token:80/", vec![]),
            ("--token $TOKEN password={{ db_password }}", vec![]),
        ] {
            let mut parts = vec![];
            super::parts(text, &mut |part| parts.push(part));
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
