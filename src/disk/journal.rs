//! What root alone knows of what it made: runs that have not ended, and directories of root's that lie where others can
//! rename things.
//!
//! The journal is `/var/lib/runsmith/journal` below ROOT, one JSON object a line, and is only ever added to; a last line
//! that is not whole is that of a run which was killed. It is used if root alone could have written it. A name in
//! somebody else's directory proves nothing; only the journal says what a killed run left.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, fsync, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::bounded;
use super::directory::{Directory, Step, failure, ours};
use super::identity::Identity;
use super::recorded;
use crate::failure::Failure;
use crate::record;
use crate::tree::{Change, How};

/// Its name, beside the directory of the records.
const NAME: &str = "journal";

/// What a new version is called until it is complete.
const NEW: &str = "journal.new";

/// So often it is read again if it became longer meanwhile.
const READS: usize = 5;

/// A longer one is not read, in bytes: a service has some five directories, of about 150 bytes each.
const LONGEST: u64 = 64 << 20;

/// So many runs that were killed are remembered. Their leftovers are removed when their directory is looked at again.
const KILLED: usize = 64;

/// So many lines more than needed make it worth writing anew.
const SPARE: usize = 1000;

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// A run begins; this is in all its temporary names.
    Run(String),
    /// The run has ended, and has left nothing.
    Done(String),
    /// A run made this directory for what it writes, where others can rename it.
    Area { run: String, path: String, is: Identity },
    /// Root made this directory, where others can rename it.
    Made { path: String, is: Identity },
    /// At this path this directory of root's held something as a record has it, where others can rename it: runsmith has
    /// used it before, and may not have made it.
    Known { path: String, is: Identity },
    /// Root has removed that one.
    Gone { path: String },
}

/// A directory that a killed run left, where others can rename things.
#[derive(Clone, Debug)]
pub(super) struct LeftArea {
    /// Its path when it was made, as entries have theirs.
    pub(super) path: String,
    pub(super) is: Identity,
}

/// What is known, and where more is written down.
pub(super) struct Journal {
    /// In the temporary names of this run.
    run: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    durable: bool,
    /// The directory it is in, with the directories that were made on the way to it; nothing if nothing is kept.
    place: Option<(Directory, Vec<(Directory, String)>)>,
    file: Option<OwnedFd>,
    lines: usize,
    /// The runs that were killed, and the directories that they left.
    killed: BTreeMap<String, Vec<LeftArea>>,
    /// In the order in which they ran.
    order: Vec<String>,
    made: BTreeMap<String, Identity>,
    known: BTreeMap<String, Identity>,
    /// Those that this run made.
    new: Vec<String>,
    begun: bool,
    /// The directories that were made have been reported.
    told: bool,
}

impl Journal {
    /// One that knows nothing and keeps nothing.
    pub(super) fn none(run: String) -> Self {
        Self { run, state: Mutex::default() }
    }

    /// Reads the one below `root`, if it is root's alone.
    pub(super) fn read(&self, root: &Directory, durable: bool) -> Result<(), Failure> {
        let mut state = self.lock();
        state.durable = durable;
        let Some(dir) = recorded::step_to(root, above())? else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match openat(dir.fd(), NAME, flags, Mode::empty()) {
            Ok(fd) => fd,
            // Who may not read it knows nothing of it.
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(failure("read the journal", dir.path_of(NAME), error)),
        };
        let stat = fstat(&fd).map_err(|error| failure("read the journal", dir.path_of(NAME), error))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || !dir.trusted() || !ours(stat.st_uid) || stat.st_mode & 0o022 != 0 {
            return Ok(());
        }
        // A run in another mount namespace, where the lock is another file, may be adding a line.
        let mut reads = (0..READS).map(|_| bounded::read(&fd, LONGEST));
        let read =
            reads.find(|read| *read != Err(bounded::Refused::Grew)).unwrap_or(Err(bounded::Refused::Grew));
        let bytes = read.map_err(|error| error.of("read the journal", dir.path_of(NAME)))?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            // What cannot be read proves nothing.
            if let Ok(line) = serde_json::from_slice(line) {
                state.learn(line);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep it, and makes the directory for that, in a run that has something to write down.
    pub(super) fn open(&self, root: &Directory) -> Result<(), Failure> {
        if self.lock().place.is_some() {
            return Ok(());
        }
        let mut made = vec![];
        match way(root, &mut made) {
            Ok(found) => {
                self.lock().place = found.filter(Directory::trusted).map(|here| (here, made));
                Ok(())
            }
            Err(failure) => {
                remove_empty(&made);
                Err(failure)
            }
        }
    }

    /// The directories that were made for it, as changes, once.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.told, true) {
            return vec![];
        }
        let made = state.place.iter().flat_map(|(_, made)| made);
        let mut path = String::new();
        let mut paths = vec![];
        for step in above().split('/').filter(|step| !step.is_empty()) {
            path = format!("{path}/{step}");
            paths.push(path.clone());
        }
        // What was made is the end of the way.
        let count = made.count();
        paths
            .into_iter()
            .rev()
            .take(count)
            .map(|path| Change { path, how: How::Created("directory") })
            .collect()
    }

