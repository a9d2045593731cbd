//! What lies at paths, and what the application's user can do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags, fstat, fstatfs, fstatvfs, openat,
    openat2, readlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::names::Names;
use super::process::{End, Identity, QUESTION, Run};
use crate::facts::{Access, Entry, EntryKind, FileSystem, Reach, ancestors};
use crate::model::Service;

/// How far the line behind `#!` is read, in bytes: the kernel reads 256.
const INTERPRETER: &str = "256";

/// So many paths are asked about at once; their names fit into the arguments of a program.
const AT_ONCE: usize = 200;

/// Paths of which kind and owner matter.
pub(super) fn of_service(service: &Service) -> Vec<String> {
    let layout = &service.layout;
    let directories = [&layout.releases, &layout.pids, &layout.logs, &layout.sockets, &layout.config];
    let mut paths: BTreeSet<String> = directories.iter().map(|directory| directory.path.clone()).collect();
    paths.extend([
        service.log.directory.clone(),
        service.root.clone(),
        service.current(),
        service.home.clone(),
    ]);
    paths.extend(service.bind.iter().filter_map(|socket| socket.unix_path().map(str::to_owned)));
    for path in for_user(service) {
        paths.extend(ancestors(&path).map(str::to_owned));
        paths.insert(path);
    }
    paths.into_iter().collect()
}

/// Paths that the application's user has to reach.
pub(super) fn for_user(service: &Service) -> Vec<String> {
    let mut paths = vec![service.home.clone(), service.current()];
    if let Some(virtualenv) = &service.virtualenv {
        paths.extend([virtualenv.clone(), format!("{virtualenv}/bin"), format!("{virtualenv}/bin/python")]);
    }
    paths.extend(candidates(service));
    let sockets = service.bind.iter().filter_map(|socket| socket.unix_path()?.rsplit_once('/'));
    paths
        .extend(sockets.map(|(directory, _)| directory.to_owned()).filter(|directory| !directory.is_empty()));
    paths
}

/// Where the command's first word may be.
pub(super) fn candidates(service: &Service) -> Vec<String> {
    let word = service.command.first().map(String::as_str).unwrap_or_default();
    if word.starts_with('/') {
        return vec![word.to_owned()];
    }
    if word.contains('/') {
        return vec![format!("{}/{word}", service.current())];
    }
    service.search_path().split(':').map(|directory| format!("{directory}/{word}")).collect()
}

/// What lies at paths, links not followed. Who owns a directory decides where a link in it leads: what lies behind one is
/// looked at as the application's user, so that root does not show what root alone may see.
pub(super) fn entries(
    paths: &[String],
    identity: Option<&Identity>,
    names: &mut Names,
) -> BTreeMap<String, Entry> {
    let mut seen = vec![];
    let mut behind = vec![];
    for path in paths {
        match open(path, geteuid().is_root()) {
            Ok(fd) => seen.extend(fstat(&fd).ok().map(|stat| (path.clone(), Seen::of(&fd, &stat)))),
            Err(Errno::LOOP | Errno::NOSYS) => behind.push(path.clone()),
            Err(_) => {}
        }
    }
    seen.extend(identity.and_then(|identity| ask(identity, &behind).ok()).unwrap_or_default());
    let links = seen.iter().filter(|(_, seen)| seen.link.is_some()).map(|(path, _)| path.clone());
    let real = real_paths(identity, &links.collect::<Vec<_>>(), Of::Found);
    let mut entry = |path: &str, seen: Seen| Entry {
        kind: match (seen.link, seen.kind) {
            (Some(target), _) => EntryKind::Link(target, real.get(path).cloned()),
            (None, b'd') => EntryKind::Directory,
            (None, b'f') => EntryKind::File,
            (None, b's') => EntryKind::Socket,
            (None, _) => EntryKind::Other,
        },
        owner: names.of("passwd", seen.uid),
        group: names.of("group", seen.gid),
        mode: seen.mode,
    };
    seen.into_iter().map(|(path, seen)| (path.clone(), entry(&path, seen))).collect()
}

