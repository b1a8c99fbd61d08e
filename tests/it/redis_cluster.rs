//! A real Redis Cluster: what is carried where, and what is told when slots move, masters die and links hang.

use std::time::SystemTime;

use serde_json::Value;

use crate::support::eventsource::{EventSource, Options};
use crate::support::redis::Redis;
use crate::support::redis::cluster::Cluster;
use crate::support::ssegate::{Ssegate, field};
use crate::support::wait::eventually;

fn config(urls: &str) -> String {
    format!(
        r#"
upstreams: {{ shards: {{ redis: {{ url: {urls}, cluster: true, ping_interval: 200ms, timeout: 3s }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: shards, channel: news }} }}
  - {{ path: /metrics, from: {{ upstream: shards, pattern: "metrics.*" }}, event: "{{channel}}" }}
  - {{ path: "/s/{{name}}", from: {{ upstream: shards, shard_channel: "{{name}}" }} }}
"#
    )
}

async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http2()).await
}

/// The next event is an `upstream_lost` with a sound span, and a position follows.
async fn assert_lost(stream: &mut EventSource) {
    let gap = stream.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    let time = |member: &str| humantime::parse_rfc3339(gap[member].as_str().unwrap()).unwrap();
    let (since, until) = (time("since"), time("until"));
    assert!(since <= until && until <= SystemTime::now(), "{gap}");
    assert!(until.duration_since(since).unwrap().as_secs() < 120, "{gap}");
    assert_eq!(stream.next().await.event, "stream.position");
}

fn is_down(line: &Value) -> bool {
    field(line, "message").unwrap_or_default().contains("is down")
}

/// A node's connections that ssegate subscribed by.
async fn subscribed(node: &Redis) -> usize {
    let list: String = node.say("CLIENT LIST TYPE pubsub").await;
    list.lines().filter(|line| line.contains("name=ssegate")).count()
}

#[tokio::test]
async fn each_source_comes_from_the_node_that_carries_it() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut news = open(&ssegate, "/news").await;
    let mut metrics = open(&ssegate, "/metrics").await;
    let mut shards = Vec::new();
    for at in 0..3 {
        for stem in ["a", "b"] {
            let channel = cluster.channel_of(at, stem).await;
            shards.push((channel.clone(), open(&ssegate, &format!("/s/{channel}")).await));
        }
    }
    for (at, node) in cluster.nodes.iter().enumerate() {
        node.publish("news", format!("from {at}")).await;
        assert_eq!(news.next().await.data, format!("from {at}"));
        node.publish("metrics.cpu", format!("from {at}")).await;
        let event = metrics.next().await;
        assert_eq!((&*event.event, event.data), ("metrics.cpu", format!("from {at}")));
    }
    for (channel, stream) in &mut shards {
        assert_eq!(cluster.spublish(channel, "hello").await, 1, "{channel}");
        assert_eq!(stream.next().await.data, "hello");
    }
    for node in &cluster.nodes {
        assert_eq!(subscribed(node).await, 1, "one connection a node, whatever it carries");
    }
    assert_eq!(ssegate.metrics().await.sum("ssegate_upstream_up", &[("upstream", "shards")]), 1.0);
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_feed_along_with_a_gap_and_no_other() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut news = open(&ssegate, "/news").await;
    let moving = cluster.channel_of(0, "moving").await;
    let (staying, third) = (cluster.channel_of(0, "staying").await, cluster.channel_of(2, "third").await);
    let mut moved = open(&ssegate, &format!("/s/{moving}")).await;
    let mut stayed = open(&ssegate, &format!("/s/{staying}")).await;
    let mut other = open(&ssegate, &format!("/s/{third}")).await;
    let slot = cluster.slot(&moving).await;
    // There and back: the second time the map that was learned is overruled.
    for (from, to) in [(0, 1), (1, 0)] {
        cluster.spublish(&moving, "before").await;
        assert_eq!(moved.next().await.data, "before");
        cluster.migrate(slot, from, to).await;
        cluster.until_subscribed(to, &moving).await;
        assert_eq!(cluster.spublish(&moving, "after").await, 1);
        assert_lost(&mut moved).await;
        assert_eq!(moved.next().await.data, "after");
    }
    for (channel, stream) in [(&staying, &mut stayed), (&third, &mut other)] {
        cluster.spublish(channel, "undisturbed").await;
        assert_eq!(stream.next().await.data, "undisturbed", "no gap, since its slot never moved");
    }
    cluster.nodes[1].publish("news", "undisturbed").await;
    assert_eq!(news.next().await.data, "undisturbed");
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_source_gaps_total", &[("reason", "upstream_lost")]), 2.0);
    assert_eq!(metrics.sum("ssegate_upstream_up", &[("upstream", "shards")]), 1.0);
}

