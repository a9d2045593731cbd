//! The cgroups of a service.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Those of the service with this name; what is left of them is removed in the end.
pub struct Cgroups(pub String);

impl Cgroups {
    /// The directory of each generation that has one.
    pub fn all(&self) -> Vec<PathBuf> {
        let services = homes().into_iter().flat_map(|home| directories(&home.join("runsmith")));
        let prefix = format!("{}-", self.0);
        let is_its = |service: &PathBuf| {
            service.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        services.filter(is_its).flat_map(|service| directories(&service)).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(2);
        for generation in self.all() {
            let _ = fs::write(generation.join("cgroup.kill"), "1");
            while fs::remove_dir(&generation).is_err() && generation.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            for parent in generation.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

fn directories(path: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The cgroups of this process in which a runtime may make some.
fn homes() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut homes = vec![];
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
            homes.extend(mounts.map(|mount| PathBuf::from(mount).join(path)));
        } else {
            homes.push(PathBuf::from(format!("/sys/fs/cgroup/{controllers}")).join(path));
        }
    }
    homes
}
