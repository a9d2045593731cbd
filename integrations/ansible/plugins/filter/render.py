# SPDX-License-Identifier: MIT OR Apache-2.0
"""Filter `render`: the files that a pillar becomes."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.runsmith.runsmith.plugins.module_utils.runsmith import Trouble, rendered, text_of


def render(pillar, key=None, executable=None, show_secrets=False):
    """A list of paths with kind, mode, owner, group, and content or target."""
    try:
        arguments = ["-", "--input-format", "json"]
        return rendered(arguments, executable, key, show_secrets, data=text_of(pillar))
    except Trouble as trouble:
        raise AnsibleFilterError(trouble.message) from trouble


class FilterModule:
    """What Ansible looks for."""

    def filters(self):
        return {"render": render}
