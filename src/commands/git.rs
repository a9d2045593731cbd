//! The same pillars at another revision, read through the `git` command.
//!
//! A repository may be anybody's, and git obeys its configuration: nothing here runs a hook, a
//! pager, a file system monitor, a filter or a helper of it, fetches anything, or writes to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::inputs::is_pillar;
use super::render::{is_template, replace};
use crate::cli;
use crate::failure::Failure;
use crate::source::MAX_BYTES;
use crate::template::Templates;
use crate::visible::visible;

/// A text at a revision.
pub(super) struct Text {
    /// What findings call it: `main:pillar/web.yaml`.
    pub(super) name: String,
    /// Its path in the repository.
    pub(super) path: PathBuf,
    /// The bytes; none if they are too many.
    pub(super) bytes: Vec<u8>,
    /// How many bytes there are.
    pub(super) size: u64,
}

/// What a revision has.
pub(super) struct Found {
    /// The pillars that were there; those that were not are new.
    pub(super) texts: Vec<Text>,
    /// The templates that were there, if `--templates` lies in the repository.
    pub(super) templates: Option<Templates>,
}

/// Reads the pillars of the arguments at a revision: any name git has for a commit, or `A...` for
/// the commit at which HEAD left A.
pub(super) fn read(revision: &str, arguments: &cli::Render) -> Result<Found, Failure> {
    if revision.is_empty() || revision.starts_with('-') || revision.contains(['\0', '\n']) {
        let sentence = format!("--against git:{}: that is no revision", visible(revision));
        return Err(Failure::Usage(sentence));
    }
    let mut places = vec![];
    for pillar in &arguments.inputs.pillars {
        if pillar.as_os_str() == "-" {
            let sentence =
                "--against git: needs pillars in files; standard input has no revisions".to_owned();
            return Err(Failure::Usage(sentence));
        }
        places.push(Place::of(pillar)?);
    }
    let Some(first) = places.first() else { return Err(Failure::Usage("no pillar".to_owned())) };
    let top = first.top.clone();
    if let Some(other) = places.iter().find(|place| place.top != top) {
        let sentence = format!(
            "--against git: {} and {} are in different repositories",
            visible(&top.to_string_lossy()),
            visible(&other.top.to_string_lossy())
        );
        return Err(Failure::Usage(sentence));
    }
    let commit = commit(&top, revision)?;
    let mut wanted = vec![];
    for place in &places {
        if place.directory {
            wanted.extend(
                list(&top, &commit, &place.path)?.into_iter().filter(|path| is_pillar(Path::new(path))),
            );
        } else {
            wanted.push(place.path.clone());
        }
    }
    let mut templates = vec![];
    let mut directory = None;
    if let Some(given) = &arguments.templates
        && let Ok(place) = Place::of(given)
        && place.top == top
    {
        let below = if place.path.is_empty() { String::new() } else { format!("{}/", place.path) };
        let own = |path: &String| {
            path.strip_prefix(below.as_str()).is_some_and(|name| !name.contains('/') && is_template(name))
        };
        templates = list(&top, &commit, &place.path)?.into_iter().filter(own).collect();
        directory = Some(place.path);
    }
    let all: Vec<&String> = wanted.iter().chain(&templates).collect();
    let mut contents = contents(&top, &commit, &all)?;
    let texts = wanted
        .iter()
        .filter_map(|path| {
            let (bytes, size) = contents.remove(path)?;
            Some(Text { name: format!("{revision}:{path}"), path: PathBuf::from(path), bytes, size })
        })
        .collect();
    let templates = match directory {
        None => None,
        Some(directory) => {
            let mut replacements = vec![];
            for path in &templates {
                let Some((bytes, _)) = contents.remove(path) else { continue };
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                let text = String::from_utf8(bytes).map_err(|error| {
                    Failure::path("read the template", format!("{revision}:{path}"), error)
                })?;
                replacements.push((name, text));
            }
            Some(replace(replacements, &format!("{revision}:{directory}"))?)
        }
    };
    Ok(Found { texts, templates })
}

