//! What can be said on the command line; no behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The least that `--limit` may be: the summary and the notes on what is left out have to fit.
const LEAST_LIMIT: usize = 1000;

fn limit(text: &str) -> Result<usize, String> {
    let limit: usize = text.parse().map_err(|_| "it is no number of characters".to_owned())?;
    if limit < LEAST_LIMIT { Err(format!("the least is {LEAST_LIMIT}")) } else { Ok(limit) }
}

/// Turns a pillar into complete runit services for gunicorn and unicorn.
#[derive(Debug, Parser)]
#[command(name = "runsmith", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 clean or done; 1 findings, differences, or a hand-over that was backed out; 2 usage, or it could not be done."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to use colour; `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Renders pillars: prints the tree of files, or makes a directory hold it
    Render(Render),
    /// Checks pillars: every finding, each at its line and column; writes nothing
    Validate(Validate),
    /// Prints pillars as the dialect reads them, as JSON: what Salt or Ansible would see
    Read(Read),
    /// Prints the JSON Schema of a pillar (2020-12)
    Schema,
    /// Lists the rules, or tells what one means, why it matters, and what is wrong and right
    Rule(Rule),
    /// Executes a rendered native run script, as runsv starts it; with --check, proves it
    Run(Run),
    /// Tells what runs: all services of this host, or those named, in detail
    Status(Status),
    /// Stops services and removes what earlier runs of render --out made for them, and nothing else
    Remove(Remove),
    /// Replaces the running generation by one from what is on disk now, and no request is lost; ends when that is settled
    Upgrade(Upgrade),
    /// Prints what makes a shell complete commands and options
    Completions(Completions),
    /// Prints a manual page, as man and troff read it: of runsmith, or of one command
    Man(Man),
}

/// Which pillars, and how they are read.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Pillars: files, directories (every *.yaml, *.yml, *.sls and *.json below them), or - for standard input
    #[arg(required = true, value_name = "PILLAR")]
    pub pillars: Vec<PathBuf>,
    /// How YAML is read
    #[arg(long, default_value = "salt")]
    pub dialect: DialectName,
    /// What standard input holds; files are told by their names, and `-` by its first character
    #[arg(long, value_name = "FORMAT")]
    pub input_format: Option<InputFormat>,
}

/// How bad findings are.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Severities (a NAME is a rule's, or `all`, which counts less; several with commas)"
)]
pub struct Severities {
    /// What the rule NAME finds is an error
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub deny: Vec<String>,
    /// What the rule NAME finds is a warning
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub warn: Vec<String>,
    /// What the rule NAME finds is not told
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allow: Vec<String>,
}

/// Whose reading of YAML counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DialectName {
    /// As Salt reads a pillar
    Salt,
    /// As Ansible reads its variables
    Ansible,
    /// YAML 1.2, core schema
    #[value(name = "yaml1.2")]
    Yaml12,
}

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

/// `render`.
#[derive(Debug, Args)]
pub struct Render {
    /// The pillars.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Where in the pillar the applications are, as Salt writes it; by default `unicorn`, if there is one, else the document itself
    #[arg(long, value_name = "A:B:C")]
    pub key: Option<String>,
    /// Makes the directory ROOT hold the tree, each file whole or not at all, and prints what changed
    #[arg(long, value_name = "ROOT")]
    pub out: Option<PathBuf>,
    /// How the tree, or what changed, is printed; `patch` and `markdown` with --diff
    #[arg(long, default_value = "text")]
    pub format: TreeFormat,
    /// Shows what --out would change, and writes nothing; exit code 1 if there is a difference
    #[arg(long, conflicts_with = "out")]
    pub diff: bool,
    /// With --diff: the directory that is compared
    #[arg(long, value_name = "ROOT", requires = "diff", default_value = "/")]
    pub root: PathBuf,
    /// With --diff: compares with OLD instead: a pillar, a directory that was rendered with --out, or git:REV, the same
    /// pillars at that revision (git:main... where HEAD left main)
    #[arg(long, value_name = "OLD", requires = "diff", conflicts_with = "root")]
    pub against: Option<String>,
    /// With --diff: exit code 0 also if there are differences
    #[arg(long, requires = "diff")]
    pub exit_zero: bool,
    /// With --diff: how much changes in each path, and nothing of what
    #[arg(long, requires = "diff")]
    pub stat: bool,
    /// With --diff --format markdown: the longest text, in characters, at least 1000; by default what a comment on GitHub may have
    #[arg(long, value_name = "CHARACTERS", requires = "diff", value_parser = limit)]
    pub limit: Option<usize>,
    /// Prints one rendered file, and beside each line the keys of the pillar that it comes from
    #[arg(long, value_name = "PATH", conflicts_with_all = ["out", "diff"])]
    pub explain: Option<String>,
    /// Templates that replace the built-in ones of the same name; docs/templates.md tells their names and what they see
    #[arg(long, value_name = "DIR")]
    pub templates: Option<PathBuf>,
    /// Prints the values of secrets; without it they are masked, in JSON too
    #[arg(long)]
    pub show_secrets: bool,
    /// With --out: leaves it to the kernel when the files reach the disk
    #[arg(long, requires = "out")]
    pub no_sync: bool,
    /// With --out (or --diff, which shows it): removes what earlier runs of the same set made and nobody wants or changed; a service that has gone from the pillar is stopped, unlinked, then removed. What is to go is listed first
    #[arg(long)]
    pub prune: bool,
    /// With --out or --diff: the set that the services belong to; --prune takes away whole services of its own set only, so that naming
    /// another one reaches the services of that [default: the path of the PILLAR that has them, made absolute]
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// With --out (or --diff, which shows it): takes over also what runsmith did not make: files, directories and links that are in the way
    /// and that no record of an earlier run names; without it their services are refused. The old version is kept as with --backup
    #[arg(long)]
    pub adopt: bool,
    /// With --out: keeps the old version of what is replaced or removed in DIR, a path below ROOT that is not there yet [default: the next number in /var/lib/runsmith/backup]
    #[arg(long, value_name = "DIR", requires = "out", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub backup: Option<String>,
    /// How bad findings are.
    #[command(flatten)]
    pub severities: Severities,
}

