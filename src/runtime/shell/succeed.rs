//! `handoff.strategy: usr2`: the master starts its successor itself, and keeps its addresses.
//!
//! The successor is a child of the old master, found by what it says of itself, or among that master's children. It has
//! the environment, command, virtualenv, user and limits of the first start: the servers have it so.

use std::rc::Rc;

use super::generation::Live;
use super::snapshots::memory;
use super::{Shell, terms};
use crate::host::environments::Environments;
use crate::host::look;
use crate::model::Service;
use crate::model::input::{Server, Strategy};
use crate::runtime::action::Origin;
use crate::runtime::event::{Ask, Event, Generation, Moment};
use crate::runtime::linux::process::{self, Process};
use crate::runtime::linux::{clock, listen_as, take};
use crate::runtime::machine::Record;
use crate::runtime::server;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::state::Life;

/// How long a master may take to answer with a new process, in milliseconds: it only has to fork.
const ANSWER: u64 = 10_000;

/// gunicorn looks once a second whether its old master has gone, and ignores USR2 until it has seen that
/// (arbiter.py, maybe_promote_master); in milliseconds, with room for a busy machine.
const PROMOTION: u64 = 2_000;

/// A master that is to be asked, or was.
pub(super) struct Awaited {
    old: Generation,
    new: Generation,
    service: Rc<Service>,
    /// When it is asked; none once it was.
    ask_at: Option<Moment>,
    /// Then it has not answered.
    pub(super) until: Moment,
}

impl Awaited {
    /// When something is to be done.
    pub(super) fn deadline(&self) -> Moment {
        self.ask_at.unwrap_or(self.until)
    }
}

impl Shell {
    /// Asks a master for its successor, unless it has one already.
    pub(super) fn succeed(&mut self, old: Generation, new: Generation) -> Result<(), String> {
        let reading = self.reading(new, Origin::Disk)?;
        self.may_follow(&reading.service)?;
        let service = Rc::new(self.as_first_started(old, reading.service));
        self.mix_snapshots(old, new, &service)?;
        let now = clock::now();
        let ask_at = self.settled_at.after(if service.server == Server::Gunicorn { PROMOTION } else { 0 });
        self.awaited = Some(Awaited {
            old,
            new,
            service,
            ask_at: Some(ask_at.max(now)),
            until: ask_at.max(now).after(ANSWER),
        });
        self.hear_also(Some(new));
        // It may have one already.
        if let Some(successor) = self.unasked_successor(old) {
            self.succeeded(successor);
        } else {
            self.look_at_the_master();
        }
        Ok(())
    }

    /// The service as the successor will have it; what it will not take is said.
    fn as_first_started(&mut self, old: Generation, new: Service) -> Service {
        let Some(live) = self.generations.get(&old) else { return new };
        let first = &live.service;
        let next = Service {
            command: first.command.clone(),
            user: first.user.clone(),
            group: first.group.clone(),
            groups: first.groups.clone(),
            home: first.home.clone(),
            virtualenv: first.virtualenv.clone(),
            root: first.root.clone(),
            bind: first.bind.clone(),
            environment: first.environment.clone(),
            secrets: first.secrets.clone(),
            secret_files: first.secret_files.clone(),
            limits: first.limits.clone(),
            umask: first.umask.clone(),
            nice: first.nice,
            oom_score_adj: first.oom_score_adj,
            hardening: first.hardening,
            cgroup: first.cgroup,
            ..new.clone()
        };
        if next != new {
            self.log.say(
                "note: environment, command, virtualenv, addresses, user, limits or hardening have changed: with `usr2` that takes `sv down` and `sv up`",
            );
        }
        next
    }

