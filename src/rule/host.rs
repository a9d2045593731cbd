//! Rules of what only the host knows: `validate --host`.

use super::rules;

rules! { Host:
    HOST_USER = "host-user", Error, Free, none {
        "A user or a group that this host does not have",
        what: "`user`, `group`, each of `groups`, and who `bind` and `layout` give sockets and directories to. The host's name service is asked, so users of LDAP or SSSD count.",
        why: "runsv would start the service every second, and each start would fail.",
    }
    HOST_HOME = "host-home", Warning, Free, none {
        "A home that is not there, or that its user cannot enter",
        what: "HOME is `home`, or /home/USER. It need not be the one that the host's list of users has.",
        why: "What looks for its settings or its cache below HOME fails, often only at the first request that needs it.",
    }
    HOST_COMMAND = "host-command", Error, Free, none {
        "A virtualenv or a command that the application's user cannot execute",
        what: "The command is looked for as at the start of the service: in the virtualenv's `bin`, then in the system's directories. The kernel is asked as that user, for the command and for the interpreter behind its `#!`; the directory that bars the way is named.",
        why: "The server cannot be started, or not again after a deploy, when nobody looks.",
    }
    HOST_RUN_SCRIPT = "host-run-script", Error, Free, none {
        "A program is missing that the run script or runit needs",
        what: "Native: the file that `service.runtime` names, which has to be runsmith. Shell: bash 4.4 or newer, and the programs that the script calls (chpst, flock, prlimit and others). Both: runsv, runsvdir, sv, and svlogd where it writes the log.",
        why: "The run script could not be executed, or would end in the middle of a hand-over.",
    }
    HOST_ADDRESS = "host-address", Error, Free, none {
        "An address that the service cannot have on this host",
        what: "A process that is not the service's listens there already, a file is in the way of a Unix socket, a host name means nothing here, or only root may bind the port (net.ipv4.ip_unprivileged_port_start). What belongs to the running service itself is fine.",
        why: "The server would fail at its start, or the requests of one application would reach another.",
    }
    HOST_SOCKET = "host-socket", Warning, Free, none {
        "The directory of a Unix socket is no good place for one",
        what: "It is not there and rendering does not make it, the file system is read-only or shared with other hosts, or the server, which makes its sockets itself, may not write in it.",
        why: "The socket cannot be made, or it looks as if another host served.",
    }
    HOST_LIMIT = "host-limit", Warning, Free, none {
        "A resource limit that cannot be reached on this host",
        what: "The service has its limits from runsv. Hard limits can be raised only by who has CAP_SYS_RESOURCE, which root in a container often lacks; the limit of open files never above fs.nr_open. The run script sets what can be had and says so in the log.",
        why: "The application has less than the pillar says, and finds out under load.",
    }
    HOST_OWNER = "host-owner", Error, Free, none {
        "What stands in the place of a directory belongs to somebody else",
        what: "A directory of `layout` or of the log exists and belongs neither to the owner that it should have nor to root, or is no directory. `render --out` refuses to take it.",
        why: "Rendering would stop there, or the application could not write its log.",
    }
    HOST_RELEASE = "host-release", Error, Free, none {
        "There is no release to start",
        what: "ROOT/current has to lead to a directory that the application's user can enter. Where the first deploy is still to come, `--allow host-release`.",
        why: "The server is started in ROOT/current; without it each start fails.",
    }
    HOST_VERSION = "host-version", Error, Free, none {
        "The installed server does not have a setting that is used",
        what: "The server in the application's virtualenv (or that of the host) is asked for its version and its settings, as the application's user. Settings that runsmith fills in itself count, too: gunicorn 25.1 is the first that has all of them.",
        why: "unicorn ends at once; gunicorn ignores the setting in its configuration file without a word.",
    }
    HOST_PACKAGE = "host-package", Error, Free, none {
        "The server, or the class of its workers, cannot be loaded",
        what: "gunicorn or unicorn itself, and what `worker_class` names, are loaded as at the start, as the application's user: gevent and tornado need packages that gunicorn does not bring.",
        why: "No worker would start, and the master would end.",
    }
    HOST_CONFIG = "host-config", Error, Free, none {
        "The installed server refuses the rendered configuration",
        what: "`gunicorn --check-config` or `ruby -c` was given the configuration as it would be rendered, as the application's user. The last lines of what it said are shown.",
        why: "The server would end at its start with the same words.",
    }
    HOST_APP = "host-app", Error, Free, none {
        "The application cannot be loaded",
        what: "`gunicorn --check-config` imports the application: its code runs, as its user, with the variables of `environment`, without its secrets, and for `handoff.boot_timeout` at most. An application with secrets may fail for the lack of them, so for one that has some it is a warning.",
        why: "A hand-over to this release would be backed out; a first start would fail.",
    }
    HOST_UNCHECKED = "host-unchecked", Note, Free, none {
        "Something was not looked at",
        what: "Whatever needs the application's user can be asked by root or by that user alone; a program did not answer in time, or is not there. `--deny host-unchecked` makes it an error.",
        why: "What was not looked at may be wrong.",
    }
}
