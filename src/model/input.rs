//! What a pillar may say: the types the JSON Schema is derived from.
//!
//! Everything here is as a person writes it. [`service`](super::service) turns it, once the schema
//! has accepted it, into what is rendered.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{GunicornSettings, UnicornSettings};

/// One application: a few values become one runit service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Application {
    /// Names the service, its service directory and its logs. Default: the key of the application in `applications`.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_.-]{0,63}$"))]
    #[schemars(extend("examples" = ["leaderboards"], "x-default" = "the key of the application in `applications`"))]
    pub application: Option<String>,

    /// The gist's name for `application`.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_.-]{0,63}$"))]
    #[schemars(extend("examples" = ["leaderboards"], "x-default" = "the key of the application in `applications`", "deprecated" = true))]
    pub unicorn_application: Option<String>,

    /// The user the application runs as. Required.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["deploy"], "x-default" = "none: it is required"))]
    pub user: Option<String>,

    /// The group the application runs as. Default: the user's name.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["deploy"], "x-default" = "the user's name"))]
    pub group: Option<String>,

    /// Supplementary groups. Default: those the user has on the host, looked up when the service starts.
    #[schemars(inner(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")))]
    #[schemars(extend("examples" = [["www-data", "ssl-cert"]], "x-default" = "those the user has on the host"))]
    pub groups: Option<Vec<String>>,

    /// HOME of the application. Default: `/home/USER`.
    #[schemars(extend("examples" = ["/home/deploy"], "x-default" = "/home/USER"))]
    pub home: Option<String>,

    /// The directory that holds `.virtualenvs/APPLICATION`. Required unless `virtualenv` is set or the server is not gunicorn.
    #[schemars(extend("examples" = ["/home/deploy"], "x-default" = "none: required for gunicorn unless `virtualenv` is set"))]
    pub virtualenv_home: Option<String>,

    /// The application's virtualenv. Default: `VIRTUALENV_HOME/.virtualenvs/APPLICATION`.
    #[schemars(extend("examples" = ["/srv/venvs/leaderboards"], "x-default" = "VIRTUALENV_HOME/.virtualenvs/APPLICATION"))]
    pub virtualenv: Option<String>,

    /// The server's command: a string of words, split at blanks, or a list of words, each taken as it is.
    /// It is looked up in the virtualenv's `bin` first. Default: `gunicorn`.
    #[schemars(extend("examples" = ["gunicorn", ["bundle", "exec", "unicorn"]], "default" = "gunicorn"))]
    pub unicorn_command: Option<Words>,

    /// Which server the command starts: `gunicorn`, `unicorn`, or `any` program that takes inherited sockets.
    /// Default: told by the last word of the command that names one; otherwise `any`.
    #[schemars(extend("examples" = ["gunicorn"], "x-default" = "from the command's name"))]
    pub server: Option<Server>,

    /// What the server loads: a WSGI application (`MODULE:VARIABLE`) or a rackup file. Default: `wsgi:app`, or `config.ru`.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["shop.wsgi:application"], "x-default" = "wsgi:app, or config.ru for unicorn"))]
    pub app: Option<String>,

    /// The directory that holds `current`, `releases` and `shared`. Default: `/var/www/APPLICATION`.
    #[schemars(extend("examples" = ["/srv/leaderboards"], "x-default" = "/var/www/APPLICATION"))]
    pub root: Option<String>,

    /// Addresses to listen on: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`; as a map with mode, owner and backlog.
    #[schemars(extend("examples" = ["0.0.0.0:8000", ["unix:/run/lobby.sock", {"address": "127.0.0.1:8000", "backlog": 512}]], "default" = ["127.0.0.1:8000"]))]
    pub bind: Option<OneOrMany<BindInput>>,

    /// Environment variables. Strings, or integers (written in decimal); quote booleans and floats, which
    /// Salt, Ansible and YAML 1.2 spell differently. A variable that is sensitive by its name (PASSWORD, TOKEN, API_KEY …)
    /// or by what it holds (a URL with a password, a private key …) is kept like one of `secrets`.
    #[schemars(schema_with = "variables")]
    #[schemars(extend("examples" = [{"LANG": "C.UTF-8", "OMP_NUM_THREADS": 4}], "default" = {}))]
    pub environment: BTreeMap<String, Text>,

    /// Environment variables whose values are kept in files only root can read and are never shown.
    #[schemars(schema_with = "variables")]
    #[schemars(extend("examples" = [{"DATABASE_URL": "postgres://app:…@db/app"}], "default" = {}))]
    pub secrets: BTreeMap<String, Text>,

    /// Names of secrets that the application gets as files, and not as variables: `NAME` in the directory that the variable
    /// `CREDENTIALS_DIRECTORY` names, which only the application's user can read. What a process starts does not inherit them, and no
    /// dump of the environment shows them. Each generation has files of its own, until it has gone; with `strategy: usr2` those of the
    /// first start. It takes the native run script.
    #[schemars(inner(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")))]
    #[schemars(extend("examples" = [["DATABASE_URL"]], "default" = []))]
    pub secret_files: Vec<String>,

    /// Resource limits, by setrlimit's names and in its units: one number for both, or `{soft, hard}`. `core` is 0 unless it is
    /// given: a core dump holds the application's memory, secrets included.
    #[schemars(schema_with = "limits")]
    #[schemars(extend("examples" = [{"nofile": {"soft": 4096, "hard": 65535}, "core": "unlimited"}], "default" = {"core": 0, "nofile": 65535}))]
    pub limits: BTreeMap<Resource, LimitInput>,

    /// File mode creation mask, a quoted octal number: bare, `0022` is 22 to Salt and 18 to Ansible.
    #[schemars(regex(pattern = r"^0?[0-7]{3}$"))]
    #[schemars(extend("examples" = ["0027"], "default" = "0022"))]
    pub umask: Option<String>,

    /// Scheduling priority, as `nice` counts it.
    #[schemars(range(min = -20, max = 19))]
    #[schemars(extend("examples" = [5], "default" = null))]
    pub nice: Option<i8>,

    /// How willingly the kernel kills the application when memory runs out: `/proc/PID/oom_score_adj`.
    #[schemars(range(min = -1000, max = 1000))]
    #[schemars(extend("examples" = [-500], "default" = null))]
    pub oom_score_adj: Option<i16>,

    /// What is taken from the application for good before it runs, whatever the server and its user. It holds for everything that
    /// the application starts. Core dumps are turned off by `limits.core`.
    #[schemars(extend("examples" = [{"no_new_privileges": false}], "default" = {}))]
    pub hardening: HardeningInput,

    /// Limits of everything that one generation has started together: the kernel counts it by its cgroup, whatever it does. While a
    /// new generation takes over, both have them. Only the native run script sets them; where the host has no way to, the log and
    /// `status` report it.
    #[schemars(extend("examples" = [{"memory_max": "2G", "tasks_max": 200}], "default" = {}))]
    pub cgroup: CgroupInput,

    /// Settings of gunicorn by their own names, for the rendered `gunicorn.py`.
    #[schemars(extend("examples" = [{"workers": 4, "worker_class": "gthread", "threads": 8}], "default" = {}))]
    pub gunicorn: GunicornSettings,

    /// Settings of Ruby unicorn by their own names, for the rendered `unicorn.rb`.
    #[schemars(extend("examples" = [{"worker_processes": 4, "timeout": 60}], "default" = {}))]
    pub unicorn: UnicornSettings,

    /// `native`: the run script is executed by runsmith's runtime. `shell`: a self-contained bash script, for hosts without runsmith.
    #[schemars(extend("examples" = ["shell"], "default" = "native"))]
    pub run_script: Option<RunScript>,

    /// How a new generation takes over from the old one.
    #[schemars(extend("examples" = [{"boot_timeout": "2m", "drain_timeout": 60}], "default" = {}))]
    pub handoff: HandoffInput,

    /// What happens when the server dies by itself.
    #[schemars(extend("examples" = [{"min_uptime": 10, "backoff_max": "2m"}], "default" = {}))]
    pub restart: RestartInput,

    /// Where the server's and the runtime's output goes.
    #[schemars(extend("examples" = [{"kind": "svlogd", "size": 10_000_000, "number": 20}], "default" = {}))]
    pub log: LogInput,

    /// Directories of the application: a path (relative ones are below `root`), or a map with mode and owner.
    #[schemars(extend("examples" = [{"logs": "/var/log/leaderboards", "pids": {"path": "shared/pids", "mode": "0750"}}], "default" = {}))]
    pub layout: LayoutInput,

    /// The runit service itself.
    #[schemars(extend("examples" = [{"enabled": false, "timeout": 90}], "default" = {}))]
    pub service: ServiceInput,
}

