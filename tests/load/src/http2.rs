//! The client's side of HTTP/2 (RFC 9113), as little of it as streams of events need: the requests are sent
//! with the preface, responses are read by their first header alone, and windows are kept open.

use anyhow::{Context as _, bail};

use crate::dial::Ask;
use crate::frames::{
    ACK, DATA, ENABLE_PUSH, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PING, PREFACE,
    RST_STREAM, SETTINGS, STATUS_200, WINDOW_UPDATE, frame, get, id, settings,
};

/// One connection with its streams.
#[derive(Debug)]
pub struct Connection {
    /// The frame that is not complete yet.
    part: Vec<u8>,
    /// Frames to be sent.
    out: Vec<u8>,
    /// Bytes taken in since the last window update: of the connection, and of each stream.
    taken: usize,
    streams: Vec<Stream>,
}

#[derive(Debug, Clone, Default)]
struct Stream {
    answered: bool,
    taken: usize,
}

impl Connection {
    /// A connection with a stream for each request, and the bytes that ask for all of them.
    pub fn open(asks: &[Ask<'_>]) -> Self {
        let mut out = PREFACE.to_vec();
        settings(&mut out, &[(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW)]);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        for (stream, ask) in asks.iter().enumerate() {
            get(&mut out, id(stream), ask);
        }
        Self { part: Vec::new(), out, taken: 0, streams: vec![Stream::default(); asks.len()] }
    }

    /// What is to be sent now.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether every stream has been answered.
    pub fn answered(&self) -> bool {
        self.streams.iter().all(|stream| stream.answered)
    }

    /// Takes in bytes of the connection, and hands pieces of each stream's content to `content`.
    ///
    /// # Errors
    /// A stream that is refused or ends, and what a server that was asked like this must not send.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut content: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut gathered = std::mem::take(&mut self.part);
        let mut rest = if gathered.is_empty() {
            bytes
        } else {
            gathered.extend_from_slice(bytes);
            &gathered
        };
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.frame(head[3], head[4], id, payload, &mut content)?;
            rest = after;
        }
        self.part = rest.to_vec();
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        content: &mut impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match kind {
            DATA => {
                let index = index(id);
                let stream = self.streams.get_mut(index).context("data of a stream not asked for")?;
                if flags & PADDED != 0 {
                    bail!("a padded frame");
                }
                content(index, payload)?;
                stream.taken += payload.len();
                self.taken += payload.len();
                refill(&mut self.out, id, &mut stream.taken);
                refill(&mut self.out, 0, &mut self.taken);
            }
            HEADERS => {
                let stream = self.streams.get_mut(index(id)).context("a head of a stream not asked for")?;
                // The first field is the status, after changes of the table's size (RFC 7541 section 6.3).
                let status = payload.iter().find(|&&byte| byte & 0xe0 != 0x20);
                if status != Some(&STATUS_200) {
                    bail!("answered with another status than 200");
                }
                stream.answered = true;
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            RST_STREAM => bail!("a stream was reset"),
            GOAWAY => bail!("the server goes away"),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            bail!("a stream ended");
        }
        Ok(())
    }
}

fn refill(out: &mut Vec<u8>, id: u32, taken: &mut usize) {
    if *taken >= REFILL {
        frame(out, WINDOW_UPDATE, 0, id, &(*taken as u32).to_be_bytes());
        *taken = 0;
    }
}

fn index(id: u32) -> usize {
    (id.wrapping_sub(1) / 2) as usize
}

/// As large as windows can be: the tool never slows a server down.
const WINDOW: u32 = 0x7fff_ffff;
/// Bytes after which a window is filled up again.
const REFILL: usize = 1 << 20;
