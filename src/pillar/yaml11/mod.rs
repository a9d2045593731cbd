//! Splits a text into events exactly as libyaml 0.2.5 does.
//!
//! Salt and Ansible read YAML through PyYAML's binding of that library. It is no YAML 1.2: a key
//! may not be longer than 1024 characters, `[a:b]` is one string, a line separator ends a line, and
//! so on. What they refuse is refused here too, and at the same place; `tests/dialects.rs` compares.
//! Names of functions and the order of checks follow libyaml's `scanner.c` and `parser.c`, so that
//! the two can be read side by side.

mod cursor;
mod directive;
mod flow;
mod parser;
mod scalar;
mod scanner;
mod token;

pub(super) use parser::Parser;
