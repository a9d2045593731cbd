//! The other end of the control socket: how commands ask a runtime.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::place::Place;
use crate::runtime::protocol::{Reply, Wish};

/// How long a runtime may take to say what runs: it does nothing that takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// No runtime is at work.
    Down,
    /// It cannot be asked.
    Refused(io::Error),
}

/// Where the runtime that runsv has started in this service directory listens, as the kernel knows it: for when the run
/// script cannot tell. Only root may look.
pub fn run_directory(service: &Path) -> Option<String> {
    let pid: u32 = fs::read_to_string(service.join("supervise/pid")).ok()?.trim().parse().ok()?;
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    // Num RefCount Protocol Flags Type St Inode Path (proc_net_unix(5)).
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(6);
        let inode = fields.next()?;
        let path = fields.next()?.strip_suffix("/control")?;
        sockets.iter().any(|socket| socket == inode).then(|| path.to_owned())
    })
}

/// Somebody to ask.
pub struct Asking(BufReader<UnixStream>);

impl Asking {
    /// Asks the runtime whose run directory this is.
    pub fn begin(run: &str, wish: Wish) -> Result<Self, Silence> {
        // A directory that somebody else can have made would let that one answer.
        if !Path::new(run).exists() || Place::existing(run).is_none() {
            return Err(Silence::Down);
        }
        let connect = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(Path::new(run).join("control"))?;
            if wish == Wish::Status {
                stream.set_read_timeout(Some(ANSWER))?;
            }
            stream.write_all(format!("{}\n", serde_json::to_string(&wish)?).as_bytes())?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self(BufReader::new(stream))),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(Silence::Down)
            }
            Err(error) => Err(Silence::Refused(error)),
        }
    }

    /// The next line; none once everything was said, or the runtime has gone.
    pub fn hear(&mut self) -> io::Result<Option<Reply>> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_str(&line).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}
