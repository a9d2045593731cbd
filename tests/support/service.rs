//! One rendered service in a scratch root, run by a real runsv.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroups::Cgroups;
use super::host::{Process, User, free_port, kill, require, run, virtualenv};
use super::load::Address;
use super::log::{Line, Log};
use super::{HANDOVER, SOON, START, STOP};

/// Which server, and with which workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Sync,
    Gthread,
    Gevent,
    Unicorn,
    /// Python's own HTTP server: a program that knows of no hand-over.
    Any,
}

/// TCP or Unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    Tcp,
    Unix,
}

/// How a release behaves when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Good,
    /// Loads something that is not there.
    Broken,
    /// Never ends to load.
    Hanging,
    /// Loads once the file `go` is there in the scratch root.
    Waiting,
}

/// Between two looks at what no line of the log tells.
const LOOK: Duration = Duration::from_millis(50);

/// Workers of each generation.
pub const WORKERS: usize = 3;

/// Where the files of a service are that sees nothing of /tmp.
const ISOLATED: &str = "/srv";

/// A service. Dropping it ends everything it started.
pub struct Service {
    pub name: String,
    pub server: Server,
    pub address: Address,
    pub log: Log,
    pub user: User,
    // Removed once the user's processes have ended.
    cgroups: Cgroups,
    pub root: PathBuf,
    pub directory: PathBuf,
    /// What `runsmith render` printed.
    pub rendered: String,
    /// Executed by runsmith's own runtime, not by a shell.
    pub native: bool,
    /// The processes of one generation.
    pub processes: usize,
    runsv: Option<Child>,
    scratch: tempfile::TempDir,
}

impl Service {
    /// Renders a service with release 1 in place; nothing runs yet. `more` are further lines of the pillar.
    pub fn render(server: Server, socket: Socket, more: &str) -> Self {
        Self::render_with_log(server, socket, &format!("log: {{kind: none}}\n{more}"))
    }

    /// The same with a log service, so that `log` stays empty.
    pub fn render_with_log(server: Server, socket: Socket, more: &str) -> Self {
        Self::render_as(false, server, socket, more)
    }

    /// The same, and its release 1 does this first, in each worker: `MARK` is a path that its user can write, and that is given
    /// back; `NAME` is its name.
    pub fn native_with(server: Server, socket: Socket, more: &str, python: &str) -> (Self, String) {
        let service = Self::native(server, socket, more);
        let mark = service.root.join("shared/logs/mark").display().to_string();
        service.release_with(1, &python.replace("MARK", &mark).replace("NAME", &service.name), "");
        (service, mark)
    }

    /// Renders a service that runsmith's own runtime executes; nothing runs yet.
    pub fn native(server: Server, socket: Socket, more: &str) -> Self {
        Self::render_as(true, server, socket, &format!("log: {{kind: none}}\n{more}"))
    }

    /// The same with a log service.
    pub fn native_with_log(server: Server, socket: Socket, more: &str) -> Self {
        Self::render_as(true, server, socket, more)
    }

    fn render_as(native: bool, server: Server, socket: Socket, more: &str) -> Self {
        for program in ["runsv", "sv", "svlogd", "chpst", "prlimit", "flock"] {
            require(program, &find(program));
        }
        let venv = virtualenv("gunicorn");
        match server {
            Server::Unicorn => require("unicorn", &find("unicorn")),
            Server::Any => require("python3", &find("python3")),
            _ => require("gunicorn's virtualenv", &venv.join("bin/gunicorn")),
        }
        let user = User::new();
        // What is isolated sees nothing of /tmp.
        let base = if more.contains("private_tmp") { ISOLATED.into() } else { std::env::temp_dir() };
        let scratch = tempfile::Builder::new().prefix("rst").tempdir_in(base).expect("a scratch directory");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = scratch.path().join("root");
        let address = match socket {
            Socket::Tcp => Address::Tcp(free_port()),
            Socket::Unix => Address::Unix(format!("{}/shared/sockets/web.sock", root.display())),
        };
        let name = user.name.clone();
        let directory = scratch.path().join("sv").join(&name);
        let log = Log::default();
        let rendered = String::new();
        let mut service = Self {
            cgroups: Cgroups(name.clone()),
            name,
            server,
            address,
            log,
            user,
            root,
            directory,
            rendered,
            native,
            processes: WORKERS + 1,
            runsv: None,
            scratch,
        };
        service.rendered = service.write_pillar(more);
        service.release(1, Release::Good);
        service.switch(1);
        service
    }

