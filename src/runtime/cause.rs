//! The one line of a server's output that explains a failure, found among its last lines. It is shown to people; nothing
//! is decided by it.

/// A longer line is cut, in characters: it is to be read at a glance.
const LONGEST: usize = 200;

/// So much is shown of what a failed generation and another one said, in bytes: up to the line that explains the failure, and a
/// few lines more.
const SHOWN: usize = 4096;
const LINES_AFTER: usize = 8;

/// What Python writes before the frames of an exception.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// By which gunicorn's master ends when a worker could not boot (gunicorn/errors.py).
const HALT: &str = "HaltServer";

/// Why a server could not load its application, in its own words: the exception of the last traceback, else the last line
/// that names an error. None if no line does.
pub fn of_failure(output: &str) -> Option<String> {
    exception(output).or_else(|| output.lines().rev().find_map(error)).map(cut)
}

/// What a failed generation said, out of what it and the generation that serves said meanwhile: without lines of requests, which
/// it has not served, and with the line that explains the failure near the end.
pub fn of_successor(output: &str) -> String {
    let lines = output.lines().filter(|line| !is_of_a_request(line)).map(|line| format!("{line}\n"));
    let output: String = lines.collect();
    // Where a line ends that lies in the output.
    let end_of = |line: &str| {
        let begin = (line.as_ptr() as usize).saturating_sub(output.as_ptr() as usize);
        let after = output.get(begin..)?;
        let mut ends = after.match_indices('\n').map(|(end, _)| begin + end + 1);
        ends.nth(LINES_AFTER).or(Some(output.len()))
    };
    let line = exception(&output).or_else(|| output.lines().rev().find_map(error));
    let end = line.and_then(end_of).unwrap_or(output.len());
    let shown = output.get(..end).unwrap_or(&output);
    let begin = shown.len().saturating_sub(SHOWN);
    let begin = shown.bytes().skip(begin).position(|byte| byte == b'\n').map_or(0, |end| begin + end + 1);
    let begin = if shown.len() > SHOWN { begin } else { 0 };
    shown.get(begin..).unwrap_or(shown).trim_end().to_owned()
}

/// A line of an access log, in the formats that servers have by default.
fn is_of_a_request(line: &str) -> bool {
    line.contains(" HTTP/1.1\" ") || line.contains(" HTTP/1.0\" ")
}

/// How the server reported the end of a worker by a signal or with an error, if it did: the last such line.
pub fn of_worker(output: &str) -> Option<String> {
    let tells = |line: &&str| {
        let line = line.to_ascii_lowercase();
        let by_signal = line.contains("sig");
        // gunicorn: `exited with code 3.`; Ruby: `#<Process::Status: pid 9 exit 1>`.
        let with_error =
            line.contains("exited with code") || (line.contains("reaped") && !line.contains(" exit 0>"));
        line.contains("worker") && (by_signal || with_error)
    };
    output.lines().rev().map(without_prefix).find(tells).map(cut)
}

/// The exception of the last traceback: its first line that is not indented. gunicorn's own, by which its master ends after a
/// worker could not load the application, only if there is no other.
fn exception(output: &str) -> Option<&str> {
    let all = || {
        let tracebacks = output.split(TRACEBACK).skip(1);
        tracebacks.filter_map(|after| {
            after.lines().skip(1).find(|line| !line.is_empty() && !line.starts_with([' ', '\t']))
        })
    };
    all().filter(|line| !line.contains(HALT)).last().or_else(|| all().last())
}

/// The part of a line that names an error, as Python, Ruby and command lines do.
fn error(line: &str) -> Option<&str> {
    let line = without_prefix(line).trim_end();
    if line.starts_with([' ', '\t']) {
        return None;
    }
    let first = line.split(':').next().unwrap_or_default();
    let is_name = first.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    if is_name && (first.ends_with("Error") || first.ends_with("Exception") || first == "error") {
        return Some(line);
    }
    // config.ru:1:in `require': cannot load such file -- x (LoadError)
    let is_ruby = line.ends_with("Error)") || line.ends_with("Exception)");
    is_ruby.then(|| line.split_once("': ").map_or(line, |(_, message)| message))
}

/// A line without what gunicorn (`[time] [pid] [LEVEL] `) and Ruby's logger (`E, [time #pid] ERROR -- : `) begin it with.
fn without_prefix(line: &str) -> &str {
    if let Some((_, message)) = line.split_once(" -- : ") {
        return message;
    }
    let mut rest = line;
    for _ in 0..3 {
        let next = rest.strip_prefix('[').and_then(|inner| inner.split_once("] "));
        let Some((_, next)) = next else { break };
        rest = next;
    }
    rest
}

