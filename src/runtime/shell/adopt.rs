//! A run begins: with what an earlier one left, or anew. Nothing is believed that is not verified.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::time::Duration;

use super::act::probe_name;
use super::generation::{Live, others};
use super::{Mode, Shell, terms};
use crate::host::Identity;
use crate::host::environments::Environments;
use crate::model::input::Strategy;
use crate::runtime::action::{Action, Origin};
use crate::runtime::event::{Ask, Generation};
use crate::runtime::linux::clock;
use crate::runtime::linux::keepers;
use crate::runtime::linux::keeping::{Given, Keeping};
use crate::runtime::linux::listen::Kept;
use crate::runtime::linux::process::{self, Process, Stat};
use crate::runtime::linux::runsv::{Wanted, wanted};
use crate::runtime::linux::shared;
use crate::runtime::machine::{Machine, Remains};
use crate::runtime::state::{self, Life, STRAYS, State};

/// A number that a process claims to have as a generation counts below this: it is only a claim, and there must be numbers left.
const LIKELY: u32 = 1_000_000_000;

/// So long it is looked for what a generation has left behind, in milliseconds: whoever starts processes faster than they are
/// killed is ended with the service.
const STRAY_LOOKS: u64 = 800;

/// The same at the end of the service.
const LAST_LOOKS: u64 = 5_000;

/// How long killed processes may take to end before it is looked again, in milliseconds: only one that waits for a disk
/// takes longer.
const STRAY_ENDS: u64 = 100;

/// So many strays are waited for at once, and searched for sockets: each takes a descriptor.
const MOST_SEARCHED: usize = 64;

/// So many strays are searched for the pipes that they write to.
const MOST_PIPES: usize = 16;

/// So many strays are named in the log one by one.
const NAMED: usize = 8;

/// Whether any process of the application lives, known by its variable and its user.
pub(super) fn is_any_left(identity: &Identity, application: &str) -> bool {
    let environments = Environments::default();
    process::all().keys().any(|pid| {
        process::runs_as(*pid, identity.uid) && environments.has(*pid, "RUNSMITH_SERVICE", application)
    })
}

