"""For each line of standard input, a JSON list of words as a run script executes gunicorn with, prints a JSON
object: what the configuration file says, what gunicorn keeps of it, and what its command line means to it."""

import json
import os
import sys
import types

from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.config import Config

# gunicorn warns of patterns without files and of a setting that it ignores.
sys.stderr = open(os.devnull, "w", encoding="utf-8")


def read(words):
    cfg = Config()
    arguments = cfg.parser().parse_args(words)
    application = Application.__new__(Application)
    application.cfg = cfg
    said = application.get_config_from_filename(arguments.config)
    said = {name: value for name, value in said.items() if name in cfg.settings}
    kept = {}
    # As gunicorn's load_config_from_module_name_or_filename does, but a value that gunicorn refuses
    # does not hide the others.
    for name, value in said.items():
        try:
            cfg.set(name, value)
            kept[name] = cfg.settings[name].get()
        except Exception as problem:
            kept[name] = {"refused": str(problem)}
    server = types.SimpleNamespace(START_CTX={})
    if "on_starting" in said:
        said["on_starting"](server)

    def plain(values):
        return {name: value for name, value in values.items() if not callable(value)}

    return {
        "config": arguments.config,
        "app": arguments.args,
        "said": plain(said),
        "kept": plain(kept),
        "addresses": [util.parse_address(bind) for bind in said["bind"]],
        "current": server.START_CTX.get("cwd"),
    }


for line in sys.stdin:
    try:
        answer = read(json.loads(line))
    except (Exception, SystemExit) as problem:
        answer = {"problem": repr(problem)}
    print(json.dumps(answer), flush=True)
