//! Who may listen: from what a request carries to a verdict. Knows nothing of streams; `http` asks it when one is
//! opened or renewed, and again about those that are open when something was withdrawn.
//!
//! Reading order: `grant` has the words, `asked` is what a request brings, with the client's `certificate`, then a file for
//! each kind of provider (`jwt` with `keys` and `jwks`, `ticket` with `path`, `api_key`, `forward`), `rule` and `deny`.

mod api_key;
mod asked;
mod certificate;
mod deny;
mod forward;
mod grant;
mod jwks;
mod jwt;
mod keys;
mod path;
mod rule;
mod sign;
mod ticket;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[cfg(test)]
pub use asked::testing;
pub use asked::{Asked, in_query};
pub use certificate::Certificate;
pub use grant::{Admitted, Grant, Refusal, Verdict};
pub use path::as_sent;
pub use sign::{Signer, digest, same};
pub use ticket::{Tickets, Unticketed};

use crate::config::{AuthKind, Config, Rule};
use crate::fetch::Http;
use crate::metrics::Metrics;
use api_key::ApiKeys;
use deny::Denials;
use forward::Forward;
use grant::Check;
use jwks::Lookup;
use jwt::Tokens;

/// Every provider of the process, shared by all routes.
pub struct Auth {
    providers: HashMap<Arc<str>, Provider>,
    names: Vec<Arc<str>>,
    deny: Denials,
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
    /// The providers of a configuration. Nothing is asked before [`Self::run`].
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Arc<Self> {
        let changed = watch::Sender::new(0);
        // The system's authorities are read where somebody is asked, and only there.
        let shared = LazyCell::new(|| Http::new(None));
        let http = |roots: Option<&Arc<RootCertStore>>| match roots {
            None => Http::clone(&shared),
            own => Http::new(own),
        };
        let provider = |provider: &crate::config::AuthProvider| {
            let name = &provider.name;
            let made = match &provider.kind {
                AuthKind::Jwt(jwt) => {
                    Provider::Jwt(Box::new(Tokens::new(name, jwt, &http, &changed, metrics)))
                }
                AuthKind::Ticket(ticket) => Provider::Ticket(Arc::new(Tickets::new(name, ticket))),
                AuthKind::ApiKey(keys) => Provider::ApiKey(ApiKeys::new(keys)),
                AuthKind::Forward(forward) => {
                    let http = http(forward.roots.as_ref());
                    Provider::Forward(Box::new(Forward::new(forward, http, metrics.forward(name))))
                }
                AuthKind::ClientCert => Provider::ClientCert,
            };
            (Arc::clone(name), made)
        };
        Arc::new(Self {
            providers: config.auth.iter().map(provider).collect(),
            names: config.auth.iter().map(|provider| Arc::clone(&provider.name)).collect(),
            deny: Denials::new(config.deny.as_ref(), &changed),
            changed,
            metrics: Arc::clone(metrics),
        })
    }

    /// Starts what keeps keys and the deny list up to date.
    pub fn run(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        for provider in self.providers.values() {
            if let Provider::Jwt(tokens) = provider
                && let Some(jwks) = tokens.jwks()
            {
                let jwks = Arc::clone(jwks);
                tasks.spawn(async move { jwks.run().await });
            }
        }
        let auth = Arc::clone(self);
        tasks.spawn(async move { auth.deny.run().await });
    }

    /// Tells of changes after which verdicts may be others.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether what a grant was given for still holds, as far as is known: its key is not gone, and nobody has put it on
    /// the deny list.
    pub fn stands(&self, grant: &Grant) -> bool {
        let key_is_gone = match (self.providers.get(&grant.provider), &grant.key) {
            (Some(Provider::Jwt(tokens)), Some(key)) => tokens.holds(key) == Some(false),
            _ => false,
        };
        !key_is_gone && !self.deny.names(grant)
    }

    /// Whether the key that a grant was given for is there: tickets and cookies outlive restarts, and keys.
    async fn confirm(&self, grant: &Grant, asked: &Asked) -> Lookup<()> {
        match (self.providers.get(&grant.provider), &grant.key) {
            (Some(Provider::Jwt(tokens)), Some(key)) => tokens.confirm(key, asked.came).await,
            _ => Lookup::Found(()),
        }
    }

    /// The cookie with which whoever has proven this comes back to a stream of these providers, where it takes tickets for
    /// it.
    pub fn cookie(&self, providers: &[Arc<str>], grant: &Grant, asked: &Asked) -> Option<http::HeaderValue> {
        providers.iter().find_map(|name| match self.providers.get(name)? {
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
        if let Some(grant) = &asked.proven {
            return self.admit(route, &grant.provider, rule, asked, (Arc::clone(grant), None)).await;
        }
        let (mut refusal, mut undecided) = (None, false);
        for name in providers {
            let Some(provider) = self.providers.get(name) else { continue };
            let outcome = match provider.check(name, asked).await {
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
        let tickets = self.providers.values().filter_map(|provider| match provider {
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
            let fresh = match self.providers.get(name) {
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
        let provider = |name: &Arc<str>| {
            let (kind, detail) = match &self.providers[name] {
                Provider::Jwt(tokens) => ("jwt", tokens.status()),
                Provider::Ticket(tickets) => ("ticket", tickets.status()),
                Provider::ApiKey(_) => ("api_key", Value::Null),
                Provider::Forward(forward) => ("forward", forward.status()),
                Provider::ClientCert => ("client_cert", Value::Null),
            };
            json!({ "name": name, "kind": kind, "detail": detail })
        };
        json!({ "providers": self.names.iter().map(provider).collect::<Vec<_>>(), "deny": self.deny.status() })
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
