//! TLS on a socket, by rustls's unbuffered API: what comes in is decrypted where it was read and what goes out is
//! encrypted where it is sent from, in buffers that a thread has and not a connection. A connection keeps what is left
//! over and nothing else: of the thousands that are open, hardly any has something.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket on which the handshake is done.
pub struct TlsStream {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    left: Left,
}

/// What one turn left for the next.
#[derive(Default)]
struct Left {
    /// Came in, and is the beginning of a record.
    incoming: Vec<u8>,
    /// Decrypted, and not read yet.
    plain: BytesMut,
    /// Encrypted, and not taken by the socket yet.
    outgoing: BytesMut,
    /// The client has said that it sends no more (RFC 8446 section 6.1).
    ended: bool,
    /// We have said so.
    closed: bool,
    /// What came in was no TLS that we speak. The session is not to be asked again.
    failed: bool,
}

/// The buffers of a thread.
struct Room {
    incoming: Box<[u8]>,
    plain: Vec<u8>,
    outgoing: Vec<u8>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room {
        incoming: vec![0; RECORD + OVERHEAD].into(),
        plain: Vec::new(),
        outgoing: Vec::new(),
    });
}

/// What is to be said when the session has nothing to say itself.
#[derive(Clone, Copy)]
enum Say<'d> {
    Nothing,
    /// At most [`RECORD`] bytes.
    Data(&'d [u8]),
    Goodbye,
}

