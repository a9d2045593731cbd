//! `runsmith run`: executes a rendered native run script, or proves it.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Outcome, Stop, Terminal, any_error, file};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::host::{self, helper};
use crate::model::Service;
use crate::runtime::linux::log::Log;
use crate::runtime::linux::runsv;
use crate::runtime::linux::take;
use crate::runtime::shell::{self, Mode};
use crate::runtime::snapshot::{Made, Reading};
use crate::services;
use crate::source::{MAX_BYTES, Source, SourceId, Sources};

/// How many lines of findings go into the log when a run script cannot be read.
const FINDINGS: usize = 3;

pub(super) fn run(arguments: &cli::Run, terminal: &mut Terminal) -> Outcome {
    if arguments.check {
        return check(arguments, terminal);
    }
    let mode = if arguments.finish { Mode::Finish } else { Mode::Run };
    Ok(execute(&arguments.file, mode))
}

/// How long a run script and what belongs to it may take to be read. It takes milliseconds, unless a disk is very slow; but
/// a file system of the application's user's could make it wait for ever, and the runtime answers nobody meanwhile: whoever asks it
/// waits for 10 s ([`ANSWER`](crate::runtime::linux::asking::ANSWER)).
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The hidden command that reads a run script for the runtime.
pub(super) const READ: &str = "read-run-script";

/// Its further word: a snapshot is written to standard input, which is a file.
pub(super) const SNAPSHOT: &str = "snapshot";

/// Executes a run script until the run ends.
pub(super) fn execute(file: &Path, mode: Mode) -> Exit {
    let path = file.to_owned();
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let reader = move |snapshot: Option<&File>| read_apart(&path, snapshot);
    if let Err(reason) = shell::run(Box::new(reader), directory, mode) {
        // Where its other lines are: runsv sends standard output to the log, and standard error elsewhere.
        Log::open().say(&format!("this run cannot begin: {reason}"));
        return Exit::Trouble;
    }
    Exit::Clean
}

/// Reads a run script in a process of its own: the runtime lives for months, and need not keep the pages of a YAML
/// reader, of a schema and of everything that explains mistakes in memory for that. `snapshot`: the process writes there what
/// a generation would be made of now, so that the runtime never has the secrets.
fn read_apart(file: &Path, snapshot: Option<&File>) -> Result<Reading, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the run script cannot be read: {error}");
    if !helper::is_room(READ) {
        return Err("what is on disk cannot be read: earlier readers hang".to_owned());
    }
    let mut child = Command::new("/proc/self/exe")
        .arg(READ)
        .arg(file)
        .args(snapshot.map(|_| SNAPSHOT))
        .stdin(match snapshot {
            Some(file) => Stdio::from(file.try_clone().map_err(|error| failed(&error))?),
            None => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let until = Instant::now() + READ_LIMIT;
    let mut text = vec![];
    let read = child.stdout.take().map_or(Ok(()), |mut output| read_until(&mut output, until, &mut text));
    if let Err(error) = read {
        // What waits for a dead disk cannot be waited for; its end is noticed like that of any child.
        helper::end(READ, child);
        return Err(failed(&error));
    }
    let _ = child.wait();
    let read: Result<Reading, String> = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    read
}

/// Reads to the end, as long as there is time.
fn read_until(
    output: &mut std::process::ChildStdout,
    until: Instant,
    text: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&limit)) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) => {
                let seconds = READ_LIMIT.as_secs();
                return Err(std::io::Error::other(format!("it took more than {seconds} s")));
            }
            Ok(_) => {}
        }
        match output.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => return Ok(()),
            Ok(some) => text.extend_from_slice(buffer.get(..some).unwrap_or_default()),
        }
    }
}

