//! One application's service, whole: every default filled in, nothing illegal held.
//!
//! It is what the native run script's body says, and what the templates see as `service`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::input::{Capabilities, Fallback, LogKind, Ready, Resource, RunScript, Server, Strategy};

/// Where run directories are, one for each application, unless its pillar says otherwise (`layout.run`).
pub const RUN: &str = "/run/runsmith";

/// One application's runit service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub application: String,
    /// Which server it is.
    pub server: Server,
    /// The command with all its words, as it is executed.
    pub command: Vec<String>,
    /// What the server loads.
    pub app: String,
    /// Runs as this user,
    pub user: String,
    /// in this group,
    pub group: String,
    /// and these; none: those the user has on the host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub groups: Option<Vec<String>>,
    /// HOME.
    pub home: String,
    /// Its `bin` comes first in PATH.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub virtualenv: Option<String>,
    /// Holds `current`, `releases` and `shared`.
    pub root: String,
    /// Where it listens.
    pub bind: Vec<Socket>,
    /// Variables anybody may see.
    pub environment: BTreeMap<String, String>,
    /// Names of the variables that are kept in the service directory's `env`.
    pub secrets: Vec<String>,
    /// Those of them that are handed over as files, and not as variables.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub secret_files: Vec<String>,
    /// Resource limits by name.
    pub limits: BTreeMap<Resource, Limit>,
    /// Octal.
    pub umask: String,
    /// As nice(1) counts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nice: Option<i8>,
    /// As proc(5) has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oom_score_adj: Option<i16>,
    /// What is taken from the application for good. A run script that an earlier version has rendered takes nothing.
    #[serde(skip_serializing_if = "Hardening::is_off", default)]
    pub hardening: Hardening,
    /// Limits of a generation as a whole.
    #[serde(skip_serializing_if = "CgroupLimits::are_none", default)]
    pub cgroup: CgroupLimits,
    /// Who executes the run script; it is one or the other file, so its body need not say it.
    #[serde(skip)]
    pub run_script: RunScript,
    /// How generations are replaced.
    pub handoff: Handoff,
    /// What follows an unexpected death.
    pub restart: Restart,
    /// Where output goes.
    pub log: Log,
    /// The directories.
    pub layout: Layout,
    /// The service directory and its link.
    pub service: Place,
    /// The server's own settings, for its configuration file.
    #[serde(skip)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The values of `secrets`: for the files in `env`, and nowhere else.
    #[serde(skip)]
    pub secret_values: BTreeMap<String, String>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
    pub address: String,
    /// Mode of a Unix socket's file, octal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// How many connections may wait.
    pub backlog: u32,
}

impl Socket {
    /// The path, if it is a Unix socket.
    pub fn unix_path(&self) -> Option<&str> {
        self.address.strip_prefix("unix:")
    }
}

/// A resource limit; `unlimited` is written as such.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What applies.
    pub soft: LimitValue,
    /// How far it may be raised.
    pub hard: LimitValue,
}

pub use super::input::LimitValue;

/// What is taken from the application for good before it runs. What is not written down is not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// No program that it runs gives it more than it has.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub no_new_privileges: bool,
    /// Which capabilities programs may give it.
    #[serde(skip_serializing_if = "Capabilities::is_inherited", default)]
    pub capabilities: Capabilities,
    /// A generation has temporary directories of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub private_tmp: bool,
    /// It cannot write to the system's directories.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub read_only_system: bool,
}

impl Hardening {
    /// Whether nothing is taken.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a generation sees other mounts than the host: making them takes CAP_SYS_ADMIN.
    pub fn isolates(&self) -> bool {
        self.private_tmp || self.read_only_system
    }
}

/// The directories that `private_tmp` replaces.
pub const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Those that `read_only_system` makes read-only; the last ones are links to directories of `/usr` on most hosts.
pub const SYSTEM: [&str; 9] = ["/usr", "/boot", "/efi", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Limits of everything that a generation has started together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_max: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tasks_max: Option<u32>,
}

