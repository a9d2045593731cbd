//! Which words of a changed line changed.

use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices, diff_ratio};

use super::hunks::{Line, Sign};

/// Lines that have less in common are not marked: nearly all of them would be.
const ALIKE: f32 = 0.4;

/// Longer lines are not looked into.
const LONGEST: usize = 2_000;

/// For each line the ranges of its characters' bytes that its counterpart on the other side has
/// not. A removed line's counterpart is the added line at the same place of the run that follows.
pub fn changed_words(lines: &[Line<'_>]) -> Vec<Vec<Range<usize>>> {
    let mut marks = vec![vec![]; lines.len()];
    let mut at = 0;
    while at < lines.len() {
        let run = |from: usize, sign| lines[from..].iter().take_while(|line| line.sign == sign).count();
        let removed = run(at, Sign::Removed);
        let added = run(at + removed, Sign::Added);
        for pair in 0..removed.min(added) {
            let (old, new) = (at + pair, at + removed + pair);
            if let Some((was, is)) = compare(&lines[old].text, &lines[new].text) {
                marks[old] = was;
                marks[new] = is;
            }
        }
        at += (removed + added).max(1);
    }
    marks
}

type Marks = Vec<Range<usize>>;

fn compare(old: &[u8], new: &[u8]) -> Option<(Marks, Marks)> {
    let (old, new) = (std::str::from_utf8(old).ok()?, std::str::from_utf8(new).ok()?);
    if old.len().max(new.len()) > LONGEST {
        return None;
    }
    let (was, is) = (words(old), words(new));
    let operations = capture_diff_slices(Algorithm::Myers, &was, &is);
    if diff_ratio(&operations, was.len(), is.len()) < ALIKE {
        return None;
    }
    let (mut marks, mut of_new) = (vec![], vec![]);
    for operation in operations.iter().filter(|operation| operation.tag() != DiffTag::Equal) {
        mark(&was, operation.old_range(), &mut marks);
        mark(&is, operation.new_range(), &mut of_new);
    }
    Some((marks, of_new))
}

fn mark(words: &[&str], range: Range<usize>, marks: &mut Marks) {
    let start: usize = words[..range.start].iter().map(|word| word.len()).sum();
    let length: usize = words[range].iter().map(|word| word.len()).sum();
    if length > 0 {
        marks.push(start..start + length);
    }
}

/// Words and numbers whole, everything else a character at a time.
fn words(text: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match is_word(first) {
            true => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::hunks::hunks;
    use super::*;

    fn marked(old: &str, new: &str) -> Vec<String> {
        let lines = hunks(old.as_bytes(), new.as_bytes(), 3).remove(0).lines;
        let mut shown = vec![];
        for (line, marks) in lines.iter().zip(changed_words(&lines)) {
            let mut text = String::from_utf8_lossy(&line.text).into_owned();
            for mark in marks.iter().rev() {
                text.insert(mark.end, ']');
                text.insert(mark.start, '[');
            }
            shown.push(format!("{}{text}", line.sign.character()));
        }
        shown
    }

    #[test]
    fn marks_the_words_that_changed() {
        assert_eq!(
            marked("timeout = 60\nworkers = 4\n", "timeout = 90\nworkers = 4\n"),
            ["-timeout = [60]", "+timeout = [90]", " workers = 4"]
        );
        assert_eq!(marked("a: \"ü 1\"\n", "a: \"ü 2 x\"\nb\n"), ["-a: \"ü [1]\"", "+a: \"ü [2 x]\"", "+b"]);
        assert_eq!(marked("nothing alike\n", "x=1 (y)\n"), ["-nothing alike", "+x=1 (y)"]);
    }
}
