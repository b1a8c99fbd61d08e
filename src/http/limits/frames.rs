//! Counts what an HTTP/2 client sends that leads to nothing, and ends the connection of one that sends more of it than any
//! client needs: pings, settings, resets and the requests they take back (CVE-2023-44487), continuations (CVE-2024-27316),
//! priorities, empty data, windows that open without anything being sent. A request that gets an answer has led to something,
//! so that a connection may ask as often and as fast as it takes answers. Looks at the nine bytes before each frame (RFC 9113
//! section 4.1) as they pass by, in both directions; what the frames mean is hyper's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A transport whose reading fails once its peer has sent too many frames.
pub struct Policed<I> {
    io: I,
    incoming: Scan,
    outgoing: Scan,
    budget: Budget,
    floods: Counter,
}

impl<I> Policed<I> {
    /// Counts the frames of a connection that may have so many streams at a time.
    pub fn new(io: I, streams: usize, floods: Counter) -> Self {
        let (incoming, outgoing) = (Scan::after(PREFACE), Scan::after(0));
        Self { io, incoming, outgoing, budget: Budget::new(streams), floods }
    }

    /// So many of these bytes were sent.
    fn sent(&mut self, data: &[IoSlice<'_>], sent: usize) {
        self.budget.sent(sent);
        let mut left = sent;
        for bytes in data {
            let taken = left.min(bytes.len());
            left -= taken;
            let budget = &mut self.budget;
            self.outgoing.pass(&bytes[..taken], |frame| budget.earn(frame));
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Policed<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = to.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, to))?;
        let mut flood = false;
        let budget = &mut this.budget;
        this.incoming.pass(&to.filled()[before..], |frame| flood = flood || budget.spend(frame).is_err());
        if flood {
            this.floods.inc();
            return Poll::Ready(Err(io::Error::other("more control frames than a client needs")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Policed<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Pin::new(&mut this.io).poll_write(cx, data).map_ok(|sent| {
            this.sent(&[IoSlice::new(data)], sent);
            sent
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Pin::new(&mut this.io).poll_write_vectored(cx, data).map_ok(|sent| {
            this.sent(data, sent);
            sent
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// What a frame is to the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Carries a part of a body, which flow control bounds.
    Data,
    /// Begins a request, or an answer.
    Headers,
    /// Says that more may be sent.
    Window,
    /// Everything else.
    Control,
}

/// Finds the frames in a stream of bytes, which come in pieces of any size.
struct Scan {
    head: [u8; HEAD],
    filled: usize,
    /// Bytes to pass over: of the preface, or of a frame.
    skip: usize,
}

impl Scan {
    /// Passes over so many bytes before the first frame.
    fn after(skip: usize) -> Self {
        Self { head: [0; HEAD], filled: 0, skip }
    }

    fn pass(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                found(match kind {
                    DATA if self.skip > 0 => Frame::Data,
                    HEADERS => Frame::Headers,
                    WINDOW_UPDATE => Frame::Window,
                    _ => Frame::Control,
                });
            }
        }
    }
}

/// The peer sends too much.
#[derive(Debug, PartialEq, Eq)]
struct Flood;

/// A bucket of frames that fills with time and with answers, and one of windows that fills with what is sent.
struct Budget {
    left: u64,
    most: u64,
    counted: Instant,
    windows: u64,
}

impl Budget {
    fn new(streams: usize) -> Self {
        // All streams may be opened, taken back, opened again and their windows set at once.
        let most = BURST.max(4 * streams as u64);
        Self { left: most, most, counted: Instant::now(), windows: 0 }
    }

    fn spend(&mut self, frame: Frame) -> Result<(), Flood> {
        match frame {
            Frame::Data => return Ok(()),
            Frame::Window if self.windows > 0 => {
                self.windows -= 1;
                return Ok(());
            }
            _ => {}
        }
        if self.left == 0 {
            let earned = self.counted.elapsed().as_millis() as u64 * A_SECOND / 1_000;
            if earned > 0 {
                self.counted = Instant::now();
                self.left = earned.min(self.most);
            }
        }
        self.left = self.left.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }

    /// An answer has begun: what its client has said, and is still to say, of the request led to something. One that is
    /// taken back before is never answered.
    fn earn(&mut self, frame: Frame) {
        if frame == Frame::Headers {
            self.left = (self.left + AN_ANSWER).min(self.most);
        }
    }

    /// Some clients open the window of the stream and of the connection for each piece that they have read, however
    /// small it was.
    fn sent(&mut self, bytes: usize) {
        self.windows = (self.windows + bytes as u64 / BYTES_A_WINDOW).min(WINDOWS);
    }
}

const HEAD: usize = 9;
/// `PRI * HTTP/2.0` and what follows (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
/// Frames that may come at once, and in each second after that.
const BURST: u64 = 1_000;
const A_SECOND: u64 = 100;
/// Frames of a request that is answered: its head, the end of its body, another priority, and that the client wants no more
/// of the answer, which is how an `EventSource` is closed.
const AN_ANSWER: u64 = 4;
/// The smallest event takes more than twice as many.
const BYTES_A_WINDOW: u64 = 16;
const WINDOWS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD + length as usize, 0xaa);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((0_u8..12, 0_u32..300), 0..30),
            cuts in prop::collection::vec(1_usize..40, 1..10),
        ) {
            let mut bytes = vec![b'P'; PREFACE];
            frames.iter().for_each(|&(kind, length)| bytes.extend(frame(kind, length)));
            let (mut scan, mut found, mut rest) = (Scan::after(PREFACE), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                scan.pass(piece, |frame| found.push(frame));
                rest = left;
                if rest.is_empty() { break }
            }
            let expected: Vec<_> = frames.iter().map(|&(kind, length)| match (kind, length) {
                (DATA, 1..) => Frame::Data,
                (HEADERS, _) => Frame::Headers,
                (WINDOW_UPDATE, _) => Frame::Window,
                _ => Frame::Control,
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    fn spend(budget: &mut Budget, frame: Frame, count: u64) -> Result<(), Flood> {
        (0..count).try_for_each(|_| budget.spend(frame))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_and_a_flood_is_not() {
        let mut budget = Budget::new(250);
        spend(&mut budget, Frame::Control, BURST).unwrap();
        assert_eq!(budget.spend(Frame::Control), Err(Flood));
        spend(&mut budget, Frame::Data, 1_000_000).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        spend(&mut budget, Frame::Control, A_SECOND).unwrap();
        assert_eq!(budget.spend(Frame::Control), Err(Flood));
        tokio::time::advance(Duration::from_secs(1_000)).await;
        spend(&mut budget, Frame::Control, BURST).unwrap();
        assert_eq!(budget.spend(Frame::Control), Err(Flood));
    }

    /// Requests that are answered, each with all that its client may say of it, as many and as fast as it likes.
    #[tokio::test(start_paused = true)]
    async fn answers_give_back_what_their_requests_have_cost() {
        let mut budget = Budget::new(250);
        for _ in 0..1_000 {
            spend(&mut budget, Frame::Headers, 250).unwrap();
            (0..250).for_each(|_| budget.earn(Frame::Headers));
            spend(&mut budget, Frame::Control, 3 * 250).unwrap();
        }
        // But no more than that: what is sent of them, and frames of other kinds, give nothing.
        for frame in [Frame::Data, Frame::Control, Frame::Window] {
            (0..10_000).for_each(|_| budget.earn(frame));
        }
        (0..10_000).for_each(|_| budget.earn(Frame::Headers));
        assert_eq!(spend(&mut budget, Frame::Headers, BURST + 1), Err(Flood));
    }

    /// What is written in pieces, of which the transport takes a part at a time.
    #[tokio::test]
    async fn answers_are_seen_in_what_is_sent() {
        let answer = [frame(HEADERS, 30), frame(DATA, 100), frame(DATA, 0)].concat();
        let (here, _there) = tokio::io::duplex(1 << 20);
        let mut policed = Policed::new(here, 1, Counter::default());
        policed.budget.left = 0;
        for (size, answers) in [(1, 1), (7, 2), (1_000, 3)] {
            for piece in answer.chunks(size) {
                let (one, other) = piece.split_at(piece.len() / 2);
                let sent = policed.write_vectored(&[IoSlice::new(one), IoSlice::new(other)]).await.unwrap();
                policed.write_all(&piece[sent..]).await.unwrap();
            }
            assert_eq!(policed.budget.left, answers * AN_ANSWER, "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_are_earned_by_what_is_sent() {
        let mut budget = Budget::new(250);
        for _ in 0..100_000 {
            budget.sent(40);
            spend(&mut budget, Frame::Window, 2).unwrap();
        }
        assert_eq!(spend(&mut budget, Frame::Window, BURST + 1), Err(Flood));
    }
}
