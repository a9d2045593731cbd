//! What a change means for a service that runs: one table, from what differs to what has to be done.
//!
//! It says what the rendered scripts do (docs/shell-run-script.md, and the runtime's promise that a
//! new generation takes everything as it is on disk); `docs/code-review.md` shows it to readers.

use super::script::{Script, Way};

/// What a change does to a running service, and so what has to be done for it to count. In order:
/// whoever needs several needs the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing that runs reads what changed.
    Nothing,
    /// svlogd reads its config again.
    ReloadLogs,
    /// The log service starts again; the service itself does not notice.
    RestartLogs,
    /// A zero-downtime hand-over takes the change.
    Upgrade,
    /// The service has to be down for a moment.
    Restart,
    /// runsv itself has to start again, and the service with it.
    Supervise,
    /// The service gets its link, so that runsvdir starts it.
    Enable,
    /// The service loses its link, so that runsvdir stops it.
    Disable,
    /// The service is new.
    Add,
    /// The service goes.
    Remove,
}

impl Effect {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ReloadLogs => "reload-logs",
            Self::RestartLogs => "restart-logs",
            Self::Upgrade => "upgrade",
            Self::Restart => "restart",
            Self::Supervise => "supervise",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }

    /// Its name for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ReloadLogs => "reload logs",
            Self::RestartLogs => "reload logs (their service restarts)",
            Self::Upgrade => "zero-downtime upgrade",
            Self::Restart => "restart",
            Self::Supervise => "restart, and of runsv too",
            Self::Enable => "newly enabled",
            Self::Disable => "disabled",
            Self::Add => "new service",
            Self::Remove => "removed",
        }
    }

    /// What has to be typed, with DIRECTORY for the service directory and SECONDS for how long it may take. `native`:
    /// runsmith executes the run script; its `upgrade` reports a back-out at once, which `sv restart` cannot.
    pub fn commands(self, native: bool) -> &'static [&'static str] {
        match self {
            Self::Upgrade if native => &["runsmith upgrade DIRECTORY"],
            Self::Nothing | Self::Enable | Self::Add => &[],
            Self::ReloadLogs => &["sv hup DIRECTORY/log"],
            Self::RestartLogs => &["sv restart DIRECTORY/log"],
            Self::Upgrade => &["sv -w SECONDS restart DIRECTORY"],
            Self::Restart => &["sv -w SECONDS stop DIRECTORY", "sv -w SECONDS start DIRECTORY"],
            // runsvdir starts runsv again.
            Self::Supervise | Self::Disable | Self::Remove => &["sv -w SECONDS exit DIRECTORY"],
        }
    }
}

/// What something is to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `run`: one of the values it sets, by the model's name, or its program.
    Run,
    /// `finish`.
    Finish,
    /// `check`.
    Check,
    /// `down`.
    Down,
    /// A file in `env`.
    Variable,
    /// `log/run`.
    LogRun,
    /// svlogd's `config`.
    LogConfig,
    /// `gunicorn.py` or `unicorn.rb`: one of its settings, or all the rest.
    ServerConfig,
    /// The link runsvdir sees.
    Link,
    /// A directory, or something of which nobody knows what it is.
    Other,
}

impl Role {
    /// As the table calls it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Run => "`run`",
            Self::Finish => "`finish`",
            Self::Check => "`check`",
            Self::Down => "`down`",
            Self::Variable => "a file in `env`",
            Self::LogRun => "`log/run`",
            Self::LogConfig => "svlogd's `config`",
            Self::ServerConfig => "the server's configuration",
            Self::Link => "the link of runsvdir",
            Self::Other => "a directory; mode or owner of anything",
        }
    }
}

/// A line of the table: what differs, and what that needs for each way of hand-over.
pub struct Row {
    /// In what.
    pub role: Role,
    /// Which of its values; empty: anything that no other line names.
    pub fields: &'static [&'static str],
    /// With [`Way::Sockets`].
    pub sockets: Effect,
    /// With [`Way::Usr2`].
    pub usr2: Effect,
    /// With [`Way::Stop`].
    pub stop: Effect,
    /// Why.
    pub why: &'static str,
}

use Effect::{Nothing, ReloadLogs, Restart, RestartLogs, Supervise, Upgrade};

/// A line for which the way makes no difference.
const fn always(role: Role, fields: &'static [&'static str], effect: Effect, why: &'static str) -> Row {
    Row { role, fields, sockets: effect, usr2: effect, stop: effect, why }
}

/// A line for what only a new generation takes, and USR2 does not.
const fn kept(role: Role, fields: &'static [&'static str], why: &'static str) -> Row {
    Row { role, fields, sockets: Upgrade, usr2: Restart, stop: Restart, why }
}

