//! The typed services: nothing illegal can be held.
//!
//! [`input`] is what a pillar may say, and where the JSON Schema comes from; [`resolve`] fills in
//! every default and gives a [`Service`], or every complaint.

pub mod address;
pub mod duration;
pub mod input;
pub mod paths;
mod resolve;
pub mod service;
pub mod settings;

pub use resolve::{Context, resolve};
pub use service::Service;
