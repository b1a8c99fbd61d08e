//! Ending a task from outside. The task that serves a stream (on HTTP/1.1 the connection's, and then the stream's own, as
//! on HTTP/2) runs within [`Supervised`]; the stream finds its [`Slot`] there, and whoever holds the slot can have the
//! task dropped, whatever it is waiting for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

use super::limits::Activity;

tokio::task_local! {
    static CURRENT: Arc<Slot>;
}

/// The handle by which a supervised task is ended.
#[derive(Debug, Default)]
pub struct Slot {
    killed: AtomicBool,
    waker: AtomicWaker,
    /// Where the task counts as a stream until it ends.
    counted: Option<Activity>,
}

impl Slot {
    /// The slot of the task that this is called in; one that ends nothing outside any.
    pub fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Of a task that counts as a stream.
    fn counted(activity: Activity) -> Arc<Self> {
        activity.begins();
        Arc::new(Self { counted: Some(activity), ..Self::default() })
    }

    /// Has the task dropped.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the task polled, which will see what was written before.
    pub fn wake(&self) {
        self.waker.wake();
    }
}

pin_project! {
    /// A future that can be ended through its slot; then it gives `None`.
    pub struct Supervised<F> {
        #[pin]
        inner: F,
        slot: Arc<Slot>,
    }

    impl<F> PinnedDrop for Supervised<F> {
        fn drop(this: Pin<&mut Self>) {
            // Not when the slot goes: others hold it for longer.
            if let Some(activity) = &this.slot.counted {
                activity.ended();
            }
        }
    }
}

impl<F> Supervised<F> {
    /// Runs `inner` with this slot, which one at a time may have.
    pub fn within(slot: Arc<Slot>, inner: F) -> Self {
        Self { inner, slot }
    }
}

impl<F: Future> Future for Supervised<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.slot.waker.register(cx.waker());
        if this.slot.killed.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        CURRENT.sync_scope(Arc::clone(this.slot), || this.inner.poll(cx)).map(Some)
    }
}

/// Runs each HTTP/2 stream of a connection in a supervised task of its own, and counts them. The tasks end with their
/// connection: hyper's stream futures end when it is dropped.
#[derive(Debug, Clone)]
pub struct StreamExecutor(pub Activity);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Supervised::within(Slot::counted(self.0.clone()), stream));
    }
}
