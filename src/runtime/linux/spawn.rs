//! How the runtime starts a launcher.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use super::launch::{COMMAND, Order};
use super::listen::Listener;
use super::passing;
use super::process::Process;

/// A launcher that waits to be told to go on.
pub struct Launcher {
    /// What will be the master.
    pub process: Process,
    /// What it says; its end means that the program runs.
    pub socket: OwnedFd,
}

impl Launcher {
    /// Starts one. It reads the secrets from the snapshot. `output` becomes the server's standard output and error; `listeners` and then `probe` are inherited.
    pub fn start(
        order: &Order,
        output: &OwnedFd,
        listeners: &[&Listener],
        probe: Option<&OwnedFd>,
        snapshot: &File,
    ) -> io::Result<Self> {
        let (ours, theirs) = passing::pair()?;
        // Variables may be long, and secrets are not among them: a file without a name takes them whole.
        let mut text = std::fs::File::from(memfd_create("order", MemfdFlags::CLOEXEC)?);
        text.write_all(&serde_json::to_vec(order)?)?;
        let child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output.try_clone()?))
            .spawn()?;
        let mut fds: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.as_fd()).collect();
        fds.extend(probe.map(AsFd::as_fd));
        fds.push(snapshot.as_fd());
        fds.push(text.as_fd());
        passing::send(&ours, b"order", &fds)?;
        let process =
            Process::open(child.id()).ok_or_else(|| io::Error::other("the launcher has ended at once"))?;
        Ok(Self { process, socket: ours })
    }

    /// Tells it to become the server.
    pub fn go(&self) -> io::Result<()> {
        passing::send(&self.socket, b"go", &[])
    }
}
