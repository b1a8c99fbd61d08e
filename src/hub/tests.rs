//! Feeds that come and go: how long they are kept, for whom, and in what room.

use std::task::{Context, Waker};
use std::time::Duration;

use super::testing::{ROOM, TERMS, Text, shape};
use super::*;
use crate::config::Start;

fn hub() -> Hub {
    Hub::new([Arc::from("cache")], Memory::new(usize::MAX))
}

fn key(channel: &str) -> FeedKey {
    FeedKey { upstream: "cache".into(), source: Source::Channel(channel.into()), shape: shape() }
}

fn opens(channel: &str) -> Opens {
    Opens { feed: key(channel), key: None, start: None, also: Vec::new() }
}

fn policy(idle_secs: u64) -> Policy {
    Policy { bounds: ROOM, linger: Duration::ZERO, idle_timeout: Duration::from_secs(idle_secs) }
}

fn subscribe(hub: &Hub, id: Option<&str>) -> Subscription {
    let wish = Wish { id: id.map(str::to_owned), ..Wish::default() };
    only(hub.subscribe(opens("news"), &policy(60), wish, TERMS))
}

fn only(reader: Reader) -> Subscription {
    let Reader::One(subscription) = reader else { panic!("it reads several feeds") };
    subscription
}

/// What the subscription begins with: the gap, and the last id told.
fn begin(subscription: &mut Subscription) -> (Option<Reason>, String) {
    let Read::Control { bytes, gaps } = subscription.read(1_000) else { panic!("its start is told") };
    let text = str::from_utf8(&bytes).unwrap();
    (gaps.first().copied(), text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned())
}

async fn sweep_after(hub: &Hub, secs: u64) {
    tokio::time::advance(Duration::from_secs(secs)).await;
    hub.sweep(Instant::now());
}

fn wanted(hub: &Hub) -> usize {
    hub.wanted("cache").unwrap().snapshot().len()
}

