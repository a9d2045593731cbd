//! The repository of the working directory, and the `git` command such that it only reads there.
//!
//! A checkout is its author's, and so may be the repository's configuration; git obeys much of what it finds. Here the
//! repository is found once, from the working directory upwards, by its `.git`: a directory in a checkout that looks like a
//! repository (HEAD, objects, refs, config) is never taken for one. Nothing runs a hook, a pager, a filter, a file system
//! monitor or a helper, fetches anything, or writes; no variable of the environment changes what git does.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::beneath;
use crate::failure::Failure;
use crate::visible::visible;

/// What no configuration of the repository, of the user or of the system may say otherwise.
const SETTINGS: &[&str] = &[
    "safe.bareRepository=explicit",
    "protocol.allow=never",
    "protocol.ext.allow=never",
    "protocol.file.allow=never",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=false",
    "core.sshCommand=false",
    "core.pager=cat",
    "core.warnAmbiguousRefs=true",
    "credential.helper=",
];

/// The environment besides what there is without `GIT_*`. `GIT_ALLOW_PROTOCOL` is stronger than any configuration, and names
/// no transport. The trace targets are of those variables that configuration of the user and of the system could set, too.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TRACE2", "0"),
    ("GIT_TRACE2_EVENT", "0"),
    ("GIT_TRACE2_PERF", "0"),
    ("LC_ALL", "C"),
];

/// A repository that is only read.
pub(super) struct Repository {
    program: PathBuf,
    /// The git directory itself, absolute.
    directory: PathBuf,
    /// The top of the work tree, absolute and without links.
    top: PathBuf,
    /// No configuration of the user's is read, because the user's home lies in the work tree.
    is_home_inside: bool,
}

/// What a commit has at a path.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// The name of its object.
    pub(super) id: String,
    /// It is a directory; else it is a file.
    pub(super) is_directory: bool,
    /// Bytes of a file.
    pub(super) size: u64,
}

impl Repository {
    /// The repository of the working directory.
    ///
    /// # Errors
    /// There is none, git is missing, or git does not trust the one there is.
    pub(super) fn find() -> Result<Self, Failure> {
        let here = std::env::current_dir()
            .and_then(std::fs::canonicalize)
            .map_err(|error| Failure::path("find", "the working directory", error))?;
        let top = beneath::tree_of(&here).ok_or_else(|| {
            Failure::Usage(format!(
                "--against git: the working directory {} is in no git repository: change to the work tree of the pillars",
                visible(&here.to_string_lossy())
            ))
        })?;
        let program = program(&top)?;
        let is_home_inside = is_home_inside(&top);
        let found = Self { program, directory: top.join(".git"), top, is_home_inside };
        // git looks at who owns the repository when it finds it itself, and only then.
        let mut command = found.plain();
        command.env("GIT_CEILING_DIRECTORIES", found.top.parent().unwrap_or(&found.top));
        command.arg("-C").arg(&found.top).args(["rev-parse", "--absolute-git-dir", "--show-toplevel"]);
        let output = found.output(command, "rev-parse")?;
        let mut lines =
            output.split(|byte| *byte == b'\n').map(|line| PathBuf::from(OsStr::from_bytes(line)));
        let (directory, top) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        if top != found.top {
            let sentence = format!(
                "--against git: the work tree of {} is elsewhere, at {} (`core.worktree`); work in that one",
                visible(&found.top.to_string_lossy()),
                visible(&top.to_string_lossy())
            );
            return Err(Failure::Usage(sentence));
        }
        Ok(Self { directory, ..found })
    }