/// Where a path is in its repository.
struct Place {
    top: PathBuf,
    /// From the top, with slashes; empty for the top itself.
    path: String,
    directory: bool,
}

impl Place {
    fn of(path: &Path) -> Result<Self, Failure> {
        let directory = path.is_dir();
        let (within, name) = if directory {
            (path.to_owned(), None)
        } else {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let Some(Component::Normal(name)) = path.components().next_back() else {
                return Err(Failure::path("find in git", visible(&path.to_string_lossy()), "it is no file"));
            };
            (parent.unwrap_or(Path::new(".")).to_owned(), Some(name.to_owned()))
        };
        let output = git(&within, &["rev-parse", "--show-toplevel", "--show-prefix"])?;
        let text = String::from_utf8(output).map_err(|_| {
            Failure::path("find in git", visible(&path.to_string_lossy()), "the path is not UTF-8")
        })?;
        let mut lines = text.split('\n');
        let (top, prefix) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let name = match name {
            Some(name) => name.into_string().map_err(|name| {
                Failure::path("find in git", visible(&name.to_string_lossy()), "the path is not UTF-8")
            })?,
            None => String::new(),
        };
        let path = format!("{prefix}{name}").trim_end_matches('/').to_owned();
        Ok(Self { top: PathBuf::from(top), path, directory })
    }
}

