//! Resource limits that cannot hold.

use super::{Subject, finding, server};
use crate::diagnostic::Diagnostic;
use crate::model::input::{LimitValue, LogKind, Resource, Server};
use crate::rule;

/// Files that a worker may need besides connections: its sockets, pipes and logs are about ten (gunicorn 27, sync), the
/// rest is for what an application opens.
const FILES_AT_REST: u64 = 64;

/// The least address space and the least data segment in which an interpreter loads its server, in bytes. Measured with
/// Python 3.11 and gunicorn 27.0.1, which load in 32 MiB and 12 MiB, and not in 24 and 8; and with Ruby 3.1 and unicorn
/// 6.0, which do not load in 64 MiB and 16 MiB. Another program takes a page of each for certain.
const fn least_memory(server: Server) -> (u64, u64) {
    match server {
        Server::Gunicorn => (25 << 20, 9 << 20),
        Server::Unicorn => (64 << 20, 16 << 20),
        Server::Any => (64 << 10, 4 << 10),
    }
}

/// The least stack: execve takes a quarter of it for arguments, and needs 32 pages (execve(2)), in bytes.
const LEAST_STACK: u64 = 128 << 10;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    cgroup(subject, found);
    log(subject, found);
    core(subject, found);
    let service = subject.service;
    let soft = |resource| match service.limits.get(&resource).map(|limit| limit.soft) {
        Some(LimitValue::Number(number)) => Some(number),
        _ => None,
    };
    let mut tight = |resource: Resource, key: &str, message: String, least: u64| {
        let Some(number) = soft(resource).filter(|number| *number < least) else { return };
        let steps: &[&str] = &["limits", key, "soft"];
        let place =
            if subject.given(steps).is_some() { subject.place(steps) } else { subject.place(&steps[..2]) };
        found.push(
            finding(&rule::TIGHT_LIMIT, format!("`limits.{key}` is {number}, {message}"))
                .at(place, format!("write at least {least}")),
        );
    };
    let connections = connections(subject);
    let files = FILES_AT_REST + connections;
    let message = if connections > 0 {
        format!("and a worker has up to {connections} connections and {FILES_AT_REST} other files")
    } else {
        format!(
            "and a worker with its sockets, its logs and what the application opens needs some {FILES_AT_REST}"
        )
    };
    tight(Resource::Nofile, "nofile", message, files);
    if let Some((processes, words)) = processes(subject) {
        tight(Resource::Nproc, "nproc", words, processes);
    }
    let bytes = match service.server {
        Server::Gunicorn => "which is in bytes, and gunicorn does not load in it",
        Server::Unicorn => "which is in bytes, and unicorn does not load in it",
        Server::Any => "which is in bytes, and no program starts in it",
    };
    let (memory, data) = least_memory(service.server);
    tight(Resource::As, "as", bytes.to_owned(), memory);
    tight(Resource::Data, "data", bytes.to_owned(), data);
    tight(Resource::Fsize, "fsize", "and no file can be written, a log neither".to_owned(), 1);
    tight(Resource::Cpu, "cpu", "and the kernel ends what has run for so many seconds".to_owned(), 1);
    tight(
        Resource::Stack,
        "stack",
        "which is in bytes, and no program starts with it".to_owned(),
        LEAST_STACK,
    );
}

/// What one generation needs as a whole.
fn cgroup(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    /// The least memory with which runsmith's launcher gets as far as running a program, and that with room to spare, in bytes.
    const LEAST: u64 = 16 << 20;
    let limits = subject.service.cgroup;
    let mut tight = |key: &str, message: String, least: String| {
        let place = subject.place(&["cgroup", key]);
        let message = format!("`cgroup.{key}` {message}");
        found.push(finding(&rule::TIGHT_LIMIT, message).at(place, format!("write at least {least}")));
    };
    let (memory, _) = least_memory(subject.service.server);
    let memory = memory.max(LEAST);
    if let Some(bytes) = limits.memory_max.filter(|bytes| *bytes < memory) {
        tight(
            "memory_max",
            format!("is {bytes} bytes, and no server loads in it"),
            format!("{}M", memory >> 20),
        );
    }
    if let Some(tasks) = limits.tasks_max
        && let Some((one, words)) = one_generation(subject)
        && u64::from(tasks) < one
    {
        tight("tasks_max", format!("is {tasks}, {words}"), one.to_string());
    }
}

/// What writes a crash's memory to a file. The soft limit counts, and may be raised up to the hard one.
fn core(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let nothing = LimitValue::Number(0);
    let Some(limit) = subject.service.limits.get(&Resource::Core) else { return };
    if limit.soft == nothing && limit.hard == nothing {
        return;
    }
    let message = "a crash writes the application's memory, with all secrets, to a file";
    found.push(finding(&rule::CORE_DUMP, message).at(subject.place(&["limits", "core"]), "write 0"));
}

/// svlogd cuts a line in pieces at the end of a file that has no room for it (svlogd(8): size should be at least twice
/// the length of a line, 1000 by default).
fn log(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    /// The least size at which svlogd is to rotate, in bytes.
    const LEAST: u32 = 2048;
    let log = &subject.service.log;
    if log.kind != LogKind::Svlogd || log.size == 0 || log.size >= LEAST {
        return;
    }
    let Some(node) = subject.given(&["log", "size"]) else { return };
    let message = format!("`log.size` is {}, and svlogd cuts lines in pieces at it", log.size);
    let help = format!("write at least {LEAST}, or 0 not to rotate");
    found.push(finding(&rule::TIGHT_LIMIT, message).at(node.span, help));
}

/// How many connections one worker of gunicorn holds at once; 0 where it is one, or nobody knows.
fn connections(subject: &Subject<'_>) -> u64 {
    /// gunicorn's default for worker_connections.
    const WORKER_CONNECTIONS: u64 = 1000;
    if subject.service.server != Server::Gunicorn {
        return 0;
    }
    let class = server::class_of(subject);
    let many = server::kind_of(&class).is_some_and(|kind| kind != "sync");
    let set = subject.number("worker_connections");
    if many { set.unwrap_or(WORKER_CONNECTIONS) } else { 0 }
}

/// Processes and threads of a generation.
fn one_generation(subject: &Subject<'_>) -> Option<(u64, String)> {
    let (workers, threads) = workers(subject)?;
    let all = workers.saturating_mul(threads).saturating_add(1);
    Some((all, format!("and a generation of {workers} workers with its master and threads is {all}")))
}

/// How many workers there are, with how many threads each; none where nobody knows.
fn workers(subject: &Subject<'_>) -> Option<(u64, u64)> {
    let number = |name: &str| subject.number(name);
    match subject.service.server {
        Server::Gunicorn => Some((number("workers")?, number("threads").unwrap_or(1).max(1))),
        Server::Unicorn => Some((number("worker_processes")?, 1)),
        Server::Any => None,
    }
}

/// Processes and threads of two generations, which RLIMIT_NPROC counts together with all others of the user.
fn processes(subject: &Subject<'_>) -> Option<(u64, String)> {
    let (workers, threads) = workers(subject)?;
    let one = workers.saturating_mul(threads).saturating_add(1);
    let all = one.saturating_mul(2);
    Some((all, format!("and two generations of {workers} workers with their masters and threads are {all}")))
}
