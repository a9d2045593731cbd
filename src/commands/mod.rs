//! The story of each command, and what they share: where output goes and how it ends.

#![allow(clippy::disallowed_methods, reason = "commands are where arguments, environment and files are read")]

mod beneath;
mod bounds;
mod diff;
mod file;
mod fix;
mod git;
mod inputs;
mod judge;
mod log_service;
mod newer;
mod output;
mod pages;
mod progress;
mod read;
mod remove;
mod render;
mod rule;
mod run;
mod schema;
mod status;
mod target;
mod unsupervised;
mod upgrade;
mod validate;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Parser;

use crate::cli::{self, Cli, Command, FindingFormat, TableFormat, TreeFormat, When};
use crate::diagnostic::{Diagnostic, Severity};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::host::{environments, process};
use crate::report::words::hanging;
use crate::report::{self, counted};
use crate::runtime::linux::{keeper, kernel, launch, listen_as, shared};
use crate::runtime::shell::Mode;
use crate::source::{Sources, Span};
use crate::visible::job_log::{Spelling, inert};
use crate::visible::{visible, without_numbers};
use output::Output;

/// Standard output carries the result, standard error the talk.
pub(crate) struct Terminal {
    out: Output,
    err: io::Stderr,
    colour: When,
}

/// How a command ends before its time.
pub(crate) enum Stop {
    /// The user's text is wrong.
    Findings(Vec<Diagnostic>, Sources, Vec<Span>),
    /// The world refused.
    Failure(Failure),
    /// Who reads our output has gone, and the command would have ended like that.
    Gone(Exit),
    /// Output could not be written.
    Output(io::Error),
}

impl Stop {
    /// The command would have ended like that: who has closed the pipe still asks how it went.
    fn ending(self, exit: Exit) -> Self {
        if matches!(self, Self::Gone(_)) { Self::Gone(exit) } else { self }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Gone(Exit::Clean),
            _ => Self::Output(error),
        }
    }
}

type Outcome = Result<Exit, Stop>;

/// Runs the command that the arguments ask for.
pub fn main() -> Exit {
    // Before any thread or child: what runs as another user is started below.
    if rustix::process::geteuid().is_root() {
        kernel::leave_session_keyring();
    }
    if let Some(exit) = without_options(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        return exit;
    }
    let cli = Cli::try_parse();
    let mut terminal = Terminal {
        out: Output::new(),
        err: io::stderr(),
        colour: cli.as_ref().map_or(When::Auto, |cli| cli.color),
    };
    let is_narrow = matches!(&cli, Ok(Cli { command: Command::Status(_) | Command::Upgrade(_), .. }));
    let outcome = match cli {
        Err(usage) if usage.use_stderr() => {
            terminal.usage(&usage.render());
            return Exit::Trouble;
        }
        // `--help` and `--version` come as errors too, for standard output.
        Err(help) => help.print().map(|()| Exit::Clean).map_err(Stop::from),
        Ok(cli) => run(cli.command, &mut terminal),
    };
    end(outcome, terminal, is_narrow)
}

/// What runs for months, or many times a deploy, and takes no options: it starts without reading any.
fn without_options(words: &[OsString]) -> Option<Exit> {
    let (first, rest) = words.split_first()?;
    match (first.to_str()?, rest) {
        // As runsv and `#!` have it.
        ("run", [file]) if !file.as_encoded_bytes().starts_with(b"-") => {
            Some(run::execute(Path::new(file), Mode::Run))
        }
        (run::READ, [file]) => Some(run::print(Path::new(file), false)),
        (run::READ, [file, word]) if word == run::SNAPSHOT => Some(run::print(Path::new(file), true)),
        // These are told everything else by their standard input.
        (keeper::COMMAND, _) => Some(Exit::of(keeper::main())),
        (launch::COMMAND, []) => Some(Exit::of(launch::main())),
        (listen_as::COMMAND, []) => Some(Exit::of(listen_as::main())),
        (shared::COMMAND, []) => Some(Exit::of(shared::main())),
        (environments::COMMAND, []) => Some(Exit::of(environments::main())),
        (process::COMMAND, []) => Some(Exit::of(process::main())),
        _ => None,
    }
}

