//! What one connection is to carry, and how far it has got: a subscription for each topic filter, and the feeds that it
//! serves. It alone confirms and loses feeds.
//!
//! What a broker has retained it gives anew with each subscription. So a feed that joins has its filter subscribed to
//! again, and what is retained is for those alone for whom that was done: by its id, where subscriptions have any.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mqtt_protocol_core::mqtt::result_code::MqttError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::filter;
use super::packets::{Message, Packets};
use crate::config::Qos;
use crate::hub::Feed;
use crate::upstream::link::Link;

/// The table of one connection.
pub(super) struct Subscriptions {
    link: Arc<Link>,
    /// How much later than a ping's answer messages may come in that are handed over at least once.
    slack: Duration,
    table: Mutex<Table>,
    changed: Notify,
}

struct Table {
    entries: HashMap<Arc<str>, Entry>,
    /// No longer assigned.
    leaving: HashSet<Arc<str>>,
    /// What was asked for by which packet, and not answered yet.
    asked: HashMap<u16, Asked>,
    /// Which filter has which id.
    ids: HashMap<u32, Arc<str>>,
    next: u32,
    /// When the connection was last known to be good: what was published before it has come in.
    alive: SystemTime,
}

enum Asked {
    /// A filter, under this id.
    Enter(Arc<str>, u32),
    Leave,
}

struct Entry {
    qos: Qos,
    members: Vec<Member>,
    /// That of the newest subscription.
    id: u32,
    /// After a refusal it is not asked for before this time.
    again: Option<Instant>,
}

struct Member {
    feed: Arc<Feed>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// To be subscribed for.
    New,
    /// That was asked for under this id.
    Asked(u32),
    /// It stands, and so does what is retained come by this id.
    Stands(u32),
}

impl Subscriptions {
    pub fn new(link: &Arc<Link>, slack: Duration) -> Self {
        let table = Table {
            entries: HashMap::new(),
            leaving: HashSet::new(),
            asked: HashMap::new(),
            ids: HashMap::new(),
            next: 1,
            alive: SystemTime::now(),
        };
        Self { link: Arc::clone(link), slack, table: Mutex::new(table), changed: Notify::new() }
    }

    /// The connection was good at this time.
    pub fn alive_at(&self, time: SystemTime) {
        self.table.lock().alive = time;
    }

    /// Ends when there may be something to ask for.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a filter is here, or could be: beside those that are, with which it must not overlap unless `ids` tell
    /// what comes by which.
    pub fn takes(&self, topic: &str, qos: Qos, ids: bool) -> bool {
        let table = self.table.lock();
        match table.entries.get(topic) {
            Some(entry) => entry.qos == qos,
            None => ids || !table.entries.keys().any(|other| filter::overlap(other, topic)),
        }
    }

    /// Whether it is here.
    pub fn has(&self, topic: &str, qos: Qos) -> bool {
        self.table.lock().entries.get(topic).is_some_and(|entry| entry.qos == qos)
    }

    /// Lets go of filters that are not to be here any more.
    pub fn keep(&self, wanted: impl Fn(&Arc<str>, Qos) -> bool) {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let left = table.entries.extract_if(|topic, entry| !wanted(topic, entry.qos));
        let left: Vec<_> = left.map(|(topic, _)| topic).collect();
        table.ids.retain(|_, topic| !left.contains(topic));
        let news = !left.is_empty();
        table.leaving.extend(left);
        drop(guard);
        if news {
            self.changed.notify_one();
        }
    }

    /// Serves these feeds of a filter.
    pub fn serve(&self, topic: &Arc<str>, qos: Qos, feeds: &[Arc<Feed>]) {
        let mut table = self.table.lock();
        let entry = table.entries.entry(Arc::clone(topic)).or_insert_with(|| Entry {
            qos,
            members: Vec::new(),
            id: 0,
            again: None,
        });
        entry.members.retain(|member| feeds.iter().any(|feed| Arc::ptr_eq(feed, &member.feed)));
        let mut news = false;
        for feed in feeds {
            if !entry.members.iter().any(|member| Arc::ptr_eq(feed, &member.feed)) {
                entry.members.push(Member { feed: Arc::clone(feed), state: State::New });
                news = true;
            }
        }
        drop(table);
        if news {
            self.changed.notify_one();
        }
    }

    /// Asks for what is to be asked for. Returns when to look again for what was refused.
    pub fn ask(&self, packets: &mut Packets, ids: bool) -> Result<Option<Instant>, MqttError> {
        let (mut guard, now) = (self.table.lock(), Instant::now());
        let Table { entries, leaving, asked, ids: known, next, .. } = &mut *guard;
        leaving.retain(|topic| !entries.contains_key(topic));
        // What there is no room for waits for the next answer.
        for topic in leaving.extract_if(|_| true).take(AT_ONCE.saturating_sub(asked.len())) {
            asked.insert(packets.unsubscribe(&topic)?, Asked::Leave);
        }
        let mut again = None::<Instant>;
        for (topic, entry) in entries.iter_mut() {
            if !entry.members.iter().any(|member| member.state == State::New) {
                continue;
            }
            if let Some(at) = entry.again.filter(|at| *at > now) {
                again = Some(again.map_or(at, |first| first.min(at)));
                continue;
            }
            if asked.len() >= AT_ONCE {
                break;
            }
            let id = *next;
            *next = if id == LAST_ID { 1 } else { id + 1 };
            let number = packets.subscribe(topic, entry.qos, ids.then_some(id))?;
            asked.insert(number, Asked::Enter(Arc::clone(topic), id));
            known.insert(id, Arc::clone(topic));
            entry.id = id;
            for member in entry.members.iter_mut().filter(|member| member.state == State::New) {
                member.state = State::Asked(id);
            }
        }
        Ok(again)
    }

