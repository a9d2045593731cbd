//! What the machine can ask for. These are intents: `server` knows which signal one is, the shell knows how it is done.

use super::event::{Generation, Ticket};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start this generation from what is on disk now: release, virtualenv, command, environment, addresses, limits.
    Start(Generation),
    /// Ask the serving generation (first) for its successor (second).
    Succeed(Generation, Generation),
    /// Ask its health once; the answer comes as an event.
    Check(Generation),
    /// Tell it to finish: its requests end, no new ones are taken.
    Retire(Generation),
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
    /// It was backed out, and why; the generation that served before still does, if there was one.
    BackedOut(String),
    /// It was not begun, and why.
    Refused(String),
}

/// A step, as the log tells it. [`super::words`] puts it into a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A generation is started while nothing serves.
    Starting(Generation),
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
