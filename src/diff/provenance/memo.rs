//! What was found out of one file, for all that are alike.
//!
//! Ten thousand services are mostly the same text with other values in it. Where another value of a key
//! makes another line is then the same line in all of them, and need be tried once only.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::leaf::Leaf;
use crate::model::Service;
use crate::tree::{Entry, Kind};

/// What other values of one leaf do to one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Lines of the file that are others then, by their indexes.
    pub(super) lines: Vec<usize>,
    /// Lines that are there then, and are not now.
    pub(super) gained: Vec<Vec<u8>>,
    /// The content is another one.
    pub(super) content: bool,
    /// The mode is another one.
    pub(super) mode: bool,
    /// The owner is another one.
    pub(super) owner: bool,
    /// The group is another one.
    pub(super) group: bool,
    /// It is a link and leads elsewhere.
    pub(super) target: bool,
    /// Nothing is at the entry's path then.
    pub(super) gone: bool,
    /// Nothing is there because it is somewhere else.
    pub(super) moved: bool,
}

/// What an entry has in common with those that are alike: which leaves its service has, what the entry is
/// to the service, the outline of its content, and the leaf that is asked about.
pub(super) type Key = (u64, (usize, String), u64, String);

/// Bytes of files that may be made to find causes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// In one service.
    of_one: usize,
    /// In all services whose files are not alike.
    of_all: usize,
}

impl Budget {
    /// Whether so many bytes of one service are too many.
    pub(super) fn is_less_than(self, bytes: usize) -> bool {
        bytes > self.of_one
    }
}

/// Between two pillars, of which a pull request may have made one: only values that differ are tried, and few do.
pub(super) const OF_PILLARS: Budget = Budget { of_one: 32 << 20, of_all: 96 << 20 };

/// Against a host, where nearly every value has to be tried: a service with a shell run script takes 16 MiB.
pub(super) const OF_A_HOST: Budget = Budget { of_one: 64 << 20, of_all: 4 << 30 };

/// What is known of entries, by what they have in common, and what it has cost.
#[derive(Default)]
pub(in crate::diff) struct Memo {
    known: Mutex<HashMap<Key, Arc<Vec<Touched>>>>,
    spent: AtomicUsize,
    is_spent: AtomicBool,
}

impl Memo {
    /// Whether `bytes` may be made, with which it is `of_one` for this service.
    pub(super) fn spend(&self, bytes: usize, of_one: usize, budget: Budget) -> bool {
        let of_all = self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let may = of_one <= budget.of_one && of_all <= budget.of_all;
        if !may {
            self.give_up();
        }
        may
    }

    /// Something is not worked out.
    pub(super) fn give_up(&self) {
        self.is_spent.store(true, Ordering::Relaxed);
    }

    /// Whether something was not worked out, because it would have cost too much.
    pub(in crate::diff) fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }

    /// What is known.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Vec<Touched>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Keeps what was found.
    pub(super) fn put(&self, key: Key, touched: Arc<Vec<Touched>>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, touched);
    }
}

/// What is the same for services that have the same leaves.
pub(super) fn shape(leaves: &[Leaf], service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    for leaf in leaves {
        leaf.key.hash(&mut hasher);
    }
    // These decide which files there are.
    format!(
        "{:?}{:?}{:?}{:?}",
        service.run_script, service.server, service.log.kind, service.handoff.strategy
    )
    .hash(&mut hasher);
    service.service.down.hash(&mut hasher);
    service.service.enabled.hash(&mut hasher);
    hasher.finish()
}

/// What an entry is to its service: in which of its directories, and the rest of the path.
pub(super) fn relative(service: &Service, path: &str) -> (usize, String) {
    let layout = &service.layout;
    let directories = [
        &service.service.directory,
        &service.service.link,
        &service.log.directory,
        &layout.releases.path,
        &layout.pids.path,
        &layout.logs.path,
        &layout.sockets.path,
        &layout.config.path,
        &layout.run,
        &service.root,
    ];
    let within =
        directories.iter().enumerate().filter(|(_, directory)| crate::steps::is_within(path, directory));
    match within.max_by_key(|(at, directory)| (directory.len(), usize::MAX - at)) {
        Some((at, directory)) => (at, path.get(directory.len()..).unwrap_or_default().to_owned()),
        None => (directories.len(), path.to_owned()),
    }
}

/// What the lines of a file begin with, the values left out: files with the same outline have the same
/// keys at the same lines. A secret's content is one line and says nothing.
pub(super) fn outline(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.kind.word().hash(&mut hasher);
    if let Kind::File(content) = &entry.kind
        && !entry.secret
    {
        for line in content.split(|byte| *byte == b'\n') {
            let text = line.trim_ascii_start();
            let indent = line.len() - text.len();
            let end = match text.first() {
                Some(b'-' | b'\'' | b'"' | b'#') => 1,
                _ => text.iter().position(|byte| b" =:([{'\"".contains(byte)).unwrap_or(text.len()),
            };
            (indent, &text[..end]).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Entry {
        let kind = Kind::File(text.into());
        Entry { path: "/x".into(), kind, mode: 0o644, owner: "a".into(), group: "a".into(), secret: false }
    }

    #[test]
    fn an_outline_is_of_keys_and_not_of_values() {
        let one = "#!/x run\na: 1\nb:\n  - x\n";
        assert_eq!(outline(&file(one)), outline(&file("#!/y run\na: 22\nb:\n  - y\n")));
        for other in ["#!/x run\na: 1\nb:\n  - x\n  - y\n", "#!/x run\nc: 1\nb:\n  - x\n", "a: 1\n"] {
            assert_ne!(outline(&file(one)), outline(&file(other)), "{other}");
        }
        assert_ne!(outline(&file("")), outline(&Entry { kind: Kind::Directory, ..file("") }));
    }
}
