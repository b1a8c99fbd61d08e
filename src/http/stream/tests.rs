//! What waits for what in a stream of several feeds, and what it gives back.

use std::future::poll_fn;

use tokio::time::timeout;

use super::super::limits::Places;
use super::super::testing::{Before, POLICY, Text, channel, hub, opens, stream, terms, topic};
use super::*;
use crate::config::composite::LONGEST;
use crate::config::{RouteLimits, Start};
use crate::hub::{Merged, Part, Tell, Wish};

/// Reads on until this is sent.
async fn until(stream: &mut Pin<Box<EventStream>>, text: &str) {
    let mut sent = String::new();
    let read = async {
        while !sent.contains(text) {
            let bytes = poll_fn(|cx| stream.as_mut().poll_bytes(cx)).await.expect("it goes on");
            sent.push_str(str::from_utf8(&bytes).unwrap());
        }
    };
    // It would look once more when the time is up.
    let (began, limit) = (Instant::now(), Duration::from_secs(1));
    let is_sent = timeout(limit, read).await.is_ok() && began.elapsed() < limit;
    assert!(is_sent, "{text:?} is not in {sent:?}");
}

/// They had one turn between them, and what is live came when history did.
#[tokio::test(start_paused = true)]
async fn feeds_that_memory_serves_do_not_wait_with_one_that_replays() {
    let (hub, (streams, registered)) = (hub(), stream("keepalive: 1m"));
    let before = Before { gives: 1_000_000, last: Some(Text("past")) };
    let (old, news) = (topic(&hub, 1_000_000, before), channel(&hub, "news"));
    news.confirm();
    let reader = hub.subscribe(opens(&[&old, &news]), &POLICY, Wish::default(), terms(Start::Earliest));
    let mut stream = Box::pin(EventStream::new(reader, registered, Written::Events(None)));
    until(&mut stream, "event: stream.position\n").await;
    // Nobody hands out turns yet, and it sleeps until the other feed wakes it.
    for _ in 0..3 {
        let news = Arc::clone(&news);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            news.log.append([(None, Text("live"))]);
        });
        until(&mut stream, "data: live\n").await;
    }
    assert_eq!((streams.replay_turns.waiting(), streams.turns.waiting()), (1, 0));

    let turns = Arc::clone(&streams);
    tokio::spawn(async move { turns.replay_turns.run().await });
    until(&mut stream, "data: past\n").await;
    // Much of both at once: each has its turns.
    let turns = Arc::clone(&streams);
    tokio::spawn(async move { turns.turns.run().await });
    news.log.append([(None, Text("live"))]);
    until(&mut stream, "data: live\n").await;
    until(&mut stream, "data: past\n").await;
    old.log.append([(None, Text("new"))]);
    until(&mut stream, "data: new\n").await;
    assert!(!stream.reader.as_ref().unwrap().replays());
}

/// One that always has more was read on without a look at the others.
#[tokio::test(start_paused = true)]
async fn a_feed_that_never_stops_leaves_the_others_their_turn() {
    let (hub, (streams, registered)) = (hub(), stream("keepalive: 1m"));
    let [flood, other] = ["flood", "other"].map(|name| channel(&hub, name));
    [&flood, &other].into_iter().for_each(|feed| drop(feed.confirm()));
    let reader = hub.subscribe(opens(&[&flood, &other]), &POLICY, Wish::default(), terms(Start::Latest));
    let mut stream = Box::pin(EventStream::new(reader, registered, Written::Events(None)));
    until(&mut stream, "event: stream.position\n").await;
    tokio::spawn(async move { streams.turns.run().await });
    let (wide, mut sent, mut rounds) = (Text("x".repeat(1_000).leak()), String::new(), 0);
    while !sent.contains("data: other\n") {
        assert!(rounds < 100, "nothing is told of the other");
        // More than is taken at once.
        flood.log.append((0..100).map(|_| (None, wide)));
        if rounds == 3 {
            other.log.append([(None, Text("other"))]);
        }
        let bytes = poll_fn(|cx| stream.as_mut().poll_bytes(cx)).await.expect("it goes on");
        sent.push_str(str::from_utf8(&bytes).unwrap());
        rounds += 1;
    }
}

/// It was kept for as long as the others went on.
#[tokio::test(start_paused = true)]
async fn a_feed_that_has_ended_leaves_its_place_to_another() {
    let (hub, (_streams, mut registered)) = (hub(), stream("keepalive: 1m"));
    let limits = RouteLimits { streams: Some(1), ..RouteLimits::default() };
    let client = std::net::IpAddr::from([127, 0, 0, 1]);
    let routes = [(); 2].map(|()| Places::new(limits));
    let labels = ["/long", "/news"].map(Arc::<str>::from);
    let places = routes.iter().zip(&labels);
    let places = places.map(|(route, label)| (Arc::clone(label), route.take(client.into()).ok().unwrap()));
    registered.takes(places.collect());
    // As a server of events may give it.
    let long = "x".repeat(LONGEST - 40);
    let part = |label: &Arc<str>, resumes: Option<String>| {
        let feed = channel(&hub, label);
        if resumes.is_none() {
            feed.confirm();
        }
        let reader = hub.subscribe(opens(&[&feed]), &POLICY, Wish::default(), terms(Start::Latest));
        Part { label: Arc::clone(label), reader, resumes }
    };
    let parts = vec![part(&labels[0], Some(long)), part(&labels[1], None)];
    let merged = Merged::new(parts, Tell::Event, "stream.".into(), Vec::new());
    let reader = Reader::Many(Box::new(merged));
    let mut stream = Box::pin(EventStream::new(reader, registered, Written::Events(None)));
    let is_free = || routes.each_ref().map(|route| route.take(client.into()).is_ok());
    assert_eq!(is_free(), [false, false]);
    until(&mut stream, "event: stream.position\n").await;
    assert_eq!(is_free(), [true, false]);
    drop(stream);
    assert_eq!(is_free(), [true, true]);
}