    /// What the successor is made of: release and configuration from what is on disk, the rest from the first start.
    fn mix_snapshots(&mut self, old: Generation, new: Generation, service: &Service) -> Result<(), String> {
        let (Some(first), Some(now)) = (self.snapshot(old), self.snapshot(new)) else { return Ok(()) };
        let mixed = Snapshot { service: service.clone(), secrets: first.secrets, ..now };
        let file = memory().map_err(|error| format!("there is no memory for what it is made of: {error}"))?;
        take::write(&mixed, &file)?;
        self.hold_snapshot(new, file);
        Ok(())
    }

    /// A child of a master that has run a program: workers are only forked.
    pub(super) fn unasked_successor(&self, old: Generation) -> Option<Process> {
        let live = self.generations.get(&old)?;
        let master = live.master.as_ref()?.pid;
        let known = |pid: u32| self.generations.values().any(|live| live.life.master.0 == pid);
        let environments = Environments::default();
        process::all()
            .into_iter()
            .filter(|(pid, stat)| stat.parent == master && stat.has_run && !known(*pid))
            .filter(|(pid, _)| process::runs_as(*pid, live.life.uid))
            .filter(|(pid, _)| is_server(&environments, *pid, live.service.server))
            .find_map(|(pid, stat)| Process::proven(pid, stat.start, Some(live.life.uid)))
    }

    /// Asks when it is time to, and gives up when there was no answer.
    pub(super) fn look_at_the_master(&mut self) {
        let now = clock::now();
        let Some(awaited) = self.awaited.as_ref().filter(|awaited| awaited.deadline() <= now) else { return };
        let (old, new) = (awaited.old, awaited.new);
        // One that was asked for by an earlier run, or by somebody else, may have begun meanwhile.
        if let Some(successor) = self.unasked_successor(old) {
            return self.succeeded(successor);
        }
        let Some(awaited) = self.awaited.as_mut() else { return };
        if awaited.ask_at.take().is_some() {
            self.hear_also(Some(new));
            let live = self.generations.get(&old);
            if let Some((live, signal)) =
                live.and_then(|live| Some((live, server::successor(live.service.server)?)))
            {
                live.signal(signal);
            }
        } else {
            self.awaited = None;
            let pid = self.generations.get(&old).map_or(0, |live| live.life.master.0);
            let reason =
                format!("master {pid} answered USR2 with no successor, or with one that ended at once");
            self.tell(Event::NotStarted(new, reason));
        }
    }

    /// Somebody says that it is to be a master's successor.
    pub(super) fn successor_claimed(&mut self, pid: u32, uid: u32, old_master: u32) {
        let of = self.generations.iter().find(|(_, live)| {
            live.life.uid == uid && live.master.as_ref().is_some_and(|master| master.pid == old_master)
        });
        let Some((old, live)) = of else { return };
        let is_usr2 = live.service.handoff.strategy == Strategy::Usr2;
        let child = process::stat(pid).filter(|stat| stat.parent == old_master);
        let Some(child) = child.filter(|_| is_usr2) else { return };
        match &self.awaited {
            Some(awaited) if awaited.old == *old => {
                if let Some(successor) = Process::proven(pid, child.start, Some(uid)) {
                    self.succeeded(successor);
                }
            }
            // Somebody else has sent USR2; it is taken up as if it had been asked for here.
            Some(_) => {}
            None if self.machine.candidate().is_none() => {
                self.log.say(&format!("a successor that nobody asked this run for, {pid}, is taken up"));
                self.ask(Ask::Upgrade(None));
            }
            None => {}
        }
    }

