//! The installed server: what it is, and what it says of the rendered configuration.

use std::collections::BTreeSet;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::process::{End, Identity, QUESTION, Ran, Run};
use crate::facts::{Asked, Command, Reach, ServerAnswer, Verdict};
use crate::model::Service;
use crate::model::input::Server;

/// What an answer's line begins with. Whatever else a virtualenv prints is dropped.
const MARK: &str = "runsmith-answer: ";

/// gunicorn's words between its own complaints and the application's (gunicorn/app/base.py).
const NOT_LOADED: &str = "Error while loading the application:";

/// So many last lines of what a server says are kept, each of so many characters.
const LINES: usize = 4;
const LINE: usize = 200;

/// So many settings, of so many characters, a server can have.
const SETTINGS: usize = 1000;
const SETTING: usize = 100;

/// Asks the server what it is, and what it says of `configuration`.
pub(super) fn ask(
    service: &Service,
    configuration: Option<&[u8]>,
    identity: &Asked<Identity>,
    reach: &Asked<Reach>,
    command: &Asked<Command>,
) -> (Asked<ServerAnswer>, Asked<Verdict>) {
    let (Asked::Answer(identity), Asked::Answer(reach), Asked::Answer(command)) = (identity, reach, command)
    else {
        let answer = match identity {
            Asked::Unknown(reason) => Asked::Unknown(reason.clone()),
            Asked::Answer(_) | Asked::Moot => Asked::Moot,
        };
        return (answer, Asked::Moot);
    };
    let can_start = command.file.is_some()
        && command
            .interpreter
            .first()
            .is_none_or(|interpreter| !interpreter.starts_with('/') || reach.can_execute(interpreter));
    if !can_start || service.server == Server::Any {
        return (Asked::Moot, Asked::Moot);
    }
    let directory = if reach.can_enter(&service.current()) { service.current() } else { "/".to_owned() };
    let asker = Asker { service, identity, directory, interpreter: interpreter(service, command, reach) };
    let answer = match asker.question() {
        Ok(answer) => Asked::Answer(answer),
        Err(reason) => Asked::Unknown(reason),
    };
    let verdict = match (configuration, &answer) {
        // Without its release, or without the server itself, there is nothing to check.
        _ if !reach.can_enter(&service.current()) => Asked::Moot,
        (None, _) => Asked::Moot,
        (_, Asked::Answer(answer)) if answer.error.is_some() => Asked::Moot,
        (Some(configuration), _) => match asker.verdict(configuration) {
            Ok(verdict) => Asked::Answer(verdict),
            Err(reason) => Asked::Unknown(reason),
        },
    };
    (answer, verdict)
}

struct Asker<'a> {
    service: &'a Service,
    identity: &'a Identity,
    directory: String,
    /// The words that start Python or Ruby as the server gets it.
    interpreter: Vec<String>,
}

impl Asker<'_> {
    fn run(&self, words: &[String]) -> Run {
        Run::new(self.identity, &self.directory, &environment(self.service, &self.directory), words)
    }

    fn question(&self) -> Result<ServerAnswer, String> {
        let mut words = self.interpreter.clone();
        match self.service.server {
            Server::Unicorn => {
                words.extend(["-e", include_str!("unicorn-question.rb"), "--", MARK].map(str::to_owned))
            }
            Server::Gunicorn | Server::Any => {
                words.extend(["-c", include_str!("gunicorn-question.py"), MARK].map(str::to_owned));
                words.push(worker_class(self.service));
            }
        }
        let ran = self.run(&words).answer(QUESTION)?;
        answer(&ran.text()).ok_or_else(|| {
            let name = words.first().map(String::as_str).unwrap_or_default();
            format!("{} did not answer what server it has", crate::visible::visible(name))
        })
    }

    fn verdict(&self, configuration: &[u8]) -> Result<Verdict, String> {
        let name = self.service.config_name().unwrap_or("config");
        let scratch = Scratch::new(name, configuration)?;
        let (words, time) = match self.service.server {
            Server::Unicorn => {
                let words = [&self.interpreter[..], &["-c".to_owned(), scratch.file.clone()]].concat();
                (words, QUESTION)
            }
            Server::Gunicorn | Server::Any => {
                // As long as a new generation may take to load the application.
                let time = Duration::from_millis(self.service.handoff.boot_timeout.milliseconds)
                    .max(Duration::from_secs(1));
                (checking(&self.service.command, &scratch.file), time)
            }
        };
        let ran = self.run(&words).with_errors().run(time)?;
        Ok(verdict(&ran, time, self.service))
    }
}

