//! Rules of resource limits.

use super::rules;

rules! { Limits:
    TIGHT_LIMIT = "tight-limit", Warning, Free, yaml {
        "A resource limit in which the server cannot work",
        what: "`nofile` below the connections that a worker holds (`worker_connections`, 1000 by default for gthread, gevent and asgi), `nproc` below two generations of workers and threads, `as`, `data` or `stack` below what an interpreter starts in, `fsize` or `cpu` of 0; `cgroup.memory_max` below what a server loads in, `cgroup.tasks_max` below one generation of workers and threads; and a `log.size` in which svlogd cuts lines. Sizes without a unit are in bytes.",
        why: "The server does not start, or fails under load with EMFILE or EAGAIN.",
    }
}
