//! One HTTP request to a generation's private socket.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::kernel;
use crate::model::service::HealthCheck;
use crate::runtime::event::{Generation, Moment};
use crate::visible::visible;

/// So much of an answer is read: the status line is at its beginning.
const ENOUGH: usize = 4096;

/// A request that is under way.
pub struct Request {
    /// Whom it asks.
    pub generation: Generation,
    /// Then it counts as failed.
    pub until: Moment,
    stream: UnixStream,
    left: Vec<u8>,
    answer: Vec<u8>,
    status: Vec<u16>,
    timeout: f64,
}

/// How far it is.
pub enum Progress {
    /// It goes on.
    Waiting,
    /// The answer was a good one.
    Good,
    /// It was not, and why.
    Bad(String),
}

impl Request {
    /// Begins one; the error says why it cannot be.
    pub fn begin(
        generation: Generation,
        path: &Path,
        check: &HealthCheck,
        now: Moment,
    ) -> Result<Self, String> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let stream = socket
            .and_then(|socket| {
                // The answer is the application's: it is to bring no descriptors.
                kernel::refuse_rights(&socket);
                connect(&socket, &SocketAddrUnix::new(path)?)?;
                Ok(UnixStream::from(socket))
            })
            .map_err(|error| format!("its private socket cannot be reached: {error}"))?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: runsmith-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            check.path, check.host
        );
        Ok(Self {
            generation,
            until: now.after(check.timeout.milliseconds),
            stream,
            left: request.into_bytes(),
            answer: vec![],
            status: check.status.clone(),
            timeout: check.timeout.milliseconds as f64 / 1000.0,
        })
    }

    /// What it waits for.
    pub fn flags(&self) -> PollFlags {
        if self.left.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// What becomes of it when its time is over.
    pub fn late(&self) -> String {
        format!("no answer within {} s", self.timeout)
    }

    /// Goes on.
    pub fn go_on(&mut self) -> Progress {
        match self.exchange() {
            Ok(Some(progress)) => progress,
            Ok(None) => Progress::Waiting,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Waiting,
            Err(error) => Progress::Bad(format!("the connection broke: {error}")),
        }
    }

    fn exchange(&mut self) -> io::Result<Option<Progress>> {
        while !self.left.is_empty() {
            let count = self.stream.write(&self.left)?;
            self.left.drain(..count);
        }
        let mut part = [0; 1024];
        loop {
            let count = self.stream.read(&mut part)?;
            self.answer.extend_from_slice(part.get(..count).unwrap_or_default());
            let line = self.answer.iter().position(|byte| *byte == b'\n');
            if let Some(end) = line {
                return Ok(Some(self.judge(end)));
            }
            if count == 0 {
                return Ok(Some(Progress::Bad("the connection was closed without an answer".to_owned())));
            }
            if self.answer.len() > ENOUGH {
                return Ok(Some(Progress::Bad("the answer is no HTTP".to_owned())));
            }
        }
    }

    fn judge(&self, end: usize) -> Progress {
        let line = String::from_utf8_lossy(self.answer.get(..end).unwrap_or_default());
        let line = line.trim_end();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        match status {
            Some(status) if self.status.contains(&status) => Progress::Good,
            Some(_) => Progress::Bad(format!("it answered {:?}", visible(line))),
            None => Progress::Bad("the answer is no HTTP".to_owned()),
        }
    }
}

impl AsFd for Request {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
