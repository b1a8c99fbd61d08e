//! Redis Streams of a real Redis Cluster: who reads which slot, and that nothing is missing or comes twice when slots
//! move, masters die and links hang.

use std::cell::Cell;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::redis_streams::{all, numbers};
use crate::support::eventsource::{EventSource, Options};
use crate::support::redis::Redis;
use crate::support::redis::cluster::Cluster;
use crate::support::ssegate::{Ssegate, field};
use crate::support::wait::eventually;

/// So many slots of a node have a connection of their own.
const WAITS: usize = 32;

/// `/s/NAME` keeps what is usual, `/short/NAME` next to nothing.
fn config(urls: &str) -> String {
    format!(
        r#"
upstreams: {{ shards: {{ redis: {{ url: {urls}, cluster: true, ping_interval: 200ms, timeout: 3s }} }} }}
routes:
  - {{ path: "/s/{{name}}", from: {{ upstream: shards, stream: "{{name}}" }}, data: "{{field.n}}" }}
  - {{ path: "/short/{{name}}", from: {{ upstream: shards, stream: "{{name}}" }}, data: "{{field.n}}", event: short, history: {{ events: 3 }}, buffer: 64KiB }}
"#
    )
}

fn path(route: &str, stream: &str) -> String {
    format!("/{route}/{}", utf8_percent_encode(stream, NON_ALPHANUMERIC))
}

async fn open(ssegate: &Ssegate, route: &str, stream: &str, options: Options) -> EventSource {
    let mut source = EventSource::connect(ssegate.url(&path(route, stream)), options).await;
    source.next_named("stream.position").await;
    source
}

fn assert_no_gap(stream: &EventSource) {
    let gaps: Vec<_> = stream.events().iter().filter(|event| event.event == "stream.gap").collect();
    assert!(gaps.is_empty(), "{gaps:?}");
}

fn is_down(line: &Value) -> bool {
    field(line, "message").unwrap_or_default().contains("is down")
}

async fn until_up(ssegate: &Ssegate) {
    eventually("the upstream to be up", async || {
        let status = ssegate.status().await;
        (status["upstreams"][0]["up"] == true).then_some(()).ok_or(status)
    })
    .await;
}

/// With no more rights than the README asks for.
#[tokio::test]
async fn streams_of_several_slots_are_served_live_and_resumed_on_another_replica() {
    let cluster = Cluster::start(3, 0).await;
    for node in &cluster.nodes {
        node.say::<()>(
            "ACL SETUSER gate on >pw resetchannels ~stream:* -@all +ping +cluster|nodes +asking +xread +xrange \
             +xrevrange +xinfo|stream +client|id +client|unblock",
        )
        .await;
    }
    let config = config(&cluster.urls().replace("redis://", "redis://gate:pw@"));
    let replicas = [Ssegate::start(config.clone()).await, Ssegate::start(config).await];
    let mut opened = Vec::new();
    for at in 0..3 {
        for stream in cluster.streams_of(at, 2).await {
            let live = open(&replicas[0], "s", &stream, Options::http2()).await;
            opened.push((at, stream, live));
        }
    }
    for (at, stream, live) in &mut opened {
        let ids = cluster.nodes[*at].xadd_numbers(stream, 0..20).await;
        assert_eq!(numbers(live, 20).await, (all(0, 20), ids[19].clone()));
        let mut again = open(&replicas[1], "s", stream, Options::http1().resume(&ids[4])).await;
        assert_eq!(numbers(&mut again, 15).await.0, all(5, 20));
        cluster.nodes[*at].xadd_numbers(stream, [20]).await;
        for stream in [live, &mut again] {
            assert_eq!(numbers(stream, 1).await.0, [20]);
            assert_no_gap(stream);
        }
    }
    for node in &cluster.nodes {
        assert_eq!(node.pubsub_connections().await, 0);
    }
    let status = replicas[0].status().await;
    assert_eq!(status["upstreams"][0]["up"], true, "{status}");
    assert!(status["upstreams"][0]["last_error"].is_null(), "{status}");
}