    /// Writes a changed pillar and renders it again; `more` are further lines of it. What runs is not told.
    pub fn render_again(&mut self, more: &str) {
        self.rendered = self.write_pillar(&format!("log: {{kind: none}}\n{more}"));
    }

    /// Renders and starts a service that runsmith's own runtime executes; returns once it is ready.
    pub fn start_native(server: Server, socket: Socket, more: &str) -> Self {
        Self::native(server, socket, more).started()
    }

    /// Writes a changed pillar that somebody else is to render; `more` are further lines of it.
    pub fn change_pillar(&self, more: &str) {
        let pillar = self.pillar_with(&format!("log: {{kind: none}}\n{more}"));
        fs::write(self.scratch.path().join("pillar.yaml"), pillar).expect("the pillar");
    }

    /// The runtime, once runsv has recorded it.
    pub fn runtime(&self) -> u32 {
        super::runsv::running(&self.directory)
    }

    /// The one who reads the log, once runsv has recorded it.
    pub fn svlogd(&self) -> u32 {
        super::runsv::running(&self.directory.join("log"))
    }

    /// The keeper; none once it has ended.
    pub fn keeper(&self) -> Option<u32> {
        self.keepers().into_iter().next()
    }

    /// Every keeper of this service that lives: one, once all has settled.
    pub fn keepers(&self) -> Vec<u32> {
        let keepers = super::host::commands()
            .into_iter()
            .filter_map(|(pid, command)| (command == ["runsmith", "keep", &self.name]).then_some(pid));
        keepers.filter(|pid| super::host::lives(*pid)).collect()
    }

    /// `runsmith ARGUMENTS… DIRECTORY`.
    pub fn runsmith(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_runsmith"))
            .args(arguments)
            .arg(&self.directory)
            .output()
            .expect("runsmith")
    }

    /// Renders and starts; returns once the service is ready.
    pub fn start(server: Server, socket: Socket, more: &str) -> Self {
        Self::render(server, socket, more).started()
    }

    /// Starts runsv; returns once the service is ready.
    pub fn started(mut self) -> Self {
        self.supervise();
        // The runtime says so of the first generation, too; whoever waits for the next one is not to take it for that.
        let settled = if self.native { "runsmith: done:" } else { "runsmith: ready:" };
        self.log.wait(0, &[settled], START);
        self
    }

    /// Changes the pillar and renders it again. What runs is not told.
    pub fn rewrite(&mut self, change: impl FnOnce(String) -> String) {
        let pillar = change(self.pillar());
        self.rendered = self.render_text(&pillar);
    }

    /// Renders it as a service of another program: `server: any` with this command.
    pub fn runs(&mut self, command: &str) {
        self.rewrite(|pillar| {
            let line = pillar.lines().find(|line| line.starts_with("unicorn_command"));
            let line = line.expect("a command").to_owned();
            pillar.replace(&line, &format!("server: any\nunicorn_command: {command}"))
        });
    }

    /// Changes the run script as it lies there, whole or not at all.
    pub fn edit_run(&self, change: impl FnOnce(String) -> String) {
        let file = self.directory.join("run");
        let text = change(fs::read_to_string(&file).expect("run"));
        let new = self.directory.join("run.new");
        fs::write(&new, text).expect("run.new");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::rename(new, file).expect("run");
    }

    /// A directory that only this service has, and that goes with it.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The pillar as it was given.
    pub fn pillar(&self) -> String {
        fs::read_to_string(self.scratch.path().join("pillar.yaml")).expect("the pillar")
    }

    /// Writes the pillar and renders it; gives what was printed.
    fn write_pillar(&self, more: &str) -> String {
        self.render_text(&self.pillar_with(more))
    }

