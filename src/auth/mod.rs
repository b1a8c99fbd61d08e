//! Who may listen: from what a request carries to a verdict. Knows nothing of streams; `http` asks it when one is
//! opened or renewed, and again about those that are open when something was withdrawn.
//!
//! Reading order: `grant` has the words, `asked` is what a request brings, with the client's `certificate`, then a file for
//! each kind of provider (`jwt` with `keys` and `jwks`, `ticket` with `path`, `api_key`, `forward`), `rule` and `deny`, and
//! what one request has `shown` on which several routes decide. What is `kept` outlives a reload.

mod api_key;
mod asked;
mod certificate;
mod deny;
mod forward;
mod grant;
mod jwks;
mod jwt;
mod kept;
mod keys;
mod path;
mod rule;
mod shown;
mod sign;
mod ticket;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::watch;

#[cfg(test)]
pub use asked::testing;
pub use asked::{Asked, in_query};
pub use certificate::Certificate;
pub use grant::{Admitted, Grant, Refusal, Verdict};
pub use path::as_sent;
pub use shown::Shown;
pub use sign::{Signer, digest, same};
pub use ticket::{Tickets, Unticketed};

use crate::config::{AuthKind, AuthProvider, Config, Deny, Roots, Rule};
use crate::fetch::Http;
use crate::metrics::Metrics;
use api_key::ApiKeys;
use deny::Denials;
use forward::Forward;
use grant::Check;
use jwks::Lookup;
use jwt::Tokens;
use kept::Kept;

/// Every provider of the process, shared by all routes.
pub struct Auth {
    providers: HashMap<Arc<str>, Arc<Provider>>,
    configured: Vec<AuthProvider>,
    deny: Arc<Kept<Denials>>,
    denies: Option<Deny>,
    /// Those of every provider that there has been: what was used with one is used, also when it comes back.
    tickets: HashMap<Arc<str>, Arc<Tickets>>,
    /// Counts what may change a verdict: keys that came or went, and entries of the deny list.
    changed: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

enum Provider {
    Jwt(Box<Tokens>),
    Ticket(Arc<Tickets>),
    ApiKey(ApiKeys),
    Forward(Box<Forward>),
    ClientCert,
}

impl Auth {
    /// The providers of a configuration. Nothing is asked before [`Self::run`]. What was known `before` and is configured in
    /// the same way is still known: keys, who was let in, and above all which tickets were used.
    pub fn new(config: &Config, metrics: &Arc<Metrics>, before: Option<&Self>) -> Arc<Self> {
        let changed = before.map_or_else(|| watch::Sender::new(0), |before| before.changed.clone());
        // The system's authorities are read where somebody is asked, and only there.
        let shared = LazyCell::new(|| Http::new(None));
        let http = |roots: Option<&Roots>| match roots {
            None => Http::clone(&shared),
            own => Http::new(own),
        };
        let mut tickets = before.map(|before| before.tickets.clone()).unwrap_or_default();
        let provider = |provider: &AuthProvider| {
            let name = &provider.name;
            let known = before.and_then(|before| before.providers.get(name));
            if let Some(known) =
                known.filter(|_| before.is_some_and(|before| before.configured.contains(provider)))
            {
                return (Arc::clone(name), Arc::clone(known));
            }
            let made = match (&provider.kind, known.map(|known| &**known)) {
                (AuthKind::Jwt(jwt), known) => {
                    let known = match known {
                        Some(Provider::Jwt(tokens)) => Some(&**tokens),
                        _ => None,
                    };
                    Provider::Jwt(Box::new(Tokens::new(name, jwt, known, &http, &changed, metrics)))
                }
                (AuthKind::Ticket(ticket), _) => {
                    let tickets = match tickets.get(name) {
                        Some(known) => Tickets::following(known, ticket),
                        None => Tickets::new(name, ticket),
                    };
                    Provider::Ticket(Arc::new(tickets))
                }
                (AuthKind::ApiKey(keys), _) => Provider::ApiKey(ApiKeys::new(keys)),
                (AuthKind::Forward(forward), _) => {
                    let http = http(forward.roots.as_ref());
                    Provider::Forward(Box::new(Forward::new(forward, http, metrics.forward(name))))
                }
                (AuthKind::ClientCert, _) => Provider::ClientCert,
            };
            (Arc::clone(name), Arc::new(made))
        };
        let providers: HashMap<_, _> = config.auth.iter().map(provider).collect();
        tickets.extend(providers.iter().filter_map(|(name, provider)| match &**provider {
            Provider::Ticket(tickets) => Some((Arc::clone(name), Arc::clone(tickets))),
            _ => None,
        }));
        Arc::new(Self {
            providers,
            tickets,
            configured: config.auth.clone(),
            deny: match before.filter(|before| before.denies == config.deny) {
                Some(before) => Arc::clone(&before.deny),
                None => Kept::new(Arc::new(Denials::new(config.deny.as_ref(), &changed))),
            },
            denies: config.deny.clone(),
            changed,
            metrics: Arc::clone(metrics),
        })
    }

