//! Rules of where services listen.

use super::rules;

rules! { Addresses:
    BIND_CLASH = "bind-clash", Error, Free, yaml {
        "Two services listen on the same address, or on addresses that overlap",
        what: "Across all files that are given, both places shown. `0.0.0.0` is every IPv4 address, `[::]` every address; without `bind` it is 127.0.0.1:8000. Pillars for different hosts are checked one by one, or with `--allow bind-clash`.",
        why: "On one host the second service never starts: the address is in use.",
    }
    PRIVILEGED_PORT = "privileged-port", Warning, Free, yaml {
        "The server itself binds a port below 1024, and its user is not root",
        what: "With a shell run script, or `handoff.strategy: usr2`, the server binds as its user. Under the native run script the runtime binds as root and hands the socket on.",
        why: "The kernel refuses it, unless net.ipv4.ip_unprivileged_port_start of the host is lower or the interpreter has a capability.",
    }
}
