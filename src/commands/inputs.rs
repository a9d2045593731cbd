//! Pillars from files, directories and standard input. What a directory holds is read within that directory ([`beneath`]).

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::cli::{DialectName, InputFormat, Inputs};
use crate::commands::beneath::{self, Directory, Expect};
use crate::commands::progress::Progress;
use crate::commands::{Stop, any_error};
use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::pillar::{self, Dialect, Format, Node, Style, Value};
use crate::record::UNNAMED_SET;
use crate::rules::silence::{self, Silence};
use crate::services;
use crate::source::{MAX_BYTES, Source, Sources, Span};

/// What the pillars say, with the texts their spans point into.
pub(crate) struct Pillars {
    /// Some values may be in none of the documents.
    pub(crate) may_drop: bool,
    /// One node a document, in the order given.
    pub(crate) documents: Vec<Node>,
    /// What was found in reading: also what keeps a document from being among them.
    pub(crate) findings: Vec<Diagnostic>,
    /// The texts.
    pub(crate) sources: Sources,
    /// For each text the set that its services belong to unless one is named, by the text's number.
    pub(crate) sets: Vec<String>,
    /// Where secrets stand in them, or may.
    pub(crate) secrets: Vec<Span>,
    /// The comments that silence rules.
    pub(crate) silences: Vec<Silence>,
    /// How YAML was read.
    pub(crate) dialect: Dialect,
}

/// The endings of files that a directory is searched for.
const ENDINGS: &[&str] = &["yaml", "yml", "sls", "json"];

/// How deep directories are searched; deeper is a mistake (a link in a circle is not followed).
const MAX_DEPTH: usize = 64;

/// Reads every pillar; what is found is no error. The complaints of all of them come together.
pub(crate) fn read(inputs: &Inputs) -> Result<Pillars, Stop> {
    let pillars = read_all(inputs)?;
    if any_error(&pillars.findings) {
        return Err(Stop::Findings(pillars.findings, pillars.sources, pillars.secrets));
    }
    Ok(pillars)
}

/// A pillar as it was read.
#[derive(Clone)]
pub(crate) struct Given {
    /// As it was given, or as it was found in a directory; `-` is standard input.
    pub(crate) path: PathBuf,
    /// What it holds; nothing if that is too much.
    pub(crate) bytes: Vec<u8>,
    /// How many bytes it has.
    pub(crate) size: u64,
}

/// Reads every pillar that can be read; the findings tell about the others.
pub(crate) fn read_all(inputs: &Inputs) -> Result<Pillars, Stop> {
    Ok(parse(load(inputs)?, inputs))
}

/// The bytes of every pillar. Of those that are the same file, named twice or by a link, one is read: its applications are
/// there once. What is no link counts before what is one, because a link is not corrected.
pub(crate) fn load(inputs: &Inputs) -> Result<Vec<Given>, Stop> {
    load_all(&inputs.pillars)
}

/// As [`load`].
pub(crate) fn load_all(pillars: &[PathBuf]) -> Result<Vec<Given>, Stop> {
    let files = files(pillars)?;
    let mut progress = Progress::new("reading", files.len(), "pillars");
    let mut all: Vec<Given> = Vec::with_capacity(files.len());
    let mut seen: HashMap<(u64, u64), usize> = HashMap::with_capacity(files.len());
    for file in files {
        progress.step();
        let Read { bytes, size, identity } = file.read(|identity| seen.contains_key(&identity))?;
        let earlier = identity.and_then(|identity| seen.get(&identity)).and_then(|at| all.get_mut(*at));
        match earlier {
            Some(earlier) if earlier.path.is_symlink() && !file.path.is_symlink() => earlier.path = file.path,
            Some(_) => {}
            None => {
                seen.extend(identity.map(|identity| (identity, all.len())));
                all.push(Given { path: file.path, bytes, size });
            }
        }
    }
    Ok(all)
}

/// What the pillars say; each becomes a source, in order.
pub(crate) fn parse(all: Vec<Given>, inputs: &Inputs) -> Pillars {
    let mut reading = Reading::new(inputs, Sources::new());
    for Given { path, bytes, size } in all {
        reading.add(path.to_string_lossy().into_owned(), &path, bytes, size);
    }
    reading.pillars
}

/// Pillars that are being read, from wherever their bytes come.
pub(crate) struct Reading {
    input_format: Option<InputFormat>,
    /// The pillars as they were given.
    given: Vec<PathBuf>,
    /// Bytes of all texts so far.
    total: u64,
    /// What all texts so far have used up of what they may have together.
    used: pillar::Used,
    pub(crate) pillars: Pillars,
}

