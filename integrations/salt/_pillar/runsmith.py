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
          required: True          # minions without that key are wrong

Leave ``ext_pillar_first`` off, so that the whole pillar is there when this one looks at it; put it last.
"""

from salt.exceptions import CommandExecutionError

__virtualname__ = "runsmith"


def __virtual__():
    return __virtualname__


def ext_pillar(
    minion_id, pillar, key="unicorn", deny=None, warn=None, allow=None, required=False, executable=None
):
    """Nothing, or ``_errors``, which keep Salt from using the pillar."""
    found = pillar
    for step in key.split(":"):
        if not isinstance(found, dict) or step not in found:
            if required:
                return {"_errors": [f"runsmith: the pillar of {minion_id} has nothing at `{key}`"]}
            return {}
        found = found[step]
    for step in reversed(key.split(":")):
        found = {step: found}
    try:
        report = __salt__["runsmith.validate"](
            found, key=key, deny=deny, warn=warn, allow=allow, called=f"pillar of {minion_id}", executable=executable
        )
    except CommandExecutionError as error:
        return {"_errors": [f"runsmith: {error}"]}
    except KeyError:
        return {"_errors": ["runsmith: its execution module is not here: run `salt-run saltutil.sync_all` on the master"]}
    if report["valid"]:
        return {}
    # Each finding is an error of its own; the last paragraph counts them.
    return {"_errors": [f"runsmith: {finding}" for finding in report["text"].split("\n\n")[:-1]]}