/// One or several of something.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several, at least one.
    Many(#[schemars(length(min = 1))] Vec<T>),
}

impl<T> OneOrMany<T> {
    /// As a list.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// A command: one string, split at blanks, or its words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Words {
    /// Split at blanks.
    Line(#[schemars(regex(pattern = r"\S"))] String),
    /// Taken as they are.
    List(#[schemars(length(min = 1), inner(length(min = 1)))] Vec<String>),
}

/// A string, or an integer that is written in decimal.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// As it is.
    String(String),
    /// In decimal.
    Integer(serde_json::Number),
}

impl std::fmt::Display for Text {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::String(text) => formatter.write_str(text),
            Self::Integer(number) => number.fmt(formatter),
        }
    }
}

/// A number of seconds, or a text with a unit: `"500ms"`, `"30s"`, `"2m"`, `"1h"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum DurationInput {
    /// Seconds.
    Seconds(#[schemars(range(min = 0, max = 86_400))] f64),
    /// A number and a unit: ms, s, m or h.
    Text(#[schemars(regex(pattern = r"^[0-9]{1,9}(ms|s|m|h)?$"))] String),
}

/// Which server a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Server {
    /// gunicorn, a Python WSGI server.
    Gunicorn,
    /// unicorn, a Ruby Rack server.
    Unicorn,
    /// Any program that takes inherited sockets (LISTEN_FDS).
    Any,
}

