//! runsmith: a few values per application in, a complete runit service out.
//!
//! ```text
//! pillar text -> Source -> Pillar (spans) -> schema -> Services -> plan -> Tree(want) ┐
//! service directory ---------------------------------------------> Tree(have) --------┴-> compare -> Changes
//!    any stage -> [Diagnostic] -> report               Changes -> diff -> report | disk::apply
//! ```

#![deny(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "effects stay in their modules, and bad input is a finding, never a panic"
)]

pub mod cli;
pub mod commands;
pub mod diagnostic;
pub mod diff;
pub mod disk;
pub mod exit;
pub mod facts;
pub mod failure;
pub mod host;
pub mod model;
pub mod pillar;
pub mod plan;
pub mod quote;
pub mod record;
pub mod report;
pub mod rule;
pub mod rules;
pub mod runtime;
pub mod schema;
pub mod services;
pub mod source;
pub mod steps;
pub mod template;
pub mod tree;
pub mod visible;
