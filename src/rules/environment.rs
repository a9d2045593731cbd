//! Variables that the server, or the interpreter that it is written for, ends at when it starts.
//!
//! Measured with gunicorn 27.0.1, CPython 3.9.18, 3.10.13, 3.11.2, 3.12.1 and 3.13.0, and Ruby 3.1.2. Only what ends in all of
//! these is found, so that PYTHONINTMAXSTRDIGITS (not before 3.9.14), PYTHON_CPU_COUNT and PYTHON_GIL (not before 3.13) are not;
//! nor is what depends on the host: PYTHONHOME, PYTHONPLATLIBDIR, PYTHONIOENCODING.

use super::{Subject, finding, refused};
use crate::diagnostic::Diagnostic;
use crate::model::input::Server;
use crate::rule;

/// A variable that something ends at, if its value is wrong.
struct Variable {
    name: &'static str,
    /// What ends.
    reader: &'static str,
    /// What is wrong with a value, without the value.
    wrong: fn(&str) -> Option<String>,
    /// What to write.
    help: &'static str,
}

const fn variable(
    name: &'static str,
    reader: &'static str,
    wrong: fn(&str) -> Option<String>,
    help: &'static str,
) -> Variable {
    Variable { name, reader, wrong, help }
}

/// What a service of gunicorn ends at.
const OF_GUNICORN: &[Variable] = &[
    variable(
        "WEB_CONCURRENCY",
        "gunicorn",
        concurrency,
        "leave it out, and write the number of workers in `gunicorn.workers`",
    ),
    variable(
        "FORWARDED_ALLOW_IPS",
        "gunicorn",
        networks,
        "write addresses and networks, separated by commas, or *",
    ),
    variable("PYTHONHASHSEED", "Python", seed, "write random, or a number up to 4294967295"),
    variable("PYTHONUTF8", "Python", switch, "write \"0\" or \"1\""),
    variable("PYTHONMALLOC", "Python", allocator, "write malloc, pymalloc or debug, or leave it out"),
    variable("PYTHONTRACEMALLOC", "Python", frames, "write a number of frames up to 65535"),
];

/// What a service of unicorn ends at.
const OF_UNICORN: &[Variable] =
    &[variable("RUBYOPT", "Ruby", ruby_options, "leave it out, or write it as an option of `ruby` has it")];

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let service = subject.service;
    let variables = match service.server {
        Server::Gunicorn => OF_GUNICORN,
        Server::Unicorn => OF_UNICORN,
        Server::Any => return,
    };
    if !arrives(&service.command) {
        return;
    }
    for Variable { name, reader, wrong, help } in variables {
        for (section, values) in [("environment", &service.environment), ("secrets", &service.secret_values)]
        {
            let Some(what) = values.get(*name).and_then(|value| wrong(value)) else { continue };
            let is_secret = section == "secrets";
            let message = if is_secret {
                format!("`{section}.{name}` has a value that {reader} ends at")
            } else {
                format!("`{section}.{name}`: {what}, and {reader} ends")
            };
            let place = subject.place(&[section, name]);
            found.push(finding(&rule::REFUSED_VALUE, message).at(place, *help).hide_if(is_secret));
        }
    }
}

/// Whether gunicorn ends at WEB_CONCURRENCY, which has no effect otherwise.
pub(super) fn ends_at_concurrency(subject: &Subject<'_>) -> bool {
    let service = subject.service;
    arrives(&service.command)
        && service.environment.get("WEB_CONCURRENCY").is_some_and(|value| concurrency(value).is_some())
}

/// Whether the variables arrive as they are: what stands before the server's word sets none, and has no option by which it, or
/// Python (`-E`, `-I`), would pass over them.
fn arrives(command: &[String]) -> bool {
    let is_server = |word: &str| matches!(word, "gunicorn" | "unicorn" | "unicorn_rails");
    let mut before = command.iter().take_while(|word| !word.rsplit('/').next().is_some_and(is_server));
    before.all(|word| word == "-m" || !(word.starts_with('-') || word.contains('=')))
}

/// gunicorn takes it for `workers`, also where the configuration sets them, and ends where `int()` does or it is below 0
/// (config.py, `Workers`). Digits of other scripts are digits to `int()`.
fn concurrency(value: &str) -> Option<String> {
    let text = value.trim_matches(|c: char| matches!(c, '\t'..='\r' | '\x1c'..='\x1f' | ' '));
    let (is_negative, digits) = signed(text);
    let is_number =
        digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()));
    let is_zero = digits.bytes().all(|c| matches!(c, b'0' | b'_'));
    (text.is_ascii() && !(is_number && (!is_negative || is_zero)))
        .then(|| "it is no number of workers".to_owned())
}

/// The default of `forwarded_allow_ips`, which gunicorn validates also where the configuration sets another (config.py).
fn networks(value: &str) -> Option<String> {
    refused::no_networks(value.trim())
}

/// As `strtoul` reads it (initconfig.c, `config_init_hash_seed`).
fn seed(value: &str) -> Option<String> {
    let is_good = value.is_empty() || value == "random" || is_within(value, 4_294_967_295);
    (!is_good).then(|| "it is neither random nor a number up to 4294967295".to_owned())
}

