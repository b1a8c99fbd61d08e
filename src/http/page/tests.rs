//! What is in a page, where it goes on, and what it waits for.

use futures_util::FutureExt as _;

use super::super::testing::{Before, POLICY, Text, channel, hub, opens, terms, topic};
use super::*;
use crate::config::Start;
use crate::hub::{Feed, Hub, IdCodec as _, Position, Wish};

fn content(most: usize, stream: &str) -> Value {
    let mut reader = Reader::new(most, "stream.");
    reader.take(stream.as_bytes());
    serde_json::from_slice(&reader.content.document()).unwrap()
}

fn events(numbers: std::ops::Range<usize>, size: usize) -> String {
    numbers.map(|n| format!("data: {}\nid: {n}\n\n", "x".repeat(size))).collect()
}

const POSITION: &str = "event: stream.position\ndata: {}\nid: 0\n\n";
const GAP: &str = "event: stream.gap\ndata: {\"reason\":\"evicted\",\"missed\":2}\n\n";

#[test]
fn a_page_goes_on_after_its_last_event() {
    assert_eq!(content(3, POSITION), json!({ "events": [], "next": "0", "gaps": [] }));
    let stream = format!("{POSITION}{}", events(1..9, 1));
    let page = content(3, &stream);
    assert_eq!(page["next"], "3");
    assert_eq!(page["events"][2], json!({ "id": "3", "event": "message", "data": "x" }));
    assert_eq!(content(100, &stream)["next"], "8");
}

#[test]
fn for_the_place_alone_no_event_is_kept() {
    let stream = format!("{POSITION}{}", events(1..9, 1));
    assert_eq!(content(0, &stream), json!({ "events": [], "next": "8", "gaps": [] }));
}

#[test]
fn gaps_are_told_where_they_are_and_positions_are_none_of_the_events() {
    let stream = format!("{GAP}{POSITION}{}{GAP}{POSITION}{}", events(1..3, 1), events(3..5, 1));
    let page = content(3, &stream);
    let at = |at: usize| json!({ "at": at, "reason": "evicted", "missed": 2 });
    assert_eq!((&page["gaps"], &page["next"]), (&json!([at(0), at(2)]), &json!("3")));
    let page = content(2, &stream);
    assert_eq!((page["events"].as_array().unwrap().len(), &page["gaps"]), (2, &json!([at(0), at(2)])));
    assert_eq!(page["next"], "0", "past the second gap, which has been told");
}

#[test]
fn a_page_whose_time_is_up_is_one_if_its_client_comes_further_with_it() {
    let mut reader = Reader::new(3, "stream.");
    assert!(!reader.content.leads_on(true), "it does not know where it is");
    reader.take(POSITION.as_bytes());
    assert_eq!([true, false].map(|is_whole| reader.content.leads_on(is_whole)), [true, false]);
    reader.take(POSITION.as_bytes());
    assert!(!reader.content.leads_on(false), "the same place");
    reader.take(POSITION.replace("id: 0", "id: 7").as_bytes());
    assert!(reader.content.leads_on(false), "all up to there was not for its client");
    let mut reader = Reader::new(3, "stream.");
    reader.take(events(0..1, 1).as_bytes());
    assert!(reader.content.leads_on(false));
}

#[test]
fn a_page_is_bounded_in_bytes_but_holds_one_event() {
    let page = content(1_000, &format!("{POSITION}{}", events(1..9, SIZE / 3)));
    assert_eq!((page["events"].as_array().unwrap().len(), &page["next"]), (2, &json!("2")));
    let page = content(1_000, &format!("{POSITION}{}", events(1..9, 2 * SIZE)));
    assert_eq!((page["events"].as_array().unwrap().len(), &page["next"]), (1, &json!("1")));
}

/// Where the log of the topic begins.
const BEGIN: u64 = 3_500_000;

fn subscribe(hub: &Hub, feeds: &[&Arc<Feed>], start: Start, id: Option<&String>) -> hub::Reader {
    hub.subscribe(opens(feeds), &POLICY, Wish { id: id.cloned(), ..Wish::default() }, terms(start))
}

/// Reads page after page of a topic of which nothing makes an event, from the beginning. Returns where each goes on, up to one
/// that comes to nothing or goes on where it began.
async fn pages(gives: u64) -> Vec<u64> {
    let (hub, streams) = (hub(), Streams::new(Duration::from_secs(30)));
    let turns = Arc::clone(&streams);
    tokio::spawn(async move { turns.replay_turns.run().await });
    let topic = topic(&hub, BEGIN, Before { gives, last: None });
    let mut id = String::new();
    topic.own_ids().encode(&Position::default(), &mut id);

    let (mut at, mut all) = (0, Vec::new());
    loop {
        let feed = subscribe(&hub, &[&topic], Start::Latest, Some(&id));
        let page = Reader::new(LIMIT, "stream.").read(feed, &streams, PATIENCE, |_| ()).await;
        let Some(page) = page else { break };
        assert_eq!((page.count, page.gaps.len()), (0, 0));
        id = page.into_next().unwrap();
        let next = id.rsplit('-').next().unwrap().parse().unwrap();
        if next == at {
            break;
        }
        at = next;
        all.push(next);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn pages_come_to_the_end_of_what_makes_no_event() {
    assert_eq!(pages(u64::MAX).await, [1_024_000, 2_048_000, 3_072_000, BEGIN]);
    assert_eq!(pages(10_000).await, [10_000], "as far as the upstream answers in time");
}

/// It was full of what the first source has, and led nowhere, since its id said nothing of the other.
#[tokio::test(start_paused = true)]
async fn a_page_of_several_sources_waits_until_each_says_where_it_begins() {
    let (hub, streams) = (hub(), Streams::new(Duration::from_secs(30)));
    let [first, late] = ["first", "late"].map(|name| channel(&hub, name));
    first.confirm();
    first.log.append((0..3).map(|_| (None, Text("1"))));
    let page = || {
        let feed = subscribe(&hub, &[&first, &late], Start::Earliest, None);
        Reader::new(1, "stream.").read(feed, &streams, PATIENCE, |_| ())
    };
    assert!(page().await.is_none(), "it is not said in time");
    let begins = async {
        tokio::time::sleep(PATIENCE / 2).await;
        late.confirm();
    };
    let (page, _) = tokio::join!(page(), begins);
    let page = page.unwrap();
    assert_eq!(page.count, 1);
    let id = page.into_next().unwrap();
    assert_eq!(id.matches('~').count(), 2, "{id}");
}

/// One of several sources that replays was taken for one that has nothing.
#[tokio::test(start_paused = true)]
async fn a_page_of_several_sources_has_what_an_upstream_still_holds_of_one() {
    let (hub, streams) = (hub(), Streams::new(Duration::from_secs(30)));
    let topic = topic(&hub, 2_000, Before { gives: 2_000, last: Some(Text("past")) });
    let live = channel(&hub, "live");
    live.confirm();
    live.log.append([(None, Text("live"))]);
    let feed = subscribe(&hub, &[&topic, &live], Start::Earliest, None);
    let reading = Reader::new(LIMIT, "stream.").read(feed, &streams, PATIENCE, |_| ());
    tokio::pin!(reading);
    assert!(reading.as_mut().now_or_never().is_none(), "it waits for its turn");
    let turns = Arc::clone(&streams);
    tokio::spawn(async move { turns.replay_turns.run().await });
    let page = reading.await.unwrap();
    assert_eq!(page.count, 3);
    let document: Value = serde_json::from_slice(&page.document()).unwrap();
    let data: Vec<_> = document["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    assert_eq!(data, ["live", "past", "past"]);
}
