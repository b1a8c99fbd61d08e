//! `server.tls.client`: which certificates clients may show, and whether they have to.

use std::sync::Arc;

use rustls::RootCertStore;

use super::fields::Fields;
use super::identity::{self, WatchedFile};
use super::keys;
use super::tree::Node;
use super::walk::Walk;

/// `client: { ca, mode, passthrough }`
#[derive(Debug, Clone)]
pub struct ClientAuth {
    /// The file of the authorities.
    pub file: WatchedFile,
    /// What it held: whose certificates are believed.
    pub roots: Arc<RootCertStore>,
    /// `mode: required`, the default; with `optional` a client may also show none.
    pub required: bool,
    /// `passthrough`: whether proxies that say whom they speak for pass TLS through, so that a certificate in such a
    /// connection is the client's, and not their own. Default false.
    pub passthrough: bool,
}

/// Reads `client`.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<ClientAuth> {
    let fields = Fields::open(walk, node, keys::TLS_CLIENT)?;
    let ca = fields
        .required("ca", "it names the PEM file of the authorities that clients' certificates come from");
    let required = fields.choice("mode", &[("required", true), ("optional", false)]).unwrap_or(true);
    let passthrough = fields.flag("passthrough").unwrap_or(false);
    let ca = ca?;
    let (file, content) = walk.watched(ca, "the path of a PEM file")?;
    let roots = identity::read_roots(&content).map_err(|what| walk.problem(ca.span, what)).ok()?;
    Some(ClientAuth { file, roots: Arc::new(roots), required, passthrough })
}
