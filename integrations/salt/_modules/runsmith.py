# SPDX-License-Identifier: MIT OR Apache-2.0
"""
runit services for gunicorn and unicorn, made from a few values each.

Calls the program ``runsmith``, which knows all that there is to know about pillars and services. It is taken from the
argument ``executable``, from the option ``runsmith.executable`` of the minion's (or master's) configuration, from beside the
Python that runs Salt (where pip puts it), from PATH, or from where packages put it.

The other modules (state, renderer, external pillar, runner) call this one by ``__salt__``: the one way to share code that
works in all of them, on the minion and on the master, with Salt 3006 and 3008, and whether they were synchronised or not.

Values come from the minion's own pillar unless they are given, so that no value stands in a job's arguments. What is below a
key ``secrets`` is masked in whatever is returned.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig

from salt.exceptions import CommandExecutionError

__virtualname__ = "runsmith"

# The first version whose JSON has all that is used here.
OLDEST = (0, 1, 0)
NAME = "runsmith"
# Where applications are in a minion's pillar unless it is said.
KEY = "unicorn"
# What Salt 3008 puts in the place of a value that it does not want to be seen.
MASKED = "**********"

# A secret with fewer characters is not looked for in what a release has printed.
SHORTEST_SECRET = 4


def __virtual__():
    return __virtualname__


# --- The program


def _find(executable=None):
    """The path of runsmith."""
    named = executable or __opts__.get("runsmith.executable")
    if named:
        named = str(named)
        found = shutil.which(named)
        if found is None:
            raise CommandExecutionError(
                f"there is no program {named} here: install runsmith, or correct `executable` or `runsmith.executable`"
            )
        return found
    beside = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    path = [*beside, *os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = shutil.which(NAME, path=os.pathsep.join(entry for entry in path if entry))
    if found is None:
        raise CommandExecutionError(
            f"runsmith is not installed here: it is neither beside {sys.executable} nor in PATH; install its package, or name it "
            "by the option `runsmith.executable` of Salt's configuration"
        )
    return found


def _run(path, arguments, data=None):
    """Exit code, standard output and standard error. Not by `cmd.run`, which logs what it is given."""
    try:
        done = subprocess.run(
            [path, *arguments],
            # What is no Unicode becomes an escape that runsmith refuses, with its place.
            input=None if data is None else data.encode(errors="backslashreplace"),
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1"},
            check=False,
        )
    except OSError as error:
        raise CommandExecutionError(f"cannot run {path}: {error.strerror}") from error
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _runsmith(executable):
    """The path of a runsmith whose version is understood."""
    path = _find(executable)
    try:
        at = os.stat(path)
        known = (path, at.st_ino, at.st_mtime_ns)
    except OSError as error:
        raise CommandExecutionError(f"cannot read {path}: {error.strerror}") from error
    if __context__.get("runsmith.known") != known:
        code, out, err = _run(path, ["--version"])
        found = re.match(r"runsmith (\d+)\.(\d+)\.(\d+)", out)
        if code != 0 or not found:
            raise CommandExecutionError(f"{path} is no runsmith: it answers {(out or err).strip()[:200]!r} to --version")
        if tuple(int(part) for part in found.groups()) < OLDEST:
            needs = ".".join(map(str, OLDEST))
            raise CommandExecutionError(f"{path} is {out.strip()}; these modules need {needs} or newer")
        __context__["runsmith.known"] = known
    return path


def _json(executable, arguments, data=None, good=(0, 1), called="pillar"):
    """What runsmith prints as JSON, and what it says besides. Any other exit code than the `good` ones is an error."""
    path = _runsmith(executable)
    # After the command's name: what follows `--` is no option.
    code, out, err = _run(path, [arguments[0], "--format", "json", *arguments[1:]], data)
    if code not in good:
        raise CommandExecutionError(_said(err, called) or f"{path} ended with {code} and said nothing")
    try:
        value = json.loads(out)
    except ValueError as error:
        # With findings the exit code is 1, and there is nothing on standard output.
        raise CommandExecutionError(_said(err, called) or f"{path} did not print JSON: {error}") from error
    if value.get("version") != 1:
        raise CommandExecutionError(f"{path} prints format {value.get('version')!r}; these modules understand 1")
    return value, err


def _said(err, called):
    """What runsmith said on standard error, for whoever does not know what `-` is."""
    return re.sub(r"^(\s*(?:-->|:::) )-:", lambda found: f"{found.group(1)}{called}:", err, flags=re.MULTILINE).strip()


# --- Pillars


def _plain(value, at="pillar"):
    """Salt's containers as JSON has them. A value that Salt has masked is refused: nobody wants it on a host."""
    if isinstance(value, dict):
        return {str(key): _plain(inner, f"{at}:{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{at}:{number}") for number, inner in enumerate(value)]
    if value == MASKED or value == MASKED.encode():
        raise CommandExecutionError(
            f"`{at}` is masked: Salt 3008 gives {MASKED} instead of a pillar's values outside of Jinja. Name the place in the "
            "pillar (`key: unicorn`, `#!runsmith --pillar unicorn`), or call `pillar.get` with `unmask=True`"
        )
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value