impl TlsStream {
    /// Does the handshake.
    ///
    /// # Errors
    /// Where the client does not speak TLS, agrees to none of ours, or goes away.
    pub async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Self { socket, session, left: Left::default() };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What was agreed on.
    pub fn session(&self) -> &CommonState {
        &self.session
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_take_in(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads from the socket once, and does what the bytes ask for; gives their number.
    fn poll_take_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { socket, session, left } = self;
        left.check()?;
        ROOM.with_borrow_mut(|Room { incoming, outgoing, .. }| {
            let mut read = ReadBuf::new(incoming);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            outgoing.clear();
            let done = take_in(session, read.filled_mut(), left, outgoing);
            left.failed = done.is_err();
            // An alert goes out also where this is the end.
            send(socket, cx, outgoing, left)?;
            done.map_err(io::Error::other)?;
            Poll::Ready(Ok(length))
        })
    }

    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, left, .. } = self;
        while !left.outgoing.is_empty() {
            match ready!(Pin::new(&mut *socket).poll_write(cx, &left.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => left.outgoing.advance(sent),
            }
        }
        left.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Encrypts and sends; what the socket does not take waits in `outgoing`.
    fn say(&mut self, cx: &mut Context<'_>, say: Say<'_>, room: &mut Vec<u8>) -> io::Result<()> {
        let Self { socket, session, left } = self;
        left.check()?;
        room.clear();
        let mut incoming = std::mem::take(&mut left.incoming);
        let done = turn(session, &mut incoming, say, left, room);
        left.failed = done.is_err();
        send(socket, cx, room, left)?;
        incoming.drain(..done.map_err(io::Error::other)?);
        left.incoming = incoming;
        Ok(())
    }
}

impl Left {
    /// An error once the session has had one.
    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

/// Gives the session what was read, and keeps what it has no use for yet.
fn take_in(
    session: &mut UnbufferedServerConnection,
    read: &mut [u8],
    left: &mut Left,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    if left.incoming.is_empty() {
        let used = turn(session, read, Say::Nothing, left, out)?;
        left.incoming = read[used..].to_vec();
    } else {
        let mut tls = std::mem::take(&mut left.incoming);
        tls.extend_from_slice(read);
        let used = turn(session, &mut tls, Say::Nothing, left, out)?;
        if used < tls.len() {
            tls.drain(..used);
            left.incoming = tls;
        }
    }
    // rustls bounds a message, but not the records that it comes in.
    let most = if session.is_handshaking() { HANDSHAKE } else { RECORD + OVERHEAD };
    if left.incoming.len() > most {
        return Err(rustls::Error::General("a message in too many pieces".to_owned()));
    }
    Ok(())
}

/// Lets the session do what it can: decrypt, answer, and then say what is to be said. Gives how many bytes of `tls`
/// it has used. After an error `out` holds the alert that tells it, and the session must not be asked again.
fn turn(
    session: &mut UnbufferedServerConnection,
    tls: &mut [u8],
    say: Say<'_>,
    left: &mut Left,
    out: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut used = 0;
    let mut failed = None;
    loop {
        let UnbufferedStatus { mut discard, state, .. } = session.process_tls_records(&mut tls[used..]);
        let over = match state {
            Err(error) => {
                failed = Some(error);
                true
            }
            Ok(ConnectionState::ReadTraffic(mut records)) => {
                while let Some(record) = records.next_record() {
                    let record = record?;
                    discard += record.discard;
                    left.plain.extend_from_slice(record.payload);
                }
                false
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(out, 0, |room| message.encode(room))?;
                false
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                false
            }
            Ok(ConnectionState::PeerClosed) => {
                left.ended = true;
                false
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                match say {
                    Say::Nothing => {}
                    Say::Data(data) => {
                        encode(out, data.len() + OVERHEAD, |room| traffic.encrypt(data, room))?;
                    }
                    Say::Goodbye => encode(out, OVERHEAD, |room| traffic.queue_close_notify(room))?,
                }
                true
            }
            // Waiting for the client, or over.
            Ok(_) => true,
        };
        used += discard;
        if let Some(error) = failed {
            alert(session, out)?;
            return Err(error);
        }
        if over {
            return Ok(used);
        }
    }
}

/// What the session has to say after an error. It takes what it has to say before it looks at what came in, of which
/// there must be nothing: it remembers places in what it failed at, and would look for them.
fn alert(session: &mut UnbufferedServerConnection, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
    while session.wants_write() {
        match session.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => encode(out, 0, |room| message.encode(room))?,
            _ => break,
        }
    }
    Ok(())
}

/// Appends what `write` writes, which is asked again if the first room does not suffice.
fn encode<E: TooSmall>(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    out.resize(begin + room, 0);
    let written = match write(&mut out[begin..]) {
        Ok(written) => written,
        Err(error) => {
            out.resize(begin + error.required()?, 0);
            write(&mut out[begin..]).map_err(|_| rustls::Error::EncryptError)?
        }
    };
    out.truncate(begin + written);
    Ok(())
}

/// rustls's two errors for a buffer that is too small.
trait TooSmall {
    /// How large it must be.
    fn required(self) -> Result<usize, rustls::Error>;
}

impl TooSmall for EncodeError {
    fn required(self) -> Result<usize, rustls::Error> {
        match self {
            Self::InsufficientSize(size) => Ok(size.required_size),
            Self::AlreadyEncoded => Err(rustls::Error::EncryptError),
        }
    }
}

impl TooSmall for EncryptError {
    fn required(self) -> Result<usize, rustls::Error> {
        match self {
            Self::InsufficientSize(size) => Ok(size.required_size),
            Self::EncryptExhausted => Err(rustls::Error::EncryptError),
        }
    }
}

/// Sends as much as the socket takes, after what waits already; keeps the rest.
fn send(socket: &mut TcpStream, cx: &mut Context<'_>, mut bytes: &[u8], left: &mut Left) -> io::Result<()> {
    while left.outgoing.is_empty() && !bytes.is_empty() {
        match Pin::new(&mut *socket).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(sent) => bytes.advance(sent?),
            Poll::Pending => break,
        }
    }
    left.outgoing.extend_from_slice(bytes);
    Ok(())
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left.plain.is_empty() {
            if this.left.ended || ready!(this.poll_take_in(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let length = this.left.plain.len().min(to.remaining());
        to.put_slice(&this.left.plain.split_to(length));
        if this.left.plain.is_empty() {
            this.left.plain = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    /// Takes at most a record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        ROOM.with_borrow_mut(|Room { plain, outgoing, .. }| {
            let data = match data {
                [data] => &data[..data.len().min(RECORD)],
                pieces => {
                    gather(pieces, plain);
                    plain
                }
            };
            this.say(cx, Say::Data(data), outgoing)?;
            Poll::Ready(Ok(data.len()))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.left.closed, true) && !this.left.failed {
            ROOM.with_borrow_mut(|room| this.say(cx, Say::Goodbye, &mut room.outgoing))?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// Puts the first [`RECORD`] bytes of `pieces` into one.
fn gather(pieces: &[IoSlice<'_>], to: &mut Vec<u8>) {
    to.clear();
    for piece in pieces {
        to.extend_from_slice(&piece[..piece.len().min(RECORD - to.len())]);
    }
}

/// Bytes that a TLS record holds at most (RFC 8446 section 5.1).
pub const RECORD: usize = 16 * 1024;

/// Bytes by which a record may be larger than what it holds (RFC 8446 section 5.2: 256, and 5 for its head).
const OVERHEAD: usize = 256 + 5;

/// Bytes of a handshake that wait for the rest of a message: one of 64 KiB, which is rustls's limit, in a few records.
const HANDSHAKE: usize = 5 * RECORD;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server's configuration and one of a client that trusts it.
    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    async fn sockets() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    fn session(config: Arc<ClientConfig>) -> ClientConnection {
        ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap()
    }

    /// Sends its bytes one at a time, so that no record comes in whole.
    struct Dribble(std::net::TcpStream);

    impl io::Read for Dribble {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.0.read(to)
        }
    }

    impl io::Write for Dribble {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.write(&data[..data.len().min(1)])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    async fn echo(version: &'static SupportedProtocolVersion) {
        let (server, client) = configs(version);
        let (socket, peer) = sockets().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 7) as u8).collect();
        let wanted = sent.clone();
        let client = std::thread::spawn(move || {
            let mut session = session(client);
            let mut peer = Dribble(peer);
            let mut tls = rustls::Stream::new(&mut session, &mut peer);
            tls.write_all(b"hello ").unwrap();
            // Neither side's keys are what they were (RFC 8446 section 4.6.3).
            if tls.conn.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
                tls.conn.refresh_traffic_keys().unwrap();
            }
            tls.write_all(b"there").unwrap();
            let mut got = Vec::new();
            tls.read_to_end(&mut got).unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
            got
        });
        let mut stream = TlsStream::accept(socket, server).await.unwrap();
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello there");
        let (first, second) = sent.split_at(300_001);
        stream.write_all(first).await.unwrap();
        let pieces = [IoSlice::new(&second[..10]), IoSlice::new(&second[10..])];
        let written = stream.write_vectored(&pieces).await.unwrap();
        assert_eq!(written, RECORD, "two pieces make one record");
        stream.write_all(&second[written..]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(client.join().unwrap() == wanted);
        assert_eq!(stream.read(&mut greeting).await.unwrap(), 0, "the client has said goodbye");
        let left = &stream.left;
        assert_eq!(left.incoming.capacity() + left.plain.capacity() + left.outgoing.capacity(), 0);
    }

    #[tokio::test]
    async fn bytes_arrive_both_ways_however_records_are_cut() {
        echo(&version::TLS13).await;
        echo(&version::TLS12).await;
    }

    /// What comes of it on either side that a client says `words` after its handshake and then `noise`.
    async fn after_the_handshake(noise: Vec<u8>) -> (io::Result<usize>, Result<(), rustls::Error>) {
        let (server, client) = configs(&version::TLS13);
        let (socket, mut peer) = sockets().await;
        let (heard, said) = std::sync::mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut session = session(client);
            rustls::Stream::new(&mut session, &mut peer).write_all(b"words").unwrap();
            said.recv().unwrap();
            // The server may have had enough of it before all is sent.
            let _ = peer.write_all(&noise);
            let _ = peer.shutdown(std::net::Shutdown::Write);
            while let Ok(1..) = session.read_tls(&mut peer) {
                session.process_new_packets()?;
            }
            Ok::<_, rustls::Error>(())
        });
        let mut stream = TlsStream::accept(socket, server).await.unwrap();
        let mut got = [0; 5];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"words");
        heard.send(()).unwrap();
        let read = stream.read(&mut got).await;
        drop(stream);
        (read, client.join().unwrap())
    }

