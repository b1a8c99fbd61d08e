//! Tickets that are used as they are meant to be, and in every other way.

use proptest::prelude::*;

use super::super::asked::testing::asked;
use super::*;

fn tickets(bind_address: bool) -> Tickets {
    let config = Ticket {
        path: "/tickets".into(),
        of: vec!["users".into()],
        secret: Some(crate::config::Secret::new("0123456789abcdef0123456789abcdef")),
        ttl: Duration::from_secs(30),
        bind_address,
    };
    Tickets::new(&"tickets".into(), &config)
}

fn grant(expires_in: i64) -> Grant {
    let now = seconds(SystemTime::now());
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(expires_in));
    let key = KeyName { id: Some("k1".into()), print: [7; 32] };
    let claims = json!({ "tenant": "acme" });
    Grant {
        key: Some(key),
        token: Some("j1".into()),
        expires: Some(expires),
        ..Grant::new(&"users".into(), "alice", claims)
    }
}

fn using(ticket: &str) -> Asked {
    asked(&[], &format!("ticket={ticket}"))
}

fn cookie(check: Check) -> String {
    let Check::Known(_, Some(cookie)) = check else { panic!("{check:?}") };
    cookie.to_str().unwrap().to_owned()
}

fn refusal(check: Check) -> Refusal {
    let Check::Refused(why) = check else { panic!("{check:?}") };
    why
}

#[test]
fn a_ticket_is_good_once_and_its_cookie_until_the_credential_ends() {
    let tickets = tickets(false);
    let ticket = tickets.issue(&grant(600), &using("")).unwrap();
    let first = tickets.check(&using(&ticket));
    let Check::Known(known, _) = &first else { panic!("{first:?}") };
    assert_eq!((&*known.provider, &*known.subject, known.token.as_deref()), ("users", "alice", Some("j1")));
    assert_eq!((&known.claims["tenant"], known.key.as_ref().unwrap().print), (&json!("acme"), [7; 32]));
    let set = cookie(first);
    assert!(set.starts_with("ssegate-tickets="), "{set}");
    for part in ["; Path=/rooms/a; ", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
        assert!(set.contains(part), "{set}");
    }
    let age: u64 = set.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((595..=600).contains(&age), "{age}");

    assert_eq!(refusal(tickets.check(&using(&ticket))), Refusal::Replayed);
    let pair = set.split(';').next().unwrap();
    let back = asked(&[("cookie", pair)], &format!("ticket={ticket}"));
    assert!(matches!(tickets.check(&back), Check::Known(_, None)), "the browser comes back to the same URL");
    let mut foreign = back.clone();
    foreign.origin_is_listed = false;
    assert_eq!(refusal(tickets.check(&foreign)), Refusal::Origin);
    let elsewhere = Asked { path: "/rooms/b".into(), ..back.clone() };
    assert_eq!(refusal(tickets.check(&elsewhere)), Refusal::Path);

    // A cookie is no ticket, and a ticket no cookie.
    let value = pair.split_once('=').unwrap().1;
    assert_eq!(refusal(tickets.check(&using(value))), Refusal::Signature);
    let second = tickets.issue(&grant(600), &using("")).unwrap();
    let as_cookie = asked(&[("cookie", &format!("ssegate-tickets={second}"))], "");
    assert_eq!(refusal(tickets.check(&as_cookie)), Refusal::Signature);
}

#[test]
fn a_ticket_is_for_one_path_host_and_time() {
    let tickets = tickets(false);
    let issue = |expires| tickets.issue(&grant(expires), &using("")).unwrap();
    for other in [
        Asked { path: "/rooms/b".into(), ..using(&issue(600)) },
        Asked { path: "/rooms%2Fa".into(), ..using(&issue(600)) },
        Asked { path: "/rooms/a/".into(), ..using(&issue(600)) },
        Asked { host: "other.example".into(), ..using(&issue(600)) },
    ] {
        assert_eq!(refusal(tickets.check(&other)), Refusal::Path);
    }
    assert_eq!(refusal(tickets.check(&using(&issue(-1)))), Refusal::Expired);
    assert_eq!(refusal(tickets.check(&using("a.b"))), Refusal::Signature);
    assert!(matches!(tickets.check(&asked(&[], "")), Check::Absent));
    let moved = Asked { client: [203, 0, 113, 9].into(), ..using(&issue(600)) };
    assert!(matches!(tickets.check(&moved), Check::Known(..)), "addresses change where they are not bound");
}

