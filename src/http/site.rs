//! What a reload replaces: where requests go, who is let in, and what the public side goes by. A request takes the site as
//! it is when it comes, and keeps it for as long as it lasts.

use std::sync::Arc;

use super::access::AccessLog;
use super::router::Router;
use super::security::SecurityHeaders;
use crate::auth::Auth;
use crate::config::{Config, Limits, Proxies};
use crate::tls::Terminator;

/// One configuration, as the public side serves it.
pub struct Site {
    /// Where requests go.
    pub router: Router,
    /// Who may listen.
    pub auth: Arc<Auth>,
    /// What handshakes go by.
    pub terminator: Terminator,
    /// What a connection may take.
    pub limits: Limits,
    /// Who may speak for clients.
    pub proxies: Proxies,
    /// What every answer tells browsers.
    pub secure: SecurityHeaders,
    /// Where each request has a line, if that is asked for.
    pub access: Option<AccessLog>,
}

impl Site {
    /// Of a configuration, with what has to be made or to be kept for it.
    pub fn new(config: &Config, router: Router, auth: Arc<Auth>, terminator: Terminator) -> Arc<Self> {
        Arc::new(Self {
            router,
            auth,
            terminator,
            limits: config.limits,
            proxies: config.server.proxies.clone(),
            secure: SecurityHeaders::new(config.server.hsts),
            access: AccessLog::new(config),
        })
    }
}
