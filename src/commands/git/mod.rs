//! The same pillars at another revision, read through the `git` command.

mod repository;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::file;
use super::inputs::is_pillar;
use super::render::{MAX_TEMPLATE, is_template, replace};
use crate::cli;
use crate::failure::Failure;
use crate::source::MAX_BYTES;
use crate::template::Templates;
use crate::visible::visible;
use repository::{Object, Repository};

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
/// the commit at which HEAD left A. The repository is that of the working directory.
pub(super) fn read(revision: &str, arguments: &cli::Render) -> Result<Found, Failure> {
    if revision.is_empty() || revision.starts_with('-') || revision.contains(['\0', '\n']) {
        let sentence = format!("--against git:{}: that is no revision", visible(revision));
        return Err(Failure::Usage(sentence));
    }
    if arguments.inputs.pillars.iter().any(|pillar| pillar.as_os_str() == "-") {
        let sentence = "--against git: needs pillars in files; standard input has no revisions".to_owned();
        return Err(Failure::Usage(sentence));
    }
    let repository = Repository::find()?;
    let places = arguments
        .inputs
        .pillars
        .iter()
        .map(|pillar| repository.path_of(pillar))
        .collect::<Result<Vec<_>, _>>()?;
    let commit = commit(&repository, revision)?;
    let texts = pillars(&repository, revision, &commit, &places)?;
    let templates = match &arguments.templates {
        None => None,
        // Templates from elsewhere are the same at every revision.
        Some(given) => match repository.path_of(given) {
            Err(_) => None,
            Ok(directory) => Some(templates(&repository, revision, &commit, &directory)?),
        },
    };
    Ok(Found { texts, templates })
}

/// The pillars that a commit has at these places, each once.
fn pillars(
    repository: &Repository,
    revision: &str,
    commit: &str,
    places: &[String],
) -> Result<Vec<Text>, Failure> {
    let mut paths = vec![];
    // A directory now may have been a file then, and the other way around.
    for (place, object) in places.iter().zip(repository.objects(commit, places)?) {
        match object {
            Some(object) if object.is_directory => {
                let below = list(repository, &object, place)?;
                paths.extend(below.into_iter().filter(|path| is_pillar(Path::new(path))));
            }
            Some(_) => paths.push(place.clone()),
            None => {}
        }
    }
    let mut seen = HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let objects = repository.objects(commit, &paths)?;
    let there: Vec<(String, Object)> =
        paths.into_iter().zip(objects).filter_map(|(path, object)| Some((path, object?))).collect();
    if let Some((path, _)) = there.iter().find(|(_, object)| object.is_directory) {
        return Err(Failure::path("read from git", format!("{revision}:{path}"), "it is not a file there"));
    }
    let is_wanted = |object: &&Object| object.size <= MAX_BYTES as u64;
    let wanted: Vec<&Object> = there.iter().map(|(_, object)| object).filter(is_wanted).collect();
    let mut contents = repository.contents(&wanted)?.into_iter();
    let text = |(path, object): &(String, Object)| Text {
        name: format!("{revision}:{path}"),
        path: PathBuf::from(path),
        bytes: if is_wanted(&object) { contents.next().unwrap_or_default() } else { vec![] },
        size: object.size,
    };
    Ok(there.iter().map(text).collect())
}

/// The built-in templates, some replaced by those that a commit has in a directory.
fn templates(
    repository: &Repository,
    revision: &str,
    commit: &str,
    directory: &str,
) -> Result<Templates, Failure> {
    let place = format!("{revision}:{directory}");
    let found = repository.objects(commit, &[directory.to_owned()])?;
    let names: Vec<String> = match found.into_iter().next().flatten() {
        Some(object) if object.is_directory => list(repository, &object, "")?
            .into_iter()
            .filter(|name| !name.contains('/') && is_template(name))
            .collect(),
        // A directory that was not there has nothing in it.
        _ => vec![],
    };
    let paths: Vec<String> = names.iter().map(|name| joined(directory, name)).collect();
    let mut replacements = vec![];
    for (name, object) in names.into_iter().zip(repository.objects(commit, &paths)?) {
        let Some(object) = object.filter(|object| !object.is_directory) else { continue };
        let refuse = |reason: String| Failure::path("read the template", format!("{place}/{name}"), reason);
        if object.size > MAX_TEMPLATE {
            return Err(refuse(file::too_large(MAX_TEMPLATE, "template")));
        }
        let bytes = repository.contents(&[&object])?.pop().unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        replacements.push((name, text));
    }
    replace(replacements, &place)
}

fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The commit's own name.
fn commit(repository: &Repository, revision: &str) -> Result<String, Failure> {
    let (output, warnings) = match revision.split_once("...") {
        Some((one, other)) => {
            let other = if other.is_empty() { "HEAD" } else { other };
            // Two steps, so that a revision that does not exist is told from one without a common past.
            let (one, other) = (commit(repository, one)?, commit(repository, other)?);
            let base = repository.git(&["merge-base", &one, &other]).map_err(|_| {
                let sentence = format!("--against git:{}: the two have no commit in common (in a shallow clone: fetch more of it)", visible(revision));
                Failure::Usage(sentence)
            })?;
            (base, String::new())
        }
        None => {
            let named = format!("{revision}^{{commit}}");
            repository.git_with_warnings(&["rev-parse", "--verify", "--end-of-options", &named]).map_err(
                |_| {
                    Failure::Usage(format!(
                        "--against git:{}: there is no such revision here",
                        visible(revision)
                    ))
                },
            )?
        }
    };
    // git takes a tag before a branch of the same name, and who may push one need not be allowed to push the other.
    if warnings.contains("is ambiguous") {
        let shown = visible(revision);
        return Err(Failure::Usage(format!(
            "--against git:{shown}: more than one ref has this name; write which one: refs/heads/{shown} or refs/tags/{shown}"
        )));
    }
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

/// The files below a directory that are not hidden, in the order in which a directory is searched; `place` is its path.
fn list(repository: &Repository, directory: &Object, place: &str) -> Result<Vec<String>, Failure> {
    let output = repository.git(&["ls-tree", "-r", "-z", "--name-only", "--full-tree", &directory.id])?;
    let text = String::from_utf8_lossy(&output);
    let mut paths: Vec<PathBuf> = text
        .split('\0')
        .filter(|path| !path.is_empty() && !path.split('/').any(|step| step.starts_with('.')))
        .map(|path| PathBuf::from(joined(place, path)))
        .collect();
    paths.sort();
    Ok(paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
}
