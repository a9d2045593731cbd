//! The machine against a random world: processes live, get ready, ignore requests and die at any time, somebody asks for
//! anything at any time, the runtime is killed at any time. After every event the promises are checked.
//!
//! `RUNSMITH_STORIES=5000000 RUNSMITH_SEED=7 cargo test --test machine` tells others.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod machine {
    pub(crate) mod promises;
    pub(crate) mod table;
    pub(crate) mod world;
}

use machine::world::{Distortion, Story, tell};
use runsmith::runtime::action::{Action, Outcome};
use runsmith::runtime::event::{Ask, Event, Generation, Moment, Terms, Ticket};
use runsmith::runtime::machine::Machine;

/// Stories in `make test`; a few seconds.
const STORIES: u64 = 100_000;

/// Events of a story, before everybody behaves and it comes to its end.
const EVENTS: usize = 60;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The shortest story with this seed that breaks a promise.
fn shortest(seed: u64, distortion: Distortion) -> Option<Story> {
    (0..=EVENTS).map(|events| tell(seed, events, distortion, true)).find(|story| story.broken.is_some())
}

#[test]
fn every_promise_is_kept_in_every_story() {
    let first = number("RUNSMITH_SEED", 1).wrapping_mul(1_000_003);
    let mut events = 0;
    let mut hand_overs = 0;
    for seed in first..first + number("RUNSMITH_STORIES", STORIES) {
        let story = tell(seed, EVENTS, Distortion::None, false);
        events += story.events;
        hand_overs += story.hand_overs;
        if story.broken.is_some() {
            let story = shortest(seed, Distortion::None).unwrap_or(story);
            panic!("seed {seed}: {}\n{}", story.broken.unwrap_or_default(), story.lines.join("\n"));
        }
    }
    // A world in which nothing happens would keep every promise.
    assert!(hand_overs > events / 100, "{hand_overs} hand-overs in {events} events");
}

/// The promises are complete enough: whatever is done wrong is noticed.
#[test]
fn every_distortion_is_noticed() {
    let mut unnoticed = vec![];
    for distortion in Distortion::ALL {
        let noticed = (1..60_000).find(|seed| tell(*seed, EVENTS, *distortion, false).broken.is_some());
        if noticed.is_none() {
            unnoticed.push(*distortion);
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

#[test]
fn the_table_of_transitions_is_true() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/machine.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (prose, old) = page.split_once(machine::table::BEGIN).expect("the page has a place for the table");
    let new = machine::table::table();
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&path, format!("{prose}{}{new}", machine::table::BEGIN)).unwrap();
        return;
    }
    assert!(
        old == new,
        "the machine does something else than docs/machine.md says; `make golden`, and read the difference"
    );
}

/// Whoever waits for the proof of what serves hears nothing of a replacement that nobody has asked for and that fails.
#[test]
fn every_promise_of_a_proof_outlives_a_lost_socket() {
    let (one, two, ticket) = (Generation(1), Generation(2), Ticket(7));
    let terms = Terms {
        boot_timeout: 60_000,
        drain_timeout: 30_000,
        min_uptime: 10_000,
        backoff_initial: 1000,
        backoff_max: 8000,
        health: None,
        exclusive: false,
        fallback: true,
    };
    let mut machine = Machine::new(terms);
    let mut answers = vec![];
    let events = [
        Event::Asked(Ask::Prove(ticket)),
        Event::Started(one, terms),
        Event::Ready(one),
        Event::Unreachable(one),
        Event::Started(two, terms),
        Event::Ended(two, "died".to_owned()),
        Event::Gone(two),
    ];
    for event in events {
        answers.extend(machine.step(Moment(1000), event));
    }
    answers.retain(|action| matches!(action, Action::Answer(_, _)));
    assert_eq!(answers, []);
    answers.extend(machine.step(Moment(20_000), Event::Due));
    assert!(answers.contains(&Action::Answer(ticket, Outcome::Proven(one))), "{answers:?}");
}

/// Workers that begin when their generation is told to go may miss it, whether it has served or not: they are asked until they
/// have gone or are killed, less and less often.
#[test]
fn every_promise_of_an_end_reaches_workers_that_begin() {
    let terms = Terms {
        boot_timeout: 60_000,
        drain_timeout: 30_000,
        min_uptime: 0,
        backoff_initial: 1000,
        backoff_max: 8000,
        health: None,
        exclusive: false,
        fallback: true,
    };
    let (first, second) = (Generation(1), Generation(2));
    let serves = [
        Event::Asked(Ask::Begin),
        Event::Started(first, terms),
        Event::Ready(first),
        Event::Asked(Ask::Upgrade(None)),
        Event::Started(second, terms),
    ];
    let told = [
        ("the old generation after a hand-over", Event::Ready(second), first),
        ("a candidate that is given up", Event::Asked(Ask::Abort(Ticket(7))), second),
        ("the serving generation at a stop", Event::Asked(Ask::Stop), first),
    ];
    for (what, event, goes) in told {
        let mut machine = Machine::new(terms);
        for event in serves.iter().cloned().chain([Event::Loaded(second), event]) {
            machine.step(Moment(0), event);
        }
        let mut asked = vec![];
        let mut killed = None;
        while let Some(now) = machine.deadline().filter(|_| killed.is_none()) {
            let actions = machine.step(now, Event::Due);
            asked.extend(actions.contains(&Action::AskWorkers(goes)).then_some(now.0));
            killed = actions.contains(&Action::Kill(goes)).then_some(now.0);
        }
        assert_eq!((asked, killed), (vec![1000, 3000, 7000, 15_000], Some(30_000)), "{what}");
    }
}

/// The end of a generation is reported after its probation is over: it may have ended before, while the runtime was stopped or the
/// machine was busy. It is not proven by that.
#[test]
fn what_has_ended_is_not_proven() {
    let terms = Terms {
        boot_timeout: 60_000,
        drain_timeout: 30_000,
        min_uptime: 4_000,
        fallback: true,
        backoff_initial: 1000,
        backoff_max: 8000,
        health: None,
        exclusive: false,
    };
    let ended = |generation| Event::Ended(generation, "was ended by signal 9 (KILL)".to_owned());
    for end in [ended, Event::Gone] {
        let mut machine = Machine::new(terms);
        let (first, second) = (Generation(1), Generation(2));
        machine.step(Moment(0), Event::Asked(Ask::Begin));
        machine.step(Moment(0), Event::Started(first, terms));
        machine.step(Moment(100), Event::Ready(first));
        machine.step(Moment(200), Event::Asked(Ask::Upgrade(None)));
        machine.step(Moment(200), Event::Started(second, terms));
        machine.step(Moment(300), Event::Ready(second));
        machine.step(Moment(300), Event::Gone(first));
        let actions = machine.step(Moment(9_000), end(second));
        let is_proven = actions.iter().any(|action| matches!(action, Action::Prove(_)));
        let is_condemned =
            actions.iter().any(|action| matches!(action, Action::Condemn(one, _) if *one == second));
        assert!(!is_proven && is_condemned, "{actions:?}");
    }
}
