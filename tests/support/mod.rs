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
pub mod cgroups;
pub mod faults;
pub mod host;
pub mod load;
pub mod log;
pub mod page;
pub mod row;
pub mod runsv;
pub mod salt;
pub mod service;

use std::path::Path;
use std::time::{Duration, Instant};

// Each limit only ends a test that fails: it is long enough for a machine with ten programs for each of its cores.

/// From the start of runsv until every worker has loaded the application.
pub const START: Duration = Duration::from_secs(120);
/// From `sv 2` until the old master is gone: boot, a three-second request, promotion.
pub const HANDOVER: Duration = Duration::from_secs(180);
/// From `sv down` until nothing is left.
pub const STOP: Duration = Duration::from_secs(120);
/// What the run script promises is that a master's death is noticed within two seconds, and a busy machine takes its time to
/// show that. Without a look of its own it would be noticed never.
pub const NOTICED: Duration = Duration::from_secs(15);
/// For a step that follows at once, or within a few seconds of an idle machine.
pub const SOON: Duration = Duration::from_secs(60);
/// Seconds for `handoff.boot_timeout` where a release is to miss it: a good one before or after it must not.
pub const BOOT: u32 = 20;

/// Waits for a file.
pub fn wait_for_file(path: &str) {
    let until = Instant::now() + SOON;
    while !Path::new(path).exists() {
        assert!(Instant::now() < until, "there is no {path}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
