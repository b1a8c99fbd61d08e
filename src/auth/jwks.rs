//! The key set that an issuer serves: fetched at the start, every so often, and when a token needs a key that is new,
//! though not more often than a few times in a row. While the issuer is away the keys that are known stay good. That a
//! key is unknown is said only by an issuer that was asked after somebody came with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::grant::KeyName;
use super::keys::{self, Key};
use crate::fetch::Http;
use crate::metrics::JwksMetrics;

/// One key set.
pub(super) struct Jwks {
    provider: Arc<str>,
    url: Uri,
    every: Duration,
    http: Http,
    set: RwLock<Arc<Set>>,
    /// One fetch at a time; who waits for it looks at what it brought.
    asking: tokio::sync::Mutex<Asking>,
    /// Somebody waits for a fetch that is not allowed yet.
    wanted: Notify,
    reachable: AtomicBool,
    seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
    metrics: JwksMetrics,
}

/// What was fetched.
#[derive(Default)]
struct Set {
    keys: Vec<Key>,
    /// When the fetch that brought them began; what came after that the issuer has not spoken of.
    asked: Option<Instant>,
}

/// What is asked of the issuer besides the fetches that are due in any case.
struct Asking {
    budget: Budget,
    /// When the last fetch began, whatever became of it.
    last: Option<Instant>,
}

/// What a question to a key set comes to.
pub(super) enum Lookup<T> {
    /// It has what was looked for.
    Found(T),
    /// The issuer does not know it.
    Unknown,
    /// The issuer has not answered, or may not be asked so soon again. It will be known within seconds of its next answer.
    Unavailable,
}

/// For operators.
#[derive(Default)]
struct Seen {
    fetched: Option<SystemTime>,
    error: Option<(String, SystemTime)>,
}

impl Jwks {
    /// No key yet.
    pub fn new(
        provider: &Arc<str>,
        (url, every): (&Uri, Duration),
        http: Http,
        changed: &watch::Sender<u64>,
        metrics: JwksMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            provider: Arc::clone(provider),
            url: url.clone(),
            every,
            http,
            set: RwLock::default(),
            asking: tokio::sync::Mutex::new(Asking { budget: Budget::full(), last: None }),
            wanted: Notify::new(),
            reachable: AtomicBool::new(false),
            seen: Mutex::default(),
            changed: changed.clone(),
            metrics,
        })
    }

    /// What `seek` finds among the keys. Where it finds nothing, and nobody has asked since `came`, when the question
    /// arrived, the issuer is asked.
    pub async fn find<T>(&self, came: Instant, seek: impl Fn(&[Key]) -> Option<T>) -> Lookup<T> {
        let known = self.look(came, &seek);
        if !matches!(known, Lookup::Unavailable) {
            return known;
        }
        let mut asking = self.asking.lock().await;
        // Somebody else may have asked while this waited.
        if asking.last.is_none_or(|last| last < came) && asking.budget.take(Instant::now()) {
            self.fetch(&mut asking).await;
        }
        drop(asking);
        let known = self.look(came, &seek);
        if matches!(known, Lookup::Unavailable) {
            self.wanted.notify_one();
        }
        known
    }

    fn look<T>(&self, came: Instant, seek: &impl Fn(&[Key]) -> Option<T>) -> Lookup<T> {
        let set = Arc::clone(&self.set.read());
        match seek(&set.keys) {
            Some(found) => Lookup::Found(found),
            None if set.asked.is_some_and(|asked| asked >= came) => Lookup::Unknown,
            None => Lookup::Unavailable,
        }
    }

    /// Whether the set has this very key; not known before the issuer has answered once.
    pub fn holds(&self, name: &KeyName) -> Option<bool> {
        let set = self.set.read();
        set.asked.map(|_| set.keys.iter().any(|key| key.is(name)))
    }

    /// Keeps it up to date; never returns.
    pub async fn run(&self) {
        let mut wait = RETRY.start;
        loop {
            let fetched = self.fetch(&mut *self.asking.lock().await).await;
            let pause = if fetched { self.every } else { wait };
            wait = if fetched { RETRY.start } else { (wait * 2).min(RETRY.end) };
            // Replicas do not ask all at once.
            let pause = tokio::time::sleep(pause.mul_f64(rand::random_range(0.85..1.0)));
            tokio::select! {
                () = pause => {}
                () = self.allowed() => {}
            }
        }
    }

    /// Ends when somebody waits for a fetch and it may be done.
    async fn allowed(&self) {
        self.wanted.notified().await;
        while !self.asking.lock().await.budget.take(Instant::now()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks the issuer. False when it has no answer that can be used; then everything stays as it was.
    async fn fetch(&self, asking: &mut Asking) -> bool {
        let began = Instant::now();
        asking.last = Some(began);
        let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        let answer = self.http.get(self.url.clone(), headers, PATIENCE).await;
        let found = answer.and_then(|(head, body)| match head.status {
            StatusCode::OK => keys::of_set(&body),
            status => Err(format!("the answer is {status}")),
        });
        let was_reachable = self.reachable.swap(found.is_ok(), Ordering::AcqRel);
        let fetched = found.is_ok();
        let changed = match found {
            Ok(keys) => self.take(keys, began),
            Err(why) => {
                self.fail(why, was_reachable);
                false
            }
        };
        self.metrics.fetched(fetched);
        if changed || (fetched && !was_reachable) {
            self.changed.send_modify(|changed| *changed += 1);
        }
        fetched
    }

    /// Returns whether they are others than before, in whatever order.
    fn take(&self, keys: Vec<Key>, began: Instant) -> bool {
        let mut set = self.set.write();
        let same = are_among(&keys, &set.keys) && are_among(&set.keys, &keys);
        if !same {
            let names: Vec<_> = keys.iter().filter_map(|key| key.name.id.as_deref()).take(TOLD).collect();
            tracing::info!(provider = &*self.provider, keys = keys.len(), first = ?names, "key set changed");
        }
        *set = Arc::new(Set { keys, asked: Some(began) });
        *self.seen.lock() = Seen { fetched: Some(SystemTime::now()), error: None };
        !same
    }

    fn fail(&self, why: String, was_reachable: bool) {
        let mut seen = self.seen.lock();
        let news = was_reachable || seen.error.as_ref().is_none_or(|(before, _)| *before != why);
        if news {
            tracing::warn!(
                provider = &*self.provider,
                host = self.url.host(),
                why,
                "the key set cannot be fetched; the keys that are known hold"
            );
        }
        seen.error = Some((why, SystemTime::now()));
    }

    /// What operators see.
    pub fn status(&self) -> Value {
        let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        let seen = self.seen.lock();
        json!({
            "keys": self.set.read().keys.len(),
            "fetched": seen.fetched.map(time),
            "last_error": seen.error.as_ref().map(|(error, at)| json!({ "error": error, "at": time(*at) })),
        })
    }
}

fn are_among(keys: &[Key], others: &[Key]) -> bool {
    let is_same = |key: &Key, other: &Key| key.name == other.name && key.algorithms == other.algorithms;
    keys.iter().all(|key| others.iter().any(|other| is_same(key, other)))
}

/// How often tokens of unknown keys may have the issuer asked: some times at once, and then every so often.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn full() -> Self {
        Self { left: AT_ONCE, since: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = (now.duration_since(self.since).as_millis() / AGAIN.as_millis()) as u32;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(AT_ONCE);
            self.since = now;
        }
        let granted = self.left > 0;
        self.left -= u32::from(granted);
        granted
    }
}

