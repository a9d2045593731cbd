//! What is done to a service: drawn from the dice alone, so that it is the same each time, and then done.

use std::fmt;
use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::application::Kind;
use super::dice::Dice;
use super::site::{SITES, Site};
use super::support::host::{Process, kill};
use super::support::runsv;
use super::support::service::Server;

/// How somebody deploys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `runsmith upgrade`.
    Upgrade,
    /// `sv restart`, not waited for.
    Restart,
    /// `sv 2`.
    Two,
    /// Rendered again with another value, then `runsmith upgrade`.
    Rendered,
}

/// The processes of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Runsv,
    Runtime,
    Keeper,
    Master,
    Worker,
    Svlogd,
}

const WAYS: [(u32, Way); 4] = [(4, Way::Upgrade), (2, Way::Restart), (2, Way::Two), (3, Way::Rendered)];
const ALL: [Who; 6] = [Who::Runsv, Who::Runtime, Who::Keeper, Who::Master, Who::Worker, Who::Svlogd];

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A release is deployed.
    Deploy(Way, Kind),
    /// A value is rendered with which the application does not start, and an upgrade is asked for.
    BadValue,
    /// A deploy is given up after so many milliseconds.
    Abort(u32),
    /// `current` is switched to a good release and nobody asks for an upgrade; the master is killed.
    Switched,
    /// Two upgrades at once.
    Two,
    /// A process is killed.
    Kill(Who),
    /// The same so many milliseconds after a deploy was begun.
    KillDuring(Who, u32),
    /// One stands still while another is killed, or, with none, while a deploy is begun; then it goes on.
    Stop(Who, Option<Who>),
    /// So many `sv` commands, none of which is waited for.
    Storm(u32),
    /// The file system of the run directory (0) or the log (1) is full while an upgrade is made.
    Full(usize),
    /// A file of the run directory is deleted, and a deploy follows.
    Deleted(&'static str),
    /// The binary is replaced and the runtime ends. `older`: first by an older version, if there is one.
    Replaced { older: bool },
    /// A reboot.
    Reboot,
    /// `sv down` and `sv up`.
    Down,
}

/// Files of the run directory; `*` is all that are there.
const FILES: [&str; 8] =
    ["control", "ready", "keeper", "keeper.pid", "state.json", "state.json.new", "lock", "*"];

/// After a storm the runtime is woken, and woken again after so long if nothing serves yet.
const ASKED_AGAIN: Duration = Duration::from_secs(2);

/// Verbs of `sv` that a storm is made of.
const VERBS: [&str; 12] =
    ["hup", "2", "1", "alarm", "interrupt", "quit", "cont", "term", "kill", "up", "pause", "cont"];

impl Operation {
    /// What each is called on the page, in the order of their numbers.
    pub(crate) const NAMES: [(&'static str, &'static str); 14] = [
        (
            "deploy",
            "a release, good or broken in one of six ways, by `runsmith upgrade`, `sv restart`, `sv 2`, or rendered again with another value and upgraded",
        ),
        ("bad value", "a value is rendered with which the application does not start; `runsmith upgrade`"),
        ("abort", "`runsmith upgrade`, and `--abort` up to 0.9 s later"),
        ("switched", "`current` is switched without an upgrade; kill -9 of the master"),
        ("two", "two upgrades at once"),
        ("kill", "kill -9 of runsv, runtime, keeper, master, a worker or svlogd"),
        ("kill in a deploy", "the same up to 1.5 s after a deploy was begun"),
        (
            "stop",
            "one of them is stopped (SIGSTOP) while another is killed or a deploy is begun; then it goes on",
        ),
        ("storm", "10 to 40 `sv` commands in a row, none of which is waited for"),
        (
            "full disk",
            "the file system of the run directory, or of the log, is full while an upgrade is made",
        ),
        ("deleted file", "a file of the run directory is deleted, or all of them; `runsmith upgrade`"),
        (
            "replaced",
            "the binary is replaced, in every other case by an older version and back, and the runtime ends; the older one does an upgrade",
        ),
        ("reboot", "all processes are killed, the run directory is empty, runsv is started"),
        ("down", "`sv down`, and `sv up`"),
    ];

