//! Time, as the machine is told it.

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

use crate::runtime::event::Moment;

/// Now, on the clock that starts with the machine and goes on while it sleeps. Setting the date does not move it.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let milliseconds = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    Moment(u64::try_from(milliseconds).unwrap_or(0))
}

/// Seconds since 1970, for people.
pub fn wall() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// When a process was started, in nanoseconds since 1970: `ticks` as proc(5) counts them, a hundredth of a second each.
pub fn wall_of(ticks: u64) -> i128 {
    let nanoseconds = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime) + i128::from(ticks) * 10_000_000
}

/// Which start of the machine this is (proc(5), boot_id); what a record says of processes holds for that one only.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// How long to wait for `until`; a millisecond more than is left, so that its moment has come when the wait is over.
pub fn until(until: Moment) -> Timespec {
    let left = until.since(now());
    let milliseconds = if left == 0 { 0 } else { left + 1 };
    Timespec {
        tv_sec: i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000,
    }
}
