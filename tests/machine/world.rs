//! A world in which anything can happen, and stories told in it.

use runsmith::runtime::action::{Action, Origin, Step};
use runsmith::runtime::event::{Ask, Event, Generation, Health, Moment, Terms, Ticket};
use runsmith::runtime::machine::{Machine, Record, Remains, State};

use super::promises::{Fact, Ledger};

/// What is done wrong on purpose, to see whether the promises notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distortion {
    None,
    RetiresBeforeReady,
    RetiresTheServing,
    KillsAtOnce,
    ForgetsToKill,
    ForgetsToRetire,
    AnswersTwice,
    ForgetsToAnswer,
    StartsTwice,
    SettlesEarly,
    ClosesEarly,
    EndsEarly,
    ForgetsTheDeadline,
    ChecksBeforeReady,
    ReopensTheGone,
    ForgetsToReopen,
    LosesTheRecordOfLeavers,
    StartsWhatNobodyAskedFor,
    StartsWhatFailed,
    ProvesEarly,
    ForgetsToCondemn,
    RetiresTheOvertaken,
    ForgetsWhatServedBefore,
    ForgetsThePatient,
    StartsSomethingElseForASocket,
    CondemnsWhatServes,
}

impl Distortion {
    pub(crate) const ALL: &[Self] = &[
        Self::RetiresBeforeReady,
        Self::RetiresTheServing,
        Self::KillsAtOnce,
        Self::ForgetsToKill,
        Self::ForgetsToRetire,
        Self::AnswersTwice,
        Self::ForgetsToAnswer,
        Self::StartsTwice,
        Self::SettlesEarly,
        Self::ClosesEarly,
        Self::EndsEarly,
        Self::ForgetsTheDeadline,
        Self::ChecksBeforeReady,
        Self::ReopensTheGone,
        Self::ForgetsToReopen,
        Self::LosesTheRecordOfLeavers,
        Self::StartsWhatNobodyAskedFor,
        Self::StartsWhatFailed,
        Self::ProvesEarly,
        Self::ForgetsToCondemn,
        Self::RetiresTheOvertaken,
        Self::ForgetsWhatServedBefore,
        Self::ForgetsThePatient,
        Self::StartsSomethingElseForASocket,
        Self::CondemnsWhatServes,
    ];
}

/// A story that was told.
pub(crate) struct Story {
    pub(crate) lines: Vec<String>,
    pub(crate) broken: Option<String>,
    pub(crate) events: u64,
    pub(crate) hand_overs: u64,
}

/// Steele, Lea and Flood's SplitMix: small, and good enough to choose.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most.max(1) as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

struct World {
    machine: Machine,
    ledger: Ledger,
    terms: Terms,
    now: Moment,
    dice: Dice,
    distortion: Distortion,
    tickets: u32,
    lines: Vec<String>,
    events: u64,
    /// The last record that was kept.
    record: Record,
    is_told: bool,
}

/// Tells the story of a seed.
pub(crate) fn tell(seed: u64, events: usize, distortion: Distortion, is_told: bool) -> Story {
    let mut dice = Dice(seed);
    let health = dice.one_in(2).then(|| Health { interval: 1000, successes: 1 + dice.below(2) as u32 });
    let terms = Terms {
        boot_timeout: 60_000,
        drain_timeout: 30_000,
        min_uptime: 10_000,
        backoff_initial: 1000,
        backoff_max: 8000,
        health,
        exclusive: dice.one_in(4),
        fallback: !dice.one_in(8),
    };
    // Health cannot be asked of a server that keeps its sockets.
    let terms = Terms { health: if terms.exclusive { None } else { health }, ..terms };
    let mut world = World {
        machine: Machine::new(terms),
        ledger: Ledger::default(),
        terms,
        now: Moment(1000),
        dice,
        distortion,
        tickets: 0,
        lines: vec![],
        events: 0,
        record: Record::default(),
        // Telling costs more than living; a broken story is told again.
        is_told,
    };
    let broken = world.live(events).err();
    if broken.is_some() && !world.is_told {
        world.lines.push("(its lines are kept when it is shortened)".to_owned());
    }
    Story { lines: world.lines, broken, events: world.events, hand_overs: world.ledger.hand_overs }
}

