//! The loop: wait, tell the machine what happened, do what it answers.

mod act;
mod adopt;
mod enclose;
mod fallback;
mod files;
mod generation;
mod health;
mod keep;
mod notice;
mod origin;
mod requests;
mod secret_files;
mod snapshots;
mod sockets;
mod status;
mod succeed;
mod workers;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::action::{Action, End, Step};
use super::event::{Ask, Event, Generation, Health, Moment, Terms, Ticket};
use super::linux::clock;
use super::linux::control::Control;
use super::linux::descriptors;
use super::linux::health::Request;
use super::linux::inbox::Inbox;
use super::linux::keepers;
use super::linux::keeping::Keeping;
use super::linux::kernel::Interrupter;
use super::linux::listen::Listener;
use super::linux::log::Log;
use super::linux::memory;
use super::linux::place::Place;
use super::linux::privileges;
use super::linux::runsv::{self, Parent};
use super::linux::signals::Signals;
use super::linux::stored::{Failed, Stored};
use super::linux::watch::Watch;
use super::linux::{listen_as, shared};
use super::machine::{self, Machine};
use super::protocol::{Dropped, LastHandOver, Status};
use super::snapshot::Reading;
use super::words;
use crate::host::{self, Identity, look};
use crate::model::Service;
use crate::model::input::{Capabilities, Fallback, Strategy};
use crate::model::service::Socket;
use generation::Live;

/// Reads the run script; with a file, a snapshot of what a generation would be made of is written to it. The error says in
/// one line what is wrong.
pub type Reader = Box<dyn Fn(Option<&File>) -> Result<Reading, String>>;

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As runsv starts `run`.
    Run,
    /// As runsv starts `finish`: what is left of a service that is to be down is ended.
    Finish,
}

