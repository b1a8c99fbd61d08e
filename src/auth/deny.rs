//! The deny list while it is used: looked at every second, since files in containers are swapped in ways of which no
//! notice is given, and read when it is another one that nobody is writing any more. A list that cannot be read leaves the
//! one before in force.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::grant::Grant;
use crate::config::{Deny, DenyList, WatchedFile};

/// Whom no credential lets in.
pub(super) struct Denials {
    file: Option<WatchedFile>,
    list: RwLock<Arc<DenyList>>,
    trouble: RwLock<Option<String>>,
    changed: watch::Sender<u64>,
}

/// What tells a file from the one that was there before, or why there is none.
type Stamp = Result<[i128; 5], String>;

/// What was seen of the file so far.
#[derive(Default)]
struct Looks {
    last: Option<Stamp>,
    taken: Option<Stamp>,
}

impl Denials {
    /// With what the file said when the configuration was read.
    pub fn new(deny: Option<&Deny>, changed: &watch::Sender<u64>) -> Self {
        Self {
            file: deny.map(|deny| deny.file.clone()),
            list: RwLock::new(Arc::new(deny.map(|deny| deny.list.clone()).unwrap_or_default())),
            trouble: RwLock::default(),
            changed: changed.clone(),
        }
    }

    /// Whether it names whom or what this was given to.
    pub fn names(&self, grant: &Grant) -> bool {
        let list = self.list.read();
        let key = grant.key.as_ref().and_then(|key| key.id.as_ref());
        list.subjects.contains(&*grant.subject)
            || grant.token.as_ref().is_some_and(|token| list.tokens.contains(token))
            || key.is_some_and(|key| list.keys.contains(key))
    }

    /// Follows the file; never returns.
    pub async fn run(&self) {
        let Some(file) = &self.file else { return std::future::pending().await };
        let (mut ticks, mut looks) = (tokio::time::interval(LOOK), Looks::default());
        // Two looks are never closer, or they would not tell that nobody writes.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(file, &mut looks).await;
        }
    }

    /// Takes what is there, if it is news and was so at the last look: a file that is written over is empty first.
    async fn look(&self, file: &WatchedFile, looks: &mut Looks) {
        let now = stamp(&file.path).await;
        let is_news = looks.taken.as_ref() != Some(&now);
        if is_news && looks.last.as_ref() == Some(&now) {
            let found = match &now {
                Ok(_) => read(file).await,
                Err(why) => Err(why.clone()),
            };
            // Somebody may have begun to write meanwhile.
            if stamp(&file.path).await == now {
                self.take(&file.name, found);
                looks.taken = Some(now.clone());
            }
        }
        looks.last = Some(now);
    }

    fn take(&self, path: &str, found: Result<DenyList, String>) {
        match found {
            Ok(list) => {
                *self.trouble.write() = None;
                if list == **self.list.read() {
                    return;
                }
                tracing::info!(path, entries = list.len(), "deny list changed");
                *self.list.write() = Arc::new(list);
                self.changed.send_modify(|changed| *changed += 1);
            }
            Err(why) => {
                let mut trouble = self.trouble.write();
                if trouble.as_ref() != Some(&why) {
                    tracing::error!(path, why, "the deny list cannot be read; the one before holds");
                    *trouble = Some(why);
                }
            }
        }
    }

    /// What operators see.
    pub fn status(&self) -> Value {
        let Some(file) = &self.file else { return Value::Null };
        json!({ "path": &*file.name, "entries": self.list.read().len(), "last_error": *self.trouble.read() })
    }
}

/// Its inode, its size, and when it was changed.
async fn stamp(path: &Path) -> Stamp {
    let found = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ])
}

async fn read(file: &WatchedFile) -> Result<DenyList, String> {
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || DenyList::of(&file.read()?));
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    struct Followed {
        _folder: tempfile::TempDir,
        denials: Denials,
        looks: Looks,
    }

    impl Followed {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = WatchedFile { path: folder.path().join("deny"), name: "${DENY}".into() };
            fs::write(&file.path, text).unwrap();
            let deny = Deny { file, list: DenyList::of(text.as_bytes()).unwrap() };
            let denials = Denials::new(Some(&deny), &watch::Sender::new(0));
            Self { _folder: folder, denials, looks: Looks::default() }
        }

        fn path(&self) -> &Path {
            &self.denials.file.as_ref().unwrap().path
        }

        async fn look(&mut self) -> usize {
            let file = self.denials.file.clone().unwrap();
            self.denials.look(&file, &mut self.looks).await;
            self.denials.list.read().len()
        }
    }

    #[tokio::test]
    async fn a_list_that_is_being_written_is_not_taken_for_an_empty_one() {
        let mut deny = Followed::new("sub:alice\n");
        assert_eq!([deny.look().await, deny.look().await], [1, 1]);
        let mut file = fs::File::create(deny.path()).unwrap();
        assert_eq!(deny.look().await, 1, "it is empty for a moment");
        file.write_all(b"sub:alice\nsub:bob\n").unwrap();
        assert_eq!(deny.look().await, 1, "more may come");
        assert_eq!(deny.look().await, 2);
        fs::write(deny.path(), "").unwrap();
        assert_eq!([deny.look().await, deny.look().await], [2, 0], "and empty it may be");
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_read_leaves_the_one_before() {
        let mut deny = Followed::new("sub:alice\n");
        let too_large = "#".repeat(1 << 20) + "\n";
        for (content, why) in
            [(Some("alice"), "line 1"), (Some(&*too_large), "1 MiB"), (None, "No such file")]
        {
            match content {
                Some(content) => fs::write(deny.path(), content).unwrap(),
                None => fs::remove_file(deny.path()).unwrap(),
            }
            assert_eq!([deny.look().await, deny.look().await], [1, 1]);
            let status = deny.denials.status();
            assert!(status["last_error"].as_str().unwrap().contains(why), "{status}");
            assert_eq!(status["path"], "${DENY}", "what a variable holds does not show");
        }
        fs::write(deny.path(), "sub:bob\nkid:1\n").unwrap();
        assert_eq!([deny.look().await, deny.look().await], [1, 2]);
        assert_eq!(deny.denials.status()["last_error"], Value::Null);
    }
}
