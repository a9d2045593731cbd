# SPDX-License-Identifier: MIT OR Apache-2.0
"""
An external pillar that adds nothing and refuses what is wrong: a minion whose pillar has a mistake gets all findings as pillar
errors, and Salt runs no state with such a pillar.

.. code-block:: yaml

    # the master's configuration; `salt-run saltutil.sync_all` first
    ext_pillar:
      - runsmith: {}              # at the key unicorn
      - runsmith:
          key: services:web
          deny: [all]             # warnings count, too
          required: 'web*'        # minions that are called so and have no such key are wrong, too

Leave ``ext_pillar_first`` off, so that the whole pillar is there when this one looks at it; put it last.
"""

import fnmatch

from salt.exceptions import CommandExecutionError

__virtualname__ = "runsmith"


def __virtual__():
    return __virtualname__


def ext_pillar(
    minion_id, pillar, key="unicorn", deny=None, warn=None, allow=None, required=None, executable=None
):
    """Nothing, or ``_errors``, which keep Salt from using the pillar."""
    # `- runsmith:` without anything gives None.
    key = str(key or "unicorn")
    found = _errors(minion_id, pillar, key, required, {"deny": deny, "warn": warn, "allow": allow, "executable": executable})
    # Salt would put these in the place of those that another one has found.
    return {"_errors": [*pillar.get("_errors", []), *(f"runsmith: {error}" for error in found)]} if found else {}


def _errors(minion_id, pillar, key, required, options):
    found = pillar
    for step in key.split(":"):
        if not isinstance(found, dict) or step not in found:
            if required and fnmatch.fnmatchcase(minion_id, "*" if required is True else str(required)):
                return [f"the pillar of {minion_id} has nothing at `{key}`"]
            return []
        found = found[step]
    for step in reversed(key.split(":")):
        found = {step: found}
    try:
        report = __salt__["runsmith.validate"](found, key=key, called=f"pillar of {minion_id}", **options)
    except CommandExecutionError as error:
        return [str(error)]
    except KeyError:
        return ["its execution module is not here: run `salt-run saltutil.sync_all` on the master"]
    # Each finding is an error of its own; the last paragraph counts them.
    return [] if report["valid"] else report["text"].split("\n\n")[:-1]
