//! Lines that differ, in groups with the lines around them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};

use super::provenance::Cause;

/// Lines around a change, as in every unified diff.
pub const CONTEXT: usize = 3;

/// So many pairs of lines may be compared for the shortest difference: 500 old with 500 new ones. The search is quadratic, and old
/// files may be anybody's. Where there are more, the lines that both have once are tied together first; what lies between them and is
/// still too much is shown as replaced.
const MOST_PAIRS: usize = 250_000;

/// A file of more lines than this is not compared line by line: a value of a pillar may be nearly all newlines, and each line
/// takes some 50 bytes of memory while it is looked at. The longest file that is rendered has some 5,000.
pub const MOST_SHOWN: usize = 100_000;

/// Which side a line is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Both.
    Same,
    /// The old one only.
    Removed,
    /// The new one only.
    Added,
}

impl Sign {
    /// The character that stands in front of the line in a unified diff.
    pub fn character(self) -> char {
        match self {
            Self::Same => ' ',
            Self::Removed => '-',
            Self::Added => '+',
        }
    }
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// On which side it is.
    pub sign: Sign,
    /// Its bytes, without the newline.
    pub text: Cow<'a, [u8]>,
    /// Whether a newline ends it; only a file's last line may have none.
    pub newline: bool,
}

/// Lines that changed, and some around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Index of its first line in the old file, from 0.
    pub old_start: usize,
    /// How many lines of the old file it spans.
    pub old_lines: usize,
    /// Index of its first line in the new file, from 0.
    pub new_start: usize,
    /// How many lines of the new file it spans.
    pub new_lines: usize,
    /// The lines, removed ones before added ones.
    pub lines: Vec<Line<'a>>,
    /// What in the pillars caused it.
    pub causes: Vec<Cause>,
}

impl Hunk<'_> {
    /// `@@ -1,3 +1,4 @@`, as diff(1) writes it: an empty side begins one line earlier, one line needs no count.
    pub fn header(&self) -> String {
        let side = |start: usize, lines: usize| match lines {
            0 => format!("{start},0"),
            1 => format!("{}", start + 1),
            _ => format!("{},{lines}", start + 1),
        };
        format!("@@ -{} +{} @@", side(self.old_start, self.old_lines), side(self.new_start, self.new_lines))
    }

    /// Indexes of the lines of one side that are not on the other, in that side's file.
    pub fn changed(&self, sign: Sign) -> Vec<usize> {
        let mut at = if sign == Sign::Removed { self.old_start } else { self.new_start };
        let mut changed = vec![];
        for line in &self.lines {
            if line.sign == sign {
                changed.push(at);
            }
            if line.sign == sign || line.sign == Sign::Same {
                at += 1;
            }
        }
        changed
    }
}

/// How many lines a file has.
pub fn count(bytes: &[u8]) -> usize {
    let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(!bytes.is_empty() && !bytes.ends_with(b"\n"))
}

/// How many lines the hunks of two files can have at the most, without looking for them.
pub(super) fn at_most(old: &[u8], new: &[u8]) -> usize {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let rest = |bytes: &[u8]| count(bytes.get(..bytes.len() - same).unwrap_or_default()) + 1;
    rest(old) + rest(new) + 2 * CONTEXT
}

/// The lines of a file, each with its newline.
pub fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// What has to be done to the old lines to get the new ones.
fn operations(old: &[&[u8]], new: &[&[u8]]) -> Vec<DiffOp> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.iter().skip(prefix).rev().zip(new.iter().skip(prefix).rev());
    let suffix = rest.take_while(|(a, b)| a == b).count();
    let (old_len, new_len) = (old.len() - prefix - suffix, new.len() - prefix - suffix);
    if old_len.saturating_mul(new_len) <= MOST_PAIRS {
        return capture_diff_slices(Algorithm::Myers, old, new);
    }
    let mut ties: Vec<(usize, usize)> = (0..prefix).map(|at| (at, at)).collect();
    ties.extend(tied(old, prefix..prefix + old_len, new, prefix..prefix + new_len));
    ties.extend((0..suffix).map(|at| (prefix + old_len + at, prefix + new_len + at)));
    let mut operations: Vec<DiffOp> = vec![];
    let (mut was, mut is) = (0, 0);
    for (old_at, new_at) in ties.into_iter().chain([(old.len(), new.len())]) {
        between(old, was..old_at, new, is..new_at, &mut operations);
        if old_at < old.len() {
            equal(old_at, new_at, 1, &mut operations);
        }
        (was, is) = (old_at + 1, new_at + 1);
    }
    operations
}

