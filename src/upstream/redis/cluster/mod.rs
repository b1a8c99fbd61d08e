//! A Redis Cluster. Channels and patterns are broadcast to every node, so one carries them all; a shard channel is
//! carried by the master that owns its slot. Each node that is needed has one connection.
//!
//! This decides what is carried where, and is the only place that does, so that a feed which moves is lost at its
//! old place before it can be confirmed at its new one. What it decides on: what nodes say of the cluster
//! ([`slots`]), one of them in turn as often as links are tried and the one that a slot has just left, and MOVED.

mod slots;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::seq::IteratorRandom as _;
use redis::{FromRedisValue as _, cmd};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use self::slots::{Map, Node, View};
use super::Redis;
use super::connection::Dialer;
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
    cluster.members.values().for_each(|member| member.table.lose_all(None));
    broken
}

struct Cluster<'c> {
    redis: &'c Redis,
    dialer: &'c Dialer,
    seeds: &'c [Endpoint],
    link: &'c Arc<Link>,
    map: Map,
    /// When the question was asked whose answer last confirmed the places.
    checked: SystemTime,
    /// The node that carries channels and patterns.
    broadcaster: Option<Node>,
    members: HashMap<Node, Member>,
    /// The connections. Each ends with its reason.
    tasks: JoinSet<Broken>,
    /// How patient to be with each node that was needed, and until when to leave it alone.
    patience: HashMap<Node, (Backoff, Instant)>,
    news: mpsc::UnboundedSender<(Id, Node, News)>,
    inbox: mpsc::UnboundedReceiver<(Id, Node, News)>,
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

/// A connection to a node.
struct Member {
    table: Arc<Subscriptions>,
    task: AbortHandle,
    began: Instant,
    settled: bool,
}

/// What is carried where.
type Places = HashMap<Node, Feeds>;

