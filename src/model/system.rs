//! Directories of the system, which no application may be given.
//!
//! They are those of the Filesystem Hierarchy Standard 3.0, and what Debian's base packages, runit and the usual
//! neighbours of an application keep in them. A list cannot know every host: what else is shared there,
//! `disk` sees by looking.

use crate::steps::{is_below, is_within};

/// Of these neither they themselves nor anything below them is for an application.
const CLOSED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc/alternatives",
    "/etc/apt",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/dpkg",
    "/etc/init.d",
    "/etc/ld.so.conf.d",
    "/etc/pam.d",
    "/etc/profile.d",
    "/etc/runit",
    "/etc/service",
    "/etc/sudoers.d",
    "/etc/sv",
    "/etc/systemd",
    "/etc/udev",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/nix",
    "/proc",
    "/root",
    crate::model::service::RUN,
    "/run/systemd",
    "/run/user",
    "/sbin",
    "/service",
    "/snap",
    "/sys",
    "/usr",
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/cloud",
    "/var/lib/dpkg",
    "/var/lib/runsmith",
    "/var/lib/systemd",
    "/var/service",
    "/var/spool/cron",
];

/// Below these, what has a name of its own is for an application again. Each is within a closed one.
const OPENED: &[&str] = &["/dev/shm", "/usr/local"];

/// Where many have a part: what has a name of its own below them is for an application.
const SHARED: &[(&str, &[&str])] = &[
    (
        "/",
        &[
            "dev/shm",
            "etc",
            "home",
            "media",
            "mnt",
            "nix",
            "opt",
            "run",
            "snap",
            "srv",
            "tmp",
            "usr/local",
            "var",
        ],
    ),
    (
        "/etc",
        &[
            "alternatives",
            "apache2",
            "apt",
            "ca-certificates",
            "cron.d",
            "cron.daily",
            "cron.hourly",
            "cron.monthly",
            "cron.weekly",
            "dbus-1",
            "default",
            "dpkg",
            "fonts",
            "init.d",
            "iproute2",
            "kernel",
            "ld.so.conf.d",
            "ldap",
            "logrotate.d",
            "modprobe.d",
            "modules-load.d",
            "monit",
            "network",
            "nginx",
            "opt",
            "pam.d",
            "polkit-1",
            "postgresql",
            "profile.d",
            "rc0.d",
            "rc1.d",
            "rc2.d",
            "rc3.d",
            "rc4.d",
            "rc5.d",
            "rc6.d",
            "rcS.d",
            "redis",
            "rsyslog.d",
            "runit",
            "salt",
            "security",
            "skel",
            "ssh",
            "ssl",
            "ssl/certs",
            "ssl/private",
            "sudoers.d",
            "sysctl.d",
            "systemd",
            "systemd/system",
            "tmpfiles.d",
            "udev",
            "udev/rules.d",
            "xdg",
        ],
    ),
    (
        "/run",
        &[
            "credentials",
            "dbus",
            "initctl",
            "lock",
            "log",
            "mount",
            "runit",
            "runsmith",
            "screen",
            "service",
            "shm",
            "sshd",
            "sudo",
            "systemd",
            "udev",
            "user",
        ],
    ),
    (
        "/usr/local",
        &["bin", "etc", "games", "include", "lib", "lib/python3", "libexec", "man", "sbin", "share", "src"],
    ),
    (
        "/var",
        &[
            "account",
            "backups",
            "cache",
            "cache/apt",
            "cache/apt/archives",
            "cache/debconf",
            "cache/ldconfig",
            "cache/man",
            "cache/nginx",
            "crash",
            "games",
            "lib",
            "lib/apt",
            "lib/containerd",
            "lib/dbus",
            "lib/docker",
            "lib/dpkg",
            "lib/misc",
            "lib/mysql",
            "lib/nginx",
            "lib/pam",
            "lib/postgresql",
            "lib/private",
            "lib/python",
            "lib/redis",
            "lib/runsmith",
            "lib/runsmith/backup",
            "lib/runsmith/services",
            "lib/sudo",
            "lib/systemd",
            "lib/ucf",
            "local",
            "lock",
            "log",
            "log/apache2",
            "log/apt",
            "log/journal",
            "log/nginx",
            "log/postgresql",
            "log/private",
            "log/runit",
            "log/sv",
            "mail",
            "opt",
            "run",
            "spool",
            "spool/cron",
            "spool/cron/crontabs",
            "spool/mail",
            "spool/postfix",
            "tmp",
            "www",
            "yp",
        ],
    ),
];

/// Why no application can be given a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is one of the system's, where many have a part.
    Shared,
    /// It is in this one, where no application has a part.
    Within(&'static str),
}

