//! What a service says, as it says it.

use std::io::{BufRead, BufReader, PipeReader};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A line and when it came.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
    /// Where the next line is: a mark.
    pub next: usize,
}

/// All lines so far; grows while the service runs.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<Line>>, Condvar)>);

impl Log {
    /// Reads the pipe until everybody who can write to it is gone.
    pub fn follow(pipe: PipeReader) -> Self {
        let log = Self::default();
        let shared = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line).into_owned();
                let mut lines = shared.0.0.lock().unwrap();
                let next = lines.len() + 1;
                lines.push(Line { at: Instant::now(), text, next });
                drop(lines);
                shared.0.1.notify_all();
            }
        });
        log
    }

    /// The place where the next line will be: what is waited for after an action comes after it.
    pub fn mark(&self) -> usize {
        self.0.0.lock().unwrap().len()
    }

    /// Waits for the first line from `mark` on that holds one of the texts.
    pub fn wait(&self, mark: usize, texts: &[&str], limit: Duration) -> Line {
        let until = Instant::now() + limit;
        let mut seen = mark;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            while let Some(line) = lines.get(seen) {
                seen += 1;
                if texts.iter().any(|text| line.text.contains(text)) {
                    return line.clone();
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("no line with {texts:?} within {limit:?}; the log:\n{}", self.text(0));
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until there is a further line, for so long at the most: between two looks at what no line tells.
    pub fn next(&self, limit: Duration) {
        let lines = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout(lines, limit).unwrap());
    }

    /// How many lines from `mark` on hold the text.
    pub fn count(&self, mark: usize, text: &str) -> usize {
        self.0.0.lock().unwrap().iter().skip(mark).filter(|line| line.text.contains(text)).count()
    }

    /// The lines from `mark` on.
    pub fn text(&self, mark: usize) -> String {
        let lines = self.0.0.lock().unwrap();
        lines.iter().skip(mark).map(|line| format!("  {}\n", line.text)).collect()
    }
}