/// See the module.
pub struct Shell {
    read: Reader,
    mode: Mode,
    /// That of the generation that serves, or served last.
    service: Rc<Service>,
    identity: Rc<Identity>,
    machine: Machine,
    generations: BTreeMap<Generation, Live>,
    /// What new generations inherit, and what older ones still have.
    listeners: Vec<Listener>,
    /// Sockets that nobody can reach any more; they are shut down when the service ends.
    closed: Vec<Listener>,
    /// Where its generations are.
    cgroups: enclose::Cgroups,
    /// The reading ends of what the generations say; the keeper reads them.
    outputs: Vec<(u32, OwnedFd)>,
    events: VecDeque<Event>,
    /// Health checks that are under way: one a generation.
    checks: Vec<Request>,
    /// What generations were made of, also of some that are gone.
    made: BTreeMap<Generation, origin::Origins>,
    /// What generations are made of, without a name: a full disk does not keep them from being started.
    snapshots: BTreeMap<Generation, File>,
    /// The secrets of generations, also of some that are gone: what they print last is asked for after their end.
    secrets: VecDeque<(Generation, Vec<String>)>,
    /// What served before the generation that serves, while that is on probation.
    before: Option<File>,
    /// What was proven last, as far as this run knows.
    proven_here: Option<File>,
    /// Why that could not be written down.
    unkept: Option<String>,
    /// What has failed and could not be written down, the newest first.
    unwritten: Vec<Failed>,
    /// What the keeper holds of all that: names and inodes.
    handed: Vec<(String, u64)>,
    /// Why what serves is not what is on disk, if it was not what somebody asked for.
    fallback: Option<String>,
    /// Why what is on disk does not serve, when that was last looked up.
    why: Option<fallback::Why>,
    /// As long as this generation serves, and until then, that is not looked up again.
    disk_rests: Option<(Generation, Moment)>,
    /// What served and has failed, before what serves now was fallen back to.
    toppled: Option<Failed>,
    /// The fingerprint of what somebody has deployed and given up.
    given_up: Option<String>,
    /// Something that was deployed has failed, and may still be on disk.
    suspect: bool,
    /// What outlives a reboot.
    stored: Stored,
    awaited: Option<succeed::Awaited>,
    /// When one generation was last left alone.
    settled_at: Moment,
    /// The last status that somebody has asked for, and when.
    recent: Option<(Moment, Box<Status>)>,
    last: Option<LastHandOver>,
    /// When each generation was started, and which one served then.
    begun: BTreeMap<Generation, (Moment, Option<Generation>)>,
    /// Who has asked for what.
    requests: requests::Requests,
    kept: Option<String>,
    /// What an earlier run has kept, as it was found.
    recalled: Option<String>,
    sequence: u64,
    boot: String,
    trouble: keep::Troubles,
    /// When it is tried again what could not be done.
    retry_at: Option<Moment>,
    /// What the files of the run directory are that this run has made.
    nodes: files::Nodes,
    watch: Option<Watch>,
    /// The files of the Unix sockets.
    sockets: sockets::Sockets,
    /// The private sockets of the generations, which are reached by these whatever becomes of their names.
    probes: BTreeMap<Generation, OwnedFd>,
    /// Something was done that takes much code and comes seldom.
    was_busy: Cell<bool>,
    /// What a failed generation said last.
    said: String,
    /// The pipe that a successor (second) writes to while it gets ready, by the generation that was started with it (first).
    also: Option<(u32, u32)>,
    /// Since when the health check of the generation that serves fails, and why.
    sick: Option<health::Sick>,
    /// When a generation was replaced because its health check failed: those of the last [`health::WINDOW`].
    hung: Vec<Moment>,
    /// How masters have ended whose pidfds were not looked at yet.
    ended: BTreeMap<u32, String>,
    /// Ends of children are left to take.
    unreaped: bool,
    /// Until then the ends of orphans are not looked at ([`notice::ORPHANS`]).
    orphans_until: Option<Moment>,
    end: Option<End>,
    place: Place,
    keeper: Option<Keeping>,
    /// Lines that earlier keepers have dropped, until the present one has taken over their number.
    dropped: Dropped,
    /// When another one may be started.
    keeper_pace: keep::Pace,
    /// It has not answered.
    keeper_is_silent: Cell<bool>,
    inbox: Inbox,
    control: Control,
    signals: Signals,
    interrupter: Interrupter,
    parent: Parent,
    /// Generations that have secrets as files.
    secret_files: secret_files::Holders,
    /// Programs that this run starts get no more than the runtime needs.
    is_bounded: bool,
    /// Whether what it starts may get mounts of its own.
    may_isolate: bool,
    log: Log,
}

/// What a wait was for.
enum Source {
    Signals,
    Parent,
    Keeper,
    Files,
    Inbox,
    Door,
    Peer(Ticket),
    Launcher(Generation),
    Master(Generation),
    Member(Generation),
    Worker(Generation),
    Check(Generation),
}

/// The lengths of time that a service goes by.
fn terms(service: &Service) -> Terms {
    let (handoff, restart) = (&service.handoff, &service.restart);
    Terms {
        boot_timeout: handoff.boot_timeout.milliseconds,
        drain_timeout: handoff.drain_timeout.milliseconds,
        min_uptime: restart.min_uptime.milliseconds,
        backoff_initial: restart.backoff_initial.milliseconds,
        backoff_max: restart.backoff_max.milliseconds.max(restart.backoff_initial.milliseconds),
        // With `usr2` both masters share their sockets, so neither can be asked by itself: the rule `no-effect` says so.
        health: handoff
            .health_check
            .as_ref()
            .filter(|_| handoff.strategy == Strategy::Sockets)
            .map(|check| Health { interval: check.interval.milliseconds, successes: check.successes }),
        exclusive: handoff.strategy == Strategy::Usr2,
        fallback: restart.fallback == Fallback::Proven,
    }
}

