//! How long a stream lasts that does not last for ever: until its client's credential ends, and the route's `max_age`.
//! Kept outside the stream, which is not polled while its client does not read, and in one queue for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stream::jittered;
use super::streams::{Control, End, Registered, Streams};
use crate::auth::Grant;
use crate::sse;

/// How long one stream lasts.
#[derive(Default)]
pub struct Lease {
    /// With what its client was let in: of several, what ends first.
    pub grant: Option<Arc<Grant>>,
    /// With what else it was let in to some of its feeds.
    pub besides: Vec<Arc<Grant>>,
    /// Of several feeds those that are not for everybody.
    pub feeds: Vec<Guarded>,
    /// The path of its request, to which its renewal is sent.
    path: Box<str>,
    /// Its entries in the queue.
    due: Vec<(Instant, Due)>,
}

impl Lease {
    /// All with which its client was let in.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.grant.iter().chain(&self.besides)
    }
}

/// One of several feeds that is not for everybody.
#[derive(Clone)]
pub struct Guarded {
    /// Its path as the request names it.
    pub label: Arc<str>,
    /// With what its client was let in to it.
    pub grant: Arc<Grant>,
}

impl Guarded {
    /// Whether it was among these before, and was let in to by the same client.
    pub fn is_known(&self, before: &[Self]) -> bool {
        before.iter().any(|before| before.label == self.label && before.grant.is_of_the_same(&self.grant))
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The client is told that it will end.
    Notice,
    /// Its credential ends.
    Expiry,
    /// It is as old as the route lets it be.
    Age,
    /// Its route is gone, or reads something else.
    Reload,
    /// It was told to end, and has had the time for it: its client does not read.
    Cut,
}

/// What is due of all streams, the next first.
#[derive(Default)]
pub struct Deadlines {
    queue: Mutex<BTreeMap<(Instant, u64, Due), Arc<Control>>>,
    sooner: Notify,
}

impl Deadlines {
    /// A stream begins: it may be that its route does not let it grow old.
    pub(super) fn begin(&self, control: &Arc<Control>) {
        if let Some(age) = control.route.config.max_age {
            self.put(control, [(control.opened + jittered(age), Due::Age)]);
        }
    }

    /// The client of a stream was let in, for the first time or anew; with several where these are for different feeds of it.
    /// The stream lasts until the first of them ends.
    pub(super) fn grant(&self, control: &Arc<Control>, path: &str, grants: &[Arc<Grant>]) {
        let mut grants = grants.to_vec();
        grants.sort_by_key(|grant| (grant.expires.is_none(), grant.expires));
        let Some(first) = grants.first() else { return };
        let expires = first.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let shown_until = grants.iter().filter_map(|grant| grant.shown_until).min();
        {
            let mut lease = control.lease.lock();
            let lease = lease.get_or_insert_default();
            lease.path = path.into();
            lease.besides = grants.split_off(1);
            lease.grant = grants.pop();
            let mut queue = self.queue.lock();
            lease.due.retain(|&(at, due)| {
                let stays = matches!(due, Due::Age | Due::Reload | Due::Cut);
                if !stays {
                    queue.remove(&(at, control.id, due));
                }
                stays
            });
        }
        control.expiring.store(false, Ordering::Release);
        // A browser is lost with a cookie that is over, and left another when it comes back before.
        if let Some(until) = shown_until {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default().mul_f64(0.6);
            self.put(control, [(Instant::now() + jittered(left), Due::Age)]);
        }
        // What is further away than any clock tells is for ever.
        let Some(end) = expires.and_then(|left| Instant::now().checked_add(left.min(FAR))) else { return };
        self.put(control, [(end, Due::Expiry)]);
        let ahead = control.route.config.expiring;
        if !ahead.is_zero() {
            self.put(control, [(end.checked_sub(ahead).unwrap_or_else(Instant::now), Due::Notice)]);
        }
    }

