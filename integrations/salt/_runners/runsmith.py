# SPDX-License-Identifier: MIT OR Apache-2.0
"""
What is wrong with the pillars of all minions, before a highstate: compiled and validated on the master, whether minions are up or
not. And the batches of a rolling deploy.
"""

import salt.loader
import salt.pillar
import salt.utils.minions
from salt.exceptions import CommandExecutionError

__virtualname__ = "runsmith"


def __virtual__():
    return __virtualname__


def validate(
    tgt="*", tgt_type="glob", key="unicorn", deny=None, warn=None, allow=None, saltenv="base", executable=None
):
    """
    Every finding in the pillars of the minions that are meant. Ends with 1 if there is an error, and if there is no such minion.

    tgt, tgt_type
        As with ``salt``.
    key
        Where in their pillars the applications are; a minion that has nothing there is told of and not wrong.
    deny, warn, allow
        Rules whose findings are errors, warnings, or not told.

    .. code-block:: bash

        salt-run runsmith.validate
        salt-run runsmith.validate 'web*' deny=all
    """
    key = str(key)
    minions = salt.utils.minions.CkMinions(__opts__).check_minions(tgt, tgt_type)["minions"]
    if not minions:
        return _ended({"runsmith": f"no minion is meant by {tgt}"}, False)
    functions = salt.loader.minion_mods(__opts__, context={})
    if "runsmith.validate" not in functions:
        return _ended({"runsmith": "its execution module is not here: run `salt-run saltutil.sync_all`"}, False)
    told, good = {}, True
    for minion in sorted(minions):
        valid, told[minion] = _of(minion, functions, key, (deny, warn, allow), saltenv, executable)
        good = good and valid
    return _ended(told, good)


def batches(tgt="*", tgt_type="glob", size=1):
    """
    The minions that are meant, in the order of their names, in lists of ``size``, for an orchestration that goes through them. Those
    that are down are among them, so that a deploy ends there and does not leave them out in silence.

    .. code-block:: bash

        salt-run runsmith.batches 'web*' size=2
    """
    minions = sorted(salt.utils.minions.CkMinions(__opts__).check_minions(tgt, tgt_type)["minions"])
    size = max(int(size), 1)
    return [minions[first : first + size] for first in range(0, len(minions), size)]


def _of(minion, functions, key, judged, saltenv, executable):
    """Whether a minion's pillar is valid, and what there is to say."""
    _, grains, _ = salt.utils.minions.get_minion_data(minion, __opts__)
    if not grains:
        return False, "its grains are not known here, so its pillar cannot be compiled: `salt MINION saltutil.refresh_grains`"
    pillar = salt.pillar.Pillar(__opts__, grains, minion, saltenv).compile_pillar()
    if pillar.get("_errors"):
        return False, "\n".join(str(error) for error in pillar["_errors"])
    found = pillar
    for step in key.split(":"):
        if not isinstance(found, dict) or step not in found:
            return True, f"nothing at `{key}`"
        found = found[step]
    for step in reversed(key.split(":")):
        found = {step: found}
    deny, warn, allow = judged
    try:
        report = functions["runsmith.validate"](
            found, key=key, deny=deny, warn=warn, allow=allow, called=f"pillar of {minion}", executable=executable
        )
    except CommandExecutionError as error:
        return False, str(error)
    return report["valid"], report["text"] or "no findings"


def _ended(told, good):
    """What is printed; `retcode` becomes the exit code of salt-run."""
    if good:
        return told
    __context__["retcode"] = 1
    return {**told, "retcode": 1}
