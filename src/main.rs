//! argv in, exit code out; nothing else.

#![deny(clippy::disallowed_methods, clippy::exit, clippy::unwrap_used)]

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(runsmith::commands::main().code())
}
