//! Text that fits a width.

/// What a command begins with that is printed in backquotes, to be copied.
const COMMANDS: &[&str] = &["runsmith ", "sv ", "runsv ", "kill ", "ps "];

/// Lines of at most `width` characters, broken at blanks; a longer word is broken after a `/` where it has one. A command in
/// backquotes is never broken, so that it can be copied: it may be wider.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in words(text) {
        let Some(line) = lines.last_mut() else { break };
        let long = word.chars().count();
        if line.is_empty() && long <= width {
            line.push_str(word);
        } else if !line.is_empty() && line.chars().count() + 1 + long <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            let parts = if word.starts_with('`') { vec![word.to_owned()] } else { broken(word, width) };
            if line.is_empty() {
                lines.pop();
            }
            lines.extend(parts);
        }
    }
    lines
}

/// The same with every line but the first one indented.
pub(crate) fn hanging(text: &str, width: usize, indent: usize) -> String {
    wrapped(text, width.saturating_sub(indent)).join(&format!("\n{:indent$}", ""))
}

/// The text at its blanks; a command in backquotes is one word, with what follows it directly.
fn words(text: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let begins = rest.strip_prefix('(').unwrap_or(rest);
        let inner =
            begins.strip_prefix('`').filter(|inner| COMMANDS.iter().any(|one| inner.starts_with(one)));
        let command = inner.and_then(|inner| inner.find('`'));
        let from = command.map_or(0, |end| rest.len() - begins.len() + 1 + end + 1);
        let end = rest.get(from..).and_then(|after| after.find(' ')).map_or(rest.len(), |at| from + at);
        words.push(rest.get(..end).unwrap_or(rest));
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    words
}

/// A word in parts of at most `width` characters.
fn broken(word: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    for part in word.split_inclusive('/') {
        let has_room = parts.last().is_some_and(|last| last.chars().count() + part.chars().count() <= width);
        if !has_room && parts.last().is_some_and(|last| !last.is_empty()) {
            parts.push(String::new());
        }
        for c in part.chars() {
            if parts.last().is_some_and(|last| last.chars().count() >= width) {
                parts.push(String::new());
            }
            if let Some(last) = parts.last_mut() {
                last.push(c);
            }
        }
    }
    parts
}

/// The text, or as much of it as `width` characters hold.
pub(super) fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