/// Who executes the run script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RunScript {
    /// runsmith's runtime.
    #[default]
    Native,
    /// bash.
    Shell,
}

/// An address: as text, or as a map with what belongs to the socket.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum BindInput {
    /// `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
    Address(#[schemars(length(min = 1), extend("examples" = ["unix:/run/x.sock"]))] String),
    /// The address with mode, owner and backlog.
    Socket(Box<SocketInput>),
}

/// A listening socket with its mode, owner and backlog.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct SocketInput {
    /// `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["unix:/run/lobby.sock"], "x-default" = "none: it is required"))]
    pub address: String,
    /// Mode of a Unix socket's file, a quoted octal number. The default is that of gunicorn and unicorn: whoever can
    /// enter the directory can connect.
    #[schemars(regex(pattern = r"^0?[0-7]{3}$"))]
    #[schemars(extend("examples" = ["0660"], "default" = "0777"))]
    pub mode: Option<String>,
    /// Owner of a Unix socket's file. Default: the application's user.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["deploy"], "x-default" = "the application's user"))]
    pub user: Option<String>,
    /// Group of a Unix socket's file. Default: the application's group.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["www-data"], "x-default" = "the application's group"))]
    pub group: Option<String>,
    /// How many connections may wait to be accepted. The kernel cuts it at net.core.somaxconn.
    #[schemars(range(min = 1, max = 65_535))]
    #[schemars(extend("examples" = [512], "default" = 2048))]
    pub backlog: Option<u32>,
}

/// A resource of setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs, reason = "setrlimit(2) says what each is; the names are its own")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Sigpending,
    Stack,
}

/// A limit: the same for soft and hard, or each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum LimitInput {
    /// Soft and hard alike.
    Both(LimitValue),
    /// Each by itself.
    Each(EachLimit),
}

/// Soft and hard limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct EachLimit {
    /// What applies.
    #[schemars(extend("examples" = [4096], "x-default" = "none: it is required"))]
    pub soft: LimitValue,
    /// How far the application may raise it. Default: the soft limit.
    #[schemars(extend("examples" = [65_535], "x-default" = "the soft limit"))]
    pub hard: Option<LimitValue>,
}

/// A number in setrlimit's unit, or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum LimitValue {
    /// In setrlimit's unit: bytes, seconds or a count.
    Number(u64),
    /// No limit.
    Word(Unlimited),
}

/// No limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Unlimited {
    /// No limit.
    Unlimited,
}

