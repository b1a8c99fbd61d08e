//! A stream that three servers have: consumers are at any of them, and what is given is whole and in order whichever of them is
//! away for a while.

use std::time::Duration;

use async_nats::jetstream::stream;

use crate::support::eventsource::{EventSource, Options};
use crate::support::nats::{Nats, store};
use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

async fn cluster() -> [Nats; 3] {
    let ports = [ports::free(), ports::free(), ports::free()];
    let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
    let server = |n: usize| {
        format!(
            "server_name: n{n}\ncluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{routes}] }}\n\
             jetstream {{ store_dir: \"STORE\" }}",
            ports[n]
        )
    };
    let servers = [server(0), server(1), server(2)];
    // Each of them is well once there are others.
    tokio::join!(Nats::start_with(&servers[0]), Nats::start_with(&servers[1]), Nats::start_with(&servers[2]))
        .into()
}

async fn orders(nats: &Nats) {
    let context = nats.jetstream().await;
    eventually("the stream to be made", async || {
        let config = stream::Config {
            name: "ORDERS".into(),
            subjects: vec!["orders.>".into()],
            num_replicas: 3,
            ..Default::default()
        };
        context.create_stream(config).await.map(drop)
    })
    .await;
}

fn config(servers: &[Nats; 3]) -> String {
    let urls = servers.each_ref().map(|nats| format!("\"{}\"", nats.url())).join(", ");
    format!(
        r#"
upstreams: {{ bus: {{ nats: {{ servers: [{urls}], ping_interval: 200ms, timeout: 2s }} }} }}
defaults: {{ keepalive: 1s, history: {{ events: 5 }}, buffer: 64KiB }}
routes:
  - {{ path: /orders, from: {{ upstream: bus, jetstream: ORDERS }} }}
  - {{ path: "/orders/{{id}}", from: {{ upstream: bus, jetstream: ORDERS, subject: "orders.{{id}}" }} }}
"#
    )
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| (format!("orders.{}", n % 10), n.to_string()))
}

fn texts(range: impl Iterator<Item = u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn what_three_servers_have_is_given_whole_while_one_of_them_is_away() {
    let mut servers = cluster().await;
    orders(&servers[0]).await;
    let ssegate = Ssegate::start(config(&servers)).await;
    let mut all = EventSource::ready(ssegate.url("/orders"), Options::http2()).await;
    let mut sevens = EventSource::ready(ssegate.url("/orders/7"), Options::http2()).await;
    let begin = all.last_event_id().to_owned();
    let (mut next, step) = (0, 200);
    for away in 0..3 {
        servers[away].pause();
        let context = servers[(away + 1) % 3].jetstream().await;
        // Where the one that led is away, another one has to be elected first, and until then nobody answers.
        let mut asked = context.clone();
        asked.set_timeout(Duration::from_secs(1));
        eventually("the stream to be led", async || {
            let context = &asked;
            let stream = context.get_stream("ORDERS").await.map_err(|error| error.to_string())?;
            let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
            match leader {
                Some(leader) if leader != format!("n{away}") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        store(&context, numbers(next..next + step)).await;
        next += step;
        servers[away].resume();
        store(&context, numbers(next..next + step)).await;
        next += step;
        assert_eq!(all.next_data(2 * step as usize).await, texts(next - 2 * step..next));
        let own = (next - 2 * step..next).filter(|n| n % 10 == 7);
        assert_eq!(sevens.next_data(2 * step as usize / 10).await, texts(own));
    }
    for (path, expected) in
        [("/orders", texts(0..next)), ("/orders/7", texts((0..next).filter(|n| n % 10 == 7)))]
    {
        let mut back = EventSource::connect(ssegate.url(path), Options::http1().resume(&begin)).await;
        assert_eq!(back.next_data(expected.len()).await, expected, "{path}");
        assert!(back.events().iter().all(|event| event.event != "stream.gap"), "{back}");
    }
    assert!([&all, &sevens].iter().all(|one| one.events().iter().all(|event| event.event != "stream.gap")));
}