    /// Whether a temporary name with this number is that of a run that was killed.
    pub(super) fn was_killed(&self, run: &str) -> bool {
        run != self.run && self.lock().killed.contains_key(run)
    }

    /// Whether any run was killed.
    pub(super) fn has_killed(&self) -> bool {
        let state = self.lock();
        state.killed.keys().any(|run| *run != self.run)
    }

    /// The directories that killed runs left where others can rename things.
    pub(super) fn left(&self) -> Vec<LeftArea> {
        self.lock().killed.values().flatten().cloned().collect()
    }

    /// Whether root made the directory at this path, which is open.
    pub(super) fn made(&self, path: &str, fd: impl AsFd) -> bool {
        let Ok(found) = Identity::of(fd) else { return false };
        self.lock().made.get(path).is_some_and(|made| made.is(&found))
    }

    /// Whether the directory at this path, which is open, has held something as a record has it.
    pub(super) fn knows(&self, path: &str, fd: impl AsFd) -> bool {
        let Ok(found) = Identity::of(fd) else { return false };
        self.lock().known.get(path).is_some_and(|known| known.is(&found))
    }

    /// To be called before the first temporary name is used.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.begun {
            return Ok(());
        }
        let run = self.run.clone();
        state.add(&[Line::Run(run)])?;
        state.begun = true;
        Ok(())
    }

    /// To be called before anything is put into a directory that others can rename.
    pub(super) fn area(&self, path: &str, is: Identity) -> Result<(), Failure> {
        let line = Line::Area { run: self.run.clone(), path: path.to_owned(), is };
        self.lock().add(&[line])
    }

    /// To be called before directories of root's that were `made` get their names where others can rename them, and before
    /// something changes in those that are `known`.
    pub(super) fn make(
        &self,
        made: Vec<(String, Identity)>,
        known: Vec<(String, Identity)>,
    ) -> Result<(), Failure> {
        if made.is_empty() && known.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let new: Vec<_> = made.iter().map(|(path, _)| path.clone()).collect();
        let known: BTreeMap<_, _> = known.into_iter().collect();
        let made = made.into_iter().map(|(path, is)| Line::Made { path, is });
        let known = known.into_iter().map(|(path, is)| Line::Known { path, is });
        let lines: Vec<_> = made.chain(known).collect();
        state.add(&lines)?;
        state.new.extend(new);
        Ok(())
    }

    /// Root has removed the directory at this path.
    pub(super) fn gone(&self, path: &str) -> Result<(), Failure> {
        let mut state = self.lock();
        if !state.made.contains_key(path) && !state.known.contains_key(path) {
            return Ok(());
        }
        state.add(&[Line::Gone { path: path.to_owned() }])
    }

    /// Nothing is left of this run.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        // Each was looked for at its place; what is not there any more is nowhere to be found.
        for areas in state.killed.values_mut() {
            areas.clear();
        }
        let surplus = state.order.len().saturating_sub(KILLED);
        for run in state.order.drain(..surplus).collect::<Vec<_>>() {
            state.killed.remove(&run);
        }
        if !state.begun {
            return Ok(());
        }
        state.begun = false;
        let run = self.run.clone();
        state.killed.remove(&run);
        state.order.retain(|one| *one != run);
        if state.killed.is_empty() && state.knows_nothing() {
            return state.remove();
        }
        if state.lines > state.killed.len() + state.made.len() + state.known.len() + SPARE {
            return state.rewrite();
        }
        state.add(&[Line::Done(run)])
    }

    /// Takes back what was made for it, as far as nothing else is in there.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        let begun = std::mem::take(&mut state.begun);
        let new = std::mem::take(&mut state.new);
        for path in &new {
            state.made.remove(path);
        }
        if !begun && state.file.is_none() {
            // Nothing was written down.
        } else if state.killed.keys().all(|run| *run == self.run) && state.knows_nothing() {
            let _ = state.remove();
        } else if begun {
            let mut lines: Vec<_> = new.into_iter().map(|path| Line::Gone { path }).collect();
            lines.push(Line::Done(self.run.clone()));
            // That it was stopped is what is reported.
            let _ = state.add(&lines);
        }
        let made = state.place.take().map(|(_, made)| made).unwrap_or_default();
        remove_empty(&made);
    }
}

