//! All files of all services in one order, and which of them are wanted for different things.

use std::collections::BTreeMap;

use super::Planned;
use crate::diagnostic::{Diagnostic, Kept};
use crate::failure::Failure;
use crate::plan::plan;
use crate::rule;
use crate::template::Templates;
use crate::tree::{Entry, Kind};
use crate::visible::visible;

/// An entry, and which application wants it.
pub(super) type Wanted = (Entry, usize);

/// All entries in the order of their paths, each with the application that wants it.
///
/// Each application's are in order; what begins with the same two steps (`/etc/sv`, `/var/www`) is
/// brought together first. Applications mostly come in the order of their names, so the sort then
/// finds little to do, where comparing 200,000 paths all over was a good part of a run.
pub(super) fn in_order(planned: &mut [Planned]) -> Vec<Wanted> {
    /// Where every application has a place of its own, bringing together does not help.
    const MOST_PARTS: usize = 32;
    let mut parts: Vec<(String, Vec<Wanted>)> = vec![];
    let mut count = 0;
    for (owner, planned) in planned.iter_mut().enumerate() {
        let entries = std::mem::take(&mut planned.entries);
        count += entries.len();
        let mut at = 0;
        for entry in entries {
            let begins = |part: &(String, _)| first_steps(&entry.path) == part.0;
            if parts.get(at).is_none_or(|part| !begins(part)) {
                at = parts.iter().position(begins).unwrap_or(parts.len()).min(MOST_PARTS);
            }
            if at == parts.len() {
                parts.push((first_steps(&entry.path).to_owned(), vec![]));
            }
            parts[at].1.push((entry, owner));
        }
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = Vec::with_capacity(count);
    parts.into_iter().for_each(|(_, part)| all.extend(part));
    all.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    all
}

/// `/etc/sv` of `/etc/sv/shop/run`. The third step is the application's, mostly.
fn first_steps(path: &str) -> &str {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end])
}

/// Adds the paths that are wanted for different things; `wanted` is in order.
pub(super) fn clashes(wanted: &[Wanted], planned: &[Planned], found: &mut Kept) {
    for pair in wanted.windows(2) {
        if let [(one, first), (two, second)] = pair
            && one.path == two.path
            && one != two
        {
            let message = format!("{} is wanted twice, and not alike", visible(&one.path));
            let diagnostic = Diagnostic::error(&rule::PATH_CLASH, message)
                .at(planned[*second].span, "this application wants it");
            found.push(if first == second {
                diagnostic
            } else {
                diagnostic.at(planned[*first].span, "and so does this one")
            });
        }
    }
}

/// Where several applications want one file, its contents decide whether they want the same.
pub(super) fn compare_contents(
    wanted: &mut [Wanted],
    from: &[Planned],
    templates: &Templates,
) -> Result<(), Failure> {
    let meets: Vec<bool> = (0..wanted.len())
        .map(|at| {
            let is_same =
                |other: Option<&Wanted>| other.is_some_and(|(one, _)| one.path == wanted[at].0.path);
            matches!(wanted[at].0.kind, Kind::File(_))
                && (is_same(at.checked_sub(1).and_then(|at| wanted.get(at))) || is_same(wanted.get(at + 1)))
        })
        .collect();
    // What one application wants lies all over the order; each is planned again once.
    let mut planned: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
    for ((entry, owner), _) in wanted.iter_mut().zip(meets).filter(|(_, meets)| *meets) {
        if !planned.contains_key(owner) {
            let Planned { service, key, .. } = &from[*owner];
            planned.insert(*owner, plan(service, key, templates)?);
        }
        // An application may want one path twice, and in the order in which they were planned.
        if let Some(entries) = planned.get_mut(owner)
            && let Some(at) = entries.iter().position(|one| one.path == entry.path)
        {
            entry.kind = entries.remove(at).kind;
        }
    }
    Ok(())
}