#[test]
fn a_bound_ticket_is_for_one_address() {
    let tickets = tickets(true);
    let ticket = tickets.issue(&grant(600), &using("")).unwrap();
    let moved = Asked { client: [203, 0, 113, 9].into(), ..using(&ticket) };
    assert_eq!(refusal(tickets.check(&moved)), Refusal::Address);
    assert!(
        matches!(tickets.check(&using(&ticket)), Check::Known(..)),
        "a try from elsewhere does not use it up"
    );
}

#[test]
fn what_is_too_large_for_a_cookie_gets_no_ticket() {
    let tickets = tickets(false);
    let large = Grant { claims: json!({ "a": "x".repeat(4_000) }), ..grant(600) };
    assert_eq!(tickets.issue(&large, &using("")), Err(Unticketed::TooLarge));
}

#[test]
fn used_tickets_are_remembered_while_they_count() {
    let mut used = Used::default();
    assert_eq!((used.take(1, 100, 70), used.take(2, 105, 71)), (Ok(()), Ok(())));
    assert_eq!(used.take(1, 100, 100), Err(Refusal::Replayed));
    assert_eq!(used.take(3, 130, 101), Ok(()));
    assert_eq!(used.seen.len(), 2, "the first is over");
    used.seen = (0..REMEMBERED as u64).map(|nonce| (nonce + 10, 500)).collect();
    assert_eq!(used.take(5, 500, 101), Err(Refusal::Full), "what cannot be remembered is not let in");
    assert_eq!(used.take(10, 500, 101), Err(Refusal::Replayed));
    assert_eq!(used.take(5, 600, 501), Ok(()), "there is room again, and it has not been used");
}

#[test]
fn the_cookie_of_a_credential_without_an_end_is_left_anew_before_it_is_over() {
    let (tickets, now) = (tickets(false), seconds(SystemTime::now()));
    let endless = Grant { expires: None, ..grant(0) };
    let ticket = tickets.issue(&endless, &using("")).unwrap();
    let until = |check: &Check| match check {
        Check::Known(grant, _) => (grant.expires, grant.shown_until.map(seconds)),
        other => panic!("{other:?}"),
    };
    let first = tickets.check_at(&using(&ticket), now);
    assert_eq!(until(&first), (None, Some(now + 3_600)));
    let set = cookie(first);
    assert!(set.contains("; Max-Age=3600; "), "{set}");
    let back = asked(&[("cookie", set.split(';').next().unwrap())], "");
    let early = tickets.check_at(&back, now + 1_800);
    assert!(matches!(early, Check::Known(_, None)), "it has half of its time left");
    assert_eq!(until(&early), (None, Some(now + 3_600)));
    let late = tickets.check_at(&back, now + 1_801);
    assert_eq!(until(&late), (None, Some(now + 1_801 + 3_600)));
    let set = cookie(late);
    let back = asked(&[("cookie", set.split(';').next().unwrap())], "");
    assert!(matches!(tickets.check_at(&back, now + 1_801 + 3_600), Check::Known(_, Some(_))));
    assert_eq!(refusal(tickets.check_at(&back, now + 1_801 + 3_601)), Refusal::Expired);
}

#[test]
fn a_cookie_stands_for_what_tickets_are_had_for() {
    let tickets = tickets(false);
    assert!(tickets.cookie(&grant(600), &using("")).is_some());
    let other = Grant { provider: "machines".into(), ..grant(600) };
    assert!(tickets.cookie(&other, &using("")).is_none());
    let large = Grant { claims: json!({ "a": "x".repeat(4_000) }), ..grant(600) };
    assert!(tickets.cookie(&large, &using("")).is_none(), "a browser would not keep it");
}

