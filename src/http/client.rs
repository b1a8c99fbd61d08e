//! Whom a connection or a request comes from.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::Certificate;

/// A client, or a proxy that speaks for itself.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address; where a trusted proxy told another one, that, with port 0 where it told none.
    pub addr: SocketAddr,
    /// Its certificate, which an authority in `server.tls.client.ca` has issued and the handshake has proven. Never that of a
    /// proxy, which says nothing of who is behind it.
    pub certificate: Option<Arc<Certificate>>,
}
