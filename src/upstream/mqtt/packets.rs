//! MQTT's packets, of both versions alike: what is sent, and what comes in as far as it means something here.

use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{
    GenericPacketTrait as _, Packet, Property, Qos as WireQos, SubEntry, SubOpts, SubscriptionIdentifier,
    v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use mqtt_protocol_core::mqtt::{ArcPayload, Connection, Version, role};

use super::cut::Cutter;
use crate::config::{Mqtt, MqttVersion, Qos};
use crate::shape::Record;

/// The state of one connection, without I/O: what is to be sent gathers in `out`.
pub(super) struct Packets {
    connection: Connection<role::Client>,
    version: MqttVersion,
    cutter: Cutter,
    /// Bytes of the largest payload that can be sent on.
    max_event: usize,
    /// To be sent.
    pub out: Vec<u8>,
}

/// What came in.
pub(super) enum In {
    /// We are let in.
    Welcome {
        /// Whether subscriptions have ids.
        ids: bool,
        /// How often we are to be heard of, if the broker says so.
        keep_alive: Option<Duration>,
    },
    /// We are not, in words.
    Away(String),
    /// The subscription that was asked for by this packet stands, or is refused.
    Subscribed(u16, Result<(), String>),
    /// What was left by this packet is left.
    Unsubscribed(u16),
    Message(Message),
    Pong,
    /// The link is to end, in words.
    End(String),
}

/// A message on a topic.
pub(super) struct Message {
    topic: String,
    payload: ArcPayload,
    /// Whether it was there before the subscription.
    pub retained: bool,
    /// The ids of the subscriptions that it comes by, where they have any.
    pub ids: Vec<u32>,
    properties: Vec<(String, String)>,
}

impl Packets {
    /// Of payloads with more bytes than `max_event` some more are kept, and not all.
    pub fn new(version: MqttVersion, max_event: usize) -> Self {
        let wire = match version {
            MqttVersion::V5 => Version::V5_0,
            MqttVersion::V3 => Version::V3_1_1,
        };
        let mut connection = Connection::<role::Client>::new(wire);
        connection.set_auto_pub_response(true);
        let cutter = Cutter::new(max_event.saturating_add(HEAD));
        Self { connection, version, cutter, max_event, out: Vec::new() }
    }

    /// Enters, with a session that ends with the link.
    pub fn connect(&mut self, config: &Mqtt, client_id: &str) -> Result<(), MqttError> {
        // The broker gives up on a link that is silent for half as long again.
        let seconds = u16::try_from(config.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX);
        let packet: Packet = match self.version {
            MqttVersion::V5 => {
                let mut builder =
                    v5_0::Connect::builder().client_id(client_id)?.clean_start(true).keep_alive(seconds);
                if let Some(user) = &config.user {
                    builder = builder.user_name(user.as_str())?;
                }
                if let Some(password) = &config.password {
                    builder = builder.password(password.expose())?;
                }
                builder.build()?.into()
            }
            MqttVersion::V3 => {
                let mut builder =
                    v3_1_1::Connect::builder().client_id(client_id)?.clean_session(true).keep_alive(seconds);
                if let Some(user) = &config.user {
                    builder = builder.user_name(user.as_str())?;
                }
                if let Some(password) = &config.password {
                    builder = builder.password(password.expose())?;
                }
                builder.build()?.into()
            }
        };
        self.send(packet)
    }

    /// Asks for a subscription, which has this id where subscriptions have any. Returns the number of the packet.
    pub fn subscribe(&mut self, topic: &str, qos: Qos, id: Option<u32>) -> Result<u16, MqttError> {
        let qos = match qos {
            Qos::AtMostOnce => WireQos::AtMostOnce,
            Qos::AtLeastOnce => WireQos::AtLeastOnce,
        };
        let entries = vec![SubEntry::new(topic, SubOpts::new().set_qos(qos))?];
        let number = self.connection.acquire_packet_id()?;
        let packet: Packet = match self.version {
            MqttVersion::V5 => {
                let mut builder = v5_0::Subscribe::builder().packet_id(number).entries(entries);
                if let Some(id) = id {
                    let id = Property::SubscriptionIdentifier(SubscriptionIdentifier::new(id)?);
                    builder = builder.props(vec![id]);
                }
                builder.build()?.into()
            }
            MqttVersion::V3 => {
                v3_1_1::Subscribe::builder().packet_id(number).entries(entries).build()?.into()
            }
        };
        self.send(packet)?;
        Ok(number)
    }

    /// Ends a subscription. Returns the number of the packet.
    pub fn unsubscribe(&mut self, topic: &str) -> Result<u16, MqttError> {
        let number = self.connection.acquire_packet_id()?;
        let packet: Packet = match self.version {
            MqttVersion::V5 => {
                v5_0::Unsubscribe::builder().packet_id(number).entries([topic])?.build()?.into()
            }
            MqttVersion::V3 => {
                v3_1_1::Unsubscribe::builder().packet_id(number).entries([topic])?.build()?.into()
            }
        };
        self.send(packet)?;
        Ok(number)
    }

    /// Tries the link.
    pub fn ping(&mut self) -> Result<(), MqttError> {
        let packet: Packet = match self.version {
            MqttVersion::V5 => v5_0::Pingreq::builder().build()?.into(),
            MqttVersion::V3 => v3_1_1::Pingreq::builder().build()?.into(),
        };
        self.send(packet)
    }

    fn send(&mut self, packet: Packet) -> Result<(), MqttError> {
        let events = self.connection.send(packet);
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.out.extend(packet.to_continuous_buffer()),
                Event::NotifyError(error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes bytes that were read; tells what they are, in order, up to the end if there is one.
    pub fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(In)) {
        let Self { connection, cutter, max_event, out, .. } = self;
        let mut ended = false;
        let cut = cutter.take(bytes, |piece, is_cut| {
            let mut cursor = Cursor::new(piece);
            while !ended && (cursor.position() as usize) < piece.len() {
                for event in connection.recv(&mut cursor) {
                    if ended {
                        return;
                    }
                    let told = match event {
                        Event::NotifyPacketReceived(packet) => read(packet),
                        Event::RequestSendPacket { packet, .. } => {
                            out.extend(packet.to_continuous_buffer());
                            None
                        }
                        Event::NotifyError(error) => {
                            Some(In::End(format!("what came in is not MQTT: {error:?}")))
                        }
                        Event::RequestClose => Some(In::End("the broker's protocol is broken".to_owned())),
                        // Timers are ours.
                        _ => None,
                    };
                    let told = match told {
                        // What was cut off was no payload, or not that alone.
                        Some(In::Message(message)) if is_cut && message.payload.len() <= *max_event => {
                            Some(In::End(HEADY.to_owned()))
                        }
                        Some(In::End(_)) if is_cut => Some(In::End(HEADY.to_owned())),
                        told => told,
                    };
                    ended = matches!(told, Some(In::End(_)));
                    if let Some(told) = told {
                        tell(told);
                    }
                }
            }
        });
        if let Err(too_large) = cut
            && !ended
        {
            tell(In::End(too_large.to_string()));
        }
    }
}

fn read(packet: Packet) -> Option<In> {
    Some(match packet {
        Packet::V5_0Connack(connack) => match connack.reason_code() {
            code if (code as u8) < FAILURE => {
                let no_ids = |property: &Property| matches!(property, Property::SubscriptionIdentifierAvailable(is) if is.val() == 0);
                let keep_alive = connack.props().iter().find_map(|property| match property {
                    Property::ServerKeepAlive(told) => Some(Duration::from_secs(told.val().max(1).into())),
                    _ => None,
                });
                In::Welcome { ids: !connack.props().iter().any(no_ids), keep_alive }
            }
            code => In::Away(format!("{code:?}")),
        },
        Packet::V3_1_1Connack(connack) => match connack.return_code() {
            code if code as u8 == 0 => In::Welcome { ids: false, keep_alive: None },
            code => In::Away(format!("{code:?}")),
        },
        Packet::V5_0Suback(suback) => {
            let refused = suback.reason_codes().into_iter().find(|code| *code as u8 >= FAILURE);
            In::Subscribed(suback.packet_id(), refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        Packet::V3_1_1Suback(suback) => {
            let refused = suback.return_codes().into_iter().find(|code| *code as u8 >= FAILURE);
            In::Subscribed(suback.packet_id(), refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        Packet::V5_0Unsuback(unsuback) => In::Unsubscribed(unsuback.packet_id()),
        Packet::V3_1_1Unsuback(unsuback) => In::Unsubscribed(unsuback.packet_id()),
        Packet::V5_0Publish(publish) => {
            let (mut ids, mut properties) = (Vec::new(), Vec::new());
            for property in publish.props() {
                match property {
                    Property::SubscriptionIdentifier(id) => ids.push(id.val()),
                    Property::UserProperty(own) => {
                        properties.push((own.key().to_owned(), own.val().to_owned()))
                    }
                    _ => {}
                }
            }
            let (topic, payload) = (publish.topic_name().to_owned(), publish.payload().clone());
            In::Message(Message { topic, payload, retained: publish.retain(), ids, properties })
        }
        Packet::V3_1_1Publish(publish) => {
            let (topic, payload) = (publish.topic_name().to_owned(), publish.payload().clone());
            let (ids, properties) = (Vec::new(), Vec::new());
            In::Message(Message { topic, payload, retained: publish.retain(), ids, properties })
        }
        Packet::V5_0Disconnect(disconnect) => {
            let why = disconnect.reason_code().map_or_else(String::new, |code| format!(": {code:?}"));
            In::End(format!("the broker ended the link{why}"))
        }
        Packet::V5_0Pingresp(_) | Packet::V3_1_1Pingresp(_) => In::Pong,
        _ => return None,
    })
}

/// Codes from here on say no.
const FAILURE: u8 = 0x80;
/// Bytes of topic and properties that have room beside the largest payload.
const HEAD: usize = 128 << 10;
const HEADY: &str = "the broker sent a message whose topic and properties have more than 128 KiB";

impl Message {
    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl Record for &Message {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.payload.as_slice())
    }

    fn name(&self) -> &str {
        &self.topic
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let last = self.properties.iter().rev().find(|(own, _)| own == name);
        last.map(|(_, value)| value.as_bytes())
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.properties.iter().for_each(|(name, value)| each(name, Some(value.as_bytes())));
    }
}

#[cfg(test)]
impl Packets {
    /// Those of a connection that has been entered.
    pub(super) fn entered(version: MqttVersion, max_event: usize) -> Self {
        let mut packets = Self::new(version, max_event);
        let (connect, welcome): (Packet, &[u8]) = match version {
            MqttVersion::V5 => (
                v5_0::Connect::builder().client_id("c").unwrap().build().unwrap().into(),
                &[0x20, 3, 0, 0, 0],
            ),
            MqttVersion::V3 => {
                (v3_1_1::Connect::builder().client_id("c").unwrap().build().unwrap().into(), &[0x20, 2, 0, 0])
            }
        };
        packets.send(connect).unwrap();
        packets.out.clear();
        let mut is_in = false;
        packets.take(welcome, |told| is_in = matches!(told, In::Welcome { .. }));
        assert!(is_in);
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: [MqttVersion; 2] = [MqttVersion::V5, MqttVersion::V3];
    const MOST: usize = 100;

    /// A message on `a`, to be acknowledged as number 7, with properties where there are any.
    fn publish(version: MqttVersion, properties: &[u8], payload: usize) -> Vec<u8> {
        let mut body = vec![0, 1, b'a', 0, 7];
        if version == MqttVersion::V5 {
            length(properties.len(), &mut body);
            body.extend(properties);
        }
        body.extend(std::iter::repeat_n(b'x', payload));
        let mut packet = vec![0x32];
        length(body.len(), &mut packet);
        packet.extend(body);
        packet
    }

    fn length(mut length: usize, out: &mut Vec<u8>) {
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
    }

    /// The sizes of the payloads of messages, and in which words the link ends.
    fn taken(packets: &mut Packets, bytes: &[u8]) -> Vec<Result<usize, String>> {
        let mut taken = Vec::new();
        // As they come.
        for piece in bytes.chunks(64 << 10) {
            packets.take(piece, |told| match told {
                In::Message(message) => taken.push(Ok(message.payload.len())),
                In::End(why) => taken.push(Err(why)),
                _ => panic!("nothing else was said"),
            });
        }
        taken
    }

    #[test]
    fn of_a_message_that_is_too_large_as_much_is_kept_as_tells_so() {
        for version in VERSIONS {
            let mut packets = Packets::entered(version, MOST);
            let sizes = [MOST, 1 << 20, 5, MOST + 1];
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| publish(version, &[], *size)).collect();
            let mut left = taken(&mut packets, &bytes);
            let large = left.remove(1).unwrap();
            assert!(large > MOST && large <= MOST + HEAD, "{large}");
            assert_eq!(left, [Ok(MOST), Ok(5), Ok(MOST + 1)]);
            let acknowledged = packets.out.chunks(4).filter(|packet| packet[..] == [0x40, 2, 0, 7]).count();
            assert_eq!(acknowledged, 4, "{:?}", packets.out);
        }
    }

    #[test]
    fn a_message_of_which_no_payload_is_left_ends_the_link() {
        let mut property = vec![38];
        for _ in 0..2 {
            property.extend(u16::MAX.to_be_bytes());
            property.extend([b'p'; u16::MAX as usize]);
        }
        for count in [1, 2] {
            let mut packets = Packets::entered(MqttVersion::V5, MOST);
            let bytes = publish(MqttVersion::V5, &property.repeat(count), 1_000);
            assert_eq!(taken(&mut packets, &bytes), [Err(HEADY.to_owned())]);
        }
    }
}