/// What is at a path.
struct Seen {
    /// As `find -printf %y` has it.
    kind: u8,
    uid: u32,
    gid: u32,
    mode: u32,
    /// Where it points, if it is a link.
    link: Option<String>,
}

impl Seen {
    fn of(fd: &OwnedFd, stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => b'd',
            FileType::RegularFile => b'f',
            FileType::Socket => b's',
            FileType::Symlink => b'l',
            _ => b'U',
        };
        let target = || readlinkat(fd, "", vec![]).unwrap_or_default().to_string_lossy().into_owned();
        let link = (kind == b'l').then(target);
        Self { kind, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, link }
    }
}

/// Opens what a path leads to, which is not followed. `careful`: no link on the way is, either.
fn open(path: &str, careful: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if careful {
        return openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    }
    openat(CWD, path, flags, Mode::empty())
}

/// What is at paths, as that user.
fn ask(identity: &Identity, paths: &[String]) -> Result<Vec<(String, Seen)>, String> {
    let mut all = vec![];
    for some in paths.chunks(AT_ONCE) {
        let mut words = vec!["find".to_owned(), "-P".to_owned()];
        words.extend(some.iter().cloned());
        words.extend(["-maxdepth", "0", "-printf", "%y %U %G %m\\0%p\\0%l\\0"].map(str::to_owned));
        let ran = Run::new(identity, "/", &environment(), &words).answer(QUESTION)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records: Vec<&[u8]> = ran.output.split(|byte| *byte == 0).collect();
        for record in records.chunks_exact(3) {
            let head = text(record[0]);
            let fields: Vec<&str> = head.split(' ').collect();
            let [kind, uid, gid, mode] = fields[..] else { continue };
            let (Ok(uid), Ok(gid), Ok(mode)) = (uid.parse(), gid.parse(), u32::from_str_radix(mode, 8))
            else {
                continue;
            };
            let kind = kind.bytes().next().unwrap_or(b'U');
            let link = (kind == b'l').then(|| text(record[2]));
            all.push((text(record[1]), Seen { kind, uid, gid, mode, link }));
        }
    }
    Ok(all)
}

fn environment() -> [(String, String); 2] {
    [("PATH".to_owned(), crate::facts::SYSTEM_PATH.join(":")), ("LC_ALL".to_owned(), "C".to_owned())]
}

/// Which paths [`real_paths`] has an answer for.
#[derive(Clone, Copy)]
enum Of {
    /// Those that lead to something that the user can get to.
    Found,
    /// Also those whose way is barred, or that lead to nothing: then it is where they would lead.
    All,
}

/// Where paths lead, all links followed; looked up as the application's user, by a process that has no privilege. Without a
/// user only what we are decides; as root that is not looked up.
fn real_paths(identity: Option<&Identity>, paths: &[String], of: Of) -> BTreeMap<String, String> {
    let how = match of {
        Of::Found => "-en",
        Of::All => "-mn",
    };
    match identity {
        Some(identity) if identity.switch => {}
        None if geteuid().is_root() => return BTreeMap::new(),
        _ => {
            let real = |path: &String| {
                let real = std::fs::canonicalize(path).ok()?;
                Some((path.clone(), real.to_string_lossy().into_owned()))
            };
            return paths.iter().filter_map(real).collect();
        }
    }
    let mut all = BTreeMap::new();
    for some in paths.chunks(AT_ONCE) {
        let Some(identity) = identity else { break };
        let script = "how=$1; shift; for path; do readlink \"$how\" -- \"$path\"; printf '\\0'; done";
        let mut words = ["sh", "-c", script, "sh", how].map(str::to_owned).to_vec();
        words.extend(some.iter().cloned());
        let Ok(ran) = Run::new(identity, "/", &environment(), &words).answer(QUESTION) else { continue };
        for (path, real) in some.iter().zip(ran.output.split(|byte| *byte == 0)) {
            if let Some(real) = std::str::from_utf8(real).ok().filter(|real| !real.is_empty()) {
                all.insert(path.clone(), real.to_owned());
            }
        }
    }
    all
}

