//! Rules of values that a schema cannot judge, without which no service can be rendered.

use super::rules;

rules! { Values:
    ADDRESS = "address", Error, Fixed, yaml {
        "An address that nothing can listen on",
        what: "`HOST:PORT`, `[V6]:PORT` or `unix:PATH`. The path of a Unix socket is absolute and has at most 107 bytes, which is all the kernel takes (unix(7)); a port is from 1 to 65535; one service has each address once.",
        why: "The server would refuse to start, or listen somewhere else.",
    }
    PATH = "path", Error, Fixed, yaml {
        "A path that is relative, escapes, or is not in its normal form",
        what: "Paths begin with `/` (those of `layout` may be below `root`) and have no step `.`, `..` or `.git`, and no `//` or `/` at the end.",
        why: "A path that means something else than it says passes a review and makes a directory where nobody expects one.",
    }
    SHARED_DIRECTORY = "shared-directory", Error, Fixed, yaml {
        "A directory of the system, or one that holds services, would be given to the application",
        what: "`root`, the directories of `layout` and `log.directory` are made the application's own: name directories that are. Directories of the system (`/tmp`, `/run`, `/var/log`, `/home` and their like) hold them and cannot be them; in `/proc`, `/dev`, `/usr`, `/etc/sv` and their like no application has any. The service directory, and the directory that runsvdir watches, are no part of them either.",
        why: "Rendering would change owner and mode of what every program of the host uses; and who can write where services lie has root run anything.",
    }
    APP = "app", Error, Fixed, yaml {
        "What the server cannot load",
        what: "For gunicorn write `MODULE`, `MODULE:VARIABLE` or `MODULE:FUNCTION()`, where the module is named as `import` names it: no path, no `.py`. For unicorn write the path of a rackup file, which ends in `.ru`, or of a file of Ruby that is named like the constant it makes: `./shop.rb` for `Shop`. No blanks around it.",
        why: "No worker of the new generation would start, and the deploy would be backed out.",
    }
    COMMAND = "command", Error, Fixed, yaml {
        "A command that would not be run as it is written",
        what: "No shell reads the command: quotes, `$`, `;`, `|` and `*` in a string have no meaning. Write it as a list of words.",
        why: "The server would get the sign itself as a part of an argument.",
    }
    DURATION = "duration", Error, Fixed, yaml {
        "A time that is longer than a day",
        what: "Times are seconds, or a number with a unit: \"500ms\", \"30s\", \"2m\", \"1h\".",
        why: "A longer one is a mistyped unit, and a deploy would wait for it.",
    }
    TOO_LONG = "too-long", Error, Fixed, none {
        "A text that is longer than the kernel takes",
        what: "An argument or a variable with its value has at most 131,071 bytes (MAX_ARG_STRLEN), the name of a secret 255.",
        why: "`execve` would refuse to start the server.",
    }
    LIMIT = "limit", Error, Fixed, yaml {
        "A soft limit above the hard one",
        what: "The soft limit applies, and may be raised up to the hard one.",
        why: "setrlimit refuses it, and the service would not start.",
    }
    HANDOFF = "handoff", Error, Fixed, yaml {
        "A hand-over that this server or run script cannot do",
        what: "A shell run script hands over by USR2 and cannot receive `notify`; programs other than gunicorn and unicorn inherit sockets and cannot tell about their workers.",
        why: "The first deploy would be an outage.",
    }
    VARIABLE = "variable", Error, Fixed, yaml {
        "A variable that the service sets itself",
        what: "Those by which sockets and readiness are handed on (LISTEN_FDS, NOTIFY_SOCKET, …), and, as a secret, HOME, PATH and the like.",
        why: "The server would take sockets that are not there, or the value would not arrive.",
    }
    SECRET = "secret", Error, Fixed, yaml {
        "A secret that would not arrive as it is written",
        what: "The same name is in `environment` and in `secrets`; `secret_files` names one that is not in `secrets`, or is used with a shell run script; or the value ends in a blank, which `chpst -e` drops under a shell run script.",
        why: "The application would log in with another password than the one in the pillar.",
    }
    RUN_SCRIPT = "run-script", Error, Fixed, none {
        "A file that is not a native run script, or a broken one",
        what: "`run --check` reads a rendered run script back: its first line names runsmith, its body is the service as YAML.",
        why: "runsv would start it again every second.",
    }
    DOUBLE_SERVICE = "double-service", Error, Fixed, yaml {
        "Two services of the same name",
        what: "A name may be there once in everything that is rendered together, also in different files. Both places are shown.",
        why: "They would share a service directory, and the last one written would win.",
    }
    PATH_CLASH = "path-clash", Error, Fixed, yaml {
        "A path that two applications, or one in two ways, want differently",
        what: "Two applications write the same file with different contents, or one directory is to have two owners or modes. Both places are shown. A directory at ROOT/current, or below it, clashes with the link to the release that serves.",
        why: "Each run would undo what the other needs.",
    }
}
