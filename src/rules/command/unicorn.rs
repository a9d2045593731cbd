//! The words of Ruby unicorn's command line, as OptionParser reads them.

use super::Word;
use crate::diagnostic::Diagnostic;
use crate::model::nearest;
use crate::model::secret;
use crate::model::settings::UNICORN;
use crate::rule;
use crate::rules::finding;
use crate::source::Span;

/// What an option means for a service.
#[derive(Clone, Copy)]
enum Means {
    /// Nothing that the pillar says.
    Nothing,
    /// It overrules the pillar; what to do instead.
    Overrules(&'static str),
    /// It sets RACK_ENV, or RAILS_ENV of `unicorn_rails`.
    Environment,
    /// It prints something, and unicorn ends.
    Ends,
}

use Means::{Ends, Environment, Nothing, Overrules};

/// An option: its letter and its word, either of which may be missing, and whether it takes a value.
struct Switch {
    letter: Option<char>,
    name: Option<&'static str>,
    takes_value: bool,
    means: Means,
}

const fn switch(letter: Option<char>, name: Option<&'static str>, takes_value: bool, means: Means) -> Switch {
    Switch { letter, name, takes_value, means }
}

const BIND: Means = Overrules("write `bind`");

/// What /usr/bin/unicorn and /usr/bin/unicorn_rails (6.0) both have.
const COMMON: &[Switch] = &[
    switch(Some('e'), Some("eval"), true, Nothing),
    switch(Some('d'), Some("debug"), false, Nothing),
    switch(Some('w'), Some("warn"), false, Nothing),
    switch(Some('I'), Some("include"), true, Nothing),
    switch(Some('r'), Some("require"), true, Nothing),
    switch(Some('o'), Some("host"), true, BIND),
    switch(Some('p'), Some("port"), true, BIND),
    switch(Some('E'), Some("env"), true, Environment),
    switch(
        Some('D'),
        Some("daemonize"),
        false,
        Overrules("leave it out: runit supervises the server, which must stay in the foreground"),
    ),
    switch(Some('l'), Some("listen"), true, BIND),
    switch(
        Some('c'),
        Some("config-file"),
        true,
        Overrules("leave it out: the configuration file is rendered"),
    ),
];

/// What only `unicorn` has. `-s` is there for rackup's sake, and idle. With `-P` a new generation ends, because the old one's
/// PID is in the file (http_server.rb, `pid=`).
const PLAIN: &[Switch] = &[
    switch(Some('N'), Some("no-default-middleware"), false, Nothing),
    switch(Some('P'), Some("pid"), true, Overrules("leave it out, or write `layout.pids`")),
    switch(Some('s'), Some("server"), true, Nothing),
];

/// What only `unicorn_rails` has; its `-P` is the path of the application's URLs.
const RAILS: &[Switch] = &[switch(Some('P'), None, true, Nothing), switch(None, Some("path"), true, Nothing)];

/// What OptionParser looks at last: a word is completed from these only if no other begins so.
const LAST: &[Switch] =
    &[switch(Some('h'), Some("help"), false, Ends), switch(Some('v'), Some("version"), false, Ends)];

/// The variable that `-E` sets.
pub(super) fn variable(program: &str) -> &'static str {
    if program == "unicorn_rails" { "RAILS_ENV" } else { "RACK_ENV" }
}