/// Lines that both have exactly once in these ranges, as many as are in the same order on both sides.
fn tied(old: &[&[u8]], olds: Range<usize>, new: &[&[u8]], news: Range<usize>) -> Vec<(usize, usize)> {
    let mut places: HashMap<&[u8], [Vec<usize>; 2]> = HashMap::with_capacity(olds.len());
    for (side, all, range) in [(0, old, olds), (1, new, news)] {
        for at in range {
            let Some(line) = all.get(at) else { continue };
            if let Some(found) = places.entry(line).or_default().get_mut(side)
                && found.len() < 2
            {
                found.push(at);
            }
        }
    }
    let once = places.into_values().filter_map(|found| match found.each_ref().map(Vec::as_slice) {
        [[was], [is]] => Some((*was, *is)),
        _ => None,
    });
    let mut once: Vec<(usize, usize)> = once.collect();
    once.sort_unstable();
    // The longest row that ascends: of each length the one whose last line comes first, and what comes before each line in it.
    let mut last: Vec<usize> = vec![];
    let mut before: Vec<Option<usize>> = Vec::with_capacity(once.len());
    for (at, (_, is)) in once.iter().enumerate() {
        let length = last.partition_point(|other| once.get(*other).is_some_and(|(_, other)| other < is));
        before.push(length.checked_sub(1).and_then(|shorter| last.get(shorter).copied()));
        match last.get_mut(length) {
            Some(place) => *place = at,
            None => last.push(at),
        }
    }
    let mut row = vec![];
    let mut next = last.last().copied();
    while let Some(at) = next {
        row.extend(once.get(at));
        next = before.get(at).copied().flatten();
    }
    row.reverse();
    row
}

/// What is to be done between two lines that are tied.
fn between(old: &[&[u8]], olds: Range<usize>, new: &[&[u8]], news: Range<usize>, all: &mut Vec<DiffOp>) {
    let (old_index, new_index, old_len, new_len) = (olds.start, news.start, olds.len(), news.len());
    match (old_len, new_len) {
        (0, 0) => {}
        (0, _) => all.push(DiffOp::Insert { old_index, new_index, new_len }),
        (_, 0) => all.push(DiffOp::Delete { old_index, old_len, new_index }),
        _ if old_len.saturating_mul(new_len) > MOST_PAIRS => {
            all.push(DiffOp::Replace { old_index, old_len, new_index, new_len });
        }
        _ => {
            let (Some(was), Some(is)) = (old.get(olds), new.get(news)) else { return };
            for op in capture_diff_slices(Algorithm::Myers, was, is) {
                let (tag, was, is) = op.as_tag_tuple();
                let (old_index, new_index) = (old_index + was.start, new_index + is.start);
                let (old_len, new_len) = (was.len(), is.len());
                match tag {
                    DiffTag::Equal => equal(old_index, new_index, old_len, all),
                    DiffTag::Delete => all.push(DiffOp::Delete { old_index, old_len, new_index }),
                    DiffTag::Insert => all.push(DiffOp::Insert { old_index, new_index, new_len }),
                    DiffTag::Replace => all.push(DiffOp::Replace { old_index, old_len, new_index, new_len }),
                }
            }
        }
    }
}

/// Lines that are the same; they go on where the ones before end.
fn equal(old_index: usize, new_index: usize, len: usize, all: &mut Vec<DiffOp>) {
    match all.last_mut() {
        Some(DiffOp::Equal { len: before, .. }) => *before += len,
        _ => all.push(DiffOp::Equal { old_index, new_index, len }),
    }
}

/// The hunks that turn `old` into `new`, with so many lines of context; none if they are the same.
pub fn hunks<'a>(old: &'a [u8], new: &'a [u8], context: usize) -> Vec<Hunk<'a>> {
    let (old, new) = (lines(old), lines(new));
    let line = |sign, text: &'a [u8]| match text.strip_suffix(b"\n") {
        Some(text) => Line { sign, text: text.into(), newline: true },
        None => Line { sign, text: text.into(), newline: false },
    };
    let mut hunks = vec![];
    for group in group_diff_ops(operations(&old, &new), context) {
        let mut hunk = Hunk {
            old_start: group.first().map_or(0, |op| op.old_range().start),
            new_start: group.first().map_or(0, |op| op.new_range().start),
            old_lines: 0,
            new_lines: 0,
            lines: vec![],
            causes: vec![],
        };
        for op in group {
            let (tag, was, is) = op.as_tag_tuple();
            hunk.old_lines += was.len();
            hunk.new_lines += is.len();
            if tag == DiffTag::Equal {
                hunk.lines.extend(old[was].iter().map(|text| line(Sign::Same, text)));
                continue;
            }
            hunk.lines.extend(old[was].iter().map(|text| line(Sign::Removed, text)));
            hunk.lines.extend(new[is].iter().map(|text| line(Sign::Added, text)));
        }
        hunks.push(hunk);
    }
    hunks
}

