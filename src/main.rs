//! argv in, exit code out; nothing else.

#![deny(clippy::disallowed_methods, clippy::exit, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output was closed when the program was started.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main`, Rust opens /dev/null in the place of a closed descriptor. A result would then be lost without a word,
/// and nobody could tell it from one that is thrown away on purpose; so it is looked at before that.
#[expect(
    unsafe_code,
    reason = "the C library calls what is named in this section, without arguments, before `main`"
)]
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let flags = rustix::io::fcntl_getfd(rustix::stdio::stdout());
    CLOSED.store(flags == Err(rustix::io::Errno::BADF), Ordering::Relaxed);
}

fn main() -> std::process::ExitCode {
    let closed = CLOSED.load(Ordering::Relaxed);
    std::process::ExitCode::from(runsmith::commands::main(closed).code())
}
