//! Which files of earlier runs living generations still need.
//!
//! A generation reads the configuration that its command names when it starts, and once more when it replaces itself by
//! USR2. So a file that an upgrade will not use any more stays until no generation lives that was started with it. Root
//! writes down what that was in the run directory of the service: the runtime in a snapshot of each generation, the shell
//! script in its state.

use rustix::fs::{Dir, Mode, OFlags, openat};

use super::bounded;
use super::directory::Directory;
use super::recorded::step_to;

/// A longer snapshot is not read, in bytes: it has a service's values and one configuration file.
const LONGEST: u64 = 16 << 20;

/// The file of a living server of the shell script.
const STATE: &str = "state";

/// Why a file at `path` is kept, if a living generation whose run directory is `run` may read it again.
pub(super) fn by_whom(root: &Directory, run: &str, path: &str) -> Option<String> {
    if run.is_empty() {
        return None;
    }
    // What others can write there says nothing.
    let dir = step_to(root, run).ok().flatten().filter(|dir| !dir.has_exchangeable())?;
    let names = Dir::read_from(dir.fd()).ok()?;
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy();
        let number = name.strip_prefix("generation.").and_then(|rest| rest.strip_suffix(".json"));
        let is_needed = match number {
            Some(_) => snapshot_names(&content(&dir, &name), path),
            None => name == STATE && state_names(&content(&dir, &name), path),
        };
        if is_needed {
            let who = number.map_or_else(|| "the server".to_owned(), |number| format!("generation {number}"));
            return Some(format!("{who} was started with it and still runs; a later run removes it"));
        }
    }
    None
}

fn content(dir: &Directory, name: &str) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(dir.fd(), name, flags, Mode::empty());
    fd.ok().and_then(|fd| bounded::read(&fd, LONGEST).ok()).unwrap_or_default()
}

/// Whether a snapshot has this path as one of its values.
fn snapshot_names(text: &[u8], path: &str) -> bool {
    fn names(value: &serde_json::Value, path: &str) -> bool {
        match value {
            serde_json::Value::String(text) => text == path,
            serde_json::Value::Array(all) => all.iter().any(|value| names(value, path)),
            serde_json::Value::Object(all) => all.values().any(|value| names(value, path)),
            _ => false,
        }
    }
    // One that is being written, or was removed meanwhile, is that of a new generation or of none.
    serde_json::from_slice(text).is_ok_and(|value| names(&value, path))
}

/// Whether the server that a state of the shell script describes may have been started with the configuration at this path.
fn state_names(text: &[u8], path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    if text.is_empty() || !matches!(name, "gunicorn.py" | "unicorn.rb") {
        return false;
    }
    let text = String::from_utf8_lossy(text);
    // An earlier version did not write it down, nor is it for a path with unusual characters.
    text.lines().find_map(|line| line.strip_prefix("config ")).is_none_or(|config| config == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_names_what_its_command_has() {
        let text = br#"{"service": {"command": ["gunicorn", "-c", "/srv/x/gunicorn.py"]}, "config": "/srv/y/gunicorn.py in it"}"#;
        assert!(snapshot_names(text, "/srv/x/gunicorn.py"));
        assert!(!snapshot_names(text, "/srv/y/gunicorn.py"));
        assert!(!snapshot_names(b"", "/srv/x/gunicorn.py"));
    }

    #[test]
    fn a_state_names_the_configuration_or_may_mean_any() {
        let state = b"boot 1\nconfig /srv/x/gunicorn.py\nlast none\n";
        assert!(state_names(state, "/srv/x/gunicorn.py"));
        assert!(!state_names(state, "/srv/y/gunicorn.py"));
        assert!(state_names(b"boot 1\nlast none\n", "/srv/y/unicorn.rb"));
        assert!(!state_names(b"boot 1\nlast none\n", "/etc/sv/x/env/A"));
        assert!(!state_names(b"", "/srv/x/gunicorn.py"));
    }
}
