//! Against rustls's own client, and against bytes that are no TLS.

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

/// The session remembers places in what came in, and would look for them.
#[tokio::test]
async fn what_came_in_is_kept_where_sending_fails() {
    let (server, client) = configs(&version::TLS13);
    let (socket, mut peer) = sockets().await;
    let (go_on, told) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut session = session(client);
        rustls::Stream::new(&mut session, &mut peer).write_all(b"words").unwrap();
        told.recv().unwrap();
        peer.write_all(&[23, 3, 3]).unwrap();
        told.recv().unwrap();
        // A reset in place of a goodbye.
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let mut stream = TlsStream::accept(socket, server).await.unwrap();
    let mut words = [0; 5];
    stream.read_exact(&mut words).await.unwrap();
    go_on.send(()).unwrap();
    let part = std::future::poll_fn(|cx| {
        let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut words));
        if stream.left.incoming.is_empty() {
            read.map(|_| panic!("there is no whole record"))
        } else {
            Poll::Ready(())
        }
    });
    part.await;
    let kept = stream.left.incoming.clone();
    go_on.send(()).unwrap();
    client.join().unwrap();
    stream.read_exact(&mut words).await.unwrap_err();
    let failed = async { while stream.write_all(b"answer").await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), failed).await.unwrap();
    assert_eq!(stream.left.incoming, kept);
}
