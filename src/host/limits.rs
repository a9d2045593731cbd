//! What limits can be set to: who starts the service has its limits from the one who started it.

use std::collections::BTreeMap;

use super::listeners::{called, parent, supervised};
use super::proc;
use crate::facts::{Asked, Limits};
use crate::model::Service;
use crate::model::input::Resource;

/// CAP_SYS_RESOURCE in capabilities(7): who has it may raise hard limits.
const SYS_RESOURCE: u32 = 24;

/// As /proc/PID/limits calls them.
const NAMES: &[(&str, Resource)] = &[
    ("Max address space", Resource::As),
    ("Max core file size", Resource::Core),
    ("Max cpu time", Resource::Cpu),
    ("Max data size", Resource::Data),
    ("Max file size", Resource::Fsize),
    ("Max file locks", Resource::Locks),
    ("Max locked memory", Resource::Memlock),
    ("Max msgqueue size", Resource::Msgqueue),
    ("Max open files", Resource::Nofile),
    ("Max processes", Resource::Nproc),
    ("Max resident set", Resource::Rss),
    ("Max realtime priority", Resource::Rtprio),
    ("Max pending signals", Resource::Sigpending),
    ("Max stack size", Resource::Stack),
];

/// The limits of the runsv that starts the service, else of the runsvdir that will start it, else
/// of root here.
pub(super) fn ask(service: &Service) -> Asked<Limits> {
    let runsv = supervised(&service.service.directory).and_then(parent).filter(|pid| *pid > 1);
    let me = std::process::id();
    let (pid, whose) = if let Some(pid) = runsv {
        (pid, format!("the service's runsv (pid {pid})"))
    } else if let Some(pid) = called("runsvdir") {
        (pid, format!("runsvdir (pid {pid})"))
    } else if rustix::process::geteuid().is_root() {
        (me, "root here (no runsvdir is running)".to_owned())
    } else {
        return Asked::Unknown("no runsvdir is running, and who asks is not root".to_owned());
    };
    let (Some(limits), Some(status)) = (proc::text(pid, "limits"), proc::text(pid, "status")) else {
        return Asked::Unknown(format!("/proc/{pid} cannot be read"));
    };
    Asked::Answer(Limits {
        whose,
        hard: hard(&limits),
        may_raise: may_raise(&status),
        nr_open: super::number("/proc/sys/fs/nr_open"),
    })
}

/// The hard limits: the second number of each line.
fn hard(text: &str) -> BTreeMap<Resource, Option<u64>> {
    let line = |(name, resource): &(&str, Resource)| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')))?;
        let value = line.split_whitespace().nth(1)?;
        Some((*resource, if value == "unlimited" { None } else { Some(value.parse().ok()?) }))
    };
    NAMES.iter().filter_map(line).collect()
}

fn may_raise(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|bits| bits >> SYS_RESOURCE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(hard(&text).len(), NAMES.len(), "{text}");
        let text = "Max open files            1024                 20000                files     \n";
        assert_eq!(hard(text), BTreeMap::from([(Resource::Nofile, Some(20_000))]));
        assert!(may_raise("CapEff:\t000001ffffffffff\n") && !may_raise("CapEff:\t000001fffeffffff\n"));
        assert!(!may_raise("") && !may_raise("CapEff:\tzz\n"));
    }
}
