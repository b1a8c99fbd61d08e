//! Streams that have an HTTP/1.1 connection to themselves, byte by byte on a plain socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};

const CONFIG: &str = r#"
server: { listen: "127.0.0.1:0", tls: none, drain: 100ms }
upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e } } ]
"#;

/// What a client has read.
struct Raw {
    socket: TcpStream,
    text: String,
}

impl Raw {
    async fn send(ssegate: &Ssegate, request: &str) -> Self {
        let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        Self { socket, text: String::new() }
    }

    async fn until(&mut self, what: &str) {
        while !self.text.contains(what) {
            let mut room = [0; 16 * 1024];
            let read = within(what, self.socket.read(&mut room)).await.unwrap();
            assert_ne!(read, 0, "it ended before {what}");
            self.text.push_str(std::str::from_utf8(&room[..read]).expect("ASCII"));
        }
    }

    async fn rest(&mut self) -> &str {
        within("the end", self.socket.read_to_string(&mut self.text)).await.unwrap();
        &self.text
    }
}

/// The body of a chunked response (RFC 9112 section 7.1), which must be whole.
fn chunks(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(rest, "");
            return body;
        }
    }
}

#[tokio::test]
async fn a_stream_is_chunked_for_http_1_1_and_ends_with_its_connection_for_http_1_0() {
    let mut ssegate = Ssegate::start(CONFIG).await;
    let mut new = Raw::send(&ssegate, "GET /e HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut old = Raw::send(&ssegate, "GET /e HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    new.until("stream.position").await;
    old.until("stream.position").await;
    let large = "x".repeat(100_000);
    ssegate.publish("e", &*large).await;
    ssegate.publish("e", "last").await;
    new.until("data: last\n").await;
    old.until("data: last\n").await;
    assert!(ssegate.terminate().await.success());
    let (head, body) = new.rest().await.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked") && head.contains("connection: close"), "{head}");
    let body = chunks(body);
    let (head, old) = old.rest().await.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("transfer-encoding"), "{head}");
    // But for the times to come back, which are drawn.
    let lines = |body: &str| {
        body.lines().filter(|line| !line.starts_with("retry")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&body), lines(old));
    assert!(body.contains(&format!("data: {large}\n")));
    assert!(
        body.ends_with("\n\n") && body.rsplit("\n\n").nth(1).unwrap().starts_with("retry: "),
        "{body:.300}"
    );
}

#[tokio::test]
async fn a_stream_may_follow_other_requests_on_its_connection() {
    let ssegate = Ssegate::start(CONFIG).await;
    let requests =
        "GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\nHEAD /e HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut client = Raw::send(&ssegate, requests).await;
    client.until("no-route").await;
    client.until("text/event-stream").await;
    client.text.clear();
    client.socket.write_all(b"GET /e HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    client.until("stream.position").await;
    ssegate.publish("e", "hello").await;
    client.until("data: hello\n").await;
}

#[tokio::test]
async fn what_a_client_says_after_its_request_is_not_listened_to_until_it_leaves() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut client = Raw::send(&ssegate, "GET /e HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    client.until("stream.position").await;
    within("a megabyte to be taken", client.socket.write_all(&vec![b'G'; 1 << 20])).await.unwrap();
    ssegate.publish("e", "hello").await;
    client.until("data: hello\n").await;
    client.socket.shutdown().await.unwrap();
    client.rest().await;
    let gone = async || match ssegate.metrics().await.sum("ssegate_subscribers", &[]) {
        0.0 => Ok(()),
        open => Err(open),
    };
    eventually("the stream to be gone", gone).await;
}