    fn pillar_with(&self, more: &str) -> String {
        let scratch = self.scratch.path().display();
        let bind = match &self.address {
            Address::Tcp(port) => format!("127.0.0.1:{port}"),
            Address::Unix(path) => format!("unix:{path}"),
        };
        let mut pillar = String::new();
        let _ = write!(
            pillar,
            "application: {name}\nuser: {name}\ngroup: {name}\nhome: {home}\nroot: {root}\nbind: \"{bind}\"\n\
             run_script: {kind}\nlayout: {{run: {scratch}/run}}\n\
             service: {{directory: {scratch}/sv, link: {scratch}/service, enabled: false, runtime: {runtime}}}\n",
            kind = if self.native { "native" } else { "shell" },
            runtime = env!("CARGO_BIN_EXE_runsmith"),
            name = self.name,
            root = self.root.display(),
            // Only below /tmp nothing else that is the user's home may hold what root runs.
            home = if self.scratch.path().starts_with(ISOLATED) {
                self.root.display().to_string()
            } else {
                scratch.to_string()
            },
        );
        let _ = match self.server {
            Server::Unicorn => write!(
                pillar,
                "unicorn_command: {}\nunicorn: {{worker_processes: {WORKERS}}}\n",
                find("unicorn").display()
            ),
            Server::Any => writeln!(
                pillar,
                "unicorn_command: [/usr/bin/python3, -m, http.server, --bind, 127.0.0.1, \"{}\"]",
                bind.rsplit(':').next().unwrap_or_default()
            ),
            _ => write!(
                pillar,
                "unicorn_command: gunicorn\nvirtualenv: {}\ngunicorn: {{workers: {WORKERS}, {}}}\n",
                virtualenv("gunicorn").display(),
                match self.server {
                    Server::Sync => "worker_class: sync",
                    Server::Gthread => "worker_class: gthread, threads: 4",
                    Server::Gevent | Server::Unicorn | Server::Any => "worker_class: gevent",
                }
            ),
        };
        pillar.push_str(more);
        pillar
    }

    fn render_text(&self, pillar: &str) -> String {
        let path = self.scratch.path().join("pillar.yaml");
        fs::write(&path, pillar).expect("the pillar");
        run(env!("CARGO_BIN_EXE_runsmith"), &["render", path.to_str().expect("UTF-8"), "--out", "/"])
    }

