//! A real Redis Cluster on free ports: masters that share the slots evenly, and a replica for the first ones.

use std::collections::HashSet;
use std::net::SocketAddr;

use redis::{ErrorKind, RedisResult, ServerErrorKind};

use super::super::ports;
use super::super::proxy::Proxy;
use super::super::wait::eventually;
use super::Redis;

/// A running cluster.
pub struct Cluster {
    /// The masters, and after them their replicas.
    pub nodes: Vec<Redis>,
    ids: Vec<String>,
    masters: usize,
}

impl Cluster {
    /// Starts `masters` masters and a replica of each of the first `replicas`.
    pub async fn start(masters: usize, replicas: usize) -> Self {
        let cluster = Self::nodes(masters, replicas, &[]).await;
        cluster.join().await;
        cluster
    }

    /// Masters alone, which have after a restart all that they acknowledged before.
    pub async fn start_durable(masters: usize) -> Self {
        let cluster = Self::nodes(masters, 0, &["--appendonly", "yes", "--appendfsync", "always"]).await;
        cluster.join().await;
        cluster
    }

    /// The same without replicas, and with a proxy that clients are sent through before each node.
    pub async fn start_proxied(masters: usize) -> (Self, Vec<Proxy>) {
        let cluster = Self::nodes(masters, 0, &[]).await;
        let mut proxies = Vec::new();
        for node in &cluster.nodes {
            let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], node.port()))).await;
            node.say::<()>(&format!("CONFIG SET cluster-announce-port {}", proxy.addr().port())).await;
            proxies.push(proxy);
        }
        cluster.join().await;
        (cluster, proxies)
    }

    async fn nodes(masters: usize, replicas: usize, durable: &[&str]) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..masters + replicas {
            let bus = ports::free().to_string();
            let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
            nodes.push(Redis::start_args(&[&args[..], durable].concat()).await);
        }
        let mut ids = Vec::new();
        for node in &nodes {
            ids.push(node.say("CLUSTER MYID").await);
        }
        Self { nodes, ids, masters }
    }

    async fn join(&self) {
        let share = 16384 / self.masters;
        for (at, node) in self.nodes.iter().enumerate() {
            node.say::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1)).await;
            if at < self.masters {
                let last = if at + 1 == self.masters { 16383 } else { (at + 1) * share - 1 };
                node.say::<()>(&format!("CLUSTER ADDSLOTSRANGE {} {last}", at * share)).await;
            }
            let bus: (String, String) = node.say("CONFIG GET cluster-port").await;
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), bus.1);
            self.nodes[0].say::<()>(&meet).await;
        }
        self.until_each_knows("all nodes to know each other", |nodes| {
            nodes.lines().filter(|line| line.contains(" connected")).count() == self.nodes.len()
        })
        .await;
        for (replica, id) in self.nodes[self.masters..].iter().zip(&self.ids) {
            replica.say::<()>(&format!("CLUSTER REPLICATE {id}")).await;
        }
        self.until_each_knows("the replicas to be known", |nodes| {
            nodes.lines().filter(|line| line.contains("slave")).count() == self.nodes.len() - self.masters
        })
        .await;
        for node in &self.nodes {
            eventually("the cluster to be sound", async || {
                let (info, role): (String, String) =
                    (node.say("CLUSTER INFO").await, node.say("INFO replication").await);
                let sound = info.contains("cluster_state:ok") && !role.contains("master_link_status:down");
                sound.then_some(()).ok_or(info)
            })
            .await;
        }
    }

    async fn until_each_knows(&self, what: &str, known: impl Fn(&str) -> bool) {
        for node in &self.nodes {
            eventually(what, async || {
                let nodes: String = node.say("CLUSTER NODES").await;
                if known(&nodes) { Ok(()) } else { Err(nodes) }
            })
            .await;
        }
    }

    /// The URLs of all nodes, as a YAML list.
    pub fn urls(&self) -> String {
        let urls: Vec<String> =
            self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port())).collect();
        format!("[{}]", urls.join(", "))
    }

    /// Which master owned the slot of `channel` at the beginning.
    pub async fn first_owner(&self, channel: &str) -> usize {
        let slot = self.slot(channel).await;
        (slot / (16384 / self.masters)).min(self.masters - 1)
    }

    /// A shard channel, named after `stem`, that the master `at` owned at the beginning.
    pub async fn channel_of(&self, at: usize, stem: &str) -> String {
        for number in 0.. {
            let channel = format!("{stem}:{number}");
            if self.first_owner(&channel).await == at {
                return channel;
            }
        }
        unreachable!("each master owns some")
    }

    /// The slot of a channel, as Redis says.
    pub async fn slot(&self, channel: &str) -> usize {
        let living = self.nodes.iter().find(|node| node.is_running()).expect("a node");
        living.say(&format!("CLUSTER KEYSLOT {channel}")).await
    }

    /// Publishes to a shard channel at whichever node owns it now; returns how many received it.
    pub async fn spublish(&self, channel: &str, payload: &str) -> u64 {
        eventually("a node that owns the channel", async || {
            let mut refusals = Vec::new();
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                let mut command = redis::cmd("SPUBLISH");
                let result: RedisResult<u64> = node.try_command(command.arg(channel).arg(payload)).await;
                match result {
                    Ok(receivers) => return Ok(receivers),
                    Err(error) => refusals.push(error.to_string()),
                }
            }
            Err(refusals.join(", "))
        })
        .await
    }

    /// How many subscribers of a shard channel a node has.
    pub async fn shard_subscribers(&self, at: usize, channel: &str) -> u64 {
        let numbers: (String, u64) = self.nodes[at].say(&format!("PUBSUB SHARDNUMSUB {channel}")).await;
        numbers.1
    }

    /// Waits until a shard channel has a subscriber at the node.
    pub async fn until_subscribed(&self, at: usize, channel: &str) {
        eventually(&format!("a subscriber of {channel}"), async || {
            let count = self.shard_subscribers(at, channel).await;
            (count > 0).then_some(()).ok_or("none so far")
        })
        .await;
    }

    /// Moves a slot, which holds no keys, from one master to another.
    pub async fn migrate(&self, slot: usize, from: usize, to: usize) {
        self.begin_to_move(slot, from, to).await;
        self.end_to_move(slot, from, to).await;
    }

    /// From now on the keys of a slot may be at either of two masters.
    pub async fn begin_to_move(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (&self.ids[from], &self.ids[to]);
        self.nodes[to].say::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
        self.nodes[from].say::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
    }

    /// Moves one key of a slot that is on its way.
    pub async fn move_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port();
        let answer: String = self.nodes[from].say(&format!("MIGRATE 127.0.0.1 {port} {key} 0 60000")).await;
        assert_eq!(answer, "OK", "{key} is there");
    }

    /// The slot, of which no key is left behind, belongs to another master.
    pub async fn end_to_move(&self, slot: usize, from: usize, to: usize) {
        let target = &self.ids[to];
        for node in [to, from].into_iter().chain((0..self.masters).filter(|at| *at != to && *at != from)) {
            self.nodes[node].say::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
        }
    }

    /// So many names of streams, each of another slot, that the master `at` owned at the beginning.
    pub async fn streams_of(&self, at: usize, count: usize) -> Vec<String> {
        let (mut slots, mut streams) = (HashSet::new(), Vec::new());
        for number in 0.. {
            let stream = format!("stream:{number}");
            if streams.len() == count {
                break;
            }
            if self.first_owner(&stream).await == at && slots.insert(self.slot(&stream).await) {
                streams.push(stream);
            }
        }
        streams
    }

    /// Adds an entry with the field `n` at whichever node has the stream now, also while its slot is on its way.
    /// Returns its id.
    pub async fn xadd(&self, stream: &str, n: i32) -> String {
        let add = redis::cmd("XADD").arg(stream).arg("*").arg("n").arg(n).take();
        eventually("a node that has the stream", async || {
            let mut refusals = Vec::new();
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                let mut added: RedisResult<String> = node.try_command(&add).await;
                if let Some(there) = added.as_ref().err().and_then(|error| self.asked(error)) {
                    added = there.try_asking(&add).await;
                }
                match added {
                    Ok(id) => return Ok(id),
                    Err(error) => refusals.push(error.to_string()),
                }
            }
            Err(refusals.join(", "))
        })
        .await
    }

    /// The node that ASK names.
    fn asked(&self, error: &redis::RedisError) -> Option<&Redis> {
        let (address, _) =
            error.redirect_node().filter(|_| error.kind() == ErrorKind::Server(ServerErrorKind::Ask))?;
        self.nodes.iter().find(|node| address.ends_with(&format!(":{}", node.port())))
    }

    /// Waits until `node` is a master.
    pub async fn until_master(&self, node: usize) {
        eventually("the replica to be elected", async || {
            let info: String = self.nodes[node].say("INFO replication").await;
            info.contains("role:master").then_some(()).ok_or("still a replica")
        })
        .await;
    }
}