impl State {
    fn knows_nothing(&self) -> bool {
        self.made.is_empty() && self.known.is_empty()
    }

    fn learn(&mut self, line: Line) {
        self.lines += 1;
        match line {
            Line::Run(run) => {
                self.killed.entry(run.clone()).or_default();
                self.order.push(run);
            }
            Line::Done(run) => {
                self.killed.remove(&run);
                self.order.retain(|one| *one != run);
            }
            Line::Area { run, path, is } => self.killed.entry(run).or_default().push(LeftArea { path, is }),
            Line::Made { path, is } => drop(self.made.insert(path, is)),
            Line::Known { path, is } => drop(self.known.insert(path, is)),
            Line::Gone { path } => {
                self.made.remove(&path);
                self.known.remove(&path);
            }
        }
    }

    /// Adds lines; they are on the disk when this returns.
    fn add(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let Some((dir, _)) = &self.place else { return Ok(()) };
        let fail = |error| failure("write the journal", dir.path_of(NAME), error);
        if self.file.is_none() {
            let flags = OFlags::WRONLY
                | OFlags::APPEND
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::NOCTTY
                | OFlags::CLOEXEC;
            let fd = openat(dir.fd(), NAME, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
            // Whatever mask somebody has set.
            fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(fail)?;
            let stat = fstat(&fd).map_err(fail)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
                let reason = "it is not an ordinary file; move it away";
                return Err(Failure::path("write the journal", dir.path_of(NAME), reason));
            }
            if self.durable {
                fsync(dir.fd()).map_err(fail)?;
            }
            self.file = Some(fd);
        }
        let Some(file) = &self.file else { return Ok(()) };
        // A run that was killed, or could not write, may have left half a line.
        let mut text = if fstat(file).map_err(fail)?.st_size == 0 { vec![] } else { vec![b'\n'] };
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|error| fail(system(&error.into())))?;
            text.push(b'\n');
        }
        let file = std::fs::File::from(file.try_clone().map_err(|error| fail(system(&error)))?);
        (&file).write_all(&text).map_err(|error| fail(system(&error)))?;
        if self.durable {
            fsync(&file).map_err(fail)?;
        }
        for line in lines {
            self.learn(line.clone());
        }
        Ok(())
    }

    /// Writes it anew with what is still true.
    fn rewrite(&mut self) -> Result<(), Failure> {
        let Some((dir, _)) = &self.place else { return Ok(()) };
        let dir = dir.clone();
        let fail = |error| failure("write the journal", dir.path_of(NEW), error);
        match unlinkat(dir.fd(), NEW, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(error)),
        }
        let mut text = vec![];
        let runs = self.order.iter().map(|run| Line::Run(run.clone()));
        let made = self.made.iter().map(|(path, is)| Line::Made { path: path.clone(), is: *is });
        let known = self.known.iter().map(|(path, is)| Line::Known { path: path.clone(), is: *is });
        let lines: Vec<_> = runs.chain(made).chain(known).collect();
        for line in &lines {
            serde_json::to_writer(&mut text, line).map_err(|error| fail(system(&error.into())))?;
            text.push(b'\n');
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir.fd(), NEW, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let file = std::fs::File::from(fd);
        (&file).write_all(&text).map_err(|error| fail(system(&error)))?;
        if self.durable {
            fsync(&file).map_err(fail)?;
        }
        renameat(dir.fd(), NEW, dir.fd(), NAME).map_err(fail)?;
        if self.durable {
            fsync(dir.fd()).map_err(fail)?;
        }
        self.file = None;
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Failure> {
        self.file = None;
        let Some((dir, _)) = &self.place else { return Ok(()) };
        match unlinkat(dir.fd(), NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failure("remove the journal", dir.path_of(NAME), error)),
        }
    }
}

