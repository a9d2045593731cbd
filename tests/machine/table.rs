//! Every state by every event: what becomes of it, and what is asked for.

use std::fmt::Write as _;

use runsmith::runtime::action::{Action, Origin, Step};
use runsmith::runtime::event::{Ask, Event, Generation, Health, Moment, Terms, Ticket};
use runsmith::runtime::machine::{Machine, State};

/// Where the printed part of docs/machine.md begins.
pub(crate) const BEGIN: &str = "<!-- printed by `make golden`; what follows is not written by hand -->\n";

const TERMS: Terms = Terms {
    boot_timeout: 60_000,
    drain_timeout: 30_000,
    min_uptime: 10_000,
    backoff_initial: 1000,
    backoff_max: 60_000,
    health: None,
    exclusive: false,
    fallback: true,
};

const HEALTH: Terms = Terms { health: Some(Health { interval: 1000, successes: 1 }), ..TERMS };

/// Where the machine stands after these events, one second apart.
fn after(terms: Terms, events: &[Event]) -> (Machine, Moment) {
    let mut machine = Machine::new(terms);
    let mut now = Moment(0);
    for event in events {
        now = now.after(1000);
        machine.step(now, event.clone());
    }
    (machine, now.after(1000))
}

fn states() -> Vec<(&'static str, Machine, Moment)> {
    let (one, two) = (Generation(1), Generation(2));
    let up = || Event::Asked(Ask::Upgrade(None));
    let runs = |generation, terms| [Event::Started(generation, terms), Event::Loaded(generation)];
    let boot = |terms| [vec![up()], runs(one, terms).to_vec()].concat();
    let serve = [boot(TERMS), vec![Event::Ready(one)]].concat();
    let healthy = [boot(HEALTH), vec![Event::Ready(one), Event::Healthy(one)]].concat();
    let succeed = [serve.clone(), vec![up()], runs(two, TERMS).to_vec()].concat();
    let vet = [healthy.clone(), vec![up()], runs(two, HEALTH).to_vec(), vec![Event::Ready(two)]].concat();
    let drain = [succeed.clone(), vec![Event::Ready(two)]].concat();
    let back_out = [succeed.clone(), vec![Event::Ended(two, "died".to_owned())]].concat();
    let died = [serve.clone(), vec![Event::Ended(one, "died".to_owned())]].concat();
    let stop = [serve.clone(), vec![Event::Asked(Ask::Stop)]].concat();
    let overtaken = [vec![up()], runs(one, TERMS).to_vec(), vec![up()], runs(two, TERMS).to_vec()].concat();
    let over = [stop.clone(), vec![Event::Ended(one, "died".to_owned()), Event::Gone(one)]].concat();
    let exclusive = Terms { exclusive: true, min_uptime: 0, ..TERMS };
    let clearing = [
        vec![up(), Event::Started(one, exclusive), Event::Loaded(one), Event::Ready(one)],
        vec![Event::Due, Event::Ended(one, "died".to_owned())],
    ]
    .concat();
    let all: Vec<(&str, Terms, Vec<Event>)> = vec![
        ("Down", TERMS, vec![]),
        ("Booting(1)", TERMS, boot(TERMS)),
        ("Proving(1)", HEALTH, [boot(HEALTH), vec![Event::Ready(one)]].concat()),
        ("Booting(2), overtaken 1", TERMS, overtaken),
        ("Resting, orphan 1", TERMS, died),
        ("Clearing, leaver 1 (usr2)", exclusive, clearing),
        ("Serving(1)", TERMS, serve),
        ("Serving(1), health asked", HEALTH, healthy),
        ("Succeeding(1, 2)", TERMS, succeed),
        ("Vetting(1, 2)", HEALTH, vet),
        ("Draining(2), leaver 1", TERMS, drain),
        ("BackingOut(1), leaver 2", TERMS, back_out),
        ("Stopping, leaver 1", TERMS, stop),
        ("Over", TERMS, over),
    ];
    all.into_iter()
        .map(|(name, terms, events)| {
            let (machine, now) = after(terms, &events);
            (name, machine, now)
        })
        .collect()
}

