//! A Redis Cluster. Channels and patterns are broadcast to every node, so one carries them all; a shard channel is
//! carried by the master that owns its slot, on the same connection, and a stream read there. A command cannot wait for
//! streams of several slots, so that slots have connections of their own for them, up to a number for each node; what
//! goes beyond that is read in turns on one more.
//!
//! This decides what is carried where ([`places`]), and is the only place that does, so that a feed which moves is lost
//! at its old place before it can be confirmed at its new one, and a stream is read in one place at a time. What it
//! decides on: what nodes say of the cluster ([`slots`](super::slots)), one of them in turn as often as links are tried
//! and the one that a slot has just left, and MOVED.

mod member;
mod places;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use redis::{FromRedisValue as _, cmd};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use self::member::{Member, Place, Purpose, Table};
use super::Redis;
use super::connection::Dialer;
use super::slots::{Map, Node, View};
use super::streams::{self, Carried, Servers, Way};
use super::subscriber::News;
use super::subscriptions::Subscriptions;
use crate::config::Endpoint;
use crate::hub::{Feeds, Source};
use crate::upstream::Broken;
use crate::upstream::link::Link;
use crate::upstream::runner::Backoff;

/// How long MOVEDs are gathered, and the pace at which nodes that point at each other are believed.
const GATHER: Duration = Duration::from_millis(20);

/// How often the cluster is looked at while something is missing, if links are tried less often.
const IMPATIENT: Duration = Duration::from_secs(1);

/// One session: from the first node that answers until none does.
pub(super) async fn session(redis: &Redis, dialer: &Dialer, seeds: &[Endpoint], link: &Arc<Link>) -> Broken {
    let mut cluster = Cluster::new(redis, dialer, seeds, link);
    let broken = cluster.run().await;
    // Before anything is lost, so that nothing is confirmed after it.
    cluster.tasks.shutdown().await;
    cluster.members.values().for_each(|member| member.table.lose_all());
    broken
}

struct Cluster<'c> {
    redis: &'c Redis,
    dialer: &'c Dialer,
    seeds: &'c [Endpoint],
    link: &'c Arc<Link>,
    /// Shared with those who ask about streams.
    map: Arc<Mutex<Map>>,
    /// When the question was asked whose answer last confirmed the places.
    checked: SystemTime,
    /// The node that carries channels and patterns.
    broadcaster: Option<Node>,
    members: HashMap<Place, Member>,
    /// The connections. Each ends with its reason.
    tasks: JoinSet<Broken>,
    /// How patient to be with each node that was needed, and until when to leave it alone.
    patience: HashMap<Node, (Backoff, Instant)>,
    news: mpsc::UnboundedSender<(Id, Place, News)>,
    inbox: mpsc::UnboundedReceiver<(Id, Place, News)>,
    /// The question what the cluster looks like; one at a time.
    checks: JoinSet<Result<(SystemTime, View), Broken>>,
    next_check: Instant,
    turn: usize,
    /// Who is to be asked next, out of turn.
    first: Option<Node>,
    /// When to decide anew, if not at once.
    next_place: Option<Instant>,
    /// Whether something is wanted whose slot nobody owns.
    homeless: bool,
}

impl<'c> Cluster<'c> {
    fn new(redis: &'c Redis, dialer: &'c Dialer, seeds: &'c [Endpoint], link: &'c Arc<Link>) -> Self {
        let (news, inbox) = mpsc::unbounded_channel();
        Self {
            redis,
            dialer,
            seeds,
            link,
            map: Arc::new(Mutex::new(Map::new())),
            checked: SystemTime::UNIX_EPOCH,
            broadcaster: None,
            members: HashMap::new(),
            tasks: JoinSet::new(),
            patience: HashMap::new(),
            news,
            inbox,
            checks: JoinSet::new(),
            next_check: Instant::now(),
            turn: rand::random_range(0..seeds.len()),
            first: None,
            next_place: None,
            homeless: false,
        }
    }

