//! Paths as a pillar may write them: absolute and normal, so that what is reviewed is what is used.

/// The longest path that a system call takes, in bytes (PATH_MAX less the NUL).
const PATH_MAX: usize = 4095;

/// No path that people use goes deeper; each directory on the way is a part of what is rendered.
const DEEPEST: usize = 100;

/// The longest step of a path, in bytes (NAME_MAX).
pub(crate) const NAME_MAX: usize = 255;

/// Accepts an absolute, normal path; the error says what is wrong with it.
pub fn absolute(path: &str) -> Result<(), String> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(format!("expected an absolute path, one that begins with \"/\", not {path:?}"));
    };
    if rest.is_empty() {
        return Err("\"/\" itself cannot be used".to_owned());
    }
    steps(rest, path)?;
    if path.len() > PATH_MAX {
        return Err(format!("the path has {} bytes, and the kernel takes {PATH_MAX}", path.len()));
    }
    let depth = path.split('/').filter(|step| !step.is_empty()).count();
    if depth > DEEPEST {
        return Err(format!("the path has {depth} directories, and runsmith takes {DEEPEST}"));
    }
    Ok(())
}

/// Accepts an absolute path, or a relative one that stays below `root`; gives the absolute one.
pub fn below(root: &str, path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        steps(path, path)?;
        let joined = format!("{root}/{path}");
        return absolute(&joined).map(|()| joined);
    }
    absolute(path).map(|()| path.to_owned())
}

/// `path` is the whole path, of which these are the steps.
fn steps(steps: &str, path: &str) -> Result<(), String> {
    for step in steps.split('/') {
        match step {
            "" => {
                return Err(format!(
                    "the path has an empty step: write it without \"//\" and without \"/\" at the end, not {path:?}"
                ));
            }
            "." | ".." => return Err(format!("the path has a {step:?} step: write the path it leads to")),
            // What `--diff` shows of what is there may be for others than the pillar's reader.
            ".git" => return Err(format!("the path has a {step:?} step: what is below it is git's own")),
            _ if step.contains('\0') => return Err("a path cannot hold a NUL character".to_owned()),
            _ if step.len() > NAME_MAX => {
                return Err(format!(
                    "a step of the path has {} bytes, and file systems take {NAME_MAX}",
                    step.len()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gits_own_is_no_place() {
        for path in ["/home/r/w/.git", "/home/r/.git/x"] {
            assert!(absolute(path).is_err_and(|reason| reason.contains("\".git\" step")), "{path}");
        }
        assert!(below("/srv/web", ".git/x").is_err() && below("/srv/.git", "x").is_err());
        assert!(absolute("/srv/web.git/.github/git").is_ok());
    }
}
