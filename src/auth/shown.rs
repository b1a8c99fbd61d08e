//! What one request has shown, where several routes decide on it: their providers look at its credentials once.

use std::sync::Arc;

use super::Provider;
use super::asked::Asked;
use super::grant::Check;
use crate::config::Reads;

/// The credentials of one request, as far as they were looked at.
pub struct Shown {
    /// The request as it came. What is asked of each route is a request of its own.
    request: Asked,
    seen: Vec<Seen>,
    /// Providers that ask endpoints, of which one has not answered.
    silent: Vec<Arc<str>>,
}

/// What one provider has found.
struct Seen {
    provider: Arc<str>,
    /// Whether cookies counted.
    cookies: bool,
    is_ticket: bool,
    check: Check,
}

impl Shown {
    /// Nothing has been looked at yet.
    pub fn by(request: Asked) -> Self {
        Self { request, seen: Vec::new(), silent: Vec::new() }
    }

    /// The request as it came.
    pub fn request(&self) -> &Asked {
        &self.request
    }

    /// What of the request decides, in memory of its own.
    pub fn kept(mut self, reads: &Reads) -> Self {
        self.forget();
        Self { request: self.request.kept(reads), ..self }
    }

    /// What was found is to be looked at again, but for tickets: one that was used is used.
    pub fn forget(&mut self) {
        self.silent.clear();
        self.seen.retain(|seen| seen.is_ticket);
    }

    /// What a provider finds where a route is asked for in this way.
    pub(super) async fn check(&mut self, provider: &Provider, name: &Arc<str>, asked: &Asked) -> Check {
        if matches!(provider, Provider::Forward(_)) {
            // Whoever is asked there may go by the path. But where there is no answer, nobody waits for it once more.
            if self.silent.contains(name) {
                return Check::Undecided;
            }
            let check = provider.check(name, asked).await;
            self.silent.extend(matches!(check, Check::Undecided).then(|| Arc::clone(name)));
            return check;
        }
        // A ticket is for the path of the request, and so is the cookie that it leaves.
        let is_ticket = matches!(provider, Provider::Ticket(_));
        let asked = if is_ticket { &self.request } else { asked };
        let cookies = asked.origin_is_listed;
        let is_it = |seen: &&Seen| seen.provider == *name && seen.cookies == cookies;
        if let Some(seen) = self.seen.iter().find(is_it) {
            return seen.check.clone();
        }
        let check = provider.check(name, asked).await;
        let provider = Arc::clone(name);
        self.seen.push(Seen { provider, cookies, is_ticket, check: check.clone() });
        check
    }
}