/// How a tree is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TreeFormat {
    /// For people
    Text,
    /// For programs: path, kind, mode, owner, group, content
    Json,
    /// A difference, as git apply and patch -p1 take it
    Patch,
    /// A difference, for a comment on a pull request
    Markdown,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The pillars.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Where in the pillar the applications are, as Salt writes it; by default `unicorn`, if there is one, else the document itself
    #[arg(long, value_name = "A:B:C")]
    pub key: Option<String>,
    /// Also checks what only this host knows: users, paths, ports, limits, the installed server. It imports the application, as its user (docs/host.md)
    #[arg(long, conflicts_with = "diff")]
    pub host: bool,
    /// How findings are printed
    #[arg(long, default_value = "text")]
    pub format: FindingFormat,
    /// Corrects what can be corrected, in the files themselves; comments, layout and the values that the dialect reads stay
    #[arg(long)]
    pub fix: bool,
    /// With --fix: prints what would be corrected as a unified diff, and writes nothing
    #[arg(long, requires = "fix")]
    pub diff: bool,
    /// With --fix: corrects also what changes the values that the dialect reads: misspelt keys, missing quotes
    #[arg(long, requires = "fix")]
    pub unsafe_fixes: bool,
    /// How bad findings are.
    #[command(flatten)]
    pub severities: Severities,
}

/// How findings are printed; docs/formats.md tells more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FindingFormat {
    /// For people
    Text,
    /// For programs: all of it
    Json,
    /// Annotations of a GitHub workflow
    Github,
    /// SARIF 2.1.0, as GitHub's code scanning reads it
    Sarif,
    /// A test report, one case a file
    Junit,
    /// A code quality report of GitLab
    Gitlab,
}

/// `read`.
#[derive(Debug, Args)]
pub struct Read {
    /// The pillars.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Prints only what is at this key
    #[arg(long, value_name = "A:B:C")]
    pub key: Option<String>,
    /// Prints the values of secrets; without it they are masked: all below `secrets`, and what is sensitive by its name or by what it holds
    #[arg(long)]
    pub show_secrets: bool,
}

/// `rule`.
#[derive(Debug, Args)]
pub struct Rule {
    /// A rule's name, as findings have it in brackets; without it all are listed
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// How rules are printed
    #[arg(long, default_value = "text")]
    pub format: TableFormat,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// A rendered native run script
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Reads FILE, says whether it can be executed, and starts nothing
    #[arg(long)]
    pub check: bool,
    /// As `finish` calls it: ends what a killed run has left of a service that is to be down
    #[arg(long, conflicts_with = "check")]
    pub finish: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Services, by name below $SVDIR (/etc/service if that is not set) or /etc/sv, or by directory; without one, every service there that runsmith executes
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// How it is printed
    #[arg(long, default_value = "text")]
    pub format: TableFormat,
    /// Prints nothing: exit code 0 if the service serves and is not DEGRADED, else 1
    #[arg(long)]
    pub quiet: bool,
}

/// `upgrade`.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// A service, by name below $SVDIR (/etc/service if that is not set) or /etc/sv, or by directory
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Gives up the hand-over that is under way; the old generation goes on serving
    #[arg(long)]
    pub abort: bool,
    /// Waits until the new generation is proven: it has served for `restart.min_uptime`
    #[arg(long, conflicts_with = "abort")]
    pub proven: bool,
    /// How the outcome is printed
    #[arg(long, default_value = "text")]
    pub format: TableFormat,
}

/// `remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Services, by the name of their application; one that no earlier run made is no difference
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// The directory that they were rendered to
    #[arg(long, value_name = "ROOT", default_value = "/")]
    pub root: PathBuf,
    /// Shows what would be removed, and changes nothing; exit code 1 if there is something
    #[arg(long)]
    pub diff: bool,
    /// Keeps the old version of what is removed in DIR, a path below ROOT that is not there yet [default: the next number in /var/lib/runsmith/backup]
    #[arg(long, value_name = "DIR", conflicts_with = "diff", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub backup: Option<String>,
    /// How it is printed
    #[arg(long, default_value = "text")]
    pub format: TableFormat,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// A command; without one the page of runsmith itself
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}
