//! Which directories that are there may get another mode and owner.

use rustix::fs::Stat;

use super::directory::Directory;
use super::run::Run;
use crate::failure::Failure;
use crate::tree::Entry;

/// The sticky bit: many write here, and each may remove only what is his.
const STICKY: u32 = 0o1000;
/// Anybody may write here.
const WORLD_WRITABLE: u32 = 0o002;

/// What makes a directory one that others use too.
struct Signs {
    mount_point: bool,
    sticky: bool,
    world_writable: bool,
    /// Its owner, if that is neither root nor the one it is to have.
    third: bool,
}

/// Refuses to change a directory that others use, because whoever is given `/tmp` or somebody's home can do harm there.
///
/// What has the wanted owner already, who is not root, is that owner's: nobody loses it. Root's own directories are
/// many, so that owner alone says little: a mount point and one with the sticky bit are shared whoever is to have
/// them. Taking any other one back to root closes a hole and opens none. To give it to another user, it has to be an
/// ordinary directory of root's, as `mkdir` leaves it, or one that an earlier run gave to the owner it still has.
pub(super) fn refuse_shared(run: &Run, found: &Directory, entry: &Entry) -> Result<(), Failure> {
    let stat = found.stat();
    let wanted = if run.ids.set { run.ids.of(entry).0 } else { rustix::process::geteuid().as_raw() };
    if stat.st_uid == wanted && wanted != 0 {
        return Ok(());
    }
    refuse_exchangeable(run, found, entry)?;
    let mut signs = Signs::of(stat, wanted, || found.is_mount_point());
    signs.third = signs.third && !run.gave(&entry.path, &run.ids.user(stat.st_uid));
    let Some(sign) = signs.words(wanted == 0, || run.ids.user(stat.st_uid)) else { return Ok(()) };
    let (owner, mode) = (&entry.owner, entry.mode);
    let reason = format!(
        "{sign}, so others use it too; name a directory of the service's own in the pillar, or, if it is that, \
         give it to {owner} with mode {mode:04o} yourself"
    );
    Err(Failure::path("change mode or owner of the directory", found.path(), reason))
}

/// Refuses to change a directory that may be another one than the pillar means: where others than root can rename things,
/// any directory that lies there could have been given this name. Root's are changed only if the journal says that
/// runsmith made this very one; somebody else's only if an earlier run gave it to the owner it still has.
fn refuse_exchangeable(run: &Run, found: &Directory, entry: &Entry) -> Result<(), Failure> {
    let Some(parent) = found.parent().filter(|_| run.ids.set && found.is_exchangeable()) else {
        return Ok(());
    };
    let uid = found.stat().st_uid;
    let is_known = if uid == 0 {
        run.journal.made(&entry.path, found.fd())
    } else {
        // Whoever owns the directory above can have put nothing but his own here: he alone loses it.
        run.gave(&entry.path, &run.ids.user(uid)) || (run.adopt && uid == parent.stat().st_uid)
    };
    if is_known {
        return Ok(());
    }
    let (owner, group, mode) = (&entry.owner, &entry.group, entry.mode);
    let reason = format!(
        "it belongs to {}, runsmith did not make it, and others than root can rename things in {}, so it may be another \
         directory than the pillar means; if it is that, run `chown {owner}:{group}` and `chmod {mode:04o}` on it yourself",
        run.ids.user(uid),
        parent.path()
    );
    Err(Failure::path("change mode or owner of the directory", found.path(), reason))
}

impl Signs {
    fn of(stat: &Stat, wanted: u32, is_mount_point: impl FnOnce() -> bool) -> Self {
        Self {
            mount_point: is_mount_point(),
            sticky: stat.st_mode & STICKY != 0,
            world_writable: stat.st_mode & WORLD_WRITABLE != 0,
            third: stat.st_uid != 0 && stat.st_uid != wanted,
        }
    }

    /// The sign that counts, in words; `root`: it is to be root's. `owner` is the name of the one it has.
    fn words(&self, root: bool, owner: impl FnOnce() -> String) -> Option<String> {
        if self.mount_point {
            return Some("it is a mount point".to_owned());
        }
        if self.sticky {
            return Some("it has the sticky bit".to_owned());
        }
        if root {
            return None;
        }
        if self.world_writable {
            return Some("anybody may write in it".to_owned());
        }
        self.third.then(|| format!("it belongs to {}", owner()))
    }
}
