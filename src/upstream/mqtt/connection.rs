//! One connection to the broker from its beginning to its end: enters, keeps its subscriptions equal to its table, takes
//! messages, and tries the link.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::result_code::MqttError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::packets::{In, Packets};
use super::subscriptions::Subscriptions;
use crate::config::Mqtt;
use crate::upstream::Broken;
use crate::upstream::socket::{self, Socket};
use crate::upstream::turns::Turns;

/// A connection that has been entered.
pub(super) struct Connection {
    config: Mqtt,
    socket: Box<dyn Socket>,
    packets: Packets,
    read: BytesMut,
    /// Whether subscriptions have ids, so that filters may overlap.
    pub ids: bool,
    /// How often it is pinged.
    every: Duration,
}

impl Connection {
    /// Connects and enters; of several of one upstream this is the `nth`. No event has more bytes than `max_event`.
    pub async fn enter(config: &Mqtt, nth: usize, max_event: usize) -> Result<Self, Broken> {
        let address = config.address();
        match timeout(config.timeout, Self::try_enter(config, nth, max_event)).await {
            Ok(entered) => entered,
            Err(_) => {
                Err(Broken(format!("connecting to MQTT at {address} took longer than {:?}", config.timeout)))
            }
        }
    }

    async fn try_enter(config: &Mqtt, nth: usize, max_event: usize) -> Result<Self, Broken> {
        let address = config.address();
        let failed =
            |error: io::Error| Broken::new(&format!("connecting to MQTT at {address} failed"), error);
        let user_timeout = config.keep_alive + config.timeout;
        let socket = socket::connect(&config.host, config.port, user_timeout).await.map_err(failed)?;
        let mut socket: Box<dyn Socket> = if config.secure {
            let tls = config.tls.clone().unwrap_or_default().config().map_err(Broken)?;
            socket::secure(&TlsConnector::from(Arc::new(tls)), &config.host, socket).await.map_err(failed)?
        } else {
            Box::new(socket)
        };
        let mut packets = Packets::new(config.version, max_event);
        packets.connect(config, &client_id(config, nth)).map_err(|error| strange(&address, error))?;
        socket.write_all(&std::mem::take(&mut packets.out)).await.map_err(failed)?;
        socket.flush().await.map_err(failed)?;
        let (mut read, mut said) = (BytesMut::with_capacity(BUFFER), None);
        while said.is_none() {
            if socket.read_buf(&mut read).await.map_err(failed)? == 0 {
                return Err(failed(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed the link",
                )));
            }
            // Nothing follows before we ask for something.
            packets.take(&read.split(), |told| said = said.take().or(Some(told)));
        }
        match said {
            Some(In::Welcome { ids, keep_alive }) => {
                let every = keep_alive.map_or(config.keep_alive, |told| told.min(config.keep_alive));
                Ok(Self { config: config.clone(), socket, packets, read, ids, every })
            }
            Some(In::Away(why)) => Err(Broken(format!("MQTT at {address} turned ssegate away: {why}"))),
            Some(In::End(why)) => Err(Broken(format!("connecting to MQTT at {address} failed: {why}"))),
            _ => Err(Broken(format!(
                "connecting to MQTT at {address} failed: it did not answer what was asked"
            ))),
        }
    }

    /// Runs until the link ends; says through `settled` when all that can be had is.
    pub async fn run(self, subscriptions: &Subscriptions, settled: impl Fn()) -> Broken {
        let Self { config, socket, mut packets, mut read, ids, every } = self;
        let address = config.address();
        let lost = |error: io::Error| Broken::new(&format!("the link to MQTT at {address} was lost"), error);
        let (mut reader, mut writer) = tokio::io::split(socket);
        let mut out = BytesMut::new();
        let mut pulse = Pulse::new(every, config.timeout);
        let (mut look, mut again, mut turns) = (true, None, Turns::default());
        loop {
            if std::mem::take(&mut look) {
                again = match subscriptions.ask(&mut packets, ids) {
                    Ok(again) => again,
                    Err(error) => return strange(&address, error),
                };
                if subscriptions.is_settled() {
                    settled();
                }
            }
            out.extend_from_slice(&std::mem::take(&mut packets.out));
            tokio::select! {
                // What has come in counts first, for a while.
                biased;
                // Where answers are not taken, nothing is to be answered.
                read_now = reader.read_buf(&mut read), if out.len() < BACKLOG && !turns.are_over() => {
                    turns.count();
                    match read_now {
                        Ok(0) => return Broken(format!("MQTT at {address} closed the link")),
                        Ok(_) => {}
                        Err(error) => return lost(error),
                    }
                    pulse.beats();
                    let mut ended = None;
                    packets.take(&read.split(), |told| match told {
                        In::Message(message) => subscriptions.take(&message),
                        In::Subscribed(number, outcome) => subscriptions.subscribed(number, outcome),
                        In::Unsubscribed(number) => subscriptions.unsubscribed(number),
                        In::Pong => pulse.answered().into_iter().for_each(|sent| subscriptions.alive_at(sent)),
                        In::End(why) => ended = Some(why),
                        In::Welcome { .. } | In::Away(_) => {}
                    });
                    if let Some(why) = ended {
                        return Broken(format!("the link to MQTT at {address} was lost: {why}"));
                    }
                    if read.capacity() < BUFFER / 2 {
                        read.reserve(BUFFER);
                    }
                }
                written = writer.write_buf(&mut out), if !out.is_empty() => {
                    let flushed = match written {
                        Ok(_) => writer.flush().await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = flushed {
                        return lost(error);
                    }
                }
                () = subscriptions.changed() => look = true,
                () = until(again) => look = true,
                () = sleep_until(pulse.due) => {
                    if let Err(broken) = pulse.fire(&mut packets, &address) {
                        return broken;
                    }
                }
                // All others have had their turn.
                () = std::future::ready(()), if turns.are_over() => turns.begin(),
            }
        }
    }
}

