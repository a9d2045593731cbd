//! Random operations on four services side by side, under load, and every promise held against what is left after each step
//! (docs/chaos.md).
//!
//! `CHAOS_SEED=7 CHAOS_STEPS=400 cargo test --test chaos` does others. A failure prints the seed and the step that repeat it.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test may look and tell")]

mod support;

mod chaos {
    pub(crate) use super::support;
    pub(crate) mod application;
    pub(crate) mod clients;
    pub(crate) mod dice;
    pub(crate) mod operation;
    pub(crate) mod site;
}

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chaos::application::Kind;
use chaos::dice::Dice;
use chaos::operation::Operation;
use chaos::site::{SITES, Site};

/// The seed of `make test`.
const SEED: u64 = 1;
/// Seconds of `make test`: after so many no further step is begun.
const SECONDS: u64 = 285;
/// As many steps are done however long they take, so that a busy machine tries something, too.
const LEAST: u32 = 24;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// How far a run goes.
struct Run {
    seed: u64,
    steps: u32,
    requests: usize,
    until: Option<Instant>,
    only: Option<String>,
    begun: Instant,
    count: AtomicU32,
    broken: AtomicBool,
    requests_seen: AtomicU32,
}

impl Run {
    fn asked_for() -> Self {
        let steps = number("CHAOS_STEPS").map(|steps| u32::try_from(steps).expect("CHAOS_STEPS"));
        let begun = Instant::now();
        Self {
            seed: number("CHAOS_SEED").unwrap_or(SEED),
            // Whoever says how many steps wants all of them, unless a limit is given, too.
            until: number("CHAOS_SECONDS")
                .or(steps.is_none().then_some(SECONDS))
                .map(|seconds| begun + Duration::from_secs(seconds)),
            steps: steps.unwrap_or(u32::MAX),
            requests: number("CHAOS_REQUESTS").unwrap_or(0) as usize,
            only: std::env::var("CHAOS_ONLY").ok(),
            begun,
            count: AtomicU32::new(0),
            broken: AtomicBool::new(false),
            requests_seen: AtomicU32::new(0),
        }
    }

    fn services(&self) -> Vec<usize> {
        (0..SITES.len())
            .filter(|index| self.only.as_ref().is_none_or(|only| SITES[*index].0 == only))
            .collect()
    }

    /// Whether a service does one more step, its own `number`th.
    fn goes_on(&self, number: u32) -> bool {
        let share = |steps: u32| steps.div_ceil(SITES.len() as u32);
        if self.broken.load(Ordering::Relaxed) {
            return false;
        }
        let has_time = self.until.is_none_or(|until| Instant::now() < until);
        let is_short = (self.requests_seen.load(Ordering::Relaxed) as usize) < self.requests;
        number <= share(LEAST.min(self.steps)) || (has_time && (number <= share(self.steps) || is_short))
    }
}

/// What one service went through.
#[derive(Default)]
struct Summary {
    steps: u32,
    requests: usize,
    excused: usize,
    rows: [u32; Operation::NAMES.len()],
    broken: Option<String>,
}

fn go_through(run: &Run, index: usize) -> Summary {
    let mut site = Site::start(index);
    let mut summary = Summary::default();
    let mut history = vec![];
    for number in 1.. {
        if !run.goes_on(number) {
            break;
        }
        let mut dice = Dice::of(run.seed, index, number);
        let operation = Operation::drawn(&mut dice, index);
        history.push(format!("{number}: {operation}"));
        let begun = Instant::now();
        let before = site.clients.count;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut wrong = operation.perform(&mut site, &mut dice);
            wrong.extend(site.settle());
            wrong
        }));
        let wrong = result.unwrap_or_else(|panic| vec![sentence(&*panic)]);
        run.count.fetch_add(1, Ordering::Relaxed);
        run.requests_seen.fetch_add((site.clients.count - before) as u32, Ordering::Relaxed);
        if std::env::var_os("CHAOS_VERBOSE").is_some() {
            println!(
                "{:7.1} {} {number}: {operation}, {:.1?}",
                run.begun.elapsed().as_secs_f32(),
                site.name,
                begun.elapsed()
            );
        }
        summary.steps += 1;
        summary.rows[operation.row()] += 1;
        if !wrong.is_empty() {
            run.broken.store(true, Ordering::Relaxed);
            summary.broken = Some(report(run, &site, number, &history, &wrong));
            break;
        }
    }
    site.clients.end();
    summary.requests = site.clients.count;
    summary.excused = site.clients.excused;
    if summary.broken.is_none() {
        site.service.sv("down");
    }
    summary
}

