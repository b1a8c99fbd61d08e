//! Connections on which history is asked for, where each answers one question after the other: one for each read that is going
//! on, whose number the pool bounds, and one that waits for the next.

use parking_lot::Mutex;

use super::Broken;

/// A connection that asks one question after the other.
pub(super) trait Asker: Sized + Send {
    /// How one is made.
    type Dialer: Clone + Send;

    fn connect(dialer: &Self::Dialer) -> impl Future<Output = Result<Self, Broken>> + Send;

    /// Whether it has not ended.
    fn is_open(&self) -> bool;
}

/// Those of one upstream.
pub(super) struct Askers<A: Asker> {
    /// How they are made, once a session has found out.
    dialer: Mutex<Option<A::Dialer>>,
    idle: Mutex<Option<A>>,
}

impl<A: Asker> Default for Askers<A> {
    fn default() -> Self {
        Self { dialer: Mutex::new(None), idle: Mutex::new(None) }
    }
}

impl<A: Asker> Askers<A> {
    /// From now on this is asked.
    pub(super) fn ask_at(&self, dialer: &A::Dialer) {
        *self.dialer.lock() = Some(dialer.clone());
        *self.idle.lock() = None;
    }

    /// One to ask with, which is given back if all went well.
    pub(super) async fn take(&self) -> Result<A, Broken> {
        let idle = self.idle.lock().take().filter(A::is_open);
        if let Some(asker) = idle {
            return Ok(asker);
        }
        let dialer = self.dialer.lock().clone();
        A::connect(&dialer.ok_or_else(|| Broken("it has not been reached yet".to_owned()))?).await
    }

    /// It has answered. A second one that has nothing to do goes.
    pub(super) fn put_back(&self, asker: A) {
        self.idle.lock().get_or_insert(asker);
    }
}
