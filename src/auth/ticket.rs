//! Tickets: what a client has proven elsewhere, signed by us for one path and a short time, since the URL of an
//! `EventSource` is all that a page can put a credential into. The first use leaves a cookie of the same kind that is
//! good until the credential ends, because the browser comes back to the same URL by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::asked::Asked;
use super::grant::{Check, Grant, KeyName, Refusal};
use super::path;
use super::sign::Signer;
use crate::config::Ticket;

/// Those of one provider.
pub struct Tickets {
    provider: Arc<str>,
    config: Ticket,
    cookie: String,
    tickets: Arc<Signer>,
    cookies: Arc<Signer>,
    used: Arc<Mutex<Used>>,
}

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unticketed {
    /// What is known of the client does not fit into a cookie.
    TooLarge,
}

/// What is signed. Short names, since it stands in URLs.
#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(rename = "h")]
    host: String,
    #[serde(rename = "p")]
    path: String,
    /// Seconds since 1970 until which it can be shown.
    #[serde(rename = "u")]
    until: u64,
    /// The same for what it leads to; without it the credential has no end.
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// Tells it from all others.
    #[serde(rename = "n")]
    nonce: u64,
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    address: Option<std::net::IpAddr>,
    #[serde(rename = "b")]
    provider: String,
    #[serde(rename = "s")]
    subject: String,
    #[serde(rename = "c")]
    claims: Value,
    #[serde(rename = "k", skip_serializing_if = "Option::is_none")]
    key: Option<(Option<String>, [u8; 32])>,
    #[serde(rename = "j", skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Tickets {
    pub(super) fn new(provider: &Arc<str>, config: &Ticket) -> Self {
        let secret = match &config.secret {
            Some(secret) => secret.expose().as_bytes().to_vec(),
            None => rand::random::<[u8; 32]>().to_vec(),
        };
        Self {
            provider: Arc::clone(provider),
            config: config.clone(),
            cookie: format!("ssegate-{provider}"),
            // Those of another provider are none of ours, even where both have one secret.
            tickets: Arc::new(Signer::new(&secret, format!("ssegate ticket 2 {provider}"))),
            cookies: Arc::new(Signer::new(&secret, format!("ssegate cookie 2 {provider}"))),
            used: Arc::default(),
        }
    }

    /// Those of a provider that is configured in another way from now on. What was used stays used, and where neither has a
    /// secret of its own, what was signed stays good.
    pub(super) fn following(before: &Self, config: &Ticket) -> Self {
        let mut tickets = Self::new(&before.provider, config);
        tickets.used = Arc::clone(&before.used);
        if config.secret == before.config.secret {
            (tickets.tickets, tickets.cookies) = (Arc::clone(&before.tickets), Arc::clone(&before.cookies));
        }
        tickets
    }

    /// Where they are asked for.
    pub fn path(&self) -> &str {
        &self.config.path
    }

    /// By whom one is believed who asks for a ticket.
    pub fn of(&self) -> &[Arc<str>] {
        &self.config.of
    }

    /// Whether a route with these providers takes them.
    pub fn are_for(&self, providers: &[Arc<str>]) -> bool {
        providers.contains(&self.provider)
    }

    /// How long a ticket waits for its use.
    pub fn ttl(&self) -> Duration {
        self.config.ttl
    }

    /// A ticket for the path and host of this request.
    ///
    /// # Errors
    /// Why there is none.
    pub fn issue(&self, grant: &Grant, asked: &Asked) -> Result<String, Unticketed> {
        let until = seconds(SystemTime::now()) + self.config.ttl.as_secs();
        let content = Content {
            nonce: rand::random(),
            address: self.config.bind_address.then_some(asked.client),
            ..Content::new(grant, asked, until)
        };
        self.tickets.sign_content(&content).ok_or(Unticketed::TooLarge)
    }

    /// The ticket of the query, or the cookie that one has left. A ticket that is new goes first: whoever has just
    /// logged in as somebody else means it.
    pub(super) fn check(&self, asked: &Asked) -> Check {
        self.check_at(asked, seconds(SystemTime::now()))
    }

    fn check_at(&self, asked: &Asked, now: u64) -> Check {
        let mut refusal = None;
        if let Some(ticket) = asked.query("ticket") {
            match self.redeem(&ticket, asked, now) {
                Ok(content) => {
                    let mut grant = content.grant();
                    let cookie = self.leave(&grant, asked, now);
                    grant.shown_until = grant.expires.is_none().then(|| time(now + UNLIMITED.as_secs()));
                    return Check::Known(Arc::new(grant), cookie);
                }
                Err(why) => refusal = Some(why),
            }
        }
        for cookie in asked.cookies(&self.cookie).take(COOKIES) {
            if !asked.origin_is_listed {
                return Check::Refused(Refusal::Origin);
            }
            match self.read(&self.cookies, cookie, asked, now) {
                Ok(content) => return self.known_again(content, asked, now),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        refusal.map_or(Check::Absent, Check::Refused)
    }

    /// Who comes back with a cookie. That of a credential without an end is left anew before it is over.
    fn known_again(&self, content: Content, asked: &Asked, now: u64) -> Check {
        let until = content.until;
        let mut grant = content.grant();
        if grant.expires.is_some() {
            return Check::Known(Arc::new(grant), None);
        }
        let is_late = until < now + UNLIMITED.as_secs() / 2;
        let cookie = is_late.then(|| self.leave(&grant, asked, now)).flatten();
        grant.shown_until = Some(time(if cookie.is_some() { now + UNLIMITED.as_secs() } else { until }));
        Check::Known(Arc::new(grant), cookie)
    }

    fn redeem(&self, ticket: &str, asked: &Asked, now: u64) -> Result<Content, Refusal> {
        let content = self.read(&self.tickets, ticket, asked, now)?;
        if content.address.is_some_and(|address| address != asked.client) {
            return Err(Refusal::Address);
        }
        self.used.lock().take(content.nonce, content.until, now)?;
        Ok(content)
    }

    fn read(&self, signer: &Signer, signed: &str, asked: &Asked, now: u64) -> Result<Content, Refusal> {
        if signed.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let content = signer.check(signed).ok_or(Refusal::Signature)?;
        let content: Content = serde_json::from_slice(&content).map_err(|_| Refusal::Malformed)?;
        if content.host != asked.host || !path::same(&content.path, &asked.path) {
            return Err(Refusal::Path);
        }
        if !self.config.of.iter().any(|of| **of == *content.provider) {
            return Err(Refusal::Signature);
        }
        let over = content.until < now || content.expires.is_some_and(|expires| expires <= now);
        if over { Err(Refusal::Expired) } else { Ok(content) }
    }

    /// The cookie with which whoever has proven this comes back to the path of this request, if tickets are had for it.
    pub(super) fn cookie(&self, grant: &Grant, asked: &Asked) -> Option<HeaderValue> {
        let cookie = || self.leave(grant, asked, seconds(SystemTime::now()));
        self.config.of.contains(&grant.provider).then(cookie).flatten()
    }

    /// The cookie that takes the place of a ticket.
    fn leave(&self, grant: &Grant, asked: &Asked, now: u64) -> Option<HeaderValue> {
        let until = grant.expires.map_or(now + UNLIMITED.as_secs(), seconds);
        let value = self.cookies.sign_content(&Content::new(grant, asked, until))?;
        let text = format!(
            "{}={value}; Path={}; Max-Age={}; HttpOnly; Secure; SameSite=Strict",
            self.cookie,
            cookie_path(&asked.path),
            until.saturating_sub(now),
        );
        HeaderValue::from_str(&text).ok()
    }

    pub(super) fn status(&self) -> Value {
        json!({ "path": self.config.path, "used_lately": self.used.lock().seen.len() })
    }
}

impl Signer {
    /// `None` where it is too large for a cookie.
    fn sign_content(&self, content: &Content) -> Option<String> {
        let signed = self.sign(&serde_json::to_vec(content).ok()?);
        (signed.len() <= LONGEST).then_some(signed)
    }
}

impl Content {
    /// What is known of whoever sends this request, to be shown until then.
    fn new(grant: &Grant, asked: &Asked, until: u64) -> Self {
        Self {
            host: asked.host.clone(),
            path: asked.path.clone(),
            until,
            expires: grant.expires.map(seconds),
            nonce: 0,
            address: None,
            provider: grant.provider.to_string(),
            subject: grant.subject.to_string(),
            claims: grant.claims.clone(),
            key: grant.key.as_ref().map(|key| (key.id.clone(), key.print)),
            token: grant.token.clone(),
        }
    }

    fn grant(self) -> Grant {
        let key = self.key.map(|(id, print)| KeyName { id, print });
        let expires = self.expires.map(time);
        Grant {
            key,
            token: self.token,
            expires,
            ..Grant::new(&self.provider.into(), &self.subject, self.claims)
        }
    }
}

/// The path in a cookie ends at a semicolon, which a URL's need not. What is signed names the whole path.
fn cookie_path(path: &str) -> &str {
    match path.find(';') {
        Some(at) => &path[..=path[..at].rfind('/').unwrap_or(0)],
        None => path,
    }
}

/// Tickets that were used and could be used again.
#[derive(Default)]
struct Used {
    seen: HashMap<u64, u64>,
    swept: u64,
}

impl Used {
    /// Uses one. Where too many were used to remember one more, it is not used either.
    fn take(&mut self, nonce: u64, until: u64, now: u64) -> Result<(), Refusal> {
        if self.swept < now {
            self.swept = now;
            self.seen.retain(|_, until| *until >= now);
        }
        if self.seen.contains_key(&nonce) {
            return Err(Refusal::Replayed);
        }
        if self.seen.len() >= REMEMBERED {
            return Err(Refusal::Full);
        }
        self.seen.insert(nonce, until);
        Ok(())
    }
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Bytes of a ticket: browsers keep cookies of 4096 bytes, attributes included, and it becomes one.
const LONGEST: usize = 3_500;
/// Cookies that are tried, of paths within one another.
const COOKIES: usize = 4;
/// Used tickets that are remembered at a time.
const REMEMBERED: usize = 200_000;
/// How long the cookie of a credential without an end is good.
const UNLIMITED: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests;
