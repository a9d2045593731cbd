//! Rules of who services run as.

use super::rules;

rules! { Users:
    USER_ROOT = "user-root", Warning, Free, yaml {
        "The application runs as root, or in root's group",
        what: "Give each application a user of its own. The native run script binds ports below 1024 and opens logs as root by itself.",
        why: "Whoever finds a hole in the application has the host.",
    }
}