fn cut(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_explains() {
        let cases = [
            (
                "[2026-01-02 03:04:05 +0000] [7] [ERROR] Exception in worker process\nTraceback (most recent call last):\n  \
                 File \"wsgi.py\", line 1, in <module>\n    import x\nModuleNotFoundError: No module named 'x'\n\
                 [2026-01-02 03:04:05 +0000] [7] [INFO] Worker exiting (pid: 7)\n",
                Some("ModuleNotFoundError: No module named 'x'"),
            ),
            (
                "Traceback (most recent call last):\n  a\nKeyError: 'A'\n\nDuring handling of the above exception, another exception \
                 occurred:\n\nTraceback (most recent call last):\n  b\nRuntimeError: B\n",
                Some("RuntimeError: B"),
            ),
            (
                "Traceback (most recent call last):\n  a\nModuleNotFoundError: No module named 'x'\n[7] [INFO] Worker exiting\n\
                 Traceback (most recent call last):\n  b\ngunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>\n",
                Some("ModuleNotFoundError: No module named 'x'"),
            ),
            // The beginning of the traceback is no longer there.
            (
                "    import x\nImportError: y\n[2026] [1] [INFO] Shutting down: Master\n",
                Some("ImportError: y"),
            ),
            (
                "config.ru:1:in `require': cannot load such file -- x (LoadError)\n\tfrom config.ru:1:in `block'\n",
                Some("cannot load such file -- x (LoadError)"),
            ),
            ("Error: '/x' doesn't exist\n", Some("Error: '/x' doesn't exist")),
            ("[2026] [1] [INFO] Listening at: unix:/x\nall is well\n", None),
            ("Traceback (most recent call last):\n", None),
            ("", None),
        ];
        for (output, cause) in cases {
            assert_eq!(of_failure(output).as_deref(), cause, "{output}");
        }
        let long = "ValueError: ".to_owned() + &"ä".repeat(500);
        assert_eq!(of_failure(&long).map(|line| line.chars().count()), Some(LONGEST + 1));
    }

    #[test]
    fn a_successor_among_requests() {
        let requests = "127.0.0.1 - - [x] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"\n".repeat(200);
        let frames = "  File \"x.py\", line 1\n".repeat(300);
        let failure = format!("{TRACEBACK}\n{frames}Error: boom at import\n");
        let others = "[x] [7] [INFO] Booting worker with pid: 10\n".repeat(300);
        let said = of_successor(&format!("{requests}{failure}{requests}{others}"));
        assert!(!said.contains("HTTP/1.1") && said.contains("  File") && said.len() <= SHOWN, "{said}");
        assert_eq!(said.lines().filter(|line| line.contains("Booting")).count(), LINES_AFTER, "{said}");
        assert_eq!(of_failure(&said).as_deref(), Some("Error: boom at import"));
        assert_eq!(of_successor(&requests), "");
        assert_eq!(of_successor("a\nb\n"), "a\nb");
    }

    #[test]
    fn the_end_of_a_worker() {
        let gunicorn = "[2026-01-02 03:04:05 +0000] [7] [ERROR] Worker (pid:9) was sent SIGSEGV!\n[x] [7] [INFO] Booting worker with pid: 10\n";
        assert_eq!(of_worker(gunicorn).as_deref(), Some("Worker (pid:9) was sent SIGSEGV!"));
        let unicorn = "E, [2026-01-02T03:04:05.678901 #7] ERROR -- : reaped #<Process::Status: pid 9 SIGKILL (signal 9)> worker=0\n";
        assert_eq!(
            of_worker(unicorn).as_deref(),
            Some("reaped #<Process::Status: pid 9 SIGKILL (signal 9)> worker=0")
        );
        for (line, expected) in [
            (
                "[x] [7] [ERROR] Worker (pid:9) exited with code 3.\n",
                Some("Worker (pid:9) exited with code 3."),
            ),
            (
                "E, [2026-01-02 #7] ERROR -- : reaped #<Process::Status: pid 9 exit 1> worker=0\n",
                Some("reaped #<Process::Status: pid 9 exit 1> worker=0"),
            ),
            ("I, [2026-01-02 #7] INFO -- : reaped #<Process::Status: pid 9 exit 0> worker=0\n", None),
            ("[x] [7] [INFO] Booting worker with pid: 10\n", None),
        ] {
            assert_eq!(of_worker(line).as_deref(), expected, "{line}");
        }
    }
}
