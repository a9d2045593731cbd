
# From here on: how the run script learns what happens in here.
import os
import socket
import stat
import time


def _tell(line):
    """Sends a line to the run script, which checks what it says. Waits for a moment where many workers speak at once."""
    path = os.environ.get("RUNSMITH_READY")
    if not path:
        return
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode):
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, line)
        finally:
            os.close(fifo)
    elif stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
            datagram.settimeout(5)
            datagram.connect(path)
            datagram.send(line)


class _Master(int):
    """The master's process id, which a worker compares with its parent's to see whether it still has a master. One that was
    killed is replaced by the runtime, which stops the workers it left once others serve. Until then they go on serving."""

    unwatched_since = None

    def __ne__(self, parent):
        if int(self) == parent:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
                datagram.settimeout(5)
                datagram.connect(os.environ.get("RUNSMITH_READY", ""))
            self.unwatched_since = None
        except OSError:
            # A runtime that was killed, too, is started again within seconds.
            self.unwatched_since = self.unwatched_since or time.monotonic()
        return self.unwatched_since is not None and time.monotonic() - self.unwatched_since > 15


def post_fork(server, worker):
    """In the new worker, before it loads anything."""
    worker.ppid = _Master(worker.ppid)


def child_exit(server, worker):
    """In the master: a worker has exited."""
    try:
        path = os.environ.get("RUNSMITH_READY")
        if path and stat.S_ISSOCK(os.stat(path).st_mode):
            _tell(b"gone %d %d\n" % (os.getpid(), worker.pid))
    except Exception as problem:
        server.log.debug("the runtime does not know that worker %s has exited: %s", worker.pid, problem)


def post_worker_init(worker):
    """This worker has loaded the application."""
    try:
        _tell(b"ready %d %d %d\n" % (os.getppid(), os.getpid(), worker.cfg.workers))
    except Exception as problem:
        worker.log.warning("the run script does not know that worker %s is ready: %s", os.getpid(), problem)
{% if not inherits_sockets %}


def on_starting(server):
    """A release may be switched while gunicorn starts; it must not remember the old one's directory."""
    server.START_CTX["cwd"] = {{ paths.current }}


def pre_exec(server):
    """In the process that is about to become the new master. Were the directory or the interpreter gone,
    gunicorn would make it stop the old master's workers and remove the socket."""
    try:
        os.chdir(server.START_CTX["cwd"])
        if not os.access(server.START_CTX[0], os.X_OK):
            raise FileNotFoundError(server.START_CTX[0])
    except OSError as problem:
        server.log.error("no new master: %s", problem)
        os._exit(1)
    try:
        _tell(b"successor %d %d\n" % (os.getppid(), os.getpid()))
    except Exception as problem:
        server.log.warning("the run script does not know of the new master: %s", problem)
{% endif %}
