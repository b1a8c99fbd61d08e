//! Upstreams come, go, and are entered in another way while streams are open: what the upstream keeps is neither lost nor
//! given twice, and what may be lost is told.

use std::time::Duration;

use crate::support::eventsource::{End, EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;
use crate::upgrade::server;

async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http2()).await
}

/// Waits until the link to this upstream is as it should be.
async fn until_up(ssegate: &Ssegate, upstream: &str, up: bool) {
    eventually(&format!("{upstream} to be up: {up}"), async || {
        let status = ssegate.status().await;
        let found =
            status["upstreams"].as_array().unwrap().iter().find(|one| one["name"] == upstream).cloned();
        match found {
            Some(one) if one["up"] == up => Ok(()),
            one => Err(format!("{one:?}")),
        }
    })
    .await;
}

/// A user who may do everything, by name and password.
async fn let_in(redis: &Redis, user: &str) {
    redis.say::<()>(&format!("ACL SETUSER {user} on >{user}-password allkeys allchannels allcommands")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_of_redis_takes_over_and_only_messages_may_be_lost() {
    let redis = Redis::start().await;
    for user in ["first", "second"] {
        let_in(&redis, user).await;
    }
    let yaml = |user: &str| {
        format!(
            "{}upstreams: {{ cache: {{ redis: {{ url: \"redis://{user}:{user}-password@127.0.0.1:{}\" }} }} }}
routes:
  - {{ path: /c, from: {{ upstream: cache, channel: c }} }}
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: \"{{field.n}}\", history: {{ events: 2 }} }}
",
            server(0, "1s"),
            redis.port()
        )
    };
    let ssegate = Ssegate::start(yaml("first")).await;
    let (mut messages, mut entries) = (open(&ssegate, "/c").await, open(&ssegate, "/s").await);
    redis.until_subscribed("c", 1).await;
    redis.publish("c", "1").await;
    assert_eq!(messages.next_message().await.data, "1");
    redis.xadd_numbers("s", 0..10).await;
    assert_eq!(entries.next_data(10).await.last().unwrap(), "9");
    let early = entries.events().iter().find(|event| event.data == "1").unwrap().id.clone();

    assert_eq!(ssegate.reload(&yaml("second")).await, ["upstream cache: connects anew; its streams stay"]);
    redis.xadd_numbers("s", 10..20).await;
    let gap = messages.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost", "{gap}");
    redis.until_subscribed("c", 1).await;
    redis.publish("c", "2").await;
    assert_eq!(messages.next_message().await.data, "2");
    let numbers: Vec<String> = (10..20).map(|n| n.to_string()).collect();
    assert_eq!(entries.next_data(10).await, numbers, "nothing missing, nothing twice");
    // What is asked of history is asked as the second one, too.
    eventually("the first one to be gone", async || {
        let list: String = redis.say("CLIENT LIST").await;
        if list.contains("user=first") { Err(list) } else { Ok(()) }
    })
    .await;
    redis.say::<i32>("ACL DELUSER first").await;
    let mut back = EventSource::connect(ssegate.url("/s"), Options::http1().resume(&early)).await;
    let numbers: Vec<String> = (2..20).map(|n| n.to_string()).collect();
    assert_eq!(back.next_data(18).await, numbers);
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_upstream_reconnects_total", &[]), 0.0, "nothing went wrong");
    assert_eq!(metrics.sum("ssegate_streams_ended_total", &[]), 0.0);

    // One whom Redis does not let in: the link is down, streams stay, and the next reload mends it.
    ssegate.reload(&yaml("nobody")).await;
    until_up(&ssegate, "cache", false).await;
    redis.xadd_numbers("s", 20..22).await;
    ssegate.reload(&yaml("second")).await;
    assert_eq!(entries.next_data(2).await, ["20", "21"]);
    until_up(&ssegate, "cache", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_is_entered_anew_and_goes_on_at_the_exact_offset() {
    let kafka = Kafka::shared().await;
    let topic = unique("reload");
    kafka.create_topic(&topic, 3).await;
    let yaml = |client: &str| {
        format!(
            "{}upstreams: {{ bus: {{ kafka: {{ brokers: [\"{}\"], properties: {{ client.id: {client} }} }} }} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }}, history: {{ events: 3 }} }}
  - {{ path: \"/k/{{k}}\", from: {{ upstream: bus, topic: {topic}, key: \"{{k}}\" }} }}
",
            server(0, "1s"),
            kafka.bootstrap()
        )
    };
    let ssegate = Ssegate::start(yaml("first")).await;
    let (mut all, mut keyed) = (open(&ssegate, "/t").await, open(&ssegate, "/k/a").await);
    let produce = async |numbers: std::ops::Range<i32>| {
        let record =
            |n: i32| Record::to(&topic).key(if n % 2 == 0 { "a" } else { "b" }).payload(n.to_string());
        kafka.produce_all(numbers.map(record)).await;
    };
    let sorted = async |stream: &mut EventSource, count: usize| {
        let data = stream.next_data(count).await;
        let mut numbers: Vec<i32> = data.iter().map(|data| data.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    produce(0..20).await;
    assert_eq!(sorted(&mut all, 20).await, (0..20).collect::<Vec<_>>());
    assert_eq!(sorted(&mut keyed, 10).await, (0..20).step_by(2).collect::<Vec<_>>());
    let early = all.events().iter().find(|event| event.event == "stream.position").unwrap().id.clone();
    for (n, client) in ["second", "third", "fourth"].into_iter().enumerate() {
        let from = 20 + 20 * n as i32;
        produce(from..from + 10).await;
        assert_eq!(ssegate.reload(&yaml(client)).await, ["upstream bus: connects anew; its streams stay"]);
        produce(from + 10..from + 20).await;
        assert_eq!(sorted(&mut all, 20).await, (from..from + 20).collect::<Vec<_>>());
        assert_eq!(sorted(&mut keyed, 10).await, (from..from + 20).step_by(2).collect::<Vec<_>>());
    }
    // History is read as well by those who are configured now.
    let mut back = EventSource::connect(ssegate.url("/t"), Options::http1().resume(&early)).await;
    assert_eq!(sorted(&mut back, 80).await, (0..80).collect::<Vec<_>>());
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_streams_ended_total", &[]), 0.0);
    assert_eq!(metrics.sum("ssegate_source_gaps_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_another_system_has_its_streams_come_back() {
    let (first, second) = (Redis::start().await, Redis::start().await);
    let yaml = |redis: &Redis| {
        format!(
            "{}upstreams: {{ cache: {{ redis: {{ url: \"{}\" }} }}, clock: {{ ticker: {{ every: 50ms }} }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: \"{{field.n}}\", retry: 100ms }}
  - {{ path: /t, from: {{ upstream: clock }} }}
",
            server(0, "3s"),
            redis.url()
        )
    };
    // The second has been given what the first had.
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(first.xadd("s", "*", &[("n", &n.to_string())]).await);
        second.xadd("s", ids.last().unwrap(), &[("n", &n.to_string())]).await;
    }
    let ssegate = Ssegate::start(yaml(&first)).await;
    let mut clock = open(&ssegate, "/t").await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = open(&ssegate, "/s").await;
        first.xadd("s", "*", &[("n", "6")]).await;
        stream.next_message().await;
        streams.push(stream);
    }
    let changes = ssegate.reload(&yaml(&second)).await;
    assert_eq!(
        changes,
        [
            "upstream cache: is another system; its streams end, and come back",
            "route /s: reads something else; its streams end"
        ]
    );
    // Until its turn comes, each is given what the first one says.
    first.xadd("s", "*", &[("n", "last")]).await;
    second.xadd("s", "*", &[("n", "new")]).await;
    let mut new = EventSource::connect(ssegate.url("/s"), Options::http1().resume(&ids[3])).await;
    assert_eq!(new.next_data(2).await, ["5", "new"], "an id holds where the entry is there");
    for stream in &mut streams {
        assert_eq!(stream.until_end().await, End::Complete);
        assert!(!stream.events().iter().any(|event| event.data == "new"), "{stream}");
    }
    eventually("the first one to be left", async || {
        let list: String = first.say("CLIENT LIST TYPE normal").await;
        // The rig has a connection of its own.
        if list.lines().count() > 1 { Err(list) } else { Ok(()) }
    })
    .await;
    clock.next_message().await;
}

/// The old one is asked for in vain as long as its streams are sent away, and nobody is to take that for the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_stands_in_for_a_dead_one_is_up() {
    let redis = Redis::start().await;
    let yaml = |url: &str| {
        format!(
            "{}upstreams: {{ cache: {{ redis: {{ url: \"{url}\" }} }} }}
routes: [ {{ path: /c, from: {{ upstream: cache, channel: c }} }} ]
",
            server(0, "1m")
        )
    };
    let ssegate = Ssegate::start(yaml(&format!("redis://127.0.0.1:{}", ports::free()))).await;
    until_up(&ssegate, "cache", false).await;
    ssegate.reload(&yaml(&redis.url())).await;
    until_up(&ssegate, "cache", true).await;
    let tried = async || ssegate.metrics().await.sum("ssegate_upstream_reconnects_total", &[]);
    let before = tried().await;
    eventually("the old one to be tried again", async || {
        let now = tried().await;
        if now >= before + 2.0 { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(ssegate.metrics().await.sum("ssegate_upstream_up", &[]), 1.0);
    assert_eq!(ssegate.status().await["upstreams"][0]["up"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_come_and_go_with_their_routes() {
    let redis = Redis::start().await;
    let clock = "clock: { ticker: { every: 20ms, data: tick } }";
    let cache = format!("cache: {{ redis: {{ url: \"{}\" }} }}", redis.url());
    let lobby = "lobby: { push: {} }";
    let tick = "{ path: /t, from: { upstream: clock } }";
    let channel = "{ path: /c, from: { upstream: cache, channel: c } }";
    let stream = "{ path: /s, from: { upstream: cache, stream: s }, data: \"{field.n}\" }";
    let room = "{ path: \"/r/{r}\", from: { upstream: lobby, channel: \"{r}\" } }";
    let yaml = |upstreams: &[&str], routes: &[&str]| {
        format!(
            "{}upstreams: {{ {} }}\nroutes: [{}]\n",
            server(0, "0s"),
            upstreams.join(", "),
            routes.join(", ")
        )
    };
    let ssegate = Ssegate::start(yaml(&[clock], &[tick])).await;
    let mut ticks = open(&ssegate, "/t").await;
    let none = ssegate.admin(http::Method::POST, "/publish/a", "x").await;
    assert_eq!(none.status, 404, "there is no push upstream");
    let changes = ssegate.reload(&yaml(&[clock, &cache, lobby], &[tick, channel, stream, room])).await;
    let added = ["upstream cache", "upstream lobby", "route /c", "route /s", "route /r/{r}"];
    assert_eq!(changes, added.map(|name| format!("{name}: added")));
    let (mut messages, mut rooms) = (open(&ssegate, "/c").await, open(&ssegate, "/r/a").await);
    let mut entries = open(&ssegate, "/s").await;
    redis.xadd_numbers("s", 0..3).await;
    assert_eq!(entries.next_data(3).await, ["0", "1", "2"]);
    redis.until_subscribed("c", 1).await;
    redis.publish("c", "1").await;
    ssegate.publish("a", "2").await;
    assert_eq!(
        (messages.next_message().await.data, rooms.next_message().await.data),
        ("1".into(), "2".into())
    );
    // A push upstream of another name is another one.
    let (hall, hall_room) = ("hall: { push: {} }", room.replace("lobby", "hall"));
    ssegate.reload(&yaml(&[clock, &cache, hall], &[tick, channel, stream, &hall_room])).await;
    assert_eq!(rooms.until_end().await, End::Complete);
    let mut rooms = open(&ssegate, "/r/a").await;
    ssegate.publish("a", "3").await;
    assert_eq!(rooms.next_message().await.data, "3");

    let changes = ssegate.reload(&yaml(&[clock], &[tick])).await;
    assert_eq!(changes.len(), 5, "{changes:?}");
    for stream in [&mut messages, &mut entries, &mut rooms] {
        assert_eq!(stream.until_end().await, End::Complete);
    }
    eventually("Redis to be left", async || match redis.pubsub_connections().await {
        0 => Ok(()),
        some => Err(format!("{some}")),
    })
    .await;
    eventually("its metrics to go", async || {
        match ssegate.metrics().await.text.contains("upstream=\"cache\"") {
            false => Ok(()),
            true => Err("they are shown"),
        }
    })
    .await;
    assert_eq!(ssegate.status().await["totals"]["upstreams"], 1);
    // Another pace and another text, for those who listen already.
    let faster = clock.replace("tick }", "tock }");
    assert_eq!(
        ssegate.reload(&yaml(&[&faster], &[tick])).await,
        ["upstream clock: connects anew; its streams stay"]
    );
    let told = async { while ticks.next_message().await.data != "tock" {} };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the new text");
    assert!(ticks.events().iter().all(|event| event.event != "stream.gap"), "{ticks}");
}

/// What is held without a client is kept as the newest file says, and let go when none has it.
#[tokio::test]
async fn history_is_kept_as_the_newest_file_says() {
    let yaml = |events: usize, channel: &str| {
        format!(
            "{}upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /e, from: {{ upstream: lobby, channel: {channel} }}, history: {{ events: {events} }}, idle_timeout: 1s }} ]
",
            server(0, "0s")
        )
    };
    let ssegate = Ssegate::start(yaml(100, "e")).await;
    let mut stream = open(&ssegate, "/e").await;
    for n in 0..10 {
        ssegate.publish("e", n.to_string()).await;
    }
    let first = stream.next_message().await.id;
    stream.close();
    let kept = async || ssegate.status().await["feeds"][0]["history"]["events"].as_u64().unwrap();
    assert_eq!(kept().await, 10);
    ssegate.reload(&yaml(100, "e").replace("idle_timeout: 1s", "idle_timeout: 2s")).await;
    assert_eq!(kept().await, 10);
    ssegate.reload(&yaml(3, "e")).await;
    eventually("less to be kept", async || match kept().await {
        3 => Ok(()),
        events => Err(format!("{events}")),
    })
    .await;
    let mut back = EventSource::connect(ssegate.url("/e"), Options::http1().resume(&first)).await;
    assert_eq!(back.next_gap().await["reason"], "evicted");
    back.close();
    ssegate.reload(&yaml(3, "other")).await;
    eventually("the old one to be let go", async || {
        let feeds = ssegate.status().await["feeds"].clone();
        let named: Vec<_> = feeds.as_array().unwrap().iter().map(|feed| feed["source"].clone()).collect();
        if named == ["other"] { Ok(()) } else { Err(format!("{named:?}")) }
    })
    .await;
}