#[test]
fn tickets_of_another_provider_with_the_same_secret_are_none() {
    let (ours, theirs) = (tickets(false), Tickets::new(&"others".into(), &tickets(false).config));
    let ticket = ours.issue(&grant(600), &using("")).unwrap();
    assert_eq!(refusal(theirs.check(&using(&ticket))), Refusal::Signature);
    let set = cookie(ours.check(&using(&ticket)));
    let value = set.split(';').next().unwrap().split_once('=').unwrap().1;
    let back = asked(&[("cookie", &format!("ssegate-others={value}"))], "");
    assert_eq!(refusal(theirs.check(&back)), Refusal::Signature);
}

#[test]
fn a_path_is_the_same_however_it_is_encoded() {
    let tickets = tickets(false);
    let at = |path: &str, query: &str| Asked { path: path.into(), ..asked(&[], query) };
    let ticket = tickets.issue(&grant(600), &at("/rooms/a%20b", "")).unwrap();
    let set = cookie(tickets.check(&at("/rooms/%61%20b", &format!("ticket={ticket}"))));
    assert!(set.contains("; Path=/rooms/%61%20b; "), "as the browser has asked: {set}");
}

#[test]
fn the_path_of_a_cookie_ends_before_a_semicolon() {
    for (path, expected) in [("/a/b", "/a/b"), ("/a/b;c/d", "/a/"), ("/;a", "/")] {
        assert_eq!(cookie_path(path), expected);
    }
}

proptest! {
    /// Whatever stands there, it is no ticket.
    #[test]
    fn random_text_is_no_ticket(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}", query in "\\PC{0,100}") {
        let tickets = tickets(false);
        let mut request = using(&form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
        prop_assert!(!matches!(tickets.check(&request), Check::Known(..)));
        request.query = query;
        if let Ok(cookie) = http::HeaderValue::from_str(&format!("ssegate-tickets={text}")) {
            request.headers.insert("cookie", cookie);
        }
        prop_assert!(!matches!(tickets.check(&request), Check::Known(..)));
    }

    /// A ticket of which a byte was changed is none, and neither is a part of one.
    #[test]
    fn a_changed_ticket_is_none(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let tickets = tickets(false);
        let ticket = tickets.issue(&grant(600), &using("")).unwrap();
        let mut bytes = ticket.clone().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let changed: String = form_urlencoded::byte_serialize(&bytes).collect();
        prop_assert!(bytes == ticket.as_bytes() || !matches!(tickets.check(&using(&changed)), Check::Known(..)));
    }
}

#[test]
fn what_was_used_is_used_after_the_configuration_has_changed() {
    let before = tickets(false);
    let [used, new] = [0, 1].map(|_| before.issue(&grant(600), &using("")).unwrap());
    assert!(matches!(before.check(&using(&used)), Check::Known(..)));
    let longer = Ticket { ttl: Duration::from_secs(60), ..before.config.clone() };
    let now = Tickets::following(&before, &longer);
    assert_eq!(refusal(now.check(&using(&used))), Refusal::Replayed);
    assert!(matches!(now.check(&using(&new)), Check::Known(..)));
    assert_eq!(refusal(before.check(&using(&new))), Refusal::Replayed, "by a request that came before, too");
    // A secret of the process stays the same one.
    let own = |ttl| Ticket { secret: None, ttl: Duration::from_secs(ttl), ..before.config.clone() };
    let before = Tickets::new(&"tickets".into(), &own(30));
    let ticket = before.issue(&grant(600), &using("")).unwrap();
    assert!(matches!(Tickets::following(&before, &own(60)).check(&using(&ticket)), Check::Known(..)));
    assert_eq!(refusal(Tickets::following(&before, &longer).check(&using(&ticket))), Refusal::Signature);
}