/// Where a path leads, all links followed, as that user sees it; nothing if it leads nowhere, or if that takes longer than
/// `limit`.
pub fn real_path(identity: &Identity, path: &str, limit: Duration) -> Option<String> {
    if !identity.switch {
        return Some(std::fs::canonicalize(path).ok()?.to_string_lossy().into_owned());
    }
    let words = ["readlink", "-en", "--", path].map(str::to_owned);
    let ran = Run::new(identity, "/", &environment(), &words).answer(limit).ok()?;
    String::from_utf8(ran.output).ok().filter(|real| !real.is_empty())
}

/// The SHA-256 of a file's content in hexadecimal, read as that user; nothing if that user cannot read it. The error says why it is
/// not known.
pub fn digest(identity: &Identity, path: &str, limit: Duration) -> Result<Option<String>, String> {
    let words = ["sha256sum", "--", path].map(str::to_owned);
    let ran = Run::new(identity, "/", &environment(), &words).answer(limit)?;
    // A name with a line break has a backslash in front of the digest.
    let text = ran.text();
    let digest = text.trim_start_matches('\\').split(' ').next().unwrap_or_default();
    Ok(Some(digest.to_owned()).filter(|_| ran.end == End::Code(0)))
}

/// Whether there is a file that somebody may execute.
pub(super) fn is_program(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}

/// What the user can do with paths and with all directories above them. The kernel is asked, as that
/// user: it knows of access lists, of file systems without programs, and of those where root is nobody.
pub(super) fn reach(identity: &Identity, paths: &[String]) -> Result<Reach, String> {
    let mut reach = Reach::default();
    let mut wanted = BTreeSet::new();
    for path in paths {
        wanted.extend(ancestors(path).chain([path.as_str()]).map(str::to_owned));
    }
    // Only a link is worth the walk.
    let is_link = |step: &&String| match open(step, true) {
        Ok(fd) => fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink),
        Err(error) => matches!(error, Errno::LOOP | Errno::NOSYS),
    };
    let links: Vec<String> = wanted.iter().filter(is_link).cloned().collect();
    for (step, real) in real_paths(Some(identity), &links, Of::All) {
        wanted.extend(ancestors(&real).map(str::to_owned));
        wanted.insert(real.clone());
        if real != step {
            reach.real.insert(step, real);
        }
    }
    let wanted: Vec<String> = wanted.into_iter().collect();
    for some in wanted.chunks(AT_ONCE) {
        let mut words = vec!["find".to_owned(), "-L".to_owned()];
        words.extend(some.iter().cloned());
        words.extend(["-maxdepth", "0", "-printf", "%y"].map(str::to_owned));
        for (test, letter) in [("-readable", "r"), ("-writable", "w"), ("-executable", "x")] {
            words.extend(["(", test, "-printf", letter, "-o", "-printf", "-", ")"].map(str::to_owned));
        }
        words.extend(["-printf", "%p\\0"].map(str::to_owned));
        let ran = Run::new(identity, "/", &environment(), &words).answer(QUESTION)?;
        // It ends with 1 if it did not reach some, and does not begin if it is another `find`.
        if !matches!(ran.end, super::process::End::Code(0 | 1)) {
            return Err("find (of GNU findutils) does not work as that user".to_owned());
        }
        reach.found.extend(ran.output.split(|byte| *byte == 0).filter_map(access));
    }
    Ok(reach)
}

/// `drwx/path`.
fn access(record: &[u8]) -> Option<(String, Access)> {
    let (flags, path) = record.split_at_checked(4)?;
    let [kind, read, write, execute] = flags else { return None };
    // What is left of a link when links are followed leads nowhere.
    if !matches!(kind, b'd' | b'f' | b's' | b'p' | b'c' | b'b') {
        return None;
    }
    let access = Access {
        is_directory: *kind == b'd',
        is_file: *kind == b'f',
        read: *read == b'r',
        write: *write == b'w',
        execute: *execute == b'x',
    };
    Some((String::from_utf8(path.to_vec()).ok()?, access))
}

