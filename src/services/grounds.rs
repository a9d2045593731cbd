//! Which services may want one path, told without planning all of their files.
//!
//! Whatever a service consists of lies in a few places, its grounds. Where no ground of one lies within one of
//! another, no path of one is a path of the other, and their files need not be planned to know.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::Service;
use crate::model::input::LogKind;
use crate::steps::{is_below, is_within, parent};

/// Where all paths of a service lie: it has each of these, or something below it.
struct Grounds<'a> {
    root: &'a str,
    logs: &'a str,
    /// The directory of svlogd's log, by default below `logs`.
    service_log: Option<&'a str>,
    /// The others.
    rest: [&'a str; 6],
}

impl<'a> Grounds<'a> {
    fn of(service: &'a Service) -> Self {
        let (place, layout) = (&service.service, &service.layout);
        Self {
            root: &service.root,
            logs: &layout.logs.path,
            service_log: (service.log.kind == LogKind::Svlogd).then_some(&service.log.directory),
            rest: [
                &place.directory,
                // It is there only if the service is enabled. The reservation costs others at most some time.
                &place.link,
                &layout.releases.path,
                &layout.pids.path,
                &layout.sockets.path,
                &layout.config.path,
            ],
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        [self.root, self.logs].into_iter().chain(self.service_log).chain(self.rest)
    }

    /// Those that lie in none of the others.
    fn outer(&self) -> impl Iterator<Item = &'a str> {
        let is_inner = |ground: &str| self.all().any(|other| is_below(ground, other));
        self.all().filter(move |ground| !is_inner(ground))
    }
}

/// Whether a service may want one path of its own twice. Most have each directory below `root` and in none of the
/// others.
pub(super) fn may_meet_itself(service: &Service) -> bool {
    let grounds = Grounds::of(service);
    let meets = |(at, one): (usize, &str), (other_at, other): (usize, &str)| {
        let usual = other == grounds.root && is_below(one, other)
            || Some(one) == grounds.service_log && other == grounds.logs && is_below(one, other);
        at != other_at && !usual && is_within(one, other)
    };
    grounds.all().enumerate().any(|one| grounds.all().enumerate().any(|other| meets(one, other)))
}

/// For each service whether it may want a path that another one wants as well.
pub(super) fn meetings(services: &[&Service]) -> Vec<bool> {
    let mut meets = vec![false; services.len()];
    let mut owners: HashMap<&str, usize> = HashMap::with_capacity(services.len() * 3);
    for (at, service) in services.iter().enumerate() {
        for ground in Grounds::of(service).outer() {
            match owners.entry(ground) {
                Entry::Vacant(free) => {
                    free.insert(at);
                }
                Entry::Occupied(taken) if *taken.get() != at => {
                    meets[at] = true;
                    meets[*taken.get()] = true;
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    // Most grounds lie side by side in one directory, in which nobody has ground that holds them all.
    let mut free = "";
    for (at, service) in services.iter().enumerate() {
        for ground in Grounds::of(service).outer() {
            let directory = parent(ground);
            if directory == free {
                continue;
            }
            let mut is_free = true;
            let mut above = directory;
            while !above.is_empty() {
                if let Some(owner) = owners.get(above) {
                    is_free = false;
                    if *owner != at {
                        meets[at] = true;
                        meets[*owner] = true;
                    }
                }
                above = parent(above);
            }
            if is_free {
                free = directory;
            }
        }
    }
    meets
}

#[cfg(test)]
mod tests {
    use super::super::{All, Asked, plan_all, select};
    use crate::pillar::{self, Dialect, Format};
    use crate::rules::Texts;
    use crate::source::{Source, SourceId, Sources};
    use crate::template::Templates;

    /// What is found, whether all files are planned or only those of services that may meet.
    fn found(text: &str, files: bool) -> (usize, Vec<String>) {
        let mut sources = Sources::new();
        let parsed =
            pillar::parse(&Source::new("t", text), SourceId(0), Format::Yaml, Dialect::Salt).unwrap();
        sources.add(Source::new("t", text));
        let (applications, _) = select(parsed.documents, None);
        let texts = Texts { sources: &sources, dialect: Dialect::Salt };
        let asked = Asked { threads: 1, sets: None, known: false, files };
        let All { found, .. } =
            plan_all(applications, &Templates::built_in().unwrap(), texts, asked).unwrap();
        let clashes = found.iter().filter(|one| one.rule.name == "path-clash").count();
        (clashes, found.iter().map(|one| format!("{} {:?}", one.message, one.span())).collect())
    }

    /// Leaving out what cannot meet changes nothing of what is found: tried with directories that lie in, above and beside
    /// each other.
    #[test]
    fn what_is_left_out_does_not_clash() {
        const PATHS: &[&str] = &[
            "/srv/a",
            "/srv/a/x",
            "/srv/a/x/y",
            "/srv/a-b",
            "/srv/b",
            "/srv/b/shared/logs",
            "/opt/c/config",
        ];
        const KEYS: &[&str] = &["releases", "pids", "logs", "sockets", "config"];
        let mut state: u32 = 7;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below
        };
        let (mut with, mut without) = (0, 0);
        for _ in 0..600 {
            let mut text =
                "unicorn:\n  defaults: {user: deploy, virtualenv_home: /h}\n  applications:\n".to_owned();
            for (at, name) in ["one", "two"].iter().enumerate() {
                text.push_str(&format!("    {name}:\n      bind: 127.0.0.1:{}\n", 8000 + at));
                if random(3) > 0 {
                    text.push_str(&format!("      root: {}\n", PATHS[random(PATHS.len())]));
                }
                if random(4) == 0 {
                    text.push_str(&format!("      log: {{directory: {}}}\n", PATHS[random(PATHS.len())]));
                }
                let mut layout: Vec<String> = vec![];
                for key in KEYS {
                    if random(4) == 0 {
                        let (path, mode) = (PATHS[random(PATHS.len())], ["0755", "0775"][random(2)]);
                        layout.push(format!("{key}: {{path: {path}, mode: \"{mode}\"}}"));
                    }
                }
                text.push_str(&format!("      layout: {{{}}}\n", layout.join(", ")));
            }
            let all = found(&text, true);
            assert_eq!(found(&text, false), all, "{text}");
            *if all.0 > 0 { &mut with } else { &mut without } += 1;
        }
        assert!(with > 50 && without > 50, "{with} with a clash, {without} without");
    }
}
