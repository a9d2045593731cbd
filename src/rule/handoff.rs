//! Rules of how a new generation takes over.

use super::rules;

rules! { Handoff:
    READY_SIGNAL = "ready-signal", Warning, Free, yaml {
        "A sign of readiness that this server gives too early, or never",
        what: "`handoff.ready: alive` says only that the master lives; gunicorn sends `notify` before the application is loaded, unless `preload_app`; unicorn never sends it. `workers` waits until every worker has loaded the application.",
        why: "A release that does not load would take over from one that works, or no release ever would.",
    }
}
