//! A row of the fault matrix (docs/faults.md): a service under load, something done to it, and every promise that applies.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::host::{Process, lives};
use super::load::{Load, Seen};
use super::service::{Server, Service, Socket};

/// Until everything has settled: boots, three-second requests, growing waits, on a busy machine.
const SETTLES: Duration = Duration::from_secs(180);

/// Between two looks at what no line of the log tells.
const LOOK: Duration = Duration::from_millis(50);

/// A service under load to which something is done.
pub struct Case {
    pub service: Service,
    pub load: Load,
    name: &'static str,
    inode: Option<u64>,
    begun: Instant,
}

/// How requests are served at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// None may fail.
    NoneLost,
    /// Those that a killed process had in hand are lost with it, and no others: so many at the most.
    LostWithTheKilled(usize),
    /// The server itself closes connections that it has accepted and not read a request from yet (docs/runtime.md), so many at the most.
    ClosedUnread(usize),
}

impl Case {
    /// Starts a service whose `more` are further lines of its pillar, and three clients, one of which keeps its connection.
    pub fn start(name: &'static str, server: Server, socket: Socket, more: &str) -> Self {
        Self::of(name, Service::start_native(server, socket, more))
    }

    /// The same with a service that runs already.
    pub fn of(name: &'static str, service: Service) -> Self {
        let load = Load::start(&service.address, 2, 1);
        let inode = service.inode();
        Self { service, load, name, inode, begun: Instant::now() }
    }

    /// Waits for something that no line of the log tells.
    pub fn until(&self, what: &str, is: impl FnMut(&Service) -> bool) {
        self.service.until(what, is);
    }

    /// Waits until one generation is left, served by a runtime.
    pub fn settles(&self) {
        self.service.until_settled();
    }

    /// It has settled: the release with this number serves, nothing else is left, and requests went as promised. Then it stops,
    /// and leaves nothing behind.
    pub fn ends(self, version: &str, requests: Requests) -> Seen {
        self.settles();
        let took = self.begun.elapsed();
        self.until("enough requests", |_| self.load.seen().answers.len() > 50);
        assert_eq!(self.service.version(), version, "{}\n{}", self.name, self.service.log.text(0));
        assert_eq!(self.service.inode(), self.inode, "{}: the socket's inode", self.name);
        let Self { service, load, name, .. } = self;
        let seen = load.finish();
        let failed = seen.failures.len();
        match requests {
            Requests::NoneLost => {
                assert!(failed == 0, "{name}: {:#?}\n{}", seen.failures, service.log.text(0))
            }
            Requests::ClosedUnread(most) => {
                let unread = seen.failures.iter().all(|failure| Seen::is_closed_unread(failure));
                assert!(unread && failed <= most, "{name}: {:#?}\n{}", seen.failures, service.log.text(0));
            }
            Requests::LostWithTheKilled(most) => {
                assert!(failed <= most, "{name}: {:#?}\n{}", seen.failures, service.log.text(0));
                // Whoever asks while nothing serves waits; nobody is refused.
                let refused =
                    seen.failures.iter().any(|one| one.contains("refused") || one.contains("No such file"));
                assert!(!refused, "{name}: {:#?}\n{}", seen.failures, service.log.text(0));
            }
        }
        service.down();
        let keeper = service.keeper();
        assert!(keeper.is_none_or(|pid| !lives(pid)), "{name}: the keeper is left");
        measured(name, &seen, took);
        seen
    }
}

impl Service {
    /// Waits for something that no line of the log tells.
    pub fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + SETTLES;
        while !is(self) {
            assert!(Instant::now() < until, "not within {SETTLES:?}: {what}\n{}", self.log.text(0));
            self.log.next(LOOK);
        }
    }

    /// sv tells the new run by its start in whole seconds (docs/operator.md), so `sv restart` asks a run of another second.
    pub fn until_a_second_old(&self) {
        super::runsv::until_a_second_old(&self.directory);
    }

    /// Waits until one generation is left, served by a runtime.
    pub fn until_settled(&self) {
        self.until("one generation is left", |service| {
            let processes = service.user.processes();
            let masters: Vec<&Process> = processes
                .iter()
                .filter(|one| !processes.iter().any(|other| other.pid == one.parent))
                .collect();
            processes.len() == service.processes && masters.len() == 1 && serves(service)
        });
    }
}

/// Whether the runtime says that a generation serves and nothing else is going on.
pub fn serves(service: &Service) -> bool {
    state(service)["state"] == "serving"
}

/// What `runsmith status` says, as JSON; null if there is no runtime.
pub fn state(service: &Service) -> serde_json::Value {
    let output = service.runsmith(&["status", "--format", "json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    all["services"][0].clone()
}

/// Where the numbers of a complete run are collected: by `make faults`.
pub fn numbers() -> Option<PathBuf> {
    std::env::var_os("RUNSMITH_FAULTS").map(PathBuf::from)
}

/// Writes a row's numbers down, if they are collected.
pub fn measured(name: &str, seen: &Seen, took: Duration) {
    let Some(directory) = numbers() else { return };
    let slowest = seen.answers.iter().map(|answer| answer.took).max().unwrap_or_default();
    let line = format!(
        "{} | {} | {:.2} | {:.1}",
        seen.answers.len() + seen.failures.len(),
        seen.failures.len(),
        slowest.as_secs_f64(),
        took.as_secs_f64()
    );
    fs::create_dir_all(&directory).expect("a directory for numbers");
    fs::write(directory.join(name), line).expect("numbers");
}

/// The page, compared with the rows, or written anew if all numbers are there.
pub fn page(rows: &[(&str, &str, &str)], chapter: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(&path).expect("the page");
    let begin = format!("<!-- {chapter}: printed by `make faults` -->\n");
    let (before, rest) = page.split_once(&begin).expect("the chapter's beginning");
    let end = "<!-- end -->\n";
    let (table, after) = rest.split_once(end).expect("the chapter's end");
    if let (Some(directory), Some(_)) = (numbers(), std::env::var_os("RUNSMITH_BLESS")) {
        let mut new = "| what is done | what is promised | requests | failed | slowest, s | settled, s |\n|---|---|---|---|---|---|\n".to_owned();
        for (name, what, promise) in rows {
            let line = fs::read_to_string(directory.join(name)).unwrap_or_else(|_| "| | |".to_owned());
            new.push_str(&format!("| {what} | {promise} | {line} |\n"));
        }
        fs::write(&path, format!("{before}{begin}{new}{end}{after}")).expect("the page");
        return;
    }
    let told: Vec<&str> =
        table.lines().skip(2).filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let wanted: Vec<&str> = rows.iter().map(|(_, what, _)| *what).collect();
    assert_eq!(told, wanted, "docs/faults.md has other rows than the tests; run `make faults`");
}

/// Every row is a test, and every test a row.
pub fn rows_are_tests(rows: &[(&str, &str, &str)], source: &str) {
    let tests: Vec<&str> = source
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| !name.starts_with("the_"))
        .collect();
    let names: Vec<&str> = rows.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(tests, names);
}

/// A small file system of its own for a directory.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it there.
    pub fn mount(path: &Path) -> Self {
        let _ = fs::create_dir(path);
        let options = ["-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs"];
        super::host::run("mount", &[&options[..], &[path.to_str().expect("UTF-8")]].concat());
        Self(path.to_owned())
    }

    /// The file that takes all room there is.
    pub fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }

    /// From now on it has no room.
    pub fn fill(&self) {
        let file = fs::File::options().create(true).append(true).open(self.filling());
        let mut file = file.expect("a file");
        while file.write_all(&[b'x'; 512]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