/// `… -c CONFIG -- APP` with another configuration file, and the option that makes gunicorn end.
fn checking(command: &[String], file: &str) -> Vec<String> {
    let (words, rest) = command.split_at(command.len().saturating_sub(4));
    let mut words = words.to_vec();
    words.extend(["--check-config".to_owned(), "-c".to_owned(), file.to_owned()]);
    words.extend(rest.iter().skip(2).cloned());
    words
}

fn verdict(ran: &Ran, time: Duration, service: &Service) -> Verdict {
    let text = ran.text();
    match ran.end {
        End::Code(0) => Verdict::Accepted,
        End::Late => Verdict::Late(time.as_secs()),
        End::Code(_) | End::Signal(_) => match text.split_once(NOT_LOADED) {
            Some((_, rest)) => Verdict::NotLoaded(last_lines(rest, service)),
            None => Verdict::Refused(last_lines(&text, service)),
        },
    }
}

/// The last lines of what a server said, as they can be shown: a line that may hold a secret is left out.
fn last_lines(text: &str, service: &Service) -> Vec<String> {
    // A value may be printed line by line.
    let parts = |value: &'_ String| value.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let secrets: Vec<String> =
        service.secret_values.values().flat_map(parts).filter(|part| !part.is_empty()).collect();
    let is_secret = |line: &str| {
        crate::model::secret::assigns(line)
            || (line.contains("://") && line.contains('@'))
            || secrets.iter().any(|part| line.contains(part))
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| {
            if is_secret(line) {
                return "(a line that may hold a secret is left out)".to_owned();
            }
            let short: String = line.chars().take(LINE).collect();
            crate::visible::visible(&short).into_owned()
        })
        .collect()
}

/// An answer as the questions print it; a server may print other things, and lies.
#[derive(Deserialize)]
struct Printed {
    version: String,
    settings: Vec<String>,
    worker_class: Option<String>,
    error: Option<String>,
}

fn answer(text: &str) -> Option<ServerAnswer> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix(MARK))?;
    let printed: Printed = serde_json::from_str(line).ok()?;
    let short = |text: String| -> String {
        let first = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        crate::visible::visible(&first.chars().take(LINE).collect::<String>()).into_owned()
    };
    let settings: BTreeSet<String> =
        printed.settings.into_iter().filter(|name| name.len() <= SETTING).take(SETTINGS).collect();
    Some(ServerAnswer {
        version: short(printed.version),
        settings,
        worker_class: printed.worker_class.map(short),
        error: printed.error.map(short),
    })
}

/// The class of gunicorn's workers as it will load it.
fn worker_class(service: &Service) -> String {
    let class = service.settings.get("worker_class").and_then(serde_json::Value::as_str);
    class.unwrap_or("sync").to_owned()
}