/// What is taken from the application for good.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct HardeningInput {
    /// `true`: no program gives the application more than it has, neither by a setuid or setgid bit nor by capabilities of its file
    /// (prctl(2), PR_SET_NO_NEW_PRIVS). So `sudo`, `su`, `ping` and `crontab` fail, and so does **mail by `sendmail`**: Postfix's calls the
    /// setgid `postdrop`, Exim's is setuid. Mail by SMTP works. An application that needs one of them sets `false`.
    #[schemars(extend("examples" = [false], "default" = true))]
    pub no_new_privileges: Option<bool>,
    /// `none`: the application's bounding set of capabilities is empty, so no program gives it any, and one that runs as root has
    /// none. A program whose file has capabilities cannot be run at all: take those off an interpreter (`setcap -r`), because
    /// ports below 1024 need none here. `inherited`: what runsvdir has.
    #[schemars(extend("examples" = ["inherited"], "default" = "none"))]
    pub capabilities: Option<Capabilities>,
    /// `true`: each generation has a `/tmp` and a `/var/tmp` of its own, empty at its start and gone with its last process; other
    /// programs see nothing of them. They are in memory, at most half of it, and count for `cgroup.memory_max`. The files of the
    /// application itself cannot be below `/tmp` or `/var/tmp` then. Another process of the same user that is not isolated, such as svlogd,
    /// can be looked through.
    #[schemars(extend("examples" = [true], "default" = false))]
    pub private_tmp: Option<bool>,
    /// `true`: the application cannot write below `/usr`, `/boot`, `/efi` and `/etc`, whatever the modes of files allow. Its own files
    /// cannot be there then. Linux 5.12.
    #[schemars(extend("examples" = [true], "default" = false))]
    pub read_only_system: Option<bool>,
}

/// Which capabilities programs may give the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Capabilities {
    /// None.
    None,
    /// Those that runsvdir has. It is what a run script without the key says.
    #[default]
    Inherited,
}

impl Capabilities {
    /// Whether nothing is taken.
    pub fn is_inherited(&self) -> bool {
        *self == Self::Inherited
    }
}

/// Limits of a generation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct CgroupInput {
    /// How much memory a generation may use, page cache included and swap not: bytes, or a text with a unit of K, M, G or T (1024 bytes and
    /// so on). When it would use more the kernel frees what it can, and then ends a process of the generation, whatever
    /// else runs on the host.
    #[schemars(extend("examples" = ["2G"], "default" = null))]
    pub memory_max: Option<SizeInput>,
    /// How many processes and threads a generation may have. Starting one more fails with EAGAIN.
    #[schemars(range(min = 1, max = 4_194_304))]
    #[schemars(extend("examples" = [200], "default" = null))]
    pub tasks_max: Option<u32>,
}

/// A number of bytes, or a text with a unit: `"512M"`, `"2G"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum SizeInput {
    /// Bytes.
    Bytes(#[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))] u64),
    /// A number and a unit: K, M, G or T.
    Text(#[schemars(regex(pattern = r"^[1-9][0-9]{0,5}[KMGT]$"))] String),
}

impl SizeInput {
    /// In bytes; none if it is no size, which the schema has found.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(*bytes),
            Self::Text(text) => {
                // No unit is longer than a byte, and nothing else is a size.
                let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
                let shift = 10 * (1 + "KMGT".find(unit)?);
                digits.parse::<u64>().ok()?.checked_mul(1_u64.checked_shl(u32::try_from(shift).ok()?)?)
            }
        }
    }
}

/// How a new generation takes over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct HandoffInput {
    /// `sockets`: a second master inherits the listening sockets. `usr2`: the master re-executes itself, as the gist did; then
    /// the server owns its sockets, and while no master lives (it has crashed, or nothing has started yet) the addresses refuse
    /// connections. A shell run script can only do `usr2`.
    #[schemars(extend("examples" = ["usr2"], "x-default" = "sockets; usr2 with a shell run script"))]
    pub strategy: Option<Strategy>,
    /// How long a new generation may take to get ready, before it is removed.
    #[schemars(extend("examples" = ["2m"], "default" = 60))]
    pub boot_timeout: Option<DurationInput>,
    /// How long requests in flight may take to finish once their generation is told to stop. Default: gunicorn's
    /// `graceful_timeout` and 10 seconds, or 40 seconds.
    #[schemars(extend("examples" = [90], "x-default" = "gunicorn's graceful_timeout and 10 seconds; 40 otherwise"))]
    pub drain_timeout: Option<DurationInput>,
    /// What counts as ready: every worker has loaded the application, the program said so (sd_notify), or it is alive.
    #[schemars(extend("examples" = ["notify"], "x-default" = "workers; alive for server any"))]
    pub ready: Option<Ready>,
    /// An HTTP request to the new generation, before the old one exits, and to the one that serves for as long as it does: every `interval`, on a private socket. One that fails three times in a row is replaced.
    #[schemars(extend("examples" = [{"path": "/health", "timeout": 2}], "default" = null))]
    pub health_check: Option<HealthCheckInput>,
}