/// The switches of a program, in the order in which OptionParser looks at them.
type Lists = [Vec<&'static Switch>; 2];

fn lists(program: &str) -> Lists {
    let own = if program == "unicorn_rails" { RAILS } else { PLAIN };
    [COMMON.iter().chain(own).collect(), LAST.iter().collect()]
}

/// What a word could mean.
enum Found {
    Switch(&'static Switch),
    /// As it could be completed.
    Several(Vec<&'static str>),
    None,
}

/// As OptionParser completes the word of an option (optparse.rb, `Completion`): each of its parts may be cut short, `n-d` for
/// `no-default-middleware`, and capitals are the same as small letters if `ignore_case`.
fn complete(lists: &Lists, written: &str, ignore_case: bool) -> Found {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let same = |a: char, b: char| if ignore_case { a.eq_ignore_ascii_case(&b) } else { a == b };
    let begins = |name: &str| {
        let mut rest = name.chars().peekable();
        let mut before = None;
        written.chars().all(|c| {
            if !is_part(c) && before.is_some_and(is_part) {
                while rest.next_if(|next| is_part(*next)).is_some() {}
            }
            before = Some(c);
            rest.next().is_some_and(|next| same(next, c))
        })
    };
    for list in lists {
        let near: Vec<_> =
            list.iter().filter_map(|one| Some((*one, one.name.filter(|name| begins(name))?))).collect();
        match near[..] {
            [] => {}
            [(one, _)] => return Found::Switch(one),
            _ => return Found::Several(near.into_iter().map(|(_, name)| name).collect()),
        }
    }
    Found::None
}

/// An option as it was written, what it is, and the value that stands in the same word.
struct Meaning<'a> {
    written: String,
    found: Found,
    value: Option<&'a str>,
    /// Whether it has a value with a `=`, which an option without one does not take.
    equals: bool,
}

/// As OptionParser resolves the options of one word (optparse.rb, `parse_in_order`): a word or what completes to one, letters
/// in a row, and a letter that is none for the beginning of a word.
fn meanings<'a>(lists: &Lists, word: &'a str) -> Vec<Meaning<'a>> {
    if let Some(rest) = word.strip_prefix("--") {
        let (written, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        let name = written.replace('_', "-");
        let exact = lists.iter().flatten().find(|one| one.name == Some(&name));
        let found = exact.map_or_else(|| complete(lists, &name, true), |one| Found::Switch(one));
        return vec![Meaning { written: format!("--{written}"), found, value, equals: value.is_some() }];
    }
    let mut all = vec![];
    // A dash among the letters is passed over.
    let mut rest = word.trim_start_matches('-');
    while let Some(letter) = rest.chars().next() {
        let tail = &rest[letter.len_utf8()..];
        let exact = lists.iter().flatten().find(|one| one.letter == Some(letter));
        let found = exact.map_or_else(
            || complete(lists, letter.encode_utf8(&mut [0; 4]), false),
            |one| Found::Switch(one),
        );
        let goes_on = matches!(&found, Found::Switch(one) if !one.takes_value) && !tail.starts_with('=');
        let value = (!goes_on && !tail.is_empty()).then_some(tail);
        all.push(Meaning { written: format!("-{letter}"), found, value, equals: tail.starts_with('=') });
        if !goes_on {
            break;
        }
        rest = tail.trim_start_matches('-');
    }
    all
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// The option that a value looks like.
fn taken(lists: &Lists, value: &str) -> Option<String> {
    if value == "--" {
        return Some(value.to_owned());
    }
    let first = is_option(value).then(|| meanings(lists, value)).and_then(|all| all.into_iter().next())?;
    matches!(first.found, Found::Switch(_)).then_some(first.written)
}

/// The option that was most likely meant.
fn meant(lists: &Lists, written: &str) -> Option<String> {
    let all = || lists.iter().flatten();
    let Some(name) = written.strip_prefix("--") else {
        let other = |c: char| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        let letter = other(written.chars().nth(1)?);
        return all().any(|one| one.letter == Some(letter)).then(|| format!("-{letter}"));
    };
    // Names are compared with `_`.
    let names: Vec<String> = all().filter_map(|one| Some(one.name?.replace('-', "_"))).collect();
    nearest(name, &names).map(|name| format!("--{}", name.replace('_', "-")))
}

/// What the rest of the service says about what options could say.
pub(super) struct After<'a> {
    /// The words that are added to those of the command.
    pub(super) added: &'a [String],
    /// The last one of them.
    pub(super) app: &'a str,
    /// The variable that `-E` sets, and what the pillar sets it to.
    pub(super) variable: &'static str,
    pub(super) set: Option<&'a str>,
}

/// `program`: which of the two, by its name.
pub(super) fn check(
    program: &str,
    words: &[Word<'_>],
    place: &str,
    after: &After<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let lists = lists(program);
    let mut say = |message: String, span: Span, help: String| {
        found.push(finding(&rule::COMMAND_OPTION, message).at(span, help));
    };
    let mut rest = words.iter();
    // Nobody knows whether an option that is none, or several, was to have a value.
    let mut may_be_value = false;
    while let Some(&(word, span)) = rest.next() {
        if word == "--" {
            let message =
                format!("`--` {place}: what follows, `-c` and `app` included, is no option any more");
            say(message, span, "leave it out".to_owned());
            return;
        }
        if !is_option(word) {
            if !std::mem::take(&mut may_be_value) && word != after.app {
                let shown = if secret::assigns(word) { "a word".to_owned() } else { format!("`{word}`") };
                let message = format!("{shown} {place}: unicorn loads it instead of `app`");
                say(message, span, "leave it out, and write `app`".to_owned());
            }
            continue;
        }
        may_be_value = false;
        for Meaning { written, found, value, equals } in meanings(&lists, word) {
            let switch = match found {
                Found::Switch(switch) => switch,
                Found::Several(near) => {
                    may_be_value = true;
                    let near = near.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ");
                    let message = format!("`{written}` {place} could be {near}: unicorn ends");
                    say(message, span, "write it out".to_owned());
                    continue;
                }
                Found::None => {
                    may_be_value = true;
                    let message = format!(
                        "`{written}` {place}: {program} {} has no such option, and ends",
                        UNICORN.version
                    );
                    let help = meant(&lists, &written)
                        .map_or_else(|| "leave it out".to_owned(), |near| format!("did you mean `{near}`?"));
                    say(message, span, help);
                    continue;
                }
            };
            if equals && !switch.takes_value {
                let message = format!("`{written}` {place} takes no value, and unicorn ends");
                say(message, span, format!("write `{written}`"));
                continue;
            }
            // What follows is its value, whatever it looks like.
            let value =
                if switch.takes_value { value.or_else(|| rest.next().map(|(next, _)| *next)) } else { None };
            let taken = value.and_then(|value| taken(&lists, value));
            match (value, &taken) {
                (_, Some(next)) => {
                    let message = format!("`{written}` {place} takes `{next}` for its value");
                    say(message, span, "write its value".to_owned());
                }
                (None, _) if switch.takes_value => {
                    let next = after.added.first().map_or("-c", String::as_str);
                    let message = format!(
                        "`{written}` {place} has no value, and takes the `{next}` that follows for it: unicorn ends"
                    );
                    say(message, span, "write its value".to_owned());
                }
                _ => {}
            }
            match switch.means {
                Nothing => {}
                Ends => {
                    let message = format!("`{written}` {place}: unicorn prints something and ends");
                    say(message, span, "leave it out".to_owned());
                }
                Overrules(instead) => {
                    let message = format!("`{written}` {place} overrules what the pillar says");
                    say(message, span, instead.to_owned());
                }
                Environment => {
                    let variable = after.variable;
                    let message = match after.added {
                        [sign, set, ..] if sign == "-E" => (value != Some(set)).then(|| {
                            format!("`{written}` {place} has no effect, because `-E {set}` follows")
                        }),
                        _ => (value != after.set)
                            .then(|| format!("`{written}` {place} overrules `environment.{variable}`")),
                    };
                    if let Some(message) = message.filter(|_| value.is_some() && taken.is_none()) {
                        say(
                            message,
                            span,
                            format!("leave it out, and write `{variable}` below `environment`"),
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(program: &str, word: &str) -> Vec<String> {
        let lists = lists(program);
        let all = meanings(&lists, word).into_iter().map(|one| {
            let found = match one.found {
                Found::Switch(switch) => switch.name.unwrap_or("-P").to_owned(),
                Found::Several(near) => near.join("|"),
                Found::None => "?".to_owned(),
            };
            one.value.map_or(found.clone(), |value| format!("{found}={value}"))
        });
        all.collect()
    }

    /// As OptionParser of Ruby 3.1 resolves them with the switches of unicorn 6.0.
    #[test]
    fn words_are_those_of_optparse() {
        for (word, found) in [
            ("-ND", &["no-default-middleware", "daemonize"][..]),
            ("-N-D", &["no-default-middleware", "daemonize"]),
            ("-D-", &["daemonize"]),
            ("-dlx", &["debug", "listen=x"]),
            ("-l=x", &["listen==x"]),
            ("-Np8000", &["no-default-middleware", "port=8000"]),
            ("-nD", &["no-default-middleware", "daemonize"]),
            ("-ix", &["include=x"]),
            ("-L", &["?"]),
            ("-1", &["?"]),
            ("--h", &["host"]),
            ("--he", &["help"]),
            ("--v", &["version"]),
            ("--p", &["port|pid"]),
            ("--d", &["debug|daemonize"]),
            ("--LIS=x", &["listen=x"]),
            ("--n-d", &["no-default-middleware"]),
            ("--no_default_mid", &["no-default-middleware"]),
            ("--no-defaults", &["?"]),
            ("--path", &["?"]),
        ] {
            assert_eq!(read("unicorn", word), found, "{word}");
        }
        for (word, found) in [
            ("-ND", "?=D"),
            ("-P", "-P"),
            ("--p", "port|path"),
            ("--pa", "path"),
            ("--pid", "?"),
            ("-s", "?"),
            ("-n", "?"),
        ] {
            assert_eq!(read("unicorn_rails", word), [found], "{word}");
        }
    }
}
