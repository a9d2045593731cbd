//! The cgroup of a generation (cgroups(7)): what the application's user starts stays in it, whatever session, environment or
//! parent it gets. So it tells what belongs to a generation, and ends all of that at once.
//!
//! It is made below the cgroup of the runtime: `runsmith/SERVICE/GENERATION`. Where there is the unified hierarchy (version 2) it is
//! made there, for which no controller has to be enabled; else where the freezer of version 1 is.
//!
//! Limits take a controller. In version 2 a cgroup that has processes of its own cannot enable one for those below it, unless it is
//! the root; then the generation's cgroup is made beside that of the runtime, if controllers are enabled there. A controller that version 1
//! has is used there: the generation gets a cgroup in its hierarchy, too.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::statfs;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::clock;
use super::process::{self, Process, Stat};
use crate::model::service::CgroupLimits;

/// The directory that holds all of runsmith's, below the cgroup of a runtime.
const ALL: &str = "runsmith";

/// What statfs(2) says of the file systems: CGROUP2_SUPER_MAGIC and CGROUP_SUPER_MAGIC (linux/magic.h).
const UNIFIED: u64 = 0x6367_7270;
const OLD: u64 = 0x0027_e0eb;

/// So much is read of a list of processes, in bytes: more than a hundred thousand.
const LONGEST_LIST: u64 = 1 << 20;

/// So many cgroups with the number of a generation there may be that somebody else has left.
const MOST_OF_A_NUMBER: u32 = 16;

/// So often a directory is made again that another service has removed in between.
const TRIES: u32 = 8;

/// How long processes may take to be frozen before they are killed as they run.
const FREEZES: Duration = Duration::from_millis(100);

/// So often the processes of a cgroup that cannot end all of them at once are looked up and killed.
const ROUNDS: u32 = 8;

/// Which of the kernel's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Version 2.
    Unified,
    /// Version 1.
    Version1,
}

/// What a limit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
}

impl Controller {
    const ALL: [Self; 2] = [Self::Memory, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The key of the pillar.
    fn key(self) -> &'static str {
        match self {
            Self::Memory => "cgroup.memory_max",
            Self::Pids => "cgroup.tasks_max",
        }
    }

    fn limit(self, limits: &CgroupLimits) -> Option<u64> {
        match self {
            Self::Memory => limits.memory_max,
            Self::Pids => limits.tasks_max.map(u64::from),
        }
    }

    /// The file that takes the limit.
    fn file(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Memory, Kind::Unified) => "memory.max",
            (Self::Memory, Kind::Version1) => "memory.limit_in_bytes",
            (Self::Pids, _) => "pids.max",
        }
    }
}

/// What the state knows a cgroup by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its directory.
    pub path: String,
    /// Device and inode of that.
    pub node: (u64, u64),
}

/// A cgroup of a generation.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    node: (u64, u64),
    kind: Kind,
    /// Cgroups of version 1 that limit its processes.
    limiting: Vec<PathBuf>,
}

impl PartialEq for Cgroup {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Eq for Cgroup {}

/// Where cgroups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The cgroup of this process.
    own: PathBuf,
    kind: Kind,
    /// Where the root of what is mounted is.
    mount: PathBuf,
    /// The cgroups of this process where version 1 has the controllers.
    version1: Vec<(Controller, PathBuf)>,
}

