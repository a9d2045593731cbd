//! A tree of files as a value: what is wanted, or what a directory holds.

mod change;

use std::sync::Arc;

pub use change::{Change, How, Seen, SeenKind, compare};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(String),
}

impl Kind {
    /// The word for it: `file`, `directory` or `link`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory => "directory",
            Self::Link(_) => "link",
        }
    }
}

/// One file, directory or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Absolute and normal: begins with `/`, has no `.`, `..`, empty step or slash at the end.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0o7777 at most. A link's are not its own and are 0o777.
    pub mode: u32,
    /// The user who owns it, by name: a rendered tree never looks at a host's numbers. Entries share it.
    pub owner: Arc<str>,
    /// The group, by name.
    pub group: Arc<str>,
    /// Its content must not be shown to people.
    pub secret: bool,
}

/// Whether a path is that of a file which holds one variable of a service, by the name of its directory.
pub fn is_variable(path: &str) -> bool {
    path.rsplit('/').nth(1) == Some("env")
}

/// Entries in the order of their paths, each path once, parents before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
    /// Values that are secret and in no secret file: in a command, for example.
    hidden: Vec<String>,
}

/// Two entries that want the same path and differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The path both want.
    pub path: String,
}

impl Tree {
    /// The values that are masked wherever files that are not secret are shown. Of each secret file it is the first line, in which a NUL
    /// stands for the end of a line; what follows says who has made the file.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        let hidden = self.hidden.iter().cloned();
        let in_files = self.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::File(content) if entry.secret => {
                let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
                Some(String::from_utf8_lossy(first).replace('\0', "\n"))
            }
            _ => None,
        });
        in_files.chain(hidden)
    }

    /// The same tree, with values that are to be masked besides those of its secret files.
    pub fn hiding(mut self, values: impl IntoIterator<Item = String>) -> Self {
        self.hidden.extend(values);
        self
    }

    /// Other entries, with the values of this tree that are to be masked.
    ///
    /// # Errors
    /// As for [`Tree::new`].
    pub fn with(&self, entries: Vec<Entry>) -> Result<Self, Vec<Clash>> {
        Ok(Self::new(entries)?.hiding(self.hidden.iter().cloned()))
    }

    /// Brings entries into order. Entries that are the same in everything (a directory that two
    /// services share) become one; those that want one path and differ are all reported.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, Vec<Clash>> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut clashes: Vec<Clash> = vec![];
        for pair in entries.windows(2) {
            let [one, two] = pair else { continue };
            if one.path == two.path && one != two && clashes.last().is_none_or(|clash| clash.path != one.path)
            {
                clashes.push(Clash { path: one.path.clone() });
            }
        }
        if !clashes.is_empty() {
            return Err(clashes);
        }
        entries.dedup_by(|a, b| a.path == b.path);
        Ok(Self { entries, hidden: vec![] })
    }

    /// Hides the content of those entries too for which `is_secret` holds.
    pub fn hide(&mut self, is_secret: impl Fn(&Entry) -> bool) {
        for entry in &mut self.entries {
            entry.secret |= is_secret(entry);
        }
    }

    /// Every entry, parents first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether `path` is a directory on the way to an entry.
    pub fn leads_to(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        // In the order of the paths, all that is below a directory stands together.
        let at = self.entries.partition_point(|entry| *entry.path < *below);
        self.entries.get(at).is_some_and(|entry| entry.path.starts_with(&below))
    }

    /// The entry at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok().map(|at| &self.entries[at])
    }
}
