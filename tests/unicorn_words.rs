//! What `validate` says of the words of unicorn's command, held against what the real unicorn does with them.

#![allow(clippy::disallowed_methods, reason = "a test may look and tell")]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use support::host::{commands, free_port, kill, require};
use support::{SOON, START};

/// What became of a unicorn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It serves where its configuration says, in the foreground: as the service believes.
    Serves,
    /// It listens elsewhere, too.
    Elsewhere,
    /// The process that was started ends, and another one serves.
    Daemon,
    Ends,
}

use Fate::{Daemon, Elsewhere, Ends, Serves};

/// The words of a command, and what the unicorn with them does; PORT is a free one.
const CASES: &[(&str, Fate)] = &[
    ("unicorn", Serves),
    ("unicorn -N -d -w", Serves),
    ("unicorn -Nw -i. -rjson -e 1", Serves),
    ("unicorn -n", Serves),
    ("unicorn --no_default_mid --REQ json", Serves),
    ("unicorn -s thin -E production", Serves),
    ("unicorn config.ru", Serves),
    ("unicorn -ND", Daemon),
    ("unicorn -dD", Daemon),
    ("unicorn -wD", Daemon),
    ("unicorn -N-D", Daemon),
    ("unicorn -nD", Daemon),
    ("unicorn --Daem", Daemon),
    ("unicorn -dl 127.0.0.1:PORT", Elsewhere),
    ("unicorn -Nl127.0.0.1:PORT", Elsewhere),
    ("unicorn --li=127.0.0.1:PORT", Elsewhere),
    ("unicorn -o127.0.0.1 -NpPORT", Elsewhere),
    ("unicorn --h 127.0.0.1 --po PORT", Elsewhere),
    ("unicorn --p PORT", Ends),
    ("unicorn --d", Ends),
    ("unicorn --e 1", Ends),
    ("unicorn -h", Ends),
    ("unicorn -Nv", Ends),
    ("unicorn --he", Ends),
    ("unicorn --v", Ends),
    ("unicorn -R", Ends),
    ("unicorn -1", Ends),
    ("unicorn --deamonize", Ends),
    ("unicorn --path /shop", Ends),
    ("unicorn --daemonize=yes", Ends),
    ("unicorn -D=yes", Ends),
    ("unicorn -n=yes", Ends),
    ("unicorn -E", Ends),
    ("unicorn -NI", Ends),
    ("unicorn -s", Ends),
    ("unicorn --", Ends),
    ("unicorn other.ru", Ends),
    ("unicorn -", Ends),
    ("unicorn_rails", Serves),
    ("unicorn_rails -P /shop --pa /shop", Serves),
    ("unicorn_rails -dD", Daemon),
    ("unicorn_rails -N", Ends),
    ("unicorn_rails -n", Ends),
    ("unicorn_rails -s thin", Ends),
    ("unicorn_rails --pid x", Ends),
];

/// As many as are started at once.
const AT_ONCE: usize = 3;

