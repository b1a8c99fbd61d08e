//! Whatever a connection begins with: the PROXY header that HAProxy's specification sees in it is read, and not a byte
//! more, however it is cut; anything else is refused. Whom a proxy names is who is seen.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use socket2::{Domain, Socket, Type};
use ssegate::config::ProxyProtocol::{self, Any, V1, V2};
use ssegate::http::proxy_protocol::read;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Takes what comes in on a connection; and an address, with what a client says.
pub fn check(bytes: &[u8]) {
    for (allowed, piece) in [(V1, 1), (V2, 3), (Any, CUT)] {
        let (read, rest) = received(bytes, piece, allowed);
        match header(bytes, allowed) {
            Some((client, length)) => assert_eq!((read.unwrap(), &*rest), (client, &bytes[length..])),
            None => assert!(read.is_err(), "{read:?}"),
        }
    }
    let Some((address, rest)) = bytes.split_first_chunk() else { return };
    let Some((&port, said)) = rest.split_first_chunk() else { return };
    for ip in [Ipv6Addr::from(*address).into(), IpAddr::from(*address.first_chunk::<4>().unwrap())] {
        let client = SocketAddr::new(ip, u16::from_be_bytes(port));
        for header in [version_1(client), version_2(client)] {
            let (read, rest) = received(&[&header, said].concat(), CUT, Any);
            let client = SocketAddr::new(ip.to_canonical(), client.port());
            assert_eq!((read.unwrap(), &*rest), (Some(client), said));
        }
    }
}

/// What is read of a connection on which these bytes come in, the first of them in pieces of this size, and what is left.
fn received(bytes: &[u8], piece: usize, allowed: ProxyProtocol) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
    RUNTIME.block_on(async {
        // A pair of sockets takes no port, of which there are not enough for this.
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let [mut socket, mut proxy] = [ours, theirs].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            TcpStream::from_std(socket.into()).unwrap()
        });
        let send = async {
            let (first, rest) = bytes.split_at(bytes.len().min(CUT));
            for piece in first.chunks(piece).chain([rest]) {
                proxy.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(proxy);
        };
        let receive = async {
            let read = read(&mut socket, allowed).await;
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            (read, rest)
        };
        tokio::join!(receive, send).0
    })
}

/// Whom the header speaks for, if anybody, and how long it is.
fn header(bytes: &[u8], allowed: ProxyProtocol) -> Option<(Option<SocketAddr>, usize)> {
    let found = if bytes.starts_with(SIGNATURE) {
        parse_2(bytes).map(|found| (found, V2))
    } else {
        parse_1(bytes).map(|found| (found, V1))
    };
    found.filter(|(_, version)| allowed == Any || allowed == *version).map(|(found, _)| found)
}

/// Section 2.1.
fn parse_1(bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    let length = 1 + bytes.iter().take(107).position(|&b| b == b'\n')?;
    let line = bytes[..length].strip_suffix(b"\r\n")?.strip_prefix(b"PROXY ")?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some((None, length));
    }
    let words: Vec<&str> = str::from_utf8(line).ok()?.split(' ').collect();
    let [family, source, target, ports @ ..] = &words[..] else { return None };
    let ip = match *family {
        "TCP4" => IpAddr::from(target.parse::<Ipv4Addr>().and(source.parse::<Ipv4Addr>()).ok()?),
        "TCP6" => IpAddr::from(target.parse::<Ipv6Addr>().and(source.parse::<Ipv6Addr>()).ok()?),
        _ => return None,
    };
    let is_port = |text: &&str| !text.starts_with('+') && text.parse::<u16>().is_ok();
    let port = ports.first()?.parse().ok()?;
    (ports.len() == 2 && ports.iter().all(is_port))
        .then(|| (Some(SocketAddr::new(ip.to_canonical(), port)), length))
}

/// Section 2.2.
fn parse_2(bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    let length = 16 + usize::from(u16::from_be_bytes(*bytes.get(14..)?.first_chunk()?));
    let addresses = bytes.get(16..length)?;
    let client = match (bytes[12], bytes[13]) {
        (0x20, _) | (0x21, 0x00 | 0x31) => None,
        (0x21, 0x11) => {
            let (ip, rest) = addresses.get(..12)?.split_first_chunk::<4>()?;
            Some((IpAddr::from(*ip), u16::from_be_bytes([rest[4], rest[5]])))
        }
        (0x21, 0x21) => {
            let (ip, rest) = addresses.get(..36)?.split_first_chunk::<16>()?;
            Some((IpAddr::from(*ip), u16::from_be_bytes([rest[16], rest[17]])))
        }
        _ => return None,
    };
    Some((client.map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port)), length))
}

fn version_1(client: SocketAddr) -> Vec<u8> {
    let (family, ip, port) = (if client.is_ipv4() { "TCP4" } else { "TCP6" }, client.ip(), client.port());
    format!("PROXY {family} {ip} {ip} {port} 443\r\n").into_bytes()
}

fn version_2(client: SocketAddr) -> Vec<u8> {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    // A TLV of no operation follows the addresses.
    let addresses =
        [&ip, &ip, &client.port().to_be_bytes()[..], &443_u16.to_be_bytes(), &[4, 0, 1, 0]].concat();
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    [SIGNATURE, &[0x21, family], &(addresses.len() as u16).to_be_bytes(), &addresses].concat()
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_io().build().unwrap());

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// No header's end that matters lies further on.
const CUT: usize = 128;
