//! Rules of time-outs that have to fit together.

use super::rules;

rules! { Times:
    TIMEOUT_ORDER = "timeout-order", Warning, Free, yaml {
        "Time-outs in an order that cannot work",
        what: "gunicorn's `graceful_timeout` fits into `handoff.drain_timeout`, that and `handoff.boot_timeout` into `service.timeout`; a health check into `handoff.boot_timeout`; `restart.backoff_initial` into `restart.backoff_max`. The defaults fit.",
        why: "Requests are cut off though the server would have waited for them, or `sv` reports a time-out of a deploy that went well.",
    }
    TIMEOUT_ZERO = "timeout-zero", Warning, Free, yaml {
        "A time-out of 0",
        what: "`handoff.boot_timeout`, `handoff.drain_timeout`, `handoff.health_check.timeout`, `service.timeout` and `restart.backoff_initial` do not mean \"for ever\" when they are 0: nothing is waited for.",
        why: "No generation could get ready in time, requests in flight would be killed, or a crashing server would be started again without a pause.",
    }
}
