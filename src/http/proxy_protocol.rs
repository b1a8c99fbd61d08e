//! HAProxy's PROXY protocol, both versions: what a proxy says at the beginning of a connection of whom it speaks for.
//! Reads exactly that and not a byte of what follows. Who may say so is not decided here.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::config::ProxyProtocol;

/// Reads the header. `None` where the proxy speaks for itself, or for something without an address.
///
/// # Errors
/// Where the connection ends or begins with anything else.
pub async fn read(socket: &mut TcpStream, allowed: ProxyProtocol) -> io::Result<Option<SocketAddr>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match (first[0] == SIGNATURE[0], allowed) {
        (true, ProxyProtocol::V2 | ProxyProtocol::Any) => read_v2(socket).await,
        (false, ProxyProtocol::V1 | ProxyProtocol::Any) => read_v1(socket).await,
        _ => Err(malformed("no header of the version that is configured")),
    }
}

/// The line ends somewhere within what has come in, or after it: bytes are looked at before they are taken.
async fn read_v1(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let (mut line, mut filled) = ([0; LINE], 0);
    while filled < LINE {
        let seen = socket.peek(&mut line[filled..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = line[filled..filled + seen].iter().position(|&b| b == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        filled += socket.read_exact(&mut line[filled..filled + taken]).await?;
        if end.is_some() {
            return parse_v1(&line[..filled]);
        }
        if !line.starts_with(&V1[..filled.min(V1.len())]) {
            break;
        }
    }
    Err(malformed("no line of version 1"))
}

async fn read_v2(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; HEAD];
    socket.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let mut addresses = [0; ADDRESSES];
    let known = length.min(ADDRESSES);
    socket.read_exact(&mut addresses[..known]).await?;
    // What follows the addresses is of no interest here.
    let rest = (length - known) as u64;
    let passed = tokio::io::copy(&mut socket.take(rest), &mut tokio::io::sink()).await?;
    if passed < rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse_v2(&head, &addresses[..known])
}

/// Section 2.1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn parse_v1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let parse = || {
        let line = line.strip_suffix(b"\r\n")?.strip_prefix(V1)?;
        // Whatever follows is to be ignored, and need not be text.
        if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
            return Some(None);
        }
        let mut words = str::from_utf8(line).ok()?.split(' ');
        let (family, source, target) = (words.next()?, words.next()?, words.next()?);
        let (port, _) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
        let address: IpAddr = match family {
            "TCP4" => (source.parse::<Ipv4Addr>().ok()?, target.parse::<Ipv4Addr>().ok()?).0.into(),
            "TCP6" => (source.parse::<Ipv6Addr>().ok()?, target.parse::<Ipv6Addr>().ok()?).0.into(),
            _ => return None,
        };
        words.next().is_none().then_some(Some(SocketAddr::new(address.to_canonical(), port)))
    };
    parse().ok_or_else(|| malformed("no line of version 1"))
}