/// The words behind `#!` of a file; none if it does not begin so. The user reads it, so it can be
/// nobody else's secret.
pub(super) fn interpreter(identity: &Identity, file: &str) -> Vec<String> {
    let words = ["head", "-c", INTERPRETER, "--", file].map(str::to_owned);
    let environment = [("PATH".to_owned(), crate::facts::SYSTEM_PATH.join(":"))];
    let Ok(ran) = Run::new(identity, "/", &environment, &words).answer(QUESTION) else { return vec![] };
    shebang(&ran.output)
}

fn shebang(bytes: &[u8]) -> Vec<String> {
    let Some(rest) = bytes.strip_prefix(b"#!") else { return vec![] };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return vec![] };
    let line = line.trim_matches([' ', '\t', '\r']);
    // The kernel splits once: what follows the program is one argument.
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    [program, argument.trim()].into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The file systems of the Unix sockets' directories, or of what is there of the way to them, as the application's user
/// finds it.
pub(super) fn file_systems(service: &Service, identity: Option<&Identity>) -> BTreeMap<String, FileSystem> {
    let mut all = BTreeMap::new();
    for path in service.bind.iter().filter_map(|socket| socket.unix_path()) {
        let Some((directory, _)) = path.rsplit_once('/') else { continue };
        let steps = std::iter::once("/").chain(ancestors(directory)).chain([directory]);
        let steps: Vec<String> = steps.map(str::to_owned).collect();
        let real = real_paths(identity, &steps, Of::Found);
        let Some(nearest) = steps.iter().rev().find_map(|step| real.get(step)) else { continue };
        // Whoever can rename something there since the user looked can make no link that is followed.
        let Ok(fd) = open(nearest, true) else { continue };
        let (Ok(kind), Ok(mount)) = (fstatfs(&fd), fstatvfs(&fd)) else { continue };
        let is_directory =
            fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let file_system = FileSystem {
            read_only: mount.f_flag.contains(StatVfsMountFlags::RDONLY),
            shared: shared(kind.f_type as u32),
            exists: is_directory && real.contains_key(directory),
        };
        all.insert(path.to_owned(), file_system);
    }
    all
}

/// File systems that other hosts may share, by their numbers in statfs(2).
fn shared(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        0x00C3_6400 => Some("Ceph"),
        0x7461_636F | 0x0116_1970 => Some("a cluster file system"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn reads_a_shebang_as_the_kernel_does() {
        assert_eq!(shebang(b"#!/usr/bin/env  python3 -u\nx"), ["/usr/bin/env", "python3 -u"]);
        assert_eq!(shebang(b"#! /v/bin/python\r\n"), ["/v/bin/python"]);
        assert_eq!(shebang(b"\x7fELF"), Vec::<String>::new());
        assert_eq!(shebang(b"#!\xff\n"), Vec::<String>::new());
    }

    #[test]
    fn reads_records_of_find_and_nothing_else() {
        let (path, found) = access(b"fr-x/usr/bin/env").unwrap();
        assert_eq!(
            (path.as_str(), found.is_file, found.write, found.execute),
            ("/usr/bin/env", true, false, true)
        );
        for garbage in [&b""[..], b"abc", b"N---/x", b"lrwx/x", b"fr-x\xff\xff"] {
            assert_eq!(access(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn the_way_to_a_private_directory_is_barred_to_others() {
        assert!(rustix::process::geteuid().is_root(), "this test looks as somebody else: it needs root");
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let inner = scratch.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let link = std::env::temp_dir().join(format!("rst-link-{}", std::process::id()));
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let nobody = Identity { uid: 65_534, gid: 65_534, groups: vec![], switch: true };
        let asked = [text(&inner), text(&link), "/etc/passwd".into(), "/no/such".into(), "/bin/sh".into()];
        let reach = reach(&nobody, &asked).unwrap();
        std::fs::remove_file(&link).unwrap();
        let barred = crate::facts::Walk::Barred(text(scratch.path()));
        assert_eq!((reach.walk(&asked[0]), reach.walk(&asked[1])), (barred.clone(), barred));
        assert_eq!(reach.walk("/no/such"), crate::facts::Walk::Absent);
        assert!(reach.can_execute("/bin/sh") && !reach.can_execute("/etc/passwd"));
    }
}
