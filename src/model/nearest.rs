//! What was most likely meant.

/// The known key that was most likely meant.
pub fn nearest(key: &str, known: &[String]) -> Option<String> {
    let lower = key.to_lowercase().replace('-', "_");
    let length = lower.chars().count();
    let most = |name: &String| 1 + name.len().min(key.len()) / 4;
    known
        .iter()
        // So many characters more or fewer are as many mistakes, and quickly counted.
        .filter(|name| name.chars().count().abs_diff(length) <= most(name))
        .map(|name| (strsim::damerau_levenshtein(&lower, name), name))
        // Of one letter anything could be made.
        .filter(|(distance, name)| *distance <= most(name) && *distance < length.max(1))
        .min()
        .map(|(_, name)| name.clone())
}
