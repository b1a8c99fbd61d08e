//! Series that are shown for as long as somebody counts in them: a reload may take away what they are named after.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// What is named in labels: a kind, such as `route`, and a name of the configuration.
type Named = (&'static str, String);

/// How many handles there are of each.
#[derive(Default)]
pub(super) struct Handles(Mutex<HashMap<Named, usize>>);

/// The right of one handle to have its series shown. When the last one of a name goes, so do they.
pub(super) struct Shown {
    handles: Arc<Handles>,
    named: Named,
    forget: Box<dyn Fn() + Send + Sync>,
}

impl Handles {
    /// Has `begin` make the series of a name, which `forget` will remove. No other handle of the name comes or goes meanwhile.
    pub fn show<T>(
        self: &Arc<Self>,
        kind: &'static str,
        name: &str,
        begin: impl FnOnce() -> T,
        forget: impl Fn() + Send + Sync + 'static,
    ) -> (T, Shown) {
        let named = (kind, name.to_owned());
        let mut handles = self.0.lock();
        *handles.entry(named.clone()).or_default() += 1;
        (begin(), Shown { handles: Arc::clone(self), named, forget: Box::new(forget) })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut handles = self.handles.0.lock();
        let left = handles.get_mut(&self.named).map_or(0, |left| {
            *left -= 1;
            *left
        });
        if left == 0 {
            handles.remove(&self.named);
            (self.forget)();
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({} {})", self.named.0, self.named.1)
    }
}