/// preconfig.c, `preconfig_init_utf8_mode`.
fn switch(value: &str) -> Option<String> {
    (!matches!(value, "" | "0" | "1")).then(|| "it is neither 0 nor 1".to_owned())
}

/// obmalloc.c, `_PyMem_GetAllocatorName`; mimalloc is known since 3.13.
fn allocator(value: &str) -> Option<String> {
    let known = matches!(
        value,
        "" | "default"
            | "malloc"
            | "pymalloc"
            | "debug"
            | "malloc_debug"
            | "pymalloc_debug"
            | "mimalloc"
            | "mimalloc_debug"
    );
    (!known).then(|| "Python has no such allocator".to_owned())
}

/// initconfig.c, `config_init_tracemalloc`, and the most that the module takes.
fn frames(value: &str) -> Option<String> {
    (!value.is_empty() && !is_within(value, 65_535))
        .then(|| "it is no number of frames up to 65535".to_owned())
}

/// Whether C reads a decimal number from 0 to `most`: blanks before it and a sign are taken.
fn is_within(value: &str, most: u64) -> bool {
    let text = value.trim_start_matches(|c: char| matches!(c, '\t'..='\r' | ' '));
    let (is_negative, digits) = signed(text);
    digits.bytes().all(|c| c.is_ascii_digit())
        && digits.parse::<u64>().is_ok_and(|number| number <= most && (!is_negative || number == 0))
}

/// Whether a text begins with a minus, and what follows its sign.
fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Options that Ruby refuses in RUBYOPT or does not have (ruby.c, `proc_options`). Of letters in a row the first is looked at; of
/// words, those that one of Ruby up to 3.4 has are taken.
fn ruby_options(value: &str) -> Option<String> {
    const LONG: &[&str] = &[
        "backtrace-limit",
        "crash-report",
        "debug",
        "disable",
        "enable",
        "encoding",
        "external-encoding",
        "internal-encoding",
        "jit",
        "mjit",
        "parser",
        "rjit",
        "verbose",
        "yjit",
        "zjit",
    ];
    let mut words = value.split_ascii_whitespace();
    while let Some(option) = words.next().and_then(|word| word.strip_prefix('-')) {
        if let Some(name) = option.strip_prefix('-').filter(|name| !name.is_empty()) {
            if !LONG.iter().any(|known| name.starts_with(known)) {
                let name = name.split('=').next().unwrap_or(name);
                return Some(format!("`--{name}` is no option that it may have"));
            }
        } else if let Some(letter) = option.chars().next().filter(|letter| *letter != '-') {
            if !"dEIKrTUvwW".contains(letter) {
                return Some(format!("`-{letter}` is no option that it may have"));
            }
            if matches!(option, "E" | "I" | "r") {
                words.next();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the interpreters and gunicorn take and refuse them.
    #[test]
    fn values_are_those_that_are_taken() {
        let all = OF_GUNICORN.iter().chain(OF_UNICORN);
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "WEB_CONCURRENCY",
                &["0", "-0", "4", " 4 ", "4_0", "+4", "４"],
                &["", "abc", "-1", "4.0", "1__0", "_1", "0x4", "+ 4"],
            ),
            (
                "FORWARDED_ALLOW_IPS",
                &["", " ", "*", "10.0.0.0/8", "10.0.0.1,,::1", "*, fd00::/8"],
                &["x", "*,x", "10.0.0.1/8", "10.0.0.1, ,::1", "fd00::/129"],
            ),
            (
                "PYTHONHASHSEED",
                &["", "random", "0", "4294967295", " 1", "+1"],
                &["-1", "4294967296", "abc", "1 ", "0x10", "+", "Random"],
            ),
            ("PYTHONUTF8", &["", "0", "1"], &["2", "true", " 1", "01"]),
            ("PYTHONMALLOC", &["", "default", "debug", "pymalloc_debug", "mimalloc"], &["nope", "Malloc"]),
            ("PYTHONTRACEMALLOC", &["", "0", "1", "65535"], &["abc", "-1", "65536", "9999999"]),
            (
                "RUBYOPT",
                &[
                    "",
                    "-w",
                    "-W:no-deprecated",
                    "-rbundler/setup -I /x",
                    "-r json -d",
                    "--yjit -d",
                    "--disable=gems",
                    "-",
                ],
                &["-Z", "-n", "-w -x", "-I /x -n", "--nope", "--version", "--deb", "--dump=insns"],
            ),
        ];
        assert_eq!(all.clone().count(), cases.len());
        for ((name, good, bad), variable) in cases.iter().zip(all) {
            assert_eq!(*name, variable.name);
            for value in *good {
                assert_eq!((variable.wrong)(value), None, "{name}={value}");
            }
            for value in *bad {
                assert!((variable.wrong)(value).is_some(), "{name}={value}");
            }
        }
    }

    #[test]
    fn variables_arrive_unless_somebody_may_stand_between() {
        for (command, wanted) in [
            ("gunicorn -w 4 --name=x", true),
            ("python -m gunicorn", true),
            ("bundle exec unicorn", true),
            ("python -I -m gunicorn", false),
            ("env WEB_CONCURRENCY=4 gunicorn", false),
            ("env -i /v/bin/gunicorn", false),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(arrives(&words), wanted, "{command}");
        }
    }
}
