#!/usr/bin/python
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Any number of services in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service
short_description: runit services for gunicorn and unicorn, made from a few values each
version_added: 0.1.0
author: The authors of runsmith (@runsmith)
description:
  - Makes any number of services in one task, shows what that changes and what each change needs, upgrades services without
    losing a request, and removes them.
  - Calls the program C(runsmith) on the host. It is looked for beside the Python that runs this module (C(pip install) puts
    it there), in PATH, and in C(/usr/bin); O(ship) takes it there from the control node.
  - Values count as Ansible has read them. They reach runsmith by its standard input and are neither logged nor returned; what
    is below a key C(secrets) is masked in whatever the module returns.
options:
  state:
    description:
      - V(present) makes the host's files what O(pillar) says. Services that run are not told; RV(services) has what each needs.
      - V(upgraded) does that, too, if there is a O(pillar), and then brings what runs up to what is on disk, by the least that
        it takes. A service whose files and release are those that serve is left alone. It fails if a hand-over is backed out
        (the old generation goes on serving), at the first service, and leaves those after it alone.
      - V(absent) stops services, unlinks them and removes what was made for them; what runsmith did not make stays.
    type: str
    choices: [present, upgraded, absent]
    default: present
  pillar:
    description:
      - One application flat, or C(defaults) and C(applications), also below the key C(unicorn) or O(key).
      - C(runsmith schema) and its page of keys tell what may be in it.
      - Required for O(state=present).
    type: dict
  key:
    description: Where in O(pillar) the applications are, as C(a:b:c); by default C(unicorn), if there is one, else all of it.
    type: str
  name:
    description:
      - With O(state=upgraded) and O(state=absent) the services that are meant, by name; with V(upgraded) also by directory.
      - By default all of O(pillar).
    type: list
    elements: str
  root:
    description: The directory that is made to hold the files. Only those of V(/) can be upgraded.
    type: path
    default: /
  force:
    description: With O(state=upgraded), hand over also where nothing is newer than what serves.
    type: bool
    default: false
  start_timeout:
    description: With O(state=upgraded), seconds until runsvdir has to have found a new service.
    type: int
    default: 20
  prune:
    description: Removes what earlier runs with the same O(set) made and O(pillar) does not want any more, whole services too.
    type: bool
    default: false
  set:
    description:
      - Which services belong together; see O(prune). A pillar of a task has no name of its own, so that whole services are removed only
        with a set.
      - Services that an earlier version of runsmith made without one are in V(default).
    type: str
  adopt:
    description: Takes over also files, directories and links that are in the way and that runsmith did not make; without it the task
      fails and names them. The old version is kept on the host below C(/var/lib/runsmith/backup).
    type: bool
    default: false
  backup:
    description: Keeps the old version of what is replaced or removed, on the host below C(/var/lib/runsmith/backup).
    type: bool
    default: false
  templates:
    description: A directory on the host with templates that replace built-in ones.
    type: path
  deny:
    description: Rules whose findings are errors; V(all) is every one that can be switched.
    type: list
    elements: str
    default: []
  warn:
    description: Rules whose findings are warnings.
    type: list
    elements: str
    default: []
  allow:
    description: Rules whose findings are not told.
    type: list
    elements: str
    default: []
  executable:
    description: The path of runsmith on the host. With O(ship) where it is put, C(/usr/bin/runsmith) by default.
    type: path
  ship:
    description:
      - A directory of the control node with C(runsmith-ARCHITECTURE) for each kind of host (C(runsmith-x86_64), C(runsmith-aarch64);
        the architecture is what C(uname -m) says), or such a file.
      - The one for the host is put where O(executable) says, if another one or none is there. Services that run go on with the
        old one until C(sv kill) or the next restart of their runtime.
    type: path
  shipped:
    description: Where the action plugin has put what O(ship) is to install. Not for playbooks.
    type: path
attributes:
  check_mode:
    description: Nothing is written or told; what would change is returned.
    support: full
  diff_mode:
    description: What C(runsmith render --diff) prints, with the keys that caused each hunk, secrets masked.
    support: full
  platform:
    description: Linux.
    support: full
    platforms: linux
seealso:
  - plugin: runsmith.runsmith.render
    plugin_type: filter
    description: The files that a pillar becomes, without a host.
"""

EXAMPLES = r"""
- name: The services of this host are as the pillar says
  runsmith.runsmith.service:
    pillar:
      defaults: {user: deploy, group: deploy, virtualenv_home: /home/deploy}
      applications:
        shop: {gunicorn: {workers: 4}, secrets: {DATABASE_URL: "{{ vault_shop_database }}"}}
        lobby: {bind: "127.0.0.1:8001"}
  notify: Upgrade services

