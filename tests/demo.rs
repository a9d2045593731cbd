//! `make demo`: a pillar, a real runsv, a real gunicorn, several releases under load, and what
//! became of the requests. Run by `make test` too, where a failed request fails it.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a demonstration tells what it does")]

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use support::load::Load;
use support::service::{Release, Server, Service, Socket};

/// Releases that are deployed after the first one.
const RELEASES: u32 = 4;

fn main() -> ExitCode {
    // `cargo test NAME` runs every test program with its filter; this one has no tests to name.
    let mut arguments = std::env::args().skip(1);
    if arguments.any(|argument| argument == "--list" || !argument.starts_with('-')) {
        return ExitCode::SUCCESS;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            println!("cannot catch signal {signal}: {error}");
            return ExitCode::FAILURE;
        }
    }
    demo(&interrupted)
}

fn demo(interrupted: &AtomicBool) -> ExitCode {
    let service = Service::native(Server::Gthread, Socket::Tcp, "");
    println!("$ cat pillar.yaml\n{}", service.pillar().trim_end());
    println!("\n$ runsmith render pillar.yaml --out /\n{}", service.rendered.trim_end());

    println!("\n$ runsv {} &", service.directory.display());
    let begun = Instant::now();
    let service = service.started();
    println!("release 1 is ready after {:.1} s", begun.elapsed().as_secs_f32());

    println!(
        "\n8 clients ask all the time, 2 keep their connections, 1 request of 3 s is in flight at each deploy"
    );
    let mut load = Load::start(&service.address, 8, 2);
    let mut seconds = vec![];
    for number in 2..2 + RELEASES {
        if interrupted.load(Ordering::Relaxed) {
            println!("interrupted: cleaning up");
            return ExitCode::FAILURE;
        }
        load.slow();
        let before = Instant::now();
        let end = service.deploy(number, Release::Good);
        seconds.push((end.at - before).as_secs_f32());
        println!("current -> releases/{number}, sv 2 {}\n  {}", service.name, end.text);
    }
    println!("current -> releases/99, which cannot be imported\n$ runsmith upgrade {}", service.name);
    service.release(99, Release::Broken);
    service.switch(99);
    let output = service.runsmith(&["upgrade"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines().take(1).chain(text.lines().last()) {
        println!("  {line}");
    }
    println!("  exit code {}", output.status.code().unwrap_or(-1));
    let last = service.version();
    println!("  release {last} goes on serving");
    println!("\n$ runsmith status {}", service.name);
    print!("{}", String::from_utf8_lossy(&service.runsmith(&["status"]).stdout));

    let seen = load.finish();
    let mut versions: Vec<u32> =
        seen.answers.iter().filter_map(|answer| answer.version.parse().ok()).collect();
    versions.sort_unstable();
    versions.dedup();
    println!("\n$ sv down {}", service.name);
    service.down();
    service.assert_nothing_left();
    println!("nothing is left behind\n");
    println!("requests            {}", seen.answers.len() + seen.failures.len());
    println!("failed              {}", seen.failures.len());
    println!("versions seen       {versions:?}");
    println!("seconds per deploy  {seconds:.1?}   (3 s of each are the request that was in flight)");
    for failure in &seen.failures {
        println!("  {failure}");
    }
    let all: Vec<u32> = (1..2 + RELEASES).collect();
    if seen.failures.is_empty() && versions == all && last == (RELEASES + 1).to_string() {
        ExitCode::SUCCESS
    } else {
        println!("{}", service.log.text(0));
        ExitCode::FAILURE
    }
}