/// Pings at a steady pace, and notices where none is answered.
struct Pulse {
    every: Duration,
    timeout: Duration,
    /// When to ping, or to give up.
    due: Instant,
    /// When the ping was sent that has not been answered.
    sent: Option<SystemTime>,
    /// When something came in last.
    beat: Instant,
}

impl Pulse {
    fn new(every: Duration, timeout: Duration) -> Self {
        let now = Instant::now();
        Self { every, timeout, due: now + every, sent: None, beat: now }
    }

    fn beats(&mut self) {
        self.beat = Instant::now();
    }

    /// When the ping was sent that is answered now.
    fn answered(&mut self) -> Option<SystemTime> {
        self.due = Instant::now() + self.every;
        self.sent.take()
    }

    fn fire(&mut self, packets: &mut Packets, address: &str) -> Result<(), Broken> {
        let timeout = self.timeout;
        if self.sent.is_none() {
            packets.ping().map_err(|error| strange(address, error))?;
            (self.sent, self.due) = (Some(SystemTime::now()), Instant::now() + timeout);
        } else if self.beat.elapsed() >= timeout {
            return Err(Broken(format!("MQTT at {address} did not answer a ping within {timeout:?}")));
        } else {
            // What is slow is not gone.
            self.due = self.beat + timeout;
        }
        Ok(())
    }
}

/// One of our own for each connection, unless it is given: brokers let each be there once.
fn client_id(config: &Mqtt, nth: usize) -> String {
    match (&config.client_id, nth) {
        (Some(id), 0) => id.clone(),
        (Some(id), nth) => format!("{id}-{nth}"),
        // Within the 23 letters and digits that every broker takes (MQTT 5.0 section 3.1.3.1).
        (None, _) => format!("ssegate{:016x}", rand::random::<u64>()),
    }
}

fn strange(address: &str, error: MqttError) -> Broken {
    Broken(format!("MQTT at {address} cannot be spoken to: {error:?}"))
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Bytes that are read at a time.
const BUFFER: usize = 64 << 10;
/// Bytes that may wait to be sent before nothing more is read.
const BACKLOG: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MqttVersion, Qos};
    use crate::hub::{Bounds, FeedKey, Hub, Memory, Policy, Source};
    use crate::metrics::Metrics;
    use crate::shape::Shape;
    use crate::upstream::link::Link;
    use crate::upstream::socket::testing::Firehose;

    #[tokio::test]
    async fn what_is_asked_for_is_written_while_there_is_always_something_to_read() {
        let hub = Hub::new([Arc::from("u")], Memory::new(usize::MAX));
        let link = Link::new("u".into(), hub.wanted("u").unwrap(), Metrics::new().upstream("u"));
        let source = Source::Filter("b".into(), Qos::AtMostOnce);
        let bounds = Bounds { events: 1, bytes: 1, age: Duration::ZERO, buffer: 0 };
        let policy = Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO };
        let feed = hub.hold(FeedKey { upstream: "u".into(), source, shape: Shape::default() }, &policy);
        let subscriptions = Subscriptions::new(&link, Duration::ZERO);
        subscriptions.serve(&"b".into(), Qos::AtMostOnce, &[feed]);
        let config = Mqtt {
            secure: false,
            host: "h".into(),
            port: 1,
            user: None,
            password: None,
            client_id: None,
            version: MqttVersion::V3,
            keep_alive: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            tls: None,
        };
        let (firehose, heard) = Firehose::new([&[0x30, 103, 0, 1, b'a'][..], &[b'x'; 100]].concat(), 200);
        let connection = Connection {
            config,
            socket: Box::new(firehose),
            packets: Packets::entered(MqttVersion::V3, 1_000),
            read: BytesMut::with_capacity(BUFFER),
            ids: false,
            every: Duration::from_secs(60),
        };
        let broken = connection.run(&subscriptions, || {}).await;
        assert_eq!(broken.to_string(), "MQTT at h:1 closed the link");
        assert_eq!(heard.lock()[..1], [0x82], "it subscribes");
    }
}
