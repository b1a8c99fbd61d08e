//! A new version, or a new configuration, on all replicas: one after the other is restarted behind a balancer, while
//! clients listen and others come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::child::raise_descriptor_limit;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::within;
use crate::tls::pair;
use crate::upgrade::{are_spread, follow};

/// With the drain of a configuration that says nothing of it: 20 seconds. In each of them a twentieth of those who are sent
/// away is expected back, who are all clients when the last replica ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_restarted_one_by_one_and_nobody_is_refused_or_misses_anything() {
    raise_descriptor_limit();
    let (redis, kafka, topic) = (Arc::new(Redis::start().await), Kafka::shared().await, unique("rolling"));
    kafka.create_topic(&topic, 1).await;
    let routes = format!(
        "upstreams:
  cache: {{ redis: {{ url: \"{}\" }} }}
  bus: {{ kafka: {{ brokers: [\"{}\"] }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: \"{{field.n}}\" }}
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }} }}
",
        redis.url(),
        kafka.bootstrap()
    );
    let mut replicas = [Replica::start(&routes).await, Replica::start(&routes).await];
    let balancer = Balancer::start(replicas.iter().map(|replica| (replica.addr, replica.admin))).await;

    let mut opening = JoinSet::new();
    for n in 0..CLIENTS {
        let connect = if n % 5 == 0 { Connect::http2() } else { Connect::http1() };
        let options = Options::default().connect(connect.to(balancer.addr()));
        let path = if n % 2 == 0 { "s" } else { "t" };
        let url = format!("https://localhost:{}/{path}", balancer.addr().port());
        opening.spawn(async {
            let mut stream = EventSource::connect(url, options).await;
            stream.next_named("stream.position").await;
            stream
        });
    }
    let mut clients = JoinSet::new();
    while let Some(stream) = within("a client to have a stream", opening.join_next()).await {
        clients.spawn(follow(stream.expect("no panic")));
    }
    for replica in &replicas {
        assert_eq!(replica.ssegate.status().await["subscribers"], CLIENTS / 2);
    }

    let (stop, stopped) = watch::channel(false);
    let mut visitors = JoinSet::new();
    for connect in [Connect::http1(), Connect::http2()] {
        visitors.spawn(visit(connect.to(balancer.addr()), stopped.clone()));
    }
    let published = tokio::spawn(publish(Arc::clone(&redis), kafka, topic, stopped));
    for (at, replica) in replicas.iter_mut().enumerate() {
        assert!(replica.ssegate.terminate().await.success());
        balancer.until(at, false).await;
        replica.start_again().await;
        balancer.until(at, true).await;
    }
    stop.send_replace(true);

    let published = within("the publisher to end", published).await.expect("no panic");
    let mut returns = Vec::new();
    while let Some(client) = within("a client to have it all", clients.join_next()).await {
        let told = client.expect("no gap");
        assert_eq!(
            told.numbers,
            (0..published).collect::<Vec<_>>(),
            "nothing is missing, nothing comes twice"
        );
        assert_eq!(told.refused, Vec::<String>::new());
        // Twice, if it went from the first replica to the second before that one ended.
        assert!((1..=2).contains(&told.came_back.len()), "{:?}", told.came_back);
        returns.extend(told.came_back);
    }
    are_spread(returns, CLIENTS);
    while let Some(visits) = within("visitors to leave", visitors.join_next()).await {
        assert!(visits.expect("nobody was refused") > 50);
    }
    assert_eq!(balancer.turned_away(), 0);
}

/// One that keeps its addresses.
struct Replica {
    ssegate: Ssegate,
    config: String,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Replica {
    async fn start(routes: &str) -> Self {
        let [addr, admin] =
            [ports::free(), ports::free()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let tls = pair(TestCa::shared().leaf());
        let config = format!(
            "server: {{ listen: \"{addr}\", tls: {{ {tls} }} }}\nadmin: {{ listen: \"{admin}\" }}\n{routes}"
        );
        Self { ssegate: Ssegate::start(&*config).await, config, addr, admin }
    }

    async fn start_again(&mut self) {
        self.ssegate = Ssegate::start(&*self.config).await;
    }
}

/// Publishes numbers to the stream and the topic until told to stop, then `end`; how many there were.
async fn publish(
    redis: Arc<Redis>,
    kafka: &'static Kafka,
    topic: String,
    stopped: watch::Receiver<bool>,
) -> i32 {
    let publish = async |number: &str| {
        redis.xadd("s", "*", &[("n", number)]).await;
        kafka.produce(Record::to(&topic).partition(0).payload(number)).await;
    };
    let mut published = 0;
    while !*stopped.borrow() {
        publish(&published.to_string()).await;
        published += 1;
        tokio::time::sleep(PACE).await;
    }
    publish("end").await;
    published
}

/// Comes and goes on a connection of its own, again and again; how often.
async fn visit(connect: Connect, stopped: watch::Receiver<bool>) -> u32 {
    let url = format!("https://localhost:{}/s", connect.to.expect("the balancer").port());
    let mut visits = 0;
    while !*stopped.borrow() {
        assert_eq!(request(Method::HEAD, &url, &[], "", &connect).await.status, 200);
        visits += 1;
        tokio::time::sleep(PACE / 10).await;
    }
    visits
}

const CLIENTS: usize = 400;
/// Between two events.
const PACE: Duration = Duration::from_millis(500);