/// With no more rights than the README asks for, and looked at so rarely that only MOVED can mend the map.
#[tokio::test]
async fn a_map_that_is_out_of_date_is_mended_by_the_nodes_own_words() {
    let cluster = Cluster::start(3, 0).await;
    for node in &cluster.nodes {
        node.say::<()>(
            "ACL SETUSER gate on >pw resetchannels &room:* -@all +ping +ssubscribe +sunsubscribe +cluster|nodes",
        )
        .await;
    }
    let urls = cluster.urls().replace("redis://", "redis://gate:pw@");
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ shards: {{ redis: {{ url: {urls}, cluster: true, ping_interval: 5m }} }} }}
routes: [ {{ path: "/s/{{name}}", from: {{ upstream: shards, shard_channel: "{{name}}" }} }} ]
"#
    ))
    .await;
    eventually("the map to be had", async || {
        let status = ssegate.status().await;
        (status["upstreams"][0]["up"] == true).then_some(()).ok_or(status)
    })
    .await;
    let channel = cluster.channel_of(0, "room").await;
    cluster.migrate(cluster.slot(&channel).await, 0, 2).await;
    let mut stream = open(&ssegate, &format!("/s/{channel}")).await;
    assert_eq!(cluster.spublish(&channel, "found").await, 1);
    assert_eq!(stream.next().await.data, "found");
    assert_eq!(cluster.shard_subscribers(2, &channel).await, 1);
    let status = ssegate.status().await;
    assert!(status["upstreams"][0]["last_error"].is_null(), "{status}");
}

#[tokio::test]
async fn a_slot_that_moves_off_a_connection_takes_only_its_own_connection_along() {
    let cluster = Cluster::start(3, 0).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let channel = cluster.channel_of(0, "only").await;
    let _news = open(&ssegate, "/news").await;
    let mut stream = open(&ssegate, &format!("/s/{channel}")).await;
    cluster.migrate(cluster.slot(&channel).await, 0, 1).await;
    cluster.until_subscribed(1, &channel).await;
    cluster.spublish(&channel, "after").await;
    assert_lost(&mut stream).await;
    assert_eq!(stream.next().await.data, "after");
    assert_eq!(cluster.shard_subscribers(0, &channel).await, 0);
    let mut connections = 0;
    for node in &cluster.nodes {
        connections += subscribed(node).await;
    }
    assert!(
        connections <= 2,
        "{connections}: one for the broadcasts, one for the shard channel, or one for both"
    );
}