/// Indexes of the lines of `old` that are not in `new`.
pub(super) fn removed(old: &[u8], new: &[u8]) -> Vec<usize> {
    if old == new {
        return vec![];
    }
    let (old, new) = (lines(old), lines(new));
    let operations = operations(&old, &new);
    operations.iter().filter(|op| op.tag() != DiffTag::Equal).flat_map(DiffOp::old_range).collect()
}

/// The lines of `new` that are not in `old`, without their newlines; those without a word in them are anybody's.
pub(super) fn gained(old: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
    let all = lines(new);
    let own = |at: usize| all.get(at).map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec());
    let mut found: Vec<Vec<u8>> = removed(new, old).into_iter().filter_map(own).collect();
    found.retain(|line| line.iter().any(u8::is_ascii_alphanumeric));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let mut out = String::new();
        for hunk in hunks(old.as_bytes(), new.as_bytes(), 1) {
            out.push_str(&hunk.header());
            out.push('\n');
            for line in &hunk.lines {
                out.push(line.sign.character());
                out.push_str(&String::from_utf8_lossy(&line.text));
                out.push_str(if line.newline { "\n" } else { "$\n" });
            }
        }
        out
    }

    #[test]
    fn headers_are_those_of_diff() {
        assert_eq!(shown("a\n", "a\n"), "");
        assert_eq!(shown("", "a\nb"), "@@ -0,0 +1,2 @@\n+a\n+b$\n");
        assert_eq!(shown("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        assert_eq!(shown("a\nb\nc\nd\n", "a\nb\nC\nd\n"), "@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n");
        assert_eq!(shown("a\nb", "a\nb\n"), "@@ -1,2 +1,2 @@\n a\n-b$\n+b\n");
    }

    #[test]
    fn what_differs_in_very_many_lines_is_replaced_as_one() {
        const LINES: usize = 20_000;
        let old: String = (0..LINES).map(|n| format!("{}\n", n % 100)).collect();
        let new: String = (0..LINES).map(|n| format!("{}\n", n % 100 + 101)).collect();
        let both = |middle: &str| format!("first\n{middle}last\n");
        let (old, new) = (both(&old), both(&new));
        let found = hunks(old.as_bytes(), new.as_bytes(), 3);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].lines.len(), 2 * LINES + 2);
    }

    /// What the hunks of a large difference do to the old lines gives the new ones.
    #[test]
    fn a_large_difference_is_the_whole_difference() {
        let mut state: u32 = 7;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for values in [3, 500, 100_000] {
            let mut side = || (0..2_000).map(|_| format!("{}\n", random(values))).collect::<String>();
            let (old, mut new) = (side(), side());
            // Some of it is the same, in the same order.
            new.push_str(&old[..old.len() / 2]);
            let (was, is) = (lines(old.as_bytes()), lines(new.as_bytes()));
            let operations = operations(&was, &is);
            let mut made: Vec<&[u8]> = vec![];
            let mut at = 0;
            for op in &operations {
                let (tag, old_range, new_range) = op.as_tag_tuple();
                assert_eq!((old_range.start, new_range.start), (at, made.len()), "{op:?}");
                at = old_range.end;
                made.extend(if tag == DiffTag::Equal { &was[old_range] } else { &is[new_range] });
            }
            assert!(at == was.len() && made == is, "{values}");
        }
        // Two lines that changed places, far from each other, are all that is shown.
        let text = |swap: bool| {
            let number = |n: usize| match n {
                10 if swap => 3_000,
                3_000 if swap => 10,
                n => n,
            };
            (0..4_000).map(|n| format!("{}\n", number(n))).collect::<String>()
        };
        let (old, new) = (text(false), text(true));
        let found = hunks(old.as_bytes(), new.as_bytes(), 0);
        assert_eq!(found.iter().map(|hunk| hunk.lines.len()).sum::<usize>(), 4);
    }

    #[test]
    fn lines_are_counted_as_they_are_split() {
        for text in ["", "a", "a\n", "a\nb", "\n\n", "\n\na"] {
            assert_eq!(count(text.as_bytes()), lines(text.as_bytes()).len(), "{text:?}");
        }
        for (old, new) in [("", "a\nb"), ("a\nb\nc\n", "a\nB\nc\n"), ("a\n", "a\na\n"), ("x\ny", "y")] {
            let shown: usize =
                hunks(old.as_bytes(), new.as_bytes(), CONTEXT).iter().map(|hunk| hunk.lines.len()).sum();
            assert!(shown <= at_most(old.as_bytes(), new.as_bytes()), "{old:?} {new:?}");
        }
    }

    #[test]
    fn knows_which_lines_changed() {
        let found = hunks(b"a\nb\nc\n", b"a\nB\nB\nc\n", 3);
        assert_eq!((found[0].changed(Sign::Removed), found[0].changed(Sign::Added)), (vec![1], vec![1, 2]));
        assert_eq!(removed(b"a\nb\nc\n", b"a\nB\nB\nc\n"), [1]);
    }
}
