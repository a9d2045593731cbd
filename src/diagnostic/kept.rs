//! Findings of many applications, collected in a bounded amount of memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::{Diagnostic, MOST_PRINTED};
use crate::rule;

/// So many different places are kept. Each costs some 200 bytes, so this is 100 MB.
const MOST_PLACES: usize = 500_000;

/// Findings in the order in which they come. Those that are the same in everything are there once: applications share defaults.
///
/// After [`MOST_PRINTED`] a finding is [bare](Diagnostic::is_bare): it is counted and can be silenced, but its sentences are
/// gone. Of those at one place by one rule there is one. A run that has more places than any can be read is refused.
///
/// What is kept does not depend on whether findings come one by one or by way of other collections that are added in order.
#[derive(Debug, Default)]
pub struct Kept {
    found: Vec<Diagnostic>,
    /// How many are not bare.
    whole: usize,
    /// Hashes of those that are not bare. Nobody can choose two that are the same: the key of the hash is random.
    seen: HashSet<u64>,
    /// Hashes of rules and places of all.
    places: HashSet<u64>,
    is_over: bool,
    hash: RandomState,
}

impl Kept {
    /// Adds a finding.
    pub fn push(&mut self, mut finding: Diagnostic) {
        let mut is_whole = !finding.is_bare();
        if is_whole {
            let hash = self.hash.hash_one(&finding);
            if self.seen.contains(&hash) {
                return;
            }
            is_whole = self.whole < MOST_PRINTED;
            if is_whole {
                self.seen.insert(hash);
                self.whole += 1;
            }
        }
        let labels = finding.labels.iter().map(|label| (label.span, label.hidden));
        let place = self.hash.hash_one((finding.rule.name, finding.severity, labels.collect::<Vec<_>>()));
        if !is_whole {
            if self.places.contains(&place) {
                return;
            }
            if self.places.len() >= MOST_PLACES {
                self.is_over = true;
                return;
            }
            finding.strip();
        }
        self.places.insert(place);
        self.found.push(finding);
    }

    /// Adds what was collected after this.
    pub fn append(&mut self, after: Self) {
        self.is_over |= after.is_over;
        self.extend(after.found);
    }

    /// What was collected.
    pub fn into_vec(mut self) -> Vec<Diagnostic> {
        if self.is_over {
            let message =
                format!("there are more than {MOST_PLACES} findings, the most that one run may have");
            let finding = Diagnostic::error(&rule::TOO_LARGE, message);
            self.found.push(finding.help("Correct those that are printed first, then validate again."));
        }
        self.found
    }
}

impl Extend<Diagnostic> for Kept {
    fn extend<T: IntoIterator<Item = Diagnostic>>(&mut self, findings: T) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{SourceId, Span};

    fn finding(place: usize, words: usize) -> Diagnostic {
        Diagnostic::warning(&rule::NO_EFFECT, format!("sentence {words}"))
            .at(Span::new(SourceId(0), place, place + 1), "label")
    }

    fn kept(all: impl IntoIterator<Item = Diagnostic>) -> Kept {
        let mut kept = Kept::default();
        kept.extend(all);
        kept
    }

    #[test]
    fn what_is_the_same_is_kept_once() {
        let all = (0..100).flat_map(|_| (0..10).map(|n| finding(n, n)));
        assert_eq!(kept(all).into_vec(), (0..10).map(|n| finding(n, n)).collect::<Vec<_>>());
        let all = (0..3).map(|n| finding(0, n));
        assert_eq!(kept(all).into_vec().len(), 3, "each says something else");
    }

    #[test]
    fn what_nobody_reads_has_no_sentences() {
        // All at a hundred places; each sentence is another one.
        let all: Vec<_> = (0..3 * MOST_PRINTED).map(|n| finding(n % 100, n)).collect();
        let found = kept(all).into_vec();
        assert_eq!(found.len(), MOST_PRINTED, "each of these places has a finding already");
        let all: Vec<_> = (0..3 * MOST_PRINTED).map(|n| finding(n, n)).collect();
        let found = kept(all.clone()).into_vec();
        assert_eq!(found.len(), all.len(), "each place can be silenced");
        assert!(found.iter().zip(&all).all(|(found, all)| found.span() == all.span()));
        assert_eq!(found.iter().position(Diagnostic::is_bare), Some(MOST_PRINTED));
    }

    #[test]
    fn the_way_in_which_findings_come_does_not_matter() {
        let all: Vec<_> =
            (0..5 * MOST_PRINTED).map(|n| finding(n % (2 * MOST_PRINTED) / 3, n % 9_001)).collect();
        let whole = kept(all.clone()).into_vec();
        for runs in [2, 3, 7] {
            let mut parts = Kept::default();
            for run in all.chunks(all.len().div_ceil(runs)) {
                parts.append(kept(run.iter().cloned()));
            }
            assert!(parts.into_vec() == whole, "{runs}");
        }
    }

    #[test]
    fn more_places_than_a_run_may_have_are_an_error() {
        let all = |count: usize| (0..count).map(|n| finding(n, n));
        assert!(kept(all(MOST_PLACES)).into_vec().iter().all(|finding| finding.rule == &rule::NO_EFFECT));
        let mut parts = kept(all(10));
        parts.append(kept(all(MOST_PLACES + 1)));
        let found = parts.into_vec();
        assert_eq!(found.len(), MOST_PLACES + 1);
        assert!(found.last().is_some_and(|last| last.rule == &rule::TOO_LARGE), "{:?}", found.last());
    }
}