impl<'c> Cluster<'c> {
    fn new(redis: &'c Redis, dialer: &'c Dialer, seeds: &'c [Endpoint], link: &'c Arc<Link>) -> Self {
        let (news, inbox) = mpsc::unbounded_channel();
        Self {
            redis,
            dialer,
            seeds,
            link,
            map: Map::new(),
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
        self.next_check = Instant::now() + self.redis.config.ping_interval;
        let mut changes = self.link.wanted().changes();
        self.place();
        loop {
            let (next_check, next_place) = (self.next_check, self.next_place);
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.place(),
                    Err(_) => return Broken("the wanted set is gone".to_owned()),
                },
                Some((id, node, news)) = self.inbox.recv() => self.hear(id, node, news),
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
        let known = self.map.nodes.iter().map(|node| self.seeds[0].at(&node.host, node.port));
        let mut nodes: Vec<Endpoint> = seeds.chain(known).collect();
        nodes.sort_unstable_by_key(Endpoint::address);
        nodes.dedup();
        self.turn += 1;
        let count = nodes.len();
        let first = self.first.take().map(|node| self.seeds[0].at(&node.host, node.port));
        let out_of_turn = first.and_then(|first| nodes.iter().position(|node| *node == first));
        nodes.rotate_left(out_of_turn.unwrap_or(self.turn % count));
        // One that vanished takes a whole timeout not to answer.
        nodes.sort_by_key(|node| self.is_missed(&Node { host: node.host.as_str().into(), port: node.port }));
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
                self.next_check = Instant::now() + self.redis.config.ping_interval;
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
                self.next_check = Instant::now() + IMPATIENT.min(self.redis.config.ping_interval);
                None
            }
            Err(defect) => Some(Broken(format!("a defect in ssegate: {defect}"))),
        }
    }

    fn learn(&mut self, view: View) {
        self.map.merge(view);
        let nodes = &self.map.nodes;
        self.patience.retain(|node, _| nodes.contains(node) || self.members.contains_key(node));
    }

    fn check_within(&mut self, wait: Duration) {
        self.next_check = self.next_check.min(Instant::now() + wait);
    }

    fn hear(&mut self, id: Id, node: Node, news: News) {
        match news {
            News::Up => {}
            News::Settled => {
                // Unless it comes from the connection before.
                if let Some(member) = self.members.get_mut(&node).filter(|member| member.task.id() == id) {
                    member.settled = true;
                }
                self.tell_health();
            }
            News::Left => {
                self.first = Some(node);
                self.check_within(Duration::ZERO);
            }
            News::Moved { slot, host, port } => {
                let host = if host.is_empty() { Arc::clone(&node.host) } else { host.into() };
                self.map.moved(slot, Node { host, port });
                self.next_place.get_or_insert(Instant::now() + GATHER);
                self.check_within(GATHER);
            }
        }
    }

    /// A connection has ended. Its feeds are lost before they can be carried elsewhere.
    fn ended(&mut self, id: Id, broken: Broken) {
        let Some(node) =
            self.members.iter().find(|(_, member)| member.task.id() == id).map(|(node, _)| node.clone())
        else {
            // One that was no longer needed.
            return;
        };
        let Some(member) = self.members.remove(&node) else { return };
        member.table.lose_all(None);
        self.link.down(&broken.to_string());
        let lasted = if member.settled { member.began.elapsed() } else { Duration::ZERO };
        let (backoff, until) =
            self.patience.entry(node).or_insert_with(|| (Backoff::default(), member.began));
        *until = Instant::now() + backoff.wait_after(lasted);
        self.check_within(IMPATIENT);
        self.place();
    }

    /// Decides anew what is carried where.
    fn place(&mut self) {
        self.next_place = None;
        let (places, homeless) = self.places();
        for (node, member) in &self.members {
            let keeps = |source: &Source| places.get(node).is_some_and(|feeds| feeds.contains_key(source));
            member.table.withdraw_all_but(keeps, self.checked);
        }
        self.members.retain(|node, member| {
            let stays = places.contains_key(node);
            if !stays {
                member.task.abort();
            }
            stays
        });
        for (node, feeds) in places {
            match self.members.get(&node) {
                Some(member) => member.table.assign(feeds),
                None => self.open(node, feeds),
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

    /// What is to be carried where, and why some of it cannot be carried at all.
    fn places(&mut self) -> (Places, Option<String>) {
        let (mut places, mut homeless) = (Places::new(), None);
        let wanted = self.link.wanted().snapshot();
        if wanted.keys().any(|source| !matches!(source, Source::ShardChannel(_))) {
            self.choose_broadcaster();
        }
        for (source, feeds) in wanted {
            let node = match &source {
                Source::ShardChannel(name) => {
                    let slot = slots::slot(name);
                    let owner = self.map.owner(slot).cloned();
                    if owner.is_none() {
                        homeless = Some(format!("no node of the cluster owns slot {slot}, that of {name}"));
                    }
                    owner
                }
                _ => self.broadcaster.clone(),
            };
            if let Some(node) = node {
                places.entry(node).or_default().insert(source, feeds);
            }
        }
        let patience: Vec<_> =
            places.keys().filter_map(|node| Some((node.clone(), self.patience.get(node)?.1))).collect();
        for (node, until) in patience {
            if until > Instant::now() && !self.members.contains_key(&node) {
                places.remove(&node);
                self.next_place = Some(self.next_place.map_or(until, |first| first.min(until)));
            }
        }
        (places, homeless)
    }

    /// The one that there is, as long as it belongs to the cluster; else one with a connection already, else a master.
    fn choose_broadcaster(&mut self) {
        let now = Instant::now();
        let rests = |node: &Node| {
            !self.members.contains_key(node) && self.patience.get(node).is_some_and(|(_, until)| *until > now)
        };
        let fits = |node: &&Node| self.map.nodes.contains(*node) && !rests(node);
        if self.broadcaster.as_ref().filter(fits).is_some() {
            return;
        }
        let connected = self.members.keys().filter(fits).choose(&mut rand::rng());
        // A master may come to carry shard channels on the same connection.
        let master = || self.map.masters.iter().filter(fits).choose(&mut rand::rng());
        let other = || self.map.nodes.iter().filter(fits).choose(&mut rand::rng());
        if let Some(node) = connected.or_else(master).or_else(other) {
            self.broadcaster = Some(node.clone());
        }
    }

    fn open(&mut self, node: Node, feeds: Feeds) {
        let endpoint = self.seeds[0].at(&node.host, node.port);
        let table = Arc::new(Subscriptions::new(self.link));
        table.assign(feeds);
        let subscriber = self.redis.subscriber(self.dialer, endpoint, false);
        let (told, news, name) = (Arc::clone(&table), self.news.clone(), node.clone());
        let task = self.tasks.spawn(async move {
            let id = tokio::task::id();
            // The receiver lives as long as this task's owner.
            subscriber.run(&told, |what| drop(news.send((id, name.clone(), what)))).await
        });
        if self.patience.contains_key(&node) {
            self.link.reconnecting();
        }
        self.members.insert(node, Member { table, task, began: Instant::now(), settled: false });
    }

    /// Up is a cluster of which every node that is needed is there.
    fn tell_health(&self) {
        if self.is_whole() {
            self.link.up();
            self.link.settled();
        }
    }

    /// Whether a connection to it was lost, and is not back.
    fn is_missed(&self, node: &Node) -> bool {
        self.patience.contains_key(node) && !self.members.get(node).is_some_and(|member| member.settled)
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
