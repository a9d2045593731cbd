//! One of the services: what runs, what ought to, and every promise that can be looked at from outside.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::application::{self, Kind};
use super::clients::{Asked, Clients, Fate, Made};
use super::support::host::{Process, commands, kill, lives};
use super::support::service::{Server, Service, Socket};
use super::support::{HANDOVER, SOON, START, runsv};

/// Workers of each generation.
const WORKERS: usize = 2;

/// Until everything has settled: boots, drains and time-outs, on a machine with ten programs for each core.
const SETTLES: Duration = Duration::from_secs(240);

/// `restart.min_uptime`, in seconds.
const MIN_UPTIME: u64 = 4;

/// Between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(60);

/// The kernel's part of runtime and keeper may grow by so many descriptors: who asks for the status has one, a health check two.
const DESCRIPTORS: usize = 4;

/// Their private memory may grow by so much, in KiB: what is allocated once.
const MEMORY: usize = 1024;

/// So many old files of the log are kept, as svlogd is told to.
const OLD_LOGS: usize = 4;

/// Size of the file systems of the run directory and the log. svlogd keeps four old files of 400 KB beside the one it writes.
const SMALL: [(&str, &str); 2] = [("run", "64k"), ("log", "4m")];

/// One of the services, and what is known of it.
pub(crate) struct Site {
    pub(crate) index: usize,
    pub(crate) name: &'static str,
    pub(crate) service: Service,
    pub(crate) clients: Clients,
    /// What serves once everything has settled.
    pub(crate) made: Made,
    /// What may serve until then besides.
    pub(crate) may: Vec<Made>,
    /// A generation was ended on probation: until it has settled an older release may answer.
    pub(crate) falls_back: bool,
    /// The release that `current` leads to, and the value on disk.
    pub(crate) disk: Made,
    /// A value is on disk with which the application does not start.
    pub(crate) is_spoilt: bool,
    /// A good release is on disk that nobody has asked for an upgrade to.
    pub(crate) is_untried: bool,
    /// Releases made so far.
    pub(crate) releases: u32,
    /// Times in which requests may fail.
    pub(crate) excused: Vec<(Instant, Instant)>,
    /// From then on, until everything has settled, as well.
    pub(crate) excused_since: Option<Instant>,
    sizes: Vec<(&'static str, u32, usize, usize)>,
    mounts: Vec<PathBuf>,
    said: u32,
}

/// The services: name, server, socket, whether the master loads the application, and what its pillar has besides.
pub(crate) const SITES: [(&str, Server, Socket, bool, &str); 4] = [
    ("gthread", Server::Gthread, Socket::Tcp, true, ""),
    ("sync", Server::Sync, Socket::Unix, false, ""),
    ("gevent", Server::Gevent, Socket::Unix, true, "health_check: {path: /health, interval: 1, timeout: 10}"),
    ("unicorn", Server::Unicorn, Socket::Tcp, true, ""),
];

impl Site {
    /// Starts one of [`SITES`] and its clients.
    pub(crate) fn start(index: usize) -> Self {
        let (name, server, socket, preloads, check) = SITES[index];
        // A drain is longer than any request, a boot shorter than the patience of whoever waits; deaths are tried again soon.
        let more = format!(
            "handoff: {{boot_timeout: 60, drain_timeout: 30{}{check}}}\n\
             restart: {{min_uptime: {MIN_UPTIME}, backoff_initial: 0.2, backoff_max: 2}}\n\
             environment: {{CHAOS_VALUE: \"1\"}}\nlog: {{size: 400000, number: {OLD_LOGS}}}\n",
            if check.is_empty() { "" } else { ", " }
        );
        let mut service = Service::native_with_log(server, socket, &more);
        let binary = service.scratch().join("runsmith");
        fs::hard_link(env!("CARGO_BIN_EXE_runsmith"), &binary)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_runsmith"), &binary).map(drop))
            .expect("a binary");
        let mut mounts = vec![];
        for (what, size) in SMALL {
            let path = match what {
                "run" => service.run_directory(),
                _ => service.root.join("shared/logs/service"),
            };
            mount(&path, size);
            mounts.push(path);
        }
        // Rendered once more: what lies in these directories is hidden now.
        let shown = binary.display().to_string();
        service.rewrite(|pillar| {
            let pillar = pillar.replace(env!("CARGO_BIN_EXE_runsmith"), &shown);
            let pillar = pillar.replace("worker_processes: 3", "worker_processes: 2");
            let preload = if preloads { "" } else { ", preload_app: false" };
            pillar.replace("workers: 3", &format!("workers: {WORKERS}{preload}"))
        });
        application::open_ledger(&service);
        application::release(&service, 1, Kind::Good, preloads);
        service.supervise();
        let made = Made { release: 1, value: 1 };
        let clients = Clients::start(&service.address, application::ledger(&service));
        let now = Instant::now();
        let mut site = Self {
            index,
            name,
            service,
            clients,
            made,
            may: vec![],
            falls_back: false,
            disk: made,
            is_spoilt: false,
            is_untried: false,
            releases: 1,
            // Nobody listens before the first generation is started.
            excused: vec![],
            excused_since: None,
            sizes: vec![],
            mounts,
            said: 0,
        };
        site.until_within("the first generation serves", START, |site| site.serves());
        site.excused.push((now, Instant::now()));
        site
    }

