//! A well-behaved client during an attack, and the memory of the process that is attacked.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::eventsource::{EventSource, Options};
use super::ssegate::Ssegate;
use super::wait::within;

/// Clients that read a channel while somebody publishes to it.
pub struct Witness {
    before: usize,
    readers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    publisher: JoinHandle<usize>,
}

impl Witness {
    /// Opens `path` over both protocols; see [`Witness::reading`].
    pub async fn of(ssegate: &Ssegate, path: &str, channel: &str) -> Self {
        Self::reading(ssegate, path, channel, [Options::http1(), Options::http2()]).await
    }

    /// Opens `path` as each of these clients and publishes numbers to `channel`, some fifty a second, until told to stop.
    /// Panics of theirs are told by [`Witness::unharmed`].
    pub async fn reading(
        ssegate: &Ssegate,
        path: &str,
        channel: &str,
        clients: impl IntoIterator<Item = Options>,
    ) -> Self {
        let mut readers = Vec::new();
        for options in clients {
            let mut stream = EventSource::connect(ssegate.url(path), options).await;
            stream.next_named("stream.position").await;
            readers.push(tokio::spawn(async move {
                let mut next = 0;
                loop {
                    let data = stream.next_message().await.data;
                    stream.forget();
                    if data == "end" {
                        return;
                    }
                    assert_eq!(data, next.to_string(), "nothing is lost, and nothing comes twice");
                    next += 1;
                }
            }));
        }
        let (stop, stopped) = watch::channel(false);
        let publisher = tokio::spawn(publish(ssegate.addrs("admin")[0], channel.to_owned(), stopped));
        Self { before: resident(ssegate.id()), readers, stop, publisher }
    }

    /// By how many bytes the process has grown since the witness began.
    pub fn growth(&self, ssegate: &Ssegate) -> usize {
        resident(ssegate.id()).saturating_sub(self.before)
    }

    /// Waits until the readers have all that was published; none of it may be missing.
    pub async fn unharmed(self, ssegate: &Ssegate) {
        self.stop.send_replace(true);
        let published = within("the publisher", self.publisher).await.expect("all was published");
        assert!(published > 0);
        for reader in self.readers {
            within("the good clients to read all", reader).await.expect("nothing is lost");
        }
        assert_eq!(ssegate.admin_get("/healthz").await.status, 200);
        let panicked = |line: &serde_json::Value| line.to_string().contains("panicked");
        assert!(!ssegate.log().iter().any(panicked), "{:?}", ssegate.log());
    }
}

async fn publish(admin: std::net::SocketAddr, channel: String, stop: watch::Receiver<bool>) -> usize {
    let mut published = 0;
    let post = async |body: String| {
        let url = format!("http://{admin}/publish/{channel}");
        let connect = super::http::Connect::http1();
        let reply = super::http::request(http::Method::POST, &url, &[], body, &connect).await;
        assert!(reply.status.is_success(), "{}", reply.text());
    };
    while !*stop.borrow() {
        post(published.to_string()).await;
        published += 1;
        // A pace, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    post("end".to_owned()).await;
    published
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
