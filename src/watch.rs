//! Tells when files may have changed, however they are replaced: written over, renamed, by a link that leads elsewhere
//! (certbot's `live/` to `archive/`), or by a link to their folder (Kubernetes's `..data`). Says only that it is time to
//! look; whoever reads the files compares, or follows what is appended.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// Watches the places on which files depend.
pub struct Watch {
    /// None where the system gives no watches.
    watcher: Option<RecommendedWatcher>,
    places: BTreeSet<PathBuf>,
    touched: Arc<Notify>,
}

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> Self {
        let touched = Arc::new(Notify::new());
        let told = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error is that of events which were lost: something may have changed.
            if event.is_ok_and(|event| !is_change(&event.kind)) {
                return;
            }
            told.notify_one();
        });
        let watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, every = ?ANYWAY, "files cannot be watched, and are looked at"),
            )
            .ok();
        Self { watcher, places: BTreeSet::new(), touched }
    }

    /// Watches what these files depend on now, and nothing else. To be called again after each change, since links
    /// may lead elsewhere then, and a folder may be another one.
    pub fn follow<'p>(&mut self, files: impl IntoIterator<Item = &'p Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let places: BTreeSet<PathBuf> = files.into_iter().flat_map(places).collect();
        for gone in self.places.difference(&places) {
            let _ = watcher.unwatch(gone);
        }
        // Also those that are watched already: the name may stand for another folder now.
        self.places = places.into_iter().filter(|place| watch(watcher, place)).collect();
    }

    /// Ends as soon as a file may have changed since it ended last.
    pub async fn touched(&self) {
        self.touched.notified().await;
    }

    /// Ends when a file may have changed, and nothing has for a moment: what is replaced comes in several steps. Ends
    /// now and then also without, for file systems that tell of nothing.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = self.touched.notified() => {}
            () = sleep(ANYWAY) => return,
        }
        let latest = Instant::now() + LATEST;
        loop {
            tokio::select! {
                () = self.touched.notified() => {}
                () = sleep(SETTLED) => return,
                () = sleep_until(latest) => return,
            }
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

fn watch(watcher: &mut RecommendedWatcher, place: &Path) -> bool {
    let watched = watcher.watch(place, RecursiveMode::NonRecursive);
    if let Err(error) = &watched {
        tracing::debug!(place = %place.display(), %error, "a folder cannot be watched");
    }
    watched.is_ok()
}

/// Reading is none, lest looking be a reason to look again.
fn is_change(kind: &EventKind) -> bool {
    !kind.is_access() || matches!(kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

/// The folders in which a file can be replaced: the one that it is in, and each in which a link on the way to it is.
fn places(file: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    let mut at = PathBuf::from(if file.is_absolute() { "/" } else { "." });
    let mut left: Vec<PathBuf> = parts(file);
    let mut links = 0;
    while let Some(part) = left.pop() {
        let folder = at.clone();
        at.push(&part);
        match std::fs::read_link(&at) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                places.insert(folder.clone());
                at = if target.is_absolute() { PathBuf::from("/") } else { folder };
                left.extend(parts(&target));
            }
            _ if left.is_empty() => {
                places.insert(folder);
            }
            _ => {}
        }
    }
    places
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// How long nothing has to change before it counts as done.
const SETTLED: Duration = Duration::from_millis(200);
/// How long a folder in which something always changes may hold it up.
const LATEST: Duration = Duration::from_secs(3);
/// How often files are looked at anyway.
const ANYWAY: Duration = Duration::from_secs(60);
/// As many as Linux follows.
const MOST_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that is told without links; `/tmp` may be one.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_depends_on_its_folder_and_on_those_of_links() {
        let (_folder, root) = folder();
        let at = |name: &str| root.join(name);
        let of = |name: &str| places(&at(name)).into_iter().collect::<Vec<_>>();
        fs::create_dir_all(at("archive")).unwrap();
        fs::create_dir_all(at("live")).unwrap();
        fs::write(at("archive/cert1.pem"), "1").unwrap();
        assert_eq!(of("archive/cert1.pem"), [at("archive")]);
        assert_eq!(of("archive/none.pem"), [at("archive")], "it may come");
        symlink("../archive/cert1.pem", at("live/cert.pem")).unwrap();
        assert_eq!(of("live/cert.pem"), [at("live"), at("live/../archive")]);
        // Kubernetes: the file's link stays, and `..data` leads elsewhere.
        fs::create_dir_all(at("k/..2026")).unwrap();
        fs::write(at("k/..2026/tls.crt"), "1").unwrap();
        symlink("..2026", at("k/..data")).unwrap();
        symlink("..data/tls.crt", at("k/tls.crt")).unwrap();
        assert_eq!(of("k/tls.crt"), [at("k"), at("k/..2026")]);
        symlink(at("k"), at("certs")).unwrap();
        assert_eq!(of("certs/tls.crt"), [root.clone(), at("k"), at("k/..2026")]);
        symlink("loop", at("loop")).unwrap();
        assert_eq!(of("loop"), [root]);
    }

    #[tokio::test]
    async fn a_change_is_told_once_it_is_over_and_reading_is_none() {
        let (_folder, root) = folder();
        let file = root.join("file");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new();
        watch.follow([&*file]);
        assert_eq!(fs::read(&file).unwrap(), b"1");
        let quiet = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(quiet.is_err(), "reading is no change");
        let begun = Instant::now();
        for n in 0..3 {
            fs::write(root.join("new"), n.to_string()).unwrap();
            fs::rename(root.join("new"), &file).unwrap();
        }
        watch.changed().await;
        assert!((SETTLED..ANYWAY).contains(&begun.elapsed()));
        assert_eq!(fs::read(&file).unwrap(), b"2");
    }
}