    async fn run(&mut self) -> Broken {
        match self.check().await {
            Ok((asked, view)) => {
                self.learn(view);
                self.checked = asked;
            }
            Err(broken) => return broken,
        }
        let (dialer, endpoint) = (self.dialer.clone(), self.seeds[0].clone());
        self.redis.streams.ask_at(Servers { dialer, endpoint, map: Some(Arc::clone(&self.map)) });
        self.next_check = Instant::now() + self.redis.ping_interval();
        let mut changes = self.link.changes();
        self.place();
        loop {
            let (next_check, next_place) = (self.next_check, self.next_place);
            tokio::select! {
                changed = changes.next() => match changed {
                    Ok(()) => changes.look(|| self.place()),
                    Err(gone) => return gone,
                },
                Some((id, place, news)) = self.inbox.recv() => self.hear(id, place, news),
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => match ended {
                    Ok((id, broken)) => self.ended(id, broken),
                    Err(error) => self.ended(error.id(), Broken(format!("a defect in ssegate: {error}"))),
                },
                Some(checked) = self.checks.join_next(), if !self.checks.is_empty() => {
                    if let Some(broken) = self.looked(checked) {
                        return broken;
                    }
                }
                () = tokio::time::sleep_until(next_check), if self.checks.is_empty() => {
                    let check = self.check();
                    self.checks.spawn(check);
                }
                () = sleep_until(next_place) => self.place(),
            }
        }
    }

    /// Asks one node what the cluster looks like, the next one in turn; others if it does not answer.
    fn check(&mut self) -> impl Future<Output = Result<(SystemTime, View), Broken>> + use<> {
        let seeds = self.seeds.iter().cloned();
        let known: Vec<Node> = self.map.lock().nodes.iter().cloned().collect();
        let known = known.iter().map(|node| self.seeds[0].at(&node.host, node.port));
        let mut nodes: Vec<Endpoint> = seeds.chain(known).collect();
        nodes.sort_unstable_by_key(Endpoint::address);
        nodes.dedup();
        self.turn += 1;
        let count = nodes.len();
        let first = self.first.take().map(|node| self.seeds[0].at(&node.host, node.port));
        let out_of_turn = first.and_then(|first| nodes.iter().position(|node| *node == first));
        nodes.rotate_left(out_of_turn.unwrap_or(self.turn % count));
        // One that vanished takes a whole timeout not to answer.
        nodes.sort_by_key(|node| self.is_missed(&Node::of(node)));
        let dialer = self.dialer.clone();
        async move {
            let mut last = Broken("the cluster has no nodes".to_owned());
            for node in nodes {
                let asked = SystemTime::now();
                let answer = dialer.ask(&node, cmd("CLUSTER").arg("NODES").take()).await;
                match answer.map(|answer| String::from_redis_value(answer).unwrap_or_default()) {
                    Ok(text) => return Ok((asked, View::parse(&text, &node.host, node.tls))),
                    Err(broken) => last = broken,
                }
            }
            Err(Broken::new("no node of the cluster answers", last))
        }
    }

    /// Takes the outcome of a check; returns why to give up, if so.
    fn looked(&mut self, checked: Result<Result<(SystemTime, View), Broken>, JoinError>) -> Option<Broken> {
        match checked {
            Ok(Ok((asked, view))) => {
                self.learn(view);
                self.next_check = Instant::now() + self.redis.ping_interval();
                self.place();
                self.checked = asked;
                if self.first.is_some() {
                    self.check_within(Duration::ZERO);
                } else if !self.is_whole() {
                    self.check_within(IMPATIENT);
                }
                None
            }
            // Begun anew from the URLs of the configuration, with what they stand for then.
            Ok(Err(broken)) if !self.members.values().any(|member| member.settled) => Some(broken),
            Ok(Err(broken)) => {
                self.link.trouble(&broken.to_string());
                self.next_check = Instant::now() + IMPATIENT.min(self.redis.ping_interval());
                None
            }
            Err(defect) => Some(Broken(format!("a defect in ssegate: {defect}"))),
        }
    }

    fn learn(&mut self, view: View) {
        let mut map = self.map.lock();
        map.merge(view);
        let has_member = |node: &Node| self.members.keys().any(|place| place.node == *node);
        self.patience.retain(|node, _| map.nodes.contains(node) || has_member(node));
    }

    fn check_within(&mut self, wait: Duration) {
        self.next_check = self.next_check.min(Instant::now() + wait);
    }

