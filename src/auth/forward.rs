//! Asking an HTTP endpoint, by the conventions of nginx's `auth_request` and Traefik's `forwardAuth`: any 2xx lets in,
//! what says that the request is at fault does not, and everything else is an outage. Who was let in is let in for a while
//! by the same question; who was not is asked for again, since he may have logged in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::asked::Asked;
use super::grant::{Check, Grant, Refusal};
use super::sign;
use crate::config::{self, OnError};
use crate::fetch::Http;
use crate::metrics::ForwardMetrics;

/// The endpoint of one provider.
pub(super) struct Forward {
    config: config::Forward,
    http: Http,
    /// Questions at a time. The others wait, for as long as an answer may take.
    asking: Semaphore,
    remembered: Mutex<Remembered>,
    trouble: Mutex<Trouble>,
    metrics: ForwardMetrics,
}

/// Whom it lets in.
#[derive(Debug, Clone)]
struct Known {
    subject: Arc<str>,
    claims: Arc<Value>,
}

/// What it says.
enum Answer {
    In(Known),
    Out(Refusal),
}

/// Who was let in, the first to be forgotten first.
#[derive(Default)]
struct Remembered {
    answers: HashMap<[u8; 32], (Instant, Known)>,
    order: VecDeque<[u8; 32]>,
}

/// What went wrong last.
#[derive(Default)]
struct Trouble {
    last: Option<(String, SystemTime)>,
    told: Option<Instant>,
}

impl Forward {
    pub fn new(config: &config::Forward, http: Http, metrics: ForwardMetrics) -> Self {
        Self {
            config: config.clone(),
            http,
            asking: Semaphore::new(AT_A_TIME),
            remembered: Mutex::default(),
            trouble: Mutex::default(),
            metrics,
        }
    }

    pub async fn check(&self, provider: &Arc<str>, asked: &Asked) -> Check {
        let headers = self.question(asked);
        let uses_cookie = headers.contains_key(http::header::COOKIE);
        if uses_cookie && !asked.origin_is_listed {
            return Check::Refused(Refusal::Origin);
        }
        let key = key(&headers);
        let known = self.remembered.lock().find(&key, Instant::now());
        if let Some(known) = known {
            return known.grant(provider);
        }
        let began = Instant::now();
        let answer = self.ask(provider, headers).await;
        self.metrics.answered(began.elapsed(), answer.is_ok());
        match answer {
            Ok(Answer::In(known)) => {
                self.remembered.lock().add(key, known.clone(), (began, self.config.cache));
                known.grant(provider)
            }
            Ok(Answer::Out(why)) => Check::Refused(why),
            Err(why) => {
                self.complain(provider, why);
                match self.config.on_error {
                    OnError::Hold => Check::Undecided,
                    OnError::Deny => Check::Refused(Refusal::Unauthorized),
                }
            }
        }
    }

    /// Its turn and the answer take `timeout` together.
    async fn ask(&self, provider: &str, headers: HeaderMap) -> Result<Answer, String> {
        let deadline = Instant::now() + self.config.timeout;
        let turn = timeout_at(deadline, self.asking.acquire()).await;
        let _turn = turn.map_err(|_| format!("{AT_A_TIME} questions are open already"))?;
        let left = deadline.duration_since(Instant::now());
        let (head, _) = self.http.get(self.config.url.clone(), headers, left).await?;
        let status = head.status;
        if status.is_success() {
            return Ok(Answer::In(self.let_in(&head.headers)));
        }
        let why = refusal(status).ok_or_else(|| format!("the answer is {status}"))?;
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.complain(provider, format!("the answer is {status}, which does not let the client in"));
        }
        Ok(Answer::Out(why))
    }

    fn let_in(&self, headers: &HeaderMap) -> Known {
        let text =
            |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let subject = self.config.claims.first().and_then(text).unwrap_or_default().as_ref().into();
        let claims =
            self.config.claims.iter().filter_map(|name| Some((name.to_string(), text(name)?.into())));
        Known { subject, claims: Arc::new(Value::Object(claims.collect::<Map<_, _>>())) }
    }

    /// What is asked. What is said of the original request comes from us alone.
    fn question(&self, asked: &Asked) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in &self.config.headers {
            for value in asked.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let uri = match asked.query.is_empty() {
            true => asked.path.clone(),
            false => format!("{}?{}", asked.path, asked.query),
        };
        let client = asked.client.to_string();
        for (name, value) in [
            ("x-forwarded-method", asked.method.as_str()),
            ("x-forwarded-proto", if asked.secure { "https" } else { "http" }),
            ("x-forwarded-host", &asked.authority),
            ("x-forwarded-uri", &uri),
            ("x-original-uri", &uri),
            ("x-forwarded-for", &client),
        ] {
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
            headers.insert(HeaderName::from_static(name), value);
        }
        headers
    }

    /// Clients decide how often it happens, and so it is logged now and then.
    fn complain(&self, provider: &str, why: String) {
        let mut trouble = self.trouble.lock();
        if trouble.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            trouble.told = Some(Instant::now());
            tracing::warn!(provider, why, "the endpoint that decides has no answer as it should be");
        }
        trouble.last = Some((why, SystemTime::now()));
    }

    /// What operators see.
    pub fn status(&self) -> Value {
        let trouble = self.trouble.lock();
        let last = trouble.last.as_ref().map(
            |(error, at)| json!({ "error": error, "at": humantime::format_rfc3339_seconds(*at).to_string() }),
        );
        json!({ "remembered": self.remembered.lock().answers.len(), "last_error": last })
    }
}