/// What [`read_apart`] starts: the service and, with a snapshot, where it would run; or why it would not, as JSON.
pub(super) fn print(file: &Path, snapshot: bool) -> Exit {
    let reading = read(file).and_then(|service| {
        if !snapshot {
            return Ok(Reading { service, made: Made::default() });
        }
        let taken = take::take(service)?;
        let file = std::io::stdin().as_fd().try_clone_to_owned();
        take::write(&taken, &File::from(file.map_err(|error| error.to_string())?))?;
        Ok(Reading { service: taken.service, made: taken.made })
    });
    let written = serde_json::to_vec(&reading).is_ok_and(|text| std::io::stdout().write_all(&text).is_ok());
    if written { Exit::Clean } else { Exit::Trouble }
}

/// The service that a run script describes; the error is a line for the log.
pub(super) fn read(file: &Path) -> Result<Service, String> {
    let name = file.display();
    let bytes = super::file::read(file, MAX_BYTES as u64, "run script")
        .map_err(|error| format!("the run script {name} cannot be read: {error}"))?;
    let id = SourceId(0);
    let found = match Source::from_bytes(&*name.to_string(), bytes, id) {
        Ok(source) => match services::rendered(&source, id) {
            Ok(service) => return Ok(service),
            Err(found) => found,
        },
        Err(refused) => vec![refused.1],
    };
    let messages: Vec<_> = found.iter().take(FINDINGS).map(|finding| finding.message.as_str()).collect();
    Err(format!(
        "the run script {name} has mistakes: {}; `runsmith run --check {}` shows them",
        messages.join("; "),
        runsv::word(&name.to_string())
    ))
}

fn check(arguments: &cli::Run, terminal: &mut Terminal) -> Outcome {
    let name = arguments.file.to_string_lossy();
    let bytes = file::read(&arguments.file, MAX_BYTES as u64, "run script")
        .map_err(|error| Failure::path("read", name.as_ref(), error))?;
    let id = SourceId(0);
    let mut sources = Sources::new();
    let source = match Source::from_bytes(&*name, bytes, id) {
        Ok(source) => source,
        Err(refused) => {
            let (source, finding) = *refused;
            let secrets = services::secrets_in_text(source.text(), id);
            sources.add(source);
            return Err(Stop::Findings(vec![finding], sources, secrets));
        }
    };
    let result = services::rendered(&source, id);
    // Whoever edited it may have put one where only names belong.
    let secrets = services::secrets_in_text(source.text(), id);
    sources.add(source);
    match result {
        Ok(service) => {
            let application = &service.application;
            if let Some(reason) = missing(&service)? {
                terminal
                    .say("error", &format!("{name}: the service {application} cannot be executed: {reason}"));
                return Ok(Exit::Findings);
            }
            writeln!(terminal.out, "{name}: the service {application} can be executed")?;
            Ok(Exit::Clean)
        }
        Err(found) => {
            debug_assert!(any_error(&found));
            Err(Stop::Findings(found, sources, secrets))
        }
    }
}

/// The first user or group that this host does not know, in a sentence; none if it knows all.
fn missing(service: &Service) -> Result<Option<String>, Stop> {
    let groups = service.groups.iter().flatten().map(|name| ("group", name));
    for (kind, name) in [("user", &service.user), ("group", &service.group)].into_iter().chain(groups) {
        let database = if kind == "user" { "passwd" } else { kind };
        let number = host::number_of(database, name);
        if number.map_err(|error| Failure::path("look up", format!("{kind} {name}"), error))?.is_none() {
            return Ok(Some(format!("there is no such {kind} on this host: {name}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime answers others within the time that they wait, also if it reads what is on disk for one of them.
    #[test]
    fn a_reader_that_hangs_is_waited_for_less_long_than_a_runtime() {
        use crate::runtime::linux::asking::ANSWER;
        const { assert!(READ_LIMIT.as_millis() * 2 <= ANSWER.as_millis()) };
        let (reader, writer) = std::io::pipe().unwrap();
        let mut child = Command::new("cat").stdin(reader).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let read = read_until(&mut output, Instant::now(), &mut vec![]);
        assert_eq!(read.unwrap_err().to_string(), "it took more than 5 s");
        drop(writer);
        child.wait().unwrap();
    }
}