impl Shell {
    /// Takes over what lives, and starts what is missing.
    pub(super) fn adopt(&mut self) {
        let mut given = Keeping::find(&self.place).map(|(keeper, given)| {
            keeper.note_lines(self.log.mark());
            self.keeper = Some(keeper);
            self.dropped = given.held.dropped.clone();
            given
        });
        let files = given.as_mut().map(|given| std::mem::take(&mut given.files)).unwrap_or_default();
        let state = self.recall(given.as_ref());
        let silent = self.silent_keepers(state.as_ref());
        if let Some(state) = &state {
            self.sequence = state.sequence;
            self.last = state.last.clone();
            self.fallback = state.fallback.clone();
            // What was under way is begun again if somebody has asked for it.
            let again = state
                .machine
                .candidate
                .filter(|_| state.machine.candidate_origin.is_none_or(|origin| origin == Origin::Disk));
            self.requests.adopt(&state.requested, state.waits.as_ref(), again);
            self.toppled = state.toppled.clone();
            self.given_up = state.given_up.clone();
            // An earlier version does not say so.
            self.suspect = state.suspect || state.last.as_ref().is_some_and(|last| !last.done);
            self.begun = state.begun.iter().map(|(one, begun, from)| (*one, (*begun, *from))).collect();
        }
        self.take_generations(state.as_ref());
        let mut record = state.as_ref().map(|state| state.machine.clone()).unwrap_or_default();
        self.take_successors(&record);
        let files = files.into_iter().map(|(name, file)| (name, File::from(file))).collect();
        self.take_snapshots(files, state.as_ref());
        self.take_cgroups();
        self.adopt_secret_files();
        self.take_listeners(given, state.as_ref(), &silent);
        let strays = self.take_strays(state.as_ref());
        self.suppose_sockets();
        self.take_outputs();
        self.take_probes();
        if self.mode == Mode::Finish && self.keeper.is_some() && silent.is_empty() {
            // It ends with the service in a moment.
            self.update_keeper(true);
        } else {
            // Whatever version the old one is of, this run's own keeper is of this run's version, and its child: the kernel
            // reports if somebody stops it.
            self.renew_keeper(silent);
        }

        let recorded = record.last;
        record.last = record.last.max(self.generations.keys().next_back().map_or(0, |last| last.0));
        record.orphans.extend(&strays);
        // Whatever lives and has no part is to go, too.
        for generation in self.generations.keys() {
            let has_part = record.serving.is_some_and(|(one, _)| one == *generation)
                || record.candidate == Some(*generation)
                || record.leavers.iter().any(|(one, _)| one == generation)
                || record.orphans.contains(generation)
                || record.overtaken == Some(*generation);
            if !has_part {
                record.orphans.push(*generation);
            }
        }
        let left = |generation| match self.generations.get(&generation) {
            Some(live) if live.master.is_some() => Remains::Master,
            Some(live) if !live.members.is_empty() => Remains::Workers,
            _ => Remains::Nothing,
        };
        let (mut machine, actions) = Machine::adopt(&record, terms(&self.service), clock::now(), left);
        if self.has_proven() {
            machine.knows_proven();
        }
        self.machine = machine;
        self.adopt_proven(&record);
        if let (Some(candidate), Some(_)) = (record.candidate, self.machine.serving())
            && self.begun.contains_key(&candidate)
        {
            self.note(candidate, Some("the runtime was started anew before it was ready".to_owned()));
        }
        let condemned = actions.iter().find_map(|action| match action {
            Action::Condemn(generation, reason) => Some((*generation, reason.clone())),
            _ => None,
        });
        self.obey(actions);
        if let Some((generation, reason)) = condemned {
            // It has served, and ended while no runtime was there.
            self.topple(generation, &reason);
        }
        self.forget_dead_snapshots();
        self.take_stray_snapshot(strays, recorded);
        let lives = self.machine.serving().is_some() || !self.generations.is_empty();
        if self.mode == Mode::Finish {
            self.log.say(
                "the runtime was killed while the service is to be down: the application is ended as well",
            );
            self.ask(Ask::Stop);
        } else if self.machine.serving().is_none() {
            if lives {
                self.log.say("no generation was found that serves");
            }
            let rests = matches!(self.machine.state(), super::super::machine::State::Resting(_));
            if !rests {
                self.ask(Ask::Begin);
            }
        }
        // `sv down` may have come before this run could hear it.
        if self.mode == Mode::Run && self.was_told_to_stop() {
            self.ask(Ask::Stop);
        }
    }

    /// `once` looks the same to a run that begins; but then nothing is running that was to be stopped.
    fn was_told_to_stop(&self) -> bool {
        self.machine.serving().is_some() && wanted(&self.service.service.directory) == Wanted::Down
    }

    /// What an earlier run has kept: the newer of what the file and the keeper say.
    fn recall(&mut self, given: Option<&Given>) -> Option<State> {
        let application = self.service.application.clone();
        let boot = self.boot.clone();
        let from_keeper = given.and_then(|given| given.held.state.as_deref());
        let from_keeper = from_keeper
            .and_then(|text| Some((state::read(text, &application, &boot).ok()?, text.to_owned())));
        let path = self.place.file("state.json").display().to_string();
        let from_file = match self.place.state() {
            Ok(None) => None,
            Ok(Some(text)) => match state::read(&text, &application, &boot) {
                Ok(state) => Some((state, text)),
                Err(reason) => {
                    self.log.say(&format!("{path} does not count: {reason}"));
                    None
                }
            },
            Err(error) => {
                self.log.say(&format!("{path} does not count: {error}"));
                None
            }
        };
        let (state, text) = match (from_keeper, from_file) {
            (Some(one), Some(other)) if other.0.sequence > one.0.sequence => other,
            (Some(one), _) => one,
            (None, other) => other?,
        };
        self.recalled = Some(text);
        Some(state)
    }

