//! Clients whose every request has a tag of its own, and the ledger of the application beside them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::application::LARGE;
use super::support::load::{Address, Connection, Trouble};

/// Between two requests of one client, so that the clients leave some of the machine to the servers.
const PAUSE: Duration = Duration::from_millis(12);

/// After a failure, before the next request: who is refused asks again less often.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Clients of a service; one of them keeps its connection.
pub(crate) const CLIENTS: u64 = 3;

/// Which code made an answer: its release and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    pub(crate) release: u32,
    pub(crate) value: u32,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Answered(Made),
    /// A connection that lay idle was closed by the server; the client did not repeat the request.
    Withdrawn,
    Failed(String),
    /// The answer is not one that the application gives to this request.
    Wrong(String),
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) tag: String,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) fate: Fate,
}

/// Asks once. `keep`: a connection that is used again.
fn ask(address: &Address, kind: &str, tag: String, keep: Option<&mut Option<Connection>>) -> Asked {
    let begun = Instant::now();
    let path = format!("/{kind}/{tag}");
    let result = match keep {
        None => address.connect().map_err(Trouble::Failed).and_then(|mut one| one.get(&path, false, false)),
        Some(kept) => {
            let used = kept.is_some();
            let connection = kept.take().map_or_else(|| address.connect().map_err(Trouble::Failed), Ok);
            connection.and_then(|mut connection| {
                let (body, open) = connection.get(&path, true, used)?;
                *kept = open.then_some(connection);
                Ok((body, open))
            })
        }
    };
    let fate = match result {
        Ok((body, _)) => proven(kind, &tag, &body),
        Err(Trouble::ClosedWhileIdle) => Fate::Withdrawn,
        Err(Trouble::Failed(error)) => Fate::Failed(error.to_string()),
    };
    Asked { tag, begun, ended: Instant::now(), fate }
}

/// Whether a body is the whole answer to this request, made by the code of one release.
fn proven(kind: &str, tag: &str, body: &str) -> Fate {
    let short: String = body.chars().take(200).collect();
    let wrong = |what: &str| Fate::Wrong(format!("{what}: {short:?}"));
    let Some((facts, rest)) = body.split_once('\n') else { return wrong("cut off") };
    let words: Vec<&str> = facts.split(' ').collect();
    let [told, code, early, late, value, _pid] = words[..] else { return wrong("not the application's") };
    if told != tag {
        return wrong("the answer to another request");
    }
    if is_mixed(code, early, late) {
        return wrong("code of one release with a module of another");
    }
    let length = if kind == "large" { LARGE } else { 0 };
    if rest.len() != length || rest.bytes().zip(tag.bytes().cycle()).any(|(one, other)| one != other) {
        return wrong("not the whole answer");
    }
    match (code.parse(), value.parse()) {
        (Ok(release), Ok(value)) => Fate::Answered(Made { release, value }),
        _ => wrong("not the application's"),
    }
}

