# SPDX-License-Identifier: MIT OR Apache-2.0
"""The control node's part of the module `service`: takes runsmith to the host, if `ship` says so."""

from __future__ import annotations

import os
import struct

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.hashing import checksum

INSTALLED = "/usr/bin/runsmith"
# e_machine of an ELF file, and what `uname -m` calls such a host.
MACHINES = {
    3: {"i386", "i586", "i686"},
    21: {"ppc64", "ppc64le"},
    22: {"s390x"},
    40: {"armv6l", "armv7l", "armv8l"},
    62: {"x86_64"},
    183: {"aarch64"},
    243: {"riscv64"},
}


class ActionModule(ActionBase):
    """What Ansible looks for."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        arguments = dict(self._task.args)
        # Only we may say what is installed.
        arguments.pop("shipped", None)
        try:
            if arguments.get("ship"):
                arguments.update(self._ship(str(arguments["ship"]), arguments.get("executable"), task_vars))
            done = self._execute_module(
                module_name="runsmith.runsmith.service",
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return {**result, **done}

    def _ship(self, ship, executable, task_vars):
        """The arguments that say where runsmith is, after it was taken to the host if another one or none is there."""
        executable = str(executable or INSTALLED)
        local = self._local(ship, self._architecture(task_vars or {}))
        there = self._execute_remote_stat(executable, all_vars=task_vars, follow=True)
        if there.get("exists") and there.get("checksum") == checksum(local):
            return {"executable": executable}
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        tmpdir = self._connection._shell.tmpdir
        remote = self._connection._shell.join_path(tmpdir, "runsmith")
        self._transfer_file(local, remote)
        self._fixup_perms2((tmpdir, remote))
        return {"executable": executable, "shipped": remote}

    def _architecture(self, task_vars):
        known = task_vars.get("ansible_facts", {}).get("architecture")
        if known:
            return str(known)
        said = self._low_level_execute_command("uname -m")
        architecture = said["stdout"].strip()
        if said["rc"] != 0 or not architecture:
            raise AnsibleActionFail("the host does not tell its architecture: %s" % said["stderr"].strip())
        return architecture

    def _local(self, ship, architecture):
        """The file for an architecture; its own head must agree."""
        path = self._loader.path_dwim_relative_stack(self._task.get_search_path(), "files", ship)
        if os.path.isdir(path):
            path = os.path.join(path, "runsmith-%s" % architecture)
        try:
            with open(path, "rb") as file:
                head = file.read(20)
        except OSError as error:
            raise AnsibleActionFail("ship: cannot read %s: %s; the host is %s" % (path, error.strerror, architecture)) from error
        if len(head) < 20 or head[:4] != b"\x7fELF":
            raise AnsibleActionFail("ship: %s is no program" % path)
        # e_ident[EI_DATA]: 1 is little-endian.
        (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
        if machine in MACHINES and architecture not in MACHINES[machine]:
            raise AnsibleActionFail(
                "ship: %s is for %s, and the host is %s" % (path, " or ".join(sorted(MACHINES[machine])), architecture)
            )
        return path