impl World {
    fn live(&mut self, events: usize) -> Result<(), String> {
        self.step(Event::Asked(Ask::Begin))?;
        for _ in 0..events {
            if self.ledger.end.is_some() {
                return self.over();
            }
            self.happen()?;
        }
        self.behave()
    }

    /// Everybody behaves from now on: it must settle, and stop when it is told to.
    fn behave(&mut self) -> Result<(), String> {
        for patience in 0..400 {
            if self.ledger.end.is_some() {
                return self.over();
            }
            if let Some(event) = self.good_event() {
                self.step(event)?;
            } else if matches!(self.machine.state(), State::Serving(_)) && patience > 0 {
                if self.ledger.stop_asked {
                    return Err("it was told to stop and serves".to_owned());
                }
                if !self.ledger.open.is_empty() {
                    return Err(format!("it has settled, and {:?} waits", self.ledger.open));
                }
                if self.machine.serving().is_some_and(|serving| serving.probation.is_some()) {
                    self.pass_to_deadline()?;
                    continue;
                }
                if !self.ledger.patient.is_empty() {
                    return Err(format!("it is proven, and {:?} waits", self.ledger.patient));
                }
                self.ask(Ask::Stop)?;
            } else {
                self.pass_to_deadline()?;
            }
        }
        Err(format!("it does not settle: {:?}", self.machine.state()))
    }

    fn over(&self) -> Result<(), String> {
        match self.ledger.end {
            Some(runsmith::runtime::action::End::Stopped) if !self.ledger.open.is_empty() => {
                Err(format!("{:?} never had an answer", self.ledger.open))
            }
            _ => Ok(()),
        }
    }

    /// What a well-behaved process does next.
    fn good_event(&self) -> Option<Event> {
        for (generation, fact) in self.ledger.facts.iter().filter(|(_, fact)| fact.lives()) {
            let generation = *generation;
            if fact.master_ended {
                if fact.killed || fact.retired.is_some() {
                    return Some(Event::Gone(generation));
                }
            } else if fact.killed || (fact.retired.is_some()) {
                return Some(Event::Ended(generation, "ended with exit code 0".to_owned()));
            } else if !fact.runs {
                return Some(Event::Started(generation, self.terms));
            } else if !fact.loaded {
                return Some(Event::Loaded(generation));
            } else if !fact.ready {
                return Some(Event::Ready(generation));
            } else if fact.dying {
                return Some(Event::Steady(generation));
            } else if fact.checking {
                return Some(Event::Healthy(generation));
            }
        }
        None
    }

    fn happen(&mut self) -> Result<(), String> {
        let living: Vec<Generation> =
            self.ledger.facts.iter().filter(|(_, fact)| fact.lives()).map(|(one, _)| *one).collect();
        match self.dice.below(12) {
            0 => self.somebody_asks(),
            1 => self.pass_to_deadline(),
            2 => {
                self.now = self.now.after(self.dice.below(15_000) as u64);
                self.due_if_due()
            }
            3 if self.dice.one_in(6) => self.killed_and_adopted(),
            4 if self.dice.one_in(3) => {
                // A release is switched, or a value rendered; nobody asks for it yet.
                self.ledger.disk = self.dice.below(6) as u32;
                Ok(())
            }
            5 if self.dice.one_in(20) => self.reboot(),
            6 if self.dice.one_in(4) => self.socket_lost(),
            _ if living.is_empty() => self.pass_to_deadline(),
            _ => {
                let generation = living[self.dice.below(living.len())];
                let event = self.process_event(generation);
                match event {
                    Some(event) => self.step(event),
                    None => self.pass_to_deadline(),
                }
            }
        }
    }