#[tokio::test]
async fn slots_beyond_those_with_a_connection_of_their_own_are_read_in_turns() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls()) + "defaults: { idle_timeout: 0 }\n").await;
    let names = cluster.streams_of(1, WAITS + 9).await;
    let mut opened = Vec::new();
    for stream in &names {
        opened.push(open(&ssegate, "s", stream, Options::http2()).await);
    }
    assert_eq!(cluster.nodes[1].stream_readers().await, WAITS + 1);
    for round in 0..3 {
        for stream in &names {
            cluster.nodes[1].xadd_numbers(stream, [round]).await;
        }
        for stream in &mut opened {
            assert_eq!(numbers(stream, 1).await.0, [round]);
        }
    }
    // One that has more than the others holds none of them up, and is not held up itself.
    for (stream, live) in names.iter().zip(&mut opened) {
        cluster.nodes[1].xadd_numbers(stream, 3..3_000).await;
        assert_eq!(numbers(live, 2_997).await.0, all(3, 3_000));
        assert_no_gap(live);
    }
    // Those that are let go make room, whichever they are.
    opened.drain(5..WAITS);
    let left = WAITS + 9 - (WAITS - 5);
    eventually("the others to have connections of their own", async || {
        let readers = cluster.nodes[1].stream_readers().await;
        if readers == left { Ok(()) } else { Err(readers.to_string()) }
    })
    .await;
    for (stream, live) in names[..5].iter().chain(&names[WAITS..]).zip(&mut opened) {
        cluster.nodes[1].xadd_numbers(stream, [3_000]).await;
        assert_eq!(numbers(live, 1).await.0, [3_000]);
        assert_no_gap(live);
    }
}

/// Entries are added all the while; two of the streams share the slot that moves, there and back, key by key.
#[tokio::test]
async fn a_slot_that_moves_under_load_loses_nothing_and_gives_nothing_twice() {
    let cluster = Cluster::start(3, 0).await;
    let tag = cluster.channel_of(0, "moving").await;
    let streams = [format!("{{{tag}}}a"), format!("{{{tag}}}b"), cluster.streams_of(2, 1).await.remove(0)];
    let slot = cluster.slot(&tag).await;
    // With a connection of its own, and in turns with others.
    for others in [0, WAITS] {
        let replicas =
            [Ssegate::start(config(&cluster.urls())).await, Ssegate::start(config(&cluster.urls())).await];
        let mut idle = Vec::new();
        for stream in cluster.streams_of(0, others).await {
            idle.push(open(&replicas[0], "s", &stream, Options::http2()).await);
        }
        let mut live = Vec::new();
        for stream in &streams {
            live.push(open(&replicas[0], "s", stream, Options::http2()).await);
        }
        let count = write_while_moving(&cluster, &streams, slot).await;
        for (stream, live) in streams.iter().zip(&mut live) {
            assert_eq!(numbers(live, count as usize).await.0, all(0, count), "{stream}");
            assert_no_gap(live);
            let middle = live.events().iter().find(|event| event.data == "33").unwrap().id.clone();
            let mut back = open(&replicas[1], "s", stream, Options::http1().resume(&middle)).await;
            assert_eq!(numbers(&mut back, count as usize - 34).await.0, all(34, count), "{stream}");
            assert_no_gap(&back);
            // Anew for the next round.
            let owner = if slot == cluster.slot(stream).await { 0 } else { 2 };
            cluster.nodes[owner].say::<()>(&format!("DEL {stream}")).await;
        }
        let metrics = replicas[0].metrics().await;
        assert_eq!(metrics.sum("ssegate_source_gaps_total", &[]), 0.0);
        assert_eq!(metrics.sum("ssegate_upstream_up", &[("upstream", "shards")]), 1.0);
    }
}

/// Returns how many entries each stream got.
async fn write_while_moving(cluster: &Cluster, streams: &[String], slot: usize) -> i32 {
    let (written, moved) = (Cell::new(0), Cell::new(false));
    let write = async {
        while !moved.get() {
            for stream in streams {
                cluster.xadd(stream, written.get()).await;
            }
            written.set(written.get() + 1);
        }
    };
    let some_more = async || {
        let before = written.get();
        eventually("some more entries", async || {
            (written.get() > before + 20).then_some(()).ok_or("not so many yet")
        })
        .await;
    };
    let migrate = async {
        some_more().await;
        for (from, to) in [(0, 1), (1, 0)] {
            cluster.begin_to_move(slot, from, to).await;
            for stream in &streams[..2] {
                some_more().await;
                cluster.move_key(stream, from, to).await;
            }
            some_more().await;
            cluster.end_to_move(slot, from, to).await;
            some_more().await;
        }
        moved.set(true);
    };
    tokio::join!(write, migrate);
    written.get()
}

