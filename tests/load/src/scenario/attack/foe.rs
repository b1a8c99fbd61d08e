//! One connection of the attacker. What comes is thrown away, without a look once the handshake is done: all that it is
//! read for is to see the connection's end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustls::ClientConnection;

use crate::args::Coding;
use crate::dial::{Ask, Dial};
use crate::scenario::attack::kind::Kind;

/// A connection.
pub struct Foe {
    kind: Kind,
    number: u64,
    began: Instant,
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Whether what comes first is sent.
    begun: bool,
    /// How often it went on after that.
    times: usize,
}

impl Foe {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens, or this process has no descriptor left.
    pub fn begin(dial: &Dial, kind: Kind, number: u64) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(dial.addr)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        if !kind.reads(number) {
            // Little, so that it is the server that has to hold what is not read.
            set_socket_recv_buffer_size(&socket, UNREAD)?;
        }
        let tls = match &dial.tls {
            None => None,
            Some(config) => {
                let mut tls = ClientConnection::new(Arc::clone(config), dial.server_name()?)?;
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
        };
        let mut foe = Self { kind, number, began: Instant::now(), socket, tls, begun: false, times: 0 };
        // Whoever is sent away at once is found so when it is read.
        let _ = foe.advance(dial);
        Ok(foe)
    }

    /// For how long it has been there.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether it reads nothing any more.
    pub fn is_deaf(&self) -> bool {
        self.begun && !self.kind.reads(self.number)
    }

    /// Its socket has something. `buffer` is room for it.
    ///
    /// # Errors
    /// Where that is the connection's end.
    pub fn ready(&mut self, dial: &Dial, buffer: &mut [u8]) -> anyhow::Result<()> {
        if self.is_deaf() {
            bail!("closed by the server");
        }
        let read = match self.socket.read(buffer) {
            Ok(0) => bail!("closed by the server"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !self.begun
            && let Some(tls) = &mut self.tls
        {
            let mut bytes = &buffer[..read];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes)?;
                tls.process_new_packets()?;
            }
            self.advance(dial)?;
        }
        Ok(())
    }

    /// Sends what comes next, unless what came before is not taken yet.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub fn go_on(&mut self, dial: &Dial) -> anyhow::Result<()> {
        self.flush()?;
        if self.begun && !self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            let bytes = self.kind.goes_on(self.times, &ask(dial));
            self.times += 1;
            self.say(&bytes)?;
        }
        Ok(())
    }

    /// Goes on with the handshake; once it is done sends what comes first, and what comes next at once.
    fn advance(&mut self, dial: &Dial) -> anyhow::Result<()> {
        self.flush()?;
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return Ok(());
        }
        self.begun = true;
        self.say(&self.kind.begins(self.number, &ask(dial)))?;
        self.go_on(dial)
    }

    fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.tls {
            // A few bytes, for which there is room.
            None => self.socket.write_all(bytes)?,
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        self.flush()
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                written => _ = written?,
            }
        }
        Ok(())
    }
}

fn ask(dial: &Dial) -> Ask<'_> {
    Ask { host: &dial.host, path: &dial.path, coding: Coding::Identity, id: b"" }
}

/// Bytes that the kernel takes for a connection that reads nothing.
const UNREAD: usize = 4 * 1024;