impl CgroupLimits {
    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How generations are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// By which way.
    pub strategy: Strategy,
    /// How long a new generation may take to get ready.
    pub boot_timeout: Duration,
    /// How long requests in flight may take.
    pub drain_timeout: Duration,
    /// What counts as ready.
    pub ready: Ready,
    /// A request to the new generation before the old one is told to stop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health_check: Option<HealthCheck>,
}

/// An HTTP health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    /// Host header.
    pub host: String,
    /// Healthy statuses.
    pub status: Vec<u16>,
    /// For one answer.
    pub timeout: Duration,
    /// Between two requests.
    pub interval: Duration,
    /// So many in a row.
    pub successes: u32,
}

/// What follows an unexpected death.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// A generation that lived so long is started again at once.
    pub min_uptime: Duration,
    /// The first wait.
    pub backoff_initial: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// What a start that nobody asked for may use instead of what is on disk.
    #[serde(skip_serializing_if = "Fallback::is_default", default)]
    pub fallback: Fallback,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What kind.
    pub kind: LogKind,
    /// svlogd's directory.
    pub directory: String,
    /// Bytes at which svlogd rotates.
    #[serde(skip)]
    pub size: u32,
    /// Old logs that svlogd keeps.
    #[serde(skip)]
    pub number: u32,
    /// What svlogd feeds each rotated log through.
    #[serde(skip)]
    pub processor: Option<Vec<String>>,
}

/// The application's directories; the run script needs to know only some of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Releases.
    #[serde(skip)]
    pub releases: Directory,
    /// PID files.
    pub pids: Directory,
    /// Logs.
    #[serde(skip)]
    pub logs: Directory,
    /// Unix sockets.
    pub sockets: Directory,
    /// The rendered server configuration.
    #[serde(skip)]
    pub config: Directory,
    /// What the run script remembers while it runs.
    pub run: String,
}

/// A directory with mode and owner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute.
    pub path: String,
    /// Octal.
    pub mode: String,
    /// Owner.
    pub user: String,
    /// Group.
    pub group: String,
}

/// The service directory and its link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The service directory itself.
    pub directory: String,
    /// The link runsvdir sees.
    pub link: String,
    /// Whether there is that link.
    pub enabled: bool,
    /// Whether there is a `down` file.
    pub down: bool,
    /// How long `sv` should wait.
    pub timeout: Duration,
    /// runsmith's path in the first line.
    pub runtime: String,
}

/// Where the directories of PATH after the virtualenv's are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Service {
    /// Where the server's command is looked up: in the virtualenv's `bin` first, then in the PATH that `environment` gives, or else in
    /// the system's directories.
    pub fn search_path(&self) -> String {
        let path = self.environment.get("PATH").map_or(PATH, String::as_str);
        self.virtualenv.as_ref().map_or_else(|| path.to_owned(), |venv| format!("{venv}/bin:{path}"))
    }

    /// The link to the release that serves.
    pub fn current(&self) -> String {
        format!("{}/current", self.root)
    }

    /// Whether two masters live side by side on inherited sockets, so that the server must neither
    /// bind by itself nor keep a PID file.
    pub fn inherits_sockets(&self) -> bool {
        self.run_script == RunScript::Native && self.handoff.strategy == Strategy::Sockets
    }

    /// The server's configuration file that its command names, if it has one of ours.
    pub fn config_file(&self) -> Option<&str> {
        self.config_name()?;
        let at = self.command.iter().position(|word| word == "-c")?;
        self.command.get(at + 1).map(String::as_str)
    }

    /// The name of the server's configuration file, if it has one of ours.
    pub fn config_name(&self) -> Option<&'static str> {
        match self.server {
            Server::Gunicorn => Some("gunicorn.py"),
            Server::Unicorn => Some("unicorn.rb"),
            Server::Any => None,
        }
    }
}
