# SPDX-License-Identifier: MIT OR Apache-2.0
"""
runit services for gunicorn and unicorn: any number of them in one state, shown before they are made, upgraded without losing a
request. Salt 3008 has no module for runit any more; starting, enabling, stopping and handing over is done here.

.. code-block:: yaml

    services:
      runsmith.managed:
        - key: unicorn            # what the minion's pillar has there

    shop:
      runsmith.upgraded:          # after a new release
        - watch: [{file: /etc/shop.conf}]

    lobby:
      runsmith.absent: []

``test=True`` writes nothing and tells nothing to what runs. What is below a key ``secrets`` is masked in changes and comments.
"""

import os
import shlex
import subprocess
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "runsmith"

# runsvdir looks every five seconds and tells nobody; this is how often we look whether it has.
LOOK_AGAIN = 0.1
# What a change to a service is called after which runsvdir has to find it.
NEW = ("add", "enable", "supervise")
# What a minion that was started by hand may lack in its PATH; sv and its like are there.
SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def __virtual__():
    if "runsmith.diff" in __salt__:
        return __virtualname__
    return False, "the execution module runsmith is not here: run `saltutil.sync_all`"


class _Trouble(Exception):
    """A service is not as it should be; the sentence is for people."""


class _Service:
    """A service that is wanted on this host."""

    def __init__(self, wanted, difference=None):
        self.name = wanted["name"]
        self.directory = wanted["directory"]
        self.timeout = wanted.get("timeout", 100)
        self.enabled = wanted.get("enabled", True)
        self.down = wanted.get("down", False)
        self.native = wanted.get("run_script", "native") == "native"
        self.root = wanted.get("root")
        impact = difference["impact"] if difference else {}
        self.effect = impact.get("effect", "nothing")
        self.why = list(impact.get("reasons", []))
        self.commands = list(impact.get("commands", []))

    def is_released(self):
        """Whether there is something to serve."""
        return self.root is None or os.path.exists(os.path.join(self.root, "current"))


