//! A stream of JetStream on a server that keeps what it acknowledged; some routes keep nearly nothing in memory, and some
//! read a part of it. What it holds in the end, or held before some of it was taken away, is what was published.

use std::collections::HashMap;
use std::future::IntoFuture as _;
use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, SHORT, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::nats::Nats;
use crate::support::proxy::Proxy;
use crate::support::wait::{eventually, within};

/// One stream on a server of its own; the first replica reads it through a proxy. A number is on the subject of its rest.
pub struct JetstreamStream {
    nats: Nats,
    link: Proxy,
    published: Placed,
    /// The number of the newest message that has been noted.
    read: u64,
}

/// A client of the server itself; what is stored of what was not acknowledged is found in the stream.
pub struct StreamPen {
    context: jetstream::Context,
    /// Where the server said that it had stored a number, and in which incarnation.
    stored: HashMap<u64, (usize, u64)>,
    era: usize,
}

impl Source for JetstreamStream {
    const NAME: &'static str = "jetstream";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 3),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 3),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 4),
        (Kind::Trimmed, 3),
        (Kind::TrimmedBehind, 2),
        // Who is away through a whole incarnation is told once that it is gone.
        (Kind::Recreated, 1),
    ];
    const NUMBERS: (u64, u64) = (50_000, 800);

    type Pen = StreamPen;

    async fn start() -> Option<Self> {
        let nats = Nats::start_jetstream().await;
        let link = Proxy::start(([127, 0, 0, 1], nats.port()).into()).await;
        nats.create_stream(STREAM, &["numbers.*"]).await;
        let published = Placed { eras: 1, ..Placed::default() };
        Some(Self { nats, link, published, read: 0 })
    }

    fn config(&self, replica: usize) -> String {
        let url = if replica == 0 { format!("nats://{}", self.link.addr()) } else { self.nats.url() };
        let part = format!("from: {{ upstream: up, jetstream: {STREAM}, subject: \"numbers.1\" }}");
        let routes = all_and_short(&format!("from: {{ upstream: up, jetstream: {STREAM} }}"));
        format!(
            r#"
upstreams: {{ up: {{ nats: {{ servers: "{url}", ping_interval: 200ms, timeout: 1s }} }} }}
{routes}  - {{ path: /part, {part} }}
  - {{ path: /short-part, {part}, {SHORT} }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        let part = |path: &str| View { path: path.into(), share: Some((PARTS, 1)) };
        let views = [View::all("/all"), View::all("/short"), part("/part"), part("/short-part")];
        views.into_iter().cycle().take(8).collect()
    }

    async fn pen(&self) -> StreamPen {
        StreamPen { context: self.nats.jetstream().await, stored: HashMap::new(), era: 0 }
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<StreamPen>, _: &Replicas) {
        match fault {
            Fault::Trimmed(part) => self.trim(part).await,
            Fault::TrimmedBehind => {
                self.link.pause();
                sleep(Duration::from_secs(1)).await;
                self.trim(1.0).await;
                self.link.cut_all();
                self.link.resume();
            }
            Fault::Recreated => self.recreate(pen).await,
            other => harm(&mut self.nats, &self.link, other).await,
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: StreamPen) -> Published {
        self.close_era().await;
        for (number, (era, stored)) in &pen.stored {
            let place = self.published.places.get(number).map(|place| (place.era, place.offset.0));
            assert_eq!(place, Some((*era, *stored)), "where {number} was stored");
        }
        Published::Placed(std::mem::take(&mut self.published))
    }
}

impl JetstreamStream {
    /// The server may be starting still.
    async fn stream(&self) -> stream::Stream {
        let context = self.nats.jetstream().await;
        eventually("the stream", async || context.get_stream(STREAM).await).await
    }

    /// Takes away this part of what the stream is known to hold.
    async fn trim(&mut self, part: f64) {
        let first = self.read_on().await;
        let keep = first + ((self.read + 1 - first) as f64 * part) as u64;
        let stream = self.stream().await;
        eventually("a purge", async || stream.purge().sequence(keep).await).await;
        self.begins(keep);
    }

    /// Deletes the stream and makes it anew, while nobody publishes.
    async fn recreate(&mut self, pen: &Mutex<StreamPen>) {
        let mut pen = pen.lock().await;
        self.close_era().await;
        let context = self.nats.jetstream().await;
        eventually("the stream to go", async || context.delete_stream(STREAM).await.map(drop)).await;
        self.nats.create_stream(STREAM, &["numbers.*"]).await;
        self.published.eras += 1;
        (self.read, pen.era) = (0, pen.era + 1);
        // Who finds it when some of it is trimmed already is told that it is another one, and nothing of what was before that.
        let stream = self.stream().await;
        eventually("both replicas to read the new stream", async || {
            let consumers =
                stream.consumers().try_collect::<Vec<_>>().await.map_err(|error| error.to_string())?;
            match consumers.iter().filter(|consumer| consumer.num_waiting > 0).count() {
                READERS.. => Ok(()),
                waiting => Err(format!("{waiting} wait for what comes")),
            }
        })
        .await;
    }

    /// Reads what the stream holds up to now, and where it begins.
    async fn close_era(&mut self) {
        let first = self.read_on().await;
        self.begins(first);
    }

    /// The stream begins here, or did: a server that is killed soon after a purge may have some of that again.
    fn begins(&mut self, first: u64) {
        let low = self.published.lows.entry((self.published.eras - 1, 0)).or_default();
        *low = (first, 0).max(*low);
    }

    /// Notes what has been added since this was asked last. Returns where the stream begins.
    async fn read_on(&mut self) -> u64 {
        let stream = self.stream().await;
        let state = eventually("its state", async || stream.get_info().await).await.state;
        let era = self.published.eras - 1;
        if self.read < state.last_sequence && state.messages > 0 {
            let config = jetstream::consumer::pull::OrderedConfig {
                deliver_policy: jetstream::consumer::DeliverPolicy::ByStartSequence {
                    start_sequence: self.read + 1,
                },
                ..Default::default()
            };
            let consumer = stream.create_consumer(config).await.expect("a consumer");
            let mut messages = consumer.messages().await.expect("messages");
            while self.read < state.last_sequence {
                let next = within("a message of the stream", messages.next()).await;
                let message = next.expect("one more").expect("a message");
                self.read = message.info().expect("its place").stream_sequence;
                let number = String::from_utf8_lossy(&message.payload).parse().expect("a number");
                let place = Place { era, partition: 0, offset: (self.read, 0) };
                assert_eq!(self.published.places.insert(number, place), None, "{number} is stored twice");
            }
        }
        state.first_sequence
    }
}

impl Pen for StreamPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let mut acks = Vec::new();
        for number in numbers {
            let subject = format!("numbers.{}", number % PARTS);
            if let Ok(ack) = self.context.publish(subject, number.to_string().into()).await {
                acks.push((number, ack));
            }
        }
        let until = Instant::now() + PATIENCE;
        for (number, ack) in acks {
            // Of one that was lost with a link there is none.
            if let Ok(Ok(ack)) = timeout_at(until, ack.into_future()).await {
                self.stored.insert(number, (self.era, ack.sequence));
            }
        }
    }
}

const STREAM: &str = "NUMBERS";
/// So many subjects.
const PARTS: u64 = 3;
/// Each of two replicas reads the whole stream, and a part of it.
const READERS: usize = 4;
/// How long acknowledgements are waited for that may never come.
const PATIENCE: Duration = Duration::from_secs(4);
