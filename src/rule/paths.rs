//! Rules of where files lie, and whom they belong to.

use super::rules;

rules! { Paths:
    OWNED_PATH = "owned-path", Error, Free, yaml {
        "Something that root runs lies below a directory of the application's user",
        what: "The service directory, its link, the run directory and the runtime must not lie below `root`, `home`, the virtualenv or a directory of `layout` that the user owns.",
        why: "The user can rename the directory and put another in its place, which root then executes.",
    }
    PUBLIC_DIRECTORY = "public-directory", Warning, Free, yaml {
        "Something that root runs or believes lies in a directory that anybody can write to",
        what: "The service directory, its link, the run directory and the runtime must not lie below /tmp, /var/tmp, /dev/shm, /run/lock or /var/lock.",
        why: "Any user of the host could make the path first, and root would run or believe what lies there.",
    }
    STATE_CLASH = "state-clash", Error, Free, yaml {
        "Two services have the same PID file or run directory",
        what: "Across all files that are given, both places shown. Each service needs its own; the defaults are made of its name.",
        why: "One service would take the other's server for its own, and hand over or stop the wrong one.",
    }
}