fn events() -> Vec<(&'static str, Event)> {
    let (one, two) = (Generation(1), Generation(2));
    let why = || "why".to_owned();
    vec![
        ("1 started", Event::Started(one, TERMS)),
        ("1 not started", Event::NotStarted(one, why())),
        ("1 loaded", Event::Loaded(one)),
        ("1 ready", Event::Ready(one)),
        ("1 healthy", Event::Healthy(one)),
        ("1 sick", Event::Sick(one, why())),
        ("1 ended", Event::Ended(one, "died".to_owned())),
        ("1 gone", Event::Gone(one)),
        ("1 unstable", Event::Unstable(one, why())),
        ("1 unreachable", Event::Unreachable(one)),
        ("1 dying", Event::Dying(one)),
        ("1 steady", Event::Steady(one)),
        ("2 not started", Event::NotStarted(two, why())),
        ("2 ready", Event::Ready(two)),
        ("2 healthy", Event::Healthy(two)),
        ("2 sick", Event::Sick(two, why())),
        ("2 ended", Event::Ended(two, "died".to_owned())),
        ("2 gone", Event::Gone(two)),
        ("upgrade asked", Event::Asked(Ask::Upgrade(Some(Ticket(7))))),
        ("restart asked", Event::Asked(Ask::Restart)),
        ("abort asked", Event::Asked(Ask::Abort(Ticket(8)))),
        ("stop asked", Event::Asked(Ask::Stop)),
        ("leave asked", Event::Asked(Ask::Leave)),
        ("reopen asked", Event::Asked(Ask::Reopen)),
        ("not again", Event::Asked(Ask::NotAgain)),
        ("deadline", Event::Due),
    ]
}

fn name(machine: &Machine) -> String {
    let mut text = match machine.state() {
        State::Down => "Down".to_owned(),
        State::Booting(new) => format!("Booting({})", new.generation.0),
        State::Proving(new, _) => format!("Proving({})", new.generation.0),
        State::Resting(_) => "Resting".to_owned(),
        State::Clearing => "Clearing".to_owned(),
        State::Serving(now) => format!("Serving({})", now.generation.0),
        State::Succeeding(now, new) => format!("Succeeding({}, {})", now.generation.0, new.generation.0),
        State::Vetting(now, new, _) => format!("Vetting({}, {})", now.generation.0, new.generation.0),
        State::Draining(now) => format!("Draining({})", now.generation.0),
        State::BackingOut(now, _) => format!("BackingOut({})", now.generation.0),
        State::Stopping => "Stopping".to_owned(),
        State::Over(end) => format!("Over, {end:?}"),
    };
    if let Some(rival) = machine.rival() {
        let _ = write!(text, ", overtaken {}", rival.generation.0);
    }
    for leaver in machine.leavers() {
        let _ = write!(text, ", leaver {}", leaver.generation.0);
    }
    for orphan in machine.orphans() {
        let _ = write!(text, ", orphan {}", orphan.0);
    }
    if machine.is_queued() {
        text.push_str(", one more follows");
    }
    text
}

fn words(action: &Action) -> Option<String> {
    Some(match action {
        Action::Start(one, Origin::Disk | Origin::First) => format!("start {}", one.0),
        Action::Start(one, Origin::Before) => format!("start {} from what served before", one.0),
        Action::Start(one, Origin::Serving) => format!("start {}, the same as what serves", one.0),
        Action::Start(one, Origin::LastProven) => format!("start {} from what was proven", one.0),
        Action::AskWorkers(one) => format!("ask the workers of {}", one.0),
        Action::Prove(one) => format!("prove {}", one.0),
        Action::Condemn(one, _) => format!("condemn {}", one.0),
        Action::KeepBefore(one) => format!("keep {}", one.0),
        Action::Succeed(old, new) => format!("ask {} for {}", old.0, new.0),
        Action::Check(one) => format!("check {}", one.0),
        Action::Retire(one) => format!("retire {}", one.0),
        Action::Kill(one) => format!("kill {}", one.0),
        Action::Reopen(one) => format!("reopen {}", one.0),
        Action::Answer(_, outcome) => {
            let outcome = format!("{outcome:?}");
            format!("answer {}", outcome.split('(').next().unwrap_or_default())
        }
        Action::Settled(_) => "settled".to_owned(),
        Action::Close => "close".to_owned(),
        Action::End(end) => format!("end ({end:?})"),
        Action::Tell(Step::BackOff(_, _)) => "back off".to_owned(),
        Action::Tell(_) => return None,
    })
}

/// A chapter for each state; events that change nothing and ask for nothing are in one line.
pub(crate) fn table() -> String {
    let mut out = String::new();
    for (title, machine, now) in states() {
        let _ = writeln!(out, "\n### {title}\n\n| event | becomes | and |\n|---|---|---|");
        let mut idle = vec![];
        for (word, event) in events() {
            let mut next = machine.clone();
            let now = if event == Event::Due { machine.deadline().unwrap_or(now) } else { now };
            let before = machine.record();
            let actions = next.step(now, event);
            let said: Vec<_> = actions.iter().filter_map(words).collect();
            if next.record() == before && actions.is_empty() && next.state() == machine.state() {
                idle.push(word);
            } else {
                let _ = writeln!(out, "| {word} | {} | {} |", name(&next), said.join(", "));
            }
        }
        let _ = writeln!(out, "\nNothing comes of: {}.", idle.join(", "));
    }
    out
}