#[test]
fn validate_knows_what_unicorn_does_with_its_words() {
    for program in ["/usr/bin/unicorn", "/usr/bin/unicorn_rails"] {
        require("unicorn", Path::new(program));
    }
    let (cases, wrong) = (Mutex::new(CASES.iter()), Mutex::new(vec![]));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((line, expected)) = { cases.lock().unwrap().next() } {
                    let line = line.replace("PORT", &free_port().to_string());
                    let words: Vec<&str> = line.split(' ').collect();
                    let (fate, said) = fate(&words);
                    let findings = findings(&words);
                    let is_found = findings.contains("\"command-option\"");
                    if fate != *expected || is_found == (fate == Serves) {
                        let case = format!("{line}: {fate:?}, not {expected:?}\n{said}\n{findings}");
                        wrong.lock().unwrap().push(case);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What `validate` says of a service with such a command.
fn findings(words: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let pillar = scratch.path().join("pillar.json");
    let value = serde_json::json!({"application": "web", "user": "deploy", "unicorn_command": words});
    fs::write(&pillar, value.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runsmith"))
        .args(["validate", "--format", "json"])
        .arg(pillar)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Something that a unicorn did.
enum Event {
    /// A worker serves: who its master is, and where it listens.
    Ready(u32, String),
    /// The process that was started has ended.
    Ended,
}

/// Starts a unicorn, with what a service adds to the words, and ends it. What it wrote comes with its fate.
fn fate(words: &[&str]) -> (Fate, String) {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().to_str().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let configuration = format!("{directory}/unicorn.rb");
    fs::write(scratch.path().join("config.ru"), "run lambda { |env| [200, {}, []] }\n").unwrap();
    let text = format!(
        "require 'socket'
working_directory '{directory}'
listen '{address}'
preload_app true
after_worker_ready do |server, worker|
  ready = Socket.new(:UNIX, :DGRAM)
  ready.connect(Socket.sockaddr_un('{directory}/ready'))
  ready.send(\"#{{Process.ppid}} #{{Unicorn.listener_names.join(' ')}}\", 0)
end
"
    );
    fs::write(&configuration, text).unwrap();
    let ready = UnixDatagram::bind(scratch.path().join("ready")).unwrap();
    let output = scratch.path().join("output");
    let file = fs::File::create(&output).unwrap();
    let child = Command::new(format!("/usr/bin/{}", words[0]))
        .args(&words[1..])
        .args(["-E", "production", "-c", &configuration, "--", "config.ru"])
        .current_dir(directory)
        .env_remove("RACK_ENV")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let all = All(directory);
    let pid = child.id();
    let (events, happened) = channel();
    let waiter = thread::spawn({
        let events = events.clone();
        move || wait(child, &events)
    });
    let listener = thread::spawn(move || listen(&ready, &events));
    let mut event = happened.recv_timeout(START).expect("a unicorn that serves or ends");
    // Who daemonises ends once its successor is there, which may still be about to serve.
    if matches!(event, Event::Ended) && !of(directory).is_empty() {
        event = happened.recv_timeout(START).expect("a unicorn that serves");
    }
    let fate = match event {
        Event::Ended => Ends,
        Event::Ready(master, _) if master != pid => Daemon,
        Event::Ready(_, names) if names != address => Elsewhere,
        Event::Ready(_, _) => Serves,
    };
    drop(all);
    // The listener waits for the word of a worker, of which there may have been none.
    UnixDatagram::unbound().unwrap().send_to(b"", scratch.path().join("ready")).unwrap();
    listener.join().unwrap();
    waiter.join().unwrap();
    (fate, fs::read_to_string(output).unwrap_or_default())
}

/// Everything whose configuration is in a directory, also what nobody waits for. Dropping it ends them.
struct All<'a>(&'a str);

impl Drop for All<'_> {
    fn drop(&mut self) {
        for pid in of(self.0) {
            end(pid);
        }
    }
}

fn wait(mut child: Child, events: &Sender<Event>) {
    child.wait().unwrap();
    let _ = events.send(Event::Ended);
}

/// Until an empty word.
fn listen(ready: &UnixDatagram, events: &Sender<Event>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = ready.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (master, names) = text.split_once(' ').expect("a PID and names");
        let _ = events.send(Event::Ready(master.parse().expect("a PID"), names.to_owned()));
    }
}

/// Masters and workers whose configuration is in a directory, masters first.
fn of(directory: &str) -> Vec<u32> {
    let mut all: Vec<(bool, u32)> = commands()
        .into_iter()
        .map(|(pid, words)| (pid, words.join(" ")))
        .filter(|(_, line)| line.contains(directory))
        .map(|(pid, line)| (line.contains(" worker["), pid))
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, pid)| pid).collect()
}

/// Ends a process, and returns once it has ended.
fn end(pid: u32) {
    let Some(id) = Pid::from_raw(pid.cast_signed()) else { return };
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return };
    for (signal, limit) in [(Signal::TERM, SOON), (Signal::KILL, SOON)] {
        kill(pid, signal);
        if ends_within(&process, limit) {
            return;
        }
    }
    panic!("process {pid} does not end");
}

fn ends_within(process: &rustix::fd::OwnedFd, limit: Duration) -> bool {
    let limit = limit.try_into().expect("a time");
    let wait = || poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit));
    rustix::io::retry_on_intr(wait).is_ok_and(|ended| ended > 0)
}