def _own(key):
    """What the minion's pillar has at `a:b:c`."""
    # What a loader gives under this name is no dict.
    found = dict(__pillar__)
    for step in key.split(":"):
        if not isinstance(found, dict) or step not in found:
            raise CommandExecutionError(
                f"the pillar of {__opts__.get('id')} has nothing at `{key}`: assign it in the pillar's top file, run "
                "`saltutil.refresh_pillar`, or name another place"
            )
        found = found[step]
    return found


class _Input:
    """A pillar as it is handed over: values as Salt has read them, or a text with its lines."""

    def __init__(self, pillar=None, key=None, called=None):
        key = None if key is None else str(key)
        if isinstance(pillar, str):
            self.called = called or "pillar"
            self.text = pillar
            self.words = ["-", "--input-format", "yaml", *(["--key", key] if key else [])]
            return
        if pillar is None:
            key = key or KEY
            pillar = _own(key)
            # Wrapped as it stands there: the key is named in findings, differences and files.
            for step in reversed(key.split(":")):
                pillar = {step: pillar}
            self.called = called or f"pillar of {__opts__.get('id')}"
        else:
            self.called = called or "pillar"
        # A line for each value, so that places mean something.
        try:
            self.text = json.dumps(_plain(pillar), indent=2, ensure_ascii=False, default=str)
        except RecursionError as error:
            raise CommandExecutionError(f"{self.called}: it contains itself, or is nested too deeply") from error
        self.words = ["-", "--input-format", "json", *(["--key", key] if key else [])]


def _judged(deny, warn, allow):
    """How bad findings are."""
    switches = (("--deny", deny), ("--warn", warn), ("--allow", allow))
    return [word for switch, rules in switches for rule in _list(rules) for word in (switch, rule)]


def _root(root):
    """The directory that holds the files. A minion's working directory is nobody's business."""
    if not os.path.isabs(str(root)):
        raise CommandExecutionError(f"the root {root} is no absolute path")
    return str(root)


def _list(value):
    """A list of texts, also if there is only one."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]


def _hidden(value, directory):
    """Without the values of a service's secrets, which a release that does not load may have printed."""
    secrets = set()
    env = os.path.join(directory or "", "env")
    for name in os.listdir(env) if directory and os.path.isdir(env) else []:
        try:
            with open(os.path.join(env, name), encoding="utf-8", errors="replace") as file:
                # As chpst reads it: one line, with NUL for the ends of others.
                secrets.update(file.readline().rstrip("\n").split("\0"))
        except OSError:
            continue
    # What is shorter would be found in every word.
    secrets = sorted((one for one in secrets if len(one) >= SHORTEST_SECRET), key=len, reverse=True)

    def hide(inner):
        if isinstance(inner, dict):
            return {key: hide(one) for key, one in inner.items()}
        if isinstance(inner, list):
            return [hide(one) for one in inner]
        if isinstance(inner, str):
            for secret in secrets:
                inner = inner.replace(secret, "********")
        return inner

    return hide(value)


# --- What can be called


def version(executable=None):
    """
    The version of runsmith.

    .. code-block:: bash

        salt '*' runsmith.version
    """
    path = _runsmith(executable)
    return _run(path, ["--version"])[1].split()[1]


def read(pillar, key=None, called=None, executable=None):
    """
    The values of a pillar that is a text, as Salt reads it, secrets included. For the renderer.
    """
    path = _runsmith(executable)
    given = _Input(pillar, key, called)
    code, out, err = _run(path, ["read", "--show-secrets", *given.words], given.text)
    if code != 0:
        raise CommandExecutionError(_said(err, given.called))
    return json.loads(out)


def validate(pillar=None, key=None, deny=None, warn=None, allow=None, called=None, executable=None):
    """
    Every finding of a pillar, by default of the minion's own one at ``unicorn``. Ends with 1 if there is an error.

    key
        Where the applications are, as ``a:b:c``. Without ``pillar``: in the minion's pillar.
    deny, warn, allow
        Rules whose findings are errors, warnings, or not told.

    Returns ``valid``, ``errors``, ``warnings``, ``findings`` (``rule``, ``severity``, ``message``, ``help`` each), and all of it
    as a ``text`` for people.

    .. code-block:: bash

        salt '*' runsmith.validate
        salt '*' runsmith.validate key=services:web deny=all
    """
    path = _runsmith(executable)
    given = _Input(pillar, key, called)
    words = ["validate", *_judged(deny, warn, allow), *given.words]
    report, _err = _json(executable, words, given.text, called=given.called)
    findings = [
        {key: finding.get(key) for key in ("rule", "severity", "message", "help")} for finding in report["findings"]
    ]
    errors = report["summary"]["errors"]
    if errors:
        __context__["retcode"] = 1
    # Findings are the result of `validate`, so they are on standard output.
    text = _said(_run(path, words, given.text)[1], given.called) if findings else ""
    return {
        "valid": not errors,
        "errors": errors,
        "warnings": report["summary"]["warnings"],
        "findings": findings,
        "text": text,
    }


