//! An application that serves although no runtime is at work: what the last runtime has written down of it, as far as it lives; and
//! why there is no runtime.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::target::Target;
use crate::runtime::event::{Generation, Moment};
use crate::runtime::linux::clock;
use crate::runtime::linux::place::Place;
use crate::runtime::linux::process::{self, Process};
use crate::runtime::linux::runsv::{Wanted, word};
use crate::runtime::protocol::{GenerationStatus, Status};
use crate::runtime::state::{self, Life, State};
use crate::visible::{visible, without_numbers};

/// The state in which an application serves and no runtime watches over it.
pub(super) const STATE: &str = "unsupervised";

/// What serves; none if nothing does, or only root may know.
pub(super) fn look(target: &Target) -> Option<Status> {
    let text = Place::existing(&target.run)?.state().ok()??;
    let state = state::read(&text, &target.name, &clock::boot_id()).ok()?;
    let (serving, since) = state.machine.serving?;
    let serving = generation(&state, serving, Some(since))?;
    let others = state.machine.orphans.iter().chain(state.machine.leavers.iter().map(|(leaver, _)| leaver));
    let leaving = others.filter_map(|one| generation(&state, *one, None)).collect();
    Some(Status {
        application: target.name.clone(),
        directory: target.directory.display().to_string(),
        state: STATE.to_owned(),
        serving: Some(serving),
        candidate: state.machine.candidate.and_then(|candidate| generation(&state, candidate, None)),
        leaving,
        addresses: state.listeners.iter().map(|kept| kept.address.clone()).collect(),
        restarts: state.machine.restarts,
        failures: state.machine.failures,
        queued: state.machine.queued,
        last: state.last,
        ..Status::default()
    })
}

/// A generation of which processes live.
fn generation(state: &State, number: Generation, since: Option<Moment>) -> Option<GenerationStatus> {
    let life: &Life = state.generations.iter().find(|life| life.generation == number)?;
    let (pid, start) = life.master;
    let master = Process::proven(pid, start, Some(life.uid)).map(|master| master.pid);
    let workers = match master {
        // Workers that were started since are in no record.
        Some(master) => process::all().values().filter(|one| one.parent == master && !one.has_run).count(),
        None => life
            .ready
            .iter()
            .filter(|(pid, start)| Process::proven(*pid, *start, Some(life.uid)).is_some())
            .count(),
    };
    if master.is_none() && workers == 0 {
        return None;
    }
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    Some(GenerationStatus {
        enclosure: None,
        generation: number.0,
        master,
        workers_ready: life.workers.1.map_or(0, |of| workers.min(of)),
        workers: life.workers.1,
        serving_for_ms: since.map(|since| clock::now().since(since)),
        release: life.release.clone(),
        orphaned: master.is_none(),
        fingerprint: life.fingerprint.clone(),
    })
}

/// What is to be done about it. `failed`: why the last run could not begin.
pub(super) fn advice(target: &Target, wish: Wanted, failed: Option<String>) -> String {
    let directory = target.sv_reference();
    let obstacle = if wish == Wanted::Up { obstacle(target) } else { None };
    match (obstacle.or(failed), wish) {
        (Some(reason), _) => reason,
        (None, Wanted::Unknown) => format!(
            "runsv does not run: start runsvdir again, or `runsv {directory}`; the next run adopts the application, which goes on"
        ),
        (None, Wanted::Hidden) => "only root can read what runsv does".to_owned(),
        (None, Wanted::Down) => format!(
            "the service is to be down, and `sv down` does not reach the application: `sv up {directory}` has a run adopt it, and `sv down {directory}` ends it then"
        ),
        (None, Wanted::Up) => {
            "runsv starts another run, which adopts the application; the log has the last words of the one before".to_owned()
        }
    }
}

/// The kernel reads no more of a first line, in bytes (execve(2)).
const FIRST_LINE: u64 = 256;

/// Why runsv cannot execute the run script, with what to do about it: then no runtime begins, and only runsv's own output, which is
/// runsvdir's, has the reason.
pub(super) fn obstacle(target: &Target) -> Option<String> {
    obstacle_in_words(target).map(|reason| without_numbers(&reason).into_owned())
}

fn obstacle_in_words(target: &Target) -> Option<String> {
    let run = target.directory.join("run");
    let shown = run.display();
    let cannot = format!("runsv cannot execute {shown}");
    let found = match std::fs::metadata(&run) {
        Ok(found) => found,
        Err(error) => return Some(format!("{cannot}: {error}")),
    };
    if !is_executable(&found) {
        let name = word(&shown.to_string());
        return Some(format!("{cannot}, which is not executable: `chmod +x {name}`"));
    }
    let mut line = vec![];
    let file = std::fs::File::open(&run).ok()?;
    BufReader::new(file.take(FIRST_LINE)).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let program = line.strip_prefix("#!")?.split_ascii_whitespace().next()?;
    let program = visible(program);
    match std::fs::metadata(Path::new(&*program)) {
        Err(error) => Some(format!(
            "{cannot}: its first line names {program}: {error}; install runsmith there, or render the service again"
        )),
        Ok(found) if !is_executable(&found) => Some(format!(
            "{cannot}: its first line names {program}, which is not executable: `chmod +x {}`",
            word(&program)
        )),
        Ok(_) => None,
    }
}

fn is_executable(found: &std::fs::Metadata) -> bool {
    found.is_file() && found.permissions().mode() & 0o111 != 0
}
