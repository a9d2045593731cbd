//! The typed services: nothing illegal can be held.
//!
//! [`input`] is what a pillar may say, and where the JSON Schema comes from; [`resolve`] fills in
//! every default and gives a [`Service`], or every complaint.

pub mod address;
pub mod duration;
mod given;
pub mod input;
mod nearest;
pub mod paths;
mod placeholder;
mod resolve;
pub mod secret;
pub mod service;
pub mod settings;
mod system;
mod url_password;
pub mod veil;

pub use nearest::nearest;
pub use resolve::{Context, resolve, resolve_anyway};
pub use service::Service;

/// The variable that names the directory of `secret_files`; systemd has the same for its credentials.
pub const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Whether a service can have that name: `[a-z0-9][a-z0-9_.-]*`, at most 64.
pub fn is_application_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && bytes.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
        })
}