/// A slot can be on its way for hours, with streams at both of its masters and new ones coming up at the new one.
#[tokio::test]
async fn streams_of_a_slot_that_is_on_its_way_are_read_at_both_masters() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let tag = cluster.channel_of(0, "moving").await;
    let slot = cluster.slot(&tag).await;
    let [old, moved, new] = ["old", "moved", "new"].map(|name| format!("{{{tag}}}{name}"));
    let mut opened = Vec::new();
    for stream in [&old, &moved] {
        cluster.xadd(stream, 0).await;
        opened.push(open(&ssegate, "s", stream, Options::http2()).await);
    }
    cluster.begin_to_move(slot, 0, 1).await;
    cluster.move_key(&moved, 0, 1).await;
    opened.push(open(&ssegate, "s", &new, Options::http2()).await);
    for (stream, live) in [&old, &moved, &new].into_iter().zip(&mut opened) {
        cluster.xadd(stream, 1).await;
        assert_eq!(numbers(live, 1).await.0, [1], "{stream}");
    }
    cluster.move_key(&old, 0, 1).await;
    cluster.end_to_move(slot, 0, 1).await;
    for (stream, live) in [&old, &moved, &new].into_iter().zip(&mut opened) {
        cluster.xadd(stream, 2).await;
        assert_eq!(numbers(live, 1).await.0, [2], "{stream}");
        assert_no_gap(live);
    }
    eventually("the old master to have nothing but the link for questions", async || {
        let connections = cluster.nodes[0].connections().await;
        (connections <= 1).then_some(()).ok_or(connections)
    })
    .await;
}

#[tokio::test]
async fn what_memory_no_longer_holds_is_read_from_whoever_owns_the_slot() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let stream = cluster.streams_of(2, 1).await.remove(0);
    let slot = cluster.slot(&stream).await;
    let mut live = EventSource::connect(ssegate.url(&path("short", &stream)), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    cluster.nodes[2].xadd_numbers(&stream, 0..9_000).await;
    assert_eq!(numbers(&mut live, 9_000).await.0, all(0, 9_000));
    let mut back = open(&ssegate, "short", &stream, Options::http2().resume(&start)).await;
    let (seen, middle) = numbers(&mut back, 4_000).await;
    assert_eq!(seen, all(0, 4_000));
    back.close();
    cluster.begin_to_move(slot, 2, 0).await;
    cluster.move_key(&stream, 2, 0).await;
    // Now it is to be asked for, and later it is there.
    for end in [false, true] {
        if end {
            cluster.end_to_move(slot, 2, 0).await;
        }
        let mut back = open(&ssegate, "short", &stream, Options::http1().resume(&middle)).await;
        assert_eq!(numbers(&mut back, 5_000).await.0, all(4_000, 9_000));
        assert_no_gap(&back);
    }
}

#[tokio::test]
async fn a_master_that_dies_is_followed_to_its_replica_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, 1).await;
    let (mine, other) = (cluster.streams_of(0, 3).await, cluster.streams_of(1, 1).await.remove(0));
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut kept = open(&ssegate, "s", &other, Options::http2()).await;
    let mut opened = Vec::new();
    for stream in &mine {
        opened.push(open(&ssegate, "s", stream, Options::http2()).await);
    }
    // First while it lives, then when it is dead.
    cluster.xadd(&mine[0], 0).await;
    cluster.nodes[3].say::<()>("CLUSTER FAILOVER").await;
    cluster.until_master(3).await;
    for stream in &mine {
        for n in 0..50 {
            cluster.xadd(stream, n).await;
        }
    }
    cluster.nodes[3].until_replicated(1).await;
    cluster.nodes[3].kill();
    ssegate.wait_log("the loss", is_down).await;
    cluster.nodes[0].say::<()>("CLUSTER FAILOVER TAKEOVER").await;
    cluster.until_master(0).await;
    for stream in &mine {
        for n in 50..100 {
            cluster.xadd(stream, n).await;
        }
    }
    assert_eq!(numbers(&mut opened[0], 1).await.0, [0]);
    for live in &mut opened {
        assert_eq!(numbers(live, 100).await.0, all(0, 100));
        assert_no_gap(live);
    }
    cluster.xadd(&other, 7).await;
    assert_eq!(numbers(&mut kept, 1).await.0, [7]);
    assert_no_gap(&kept);
    until_up(&ssegate).await;
}

