//! Users, groups and host names, as the host's name service has them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::process::{End, QUESTION, Run};
use crate::facts::{Asked, User};

/// What the name service has said, each asked once.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<String, Asked<Option<User>>>,
    groups: HashMap<String, Asked<Option<u32>>>,
    groups_of: HashMap<String, Asked<Vec<u32>>>,
    by_number: HashMap<(&'static str, u32), String>,
}

impl Names {
    /// The user of that name.
    pub(super) fn user(&mut self, name: &str) -> Asked<Option<User>> {
        let asked = self.users.entry(name.to_owned()).or_insert_with(|| {
            record("passwd", name, |fields| {
                Some(User { uid: fields.get(2)?.parse().ok()?, home: fields.get(5)?.to_string() })
            })
        });
        asked.clone()
    }

    /// The number of the group of that name.
    pub(super) fn group(&mut self, name: &str) -> Asked<Option<u32>> {
        let asked = self.groups.entry(name.to_owned());
        asked.or_insert_with(|| record("group", name, |fields| fields.get(2)?.parse().ok())).clone()
    }

    /// The groups that the host gives a user.
    pub(super) fn groups_of(&mut self, user: &str) -> Asked<Vec<u32>> {
        let ask = || match Run::system("id", &["-G", "--", user]).answer(QUESTION) {
            Ok(ran) if ran.end == End::Code(0) => Asked::Answer(
                ran.text().split_whitespace().filter_map(|number| number.parse().ok()).collect(),
            ),
            Ok(_) => Asked::Moot,
            Err(reason) => Asked::Unknown(reason),
        };
        self.groups_of.entry(user.to_owned()).or_insert_with(ask).clone()
    }

    /// The name of a user (`passwd`) or group (`group`); digits if it has none.
    pub(super) fn of(&mut self, database: &'static str, number: u32) -> String {
        let ask = || {
            let digits = number.to_string();
            let ran = Run::system("getent", &[database, "--", &digits]).answer(QUESTION).ok();
            ran.and_then(|ran| ran.text().split(':').next().map(str::to_owned))
                .filter(|name| !name.is_empty())
                .unwrap_or(digits)
        };
        self.by_number.entry((database, number)).or_insert_with(ask).clone()
    }
}

/// Asks for one record. `getent` ends with 2 if there is none.
fn record<T>(
    database: &'static str,
    name: &str,
    read: impl FnOnce(&[&str]) -> Option<T>,
) -> Asked<Option<T>> {
    let ran = match Run::system("getent", &[database, "--", name]).answer(QUESTION) {
        Ok(ran) => ran,
        Err(reason) => return Asked::Unknown(reason),
    };
    match ran.end {
        End::Code(0) => {}
        End::Code(2) => return Asked::Answer(None),
        End::Code(_) | End::Signal(_) | End::Late => {
            return Asked::Unknown(format!("getent {database} failed"));
        }
    }
    let text = ran.text();
    let fields: Vec<_> = text.lines().next().unwrap_or_default().split(':').collect();
    // A name of digits finds a number.
    Asked::Answer(if fields.first() == Some(&name) { read(&fields) } else { None })
}

/// What a host name means here; nothing if it means nothing.
pub(super) fn addresses(host: &str) -> Vec<IpAddr> {
    let ran = Run::system("getent", &["ahosts", "--", host]).answer(QUESTION);
    let text = ran.map(|ran| ran.text()).unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_root_and_nobody_else() {
        let mut names = Names::default();
        assert_eq!(names.user("root"), Asked::Answer(Some(User { uid: 0, home: "/root".into() })));
        assert_eq!(names.user("no-such-user-here"), Asked::Answer(None));
        assert_eq!(names.user("0"), Asked::Answer(None), "a number is no name");
        assert_eq!(names.group("root"), Asked::Answer(Some(0)));
        assert_eq!(
            (names.of("passwd", 0), names.of("group", 3_999_999_999)),
            ("root".into(), "3999999999".into())
        );
        assert!(addresses("localhost").iter().any(IpAddr::is_loopback));
    }
}