/// Whether the service is to be down and an earlier run has left something of it: a record, a keeper, or processes of the
/// application, whatever has become of the run directory.
fn is_left_over(service: &Service) -> bool {
    if runsv::wanted(&service.service.directory) != runsv::Wanted::Down {
        return false;
    }
    let recorded = Place::existing(&service.layout.run).is_some_and(|place| {
        matches!(place.state(), Ok(Some(_)) | Err(_)) || place.recorded_keeper(&clock::boot_id()).is_some()
    });
    recorded
        || enclose::Cgroups::find(&service.application, &service.service.directory).is_any_populated()
        || !keepers::living(Path::new(&service.layout.run), &service.application, &[]).is_empty()
        || host::identity_of(service)
            .is_ok_and(|identity| adopt::is_any_left(&identity, &service.application))
}

/// Executes a service until the run ends. The error is a sentence: it could not be begun.
///
/// `directory`: where the run script lies.
pub fn run(read: Reader, directory: &Path, mode: Mode) -> Result<End, String> {
    // First of all, so that what `sv` asks of a run that has just begun is not its end.
    let signals = Signals::watch().map_err(|error| format!("signals cannot be watched: {error}"))?;
    descriptors::close_in_programs();
    let mut log = Log::open();
    let (service, identity) = origin::begin(&read, directory, &mut log)?;
    if mode == Mode::Finish && !is_left_over(&service) {
        if runsv::wanted(&service.service.directory) == runsv::Wanted::Down
            && let Some(place) = Place::existing(&service.layout.run)
        {
            place.forget_failure();
        }
        return Ok(End::Left);
    }
    let run = service.layout.run.clone();
    let mut shell = begin(read, mode, (service, identity), signals, log).inspect_err(|reason| {
        if let Ok(place) = Place::open(&run) {
            place.note_failure(reason);
        }
    })?;
    shell.interrupter.work();
    shell.place.forget_failure();
    shell.know_file("control");
    shell.know_file("ready");
    shell.watch_files();
    shell.adopt();
    Ok(shell.work())
}

/// All that a run needs; the error is a sentence.
fn begin(
    read: Reader,
    mode: Mode,
    (service, identity): (Rc<Service>, Rc<Identity>),
    signals: Signals,
    mut log: Log,
) -> Result<Shell, String> {
    // What is made here is for others to reach where its mode says so, whatever whoever started runsvdir had in mind.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let interrupter =
        Interrupter::new().map_err(|error| format!("there is no timer for this process: {error}"))?;
    let parent = Parent::look();
    // Orphaned workers come to us, not to process 1, which may take its time to let them go.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("orphans cannot be taken: {error}"))?;
    let is_bounded = give_up_rights(&service, &mut log);
    let may_isolate = !is_bounded || service.hardening.isolates();
    let mut place = Place::open(&service.layout.run)?;
    place.lock(|pid| log.say(&format!("another runtime of this service, pid {pid}, is to leave first")))?;
    let failed =
        |what: &'static str| move |error: std::io::Error| format!("{what} cannot be opened: {error}");
    let inbox = Inbox::open(&place, identity.uid).map_err(failed("the socket for readiness"))?;
    let control = Control::open(&place, identity.uid).map_err(failed("the control socket"))?;
    Ok(Shell {
        machine: Machine::new(terms(&service)),
        read,
        mode,
        generations: BTreeMap::new(),
        listeners: vec![],
        closed: vec![],
        cgroups: enclose::Cgroups::find(&service.application, &service.service.directory),
        outputs: vec![],
        events: VecDeque::new(),
        checks: vec![],
        made: BTreeMap::new(),
        recent: None,
        snapshots: BTreeMap::new(),
        secrets: VecDeque::new(),
        before: None,
        proven_here: None,
        unkept: None,
        unwritten: vec![],
        handed: vec![],
        fallback: None,
        why: None,
        disk_rests: None,
        toppled: None,
        given_up: None,
        suspect: false,
        stored: Stored::of(Path::new(&service.service.directory)),
        awaited: None,
        settled_at: clock::now(),
        last: None,
        begun: BTreeMap::new(),
        requests: requests::Requests::default(),
        kept: None,
        recalled: None,
        sequence: 0,
        boot: clock::boot_id(),
        trouble: keep::Troubles::default(),
        retry_at: None,
        nodes: files::Nodes::new(),
        watch: None,
        sockets: sockets::Sockets::default(),
        probes: BTreeMap::new(),
        was_busy: Cell::new(false),
        said: String::new(),
        also: None,
        sick: None,
        hung: vec![],
        ended: BTreeMap::new(),
        unreaped: false,
        orphans_until: None,
        end: None,
        place,
        service,
        identity,
        keeper: None,
        dropped: Dropped::default(),
        keeper_pace: keep::Pace::default(),
        keeper_is_silent: Cell::new(false),
        inbox,
        control,
        signals,
        interrupter,
        parent,
        secret_files: secret_files::Holders::new(),
        may_isolate,
        is_bounded,
        log,
    })
}

