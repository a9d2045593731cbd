#!/usr/bin/env python3
"""What people write instead: PyYAML's C loader, Jinja2, and a loop.

    peer.py PILLAR              every file as bytes, in memory
    peer.py PILLAR --out ROOT   and then written below ROOT, with modes
    peer.py PILLAR --json       and then printed as JSON, for the comparison of contents
    peer.py PILLAR --parse      only the pillar is read

The templates are runsmith's own, which Jinja2 reads as well, but for the run script's body, which is a template here.
Each is compiled once. There is no check of the input at all, no owner is set, and nothing is written twice
with care: a file that is there is overwritten in place.
"""

import json
import os
import re
import sys

import jinja2
import yaml

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "templates")

RUN = """\
#!{{ service.service.runtime | safe }} run
# {{ managed | safe }}
# runsmith executes this file; `runsmith run --check FILE` proves it. Edits are overwritten.
application: {{ service.application }}
server: gunicorn
command:
{% for word in service.command %}
  - {{ word }}
{% endfor %}
app: {{ service.app }}
user: {{ service.user }}
group: {{ service.group }}
home: {{ service.home }}
virtualenv: {{ service.virtualenv }}
root: {{ service.root }}
bind:
{% for address in paths.binds %}
  - address: {{ address }}
    backlog: 2048
{% endfor %}
environment:
{% for name, value in service.environment | items %}
  {{ name }}: {{ value }}
{% endfor %}
secrets:
{% for name in service.secrets %}
  - {{ name }}
{% endfor %}
limits:
  nofile:
    soft: 65535
    hard: 65535
umask: {{ service.umask }}
handoff:
  strategy: sockets
  boot_timeout: 60
  drain_timeout: 40
  ready: workers
restart:
  min_uptime: 10
  backoff_initial: 1
  backoff_max: 60
log:
  kind: svlogd
  directory: {{ service.log.directory }}
layout:
  pids:
    path: {{ paths.pids }}
    mode: "0755"
    user: {{ service.user }}
    group: {{ service.group }}
  sockets:
    path: {{ paths.sockets }}
    mode: "0755"
    user: {{ service.user }}
    group: {{ service.group }}
  run: {{ paths.run }}
service:
  directory: {{ service.service.directory }}
  link: {{ service.service.link }}
  enabled: true
  down: false
  timeout: 100
  runtime: {{ service.service.runtime }}
"""

PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.+-]*\Z").match


def sh(value):
    if isinstance(value, str):
        return value if hasattr(value, "__html__") else "'" + value.replace("'", "'\\''") + "'"
    return value


def python(value):
    if isinstance(value, str):
        return value if hasattr(value, "__html__") else json.dumps(value)
    return json.dumps(value) if isinstance(value, list) else value


def plain_yaml(value):
    if isinstance(value, str):
        return value if hasattr(value, "__html__") or PLAIN(value) else json.dumps(value)
    return value


def environment(finalize):
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["comment"] = jinja2.filters.do_mark_safe
    return made


def load(pillar):
    with open(pillar, "rb") as file:
        return yaml.load(file, Loader=yaml.CSafeLoader)