const AT_ONCE: u32 = 3;
const AGAIN: Duration = Duration::from_secs(10);
/// How long the issuer may take. Whoever waits for it is held then.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between attempts while the issuer is away.
const RETRY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(60);
/// Between two looks whether the issuer may be asked again, for somebody who waits for it.
const LOOK: Duration = Duration::from_secs(1);
/// Names of keys in a line of the log.
const TOLD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// A key set whose issuer refuses connections, and what counts its changes.
    fn unreachable() -> (Arc<Jwks>, watch::Sender<u64>) {
        let (changed, provider) = (watch::Sender::new(0), Arc::from("users"));
        let url = Uri::from_static("http://127.0.0.1:1/jwks");
        let metrics = Metrics::new().jwks(&provider);
        (Jwks::new(&provider, (&url, Duration::from_secs(300)), Http::new(None), &changed, metrics), changed)
    }

    fn keys(names: &[&str]) -> Vec<Key> {
        let jwk = |name: &&str| json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": name });
        let set = json!({ "keys": names.iter().map(jwk).collect::<Vec<_>>() });
        keys::of_set(set.to_string().as_bytes()).unwrap()
    }

    /// Looks for a key of this name.
    async fn find(jwks: &Jwks, came: Instant, name: &str) -> &'static str {
        let named = |keys: &[Key]| keys.iter().any(|key| key.name.id.as_deref() == Some(name)).then_some(());
        match jwks.find(came, named).await {
            Lookup::Found(()) => "found",
            Lookup::Unknown => "unknown",
            Lookup::Unavailable => "unavailable",
        }
    }

    #[tokio::test]
    async fn a_key_is_unknown_to_an_issuer_that_was_asked_since() {
        let (jwks, _changed) = unreachable();
        let came = Instant::now();
        assert_eq!(find(&jwks, came, "a").await, "unavailable", "nothing was ever fetched");
        let name = |keys: &[Key]| keys[0].name.clone();
        assert_eq!(jwks.holds(&name(&keys(&["a"]))), None);
        assert!(jwks.take(keys(&["a"]), Instant::now()));
        assert_eq!((find(&jwks, came, "a").await, find(&jwks, came, "b").await), ("found", "unknown"));
        assert_eq!(jwks.holds(&name(&keys(&["a"]))), Some(true));
        assert_eq!(jwks.holds(&name(&keys(&["b"]))), Some(false));
        let later = Instant::now();
        for _ in 0..5 {
            assert_eq!(
                find(&jwks, later, "b").await,
                "unavailable",
                "the issuer has not spoken of what came since"
            );
        }
        assert_eq!(find(&jwks, Instant::now(), "a").await, "found");
    }

    #[tokio::test]
    async fn the_order_of_a_set_means_nothing() {
        let (jwks, _changed) = unreachable();
        for (names, changes) in [
            (&["a", "b"][..], true),
            (&["b", "a"], false),
            (&["b", "b", "a"], false),
            (&["b", "b"], true),
            (&["b", "c"], true),
        ] {
            assert_eq!(jwks.take(keys(names), Instant::now()), changes, "{names:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_unknown_keys_asks_the_issuer_now_and_then() {
        let mut budget = Budget::full();
        let mut asked = 0;
        for _ in 0..1_000 {
            asked += u32::from(budget.take(Instant::now()));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!((12..=13).contains(&asked), "3 at once and one every 10 s of 100: {asked}");
    }
}
