//! Whatever a client brings as a ticket, or as the cookie that one leaves: unless it is the very text that was signed for
//! it, it proves nothing.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;
use ssegate::auth::{Admitted, Asked, Auth, Grant, Verdict};
use ssegate::config::{Config, parse};
use ssegate::metrics::Metrics;
use tokio::time::Instant;

/// Takes a ticket; and what is written over a good one: from where, how much goes, and what comes instead.
pub fn check(bytes: &[u8]) {
    // One for each input: a ticket is good once, and those that were used are remembered.
    let auth = Auth::new(&CONFIG, &METRICS, None);
    assert!(admitted(&auth, &with_ticket(bytes)).is_none());
    assert!(admitted(&auth, &with_query(&String::from_utf8_lossy(bytes))).is_none());
    if let Some(asked) = with_cookie(bytes) {
        assert!(admitted(&auth, &asked).is_none());
    }

    let grant = Grant::new(&"jobs".into(), "alice", json!({ "rooms": ["a"] }));
    let ticket = auth.tickets_at("/tickets").unwrap().issue(&grant, &with_query("")).unwrap();
    let changed = written_over(ticket.as_bytes(), bytes);
    if changed != ticket.as_bytes() {
        assert!(admitted(&auth, &with_ticket(&changed)).is_none(), "{ticket} is good with {bytes:?} in it");
    }
    let Admitted { grant, cookie } = admitted(&auth, &with_ticket(ticket.as_bytes())).unwrap();
    assert_eq!(&*grant.unwrap().subject, "alice");
    assert!(admitted(&auth, &with_ticket(ticket.as_bytes())).is_none(), "it was used");

    assert!(admitted(&auth, &with_cookie(ticket.as_bytes()).unwrap()).is_none(), "it is no cookie");

    let cookie = cookie.unwrap();
    let cookie = cookie.to_str().unwrap().strip_prefix(COOKIE).unwrap().split(';').next().unwrap().as_bytes();
    let changed = written_over(cookie, bytes);
    // A header says the same with quotes, with spaces around it, and with another cookie after it.
    let means_another = changed.iter().all(|&b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if changed != cookie && means_another {
        assert!(admitted(&auth, &with_cookie(&changed).unwrap()).is_none());
    }
    assert!(admitted(&auth, &with_cookie(cookie).unwrap()).is_some());
    assert!(admitted(&auth, &with_ticket(cookie)).is_none(), "it is no ticket");
}

/// With what the request is let in, if it is.
fn admitted(auth: &Auth, asked: &Asked) -> Option<Admitted> {
    let verdict = auth.decide("route", &["tickets".into()], None, asked).now_or_never();
    match verdict.expect("nobody has to be asked") {
        Verdict::Allowed(admitted) => Some(admitted),
        Verdict::Refused(_) => None,
        Verdict::Undecided(_) => panic!("a ticket can be decided on"),
    }
}

/// `good` with a part of it gone and something else there, as `change` says.
fn written_over(good: &[u8], change: &[u8]) -> Vec<u8> {
    let [high, low, gone, new @ ..] = change else { return Vec::new() };
    let at = usize::from(u16::from_be_bytes([*high, *low])) % (good.len() + 1);
    let end = (at + usize::from(*gone)).min(good.len());
    [&good[..at], new, &good[end..]].concat()
}

fn with_ticket(ticket: &[u8]) -> Asked {
    with_query(&format!("ticket={}", form_urlencoded::byte_serialize(ticket).collect::<String>()))
}

fn with_cookie(value: &[u8]) -> Option<Asked> {
    let value = HeaderValue::from_bytes(&[COOKIE.as_bytes(), value].concat()).ok()?;
    let headers = [(http::header::COOKIE, value)].into_iter().collect();
    Some(Asked { headers, ..with_query("") })
}

fn with_query(query: &str) -> Asked {
    Asked {
        method: Method::GET,
        secure: true,
        host: "events.example".into(),
        authority: "events.example".into(),
        path: PATH.into(),
        query: query.into(),
        headers: HeaderMap::new(),
        params: Vec::new(),
        client: IpAddr::from([192, 0, 2, 1]),
        certificate: None,
        origin_is_listed: true,
        came: Instant::now(),
        proven: None,
    }
}

const PATH: &str = "/rooms/a";
const COOKIE: &str = "ssegate-tickets=";

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Metrics::new);
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = format!(
        r#"
server: {{ tls: none }}
auth:
  jobs: {{ api_key: {{ keys: {{ ci: "sha256:{}" }} }} }}
  tickets: {{ ticket: {{ path: /tickets, of: jobs, secret: "0123456789abcdef0123456789abcdef" }} }}
upstreams: {{ t: {{ ticker: {{}} }} }}
routes: [ {{ path: {PATH}, from: {{ upstream: t }}, auth: tickets }} ]
"#,
        "ab".repeat(32)
    );
    parse("c.yaml", &text, &|_| None).unwrap()
});