def services(pillar):
    """Every application over the defaults, maps key by key."""
    top = pillar["unicorn"]
    defaults = top.get("defaults") or {}
    for name, own in top["applications"].items():
        merged = dict(defaults)
        for key, value in (own or {}).items():
            below = merged.get(key)
            merged[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
        yield name, merged


def context(name, given):
    root = given.get("root", f"/var/www/{name}")
    user = given["user"]
    virtualenv = f"{given['virtualenv_home']}/.virtualenvs/{name}"
    config = f"{root}/shared/runsmith/gunicorn.py"
    logs = f"{root}/shared/logs"
    bind = given.get("bind", "127.0.0.1:8000")
    app = given.get("app", "wsgi:app")
    settings = {
        "accesslog": "-",
        "control_socket_disable": True,
        "errorlog": "-",
        "graceful_timeout": 30,
        "keepalive": 2,
        "preload_app": True,
        "timeout": 120,
    }
    settings.update(given.get("gunicorn", {}))
    secrets = given.get("secrets", {})
    return {
        "managed": f"Managed by runsmith from the pillar key unicorn:applications:{name}.",
        "settings": dict(sorted(settings.items())),
        "inherits_sockets": True,
        "secrets": secrets,
        "service": {
            "application": name,
            "app": app,
            "user": user,
            "group": given.get("group", user),
            "home": given.get("home", f"/home/{user}"),
            "root": root,
            "virtualenv": virtualenv,
            "umask": given.get("umask", "0022"),
            "bind": [
                {"address": address, "umask": None} for address in (bind if isinstance(bind, list) else [bind])
            ],
            "command": ["gunicorn", "-c", config, "--", app],
            "environment": {key: str(value) for key, value in sorted(given.get("environment", {}).items())},
            "secrets": sorted(secrets),
            "log": {"directory": f"{logs}/service", "size": 1000000, "number": 10, "processor": None},
            "service": {
                "directory": f"/etc/sv/{name}",
                "link": f"/etc/service/{name}",
                "runtime": "/usr/bin/runsmith",
            },
        },
        "paths": {
            "binds": bind if isinstance(bind, list) else [bind],
            "backlog": 2048,
            "releases": f"{root}/releases",
            "pids": f"{root}/shared/pids",
            "logs": logs,
            "sockets": f"{root}/shared/sockets",
            "run": f"/run/runsmith/{name}",
        },
    }


def render(pillar):
    """(path, mode, bytes), bytes being none for a directory and a text for a link's target."""
    in_sh, in_python, in_yaml = environment(sh), environment(python), environment(plain_yaml)
    run = in_yaml.from_string(RUN)
    check, finish = in_sh.get_template("check-native"), in_sh.get_template("finish-native")
    log, svlogd = in_sh.get_template("log-run"), in_sh.get_template("svlogd-config")
    gunicorn = in_python.get_template("gunicorn.py")
    tree = []
    for name, given in services(load(pillar)):
        seen = context(name, given)
        service, paths = seen["service"], seen["paths"]
        at, root = service["service"]["directory"], service["root"]
        tree += [
            (at, 0o755, None),
            (f"{at}/run", 0o755, run.render(seen).encode()),
            (f"{at}/finish", 0o755, finish.render(seen).encode()),
            (f"{at}/check", 0o755, check.render(seen).encode()),
            (f"{at}/env", 0o700, None),
        ]
        for key, value in seen["secrets"].items():
            text = str(value).replace("\n", "\0") + "\n" + seen["managed"][:-1] + "\n"
            tree.append((f"{at}/env/{key}", 0o600, text.encode()))
        tree += [
            (f"{at}/log", 0o755, None),
            (f"{at}/log/run", 0o755, log.render(seen).encode()),
            (service["service"]["link"], 0o777, at),
            (root, 0o755, None),
            (paths["releases"], 0o755, None),
            (f"{root}/shared", 0o755, None),
            (paths["pids"], 0o755, None),
            (paths["logs"], 0o755, None),
            (paths["sockets"], 0o755, None),
            (f"{root}/shared/runsmith", 0o755, None),
            (f"{root}/shared/runsmith/gunicorn.py", 0o644, gunicorn.render(seen).encode()),
            (f"{paths['logs']}/service", 0o755, None),
            (f"{paths['logs']}/service/config", 0o644, svlogd.render(seen).encode()),
        ]
    return tree


def write(tree, out):
    for path in ("/etc/sv", "/etc/service", "/var/www"):
        os.makedirs(out + path, exist_ok=True)
    for path, mode, content in tree:
        path = out + path
        if content is None:
            os.makedirs(path, mode, exist_ok=True)
        elif isinstance(content, str):
            if not os.path.lexists(path):
                os.symlink(content, path)
        else:
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, mode)


def main():
    pillar, rest = sys.argv[1], sys.argv[2:]
    if rest == ["--parse"]:
        load(pillar)
        return
    tree = render(pillar)
    if rest[:1] == ["--out"]:
        write(tree, rest[1])
    elif rest == ["--json"]:
        json.dump({path: [mode, c.decode() if isinstance(c, bytes) else c] for path, mode, c in tree}, sys.stdout)


main()