    fn take_generations(&mut self, state: Option<&State>) {
        let kept = state.map(|state| state.listeners.as_slice()).unwrap_or_default();
        let environments = Environments::default();
        for life in state.map(|state| state.generations.as_slice()).unwrap_or_default() {
            let (pid, start) = life.master;
            // root's processes are nobody's generation, whatever a record says. Strays are looked for anew.
            if (self.identity.switch && life.uid == 0) || life.is_of_strays() {
                continue;
            }
            let mut master = Process::proven(pid, start, Some(life.uid));
            if life.uid != self.identity.uid
                && let Some(process) = &master
                && !environments.has(pid, "RUNSMITH_SERVICE", &self.service.application)
                && shared::take(process, kept).is_empty()
            {
                // The service may have had another user; then its process has its name or its sockets.
                self.log.say(&format!(
                    "process {pid}, which the record names as {}, is not this service's",
                    life.generation
                ));
                master = None;
            }
            self.know_again(life);
            let cgroup = life.cgroup.as_ref().and_then(|kept| self.enclosed(kept, master.as_ref()));
            let mut live = Live::new(life.clone(), &self.service, &self.identity, master);
            live.life.cgroup = cgroup.as_ref().map(|cgroup| cgroup.kept());
            live.cgroup = cgroup;
            live.has_loaded = life.workers.0 > 0;
            live.is_ready = true;
            self.generations.insert(life.generation, live);
        }
        let generations: Vec<Generation> = self.generations.keys().copied().collect();
        for generation in generations {
            let others = others(&self.generations, generation);
            let Some(live) = self.generations.get_mut(&generation) else { continue };
            let all = live.processes();
            if live.master.is_none() {
                live.look(&all, &others);
                if live.members.is_empty() {
                    let _ = std::fs::remove_file(self.place.file(&probe_name(generation)));
                    // Its cgroup may hold processes all the same: of a record that is wrong, so they may serve. Whoever calls itself
                    // the service becomes a stray, and the rest ends once another generation serves.
                    self.generations.remove(&generation);
                    continue;
                }
            }
            live.adopt_workers(&all);
            live.count(clock::now());
        }
    }

    /// Keepers that do not answer: stopped, of another version, or with a socket that nobody can connect to any more.
    fn silent_keepers(&self, state: Option<&State>) -> Vec<Process> {
        let recorded =
            state.and_then(|state| state.keeper).into_iter().chain(self.place.recorded_keeper(&self.boot));
        let recorded: Vec<_> = recorded.collect();
        let answers = self.keeper.as_ref().map(Keeping::identity);
        let mut living = keepers::living(self.place.directory(), &self.service.application, &recorded);
        living.retain(|keeper| Some((keeper.pid, keeper.start)) != answers);
        living
    }

    /// The private sockets of what lives: as long as their names are there, they are not lost.
    fn take_probes(&mut self) {
        let with_probe = self.generations.values().filter(|live| live.life.probe);
        let generations: Vec<_> = with_probe.map(|live| live.life.generation).collect();
        for generation in generations {
            self.hold_probe(generation);
        }
    }

    /// Listening sockets: from the keeper, else out of a living process: a keeper that does not answer, or the application.
    fn take_listeners(&mut self, given: Option<Given>, state: Option<&State>, silent: &[Process]) {
        if let Some(given) = given {
            self.outputs = given.outputs;
            self.listeners = shared::proven(given.listeners);
        }
        let mut kept: Vec<Kept> = state.map(|state| state.listeners.clone()).unwrap_or_default();
        if kept.is_empty() && !silent.is_empty() {
            // Without a record, what the pillar says is what a keeper can have.
            let addresses = self.service.bind.iter().map(|socket| socket.address.clone());
            kept = addresses.map(|address| Kept { address, node: None }).collect();
        }
        // What a master does not have, or no longer, its workers may have.
        let applications = self.generations.values().flat_map(|live| {
            live.master.iter().chain(live.members.first()).chain(live.workers.values().take(MOST_PIPES))
        });
        for holder in silent.iter().chain(applications) {
            let missing: Vec<Kept> = kept
                .iter()
                .filter(|kept| !self.listeners.iter().any(|one| one.kept.address == kept.address))
                .cloned()
                .collect();
            if missing.is_empty() {
                break;
            }
            let found = shared::take(holder, &missing);
            for listener in &found {
                self.log.say(&format!("{} was taken out of process {}", listener.kept.address, holder.pid));
            }
            self.listeners.extend(found);
        }
    }

