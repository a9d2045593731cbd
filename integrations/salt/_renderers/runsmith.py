# SPDX-License-Identifier: MIT OR Apache-2.0
"""
An SLS whose body is a pillar of runsmith becomes a state that makes its services so.

.. code-block:: yaml

    #!jinja|runsmith
    defaults: {user: deploy, group: deploy, virtualenv_home: /home/deploy}
    applications:
      shop: {gunicorn: {workers: {{ grains.num_cpus }}}}

Without a body the minion's own pillar is meant, at the place that is named:

.. code-block:: yaml

    #!runsmith --pillar unicorn

Options after the name: ``--pillar KEY``, or ``--key KEY``, where in the body the applications are; ``--root``, ``--prune``,
``--set``, ``--adopt``, ``--backup``, ``--templates``, ``--deny``, ``--warn``, ``--allow``, ``--executable`` as ``runsmith.managed`` has them;
``--files-only`` for its ``effect: False``.

The SLS becomes one state whose ID is the name of the SLS, so ``require: [{runsmith: NAME}]`` or ``require: [{sls: NAME}]``
wait for it. The pillar is validated here, before any state of the run.
"""

import argparse
import re
import shlex

from salt.exceptions import CommandExecutionError, SaltRenderError

__virtualname__ = "runsmith"


def __virtual__():
    return __virtualname__


class _Options(argparse.ArgumentParser):
    """Says what is wrong with an argument instead of ending the minion."""

    def error(self, message):
        raise ValueError(message)


def _parse(argline):
    options = _Options(prog="#!runsmith", add_help=False, allow_abbrev=False)
    for name in ("pillar", "key", "root", "set", "templates", "executable"):
        options.add_argument("--" + name)
    for name in ("deny", "warn", "allow"):
        options.add_argument("--" + name, action="append")
    for name in ("prune", "adopt", "backup", "files-only"):
        options.add_argument("--" + name, action="store_true")
    return vars(options.parse_args(shlex.split(argline)))


def _called(sls, saltenv, tmplpath):
    """What the user calls the file: its address on the file server, not the copy in the minion's cache."""
    found = re.search(rf"/files/{re.escape(saltenv)}/(.+)$", tmplpath or "")
    return f"salt://{found.group(1)}" if found else tmplpath or sls


def _source(tmplpath):
    """The text that `#!yaml|runsmith` has read: runsmith reads it in the same way, and knows the lines."""
    try:
        with open(tmplpath, encoding="utf-8", newline="") as file:
            text = file.read()
    except (OSError, TypeError, ValueError):
        return None
    return text if re.match(r"#!\s*yaml\s*\|\s*runsmith\b", text) else None


def render(data, saltenv="base", sls="", argline="", tmplpath=None, **kwargs):
    """The states of an SLS; what is wrong with it is said with file, line and rule."""
    called = _called(sls, saltenv, tmplpath)
    if kwargs.get("_pillar_rend"):
        raise SaltRenderError(
            f"{called}: the renderer runsmith makes states; to validate pillars use the external pillar runsmith"
        )
    try:
        options = _parse(argline)
    except ValueError as error:
        raise SaltRenderError(f"{called}: #!runsmith: {error}") from error
    body = data.read() if hasattr(data, "read") else _source(tmplpath) or data
    if not isinstance(body, str):
        # What YAML has read after Jinja has no lines any more.
        called = f"values of {called}"
    try:
        return _state(body, sls, called, options)
    except CommandExecutionError as error:
        raise SaltRenderError(_once(str(error))) from error
    except KeyError as error:
        if "runsmith." not in str(error):
            raise
        raise SaltRenderError(
            f"{called}: the execution module runsmith is not here; run `saltutil.sync_all` on this minion first"
        ) from error


def _once(message):
    """As a paragraph of its own: Salt puts it behind `Rendering SLS … failed: `."""
    return "\n" + message if "\n" in message else message


def _state(body, sls, called, options):
    judged = {name: options[name] for name in ("deny", "warn", "allow") if options[name]}
    executable = {"executable": options["executable"]} if options["executable"] else {}
    key = {"key": options["key"]} if options["key"] else {}
    # What is left of a text without comments. The shebang line is one.
    empty = not re.sub(r"^\s*(#.*)?$", "", body, flags=re.MULTILINE).strip() if isinstance(body, str) else not body
    if options["pillar"]:
        if not empty:
            raise SaltRenderError(f"{called}: there is a body, and `--pillar {options['pillar']}`, too: leave one of them out")
        given = {"key": options["pillar"]}
        report = __salt__["runsmith.validate"](**given, **judged, **executable)
    elif empty:
        raise SaltRenderError(
            f"{called}: there is nothing in it; `#!runsmith --pillar KEY` takes the minion's own pillar at KEY"
        )
    else:
        report = __salt__["runsmith.validate"](body, called=called, **key, **judged, **executable)
        given = {"pillar": body, **key}
    if not report["valid"]:
        # That is for somebody at a shell; here it is a word in the first line.
        jinja = any(finding["rule"] == "jinja" for finding in report["findings"])
        hint = "\n\n`#!jinja|runsmith` lets Salt render the templates first" if jinja and isinstance(body, str) else ""
        raise SaltRenderError(_once(report["text"] + hint))
    if isinstance(body, str) and "pillar" in given:
        given["pillar"] = __salt__["runsmith.read"](body, called=called, **executable)
    more = {name: options[name] for name in ("root", "set", "templates", "prune", "adopt", "backup") if options[name]}
    more.update({"effect": False} if options["files_only"] else {})
    arguments = {**given, **more, **judged, **executable}
    # `slsutil.renderer` knows of no SLS.
    return {sls or "runsmith": {"runsmith.managed": [{name: value} for name, value in arguments.items()]}}
