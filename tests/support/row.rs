//! A service under load to which something is done, and what must be true afterwards.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::host::{User, kill};
use super::load::Load;
use super::service::{Release, Server, Service, Socket};
use super::{HANDOVER, SOON};

/// Between two looks at what no line of the log tells.
const LOOK: Duration = Duration::from_millis(50);

/// A service and its clients.
pub struct Row {
    pub service: Service,
    load: Option<Load>,
    release: u32,
    begun: Instant,
}

impl Row {
    /// Starts a service, and clients that ask all the time.
    pub fn begin(server: Server, socket: Socket, more: &str) -> Self {
        Self::of(Service::start_native(server, socket, more))
    }

    /// Clients for a service that serves already.
    pub fn of(service: Service) -> Self {
        let load = Load::start(&service.address, 4, 1);
        Self { service, load: Some(load), release: 1, begun: Instant::now() }
    }

    /// New clients for a row whose clients have ended.
    pub fn of_running(mut row: Self) -> Self {
        row.load = Some(Load::start(&row.service.address, 4, 1));
        row
    }

    /// A good release, and `runsmith upgrade` that must succeed. What it printed, both ways.
    pub fn upgrade(&mut self) -> String {
        self.release += 1;
        self.service.release(self.release, Release::Good);
        self.service.switch(self.release);
        self.upgrade_to_what_is_there()
    }

    /// `runsmith upgrade` that must succeed.
    pub fn upgrade_to_what_is_there(&mut self) -> String {
        let output = self.service.runsmith(&["upgrade"]);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), self.service.log.text(0));
        assert_eq!(self.service.version(), self.release.to_string());
        said(&output)
    }

    /// `runsmith upgrade` that must be backed out for this reason, while the same master serves on.
    pub fn upgrade_is_backed_out(&self, reason: &str) -> String {
        let master = self.service.master();
        let output = self.service.runsmith(&["upgrade"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}\n{}", self.service.log.text(0));
        let told = unfolded(&output.stdout);
        assert!(told.contains(reason) && told.contains("goes on serving"), "{reason:?} is not in {told}");
        assert_eq!(self.service.master(), master);
        assert!(!self.service.log.text(0).contains("panicked"), "{}", self.service.log.text(0));
        text
    }

    /// kill -9 of the runtime; returns once the next run has taken over. Where in the log it begins.
    pub fn kill_runtime(&self) -> usize {
        self.kill_runtime_and(|_| {})
    }

    /// The same with `meanwhile` between its last breath and the next run.
    pub fn kill_runtime_and(&self, meanwhile: impl FnOnce(&Service)) -> usize {
        use rustix::process::Signal;
        let mark = self.service.log.mark();
        let runtime = self.service.runtime();
        kill(runtime, Signal::STOP);
        meanwhile(&self.service);
        kill(runtime, Signal::KILL);
        self.service.log.wait(mark, &["goes on under this run", "ready:"], SOON);
        mark
    }

    /// kill -9 of keeper and runtime together, with `meanwhile` between them; returns once the next run serves with a
    /// generation of its own. Where in the log it begins.
    pub fn kill_both(&self, meanwhile: impl FnOnce(&Service)) -> usize {
        use rustix::process::Signal;
        let mark = self.service.log.mark();
        let runtime = self.service.runtime();
        kill(runtime, Signal::STOP);
        kill(self.service.keeper().expect("a keeper"), Signal::KILL);
        meanwhile(&self.service);
        kill(runtime, Signal::KILL);
        self.service.log.wait(mark, &["goes on under this run", "ready:"], HANDOVER);
        mark
    }

    /// Nothing was lost, one generation is left, the next upgrade succeeds, and `sv down` leaves nothing.
    pub fn end(mut self) {
        self.upgrade();
        self.service.assert_one_generation();
        self.nothing_was_lost();
        self.service.down();
    }

    /// Ends the clients: each has got each answer.
    pub fn nothing_was_lost(&mut self) {
        let Some(load) = self.load.take() else { return };
        let until = Instant::now() + SOON;
        while load.seen().answers.is_empty() && Instant::now() < until {
            self.service.log.next(LOOK);
        }
        let seen = load.finish();
        assert!(seen.failures.is_empty(), "{:#?}\n{}", seen.failures, self.service.log.text(0));
        assert!(!seen.answers.is_empty(), "no request was made");
        let test = std::thread::current();
        super::faults::measured(test.name().unwrap_or_default(), &seen, self.begun.elapsed());
    }
}

/// Both outputs of a program.
pub fn said(output: &Output) -> String {
    format!("{}{}", unfolded(&output.stderr), unfolded(&output.stdout))
}

/// Text with the lines joined that were folded to fit a width: whatever goes on in an indented line.
pub fn unfolded(text: &[u8]) -> String {
    let mut whole = String::new();
    for line in String::from_utf8_lossy(text).split_inclusive('\n') {
        let goes_on = line.starts_with("  ") && !line.trim_start().starts_with('|') && whole.ends_with('\n');
        if goes_on {
            whole.pop();
            whole.push(' ');
        }
        whole.push_str(if goes_on { line.trim_start() } else { line });
    }
    whole
}

/// A Python program that runs as a user, in a session of its own, and is killed when this is dropped.
pub struct Python(Child);

impl Python {
    /// Starts it.
    pub fn run(user: &User, script: &str, arguments: &[&str]) -> Self {
        let child = Self::command(user, script, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is missing; run scripts/setup");
        Self(child)
    }

    /// Runs it to its end.
    pub fn output(user: &User, script: &str, arguments: &[&str]) -> Output {
        Self::command(user, script, arguments).output().expect("python3 is missing; run scripts/setup")
    }

    fn command(user: &User, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user.name, "--regid", &user.name, "--init-groups"])
            .args(["--", "/usr/bin/python3", "-c", script])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has written so many bytes.
    pub fn wait_for_bytes(&mut self, count: usize) {
        use std::io::Read;
        let mut bytes = vec![0; count];
        self.0.stdout.as_mut().expect("a pipe").read_exact(&mut bytes).expect("it writes");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that a directory holds, by name.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
