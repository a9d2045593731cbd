//! The words of Ruby unicorn's command line, as OptionParser reads them.

use super::Word;
use crate::diagnostic::Diagnostic;
use crate::rule;
use crate::rules::finding;

/// An option of unicorn's command line: its names, and what to do instead.
type UnicornOption = (&'static [&'static str], &'static str);

/// As `unicorn --help` (6.0) has them.
const UNICORN_OPTIONS: &[UnicornOption] = &[
    (&["-o", "--host"], "write `bind`"),
    (&["-p", "--port"], "write `bind`"),
    (&["-l", "--listen"], "write `bind`"),
    (&["-D", "--daemonize"], "leave it out: runit supervises the server, which must stay in the foreground"),
    (&["-c", "--config-file"], "leave it out: the configuration file is rendered"),
];

pub(super) fn check(words: &[Word<'_>], place: &str, found: &mut Vec<Diagnostic>) {
    for (word, span) in words.iter().take_while(|(word, _)| *word != "--") {
        let written = word.split_once('=').map_or(*word, |(name, _)| name);
        let is_meant = |name: &str| {
            // A short option may have its value at once: `-o127.0.0.1`. A long one may be abbreviated (optparse).
            written == name
                || (name.len() == 2 && !word.starts_with("--") && word.starts_with(name))
                || (written.len() > 4 && name.starts_with(written))
        };
        let known = UNICORN_OPTIONS.iter().find(|option| option.0.iter().any(|name| is_meant(name)));
        if let Some((names, instead)) = known {
            let name = names.iter().find(|name| is_meant(name)).unwrap_or(&written);
            let name = if name.len() == 2 { name } else { written };
            let message = format!("`{name}` {place} overrules what the pillar says");
            found.push(finding(&rule::COMMAND_OPTION, message).at(*span, *instead));
        }
    }
}