    /// Whether all that can be had is.
    pub fn is_settled(&self) -> bool {
        let table = self.table.lock();
        let settled = |entry: &Entry| {
            entry.again.is_some()
                || entry.members.iter().all(|member| matches!(member.state, State::Stands(_)))
        };
        table.entries.values().all(settled)
    }

    /// The answer to what was asked for by a packet.
    pub fn subscribed(&self, number: u16, outcome: Result<(), String>) {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let Some(Asked::Enter(topic, id)) = table.asked.remove(&number) else { return };
        // There is room for more.
        self.changed.notify_one();
        let Some(entry) = table.entries.get_mut(&topic) else { return };
        match outcome {
            Ok(()) => {
                entry.again = None;
                entry.stand(id, &self.link);
                // What came by those before comes by this one now.
                let newest = entry.id;
                table.ids.retain(|known, of| *of != topic || *known == newest || *known == id);
            }
            Err(why) => {
                table.ids.remove(&id);
                entry.again = Some(Instant::now() + REFUSED);
                for member in &mut entry.members {
                    match member.state {
                        State::Asked(own) if own == id => member.state = State::New,
                        // What proved that it stood came by the one before.
                        State::Stands(own) if own == id => {
                            member.state = State::New;
                            member.feed.lose(table.alive);
                        }
                        _ => {}
                    }
                }
                drop(guard);
                self.link.trouble(&format!("subscribing to {topic} was refused: {why}"));
            }
        }
    }

    /// What was left by a packet is left.
    pub fn unsubscribed(&self, number: u16) {
        self.table.lock().asked.remove(&number);
        self.changed.notify_one();
    }

    /// Takes a message.
    pub fn take(&self, message: &Message) {
        let mut guard = self.table.lock();
        let Table { entries, ids, .. } = &mut *guard;
        if message.ids.is_empty() {
            // Of filters that do not overlap one matches at most.
            let found = entries.iter_mut().find(|(topic, _)| filter::matches(topic, message.topic()));
            if let Some((_, entry)) = found {
                let id = entry.id;
                entry.take(message, id, &self.link);
            }
            return;
        }
        for id in &message.ids {
            if let Some(entry) = ids.get(id).and_then(|topic| entries.get_mut(topic)) {
                entry.take(message, *id, &self.link);
            }
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let table = self.table.get_mut();
        for entry in table.entries.values() {
            let slack = if entry.qos == Qos::AtLeastOnce { self.slack } else { Duration::ZERO };
            let since = table.alive.checked_sub(slack).unwrap_or(SystemTime::UNIX_EPOCH);
            entry.members.iter().for_each(|member| member.feed.lose(since));
        }
    }
}

impl Entry {
    /// The subscription of this id stands.
    fn stand(&mut self, id: u32, link: &Link) {
        for member in self.members.iter_mut().filter(|member| member.state == State::Asked(id)) {
            member.state = State::Stands(id);
            link.confirm(&member.feed);
        }
    }

    /// A message proves that the subscription by which it came stands. What is retained is for those for whom it was made.
    fn take(&mut self, message: &Message, id: u32, link: &Link) {
        self.stand(id, link);
        for member in &self.members {
            let is_for = match member.state {
                State::Stands(own) => !message.retained || own == id,
                State::New | State::Asked(_) => false,
            };
            if is_for {
                link.deliver(&member.feed, [(None, message)]);
            }
        }
    }
}

/// The most filters that are asked for, or left, at a time: brokers bound what waits for them to answer.
const AT_ONCE: usize = 512;
/// How long a filter that the broker refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);
/// The largest id of a subscription (MQTT 5.0 section 3.8.2.1.2).
const LAST_ID: u32 = 268_435_455;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MqttVersion;
    use crate::hub::{Hub, Memory};
    use crate::metrics::Metrics;

    fn asked(subscriptions: &Subscriptions) -> Vec<u16> {
        subscriptions.table.lock().asked.keys().copied().collect()
    }

    #[test]
    fn filters_are_left_a_bounded_number_at_a_time() {
        let hub = Hub::new([Arc::from("u")], Memory::new(usize::MAX));
        let link = Link::new("u".into(), hub.wanted("u").unwrap(), Metrics::new().upstream("u"));
        let subscriptions = Subscriptions::new(&link, Duration::ZERO);
        let topics = 2 * AT_ONCE + 1;
        for topic in 0..topics {
            subscriptions.serve(&topic.to_string().into(), Qos::AtMostOnce, &[]);
        }
        subscriptions.keep(|_, _| false);
        // One is wanted again before it was left.
        subscriptions.serve(&"7".into(), Qos::AtMostOnce, &[]);
        let (mut packets, mut left) = (Packets::entered(MqttVersion::V3, 1), 0);
        loop {
            subscriptions.ask(&mut packets, false).unwrap();
            let asked = asked(&subscriptions);
            if asked.is_empty() {
                break;
            }
            assert!(asked.len() <= AT_ONCE);
            left += asked.len();
            asked.into_iter().for_each(|number| subscriptions.unsubscribed(number));
        }
        assert_eq!(left, topics - 1);
    }
}