def render(pillar=None, key=None, templates=None, show_secrets=False, executable=None):
    """
    The files that a pillar becomes, by default the minion's own one at ``unicorn``; writes nothing.

    Returns a list of paths with ``kind``, ``mode``, ``owner``, ``group``, and ``content`` or ``target``.

    .. code-block:: bash

        salt web1 runsmith.render
    """
    given = _Input(pillar, key)
    options = (["--show-secrets"] if show_secrets else []) + (["--templates", str(templates)] if templates else [])
    value, _err = _json(executable, ["render", *options, *given.words], given.text, good=(0,), called=given.called)
    return value["entries"]


def diff(
    pillar=None,
    key=None,
    root="/",
    prune=False,
    set=None,
    templates=None,
    deny=None,
    warn=None,
    allow=None,
    called=None,
    text=True,
    executable=None,
    adopt=False,
):
    """
    What ``state.apply`` would change on this host, by default for the minion's own pillar at ``unicorn``; writes nothing.

    Returns the text that ``runsmith render --diff`` prints, secrets masked; with ``text=False`` its JSON (docs/formats.md), and
    below ``said`` what it says besides.

    .. code-block:: bash

        salt web1 runsmith.diff
    """
    given = _Input(pillar, key, called)
    words = ["render", *_options(prune, set or _set(pillar, key), templates, adopt), "--diff", "--root", _root(root)]
    words += [*_judged(deny, warn, allow), *given.words]
    value, err = _json(executable, words, given.text, called=given.called)
    if text:
        shown = _run(_runsmith(executable), [*words, "--color", "never"], given.text)[1]
        # Lines of standard input are nobody's.
        places = re.compile(r"^(==>|@@)(.*?)(?: at)? -:\d+:\d+\b", flags=re.MULTILINE)
        return shown if isinstance(pillar, str) else places.sub(r"\1\2", shown)
    return {**value, "said": _said(err, given.called)}


def _set(pillar, key):
    """Which services belong together unless it is said: those of one place in the minion's pillar. A pillar that is given has no
    name, and no service is removed because of it."""
    return f"salt:{key or KEY}" if pillar is None else None


def _options(prune, set_name, templates, adopt):
    """What is the same for showing and for making."""
    words = ["--set", str(set_name)] if set_name else []
    words += ["--prune"] if prune else []
    words += ["--adopt"] if adopt else []
    return words + (["--templates", str(templates)] if templates else [])


def apply(
    pillar=None,
    key=None,
    root="/",
    prune=False,
    set=None,
    backup=False,
    templates=None,
    deny=None,
    warn=None,
    allow=None,
    called=None,
    executable=None,
    adopt=False,
):
    """
    Makes this host's files what a pillar says, by default the minion's own one at ``unicorn``. What runs is not told: that is the
    state ``runsmith.managed``.

    What is in the way and was not made by runsmith is an error that names it; with ``adopt=True`` it is taken over, and its old
    version is kept below ``/var/lib/runsmith/backup``.

    Returns what was changed, a path and a kind of change each.

    .. code-block:: bash

        salt web1 runsmith.apply
    """
    given = _Input(pillar, key, called)
    words = ["render", *_options(prune, set or _set(pillar, key), templates, adopt), "--out", _root(root)]
    words += ["--backup"] if backup else []
    words += [*_judged(deny, warn, allow), *given.words]
    return _json(executable, words, given.text, good=(0,), called=given.called)[0]["changes"]


def remove(services, root="/", backup=False, test=False, executable=None):
    """
    Stops services, unlinks them and removes what was made for them; what runsmith did not make stays.

    Returns what was changed; with ``test=True`` the JSON of ``runsmith remove --diff``.

    .. code-block:: bash

        salt web1 runsmith.remove shop test=True
    """
    words = ["remove", "--root", _root(root)]
    if test:
        return _json(executable, [*words, "--diff", "--", *_list(services)])[0]
    words += ["--backup"] if backup else []
    return _json(executable, [*words, "--", *_list(services)], good=(0,))[0]["changes"]


def status(*services, executable=None):
    """
    What runs: all services of this host, or those named, by name or directory.

    .. code-block:: bash

        salt '*' runsmith.status
        salt web1 runsmith.status shop
    """
    found = _json(executable, ["status", "--", *_list(services)])[0]["services"]
    return [_hidden(one, one.get("directory")) for one in found]


def upgrade(service, executable=None):
    """
    A new generation, from what is on disk now, takes over, and no request is lost. Ends with 1 if that was backed out; then the old
    one goes on serving.

    Returns ``is`` (``done``, ``backed-out`` or ``refused``), and ``generation``, or ``reason``, ``output`` and ``serving``.

    .. code-block:: bash

        salt web1 runsmith.upgrade shop
    """
    result = _json(executable, ["upgrade", "--", str(service)])[0]["result"]
    if result["is"] == "done":
        return result
    __context__["retcode"] = 1
    (found,) = _json(executable, ["status", "--", str(service)])[0]["services"]
    return _hidden(result, found.get("directory"))
