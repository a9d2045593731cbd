//! What the application's process is given, compared with a complete list: nothing of root's, and nothing of whoever started
//! runsvdir, comes along.

#![allow(clippy::disallowed_methods, reason = "a test may look")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::START;
use support::service::{Server, Service, Socket};

/// Becomes runsv with everything that an untidy shell can leave behind: signals ignored, descriptors open,
/// variables, a mask, a priority, groups.
const UNTIDY: &str = r#"
import os, signal, sys
own = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGILL, signal.SIGFPE, signal.SIGSEGV}
for number in signal.valid_signals() - own:
    signal.signal(number, signal.SIG_IGN)
os.umask(0o077)
os.setgroups([0, 4, 27])
for number in range(3, 30):
    os.dup2(os.open("/etc/shadow", os.O_RDONLY), number, inheritable=True)
os.environ.update({"ROOTS_SECRET": "swordfish-of-root", "PYTHONPATH": "/root", "LD_LIBRARY_PATH": "/root"})
os.execvp("runsv", ["runsv"] + sys.argv[1:])
"#;

/// The service's own secret.
const SECRET: &str = "swordfish-of-the-application";

fn text(pid: u32, file: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
}

/// The fields of /proc/PID/status that say what a process may do.
fn status(pid: u32) -> Vec<(String, String)> {
    let wanted = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "TracerPid",
    ];
    let all = text(pid, "status");
    let fields = all.lines().filter_map(|line| line.split_once(':'));
    let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    fields
        .filter(|(name, _)| wanted.contains(name))
        .map(|(name, value)| (name.to_owned(), words(value)))
        .collect()
}

/// Its descriptors: number and what it leads to, numbers of pipes and sockets aside.
fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let mut all: Vec<(u32, String)> = support::row::names(Path::new(&format!("/proc/{pid}/fd")))
        .into_iter()
        .map(|number| {
            let to = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap().display().to_string();
            (number.parse().unwrap(), to.split(":[").next().unwrap().to_owned())
        })
        .collect();
    all.sort();
    all
}

fn environment(pid: u32) -> Vec<String> {
    let mut all: Vec<String> = text(pid, "environ").split_terminator('\0').map(str::to_owned).collect();
    all.sort();
    all
}

fn stat(pid: u32, field: usize) -> i64 {
    let stat = text(pid, "stat");
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(field - 3).unwrap().parse().unwrap()
}

fn limit(pid: u32, name: &str) -> (String, String) {
    let limits = text(pid, "limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// A service whose program does nothing to itself: what /proc says of it is what it was given.
fn sleeping(more: &str) -> Service {
    let mut service = Service::native(Server::Any, Socket::Tcp, more);
    service.runs("[/usr/bin/sleep, \"100000\"]");
    service.rewrite(|pillar| {
        let bind = pillar.lines().find(|line| line.starts_with("bind")).unwrap().to_owned();
        let first = bind.split('"').nth(1).unwrap();
        pillar.replace(&bind, &format!("bind: [\"{first}\", \"unix:{}/two.sock\"]", service_scratch(&pillar)))
    });
    service
}

fn service_scratch(pillar: &str) -> String {
    let root = pillar.lines().find_map(|line| line.strip_prefix("root: ")).unwrap();
    format!("{root}/shared/sockets")
}

fn start_untidily(service: &mut Service) -> String {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut runsv = Command::new("/usr/bin/python3");
    runsv.args(["-c", UNTIDY]);
    service.supervise_by(runsv, writer);
    service.log = support::log::Log::follow(reader);
    service.log.wait(0, &["runsmith: done:"], START);
    service.log.text(0)
}

#[test]
fn everything_that_the_master_is_given_is_on_the_list() {
    let more = format!(
        "umask: \"0027\"\nnice: 5\noom_score_adj: 300\ngroups: [adm, video]\nenvironment: {{TWO_LINES: \"a\\nb\"}}\n\
         secrets: {{API_TOKEN: \"{SECRET}\"}}\nlimits: {{nofile: {{soft: 500, hard: 600}}, core: 0, nproc: {{soft: 300, hard: 400}}}}\n\
         virtualenv: /nowhere/venv\n"
    );
    let mut service = sleeping(&more);
    start_untidily(&mut service);
    let pid = service.master();
    let (uid, name) = (service.user.uid, service.name.clone());
    let gid: u32 = support::host::run("id", &["-g", &name]).trim().parse().unwrap();
    let all = |id: u32| format!("{id} {id} {id} {id}");
    let group = |name: &str| -> u32 {
        support::host::run("getent", &["group", name]).split(':').nth(2).unwrap().parse().unwrap()
    };
    let mut groups = vec![gid, group("adm"), group("video")];
    groups.sort_unstable();

    let none = "0000000000000000".to_owned();
    let wanted: Vec<(String, String)> = [
        ("Umask", "0027".to_owned()),
        ("TracerPid", "0".to_owned()),
        // Real, effective, saved, of the file system.
        ("Uid", all(uid)),
        ("Gid", all(gid)),
        ("SigBlk", none.clone()),
        ("SigIgn", none.clone()),
        ("SigCgt", none.clone()),
        ("CapInh", none.clone()),
        ("CapPrm", none.clone()),
        ("CapEff", none.clone()),
        ("CapBnd", none.clone()),
        ("CapAmb", none),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut found = status(pid);
    for (name, mask) in &mut found {
        if name == "SigIgn" {
            // glibc has its own two, 32 and 33, ignored in whatever it spawns (posix_spawn), and lets nobody change that.
            *mask = format!("{:016x}", u64::from_str_radix(mask, 16).unwrap() & !0x1_8000_0000);
        }
    }
    let (found_groups, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| name == "Groups");
    assert_eq!(found, wanted);
    let mut numbers: Vec<u32> = found_groups[0].1.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, groups);

    let fds = [(0, "/dev/null"), (1, "pipe"), (2, "pipe"), (3, "socket"), (4, "socket")];
    assert_eq!(descriptors(pid), fds.map(|(number, to)| (number, to.to_owned())));

    // The release, and not the link to it: what is imported late comes from where the rest came from.
    let release = service.root.join("releases/1").display().to_string();
    let mut wanted = vec![
        format!("API_TOKEN={SECRET}"),
        format!("HOME={}", service.scratch().display()),
        "LISTEN_FDS=2".to_owned(),
        format!("LISTEN_PID={pid}"),
        format!("LOGNAME={name}"),
        format!("PWD={release}"),
        "RUNSMITH_GENERATION=1".to_owned(),
        format!("RUNSMITH_RELEASE={release}"),
        format!("RUNSMITH_SERVICE={name}"),
        "TWO_LINES=a\nb".to_owned(),
        format!("USER={name}"),
        "VIRTUAL_ENV=/nowhere/venv".to_owned(),
    ];
    let found = environment(pid);
    let path = found.iter().find(|entry| entry.starts_with("PATH=")).expect("PATH");
    assert!(path.starts_with("PATH=/nowhere/venv/bin:/"), "{path}");
    wanted.push(path.clone());
    wanted.sort();
    assert_eq!(found, wanted);

    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), service.root.join("releases/1"));
    assert_eq!(limit(pid, "Max open files"), ("500".to_owned(), "600".to_owned()));
    assert_eq!(limit(pid, "Max core file size"), ("0".to_owned(), "0".to_owned()));
    assert_eq!(limit(pid, "Max processes"), ("300".to_owned(), "400".to_owned()));
    assert_eq!(text(pid, "oom_score_adj").trim(), "300");
    assert_eq!(stat(pid, 19), 5, "nice");
    assert_eq!((stat(pid, 5), stat(pid, 6)), (i64::from(pid), i64::from(pid)), "process group and session");
    assert_eq!(stat(pid, 7), 0, "no terminal");
    assert_eq!(text(pid, "cmdline"), "/usr/bin/sleep\u{0}100000\u{0}");
    service.sv("down");
}

