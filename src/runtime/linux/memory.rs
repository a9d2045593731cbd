//! Memory that a process which waits for months does not need.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Gives back the pages of this program's code and constants that were looked at so far.
///
/// They stay in the kernel's cache and come back when they are needed; but code that runs once a deploy, such as the dynamic
/// linker's, is no longer counted as this process's. What the process itself has written stays.
pub fn give_back_code() {
    // Two at the most: the constants at the beginning, and the code. Everything else is done before they are given back, because each
    // function that runs afterwards brings 64 KiB of its surroundings back (the kernel's fault-around).
    let mut ranges = [(0, 0); 2];
    find(&mut ranges);
    for (start, length) in ranges.into_iter().filter(|(_, length)| *length > 0) {
        #[allow(unsafe_code, reason = "the kernel's call takes an address")]
        // SAFETY: the range is a mapping of this process, of a file, that it can never have written to, as the kernel has just
        // said: pages that are dropped are read from that file again, with what was in them. A mapping that has gone
        // meanwhile (there is one thread) would be an error, not a change.
        let _ = unsafe { madvise(start as *mut _, length, Advice::LinuxDontNeed) };
    }
}

/// Finds what may be given back.
fn find(ranges: &mut [(usize, usize); 2]) {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().filter_map(|line| untouched(line, &program.to_string_lossy()));
    ranges.iter_mut().zip(found).for_each(|(range, found)| *range = found);
}

/// A mapping of the program that nobody can have written to: its code, and the constants at the beginning of the file. The
/// constants behind the code were relocated, which is writing.
fn untouched(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, flags, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let name = line.split_once('/').map(|(_, rest)| format!("/{rest}"))?;
    let is_ours = name == program || name == format!("{program} (deleted)");
    let is_untouched = flags == "r-xp" || (flags == "r--p" && offset.bytes().all(|byte| byte == b'0'));
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
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
        give_back_code();
        only_what_cannot_be_written();
    }
}
