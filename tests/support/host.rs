//! Users, ports, processes, programs.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Fails the test by the name of what is missing.
pub fn require(what: &str, path: &Path) {
    assert!(path.exists(), "{what} is missing: there is no {}; run scripts/setup", path.display());
}

/// A virtualenv made by scripts/setup.
pub fn virtualenv(name: &str) -> PathBuf {
    let all =
        std::env::var_os("RUNSMITH_VENVS").map_or_else(|| "/var/lib/runsmith-test".into(), PathBuf::from);
    all.join(name)
}

/// Runs a command to its end and gives its output; a failure is the test's.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} could not be run ({error}); run scripts/setup"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// `run --check` finds nothing wrong with a run script; the host need not know its user.
pub fn proves(program: &str, script: &Path) {
    let output = Command::new(program).args(["run", "--check", "--"]).arg(script).output().expect("runsmith");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_unknown = output.status.code() == Some(1)
        && said.lines().all(|line| line.contains("there is no such user on this host"));
    assert!(output.status.success() || (is_unknown && !said.is_empty()), "{}: {said}", script.display());
}

/// A user that exists as long as this value. Its processes are ended with it.
pub struct User {
    pub name: String,
    pub uid: u32,
}

static USERS: AtomicU32 = AtomicU32::new(0);

impl User {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make users and run runsv: they need root");
        let name = format!("rst{}x{}", std::process::id(), USERS.fetch_add(1, Ordering::Relaxed));
        // The tools give up if another one holds the password file, so they are called one at a time. A number is not used again soon:
        // what is left of another user's processes would count as this one's.
        let script = r#"
            for try in 1 2 3 4 5 6 7 8 9 10; do
              number=$(cat "$1.number" 2>/dev/null)
              number=$(((${number:-0} + 1) % 39000))
              echo $number > "$1.number"
              useradd --uid $((20000 + number)) --user-group --no-create-home --shell /usr/sbin/nologin -- "$2"
              code=$?
              # 4: somebody else has that number.
              [ $code = 4 ] || exit $code
            done
            exit $code"#;
        let lock = "/run/lock/runsmith-tests";
        run("flock", &["-w", "60", lock, "sh", "-c", script, "sh", lock, &name]);
        let uid = run("id", &["-u", &name]).trim().parse().expect("a uid");
        Self { name, uid }
    }

    /// Its living processes, but for svlogd, which is runsv's.
    pub fn processes(&self) -> Vec<Process> {
        Process::all()
            .into_iter()
            .filter(|process| process.uid == self.uid && process.lives() && process.command != "svlogd")
            .collect()
    }

    /// Its processes that are nobody's child among them: masters. Not runsmith's own, which look at something as this user and
    /// end at once.
    pub fn masters(&self) -> Vec<u32> {
        let all = self.processes();
        let is_master =
            |one: &&Process| !all.iter().any(|other| other.pid == one.parent) && !one.is_runsmith();
        all.iter().filter(is_master).map(|one| one.pid).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // The next user may get its number: none of its processes may be left.
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes();
            left.iter().for_each(|one| kill(one.pid, rustix::process::Signal::KILL));
            if left.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = Command::new("flock")
            .args(["-w", "60", "/run/lock/runsmith-tests", "userdel", "--force", &self.name])
            .output();
    }
}

/// What /proc says about a process.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub command: String,
    pub parent: u32,
    pub state: char,
    pub uid: u32,
}

impl Process {
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let command = head.split_once('(')?.1.to_owned();
        let mut fields = fields.split(' ');
        let uid =
            status.lines().find_map(|line| line.strip_prefix("Uid:\t"))?.split('\t').next()?.parse().ok()?;
        Some(Self {
            pid,
            command,
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            uid,
        })
    }

    pub fn all() -> Vec<Self> {
        fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Self::read)
            .collect()
    }

    /// Whether it executes runsmith.
    fn is_runsmith(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        program.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"runsmith"))
    }

    /// Neither ended nor a zombie; one whose first thread alone has ended lives.
    pub fn lives(&self) -> bool {
        !is_dead(self.state) || self.threads().any(|state| !is_dead(state))
    }

    /// The state of each of its threads.
    fn threads(&self) -> impl Iterator<Item = char> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        threads.filter_map(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        })
    }
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// The processor time that a process has used.
pub fn processor_time(pid: u32) -> std::time::Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // A tick is 10 ms for programs, whatever the kernel counts in (USER_HZ).
    std::time::Duration::from_millis(ticks * 10)
}

/// Whether a process exists and is no zombie.
pub fn lives(pid: u32) -> bool {
    Process::read(pid).is_some_and(|process| process.lives())
}

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Removes what `render --out /` wrote down about a service.
pub fn forget(service: &str) {
    let _ = fs::remove_file(Path::new("/var/lib/runsmith/services").join(service));
}

static PORTS: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on. It is below those that outgoing connections get, and test
/// processes look in different places first.
pub fn free_port() -> u16 {
    let first = (std::process::id() % 120) as u16 * 100;
    (0..12_000u16)
        .map(|_| 20_000 + (first + PORTS.fetch_add(1, Ordering::Relaxed)) % 12_000)
        .find(|port| is_reserved(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Whether this test program has a port for itself, as long as it lives: no other one on this machine has it.
fn is_reserved(port: u16) -> bool {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = SocketAddr::from_abstract_name(format!("runsmith-test-{port}")).expect("a name");
    UnixListener::bind_addr(&name).map(std::mem::forget).is_ok()
}

/// Every process that has a command, and its words.
pub fn commands() -> Vec<(u32, Vec<String>)> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let bytes = std::fs::read(entry.path().join("cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some((pid, text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()))
    })
    .collect()
}
