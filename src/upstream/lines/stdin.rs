//! The lines of standard input, of which there is one a process. A thread reads it, since nothing else can wait for it and
//! be ended; it reads ahead by a few chunks and then waits, and so does the command that writes.

use std::io::{self, Read as _};
use std::sync::{Arc, LazyLock};
use std::thread;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, watch};

use super::super::link::Link;
use super::super::{Broken, Upstream};
use super::splitter::Splitter;
use super::{CHUNK, deliver, longest};

/// Reads standard input on, wherever it stands.
pub(in super::super) struct Stdin;

/// What has come and was not handed over yet; one session after the other has it.
struct Input {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    splitter: Splitter,
}

static INPUT: LazyLock<Mutex<Input>> = LazyLock::new(|| {
    let (sender, chunks) = mpsc::channel(AHEAD);
    let begun = thread::Builder::new().name("stdin".into()).spawn(move || read(&sender));
    if let Err(error) = begun {
        tracing::error!(%error, "no thread to read standard input with");
    }
    Mutex::new(Input { chunks, splitter: Splitter::default() })
});

static ENDED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Ends once the last line of standard input has been handed over.
pub async fn ended() {
    // The sender is never dropped, so this cannot fail.
    let _ = ENDED.subscribe().wait_for(|ended| *ended).await;
}

impl Upstream for Stdin {
    // What nobody has taken stays where it is.
    const LOSSY: bool = false;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let mut input = INPUT.lock().await;
        let mut changes = link.changes();
        loop {
            changes.look(|| link.wanted().for_each(|feed| link.confirm(feed)));
            link.up();
            link.settled();
            // Where nobody is to have them, lines wait.
            let goes_on = link.wanted().with(|feeds| !feeds.is_empty()) && !*ENDED.borrow();
            tokio::select! {
                biased;
                changed = changes.next() => if let Err(broken) = changed { return broken },
                chunk = input.chunks.recv(), if goes_on => match chunk {
                    Some(Ok(bytes)) => {
                        let lines = input.splitter.feed(&bytes, longest(&link));
                        deliver(&link, &lines, NAME).await;
                    }
                    Some(Err(error)) => link.trouble(&format!("read standard input: {error}")),
                    None => {
                        let last: Vec<_> = input.splitter.end().into_iter().collect();
                        deliver(&link, &last, NAME).await;
                        link.wanted().for_each(|feed| feed.log.ends());
                        ENDED.send_replace(true);
                        tracing::info!(upstream = %link.name(), "standard input has ended, and streams stay open");
                    }
                }
            }
        }
    }
}

/// Reads to the end, as fast as it is handed over.
fn read(to: &mpsc::Sender<io::Result<Bytes>>) {
    let mut input = io::stdin().lock();
    loop {
        let mut bytes = vec![0; CHUNK];
        let chunk = match input.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                bytes.truncate(length);
                Ok(bytes.into())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_over = chunk.is_err();
        if to.blocking_send(chunk).is_err() || is_over {
            return;
        }
    }
}

/// What lines of it are called.
const NAME: &str = "stdin";
/// Chunks that are read ahead.
const AHEAD: usize = 4;
