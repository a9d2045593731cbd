//! A scratch host for end-to-end tests: a user, a root, a real runsv with a rendered service, its
//! log line by line, and clients that count every request that is not answered.
//!
//! Nothing here waits for a fixed time: each wait is for a line of the log, a process or an answer,
//! and has a limit with a name. What a test needs and the host lacks makes it fail, by name.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of test binaries")]
#![allow(clippy::disallowed_methods, reason = "tests are effects")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![allow(clippy::print_stderr, reason = "what happened, if a test fails")]

pub mod ansible;
pub mod faults;
pub mod host;
pub mod load;
pub mod log;
pub mod page;
pub mod row;
pub mod salt;
pub mod service;

use std::time::Duration;

/// From the start of runsv until every worker has loaded the application, on a busy machine.
pub const START: Duration = Duration::from_secs(40);
/// From `sv 2` until the old master is gone: boot, a three-second request, promotion.
pub const HANDOVER: Duration = Duration::from_secs(90);
/// From `sv down` until nothing is left.
pub const STOP: Duration = Duration::from_secs(40);
/// What the run script promises: a master's death is noticed within this.
pub const NOTICED: Duration = Duration::from_secs(2);
/// For a step that follows at once.
pub const SOON: Duration = Duration::from_secs(20);