/// Gives up what a runtime does not need of root's rights; also for what it starts, if that is to have none of them. Whether it is so.
fn give_up_rights(service: &Service, log: &mut Log) -> bool {
    let kept = privileges::of_runtime(&service.hardening);
    let gave_up = privileges::keep_only(kept);
    if service.hardening.capabilities == Capabilities::Inherited || !rustix::process::geteuid().is_root() {
        return false;
    }
    match gave_up.and_then(|()| privileges::bound(kept)) {
        Ok(()) => true,
        Err(error) => {
            log.say(&format!("this run keeps all capabilities: {error}"));
            false
        }
    }
}

impl Shell {
    fn work(&mut self) -> End {
        loop {
            self.settle_events();
            self.control.tidy(clock::now());
            // Whoever asks and goes, again and again, is not remembered.
            self.machine.forget_gone(|ticket| self.control.identity(ticket).is_some());
            if let Some(end) = self.end {
                self.finish(end);
                return end;
            }
            match self.wait() {
                Ok(sources) => {
                    for source in sources {
                        // A health check comes so often that its code may stay.
                        self.was_busy.set(self.was_busy.get() || !matches!(source, Source::Check(_)));
                        self.notice(&source);
                    }
                }
                Err(error) => {
                    // Without waiting there is nothing to be done here; the next run adopts the application.
                    self.log.say(&format!("waiting failed: {error}; this run ends, the application goes on"));
                    return End::Left;
                }
            }
            self.look_at_the_time();
        }
    }

