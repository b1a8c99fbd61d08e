//! The client's side of HTTP/1.1: a request, and the response's head and framing.

use anyhow::{Context as _, bail};

use crate::args::Coding;
use crate::dial::Ask;
use crate::sse::head_end;

/// A request for a stream.
pub fn request(&Ask { host, path, coding, id }: &Ask<'_>) -> Vec<u8> {
    let mut head =
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n").into_bytes();
    if coding != Coding::Identity {
        head.extend(format!("accept-encoding: {}\r\n", coding.name()).into_bytes());
    }
    if !id.is_empty() {
        head.extend([b"last-event-id: ", id, b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// Undoes the framing of one response.
#[derive(Debug)]
pub enum Response {
    /// Head, as far as it has come.
    Head(Vec<u8>),
    /// The line with a chunk's size (RFC 9112 section 7.1), as far as it has come.
    Size(usize),
    /// Content of a chunk, with so many bytes left, and the line break after it.
    Chunk(usize),
    /// Content up to the connection's end.
    Open,
    /// Over.
    End,
}

impl Default for Response {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Response {
    /// Takes in bytes of the connection, and hands pieces of the content to `content`.
    ///
    /// # Errors
    /// Anything but status 200, framing that cannot be, and what `content` does not take.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut content: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            bytes = match self {
                Self::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let Some(end) = head_end(head) else { return Ok(()) };
                    let rest = &bytes[end - before..];
                    *self = after_head(head.split_at(end))?;
                    rest
                }
                Self::Size(size) => {
                    let (digit, rest) = (bytes[0], &bytes[1..]);
                    match digit {
                        b'\r' => {}
                        b'\n' if *size == 0 => *self = Self::End,
                        b'\n' => *self = Self::Chunk(*size + 2),
                        _ => *size = *size * 16 + hex(digit)?,
                    }
                    rest
                }
                Self::Chunk(left) => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(*left));
                    content(&piece[..piece.len().min(left.saturating_sub(2))])?;
                    *left -= piece.len();
                    if *left == 0 {
                        *self = Self::Size(0);
                    }
                    rest
                }
                Self::Open => {
                    content(bytes)?;
                    return Ok(());
                }
                Self::End => return Ok(()),
            };
        }
        Ok(())
    }
}

fn after_head((head, body): (&[u8], &[u8])) -> anyhow::Result<Response> {
    let head = str::from_utf8(head).context("the head is not UTF-8")?.to_ascii_lowercase();
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("http/1.1 200") {
        // Some say why.
        let why = String::from_utf8_lossy(body);
        bail!("answered {status}: {}", why.trim());
    }
    let chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    Ok(if chunked { Response::Size(0) } else { Response::Open })
}

fn hex(digit: u8) -> anyhow::Result<usize> {
    let value = char::from(digit).to_digit(16).context("no chunk size where one is due")?;
    Ok(value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_named_only_where_one_is_wanted() {
        let head = |coding| {
            let ask = Ask { host: "localhost", path: "/load", coding, id: b"" };
            String::from_utf8(request(&ask)).unwrap()
        };
        assert!(head(Coding::Zstd).contains("\r\naccept-encoding: zstd\r\n"));
        assert!(!head(Coding::Identity).contains("accept-encoding"));
    }

    #[test]
    fn chunks_are_undone_however_they_are_cut() {
        let stream =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00000A\r\n0123456789\r\n";
        for cut in 0..stream.len() {
            let (mut response, mut got) = (Response::default(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                let take = |piece: &[u8]| {
                    got.extend_from_slice(piece);
                    Ok(())
                };
                response.feed(part, take).unwrap();
            }
            assert_eq!(got, b"abc0123456789");
        }
        assert!(Response::default().feed(b"HTTP/1.1 404 Not Found\r\n\r\n", |_| Ok(())).is_err());
    }
}
