"""For each line of standard input, a JSON object of `settings`, `words` of the command and `variable`
(GUNICORN_CMD_ARGS), prints whether gunicorn would serve so: null, or why not.

Each case is tried by gunicorn itself, in a process of its own: it reads the configuration and the options, makes its
logger, loads the worker class and the application, and listens. What it does after that with a value, for a request or in
a process that it starts, is done here by calling the same functions of gunicorn."""

import inspect
import json
import os
import sys

SCRATCH = sys.argv[1]
# gunicorn looks where it is when it is imported.
os.chdir(SCRATCH)

from gunicorn import arbiter
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.dirty.app import parse_dirty_app_spec
from gunicorn.glogging import SafeAtoms
from gunicorn.workers.base import Worker

REAL = sys.stdout
with open("wsgi.py", "w", encoding="utf-8") as module:
    module.write("def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"
                 "def make(*given, **named):\n    return app\nnone = None\n")
# As gunicorn has it before it is asked for anything.
ATOMS = {name: "x" for name in "hlutrsmUqHbfapL"} | {name: 1 for name in "BTDM"}


def attempt(case):
    with open("gunicorn.py", "w", encoding="utf-8") as config:
        # What the rendered configuration has as well.
        config.write("control_socket_disable = True\nbind = ['127.0.0.1:0']\n")
        for name, value in case.get("settings", {}).items():
            config.write(f"{name} = {value!r}\n")
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    if "variable" in case:
        os.environ["GUNICORN_CMD_ARGS"] = case["variable"]
    app = case.get("app", "wsgi:app")
    sys.argv = ["gunicorn", *case.get("words", []), "-c", f"{SCRATCH}/gunicorn.py", "--", app]
    master = arbiter.Arbiter(WSGIApplication())
    cfg = master.cfg
    master.spawn_dirty_arbiter = lambda: [parse_dirty_app_spec(spec) for spec in cfg.dirty_apps]
    master.start()
    kind = cfg.worker_class
    if not inspect.isclass(kind) or not issubclass(kind, Worker) or kind.run is Worker.run:
        raise RuntimeError(f"{kind} is no class of workers")
    if cfg.paste:
        dict(cfg.paste_global_conf)
    cfg.access_log_format % SafeAtoms(ATOMS)
    master.app.wsgi()


def verdict(case):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        reason = None
        try:
            attempt(case)
        except BaseException as problem:  # SystemExit is how gunicorn and argparse end
            reason = repr(problem)
        with os.fdopen(write, "w", encoding="utf-8") as answer:
            json.dump(reason, answer)
            answer.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    # One that says nothing has ended before it could: -v and -h, daemons.
    return json.loads(text) if text else "ended"


for line in sys.stdin:
    print(json.dumps(verdict(json.loads(line))), file=REAL, flush=True)