/// Whether the modules that were imported early and late are of another release than the code.
fn is_mixed(code: &str, early: &str, late: &str) -> bool {
    code != early || code != late
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// Running clients, and the ledger.
pub(crate) struct Clients {
    address: Address,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ledger: BufReader<File>,
    entered: HashSet<String>,
    /// Answers whose entry was not read yet.
    own: u64,
    pub(crate) count: usize,
    pub(crate) excused: usize,
}

impl Clients {
    /// Starts them.
    pub(crate) fn start(address: &Address, ledger: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..CLIENTS)
            .map(|client| {
                let (address, shared) = (address.clone(), Arc::clone(&shared));
                std::thread::spawn(move || run(client, &address, &shared))
            })
            .collect();
        Self::of(address, &ledger, shared, threads)
    }

    fn of(address: &Address, ledger: &Path, shared: Arc<Shared>, threads: Vec<JoinHandle<()>>) -> Self {
        let ledger = BufReader::new(File::open(ledger).expect("the ledger"));
        Self {
            address: address.clone(),
            shared,
            threads,
            ledger,
            entered: HashSet::new(),
            own: 0,
            count: 0,
            excused: 0,
        }
    }

    /// One request more, of this kind; its tag and what became of it.
    pub(crate) fn ask(&mut self, kind: &str) -> Asked {
        self.own += 1;
        let asked = ask(&self.address, kind, format!("own-{}", self.own), None);
        self.shared.asked.lock().unwrap().push(asked.clone());
        asked
    }

    /// How many requests have ended since the last [`Clients::take`].
    pub(crate) fn ended(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// What became of the requests that have ended since the last time, held against the ledger: one sentence for each that
    /// went wrong. `excused`: times within which something was killed that may have had a request in hand.
    pub(crate) fn take(&mut self, excused: &[(Instant, Instant)]) -> (Vec<Asked>, Vec<String>) {
        let asked = std::mem::take(&mut *self.shared.asked.lock().unwrap());
        let mut wrong = vec![];
        // What was answered is in the ledger, because it is written first.
        let mut line = String::new();
        loop {
            line.clear();
            let before = self.ledger.stream_position().expect("a position");
            if self.ledger.read_line(&mut line).expect("the ledger") == 0 {
                break;
            }
            if !line.ends_with('\n') {
                self.ledger.seek(SeekFrom::Start(before)).expect("the ledger");
                break;
            }
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            if words.len() != 6 {
                wrong.push(format!("an entry of the ledger is broken: {line:?}"));
            } else if is_mixed(words[1], words[2], words[3]) {
                wrong.push(format!("code of one release with a module of another: {line:?}"));
            }
            if !self.entered.insert(words[0].to_owned()) {
                wrong.push(format!("a request was done twice: {line:?}"));
            }
        }
        for one in &asked {
            let is_excused = excused.iter().any(|(from, to)| one.begun <= *to && one.ended >= *from);
            let was_done = self.entered.contains(&one.tag);
            let sentence = match &one.fate {
                Fate::Answered(_) if was_done => None,
                Fate::Answered(_) => Some("answered, and not in the ledger".to_owned()),
                Fate::Withdrawn if !was_done || is_excused => None,
                Fate::Withdrawn => Some("done, and its answer lost".to_owned()),
                Fate::Failed(_) if is_excused => {
                    self.excused += 1;
                    None
                }
                Fate::Failed(error) => {
                    Some(format!("lost{}: {error}", if was_done { " although it was done" } else { "" }))
                }
                Fate::Wrong(what) => Some(what.clone()),
            };
            if let Some(sentence) = sentence {
                let (begun, took) = (one.begun.elapsed(), one.ended - one.begun);
                wrong
                    .push(format!("request {}, begun {begun:.1?} ago, took {took:.1?}: {sentence}", one.tag));
            }
        }
        self.count += asked.len();
        (asked, wrong)
    }

    /// Ends them.
    pub(crate) fn end(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stop.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().expect("a client");
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stop.notify_all();
    }
}

/// What is to be noticed is noticed.
pub(crate) fn assert_notices() {
    let whole = "x-1 7 7 7 3 99\n";
    let is_wrong = |kind: &str, tag: &str, body: &str| matches!(proven(kind, tag, body), Fate::Wrong(_));
    assert!(matches!(proven("short", "x-1", whole), Fate::Answered(Made { release: 7, value: 3 })));
    assert!(is_wrong("short", "x-1", "x-1 7 7 7 3"), "cut off in its first line");
    assert!(is_wrong("short", "x-2", whole), "another request's");
    assert!(is_wrong("short", "x-1", "x-1 7 8 7 3 99\n"), "a module of another release");
    let large = |length: usize| format!("{whole}{}", &"x-1".repeat(LARGE)[..length]);
    assert!(!is_wrong("large", "x-1", &large(LARGE)));
    assert!(is_wrong("large", "x-1", &large(LARGE - 1)), "cut off");
    assert!(is_wrong("large", "x-1", &large(LARGE - 3).replacen("x-1x-1", "x-1x-2x-1", 1)), "mixed");

    let begun = Instant::now();
    let asked = |tag: &str, fate: Fate| Asked { tag: tag.to_owned(), begun, ended: Instant::now(), fate };
    let right = Fate::Answered(Made { release: 7, value: 3 });
    let found = |entries: &str, asked: Asked, excused: &[(Instant, Instant)]| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger");
        std::fs::write(&path, entries).expect("the ledger");
        let mut clients = Clients::of(&Address::Tcp(1), &path, Arc::default(), vec![]);
        clients.shared.asked.lock().unwrap().push(asked);
        clients.take(excused).1.len()
    };
    assert_eq!(found(whole, asked("x-1", right.clone()), &[]), 0);
    assert_eq!(found("", asked("x-1", right.clone()), &[]), 1, "answered, and never done");
    assert_eq!(found(&whole.repeat(2), asked("x-1", right.clone()), &[]), 1, "done twice");
    assert_eq!(found("x-1 7 8 7 3 99\n", asked("x-1", right), &[]), 1, "mixed");
    assert_eq!(found(whole, asked("x-1", Fate::Withdrawn), &[]), 1, "done, and the answer lost");
    assert_eq!(found("", asked("x-1", Fate::Withdrawn), &[]), 0, "closed while idle");
    assert_eq!(found("", asked("x-1", Fate::Failed("lost".to_owned())), &[]), 1, "lost");
    let while_it_died = [(begun, Instant::now())];
    assert_eq!(
        found("", asked("x-1", Fate::Failed("lost".to_owned())), &while_it_died),
        0,
        "with the killed"
    );
}

/// One client: short requests, now and then a slow or a large one, or one that imports late.
fn run(client: u64, address: &Address, shared: &Shared) {
    let mut kept = None;
    let mut pause = PAUSE;
    for number in 0_u64.. {
        let stopped = shared.stopped.lock().unwrap();
        if *shared.stop.wait_timeout(stopped, pause).unwrap().0 {
            return;
        }
        let kind = match (number + 7 * client) % 60 {
            10 => "slow",
            20 => "large",
            30 | 45 => "late",
            _ => "short",
        };
        let keep = if client == 0 { Some(&mut kept) } else { None };
        let asked = ask(address, kind, format!("{client}-{number}"), keep);
        pause = if matches!(asked.fate, Fate::Failed(_)) { AFTER_FAILURE } else { PAUSE };
        shared.asked.lock().unwrap().push(asked);
    }
}