    /// Somebody removes the file of a Unix socket that the serving generation has.
    fn socket_lost(&mut self) -> Result<(), String> {
        match self.machine.serving().map(|serving| serving.generation) {
            Some(serving) => self.step(Event::Unreachable(serving)),
            None => Ok(()),
        }
    }

    /// Something that this process can do now.
    fn process_event(&mut self, generation: Generation) -> Option<Event> {
        let fact = self.ledger.facts.get(&generation)?.clone();
        let dies = self.dice.one_in(8);
        let how = || "was ended by signal 9 (KILL)".to_owned();
        if fact.master_ended {
            let goes = fact.killed || fact.retired.is_some() || dies;
            return (goes && self.dice.one_in(2)).then_some(Event::Gone(generation));
        }
        if !fact.runs {
            return match self.dice.below(4) {
                0 => Some(Event::NotStarted(generation, "there is no such user".to_owned())),
                _ => Some(Event::Started(generation, self.terms)),
            };
        }
        if self.dice.one_in(30) && !fact.killed {
            return Some(Event::Unstable(generation, "its workers die".to_owned()));
        }
        if fact.ready && self.dice.one_in(20) {
            return Some(if fact.dying { Event::Steady(generation) } else { Event::Dying(generation) });
        }
        if dies || ((fact.killed || fact.retired.is_some()) && self.dice.one_in(2)) {
            return Some(Event::Ended(generation, how()));
        }
        if fact.checking && self.dice.one_in(2) {
            return Some(if self.dice.one_in(3) {
                Event::Sick(generation, "it answered 500".to_owned())
            } else {
                Event::Healthy(generation)
            });
        }
        match (fact.loaded, fact.ready) {
            (false, _) => (!fact.killed).then_some(Event::Loaded(generation)),
            (true, false) if fact.killed => None,
            (true, false) => Some(Event::Ready(generation)),
            (true, true) => None,
        }
    }

