//! What the machine can ask for. These are intents: `server` knows which signal one is, the shell knows how it is done.

use serde::{Deserialize, Serialize};

use super::event::{Generation, Ticket};

/// What a generation is started from: release, run script, environment, secrets and server configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// What is on disk now: somebody has asked for it.
    Disk,
    /// What is on disk now, unless that is recorded as failed: nobody has asked for it.
    First,
    /// What served before the generation that served last, and was not yet proven itself.
    Before,
    /// What was proven last.
    LastProven,
    /// What serves now, whatever is on disk: it is replaced because new connections do not reach it.
    Serving,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start this generation: release, virtualenv, command, environment, addresses and limits come from there.
    Start(Generation, Origin),
    /// Ask the serving generation (first) for its successor (second).
    Succeed(Generation, Generation),
    /// Ask its health once; the answer comes as an event.
    Check(Generation),
    /// Tell it to finish: its requests end, no new ones are taken.
    Retire(Generation),
    /// Its workers may have missed what their master passed on to them while they began: they are asked, too.
    AskWorkers(Generation),
    /// It has served for `min_uptime`: what it was started from is kept as the last known good.
    Prove(Generation),
    /// What it was started from has failed, and why: no unplanned start uses it again.
    Condemn(Generation, String),
    /// Another generation takes over from this one, which is not proven: what it was started from is kept meanwhile.
    KeepBefore(Generation),
    /// End every process of it, now.
    Kill(Generation),
    /// Tell it to open its logs again.
    Reopen(Generation),
    /// A step for the log, and for whoever follows a hand-over.
    Tell(Step),
    /// What became of what somebody asked.
    Answer(Ticket, Outcome),
    /// One generation serves and nothing else is left: addresses it does not have can be closed.
    Settled(Generation),
    /// Nothing listens any more: the addresses are closed, so that clients go elsewhere.
    Close,
    /// The run ends.
    End(End),
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is left of the service.
    Stopped,
    /// The application goes on, and the next run adopts it.
    Left,
}

/// What became of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The generation serves alone.
    Done(Generation),
    /// It has served for `min_uptime`.
    Proven(Generation),
    /// It was backed out, and why; the generation that served before still does, if there was one.
    BackedOut(String),
    /// It was given up because somebody asked for that.
    GivenUp(String),
    /// It had taken over and has failed on probation, and why; what serves instead is decided.
    FailedProbation(Generation, String),
    /// It was not begun, and why.
    Refused(String),
}

/// Why a hand-over is backed out that somebody has given up.
pub const GIVEN_UP: &str = "it was given up, as requested";

/// A step, as the log tells it. [`super::words`] puts it into a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A generation is started while nothing serves.
    Starting(Generation),
    /// One more (second) is started beside one that is not ready yet (first).
    Overtaking(Generation, Generation),
    /// One that was overtaken has failed, and why; the other one goes on.
    Dropped(Generation, String),
    /// It has served for `min_uptime`.
    Proven(Generation),
    /// It has failed within `min_uptime` after it took over, and why.
    FailedProbation(Generation, String),
    /// A successor (second) of the serving generation (first) is started.
    HandOver(Generation, Generation),
    /// It is ready; its health is asked next.
    Proving(Generation),
    /// It serves; `true`: older ones finish their requests now.
    Serves(Generation, bool),
    /// The hand-over is through: it serves alone.
    Done(Generation),
    /// It is removed, and why; the other one, if any, goes on.
    BackingOut(Generation, String),
    /// The hand-over has failed, and why; that one goes on serving.
    Failed(Option<Generation>, String),
    /// The master of a generation has ended, and how.
    Died(Generation, String),
    /// Nothing serves: so many failures in a row, and the next start is so many milliseconds away.
    BackOff(u32, u64),
    /// A generation did not finish in time and is killed.
    Overdue(Generation),
    /// It does not answer health checks any more, and why; it is replaced.
    Hung(Generation, String),
    /// New connections do not reach it; the same is started again with the sockets as they are now.
    Unreachable(Generation),
    /// A hand-over was asked for while one is under way: it follows.
    Queued,
    /// Everything is told to stop.
    Stopping,
    /// Nothing is left.
    Stopped,
    /// This run ends; the application goes on.
    Leaving,
    /// It was running before this run began, and goes on.
    Adopted(Generation),
    /// Its logs are opened again.
    Reopened(Generation),
}
