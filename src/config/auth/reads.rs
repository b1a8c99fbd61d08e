//! What of a request decides whether a route lets it in: what has to be kept of one that cannot be decided on, and what
//! pages of other origins may send.

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::{AuthKind, AuthProvider, Rule};

/// What a route's providers and its rule look at.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// The header fields in which credentials stand.
    pub headers: Vec<HeaderName>,
    /// Whether the rule looks at header fields, of which any may be meant.
    pub any_header: bool,
    /// Whether the query is looked at.
    pub query: bool,
}

impl Reads {
    /// Of a route that names some of these providers. Whoever asks for its tickets is of the route, too.
    pub fn of(all: &[AuthProvider], names: &[Arc<str>], rule: Option<&Rule>) -> Self {
        let mut reads = Self::default();
        reads.any_header = rule.is_some_and(|rule| rule.reads("headers"));
        reads.query = rule.is_some_and(|rule| rule.reads("query"));
        let found = |name: &Arc<str>| all.iter().find(|provider| provider.name == *name);
        for provider in names.iter().filter_map(found) {
            reads.add(&provider.kind);
            if let AuthKind::Ticket(ticket) = &provider.kind {
                ticket.of.iter().filter_map(found).for_each(|of| reads.add(&of.kind));
            }
        }
        reads
    }

    /// Looks at what `other` does, besides.
    pub fn merge(&mut self, other: &Self) {
        self.any_header |= other.any_header;
        self.query |= other.query;
        let new: Vec<_> = other.headers.iter().filter(|name| !self.headers.contains(name)).cloned().collect();
        self.headers.extend(new);
    }

    fn add(&mut self, kind: &AuthKind) {
        let mut header = |name: &HeaderName| {
            if !self.headers.contains(name) {
                self.headers.push(name.clone());
            }
        };
        match kind {
            AuthKind::Jwt(jwt) => {
                header(&AUTHORIZATION);
                jwt.cookie.iter().for_each(|_| header(&COOKIE));
                self.query |= jwt.query.is_some();
            }
            AuthKind::Ticket(_) => {
                header(&COOKIE);
                self.query = true;
            }
            AuthKind::ApiKey(keys) => header(&keys.header),
            // The endpoint is told the whole URL.
            AuthKind::Forward(forward) => {
                forward.headers.iter().for_each(header);
                self.query = true;
            }
            AuthKind::ClientCert => {}
        }
    }
}
