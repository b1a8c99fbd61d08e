//! What is due, when, and that nothing stays behind of a stream that has ended.

use serde_json::Value;

use super::super::testing::stream;
use super::*;

fn grant(secs: u64) -> Arc<Grant> {
    let expires = Some(SystemTime::now() + Duration::from_secs(secs));
    Arc::new(Grant { expires, ..Grant::new(&"users".into(), "alice", Value::Null) })
}

fn after(streams: &Streams, secs: u64) {
    for (due, control) in streams.deadlines.take_due(Instant::now() + Duration::from_secs(secs)) {
        streams.deadlines.act(due, &control);
    }
}

fn queued(streams: &Streams) -> usize {
    streams.deadlines.queue.lock().len()
}

#[tokio::test]
async fn a_stream_is_told_once_and_ends_with_its_credential() {
    let (streams, stream) = stream("expiring: 10s");
    streams.deadlines.grant(&stream.control, "/t", &[grant(60)]);
    after(&streams, 49);
    assert_eq!(stream.notice(), None);
    after(&streams, 51);
    let notice = stream.notice().unwrap();
    let notice = str::from_utf8(&notice).unwrap();
    assert!(notice.starts_with("event: stream.expiring\ndata: {\"expires\":\"20"), "{notice}");
    assert!(notice.contains("\"renew\":\"/t?renew=") && notice.ends_with("\n\n"), "{notice}");
    assert_eq!((stream.notice(), stream.control.ending()), (None, None));
    after(&streams, 61);
    assert_eq!(stream.control.ending(), Some(End::Expired));
    assert_eq!(queued(&streams), 1, "it is cut if it does not end");
    drop(stream);
    assert_eq!(queued(&streams), 0);
}

#[tokio::test]
async fn a_stream_ends_before_the_cookie_that_its_client_comes_back_with() {
    let (streams, stream) = stream("expiring: 10s");
    let shown_until = Some(SystemTime::now() + Duration::from_secs(1_000));
    let grant = Grant { shown_until, ..Grant::new(&"machines".into(), "ci", Value::Null) };
    streams.deadlines.grant(&stream.control, "/t", &[Arc::new(grant)]);
    after(&streams, 440);
    assert_eq!((stream.notice(), stream.control.ending()), (None, None));
    after(&streams, 755);
    assert_eq!((stream.notice(), stream.control.ending()), (None, Some(End::Age)));
}

#[tokio::test]
async fn a_stream_of_several_feeds_ends_with_the_first_of_its_credentials() {
    let (streams, stream) = stream("expiring: 10s");
    let named = |name: &str, expires| {
        Arc::new(Grant { expires, ..Grant::new(&"machines".into(), name, Value::Null) })
    };
    let in_secs = |secs| Some(SystemTime::now() + Duration::from_secs(secs));
    let grants = [named("ci", None), grant(600), grant(60), named("cd", None)];
    streams.deadlines.grant(&stream.control, "/t", &grants);
    after(&streams, 51);
    let notice = stream.notice().unwrap();
    assert!(str::from_utf8(&notice).unwrap().contains("\"renew\":\"/t?renew="), "{notice:?}");
    for name in ["ci", "cd", "alice"] {
        assert!(stream.control.lease.lock().as_ref().unwrap().grants().any(|grant| &*grant.subject == name));
    }
    streams.deadlines.grant(&stream.control, "/t", &[named("", None), named("ci", in_secs(60))]);
    assert_eq!(queued(&streams), 2);
    after(&streams, 51);
    let notice = stream.notice().unwrap();
    assert!(str::from_utf8(&notice).unwrap().contains("\"renew\":null"), "one has no name: {notice:?}");
    assert_eq!(streams.revoke(|grant| &*grant.subject == "alice"), 0, "what was renewed is forgotten");
    assert_eq!(streams.revoke(|grant| grant.subject.is_empty()), 1, "any of them");
    assert_eq!(stream.control.ending(), Some(End::Revoked));
}

#[tokio::test]
async fn nobody_in_particular_is_given_no_link_to_renew_with() {
    let (streams, stream) = stream("expiring: 10s");
    let expires = Some(SystemTime::now() + Duration::from_secs(5));
    let grant = Grant { expires, ..Grant::new(&"users".into(), "", Value::Null) };
    streams.deadlines.grant(&stream.control, "/t", &[Arc::new(grant)]);
    after(&streams, 1);
    let notice = stream.notice().unwrap();
    assert!(str::from_utf8(&notice).unwrap().contains("\"renew\":null"), "{notice:?}");
}

#[tokio::test]
async fn a_renewal_moves_the_end_and_only_its_own_link_renews_a_stream() {
    let (streams, stream) = stream("expiring: 10s");
    streams.deadlines.grant(&stream.control, "/t", &[grant(60)]);
    after(&streams, 55);
    let link = streams.renewals.sign(&stream.control.id.to_be_bytes());
    assert!(streams.renewable(&link, "/t").is_some());
    assert!(streams.renewable(&link, "/u").is_none());
    assert!(streams.renewable(&streams.renewals.sign(&7_u64.to_be_bytes()), "/t").is_none());
    assert!(streams.renewable("AAAAAAAAAAA.AAAA", "/t").is_none());
    for _ in 0..100 {
        streams.deadlines.grant(&stream.control, "/t", &[grant(600)]);
    }
    assert_eq!(queued(&streams), 2, "renewals do not add up");
    assert_eq!(stream.notice(), None, "what it would have said does not hold any more");
    after(&streams, 500);
    assert_eq!(stream.control.ending(), None);
    drop(stream);
    assert_eq!(queued(&streams), 0);
}

#[tokio::test]
async fn age_is_jittered_and_holds_without_a_credential() {
    let (streams, stream) = stream("max_age: 100s");
    after(&streams, 74);
    assert_eq!(stream.control.ending(), None);
    after(&streams, 126);
    assert_eq!(stream.control.ending(), Some(End::Age));
    let never = Arc::new(Grant::new(&"users".into(), "alice", Value::Null));
    streams.deadlines.grant(&stream.control, "/t", &[never]);
    assert_eq!(queued(&streams), 1, "only that it is cut");
}

#[tokio::test]
async fn what_was_withdrawn_ends() {
    let (streams, stream) = stream("");
    assert_eq!(streams.revoke(|_| true), 0, "nobody proved anything");
    streams.deadlines.grant(&stream.control, "/t", &[grant(60)]);
    assert_eq!(streams.revoke(|grant| &*grant.subject == "bob"), 0);
    assert_eq!(streams.revoke(|grant| &*grant.subject == "alice"), 1);
    assert_eq!(stream.control.ending(), Some(End::Revoked));
}
