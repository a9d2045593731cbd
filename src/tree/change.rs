//! What is different between what is there and what is wanted.

use std::fmt;

use super::{Entry, Kind, Tree};
use crate::visible::visible;

/// One difference at one path; a path that differs in several ways has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry's path, as [`Entry::path`] has it.
    pub path: String,
    /// What differs.
    pub how: How,
}

/// A way to differ, from what was there to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing was there; holds the [word](Kind::word) for what is wanted.
    Created(&'static str),
    /// Nothing is wanted; holds the word for what was there.
    Removed(&'static str),
    /// Something of another kind was there; holds both words.
    Kind {
        /// The word for what was there.
        old: &'static str,
        /// The word for what is wanted.
        new: &'static str,
    },
    /// A file's bytes.
    Content,
    /// Where a link points.
    Target {
        /// Where it pointed.
        old: String,
        /// Where it is to point.
        new: String,
    },
    /// Permission bits.
    Mode {
        /// They were.
        old: u32,
        /// They are to be.
        new: u32,
    },
    /// The user who owns it, by name.
    Owner {
        /// It was; a number where the host has no name for it.
        old: String,
        /// It is to be.
        new: String,
    },
    /// The group, by name.
    Group {
        /// It was; a number where the host has no name for it.
        old: String,
        /// It is to be.
        new: String,
    },
}

impl fmt::Display for Change {
    /// One line: `/etc/sv/web/run: mode 0644 -> 0755`. Control characters in names are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", visible(&self.path), self.how)
    }
}

impl fmt::Display for How {
    /// As in the line of a [`Change`]: `mode 0644 -> 0755`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(word) => write!(f, "created {word}"),
            Self::Removed(word) => write!(f, "removed {word}"),
            Self::Kind { old, new } => write!(f, "{old} -> {new}"),
            Self::Content => f.write_str("content"),
            Self::Target { old, new } => write!(f, "target {} -> {}", visible(old), visible(new)),
            Self::Mode { old, new } => write!(f, "mode {old:04o} -> {new:04o}"),
            Self::Owner { old, new } => write!(f, "owner {} -> {}", visible(old), visible(new)),
            Self::Group { old, new } => write!(f, "group {} -> {}", visible(old), visible(new)),
        }
    }
}

/// What is at a wanted entry's path, borrowed from wherever it was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What it is.
    pub kind: SeenKind<'a>,
    /// Permission bits, 0o7777 at most; of no meaning for a link.
    pub mode: u32,
    /// Owner and group by name; `None` where nobody is to compare them.
    pub owner: Option<(&'a str, &'a str)>,
}

/// The kind of what was seen, with what makes it differ.
#[derive(Clone, Copy, Debug)]
pub enum SeenKind<'a> {
    /// A regular file. Its bytes, or `None` if they are known to differ (another length) and
    /// were not read.
    File(Option<&'a [u8]>),
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(&'a str),
    /// Something a tree cannot hold, by its word.
    Other(&'static str),
}

impl SeenKind<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory => "directory",
            Self::Link(_) => "link",
            Self::Other(word) => word,
        }
    }
}

impl<'a> From<&'a Entry> for Seen<'a> {
    fn from(entry: &'a Entry) -> Self {
        let kind = match &entry.kind {
            Kind::File(bytes) => SeenKind::File(Some(bytes)),
            Kind::Directory => SeenKind::Directory,
            Kind::Link(target) => SeenKind::Link(target),
        };
        Self { kind, mode: entry.mode, owner: Some((&entry.owner, &entry.group)) }
    }
}

impl Seen<'_> {
    /// Every way in which this is not what `want` asks for; empty if it is.
    pub fn differs_from(&self, want: &Entry) -> Vec<How> {
        let mut ways = vec![];
        match (self.kind, &want.kind) {
            (SeenKind::File(bytes), Kind::File(wanted)) => {
                if bytes != Some(wanted.as_slice()) {
                    ways.push(How::Content);
                }
            }
            (SeenKind::Directory, Kind::Directory) => {}
            (SeenKind::Link(target), Kind::Link(wanted)) => {
                if target != wanted {
                    ways.push(How::Target { old: target.to_owned(), new: wanted.clone() });
                }
            }
            (old, new) => return vec![How::Kind { old: old.word(), new: new.word() }],
        }
        // A link has no mode of its own.
        if !matches!(self.kind, SeenKind::Link(_)) && self.mode != want.mode {
            ways.push(How::Mode { old: self.mode, new: want.mode });
        }
        if let Some((owner, group)) = self.owner {
            if *owner != *want.owner {
                ways.push(How::Owner { old: owner.to_owned(), new: want.owner.to_string() });
            }
            if *group != *want.group {
                ways.push(How::Group { old: group.to_owned(), new: want.group.to_string() });
            }
        }
        ways
    }
}

/// Everything that turns `have` into `want`, in the order of the paths. With `owners` false,
/// owner and group are not compared (who is not root cannot set them).
pub fn compare(have: &Tree, want: &Tree, owners: bool) -> Vec<Change> {
    let mut changes = vec![];
    let mut push = |path: &str, how| changes.push(Change { path: path.to_owned(), how });
    let mut have = have.entries().iter().peekable();
    for new in want.entries() {
        while let Some(old) = have.next_if(|old| old.path < new.path) {
            push(&old.path, How::Removed(old.kind.word()));
        }
        let Some(old) = have.next_if(|old| old.path == new.path) else {
            push(&new.path, How::Created(new.kind.word()));
            continue;
        };
        let mut seen = Seen::from(old);
        if !owners {
            seen.owner = None;
        }
        for how in seen.differs_from(new) {
            push(&new.path, how);
        }
    }
    for old in have {
        push(&old.path, How::Removed(old.kind.word()));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind, mode: u32, owner: &str) -> Entry {
        Entry { path: path.into(), kind, mode, owner: owner.into(), group: "root".into(), secret: false }
    }

    fn tree(entries: Vec<Entry>) -> Tree {
        Tree::new(entries).unwrap()
    }

    fn lines(have: &Tree, want: &Tree, owners: bool) -> Vec<String> {
        compare(have, want, owners).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_every_way_to_differ() {
        let have = tree(vec![
            entry("/a", Kind::File(b"1".into()), 0o644, "root"),
            entry("/b", Kind::Link("x".into()), 0o777, "root"),
            entry("/gone", Kind::Directory, 0o755, "root"),
            entry("/kind", Kind::Directory, 0o755, "root"),
            entry("/z", Kind::Directory, 0o755, "root"),
        ]);
        let want = tree(vec![
            entry("/a", Kind::File(b"2".into()), 0o4755, "web"),
            entry("/b", Kind::Link("y\n".into()), 0o777, "root"),
            entry("/kind", Kind::Link("/a".into()), 0o777, "root"),
            entry("/new", Kind::Directory, 0o755, "root"),
        ]);
        let expected = [
            "/a: content",
            "/a: mode 0644 -> 4755",
            "/a: owner root -> web",
            "/b: target x -> y\\n",
            "/gone: removed directory",
            "/kind: directory -> link",
            "/new: created directory",
            "/z: removed directory",
        ];
        assert_eq!(lines(&have, &want, true), expected);
        assert!(!lines(&have, &want, false).iter().any(|line| line.contains("owner")));
    }

    #[test]
    fn equal_trees_do_not_differ() {
        let one = tree(vec![entry("/a", Kind::File(vec![]), 0o644, "root")]);
        assert!(compare(&one, &one, true).is_empty());
    }
}