impl Reading {
    /// Reads as the arguments say; new texts come behind those that `sources` has.
    pub(crate) fn new(inputs: &Inputs, sources: Sources) -> Self {
        let dialect = match inputs.dialect {
            DialectName::Salt => Dialect::Salt,
            DialectName::Ansible => Dialect::Ansible,
            DialectName::Yaml12 => Dialect::Yaml12,
        };
        let pillars = Pillars {
            may_drop: false,
            documents: vec![],
            findings: vec![],
            sets: vec![UNNAMED_SET.to_owned(); sources.next_id().0 as usize],
            sources,
            secrets: vec![],
            silences: vec![],
            dialect,
        };
        Self {
            input_format: inputs.input_format,
            given: inputs.pillars.clone(),
            total: 0,
            used: pillar::Used::default(),
            pillars,
        }
    }

    /// One more text of `size` bytes (of which too many need not be there); findings call it `name`.
    pub(crate) fn add(&mut self, name: String, path: &Path, bytes: Vec<u8>, size: u64) {
        self.pillars.sets.push(set_of(path, &self.given));
        let Pillars {
            may_drop: drops, documents, findings: found, sources, secrets, silences, dialect, ..
        } = &mut self.pillars;
        let id = sources.next_id();
        self.total = self.total.saturating_add(size);
        if let Some(finding) =
            pillar::too_large(size, id).or_else(|| pillar::too_large_together(self.total, id))
        {
            sources.add(Source::new(name, ""));
            found.push(finding);
            return;
        }
        let source = match Source::from_bytes(&name, bytes, id) {
            Ok(source) => source,
            Err(refused) => {
                let (source, finding) = *refused;
                secrets.extend(services::secrets_in_text(source.text(), id));
                sources.add(source);
                found.push(finding);
                return;
            }
        };
        let format = format_of(path, source.text(), self.input_format);
        match pillar::parse_one_of(&source, id, format, *dialect, &mut self.used) {
            Ok(mut parsed) => {
                // Looked at as one, so that the comments of a text of many documents are read once.
                let span = Span::new(id, 0, source.text().len());
                let value = Value::List(std::mem::take(&mut parsed.documents));
                let mut whole = Node { span, via: None, style: Style::Collection, ordinary: false, value };
                // JSON has no comments.
                if format == Format::Yaml {
                    let found = silence::find(&source, id, std::slice::from_ref(&whole));
                    silence::make_ordinary(&found, &source, &mut whole);
                    silences.extend(found);
                }
                secrets.extend(services::secrets_in_document(&whole, source.text()));
                if let Value::List(each) = whole.value {
                    parsed.documents = each;
                }
                // Of a key that is given twice, a document has one value only.
                if !parsed.warnings.is_empty() || may_drop(source.text()) {
                    *drops = true;
                    secrets.extend(services::secrets_in_dropped(source.text(), id));
                }
                documents.extend(parsed.documents);
                found.extend(parsed.warnings);
            }
            Err(findings) => {
                secrets.extend(services::secrets_in_text(source.text(), id));
                found.extend(findings);
            }
        }
        sources.add(source);
    }
}

/// The set of a pillar that was given, or found in a directory that was given: the path of that, made
/// absolute, so that a later run with the same arguments knows its own. What has no lasting name has none.
fn set_of(path: &Path, given: &[PathBuf]) -> String {
    let given =
        given.iter().find(|given| path == *given).or(given.iter().find(|given| path.starts_with(given)));
    let absolute = std::path::absolute(given.map_or(path, PathBuf::as_path));
    match absolute {
        Ok(absolute)
            if path.as_os_str() != "-" && !absolute.starts_with("/dev") && !absolute.starts_with("/proc") =>
        {
            // Without a slash at the end, or steps that lead nowhere.
            absolute.components().collect::<PathBuf>().to_string_lossy().into_owned()
        }
        _ => UNNAMED_SET.to_owned(),
    }
}

/// The sets of a run: the one that is named, or those of its pillars; for each text the one that its services
/// belong to.
pub(crate) fn sets(named: Option<&str>, of_texts: &[String]) -> Vec<String> {
    match named {
        Some(name) => vec![name.to_owned(); of_texts.len()],
        None => of_texts.to_vec(),
    }
}

/// Files are told by their names, standard input by what was said of it, or by what it holds.
pub(crate) fn format_of(path: &Path, text: &str, said: Option<InputFormat>) -> Format {
    match said {
        Some(InputFormat::Json) if path.as_os_str() == "-" => Format::Json,
        Some(InputFormat::Yaml) if path.as_os_str() == "-" => Format::Yaml,
        _ if path.as_os_str() == "-" => guess(text),
        _ if has_ending(path, "json") => Format::Json,
        _ => Format::Yaml,
    }
}

/// Does a directory of pillars have it, by its ending?
pub(crate) fn is_pillar(path: &Path) -> bool {
    ENDINGS.iter().any(|ending| has_ending(path, ending))
}

/// What begins like JSON and is JSON's own kind of text is read as JSON. YAML's flow style begins
/// alike, but then reading it as YAML comes to the same.
fn guess(text: &str) -> Format {
    let json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if text.trim_start().starts_with('{') && json { Format::Json } else { Format::Yaml }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
}

