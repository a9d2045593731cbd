//! runsmith: a few values per application in, a complete runit service out.
//!
//! ```text
//! pillar text -> Source -> Pillar (spans) -> schema -> Services -> plan -> Tree(want) ┐
//! service directory ---------------------------------------------> Tree(have) --------┴-> compare -> Changes
//!    any stage -> [Diagnostic] -> report               Changes -> diff -> report | disk::apply
//! ```

#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod exit;
pub mod failure;
pub mod model;
pub mod pillar;
pub mod plan;
pub mod schema;
pub mod source;
pub mod template;
pub mod tree;