/// Capabilities of which none were left, and now all are.
const BACK: &str = "hardening.capabilities: inherited";

/// Isolation where there was none.
const ISOLATES: &str = "hardening: private_tmp or read_only_system, where there was neither";

/// The keys that isolate.
const ISOLATION: [&str; 2] = ["hardening.private_tmp", "hardening.read_only_system"];

/// The table. The first line that fits counts.
pub const TABLE: &[Row] = &[
    always(Role::Run, &["run_script"], Restart, "another program holds the server"),
    always(Role::Run, &["handoff.strategy"], Restart, "who holds the listening sockets changes"),
    always(Role::Run, &["layout.run"], Restart, "what the run script remembers is elsewhere"),
    always(
        Role::Run,
        &["service.directory"],
        Supervise,
        "an outage: what runs in the old directory is stopped, and then started in the new one",
    ),
    kept(Role::Run, &["bind"], "USR2 keeps the addresses of the first start"),
    kept(Role::Run, &["user", "group", "groups"], "USR2 keeps the user and the groups of the first start"),
    kept(
        Role::Run,
        &["server", "command", "app", "virtualenv", "root", "home", "config"],
        "USR2 keeps the command, the virtualenv and the directory of the first start",
    ),
    kept(
        Role::Run,
        &["environment", "secrets", "secret_files"],
        "USR2 keeps the environment of the first start",
    ),
    kept(
        Role::Run,
        &["limits", "cgroup", "umask", "nice", "oom_score_adj"],
        "USR2 keeps the limits and the priority of the first start",
    ),
    kept(
        Role::Run,
        &["hardening.no_new_privileges", "hardening.capabilities", ISOLATION[0], ISOLATION[1]],
        "USR2 keeps the privileges of the first start",
    ),
    always(Role::Run, &[ISOLATES], Restart, "the runtime has given up the right to mount"),
    always(Role::Run, &[BACK], Restart, "the runtime cannot get back what it has given up"),
    kept(
        Role::Run,
        &["layout.pids", "layout.sockets"],
        "the running master keeps its PID file and its sockets",
    ),
    always(
        Role::Run,
        &["service.timeout", "service.enabled", "service.link", "service.down", "log.kind", "log.directory"],
        Nothing,
        "nothing that runs reads it",
    ),
    Row {
        role: Role::Run,
        fields: &[],
        sockets: Upgrade,
        usr2: Upgrade,
        stop: Restart,
        why: "the next run of the script takes it",
    },
    kept(Role::Variable, &[], "USR2 keeps the environment of the first start"),
    Row {
        role: Role::ServerConfig,
        fields: &["pidfile", "pid", "umask"],
        sockets: Upgrade,
        usr2: Restart,
        stop: Restart,
        why: "the running master keeps its PID file, and a socket its mode",
    },
    Row {
        role: Role::ServerConfig,
        fields: &[],
        sockets: Upgrade,
        usr2: Upgrade,
        stop: Restart,
        why: "each new master reads it",
    },
    always(Role::LogRun, &["exists"], Supervise, "runsv looks for `log` only when it starts"),
    always(Role::LogRun, &[], RestartLogs, "the log service's next run takes it"),
    always(Role::LogConfig, &[], ReloadLogs, "svlogd reads it again when it is told"),
    always(Role::Finish, &[], Nothing, "runsv reads it when `run` has ended"),
    always(Role::Check, &[], Nothing, "sv reads it when it asks"),
    always(Role::Down, &[], Nothing, "runsv looks for it only when it starts"),
    always(
        Role::Link,
        &["path"],
        Supervise,
        "an outage: what runs by the old link is stopped, and then started by the new one",
    ),
    always(Role::Other, &[], Nothing, "nothing that runs reads it"),
];

/// The effect of one difference, and why. `field` is a value's name, or empty.
pub fn effect(role: Role, field: &str, way: Way) -> (Effect, &'static str) {
    let fits = |row: &&Row| row.role == role && (row.fields.is_empty() || row.fields.contains(&field));
    TABLE.iter().find(fits).map_or((Nothing, ""), |row| {
        let effect = match way {
            Way::Sockets => row.sockets,
            Way::Usr2 => row.usr2,
            Way::Stop => row.stop,
        };
        let taken = effect == Upgrade && row.usr2 == Restart;
        (effect, if taken { "each new generation takes it" } else { row.why })
    })
}

/// What a change means for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    /// The strongest effect.
    pub effect: Effect,
    /// Why, a clause each; the strongest effect's only.
    pub reasons: Vec<String>,
    /// What makes it count, in order; the log service's first.
    pub commands: Vec<String>,
}