/// What starts the interpreter that the server gets: the words before the server's own, or the ones
/// behind the `#!` of the command.
fn interpreter(service: &Service, command: &Command, reach: &Reach) -> Vec<String> {
    let (language, is_server): (&str, fn(&str) -> bool) = match service.server {
        Server::Unicorn => ("ruby", |name| matches!(name, "unicorn" | "unicorn_rails")),
        Server::Gunicorn | Server::Any => ("python", |name| name == "gunicorn"),
    };
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    // What is rendered behind the command names the configuration, never the server.
    let own = &service.command[..service.command.len().saturating_sub(4)];
    let at = own.iter().rposition(|word| is_server(&base(word))).unwrap_or(0);
    let before = &own[..at.min(own.len())];
    if let Some(first) = before.first() {
        if base(first).starts_with(language) {
            return vec![first.clone()];
        }
        let mut words = before.to_vec();
        words.push(language.to_owned());
        return words;
    }
    if let [program, rest @ ..] = command.interpreter.as_slice() {
        if base(program).starts_with(language) {
            return vec![program.clone()];
        }
        if base(program) == "env"
            && let [name] = rest
            && name.starts_with(language)
            && !name.contains([' ', '\t'])
        {
            return vec![name.clone()];
        }
    }
    let python = service.virtualenv.as_ref().map(|virtualenv| format!("{virtualenv}/bin/python"));
    match python.filter(|python| language == "python" && reach.can_execute(python)) {
        Some(python) => vec![python],
        None => vec![language.to_owned()],
    }
}

/// The variables that the service has, without its secrets: they are not needed to see whether a
/// configuration is right, and what is not there cannot be printed.
fn environment(service: &Service, directory: &str) -> Vec<(String, String)> {
    let mut environment = vec![
        ("HOME".to_owned(), service.home.clone()),
        ("USER".to_owned(), service.user.clone()),
        ("LOGNAME".to_owned(), service.user.clone()),
        ("PWD".to_owned(), directory.to_owned()),
        ("PATH".to_owned(), service.search_path()),
        // A check leaves nothing behind in a release.
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ];
    environment.extend(service.virtualenv.iter().map(|path| ("VIRTUAL_ENV".to_owned(), path.clone())));
    // The server finds its command and what that needs in the virtualenv first, whatever PATH the application sees.
    let others = service.environment.iter().filter(|(name, _)| *name != "PATH");
    environment.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    environment
}

static SCRATCHES: AtomicU32 = AtomicU32::new(0);

/// A directory of ours that others can read, with one file; gone when it is dropped.
struct Scratch {
    directory: String,
    file: String,
}

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Result<Self, String> {
        let mut failure = String::new();
        // Whoever has put something in the way of a name is not followed: `mkdir` makes, or fails.
        for _ in 0..100 {
            let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
            let directory = format!("/tmp/runsmith-host-{}-{number}", std::process::id());
            if let Err(error) = std::fs::DirBuilder::new().mode(0o755).create(&directory) {
                failure = error.to_string();
                continue;
            }
            let scratch = Self { file: format!("{directory}/{name}"), directory };
            return match scratch.write(content) {
                Ok(()) => Ok(scratch),
                Err(error) => Err(format!("{} cannot be written: {error}", scratch.file)),
            };
        }
        Err(format!("no directory can be made in /tmp: {failure}"))
    }

    fn write(&self, content: &[u8]) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o644).open(&self.file)?;
        // Whatever the umask is, the application's user has to read them.
        let mode = |mode| rustix::fs::Mode::from_raw_mode(mode);
        rustix::fs::fchmod(&file, mode(0o644))?;
        rustix::fs::chmod(&self.directory, mode(0o755))?;
        file.write_all(content)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_answer_is_short_and_visible_or_none() {
        for text in ["", "runsmith-answer: ", "runsmith-answer: [1]", "runsmith-answer: {\"version\": 3}"] {
            assert_eq!(answer(text), None, "{text}");
        }
        let long = "x".repeat(10_000);
        let text = format!(
            "noise\n{MARK}{{\"version\": \"1\\u001b[31m{long}\", \"settings\": [\"{long}\", \"bind\"], \
             \"worker_class\": null, \"error\": \"\\n\"}}\n"
        );
        let answer = answer(&text).unwrap();
        assert!(answer.version.starts_with("1\\u{1b}[31mxx") && answer.version.len() < 300);
        assert_eq!(answer.settings, BTreeSet::from(["bind".to_owned()]));
    }

    #[test]
    fn gunicorn_is_asked_to_check_and_to_end() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            checking(&words("gunicorn -w 3 -c /etc/x.py -- wsgi:app"), "/tmp/y.py"),
            words("gunicorn -w 3 --check-config -c /tmp/y.py -- wsgi:app")
        );
    }
}
