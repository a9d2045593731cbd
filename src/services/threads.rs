//! Many applications at once. The result does not depend on the number of threads.

/// Fewer items than this are done before a thread has started.
const WORTH_A_THREAD: usize = 32;

/// What an application leaves behind, in bytes, measured at 10,000.
const ROOM_OF_AN_ITEM: usize = 6 << 10;

/// glibc maps larger blocks by themselves in any case (DEFAULT_MMAP_THRESHOLD_MAX), in bytes.
const MOST_ROOM: usize = 30 << 20;

/// Lets the memory of this thread grow once instead of page by page.
///
/// glibc's malloc grows the heap of a thread other than the first by mprotect(2), 4 KiB at a time, which waits for every
/// page fault of the other threads and they for it: a fifth of the time of `validate`. A block that is given back raises
/// the size from which blocks are mapped by themselves, and the most that a heap keeps (mallopt(3), M_MMAP_THRESHOLD);
/// the next, smaller one makes the heap grow, and stays with it. Nothing is written to, so no memory is used up.
fn make_room(bytes: usize) {
    for size in [bytes, bytes.saturating_sub(64 << 10)] {
        std::hint::black_box(Vec::<u8>::with_capacity(size));
    }
}

/// Both of two things that have to do with `items`, at the same time if that is worth a thread.
pub(super) fn in_two<A, B: Send>(
    items: usize,
    threads: usize,
    one: impl FnOnce() -> A,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if threads == 1 || items < WORTH_A_THREAD {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        (one(), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Maps in order; each thread takes a run of neighbours.
pub(crate) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    map: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    in_parallel_with(items, threads, |item, (): &mut ()| map(item)).0
}

/// As [`in_parallel`], with something that each thread collects; the collections are in the order of the items.
pub(super) fn in_parallel_with<T: Send, R: Send, S: Default + Send>(
    items: Vec<T>,
    threads: usize,
    map: impl Fn(T, &mut S) -> R + Sync,
) -> (Vec<R>, Vec<S>) {
    let all = |items: Vec<T>| {
        let mut collected = S::default();
        let mapped: Vec<R> = items.into_iter().map(|item| map(item, &mut collected)).collect();
        (mapped, collected)
    };
    let count = items.len();
    let threads = threads.min(count / WORTH_A_THREAD).max(1);
    if threads == 1 {
        let (mapped, collected) = all(items);
        return (mapped, vec![collected]);
    }
    let size = items.len().div_ceil(threads);
    let room = (size * ROOM_OF_AN_ITEM).min(MOST_ROOM);
    let mut runs = vec![];
    let mut items = items.into_iter();
    for _ in 0..threads {
        runs.push(items.by_ref().take(size).collect::<Vec<T>>());
    }
    std::thread::scope(|scope| {
        let all = &all;
        let handles: Vec<_> = runs
            .into_iter()
            .map(|run| {
                scope.spawn(move || {
                    make_room(room);
                    all(run)
                })
            })
            .collect();
        let (mut mapped, mut collected) = (Vec::with_capacity(count), vec![]);
        for handle in handles {
            let (run, one) = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            mapped.extend(run);
            collected.push(one);
        }
        (mapped, collected)
    })
}