/// The commit's own name.
fn commit(top: &Path, revision: &str) -> Result<String, Failure> {
    let output = match revision.split_once("...") {
        Some((one, other)) => {
            let other = if other.is_empty() { "HEAD" } else { other };
            // Two steps, so that a revision that does not exist is told from one without a common past.
            let (one, other) = (commit(top, one)?, commit(top, other)?);
            git(top, &["merge-base", &one, &other]).map_err(|_| {
                let sentence = format!("--against git:{}: the two have no commit in common (in a shallow clone: fetch more of it)", visible(revision));
                Failure::Usage(sentence)
            })?
        }
        None => {
            let named = format!("{revision}^{{commit}}");
            git(top, &["rev-parse", "--verify", "--quiet", "--end-of-options", &named]).map_err(|_| {
                Failure::Usage(format!("--against git:{}: there is no such revision here", visible(revision)))
            })?
        }
    };
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

/// The files below a directory of a commit that are not hidden, in the order in which a directory is searched.
fn list(top: &Path, commit: &str, directory: &str) -> Result<Vec<String>, Failure> {
    let tree = format!("{commit}:{directory}");
    // A directory that was not there has nothing in it.
    if git(top, &["cat-file", "-e", &tree]).is_err() {
        return Ok(vec![]);
    }
    let output = git(top, &["ls-tree", "-r", "-z", "--name-only", "--full-tree", &tree])?;
    let text = String::from_utf8_lossy(&output);
    let mut paths: Vec<PathBuf> = text
        .split('\0')
        .filter(|path| !path.is_empty() && !path.split('/').any(|step| step.starts_with('.')))
        .map(|path| if directory.is_empty() { PathBuf::from(path) } else { Path::new(directory).join(path) })
        .collect();
    paths.sort();
    Ok(paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// The contents of files of a commit, by their paths; one process for all of them. What is not there
/// is left out; of what is too large only the size is kept.
fn contents(
    top: &Path,
    commit: &str,
    paths: &[&String],
) -> Result<BTreeMap<String, (Vec<u8>, u64)>, Failure> {
    let mut found = BTreeMap::new();
    if paths.is_empty() {
        return Ok(found);
    }
    let refuse =
        |error: std::io::Error| Failure::path("read from git", visible(&top.to_string_lossy()), error);
    // A link within the commit is followed as on a disk.
    let mut child = command(top)
        .args(["cat-file", "--batch", "--follow-symlinks", "-z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(start)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return Ok(found) };
    let requests: Vec<String> = paths.iter().map(|path| format!("{commit}:{path}\0")).collect();
    let result = std::thread::scope(|scope| {
        // Written beside the reading: both pipes are short.
        let writer =
            scope.spawn(move || requests.iter().try_for_each(|request| input.write_all(request.as_bytes())));
        let mut output = BufReader::new(output);
        let result = paths.iter().try_for_each(|path| {
            if let Some(content) = answer(&mut output, path)? {
                found.insert((*path).clone(), content);
            }
            Ok(())
        });
        drop(output);
        let _ = writer.join();
        result
    });
    let _ = child.wait();
    result.map_err(refuse)?;
    Ok(found)
}

/// One answer of `cat-file --batch`: `NAME TYPE SIZE`, then the bytes; or why there is nothing.
fn answer(output: &mut impl BufRead, path: &str) -> std::io::Result<Option<(Vec<u8>, u64)>> {
    let mut line = vec![];
    output.read_until(b'\n', &mut line)?;
    // A name with newlines comes back as it was asked for.
    for _ in path.matches('\n') {
        if line.first().is_some_and(u8::is_ascii_hexdigit) && line.contains(&b':') {
            output.read_until(b'\n', &mut line)?;
        }
    }
    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
    if line.is_empty() {
        return Err(std::io::Error::other(format!("git ended before it gave {}", visible(path))));
    }
    if text.ends_with(" missing") {
        return Ok(None);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let size = words.last().and_then(|size| size.parse::<u64>().ok());
    let (Some(size), [first, ..]) = (size, words.as_slice()) else {
        return Err(std::io::Error::other(format!("git says of {}: {}", visible(path), visible(&text))));
    };
    if matches!(*first, "symlink" | "dangling" | "loop" | "notdir") {
        let reason = format!("{}: it is a link that leads to no file of the revision", visible(path));
        return Err(std::io::Error::other(reason));
    }
    if words.get(1) != Some(&"blob") {
        return Err(std::io::Error::other(format!("{} is no file there", visible(path))));
    }
    let mut bytes = vec![];
    if size > MAX_BYTES as u64 {
        std::io::copy(&mut output.by_ref().take(size), &mut std::io::sink())?;
    } else {
        output.by_ref().take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(std::io::Error::other(format!("git ended in the middle of {}", visible(path))));
        }
    }
    // A newline ends the answer.
    output.read_exact(&mut [0])?;
    Ok(Some((bytes, size)))
}

/// git, such that it only reads.
fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.args(["--no-pager", "--no-optional-locks", "--literal-pathspecs"]);
    for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never"] {
        command.args(["-c", setting]);
    }
    command.arg("-C").arg(directory);
    // A hook that calls us names the repository that it is about; ours is the pillars'.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE"] {
        command.env_remove(name);
    }
    command.envs([("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0"), ("GIT_NO_LAZY_FETCH", "1")]);
    command.stdin(Stdio::null());
    command
}

/// The standard output of a git command that succeeded.
fn git(directory: &Path, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
    let output = command(directory).args(arguments).output().map_err(start)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let talk = String::from_utf8_lossy(&output.stderr);
    let shown = directory.to_string_lossy();
    let sentence = if talk.contains("dubious ownership") {
        format!(
            "git does not trust the repository of {}, because somebody else owns it; if you do: \
             git config --global --add safe.directory PATH-OF-ITS-TOP",
            visible(&shown)
        )
    } else if talk.contains("not a git repository") {
        format!("--against git: {} is in no git repository", visible(&shown))
    } else {
        let first = talk.lines().next().unwrap_or("it failed and did not say why");
        format!("git {}: {}", arguments.first().unwrap_or(&""), visible(first))
    };
    Err(Failure::Usage(sentence))
}

fn start(error: std::io::Error) -> Failure {
    Failure::path("run", "git", error)
}