    /// Tells the machine everything that waits, and does what it answers.
    fn settle_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            if !self.note_request(&event) {
                continue;
            }
            self.note_health(&event);
            let candidate = self.machine.candidate().map(|candidate| candidate.generation);
            let actions = self.machine.step(clock::now(), event);
            if let Some(candidate) = requests::superseded(candidate, &actions) {
                self.requests.supersede(candidate);
            }
            self.note_replacements(&actions);
            // What was decided is written down before it is done: if this run is killed in between, the next one does it.
            self.keep();
            self.obey(actions);
        }
        self.keep();
    }

    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.act(action);
        }
    }

    fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn ask(&mut self, ask: Ask) {
        self.tell(Event::Asked(ask));
    }

    fn look_at_the_time(&mut self) {
        let now = clock::now();
        if self.unreaped {
            self.reap();
        }
        self.look_at_the_keeper();
        self.count_dropped();
        if self.watch.is_none() {
            self.restore_files();
        }
        let is_due = self.sockets.due.is_some_and(|due| due <= now);
        if is_due || self.watch.is_none() || self.sockets.are_unwatched {
            self.look_at_sockets();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry();
        }
        for check in self.checks.extract_if(.., |check| check.until <= now).collect::<Vec<_>>() {
            let reason = check.late();
            self.tell(Event::Sick(check.generation, reason));
        }
        self.look_at_the_master();
        self.look_at_workers(now);
        self.look_at_the_dying(now);
        self.look_at_the_rest(now);
        let alive: Vec<_> = self
            .generations
            .iter_mut()
            .filter_map(|(generation, live)| live.is_alive_since(now).then_some(*generation))
            .collect();
        for generation in alive {
            self.tell(Event::Ready(generation));
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell(Event::Due);
        }
    }

    /// Waits until something happens or a moment has come.
    fn wait(&self) -> Result<Vec<Source>, Errno> {
        let mut sources = vec![Source::Inbox];
        let mut fds = vec![PollFd::new(&self.inbox, PollFlags::IN)];
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        let orphans_until = self.orphans_until.filter(|until| *until > clock::now());
        if orphans_until.is_none() {
            add(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        }
        if let Some(end) = self.parent.end() {
            add(Source::Parent, end, PollFlags::IN);
        }
        if let Some(keeper) = &self.keeper {
            add(Source::Keeper, keeper.as_fd(), PollFlags::IN);
        }
        if let Some(watch) = &self.watch {
            add(Source::Files, watch.as_fd(), PollFlags::IN);
        }
        for check in &self.checks {
            add(Source::Check(check.generation), check.as_fd(), check.flags());
        }
        for (ticket, fd, flags) in self.control.sources() {
            add(ticket.map_or(Source::Door, Source::Peer), fd, flags);
        }
        for (generation, live) in &self.generations {
            if let Some(launcher) = &live.launcher {
                add(Source::Launcher(*generation), launcher.as_fd(), PollFlags::IN);
            }
            if let Some(master) = &live.master {
                add(Source::Master(*generation), master.as_fd(), PollFlags::IN);
            }
            // One is enough: when it has ended, the others are looked at again.
            if let Some(member) = live.members.first() {
                add(Source::Member(*generation), member.as_fd(), PollFlags::IN);
            }
            // So that it is known since when the generation that serves has too few.
            if live.is_ready && self.machine.serving().is_some_and(|one| one.generation == *generation) {
                for worker in live.workers.values() {
                    add(Source::Worker(*generation), worker.as_fd(), PollFlags::IN);
                }
            }
        }
        let deadline = [
            self.unreaped.then(clock::now),
            orphans_until,
            self.machine.deadline(),
            self.control.deadline(),
            self.checks.iter().map(|check| check.until).min(),
            self.awaited.as_ref().map(succeed::Awaited::deadline),
            self.generations
                .values()
                .filter_map(|live| live.alive_at.into_iter().chain(live.look_at).min())
                .min(),
            self.retry_at,
            self.sockets.due,
            self.generations.values().filter_map(|live| live.watch.as_ref()).map(workers::Watch::due).min(),
        ];
        let deadline = deadline.into_iter().flatten().min();
        self.interrupter.rest();
        // While one generation serves alone there may be nothing to do for months: what was needed to get there is given back, last of
        // all, because whatever runs afterwards comes back.
        if matches!(self.machine.state(), machine::State::Serving(_)) && self.was_busy.take() {
            memory::give_back();
        }
        let polled = loop {
            match poll(&mut fds, deadline.map(clock::until).as_ref()) {
                // What has come is in the pipe of the signals.
                Err(Errno::INTR) => {}
                polled => break polled,
            }
        };
        self.interrupter.work();
        polled?;
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    /// A server that was killed leaves its PID file and its sockets' files behind.
    fn remove_what_the_server_made(&self) {
        self.remove_pid_files(&self.service, false);
        for path in self.service.bind.iter().filter_map(Socket::unix_path) {
            if look::kind(path) == Some(FileType::Socket) {
                listen_as::unlink(path, &self.identity);
            }
        }
    }

    fn finish(&mut self, end: End) {
        match end {
            End::Left => {}
            End::Stopped => {
                self.end_strays();
                self.end_cgroups(true);
                for listener in &self.listeners {
                    listener.unlink(&self.identity);
                }
                // Whoever has a copy, and is not known, serves nobody by it.
                shared::refuse(&self.listeners);
                shared::refuse(&self.closed);
                if self.service.handoff.strategy == Strategy::Usr2 {
                    self.remove_what_the_server_made();
                }
                self.end_keepers();
                shared::close(std::mem::take(&mut self.outputs).into_iter().map(|(_, pipe)| pipe).collect());
                self.place.clear();
                self.log.say(&words::sentence(&Step::Stopped));
            }
        }
    }
}
