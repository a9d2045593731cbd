//! What a command may use up that reads what others have written: so much memory and time of the processor as any input needs that
//! is not too large (docs/security.md), and no more. What else bounds work is in its own place, and says which part of the input is
//! too much; this is for what nobody has thought of.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXCPU;
use signal_hook::iterator::Signals;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::visible::visible;

/// So much private memory, in bytes.
const MOST_MEMORY: u64 = 1 << 30;

/// So much time of the processor, in seconds. A difference in each of 10,000 services takes five with an optimised program, which is some
/// twenty times as fast as one without optimisation.
const MOST_TIME: u64 = if cfg!(debug_assertions) { 120 } else { 10 };

/// Whoever runs the command may allow another time: on a slow machine, for example.
const TIME: &str = "RUNSMITH_SECONDS";

/// What is printed where there is no more memory; nothing as long as the process has no bound of ours.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Bounds this process, and what it starts.
///
/// # Errors
/// The variable that allows another time is not a number of seconds.
pub(super) fn set() -> Result<(), Failure> {
    let time = match std::env::var_os(TIME) {
        None => MOST_TIME,
        Some(text) => {
            text.to_str().and_then(|text| text.parse().ok()).filter(|time| *time > 0).ok_or_else(|| {
                Failure::Usage(format!(
                    "{TIME} is not a whole number of seconds: {}",
                    visible(&text.to_string_lossy())
                ))
            })?
        }
    };
    let most = lower(Resource::Data, MOST_MEMORY);
    let _ = REFUSED.set(sentence(&format!("needs more than {} MiB of memory", most >> 20)));
    // The standard library panics where a thread has no room for its stack.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if ["Cannot allocate memory", "failed to spawn thread"].iter().any(|why| text.contains(why)) {
            refused();
        }
        before(panic);
    }));
    // Before the bound, since the signal ends who has no handler.
    if let Ok(mut signals) = Signals::new([SIGXCPU]) {
        let most = lower(Resource::Cpu, time);
        let wait = move || {
            if signals.forever().next().is_some() {
                let what = format!("takes more than {most} s of the processor ({TIME} allows another time)");
                give_up(&sentence(&what));
            }
        };
        // Where no thread can be started, the process ends a little later, at the hard limit if there is one.
        let _ = std::thread::Builder::new().name("bounds".to_owned()).stack_size(64 << 10).spawn(wait);
    }
    Ok(())
}

fn sentence(what: &str) -> String {
    format!("error: this {what}, the most that one run may have; name fewer or shorter pillars at once\n")
}

/// Lowers a limit, unless it is lower; what it is then.
fn lower(resource: Resource, most: u64) -> u64 {
    let now = getrlimit(resource);
    let most = now.current.map_or(most, |now| now.min(most));
    let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: now.maximum });
    most
}

/// The system's allocator. Where there is no more memory, a command that is bounded says so: without that it would be aborted.
struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

#[allow(unsafe_code, reason = "an allocator's functions are unsafe")]
// SAFETY: every call is passed on to the system's allocator as it came, and what that returns is returned.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the caller.
        given(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the caller.
        given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for the caller.
        given(unsafe { System.realloc(block, layout, size) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

/// A block, if there is one.
#[inline]
fn given(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        refused();
    }
    block
}

#[cold]
fn refused() {
    if let Some(sentence) = REFUSED.get() {
        give_up(sentence);
    }
}

/// Ends the process, without any more memory.
fn give_up(sentence: &str) -> ! {
    let _ = rustix::io::write(rustix::stdio::stderr(), sentence.as_bytes());
    signal_hook::low_level::exit(Exit::Trouble.code().into())
}
