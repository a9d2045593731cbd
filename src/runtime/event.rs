//! What can have happened, in the machine's words. No process id, no descriptor and no clock is in here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds on the kernel's clock that starts with the machine and stands still for nobody
/// (CLOCK_BOOTTIME). It means nothing after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// So many milliseconds later.
    pub fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from an earlier moment to this one; 0 if it is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One server master with its workers: the first is 1, and no number is used twice while anything of the service lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}

/// Who waits for the outcome of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u32);

/// The lengths of time that the machine goes by, all in milliseconds, and what follows from the way of hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a new generation may take until it is ready and its health is proven.
    pub boot_timeout: u64,
    /// How long requests in flight may take.
    pub drain_timeout: u64,
    /// A generation that lived so long is started again at once.
    pub min_uptime: u64,
    /// The first wait after a failure.
    pub backoff_initial: u64,
    /// The longest wait.
    pub backoff_max: u64,
    /// The health check, if there is one.
    pub health: Option<Health>,
    /// The server asks for its successor itself (USR2) and owns its addresses: two first generations cannot live side by side.
    pub exclusive: bool,
    /// An unplanned start may use what was proven instead of what is on disk.
    pub fallback: bool,
}

/// When a generation counts as healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Milliseconds between two requests.
    pub interval: u64,
    /// So many good answers in a row prove it.
    pub successes: u32,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The service is to run: nobody has asked for a new release.
    Begin,
    /// A new generation from what is on disk now.
    Upgrade(Option<Ticket>),
    /// The same; the answer comes once the new generation is proven, or has failed.
    Prove(Ticket),
    /// The same, and then this run ends, so that the next one adopts the new generation (`sv restart`).
    Restart,
    /// The hand-over that is under way is given up.
    Abort(Ticket),
    /// Everything ends; requests in flight finish first.
    Stop,
    /// This run ends at once and the application goes on: whoever supervised it is gone.
    Leave,
    /// The server opens its logs again.
    Reopen,
    /// As `sv once` has it: nothing is started again from now on. Told when the serving generation has ended.
    NotAgain,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A generation's master runs its program; from now on these terms count.
    Started(Generation, Terms),
    /// A generation could not be started, and why. Nothing of it is left.
    NotStarted(Generation, String),
    /// The first worker has loaded the application: from now on it may hold requests.
    Loaded(Generation),
    /// It is ready, as the service has it (`ready: workers|notify|alive`).
    Ready(Generation),
    /// It answered a health check well.
    Healthy(Generation),
    /// It did not, and why.
    Sick(Generation, String),
    /// Its master has ended, and how. Workers of it may be left.
    Ended(Generation, String),
    /// Its workers die again and again while they load the application, and how.
    Unstable(Generation, String),
    /// The file of a Unix socket that it has was removed or replaced. The address is open again, for another generation.
    Unreachable(Generation),
    /// A worker of it has exited before it had loaded the application, after the generation was ready.
    Dying(Generation),
    /// All its workers have been ready for a while again.
    Steady(Generation),
    /// No process of it is left.
    Gone(Generation),
    /// Somebody wants something.
    Asked(Ask),
    /// The moment that [`deadline`](super::machine::Machine::deadline) gave has come.
    Due,
}
