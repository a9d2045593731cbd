//! Memory that a process which waits for months does not need.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Gives back what a process needed to get to where it waits: freed memory of the heap, the deep end of the stack, and pages of the
/// program's code and constants.
///
/// Code stays in the kernel's cache and comes back when it is needed; but code that runs once a deploy, such as the dynamic
/// linker's, is no longer counted as this process's.
pub fn give_back() {
    give_back_heap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    give_back_stack(&maps);
    give_back_code(&maps);
}

/// Gives back what was freed: the allocator keeps it for the next allocation.
fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the allocator's function has no safe wrapper")]
    // SAFETY: it gives back only what nobody has allocated (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// So much below this frame stays, in bytes: what the calls from here on need themselves.
const NEAR: usize = 16 << 10;

/// Gives back the stack below the frames in use: the start, and each reading of a state, reach deeper than waiting does.
fn give_back_stack(maps: &str) {
    let here = 0_u8;
    let near = std::ptr::from_ref(&here).addr().saturating_sub(NEAR);
    let end = near - near % rustix::param::page_size();
    let Some((start, top)) = maps.lines().find(|line| line.ends_with("[stack]")).and_then(range) else {
        return;
    };
    // Not on the stack of another thread.
    if (start..top).contains(&end) {
        #[allow(unsafe_code, reason = "the kernel's call takes an address")]
        // SAFETY: this runs on that stack, and it grows down, so nothing lives below the frame of this function and of the calls it
        // makes; the pages are zero when they are used again. A handler of a signal has ended before the call, or begins after it.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// The addresses in a line of /proc/PID/maps.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

/// Gives back the pages of the program's code and constants that were looked at so far.
fn give_back_code(maps: &str) {
    // Two at the most: the constants at the beginning, and the code. Everything else is done before they are given back, because each
    // function that runs afterwards brings 64 KiB of its surroundings back (the kernel's fault-around).
    let mut ranges = [(0, 0); 2];
    find(maps, &mut ranges);
    for (start, length) in ranges.into_iter().filter(|(_, length)| *length > 0) {
        #[allow(unsafe_code, reason = "the kernel's call takes an address")]
        // SAFETY: the range is a mapping of this process, of a file, that it can never have written to, as the kernel has just
        // said: pages that are dropped are read from that file again, with what was in them. A mapping that has gone
        // meanwhile (there is one thread) would be an error, not a change.
        let _ = unsafe { madvise(start as *mut _, length, Advice::LinuxDontNeed) };
    }
}

/// Finds what may be given back.
fn find(maps: &str, ranges: &mut [(usize, usize); 2]) {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let found = maps.lines().filter_map(|line| untouched(line, &program.to_string_lossy()));
    ranges.iter_mut().zip(found).for_each(|(range, found)| *range = found);
}

/// A mapping of the program that nobody can have written to: its code, and the constants at the beginning of the file. The
/// constants behind the code were relocated, which is writing.
fn untouched(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (flags, offset) = (fields.nth(1)?, fields.next()?);
    let name = line.split_once('/').map(|(_, rest)| format!("/{rest}"))?;
    let is_ours = name == program || name == format!("{program} (deleted)");
    let is_untouched = flags == "r-xp" || (flags == "r--p" && offset.bytes().all(|byte| byte == b'0'));
    let (start, end) = range(line)?;
    let length = end.checked_sub(start)?;
    (is_ours && is_untouched).then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_written() {
        let program = "/usr/bin/runsmith";
        let maps = [
            ("1000-3000 r--p 00000000 fe:00 7 /usr/bin/runsmith", Some((0x1000, 0x2000))),
            ("3000-9000 r-xp 00002000 fe:00 7 /usr/bin/runsmith", Some((0x3000, 0x6000))),
            ("9000-a000 r--p 00008000 fe:00 7 /usr/bin/runsmith", None),
            ("a000-b000 rw-p 00009000 fe:00 7 /usr/bin/runsmith", None),
            ("b000-c000 rw-p 00000000 00:00 0 [heap]", None),
            ("c000-d000 r-xp 00000000 fe:00 9 /lib/libc.so.6", None),
            ("3000-9000 r-xp 00002000 fe:00 7 /usr/bin/runsmith (deleted)", Some((0x3000, 0x6000))),
        ];
        for (line, wanted) in maps {
            assert_eq!(untouched(line, program), wanted, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        give_back();
        only_what_cannot_be_written();
    }
}
