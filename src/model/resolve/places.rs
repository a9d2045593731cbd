//! Where things are: sockets, directories, logs.

use std::collections::HashSet;

use super::check::Check;
use crate::model::address::Address;
use crate::model::input::{
    BindInput, DirectoryInput, LayoutInput, LogInput, OneOrMany, OwnedDirectoryInput, Server, SocketInput,
    Words,
};
use crate::model::paths;
use crate::model::service::{Directory, Layout, Log, RUN, Socket};
use crate::rule;

/// The backlog of gunicorn and of the gist.
const BACKLOG: u32 = 2048;

pub(super) fn sockets(input: OneOrMany<BindInput>, server: Server, check: &mut Check<'_>) -> Vec<Socket> {
    let single = matches!(input, OneOrMany::One(_));
    let mut sockets: Vec<Socket> = vec![];
    let mut seen = HashSet::new();
    for (index, bind) in input.into_vec().into_iter().enumerate() {
        let index = index.to_string();
        let steps: &[&str] = if single { &["bind"] } else { &["bind", &index] };
        let socket = match bind {
            BindInput::Address(address) => {
                SocketInput { address, mode: None, user: None, group: None, backlog: None }
            }
            BindInput::Socket(socket) => *socket,
        };
        let address = match Address::parse(&socket.address) {
            Ok(address) => address,
            Err(reason) => {
                check.complain(&rule::ADDRESS, steps, format!("`bind`: {reason}"));
                continue;
            }
        };
        let path = address.unix_path().unwrap_or_default();
        if path.chars().any(char::is_control) {
            check.complain(
                &rule::ADDRESS,
                steps,
                "`bind`: the path of a Unix socket has a control character",
            );
        }
        if server == Server::Gunicorn && path.contains("unix:") {
            check.complain(
                &rule::ADDRESS,
                steps,
                "`bind`: gunicorn takes only what follows the last \"unix:\" for the path",
            );
        }
        if server == Server::Gunicorn && path.trim() != path {
            check.complain(&rule::ADDRESS, steps, "`bind`: gunicorn drops the blank at the end of the path");
        }
        let address = address.to_string();
        if !seen.insert(address.clone()) {
            check.complain(&rule::ADDRESS, steps, format!("`bind`: {address:?} is there already"));
        }
        sockets.push(Socket {
            mode: socket.mode.map(|mode| format!("{mode:0>4}")),
            user: socket.user,
            group: socket.group,
            backlog: socket.backlog.unwrap_or(BACKLOG),
            address,
        });
    }
    sockets
}

pub(super) fn log(input: LogInput, logs: &str, check: &mut Check<'_>) -> Log {
    let processor = input.processor.map(|given| {
        if matches!(&given, Words::List(words) if words.iter().any(|word| word.contains('\n'))) {
            check.complain(
                &rule::COMMAND,
                &["log", "processor"],
                "`log.processor`: svlogd's config has one line for it, so no word may hold a newline",
            );
        }
        match given {
            Words::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            Words::List(words) => words,
        }
    });
    Log {
        kind: input.kind.unwrap_or_default(),
        directory: check.path(&["log", "directory"], input.directory, || format!("{logs}/service")),
        size: input.size.unwrap_or(1_000_000),
        number: input.number.unwrap_or(10),
        processor,
    }
}

pub(super) fn layout(
    input: &LayoutInput,
    root: &str,
    application: &str,
    user: &str,
    group: &str,
    check: &mut Check<'_>,
) -> Layout {
    let mut directory =
        |key: &'static str, given: &Option<DirectoryInput>, default: &str, owner: (&str, &str)| {
            let given = match given {
                None => OwnedDirectoryInput { path: None, mode: None, user: None, group: None },
                Some(DirectoryInput::Path(path)) => {
                    OwnedDirectoryInput { path: Some(path.clone()), mode: None, user: None, group: None }
                }
                Some(DirectoryInput::Directory(directory)) => directory.clone(),
            };
            let path = given.path.as_deref().unwrap_or(default);
            let path = paths::below(root, path).unwrap_or_else(|reason| {
                check.complain(&rule::PATH, &["layout", key], format!("`layout.{key}`: {reason}"));
                format!("{root}/{default}")
            });
            Directory {
                path,
                mode: given.mode.map_or_else(|| "0755".to_owned(), |mode| format!("{mode:0>4}")),
                user: given.user.unwrap_or_else(|| owner.0.to_owned()),
                group: given.group.unwrap_or_else(|| owner.1.to_owned()),
            }
        };
    let own = (user, group);
    Layout {
        releases: directory("releases", &input.releases, "releases", own),
        pids: directory("pids", &input.pids, "shared/pids", own),
        logs: directory("logs", &input.logs, "shared/logs", own),
        sockets: directory("sockets", &input.sockets, "shared/sockets", own),
        config: directory("config", &input.config, "shared/runsmith", ("root", "root")),
        run: check.path(&["layout", "run"], input.run.clone(), || format!("{RUN}/{application}")),
    }
}