impl Known {
    fn grant(&self, provider: &Arc<str>) -> Check {
        Check::Known(Arc::new(Grant::new(provider, &self.subject, Value::clone(&self.claims))), None)
    }

    fn size(&self) -> usize {
        let claims = self.claims.as_object().into_iter().flatten();
        let texts = claims.map(|(name, text)| name.len() + text.as_str().map_or(0, str::len));
        self.subject.len() + texts.sum::<usize>()
    }
}

/// Why a status lets nobody in; `None` where it tells of an outage. What a client can cause is none, or he would be held,
/// and asked for, for nothing.
fn refusal(status: StatusCode) -> Option<Refusal> {
    match status {
        StatusCode::FORBIDDEN => Some(Refusal::Forbidden),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => None,
        // 401, a redirect to where one logs in, and what the endpoint does not take.
        status if status.is_redirection() || status.is_client_error() => Some(Refusal::Unauthorized),
        _ => None,
    }
}

impl Remembered {
    fn find(&self, key: &[u8; 32], now: Instant) -> Option<Known> {
        self.answers.get(key).filter(|(until, _)| now < *until).map(|(_, known)| known.clone())
    }

    /// Keeps an answer to what was asked at `began`; the oldest make way where there are too many.
    fn add(&mut self, key: [u8; 32], known: Known, (began, time): (Instant, Duration)) {
        if time.is_zero() || known.size() > LARGEST {
            return;
        }
        if self.answers.insert(key, (began + time, known)).is_none() {
            self.order.push_back(key);
        }
        while let Some(first) = self.order.front()
            && (self.answers.len() > MOST || self.answers.get(first).is_none_or(|(until, _)| *until <= began))
        {
            self.answers.remove(first);
            self.order.pop_front();
        }
    }
}

/// A hash of the whole question.
fn key(headers: &HeaderMap) -> [u8; 32] {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    sign::digest(&bytes)
}

/// Questions at a time.
const AT_A_TIME: usize = 64;
/// Answers that are kept at a time,
const MOST: usize = 10_000;
/// and the bytes of each.
const LARGEST: usize = 4 << 10;
const TELL_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_can_cause_refuses_and_what_passes_is_waited_for() {
        for status in [301, 302, 303, 307, 308, 400, 401, 404, 405, 413, 414, 418, 431] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refusal(status), Some(Refusal::Unauthorized), "{status}");
        }
        assert_eq!(refusal(StatusCode::FORBIDDEN), Some(Refusal::Forbidden));
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(refusal(StatusCode::from_u16(status).unwrap()), None, "{status}");
        }
    }

    #[test]
    fn the_oldest_answer_makes_way_and_what_has_ended_goes() {
        let known = |subject: &str| Known { subject: subject.into(), claims: Arc::new(json!({})) };
        let (mut remembered, began, time) = (Remembered::default(), Instant::now(), Duration::from_secs(10));
        let key = |number: usize| sign::digest(&number.to_be_bytes());
        for number in 0..=MOST {
            remembered.add(key(number), known("a"), (began, time));
        }
        assert!(remembered.find(&key(0), began).is_none(), "one more than there is room for");
        assert!((1..=MOST).all(|number| remembered.find(&key(number), began).is_some()));
        assert!(remembered.find(&key(1), began + time).is_none());
        remembered.add(key(0), known("b"), (began + time, time));
        assert_eq!((remembered.answers.len(), remembered.order.len()), (1, 1));
        remembered.add(key(1), known(&"a".repeat(LARGEST + 1)), (began + time, time));
        remembered.add(key(2), known("a"), (began + time, Duration::ZERO));
        assert_eq!(remembered.answers.len(), 1, "neither what is too large nor what is not to be kept");
    }
}