    /// Whether the master loads the application.
    pub(crate) fn preloads(&self) -> bool {
        SITES[self.index].3
    }

    /// Another release; not switched to.
    pub(crate) fn release(&mut self, kind: Kind) -> u32 {
        self.releases += 1;
        application::release(&self.service, self.releases, kind, self.preloads());
        // Older ones than the last few are nobody's any more.
        let is_used = |number: u32| number == self.made.release || number == self.disk.release;
        if self.releases > 12 && !is_used(self.releases - 12) {
            let _ = fs::remove_dir_all(self.service.root.join(format!("releases/{}", self.releases - 12)));
        }
        self.releases
    }

    /// Switches `current`.
    pub(crate) fn switch(&mut self, number: u32) {
        self.service.switch(number);
        self.disk.release = number;
        self.is_untried = false;
    }

    /// Renders the pillar with another value, by the command.
    pub(crate) fn render(&mut self, value: u32, breaks: bool) {
        let old = self.service.pillar();
        let line = old.lines().find(|line| line.starts_with("environment:")).expect("it has one").to_owned();
        let more = if breaks { ", CHAOS_BREAK: \"1\"" } else { "" };
        let new = format!("environment: {{CHAOS_VALUE: \"{value}\"{more}}}");
        self.service.rewrite(|pillar| pillar.replace(&line, &new));
        self.disk.value = value;
        self.is_spoilt = breaks;
    }

    /// `runsmith upgrade` and its end.
    pub(crate) fn upgrade(&self) -> Output {
        self.service.begin_upgrade().wait_with_output().expect("runsmith")
    }

    /// From now until what is done has been done, requests may fail.
    pub(crate) fn excusing<T>(&mut self, action: impl FnOnce(&mut Self) -> T) -> T {
        let from = Instant::now();
        let result = action(self);
        self.excused.push((from, Instant::now()));
        result
    }

    /// What the runtime says of itself; null if none answers. Asked by hand, because `runsmith status` reads the run script,
    /// too, which is much work for what is asked again and again.
    pub(crate) fn status(&self) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.service.run_directory().join("control"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"{\"ask\":\"status\"}\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        ask().ok().and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default()
    }

    /// The release that serves, as the runtime says; none unless it has settled.
    fn settled_release(&self) -> Option<u32> {
        let status = self.status();
        let is_settled =
            status["state"] == "serving" && status["candidate"].is_null() && status["queued"] == false;
        let release = status["serving"]["release"].as_str().filter(|_| is_settled)?.to_owned();
        Path::new(&release).file_name()?.to_str()?.parse().ok()
    }

    /// Whether everything has settled with one generation of the right release.
    pub(crate) fn serves(&self) -> bool {
        self.settled_release() == Some(self.made.release) && self.generation().is_ok()
    }

    /// The number of the last generation that was started.
    pub(crate) fn last_generation(&self) -> u64 {
        let status = self.status();
        ["serving", "candidate", "last"]
            .iter()
            .filter_map(|which| status[which]["generation"].as_u64())
            .max()
            .unwrap_or(0)
    }

    /// Waits until what serves is proven, so that its death is no failure of its release. With a health check that takes longer than
    /// `restart.min_uptime`: a good answer is needed after that, and none is asked for in a hand-over.
    pub(crate) fn until_proven(&mut self) {
        let is_proven = |site: &mut Self| {
            let status = site.status();
            status["serving"].is_object() && status["probation_ms"].is_null()
        };
        self.until("it is proven", is_proven);
    }

    /// Waits for something, with the bound of everything.
    pub(crate) fn until(&mut self, what: &str, is: impl FnMut(&mut Self) -> bool) {
        self.until_within(what, SETTLES, is);
    }