    fn succeeded(&mut self, successor: Process) {
        let Some(awaited) = self.awaited.take() else { return };
        let Some(old) = self.generations.get(&awaited.old) else { return };
        // The kernel knows where it runs; what the link leads to by now is another question.
        let release = process::directory(successor.pid)
            .map_or_else(|| awaited.service.current(), |path| path.display().to_string());
        let life = Life {
            generation: awaited.new,
            master: (successor.pid, successor.start),
            session: old.life.session,
            uid: old.life.uid,
            since: clock::now(),
            release,
            fallback: false,
            fingerprint: self
                .made
                .get(&awaited.new)
                .map_or_else(String::new, |one| one.made.fingerprint.clone()),
            workers: (0, None),
            ready: vec![],
            sockets: None,
            cgroup: old.life.cgroup.clone(),
            unlimited: old.life.unlimited.clone(),
            probe: false,
        };
        let identity = Rc::clone(&old.identity);
        self.log.say(&format!(
            "master {} has a successor, {}: {} in {}",
            old.life.master.0, successor.pid, awaited.new, life.release
        ));
        let terms = terms(&awaited.service);
        let cgroup = old.cgroup.clone();
        let mut live = Live::new(life, &awaited.service, &identity, Some(successor));
        live.cgroup = cgroup;
        self.generations.insert(awaited.new, live);
        self.tell(Event::Started(awaited.new, terms));
    }

    /// At the beginning of a run: a successor that an earlier one had asked for, or somebody else, and of which no record tells. It
    /// is the candidate that was asked for, if that is not on record otherwise. Nobody knows how far it is, so it is told to go.
    pub(super) fn take_successors(&mut self, record: &Record) {
        let masters: Vec<Generation> = self.generations.keys().copied().collect();
        for old in masters {
            let usr2 = self
                .generations
                .get(&old)
                .is_some_and(|live| live.service.handoff.strategy == Strategy::Usr2 && live.master.is_some());
            let Some(successor) = usr2.then(|| self.unasked_successor(old)).flatten() else { continue };
            let Some(live) = self.generations.get(&old) else { continue };
            let asked = record
                .candidate
                .filter(|_| record.serving.is_some_and(|(serving, _)| serving == old))
                .filter(|candidate| !self.generations.contains_key(candidate));
            let last = self.generations.keys().next_back().map_or(0, |last| last.0).max(record.last);
            let new = asked.unwrap_or(Generation(last + 1));
            let directory = process::directory(successor.pid);
            let life = Life {
                generation: new,
                master: (successor.pid, successor.start),
                since: clock::now(),
                release: directory.map_or_else(String::new, |path| path.display().to_string()),
                fingerprint: String::new(),
                fallback: false,
                workers: (0, None),
                ready: vec![],
                ..live.life.clone()
            };
            self.log.say(&format!(
                "process {} is a successor of master {} that no record names: {new}",
                successor.pid, live.life.master.0
            ));
            let cgroup = live.cgroup.clone();
            let mut live = Live::new(life, &live.service, &live.identity, Some(successor));
            live.cgroup = cgroup;
            self.generations.insert(new, live);
        }
    }

    /// PID files that nothing alive can have written are in the new master's way: gunicorn and unicorn take any process
    /// that has the number in them for themselves. They are the user's, so the user removes them.
    pub(super) fn remove_pid_files(&self, service: &Service, is_serving: bool) {
        let (name, extra) = match service.server {
            Server::Gunicorn => ("gunicorn.pid", ".2"),
            Server::Unicorn => ("unicorn.pid", ".oldbin"),
            Server::Any => return,
        };
        let file = format!("{}/{name}", service.layout.pids.path);
        let mut files = vec![format!("{file}{extra}")];
        if !is_serving {
            files.push(file);
        }
        for file in files {
            if look::is_there(&file) {
                listen_as::unlink(&file, &self.identity);
            }
        }
    }
}

/// Whether a process is the server's next master, and no program that the application runs: the server gives it its
/// sockets by a variable. A process that writes its title over its environment hides that; then its title tells.
fn is_server(environments: &Environments, pid: u32, server: Server) -> bool {
    let names: &[&str] = match server {
        Server::Gunicorn => &["GUNICORN_PID", "GUNICORN_FD"],
        Server::Unicorn => &["UNICORN_FD"],
        Server::Any => &[],
    };
    names.iter().any(|name| environments.names(pid, name))
}