    /// The top of the work tree, for messages.
    pub(super) fn top(&self) -> std::borrow::Cow<'_, str> {
        self.top.to_string_lossy()
    }

    /// What a path of the command line is called in commits: links in the work tree are not followed, since a commit has its own.
    pub(super) fn path_of(&self, path: &Path) -> Result<String, Failure> {
        let shown = path.to_string_lossy();
        let located =
            beneath::locate(path).map_err(|error| Failure::path("find in git", shown.clone(), error))?;
        let absolute = located.absolute();
        let Ok(below) = absolute.strip_prefix(&self.top) else {
            let sentence = format!(
                "--against git: {} is not in {}, the repository of the working directory",
                visible(&shown),
                visible(&self.top())
            );
            return Err(Failure::Usage(sentence));
        };
        match below.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(Failure::path("find in git", shown, "the path is not UTF-8")),
        }
    }

    /// What a commit has at paths, in their order; a link is followed within the commit.
    ///
    /// # Errors
    /// A link leads to nothing in the commit, or a file is there whose content this clone does not have.
    pub(super) fn objects(&self, commit: &str, paths: &[String]) -> Result<Vec<Option<Object>>, Failure> {
        let requests: Vec<Vec<u8>> =
            paths.iter().map(|path| format!("{commit}:{path}\0").into_bytes()).collect();
        let format = "--batch-check=%(objectname) %(objecttype) %(objectsize)";
        let arguments = ["cat-file", format, "--follow-symlinks", "-z"];
        let mut found = vec![];
        let mut missing = vec![];
        self.ask(&arguments, &requests, |output| {
            for path in paths {
                let object = checked(output, commit, path)?;
                if object.is_none() {
                    missing.push(path.as_str());
                }
                found.push(object);
            }
            Ok(())
        })?;
        self.not_fetched(commit, &missing)?;
        Ok(found)
    }

    /// In a partial clone what was not fetched looks as if it was not there.
    fn not_fetched(&self, commit: &str, paths: &[&str]) -> Result<(), Failure> {
        for some in paths.chunks(PATHS_A_COMMAND) {
            let mut arguments = vec!["ls-tree", "-z", "--name-only", "--full-tree", commit, "--"];
            arguments.extend(some.iter().filter(|path| !path.is_empty()));
            if arguments.last() == Some(&"--") {
                continue;
            }
            let there = self.git(&arguments)?;
            if let Some(first) = there.split(|byte| *byte == 0).find(|path| !path.is_empty()) {
                let reason = "this clone has only part of the history and nothing is fetched here; fetch it before, or clone without --filter";
                return Err(Failure::path("read from git", String::from_utf8_lossy(first), reason));
            }
        }
        Ok(())
    }

    /// The contents of files, in the order of their objects; one process for all of them.
    pub(super) fn contents(&self, files: &[&Object]) -> Result<Vec<Vec<u8>>, Failure> {
        let requests: Vec<Vec<u8>> = files.iter().map(|file| format!("{}\0", file.id).into_bytes()).collect();
        let mut found = vec![];
        self.ask(&["cat-file", "--batch", "-z"], &requests, |output| {
            for file in files {
                found.push(content(output, file)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Runs a command that answers requests, and reads its answers.
    fn ask(
        &self,
        arguments: &[&str],
        requests: &[Vec<u8>],
        read: impl FnOnce(&mut dyn BufRead) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(start)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Ok(());
        };
        let result = std::thread::scope(|scope| {
            // Written beside the reading: both pipes are short.
            let writer =
                scope.spawn(move || requests.iter().try_for_each(|request| input.write_all(request)));
            let mut output = BufReader::new(output);
            let result = read(&mut output);
            drop(output);
            let _ = writer.join();
            result
        });
        let _ = child.wait();
        result.map_err(|error| Failure::path("read from git", visible(&self.top()), error))
    }

    /// The standard output of a git command that succeeded.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut command = self.command();
        command.args(arguments);
        self.output(command, arguments.first().unwrap_or(&""))
    }

    /// As [`Self::git`], with what git warns about.
    pub(super) fn git_with_warnings(&self, arguments: &[&str]) -> Result<(Vec<u8>, String), Failure> {
        let output = self.command().args(arguments).output().map_err(start)?;
        if !output.status.success() {
            return Err(self.refused(&output.stderr, arguments.first().unwrap_or(&"")));
        }
        Ok((output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// git, of this git directory.
    fn command(&self) -> Command {
        let mut command = self.plain();
        let mut directory = std::ffi::OsString::from("--git-dir=");
        directory.push(&self.directory);
        command.arg(directory);
        command
    }

    /// git, such that it only reads.
    fn plain(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        command.envs(ENVIRONMENT.iter().copied());
        if self.is_home_inside {
            command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        }
        // Nothing of the working directory counts any more.
        command.current_dir("/").stdin(Stdio::null());
        command.args(["--no-pager", "--no-optional-locks", "--literal-pathspecs", "--no-replace-objects"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
    }

    fn output(&self, mut command: Command, what: &str) -> Result<Vec<u8>, Failure> {
        let output = command.output().map_err(start)?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.refused(&output.stderr, what)) }
    }

    fn refused(&self, errors: &[u8], what: &str) -> Failure {
        let errors = String::from_utf8_lossy(errors);
        let top = self.top();
        let top = visible(&top);
        Failure::Usage(if errors.contains("dubious ownership") {
            // Configuration of a home within the work tree is the checkout's, and is not read.
            let scope = if self.is_home_inside { "--system" } else { "--global" };
            format!(
                "git does not trust the repository {top}, because somebody else owns it; if you trust it: \
                 git config {scope} --add safe.directory {top}"
            )
        } else if errors.contains("not a git repository") {
            format!("--against git: {top} has a .git that is not a git repository")
        } else {
            let first = errors.lines().next().unwrap_or("it failed without a reason");
            format!("git {what}: {}", visible(first))
        })
    }
}

/// Paths that one command is given; far from the most that the kernel takes.
const PATHS_A_COMMAND: usize = 200;

/// The git program of the search path. One that lies in the checkout is its author's, and a search path that depends on the
/// working directory would find it.
fn program(top: &Path) -> Result<PathBuf, Failure> {
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
            && !path.canonicalize().is_ok_and(|path| path.starts_with(top))
    };
    std::env::split_paths(&search)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("git"))
        .find(is_program)
        .ok_or_else(|| {
            Failure::path("run", "git", "no absolute directory of PATH outside of the work tree has it")
        })
}

/// Whether configuration of the user's would come from the work tree.
fn is_home_inside(top: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let settings =
        std::env::var_os("XDG_CONFIG_HOME").map(|directory| PathBuf::from(directory).join("git/config"));
    let of_home = home.iter().flat_map(|home| [home.join(".gitconfig"), home.join(".config/git/config")]);
    // As git would open them: relative ones from where it runs.
    of_home.chain(settings).any(|path| {
        let path = Path::new("/").join(path);
        let real = path.canonicalize().or_else(|_| path.parent().unwrap_or(&path).canonicalize());
        path.starts_with(top) || real.is_ok_and(|real| real.starts_with(top))
    })
}

/// One answer of `cat-file --batch-check`: `ID TYPE SIZE`, or why there is nothing.
fn checked(output: &mut dyn BufRead, commit: &str, path: &str) -> std::io::Result<Option<Object>> {
    let other = std::io::Error::other;
    let mut line = vec![];
    output.read_until(b'\n', &mut line)?;
    // What is missing comes back as it was asked for, with the newlines of its name.
    if line.starts_with(commit.as_bytes()) && line.get(commit.len()) == Some(&b':') {
        for _ in path.matches('\n') {
            output.read_until(b'\n', &mut line)?;
        }
    }
    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
    if line.is_empty() {
        return Err(other(format!("git ended before it gave {}", visible(path))));
    }
    if text.ends_with(" missing") {
        return Ok(None);
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["symlink" | "dangling" | "loop" | "notdir", _] => {
            Err(other(format!("{}: it is a link that leads to no file of the revision", visible(path))))
        }
        [id, kind @ ("blob" | "tree"), size] => match size.parse() {
            Ok(size) => Ok(Some(Object { id: (*id).to_owned(), is_directory: *kind == "tree", size })),
            Err(_) => Err(other(format!("git answers for {}: {}", visible(path), visible(&text)))),
        },
        [_, "commit", _] => Ok(None),
        _ => Err(other(format!("git answers for {}: {}", visible(path), visible(&text)))),
    }
}

/// One answer of `cat-file --batch`: a line, the bytes, and a newline.
fn content(output: &mut dyn BufRead, file: &Object) -> std::io::Result<Vec<u8>> {
    let mut line = vec![];
    output.read_until(b'\n', &mut line)?;
    if line != format!("{} blob {}\n", file.id, file.size).as_bytes() {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        return Err(std::io::Error::other(format!("git answers for {}: {}", file.id, visible(&text))));
    }
    let mut bytes = vec![];
    output.take(file.size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != file.size {
        return Err(std::io::Error::other(format!("git ended in the middle of {}", file.id)));
    }
    output.read_exact(&mut [0])?;
    Ok(bytes)
}

fn start(error: std::io::Error) -> Failure {
    Failure::path("run", "git", error)
}