- name: A new release takes over, and no request is lost; it fails if the release does not load
  runsmith.runsmith.service:
    name: shop
    state: upgraded

- name: Files and what runs, in one task, with the binary taken along
  runsmith.runsmith.service:
    pillar: "{{ services }}"
    state: upgraded
    ship: files/runsmith

- name: No lobby any more
  runsmith.runsmith.service:
    name: lobby
    state: absent

# As a handler; it does for each service what its change needs, and nothing for the others.
- name: Upgrade services
  runsmith.runsmith.service:
    pillar: "{{ services }}"
    state: upgraded
"""

RETURN = r"""
services:
  description: What differs on the host, for each service.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The service., type: str, returned: always}
    effect:
      description: What the change needs (C(nothing), C(reload-logs), C(restart-logs), C(upgrade), C(restart), C(supervise), C(enable), C(disable), C(add), C(remove)).
      type: str
      returned: always
    reasons: {description: Why it needs that., type: list, elements: str, returned: always}
    commands: {description: What to type for it., type: list, elements: str, returned: always}
changes:
  description: What was changed on disk, a path and a kind of change each, as C(render --out --format json) prints it.
  returned: when something was changed
  type: list
  elements: dict
actions:
  description: What was done (or, in check mode, would be) to what runs, in order.
  returned: for O(state=upgraded)
  type: list
  elements: dict
  contains:
    name: {description: The service., type: str, returned: always}
    action: {description: "C(upgrade), C(start) or an sv command.", type: str, returned: always}
    why: {description: What made it necessary., type: list, elements: str, returned: always}
    result: {description: "What C(runsmith upgrade --format json) says: C(is), and C(generation), or C(reason), C(output) and C(serving).", type: dict, returned: after an upgrade}
findings:
  description: What is wrong with the pillar, or that somebody will regret.
  returned: if there is something
  type: list
  elements: dict
version:
  description: The version of runsmith.
  returned: always
  type: str