/// Digits alone: `u16` would take a plus sign.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Section 2.2: the signature, version and command, family and protocol, the length of what follows.
fn parse_v2(head: &[u8; HEAD], addresses: &[u8]) -> io::Result<Option<SocketAddr>> {
    if head[..12] != SIGNATURE {
        return Err(malformed("no signature of version 2"));
    }
    match head[12] {
        LOCAL => return Ok(None),
        PROXY => {}
        _ => return Err(malformed("an unknown version or command")),
    }
    let port = |at: usize| Some(u16::from_be_bytes(addresses.get(at..at + 2)?.try_into().ok()?));
    let address = match head[13] {
        UNSPECIFIED | UNIX => return Ok(None),
        TCP4 => {
            let address = addresses.first_chunk::<4>().map(|&bytes| Ipv4Addr::from(bytes));
            address.zip(port(8).zip(port(10))).map(|(address, (port, _))| (IpAddr::from(address), port))
        }
        TCP6 => {
            let address = addresses.first_chunk::<16>().map(|&bytes| Ipv6Addr::from(bytes));
            address.zip(port(32).zip(port(34))).map(|(address, (port, _))| (IpAddr::from(address), port))
        }
        _ => return Err(malformed("an unknown family")),
    };
    let (address, port) = address.ok_or_else(|| malformed("too short for its family"))?;
    Ok(Some(SocketAddr::new(address.to_canonical(), port)))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const V1: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const LINE: usize = 107;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const HEAD: usize = 16;
/// Of two IPv6 addresses and ports.
const ADDRESSES: usize = 36;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of bytes that arrive in these pieces, and what is left of them.
    async fn received(pieces: &[&[u8]], allowed: ProxyProtocol) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        proxy.set_nodelay(true).unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in pieces {
                proxy.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            proxy.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(read(&mut socket, allowed), send);
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn addr(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    fn v2_tcp4() -> Vec<u8> {
        v2(PROXY, TCP4, &[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 187])
    }

    #[tokio::test]
    async fn both_versions_in_any_pieces_and_not_a_byte_more() {
        let v1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        let v2 = v2_tcp4();
        for header in [v1, &v2] {
            for cut in [1, 5, 12, 17, header.len() - 1] {
                let after = [&header[cut..], b"\x16\x03 TLS"].concat();
                let (read, rest) = received(&[&header[..cut], &after], ProxyProtocol::Any).await;
                assert_eq!((read.unwrap(), &*rest), (addr("192.0.2.1:56324"), &b"\x16\x03 TLS"[..]));
            }
        }
        assert!(received(&[v1], ProxyProtocol::V2).await.0.is_err());
        assert!(received(&[&v2], ProxyProtocol::V1).await.0.is_err());
        for truncated in [&v1[..20], &v2[..14], &v2[..20], b""] {
            assert!(received(&[truncated], ProxyProtocol::Any).await.0.is_err());
        }
        let with_tlvs = super::tests::v2(PROXY, TCP4, &[&v2[HEAD..], &[7; 10_000]].concat());
        let (read, rest) = received(&[&with_tlvs, b"!"], ProxyProtocol::V2).await;
        assert_eq!((read.unwrap(), &*rest), (addr("192.0.2.1:56324"), &b"!"[..]));
        let endless = [&b"PROXY "[..], &[b'x'; 500]].concat();
        assert!(received(&[&endless], ProxyProtocol::V1).await.0.is_err());
    }

    #[test]
    fn lines_of_version_1() {
        let parse = |line: &str| parse_v1(line.as_bytes()).map_err(|_| ());
        assert_eq!(parse("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"), Ok(addr("[2001:db8::1]:1")));
        assert_eq!(parse("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), Ok(addr("192.0.2.1:1")));
        assert_eq!(parse("PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(parse("PROXY UNKNOWN ffff::1 x y z\r\n"), Ok(None));
        assert!(matches!(parse_v1(b"PROXY UNKNOWN \xff\0\r\n"), Ok(None)));
        for bad in [
            "",
            "\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn headers_of_version_2() {
        let parse = |bytes: &[u8]| {
            let (head, rest) = bytes.split_first_chunk().unwrap();
            parse_v2(head, rest).map_err(|_| ())
        };
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 9;
        v6[33] = 80;
        assert_eq!(parse(&v2(PROXY, TCP6, &v6)), Ok(addr("[2001:db8::9]:80")));
        assert_eq!(parse(&v2(LOCAL, UNSPECIFIED, &[])), Ok(None));
        assert_eq!(parse(&v2(LOCAL, TCP4, &[1; 12])), Ok(None), "a health check of the proxy's own");
        assert_eq!(parse(&v2(PROXY, UNIX, &[1; 36])), Ok(None));
        let datagrams = 0x12;
        for bad in [
            v2(PROXY, TCP4, &[1; 11]),
            v2(PROXY, TCP6, &v6[..35]),
            v2(PROXY, datagrams, &[1; 12]),
            v2(0x11, TCP4, &[1; 12]),
            v2(0x22, TCP4, &[1; 12]),
            v2_tcp4().into_iter().rev().collect(),
        ] {
            assert_eq!(parse(&bad), Err(()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_any_address_is_read(
            head: [u8; HEAD],
            rest in prop::collection::vec(any::<u8>(), 0..=ADDRESSES),
            line in prop::collection::vec(any::<u8>(), 0..LINE),
            words in "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f:.]{0,12}){0,6}\r\n",
            source: SocketAddr,
        ) {
            let _ = parse_v2(&head, &rest);
            let mut signed = head;
            signed[..12].copy_from_slice(&SIGNATURE);
            let _ = parse_v2(&signed, &rest);
            let _ = (parse_v1(&line), parse_v1(words.as_bytes()));
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {0} {0} {1} 443\r\n", source.ip(), source.port());
            let expected = SocketAddr::new(source.ip().to_canonical(), source.port());
            prop_assert_eq!(parse_v1(line.as_bytes()).unwrap(), Some(expected));
        }
    }
}