/// Every effect of one service's differences, put together.
#[derive(Debug, Default)]
pub struct Effects {
    all: Vec<(Effect, String)>,
    /// runsmith executes the run script that is there now.
    pub native: bool,
}

impl Effects {
    /// One more effect and its reason.
    pub fn push(&mut self, effect: Effect, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.all.iter().any(|(known, said)| *known == effect && *said == reason) {
            self.all.push((effect, reason));
        }
    }

    /// What differs between two run scripts.
    pub fn run(&mut self, old: &Script, new: &Script) {
        if old.native != new.native {
            let kinds = |script: &Script| if script.native { "native" } else { "shell" };
            let (effect, why) = effect(Role::Run, "run_script", new.way());
            self.push(effect, format!("the run script is {} instead of {}: {why}", kinds(new), kinds(old)));
            return;
        }
        // Who hands over is the script that runs now.
        let way = if old.way() == new.way() { new.way() } else { Way::Stop };
        let names: std::collections::BTreeSet<&String> = old.fields.keys().chain(new.fields.keys()).collect();
        let mut said: Vec<(Effect, &str, Vec<&str>)> = vec![];
        for name in names {
            if old.fields.get(name) == new.fields.get(name) {
                continue;
            }
            // It is the default of a run script, which says nothing of it.
            let is_back =
                way == Way::Sockets && name == "hardening.capabilities" && !new.fields.contains_key(name);
            let begins = way == Way::Sockets
                && ISOLATION.contains(&name.as_str())
                && !ISOLATION.iter().any(|key| old.fields.contains_key(*key));
            let key = if is_back {
                BACK
            } else if begins {
                ISOLATES
            } else {
                name
            };
            let (effect, why) = effect(Role::Run, key, way);
            if name == "bind" {
                self.push(effect, format!("{}: {why}", addresses(old, new)));
                continue;
            }
            match said.iter_mut().find(|(known, reason, _)| *known == effect && *reason == why) {
                Some((.., names)) => names.push(name),
                None => said.push((effect, why, vec![name])),
            }
        }
        for (effect, why, names) in said {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let changes = if names.len() == 1 { "changes" } else { "change" };
            self.push(effect, format!("{} {changes}: {why}", names.join(", ")));
        }
        if old.program != new.program {
            let (effect, why) = effect(Role::Run, "", way);
            self.push(effect, format!("the script itself changes: {why}"));
        }
    }

    /// What has to be done for all of it, at the service directory, with so many seconds.
    pub fn impact(self, directory: &str, seconds: u64) -> Impact {
        let strongest = self.all.iter().map(|(effect, _)| *effect).max().unwrap_or(Nothing);
        let reasons = self.all.iter().filter(|(effect, _)| *effect == strongest && strongest != Nothing);
        let reasons = reasons.map(|(_, reason)| reason.clone()).filter(|reason| !reason.is_empty()).collect();
        let logs = self.all.iter().map(|(effect, _)| *effect).filter(|effect| *effect <= RestartLogs).max();
        // runsv starts the log service as well.
        let logs = logs.filter(|_| (Upgrade..=Restart).contains(&strongest)).unwrap_or(Nothing);
        let fill = |command: &&str| {
            command.replace("SECONDS", &seconds.to_string()).replace("DIRECTORY", &quoted(directory))
        };
        let commands =
            logs.commands(self.native).iter().chain(strongest.commands(self.native)).map(fill).collect();
        Impact { effect: strongest, reasons, commands }
    }
}

/// A word as sh reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

fn addresses(old: &Script, new: &Script) -> String {
    let (was, is) = (old.addresses(), new.addresses());
    let gone: Vec<&str> = was.iter().filter(|address| !is.contains(address)).copied().collect();
    let come: Vec<&str> = is.iter().filter(|address| !was.contains(address)).copied().collect();
    let clause = |verb, list: Vec<&str>| (!list.is_empty()).then(|| format!("{} {verb}", list.join(", ")));
    let clauses: Vec<String> =
        [clause("is removed", gone), clause("is added", come)].into_iter().flatten().collect();
    if clauses.is_empty() { "`bind` changes".to_owned() } else { clauses.join(", ") }
}

/// The table as Markdown, for the documentation.
pub fn table() -> String {
    let mut out = String::from(
        "| what differs | `sockets` | `usr2`, shell | shell, `server: any` | because |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let of: Vec<String> = row.fields.iter().map(|field| format!("`{field}`")).collect();
        let what = match of.is_empty() {
            true => format!("{}, all else", row.role.words()),
            false => format!("{}: {}", row.role.words(), of.join(", ")),
        };
        let cells = [row.sockets, row.usr2, row.stop].map(Effect::words).join(" | ");
        out.push_str(&format!("| {what} | {cells} | {} |\n", row.why));
    }
    out
}
