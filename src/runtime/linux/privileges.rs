//! What a process gives up for good before it goes on: capabilities, and the way to get any by running a program.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::model::service::Hardening;

use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// So many capabilities a set has room for (capget(2), version 3).
const MOST: u32 = 64;

/// Leaves only these in the bounding set, and none in the inheritable and the ambient set. What the process has itself stays
/// until it becomes another user or runs a program: what that gets is within the bounding set, also if root runs it.
pub fn bound(kept: CapabilitySet) -> Result<()> {
    for number in 0..MOST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    // The ambient set is within the inheritable one.
    let own = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..own })
}

/// From now on no program that it runs gets more than it has: neither by a setuid or setgid bit nor by capabilities of the
/// file. It holds for whatever it starts, too.
pub fn refuse_new() -> Result<()> {
    set_no_new_privs(true)
}

/// What the runtime needs of root's rights: to become the application's user (SETUID, SETGID) and take rights from it (SETPCAP);
/// to signal it (KILL), and to read its /proc and take descriptors out of it (SYS_PTRACE); to give its limits and priority
/// (SYS_RESOURCE, SYS_NICE), and sockets with their port, owner and mode (NET_BIND_SERVICE, CHOWN, FOWNER); to ask the kernel which
/// file and which network a socket belongs to (NET_ADMIN: SIOCUNIXFILE, SIOCGSKNS), and to bind it to an interface
/// (NET_RAW); and to reach its files where their owner has closed
/// them (DAC_OVERRIDE, DAC_READ_SEARCH).
const OF_RUNTIME: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What the runtime of a service needs: where generations are isolated, also the right to mount (SYS_ADMIN).
pub fn of_runtime(hardening: &Hardening) -> CapabilitySet {
    if hardening.isolates() { OF_RUNTIME | CapabilitySet::SYS_ADMIN } else { OF_RUNTIME }
}

/// Gives up what the process has besides these, but leaves the bounding set: root gets it back in a program that it runs.
pub fn keep_only(kept: CapabilitySet) -> Result<()> {
    let own = capabilities(None)?;
    let (effective, permitted) = (own.effective & kept, own.permitted & kept);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })
}

/// Users and groups that neither Debian (65000 to 65533, "reserved") nor systemd (up to 65519) gives to anybody; 65534 is `nobody`,
/// whom everybody shares.
const NOBODYS: RangeInclusive<u32> = 65_520..=65_533;

/// Whether a user is one of those that [`become_nobody`] makes a process run as.
pub fn is_nobodys(uid: u32) -> bool {
    NOBODYS.contains(&uid)
}

/// One of them that no account of this host has after all, neither as user nor as group.
fn unused() -> Option<u32> {
    let mut used = HashSet::new();
    for file in ["/etc/passwd", "/etc/group"] {
        let text = std::fs::read(file).ok()?;
        let numbers =
            text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').nth(2));
        used.extend(numbers.filter_map(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok()));
    }
    NOBODYS.rev().find(|id| !used.contains(id))
}

/// Gives up every right: of a process that needs nothing but the descriptors it has. It becomes a user that only other
/// such processes are, so that nobody but they and root can signal it; and nobody but root can look into it.
///
/// Where whoever looks after it may not trace (a container without CAP_SYS_PTRACE), it stays this user: there only that lets its
/// descriptors be taken out of it. Where a part cannot be given up (a container without that user), the others are.
pub fn become_nobody() {
    let may = capabilities(None).map_or(CapabilitySet::empty(), |own| own.effective);
    // Without the right to, or without root, the set stays, and gives nothing to who gets no new privileges.
    let _ = bound(CapabilitySet::empty());
    let needs = CapabilitySet::SYS_PTRACE | CapabilitySet::SETUID | CapabilitySet::SETGID;
    if geteuid().is_root()
        && may.contains(needs)
        && let Some(id) = unused()
    {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        let became = set_thread_groups(&[])
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid));
        if became.is_ok() {
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
    let nothing = CapabilitySet::empty();
    let none = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    let _ = set_capabilities(None, none);
    let _ = refuse_new();
}
