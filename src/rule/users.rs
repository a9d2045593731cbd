//! Rules of who services run as.

use super::rules;

rules! { Users:
    USER_ROOT = "user-root", Warning, Free, yaml {
        "The application runs as root, or in root's group",
        what: "Give each application a user of its own. The native run script binds ports below 1024 and opens logs as root by itself. With `hardening.capabilities: none`, the default, an application that runs as root has no capability: it cannot become another user, change owners, or read what its owner has closed to others; but it still owns every file of root's.",
        why: "Whoever finds a hole in the application has the host.",
    }
    NEW_PRIVILEGES = "new-privileges", Warning, Free, yaml {
        "The application may gain privileges by running a program",
        what: "`hardening.no_new_privileges: false`. It is needed by an application that runs `sudo`, `su` or another setuid or setgid program, also one that sends mail by `sendmail`: Postfix's calls the setgid `postdrop`, Exim's is setuid. Send mail by SMTP to localhost instead; or keep `false`, and write why: `# runsmith: allow(new-privileges) because REASON`.",
        why: "Each setuid program of the host, and each hole in one of them, is a way from the application to root.",
    }
    ISOLATION = "isolation", Error, Free, yaml {
        "A file of the application is where its isolation takes it away",
        what: "With `hardening.private_tmp: true` nothing that the application and others share can be below `/tmp` or `/var/tmp`: its root, its run directory, its sockets, its PID files, its logs, its virtualenv. With `hardening.read_only_system: true` nothing that it writes can be below `/usr`, `/boot`, `/efi` or `/etc`. A shell run script isolates nothing: both take `run_script: native`.",
        why: "The application would not start, or would serve where nobody reaches it.",
    }
    KEPT_CAPABILITIES = "kept-capabilities", Warning, Free, yaml {
        "Programs may give the application capabilities",
        what: "`hardening.capabilities: inherited`: the bounding set is that of runsvdir. It is needed where the interpreter or another program of the application has capabilities of its own (`getcap FILE`), because such a program cannot be run with an empty set. For ports below 1024 no capability is needed: the native run script opens them as root. Take the capabilities off (`setcap -r FILE`); or keep `inherited`, and write why: `# runsmith: allow(kept-capabilities) because REASON`.",
        why: "A program with capabilities of its own is a way from the application to a part of root's rights.",
    }
}
