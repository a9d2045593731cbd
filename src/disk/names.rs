//! Names of users and groups, and the numbers the host has for them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::shown;
use crate::failure::Failure;
use crate::tree::Entry;
use crate::visible::visible;

/// Users and groups of this run.
pub(super) struct Ids {
    /// Owners are compared and set.
    pub(super) set: bool,
    users: Names,
    groups: Names,
}

/// One of the host's databases.
struct Names {
    database: &'static str,
    numbers: HashMap<String, u32>,
    names: Mutex<HashMap<u32, String>>,
}

impl Ids {
    /// Finds the number of every owner and group that is wanted, as far as the host has one. Who is
    /// not root cannot set owners and needs none.
    pub(super) fn resolve(entries: &[&Entry]) -> Self {
        let mut ids = Self::host();
        if ids.set {
            let root = ["root"];
            let users: BTreeSet<&str> = entries.iter().map(|entry| &*entry.owner).chain(root).collect();
            let groups: BTreeSet<&str> = entries.iter().map(|entry| &*entry.group).chain(root).collect();
            for name in users {
                ids.users.learn(name);
            }
            for name in groups {
                ids.groups.learn(name);
            }
        }
        ids
    }

    /// Whether the host knows owner and group of an entry, or need not.
    pub(super) fn knows(&self, entry: &Entry) -> bool {
        !self.set || (self.users.has(&entry.owner) && self.groups.has(&entry.group))
    }

    /// The failure that lists the users and groups of these entries that the host does not know, if
    /// there are any.
    pub(super) fn unknown<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
        root: &Path,
    ) -> Option<Failure> {
        let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries.filter(|entry| !self.knows(entry)) {
            users.extend(Some(&*entry.owner).filter(|name| !self.users.has(name)));
            groups.extend(Some(&*entry.group).filter(|name| !self.groups.has(name)));
        }
        let mut unknown = vec![];
        for (word, missing) in [("user", users), ("group", groups)] {
            let missing: Vec<_> = missing.into_iter().map(visible).collect();
            if !missing.is_empty() {
                let plural = if missing.len() == 1 { "" } else { "s" };
                unknown.push(format!("no {word}{plural} {}", missing.join(", ")));
            }
        }
        let reason = format!("this host has {}", unknown.join(" and "));
        (!unknown.is_empty()).then(|| Failure::path("set the owners below", shown(root), reason))
    }

    /// The host's names, for reading.
    pub(super) fn host() -> Self {
        let set = rustix::process::geteuid().is_root();
        Self { set, users: Names::read("passwd"), groups: Names::read("group") }
    }

    /// The numbers of an entry's owner and group.
    pub(super) fn of(&self, entry: &Entry) -> (u32, u32) {
        (self.users.number(&entry.owner), self.groups.number(&entry.group))
    }

    /// The user's name; the number in digits where there is none.
    pub(super) fn user(&self, uid: u32) -> String {
        self.users.name(uid)
    }

    /// The group's name; the number in digits where there is none.
    pub(super) fn group(&self, gid: u32) -> String {
        self.groups.name(gid)
    }
}

impl Names {
    /// Reads the local file, `/etc/passwd` or `/etc/group`; `getent` is asked for the rest.
    fn read(database: &'static str) -> Self {
        let text = std::fs::read(format!("/etc/{database}")).unwrap_or_default();
        let (mut numbers, mut names) = (HashMap::new(), HashMap::new());
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some((name, number)) = record(line) {
                numbers.entry(name.to_owned()).or_insert(number);
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Self { database, numbers, names: Mutex::new(names) }
    }

    /// Finds the number for a name. Says whether there is one, as [`has`](Self::has) does later.
    fn learn(&mut self, name: &str) -> bool {
        if self.numbers.contains_key(name) {
            return true;
        }
        if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) {
            return false;
        }
        // Reading back yields digits where a number has no name, so digits are accepted too.
        let found = self.ask(name).filter(|(found, _)| found == name).map(|(_, number)| number);
        let Some(number) = found.or_else(|| digits(name)) else { return false };
        self.numbers.insert(name.to_owned(), number);
        true
    }

    /// Whether a name that was to be learnt has a number.
    fn has(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
    }

    fn number(&self, name: &str) -> u32 {
        // What has no number is refused before; -1 would be "leave alone" to the kernel.
        self.numbers.get(name).copied().unwrap_or(u32::MAX)
    }

    fn name(&self, number: u32) -> String {
        let Ok(mut names) = self.names.lock() else { return number.to_string() };
        names
            .entry(number)
            .or_insert_with(|| match self.ask(&number.to_string()) {
                Some((name, found)) if found == number => name,
                _ => number.to_string(),
            })
            .clone()
    }

    /// Asks the host's name service, which knows users that are in no file (LDAP, SSSD).
    fn ask(&self, key: &str) -> Option<(String, u32)> {
        let output = Command::new("getent")
            .args([self.database, "--", key])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        record(text.lines().next()?).map(|(name, number)| (name.to_owned(), number))
    }
}

/// Name and number of a line of passwd or group.
fn record(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name, digits(number)?)).filter(|(name, _)| !name.is_empty())
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The greatest number means "leave alone" to the kernel and is nobody's.
    plain.then(|| text.parse().ok()).flatten().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_records() {
        assert_eq!(record("deploy:x:1000:1000::/home/deploy:/bin/sh"), Some(("deploy", 1000)));
        assert_eq!(record("adm:x:4:syslog,deploy"), Some(("adm", 4)));
        assert_eq!(record("+::::::"), None);
        assert_eq!(record("+nis:x:-1:"), None);
    }

    #[test]
    fn knows_root_and_not_nonsense() {
        let mut users = Names::read("passwd");
        assert!(users.learn("root"));
        assert_eq!((users.number("root"), users.name(0)), (0, "root".to_owned()));
        for nonsense in ["", "a:b", "no\nbody", "--help", "no such user"] {
            assert!(!users.learn(nonsense), "{nonsense:?}");
        }
        assert!(users.learn("4242"));
        assert_eq!(users.name(3_999_999_999), "3999999999");
    }
}
