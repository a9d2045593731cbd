//! The application: it writes each request into a ledger before it answers, and every answer says which code made it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use super::support::service::{Server, Service};

/// How a release behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// Raises an exception when it is loaded.
    Raises,
    /// Exits when it is loaded.
    Exits,
    /// Never ends to load.
    Hangs,
    /// Each worker dies by a signal before it is ready.
    Killed,
    /// Its master dies soon after it has taken over, within `restart.min_uptime`.
    Late,
    /// Its health check fails.
    Sick,
}

impl Kind {
    /// All that are broken: name and what it is.
    pub(crate) const BROKEN: [(Kind, &'static str); 6] = [
        (Kind::Raises, "raises an exception on import"),
        (Kind::Exits, "exits on import"),
        (Kind::Hangs, "hangs on import"),
        (Kind::Killed, "its workers die by a signal"),
        (Kind::Late, "fails late, within `restart.min_uptime`"),
        (Kind::Sick, "its health check fails"),
    ];
}

/// Bytes of a large answer: more than a socket's buffer takes at once.
pub(crate) const LARGE: usize = 600_000;

/// Seconds that a release takes to load, so that there is a time in which it loads.
const LOADS: &str = "0.3";

/// After so many seconds a release that fails late does so.
const LATE: &str = "1.5";

const PYTHON: &str = r#"
import importlib.machinery, importlib.util, os, signal, sys, threading, time
BREAK
if os.environ.get("CHAOS_BREAK"): raise RuntimeError("this value breaks the application")
time.sleep(LOADS)
CODE, VALUE = NUMBER, os.environ.get("CHAOS_VALUE", "0")
import early
LEDGER = os.open("LEDGER_FILE", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/health":
        start_response(HEALTH, [("Content-Length", "0")])
        return [b""]
    kind, tag = path[1:].split("/")
    if kind == "late":
        # As a module that is imported on its first use. Other threads import it as well, so sys.modules stays as it is.
        importlib.machinery.PathFinder.invalidate_caches()
        spec = importlib.machinery.PathFinder.find_spec("late")
        late = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(late)
    else:
        import late
    facts = "%s %d %d %d %s %d" % (tag, CODE, early.RELEASE, late.RELEASE, VALUE, os.getpid())
    os.write(LEDGER, (facts + "\n").encode())
    if kind == "slow":
        time.sleep(0.4)
    if kind == "say":
        print("said " + tag, file=sys.stderr, flush=True)
    body = facts + "\n"
    if kind == "large":
        body += (tag * (LARGE // len(tag) + 1))[:LARGE]
    body = body.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

const RUBY: &str = r##"
BREAK
raise "this value breaks the application" if ENV["CHAOS_BREAK"]
sleep LOADS
release, value = NUMBER, ENV.fetch("CHAOS_VALUE", "0")
here = File.realpath(Dir.pwd)
load File.join(here, "early.rb")
ledger = IO.sysopen("LEDGER_FILE", IO::WRONLY | IO::APPEND)
ledger = IO.new(ledger, "a")
ledger.sync = true
loaded = false
run(lambda { |env|
  path = env["PATH_INFO"]
  if path == "/health"
    next [200, {"content-length" => "0"}, []]
  end
  kind, tag = path[1..].split("/")
  # By the directory the worker is in.
  load "./late.rb" if kind == "late" || !loaded
  loaded = true
  facts = "#{tag} #{release} #{$early} #{$late} #{value} #{$$}"
  ledger.syswrite(facts + "\n")
  sleep 0.4 if kind == "slow"
  $stderr.syswrite("said #{tag}\n") if kind == "say"
  body = facts + "\n"
  body << (tag * (LARGE / tag.bytesize + 1))[0, LARGE] if kind == "large"
  [200, {"content-type" => "text/plain", "content-length" => body.bytesize.to_s}, [body]]
})
"##;

/// Where the application of a service writes what it was asked.
pub(crate) fn ledger(service: &Service) -> PathBuf {
    service.scratch().join("ledger")
}

/// Makes the ledger.
pub(crate) fn open_ledger(service: &Service) {
    fs::write(ledger(service), "").expect("the ledger");
    chown(ledger(service), Some(service.user.uid), None).expect("the ledger's owner");
}

/// Makes a release. `preloads`: the master loads the application, and its workers are forked from it.
pub(crate) fn release(service: &Service, number: u32, kind: Kind, preloads: bool) {
    let directory = service.root.join(format!("releases/{number}"));
    fs::create_dir_all(&directory).expect("a release");
    let is_ruby = service.server == Server::Unicorn;
    let (text, name, broken) = if is_ruby {
        (RUBY, "config.ru", broken_ruby(kind, preloads))
    } else {
        (PYTHON, "wsgi.py", broken_python(kind, preloads))
    };
    let health = if kind == Kind::Sick { "\"500 Sick\"" } else { "\"200 OK\"" };
    let text = text
        .replace("BREAK\n", &format!("{broken}\n"))
        .replace("LEDGER_FILE", ledger(service).to_str().expect("UTF-8"))
        .replace("HEALTH", health)
        .replace("LOADS", LOADS)
        .replace("NUMBER", &number.to_string())
        .replace("LARGE", &LARGE.to_string());
    fs::write(directory.join(name), text).expect("an application");
    for module in ["early", "late"] {
        let (file, text) = if is_ruby {
            (format!("{module}.rb"), format!("${module} = {number}\n"))
        } else {
            (format!("{module}.py"), format!("RELEASE = {number}\n"))
        };
        fs::write(directory.join(file), text).expect("a module");
    }
}

fn broken_python(kind: Kind, preloads: bool) -> String {
    match kind {
        Kind::Good | Kind::Sick => String::new(),
        Kind::Raises => "raise RuntimeError('this release is broken')".to_owned(),
        Kind::Exits => "os._exit(3)".to_owned(),
        Kind::Hangs => "threading.Event().wait()".to_owned(),
        Kind::Killed if preloads => {
            "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGKILL))".to_owned()
        }
        Kind::Killed => "os.kill(os.getpid(), signal.SIGKILL)".to_owned(),
        Kind::Late => {
            let master = if preloads { "os.getpid()" } else { "os.getppid()" };
            format!("threading.Timer({LATE}, lambda pid={master}: os.kill(pid, signal.SIGKILL)).start()")
        }
    }
}

fn broken_ruby(kind: Kind, preloads: bool) -> String {
    match kind {
        Kind::Good | Kind::Sick => String::new(),
        Kind::Raises => "raise 'this release is broken'".to_owned(),
        Kind::Exits => "exit!(3)".to_owned(),
        Kind::Hangs => "sleep".to_owned(),
        Kind::Killed if preloads => "Process.singleton_class.prepend(Module.new { def _fork; pid = super; \
                                     Process.kill(:KILL, Process.pid) if pid == 0; pid; end })"
            .to_owned(),
        Kind::Killed => "Process.kill(:KILL, Process.pid)".to_owned(),
        Kind::Late => {
            let master = if preloads { "Process.pid" } else { "Process.ppid" };
            format!("Thread.new({master}) {{ |pid| sleep {LATE}; Process.kill(:KILL, pid) }}")
        }
    }
}