"""

import os
import shlex
import shutil
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.runsmith.runsmith.plugins.module_utils.runsmith import (
    Runsmith,
    Trouble,
    find,
    said,
    secret_values,
    text_of,
)

# Where the service directory's own default has runsmith.
INSTALLED = "/usr/bin/runsmith"
# runsvdir looks every five seconds and tells nobody; this is how often we look whether it has.
LOOK_AGAIN = 0.1


class Service:
    """A service that is wanted on this host."""

    def __init__(self, wanted, difference):
        self.name = wanted["name"]
        self.directory = wanted["directory"]
        self.timeout = wanted.get("timeout", 100)
        self.enabled = wanted.get("enabled", True)
        self.down = wanted.get("down", False)
        self.native = wanted.get("run_script", "native") == "native"
        self.effect = difference["impact"]["effect"] if difference else "nothing"
        self.why = list(difference["impact"]["reasons"]) if difference else []
        self.commands = difference["impact"]["commands"] if difference else []


class Task:
    """One task on one host."""

    def __init__(self, module):
        self.module = module
        self.given = module.params
        self.check = module.check_mode
        self.result = {"changed": False, "services": []}
        self.runsmith = None

    # --- runsmith itself

    def install(self):
        """Puts what was shipped in its place, by a rename; in check mode it is used where it lies."""
        shipped = self.given["shipped"]
        target = self.given["executable"] or (INSTALLED if self.given["ship"] else None)
        if not shipped:
            return find(target)
        self.result["changed"] = True
        if self.check:
            return find(shipped)
        directory = os.path.dirname(target)
        try:
            # In the same directory, so that it can be renamed, and tried where it may be executed.
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".runsmith-", delete=False) as new:
                with open(shipped, "rb") as old:
                    shutil.copyfileobj(old, new)
                os.fchmod(new.fileno(), 0o755)
                os.fsync(new.fileno())
        except OSError as error:
            raise Trouble("cannot put runsmith into %s: %s" % (directory, error.strerror)) from error
        try:
            Runsmith(new.name)
            os.rename(new.name, target)
        except BaseException:
            os.unlink(new.name)
            raise
        return target

    # --- files

    def judged(self):
        """How bad findings are."""
        return [
            word
            for option in ("deny", "warn", "allow")
            for rule in self.given[option]
            for word in ("--" + option, rule)
        ]

    def options(self):
        """What is the same for showing and for making."""
        given = self.given
        words = ["--set", given["set"]] if given["set"] else []
        words += ["--key", given["key"]] if given["key"] else []
        words += ["--prune"] if given["prune"] else []
        words += ["--adopt"] if given["adopt"] else []
        words += ["--templates", given["templates"]] if given["templates"] else []
        return words

    def show(self, arguments, difference, data=None):
        """Fills in what differs, and the text of it for --diff."""
        self.result["services"] = [
            # What belongs to no service, such as a directory on the way to one, has no name.
            {"name": service["name"], **service["impact"]} for service in difference["services"] if service["name"]
        ]
        self.result["changed"] |= bool(difference["services"])
        if self.module._diff and difference["services"]:
            _code, text, _err = self.runsmith.call([*arguments, "--color", "never"], data)
            self.result["diff"] = [{"prepared": text}]

    def present(self):
        """Makes the files; gives what differed before."""
        pillar, judged = self.given["pillar"], self.judged()
        if self.given["prune"] and not self.given["set"]:
            self.module.warn("prune removes no whole service without set: name which services belong together")
        arguments = ["render", *self.options(), "--diff", "--root", self.given["root"]]
        difference, err = self.runsmith.on_pillar(arguments, pillar, judged)
        if "warning[" in err:
            self.result["findings"] = self.runsmith.findings(pillar, judged)
            for finding in self.result["findings"]:
                self.module.warn("%s: %s" % (finding["rule"], finding["message"]))
        from_pillar = ["-", "--input-format", "json"]
        self.show([*arguments, *judged, *from_pillar], difference, data=text_of(pillar))
        if difference["services"] and not self.check:
            arguments = ["render", *self.options(), "--out", self.given["root"]]
            arguments += ["--backup"] if self.given["backup"] else []
            made, _err = self.runsmith.on_pillar(arguments, pillar, judged, good=(0,))
            self.result["changes"] = made["changes"]
        return difference

    def absent(self):
        """Stops services and removes what was made for them."""
        names = self.given["name"]
        if names is None:
            arguments = ["render", *self.options(), "--diff", "--root", self.given["root"]]
            difference, _err = self.runsmith.on_pillar(arguments, self.given["pillar"], self.judged())
            names = [wanted["name"] for wanted in difference["wanted"]]
        root = ["--root", self.given["root"]]
        arguments = ["remove", *root, "--diff", "--", *names]
        difference, _err = self.runsmith.json(arguments)
        self.show(["remove", "--color", "never", *arguments[1:]], difference)
        if difference["services"] and not self.check:
            backup = ["--backup"] if self.given["backup"] else []
            made, _err = self.runsmith.json(["remove", *root, *backup, "--", *names], good=(0,))
            self.result["changes"] = made["changes"]

    # --- what runs

    def upgraded(self):
        """Brings what runs up to what is on disk."""
        if self.given["root"] != "/":
            raise Trouble("only services of the root / can be upgraded, not those of %s" % self.given["root"])
        self.result["actions"] = []
        services = self.named() if self.given["pillar"] is None else self.of_pillar()
        status = self.status([service for service in services if service.native])
        for service in services:
            if service.enabled and not service.down:
                self.bring_up(service, status.get(service.directory))

    def of_pillar(self):
        difference = self.present()
        differs = {service["name"]: service for service in difference["services"]}
        names = self.given["name"]
        services = [Service(wanted, differs.get(wanted["name"])) for wanted in difference["wanted"]]
        if names is None:
            return services
        unknown = set(names) - {service.name for service in services}
        if unknown:
            raise Trouble("the pillar has no application %s" % ", ".join(sorted(unknown)))
        return [service for service in services if service.name in names]

    def named(self):
        services = []
        for name in self.given["name"]:
            found, _err = self.runsmith.json(["status", "--", name])
            one = found["services"][0]
            services.append(Service({"name": one["application"], "directory": one["directory"]}, None))
        return services

    def status(self, services):
        """What runs of those that are there."""
        there = [one.directory for one in services if os.path.exists(os.path.join(one.directory, "run"))]
        if not there:
            return {}
        found, _err = self.runsmith.json(["status", "--", *there])
        return dict(zip(there, found["services"]))

    def bring_up(self, service, status):
        """Does for one service what it takes."""
        if service.effect in ("add", "enable", "supervise"):
            for command in service.commands:
                self.sv(service, command)
            self.start(service)
            # It may have run all the time, found by another way than its link.
            service.effect, service.commands = "nothing", []
            status = None if self.check else self.status([service]).get(service.directory)
        own = shlex.quote(service.directory)
        if service.effect == "nothing" and self.given["force"] and not service.native:
            service.why = ["it was asked for (force)"]
            service.commands = ["sv -w %d restart %s" % (service.timeout, own)]
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
            # In check mode a service that is to be made is not there yet.
            return
        if status["serving"] is None and not status["wanted_up"]:
            reason = "nobody wants it up" if status["supervised"] else "no runsv watches over it"
            raise Trouble(
                "%s is down: %s; `sv up %s` starts it" % (service.name, reason, service.directory)
            )
        if service.effect == "upgrade":
            why = service.why
        elif status["serving"] is None:
            why = ["nothing serves"]
        elif status["newer"]:
            why = ["%s is newer than what serves" % path for path in status["newer"]]
        elif self.given["force"]:
            why = ["it was asked for (force)"]
        else:
            return
        action = self.note(service, "upgrade", why)
        if self.check:
            return
        told, _err = self.runsmith.json(["upgrade", "--", service.directory])
        action["result"] = result = told["result"]
        if result["is"] != "done":
            serving = result.get("serving")
            goes_on = "nothing serves" if serving is None else "generation %s goes on serving" % serving
            lines = result.get("output", "").rstrip("\n")
            output = "\nwhat the failed generation said last:\n%s" % lines if lines else ""
            raise Trouble(
                "%s: the upgrade was backed out: %s; %s%s" % (service.name, result.get("reason"), goes_on, output)
            )

    def start(self, service):
        """Waits until a service that is new to runsvdir serves."""
        action = self.note(service, "start", service.why or ["it is new"])
        if self.check:
            return
        ok = os.path.join(service.directory, "supervise", "ok")
        until = time.monotonic() + self.given["start_timeout"]
        while not listens(ok):
            if time.monotonic() > until:
                raise Trouble(
                    "%s: no runsv after %d s: does runsvdir run, and does it look where the link to %s is?"
                    % (service.name, self.given["start_timeout"], service.directory)
                )
            time.sleep(LOOK_AGAIN)
        self.sv_now(["sv", "-w", str(service.timeout), "start", service.directory], service)
        action["result"] = {"is": "done"}

    def note(self, service, action, why):
        self.result["changed"] = True
        noted = {"name": service.name, "action": action, "why": why}
        self.result["actions"].append(noted)
        return noted

    def sv(self, service, command):
        self.note(service, command, service.why)
        if not self.check:
            self.sv_now(shlex.split(command), service)

    def sv_now(self, words, service):
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
        except OSError as error:
            raise Trouble("cannot run %s: %s" % (words[0], error.strerror)) from error
        if done.returncode != 0:
            text = done.stdout.decode(errors="replace").strip()
            raise Trouble("%s: `%s` failed: %s%s" % (service.name, shlex.join(words), text, self.last(service)))

    def last(self, service):
        """What the runtime has to say about a service that did not come up."""
        if not service.native:
            return ""
        code, out, err = self.runsmith.call(["status", "--", service.directory])
        return "\n%s" % (out if code in (0, 1) else said(err)).rstrip()

    def run(self):
        """The task; what it returns is in `result`, also if there was trouble."""
        self.runsmith = Runsmith(self.install())
        self.result["version"] = self.runsmith.version
        getattr(self, self.given["state"])()


def listens(fifo):
    """Whether a runsv has this open: it reads what is written there."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "upgraded", "absent"], "default": "present"},
            # So that it is neither logged nor returned.
            "pillar": {"type": "dict", "no_log": True},
            "key": {"type": "str", "no_log": False},
            "name": {"type": "list", "elements": "str"},
            "root": {"type": "path", "default": "/"},
            "force": {"type": "bool", "default": False},
            "start_timeout": {"type": "int", "default": 20},
            "prune": {"type": "bool", "default": False},
            "set": {"type": "str"},
            "adopt": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "templates": {"type": "path"},
            "deny": {"type": "list", "elements": "str", "default": []},
            "warn": {"type": "list", "elements": "str", "default": []},
            "allow": {"type": "list", "elements": "str", "default": []},
            "executable": {"type": "path"},
            "ship": {"type": "path"},
            "shipped": {"type": "path"},
        },
        required_if=[
            ("state", "present", ["pillar"]),
            ("state", "upgraded", ["pillar", "name"], True),
            ("state", "absent", ["pillar", "name"], True),
        ],
        supports_check_mode=True,
    )
    # Ansible would mask every value of the pillar wherever it occurs, names and paths too. Secrets are enough: the pillar
    # itself is not returned, and runsmith shows no secret.
    pillar = module.params["pillar"]
    module.no_log_values = secret_values(pillar)
    task = Task(module)
    try:
        task.run()
    except Trouble as trouble:
        hidden(module)
        module.fail_json(msg=trouble.message, **{**task.result, **trouble.details})
    hidden(module)
    module.exit_json(**task.result)


def hidden(module):
    """What is returned as the task's arguments has no pillar."""
    if module.params["pillar"] is not None:
        module.params["pillar"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


if __name__ == "__main__":
    main()
