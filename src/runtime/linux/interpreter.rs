//! Programs that name their interpreter by a link.
//!
//! A virtualenv that was made at `…/current/venv` has that path in the first line of its programs. Run as they are, they would
//! load packages through the link, from whichever release it leads to by then. So the interpreter is run by its real path.

use std::fs::OpenOptions;
use std::io::{Error, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::runtime::snapshot::pinned;

/// How much of a program is read: two lines. The kernel reads 256 bytes of the first, and pip writes longer paths into the
/// second.
const HEAD: u64 = 4096;

/// The command, with its interpreter in front where the program names one by a link.
pub(super) fn pinned_command(command: &[String], path: &str, pins: &[(String, String)]) -> Vec<String> {
    pinned_interpreter(command, path, pins).unwrap_or_else(|| command.to_vec())
}

fn pinned_interpreter(command: &[String], path: &str, pins: &[(String, String)]) -> Option<Vec<String>> {
    let (program, arguments) = command.split_first()?;
    if pins.iter().all(|(link, real)| link == real) {
        return None;
    }
    let file = find(program, path)?;
    let mut head = vec![];
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&file).ok()?;
    opened.take(HEAD).read_to_end(&mut head).ok()?;
    let words = interpreter(&String::from_utf8_lossy(&head))?;
    let real: Vec<String> = words.iter().map(|word| pinned(word, pins)).collect();
    if real == words {
        return None;
    }
    let file = file.to_str()?.to_owned();
    Some(real.into_iter().chain([file]).chain(arguments.iter().cloned()).collect())
}

/// Where the program is, as execvp(3) finds it.
fn find(program: &str, path: &str) -> Option<PathBuf> {
    let is_program = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|file| is_program(file));
    }
    path.split(':').map(|directory| Path::new(directory).join(program)).find(|file| is_program(file))
}

/// What to run: the program's name, if it is found by that in the PATH that the application sees (`seen`), or else where it is in `path`.
/// Some programs go by their name to find what belongs to them.
pub(super) fn located(program: &str, path: &str, seen: &str) -> PathBuf {
    let file = find(program, path);
    file.filter(|_| path != seen)
        .filter(|file| find(program, seen).as_ref() != Some(file))
        .unwrap_or_else(|| PathBuf::from(program))
}

/// Why a program could not be run, with the file or the interpreter that the reason is about: the system names neither. `path`: where
/// it was looked for.
pub(super) fn why_not(program: &str, path: &str, error: &Error) -> String {
    let Some(file) = find(program, path) else {
        let is_there = |directory: &&str| Path::new(directory).join(program).exists();
        if program.contains('/') {
            return format!("{error}: is {program} there, and executable by this user?");
        }
        return match path.split(':').find(is_there) {
            Some(directory) => format!("{} is not executable", Path::new(directory).join(program).display()),
            None => format!("it is in none of the directories {}", path.replace(':', ", ")),
        };
    };
    let mut head = vec![];
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    if let Ok(opened) = OpenOptions::new().read(true).custom_flags(flags).open(&file) {
        let _ = opened.take(HEAD).read_to_end(&mut head);
    }
    let words = interpreter(&String::from_utf8_lossy(&head));
    let named = words.as_deref().and_then(|words| words.first());
    let run = named.map_or(file.as_path(), Path::new);
    if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && has_capabilities(run) {
        return format!(
            "{error}: {} has capabilities, and the application may have none (`hardening.capabilities`); take them off by \
             `setcap -r`, or write `inherited`",
            run.display()
        );
    }
    // Whoever may not look at it may not run it either.
    match named.filter(|named| find(named, "").is_none()) {
        Some(named) => format!("{error}: the first line of {} names {named}", file.display()),
        None => format!("{}: {error}", file.display()),
    }
}

/// Whether a program's file has capabilities (capabilities(7)).
fn has_capabilities(file: &Path) -> bool {
    let mut value = [0; 64];
    rustix::fs::getxattr(file, "security.capability", &mut value).is_ok()
}

/// The interpreter and its argument, as the first line says; pip writes a long one as a script of the shell.
fn interpreter(head: &str) -> Option<Vec<String>> {
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    if first == "/bin/sh"
        && let Some(second) = lines.next().and_then(|line| line.strip_prefix("'''exec' "))
    {
        let program = second.strip_suffix(" \"$0\" \"$@\"").unwrap_or(second).trim();
        return Some(vec![program.trim_matches('"').to_owned()]);
    }
    let (program, argument) = first.split_once([' ', '\t']).unwrap_or((first, ""));
    let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
    Some([Some(program), argument].into_iter().flatten().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let exec = |program: &str| format!("#!/bin/sh\n'''exec' {program} \"$0\" \"$@\"\n' '''\n");
        for (head, expected) in [
            (
                "#!/srv/current/venv/bin/python\nimport sys\n".to_owned(),
                Some(vec!["/srv/current/venv/bin/python"]),
            ),
            ("#! /usr/bin/env  python3 \n".to_owned(), Some(vec!["/usr/bin/env", "python3"])),
            (exec("\"/srv/a b/bin/python\""), Some(vec!["/srv/a b/bin/python"])),
            (exec("/srv/long/bin/python"), Some(vec!["/srv/long/bin/python"])),
            ("#!/bin/sh\necho\n".to_owned(), Some(vec!["/bin/sh"])),
            ("\u{7f}ELF".to_owned(), None),
            (String::new(), None),
        ] {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(interpreter(&head), expected, "{head}");
        }
    }

    #[test]
    fn a_reason_names_the_file_and_its_interpreter() {
        let scratch = std::env::temp_dir().join(format!("runsmith-why-not-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let file = scratch.join("server");
        let path = format!("/nowhere/bin:{}", scratch.display());
        let missing = || Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
        let why = || why_not("server", &path, &missing());
        assert!(why().ends_with(&format!("none of the directories /nowhere/bin, {}", scratch.display())));
        std::fs::write(&file, "#!/nowhere/python\n").unwrap();
        assert_eq!(why(), format!("{} is not executable", file.display()));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let expected = format!("the first line of {} names /nowhere/python", file.display());
        assert!(why().ends_with(&expected), "{}", why());
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(why().starts_with(&format!("{}: ", file.display())), "{}", why());
        // What is found first is run, whatever PATH the application sees.
        assert_eq!(located("server", &path, "/nowhere/bin"), file);
        assert_eq!(located("server", &path, ""), file);
        assert_eq!(located("server", &path, &format!("/usr/bin:{}", scratch.display())), Path::new("server"));
        assert_eq!(located("server", &path, &path), Path::new("server"));
        assert_eq!(located("no-server", &path, "/nowhere/bin"), Path::new("no-server"));
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
