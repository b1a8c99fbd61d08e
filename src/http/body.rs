//! The body of a response: some bytes, a stream of events, or what an application answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;

use super::app::Passed;
use super::handover::Handover;
use super::page::Page;
use super::stream::EventStream;

/// A stream of events as its server holds it.
pub type Events = Pin<Box<EventStream>>;

/// The body of every response of this server. Small: the task of an HTTP/2 stream has it for as long as it is open.
pub enum Body {
    /// Known in whole.
    Full(Box<Full<Bytes>>),
    /// Open until one side ends it.
    Events(Events),
    /// The same, which is taken out of hyper once the head is flushed.
    Elsewhere(Arc<Handover>),
    /// Open until one side ends it, and made elsewhere than here.
    Made(Box<Made>),
    /// Of an application, as it comes.
    Passed(Box<Passed>),
    /// What was there of a feed when it was asked for.
    Page(Box<Page>),
}

impl Body {
    /// The number of the stream that this is, if it is one.
    pub fn stream_id(&self) -> Option<u64> {
        match self {
            Self::Events(events) => Some(events.id()),
            Self::Full(_) | Self::Elsewhere(_) | Self::Made(_) | Self::Passed(_) | Self::Page(_) => None,
        }
    }
}

/// What others make as it goes.
pub type Made = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Box::new(Full::new(bytes)))
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self::Events(Box::pin(stream))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(&mut **full).poll_frame(cx).map_err(|never| match never {}),
            Self::Passed(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Page(page) => Poll::Ready(page.next_frame().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(stream) => {
                ready!(stream.as_mut().poll_headed(cx));
                stream.as_mut().poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Made(made) => {
                Pin::new(&mut **made).poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Elsewhere(handover) => {
                handover.head_is_written();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Passed(body) => body.is_end_stream(),
            Self::Page(page) => page.left() == 0,
            Self::Events(_) | Self::Made(_) | Self::Elsewhere(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Passed(body) => body.size_hint(),
            Self::Page(page) => SizeHint::with_exact(page.left() as u64),
            Self::Events(_) | Self::Made(_) | Self::Elsewhere(_) => SizeHint::default(),
        }
    }
}
