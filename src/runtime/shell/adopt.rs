//! A run begins: with what an earlier one left, or anew. Nothing is believed that is not verified.

use std::collections::HashMap;

use super::act::probe_name;
use super::generation::{Live, others};
use super::{Mode, Shell, terms};
use crate::runtime::event::{Ask, Generation};
use crate::runtime::linux::clock;
use crate::runtime::linux::keeping::{Given, Keeping};
use crate::runtime::linux::listen::{self, Kept};
use crate::runtime::linux::output;
use crate::runtime::linux::process::{self, Process, Stat};
use crate::runtime::linux::runsv::{Wanted, wanted};
use crate::runtime::machine::{Machine, Remains};
use crate::runtime::state::{self, Life, State};

impl Shell {
    /// Takes over what lives, and starts what is missing.
    pub(super) fn adopt(&mut self) {
        let given = Keeping::find(&self.place).map(|(keeper, given)| {
            self.keeper = Some(keeper);
            given
        });
        let state = self.recall(given.as_ref());
        if let Some(state) = &state {
            self.sequence = state.sequence;
            self.last = state.last.clone();
        }
        self.take_generations(state.as_ref());
        self.take_successors();
        self.take_listeners(given, state.as_ref());
        let strays = self.take_strays(state.as_ref());
        self.take_outputs();
        self.update_keeper(true);

        let mut record = state.map(|state| state.machine).unwrap_or_default();
        record.last = record.last.max(self.generations.keys().next_back().map_or(0, |last| last.0));
        record.orphans.extend(strays);
        // Whatever lives and has no part is to go, too.
        for generation in self.generations.keys() {
            let has_part = record.serving.is_some_and(|(one, _)| one == *generation)
                || record.candidate == Some(*generation)
                || record.leavers.iter().any(|(one, _)| one == generation)
                || record.orphans.contains(generation);
            if !has_part {
                record.orphans.push(*generation);
            }
        }
        let left = |generation| match self.generations.get(&generation) {
            Some(live) if live.master.is_some() => Remains::Master,
            Some(live) if !live.members.is_empty() => Remains::Workers,
            _ => Remains::Nothing,
        };
        let (machine, actions) = Machine::adopt(&record, terms(&self.service), clock::now(), left);
        self.machine = machine;
        self.obey(actions);
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
                self.ask(Ask::Upgrade(None));
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
        let from_keeper = from_keeper.and_then(|text| state::read(text, &application, &boot).ok());
        let path = self.place.file("state.json").display().to_string();
        let from_file = match self.place.state() {
            Ok(None) => None,
            Ok(Some(text)) => match state::read(&text, &application, &boot) {
                Ok(state) => Some(state),
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
        match (from_keeper, from_file) {
            (Some(one), Some(other)) if other.sequence > one.sequence => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        }
    }

    fn take_generations(&mut self, state: Option<&State>) {
        let all = process::all();
        let kept = state.map(|state| state.listeners.as_slice()).unwrap_or_default();
        for life in state.map(|state| state.generations.as_slice()).unwrap_or_default() {
            let (pid, start) = life.master;
            // root's processes are nobody's generation, whatever a record says.
            if self.identity.switch && life.uid == 0 {
                continue;
            }
            let mut master = Process::proven(pid, start, Some(life.uid));
            if life.uid != self.identity.uid
                && let Some(process) = &master
                && !process::has_variable(pid, "RUNSMITH_SERVICE", &self.service.application)
                && listen::recover(process, kept).is_empty()
            {
                // The service may have had another user; then its process has its name or its sockets.
                self.log.say(&format!(
                    "process {pid}, which the record names as {}, is not this service's",
                    life.generation
                ));
                master = None;
            }
            let mut live = Live::new(life.clone(), &self.service, &self.identity, master);
            live.has_loaded = life.workers.0 > 0;
            live.is_ready = true;
            self.generations.insert(life.generation, live);
        }
        let generations: Vec<Generation> = self.generations.keys().copied().collect();
        for generation in generations {
            let others = others(&self.generations, generation);
            let Some(live) = self.generations.get_mut(&generation) else { continue };
            if live.master.is_none() {
                live.look(&all, &others);
                if live.members.is_empty() {
                    self.generations.remove(&generation);
                    let _ = std::fs::remove_file(self.place.file(&probe_name(generation)));
                    continue;
                }
            }
            live.adopt_workers(&all);
            live.count(clock::now());
        }
    }

    /// Listening sockets: from the keeper, else out of a living process.
    fn take_listeners(&mut self, given: Option<Given>, state: Option<&State>) {
        if let Some(given) = given {
            self.outputs = given.outputs;
            self.listeners = given.listeners.into_iter().filter(listen::Listener::is_true).collect();
        }
        let kept: Vec<Kept> = state.map(|state| state.listeners.clone()).unwrap_or_default();
        for live in self.generations.values() {
            let missing: Vec<Kept> = kept
                .iter()
                .filter(|kept| !self.listeners.iter().any(|one| one.kept.address == kept.address))
                .cloned()
                .collect();
            if missing.is_empty() {
                break;
            }
            let holder = live.master.as_ref().or(live.members.first());
            if let Some(holder) = holder {
                let found = listen::recover(holder, &missing);
                for listener in &found {
                    self.log
                        .say(&format!("{} was taken out of process {}", listener.kept.address, holder.pid));
                }
                self.listeners.extend(found);
            }
        }
    }

    /// What generations say, where no keeper has it.
    fn take_outputs(&mut self) {
        for (generation, live) in &self.generations {
            let holder = live.master.as_ref().or(live.members.first());
            let known = self.outputs.iter().any(|(one, _)| *one == generation.0);
            let Some(pipe) = holder.filter(|_| !known).and_then(output::recover) else { continue };
            if !self.outputs.iter().any(|(_, one)| output::is_same(one, &pipe)) {
                self.outputs.push((generation.0, pipe));
            }
        }
    }

    /// Processes of the service in sessions that no generation has.
    fn unknown<'a>(&'a self, all: &'a HashMap<u32, Stat>) -> impl Iterator<Item = (&'a u32, &'a Stat)> {
        all.iter().filter(|(pid, stat)| {
            !self.generations.values().any(|live| live.life.session == stat.session)
                && process::runs_as(**pid, self.identity.uid)
                && process::has_variable(**pid, "RUNSMITH_SERVICE", &self.service.application)
        })
    }

    /// Ends what has left its generation's session, once everything else has gone.
    pub(super) fn end_strays(&mut self) {
        let all = process::all();
        let strays: Vec<_> = self
            .unknown(&all)
            .filter_map(|(pid, stat)| Process::proven(*pid, stat.start, Some(self.identity.uid)))
            .collect();
        for stray in strays {
            self.log.say(&format!("process {} had left its session and is killed", stray.pid));
            stray.kill();
        }
    }

    /// Processes of the service that no record names: they are known by a variable and by their user. Each becomes an
    /// orphaned generation, which goes once another one serves.
    fn take_strays(&mut self, state: Option<&State>) -> Vec<Generation> {
        let all = process::all();
        let mut sessions: Vec<u32> = self.unknown(&all).map(|(_, stat)| stat.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let mut last = state.map_or(0, |state| state.machine.last);
        last = last.max(self.generations.keys().next_back().map_or(0, |last| last.0));
        let mut strays = vec![];
        for session in sessions {
            last += 1;
            let generation = Generation(last);
            let start = all.get(&session).map_or(0, |stat| stat.start);
            let life = Life {
                generation,
                master: (session, start),
                session,
                uid: self.identity.uid,
                since: clock::now(),
                release: String::new(),
                workers: (0, None),
                ready: vec![],
                probe: false,
            };
            let mut live = Live::new(life, &self.service, &self.identity, None);
            live.look(&all, &[]);
            live.members.extend(Process::proven(session, start, Some(self.identity.uid)));
            if live.members.is_empty() {
                continue;
            }
            self.log
                .say(&format!("processes were found that no record names: {generation}, session {session}"));
            let wanted: Vec<Kept> = self
                .service
                .bind
                .iter()
                .filter(|socket| !self.listeners.iter().any(|one| one.kept.address == socket.address))
                .map(|socket| Kept { address: socket.address.clone(), node: None })
                .collect();
            for member in &live.members {
                if wanted.is_empty() || !self.listeners.is_empty() {
                    break;
                }
                self.listeners.extend(listen::recover(member, &wanted));
            }
            self.generations.insert(generation, live);
            strays.push(generation);
        }
        strays
    }
}
