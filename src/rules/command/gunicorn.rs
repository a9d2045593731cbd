//! Options of gunicorn's command line that a service cannot have.

use super::Line;
use super::argparse::{Given, Part};
use crate::diagnostic::Diagnostic;
use crate::model::nearest;
use crate::model::settings::{GUNICORN, Pillar};
use crate::rule;
use crate::rules::finding;
use crate::source::Span;

/// What to do instead of an option whose setting the pillar owns or refuses, by the setting; a test holds them against the
/// table.
const INSTEAD: &[(&str, &str)] = &[
    ("config", "leave it out: the configuration file is rendered"),
    ("bind", "write `bind`"),
    ("check_config", "leave it out: the server would end at once"),
    ("print_config", "leave it out: the server would end at once"),
    ("chdir", "leave it out: the server starts in ROOT/current"),
    ("daemon", "leave it out: runit supervises the server, which must stay in the foreground"),
    ("raw_env", "write `environment`"),
    ("pidfile", "leave it out, or write `layout.pids`"),
    ("user", "write `user`"),
    ("group", "write `group`"),
    ("umask", "write `umask`"),
    ("initgroups", "leave it out, or write `groups`"),
];

/// What there is to say of a line of gunicorn's options.
pub(super) fn check(line: &Line, found: &mut Vec<Diagnostic>) {
    let place = line.place;
    let mut say = |message: String, span: Span, help: String| {
        found.push(finding(&rule::COMMAND_OPTION, message).at(span, help));
    };
    if line.is_open {
        let message = format!("a quote or a backslash {place} with nothing that closes it: gunicorn ends");
        say(message, line.span, "close it".to_owned());
    }
    for part in &line.parts {
        match part {
            Part::Unknown(name, span) => {
                let names: Vec<String> =
                    GUNICORN.settings.iter().flat_map(|setting| setting.cli.iter().cloned()).collect();
                let meant = nearest(name, &names).map(|near| format!("did you mean `{near}`?"));
                let message =
                    format!("`{name}` {place}: gunicorn {} has no such option, and ends", GUNICORN.version);
                say(message, *span, meant.unwrap_or_else(|| "leave it out".to_owned()));
            }
            Part::Ambiguous(name, near, span) => {
                let message = format!("`{name}` {place} could be {}: gunicorn ends", near.join(", "));
                say(message, *span, "write it out".to_owned());
            }
            Part::Ends(name, span) => {
                let message = format!("`{name}` {place}: gunicorn prints something and ends");
                say(message, *span, "leave it out".to_owned());
            }
            Part::Application(word, span) => {
                // In GUNICORN_CMD_ARGS nobody looks at it.
                if line.has_application {
                    let message = format!(
                        "`{word}` {place}: gunicorn ends, because it gets the application a second time"
                    );
                    say(message, *span, "leave it out, and write `app`".to_owned());
                }
            }
            Part::EndOfOptions(span) => {
                if line.has_application {
                    let message =
                        format!("`--` {place}: what follows, `-c` and `app` included, is no option any more");
                    say(message, *span, "leave it out".to_owned());
                }
            }
            Part::Setting(given) => option(given, line, &mut say),
        }
    }
}

fn option(given: &Given, line: &Line, say: &mut impl FnMut(String, Span, String)) {
    let place = line.place;
    let Given { setting, written, word, span, text } = given;
    let (needs_value, takes_value) = given.takes_value();
    if !takes_value && text.is_some() {
        let message = format!("`{word}` {place}: `{written}` takes no value, and gunicorn ends");
        say(message, *span, format!("write `{written}`"));
    }
    if needs_value && text.is_none() {
        let message = format!("`{written}` {place} has no value, and gunicorn ends");
        say(message, *span, "write its value".to_owned());
    }
    if setting.pillar == Pillar::Allowed {
        return;
    }
    let instead = INSTEAD.iter().find(|(name, _)| *name == setting.name);
    let instead = instead.map_or("leave it out", |(_, instead)| instead).to_owned();
    if setting.name == "config" && !line.has_application {
        // The command names one after the variable was read.
        return;
    }
    let message = format!("`{written}` {place} overrules what the pillar says");
    say(message, *span, instead);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option of gunicorn whose setting a pillar may not set is known here, and no other.
    #[test]
    fn the_options_are_those_of_the_table() {
        let refused =
            GUNICORN.settings.iter().filter(|one| one.pillar != Pillar::Allowed && !one.cli.is_empty());
        let wanted: Vec<&str> = refused.map(|setting| setting.name.as_str()).collect();
        let known: Vec<&str> = INSTEAD.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, wanted);
    }
}