    #[tokio::test]
    async fn noise_is_an_error_and_an_end_without_goodbye_is_an_end() {
        assert!(matches!(after_the_handshake(Vec::new()).await, (Ok(0), Ok(()))));
        // The beginning of a record that never comes.
        assert!(matches!(after_the_handshake(vec![23, 3, 3, 1, 0, 9]).await, (Ok(0), Ok(()))));
        for noise in [vec![0; 100], vec![255; 40_000], [vec![23, 3, 3, 0, 32], vec![7; 32]].concat()] {
            let (told, _) = after_the_handshake(noise).await;
            assert!(told.unwrap_err().get_ref().is_some(), "rustls says what is wrong");
        }
        let (_, told) = after_the_handshake([vec![23, 3, 3, 0, 32], vec![7; 32]].concat()).await;
        assert_eq!(told, Err(rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)));
    }

    /// What comes of it on either side that a client begins with `bytes`.
    async fn before_the_handshake(bytes: Vec<u8>) -> (io::Result<TlsStream>, Vec<u8>) {
        let (socket, mut peer) = sockets().await;
        let client = std::thread::spawn(move || {
            // The server may have had enough of it before all is sent.
            let _ = peer.write_all(&bytes);
            let _ = peer.shutdown(std::net::Shutdown::Write);
            let mut got = Vec::new();
            let _ = peer.read_to_end(&mut got);
            got
        });
        let told = TlsStream::accept(socket, configs(&version::TLS13).0).await;
        (told, client.join().unwrap())
    }

    #[tokio::test]
    async fn what_follows_a_fault_is_not_looked_at() {
        // The first byte of a message, and then another kind of record, which is no place for one.
        let cut = [22, 3, 1, 0, 1, 1, 21, 3, 1, 0, 2, 2, 40];
        // A hello that says nothing, and a message behind it in the same record.
        let crowded = [22, 3, 1, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0];
        for bytes in [&cut[..], &crowded] {
            let (told, alert) = before_the_handshake(bytes.to_vec()).await;
            assert!(told.err().unwrap().get_ref().is_some(), "rustls says what is wrong");
            assert!(alert.is_empty() || alert[0] == 21, "{alert:?}");
        }
    }

    #[tokio::test]
    async fn a_message_in_tiny_records_is_not_kept_without_end() {
        // A hello of 65,535 bytes, each in a record of its own.
        let head = [1, 0, 255, 255].into_iter().chain(std::iter::repeat_n(0, 65_535));
        let records: Vec<u8> = head.flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect();
        let (told, _) = before_the_handshake(records).await;
        assert!(told.err().unwrap().to_string().contains("too many pieces"));
    }

    #[tokio::test]
    async fn after_a_fault_nothing_is_said_any_more() {
        let (server, client) = configs(&version::TLS13);
        let (socket, mut peer) = sockets().await;
        let (done, accepted) = std::sync::mpsc::channel();
        let client = std::thread::spawn(move || {
            session(client).complete_io(&mut peer).unwrap();
            accepted.recv().unwrap();
            peer.write_all(&[23, 3, 3, 0, 1, 0]).unwrap();
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            got
        });
        let mut stream = TlsStream::accept(socket, server).await.unwrap();
        done.send(()).unwrap();
        stream.read(&mut [0]).await.unwrap_err();
        stream.write_all(b"more").await.unwrap_err();
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        stream.shutdown().await.unwrap();
        let records = client.join().unwrap();
        let alert = &records[records.len() - 24..];
        assert_eq!(
            alert[..5],
            [23, 3, 3, 0, 19],
            "nothing follows the alert: 2 bytes, their type, 16 of the seal"
        );
    }

    #[tokio::test]
    async fn answers_to_a_client_that_does_not_read_them_are_bounded() {
        let (server, client) = configs(&version::TLS13);
        let (socket, mut peer) = sockets().await;
        let client = std::thread::spawn(move || {
            let mut session = session(client);
            session.complete_io(&mut peer).unwrap();
            // Asks for new keys again and again, which the server has to answer, with data between so that rustls
            // takes no offence, and reads none of that.
            for _ in 0..20_000 {
                session.refresh_traffic_keys().unwrap();
                session.writer().write_all(b"x").unwrap();
                while session.wants_write() {
                    session.write_tls(&mut peer).unwrap();
                }
            }
            peer
        });
        let mut stream = TlsStream::accept(socket, server).await.unwrap();
        let mut got = [0; 20_000];
        stream.read_exact(&mut got).await.unwrap();
        assert!(stream.left.outgoing.len() < 1_000, "{}", stream.left.outgoing.len());
        drop(client.join().unwrap());
    }
}
