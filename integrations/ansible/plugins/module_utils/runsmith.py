# SPDX-License-Identifier: MIT OR Apache-2.0
"""How the program runsmith is found, called and understood. All that is known about pillars and services, it knows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig

# The first version whose JSON has all that is used here.
OLDEST = (0, 1, 0)
NAME = "runsmith"


class Trouble(Exception):
    """runsmith could not do it: a sentence for people, and the findings, if the pillar is wrong."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.message = message
        self.details = details


def find(executable=None):
    """The path of runsmith: as given, else beside this Python (where pip puts it), in PATH, or where packages put it."""
    if executable:
        found = shutil.which(executable)
        if found is None:
            raise Trouble(
                "there is no program %s here: install runsmith, or give its path as `executable`" % executable
            )
        return found
    beside = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    path = [*beside, *os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = shutil.which(NAME, path=os.pathsep.join(entry for entry in path if entry))
    if found is None:
        raise Trouble(
            "runsmith is not installed here: it is neither beside %s nor in PATH; install its package, or let `ship` "
            "take it here from the control node" % sys.executable
        )
    return found


def secret_values(pillar):
    """Every text below a key `secrets`, wherever that is."""

    def leaves(value):
        if isinstance(value, dict):
            return [leaf for inner in value.values() for leaf in leaves(inner)]
        if isinstance(value, (list, tuple)):
            return [leaf for inner in value for leaf in leaves(inner)]
        return [] if value is None or isinstance(value, bool) else [str(value)]

    found = set()
    if isinstance(pillar, dict):
        for key, value in pillar.items():
            found.update(leaves(value) if key == "secrets" else secret_values(value))
    elif isinstance(pillar, (list, tuple)):
        for value in pillar:
            found |= secret_values(value)
    return found - {""}


class Runsmith:
    """One runsmith, of a version that is understood."""

    def __init__(self, path):
        self.path = path
        self.version = self._version()

    def _version(self):
        code, out, err = self.call(["--version"])
        found = re.match(r"runsmith (\d+)\.(\d+)\.(\d+)", out)
        if code != 0 or not found:
            raise Trouble("%s is no runsmith: it answers %r to --version" % (self.path, (out or err).strip()[:200]))
        version = tuple(int(part) for part in found.groups())
        if version < OLDEST:
            needs = ".".join(map(str, OLDEST))
            raise Trouble("%s is %s; this collection needs %s or newer" % (self.path, out.strip(), needs))
        return out.split()[1]

    def call(self, arguments, data=None):
        """Exit code, standard output and standard error."""
        try:
            done = subprocess.run(
                [self.path, *arguments],
                input=None if data is None else data.encode(),
                stdin=subprocess.DEVNULL if data is None else None,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "NO_COLOR": "1"},
                check=False,
            )
        except OSError as error:
            raise Trouble("cannot run %s: %s" % (self.path, error.strerror)) from error
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def json(self, arguments, data=None, good=(0, 1)):
        """What it prints as JSON, and what it says besides. Any other exit code than the `good` ones is trouble."""
        # After the command's name: what follows `--` is no option.
        code, out, err = self.call([arguments[0], "--format", "json", *arguments[1:]], data)
        if code not in good:
            raise Trouble(said(err) or "%s ended with %d and said nothing" % (self.path, code))
        try:
            value = json.loads(out)
        except ValueError as error:
            raise Trouble("%s did not print JSON: %s" % (self.path, error)) from error
        if value.get("version") != 1:
            raise Trouble("%s prints format %r; this collection understands 1" % (self.path, value.get("version")))
        return value, err

    def on_pillar(self, arguments, pillar, judged, good=(0, 1)):
        """As `json`, for a command on a pillar; if that is wrong, the trouble has the findings."""
        data = text_of(pillar)
        try:
            return self.json([*arguments, *judged, "-", "--input-format", "json"], data, good)
        except Trouble as trouble:
            trouble.details.update(findings=self.findings(pillar, judged))
            raise

    def findings(self, pillar, judged):
        """All that is wrong with a pillar, or that somebody will regret."""
        try:
            report, _err = self.json(["validate", *judged, "-", "--input-format", "json"], text_of(pillar))
        except Trouble:
            return []
        keys = ("rule", "severity", "message", "help")
        return [{key: finding.get(key) for key in keys} for finding in report.get("findings", [])]


def text_of(pillar):
    """The pillar as it is handed over: values as Ansible has read them, a line for each, so that places mean something."""
    return json.dumps(pillar, indent=2, ensure_ascii=False, default=str)


def said(err):
    """What runsmith said on standard error, for whoever does not know what `-` is."""
    return re.sub(r"^(\s*)--> -:", r"\1--> pillar:", err, flags=re.MULTILINE).strip()


def rendered(pillar_arguments, executable=None, key=None, show_secrets=False, data=None):
    """The files that pillars become, for plugins of the control node."""
    runsmith = Runsmith(find(executable))
    options = (["--key", key] if key else []) + (["--show-secrets"] if show_secrets else [])
    value, _err = runsmith.json(["render", *options, *pillar_arguments], data, good=(0,))
    return value["entries"]