#[tokio::test(start_paused = true)]
async fn a_feed_outlives_its_last_subscriber_by_its_time() {
    let hub = hub();
    let (first, second) = (subscribe(&hub, None), subscribe(&hub, None));
    assert!(Arc::ptr_eq(first.feed(), second.feed()));
    assert_eq!((hub.feeds().len(), wanted(&hub)), (1, 1));
    drop(first);
    sweep_after(&hub, 1_000).await;
    assert_eq!(wanted(&hub), 1, "it has a subscriber");
    drop(second);
    sweep_after(&hub, 59).await;
    assert_eq!(wanted(&hub), 1);
    let again = subscribe(&hub, None);
    sweep_after(&hub, 1).await;
    drop(again);
    sweep_after(&hub, 59).await;
    assert_eq!(wanted(&hub), 1, "its time began anew");
    sweep_after(&hub, 1).await;
    assert_eq!((hub.feeds().len(), wanted(&hub)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_longer_of_two_times_holds_and_a_held_feed_stays() {
    let hub = hub();
    drop(hub.subscribe(opens("rooms"), &policy(60), Wish::default(), TERMS));
    drop(hub.subscribe(opens("rooms"), &policy(90), Wish::default(), TERMS));
    drop(hub.subscribe(opens("rooms"), &policy(10), Wish::default(), TERMS));
    hub.hold(key("news"), &policy(0));
    drop(subscribe(&hub, None));
    sweep_after(&hub, 89).await;
    assert_eq!(wanted(&hub), 2);
    sweep_after(&hub, 1).await;
    let left: Vec<_> = hub.feeds().iter().map(|feed| feed.key.source.name().to_owned()).collect();
    assert_eq!(left, ["news"]);
    sweep_after(&hub, 1_000_000).await;
    assert_eq!(wanted(&hub), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_from_before_a_feed_was_idle_is_told_apart() {
    let hub = hub();
    let mut first = subscribe(&hub, None);
    assert!(matches!(first.read(1_000), Read::Pending), "its subscription is not confirmed yet");
    first.feed().confirm();
    let (gap, id) = begin(&mut first);
    assert_eq!(gap, None);
    drop(first);
    sweep_after(&hub, 60).await;

    let mut back = subscribe(&hub, Some(&id));
    back.feed().confirm();
    let (gap, new_id) = begin(&mut back);
    assert_eq!(gap, Some(Reason::FeedIdle));
    assert_ne!(id, new_id);
    assert_eq!(begin(&mut subscribe(&hub, Some(&new_id))), (None, new_id.clone()));
    let (gap, _) = begin(&mut subscribe(&hub, Some("0123456789abcdef-0")));
    assert_eq!(gap, Some(Reason::UnknownId));
    let wish = Wish { id: Some(new_id), ..Wish::default() };
    let mut other = only(hub.subscribe(opens("sports"), &policy(60), wish, TERMS));
    other.feed().confirm();
    assert_eq!(begin(&mut other).0, Some(Reason::UnknownId), "an id of another feed");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_told_once_when_the_subscription_stands_again() {
    let hub = hub();
    let mut subscription = subscribe(&hub, None);
    let feed = Arc::clone(subscription.feed());
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    feed.lose(long_ago);
    assert!(feed.confirm().gaps.is_empty(), "nothing was subscribed to that could have been lost");
    begin(&mut subscription);
    feed.lose(long_ago);
    feed.lose(long_ago + Duration::from_secs(5));
    assert_eq!(feed.confirm().gaps, [Reason::UpstreamLost]);
    assert!(feed.confirm().gaps.is_empty());
    let Read::Slice { bytes, events: 1, .. } = subscription.read(1_000) else { panic!("the gap") };
    assert!(str::from_utf8(&bytes).unwrap().contains(r#""since":"1970-01-01T00:00:00.000Z""#));
}

#[tokio::test(start_paused = true)]
async fn beyond_its_quota_a_feed_takes_the_place_of_an_idle_one_or_there_is_none() {
    let (hub, quota) = (hub(), Arc::new(Quota::new(3)));
    let within = |room: &str| hub.subscribe_within(&quota, opens(room), &policy(60), Wish::default(), TERMS);
    let read: Vec<_> = ["a", "b"].map(|room| within(room).unwrap()).into();
    assert!(!quota.has_idle(), "all that there are are read");
    drop(within("c"));
    assert!(quota.has_idle());
    drop((within("c"), within("c")));
    tokio::time::advance(Duration::from_secs(1)).await;
    let d = within("d").expect("`c` is idle");
    let mut names: Vec<_> = hub.feeds().iter().map(|feed| feed.key.source.name().to_owned()).collect();
    names.sort();
    assert_eq!((names, quota.kept(), wanted(&hub)), (vec!["a".into(), "b".into(), "d".into()], 3, 3));
    assert!(!quota.has_idle(), "nobody has to look for one that could make way");
    assert!(within("e").is_none(), "all three are read");
    assert!(within("a").is_some(), "those that are there go on");
    let free = only(hub.subscribe(opens("free"), &policy(60), Wish::default(), TERMS));
    assert_eq!(free.feed().log.readers(), 1);
    drop((read, d, free));
    sweep_after(&hub, 60).await;
    assert_eq!((quota.kept(), quota.has_idle(), hub.feeds().len()), (0, false, 0));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_for_one_of_several_none_is_kept_from_others() {
    let (hub, quota) = (hub(), Arc::new(Quota::new(2)));
    let within = |first: &str, also: &[&str]| {
        let also = also.iter().map(|channel| opens(channel)).collect();
        let opens = Opens { also, ..opens(first) };
        hub.subscribe_within(&quota, opens, &policy(60), Wish::default(), TERMS)
    };
    let held = within("a", &[]);
    assert!(within("b", &["c"]).is_none(), "all but one are read");
    assert_eq!((quota.kept(), quota.has_idle()), (2, true));
    let both = within("d", &["a"]).expect("what was opened before there was no room makes way");
    assert!(!quota.has_idle());
    assert_eq!(both.feeds().iter().map(|feed| feed.key.source.name()).collect::<HashSet<_>>().len(), 2);
    drop((held, both));
    sweep_after(&hub, 60).await;
    assert_eq!((quota.kept(), quota.has_idle(), hub.feeds().len()), (0, false, 0));
}

#[tokio::test(start_paused = true)]
async fn several_sources_are_one_feed_to_the_outside_which_is_resumed_exactly() {
    let hub = hub();
    let several = |id: Option<String>| {
        let sports = Opens { start: Some(Start::Earliest), ..opens("sports") };
        let opens = Opens { also: vec![sports, opens("news")], ..opens("news") };
        hub.subscribe(opens, &policy(60), Wish { id, ..Wish::default() }, TERMS)
    };
    let held = ["news", "sports"].map(|channel| hub.hold(key(channel), &policy(60)));
    for feed in &held {
        feed.confirm();
        feed.log.append([(None, Text("before"))]);
    }
    let mut reader = several(None);
    let told = |reader: &mut Reader| {
        let mut told = Vec::new();
        let _ = reader.poll_wake(&mut Context::from_waker(Waker::noop()));
        loop {
            match reader.read(1_000) {
                Read::Pending => return String::from_utf8(told).unwrap(),
                Read::Control { bytes, .. } => told.extend(bytes),
                Read::Pieces { bytes, .. } => told.extend(bytes.concat()),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(told(&mut reader).matches("data: before\n").count(), 1, "each begins where it is to begin");
    held[0].log.append([(None, Text("twice"))]);
    let text = told(&mut reader);
    assert_eq!(text.matches("data: twice\n").count(), 2, "what is listed twice is read twice");
    let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    drop(reader);
    held[1].log.append([(None, Text("meanwhile"))]);
    let text = told(&mut several(Some(id)));
    assert!(text.contains("data: meanwhile\n") && !text.contains("stream.gap"), "{text}");
    assert!(!text.contains("before") && !text.contains("twice"), "{text}");
    assert!(told(&mut several(Some("17".into()))).contains(r#""reason":"unknown_id""#));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_and_how_it_is_kept_may_change() {
    let hub = hub();
    let (old, both) = (hub.hold(key("old"), &policy(60)), hub.hold(key("both"), &policy(60)));
    let reads = hub.subscribe(opens("old"), &policy(60), Wish::default(), TERMS);
    let small = Bounds { events: 1, ..ROOM };
    let less = Policy { bounds: small, ..policy(5) };
    let before = [(key("old"), policy(60)), (key("both"), policy(60))].into();
    hub.hold_only(&[(key("both"), less), (key("new"), policy(60))].into(), &before);
    assert_eq!((both.log.bounds(), wanted(&hub)), (small, 3), "also where it is less");
    assert!(Arc::ptr_eq(&both, &hub.kept(&key("both")).unwrap()));
    sweep_after(&hub, 1_000).await;
    assert_eq!(wanted(&hub), 3, "somebody reads the old one");
    drop(reads);
    sweep_after(&hub, 59).await;
    assert_eq!(wanted(&hub), 3);
    sweep_after(&hub, 1).await;
    assert_eq!((wanted(&hub), hub.kept(&key("old")).is_none()), (2, true));
    assert_eq!(old.log.readers(), 0);

    let quota = Arc::new(Quota::new(9));
    let of_quota =
        only(hub.subscribe_within(&quota, opens("room"), &policy(60), Wish::default(), TERMS).unwrap());
    hub.keep(&[(Arc::clone(&quota), less)]);
    assert_eq!(of_quota.feed().log.bounds(), small);
    assert_eq!(hub.kept(&key("new")).unwrap().log.bounds(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn a_retired_upstream_is_fed_for_those_who_read_it_and_for_nobody_else() {
    let (hub, quota) = (hub(), Arc::new(Quota::new(3)));
    let within = |hub: &Hub| {
        only(hub.subscribe_within(&quota, opens("room"), &policy(60), Wish::default(), TERMS).unwrap())
    };
    let (held, old) = (hub.hold(key("news"), &policy(60)), within(&hub));
    let before = hub.wanted("cache").unwrap();
    hub.retire("cache");
    assert_eq!((before.snapshot().len(), hub.feeds().len(), quota.kept()), (2, 0, 0));
    hub.add_upstream(&"cache".into());
    assert_eq!(wanted(&hub), 0);
    let new = within(&hub);
    assert!(!Arc::ptr_eq(old.feed(), new.feed()) && quota.kept() == 1);
    drop((old, held));
    sweep_after(&hub, 60).await;
    assert!(!quota.has_idle(), "what left was none of those that are kept");
    drop(new);
    sweep_after(&hub, 60).await;
    assert_eq!((wanted(&hub), quota.kept(), quota.has_idle()), (0, 0, false));
}

/// What a feed holds goes with it.
#[tokio::test(start_paused = true)]
async fn memory_is_given_back() {
    let hub = hub();
    let subscription = subscribe(&hub, None);
    subscription.feed().confirm();
    subscription.feed().log.append([(None, Text("text"))]);
    assert!(hub.memory().used() > 0);
    drop(subscription);
    sweep_after(&hub, 60).await;
    assert_eq!(hub.memory().used(), 0);
}
