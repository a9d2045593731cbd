//! What the machine asks for, done.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::SocketType;
use rustix::pipe::{PipeFlags, pipe_with};

use super::generation::{ALIVE, Live, others};
use super::workers::Watch;
use super::{Shell, terms};
use crate::host::environments::Environments;
use crate::host::{self, Identity};
use crate::model::CREDENTIALS;
use crate::model::Service;
use crate::model::input::Capabilities::Inherited;
use crate::model::input::{Ready, Strategy};
use crate::runtime::action::{Action, GIVEN_UP, Origin, Outcome, Step};
use crate::runtime::event::{Event, Generation, Moment, Ticket};
use crate::runtime::linux::health::Request;
use crate::runtime::linux::launch::{self, Order, Said};
use crate::runtime::linux::listen::{self, Listener};
use crate::runtime::linux::spawn::Launcher;
use crate::runtime::linux::{clock, process, shared};
use crate::runtime::protocol::{LastHandOver, Reply};
use crate::runtime::snapshot::{Made, is_code_path, pinned};
use crate::runtime::state::Life;
use crate::runtime::{cause, server, words};
use crate::visible::without_numbers;

impl Shell {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Start(generation, origin) => {
                self.begins(generation);
                if origin == Origin::Disk {
                    self.requests.begin(generation);
                }
                if origin == Origin::Serving {
                    self.begins_for_sockets(generation);
                }
                if let Err(reason) = self.start(generation, origin) {
                    self.forget(generation);
                    self.tell(Event::NotStarted(generation, reason));
                }
            }
            Action::Succeed(old, new) => {
                self.begins(new);
                self.requests.begin(new);
                if let Err(reason) = self.succeed(old, new) {
                    self.tell(Event::NotStarted(new, reason));
                }
            }
            Action::Check(generation) => self.check(generation),
            Action::Retire(generation) => self.retire(generation),
            Action::AskWorkers(generation) => self.ask_workers(generation),
            Action::Prove(generation) => self.prove(generation),
            Action::Condemn(generation, reason) => {
                let reason = self.explained_exit(generation, &reason);
                self.condemn(generation, &reason);
            }
            Action::KeepBefore(generation) => self.keep_before(generation),
            Action::Kill(generation) => {
                let others = others(&self.generations, generation);
                if let Some(live) = self.generations.get_mut(&generation) {
                    let all = live.processes();
                    live.kill(clock::now(), &all, &others);
                }
                let is_all_killed = self.kill_shared_cgroup(generation);
                let lost = self.generations.get_mut(&generation).and_then(|live| {
                    // It would never end by a signal that it does not get. A cgroup ends with whatever is in it.
                    let is_out_of_reach =
                        live.launcher.is_none() && live.own_cgroup().is_none() && !is_all_killed;
                    live.master.take_if(|master| is_out_of_reach && !master.is_users() && !master.has_ended())
                });
                if let Some(lost) = lost {
                    self.log.say(&format!(
                        "process {}, the master of {generation}, runs as another user by now: it is left alone",
                        lost.pid
                    ));
                }
                self.tell_if_undying(generation);
                self.tell_if_gone(generation);
            }
            Action::Reopen(generation) => {
                if let Some(live) = self.generations.get(&generation) {
                    live.reopen();
                }
            }
            // It is said when it is true: once what was left is cleared away.
            Action::Tell(Step::Stopped) => {}
            Action::Tell(step) => self.tell_step(&step),
            Action::Answer(ticket, outcome) => self.answer(ticket, &outcome),
            Action::Settled(generation) => self.settled(generation),
            Action::Close => self.close(),
            Action::End(end) => self.end = Some(end),
        }
    }

    /// Reports once, to the log and to all who wait, that a generation does not end although it was killed.
    fn tell_if_undying(&mut self, generation: Generation) {
        let now = clock::now();
        let Some(live) = self.generations.get_mut(&generation).filter(|live| !live.undying) else { return };
        let Some(why) = live.why_undying(now) else { return };
        live.undying = true;
        let sentence = format!("{generation} does not end: {why}");
        self.log.say(&sentence);
        self.control.step(now, &sentence);
    }

    /// A generation is started; what an earlier one said explains nothing of it.
    fn begins(&mut self, generation: Generation) {
        let from = self.machine.serving().map(|serving| serving.generation);
        self.begun.insert(generation, (clock::now(), from));
        self.said.clear();
    }

    /// Starts a generation.
    fn start(&mut self, generation: Generation, origin: Origin) -> Result<(), String> {
        // Its workers report by a file there.
        self.restore_files();
        let reading = self.reading(generation, origin)?;
        let service = Rc::new(reading.service);
        self.may_follow(&service)?;
        if self.is_bounded && service.hardening.capabilities == Inherited {
            self.log.say(
                "note: `hardening.capabilities: inherited` takes `sv down` and `sv up`: this run has given up what it needs not",
            );
        }
        let identity = Rc::new(host::identity_of(&service)?);
        let inherits = service.handoff.strategy == Strategy::Sockets;
        if inherits {
            self.open_listeners(&service, &identity)?;
            self.watch_sockets();
        } else {
            self.remove_pid_files(&service, false);
            self.forget_foreign();
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| format!("there is no pipe for its output: {error}"))?;
        self.outputs.push((generation.0, reader));
        self.update_keeper(false);

        // Its workers tell of themselves as its user.
        let told = self.inbox.give(&self.place, identity.uid);
        told.map_err(|error| format!("the socket for readiness cannot be given to its user: {error}"))?;
        let probe = self.probe(&service, generation)?;
        let secrets = self.give_secret_files(&service, &identity, generation)?;
        let mut order = self.order(&service, &identity, generation, &reading.made, probe.is_some())?;
        let secrets = secrets.map(|path| (CREDENTIALS.to_owned(), path.display().to_string()));
        order.environment.extend(secrets);
        let inherited: Vec<&Listener> = service
            .bind
            .iter()
            .filter_map(|socket| self.listeners.iter().rev().find(|one| one.kept.address == socket.address))
            .filter(|_| inherits)
            .collect();
        let snapshot = self.snapshots.get(&generation).ok_or("what it is made of is not known")?;
        let launcher = Launcher::start(&order, &writer, &inherited, probe.as_ref(), snapshot)
            .map_err(|error| format!("no process can be started: {error}"))?;
        let master = (launcher.process.pid, launcher.process.start);
        let sockets = inherited.iter().filter_map(|one| one.kept.node).collect();
        let (cgroup, unlimited) = self.enclose(generation, &launcher.process, &service.cgroup);
        let life = Life {
            generation,
            master,
            session: master.0,
            uid: identity.uid,
            since: clock::now(),
            release: reading.made.release.clone(),
            fingerprint: reading.made.fingerprint.clone(),
            fallback: self.made.get(&generation).is_some_and(|one| one.is_fallback),
            workers: (0, None),
            ready: vec![],
            sockets: Some(sockets),
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.kept()),
            unlimited,
            probe: probe.is_some(),
        };
        let mut live = Live::new(life, &service, &identity, Some(launcher.process));
        live.cgroup = cgroup;
        live.launcher = Some(launcher.socket);
        self.generations.insert(generation, live);
        self.log.say(&format!(
            "{generation} is master {} in {}",
            master.0,
            self.generations.get(&generation).map_or("", |live| &live.life.release)
        ));
        // Only what is written down may run: if this runtime is killed now, the launcher goes by itself.
        self.keep();
        let told = self.generations.get(&generation).and_then(|live| live.launcher.as_ref());
        if let Some(socket) = told
            && let Err(error) = crate::runtime::linux::passing::send(socket, b"go", &[])
        {
            // It has ended before it was told anything, and has said why unless it was killed.
            return Err(match launch::hear(socket) {
                Said::Failed(reason) => reason,
                Said::Nothing | Said::Runs => format!("the launcher has gone: {error}"),
            });
        }
        Ok(())
    }

    /// What a service cannot change while it runs.
    pub(super) fn may_follow(&self, service: &Service) -> Result<(), String> {
        let old = &self.service;
        let changed = [
            ("application", service.application != old.application),
            ("layout.run", service.layout.run != old.layout.run),
            ("service.directory", service.service.directory != old.service.directory),
            ("hardening", !self.may_isolate && service.hardening.isolates()),
            ("handoff.strategy", service.handoff.strategy != old.handoff.strategy),
            ("hardening.capabilities", self.is_bounded && service.hardening.capabilities == Inherited),
        ];
        // While nothing lives, only what this run stands on counts.
        let counts = if self.generations.is_empty() { &changed[..4] } else { &changed[..] };
        match counts.iter().find(|(_, is_changed)| *is_changed) {
            Some((name, _)) => Err(format!("`{name}` has changed, which takes `sv down` and `sv up`")),
            None => Ok(()),
        }
    }

    /// Opens the addresses that are new, or that cannot be reached by their names any more.
    fn open_listeners(&mut self, service: &Service, identity: &Identity) -> Result<(), String> {
        if service.bind.len() > listen::MOST {
            return Err(format!("it has more than {} addresses", listen::MOST));
        }
        let mut opened = vec![];
        for socket in &service.bind {
            let known = self.listeners.iter().rev().find(|one| one.kept.address == socket.address);
            if known.is_some_and(|one| one.kept.is_in_place()) {
                continue;
            }
            let is_lost = known.is_some();
            let listener = listen::open(socket, identity)
                .map_err(|reason| format!("{} cannot be listened on: {reason}", socket.address))?;
            if is_lost {
                let address = &socket.address;
                self.log.say(&format!("the file of {address} was removed or replaced: it is opened again"));
                self.sockets.reopened.insert(address.clone());
            }
            opened.push(listener);
        }
        for listener in &opened {
            self.log.say(&format!("listening on {}", listener.kept.address));
        }
        self.listeners.extend(opened);
        Ok(())
    }

    /// The private socket by which this generation alone is asked for its health.
    fn probe(&mut self, service: &Service, generation: Generation) -> Result<Option<OwnedFd>, String> {
        if service.handoff.health_check.is_none() || service.handoff.strategy != Strategy::Sockets {
            return Ok(None);
        }
        let name = probe_name(generation);
        let socket = self.place.socket(&name, SocketType::STREAM, None);
        let socket =
            socket.map_err(|error| format!("its socket for health checks cannot be opened: {error}"))?;
        self.hold_probe(generation);
        Ok(Some(socket))
    }

    /// What the launcher is to do.
    fn order(
        &self,
        service: &Service,
        identity: &Identity,
        generation: Generation,
        made: &Made,
        probe: bool,
    ) -> Result<Order, String> {
        let place = |name: &str| self.place.file(name).display().to_string();
        let pins = self.pins(service, generation, made);
        let mut environment = vec![
            ("HOME".to_owned(), service.home.clone()),
            ("USER".to_owned(), service.user.clone()),
            ("LOGNAME".to_owned(), service.user.clone()),
            ("PATH".to_owned(), service.search_path()),
        ];
        environment.extend(service.virtualenv.iter().map(|venv| ("VIRTUAL_ENV".to_owned(), venv.clone())));
        // A PATH that is written there comes later, and is what the application sees.
        environment.extend(service.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
        for (name, value) in &mut environment {
            if is_code_path(name) {
                *value = pinned(value, &pins);
            }
        }
        environment.push(("RUNSMITH_SERVICE".to_owned(), service.application.clone()));
        environment.push(("RUNSMITH_GENERATION".to_owned(), generation.0.to_string()));
        environment.push(("RUNSMITH_RELEASE".to_owned(), made.release.clone()));
        match service.handoff.ready {
            Ready::Workers => environment.push(("RUNSMITH_READY".to_owned(), place("ready"))),
            Ready::Notify => environment.push(("NOTIFY_SOCKET".to_owned(), place("ready"))),
            Ready::Alive => {}
        }
        if probe {
            environment.push(("RUNSMITH_PROBE".to_owned(), place(&probe_name(generation))));
        }
        let inherits = service.handoff.strategy == Strategy::Sockets;
        let mut command: Vec<String> = service.command.iter().map(|word| pinned(word, &pins)).collect();
        if let Some((path, copy)) = self.config(service, generation, identity)? {
            let copy = copy.display().to_string();
            command.iter_mut().filter(|word| **word == path).for_each(|word| *word = copy.clone());
        }
        Ok(Order {
            command,
            environment,
            user: identity.switch.then(|| (identity.uid, identity.gid, identity.groups.clone())),
            directory: made.release.clone(),
            pins,
            limits: service.limits.iter().map(|(name, limit)| (*name, limit.soft, limit.hard)).collect(),
            umask: u32::from_str_radix(&service.umask, 8).unwrap_or(0o022),
            nice: service.nice,
            oom_score_adj: service.oom_score_adj,
            hardening: service.hardening,
            secret_files: service.secret_files.clone(),
            listeners: if inherits { service.bind.len() + usize::from(probe) } else { 0 },
        })
    }

    /// The launcher has become the server, or has failed.
    pub(super) fn launched(&mut self, generation: Generation) {
        let Some(live) = self.generations.get_mut(&generation) else { return };
        let Some(socket) = &live.launcher else { return };
        match launch::hear(socket) {
            Said::Nothing => {}
            Said::Runs => {
                live.launcher = None;
                if let Some(master) = &mut live.master {
                    master.belongs_to(live.life.uid);
                }
                // A launcher that was killed closes its socket, too; then its end is told.
                if live.master.as_ref().is_none_or(process::Process::has_ended) {
                    return;
                }
                if live.ready() == Ready::Alive {
                    live.alive_at = Some(clock::now().after(ALIVE));
                }
                if server::reports_workers(live.service.server).is_none() {
                    live.watch = Some(Watch::begin(clock::now()));
                }
                let loads_unseen = live.ready() != Ready::Workers;
                let terms = terms(&live.service);
                self.tell(Event::Started(generation, terms));
                if loads_unseen {
                    self.tell(Event::Loaded(generation));
                }
            }
            Said::Failed(reason) => {
                // It ends in a moment, and is told as failed then: nothing of it is left when somebody is told.
                live.launcher = None;
                live.failed = Some(reason);
            }
        }
    }

    fn check(&mut self, generation: Generation) {
        let Some(live) = self.generations.get(&generation) else { return };
        let Some(check) = live.service.handoff.health_check.clone() else { return };
        if let Some(master) = &live.master
            && process::stat(master.pid).is_some_and(|stat| matches!(stat.state, b'T' | b't'))
        {
            // Its workers may answer; but nobody replaces them, and nobody hears a signal.
            self.tell(Event::Sick(generation, format!("its master {} is stopped", master.pid)));
            return;
        }
        let path = self.probe_path(generation);
        match Request::begin(generation, &path, &check, clock::now()) {
            Ok(request) => {
                self.checks.retain(|check| check.generation != generation);
                self.checks.push(request);
            }
            Err(reason) => self.tell(Event::Sick(generation, reason)),
        }
    }

    /// gunicorn's master passes TERM on to its workers; one that was just forked has no handler for it yet, and goes on
    /// serving until it is killed. So they are asked themselves. unicorn's master repeats the signal by itself, and its workers
    /// end at once at a second one of ours.
    fn ask_workers(&mut self, generation: Generation) {
        let others = others(&self.generations, generation);
        let Some(live) = self.generations.get(&generation) else { return };
        if !server::passes_on_late(live.service.server) || live.launcher.is_some() {
            return;
        }
        let Some(master) = live.master.as_ref().map(|master| master.pid) else { return };
        let all = live.processes();
        live.all_members(&all, &others, |member| {
            let is_worker = all.get(&member.pid).is_some_and(|stat| stat.parent == master && !stat.has_run);
            if is_worker && live.may_have_missed(member.pid) {
                member.signal(server::graceful(live.service.server));
            }
        });
    }

    fn retire(&mut self, generation: Generation) {
        let all = self.generations.get(&generation).map(Live::processes).unwrap_or_default();
        let others = others(&self.generations, generation);
        if let Some(live) = self.generations.get_mut(&generation)
            && !Self::kill_without_workers(live, &all, &others)
        {
            Self::end(live, &all, &others);
        }
        for (pid, start) in self.strays_of(generation, &all, &Environments::default()) {
            if let Some(stray) = process::Process::proven(pid, start, Some(self.identity.uid)) {
                stray.signal(server::Signal::Term);
            }
        }
        self.tell_if_gone(generation);
    }

    /// Kills what has no worker yet, and so no requests; false if it may have one. An interpreter that gets a signal to stop while
    /// it loads may take that for an error of what it loads, go on, and serve half loaded until it is killed: of 150 unicorns that
    /// got QUIT while they loaded, 19 went on. Once a master has forked a worker it handles signals.
    fn kill_without_workers(live: &mut Live, all: &HashMap<u32, process::Stat>, others: &[u32]) -> bool {
        if live.launcher.is_some() || !live.has_no_worker(all) {
            return false;
        }
        let is_still = live.stand_still(others);
        let all = live.processes();
        if !is_still || !live.has_no_worker(&all) {
            live.wake(&all, others);
            return false;
        }
        live.is_retired = true;
        live.kill(clock::now(), &all, others);
        true
    }

    fn end(live: &mut Live, all: &HashMap<u32, process::Stat>, others: &[u32]) {
        if live.launcher.is_some() {
            // It has not run anything yet.
            live.kill(clock::now(), all, others);
        } else {
            if live.master.is_none() {
                live.look(all, others);
            }
            live.retire(all, others);
        }
    }

    /// Who was to be told to go may have gone since it was looked up last; then nothing of it is left to wait for.
    fn tell_if_gone(&mut self, generation: Generation) {
        let is_left =
            |live: &Live| live.master.is_some() || live.launcher.is_some() || !live.members.is_empty();
        if !self.generations.get(&generation).is_some_and(is_left) {
            self.forget(generation);
            self.tell(Event::Gone(generation));
        }
    }

    fn tell_step(&mut self, step: &Step) {
        let step = &self.explained_step(step);
        let mut sentence = match step {
            Step::BackOff(failures, wait) => {
                words::back_off(*failures, *wait, self.orphans_serve(), &self.reference())
            }
            _ => words::sentence(step),
        };
        if let Step::Serves(new, _) | Step::Done(new) = step
            && let Some((begun, _)) = self.begun.get(new)
        {
            let took = clock::now().since(*begun) as f64 / 1000.0;
            sentence.push_str(&format!(" ({took:.2} s after its start)"));
        }
        match step {
            // Mostly something else of it is left, and this is done again when that has gone.
            Step::BackingOut(generation, _) | Step::Dropped(generation, _) => {
                self.end_strays_if_gone(*generation);
            }
            Step::Failed(None, _) => {
                self.newest().into_iter().for_each(|generation| self.end_strays_if_gone(generation));
            }
            _ => {}
        }
        match step {
            Step::BackingOut(generation, reason) => {
                self.note(*generation, Some(reason.clone()));
                // What has failed was condemned before.
                if reason.starts_with(GIVEN_UP) {
                    self.given_up = self.made.get(generation).map(|origins| origins.made.fingerprint.clone());
                }
            }
            Step::FailedProbation(generation, reason) => self.topple(*generation, reason),
            Step::Failed(None, reason) => {
                if let Some(generation) = self.newest() {
                    self.note(generation, Some(reason.clone()));
                }
            }
            _ => {}
        }
        self.log.say(&sentence);
        self.control.step(clock::now(), &sentence);
    }

    /// The generation that was started last.
    fn newest(&self) -> Option<Generation> {
        self.begun.keys().next_back().copied()
    }

    /// A step of a failure with the line that explains it, from what the generation said last.
    fn explained_step(&mut self, step: &Step) -> Step {
        match step {
            Step::BackingOut(generation, reason) => {
                self.quote(*generation);
                Step::BackingOut(*generation, self.explained(reason))
            }
            Step::Failed(None, reason) => {
                if let Some(generation) = self.newest() {
                    self.quote(generation);
                }
                Step::Failed(None, self.explained(reason))
            }
            Step::Failed(goes_on, reason) => Step::Failed(*goes_on, self.explained(reason)),
            Step::FailedProbation(generation, reason) => {
                Step::FailedProbation(*generation, self.explained_exit(*generation, reason))
            }
            step => step.clone(),
        }
    }

    fn explained(&self, reason: &str) -> String {
        if reason == GIVEN_UP {
            return self.requests.explained(reason);
        }
        let reason = without_numbers(reason);
        match cause::of_failure(&self.said) {
            Some(cause) => format!("{reason}: {cause}"),
            None => reason.into_owned(),
        }
    }

    /// Why a process of this generation has exited, with the line that explains it. A signal or a failed check is explained by
    /// nothing that was printed.
    fn explained_exit(&self, generation: Generation, reason: &str) -> String {
        let cause =
            reason.contains("exit").then(|| cause::of_failure(&self.last_words(generation))).flatten();
        match cause {
            Some(cause) => format!("{reason}: {cause}"),
            None => reason.to_owned(),
        }
    }

    /// How a start has gone, for the status.
    pub(super) fn note(&mut self, generation: Generation, reason: Option<String>) {
        let begun = self.begun.get(&generation).copied();
        self.last = Some(LastHandOver {
            at: clock::wall(),
            done: reason.is_none(),
            generation: generation.0,
            from: begun.and_then(|(_, from)| from).map(|from| from.0),
            because: self.started_because(generation),
            requested_by: self.requests.of(generation).cloned(),
            given_up_by: self.requests.given_up(generation).filter(|_| reason.is_some()).cloned(),
            reason,
            took_ms: begun.map_or(0, |(begun, _)| clock::now().since(begun)),
        });
        self.begun.retain(|one, _| *one >= generation);
    }

    /// Starts without an outcome, for the next run.
    pub(super) fn undecided(&self) -> Vec<(Generation, Moment, Option<Generation>)> {
        let decided = self.last.as_ref().map_or(0, |last| last.generation);
        let open = self.begun.iter().filter(|(one, _)| one.0 > decided);
        open.map(|(one, (begun, from))| (*one, *begun, *from)).collect()
    }

    /// Remembers what a failed generation said last: the log has it already.
    fn quote(&mut self, generation: Generation) {
        self.said = self.last_words(generation);
    }

    /// The generation that was started with the pipe that this one writes to. With `usr2` a master starts its successor, which
    /// writes to the same one.
    pub(super) fn pipe_of(&self, generation: Generation) -> Generation {
        if self.service.handoff.strategy != Strategy::Usr2 {
            return generation;
        }
        let pipes = self.outputs.iter().map(|(number, _)| Generation(*number));
        pipes.filter(|pipe| *pipe <= generation).max().unwrap_or(generation)
    }

    /// What a generation said last. An application may say what nobody else is to see, so its secrets are masked.
    pub(super) fn last_words(&self, generation: Generation) -> String {
        let is_mixed = self.also.is_some_and(|(_, one)| one == generation.0);
        let said = if is_mixed {
            cause::of_successor(&self.last_lines(generation))
        } else {
            self.last_lines(self.pipe_of(generation))
        };
        self.without_secrets(generation, &said)
    }

    fn answer(&mut self, ticket: Ticket, outcome: &Outcome) {
        let reply = match outcome {
            Outcome::Done(generation) | Outcome::Proven(generation) => Reply::Done {
                generation: generation.0,
                probation_ms: self.probation_ms(),
                falls_back: self.after_failure().is_some_and(|next| next.is_other),
                next: self.after_failure().map(|next| next.release),
                queued: self.machine.is_queued() || self.machine.candidate().is_some(),
                unkept: self.not_written_down().filter(|_| matches!(outcome, Outcome::Proven(_))),
            },
            Outcome::BackedOut(reason) => self.backed_out(None, reason, false),
            Outcome::GivenUp(reason) => self.backed_out(None, reason, true),
            Outcome::FailedProbation(generation, reason) => self.backed_out(Some(*generation), reason, false),
            Outcome::Refused(reason) => Reply::Refused { reason: without_numbers(reason).into_owned() },
        };
        self.control.finish(ticket, &reply);
    }

    /// Whether workers whose master has ended serve. With `usr2` they leave as soon as they see that.
    pub(super) fn orphans_serve(&self) -> bool {
        let orphans = self.machine.orphans().iter().filter_map(|one| self.generations.get(one));
        let orphans: Vec<_> =
            orphans.filter(|live| live.service.handoff.strategy != Strategy::Usr2).collect();
        let lives = |pid: u32, stat: &process::Stat| {
            orphans.iter().any(|live| {
                live.has_session(stat.session)
                    && pid != live.life.session
                    && process::runs_as(pid, live.life.uid)
            })
        };
        !orphans.is_empty() && process::all().iter().any(|(pid, stat)| lives(*pid, stat))
    }

    /// The outcome of what has failed. `on_probation`: the generation that had taken over.
    fn backed_out(&self, on_probation: Option<Generation>, reason: &str, given_up: bool) -> Reply {
        let serving = self.machine.serving().map(|serving| serving.generation);
        let release = |one: Generation| Some(self.generations.get(&one)?.life.release.clone());
        Reply::BackedOut {
            on_probation: on_probation.is_some(),
            reason: match on_probation {
                Some(generation) => {
                    format!("{generation} failed on probation: {}", self.explained_exit(generation, reason))
                }
                None if given_up => self.requests.explained(reason),
                None => self.explained(reason),
            },
            // What was said last is that of another generation by now.
            output: if on_probation.is_some() || given_up { String::new() } else { self.said.clone() },
            serving: serving.map(|one| one.0),
            release: serving.and_then(release),
            candidate: self.machine.candidate().map(|candidate| candidate.generation.0),
            orphans: serving.is_none() && self.orphans_serve(),
            given_up,
        }
    }

    /// One generation is left: what only others had is closed.
    fn settled(&mut self, generation: Generation) {
        self.settled_at = clock::now();
        self.hear_also(None);
        self.restore_files();
        self.end_cgroups(false);
        // After a back-out the one that is left is older than the one that failed.
        if self.begun.contains_key(&generation)
            && self.last.as_ref().is_none_or(|last| last.generation < generation.0)
        {
            self.note(generation, None);
        }
        if let Some(live) = self.generations.get(&generation) {
            self.service = Rc::clone(&live.service);
            self.identity = Rc::clone(&live.identity);
        }
        let uid = self.identity.uid;
        if let Err(error) =
            self.inbox.give(&self.place, uid).and_then(|()| self.control.give(&self.place, uid))
        {
            self.log.say(&format!(
                "the sockets in {} cannot be given to its user: {error}",
                self.service.layout.run
            ));
        }
        let wanted: Vec<&str> = self.service.bind.iter().map(|socket| socket.address.as_str()).collect();
        let listeners = std::mem::take(&mut self.listeners);
        let mut seen: Vec<String> = vec![];
        // The newest of a name is the one that counts.
        let mut kept: Vec<Listener> = vec![];
        let mut refused: Vec<Listener> = vec![];
        for listener in listeners.into_iter().rev() {
            let address = listener.kept.address.clone();
            if wanted.contains(&address.as_str()) && !seen.contains(&address) {
                seen.push(address);
                kept.push(listener);
            } else if wanted.contains(&address.as_str()) && self.is_held(&listener.kept) {
                // The generation that serves has not got the newest one.
                kept.push(listener);
            } else if !wanted.contains(&address.as_str()) {
                self.log.say(&format!("no longer listening on {address}"));
                // Only generations that are gone had it.
                listener.unlink(&self.identity);
                refused.push(listener);
            } else {
                // No generation has it any more.
                refused.push(listener);
            }
        }
        shared::refuse(&refused);
        kept.reverse();
        for listener in kept.iter().filter(|listener| listener.kept.is_in_place()) {
            let socket = self.service.bind.iter().find(|socket| socket.address == listener.kept.address);
            let Some(socket) = socket else { continue };
            match listen::adjust(listener, socket, &self.identity) {
                Ok(false) => {}
                Ok(true) => self.log.say(&format!("{} has another mode or owner now", socket.address)),
                Err(reason) => self.log.say(&format!("{} {reason}", socket.address)),
            }
        }
        self.listeners = kept;
        self.update_keeper(false);
        self.know_foreign();
        self.look_at_sockets();
    }

    /// Nothing is to be listened on any more. What waits in the queues can still be answered, so the sockets end with the service.
    fn close(&mut self) {
        let listeners = std::mem::take(&mut self.listeners);
        for listener in &listeners {
            listener.unlink(&self.identity);
        }
        let turned = shared::turn_away(&listeners);
        self.closed.extend(
            listeners.into_iter().zip(turned).filter_map(|(one, is_turned)| is_turned.then_some(one)),
        );
        self.update_keeper(false);
    }

    /// Nothing is left of a generation.
    pub(super) fn forget(&mut self, generation: Generation) {
        let cgroup = self.generations.remove(&generation).and_then(|live| live.cgroup);
        // With `usr2` those that come later write to it.
        let needed: Vec<u32> = self.generations.keys().map(|one| self.pipe_of(*one).0).collect();
        let outputs = std::mem::take(&mut self.outputs).into_iter();
        let (kept, gone) =
            outputs.partition::<Vec<_>, _>(|(one, _)| *one != generation.0 || needed.contains(one));
        self.outputs = kept;
        shared::close(gone.into_iter().map(|(_, pipe)| pipe).collect());
        self.probes.remove(&generation);
        let _ = fs::remove_file(self.place.file(&probe_name(generation)));
        self.checks.retain(|check| check.generation != generation);
        self.forget_snapshot(generation);
        self.forget_secret_files(generation);
        match cgroup {
            Some(cgroup) => self.end_cgroup(generation, cgroup),
            None => self.end_strays_of(generation),
        }
    }
}

/// The name of a generation's private socket in the run directory.
pub(super) fn probe_name(generation: Generation) -> String {
    format!("probe.{}", generation.0)
}
