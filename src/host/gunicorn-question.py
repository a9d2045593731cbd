# Asked by `runsmith validate --host`, as the application's user. Arguments: a mark for the line of
# the answer, and the class of the workers.
import sys

# Not from where it is started: a release may have a file called json.py.
sys.path[:] = [path for path in sys.path if path]
import json
import os

answer = {"version": "", "settings": [], "worker_class": None, "error": None}
try:
    import gunicorn
    from gunicorn import config, util

    answer["version"] = str(gunicorn.__version__)
    answer["settings"] = [setting.name for setting in config.KNOWN_SETTINGS]
except BaseException as problem:
    answer["error"] = "%s: %s" % (type(problem).__name__, problem)
else:
    # As gunicorn does before it loads anything of the application's.
    sys.path.insert(0, os.getcwd())
    try:
        util.load_class(sys.argv[2])
    except BaseException as problem:
        cause = problem
        while cause.__context__ is not None:
            cause = cause.__context__
        answer["worker_class"] = "%s: %s" % (type(cause).__name__, cause)
print("\n" + sys.argv[1] + json.dumps(answer))
