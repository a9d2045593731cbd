//! Pillars from files, directories and standard input.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::{DialectName, InputFormat, Inputs};
use crate::commands::progress::Progress;
use crate::commands::{Stop, any_error, file};
use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::pillar::{self, Dialect, Format, Node};
use crate::record::UNNAMED_SET;
use crate::rules::silence::{self, Silence};
use crate::services;
use crate::source::{MAX_BYTES, Source, Sources, Span};

/// What the pillars say, with the texts their spans point into.
pub(crate) struct Pillars {
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

/// The bytes of every pillar.
pub(crate) fn load(inputs: &Inputs) -> Result<Vec<Given>, Stop> {
    let paths = files(&inputs.pillars)?;
    let mut progress = Progress::new("reading", paths.len(), "pillars");
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        progress.step();
        let (bytes, size) = bytes(&path)?;
        all.push(Given { path, bytes, size });
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
            documents: vec![],
            findings: vec![],
            sets: vec![UNNAMED_SET.to_owned(); sources.next_id().0 as usize],
            sources,
            secrets: vec![],
            silences: vec![],
            dialect,
        };
        Self { input_format: inputs.input_format, given: inputs.pillars.clone(), pillars }
    }

    /// One more text of `size` bytes (of which too many need not be there); findings call it `name`.
    pub(crate) fn add(&mut self, name: String, path: &Path, bytes: Vec<u8>, size: u64) {
        self.pillars.sets.push(set_of(path, &self.given));
        let Pillars { documents, findings: found, sources, secrets, silences, dialect, .. } =
            &mut self.pillars;
        let id = sources.next_id();
        if let Some(finding) = pillar::too_large(size, id) {
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
        match pillar::parse(&source, id, format, *dialect) {
            Ok(parsed) => {
                let in_document = |node| services::secrets_in_document(node, source.text());
                secrets.extend(parsed.documents.iter().flat_map(in_document));
                // Of a key that is given twice, a document has one value only.
                if !parsed.warnings.is_empty() {
                    secrets.extend(services::secrets_in_text(source.text(), id));
                }
                // JSON has no comments.
                if format == Format::Yaml {
                    silences.extend(silence::find(&source, id, &parsed.documents));
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

/// The files that are meant: a directory stands for the pillars below it, in the order of their names.
pub(crate) fn files(pillars: &[PathBuf]) -> Result<Vec<PathBuf>, Stop> {
    let mut files = vec![];
    for pillar in pillars {
        if pillar.as_os_str() != "-" && pillar.is_dir() {
            let before = files.len();
            search(pillar, 0, &mut files)?;
            if files.len() == before {
                let sentence =
                    format!("{}: no *.yaml, *.yml, *.sls or *.json below this directory", pillar.display());
                return Err(Failure::Usage(sentence).into());
            }
        } else {
            files.push(pillar.clone());
        }
    }
    let files = once(files);
    if files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        return Err(Failure::Usage("standard input (-) can be read only once".to_owned()).into());
    }
    Ok(files)
}

/// Without those that are the same file as another one, named twice or by a link: its applications are there once. What is
/// no link stays before what is one, because a link is not corrected.
fn once(files: Vec<PathBuf>) -> Vec<PathBuf> {
    if files.len() < 2 {
        return files;
    }
    let mut seen: HashMap<(u64, u64), usize> = HashMap::with_capacity(files.len());
    let mut kept: Vec<PathBuf> = Vec::with_capacity(files.len());
    for file in files {
        // What cannot be read is said when it is.
        let at = match std::fs::metadata(&file) {
            Ok(is) if is.is_file() => *seen.entry((is.dev(), is.ino())).or_insert(kept.len()),
            _ => kept.len(),
        };
        match kept.get_mut(at) {
            Some(earlier) if earlier.is_symlink() && !file.is_symlink() => *earlier = file,
            Some(_) => {}
            None => kept.push(file),
        }
    }
    kept
}

fn search(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let refuse = |error: io::Error| Failure::path("read the directory", directory.to_string_lossy(), error);
    if depth > MAX_DEPTH {
        return Err(refuse(io::Error::other(format!("nested deeper than {MAX_DEPTH} directories"))));
    }
    let mut names = vec![];
    for entry in std::fs::read_dir(directory).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        // Hidden ones are editors' and git's.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            names.push((entry.path(), entry.file_type().map_err(refuse)?));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in names {
        if is_pillar(&path) {
            // A link that leads nowhere is somebody's pillar that is missing: reading it says so.
            let kind = if kind.is_symlink() {
                std::fs::metadata(&path).map(|file| file.file_type())
            } else {
                Ok(kind)
            };
            kind.map_or(Ok(()), file::regular)
                .map_err(|error| Failure::path("read", path.to_string_lossy(), error))?;
            files.push(path);
        } else if kind.is_dir() {
            search(&path, depth + 1, files)?;
        }
    }
    Ok(())
}

/// The bytes of a file and how many it has; no more than the limit and one are kept.
pub(crate) fn bytes(path: &Path) -> Result<(Vec<u8>, u64), Failure> {
    let refuse = |error: io::Error| Failure::path("read", path.to_string_lossy(), error);
    let mut bytes = vec![];
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refuse)?;
        let size = bytes.len() as u64;
        return Ok((bytes, size));
    }
    let file = File::open(path).map_err(refuse)?;
    let size = file.metadata().map_err(refuse)?.len();
    if size > MAX_BYTES as u64 {
        return Ok((bytes, size));
    }
    // A pipe or a device has no size; it is read up to the limit all the same.
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refuse)?;
    let size = bytes.len() as u64;
    Ok((bytes, size))
}
