//! What whoever started runsvdir has left open, and how many descriptors there are.

use std::fs;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Resource, getrlimit};

/// For so many workers together descriptors suffice: each takes one while it is watched, and a quarter stays free.
pub fn most_workers() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4 * 3).unwrap_or(usize::MAX)
}

/// Has every descriptor but the standard three closed in programs that this process runs. An untidy shell or init may have left
/// files of root's open, and they would be open in the server.
pub fn close_in_programs() {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        #[allow(unsafe_code, reason = "a descriptor that was inherited has no owner in here")]
        // SAFETY: it is borrowed for these two calls only, which set a flag of it; one that has been closed since (the
        // directory's own) is an error, and nothing else closes any, because there is one thread.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = fcntl_getfd(fd) {
            let _ = fcntl_setfd(fd, flags | FdFlags::CLOEXEC);
        }
    }
}