/// What is not in the pillar is what the kernel, and nobody else, gives.
#[test]
fn what_the_pillar_does_not_say_is_not_taken_from_root() {
    let mut service = sleeping("");
    start_untidily(&mut service);
    let pid = service.master();
    assert_eq!(text(pid, "oom_score_adj").trim(), "0");
    assert_eq!(stat(pid, 19), 0);
    let found = status(pid);
    assert!(found.contains(&("Umask".to_owned(), "0022".to_owned())), "{found:?}");
    let ids = support::host::run("id", &["-G", &service.name]);
    let mut wanted: Vec<&str> = ids.split_whitespace().collect();
    let groups = &found.iter().find(|(name, _)| name == "Groups").unwrap().1;
    let mut groups: Vec<&str> = groups.split(' ').collect();
    wanted.sort_unstable();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups, wanted);
    service.sv("down");
}

/// Whether bytes are somewhere in what a process can write to.
fn is_in_memory(pid: u32, what: &[u8]) -> bool {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = text(pid, "maps");
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(to) - number(from)).unwrap()];
        let count = memory.read_at(&mut bytes, number(from)).unwrap_or(0);
        bytes[..count].windows(what.len()).any(|window| window == what)
    })
}

/// Every file below a directory that holds these bytes.
fn files_with(directory: &Path, what: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), what));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            if bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// A secret is in its file, and in the environment of the application's processes; nowhere else.
#[test]
fn a_secret_is_nowhere_but_in_its_file_and_in_the_application() {
    let mut service = Service::native(
        Server::Sync,
        Socket::Tcp,
        &format!("secrets: {{API_TOKEN: \"{SECRET}\"}}\nrestart: {{min_uptime: 3600}}"),
    );
    start_untidily(&mut service);
    for number in 2..4 {
        let kind =
            if number == 2 { support::service::Release::Good } else { support::service::Release::Broken };
        service.deploy(number, kind);
    }
    service.sv("alarm");
    let status = service.runsmith(&["status", "--format", "json"]);
    assert!(!support::row::said(&status).contains(SECRET));
    assert!(!service.log.text(0).contains(SECRET), "{}", service.log.text(0));
    let master = service.master();
    assert!(environment(master).contains(&format!("API_TOKEN={SECRET}")));
    for (pid, words) in support::host::commands() {
        assert!(!words.iter().any(|word| word.contains(SECRET)), "{pid}: {words:?}");
    }
    assert!(!text(service.runtime(), "environ").contains(SECRET));
    assert!(!text(service.keeper().expect("a keeper"), "environ").contains("swordfish"));
    // A reader that finds nothing anywhere would prove nothing.
    assert!(is_in_memory(master, SECRET.as_bytes()));
    assert!(!is_in_memory(service.keeper().unwrap(), SECRET.as_bytes()));
    let scratch = service.scratch();
    let secret = service.directory.join("env/API_TOKEN").display().to_string();
    let pillar = scratch.join("pillar.yaml").display().to_string();
    let mut files = files_with(scratch, SECRET);
    files.sort();
    // What each generation is made of; for root alone, as the secret itself.
    let run = service.run_directory();
    let made = ["generation.2.json", "before.json"].map(|name| run.join(name));
    for file in &made {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    let made = made.map(|file| file.display().to_string());
    let mut wanted: Vec<String> = made.into_iter().chain([pillar, secret]).collect();
    wanted.sort();
    assert_eq!(files, wanted);
    service.down();
}