/// What `path`, absolute and normal, is to the system; nothing if an application may have it.
pub(super) fn standing(path: &str) -> Option<Standing> {
    let shared = SHARED.iter().any(|(top, names)| {
        let top = top.trim_end_matches('/');
        let name = path.strip_prefix(top).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| names.contains(&name))
    });
    if shared || CLOSED.contains(&path) {
        return Some(Standing::Shared);
    }
    let opened = OPENED.iter().any(|top| is_below(path, top));
    // What the system has of its own in an opened one stays as closed as it is elsewhere.
    let programs = ["/usr/local/bin", "/usr/local/sbin"];
    let closed = if opened { programs.as_slice() } else { CLOSED };
    closed.iter().find(|top| is_below(path, top)).map(|top| Standing::Within(top))
}

/// Closed to applications, and open to services: runit's own directories, and root's home.
const FOR_SERVICES: &[&str] = &["/etc/runit", "/etc/service", "/etc/sv", "/root", "/service", "/var/service"];

/// Whether services, or links to them, can be kept in `directory`: in none whose names mean something to the
/// system, where the name of an application could be that of a program or of another's configuration.
pub(super) fn keeps_services(directory: &str) -> bool {
    if FOR_SERVICES.iter().any(|top| is_within(directory, top)) {
        return true;
    }
    let names_count = ["", "/", "/dev", "/etc", "/usr"];
    match standing(directory) {
        // Where many have a part, a service has one too, but not where the parts are files of the system's.
        Some(Standing::Shared) => {
            !CLOSED.contains(&directory)
                && !names_count
                    .iter()
                    .any(|top| *top == directory || (top.len() > 1 && is_below(directory, top)))
        }
        Some(Standing::Within(_)) => false,
        None => !directory.is_empty() && directory != "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_system_are_known() {
        for path in [
            "/bin",
            "/boot",
            "/dev",
            "/dev/shm",
            "/etc",
            "/etc/service",
            "/etc/ssl",
            "/etc/sv",
            "/home",
            "/opt",
            "/proc",
            "/root",
            "/run",
            "/run/lock",
            "/run/runsmith",
            "/service",
            "/srv",
            "/sys",
            "/tmp",
            "/usr",
            "/usr/local",
            "/usr/local/bin",
            "/var",
            "/var/cache",
            "/var/lib",
            "/var/lock",
            "/var/log",
            "/var/mail",
            "/var/run",
            "/var/service",
            "/var/spool",
            "/var/tmp",
            "/var/www",
        ] {
            assert_eq!(standing(path), Some(Standing::Shared), "{path}");
        }
        for (path, top) in [
            ("/boot/shop", "/boot"),
            ("/dev/shop", "/dev"),
            ("/etc/sv/shop", "/etc/sv"),
            ("/proc/1/cwd", "/proc"),
            ("/usr/lib/shop", "/usr"),
            ("/usr/local/bin/shop", "/usr/local/bin"),
            ("/usr/localized", "/usr"),
        ] {
            assert_eq!(standing(path), Some(Standing::Within(top)), "{path}");
        }
    }

    #[test]
    fn services_are_kept_where_names_mean_nothing_else() {
        for path in [
            "/etc/sv",
            "/etc/service",
            "/service",
            "/var/service",
            "/srv/sv",
            "/usr/local/sv",
            "/run/sv",
            "/etc/runit/runsvdir/default",
            "/opt/sv",
        ] {
            assert!(keeps_services(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/etc",
            "/usr",
            "/usr/bin",
            "/usr/local/bin",
            "/bin",
            "/proc",
            "/etc/alternatives",
            "/etc/init.d",
            "/etc/cron.d",
            "/etc/systemd/system",
            "/lib/systemd",
        ] {
            assert!(!keeps_services(path), "{path}");
        }
    }

    #[test]
    fn an_application_has_its_places() {
        for path in [
            "/data/shop",
            "/dev/shm/shop",
            "/etc/shop",
            "/etc/ssl/shop",
            "/etc/svshop",
            "/home/deploy",
            "/mnt/data/shop",
            "/opt/x",
            "/run/x",
            "/srv/x",
            "/tmp/x",
            "/usr/local/lib/shop",
            "/usr/local/shop",
            "/var/lib/x",
            "/var/log/x",
            "/var/run/x",
            "/var/www/x",
            "/var/www/x/shared/logs",
        ] {
            assert_eq!(standing(path), None, "{path}");
        }
    }

    /// Only so is it enough to ask about an application's root, and not about what leads from it to the rest.
    #[test]
    fn what_holds_a_directory_of_the_system_is_one() {
        for (top, names) in SHARED {
            for name in *names {
                let path = format!("{}/{name}", top.trim_end_matches('/'));
                let mut above = path.as_str();
                while let Some((parent, _)) = above.rsplit_once('/').filter(|(parent, _)| !parent.is_empty())
                {
                    assert!(standing(parent).is_some(), "{path}: {parent}");
                    above = parent;
                }
            }
        }
    }
}