fn sentence(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}

fn report(run: &Run, site: &Site, number: u32, history: &[String], wrong: &[String]) -> String {
    let mut text = format!(
        "{} step {number} of seed {}: repeat it with\n  CHAOS_SEED={} CHAOS_STEPS={} CHAOS_ONLY={} cargo test --test chaos\n",
        site.name,
        run.seed,
        run.seed,
        number * SITES.len() as u32,
        site.name,
    );
    for one in &history[history.len().saturating_sub(5)..] {
        let _ = writeln!(text, "  {one}");
    }
    for one in wrong.iter().take(12) {
        let _ = writeln!(text, "BROKEN: {one}");
    }
    let _ = writeln!(text, "{} in all\n{}", wrong.len(), site.picture());
    text
}

/// Four services, each with its own thread, its own clients and its own steps.
#[test]
fn every_promise_holds_after_every_step() {
    let run = Run::asked_for();
    let all: Vec<Summary> = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> =
            run.services().into_iter().map(|index| scope.spawn(move || go_through(run, index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a service")).collect()
    });
    let steps: u32 = all.iter().map(|one| one.steps).sum();
    let requests: usize = all.iter().map(|one| one.requests).sum();
    let excused: usize = all.iter().map(|one| one.excused).sum();
    let took = run.begun.elapsed().as_secs();
    println!("seed {}: {steps} steps, {requests} requests, {excused} excused, {took} s", run.seed);
    let broken: Vec<&str> = all.iter().filter_map(|one| one.broken.as_deref()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    if let Some(directory) = std::env::var_os("RUNSMITH_CHAOS") {
        fs::create_dir_all(&directory).expect("a directory for numbers");
        fs::write(Path::new(&directory).join("table"), table(&run, &all, took)).expect("numbers");
    }
}

/// What was measured.
fn table(run: &Run, all: &[Summary], took: u64) -> String {
    let mut text = "| operation | what is done | steps |\n|---|---|---|\n".to_owned();
    for (row, (name, what)) in Operation::NAMES.iter().enumerate() {
        let count: u32 = all.iter().map(|one| one.rows[row]).sum();
        let _ = writeln!(text, "| {name} | {what} | {count} |");
    }
    let sum = |of: fn(&Summary) -> usize| all.iter().map(of).sum::<usize>();
    let _ = writeln!(
        text,
        "| all | seed {}, {took} s, {} requests, of which {} ended with a process that was killed or a service that was down | {} |",
        run.seed,
        sum(|one| one.requests),
        sum(|one| one.excused),
        sum(|one| one.steps as usize)
    );
    text
}

/// Lost, doubled, mixed and truncated answers are noticed.
#[test]
fn what_is_wrong_is_noticed() {
    chaos::clients::assert_notices();
}

/// The page says what is done and what was measured.
#[test]
fn the_page_is_the_harness() {
    const BEGIN: &str = "<!-- printed by `make chaos` -->\n";
    const END: &str = "<!-- end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/chaos.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
    let (table, after) = rest.split_once(END).expect("the table's end");
    if let (Some(directory), Some(_)) =
        (std::env::var_os("RUNSMITH_CHAOS"), std::env::var_os("RUNSMITH_BLESS"))
    {
        let table = fs::read_to_string(Path::new(&directory).join("table")).expect("numbers");
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("the page");
        return;
    }
    for (name, what) in Operation::NAMES {
        assert!(
            table.contains(&format!("| {name} | {what} |")),
            "docs/chaos.md lacks {name}; run `make chaos`"
        );
    }
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for (_, what) in Kind::BROKEN {
        assert!(words.contains(what), "docs/chaos.md does not say that a release {what}");
    }
}
