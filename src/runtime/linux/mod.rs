//! What the runtime asks of the kernel, and the two small processes beside it: keeper and launcher.
//!
//! Everything is done with descriptors: a process is a pidfd whose start time was compared, a directory is one that
//! only root can have changed, a socket is handed over and never opened again by its name. rustix has a safe call for each; only `memory`, `descriptors` and
//! `kernel` need more than that.

#![allow(clippy::disallowed_methods, reason = "this is where the runtime meets the kernel")]

pub mod apart;
pub mod asking;
pub mod cgroup;
pub mod clock;
pub mod control;
pub mod descriptors;
pub mod health;
pub mod inbox;
mod interpreter;
pub mod isolation;
pub mod keeper;
pub mod keepers;
pub mod keeping;
pub mod kernel;
pub mod launch;
pub mod line_mark;
pub mod listen;
pub mod listen_as;
pub mod log;
pub mod memory;
pub mod place;
pub mod privileges;
pub mod process;
pub mod runsv;
pub mod secret_files;
pub mod shared;
pub mod signals;
pub mod spawn;
pub mod stored;
pub mod take;
pub mod watch;

pub use crate::host::passing;