#[tokio::test]
async fn a_master_that_dies_is_followed_to_its_replica() {
    let mut cluster = Cluster::start(3, 1).await;
    let (mine, others) = (cluster.channel_of(0, "mine").await, cluster.channel_of(1, "others").await);
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut lost = open(&ssegate, &format!("/s/{mine}")).await;
    let mut kept = open(&ssegate, &format!("/s/{others}")).await;
    let mut news = open(&ssegate, "/news").await;
    cluster.spublish(&mine, "before").await;
    assert_eq!(lost.next().await.data, "before");
    let dead = cluster.nodes[0].port();
    cluster.nodes[0].kill();
    let down = ssegate.wait_log("the loss", is_down).await;
    assert!(field(&down, "cause").unwrap().contains(&format!("127.0.0.1:{dead}")), "{down}");
    cluster.until_master(3).await;
    cluster.until_subscribed(3, &mine).await;
    cluster.spublish(&mine, "after").await;
    assert_lost(&mut lost).await;
    assert_eq!(lost.next().await.data, "after");
    cluster.spublish(&others, "undisturbed").await;
    assert_eq!(kept.next().await.data, "undisturbed", "no gap, since its master lives");
    // Whichever node carried the broadcasts, one carries them now, with a gap before if it was the dead one.
    eventually("news to be carried", async || {
        let received =
            cluster.nodes[1].publish("news", "again").await + cluster.nodes[2].publish("news", "again").await;
        (received > 0 || cluster.nodes[3].publish("news", "again").await > 0)
            .then_some(())
            .ok_or("nobody listens")
    })
    .await;
    while news.next().await.data != "again" {}
    eventually("the upstream to be up", async || {
        let status = ssegate.status().await;
        (status["upstreams"][0]["up"] == true).then_some(()).ok_or(status)
    })
    .await;
}

#[tokio::test]
async fn a_master_that_is_demoted_while_it_lives_is_left() {
    let cluster = Cluster::start(3, 1).await;
    let mine = cluster.channel_of(0, "mine").await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut stream = open(&ssegate, &format!("/s/{mine}")).await;
    cluster.nodes[3].say::<()>("CLUSTER FAILOVER").await;
    cluster.until_master(3).await;
    cluster.until_subscribed(3, &mine).await;
    cluster.spublish(&mine, "after").await;
    assert_lost(&mut stream).await;
    assert_eq!(stream.next().await.data, "after");
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_by_its_ping_and_concerns_its_feeds_alone() {
    let (cluster, proxies) = Cluster::start_proxied(3).await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut streams = Vec::new();
    for at in 0..3 {
        let channel = cluster.channel_of(at, "room").await;
        streams.push((channel.clone(), open(&ssegate, &format!("/s/{channel}")).await));
    }
    proxies[1].pause();
    let down = ssegate.wait_log("the loss", is_down).await;
    let cause = field(&down, "cause").unwrap();
    assert!(cause.contains("ping") && cause.contains(&proxies[1].addr().to_string()), "{down}");
    proxies[1].resume();
    let (channel, stream) = &mut streams[1];
    cluster.until_subscribed(1, channel).await;
    assert_lost(stream).await;
    for (channel, stream) in &mut streams {
        eventually("a subscriber", async || {
            (cluster.spublish(channel, "x").await > 0).then_some(()).ok_or("none")
        })
        .await;
        assert_eq!(stream.next().await.data, "x", "no other gap");
    }
}

#[tokio::test]
async fn a_cluster_that_is_away_altogether_is_waited_for() {
    let mut cluster = Cluster::start(3, 0).await;
    let channel = cluster.channel_of(2, "room").await;
    let ssegate = Ssegate::start(config(&cluster.urls())).await;
    let mut stream = open(&ssegate, &format!("/s/{channel}")).await;
    cluster.nodes.iter_mut().for_each(Redis::kill);
    ssegate
        .wait_log("the loss", |line| {
            field(line, "cause").unwrap_or_default().contains("no node of the cluster")
        })
        .await;
    for node in &mut cluster.nodes {
        node.restart().await;
    }
    cluster.until_subscribed(2, &channel).await;
    cluster.spublish(&channel, "after").await;
    assert_lost(&mut stream).await;
    assert_eq!(stream.next().await.data, "after");
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_told_so() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let down = ssegate.wait_log("the refusal", is_down).await;
    assert!(field(&down, "cause").unwrap().contains("cluster support disabled"), "{down}");
}