/// Whether a command only reads what others have written: whoever opens a pull request decides what that is. What asks the host's
/// servers, or changes the host, is for root's own pillars, and is not ended in the middle.
fn only_reads(command: &Command) -> bool {
    match command {
        Command::Validate(arguments) => !arguments.host,
        Command::Render(arguments) => arguments.out.is_none(),
        Command::Read(_) => true,
        _ => false,
    }
}

fn run(command: Command, terminal: &mut Terminal) -> Outcome {
    if only_reads(&command) {
        bounds::set()?;
    }
    terminal.out.spell(spelling(&command));
    match command {
        Command::Render(arguments) => render::render(&arguments, terminal),
        Command::Validate(arguments) => validate::validate(&arguments, terminal),
        Command::Read(arguments) => read::read(&arguments, terminal),
        Command::Schema => schema::schema(terminal),
        Command::Rule(arguments) => rule::rule(&arguments, terminal),
        Command::Run(arguments) => run::run(&arguments, terminal),
        Command::Status(arguments) => status::status(&arguments, terminal),
        Command::Remove(arguments) => remove::remove(&arguments, terminal),
        Command::Upgrade(arguments) => upgrade::upgrade(&arguments, terminal),
        Command::Completions(arguments) => pages::completions(&arguments, terminal),
        Command::Man(arguments) => pages::man(&arguments, terminal),
    }
}

/// How a command's result is spelt: what a program reads keeps its value, and files that are printed their bytes.
fn spelling(command: &Command) -> Spelling {
    let table = |format: TableFormat| match format {
        TableFormat::Text => Spelling::Text,
        TableFormat::Json => Spelling::Json,
    };
    match command {
        Command::Render(cli::Render { format, .. }) => match format {
            TreeFormat::Text | TreeFormat::Markdown => Spelling::Text,
            TreeFormat::Json => Spelling::Json,
            TreeFormat::Patch => Spelling::Exact,
        },
        // The patch is for programs.
        Command::Validate(cli::Validate { fix: true, diff: true, .. }) => Spelling::Exact,
        Command::Validate(cli::Validate { format, .. }) => match format {
            FindingFormat::Text => Spelling::Text,
            FindingFormat::Json | FindingFormat::Sarif | FindingFormat::Gitlab => Spelling::Json,
            FindingFormat::Junit => Spelling::Xml,
            FindingFormat::Github => Spelling::Commands,
        },
        Command::Read(_) => Spelling::Json,
        Command::Rule(arguments) => table(arguments.format),
        Command::Status(arguments) => table(arguments.format),
        Command::Remove(arguments) => table(arguments.format),
        Command::Upgrade(arguments) => table(arguments.format),
        Command::Run(_) => Spelling::Text,
        Command::Schema | Command::Completions(_) | Command::Man(_) => Spelling::Exact,
    }
}

/// What the command has to say at its end, and its exit code.
fn end(outcome: Outcome, mut terminal: Terminal, is_narrow: bool) -> Exit {
    let outcome = outcome.and_then(|exit| {
        terminal.out.flush().map_err(|error| Stop::from(error).ending(exit))?;
        Ok(exit)
    });
    match outcome {
        Ok(exit) => exit,
        Err(Stop::Findings(diagnostics, sources, secrets)) => {
            let _ = terminal.out.flush();
            terminal.findings(&diagnostics, &sources, &secrets);
            Exit::Findings
        }
        Err(Stop::Failure(failure)) => {
            let _ = terminal.out.flush();
            match is_narrow {
                true => terminal.step("error", &failure.to_string()),
                false => terminal.say("error", &failure.to_string()),
            }
            Exit::Trouble
        }
        // Who closed the pipe has seen enough, and knows it.
        Err(Stop::Gone(exit)) => exit,
        Err(Stop::Output(error)) => {
            terminal.say("error", &Failure::path("write to", "standard output", error).to_string());
            Exit::Trouble
        }
    }
}