/// The replica is cut off from its master, which goes on for a while before it dies.
#[tokio::test]
async fn a_failover_that_loses_entries_is_told_as_a_stream_that_went_back() {
    let mut cluster = Cluster::start(3, 1).await;
    let stream = cluster.streams_of(0, 1).await.remove(0);
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut live = open(&ssegate, "s", &stream, Options::http2()).await;
    cluster.nodes[0].xadd_numbers(&stream, 0..5).await;
    assert_eq!(numbers(&mut live, 5).await.0, all(0, 5));
    cluster.nodes[0].until_replicated(1).await;
    // Links that are there stay, and the replica's is not.
    cluster.nodes[0].say::<()>("CONFIG SET requirepass secret").await;
    cluster.nodes[0].say::<u64>("CLIENT KILL TYPE replica").await;
    cluster.nodes[0].xadd_numbers(&stream, 5..8).await;
    assert_eq!(numbers(&mut live, 3).await.0, all(5, 8));
    cluster.nodes[0].kill();
    cluster.until_master(3).await;
    let gap = live.next_gap().await;
    assert_eq!(gap["reason"], "recreated", "{gap}");
    cluster.xadd(&stream, 8).await;
    assert_eq!(numbers(&mut live, 6).await.0, [0, 1, 2, 3, 4, 8], "as far as it still is there");
}

#[tokio::test]
async fn a_node_that_hangs_holds_up_its_own_streams_alone_and_they_lose_nothing() {
    let (cluster, proxies) = Cluster::start_proxied(3).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut opened = Vec::new();
    for at in 0..3 {
        let stream = cluster.streams_of(at, 1).await.remove(0);
        opened.push((stream.clone(), open(&ssegate, "s", &stream, Options::http2()).await));
    }
    proxies[1].pause();
    for (at, (stream, _)) in opened.iter().enumerate() {
        cluster.nodes[at].xadd_numbers(stream, 0..10).await;
    }
    for at in [0, 2] {
        assert_eq!(numbers(&mut opened[at].1, 10).await.0, all(0, 10));
    }
    let down = ssegate.wait_log("the loss", is_down).await;
    assert!(!field(&down, "cause").unwrap().is_empty(), "{down}");
    for at in [0, 2] {
        cluster.nodes[at].xadd_numbers(&opened[at].0, 10..20).await;
        assert_eq!(numbers(&mut opened[at].1, 10).await.0, all(10, 20), "while the other is away");
    }
    proxies[1].resume();
    cluster.nodes[1].xadd_numbers(&opened[1].0, 10..20).await;
    assert_eq!(numbers(&mut opened[1].1, 20).await.0, all(0, 20));
    opened.iter().for_each(|(_, stream)| assert_no_gap(stream));
    until_up(&ssegate).await;
}

#[tokio::test]
async fn a_cluster_that_is_away_altogether_takes_no_entry_along() {
    let mut cluster = Cluster::start_durable(3).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut opened = Vec::new();
    for at in 0..3 {
        let stream = cluster.streams_of(at, 1).await.remove(0);
        let live = open(&ssegate, "s", &stream, Options::http1()).await;
        cluster.nodes[at].xadd_numbers(&stream, 0..10).await;
        opened.push((stream, live));
    }
    cluster.nodes.iter_mut().for_each(Redis::kill);
    ssegate.wait_log("the loss", is_down).await;
    for node in &mut cluster.nodes {
        node.restart().await;
    }
    for (stream, live) in &mut opened {
        cluster.xadd(stream, 10).await;
        assert_eq!(numbers(live, 11).await.0, all(0, 11));
        assert_no_gap(live);
    }
    until_up(&ssegate).await;
}
