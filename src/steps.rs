//! How paths lie to each other. Paths are absolute and normal, as the model and trees have them.

/// Whether `path` is in the directory `above`, at any depth.
pub fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// Whether `path` is `directory` or lies below it.
pub fn is_within(path: &str, directory: &str) -> bool {
    path == directory || is_below(path, directory)
}

/// The directory that `path` lies in; empty for one in `/` itself.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_count() {
        for (path, above, below, within) in [
            ("/srv/x/y", "/srv/x", true, true),
            ("/srv/x", "/srv/x", false, true),
            ("/srv/xy", "/srv/x", false, false),
            ("/srv", "/", true, true),
            ("/", "/", false, true),
            ("/srv", "/srv/x", false, false),
        ] {
            assert_eq!((is_below(path, above), is_within(path, above)), (below, within), "{path} {above}");
        }
    }
}
