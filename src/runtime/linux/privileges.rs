//! What a process gives up for good before it goes on: capabilities, and the way to get any by running a program.

use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
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
    set_capabilities(None, rustix::thread::CapabilitySets { inheritable: CapabilitySet::empty(), ..own })
}

/// From now on no program that it runs gets more than it has: neither by a setuid or setgid bit nor by capabilities of the
/// file. It holds for whatever it starts, too.
pub fn refuse_new() -> Result<()> {
    set_no_new_privs(true)
}