    /// A stream has ended.
    pub(super) fn forget(&self, control: &Control) {
        if let Some(lease) = control.lease.lock().take() {
            let mut queue = self.queue.lock();
            for (at, due) in lease.due {
                queue.remove(&(at, control.id, due));
            }
        }
    }

    fn put<const N: usize>(&self, control: &Arc<Control>, due: [(Instant, Due); N]) {
        control.lease.lock().get_or_insert_default().due.extend(due);
        let mut queue = self.queue.lock();
        let first = queue.first_key_value().map(|((at, ..), _)| *at);
        queue.extend(due.map(|(at, due)| ((at, control.id, due), Arc::clone(control))));
        if first.is_none_or(|first| due.iter().any(|(at, _)| *at < first)) {
            self.sooner.notify_one();
        }
    }

    /// Does what is due when it is; never returns.
    pub async fn run(&self) {
        loop {
            for (due, control) in self.take_due(Instant::now()) {
                self.act(due, &control);
            }
            let next = self.queue.lock().first_key_value().map(|((at, ..), _)| *at);
            let sleep = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    fn act(&self, due: Due, control: &Arc<Control>) {
        match due {
            Due::Notice => {
                control.expiring.store(true, Ordering::Release);
                control.wake();
            }
            Due::Expiry => self.end(control, End::Expired),
            Due::Age => self.end(control, End::Age),
            Due::Reload => self.end(control, End::Reload),
            Due::Cut => control.kill(End::Expired),
        }
    }

    /// The stream is to end, and is cut if it does not: whoever stops reading does not stay longer than others.
    pub(super) fn end(&self, control: &Arc<Control>, why: End) {
        // First, since it is forgotten with the stream, which may end as soon as it is told to.
        self.put(control, [(Instant::now() + GRACE, Due::Cut)]);
        control.end(why);
    }

    /// The stream is to end then, since what it reads is no longer served.
    pub(super) fn end_at(&self, control: &Arc<Control>, at: Instant) {
        self.put(control, [(at, Due::Reload)]);
    }

    fn take_due(&self, now: Instant) -> Vec<(Due, Arc<Control>)> {
        let mut queue = self.queue.lock();
        let later = queue.split_off(&(now, u64::MAX, Due::Cut));
        std::mem::replace(&mut *queue, later)
            .into_iter()
            .map(|((_, _, due), control)| (due, control))
            .collect()
    }
}

impl Registered {
    /// The event that tells the client that its stream will end, when it is time for it.
    pub(super) fn notice(&self) -> Option<Bytes> {
        let control = &self.control;
        if !control.expiring.load(Ordering::Relaxed) || !control.expiring.swap(false, Ordering::AcqRel) {
            return None;
        }
        let lease = control.lease.lock();
        let lease = lease.as_ref()?;
        let grant = lease.grant.as_ref()?;
        let expires = humantime::format_rfc3339_seconds(grant.expires?).to_string();
        let renew = self.streams().renewals.sign(&control.id.to_be_bytes());
        // Nobody can show to be the same as one who has no name.
        let has_name = lease.grants().all(|grant| grant.is_of_the_same(grant));
        let renew = has_name.then(|| format!("{}?renew={renew}", lease.path));
        let data = json!({ "expires": expires, "renew": renew });
        let mut bytes = Vec::new();
        sse::control_body(&mut bytes, control.route.control_prefix(), "expiring", &data.to_string());
        bytes.push(b'\n');
        Some(bytes.into())
    }
}

impl Streams {
    /// The open stream that a renewal link of its event names.
    pub(super) fn renewable(&self, link: &str, path: &str) -> Option<Arc<Control>> {
        let id = self.renewals.check(link)?;
        let control = self.get(u64::from_be_bytes(id.try_into().ok()?))?;
        let fits = control.lease.lock().as_ref().is_some_and(|lease| &*lease.path == path);
        fits.then_some(control)
    }
}

/// How long a stream may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Credentials that end later do not end while the process lives.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
mod tests;