    fn hear(&mut self, id: Id, place: Place, news: News) {
        match news {
            News::Up => {}
            News::Settled => {
                // Unless it comes from the connection before.
                if let Some(member) = self.members.get_mut(&place).filter(|member| member.task.id() == id) {
                    member.settled = true;
                }
                self.tell_health();
            }
            News::Left => {
                self.first = Some(place.node);
                self.check_within(Duration::ZERO);
            }
            News::Moved(slot, to) => {
                self.map.lock().moved(slot, to);
                self.next_place.get_or_insert(Instant::now() + GATHER);
                self.check_within(GATHER);
            }
        }
    }

    /// A connection has ended. Its feeds are lost before they can be carried elsewhere.
    fn ended(&mut self, id: Id, broken: Broken) {
        let Some(place) =
            self.members.iter().find(|(_, member)| member.task.id() == id).map(|(place, _)| place.clone())
        else {
            // One that was no longer needed.
            return;
        };
        let Some(member) = self.members.remove(&place) else { return };
        member.table.lose_all();
        self.link.down(&broken.to_string());
        let lasted = if member.settled { member.began.elapsed() } else { Duration::ZERO };
        let (backoff, until) =
            self.patience.entry(place.node).or_insert_with(|| (Backoff::default(), member.began));
        // Those that a node takes along when it dies are one loss.
        if *until <= Instant::now() {
            *until = Instant::now() + backoff.wait_after(lasted);
        }
        self.check_within(IMPATIENT);
        self.place();
    }

    /// Decides anew what is carried where.
    fn place(&mut self) {
        self.next_place = None;
        let (places, homeless) = self.places();
        let mut carried = Carried::default();
        for (place, member) in &self.members {
            let keeps = |source: &Source| places.get(place).is_some_and(|feeds| feeds.contains_key(source));
            member.table.withdraw_all_but(keeps, self.checked, &mut carried);
        }
        self.members.retain(|place, member| {
            let stays = places.contains_key(place);
            if !stays {
                member.task.abort();
            }
            stays
        });
        for (place, feeds) in places {
            match self.members.get(&place) {
                Some(member) => member.table.assign(feeds, &mut carried),
                None => self.open(place, feeds, &mut carried),
            }
        }
        self.homeless = homeless.is_some();
        match homeless {
            Some(cause) => {
                self.link.down(&cause);
                self.check_within(IMPATIENT);
            }
            None => self.tell_health(),
        }
    }

    fn open(&mut self, place: Place, feeds: Feeds, carried: &mut Carried) {
        let endpoint = self.seeds[0].at(&place.node.host, place.node.port);
        let (news, name) = (self.news.clone(), place.clone());
        // The receiver lives as long as the task's owner.
        let tell = move |what| drop(news.send((tokio::task::id(), name.clone(), what)));
        let way = match place.purpose {
            Purpose::Messages => None,
            Purpose::Slot(_) => Some(Way::Slot),
            Purpose::Slots => Some(Way::Slots),
        };
        let (table, task) = match way {
            None => {
                let table = Arc::new(Subscriptions::new(self.link));
                table.assign(feeds);
                let subscriber = self.redis.subscriber(self.dialer, endpoint, false);
                let told = Arc::clone(&table);
                (Table::Messages(table), self.tasks.spawn(async move { subscriber.run(&told, tell).await }))
            }
            Some(way) => {
                let table = Arc::<streams::Table>::default();
                table.assign(feeds, carried);
                let place =
                    streams::Place { dialer: self.dialer.clone(), endpoint, way, table: Arc::clone(&table) };
                let (streams, link) = (Arc::clone(&self.redis.streams), Arc::clone(self.link));
                (
                    Table::Streams(table),
                    self.tasks.spawn(async move { streams.read(&place, &link, tell).await }),
                )
            }
        };
        if self.patience.contains_key(&place.node) {
            self.link.reconnecting();
        }
        self.members.insert(place, Member { table, task, began: Instant::now(), settled: false });
    }

    /// Up is a cluster of which every node that is needed is there.
    fn tell_health(&self) {
        if self.is_whole() {
            self.link.up();
            self.link.settled();
        }
    }

    /// Whether a connection to it was lost, and none is back.
    fn is_missed(&self, node: &Node) -> bool {
        let stands = |(place, member): (&Place, &Member)| place.node == *node && member.settled;
        self.patience.contains_key(node) && !self.members.iter().any(stands)
    }

    fn is_whole(&self) -> bool {
        !self.homeless && self.next_place.is_none() && self.members.values().all(|member| member.settled)
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
