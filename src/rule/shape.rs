//! Rules of the JSON Schema, and of what has to be there before it can be asked.

use super::rules;

rules! { Shape:
    NOT_A_PILLAR = "not-a-pillar", Error, Fixed, yaml {
        "The document is not a map of keys and values",
        what: "A pillar is one application, or `applications` with their names, maybe below a key (`--key`).",
        why: "There is nothing to render from it.",
    }
    UNKNOWN_KEY = "unknown-key", Error, Fixed, yaml {
        "A key that does not exist",
        what: "The key itself is underlined, with the nearest one that exists. docs/pillar.md lists all of them; `gunicorn` and `unicorn` take the settings of the version that runsmith knows. `validate --fix --unsafe-fixes` writes the nearest one.",
        why: "A misspelt key would leave the service on its default, and nobody would notice before it matters.",
    }
    MISSING_KEY = "missing-key", Error, Fixed, yaml {
        "A key that is required is missing",
        what: "The map that lacks it is underlined. `user` is always required; `virtualenv_home` or `virtualenv` for gunicorn; `path` of a health check.",
        why: "There is no default that would be right on a host.",
    }
    WRONG_TYPE = "wrong-type", Error, Fixed, yaml {
        "A value of the wrong type",
        what: "It is said what the value is in this dialect. Mostly quotes are missing, or too many. `validate --fix --unsafe-fixes` quotes a number where a text is expected.",
        why: "`umask: 0022` is 22 to Salt and 18 to Ansible; a value that is guessed is wrong on half of the hosts.",
    }
    OUT_OF_RANGE = "out-of-range", Error, Fixed, yaml {
        "A number that is too small or too large",
        what: "The least and the most are those of the kernel and of the server: a process takes no nice value above 19, a pool no 0 threads.",
        why: "The service would not start, or would silently run with another value.",
    }
    NOT_ALLOWED = "not-allowed", Error, Fixed, yaml {
        "A value that is not among those allowed",
        what: "A word that is not on the list, or a text that does not have the form its key asks for: names of users and groups as POSIX has them, octal modes, times with a unit.",
        why: "`chpst`, `useradd` or the server would refuse it on the host, after the files are in place.",
    }
    EMPTY = "empty", Error, Fixed, yaml {
        "An empty text or list",
        what: "The key needs at least one character or item. Leave the key out if the default is meant.",
        why: "An empty command or address cannot be used, and an empty word is dropped by one program and kept by another.",
    }
    APPLICATION_NAME = "application-name", Error, Fixed, yaml {
        "A name that no service can have",
        what: "Small letters, digits, `_`, `.` and `-`, at most 64, beginning with a letter or digit. A name that YAML takes for a number or a boolean has to be quoted.",
        why: "It names directories below /etc/sv and /var/www, and runsvdir skips names that begin with a dot.",
    }
    VARIABLE_NAME = "variable-name", Error, Fixed, yaml {
        "A name that no environment variable can have",
        what: "Letters, digits and underscores, not beginning with a digit.",
        why: "Shells drop variables with other names, so that a program sees them or not depending on who started it.",
    }
    SETTING = "setting", Error, Fixed, yaml {
        "A setting of the server that a pillar cannot set",
        what: "The setting is code (a hook), is gone from this version of the server, has a key of its own in the pillar, or would keep the service from working (`daemon`). What to write instead is said beside it.",
        why: "gunicorn ignores a setting that it does not know, without a word, and unicorn ends at it; a server that daemonises or binds by itself cannot be supervised or handed over.",
    }
    NUL = "nul", Error, Fixed, yaml {
        "A NUL character in a text",
        what: "No path, variable or argument can hold it.",
        why: "The kernel would take what stands before it for the whole.",
    }
    INVALID = "invalid", Error, Fixed, none {
        "An application that cannot be read",
        what: "The schema accepts it and the program cannot read it, which should never happen. Please report it.",
        why: "Nothing can be rendered from it.",
    }
}