impl Home {
    /// Finds it; the error is a sentence: why there is none.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let candidates = homes(&mounts, &own);
        let found = candidates.iter().find(|home| home.is_usable());
        found.cloned().ok_or_else(|| match candidates.first() {
            Some(home) => format!("no cgroup can be made in {}", home.own.display()),
            None => "no cgroup file system is mounted that this process has a part in".to_owned(),
        })
    }

    /// Whether cgroups can be made there.
    fn is_usable(&self) -> bool {
        kind_of(&self.own) == Some(self.kind)
            && rustix::fs::access(self.own.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
            && rustix::fs::access(&self.own, rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// Makes the cgroup of a generation, empty, and limits it as far as this host lets it be. The error is a sentence; so is
    /// each limit that does not hold.
    pub fn make(
        &self,
        service: &str,
        generation: u32,
        limits: &CgroupLimits,
    ) -> Result<(Cgroup, Vec<String>), String> {
        let wanted = Controller::ALL.into_iter().filter_map(|one| Some((one, one.limit(limits)?)));
        let wanted: Vec<_> = wanted.collect();
        let unified: Vec<_> =
            wanted.iter().map(|(one, _)| *one).filter(|one| self.is_unified(*one)).collect();
        let base =
            self.bases().find(|base| enable(base, service, &unified)).unwrap_or_else(|| self.own.clone());
        let mut made = self.make_in(&base, service, generation)?;
        let mut failed = vec![];
        for (controller, limit) in wanted {
            let limited = if unified.contains(&controller) {
                write(&made.directory.join(controller.file(Kind::Unified)), limit).map_err(
                    |error| match error.kind() {
                        io::ErrorKind::NotFound => {
                            format!(
                                "the controller `{}` cannot be enabled below {}",
                                controller.name(),
                                base.display()
                            )
                        }
                        _ => error.to_string(),
                    },
                )
            } else {
                self.limit_by_version1(&mut made, service, controller, limit)
            };
            if let Err(reason) = limited {
                failed.push(format!("{} cannot be {limit} on this host: {reason}", controller.key()));
            }
        }
        Ok((made, failed))
    }

    /// Whether version 2 has a controller, so that version 1 has not.
    fn is_unified(&self, controller: Controller) -> bool {
        let has = |base: &Path| {
            let text = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
            text.split_ascii_whitespace().any(|one| one == controller.name())
        };
        self.kind == Kind::Unified && self.bases().any(|base| has(&base))
    }

    /// Where the cgroups of services are: below that of the runtime, or beside it.
    fn bases(&self) -> impl Iterator<Item = PathBuf> {
        let beside = self.own.parent().filter(|beside| beside.starts_with(&self.mount)).map(Path::to_owned);
        std::iter::once(self.own.clone()).chain(beside.filter(|_| self.kind == Kind::Unified))
    }

    /// Has a controller of version 1 limit what will be in a cgroup.
    fn limit_by_version1(
        &self,
        cgroup: &mut Cgroup,
        service: &str,
        controller: Controller,
        limit: u64,
    ) -> Result<(), String> {
        let own = self.version1.iter().find(|(one, _)| *one == controller).map(|(_, own)| own);
        let own = own.ok_or_else(|| format!("it has no controller `{}`", controller.name()))?;
        let parent = own.join(ALL).join(service);
        let directory = parent.join(cgroup.directory.file_name().unwrap_or_default());
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        make(&own.join(ALL)).and_then(|()| make(&parent)).map_err(failed)?;
        // One that a killed runtime has left has the limit of another one.
        let _ = fs::remove_dir(&directory);
        fs::create_dir(&directory).map_err(failed)?;
        write(&directory.join(controller.file(Kind::Version1)), limit).map_err(failed)?;
        cgroup.limiting.push(directory);
        Ok(())
    }

    /// Removes the limiting cgroups of a service that nothing lives in.
    pub fn tidy(&self, service: &str) {
        for (_, own) in &self.version1 {
            let all = own.join(ALL);
            let parent = all.join(service);
            let entries = fs::read_dir(&parent).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(&parent).and_then(|()| fs::remove_dir(&all));
        }
    }

    fn make_in(&self, base: &Path, service: &str, generation: u32) -> Result<Cgroup, String> {
        let parent = base.join(ALL).join(service);
        let mut number = 0;
        for _ in 0..TRIES + MOST_OF_A_NUMBER {
            let name = if number == 0 { generation.to_string() } else { format!("{generation}.{number}") };
            let directory = parent.join(name);
            let made = make(&base.join(ALL)).and_then(|()| make(&parent)).and_then(|()| {
                // An empty one that a killed runtime has left.
                let _ = fs::remove_dir(&directory);
                fs::create_dir(&directory)
            });
            match made {
                Ok(()) => {
                    return Cgroup::open(directory).ok_or_else(|| "it is gone again".to_owned());
                }
                // Something lives in it that no record names.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                // Another service has removed what was empty for a moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{} cannot be made: {error}", directory.display())),
            }
        }
        Err(format!("{} cannot be made: too many others have its number", parent.display()))
    }

    /// Every cgroup that this service has here.
    pub fn all(&self, service: &str) -> Vec<Cgroup> {
        let parents = self.bases().map(|base| base.join(ALL).join(service));
        let entries = parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.filter_map(|entry| Cgroup::open(entry.path())).collect()
    }
}

/// A name for the cgroups of a service that no other service has: by the directory that supervises it.
pub fn name(application: &str, directory: &str) -> String {
    let digest = Sha256::digest(format!("{application}\n{directory}").as_bytes());
    let mut name: String =
        application.chars().map(|one| if one.is_ascii_alphanumeric() { one } else { '_' }).take(64).collect();
    name.push('-');
    for byte in digest.iter().take(8) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write(file: &Path, limit: u64) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(limit.to_string().as_bytes())
}

/// Makes the directory of a service in which generations can be limited; whether that is so. Nothing is changed that cannot be
/// enabled in a cgroup with processes.
fn enable(base: &Path, service: &str, controllers: &[Controller]) -> bool {
    let all = base.join(ALL);
    let parent = all.join(service);
    let is_enabled = |directory: &Path| {
        let file = directory.join("cgroup.subtree_control");
        let text = fs::read_to_string(&file).unwrap_or_default();
        controllers.iter().all(|one| {
            text.split_ascii_whitespace().any(|name| name == one.name())
                || fs::write(&file, format!("+{}", one.name())).is_ok()
        })
    };
    is_enabled(base) && make(&all).is_ok() && is_enabled(&all) && make(&parent).is_ok() && is_enabled(&parent)
}

/// Where cgroups may be made, the best place first: `mounts` is /proc/self/mountinfo (proc_pid_mountinfo(5)), `own` is
/// /proc/self/cgroup (cgroups(7)).
fn homes(mounts: &str, own: &str) -> Vec<Home> {
    // `controller`: of version 1; none: version 2.
    let part = |controller: Option<&str>| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = match controller {
                None => controllers.is_empty(),
                Some(name) => controllers.split(',').any(|one| one == name),
            };
            is_it.then_some(path)
        })
    };
    let mounted = |controller: Option<&'static str>| {
        let part = part(controller);
        mounts.lines().filter_map(move |line| {
            let (place, system) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let (root, point) = (unescaped(place.next()?), unescaped(place.next()?));
            let mut system = system.split(' ');
            let is_it = match (controller, system.next()?) {
                (None, "cgroup2") => true,
                (Some(name), "cgroup") => system.nth(1)?.split(',').any(|one| one == name),
                _ => false,
            };
            // What is above the root of the mount, or of the namespace, cannot be reached.
            let inside = Path::new(part.filter(|_| is_it)?).strip_prefix(&root).ok()?;
            let is_plain = inside.components().all(|one| matches!(one, Component::Normal(_)));
            is_plain.then(|| (Path::new(&point).join(inside), PathBuf::from(point)))
        })
    };
    let version1 =
        Controller::ALL.into_iter().filter_map(|one| Some((one, mounted(Some(one.name())).next()?.0)));
    let version1: Vec<_> = version1.collect();
    let home = |kind| {
        let version1 = version1.clone();
        move |(own, mount)| Home { own, kind, mount, version1: version1.clone() }
    };
    let unified = mounted(None).map(home(Kind::Unified));
    unified.chain(mounted(Some("freezer")).map(home(Kind::Version1))).collect()
}