/// A pillar that is to be read.
pub(crate) struct Input {
    /// As it was given, or as it was found in a directory; `-` is standard input.
    path: PathBuf,
    /// The directory of the command line that it was found in, and where in that.
    within: Option<(Arc<Directory>, PathBuf)>,
}

/// What was read of a pillar.
struct Read {
    /// No more than the limit and one.
    bytes: Vec<u8>,
    /// How many bytes there are.
    size: u64,
    /// Device and inode of a regular file.
    identity: Option<(u64, u64)>,
}

impl Input {
    /// Reads it, unless `is_known`.
    fn read(&self, is_known: impl FnOnce((u64, u64)) -> bool) -> Result<Read, Failure> {
        let refuse = |error: io::Error| Failure::path("read", self.path.to_string_lossy(), error);
        let mut bytes = vec![];
        if self.path.as_os_str() == "-" {
            io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refuse)?;
            let size = bytes.len() as u64;
            return Ok(Read { bytes, size, identity: None });
        }
        let file = match &self.within {
            Some((directory, below)) => directory.file(below),
            None => beneath::open(&self.path, Expect::Any),
        };
        let file = file.map_err(refuse)?;
        let is = file.metadata().map_err(refuse)?;
        let identity = is.is_file().then(|| (is.dev(), is.ino()));
        if is.len() > MAX_BYTES as u64 || identity.is_some_and(is_known) {
            return Ok(Read { bytes, size: is.len(), identity });
        }
        // A pipe or a device has no size; it is read up to the limit all the same.
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refuse)?;
        let size = bytes.len() as u64;
        Ok(Read { bytes, size, identity })
    }
}

/// The files that are meant: a directory stands for the pillars below it, in the order of their names.
fn files(pillars: &[PathBuf]) -> Result<Vec<Input>, Stop> {
    let mut files = vec![];
    for pillar in pillars {
        if pillar.as_os_str() != "-" && beneath::is_directory(pillar) {
            let before = files.len();
            let refuse =
                |error: io::Error| Failure::path("read the directory", pillar.to_string_lossy(), error);
            let directory = Arc::new(Directory::named(pillar).map_err(refuse)?);
            search(&Search { pillar, top: &directory }, &directory, Path::new(""), 0, &mut files)?;
            if files.len() == before {
                let sentence =
                    format!("{}: no *.yaml, *.yml, *.sls or *.json below this directory", pillar.display());
                return Err(Failure::Usage(sentence).into());
            }
        } else {
            files.push(Input { path: pillar.clone(), within: None });
        }
    }
    if files.iter().filter(|file| file.path.as_os_str() == "-").count() > 1 {
        return Err(Failure::Usage("standard input (-) can be read only once".to_owned()).into());
    }
    Ok(files)
}

/// A directory of the command line that is searched.
struct Search<'a> {
    pillar: &'a Path,
    top: &'a Arc<Directory>,
}

/// Adds the pillars of `directory`, which is at `below` in the one that is searched. Links to directories are not followed.
fn search(
    whole: &Search<'_>,
    directory: &Directory,
    below: &Path,
    depth: usize,
    files: &mut Vec<Input>,
) -> Result<(), Failure> {
    let shown = whole.pillar.join(below);
    let refuse = |error: io::Error| Failure::path("read the directory", shown.to_string_lossy(), error);
    if depth > MAX_DEPTH {
        return Err(refuse(io::Error::other(format!("nested deeper than {MAX_DEPTH} directories"))));
    }
    for (name, kind) in directory.list().map_err(refuse)? {
        // Hidden ones are editors' and git's.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let below = below.join(&name);
        if is_pillar(Path::new(&name)) {
            let path = whole.pillar.join(&below);
            files.push(Input { path, within: Some((Arc::clone(whole.top), below)) });
        } else if kind == FileType::Directory {
            let child = directory.child(&name);
            let child = child.map_err(|error| {
                Failure::path("read the directory", whole.pillar.join(&below).to_string_lossy(), error)
            })?;
            search(whole, &child, &below, depth + 1, files)?;
        }
    }
    Ok(())
}

/// Whether a text may have values that are in none of its documents, or where nobody looks for them: those of a set, of pairs, and of a map
/// that is merged and written there, some of which may be overridden.
fn may_drop(text: &str) -> bool {
    let has_tag = ["set", "pairs", "omap"]
        .iter()
        .any(|tag| text.contains(&format!("!!{tag}")) || text.contains(&format!("tag:yaml.org,2002:{tag}")));
    let is_written_there = |(at, sign): (usize, &str)| {
        let behind = text.get(at + sign.len()..).unwrap_or_default();
        let value = behind.trim_start_matches([' ', '\t', '"', '\'', ':', '[']);
        !value.starts_with('*')
    };
    has_tag || text.match_indices("<<").any(is_written_there)
}
