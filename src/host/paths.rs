//! What lies at paths, and what the application's user can do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::names::Names;
use super::process::{Identity, QUESTION, Run};
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

/// What lies at paths, links not followed, as we see it.
pub(super) fn entries(paths: &[String], names: &mut Names) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for path in paths {
        let Ok(stat) = std::fs::symlink_metadata(path) else { continue };
        let kind = stat.file_type();
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if kind.is_file() {
            EntryKind::File
        } else if kind.is_socket() {
            EntryKind::Socket
        } else if kind.is_symlink() {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let target = std::fs::read_link(path).map(|target| text(&target)).unwrap_or_default();
            EntryKind::Link(target, std::fs::canonicalize(path).ok().map(|real| text(&real)))
        } else {
            EntryKind::Other
        };
        let (owner, group) = (names.of("passwd", stat.uid()), names.of("group", stat.gid()));
        let mode = stat.permissions().mode() & 0o7777;
        entries.insert(path.clone(), Entry { kind, owner, group, mode });
    }
    entries
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
        for step in ancestors(path).chain([path.as_str()]) {
            if !wanted.insert(step.to_owned()) {
                continue;
            }
            // Only a link is worth the walk.
            let is_link = std::fs::symlink_metadata(step).is_ok_and(|stat| stat.file_type().is_symlink());
            if is_link && let Ok(real) = std::fs::canonicalize(step) {
                let real = real.to_string_lossy().into_owned();
                wanted.extend(ancestors(&real).map(str::to_owned));
                wanted.insert(real.clone());
                reach.real.insert(step.to_owned(), real);
            }
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
        let environment =
            [("PATH".to_owned(), crate::facts::SYSTEM_PATH.join(":")), ("LC_ALL".to_owned(), "C".to_owned())];
        let ran = Run::new(identity, "/", &environment, &words).answer(QUESTION)?;
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

/// The file systems of the Unix sockets' directories, or of what is there of the way to them.
pub(super) fn file_systems(service: &Service) -> BTreeMap<String, FileSystem> {
    let mut all = BTreeMap::new();
    for path in service.bind.iter().filter_map(|socket| socket.unix_path()) {
        let Some((directory, _)) = path.rsplit_once('/') else { continue };
        let steps: Vec<&str> = std::iter::once("/").chain(ancestors(directory)).chain([directory]).collect();
        let Some(nearest) = steps.iter().rev().find(|step| Path::new(step).exists()) else { continue };
        let (Ok(kind), Ok(mount)) = (statfs(*nearest), statvfs(*nearest)) else { continue };
        let file_system = FileSystem {
            read_only: mount.f_flag.contains(StatVfsMountFlags::RDONLY),
            shared: shared(kind.f_type as u32),
            exists: Path::new(directory).is_dir(),
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