    /// What generations say, where no keeper has it. Strays may have begun as several generations, and write to several pipes.
    fn take_outputs(&mut self) {
        for (generation, live) in &self.generations {
            if self.outputs.iter().any(|(one, _)| *one == generation.0) {
                continue;
            }
            let most = if live.life.is_of_strays() { MOST_PIPES } else { 1 };
            let holders = live.master.iter().chain(&live.members).take(most);
            for pipe in holders.filter_map(shared::take_output) {
                if !self.outputs.iter().any(|(_, one)| shared::is_same(one, &pipe)) {
                    self.outputs.push((generation.0, pipe));
                }
            }
        }
    }

    /// Processes of the service in sessions that no generation has.
    fn unknown<'a>(
        &'a self,
        all: &'a HashMap<u32, Stat>,
        environments: &'a Environments,
    ) -> impl Iterator<Item = (&'a u32, &'a Stat)> {
        let left = self.cgroups.left();
        all.iter().filter(move |(pid, stat)| {
            !self.generations.values().any(|live| live.has_session(stat.session))
                && process::runs_as(**pid, self.identity.uid)
                && (left.contains(pid)
                    || environments.has(**pid, "RUNSMITH_SERVICE", &self.service.application))
        })
    }

    /// Ends what has left its generation's session, once everything else has gone.
    pub(super) fn end_strays(&mut self) {
        self.kill_strays(LAST_LOOKS, "", |shell, all, environments| {
            shell.unknown(all, environments).map(|(pid, stat)| (*pid, stat.start)).collect()
        });
    }

    /// Kills strays until there are none, for so many milliseconds, and says so. `of`: whose they are.
    fn kill_strays(
        &mut self,
        limit: u64,
        of: &str,
        find: impl Fn(&Self, &HashMap<u32, Stat>, &Environments) -> Vec<(u32, u64)>,
    ) {
        let environments = Environments::default();
        let until = clock::now().after(limit);
        let mut killed = 0_usize;
        // What is started while this looks is found by the next look.
        while clock::now() < until {
            let strays = find(self, &process::all(), &environments);
            environments.look_again();
            if strays.is_empty() {
                break;
            }
            // All are killed before any is waited for, so that they cannot start each other again one by one.
            let mut some = vec![];
            for (pid, start) in strays {
                let Some(stray) = Process::proven(pid, start, Some(self.identity.uid)) else { continue };
                killed += 1;
                if killed <= NAMED {
                    self.log.say(&format!("process {pid}{of} had left its session and is killed"));
                }
                stray.kill();
                if some.len() < MOST_SEARCHED {
                    some.push(stray);
                }
            }
            let ended = clock::now().after(STRAY_ENDS);
            for stray in &some {
                stray.await_end(Duration::from_millis(ended.since(clock::now())));
            }
        }
        if killed > NAMED {
            self.log.say(&format!(
                "{} more processes{of} had left their sessions and were killed",
                killed - NAMED
            ));
        }
    }

    /// Nothing may be left of a candidate that has failed: then what it has started in sessions of their own ends at once.
    pub(super) fn end_strays_if_gone(&mut self, generation: Generation) {
        if !self.generations.contains_key(&generation) {
            self.end_strays_of(generation);
        }
    }

    /// What has left the session of a generation, known by its number in the environment that it began with, which no other
    /// generation has. With `usr2` all have the environment of the first one, so nothing tells them apart.
    pub(super) fn strays_of(
        &self,
        generation: Generation,
        all: &HashMap<u32, Stat>,
        environments: &Environments,
    ) -> Vec<(u32, u64)> {
        if self.service.handoff.strategy == Strategy::Usr2 {
            return vec![];
        }
        if let Some(inside) = self.generations.get(&generation).and_then(Live::strays_inside) {
            return inside;
        }
        let number = generation.0.to_string();
        self.unknown(all, environments)
            .filter(|(pid, _)| environments.has(**pid, "RUNSMITH_GENERATION", &number))
            .map(|(pid, stat)| (*pid, stat.start))
            .collect()
    }

    /// Ends what a generation has started in sessions of their own, once nothing else is left of it.
    pub(super) fn end_strays_of(&mut self, generation: Generation) {
        self.kill_strays(STRAY_LOOKS, &format!(" of {generation}"), |shell, all, environments| {
            shell.strays_of(generation, all, environments)
        });
    }

    /// Processes of the service that no record names: they are known by a variable and by their user. All of them together
    /// become one orphaned generation, which goes once another one serves: however many there are, they are no more to write
    /// down than one.
    fn take_strays(&mut self, state: Option<&State>) -> Option<Generation> {
        let all = process::all();
        let environments = Environments::default();
        let strays: BTreeSet<u32> = self.unknown(&all, &environments).map(|(_, stat)| stat.session).collect();
        if strays.is_empty() {
            return None;
        }
        let count = strays.len();
        // A higher number than that of any of them, or the one that an earlier run has given: no number is used twice.
        let recorded = state.map_or(0, |state| state.machine.last);
        let last = recorded.max(self.generations.keys().next_back().map_or(0, |last| last.0));
        let members = all.iter().filter(|(_, stat)| strays.contains(&stat.session));
        let claims =
            members.filter_map(|(pid, _)| environments.value(*pid, "RUNSMITH_GENERATION")?.parse().ok());
        let claimed: Option<u32> = claims.filter(|number| *number > last && *number < LIKELY).max();
        let lives = state.map(|state| state.generations.as_slice()).unwrap_or_default();
        let before = lives.iter().find(|life| life.is_of_strays()).map(|life| life.generation.0);
        let generation = Generation(claimed.or(before).unwrap_or(last + 1));
        let life = Life {
            generation,
            master: (0, 0),
            session: STRAYS,
            uid: self.identity.uid,
            since: clock::now(),
            release: String::new(),
            fingerprint: String::new(),
            fallback: false,
            workers: (0, None),
            ready: vec![],
            sockets: None,
            cgroup: None,
            unlimited: None,
            probe: false,
        };
        let mut live = Live::new(life, &self.service, &self.identity, None);
        live.strays = strays;
        live.look(&all, &others(&self.generations, generation));
        if live.members.is_empty() {
            return None;
        }
        self.log.say(&format!(
            "processes were found that no record names: {generation}, {}",
            if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
        ));
        // Whoever leads a session, and was there first, is more likely to have what a server has.
        live.members.sort_by_key(|one| (!live.strays.contains(&one.pid), one.start, one.pid));
        let strays = all.iter().filter(|(_, stat)| live.has_session(stat.session));
        let mut holders: Vec<_> =
            strays.map(|(pid, stat)| (!live.strays.contains(pid), stat.start, *pid)).collect();
        holders.sort_unstable();
        let wanted: Vec<Kept> = self
            .service
            .bind
            .iter()
            .filter(|socket| !self.listeners.iter().any(|one| one.kept.address == socket.address))
            .map(|socket| Kept { address: socket.address.clone(), node: None })
            .collect();
        for (_, start, pid) in holders.into_iter().take(MOST_SEARCHED) {
            if wanted.is_empty() || !self.listeners.is_empty() {
                break;
            }
            let member = Process::proven(pid, start, Some(self.identity.uid));
            self.listeners.extend(member.iter().flat_map(|member| shared::take(member, &wanted)));
        }
        self.generations.insert(generation, live);
        Some(generation)
    }
}