    fn somebody_asks(&mut self) -> Result<(), String> {
        let ask = match self.dice.below(15) {
            14 => Ask::Prove(self.ticket()),
            0..=5 => Ask::Upgrade(Some(self.ticket())),
            6 | 7 => Ask::Upgrade(None),
            8 => Ask::Restart,
            9 => Ask::Abort(self.ticket()),
            10 => Ask::Reopen,
            11 if self.dice.one_in(3) => Ask::Stop,
            12 if self.dice.one_in(3) => Ask::Leave,
            13 if self.dice.one_in(3) => Ask::NotAgain,
            _ => Ask::Reopen,
        };
        self.ask(ask)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn ask(&mut self, ask: Ask) -> Result<(), String> {
        match ask {
            Ask::Upgrade(Some(ticket)) | Ask::Abort(ticket) => {
                self.ledger.open.insert(ticket);
            }
            Ask::Prove(ticket) => {
                self.ledger.patient.insert(ticket);
            }
            Ask::Stop => self.ledger.stop_asked = true,
            // Once the application has ended, what is left is ended.
            Ask::NotAgain => self.ledger.once = true,
            Ask::Begin | Ask::Upgrade(None) | Ask::Restart | Ask::Leave | Ask::Reopen => {}
        }
        self.ledger.planned |= matches!(ask, Ask::Upgrade(_) | Ask::Prove(_) | Ask::Restart);
        self.step(Event::Asked(ask))
    }

    fn pass_to_deadline(&mut self) -> Result<(), String> {
        if let Some(deadline) = self.deadline() {
            self.now = self.now.max(deadline);
            return self.due_if_due();
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Moment> {
        if self.distortion == Distortion::ForgetsTheDeadline { None } else { self.machine.deadline() }
    }

    fn due_if_due(&mut self) -> Result<(), String> {
        if self.deadline().is_none_or(|deadline| deadline > self.now) {
            return Ok(());
        }
        self.step(Event::Due)?;
        match self.machine.deadline() {
            Some(deadline) if deadline <= self.now && self.ledger.end.is_none() => {
                Err("a moment that has come stays due".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The runtime is killed, and the next one goes on from what it has kept.
    fn killed_and_adopted(&mut self) -> Result<(), String> {
        let text = serde_json::to_string(&self.record).map_err(|error| error.to_string())?;
        let mut record: Record = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if self.distortion == Distortion::LosesTheRecordOfLeavers {
            record.leavers.clear();
        }
        self.say(|| format!("the runtime is killed; kept: {text}"));
        // A launcher that was not told to go on ends by itself; so does a check.
        for fact in self.ledger.facts.values_mut() {
            fact.checking = false;
            // The next run hears of it when another one dies.
            fact.dying = false;
            fact.gone |= !fact.runs;
        }
        // And what dies meanwhile, nobody tells.
        let dying: Vec<(bool, bool)> =
            self.ledger.facts.iter().map(|_| (self.dice.one_in(6), self.dice.one_in(12))).collect();
        for (fact, (ends, goes)) in self.ledger.facts.values_mut().zip(dying) {
            fact.master_ended |= ends;
            fact.gone |= goes;
        }
        self.ledger.forget_owed();
        // Whoever asked the old one has lost its connection.
        self.ledger.open.clear();
        self.ledger.patient.clear();
        if self.terms.exclusive && self.dice.one_in(3) {
            self.unrecorded_successor(&mut record);
        }
        let facts = self.ledger.facts.clone();
        let left = |generation| match facts.get(&generation) {
            Some(fact) if fact.gone => Remains::Nothing,
            Some(fact) if fact.master_ended => Remains::Workers,
            Some(_) => Remains::Master,
            None => Remains::Nothing,
        };
        let (machine, actions) = Machine::adopt(&record, self.terms, self.now, left);
        let was = std::mem::replace(&mut self.machine, machine);
        if record.queued || record.candidate_origin == Some(Origin::Disk) {
            // What was asked of the run before is still to come.
            self.ledger.planned = true;
            let rests = matches!(self.machine.state(), State::Resting(_));
            self.ledger.resumed = self.machine.serving().is_none() && !rests;
        }
        if self.ledger.proven.is_some() {
            self.machine.knows_proven();
        }
        self.take(&was, actions)?;
        if self.machine.serving().is_none()
            && self.ledger.end.is_none()
            && *self.machine.state() == runsmith::runtime::machine::State::Down
        {
            if self.ledger.stop_asked || self.ledger.closed {
                return self.ask(Ask::Stop);
            }
            self.step(Event::Asked(Ask::Begin))?;
        }
        if (self.ledger.stop_asked || self.ledger.closed) && self.ledger.end.is_none() {
            // runsv wants it down; what a killed run has left is ended by `finish`.
            self.ask(Ask::Stop)?;
        }
        Ok(())
    }

    /// The server has started a successor when it was asked to, and the runtime was killed before it knew of it.
    fn unrecorded_successor(&mut self, record: &mut Record) {
        let serving = record.serving.and_then(|(one, _)| self.ledger.facts.get(&one));
        if serving.is_none_or(|fact| fact.gone || fact.master_ended) {
            return;
        }
        record.last += 1;
        let generation = Generation(record.last);
        let content = self.ledger.disk;
        self.ledger.facts.insert(generation, Fact::running(content));
        record.orphans.push(generation);
        self.say(|| format!("{generation} lives, and no record tells of it"));
    }

    /// Power is lost: only what is on disk is left.
    fn reboot(&mut self) -> Result<(), String> {
        if self.ledger.stop_asked || self.ledger.closed || self.ledger.once {
            return Ok(());
        }
        self.say(|| "the machine is started anew".to_owned());
        self.ledger.reboot();
        self.record = Record::default();
        self.machine = Machine::new(self.terms);
        if self.ledger.proven.is_some() {
            self.machine.knows_proven();
        }
        self.step(Event::Asked(Ask::Begin))
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        self.events += 1;
        match &event {
            Event::Started(one, _) => self.fact(*one, |fact| fact.runs = true),
            Event::Dying(one) => {
                let serves = self.machine.serving().is_some_and(|serving| serving.generation == *one);
                self.fact(*one, |fact| fact.dying = serves);
            }
            Event::Steady(one) => self.fact(*one, |fact| fact.dying = false),
            Event::Loaded(one) => self.fact(*one, |fact| fact.loaded = true),
            Event::Ready(one) => self.fact(*one, |fact| fact.ready = true),
            Event::Healthy(one) => self.fact(*one, |fact| {
                fact.checking = false;
                fact.good += 1;
            }),
            Event::Sick(one, _) => self.fact(*one, |fact| {
                fact.checking = false;
                fact.good = 0;
            }),
            Event::Ended(one, _) => self.fact(*one, |fact| {
                fact.master_ended = true;
                fact.checking = false;
            }),
            Event::NotStarted(one, _) | Event::Gone(one) => self.fact(*one, |fact| fact.gone = true),
            Event::Unstable(_, _) | Event::Unreachable(_) | Event::Asked(_) | Event::Due => {}
        }
        let was = self.machine.clone();
        self.say(|| format!("{event:?}"));
        let now = self.now;
        let over = matches!(self.machine.state(), State::Over(_));
        let actions = self.machine.step(now, event.clone());
        let actions = self.distorted(&was, actions);
        if !over {
            self.ledger.check_logs(&event, &actions)?;
            self.ledger.check_socket(&event, &was, &self.terms, &actions)?;
        }
        self.take(&was, actions)
    }

    fn take(&mut self, was: &Machine, actions: Vec<Action>) -> Result<(), String> {
        for action in &actions {
            self.say(|| format!("    {action:?}"));
        }
        let now = self.now;
        self.say(|| format!("  {now:?}"));
        self.ledger.check(was, &self.machine, &self.terms, now, &actions)?;
        if self.ledger.end.is_none() {
            self.record = self.machine.record();
        }
        Ok(())
    }

    fn fact(&mut self, generation: Generation, change: impl FnOnce(&mut super::promises::Fact)) {
        if let Some(fact) = self.ledger.facts.get_mut(&generation) {
            change(fact);
        }
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.is_told {
            self.lines.push(line());
        }
    }

    /// What a machine with this fault would have asked for.
    fn distorted(&mut self, was: &Machine, mut actions: Vec<Action>) -> Vec<Action> {
        let serving = was.serving().map(|serving| serving.generation);
        match self.distortion {
            Distortion::None | Distortion::ForgetsTheDeadline | Distortion::LosesTheRecordOfLeavers => {}
            Distortion::RetiresBeforeReady => {
                if let (Some(old), true) = (
                    serving,
                    actions.iter().any(|one| matches!(one, Action::Start(_, _) | Action::Succeed(_, _))),
                ) {
                    actions.push(Action::Retire(old));
                }
            }
            Distortion::RetiresTheServing => {
                if let (Some(old), true) =
                    (serving, actions.iter().any(|one| matches!(one, Action::Tell(Step::BackingOut(_, _)))))
                {
                    actions.push(Action::Retire(old));
                }
            }
            Distortion::KillsAtOnce => {
                let told: Vec<_> = actions
                    .iter()
                    .filter_map(|one| if let Action::Retire(one) = one { Some(*one) } else { None })
                    .collect();
                actions.extend(told.into_iter().map(Action::Kill));
            }
            Distortion::ForgetsToKill => {
                // Who is not killed does not go: the world below has it live on.
                actions.retain(|one| !matches!(one, Action::Kill(_)));
                let stubborn = was.leavers().iter().any(|leaver| leaver.forced);
                if stubborn {
                    actions.push(Action::Close);
                }
            }
            Distortion::ForgetsToRetire => {
                let told = actions.iter().any(|one| matches!(one, Action::Retire(_)));
                actions.retain(|one| !matches!(one, Action::Retire(_)));
                if told {
                    // A kill follows in time, and finds one that was never told.
                    self.say(|| "    (not told to go)".to_owned());
                }
            }
            Distortion::AnswersTwice => {
                let again: Vec<_> =
                    actions.iter().filter(|one| matches!(one, Action::Answer(_, _))).cloned().collect();
                actions.extend(again);
            }
            Distortion::ForgetsToAnswer => actions.retain(|one| !matches!(one, Action::Answer(_, _))),
            Distortion::StartsTwice => {
                let again: Vec<_> =
                    actions.iter().filter(|one| matches!(one, Action::Start(_, _))).cloned().collect();
                actions.extend(again);
            }
            Distortion::SettlesEarly => {
                if let Some(Action::Tell(Step::Serves(new, true))) =
                    actions.iter().find(|one| matches!(one, Action::Tell(Step::Serves(_, true))))
                {
                    let new = *new;
                    actions.push(Action::Settled(new));
                }
            }
            Distortion::ClosesEarly => {
                if actions.iter().any(|one| matches!(one, Action::Tell(Step::Died(_, _)))) {
                    actions.push(Action::Close);
                }
            }
            Distortion::EndsEarly => {
                if actions.contains(&Action::Close)
                    && !actions.iter().any(|one| matches!(one, Action::End(_)))
                {
                    actions.push(Action::End(runsmith::runtime::action::End::Stopped));
                }
            }
            Distortion::ChecksBeforeReady => {
                if let Some(Action::Start(new, _)) =
                    actions.iter().find(|one| matches!(one, Action::Start(_, _)))
                {
                    let new = *new;
                    actions.push(Action::Check(new));
                }
            }
            Distortion::ForgetsToReopen => {
                // Only the one that serves does.
                actions.retain(|one| !matches!(one, Action::Reopen(one) if Some(*one) != serving));
            }
            Distortion::StartsWhatNobodyAskedFor => {
                for action in &mut actions {
                    if let Action::Start(_, origin @ (Origin::LastProven | Origin::Before)) = action {
                        *origin = Origin::Disk;
                    }
                }
            }
            Distortion::StartsWhatFailed => {
                for action in &mut actions {
                    if let Action::Start(_, origin @ Origin::First) = action {
                        *origin = Origin::Disk;
                    }
                }
            }
            Distortion::ProvesEarly => {
                if let Some(Action::Tell(Step::Serves(new, _))) =
                    actions.iter().find(|one| matches!(one, Action::Tell(Step::Serves(_, _))))
                {
                    let new = *new;
                    actions.push(Action::Prove(new));
                }
            }
            Distortion::ForgetsToCondemn => actions.retain(|one| !matches!(one, Action::Condemn(_, _))),
            Distortion::RetiresTheOvertaken => {
                if let Some(Action::Tell(Step::Overtaking(old, _))) =
                    actions.iter().find(|one| matches!(one, Action::Tell(Step::Overtaking(_, _))))
                {
                    let old = *old;
                    actions.push(Action::Retire(old));
                }
            }
            Distortion::ForgetsWhatServedBefore => {
                actions.retain(|one| !matches!(one, Action::KeepBefore(_)));
            }
            Distortion::StartsSomethingElseForASocket => {
                for action in &mut actions {
                    if let Action::Start(_, origin @ Origin::Serving) = action {
                        *origin = Origin::Disk;
                    }
                }
            }
            Distortion::CondemnsWhatServes => {
                if let Some(Action::Tell(Step::BackingOut(new, _))) =
                    actions.iter().find(|one| matches!(one, Action::Tell(Step::BackingOut(_, _))))
                {
                    let new = *new;
                    actions.insert(0, Action::Condemn(new, "its replacement failed".to_owned()));
                }
            }
            Distortion::ForgetsThePatient => actions.retain(|one| {
                !matches!(one, Action::Answer(_, runsmith::runtime::action::Outcome::Proven(_)))
            }),
            Distortion::ReopensTheGone => {
                let gone = self.ledger.facts.iter().find(|(_, fact)| fact.gone).map(|(one, _)| *one);
                if let (Some(gone), true) = (gone, actions.iter().any(|one| matches!(one, Action::Reopen(_))))
                {
                    actions.push(Action::Reopen(gone));
                }
            }
        }
        actions
    }
}