    fn until_within(&mut self, what: &str, limit: Duration, mut is: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + limit;
        while !is(self) {
            assert!(Instant::now() < until, "not within {limit:?}: {what}\n{}", self.picture());
            std::thread::park_timeout(LOOK);
        }
    }

    /// The one master, if there is one generation and nothing else of the user's; else what there is.
    fn generation(&self) -> Result<u32, String> {
        let all = self.service.user.processes();
        let masters: Vec<&Process> =
            all.iter().filter(|one| !all.iter().any(|other| other.pid == one.parent)).collect();
        match masters[..] {
            [master] if all.len() == WORKERS + 1 => Ok(master.pid),
            _ => Err(format!("{} masters, {} processes: {all:?}", masters.len(), all.len())),
        }
    }

    /// The keepers that live.
    pub(crate) fn keepers(&self) -> Vec<u32> {
        let is_keeper = |words: &[String]| words == ["runsmith", "keep", &self.service.name];
        commands()
            .into_iter()
            .filter(|(pid, words)| is_keeper(words) && lives(*pid))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// The runtimes that live.
    fn runtimes(&self) -> Vec<u32> {
        let directory = self.service.directory.join("run").display().to_string();
        let is_runtime = |pid: u32, words: &[String]| {
            words.get(1).is_some_and(|word| word == "run")
                && (words.get(2) == Some(&directory)
                    || fs::read_link(format!("/proc/{pid}/cwd"))
                        .is_ok_and(|cwd| cwd == self.service.directory))
                && !words.iter().any(|word| word == "--finish")
        };
        let all = commands().into_iter();
        all.filter(|(pid, words)| is_runtime(*pid, words) && lives(*pid)).map(|(pid, _)| pid).collect()
    }

    /// A worker.
    pub(crate) fn worker(&self) -> Option<u32> {
        let all = self.service.user.processes();
        all.iter().find(|one| all.iter().any(|other| other.pid == one.parent)).map(|one| one.pid)
    }

    /// The master that serves.
    pub(crate) fn master(&self) -> Option<u32> {
        self.status()["serving"]["master"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Who reads the log.
    pub(crate) fn svlogd(&self) -> u32 {
        runsv::running(&self.service.directory.join("log"))
    }

    /// Waits until everything has settled, and holds every promise against what there is. One sentence for each that is broken.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        self.until("it has settled with one generation of the right release", |site| site.serves());
        let mut wrong = vec![];
        let settled = Instant::now();
        self.excused.extend(self.excused_since.take().map(|since| (since, settled)));
        // Answers from now on are of what serves; there are some of each client.
        let answers = self.clients.ended();
        self.until("the clients are answered", |site| site.clients.ended() > answers + 6);
        for _ in 0..4 {
            self.clients.ask("late");
        }
        wrong.extend(self.log_goes_on());
        wrong.extend(self.reality());
        let (asked, lost) = self.clients.take(&self.excused);
        wrong.extend(lost);
        wrong.extend(self.made_by_the_wrong_release(&asked, settled));
        self.tidy_the_log();
        self.excused.clear();
        self.may.clear();
        self.falls_back = false;
        wrong
    }

    fn made_by_the_wrong_release(&self, asked: &[Asked], settled: Instant) -> Vec<String> {
        let mut wrong = vec![];
        for one in asked {
            let Fate::Answered(made) = &one.fate else { continue };
            let is_right = *made == self.made
                || (one.begun < settled
                    && (self.may.contains(made) || self.falls_back && made.release < self.made.release));
            if !is_right && wrong.len() < 3 {
                wrong.push(format!(
                    "request {} was answered by {made:?}, begun {:.1?} {} it had settled; {:?} serves, {:?} may have before",
                    one.tag,
                    if one.begun < settled { settled - one.begun } else { one.begun - settled },
                    if one.begun < settled { "before" } else { "after" },
                    self.made,
                    self.may
                ));
            }
        }
        wrong
    }

    /// What a request writes arrives in the log.
    fn log_goes_on(&mut self) -> Option<String> {
        self.said += 1;
        let asked = self.clients.ask("say");
        let want = format!("said {}", asked.tag);
        let directory = self.service.root.join("shared/logs/service");
        let is_there = || {
            let files = fs::read_dir(&directory).into_iter().flatten().flatten();
            files.map(|file| file.path()).filter(|path| path.is_file()).any(|path| {
                let text = fs::read(path).unwrap_or_default();
                text.windows(want.len()).any(|window| window == want.as_bytes())
            })
        };
        let until = Instant::now() + SOON;
        while !is_there() {
            if Instant::now() > until {
                return Some(format!("the log does not go on: {want:?} is not in it after {SOON:?}"));
            }
            std::thread::park_timeout(LOOK);
        }
        None
    }

    /// svlogd removes one old file when it begins another, and leaves one more each time that it is killed: it is killed so often
    /// here that the small file system would be full in the end.
    fn tidy_the_log(&self) {
        let files =
            fs::read_dir(self.service.root.join("shared/logs/service")).into_iter().flatten().flatten();
        let mut old: Vec<PathBuf> = files
            .filter(|file| file.file_name().as_encoded_bytes().starts_with(b"@"))
            .map(|file| file.path())
            .collect();
        old.sort();
        for file in &old[..old.len().saturating_sub(OLD_LOGS)] {
            // It may just have been removed by svlogd.
            let _ = fs::remove_file(file);
        }
    }

    /// What `runsmith status` says, held against the processes that there are.
    fn reality(&mut self) -> Vec<String> {
        let mut last = vec![];
        let until = Instant::now() + SOON;
        // What is on its way, such as a worker that is replaced, is there a moment later.
        loop {
            let wrong = self.reality_now();
            if wrong.is_empty() {
                return wrong;
            }
            if Instant::now() > until {
                last.extend(wrong);
                return last;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn reality_now(&mut self) -> Vec<String> {
        let mut wrong = vec![];
        let output = self.service.runsmith(&["status", "--format", "json"]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let status = &json["services"][0];
        let mut compare = |what: &str, said: Value, is: Value| {
            if said != is {
                wrong.push(format!("status: {what} is {said}, and should be {is}"));
            }
        };
        compare("state", status["state"].clone(), "serving".into());
        let master = self.generation();
        compare("serving.master", status["serving"]["master"].clone(), master.clone().ok().into());
        let runtimes = self.runtimes();
        compare("runtime_pid", vec![status["runtime_pid"].clone()].into(), runtimes.clone().into());
        let keepers = self.keepers();
        compare("keeper_pid", vec![status["keeper_pid"].clone()].into(), keepers.clone().into());
        let release = self.service.root.join(format!("releases/{}", self.made.release)).display().to_string();
        compare("serving.release", status["serving"]["release"].clone(), release.into());
        compare("leaving", status["leaving"].clone(), Value::Array(vec![]));
        compare("candidate", status["candidate"].clone(), Value::Null);
        compare("serving.workers_ready", status["serving"]["workers_ready"].clone(), WORKERS.into());
        let differs = self.made != self.disk || self.is_spoilt;
        if differs && status["newer"].as_array().is_none_or(Vec::is_empty) {
            wrong.push(format!(
                "status does not show that {:?} is on disk and not deployed: {status}",
                self.disk
            ));
        }
        if let Err(error) = master {
            wrong.push(error);
        }
        // What failed and is still on disk may need a person.
        if !differs && output.status.code() != Some(0) {
            wrong.push(format!("status exits with {:?}: {status}", output.status.code()));
        }
        for (role, pids) in [("runtime", runtimes), ("keeper", keepers)] {
            if let [pid] = pids[..] {
                wrong.extend(self.grown(role, pid));
            }
        }
        wrong
    }

    /// Whether a process has grown since it was first looked at.
    fn grown(&mut self, role: &'static str, pid: u32) -> Option<String> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let memory = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let memory: usize = memory.trim().trim_end_matches(" kB").parse().ok()?;
        match self.sizes.iter().find(|(one, number, _, _)| *one == role && *number == pid) {
            None => {
                self.sizes.retain(|(one, _, _, _)| *one != role);
                self.sizes.push((role, pid, descriptors, memory));
                None
            }
            Some((_, _, first, least)) => {
                let has_grown = descriptors > first + DESCRIPTORS || memory > least + MEMORY;
                has_grown.then(|| {
                    format!(
                        "the {role} has grown: descriptors {first}, now {descriptors}; memory {least} KiB, now {memory}"
                    )
                })
            }
        }
    }

    /// `sv down`, what must be true then, and `sv up`.
    pub(crate) fn down_and_up(&mut self) -> Vec<String> {
        self.excusing(|site| {
            let mut wrong = vec![];
            let output = site.service.sv("down");
            if !output.status.success() {
                wrong.push(format!("sv down: {}", String::from_utf8_lossy(&output.stdout)));
            }
            if site.service.address.connect().is_ok() {
                wrong.push("it is down, and the address accepts connections".to_owned());
            }
            let left = site.service.user.processes();
            if !left.is_empty() {
                wrong.push(format!("it is down, and processes are left: {left:?}"));
            }
            // A keeper ends when it has passed on what is there.
            let until = Instant::now() + SOON;
            while !site.keepers().is_empty() && Instant::now() < until {
                std::thread::park_timeout(LOOK);
            }
            if !site.keepers().is_empty() || !site.runtimes().is_empty() {
                wrong.push(format!(
                    "it is down, and keepers {:?}, runtimes {:?} are left",
                    site.keepers(),
                    site.runtimes()
                ));
            }
            site.starts_from_disk();
            let output = site.service.sv("up");
            if !output.status.success() {
                wrong.push(format!("sv up: {}", String::from_utf8_lossy(&output.stdout)));
            }
            site.until("it is up again", |site| site.serves());
            wrong
        })
    }

    /// A first start takes what is on disk, unless that has failed.
    fn starts_from_disk(&mut self) {
        if self.is_untried && !self.is_spoilt {
            self.may.push(self.disk);
            self.made = self.disk;
            self.is_untried = false;
        }
    }

    /// As after a reboot: everything is killed, the run directory is empty, and runsv is started.
    pub(crate) fn reboot(&mut self) {
        self.excusing(|site| {
            let svlogd = site.svlogd();
            let runtimes = site.runtimes();
            site.service.kill_runsv();
            for pid in runtimes.into_iter().chain(site.keepers()).chain([svlogd]) {
                kill(pid, Signal::KILL);
            }
            site.until("everything of the user's is dead", |site| {
                for one in site.service.user.processes() {
                    kill(one.pid, Signal::KILL);
                }
                // A runtime whose runsv is gone may have started something yet.
                for pid in site.runtimes().into_iter().chain(site.keepers()) {
                    kill(pid, Signal::KILL);
                }
                site.service.user.processes().is_empty()
                    && site.runtimes().is_empty()
                    && site.keepers().is_empty()
            });
            for entry in fs::read_dir(site.service.run_directory()).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
            }
            site.starts_from_disk();
            site.service.supervise();
            site.until("it serves again", |site| site.serves());
        });
    }

    /// Fills one of the small file systems; gives the file that does.
    pub(crate) fn fill(&self, which: usize) -> PathBuf {
        let file = self.mounts[which].join("filling");
        let mut filling = fs::File::create(&file).expect("a file");
        while filling.write_all(&[b'x'; 512]).is_ok() {}
        file
    }

    /// What there is, for who reads a failure.
    pub(crate) fn picture(&self) -> String {
        let log = self.service.root.join("shared/logs/service/current");
        let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("\"GET /")).collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n  ");
        format!(
            "status: {}\ngeneration: {:?}\nkeepers {:?}, runtimes {:?}; {:?} should serve, {:?} is on disk\nthe log:\n  {tail}\n{}",
            self.status(),
            self.generation(),
            self.keepers(),
            self.runtimes(),
            self.made,
            self.disk,
            self.service.log.text(0)
        )
    }

    /// Waits until a hand-over that was asked for without waiting has come to its end: `after` was the last generation before.
    pub(crate) fn until_tried(&mut self, after: u64) {
        let until = Instant::now() + HANDOVER;
        // A run that has adopted what its predecessor began does not know of the hand-over, but of who serves.
        let is_over = |status: &Value| {
            let newer =
                |which: &str| status[which]["generation"].as_u64().is_some_and(|number| number > after);
            status["state"] == "serving" && (newer("last") || newer("serving"))
        };
        while !is_over(&self.status()) {
            assert!(
                Instant::now() < until,
                "the hand-over did not end within {HANDOVER:?}\n{}",
                self.picture()
            );
            std::thread::park_timeout(LOOK);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("sv").args(["-w", "20", "force-shutdown"]).arg(&self.service.directory).output();
        for pid in self.runtimes().into_iter().chain(self.keepers()) {
            kill(pid, Signal::KILL);
        }
        for one in Process::all().into_iter().filter(|one| one.uid == self.service.user.uid) {
            kill(one.pid, Signal::KILL);
        }
        for mount in &self.mounts {
            let _ = Command::new("umount").arg("-l").arg(mount).output();
        }
    }
}

/// A file system in memory at a path, whose mode and owner stay.
fn mount(path: &Path, size: &str) {
    fs::create_dir_all(path).expect("a directory");
    let before = fs::metadata(path).expect("a directory");
    let options = format!("size={size},mode={:o}", before.permissions().mode() & 0o7777);
    super::support::host::run(
        "mount",
        &["-t", "tmpfs", "-o", &options, "tmpfs", path.to_str().expect("UTF-8")],
    );
    chown(path, Some(before.uid()), Some(before.gid())).expect("chown");
}