/// By which way a generation is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Strategy {
    /// A second master inherits the listening sockets.
    Sockets,
    /// The master re-executes itself.
    Usr2,
}

/// What counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Ready {
    /// Every worker has loaded the application.
    Workers,
    /// The program said READY=1 by sd_notify.
    Notify,
    /// The process lives.
    Alive,
}

/// An HTTP health check.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct HealthCheckInput {
    /// Path and query of the request.
    #[schemars(regex(pattern = r"^/[!-~]*$"))]
    #[schemars(extend("examples" = ["/health"], "x-default" = "none: it is required"))]
    pub path: String,
    /// Host header of the request.
    #[schemars(regex(pattern = r"^[!-~]+$"))]
    #[schemars(extend("examples" = ["shop.example.com"], "default" = "localhost"))]
    pub host: Option<String>,
    /// Status that counts as healthy: one, or several.
    #[schemars(extend("examples" = [[200, 204]], "default" = 200))]
    pub status: Option<OneOrMany<Status>>,
    /// How long one answer may take.
    #[schemars(extend("examples" = ["2s"], "default" = 5))]
    pub timeout: Option<DurationInput>,
    /// Time between two requests.
    #[schemars(extend("examples" = ["500ms"], "default" = 1))]
    pub interval: Option<DurationInput>,
    /// How many answers in a row must be healthy.
    #[schemars(range(min = 1, max = 100))]
    #[schemars(extend("examples" = [3], "default" = 1))]
    pub successes: Option<u32>,
}

/// An HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Status(#[schemars(range(min = 100, max = 599))] pub u16);

/// What happens when the server dies by itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct RestartInput {
    /// A generation that lived at least so long is started again at once.
    #[schemars(extend("examples" = ["30s"], "default" = 10))]
    pub min_uptime: Option<DurationInput>,
    /// The first wait before one that died earlier is started again; it doubles each time.
    #[schemars(extend("examples" = ["500ms"], "default" = 1))]
    pub backoff_initial: Option<DurationInput>,
    /// The longest wait.
    #[schemars(extend("examples" = ["2m"], "default" = 60))]
    pub backoff_max: Option<DurationInput>,
    /// What a start that nobody asked for may use when the release or the values on disk have failed or were never deployed. `proven`: what has last served for `min_uptime`. `none`: only what is on disk.
    #[schemars(extend("examples" = ["none"], "default" = "proven"))]
    pub fallback: Option<Fallback>,
}

/// What an unplanned start may fall back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Fallback {
    /// What was proven last.
    #[default]
    Proven,
    /// Nothing: what is on disk is started.
    None,
}

impl Fallback {
    /// Whether it is the default, which a run script does not write down.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where output goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct LogInput {
    /// `svlogd`: a log service with rotation. `files`: the server writes access.log and error.log itself. `none`: to runsvdir's output.
    #[schemars(extend("examples" = ["files"], "default" = "svlogd"))]
    pub kind: Option<LogKind>,
    /// Size in bytes at which svlogd rotates; with 0 it does not.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    #[schemars(extend("examples" = [10_000_000], "default" = 1_000_000))]
    pub size: Option<u32>,
    /// How many old logs svlogd keeps; with 0 it removes none.
    #[schemars(range(min = 0, max = 100_000))]
    #[schemars(extend("examples" = [20], "default" = 10))]
    pub number: Option<u32>,
    /// A command that svlogd feeds each rotated log through: a string of words, split at blanks, or a list of words.
    #[schemars(extend("examples" = ["gzip -9"], "default" = null))]
    pub processor: Option<Words>,
    /// svlogd's directory. Default: `service` below the layout's logs.
    #[schemars(extend("examples" = ["/var/log/leaderboards"], "x-default" = "LOGS/service"))]
    pub directory: Option<String>,
}

/// What kind of logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogKind {
    /// A log service run by svlogd.
    #[default]
    Svlogd,
    /// The server writes files.
    Files,
    /// None of ours.
    None,
}

