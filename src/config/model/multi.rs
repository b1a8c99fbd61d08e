//! `multi:` of a route: whose feeds it gives, several at a time on one connection.

use std::sync::Arc;

use super::Route;

/// `multi:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multi {
    /// `of`: the names of routes that exist, at least one, each once; none of them has `multi` itself.
    pub of: Vec<Arc<str>>,
    /// `max`: how many feeds one client may ask for. Default 50, 1 to 200.
    pub max: usize,
    /// `tell`: how an event says which feed it is of.
    pub tell: Tell,
}

/// `multi.tell:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// `event`: in its name.
    Event,
    /// `envelope`: in what `wrap` puts around its data, which all of the routes have then.
    Envelope,
}

impl Route {
    /// Its host, if it names one, and its path: no other route has the same.
    pub fn name(&self) -> String {
        format!("{}{}", self.host.as_deref().unwrap_or_default(), self.path)
    }
}
