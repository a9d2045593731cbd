//! The runtime: what executes a rendered native run script.
//!
//! ```text
//! kernel -> linux --facts--> shell --Event--> machine.step(now, event) --[Action]--> shell -> linux -> kernel
//!                              ^------------- machine.deadline() ------------┘
//! ```
//!
//! The [`machine`] decides and touches nothing; the shell asks the kernel what happened, tells the machine, and does
//! what it answers. The contract between them:
//!
//! * The shell tells everything that happens to a generation, in the order in which it happened: `Started` or
//!   `NotStarted` after `Start`; `Loaded` before `Ready`; `Ended` when the master's process has ended; `Gone`, last and once,
//!   when no process of the generation is left. A `Check` is answered by `Healthy` or `Sick` within
//!   the check's time-out; another one for the same generation takes its place.
//! * It tells `Due` when the moment of `deadline()` has come, and asks for `deadline()` anew after each step.
//! * It does what it is told in the order given, and signals nothing that is not proven to be the generation's.
//! * After each step it keeps [`machine::Record`], with what proves each process, where the next run finds it.
//!
//! Three processes take part. The *runtime* (`runsmith run`) is runsv's child and the one that acts. The *keeper* is
//! started by it and outlives it: it holds the listening sockets and the server's output, and does nothing by itself. The
//! *launcher* is what a new master is until it runs its program: it drops root's privileges in the order that the kernel
//! wants and becomes the server.

pub mod action;
pub mod cause;
pub mod event;
pub mod machine;
pub mod server;
pub mod snapshot;
pub mod words;

pub mod linux;
pub mod protocol;
pub mod shell;
pub mod state;