/// A path as mountinfo writes it: blanks and the like as `\040`.
fn unescaped(text: &str) -> String {
    let mut out = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn kind_of(directory: &Path) -> Option<Kind> {
    match u64::try_from(statfs(directory).ok()?.f_type).ok()? {
        UNIFIED => Some(Kind::Unified),
        OLD => Some(Kind::Version1),
        _ => None,
    }
}

impl Cgroup {
    fn open(directory: PathBuf) -> Option<Self> {
        let kind = kind_of(&directory)?;
        let found = fs::symlink_metadata(&directory).ok().filter(fs::Metadata::is_dir)?;
        Some(Self { node: (found.dev(), found.ino()), directory, kind, limiting: vec![] })
    }

    /// The one that a record names, if it is still that one.
    pub fn proven(kept: &Kept) -> Option<Self> {
        Self::open(PathBuf::from(&kept.path)).filter(|found| found.node == kept.node)
    }

    /// What it is known by.
    pub fn kept(&self) -> Kept {
        Kept { path: self.directory.display().to_string(), node: self.node }
    }

    /// Puts a process into it; what that starts is in it, too.
    pub fn add(&self, process: &Process) -> io::Result<()> {
        let mut directories = self.limiting.iter().chain([&self.directory]);
        directories.try_for_each(|one| fs::write(one.join("cgroup.procs"), process.pid.to_string()))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.directory.join(name))?.take(LONGEST_LIST).read_to_string(&mut text)?;
        Ok(text)
    }

    /// The numbers of its processes, as the kernel has them.
    pub fn pids(&self) -> Vec<u32> {
        let text = self.read("cgroup.procs").unwrap_or_default();
        // The last one may be cut off.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Its processes.
    pub fn processes(&self) -> HashMap<u32, Stat> {
        self.pids().into_iter().filter_map(|pid| Some((pid, process::stat(pid)?))).collect()
    }

    /// Whether anything lives in it; one that cannot be asked, because it is not there, is empty.
    pub fn is_populated(&self) -> bool {
        match self.kind {
            Kind::Unified => self.read("cgroup.events").is_ok_and(|text| is_populated(&text)),
            Kind::Version1 => !self.pids().is_empty(),
        }
    }

    /// Ends everything in it.
    pub fn kill(&self) {
        // Linux 5.14, version 2: no process escapes by starting another one.
        let kill_all =
            || self.kind == Kind::Unified && fs::write(self.directory.join("cgroup.kill"), "1").is_ok();
        if kill_all() {
            // It sends the signal to the first thread of each process; where that has ended, nobody takes it (measured with 6.18).
            for round in 0..ROUNDS {
                if !self.pids().into_iter().any(process::is_headless) {
                    return;
                }
                // What they have started meanwhile is killed in the next round.
                if round > 0 {
                    self.freeze();
                }
                for pid in self.pids().into_iter().filter(|pid| process::is_headless(*pid)) {
                    self.kill_one(pid);
                }
                self.thaw();
                kill_all();
            }
            return;
        }
        for _ in 0..ROUNDS {
            let pids = {
                self.freeze();
                self.pids()
            };
            for pid in &pids {
                self.kill_one(*pid);
            }
            self.thaw();
            if pids.is_empty() {
                return;
            }
        }
    }

    /// Kills a process that is in it: a number may be another process's by now.
    fn kill_one(&self, pid: u32) {
        let Some(process) = Process::open(pid) else { return };
        if self.has(pid) {
            process.kill();
        }
    }

    /// Whether a process is in it, as the kernel says.
    pub fn has(&self, pid: u32) -> bool {
        self.pids().contains(&pid)
    }

    fn freeze(&self) {
        let (file, frozen) = match self.kind {
            Kind::Unified => ("cgroup.freeze", "1"),
            Kind::Version1 => ("freezer.state", "FROZEN"),
        };
        if fs::write(self.directory.join(file), frozen).is_err() {
            return;
        }
        let until = clock::now().after(u64::try_from(FREEZES.as_millis()).unwrap_or(0));
        let is_frozen = || match self.kind {
            Kind::Unified => self.read("cgroup.events").is_ok_and(|text| text.contains("frozen 1")),
            Kind::Version1 => self.read("freezer.state").is_ok_and(|text| text.trim() == "FROZEN"),
        };
        // Version 1 reports nothing; it takes a moment.
        while !is_frozen() && clock::now() < until {
            std::thread::yield_now();
        }
    }

    fn thaw(&self) {
        let (file, thawed) = match self.kind {
            Kind::Unified => ("cgroup.freeze", "0"),
            Kind::Version1 => ("freezer.state", "THAWED"),
        };
        let _ = fs::write(self.directory.join(file), thawed);
    }

    /// Waits until nothing lives in it, for so long at the most; whether that is so.
    pub fn await_empty(&self, limit: Duration) -> bool {
        let until = clock::now().after(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        match self.kind {
            Kind::Unified => self.await_event(until),
            Kind::Version1 => {
                while let Some(pid) = self.pids().first().copied() {
                    if clock::now() >= until {
                        return false;
                    }
                    if let Some(process) = Process::open(pid) {
                        process.await_end(Duration::from_millis(until.since(clock::now())));
                    }
                }
                true
            }
        }
    }

    fn await_event(&self, until: crate::runtime::event::Moment) -> bool {
        loop {
            // Whatever changes after it was read is reported.
            let Ok(mut events) = File::open(self.directory.join("cgroup.events")) else { return true };
            let mut text = String::new();
            if events.read_to_string(&mut text).is_err() || !is_populated(&text) {
                return true;
            }
            let events = OwnedFd::from(events);
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&clock::until(until))) {
                Ok(0) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Removes it if nothing lives in it, and what of its parents is empty then. Whether it is gone.
    pub fn remove(&self) -> bool {
        let is_gone = match fs::remove_dir(&self.directory) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let parents = self.directory.ancestors().skip(1).take(2);
        // Others may have some in them.
        let _ = parents.take_while(|parent| fs::remove_dir(parent).is_ok()).count();
        is_gone
    }
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mounts: &str, own: &str) -> Vec<(String, Kind)> {
        let found = homes(mounts, own).into_iter();
        found.map(|home| (home.own.display().to_string(), home.kind)).collect()
    }

    #[test]
    fn the_cgroup_of_this_process_is_found_where_it_is_mounted() {
        let version1 = "35 31 0:32 / /sys/fs/cgroup/freezer rw shared:1 - cgroup cgroup rw,freezer\n\
                        36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
        let both = [version1, unified].concat();
        let own = "9:freezer:/a\n4:cpu,cpuacct:/b\n0::/c/d.service\n";
        assert_eq!(
            found(&both, own),
            [
                ("/sys/fs/cgroup/unified/c/d.service".to_owned(), Kind::Unified),
                ("/sys/fs/cgroup/freezer/a".to_owned(), Kind::Version1)
            ]
        );
        let of_container = "41 31 0:38 /docker/7 /sys/fs/cgroup\\040here ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(of_container, "0::/docker/7/x\n"),
            [("/sys/fs/cgroup here/x".to_owned(), Kind::Unified)]
        );
        for (mounts, own) in [
            (of_container, "0::/docker/77\n"),
            (unified, "0::/../x\n"),
            (unified, "9:freezer:/\n"),
            ("", own),
            ("41 31 0:38\n- -\n", own),
        ] {
            assert_eq!(found(mounts, own), [], "{mounts} {own}");
        }
    }

    #[test]
    fn names_do_not_collide_and_are_one_step_of_a_path() {
        let (one, other) = (name("../web", "/etc/sv/a"), name("../web", "/etc/sv/b"));
        assert_ne!(one, other);
        assert!(one.starts_with("___web-") && !one.contains('/'), "{one}");
        assert_ne!(name("a/b", "/etc/sv/a"), name("a_b", "/etc/sv/a"));
        assert!(name(&"x".repeat(1000), "/").len() < 100);
    }
}