    /// Starts what keeps keys and the deny list up to date, until nobody has them any more.
    pub fn run(&self) {
        for provider in self.providers.values() {
            if let Provider::Jwt(tokens) = &**provider
                && let Some(jwks) = tokens.jwks()
            {
                jwks.start(|jwks| async move { jwks.run().await });
            }
        }
        self.deny.start(|deny| async move { deny.run().await });
    }

    /// Has verdicts looked at again: who decides may be another one, or decide otherwise.
    pub fn tell(&self) {
        self.changed.send_modify(|changed| *changed += 1);
    }

    /// Tells of changes after which verdicts may be others.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.get(name).map(|provider| &**provider)
    }

    /// Whether what a grant was given for still holds, as far as is known: its provider and its key are there, and nobody
    /// has put it on the deny list.
    pub fn stands(&self, grant: &Grant) -> bool {
        let key_is_there = match (self.provider(&grant.provider), &grant.key) {
            (Some(Provider::Jwt(tokens)), Some(key)) => tokens.holds(key) != Some(false),
            (Some(Provider::ApiKey(keys)), Some(key)) => keys.holds(key),
            (provider, _) => provider.is_some(),
        };
        key_is_there && !self.deny.names(grant)
    }

    /// Whether the key that a grant was given for is there: tickets and cookies outlive restarts, and keys.
    async fn confirm(&self, grant: &Grant, asked: &Asked) -> Lookup<()> {
        match (self.provider(&grant.provider), &grant.key) {
            (Some(Provider::Jwt(tokens)), Some(key)) => tokens.confirm(key, asked.came).await,
            (Some(Provider::ApiKey(keys)), Some(key)) if !keys.holds(key) => Lookup::Unknown,
            _ => Lookup::Found(()),
        }
    }

    /// The cookie with which whoever has proven this comes back to a stream of these providers, where it takes tickets for
    /// it.
    pub fn cookie(&self, providers: &[Arc<str>], grant: &Grant, asked: &Asked) -> Option<http::HeaderValue> {
        providers.iter().find_map(|name| match self.provider(name)? {
            Provider::Ticket(tickets) => tickets.cookie(grant, asked),
            _ => None,
        })
    }

    /// Whether these providers let in whoever asks, and the rule, too. `route` is who asks in metrics.
    pub async fn decide(
        &self,
        route: &str,
        providers: &[Arc<str>],
        rule: Option<&Rule>,
        asked: &Asked,
    ) -> Verdict {
        self.decide_on(route, providers, rule, (asked, None)).await
    }

    /// The same for one of several routes that decide on what a request has shown: each credential is looked at once, so that
    /// one that is good once is good for all of them.
    pub async fn decide_too(
        &self,
        route: &str,
        providers: &[Arc<str>],
        rule: Option<&Rule>,
        (asked, shown): (&Asked, &mut Shown),
    ) -> Verdict {
        self.decide_on(route, providers, rule, (asked, Some(shown))).await
    }

    async fn decide_on(
        &self,
        route: &str,
        providers: &[Arc<str>],
        rule: Option<&Rule>,
        (asked, mut shown): (&Asked, Option<&mut Shown>),
    ) -> Verdict {
        if let Some(grant) = &asked.proven {
            return self.admit(route, &grant.provider, rule, asked, (Arc::clone(grant), None)).await;
        }
        let (mut refusal, mut undecided) = (None, false);
        for name in providers {
            let Some(provider) = self.provider(name) else { continue };
            let check = match &mut shown {
                Some(shown) => shown.check(provider, name, asked).await,
                None => provider.check(name, asked).await,
            };
            let outcome = match check {
                Check::Absent => continue,
                Check::Undecided => {
                    undecided = true;
                    "undecided"
                }
                Check::Refused(why) => {
                    tracing::debug!(route, provider = &**name, why = why.as_str(), "credential refused");
                    // The first counts, but for one that will pass.
                    refusal = refusal.filter(|_| why != Refusal::Full).or(Some(why));
                    why.as_str()
                }
                Check::Known(grant, cookie) => {
                    return self.admit(route, name, rule, asked, (grant, cookie)).await;
                }
            };
            self.metrics.auth_decision(route, name, outcome);
        }
        if undecided {
            return Verdict::Undecided(Admitted::default());
        }
        if providers.is_empty() {
            return match self.rule_holds(route, rule, asked, &json!({})) {
                Ok(()) => Verdict::Allowed(Admitted::default()),
                Err(why) => self.refuse(route, "none", why),
            };
        }
        match refusal {
            Some(why) => Verdict::Refused(why),
            None => self.refuse(route, "none", Refusal::Missing),
        }
    }

