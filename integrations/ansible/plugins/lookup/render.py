# SPDX-License-Identifier: MIT OR Apache-2.0
"""Lookup `render`: the files that pillars on the control node become."""

from __future__ import annotations

DOCUMENTATION = r"""
name: render
short_description: The files that pillars on the control node become
version_added: 0.1.0
author: The authors of runsmith (@runsmith)
description:
  - Renders pillars with the C(runsmith) that is installed on the control node, and writes nothing.
  - YAML is read as Ansible reads it. Fails with every finding, at its line and column, if a pillar is wrong.
options:
  _terms:
    description: Pillars, files or directories; relative ones are looked for as C(ansible.builtin.file) does. All of them together are one host.
    required: true
  key:
    description: Where in them the applications are, as C(a:b:c); by default C(unicorn), if there is one, else all of it.
    type: str
  executable:
    description: The path of runsmith; by default it is looked for beside Python and in PATH.
    type: path
  show_secrets:
    description: Have the content of secret files, too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say which files a pillar becomes
  ansible.builtin.debug:
    msg: "{{ query('runsmith.runsmith.render', 'pillar.yaml') | map(attribute='path') }}"
"""

RETURN = r"""
_raw:
  description: Paths with C(kind), C(mode), C(owner), C(group), and C(content) or C(target); sorted by path.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.runsmith.runsmith.plugins.module_utils.runsmith import Trouble, rendered


class LookupModule(LookupBase):
    """What Ansible looks for."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        paths = []
        for term in terms:
            found = self.find_file_in_search_path(variables, "files", term, ignore_missing=True)
            if found is None:
                raise AnsibleLookupError("there is no pillar %s on the control node" % term)
            paths.append(str(found))
        try:
            options = {name: self.get_option(name) for name in ("key", "executable", "show_secrets")}
            return rendered(["--dialect", "ansible", "--", *paths], **options)
        except Trouble as trouble:
            raise AnsibleLookupError(trouble.message) from trouble