/// Where the application's directories are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct LayoutInput {
    /// Releases; `current` points to one of them.
    #[schemars(extend("examples" = ["releases"], "default" = "releases"))]
    pub releases: Option<DirectoryInput>,
    /// PID files.
    #[schemars(extend("examples" = ["shared/pids"], "default" = "shared/pids"))]
    pub pids: Option<DirectoryInput>,
    /// Logs.
    #[schemars(extend("examples" = ["/var/log/leaderboards"], "default" = "shared/logs"))]
    pub logs: Option<DirectoryInput>,
    /// Unix sockets.
    #[schemars(extend("examples" = ["shared/sockets"], "default" = "shared/sockets"))]
    pub sockets: Option<DirectoryInput>,
    /// The rendered server configuration; root's unless said otherwise.
    #[schemars(extend("examples" = ["shared/runsmith"], "default" = "shared/runsmith"))]
    pub config: Option<DirectoryInput>,
    /// What the run script remembers while it runs: root's, and made by it, not rendered.
    #[schemars(extend("examples" = ["/run/runsmith/leaderboards"], "x-default" = "/run/runsmith/APPLICATION"))]
    pub run: Option<String>,
}

/// A directory: its path, or a map with mode and owner.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum DirectoryInput {
    /// Its path; a relative one is below `root`.
    Path(#[schemars(length(min = 1))] String),
    /// With mode and owner.
    Directory(OwnedDirectoryInput),
}

/// A directory with mode and owner.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct OwnedDirectoryInput {
    /// Its path; a relative one is below `root`. Default: as without the map.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["shared/pids"], "x-default" = "as without the map"))]
    pub path: Option<String>,
    /// Its mode, a quoted octal number.
    #[schemars(regex(pattern = r"^[0-7]?[0-7]{3}$"))]
    #[schemars(extend("examples" = ["0750"], "default" = "0755"))]
    pub mode: Option<String>,
    /// Its owner. Default: the application's user; root for `config`.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["deploy"], "x-default" = "the application's user; root for config"))]
    pub user: Option<String>,
    /// Its group. Default: the application's group; root for `config`.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    #[schemars(extend("examples" = ["adm"], "x-default" = "the application's group; root for config"))]
    pub group: Option<String>,
}

/// The runit service itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct ServiceInput {
    /// Where service directories are kept: the service's is DIRECTORY/APPLICATION.
    #[schemars(extend("examples" = ["/etc/sv"], "default" = "/etc/sv"))]
    pub directory: Option<String>,
    /// The directory runsvdir watches: LINK/APPLICATION points to the service directory.
    #[schemars(extend("examples" = ["/service"], "default" = "/etc/service"))]
    pub link: Option<String>,
    /// Whether the service is linked, so that runsvdir starts it.
    #[schemars(extend("examples" = [false], "default" = true))]
    pub enabled: Option<bool>,
    /// Whether a `down` file keeps runsv from starting it by itself.
    #[schemars(extend("examples" = [true], "default" = false))]
    pub down: Option<bool>,
    /// How long `sv` should wait (`sv -w`). Default: `boot_timeout` and `drain_timeout` together.
    #[schemars(extend("examples" = [120], "x-default" = "boot_timeout and drain_timeout together"))]
    pub timeout: Option<DurationInput>,
    /// Path of runsmith in the run script's first line.
    #[schemars(regex(pattern = r"^/[!-~]{1,110}$"))]
    #[schemars(extend("examples" = ["/usr/local/bin/runsmith"], "default" = "/usr/bin/runsmith"))]
    pub runtime: Option<String>,
}

fn variables(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"type": ["string", "integer"]}
    })
}

fn limits(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names = generator.subschema_for::<Resource>();
    let value = generator.subschema_for::<LimitInput>();
    schemars::json_schema!({"type": "object", "propertyNames": names, "additionalProperties": value})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes() {
        let bytes = |text: &str| SizeInput::Text(text.to_owned()).bytes();
        assert_eq!(bytes("1K"), Some(1024));
        assert_eq!(bytes("2G"), Some(2 << 30));
        assert_eq!(bytes("999999T"), Some(999_999 << 40));
        assert_eq!([bytes(""), bytes("G"), bytes("1"), bytes("1€"), bytes("-1K")], [None; 5]);
        assert_eq!(SizeInput::Bytes(5).bytes(), Some(5));
    }
}