    /// The first credential that holds decides, on its own.
    async fn admit(
        &self,
        route: &str,
        name: &str,
        rule: Option<&Rule>,
        asked: &Asked,
        (grant, cookie): (Arc<Grant>, Option<http::HeaderValue>),
    ) -> Verdict {
        if self.deny.names(&grant) {
            return self.refuse(route, name, Refusal::Denied);
        }
        match self.confirm(&grant, asked).await {
            Lookup::Found(()) => {}
            Lookup::Unknown => return self.refuse(route, name, Refusal::Signature),
            Lookup::Unavailable => {
                self.metrics.auth_decision(route, name, "undecided");
                return Verdict::Undecided(Admitted { grant: Some(grant), cookie });
            }
        }
        if let Err(why) = self.rule_holds(route, rule, asked, &grant.claims) {
            return self.refuse(route, name, why);
        }
        self.metrics.auth_decision(route, name, "allowed");
        Verdict::Allowed(Admitted { grant: Some(grant), cookie })
    }

    fn refuse(&self, route: &str, name: &str, why: Refusal) -> Verdict {
        self.metrics.auth_decision(route, name, why.as_str());
        tracing::debug!(route, provider = name, why = why.as_str(), "not let in");
        Verdict::Refused(why)
    }

    /// What a rule fails on is refused: it cannot be told what it would have said.
    fn rule_holds(
        &self,
        route: &str,
        rule: Option<&Rule>,
        asked: &Asked,
        claims: &Value,
    ) -> Result<(), Refusal> {
        let Some(rule) = rule else { return Ok(()) };
        match rule::holds(rule, asked, claims) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Rule),
            Err(error) => {
                self.metrics.rule_failed(route, &error);
                Err(Refusal::RuleFailed)
            }
        }
    }

    /// The tickets that are asked for at this path.
    pub fn tickets_at(&self, path: &str) -> Option<&Arc<Tickets>> {
        let tickets = self.providers.values().filter_map(|provider| match &**provider {
            Provider::Ticket(tickets) => Some(tickets),
            _ => None,
        });
        tickets.into_iter().find(|tickets| tickets.path() == path)
    }

    /// Who is believed of those who renew a stream of these providers: not the cookie that a ticket has left, which comes
    /// along, but what tickets are had for.
    pub fn renewing(&self, providers: &[Arc<str>]) -> Vec<Arc<str>> {
        let mut believed: Vec<Arc<str>> = Vec::new();
        for name in providers {
            let fresh = match self.provider(name) {
                Some(Provider::Ticket(tickets)) => tickets.of(),
                _ => std::slice::from_ref(name),
            };
            for name in fresh {
                if !believed.contains(name) {
                    believed.push(Arc::clone(name));
                }
            }
        }
        believed
    }

    /// What operators see of each provider.
    pub fn status(&self) -> Value {
        let provider = |provider: &AuthProvider| {
            let name = &provider.name;
            let (kind, detail) = match &*self.providers[name] {
                Provider::Jwt(tokens) => ("jwt", tokens.status()),
                Provider::Ticket(tickets) => ("ticket", tickets.status()),
                Provider::ApiKey(_) => ("api_key", Value::Null),
                Provider::Forward(forward) => ("forward", forward.status()),
                Provider::ClientCert => ("client_cert", Value::Null),
            };
            json!({ "name": name, "kind": kind, "detail": detail })
        };
        json!({ "providers": self.configured.iter().map(provider).collect::<Vec<_>>(), "deny": self.deny.status() })
    }
}

impl Provider {
    async fn check(&self, name: &Arc<str>, asked: &Asked) -> Check {
        match self {
            Self::Jwt(tokens) => tokens.check(asked).await,
            Self::Ticket(tickets) => tickets.check(asked),
            Self::ApiKey(keys) => keys.check(name, asked),
            Self::Forward(forward) => forward.check(name, asked).await,
            Self::ClientCert => client_cert(name, asked),
        }
    }
}

/// TLS has proven it; who has none shows no credential. A connection may outlive the certificate that it began with.
fn client_cert(name: &Arc<str>, asked: &Asked) -> Check {
    let Some(certificate) = &asked.certificate else { return Check::Absent };
    if certificate.expires < SystemTime::now() {
        return Check::Refused(Refusal::Expired);
    }
    let claims = json!({ "sub": certificate.subject, "sans": certificate.sans() });
    let grant = Grant::new(name, &certificate.subject, claims);
    Check::Known(Arc::new(Grant { expires: Some(certificate.expires), ..grant }), None)
}
