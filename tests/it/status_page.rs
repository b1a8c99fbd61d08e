//! The status page in a real Chromium: it moves, tells what is wrong, comes back after a restart, and can be read by
//! everybody.

use std::env;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::devtools::Page;
use crate::support::eventsource::{EventSource, Options};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::scratch;
use crate::support::ssegate::Ssegate;

fn config(admin: &str, redis: &Redis) -> String {
    format!(
        r#"
admin: {{ listen: "{admin}" }}
upstreams:
  lobby: {{ push: {{}} }}
  cache: {{ redis: {{ url: "{}" }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }} }}
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
"#,
        redis.url()
    )
}

const LIVE: &str = "document.getElementById('page').textContent === 'live' || document.body.innerText";

/// The figure on a tile.
fn tile(title: &str) -> String {
    format!(
        "[...document.querySelectorAll('.tile')].find((t) => t.querySelector('h3').textContent === '{title}').querySelector('.value').textContent"
    )
}

/// The texts of the cells of a table's row.
fn row(table: &str, key: &str) -> String {
    format!(
        "([...document.querySelectorAll('#{table} tbody tr')].find((r) => r.textContent.startsWith('{key}'))?.innerText ?? '')"
    )
}

async fn open(ssegate: &Ssegate, path: &str, count: usize) -> Vec<EventSource> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http2()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_move_and_an_upstream_that_is_gone_shows() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(config("127.0.0.1:0", &redis)).await;
    let _streams = open(&ssegate, "/rooms/a", 3).await;
    let _news = open(&ssegate, "/news", 1).await;
    let mut page = Page::open(&ssegate.admin_url("/")).await;
    page.until("the page to be live", LIVE).await;
    let moving = format!("parseFloat({}) > 0 || {}", tile("Events a second"), tile("Events a second"));
    let publish = async {
        loop {
            ssegate.publish("a", "x".repeat(500)).await;
        }
    };
    tokio::select! {
        () = publish => {}
        () = page.until("events to be counted", &moving) => {}
    }
    page.until("clients to be counted", &format!("{} === '4'", tile("Clients"))).await;
    let route = page.eval(&row("routes", "/rooms/{room}")).await;
    assert!(route.as_str().unwrap().contains("\t3\t"), "{route}");
    let feed = page.eval(&row("feeds", "a")).await;
    assert!(feed.as_str().unwrap().contains("lobby\t3\t"), "{feed}");
    let chart = "document.querySelector('#routes .line').getAttribute('d').length > 10";
    page.until("a chart", chart).await;
    let label = page.eval("document.querySelector('.tile svg').getAttribute('aria-label')").await;
    assert!(label.as_str().unwrap().starts_with("Clients in the last 5 minutes: now 4"), "{label}");

    let foreign = "performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !n.startsWith(location.origin))";
    assert_eq!(page.eval(foreign).await, json!([]), "nothing is asked of others");
    assert_eq!(page.complaints().await, [""; 0]);

    // Each of them is said, and another one may be said soon after.
    let listen = "window.heard = []; const said = document.getElementById('said'); \
                  new MutationObserver(() => heard.push(said.textContent)).observe(said, \
                  { childList: true, characterData: true, subtree: true })";
    page.eval(&format!("(() => {{ {listen}; }})()")).await;
    let heard = |what: &str| format!("heard.includes('{what}') || JSON.stringify(heard)");
    redis.kill();
    let down = format!("/down/.test({r}) || {r}", r = row("upstreams", "cache"));
    page.until("the upstream to be shown as down", &down).await;
    page.until("it to be said", &heard("Upstream cache is down.")).await;
    let recent = format!("/error/.test({r}) || {r}", r = row("recent", "cache"));
    page.until("its error", &recent).await;
    redis.restart().await;
    page.until("it to be said that it is back", &heard("Upstream cache is up.")).await;
    page.until(
        "the gap",
        &format!("/upstream_lost/.test({r}) || {r}", r = "document.getElementById('recent').innerText"),
    )
    .await;
    assert_eq!(page.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_shown_and_survived() {
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{}\" }}\nupstreams: {{ lobby: {{ push: {{}} }} }}\nroutes: [ {{ path: /m, from: {{ upstream: lobby, channel: m }} }} ]\n",
        ports::free()
    );
    let mut ssegate = Ssegate::start(&*config).await;
    let mut page = Page::open(&ssegate.admin_url("/")).await;
    page.until("the page to be live", LIVE).await;
    ssegate.kill();
    let gone =
        "document.getElementById('page').textContent === 'disconnected' && 'stale' in document.body.dataset";
    page.until("the loss to be shown", gone).await;
    assert!(
        page.eval("document.getElementById('said').textContent")
            .await
            .as_str()
            .unwrap()
            .starts_with("Disconnected")
    );
    let _ssegate = Ssegate::start(config).await;
    page.until("the page to be live again", LIVE).await;
    assert_eq!(page.eval("'stale' in document.body.dataset").await, false);
    page.until("that to be said", "document.getElementById('said').textContent === 'Connected again.'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_read_in_the_dark_on_a_phone_and_with_a_keyboard() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(config("127.0.0.1:0", &redis)).await;
    let _streams = open(&ssegate, "/rooms/a", 3).await;
    let _more = open(&ssegate, "/rooms/a-room-with-a-rather-long-name-that-does-not-fit", 2).await;
    let mut page = Page::open(&ssegate.admin_url("/")).await;
    page.until("the page to be live", LIVE).await;
    redis.kill();
    page.until("an error", "document.querySelectorAll('#recent tbody th').length > 0").await;
    for n in 0..20 {
        ssegate.publish("a", "x".repeat(100 * n)).await;
    }
    page.until("a chart", "document.querySelector('#routes .line').getAttribute('d').length > 40").await;

    let folder = Pictures::new();
    let background = "getComputedStyle(document.body).backgroundColor";
    let mut seen = Vec::new();
    for (name, size, scheme) in
        [("light", (1280, 900), "light"), ("dark", (1280, 900), "dark"), ("narrow", (400, 800), "light")]
    {
        page.emulate(size, scheme).await;
        let fits =
            "document.documentElement.scrollWidth <= innerWidth || document.documentElement.scrollWidth";
        page.until("the page to fit", fits).await;
        seen.push(page.eval(background).await);
        folder.keep(name, &page.screenshot().await);
    }
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
    page.go(&ssegate.admin_url("/?theme=dark")).await;
    page.until("the other theme", &format!("{background} === '{}'", seen[1].as_str().unwrap())).await;
    page.until("the page to be live", LIVE).await;

    let mut reached = Vec::new();
    for _ in 0..9 {
        page.press_tab().await;
        let focus =
            "(({ id, tagName, textContent }) => id || `${tagName} ${textContent}`)(document.activeElement)";
        reached.push(page.eval(focus).await);
        let outline = page.eval("getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(outline, "solid", "{reached:?} shows that it has the focus");
    }
    let tables = ["upstreams", "routes", "feeds", "recent", "tls"];
    assert_eq!(reached[0], "A Skip to the figures");
    assert_eq!(reached[1..6], tables.map(Value::from));
    assert_eq!(reached[6], "A status");
    assert_eq!(page.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_a_browser_asks_for_it_and_goes_on() {
    let redis = Redis::start().await;
    let token = "\"127.0.0.1:0\", token: 0123456789abcdef";
    let ssegate = Ssegate::start(config("127.0.0.1:0", &redis).replace("\"127.0.0.1:0\"", token)).await;
    assert_eq!(ssegate.admin_get("/").await.status, 401);
    let mut page =
        Page::open(&ssegate.admin_url("/").replace("http://", "http://me:0123456789abcdef@")).await;
    page.until("the page to be live", LIVE).await;
    assert_eq!(page.complaints().await, [""; 0]);
}

/// Where pictures of the page are put, for whoever wants to look at them: the folder that `SSEGATE_PICTURES` names, or one
/// that goes with the test.
enum Pictures {
    Kept(PathBuf),
    Gone(tempfile::TempDir),
}

impl Pictures {
    fn new() -> Self {
        match env::var_os("SSEGATE_PICTURES") {
            Some(folder) => Self::Kept(folder.into()),
            None => Self::Gone(scratch::dir("pictures")),
        }
    }

    fn keep(&self, name: &str, picture: &[u8]) {
        let folder = match self {
            Self::Kept(folder) => folder.as_path(),
            Self::Gone(folder) => folder.path(),
        };
        assert!(picture.starts_with(b"\x89PNG"));
        fs::write(folder.join(format!("status-{name}.png")), picture).expect("write the picture");
    }
}