    /// Starts runsv; its output, which is that of the run script and the server, becomes the log.
    pub fn supervise(&mut self) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        self.supervise_by(Command::new("runsv"), writer);
        self.log = Log::follow(reader);
    }

    /// Starts runsv by a command that becomes it; `writer` is where all output goes.
    pub fn supervise_by(&mut self, mut runsv: Command, writer: std::io::PipeWriter) {
        let child = runsv
            .arg(&self.directory)
            // A Ctrl-C at the terminal is for the test, which then ends what it started.
            .process_group(0)
            .stdout(writer.try_clone().expect("a descriptor"))
            .stderr(writer)
            .spawn()
            .expect("runsv is missing; run scripts/setup");
        self.runsv = Some(child);
        super::runsv::until_supervised(&self.directory);
    }

    /// kill -9 of runsv.
    pub fn kill_runsv(&mut self) {
        let mut runsv = self.runsv.take().expect("runsv runs");
        runsv.kill().expect("kill");
        runsv.wait().expect("wait");
    }

    /// As if the machine had been started anew: everything of the service is killed, what does not outlive that is gone, and
    /// runsv begins.
    pub fn reboot(&mut self) {
        let mut victims = vec![self.runtime()];
        victims.extend(self.keeper());
        self.kill_runsv();
        for victim in victims {
            kill(victim, Signal::KILL);
        }
        // A worker that was just forked is seen at the second look.
        while !self.user.processes().is_empty() {
            for process in self.user.processes() {
                kill(process.pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
        let _ = fs::remove_dir_all(self.run_directory());
        self.supervise();
    }

    /// Makes a release that is more than a number: its `wsgi.py` and `config.ru` are the good ones with this before them.
    pub fn release_with(&self, number: u32, python: &str, ruby: &str) {
        self.release(number, Release::Good);
        let directory = self.root.join(format!("releases/{number}"));
        for (file, first) in [("wsgi.py", python), ("config.ru", ruby)] {
            let path = directory.join(file);
            let text = fs::read_to_string(&path).expect("a release");
            fs::write(path, format!("{first}\n{text}")).expect("a release");
        }
    }

    /// Makes a release; its answers begin with its number.
    pub fn release(&self, number: u32, kind: Release) {
        let directory = self.root.join(format!("releases/{number}"));
        fs::create_dir_all(&directory).expect("a release");
        let (go, held) = (self.scratch.path().join("go"), self.scratch.path().join("held"));
        let (python, ruby) = match kind {
            Release::Good => (String::new(), String::new()),
            Release::Broken => {
                ("import there_is_no_such_module".into(), "require 'there_is_no_such_library'".into())
            }
            Release::Hanging => ("import threading; threading.Event().wait()".into(), "sleep".into()),
            Release::Waiting => (
                format!("import os\nwhile not os.path.exists({go:?}): time.sleep(0.02)"),
                format!("sleep 0.02 until File.exist?({go:?})"),
            ),
        };
        let wsgi = format!(
            "import os, time\n{python}\n\ndef app(environ, start_response):\n\
             \x20   while environ['PATH_INFO'] == '/held' and os.path.exists({held:?}): time.sleep(0.02)\n\
             \x20   time.sleep(3 if environ['PATH_INFO'] == '/slow' else 0)\n\
             \x20   body = b'{number} %d' % os.getpid()\n\
             \x20   start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])\n\
             \x20   return [body]\n"
        );
        fs::write(directory.join("wsgi.py"), wsgi).expect("wsgi.py");
        let rack = format!(
            "{ruby}\nrun lambda {{ |env|\n\
             \x20 sleep 0.02 while env['PATH_INFO'] == '/held' && File.exist?({held:?})\n\
             \x20 sleep 3 if env['PATH_INFO'] == '/slow'\n  body = \"{number} #{{$$}}\"\n\
             \x20 [200, {{'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s}}, [body]]\n}}\n"
        );
        fs::write(directory.join("config.ru"), rack).expect("config.ru");
        fs::write(directory.join("index.html"), format!("{number} 0")).expect("index.html");
    }

    /// Points `current` to a release, as deploy tools do: by a rename.
    pub fn switch(&self, number: u32) {
        let new = self.root.join("current.new");
        symlink(format!("releases/{number}"), &new).expect("a link");
        fs::rename(new, self.root.join("current")).expect("current");
    }

    /// From now on requests for `/held` are not answered.
    pub fn hold(&self) {
        fs::write(self.scratch.path().join("held"), "").expect("held");
    }

    /// Answers the requests for `/held`.
    pub fn let_go(&self) {
        fs::remove_file(self.scratch.path().join("held")).expect("held");
    }

    /// Lets a `Release::Waiting` load.
    pub fn go(&self) {
        fs::write(self.scratch.path().join("go"), "").expect("go");
    }

    /// `sv COMMAND`, waiting for at most three minutes.
    pub fn sv(&self, command: &str) -> Output {
        super::runsv::sv(&self.directory, command, 180)
    }

    /// What `sv check` would be told now.
    pub fn checks(&self) -> bool {
        Command::new("./check").current_dir(&self.directory).output().expect("check").status.success()
    }

    /// A new release by `sv 2`; the line that says how it ended.
    pub fn deploy(&self, number: u32, kind: Release) -> Line {
        let mark = self.begin_deploy(number, kind);
        self.log.wait(mark, &["runsmith: done:", "runsmith: hand-over FAILED"], HANDOVER)
    }

    /// `runsmith upgrade`, not waited for.
    pub fn begin_upgrade(&self) -> Child {
        // Who runs the tests in the background has them ignore INT, and what they start.
        Command::new("env")
            .args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_runsmith"), "upgrade"])
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runsmith")
    }

    /// As `deploy`, but returns at once: the place in the log from which on the outcome will be.
    pub fn begin_deploy(&self, number: u32, kind: Release) -> usize {
        self.release(number, kind);
        self.switch(number);
        let mark = self.log.mark();
        self.sv("2");
        mark
    }

    /// The one master. A process that the run script has asked something as the service's user may be there for a moment.
    pub fn master(&self) -> u32 {
        let until = Instant::now() + SOON;
        loop {
            let masters = self.user.masters();
            if let [master] = masters[..] {
                return master;
            }
            assert!(
                Instant::now() < until,
                "one master is expected, not {masters:?}, of {:#?}; the log:\n{}",
                self.user.processes(),
                self.log.text(0)
            );
            self.log.next(LOOK);
        }
    }

    /// Which version answers now.
    pub fn version(&self) -> String {
        let body = self
            .address
            .get("/")
            .unwrap_or_else(|error| panic!("no answer: {error}; the log:\n{}", self.log.text(0)));
        body.split(' ').next().unwrap_or_default().to_owned()
    }

    /// What the run script does: its signals, its children and what it has written down. For the message of a failure.
    fn run_script_now(&self) -> String {
        let read = |path: String| fs::read_to_string(&path).unwrap_or_default();
        let supervise = self.directory.join("supervise");
        let pid = read(supervise.join("pid").display().to_string());
        let pid = pid.trim();
        let status = read(format!("/proc/{pid}/status"));
        let lines = status.lines().filter(|line| {
            ["Name", "State", "PPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        let children = Command::new("ps").args(["-o", "pid,stat,etimes,args", "--ppid", pid]).output();
        let children = children.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        format!(
            "{}\nwaits in {}\n{}{}",
            lines.collect::<Vec<_>>().join("\n"),
            read(format!("/proc/{pid}/wchan")),
            children.unwrap_or_default(),
            read(format!("/run/runsmith/{}/state", self.name))
        )
    }

    /// Waits until the service answers with a version.
    pub fn wait_for_version(&self, version: &str, limit: Duration) {
        let until = Instant::now() + limit;
        // A refused connection says nothing about when to ask again, so there is nothing to wait on.
        while self.address.get("/").ok().is_none_or(|body| !body.starts_with(&format!("{version} "))) {
            assert!(
                Instant::now() < until,
                "version {version} does not answer; the run script:\n{}the log:\n{}",
                self.run_script_now(),
                self.log.text(0)
            );
            std::thread::yield_now();
        }
    }

    /// The inode of the Unix socket.
    pub fn inode(&self) -> Option<u64> {
        match &self.address {
            Address::Unix(path) => Some(fs::metadata(path).expect("the socket").ino()),
            Address::Tcp(_) => None,
        }
    }

    /// The server's PID file.
    pub fn pid_file(&self) -> PathBuf {
        let name = if self.server == Server::Unicorn { "unicorn.pid" } else { "gunicorn.pid" };
        self.root.join("shared/pids").join(name)
    }

    /// The file that exists only while there are two masters.
    pub fn extra_pid_file(&self) -> PathBuf {
        let suffix = if self.server == Server::Unicorn { "oldbin" } else { "2" };
        PathBuf::from(format!("{}.{suffix}", self.pid_file().display()))
    }

    /// `sv down`, and then: no process of the user, no PID file, no socket, no record.
    pub fn down(&self) {
        let mark = self.log.mark();
        self.sv("down");
        self.log.wait(mark, &["nothing is left"], STOP);
        self.assert_nothing_left();
    }

    /// `sv down` that returns at once.
    pub fn begin_down(&self) {
        self.begin("down");
    }

    /// `sv COMMAND` that returns at once.
    pub fn begin(&self, command: &str) {
        let mut sv = Command::new("sv");
        let _ = sv.args(["-w", "0", command]).arg(&self.directory).output().expect("sv");
    }

    /// Where the run script keeps its record.
    pub fn run_directory(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// What `sv down` promises.
    pub fn assert_nothing_left(&self) {
        let processes = self.user.processes();
        assert!(processes.is_empty(), "left behind: {processes:?}; the log:\n{}", self.log.text(0));
        let cgroups = self.cgroups.all();
        assert!(cgroups.is_empty(), "left behind: {cgroups:?}; the log:\n{}", self.log.text(0));
        for directory in
            [self.root.join("shared/pids"), self.root.join("shared/sockets"), self.scratch.path().join("run")]
        {
            let left: Vec<_> =
                fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}; the log:\n{}", self.log.text(0));
        }
    }

    /// Exactly one master with all its workers, and nothing else of the user's.
    pub fn assert_one_generation(&self) {
        let master = self.master();
        let processes = self.user.processes();
        assert!(
            processes.len() == self.processes
                && processes.iter().all(|one| one.pid == master || one.parent == master),
            "one generation is expected, not {processes:?}; the log:\n{}",
            self.log.text(0)
        );
    }

    /// A process that is not the service's, with its number in a PID file. `owner`: as whom it runs.
    pub fn foreign(&self, owner: Option<&User>, pid_file: &Path) -> Foreign {
        let mut command = match owner {
            None => Command::new("sleep"),
            Some(user) => {
                let mut command = Command::new("chpst");
                command.args(["-u", &user.name, "sleep"]);
                command
            }
        };
        let child = command.arg("600").spawn().expect("sleep");
        fs::write(pid_file, format!("{}\n", child.id())).expect("a PID file");
        Foreign(child)
    }
}

/// A process that must survive whatever the service does.
pub struct Foreign(Child);

impl Foreign {
    pub fn assert_untouched(&mut self) {
        assert!(self.0.try_wait().expect("wait").is_none(), "a process that is not the service's was ended");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut runsv) = self.runsv.take() {
            let _ = runsv.kill();
            let _ = runsv.wait();
        }
        // A run that goes on would start the server again once the user's processes have ended with the user. runsv may have begun one
        // just now, so `supervise/pid` does not tell.
        let is_run = |one: &Process| {
            fs::read_link(format!("/proc/{}/cwd", one.pid)).is_ok_and(|place| place == self.directory)
        };
        while let Some(run) = Process::all().into_iter().find(|one| one.lives() && is_run(one)) {
            kill(run.pid, Signal::KILL);
            std::thread::sleep(Duration::from_millis(10));
        }
        for keeper in self.keepers() {
            kill(keeper, Signal::KILL);
        }
        super::host::forget(&self.name);
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}", self.name, self.log.text(0));
        }
    }
}

/// Where a program is, in PATH or where Debian has those of root.
fn find(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| Path::new("/usr/bin").join(program))
}