impl Terminal {
    /// One line of talk: a word such as `error` or `note`, and a sentence.
    pub(crate) fn say(&mut self, word: &str, sentence: &str) {
        let style = match word {
            "error" => "\x1b[1;31m",
            "warning" => "\x1b[1;33m",
            _ => "\x1b[1;32m",
        };
        let sentence = without_numbers(sentence);
        let sentence: Vec<_> = sentence.lines().map(visible).collect();
        let sentence = sentence.join("\n");
        let text = if self.coloured(self.err.is_terminal()) {
            format!("{style}{word}\x1b[0m: {sentence}\n")
        } else {
            format!("{word}: {sentence}\n")
        };
        self.talk(&text);
    }

    /// A step of what goes on, in lines that fit the width.
    pub(crate) fn step(&mut self, word: &str, sentence: &str) {
        let indent = word.chars().count() + 2;
        let sentence = hanging(sentence, columns(), indent);
        self.say(word, &sentence);
    }

    /// Text for people on standard error.
    fn talk(&mut self, text: &str) {
        // There is nobody else to report a failure to.
        let _ = self.err.write_all(&inert(text.as_bytes(), Spelling::Text));
    }

    /// What is wrong with the command line, which has words of the caller in it.
    fn usage(&mut self, text: &clap::builder::StyledStr) {
        let coloured = self.coloured(self.err.is_terminal());
        let text = if coloured { text.ansi().to_string() } else { text.to_string() };
        self.talk(&harmless(&text, coloured));
    }

    /// Findings, as text on standard error.
    pub(crate) fn findings(&mut self, diagnostics: &[Diagnostic], sources: &Sources, secrets: &[Span]) {
        let look = report::text::Look {
            colour: self.coloured(self.err.is_terminal()),
            width: width(io::stderr()),
            secrets,
        };
        self.talk(&report::text::text(diagnostics, sources, look));
    }

    /// Whether the result is printed in colour.
    pub(crate) fn result_coloured(&self) -> bool {
        self.coloured(io::stdout().is_terminal())
    }

    fn coloured(&self, terminal: bool) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self.colour {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Lines with everything spelt out that a terminal would obey, but for colours, if they are to be there: those of clap are the
/// same as those that a caller may write.
fn harmless(text: &str, coloured: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let mut pieces = line.split('\u{1b}');
        out.push_str(&visible(pieces.next().unwrap_or_default()));
        for piece in pieces {
            let code = piece.strip_prefix('[').and_then(|rest| rest.split_once('m')).filter(|(code, _)| {
                coloured && code.bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
            });
            match code {
                Some((code, rest)) => {
                    out.push_str(&format!("\u{1b}[{code}m{}", visible(rest)));
                }
                None => out.push_str(&visible(&format!("\u{1b}{piece}"))),
            }
        }
        out.push_str(end);
    }
    out
}

/// The least that rows fit into: no terminal is narrower.
const COLUMNS: usize = 80;

/// Fewer columns than this leave no room for what a row says.
const LEAST_COLUMNS: usize = 40;

/// The columns that the rows of `status` and `upgrade` may take: COLUMNS, else those of most terminals.
fn columns() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(COLUMNS).max(LEAST_COLUMNS)
}

/// Columns of the terminal; 140 where there is none.
fn width(stream: impl std::os::fd::AsFd) -> usize {
    let size = rustix::termios::tcgetwinsize(stream);
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns >= 20).unwrap_or(140)
}

/// Whether any of them keeps the pillar from being used.
pub(crate) fn any_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// Why there is nothing to do.
fn nothing(key: Option<&str>) -> String {
    key.map_or_else(
        || "there is no application: every input is empty".to_owned(),
        |key| format!("no document has the key {key}; keys are separated by \":\", as in Salt"),
    )
}

/// As many as the machine runs at once; the result does not depend on it.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_caller_in_a_usage_error_are_obeyed_by_no_terminal() {
        let text = "\u{1b}[1merror:\u{1b}[0m no '\u{1b}]0;x\u{7}\u{9b}2J\u{202e}'\n\n  try\u{1b}[2J\n";
        let shown = "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}'\n\n  try\\u{1b}[2J\n";
        assert_eq!(harmless(text, true), format!("\u{1b}[1merror:\u{1b}[0m no '{shown}"));
        assert_eq!(harmless(text, false), format!("\\u{{1b}}[1merror:\\u{{1b}}[0m no '{shown}"));
    }
}
