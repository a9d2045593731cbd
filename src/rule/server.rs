//! Rules of the server, its settings and its command.

use super::rules;

rules! { Server:
    REMOVED_VALUE = "removed-value", Error, Free, yaml {
        "A value of a setting that the server no longer knows",
        what: "The worker classes eventlet (gone since gunicorn 26.0.0) and gaiohttp (20.0), and the protocol h3.",
        why: "gunicorn ends at once, and runsv starts it again every second.",
    }
    REFUSED_VALUE = "refused-value", Error, Free, yaml {
        "A value of a setting or a variable that the server ends at, or cannot work with",
        what: "Settings of gunicorn whose text it takes apart: `worker_class` and `logger_class` that no class can be loaded by, `forwarded_allow_ips` and its like that are no networks, addresses of statsd and syslog, `http_protocols`, `dirty_apps`, a `logconfig_dict` that names handlers it lacks, an `access_log_format` that Python cannot fill in. Values of options among the words of `unicorn_command` and in GUNICORN_CMD_ARGS are looked at like those in the pillar. Variables of `environment` that gunicorn reads whatever its configuration says (WEB_CONCURRENCY, FORWARDED_ALLOW_IPS), or at which Python (PYTHONHASHSEED, PYTHONMALLOC, PYTHONTRACEMALLOC, PYTHONUTF8) or Ruby (RUBYOPT) ends.",
        why: "The server ends at once, and runsv starts it again every second; or it writes a traceback for each request.",
    }
    NEEDS_PACKAGE = "needs-package", Warning, Free, yaml {
        "A setting that needs a package besides gunicorn",
        what: "Worker classes that are not part of gunicorn (gevent, tornado, others'), `http_protocols` with h2, `http_parser: fast`, `reload_engine: inotify`, `paste`, `asgi_loop: uvloop`. Once the package is in the application's requirements, silence the line with that as the reason.",
        why: "Without the package in the virtualenv gunicorn ends, no worker starts, or every request fails.",
    }
    CONTRADICTION = "contradiction", Warning, Free, yaml {
        "Settings of gunicorn that contradict each other, or what they say",
        what: "`reload` with `preload_app` (which is on by default), `worker_class: sync` with `threads`, `max_requests_jitter` without `max_requests`, `keyfile` without `certfile`; `sendfile: true`, which turns sendfile off. Options among the words of the command and in GUNICORN_CMD_ARGS count as well.",
        why: "gunicorn follows one of them without a word, or fails at the first request.",
    }
    COMMAND_OPTION = "command-option", Error, Free, yaml {
        "An option on the server's command line that overrules the pillar, or that the server ends at",
        what: "Options such as `-b`, `-c`, `--pid`, `--user` and `--daemon`, abbreviated ones (`--daem`) and several in one word (`-RD`) included, among the words of `unicorn_command`, or in GUNICORN_CMD_ARGS: the pillar has keys of its own for what they set. Options that the server does not have, that lack their value or take the next option for it, and the application, which is added to the command. `-E` of unicorn, unless it says what `environment` says.",
        why: "The server would listen, write or run elsewhere than the rest of the service believes, so that it cannot be supervised or handed over; or it ends at once.",
    }
    NO_EFFECT = "no-effect", Warning, Free, yaml {
        "A key that has no effect for this server or run script",
        what: "For example settings of gunicorn for a unicorn application, a setting that an option of the command overrules or whose switch is off (`syslog_addr` without `syslog`), the size of a log that svlogd does not write, the mode of a TCP socket, a health check in a shell run script. Keys among `defaults` may be meant for others and are left alone.",
        why: "Who wrote it believes that it is so on the host.",
    }
}