class _Run:
    """One state, as it is applied to this host."""

    def __init__(self, name, executable, force=False, start_timeout=20):
        self.ret = {"name": name, "result": True, "changes": {}, "comment": ""}
        self.test = __opts__["test"]
        self.executable = executable
        self.force = force
        self.start_timeout = start_timeout
        self.comments = []

    def end(self, trouble=None):
        """What Salt is told."""
        if trouble is not None:
            self.comments.append(str(trouble))
        elif self.test and self.ret["changes"]:
            self.comments.append("Nothing was written, and nothing that runs was told.")
        elif not self.ret["changes"] and not self.comments:
            self.comments.append("Everything is as it should be.")
        self.ret["comment"] = "\n".join(self.comments)
        self.ret["result"] = False if trouble is not None else None if self.test and self.ret["changes"] else True
        return self.ret

    # --- What differs

    def show(self, difference):
        """Fills in what differs, by service and path."""
        for service in difference["services"]:
            # What belongs to no service, such as a directory on the way to one, has no name.
            name = service["name"] or "for all of them"
            shown = self.ret["changes"].setdefault(name, {})
            if service["name"]:
                impact = service["impact"]
                shown["impact"] = "; ".join([impact["effect"], *impact["reasons"]])
            for entry in service["entries"]:
                shown[entry["path"]] = _shown(entry)
        named = [service for service in difference["services"] if service["name"]]
        if named:
            effects = {}
            for service in named:
                effects.setdefault(service["impact"]["effect"], []).append(service["name"])
            told = "; ".join(f"{effect}: {', '.join(names)}" for effect, names in effects.items())
            verb = "would change" if self.test else "changed"
            self.comments.append(f"{len(named)} of {_services(len(difference['wanted']))} {verb} ({told}).")

    # --- What runs

    def status(self, services):
        """What runs of those that are there, by directory."""
        there = [one.directory for one in services if os.path.exists(os.path.join(one.directory, "run"))]
        if not there:
            return {}
        return dict(zip(there, __salt__["runsmith.status"](*there, executable=self.executable)))

    def bring_up_all(self, services):
        """Brings what runs up to what is on disk, service by service, and ends at the first one that is backed out."""
        wanted = [service for service in services if service.enabled and not service.down]
        waiting = [service for service in wanted if not service.is_released()]
        if waiting:
            names = ", ".join(service.name for service in waiting)
            self.comments.append(f"No release to serve yet (there is no `current`): {names}.")
        for service in waiting:
            # So that a release that comes in the next moment finds the service watched over.
            if service.effect in NEW and not self.test:
                self.wait_for_runsv(service)
        wanted = [service for service in wanted if service.is_released()]
        status = self.status([service for service in wanted if service.native])
        for service in wanted:
            self.bring_up(service, status.get(service.directory))

    def bring_up(self, service, status):
        """Does for one service what it takes."""
        if service.effect in NEW:
            for command in service.commands:
                self.sv(service, command)
            self.start(service)
            # It may have run all the time, found by another way than its link.
            service.effect, service.commands = "nothing", []
            status = None if self.test else self.status([service]).get(service.directory)
        own = shlex.quote(service.directory)
        if service.effect == "nothing" and self.force and not service.native:
            service.why = ["it was asked for"]
            service.commands = [f"sv -w {service.timeout} restart {own}"]
        hands_over = service.native and service.effect != "restart"
        for command in service.commands:
            # runsmith tells how a hand-over ended, and why; sv would only time out.
            if not (hands_over and command.endswith(" " + own)):
                self.sv(service, command)
        if hands_over:
            self.hand_over(service, status)

    def hand_over(self, service, status):
        """An upgrade, if something is newer than what serves."""
        if status is None:
            # With test=True a service that is to be made is not there yet.
            return
        if status["serving"] is None and not status["wanted_up"]:
            reason = "nobody wants it up" if status["supervised"] else "no runsv watches over it"
            raise _Trouble(f"{service.name} is down: {reason}; `sv up {service.directory}` starts it")
        if service.effect == "upgrade":
            why = service.why
        elif status["serving"] is None:
            why = ["nothing serves"]
        elif status["newer"]:
            why = [f"{path} is newer than what serves" for path in status["newer"]]
        elif self.force:
            why = ["it was asked for"]
        else:
            return
        noted = self.note(service, "upgrade", why)
        if self.test:
            return
        before = __context__.get("retcode")
        result = __salt__["runsmith.upgrade"](service.directory, executable=self.executable)
        # It is the state that has failed, and says so.
        __context__["retcode"] = before
        if before is None:
            del __context__["retcode"]
        if result["is"] == "done":
            noted["result"] = f"done: generation {result.get('generation')} serves"
            return
        noted["result"] = result["is"]
        serving = result.get("serving")
        goes_on = "nothing serves" if serving is None else f"generation {serving} goes on serving"
        lines = (result.get("output") or "").rstrip("\n")
        output = f"\nwhat the failed generation said last:\n{lines}" if lines else ""
        raise _Trouble(f"{service.name}: the upgrade was backed out: {result.get('reason')}; {goes_on}{output}")

    def start(self, service):
        """Waits until a service that is new to runsvdir serves."""
        noted = self.note(service, "start", service.why or ["it is new"])
        if self.test:
            return
        self.wait_for_runsv(service)
        self.sv_now(["sv", "-w", str(service.timeout), "start", service.directory], service)
        noted["result"] = "done"

    def wait_for_runsv(self, service):
        """Until runsvdir has found a service that is new to it."""
        ok = os.path.join(service.directory, "supervise", "ok")
        until = time.monotonic() + self.start_timeout
        while not _listens(ok):
            if time.monotonic() > until:
                raise _Trouble(
                    f"{service.name}: no runsv after {self.start_timeout} s: does runsvdir run, and does it look where the link to "
                    f"{service.directory} is?"
                )
            time.sleep(LOOK_AGAIN)

    def note(self, service, action, why):
        """What was done (or would be) to what runs, in order."""
        noted = {"action": action, "why": "; ".join(why)}
        self.ret["changes"].setdefault(service.name, {}).setdefault("actions", []).append(noted)
        self.comments.append(f"{service.name}: {'would be: ' if self.test else ''}{action} ({noted['why']}).")
        return noted

    def sv(self, service, command):
        self.note(service, command, service.why)
        if not self.test:
            self.sv_now(shlex.split(command), service)

    def sv_now(self, words, service):
        path = os.environ.get("PATH", "")
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": f"{path}:{SBIN}" if path else SBIN},
                check=False,
            )
        except OSError as error:
            raise _Trouble(f"cannot run {words[0]}: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip()
            raise _Trouble(f"{service.name}: `{shlex.join(words)}` failed: {said}{self.last(service)}")

    def last(self, service):
        """What the runtime has to say about a service that did not come up."""
        if not service.native:
            return ""
        try:
            (status,) = __salt__["runsmith.status"](service.directory, executable=self.executable)
        except (CommandExecutionError, ValueError):
            return ""
        said = [f"it is {status['state']}", (status.get("last") or {}).get("reason"), status.get("trouble")]
        return "; " + "; ".join(one for one in said if one)


def _listens(fifo):
    """Whether a runsv has this open: it reads what is written there."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _named(name, services):
    """The services that are meant: one of them may come without a list."""
    if services is None:
        return [str(name)]
    return [str(one) for one in services] if isinstance(services, (list, tuple)) else [str(services)]


def _services(count):
    return "1 service" if count == 1 else f"{count} services"


def _side(one):
    """Kind, mode and owner of a path, in a line."""
    if one is None:
        return None
    target = f" -> {one['target']}" if one.get("target") else ""
    return f"{one['kind']} {one['mode']} {one['owner']}:{one['group']}{target}"


def _shown(entry):
    """A path that differs: what Salt's own states of files tell, in their words."""
    old, new = entry["old"], entry["new"]
    if old is None or new is None or old["kind"] != new["kind"]:
        shown = {"old": _side(old), "new": _side(new)}
        shown = {side: value for side, value in shown.items() if value is not None}
    else:
        shown = {
            what: {"old": old[what], "new": new[what]}
            for what in ("mode", "owner", "group", "target")
            if old.get(what) != new.get(what)
        }
    if entry.get("content") and entry.get("hunks"):
        shown["diff"] = _unified(entry["hunks"], entry.get("secret"))
    elif entry.get("unshown"):
        unshown = entry["unshown"]
        shown["diff"] = f"not shown: {unshown['lines_added']} lines added, {unshown['lines_removed']} removed"
    return shown


def _unified(hunks, secret):
    """The hunks of a difference as text. Of a secret it is not even told how long it is."""
    lines = []
    for hunk in hunks:
        sides = []
        for side in ("old", "new"):
            start, count = hunk[f"{side}_start"], hunk[f"{side}_lines"]
            # Of no lines it is the line before them that counts.
            sides.append(f"{start if count else max(start - 1, 0)},{count}")
        lines.append("@@ secret @@" if secret else f"@@ -{sides[0]} +{sides[1]} @@")
        for line in hunk["lines"]:
            lines.append(line["sign"] + line["text"])
            if line.get("newline") is False:
                lines.append("\\ No newline at end of file")
    return "\n".join(lines)


def managed(
    name,
    key=None,
    pillar=None,
    root="/",
    effect=True,
    force=False,
    prune=False,
    set=None,
    adopt=False,
    backup=False,
    templates=None,
    deny=None,
    warn=None,
    allow=None,
    start_timeout=20,
    executable=None,
):
    """
    The services of a pillar are as it says, on disk and as they run: new ones are started, others get what their change needs (new
    logs, a zero-downtime upgrade, …) and the rest is left alone. A service without a release (``ROOT/current``) is made and waits
    for one. Ends at the first upgrade that is backed out; there the old generation goes on serving.

    name
        Any text.
    key
        Where in the minion's pillar the applications are, as ``a:b:c``; ``unicorn`` by default. With ``pillar``: where in that.
    pillar
        The pillar itself. Then its values are arguments of a state, which ``state.show_sls`` and its like show: for ``secrets`` use
        ``key``.
    root
        The directory that is made to hold the files. What runs is told nothing if it is not ``/``.
    effect
        ``False``: files only; what runs is not told.
    force
        Hand over also where nothing is newer than what serves. Also done if something changes that the state watches.
    prune, set
        Remove what earlier runs with the same ``set`` made and the pillar does not want any more, whole services too. By default the
        set is ``salt:KEY``, or ``salt:NAME`` with ``pillar``. Services that an earlier version of runsmith made are in ``default``.
    adopt
        Take over also files, directories and links that are in the way and that runsmith did not make; without it the state fails
        and names them. The old version is kept below ``/var/lib/runsmith/backup``.
    backup
        Keep the old version of what is replaced or removed, below ``/var/lib/runsmith/backup``.
    templates
        A directory on the minion with templates that replace built-in ones.
    deny, warn, allow
        Rules whose findings are errors, warnings, or not told.
    start_timeout
        Seconds until runsvdir has to have found a new service.
    executable
        The path of runsmith on the minion.
    """
    run = _Run(name, executable, force, start_timeout)
    same = {
        "pillar": pillar,
        "key": key,
        "root": root,
        "prune": prune,
        "set": set or (None if pillar is None else f"salt:{name}"),
        "adopt": adopt,
        "templates": templates,
        "deny": deny,
        "warn": warn,
        "allow": allow,
        "executable": executable,
    }
    try:
        difference = __salt__["runsmith.diff"](text=False, **same)
        if "warning[" in difference["said"]:
            judged = {"key": key, "deny": deny, "warn": warn, "allow": allow, "executable": executable}
            report = __salt__["runsmith.validate"](pillar, **judged)
            # A sentence each: Salt breaks lines as it likes.
            run.ret["warnings"] = [f"{one['rule']}: {one['message']}" for one in report["findings"]]
        if difference["unreadable"] or difference["refused"]:
            raise _Trouble("\n".join([*difference["unreadable"], *difference["refused"]]))
        run.show(difference)
        if difference["services"] and not run.test:
            __salt__["runsmith.apply"](backup=backup, **same)
        if effect and os.path.normpath(str(root)) == "/":
            differs = {service["name"]: service for service in difference["services"]}
            run.bring_up_all([_Service(wanted, differs.get(wanted["name"])) for wanted in difference["wanted"]])
    except (CommandExecutionError, _Trouble) as trouble:
        return run.end(trouble)
    return run.end()


def upgraded(name, services=None, key=None, force=False, start_timeout=20, executable=None):
    """
    What runs is what is on disk: where something is newer than what serves (a release, files), a new generation takes over, and no
    request is lost. A service that serves what is on disk is left alone.

    Fails if a hand-over is backed out; the old generation goes on serving, and services after it are left alone. Fails if a
    service is down.

    name
        A service, by name or directory.
    services
        Several of them, in this order; then ``name`` is any text.
    key
        All of those that the minion's pillar has at ``a:b:c``; then ``name`` is any text.
    force
        Hand over also where nothing is newer. Also done if something changes that the state watches.
    """
    run = _Run(name, executable, force, start_timeout)
    try:
        if key is not None:
            difference = __salt__["runsmith.diff"](key=key, text=False, executable=executable)
            wanted = [_Service(wanted) for wanted in difference["wanted"]]
        else:
            wanted = []
            for service in _named(name, services):
                (found,) = __salt__["runsmith.status"](str(service), executable=executable)
                wanted.append(_Service({"name": found["application"], "directory": found["directory"]}))
        run.bring_up_all(wanted)
    except (CommandExecutionError, _Trouble) as trouble:
        return run.end(trouble)
    return run.end()


def absent(name, services=None, root="/", backup=False, executable=None):
    """
    Services are stopped, and what was made for them is removed; what runsmith did not make stays.

    name
        A service, by the name of its application.
    services
        Several of them; then ``name`` is any text.
    root
        The directory that they were made in.
    backup
        Keep the old version of what is removed, below ``/var/lib/runsmith/backup``.
    """
    run = _Run(name, executable)
    names = _named(name, services)
    try:
        difference = __salt__["runsmith.remove"](names, root=root, test=True, executable=executable)
        run.show({**difference, "wanted": names})
        if difference["services"] and not run.test:
            __salt__["runsmith.remove"](names, root=root, backup=backup, executable=executable)
    except (CommandExecutionError, _Trouble) as trouble:
        return run.end(trouble)
    return run.end()


def mod_watch(name, sfun=None, **kwargs):
    """Something that is watched has changed: a new generation is to see it."""
    kwargs.pop("__reqs__", None)
    if sfun in ("managed", "upgraded"):
        return globals()[sfun](name, **{**kwargs, "force": True})
    return {"name": name, "result": False, "changes": {}, "comment": f"runsmith.{sfun} cannot watch anything"}