    /// Which row of [`Operation::NAMES`].
    pub(crate) fn row(self) -> usize {
        match self {
            Self::Deploy(..) => 0,
            Self::BadValue => 1,
            Self::Abort(_) => 2,
            Self::Switched => 3,
            Self::Two => 4,
            Self::Kill(_) => 5,
            Self::KillDuring(..) => 6,
            Self::Stop(..) => 7,
            Self::Storm(_) => 8,
            Self::Full(_) => 9,
            Self::Deleted(_) => 10,
            Self::Replaced { .. } => 11,
            Self::Reboot => 12,
            Self::Down => 13,
        }
    }

    /// Draws one.
    pub(crate) fn drawn(dice: &mut Dice, site: usize) -> Self {
        let check = SITES[site].4;
        match dice.weighed(&[
            (28, 0),
            (4, 1),
            (8, 2),
            (5, 3),
            (12, 4),
            (14, 5),
            (10, 6),
            (4, 7),
            (5, 8),
            (4, 9),
            (3, 10),
            (3, 11),
            (3, 12),
            (3, 13),
        ]) {
            0 => {
                let sick = u32::from(!check.is_empty()) * 2;
                let kinds = [
                    Kind::Good,
                    Kind::Raises,
                    Kind::Exits,
                    Kind::Hangs,
                    Kind::Killed,
                    Kind::Late,
                    Kind::Sick,
                ];
                let weights = [20, 6, 4, 1, 1, 3, sick];
                let kinds: Vec<_> = weights.into_iter().zip(kinds).collect();
                Self::Deploy(dice.weighed(&WAYS), dice.weighed(&kinds))
            }
            1 => Self::BadValue,
            2 => Self::Abort(dice.below(900)),
            3 => Self::Two,
            4 => Self::Kill(dice.pick(&ALL)),
            5 => Self::KillDuring(dice.pick(&ALL), dice.below(1500)),
            6 => {
                let stopped = dice.pick(&ALL);
                let other = dice.pick(&ALL);
                Self::Stop(stopped, (other != stopped && dice.below(3) > 0).then_some(other))
            }
            7 => Self::Storm(10 + dice.below(30)),
            8 => Self::Full(dice.below(2) as usize),
            9 => Self::Deleted(dice.pick(&FILES)),
            10 => Self::Replaced { older: dice.below(2) == 0 },
            11 => Self::Reboot,
            12 => Self::Down,
            _ => Self::Switched,
        }
    }

