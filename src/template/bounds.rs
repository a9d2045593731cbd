//! A limit for what fuel does not count: minijinja walks lists and maps that hold the same value many times without charging for
//! each visit, and parses long rows of operators and frees deep values by recursion. Somebody else's template must not keep a job busy,
//! take its memory or overflow its stack.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::Memory;
use rustix::time::{ClockId, clock_gettime};

/// So much processor time the rendering of one file may take, and so long it has to have lasted: all the fuel of a file is used up
/// in a tenth of it.
const LONGEST: Duration = Duration::from_secs(5);

/// So much more memory the process may have meanwhile, in bytes: a file has at most 64 MB.
const MOST: u64 = 512 << 20;

/// Between two looks at what it takes; one that takes less is not looked at.
const LOOK: Duration = Duration::from_millis(20);

/// It takes more than it may.
pub(super) struct Exceeded;

/// The stack of a thread that parses a template, in bytes; what is not used of it takes no memory. An expression may have as many
/// operators in a row as a template has room for, and each takes a frame or two.
pub(super) const PARSES: usize = 512 << 20;

/// The same of one that renders. A value may be nested as deep as a template has statements.
pub(super) const RENDERS: usize = 64 << 20;

/// Does some work in a thread of its own with so much stack. One that takes too much is left to itself: the command ends soon, and the
/// thread with it.
pub(super) fn bounded<T: Send + 'static>(
    stack: usize,
    memory: Memory,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Exceeded> {
    let (sender, receiver) = mpsc::channel();
    let begun = [ClockId::Monotonic, ClockId::ProcessCPUTime].map(now);
    let before = memory();
    let begins = std::thread::Builder::new().stack_size(stack).spawn(move || {
        let _ = sender.send(work());
    });
    let Ok(thread) = begins else { return Err(Exceeded) };
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(done) => {
                // What it has freed is gone before the next one begins.
                let _ = thread.join();
                return Ok(done);
            }
            Err(RecvTimeoutError::Timeout) => {
                let took = [ClockId::Monotonic, ClockId::ProcessCPUTime].map(now);
                let is_long = took.iter().zip(begun).all(|(now, begun)| now.saturating_sub(begun) >= LONGEST);
                if is_long || memory().saturating_sub(before) >= MOST {
                    return Err(Exceeded);
                }
            }
            // It panicked, which has been printed.
            Err(RecvTimeoutError::Disconnected) => return Err(Exceeded),
        }
    }
}

/// The processor time that the calling thread has taken, in milliseconds.
pub(super) fn used() -> u64 {
    u64::try_from(now(ClockId::ThreadCPUTime).as_millis()).unwrap_or(u64::MAX)
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_takes_too_much_is_left() {
        assert!(bounded(RENDERS, || 0, || 1).is_ok_and(|one| one == 1));
        static TAKEN: AtomicU64 = AtomicU64::new(1);
        let memory = || TAKEN.load(Ordering::Relaxed);
        let much = bounded(RENDERS, memory, || {
            TAKEN.fetch_add(MOST, Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_secs(60));
        });
        assert!(much.is_err());
    }
}
