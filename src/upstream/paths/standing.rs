//! How the paths of one server stand, and so its link: it is up while one of them is read, or none is wanted.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::upstream::link::Link;

/// For each path that is wanted, whether it is read; `None` where that was not tried yet.
#[derive(Default)]
pub(in crate::upstream) struct Standing(Mutex<HashMap<Arc<str>, Option<bool>>>);

impl Standing {
    /// These are wanted.
    pub(in crate::upstream) fn want<'p>(&self, paths: impl Iterator<Item = &'p Arc<str>>, link: &Link) {
        let mut all = self.0.lock();
        let mut before = std::mem::take(&mut *all);
        all.extend(paths.map(|path| (Arc::clone(path), before.remove(path).flatten())));
        if all.is_empty() {
            link.up();
        }
        settle(&all, link);
    }

    /// None of them is read any more.
    pub(in crate::upstream) fn renews(&self) {
        self.0.lock().values_mut().for_each(|read| *read = None);
    }

    /// This path is read.
    pub(in crate::upstream) fn is_up(&self, path: &Arc<str>, link: &Link) {
        let mut all = self.0.lock();
        all.insert(Arc::clone(path), Some(true));
        link.up();
        settle(&all, link);
    }

    /// This path is not read, for this reason.
    pub(in crate::upstream) fn is_down(&self, path: &Arc<str>, cause: &str, link: &Link) {
        let mut all = self.0.lock();
        all.insert(Arc::clone(path), Some(false));
        if all.values().any(|read| *read == Some(true)) {
            link.trouble(&format!("{path}: {cause}"));
        } else {
            link.down(cause);
        }
        settle(&all, link);
    }
}

/// All has been tried that is wanted.
fn settle(all: &HashMap<Arc<str>, Option<bool>>, link: &Link) {
    if all.values().all(Option::is_some) {
        link.settled();
    }
}