    /// Does it. One sentence for each promise that was broken on the way; what holds in the end is looked at afterwards.
    pub(crate) fn perform(self, site: &mut Site, dice: &mut Dice) -> Vec<String> {
        site.may = vec![site.made, site.disk];
        let starts_nothing_new = matches!(self, Self::Kill(_) | Self::Reboot | Self::Down | Self::Switched);
        if site.is_spoilt && !starts_nothing_new {
            site.render(site.disk.value, false);
        }
        match self {
            Self::Deploy(way, kind) => deploy(site, way, kind),
            Self::BadValue => bad_value(site),
            Self::Abort(after) => abort(site, after),
            Self::Switched => {
                let number = site.release(Kind::Good);
                site.switch(number);
                site.is_untried = true;
                site.until_proven();
                end(site, Who::Master);
                vec![]
            }
            Self::Two => two(site),
            Self::Kill(who) => {
                if who == Who::Master {
                    site.until_proven();
                }
                end(site, who);
                vec![]
            }
            Self::KillDuring(who, after) => kill_during(site, who, after),
            Self::Stop(who, other) => stop(site, who, other),
            Self::Storm(count) => storm(site, count, dice),
            Self::Full(which) => full(site, which),
            Self::Deleted(file) => deleted(site, file),
            Self::Replaced { older } => replaced(site, older),
            Self::Reboot => {
                // Only what is proven outlives it.
                site.until_proven();
                site.reboot();
                vec![]
            }
            Self::Down => {
                site.until_proven();
                site.down_and_up()
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:?}", Self::NAMES[self.row()].0)
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

/// Something whose end is to be a good one.
fn must(site: &Site, what: &str, output: &Output) -> Vec<String> {
    if output.status.success() {
        return vec![];
    }
    vec![format!("{what} exits with {:?}: {}\n{}", output.status.code(), said(output), site.picture())]
}

fn deploy(site: &mut Site, way: Way, kind: Kind) -> Vec<String> {
    let number = site.release(kind);
    site.switch(number);
    if way == Way::Rendered {
        let value = site.disk.value + 1;
        site.render(value, false);
    }
    // One that loads shares the addresses, so it may answer before it has failed.
    site.may.push(site.disk);
    let last = site.last_generation();
    let is_good = kind == Kind::Good;
    let mut wrong = vec![];
    match way {
        Way::Upgrade | Way::Rendered => {
            let output = site.upgrade();
            let code = output.status.code();
            if code != Some(i32::from(!is_good)) && kind != Kind::Late {
                wrong.push(format!(
                    "upgrade to {kind:?} exits with {code:?}: {}\n{}",
                    said(&output),
                    site.picture()
                ));
            }
        }
        Way::Restart => {
            runsv::until_a_second_old(&site.service.directory);
            site.service.begin("restart");
            site.until_tried(last);
        }
        Way::Two => {
            site.service.begin("2");
            site.until_tried(last);
        }
    }
    if is_good {
        site.made = site.disk;
        return wrong;
    }
    if kind == Kind::Late && site.service.server == Server::Gevent {
        site.excused_since.get_or_insert_with(Instant::now);
    }
    wrong
}

fn bad_value(site: &mut Site) -> Vec<String> {
    let value = site.disk.value;
    site.render(value + 1, true);
    let output = site.upgrade();
    // It stays on disk until the next deploy.
    site.disk.value = value;
    if output.status.code() == Some(1) {
        return vec![];
    }
    vec![format!("an upgrade that must fail exits with {:?}: {}", output.status.code(), said(&output))]
}

/// Waits a little: how long is part of what is done, and nothing is waited for.
fn pass(milliseconds: u32) {
    std::thread::sleep(Duration::from_millis(milliseconds.into()));
}

fn abort(site: &mut Site, after: u32) -> Vec<String> {
    let before = (site.disk, site.is_untried);
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    let upgrade = site.service.begin_upgrade();
    pass(after);
    let mut command = Command::new(env!("CARGO_BIN_EXE_runsmith"));
    let _ = command.args(["upgrade", "--abort"]).arg(&site.service.directory).output().expect("runsmith");
    let output = upgrade.wait_with_output().expect("runsmith");
    match output.status.code() {
        Some(0) => site.made = site.disk,
        Some(1) => {
            site.switch(before.0.release);
            site.is_untried = before.1;
        }
        code => return vec![format!("an upgrade that is given up exits with {code:?}: {}", said(&output))],
    }
    vec![]
}

fn two(site: &mut Site) -> Vec<String> {
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    let both = [site.service.begin_upgrade(), site.service.begin_upgrade()];
    let mut wrong = vec![];
    for one in both {
        wrong.extend(must(site, "one of two upgrades", &one.wait_with_output().expect("runsmith")));
    }
    site.made = site.disk;
    wrong
}

fn pid(site: &Site, who: Who) -> Option<u32> {
    match who {
        Who::Runsv => Process::read(runsv::running(&site.service.directory)).map(|runtime| runtime.parent),
        Who::Runtime => Some(site.service.runtime()),
        Who::Keeper => site.keepers().first().copied(),
        Who::Master => site.master(),
        Who::Worker => site.worker(),
        Who::Svlogd => Some(site.svlogd()),
    }
}

/// kill -9. What a worker has in hand is lost with it; gevent's workers leave at once when they notice that their master has
/// gone, which takes them a second, and what they have in hand then is lost, too.
fn slay(site: &mut Site, who: Who, pid: u32) {
    match who {
        Who::Worker => site.excusing(|_| kill(pid, Signal::KILL)),
        Who::Master if site.service.server == Server::Gevent => {
            site.excused_since.get_or_insert_with(Instant::now);
            kill(pid, Signal::KILL);
        }
        _ => kill(pid, Signal::KILL),
    }
}

/// Kills one.
fn end(site: &mut Site, who: Who) {
    if who == Who::Runsv {
        site.service.kill_runsv();
        site.service.supervise();
        return;
    }
    let Some(pid) = pid(site, who) else { return };
    slay(site, who, pid);
    let is_gone = |_: &mut Site| !super::support::host::lives(pid);
    site.until("who was killed is dead", is_gone);
}

fn kill_during(site: &mut Site, who: Who, after: u32) -> Vec<String> {
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    site.falls_back = true;
    let upgrade = site.service.begin_upgrade();
    pass(after);
    end(site, who);
    upgrade.wait_with_output().expect("runsmith");
    // Whether it was done before, or is done again, or was given up with who was killed: another one makes it so.
    finish(site, "an upgrade after one that was disturbed")
}

/// A last upgrade, which must succeed: from then on it is known what serves.
fn finish(site: &mut Site, what: &str) -> Vec<String> {
    site.until("a runtime answers", |site| site.status().is_object());
    let output = site.upgrade();
    site.made = site.disk;
    must(site, what, &output)
}

fn stop(site: &mut Site, who: Who, other: Option<Who>) -> Vec<String> {
    let Some(stopped) = pid(site, who) else { return vec![] };
    // Its end, or that it stands still, may be a failure on probation.
    site.falls_back = true;
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    let act = |site: &mut Site| {
        kill(stopped, Signal::STOP);
        match other {
            Some(Who::Runsv) => {}
            Some(other) => {
                if let Some(pid) = other_pid(site, other, who) {
                    slay(site, other, pid);
                }
            }
            None => site.service.begin("2"),
        }
        pass(300);
        kill(stopped, Signal::CONT);
    };
    // The requests of a worker that stands still may be taken from it.
    if matches!(who, Who::Worker | Who::Master) {
        site.excusing(act)
    } else {
        act(site)
    }
    if other == Some(Who::Runsv) {
        end(site, Who::Runsv);
    }
    finish(site, "an upgrade after somebody has stood still")
}

/// As [`pid`], while one stands still that may be the one to ask.
fn other_pid(site: &Site, other: Who, stopped: Who) -> Option<u32> {
    if stopped == Who::Runtime && other == Who::Master {
        let worker = site.worker()?;
        return Process::read(worker).map(|worker| worker.parent);
    }
    pid(site, other)
}

fn storm(site: &mut Site, count: u32, dice: &mut Dice) -> Vec<String> {
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    for _ in 0..count {
        site.service.begin(dice.pick(&VERBS));
    }
    let mut asked: Option<Instant> = None;
    site.until("it goes on after a storm", |site| {
        if asked.is_none_or(|asked| asked.elapsed() > ASKED_AGAIN) {
            asked = Some(Instant::now());
            site.service.begin("cont");
            site.service.begin("up");
        }
        site.status()["state"] == "serving"
    });
    finish(site, "an upgrade after a storm")
}

fn full(site: &mut Site, which: usize) -> Vec<String> {
    let file = site.fill(which);
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    let output = site.upgrade();
    let mut wrong = must(site, "an upgrade on a full disk", &output);
    site.made = site.disk;
    fs::remove_file(file).expect("room");
    // What was not written then is written with the next change.
    wrong.extend(finish(site, "an upgrade once there is room"));
    wrong
}

fn deleted(site: &mut Site, file: &str) -> Vec<String> {
    for entry in fs::read_dir(site.service.run_directory()).expect("the run directory").flatten() {
        if file == "*" || entry.file_name() == file {
            // What the runtime itself has removed meanwhile is gone as well.
            let _ = fs::remove_file(entry.path());
        }
    }
    let number = site.release(Kind::Good);
    site.switch(number);
    site.may.push(site.disk);
    site.until("the control socket is there", |site| site.status().is_object());
    finish(site, "an upgrade after a file was deleted")
}

/// Another file in the binary's place, and another run from it. An older version, `CHAOS_OLDER`, does an upgrade; it may have kept
/// less than this one needs to know, so this one does an upgrade, too.
fn replaced(site: &mut Site, older: bool) -> Vec<String> {
    let older = std::env::var("CHAOS_OLDER").ok().filter(|_| older);
    let mut wrong = vec![];
    if let Some(older) = &older {
        exchange(site, older);
        let number = site.release(Kind::Good);
        site.switch(number);
        site.may.push(site.disk);
        wrong.extend(finish(site, "an upgrade by an older version"));
    }
    exchange(site, env!("CARGO_BIN_EXE_runsmith"));
    if older.is_some() {
        wrong.extend(finish(site, "an upgrade after an older version"));
    }
    wrong
}

/// Puts a copy of this file in the binary's place, and ends the runtime.
fn exchange(site: &mut Site, file: &str) {
    let binary = site.service.scratch().join("runsmith");
    let new = binary.with_extension("new");
    fs::copy(file, &new).expect("a binary");
    fs::rename(new, binary).expect("the binary");
    let runtime = site.service.runtime();
    site.service.begin("kill");
    site.until("the next run is recorded", |site| {
        runsv::record(&site.service.directory)
            .is_some_and(|record| record.pid != runtime && record.state == 1)
    });
}
