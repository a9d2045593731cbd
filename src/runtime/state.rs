//! What one run keeps for the next: format 1. It is written as JSON, and read strictly: what does not fit is as good as nothing.

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment};
use super::linux::cgroup;
use super::linux::listen::Kept;
use super::linux::stored::Failed;
use super::machine::Record;
use super::protocol::{LastHandOver, Requester};

/// The format that is written. A change that an older runtime would misread gets another number.
pub const FORMAT: u32 = 1;

/// Everything that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// See [`FORMAT`].
    pub format: u32,
    /// Counts up: of two copies the higher one is newer.
    pub sequence: u64,
    /// Which start of the machine it holds for.
    pub boot: String,
    /// Whose it is.
    pub application: String,
    /// The machine's part.
    pub machine: Record,
    /// What proves each generation.
    pub generations: Vec<Life>,
    /// Where it listens.
    pub listeners: Vec<Kept>,
    /// The keeper: number and start time, in ticks since the machine's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<(u32, u64)>,
    /// The last hand-over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastHandOver>,
    /// Generations whose start has no outcome yet: when it began, and which one served then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<(Generation, Moment, Option<Generation>)>,
    /// Who has asked for these generations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<(Generation, Requester)>,
    /// Who has asked for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Requester>,
    /// Why what serves is not what is on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// What served and has failed, before what serves now was fallen back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toppled: Option<Failed>,
    /// The fingerprint of what somebody has deployed and given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// Something that was deployed has failed, and may still be on disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}

/// A state is never longer, in bytes; a longer file is not ours.
pub const LONGEST: u64 = 1 << 20;

/// So many workers of a generation are named at the most; others count as ready if they live.
const MOST_NAMED: usize = 1_000;

impl State {
    /// As it is written. Whatever processes have claimed, it is not longer than can be read.
    pub fn text(&self) -> String {
        let text = |state: &Self| serde_json::to_string(state).unwrap_or_default();
        let whole = text(self);
        if whole.len() as u64 <= LONGEST && self.generations.iter().all(|life| life.ready.len() <= MOST_NAMED)
        {
            return whole;
        }
        let mut short = self.clone();
        short.generations.iter_mut().for_each(|life| life.ready.truncate(MOST_NAMED));
        let whole = text(&short);
        if whole.len() as u64 <= LONGEST {
            return whole;
        }
        short.generations.iter_mut().for_each(|life| life.ready.clear());
        text(&short)
    }
}

/// The session of the generation that stands for all strays: processes that call themselves the service and that no record
/// names. They have sessions of their own; this number names no session.
pub const STRAYS: u32 = 0;

impl Life {
    /// Whether it stands for all strays. Only its number means something to the next run, which looks for them anew.
    pub fn is_of_strays(&self) -> bool {
        self.session == STRAYS
    }
}

/// What proves a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Which.
    pub generation: Generation,
    /// Its master: number and start time, in ticks since the machine's start.
    pub master: (u32, u64),
    /// The session that its processes are in.
    pub session: u32,
    /// Their user.
    pub uid: u32,
    /// When it was started.
    pub since: Moment,
    /// The release that `current` led to.
    pub release: String,
    /// See [`Made`](super::snapshot::Made).
    #[serde(default)]
    pub fingerprint: String,
    /// It was started from what was kept, and not from what is on disk.
    #[serde(default)]
    pub fallback: bool,
    /// Workers that had loaded the application, and how many there are to be.
    #[serde(default)]
    pub workers: (u32, Option<u32>),
    /// Those workers: number and start time, in ticks since the machine's start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<(u32, u64)>,
    /// Device and inode of the Unix sockets that it has inherited; none if an earlier version has started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Vec<(u64, u64)>>,
    /// Its cgroup; none if it has none of its own, or if an earlier version has started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<cgroup::Kept>,
    /// Why limits of it as a whole do not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlimited: Option<String>,
    /// It has a private socket for health checks.
    #[serde(default)]
    pub probe: bool,
}

/// Reads a state; none if it is not one of this service on this start of the machine.
pub fn read(text: &str, application: &str, boot: &str) -> Result<State, String> {
    let state: State = serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?;
    if state.format != FORMAT {
        return Err(format!("its format is {}, and this runtime reads {FORMAT}", state.format));
    }
    if state.application != application {
        return Err(format!("it is of {:?}", state.application));
    }
    if state.boot != boot {
        return Err("the machine was started anew since".to_owned());
    }
    Ok(state)
}