/// Opens the directory that it is in, and makes what is missing of it; nothing if something else is in its place.
fn way(root: &Directory, made: &mut Vec<(Directory, String)>) -> Result<Option<Directory>, Failure> {
    let mut here = root.clone();
    for step in above().split('/').filter(|step| !step.is_empty()) {
        let fail = |error| failure("make the directory", here.path_of(step), error);
        let found = match here.step(step)? {
            Step::Missing => {
                mkdirat(here.fd(), step, Mode::from_raw_mode(0o755)).map_err(fail)?;
                made.push((here.clone(), step.to_owned()));
                let found = here.step(step)?;
                if let Step::Directory(found) = &found {
                    // Whatever the umask is.
                    fchmod(found.fd(), Mode::from_raw_mode(0o755)).map_err(fail)?;
                }
                found
            }
            found => found,
        };
        let Step::Directory(next) = found else { return Ok(None) };
        here = next;
    }
    Ok(Some(here))
}

/// Removes directories that were made, the last one first. What somebody else uses by now is not empty, and stays.
fn remove_empty(made: &[(Directory, String)]) {
    for (parent, name) in made.iter().rev() {
        let _ = unlinkat(parent.fd(), name.as_str(), AtFlags::REMOVEDIR);
    }
}

/// The directory that it is in, as entries have their paths.
fn above() -> &'static str {
    record::DIRECTORY.rsplit_once('/').map_or("", |(above, _)| above)
}

fn system(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A journal below `root`, which is kept.
    fn journal(root: &std::path::Path, run: &str) -> Journal {
        let root = Directory::root(root).unwrap();
        let journal = Journal::none(run.to_owned());
        journal.read(&root, false).unwrap();
        journal.open(&root).unwrap();
        journal
    }

    #[test]
    fn a_run_has_begun_once_that_is_written_down() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("var/lib/runsmith").join(NAME);
        let one = journal(scratch.path(), "00000000000000aa");
        // Something is in the way.
        fs::create_dir(&path).unwrap();
        assert!(one.begin().is_err());
        fs::remove_dir(&path).unwrap();
        assert_eq!(one.begin(), Ok(()));
        assert!(journal(scratch.path(), "00000000000000bb").was_killed("00000000000000aa"));
        // Half a line, and no whole one.
        fs::write(&path, "{\"run\":\"00000000").unwrap();
        assert_eq!(journal(scratch.path(), "00000000000000cc").begin(), Ok(()));
        assert!(journal(scratch.path(), "00000000000000dd").was_killed("00000000000000cc"));
    }

    #[test]
    fn what_is_known_of_a_directory_is_known_by_the_next_run() {
        let scratch = tempfile::tempdir().unwrap();
        let is = Identity::of(fs::File::open(scratch.path()).unwrap()).unwrap();
        let here = || fs::File::open(scratch.path()).unwrap();
        let one = journal(scratch.path(), "00000000000000aa");
        assert_eq!(one.begin(), Ok(()));
        assert_eq!(one.make(vec![("/made".to_owned(), is)], vec![("/known".to_owned(), is)]), Ok(()));
        assert_eq!(one.end(), Ok(()));
        let two = journal(scratch.path(), "00000000000000bb");
        assert!(two.made("/made", here()) && !two.made("/known", here()));
        assert!(two.knows("/known", here()) && !two.knows("/made", here()));
        // Written anew it says the same.
        two.lock().rewrite().unwrap();
        assert_eq!(two.gone("/made"), Ok(()));
        let three = journal(scratch.path(), "00000000000000cc");
        assert!(!three.made("/made", here()) && three.knows("/known", here()));
    }
}
