//! The body of a response: some bytes, or a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;

use super::handover::Handover;
use super::stream::EventStream;

/// A stream of events as its server holds it.
pub type Events = Pin<Box<EventStream>>;

/// The body of every response of this server.
pub enum Body {
    /// Known in whole.
    Full(Full<Bytes>),
    /// Open until one side ends it.
    Events(Events),
    /// The same, which is taken out of hyper once the head is flushed.
    Elsewhere(Arc<Handover>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self::Events(Box::pin(stream))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full).poll_frame(cx),
            Self::Events(stream) => {
                stream.as_mut().poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
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
            Self::Events(_) | Self::Elsewhere(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Events(_) | Self::Elsewhere(_) => SizeHint::default(),
        }
    }
}
